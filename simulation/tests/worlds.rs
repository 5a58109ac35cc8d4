//! The deterministic simulation: the real daemon, adapters and HTTP client in virtual time, in worlds determined
//! by a seed, with anything that can fail. `scripts/simulate` runs any number of seeds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use githubrunner_simulation::{
    faults::{
        scenario::{Happening, Scenario},
        settings::Mode,
    },
    long::{self, Broken, Failing, LimitedBy, TemplateFormat},
    run::{How, run},
    shrink::story,
    sweep,
};

/// Runs seeds, half of them on another thread, and reports the first that fails.
fn all_hold(seeds: std::ops::Range<u64>) {
    let check = |seeds: &mut dyn Iterator<Item = u64>| {
        for seed in seeds {
            let scenario = Scenario::of(seed);
            let outcome = run(&scenario, How { listen: seed % 16 < 4, ..How::quietly() });
            assert!(outcome.findings.is_empty(), "{}", story(&scenario, &outcome));
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| check(&mut seeds.clone().step_by(2)));
        check(&mut seeds.clone().skip(1).step_by(2));
    });
}

#[test]
fn nothing_goes_wrong_in_any_world() {
    all_hold(0..20);
}

#[test]
#[ignore = "takes minutes; scripts/test --all runs it"]
fn nothing_goes_wrong_in_a_hundred_worlds() {
    all_hold(20..120);
}

#[test]
fn a_seed_is_replayed_exactly() {
    for seed in 0..12 {
        let scenario = Scenario::of(seed);
        let how = How { record: true, ..How::quietly() };
        let (first, second) = (run(&scenario, how), run(&scenario, how));
        for (number, (first, second)) in first.timeline.iter().zip(&second.timeline).enumerate() {
            assert_eq!(first, second, "seed {seed}, line {number}");
        }
        assert_eq!(first.timeline.len(), second.timeline.len(), "seed {seed}");
        assert!(first.timeline.len() > 20, "seed {seed}: {:#?}", first.timeline);
    }
}

/// Fails if anything is wrong with an outcome.
fn assert_well(outcome: &githubrunner_simulation::run::Outcome) {
    let last = outcome.timeline.len().saturating_sub(60);
    assert!(outcome.findings.is_empty(), "{:#?}\n{:#?}", outcome.findings, &outcome.timeline[last..]);
}

#[test]
#[ignore = "takes minutes; scripts/test --all runs it"]
fn days_of_churn_leave_nothing_behind() {
    assert_well(&long::days(1, Duration::from_secs(300)));
}

#[test]
#[ignore = "takes minutes; scripts/test --all runs it"]
fn a_backlog_is_worked_off_fairly() {
    assert_well(&long::backlog(25, 10, Duration::from_secs(60)));
}

#[test]
fn labels_that_fit_no_node_starve_nobody() {
    assert_well(&long::unplaceable());
}

#[test]
fn failing_templates_back_off_and_do_not_affect_others() {
    assert_well(&long::failing_template(TemplateFormat::Hcl));
}

#[test]
fn what_fails_for_hours_is_retried_from_time_to_time() {
    assert_well(&long::failing_for_hours(Failing::Starts));
    assert_well(&long::failing_for_hours(Failing::Credentials));
}

#[test]
fn one_broken_repository_does_not_delay_others() {
    for how in [Broken::Refused, Broken::Unassigned, Broken::NeverStarts] {
        assert_well(&long::one_is_broken(how, 1, LimitedBy::Cap));
    }
    // With full nodes; `simulate --long` has the others.
    assert_well(&long::one_is_broken(Broken::Unassigned, 1, LimitedBy::Nodes));
}

#[test]
#[ignore = "takes minutes; scripts/test --all runs it"]
fn the_daemon_may_die_at_any_await() {
    for (mode, step) in [(Mode::Jit, 11), (Mode::Token, 37)] {
        let life = sweep::undisturbed(mode);
        assert_well(&life);
        for action in ["start", "issue", "stop", "clean up", "purge"] {
            let done = format!(" INFO {action:<8} sim-acme-app");
            let line = life.timeline.iter().find(|line| line.contains(&done) && line.contains(": done "));
            assert!(line.is_some(), "{mode:?} does no {action}: {:#?}", life.timeline);
        }
        let (deaths, bad) = sweep::sweep(mode, step);
        if let Some((at, cut, outcome)) = bad.first() {
            panic!("{mode:?}: dies at {at:?}, connections cut: {cut}: {:#?}", outcome.findings);
        }
        assert!(deaths > 40, "{deaths} deaths only");
    }
}

/// If there is room for everything, a job is taken within the loop's time and 2 s, apart from what the runner itself
/// takes.
#[test]
fn a_job_is_taken_within_the_loop_and_two_seconds() {
    for seed in 0..10 {
        let mut scenario = Scenario::with(seed, Vec::new());
        let settings = &mut scenario.settings;
        settings.caps = [None; 3];
        settings.hints = seed % 2 == 0;
        scenario.nomad.event_buffer = if settings.hints { 50 } else { 0 };
        scenario.nomad.nodes = vec![githubrunner_sim::nomad::Node::default()];
        for (_, happening) in &mut scenario.happenings {
            if let Happening::Run(_, jobs) = happening {
                // Runners take each other's jobs; with a single label that does not matter.
                jobs.iter_mut().for_each(|job| job.labels = vec!["sim".into()]);
            }
        }
        let outcome = run(&scenario, How { jobs: true, ..How::quietly() });
        assert_well(&outcome);
        let own = scenario.nomad.delays.start + scenario.world.start_up.1 + scenario.github.pickup.1;
        let most = scenario.settings.loop_interval + Duration::from_secs(2) + own;
        assert!(!outcome.jobs.is_empty());
        for job in &outcome.jobs {
            let wait = Duration::try_from(job.started_at.duration_since(job.created_at)).unwrap();
            assert!(wait <= most, "seed {seed}: job {} waited {wait:?}, not {most:?}", job.id);
        }
    }
}
