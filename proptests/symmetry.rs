//! What does not matter: the order of the input, and the case of labels.

use githubrunner::model::*;
use proptest::prelude::*;

use crate::{
    cases::{Case, for_all, secs},
    specification::facts::{starts, stops},
};

/// A small generator for shuffles; any order will do.
struct Shuffle(u64);

impl Shuffle {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below.max(1)
    }

    fn of<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.next(at + 1));
        }
    }
}

fn jobs_of(case: &mut Case) -> impl Iterator<Item = &mut Vec<WorkflowJob>> {
    case.observation.repositories.values_mut().filter_map(|view| match &mut view.listing {
        Listing::Fresh { jobs, .. } | Listing::Earlier { jobs, .. } | Listing::Stale { jobs, .. } => {
            Some(jobs)
        }
        _ => None,
    })
}

#[test]
fn the_order_of_what_is_seen_never_matters() {
    for_all(|case, plan| {
        for seed in 0..3 {
            let mut shuffle = Shuffle(seed);
            let mut other = case.clone();
            for jobs in jobs_of(&mut other) {
                shuffle.of(jobs);
                for job in jobs.iter_mut() {
                    let mut labels = job.labels.to_vec();
                    shuffle.of(&mut labels);
                    job.labels = labels.into();
                }
            }
            if let Some(nomad) = &mut other.observation.nomad {
                shuffle.of(&mut nomad.runners);
            }
            shuffle.of(&mut other.observation.registrations);
            let again = other.plan();
            prop_assert_eq!(plan, &again);
            // Equal labels can be spelled differently.
            prop_assert_eq!(plan.to_string(), again.to_string());
        }
        Ok(())
    });
}

#[test]
fn the_case_of_labels_never_matters() {
    for_all(|case, plan| {
        let mut other = case.clone();
        // `runson_match` itself is case-sensitive, so its word keeps its case.
        let swap = |label: &str| match label.split_once("nomadtools") {
            Some((before, rest)) => format!("{before}nomadtools{}", swapped(rest)),
            None => swapped(label),
        };
        for job in jobs_of(&mut other).flatten() {
            job.labels = job.labels.iter().map(|label| swap(label)).collect();
        }
        for runner in other.observation.nomad.iter_mut().flat_map(|nomad| &mut nomad.runners) {
            let labels: Vec<String> = runner.meta.labelsstr.split(',').map(swap).collect();
            runner.meta.labelsstr = labels.join(",");
        }
        let again = other.plan();
        // `Labels` compare without case.
        prop_assert_eq!(&plan.actions, &again.actions);
        prop_assert_eq!(&plan.surplus, &again.surplus);
        let about = |plan: &Plan| -> Vec<String> {
            let mut holds: Vec<String> = plan.holds.iter().map(|h| h.to_string().to_lowercase()).collect();
            holds.sort();
            holds
        };
        prop_assert_eq!(about(plan), about(&again));
        Ok(())
    });
}

fn swapped(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_ascii_uppercase() { c.to_ascii_lowercase() } else { c.to_ascii_uppercase() })
        .collect()
}

/// Without a cap on all runners, one repository does not affect another.
#[test]
fn repositories_are_planned_independently() {
    for_all(|case, _| {
        // Caps and making room connect repositories.
        let mut case = case.clone();
        case.policy.max_runners = None;
        case.policy.classes.clear();
        case.policy.pending_to_kill_listening = None;
        // So do warm runners.
        case.policy.warm.clear();
        for runner in case.observation.nomad.iter_mut().flat_map(|nomad| &mut nomad.runners) {
            runner.meta.purpose = runner.meta.job_id().map(Purpose::Job);
        }
        for limit in [
            &mut case.policy.waiting_timeout,
            &mut case.policy.starting_timeout,
            &mut case.policy.connect_timeout,
            &mut case.policy.unassigned_timeout,
        ] {
            *limit = secs(1_000_000);
        }
        if case.observation.nomad.is_none() {
            return Ok(());
        }
        let all = case.plan();
        let mut started = Vec::new();
        let mut stopped = Vec::new();
        for view in case.observation.repositories.values() {
            let mut alone = case.clone();
            alone.observation.repositories.retain(|id, _| *id == view.repository.id);
            // A job in progress can name any runner.
            let elsewhere = case
                .observation
                .repositories
                .values()
                .filter(|other| other.repository.id != view.repository.id)
                .flat_map(|other| other.listing.jobs())
                .any(|job| job.status == JobStatus::InProgress && job.runner_name.is_some());
            if elsewhere {
                return Ok(());
            }
            let plan = alone.plan();
            started.extend(starts(&plan).map(|start| start.name.clone()));
            stopped.extend(stops(&plan).map(|stop| stop.name.clone()));
        }
        let sorted = |mut names: Vec<String>| {
            names.sort();
            names
        };
        prop_assert_eq!(sorted(starts(&all).map(|start| start.name.clone()).collect()), sorted(started));
        prop_assert_eq!(sorted(stops(&all).map(|stop| stop.name.clone()).collect()), sorted(stopped));
        Ok(())
    });
}
