//! The rules for running a job again: it was lost with its runner, once for each loss, within the budgets.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use githubrunner_sim::{
    github::{Conclusion, Job},
    nomad,
    world::World,
};
use jiff::{SignedDuration, Timestamp};

use super::{
    Checker,
    lifecycle::{allocations, is_lost},
};
use crate::{deployment::PREFIX, faults::kind::FaultKind};

/// Budgets count from the time of the variable, which is written before the request to GitHub. Requests may
/// take long.
const HOUR: SignedDuration = SignedDuration::from_mins(50);

/// The re-runs that GitHub has done for the daemons.
#[derive(Default)]
pub(super) struct Rerun {
    /// The runners whose jobs were run again.
    runners: BTreeSet<String>,
    /// The number of re-runs of each job of each run.
    by_job: BTreeMap<(u64, usize), usize>,
    /// The times of the re-runs.
    at: Vec<Timestamp>,
}

/// Whether this variable records a re-run.
pub(super) fn is_mark(path: &str) -> bool {
    path.starts_with(&format!("/v1/var/githubrunner/{PREFIX}/reruns/"))
}

fn job<'a>(world: &'a World, path: &str) -> Option<&'a Job> {
    world.github.job(path.trim_end_matches("/rerun").rsplit('/').next()?.parse().ok()?)
}

/// Whether something other than its owners ended this allocation.
fn was_taken(allocation: &nomad::Allocation) -> bool {
    let says = |text: &str| allocation.desired_description.contains(text);
    let is_out_of_memory = |event: &Arc<serde_json::Value>| event["Details"]["oom_killed"] == "true";
    is_lost(allocation)
        || allocation.client_status == "unknown"
        || says("alloc is being migrated")
        || says("Preempted by")
        || allocation.tasks.iter().flat_map(|task| &task.events).any(is_out_of_memory)
}

impl Checker {
    /// A request to run a job again.
    pub(super) fn reruns(&mut self, world: &World, path: &str, now: Timestamp) {
        let Some(job) = job(world, path) else {
            return self.wrong(now, format!("a job is run again that nobody knows: {path}"));
        };
        if self.settings.rerun_lost.is_none() {
            self.wrong(now, "a job is run again, and rerun_lost is off".to_owned());
        }
        // A job that ended on its own has no reason.
        let was_lost = matches!(job.reason, Some("the runner was lost" | "the runner was stopped"));
        if !was_lost || job.conclusion != Some(Conclusion::Failure) {
            let (how, why) = (job.conclusion, job.reason);
            self.wrong(now, format!("job {} is run again, and it was not lost: {how:?}, {why:?}", job.id));
        }
        let name = job.runner.as_ref().map(|runner| runner.name.clone()).unwrap_or_default();
        if !self.lifecycles.contains_key(&name) {
            self.wrong(now, format!("job {} is run again, and its runner {name} was not ours", job.id));
        }
        let mut all = allocations(world, &self.place, &name).peekable();
        if all.peek().is_some() && !all.any(was_taken) {
            self.wrong(now, format!("job {} is run again, and nothing took its runner {name} away", job.id));
        }
        if self.rerun.runners.contains(&name) {
            self.wrong(now, format!("the loss of {name} is made good for the second time"));
        }
    }

    /// GitHub has run it again.
    pub(super) fn was_rerun(&mut self, world: &World, path: &str, now: Timestamp) {
        let (Some(job), Some([per_job, per_hour])) = (job(world, path), self.settings.rerun_lost) else {
            return;
        };
        self.rerun.runners.extend(job.runner.as_ref().map(|runner| runner.name.clone()));
        self.rerun.at.push(now);
        let of_job = self.rerun.by_job.entry((job.run, job.index)).or_default();
        *of_job += 1;
        let (of_job, id) = (*of_job, job.id);
        let in_the_last_hour = self.rerun.at.iter().filter(|at| now.duration_since(**at) < HOUR).count();
        // The record of re-runs is in Nomad.
        if self.has(FaultKind::RestartsEmpty) {
            return;
        }
        if of_job > per_job {
            self.wrong(now, format!("job {id} is run again for the {of_job}. time, of {per_job}"));
        }
        if in_the_last_hour > per_hour {
            self.wrong(now, format!("{in_the_last_hour} jobs are run again in an hour, of {per_hour}"));
        }
    }
}
