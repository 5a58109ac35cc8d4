//! Credentials for waiting runners, and what dead ones leave behind.

use std::collections::BTreeSet;

use githubrunner::model::*;
use proptest::prelude::*;

use super::{
    Checked,
    facts::{Facts, is_stopped, is_surplus, runner_holds},
    rerun::is_undecided,
    secs,
    warm::{counts_failures, is_unwanted},
};

pub fn whoever_is_placed_and_waits_gets_its_secret_and_nobody_else(facts: &Facts, plan: &Plan) -> Checked {
    for runner in facts.runners() {
        let issue = plan.actions.iter().find_map(|action| match action {
            Action::IssueCredentials(issue) if issue.name == runner.name => Some(issue),
            _ => None,
        });
        let waits = runner.state == RunnerState::Waiting
            && facts.ours(runner)
            && runner.registration() != Registration::AccessToken
            && !runner.spent;
        if issue.is_none() && !waits {
            continue;
        }
        let leaves = is_stopped(plan, &runner.name);
        let view = facts.view(runner);
        let takes =
            view.is_some_and(|view| facts.takes_jobs(view) && !matches!(view.listing, Listing::Gone { .. }));
        match issue {
            Some(issue) => {
                prop_assert!(waits && !leaves, "{} needs none", runner.name);
                prop_assert!(!is_surplus(plan, runner), "no job needs {}", runner.name);
                prop_assert!(takes, "{} gets no job", runner.name);
                prop_assert_eq!(&issue.labels.joined(), &runner.meta.labelsstr);
                prop_assert_eq!(issue.registration, runner.registration());
                prop_assert_eq!(Some(issue.repository.id), view.map(|view| view.repository.id));
            }
            None => {
                let word = leaves || runner_holds(plan, &runner.name).next().is_some();
                prop_assert!(word, "{} waits without a word", runner.name);
                let waits =
                    facts.waits_after_failure(&runner.name) || facts.waits_for_credentials(&runner.name);
                let may = takes && !waits;
                // An incomplete listing may have a job for it.
                let needed = match view.map(|view| &view.listing) {
                    Some(Listing::Fresh { complete: true, .. }) => !is_surplus(plan, runner),
                    Some(Listing::Earlier { complete: true, .. } | Listing::Stale { complete: true, .. }) => {
                        facts
                            .group(runner)
                            .is_some_and(|group| facts.supply(group).len() <= facts.demand_of(group))
                    }
                    _ => true,
                };
                let needed = if facts.warm(runner).is_some() { !is_unwanted(facts, runner) } else { needed };
                prop_assert!(!(may && needed) || leaves, "{} waits in vain", runner.name);
            }
        }
    }
    Ok(())
}

pub fn a_dead_runners_variable_goes_at_once(facts: &Facts, plan: &Plan) -> Checked {
    for runner in facts.runners() {
        let cleaned = is_cleaned(plan, runner);
        let due = runner.state == RunnerState::Dead && facts.ours(runner) && runner.variable.is_some();
        let due = due && !facts.waits_after_failure(&runner.name);
        prop_assert_eq!(cleaned, due, "{} cleaned up", runner.name);
    }
    Ok(())
}

fn is_cleaned(plan: &Plan, runner: &Runner) -> bool {
    plan.actions.iter().any(|action| matches!(action, Action::CleanUp(clean) if clean.name == runner.name))
}

pub fn the_dead_are_purged_after_their_timeout_and_not_while_they_count(
    facts: &Facts,
    plan: &Plan,
) -> Checked {
    for runner in facts.runners() {
        let purge = plan
            .actions
            .iter()
            .find(|action| matches!(action, Action::Purge(purge) if purge.name == runner.name));
        let dead = runner.state == RunnerState::Dead;
        if purge.is_none() && !dead {
            continue;
        }
        let timeout = match runner.finish {
            Some(Finish::Success | Finish::Stopped) => facts.policy().purge_successfull_timeout,
            _ => facts.policy().purge_failure_timeout,
        };
        let expired = timeout.is_some_and(|timeout| facts.dead_for(runner) >= timeout);
        let job_id = runner.meta.job_id();
        let newest = job_id.and_then(|job_id| facts.newest(job_id)).is_some_and(|r| r.name == runner.name);
        let variable = facts.ours(runner) && runner.variable.is_some();
        let counts_failures = counts_failures(facts, runner);
        if let Some(purge) = purge {
            prop_assert!(!counts_failures, "{}: it counts failures", purge);
            prop_assert!(dead, "{}: it lives", purge);
            prop_assert!(expired, "{}: too early", purge);
            // If its repository is gone, so is its job.
            let counts = newest && facts.is_queued(job_id) && !facts.is_gone(runner);
            prop_assert!(!counts, "{}: it counts the attempts of job {:?}", purge, job_id);
            prop_assert!(!variable, "{}: its variable goes first", purge);
            let known = job_id.is_none_or(|job_id| facts.jobs.contains_key(&job_id));
            let unseen = match facts.view(runner).map(|view| &view.listing) {
                // An old listing may predate the job.
                None | Some(Listing::Unseen { .. } | Listing::Earlier { .. } | Listing::Stale { .. }) => true,
                Some(Listing::Fresh { complete, .. }) => !complete,
                Some(Listing::Gone { .. }) => false,
            };
            prop_assert!(!(newest && !known && unseen), "{}: nobody knows of job {:?}", purge, job_id);
        }
        // In the other direction: nothing dead stays forever, and whatever stays has a reason.
        if expired && purge.is_none() && !is_undecided(facts, runner) {
            let word = is_cleaned(plan, runner) || runner_holds(plan, &runner.name).next().is_some();
            prop_assert!(word, "{} stays without a word", runner.name);
            let held = variable || counts_failures || facts.waits_after_failure(&runner.name);
            prop_assert!(held || newest, "{} stays without a reason", runner.name);
            let job = job_id.and_then(|job_id| facts.jobs.get(&job_id));
            let over = job
                .is_some_and(|(_, job)| matches!(job.status, JobStatus::Completed | JobStatus::InProgress));
            let seen = facts.view(runner).is_some_and(|v| !matches!(v.listing, Listing::Unseen { .. }));
            prop_assert!(!(over && !held && seen), "{} stays although its job is over", runner.name);
            let listed = facts.fresh(runner) == Some(true);
            let gone = job.is_none() && listed && !held;
            prop_assert!(!gone, "{} stays although its job is listed no more", runner.name);
        }
    }
    Ok(())
}

