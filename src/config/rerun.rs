//! `rerun_lost`: runs jobs again that were lost with their runners.

use super::reader::Section;

/// The maximum number of re-runs per hour. Each leaves a variable in Nomad for a week.
const PER_HOUR_MAX: usize = 100;

/// GitHub permits at most 50 re-runs of a workflow run (contract github.md §8).
const PER_JOB_MAX: usize = 50;

/// The budgets for running lost jobs again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RerunLost {
    /// `per_job`: the maximum number of re-runs of one job of a run.
    pub per_job: usize,
    /// `per_hour`: the maximum number of re-runs in any hour.
    pub per_hour: usize,
    /// `cancelled`: also jobs of drained and preempted runners that GitHub lists as cancelled.
    pub cancelled: bool,
}

impl Default for RerunLost {
    fn default() -> Self {
        RerunLost { per_job: 2, per_hour: 20, cancelled: false }
    }
}

/// Reads `rerun_lost`; `None`: off.
pub(super) fn parse(top: &Section) -> Option<RerunLost> {
    let section = top.section("rerun_lost");
    let enabled = section.boolean("enabled", false);
    let default = RerunLost::default();
    let limit = |key, default, most| {
        let limit = section.count(key).unwrap_or(default);
        if limit == 0 || limit > most {
            section.problem(
                key,
                format!("{limit}"),
                format!("write 1 to {most}; enabled: false turns it off"),
            );
        }
        limit
    };
    let rerun = RerunLost {
        per_job: limit("per_job", default.per_job, PER_JOB_MAX),
        per_hour: limit("per_hour", default.per_hour, PER_HOUR_MAX),
        cancelled: section.boolean("cancelled", default.cancelled),
    };
    section.finish();
    enabled.then_some(rerun)
}
