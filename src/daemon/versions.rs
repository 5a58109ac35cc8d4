//! The runner versions that GitHub lists, and when they stop getting jobs. GitHub is asked once a day for
//! each.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    github::{Error, RegisteredRunner, Scope, VersionEnds},
    model::Moment,
};

/// How often GitHub is asked about a version.
const DAILY: Duration = Duration::from_secs(24 * 3600);

/// At most this many versions are asked about in a pass, and remembered at all.
const A_PASS: usize = 3;
const KNOWN: usize = 30;

/// What is known of the versions seen.
#[derive(Default)]
pub(super) struct Versions {
    seen: BTreeMap<String, (Scope, Option<Moment>)>,
    /// For each version that ends, when it stops getting jobs, in seconds since the epoch.
    ends: BTreeMap<String, u64>,
}

impl Versions {
    /// Records the versions in a listing that was made anyway.
    pub(super) fn see(&mut self, scope: &Scope, runners: &[RegisteredRunner]) {
        for version in runners.iter().filter_map(|runner| runner.version.as_ref()) {
            if self.seen.len() < KNOWN || self.seen.contains_key(version) {
                let (last, _) = self.seen.entry(version.clone()).or_insert((scope.clone(), None));
                *last = scope.clone();
            }
        }
    }

    /// The versions that are due to be asked about, and where. They then count as asked.
    pub(super) fn due(&mut self, now: Moment) -> Vec<(String, Scope)> {
        let due = |asked: Option<Moment>| asked.is_none_or(|at| now.since(at) >= DAILY);
        let due = self.seen.iter_mut().filter(|(_, (_, asked))| due(*asked)).take(A_PASS);
        due.map(|(version, (scope, asked))| {
            *asked = Some(now);
            (version.clone(), scope.clone())
        })
        .collect()
    }

    /// Records when they stop getting jobs, and warns of those that end soon.
    pub(super) fn learn(&mut self, ends: Vec<(String, Result<Option<VersionEnds>, Error>)>) {
        for (version, ends) in ends {
            match ends {
                Ok(Some(ends)) => {
                    if let Some(warning) = ends.warning(&version) {
                        tracing::warn!("{warning}");
                    }
                    let seconds = ends.jobs.and_then(|at| u64::try_from(at.as_second()).ok());
                    match seconds {
                        Some(seconds) => self.ends.insert(version, seconds),
                        None => self.ends.remove(&version),
                    };
                }
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, version, "cannot look up when a runner's version ends"),
            }
        }
    }

    /// For each version that ends, when it stops getting jobs.
    pub(super) fn ends(&self) -> &BTreeMap<String, u64> {
        &self.ends
    }
}
