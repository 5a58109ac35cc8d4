//! The unsuccessful jobs. A lost runner may have had one of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use super::Daemon;
use crate::model::{
    Action, Conclusion, Ended, EndedJob, Moment, NomadView, RepositoryRef, RerunMark, Runner, RunnerState,
    Timestamp, Unobserved, age,
};

/// The maximum number of jobs. Further ones are forgotten.
const AT_MOST: usize = 10_000;

/// The maximum number of jobs requested in one pass.
const ASKED_AT_ONCE: usize = 5;

/// The maximum time for these requests in one pass.
const ASKS_FOR: Duration = Duration::from_secs(5);

/// What is known of these jobs.
#[derive(Default)]
pub(super) struct LostJobs {
    /// By runner: its job, how long ago it had ended when it was listed, and when that was.
    jobs: BTreeMap<String, (Ended, Moment)>,
    /// The lost runners whose own jobs have been requested: jobs that ended before this process started are in no list.
    requested: BTreeSet<String>,
}

impl LostJobs {
    /// The number of known jobs.
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Stores the results of a pass. `now` is GitHub's clock, `at` ours.
    pub fn note(&mut self, jobs: &[EndedJob], now: Timestamp, at: Moment) {
        for job in jobs.iter().filter(|job| job.conclusion != Conclusion::Other) {
            if self.jobs.len() >= AT_MOST {
                return;
            }
            let ended = Ended { job: job.clone(), ago: age(now, job.completed_at) };
            self.jobs.insert(job.runner.clone(), (ended, at));
        }
    }

    /// Forgets the jobs whose runner is gone.
    pub fn keep(&mut self, nomad: &NomadView) {
        if self.jobs.is_empty() && self.requested.is_empty() {
            return;
        }
        let runners: BTreeSet<&str> = nomad.runners.iter().map(|runner| runner.name.as_str()).collect();
        self.jobs.retain(|runner, _| runners.contains(runner.as_str()));
        self.requested.retain(|runner| runners.contains(runner.as_str()));
    }

    /// All of them, with their ages now.
    pub fn seen(&self, now: Moment) -> BTreeMap<String, Ended> {
        let aged = |(name, (ended, at)): (&String, &(Ended, Moment))| {
            let ago = ended.ago + now.since(*at);
            (name.clone(), Ended { job: ended.job.clone(), ago })
        };
        self.jobs.iter().map(aged).collect()
    }
}

fn is_away(runner: &Runner) -> bool {
    matches!(runner.state, RunnerState::Dead | RunnerState::Disconnected) && runner.lost.is_some()
}

impl Daemon {
    /// Requests the jobs for which lost runners were started, each once, because they may have ended before this
    /// process started. In most cases, the runner had that job. Another one is not found this way.
    pub(super) async fn ask_for_lost_jobs(&mut self, nomad: &NomadView) {
        if self.policy.rerun_lost.is_none() || !self.leadership.holds() {
            return;
        }
        let is_new = |runner: &&Runner| {
            is_away(runner)
                && !self.lost.jobs.contains_key(&runner.name)
                && !self.lost.requested.contains(&runner.name)
        };
        let github = self.github.until(Instant::now() + ASKS_FOR);
        let new: Vec<&Runner> = nomad.runners.iter().filter(is_new).take(ASKED_AT_ONCE).collect();
        for runner in new {
            self.lost.requested.insert(runner.name.clone());
            let repository = runner.repository().and_then(RepositoryRef::into_repository);
            let (Some(job), Some(repository)) = (runner.meta.job_id(), repository) else { continue };
            match github.ended_job(&repository, job).await {
                Ok(Some(ended))
                    if ended.job.runner == runner.name && ended.job.conclusion != Conclusion::Other =>
                {
                    self.lost.jobs.insert(runner.name.clone(), (ended, self.now()));
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(runner = runner.name, %error, "the job of a lost runner could not be read")
                }
            }
        }
    }

    /// The lost jobs that were run again, if a runner was lost with one. Re-runs in progress count.
    pub(super) async fn reruns(
        &self,
        nomad: &NomadView,
        ended: &BTreeMap<String, Ended>,
        errors: &mut Vec<Unobserved>,
    ) -> Option<Vec<RerunMark>> {
        self.policy.rerun_lost?;
        let is_lost = |runner: &Runner| is_away(runner) && ended.contains_key(&runner.name);
        if !nomad.runners.iter().any(is_lost) {
            return None;
        }
        match self.nomad.reruns().await {
            Ok(mut marks) => {
                let under_way = self.acts.under_way();
                marks.extend(under_way.iter().filter_map(|action| match action {
                    Action::Rerun(rerun) => Some(rerun.mark(nomad.now)),
                    _ => None,
                }));
                marks.sort();
                marks.dedup_by(|a, b| a.name() == b.name());
                Some(marks)
            }
            Err(error) => {
                let text = format!("Nomad's variables of re-runs: {error}");
                errors.push(Unobserved { subject: "re-runs".to_owned(), kind: error.kind(), text });
                None
            }
        }
    }
}
