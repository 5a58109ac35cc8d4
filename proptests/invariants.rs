//! What holds of every single plan, whatever was seen: demand, starts, stops and whose consent they take.

use std::collections::{BTreeMap, BTreeSet};

use githubrunner::model::*;
use proptest::prelude::*;

use crate::{
    cases::{INSTANCE, NOW, PREFIX, for_all, secs},
    facts::{Facts, Group, group_of_start, job_holds, repository_holds, runner_holds, starts, stops},
};

#[test]
fn no_plan_exceeds_a_cap() {
    for_all(|case, plan| {
        let facts = Facts::new(case);
        let within = |cap: Option<usize>, live: usize, started: usize| {
            started == 0 || cap.is_none_or(|cap| live + started <= cap)
        };
        prop_assert!(within(case.policy.max_runners, facts.live(|_| true), starts(plan).count()), "all");
        let mut repositories: BTreeMap<RepositoryId, usize> = BTreeMap::new();
        let mut groups: BTreeMap<Group, usize> = BTreeMap::new();
        for start in starts(plan) {
            *repositories.entry(start.repository.id).or_default() += 1;
            *groups.entry(group_of_start(start)).or_default() += 1;
        }
        for (id, started) in repositories {
            let live = facts.live(|runner| facts.view(runner).is_some_and(|view| view.repository.id == id));
            prop_assert!(within(case.policy.max_runners_per_repository, live, started), "repository {id}");
        }
        for (group, started) in groups {
            let live = facts.live(|runner| facts.group(runner).as_ref() == Some(&group));
            prop_assert!(within(case.policy.max_runners_per_group, live, started), "group {group:?}");
        }
        Ok(())
    });
}

#[test]
fn nothing_that_runs_is_stopped_without_consent_and_nothing_busy_at_all() {
    for_all(|case, plan| {
        let facts = Facts::new(case);
        for stop in stops(plan) {
            let runner = facts.runner(&stop.name).unwrap();
            prop_assert!(!facts.is_busy(runner), "{} is busy", stop.name);
            prop_assert!(
                !matches!(
                    runner.state,
                    RunnerState::Dead | RunnerState::Stopping | RunnerState::Disconnected
                ),
                "{} is {}",
                stop.name,
                runner.state
            );
            match stop.consent {
                Consent::NeverStarted => {
                    let unstarted = matches!(
                        runner.state,
                        RunnerState::Pending | RunnerState::Waiting | RunnerState::Starting
                    );
                    let is_replacement = runner.lost && unstarted;
                    prop_assert!(!runner.started || is_replacement, "{} has started", stop.name);
                }
                Consent::GitHub => {}
                Consent::Unregistered => {
                    let presence = case.observation.memory.presence[&stop.name];
                    let absent = presence.checked_at - presence.absent_since.unwrap();
                    prop_assert!(absent >= secs(600), "{} was absent for {absent:?} only", stop.name);
                    let unregistered = matches!(stop.reason, StopReason::Unregistered { .. });
                    prop_assert!(unregistered || stop.reason == StopReason::Lost, "wrong consent");
                    // Any other may be busy under another name.
                    prop_assert_eq!(stop.registration, Registration::Jit);
                }
            }
            prop_assert_eq!(stop.registration, runner.registration());
            prop_assert_eq!(stop.repository.id, facts.view(runner).unwrap().repository.id);
        }
        Ok(())
    });
}

#[test]
fn what_is_not_ours_is_touched_only_when_dead() {
    for_all(|case, plan| {
        let facts = Facts::new(case);
        for action in plan.actions.iter().filter(|action| !matches!(action, Action::Start(_))) {
            if matches!(action, Action::RemoveOrphan(_)) {
                continue;
            }
            let runner = facts.runner(action.runner());
            let runner = runner.ok_or_else(|| TestCaseError::fail(format!("nobody knows it: {action}")))?;
            let dead = matches!(action, Action::Purge(_)) && runner.state == RunnerState::Dead;
            prop_assert!(facts.ours(runner) || dead, "{action}");
        }
        Ok(())
    });
}

