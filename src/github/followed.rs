//! What one listing of a repository's jobs leaves for the next: the runs that are followed, and a listing that is not over.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::listed::Listed;
use super::reading::Reading;
use super::turns::SHARE;
use super::wire::{Job, Run};
use crate::model::{JobStatus, RunId, Timestamp};

/// A run without a job of interest is looked into again after this time, or when it has changed.
const QUIET: Duration = Duration::from_secs(60);

/// What a look at a repository asks for: each asks for more than the one before it. Runs that were seen active are followed by
/// their IDs in all of them.
///
/// Lists by status come from a search index that lags behind, for hours at times (contract §8); the list of the newest runs
/// is right more often, and lacks old runs that are run again. So demand is what any of them shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Look {
    /// The newest runs. It proves that a job is there, not that none is.
    Newest,
    /// Those, and all queued ones: old runs that are run again.
    Queued,
    /// Those, and all in progress: what it does not show is over.
    Active,
    /// Those, and all that wait, are pending or requested: they can hold queued jobs.
    All,
}

impl Look {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Look::Newest => "newest",
            Look::Queued => "queued",
            Look::Active => "active",
            Look::All => "all",
        }
    }
}

/// What a listing could not see. The first reason is told, and how many more there are.
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

/// What earlier listings leave for the next one.
#[derive(Debug, Default)]
pub(super) struct Followed {
    /// Runs seen active whose own jobs have not said that they are over.
    pub runs: BTreeSet<RunId>,
    /// Those without a job of interest: when each was last looked into, and what it was like.
    pub quiet: BTreeMap<RunId, (Instant, Mark)>,
    /// When it was last listed at all.
    pub listed_at: Option<Instant>,
    /// A listing that was not over when its turn was.
    pub unfinished: Option<Unfinished>,
}

/// What changes when something happens in a run; `None` where that was not seen.
pub(super) type Mark = Option<(Option<JobStatus>, Option<u32>, Option<Timestamp>)>;

/// A listing while it is made. One that is long takes several turns: what tells of runs stays, what tells of their jobs
/// counts in the turn alone in which it was read.
#[derive(Debug)]
pub(super) struct Unfinished {
    pub look: Look,
    /// The newest runs are yet to be read.
    pub newest: bool,
    /// What the newest runs are like.
    pub marks: BTreeMap<RunId, Mark>,
    pub newest_run: Option<Timestamp>,
    pub has_runs: Option<bool>,
    /// It is not the first turn.
    pub again: bool,
    /// The last turn had time for more than one share: the repository has many runs, and GitHub is not slow.
    pub is_flooded: bool,
    /// The lists of runs to be read, the next one last.
    pub lists: Vec<&'static str>,
    /// The one that is being read.
    pub list: Option<Reading<Run>>,
    /// One could be read at least.
    pub any_list: bool,
    /// What the lists lack.
    pub missing: Missing,
    /// What the lists have.
    pub listed: BTreeSet<RunId>,
    /// Those in progress, which name the runners that are busy.
    pub in_progress: BTreeSet<RunId>,
    /// The runs whose jobs are to be read; `None` before the lists are.
    pub unread: Option<BTreeSet<RunId>>,
    /// Those whose jobs were read in part.
    pub halves: BTreeMap<RunId, Reading<Arc<Job>>>,
}

/// The lists of runs, the first one last. They are read in the order in which runs go through them, so that one that
/// moves on meanwhile is seen at least once.
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

    /// Whether a run need not be looked into now.
    pub fn is_quiet(&self, run: RunId, quiet: &BTreeMap<RunId, (Instant, Mark)>) -> bool {
        let mark = self.marks.get(&run).copied().flatten();
        self.look < Look::Active
            && quiet.get(&run).is_some_and(|(at, before)| at.elapsed() < QUIET && *before == mark)
    }

    /// Whose jobs are read in which order. What is in progress tells who is busy, what is queued who is needed: none of
    /// them may hold up the other.
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

    /// Whether jobs of runs that are not in progress are yet to be read.
    pub fn has_others(&self) -> bool {
        self.unread.iter().flatten().any(|run| !self.in_progress.contains(run))
    }

    /// The same after a turn with this many requests.
    pub fn paused(self, asked: usize) -> Self {
        Self { again: true, is_flooded: asked >= SHARE, ..self }
    }
}
