//! What must be done soon, and in the right order. Only checked if nothing disturbs the daemon, so that it depends
//! only on its own loop.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use githubrunner::plan::LISTINGS_APART;
use githubrunner_sim::{
    fault::Arrived,
    github::{Job, Status},
    nomad::TaskPhase,
    world::{Phase, World},
};
use githubrunner_specification::invariants::wait_after;
use hyper::{Method, Request};
use jiff::{SignedDuration, Timestamp};

use super::{
    Checker,
    lifecycle::{Group, Lifecycle, allocations, group_of_job, has_variable, is_live},
};
use crate::faults::{
    kind::FaultKind,
    labels::{is_placeable, is_servable},
    mishap::Mishap,
    scenario::{Happening, Scenario},
    settings::Mode,
    trouble::Trouble,
};

/// A placed runner gets its credentials within this time: Nomad alone is observed at least every 15 s.
const SECRET_WITHIN: SignedDuration = SignedDuration::from_secs(20);

/// The reaction time to an event from Nomad.
const TOLD_WITHIN: SignedDuration = SignedDuration::from_secs(15);

/// The same while each page of GitHub's lists takes up to 17 s: a pass acts for at most 20 s before Nomad is observed
/// again.
const SECRET_WHILE_SLOW: SignedDuration = SignedDuration::from_secs(40);

/// Nomad is observed every 5 s while GitHub is being listed,
const LOOKED_WITHIN: SignedDuration = SignedDuration::from_secs(6);

/// plus the time that acting on that observation takes.
const ACTIONS_TAKE: SignedDuration = SignedDuration::from_secs(20);

/// A dead runner is then purged within this time, plus the time for which it is kept: a listing must show that its job
/// is over.
const PURGED_WHILE_SLOW: SignedDuration = SignedDuration::from_secs(300);

/// A listing of 200 runs at 800 points a minute, which shares its requests with others.
const LISTED_IN_A_FLOOD: SignedDuration = SignedDuration::from_secs(300);

/// The delay that a flood in one repository causes for the others and for its own queue.
const FLOODED: SignedDuration = SignedDuration::from_secs(60);

/// Since when something has been in a state that must not last.
#[derive(Default)]
pub struct Waits {
    pub(super) groups: BTreeMap<Group, Timestamp>,
    secrets: BTreeMap<String, Timestamp>,
    variables: BTreeMap<String, Timestamp>,
    pub(super) dead: BTreeMap<String, Timestamp>,
    /// Dead, and no longer needed for counting attempts.
    useless: BTreeMap<String, Timestamp>,
    /// Jobs that a younger one has overtaken, and when.
    overtaken: BTreeMap<u64, (Timestamp, String)>,
}

/// Whether nothing keeps the daemon from observing the true state and acting on it.
pub(super) fn is_quiet(scenario: &Scenario) -> bool {
    is_quiet_but(scenario, None)
}

/// Whether only GitHub's lists are slow.
pub(super) fn is_slow(scenario: &Scenario) -> bool {
    is_quiet_but(scenario, Some(Trouble::SlowPages)) && !is_quiet(scenario)
}

/// Whether only the namespace of one class's runners fails. It holds nobody else, unless a cap counts them.
pub(super) fn fails_elsewhere(scenario: &Scenario) -> bool {
    scenario.has(FaultKind::Namespaces)
        && is_quiet_but(scenario, Some(Trouble::Namespace))
        && scenario.settings.caps == [None; 3]
}

