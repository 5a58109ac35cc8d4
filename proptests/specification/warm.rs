//! Warm runners: how many start, when they leave, and which jobs are left to them.

use std::{collections::BTreeSet, time::Duration};

use githubrunner::{model::*, plan::WarmPolicy};
use proptest::prelude::*;

use super::{
    Checked, Lesson,
    facts::{
        Facts, Group, group_of_job, is_stopped, is_surplus, job_holds, job_starts, key, runner_holds, starts,
        stops, warm_starts,
    },
    invariants::wait_after,
    room::{held_for_warm, somebody_leaves, waiting_for_warm},
    secs,
};

/// A job is left to warm runners for at most this long.
const LEFT_AT_MOST: u64 = 60;

fn of_entry<'a>(facts: &Facts<'a>, id: &str) -> Vec<&'a Runner> {
    facts.runners().filter(|runner| facts.warm(runner).is_some_and(|warm| warm.entry == id)).collect()
}

fn ready<'a>(facts: &Facts<'a>, id: &str) -> Vec<&'a Runner> {
    of_entry(facts, id).into_iter().filter(|runner| facts.supplies(runner)).collect()
}

fn policy_of<'a>(facts: &Facts<'a>, id: &str) -> Option<&'a WarmPolicy> {
    facts.policy().warm.iter().find(|policy| policy.entry.id == id)
}

/// How many runners an entry asks for now.
fn target(facts: &Facts, policy: Option<&WarmPolicy>) -> usize {
    let (Some(policy), Some(nomad)) = (policy, facts.nomad()) else { return 0 };
    let is_open = policy.entry.schedule.as_ref().is_none_or(|hours| hours.are_open(nomad.now));
    if is_open { policy.entry.count } else { 0 }
}

/// Whether its entry has changed in a way that concerns it, or it is older than a day.
fn is_outdated(facts: &Facts, runner: &Runner, policy: &WarmPolicy) -> bool {
    let settings = match &runner.meta.purpose {
        Some(Purpose::Warm(warm)) => &warm.settings,
        _ => return false,
    };
    *settings != policy.settings || facts.age(runner.submitted_at) >= secs(86_400)
}

/// Whether GitHub can give a warm runner the jobs of this group: the labels are a subset of its own, and it is
/// registered at their repository, or at the organization.
pub fn takes(facts: &Facts, runner: &Runner, (repository, labels): &Group) -> bool {
    let views = &facts.observation().repositories;
    let (Some(own), Some(other)) = (facts.view(runner), views.get(repository)) else { return false };
    let is_near = own.repository.id == *repository
        || facts.is_of_organization(facts.class_of(runner))
            && own.repository.owner.to_lowercase() == other.repository.owner.to_lowercase();
    let its = key(runner.meta.labelsstr.split(','));
    is_near && labels.iter().all(|label| its.contains(label))
}

/// Whether a warm runner is one of those that leave although they could take a job.
pub fn is_unwanted(facts: &Facts, runner: &Runner) -> bool {
    let Some(Purpose::Warm(warm)) = &runner.meta.purpose else { return false };
    let policy = policy_of(facts, &warm.entry);
    let (ready, target) = (ready(facts, &warm.entry), target(facts, policy));
    let order = |runner: &Runner| {
        let outdated = policy.is_some_and(|policy| is_outdated(facts, runner, policy));
        (runner.state, !outdated, std::cmp::Reverse(facts.idle(runner)), runner.name.clone())
    };
    let before = ready.iter().filter(|other| order(other) < order(runner)).count();
    facts.supplies(runner) && before < ready.len().saturating_sub(target) || rotates(facts, runner, policy)
}

