//! Making room: what waits for a place, and who lets go for it.

use std::{sync::OnceLock, time::Duration};

use githubrunner::{model::*, plan::Policy};
use proptest::{prelude::*, sample::select, strategy::ValueTree};

use crate::{
    cases::{CASES, Case, ago, case, runner, secs, server_now, show},
    facts::{Facts, Group, group_of_start, job_holds, key, starts, stops},
};

/// How a crowd differs from other cases: everything is seen, what is idle has mostly been surplus before, nothing
/// has failed, nobody has been idle for too long. What stops then, stops for room.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Crowd {
    /// At the cap on all, with no other.
    Full,
    /// The same, and the first repository is not seen.
    HalfSeen,
    /// At the cap on all, with whatever others there are; some are stopping already.
    Leaving,
    /// One place is left.
    Nearly,
    /// Any caps.
    Any,
}

fn crowded() -> impl Strategy<Value = Case> {
    use Crowd::*;
    (case(), select(vec![Full, HalfSeen, Leaving, Nearly, Any]), select(vec![0_u64, 60, 600]))
        .prop_map(|(case, crowd, patience)| crowd_of(case, crowd, patience))
}

fn crowd_of(mut case: Case, crowd: Crowd, patience: u64) -> Case {
    case.observation.memory = Memory::default();
    for (at, runner) in case.observation.nomad.iter_mut().flat_map(|nomad| &mut nomad.runners).enumerate() {
        runner.lost = false;
        match runner.state {
            RunnerState::Running if at % 4 < 3 => {
                let id = runner.meta.repo_id.unwrap_or(RepositoryId(1));
                case.observation.memory.surplus.entry(id).or_default().insert(runner.name.clone());
            }
            RunnerState::Pending => runner.submitted_at = runner.submitted_at.min(ago(240)),
            RunnerState::Stopping if crowd != Crowd::Leaving => runner.state = RunnerState::Disconnected,
            _ => {}
        }
    }
    for (at, view) in case.observation.repositories.values_mut().enumerate() {
        let jobs = view.listing.jobs().to_vec();
        view.listing = if crowd == Crowd::HalfSeen && at == 0 {
            Listing::Stale { jobs, complete: true, reason: "503".to_owned() }
        } else {
            Listing::Fresh { now: server_now(), jobs, complete: true }
        };
    }
    // Somebody else's has waited for longest of all, and is nobody's to stop.
    let pending = case.runners().iter().find(|runner| runner.state == RunnerState::Pending).cloned();
    let nomad = case.observation.nomad.as_mut().filter(|_| crowd == Crowd::Full);
    if let (Some(nomad), Some(pending)) = (nomad, pending) {
        let meta = RunnerMeta { instance: None, repo_id: None, job_id: None, ..pending.meta.clone() };
        nomad.runners.push(Runner {
            name: "ghr-theirs".to_owned(),
            ownership: Ownership::Nomadtools,
            submitted_at: ago(100_000),
            meta,
            ..pending
        });
    }
    let live = case.runners().iter().filter(|runner| runner.state != RunnerState::Dead).count();
    let other = |cap: Option<usize>| cap.filter(|_| !matches!(crowd, Crowd::Full | Crowd::HalfSeen));
    case.policy = Policy {
        max_runners: match crowd {
            Crowd::Full | Crowd::HalfSeen | Crowd::Leaving => Some(live),
            Crowd::Nearly => Some(live + 1),
            Crowd::Any => case.policy.max_runners,
        },
        max_runners_per_repository: other(case.policy.max_runners_per_repository),
        max_runners_per_group: other(case.policy.max_runners_per_group),
        pending_to_kill_listening: Some(secs(patience)),
        runner_inactivity_timeout: None,
        strict: false,
        ..case.policy
    };
    case
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
                    let longer = facts.was_surplus(other) && facts.idle(other) > facts.idle(runner);
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
                .any(|runner| facts.idle(runner).is_some() && facts.was_surplus(runner))
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
        let started: Vec<Group> = starts(plan).map(group_of_start).collect();
        for runner in facts.runners().filter(|runner| facts.ours(runner)) {
            let unplaced = runner.state == RunnerState::Pending
                && age(server_now(), runner.submitted_at) >= patience
                && facts.fresh(runner).is_some()
                && !facts.is_busy(runner);
            let Some(group) = facts.group(runner) else { continue };
            let other = held.iter().any(|other| *other != group);
            prop_assert!(!(unplaced && other) || started.contains(&group), "{} keeps its place", runner.name);
        }
        Ok(())
    });
}

#[test]
fn nobody_leaves_a_repository_that_was_not_seen() {
    for_all_crowded(|case, plan| {
        let facts = Facts::new(case);
        for stop in stops(plan) {
            let runner = facts.runner(&stop.name).unwrap();
            prop_assert!(facts.fresh(runner).is_some() && facts.ours(runner), "{}", stop.name);
        }
        Ok(())
    });
}

#[test]
fn a_group_that_starts_yields_nothing() {
    for_all_crowded(|case, plan| {
        let facts = Facts::new(case);
        let started: Vec<Group> = starts(plan).map(group_of_start).collect();
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