fn is_quiet_but(scenario: &Scenario, trouble: Option<Trouble>) -> bool {
    let harmless = [
        FaultKind::HeldJobs,
        FaultKind::Ghosts,
        FaultKind::Clocks,
        FaultKind::Unplaceable,
        FaultKind::Runs,
        FaultKind::LargeJobs,
        FaultKind::HostileMeta,
        FaultKind::Flood,
        FaultKind::RefusedRunners,
        FaultKind::UnassignedJobs,
        FaultKind::SlowStarts,
    ];
    let is_harmless = |fault: &FaultKind| {
        let is_it = |trouble| match trouble {
            Trouble::Namespace => *fault == FaultKind::Namespaces,
            other => *fault == FaultKind::Exchange(other),
        };
        harmless.contains(fault) || trouble.is_some_and(is_it)
    };
    // If many share a cap, places are freed and taken all the time, and waits are long.
    scenario.repositories.len() <= 3
        && scenario.faults.iter().all(is_harmless)
        && scenario.settings.mode != Mode::Renamed
        // An organization's runners take jobs of its other repositories.
        && !scenario.settings.access.organization
        && !scenario.replicas
        && scenario.episodes.iter().all(|episode| Some(episode.trouble) == trouble)
        && scenario.happenings.iter().all(|(_, happening)| match happening {
            Happening::Run(_, jobs) => jobs.iter().flat_map(|job| &job.labels).all(|l| !l.contains("fail=")),
            Happening::Mishap(mishap) => matches!(
                mishap,
                Mishap::Rerun { .. }
                    | Mishap::Cancel { .. }
                    | Mishap::LargeJobs
                    | Mishap::HostileMeta { .. }
                    | Mishap::RefuseRunners { .. }
                    | Mishap::SlowImagesOf { .. }
            ),
            Happening::Cool => true,
            _ => false,
        })
}

/// Records since when something has been so. Returns for how long.
pub(super) fn lasts<K: Ord + Clone>(
    since: &mut BTreeMap<K, Timestamp>,
    of: &K,
    is_so: bool,
    now: Timestamp,
) -> SignedDuration {
    if !is_so {
        since.remove(of);
        return SignedDuration::ZERO;
    }
    now.duration_since(*since.entry(of.clone()).or_insert(now))
}

pub(super) fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

impl Checker {
    /// Two passes: the second one sees what the first one missed.
    pub(super) fn soon(&self) -> SignedDuration {
        let paced = if self.has(FaultKind::Flood) { FLOODED } else { SignedDuration::ZERO };
        signed(self.settings.loop_interval) * 2 + SignedDuration::from_secs(15) + paced
    }

    /// How much longer the flooded repository takes to be listed completely, because its listing is continued from pass
    /// to pass.
    fn listed_later(&self, repository: u64) -> SignedDuration {
        let is_flooded = self.has(FaultKind::Flood) && self.place.repositories.last() == Some(&repository);
        if is_flooded { LISTED_IN_A_FLOOD } else { SignedDuration::ZERO }
    }

    /// After a page of runs or jobs that took long: Nomad was observed in the meantime, unless something was
    /// being done.
    pub(super) fn has_looked_meanwhile(&self, world: &World, request: &Request<Bytes>, now: Timestamp) {
        let path = request.uri().path();
        let is_page = request.method() == Method::GET && (path.ends_with("/runs") || path.ends_with("/jobs"));
        let Some(Arrived(since)) = request.extensions().get().copied().filter(|_| self.slow && is_page)
        else {
            return;
        };
        // If nothing exists, `loop` determines when Nomad is observed next.
        let is_alive = |name: &String| {
            let job = self.place.job(world, name);
            job.is_some_and(|job| is_live(world, &self.place, job))
        };
        if !self.lifecycles.iter().any(|(name, _)| is_alive(name)) {
            return;
        }
        let is_busy = now.duration_since(self.acted_at) <= now.duration_since(since) + ACTIONS_TAKE;
        if now.duration_since(since) > LOOKED_WITHIN && self.asked_nomad_at < since && !is_busy {
            self.wrong(now, format!("Nomad was not looked at while {path} took from {since} on"));
        }
    }

