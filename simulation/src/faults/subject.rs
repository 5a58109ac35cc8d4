//! The runner that a request is about.

use bytes::Bytes;
use githubrunner_sim::{fault::Side, world::World};
use hyper::{Method, Request};
use serde_json::Value;

/// The runner that a request is about, if any; the world knows a registration's name.
pub fn subject(world: Option<&World>, side: Side, request: &Request<Bytes>) -> Option<String> {
    let path = request.uri().path();
    let query = request.uri().query().unwrap_or_default();
    let last = path.rsplit('/').next().unwrap_or_default();
    let body = |pointer: &str| {
        let body: Value = serde_json::from_slice(request.body()).ok()?;
        body.pointer(pointer).and_then(Value::as_str).map(str::to_owned)
    };
    let of_query = |key: &str| query.split('&').find_map(|pair| pair.strip_prefix(key)).map(str::to_owned);
    let name = match side {
        Side::Nomad if path == "/v1/jobs" && request.method() != Method::GET => body("/Job/ID"),
        Side::Nomad if path == "/v1/jobs" => of_query("prefix="),
        Side::Nomad if path == "/v1/vars" => {
            of_query("prefix=").and_then(|prefix| prefix.strip_prefix("nomad%2Fjobs%2F").map(str::to_owned))
        }
        Side::Nomad if path == "/v1/allocations" => {
            query.split("%5E").nth(1).and_then(|rest| rest.split("%22").next()).map(str::to_owned)
        }
        Side::Nomad if path.starts_with("/v1/job/") || path.starts_with("/v1/var/nomad/jobs/") => {
            Some(last.to_owned())
        }
        Side::GitHub if path.ends_with("/generate-jitconfig") => body("/name"),
        Side::GitHub if path.ends_with("/actions/runners") => of_query("name="),
        Side::GitHub if path.contains("/actions/runners/") => {
            let runner = last.parse().ok().and_then(|id| world?.github.runner(id));
            runner.map(|runner| runner.name.clone())
        }
        _ => None,
    };
    // A pass's lists request everything with this prefix.
    name.filter(|name| !name.is_empty() && !name.ends_with('-'))
}
