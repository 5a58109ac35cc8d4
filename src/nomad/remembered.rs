//! What is remembered of each namespace, if there are several: the runners, and the last failure.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use super::error::Error;
use crate::model::Runner;

/// How soon a namespace is requested again after a failure. The wait doubles while that fails. The daemon's own is
/// requested in every pass.
const FIRST_REST: Duration = Duration::from_secs(5);

/// The longest wait.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// What is remembered of a namespace if there are several.
#[derive(Clone, Default)]
pub(super) struct Remembered {
    /// The runners, as they were last seen.
    runners: Vec<Runner>,
    /// The last failure, if it was not read since.
    failure: Option<Failure>,
}

/// A namespace could not be read.
#[derive(Clone)]
struct Failure {
    error: Error,
    /// It is not requested again before this time.
    until: Instant,
    rest: Duration,
}

impl Remembered {
    /// Whether it had runners when it was last seen.
    pub(super) fn has_runners(&self) -> bool {
        !self.runners.is_empty()
    }

    /// The runners, as they were last seen.
    pub(super) fn runners(&self) -> &[Runner] {
        &self.runners
    }

    /// The last failure, if it was too recent to try again.
    pub(super) fn rests(&self) -> Option<Error> {
        let failure = self.failure.as_ref().filter(|failure| Instant::now() < failure.until)?;
        Some(failure.error.clone())
    }

    pub(super) fn sees(&mut self, runners: &[Runner]) {
        self.runners = runners.to_vec();
        self.failure = None;
    }

    /// Records a failure, unless it is the last one once more.
    pub(super) fn fails(&mut self, error: &Error) {
        let earlier = self.failure.as_ref();
        if earlier.is_some_and(|failure| Instant::now() < failure.until) {
            return;
        }
        let rest = earlier.map_or(FIRST_REST, |failure| (failure.rest * 2).min(LONGEST_REST));
        self.failure = Some(Failure { error: error.clone(), until: Instant::now() + rest, rest });
    }
}

/// The nodes that are being drained in each region, by ID; the region of `None` is the daemon's own.
pub(super) type Drains = BTreeMap<Option<String>, KnownDrains>;

/// The nodes of one region.
#[derive(Clone, Default)]
pub(super) struct KnownDrains {
    pub(super) nodes: BTreeSet<String>,
    /// They are not read again before this time.
    pub(super) until: Option<Instant>,
}
