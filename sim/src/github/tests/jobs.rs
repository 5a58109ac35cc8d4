//! The life of runs and jobs.

use super::*;

#[test]
fn a_job_is_queued_worked_on_and_over() {
    let mut site = Site::new();
    let job = site.queue(site.app, &["self-hosted", "GPU"]);
    let run = site.github.job(job).unwrap().run;
    let target = format!("/repos/octo-org/app/actions/jobs/{job}");
    assert_eq!(site.get(&target).body["runner_id"], Value::Null);
    let runner = site.online("r1", &["self-hosted", "gpu", "more"]);
    site.pass(Duration::from_secs(2));
    let working = site.get(&target).body;
    assert_eq!((&working["status"], &working["runner_id"]), (&json!("in_progress"), &json!(runner)));
    assert_eq!((&working["runner_name"], &working["runner_group_name"]), (&json!("r1"), &json!("Default")));
    assert_eq!(site.github.run(run).unwrap().status, Status::InProgress);
    site.pass(Duration::from_secs(600));
    let over = site.get(&target).body;
    assert_eq!((&over["status"], &over["conclusion"]), (&json!("completed"), &json!("success")));
    assert_eq!(site.github.run(run).unwrap().conclusion, Some(Conclusion::Success));
    assert!(site.github.runner(runner).is_none(), "an ephemeral runner leaves the list");
    let events = site.github.take_events();
    let expected = [
        Event::JobQueued { job },
        Event::RunnerOnline { runner },
        Event::JobStarted { job, runner },
        Event::JobCompleted { job, runner: Some(runner), conclusion: Conclusion::Success },
        Event::RunnerRemoved { runner, name: "r1".to_string(), by: Removal::JobDone },
    ];
    assert_eq!(events, expected);
}

#[test]
fn a_runner_takes_any_job_whose_labels_it_has() {
    let mut site = Site::new();
    let cases: [(&[&str], bool); 6] = [
        (&["linux"], true),
        (&["LINUX", "Big One"], true),
        (&["linux", "big one", "gpu"], true),
        (&["linux", "arm"], false),
        (&["lin"], false),
        (&[], false),
    ];
    for (labels, taken) in cases {
        let job = site.queue(site.app, labels);
        let runner = site.online("r1", &["Linux", "big one", "gpu"]);
        site.pass(Duration::from_secs(3));
        assert_eq!(site.status(job) == Status::InProgress, taken, "{labels:?}");
        site.pass(Duration::from_secs(700));
        site.github.delete_runner(runner, site.now);
        let run = site.github.job(job).unwrap().run;
        site.github.cancel_run(run, site.now);
    }
}

#[test]
fn nothing_is_reserved_but_the_oldest_job_goes_first() {
    let mut site = Site::new();
    let first = site.queue(site.app, &["x"]);
    site.pass(Duration::from_secs(1));
    let second = site.queue(site.app, &["x"]);
    let foreign = site.queue(site.tool, &["x"]);
    site.online("r1", &["x"]);
    site.pass(Duration::from_secs(5));
    assert_eq!(site.status(first), Status::InProgress);
    assert_eq!(site.status(second), Status::Queued);
    assert_eq!(site.status(foreign), Status::Queued, "a repository's runner serves only that repository");
    site.online("r2", &["x", "y"]);
    site.pass(Duration::from_secs(5));
    assert_eq!(site.status(second), Status::InProgress);
}

#[test]
fn the_seed_decides_between_fitting_runners() {
    let mut chosen = std::collections::BTreeSet::new();
    for seed in 0..16 {
        let mut names = Vec::new();
        for _ in 0..2 {
            let mut site = Site::with(Options { seed, ..Options::default() });
            for index in 0..3 {
                site.online(&format!("r{index}"), &["x"]);
            }
            let job = site.queue(site.app, &["x"]);
            site.pass(Duration::from_secs(5));
            names.push(site.github.job(job).unwrap().runner.clone().unwrap().name);
        }
        assert_eq!(names[0], names[1], "the same seed, the same choice");
        chosen.insert(names.remove(0));
    }
    assert_eq!(chosen.len(), 3);
}

#[test]
fn an_organizations_runner_serves_its_repositories() {
    let mut site = Site::new();
    let body = json!({"name": "o1", "runner_group_id": 1, "labels": ["x"]});
    let made = site.post("/orgs/octo-org/actions/runners/generate-jitconfig", body);
    site.github.connect_jit(made.body["encoded_jit_config"].as_str().unwrap(), site.now).unwrap();
    let foreign = site.queue(site.tool, &["x"]);
    site.pass(Duration::from_secs(5));
    let own = site.queue(site.app, &["x"]);
    site.pass(Duration::from_secs(5));
    assert_eq!((site.status(own), site.status(foreign)), (Status::InProgress, Status::Queued));
}

