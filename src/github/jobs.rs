//! The jobs of a repository: those of its active workflow runs (docs/architecture.md, "A pass").

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use tokio::{sync::Notify, task::JoinSet, time::Instant};

use super::{
    api::{Caching, GitHub},
    auth::Principal,
    error::Error,
    followed::{LISTS, Look, Mark, Missing, Unfinished},
    gathered::Gathered,
    reading::Reading,
    turns::Turn,
    wire::{Job, JobsPage, Page, Run, RunsPage},
};
use crate::{
    http::escape_segment,
    labels::Interest,
    model::{EndedJob, JobStatus, Repository, RepositoryId, RunFacts, RunId, Timestamp, WorkflowJob},
};

/// How many runs of a repository are followed by their ID. More make the listing incomplete.
const MAX_FOLLOWED: usize = 1000;

/// The number of newest runs that a look reads, whatever their status: one request, free while nothing changes. Large
/// pages are slow.
const NEWEST: usize = 20;

/// How many runs of one repository are read concurrently.
const SIDE_BY_SIDE: usize = 4;

/// The jobs of a repository's active runs, except for completed ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobListing {
    /// GitHub's time when it was read: the `Date` of its last page.
    pub now: Timestamp,
    /// Each job once, by ID.
    pub jobs: Vec<WorkflowJob>,
    /// Ended jobs of the runs that were read, if a runner that may be ours had them.
    pub ended: Vec<EndedJob>,
    /// What may be missing, and why. `None` if every list involved was read completely, with as many distinct IDs
    /// as its `total_count` and fewer than 1,000.
    pub missing: Option<String>,
    /// What was requested.
    pub look: Look,
    /// When the newest run was created, if it was seen.
    pub newest_run: Option<Timestamp>,
    /// Whether there has ever been a run, if that is known.
    pub has_runs: Option<bool>,
    /// How many requests it took.
    pub requests: usize,
}

impl JobListing {
    /// Whether a job that is not in the listing is over.
    pub fn is_complete(&self) -> bool {
        self.look >= Look::Active && self.missing.is_none()
    }
}

/// Adds the listed runs to the followed ones, and decides which of them are to be read. Returns what is missing so far.
fn choose_runs(
    runs: &mut BTreeSet<RunId>,
    quiet: &BTreeMap<RunId, (Instant, Mark)>,
    listing: &mut Unfinished,
    is_busy_again: bool,
) -> Missing {
    runs.extend(&listing.listed);
    let mut missing = listing.missing.clone();
    if runs.len() > MAX_FOLLOWED {
        missing.note(|| format!("more than {MAX_FOLLOWED} runs are active"));
    }
    while runs.len() > MAX_FOLLOWED {
        runs.pop_first();
    }
    if listing.unread.is_none() {
        let unread = runs.iter().copied().filter(|run| !listing.is_quiet(*run, quiet));
        listing.unread = Some(unread.collect());
    }
    let unread = listing.unread.get_or_insert_default();
    if is_busy_again {
        unread.extend(listing.in_progress.intersection(runs));
    }
    missing
}

