//! `/api/v1/state`: what the daemon knows. The page is made of it. Its schema is docs/state.schema.json.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::{
    history::{Event, Point},
    snapshot::{ClassRow, HoldRow, JobRow, PlanRow, Rate, RunnerRow},
};

/// All of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct State {
    /// The program that runs.
    pub program: Program,
    /// When this was written, by this machine's clock.
    pub now: Timestamp,
    /// Grows with each pass.
    pub revision: u64,
    /// Whether this replica applies; the others only look.
    pub leads: bool,
    /// The last pass.
    pub last_pass: Option<LastPass>,
    /// Nomad's health.
    pub nomad: Health,
    /// GitHub's health.
    pub github: Health,
    /// Repositories, and those that the last pass that asked GitHub listed.
    pub repositories: Repositories,
    /// The classes of the configuration, and others that runners still are of; the top level is not among them.
    pub classes: Vec<ClassRow>,
    /// GitHub jobs.
    pub jobs: Jobs,
    /// Runners.
    pub runners: Runners,
    /// What is deliberately not done.
    pub holds: List<HoldRow>,
    /// What the last pass planned.
    pub plan: List<PlanRow>,
    /// The last actions and failures, the newest first.
    pub events: Vec<Event>,
    /// GitHub's rate limits.
    pub rate_limits: Vec<Rate>,
    /// What the last minute's requests cost of GitHub's secondary limit.
    pub points_per_minute: u64,
    /// The last hour.
    pub history: History,
}

/// The program.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Program {
    /// Its version.
    pub version: &'static str,
    /// When it started.
    pub started_at: Timestamp,
}

/// A pass that is over.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LastPass {
    /// When it ended.
    pub at: Timestamp,
    /// How long it took.
    pub took_seconds: f64,
    /// What it could not observe.
    pub errors: Vec<String>,
}

/// Whether one of the two is seen.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Health {
    /// Whether the last pass saw it.
    pub seen: bool,
    /// Since when that is so; `None` before the first pass.
    pub since: Option<Timestamp>,
}

/// How many repositories there are.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Repositories {
    /// All of them.
    pub all: usize,
    /// Those that were listed.
    pub listed: usize,
}

/// GitHub jobs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Jobs {
    /// Those that want a runner and may have one.
    pub queued: usize,
    /// Those that are held.
    pub held: usize,
    /// Those that run on a runner of ours.
    pub running: usize,
    /// Those that are queued or held, the oldest first.
    pub waiting: List<JobRow>,
}

/// Runners.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Runners {
    /// How many there are in each state.
    pub by_state: BTreeMap<&'static str, usize>,
    /// Each, those that are alive first, the newest first.
    pub list: List<RunnerRow>,
}

/// As many of them as are told, and how many there are.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct List<T> {
    /// All of them.
    pub total: usize,
    /// The first of them.
    pub items: Vec<T>,
}

/// The last hour.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct History {
    /// How long half of the jobs that were taken in it waited at most, in seconds.
    pub queue_p50_seconds: Option<f64>,
    /// How long 95 of 100 of them waited at most.
    pub queue_p95_seconds: Option<f64>,
    /// A point a minute, the newest last.
    pub points: Vec<Point>,
}
