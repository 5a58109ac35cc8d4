//! The sections `status` and `metrics`: what the daemon reports about itself, and to which clients.

use std::net::SocketAddr;

use super::{Environment, reader::Section, webhook::listen_address};
use crate::secret::Secret;

/// A shorter token can be guessed.
const SHORT_TOKEN: usize = 16;

/// `status` and `metrics`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusConfig {
    /// `status.listen`, or else GITHUBRUNNER_STATUS: serves the page, `/healthz`, `/readyz` and `/metrics`.
    pub listen: Option<SocketAddr>,
    /// `status.token`, or else GITHUBRUNNER_STATUS_TOKEN: required by the page and the API.
    pub token: Option<Secret>,
    /// `status.public`: opens the page and the API to everyone who can reach `listen`.
    pub public: bool,
    /// `metrics.per_repository`: adds a repository label to the gauges of jobs and runners.
    pub per_repository: bool,
}

impl StatusConfig {
    /// Without a configuration: the token from the environment.
    pub fn from_env(env: Environment) -> StatusConfig {
        StatusConfig {
            token: set(env, "GITHUBRUNNER_STATUS_TOKEN").map(Secret::new),
            ..StatusConfig::default()
        }
    }

    /// Warnings, each with what to change.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let is_closed = self.token.is_none() && !self.public;
        if let Some(listen) = self.listen.filter(|listen| is_closed && !listen.ip().is_loopback()) {
            warnings.push(format!(
                "status.listen is {listen}, which others can reach: the page and the API are closed, health and metrics are open; \
                 set status.token (or GITHUBRUNNER_STATUS_TOKEN), or status.public: true if everyone may see them"
            ));
        }
        if self.token.as_ref().is_some_and(|token| token.expose().len() < SHORT_TOKEN) {
            warnings.push(format!(
                "status.token is shorter than {SHORT_TOKEN} characters and can be guessed: use a long random one"
            ));
        }
        warnings
    }
}

/// An environment variable, if it is not empty.
fn set(env: Environment, name: &str) -> Option<String> {
    env(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Reads both sections.
pub(super) fn parse(top: &Section, env: Environment) -> StatusConfig {
    let section = top.section("status");
    let listen = section.text("listen").map(str::to_owned).or_else(|| set(env, "GITHUBRUNNER_STATUS"));
    let token = section.text("token").map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let token = token.or_else(|| set(env, "GITHUBRUNNER_STATUS_TOKEN"));
    if token.as_ref().is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
        section.problem(
            "token",
            "it contains a character that is not allowed in a header",
            "use letters and digits, for example from `openssl rand -hex 24`",
        );
    }
    let public = section.boolean("public", false);
    if public && token.is_some() {
        section.problem("public", "conflicts with status.token", "remove one of them");
    }
    let status = StatusConfig {
        listen: listen.filter(|text| !text.is_empty()).and_then(|text| listen_address(&section, &text)),
        token: token.map(Secret::new),
        public,
        per_repository: false,
    };
    section.finish();
    let metrics = top.section("metrics");
    let per_repository = metrics.boolean("per_repository", false);
    metrics.finish();
    StatusConfig { per_repository, ..status }
}
