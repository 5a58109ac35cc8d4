use std::collections::BTreeSet;

use super::*;
use crate::model::{
    Action, Allocation, Cap, Done, Finish, GroupKey, Hold, HoldReason, JobId, JobStatus, Labels, Listing,
    NomadView, Observation, Outcome, Ownership, Plan, Purge, PurgeReason, Report, Repository, RepositoryId,
    RepositoryView, RunId, Runner, RunnerMeta, RunnerState, Start, StartReason, Subject, WorkflowJob,
};

/// The start of the servers' clocks.
const EPOCH: i64 = 1_700_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(EPOCH + second).unwrap()
}

fn repository() -> Repository {
    Repository {
        id: RepositoryId(7),
        owner: "acme".to_owned(),
        name: "widgets".to_owned(),
        html_url: "https://github.com/acme/widgets".to_owned(),
        archived: false,
        disabled: false,
        visibility: crate::model::Visibility::default(),
    }
}

fn job(id: u64, status: JobStatus, created: i64) -> WorkflowJob {
    WorkflowJob {
        id: JobId(id),
        run_id: RunId(1),
        repository: RepositoryId(7),
        name: "build".to_owned(),
        status,
        labels: vec!["nomadtools".to_owned()].into(),
        runner_name: None,
        created_at: Some(at(created)),
        started_at: None,
        html_url: Some(format!("https://github.com/acme/widgets/actions/runs/1/job/{id}")),
        run: Default::default(),
    }
}

fn taken(id: u64, created: i64, started: i64, runner: &str) -> WorkflowJob {
    WorkflowJob {
        runner_name: Some(runner.to_owned()),
        started_at: Some(at(started)),
        ..job(id, JobStatus::InProgress, created)
    }
}

fn runner(name: &str, job_id: u64, state: RunnerState, submitted: i64) -> Runner {
    let meta = RunnerMeta {
        labelsstr: "nomadtools".to_owned(),
        repo_url: "https://github.com/acme/widgets".to_owned(),
        repo_id: Some(RepositoryId(7)),
        purpose: Some(JobId(job_id).into()),
        attempt: Some(1),
        ..RunnerMeta::default()
    };
    Runner {
        name: name.to_owned(),
        namespace: None,
        ownership: Ownership::Ours,
        meta,
        state,
        finish: None,
        started: state == RunnerState::Running,
        spent: false,
        ending: false,
        lost: None,
        variable: None,
        submitted_at: at(submitted),
        allocation: Some(Allocation {
            id: "a".to_owned(),
            node: "node-1".to_owned(),
            node_id: "n".to_owned(),
            draining: false,
            created_at: at(submitted),
        }),
        started_at: None,
        ended_at: None,
        blocked: None,
        last_event: None,
    }
}

/// What is seen at a second of the servers' clocks.
fn seen_at(second: i64, jobs: Vec<WorkflowJob>, runners: Vec<Runner>) -> Observation {
    let listing = Listing::Fresh { now: at(second), jobs, complete: true };
    let view = RepositoryView { repository: repository(), configured: true, listing, missing: None };
    Observation {
        nomad: Some(NomadView {
            now: at(second),
            deployment: "i".to_owned(),
            runners,
            foreign: Vec::new(),
            variables: BTreeSet::new(),
            unseen: std::collections::BTreeMap::new(),
        }),
        repositories: BTreeMap::from([(RepositoryId(7), view)]),
        ..Observation::default()
    }
}

/// A plan with these jobs in demand.
fn wants(jobs: &[u64]) -> Plan {
    let group = GroupKey { repository: RepositoryId(7), labels: Labels::new(["nomadtools"]) };
    Plan { demand: BTreeMap::from([(group, jobs.iter().copied().map(JobId).collect())]), ..Plan::default() }
}

fn start(job_id: u64, name: &str) -> Action {
    Action::Start(Start {
        namespace: None,
        class: None,
        repository: repository(),
        labels: Labels::new(["nomadtools"]),
        purpose: JobId(job_id).into(),
        facts: Default::default(),
        attempt: 1,
        name: name.to_owned(),
        info: String::new(),
        reason: StartReason::Missing { demand: 1, supply: 0 },
    })
}

fn done(action: Action) -> Report {
    Report { action, outcome: Outcome::Done(Done::Performed) }
}

