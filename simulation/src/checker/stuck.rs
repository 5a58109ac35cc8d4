//! Which runners make no progress, and that nothing waits for them longer than the timeouts of their states.

use std::collections::{BTreeMap, BTreeSet};

use githubrunner_sim::{
    github::{Job, Status},
    world::World,
};
use jiff::{SignedDuration, Timestamp};

use super::{
    Checker,
    lifecycle::{group_of_job, is_live},
};
use crate::{
    deployment::Place,
    faults::{
        kind::FaultKind,
        labels::{is_placeable, is_servable},
        mishap::Mishap,
        scenario::{Happening, Scenario},
    },
};

/// A refused registration is retried within this time after the last refusal.
const TRIED_AGAIN_WITHIN: SignedDuration = SignedDuration::from_secs(660);

/// The timeouts for missing credentials, for idling while a job is queued, and for starting.
const YIELDS_AFTER: SignedDuration = SignedDuration::from_secs(300);
const STARTS_WITHIN: SignedDuration = SignedDuration::from_secs(1200);

/// A stop, a placement, a start and a connection.
const TAKES_OVER_WITHIN: SignedDuration = SignedDuration::from_secs(60);

/// What is known about runners that make no progress.
pub(super) struct Stuck {
    /// One of these faults is active.
    on: bool,
    limit: SignedDuration,
    /// The repositories whose runners are refused or do not start at some time.
    broken: BTreeSet<u64>,
    /// When each repository last refused runners.
    refused_at: BTreeMap<u64, Timestamp>,
    /// Since when a job has been waiting only for stuck runners.
    behind: BTreeMap<u64, Timestamp>,
}

impl Stuck {
    pub(super) fn new(scenario: &Scenario, place: &Place) -> Stuck {
        let picked = scenario.happenings.iter().filter_map(|(_, happening)| match happening {
            Happening::Mishap(Mishap::RefuseRunners { pick, .. } | Mishap::SlowImagesOf { pick, .. }) => {
                place.repositories.get(*pick % place.repositories.len()).copied()
            }
            _ => None,
        });
        Stuck {
            on: scenario.faults.iter().any(|fault| fault.is_of_the_stuck()),
            limit: if scenario.has(FaultKind::SlowStarts) { STARTS_WITHIN } else { YIELDS_AFTER },
            broken: picked.collect(),
            refused_at: BTreeMap::new(),
            behind: BTreeMap::new(),
        }
    }

    /// Records which repositories refuse runners.
    pub(super) fn look(&mut self, world: &World, now: Timestamp) {
        if !self.broken.is_empty() {
            let refusing = world.github.repositories().filter(|repository| repository.refuses_runners);
            self.refused_at.extend(refusing.map(|repository| (repository.id, now)));
        }
    }

    /// Whether a repository's runners are refused, or were at the last try.
    pub(super) fn are_refused(&self, repository: u64, now: Timestamp) -> bool {
        let at = self.refused_at.get(&repository);
        at.is_some_and(|at| now.duration_since(*at) <= TRIED_AGAIN_WITHIN)
    }
}

/// Whether GitHub assigns a job to no runner.
fn is_ghost(world: &World, job: &Job) -> bool {
    let plan = world.github.run(job.run).map(|run| &run.plan);
    plan.and_then(|plan| plan.get(job.index)).is_some_and(|spec| spec.ghost)
}

impl Checker {
    /// A job waits while all places belong to others that make no progress: not longer than the timeout of their
    /// state.
    pub(super) fn is_passed_over(&mut self, world: &World, now: Timestamp) {
        if !self.stuck.on || !self.quiet {
            return;
        }
        let is_alive = |name: &String| {
            let job = self.place.job(world, name);
            job.is_some_and(|job| !job.stop && is_live(world, &self.place, job))
        };
        let jobs_ghost = |job_id: u64| world.github.job(job_id).is_some_and(|job| is_ghost(world, job));
        let (mut stuck, mut healthy) = (0, BTreeSet::new());
        for (_, lifecycle) in self.lifecycles.open().filter(|(name, _)| is_alive(name)) {
            if self.stuck.broken.contains(&lifecycle.group.0) || jobs_ghost(lifecycle.job_id) {
                stuck += 1;
            } else {
                healthy.insert(&lifecycle.group);
            }
        }
        let waits = world.github.jobs().filter(|job| {
            let group = group_of_job(job);
            // A group that recently gave up a place goes last.
            let gave_up = || {
                self.lifecycles.values().any(|lifecycle| {
                    let is_queued =
                        world.github.job(lifecycle.job_id).is_some_and(|job| job.status == Status::Queued);
                    lifecycle.group == group
                        && is_queued
                        && lifecycle.dead_since.or(lifecycle.gone_since).is_some()
                })
            };
            job.status == Status::Queued
                && is_servable(&job.labels)
                && job.offered.is_none()
                // It takes several stuck runners to make room for a large one.
                && job.labels.iter().all(|label| is_placeable(label) && !label.contains("mem="))
                && !self.stuck.broken.contains(&job.repository)
                && !is_ghost(world, job)
                && healthy.iter().all(|other| **other == group)
                && !gave_up()
        });
        let waits: BTreeSet<u64> =
            if stuck > 0 { waits.map(|job| job.id).collect() } else { BTreeSet::new() };
        let most = self.stuck.limit + self.soon() * 2 + TAKES_OVER_WITHIN;
        self.stuck.behind.retain(|job, _| waits.contains(job));
        let mut late = Vec::new();
        for job in waits {
            let since = *self.stuck.behind.entry(job).or_insert(now);
            if now.duration_since(since) > most {
                self.stuck.behind.insert(job, now);
                late.push(format!("job {job} has waited for {most}, and nobody has a place but the stuck"));
            }
        }
        late.into_iter().for_each(|what| self.wrong(now, what));
    }
}