    /// While GitHub's lists are slow, waiting runners still get credentials, and dead ones are purged.
    fn nomads_half_goes_on(&mut self, world: &World, now: Timestamp) {
        let mut waits = std::mem::take(&mut self.waits);
        let mut late = Vec::new();
        for (name, lifecycle) in self.lifecycles.iter() {
            let job = self.place.job(world, name);
            let live = job.is_some_and(|job| is_live(world, &self.place, job));
            let waits_for_secret = live
                && !self.stuck.are_refused(lifecycle.group.0, now)
                && !has_variable(world, name)
                && lifecycle.surplus_first.is_none()
                && job.is_some_and(|job| !job.stop)
                && allocations(world, &self.place, name).any(|allocation| {
                    allocation.desired_status == "run"
                        && allocation.client_tasks().iter().any(|task| task.phase == TaskPhase::Waiting)
                });
            let lasted = lasts(&mut waits.secrets, name, waits_for_secret, now);
            if lasted > SECRET_WHILE_SLOW + self.leaves_within(lifecycle) {
                late.push(format!("{name} has waited for its secret for {lasted} while GitHub is slow"));
            }
            let counts = world.github.job(lifecycle.job_id).is_some_and(|job| job.status == Status::Queued);
            let lasted = lasts(&mut waits.useless, name, job.is_some() && !live && !counts, now);
            let most = signed(self.settings.purge[0].max(self.settings.purge[1])) + PURGED_WHILE_SLOW;
            let most = most + self.listed_later(lifecycle.group.0) + self.kept_for_failures(lifecycle);
            if lasted > most {
                late.push(format!("{name} is dead and not purged for {lasted} while GitHub is slow"));
            }
        }
        self.waits = waits;
        late.into_iter().for_each(|what| self.wrong(now, what));
    }

    /// The least time between two listings that count, by GitHub's clock, which has whole seconds.
    pub(super) fn listings_apart(&self) -> SignedDuration {
        signed(LISTINGS_APART) - SignedDuration::from_secs(1)
    }

    /// Checks for anything that should have been done by now.
    pub(super) fn is_prompt(&mut self, world: &World, now: Timestamp) {
        if self.slow {
            self.nomads_half_goes_on(world, now);
        }
        if !self.quiet {
            return;
        }
        let mut waits = std::mem::take(&mut self.waits);
        let mut late = self.runners_go_on(&mut waits, world, now);
        late.extend(self.jobs_get_runners(&mut waits, world, now));
        late.extend(self.the_older_go_first(&mut waits, world, now));
        self.waits = waits;
        late.extend(self.lasting_surplus(world, now));
        late.extend(self.waits_for_room(world, now));
        for what in late {
            self.wrong(now, what);
        }
    }

    /// Runners that wait for credentials, or are dead and have not been removed, for too long.
    fn runners_go_on(&self, waits: &mut Waits, world: &World, now: Timestamp) -> Vec<String> {
        let mut late = Vec::new();
        let soon = self.soon();
        for (name, lifecycle) in self.lifecycles.iter() {
            let job = self.place.job(world, name);
            let live = job.is_some_and(|job| is_live(world, &self.place, job));
            let has_variable = has_variable(world, name);
            let wants_secret = live
                && !self.stuck.are_refused(lifecycle.group.0, now)
                && !has_variable
                && lifecycle.surplus_since.is_none()
                && job.is_some_and(|job| !job.stop)
                && allocations(world, &self.place, name).any(|allocation| {
                    allocation.desired_status == "run"
                        && allocation.client_tasks().iter().any(|task| task.phase == TaskPhase::Waiting)
                });
            let lasted = lasts(&mut waits.secrets, name, wants_secret, now);
            // Whether a job needs it after all is known when GitHub is polled again.
            let was_surplus = lifecycle.surplus_first.is_some();
            let within = if was_surplus { soon } else { SECRET_WITHIN } + self.leaves_within(lifecycle);
            if lasted > within {
                late.push(format!("{name} has waited for its secret for {lasted}"));
            }
            let dead = job.is_some() && !live;
            let lasted = lasts(&mut waits.variables, name, dead && has_variable, now);
            // A death causes an event. A runner that dies while GitHub is being asked about it is retried
            // after a wait.
            let was_asked = self.asked_for.get(name).is_some_and(|at| now.duration_since(*at) < soon);
            let within = match self.told && !was_asked {
                // In a flood, the request for its registration waits for its turn.
                true if self.has(FaultKind::Flood) => TOLD_WITHIN * 2,
                true => TOLD_WITHIN,
                false => soon,
            };
            if lasted > within {
                late.push(format!("{name} is dead, and its variable has stayed for {lasted}"));
            }
            lasts(&mut waits.dead, name, dead, now);
            let most = signed(self.settings.purge[0].max(self.settings.purge[1])) + soon;
            let most = most + self.listed_later(lifecycle.group.0);
            let counts = || {
                world.github.job(lifecycle.job_id).is_some_and(|job| job.status == Status::Queued)
                    && !self
                        .lifecycles
                        .values()
                        .any(|f| f.job_id == lifecycle.job_id && f.attempt > lifecycle.attempt)
            };
            let most = most + self.kept_for_failures(lifecycle);
            let lasted = lasts(&mut waits.useless, name, dead && !counts(), now);
            if lasted > most {
                late.push(format!("{name} is dead and not purged for {lasted}"));
            }
        }
        late
    }

