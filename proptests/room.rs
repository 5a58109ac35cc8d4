//! Making room: what is waiting for a place, and which runner leaves for it. The properties are in
//! `specification/room.rs`.

use std::sync::OnceLock;

use githubrunner::{model::*, plan::Policy};
use proptest::{prelude::*, sample::select, strategy::ValueTree};

use crate::{
    cases::{CASES, Case, ago, case, for_all_facts, runner, secs, server_now, show},
    specification::{Checked, facts::stops},
};

/// How a crowd differs from other cases: everything is seen, most idle runners have been surplus before, nothing
/// has failed, nothing has been idle for too long. So a runner that stops, stops to make room.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Crowd {
    /// At the cap on all runners, with no other caps.
    Full,
    /// The same, but the first repository is not seen.
    HalfSeen,
    /// At the cap on all runners, with any other caps; some runners are already stopping.
    Leaving,
    /// One place is left.
    Nearly,
    /// Any caps.
    Any,
}

fn crowded() -> impl Strategy<Value = Case> {
    use Crowd::*;
    (case(), select(vec![Full, HalfSeen, Leaving, Nearly, Any]), select(vec![0_u64, 60, 600]))
        .prop_map(|(case, crowd, patience)| crowd_of(case, crowd, patience))
}

fn crowd_of(mut case: Case, crowd: Crowd, patience: u64) -> Case {
    case.observation.memory = Memory::default();
    for (at, runner) in case.observation.nomad.iter_mut().flat_map(|nomad| &mut nomad.runners).enumerate() {
        runner.spent = false;
        match runner.state {
            RunnerState::Running if at % 4 < 3 => {
                let id = runner.meta.repo_id.unwrap_or(RepositoryId(1));
                case.observation.memory.surplus.entry(id).or_default().insert(runner.name.clone(), ago(60));
            }
            RunnerState::Pending => runner.submitted_at = runner.submitted_at.min(ago(240)),
            RunnerState::Stopping if crowd != Crowd::Leaving => runner.state = RunnerState::Disconnected,
            _ => {}
        }
    }
    for (at, view) in case.observation.repositories.values_mut().enumerate() {
        let jobs = view.listing.jobs().to_vec();
        view.listing = if crowd == Crowd::HalfSeen && at == 0 {
            Listing::Stale { jobs, complete: true, reason: "503".to_owned() }
        } else {
            Listing::Fresh { now: server_now(), jobs, complete: true }
        };
    }
    // A nomadtools runner has waited longest of all, and must not be stopped.
    let pending = case.runners().iter().find(|runner| runner.state == RunnerState::Pending).cloned();
    let nomad = case.observation.nomad.as_mut().filter(|_| crowd == Crowd::Full);
    if let (Some(nomad), Some(pending)) = (nomad, pending) {
        let meta = RunnerMeta { deployment: None, repo_id: None, purpose: None, ..pending.meta.clone() };
        nomad.runners.push(Runner {
            name: "ghr-theirs".to_owned(),
            namespace: None,
            ownership: Ownership::Nomadtools,
            submitted_at: ago(100_000),
            meta,
            ..pending
        });
    }
    let live = case.runners().iter().filter(|runner| runner.state != RunnerState::Dead).count();
    let other = |cap: Option<usize>| cap.filter(|_| !matches!(crowd, Crowd::Full | Crowd::HalfSeen));
    case.policy = Policy {
        max_runners: match crowd {
            Crowd::Full | Crowd::HalfSeen | Crowd::Leaving => Some(live),
            Crowd::Nearly => Some(live + 1),
            Crowd::Any => case.policy.max_runners,
        },
        max_runners_per_repository: other(case.policy.max_runners_per_repository),
        max_runners_per_group: other(case.policy.max_runners_per_group),
        pending_to_kill_listening: Some(secs(patience)),
        runner_inactivity_timeout: None,
        strict: false,
        ..case.policy
    };
    case
}

pub fn for_all_crowded(property: impl Fn(&Case, &Plan) -> Checked) {
    static CROWDED: OnceLock<Vec<(Case, Plan)>> = OnceLock::new();
    let cases = CROWDED.get_or_init(|| {
        let mut runner = runner(CASES);
        let strategy = crowded();
        (0..runner.config().cases)
            .map(|_| strategy.new_tree(&mut runner).unwrap().current())
            .map(|case| (case.clone(), case.plan()))
            .collect()
    });
    show(cases, &crowded(), property);
}

/// A test for each of these properties over crowded cases, and over the others.
macro_rules! tested_crowded {
    ($module:ident: $($name:ident,)*) => {
        $(#[test]
        fn $name() {
            for_all_crowded(|case, plan| githubrunner_specification::$module::$name(&case.facts(), plan));
            for_all_facts(githubrunner_specification::$module::$name);
        })*
    };
}

githubrunner_specification::properties!(room, tested_crowded);

/// All the other properties hold where room is made.
#[test]
fn all_the_others_hold_in_crowded_cases() {
    for_all_crowded(|case, plan| {
        let facts = case.facts();
        githubrunner_specification::PROPERTIES
            .iter()
            .copied()
            .flatten()
            .try_for_each(|(_, holds)| holds(&facts, plan))
    });
}

#[test]
fn crowded_cases_make_room_in_every_way() {
    let met = std::cell::Cell::new((0, 0, 0));
    for_all_crowded(|_, plan| {
        for stop in stops(plan) {
            let (mut for_nodes, mut for_caps, mut yields) = met.get();
            match &stop.reason {
                StopReason::MakeRoom { waits } if waits.contains(" job ") => for_caps += 1,
                StopReason::MakeRoom { .. } => for_nodes += 1,
                StopReason::Yield { .. } => yields += 1,
                _ => {}
            }
            met.set((for_nodes, for_caps, yields));
        }
        Ok(())
    });
    let (for_nodes, for_caps, yields) = met.get();
    assert!(for_nodes >= 20 && for_caps >= 20 && yields >= 10, "{:?}", met.get());
}
