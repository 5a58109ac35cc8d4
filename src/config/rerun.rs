//! `rerun_lost`: jobs that were lost with their runners are run again.

use super::reader::Section;

/// The most re-runs in an hour: each leaves a variable in Nomad for a week.
const PER_HOUR_MAX: usize = 100;

/// GitHub runs a workflow run again 50 times at most (contract github.md §8).
const PER_JOB_MAX: usize = 50;

/// How often lost jobs are run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RerunLost {
    /// `per_job`: the same job of a run at most so many times.
    pub per_job: usize,
    /// `per_hour`: at most so many jobs in any hour.
    pub per_hour: usize,
    /// `cancelled`: jobs of drained and preempted runners that GitHub lists as cancelled, too.
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
