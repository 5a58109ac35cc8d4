//! The versions of runners that GitHub lists, and until when they get jobs: asked once a day for each.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    github::{Error, RegisteredRunner, Scope, VersionEnds},
    model::Moment,
};

/// How often GitHub is asked for a version.
const DAILY: Duration = Duration::from_secs(24 * 3600);

/// At most this many versions are asked for in a pass, and known at all.
const A_PASS: usize = 3;
const KNOWN: usize = 30;

/// What is known of the versions seen.
#[derive(Default)]
pub(super) struct Versions {
    seen: BTreeMap<String, (Scope, Option<Moment>)>,
    /// When each version that ends stops getting jobs, in seconds since the epoch.
    ends: BTreeMap<String, u64>,
}

impl Versions {
    /// Takes in the runners of a listing that was made anyway.
    pub(super) fn see(&mut self, scope: &Scope, runners: &[RegisteredRunner]) {
        for version in runners.iter().filter_map(|runner| runner.version.as_ref()) {
            if self.seen.len() < KNOWN || self.seen.contains_key(version) {
                let (last, _) = self.seen.entry(version.clone()).or_insert((scope.clone(), None));
                *last = scope.clone();
            }
        }
    }

    /// Those that are to be asked for, and where. From now on they are not.
    pub(super) fn due(&mut self, now: Moment) -> Vec<(String, Scope)> {
        let due = |asked: Option<Moment>| asked.is_none_or(|at| now.saturating_sub(at) >= DAILY);
        let due = self.seen.iter_mut().filter(|(_, (_, asked))| due(*asked)).take(A_PASS);
        due.map(|(version, (scope, asked))| {
            *asked = Some(now);
            (version.clone(), scope.clone())
        })
        .collect()
    }

    /// Takes in until when they get jobs, and warns of those that end soon.
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

    /// When each version that ends stops getting jobs.
    pub(super) fn ends(&self) -> &BTreeMap<String, u64> {
        &self.ends
    }
}
