//! Missing runners, whose turn it is, and what the caps allow.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use jiff::Timestamp;

use super::{
    Draft, Policy, offers,
    survey::{Group, Survey, oldest_first},
};
use crate::model::{
    Action, Cap, Finish, ForeignReason, GroupKey, Hold, HoldReason, JobId, JobStatus, Labels, Listing,
    Namespace, Ownership, Purpose, Repository, RepositoryId, RepositoryView, Runner, RunnerState, Start,
    StartReason, Subject, WorkflowJob, age, doubled, runner_name,
};

/// How long attempt 2 waits after the death of attempt 1. The wait doubles with each attempt.
const FIRST_WAIT: Duration = Duration::from_secs(30);

/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// When a first attempt gives up its place, its group goes last for this long. This doubles with each attempt.
const FIRST_LATENESS: Duration = LONGEST_WAIT;

/// The longest time for which a group goes last: the problem may have been fixed.
const LONGEST_LATENESS: Duration = Duration::from_secs(4 * 3600);

/// At most this many attempts of one job are alive.
const LIVE_ATTEMPTS: usize = 2;

/// For this long after a listing was completed, its queued jobs can claim places. A repository whose turn it is is polled
/// next; if that is not possible, nobody waits for it.
const CLAIMS_FOR: Duration = Duration::from_secs(60);

/// A start held by a cap, which the end of another runner would permit.
pub(super) struct Held {
    pub group: GroupKey,
    /// The GitHub job, for display.
    pub job: String,
    /// How long the job has been queued.
    pub age: Duration,
    /// Only the end of a runner of the same repository would help.
    pub within: bool,
    /// Only the end of a runner of this class would help.
    pub of_class: Option<String>,
    /// Its group recently gave up a place, so no stuck runner yields to it.
    pub late: bool,
}

/// A job that needs its own runner.
struct Candidate<'a> {
    job: &'a WorkflowJob,
    key: &'a GroupKey,
    group: &'a Group<'a>,
    /// The group's last runner gave up its place, so the group goes after all others.
    late: bool,
}

/// A class name; `None` for the top level.
type ClassName<'a> = Option<&'a str>;

/// Something that takes turns: a class, a repository, or a class's share in a repository.
#[derive(Clone, Copy, Default)]
pub(super) struct Turn {
    live: usize,
    last_start: Option<Timestamp>,
    /// How many of the live ones are warm runners. They do not count when turns are decided.
    warm: usize,
    /// Starts held by caps that would not take the place of one that is counted here.
    held: usize,
    /// How many of the live ones are places kept for repositories that are polled next.
    kept: usize,
    /// The first of these repositories.
    kept_for: Option<RepositoryId>,
}

impl Turn {
    fn count(&mut self, runner: &Runner) {
        self.live += usize::from(runner.is_live());
        if runner.warm().is_some() {
            self.warm += usize::from(runner.is_live());
        } else {
            self.last_start = self.last_start.max(Some(runner.submitted_at));
        }
    }

    pub(super) fn starts_warm(&mut self) {
        self.live += 1;
        self.warm += 1;
    }

    fn starts(&mut self) {
        self.live += 1;
        // Sorts after all others.
        self.last_start = Some(Timestamp::MAX);
    }

    fn keeps(&mut self, id: RepositoryId) {
        self.starts();
        self.kept += 1;
        self.kept_for.get_or_insert(id);
    }

    /// Whether the cap is still reached even if the held starts found places elsewhere.
    fn is_full(&self, cap: Option<usize>) -> bool {
        cap.is_some_and(|cap| self.live + self.held >= cap)
    }
}

/// A repository whose jobs take turns.
#[derive(Clone, Copy)]
struct Open<'a> {
    view: &'a RepositoryView,
    /// GitHub's clock, if the listing is fresh. Otherwise places are kept for its jobs, but nothing starts.
    github_now: Option<Timestamp>,
}

