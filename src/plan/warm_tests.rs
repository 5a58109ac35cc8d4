//! Warm runners as scenarios. The invariants are in `proptests/`.

use std::collections::BTreeMap;

use super::super::{
    Policy, WarmPolicy, plan,
    tests::{DEPLOYMENT, REPOSITORY, ago, job, policy, queued, repository, runner, seconds, world},
};
use crate::{
    config::{Hours, WarmEntry},
    model::*,
};

const NOW: Moment = Moment::after_start(std::time::Duration::from_secs(10_000));

fn observation(jobs: Vec<WorkflowJob>, runners: Vec<Runner>) -> Observation {
    world(jobs, runners).0
}

fn entry(id: &str, count: usize) -> WarmPolicy {
    WarmPolicy {
        class: None,
        settings: "now".to_owned(),
        entry: WarmEntry {
            id: id.to_owned(),
            labels: Labels::new(["nomadtools", "small"]),
            place: RepoEntry::Repository { owner: "o".to_owned(), name: "R7".to_owned() },
            count,
            schedule: None,
        },
    }
}

fn warm_policy(count: usize) -> Policy {
    Policy { warm: vec![entry("e", count)], ..policy() }
}

/// A warm runner that was started as number `number` of the entry "e".
fn warm(number: u32, state: RunnerState) -> Runner {
    let mut runner = runner(900, number, state);
    let purpose = Purpose::Warm(Warm { entry: "e".to_owned(), settings: "now".to_owned(), failed: 0 });
    runner.name =
        runner_name("ghr", DEPLOYMENT, None, &repository(REPOSITORY).full_name(), purpose.clone(), number);
    runner.meta.purpose = Some(purpose);
    runner.meta.labelsstr = "nomadtools,small".to_owned();
    runner.submitted_at = ago(3000);
    runner
}

fn small(id: u64) -> WorkflowJob {
    WorkflowJob { labels: vec!["Small".to_owned(), "nomadtools".to_owned()].into(), ..queued(id) }
}

fn said(plan: &Plan) -> Vec<String> {
    let all = plan.actions.iter().map(ToString::to_string).chain(plan.holds.iter().map(ToString::to_string));
    all.collect()
}

fn starts(plan: &Plan) -> Vec<&Start> {
    let mut starts = Vec::new();
    for action in &plan.actions {
        if let Action::Start(start) = action {
            starts.push(start);
        }
    }
    starts
}

fn stops(plan: &Plan) -> Vec<(&str, &StopReason)> {
    let mut stops = Vec::new();
    for action in &plan.actions {
        if let Action::Stop(stop) = action {
            stops.push((stop.name.as_str(), &stop.reason));
        }
    }
    stops
}

fn seen_twice(names: &[&Runner]) -> BTreeMap<RepositoryId, BTreeMap<String, Timestamp>> {
    [(REPOSITORY, names.iter().map(|runner| (runner.name.clone(), ago(60))).collect())].into()
}

#[test]
fn an_entry_gets_its_runners_and_a_busy_one_is_replaced() {
    let first = plan(&observation(vec![], vec![]), &warm_policy(2), NOW);
    let [one, two] = starts(&first)[..] else { panic!("{:?}", said(&first)) };
    assert!(one.name != two.name && one.attempt + 1 == two.attempt);
    assert_eq!(one.labels, Labels::new(["nomadtools", "small"]));
    assert!(said(&first)[0].contains("as a warm runner: 0 of 2 ready"), "{:?}", said(&first));
    let idle = warm(1, RunnerState::Running);
    let pending = Runner { submitted_at: ago(5), ..warm(2, RunnerState::Pending) };
    let mut running = job(5, JobStatus::InProgress);
    running.runner_name = Some(idle.name.clone());
    let busy = plan(&observation(vec![running], vec![idle, pending]), &warm_policy(2), NOW);
    let [next] = starts(&busy)[..] else { panic!("{:?}", said(&busy)) };
    assert_eq!(next.attempt, 3);
}

