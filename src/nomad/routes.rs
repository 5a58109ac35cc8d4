//! The paths of the requested API endpoints, as in its documentation: a fixed set, independent of job names.

use crate::http;

const ROUTES: &[&str] = &[
    "/v1/allocation/{allocation}",
    "/v1/allocations",
    "/v1/client/fs/logs/{allocation}",
    "/v1/evaluations",
    "/v1/job/{job}",
    "/v1/job/{job}/allocations",
    "/v1/job/{job}/plan",
    "/v1/jobs",
    "/v1/jobs/parse",
    "/v1/namespace/{namespace}",
    "/v1/status/leader",
    "/v1/validate/job",
    "/v1/var/{path}",
    "/v1/vars",
];

/// The template of a path.
pub fn route(path: &str) -> &'static str {
    http::route(path, ROUTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_names_no_job() {
        assert_eq!(route("/v1/job/NTGithubRunner-acme-widgets-abc"), "/v1/job/{job}");
        assert_eq!(route("/v1/var/nomad/jobs/NTGithubRunner-acme"), "/v1/var/{path}");
        assert_eq!(route("/v1/secret/path"), http::OTHER);
    }
}
