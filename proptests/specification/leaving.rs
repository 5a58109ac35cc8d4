//! Surplus, unregistered, lost and gone runners: which are stopped, which stay, and in which order.

use std::collections::BTreeMap;

use githubrunner::model::*;
use proptest::prelude::*;

use super::{
    Checked,
    facts::{Facts, Group, is_stopped, runner_holds, stops},
    secs,
    warm::takes,
};

/// Whether an idle surplus runner may be stopped without waiting longer.
fn is_due(facts: &Facts, runner: &Runner) -> bool {
    let class = facts.class_of(runner);
    let own = class.and_then(|class| class.runner_inactivity_timeout);
    let timeout = own.unwrap_or(facts.policy().runner_inactivity_timeout);
    class.and_then(|class| class.strict).unwrap_or(facts.policy().strict)
        || facts.idle(runner).is_none_or(|idle| timeout.is_some_and(|timeout| idle >= timeout))
}

pub fn surplus_goes_only_when_seen_twice_and_idle_runners_after_their_time(
    facts: &Facts,
    plan: &Plan,
) -> Checked {
    let mut leaving: BTreeMap<&Group, usize> = BTreeMap::new();
    for stop in stops(plan) {
        let runner = facts.runner_of(&stop.name)?;
        let StopReason::Surplus { demand, supply } = stop.reason else { continue };
        prop_assert!(facts.was_surplus(runner), "{} was not seen as surplus before", stop.name);
        let Some(group) = facts.group(runner) else { continue };
        prop_assert_eq!((demand, supply), (facts.demand_of(group), facts.supply(group).len()));
        prop_assert!(is_due(facts, runner), "{} idle for {:?} only", stop.name, facts.idle(runner));
        *leaving.entry(group).or_default() += 1;
    }
    for (group, leaving) in leaving {
        let (demand, supply) = (facts.demand_of(group), facts.supply(group).len());
        prop_assert!(
            supply >= demand + leaving,
            "{} of {} leave {:?} with {} jobs",
            leaving,
            supply,
            group,
            demand
        );
    }
    Ok(())
}

/// In the other direction: a runner that is surplus for the second time, and need not be waited for, is
/// stopped.
pub fn surplus_that_may_go_goes(facts: &Facts, plan: &Plan) -> Checked {
    for (id, names) in &plan.surplus {
        let mut groups: BTreeMap<&Group, usize> = BTreeMap::new();
        for name in names {
            let runner = facts.runner_of(name)?;
            let Some(group) = facts.group(runner).filter(|_| facts.warm(runner).is_none()) else { continue };
            prop_assert_eq!(group.0, *id);
            *groups.entry(group).or_default() += 1;
            let goes = is_due(facts, runner) && facts.was_surplus(runner) && !facts.waits_after_failure(name);
            let stopped = is_stopped(plan, name);
            prop_assert!(!goes || stopped, "{} may go and does not", name);
            prop_assert!(stopped || runner_holds(plan, name).next().is_some(), "{} without a word", name);
        }
        // A runner in excess of the demand is surplus.
        for runner in facts.runners() {
            let Some(group) = facts.group(runner).filter(|group| group.0 == *id) else { continue };
            let supply = facts.supply(group);
            let ours = supply.iter().filter(|runner| facts.ours(runner)).count();
            let spare = supply.len().saturating_sub(facts.demand_of(group)).min(ours);
            prop_assert_eq!(groups.get(group).copied().unwrap_or(0), spare, "{:?}", group);
        }
    }
    Ok(())
}

/// The runner that is furthest from taking a job is stopped first; among these, one whose own job is not queued;
/// among idle ones, the longest idle.
pub fn the_oldest_idle_runner_leaves_first(facts: &Facts, plan: &Plan) -> Checked {
    let order = |runner: &Runner| {
        let is_idle = runner.state == RunnerState::Running;
        let waited_for = !is_idle && facts.is_queued(runner.meta.job_id());
        (runner.state, waited_for, std::cmp::Reverse(facts.idle(runner)))
    };
    for names in plan.surplus.values().filter(|names| !names.is_empty()) {
        for leaving in names.iter().filter_map(|name| facts.runner(name)) {
            let Some(group) = facts.group(leaving).filter(|_| facts.warm(leaving).is_none()) else {
                continue;
            };
            for staying in facts.supply(group) {
                if names.contains(&staying.name) || !facts.ours(staying) {
                    continue;
                }
                let in_order = order(leaving) <= order(staying);
                prop_assert!(in_order, "{} stays, {} goes", staying.name, leaving.name);
            }
        }
    }
    Ok(())
}