#[test]
fn a_job_is_left_to_an_idle_warm_runner_for_a_minute_and_then_gets_its_own() {
    let idle = warm(1, RunnerState::Running);
    let mut seen = observation(vec![small(1), small(2)], vec![idle.clone()]);
    let left = plan(&seen, &warm_policy(1), NOW);
    let [own] = starts(&left)[..] else { panic!("{:?}", said(&left)) };
    assert_eq!((own.purpose.job_id(), &left.left), (Some(JobId(2)), &[JobId(1)].into()));
    assert!(
        said(&left).iter().any(|line| line.contains("job 1 ") && line.contains("a warm runner that is idle"))
    );
    // Not to one whose labels lack one of the job's, and not to one that does not run.
    let other = |labels: &str, state| {
        let mut other = warm(1, state);
        other.meta.labelsstr = labels.to_owned();
        starts(&plan(&observation(vec![small(1)], vec![other]), &warm_policy(1), NOW)).len()
    };
    assert_eq!(other("nomadtools,large", RunnerState::Running), 1);
    assert_eq!(other("nomadtools,small", RunnerState::Starting), 1);
    assert_eq!(other("SMALL,large,nomadtools", RunnerState::Running), 0);
    for (seconds_ago, expected) in [(59, 1), (60, 2)] {
        seen.memory.left = [(JobId(1), NOW - seconds(seconds_ago))].into();
        let plan = plan(&seen, &warm_policy(1), NOW);
        assert_eq!(starts(&plan).len(), expected, "{seconds_ago}: {:?}", said(&plan));
        let told = said(&plan).iter().any(|line| line.contains(&idle.name) && line.contains("runner group"));
        assert_eq!(told, expected == 2, "{:?}", said(&plan));
    }
}

#[test]
fn an_organizations_warm_runner_takes_jobs_of_its_other_repositories() {
    let idle = warm(1, RunnerState::Running);
    let mut seen = observation(vec![], vec![idle]);
    let other = RepositoryId(8);
    let mut view = seen.repositories[&REPOSITORY].clone();
    view.repository = repository(other);
    let of_other = WorkflowJob { repository: other, ..small(1) };
    view.listing = Listing::Fresh { now: ago(0), jobs: vec![of_other], complete: true };
    seen.repositories.insert(other, view);
    let mut shared = Policy { level: RunnerLevel::Organization, ..warm_policy(1) };
    shared.warm[0].entry.place = RepoEntry::Owner("O".to_owned());
    assert_eq!(starts(&plan(&seen, &shared, NOW)).len(), 0);
    assert_eq!(starts(&plan(&seen, &warm_policy(1), NOW)).len(), 1, "registered at another repository");
    // It counts against no repository's cap.
    let capped = Policy { max_runners_per_repository: Some(1), ..shared.clone() };
    let own = WorkflowJob { labels: vec!["nomadtools other".to_owned()].into(), ..queued(9) };
    seen.repositories.get_mut(&REPOSITORY).unwrap().listing =
        Listing::Fresh { now: ago(0), jobs: vec![own], complete: true };
    assert_eq!(starts(&plan(&seen, &capped, NOW)).len(), 1);
}

#[test]
fn outside_its_schedule_an_entry_has_no_runners() {
    let mut policy = warm_policy(1);
    let closed = |now: &str| Hours::parse(now).unwrap();
    policy.warm[0].entry.schedule = Some(closed("08:30-08:00"));
    let idle = warm(1, RunnerState::Running);
    let mut seen = observation(vec![], vec![idle.clone()]);
    assert!(!policy.warm[0].entry.schedule.as_ref().unwrap().are_open(ago(0)), "{}", ago(0));
    let once = plan(&seen, &policy, NOW);
    assert_eq!((starts(&once).len(), stops(&once).len()), (0, 0));
    assert!(
        said(&once)
            .iter()
            .any(|line| line.contains("outside its schedule, which opens at 2027-01-15T08:30:00Z"))
    );
    seen.memory.surplus = seen_twice(&[&idle]);
    let twice = plan(&seen, &policy, NOW);
    assert_eq!(stops(&twice), [(idle.name.as_str(), &StopReason::Warm(WarmEnd::Closed))]);
}

