//! Requests and responses.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use hyper::{
    HeaderMap, Method, StatusCode,
    header::{self, HeaderName, HeaderValue},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    error::{Error, Exchange, start_of},
    redact::redacted,
    secret,
};
use crate::secret::Secret;

/// The characters that are not escaped in a path segment or a query value (RFC 3986's unreserved characters).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A text as one percent-encoded path segment.
pub fn escape_segment(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// A request, created with builder-style methods. Sending it reports invalid parts (such as a header with a
/// newline) as [`Error::Invalid`].
#[derive(Clone)]
pub struct Request {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) from_root: bool,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Bytes>,
    pub(super) deadline: Option<Duration>,
    pub(super) max_body: Option<usize>,
    pub(super) secret_answer: bool,
    pub(super) secrets: Vec<Secret>,
    pub(super) invalid: Option<String>,
}

impl Request {
    /// A request for `path` (with its query, if any) below the endpoint's own path. The path begins with a
    /// slash and is already percent-encoded; see [`escape_segment`] and [`Request::query`].
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            from_root: false,
            headers: HeaderMap::new(),
            body: None,
            deadline: None,
            max_body: None,
            secret_answer: false,
            secrets: Vec::new(),
            invalid: None,
        }
    }

    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    pub fn put(path: impl Into<String>) -> Self {
        Self::new(Method::PUT, path)
    }

    pub fn post(path: impl Into<String>) -> Self {
        Self::new(Method::POST, path)
    }

    pub fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path)
    }

    /// Uses the path unchanged, without the endpoint's own path in front: for links from a server.
    #[must_use]
    pub fn from_root(mut self) -> Self {
        self.from_root = true;
        self
    }

    /// The same request for another path.
    #[must_use]
    pub fn with_path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// Adds a query parameter, percent-encoded.
    #[must_use]
    pub fn query(mut self, key: &str, value: &str) -> Self {
        self.path.push(if self.path.contains('?') { '&' } else { '?' });
        self.path.push_str(&escape_segment(key));
        self.path.push('=');
        self.path.push_str(&escape_segment(value));
        self
    }

    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Sets a header from a text.
    #[must_use]
    pub fn header_text(mut self, name: HeaderName, value: &str) -> Self {
        match HeaderValue::from_str(value) {
            Ok(value) => self.header(name, value),
            Err(_) => {
                self.invalid = Some(format!("the value of the header {name} contains an invalid character"));
                self
            }
        }
    }

    /// Its body contains this secret: errors hide it if the response echoes it.
    #[must_use]
    pub fn hiding(mut self, secret: &Secret) -> Self {
        self.secrets.push(secret.clone());
        self
    }

    /// Sets a header to `prefix` and a secret, marked as sensitive.
    #[must_use]
    pub fn header_secret(mut self, name: HeaderName, prefix: &str, secret: &Secret) -> Self {
        match secret::header(prefix, secret) {
            Ok(value) => self.hiding(secret).header(name, value),
            Err(_) => {
                self.invalid = Some(format!(
                    "the secret for the header {name} contains an invalid character (a trailing newline?)"
                ));
                self
            }
        }
    }

    /// Sets `Authorization: Bearer …`.
    #[must_use]
    pub fn bearer(self, token: &Secret) -> Self {
        self.header_secret(header::AUTHORIZATION, "Bearer ", token)
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Sets the body to JSON, with its content type.
    #[must_use]
    pub fn json<T: Serialize + ?Sized>(mut self, value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => {
                self.header(header::CONTENT_TYPE, HeaderValue::from_static("application/json")).body(body)
            }
            Err(error) => {
                self.invalid = Some(format!("its body cannot be written as JSON: {error}"));
                self
            }
        }
    }

    /// The deadline of the whole exchange, instead of the client's default.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// The largest body (or, for [`super::Client::lines`], line) in bytes, instead of the client's default.
    #[must_use]
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = Some(bytes);
        self
    }

    /// The response contains a secret: errors never quote the body of a successful one.
    #[must_use]
    pub fn secret_answer(mut self) -> Self {
        self.secret_answer = true;
        self
    }

    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The path with its query.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Shows neither headers nor the body, because either may contain a secret.
        write!(f, "Request({} {})", self.method, super::error::shown_path(&self.path))
    }
}

/// A complete response with any status.
#[derive(Clone)]
pub struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// The exchange; its `url` is for display and for keys, without secrets.
    pub exchange: Exchange,
    /// Whether an earlier attempt of the same request may have taken effect.
    pub(super) repeated: bool,
    /// The turn that a large body holds until it has been read.
    pub(super) _turn: Option<Arc<OwnedSemaphorePermit>>,
}

impl Response {
    /// Whether the status is 2xx.
    pub fn is_success(&self) -> bool {
        self.status.is_success()
    }

    /// The response itself if the status is 2xx, or else [`Error::Status`].
    ///
    /// # Errors
    /// [`Error::Status`].
    pub fn success(self) -> Result<Self, Error> {
        if self.is_success() { Ok(self) } else { Err(self.error()) }
    }

    /// The body as JSON, whatever the status.
    ///
    /// # Errors
    /// [`Error::Json`] if it is not what `T` expects.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|error| Error::Json {
            exchange: Box::new(self.exchange.clone()),
            status: self.status,
            // The parser quotes values with a wrong type, and the value may be the secret.
            detail: if self.hides_body() {
                format!("unexpected JSON at line {} column {}", error.line(), error.column())
            } else {
                self.shown(error.to_string().as_bytes())
            },
            body: self.shown_body(),
        })
    }

    /// The error that this response's status is not acceptable.
    pub fn error(&self) -> Error {
        let error = Error::Status {
            exchange: Box::new(self.exchange.clone()),
            status: self.status,
            body: self.shown_body(),
            retry_after: self.retry_after(),
        };
        if self.repeated { error.repeated() } else { error }
    }

    /// A header's text, if it is present and valid.
    pub fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The server's clock when it responded: its `Date` header, in whole seconds.
    pub fn date(&self) -> Option<jiff::Timestamp> {
        date_of(&self.headers)
    }

    /// The wait that the server requests: `retry-after` in seconds or as a date (relative to its own `Date`).
    pub fn retry_after(&self) -> Option<Duration> {
        let text = self.header(header::RETRY_AFTER)?.trim();
        if let Ok(seconds) = text.parse::<u64>() {
            return Some(Duration::from_secs(seconds));
        }
        let wait = http_date(text)?.duration_since(self.date()?);
        Some(Duration::try_from(wait).unwrap_or_default())
    }

    /// The start of the body for display: one line, truncated, without control characters; empty for a
    /// secret.
    pub fn shown_body(&self) -> String {
        if self.hides_body() { String::new() } else { self.shown(&self.body) }
    }

    /// The start of a text that may contain secrets.
    fn shown(&self, text: &[u8]) -> String {
        start_of(redacted(text, &self.exchange.secrets).as_bytes())
    }

    fn hides_body(&self) -> bool {
        self.exchange.secret_answer && self.status.is_success()
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Response({}: {}, {} bytes)", self.exchange, self.status, self.body.len())
    }
}

/// A server's clock when it sent these headers, as [`Response::date`].
pub fn date_of(headers: &HeaderMap) -> Option<jiff::Timestamp> {
    http_date(headers.get(header::DATE)?.to_str().ok()?)
}

/// An HTTP date as a timestamp.
fn http_date(text: &str) -> Option<jiff::Timestamp> {
    jiff::Timestamp::try_from(httpdate::parse_http_date(text).ok()?).ok()
}
