//! Which runners are stopped, and with whose consent.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    Draft,
    survey::{ABSENT_AT_LEAST, Survey},
};
use crate::model::{
    Action, Consent, GroupKey, HoldReason, JobStatus, Listing, Ownership, Registration, RepositoryId,
    RepositoryRef, Runner, RunnerState, Stop, StopReason, age,
};

/// Two listings confirm a surplus only if they are at least this far apart. A job ends a second or two before its
/// runner, which looks idle in between.
pub const LISTINGS_APART: Duration = Duration::from_secs(5);

/// How long GitHub must have answered 404. It can also mean that the token has temporarily lost its rights.
const GONE_AT_LEAST: Duration = Duration::from_secs(3600);

/// For each group, the runners in excess of its jobs, in the order in which they leave. Based on a complete listing,
/// which may be from an earlier pass: an incomplete one shows new jobs, but does not prove that a job is absent.
pub(super) type Spare<'a> = BTreeMap<&'a GroupKey, Vec<&'a Runner>>;

/// See [`Spare`].
pub(super) fn spare<'a>(survey: &'a Survey<'a>) -> Spare<'a> {
    let groups = survey.groups.iter().filter(|(key, _)| {
        let listing = survey.repositories.get(&key.repository).map(|view| &view.listing);
        let complete = |listing: &&Listing| {
            matches!(
                listing,
                Listing::Fresh { complete: true, .. }
                    | Listing::Earlier { complete: true, .. }
                    | Listing::Stale { complete: true, .. }
            )
        };
        listing.filter(complete).is_some()
    });
    let spare = groups.map(|(key, group)| {
        let mut runners: Vec<&Runner> =
            group.supply.iter().copied().filter(|runner| runner.ownership == Ownership::Ours).collect();
        runners.sort_by_key(|runner| order_of_leaving(survey, runner));
        runners.truncate(group.supply.len().saturating_sub(group.demand.len()));
        (key, runners)
    });
    spare.collect()
}

/// The surplus of each completely listed repository, and Stops for runners that were surplus before as well.
pub(super) fn surplus(
    survey: &Survey,
    spare: &Spare,
    draft: &mut Draft,
) -> BTreeMap<RepositoryId, BTreeSet<String>> {
    let mut surplus: BTreeMap<RepositoryId, BTreeSet<String>> = survey
        .repositories
        .iter()
        .filter(|(_, view)| matches!(view.listing, Listing::Fresh { complete: true, .. }))
        .map(|(id, _)| (*id, BTreeSet::new()))
        .collect();
    for (key, runners) in spare {
        let Some(names) = surplus.get_mut(&key.repository) else { continue };
        let group = &survey.groups[*key];
        let (demand, supply) = (group.demand.len(), group.supply.len());
        for runner in runners {
            names.insert(runner.name.clone());
            let reason = StopReason::Surplus { demand, supply };
            if !was_surplus(survey, key.repository, runner) {
                draft.hold_runner(&runner.name, HoldReason::SurplusOnce);
                continue;
            }
            let class = survey.class_of(runner);
            match survey.idle(runner) {
                Some(idle) if !class.strict() => match class.runner_inactivity_timeout() {
                    Some(timeout) if idle >= timeout => stop(survey, draft, runner, reason),
                    timeout => draft.hold_runner(&runner.name, HoldReason::Idle { idle, timeout }),
                },
                _ => stop(survey, draft, runner, reason),
            }
        }
    }
    surplus
}

/// Runners that never started go first, and among them those whose own job is not queued; then the longest
/// idle.
fn order_of_leaving<'a>(
    survey: &Survey,
    runner: &'a Runner,
) -> (RunnerState, bool, std::cmp::Reverse<Option<Duration>>, &'a str) {
    let waited_for =
        runner.meta.job_id().is_some_and(|job_id| survey.statuses.get(&job_id) == Some(&JobStatus::Queued));
    (
        runner.state,
        waited_for && runner.state != RunnerState::Running,
        std::cmp::Reverse(survey.idle(runner)),
        &runner.name,
    )
}

/// Whether an earlier listing, and every listing since, showed it as surplus.
pub(super) fn was_surplus(survey: &Survey, repository: RepositoryId, runner: &Runner) -> bool {
    let listing = survey.repositories.get(&repository).map(|view| &view.listing);
    let Some(Listing::Fresh { now, .. }) = listing else { return false };
    let since = survey.memory.surplus.get(&repository).and_then(|names| names.get(&runner.name));
    since.is_some_and(|since| age(*now, *since) >= LISTINGS_APART)
}

