//! Parsing of requests, and responses.

use bytes::Bytes;
use hyper::{
    Method, Request, Response, StatusCode,
    header::{CONTENT_TYPE, DATE, HeaderName, HeaderValue},
};
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::{Nomad, acl::Access, gotime};

/// The header that a server adds to a request from a task's `api.sock`.
const TASK_API: &str = "x-sim-task-api";

/// A refusal: a response with a plain text body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The status.
    pub status: u16,
    /// The body.
    pub text: String,
    /// The value of `X-Nomad-Index`, if it is present.
    pub index: Option<u64>,
    /// Whether the headers of a query are present too.
    pub query: bool,
}

impl Refusal {
    /// Without an index.
    pub fn new(status: u16, text: impl Into<String>) -> Refusal {
        Refusal { status, text: text.into(), index: None, query: false }
    }

    /// Permission denied.
    pub fn denied() -> Refusal {
        Refusal::new(403, "Permission denied")
    }

    /// Method not allowed.
    pub fn method() -> Refusal {
        Refusal::new(405, "Invalid method")
    }

    /// The same with an index.
    pub fn at(self, index: u64) -> Refusal {
        Refusal { index: Some(index), ..self }
    }

    /// The same with an index and the other headers of a query.
    pub fn query(self, index: u64) -> Refusal {
        Refusal { index: Some(index), query: true, ..self }
    }
}

/// A response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    status: u16,
    body: Vec<u8>,
    kind: Option<&'static str>,
    index: Option<u64>,
    query: bool,
    next: Option<String>,
}

impl Reply {
    /// JSON, 200.
    pub fn json(value: &Value) -> Reply {
        Reply {
            status: 200,
            body: value.to_string().into_bytes(),
            kind: Some("application/json"),
            ..Reply::default()
        }
    }

    /// An empty body.
    pub fn empty(status: u16) -> Reply {
        Reply { status, ..Reply::default() }
    }

    /// Text with this content type.
    pub fn text(status: u16, kind: &'static str, text: impl Into<Vec<u8>>) -> Reply {
        Reply { status, body: text.into(), kind: Some(kind), ..Reply::default() }
    }

    /// The same with `X-Nomad-Index`, like a write.
    pub fn at(self, index: u64) -> Reply {
        Reply { index: Some(index), ..self }
    }

    /// The same with the headers of a query.
    pub fn query(self, index: u64) -> Reply {
        Reply { index: Some(index), query: true, ..self }
    }

    /// The same with the next page's token.
    pub fn next(self, token: Option<String>) -> Reply {
        Reply { next: token, ..self }
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Reply {
        Reply {
            index: refusal.index,
            query: refusal.query,
            ..Reply::text(refusal.status, "text/plain; charset=utf-8", refusal.text)
        }
    }
}

/// The result of a handler.
pub type Handled = Result<Reply, Refusal>;

/// A parsed request.
pub struct Exchange<'r> {
    /// The method.
    pub method: &'r Method,
    /// The decoded path without `/v1/`.
    pub path: String,
    query: Vec<(String, String)>,
    /// The body.
    pub body: &'r Bytes,
    /// The token's permissions.
    pub access: Access,
}

impl<'r> Exchange<'r> {
    /// Parses a request and determines its permissions.
    ///
    /// # Errors
    /// Over the task API: no token, or one that does not exist.
    pub fn new(nomad: &Nomad, request: &'r Request<Bytes>) -> Result<Exchange<'r>, Refusal> {
        let uri = request.uri();
        let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
        let bearer = || header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        let token = header("x-nomad-token").or_else(bearer).unwrap_or_default();
        let known = nomad.access(token);
        if header(TASK_API).is_some() {
            if token.is_empty() {
                return Err(Refusal::new(401, "Unauthorized"));
            }
            if known.is_none() {
                return Err(Refusal::new(500, "Server error authenticating request\n"));
            }
        }
        let access = if nomad.options.acl {
            known.unwrap_or_default()
        } else {
            let mut access = known.unwrap_or_default();
            access.all = true;
            access
        };
        let path = percent_decode_str(uri.path()).decode_utf8_lossy().into_owned();
        Ok(Exchange {
            method: request.method(),
            path: path.strip_prefix("/v1/").unwrap_or_default().to_owned(),
            query: pairs(uri.query().unwrap_or_default()),
            body: request.body(),
            access,
        })
    }

    /// The part of the address that identifies a list.
    pub fn address(&self) -> String {
        format!("{} {:?}", self.path, self.query)
    }

    /// A query's parameter.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether a parameter is present.
    pub fn has(&self, name: &str) -> bool {
        self.param(name).is_some()
    }

    /// A boolean parameter, or the default.
    ///
    /// # Errors
    /// 500 with Go's text for an invalid boolean.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, Refusal> {
        match self.param(name) {
            None | Some("") => Ok(default),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some(other) => Err(Refusal::new(
                500,
                format!(
                    "Failed to parse value of {name:?} ({other}) as a bool: strconv.ParseBool: parsing {other:?}: invalid syntax"
                ),
            )),
        }
    }

