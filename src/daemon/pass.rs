//! What a pass saw and did.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    model::{
        Action, Memory, Moment, Observation, Ownership, Plan, Report, RepositoryId, RunnerState, Unobserved,
    },
    plan::Policy,
};

/// Called at the end of each pass, with its policy and with what it leaves for the next one.
pub type Witness = Box<dyn FnMut(&Pass, &Policy, &Memory) + Send>;

#[derive(Debug)]
pub struct Pass {
    pub observation: Observation,
    /// When it began, with `early` already learned.
    pub began_at: Moment,
    pub planned_at: Moment,
    pub plan: Plan,
    /// The outcomes that are known, in the plan's order.
    pub reports: Vec<Report>,
    /// The memory from before that, if there is a witness.
    pub remembered: Option<Memory>,
    /// The outcomes of earlier passes' actions that had ended when this pass began. The plan takes them into
    /// account.
    pub early: Vec<Report>,
    /// The same for actions that had ended only at its end.
    pub late: Vec<Report>,
    /// What could not be observed.
    pub errors: Vec<Unobserved>,
    /// The listings it could use as fresh ones, and how long before the plan each began.
    pub fresh: BTreeMap<RepositoryId, Duration>,
    /// Actions of earlier passes that were still in progress when this one planned.
    pub under_way: Vec<Action>,
    /// Actions that were still in progress at its end.
    pub left: Vec<Action>,
    /// When it had done what it could.
    pub applied_at: Moment,
    /// Whether this replica was the leader at the end. If not, not everything was applied.
    pub led: bool,
}

impl Pass {
    /// Whether anything failed.
    pub fn failed(&self) -> bool {
        !self.errors.is_empty() || self.done().any(|report| report.outcome.is_failure())
    }

    /// Whether Nomad alone may have news soon: something was started, or waits for a place or for
    /// credentials.
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

    /// The outcomes of actions, whenever they were started.
    pub fn done(&self) -> impl Iterator<Item = &Report> {
        self.early.iter().chain(&self.late).chain(&self.reports)
    }

    pub(super) fn starts(&self) -> usize {
        self.reports.iter().filter(|report| matches!(report.action, Action::Start(_))).count()
    }

    /// Whether a runner is waiting for credentials, or soon will be.
    pub(super) fn waits_for_secret(&self) -> bool {
        self.observation.nomad.iter().flat_map(|nomad| &nomad.runners).any(|runner| {
            let placed = runner.state == RunnerState::Pending && runner.blocked.is_none();
            runner.ownership == Ownership::Ours && (placed || runner.state == RunnerState::Waiting)
        })
    }
}
