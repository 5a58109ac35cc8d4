//! What is said of passes in the log: each thing once, while it lasts.

use std::{collections::BTreeMap, time::Duration};

use super::{Pass, ended};
use crate::model::{Hold, HoldReason, Moment, summary};

/// What has not been so for this long is news when it is so again: a pass does not see everything that the one before it saw.
const FORGOTTEN: Duration = Duration::from_secs(300);

/// What was said, and when it was so for the last time.
#[derive(Default)]
pub(super) struct Said(BTreeMap<String, Moment>);

impl Said {
    /// How many things are remembered.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Says what was done, and what is new among what was not.
    pub fn say(&mut self, pass: &Pass, now: Moment) {
        // The others were told when they ended.
        for report in pass.done().filter(|report| report.outcome.is_dry_run()) {
            ended::say(report, Duration::ZERO);
        }
        self.0.retain(|_, at| now.saturating_sub(*at) < FORGOTTEN);
        for error in &pass.errors {
            // The time that is left, say, is no news; another repository's error of the same kind is.
            if self.is_news(format!("{} of {}", error.kind, error.subject), now) {
                tracing::error!("{error}");
            }
        }
        // An error says it already.
        let is_worth_a_line =
            |hold: &&Hold| !matches!(hold.reason, HoldReason::NotListed { .. }) && !hold.reason.is_routine();
        for line in summary::lines(pass.plan.holds.iter().filter(is_worth_a_line)) {
            if !self.is_news(line.topic(), now) {
                continue;
            }
            if line.hold().reason.is_warning() {
                tracing::warn!("{line}");
            } else {
                tracing::info!("{line}");
            }
        }
        tracing::debug!(actions = pass.reports.len(), holds = pass.plan.holds.len(), "pass");
    }

    fn is_news(&mut self, topic: String, now: Moment) -> bool {
        self.0.insert(topic, now).is_none()
    }
}
