//! What an entry of the configuration resolved to when it was last read.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::listed::{Gap, Listed};
use crate::model::{Repository, RepositoryId};

/// An entry that was read incompletely is read again after this time: pages shift while they are read, and the next
/// reading may be complete.
const PART_READ_AGAIN: Duration = Duration::from_secs(60);

/// What an entry resolved to.
#[derive(Debug, Clone)]
pub(super) struct Remembered {
    /// By ID, each with whether the last reading included it.
    pub(super) repositories: BTreeMap<RepositoryId, (Repository, bool)>,
    /// Why the last reading was incomplete.
    pub(super) gap: Option<Gap>,
    at: Instant,
}

impl Remembered {
    /// Combines a reading with what was known before: an incomplete reading removes nothing.
    pub(super) fn learned(before: Option<&Remembered>, read: Listed<Repository>) -> Self {
        let gap = read.gap().cloned();
        let mut repositories = BTreeMap::new();
        if let Some(before) = before.filter(|_| gap.is_some()) {
            let unconfirmed = |(id, (repository, _)): (&RepositoryId, &(Repository, bool))| {
                (*id, (repository.clone(), false))
            };
            repositories.extend(before.repositories.iter().map(unconfirmed));
        }
        repositories.extend(read.into_known().into_iter().map(|found| (found.id, (found, true))));
        Self { repositories, gap, at: Instant::now() }
    }

    /// After a failed reading.
    pub(super) fn doubt(&mut self) {
        self.repositories.values_mut().for_each(|(_, confirmed)| *confirmed = false);
    }

    pub(super) fn is_due(&self, refresh: Duration) -> bool {
        self.at.elapsed() >= if self.gap.is_some() { refresh.min(PART_READ_AGAIN) } else { refresh }
    }
}
