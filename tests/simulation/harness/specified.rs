//! Each pass of each daemon against the specification: what it saw and planned, and what it leaves for the next.

use githubrunner::daemon::{Pass, Witness};
use githubrunner::model::Memory;
use githubrunner::plan::Policy;
use githubrunner::sim::chaos::scenario::is_servable;
use githubrunner::sim::clock::Clock;

use super::specification::{Asks, Lesson, Seen, broken_by, wrongly_remembered};
use super::truth::Findings;

/// Larger worlds are not looked at in each pass.
const LARGE: usize = 500;

/// One pass of so many is looked at there.
const ONE_OF: usize = 50;

/// Watches a daemon's passes, and tells of what they break.
pub fn witness(findings: Findings, clock: Clock) -> Witness {
    let mut passes = 0;
    Box::new(move |pass, policy, after| {
        passes += 1;
        if passes % ONE_OF == 0 || size(pass) <= LARGE {
            for wrong in broken_in(pass, policy, after) {
                findings.add(clock.now(), wrong);
            }
        }
    })
}

/// How many jobs and runners it saw.
fn size(pass: &Pass) -> usize {
    let views = pass.observation.repositories.values();
    let runners = pass.observation.nomad.as_ref().map_or(0, |nomad| nomad.runners.len());
    views.map(|view| view.listing.jobs().len()).sum::<usize>() + runners
}

fn broken_in(pass: &Pass, policy: &Policy, after: &Memory) -> Vec<String> {
    let Pass { observation, plan, reports, applied_at, .. } = pass;
    let seen = Seen { observation, policy, now: pass.planned_at, asks };
    let lesson = Lesson { observation, plan, reports, now: *applied_at, after };
    let plans = broken_by(seen, plan).into_iter().map(|wrong| format!("the plan breaks {wrong}"));
    let memories =
        wrongly_remembered(&lesson).into_iter().map(|wrong| format!("what is remembered breaks {wrong}"));
    plans.chain(memories).collect()
}

/// What the labels of this world ask for.
fn asks(labels: &[String]) -> Asks {
    if is_servable(labels) {
        Asks::Runner
    } else if labels.is_empty() || labels.iter().any(|label| label.to_lowercase().starts_with("sim")) {
        Asks::Word
    } else {
        Asks::Nothing
    }
}
