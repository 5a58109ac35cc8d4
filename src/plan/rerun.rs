//! Jobs that were lost with their runners: which are run again, and how often.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Draft, survey::Survey};
use crate::{
    config::RerunLost,
    model::{
        Action, Conclusion, Ended, HoldReason, JobStatus, Listing, Lost, Observation, Ownership,
        Registration, Rerun, RerunLimit, RerunMark, RunId, Runner, RunnerState, age, last_part,
    },
};

/// The maximum time to wait for GitHub to notice, or for a place in the budget.
const WAITS_AT_MOST: Duration = Duration::from_secs(86_400);

/// The period of `per_hour`.
const HOUR: Duration = Duration::from_secs(3600);

/// Records of re-runs are kept for this long. A job may take 5 days, and each of its re-runs counts.
const KEPT: Duration = Duration::from_secs(7 * 86_400);

/// The maximum number of old records that are deleted with each re-run.
const FORGOTTEN_AT_ONCE: usize = 10;

/// GitHub's own limit (contract github.md §8).
const RERUNS_OF_A_RUN: u32 = 50;

/// Both servers report whole seconds, and they are not read at the same instant.
const SECONDS: Duration = Duration::from_secs(2);

/// A runner that is told to stop ends its job within its `kill_timeout`, which clients limit to 30 s by default. The
/// end is reported slightly later.
const TOLD_TO_STOP: Duration = Duration::from_secs(60);

/// Re-runs of lost jobs, oldest first. Returns the runners whose re-run is undecided. The dead ones among
/// them are not purged.
pub(super) fn reruns(survey: &Survey, observation: &Observation, draft: &mut Draft) -> BTreeSet<String> {
    let mut undecided = BTreeSet::new();
    let Some(budget) = survey.policy.rerun_lost else { return undecided };
    let mut lost: Vec<(&Runner, Lost, &Ended)> = Vec::new();
    for (runner, loss) in lost_runners(survey) {
        if survey.memory.not_lost.contains(&runner.name) {
            continue;
        }
        if survey.is_busy(runner) {
            undecided.insert(runner.name.clone());
            draft.hold_runner(&runner.name, HoldReason::LostJobRuns { loss: loss.loss });
        } else if let Some(ended) = observation.ended.get(&runner.name)
            && went_with(survey, loss, ended, budget)
        {
            lost.push((runner, loss, ended));
        }
    }
    lost.sort_by_key(|(_, _, ended)| (std::cmp::Reverse(ended.ago), ended.job.id));
    let Some(marks) = &observation.reruns else {
        undecided.extend(lost.into_iter().map(|(runner, ..)| runner.name.clone()));
        return undecided;
    };
    let mut spent = Spent::new(survey, marks);
    let exhausted: BTreeSet<String> = spent.exhausted(&lost, budget);
    for (runner, loss, ended) in lost {
        let Some(view) = survey.view_of(runner).filter(|view| view.configured) else { continue };
        let repository = &view.repository;
        let is_gone =
            matches!(view.listing, Listing::Gone { .. }) || repository.archived || repository.disabled;
        if is_gone || spent.runners.contains(last_part(&runner.name)) {
            continue;
        }
        if !exhausted.contains(&runner.name) {
            undecided.insert(runner.name.clone());
        }
        // Its registration and its variable are removed first, because only one action at a time is planned
        // for a runner.
        if runner.state == RunnerState::Dead && runner.variable.is_some() {
            continue;
        }
        let run = ended.job.run_id;
        let goes_on =
            view.listing.jobs().iter().any(|job| job.run_id == run && job.status != JobStatus::Completed);
        let goes_on = goes_on.then_some(HoldReason::RunGoesOn { run });
        let limit = spent.limit(ended, budget).map(|limit| HoldReason::RerunLimit { limit });
        if let Some(reason) = limit.or(goes_on).or_else(|| survey.backoff(runner)) {
            draft.hold_runner(&runner.name, reason);
            continue;
        }
        let rerun = Rerun {
            name: runner.name.clone(),
            namespace: runner.namespace.clone(),
            repository: repository.clone(),
            class: runner.class().map(str::to_owned),
            job: ended.job.clone(),
            loss: loss.loss,
            forgets: std::mem::take(&mut spent.old),
        };
        spent.count(&rerun.mark(survey.nomad.now));
        draft.actions.push(Action::Rerun(rerun));
    }
    undecided
}

