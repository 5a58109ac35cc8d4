//! Warm runners: started before there are jobs for them.
//!
//! 1. Which of an entry's runners leave: surplus ones, those that make no progress, outdated ones.
//! 2. Which start, after all jobs have had their turn.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    Draft,
    policy::WarmPolicy,
    start::{Place, Turns, free_attempt, still_waits},
    stop::{stop, was_surplus},
    stuck::{self, Stuck},
    survey::Survey,
};
use crate::model::{
    Action, Finish, GroupKey, Hold, HoldReason, JobFacts, Listing, Ownership, Purpose, RepoEntry, Repository,
    RepositoryId, RepositoryView, Runner, RunnerState, Start, StartReason, StopReason, Subject, Timestamp,
    Warm, WarmEnd, age,
};

/// A warm runner is replaced after this time, because the image that its tag names may be another one by now.
const OLD: Duration = Duration::from_secs(24 * 3600);

/// A warm runner that Nomad has not placed after this time counts as failed.
const UNPLACED: Duration = Duration::from_secs(600);

/// An outdated runner waits at most this long for the other runners of its entry to be running.
const ROTATES_AFTER: Duration = Duration::from_secs(600);

/// A runner that ran for this long has not failed, however it ended.
const RAN_WELL: Duration = Duration::from_secs(600);

/// A counted failure is kept, unpurged, for at most this long. The next runner has started by then, or something else
/// prevents it.
const KEPT: Duration = Duration::from_secs(1800);

/// What is known of an entry now.
#[derive(Default)]
struct Entry<'a> {
    /// Its runners that can take a job, now or soon.
    ready: Vec<&'a Runner>,
    /// The dead one that was started last.
    dead: Option<&'a Runner>,
    /// The one that was started last.
    newest: Option<&'a Runner>,
}

fn entry<'a>(survey: &Survey<'a>, id: &str) -> Entry<'a> {
    let mut entry = Entry::default();
    let number = |runner: Option<&Runner>| runner.and_then(|runner| runner.meta.attempt);
    for runner in survey.warm.get(id).into_iter().flatten().copied() {
        if survey.supplies(runner) {
            entry.ready.push(runner);
        }
        let is_later = |than: Option<&Runner>| runner.meta.attempt >= number(than);
        if is_later(entry.newest) {
            entry.newest = Some(runner);
        }
        if runner.state == RunnerState::Dead && is_later(entry.dead) {
            entry.dead = Some(runner);
        }
    }
    entry
}

impl WarmPolicy {
    fn is_open(&self, now: Timestamp) -> bool {
        self.entry.schedule.as_ref().is_none_or(|hours| hours.are_open(now))
    }

    fn subject(&self) -> Subject {
        Subject::Warm { place: self.entry.place.to_string(), labels: self.entry.labels.joined() }
    }
}

/// The warm runners that are not wanted any more, by name, each with the reason.
pub(super) type Unwanted<'a> = BTreeMap<&'a str, (&'a Runner, WarmEnd)>;

/// See [`Unwanted`]. Not those that make no progress.
pub(super) fn unwanted<'a>(survey: &Survey<'a>) -> Unwanted<'a> {
    let mut unwanted = Unwanted::new();
    for id in survey.warm.keys() {
        let Entry { mut ready, .. } = entry(survey, id);
        let policy = survey.policy.warm.iter().find(|policy| policy.entry.id == *id);
        let count = match policy {
            Some(policy) if policy.is_open(survey.nomad.now) => policy.entry.count,
            Some(_) | None => 0,
        };
        ready.sort_by_key(|runner| {
            let outdated = policy.is_some_and(|policy| outdated(survey, policy, runner).is_some());
            (runner.state, Reverse(outdated), Reverse(survey.idle(runner)), runner.name.as_str())
        });
        let excess = ready.len().saturating_sub(count);
        for runner in ready.drain(..excess) {
            let end = match policy {
                None => WarmEnd::Removed,
                Some(_) if count == 0 => WarmEnd::Closed,
                Some(_) => WarmEnd::Excess { count, ready: excess + count },
            };
            unwanted.insert(&runner.name, (runner, end));
        }
        let Some(policy) = policy.filter(|_| excess == 0) else { continue };
        unwanted.extend(
            rotates(survey, policy, &ready).map(|(runner, end)| (runner.name.as_str(), (runner, end))),
        );
    }
    unwanted
}