/// If the credentials were in the job, no variable showed that a registration may be left.
pub fn a_purge_names_the_repository_where_a_registration_may_be_left(facts: &Facts, plan: &Plan) -> Checked {
    for action in &plan.actions {
        let (name, repository, left) = match action {
            Action::Purge(purge) => {
                let runner = facts.runner_of(&purge.name)?;
                let left = facts.ours(runner)
                    && runner.registration() == Registration::AccessToken
                    && runner.started
                    && facts.view(runner).is_some()
                    && !facts.is_gone(runner);
                (&purge.name, &purge.repository, left)
            }
            Action::CleanUp(clean) => {
                (&clean.name, &clean.repository, facts.view(facts.runner_of(&clean.name)?).is_some())
            }
            _ => continue,
        };
        prop_assert_eq!(repository.is_some(), left, "{}", name);
    }
    Ok(())
}

/// A variable or registration with our name and without a runner is removed after a while; anything foreign,
/// or with a runner, never.
pub fn orphans_go_after_a_while_and_nothing_else(facts: &Facts, plan: &Plan) -> Checked {
    let Some(nomad) = facts.nomad() else { return Ok(()) };
    let ours = |name: &str| is_ours_by_name(&facts.policy().prefix, &nomad.deployment, name);
    let mut alone = BTreeSet::new();
    // A foreign job's variable is not ours, whatever its name is.
    let foreign = |name: &str| nomad.foreign.iter().any(|foreign| foreign.name == name);
    for variable in &nomad.variables {
        let name = &variable.name;
        let has_job = facts.counted().any(|runner| runner.name == *name);
        if !has_job && ours(name) && !foreign(name) {
            alone.insert(Orphan::Variable(variable.clone()));
        }
    }
    let registrations = &facts.observation().registrations;
    for registration in registrations {
        let live = facts.runner(&registration.name).is_some_and(|r| r.state != RunnerState::Dead);
        let online = || registrations.iter().any(|other| other.name == registration.name && other.online);
        // Its runner may be where nothing could be read.
        if nomad.unseen.is_empty() && !live && !online() && ours(&registration.name) {
            alone.insert(Orphan::Registration { name: registration.name.clone() });
        }
    }
    prop_assert_eq!(&plan.orphans, &alone);
    for orphan in &alone {
        let least = match orphan {
            Orphan::Variable(_) => secs(60),
            Orphan::Registration { .. } => secs(600),
        };
        let since = facts.memory().orphans.get(orphan);
        let due = since.is_some_and(|since| facts.since(*since) >= least);
        let removed = plan.actions.iter().find_map(|action| match action {
            Action::RemoveOrphan(remove) if remove.orphan == *orphan => Some(remove),
            _ => None,
        });
        let places: Vec<RepositoryId> = registrations
            .iter()
            .filter(|registration| registration.name == *orphan.name())
            .map(|registration| registration.repository)
            .collect();
        let known = places.iter().any(|id| facts.observation().repositories.contains_key(id));
        let variable = matches!(orphan, Orphan::Variable(_));
        prop_assert!(removed.is_none() || due, "{:?} goes too early", orphan);
        prop_assert!(removed.is_some() || !due || !(known || variable), "{:?} stays", orphan);
        if let Some(id) = removed.and_then(|removed| removed.repository.as_ref()).map(|r| r.id) {
            prop_assert!(!variable && places.contains(&id));
        }
    }
    for action in &plan.actions {
        let Action::RemoveOrphan(remove) = action else { continue };
        prop_assert!(alone.contains(&remove.orphan), "{}", action);
    }
    Ok(())
}