    /// Groups that have fewer runners than jobs for too long, though no cap is reached.
    fn jobs_get_runners(&self, waits: &mut Waits, world: &World, now: Timestamp) -> Vec<String> {
        let mut late = Vec::new();
        let soon = self.soon();
        let (mut all, mut of_repository, mut of_group) = (0, BTreeMap::new(), BTreeMap::new());
        let mut supply: BTreeMap<&Group, usize> = BTreeMap::new();
        for (name, lifecycle) in self.lifecycles.iter() {
            if self.place.job(world, name).is_some_and(|job| is_live(world, &self.place, job)) {
                all += 1;
                *of_repository.entry(lifecycle.group.0).or_insert(0) += 1;
                *of_group.entry(&lifecycle.group).or_insert(0) += 1;
            }
            let supplies = lifecycle.supplies && lifecycle.warm.is_none();
            *supply.entry(&lifecycle.group).or_default() += usize::from(supplies);
        }
        let mut demand: BTreeMap<Group, usize> = BTreeMap::new();
        // New jobs arrive all the time; one that has existed for two passes must have a runner.
        let known = world.github_time(now) - soon;
        let old = world.github.jobs().filter(|job| job.queued_at < known);
        for job in old.filter(|job| self.wants_runner(waits, world, job, now)) {
            *demand.entry(group_of_job(job)).or_default() += 1;
        }
        waits.groups.retain(|group, _| demand.contains_key(group));
        for (group, wanted) in demand {
            let counts = [
                all,
                of_repository.get(&group.0).copied().unwrap_or(0),
                of_group.get(&group).copied().unwrap_or(0),
            ];
            let of_class = of_group.iter().filter(|(other, _)| self.settings.classes.has_cap(&other.1));
            let of_class: usize = of_class.map(|(_, count)| count).sum();
            let class_is_full = self.settings.classes.has_cap(&group.1)
                && self.settings.classes.cap.is_some_and(|cap| of_class >= cap);
            let full = class_is_full
                || self.caps.iter().zip(counts).any(|(cap, count)| cap.is_some_and(|cap| count >= cap));
            let at_hand = supply.get(&group).copied().unwrap_or(0);
            let lasted = lasts(&mut waits.groups, &group, !full && wanted > at_hand, now);
            if lasted > soon + self.left_to_warm() {
                late.push(format!(
                    "{wanted} jobs of {group:?} have {at_hand} available runners for {lasted}"
                ));
            }
        }
        late
    }

