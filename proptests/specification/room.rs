//! Making room: what is waiting for a place, and which runner leaves for it.

use std::time::Duration;

use githubrunner::model::*;
use proptest::prelude::*;

use super::{
    Checked,
    facts::{Facts, Group, group_of_job, group_of_start, is_stopped, is_surplus, starts, stops},
    secs,
};

/// How long something waits before others make room: never less than Nomad takes to place a runner.
fn patience(facts: &Facts) -> Option<Duration> {
    facts.policy().pending_to_kill_listening.map(|patience| patience.max(secs(5)))
}

/// Whether it has been unplaced for that long.
fn is_unplaced(facts: &Facts, runner: &Runner, patience: Duration) -> bool {
    runner.state == RunnerState::Pending && facts.age(runner.submitted_at) >= patience
}

/// Whether the end of another group's runner may let it start.
fn is_at_cap(reason: &HoldReason) -> bool {
    use Cap::{All, Class, ClassRepository, Repository};
    matches!(reason, HoldReason::Cap { cap: All | Class | Repository | ClassRepository, .. })
}

/// What is waiting for a place.
struct Waiting<'a> {
    /// The runners that wait for room on the nodes.
    unplaced: Vec<&'a Runner>,
    /// The group of each job that waits at a cap that the end of another runner would relieve.
    held: Vec<Group>,
}

fn waiting<'a>(facts: &Facts<'a>, plan: &Plan) -> Waiting<'a> {
    let Some(patience) = patience(facts) else { return Waiting { unplaced: vec![], held: vec![] } };
    waiting_for(facts, plan, patience)
}

/// How many items have waited for long enough for a warm runner to leave, which it does in any case.
pub fn waiting_for_warm(facts: &Facts, plan: &Plan) -> usize {
    let Waiting { unplaced, held } = waiting_for(facts, plan, patience(facts).unwrap_or(secs(60)));
    unplaced.len() + held.len()
}

/// The groups of the jobs among them that wait at a cap.
pub fn held_for_warm(facts: &Facts, plan: &Plan) -> Vec<Group> {
    waiting_for(facts, plan, patience(facts).unwrap_or(secs(60))).held
}

fn waiting_for<'a>(facts: &Facts<'a>, plan: &Plan, patience: Duration) -> Waiting<'a> {
    let unplaced = facts
        .runners()
        .filter(|runner| is_unplaced(facts, runner, patience))
        .filter(|runner| runner.blocked.as_ref().is_some_and(|blocked| blocked.exhausted))
        .filter(|runner| !is_surplus(plan, runner) && !stops_for_itself(plan, runner))
        .filter(|runner| facts.warm(runner).is_none())
        .collect();
    let held = plan
        .holds
        .iter()
        .filter(|hold| is_at_cap(&hold.reason))
        .filter_map(|hold| match hold.subject {
            Subject::Job { id, .. } => facts.jobs.get(&id),
            _ => None,
        })
        .filter(|(view, job)| facts.queued_for(view, job).is_some_and(|queued| queued >= patience))
        .map(|(view, job)| group_of_job(view, job))
        .collect();
    Waiting { unplaced, held }
}

/// Whether it is stopped for a reason other than making room.
fn stops_for_itself(plan: &Plan, runner: &Runner) -> bool {
    stops(plan).any(|stop| {
        stop.name == runner.name
            && !matches!(stop.reason, StopReason::MakeRoom { .. } | StopReason::Yield { .. })
    })
}

/// Whether room is already being made: a runner is leaving.
pub fn somebody_leaves(facts: &Facts, plan: &Plan) -> bool {
    facts.runners().any(|runner| runner.state == RunnerState::Stopping) || stops(plan).next().is_some()
}

/// Whether its group's stuck runner leaves too.
fn leaves_with_its_group(facts: &Facts, plan: &Plan, runner: &Runner) -> bool {
    let own = facts.group(runner);
    stops(plan)
        .filter_map(|other| facts.runner(&other.name))
        .any(|other| facts.is_stuck_with_its_group(other) && facts.group(other) == own)
}

/// Whether a runner that was never placed leaves together with its group's stuck runner, because it is in the way of
/// another group.
fn follows_its_group(facts: &Facts, plan: &Plan, runner: &Runner) -> bool {
    let own = facts.group(runner);
    // Nomad would place it first only if it was there first.
    let mut later = facts
        .runners()
        .filter(|other| other.state == RunnerState::Pending && other.submitted_at > runner.submitted_at);
    let is_in_the_way = later.any(|other| facts.group(other) != own);
    runner.state == RunnerState::Pending && is_in_the_way && leaves_with_its_group(facts, plan, runner)
}

