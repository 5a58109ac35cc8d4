//! What the configuration allows the planner.

use std::time::Duration;

use crate::{config::Config, labels::LabelRules};

/// The part of the configuration that the planner obeys.
#[derive(Clone, Debug)]
pub struct Policy {
    /// First part of every name.
    pub prefix: String,
    /// Which labels are ours and which may be rendered.
    pub labels: LabelRules,
    /// Cap on all runners; `None`: no limit.
    pub max_runners: Option<usize>,
    /// Cap on a repository's runners.
    pub max_runners_per_repository: Option<usize>,
    /// Cap on a group's runners.
    pub max_runners_per_group: Option<usize>,
    /// How long an idle surplus runner stays; `None`: for ever.
    pub runner_inactivity_timeout: Option<Duration>,
    /// Idle surplus runners go at once.
    pub strict: bool,
    /// How long a job stays after success or stop; `None`: for ever.
    pub purge_successfull_timeout: Option<Duration>,
    /// How long a job stays after any other end; `None`: for ever.
    pub purge_failure_timeout: Option<Duration>,
    /// How long something waits for room before an idle runner that no job needs makes room; `None`: never.
    pub pending_to_kill_listening: Option<Duration>,
    /// A placed runner without credentials yields to others after this.
    pub waiting_timeout: Duration,
    /// A runner whose task has not started after this is stopped, and its job gets another attempt.
    pub starting_timeout: Duration,
    /// A runner that has not connected to GitHub after this yields to others.
    pub connect_timeout: Duration,
    /// An idle runner that is given no queued job for this long yields to others.
    pub unassigned_timeout: Duration,
    /// Runners belong to their repository's organization and outlive the repository.
    pub organization: bool,
}

impl From<&Config> for Policy {
    fn from(config: &Config) -> Self {
        let scheduler = &config.scheduler;
        Policy {
            prefix: config.nomad.jobprefix.clone(),
            labels: config.labels.clone(),
            max_runners: scheduler.max_runners,
            max_runners_per_repository: scheduler.max_runners_per_repository,
            max_runners_per_group: scheduler.max_runners_per_group,
            runner_inactivity_timeout: scheduler.runner_inactivity_timeout,
            strict: scheduler.strict,
            purge_successfull_timeout: scheduler.purge_successfull_timeout,
            purge_failure_timeout: scheduler.purge_failure_timeout,
            pending_to_kill_listening: scheduler.pending_to_kill_listening,
            waiting_timeout: scheduler.waiting_timeout,
            starting_timeout: scheduler.starting_timeout,
            connect_timeout: scheduler.connect_timeout,
            unassigned_timeout: scheduler.unassigned_timeout,
            organization: config.organization(),
        }
    }
}
