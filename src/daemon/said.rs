//! What is logged about passes: each thing once while it lasts.

use std::{collections::BTreeMap, time::Duration};

use super::{Pass, ended};
use crate::model::{Hold, HoldReason, Moment, summary};

/// Something that was absent for this long is logged again when it reappears. A shorter absence does not count, because
/// a pass does not see everything that the previous one saw.
const FORGOTTEN: Duration = Duration::from_secs(300);

/// What was logged, and when it last applied.
#[derive(Default)]
pub(super) struct Said(BTreeMap<String, Moment>);

impl Said {
    /// How many of them are remembered.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Logs what was done, and what is new among errors and holds.
    pub fn say(&mut self, pass: &Pass, now: Moment) {
        // The other actions were logged when they ended.
        for report in pass.done().filter(|report| report.outcome.is_dry_run()) {
            ended::say(report, Duration::ZERO);
        }
        self.0.retain(|_, at| now.since(*at) < FORGOTTEN);
        for error in &pass.errors {
            // A changed remaining time is not news, but the same kind of error of another repository is.
            if self.is_news(format!("{} of {}", error.kind, error.subject), now) {
                tracing::error!("{error}");
            }
        }
        // An error already reports this.
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
