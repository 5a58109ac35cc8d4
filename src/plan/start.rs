//! What is missing, whose turn it is, and what the caps allow.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use jiff::Timestamp;

use super::{
    Draft,
    survey::{Group, Survey, oldest_first},
};
use crate::model::{
    Action, Cap, Finish, ForeignReason, GroupKey, Hold, HoldReason, JobId, JobStatus, Labels, Listing,
    Ownership, RepositoryId, RepositoryView, Runner, RunnerState, Start, StartReason, Subject, WorkflowJob,
    age, doubled, runner_name,
};

/// How long attempt 2 waits after the death of attempt 1. The wait doubles with each attempt.
const FIRST_WAIT: Duration = Duration::from_secs(30);

/// No attempt waits longer.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// For this long after a first attempt gave up its place, its group waits until all others are served; twice as long after
/// each next one.
const FIRST_LATENESS: Duration = LONGEST_WAIT;

/// No group waits longer for that: whatever was wrong may have been mended.
const LONGEST_LATENESS: Duration = Duration::from_secs(4 * 3600);

/// At most this many attempts of one job are alive.
const LIVE_ATTEMPTS: usize = 2;

/// A start that a cap holds back, and that another runner's end would let happen.
pub(super) struct Held {
    pub group: GroupKey,
    /// The GitHub job, for people.
    pub job: String,
    /// How long the job has been queued.
    pub age: Duration,
    /// Only the end of a runner of the same repository would help.
    pub within: bool,
    /// Only the end of a runner of this class would help.
    pub of_class: Option<String>,
    /// Its group has given up a place lately: nobody who is stuck yields to it.
    pub late: bool,
}

/// A job that wants a runner of its own.
struct Candidate<'a> {
    job: &'a WorkflowJob,
    key: &'a GroupKey,
    group: &'a Group<'a>,
    /// The group's last runner gave up its place: it waits until all others are served.
    late: bool,
}

/// A class, by its name; the top level has none.
type ClassName<'a> = Option<&'a str>;

/// What takes turns: a class, a repository, or a class's part in a repository.
#[derive(Clone, Copy, Default)]
struct Turn {
    live: usize,
    last_start: Option<Timestamp>,
    /// Starts that caps hold back, and that need not get the place of one that is counted here.
    held: usize,
}

impl Turn {
    fn count(&mut self, runner: &Runner) {
        self.live += usize::from(runner.is_live());
        self.last_start = self.last_start.max(Some(runner.submitted_at));
    }

    fn starts(&mut self) {
        self.live += 1;
        // The latest of all.
        self.last_start = Some(Timestamp::MAX);
    }

    /// Whether the cap stays reached although those held got places elsewhere.
    fn is_full(&self, cap: Option<usize>) -> bool {
        cap.is_some_and(|cap| self.live + self.held >= cap)
    }
}

/// A freshly listed repository.
struct Fresh<'a> {
    view: &'a RepositoryView,
    github_now: Timestamp,
}

/// A repository's place in its class's queue: what gave up its place lately goes last, then by the repository's turn, then by the
/// oldest job.
type Order = (bool, (usize, Option<Timestamp>), (Option<Timestamp>, JobId));