/// The order of a repository in its class's queue: first those that did not recently give up a place, then by the
/// repository's turn, then by the oldest job.
type Order = (bool, (usize, Option<Timestamp>), (Option<Timestamp>, JobId));

/// The candidates that are waiting for places, and whose turn is next.
#[derive(Default)]
pub(super) struct Turns<'a> {
    open: BTreeMap<RepositoryId, Open<'a>>,
    all: Turn,
    classes: BTreeMap<ClassName<'a>, Turn>,
    repositories: BTreeMap<RepositoryId, Turn>,
    parts: BTreeMap<(ClassName<'a>, RepositoryId), Turn>,
    candidates: BTreeMap<(ClassName<'a>, RepositoryId), VecDeque<Candidate<'a>>>,
    /// The waiting repositories, by class.
    queues: BTreeMap<ClassName<'a>, BTreeSet<(Order, RepositoryId)>>,
    /// The position of each in its queue.
    places: BTreeMap<(ClassName<'a>, RepositoryId), Order>,
}

impl<'a> Turns<'a> {
    /// The smallest is next: the class with the fewest live runners, then the one whose last start is longest ago;
    /// within a class, the repository by the same two criteria; then the oldest job. Groups that recently gave up a
    /// place go after all others.
    fn next(&mut self) -> Option<Candidate<'a>> {
        let first = |(class, queue): (&ClassName<'a>, &BTreeSet<(Order, RepositoryId)>)| {
            let ((late, repository, oldest), id) = *queue.first()?;
            Some(((late, turn_of(self.classes.get(class)), repository, oldest), (*class, id)))
        };
        let (_, key) = self.queues.iter().filter_map(first).min()?;
        self.candidates.get_mut(&key)?.pop_front()
    }

    /// Whether there is a place for a runner of this class, and of this repository unless it is shared, whose group has
    /// this many runners.
    pub(super) fn place(
        &self,
        policy: &Policy,
        name: ClassName,
        id: Option<RepositoryId>,
        in_group: usize,
    ) -> Place {
        let class = policy.class_named(name);
        let of = |turn: Option<&Turn>| turn.copied().unwrap_or_default();
        let of_repository = id.and_then(|id| self.repositories.get(&id));
        let of_part = id.and_then(|id| self.parts.get(&(name, id)));
        let caps = [
            (Cap::All, policy.max_runners, self.all),
            (Cap::Class, class.max_runners(), of(self.classes.get(&name))),
            (Cap::Repository, policy.max_runners_per_repository.filter(|_| id.is_some()), of(of_repository)),
            (Cap::ClassRepository, class.max_runners_per_repository().filter(|_| id.is_some()), of(of_part)),
            (
                Cap::Group,
                class.max_runners_per_group().filter(|_| id.is_some()),
                Turn { live: in_group, ..Turn::default() },
            ),
        ];
        let reached = |(cap, limit, turn): (Cap, Option<usize>, Turn)| {
            let limit = limit.filter(|limit| turn.live >= *limit)?;
            Some(match turn.kept_for.filter(|_| turn.live - turn.kept < limit) {
                Some(before) => Place::Kept { cap, limit, before },
                None => Place::Full { cap, limit },
            })
        };
        caps.into_iter().find_map(reached).unwrap_or(Place::Free)
    }

    /// Everything that a runner of this class counts towards, and of this repository unless it is shared.
    pub(super) fn counted(&mut self, class: ClassName<'a>, id: Option<RepositoryId>) -> Vec<&mut Turn> {
        let mut counted = vec![&mut self.all, self.classes.entry(class).or_default()];
        if let Some(id) = id {
            counted.push(self.repositories.entry(id).or_default());
            counted.push(self.parts.entry((class, id)).or_default());
        }
        counted
    }

    /// The name of a repository whose jobs take turns.
    pub(super) fn name_of(&self, id: RepositoryId) -> String {
        self.open.get(&id).map(|open| open.view.repository.full_name()).unwrap_or_default()
    }

    /// A candidate that is held by a cap, and for which room could be made.
    fn hold(
        &mut self,
        policy: &Policy,
        candidate: &Candidate<'a>,
        view: &RepositoryView,
        github_now: Timestamp,
    ) -> Held {
        let Candidate { job, key, group, late } = candidate;
        let class = policy.class_named(group.class);
        let of_class = self.classes.entry(group.class).or_default();
        let of_repository = self.repositories.entry(key.repository).or_default();
        let of_part = self.parts.entry((group.class, key.repository)).or_default();
        let part_is_full = of_part.is_full(class.max_runners_per_repository());
        let within = part_is_full || of_repository.is_full(policy.max_runners_per_repository);
        let of_its_class = part_is_full || of_class.is_full(class.max_runners());
        of_repository.held += usize::from(!within);
        of_class.held += usize::from(!of_its_class);
        of_part.held += usize::from(!(within && of_its_class));
        Held {
            group: (*key).clone(),
            job: format!("{} job {}", view.repository.full_name(), job.id),
            age: job.created_at.map_or(Duration::ZERO, |at| age(github_now, at)),
            within,
            of_class: group.class.filter(|_| of_its_class).map(str::to_owned),
            late: *late,
        }
    }

    /// Moves a repository to its position in the queue of each class, after a change.
    fn queue(&mut self, id: RepositoryId) {
        let repository = turn_of(self.repositories.get(&id));
        for (class, queue) in &mut self.queues {
            let key = (*class, id);
            if let Some(order) = self.places.remove(&key) {
                queue.remove(&(order, id));
            }
            if let Some(next) = self.candidates.get(&key).and_then(VecDeque::front) {
                let order = (next.late, repository, oldest_first(next.job));
                queue.insert((order, id));
                self.places.insert(key, order);
            }
        }
    }
}

fn turn_of(turn: Option<&Turn>) -> (usize, Option<Timestamp>) {
    turn.map(|turn| (turn.live - turn.warm, turn.last_start)).unwrap_or_default()
}

/// Whether there is a place for a runner.
pub(super) enum Place {
    /// There is a place.
    Free,
    /// A cap is reached.
    Full { cap: Cap, limit: usize },
    /// The places left below a cap are kept for another repository.
    Kept { cap: Cap, limit: usize, before: RepositoryId },
}

/// Who has got which places, for what comes after the jobs.
pub(super) struct Given<'a> {
    /// The starts held by a cap.
    pub held: Vec<Held>,
    pub turns: Turns<'a>,
    /// How many were started in each group.
    pub placed: BTreeMap<GroupKey, usize>,
    /// How many runners there are now.
    pub live: usize,
}

