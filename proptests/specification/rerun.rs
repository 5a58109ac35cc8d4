//! Jobs that were lost with their runners: which are run again, and how often.

use std::collections::BTreeMap;

use githubrunner::{config::RerunLost, model::*};
use proptest::prelude::*;

use super::{
    Checked,
    facts::{Facts, runner_holds},
    secs,
};

const DAY: u64 = 86_400;

fn reruns(plan: &Plan) -> impl Iterator<Item = &Rerun> {
    plan.actions.iter().filter_map(|action| match action {
        Action::Rerun(rerun) => Some(rerun),
        _ => None,
    })
}

/// The marks that count, by run and job.
fn marks<'a>(facts: &Facts<'a>) -> &'a [RerunMark] {
    facts.observation().reruns.as_deref().unwrap_or_default()
}

fn counts(facts: &Facts, mark: &RerunMark) -> bool {
    facts.age(mark.at) < secs(7 * DAY)
}

/// The job that a dead runner was lost with, if GitHub says that it ended with it.
fn lost_with<'a>(facts: &Facts<'a>, runner: &Runner, budget: RerunLost) -> Option<(&'a Ended, Loss)> {
    if facts.memory().not_lost.contains(&runner.name) {
        return None;
    }
    let ended = facts.observation().ended.get(&runner.name)?;
    let lost = runner.lost?;
    let is_told = matches!(lost.loss, Loss::Drain | Loss::Preemption);
    let since = facts.age(lost.at);
    let fits = match ended.job.conclusion {
        Conclusion::Failure => true,
        Conclusion::Cancelled => is_told && budget.cancelled,
        Conclusion::Other => false,
    };
    // A job that failed on its own ended before the loss.
    let in_time = ended.ago <= since + secs(if is_told { 60 } else { 2 });
    let is_ours = facts.ours(runner) && runner.registration() == Registration::Jit;
    let is_away = matches!(runner.state, RunnerState::Dead | RunnerState::Disconnected);
    let is_away = is_away && is_ours && since < secs(DAY) && !facts.is_busy(runner);
    (fits && in_time && is_away).then_some((ended, lost.loss))
}

/// Jobs that failed on their own, were cancelled, or whose runner someone stopped are never run again.
pub fn only_what_was_lost_is_run_again(facts: &Facts, plan: &Plan) -> Checked {
    for rerun in reruns(plan) {
        let runner = facts.runner_of(&rerun.name)?;
        let budget = facts.policy().rerun_lost;
        prop_assert!(budget.is_some(), "re-runs are off");
        let lost = lost_with(facts, runner, budget.unwrap_or_default());
        prop_assert!(lost.is_some(), "{} was not lost with job {}", rerun.name, rerun.job.id);
        prop_assert_eq!(lost.map(|(ended, loss)| (&ended.job, loss)), Some((&rerun.job, rerun.loss)));
        prop_assert!(!is_cleaned_first(runner), "{} has its variable still", rerun.name);
        prop_assert!(facts.observation().reruns.is_some(), "nobody knows what was run again");
        prop_assert!(!facts.waits_after_failure(&rerun.name), "{} so soon", rerun.name);
        let view = facts.view(runner);
        prop_assert!(view.is_some_and(|view| facts.takes_jobs(view) && !facts.is_gone(runner)));
        prop_assert_eq!(view.map(|view| view.repository.id), Some(rerun.repository.id));
        let goes_on =
            |job: &&WorkflowJob| job.run_id == rerun.job.run_id && job.status != JobStatus::Completed;
        let goes_on = view.and_then(|view| view.listing.jobs().iter().find(goes_on));
        prop_assert!(goes_on.is_none(), "run {} goes on", rerun.job.run_id);
    }
    Ok(())
}

/// A loss is handled once per runner, whatever ID the job has by now.
pub fn a_loss_is_made_good_once(facts: &Facts, plan: &Plan) -> Checked {
    let mut seen: Vec<&str> =
        marks(facts).iter().filter(|mark| counts(facts, mark)).map(|mark| mark.runner.as_str()).collect();
    for rerun in reruns(plan) {
        let runner = last_part(&rerun.name);
        prop_assert!(!seen.contains(&runner), "{} is made good twice", rerun.name);
        seen.push(runner);
    }
    Ok(())
}

