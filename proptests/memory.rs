//! What a pass leaves for the next.

use std::collections::{BTreeMap, BTreeSet};

use githubrunner::{
    apply::{Outcome, Report},
    daemon::learn,
    model::*,
};
use proptest::prelude::*;

use crate::{
    cases::{Case, NOW, for_all, secs},
    facts::stops,
};

/// The memory after a pass in which every action ends in this way.
fn after(case: &Case, plan: &Plan, outcome: impl Fn(&Action) -> Outcome) -> Memory {
    let reports: Vec<Report> = plan
        .actions
        .iter()
        .map(|action| Report { action: action.clone(), outcome: outcome(action) })
        .collect();
    let mut memory = case.observation.memory.clone();
    learn(&mut memory, &case.observation, plan, &reports, NOW);
    memory
}

fn done(action: &Action) -> Outcome {
    match action {
        Action::LookUp(_) => Outcome::Present,
        _ => Outcome::Done,
    }
}

#[test]
fn memory_holds_nothing_of_what_is_no_more() {
    for_all(|case, _| {
        let mut case = case.clone();
        let Some(nomad) = &mut case.observation.nomad else { return Ok(()) };
        // Half of the runners and a repository are gone since.
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
        let known = |id: &RepositoryId| case.observation.repositories.contains_key(id);
        prop_assert!(memory.surplus.keys().all(known) && memory.last_start.keys().all(known));
        prop_assert!(memory.start_backoff.keys().all(|group| known(&group.repository)));
        Ok(())
    });
}

#[test]
fn a_wait_that_nobody_took_up_is_forgotten() {
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

#[test]
fn failures_wait_twice_as_long_each_time_and_success_ends_that() {
    for_all(|case, plan| {
        let mut case = case.clone();
        let mut failures: BTreeMap<String, u32> = BTreeMap::new();
        let fail = |action: &Action| match action {
            Action::Start(_) => Outcome::Rejected("template".to_owned()),
            _ => Outcome::Failed("500".to_owned()),
        };
        for _ in 0..10 {
            case.observation.memory = after(&case, plan, fail);
            for action in &plan.actions {
                let (backoff, first) = match action {
                    Action::RemoveOrphan(_) => continue,
                    Action::Start(start) => {
                        (case.observation.memory.start_backoff.get(&start.group()), 30_u64)
                    }
                    other => (case.observation.memory.runner_backoff.get(other.runner()), 5),
                };
                let times = failures.entry(action.runner().to_owned()).or_default();
                *times += 1;
                // Several starts of one group count as often; what failed before counts too.
                let least = first << (*times - 1).min(10);
                let wait = backoff.map(|backoff| backoff.until - NOW);
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
                Action::Start(start) => prop_assert!(!memory.start_backoff.contains_key(&start.group())),
                other => prop_assert!(!memory.runner_backoff.contains_key(other.runner())),
            }
        }
        Ok(())
    });
}

#[test]
fn a_stop_that_nobody_can_answer_for_waits() {
    for_all(|case, plan| {
        let memory = after(case, plan, |action| match action {
            Action::Stop(_) => Outcome::Absent,
            action => done(action),
        });
        for stop in stops(plan) {
            let wait = memory.runner_backoff.get(&stop.name).map(|backoff| backoff.until - NOW);
            prop_assert!(wait.is_some_and(|wait| wait >= secs(5)), "{}: {wait:?}", stop.name);
        }
        Ok(())
    });
}

#[test]
fn absence_counts_from_its_first_sight_and_a_sign_of_life_ends_it() {
    for_all(|case, plan| {
        let absent = |action: &Action| match action {
            Action::LookUp(_) => Outcome::Absent,
            _ => Outcome::Done,
        };
        let before = &case.observation.memory.presence;
        let (gone, there) = (after(case, plan, absent), after(case, plan, done));
        for action in &plan.actions {
            let Action::LookUp(look_up) = action else { continue };
            let since = before.get(&look_up.name).and_then(|presence| presence.absent_since).unwrap_or(NOW);
            let expected = Presence { checked_at: NOW, absent_since: Some(since) };
            prop_assert_eq!(gone.presence.get(&look_up.name), Some(&expected));
            let expected = Presence { checked_at: NOW, absent_since: None };
            prop_assert_eq!(there.presence.get(&look_up.name), Some(&expected));
        }
        for view in case.observation.repositories.values() {
            let Listing::Fresh { jobs, .. } = &view.listing else { continue };
            for job in jobs.iter().filter(|job| job.status == JobStatus::InProgress) {
                let Some(name) = &job.runner_name else { continue };
                prop_assert!(!there.presence.contains_key(name), "{name} works, so GitHub knows it");
                if case.runners().iter().any(|runner| runner.name == *name) {
                    prop_assert_eq!(there.last_busy.get(name), Some(&NOW));
                }
            }
        }
        Ok(())
    });
}

#[test]
fn the_surplus_is_that_of_the_last_complete_listing_and_starts_are_the_latest() {
    for_all(|case, plan| {
        let memory = after(case, plan, done);
        let Some(nomad) = &case.observation.nomad else { return Ok(()) };
        for (id, view) in &case.observation.repositories {
            let complete = matches!(view.listing, Listing::Fresh { complete: true, .. });
            let before = case.observation.memory.surplus.get(id);
            let expected = if complete { plan.surplus.get(id) } else { before };
            prop_assert_eq!(memory.surplus.get(id), expected);
            let seen =
                nomad.runners.iter().filter(|r| r.meta.repo_id == Some(*id)).map(|r| r.submitted_at).max();
            let last = case.observation.memory.last_start.get(id).copied().max(seen);
            prop_assert_eq!(memory.last_start.get(id).copied(), last);
        }
        Ok(())
    });
}

/// Since when something is alone: from the first pass in a row that saw it so.
#[test]
fn an_orphan_counts_from_the_first_pass_that_saw_it() {
    for_all(|case, plan| {
        let quiet = Plan { actions: Vec::new(), ..plan.clone() };
        let memory = after(case, &quiet, done);
        if case.observation.nomad.is_none() {
            prop_assert_eq!(&memory.orphans, &case.observation.memory.orphans);
            return Ok(());
        }
        let before = &case.observation.memory.orphans;
        let expected: BTreeMap<Orphan, Moment> = plan
            .orphans
            .iter()
            .map(|orphan| (orphan.clone(), before.get(orphan).copied().unwrap_or(NOW)))
            .collect();
        prop_assert_eq!(memory.orphans, expected);
        Ok(())
    });
}

#[test]
fn a_dry_run_teaches_nothing_of_its_actions() {
    for_all(|case, plan| {
        let quiet = Plan { actions: Vec::new(), ..plan.clone() };
        let orphans_apart = |mut memory: Memory| {
            memory.orphans.clear();
            memory
        };
        let dry = after(case, plan, |_| Outcome::DryRun);
        prop_assert_eq!(orphans_apart(dry), orphans_apart(after(case, &quiet, done)));
        Ok(())
    });
}
