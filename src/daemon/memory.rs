//! What one pass leaves for the next.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    apply::{Outcome, Report},
    model::{
        Action, Backoff, JobStatus, Listing, Memory, Moment, Observation, Plan, Presence, RepositoryId,
        RepositoryView,
    },
};

/// A runner is surplus in two listings if they are no closer together. Whoever ends looks idle for a second or two: a job
/// is over before its runner is.
pub const LISTINGS_APART: Duration = Duration::from_secs(5);

/// After a first failure an action waits so long, and each further time twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(5);

/// A rejected template or specification does not mend by itself: it starts slower.
const FIRST_WAIT_REJECTED: Duration = Duration::from_secs(30);

/// Why a Stop without an answer waits.
const NOT_LISTED: &str = "GitHub lists no runner of this name, so it may be busy";

/// No action waits longer.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// Takes what the pass has taught into the memory. `now` is the end of the pass.
pub fn learn(memory: &mut Memory, observation: &Observation, plan: &Plan, reports: &[Report], now: Moment) {
    for (repository, names) in &plan.surplus {
        memory.surplus.insert(*repository, names.clone());
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
    for runner in observation.nomad.iter().flat_map(|nomad| &nomad.runners) {
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

/// Since when each runner of a surplus has been one, listing after listing.
pub(super) fn surplus_since(
    memory: &Memory,
    before: &BTreeMap<String, Moment>,
    now: Moment,
) -> BTreeMap<String, Moment> {
    let names = memory.surplus.values().flatten();
    names.map(|name| (name.clone(), before.get(name).copied().unwrap_or(now))).collect()
}

/// Forgets what was surplus for less than [`LISTINGS_APART`] where GitHub was just listed: hints bring two listings so
/// close together that both see the same moment.
pub(super) fn forget_recent_surplus(
    memory: &mut Memory,
    since: &BTreeMap<String, Moment>,
    repositories: &BTreeMap<RepositoryId, RepositoryView>,
    now: Moment,
) {
    for (repository, names) in &mut memory.surplus {
        let listing = repositories.get(repository).map(|view| &view.listing);
        if matches!(listing, Some(Listing::Fresh { complete: true, .. })) {
            let is_old = |name: &String| {
                since.get(name).is_some_and(|since| now.saturating_sub(*since) >= LISTINGS_APART)
            };
            names.retain(is_old);
        }
    }
}

fn learn_outcome(memory: &mut Memory, Report { action, outcome }: &Report, now: Moment) {
    let name = action.runner();
    match outcome {
        Outcome::Present => {
            memory.presence.insert(name.to_owned(), Presence { checked_at: now, absent_since: None });
        }
        Outcome::Absent => {
            let presence = memory.presence.entry(name.to_owned());
            let presence = presence.or_insert(Presence { checked_at: now, absent_since: None });
            presence.checked_at = now;
            presence.absent_since.get_or_insert(now);
        }
        _ => {}
    }
    match (action, outcome) {
        (_, Outcome::DryRun) => {}
        (Action::Start(start), Outcome::Rejected(error)) => {
            let previous = memory.start_backoff.get(&start.group());
            let backoff = longer(previous, FIRST_WAIT_REJECTED, error, now);
            memory.start_backoff.insert(start.group(), backoff);
        }
        (Action::Start(start), Outcome::Done | Outcome::AlreadyDone) => {
            memory.start_backoff.remove(&start.group());
        }
        (Action::Start(_), _) => {}
        // It is seen again, or not.
        (Action::RemoveOrphan(remove), _) => {
            memory.orphans.remove(&remove.orphan);
        }
        // Nobody gave consent; asking at once again changes nothing.
        (Action::Stop(_), Outcome::Absent) => back_off(&mut memory.runner_backoff, name, NOT_LISTED, now),
        (Action::Mint(_), Outcome::Failed(error) | Outcome::Rejected(error) | Outcome::Held(error)) => {
            back_off(&mut memory.mint_backoff, name, error, now);
        }
        (Action::Mint(_), _) => {
            memory.mint_backoff.remove(name);
        }
        (_, Outcome::Failed(error) | Outcome::Rejected(error) | Outcome::Held(error)) => {
            back_off(&mut memory.runner_backoff, name, error, now);
        }
        _ => {
            memory.runner_backoff.remove(name);
        }
    }
}

/// Actions on this runner wait.
fn back_off(waits: &mut BTreeMap<String, Backoff>, name: &str, error: &str, now: Moment) {
    let backoff = longer(waits.get(name), FIRST_WAIT, error, now);
    waits.insert(name.to_owned(), backoff);
}

fn longer(previous: Option<&Backoff>, first: Duration, error: &str, now: Moment) -> Backoff {
    let failures = previous.map_or(0, |backoff| backoff.failures).saturating_add(1);
    let wait = first.saturating_mul(1 << (failures - 1).min(16)).min(LONGEST_WAIT);
    Backoff { failures, until: now + wait, error: error.to_owned() }
}

/// Drops what is about runners and repositories that are no more, so that memory does not grow.
fn forget(memory: &mut Memory, observation: &Observation, runners: BTreeSet<&str>, now: Moment) {
    memory.presence.retain(|name, _| runners.contains(name.as_str()));
    memory.last_busy.retain(|name, _| runners.contains(name.as_str()));
    memory.runner_backoff.retain(|name, _| runners.contains(name.as_str()));
    memory.mint_backoff.retain(|name, _| runners.contains(name.as_str()));
    memory.surplus.retain(|repository, _| observation.repositories.contains_key(repository));
    memory.last_start.retain(|repository, _| observation.repositories.contains_key(repository));
    // What was not tried again for so long has no job any more; anyone who can open a pull request can think
    // of new labels for ever.
    memory.start_backoff.retain(|group, backoff| {
        observation.repositories.contains_key(&group.repository) && now < backoff.until + LONGEST_WAIT
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Repository, Timestamp};

    fn views(complete: bool) -> BTreeMap<RepositoryId, RepositoryView> {
        let repository = Repository {
            id: RepositoryId(7),
            owner: "o".into(),
            name: "r".into(),
            html_url: String::new(),
            archived: false,
            disabled: false,
        };
        let listing = Listing::Fresh { now: Timestamp::UNIX_EPOCH, jobs: Vec::new(), complete };
        BTreeMap::from([(
            RepositoryId(7),
            RepositoryView { repository, configured: true, listing, missing: None },
        )])
    }

    #[test]
    fn surplus_counts_from_one_listing_to_one_five_seconds_later_whatever_is_listed_between() {
        let seconds = Duration::from_secs;
        let mut memory = Memory::default();
        let surplus = |names: &[&str]| {
            BTreeMap::from([(RepositoryId(7), names.iter().map(|name| (*name).to_owned()).collect())])
        };
        let old = |memory: &Memory, since: &BTreeMap<String, Moment>, complete, now| -> Vec<String> {
            let mut seen = memory.clone();
            forget_recent_surplus(&mut seen, since, &views(complete), now);
            seen.surplus.into_values().flatten().collect()
        };
        memory.surplus = surplus(&["a", "b"]);
        let since = surplus_since(&memory, &BTreeMap::new(), seconds(100));
        assert!(old(&memory, &since, true, seconds(104)).is_empty());
        // In a listing between, one of them was needed.
        memory.surplus = surplus(&["a"]);
        let since = surplus_since(&memory, &since, seconds(102));
        memory.surplus = surplus(&["a", "b"]);
        let since = surplus_since(&memory, &since, seconds(104));
        assert_eq!(old(&memory, &since, true, seconds(105)), ["a"]);
        assert_eq!(old(&memory, &since, true, seconds(109)), ["a", "b"]);
        // What was not listed whole is remembered as it was.
        assert_eq!(old(&memory, &since, false, seconds(104)), ["a", "b"]);
        memory.surplus.clear();
        assert!(surplus_since(&memory, &since, seconds(110)).is_empty());
    }
}