/// Whether it is the outdated runner that is replaced next.
fn rotates(facts: &Facts, runner: &Runner, policy: Option<&WarmPolicy>) -> bool {
    let Some(policy) = policy else { return false };
    let (all, ready) = (of_entry(facts, &policy.entry.id), ready(facts, &policy.entry.id));
    let target = target(facts, Some(policy));
    let excess = ready.len().saturating_sub(target);
    let is_calm =
        |other: &&Runner| other.state == RunnerState::Running || facts.age(other.submitted_at) >= secs(600);
    if excess > 0 || !ready.iter().all(is_calm) {
        return false;
    }
    let stops = all.iter().any(|other| other.state == RunnerState::Stopping);
    let mut outdated: Vec<&&Runner> =
        ready.iter().filter(|other| is_outdated(facts, other, policy)).collect();
    outdated.sort_by_key(|other| (other.submitted_at, other.name.clone()));
    !stops && outdated.first().is_some_and(|first| first.name == runner.name)
}

/// How many runners of an entry in a row have failed, and how long ago the last of them died.
fn failed(facts: &Facts, id: &str) -> Option<(u32, Duration)> {
    let dead = of_entry(facts, id).into_iter().filter(|runner| runner.state == RunnerState::Dead);
    // If numbers are equal, the last one by name counts.
    let last = dead.max_by(|a, b| a.meta.attempt.cmp(&b.meta.attempt).then(a.name.cmp(&b.name)))?;
    let count = failures(last);
    (count > 0).then(|| (count, facts.dead_for(last)))
}

fn failures(dead: &Runner) -> u32 {
    let ran = dead
        .started_at
        .map_or(Duration::ZERO, |started| age(dead.ended_at.unwrap_or(dead.submitted_at), started));
    match &dead.meta.purpose {
        Some(Purpose::Warm(warm)) if dead.finish != Some(Finish::Success) && ran < secs(600) => {
            warm.failed.saturating_add(1)
        }
        _ => 0,
    }
}

/// Whether a dead runner is kept because it counts the failures of its entry.
pub fn counts_failures(facts: &Facts, runner: &Runner) -> bool {
    let Some(Purpose::Warm(warm)) = &runner.meta.purpose else { return false };
    let dead = of_entry(facts, &warm.entry).into_iter().filter(|other| other.state == RunnerState::Dead);
    let last = dead.max_by(|a, b| a.meta.attempt.cmp(&b.meta.attempt).then(a.name.cmp(&b.name)));
    facts.ours(runner)
        && policy_of(facts, &warm.entry).is_some()
        && last.is_some_and(|last| last.name == runner.name)
        && failures(runner) > 0
        && facts.dead_for(runner) < secs(1800)
}

/// A runner for a job that waits for room, on nodes that this entry's runners use as far as is known.
fn waits_for_room(facts: &Facts, id: &str) -> bool {
    let newest = of_entry(facts, id)
        .into_iter()
        .max_by(|a, b| a.meta.attempt.cmp(&b.meta.attempt).then(a.name.cmp(&b.name)));
    let pool = |runner: &Runner| runner.meta.asks.as_ref().map(|asks| asks.node_pool.clone());
    let Some(newest) = newest else { return false };
    facts.runners().any(|runner| {
        let exhausted = runner.blocked.as_ref().is_some_and(|blocked| blocked.exhausted);
        runner.state == RunnerState::Pending
            && exhausted
            && facts.warm(runner).is_none()
            && (pool(runner).is_none() || pool(newest).is_none() || pool(runner) == pool(newest))
    })
}

