//! Whose turn it is if a cap on all runners has fewer places than there are waiting jobs.

use std::collections::BTreeMap;

use githubrunner::model::*;
use proptest::prelude::*;

use super::{
    Checked,
    facts::{Facts, Group, group_of_job, job_starts, key, starts, stops, warm_starts},
    invariants::{over_for, wait_after},
    secs,
};

/// The number of live runners of a class or a repository, and its last start.
type Has = (usize, Option<Timestamp>);

/// The shares of the classes and the repositories. The class without a name is the top level.
#[derive(Default)]
struct Shares<'a> {
    classes: BTreeMap<Option<&'a str>, Has>,
    repositories: BTreeMap<RepositoryId, Has>,
}

impl<'a> Shares<'a> {
    fn of(facts: &Facts<'a>) -> Self {
        let mut has = Shares::default();
        for id in facts.observation().repositories.keys() {
            has.repositories.entry(*id).or_default().1 = facts.memory().last_start.get(id).copied();
        }
        for runner in facts.counted().filter(|runner| facts.warm(runner).is_none()) {
            let class = facts.class_of(runner).map(|class| class.name.as_str());
            let repository = facts.view(runner).map(|view| view.repository.id);
            let of_repository = repository.map(|id| has.repositories.entry(id).or_default());
            for (live, last) in [has.classes.entry(class).or_default()].into_iter().chain(of_repository) {
                *live += usize::from(runner.state != RunnerState::Dead);
                *last = (*last).max(Some(runner.submitted_at));
            }
        }
        has
    }

    fn adds(&mut self, class: Option<&'a str>, id: RepositoryId) {
        for (live, last) in [self.classes.entry(class).or_default(), self.repositories.entry(id).or_default()]
        {
            *live += 1;
            *last = Some(Timestamp::MAX);
        }
    }
}

/// Whose turn comes first: groups that did not recently give up a place, then the class with the fewest live runners,
/// then the one whose last start is longest ago, then the repository by the same two criteria, then the oldest job.
type Turn = (bool, Has, Has, Option<Timestamp>, JobId);

fn turn(facts: &Facts, has: &Shares, id: JobId) -> Option<Turn> {
    let (view, job) = facts.jobs.get(&id)?;
    let class = facts.class_of_job(view, job).map(|class| class.name.as_str());
    let class = has.classes.get(&class).copied().unwrap_or_default();
    let repository = has.repositories.get(&view.repository.id).copied().unwrap_or_default();
    let late = facts.gave_up_its_place(&group_of_job(view, job));
    Some((late, class, repository, job.created_at, job.id))
}

