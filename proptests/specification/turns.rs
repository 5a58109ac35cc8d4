//! Whose turn it is, where a cap on all runners has fewer places than jobs wait.

use std::collections::BTreeMap;

use githubrunner::model::*;
use proptest::prelude::*;

use super::{
    Checked,
    facts::{Facts, group_of_job, starts},
};

/// A repository's runners that are not dead, and its last start.
type Has = (usize, Option<Timestamp>);

/// Whose turn is sooner: what has not given up a place lately, then the repository with the fewest live runners, then the one whose
/// last start is longest ago, then the oldest job.
type Turn = (bool, usize, Option<Timestamp>, Option<Timestamp>, u64);

fn turn(facts: &Facts, has: &BTreeMap<RepositoryId, Has>, id: u64) -> Option<Turn> {
    let (view, job) = facts.jobs.get(&id)?;
    let (live, last) = has.get(&view.repository.id).copied().unwrap_or_default();
    let late = facts.gave_up_its_place(&group_of_job(view, job));
    Some((late, live, last, job.created_at, job.id))
}

/// No job gets a place while another one, that gets none for the cap on all, has its turn before it. Within the plan
/// each start counts for the next.
pub fn places_go_in_turn(facts: &Facts, plan: &Plan) -> Checked {
    if starts(plan).next().is_none() {
        return Ok(());
    }
    let held: Vec<u64> = plan
        .holds
        .iter()
        .filter(|hold| matches!(hold.reason, HoldReason::Cap { cap: Cap::All, .. }))
        .filter_map(|hold| match hold.subject {
            Subject::Job { id, .. } => Some(id),
            _ => None,
        })
        .collect();
    if held.is_empty() {
        return Ok(());
    }
    let mut has: BTreeMap<RepositoryId, Has> = BTreeMap::new();
    for id in facts.observation().repositories.keys() {
        has.entry(*id).or_default().1 = facts.memory().last_start.get(id).copied();
    }
    for runner in facts.runners() {
        let Some(view) = facts.view(runner) else { continue };
        let (live, last) = has.entry(view.repository.id).or_default();
        *live += usize::from(runner.state != RunnerState::Dead);
        *last = (*last).max(Some(runner.submitted_at));
    }
    for start in starts(plan) {
        let gets = turn(facts, &has, start.cause);
        for other in &held {
            let waits = turn(facts, &has, *other);
            prop_assert!(gets <= waits, "job {} before {}: {:?}, {:?}", start.cause, other, gets, waits);
        }
        let (live, last) = has.entry(start.repository.id).or_default();
        *live += 1;
        *last = Some(Timestamp::MAX);
    }
    Ok(())
}
