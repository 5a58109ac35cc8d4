//! A runner's state, as the servers know it.

use std::collections::BTreeMap;

use githubrunner::model::RunnerState;
use githubrunner_sim::{
    nomad::{self, Allocation, TaskPhase},
    world::World,
};
use serde_json::Value;

use super::lifecycle::{Lifecycle, Lifecycles, allocations, has_variable, is_lost};
use crate::deployment::{MAX_BODY, META, Place};

/// A runner's state, as the servers know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// The deployment ID in its Meta.
    pub deployment: Value,
    /// Its state.
    pub state: RunnerState,
    /// Whether it ever had a process.
    pub started: bool,
    /// Whether an earlier or a lost allocation has used its credentials.
    pub spent: bool,
    /// Whether Nomad may still have work to do on it; its decisions are not visible here.
    pub undecided: bool,
}

/// All our runners with a job.
pub fn looks(world: &World, place: &Place, lifecycles: &Lifecycles) -> BTreeMap<String, Look> {
    let look = |(name, lifecycle): (&String, &Lifecycle)| {
        let job = place.job(world, name)?;
        let needs_variable = !job.meta.get(META)?.contains("\"access_token\"");
        let look = look(world, place, job, needs_variable && !has_variable(world, name));
        Some((name.clone(), Look { deployment: lifecycle.deployment.clone(), ..look }))
    };
    lifecycles.open().filter_map(look).collect()
}

/// Whether it is too large for a list, so that a daemon gets it without its tasks.
fn is_too_large(allocation: &Allocation) -> bool {
    let mut events = allocation.tasks.iter().flat_map(|task| &task.events);
    let has_long = events.any(|event| event["DisplayMessage"].as_str().is_some_and(|m| m.len() > 1000));
    has_long && nomad::allocation_stub(allocation, true).to_string().len() > MAX_BODY
}

/// The state of a runner (docs/architecture.md: a runner's state).
pub fn look(world: &World, place: &Place, job: &nomad::Job, lacks_secret: bool) -> Look {
    let all: Vec<&Allocation> = allocations(world, place, &job.id).collect();
    let has_started = |allocation: &&Allocation| {
        // A runner whose tasks cannot be read may have a process.
        is_too_large(allocation)
            || allocation.tasks.iter().any(|task| task.started_at.is_some())
                && !allocation
                    .tasks
                    .iter()
                    .any(|task| task.phase == TaskPhase::Waiting && task.started_at.is_none())
    };
    let told = |allocation: &Allocation| matches!(allocation.desired_status, "stop" | "evict");
    let lost = all.iter().any(|allocation| is_lost(allocation));
    let alive = all.iter().filter(|allocation| !allocation.client_terminal());
    let alive = alive.max_by_key(|allocation| {
        (!told(allocation), allocation.client_status == "running", allocation.create_index)
    });
    let over = job.stop || job.status == "dead";
    let state = match alive {
        Some(allocation) if job.stop || told(allocation) => RunnerState::Stopping,
        Some(allocation) if allocation.client_status == "unknown" => RunnerState::Disconnected,
        Some(allocation) if has_started(allocation) => RunnerState::Running,
        Some(_) if lacks_secret => RunnerState::Waiting,
        Some(_) => RunnerState::Starting,
        // Nomad may replace a lost allocation.
        None if over || !all.is_empty() && !lost => RunnerState::Dead,
        None => RunnerState::Pending,
    };
    let undecided = !over && alive.is_none();
    let is_alive = |allocation: &Allocation| alive.is_some_and(|alive| alive.id == allocation.id);
    let used = all.iter().any(|allocation| has_started(allocation) && !is_alive(allocation));
    let started = all.iter().any(has_started);
    Look { deployment: Value::Null, state, started, spent: lost || used, undecided }
}
