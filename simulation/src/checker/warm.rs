//! Warm runners: how many there are and when, and that jobs are left to them.

use std::collections::BTreeMap;

use githubrunner_sim::{github::Status, nomad, world::World};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{
    Checker,
    lifecycle::{Lifecycle, group_of_labels, is_live},
};
use crate::faults::{
    kind::FaultKind,
    labels::is_servable,
    scenario::Scenario,
    settings::{Mode, Warm},
};

/// A job is left to a warm runner for this long.
const LEFT_AT_MOST: SignedDuration = SignedDuration::from_secs(60);

/// Complete listings, of which a Stop needs two, are at least this frequent.
const LISTED_EVERY: SignedDuration = SignedDuration::from_secs(60);

/// A failed runner's job is kept for this long.
const FAILURES_KEPT: SignedDuration = SignedDuration::from_secs(1800);

/// An unplaced runner counts as failed after this time.
const UNPLACED: SignedDuration = SignedDuration::from_secs(590);

/// What is known of the entries.
pub(super) struct Warmth {
    /// When the configuration has none any more.
    ends: Timestamp,
    /// Since when each has lacked runners.
    lacking: BTreeMap<usize, Timestamp>,
    /// Since when each has had runners outside its schedule.
    lasting: BTreeMap<usize, Timestamp>,
}

impl Warmth {
    pub(super) fn new(scenario: &Scenario) -> Warmth {
        let ends = scenario.base.checked_add(scenario.over).unwrap_or(scenario.base);
        Warmth { ends, lacking: BTreeMap::new(), lasting: BTreeMap::new() }
    }
}

impl Checker {
    /// A warm runner is about to be registered: its entry exists, is open, and lacks one.
    pub(super) fn registers_warm(&self, world: &World, name: &str, meta: &Value, now: Timestamp) {
        let entry = meta["warm"]["entry"].as_str().unwrap_or_default();
        let wrong = |what: String| self.wrong(now, format!("the warm runner {name} is started {what}"));
        let Some(warm) = self.entry(entry) else { return wrong(format!("for no entry: {meta}")) };
        let id = meta["repo_id"].as_u64().unwrap_or_default();
        let labels: Vec<String> = warm.labels.iter().map(|label| (*label).to_owned()).collect();
        let own =
            meta["labelsstr"].as_str().unwrap_or_default().split(',').map(str::to_owned).collect::<Vec<_>>();
        if group_of_labels(id, &labels) != group_of_labels(id, &own) {
            wrong(format!("with other labels: {meta}"));
        }
        if self.is_left_out(id, now)
            || self.archived.get(&id).is_some_and(|at| self.is_so_for_long(Some(*at), now))
        {
            wrong("for a repository that gets no runners".to_owned());
        }
        if self.is_so_for_long(Some(self.warm.ends), now) {
            wrong("although the configuration has none any more".to_owned());
        }
        let at_nomad = world.nomad_time(now);
        let was_open = [at_nomad, at_nomad - self.slack].into_iter().any(|at| warm.is_open(at));
        let in_between = warm
            .hours
            .as_ref()
            .is_some_and(|(_, from, until)| *from <= at_nomad && at_nomad - self.slack < *until);
        if !was_open && !in_between {
            wrong(format!("outside its schedule {:?}", warm.hours));
        }
        if world.nomad.job(&self.place.namespace, name).is_some() {
            return;
        }
        let at_hand: Vec<&String> = self
            .of_entry(entry)
            .filter(|(name, lifecycle)| {
                let settled = self.is_so_for_long(Some(lifecycle.registered_at), now)
                    && self.is_so_for_long(lifecycle.unavailable_at, now);
                let job = world.nomad.job(&self.place.namespace, name);
                lifecycle.available
                    && settled
                    && lifecycle.deployment == meta["instance"]
                    && !lifecycle.is_revived
                    && !job.is_some_and(|job| self.sights.is_of_a_forgotten_key(world, job))
                    && !self.is_unknown_for_long(lifecycle, now)
            })
            .map(|(name, _)| name)
            .collect();
        if at_hand.len() >= warm.count && !self.leases.two_may_lead(world, now) {
            wrong(format!("although {at_hand:?} are ready, and {} are wanted", warm.count));
        }
    }

    /// A job is about to get its own runner: there was no idle warm one that could take it, or GitHub has not given it
    /// the job for a minute.
    pub(super) fn has_no_warm_one(&self, world: &World, name: &str, job_id: u64, now: Timestamp) {
        let (true, Some(job)) = (self.quiet && self.mode == Mode::Jit, world.github.job(job_id)) else {
            return;
        };
        let at_github = world.github_time(now);
        let fresh = at_github.duration_since(job.queued_at) < LEFT_AT_MOST - SignedDuration::from_secs(15);
        // Later jobs may take turns at the same runner.
        let others = world.github.jobs().any(|other| {
            let left = |at: Timestamp| at_github.duration_since(at) < LEFT_AT_MOST * 3;
            other.id != job_id
                && is_servable(&other.labels)
                && (other.status == Status::Queued || left(other.started_at) || left(other.queued_at))
        });
        if !fresh || others || job.status != Status::Queued {
            return;
        }
        let soon = self.soon();
        let idle = self.lifecycles.iter().find(|(_, lifecycle)| {
            let long = lifecycle.idle_since.is_some_and(|since| now.duration_since(since) > soon);
            let (repository, labels) = &lifecycle.group;
            let has = |label: &String| labels.split(',').any(|own| own == label.to_lowercase());
            lifecycle.warm.is_some()
                && lifecycle.available
                && long
                && *repository == job.repository
                && job.labels.iter().all(has)
        });
        if let Some((idle, _)) = idle {
            self.wrong(now, format!("{name} is started for job {job_id}, which {idle} could take"));
        }
    }

