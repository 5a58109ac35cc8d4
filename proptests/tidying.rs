//! Credentials for waiting runners, and what dead ones leave behind. The properties are in
//! `specification/tidying.rs`.

use githubrunner::model::*;
use proptest::prelude::*;

use crate::{
    cases::{ago, for_all, secs, tested},
    specification::facts::runner_holds,
};

githubrunner_specification::properties!(tidying, tested);

/// A client's clock may be hours off. An attempt then neither waits for hours nor comes at once after a
/// crash.
#[test]
fn a_clients_clock_delays_nothing_for_long() {
    for_all(|case, _| {
        let Some(at) = case.runners().iter().position(|runner| {
            let highest = case
                .runners()
                .iter()
                .filter(|other| other.meta.job_id() == runner.meta.job_id())
                .filter_map(|other| other.meta.attempt)
                .max();
            runner.state == RunnerState::Dead && runner.meta.attempt == highest && runner.ended_at.is_some()
        }) else {
            return Ok(());
        };
        for (ahead, submitted, just_now) in
            [(1, 600, true), (60, 600, true), (61, 700, false), (7200, 700, false), (-7200, 700, false)]
        {
            let mut case = case.clone();
            case.policy.purge_successfull_timeout = Some(secs(100));
            case.policy.purge_failure_timeout = Some(secs(100));
            case.policy.rerun_lost = None;
            case.observation.memory.runner_backoff.clear();
            case.observation.nomad.as_mut().unwrap().unseen.clear();
            let runner = &mut case.observation.nomad.as_mut().unwrap().runners[at];
            runner.submitted_at = ago(submitted);
            runner.ended_at = Some(ago(0) + jiff::SignedDuration::from_secs(ahead));
            runner.variable = None;
            let name = runner.name.clone();
            let plan = case.plan();
            let waits = plan.holds.iter().any(|hold| {
                let own = matches!(hold.subject, Subject::Job { id, .. } if Some(id) == case.runners()[at].meta.job_id());
                own && matches!(hold.reason, HoldReason::Attempts { .. })
            });
            let purged = plan.actions.iter().any(|a| matches!(a, Action::Purge(purge) if purge.name == name));
            let kept = runner_holds(&plan, &name).any(|reason| {
                matches!(
                    reason,
                    HoldReason::CountsAttempts | HoldReason::CountsFailures | HoldReason::JobUnknown
                )
            });
            if just_now {
                prop_assert!(!purged, "{name} has died just now");
            } else {
                prop_assert!(!waits, "{name} died long ago");
                prop_assert!(purged || kept, "{name} stays");
            }
        }
        Ok(())
    });
}