/// Never more than an entry asks for, as its class with its labels, in a repository that it names, under a new number.
pub fn an_entry_gets_no_more_than_it_asks_for_and_none_outside_its_schedule(
    facts: &Facts,
    plan: &Plan,
) -> Checked {
    for (warm, start) in warm_starts(plan) {
        let policy = policy_of(facts, &warm.entry);
        let policy = policy.ok_or_else(|| TestCaseError::fail(format!("{} is of no entry", start.name)))?;
        let all = warm_starts(plan).filter(|(other, _)| other.entry == warm.entry).count();
        let (ready, target) = (ready(facts, &warm.entry).len(), target(facts, Some(policy)));
        prop_assert!(ready + all <= target, "{} of {} are ready, {} start", ready, target, all);
        prop_assert_eq!(&start.class, &policy.class);
        prop_assert_eq!(&warm.settings, &policy.settings);
        prop_assert_eq!(&start.labels, &policy.entry.labels);
        let repository = &start.repository;
        let covers = match &policy.entry.place {
            RepoEntry::Owner(owner) => repository.owner.to_lowercase() == owner.to_lowercase(),
            place => place.to_string().to_lowercase() == repository.full_name().to_lowercase(),
        };
        prop_assert!(covers, "{} is not of {}", repository.full_name(), policy.entry.place);
        let more_public = facts.observation().repositories.values().find(|view| {
            let gone = matches!(view.listing, Listing::Gone { .. });
            facts.takes_jobs(view) && !gone && view.repository.visibility < repository.visibility
        });
        let owner = matches!(policy.entry.place, RepoEntry::Owner(_));
        let more_public = more_public.filter(|view| owner && view.repository.owner == repository.owner);
        prop_assert!(
            more_public.is_none(),
            "it also serves {:?}",
            more_public.map(|view| &view.repository.name)
        );
        let last = of_entry(facts, &warm.entry).into_iter().filter_map(|runner| runner.meta.attempt).max();
        prop_assert!(
            last.is_none_or(|last| start.attempt > last || last == u32::MAX),
            "{} again",
            start.attempt
        );
    }
    Ok(())
}

/// The wait after the n-th failure in a row is that after the n-th attempt at a job. Nothing else about an entry
/// concerns another one.
pub fn failures_of_an_entry_make_it_wait_and_no_other(facts: &Facts, plan: &Plan) -> Checked {
    for (warm, start) in warm_starts(plan) {
        let failed = failed(facts, &warm.entry);
        if let Some((count, since)) = failed {
            prop_assert!(
                since >= wait_after(count.into()),
                "{} so soon after {} failures",
                start.name,
                count
            );
        }
        prop_assert_eq!(warm.failed, failed.map_or(0, |(count, _)| count), "{}", start.name);
        let backoff = facts.memory().warm_backoff.get(&warm.entry);
        prop_assert!(
            backoff.is_none_or(|backoff| backoff.until <= facts.now()),
            "{} was rejected",
            start.name
        );
        let stops =
            of_entry(facts, &warm.entry).into_iter().find(|runner| runner.state == RunnerState::Stopping);
        prop_assert!(
            stops.is_none(),
            "{} starts while {:?} stops",
            start.name,
            stops.map(|runner| &runner.name)
        );
        prop_assert!(!waits_for_room(facts, &warm.entry), "{} competes with a job's runner", start.name);
    }
    Ok(())
}

fn said<'a>(plan: &'a Plan, policy: &WarmPolicy) -> impl Iterator<Item = &'a HoldReason> {
    let (own, its) = (policy.entry.place.to_string(), policy.entry.labels.joined());
    plan.holds.iter().filter_map(move |hold| match &hold.subject {
        Subject::Warm { place, labels } if *place == own && *labels == its => Some(&hold.reason),
        _ => None,
    })
}

/// In the other direction: whatever an entry lacks is started, or it is said why not.
pub fn an_entry_has_its_runners_or_a_hold(facts: &Facts, plan: &Plan) -> Checked {
    if facts.nomad().is_none() {
        return Ok(());
    }
    for policy in &facts.policy().warm {
        let id = &policy.entry.id;
        let ready = ready(facts, id).len();
        let starts = warm_starts(plan).filter(|(warm, _)| warm.entry == *id).count();
        let target = target(facts, Some(policy));
        let mut said = said(plan, policy);
        let is_well = target > 0 && ready + starts >= target;
        let reason = said.next();
        prop_assert!(is_well || reason.is_some(), "{} of {} without a word", ready, target);
        // Entries that differ in nothing else have holds in common.
        let is_alike = |other: &&WarmPolicy| {
            other.entry.place == policy.entry.place && other.entry.labels == policy.entry.labels
        };
        let alone = facts.policy().warm.iter().filter(is_alike).count() == 1;
        match reason.filter(|_| alone) {
            Some(HoldReason::Closed { .. }) => prop_assert_eq!(target, 0),
            Some(HoldReason::WarmFailed { failed: count, wait }) => {
                let (failed, since) =
                    failed(facts, id).ok_or_else(|| TestCaseError::fail("nothing failed"))?;
                prop_assert_eq!((*count, *wait + since), (failed, wait_after(failed.into())));
            }
            Some(HoldReason::WarmYields { .. }) => prop_assert!(waits_for_room(facts, id)),
            Some(HoldReason::Cap { cap: Cap::All, limit }) => {
                prop_assert_eq!(facts.policy().max_runners, Some(*limit));
                let live = facts.live() + super::facts::starts(plan).count();
                prop_assert!(live >= *limit, "{} of {}", live, limit);
            }
            _ => {}
        }
    }
    Ok(())
}