#[test]
fn what_the_configuration_no_longer_has_leaves_and_what_is_outdated_is_replaced_one_by_one() {
    let (old, mut other, new) =
        (warm(1, RunnerState::Running), warm(2, RunnerState::Running), warm(3, RunnerState::Running));
    let mut former = old.clone();
    former.meta.purpose = Some(Purpose::Warm(Warm { entry: "former".to_owned(), ..Warm::default() }));
    let mut seen = observation(vec![], vec![former.clone()]);
    seen.memory.surplus = seen_twice(&[&former]);
    let plan_of = |seen: &Observation, count| plan(seen, &warm_policy(count), NOW);
    assert_eq!(stops(&plan_of(&seen, 1)), [(former.name.as_str(), &StopReason::Warm(WarmEnd::Removed))]);

    let (mut settings, mut ancient) = (new.clone(), old.clone());
    if let Some(Purpose::Warm(warm)) = &mut settings.meta.purpose {
        warm.settings = "before".to_owned();
    }
    ancient.submitted_at = ago(86_400);
    let all = [&ancient, &other, &settings];
    let mut seen = observation(vec![], all.map(Clone::clone).to_vec());
    seen.memory.surplus = seen_twice(&all);
    let age = seconds(86_400);
    assert_eq!(stops(&plan_of(&seen, 3)), [(ancient.name.as_str(), &StopReason::Warm(WarmEnd::Old { age }))]);
    // An excess takes the outdated ones first.
    let two = plan_of(&seen, 1);
    let gone: Vec<&str> = stops(&two).iter().map(|(name, _)| *name).collect();
    assert!(gone.len() == 2 && !gone.contains(&other.name.as_str()), "{gone:?}");
    // While another one is not running yet, nobody is replaced.
    other.state = RunnerState::Starting;
    other.variable = Some(ago(5));
    other.submitted_at = ago(10);
    other.allocation.as_mut().unwrap().created_at = ago(10);
    let mut seen = observation(vec![], vec![ancient.clone(), other, settings]);
    seen.memory.surplus = seen_twice(&[&ancient]);
    assert_eq!(stops(&plan_of(&seen, 3)).len(), 0);
}

#[test]
fn failures_of_an_entry_make_it_wait_and_concern_no_other() {
    let mut policy = warm_policy(1);
    let dead = |failed: u32, finish: Finish, ran: i64, since: i64| {
        let mut dead = warm(7, RunnerState::Dead);
        dead.meta.purpose =
            Some(Purpose::Warm(Warm { entry: "e".to_owned(), settings: String::new(), failed }));
        dead.finish = Some(finish);
        dead.submitted_at = ago(since + ran);
        dead.started_at = Some(ago(since + ran));
        dead.ended_at = Some(ago(since));
        dead
    };
    let failure = || Finish::Failure { exit_code: Some(1) };
    for (failed, finish, ran, since, expected) in [
        (0, failure(), 5, 29, None),
        (0, failure(), 5, 30, Some(1)),
        (2, failure(), 5, 119, None),
        (2, failure(), 5, 120, Some(3)),
        (50, failure(), 5, 599, None),
        (50, failure(), 5, 600, Some(51)),
        (2, Finish::Success, 5, 0, Some(0)),
        (2, Finish::Lost, 600, 0, Some(0)),
        (2, Finish::Stopped, 599, 0, None),
    ] {
        let seen = observation(vec![], vec![dead(failed, finish.clone(), ran, since)]);
        let plan = plan(&seen, &policy, NOW);
        let next = starts(&plan).first().map(|start| start.purpose.warm().unwrap().failed);
        assert_eq!(next, expected, "{failed} {finish} {since}: {:?}", said(&plan));
        assert!(starts(&plan).iter().all(|start| start.attempt == 8), "{:?}", said(&plan));
    }
    policy.warm.push(entry("other", 1));
    let mut seen = observation(vec![], vec![dead(3, failure(), 1, 1)]);
    assert_eq!(starts(&plan(&seen, &policy, NOW)).len(), 1);
    seen.memory.warm_backoff =
        [("other".to_owned(), Backoff { failures: 1, until: NOW + seconds(9), error: "no".to_owned() })]
            .into();
    let held = plan(&seen, &policy, NOW);
    assert!(said(&held).iter().any(|line| line.contains("retrying in 9s: no")), "{:?}", said(&held));
    assert_eq!(starts(&held).len(), 0);
}

#[test]
fn a_warm_runner_without_progress_is_stopped() {
    let mut unplaced = warm(1, RunnerState::Pending);
    unplaced.submitted_at = ago(600);
    let mut refused = warm(2, RunnerState::Waiting);
    refused.allocation.as_mut().unwrap().created_at = ago(300);
    let plan = plan(&observation(vec![], vec![unplaced, refused]), &warm_policy(2), NOW);
    let why: Vec<String> = stops(&plan).iter().map(|(_, reason)| reason.to_string()).collect();
    assert_eq!(why.len(), 2, "{:?}", said(&plan));
    assert!(
        why.iter().any(|why| why.contains("unplaced"))
            && why.iter().any(|why| why.contains("no credentials"))
    );
}