fn pass(status: &Status, observation: &Observation, plan: &Plan, deeds: &[Deed]) {
    status.pass(&Seen {
        at: at(0),
        observation,
        plan,
        deeds,
        errors: &[],
        rates: &[],
        took: Duration::from_millis(20),
        leads: true,
    });
}

/// The sum of a histogram and the number of its values.
fn histogram(status: &Status, name: &str) -> (f64, u64) {
    let (page, _) = status.metrics(Exposition::OpenMetrics);
    let value = |suffix: &str| {
        let line =
            page.lines().find(|line| line.starts_with(&format!("githubrunner_{name}_seconds_{suffix} ")));
        line.unwrap().rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    (value("sum"), value("count") as u64)
}

#[tokio::test(start_paused = true)]
async fn a_job_is_measured_from_queued_to_its_end() {
    let status = Status::new(Duration::from_secs(60));
    let wait = |seconds| tokio::time::advance(Duration::from_secs(seconds));
    pass(&status, &seen_at(0, vec![], vec![]), &Plan::default(), &[]);
    wait(10).await;
    // Queued for 4 s when it is listed, and started in the same pass.
    let started = Deed::new(&done(start(1, "r1")));
    pass(&status, &seen_at(10, vec![job(1, JobStatus::Queued, 6)], vec![]), &wants(&[1]), &[started]);
    assert_eq!(histogram(&status, "job_queued_to_started"), (4.0, 1));
    wait(10).await;
    let on = |second| {
        let runner = runner("r1", 1, RunnerState::Running, 10);
        seen_at(second, vec![taken(1, 6, 18, "r1")], vec![runner])
    };
    pass(&status, &on(20), &Plan::default(), &[]);
    assert_eq!(histogram(&status, "job_queued_to_taken"), (12.0, 1));
    assert_eq!(histogram(&status, "runner_started_to_connected"), (10.0, 1));
    // A continuing state is not measured again.
    wait(10).await;
    pass(&status, &on(30), &Plan::default(), &[]);
    assert_eq!(histogram(&status, "job_queued_to_taken").1, 1);
    assert_eq!(histogram(&status, "job_duration").1, 0);
    wait(10).await;
    let dead = Runner { finish: Some(Finish::Success), ..runner("r1", 1, RunnerState::Dead, 10) };
    for _ in 0..2 {
        pass(&status, &seen_at(40, vec![], vec![dead.clone()]), &Plan::default(), &[]);
    }
    assert_eq!(histogram(&status, "job_duration"), (22.0, 1));
    let (page, _) = status.metrics(Exposition::OpenMetrics);
    assert!(page.contains("githubrunner_runners_finished_total{finish=\"success\"} 1\n"), "{page}");
    assert_eq!(status.sizes()["status jobs and runners"], 2, "the repository, and the runner that Nomad has");
}

#[tokio::test(start_paused = true)]
async fn a_restart_measures_nothing_twice() {
    let status = Status::new(Duration::from_secs(60));
    let runner = runner("r1", 1, RunnerState::Running, 10);
    let seen = seen_at(100, vec![taken(1, 6, 18, "r1")], vec![runner]);
    pass(&status, &seen, &Plan::default(), &[]);
    for name in ["job_queued_to_started", "job_queued_to_taken", "runner_started_to_connected"] {
        assert_eq!(histogram(&status, name).1, 0, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_waited_for_approval_is_measured_from_when_it_was_queued() {
    let status = Status::new(Duration::from_secs(60));
    pass(&status, &seen_at(0, vec![], vec![]), &Plan::default(), &[]);
    let hold = Hold {
        subject: Subject::Job { repository: "acme/widgets".to_owned(), id: JobId(1), labels: String::new() },
        reason: HoldReason::NotQueued { status: "waiting" },
    };
    let held = Plan { holds: vec![hold], ..Plan::default() };
    tokio::time::advance(Duration::from_secs(1000)).await;
    pass(&status, &seen_at(1000, vec![job(1, JobStatus::Waiting, 1)], vec![]), &held, &[]);
    tokio::time::advance(Duration::from_secs(10)).await;
    pass(&status, &seen_at(1010, vec![job(1, JobStatus::Queued, 1)], vec![]), &wants(&[1]), &[]);
    tokio::time::advance(Duration::from_secs(10)).await;
    let runner = runner("r1", 1, RunnerState::Running, 1011);
    let seen = seen_at(1020, vec![taken(1, 1, 1015, "r1")], vec![runner]);
    pass(&status, &seen, &Plan::default(), &[]);
    assert_eq!(histogram(&status, "job_queued_to_taken"), (5.0, 1));
}

#[tokio::test(start_paused = true)]
async fn jobs_that_are_not_ours_are_not_measured() {
    let status = Status::new(Duration::from_secs(60));
    pass(&status, &seen_at(0, vec![], vec![]), &Plan::default(), &[]);
    pass(&status, &seen_at(10, vec![job(1, JobStatus::Queued, 6)], vec![]), &Plan::default(), &[]);
    pass(&status, &seen_at(20, vec![taken(1, 6, 18, "another")], vec![]), &Plan::default(), &[]);
    assert_eq!(histogram(&status, "job_queued_to_taken").1, 0);
    assert!(status.metrics(Exposition::OpenMetrics).0.contains("githubrunner_jobs_running 0\n"));
}

#[tokio::test(start_paused = true)]
async fn a_job_is_queued_or_held_with_the_reason_and_the_time() {
    let status = Status::new(Duration::from_secs(60));
    let jobs = vec![job(1, JobStatus::Queued, 2), job(2, JobStatus::Queued, 1), job(3, JobStatus::Queued, 3)];
    let reason = HoldReason::Cap { cap: Cap::All, limit: 1 };
    let subject = Subject::Job { repository: "acme/widgets".to_owned(), id: JobId(3), labels: String::new() };
    let unplaced = HoldReason::Unplaced { why: "memory exhausted on 1 node".to_owned() };
    let holds = vec![
        Hold { subject, reason },
        Hold { subject: Subject::Runner { name: "r1".to_owned() }, reason: unplaced },
    ];
    let plan = Plan { holds, ..wants(&[1, 2, 3]) };
    let pending = runner("r1", 1, RunnerState::Pending, 5);
    let seen = seen_at(10, jobs, vec![pending]);
    pass(&status, &seen, &plan, &[]);
    let first = status.inner().seen.clone().unwrap().rows.jobs;
    let told = |row: &snapshot::JobRow| (row.id.0, row.state, row.reason.as_ref().map(|why| why.word));
    let expected = [(2, "queued", None), (1, "starting", Some("unplaced")), (3, "held", Some("cap_all"))];
    assert_eq!(first.iter().map(told).collect::<Vec<_>>(), expected);
    assert_eq!((first[1].waits_seconds, first[1].runner.as_deref()), (Some(8), Some("r1")));
    // The hold lasts: its time is that of the first one.
    pass(&status, &seen, &plan, &[]);
    let again = status.inner().seen.clone().unwrap().rows.jobs;
    assert_eq!(again[2].reason, first[2].reason);
    // Nomad is unreachable: the earlier data stays, and is reported as such.
    pass(&status, &Observation::default(), &Plan::default(), &[]);
    let unseen = status.inner().seen.clone().unwrap();
    assert!(!unseen.nomad_seen && unseen.rows.jobs.len() == 3);
}

#[tokio::test(start_paused = true)]
async fn healthy_while_passes_end_and_ready_while_they_reach_both() {
    let status = Status::new(Duration::from_secs(60));
    assert!(status.health().is_ok() && status.readiness().is_err());
    let seen = Snapshot { nomad_seen: true, repositories: Some((1, 2)), ..Snapshot::default() };
    status.record(seen.clone());
    assert_eq!(status.readiness().unwrap(), "Nomad up; 1 of 2 repositories listed; standby\n");
    status.record(Snapshot { repositories: Some((0, 2)), ..seen.clone() });
    assert!(status.readiness().is_err());
    status.record(Snapshot { repositories: None, ..seen.clone() });
    assert!(status.readiness().is_err(), "a pass without GitHub says nothing of it");
    status.record(Snapshot { nomad_seen: false, ..seen });
    assert!(status.readiness().is_err());
    tokio::time::advance(Duration::from_secs(660)).await;
    assert!(status.health().is_ok());
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(status.health().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_stuck_loop_is_not_healthy() {
    let status = Status::new(Duration::from_secs(60));
    status.beat();
    tokio::time::advance(STUCK).await;
    assert!(status.health().is_ok());
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(status.health().is_err());
    status.beat();
    assert!(status.health().is_ok());
}

#[tokio::test(start_paused = true)]
async fn actions_add_up() {
    let status = Status::new(Duration::from_secs(60));
    let purge = Action::Purge(Purge {
        namespace: None,
        name: "r".to_owned(),
        repository: None,
        class: None,
        reason: PurgeReason::Asked,
    });
    let did = |count| Snapshot { deeds: vec![Deed::new(&done(purge.clone())); count], ..Snapshot::default() };
    status.record(did(2));
    status.record(did(3));
    let (metrics, _) = status.metrics(Exposition::OpenMetrics);
    let line = "githubrunner_actions_total{action=\"purge\",outcome=\"done\",reason=\"asked\"} 5\n";
    assert!(metrics.contains(line), "{metrics}");
    assert!(metrics.contains("githubrunner_passes_total 2\n"), "{metrics}");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_ran_between_two_looks_is_measured_by_githubs_own_times_once() {
    let status = Status::new(Duration::from_secs(60));
    let wait = |seconds| tokio::time::advance(Duration::from_secs(seconds));
    pass(&status, &seen_at(0, vec![], vec![]), &Plan::default(), &[]);
    wait(20).await;
    let live = || vec![runner("r1", 1, RunnerState::Running, 10)];
    pass(&status, &seen_at(20, vec![job(1, JobStatus::Queued, 6)], live()), &wants(&[1]), &[]);
    wait(10).await;
    let ended = |runner: &str, id, created| EndedJob {
        id: JobId(id),
        run_id: RunId(1),
        run_attempt: 1,
        key: String::new(),
        conclusion: crate::model::Conclusion::Other,
        runner: runner.to_owned(),
        created_at: at(created),
        started_at: at(22),
        completed_at: at(25),
    };
    // Another deployment's job, one from before the start, and ours: three looks show it.
    status.ended(&[ended("foreign", 2, 6), ended("r1", 3, -1), ended("r1", 1, 6)], at(30));
    status.ended(&[ended("r1", 1, 6)], at(31));
    pass(&status, &seen_at(30, vec![], live()), &Plan::default(), &[]);
    status.ended(&[ended("r1", 1, 6)], at(32));
    // A job in an older listing is not measured again.
    pass(&status, &seen_at(30, vec![taken(1, 6, 22, "r1")], live()), &Plan::default(), &[]);
    pass(&status, &seen_at(31, vec![], live()), &Plan::default(), &[]);
    assert_eq!(histogram(&status, "job_queued_to_taken"), (16.0, 1));
    assert_eq!(histogram(&status, "job_duration"), (3.0, 1));
    // It had connected when it took the job, 12 s after it was registered.
    assert_eq!(histogram(&status, "runner_started_to_connected"), (12.0, 1));
    assert_eq!(status.state().history.queue_p50_seconds, Some(16.0));
}

#[tokio::test]
async fn a_pool_in_which_nothing_waits_any_more_has_the_value_zero() {
    let status = Status::new(Duration::from_secs(60));
    let asks = crate::model::Asks { cpu: 100, cores: 0, memory: 1, node_pool: "ci".to_owned() };
    let mut waits = runner("r1", 1, RunnerState::Pending, 0);
    waits.meta.asks = Some(asks);
    pass(&status, &seen_at(0, vec![], vec![waits]), &Plan::default(), &[]);
    assert!(
        status.metrics(Exposition::OpenMetrics).0.contains("waiting_cpu_megahertz{node_pool=\"ci\"} 100\n")
    );
    pass(&status, &seen_at(1, vec![], vec![]), &Plan::default(), &[]);
    let (page, _) = status.metrics(Exposition::OpenMetrics);
    assert!(page.contains("waiting_cpu_megahertz{node_pool=\"ci\"} 0\n"), "{page}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_began_before_the_start_is_shown_in_full() {
    let status = Status::new(Duration::from_secs(60));
    let started = Deed::new(&done(start(1, "r1")));
    pass(&status, &seen_at(100, vec![job(1, JobStatus::Queued, 40)], vec![]), &wants(&[1]), &[started]);
    assert_eq!(histogram(&status, "job_queued_to_started"), (60.0, 1));
}
