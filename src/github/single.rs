//! Individual jobs, for `explain`. A pass reads complete lists instead.

use hyper::Method;
use serde::Deserialize;

use super::{
    api::{GitHub, Repeat},
    auth::Principal,
    error::Error,
    wire::Job,
};
use crate::{
    http::escape_segment,
    model::{Conclusion, Ended, EndedJob, JobId, JobStatus, Repository, RunId, Timestamp, WorkflowJob, age},
};

/// The kind of requests: GitHub does not count them separately.
const SINGLE: &str = "single";

/// At most this many jobs of a run are read. Nobody reads more of them individually.
const JOBS_AT_MOST: usize = 100;

/// A single job as GitHub returns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobDetail {
    /// What a listing has as well.
    pub job: WorkflowJob,
    /// The attempt of the run that it belongs to.
    pub run_attempt: Option<u32>,
    /// Its conclusion.
    pub conclusion: Option<String>,
    /// Its conclusion if it did not fail on its own.
    pub taken: Conclusion,
    /// When a runner took it.
    pub started_at: Option<Timestamp>,
    pub completed_at: Option<Timestamp>,
}

/// A run, as GitHub returns it individually.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RunDetail {
    /// Its status. GitHub can return `null`.
    pub status: Option<JobStatus>,
    /// Its latest attempt.
    #[serde(default)]
    pub run_attempt: Option<u32>,
}

#[derive(Deserialize)]
struct Row {
    run_id: RunId,
    #[serde(flatten)]
    job: Job,
    #[serde(default)]
    run_attempt: Option<u32>,
    #[serde(default)]
    conclusion: Option<String>,
    #[serde(default)]
    started_at: Option<String>,
    #[serde(default)]
    completed_at: Option<String>,
}

impl Row {
    fn ended(self) -> Option<EndedJob> {
        let time = |text: Option<String>| text?.parse().ok();
        let runner = self.job.runner_name().filter(|_| self.job.status == JobStatus::Completed)?;
        Some(EndedJob {
            id: self.job.id,
            run_id: self.run_id,
            run_attempt: self.run_attempt.unwrap_or(1),
            key: self.job.key(),
            conclusion: self.job.steps().conclusion(self.conclusion.as_deref()),
            runner: runner.to_owned(),
            created_at: self.job.created_at()?,
            started_at: time(self.started_at)?,
            completed_at: time(self.completed_at)?,
        })
    }

    fn detail(self, repository: &Repository) -> JobDetail {
        let time = |text: Option<String>| text.and_then(|text| text.parse().ok());
        JobDetail {
            job: self.job.to_model(repository.id, self.run_id, Default::default()),
            run_attempt: self.run_attempt,
            taken: self.job.steps().conclusion(self.conclusion.as_deref()),
            conclusion: self.conclusion,
            started_at: time(self.started_at),
            completed_at: time(self.completed_at),
        }
    }
}

impl GitHub {
    /// One job, whatever its status; `None` if it does not exist.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn job(&self, repository: &Repository, job: JobId) -> Result<Option<JobDetail>, Error> {
        let row = self.looked_up::<Row>(repository, &format!("jobs/{job}")).await?;
        Ok(row.map(|row| row.detail(repository)))
    }

    /// The first jobs of one run, whatever their status; `None` if the run does not exist.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn run_jobs(
        &self,
        repository: &Repository,
        run: RunId,
    ) -> Result<Option<Vec<JobDetail>>, Error> {
        #[derive(Deserialize)]
        struct Rows {
            jobs: Vec<Row>,
        }
        let path = format!("runs/{run}/jobs?filter=latest&per_page={JOBS_AT_MOST}");
        let rows = self.looked_up::<Rows>(repository, &path).await?;
        let details =
            |rows: Rows| rows.jobs.into_iter().take(JOBS_AT_MOST).map(|row| row.detail(repository)).collect();
        Ok(rows.map(details))
    }

    /// A run's state; `None` if it does not exist.
    ///
    /// # Errors
    /// As told by [`Error`].
    pub async fn run(&self, repository: &Repository, run: RunId) -> Result<Option<RunDetail>, Error> {
        self.looked_up::<RunDetail>(repository, &format!("runs/{run}")).await
    }

    /// Runs one job of a completed run again, and those that need it. Not retried: after an ambiguous failure, it may
    /// have started.
    ///
    /// # Errors
    /// [`Error::Forbidden`] if the run is still active, is too old, or was run again too often, or if the token lacks
    /// the permission.
    pub async fn rerun_job(&self, repository: &Repository, job: JobId) -> Result<(), Error> {
        let (owner, name) = (escape_segment(&repository.owner), escape_segment(&repository.name));
        let path = self.path(&format!("/repos/{owner}/{name}/actions/jobs/{job}/rerun"));
        let principal = Principal::Owner(repository.owner.clone());
        let build = |_: &_| self.request(Method::POST, path.clone());
        let (response, _) = self.authorized(&principal, "write", Repeat::Never, build).await?;
        if response.is_success() { Ok(()) } else { Err(Error::from_answer(&response)) }
    }

    /// Checks that the token may run jobs again, with a request for a job that does not exist.
    ///
    /// # Errors
    /// As told by [`Error`]; [`Error::Forbidden`] without the permission.
    pub async fn may_rerun(&self, repository: &Repository) -> Result<(), Error> {
        match self.rerun_job(repository, JobId(0)).await {
            Err(Error::NotFound { .. }) => Ok(()),
            result => result,
        }
    }

    /// A completed job, and how long ago it ended, by GitHub's clock; `None` if it does not exist or is not completed.
    ///
    /// # Errors
    /// As told by [`Error`].
    pub async fn ended_job(&self, repository: &Repository, job: JobId) -> Result<Option<Ended>, Error> {
        let Some((row, now)) = self.read::<Row>(repository, &format!("jobs/{job}")).await? else {
            return Ok(None);
        };
        let ended = row.ended().zip(now);
        Ok(ended.map(|(job, now)| Ended { ago: age(now, job.completed_at), job }))
    }

    async fn looked_up<T: serde::de::DeserializeOwned>(
        &self,
        repository: &Repository,
        what: &str,
    ) -> Result<Option<T>, Error> {
        Ok(self.read(repository, what).await?.map(|(value, _)| value))
    }

    async fn read<T: serde::de::DeserializeOwned>(
        &self,
        repository: &Repository,
        what: &str,
    ) -> Result<Option<(T, Option<Timestamp>)>, Error> {
        let (owner, name) = (escape_segment(&repository.owner), escape_segment(&repository.name));
        let path = self.path(&format!("/repos/{owner}/{name}/actions/{what}"));
        let principal = Principal::Owner(repository.owner.clone());
        let build = |_: &_| self.request(Method::GET, path.clone());
        let (response, _) = self.authorized(&principal, SINGLE, Repeat::AfterFailures, build).await?;
        match response.status.as_u16() {
            404 | 410 => Ok(None),
            _ if response.is_success() => Ok(Some((response.json()?, response.date()))),
            _ => Err(Error::from_answer(&response)),
        }
    }
}
