//! What must hold when something is stopped, purged or deleted.

use std::time::Duration;

use githubrunner_sim::{
    github::{Job, RegisteredAt, Status},
    nomad,
    world::{LiveRunner, Phase, World},
};
use jiff::{SignedDuration, Timestamp};

use super::{
    Checker,
    lifecycle::{
        Group, Lifecycle, allocation_of, allocations, group_of_job, has_job, has_variable, is_live,
        name_of_repository, processes, was_replaced_since,
    },
    prompt::signed,
};
use crate::{
    deployment::META,
    faults::{
        kind::FaultKind,
        labels::{is_placeable, is_servable},
        settings::Mode,
        trouble::Trouble,
    },
};

/// What the daemon knew when it ended a runner.
#[derive(Clone, Copy)]
pub(super) struct Known {
    /// When it had listed the allocations.
    pub looked: Timestamp,
    /// Nomad has told it that the runner has not started.
    pub unstarted: bool,
    /// It has removed the runner's registration.
    pub removed: bool,
}

impl Checker {
    /// A runner is about to be stopped or purged: it must be ours, and not busy.
    pub(super) fn deregisters(
        &mut self,
        world: &World,
        name: &str,
        purge: bool,
        known: Known,
        now: Timestamp,
    ) {
        let Some(lifecycle) = self.lifecycles.get(name) else {
            // A runner of nomadtools is purged when it is dead, and again after a lost response.
            let job = self.place.job(world, name);
            let of_nomadtools =
                |job: &nomad::Job| job.meta.get(META).is_some_and(|meta| !meta.contains("instance"));
            // An old listing may still show it as dead; or the request takes effect when Nomad has placed it
            // again.
            let old = self.has_any(&[Trouble::Lag, Trouble::Late].map(FaultKind::Exchange));
            let over = |job: &nomad::Job| !is_live(world, &self.place, job) || old;
            if purge && job.is_none_or(|job| of_nomadtools(job) && over(job)) {
                return;
            }
            return self.wrong(now, format!("a job that is not ours is stopped or purged: {name}"));
        };
        if !purge && self.is_out_of_time(world, name, now) {
            return;
        }
        // Nomad itself ends what ran on a lost node. It says nothing about what it has forgotten.
        let lost = |live: &LiveRunner| match allocation_of(world, &self.place, live) {
            Some(allocation) => allocation.desired_description.contains("lost"),
            None => world.nomad.forgot_at().is_some(),
        };
        for live in processes(world, &self.place).filter(|live| live.nomad_job == name && !lost(live)) {
            if purge && live.phase != Phase::Ending {
                self.wrong(now, format!("{name} is purged while its process runs"));
            }
            if live.phase != Phase::Ending && has_job(world, &live) {
                self.wrong(now, format!("a busy runner is stopped: {name}"));
            }
        }
        if purge {
            // A variable that was written late could not be seen.
            if has_variable(world, name) && !self.has(FaultKind::Exchange(Trouble::Late)) {
                self.wrong(now, format!("{name} is purged before its variable"));
            }
            self.has_stayed(world, name, lifecycle, known.looked, now);
        } else {
            if lifecycle.warm.is_some() {
                self.was_not_wanted(world, name, lifecycle, now);
            } else {
                self.was_not_needed(world, name, lifecycle, known, now);
            }
            // A registration that appears after the removal comes from an earlier request that takes effect late. Its
            // configuration is lost.
            if !known.removed {
                self.has_consent(world, name, now);
            }
            self.is_next_to_go(world, name, lifecycle, now);
        }
    }

    /// Whether it has exceeded its maximum run duration, and is stopped with its job. Its client may be slow to report
    /// its start, which counts in that case.
    fn is_out_of_time(&self, world: &World, name: &str, now: Timestamp) -> bool {
        let Some(limit) = self.settings.max_run_duration else { return false };
        let at_nomad = world.nomad_time(now).as_nanosecond();
        let long = i128::try_from(limit.as_nanos()).unwrap_or(i128::MAX);
        let placed = |allocation: &nomad::Allocation| at_nomad - i128::from(allocation.create_time) >= long;
        allocations(world, &self.place, name).any(placed)
    }

    /// A runner that could still be given a job is not stopped.
    fn has_consent(&self, world: &World, name: &str, now: Timestamp) {
        let job = self.place.job(world, name);
        let address = job.and_then(name_of_repository);
        let meaning = address.and_then(|address| world.github.meaning(&address));
        // If another repository has its repository's name, or had it when the daemon asked, it is not found.
        let is_found = |scope: RegisteredAt| match (scope, meaning) {
            (RegisteredAt::Repository(id), Some((meant, Some(since)))) => {
                meant == id && world.github_time(now).duration_since(since) > self.slack
            }
            _ => true,
        };
        let mut all = world.github.runners();
        let mut is_registered = || all.any(|runner| runner.name == name && is_found(runner.scope));
        if self.mode == Mode::Jit && has_variable(world, name) && is_registered() {
            self.wrong(now, format!("{name} is stopped while it is registered at GitHub"));
        }
    }