#[test]
fn what_was_not_seen_in_this_pass_neither_starts_nor_stops() {
    for_all(|case, plan| {
        let facts = Facts::new(case);
        let views = &case.observation.repositories;
        for start in starts(plan) {
            let view = &views[&start.repository.id];
            prop_assert!(matches!(view.listing, Listing::Fresh { .. }), "{}", start.name);
            prop_assert!(facts.takes_jobs(view), "{} for an archived or foreign repository", start.name);
        }
        for stop in stops(plan) {
            let runner = facts.runner(&stop.name).unwrap();
            match (&views[&stop.repository.id].listing, &stop.reason) {
                (Listing::Fresh { complete: true, .. }, _) => {}
                // Neither depends on what a listing lacks.
                (Listing::Fresh { .. }, StopReason::Lost | StopReason::Yield { .. }) => {}
                (Listing::Gone { since }, StopReason::RepositoryGone) => {
                    prop_assert!(
                        (!runner.started || runner.lost) && NOW - *since >= secs(3600),
                        "{}",
                        stop.name
                    );
                }
                (listing, reason) => prop_assert!(false, "{}: {reason} in {listing:?}", stop.name),
            }
        }
        for view in views.values() {
            let seen = matches!(view.listing, Listing::Fresh { complete: true, .. });
            prop_assert_eq!(
                plan.surplus.contains_key(&view.repository.id),
                seen && case.observation.nomad.is_some()
            );
        }
        Ok(())
    });
}

#[test]
fn nothing_is_done_while_nomad_is_unseen() {
    for_all(|case, _| {
        let mut blind = case.clone();
        blind.observation.nomad = None;
        let plan = blind.plan();
        prop_assert!(plan.actions.is_empty() && plan.surplus.is_empty());
        prop_assert_eq!(plan.holds.len(), 1);
        Ok(())
    });
}

#[test]
fn a_group_never_starts_and_stops_in_one_plan() {
    for_all(|case, plan| {
        let facts = Facts::new(case);
        let stopping: BTreeSet<Group> =
            stops(plan).filter_map(|stop| facts.group(facts.runner(&stop.name)?)).collect();
        for start in starts(plan) {
            prop_assert!(!stopping.contains(&group_of_start(start)), "{}", start.name);
        }
        Ok(())
    });
}

#[test]
fn each_cause_starts_once_under_the_next_number() {
    for_all(|case, plan| {
        let facts = Facts::new(case);
        let mut causes = BTreeSet::new();
        for start in starts(plan) {
            prop_assert!(causes.insert(start.cause), "job {} twice", start.cause);
            let highest = facts.highest(start.cause).unwrap_or(0);
            prop_assert_eq!(start.attempt, highest.saturating_add(1));
            let (view, job) = facts.jobs[&start.cause];
            prop_assert!(facts.wants_runner(view, job), "job {} wants none", job.id);
            prop_assert_eq!(view.repository.id, start.repository.id);
            prop_assert_eq!(
                start.labels.key().map(str::to_owned).collect::<Vec<_>>(),
                crate::facts::key(&job.labels)
            );
            let own = facts.supply(&group_of_start(start));
            prop_assert!(
                own.iter().all(|runner| runner.meta.job_id != Some(start.cause)),
                "job {} has a runner of its own",
                job.id
            );
        }
        Ok(())
    });
}

#[test]
fn names_are_unique_valid_and_always_the_same() {
    for_all(|case, plan| {
        let facts = Facts::new(case);
        let mut names = BTreeSet::new();
        for start in starts(plan) {
            prop_assert!(names.insert(&start.name), "{} twice", start.name);
            prop_assert!(start.name.len() <= 64, "{}", start.name);
            let valid = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            prop_assert!(start.name.chars().all(valid), "{}", start.name);
            prop_assert!(is_ours_by_name(PREFIX, INSTANCE, &start.name), "{}", start.name);
            prop_assert!(facts.runner(&start.name).is_none(), "{}", start.name);
        }
        prop_assert_eq!(plan, &case.plan());
        Ok(())
    });
}