pub fn verifications_ask_only_for_idle_runners_and_not_too_often(facts: &Facts, plan: &Plan) -> Checked {
    for runner in facts.runners() {
        let asked = plan
            .actions
            .iter()
            .any(|action| matches!(action, Action::VerifyRegistration(verify_registration) if verify_registration.name == runner.name));
        let idle = facts.idle(runner);
        let is_warm = facts.warm(runner).is_some();
        let demand = || match is_warm {
            true => facts.demand().any(|(group, _)| takes(facts, runner, group)),
            false => facts.group(runner).is_some_and(|group| facts.demand_of(group) > 0),
        };
        // A warm runner is to be connected before there is a job for it.
        let suspicious = || idle.is_some_and(|idle| idle > secs(120)) && (is_warm || demand());
        let wanted = facts.ours(runner)
            && idle.is_some()
            && facts.fresh(runner).is_some()
            && (facts.absent(runner) || suspicious());
        let presence = facts.memory().presence.get(&runner.name);
        let calm = is_warm && !demand() && !facts.absent(runner);
        let every = if calm { secs(900) } else { secs(120) };
        let due = presence.is_none_or(|presence| facts.since(presence.checked_at) >= every);
        let free = !facts.waits_after_failure(&runner.name) && !is_stopped(plan, &runner.name);
        prop_assert_eq!(asked, wanted && due && free, "{} asked for", runner.name);
    }
    Ok(())
}

pub fn an_unregistered_runner_is_let_go_after_ten_minutes_of_verifications(
    facts: &Facts,
    plan: &Plan,
) -> Checked {
    for runner in facts.runners().filter(|runner| facts.absent(runner) && facts.ours(runner)) {
        if facts.idle(runner).is_none() {
            continue;
        }
        let confirmed = facts.is_unregistered(runner);
        if !confirmed && runner.registration() != Registration::Jit {
            // It may have another name at GitHub, so it counts like any other.
            continue;
        }
        if facts.is_gone(runner) {
            // See below.
            continue;
        }
        let stopped = is_stopped(plan, &runner.name);
        let may = confirmed && facts.fresh(runner) == Some(true);
        // A warm runner that is not connected is stopped as one that fails.
        if facts.warm(runner).is_some() && stopped {
            continue;
        }
        // It may have yielded its place before.
        let yields = stops(plan)
            .any(|stop| stop.name == runner.name && matches!(stop.reason, StopReason::Yield { .. }));
        if yields && facts.is_stuck(runner) {
            continue;
        }
        if is_out_of_time(plan, runner) {
            continue;
        }
        // A spent runner is stopped for that reason.
        let may = may || (facts.spent(runner) && facts.fresh(runner).is_some());
        prop_assert_eq!(stopped, may && !facts.waits_after_failure(&runner.name), "{} stopped", runner.name);
        let word = stopped || runner_holds(plan, &runner.name).next().is_some();
        prop_assert!(word, "{} without a word", runner.name);
    }
    Ok(())
}

pub fn what_is_spent_goes_and_is_never_issued_again(facts: &Facts, plan: &Plan) -> Checked {
    use RunnerState::{Pending, Running, Starting, Waiting};
    for runner in facts.runners().filter(|runner| facts.spent(runner)) {
        let issued =
            plan.actions.iter().any(|a| matches!(a, Action::IssueCredentials(m) if m.name == runner.name));
        prop_assert!(!issued, "{} gets credentials", runner.name);
        // See the next properties.
        if facts.is_gone(runner) || is_out_of_time(plan, runner) {
            continue;
        }
        let alive = matches!(runner.state, Pending | Waiting | Starting | Running);
        let due = alive && !facts.is_busy(runner) && facts.fresh(runner).is_some();
        let due = due && !facts.waits_after_failure(&runner.name);
        prop_assert_eq!(is_stopped(plan, &runner.name), due, "{} stopped", runner.name);
    }
    Ok(())
}

