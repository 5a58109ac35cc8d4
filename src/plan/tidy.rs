//! Credentials for placed runners, verifications of idle ones, and what dead ones leave behind.

use std::{collections::BTreeSet, time::Duration};

use super::{
    Draft, offers,
    stop::Spare,
    stuck,
    survey::Survey,
    warm::{self, Unwanted},
};
use crate::model::{
    Action, CleanUp, HoldReason, IssueCredentials, JobStatus, Listing, Ownership, Purge, PurgeReason,
    RepositoryRef, Runner, RunnerState, VerifyRegistration,
};

/// How long a runner may take to come online before it is verified.
const IDLE_BEFORE_LOOK_UP: Duration = Duration::from_secs(120);

/// The shortest time between two verifications of one runner.
const LOOK_UP_INTERVAL: Duration = Duration::from_secs(120);

/// How often a warm runner is verified while no job needs it.
const WARM_LOOK_UP_INTERVAL: Duration = Duration::from_secs(900);

/// Credentials for each placed runner that has none, unless no job needs it, because then it is about to be stopped. A
/// runner that this plan stops is not needed by a job, or its repository is gone.
pub(super) fn credentials(survey: &Survey, spare: &Spare, unwanted: &Unwanted, draft: &mut Draft) {
    let spare = spare.values().flatten().map(|runner| runner.name.as_str());
    let spare: BTreeSet<&str> = spare.chain(unwanted.keys().copied()).collect();
    for runner in survey.runners.values() {
        let waits = runner.state == RunnerState::Waiting
            && runner.ownership == Ownership::Ours
            && runner.registration().needs_variable()
            && !runner.spent
            && !draft.stopping.contains(&runner.name);
        if !waits {
            continue;
        }
        if spare.contains(runner.name.as_str()) {
            draft.hold_runner(&runner.name, HoldReason::SurplusOnce);
            continue;
        }
        let hold = match survey.view_of(runner) {
            None => Some(HoldReason::NotListed { why: "its repository is unknown".to_owned() }),
            Some(view) => match view.listing {
                Listing::Gone { since } => {
                    Some(HoldReason::RepositoryGone { since: survey.now.since(since) })
                }
                _ if !view.configured => Some(HoldReason::NotConfigured),
                _ if view.repository.archived || view.repository.disabled => Some(HoldReason::Archived),
                _ => survey.backoff(runner).or_else(|| survey.issue_backoff(runner)),
            },
        };
        match (hold, survey.view_of(runner)) {
            (None, Some(view)) => draft.actions.push(Action::IssueCredentials(IssueCredentials {
                name: runner.name.clone(),
                namespace: runner.namespace.clone(),
                repository: view.repository.clone(),
                class: runner.class().map(str::to_owned),
                labels: runner.labels(),
                registration: runner.registration(),
            })),
            // One hold is enough.
            (Some(HoldReason::ActionFailed { .. }), _) if stuck::no_credentials(survey, runner).is_some() => {
            }
            (Some(reason), _) => draft.hold_runner(&runner.name, reason),
            (None, None) => {}
        }
    }
}

/// A verification of each runner that is idle although its group has demand, of each warm one, and of each that was absent.
pub(super) fn verifications(survey: &Survey, draft: &mut Draft) {
    for runner in survey.runners.values() {
        let (Some(idle), Some(key)) = (survey.idle(runner), survey.group_of(runner)) else { continue };
        let Some(repository) = survey.listed(runner) else { continue };
        let is_warm = runner.warm().is_some();
        let has_demand = match is_warm {
            true => offers::has_demand(survey, runner),
            false => survey.groups.get(&key).is_some_and(|group| !group.demand.is_empty()),
        };
        let suspicious = idle > IDLE_BEFORE_LOOK_UP && (has_demand || is_warm);
        let is_calm = is_warm && !has_demand && survey.absent(runner).is_none();
        let interval = if is_calm { WARM_LOOK_UP_INTERVAL } else { LOOK_UP_INTERVAL };
        let due = survey
            .memory
            .presence
            .get(&runner.name)
            .is_none_or(|presence| survey.now.since(presence.checked_at) >= interval);
        let ours = runner.ownership == Ownership::Ours && !draft.stopping.contains(&runner.name);
        let may = ours && due && survey.backoff(runner).is_none();
        if may && (suspicious || survey.absent(runner).is_some()) {
            draft.actions.push(Action::VerifyRegistration(VerifyRegistration {
                name: runner.name.clone(),
                repository: repository.clone(),
                class: runner.class().map(str::to_owned),
            }));
        }
    }
}

