//! What holds for every single plan, whatever was seen: demand, starts, stops and their consent.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use githubrunner::{
    model::{summary::HoldLine, *},
    text::{LINE, is_harmful},
};
use proptest::prelude::*;

use super::{
    Asks, Checked,
    facts::{
        Facts, Group, group_of_job, group_of_start, job_holds, job_starts, key, repository_holds,
        runner_holds, starts, stops,
    },
    secs,
};

pub fn no_plan_exceeds_a_cap(facts: &Facts, plan: &Plan) -> Checked {
    let within = |cap: Option<usize>, live: usize, started: usize| {
        started == 0 || cap.is_none_or(|cap| live + started <= cap)
    };
    prop_assert!(within(facts.policy().max_runners, facts.live(), starts(plan).count()), "all");
    let mut repositories: BTreeMap<RepositoryId, usize> = BTreeMap::new();
    let mut groups: BTreeMap<Group, usize> = BTreeMap::new();
    for start in starts(plan).filter(|start| !facts.starts_shared(start)) {
        *repositories.entry(start.repository.id).or_default() += 1;
        *groups.entry(group_of_start(start)).or_default() += 1;
    }
    for (id, started) in repositories {
        let cap = facts.policy().max_runners_per_repository;
        prop_assert!(within(cap, facts.live_in(id), started), "repository {}", id);
    }
    let class_of_group: BTreeMap<Group, Option<&str>> =
        starts(plan).map(|start| (group_of_start(start), start.class.as_deref())).collect();
    for (group, started) in groups {
        let class = class_of_group.get(&group).copied().flatten().and_then(|name| facts.class_named(name));
        let cap = facts.group_cap(class);
        prop_assert!(within(cap, facts.live_of(&group), started), "group {:?}", group);
    }
    Ok(())
}

/// A class's runners count against its own caps, whatever other classes have.
pub fn no_plan_exceeds_a_cap_of_a_class(facts: &Facts, plan: &Plan) -> Checked {
    let mut classes: BTreeMap<(&str, Option<RepositoryId>), usize> = BTreeMap::new();
    for start in starts(plan) {
        let Some(class) = start.class.as_deref() else { continue };
        *classes.entry((class, None)).or_default() += 1;
        if facts.starts_shared(start) {
            continue;
        }
        *classes.entry((class, Some(start.repository.id))).or_default() += 1;
    }
    for ((name, within), started) in classes {
        let class = facts.class_named(name).ok_or_else(|| TestCaseError::fail(format!("no class {name}")))?;
        let cap = if within.is_some() { class.max_runners_per_repository } else { class.max_runners };
        let live = facts.live_of_class(Some(name), within) + started;
        prop_assert!(cap.is_none_or(|cap| live <= cap), "{} in {:?}: {} of {:?}", name, within, live, cap);
    }
    Ok(())
}

/// A runner is started as the first class that covers its job. If that class denies the job, or if no class covers it
/// and only classes may have runners, the job is held and no runner starts. The same applies if the class denies a key
/// of its labels.
pub fn each_start_is_of_the_class_of_its_job(facts: &Facts, plan: &Plan) -> Checked {
    for (job_id, start) in job_starts(plan) {
        let (view, job) = facts.jobs[&job_id];
        let class = facts.class_of_job(view, job).map(|class| class.name.as_str());
        prop_assert_eq!(start.class.as_deref(), class, "job {}", job_id);
    }
    for (view, job) in facts.jobs.values() {
        let asks = job.status == JobStatus::Queued && facts.asks(&job.labels) == Asks::Runner;
        let class = facts.class_of_job(view, job);
        let denied = class.map_or(facts.policy().classes_only, |class| class.deny.is_some());
        if !asks || !facts.takes_jobs(view) || !denied || !plan_saw_nomad(facts) {
            continue;
        }
        let said = job_holds(plan, job.id)
            .any(|reason| matches!(reason, HoldReason::Denied { .. } | HoldReason::NoClass));
        prop_assert!(said, "nobody says that job {} is denied", job.id);
    }
    for (view, job) in facts.jobs.values().filter(|(view, _)| facts.takes_jobs(view)) {
        let asks = job.status == JobStatus::Queued && facts.asks(&job.labels) == Asks::Runner;
        let class = facts.class_of_job(view, job).filter(|class| class.deny.is_none());
        if asks && plan_saw_nomad(facts) && class.is_some_and(|class| facts.denies_a_key(class, job)) {
            let said = job_holds(plan, job.id).any(|reason| matches!(reason, HoldReason::BadLabels { .. }));
            prop_assert!(said, "nobody says that a key of job {} is denied", job.id);
        }
    }
    Ok(())
}

