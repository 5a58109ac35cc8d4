//! The limits that the configuration sets for the planner.

use std::time::Duration;

use crate::{
    config::{Class, Config, RerunLost, WarmEntry},
    labels::LabelRules,
    model::{Namespace, Repository, RunnerLevel},
};

/// The part of the configuration that the planner follows.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The first part of every name.
    pub prefix: String,
    /// Which labels are ours, and which may be rendered.
    pub labels: LabelRules,
    /// Cap on all runners; `None`: no limit.
    pub max_runners: Option<usize>,
    /// Cap on a repository's runners.
    pub max_runners_per_repository: Option<usize>,
    /// Cap on a group's runners.
    pub max_runners_per_group: Option<usize>,
    /// How long an idle surplus runner stays; `None`: forever.
    pub runner_inactivity_timeout: Option<Duration>,
    /// Idle surplus runners are stopped at once.
    pub strict: bool,
    /// How long a job is kept after success or a stop; `None`: forever.
    pub purge_successfull_timeout: Option<Duration>,
    /// How long a job is kept after any other end; `None`: forever.
    pub purge_failure_timeout: Option<Duration>,
    /// How long something must wait for room before an idle runner that no job needs makes room; `None`:
    /// never.
    pub pending_to_kill_listening: Option<Duration>,
    /// A placed runner without credentials yields its place after this.
    pub waiting_timeout: Duration,
    /// A runner whose task has not started after this is stopped, and its job gets another attempt.
    pub starting_timeout: Duration,
    /// A runner that has not connected to GitHub yields its place after this.
    pub connect_timeout: Duration,
    /// An idle runner that is given none of its queued jobs yields its place after this.
    pub unassigned_timeout: Duration,
    /// A runner that has run for longer is stopped, even if it is busy; `None`: never.
    pub max_run_duration: Option<Duration>,
    /// The budgets for running lost jobs again; `None`: never.
    pub rerun_lost: Option<RerunLost>,
    /// Runners are registered at their repository's organization and outlive the repository.
    pub level: RunnerLevel,
    /// The first class that covers a job determines its runner.
    pub classes: Vec<Class>,
    /// Jobs that no class covers are held.
    pub classes_only: bool,
    /// Runners that are ready before there are jobs for them.
    pub warm: Vec<WarmPolicy>,
}

/// A warm entry of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmPolicy {
    /// The class of its runners; `None`: the top level.
    pub class: Option<String>,
    /// Identifies the settings of its runners. Those that were started with others are outdated.
    pub settings: String,
    /// What it asks for.
    pub entry: WarmEntry,
}

/// A class, with the policy's values for what the class does not set. Each value is resolved when it is read. The top
/// level is the class without a name.
#[derive(Clone, Copy, Debug)]
pub struct ClassPolicy<'a> {
    policy: &'a Policy,
    class: Option<&'a Class>,
}

impl Policy {
    /// The class of a job; `None`: no class covers it, and `classes_only` is set.
    pub fn class_for<S: AsRef<str>>(&self, repository: &Repository, labels: &[S]) -> Option<ClassPolicy<'_>> {
        let class = self.classes.iter().find(|class| class.matches.covers(repository, labels));
        (class.is_some() || !self.classes_only).then_some(ClassPolicy { policy: self, class })
    }

    /// The class of a runner, by the name in its Meta; the top level if no class has that name any more.
    pub fn class_named(&self, name: Option<&str>) -> ClassPolicy<'_> {
        let class = name.and_then(|name| self.classes.iter().find(|class| class.name == name));
        ClassPolicy { policy: self, class }
    }

    /// Where runners can be registered.
    pub fn levels(&self) -> Vec<RunnerLevel> {
        let classes = self.classes.iter().map(|class| ClassPolicy { policy: self, class: Some(class) });
        let mut all: Vec<RunnerLevel> = classes.map(ClassPolicy::level).chain([self.level]).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

impl<'a> ClassPolicy<'a> {
    /// `None` for the top level.
    pub fn name(self) -> Option<&'a str> {
        self.class.map(|class| class.name.as_str())
    }

    /// Why its jobs get no runner, if it denies them.
    pub fn deny(self) -> Option<&'a str> {
        self.class?.deny.as_deref()
    }

    /// Where its runners' jobs are; `None`: the daemon's own namespace.
    pub fn namespace(self) -> Option<&'a Namespace> {
        self.class?.nomad.namespace.as_ref()
    }

    pub fn labels(self) -> &'a LabelRules {
        self.class.and_then(|class| class.labels.as_ref()).unwrap_or(&self.policy.labels)
    }

    /// The cap on the class's runners, in addition to the cap on all; the top level has none.
    pub fn max_runners(self) -> Option<usize> {
        self.class?.max_runners
    }

    /// The cap on the class's runners for one repository, in addition to the repository's own cap.
    pub fn max_runners_per_repository(self) -> Option<usize> {
        self.class?.max_runners_per_repository
    }

    pub fn max_runners_per_group(self) -> Option<usize> {
        self.class.and_then(|class| class.max_runners_per_group).unwrap_or(self.policy.max_runners_per_group)
    }

    /// How long an idle surplus runner stays; `None`: forever.
    pub fn runner_inactivity_timeout(self) -> Option<Duration> {
        let own = self.class.and_then(|class| class.runner_inactivity_timeout);
        own.unwrap_or(self.policy.runner_inactivity_timeout)
    }

    /// Idle surplus runners are stopped at once.
    pub fn strict(self) -> bool {
        self.class.and_then(|class| class.strict).unwrap_or(self.policy.strict)
    }

    /// A placed runner without credentials yields its place after this.
    pub fn waiting_timeout(self) -> Duration {
        self.class.and_then(|class| class.waiting_timeout).unwrap_or(self.policy.waiting_timeout)
    }

    /// A runner whose task has not started after this is stopped.
    pub fn starting_timeout(self) -> Duration {
        self.class.and_then(|class| class.starting_timeout).unwrap_or(self.policy.starting_timeout)
    }

    /// A runner that has not connected to GitHub yields its place after this.
    pub fn connect_timeout(self) -> Duration {
        self.class.and_then(|class| class.connect_timeout).unwrap_or(self.policy.connect_timeout)
    }

    /// An idle runner that is given none of its queued jobs yields its place after this.
    pub fn unassigned_timeout(self) -> Duration {
        self.class.and_then(|class| class.unassigned_timeout).unwrap_or(self.policy.unassigned_timeout)
    }

    /// A runner that has run for longer is stopped, even if it is busy; `None`: never.
    pub fn max_run_duration(self) -> Option<Duration> {
        self.class.and_then(|class| class.max_run_duration).unwrap_or(self.policy.max_run_duration)
    }

    /// Where its runners register.
    pub fn level(self) -> RunnerLevel {
        self.class.and_then(|class| class.scope).unwrap_or(self.policy.level)
    }

    /// Whether its runners register at their organization.
    pub fn registers_at_organization(self) -> bool {
        self.level() == RunnerLevel::Organization
    }
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
            max_run_duration: scheduler.max_run_duration,
            rerun_lost: config.rerun_lost,
            level: config.github.scope,
            classes: config.classes.clone(),
            classes_only: config.classes_only,
            warm: config
                .warm_entries()
                .into_iter()
                .map(|(class, settings, entry)| WarmPolicy { class, settings, entry })
                .collect(),
        }
    }
}
