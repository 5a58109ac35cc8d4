//! What one pass remembers for the next.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::model::{
    Action, Backoff, Done, JobId, JobStatus, Listing, Memory, Moment, NotDone, Observation, Outcome, Plan,
    Presence, Purpose, Refusal, Report, Start, doubled,
};

/// The wait after an action's first failure. It doubles with each further failure.
const FIRST_WAIT: Duration = Duration::from_secs(5);

/// A rejected template or specification does not fix itself, so this wait starts longer.
const FIRST_WAIT_REJECTED: Duration = Duration::from_secs(30);

/// Why a Stop without GitHub's consent waits.
const NOT_LISTED: &str = "GitHub lists no runner of this name, so it may be busy";

/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// After this time, a refused start is judged again: the repository may have become private.
const JUDGED_AGAIN: Duration = LONGEST_WAIT;

/// Takes what the pass has taught into the memory. `now` is the end of the pass.
pub fn learn(memory: &mut Memory, observation: &Observation, plan: &Plan, reports: &[Report], now: Moment) {
    for (repository, names) in &plan.surplus {
        let listing = observation.repositories.get(repository).map(|view| &view.listing);
        let Some(Listing::Fresh { now, .. }) = listing else { continue };
        let before = memory.surplus.remove(repository).unwrap_or_default();
        let since = |name: &String| (name.clone(), before.get(name).copied().unwrap_or(*now));
        memory.surplus.insert(*repository, names.iter().map(since).collect());
    }
    if observation.nomad.is_some() {
        memory.orphans.retain(|orphan, _| plan.orphans.contains(orphan));
        for orphan in &plan.orphans {
            memory.orphans.entry(orphan.clone()).or_insert(now);
        }
    }
    for view in observation.repositories.values() {
        if !matches!(view.listing, Listing::Fresh { .. }) {
            continue;
        }
        for job in view.listing.jobs().iter().filter(|job| job.status == JobStatus::InProgress) {
            if let Some(runner) = &job.runner_name {
                memory.last_busy.insert(runner.clone(), now);
                memory.presence.remove(runner);
            }
        }
    }
    for job in &plan.left {
        memory.left.entry(*job).or_insert(now);
    }
    for runner in observation.nomad.iter().flat_map(|nomad| &nomad.runners) {
        if runner.warm().is_some() {
            continue;
        }
        let Some(repository) = runner.meta.repo_id else { continue };
        let last = memory.last_start.entry(repository).or_insert(runner.submitted_at);
        *last = runner.submitted_at.max(*last);
    }
    for report in reports {
        learn_outcome(memory, report, now);
    }
    if let Some(nomad) = &observation.nomad {
        forget(memory, observation, nomad.runners.iter().map(|runner| runner.name.as_str()).collect(), now);
    }
}

fn learn_outcome(memory: &mut Memory, Report { action, outcome }: &Report, now: Moment) {
    let name = action.runner();
    match outcome {
        Outcome::Done(Done::Connected) | Outcome::NotDone(NotDone::StillConnected) => {
            memory.presence.insert(name.to_owned(), Presence { checked_at: now, absent_since: None });
        }
        Outcome::Done(Done::NotConnected) | Outcome::NotDone(NotDone::NotListed) => {
            let presence = memory.presence.entry(name.to_owned());
            let presence = presence.or_insert(Presence { checked_at: now, absent_since: None });
            presence.checked_at = now;
            presence.absent_since.get_or_insert(now);
        }
        _ => {}
    }
    let error = match outcome {
        // GitHub gave no consent. Asking again at once would not change that.
        Outcome::NotDone(NotDone::NotListed) => Some(NOT_LISTED),
        other => other.error(),
    };
    match action {
        _ if outcome.is_dry_run() => {}
        Action::Start(Start { purpose: Purpose::Warm(warm), .. }) => {
            learn_warm(&mut memory.warm_backoff, &warm.entry, outcome, now);
        }
        Action::Start(start) => match outcome {
            Outcome::NotDone(NotDone::Rejected(error)) => {
                let previous = memory.start_backoff.get(&start.group());
                let backoff = longer(previous, FIRST_WAIT_REJECTED, error, now);
                memory.start_backoff.insert(start.group(), backoff);
            }
            Outcome::NotDone(NotDone::ReachesHost(why)) => {
                let refusal = Refusal { until: now + JUDGED_AGAIN, why: why.clone() };
                memory.refused.insert(start.group(), refusal);
            }
            Outcome::Done(Done::Performed | Done::Already) => {
                memory.refused.remove(&start.group());
                memory.start_backoff.remove(&start.group());
            }
            _ => {}
        },
        // The next pass shows whether it is gone.
        Action::RemoveOrphan(remove) => {
            memory.orphans.remove(&remove.orphan);
        }
        Action::Rerun(_) if matches!(outcome, Outcome::NotDone(NotDone::NotLost(_))) => {
            memory.not_lost.insert(name.to_owned());
            memory.runner_backoff.remove(name);
        }
        Action::IssueCredentials(_) => waits_after(&mut memory.issue_backoff, name, error, now),
        _ => waits_after(&mut memory.runner_backoff, name, error, now),
    }
}