fn plan_saw_nomad(facts: &Facts) -> bool {
    facts.nomad().is_some()
}

pub fn nothing_that_runs_is_stopped_without_consent_and_nothing_busy_at_all(
    facts: &Facts,
    plan: &Plan,
) -> Checked {
    use RunnerState::{Dead, Disconnected, Pending, Starting, Stopping, Waiting};
    for stop in stops(plan) {
        let runner = facts.runner_of(&stop.name)?;
        let out_of_time = matches!(stop.consent, Consent::OutOfTime { .. });
        prop_assert!(!facts.is_busy(runner) || out_of_time, "{} is busy", stop.name);
        let alive = !matches!(runner.state, Dead | Stopping | Disconnected);
        prop_assert!(alive, "{} is {}", stop.name, runner.state);
        match stop.consent {
            Consent::NeverStarted => {
                let unstarted = matches!(runner.state, Pending | Waiting | Starting);
                let is_replacement = runner.spent && unstarted && !runner.ending;
                prop_assert!(!runner.started || is_replacement, "{} has started", stop.name);
            }
            Consent::GitHub => {}
            Consent::Unregistered => {
                prop_assert!(facts.is_unregistered(runner), "{} was not absent for long", stop.name);
                let unregistered = matches!(stop.reason, StopReason::Unregistered { .. });
                prop_assert!(unregistered || stop.reason == StopReason::Spent, "wrong consent");
                // Any other runner may be busy under another name.
                prop_assert_eq!(stop.registration, Registration::Jit);
            }
            Consent::OutOfTime { limit } => {
                prop_assert_eq!(
                    facts.max_run_duration(runner),
                    Some(limit),
                    "{} has no such limit",
                    stop.name
                );
                prop_assert!(matches!(stop.reason, StopReason::MaxRunDuration { .. }), "wrong consent");
                prop_assert_eq!(runner.state, RunnerState::Running);
                let ran = facts.in_use_for(runner);
                prop_assert!(ran.is_some_and(|ran| ran >= limit), "{} ran for {:?} only", stop.name, ran);
            }
        }
        prop_assert_eq!(stop.registration, runner.registration());
        let repository = facts.view(runner).map(|view| view.repository.id);
        prop_assert!(repository.is_some());
        prop_assert_eq!(stop.repository.as_ref().and_then(|named| named.id), repository);
    }
    Ok(())
}

pub fn what_is_not_ours_is_touched_only_when_dead(facts: &Facts, plan: &Plan) -> Checked {
    for action in &plan.actions {
        if matches!(action, Action::Start(_) | Action::RemoveOrphan(_)) {
            continue;
        }
        let runner = facts.runner_of(action.runner())?;
        let dead = matches!(action, Action::Purge(_)) && runner.state == RunnerState::Dead;
        prop_assert!(facts.ours(runner) || dead, "{}", action);
    }
    Ok(())
}

/// The listing of the repository in which a Stop's runner is registered.
fn listing_of<'a>(facts: &Facts<'a>, stop: &Stop) -> Option<&'a Listing> {
    let id = stop.repository.as_ref()?.id?;
    facts.observation().repositories.get(&id).map(|view| &view.listing)
}