/// Removes the variable of each dead runner at once, after its registration.
pub(super) fn clean_ups(survey: &Survey, draft: &mut Draft) {
    for runner in
        dead(survey).filter(|runner| runner.ownership == Ownership::Ours && runner.variable.is_some())
    {
        match survey.backoff(runner) {
            Some(reason) => draft.hold_runner(&runner.name, reason),
            None => draft.actions.push(Action::CleanUp(CleanUp {
                name: runner.name.clone(),
                namespace: runner.namespace.clone(),
                repository: survey.view_of(runner).map(|view| RepositoryRef::from(&view.repository)),
                class: runner.class().map(str::to_owned),
                finish: runner.how_it_ended(),
            })),
        }
    }
}

/// Purges the job of each dead runner after its timeout, unless it counts the attempts for a queued job, or the job
/// that was lost with it may be run again.
pub(super) fn purges(survey: &Survey, undecided: &BTreeSet<String>, draft: &mut Draft) {
    for runner in dead(survey).filter(|runner| !undecided.contains(&runner.name)) {
        let success = runner.finish.as_ref().is_none_or(|finish| finish.is_success());
        let policy = survey.policy;
        let timeout = if success { policy.purge_successfull_timeout } else { policy.purge_failure_timeout };
        let dead = survey.dead_for(runner);
        if timeout.is_none_or(|timeout| dead < timeout) {
            continue;
        }
        // A variable of a nomadtools job belongs to its owner and stays.
        let hold = if runner.variable.is_some() && runner.ownership == Ownership::Ours {
            Some(HoldReason::VariableFirst)
        } else {
            counts_attempts(survey, runner).or_else(|| survey.backoff(runner))
        };
        if let Some(reason) = hold {
            draft.hold_runner(&runner.name, reason);
            continue;
        }
        // If the credentials were in a variable, the clean-up has already removed the registration.
        let may_be_registered =
            runner.ownership == Ownership::Ours && !runner.registration().needs_variable() && runner.started;
        let view = survey.view_of(runner).filter(|view| !matches!(view.listing, Listing::Gone { .. }));
        let finish = runner.how_it_ended();
        draft.actions.push(Action::Purge(Purge {
            name: runner.name.clone(),
            namespace: runner.namespace.clone(),
            repository: view.filter(|_| may_be_registered).map(|view| RepositoryRef::from(&view.repository)),
            class: runner.class().map(str::to_owned),
            reason: PurgeReason::Expired { finish, dead },
        }));
    }
}

/// Why a dead runner's job must stay although it has expired: it determines the number of the next attempt.
fn counts_attempts(survey: &Survey, runner: &Runner) -> Option<HoldReason> {
    if warm::counts_failures(survey, runner) {
        return Some(HoldReason::CountsFailures);
    }
    let job_id = runner.meta.job_id()?;
    if survey.newest.get(&job_id).is_some_and(|newest| newest.name != runner.name) {
        return None;
    }
    let Some(view) = survey.view_of(runner) else { return Some(HoldReason::JobUnknown) };
    // An old listing may predate the job.
    let absence_tells = match view.listing {
        Listing::Fresh { complete, .. } => complete,
        Listing::Earlier { .. } | Listing::Stale { .. } | Listing::Unseen { .. } => false,
        Listing::Gone { .. } => return None,
    };
    match survey.statuses.get(&job_id) {
        Some(JobStatus::Queued) => Some(HoldReason::CountsAttempts),
        None if !absence_tells => Some(HoldReason::JobUnknown),
        _ => None,
    }
}

/// Holds that only explain the current state.
pub(super) fn explain(survey: &Survey, draft: &mut Draft) {
    for foreign in &survey.nomad.foreign {
        draft.hold_runner(&foreign.name, HoldReason::Foreign { reason: foreign.reason });
    }
    for runner in &survey.unseen {
        if let Some(reason) = survey.why_unseen(runner.namespace.as_ref()) {
            draft.hold_runner(&runner.name, reason);
        }
    }
    for runner in survey.runners.values() {
        match (&runner.state, &runner.blocked) {
            (RunnerState::Disconnected, _) => draft.hold_runner(&runner.name, HoldReason::Disconnected),
            (RunnerState::Running, _) if runner.last_event.is_some() => {
                draft.hold_runner(&runner.name, HoldReason::TasksUnread);
            }
            (RunnerState::Pending, Some(blocked)) => {
                draft.hold_runner(&runner.name, HoldReason::Unplaced { why: blocked.reason.clone() });
            }
            _ => {}
        }
    }
}

fn dead<'a>(survey: &'a Survey<'a>) -> impl Iterator<Item = &'a Runner> {
    survey.runners.values().copied().filter(|runner| runner.state == RunnerState::Dead)
}
