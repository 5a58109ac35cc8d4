//! The jobs of a repository: what its active workflow runs hold (DESIGN: a pass).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::api::{GitHub, Pages, older_than};
use super::auth::Principal;
use super::error::Error;
use super::listed::Listed;
use super::wire::{Job, JobsPage, RunsPage};
use crate::http::escape_segment;
use crate::model::{JobStatus, Repository, RepositoryId, Timestamp, WorkflowJob};

/// How many runs of a repository are followed by their ID; more make the listing incomplete.
const MAX_FOLLOWED: usize = 1000;

/// How many of a repository's jobs are kept that are not in progress; more make the listing incomplete. The runs are read
/// in the order of their IDs, so the oldest ones are kept.
const MAX_WAITING: usize = 2000;

/// The jobs of a repository's active runs, apart from those that are completed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobListing {
    /// GitHub's time when it was read: the `Date` of its last page.
    pub now: Timestamp,
    /// The jobs, each once, by ID.
    pub jobs: Vec<WorkflowJob>,
    /// What may be missing among them, and why; `None` when every list involved was read to its end, with as many
    /// distinct IDs as its `total_count` and fewer than 1,000.
    pub missing: Option<String>,
}

impl JobListing {
    /// Whether a job that is not among them is over.
    pub fn is_complete(&self) -> bool {
        self.missing.is_none()
    }
}

/// What a listing could not see. The first reason is told, and how many more there are.
#[derive(Default)]
struct Missing {
    first: Option<String>,
    more: usize,
}

impl Missing {
    fn note(&mut self, what: impl FnOnce() -> String) {
        match self.first {
            None => self.first = Some(what()),
            Some(_) => self.more += 1,
        }
    }

    fn take<T>(&mut self, list: &Listed<T>, what: impl FnOnce() -> String) {
        if let Some(gap) = list.gap() {
            self.note(|| format!("{}: {gap}", what()));
        }
    }

    fn told(self) -> Option<String> {
        let first = self.first?;
        Some(if self.more == 0 { first } else { format!("{first}; {} more like this", self.more) })
    }
}

/// What earlier listings leave for the next one.
#[derive(Debug, Clone, Default)]
pub(super) struct Followed {
    /// Runs seen active whose own jobs have not said that they are over.
    pub(super) runs: BTreeSet<u64>,
    /// When the waiting, pending and requested runs were last listed.
    full_at: Option<Instant>,
    /// When it was last listed at all.
    listed_at: Option<Instant>,
    /// A list of runs could not be read the last time.
    lists_failed: bool,
}

impl GitHub {
    /// The jobs of many repositories, side by side. Those not answered when `within` is over are
    /// [`Error::OutOfTime`]; a repository that fails harms no other.
    pub async fn list_all(
        &self,
        repositories: &[Repository],
        full: bool,
        within: Duration,
    ) -> BTreeMap<RepositoryId, Result<JobListing, Error>> {
        let mut listings: BTreeMap<_, _> =
            repositories.iter().map(|repository| (repository.id, Err(Error::OutOfTime))).collect();
        // Those that were not listed for longest come first: when there is no time for all, everyone gets a turn.
        let mut order: Vec<&Repository> = repositories.iter().collect();
        {
            let followed = self.0.followed.lock().unwrap_or_else(PoisonError::into_inner);
            order.sort_by_key(|repository| followed.get(&repository.id).and_then(|known| known.listed_at));
        }
        let mut order = order.into_iter();
        let mut tasks = JoinSet::new();
        let end = Instant::now() + within;
        loop {
            // A few at a time, so that the first ones are through when the time is over, and not all of them half.
            while tasks.len() < self.0.concurrency
                && let Some(repository) = order.next()
            {
                let (github, repository) = (self.clone(), repository.clone());
                tasks.spawn(async move {
                    let listing = github.list_jobs(&repository, full).await;
                    (repository.id, listing)
                });
            }
            match tokio::time::timeout_at(end, tasks.join_next()).await {
                Ok(Some(Ok((id, listing)))) => {
                    listings.insert(id, listing);
                }
                Ok(Some(Err(error))) => tracing::error!("a listing ended by itself: {error}"),
                // What is still under way is dropped with the set.
                Ok(None) | Err(_) => break,
            }
        }
        listings
    }

    /// The jobs of one repository. With `full`, and every few minutes by itself, runs that wait are listed too.
    ///
    /// # Errors
    /// As told by [`Error`]: then nothing at all is known of the repository's jobs.
    pub async fn list_jobs(&self, repository: &Repository, full: bool) -> Result<JobListing, Error> {
        let mut followed = {
            let all = self.0.followed.lock().unwrap_or_else(PoisonError::into_inner);
            all.get(&repository.id).cloned().unwrap_or_default()
        };
        let full = full || followed.full_at.is_none_or(|at| older_than(at, self.0.full_every));
        let listing = self.list(repository, full, &mut followed).await;
        let mut all = self.0.followed.lock().unwrap_or_else(PoisonError::into_inner);
        match &listing {
            // Gone: nothing to follow.
            Err(Error::NotFound { .. }) => {
                all.remove(&repository.id);
            }
            // Half a listing has still seen some runs, but none of them to its end.
            Err(_) => {
                let known = all.entry(repository.id).or_default();
                known.runs.append(&mut followed.runs);
                // It had its turn.
                known.listed_at = Some(Instant::now());
            }
            Ok(_) => {
                followed.listed_at = Some(Instant::now());
                if full && !followed.lists_failed {
                    followed.full_at = followed.listed_at;
                }
                all.insert(repository.id, followed);
            }
        }
        listing
    }