/// Who waits for places, and whose turn is next.
#[derive(Default)]
struct Turns<'a> {
    fresh: BTreeMap<RepositoryId, Fresh<'a>>,
    classes: BTreeMap<ClassName<'a>, Turn>,
    repositories: BTreeMap<RepositoryId, Turn>,
    parts: BTreeMap<(ClassName<'a>, RepositoryId), Turn>,
    candidates: BTreeMap<(ClassName<'a>, RepositoryId), VecDeque<Candidate<'a>>>,
    /// The repositories that wait, by class.
    queues: BTreeMap<ClassName<'a>, BTreeSet<(Order, RepositoryId)>>,
    /// Where each stands in its queue.
    places: BTreeMap<(ClassName<'a>, RepositoryId), Order>,
}

impl<'a> Turns<'a> {
    /// The smallest goes first: the class with the fewest live runners, then the one whose last start is longest ago; of a
    /// class, the repository by the same two; then the oldest job. What gave up its place lately goes after all others.
    fn next(&mut self) -> Option<Candidate<'a>> {
        let first = |(class, queue): (&ClassName<'a>, &BTreeSet<(Order, RepositoryId)>)| {
            let ((late, repository, oldest), id) = *queue.first()?;
            Some(((late, turn_of(self.classes.get(class)), repository, oldest), (*class, id)))
        };
        let (_, key) = self.queues.iter().filter_map(first).min()?;
        self.candidates.get_mut(&key)?.pop_front()
    }

    /// Puts a repository where it belongs in the queue of each class, after something of it has changed.
    fn place(&mut self, id: RepositoryId) {
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
    turn.map(|turn| (turn.live, turn.last_start)).unwrap_or_default()
}

/// Starts for what is missing. Gives what a cap holds back.
pub(super) fn starts(survey: &Survey, draft: &mut Draft) -> Vec<Held> {
    let mut turns = turns(survey, draft);
    let policy = survey.policy;
    let mut live_all = survey.runners.values().filter(|runner| runner.is_live()).count();
    let mut started: BTreeMap<&GroupKey, usize> = BTreeMap::new();
    let mut held = Vec::new();
    while let Some(Candidate { job, key, group, late }) = turns.next() {
        let (name, id) = (group.class, key.repository);
        let class = policy.class_named(name);
        let Some(Fresh { view, github_now }) = turns.fresh.get(&id) else { break };
        let of_class = turns.classes.entry(name).or_default();
        let of_repository = turns.repositories.entry(id).or_default();
        let of_part = turns.parts.entry((name, id)).or_default();
        let started_here = started.entry(key).or_default();
        let in_group = group.live + *started_here;
        let caps = [
            (Cap::All, policy.max_runners, live_all),
            (Cap::Class, class.max_runners(), of_class.live),
            (Cap::Repository, policy.max_runners_per_repository, of_repository.live),
            (Cap::ClassRepository, class.max_runners_per_repository(), of_part.live),
            (Cap::Group, class.max_runners_per_group(), in_group),
        ];
        let reached =
            caps.into_iter().find_map(|(cap, limit, live)| Some((cap, limit.filter(|l| live >= *l)?)));
        if let Some((cap, limit)) = reached {
            draft.holds.push(Hold { subject: subject(view, job), reason: HoldReason::Cap { cap, limit } });
            // A group that misses runners has none to spare for its own cap.
            if class.max_runners_per_group().is_none_or(|limit| in_group < limit) {
                let part_is_full = of_part.is_full(class.max_runners_per_repository());
                let within = part_is_full || of_repository.is_full(policy.max_runners_per_repository);
                let of_its_class = part_is_full || of_class.is_full(class.max_runners());
                of_repository.held += usize::from(!within);
                of_class.held += usize::from(!of_its_class);
                of_part.held += usize::from(!(within && of_its_class));
                *started_here += 1;
                held.push(Held {
                    group: key.clone(),
                    job: format!("{} job {}", view.repository.full_name(), job.id),
                    age: job.created_at.map_or(Duration::ZERO, |at| age(*github_now, at)),
                    within,
                    of_class: name.filter(|_| of_its_class).map(str::to_owned),
                    late,
                });
            }
        } else {
            draft.actions.push(Action::Start(start(survey, view, job, &group.labels, group, live_all)));
            *started_here += 1;
            live_all += 1;
            for turn in [of_class, of_repository, of_part] {
                turn.starts();
            }
        }
        turns.place(id);
    }
    held
}

fn start(
    survey: &Survey,
    view: &RepositoryView,
    job: &WorkflowJob,
    labels: &Labels,
    group: &Group,
    live: usize,
) -> Start {
    // Meta is text from outside: any number can stand there.
    let last = survey.newest.get(&job.id).map_or(0, |runner| runner.meta.attempt.unwrap_or(1));
    let name = |attempt: u32| {
        runner_name(&survey.policy.prefix, &survey.nomad.deployment, &view.repository, job.id, attempt)
    };
    // Somebody has purged a runner's job: its variable is still there, and would be taken for the next one's. Or somebody
    // else's job has the name: nothing can be started under it. One that cannot be read may be ours.
    let (variables, foreign) = (&survey.nomad.variables, &survey.nomad.foreign);
    let is_taken = |name: &String| {
        variables.contains(name)
            || foreign
                .iter()
                .any(|foreign| foreign.name == *name && foreign.reason != ForeignReason::Unreadable)
    };
    let next = last.saturating_add(1);
    let mut attempts = (next..=u32::MAX).take(variables.len() + foreign.len() + 1);
    let attempt = attempts.find(|attempt| !is_taken(&name(*attempt))).unwrap_or(next);
    let (demand, supply) = (group.demand.len(), group.supply.len());
    Start {
        repository: view.repository.clone(),
        class: group.class.map(str::to_owned),
        labels: labels.clone(),
        job_id: job.id,
        attempt,
        name: name(attempt),
        info: format!("queued={demand} at_hand={supply} live={live} attempt={attempt}"),
        reason: StartReason::Missing { demand, supply },
    }
}

/// The candidates of each freshly listed repository, oldest first, as many as are missing in their groups.
fn turns<'a>(survey: &'a Survey<'a>, draft: &mut Draft) -> Turns<'a> {
    let stopping: BTreeSet<GroupKey> = draft
        .stopping
        .iter()
        .filter_map(|name| survey.group_of(survey.runners.get(name.as_str())?))
        .collect();
    let mut turns = Turns::default();
    for (id, view) in survey.repositories {
        if let Listing::Fresh { now, .. } = view.listing {
            turns.fresh.insert(*id, Fresh { view, github_now: now });
            let last_start = survey.memory.last_start.get(id).copied();
            turns.repositories.insert(*id, Turn { last_start, ..Turn::default() });
        }
    }
    for runner in survey.runners.values() {
        // One of a class that is no longer configured counts as the top level's.
        let class = survey.class_of(runner).name();
        turns.classes.entry(class).or_default().count(runner);
        if let Some(id) = survey.repository_id(runner) {
            turns.repositories.entry(id).or_default().count(runner);
            turns.parts.entry((class, id)).or_default().count(runner);
        }
    }
    for (key, group) in &survey.groups {
        let Some(Fresh { view, .. }) = turns.fresh.get(&key.repository) else { continue };
        let missing = group.demand.len().saturating_sub(group.supply.len());
        let served: BTreeSet<JobId> = group.supply.iter().filter_map(|runner| runner.meta.job_id).collect();
        let group_hold = group_hold(survey, key, &stopping);
        let late = gave_up_its_place_lately(survey, group);
        // A job that says it is nomadtools' may never serve anything, and only its owner may end it.
        let mut foreign = group.supply.iter().filter(|runner| runner.ownership == Ownership::Nomadtools);
        let mut taken = 0;
        for job in group.demand.iter().filter(|job| !served.contains(&job.id)) {
            if taken == missing {
                let Some(runner) = foreign.next() else { break };
                let reason = HoldReason::LeftToNomadtools { runner: runner.name.clone() };
                draft.holds.push(Hold { subject: subject(view, job), reason });
                continue;
            }
            match group_hold.clone().or_else(|| attempt_hold(survey, job)) {
                Some(reason) => draft.holds.push(Hold { subject: subject(view, job), reason }),
                None => {
                    taken += 1;
                    let candidates = turns.candidates.entry((group.class, key.repository)).or_default();
                    candidates.push_back(Candidate { job, key, group, late });
                }
            }
        }
    }
    for candidates in turns.candidates.values_mut() {
        candidates.make_contiguous().sort_by_key(|c| (c.late, oldest_first(c.job)));
    }
    turns.queues = turns.candidates.keys().map(|(class, _)| (*class, BTreeSet::new())).collect();
    let waiting: BTreeSet<RepositoryId> = turns.candidates.keys().map(|(_, id)| *id).collect();
    for id in waiting {
        turns.place(id);
    }
    turns
}

/// Why nothing of this group starts now.
fn group_hold(survey: &Survey, key: &GroupKey, stopping: &BTreeSet<GroupKey>) -> Option<HoldReason> {
    if stopping.contains(key) {
        return Some(HoldReason::GroupStops);
    }
    let backoff = survey.memory.start_backoff.get(key)?;
    let wait = backoff.until.checked_sub(survey.now).filter(|wait| !wait.is_zero())?;
    Some(HoldReason::StartFailed { error: backoff.error.clone(), wait })
}

/// Whether the group's last runner was stopped a short while ago although its job still waits: never placed, refused by
/// GitHub, or given no job. Without this, what goes wrong would get back each place that it has just given up.
fn gave_up_its_place_lately(survey: &Survey, group: &Group) -> bool {
    let Some(last) = group.last.filter(|last| last.state == RunnerState::Dead) else { return false };
    let stopped = last.allocation.is_none() || last.finish == Some(Finish::Stopped);
    stopped
        && survey.dead_for(last) < lateness(last.meta.attempt.unwrap_or(1))
        && last.meta.job_id.and_then(|job_id| survey.statuses.get(&job_id)) == Some(&JobStatus::Queued)
}

/// Why this job gets no further attempt now: enough are alive, or the last one died or was started a short while ago,
/// whatever its exit code.
fn attempt_hold(survey: &Survey, job: &WorkflowJob) -> Option<HoldReason> {
    let count = survey.attempts.get(&job.id).copied().unwrap_or(0);
    if count >= LIVE_ATTEMPTS {
        return Some(HoldReason::LiveAttempts { count });
    }
    let newest: &Runner = survey.newest.get(&job.id)?;
    let since = match newest.state {
        RunnerState::Dead => survey.dead_for(newest),
        // It has found another job.
        _ if survey.is_busy(newest) => return None,
        _ => age(survey.nomad.now, newest.submitted_at),
    };
    let attempt = newest.meta.attempt.unwrap_or(1);
    let wait = wait_after(attempt).checked_sub(since).filter(|wait| !wait.is_zero())?;
    Some(HoldReason::Attempts { attempt: attempt.saturating_add(1), wait })
}

/// How long attempt n+1 waits after the death of attempt n: min(30 s × 2^(n-1), 10 min).
fn wait_after(attempt: u32) -> Duration {
    doubled(FIRST_WAIT, attempt.saturating_sub(1)).min(LONGEST_WAIT)
}

/// How long its group waits for others after attempt n gave up its place: min(10 min × 2^(n-1), 4 h).
fn lateness(attempt: u32) -> Duration {
    doubled(FIRST_LATENESS, attempt.saturating_sub(1)).min(LONGEST_LATENESS)
}

fn subject(view: &RepositoryView, job: &WorkflowJob) -> Subject {
    let labels = Labels::new(job.labels.iter().map(String::as_str)).joined();
    Subject::Job { repository: view.repository.full_name(), id: job.id, labels }
}
