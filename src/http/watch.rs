//! Who watches a client's exchanges, and the few names that their paths are told by.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::{Method, StatusCode};
use tokio::time::Instant;

use super::message::Request;

/// Told of each exchange when it is over.
pub trait Observer: fmt::Debug + Send + Sync {
    /// An exchange is over.
    fn exchanged(&self, exchange: Exchanged<'_>);
}

/// An exchange that is over.
#[derive(Clone, Copy, Debug)]
pub struct Exchanged<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path without the query, as the request had it: text of others, and without bound.
    pub path: &'a str,
    /// The answer's status; `None` where no whole answer came in time.
    pub status: Option<StatusCode>,
    /// From the wait for a connection to the end of the body.
    pub took: Duration,
}

/// What a path is told by where no template fits.
pub const OTHER: &str = "other";

/// The first of the templates that a path fits, else [`OTHER`]. A segment in braces stands for any one; `{path}` at the
/// end for all that are left.
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

/// Who is told of a client's exchanges.
#[derive(Default)]
pub(super) struct Watch(Mutex<Option<Arc<dyn Observer>>>);

impl Watch {
    /// This one is told from now on.
    pub fn set(&self, observer: Arc<dyn Observer>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(observer);
    }

    /// Watches an exchange from now to the end of what this gives back.
    pub fn begin<'a>(&self, request: &'a Request) -> Watched<'a> {
        let observer = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Watched { observer, request, began: Instant::now(), status: None }
    }
}

/// An exchange that is under way. Also one that nobody waits for any more is told.
pub(super) struct Watched<'a> {
    observer: Option<Arc<dyn Observer>>,
    request: &'a Request,
    began: Instant,
    /// To be set when the whole answer is there.
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
    fn a_path_is_told_by_its_template() {
        let templates = ["/orgs/{owner}/hooks", "/repos/{owner}/{repo}", "/v1/var/{path}", "/v1/jobs"];
        assert_eq!(route("/repos/acme/widgets", &templates), "/repos/{owner}/{repo}");
        assert_eq!(route("/v1/var/nomad/jobs/x", &templates), "/v1/var/{path}");
        assert_eq!(route("/v1/jobs", &templates), "/v1/jobs");
        for strange in ["/repos/acme", "/repos/acme/widgets/more", "/repos//widgets", "/", "", "/v1/job"] {
            assert_eq!(route(strange, &templates), OTHER, "{strange}");
        }
    }
}