impl GitHub {
    /// The jobs of many repositories, concurrently. Each has its share of the requests; what is left is for those that
    /// need more. A listing that is unfinished at the end of `within` returns what it has, and is continued the next
    /// time; [`Error::OutOfTime`] if it has nothing. A failure of one repository does not affect the others.
    pub async fn list_all(
        &self,
        repositories: &[Repository],
        look: Look,
        within: Duration,
    ) -> BTreeMap<RepositoryId, Result<JobListing, Error>> {
        let mut listings: BTreeMap<_, _> =
            repositories.iter().map(|repository| (repository.id, Err(Error::OutOfTime))).collect();
        // The repositories not listed for longest come first, so that each gets a turn even if there is no time
        // for all.
        let mut order: Vec<&Repository> = repositories.iter().collect();
        {
            let followed = self.0.followed.lock().unwrap_or_else(PoisonError::into_inner);
            order.sort_by_key(|repository| followed.get(&repository.id).and_then(|known| known.listed_at));
        }
        let mut order = order.into_iter();
        let end = Instant::now() + within;
        let github = self.until(end);
        let told = Arc::new(Notify::new());
        let mut tasks = JoinSet::new();
        let mut turns: BTreeMap<RepositoryId, Arc<Turn>> = BTreeMap::new();
        let mut waiting: VecDeque<RepositoryId> = VecDeque::new();
        loop {
            let begins = turns.iter().filter(|(id, turn)| turn.waits() && !waiting.contains(id));
            let begins: Vec<RepositoryId> = begins.map(|(id, _)| *id).collect();
            waiting.extend(begins);
            // A few at a time, so that at the deadline the first ones are complete instead of all being half done.
            while turns.len() < self.0.concurrency + waiting.len() && Instant::now() < end {
                if let Some(repository) = order.next() {
                    let turn = Arc::new(Turn::new(Arc::clone(&told)));
                    turns.insert(repository.id, Arc::clone(&turn));
                    let (github, repository) = (github.in_turn(turn), repository.clone());
                    tasks.spawn(async move {
                        let listing = github.list_jobs(&repository, look).await;
                        (repository.id, listing)
                    });
                } else if let Some(turn) = waiting.pop_front().and_then(|id| turns.get(&id)) {
                    turn.go_on();
                } else {
                    break;
                }
            }
            let joined = tokio::select! {
                biased;
                joined = tasks.join_next() => joined,
                () = told.notified() => continue,
            };
            match joined {
                Some(Ok((id, listing))) => {
                    turns.remove(&id);
                    waiting.retain(|waits| *waits != id);
                    listings.insert(id, listing);
                }
                Some(Err(error)) => tracing::error!("a listing ended unexpectedly: {error}"),
                None => break,
            }
        }
        listings
    }

    /// Looks at one repository, with a share of requests and for at most `within`. If that is not enough, the next look
    /// continues.
    ///
    /// # Errors
    /// See [`Error`]: then nothing is known about the repository's jobs.
    pub async fn look(
        &self,
        repository: &Repository,
        look: Look,
        within: Duration,
    ) -> Result<JobListing, Error> {
        let github = self.until(Instant::now() + within).in_turn(Arc::new(Turn::alone()));
        github.list_jobs(repository, look).await
    }

    /// Whether the next look at a repository continues its listing.
    pub fn is_unfinished(&self, repository: RepositoryId) -> bool {
        let followed = self.0.followed.lock().unwrap_or_else(PoisonError::into_inner);
        followed.get(&repository).is_some_and(|known| known.unfinished.is_some())
    }

    /// The jobs of one repository.
    ///
    /// # Errors
    /// See [`Error`]: then nothing is known about the repository's jobs.
    pub async fn list_jobs(&self, repository: &Repository, look: Look) -> Result<JobListing, Error> {
        let (mut runs, mut quiet, mut facts, unfinished) = {
            let mut all = self.0.followed.lock().unwrap_or_else(PoisonError::into_inner);
            match all.get_mut(&repository.id) {
                // A smaller look does not become a larger one.
                Some(known) => (
                    known.runs.clone(),
                    known.quiet.clone(),
                    known.facts.clone(),
                    known.unfinished.take().filter(|unfinished| unfinished.look >= look),
                ),
                None => (BTreeSet::new(), BTreeMap::new(), BTreeMap::new(), None),
            }
        };
        let mut listing = unfinished.unwrap_or_else(|| Unfinished::new(look));
        let result = self.list(repository, &mut runs, &mut quiet, &mut facts, &mut listing).await;
        quiet.retain(|run, _| runs.contains(run));
        facts.retain(|run, _| runs.contains(run) || listing.listed.contains(run));
        let mut all = self.0.followed.lock().unwrap_or_else(PoisonError::into_inner);
        // It is gone, so there is nothing to follow.
        if let Err(Error::NotFound { .. }) = result {
            all.remove(&repository.id);
            return result.map(|(jobs, _)| jobs);
        }
        let known = all.entry(repository.id).or_default();
        // It had its turn.
        let now = Instant::now();
        known.listed_at = Some(now);
        known.quiet = quiet;
        known.facts = facts;
        match result {
            Ok((jobs, true)) => {
                known.runs = runs;
                Ok(jobs)
            }
            Ok((jobs, false)) => {
                known.runs = runs;
                known.unfinished = Some(listing.paused(self.asked()));
                Ok(jobs)
            }
            // An unfinished listing has seen some runs, but none of them completely.
            Err(error) => {
                known.runs.append(&mut runs);
                if matches!(error, Error::OutOfTime) {
                    known.unfinished = Some(listing.paused(self.asked()));
                }
                Err(error)
            }
        }
    }

