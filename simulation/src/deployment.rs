//! The deployment that a run simulates: its names, limits and secrets, and what belongs to it.

use std::collections::BTreeSet;

use bytes::Bytes;
use githubrunner_sim::{
    github::{Reach, Token},
    nomad,
    world::World,
};
use hyper::Request;
use serde_json::Value;

/// The long-lived token, which must not appear anywhere.
pub const GITHUB_TOKEN: &str = "ghp_SECRETtokenOfTheDaemon0123456789";
/// The secret of deliveries, which must not appear anywhere.
pub const WEBHOOK_SECRET: &str = "SECRETofTheWebhooks0123456789abcdef";

/// The start of every JIT configuration (base64 of `{".runner":"eyJ`), which no other text here has.
pub const JIT_MARK: &str = "eyIucnVubmVyIjoiZXlK";

/// The runner group's name.
pub const GROUP: &str = "Simulated ones";
/// Nomad's token; likewise.
pub const NOMAD_TOKEN: &str = "5ec4e7aa-70ce-4e57-9a3b-0123456789ab";
/// The namespace of the runners' jobs.
pub const NAMESPACE: &str = "runners";
/// The namespace of a class's runners.
pub const ELSEWHERE: &str = "others";
/// `jobprefix`.
pub const PREFIX: &str = "sim";
/// The Meta key.
pub const META: &str = "githubrunner";

/// A job that claims to be ours and is not. Its ID has our prefix.
pub const PLANTED: &str = "sim-acme-app-planted00000000";

/// The prefix of a neighbour's job IDs, which includes our prefix.
pub const STRANGER: &str = "sim-stranger-";

/// The largest body that the daemon accepts from Nomad here.
pub const MAX_BODY: usize = 96 * 1024;

/// The parts of the scenario that mishaps need.
#[derive(Clone, Debug)]
pub struct Place {
    /// The namespace of the runners' jobs.
    pub namespace: String,
    /// The prefix of the runners' jobs, with the dash.
    pub prefix: String,
    /// Jobs, variables and registrations with this prefix that belong to others.
    pub foreign: BTreeSet<String>,
    /// The daemon's token.
    pub token: String,
    /// The token's owner.
    pub login: String,
    /// The installations of the daemon's App, if it is one.
    pub installations: Vec<u64>,
    /// The repositories' IDs.
    pub repositories: Vec<u64>,
    /// Another repository of the first one's owner, which the daemon does not watch: an organization's runners take its
    /// jobs.
    pub elsewhere: Option<u64>,
    /// Runners have JIT configurations.
    pub jit: bool,
    /// Runners have another name at GitHub.
    pub renamed: bool,
}

impl Place {
    /// The token's rights at GitHub, without what it must not reach.
    pub fn token_without(&self, hidden: &BTreeSet<u64>) -> Token {
        let scopes = ["repo", "admin:org"];
        let reach = self.repositories.iter().copied().filter(|id| !hidden.contains(id)).collect();
        match hidden.is_empty() {
            true => Token::classic(&self.login, &scopes),
            false => Token::classic(&self.login, &scopes).reaching(Reach::Only(reach)),
        }
    }

    /// Whether runners may be in this namespace.
    pub fn covers(&self, namespace: &str) -> bool {
        namespace == self.namespace || namespace == ELSEWHERE
    }

    /// The job with this ID, in whichever namespace it is.
    pub fn job<'w>(&self, world: &'w World, name: &str) -> Option<&'w nomad::Job> {
        world.nomad.job(&self.namespace, name).or_else(|| world.nomad.job(ELSEWHERE, name))
    }

    /// The namespace of this job.
    pub fn namespace_of(&self, world: &World, name: &str) -> &str {
        if world.nomad.job(ELSEWHERE, name).is_some() { ELSEWHERE } else { &self.namespace }
    }

    /// A runner's variable, in whichever namespace it is.
    pub fn variable<'w>(&self, world: &'w World, name: &str) -> Option<&'w nomad::Variable> {
        let path = format!("nomad/jobs/{name}");
        world.nomad.variable(&self.namespace, &path).or_else(|| world.nomad.variable(ELSEWHERE, &path))
    }

    pub fn ours(&self, name: &str) -> bool {
        name.starts_with(&self.prefix) && !self.foreign.contains(name) && !is_strange(name)
    }
}

/// Whether a request is about the namespace of one class's runners.
pub fn is_elsewhere(request: &Request<Bytes>) -> bool {
    let namespace = format!("namespace={ELSEWHERE}");
    request.uri().query().is_some_and(|query| query.split('&').any(|pair| pair == namespace))
}

/// Whether a neighbour created a job to be taken for ours, or to be in the way.
pub fn is_strange(name: &str) -> bool {
    name == PLANTED || name.starts_with(STRANGER)
}

/// Marks a Meta that someone created for the next attempt at a job of ours. The daemon does not know about it.
pub const MARK: &str = "planted";

/// Whether someone created a job under the name that one of ours will have.
pub fn is_planted(job: &nomad::Job) -> bool {
    meta_of_job(job).get(MARK).is_some()
}

/// The Meta JSON of a Nomad job.
pub fn meta_of(text: Option<&str>) -> Value {
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// The Meta of this job.
pub fn meta_of_job(job: &nomad::Job) -> Value {
    meta_of(job.meta.get(META).map(String::as_str))
}