pub fn lost_jobs_are_run_again_within_the_budgets(facts: &Facts, plan: &Plan) -> Checked {
    let Some(budget) = facts.policy().rerun_lost else { return Ok(()) };
    let mut by_job: BTreeMap<(RunId, &str), usize> = BTreeMap::new();
    for mark in marks(facts).iter().filter(|mark| counts(facts, mark)) {
        *by_job.entry((mark.run_id, &mark.key)).or_default() += 1;
    }
    let hour = marks(facts).iter().filter(|mark| facts.age(mark.at) < secs(3600)).count();
    for (hour, rerun) in (hour..).zip(reruns(plan)) {
        let of_job = by_job.entry((rerun.job.run_id, &rerun.job.key)).or_default();
        prop_assert!(*of_job < budget.per_job, "{} of job {}", of_job, rerun.job.id);
        prop_assert!(hour < budget.per_hour, "{hour} in the last hour");
        prop_assert!(rerun.job.run_attempt <= 50, "GitHub refuses that");
        *of_job += 1;
    }
    Ok(())
}

/// Only one action at a time is planned for a runner.
fn is_cleaned_first(runner: &Runner) -> bool {
    runner.state == RunnerState::Dead && runner.variable.is_some()
}

fn is_marked(facts: &Facts, runner: &Runner) -> bool {
    marks(facts).iter().any(|mark| counts(facts, mark) && mark.runner == last_part(&runner.name))
}

/// Whether its job may still be run again.
pub fn is_undecided(facts: &Facts, runner: &Runner) -> bool {
    let Some(budget) = facts.policy().rerun_lost else { return false };
    if facts.memory().not_lost.contains(&runner.name) {
        return false;
    }
    let is_ours = facts.ours(runner) && runner.registration() == Registration::Jit;
    let is_dead = runner.state == RunnerState::Dead && is_ours;
    let is_lost = runner.lost.is_some_and(|lost| facts.age(lost.at) < secs(DAY)) && is_dead;
    let takes = facts.view(runner).is_some_and(|view| facts.takes_jobs(view)) && !facts.is_gone(runner);
    // Without the marks, nobody knows.
    let is_open = |ended: &Ended| {
        facts.observation().reruns.is_none()
            || takes && !is_marked(facts, runner) && !is_exhausted(facts, ended, budget)
    };
    let may_be_run_again = lost_with(facts, runner, budget).is_some_and(|(ended, _)| is_open(ended));
    is_lost && (facts.is_busy(runner) || may_be_run_again)
}

/// Whether a job has been run again as often as it may be. No time changes that.
fn is_exhausted(facts: &Facts, ended: &Ended, budget: RerunLost) -> bool {
    let is_of_it = |mark: &&RerunMark| mark.run_id == ended.job.run_id && mark.key == ended.job.key;
    let of_job = marks(facts).iter().filter(|mark| counts(facts, mark)).filter(is_of_it).count();
    of_job >= budget.per_job || ended.job.run_attempt > 50
}

/// Until this is decided, the dead runner's job stays, because it is the record of the loss.
pub fn what_was_lost_is_run_again_or_it_is_said_why_not(facts: &Facts, plan: &Plan) -> Checked {
    let Some(budget) = facts.policy().rerun_lost else { return Ok(()) };
    for runner in facts.runners() {
        let Some((ended, _)) = lost_with(facts, runner, budget) else { continue };
        if facts.observation().reruns.is_none() {
            continue;
        }
        let takes = facts.view(runner).is_some_and(|view| facts.takes_jobs(view)) && !facts.is_gone(runner);
        if is_marked(facts, runner) || !takes {
            continue;
        }
        let planned = reruns(plan).any(|rerun| rerun.name == runner.name);
        let waits = is_cleaned_first(runner) || runner_holds(plan, &runner.name).next().is_some();
        prop_assert!(planned || waits, "{} was lost with a job, and nobody says a word", runner.name);
        let purged =
            plan.actions.iter().any(|action| matches!(action, Action::Purge(p) if p.name == runner.name));
        let may_be_purged = is_exhausted(facts, ended, budget);
        prop_assert!(!purged || may_be_purged, "{} is purged before its job is run again", runner.name);
    }
    Ok(())
}

pub fn what_says_of_a_rerun_is_forgotten_after_a_week(facts: &Facts, plan: &Plan) -> Checked {
    let mut seen = Vec::new();
    for mark in reruns(plan).flat_map(|rerun| &rerun.forgets) {
        prop_assert!(!counts(facts, mark), "{} counts still", mark.name());
        prop_assert!(marks(facts).contains(mark) && !seen.contains(&mark), "{}", mark.name());
        seen.push(mark);
    }
    Ok(())
}
