//! The whole path on a real Nomad agent: only GitHub is simulated. The runners are real processes.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use githubrunner::http::Request;
use githubrunner_sim::github::{JobSpec, Status};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::common::{
    nomad_agent::{Agent, AgentOptions},
    site::{NAMESPACE, REPOSITORY, Site, TOKEN, WITHIN, until},
};

/// The `loop` of the configuration.
const LOOP: Duration = Duration::from_secs(2);

/// On an idle machine a job is taken within `loop` + 2 s; this allows for a busy one.
const TAKEN_WITHIN: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_lines_of_configuration_serve_a_job_on_a_real_agent() {
    let Some(agent) = Agent::start(AgentOptions::default()).await else { return };
    agent.create_namespace(NAMESPACE).await;
    let mut site = Site::start().await;
    site.nomad = agent.address.clone();
    let runner = site.stand_in();
    let config = format!(
        "github: {{url: \"{}\", token: {TOKEN}, cachefile: \"{}\"}}\nrepos: [{REPOSITORY}]\nloop: {}\n\
         template: builtin:raw_exec\ntemplate_settings: {{runner_directory: \"{}\"}}\n",
        site.github,
        site.cache_file().display(),
        LOOP.as_secs(),
        runner.display(),
    );
    assert_eq!(config.lines().count(), 5);
    let daemon = site.run(&config);
    daemon.says("watches").await;

    let mut slowest = Duration::ZERO;
    for labels in [&["nomadtools"][..], &["nomadtools mem=64"], &["nomadtools", "other"]] {
        let queued = Instant::now();
        let job = site.queue(labels, 500);
        until(&site, "the job is taken", || site.status(job) >= Status::InProgress).await;
        slowest = slowest.max(queued.elapsed());
        site.served(job).await;
    }
    println!("with a loop of {LOOP:?} a job was taken {slowest:?} after it was queued, at most");
    assert!(slowest < TAKEN_WITHIN, "{slowest:?}");

    // Dead runners stay for ten minutes unless they are purged.
    let deadline = Instant::now() + WITHIN;
    loop {
        let list = site.call_with(&config, &["list", "--json"]).await.well();
        let runners: Vec<Value> = serde_json::from_str(&list).unwrap();
        assert_eq!(runners.len(), 3, "{list}");
        // The variable is removed as soon as a runner is dead.
        let paths = agent.get(&format!("/v1/vars?namespace={NAMESPACE}&prefix=nomad/jobs")).await;
        if runners.iter().all(|runner| runner["state"] == "dead") && paths == serde_json::json!([]) {
            assert!(runners.iter().all(|runner| runner["finish"] == "success"), "{list}");
            break;
        }
        assert!(Instant::now() < deadline, "{list}\n{paths}\n{}", daemon.log().join("\n"));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    daemon.end().await;
    site.call_with(&config, &["purge", "--dead", "-y"]).await.well();
    assert_eq!(agent.get(&format!("/v1/jobs?namespace={NAMESPACE}")).await, serde_json::json!([]));
    assert!(site.world().github.runners().next().is_none());
}

/// A site on a real agent whose runner begins with these lines of shell script, and its configuration.
async fn with_runner(agent: &Agent, first: &str) -> (Site, String) {
    agent.create_namespace(NAMESPACE).await;
    let mut site = Site::start().await;
    site.nomad = agent.address.clone();
    let runner = site.stand_in_after(first);
    let config = site.config(&format!("template_settings: {{runner_directory: \"{}\"}}\n", runner.display()));
    (site, config)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runner_that_updates_itself_is_restarted_in_its_task_and_serves_its_job() {
    let Some(agent) = Agent::start(AgentOptions::default()).await else { return };
    let updates = "[ -e ../updated ] || { touch ../updated update.finished; exit 3; }";
    let (site, config) = with_runner(&agent, updates).await;
    // The job is kept for inspection.
    let config = config.replace("purge_successfull_timeout: 1s", "purge_successfull_timeout: 1h");
    let daemon = site.run(&config);
    let job = site.queue(&["nomadtools"], 500);
    site.served(job).await;
    let jobs = agent.get(&format!("/v1/jobs?namespace={NAMESPACE}")).await;
    assert_eq!(jobs.as_array().unwrap().len(), 1, "one attempt was enough: {jobs}");
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runner_that_github_refuses_yields_the_only_place_to_another_repository() {
    let Some(agent) = Agent::start(AgentOptions::default()).await else { return };
    let (site, config) = with_runner(&agent, "").await;
    let other = site.world().github.add_repository("acme/other");
    site.world().github.repository_mut(site.repository).unwrap().refuses_runners = true;
    let config = config
        .replace(&format!("repos: [{REPOSITORY}]"), &format!("repos: [{REPOSITORY}, acme/other]"))
        .replace("scheduler: {", "scheduler: {max_runners: 1, waiting_timeout: 3s, ");
    let daemon = site.run(&config);
    let refused = site.queue(&["nomadtools"], 500);
    daemon.says("hold     NTGithubRunner-acme-app-").await;
    daemon.says("no credentials for ").await;
    let run = site.world().queue_run(other, vec![JobSpec::new(&["nomadtools"], Duration::from_millis(500))]);
    let served = site.world().github.run(run.unwrap()).unwrap().jobs[0];
    site.served(served).await;
    assert_eq!(site.status(refused), Status::Queued);
    let stops = daemon.lines_with(&format!("yielding to acme/other job {served}"));
    assert_eq!(stops.len(), 1, "{stops:?}");
    let held = daemon.lines_with("no credentials for ");
    assert!(held[0].contains("WARN") && held[0].contains("403"), "{held:?}");
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_waits_for_a_missing_variable_is_reported_and_retried() {
    let Some(agent) = Agent::start(AgentOptions::default()).await else { return };
    let (site, config) = with_runner(&agent, "").await;
    let missing = r#"{extra_task: "template {\n data = \"{{ with nomadVar \\\"nomad/jobs/ci\\\" }}{{ .key }}{{ end }}\"\n destination = \"local/ci\"\n}", "#;
    let config = config
        .replace("template_settings: {", &format!("template_settings: {missing}"))
        .replace("scheduler: {", "scheduler: {starting_timeout: 8s, ");
    let daemon = site.run(&config);
    site.queue(&["nomadtools"], 500);
    daemon.says("its task has not started for").await;
    let stops = daemon.lines_with("its task has not started for");
    assert!(stops[0].contains("last event: Missing: nomad.var.block(nomad/jobs/ci@"), "{stops:?}");
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_replacement_of_a_stopped_allocation_is_stopped_because_its_credentials_are_used() {
    let Some(agent) = Agent::start(AgentOptions::default()).await else { return };
    // The second one does not end by itself, because then there would be nothing to stop.
    let marks = tempfile::tempdir().unwrap();
    let mark = marks.path().join("started");
    let second = format!("[ -e '{0}' ] && exec sleep 600; touch '{0}'", mark.display());
    let (site, config) = with_runner(&agent, &second).await;
    let config = config.replace("purge_successfull_timeout: 1s", "purge_successfull_timeout: 1h");
    let config = config.replace("purge_failure_timeout: 1s", "purge_failure_timeout: 1h");
    let daemon = site.run(&config);
    let busy = site.queue(&["nomadtools"], 600_000);
    site.in_progress(busy).await;
    let allocations = agent.get(&format!("/v1/allocations?namespace={NAMESPACE}")).await;
    let (job, first) = (allocations[0]["JobID"].clone(), allocations[0]["ID"].as_str().unwrap().to_owned());
    let stop = Request::put(format!("/v1/allocation/{first}/stop"));
    agent.client().send(stop).await.unwrap().success().unwrap();
    // Nomad starts another one with the credentials that the first one has used.
    daemon.says("an earlier allocation used its credentials").await;
    let stops = daemon.lines_with("an earlier allocation used its credentials");
    assert!(stops[0].contains(job.as_str().unwrap()), "{stops:?}");
    // GitHub counts the first one's job as running, and consents when that is over.
    let run = site.world().github.job(busy).unwrap().run;
    {
        let mut world = site.world();
        let now = world.clock.now();
        world.github.cancel_run(run, now);
        world.touch();
    }
    let deadline = Instant::now() + WITHIN;
    let path = format!("/v1/jobs?namespace={NAMESPACE}&prefix={}", job.as_str().unwrap());
    while agent.get(&path).await[0]["Stop"] != true {
        assert!(Instant::now() < deadline, "{}", daemon.log().join("\n"));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runner_that_gets_no_job_yields_the_only_place_to_another_repository() {
    let Some(agent) = Agent::start(AgentOptions::default()).await else { return };
    let (site, config) = with_runner(&agent, "").await;
    let other = site.world().github.add_repository("acme/other");
    let config = config
        .replace(&format!("repos: [{REPOSITORY}]"), &format!("repos: [{REPOSITORY}, acme/other]"))
        .replace("scheduler: {", "scheduler: {max_runners: 1, unassigned_timeout: 3s, ");
    let daemon = site.run(&config);
    let unassigned = site.never_assigned();
    until(&site, "its runner is online", || site.world().github.runners().any(|runner| runner.online)).await;
    // While nothing else is waiting, it stays.
    daemon.says("though its job is queued").await;
    assert_eq!(daemon.lines_with("yielding to"), Vec::<String>::new());
    let run = site.world().queue_run(other, vec![JobSpec::new(&["nomadtools"], Duration::from_millis(500))]);
    let served = site.world().github.run(run.unwrap()).unwrap().jobs[0];
    site.served(served).await;
    assert_eq!(site.status(unassigned), Status::Queued);
    let stops = daemon.lines_with(&format!("yielding to acme/other job {served}"));
    assert_eq!(stops.len(), 1, "{stops:?}");
    let held = daemon.lines_with("though its job is queued");
    assert!(held[0].contains("WARN"), "{held:?}");
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preempted_runner_is_spent_and_its_job_is_due_another_attempt() {
    let Some(agent) = Agent::start(AgentOptions { memory: Some(400), ..Default::default() }).await else {
        return;
    };
    let preemption = serde_json::json!({ "PreemptionConfig": { "BatchSchedulerEnabled": true } });
    let request = Request::put("/v1/operator/scheduler/configuration").json(&preemption);
    agent.client().send(request).await.unwrap().success().unwrap();
    let (site, config) = with_runner(&agent, "").await;
    let config = config
        .replace("template_settings: {", "template_settings: {mem: 200, ")
        .replace("purge_successfull_timeout: 1s", "purge_successfull_timeout: 1h")
        .replace("purge_failure_timeout: 1s", "purge_failure_timeout: 1h");
    let daemon = site.run(&config);
    site.never_assigned();
    until(&site, "its runner is online", || site.world().github.runners().any(|runner| runner.online)).await;
    let allocations = agent.get(&format!("/v1/allocations?namespace={NAMESPACE}")).await;
    let (job, first) = (allocations[0]["JobID"].as_str().unwrap(), allocations[0]["ID"].as_str().unwrap());

    let urgent = serde_json::json!({ "Job": {
        "ID": "urgent", "Type": "batch", "Priority": 90, "Namespace": NAMESPACE,
        "TaskGroups": [{ "Name": "g", "Tasks": [{
            "Name": "t", "Driver": "raw_exec", "Config": { "command": "/bin/sleep", "args": ["600"] },
            "Resources": { "CPU": 10, "MemoryMB": 300 },
        }] }],
    } });
    agent.client().send(Request::put("/v1/jobs").json(&urgent)).await.unwrap().success().unwrap();
    daemon.says("an earlier allocation used its credentials").await;
    let stops = daemon.lines_with("an earlier allocation used its credentials");
    assert!(stops[0].contains(job), "{stops:?}");
    daemon.says("attempt 2 starts in").await;
    let preempted = agent.get(&format!("/v1/allocation/{first}")).await;
    assert_eq!(preempted["DesiredStatus"], "evict", "{preempted}");
    let path = format!("/v1/job/{job}?namespace={NAMESPACE}");
    // While GitHub reports the runner as online, it is asked again after 5, 10 and 20 s.
    let deadline = Instant::now() + 2 * WITHIN;
    while agent.get(&path).await["Stop"] != true {
        assert!(Instant::now() < deadline, "{}", daemon.log().join("\n"));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runner_is_dead_only_when_its_poststop_task_has_ended() {
    let Some(agent) = Agent::start(AgentOptions::default()).await else { return };
    let (site, config) = with_runner(&agent, "").await;
    let marks = tempfile::tempdir().unwrap();
    let (begun, go) = (marks.path().join("begun"), marks.path().join("go"));
    // It fails: the runner's own task determines the result.
    let script =
        format!("touch {}; while [ ! -e {} ]; do sleep 0.05; done; exit 7", begun.display(), go.display());
    let task = format!(
        "task \"after\" {{\n driver = \"raw_exec\"\n lifecycle {{\n hook = \"poststop\"\n }}\n config {{\n \
         command = \"/bin/sh\"\n args = [\"-c\", \"{script}\"]\n }}\n resources {{\n memory = 10\n }}\n}}"
    );
    let config = config
        .replace("template_settings: {", &format!("template_settings: {{extra_group: {task:?}, "))
        .replace("purge_successfull_timeout: 1s", "purge_successfull_timeout: 1h");
    let daemon = site.run(&config);
    let job = site.queue(&["nomadtools"], 300);
    site.served(job).await;
    until(&site, "the poststop task has begun", || begun.exists()).await;
    // The servers learn slightly later that the runner's own task has ended.
    until_listed(&site, &config, "stopping").await;
    std::fs::write(&go, "").unwrap();
    let dead = until_listed(&site, &config, "dead").await;
    assert_eq!(dead["finish"], "success", "{dead}");
    daemon.end().await;
}

/// Lists the runners until the only one is in this state; it must not be dead before.
async fn until_listed(site: &Site, config: &str, state: &str) -> Value {
    let deadline = Instant::now() + WITHIN;
    loop {
        let list = site.call_with(config, &["list", "--json"]).await.well();
        let mut runners: Vec<Value> = serde_json::from_str(&list).unwrap();
        assert_eq!(runners.len(), 1, "{list}");
        if runners[0]["state"] == state {
            return runners.remove(0);
        }
        assert!(runners[0]["state"] != "dead" && Instant::now() < deadline, "{list}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runner_that_is_stopped_gets_sigint_and_ends_by_itself() {
    let Some(agent) = Agent::start(AgentOptions::default()).await else { return };
    let (site, config) =
        with_runner(&agent, "[ -e ../again ] || { touch ../again update.finished; exit 4; }").await;
    let busy = site.queue(&["nomadtools"], 600_000);
    site.call_with(&config, &["once"]).await.well();
    site.in_progress(busy).await;
    let allocations = agent.get(&format!("/v1/allocations?namespace={NAMESPACE}")).await;
    let (job, allocation) =
        (allocations[0]["JobID"].as_str().unwrap(), allocations[0]["ID"].as_str().unwrap());
    let began = Instant::now();
    let path = format!("/v1/job/{job}?namespace={NAMESPACE}");
    agent.client().send(Request::delete(path)).await.unwrap().success().unwrap();
    let path = format!("/v1/allocation/{allocation}");
    let end = loop {
        let allocation = agent.get(&path).await;
        let events = allocation["TaskStates"]["runner"]["Events"].as_array().cloned().unwrap_or_default();
        if let Some(end) = events.iter().find(|event| event["Type"] == "Terminated") {
            break end.clone();
        }
        // Nomad kills what has not ended 30 s after its SIGINT.
        assert!(began.elapsed() < Duration::from_secs(25), "{events:#?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!((&end["ExitCode"], &end["Signal"]), (&Value::from(0), &Value::from(0)), "{end}");
    assert_eq!(site.world().live_runners().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_on_a_real_agent_leaves_nothing_there() {
    let Some(agent) = Agent::start(AgentOptions::default()).await else { return };
    let site = Site::start().await;
    let mut program = site.program();
    program.env("NOMAD_ADDR", &agent.address).args(["demo", "--nomad"]);
    let output = tokio::time::timeout(4 * WITHIN, program.output()).await.expect("it ends").unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{out}\n{err}");
    assert!(out.contains("Nothing is left but the warm runner"), "{out}");
    nothing_is_in(&agent).await;

    // Also when it is interrupted.
    let mut program = site.program();
    program.env("NOMAD_ADDR", &agent.address).args(["demo", "--nomad"]);
    let mut child = program.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while !lines.next_line().await.unwrap().expect("a job comes to run").contains("in progress") {}
    let id = child.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let began = Instant::now();
    while lines.next_line().await.unwrap().is_some() {}
    assert_eq!(child.wait().await.unwrap().code(), Some(1));
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
    nothing_is_in(&agent).await;
}

async fn nothing_is_in(agent: &Agent) {
    for place in ["/v1/jobs?namespace=*", "/v1/vars?namespace=*"] {
        assert_eq!(agent.get(place).await, serde_json::json!([]), "{place}");
    }
    let namespaces = agent.get("/v1/namespaces").await;
    assert_eq!(namespaces.as_array().unwrap().len(), 1, "the demo's own namespace is gone: {namespaces}");
}
