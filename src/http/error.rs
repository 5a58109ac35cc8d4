//! What can go wrong in an exchange, and what that says about the other side.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hyper::{HeaderMap, Method, StatusCode};

use crate::secret::Secret;
use crate::text::{LINE, shown};

/// How much of a body an error shows, in bytes.
pub(super) const SHOWN_BODY: usize = 300;

/// Names of query parameters whose values are never shown.
const SECRET_PARAMETERS: &[&str] = &["token", "secret", "key", "password", "signature", "jwt", "code"];

/// Which exchange an error or answer belongs to. Its URL carries no secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Exchange {
    /// The method.
    pub method: Method,
    /// The URL, without user information and with the values of secret query parameters replaced.
    pub url: String,
    /// Whether a successful answer's body is a secret, so that errors may not quote it.
    pub(super) secret_answer: bool,
    /// The secrets that were sent: an answer may repeat them.
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

/// A failed exchange. See [`Error::is_ambiguous`] and [`Error::is_transient`] for what it means.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The client could not be made: a file, an address or a proxy that is unusable.
    #[error("{0}")]
    Setup(String),
    /// The request itself is malformed; nothing was sent.
    #[error("{exchange}: the request cannot be sent: {detail}")]
    Invalid {
        /// The exchange.
        exchange: Box<Exchange>,
        /// Why.
        detail: String,
    },
    /// Nobody there: no connection, so nothing was sent.
    #[error("{exchange}: cannot connect: {detail}; check the address and that the server is running")]
    Connect {
        /// The exchange.
        exchange: Box<Exchange>,
        /// What the system said.
        detail: String,
    },
    /// No secure connection, so nothing was sent.
    #[error("{exchange}: TLS failed: {detail}; check the certificate authority and the server's name")]
    Tls {
        /// The exchange.
        exchange: Box<Exchange>,
        /// What TLS said.
        detail: String,
    },
    /// The deadline passed.
    #[error("{exchange}: timed out after {:.1} s {}", .after.as_secs_f64(), if *.sent { "waiting for the response" } else { "connecting" })]
    Timeout {
        /// The exchange.
        exchange: Box<Exchange>,
        /// How long the exchange was given.
        after: Duration,
        /// Whether the request may have been sent.
        sent: bool,
    },
    /// The connection ended before the response was complete. The request may have taken effect.
    #[error("{exchange}: the connection closed before the response was complete: {detail}")]
    Closed {
        /// The exchange.
        exchange: Box<Exchange>,
        /// What the system said.
        detail: String,
    },
    /// The answer's body, or a line of it, is longer than allowed.
    #[error("{exchange}: status {status}: the response is larger than the limit of {limit} bytes")]
    BodyTooLarge {
        /// The exchange.
        exchange: Box<Exchange>,
        /// The answer's status.
        status: StatusCode,
        /// The limit in bytes.
        limit: usize,
        /// The answer's headers: what follows may be asked for all the same.
        headers: Box<HeaderMap>,
    },
    /// An answer whose status the caller does not take.
    #[error("{exchange}: status {status}{}{body}", if .body.is_empty() { "" } else { ": " })]
    Status {
        /// The exchange.
        exchange: Box<Exchange>,
        /// The answer's status.
        status: StatusCode,
        /// The start of the body, cleaned for showing.
        body: String,
        /// The wait that the server asked for in `retry-after`.
        retry_after: Option<Duration>,
    },
    /// An answer that is not the JSON the caller expects.
    #[error("{exchange}: status {status}: unexpected response: {detail}{}{body}", if .body.is_empty() { "" } else { ": " })]
    Json {
        /// The exchange.
        exchange: Box<Exchange>,
        /// The answer's status.
        status: StatusCode,
        /// What the parser said.
        detail: String,
        /// The start of the body, cleaned for showing.
        body: String,
    },
    /// The last attempt of several failed so, and had no effect; an earlier one may have had one.
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

    /// The same for a request of which an earlier attempt may have taken effect.
    pub(super) fn repeated(self) -> Error {
        if self.is_ambiguous() { self } else { Error::Repeated(Box::new(self)) }
    }

    /// Whether the request may have taken effect although the exchange failed. `false` means that it
    /// certainly had none: nothing was sent, or the server refused it (4xx).
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

    /// Whether the same request may well succeed a little later.
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

    /// The answer's status, where there was an answer.
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

/// The start of a body as one line of text: bounded, control characters as spaces, other harmful ones escaped.
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

/// A path with its query, secret parameters' values replaced, for showing.
pub(super) fn shown_path(path: &str) -> String {
    // Not cut: answers are kept by it.
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
    // `next_token` is Nomad's page marker, a job's ID, and worth seeing.
    key != "next_token" && SECRET_PARAMETERS.iter().any(|name| key.contains(name))
}