    async fn list(
        &self,
        repository: &Repository,
        full: bool,
        followed: &mut Followed,
    ) -> Result<JobListing, Error> {
        // In the order in which runs go through them, so that one that moves on meanwhile is seen at least once.
        let statuses: &[&str] = if full {
            &["waiting", "pending", "requested", "queued", "in_progress"]
        } else {
            &["queued", "in_progress"]
        };
        let principal = Principal::Owner(repository.owner.clone());
        let runs_path = self.path(&format!(
            "/repos/{}/{}/actions/runs",
            escape_segment(&repository.owner),
            escape_segment(&repository.name)
        ));
        let mut missing = Missing::default();
        let mut date = None;
        let mut listed = BTreeSet::new();
        let mut lists = statuses.len();
        for status in statuses {
            let first = format!("{runs_path}?status={status}&per_page=100&exclude_pull_requests=true");
            let pages = match self.all_pages::<RunsPage>(&principal, first, true).await {
                Ok(pages) => pages,
                // One sick list is not the others' trouble, unless there is no other.
                Err(error) if self.costs_itself_only(&error) && lists > 1 => {
                    lists -= 1;
                    missing.note(|| format!("the {status} runs could not be read: {error}"));
                    continue;
                }
                Err(error) => return Err(error),
            };
            missing.take(&pages.list, || format!("the {status} runs"));
            date = pages.date.or(date);
            for run in pages.list.into_known() {
                if run.repository.is_some_and(|owner| owner.id != repository.id.0) {
                    return Err(Error::NotFound {
                        what: format!("{} (another repository has its name now)", repository.full_name()),
                    });
                }
                listed.insert(run.id);
            }
        }
        followed.lists_failed = lists < statuses.len();
        // What is in no list may be in the part that was not read.
        let lists_are_whole = missing.first.is_none();
        followed.runs.extend(&listed);
        if followed.runs.len() > MAX_FOLLOWED {
            missing.note(|| format!("more than {MAX_FOLLOWED} runs are active"));
        }
        while followed.runs.len() > MAX_FOLLOWED {
            followed.runs.pop_first();
        }
        let mut jobs = BTreeMap::new();
        let mut waiting = 0;
        for (run, result) in self.jobs_of(&principal, &runs_path, followed.runs.iter().copied()).await {
            let pages = match result {
                Ok(pages) => pages,
                // Deleted since. Whoever reads this listing is told that something was not seen.
                Err(Error::NotFound { .. }) => {
                    followed.runs.remove(&run);
                    missing.note(|| format!("run {run} has gone while it was read"));
                    continue;
                }
                Err(error) if self.costs_itself_only(&error) => {
                    missing.note(|| format!("the jobs of run {run} could not be read: {error}"));
                    continue;
                }
                Err(error) => return Err(error),
            };
            missing.take(&pages.list, || format!("the jobs of run {run}"));
            date = pages.date.max(date);
            let over = match pages.list.whole() {
                // It can have no jobs yet; if no list has it either, it is over.
                Ok([]) => full,
                Ok(some) => some.iter().all(|job| job.status == JobStatus::Completed),
                Err(_) => false,
            };
            if over && lists_are_whole && !listed.contains(&run) {
                followed.runs.remove(&run);
                self.0.cache.forget(&self.url(&format!("{runs_path}/{run}/jobs?")));
            }
            for job in pages.list.known().iter().filter(|job| job.status != JobStatus::Completed) {
                if job.status != JobStatus::InProgress {
                    waiting += usize::from(!jobs.contains_key(&job.id));
                    if waiting > MAX_WAITING {
                        missing.note(|| format!("more than {MAX_WAITING} jobs wait"));
                        break;
                    }
                }
                jobs.insert(job.id, job.to_model(repository.id, run));
            }
        }
        let now = date.ok_or_else(|| Error::Unexpected("GitHub's answers have no Date header".into()))?;
        Ok(JobListing { now, jobs: jobs.into_values().collect(), missing: missing.told() })
    }

    /// Whether a failure says nothing of other lists: the answer was bad, and GitHub gives others that are good.
    fn costs_itself_only(&self, error: &Error) -> bool {
        (error.is_of_the_answer() || error.is_senseless()) && self.0.sizes.is_answering()
    }

    /// The jobs of runs, side by side where there are several. A listed run is asked for even when all its jobs were
    /// completed the last time: jobs that need others appear when those are done. The ETag makes that free.
    async fn jobs_of(
        &self,
        principal: &Principal,
        runs_path: &str,
        runs: impl ExactSizeIterator<Item = u64>,
    ) -> BTreeMap<u64, Result<Pages<Arc<Job>>, Error>> {
        let mut results = BTreeMap::new();
        let alone = runs.len() == 1;
        let mut tasks = JoinSet::new();
        for run in runs {
            let first = format!("{runs_path}/{run}/jobs?filter=latest&per_page=100");
            if alone {
                results.insert(run, self.all_pages::<JobsPage>(principal, first, true).await);
                break;
            }
            results.insert(run, Err(Error::Unexpected("the task that asked ended".into())));
            let (github, principal) = (self.clone(), principal.clone());
            tasks.spawn(async move { (run, github.all_pages::<JobsPage>(&principal, first, true).await) });
        }
        while let Some(joined) = tasks.join_next().await {
            if let Ok((run, result)) = joined {
                results.insert(run, result);
            }
        }
        results
    }
}
