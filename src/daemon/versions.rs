//! The versions of runners that GitHub lists, and until when they get jobs: asked once a day for each.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    github::{GitHub, RegisteredRunner, Scope},
    model::Moment,
};

/// How often GitHub is asked for a version.
const DAILY: Duration = Duration::from_secs(24 * 3600);

/// So many versions are asked for in a pass, and known at all.
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

    /// Asks for those that are due, and warns of those that end soon. Gives all ends, for the metrics.
    pub(super) async fn ask(&mut self, github: &GitHub, now: Moment) -> &BTreeMap<String, u64> {
        let due = |asked: Option<Moment>| asked.is_none_or(|at| now.saturating_sub(at) >= DAILY);
        let due = self.seen.iter_mut().filter(|(_, (_, asked))| due(*asked)).take(A_PASS);
        for (version, (scope, asked)) in due {
            *asked = Some(now);
            match github.version_ends(scope, version).await {
                Ok(Some(ends)) => {
                    if let Some(warning) = ends.warning(version) {
                        tracing::warn!("{warning}");
                    }
                    let seconds = ends.jobs.and_then(|at| u64::try_from(at.as_second()).ok());
                    match seconds {
                        Some(seconds) => self.ends.insert(version.clone(), seconds),
                        None => self.ends.remove(version),
                    };
                }
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, version, "cannot look up when a runner's version ends"),
            }
        }
        &self.ends
    }
}