/// Makes the next start of a warm entry wait after a failure that does not resolve itself.
fn learn_warm(waits: &mut BTreeMap<String, Backoff>, entry: &str, outcome: &Outcome, now: Moment) {
    let backoff = match outcome {
        Outcome::NotDone(NotDone::Rejected(error)) => {
            longer(waits.get(entry), FIRST_WAIT_REJECTED, error, now)
        }
        Outcome::NotDone(NotDone::ReachesHost(why)) => {
            Backoff { failures: 1, until: now + JUDGED_AGAIN, error: why.clone() }
        }
        Outcome::Done(_) => {
            waits.remove(entry);
            return;
        }
        Outcome::NotDone(_) => return,
    };
    waits.insert(entry.to_owned(), backoff);
}

/// Makes actions on this runner wait after an error, and no longer after a success.
fn waits_after(waits: &mut BTreeMap<String, Backoff>, name: &str, error: Option<&str>, now: Moment) {
    match error {
        Some(error) => {
            let backoff = longer(waits.get(name), FIRST_WAIT, error, now);
            waits.insert(name.to_owned(), backoff);
        }
        None => {
            waits.remove(name);
        }
    }
}

fn longer(previous: Option<&Backoff>, first: Duration, error: &str, now: Moment) -> Backoff {
    let failures = previous.map_or(0, |backoff| backoff.failures).saturating_add(1);
    let wait = doubled(first, failures - 1).min(LONGEST_WAIT);
    Backoff { failures, until: now + wait, error: error.to_owned() }
}

/// Drops entries for runners and repositories that no longer exist, so that the memory does not grow.
fn forget(memory: &mut Memory, observation: &Observation, runners: BTreeSet<&str>, now: Moment) {
    memory.presence.retain(|name, _| runners.contains(name.as_str()));
    memory.last_busy.retain(|name, _| runners.contains(name.as_str()));
    memory.not_lost.retain(|name| runners.contains(name.as_str()));
    memory.runner_backoff.retain(|name, _| runners.contains(name.as_str()));
    memory.issue_backoff.retain(|name, _| runners.contains(name.as_str()));
    memory.warm_backoff.retain(|_, backoff| now < backoff.until + LONGEST_WAIT);
    if !memory.left.is_empty() {
        let jobs = observation.repositories.values().flat_map(|view| view.listing.jobs());
        let queued = jobs.filter(|job| job.status == JobStatus::Queued).map(|job| job.id);
        let queued: BTreeSet<JobId> = queued.collect();
        memory.left.retain(|job, _| queued.contains(job));
    }
    memory.surplus.retain(|repository, _| observation.repositories.contains_key(repository));
    memory.last_start.retain(|repository, _| observation.repositories.contains_key(repository));
    memory.refused.retain(|group, refusal| {
        observation.repositories.contains_key(&group.repository) && now < refusal.until
    });
    // If it was not retried for this long, it has no job any more. Anyone who can open a pull request can
    // invent new labels forever.
    memory.start_backoff.retain(|group, backoff| {
        observation.repositories.contains_key(&group.repository) && now < backoff.until + LONGEST_WAIT
    });
}
