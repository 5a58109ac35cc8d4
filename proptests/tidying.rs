//! Secrets for the waiting, and what the dead leave behind.

use githubrunner::model::*;
use proptest::prelude::*;

use crate::{
    cases::{INSTANCE, NOW, PREFIX, ago, for_all, secs},
    facts::{Facts, runner_holds, stops},
};

#[test]
fn whoever_is_placed_and_waits_gets_its_secret_and_nobody_else() {
    for_all(|case, plan| {
        let facts = Facts::new(case);
        for runner in facts.runners() {
            let mint = plan.actions.iter().find_map(|action| match action {
                Action::Mint(mint) if mint.name == runner.name => Some(mint),
                _ => None,
            });
            let waits = runner.state == RunnerState::Waiting
                && facts.ours(runner)
                && runner.registration() != Registration::AccessToken
                && !runner.lost
                && case.observation.nomad.is_some();
            let leaves = stops(plan).any(|stop| stop.name == runner.name);
            match mint {
                Some(mint) => {
                    prop_assert!(waits && !leaves, "{} needs none", runner.name);
                    let surplus = plan.surplus.values().any(|names| names.contains(&runner.name));
                    prop_assert!(!surplus, "no job needs {}", runner.name);
                    let view = facts.view(runner).unwrap();
                    let gone = matches!(view.listing, Listing::Gone { .. });
                    prop_assert!(facts.takes_jobs(view) && !gone, "{}", runner.name);
                    prop_assert_eq!(&mint.labels.joined(), &runner.meta.labelsstr);
                    prop_assert_eq!(mint.registration, runner.registration());
                    prop_assert_eq!(mint.repository.id, view.repository.id);
                }
                None => {
                    let word = leaves || runner_holds(plan, &runner.name).next().is_some();
                    prop_assert!(!waits || word, "{} waits without a word", runner.name);
                    let view = facts.view(runner);
                    let may = view.is_some_and(|view| {
                        facts.takes_jobs(view) && !matches!(view.listing, Listing::Gone { .. })
                    }) && !facts.waits_after_failure(&runner.name);
                    // An incomplete listing may have a job for it.
                    let needed = match view.map(|view| &view.listing) {
                        Some(Listing::Fresh { complete: true, .. }) => {
                            plan.surplus.values().all(|names| !names.contains(&runner.name))
                        }
                        Some(Listing::Stale { complete: true, .. }) => {
                            let group = facts.group(runner).unwrap();
                            facts.supply(&group).len() <= facts.demand_of(&group)
                        }
                        _ => true,
                    };
                    prop_assert!(!(waits && may && needed) || leaves, "{} waits in vain", runner.name);
                }
            }
        }
        Ok(())
    });
}

#[test]
fn a_dead_runners_variable_goes_at_once() {
    for_all(|case, plan| {
        let facts = Facts::new(case);
        for runner in facts.runners() {
            let cleaned = plan
                .actions
                .iter()
                .any(|action| matches!(action, Action::CleanUp(clean) if clean.name == runner.name));
            let due = runner.state == RunnerState::Dead && facts.ours(runner) && runner.has_variable;
            let due = due && case.observation.nomad.is_some() && !facts.waits_after_failure(&runner.name);
            prop_assert_eq!(cleaned, due, "{}", runner.name);
        }
        Ok(())
    });
}

