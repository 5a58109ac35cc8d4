//! Secrets for the waiting, verifications of the idle, and what the dead leave behind.

use std::{collections::BTreeSet, time::Duration};

use super::{Draft, stop::Spare, stuck, survey::Survey};
use crate::model::{
    Action, CleanUp, HoldReason, IssueCredentials, JobStatus, Listing, Ownership, Purge, PurgeReason, Runner,
    RunnerState, VerifyRegistration,
};

/// How long a runner may take to come online before anyone asks.
const IDLE_BEFORE_LOOK_UP: Duration = Duration::from_secs(120);

/// How often GitHub is asked for one runner at most.
const LOOK_UP_INTERVAL: Duration = Duration::from_secs(120);

/// A secret for each runner that is placed and has none, unless no job needs it: then it is about to go. Who is stopped
/// in this plan is no job's, or its repository is gone.
pub(super) fn credentials(survey: &Survey, spare: &Spare, draft: &mut Draft) {
    let spare: BTreeSet<&str> = spare.values().flatten().map(|runner| runner.name.as_str()).collect();
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
                    Some(HoldReason::RepositoryGone { since: survey.now.saturating_sub(since) })
                }
                _ if !view.configured => Some(HoldReason::NotConfigured),
                _ if view.repository.archived || view.repository.disabled => Some(HoldReason::Archived),
                _ => survey.backoff(runner).or_else(|| survey.issue_backoff(runner)),
            },
        };
        match (hold, survey.view_of(runner)) {
            (None, Some(view)) => draft.actions.push(Action::IssueCredentials(IssueCredentials {
                name: runner.name.clone(),
                repository: view.repository.clone(),
                class: runner.class().map(str::to_owned),
                labels: runner.labels(),
                registration: runner.registration(),
            })),
            // What it waits for is said once.
            (Some(HoldReason::ActionFailed { .. }), _) if stuck::no_credentials(survey, runner).is_some() => {
            }
            (Some(reason), _) => draft.hold_runner(&runner.name, reason),
            (None, None) => {}
        }
    }
}

/// A verification for each runner that sits idle although its group has demand, and for each that was absent.
pub(super) fn verifications(survey: &Survey, draft: &mut Draft) {
    for runner in survey.runners.values() {
        let (Some(idle), Some(key)) = (survey.idle(runner), survey.group_of(runner)) else { continue };
        let Some(repository) = survey.listed(runner) else { continue };
        let suspicious = idle > IDLE_BEFORE_LOOK_UP
            && survey.groups.get(&key).is_some_and(|group| !group.demand.is_empty());
        let due = survey
            .memory
            .presence
            .get(&runner.name)
            .is_none_or(|presence| survey.now.saturating_sub(presence.checked_at) >= LOOK_UP_INTERVAL);
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

/// The variable of each dead runner goes at once, after its registration.
pub(super) fn clean_ups(survey: &Survey, draft: &mut Draft) {
    for runner in
        dead(survey).filter(|runner| runner.ownership == Ownership::Ours && runner.variable.is_some())
    {
        match survey.backoff(runner) {
            Some(reason) => draft.hold_runner(&runner.name, reason),
            None => draft.actions.push(Action::CleanUp(CleanUp {
                name: runner.name.clone(),
                repository: survey.view_of(runner).map(|view| view.repository.clone()),
                class: runner.class().map(str::to_owned),
                finish: runner.how_it_ended(),
            })),
        }
    }
}

/// The job of each dead runner goes after its timeout, unless it counts the attempts of a queued job, or the job it was lost with may be
/// run again.
pub(super) fn purges(survey: &Survey, undecided: &BTreeSet<String>, draft: &mut Draft) {
    for runner in dead(survey).filter(|runner| !undecided.contains(&runner.name)) {
        let success = runner.finish.as_ref().is_none_or(|finish| finish.is_success());
        let policy = survey.policy;
        let timeout = if success { policy.purge_successfull_timeout } else { policy.purge_failure_timeout };
        let dead = survey.dead_for(runner);
        if timeout.is_none_or(|timeout| dead < timeout) {
            continue;
        }
        // A variable of nomadtools' jobs is their owner's and stays.
        let hold = if runner.variable.is_some() && runner.ownership == Ownership::Ours {
            Some(HoldReason::VariableFirst)
        } else {
            counts_attempts(survey, runner).or_else(|| survey.backoff(runner))
        };
        if let Some(reason) = hold {
            draft.hold_runner(&runner.name, reason);
            continue;
        }
        // Where the secret came in a variable, the clean-up has already removed the registration.
        let may_be_registered =
            runner.ownership == Ownership::Ours && !runner.registration().needs_variable() && runner.started;
        let view = survey.view_of(runner).filter(|view| !matches!(view.listing, Listing::Gone { .. }));
        let finish = runner.how_it_ended();
        draft.actions.push(Action::Purge(Purge {
            name: runner.name.clone(),
            repository: view.filter(|_| may_be_registered).map(|view| view.repository.clone()),
            class: runner.class().map(str::to_owned),
            reason: PurgeReason::Expired { finish, dead },
        }));
    }
}

/// Why a dead runner's job must stay although it is old: the next attempt's number comes from it.
fn counts_attempts(survey: &Survey, runner: &Runner) -> Option<HoldReason> {
    let job_id = runner.meta.job_id?;
    if survey.newest.get(&job_id).is_some_and(|newest| newest.name != runner.name) {
        return None;
    }
    let Some(view) = survey.view_of(runner) else { return Some(HoldReason::JobUnknown) };
    // An old listing may be older than the job.
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

/// Holds that only explain what is seen.
pub(super) fn explain(survey: &Survey, draft: &mut Draft) {
    for foreign in &survey.nomad.foreign {
        draft.hold_runner(&foreign.name, HoldReason::Foreign { reason: foreign.reason });
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
