//! Surplus, unregistered, lost and gone runners, and making room: who goes, who stays, and in which order.

use std::{collections::BTreeMap, sync::OnceLock, time::Duration};

use githubrunner::{model::*, plan::Policy};
use proptest::{prelude::*, sample::select, strategy::ValueTree};

use crate::{
    cases::{CASES, Case, NOW, ago, case, for_all, runner, secs, server_now, show},
    facts::{Facts, Group, job_holds, key, runner_holds, stops},
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
                    && !runner.started
                    && !facts.is_busy(runner);
            let due = unstarted && NOW - since >= secs(3600) && !facts.waits_after_failure(&runner.name);
            prop_assert_eq!(stops(plan).any(|stop| stop.name == runner.name), due, "{}", runner.name);
        }
        Ok(())
    });
}

/// Everything seen, everything surplus seen before, nothing failed, nobody idle for too long: what stops
/// then, stops for room.
fn crowded() -> impl Strategy<Value = Case> {
    (case(), 0..4_usize, select(vec![0_u64, 60, 600])).prop_map(|(mut case, full, patience)| {
        case.observation.memory = Memory::default();
        for runner in case.observation.nomad.iter_mut().flat_map(|nomad| &mut nomad.runners) {
            runner.lost = false;
            match runner.state {
                RunnerState::Running => {
                    let id = runner.meta.repo_id.unwrap_or(RepositoryId(1));
                    let surplus = case.observation.memory.surplus.entry(id).or_default();
                    surplus.insert(runner.name.clone());
                }
                RunnerState::Pending => runner.submitted_at = runner.submitted_at.min(ago(240)),
                RunnerState::Stopping => runner.state = RunnerState::Disconnected,
                _ => {}
            }
        }
        for view in case.observation.repositories.values_mut() {
            let jobs = view.listing.jobs().to_vec();
            view.listing = Listing::Fresh { now: server_now(), jobs, complete: true };
        }
        let live = case.runners().iter().filter(|runner| runner.state != RunnerState::Dead).count();
        case.policy = Policy {
            max_runners: match full {
                0 | 1 => Some(live),
                2 => Some(live + 1),
                _ => case.policy.max_runners,
            },
            pending_to_kill_listening: Some(secs(patience)),
            runner_inactivity_timeout: None,
            strict: false,
            ..case.policy
        };
        case
    })
}

fn for_all_crowded(property: impl Fn(&Case, &Plan) -> Result<(), TestCaseError>) {
    static CROWDED: OnceLock<Vec<(Case, Plan)>> = OnceLock::new();
    let cases = CROWDED.get_or_init(|| {
        let mut runner = runner(CASES);
        let strategy = crowded();
        (0..runner.config().cases)
            .map(|_| strategy.new_tree(&mut runner).unwrap().current())
            .map(|case| (case.clone(), case.plan()))
            .collect()
    });
    show(cases, &crowded(), property);
}

/// How long things wait before others make room: never less than it takes Nomad to place a runner.
fn patience(case: &Case) -> Option<Duration> {
    case.policy.pending_to_kill_listening.map(|patience| patience.max(secs(5)))
}

/// The runners that wait for room on the nodes, and how many jobs wait at a cap that another runner's end
/// would relieve: of all repositories, by repository.
fn waiting<'a>(case: &Case, facts: &Facts<'a>, plan: &Plan) -> (Vec<&'a Runner>, Vec<Group>) {
    let Some(patience) = patience(case) else { return (vec![], vec![]) };
    let unplaced = facts
        .runners()
        .filter(|runner| runner.state == RunnerState::Pending)
        .filter(|runner| runner.blocked.as_ref().is_some_and(|blocked| blocked.exhausted))
        .filter(|runner| age(server_now(), runner.submitted_at) >= patience)
        .filter(|runner| !plan.surplus.values().any(|names| names.contains(&runner.name)))
        .collect();
    let held = facts
        .jobs
        .values()
        .filter(|(_, job)| job.created_at.is_some_and(|at| age(server_now(), at) >= patience))
        .filter(|(_, job)| {
            job_holds(plan, job.id)
                .any(|reason| matches!(reason, HoldReason::Cap { cap: Cap::All | Cap::Repository, .. }))
        })
        .map(|(view, job)| (view.repository.id, key(&job.labels)))
        .collect();
    (unplaced, held)
}

#[test]
fn room_is_made_by_idle_runners_that_no_job_needs_and_for_no_more_than_waits() {
    for_all_crowded(|case, plan| {
        let facts = Facts::new(case);
        let (unplaced, held) = waiting(case, &facts, plan);
        let mut made = 0;
        for stop in stops(plan) {
            if let StopReason::MakeRoom { .. } = stop.reason {
                made += 1;
                let runner = facts.runner(&stop.name).unwrap();
                prop_assert!(facts.idle(runner).is_some(), "{} is not idle", stop.name);
                prop_assert!(facts.was_surplus(runner), "{} was needed before", stop.name);
                let group = facts.group(runner).unwrap();
                prop_assert!(plan.surplus[&group.0].contains(&stop.name), "{} is needed", stop.name);
                for other in plan.surplus[&group.0].iter().filter_map(|name| facts.runner(name)) {
                    let stays = stops(plan).all(|stop| stop.name != other.name);
                    let longer = facts.idle(other) > facts.idle(runner);
                    prop_assert!(!(stays && longer), "{} has been idle for longer", other.name);
                }
            }
            if let StopReason::Yield { .. } = stop.reason {
                made += 1;
                let runner = facts.runner(&stop.name).unwrap();
                prop_assert_eq!(runner.state, RunnerState::Pending);
                let patience = patience(case).unwrap();
                prop_assert!(age(server_now(), runner.submitted_at) >= patience, "{}", stop.name);
                let own = facts.group(runner).unwrap();
                prop_assert!(held.iter().any(|group| *group != own), "{} yields to nobody", stop.name);
            }
        }
        let leaving = facts.runners().filter(|runner| runner.state == RunnerState::Stopping).count()
            + stops(plan).count();
        let waits = unplaced.len() + held.len();
        prop_assert!(made == 0 || leaving <= waits, "{leaving} leave for {waits}");
        Ok(())
    });
}

