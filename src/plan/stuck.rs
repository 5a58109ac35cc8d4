//! Live runners that make no progress. Each state has a timeout. After it, a runner yields its place to others that are
//! waiting for one, and a hold says what is known.

use std::time::Duration;

use super::{
    Draft, offers,
    survey::{ABSENT_AT_LEAST, Survey},
};
use crate::model::{HoldReason, Listing, Ownership, Registration, Runner, RunnerState, age};

/// A task that starts more slowly than this is reported: most images are already present.
const SLOW_START: Duration = Duration::from_secs(120);

/// Why a runner makes no progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stuck {
    /// GitHub has refused it credentials.
    NoCredentials,
    /// GitHub does not list it as connected.
    NotConnected,
    /// It is idle, and GitHub assigns it no job.
    Unassigned,
}

impl Stuck {
    /// The reason, for display.
    pub(super) fn words(self) -> &'static str {
        match self {
            Stuck::NoCredentials => "no credentials for too long",
            Stuck::NotConnected => "not connected to GitHub",
            Stuck::Unassigned => "idle for too long though its job is queued",
        }
    }

    /// Whether other runners of its group would fare no better. A missing connection concerns only its node.
    pub(super) fn is_of_its_group(self) -> bool {
        self != Stuck::NotConnected
    }
}

/// Whether a runner may yield its place because it makes no progress. A runner whose task does not start is stopped
/// in any case, and for one that was never placed there is another rule.
pub(super) fn stuck(survey: &Survey, runner: &Runner) -> Option<Stuck> {
    if runner.ownership != Ownership::Ours {
        return None;
    }
    if no_credentials(survey, runner).is_some() && survey.issue_error(runner).is_some() {
        Some(Stuck::NoCredentials)
    } else if is_not_connected(survey, runner) {
        Some(Stuck::NotConnected)
    } else if unassigned(survey, runner).is_some() {
        Some(Stuck::Unassigned)
    } else {
        None
    }
}

/// Holds for all runners that make no progress.
pub(super) fn explain(survey: &Survey, draft: &mut Draft) {
    for runner in survey.runners.values().filter(|runner| runner.ownership == Ownership::Ours) {
        if let Some(waiting) = no_credentials(survey, runner) {
            let error = survey.issue_error(runner).map(str::to_owned);
            draft.hold_runner(&runner.name, HoldReason::NoCredentials { waiting, error });
        }
        if let Some(starting) = survey.not_started_for(runner).filter(|starting| *starting >= SLOW_START) {
            let event = runner.last_event.clone();
            draft.hold_runner(&runner.name, HoldReason::NotStarting { starting, event });
        }
        if let Some(idle) = unassigned(survey, runner).or_else(|| offers::passed_over(survey, runner)) {
            let presence = survey.memory.presence.get(&runner.name);
            let online = presence.is_some_and(|presence| presence.absent_since.is_none());
            draft.hold_runner(&runner.name, HoldReason::Unassigned { idle, online });
        }
    }
}

/// How long it has been placed without credentials, if that is too long.
pub(super) fn no_credentials(survey: &Survey, runner: &Runner) -> Option<Duration> {
    let placed = runner.allocation.as_ref().filter(|_| runner.state == RunnerState::Waiting)?;
    let waiting = age(survey.nomad.now, placed.created_at);
    (waiting >= survey.class_of(runner).waiting_timeout()).then_some(waiting)
}

/// Whether GitHub has not listed it as connected for too long. A runner that registers itself may have another name
/// there. A runner that has been absent for [`ABSENT_AT_LEAST`] is stopped as unregistered instead: asking GitHub once
/// more for its consent would fail, and the wait after that would keep it in its place.
pub(super) fn is_not_connected(survey: &Survey, runner: &Runner) -> bool {
    runner.registration() == Registration::Jit
        && survey.absent(runner).is_some()
        && survey.absence_confirmed(runner).is_none_or(|confirmed| confirmed < ABSENT_AT_LEAST)
        && survey.idle(runner).is_some_and(|idle| idle >= survey.class_of(runner).connect_timeout())
}

/// How long it has been idle, if that is too long for a runner whose group has had a job queued for as long.
fn unassigned(survey: &Survey, runner: &Runner) -> Option<Duration> {
    // A warm runner yields without having been given a job, and has no group.
    if runner.warm().is_some() {
        return None;
    }
    let limit = survey.class_of(runner).unassigned_timeout();
    let idle = survey.idle(runner).filter(|idle| *idle >= limit && survey.supplies(runner))?;
    let Listing::Fresh { now, .. } = survey.view_of(runner)?.listing else { return None };
    let group = survey.groups.get(&survey.group_of(runner)?)?;
    let waits = |job: &&crate::model::WorkflowJob| job.created_at.is_some_and(|at| age(now, at) >= limit);
    group.demand.iter().copied().any(|job| waits(&job)).then_some(idle)
}
