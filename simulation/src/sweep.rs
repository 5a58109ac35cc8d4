//! Deaths at every await: one small world with a start, an issue of credentials, a stop, a clean-up and a purge, and a
//! daemon that dies at each of its wake-ups, and at each write, with and without effect.

use std::time::Duration;

use githubrunner_sim::{github::JobSpec, nomad::Node};

use super::run::{How, Outcome, run};
use crate::faults::{
    mishap::Mishap,
    nemesis::DeathWhen,
    scenario::{DeathAt, Happening, Scenario},
    settings::{Access, Classes, Mode},
};

/// A world with every kind of action.
fn scenario(mode: Mode, death: Option<(DeathAt, bool)>) -> Scenario {
    let mut scenario = Scenario::with(7, Vec::new());
    scenario.happenings.clear();
    scenario.repositories.truncate(1);
    scenario.nomad.nodes = vec![Node::named("node-1")];
    let settings = &mut scenario.settings;
    settings.loop_interval = Duration::from_secs(10);
    settings.caps = [None; 3];
    settings.classes = Classes::default();
    settings.inactivity = Duration::from_secs(15);
    settings.strict = false;
    settings.purge = [Duration::from_secs(5), Duration::from_secs(5)];
    settings.make_room = None;
    settings.parallel = 2;
    settings.mode = mode;
    settings.access = Access::default();
    settings.json_template = false;
    settings.cache = true;
    settings.hints = false;
    // So that each exchange is a separate await.
    scenario.latency = Duration::from_millis(400);
    scenario.over = Duration::from_secs(90);
    let job = || vec![JobSpec::new(&["sim"], Duration::from_secs(8))];
    let at = Duration::from_secs;
    scenario.happenings.push((at(1), Happening::Run(0, job())));
    // The runner of the second job comes online when the job has already been cancelled.
    scenario.happenings.push((at(5), Happening::Run(0, job())));
    scenario.happenings.push((at(10), Happening::Mishap(Mishap::Cancel { pick: 1 })));
    if let Some((at, cut)) = death {
        let death = Happening::Death { at, cut, down: Duration::from_secs(3) };
        scenario.happenings.insert(0, (Duration::ZERO, death));
    }
    scenario
}

/// A run without a death, which must contain each kind of action.
pub fn undisturbed(mode: Mode) -> Outcome {
    run(&scenario(mode, None), How { record: true, ..How::quietly() })
}

/// Dies at each `step`th wake-up and at each write. Returns how many deaths there were, and the failed outcomes.
pub fn sweep(mode: Mode, step: usize) -> (usize, Vec<(DeathAt, bool, Outcome)>) {
    let (mut deaths, mut bad) = (0, Vec::new());
    let mut dies = |at: DeathAt, cut: bool| {
        let outcome = run(&scenario(mode, Some((at, cut))), How { listen: true, ..How::quietly() });
        let died = outcome.timeline.iter().any(|line| line.contains("the daemon dies"));
        deaths += usize::from(died);
        if !outcome.findings.is_empty() {
            bad.push((at, cut, outcome));
        }
        died
    };
    for cut in [false, true] {
        let mut after = 0;
        while dies(DeathAt::Poll(after), cut) {
            after += step;
        }
        for when in [DeathWhen::BeforeEffect, DeathWhen::AfterEffect] {
            let mut after = 0;
            while dies(DeathAt::Write { after, when }, cut) {
                after += 1;
            }
        }
    }
    (deaths, bad)
}