/// At a cap, jobs come first.
pub fn no_warm_runner_takes_a_place_from_a_job(facts: &Facts, plan: &Plan) -> Checked {
    if warm_starts(plan).next().is_none() {
        return Ok(());
    }
    for hold in &plan.holds {
        let (Subject::Job { id, .. }, HoldReason::Cap { cap, .. }) = (&hold.subject, &hold.reason) else {
            continue;
        };
        prop_assert!(*cap != Cap::All, "{}", hold);
        let Some((view, job)) = facts.jobs.get(id) else { continue };
        let class = facts.class_of_job(view, job).map(|class| class.name.as_str());
        let mut same = warm_starts(plan).filter(|(_, start)| start.class.as_deref() == class);
        prop_assert!(*cap != Cap::Class || same.next().is_none(), "{}", hold);
    }
    Ok(())
}

/// The warm runners that leave: surplus ones, all if the entry is gone or its schedule is over, and one outdated one at
/// a time; each once it was seen twice, and idle. Those that make no progress leave at once.
pub fn warm_runners_leave_when_they_are_not_wanted(facts: &Facts, plan: &Plan) -> Checked {
    for runner in facts.runners().filter(|runner| facts.warm(runner).is_some()) {
        let complete = facts.fresh(runner) == Some(true);
        let unwanted = complete && is_unwanted(facts, runner);
        prop_assert_eq!(is_surplus(plan, runner), unwanted, "{} is surplus", runner.name);
        let free = !facts.is_busy(runner) && !facts.waits_after_failure(&runner.name);
        let goes = unwanted && facts.was_surplus(runner) && free;
        prop_assert!(!goes || is_stopped(plan, &runner.name), "{} stays", runner.name);
        let fails = fails(facts, runner) && free && facts.fresh(runner).is_some();
        let alive = facts.supplies(runner) || facts.absent(runner);
        prop_assert!(!(fails && alive) || is_stopped(plan, &runner.name), "{} fails and stays", runner.name);
        let word = is_stopped(plan, &runner.name) || runner_holds(plan, &runner.name).next().is_some();
        prop_assert!(!unwanted || word, "{} without a word", runner.name);
    }
    for stop in stops(plan) {
        let runner = facts.runner_of(&stop.name)?;
        let StopReason::Warm(end) = &stop.reason else { continue };
        prop_assert!(facts.warm(runner).is_some(), "{} is not warm", stop.name);
        if let WarmEnd::Fails { .. } = end {
            prop_assert!(fails(facts, runner), "{} does not fail", stop.name);
            continue;
        }
        prop_assert!(facts.was_surplus(runner) && is_unwanted(facts, runner), "{} is wanted", stop.name);
    }
    Ok(())
}

/// Whether a warm runner has made no progress for too long.
fn fails(facts: &Facts, runner: &Runner) -> bool {
    let unplaced = runner.state == RunnerState::Pending && facts.age(runner.submitted_at) >= secs(600);
    unplaced || facts.is_not_issued(runner) || facts.is_not_connected(runner)
}

/// Whether it runs, and GitHub can give it a job.
fn is_idle(facts: &Facts, runner: &Runner) -> bool {
    runner.state == RunnerState::Running && facts.supplies(runner) && facts.warm(runner).is_some()
}

/// Whether GitHub has not given a job to warm runners in time.
fn is_left_for_too_long(facts: &Facts, job: JobId) -> bool {
    facts.memory().left.get(&job).is_some_and(|since| facts.since(*since) >= secs(LEFT_AT_MOST))
}