#[test]
fn the_dead_are_purged_after_their_timeout_and_not_while_they_count() {
    for_all(|case, plan| {
        let facts = Facts::new(case);
        for runner in facts.runners() {
            let purge = plan
                .actions
                .iter()
                .find(|action| matches!(action, Action::Purge(purge) if purge.name == runner.name));
            let timeout = match runner.finish {
                Some(Finish::Success | Finish::Stopped) => case.policy.purge_successfull_timeout,
                _ => case.policy.purge_failure_timeout,
            };
            let expired = timeout.is_some_and(|timeout| facts.dead_for(runner) >= timeout);
            let dead = runner.state == RunnerState::Dead;
            let cause = runner.meta.job_id;
            let newest = cause.is_some_and(|cause| {
                let newest = facts
                    .runners()
                    .filter(|other| other.meta.job_id == Some(cause))
                    .max_by(|a, b| a.meta.attempt.cmp(&b.meta.attempt).then(b.name.cmp(&a.name)));
                newest.is_some_and(|newest| newest.name == runner.name)
            });
            let queued = cause
                .and_then(|cause| facts.jobs.get(&cause))
                .is_some_and(|(_, job)| job.status == JobStatus::Queued);
            if let Some(purge) = purge {
                prop_assert!(dead, "{purge}: it lives");
                prop_assert!(expired, "{purge}: too early");
                prop_assert!(!(newest && queued), "{purge}: it counts the attempts of job {cause:?}");
                prop_assert!(
                    !(facts.ours(runner) && runner.has_variable),
                    "{purge}: its variable goes first"
                );
                let known = cause.is_none_or(|cause| facts.jobs.contains_key(&cause));
                let unseen = match facts.view(runner).map(|view| &view.listing) {
                    // An old listing may be older than the job.
                    None | Some(Listing::Unseen { .. } | Listing::Stale { .. }) => true,
                    Some(Listing::Fresh { complete, .. }) => !complete,
                    Some(Listing::Gone { .. }) => false,
                };
                prop_assert!(!(newest && !known && unseen), "{purge}: nobody knows of job {cause:?}");
            }
            // The other way round: nothing dead stays for ever, and what stays says why.
            let stays = dead && expired && purge.is_none() && case.observation.nomad.is_some();
            if stays {
                let cleaned = plan
                    .actions
                    .iter()
                    .any(|action| matches!(action, Action::CleanUp(clean) if clean.name == runner.name));
                let word = runner_holds(plan, &runner.name).next().is_some();
                prop_assert!(cleaned || word, "{} stays without a word", runner.name);
                let why = (facts.ours(runner) && runner.has_variable)
                    || facts.waits_after_failure(&runner.name)
                    || newest;
                prop_assert!(why, "{} stays without a reason", runner.name);
                let over = facts.jobs.get(&cause.unwrap_or(0)).is_some_and(|(_, job)| {
                    matches!(job.status, JobStatus::Completed | JobStatus::InProgress)
                });
                let free = !runner.has_variable && !facts.waits_after_failure(&runner.name);
                let seen = !matches!(
                    facts.view(runner).map(|view| &view.listing),
                    None | Some(Listing::Unseen { .. })
                );
                prop_assert!(!(over && free && seen), "{} stays although its job is over", runner.name);
            }
        }
        Ok(())
    });
}

/// Where the secret was in the job, no variable told of a registration that may be left.
#[test]
fn a_purge_names_the_repository_where_a_registration_may_be_left() {
    for_all(|case, plan| {
        let facts = Facts::new(case);
        for action in &plan.actions {
            let (name, repository, left) = match action {
                Action::Purge(purge) => {
                    let runner = facts.runner(&purge.name).unwrap();
                    let gone =
                        facts.view(runner).is_none_or(|view| matches!(view.listing, Listing::Gone { .. }));
                    let left = facts.ours(runner)
                        && runner.registration() == Registration::AccessToken
                        && runner.started
                        && !gone;
                    (&purge.name, &purge.repository, left)
                }
                Action::CleanUp(clean) => {
                    (&clean.name, &clean.repository, facts.view(facts.runner(&clean.name).unwrap()).is_some())
                }
                _ => continue,
            };
            prop_assert_eq!(repository.is_some(), left, "{}", name);
        }
        Ok(())
    });
}