    /// One turn of a listing. Returns the jobs that it has read, and whether the listing is finished.
    async fn list(
        &self,
        repository: &Repository,
        runs: &mut BTreeSet<RunId>,
        quiet: &mut BTreeMap<RunId, (Instant, Mark)>,
        facts: &mut BTreeMap<RunId, Arc<RunFacts>>,
        listing: &mut Unfinished,
    ) -> Result<(JobListing, bool), Error> {
        let asked_before = self.asked();
        let principal = Principal::Owner(repository.owner.clone());
        let runs_path = self.path(&format!(
            "/repos/{}/{}/actions/runs",
            escape_segment(&repository.owner),
            escape_segment(&repository.name)
        ));
        let is_busy_again = listing.is_flooded && listing.lists.is_empty() && listing.has_others();
        if is_busy_again {
            // Which runners are busy changes from turn to turn.
            listing.in_progress.clear();
            listing.lists.push(LISTS[0]);
        }
        let newest = self.list_newest(&principal, &runs_path, repository, facts, listing).await?;
        let date = self.list_runs(&principal, &runs_path, repository, facts, listing).await?.max(newest);
        let lists_are_whole = listing.look >= Look::Active && listing.missing.first.is_none();
        let missing = choose_runs(runs, quiet, listing, is_busy_again);
        let judge = self.0.interest.as_deref().map(Interest::judge);
        let mut gathered = Gathered {
            repository: repository.id,
            runs,
            quiet,
            facts,
            listing,
            judge,
            missing,
            lists_are_whole,
            date,
            jobs: BTreeMap::new(),
            ended: Vec::new(),
            waiting: 0,
            too_many: false,
            read: 0,
            over_time: false,
        };
        self.gather(&principal, &runs_path, &mut gathered).await?;
        if gathered.over_time && gathered.read == 0 {
            return Err(Error::OutOfTime);
        }
        gathered.note_limits();
        let Gathered { listing, missing, date, jobs, ended, over_time, .. } = gathered;
        let left = listing.unread.as_ref().map_or(0, BTreeSet::len);
        let now = date.ok_or_else(|| Error::Unexpected("GitHub's responses have no Date header".into()))?;
        let jobs = jobs.into_values().collect();
        let Unfinished { look, newest_run, has_runs, .. } = *listing;
        let (missing, requests) = (missing.told(), self.asked().saturating_sub(asked_before));
        let listing = JobListing { now, jobs, ended, missing, look, newest_run, has_runs, requests };
        Ok((listing, !over_time || left == 0))
    }

    /// Reads the jobs of the listing's unread runs, concurrently. A listed run is requested even if all its jobs were
    /// completed the last time: jobs that depend on others appear when those are done. The ETag makes that free.
    async fn gather(
        &self,
        principal: &Principal,
        runs_path: &str,
        gathered: &mut Gathered<'_>,
    ) -> Result<(), Error> {
        let listing = &mut *gathered.listing;
        let order: Vec<(RunId, Reading<Arc<Job>>)> = listing
            .order()
            .into_iter()
            .map(|run| {
                let first = format!("{runs_path}/{run}/jobs?filter=latest&per_page=100");
                (run, listing.halves.remove(&run).unwrap_or_else(|| self.begin::<JobsPage>(first)))
            })
            .collect();
        let mut results = stream::iter(order)
            .map(|(run, mut reading)| async move {
                let before = reading.len();
                let result = self.go_on::<JobsPage>(principal, &mut reading, Caching::ByEtag).await;
                (run, before, reading, result)
            })
            .buffer_unordered(self.0.concurrency.min(SIDE_BY_SIDE));
        while let Some((run, before, reading, result)) = results.next().await {
            match result {
                Ok(()) => {
                    let pages = reading.end();
                    if gathered.was_read(run, before, &pages) {
                        self.0.cache.forget(&self.url(&format!("{runs_path}/{run}/jobs?")));
                    }
                }
                Err(error) => {
                    gathered.not_read(run, reading, error, |error| self.costs_itself_only(error))?;
                }
            }
        }
        Ok(())
    }

