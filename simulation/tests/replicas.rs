//! Two daemons, one of them the leader: how soon the other one takes over.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::time::Duration;

use githubrunner_sim::{github::JobSpec, nomad::Node};
use githubrunner_simulation::{
    faults::{
        nemesis::Cut,
        scenario::{DeathAt, Happening, ReplicaMishap, Scenario},
    },
    run::{How, run},
};

const AT: u64 = 20;

/// When the runner of a job is registered, if the job is queued at the moment when something happens to the leader, in
/// seconds after that.
fn starts_after(seed: u64, happening: Happening) -> f64 {
    starts_in(seed, happening, 60)
}

fn starts_in(seed: u64, happening: Happening, loop_interval: u64) -> f64 {
    let mut scenario = Scenario::with(seed, Vec::new());
    scenario.replicas = true;
    scenario.happenings.clear();
    scenario.nomad.nodes = vec![Node::named("node-1")];
    scenario.settings.loop_interval = Duration::from_secs(loop_interval);
    scenario.settings.caps = [None; 3];
    scenario.settings.warm.clear();
    scenario.settings.hints = false;
    scenario.settings.webhooks = false;
    // Network latency comes on top.
    scenario.latency = Duration::ZERO;
    let at = Duration::from_secs;
    let job = vec![JobSpec::new(&["sim"], at(8))];
    scenario.happenings.push((at(AT), happening));
    scenario.happenings.push((at(AT), Happening::Run(0, job)));
    scenario.over = at(180);
    let outcome = run(&scenario, How { record: true, ..How::quietly() });
    assert!(outcome.findings.is_empty(), "{:#?}\n{:#?}", outcome.findings, outcome.timeline);
    let line = outcome.timeline.iter().find(|line| line.contains("PUT /v1/jobs?"));
    let line = line.unwrap_or_else(|| panic!("nothing is started: {:#?}", outcome.timeline));
    let (time, _) = line.trim().split_once("s ").unwrap();
    time.parse::<f64>().unwrap() - AT as f64
}

fn mishap(what: ReplicaMishap) -> Happening {
    Happening::Replica { standby: false, what }
}

#[test]
fn after_a_clean_exit_the_other_one_acts_within_a_second() {
    for seed in 0..8 {
        let after = starts_after(seed, mishap(ReplicaMishap::Exit { down: Duration::from_secs(90) }));
        assert!(after <= 1.0, "seed {seed}: {after} s");
    }
}

#[test]
fn after_a_kill_the_other_one_acts_within_25_seconds() {
    for seed in 0..8 {
        let (cut, down) = (seed % 2 == 0, Duration::from_secs(90));
        let death = Happening::Death { at: DeathAt::Poll(0), cut, down };
        let after = starts_after(seed, death);
        assert!((11.0..=25.0).contains(&after), "seed {seed}: {after} s");
    }
}

#[test]
fn after_a_pause_has_begun_the_other_one_acts_within_25_seconds() {
    for seed in 0..8 {
        let pause = ReplicaMishap::Pause { for_so_long: Duration::from_secs(60), at: None };
        let after = starts_after(seed, mishap(pause));
        assert!((11.0..=25.0).contains(&after), "seed {seed}: {after} s");
    }
}

#[test]
fn a_leader_cut_off_from_nomad_is_followed_while_it_lives() {
    for (seed, how) in [(0, Cut::Refused), (1, Cut::Silent)] {
        let cut = ReplicaMishap::Cut { how, for_so_long: Duration::from_secs(60) };
        let after = starts_after(seed, mishap(cut));
        assert!((11.0..=25.0).contains(&after), "seed {seed}: {after} s");
    }
}

/// The server holds the lock for it twice as long as it dares to act, so nobody waits for the rest.
#[test]
fn a_suspended_leader_leads_again_at_once_if_nobody_else_did() {
    for seed in 0..4 {
        let pause = ReplicaMishap::Pause { for_so_long: Duration::from_secs(12), at: None };
        let after = starts_in(seed, mishap(pause), 25);
        assert!((12.0..=13.0).contains(&after), "seed {seed}: {after} s");
    }
}
