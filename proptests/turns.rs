//! Whose turn it is. The properties are in `specification/turns.rs`; `fairness.rs` has their effect over time.

use std::{cell::Cell, sync::OnceLock};

use githubrunner::{model::*, plan::Policy};
use proptest::{collection::vec, prelude::*, sample::select, strategy::ValueTree};

use crate::{
    cases::{CASES, Case, NOW, case, for_all_facts, runner, secs, server_now, show},
    specification::{Checked, facts::starts},
};

/// A few places below a cap on all runners, and repositories of which some were listed now and others this many seconds
/// ago.
fn parted() -> impl Strategy<Value = Case> {
    let ages = vec(select(vec![None, Some(0_u64), Some(30), Some(31)]), 4);
    (case(), ages, 1..3_usize).prop_map(|(mut case, ages, places)| {
        case.observation.memory = Memory::default();
        for (view, age) in case.observation.repositories.values_mut().zip(ages.into_iter().cycle()) {
            let jobs = view.listing.jobs().to_vec();
            view.configured = true;
            view.listing = match age {
                None => Listing::Fresh { now: server_now(), jobs, complete: true },
                Some(age) => Listing::Earlier { ended: NOW - secs(age), jobs, complete: true },
            };
        }
        let live = case.runners().iter().filter(|runner| runner.is_live()).count();
        case.policy = Policy {
            max_runners: Some(live + places),
            max_runners_per_repository: None,
            max_runners_per_group: None,
            classes: Vec::new(),
            classes_only: false,
            ..case.policy
        };
        case
    })
}

fn for_all_parted(property: impl Fn(&Case, &Plan) -> Checked) {
    static PARTED: OnceLock<Vec<(Case, Plan)>> = OnceLock::new();
    let cases = PARTED.get_or_init(|| {
        let mut runner = runner(CASES);
        let strategy = parted();
        (0..runner.config().cases)
            .map(|_| strategy.new_tree(&mut runner).unwrap().current())
            .map(|case| (case.clone(), case.plan()))
            .collect()
    });
    show(cases, &parted(), property);
}

/// A test for each of these properties over these cases, and over the others.
macro_rules! tested_parted {
    ($module:ident: $($name:ident,)*) => {
        $(#[test]
        fn $name() {
            for_all_parted(|case, plan| githubrunner_specification::$module::$name(&case.facts(), plan));
            for_all_facts(githubrunner_specification::$module::$name);
        })*
    };
}

githubrunner_specification::properties!(turns, tested_parted);

#[test]
fn places_are_kept_and_taken_in_these_cases() {
    let met = Cell::new((0, 0));
    for_all_parted(|_, plan| {
        let (kept, taken) = met.get();
        let is_turn = |hold: &Hold| matches!(hold.reason, HoldReason::Turn { .. });
        let has_start = starts(plan).next().is_some();
        met.set((kept + usize::from(plan.holds.iter().any(is_turn)), taken + usize::from(has_start)));
        Ok(())
    });
    let (kept, taken) = met.get();
    assert!(kept > 12 && taken > 100, "{kept} kept, {taken} taken");
}
