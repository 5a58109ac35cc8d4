//! `/api/v1/state`: the daemon's state, from which the page is rendered. Its schema is
//! docs/state.schema.json.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::{
    history::{Event, Point},
    snapshot::{ClassRow, HoldRow, JobRow, PlanRow, Rate, RunnerRow},
};

/// The whole state.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct State {
    /// The running program.
    pub program: Program,
    /// When this was written, by this machine's clock.
    pub now: Timestamp,
    /// Increases with each pass.
    pub revision: u64,
    /// Whether this replica is the leader; the others only observe.
    pub leads: bool,
    /// The last pass.
    pub last_pass: Option<LastPass>,
    /// Nomad's health.
    pub nomad: Health,
    /// GitHub's health.
    pub github: Health,
    /// Repositories, and how many of them are listed.
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
    /// The latest actions and failures, the newest first.
    pub events: Vec<Event>,
    /// GitHub's rate limits.
    pub rate_limits: Vec<Rate>,
    /// The points of GitHub's secondary limit used in the last minute.
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

/// Whether Nomad or GitHub can be reached.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Health {
    /// Whether the last pass reached it.
    pub seen: bool,
    /// Since when; `None` before the first pass.
    pub since: Option<Timestamp>,
}

/// The numbers of repositories.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Repositories {
    /// All of them.
    pub all: usize,
    /// Those that are listed.
    pub listed: usize,
}

/// GitHub jobs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Jobs {
    /// Those that need a runner and may have one.
    pub queued: usize,
    /// Those that are held.
    pub held: usize,
    /// Those running on our runners.
    pub running: usize,
    /// Those that are queued or held, the oldest first.
    pub waiting: List<JobRow>,
}

/// Runners.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Runners {
    /// The number of runners in each state.
    pub by_state: BTreeMap<&'static str, usize>,
    /// All runners, live ones first, the newest first.
    pub list: List<RunnerRow>,
}

/// The listed items, and how many there are.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct List<T> {
    /// How many there are.
    pub total: usize,
    /// The first of them.
    pub items: Vec<T>,
}

/// The last hour.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct History {
    /// The median waiting time of the jobs taken within it, in seconds.
    pub queue_p50_seconds: Option<f64>,
    /// Their 95th percentile.
    pub queue_p95_seconds: Option<f64>,
    /// A point per minute, the newest last.
    pub points: Vec<Point>,
}
