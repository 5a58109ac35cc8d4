//! The state as this program reads it, with only what it prints. A later daemon may report more.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

use crate::model::JobId;

/// The daemon's state.
#[derive(Debug, Deserialize)]
pub struct View {
    pub program: Program,
    pub now: Timestamp,
    pub leads: bool,
    pub last_pass: Option<LastPass>,
    pub nomad: Health,
    pub github: Health,
    pub repositories: Repositories,
    #[serde(default)]
    pub classes: Vec<Class>,
    pub jobs: Jobs,
    pub runners: Runners,
    pub holds: List<Hold>,
    pub events: Vec<Event>,
    pub rate_limits: Vec<Rate>,
    pub points_per_minute: u64,
    pub history: History,
}

#[derive(Debug, Deserialize)]
pub struct Program {
    pub version: String,
    pub started_at: Timestamp,
}

#[derive(Debug, Deserialize)]
pub struct LastPass {
    pub at: Timestamp,
    pub took_seconds: f64,
    pub errors: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub struct Health {
    pub seen: bool,
    pub since: Option<Timestamp>,
}

#[derive(Debug, Deserialize)]
pub struct Repositories {
    pub all: usize,
    pub listed: usize,
}

#[derive(Debug, Deserialize)]
pub struct Jobs {
    pub queued: usize,
    pub held: usize,
    pub running: usize,
    pub waiting: List<Job>,
}

#[derive(Debug, Deserialize)]
pub struct Class {
    pub name: String,
    pub queued: usize,
    pub held: usize,
    pub running: usize,
    pub runners: usize,
}

#[derive(Debug, Deserialize)]
pub struct Runners {
    pub by_state: BTreeMap<String, usize>,
}

#[derive(Debug, Deserialize)]
pub struct List<T> {
    pub total: usize,
    pub items: Vec<T>,
}

#[derive(Debug, Deserialize)]
pub struct Job {
    pub repository: String,
    pub id: JobId,
    pub name: String,
    pub labels: String,
    pub state: String,
    pub waits_seconds: Option<u64>,
    pub reason: Option<Why>,
    pub runner: Option<String>,
}

#[derive(Debug, Deserialize)]
pub struct Hold {
    pub about: String,
    pub subject: String,
    pub reason: Why,
}

#[derive(Debug, Deserialize)]
pub struct Why {
    pub text: String,
}

#[derive(Debug, Deserialize)]
pub struct Event {
    pub at: Timestamp,
    pub failed: bool,
    pub text: String,
}

#[derive(Debug, Deserialize)]
pub struct Rate {
    pub credential: String,
    pub bucket: String,
    pub limit: u64,
    pub remaining: u64,
    pub reset: i64,
}

#[derive(Debug, Deserialize)]
pub struct History {
    pub queue_p50_seconds: Option<f64>,
    pub queue_p95_seconds: Option<f64>,
}

impl View {
    /// Whether the daemon reaches Nomad and GitHub.
    pub fn is_well(&self) -> bool {
        self.nomad.seen && self.github.seen
    }
}
