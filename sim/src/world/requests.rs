//! The number of requests for each route.

use std::collections::BTreeMap;

use bytes::Bytes;
use hyper::Request;

use super::fault::Side;

/// The number of requests for each route of each side, for tests and the benchmark.
#[derive(Clone, Debug, Default)]
pub struct Requests(BTreeMap<(Side, String), u64>);

impl Requests {
    pub(crate) fn count(&mut self, side: Side, request: &Request<Bytes>) {
        *self.0.entry((side, route(request))).or_insert(0) += 1;
    }

    /// All requests to one side.
    pub fn total(&self, side: Side) -> u64 {
        self.0.iter().filter(|((of, _), _)| *of == side).map(|(_, count)| count).sum()
    }

    /// Requests to one route, written as `GET /repos/{owner}/{repo}/actions/runs`.
    pub fn of(&self, side: Side, route: &str) -> u64 {
        self.0.get(&(side, route.to_string())).copied().unwrap_or(0)
    }

    /// All requested routes.
    pub fn routes(&self) -> impl Iterator<Item = (Side, &str, u64)> {
        self.0.iter().map(|((side, route), count)| (*side, route.as_str(), *count))
    }
}

/// A request's method and path. Names and numbers are replaced, which limits the number of routes.
fn route(request: &Request<Bytes>) -> String {
    let mut parts: Vec<&str> = request.uri().path().split('/').skip(1).collect();
    let mut index = 0;
    while index < parts.len() {
        match parts[index] {
            "repos" if index + 2 < parts.len() => {
                parts[index + 1] = "{owner}";
                parts[index + 2] = "{repo}";
                index += 2;
            }
            "orgs" | "users" | "job" | "allocation" | "sessions" if index + 1 < parts.len() => {
                parts[index + 1] = "{name}";
                index += 1;
            }
            "var" => {
                parts.truncate(index + 1);
                parts.push("{path}");
                break;
            }
            "logs" if index + 1 < parts.len() => {
                parts[index + 1] = "{name}";
                index += 1;
            }
            part if !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) => {
                parts[index] = "{id}"
            }
            _ => {}
        }
        index += 1;
    }
    format!("{} /{}", request.method(), parts.join("/"))
}