pub fn room_is_made_by_idle_runners_that_no_job_needs_and_for_no_more_than_waits(
    facts: &Facts,
    plan: &Plan,
) -> Checked {
    let makes = |stop: &&Stop| matches!(stop.reason, StopReason::MakeRoom { .. } | StopReason::Yield { .. });
    let made = stops(plan).filter(makes).count();
    if made == 0 {
        return Ok(());
    }
    let Waiting { unplaced, held } = waiting(facts, plan);
    for stop in stops(plan).filter(makes) {
        let runner = facts.runner_of(&stop.name)?;
        let own = facts.group(runner);
        // See `warm`.
        if facts.warm(runner).is_some() {
            continue;
        }
        if let StopReason::Yield { .. } = stop.reason
            && facts.is_stuck(runner)
        {
            let others = waiting_for_the_stuck(facts, plan);
            prop_assert!(others.iter().any(|group| Some(group) != own), "{} yields to nobody", stop.name);
            continue;
        }
        if let StopReason::Yield { .. } = stop.reason {
            if follows_its_group(facts, plan, runner) {
                continue;
            }
            // Or it has itself been unplaced for long.
            let patient = patience(facts).is_some_and(|patience| is_unplaced(facts, runner, patience));
            prop_assert!(patient, "{} has not waited for a place for long", stop.name);
            prop_assert!(held.iter().any(|group| Some(group) != own), "{} yields to nobody", stop.name);
            continue;
        }
        prop_assert!(facts.idle(runner).is_some(), "{} is not idle", stop.name);
        prop_assert!(facts.was_surplus(runner), "{} was needed before", stop.name);
        prop_assert!(is_surplus(plan, runner), "{} is needed", stop.name);
        for other in facts.runners().filter(|other| is_surplus(plan, other) && facts.warm(other).is_none()) {
            // If a repository has its own cap, only runners of the same repository would help there.
            let same_repository = facts.group(other).map(|group| group.0) == own.map(|group| group.0);
            let name = |runner| facts.class_of(runner).map(|class| class.name.as_str());
            let helps = (facts.policy().max_runners_per_repository.is_none() || same_repository)
                && (!facts.classes_have_caps() || same_repository && name(other) == name(runner));
            let could = helps && facts.was_surplus(other) && !facts.waits_after_failure(&other.name);
            let longer = could && facts.idle(other) > facts.idle(runner);
            let stays = !is_stopped(plan, &other.name);
            prop_assert!(!(stays && longer), "{} has been idle for longer than {}", other.name, stop.name);
        }
    }
    // It makes no room on a node.
    let follows = |stop: &&Stop| {
        let own = facts.runner(&stop.name).filter(|own| own.state == RunnerState::Pending);
        matches!(stop.reason, StopReason::Yield { .. })
            && own.is_some_and(|own| leaves_with_its_group(facts, plan, own))
    };
    if !stops(plan).any(|stop| makes(&stop) && !follows(&stop)) {
        return Ok(());
    }
    let leaving = facts.runners().filter(|runner| runner.state == RunnerState::Stopping).count()
        + stops(plan).filter(|stop| !follows(stop)).count();
    let for_warm = waiting_for_warm(facts, plan);
    let waits = unplaced.len() + held.len() + waiting_for_the_stuck(facts, plan).len() + for_warm;
    prop_assert!(leaving <= waits, "{} leave for {}", leaving, waits);
    Ok(())
}

/// In the other direction: while something is waiting and nothing is leaving, idle runners do not stay.
pub fn the_idle_do_not_stay_while_something_waits_for_room(facts: &Facts, plan: &Plan) -> Checked {
    if somebody_leaves(facts, plan) {
        return Ok(());
    }
    let idle = |within: Option<RepositoryId>| {
        facts.runners().find(|runner| {
            is_surplus(plan, runner)
                && facts.warm(runner).is_none()
                && within.is_none_or(|id| facts.group(runner).is_some_and(|group| group.0 == id))
                && facts.idle(runner).is_some()
                && facts.was_surplus(runner)
                && !facts.waits_after_failure(&runner.name)
        })
    };
    let Some(stays) = idle(None) else { return Ok(()) };
    let Waiting { unplaced, held } = waiting(facts, plan);
    prop_assert!(unplaced.is_empty(), "{} stays, {} waits", stays.name, unplaced[0].name);
    // A start that is also held at its group's cap would not be helped.
    if facts.policy().max_runners_per_group.is_none() && !facts.classes_have_caps() {
        for (id, _) in held {
            let stays = idle(Some(id)).map(|runner| &runner.name);
            prop_assert_eq!(stays, None, "a job of {} waits", id);
        }
    }
    Ok(())
}

/// At the cap on all runners, a runner that has been unplaced for long does not keep its place.
pub fn the_unplaced_yield_to_another_groups_start(facts: &Facts, plan: &Plan) -> Checked {
    let Some(patience) = patience(facts) else { return Ok(()) };
    let other_caps = facts.policy().max_runners_per_group.or(facts.policy().max_runners_per_repository);
    if other_caps.is_some() || facts.classes_have_caps() || somebody_leaves(facts, plan) {
        return Ok(());
    }
    let Waiting { held, .. } = waiting(facts, plan);
    if held.is_empty() {
        return Ok(());
    }
    let started: Vec<Group> = starts(plan).map(group_of_start).collect();
    let for_jobs = facts.runners().filter(|runner| facts.ours(runner) && facts.warm(runner).is_none());
    for runner in for_jobs {
        let unplaced = is_unplaced(facts, runner, patience)
            && facts.fresh(runner).is_some()
            && !facts.is_busy(runner)
            && !facts.waits_after_failure(&runner.name);
        let Some(group) = facts.group(runner).filter(|_| unplaced) else { continue };
        let other = held.iter().any(|other| other != group);
        prop_assert!(!other || started.contains(group), "{} keeps its place", runner.name);
    }
    Ok(())
}