/// The lost runners, dead or disconnected, that are not lost for too long. A runner that takes several jobs may have
/// failed at one and been lost without one.
fn lost_runners<'a>(survey: &'a Survey<'a>) -> impl Iterator<Item = (&'a Runner, Lost)> {
    survey.runners.values().filter_map(|runner| {
        let is_ours = runner.ownership == Ownership::Ours && runner.registration() == Registration::Jit;
        let is_away = matches!(runner.state, RunnerState::Dead | RunnerState::Disconnected);
        let lost = runner.lost.filter(|_| is_ours && is_away)?;
        (age(survey.nomad.now, lost.at) < WAITS_AT_MOST).then_some((*runner, lost))
    })
}

/// Whether a job ended because its runner was lost. A job that failed on its own ended before the loss.
fn went_with(survey: &Survey, lost: Lost, ended: &Ended, budget: RerunLost) -> bool {
    let tells = lost.loss.tells_github();
    let fits = match ended.job.conclusion {
        Conclusion::Failure => true,
        // A user's cancellation looks the same.
        Conclusion::Cancelled => tells && budget.cancelled,
        Conclusion::Other => false,
    };
    let earlier = if tells { TOLD_TO_STOP } else { SECONDS };
    fits && ended.ago <= age(survey.nomad.now, lost.at) + earlier
}

/// The re-runs so far.
struct Spent {
    runners: BTreeSet<String>,
    by_job: BTreeMap<(RunId, String), usize>,
    in_the_last_hour: usize,
    old: Vec<RerunMark>,
}

impl Spent {
    fn new(survey: &Survey, marks: &[RerunMark]) -> Self {
        let mut spent =
            Spent { runners: BTreeSet::new(), by_job: BTreeMap::new(), in_the_last_hour: 0, old: Vec::new() };
        for mark in marks {
            let since = age(survey.nomad.now, mark.at);
            if since >= KEPT {
                spent.old.push(mark.clone());
                continue;
            }
            spent.count(mark);
            spent.in_the_last_hour -= usize::from(since >= HOUR);
        }
        spent.old.sort_by_key(|mark| mark.at);
        spent.old.truncate(FORGOTTEN_AT_ONCE);
        spent
    }

    fn count(&mut self, mark: &RerunMark) {
        self.runners.insert(mark.runner.clone());
        *self.by_job.entry((mark.run_id, mark.key.clone())).or_default() += 1;
        self.in_the_last_hour += 1;
    }

    /// The runners whose jobs may not be run again at all: no time restores these budgets.
    fn exhausted(&self, lost: &[(&Runner, Lost, &Ended)], budget: RerunLost) -> BTreeSet<String> {
        let is_exhausted = |ended: &Ended| {
            matches!(self.limit(ended, budget), Some(RerunLimit::Job(_) | RerunLimit::Run(_)))
        };
        let exhausted = lost.iter().filter(|(_, _, ended)| is_exhausted(ended));
        exhausted.map(|(runner, ..)| runner.name.clone()).collect()
    }

    /// The limit that prevents another re-run of this job now.
    fn limit(&self, ended: &Ended, budget: RerunLost) -> Option<RerunLimit> {
        let of_job = self.by_job.get(&(ended.job.run_id, ended.job.key.clone())).copied().unwrap_or(0);
        if ended.job.run_attempt > RERUNS_OF_A_RUN {
            Some(RerunLimit::Run(RERUNS_OF_A_RUN))
        } else if of_job >= budget.per_job {
            Some(RerunLimit::Job(budget.per_job))
        } else if self.in_the_last_hour >= budget.per_hour {
            Some(RerunLimit::Hour(budget.per_hour))
        } else {
            None
        }
    }
}