    /// A dead runner's job is kept for its time.
    fn has_stayed(
        &self,
        world: &World,
        name: &str,
        lifecycle: &Lifecycle,
        looked: Timestamp,
        now: Timestamp,
    ) {
        let all = || allocations(world, &self.place, name);
        let ended = all().flat_map(|allocation| &allocation.tasks).filter_map(|task| task.finished_at).max();
        let Some(ended) = ended.filter(|_| all().all(|allocation| allocation.client_terminal())) else {
            return;
        };
        let [success, failure] = self.settings.purge;
        let stays = match all().max_by_key(|allocation| allocation.create_index) {
            Some(last) if last.client_status == "failed" => failure,
            Some(last) if self.quiet && last.client_status == "complete" => success,
            _ => success.min(failure),
        };
        // Its client may report the end long after the servers have given up on it.
        let known =
            lifecycle.dead_since.map(|since| world.nomad_time(since)).filter(|since| *since <= looked);
        let ended = known.map_or(i128::from(ended), |known| known.as_nanosecond().min(i128::from(ended)));
        let passed = i128::from(Duration::from_secs(2).as_nanos() as u64)
            + world.nomad_time(now).as_nanosecond()
            - ended;
        // By a node's clock that is behind, it died long ago; and a lost allocation can come back and die again.
        let unsure = self.has_any(&[FaultKind::NodeClocks, FaultKind::OldServers, FaultKind::LostAfter]);
        if passed < stays.as_nanos() as i128 && !unsure {
            self.wrong(now, format!("{name} is purged before it was dead for {stays:?}"));
        }
    }

    /// Runners that never started go first, then the longest idle; earlier only if something is waiting for
    /// room.
    fn is_next_to_go(&self, world: &World, name: &str, lifecycle: &Lifecycle, now: Timestamp) {
        if !self.quiet
            || !lifecycle.available
            || lifecycle.warm.is_some()
            || self.may_yield(world, name, lifecycle, now)
        {
            return;
        }
        let soon = self.soon();
        let long = |since: Option<Timestamp>| since.is_some_and(|since| now.duration_since(since) > soon);
        let others = || {
            self.lifecycles.iter().filter(|(other, lifecycle)| {
                *other != name && lifecycle.available && lifecycle.warm.is_none()
            })
        };
        let Some(idle_since) = lifecycle.idle_since else {
            let surplus =
                lifecycle.surplus_first.map_or(SignedDuration::ZERO, |since| now.duration_since(since));
            let twice = surplus >= self.listings_apart();
            if !twice && !self.is_waited_for(world, &lifecycle.group, now) {
                self.wrong(
                    now,
                    format!("{name} is stopped before it started, and nothing waits for its place"),
                );
            }
            return;
        };
        for (other, same) in
            others().filter(|(_, other)| other.group == lifecycle.group && lifecycle.spare == 1)
        {
            let unstarted = same.idle_since.is_none() && !same.placed && long(Some(same.registered_at));
            let longer = same.idle_since.is_some_and(|other| idle_since.duration_since(other) > soon);
            if (unstarted || longer) && long(same.surplus_since) {
                self.wrong(now, format!("{name} is stopped before {other}, which was to go first"));
            }
        }
        let Some(patience) = self.settings.make_room else { return };
        let idle = now.duration_since(idle_since);
        let inactivity = signed(self.settings.inactivity);
        if self.settings.strict || idle + SignedDuration::from_secs(2) >= inactivity {
            return;
        }
        let patience = signed(patience.max(Duration::from_secs(5))) - SignedDuration::from_secs(2);
        let (waiting, leaving) = self.waiting_and_leaving(world, patience, now);
        if waiting <= leaving {
            let what = format!("{name} makes room: {waiting} wait for it, and {leaving} leave already");
            self.wrong(now, what);
        }
        let longer = others().find(|(_, other)| {
            other.group != lifecycle.group
                && self.caps[1].is_none()
                && self.settings.classes.cap.is_none()
                && long(other.surplus_since)
                && other.idle_since.is_some_and(|other| {
                    idle_since.duration_since(other) > soon && now.duration_since(other) + soon < inactivity
                })
        });
        if let Some((longer, _)) = longer {
            self.wrong(now, format!("{name} makes room, and not {longer}, which has been idle for longer"));
        }
    }

