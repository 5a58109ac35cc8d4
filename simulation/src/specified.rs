//! Checks each pass of each daemon against the specification: what it saw and planned, and what it leaves for
//! the next.

use std::sync::{Arc, Mutex, PoisonError};

use githubrunner::{
    daemon::{Pass, Witness},
    model::{Memory, Observation, Plan, Report},
    plan::Policy,
};
use githubrunner_sim::world::{Shared, lock};
use githubrunner_specification::{Asks, Lesson, Seen, broken_by, wrongly_remembered};

use super::{checker::sight::Sights, metamorphic, secrets::harm_in};
use crate::{deployment::Place, faults::labels::is_servable, findings::Findings};

/// Larger worlds are not checked in each pass.
const LARGE: usize = 500;

/// There, one pass of this many is checked.
const ONE_OF: u64 = 50;

/// One pass of this many is also checked with a change. Doing so for each would make a run a tenth longer.
const WHAT_IF: u64 = 4;

/// Where to report, and what is needed to know the true state.
#[derive(Clone)]
pub struct Told {
    /// What is wrong.
    pub findings: Findings,
    /// What the daemons were shown.
    pub sights: Sights,
    /// The place.
    pub place: Place,
}

/// Watches a daemon's passes, and reports violations.
pub fn witness(told: Told, shared: Shared, number: usize, left_out: Arc<Mutex<Option<usize>>>) -> Witness {
    let mut passes = 0_u64;
    let clock = lock(&shared).clock;
    Box::new(move |pass, policy, after| {
        passes += 1;
        // For each pass, however large: the listings of later passes are compared with what it saw.
        for wrong in told.sights.held_against(number, pass, clock.now()) {
            told.findings.add(clock.now(), wrong);
        }
        if passes.is_multiple_of(ONE_OF) || size(pass) <= LARGE {
            let left_out = *left_out.lock().unwrap_or_else(PoisonError::into_inner);
            let mut wrong = broken_in(pass, policy, after);
            wrong.extend(pass.remembered.iter().flat_map(|before| learned_wrongly_of_earlier(pass, before)));
            if passes.is_multiple_of(WHAT_IF) {
                wrong.extend(metamorphic::broken_in(pass, policy, passes, asks));
            }
            let world = lock(&shared);
            wrong.extend(told.sights.passed(number, pass, &world, &told.place, left_out));
            drop(world);
            for wrong in wrong {
                told.findings.add(clock.now(), wrong);
            }
        }
    })
}

/// What is wrong with what a pass learned at its start: about actions that had ended by then, and about nothing
/// else.
fn learned_wrongly_of_earlier(pass: &Pass, before: &Memory) -> Vec<String> {
    let (observation, plan) =
        (Observation { memory: before.clone(), ..Observation::default() }, Plan::default());
    let lesson = Lesson {
        observation: &observation,
        plan: &plan,
        reports: &pass.early,
        late: pass.early.len(),
        left: None,
        now: pass.began_at,
        after: &pass.observation.memory,
    };
    let wrong = wrongly_remembered(&lesson).into_iter();
    wrong.map(|wrong| format!("what is remembered of earlier actions breaks {wrong}")).collect()
}

/// How many jobs and runners it saw.
fn size(pass: &Pass) -> usize {
    let views = pass.observation.repositories.values();
    let runners = pass.observation.nomad.as_ref().map_or(0, |nomad| nomad.runners.len());
    views.map(|view| view.listing.jobs().len()).sum::<usize>() + runners
}

fn broken_in(pass: &Pass, policy: &Policy, after: &Memory) -> Vec<String> {
    let Pass { observation, plan, late, left, applied_at, .. } = pass;
    let done: Vec<Report> = late.iter().chain(&pass.reports).cloned().collect();
    let seen = Seen { observation, policy, now: pass.planned_at, asks };
    let lesson = Lesson {
        observation,
        plan,
        reports: &done,
        late: late.len(),
        left: pass.led.then_some(left),
        now: *applied_at,
        after,
    };
    let plans = broken_by(seen, plan).into_iter().map(|wrong| format!("the plan breaks {wrong}"));
    let memories =
        wrongly_remembered(&lesson).into_iter().map(|wrong| format!("what is remembered breaks {wrong}"));
    plans.chain(memories).chain(read_by_people(pass)).collect()
}

/// What is wrong with the lines about a pass that people read.
fn read_by_people(pass: &Pass) -> Vec<String> {
    let holds = pass.plan.holds.iter().map(ToString::to_string);
    let reports = pass.done().map(|report| format!("{}: {}", report.action, report.outcome));
    let lines = holds.chain(reports);
    lines
        .filter_map(|line| harm_in(&line).map(|harm| format!("a line for people {harm}: {line:?}")))
        .collect()
}

/// What the labels of this world request.
fn asks(labels: &[String]) -> Asks {
    if is_servable(labels) {
        Asks::Runner
    } else if labels.is_empty() || labels.iter().any(|label| label.to_lowercase().starts_with("sim")) {
        Asks::Word
    } else {
        Asks::Nothing
    }
}