/// What bears our name and belongs to no runner goes after a while; what is foreign, or belongs to somebody,
/// never.
#[test]
fn orphans_go_after_a_while_and_nothing_else() {
    for_all(|case, plan| {
        let facts = Facts::new(case);
        let Some(nomad) = &case.observation.nomad else { return Ok(()) };
        let mut alone = std::collections::BTreeSet::new();
        for name in &nomad.variables {
            if facts.runner(name).is_none() && is_ours_by_name(PREFIX, INSTANCE, name) {
                alone.insert(Orphan::Variable { name: name.clone() });
            }
        }
        for registration in &case.observation.registrations {
            let live = facts.runner(&registration.name).is_some_and(|r| r.state != RunnerState::Dead);
            let ours = is_ours_by_name(PREFIX, INSTANCE, &registration.name);
            let online = case
                .observation
                .registrations
                .iter()
                .any(|other| other.name == registration.name && other.online);
            if !live && !online && ours {
                alone.insert(Orphan::Registration { name: registration.name.clone() });
            }
        }
        prop_assert_eq!(&plan.orphans, &alone);
        for orphan in &alone {
            let least = match orphan {
                Orphan::Variable { .. } => secs(60),
                Orphan::Registration { .. } => secs(600),
            };
            let since = case.observation.memory.orphans.get(orphan);
            let due = since.is_some_and(|since| NOW - *since >= least);
            let removed = plan.actions.iter().find_map(|action| match action {
                Action::RemoveOrphan(remove) if remove.orphan == *orphan => Some(remove),
                _ => None,
            });
            let places: Vec<RepositoryId> = case
                .observation
                .registrations
                .iter()
                .filter(|registration| registration.name == *orphan.name())
                .map(|registration| registration.repository)
                .collect();
            let known = places.iter().any(|id| case.observation.repositories.contains_key(id));
            let variable = matches!(orphan, Orphan::Variable { .. });
            prop_assert!(removed.is_none() || due, "{orphan:?} goes too early");
            prop_assert!(removed.is_some() || !due || !(known || variable), "{orphan:?} stays");
            if let Some(id) = removed.and_then(|removed| removed.repository.as_ref()).map(|r| r.id) {
                prop_assert!(!variable && places.contains(&id));
            }
        }
        for action in &plan.actions {
            let Action::RemoveOrphan(remove) = action else { continue };
            prop_assert!(alone.contains(&remove.orphan), "{action}");
        }
        Ok(())
    });
}

/// A client's clock may be hours off. Neither does an attempt wait for hours, nor come at once after a crash.
#[test]
fn a_clients_clock_delays_nothing_for_long() {
    for_all(|case, _| {
        let Some(at) = case.runners().iter().position(|runner| {
            let highest = Facts::new(case).highest(runner.meta.job_id.unwrap_or(0));
            runner.state == RunnerState::Dead && runner.meta.attempt == highest && runner.ended_at.is_some()
        }) else {
            return Ok(());
        };
        for (ahead, submitted, just_now) in
            [(1, 600, true), (60, 600, true), (61, 700, false), (7200, 700, false), (-7200, 700, false)]
        {
            let mut case = case.clone();
            case.policy.purge_successfull_timeout = Some(secs(100));
            case.policy.purge_failure_timeout = Some(secs(100));
            case.observation.memory.runner_backoff.clear();
            let runner = &mut case.observation.nomad.as_mut().unwrap().runners[at];
            runner.submitted_at = ago(submitted);
            runner.ended_at = Some(ago(0) + jiff::SignedDuration::from_secs(ahead));
            runner.has_variable = false;
            let name = runner.name.clone();
            let plan = case.plan();
            let waits = plan.holds.iter().any(|hold| {
                let own = matches!(hold.subject, Subject::Job { id, .. } if Some(id) == case.runners()[at].meta.job_id);
                own && matches!(hold.reason, HoldReason::Attempts { .. })
            });
            let purged = plan.actions.iter().any(|a| matches!(a, Action::Purge(purge) if purge.name == name));
            let kept = runner_holds(&plan, &name)
                .any(|reason| matches!(reason, HoldReason::CountsAttempts | HoldReason::CauseUnknown));
            if just_now {
                prop_assert!(!purged, "{name} has died just now");
            } else {
                prop_assert!(!waits, "{name} died long ago");
                prop_assert!(purged || kept, "{name} stays");
            }
        }
        Ok(())
    });
}