#[test]
fn at_a_cap_an_idle_warm_runner_yields_to_a_job_that_it_cannot_take() {
    let idle = warm(1, RunnerState::Running);
    let full =
        |patience| Policy { max_runners: Some(1), pending_to_kill_listening: patience, ..warm_policy(1) };
    let other = |age: i64| WorkflowJob { created_at: Some(ago(age)), ..job(1, JobStatus::Queued) };
    let mut other_labels = other(60);
    other_labels.labels = vec!["nomadtools other".to_owned()].into();
    for (patience, age, leaves) in
        [(Some(seconds(30)), 29, false), (Some(seconds(30)), 30, true), (None, 59, false), (None, 60, true)]
    {
        let waiting = WorkflowJob { created_at: Some(ago(age)), ..other_labels.clone() };
        let plan = plan(&observation(vec![waiting], vec![idle.clone()]), &full(patience), NOW);
        assert_eq!(stops(&plan).len(), usize::from(leaves), "{age}: {:?}", said(&plan));
    }
    // A job whose turn is earlier, but that has not waited for long, does not keep it from leaving.
    let mut seen = observation(vec![other_labels.clone()], vec![idle.clone()]);
    let mut second = seen.repositories[&REPOSITORY].clone();
    second.repository.id = RepositoryId(8);
    second.repository.name = "R8".to_owned();
    second.repository.html_url.push('8');
    let young =
        WorkflowJob { created_at: Some(ago(1)), repository: RepositoryId(8), ..job(2, JobStatus::Queued) };
    second.listing = Listing::Fresh { now: ago(0), jobs: vec![young], complete: true };
    seen.repositories.insert(RepositoryId(8), second);
    seen.memory.last_start.insert(REPOSITORY, ago(500));
    assert_eq!(stops(&plan(&seen, &full(None), NOW)).len(), 1);
    // It stays for a job that it is about to get.
    let plan = plan(&observation(vec![small(2)], vec![idle]), &full(None), NOW);
    assert_eq!((stops(&plan).len(), starts(&plan).len()), (0, 0), "{:?}", said(&plan));
}

#[test]
fn for_room_on_nodes_warm_runners_of_the_same_pool_leave_and_do_not_start() {
    let asks = |pool: &str| Some(Asks { node_pool: pool.to_owned(), ..Asks::default() });
    let mut idle = warm(1, RunnerState::Running);
    idle.meta.asks = asks("small");
    let mut waiting = runner(1, 1, RunnerState::Pending);
    waiting.submitted_at = ago(100);
    waiting.blocked = Some(Blocked { exhausted: true, reason: "memory".to_owned() });
    for (pool, leaves) in [("gpu", false), ("small", true)] {
        waiting.meta.asks = asks(pool);
        let plan =
            plan(&observation(vec![queued(1)], vec![idle.clone(), waiting.clone()]), &warm_policy(2), NOW);
        assert_eq!(stops(&plan).len(), usize::from(leaves), "{pool}: {:?}", said(&plan));
        assert_eq!(starts(&plan).len(), usize::from(!leaves), "{pool}: {:?}", said(&plan));
    }
}

#[test]
fn the_idle_time_of_a_warm_runner_does_not_count_as_run_time() {
    let policy = Policy { max_run_duration: Some(seconds(600)), ..warm_policy(1) };
    let idle = warm(1, RunnerState::Running);
    assert_eq!(stops(&plan(&observation(vec![], vec![idle.clone()]), &policy, NOW)).len(), 0);
    for (took, ends) in [(629, false), (630, true)] {
        let mut running = job(5, JobStatus::InProgress);
        running.runner_name = Some(idle.name.clone());
        running.started_at = Some(ago(took));
        let plan = plan(&observation(vec![running], vec![idle.clone()]), &policy, NOW);
        assert_eq!(stops(&plan).len(), usize::from(ends), "{took}: {:?}", said(&plan));
    }
}

#[test]
fn a_start_waits_for_a_fresh_listing_of_the_most_public_repository() {
    let mut seen = observation(vec![], vec![]);
    let ended = NOW - seconds(5);
    seen.repositories.get_mut(&REPOSITORY).unwrap().listing =
        Listing::Earlier { ended, jobs: vec![], complete: true };
    let unpolled = plan(&seen, &warm_policy(1), NOW);
    assert!(starts(&unpolled).is_empty());
    assert!(said(&unpolled).iter().any(|line| line.contains("next poll of o/r7")), "{:?}", said(&unpolled));
    seen.repositories.clear();
    let nowhere = plan(&seen, &warm_policy(1), NOW);
    assert!(
        said(&nowhere).iter().any(|line| line.contains("none of its repositories")),
        "{:?}",
        said(&nowhere)
    );
}
