//! Making room: what is waiting for a place, and which runner gives one up.
//!
//! 1. What is waiting: runners that Nomad has no room for, and starts held by a cap.
//! 2. Which runners may leave: idle runners that no job needs, runners that make no progress, and runners that were
//!    never placed.
//! 3. One runner leaves for each waiting item, unless as many are leaving already.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    Draft,
    start::Held,
    stop::{stop, was_surplus},
    stuck::{self, Stuck},
    survey::Survey,
    warm,
};
use crate::model::{Action, GroupKey, Ownership, RepositoryId, Runner, RunnerState, StopReason, age};

/// Nothing counts as waiting for room before this time. Nomad places a job up to 4 s after there is room (contract
/// nomad.md §12), and with no patience at all, places would be yielded back and forth.
const SHORTEST_PATIENCE: Duration = Duration::from_secs(5);

/// After this time, warm runners make room even if `pending_to_kill_listening` is off. Otherwise they could keep all
/// places for ever.
const WARM_PATIENCE: Duration = Duration::from_secs(60);

/// Something that waits for room.
struct Waiting<'a> {
    /// The runner or the job, for display.
    who: String,
    /// Its group. Runners of the same group do not yield to it.
    group: Option<GroupKey>,
    /// The repository that a place must come from; `None` if any place helps.
    within: Option<RepositoryId>,
    /// The class that a place must come from; `None` if any place helps.
    of_class: Option<&'a str>,
    /// A start held by a cap; `None` for a runner that needs room on a node.
    start: Option<&'a Held>,
    /// It has waited for `pending_to_kill_listening`.
    long: bool,
    /// It has waited for long enough for a warm runner to leave.
    waits_for_warm: bool,
}

/// The runners that may leave, each kind in its order.
struct Leaving<'a> {
    /// Idle runners that no job needs, the longest idle first.
    idle: Vec<(&'a Runner, RepositoryId)>,
    /// Idle warm runners to which no job is left.
    warm: Vec<&'a Runner>,
    /// Runners that make no progress, and why.
    stuck: Vec<(&'a Runner, Stuck)>,
    /// Runners that have not been placed for `pending_to_kill_listening`.
    unplaced: Vec<&'a Runner>,
    /// All runners that have not been placed.
    pending: Vec<&'a Runner>,
}

/// Stops one runner for each waiting item that could use its place.
pub(super) fn make_room(
    survey: &Survey,
    surplus: &BTreeMap<RepositoryId, BTreeSet<String>>,
    held: &[Held],
    draft: &mut Draft,
) {
    let waiting = waiting(survey, surplus, held, draft);
    let mut leaving = Leaving::new(survey, surplus, draft);
    // Room that is already being made.
    let stopping = survey.runners.values().filter(|runner| runner.state == RunnerState::Stopping).count()
        + draft.stopping.len();
    for waiting in waiting.iter().skip(stopping) {
        if let Some((runner, reason)) = leaving.next_for(survey, waiting) {
            stop(survey, draft, runner, reason);
        }
    }
    clear_the_queue(survey, &waiting, &leaving, draft);
}

/// Nomad would give room on a node to the runners of a stuck runner's group that have waited longer than others. They
/// leave together with it.
fn clear_the_queue(survey: &Survey, waiting: &[Waiting], leaving: &Leaving, draft: &mut Draft) {
    let stopping: Vec<&Runner> =
        draft.stopping.iter().filter_map(|name| survey.runners.get(name.as_str()).copied()).collect();
    for runner in stopping {
        let but = match stuck::stuck(survey, runner) {
            Some(stuck) if stuck.is_of_its_group() => stuck.words(),
            None if survey.starting_too_long(runner).is_some() => {
                "unplaced, while its group's runners do not start"
            }
            _ => continue,
        };
        let group = survey.group_of(runner);
        if runner.allocation.is_none() {
            continue;
        }
        let others = || waiting.iter().filter(|waiting| waiting.start.is_none() && waiting.group != group);
        for behind in leaving.pending.iter().filter(|pending| survey.group_of(pending) == group) {
            let is_later = |waiting: &&Waiting| {
                let other = survey.runners.get(waiting.who.as_str());
                other.is_some_and(|other| other.submitted_at > behind.submitted_at)
            };
            if let Some(other) = others().find(is_later) {
                stop(survey, draft, behind, StopReason::Yield { waits: other.who.clone(), but });
            }
        }
    }
}

/// What is waiting for room: unplaced runners that the nodes have no room for, then held starts in their
/// order.
fn waiting<'a>(
    survey: &Survey,
    surplus: &BTreeMap<RepositoryId, BTreeSet<String>>,
    held: &'a [Held],
    draft: &Draft,
) -> Vec<Waiting<'a>> {
    let patience = patience(survey);
    let warm_patience = patience.unwrap_or(WARM_PATIENCE);
    let leaves = |runner: &Runner| {
        surplus.values().any(|names| names.contains(&runner.name)) || draft.stopping.contains(&runner.name)
    };
    let exhausted = |runner: &Runner| runner.blocked.as_ref().is_some_and(|blocked| blocked.exhausted);
    // Nobody makes room for a warm runner.
    let is_for_a_job = |runner: &Runner| runner.warm().is_none();
    let runners = unplaced(survey)
        .filter(|runner| exhausted(runner) && !leaves(runner) && is_for_a_job(runner))
        .map(|runner| Waiting {
            who: runner.name.clone(),
            group: survey.group_of(runner),
            within: None,
            of_class: None,
            start: None,
            long: waits_long(survey, runner),
            waits_for_warm: age(survey.nomad.now, runner.submitted_at) >= warm_patience,
        });
    let starts = held.iter().map(|held| Waiting {
        who: held.job.clone(),
        group: Some(held.group.clone()),
        within: held.within.then_some(held.group.repository),
        of_class: held.of_class.as_deref(),
        start: Some(held),
        long: patience.is_some_and(|patience| held.age >= patience),
        waits_for_warm: held.age >= warm_patience,
    });
    // An item that has waited long enough may have any place; any other only that of a runner that makes no
    // progress.
    let usable = |waiting: &Waiting| {
        waiting.long || waiting.waits_for_warm || waiting.start.is_none_or(|held| !held.late)
    };
    runners.chain(starts).filter(usable).collect()
}

