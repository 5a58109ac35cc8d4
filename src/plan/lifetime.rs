//! Runners that run for longer than `max_run_duration`. Nomad 2.0.3 and later ends them itself. This ends those that
//! remain.

use std::time::Duration;

use super::{Draft, stop::stop, survey::Survey};
use crate::model::{HoldReason, Ownership, StopReason};

/// How long after the limit a runner is stopped. Nomad counts from the allocation, so it is earlier if it knows the
/// limit.
pub const GRACE: Duration = Duration::from_secs(30);

/// The end is announced this long before, or a quarter of the limit before, whichever is shorter.
const ANNOUNCED: Duration = Duration::from_secs(900);

/// Stops runners that have run for too long, with their jobs, and announces the end of others.
pub(super) fn out_of_time(survey: &Survey, draft: &mut Draft) {
    for runner in survey.runners.values().filter(|runner| runner.ownership == Ownership::Ours) {
        let Some(limit) = survey.class_of(runner).max_run_duration() else { continue };
        let Some(ran) = survey.in_use_for(runner) else { continue };
        if ran >= limit + GRACE && survey.listed(runner).is_some() {
            stop(survey, draft, runner, StopReason::MaxRunDuration { ran, limit });
        }
        if ran + ANNOUNCED.min(limit / 4) >= limit && !draft.stopping.contains(&runner.name) {
            draft.hold_runner(&runner.name, HoldReason::MaxRunDuration { ran, limit });
        }
    }
}
