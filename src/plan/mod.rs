//! The planner: from an observation to actions and holds. Synchronous, without IO, clock or randomness.
//!
//! The rules, one file each:
//!
//! - `survey`: demand and supply of each group, busy and idle runners.
//! - `stop`: surplus, unregistered, spent and gone runners, runners that do not start, and those on draining nodes.
//! - `lifetime`: runners that run for longer than they may.
//! - `stuck`: runners that make no progress.
//! - `room`: which runner gives up its place for whatever is waiting for one.
//! - `start`: missing runners, turns, caps, attempts.
//! - `offers`: jobs that are left to idle warm runners.
//! - `warm`: runners that are ready before there are jobs for them.
//! - `tidy`: credentials, verifications, and what dead runners leave behind.
//! - `rerun`: jobs that were lost with their runners.
//! - `orphans`: what no longer belongs to a runner.
//! - `on_demand`: operators' requests.
//! - `learn`: what a pass remembers for the next.
//!
//! Unseen is not zero: a repository without a listing in this pass has neither starts nor stops.

mod learn;
mod lifetime;
mod offers;
pub mod on_demand;
mod orphans;
mod policy;
mod rerun;
mod room;
mod start;
mod stop;
mod stuck;
mod survey;
#[cfg(test)]
mod tests;
mod tidy;
mod warm;

use std::collections::BTreeSet;

pub use learn::learn;
pub use offers::LEFT_AT_MOST;
pub use policy::{ClassPolicy, Policy, WarmPolicy};
pub use stop::LISTINGS_APART;
use survey::Survey;

use crate::model::{Action, Hold, HoldReason, JobId, Moment, Observation, Plan, RepositoryId, Subject};

/// What to do about `observation`, and what deliberately not to do. `now` is only compared with times in the
/// observation's memory.
pub fn plan(observation: &Observation, policy: &Policy, now: Moment) -> Plan {
    let Some(nomad) = &observation.nomad else {
        let hold = Hold { subject: Subject::Nomad, reason: HoldReason::NomadUnseen };
        return Plan { holds: vec![hold], ..Plan::default() };
    };
    let survey = Survey::new(observation, nomad, policy, now);
    let mut draft = Draft { holds: survey.holds.clone(), ..Draft::default() };

    let spare = stop::spare(&survey);
    let mut surplus = stop::surplus(&survey, &spare, &mut draft);
    let unwanted = warm::unwanted(&survey);
    warm::stops(&survey, &unwanted, &mut surplus, &mut draft);
    stop::spent(&survey, &mut draft);
    stop::not_starting(&survey, &mut draft);
    stop::unregistered(&survey, &mut draft);
    stop::gone(&survey, &mut draft);
    lifetime::out_of_time(&survey, &mut draft);
    stop::on_draining_nodes(&survey, &mut draft);
    let mut given = start::starts(&survey, &mut draft);
    warm::starts(&survey, &mut given.turns, given.placed, given.live, &mut draft);
    room::make_room(&survey, &surplus, &given.held, &mut draft);
    tidy::credentials(&survey, &spare, &unwanted, &mut draft);
    tidy::verifications(&survey, &mut draft);
    tidy::clean_ups(&survey, &mut draft);
    let undecided = rerun::reruns(&survey, observation, &mut draft);
    tidy::purges(&survey, &undecided, &mut draft);
    let orphans = orphans::remove(&survey, observation, &mut draft);
    tidy::explain(&survey, &mut draft);
    stuck::explain(&survey, &mut draft);

    // A runner that is stopped needs no hold that explains why it stays.
    draft
        .holds
        .retain(|hold| !matches!(&hold.subject, Subject::Runner { name } if draft.stopping.contains(name)));
    draft.holds.sort();
    draft.holds.dedup();
    Plan {
        actions: draft.actions,
        holds: draft.holds,
        surplus,
        orphans,
        demand: survey.demand(),
        left: draft.left,
        kept: draft.kept,
        classes: survey.classes,
    }
}

/// The plan under construction.
#[derive(Default)]
struct Draft {
    actions: Vec<Action>,
    holds: Vec<Hold>,
    /// The runners that it stops.
    stopping: BTreeSet<String>,
    /// The jobs that are left to warm runners, and these runners.
    left: BTreeSet<JobId>,
    left_to: BTreeSet<String>,
    /// The repositories that places are kept for.
    kept: BTreeSet<RepositoryId>,
}

impl Draft {
    fn hold_runner(&mut self, name: &str, reason: HoldReason) {
        self.holds.push(Hold { subject: Subject::Runner { name: name.to_owned() }, reason });
    }
}
