//! What one listing of a repository's jobs keeps for the next: the followed runs, and an unfinished listing.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    listed::Listed,
    reading::Reading,
    turns::SHARE,
    wire::{Job, Run},
};
use crate::model::{JobStatus, RunFacts, RunId, Timestamp};

/// A run without a job of interest is read again after this time, or when it has changed.
const QUIET: Duration = Duration::from_secs(60);

/// What a look at a repository requests: each variant includes the ones before it. All of them follow runs that have
/// been seen active, by their IDs.
///
/// Lists by status come from a search index that lags, sometimes by hours (contract §8). The list of the newest runs is
/// more up to date, but lacks old runs that are rerun. So a job counts as demand if any of these shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Look {
    /// The newest runs. They prove that a job exists, but not that none does.
    Newest,
    /// Also all queued runs: old runs that are rerun.
    Queued,
    /// Also all runs in progress: a job that this does not show is over.
    Active,
    /// Also all that are waiting, pending or requested: they can contain queued jobs.
    All,
}

impl Look {
    /// The name for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Look::Newest => "newest",
            Look::Queued => "queued",
            Look::Active => "active",
            Look::All => "all",
        }
    }
}

/// What a listing could not read: the first reason, and how many more there are.
#[derive(Debug, Clone, Default)]
pub(super) struct Missing {
    pub first: Option<String>,
    pub more: usize,
}

impl Missing {
    pub fn note(&mut self, what: impl FnOnce() -> String) {
        match self.first {
            None => self.first = Some(what()),
            Some(_) => self.more += 1,
        }
    }

    pub fn take<T>(&mut self, list: &Listed<T>, what: impl FnOnce() -> String) {
        if let Some(gap) = list.gap() {
            self.note(|| format!("{}: {gap}", what()));
        }
    }

    pub fn told(self) -> Option<String> {
        let first = self.first?;
        Some(if self.more == 0 { first } else { format!("{first}; {} more like this", self.more) })
    }
}

/// What earlier listings keep for the next one.
#[derive(Debug, Default)]
pub(super) struct Followed {
    /// Runs that have been seen active and whose own jobs have not shown that they are over.
    pub runs: BTreeSet<RunId>,
    /// Runs without a job of interest: when each was last read, and its state then.
    pub quiet: BTreeMap<RunId, (Instant, Mark)>,
    /// Facts about the runs, for templates.
    pub facts: BTreeMap<RunId, Arc<RunFacts>>,
    /// When it was last listed at all.
    pub listed_at: Option<Instant>,
    /// A listing that was unfinished at the end of its turn.
    pub unfinished: Option<Unfinished>,
}

/// Changes whenever something happens in a run; `None` if it was not seen.
pub(super) type Mark = Option<(Option<JobStatus>, Option<u32>, Option<Timestamp>)>;

/// A listing in progress. A long one takes several turns. What it has read about runs is kept; what it has read about
/// their jobs counts only in the same turn.
#[derive(Debug)]
pub(super) struct Unfinished {
    pub look: Look,
    /// The newest runs have not been read yet.
    pub newest: bool,
    /// The state of the newest runs.
    pub marks: BTreeMap<RunId, Mark>,
    pub newest_run: Option<Timestamp>,
    pub has_runs: Option<bool>,
    /// This is not the first turn.
    pub again: bool,
    /// The last turn had time for more than one share: the repository has many runs, and GitHub is not slow.
    pub is_flooded: bool,
    /// The lists of runs still to read, the next one last.
    pub lists: Vec<&'static str>,
    /// The list being read.
    pub list: Option<Reading<Run>>,
    /// Whether at least one could be read.
    pub any_list: bool,
    /// What the lists lack.
    pub missing: Missing,
    /// The runs in the lists.
    pub listed: BTreeSet<RunId>,
    /// The runs in progress, which name the busy runners.
    pub in_progress: BTreeSet<RunId>,
    /// The runs whose jobs have not been read; `None` until the lists have been read.
    pub unread: Option<BTreeSet<RunId>>,
    /// The runs whose jobs have been read partly.
    pub halves: BTreeMap<RunId, Reading<Arc<Job>>>,
}

/// The lists of runs, the first to read last. They are read in the order in which runs pass through them, so that a
/// run that changes its status meanwhile is seen at least once.
pub(super) const LISTS: [&str; 5] = ["in_progress", "queued", "requested", "pending", "waiting"];

impl Unfinished {
    pub fn new(look: Look) -> Self {
        let lists = match look {
            Look::Newest => &[],
            Look::Queued => &LISTS[1..2],
            Look::Active => &LISTS[..2],
            Look::All => &LISTS[..],
        };
        Self {
            look,
            newest: true,
            marks: BTreeMap::new(),
            newest_run: None,
            has_runs: None,
            again: false,
            is_flooded: false,
            lists: lists.to_vec(),
            list: None,
            any_list: false,
            missing: Missing::default(),
            listed: BTreeSet::new(),
            in_progress: BTreeSet::new(),
            unread: None,
            halves: BTreeMap::new(),
        }
    }

    /// Whether a run need not be read now.
    pub fn is_quiet(&self, run: RunId, quiet: &BTreeMap<RunId, (Instant, Mark)>) -> bool {
        let mark = self.marks.get(&run).copied().flatten();
        self.look < Look::Active
            && quiet.get(&run).is_some_and(|(at, before)| at.elapsed() < QUIET && *before == mark)
    }

    /// The order in which the runs' jobs are read. Runs in progress show which runners are busy, queued ones which are
    /// needed. Neither may delay the other.
    pub fn order(&self) -> Vec<RunId> {
        let unread = self.unread.iter().flatten().copied();
        let (busy, mut others): (VecDeque<RunId>, VecDeque<RunId>) =
            unread.partition(|run| self.in_progress.contains(run));
        let mut order = Vec::with_capacity(busy.len() + others.len());
        for run in busy {
            order.push(run);
            order.extend(others.pop_front());
        }
        order.extend(others);
        order
    }

    /// Whether jobs of runs that are not in progress have not been read yet.
    pub fn has_others(&self) -> bool {
        self.unread.iter().flatten().any(|run| !self.in_progress.contains(run))
    }

    /// The same after a turn with this many requests.
    pub fn paused(self, asked: usize) -> Self {
        Self { again: true, is_flooded: asked >= SHARE, ..self }
    }
}