#[test]
fn jobs_that_need_others_appear_later_or_are_skipped() {
    let mut site = Site::new();
    let minute = Duration::from_secs(60);
    let spec = |needs: &[usize], conclusion| JobSpec {
        needs: needs.to_vec(),
        conclusion,
        ..JobSpec::new(&["x"], minute)
    };
    let plan = vec![
        spec(&[], Conclusion::Success),
        JobSpec { delay: minute, ..spec(&[0], Conclusion::Failure) },
        spec(&[1], Conclusion::Success),
        spec(&[2], Conclusion::Success),
    ];
    let run = site.github.queue_run(site.app, plan, site.now).unwrap();
    let count = |site: &Site| site.github.run(run).unwrap().jobs.len();
    assert_eq!(count(&site), 1);
    site.online("r1", &["x"]);
    site.pass(Duration::from_secs(63));
    assert_eq!(count(&site), 1, "the next one appears a minute later");
    assert_eq!(site.github.run(run).unwrap().status, Status::InProgress);
    site.pass(minute);
    assert_eq!(count(&site), 2);
    site.online("r2", &["x"]);
    site.pass(Duration::from_secs(70));
    let known = site.github.run(run).unwrap();
    let ends: Vec<_> =
        known.jobs.iter().map(|job| site.github.job(*job).unwrap().conclusion.unwrap()).collect();
    use Conclusion::*;
    assert_eq!(ends, [Success, Failure, Skipped, Skipped]);
    assert_eq!((known.status, known.conclusion), (Status::Completed, Some(Failure)));
}

#[test]
fn held_jobs_want_no_runner_until_they_are_released() {
    let mut site = Site::new();
    let held = JobSpec { held: Some(Status::Waiting), held_for: Some(HOUR), ..JobSpec::new(&["x"], HOUR) };
    let run = site.github.queue_run(site.app, vec![held.clone(), held], site.now).unwrap();
    let jobs = site.github.run(run).unwrap().jobs.clone();
    assert_eq!(site.github.run(run).unwrap().status, Status::Waiting);
    for index in 0..2 {
        site.online(&format!("r{index}"), &["x"]);
    }
    site.pass(HOUR / 2);
    assert_eq!(jobs.iter().map(|job| site.status(*job)).collect::<Vec<_>>(), [Status::Waiting; 2]);
    assert!(site.github.release_job(jobs[0], site.now));
    assert!(!site.github.release_job(jobs[0], site.now));
    site.pass(Duration::from_secs(5));
    assert_eq!((site.status(jobs[0]), site.status(jobs[1])), (Status::InProgress, Status::Waiting));
    site.pass(HOUR / 2);
    assert_eq!(site.status(jobs[1]), Status::InProgress);
}

#[test]
fn cancelling_ends_queued_jobs_at_once_and_running_ones_soon() {
    let mut site = Site::new();
    let plan = vec![JobSpec::new(&["x"], HOUR), JobSpec::new(&["y"], HOUR)];
    let run = site.github.queue_run(site.app, plan, site.now).unwrap();
    let jobs = site.github.run(run).unwrap().jobs.clone();
    site.online("r1", &["x"]);
    site.pass(Duration::from_secs(5));
    let target = format!("/repos/octo-org/app/actions/runs/{run}/cancel");
    assert_eq!(site.post(&target, Value::Null).status, 202);
    assert_eq!((site.status(jobs[0]), site.status(jobs[1])), (Status::InProgress, Status::Completed));
    site.pass(Duration::from_secs(5));
    assert_eq!(site.github.job(jobs[0]).unwrap().conclusion, Some(Conclusion::Cancelled));
    assert_eq!(site.github.run(run).unwrap().conclusion, Some(Conclusion::Cancelled));
    assert_eq!(site.post(&target, Value::Null).status, 409);
}

#[test]
fn one_job_is_run_again_with_those_that_need_it_once_its_run_is_over() {
    let mut site = Site::new();
    let minute = Duration::from_secs(60);
    let failing = JobSpec { conclusion: Conclusion::Failure, ..JobSpec::new(&["a"], minute) };
    let needing = JobSpec { needs: vec![0], ..JobSpec::new(&["a"], minute) };
    let specs = vec![failing, JobSpec::new(&["b"], HOUR), needing];
    let run = site.github.queue_run(site.app, specs, site.now).unwrap();
    let jobs = format!("/repos/octo-org/app/actions/runs/{run}/jobs");
    for label in ["a", "b"] {
        site.online(label, &[label]);
    }
    site.pass(minute * 2);
    let first = site.get(&jobs);
    let (failed, other) = (first.ids("jobs")[0], first.ids("jobs")[1]);
    assert_eq!(first.body["jobs"][0]["steps"][0]["conclusion"], "failure", "it failed by itself");
    let rerun = |job: u64| format!("/repos/octo-org/app/actions/jobs/{job}/rerun");
    let refused = site.post(&rerun(failed), Value::Null);
    let message = json!("The workflow run containing this job is already running");
    assert_eq!((refused.status, &refused.body["message"]), (403, &message));
    site.pass(HOUR);
    let answer = site.post(&rerun(failed), Value::Null);
    assert_eq!((answer.status, answer.body), (201, json!({})));
    let second = site.get(&jobs);
    assert_eq!(second.body["total_count"], 2, "what needs it appears when it is over");
    let by_name = |name: &str| {
        let jobs = second.body["jobs"].as_array().unwrap();
        jobs.iter().find(|job| job["name"] == name).unwrap().clone()
    };
    assert_eq!(
        (&by_name("job 1")["status"], &by_name("job 1")["run_attempt"]),
        (&json!("queued"), &json!(2))
    );
    let kept = by_name("job 2");
    assert_eq!(
        (&kept["conclusion"], &kept["runner_name"]),
        (&json!("success"), &json!("b")),
        "its result is kept"
    );
    assert_ne!(kept["id"], json!(other));
    assert_eq!(site.post(&rerun(failed), Value::Null).status, 403, "twice");
    assert_eq!(site.post(&rerun(7), Value::Null).status, 404);
}

