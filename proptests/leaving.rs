//! Surplus, unregistered, lost and gone runners: who goes, who stays, and in which order.

use std::collections::BTreeMap;

use githubrunner::model::*;
use proptest::prelude::*;

use crate::{
    cases::{NOW, for_all, secs},
    facts::{Facts, Group, runner_holds, stops},
};

#[test]
fn surplus_goes_only_when_seen_twice_and_idle_runners_after_their_time() {
    for_all(|case, plan| {
        let facts = Facts::new(case);
        let mut leaving: BTreeMap<Group, usize> = BTreeMap::new();
        for stop in stops(plan) {
            let runner = facts.runner(&stop.name).unwrap();
            let StopReason::Surplus { demand, supply } = stop.reason else { continue };
            prop_assert!(facts.was_surplus(runner), "{} was not seen as surplus before", stop.name);
            let group = facts.group(runner).unwrap();
            prop_assert_eq!((demand, supply), (facts.demand_of(&group), facts.supply(&group).len()));
            if let Some(idle) = facts.idle(runner) {
                let timeout = case.policy.runner_inactivity_timeout;
                let due = case.policy.strict || timeout.is_some_and(|timeout| idle >= timeout);
                prop_assert!(due, "{} idle for {idle:?} only", stop.name);
            }
            *leaving.entry(group).or_default() += 1;
        }
        for (group, leaving) in leaving {
            let (demand, supply) = (facts.demand_of(&group), facts.supply(&group).len());
            prop_assert!(
                supply - leaving >= demand,
                "{leaving} of {supply} leave {group:?} with {demand} jobs"
            );
        }
        Ok(())
    });
}

/// The other way round: what is surplus for the second time, and not to be waited for, goes.
#[test]
fn surplus_that_may_go_goes() {
    for_all(|case, plan| {
        let facts = Facts::new(case);
        for (id, names) in &plan.surplus {
            let mut groups: BTreeMap<Group, Vec<&Runner>> = BTreeMap::new();
            for name in names {
                let runner = facts.runner(name).unwrap();
                let group = facts.group(runner).unwrap();
                prop_assert_eq!(group.0, *id);
                groups.entry(group).or_default().push(runner);
                let due = match facts.idle(runner) {
                    Some(idle) => {
                        case.policy.strict
                            || case.policy.runner_inactivity_timeout.is_some_and(|timeout| idle >= timeout)
                    }
                    None => true,
                };
                let goes = due && facts.was_surplus(runner) && !facts.waits_after_failure(name);
                let stopped = stops(plan).any(|stop| stop.name == *name);
                prop_assert!(!goes || stopped, "{name} may go and does not");
                prop_assert!(stopped || runner_holds(plan, name).next().is_some(), "{name} without a word");
            }
            for (group, runners) in groups {
                let supply = facts.supply(&group);
                let ours = supply.iter().filter(|runner| facts.ours(runner)).count();
                let spare = supply.len().saturating_sub(facts.demand_of(&group));
                prop_assert_eq!(runners.len(), spare.min(ours));
            }
        }
        Ok(())
    });
}

/// Who never started goes first, then the longest idle.
#[test]
fn the_oldest_idle_runner_leaves_first() {
    for_all(|case, plan| {
        let facts = Facts::new(case);
        for names in plan.surplus.values() {
            for leaving in names.iter().filter_map(|name| facts.runner(name)) {
                let Some(idle) = facts.idle(leaving) else { continue };
                for staying in facts.supply(&facts.group(leaving).unwrap()) {
                    if names.contains(&staying.name) || !facts.ours(staying) {
                        continue;
                    }
                    let other = facts.idle(staying);
                    prop_assert!(
                        other.is_some_and(|other| other <= idle),
                        "{} stays, {} goes",
                        staying.name,
                        leaving.name
                    );
                }
            }
        }
        Ok(())
    });
}

