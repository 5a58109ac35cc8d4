//! The deterministic simulation: the real daemon, adapters and HTTP client in virtual time, in worlds that a seed
//! decides, with everything that can go wrong. `scripts/simulate` runs any number of seeds.

mod harness;

use githubrunner::sim::chaos::scenario::Scenario;

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
