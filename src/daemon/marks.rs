//! What matters about runners when listings of their repositories are used: which appeared, and which
//! disappeared.

use std::{collections::BTreeMap, sync::Arc};

use crate::model::{NomadView, RepositoryId, Runner, RunnerState};

/// The relevant state of each repository's runners, in one view of Nomad.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks(BTreeMap<RepositoryId, OfOne>);

/// The relevant state of one repository's runners.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OfOne(BTreeMap<Arc<str>, Mark>);

/// The relevant state of a runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    /// It takes jobs, now or soon.
    Serves,
    /// It is alive but takes no jobs.
    Leaves,
    Dead,
}

impl Mark {
    fn of(runner: &Runner) -> Mark {
        match runner.state {
            RunnerState::Dead => Mark::Dead,
            RunnerState::Stopping | RunnerState::Disconnected => Mark::Leaves,
            _ if runner.spent => Mark::Leaves,
            _ => Mark::Serves,
        }
    }
}

impl Marks {
    /// For all runners whose repository is known.
    pub fn new(nomad: &NomadView, repository: impl Fn(&Runner) -> Option<RepositoryId>) -> Marks {
        let mut marks = Marks::default();
        for runner in &nomad.runners {
            if let Some(id) = repository(runner) {
                marks.0.entry(id).or_default().0.insert(runner.name.as_str().into(), Mark::of(runner));
            }
        }
        marks
    }

    /// For the runners of one repository.
    pub fn of(&self, repository: RepositoryId) -> OfOne {
        self.0.get(&repository).cloned().unwrap_or_default()
    }

    /// The repositories with live runners.
    pub fn live(&self) -> impl Iterator<Item = &RepositoryId> {
        self.0.iter().filter(|(_, of_one)| of_one.any_live()).map(|(id, _)| id)
    }

    /// Whether a repository's runners have not changed.
    pub fn are_still(&self, repository: RepositoryId, before: &OfOne) -> bool {
        self.0.get(&repository).map_or(before.0.is_empty(), |now| now == before)
    }

    /// Whether a runner that took jobs then no longer does.
    pub fn lack(&self, repository: RepositoryId, before: &OfOne) -> bool {
        let now = self.0.get(&repository);
        let serves = |name| now.and_then(|now| now.0.get(name)) == Some(&Mark::Serves);
        before.0.iter().any(|(name, mark)| *mark == Mark::Serves && !serves(name))
    }
}

impl OfOne {
    /// Whether there is a runner, dead or alive.
    pub fn any(&self) -> bool {
        !self.0.is_empty()
    }

    /// Whether there is a live runner.
    pub fn any_live(&self) -> bool {
        self.0.values().any(|mark| *mark != Mark::Dead)
    }
}