#[test]
fn look_ups_ask_only_for_idle_runners_and_not_too_often() {
    for_all(|case, plan| {
        let facts = Facts::new(case);
        for runner in facts.runners() {
            let asked = plan
                .actions
                .iter()
                .any(|action| matches!(action, Action::LookUp(look_up) if look_up.name == runner.name));
            let demand = facts.group(runner).is_some_and(|group| facts.demand_of(&group) > 0);
            let idle = facts.idle(runner);
            let suspicious = demand && idle.is_some_and(|idle| idle > secs(120));
            let wanted = facts.ours(runner)
                && idle.is_some()
                && facts.fresh(runner).is_some()
                && (suspicious || facts.absent(runner));
            let checked = case.observation.memory.presence.get(&runner.name).map(|p| NOW - p.checked_at);
            let due = checked.is_none_or(|checked| checked >= secs(120));
            let free = !facts.waits_after_failure(&runner.name)
                && stops(plan).all(|stop| stop.name != runner.name)
                && case.observation.nomad.is_some();
            prop_assert_eq!(asked, wanted && due && free, "{}", runner.name);
        }
        Ok(())
    });
}

#[test]
fn an_unregistered_runner_is_let_go_after_ten_minutes_of_look_ups() {
    for_all(|case, plan| {
        let facts = Facts::new(case);
        for runner in facts.runners().filter(|runner| facts.ours(runner) && facts.idle(runner).is_some()) {
            let Some(presence) = case.observation.memory.presence.get(&runner.name) else { continue };
            let Some(since) = presence.absent_since else { continue };
            let confirmed = presence.checked_at - since >= secs(600);
            if !confirmed && runner.registration() != Registration::Jit {
                // It may bear another name at GitHub: it counts like any other.
                continue;
            }
            let stopped = stops(plan).any(|stop| stop.name == runner.name);
            let may = confirmed && facts.fresh(runner) == Some(true);
            // A spent one is let go for that reason.
            let may = may || (facts.spent(runner) && facts.fresh(runner).is_some());
            prop_assert_eq!(stopped, may && !facts.waits_after_failure(&runner.name), "{}", runner.name);
            prop_assert!(stopped || runner_holds(plan, &runner.name).next().is_some(), "{}", runner.name);
        }
        Ok(())
    });
}

#[test]
fn what_was_lost_goes_and_is_never_minted() {
    for_all(|case, plan| {
        let facts = Facts::new(case);
        for runner in facts.runners().filter(|runner| facts.spent(runner)) {
            let minted = plan.actions.iter().any(|a| matches!(a, Action::Mint(m) if m.name == runner.name));
            prop_assert!(!minted, "{}", runner.name);
            use RunnerState::*;
            let alive = matches!(runner.state, Pending | Waiting | Starting | Running);
            let due = alive && !facts.is_busy(runner) && facts.fresh(runner).is_some();
            // See the next property.
            if facts.view(runner).is_some_and(|view| matches!(view.listing, Listing::Gone { .. })) {
                continue;
            }
            let stopped = stops(plan).any(|stop| stop.name == runner.name);
            prop_assert_eq!(stopped, due && !facts.waits_after_failure(&runner.name), "{}", runner.name);
        }
        Ok(())
    });
}

#[test]
fn runners_of_a_repository_gone_for_an_hour_go_if_they_never_started() {
    for_all(|case, plan| {
        let facts = Facts::new(case);
        for runner in facts.runners().filter(|runner| facts.ours(runner)) {
            let Some(view) = facts.view(runner) else { continue };
            let Listing::Gone { since } = view.listing else { continue };
            let unstarted =
                matches!(runner.state, RunnerState::Pending | RunnerState::Waiting | RunnerState::Starting)
                    && (!runner.started || runner.lost)
                    && !facts.is_busy(runner);
            let due = unstarted && NOW - since >= secs(3600) && !facts.waits_after_failure(&runner.name);
            prop_assert_eq!(stops(plan).any(|stop| stop.name == runner.name), due, "{}", runner.name);
        }
        Ok(())
    });
}