    /// Jobs that have no runner although one was started for a younger job of their group.
    fn the_older_go_first(&self, waits: &mut Waits, world: &World, now: Timestamp) -> Vec<String> {
        let mut late = Vec::new();
        waits.overtaken.retain(|job, (at, by)| {
            let has_own = self
                .lifecycles
                .values()
                .any(|lifecycle| lifecycle.job_id == *job && lifecycle.registered_at >= *at);
            let is_over = world.github.job(*job).is_none_or(|job| job.status != Status::Queued);
            if !has_own && !is_over && now.duration_since(*at) > SignedDuration::from_secs(5) {
                late.push(format!("{by} was started, and job {job}, which is older, had none"));
                return false;
            }
            !has_own && !is_over
        });
        late
    }

    /// Whether a runner should be started for a job, as far as attempts are concerned.
    pub(super) fn wants_runner(&self, waits: &Waits, world: &World, job: &Job, now: Timestamp) -> bool {
        if job.status != Status::Queued || !is_servable(&job.labels) {
            return false;
        }
        let last = self
            .lifecycles
            .iter()
            .filter(|(_, lifecycle)| lifecycle.job_id == job.id)
            .max_by_key(|(_, f)| f.attempt);
        let Some((name, lifecycle)) = last else { return true };
        let Some(job) = self.place.job(world, name) else { return true };
        // A runner that has died since the last check has died just now.
        let died = waits.dead.get(name).copied().unwrap_or(now);
        is_live(world, &self.place, job) || now.duration_since(died) >= signed(wait_after(lifecycle.attempt))
    }

    /// Groups with surplus runners of which none is stopped.
    fn lasting_surplus(&self, world: &World, now: Timestamp) -> Vec<String> {
        let idle = if self.settings.strict { SignedDuration::ZERO } else { signed(self.settings.inactivity) };
        let mut groups: BTreeMap<&Group, Vec<SignedDuration>> = BTreeMap::new();
        let live = world.live_runners();
        let of_jobs =
            |(_, lifecycle): &(&String, &Lifecycle)| lifecycle.available && lifecycle.warm.is_none();
        for (name, lifecycle) in self.lifecycles.iter().filter(of_jobs) {
            let is_there = live.iter().any(|live| live.nomad_job == *name && live.phase != Phase::Ending);
            let most = if is_there { idle } else { SignedDuration::ZERO };
            let lasted = match (lifecycle.surplus_since, lifecycle.idle_since) {
                (Some(surplus), Some(idle_since)) if is_there => {
                    let idle_for = now.duration_since(idle_since) - most;
                    now.duration_since(surplus).min(idle_for)
                }
                (Some(surplus), _) => now.duration_since(surplus),
                (None, _) => SignedDuration::ZERO,
            };
            groups.entry(&lifecycle.group).or_default().push(lasted);
        }
        // A persistent runner may be busy in one listing and idle in the next.
        let passes = if self.mode == Mode::Persistent { 3 } else { 1 };
        let most = self.soon() + signed(self.settings.loop_interval) * passes;
        let all_last = |lasted: &Vec<SignedDuration>| lasted.iter().all(|lasted| *lasted > most);
        let lasting = groups.into_iter().filter(|(_, lasted)| all_last(lasted));
        lasting
            .map(|(group, _)| format!("{group:?} has more runners than jobs for long: none goes"))
            .collect()
    }

    /// What is waiting for room although there is an idle runner that no job needs.
    fn waits_for_room(&self, world: &World, now: Timestamp) -> Option<String> {
        let patience = signed(self.settings.make_room?.max(Duration::from_secs(5)));
        let since =
            |since: Option<Timestamp>, long| since.is_some_and(|since| now.duration_since(since) > long);
        let long = self.soon() + signed(self.settings.loop_interval);
        let (idle, _) = self.lifecycles.iter().find(|(_, lifecycle)| {
            lifecycle.available && since(lifecycle.idle_since, long) && since(lifecycle.surplus_since, long)
        })?;
        let (waits, _) = self.lifecycles.iter().find(|(name, lifecycle)| {
            let job = self.place.job(world, name);
            !lifecycle.placed
                && lifecycle.surplus_since.is_none()
                && lifecycle.warm.is_none()
                && is_placeable(&lifecycle.group.1)
                && since(Some(lifecycle.registered_at), patience + long)
                && job.is_some_and(|job| !job.stop && is_live(world, &self.place, job))
        })?;
        Some(format!("{waits} waits for room, which {idle} does not make"))
    }

