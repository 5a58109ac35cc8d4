//! The deterministic simulation: the real daemon, adapters and HTTP client in virtual time, in worlds that a seed
//! decides, with everything that can go wrong. `scripts/simulate` runs any number of seeds.

mod harness;

use githubrunner::sim::chaos::scenario::Scenario;

use std::time::Duration;

use harness::long;
use harness::run::{How, run};
use harness::shrink::story;

/// Runs seeds, half of them on another thread, and tells of the first that fails.
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
    all_hold(0..200);
}

#[test]
fn a_seed_is_replayed_to_the_byte() {
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

/// What is wrong with an outcome, and how it ended.
fn assert_well(outcome: &harness::run::Outcome) {
    let last = outcome.timeline.len().saturating_sub(60);
    assert!(outcome.findings.is_empty(), "{:#?}\n{:#?}", outcome.findings, &outcome.timeline[last..]);
}

#[test]
fn days_of_churn_leave_nothing_behind() {
    assert_well(&long::days(2, Duration::from_secs(300)));
}

#[test]
fn a_backlog_is_worked_off_fairly() {
    assert_well(&long::backlog(25, 10, Duration::from_secs(60)));
}

#[test]
fn labels_that_fit_nowhere_starve_nobody() {
    assert_well(&long::unplaceable());
}

#[test]
fn failing_templates_back_off_and_harm_no_others() {
    assert_well(&long::failing_template(false));
}
