//! Running a lost job again: once for each loss, whatever crashes and whoever else acts.
//!
//! A variable in Nomad says that it was asked for, and is written before GitHub is asked. Whoever finds it does not ask again: neither the
//! next pass, nor the next process, nor another replica. A crash between the two, or a lost answer, may so leave a job as GitHub has it: failed.

use super::{Apply, Result, github_outcome, nomad_outcome};
use crate::{
    github,
    model::{Done, JobStatus, Loss, NotDone, Rerun, Timestamp},
    nomad::Written,
};

impl Apply {
    /// Asks GitHub to run the job again, if it still is as it was listed.
    pub(super) async fn rerun(&self, rerun: &Rerun) -> Result<Done> {
        if rerun.loss == Loss::Drain {
            match self.nomad.stopped_by_hand(&rerun.name).await.map_err(nomad_outcome)? {
                Some(false) => {}
                Some(true) => {
                    return Err(NotDone::Held("somebody has stopped its allocation by hand".to_owned()));
                }
                None => return Err(NotDone::Held("Nomad does not tell any more who stopped it".to_owned())),
            }
        }
        self.is_as_planned(rerun).await?;
        if !self.leadership.holds() {
            return Err(NotDone::Held("another replica holds the leader lock".to_owned()));
        }
        // The time is Nomad's to say.
        let mark = rerun.mark(Timestamp::UNIX_EPOCH);
        match self.nomad.mark_rerun(&mark, &rerun.name).await.map_err(nomad_outcome)? {
            Written::Written => {}
            Written::Exists => return Ok(Done::Already),
        }
        match self.github.rerun_job(&rerun.repository, rerun.job.id).await {
            Ok(()) => {}
            Err(error) if error.is_ambiguous() => return Err(github_outcome(error)),
            // GitHub has done nothing: it may be asked again.
            Err(error) => {
                self.forget(std::slice::from_ref(&mark)).await;
                return Err(refused(error));
            }
        }
        self.forget(&rerun.forgets).await;
        Ok(Done::Performed)
    }

    /// Whether the job still is what was listed, and no re-run has begun. Its run must be over: GitHub refuses until then.
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
            return Err(NotDone::Held("its job is not what it was, or GitHub shows it no more".to_owned()));
        };
        if run.run_attempt.is_some_and(|attempt| attempt > planned.run_attempt) {
            return Err(NotDone::Held(format!("run {} was run again since", planned.run_id)));
        }
        if run.status != Some(JobStatus::Completed) {
            return Err(NotDone::Held(format!(
                "run {} goes on: its jobs run again when it is over",
                planned.run_id
            )));
        }
        Ok(())
    }

    /// What stays is counted for longer, and harms nobody.
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