/// The outdated runner of an entry that is replaced next. The others stay until its replacement is running, so the
/// entry never lacks more than one.
fn rotates<'a>(
    survey: &Survey<'a>,
    policy: &WarmPolicy,
    ready: &[&'a Runner],
) -> Option<(&'a Runner, WarmEnd)> {
    let is_calm = |runner: &&Runner| {
        runner.state == RunnerState::Running || age(survey.nomad.now, runner.submitted_at) >= ROTATES_AFTER
    };
    let stops = |runner: &&Runner| runner.state == RunnerState::Stopping;
    if !ready.iter().all(is_calm) || survey.warm.get(policy.entry.id.as_str())?.iter().any(stops) {
        return None;
    }
    let outdated = ready.iter().filter_map(|runner| Some((*runner, outdated(survey, policy, runner)?)));
    outdated.min_by_key(|(runner, _)| (runner.submitted_at, runner.name.as_str()))
}

/// Why a runner of this entry is to be replaced.
fn outdated(survey: &Survey, policy: &WarmPolicy, runner: &Runner) -> Option<WarmEnd> {
    let age = age(survey.nomad.now, runner.submitted_at);
    match runner.warm() {
        Some(warm) if warm.settings != policy.settings => Some(WarmEnd::Settings),
        _ if age >= OLD => Some(WarmEnd::Old { age }),
        _ => None,
    }
}

/// Stops warm runners that are not wanted, once a second listing confirms that they have no job, and those that make no
/// progress.
pub(super) fn stops(
    survey: &Survey,
    unwanted: &Unwanted,
    surplus: &mut BTreeMap<RepositoryId, BTreeSet<String>>,
    draft: &mut Draft,
) {
    for (runner, end) in unwanted.values() {
        let Some(id) = survey.repository_id(runner) else { continue };
        let Some(names) = surplus.get_mut(&id) else { continue };
        names.insert(runner.name.clone());
        if was_surplus(survey, id, runner) {
            stop(survey, draft, runner, StopReason::Warm(end.clone()));
        } else {
            draft.hold_runner(&runner.name, HoldReason::SurplusOnce);
        }
    }
    for runner in survey.warm.values().flatten() {
        if let Some(why) = fails(survey, runner).filter(|_| survey.listed(runner).is_some()) {
            stop(survey, draft, runner, StopReason::Warm(WarmEnd::Fails { why }));
        }
    }
}

/// Why a warm runner counts as failed although it is alive. No job waits for it, so nothing else would end it.
fn fails(survey: &Survey, runner: &Runner) -> Option<&'static str> {
    let unplaced =
        runner.state == RunnerState::Pending && age(survey.nomad.now, runner.submitted_at) >= UNPLACED;
    if unplaced {
        Some("unplaced for too long")
    } else if stuck::no_credentials(survey, runner).is_some() {
        Some(Stuck::NoCredentials.words())
    } else if stuck::is_not_connected(survey, runner) {
        Some(Stuck::NotConnected.words())
    } else {
        None
    }
}

/// A warm entry that lacks runners.
struct Lacking<'a> {
    policy: &'a WarmPolicy,
    view: &'a RepositoryView,
    key: GroupKey,
    /// How many are ready.
    ready: usize,
    /// How many in a row have failed.
    failed: u32,
    /// The number of the last start, and when it was.
    last: Option<u32>,
    last_start: Option<Timestamp>,
}

/// Starts the missing warm runners in the places that no job needs: first those of the entries with the fewest. `placed`
/// counts the places that this plan has given to each group.
pub(super) fn starts<'a>(
    survey: &'a Survey<'a>,
    turns: &mut Turns<'a>,
    mut placed: BTreeMap<GroupKey, usize>,
    live: usize,
    draft: &mut Draft,
) {
    let mut live = live;
    let mut lacking: Vec<Lacking> = Vec::new();
    for policy in &survey.policy.warm {
        match lacks(survey, policy, draft) {
            Ok(found) => lacking.extend(found),
            Err(reason) => draft.holds.push(Hold { subject: policy.subject(), reason }),
        }
    }
    lacking.sort_by_key(|lacking| (lacking.ready, lacking.last_start, lacking.policy.entry.id.as_str()));
    while !lacking.is_empty() {
        lacking.retain_mut(|lacking| {
            let Lacking { policy, view, key, .. } = lacking;
            let class = survey.policy.class_named(policy.class.as_deref()).name();
            // An organization's runner belongs to none of its repositories.
            let within = (!class_is_shared(survey, class)).then_some(view.repository.id);
            let in_group = placed.entry(key.clone()).or_default();
            let group = within.and_then(|_| survey.groups.get(key));
            let live_in_group = group.map_or(0, |group| group.live) + *in_group;
            let reason = match turns.place(survey.policy, class, within, live_in_group) {
                Place::Free => {
                    draft.actions.push(Action::Start(start(survey, lacking, class, live)));
                    *in_group += usize::from(within.is_some());
                    live += 1;
                    turns.counted(class, within).into_iter().for_each(|turn| turn.starts_warm());
                    lacking.ready += 1;
                    return lacking.ready < lacking.policy.entry.count;
                }
                Place::Full { cap, limit } => HoldReason::Cap { cap, limit },
                Place::Kept { cap, limit, before } => {
                    HoldReason::Turn { cap, limit, before: turns.name_of(before) }
                }
            };
            draft.holds.push(Hold { subject: policy.subject(), reason });
            false
        });
    }
}

