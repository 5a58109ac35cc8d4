//! What a pass leaves for the next. The properties are in `specification/memory.rs`.

use std::collections::{BTreeMap, BTreeSet};

use githubrunner::model::*;
use proptest::prelude::*;

use crate::{
    cases::{Case, NOW, for_all, secs},
    specification::{Lesson, learned, memory, reports_of},
};

/// A test for each of these properties over the shared cases, whatever the outcomes of their plans.
macro_rules! tested_whatever_comes {
    ($module:ident: $($name:ident,)*) => {
        $(#[test]
        fn $name() {
            for_all_lucks($module::$name);
        })*
    };
}

/// A property over the shared cases, whatever the outcomes of their plans.
pub fn for_all_lucks(property: fn(&Lesson) -> githubrunner_specification::Checked) {
    for_all(|case, plan| (0..6).try_for_each(|luck| after_luck(case, plan, luck, property)));
}

githubrunner_specification::properties!(memory, tested_whatever_comes);

/// A property after a pass in which the actions have different outcomes: with `luck` 0 and 1 all of them succeed,
/// with runners connected or not; otherwise any outcome.
fn after_luck(
    case: &Case,
    plan: &Plan,
    luck: usize,
    property: fn(&Lesson) -> githubrunner_specification::Checked,
) -> Result<(), TestCaseError> {
    let mut at = luck * 7;
    let outcome = |action: &Action| {
        let why = || "no luck".to_owned();
        at += 5 + action.runner().len();
        match (luck, action, at % 7) {
            (0, Action::VerifyRegistration(_), _) => Outcome::Done(Done::Connected),
            (1, Action::VerifyRegistration(_), _) => Outcome::Done(Done::NotConnected),
            (0 | 1, ..) | (_, _, 0) => Outcome::Done(Done::Performed),
            (_, Action::Start(_), 1) if at.is_multiple_of(2) => Outcome::NotDone(NotDone::ReachesHost(why())),
            (_, _, 1) => Outcome::NotDone(NotDone::Rejected(why())),
            (_, _, 2) => Outcome::NotDone(NotDone::Held(why())),
            (_, _, 3) => Outcome::NotDone(NotDone::Failed(why())),
            (_, _, 4) => Outcome::Done(Done::Already),
            (
                _,
                Action::Start(_) | Action::IssueCredentials(_) | Action::CleanUp(_) | Action::Purge(_),
                _,
            ) => Outcome::NotDone(NotDone::DryRun),
            (_, Action::Rerun(_), 5) => Outcome::NotDone(NotDone::NotLost(why())),
            (_, _, 5) => Outcome::NotDone(NotDone::StillConnected),
            (..) => Outcome::NotDone(NotDone::NotListed),
        }
    };
    let reports = reports_of(plan, outcome);
    let memory = learned(&case.observation, plan, &reports, NOW);
    property(&Lesson {
        observation: &case.observation,
        plan,
        reports: &reports,
        late: 0,
        left: None,
        now: NOW,
        after: &memory,
    })
}

/// The memory after a pass in which every action has this outcome.
fn after(case: &Case, plan: &Plan, outcome: impl Fn(&Action) -> Outcome) -> Memory {
    learned(&case.observation, plan, &reports_of(plan, outcome), NOW)
}

fn done(action: &Action) -> Outcome {
    match action {
        Action::VerifyRegistration(_) => Outcome::Done(Done::Connected),
        _ => Outcome::Done(Done::Performed),
    }
}

#[test]
fn memory_contains_nothing_that_no_longer_exists() {
    for_all(|case, _| {
        let mut case = case.clone();
        let Some(nomad) = &mut case.observation.nomad else { return Ok(()) };
        // Half of the runners and a repository have disappeared since.
        nomad.runners.truncate(nomad.runners.len() / 2);
        let runners: BTreeSet<String> = nomad.runners.iter().map(|runner| runner.name.clone()).collect();
        if let Some(id) = case.observation.repositories.keys().next().copied() {
            case.observation.repositories.remove(&id);
        }
        let plan = Plan { actions: Vec::new(), ..case.plan() };
        let memory = after(&case, &plan, done);
        let names = |map: Vec<&String>| map.into_iter().all(|name| runners.contains(name));
        prop_assert!(names(memory.presence.keys().collect()));
        prop_assert!(names(memory.last_busy.keys().collect()));
        prop_assert!(names(memory.runner_backoff.keys().collect()));
        prop_assert!(names(memory.issue_backoff.keys().collect()));
        let known = |id: &RepositoryId| case.observation.repositories.contains_key(id);
        prop_assert!(memory.surplus.keys().all(known) && memory.last_start.keys().all(known));
        prop_assert!(memory.start_backoff.keys().all(|group| known(&group.repository)));
        Ok(())
    });
}