/// The other way round: while something waits and nobody leaves, the idle do not stay.
#[test]
fn the_idle_do_not_stay_while_something_waits_for_room() {
    for_all_crowded(|case, plan| {
        let facts = Facts::new(case);
        let (unplaced, held) = waiting(case, &facts, plan);
        let idle = |within: Option<RepositoryId>| {
            plan.surplus
                .iter()
                .filter(|(id, _)| within.is_none_or(|within| **id == within))
                .flat_map(|(_, names)| names)
                .filter_map(|name| facts.runner(name))
                .any(|runner| facts.idle(runner).is_some())
        };
        let leaving = facts.runners().any(|runner| runner.state == RunnerState::Stopping)
            || stops(plan).next().is_some();
        prop_assert!(leaving || unplaced.is_empty() || !idle(None), "{} waits", unplaced[0].name);
        // A start held at its group's cap as well would not be helped.
        if case.policy.max_runners_per_group.is_none() {
            for (id, _) in held {
                prop_assert!(leaving || !idle(Some(id)), "a job of {id} waits");
            }
        }
        Ok(())
    });
}

/// At the cap on all runners, what has not been placed for long does not keep its place.
#[test]
fn the_unplaced_yield_to_another_groups_start() {
    for_all_crowded(|case, plan| {
        let facts = Facts::new(case);
        let patience = patience(case).unwrap();
        let busy_leaving = facts.runners().any(|runner| runner.state == RunnerState::Stopping)
            || stops(plan).next().is_some();
        if busy_leaving
            || case.policy.max_runners_per_group.is_some()
            || case.policy.max_runners_per_repository.is_some()
        {
            return Ok(());
        }
        let (_, held) = waiting(case, &facts, plan);
        let started: Vec<Group> = crate::facts::starts(plan).map(crate::facts::group_of_start).collect();
        for runner in facts.runners().filter(|runner| facts.ours(runner)) {
            let unplaced = runner.state == RunnerState::Pending
                && age(server_now(), runner.submitted_at) >= patience
                && !facts.is_busy(runner);
            let Some(group) = facts.group(runner) else { continue };
            let other = held.iter().any(|other| *other != group);
            prop_assert!(!(unplaced && other) || started.contains(&group), "{} keeps its place", runner.name);
        }
        Ok(())
    });
}

#[test]
fn a_group_that_starts_yields_nothing() {
    for_all_crowded(|case, plan| {
        let facts = Facts::new(case);
        let started: Vec<Group> = crate::facts::starts(plan).map(crate::facts::group_of_start).collect();
        for stop in stops(plan) {
            let group = facts.group(facts.runner(&stop.name).unwrap()).unwrap();
            prop_assert!(!started.contains(&group), "{}", stop.name);
        }
        Ok(())
    });
}

/// A place is worth nothing to a start that another cap holds back all the same.
#[test]
fn room_is_made_only_where_it_helps() {
    for_all_crowded(|case, plan| {
        let facts = Facts::new(case);
        for stop in stops(plan) {
            let (StopReason::MakeRoom { waits } | StopReason::Yield { waits }) = &stop.reason else {
                continue;
            };
            let Some((name, id)) = waits.split_once(" job ") else { continue };
            let (view, job) = facts.jobs[&id.parse::<u64>().unwrap()];
            prop_assert_eq!(view.repository.full_name(), name);
            let own = facts.view(facts.runner(&stop.name).unwrap()).unwrap().repository.id;
            let group = (view.repository.id, key(&job.labels));
            let in_group = facts.live(|runner| facts.group(runner).as_ref() == Some(&group));
            let in_repository =
                facts.live(|runner| facts.view(runner).is_some_and(|v| v.repository.id == group.0));
            let full = |cap: Option<usize>, live: usize| cap.is_some_and(|cap| live >= cap);
            prop_assert!(!full(case.policy.max_runners_per_group, in_group), "{waits}: its group is full");
            let within = full(case.policy.max_runners_per_repository, in_repository);
            prop_assert!(!within || own == group.0, "{waits}: its repository is full");
        }
        Ok(())
    });
}

#[test]
fn crowded_cases_make_room_in_every_way() {
    let met = std::cell::Cell::new((0, 0, 0));
    for_all_crowded(|_, plan| {
        for stop in stops(plan) {
            let (mut for_nodes, mut for_caps, mut yields) = met.get();
            match &stop.reason {
                StopReason::MakeRoom { waits } if waits.contains(" job ") => for_caps += 1,
                StopReason::MakeRoom { .. } => for_nodes += 1,
                StopReason::Yield { .. } => yields += 1,
                _ => {}
            }
            met.set((for_nodes, for_caps, yields));
        }
        Ok(())
    });
    let (for_nodes, for_caps, yields) = met.get();
    assert!(for_nodes >= 20 && for_caps >= 20 && yields >= 10, "{:?}", met.get());
}