    /// How many have waited for room for this long, and how many are leaving.
    fn waiting_and_leaving(&self, world: &World, patience: SignedDuration, now: Timestamp) -> (usize, usize) {
        let soon = self.soon();
        let waiting = self.lifecycles.iter().filter(|(pending, lifecycle)| {
            !lifecycle.placed
                && lifecycle.gone_since.is_none()
                && lifecycle.surplus_since.is_none_or(|since| now.duration_since(since) <= soon)
                && now.duration_since(lifecycle.registered_at) >= patience
                && is_placeable(&lifecycle.group.1)
                && self.place.job(world, pending).is_some_and(|job| !job.stop)
        });
        let held = self.held(world, patience, now).count();
        let leaving = world.nomad.jobs().filter(|job| {
            job.stop && self.lifecycles.contains_key(&job.id) && is_live(world, &self.place, job)
        });
        (waiting.count() + held, leaving.count())
    }

    /// Whether it has made no progress for so long that it yields its place: to another group that is waiting for one,
    /// or, if its task does not start, to its own job's next attempt.
    pub(super) fn may_yield(&self, world: &World, name: &str, lifecycle: &Lifecycle, now: Timestamp) -> bool {
        let long = |since: Timestamp, minutes: i64| {
            now.duration_since(since) >= SignedDuration::from_secs(60 * minutes - 10)
        };
        let is_live = |name: &String| self.place.job(world, name).is_some_and(|job| !job.stop);
        // Two leave for one, or the first one's place was taken before the second one left. A runner that was placed
        // since the pass was waiting then. So was one that was told to leave in the same pass because the placed
        // runners of its group are stuck too.
        let at_nomad = world.nomad_time(now).as_nanosecond();
        let has_waited = |name: &str| {
            allocations(world, &self.place, name)
                .all(|own| at_nomad - i128::from(own.create_time) < self.slack.as_nanos())
        };
        let left_lately = |other: &Lifecycle| {
            other.dead_since.is_some_and(|since| !other.placed && now.duration_since(since) <= self.slack)
        };
        let waits = || {
            self.held(world, SignedDuration::ZERO, now).any(|job| lifecycle.group != group_of_job(job))
                || self
                    .lifecycles
                    .iter()
                    .filter(|(_, other)| other.group != lifecycle.group)
                    .any(|(name, other)| is_live(name) && has_waited(name) || left_lately(other))
        };
        match lifecycle.idle_since {
            Some(since) => long(since, 5) && self.lately_queued(world, &lifecycle.group, now) > 0 && waits(),
            None if lifecycle.placed && long(lifecycle.registered_at, 20) => true,
            // A runner that was placed when it was about to leave has waited too.
            None if lifecycle.placed && !has_waited(name) => long(lifecycle.registered_at, 5) && waits(),
            // Together with a runner of its group.
            None => {
                let stuck = |other: &Lifecycle| long(other.idle_since.unwrap_or(other.registered_at), 5);
                self.lifecycles
                    .values()
                    .any(|other| other.placed && other.group == lifecycle.group && stuck(other))
                    && waits()
            }
        }
    }