/// Starts the missing runners.
pub(super) fn starts<'a>(survey: &'a Survey<'a>, draft: &mut Draft) -> Given<'a> {
    let mut turns = turns(survey, draft);
    let mut live = turns.all.live;
    let mut placed: BTreeMap<&GroupKey, usize> = BTreeMap::new();
    let mut held = Vec::new();
    while let Some(candidate) = turns.next() {
        let Candidate { job, key, group, .. } = candidate;
        let id = key.repository;
        let Some(Open { view, github_now }) = turns.open.get(&id).copied() else { break };
        let placed_here = placed.entry(key).or_default();
        let in_group = group.live + *placed_here;
        let hold = |reason| Hold { subject: subject(view, job), reason };
        match (turns.place(survey.policy, group.class, Some(id), in_group), github_now) {
            (Place::Free, Some(_)) => {
                draft.actions.push(Action::Start(start(survey, view, job, &group.labels, group, live)));
                *placed_here += 1;
                live += 1;
                turns.counted(group.class, Some(id)).into_iter().for_each(Turn::starts);
            }
            (Place::Free, None) => {
                *placed_here += 1;
                draft.kept.insert(id);
                turns.counted(group.class, Some(id)).into_iter().for_each(|turn| turn.keeps(id));
            }
            (_, None) => {}
            (Place::Full { cap, limit }, Some(now)) => {
                draft.holds.push(hold(HoldReason::Cap { cap, limit }));
                let class = survey.policy.class_named(group.class);
                // A group that lacks runners has no idle ones to stop for its own cap.
                if class.max_runners_per_group().is_none_or(|limit| in_group < limit) {
                    *placed_here += 1;
                    held.push(turns.hold(survey.policy, &candidate, view, now));
                }
            }
            (Place::Kept { cap, limit, before }, Some(_)) => {
                let before = turns.name_of(before);
                draft.holds.push(hold(HoldReason::Turn { cap, limit, before }));
            }
        }
        turns.queue(id);
    }
    let placed = placed.into_iter().map(|(key, count)| (key.clone(), count)).collect();
    Given { held, turns, placed, live }
}