/// No job gets a place while another job, held at the cap on all runners, has its turn before it. Within the plan,
/// each start counts for the next.
pub fn places_go_in_turn(facts: &Facts, plan: &Plan) -> Checked {
    if job_starts(plan).next().is_none() {
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
    let mut has = Shares::of(facts);
    for (job_id, start) in job_starts(plan) {
        let gets = turn(facts, &has, job_id);
        for other in &held {
            let waits = turn(facts, &has, *other);
            prop_assert!(gets <= waits, "job {} before {}: {:?}, {:?}", job_id, other, gets, waits);
        }
        has.adds(start.class.as_deref(), start.repository.id);
    }
    Ok(())
}

/// For this long after a listing was completed, its queued jobs can claim places.
const CLAIMS_FOR: u64 = 60;

/// Whether places are kept for a repository: nothing can start there now, and it was listed recently.
fn has_claims(facts: &Facts, view: &RepositoryView) -> bool {
    matches!(view.listing, Listing::Earlier { ended, .. } if facts.since(ended) <= secs(CLAIMS_FOR))
}

/// The jobs that would start in this plan if their repository had just been listed.
fn claims(facts: &Facts, plan: &Plan) -> Vec<JobId> {
    let mut claims = Vec::new();
    for (group, jobs) in facts.demand() {
        let view = &facts.observation().repositories[&group.0];
        let stops =
            stops(plan).any(|stop| facts.runner(&stop.name).and_then(|r| facts.group(r)) == Some(group));
        if !has_claims(facts, view) || stops || start_waits(facts, group) {
            continue;
        }
        let supply = facts.supply(group);
        let missing = jobs.len().saturating_sub(supply.len());
        let mut jobs: Vec<&WorkflowJob> = jobs
            .iter()
            .copied()
            .filter(|job| !supply.iter().any(|runner| runner.meta.job_id() == Some(job.id)))
            .filter(|job| facts.live_attempts(job.id) < 2 && !next_attempt_waits(facts, job.id))
            .filter(|job| !facts.is_held_by_its_namespace(view, job))
            .collect();
        jobs.sort_by_key(|job| (job.created_at, job.id));
        claims.extend(jobs.iter().take(missing).map(|job| job.id).filter(|id| !plan.left.contains(id)));
    }
    claims
}

/// Below a cap on all runners, a place is kept for each job whose turn is before that of the last start, although its
/// repository is only polled next.
pub fn places_are_kept_for_those_whose_turn_is_sooner(facts: &Facts, plan: &Plan) -> Checked {
    let policy = facts.policy();
    let others = policy.max_runners_per_repository.or(policy.max_runners_per_group);
    let Some(limit) = policy.max_runners.filter(|_| others.is_none() && !facts.classes_have_caps()) else {
        return Ok(());
    };
    let mut waiting: Vec<JobId> = claims(facts, plan);
    let mut starting: Vec<JobId> = job_starts(plan).map(|(job_id, _)| job_id).collect();
    if waiting.is_empty() {
        return Ok(());
    }
    let mut has = Shares::of(facts);
    let mut places = limit.saturating_sub(facts.live());
    while !starting.is_empty() {
        prop_assert!(places > 0, "no place is left for {:?}, since others come first", starting);
        let all = starting.iter().chain(&waiting).copied();
        let Some(next) = all.min_by_key(|id| turn(facts, &has, *id)) else { break };
        starting.retain(|id| *id != next);
        waiting.retain(|id| *id != next);
        let (view, job) = facts.jobs[&next];
        has.adds(facts.class_of_job(view, job).map(|class| class.name.as_str()), view.repository.id);
        places -= 1;
    }
    // Warm runners come after all jobs.
    let warm = warm_starts(plan).count();
    prop_assert!(
        warm == 0 || warm + waiting.len() <= places,
        "{} warm starts take the places of {:?}",
        warm,
        waiting
    );
    Ok(())
}

/// A job waits for another repository's turn only if that one has a claim, and a place is left.
pub fn who_waits_for_a_turn_is_told_whose(facts: &Facts, plan: &Plan) -> Checked {
    let claims = claims(facts, plan);
    for hold in &plan.holds {
        let HoldReason::Turn { cap, limit, before } = &hold.reason else { continue };
        let claims = || claims.iter().map(|id| facts.jobs[id].0);
        prop_assert!(
            claims().any(|view| view.repository.full_name() == *before),
            "{} waits for nothing",
            hold
        );
        let asked = plan.kept.iter().filter_map(|id| facts.observation().repositories.get(id));
        let asked = asked.map(|view| view.repository.full_name()).any(|name| name == *before);
        prop_assert!(asked, "{} waits, but {} is not polled next", hold, before);
        if *cap == Cap::All {
            prop_assert_eq!(facts.policy().max_runners, Some(*limit));
            prop_assert!(facts.live() + starts(plan).count() < *limit, "{}: there is no place", hold);
        }
    }
    Ok(())
}

fn start_waits(facts: &Facts, group: &Group) -> bool {
    let is_it = |other: &GroupKey| other.repository == group.0 && key(other.labels.key()) == group.1;
    facts.memory().start_backoff.iter().any(|(other, backoff)| is_it(other) && backoff.until > facts.now())
}

fn next_attempt_waits(facts: &Facts, id: JobId) -> bool {
    let Some(last) = facts.newest(id).filter(|last| !facts.is_busy(last)) else { return false };
    over_for(facts, last) < wait_after(last.meta.attempt.unwrap_or(1).into())
}
