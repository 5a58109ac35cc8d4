//! The paths of the requested API endpoints, as in its documentation: a fixed set, independent of the names of owners
//! and repositories.

use crate::http;

const ROUTES: &[&str] = &[
    "/app",
    "/app/hook/config",
    "/app/hook/deliveries",
    "/app/installations",
    "/app/installations/{installation}/access_tokens",
    "/installation/repositories",
    "/orgs/{org}",
    "/orgs/{org}/actions/runner-groups",
    "/orgs/{org}/actions/runners",
    "/orgs/{org}/actions/runners/deprecations/{version}",
    "/orgs/{org}/actions/runners/generate-jitconfig",
    "/orgs/{org}/actions/runners/registration-token",
    "/orgs/{org}/actions/runners/{runner}",
    "/orgs/{org}/hooks",
    "/orgs/{org}/hooks/{hook}",
    "/orgs/{org}/hooks/{hook}/deliveries",
    "/orgs/{org}/installation",
    "/orgs/{org}/repos",
    "/rate_limit",
    "/repos/{owner}/{repo}",
    "/repos/{owner}/{repo}/actions/runners",
    "/repos/{owner}/{repo}/actions/runners/deprecations/{version}",
    "/repos/{owner}/{repo}/actions/runners/generate-jitconfig",
    "/repos/{owner}/{repo}/actions/runners/registration-token",
    "/repos/{owner}/{repo}/actions/runners/{runner}",
    "/repos/{owner}/{repo}/actions/runs",
    "/repos/{owner}/{repo}/actions/runs/{run}",
    "/repos/{owner}/{repo}/actions/runs/{run}/jobs",
    "/repos/{owner}/{repo}/hooks",
    "/repos/{owner}/{repo}/hooks/{hook}",
    "/repos/{owner}/{repo}/hooks/{hook}/deliveries",
    "/repos/{owner}/{repo}/installation",
    "/repositories/{id}",
    "/user",
    "/user/repos",
    "/users/{user}",
    "/users/{user}/installation",
    "/users/{user}/repos",
];

/// The template of a path on the API's host. An Enterprise Server has its API below `/api/v3`.
pub fn route(path: &str) -> &'static str {
    http::route(path.strip_prefix("/api/v3").unwrap_or(path), ROUTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_names_no_repository() {
        let jobs = "/repos/{owner}/{repo}/actions/runs/{run}/jobs";
        assert_eq!(route("/repos/acme/widgets/actions/runs/7/jobs"), jobs);
        assert_eq!(route("/api/v3/repos/acme/widgets/actions/runs/7/jobs"), jobs);
        // A named endpoint is not taken for a runner's ID.
        let jit = "/orgs/acme/actions/runners/generate-jitconfig";
        assert_eq!(route(jit), "/orgs/{org}/actions/runners/generate-jitconfig");
        assert_eq!(route("/repos/acme/widgets/secrets"), http::OTHER);
    }
}
