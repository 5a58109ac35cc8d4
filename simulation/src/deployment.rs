//! The deployment that a run simulates: its names, limits and secrets, and what is its own.

use std::collections::BTreeSet;

use githubrunner_sim::github::{Reach, Token};
use githubrunner_sim::nomad;
use serde_json::Value;

/// The long-lived token; it must be seen nowhere.
pub const GITHUB_TOKEN: &str = "ghp_SECRETtokenOfTheDaemon0123456789";
/// What deliveries are signed with; it must be seen nowhere.
pub const WEBHOOK_SECRET: &str = "SECRETofTheWebhooks0123456789abcdef";

/// How every JIT configuration begins (it is base 64 of `{".runner":"eyJ`), and no other text here does.
pub const JIT_MARK: &str = "eyIucnVubmVyIjoiZXlK";

/// The runner group's name.
pub const GROUP: &str = "Simulated ones";
/// Nomad's token; likewise.
pub const NOMAD_TOKEN: &str = "5ec4e7aa-70ce-4e57-9a3b-0123456789ab";
/// The namespace of the runners' jobs.
pub const NAMESPACE: &str = "runners";
/// `jobprefix`.
pub const PREFIX: &str = "sim";
/// The Meta key.
pub const META: &str = "githubrunner";

/// A job that says it is ours and is not. Its ID has our prefix.
pub const PLANTED: &str = "sim-acme-app-planted00000000";

/// What the IDs of a neighbour's jobs begin with. They have our prefix.
pub const STRANGER: &str = "sim-stranger-";

/// The longest body that the daemon takes from Nomad here.
pub const MAX_BODY: usize = 96 * 1024;

/// What mishaps need to know of the scenario.
#[derive(Clone, Debug)]
pub struct Place {
    /// The namespace of the runners' jobs.
    pub namespace: String,
    /// What the runners' jobs begin with, with the dash.
    pub prefix: String,
    /// Jobs, variables and registrations that begin so and are somebody else's.
    pub foreign: BTreeSet<String>,
    /// The daemon's token.
    pub token: String,
    /// Whose it is.
    pub login: String,
    /// The installations of the daemon's App, if it is one.
    pub installations: Vec<u64>,
    /// The repositories' IDs.
    pub repositories: Vec<u64>,
    /// Another one of the first one's owner, which the daemon does not look at: an organization's runners take its jobs.
    pub elsewhere: Option<u64>,
    /// Runners have JIT configurations.
    pub jit: bool,
    /// Runners have another name at GitHub.
    pub renamed: bool,
}

impl Place {
    /// The token at GitHub, but for what it shall not reach.
    pub fn token_without(&self, hidden: &BTreeSet<u64>) -> Token {
        let scopes = ["repo", "admin:org"];
        let reach = self.repositories.iter().copied().filter(|id| !hidden.contains(id)).collect();
        match hidden.is_empty() {
            true => Token::classic(&self.login, &scopes),
            false => Token::classic(&self.login, &scopes).reaching(Reach::Only(reach)),
        }
    }

    pub fn ours(&self, name: &str) -> bool {
        name.starts_with(&self.prefix) && !self.foreign.contains(name) && !is_strange(name)
    }
}

/// Whether a job is one that a neighbour has made to be taken for ours, or to be in the way.
pub fn is_strange(name: &str) -> bool {
    name == PLANTED || name.starts_with(STRANGER)
}

/// What marks a Meta that somebody has made for the next attempt of a job of ours. The daemon knows nothing of it.
pub const MARK: &str = "planted";

/// Whether somebody has made a job under the name that one of ours will have.
pub fn is_planted(job: &nomad::Job) -> bool {
    meta_of_job(job).get(MARK).is_some()
}

/// The Meta JSON of a Nomad job.
pub fn meta_of(text: Option<&str>) -> Value {
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// That of this one.
pub fn meta_of_job(job: &nomad::Job) -> Value {
    meta_of(job.meta.get(META).map(String::as_str))
}