fn start(
    survey: &Survey,
    view: &RepositoryView,
    job: &WorkflowJob,
    labels: &Labels,
    group: &Group,
    live: usize,
) -> Start {
    // Meta is external text and can contain any number.
    let last = survey.newest.get(&job.id).map_or(0, |runner| runner.meta.attempt.unwrap_or(1));
    let namespace = survey.policy.class_named(group.class).namespace();
    let purpose = Purpose::Job(job.id);
    let (attempt, name) = free_attempt(survey, namespace, &view.repository, &purpose, last.saturating_add(1));
    let (demand, supply) = (group.demand.len(), group.supply.len());
    Start {
        repository: view.repository.clone(),
        class: group.class.map(str::to_owned),
        namespace: namespace.cloned(),
        labels: labels.clone(),
        purpose,
        facts: job.facts(),
        attempt,
        name,
        info: format!("queued={demand} at_hand={supply} live={live} attempt={attempt}"),
        reason: StartReason::Missing { demand, supply },
    }
}

/// The first number, from this one on, that is free, and the name of that start.
pub(super) fn free_attempt(
    survey: &Survey,
    namespace: Option<&Namespace>,
    repository: &Repository,
    purpose: &Purpose,
    next: u32,
) -> (u32, String) {
    let repository = repository.full_name();
    let name = |attempt: u32| {
        let (prefix, deployment) = (&survey.policy.prefix, &survey.nomad.deployment);
        runner_name(prefix, deployment, namespace, &repository, purpose.clone(), attempt)
    };
    // Someone has purged the job of a runner whose variable still exists and would be used for the next one. Or someone
    // else's job has the name, so nothing can be started under it. An unreadable job may be ours.
    let (variables, foreign) = (&survey.nomad.variables, &survey.nomad.foreign);
    let is_taken = |name: &String| {
        survey.nomad.has_variable(namespace, name)
            || foreign
                .iter()
                .any(|foreign| foreign.name == *name && foreign.reason != ForeignReason::Unreadable)
    };
    let mut attempts = (next..=u32::MAX).take(variables.len() + foreign.len() + 1);
    let attempt = attempts.find(|attempt| !is_taken(&name(*attempt))).unwrap_or(next);
    (attempt, name(attempt))
}

/// The candidates of each repository that is listed freshly, or was a moment ago, oldest first, as many as are missing in their groups.
fn turns<'a>(survey: &'a Survey<'a>, draft: &mut Draft) -> Turns<'a> {
    let stopping: BTreeSet<GroupKey> = draft
        .stopping
        .iter()
        .filter_map(|name| survey.group_of(survey.runners.get(name.as_str())?))
        .collect();
    let mut turns = open_turns(survey);
    count_runners(survey, &mut turns);
    let mut candidates = Vec::new();
    for (key, group) in &survey.groups {
        candidates.extend(group_candidates(survey, draft, &turns, key, group, &stopping));
    }
    leave_to_warm(survey, &turns, &mut candidates, draft);
    for candidate in candidates {
        let place = (candidate.group.class, candidate.key.repository);
        turns.candidates.entry(place).or_default().push_back(candidate);
    }
    for candidates in turns.candidates.values_mut() {
        candidates.make_contiguous().sort_by_key(|c| (c.late, oldest_first(c.job)));
    }
    turns.queues = turns.candidates.keys().map(|(class, _)| (*class, BTreeSet::new())).collect();
    let waiting: BTreeSet<RepositoryId> = turns.candidates.keys().map(|(_, id)| *id).collect();
    for id in waiting {
        turns.queue(id);
    }
    turns
}