#[test]
fn a_wait_without_a_retry_is_forgotten() {
    for_all(|case, plan| {
        if case.observation.nomad.is_none() {
            return Ok(());
        }
        let mut case = case.clone();
        let runners = case.runners().len();
        for (at, backoff) in case.observation.memory.start_backoff.values_mut().enumerate() {
            backoff.until = NOW - secs(if (at + runners) % 2 == 0 { 599 } else { 600 });
        }
        let quiet = Plan { actions: Vec::new(), ..plan.clone() };
        let memory = after(&case, &quiet, done);
        prop_assert!(memory.start_backoff.values().all(|backoff| backoff.until > NOW - secs(600)));
        let recent = case.observation.memory.start_backoff.iter().filter(|(group, backoff)| {
            backoff.until > NOW - secs(600) && case.observation.repositories.contains_key(&group.repository)
        });
        prop_assert_eq!(memory.start_backoff.len(), recent.count());
        Ok(())
    });
}

/// How long the next start of its group, or of its warm entry, waits.
fn start_backoff<'a>(memory: &'a Memory, start: &Start) -> Option<&'a Backoff> {
    match start.purpose.warm() {
        Some(warm) => memory.warm_backoff.get(&warm.entry),
        None => memory.start_backoff.get(&start.group()),
    }
}

#[test]
fn the_wait_doubles_with_each_failure_and_ends_with_a_success() {
    for_all(|case, plan| {
        let mut case = case.clone();
        let mut failures: BTreeMap<String, u32> = BTreeMap::new();
        let fail = |action: &Action| match action {
            Action::Start(_) => Outcome::NotDone(NotDone::Rejected("template".to_owned())),
            _ => Outcome::NotDone(NotDone::Failed("500".to_owned())),
        };
        for _ in 0..10 {
            case.observation.memory = after(&case, plan, fail);
            for action in &plan.actions {
                let (backoff, first) = match action {
                    Action::RemoveOrphan(_) => continue,
                    Action::Start(start) => (start_backoff(&case.observation.memory, start), 30_u64),
                    Action::IssueCredentials(issue) => {
                        (case.observation.memory.issue_backoff.get(&issue.name), 5)
                    }
                    other => (case.observation.memory.runner_backoff.get(other.runner()), 5),
                };
                let times = failures.entry(action.runner().to_owned()).or_default();
                *times += 1;
                // Several starts of one group count separately, and so does an earlier failure.
                let least = first << (*times - 1).min(10);
                let wait = backoff.map(|backoff| backoff.until.since(NOW));
                let bounds = secs(least.min(600))..=secs(600);
                prop_assert!(
                    wait.is_some_and(|wait| bounds.contains(&wait)),
                    "{action}: {wait:?} after {times}"
                );
            }
        }
        case.observation.memory = after(&case, plan, done);
        let memory = &case.observation.memory;
        for action in &plan.actions {
            match action {
                Action::RemoveOrphan(_) => {}
                Action::Start(start) => prop_assert!(start_backoff(memory, start).is_none()),
                Action::IssueCredentials(issue) => {
                    prop_assert!(!memory.issue_backoff.contains_key(&issue.name))
                }
                other => prop_assert!(!memory.runner_backoff.contains_key(other.runner())),
            }
        }
        Ok(())
    });
}

#[test]
fn a_dry_run_learns_nothing_from_its_actions() {
    for_all(|case, plan| {
        let quiet = Plan { actions: Vec::new(), ..plan.clone() };
        let orphans_apart = |mut memory: Memory| {
            memory.orphans.clear();
            memory
        };
        let dry = after(case, plan, |_| Outcome::NotDone(NotDone::DryRun));
        prop_assert_eq!(orphans_apart(dry), orphans_apart(after(case, &quiet, done)));
        Ok(())
    });
}