/// Whether it is stopped because of its maximum run duration.
fn is_out_of_time(plan: &Plan, runner: &Runner) -> bool {
    stops(plan)
        .any(|stop| stop.name == runner.name && matches!(stop.reason, StopReason::MaxRunDuration { .. }))
}

/// Another attempt may be placed where it does start.
pub fn what_does_not_start_in_time_is_stopped(facts: &Facts, plan: &Plan) -> Checked {
    for runner in facts.runners() {
        let due = facts.is_not_starting(runner)
            && facts.ours(runner)
            && !facts.is_busy(runner)
            && facts.fresh(runner).is_some()
            && !facts.waits_after_failure(&runner.name);
        prop_assert!(!due || is_stopped(plan, &runner.name), "{} does not start and stays", runner.name);
        let for_this = stops(plan)
            .any(|stop| stop.name == runner.name && matches!(stop.reason, StopReason::NotStarting { .. }));
        prop_assert!(!for_this || due, "{} is stopped too early", runner.name);
    }
    Ok(())
}

/// A node that is being drained is left by every runner without a job that GitHub may list, and by no other.
pub fn draining_nodes_are_left_by_runners_without_a_job(facts: &Facts, plan: &Plan) -> Checked {
    use RunnerState::{Running, Starting, Waiting};
    for runner in facts.runners() {
        let draining = runner.allocation.as_ref().is_some_and(|allocation| allocation.draining);
        let due = draining
            && matches!(runner.state, Waiting | Starting | Running)
            && facts.ours(runner)
            && !facts.is_busy(runner)
            && !facts.absent(runner)
            && facts.fresh(runner).is_some()
            && !facts.waits_after_failure(&runner.name);
        prop_assert!(!due || is_stopped(plan, &runner.name), "{} stays on a draining node", runner.name);
        let for_this = stops(plan)
            .any(|stop| stop.name == runner.name && matches!(stop.reason, StopReason::NodeDrains { .. }));
        prop_assert!(!for_this || due, "{} is stopped although it may stay", runner.name);
    }
    Ok(())
}

/// A busy runner is stopped with its job, half a minute after its limit. If Nomad knows the limit, it stops the runner
/// first. The end is announced before.
pub fn what_runs_for_too_long_is_announced_and_then_stopped(facts: &Facts, plan: &Plan) -> Checked {
    for runner in facts.runners() {
        let for_this = is_out_of_time(plan, runner);
        let time = facts.max_run_duration(runner).zip(facts.in_use_for(runner));
        let Some((limit, ran)) = time.filter(|_| facts.ours(runner)) else {
            prop_assert!(!for_this, "{} has no limit, or does not run", runner.name);
            continue;
        };
        let due = ran >= limit + secs(30) && facts.fresh(runner).is_some();
        let waits = facts.waits_after_failure(&runner.name);
        prop_assert!(!for_this || due && !waits, "{} is stopped too early", runner.name);
        prop_assert!(!due || waits || is_stopped(plan, &runner.name), "{} runs on", runner.name);
        let soon = ran + secs(900).min(limit / 4) >= limit;
        let told = runner_holds(plan, &runner.name)
            .any(|reason| matches!(reason, HoldReason::MaxRunDuration { .. }));
        prop_assert_eq!(told, soon && !is_stopped(plan, &runner.name), "{} and a word", runner.name);
    }
    Ok(())
}

pub fn runners_of_a_repository_gone_for_an_hour_go_if_they_never_started(
    facts: &Facts,
    plan: &Plan,
) -> Checked {
    use RunnerState::{Pending, Running, Starting, Waiting};
    for runner in facts.runners().filter(|runner| facts.ours(runner)) {
        let Some(Listing::Gone { since }) = facts.view(runner).map(|view| &view.listing) else { continue };
        let unstarted = matches!(runner.state, Pending | Waiting | Starting)
            && (!runner.started || runner.spent && !runner.ending);
        // An organization can say whether it is busy.
        let asked = facts.policy().level == RunnerLevel::Organization && runner.state == Running;
        let due = (unstarted || asked)
            && !facts.is_busy(runner)
            && facts.since(*since) >= secs(3600)
            && !facts.waits_after_failure(&runner.name);
        prop_assert_eq!(is_stopped(plan, &runner.name), due, "{} stopped", runner.name);
    }
    Ok(())
}