/// The repositories that may have candidates: those listed freshly, or a moment ago.
fn open_turns<'a>(survey: &'a Survey<'a>) -> Turns<'a> {
    let mut turns = Turns::default();
    for (id, view) in survey.repositories {
        let github_now = match view.listing {
            Listing::Fresh { now, .. } => Some(now),
            Listing::Earlier { ended, .. } if survey.now.since(ended) <= CLAIMS_FOR => None,
            _ => continue,
        };
        turns.open.insert(*id, Open { view, github_now });
        let last_start = survey.memory.last_start.get(id).copied();
        turns.repositories.insert(*id, Turn { last_start, ..Turn::default() });
    }
    turns
}

/// Counts the runners of each repository, class and part.
fn count_runners<'a>(survey: &'a Survey<'a>, turns: &mut Turns<'a>) {
    for runner in survey.runners.values().chain(&survey.unseen) {
        // A runner of a class that is no longer configured counts towards the top level.
        let class = survey.class_of(runner).name();
        turns.all.count(runner);
        turns.classes.entry(class).or_default().count(runner);
        if let Some(id) = survey.repository_id(runner).filter(|_| !survey.is_shared(runner)) {
            turns.repositories.entry(id).or_default().count(runner);
            turns.parts.entry((class, id)).or_default().count(runner);
        }
    }
}

/// The jobs of a group that need their own runner now, as many as it lacks. The others are held, or have one.
fn group_candidates<'a>(
    survey: &'a Survey<'a>,
    draft: &mut Draft,
    turns: &Turns<'a>,
    key: &'a GroupKey,
    group: &'a Group<'a>,
    stopping: &BTreeSet<GroupKey>,
) -> Vec<Candidate<'a>> {
    let mut candidates = Vec::new();
    let Some(Open { view, github_now }) = turns.open.get(&key.repository).copied() else { return candidates };
    let mut hold = |job, reason| {
        if github_now.is_some() {
            draft.holds.push(Hold { subject: subject(view, job), reason });
        }
    };
    let missing = group.demand.len().saturating_sub(group.supply.len());
    let served: BTreeSet<JobId> = group.supply.iter().filter_map(|runner| runner.meta.job_id()).collect();
    let group_hold = group_hold(survey, key, group, stopping);
    let late = gave_up_its_place_lately(survey, group);
    // A job that claims to be nomadtools' may never serve anything, and only its owner may end it.
    let mut foreign = group.supply.iter().filter(|runner| runner.ownership == Ownership::Nomadtools);
    for job in group.demand.iter().filter(|job| !served.contains(&job.id)) {
        if candidates.len() == missing {
            let Some(runner) = foreign.next() else { break };
            let reason = HoldReason::LeftToNomadtools { runner: runner.name.clone() };
            hold(job, reason);
            continue;
        }
        match group_hold.clone().or_else(|| attempt_hold(survey, job)) {
            Some(reason) => hold(job, reason),
            None => candidates.push(Candidate { job, key, group, late }),
        }
    }
    candidates
}