pub fn what_was_not_seen_in_this_pass_neither_starts_nor_stops(facts: &Facts, plan: &Plan) -> Checked {
    let views = &facts.observation().repositories;
    for start in starts(plan) {
        let view = views.get(&start.repository.id);
        let seen = view.is_some_and(|view| matches!(view.listing, Listing::Fresh { .. }));
        prop_assert!(seen, "{} without a listing", start.name);
        let takes = view.is_some_and(|view| facts.takes_jobs(view));
        prop_assert!(takes, "{} for an archived or foreign repository", start.name);
    }
    for stop in stops(plan) {
        let runner = facts.runner_of(&stop.name)?;
        match (listing_of(facts, stop), &stop.reason) {
            (Some(Listing::Fresh { complete: true, .. }), _) => {}
            // Neither depends on what a listing lacks.
            (
                Some(Listing::Fresh { .. }),
                StopReason::Spent
                | StopReason::Yield { .. }
                | StopReason::NotStarting { .. }
                | StopReason::NodeDrains { .. }
                | StopReason::Warm(WarmEnd::Fails { .. })
                | StopReason::MaxRunDuration { .. },
            ) => {}
            (Some(Listing::Fresh { .. }), StopReason::MakeRoom { .. }) if facts.warm(runner).is_some() => {}
            (Some(Listing::Gone { since }), StopReason::RepositoryGone) => {
                // An organization can say whether it is busy.
                let asked =
                    facts.policy().level == RunnerLevel::Organization && stop.consent == Consent::GitHub;
                let over = runner.spent && !runner.ending;
                prop_assert!(!runner.started || over || asked, "{} has started", stop.name);
                prop_assert!(facts.since(*since) >= secs(3600), "{} so soon", stop.name);
            }
            (_, reason) => prop_assert!(false, "{} without a complete listing: {}", stop.name, reason),
        }
    }
    for view in views.values() {
        let seen = matches!(view.listing, Listing::Fresh { complete: true, .. });
        let told = plan.surplus.contains_key(&view.repository.id);
        prop_assert_eq!(told, seen && facts.nomad().is_some(), "surplus of {}", view.repository.id);
    }
    Ok(())
}

pub fn nothing_is_done_while_nomad_is_unseen(facts: &Facts, plan: &Plan) -> Checked {
    if facts.nomad().is_none() {
        prop_assert!(plan.actions.is_empty() && plan.surplus.is_empty() && plan.orphans.is_empty());
        prop_assert_eq!(plan.holds.len(), 1);
    }
    Ok(())
}

/// Each action goes to the namespace of its class or runner. In a namespace that could not be read, nothing starts,
/// stops, gets credentials or is removed, and its queued jobs and its runners have a hold that says so. Nothing else is
/// held for that reason. A registration whose runner may be there stays, too.
pub fn an_unseen_namespace_costs_only_its_classes(facts: &Facts, plan: &Plan) -> Checked {
    let Some(nomad) = facts.nomad() else { return Ok(()) };
    for action in &plan.actions {
        let own = match action {
            Action::Start(start) => facts.namespace_of(start.class.as_deref()),
            Action::VerifyRegistration(_) | Action::RemoveOrphan(_) => action.namespace(),
            _ => facts.runner_of(action.runner())?.namespace.as_ref(),
        };
        prop_assert_eq!(action.namespace(), own, "{}", action);
        let needs_nomad = !matches!(action, Action::VerifyRegistration(_));
        prop_assert!(!needs_nomad || !facts.is_unseen(action.namespace()), "{} is not seen", action);
    }
    let unseen = |reason: &HoldReason| matches!(reason, HoldReason::NamespaceUnseen { .. });
    for runner in facts.unseen() {
        let about = plan.actions.iter().find(|action| action.runner() == runner.name);
        prop_assert!(about.is_none(), "{:?} although it is not seen", about);
        prop_assert!(runner_holds(plan, &runner.name).any(unseen), "nobody says why {} waits", runner.name);
    }
    for runner in facts.runners() {
        prop_assert!(!runner_holds(plan, &runner.name).any(unseen), "{} is seen", runner.name);
    }
    for (group, jobs) in facts.demand() {
        let view = &facts.observation().repositories[&group.0];
        let fresh = matches!(view.listing, Listing::Fresh { .. });
        let supply = facts.supply(group);
        for job in jobs {
            let held = facts.is_held_by_its_namespace(view, job);
            let told = job_holds(plan, job.id).any(unseen);
            let served = supply.iter().any(|runner| runner.meta.job_id() == Some(job.id));
            prop_assert!(held || !told, "job {} waits for another class's namespace", job.id);
            let missing = jobs.len() > supply.len() && !served;
            prop_assert!(told || !held || !fresh || !missing, "nobody says why job {} waits", job.id);
        }
    }
    let registrations = plan.orphans.iter().filter(|orphan| matches!(orphan, Orphan::Registration { .. }));
    prop_assert!(nomad.unseen.is_empty() || registrations.count() == 0, "its runner may be there");
    Ok(())
}

/// Whichever runner is stopped, and why.
pub fn a_group_never_starts_and_stops_in_one_plan(facts: &Facts, plan: &Plan) -> Checked {
    let stopping: BTreeSet<&Group> =
        stops(plan).filter_map(|stop| facts.group(facts.runner(&stop.name)?)).collect();
    for start in starts(plan) {
        prop_assert!(!stopping.contains(&group_of_start(start)), "{}", start.name);
    }
    Ok(())
}

