//! The states and ends of runners, from responses of a real agent and from cases that are hard to record.

use serde_json::{Value, json};

use super::*;

/// The JSON of a recorded response.
pub(in crate::nomad) fn recorded(name: &str) -> Value {
    let path = format!("{}/tests/recordings/nomad/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let recording: Value = serde_json::from_str(&text).unwrap();
    recording["response"]["json"].clone()
}

fn job(stop: bool, status: &str) -> JobStub {
    JobStub {
        id: "ghr-1".into(),
        stop,
        status: status.into(),
        submit_time: 1_000_000_000,
        ..Default::default()
    }
}

fn meta(registration: Registration) -> RunnerMeta {
    RunnerMeta { deployment: Some("i".into()), registration: Some(registration), ..Default::default() }
}

use crate::model::Registration;

/// A JIT runner with these allocations, whose variable exists.
fn runner(job: &JobStub, allocations: &Value) -> Runner {
    with(job, allocations, Registration::Jit, true)
}

fn with(job: &JobStub, allocations: &Value, registration: Registration, has_variable: bool) -> Runner {
    let allocations: Vec<AllocationStub> = serde_json::from_value(allocations.clone()).unwrap();
    let allocations: Vec<&AllocationStub> = allocations.iter().collect();
    let variable = has_variable.then_some(Timestamp::UNIX_EPOCH);
    classify(job, Ownership::Ours, meta(registration), &allocations, variable, None)
}

/// The recorded allocation of one of the recorded jobs, by the end of its ID.
fn by_end(end: &str) -> Value {
    let all = recorded("allocations-by-prefix");
    let mut found = all.as_array().unwrap().clone();
    found.retain(|allocation| allocation["JobID"].as_str().unwrap().ends_with(end));
    assert_eq!(found.len(), 1, "{end}");
    Value::Array(found)
}

#[test]
fn recorded_jobs_and_allocations_are_parsed() {
    let jobs: Vec<JobStub> = serde_json::from_value(recorded("jobs-list-prefix-meta")).unwrap();
    assert_eq!(jobs.len(), 8);
    assert!(jobs[0].meta["runner"].contains("labelsstr"));
    assert_eq!(jobs[0].submit_time, 1795476160007907807);
    let queued = jobs.iter().find(|job| job.id.ends_with("06")).unwrap();
    assert_eq!(queued.job_summary.summary["g"].queued, 1);
}

#[test]
fn recorded_ends() {
    let dead = job(false, "dead");
    for (end, finish) in [
        ("02", Finish::Success),
        ("03", Finish::Failure { exit_code: Some(3) }),
        ("04", Finish::Failure { exit_code: Some(137) }),
        ("08", Finish::TimedOut),
    ] {
        let runner = runner(&dead, &by_end(end));
        assert_eq!(runner.state, RunnerState::Dead, "{end}");
        assert_eq!(runner.finish, Some(finish), "{end}");
        assert!(runner.started, "{end}");
        assert!(runner.ended_at > runner.started_at, "{end}");
    }
    let out_of_memory = runner(&dead, &recorded("allocations-oom"));
    assert_eq!(out_of_memory.finish, Some(Finish::OutOfMemory));
    let killed = runner(&job(true, "dead"), &recorded("allocations-killed"));
    assert_eq!(killed.finish, Some(Finish::Stopped));
}

#[test]
fn a_recorded_driver_failure_never_ran() {
    let runner = runner(&job(false, "dead"), &by_end("05"));
    let Some(Finish::NeverRan { reason }) = &runner.finish else { panic!("{:?}", runner.finish) };
    assert!(reason.starts_with("Driver Failure: ") && reason.contains("/nonexistent"), "{reason}");
    assert!(!runner.started && runner.started_at.is_none());
    assert!(runner.ended_at.is_some());
}

#[test]
fn a_recorded_runner_runs_and_names_its_node() {
    let runner = runner(&job(false, "running"), &by_end("01"));
    assert_eq!(runner.state, RunnerState::Running);
    assert!(runner.started && runner.finish.is_none() && runner.ended_at.is_none());
    assert_eq!(runner.started_at.unwrap().to_string(), "2026-11-23T23:22:40.231007541Z");
    assert_eq!(runner.allocation.unwrap().node, "node-1");
}

#[test]
fn stopping_a_finished_runner_leaves_it_a_success() {
    let runner = runner(&job(true, "dead"), &recorded("allocations-finished-then-stopped"));
    assert_eq!((runner.state, runner.finish), (RunnerState::Dead, Some(Finish::Success)));
}

#[test]
fn a_job_stopped_just_now_is_dead_to_nomad_while_its_task_runs() {
    let jobs: Vec<JobStub> = serde_json::from_value(recorded("jobs-list-just-stopped")).unwrap();
    assert_eq!((jobs[0].status.as_str(), jobs[0].stop), ("dead", true));
    let runner = runner(&jobs[0], &recorded("allocations-just-stopped"));
    assert_eq!(runner.state, RunnerState::Stopping);
    assert!(runner.started && runner.finish.is_none());
}

#[test]
fn a_task_waits_until_its_variable_exists() {
    let waiting = recorded("allocations-waiting-for-variable");
    let job = job(false, "pending");
    assert_eq!(with(&job, &waiting, Registration::Jit, false).state, RunnerState::Waiting);
    assert_eq!(with(&job, &waiting, Registration::Token, false).state, RunnerState::Waiting);
    assert_eq!(with(&job, &waiting, Registration::Jit, true).state, RunnerState::Starting);
    // It needs no variable, so no credentials are issued.
    assert_eq!(with(&job, &waiting, Registration::AccessToken, false).state, RunnerState::Starting);
}

#[test]
fn a_start_by_a_wrong_clock_counts_from_when_the_servers_learned_of_it() {
    let runner_at = |started_at: &str| {
        let tasks = json!({"runner": {"State": "running", "StartedAt": started_at}});
        let mut allocation = allocation(1, "run", "", "running", tasks);
        let nanoseconds = |time: &str| time.parse::<Timestamp>().unwrap().as_nanosecond();
        allocation["CreateTime"] = json!(i64::try_from(nanoseconds("2026-01-01T10:00:00Z")).unwrap());
        allocation["ModifyTime"] = json!(i64::try_from(nanoseconds("2026-01-01T10:05:00Z")).unwrap());
        let allocations = json!([allocation]);
        runner(&job(false, "running"), &allocations).started_at.unwrap().to_string()
    };
    assert_eq!(runner_at("2026-01-01T10:04:58Z"), "2026-01-01T10:04:58Z");
    assert_eq!(runner_at("2026-01-01T12:04:58Z"), "2026-01-01T10:05:00Z", "ahead");
    assert_eq!(runner_at("2026-01-01T08:04:58Z"), "2026-01-01T10:05:00Z", "behind");
}

/// An allocation with these statuses and tasks.
fn allocation(index: u64, desired: &str, description: &str, client: &str, tasks: Value) -> Value {
    json!({
        "ID": format!("a{index}"), "JobID": "ghr-1", "CreateIndex": index, "CreateTime": index,
        "ModifyTime": 1_000_000_000 + index, "NodeName": "n", "DesiredStatus": desired,
        "DesiredDescription": description, "ClientStatus": client, "TaskStates": tasks,
    })
}

fn task(state: &str, started: Option<u32>, finished: Option<u32>, events: &[(&str, Value)]) -> Value {
    let time = |minute: u32| format!("2026-01-01T00:{minute:02}:00Z");
    let events: Vec<Value> = events
        .iter()
        .map(|(kind, details)| json!({ "Type": kind, "Details": details, "DisplayMessage": details["message"] }))
        .collect();
    json!({ "State": state, "StartedAt": started.map(time), "FinishedAt": finished.map(time), "Events": events })
}

fn exit(code: i32) -> (&'static str, Value) {
    ("Terminated", json!({ "exit_code": code.to_string(), "oom_killed": "false" }))
}

fn killing() -> (&'static str, Value) {
    ("Killing", json!({ "kill_timeout": "5s" }))
}

#[test]
fn an_allocation_the_client_has_not_seen_yet_waits_or_starts() {
    let placed = json!([allocation(1, "run", "", "pending", Value::Null)]);
    assert_eq!(with(&job(false, "running"), &placed, Registration::Jit, false).state, RunnerState::Waiting);
    assert_eq!(with(&job(false, "running"), &placed, Registration::Jit, true).state, RunnerState::Starting);
    assert_eq!(with(&job(true, "dead"), &placed, Registration::Jit, false).state, RunnerState::Stopping);
}

#[test]
fn no_allocation_is_pending_unless_it_was_stopped() {
    let reason = Blocked { exhausted: true, reason: "memory exhausted on 1 node".into() };
    let pending = classify(
        &job(false, "pending"),
        Ownership::Ours,
        meta(Registration::Jit),
        &[],
        None,
        Some(reason.clone()),
    );
    assert_eq!((pending.state, pending.blocked), (RunnerState::Pending, Some(reason)));
    for status in ["pending", "dead"] {
        let stopped = runner(&job(true, status), &json!([]));
        assert_eq!((stopped.state, stopped.finish), (RunnerState::Dead, Some(Finish::Stopped)));
        assert_eq!(stopped.ended_at, None);
    }
}

#[test]
fn a_dead_job_without_allocations_ended_as_its_summary_says() {
    for (field, finish) in [
        ("Complete", Finish::Success),
        ("Failed", Finish::Failure { exit_code: None }),
        ("Lost", Finish::Lost),
    ] {
        let job: JobStub = serde_json::from_value(
            json!({ "ID": "ghr-1", "Status": "dead", "JobSummary": { "Summary": { "g": { field: 1 } } } }),
        )
        .unwrap();
        assert_eq!(runner(&job, &json!([])).finish, Some(finish));
    }
}

#[test]
fn an_unforced_exit_0_is_success_whatever_the_desired_status_is() {
    let ended = task("dead", Some(1), Some(9), &[exit(0)]);
    for description in ["alloc not needed due to job update", MIGRATED, LOST] {
        let allocations = json!([allocation(1, "stop", description, "complete", json!({ "t": ended }))]);
        assert_eq!(runner(&job(true, "dead"), &allocations).finish, Some(Finish::Success), "{description}");
    }
    let forced = task("dead", Some(1), Some(9), &[killing(), exit(0)]);
    let allocations = json!([allocation(1, "stop", "", "complete", json!({ "t": forced }))]);
    assert_eq!(runner(&job(true, "dead"), &allocations).finish, Some(Finish::Stopped));
}

#[test]
fn a_drained_runner_is_recognized() {
    let tasks = json!({ "t": task("dead", Some(1), Some(9), &[killing(), exit(130)]) });
    let allocations = json!([allocation(1, "stop", MIGRATED, "complete", tasks)]);
    assert_eq!(runner(&job(false, "dead"), &allocations).finish, Some(Finish::Drained));
}

#[test]
fn a_node_that_is_down_is_recognized_by_either_sign() {
    let running = json!({ "t": task("running", Some(1), None, &[]) });
    let lost = json!([allocation(1, "stop", "", "lost", running)]);
    let dead = runner(&job(false, "dead"), &lost);
    assert_eq!((dead.state, &dead.finish, dead.spent), (RunnerState::Dead, &Some(Finish::Lost), true));
    assert!(dead.started);
    // The node is back: only the description remains.
    let killed = json!({ "t": task("dead", Some(1), Some(9), &[killing(), exit(130)]) });
    let back = json!([allocation(1, "stop", LOST, "complete", killed)]);
    let dead = runner(&job(false, "dead"), &back);
    assert_eq!((dead.finish, dead.spent), (Some(Finish::Lost), true));
}

#[test]
fn a_replaceable_allocation_is_dead_only_with_its_job() {
    let running = json!({ "t": task("running", Some(1), None, &[]) });
    let lost = json!([allocation(1, "stop", LOST, "lost", running)]);
    assert_eq!(runner(&job(false, "pending"), &lost).state, RunnerState::Pending);
    assert_eq!(runner(&job(false, "dead"), &lost).state, RunnerState::Dead);
    assert_eq!(runner(&job(true, "pending"), &lost).state, RunnerState::Dead);
    // A failed runner of ours is not replaced.
    let failed = json!([allocation(
        1,
        "run",
        "",
        "failed",
        json!({ "t": task("dead", Some(1), Some(9), &[exit(1)]) })
    )]);
    assert_eq!(runner(&job(false, "pending"), &failed).state, RunnerState::Dead);
}

#[test]
fn a_replacement_of_a_lost_allocation_is_marked_lost_and_never_unstarted() {
    let lost = allocation(1, "stop", LOST, "lost", json!({ "t": task("running", Some(1), None, &[]) }));
    let waiting = allocation(2, "run", "", "pending", json!({ "t": task("pending", None, None, &[]) }));
    let replaced = with(&job(false, "running"), &json!([lost, waiting]), Registration::Jit, false);
    assert_eq!(replaced.state, RunnerState::Waiting);
    assert!(replaced.spent && replaced.started);
    assert_eq!(replaced.allocation.unwrap().id, "a2");
    // Not placed yet.
    let queued: JobStub = serde_json::from_value(
        json!({ "ID": "ghr-1", "Status": "pending", "JobSummary": { "Summary": { "g": { "Queued": 1 } } } }),
    )
    .unwrap();
    let replaced = runner(&queued, &json!([lost]));
    assert_eq!((replaced.state, replaced.spent, replaced.started), (RunnerState::Pending, true, true));
}

/// Whatever caused the second allocation: preemption, `nomad alloc stop`, a drain by an older server.
#[test]
fn an_allocation_after_one_that_has_started_is_spent() {
    let running = json!({ "t": task("running", Some(1), None, &[]) });
    let over = json!({ "t": task("dead", Some(1), Some(9), &[killing(), exit(137)]) });
    let new = allocation(2, "run", "", "pending", json!({ "t": task("pending", None, None, &[]) }));
    let evicted = allocation(1, "evict", "", "complete", over.clone());
    let placed_again = runner(&job(false, "running"), &json!([evicted, new]));
    assert_eq!((placed_again.state, placed_again.spent), (RunnerState::Starting, true));
    assert!(placed_again.started && !placed_again.may_have_process());
    // The first one may still run its job.
    let ending = allocation(1, "evict", "", "running", running.clone());
    let both = runner(&job(false, "running"), &json!([ending, new]));
    assert!(both.spent && both.ending && both.may_have_process());
    // Both are running: the new one with used credentials.
    let new = allocation(2, "run", "", "running", running.clone());
    assert!(runner(&job(false, "running"), &json!([evicted, new])).spent);
    let alone = runner(&job(false, "running"), &json!([allocation(1, "run", "", "running", running)]));
    assert!(!alone.spent && !alone.ending);
    // It waits for a place again.
    let queued: JobStub = serde_json::from_value(
        json!({ "ID": "ghr-1", "Status": "pending", "JobSummary": { "Summary": { "g": { "Queued": 1 } } } }),
    )
    .unwrap();
    let waits = runner(&queued, &json!([evicted]));
    assert_eq!((waits.state, waits.spent, waits.may_have_process()), (RunnerState::Pending, true, false));
    // Its task never started there, so its credentials are unused.
    let never = json!({ "t": task("dead", None, Some(2), &[]) });
    let never = allocation(1, "stop", "", "complete", never);
    let again = allocation(2, "run", "", "pending", json!({ "t": task("pending", None, None, &[]) }));
    assert!(!runner(&job(false, "running"), &json!([never, again])).spent);
}

#[test]
fn the_main_task_decides_state_and_exit_code() {
    let of = |client: &str, status: &str, tasks: Value| {
        let allocations: Vec<AllocationStub> =
            serde_json::from_value(json!([allocation(1, "run", "", client, tasks)])).unwrap();
        let meta = RunnerMeta { task: Some("runner".to_owned()), ..meta(Registration::Jit) };
        let variable = Some(Timestamp::UNIX_EPOCH);
        classify(&job(false, status), Ownership::Ours, meta, &[&allocations[0]], variable, None)
    };
    let side = task("running", Some(1), None, &[]);
    let missing = [("Template", json!({ "message": "Missing: nomad.var.block(nomad/jobs/ci@ns.global)" }))];
    let pending =
        of("pending", "running", json!({ "runner": task("pending", None, None, &missing), "side": side }));
    assert_eq!((pending.state, pending.started), (RunnerState::Starting, false));
    assert_eq!(pending.last_event.as_deref(), Some("Missing: nomad.var.block(nomad/jobs/ci@ns.global)"));
    let running = of("running", "running", json!({ "runner": side, "side": side }));
    assert_eq!(running.state, RunnerState::Running);
    let done = task("dead", Some(1), Some(5), &[exit(0)]);
    let poststop = of("running", "running", json!({ "runner": done, "after": side }));
    assert_eq!(poststop.state, RunnerState::Stopping, "dead only when poststop is over");
    let failed_poststop = task("dead", Some(6), Some(7), &[exit(1)]);
    let over = of("failed", "dead", json!({ "runner": done, "after": failed_poststop }));
    assert_eq!((over.state, over.finish), (RunnerState::Dead, Some(Finish::Success)));
    let failed = task("dead", Some(1), Some(5), &[exit(4)]);
    let good_poststop = task("dead", Some(6), Some(7), &[exit(0)]);
    let over = of("failed", "dead", json!({ "runner": failed, "after": good_poststop }));
    assert_eq!(over.finish, Some(Finish::Failure { exit_code: Some(4) }));
}

#[test]
fn of_several_allocations_the_live_one_counts() {
    let old = allocation(1, "run", "", "failed", json!({ "t": task("dead", Some(1), Some(2), &[exit(1)]) }));
    let new = allocation(2, "run", "", "running", json!({ "t": task("running", Some(3), None, &[]) }));
    for order in [json!([old, new]), json!([new, old])] {
        let runner = with(&job(false, "running"), &order, Registration::AccessToken, false);
        assert_eq!((runner.state, runner.allocation.unwrap().id.as_str()), (RunnerState::Running, "a2"));
    }
    // An old allocation that still runs on a node that came back does not hide its replacement.
    let told = allocation(1, "stop", LOST, "running", json!({ "t": task("running", Some(1), None, &[]) }));
    let runner = with(&job(false, "running"), &json!([told, new]), Registration::AccessToken, false);
    assert_eq!(runner.state, RunnerState::Running);
}

#[test]
fn a_failed_allocation_that_will_be_rescheduled_is_not_dead() {
    let mut failed =
        allocation(1, "run", "", "failed", json!({ "t": task("dead", Some(1), Some(2), &[exit(1)]) }));
    failed["FollowupEvalID"] = json!("e");
    let waits = runner(&job(false, "pending"), &json!([failed]));
    assert_eq!(waits.state, RunnerState::Pending);
    assert_eq!(runner(&job(false, "dead"), &json!([failed])).state, RunnerState::Dead);
    assert_eq!(runner(&job(true, "pending"), &json!([failed])).state, RunnerState::Dead);
}

#[test]
fn an_allocation_with_status_unknown_is_disconnected() {
    let tasks = json!({ "t": task("running", Some(1), None, &[]) });
    let unknown = json!([allocation(1, "run", "", "unknown", tasks)]);
    assert_eq!(runner(&job(false, "running"), &unknown).state, RunnerState::Disconnected);
    assert_eq!(runner(&job(true, "dead"), &unknown).state, RunnerState::Stopping);
}

#[test]
fn every_way_of_never_running_is_reported() {
    for kind in NEVER_RAN {
        let tasks = json!({ "t": task("dead", None, Some(1), &[
            ("Received", json!({})), (kind, json!({ "message": "no such image" })), ("Not Restarting", json!({})),
        ]) });
        let runner = runner(&job(false, "dead"), &json!([allocation(1, "run", "", "failed", tasks)]));
        assert_eq!(runner.finish, Some(Finish::NeverRan { reason: format!("{kind}: no such image") }));
    }
}

#[test]
fn a_prestart_task_that_ran_is_not_the_runner() {
    let missing =
        [("Template", json!({ "message": "Missing: nomad.var.block(nomad/jobs/ghr-1@ns.global)" }))];
    let tasks = json!({
        "pull": task("dead", Some(1), Some(2), &[exit(0)]),
        "runner": task("pending", None, None, &missing),
    });
    let allocations = json!([allocation(1, "run", "", "running", tasks)]);
    let waiting = with(&job(false, "running"), &allocations, Registration::Jit, false);
    assert_eq!((waiting.state, waiting.started), (RunnerState::Waiting, false));
    let released = with(&job(false, "running"), &allocations, Registration::Jit, true);
    assert_eq!((released.state, released.started), (RunnerState::Starting, false));
}

#[test]
fn a_running_runner_whose_variable_was_deleted_gets_no_new_credentials() {
    let tasks = json!({ "runner": task("running", Some(1), None, &[("Started", json!({}))]) });
    let allocations = json!([allocation(1, "run", "", "running", tasks)]);
    assert_eq!(
        with(&job(false, "running"), &allocations, Registration::Jit, false).state,
        RunnerState::Running
    );
}

#[test]
fn prestart_tasks_and_killed_sidecars_do_not_decide_the_end() {
    let pull = task("dead", Some(1), Some(2), &[exit(0)]);
    let sidecar = task("dead", Some(3), Some(9), &[killing(), exit(137)]);
    let well = json!({ "pull": pull, "runner": task("dead", Some(3), Some(8), &[exit(0)]), "side": sidecar });
    let stopped = json!({ "pull": pull, "runner": task("dead", Some(3), Some(8), &[killing(), exit(130)]), "side": sidecar });
    let badly =
        json!({ "pull": pull, "runner": task("dead", Some(3), Some(8), &[exit(4)]), "side": sidecar });
    let end = |desired: &str, client: &str, tasks: &Value| {
        runner(&job(false, "dead"), &json!([allocation(1, desired, "", client, tasks.clone())])).finish
    };
    assert_eq!(end("run", "complete", &well), Some(Finish::Success));
    assert_eq!(end("stop", "complete", &stopped), Some(Finish::Stopped));
    assert_eq!(end("run", "failed", &badly), Some(Finish::Failure { exit_code: Some(4) }));
}

#[test]
fn nomadtools_jobs_need_no_variable() {
    let placed: Vec<AllocationStub> =
        serde_json::from_value(json!([allocation(1, "run", "", "pending", Value::Null)])).unwrap();
    let meta = RunnerMeta { labelsstr: "nomadtools".into(), ..Default::default() };
    let runner = classify(&job(false, "running"), Ownership::Nomadtools, meta, &[&placed[0]], None, None);
    assert_eq!(runner.state, RunnerState::Starting);
}

#[test]
fn a_blocked_evaluation_says_whether_room_would_help() {
    let recorded: Vec<Evaluation> = serde_json::from_value(recorded("evaluations-blocked-filter")).unwrap();
    assert_eq!(recorded[0].job_id, "ghr-o-r-0000000006");
    let full = blocked(&recorded[0]).unwrap();
    assert_eq!(full, Blocked { exhausted: true, reason: "memory exhausted on 1 node".into() });
    let of = |metric: Value| {
        blocked(&serde_json::from_value(json!({ "JobID": "j", "FailedTGAllocs": { "g": metric } })).unwrap())
            .unwrap()
    };
    let driver =
        of(json!({ "NodesEvaluated": 2, "NodesFiltered": 2, "ConstraintFiltered": { "missing drivers": 2 },
        "DimensionExhausted": null, "NodesAvailable": { "dc1": 2 } }));
    assert_eq!(driver, Blocked { exhausted: false, reason: "missing drivers excluded 2 nodes".into() });
    let nowhere = of(json!({ "NodesEvaluated": 0, "NodesAvailable": null }));
    assert!(!nowhere.exhausted && nowhere.reason.contains("no node is up"), "{nowhere:?}");
    let quota =
        of(json!({ "NodesEvaluated": 0, "QuotaExhausted": ["memory exhausted (1 needed > 0 limit)"] }));
    assert!(quota.exhausted && quota.reason.starts_with("quota reached: memory"), "{quota:?}");
    assert_eq!(blocked(&Evaluation::default()), None);
}