    /// GitHub is asked about an existing idle runner only to stop it, or if it may have lost its
    /// registration: idle for two minutes while a job is waiting, and at most every two minutes.
    pub(super) fn looks_up(&mut self, world: &World, name: &str, now: Timestamp) {
        // A persistent runner may have had a job between two listings that showed it as idle.
        let may = self.quiet && self.mode != Mode::Persistent;
        let Some(lifecycle) = self.lifecycles.get(name).filter(|_| may) else { return };
        // A warm runner is to be connected before there is a job for it.
        if lifecycle.warm.is_some() {
            return;
        }
        let Some(idle) = lifecycle.idle_since.map(|since| now.duration_since(since)) else { return };
        let surplus = lifecycle.surplus_first.map_or(SignedDuration::ZERO, |since| now.duration_since(since));
        let twice = surplus >= self.listings_apart();
        // A runner that has run for too long is ended, whether it is idle or not.
        if self.settings.max_run_duration.is_some_and(|most| idle >= signed(most)) {
            return;
        }
        if !lifecycle.available || twice || self.may_yield(world, name, lifecycle, now) {
            return;
        }
        let is_wanted = self.lately_queued(world, &lifecycle.group, now) > 0;
        let minutes = SignedDuration::from_secs(110);
        let again = self.looked_up.insert(name.to_owned(), now).map(|last| now.duration_since(last));
        if idle < minutes || !is_wanted || again.is_some_and(|again| again < minutes) {
            let what = format!("idle for {idle}, wanted: {is_wanted}, last asked for {again:?} ago");
            self.wrong(now, format!("{name} is asked for without need: {what}"));
        }
    }

    /// The oldest job goes first, within its group and within its repository.
    pub(super) fn overtakes(&mut self, world: &World, name: &str, started_for: &Job, now: Timestamp) {
        // A job that is left to a warm runner is overtaken for a while. In a flood, one listing shows only some of the runs.
        if !self.quiet || !self.settings.warm.is_empty() || self.has(FaultKind::Flood) {
            return;
        }
        let known = world.github_time(now) - self.soon();
        let mut overtaken = Vec::new();
        for job in world
            .github
            .jobs()
            .filter(|job| job.repository == started_for.repository && job.id != started_for.id)
        {
            let older =
                (job.created_at, job.id) < (started_for.created_at, started_for.id) && job.queued_at < known;
            let group = group_of_job(job);
            // A job that has had a runner waits for its next attempt, to the second.
            let own = self.lifecycles.of_job(job.id).next().is_some();
            let supply = self
                .lifecycles
                .values()
                .filter(|lifecycle| lifecycle.group == group && lifecycle.supplies)
                .count();
            let demand = world.github.jobs().filter(|other| {
                group == group_of_job(other) && self.wants_runner(&self.waits, world, other, now)
            });
            let of_group = self.waits.groups.get(&group).is_some_and(|since| *since < now - self.soon());
            // Classes take turns, whatever the age of their jobs.
            let same_class = !self.settings.classes.on;
            // A group whose runner Nomad did not place goes last.
            let unplaced = self.lifecycles.iter().any(|(name, lifecycle)| {
                lifecycle.group == group
                    && !lifecycle.placed
                    && self.place.job(world, name).is_some_and(|job| job.stop)
            });
            let same = group == group_of_job(started_for);
            if older
                && !own
                && !unplaced
                && (same || of_group && same_class)
                && demand.count() > supply
                && self.wants_runner(&self.waits, world, job, now)
            {
                overtaken.push(job.id);
            }
        }
        for job in overtaken {
            self.waits.overtaken.entry(job).or_insert((now, name.to_owned()));
        }
    }
}