    /// Jobs that have waited this long without a runner of their own, if there are caps.
    pub(super) fn held<'a>(
        &'a self,
        world: &'a World,
        patience: SignedDuration,
        now: Timestamp,
    ) -> impl Iterator<Item = &'a Job> {
        let at_github = world.github_time(now);
        world.github.jobs().filter(move |job| {
            job.status == Status::Queued
                && self.caps.iter().chain([&self.settings.classes.cap]).any(Option::is_some)
                && is_servable(&job.labels)
                && at_github.duration_since(job.created_at) >= patience
                && !self.lifecycles.values().any(|lifecycle| lifecycle.job_id == job.id && lifecycle.supplies)
        })
    }

    /// Whether a job of another group has waited at a cap for so long that unplaced runners yield to it.
    fn is_waited_for(&self, world: &World, group: &Group, now: Timestamp) -> bool {
        let Some(patience) = self.settings.make_room else { return false };
        let patience = signed(patience.max(Duration::from_secs(5))) - SignedDuration::from_secs(2);
        self.held(world, patience, now).any(|job| *group != group_of_job(job))
    }

    /// Only a runner that no job needs is stopped: surplus in two listings, idle for long enough.
    fn was_not_needed(&self, world: &World, name: &str, lifecycle: &Lifecycle, known: Known, now: Timestamp) {
        // Responses are wrong, or the daemon observes out of turn.
        let unsure = self.faults.iter().any(|fault| {
            let unsure = [
                FaultKind::RunLag,
                FaultKind::Hangups,
                FaultKind::Deaths,
                FaultKind::Repositories,
                FaultKind::Namesakes,
                FaultKind::Token,
                FaultKind::NodeClocks,
                FaultKind::NodesCut,
                FaultKind::Allocations,
                FaultKind::OldServers,
                FaultKind::LostAfter,
                // Idle runners leave a draining node. The specification checks from which one.
                FaultKind::Drains,
            ];
            // Errors about a list do not lead to a Stop.
            let harmless =
                [Trouble::Pages, Trouble::Totals, Trouble::Part, Trouble::Names, Trouble::LargePages];
            matches!(fault, FaultKind::Exchange(trouble) if !harmless.contains(trouble))
                || unsure.contains(fault)
                || fault.is_of_replicas()
        });
        // A repository that the configuration does not name has no demand.
        let unsure = unsure || self.times_left_out(lifecycle.group.0).any(|(from, _)| from <= now);
        // A runner that works under another name looks idle to the daemon.
        if unsure
            || !lifecycle.available
            || self.mode == Mode::Renamed
            || self.may_yield(world, name, lifecycle, now)
        {
            return;
        }
        // A runner that hangs looks like one that will take a job.
        let hangs = |live: &LiveRunner| {
            let other = self.lifecycles.get(&live.nomad_job).filter(|_| live.phase == Phase::Stuck);
            other.is_some_and(|other| other.group == lifecycle.group)
        };
        if world.live_runners().iter().any(hangs) {
            return;
        }
        let settings = &self.settings;
        // A runner that was never placed yields to others, whether or not it is needed.
        let yields = settings.make_room.is_some() && (lifecycle.idle_since.is_none() || known.unstarted);
        let passed = |since: Timestamp| Duration::try_from(now.duration_since(since)).unwrap_or_default();
        // A job that appeared after the pass observed was not seen.
        let ended = lifecycle.surplus_ended.filter(|ended| world.nomad_time(*ended) >= known.looked);
        let surplus = lifecycle.surplus_since.or(ended).and(lifecycle.surplus_first).map(passed);
        // A persistent runner may have had a job between the two listings.
        let yields = yields || self.mode == Mode::Persistent;
        // A runner whose job ended during the first listing looked idle there. The specification knows what was listed.
        if !yields && surplus.is_none_or(|surplus| signed(surplus) < self.listings_apart()) {
            self.wrong(now, format!("{name} is stopped, surplus for {surplus:?} only"));
        }
        // A client reports a start slightly later, and nobody can act on what the servers do not know yet.
        if let Some(idle) = lifecycle.idle_since.map(passed).filter(|_| !known.unstarted)
            && !settings.strict
            && settings.make_room.is_none()
            && idle + Duration::from_secs(2) < settings.inactivity
        {
            self.wrong(now, format!("{name} is stopped after {idle:?}, before it was idle for long enough"));
        }
    }

    pub(super) fn deletes_variable(&mut self, world: &World, name: &str, looked: Timestamp, now: Timestamp) {
        if !self.lifecycles.contains_key(name) {
            return self.wrong(now, format!("a variable that is not ours is deleted: {name}"));
        }
        self.is_gone_for(SignedDuration::from_secs(55), name, "variable", now);
        // A process without its job has lost it to a purge; and Nomad may have replaced what the daemon saw as
        // dead.
        let has_job = self.place.job(world, name).is_some();
        let live = allocations(world, &self.place, name).any(|allocation| !allocation.client_terminal());
        // The data that was read shows whether it came back before the last check.
        let is_back =
            |lifecycle: &Lifecycle| lifecycle.is_back && world.nomad_time(lifecycle.registered_at) >= looked;
        let has_job = has_job && !self.lifecycles.get(name).is_some_and(is_back);
        if has_job && live && !was_replaced_since(world, &self.place, name, looked) {
            self.wrong(now, format!("the variable of {name} is deleted while it has an allocation"));
        }
    }

    /// Something that no longer belongs to a job is kept for a while, because the observation may be wrong.
    fn is_gone_for(&self, long: SignedDuration, name: &str, what: &str, now: Timestamp) {
        // A pass need not have noticed that it was back for a while.
        let known = self.lifecycles.get(name).filter(|lifecycle| self.steady && !lifecycle.is_back);
        let gone_since = known.and_then(|lifecycle| lifecycle.gone_since);
        let Some(gone) = gone_since.map(|since| now.duration_since(since)) else { return };
        // A pass that still saw the job may clean up.
        if gone > self.slack && gone < long {
            self.wrong(now, format!("the {what} of {name} is deleted {gone} after its job"));
        }
    }

    pub(super) fn deletes_registration(&mut self, world: &World, id: u64, now: Timestamp) {
        let Some(runner) = world.github.runner(id) else { return };
        self.is_gone_for(SignedDuration::from_secs(590), &runner.name, "registration", now);
        if !self.lifecycles.contains_key(&runner.name) {
            self.wrong(now, format!("a registration that is not ours is deleted: {}", runner.name));
        }
    }
}
