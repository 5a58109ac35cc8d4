//! Errors of an exchange, and what they mean for its effect.

use std::{fmt, sync::Arc, time::Duration};

use hyper::{HeaderMap, Method, StatusCode};

use crate::{
    secret::Secret,
    text::{LINE, shown},
};

/// How many bytes of a body an error shows.
pub(super) const SHOWN_BODY: usize = 300;

/// Names of query parameters whose values are never shown.
const SECRET_PARAMETERS: &[&str] = &["token", "secret", "key", "password", "signature", "jwt", "code"];

/// The exchange of an error or response. Its URL contains no secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Exchange {
    pub method: Method,
    /// The URL, without user information and with the values of secret query parameters replaced.
    pub url: String,
    /// Whether the body of a successful response is a secret, so that errors must not quote it.
    pub(super) secret_answer: bool,
    /// The secrets that were sent, which a response may echo.
    pub(super) secrets: Arc<[Secret]>,
}

impl fmt::Display for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, shown(&self.url, LINE))
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A failed exchange. [`Error::is_ambiguous`] and [`Error::is_transient`] tell what it means.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The client could not be created: an invalid file, address or proxy.
    #[error("{0}")]
    Setup(String),
    /// The request itself is malformed; nothing was sent.
    #[error("{exchange}: the request cannot be sent: {detail}")]
    Invalid { exchange: Box<Exchange>, detail: String },
    /// No connection, so nothing was sent.
    #[error("{exchange}: cannot connect: {detail}; check the address and that the server is running")]
    Connect {
        exchange: Box<Exchange>,
        /// The system's message.
        detail: String,
    },
    /// No secure connection, so nothing was sent.
    #[error("{exchange}: TLS failed: {detail}; check the certificate authority and the server's name")]
    Tls {
        exchange: Box<Exchange>,
        /// TLS's message.
        detail: String,
    },
    /// The deadline passed.
    #[error("{exchange}: timed out after {:.1} s {}", .after.as_secs_f64(), if *.sent { "waiting for the response" } else { "connecting" })]
    Timeout {
        exchange: Box<Exchange>,
        /// The deadline of the exchange.
        after: Duration,
        /// Whether the request may have been sent.
        sent: bool,
    },
    /// The connection ended before the response was complete. The request may have taken effect.
    #[error("{exchange}: the connection closed before the response was complete: {detail}")]
    Closed {
        exchange: Box<Exchange>,
        /// The system's message.
        detail: String,
    },
    /// The response's body, or a line of it, is longer than allowed.
    #[error("{exchange}: status {status}: the response is larger than the limit of {limit} bytes")]
    BodyTooLarge {
        exchange: Box<Exchange>,
        status: StatusCode,
        /// The limit in bytes.
        limit: usize,
        /// The response's headers, from which the next page can still be requested.
        headers: Box<HeaderMap>,
    },
    /// A response whose status the caller does not accept.
    #[error("{exchange}: status {status}{}{body}", if .body.is_empty() { "" } else { ": " })]
    Status {
        exchange: Box<Exchange>,
        status: StatusCode,
        /// The start of the body, made safe to show.
        body: String,
        /// The wait that the server requested in `retry-after`.
        retry_after: Option<Duration>,
    },
    /// A response that is not the expected JSON.
    #[error("{exchange}: status {status}: unexpected response: {detail}{}{body}", if .body.is_empty() { "" } else { ": " })]
    Json {
        exchange: Box<Exchange>,
        status: StatusCode,
        /// The parser's message.
        detail: String,
        /// The start of the body, made safe to show.
        body: String,
    },
    /// The last of several attempts failed without an effect, but an earlier one may have had one.
    #[error("{0}")]
    Repeated(Box<Error>),
}

impl Error {
    /// The kind, in one word.
    pub fn kind(&self) -> &'static str {
        match self {
            Error::Setup(_) => "setup",
            Error::Invalid { .. } => "invalid_request",
            Error::Connect { .. } => "connect",
            Error::Tls { .. } => "tls",
            Error::Timeout { .. } => "timeout",
            Error::Closed { .. } => "closed",
            Error::BodyTooLarge { .. } => "too_large",
            Error::Status { .. } => "status",
            Error::Json { .. } => "json",
            Error::Repeated(error) => error.kind(),
        }
    }

    /// The same error for a request of which an earlier attempt may have taken effect.
    pub(super) fn repeated(self) -> Error {
        if self.is_ambiguous() { self } else { Error::Repeated(Box::new(self)) }
    }

    /// Whether the request may have taken effect although the exchange failed. `false` means that it
    /// certainly did not: nothing was sent, or the server refused it (4xx).
    pub fn is_ambiguous(&self) -> bool {
        match self {
            Error::Setup(_) | Error::Invalid { .. } | Error::Connect { .. } | Error::Tls { .. } => false,
            Error::Timeout { sent, .. } => *sent,
            Error::Closed { .. } | Error::BodyTooLarge { .. } | Error::Json { .. } | Error::Repeated(_) => {
                true
            }
            Error::Status { status, .. } => !status.is_client_error(),
        }
    }

    /// Whether the same request may succeed a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Setup(_) | Error::Invalid { .. } | Error::Tls { .. } => false,
            Error::BodyTooLarge { .. } | Error::Json { .. } => false,
            Error::Connect { .. } | Error::Timeout { .. } | Error::Closed { .. } => true,
            Error::Repeated(last) => last.is_transient(),
            Error::Status { status, .. } => {
                status.is_server_error()
                    || *status == StatusCode::TOO_MANY_REQUESTS
                    || *status == StatusCode::REQUEST_TIMEOUT
            }
        }
    }

    /// Whether the deadline passed after the request may have been sent.
    pub fn is_timeout(&self) -> bool {
        match self {
            Error::Timeout { sent, .. } => *sent,
            Error::Repeated(last) => last.is_timeout(),
            _ => false,
        }
    }

    /// The response's status, if there was a response.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Error::BodyTooLarge { status, .. }
            | Error::Status { status, .. }
            | Error::Json { status, .. } => Some(*status),
            Error::Repeated(last) => last.status(),
            _ => None,
        }
    }
}

/// The start of a body as one line of text: truncated, control characters replaced by spaces, other harmful
/// ones escaped.
pub(super) fn start_of(body: &[u8]) -> String {
    let cut = &body[..body.len().min(SHOWN_BODY)];
    let text = String::from_utf8_lossy(cut);
    let mut line = String::with_capacity(text.len());
    for word in text.split(|c: char| c.is_control() || c.is_whitespace()).filter(|word| !word.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if body.len() > SHOWN_BODY {
        line.push('…');
    }
    shown(&line, LINE).to_string()
}

/// A path with its query for display, with secret parameters' values replaced.
pub(super) fn shown_path(path: &str) -> String {
    // Not truncated, because responses are cached under it.
    let clean = |text: &str| shown(text, usize::MAX).to_string();
    let Some((path, query)) = path.split_once('?') else { return clean(path) };
    let query: Vec<String> = query
        .split('&')
        .map(|pair| match pair.split_once('=') {
            Some((key, _)) if is_secret_parameter(key) => format!("{key}=***"),
            _ => pair.to_owned(),
        })
        .collect();
    clean(&format!("{path}?{}", query.join("&")))
}

fn is_secret_parameter(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    // `next_token` is Nomad's page marker, a job's ID, and useful to see.
    key != "next_token" && SECRET_PARAMETERS.iter().any(|name| key.contains(name))
}