#[test]
fn a_job_whose_runner_was_lost_has_no_step_that_failed() {
    let mut site = Site::new();
    let job = site.queue(site.app, &["a"]);
    let runner = site.online("a", &["a"]);
    site.pass(Duration::from_secs(60));
    site.github.disconnect(runner, Leave::Vanished, site.now);
    site.pass(HOUR);
    let lost = site.get(&format!("/repos/octo-org/app/actions/jobs/{job}")).body;
    assert_eq!((&lost["conclusion"], &lost["steps"][0]["conclusion"]), (&json!("failure"), &Value::Null));
}

#[test]
fn a_rerun_has_new_jobs_and_filter_all_shows_both_attempts() {
    let mut site = Site::new();
    let old = site.queue(site.app, &["x"]);
    let run = site.github.job(old).unwrap().run;
    assert!(!site.github.rerun(run, site.now), "it is not over");
    site.online("r1", &["x"]);
    site.pass(HOUR);
    assert!(site.github.rerun(run, site.now));
    let jobs = format!("/repos/octo-org/app/actions/runs/{run}/jobs");
    let latest = site.get(&jobs);
    let new = latest.ids("jobs")[0];
    assert_ne!(new, old);
    assert_eq!((&latest.body["total_count"], &latest.body["jobs"][0]["run_attempt"]), (&json!(1), &json!(2)));
    assert_eq!(site.get(&format!("{jobs}?filter=all")).ids("jobs"), [old, new]);
    let first = format!("/repos/octo-org/app/actions/runs/{run}/attempts/1/jobs");
    assert_eq!(site.get(&first).ids("jobs"), [old]);
    assert_eq!(site.github.run(run).unwrap().status, Status::Queued);
}

#[test]
fn a_job_fails_after_a_day_in_the_queue_unless_it_is_a_ghost() {
    let mut site = Site::new();
    let job = site.queue(site.app, &["never"]);
    let ghost = JobSpec { ghost: true, ..JobSpec::new(&["x"], HOUR) };
    let ghost = site.github.queue_run(site.app, vec![ghost], site.now).unwrap();
    let ghost = site.github.run(ghost).unwrap().jobs[0];
    site.online("r1", &["x"]);
    site.pass(HOUR * 24 - Duration::from_secs(1));
    assert_eq!(site.status(job), Status::Queued);
    site.pass(Duration::from_secs(1));
    assert_eq!(site.github.job(job).unwrap().conclusion, Some(Conclusion::Failure));
    site.pass(HOUR * 48);
    assert_eq!(site.status(ghost), Status::Queued);
}

#[test]
fn a_runs_status_can_lag_behind_its_jobs() {
    let lag = Duration::from_secs(120);
    let mut site = Site::with(Options { run_lag: lag, ..Options::default() });
    let mut lagged = 0;
    for index in 0..10 {
        let job = site.queue(site.app, &["x"]);
        site.online(&format!("r{index}"), &["x"]);
        site.pass(Duration::from_secs(5));
        let run = site.github.job(job).unwrap().run;
        assert_eq!(site.status(job), Status::InProgress);
        lagged += usize::from(site.github.run(run).unwrap().status == Status::Queued);
        site.pass(lag);
        assert_eq!(site.github.run(run).unwrap().status, Status::InProgress);
    }
    assert!(lagged > 0);
}

#[test]
fn completed_runs_are_forgotten_in_time() {
    let mut site = Site::new();
    let job = site.queue(site.app, &["x"]);
    site.online("r1", &["x"]);
    site.pass(HOUR);
    assert_eq!(site.status(job), Status::Completed);
    site.pass(HOUR * 25);
    assert_eq!((site.github.runs().count(), site.github.jobs().count()), (0, 0));
    assert_eq!(site.github.next_event(), None, "nothing is left to happen");
}
