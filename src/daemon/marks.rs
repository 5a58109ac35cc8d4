//! What runners are to the listings of their repositories: who came, and who went.

use std::{collections::BTreeMap, sync::Arc};

use crate::model::{NomadView, RepositoryId, Runner, RunnerState};

/// What the runners of each repository are, in one view of Nomad.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks(BTreeMap<RepositoryId, OfOne>);

/// What the runners of one repository are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OfOne(BTreeMap<Arc<str>, Mark>);

/// What a runner is to a listing of its repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    /// It takes jobs, now or soon.
    Serves,
    /// It is alive and takes none.
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
    /// Those of all runners whose repository is known.
    pub fn new(nomad: &NomadView, repository: impl Fn(&Runner) -> Option<RepositoryId>) -> Marks {
        let mut marks = Marks::default();
        for runner in &nomad.runners {
            if let Some(id) = repository(runner) {
                marks.0.entry(id).or_default().0.insert(runner.name.as_str().into(), Mark::of(runner));
            }
        }
        marks
    }

    /// Those of one repository's runners.
    pub fn of(&self, repository: RepositoryId) -> OfOne {
        self.0.get(&repository).cloned().unwrap_or_default()
    }

    /// The repositories with runners that are alive.
    pub fn live(&self) -> impl Iterator<Item = &RepositoryId> {
        self.0.iter().filter(|(_, of_one)| of_one.any_live()).map(|(id, _)| id)
    }

    /// Whether a repository's runners are what they were.
    pub fn are_still(&self, repository: RepositoryId, before: &OfOne) -> bool {
        self.0.get(&repository).map_or(before.0.is_empty(), |now| now == before)
    }

    /// Whether a runner that served then does not serve now.
    pub fn lack(&self, repository: RepositoryId, before: &OfOne) -> bool {
        let now = self.0.get(&repository);
        let serves = |name| now.and_then(|now| now.0.get(name)) == Some(&Mark::Serves);
        before.0.iter().any(|(name, mark)| *mark == Mark::Serves && !serves(name))
    }
}

impl OfOne {
    /// Whether there is one, dead or alive.
    pub fn any(&self) -> bool {
        !self.0.is_empty()
    }

    /// Whether one is alive.
    pub fn any_live(&self) -> bool {
        self.0.values().any(|mark| *mark != Mark::Dead)
    }
}