    /// A warm runner that its entry still wants is stopped only for others, or because it makes no progress.
    pub(super) fn was_not_wanted(&self, world: &World, name: &str, lifecycle: &Lifecycle, now: Timestamp) {
        let Some(warm) = lifecycle.warm.as_deref().and_then(|entry| self.entry(entry)) else { return };
        let entry = lifecycle.warm.as_deref().unwrap_or_default();
        let soon = self.soon();
        let at_nomad = world.nomad_time(now);
        let is_open = warm.is_open(at_nomad) && warm.is_open(at_nomad + soon) && now + soon < self.warm.ends;
        let ready = self.of_entry(entry).filter(|(_, lifecycle)| lifecycle.supplies).count();
        // Nobody waits for room on nodes or at a cap, or has until a moment ago.
        let lately = |since: Option<Timestamp>| since.is_some_and(|since| now.duration_since(since) <= soon);
        let waits = self.held(world, SignedDuration::ZERO, now).next().is_some()
            || self.lifecycles.iter().any(|(name, other)| {
                let job = world.nomad.job(&self.place.namespace, name);
                let unplaced = !other.placed && job.is_some_and(|job| !job.stop);
                other.warm.is_none() && (unplaced || lately(Some(other.registered_at)))
            });
        let unplaced = !lifecycle.placed && now.duration_since(lifecycle.registered_at) >= UNPLACED;
        let fails = unplaced || self.stuck.are_refused(lifecycle.group.0, now);
        if self.quiet && lifecycle.available && is_open && ready <= warm.count && !waits && !fails {
            self.wrong(
                now,
                format!("{name} is stopped, a warm runner that is wanted: {ready} of {}", warm.count),
            );
        }
    }

    /// Each entry has its runners soon after it opens, and none long after it closes.
    pub(super) fn is_warm(&mut self, world: &World, now: Timestamp) {
        if !self.quiet || self.settings.warm.is_empty() || self.mode != Mode::Jit {
            return;
        }
        let mut warmth = std::mem::replace(
            &mut self.warm,
            Warmth { ends: Timestamp::MAX, lacking: BTreeMap::new(), lasting: BTreeMap::new() },
        );
        let mut late = Vec::new();
        let at_nomad = world.nomad_time(now);
        let is_alive = |name: &String| {
            let job = world.nomad.job(&self.place.namespace, name);
            job.is_some_and(|job: &nomad::Job| !job.stop && is_live(world, &self.place, job))
        };
        // Places and nodes may be needed for jobs, and failures make an entry wait.
        let has_caps = self.caps.iter().chain([&self.settings.classes.cap]).any(Option::is_some);
        let waits = || self.lifecycles.iter().any(|(name, other)| !other.placed && is_alive(name));
        let fails = self.has_any(&[FaultKind::RefusedRunners, FaultKind::SlowStarts]);
        let soon = self.soon();
        for (at, warm) in self.settings.warm.iter().enumerate() {
            let entry = format!("entry{at}");
            let ready = self.of_entry(&entry).filter(|(_, lifecycle)| lifecycle.supplies).count();
            let is_open = warm.is_open(at_nomad) && now < warmth.ends;
            let lacks = is_open && ready < warm.count && !has_caps && !fails && !waits();
            let since = lasting(&mut warmth.lacking, at, lacks, now);
            if since > soon * 2 + SignedDuration::from_secs(60) {
                late.push(format!("{entry} has {ready} of {} warm runners for {since}", warm.count));
                warmth.lacking.remove(&at);
            }
            let idle = self.of_entry(&entry).filter(|(_, lifecycle)| lifecycle.available).count();
            let stays = !is_open && idle > 0;
            let since = lasting(&mut warmth.lasting, at, stays, now);
            if since > LISTED_EVERY * 2 + soon * 2 {
                late.push(format!("{entry} still has {idle} warm runners {since} after its schedule"));
                warmth.lasting.remove(&at);
            }
        }
        self.warm = warmth;
        late.into_iter().for_each(|what| self.wrong(now, what));
    }

    /// How much longer a job may wait because it is left to a warm runner.
    pub(super) fn left_to_warm(&self) -> SignedDuration {
        if self.settings.warm.is_empty() { SignedDuration::ZERO } else { LEFT_AT_MOST + self.soon() }
    }

    /// How much longer a dead warm runner may stay.
    pub(super) fn kept_for_failures(&self, lifecycle: &Lifecycle) -> SignedDuration {
        if lifecycle.warm.is_some() { FAILURES_KEPT } else { SignedDuration::ZERO }
    }

    /// How long a warm runner that its entry no longer wants may stay, without credentials if it has none yet.
    pub(super) fn leaves_within(&self, lifecycle: &Lifecycle) -> SignedDuration {
        match lifecycle.warm {
            Some(_) => LISTED_EVERY * 2 + self.soon() * 2,
            None => SignedDuration::ZERO,
        }
    }

    fn entry(&self, id: &str) -> Option<&Warm> {
        self.settings.warm.get(id.strip_prefix("entry")?.parse::<usize>().ok()?)
    }

    fn of_entry<'a>(&'a self, id: &'a str) -> impl Iterator<Item = (&'a String, &'a Lifecycle)> {
        self.lifecycles.open().filter(move |(_, lifecycle)| lifecycle.warm.as_deref() == Some(id))
    }
}

/// For how long something has been so.
fn lasting(since: &mut BTreeMap<usize, Timestamp>, at: usize, is_so: bool, now: Timestamp) -> SignedDuration {
    if !is_so {
        since.remove(&at);
        return SignedDuration::ZERO;
    }
    now.duration_since(*since.entry(at).or_insert(now))
}
