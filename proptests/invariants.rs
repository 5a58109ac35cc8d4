//! What holds for every single plan, whatever was seen. The properties are in `specification/invariants.rs`.

use std::collections::{BTreeMap, BTreeSet};

use githubrunner::model::*;
use proptest::prelude::*;

use crate::{
    cases::{for_all, tested},
    specification::facts::job_starts,
};

githubrunner_specification::properties!(invariants, tested);

/// Meta is external text.
#[test]
fn no_number_in_a_jobs_meta_is_too_large() {
    for_all(|case, _| {
        let mut case = case.clone();
        for runner in case.observation.nomad.iter_mut().flat_map(|nomad| &mut nomad.runners) {
            runner.meta.attempt = Some(u32::MAX);
            let job_id = runner.meta.job_id().map(|id| if id.0 > 100 { JobId(u64::MAX) } else { id });
            runner.meta.purpose = job_id.map(Purpose::Job);
        }
        // A name whose variable exists is skipped.
        case.observation.nomad.iter_mut().for_each(|nomad| nomad.variables.clear());
        let plan = case.plan();
        prop_assert!(job_starts(&plan).all(|(_, start)| start.attempt == 1 || start.attempt == u32::MAX));
        Ok(())
    });
}

#[test]
fn nothing_at_all_is_done_while_nomad_is_unseen() {
    for_all(|case, _| {
        let mut blind = case.clone();
        blind.observation.nomad = None;
        githubrunner_specification::invariants::nothing_is_done_while_nomad_is_unseen(
            &blind.facts(),
            &blind.plan(),
        )
    });
}

/// How many of 2,500 cases reach each rule at least.
const REACHED: &[(&str, usize)] = &[
    ("Start", 400),
    ("IssueCredentials", 150),
    ("VerifyRegistration", 50),
    ("CleanUp", 200),
    ("Purge", 200),
    ("RemoveOrphan", 100),
    ("Stop Surplus NeverStarted", 50),
    ("Stop Surplus GitHub", 50),
    ("Stop Unregistered Unregistered", 10),
    ("Stop Unregistered GitHub", 5),
    ("Stop MakeRoom GitHub", 5),
    ("Stop Yield NeverStarted", 1),
    ("Stop Spent GitHub", 20),
    ("Stop NotStarting NeverStarted", 10),
    ("Stop NodeDrains NeverStarted", 10),
    ("Stop NodeDrains GitHub", 10),
    ("Stop RepositoryGone NeverStarted", 10),
    ("Hold All", 50),
    ("Hold Repository", 50),
    ("Hold Group", 40),
    ("Hold Class", 10),
    ("Hold ClassRepository", 3),
    ("Hold Denied", 10),
    ("Hold NoClass", 10),
    ("Hold NamespaceUnseen", 50),
    ("Hold Attempts", 40),
    ("Hold LiveAttempts", 10),
    ("Hold StartFailed", 12),
    ("Hold ReachesHost", 1),
    ("Hold GroupStops", 20),
    ("Hold ActionFailed", 50),
    ("Hold CountsAttempts", 20),
    ("Hold VariableFirst", 20),
    ("Stop MaxRunDuration OutOfTime", 50),
    ("Hold MaxRunDuration", 50),
    ("Rerun", 10),
    ("Hold LostJobRuns", 3),
    ("Hold RerunLimit", 3),
];

/// The generated cases reach each rule often enough.
#[test]
fn the_cases_reach_every_rule() {
    let mut met: BTreeMap<String, usize> = BTreeMap::new();
    for (_, plan) in crate::cases::shared() {
        let mut kinds: BTreeSet<String> = BTreeSet::new();
        let first = |text: String| text.split([' ', '{', '(']).next().unwrap().to_owned();
        for action in &plan.actions {
            kinds.insert(match action {
                Action::Stop(stop) => {
                    format!(
                        "Stop {} {}",
                        first(format!("{:?}", stop.reason)),
                        first(format!("{:?}", stop.consent))
                    )
                }
                other => first(format!("{other:?}")),
            });
        }
        kinds.extend(plan.holds.iter().map(|hold| match hold.reason {
            HoldReason::Cap { cap, .. } => format!("Hold {cap:?}"),
            ref reason => format!("Hold {}", first(format!("{reason:?}"))),
        }));
        for kind in kinds {
            *met.entry(kind).or_default() += 1;
        }
    }
    for (kind, least) in REACHED {
        let times = met.get(*kind).copied().unwrap_or(0);
        let least = least * crate::cases::shared().len() / 2500;
        assert!(times >= least, "{kind}: {times} times, not {least}: {met:#?}");
    }
}
