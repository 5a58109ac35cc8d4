//! Runs a lost job again: once for each loss, even after crashes and with several replicas.
//!
//! A variable in Nomad records the request. It is written before the request to GitHub. Anyone who finds it sends no
//! second request: neither the next pass, nor the next process, nor another replica. So a crash between the two, or a
//! lost response, can leave the job failed.

use super::{Apply, Result, github_outcome, nomad_outcome};
use crate::{
    github,
    model::{Done, JobStatus, Loss, NotDone, Rerun, Timestamp},
    nomad::Written,
};

impl Apply {
    /// Requests the re-run, if the job is still as it was listed.
    pub(super) async fn rerun(&self, rerun: &Rerun) -> Result<Done> {
        if rerun.loss == Loss::Drain {
            match self.nomad.stopped_by_hand(&rerun.name).await.map_err(nomad_outcome)? {
                Some(false) => {}
                Some(true) => {
                    return Err(NotDone::NotLost("someone stopped its allocation".to_owned()));
                }
                None => return Err(NotDone::NotLost("Nomad no longer says who stopped it".to_owned())),
            }
        }
        self.is_as_planned(rerun).await?;
        if !self.leadership.holds() {
            return Err(NotDone::Held("another replica holds the leader lock".to_owned()));
        }
        // Nomad sets the time.
        let mark = rerun.mark(Timestamp::UNIX_EPOCH);
        match self.nomad.mark_rerun(&mark, &rerun.name).await.map_err(nomad_outcome)? {
            Written::Written => {}
            Written::Exists => return Ok(Done::Already),
        }
        match self.github.rerun_job(&rerun.repository, rerun.job.id).await {
            Ok(()) => {}
            Err(error) if error.is_ambiguous() => return Err(github_outcome(error)),
            // GitHub has done nothing, so the request may be repeated.
            Err(error) => {
                self.forget(std::slice::from_ref(&mark)).await;
                return Err(refused(error));
            }
        }
        self.forget(&rerun.forgets).await;
        Ok(Done::Performed)
    }

    /// Checks that the job is still as it was listed, and that no re-run has started. Its run must be over, because
    /// GitHub refuses the re-run until then.
    async fn is_as_planned(&self, rerun: &Rerun) -> Result<()> {
        let (repository, planned) = (&rerun.repository, &rerun.job);
        let job = self.github.job(repository, planned.id).await.map_err(github_outcome)?;
        let is_as_planned = job.is_some_and(|detail| {
            detail.job.status == JobStatus::Completed
                && detail.taken == planned.conclusion
                && detail.job.runner_name.as_deref() == Some(&rerun.name)
                && detail.job.run_id == planned.run_id
        });
        let run = self.github.run(repository, planned.run_id).await.map_err(github_outcome)?;
        let Some(run) = run.filter(|_| is_as_planned) else {
            return Err(NotDone::NotLost("its job has changed, or no longer exists at GitHub".to_owned()));
        };
        if run.run_attempt.is_some_and(|attempt| attempt > planned.run_attempt) {
            return Err(NotDone::NotLost(format!("run {} has been run again since", planned.run_id)));
        }
        if run.status != Some(JobStatus::Completed) {
            return Err(NotDone::Held(format!(
                "run {} is still active: its jobs can be run again once it is over",
                planned.run_id
            )));
        }
        Ok(())
    }

    /// A variable that is not deleted is counted for longer, which is harmless.
    async fn forget(&self, marks: &[crate::model::RerunMark]) {
        for mark in marks {
            if let Err(error) = self.nomad.forget_rerun(mark).await {
                tracing::debug!(rerun = mark.name(), %error, "variable of a re-run not removed");
            }
        }
    }
}

fn refused(error: github::Error) -> NotDone {
    match error {
        github::Error::Forbidden(_) => NotDone::Held(format!(
            "{error}; a re-run needs actions: write (classic: repo), at most 30 days since the run, and at most 50 re-runs"
        )),
        error => github_outcome(error),
    }
}