/// What an entry lacks, or why nothing is started for it.
fn lacks<'a>(
    survey: &'a Survey,
    policy: &'a WarmPolicy,
    draft: &Draft,
) -> Result<Option<Lacking<'a>>, HoldReason> {
    let namespace = survey.policy.class_named(policy.class.as_deref()).namespace();
    if let Some(reason) = survey.why_unseen(namespace) {
        return Err(reason);
    }
    let now = survey.nomad.now;
    if !policy.is_open(now) {
        let opens = policy.entry.schedule.as_ref().and_then(|hours| hours.next_opening(now));
        return Err(HoldReason::Closed { opens });
    }
    let Entry { ready, dead, newest } = entry(survey, &policy.entry.id);
    if ready.len() >= policy.entry.count {
        return Ok(None);
    }
    let Some(view) = repository(survey, policy) else { return Err(HoldReason::NoRepository) };
    match &view.listing {
        Listing::Fresh { .. } => {}
        Listing::Earlier { .. } => {
            return Err(HoldReason::Unpolled { repository: view.repository.full_name() });
        }
        Listing::Stale { reason, .. } | Listing::Unseen { reason } => {
            return Err(HoldReason::NotListed { why: reason.clone() });
        }
        Listing::Gone { .. } => return Err(HoldReason::NoRepository),
    }
    if let Some(backoff) = survey.memory.warm_backoff.get(&policy.entry.id)
        && let Some(wait) = backoff.wait(survey.now)
    {
        return Err(HoldReason::StartFailed { error: backoff.error.clone(), wait });
    }
    // Whether it fails shows when it has ended.
    if survey
        .warm
        .get(policy.entry.id.as_str())
        .into_iter()
        .flatten()
        .any(|runner| runner.state == RunnerState::Stopping)
    {
        return Err(HoldReason::GroupStops);
    }
    let failed = dead.map_or(0, failures);
    if let Some(dead) = dead.filter(|_| failed > 0)
        && let Some(wait) = still_waits(failed, survey.dead_for(dead))
    {
        return Err(HoldReason::WarmFailed { failed, wait });
    }
    if let Some(to) = waits_in_its_pool(survey, newest) {
        return Err(HoldReason::WarmYields { to: to.name.clone() });
    }
    let key = GroupKey { repository: view.repository.id, labels: policy.entry.labels.clone() };
    let stops = |name: &String| {
        let runner = survey.runners.get(name.as_str());
        runner.and_then(|runner| survey.group_of(runner)).as_ref() == Some(&key)
    };
    if draft.stopping.iter().any(stops) {
        return Err(HoldReason::GroupStops);
    }
    let last = newest.map(|newest| newest.meta.attempt.unwrap_or(0));
    let last_start = newest.map(|newest| newest.submitted_at);
    Ok(Some(Lacking { policy, view, key, ready: ready.len(), failed, last, last_start }))
}

/// The repository that an entry's next runner names. An owner's runner serves all its repositories, so the most public
/// one decides what it may be.
fn repository<'a>(survey: &'a Survey, policy: &WarmPolicy) -> Option<&'a RepositoryView> {
    let covers = |repository: &Repository| match &policy.entry.place {
        RepoEntry::Owner(owner) => repository.owner.eq_ignore_ascii_case(owner),
        place @ RepoEntry::Repository { .. } => {
            place.to_string().eq_ignore_ascii_case(&repository.full_name())
        }
        RepoEntry::All => false,
    };
    let may = |view: &&RepositoryView| {
        let repository = &view.repository;
        let is_gone = matches!(view.listing, Listing::Gone { .. });
        covers(repository) && view.configured && !repository.archived && !repository.disabled && !is_gone
    };
    survey.repositories.values().filter(may).min_by_key(|view| {
        let is_fresh = matches!(view.listing, Listing::Fresh { .. });
        (view.repository.visibility, !is_fresh, view.repository.id)
    })
}