/// Removes the jobs that are left to warm runners.
fn leave_to_warm(survey: &Survey, turns: &Turns, candidates: &mut Vec<Candidate>, draft: &mut Draft) {
    if survey.warm.is_empty() {
        return;
    }
    candidates.sort_by_key(|candidate| oldest_first(candidate.job));
    let jobs = candidates.iter().map(|candidate| (candidate.job.id, candidate.key));
    let left = offers::left(survey, jobs, draft);
    candidates.retain(|Candidate { job, key, .. }| {
        let Some(runner) = left.get(&job.id) else { return true };
        if let Some(Open { view, github_now: Some(_) }) = turns.open.get(&key.repository) {
            let reason = HoldReason::LeftToWarm { runner: runner.name.clone() };
            draft.holds.push(Hold { subject: subject(view, job), reason });
        }
        false
    });
    draft.left_to.extend(left.values().map(|runner| runner.name.clone()));
    draft.left.extend(left.into_keys());
}

/// Why nothing in this group starts now.
fn group_hold(
    survey: &Survey,
    key: &GroupKey,
    group: &Group,
    stopping: &BTreeSet<GroupKey>,
) -> Option<HoldReason> {
    if let Some(reason) = survey.why_unseen(survey.policy.class_named(group.class).namespace()) {
        return Some(reason);
    }
    if stopping.contains(key) {
        return Some(HoldReason::GroupStops);
    }
    if let Some(refusal) = survey.memory.refused.get(key).filter(|refusal| survey.now < refusal.until) {
        return Some(HoldReason::ReachesHost { why: refusal.why.clone() });
    }
    let backoff = survey.memory.start_backoff.get(key)?;
    Some(HoldReason::StartFailed { error: backoff.error.clone(), wait: backoff.wait(survey.now)? })
}

/// Whether the group's last runner was stopped recently although its job is still waiting: never placed, refused by
/// GitHub, or given no job. Without this rule, a failing group would regain every place that it has just given up.
fn gave_up_its_place_lately(survey: &Survey, group: &Group) -> bool {
    let Some(last) = group.last.filter(|last| last.state == RunnerState::Dead) else { return false };
    let stopped = last.allocation.is_none() || last.finish == Some(Finish::Stopped);
    stopped
        && survey.dead_for(last) < lateness(last.meta.attempt.unwrap_or(1))
        && last.meta.job_id().and_then(|job_id| survey.statuses.get(&job_id)) == Some(&JobStatus::Queued)
}

/// Why this job gets no further attempt now: enough attempts are alive, or the last one died or was started recently,
/// whatever its exit code.
fn attempt_hold(survey: &Survey, job: &WorkflowJob) -> Option<HoldReason> {
    let count = survey.attempts.get(&job.id).copied().unwrap_or(0);
    if count >= LIVE_ATTEMPTS {
        return Some(HoldReason::LiveAttempts { count });
    }
    let newest: &Runner = survey.newest.get(&job.id)?;
    let (since, ended) = match newest.state {
        RunnerState::Dead => (survey.dead_for(newest), newest.finish.as_ref().map(ToString::to_string)),
        // It has taken another job.
        _ if survey.is_busy(newest) => return None,
        _ => (age(survey.nomad.now, newest.submitted_at), None),
    };
    let attempt = newest.meta.attempt.unwrap_or(1);
    let wait = still_waits(attempt, since)?;
    Some(HoldReason::Attempts { attempt: attempt.saturating_add(1), wait, ended })
}

/// How long attempt n+1 still waits, this long after the death of attempt n: it waits min(30 s × 2^(n-1), 10 min).
pub(super) fn still_waits(attempt: u32, since: Duration) -> Option<Duration> {
    let wait = doubled(FIRST_WAIT, attempt.saturating_sub(1)).min(LONGEST_WAIT);
    wait.checked_sub(since).filter(|wait| !wait.is_zero())
}

/// How long a group goes last after attempt n has given up its place: min(10 min × 2^(n-1), 4 h).
fn lateness(attempt: u32) -> Duration {
    doubled(FIRST_LATENESS, attempt.saturating_sub(1)).min(LONGEST_LATENESS)
}

fn subject(view: &RepositoryView, job: &WorkflowJob) -> Subject {
    let labels = Labels::new(job.labels.iter().map(String::as_str)).joined();
    Subject::Job { repository: view.repository.full_name(), id: job.id, labels }
}
