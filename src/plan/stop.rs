//! Who is let go, and with whose consent.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    Draft,
    start::Held,
    survey::{ABSENT_AT_LEAST, Survey},
};
use crate::model::{
    Action, Consent, GroupKey, HoldReason, JobStatus, Listing, Ownership, Registration, Repository,
    RepositoryId, Runner, RunnerState, Stop, StopReason, age,
};

/// A 404 can be a token's loss of rights for a while: so long is patience enough.
const GONE_AT_LEAST: Duration = Duration::from_secs(3600);

/// Nobody waits for room before so long: what is placeable is placed 4 s after there is room (contract
/// nomad.md §12), and with no patience at all places would be yielded back and forth.
const SHORTEST_PATIENCE: Duration = Duration::from_secs(5);

/// The runners that each group has more than jobs, who leaves first before others: as far as a complete listing knows, be
/// it an earlier pass's. An incomplete one tells of new jobs, and nothing of what is missing.
pub(super) type Spare<'a> = BTreeMap<&'a GroupKey, Vec<&'a Runner>>;

/// See [`Spare`].
pub(super) fn spare<'a>(survey: &'a Survey<'a>) -> Spare<'a> {
    let groups = survey.groups.iter().filter(|(key, _)| {
        let listing = survey.repositories.get(&key.repository).map(|view| &view.listing);
        let complete = |listing: &&Listing| {
            matches!(listing, Listing::Fresh { complete: true, .. } | Listing::Stale { complete: true, .. })
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

/// The surplus of each completely listed repository, and Stops for what was surplus before, too.
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
            match survey.idle(runner) {
                Some(idle) if !survey.policy.strict => match survey.policy.runner_inactivity_timeout {
                    Some(timeout) if idle >= timeout => stop(survey, draft, runner, reason),
                    timeout => draft.hold_runner(&runner.name, HoldReason::Idle { idle, timeout }),
                },
                _ => stop(survey, draft, runner, reason),
            }
        }
    }
    surplus
}

/// Runners that never started go first, those whose own job is not queued before others, then the
/// longest idle.
fn order_of_leaving<'a>(
    survey: &Survey,
    runner: &'a Runner,
) -> (RunnerState, bool, std::cmp::Reverse<Option<Duration>>, &'a str) {
    let waited_for =
        runner.meta.job_id.is_some_and(|cause| survey.statuses.get(&cause) == Some(&JobStatus::Queued));
    (
        runner.state,
        waited_for && runner.state != RunnerState::Running,
        std::cmp::Reverse(survey.idle(runner)),
        &runner.name,
    )
}

fn was_surplus(survey: &Survey, repository: RepositoryId, runner: &Runner) -> bool {
    survey.memory.surplus.get(&repository).is_some_and(|names| names.contains(&runner.name))
}

/// A replacement for a lost allocation has a used configuration: it goes with its job.
pub(super) fn lost(survey: &Survey, draft: &mut Draft) {
    for runner in survey.runners.values() {
        let alive =
            !matches!(runner.state, RunnerState::Dead | RunnerState::Stopping | RunnerState::Disconnected);
        if alive && survey.is_spent(runner) && survey.listed(runner, false).is_some() {
            stop(survey, draft, runner, StopReason::Lost);
        }
    }
}

/// Runners that GitHub does not know and no job names.
pub(super) fn unregistered(survey: &Survey, draft: &mut Draft) {
    for runner in survey.runners.values() {
        let (Some(absent), Some(_)) = (survey.absent(runner), survey.idle(runner)) else { continue };
        let confirmed =
            survey.absence_confirmed(runner).is_some_and(|confirmed| confirmed >= ABSENT_AT_LEAST);
        if confirmed && survey.listed(runner, true).is_some() {
            stop(survey, draft, runner, StopReason::Unregistered { absent });
        } else if !survey.supplies(runner) {
            draft.hold_runner(&runner.name, HoldReason::Unregistered { absent });
        }
    }
}

/// Runners of a repository that is gone, if they never started: nothing else can be known of the others. An organization's
/// runners stay registered, and GitHub can say whether they are busy.
pub(super) fn gone(survey: &Survey, draft: &mut Draft) {
    for runner in survey.runners.values() {
        let Some(view) = survey.view_of(runner) else { continue };
        let Listing::Gone { since } = view.listing else { continue };
        let unstarted = runner.state.is_unstarted() && !runner.may_have_process();
        let may_go = unstarted || survey.policy.organization && runner.state == RunnerState::Running;
        if may_go && survey.now.saturating_sub(since) >= GONE_AT_LEAST {
            stop(survey, draft, runner, StopReason::RepositoryGone);
        }
    }
}

