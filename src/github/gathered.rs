//! What one turn of a listing has read of the jobs of a repository's runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::time::Instant;

use super::{
    error::Error,
    followed::{Look, Mark, Missing, Unfinished},
    reading::{Pages, Reading},
    wire::Job,
};
use crate::{
    labels::Judge,
    model::{EndedJob, JobId, JobStatus, RepositoryId, RunFacts, RunId, Timestamp, WorkflowJob},
};

/// How many of a repository's jobs that are not in progress are kept. More make the listing incomplete.
const MAX_WAITING: usize = 2000;

/// Collects the jobs of runs, and what is known of the runs afterwards.
pub(super) struct Gathered<'a> {
    pub repository: RepositoryId,
    /// The followed runs.
    pub runs: &'a mut BTreeSet<RunId>,
    /// Runs without a job of ours.
    pub quiet: &'a mut BTreeMap<RunId, (Instant, Mark)>,
    pub facts: &'a BTreeMap<RunId, Arc<RunFacts>>,
    pub listing: &'a mut Unfinished,
    /// Decides which jobs are ours; `None`: all.
    pub judge: Option<Judge<'a>>,
    pub missing: Missing,
    /// A job in no list may be in the part that was not read.
    pub lists_are_whole: bool,
    pub date: Option<Timestamp>,
    pub jobs: BTreeMap<JobId, WorkflowJob>,
    pub ended: Vec<EndedJob>,
    /// How many of the jobs are not in progress.
    pub waiting: usize,
    pub too_many: bool,
    /// How many runs were read.
    pub read: usize,
    pub over_time: bool,
}

impl Gathered<'_> {
    /// A run's jobs could not be read. An error if that concerns the whole listing; `costs_itself_only` is whether it
    /// does not.
    pub fn not_read(
        &mut self,
        run: RunId,
        reading: Reading<Arc<Job>>,
        error: Error,
        costs_itself_only: impl FnOnce(&Error) -> bool,
    ) -> Result<(), Error> {
        match error {
            Error::OutOfTime => {
                self.over_time = true;
                if reading.len() > 0 {
                    self.listing.halves.insert(run, reading);
                }
            }
            // Deleted since. The listing reports that this part could not be read.
            Error::NotFound { .. } => {
                self.runs.remove(&run);
                self.listing.unread.get_or_insert_default().remove(&run);
                self.missing.note(|| format!("run {run} was deleted while it was read"));
            }
            error if costs_itself_only(&error) => {
                self.listing.unread.get_or_insert_default().remove(&run);
                self.missing.note(|| format!("the jobs of run {run} could not be read: {error}"));
            }
            error => return Err(error),
        }
        Ok(())
    }

    /// A run's jobs were read; the first `before` of them in an earlier turn. Returns whether the run is over, so that
    /// it is no longer followed.
    pub fn was_read(&mut self, run: RunId, before: usize, pages: &Pages<Arc<Job>>) -> bool {
        self.read += 1;
        self.listing.unread.get_or_insert_default().remove(&run);
        self.missing.take(&pages.list, || format!("the jobs of run {run}"));
        self.date = pages.date.max(self.date);
        self.note_quiet(run, pages);
        let is_over = self.is_over(run, before, pages);
        if is_over {
            self.runs.remove(&run);
        }
        self.take_jobs(run, before, pages);
        is_over
    }

    fn note_quiet(&mut self, run: RunId, pages: &Pages<Arc<Job>>) {
        let judge = &mut self.judge;
        let concerns_us = |job: &Arc<Job>| {
            job.status != JobStatus::Completed
                && judge.as_mut().is_none_or(|judge| judge.is_ours(job.labels(), job.runner_name()))
        };
        if pages.list.whole().is_ok_and(|jobs| !jobs.iter().any(concerns_us)) {
            self.quiet.insert(run, (Instant::now(), self.listing.marks.get(&run).copied().flatten()));
        } else {
            self.quiet.remove(&run);
        }
    }

    fn is_over(&self, run: RunId, before: usize, pages: &Pages<Arc<Job>>) -> bool {
        let over = match pages.list.whole() {
            // The run may not have jobs yet. If no list has it either, it is over.
            Ok([]) => self.listing.look == Look::All,
            // What an earlier turn has read is outdated.
            Ok(_) if before > 0 => false,
            Ok(some) => some.iter().all(|job| job.status == JobStatus::Completed),
            Err(_) => false,
        };
        let is_completed = self
            .listing
            .marks
            .get(&run)
            .is_some_and(|mark| mark.is_some_and(|(status, ..)| status == Some(JobStatus::Completed)));
        over && (self.lists_are_whole || is_completed) && !self.listing.listed.contains(&run)
    }

    fn take_jobs(&mut self, run: RunId, before: usize, pages: &Pages<Arc<Job>>) {
        let judge = &mut self.judge;
        let mut of_ours =
            |job: &EndedJob| judge.as_mut().is_none_or(|judge| judge.is_ours(&[], Some(&job.runner)));
        let ended = pages.list.known().iter().filter_map(|job| job.ended());
        self.ended.extend(ended.filter(|job| of_ours(job)));
        let fresh = pages.list.known().iter().skip(before);
        for job in fresh.filter(|job| job.status != JobStatus::Completed) {
            let is_new = !self.jobs.contains_key(&job.id);
            if job.status != JobStatus::InProgress && is_new {
                if self.waiting == MAX_WAITING {
                    self.too_many = true;
                    continue;
                }
                self.waiting += 1;
            }
            let facts = self.facts.get(&run).cloned().unwrap_or_default();
            self.jobs.insert(job.id, job.to_model(self.repository, run, facts));
        }
    }

    /// Notes what limits have left out.
    pub fn note_limits(&mut self) {
        if self.too_many {
            self.missing.note(|| format!("more than {MAX_WAITING} jobs are waiting"));
        }
        if self.over_time || self.listing.again {
            let (read, of) = (self.read, self.runs.len());
            self.missing
                .note(|| format!("reading it takes several passes; this one read {read} of {of} runs"));
        }
    }
}
