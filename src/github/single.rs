//! Single jobs, for somebody who asks about one: a pass reads whole lists.

use hyper::Method;
use serde::Deserialize;

use super::api::{GitHub, Repeat};
use super::auth::Principal;
use super::error::Error;
use super::wire::Job;
use crate::http::escape_segment;
use crate::model::{JobId, Repository, RunId, Timestamp, WorkflowJob};

/// The kind of requests: none that GitHub counts apart.
const SINGLE: &str = "single";

/// At most this many jobs of a run are read: more than that nobody reads one by one.
const JOBS_AT_MOST: usize = 100;

/// A job as GitHub tells it when it is asked for that one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobDetail {
    /// What a listing tells too.
    pub job: WorkflowJob,
    /// How it ended.
    pub conclusion: Option<String>,
    /// When it was taken.
    pub started_at: Option<Timestamp>,
    /// When it ended.
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
            job: self.job.to_model(repository.id, self.run_id),
            conclusion: self.conclusion,
            started_at: time(self.started_at),
            completed_at: time(self.completed_at),
        }
    }
}

impl GitHub {
    /// One job, whatever its status; `None` where there is none.
    ///
    /// # Errors
    /// As told by [`Error`].
    pub async fn job(&self, repository: &Repository, job: JobId) -> Result<Option<JobDetail>, Error> {
        let row = self.looked_up::<Row>(repository, &format!("jobs/{job}")).await?;
        Ok(row.map(|row| row.detail(repository)))
    }

    /// The first jobs of one run, whatever their status; `None` where there is no such run.
    ///
    /// # Errors
    /// As told by [`Error`].
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
