//! Whose turn it is, where a cap on all runners has fewer places than jobs wait.

use std::collections::BTreeMap;

use githubrunner::model::*;
use proptest::prelude::*;

use super::{
    Checked,
    facts::{Facts, group_of_job, starts},
};

/// The runners of a class or a repository that are not dead, and its last start.
type Has = (usize, Option<Timestamp>);

/// What the classes and the repositories have; the class without a name is the top level.
#[derive(Default)]
struct Shares<'a> {
    classes: BTreeMap<Option<&'a str>, Has>,
    repositories: BTreeMap<RepositoryId, Has>,
}

/// Whose turn is sooner: what has not given up a place lately, then the class with the fewest live runners, then the one whose
/// last start is longest ago, then the repository by the same two, then the oldest job.
type Turn = (bool, Has, Has, Option<Timestamp>, JobId);

fn turn(facts: &Facts, has: &Shares, id: JobId) -> Option<Turn> {
    let (view, job) = facts.jobs.get(&id)?;
    let class = facts.class_of_job(view, job).map(|class| class.name.as_str());
    let class = has.classes.get(&class).copied().unwrap_or_default();
    let repository = has.repositories.get(&view.repository.id).copied().unwrap_or_default();
    let late = facts.gave_up_its_place(&group_of_job(view, job));
    Some((late, class, repository, job.created_at, job.id))
}

/// No job gets a place while another one, that gets none for the cap on all, has its turn before it. Within the plan
/// each start counts for the next.
pub fn places_go_in_turn(facts: &Facts, plan: &Plan) -> Checked {
    if starts(plan).next().is_none() {
        return Ok(());
    }
    let held: Vec<JobId> = plan
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
    let mut has = Shares::default();
    for id in facts.observation().repositories.keys() {
        has.repositories.entry(*id).or_default().1 = facts.memory().last_start.get(id).copied();
    }
    for runner in facts.runners() {
        let class = facts.class_of(runner).map(|class| class.name.as_str());
        let repository = facts.view(runner).map(|view| view.repository.id);
        let of_repository = repository.map(|id| has.repositories.entry(id).or_default());
        for (live, last) in [has.classes.entry(class).or_default()].into_iter().chain(of_repository) {
            *live += usize::from(runner.state != RunnerState::Dead);
            *last = (*last).max(Some(runner.submitted_at));
        }
    }
    for start in starts(plan) {
        let gets = turn(facts, &has, start.job_id);
        for other in &held {
            let waits = turn(facts, &has, *other);
            prop_assert!(gets <= waits, "job {} before {}: {:?}, {:?}", start.job_id, other, gets, waits);
        }
        let of_class = has.classes.entry(start.class.as_deref()).or_default();
        for (live, last) in [of_class, has.repositories.entry(start.repository.id).or_default()] {
            *live += 1;
            *last = Some(Timestamp::MAX);
        }
    }
    Ok(())
}