/// Whether a warm runner was not given a job of this repository that was left to it.
fn is_passed_over(facts: &Facts, runner: &Runner, repository: RepositoryId) -> bool {
    facts.demand().any(|(group, jobs)| {
        let too_long = jobs.iter().any(|job| is_left_for_too_long(facts, job.id));
        group.0 == repository && too_long && takes(facts, runner, group)
    })
}

/// A job that an idle, connected warm runner can take gets no runner of its own, each runner counts for one job, and
/// after a minute the job is served all the same.
pub fn a_job_is_left_to_an_idle_warm_runner_for_a_minute(facts: &Facts, plan: &Plan) -> Checked {
    let mut named = BTreeSet::new();
    for hold in &plan.holds {
        let HoldReason::LeftToWarm { runner: name } = &hold.reason else { continue };
        let Subject::Job { id, .. } = &hold.subject else { continue };
        prop_assert!(named.insert(name.as_str()), "two jobs are left to {}", name);
        prop_assert!(plan.left.contains(id), "job {} is not remembered", id);
        let runner = facts.runner_of(name)?;
        prop_assert!(is_idle(facts, runner) && !is_stopped(plan, name), "{} is not idle", name);
        let (view, job) = facts.jobs[id];
        prop_assert!(takes(facts, runner, &group_of_job(view, job)), "{} cannot take job {}", name, id);
        prop_assert!(!is_left_for_too_long(facts, *id), "job {} waits for {} for too long", id, name);
        let started = job_starts(plan).any(|(other, _)| other == *id);
        prop_assert!(!started, "job {} starts, too", id);
    }
    // The jobs of repositories that are polled next are left without a hold.
    let unsaid = plan.left.len() - named.len().min(plan.left.len());
    for (id, _) in job_starts(plan) {
        let (view, job) = facts.jobs[&id];
        let group = group_of_job(view, job);
        let could = |runner: &&Runner| {
            is_idle(facts, runner)
                && !is_stopped(plan, &runner.name)
                && takes(facts, runner, &group)
                && !is_passed_over(facts, runner, group.0)
                && !named.contains(runner.name.as_str())
        };
        let free = facts.runners().filter(could).count();
        prop_assert!(free <= unsaid, "job {} starts, and {} idle warm runners could take it", id, free);
    }
    Ok(())
}

/// What GitHub does not do in time is said.
pub fn a_warm_runner_that_is_passed_over_is_told(facts: &Facts, plan: &Plan) -> Checked {
    for runner in facts.runners().filter(|runner| is_idle(facts, runner)) {
        let mut views = facts.observation().repositories.keys();
        let passed_over = views.any(|id| is_passed_over(facts, runner, *id));
        let idle = facts.idle(runner).is_some_and(|idle| idle >= secs(LEFT_AT_MOST));
        let told =
            runner_holds(plan, &runner.name).any(|reason| matches!(reason, HoldReason::Unassigned { .. }));
        let expected = passed_over && idle && !is_stopped(plan, &runner.name);
        prop_assert_eq!(told, expected, "{} and a word", runner.name);
    }
    Ok(())
}

/// A warm runner makes room only if something has waited, only if it is idle, and not for a job that is left to it.
pub fn warm_runners_make_room_for_what_waits(facts: &Facts, plan: &Plan) -> Checked {
    let makes = |stop: &&Stop| matches!(stop.reason, StopReason::MakeRoom { .. } | StopReason::Yield { .. });
    for stop in stops(plan).filter(makes) {
        let runner = facts.runner_of(&stop.name)?;
        if facts.warm(runner).is_none() || facts.is_stuck(runner) {
            continue;
        }
        prop_assert!(waiting_for_warm(facts, plan) > 0, "{} leaves for nobody", stop.name);
        let idle = facts.idle(runner).is_some_and(|idle| idle >= secs(5));
        prop_assert!(idle || runner.state == RunnerState::Pending, "{} is not idle", stop.name);
        let named = plan
            .holds
            .iter()
            .any(|hold| matches!(&hold.reason, HoldReason::LeftToWarm { runner } if *runner == stop.name));
        prop_assert!(!named, "a job is left to {}", stop.name);
    }
    Ok(())
}