/// The replacement of a lost or ended allocation has used credentials. It is stopped with its job.
pub(super) fn spent(survey: &Survey, draft: &mut Draft) {
    for runner in survey.runners.values() {
        let alive =
            !matches!(runner.state, RunnerState::Dead | RunnerState::Stopping | RunnerState::Disconnected);
        if alive && survey.is_spent(runner) && survey.listed(runner).is_some() {
            stop(survey, draft, runner, StopReason::Spent);
        }
    }
}

/// Runners that GitHub does not know and no job names.
pub(super) fn unregistered(survey: &Survey, draft: &mut Draft) {
    for runner in survey.runners.values() {
        let (Some(absent), Some(_)) = (survey.absent(runner), survey.idle(runner)) else { continue };
        let confirmed =
            survey.absence_confirmed(runner).is_some_and(|confirmed| confirmed >= ABSENT_AT_LEAST);
        if confirmed && survey.listed_in_full(runner).is_some() {
            stop(survey, draft, runner, StopReason::Unregistered { absent });
        }
        if !draft.stopping.contains(&runner.name) && !survey.supplies(runner) {
            draft.hold_runner(&runner.name, HoldReason::Unregistered { absent });
        }
    }
}

/// Runners of a repository that is gone, if they never started: nothing more can be learned about the others. An
/// organization's runners stay registered, so GitHub can say whether they are busy.
pub(super) fn gone(survey: &Survey, draft: &mut Draft) {
    for runner in survey.runners.values() {
        let Some(view) = survey.view_of(runner) else { continue };
        let Listing::Gone { since } = view.listing else { continue };
        let unstarted = runner.state.is_unstarted() && !runner.may_have_process();
        let may_go = unstarted
            || survey.class_of(runner).registers_at_organization() && runner.state == RunnerState::Running;
        if may_go && survey.now.since(since) >= GONE_AT_LEAST {
            stop(survey, draft, runner, StopReason::RepositoryGone);
        }
    }
}

/// Runners whose task has not started in time. Another attempt may be placed where it does.
pub(super) fn not_starting(survey: &Survey, draft: &mut Draft) {
    for runner in survey.runners.values() {
        let Some(starting) = survey.starting_too_long(runner) else { continue };
        if survey.listed(runner).is_some() {
            let event = runner.last_event.clone();
            stop(survey, draft, runner, StopReason::NotStarting { starting, event });
        }
    }
}

/// Runners on a draining node that have no job: Nomad would keep them until the drain's deadline, and their jobs are
/// better served elsewhere. GitHub gives no consent for one that it does not list; that one is stopped as unregistered.
pub(super) fn on_draining_nodes(survey: &Survey, draft: &mut Draft) {
    use RunnerState::{Running, Starting, Waiting};
    for runner in survey.runners.values() {
        let draining = runner.allocation.as_ref().filter(|allocation| allocation.draining);
        let Some(allocation) = draining else { continue };
        let may_leave =
            matches!(runner.state, Waiting | Starting | Running) && survey.absent(runner).is_none();
        if may_leave && survey.listed(runner).is_some() {
            stop(survey, draft, runner, StopReason::NodeDrains { node: allocation.node.clone() });
        }
    }
}

/// Adds the Stop, unless the runner belongs to nomadtools, is busy, is already being stopped, or failed
/// recently. A runner that has run for too long is stopped even if it is busy.
pub(super) fn stop(survey: &Survey, draft: &mut Draft, runner: &Runner, reason: StopReason) {
    let Some(view) = survey.view_of(runner) else { return };
    let foreign = runner.ownership != Ownership::Ours;
    let out_of_time = match reason {
        StopReason::MaxRunDuration { limit, .. } => Some(Consent::OutOfTime { limit }),
        _ => None,
    };
    if foreign || (survey.is_busy(runner) && out_of_time.is_none()) || draft.stopping.contains(&runner.name) {
        return;
    }
    if let Some(reason) = survey.backoff(runner) {
        draft.hold_runner(&runner.name, reason);
        return;
    }
    // A runner with a JIT configuration has the name that we know; any other may be busy under another name. And a
    // runner missing from a listing may be in the part that was not read.
    let is_unregistered = matches!(reason, StopReason::Unregistered { .. } | StopReason::Spent)
        && runner.registration() == Registration::Jit
        && survey.absence_confirmed(runner).is_some_and(|confirmed| confirmed >= ABSENT_AT_LEAST);
    let by_state = match runner.may_have_process() {
        true if is_unregistered => Consent::Unregistered,
        true => Consent::GitHub,
        false => Consent::NeverStarted,
    };
    let consent = out_of_time.unwrap_or(by_state);
    draft.stopping.insert(runner.name.clone());
    draft.actions.push(Action::Stop(Stop {
        name: runner.name.clone(),
        namespace: runner.namespace.clone(),
        repository: Some(RepositoryRef::from(&view.repository)),
        class: runner.class().map(str::to_owned),
        consent,
        registration: runner.registration(),
        reason,
    }));
}
