//! Individual jobs, for `explain`. A pass reads complete lists instead.

use hyper::Method;
use serde::Deserialize;

use super::api::{GitHub, Repeat};
use super::auth::Principal;
use super::error::Error;
use super::wire::Job;
use crate::http::escape_segment;
use crate::model::{JobId, Repository, RunId, Timestamp, WorkflowJob};

/// The kind of requests: GitHub does not count them separately.
const SINGLE: &str = "single";

/// At most this many jobs of a run are read. Nobody reads more of them individually.
const JOBS_AT_MOST: usize = 100;

/// A single job as GitHub returns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobDetail {
    /// What a listing has as well.
    pub job: WorkflowJob,
    /// Its conclusion.
    pub conclusion: Option<String>,
    /// When a runner took it.
    pub started_at: Option<Timestamp>,
    pub completed_at: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Row {
    run_id: RunId,
    #[serde(flatten)]
    job: Job,
    #[serde(default)]
    conclusion: Option<String>,
    #[serde(default)]
    started_at: Option<String>,
    #[serde(default)]
    completed_at: Option<String>,
}

impl Row {
    fn detail(self, repository: &Repository) -> JobDetail {
        let time = |text: Option<String>| text.and_then(|text| text.parse().ok());
        JobDetail {
            job: self.job.to_model(repository.id, self.run_id, Default::default()),
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

    async fn looked_up<T: serde::de::DeserializeOwned>(
        &self,
        repository: &Repository,
        what: &str,
    ) -> Result<Option<T>, Error> {
        let (owner, name) = (escape_segment(&repository.owner), escape_segment(&repository.name));
        let path = self.path(&format!("/repos/{owner}/{name}/actions/{what}"));
        let principal = Principal::Owner(repository.owner.clone());
        let build = |_: &_| self.request(Method::GET, path.clone());
        let (response, _) = self.authorized(&principal, SINGLE, Repeat::AfterFailures, build).await?;
        match response.status.as_u16() {
            404 | 410 => Ok(None),
            _ if response.is_success() => Ok(Some(response.json()?)),
            _ => Err(Error::from_answer(&response)),
        }
    }
}