    /// A `cas` parameter.
    ///
    /// # Errors
    /// 400 with Go's text for an invalid number.
    pub fn cas(&self) -> Result<Option<u64>, Refusal> {
        self.param("cas")
            .map(|text| {
                text.parse().map_err(|_| {
                    Refusal::new(
                        400,
                        format!("can not parse cas: strconv.ParseUint: parsing {text:?}: invalid syntax"),
                    )
                })
            })
            .transpose()
    }

    /// The namespace of the query, by default `default`.
    pub fn namespace(&self) -> &str {
        self.param("namespace").filter(|namespace| !namespace.is_empty()).unwrap_or("default")
    }

    /// The body as JSON. `go` is the type into which Go would decode it.
    ///
    /// # Errors
    /// 400 with Go's text.
    pub fn json(&self, go: &str) -> Result<Value, Refusal> {
        if self.body.is_empty() {
            return Err(Refusal::new(400, "Request body is empty"));
        }
        let value: Value = serde_json::from_slice(self.body)
            .map_err(|error| Refusal::new(400, go_error(self.body, &error)))?;
        match value {
            Value::Object(_) => Ok(value),
            other => {
                let kind = super::canonical::go_kind(&other);
                Err(Refusal::new(400, format!("json: cannot unmarshal {kind} into Go value of type {go}")))
            }
        }
    }

    /// Checks that it has one of these capabilities in the query's namespace.
    ///
    /// # Errors
    /// 403.
    pub fn may(&self, capabilities: &[&str]) -> Result<(), Refusal> {
        if self.access.namespace(self.namespace(), capabilities) { Ok(()) } else { Err(Refusal::denied()) }
    }
}

/// The pairs of a query string, decoded. `+` is a space.
pub fn pairs(query: &str) -> Vec<(String, String)> {
    url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

/// Go's text for invalid JSON.
fn go_error(body: &[u8], error: &serde_json::Error) -> String {
    let lines = body.split(|byte| *byte == b'\n');
    let before: usize = lines.take(error.line().saturating_sub(1)).map(|line| line.len() + 1).sum();
    let at = before + error.column().saturating_sub(1);
    match (error.is_eof(), body.get(at)) {
        (false, Some(byte)) => {
            let previous = body.get(..at).and_then(|b| b.iter().rfind(|b| !b.is_ascii_whitespace()));
            let looking = match previous {
                Some(b'{') => "looking for beginning of object key string",
                Some(b',') => "looking for beginning of value",
                _ => "looking for beginning of value",
            };
            format!("invalid character {:?} {looking}", char::from(*byte))
        }
        _ => "unexpected EOF".into(),
    }
}

impl Nomad {
    /// A response as HTTP, with the date of the simulation's clock.
    pub(super) fn response(&self, reply: Reply) -> Response<Bytes> {
        let mut response = Response::new(Bytes::from(reply.body));
        *response.status_mut() =
            StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        let seconds = u64::try_from(self.now / 1_000_000_000).unwrap_or_default();
        let date = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        let mut put = |name: HeaderName, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        put(DATE, &httpdate::fmt_http_date(date));
        if let Some(kind) = reply.kind {
            put(CONTENT_TYPE, kind);
        }
        if let Some(index) = reply.index {
            put(HeaderName::from_static("x-nomad-index"), &index.to_string());
        }
        if reply.query {
            put(HeaderName::from_static("x-nomad-knownleader"), if self.leader { "true" } else { "false" });
            put(HeaderName::from_static("x-nomad-lastcontact"), "0");
        }
        if let Some(next) = &reply.next {
            put(HeaderName::from_static("x-nomad-nexttoken"), next);
        }
        response
    }

    /// The simulation's clock.
    pub fn now(&self) -> jiff::Timestamp {
        gotime::timestamp(self.now)
    }
}