pub fn each_job_starts_one_runner_under_the_next_number(facts: &Facts, plan: &Plan) -> Checked {
    let mut job_ids = BTreeSet::new();
    for (job_id, start) in job_starts(plan) {
        prop_assert!(job_ids.insert(job_id), "job {} twice", job_id);
        let attempts = facts.counted().filter(|runner| runner.meta.job_id() == Some(job_id));
        let highest = attempts.map(|runner| runner.meta.attempt.unwrap_or(1)).max().unwrap_or(0);
        // A name is skipped if its variable still exists, or a foreign job has it.
        let namespace = facts.namespace_of(start.class.as_deref());
        let is_taken = |attempt| facts.is_taken(namespace, &facts.name(start, attempt));
        prop_assert_eq!(&start.name, &facts.name(start, start.attempt));
        prop_assert!(start.attempt > highest || highest == u32::MAX, "{}", start.name);
        prop_assert!((highest.saturating_add(1)..start.attempt).all(is_taken), "{}", start.name);
        prop_assert!(!is_taken(start.attempt) || start.attempt == u32::MAX, "{}", start.name);
        let job = facts.jobs.get(&job_id);
        let (view, job) = job.ok_or_else(|| TestCaseError::fail(format!("no job {job_id}")))?;
        prop_assert!(facts.wants_runner(view, job), "job {} wants none", job.id);
        prop_assert_eq!(view.repository.id, start.repository.id);
        prop_assert_eq!(key(start.labels.key()), group_of_job(view, job).1);
        let own = facts.supply(&group_of_start(start));
        let own = own.iter().any(|runner| runner.meta.job_id() == Some(job_id));
        prop_assert!(!own, "job {} has a runner of its own", job.id);
    }
    Ok(())
}

pub fn names_are_unique_valid_and_always_the_same(facts: &Facts, plan: &Plan) -> Checked {
    let mut names = BTreeSet::new();
    for start in starts(plan) {
        prop_assert!(names.insert(&start.name), "{} twice", start.name);
        prop_assert!(start.name.len() <= 64, "{}", start.name);
        let valid = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        prop_assert!(start.name.chars().all(valid), "{}", start.name);
        let deployment = facts.nomad().map_or("", |nomad| &nomad.deployment);
        prop_assert!(is_ours_by_name(&facts.policy().prefix, deployment, &start.name), "{}", start.name);
        prop_assert!(facts.runner(&start.name).is_none(), "{} exists", start.name);
    }
    if !names.is_empty() {
        prop_assert!(*plan == facts.plan_again(), "planned again it is another plan");
    }
    Ok(())
}

/// How long attempt n+1 waits after the death of attempt n: min(30 s × 2^(n-1), 10 min).
pub fn wait_after(attempt: u64) -> Duration {
    secs(600.min(30 << attempt.saturating_sub(1).min(10)))
}

pub fn waits_are_obeyed(facts: &Facts, plan: &Plan) -> Checked {
    let others = |action: &&Action| !matches!(action, Action::Start(_) | Action::RemoveOrphan(_));
    for action in plan.actions.iter().filter(others) {
        prop_assert!(!facts.waits_after_failure(action.runner()), "{} although it failed", action);
        let issue =
            matches!(action, Action::IssueCredentials(_)) && facts.waits_for_credentials(action.runner());
        prop_assert!(!issue, "{} although it was refused", action);
    }
    // There is no longer wait either.
    for hold in &plan.holds {
        let (Subject::Job { id, .. }, HoldReason::Attempts { attempt, wait, ended }) =
            (&hold.subject, &hold.reason)
        else {
            continue;
        };
        let last = facts.newest(*id);
        let last = last.ok_or_else(|| TestCaseError::fail(format!("the first attempt waits: {hold}")))?;
        let finish = last.finish.as_ref().filter(|_| last.state == RunnerState::Dead);
        prop_assert_eq!(ended, &finish.map(ToString::to_string), "{}", hold);
        prop_assert_eq!(*attempt, last.meta.attempt.unwrap_or(1).saturating_add(1));
        let rule = wait_after(last.meta.attempt.unwrap_or(1).into());
        prop_assert_eq!(*wait + over_for(facts, last), rule, "{}", hold);
    }
    for (job_id, start) in job_starts(plan) {
        let backoff = facts.memory().start_backoff.get(&start.group());
        let rejected = backoff.is_some_and(|backoff| backoff.until > facts.now());
        prop_assert!(!rejected, "{} was rejected", start.name);
        let refused = facts.memory().refused.get(&start.group());
        let refused = refused.is_some_and(|refusal| refusal.until > facts.now());
        prop_assert!(!refused, "{} is not permitted", start.name);
        let Some(last) = facts.newest(job_id) else { continue };
        let wait = wait_after(last.meta.attempt.unwrap_or(1).into());
        let over = over_for(facts, last);
        let early = !facts.is_busy(last) && over < wait;
        prop_assert!(!early, "attempt {} {:?} after the last", start.attempt, over);
    }
    Ok(())
}