impl<'a> Leaving<'a> {
    fn new(
        survey: &Survey<'a>,
        surplus: &BTreeMap<RepositoryId, BTreeSet<String>>,
        draft: &Draft,
    ) -> Leaving<'a> {
        // A Stop that would not be carried out makes no room.
        let may_go = |runner: &Runner| {
            runner.ownership == Ownership::Ours
                && !draft.stopping.contains(&runner.name)
                && !survey.is_busy(runner)
                && survey.backoff(runner).is_none()
        };
        // A group never has both starts and stops in one plan.
        let starting: BTreeSet<GroupKey> = draft
            .actions
            .iter()
            .filter_map(|action| match action {
                Action::Start(start) => Some(start.group()),
                _ => None,
            })
            .collect();
        let may_yield = |runner: &&Runner| {
            may_go(runner) && survey.group_of(runner).is_some_and(|group| !starting.contains(&group))
        };
        let mut idle: Vec<(&Runner, RepositoryId)> = surplus
            .iter()
            .flat_map(|(id, names)| names.iter().map(|name| (survey.runners[name.as_str()], *id)))
            .filter(|(runner, id)| survey.idle(runner).is_some() && was_surplus(survey, *id, runner))
            .filter(|(runner, _)| may_go(runner))
            .collect();
        idle.sort_by_key(|(runner, _)| (Reverse(survey.idle(runner)), runner.name.as_str()));
        let first = |runner: &&Runner| (runner.submitted_at, runner.name.clone());
        let mut waited: Vec<&Runner> = unplaced(survey)
            .filter(|runner| waits_long(survey, runner) && runner.warm().is_none())
            .filter(may_yield)
            .collect();
        waited.sort_by_key(first);
        let mut stuck: Vec<(&Runner, Stuck)> = survey
            .runners
            .values()
            .copied()
            .filter(may_yield)
            .filter_map(|runner| Some((runner, stuck::stuck(survey, runner)?)))
            .collect();
        stuck.sort_by_key(|(runner, _)| first(runner));
        let pending = unplaced(survey).filter(may_yield).collect();
        let is_known = |runner: &&Runner| surplus.values().any(|names| names.contains(&runner.name));
        let mut warm = warm::may_leave(survey, &draft.left_to);
        warm.retain(|runner| may_yield(runner) && !is_known(runner));
        Leaving { idle, warm, stuck, unplaced: waited, pending }
    }

    /// Which runner leaves for it, and why.
    fn next_for(&mut self, survey: &Survey, waiting: &Waiting) -> Option<(&'a Runner, StopReason)> {
        let Waiting { who, group, within, of_class, start, long, waits_for_warm } = waiting;
        let (who, within, long) = (who.clone(), *within, *long);
        let helps = |runner: &Runner, id: RepositoryId| {
            within.is_none_or(|within| within == id)
                && of_class.is_none_or(|class| survey.class_of(runner).name() == Some(class))
        };
        if let Some(at) = self.idle.iter().position(|(runner, id)| long && helps(runner, *id)) {
            let (runner, _) = self.idle.remove(at);
            // A runner that room is made for does not itself yield.
            self.unplaced.retain(|runner| runner.name != who);
            self.stuck.retain(|(stuck, _)| stuck.name != runner.name);
            return Some((runner, StopReason::MakeRoom { waits: who }));
        }
        let yields = |runner: &Runner| {
            let own = survey.group_of(runner);
            own.is_some_and(|own| Some(&own) != group.as_ref() && helps(runner, own.repository))
                && survey.listed(runner).is_some()
        };
        if start.is_none_or(|held| !held.late)
            && let Some(at) = self.stuck.iter().position(|(runner, _)| yields(runner))
        {
            let (runner, stuck) = self.stuck.remove(at);
            self.idle.retain(|(idle, _)| idle.name != runner.name);
            self.unplaced.retain(|runner| runner.name != who);
            return Some((runner, StopReason::Yield { waits: who, but: stuck.words() }));
        }
        if *waits_for_warm && let Some(runner) = self.warm_for(survey, waiting) {
            return Some((runner, StopReason::MakeRoom { waits: who }));
        }
        let at = self.unplaced.iter().position(|runner| long && start.is_some() && yields(runner))?;
        let runner = self.unplaced.remove(at);
        Some((runner, StopReason::Yield { waits: who, but: "unplaced for too long" }))
    }

    /// Which warm runner leaves for it: one whose place it can use.
    fn warm_for(&mut self, survey: &Survey, waiting: &Waiting) -> Option<&'a Runner> {
        let waits = survey.runners.get(waiting.who.as_str()).filter(|_| waiting.start.is_none());
        let helps = |runner: &Runner| {
            let repository = survey.repository_id(runner).filter(|_| !survey.is_shared(runner));
            waiting.within.is_none_or(|within| Some(within) == repository)
                && waiting.of_class.is_none_or(|class| survey.class_of(runner).name() == Some(class))
                // An unplaced one occupies no node.
                && waits.is_none_or(|waits| {
                    runner.state != RunnerState::Pending && warm::share_a_pool(runner, waits)
                })
        };
        let at = self.warm.iter().position(|runner| helps(runner))?;
        let runner = self.warm.remove(at);
        self.unplaced.retain(|unplaced| unplaced.name != runner.name && unplaced.name != waiting.who);
        Some(runner)
    }
}

/// How long something waits before others make room for it; `None`: never.
fn patience(survey: &Survey) -> Option<Duration> {
    survey.policy.pending_to_kill_listening.map(|patience| patience.max(SHORTEST_PATIENCE))
}

fn unplaced<'a>(survey: &Survey<'a>) -> impl Iterator<Item = &'a Runner> {
    survey.runners.values().copied().filter(|runner| runner.state == RunnerState::Pending)
}

fn waits_long(survey: &Survey, runner: &Runner) -> bool {
    patience(survey).is_some_and(|patience| age(survey.nomad.now, runner.submitted_at) >= patience)
}