#[test]
fn waits_are_obeyed() {
    for_all(|case, plan| {
        let facts = Facts::new(case);
        for action in plan.actions.iter().filter(|action| !matches!(action, Action::RemoveOrphan(_))) {
            prop_assert!(!facts.waits_after_failure(action.runner()), "{action} although it failed");
        }
        // Nor is there a wait longer than that.
        for hold in &plan.holds {
            let (Subject::Job { id, .. }, HoldReason::Attempts { attempt, wait }) =
                (&hold.subject, &hold.reason)
            else {
                continue;
            };
            let of_cause = facts.runners().filter(|runner| runner.meta.job_id == Some(*id));
            let last = of_cause.max_by_key(|runner| runner.meta.attempt.unwrap_or(0)).unwrap();
            let rule = secs(600.min(30 << (attempt - 2).min(10)));
            prop_assert_eq!(*wait + facts.dead_for(last), rule, "{}", hold);
        }
        for start in starts(plan) {
            let backoff = case.observation.memory.start_backoff.get(&start.group());
            prop_assert!(backoff.is_none_or(|backoff| backoff.until <= NOW), "{} was rejected", start.name);
            let of_cause = facts.runners().filter(|runner| runner.meta.job_id == Some(start.cause));
            let Some(last) = of_cause.max_by_key(|runner| runner.meta.attempt.unwrap_or(0)) else { continue };
            let doublings = last.meta.attempt.unwrap_or(1).saturating_sub(1).min(10);
            let wait = secs(600.min(30 << doublings));
            let dead = facts.dead_for(last);
            prop_assert!(
                last.state != RunnerState::Dead || dead >= wait,
                "attempt {} {dead:?} after the last",
                start.attempt
            );
        }
        Ok(())
    });
}

/// Meta is text from outside.
#[test]
fn no_number_in_a_jobs_meta_is_too_large() {
    for_all(|case, _| {
        let mut case = case.clone();
        for runner in case.observation.nomad.iter_mut().flat_map(|nomad| &mut nomad.runners) {
            runner.meta.attempt = Some(u32::MAX);
            runner.meta.job_id = runner.meta.job_id.map(|id| if id > 100 { u64::MAX } else { id });
        }
        let plan = case.plan();
        prop_assert!(starts(&plan).all(|start| start.attempt == 1 || start.attempt == u32::MAX));
        Ok(())
    });
}

/// The rule both ways: nobody is forgotten, and no more start than are missing.
#[test]
fn every_queued_job_has_a_runner_to_spare_a_start_or_a_hold() {
    for_all(|case, plan| {
        if case.observation.nomad.is_none() {
            return Ok(());
        }
        let facts = Facts::new(case);
        let started: BTreeSet<u64> = starts(plan).map(|start| start.cause).collect();
        for (view, job) in facts.jobs.values().filter(|(_, job)| job.status == JobStatus::Queued) {
            let word = job_holds(plan, job.id).next().is_some()
                || repository_holds(plan, &view.repository.full_name())
                    .any(|reason| *reason != HoldReason::Incomplete);
            let ours = job.labels.is_empty() || job.labels.iter().any(|l| l.starts_with("nomadtools"));
            let demand = facts.wants_runner(view, job) && facts.takes_jobs(view);
            prop_assert!(word || !ours || demand, "job {} is dropped in silence", job.id);
        }
        for (group, jobs) in facts.demand() {
            let view = &case.observation.repositories[&group.0];
            if !matches!(view.listing, Listing::Fresh { .. }) {
                let unseen = repository_holds(plan, &view.repository.full_name()).next().is_some();
                prop_assert!(unseen, "{} is not seen, and nobody says so", view.repository.full_name());
                continue;
            }
            let supply = facts.supply(&group).len();
            let silent =
                |job: &&&WorkflowJob| !started.contains(&job.id) && job_holds(plan, job.id).next().is_none();
            let silent = jobs.iter().filter(silent).count();
            prop_assert!(silent <= supply, "{silent} jobs of {group:?} without a word, {supply} runners");
            let started = jobs.iter().filter(|job| started.contains(&job.id)).count();
            prop_assert!(started + supply <= jobs.len().max(supply), "too many starts for {group:?}");
        }
        Ok(())
    });
}

/// Of two jobs of one group that are alike but for their age, the older one is served first.
#[test]
fn the_oldest_cause_goes_first() {
    for_all(|case, plan| {
        let facts = Facts::new(case);
        let demand = facts.demand();
        for start in starts(plan) {
            let job = facts.jobs[&start.cause].1;
            for other in &demand[&group_of_start(start)] {
                let older = (other.created_at, other.id) < (job.created_at, job.id);
                let passed_over = older && starts(plan).all(|start| start.cause != other.id);
                let served = facts
                    .supply(&group_of_start(start))
                    .iter()
                    .any(|runner| runner.meta.job_id == Some(other.id));
                let waits = job_holds(plan, other.id).any(|r| matches!(r, HoldReason::Attempts { .. }));
                prop_assert!(!passed_over || served || waits, "job {} before {}", job.id, other.id);
            }
        }
        Ok(())
    });
}