/// The time from which the next attempt counts: the previous one's death, or its start while it is alive.
pub fn over_for(facts: &Facts, last: &Runner) -> Duration {
    if last.state == RunnerState::Dead { facts.dead_for(last) } else { facts.age(last.submitted_at) }
}

pub fn no_more_than_two_attempts_of_a_job_are_alive(facts: &Facts, plan: &Plan) -> Checked {
    for (job_id, _) in job_starts(plan) {
        let alive = facts.live_attempts(job_id);
        prop_assert!(alive < 2, "job {} has {} live attempts already", job_id, alive);
    }
    for hold in &plan.holds {
        let (Subject::Job { id, .. }, HoldReason::LiveAttempts { count }) = (&hold.subject, &hold.reason)
        else {
            continue;
        };
        prop_assert_eq!(*count, facts.live_attempts(*id));
        prop_assert!(*count >= 2, "{}", hold);
    }
    Ok(())
}

/// A runner that makes no progress has a hold.
pub fn what_is_stuck_is_told(facts: &Facts, plan: &Plan) -> Checked {
    for runner in facts.runners().filter(|runner| facts.is_stuck(runner)) {
        let stopped = stops(plan).any(|stop| stop.name == runner.name);
        let told = runner_holds(plan, &runner.name).any(HoldReason::is_warning);
        prop_assert!(stopped || told, "{} is stuck without a word", runner.name);
    }
    Ok(())
}

/// The rule in both directions: no job is forgotten, and no more runners start than are missing.
pub fn every_queued_job_has_a_runner_to_spare_a_start_or_a_hold(facts: &Facts, plan: &Plan) -> Checked {
    if facts.nomad().is_none() {
        return Ok(());
    }
    let started: BTreeSet<JobId> = job_starts(plan).map(|(job_id, _)| job_id).collect();
    let held: BTreeSet<JobId> = plan
        .holds
        .iter()
        .filter_map(|hold| match hold.subject {
            Subject::Job { id, .. } => Some(id),
            _ => None,
        })
        .collect();
    for (view, job) in facts.jobs.values().filter(|(_, job)| job.status == JobStatus::Queued) {
        let demand = facts.wants_runner(view, job) && facts.takes_jobs(view);
        if demand || facts.asks(&job.labels) == Asks::Nothing {
            continue;
        }
        let word = held.contains(&job.id)
            || repository_holds(plan, &view.repository.full_name())
                .any(|reason| !matches!(reason, HoldReason::Incomplete { .. }));
        prop_assert!(word, "job {} is dropped in silence", job.id);
    }
    for (group, jobs) in facts.demand() {
        let view = &facts.observation().repositories[&group.0];
        // It is polled again when it is due, and nothing is wrong.
        if matches!(view.listing, Listing::Earlier { .. }) {
            continue;
        }
        if !matches!(view.listing, Listing::Fresh { .. }) {
            let unseen = repository_holds(plan, &view.repository.full_name()).next().is_some();
            prop_assert!(unseen, "{} is not seen, and nobody says so", view.repository.full_name());
            continue;
        }
        let supply = facts.supply(group).len();
        let silent = jobs.iter().filter(|job| !started.contains(&job.id) && !held.contains(&job.id)).count();
        prop_assert!(silent <= supply, "{} jobs of {:?} without a word, {} runners", silent, group, supply);
        let started = jobs.iter().filter(|job| started.contains(&job.id)).count();
        prop_assert!(started + supply <= jobs.len().max(supply), "too many starts for {:?}", group);
    }
    Ok(())
}

