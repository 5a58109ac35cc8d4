//! Indexes of jobs that need a runner and of jobs that have changed recently, so that observers need not search all
//! jobs. Also a cache of the jobs' JSON, because lists are requested much more often than jobs change.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use jiff::Timestamp;

use super::{
    GitHub,
    data::{Job, Status},
};

/// Jobs of one repository with the same labels, by when they appeared.
type Line = BTreeSet<(Timestamp, u64)>;

/// An index of the jobs, updated when one changes its status.
#[derive(Default)]
pub(super) struct Queue {
    lines: BTreeMap<(u64, Vec<String>), Line>,
    changes: BTreeSet<(Timestamp, u64)>,
    changed_at: BTreeMap<u64, Timestamp>,
    /// The jobs' JSON, each for the base of its URLs.
    texts: RefCell<BTreeMap<u64, (String, String)>>,
}

impl Queue {
    fn remove(&mut self, job: &Job) {
        let key = (job.repository, job.labels.clone());
        if let Some(line) = self.lines.get_mut(&key) {
            line.remove(&(job.created_at, job.id));
            if line.is_empty() {
                self.lines.remove(&key);
            }
        }
        if let Some(at) = self.changed_at.remove(&job.id) {
            self.changes.remove(&(at, job.id));
        }
        self.texts.get_mut().remove(&job.id);
    }
}

impl GitHub {
    /// To be called after each change of a job's status.
    pub(super) fn note_status(&mut self, id: u64, now: Timestamp) {
        let Some(job) = self.jobs.get(&id) else { return };
        let queue = &mut self.queue;
        queue.remove(job);
        if job.status == Status::Queued {
            let key = (job.repository, job.labels.clone());
            queue.lines.entry(key).or_default().insert((job.created_at, id));
        }
        queue.changed_at.insert(id, now);
        queue.changes.insert((now, id));
    }

    /// A job is forgotten.
    pub(super) fn forget_job(&mut self, id: u64) {
        if let Some(job) = self.jobs.remove(&id) {
            self.queue.remove(&job);
        }
    }

    /// The queued jobs, whether offered to a runner or not, including ghosts: by repository and labels in their
    /// original spelling, then by when they appeared.
    pub fn queued(&self) -> impl Iterator<Item = (u64, &[String], &Line)> {
        self.queue.lines.iter().map(|((repository, labels), line)| (*repository, labels.as_slice(), line))
    }

    /// The jobs whose status has changed since then, including that moment, the earliest change first.
    pub fn changed_since(&self, since: Timestamp) -> impl Iterator<Item = &Job> {
        self.queue.changes.range((since, 0)..).filter_map(|(_, id)| self.jobs.get(id))
    }

    /// Jobs of a repository in JSON, separated by commas.
    pub(super) fn job_texts(&self, repository: u64, jobs: &[&Job], base: &str) -> String {
        let address = format!("{base}/{}", self.full_name(repository).unwrap_or_default());
        let mut texts = self.queue.texts.borrow_mut();
        let mut all = String::new();
        for job in jobs {
            let (known, text) = texts.entry(job.id).or_default();
            if *known != address {
                known.clone_from(&address);
                *text = self.job_json(job, base).to_string();
            }
            if !all.is_empty() {
                all.push(',');
            }
            all.push_str(text);
        }
        all
    }

    /// The number of remembered jobs.
    pub fn count_jobs(&self) -> usize {
        self.jobs.len()
    }
}
