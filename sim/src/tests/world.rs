//! The life of runner processes between the two sides.

use std::collections::BTreeMap;

use jiff::SignedDuration;

use super::*;
use crate::{
    github::{Conclusion, JobSpec, RegisteredAt, Status},
    nomad::{Exit, TaskEvent},
    world::{Phase, drive},
};

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

fn start(shared: &Shared, allocation: &str, env: BTreeMap<String, String>) {
    let mut world = lock(shared);
    let now = world.clock.now();
    let (allocation, task) = (allocation.to_string(), "runner".to_string());
    let (namespace, job_id) = ("default".to_string(), format!("ghr-{allocation}"));
    world.task_event(TaskEvent::Started { allocation, namespace, job_id, task, env, now }, now);
    world.touch();
}

fn kill(shared: &Shared, allocation: &str) {
    let mut world = lock(shared);
    let now = world.clock.now();
    let (allocation, task) = (allocation.to_string(), "runner".to_string());
    let (namespace, job_id, signal) =
        ("default".to_string(), format!("ghr-{allocation}"), "SIGINT".to_string());
    world.task_event(TaskEvent::KillRequested { allocation, namespace, job_id, task, signal, now }, now);
    world.touch();
}

fn ended(shared: &Shared, allocation: &str, code: i64) {
    let mut world = lock(shared);
    let now = world.clock.now();
    let (allocation, task) = (allocation.to_string(), "runner".to_string());
    let (namespace, job_id, exit) = ("default".to_string(), format!("ghr-{allocation}"), Exit::code(code));
    world.task_event(TaskEvent::Ended { allocation, namespace, job_id, task, exit, now }, now);
    world.touch();
}