/// While something has waited long enough for room, the longest-idle runners that no job needs go, one for
/// each waiting thing; at a cap, a runner unplaced for as long yields to another group's start.
pub(super) fn make_room(
    survey: &Survey,
    surplus: &BTreeMap<RepositoryId, BTreeSet<String>>,
    held: &[Held],
    draft: &mut Draft,
) {
    let Some(patience) = survey.policy.pending_to_kill_listening else { return };
    let patience = patience.max(SHORTEST_PATIENCE);
    let patient = |runner: &Runner| age(survey.nomad.now, runner.submitted_at) >= patience;
    let stopping = draft.stopping.clone();
    let is_surplus = |runner: &Runner| {
        surplus.values().any(|names| names.contains(&runner.name)) || stopping.contains(&runner.name)
    };
    let unplaced: Vec<&Runner> = survey
        .runners
        .values()
        .copied()
        .filter(|runner| runner.state == RunnerState::Pending && patient(runner))
        .collect();
    let exhausted = |runner: &Runner| runner.blocked.as_ref().is_some_and(|blocked| blocked.exhausted);
    let mut waiting: Vec<Waiting> = unplaced
        .iter()
        .filter(|runner| exhausted(runner) && !is_surplus(runner))
        .map(|runner| Waiting { who: runner.name.clone(), within: None, start_of: None })
        .collect();
    waiting.extend(held.iter().filter(|held| held.age >= patience).map(|held| Waiting {
        who: held.job.clone(),
        within: held.within.then_some(held.group.repository),
        start_of: Some(&held.group),
    }));
    // A group never starts and stops in one plan.
    let starting: BTreeSet<GroupKey> = draft
        .actions
        .iter()
        .filter_map(|action| match action {
            Action::Start(start) => Some(start.group()),
            _ => None,
        })
        .collect();
    // Room that is being made already.
    let leaving = survey.runners.values().filter(|runner| runner.state == RunnerState::Stopping).count()
        + stopping.len();

    // Whom a Stop would not reach makes no room.
    let may_go = |runner: &Runner| {
        runner.ownership == Ownership::Ours
            && !stopping.contains(&runner.name)
            && !survey.is_busy(runner)
            && survey.backoff(runner).is_none()
    };
    let mut idle: Vec<(&Runner, RepositoryId)> = surplus
        .iter()
        .flat_map(|(id, names)| names.iter().map(|name| (survey.runners[name.as_str()], *id)))
        .filter(|(runner, id)| survey.idle(runner).is_some() && was_surplus(survey, *id, runner))
        .filter(|(runner, _)| may_go(runner))
        .collect();
    idle.sort_by_key(|(runner, _)| (std::cmp::Reverse(survey.idle(runner)), runner.name.as_str()));
    let mut yielding: Vec<&Runner> = unplaced
        .into_iter()
        .filter(|runner| may_go(runner))
        .filter(|runner| survey.group_of(runner).is_some_and(|group| !starting.contains(&group)))
        .collect();
    yielding.sort_by_key(|runner| (runner.submitted_at, runner.name.as_str()));

    for Waiting { who, within, start_of } in waiting.into_iter().skip(leaving) {
        let helps = |id: RepositoryId| within.is_none_or(|within| within == id);
        if let Some(at) = idle.iter().position(|(_, id)| helps(*id)) {
            let (runner, _) = idle.remove(at);
            // For whom room is made, it does not yield.
            yielding.retain(|runner| runner.name != who);
            stop(survey, draft, runner, StopReason::MakeRoom { waits: who });
        } else if let Some(start_of) = start_of {
            let yields = |runner: &Runner| {
                survey.group_of(runner).is_some_and(|group| group != *start_of && helps(group.repository))
                    && survey.listed(runner, false).is_some()
            };
            if let Some(at) = yielding.iter().position(|runner| yields(runner)) {
                let runner = yielding.remove(at);
                stop(survey, draft, runner, StopReason::Yield { waits: who });
            }
        }
    }
}

/// Something that waits for room.
struct Waiting<'a> {
    /// The runner or the job, for people.
    who: String,
    /// The repository that a place must come from; `None` where any would help.
    within: Option<RepositoryId>,
    /// The group whose start waits at a cap: unplaced runners of other groups yield to it.
    start_of: Option<&'a GroupKey>,
}

/// Adds the Stop, unless the runner is nomadtools' own, is busy, is being stopped already, or a failure is
/// recent.
fn stop(survey: &Survey, draft: &mut Draft, runner: &Runner, reason: StopReason) {
    let Some(view) = survey.view_of(runner) else { return };
    let foreign = runner.ownership != Ownership::Ours;
    if foreign || survey.is_busy(runner) || draft.stopping.contains(&runner.name) {
        return;
    }
    if let Some(reason) = survey.backoff(runner) {
        draft.hold_runner(&runner.name, reason);
        return;
    }
    let repository: Repository = view.repository.clone();
    // A runner with a JIT configuration bears the name that we know; any other may be busy under another one.
    let is_unregistered = runner.registration() == Registration::Jit
        && survey.absence_confirmed(runner).is_some_and(|confirmed| confirmed >= ABSENT_AT_LEAST);
    let consent = match runner.may_have_process() {
        true if is_unregistered => Consent::Unregistered,
        true => Consent::GitHub,
        false => Consent::NeverStarted,
    };
    draft.stopping.insert(runner.name.clone());
    draft.actions.push(Action::Stop(Stop {
        name: runner.name.clone(),
        repository,
        consent,
        registration: runner.registration(),
        reason,
    }));
}