/// Of two jobs of one group that differ only in age, the older one is served first.
pub fn the_oldest_job_goes_first(facts: &Facts, plan: &Plan) -> Checked {
    if starts(plan).next().is_none() {
        return Ok(());
    }
    let started: BTreeSet<JobId> = job_starts(plan).map(|(job_id, _)| job_id).collect();
    for (group, jobs) in facts.demand() {
        let order = |job: &WorkflowJob| (job.created_at, job.id);
        let Some(youngest) = jobs.iter().filter(|job| started.contains(&job.id)).max_by_key(|job| order(job))
        else {
            continue;
        };
        for other in jobs {
            if started.contains(&other.id) || order(other) > order(youngest) {
                continue;
            }
            let served = facts.supply(group).iter().any(|runner| runner.meta.job_id() == Some(other.id));
            let waits = job_holds(plan, other.id).any(|r| {
                matches!(
                    r,
                    HoldReason::Attempts { .. }
                        | HoldReason::LiveAttempts { .. }
                        | HoldReason::LeftToWarm { .. }
                )
            });
            prop_assert!(served || waits, "job {} before {}", youngest.id, other.id);
        }
    }
    Ok(())
}

pub fn caps_are_the_reason_where_they_are_given_as_one(facts: &Facts, plan: &Plan) -> Checked {
    let of_jobs = plan.holds.iter().filter(|hold| !matches!(hold.subject, Subject::Warm { .. }));
    let within = |start: &&Start, id| start.repository.id == id && !facts.starts_shared(start);
    for hold in of_jobs {
        let HoldReason::Cap { cap, limit } = hold.reason else { continue };
        let job = match &hold.subject {
            Subject::Job { id, .. } => facts.jobs.get(id),
            _ => None,
        };
        let (view, job) = job.ok_or_else(|| TestCaseError::fail(format!("of no job: {hold}")))?;
        let group = group_of_job(view, job);
        let (allowed, live) = match cap {
            Cap::All => (facts.policy().max_runners, facts.live() + starts(plan).count()),
            Cap::Repository => (
                facts.policy().max_runners_per_repository,
                facts.live_in(group.0) + starts(plan).filter(|start| within(start, group.0)).count(),
            ),
            Cap::Class | Cap::ClassRepository => {
                let class = facts.class_of_job(view, job);
                let only = (cap == Cap::ClassRepository).then_some(group.0);
                let limit = class.and_then(|class| match only {
                    Some(_) => class.max_runners_per_repository,
                    None => class.max_runners,
                });
                let name = class.map(|class| class.name.as_str());
                let counts = |start: &&Start| {
                    start.class.as_deref() == name && only.is_none_or(|id| within(start, id))
                };
                (limit, facts.live_of_class(name, only) + starts(plan).filter(counts).count())
            }
            Cap::Group => (
                facts.group_cap(facts.class_of_job(view, job)),
                facts.live_of(&group)
                    + starts(plan)
                        .filter(|start| group_of_start(start) == group && within(start, group.0))
                        .count(),
            ),
        };
        prop_assert_eq!(allowed, Some(limit));
        prop_assert!(live >= limit, "{}: {} only", hold, live);
    }
    Ok(())
}

/// Labels are hostile: displayed text moves no cursor and starts no line.
pub fn what_people_read_is_harmless(_: &Facts, plan: &Plan) -> Checked {
    let text = plan.to_string();
    prop_assert!(text.chars().all(|c| c == '\n' || !is_harmful(c)), "{:?}", text);
    prop_assert!(text.lines().all(|line| line.chars().count() <= LINE + 1), "{:?}", text);
    // Each hold is shown, or counted among others of its kind.
    let lines = summary::lines(&plan.holds);
    prop_assert_eq!(text.lines().count(), plan.actions.len() + lines.len());
    let told = lines.iter().map(|line| match line {
        HoldLine::One(_) => 1,
        HoldLine::More { count, .. } => *count,
    });
    prop_assert_eq!(told.sum::<usize>(), plan.holds.len());
    Ok(())
}

/// A stopped runner needs no hold that explains why it stays.
pub fn a_runner_is_stopped_once_and_then_nothing_is_held_of_it(_: &Facts, plan: &Plan) -> Checked {
    let mut seen = BTreeSet::new();
    for stop in stops(plan) {
        prop_assert!(seen.insert(&stop.name), "{} twice", stop.name);
        prop_assert!(runner_holds(plan, &stop.name).next().is_none(), "{} is held too", stop.name);
        let others = plan.actions.iter().filter(|action| action.runner() == stop.name).count();
        prop_assert_eq!(others, 1, "{}", stop.name);
    }
    Ok(())
}