#[test]
fn caps_are_the_reason_where_they_are_given_as_one() {
    for_all(|case, plan| {
        let facts = Facts::new(case);
        for hold in &plan.holds {
            let HoldReason::Cap { cap, limit } = hold.reason else { continue };
            let Subject::Job { id, .. } = hold.subject else { panic!("{hold}") };
            let (view, job) = facts.jobs[&id];
            let group = (view.repository.id, crate::facts::key(&job.labels));
            let (allowed, live) = match cap {
                Cap::All => (case.policy.max_runners, facts.live(|_| true) + starts(plan).count()),
                Cap::Repository => (
                    case.policy.max_runners_per_repository,
                    facts.live(|r| facts.view(r).is_some_and(|v| v.repository.id == group.0))
                        + starts(plan).filter(|start| start.repository.id == group.0).count(),
                ),
                Cap::Group => (
                    case.policy.max_runners_per_group,
                    facts.live(|r| facts.group(r).as_ref() == Some(&group))
                        + starts(plan).filter(|start| group_of_start(start) == group).count(),
                ),
            };
            prop_assert_eq!(allowed, Some(limit));
            prop_assert!(live >= limit, "{hold}: {live} only");
        }
        Ok(())
    });
}

/// Labels are hostile: what people read moves no cursor and begins no line.
#[test]
fn what_people_read_is_harmless() {
    for_all(|_, plan| {
        let text = plan.to_string();
        prop_assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        prop_assert_eq!(text.lines().count(), plan.actions.len() + plan.holds.len());
        Ok(())
    });
}

/// What is stopped needs no word on why it would stay.
#[test]
fn a_runner_is_stopped_once_and_then_nothing_is_held_of_it() {
    for_all(|_, plan| {
        let mut seen = BTreeSet::new();
        for stop in stops(plan) {
            prop_assert!(seen.insert(&stop.name), "{} twice", stop.name);
            prop_assert!(runner_holds(plan, &stop.name).next().is_none(), "{}", stop.name);
            let others = plan.actions.iter().filter(|action| action.runner() == stop.name).count();
            prop_assert_eq!(others, 1);
        }
        Ok(())
    });
}

/// The cases are worth their name: each rule is met often enough.
#[test]
fn the_cases_reach_every_rule() {
    let mut met: BTreeMap<String, usize> = BTreeMap::new();
    for (_, plan) in crate::cases::shared() {
        let mut kinds: BTreeSet<String> = BTreeSet::new();
        let first = |text: String| text.split([' ', '{', '(']).next().unwrap().to_owned();
        for action in &plan.actions {
            kinds.insert(match action {
                Action::Stop(stop) => {
                    format!("Stop {} {:?}", first(format!("{:?}", stop.reason)), stop.consent)
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
    for (kind, least) in [
        ("Start", 400),
        ("Mint", 150),
        ("LookUp", 50),
        ("CleanUp", 200),
        ("Purge", 200),
        ("RemoveOrphan", 100),
        ("Stop Surplus NeverStarted", 50),
        ("Stop Surplus GitHub", 50),
        ("Stop Unregistered Unregistered", 10),
        ("Stop Unregistered GitHub", 10),
        ("Stop MakeRoom GitHub", 5),
        ("Stop Yield NeverStarted", 1),
        ("Stop Lost GitHub", 20),
        ("Stop RepositoryGone NeverStarted", 10),
        ("Hold All", 50),
        ("Hold Repository", 50),
        ("Hold Group", 40),
        ("Hold Attempts", 40),
        ("Hold StartFailed", 20),
        ("Hold GroupStops", 20),
        ("Hold ActionFailed", 50),
        ("Hold CountsAttempts", 20),
        ("Hold VariableFirst", 20),
    ] {
        let times = met.get(kind).copied().unwrap_or(0);
        let least = least * crate::cases::shared().len() / 2500;
        assert!(times >= least, "{kind}: {times} times, not {least}: {met:#?}");
    }
}
