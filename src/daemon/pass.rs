//! What a pass saw and did.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    model::{
        Action, Memory, Moment, Observation, Ownership, Plan, Report, RepositoryId, RunnerState, Unobserved,
    },
    plan::Policy,
};

/// Told of each pass when it is over, with the policy that it planned by and with what it leaves for the next one.
pub type Witness = Box<dyn FnMut(&Pass, &Policy, &Memory) + Send>;

/// What a pass saw and did.
#[derive(Debug)]
pub struct Pass {
    /// What it saw.
    pub observation: Observation,
    /// When it began, and learned what `early` says.
    pub began_at: Moment,
    /// When it planned.
    pub planned_at: Moment,
    /// What it planned.
    pub plan: Plan,
    /// What became of it, as far as it is over, in the plan's order.
    pub reports: Vec<Report>,
    /// What was remembered before that, where a witness is told.
    pub remembered: Option<Memory>,
    /// What became of actions that earlier passes began and that were over when this one looked: it planned by that.
    pub early: Vec<Report>,
    /// The same of those that were over only at its end.
    pub late: Vec<Report>,
    /// What could not be observed.
    pub errors: Vec<Unobserved>,
    /// Which listings it could use as fresh ones, and how long before the plan each of them began.
    pub fresh: BTreeMap<RepositoryId, Duration>,
    /// The actions that earlier passes had begun and that were not over when this one planned.
    pub under_way: Vec<Action>,
    /// Those that were not over at its end.
    pub left: Vec<Action>,
    /// When it had done what it could.
    pub applied_at: Moment,
    /// Whether this replica led at the end: otherwise nothing was applied, or not all.
    pub led: bool,
}

impl Pass {
    /// Whether anything failed.
    pub fn failed(&self) -> bool {
        !self.errors.is_empty() || self.done().any(|report| report.outcome.is_failure())
    }

    /// Whether Nomad alone can bring news soon: something was started, or waits for a place or a secret.
    pub(super) fn is_unsettled(&self) -> bool {
        let waits = |state| matches!(state, RunnerState::Pending | RunnerState::Waiting);
        self.starts() > 0
            || self
                .observation
                .nomad
                .iter()
                .flat_map(|nomad| &nomad.runners)
                .any(|runner| waits(runner.state) && runner.ownership == Ownership::Ours)
    }

    /// What became of actions, whenever they began.
    pub fn done(&self) -> impl Iterator<Item = &Report> {
        self.early.iter().chain(&self.late).chain(&self.reports)
    }

    pub(super) fn starts(&self) -> usize {
        self.reports.iter().filter(|report| matches!(report.action, Action::Start(_))).count()
    }

    /// Whether a runner waits for its secret, or soon will.
    pub(super) fn waits_for_secret(&self) -> bool {
        self.observation.nomad.iter().flat_map(|nomad| &nomad.runners).any(|runner| {
            let placed = runner.state == RunnerState::Pending && runner.blocked.is_none();
            runner.ownership == Ownership::Ours && (placed || runner.state == RunnerState::Waiting)
        })
    }
}
