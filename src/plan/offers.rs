//! Jobs that are left to idle warm runners.

use std::{collections::BTreeMap, time::Duration};

use super::{Draft, survey::Survey};
use crate::model::{GroupKey, JobId, Labels, RepositoryView, Runner, RunnerState};

/// A job is left to warm runners for at most this long. GitHub assigns one within seconds.
pub const LEFT_AT_MOST: Duration = Duration::from_secs(60);

/// The jobs that are left to idle warm runners: each to one runner, the oldest first. GitHub gives a runner any job whose
/// labels are a subset of its own.
pub(super) fn left<'a>(
    survey: &Survey<'a>,
    jobs: impl Iterator<Item = (JobId, &'a GroupKey)>,
    draft: &Draft,
) -> BTreeMap<JobId, &'a Runner> {
    let mut left = BTreeMap::new();
    let mut free: Vec<(&Runner, Labels)> = survey
        .warm
        .values()
        .flatten()
        .filter(|runner| is_idle(survey, runner) && !draft.stopping.contains(&runner.name))
        .map(|runner| (*runner, survey.labels_of(runner)))
        .collect();
    // The one with the fewest labels is of the least use to other jobs.
    free.sort_by_key(|(runner, labels)| (labels.len(), runner.name.as_str()));
    let too_long: Vec<&GroupKey> = left_for_too_long(survey).collect();
    for (job, key) in jobs {
        // What GitHub has not done for one job of a repository, it will not do for the next.
        let is_passed_over = |runner: &Runner| {
            let mut passed = too_long.iter().filter(|other| other.repository == key.repository);
            passed.any(|other| takes(survey, runner, other))
        };
        let fits = |(runner, labels): &(&Runner, Labels)| {
            key.labels.is_subset(labels) && takes(survey, runner, key) && !is_passed_over(runner)
        };
        if let Some(at) = free.iter().position(fits) {
            let (runner, _) = free.remove(at);
            left.insert(job, runner);
        }
    }
    left
}

/// Whether it runs, and GitHub can give it a job.
fn is_idle(survey: &Survey, runner: &Runner) -> bool {
    runner.state == RunnerState::Running && survey.supplies(runner)
}

/// Whether GitHub can give a warm runner the jobs of this group.
pub(super) fn takes(survey: &Survey, runner: &Runner, group: &GroupKey) -> bool {
    let Some(own) = survey.view_of(runner) else { return false };
    let covers = || {
        let other = survey.repositories.get(&group.repository);
        let same_owner =
            |other: &RepositoryView| other.repository.owner.eq_ignore_ascii_case(&own.repository.owner);
        survey.class_of(runner).registers_at_organization() && other.is_some_and(same_owner)
    };
    (own.repository.id == group.repository || covers()) && group.labels.is_subset(&survey.labels_of(runner))
}

/// The groups with a queued job that GitHub has not given to a warm runner in time.
fn left_for_too_long<'a>(survey: &'a Survey) -> impl Iterator<Item = &'a GroupKey> {
    let is_too_long = |job: &JobId| {
        let since = survey.memory.left.get(job);
        since.is_some_and(|since| survey.now.since(*since) >= LEFT_AT_MOST)
    };
    let groups = survey.groups.iter().filter(|_| !survey.memory.left.is_empty());
    groups.filter(move |(_, group)| group.demand.iter().any(|job| is_too_long(&job.id))).map(|(key, _)| key)
}

/// How long a warm runner has been idle, if GitHub has not given it a job that was left to it.
pub(super) fn passed_over(survey: &Survey, runner: &Runner) -> Option<Duration> {
    runner.warm()?;
    let idle = survey.idle(runner).filter(|idle| *idle >= LEFT_AT_MOST && survey.supplies(runner))?;
    let is_passed_over = left_for_too_long(survey).any(|key| takes(survey, runner, key));
    is_passed_over.then_some(idle)
}

/// Whether a job that a warm runner could take is queued.
pub(super) fn has_demand(survey: &Survey, runner: &Runner) -> bool {
    survey.groups.iter().any(|(key, group)| !group.demand.is_empty() && takes(survey, runner, key))
}
