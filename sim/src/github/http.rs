//! From request to response: headers, limits, ETags.

use bytes::Bytes;
use hyper::{
    Method, Request, Response,
    header::{ACCEPT, AUTHORIZATION, HOST, IF_NONE_MATCH, USER_AGENT},
};
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::{Etags, GitHub, auth::Who, limits::Standing, reply::Reply};

/// A parsed request.
pub(super) struct Ask<'a> {
    pub who: Who,
    pub method: &'a Method,
    /// The scheme, host and prefix of URLs in the response.
    pub base: String,
    /// The decoded parts of the path after the prefix.
    pub path: Vec<String>,
    pub query: Vec<(String, String)>,
    pub body: &'a [u8],
}

impl Ask<'_> {
    /// The last value of a query parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON; null if it is empty.
    pub fn json(&self) -> Result<Value, Reply> {
        if self.body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(self.body).map_err(|_| Reply::error(400, "Problems parsing JSON"))
    }
}

impl GitHub {
    /// Handles a request at this time, like GitHub's REST API. Paths below `/_runner/` are the runners' own protocol.
    pub fn handle(&mut self, request: &Request<Bytes>, now: Timestamp) -> Response<Bytes> {
        self.advance(now);
        let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        let Some(mut ask) = self.ask(request) else {
            return finish(Reply::not_found(), now, &[]);
        };
        if ask.path.first().is_some_and(|first| first == "_runner") {
            return finish(self.runner_protocol(&ask), now, &[]);
        }
        if header(USER_AGENT).is_none_or(str::is_empty) {
            let refusal = "Request forbidden by administrative rules. Please make sure your request has a \
                           User-Agent header";
            return finish(Reply::error(403, refusal), now, &[]);
        }
        ask.who = match self.authenticate(header(AUTHORIZATION)) {
            Ok(who) => who,
            Err(reply) => return finish(reply, now, &[]),
        };
        let key = self.limit_key(&ask.who);
        let resource = resource(&ask);
        let limit = match ask.who {
            Who::Anonymous => 60,
            _ if resource == "core" => self.options.rate_limit,
            _ => 10_000,
        };
        if ask.path == ["rate_limit"] {
            let standing = self.limits.standing(&key, "core", limit, now);
            let reply = Reply::json(200, super::limits::overview(standing, now));
            return finish(reply, now, &standing.headers("core"));
        }
        let points = if ask.method == Method::GET { 1 } else { 5 };
        let refused = self.limits.admit(&key, resource, limit, points, &self.options, now);
        let mut reply = match refused {
            Some(refused) => refused,
            None => {
                let reply = self.routed(&ask, request);
                // A 304 to an authorized request is free (contract §4).
                if reply.status != 304 || matches!(ask.who, Who::Anonymous) {
                    self.limits.count(&key, resource, now);
                }
                reply
            }
        };
        if reply.status == 401 {
            reply = reply.with("www-authenticate", "Basic realm=\"GitHub\"".to_string());
        }
        let standing: Standing = self.limits.standing(&key, resource, limit, now);
        finish(reply, now, &standing.headers(resource))
    }

    /// Parses the request; `None` outside of the API's paths.
    fn ask<'a>(&self, request: &'a Request<Bytes>) -> Option<Ask<'a>> {
        let host = request.headers().get(HOST).and_then(|value| value.to_str().ok());
        let host = host.or(request.uri().host()).unwrap_or("api.github.com");
        let base = format!("{}://{host}{}", self.options.scheme, self.options.path_prefix);
        let whole = request.uri().path();
        let path = whole.strip_prefix(&self.options.path_prefix);
        // Runners need not know the prefix.
        let path = if whole.starts_with("/_runner/") { Some(whole) } else { path };
        let path = path.filter(|path| path.starts_with('/'))?;
        let path =
            path.split('/').skip(1).map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned());
        let mut path: Vec<String> = path.collect();
        if path.last().is_some_and(String::is_empty) {
            path.pop();
        }
        let query = request.uri().query().unwrap_or("");
        let query = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        Some(Ask { who: Who::Anonymous, method: request.method(), base, path, query, body: request.body() })
    }

    /// The response, or 304 if the client has it.
    fn routed(&mut self, ask: &Ask, request: &Request<Bytes>) -> Reply {
        let reply = self.route(ask);
        if ask.method != Method::GET || reply.status != 200 {
            return reply;
        }
        let etag = self.etag(request, &reply);
        let known = request.headers().get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
        let is_known = known.unwrap_or("").split(',').any(|known| known.trim() == etag);
        let reply = if is_known { Reply::empty(304) } else { reply };
        reply.with("etag", etag)
    }

    /// Weak, and different for each token.
    fn etag(&self, request: &Request<Bytes>, reply: &Reply) -> String {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        if self.options.etags == Etags::Opaque {
            context.update(b"of a proxy");
        }
        for name in [ACCEPT, AUTHORIZATION] {
            if let Some(value) = request.headers().get(name) {
                context.update(value.as_bytes());
                context.update(b":");
            }
        }
        context.update(reply.body.as_deref().unwrap_or_default().as_bytes());
        let digest = context.finish();
        let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("W/\"{hex}\"")
    }
}

/// The rate limit bucket of a request (contract §4: several).
fn resource(ask: &Ask) -> &'static str {
    match ask.path.last().map(String::as_str) {
        Some("registration-token" | "remove-token" | "generate-jitconfig") if ask.method == Method::POST => {
            "actions_runner_registration"
        }
        _ => "core",
    }
}

fn finish(reply: Reply, now: Timestamp, limits: &[(&'static str, String)]) -> Response<Bytes> {
    let mut response = Response::builder()
        .status(reply.status)
        .header("date", date(now))
        .header("server", "github.com")
        .header("x-github-media-type", "github.v3; format=json")
        .header("x-github-api-version-selected", "2022-11-28");
    if reply.status == 200 {
        response = response
            .header("cache-control", "private, max-age=60, s-maxage=60")
            .header("vary", "Accept, Authorization, Cookie, Accept-Encoding");
    }
    for (name, value) in reply.headers.iter().chain(limits) {
        response = response.header(*name, value);
    }
    let body = match reply.body {
        Some(body) => {
            response = response.header("content-type", "application/json; charset=utf-8");
            Bytes::from(body)
        }
        None => Bytes::new(),
    };
    // Every part above is well-formed. If one were not, the client would get an empty 500.
    response.body(body).unwrap_or_else(|_| {
        let mut broken = Response::new(Bytes::new());
        *broken.status_mut() = hyper::StatusCode::INTERNAL_SERVER_ERROR;
        broken
    })
}

/// `now` in the format of the Date header.
fn date(now: Timestamp) -> String {
    let seconds = u64::try_from(now.as_second()).unwrap_or(0);
    httpdate::fmt_http_date(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds))
}
