//! A runner's process inside a Nomad task: its environment and its state.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::github::{GitHub, Refused, Registration};

/// The state of a runner's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It has started and not connected yet.
    Starting,
    /// It waits for a job.
    Listening,
    /// It runs a job.
    Working,
    /// It hangs, and will never connect.
    Stuck,
    /// It is about to end.
    Ending,
}

/// A live process.
pub(super) struct Process {
    pub allocation: String,
    pub namespace: String,
    pub nomad_job: String,
    pub credentials: Credentials,
    pub phase: Phase,
    pub runner: Option<u64>,
    pub job_id: Option<u64>,
    /// When it was started.
    pub since: Timestamp,
    /// Distinguishes the processes of one allocation.
    pub round: u64,
}

/// How a runner registers at GitHub. Not `Debug`, because it contains secrets.
#[derive(Clone)]
pub(super) enum Credentials {
    Jit(String),
    Token(Registration),
}

impl Credentials {
    /// Reads the variables of the official runner and of `myoung34/github-runner` (contract github.md §7). `None` if
    /// the task is not a runner.
    pub fn from_environment(env: &BTreeMap<String, String>) -> Option<Credentials> {
        let text = |name: &str| env.get(name).map(|value| value.trim()).filter(|value| !value.is_empty());
        if let Some(encoded) = text("ACTIONS_RUNNER_INPUT_JITCONFIG") {
            return Some(Credentials::Jit(encoded.to_string()));
        }
        let token = text("RUNNER_TOKEN").or(text("ACCESS_TOKEN"))?;
        let yes = |name: &str| matches!(text(name), Some("1" | "true" | "TRUE" | "True"));
        let url = match text("RUNNER_SCOPE") {
            Some(scope)
                if scope.eq_ignore_ascii_case("org") || scope.eq_ignore_ascii_case("organization") =>
            {
                format!("https://github.com/{}", text("ORG_NAME")?)
            }
            _ => text("REPO_URL").or(text("ORG_URL"))?.to_string(),
        };
        let labels = text("LABELS").or(text("RUNNER_LABELS")).unwrap_or("default");
        Some(Credentials::Token(Registration {
            token: token.to_string(),
            url,
            name: text("RUNNER_NAME").unwrap_or("github-runner").to_string(),
            labels: labels
                .split(',')
                .map(|label| label.trim().to_string())
                .filter(|l| !l.is_empty())
                .collect(),
            default_labels: !yes("NO_DEFAULT_LABELS"),
            // That image treats any value as true.
            ephemeral: text("EPHEMERAL").is_some(),
            replace: true,
        }))
    }

    /// Comes online. Returns the runner's ID.
    pub fn connect(&self, github: &mut GitHub, now: Timestamp) -> Result<u64, Refused> {
        match self {
            Credentials::Jit(encoded) => github.connect_jit(encoded, now),
            Credentials::Token(registration) => {
                let runner = github.register(registration, now)?;
                github.come_online(runner, now)?;
                Ok(runner)
            }
        }
    }
}