async fn jit(client: &mut Client, name: &str, labels: &str) -> String {
    let target = format!("/repos/{REPOSITORY}/actions/runners/generate-jitconfig");
    let body = format!(r#"{{"name": "{name}", "runner_group_id": 1, "labels": [{labels}]}}"#);
    let (status, made) = client.json(Method::POST, &target, &body).await;
    assert_eq!(status, 201, "{made}");
    made["encoded_jit_config"].as_str().unwrap().to_string()
}

/// A driven world with a client for GitHub.
async fn running(options: Options) -> (Shared, u64, Client) {
    let (shared, repository) = world(options);
    tokio::spawn(drive(Arc::clone(&shared), std::future::pending()));
    let client = Client::connect(&shared, Side::GitHub).await;
    (shared, repository, client)
}

#[tokio::test(start_paused = true)]
async fn a_runner_starts_takes_its_job_and_ends() {
    let (shared, repository, mut client) = running(Options::default()).await;
    let run = lock(&shared).queue_run(repository, vec![JobSpec::new(&["x"], seconds(120))]).unwrap();
    let job = lock(&shared).github.run(run).unwrap().jobs[0];
    let encoded = jit(&mut client, "r1", "\"x\"").await;
    start(&shared, "a1", env(&[("ACTIONS_RUNNER_INPUT_JITCONFIG", &encoded)]));
    assert_eq!(lock(&shared).live_runners()[0].phase, Phase::Starting);
    until(&shared, "the job is in progress", |world| world.live_runners()[0].job == Some(job)).await;
    assert_eq!(lock(&shared).live_runners()[0].phase, Phase::Working);
    let list = format!("/repos/{REPOSITORY}/actions/runs/{run}/jobs");
    let (_, jobs) = client.json(Method::GET, &list, "").await;
    assert_eq!(jobs["jobs"][0]["runner_name"], "r1");
    tokio::time::sleep(seconds(120)).await;
    until(&shared, "the process is over", |world| world.live_runners().is_empty()).await;
    let mut world = lock(&shared);
    assert_eq!(world.github.job(job).unwrap().conclusion, Some(Conclusion::Success));
    assert_eq!(world.github.runners().count(), 0);
    assert_eq!(world.violations(), []);
    let actions: Vec<_> = world.take_webhooks().into_iter().map(|(_, action)| action).collect();
    assert_eq!(actions, ["queued", "in_progress", "completed"]);
    let lines: Vec<&str> = world.timeline().map(|(_, line)| line.as_str()).collect();
    assert_eq!(lines[0], format!("job {job} of {REPOSITORY} [x] queued"));
    assert!(
        lines.contains(&format!("job {job} of {REPOSITORY} [x] completed on r1: success").as_str()),
        "{lines:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_refused_runner_ends_after_a_while_as_if_all_were_well() {
    let (shared, repository, mut client) = running(Options::default()).await;
    let used = jit(&mut client, "used", "\"x\"").await;
    start(&shared, "a1", env(&[("ACTIONS_RUNNER_INPUT_JITCONFIG", &used)]));
    until(&shared, "the first one listens", |world| world.live_runners()[0].phase == Phase::Listening).await;
    let deleted = jit(&mut client, "deleted", "\"x\"").await;
    let id = lock(&shared).github.runner_by_name(RegisteredAt::Repository(repository), "deleted").unwrap().id;
    let target = format!("/repos/{REPOSITORY}/actions/runners/{id}");
    assert_eq!(client.json(Method::DELETE, &target, "").await.0, 204);
    let expired = jit(&mut client, "expired", "\"x\"").await;
    for (allocation, encoded) in [("a2", used.as_str()), ("a3", &deleted), ("a4", "nonsense")] {
        start(&shared, allocation, env(&[("ACTIONS_RUNNER_INPUT_JITCONFIG", encoded)]));
    }
    tokio::time::sleep(seconds(300)).await;
    start(&shared, "a5", env(&[("ACTIONS_RUNNER_INPUT_JITCONFIG", &expired)]));
    assert_eq!(lock(&shared).live_runners().len(), 2);
    until(&shared, "only the first is left", |world| world.live_runners().len() == 1).await;
    let world = lock(&shared);
    assert_eq!(world.live_runners()[0].allocation, "a1");
    let refused = world.timeline().filter(|(_, line)| line.contains("refused")).count();
    assert_eq!(refused, 4);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_registration_ends_an_idle_runner() {
    let (shared, repository, mut client) = running(Options::default()).await;
    let encoded = jit(&mut client, "r1", "\"x\"").await;
    start(&shared, "a1", env(&[("ACTIONS_RUNNER_INPUT_JITCONFIG", &encoded)]));
    until(&shared, "it listens", |world| world.live_runners()[0].phase == Phase::Listening).await;
    let id = lock(&shared).github.runner_by_name(RegisteredAt::Repository(repository), "r1").unwrap().id;
    let target = format!("/repos/{REPOSITORY}/actions/runners/{id}");
    assert_eq!(client.json(Method::DELETE, &target, "").await.0, 204);
    // Told to stop with consent: nothing is lost.
    kill(&shared, "a1");
    until(&shared, "it is over", |world| world.live_runners().is_empty()).await;
    assert_eq!(lock(&shared).violations(), []);
}

#[tokio::test(start_paused = true)]
async fn a_busy_runner_that_is_killed_is_recorded() {
    for graceful in [true, false] {
        let (shared, repository, mut client) = running(Options::default()).await;
        let run = lock(&shared).queue_run(repository, vec![JobSpec::new(&["x"], seconds(900))]).unwrap();
        let job = lock(&shared).github.run(run).unwrap().jobs[0];
        let encoded = jit(&mut client, "r1", "\"x\"").await;
        start(&shared, "a1", env(&[("ACTIONS_RUNNER_INPUT_JITCONFIG", &encoded)]));
        until(&shared, "it works", |world| world.live_runners()[0].phase == Phase::Working).await;
        if graceful {
            kill(&shared, "a1");
        } else {
            ended(&shared, "a1", 137);
        }
        until(&shared, "it is over", |world| world.live_runners().is_empty()).await;
        let reason = if graceful { "told to stop" } else { "its task ended" };
        {
            let world = lock(&shared);
            let [violation] = world.violations() else { panic!("{:?}", world.violations()) };
            assert_eq!(
                (violation.job, violation.runner.as_str(), violation.reason.as_str()),
                (job, "r1", reason)
            );
            let status = if graceful { Status::Completed } else { Status::InProgress };
            assert_eq!(world.github.job(job).unwrap().status, status);
        }
        tokio::time::sleep(seconds(601)).await;
        assert_eq!(lock(&shared).github.job(job).unwrap().conclusion, Some(Conclusion::Failure));
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_runner_that_is_killed_stays_listed_as_offline() {
    let (shared, repository, mut client) = running(Options::default()).await;
    let encoded = jit(&mut client, "r1", "\"x\"").await;
    start(&shared, "a1", env(&[("ACTIONS_RUNNER_INPUT_JITCONFIG", &encoded)]));
    until(&shared, "it listens", |world| world.live_runners()[0].phase == Phase::Listening).await;
    kill(&shared, "a1");
    until(&shared, "it is over", |world| world.live_runners().is_empty()).await;
    let world = lock(&shared);
    let left = world.github.runner_by_name(RegisteredAt::Repository(repository), "r1").unwrap();
    assert!(!left.online);
    assert_eq!(world.violations(), []);
}

#[tokio::test(start_paused = true)]
async fn the_other_images_variables_make_a_runner_too() {
    let (shared, repository, mut client) = running(Options::default()).await;
    let target = format!("/repos/{REPOSITORY}/actions/runners/registration-token");
    let (_, token) = client.json(Method::POST, &target, "").await;
    let token = token["token"].as_str().unwrap();
    let repo_url = format!("https://github.com/{REPOSITORY}");
    let common = [("LABELS", "a, b"), ("EPHEMERAL", "true")];
    let of = |more: &[(&str, &str)]| env(&[&common[..], more].concat());
    start(&shared, "a1", of(&[("RUNNER_TOKEN", token), ("REPO_URL", &repo_url), ("RUNNER_NAME", "t1")]));
    start(&shared, "a2", of(&[("ACCESS_TOKEN", TOKEN), ("REPO_URL", &repo_url), ("RUNNER_NAME", "t2")]));
    let organization = [("RUNNER_SCOPE", "org"), ("ORG_NAME", "octo-org"), ("RUNNER_NAME", "t3")];
    start(&shared, "a3", of(&[&organization[..], &[("ACCESS_TOKEN", TOKEN)]].concat()));
    start(&shared, "a4", env(&[("PATH", "/bin")]));
    until(&shared, "three listen", |world| {
        world.live_runners().iter().filter(|runner| runner.phase == Phase::Listening).count() == 3
    })
    .await;
    let job = {
        let mut world = lock(&shared);
        assert_eq!(world.live_runners().len(), 3, "a task without credentials is no runner");
        let first = world.github.runner_by_name(RegisteredAt::Repository(repository), "t1").unwrap();
        assert_eq!((first.labels.join(" ").as_str(), first.ephemeral), ("a b self-hosted Linux X64", true));
        let run =
            world.queue_run(repository, vec![JobSpec::new(&["self-hosted", "B"], seconds(30))]).unwrap();
        world.github.run(run).unwrap().jobs[0]
    };
    tokio::time::sleep(seconds(40)).await;
    let world = lock(&shared);
    assert_eq!(world.github.job(job).unwrap().conclusion, Some(Conclusion::Success));
    assert_eq!(world.live_runners().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_sides_clocks_may_differ() {
    let options = Options { github_skew: SignedDuration::from_hours(3), ..Options::default() };
    let (shared, repository, mut client) = running(options).await;
    let (_, date, _) = client.ask(Method::GET, "/rate_limit", "").await.unwrap();
    assert_eq!(date, "Sun, 01 Mar 2026 15:00:00 GMT");
    let run = lock(&shared).queue_run(repository, vec![JobSpec::new(&["x"], seconds(60))]).unwrap();
    let (_, shown) = client.json(Method::GET, &format!("/repos/{REPOSITORY}/actions/runs/{run}"), "").await;
    assert_eq!(shown["created_at"], "2026-03-01T15:00:00Z");
    let encoded = jit(&mut client, "r1", "\"x\"").await;
    start(&shared, "a1", env(&[("ACTIONS_RUNNER_INPUT_JITCONFIG", &encoded)]));
    tokio::time::sleep(seconds(70)).await;
    let world = lock(&shared);
    assert_eq!(world.github.run(run).unwrap().status, Status::Completed);
    assert!(world.timeline().all(|(time, _)| *time < "2026-03-01T12:10:00Z".parse().unwrap()), "true time");
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_timeline() {
    let mut seen = Vec::new();
    for seed in [1, 1, 2] {
        let (shared, repository, mut client) = running(Options { seed, ..Options::default() }).await;
        for index in 0..5 {
            lock(&shared).queue_run(repository, vec![JobSpec::new(&["x"], seconds(20))]);
            let encoded = jit(&mut client, &format!("r{index}"), "\"x\"").await;
            start(&shared, &format!("a{index}"), env(&[("ACTIONS_RUNNER_INPUT_JITCONFIG", &encoded)]));
        }
        until(&shared, "all is over", |world| world.live_runners().is_empty()).await;
        let lines: Vec<String> =
            lock(&shared).timeline().map(|(time, line)| format!("{time} {line}")).collect();
        assert!(lines.len() >= 20);
        seen.push(lines);
    }
    assert_eq!(seen[0], seen[1]);
    assert_ne!(seen[0], seen[2]);
}

/// A job whose task waits for a variable, as a runner's does.
pub(super) fn nomad_job(id: &str, job_id: u64) -> String {
    let template = format!(
        "{{{{ with nomadVar \"nomad/jobs/{id}\" }}}}ACTIONS_RUNNER_INPUT_JITCONFIG={{{{ .jit }}}}{{{{ end }}}}"
    );
    let meta = serde_json::json!({ "job_id": job_id, "attempt": 1 }).to_string();
    let job = serde_json::json!({
        "ID": id, "Name": id, "Namespace": "default", "Type": "batch", "Datacenters": ["*"],
        "Meta": {"NOMADTOOLS": meta},
        "TaskGroups": [{
            "Name": "runner", "Count": 1, "RestartPolicy": {"Attempts": 0, "Mode": "fail"},
            "ReschedulePolicy": {"Attempts": 0, "Unlimited": false},
            "Tasks": [{
                "Name": "runner", "Driver": "raw_exec", "Config": {"command": "run.sh"},
                "Templates": [{
                    "EmbeddedTmpl": template, "DestPath": "secrets/env", "Envvars": true, "ChangeMode": "noop",
                    "Once": true,
                }],
            }],
        }],
    });
    serde_json::json!({ "Job": job, "EnforceIndex": true, "JobModifyIndex": 0 }).to_string()
}

#[tokio::test(start_paused = true)]
async fn a_nomad_job_becomes_a_runner_and_is_complete_when_its_job_is_over() {
    let (shared, repository, mut github) = running(Options::default()).await;
    let mut nomad = Client::connect(&shared, Side::Nomad).await;
    let run = lock(&shared).queue_run(repository, vec![JobSpec::new(&["x"], seconds(120))]).unwrap();
    let job = lock(&shared).github.run(run).unwrap().jobs[0];
    assert_eq!(nomad.json(Method::PUT, "/v1/jobs", &nomad_job("ghr-1", job)).await.0, 200);
    tokio::time::sleep(seconds(20)).await;
    assert!(lock(&shared).live_runners().is_empty(), "it waits for its variable");
    let encoded = jit(&mut github, "ghr-1", "\"x\"").await;
    let variable = serde_json::json!({"Items": {"jit": encoded}}).to_string();
    assert_eq!(nomad.json(Method::PUT, "/v1/var/nomad/jobs/ghr-1?cas=0", &variable).await.0, 200);
    until(&shared, "the job is in progress", |world| {
        world.live_runners().first().is_some_and(|runner| runner.job == Some(job))
    })
    .await;
    assert_eq!(lock(&shared).live_by_job(), [(job, 1)].into());
    tokio::time::sleep(seconds(130)).await;
    let (_, allocations) = nomad.json(Method::GET, "/v1/allocations", "").await;
    assert_eq!(allocations[0]["ClientStatus"], "complete");
    let world = lock(&shared);
    assert_eq!(world.github.job(job).unwrap().conclusion, Some(Conclusion::Success));
    assert!(world.live_runners().is_empty());
    assert_eq!(world.violations(), []);
}

#[tokio::test(start_paused = true)]
async fn stopping_the_nomad_job_of_a_busy_runner_is_recorded() {
    let (shared, repository, mut github) = running(Options::default()).await;
    let mut nomad = Client::connect(&shared, Side::Nomad).await;
    let run = lock(&shared).queue_run(repository, vec![JobSpec::new(&["x"], seconds(900))]).unwrap();
    let job = lock(&shared).github.run(run).unwrap().jobs[0];
    let encoded = jit(&mut github, "ghr-1", "\"x\"").await;
    let variable = serde_json::json!({"Items": {"jit": encoded}}).to_string();
    assert_eq!(nomad.json(Method::PUT, "/v1/var/nomad/jobs/ghr-1?cas=0", &variable).await.0, 200);
    assert_eq!(nomad.json(Method::PUT, "/v1/jobs", &nomad_job("ghr-1", job)).await.0, 200);
    until(&shared, "it works", |world| {
        world.live_runners().first().is_some_and(|runner| runner.phase == Phase::Working)
    })
    .await;
    assert_eq!(nomad.json(Method::DELETE, "/v1/job/ghr-1", "").await.0, 200);
    until(&shared, "it is over", |world| world.live_runners().is_empty()).await;
    let world = lock(&shared);
    assert_eq!(world.violations().iter().map(|violation| violation.job).collect::<Vec<_>>(), [job]);
    assert_eq!(world.github.job(job).unwrap().conclusion, Some(Conclusion::Failure));
}
