//! After a plan is applied to its world, nothing is left to do at the same instant.

use std::collections::BTreeSet;

use githubrunner::model::*;
use proptest::prelude::*;

use crate::{
    cases::{Case, for_all, server_now},
    specification::facts::{group_of_start, starts, stops},
};

/// How a stopped runner is seen right afterwards.
#[derive(Clone, Copy)]
enum Stopped {
    /// Its task is being killed, or the servers have not learned of its end.
    Slowly,
    /// A runner that never started is dead at once.
    AtOnce,
}

/// The world after the plan, at the same instant. The memory does not change.
fn apply_to_observation(case: &Case, plan: &Plan, stopped: Stopped) -> Case {
    let mut case = case.clone();
    let Some(nomad) = &mut case.observation.nomad else { return case };
    for action in &plan.actions {
        let runner = nomad.runners.iter_mut().find(|runner| runner.name == *action.runner());
        match (action, runner) {
            (Action::Start(start), None) => nomad.runners.push(Runner {
                name: start.name.clone(),
                namespace: start.namespace.clone(),
                ownership: Ownership::Ours,
                meta: RunnerMeta {
                    labelsstr: start.labels.joined(),
                    repo_url: start.repository.html_url.clone(),
                    version: "1".to_owned(),
                    deployment: Some(nomad.deployment.clone()),
                    repo_id: Some(start.repository.id),
                    purpose: Some(start.purpose.clone()),
                    attempt: Some(start.attempt),
                    registration: Some(Registration::Jit),
                    task: None,
                    asks: None,
                    class: start.class.clone(),
                    mac: None,
                },
                state: RunnerState::Pending,
                finish: None,
                started: false,
                spent: false,
                ending: false,
                lost: None,
                variable: None,
                submitted_at: server_now(),
                allocation: None,
                started_at: None,
                ended_at: None,
                blocked: None,
                last_event: None,
            }),
            (Action::Stop(_), Some(runner)) => match stopped {
                Stopped::AtOnce if !runner.started => {
                    runner.state = RunnerState::Dead;
                    runner.finish = Some(Finish::Stopped);
                }
                _ => runner.state = RunnerState::Stopping,
            },
            (Action::IssueCredentials(_), Some(runner)) => {
                runner.variable = Some(crate::cases::server_now());
                runner.state = RunnerState::Starting;
            }
            (Action::CleanUp(_), Some(runner)) => runner.variable = None,
            (Action::Purge(purge), Some(_)) => nomad.runners.retain(|runner| runner.name != purge.name),
            _ => {}
        }
    }
    case
}

fn moves(plan: &Plan) -> usize {
    starts(plan).count() + stops(plan).count()
}

#[test]
fn a_plan_once_applied_is_followed_by_one_without_starts_and_stops() {
    for_all(|case, plan| {
        for stopped in [Stopped::Slowly, Stopped::AtOnce] {
            let after = apply_to_observation(case, plan, stopped);
            let second = after.plan();
            // A runner that did not yield because its group started now yields.
            let facts = after.facts();
            let yields = |stop: &&Stop| {
                let group = facts.group(facts.runner(&stop.name).unwrap());
                matches!(stop.reason, StopReason::Yield { .. })
                    && starts(plan).any(|start| group == Some(&group_of_start(start)))
            };
            // The node pool of a warm entry is that of its last runner, which may just have been purged.
            let yielded = |start: &&Start| {
                let is_of = |subject: &Subject| matches!(subject, Subject::Warm { labels, .. } if *labels == start.labels.joined());
                let mut holds = plan.holds.iter().filter(|hold| is_of(&hold.subject));
                start.purpose.warm().is_some()
                    && holds.any(|hold| matches!(hold.reason, HoldReason::WarmYields { .. }))
            };
            let late = stops(&second).filter(yields).count() + starts(&second).filter(yielded).count();
            if stops(plan).next().is_none() {
                prop_assert_eq!(moves(&second) - late, 0, "\nAFTER {:?}", after);
                continue;
            }
            // A Stop frees a place, and its group waits for the next pass. That pass may then start jobs for
            // which the first plan announced it, or whose runner has yielded its place.
            let facts = case.facts();
            for start in starts(&second) {
                let holds = plan.holds.iter().filter(|hold| match (&start.purpose, &hold.subject) {
                    (Purpose::Job(job), Subject::Job { id, .. }) => job == id,
                    (Purpose::Warm(_), Subject::Warm { labels, .. }) => *labels == start.labels.joined(),
                    _ => false,
                });
                let said = holds.map(|hold| &hold.reason).any(|reason| {
                    matches!(
                        reason,
                        HoldReason::GroupStops
                            | HoldReason::Cap { .. }
                            | HoldReason::Turn { .. }
                            | HoldReason::WarmYields { .. }
                    )
                });
                let yielded = stops(plan).any(|stop| {
                    let stopped = facts.runner(&stop.name).unwrap();
                    let entry = |purpose: Option<&Purpose>| {
                        purpose.and_then(Purpose::warm).map(|warm| warm.entry.clone())
                    };
                    let is_replaced = entry(Some(&start.purpose))
                        .is_some_and(|own| entry(stopped.meta.purpose.as_ref()) == Some(own));
                    let made_room = matches!(
                        stop.reason,
                        StopReason::Yield { .. }
                            | StopReason::NotStarting { .. }
                            | StopReason::NodeDrains { .. }
                            | StopReason::MaxRunDuration { .. }
                            | StopReason::Warm(_)
                            | StopReason::MakeRoom { .. }
                    );
                    is_replaced || made_room && facts.group(stopped) == Some(&group_of_start(start))
                });
                prop_assert!(said || yielded, "{} comes out of nowhere\nAFTER {after:?}", start.name);
            }
        }
        Ok(())
    });
}

#[test]
fn plans_settle_and_nothing_just_started_is_stopped() {
    for_all(|case, plan| {
        for stopped in [Stopped::Slowly, Stopped::AtOnce] {
            let (mut case, mut plan) = (case.clone(), plan.clone());
            let mut started: BTreeSet<String> = BTreeSet::new();
            let mut rounds = 0;
            while moves(&plan) > 0 {
                rounds += 1;
                prop_assert!(rounds <= 4, "no rest\nAFTER {case:?}");
                for stop in stops(&plan) {
                    prop_assert!(!started.contains(&stop.name), "{} was just started", stop.name);
                }
                started.extend(starts(&plan).map(|start| start.name.clone()));
                case = apply_to_observation(&case, &plan, stopped);
                plan = case.plan();
            }
        }
        Ok(())
    });
}