/// The group of each waiting item that may get a stuck runner's place at once: runners that the nodes have no room for,
/// and starts held at a cap whose group has not given up a place itself.
fn waiting_for_the_stuck(facts: &Facts, plan: &Plan) -> Vec<Group> {
    let exhausted = |runner: &&Runner| runner.blocked.as_ref().is_some_and(|blocked| blocked.exhausted);
    let unplaced = facts
        .runners()
        .filter(|runner| runner.state == RunnerState::Pending && !is_surplus(plan, runner))
        .filter(|runner| exhausted(runner) && !stops_for_itself(plan, runner))
        .filter(|runner| facts.warm(runner).is_none())
        .filter_map(|runner| facts.group(runner).cloned());
    let held =
        plan.holds.iter().filter(|hold| is_at_cap(&hold.reason)).filter_map(|hold| match hold.subject {
            Subject::Job { id, .. } => facts.jobs.get(&id),
            _ => None,
        });
    let held =
        held.map(|(view, job)| group_of_job(view, job)).filter(|group| !facts.gave_up_its_place(group));
    unplaced.chain(held).collect()
}

/// At the cap on all runners, or while nodes are full, a runner that makes no progress does not keep its place.
/// If one repository's registrations are refused, or its jobs never assigned, all others are still served.
pub fn the_stuck_yield_to_another_group(facts: &Facts, plan: &Plan) -> Checked {
    let other_caps = facts.policy().max_runners_per_group.or(facts.policy().max_runners_per_repository);
    if other_caps.is_some() || facts.classes_have_caps() || somebody_leaves(facts, plan) {
        return Ok(());
    }
    let waiting = waiting_for_the_stuck(facts, plan);
    let started: Vec<Group> = starts(plan).map(group_of_start).collect();
    for runner in facts.runners().filter(|runner| facts.is_stuck(runner)) {
        let may = facts.fresh(runner).is_some()
            && !facts.is_busy(runner)
            && !facts.waits_after_failure(&runner.name);
        let Some(group) = facts.group(runner).filter(|group| may && !started.contains(group)) else {
            continue;
        };
        let other = waiting.iter().any(|other| other != group);
        prop_assert!(!other, "{} keeps its place", runner.name);
    }
    Ok(())
}

pub fn nobody_makes_room_in_a_repository_that_was_not_seen(facts: &Facts, plan: &Plan) -> Checked {
    for stop in stops(plan) {
        if let StopReason::MakeRoom { .. } | StopReason::Yield { .. } = stop.reason {
            let runner = facts.runner_of(&stop.name)?;
            prop_assert!(facts.fresh(runner).is_some() && facts.ours(runner), "{}", stop.name);
        }
    }
    Ok(())
}

/// A place does not help a start that another cap would still hold.
pub fn room_is_made_only_where_it_helps(facts: &Facts, plan: &Plan) -> Checked {
    for stop in stops(plan) {
        let (StopReason::MakeRoom { waits } | StopReason::Yield { waits, .. }) = &stop.reason else {
            continue;
        };
        let Some((name, id)) = waits.split_once(" job ") else { continue };
        let job = id.parse().ok().and_then(|id| facts.jobs.get(&JobId(id)));
        let (view, job) = job.ok_or_else(|| TestCaseError::fail(format!("nobody waits: {waits}")))?;
        prop_assert_eq!(view.repository.full_name(), name);
        let own = facts.view(facts.runner_of(&stop.name)?).map(|view| view.repository.id);
        let group = group_of_job(view, job);
        let full = |cap: Option<usize>, live: usize| cap.is_some_and(|cap| live >= cap);
        let class = facts.class_of_job(view, job);
        let name = class.map(|class| class.name.as_str());
        let in_group = full(facts.group_cap(class), facts.live_of(&group));
        prop_assert!(!in_group, "{}: its group is full", waits);
        let within = full(facts.policy().max_runners_per_repository, facts.live_in(group.0));
        let own = own.filter(|_| facts.runner(&stop.name).is_some_and(|runner| !facts.is_shared(runner)));
        prop_assert!(!within || own == Some(group.0), "{}: its repository is full", waits);
        let of_class = full(class.and_then(|class| class.max_runners), facts.live_of_class(name, None));
        let leaves = facts.class_of(facts.runner_of(&stop.name)?).map(|class| class.name.as_str());
        prop_assert!(!of_class || leaves == name, "{}: its class is full", waits);
    }
    Ok(())
}