/// In the other direction: at the cap on all runners, no idle warm runner keeps its place while a job waits.
pub fn no_idle_warm_runner_stays_at_the_cap_while_a_job_waits(facts: &Facts, plan: &Plan) -> Checked {
    let policy = facts.policy();
    let other_caps = policy.max_runners_per_group.or(policy.max_runners_per_repository);
    if other_caps.is_some() || facts.classes_have_caps() || somebody_leaves(facts, plan) {
        return Ok(());
    }
    let held = held_for_warm(facts, plan);
    if held.is_empty() {
        return Ok(());
    }
    let started: Vec<Group> = starts(plan).map(super::facts::group_of_start).collect();
    let unsaid: Vec<&JobId> = plan
        .left
        .iter()
        .filter(|id| !job_holds(plan, **id).any(|reason| matches!(reason, HoldReason::LeftToWarm { .. })))
        .collect();
    for runner in facts.runners().filter(|runner| facts.warm(runner).is_some()) {
        let named = plan
            .holds
            .iter()
            .any(|hold| matches!(&hold.reason, HoldReason::LeftToWarm { runner: to } if *to == runner.name));
        let stays = facts.idle(runner).is_some_and(|idle| idle >= secs(5))
            && facts.fresh(runner).is_some()
            && !facts.waits_after_failure(&runner.name)
            && !is_surplus(plan, runner)
            && facts.group(runner).is_some_and(|group| !started.contains(group));
        prop_assert!(!stays || named || !unsaid.is_empty(), "{} keeps its place", runner.name);
    }
    Ok(())
}

/// Since when a job has been left to warm runners is remembered for as long as it is queued.
pub fn since_when_a_job_is_left_is_remembered(lesson: &Lesson) -> Checked {
    if lesson.observation.nomad.is_none() {
        return Ok(());
    }
    let before = &lesson.observation.memory.left;
    let jobs = lesson.observation.repositories.values().flat_map(|view| view.listing.jobs());
    let queued: BTreeSet<JobId> =
        jobs.filter(|job| job.status == JobStatus::Queued).map(|job| job.id).collect();
    for id in before.keys().chain(&lesson.plan.left) {
        let since = before.get(id).copied().unwrap_or(lesson.now);
        let expected = queued.contains(id).then_some(since);
        prop_assert_eq!(lesson.after.left.get(id).copied(), expected, "job {}", id);
    }
    prop_assert!(lesson.after.left.keys().all(|id| before.contains_key(id) || lesson.plan.left.contains(id)));
    Ok(())
}

/// A warm start that cannot succeed is not repeated at once.
pub fn rejected_warm_starts_wait(lesson: &Lesson) -> Checked {
    if lesson.observation.nomad.is_none() {
        return Ok(());
    }
    let mut expected = lesson.observation.memory.warm_backoff.clone();
    for report in lesson.reports {
        let Action::Start(Start { purpose: Purpose::Warm(warm), .. }) = &report.action else { continue };
        let failures = expected.get(&warm.entry).map_or(0, |backoff| backoff.failures).saturating_add(1);
        let (failures, wait) = match &report.outcome {
            Outcome::NotDone(NotDone::Rejected(_)) => (failures, 600.min(30 << (failures - 1).min(10))),
            Outcome::NotDone(NotDone::ReachesHost(_)) => (1, 600),
            Outcome::NotDone(_) => continue,
            Outcome::Done(_) => {
                expected.remove(&warm.entry);
                continue;
            }
        };
        let error = report.outcome.error().unwrap_or_default().to_owned();
        expected.insert(warm.entry.clone(), Backoff { failures, until: lesson.now + secs(wait), error });
    }
    expected.retain(|_, backoff| lesson.now < backoff.until + secs(600));
    let waits = |backoffs: &std::collections::BTreeMap<String, Backoff>| {
        let all = backoffs.iter().map(|(id, backoff)| (id.clone(), backoff.failures, backoff.until));
        all.collect::<Vec<_>>()
    };
    prop_assert_eq!(waits(&lesson.after.warm_backoff), waits(&expected));
    Ok(())
}