/// How many of an entry's runners in a row have failed, up to this dead one.
fn failures(dead: &Runner) -> u32 {
    let is_well = dead.finish == Some(Finish::Success);
    let ran = dead.started_at.map_or(Duration::ZERO, |started| age(dead.died_at(), started));
    let before = dead.warm().map_or(0, |warm| warm.failed);
    if is_well || ran >= RAN_WELL { 0 } else { before.saturating_add(1) }
}

/// Whether a dead runner counts the failures of its entry, so that it is not purged yet.
pub(super) fn counts_failures(survey: &Survey, runner: &Runner) -> bool {
    let Some(warm) = runner.warm() else { return false };
    let is_configured = survey.policy.warm.iter().any(|policy| policy.entry.id == warm.entry);
    let is_last = || entry(survey, &warm.entry).dead.is_some_and(|dead| dead.name == runner.name);
    is_configured && failures(runner) > 0 && survey.dead_for(runner) < KEPT && is_last()
}

/// A runner for a job that waits for room on the nodes that an entry's runners would use.
fn waits_in_its_pool<'a>(survey: &'a Survey, newest: Option<&Runner>) -> Option<&'a Runner> {
    let newest = newest?;
    survey.runners.values().copied().find(|runner| {
        let exhausted = runner.blocked.as_ref().is_some_and(|blocked| blocked.exhausted);
        let waits = runner.state == RunnerState::Pending && runner.warm().is_none() && exhausted;
        waits && share_a_pool(runner, newest)
    })
}

/// Whether two runners compete for the same nodes, as far as is known.
pub(super) fn share_a_pool(one: &Runner, other: &Runner) -> bool {
    let pool = |runner: &Runner| runner.meta.asks.as_ref().map(|asks| asks.node_pool.clone());
    pool(one).zip(pool(other)).is_none_or(|(one, other)| one == other)
}

/// Whether the warm runners of a class register at organizations.
fn class_is_shared(survey: &Survey, class: Option<&str>) -> bool {
    survey.policy.class_named(class).registers_at_organization()
}

fn start(survey: &Survey, lacking: &mut Lacking, class: Option<&str>, live: usize) -> Start {
    let Lacking { policy, view, ready, failed, last, .. } = lacking;
    let entry = &policy.entry;
    let warm = Warm { entry: entry.id.clone(), settings: policy.settings.clone(), failed: *failed };
    // So no number is used again, even after all runners of the entry were purged.
    let first = u32::try_from(survey.nomad.now.as_second()).unwrap_or(0);
    let next = last.map_or(first, |last| last.saturating_add(1));
    let purpose = Purpose::Warm(warm);
    let namespace = survey.policy.class_named(class).namespace();
    let (attempt, name) = free_attempt(survey, namespace, &view.repository, &purpose, next);
    *last = Some(attempt);
    let (count, ready) = (entry.count, *ready);
    Start {
        repository: view.repository.clone(),
        class: class.map(str::to_owned),
        namespace: namespace.cloned(),
        labels: entry.labels.clone(),
        purpose,
        facts: JobFacts::default(),
        attempt,
        name,
        info: format!("warm={count} ready={ready} live={live}"),
        reason: StartReason::Warm { count, ready },
    }
}

/// The idle warm runners that may leave for a job or a runner that waits: not those that a job is left to.
pub(super) fn may_leave<'a>(survey: &Survey<'a>, left: &BTreeSet<String>) -> Vec<&'a Runner> {
    let is_free = |runner: &&Runner| {
        let state = match runner.state {
            // A job ends a second or two before its runner, which looks idle in between.
            RunnerState::Running => survey.idle(runner).is_some_and(|idle| idle >= super::LISTINGS_APART),
            RunnerState::Pending => true,
            _ => false,
        };
        state
            && runner.ownership == Ownership::Ours
            && survey.listed(runner).is_some()
            && !left.contains(&runner.name)
    };
    let mut idle: Vec<&Runner> = survey.warm.values().flatten().copied().filter(is_free).collect();
    idle.sort_by_key(|runner| (runner.state, Reverse(survey.idle(runner)), runner.name.as_str()));
    idle
}

#[cfg(test)]
#[path = "warm_tests.rs"]
mod tests;