    /// Reads the newest runs. Returns the `Date` of the page.
    async fn list_newest(
        &self,
        principal: &Principal,
        runs_path: &str,
        repository: &Repository,
        facts: &mut BTreeMap<RunId, Arc<RunFacts>>,
        listing: &mut Unfinished,
    ) -> Result<Option<Timestamp>, Error> {
        if !listing.newest {
            return Ok(None);
        }
        let path = format!("{runs_path}?per_page={NEWEST}&exclude_pull_requests=true");
        let page = match self.page::<RunsPage>(principal, &path, Caching::ByEtag).await {
            Ok(page) => page,
            Err(error) if self.costs_itself_only(&error) && !listing.lists.is_empty() => {
                listing.newest = false;
                listing.missing.note(|| format!("the newest runs could not be read: {error}"));
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        listing.newest = false;
        listing.any_list = true;
        if let Some(gap) = page.gap {
            listing.missing.note(|| format!("the newest runs: {gap}"));
        }
        listing.has_runs = page.value.total().map(|total| total > 0);
        for (_, run) in page.value.items() {
            let id = run.id;
            self.is_of(repository, &run)?;
            listing.newest_run = listing.newest_run.max(run.created_at);
            listing.marks.insert(id, Some((run.status, run.run_attempt, run.updated_at)));
            if run.status != Some(JobStatus::Completed) {
                facts.entry(id).or_insert_with(|| Arc::new(run.facts()));
                listing.listed.insert(id);
            }
            if run.status == Some(JobStatus::InProgress) {
                listing.in_progress.insert(id);
            }
        }
        Ok(page.date)
    }

    fn is_of(&self, repository: &Repository, run: &Run) -> Result<(), Error> {
        match &run.repository {
            Some(owner) if owner.id != repository.id.0 => Err(Error::NotFound {
                what: format!("{} (another repository has its name now)", repository.full_name()),
            }),
            _ => Ok(()),
        }
    }

    /// Reads the remaining lists of runs. Returns the `Date` of the last page.
    async fn list_runs(
        &self,
        principal: &Principal,
        runs_path: &str,
        repository: &Repository,
        facts: &mut BTreeMap<RunId, Arc<RunFacts>>,
        listing: &mut Unfinished,
    ) -> Result<Option<Timestamp>, Error> {
        let mut date = None;
        while let Some(status) = listing.lists.last().copied() {
            let mut reading = listing.list.take().unwrap_or_else(|| {
                self.begin::<RunsPage>(format!(
                    "{runs_path}?status={status}&per_page=100&exclude_pull_requests=true"
                ))
            });
            match self.go_on::<RunsPage>(principal, &mut reading, Caching::ByEtag).await {
                Ok(()) => listing.any_list = true,
                Err(Error::OutOfTime) => {
                    listing.list = Some(reading);
                    return Err(Error::OutOfTime);
                }
                // A failed list does not affect the others, unless there is no other.
                Err(error)
                    if self.costs_itself_only(&error) && (listing.any_list || listing.lists.len() > 1) =>
                {
                    listing.lists.pop();
                    listing.missing.note(|| format!("the {status} runs could not be read: {error}"));
                    continue;
                }
                Err(error) => return Err(error),
            }
            listing.lists.pop();
            let pages = reading.end();
            listing.missing.take(&pages.list, || format!("the {status} runs"));
            date = pages.date.or(date);
            for run in pages.list.into_known() {
                self.is_of(repository, &run)?;
                facts.entry(run.id).or_insert_with(|| Arc::new(run.facts()));
                listing.listed.insert(run.id);
                if status == LISTS[0] {
                    listing.in_progress.insert(run.id);
                }
            }
        }
        Ok(date)
    }

    /// Whether a failure says nothing about other lists: this response was bad, but GitHub gives good ones for
    /// others.
    fn costs_itself_only(&self, error: &Error) -> bool {
        (error.is_of_the_answer() || error.is_senseless()) && self.0.sizes.is_answering()
    }
}
