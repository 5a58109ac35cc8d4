//! Observes a client's exchanges, and maps their paths to a fixed set of names.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper::{Method, StatusCode};
use tokio::time::Instant;

use super::message::Request;

/// Receives each exchange when it ends.
pub trait Observer: fmt::Debug + Send + Sync {
    /// An exchange has ended.
    fn exchanged(&self, exchange: Exchanged<'_>);
}

/// An exchange that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Exchanged<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path of the request without the query: external text of any length.
    pub path: &'a str,
    /// The response's status; `None` if no complete response came in time.
    pub status: Option<StatusCode>,
    /// From the wait for a connection to the end of the body.
    pub took: Duration,
}

/// The name of a path that fits no template.
pub const OTHER: &str = "other";

/// The first template that fits a path, or else [`OTHER`]. A segment in braces matches any segment; `{path}` at the end
/// matches all the rest.
pub fn route(path: &str, templates: &[&'static str]) -> &'static str {
    let fits = |template: &&&'static str| {
        let mut segments = path.split('/');
        for part in template.split('/') {
            match (part, segments.next()) {
                ("{path}", Some(_)) => return true,
                (_, None) => return false,
                (part, Some(segment)) => {
                    let is_any = part.starts_with('{') && !segment.is_empty();
                    if !is_any && part != segment {
                        return false;
                    }
                }
            }
        }
        segments.next().is_none()
    };
    templates.iter().find(fits).copied().unwrap_or(OTHER)
}

/// The observer of a client's exchanges.
#[derive(Default)]
pub(super) struct Watch(Mutex<Option<Arc<dyn Observer>>>);

impl Watch {
    /// Sets the observer.
    pub fn set(&self, observer: Arc<dyn Observer>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(observer);
    }

    /// Observes an exchange from now until the returned value is dropped.
    pub fn begin<'a>(&self, request: &'a Request) -> Watched<'a> {
        let observer = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Watched { observer, request, began: Instant::now(), status: None }
    }
}

/// An exchange in progress. It is reported even if it is cancelled.
pub(super) struct Watched<'a> {
    observer: Option<Arc<dyn Observer>>,
    request: &'a Request,
    began: Instant,
    /// Set when the response is complete.
    pub status: Option<StatusCode>,
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        let Some(observer) = &self.observer else { return };
        let path = self.request.path();
        observer.exchanged(Exchanged {
            method: self.request.method(),
            path: path.split_once('?').map_or(path, |(path, _)| path),
            status: self.status,
            took: self.began.elapsed(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_named_by_its_template() {
        let templates = ["/orgs/{owner}/hooks", "/repos/{owner}/{repo}", "/v1/var/{path}", "/v1/jobs"];
        assert_eq!(route("/repos/acme/widgets", &templates), "/repos/{owner}/{repo}");
        assert_eq!(route("/v1/var/nomad/jobs/x", &templates), "/v1/var/{path}");
        assert_eq!(route("/v1/jobs", &templates), "/v1/jobs");
        for strange in ["/repos/acme", "/repos/acme/widgets/more", "/repos//widgets", "/", "", "/v1/job"] {
            assert_eq!(route(strange, &templates), OTHER, "{strange}");
        }
    }
}
