//! Runners that run for too long, and jobs that are lost with their runners, on real Nomad agents: only GitHub is simulated.

use std::time::{Duration, Instant};

use githubrunner_sim::github::{Conclusion, Status};
use serde_json::Value;

use crate::common::{
    nomad_agent::{Agent, AgentOptions},
    site::{NAMESPACE, Running, Site, until},
};

/// Long enough for what Nomad and GitHub have to notice first.
const MISSED_WITHIN: Duration = Duration::from_secs(150);

/// A site on a real agent, with these lines in its configuration.
async fn site_on(agent: &Agent, first: &str, more: &str) -> (Site, String) {
    agent.create_namespace(NAMESPACE).await;
    let mut site = Site::start().await;
    site.nomad = agent.address.clone();
    let runner = site.stand_in_after(first);
    let config = format!("template_settings: {{runner_directory: \"{}\"}}\n{more}", runner.display());
    let config = site.config(&config).replace("purge_failure_timeout: 1s", "purge_failure_timeout: 1h");
    (site, config)
}

/// Waits longer than usual.
async fn at_last(daemon: &Running, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + MISSED_WITHIN;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}:\n{}", daemon.log().join("\n"));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn has_succeeded_again(site: &Site, job: u64) -> bool {
    site.attempt(job) == (2, Some(Conclusion::Success))
}

/// The ID of the only running allocation, once the servers know of it.
async fn running_allocation(agent: &Agent) -> String {
    let deadline = Instant::now() + MISSED_WITHIN;
    loop {
        let allocations = agent.get(&format!("/v1/allocations?namespace={NAMESPACE}")).await;
        let is_running = |allocation: &&Value| allocation["ClientStatus"] == "running";
        if let Some(running) = allocations.as_array().unwrap().iter().find(is_running) {
            return running["ID"].as_str().unwrap().to_owned();
        }
        assert!(Instant::now() < deadline, "{allocations}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Runners of the class `gpu` run on the second client.
const CLASS: &str = "public: allow\nclasses: [{name: gpu, match: {labels: gpu}, nomad: {node_pool: gpu}}]\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_runner_leaves_a_draining_node_and_a_busy_one_finishes_its_job() {
    let Some(agent) = Agent::start(AgentOptions::default()).await else { return };
    let (site, config) = site_on(&agent, "", "").await;
    let daemon = site.run(&config);
    let job = site.queue(&["nomadtools"], 25_000);
    site.in_progress(job).await;
    site.never_assigned();
    let online = || site.world().github.runners().filter(|runner| runner.online).count();
    until(&site, "there is an idle runner, too", || online() == 2).await;
    let node = agent.get("/v1/nodes").await[0]["ID"].as_str().unwrap().to_owned();
    agent.drain_within(&node, 3_600_000_000_000).await;
    daemon.says("is being drained").await;
    until(&site, "the idle runner is gone", || online() == 1).await;
    assert_eq!(site.status(job), Status::InProgress);
    site.served(job).await;
    let stops = daemon.lines_with("stop     NTGithubRunner-acme-app-");
    assert_eq!(stops.len(), 1, "{stops:?}");
    assert!(stops[0].contains("after GitHub removes its registration: done"), "{stops:?}");
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_node_goes_away_is_run_again_once() {
    let options = AgentOptions { pool: Some("gpu"), ..AgentOptions::default() };
    let Some(agent) = Agent::start(options).await else { return };
    let lines = format!("rerun_lost: {{enabled: true}}\n{CLASS}");
    let (site, config) = site_on(&agent, "", &lines).await;
    site.world().github.options_mut().lost_after = Duration::from_secs(2);
    let daemon = site.run(&config);
    let job = site.queue(&["nomadtools", "gpu"], 600_000);
    site.in_progress(job).await;
    running_allocation(&agent).await;
    agent.power_off_second();
    at_last(&daemon, "GitHub gives the job up", || site.status(job) == Status::Completed).await;
    at_last(&daemon, "it is run again", || site.attempt(job).0 == 2).await;
    let lines = daemon.lines_with("running job");
    assert!(lines[0].contains("its node went down"), "{lines:?}");
    assert_eq!((lines.len(), marks(&agent).await), (1, 1), "{lines:?}");
    // The pool has no node left, and the next runner waits for one.
    let starts = || daemon.lines_with("start    NTGithubRunner-acme-app-").len();
    at_last(&daemon, "the re-run gets a runner", || starts() == 2).await;
    daemon.end().await;
}

async fn marks(agent: &Agent) -> usize {
    let path = format!("/v1/vars?namespace={NAMESPACE}&prefix=githubrunner/NTGithubRunner/reruns/");
    agent.get(&path).await.as_array().unwrap().len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nomad_ends_a_runner_that_runs_for_too_long_where_it_knows_the_limit() {
    let Some(agent) = Agent::start(AgentOptions::default()).await else { return };
    let (site, config) = site_on(&agent, "", "").await;
    let config = config.replace("scheduler: {", "scheduler: {max_run_duration: 10s, ");
    let daemon = site.run(&config);
    let job = site.queue(&["nomadtools"], 600_000);
    site.in_progress(job).await;
    until(&site, "the job ends", || site.status(job) == Status::Completed).await;
    daemon.says("exceeded max_run_duration").await;
    assert_eq!(daemon.lines_with("stop     "), Vec::<String>::new(), "Nomad was faster");
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runner_that_runs_for_too_long_is_ended_where_nomad_does_not_know_the_limit() {
    let Some(agent) = Agent::start(AgentOptions::default()).await else { return };
    let (site, config) = site_on(&agent, "", "").await;
    // The same template without the attribute.
    let read = |name: &str| std::fs::read_to_string(format!("templates/{name}.hcl.j2")).unwrap();
    let template = read("parts") + &read("raw_exec");
    let template: Vec<&str> = template.lines().filter(|line| !line.contains("max_run_duration =")).collect();
    let file = site.cache_file().with_file_name("own.hcl.j2");
    std::fs::write(&file, template.join("\n")).unwrap();
    let config = config
        .replace("builtin:raw_exec", &file.display().to_string())
        .replace("scheduler: {", "scheduler: {max_run_duration: 10s, ");
    let daemon = site.run(&config);
    let job = site.queue(&["nomadtools"], 600_000);
    site.in_progress(job).await;
    at_last(&daemon, "the job ends", || site.status(job) == Status::Completed).await;
    let held = daemon.lines_with("of max_run_duration 10s: it ends in");
    assert!(held[0].contains("WARN"), "{held:?}");
    let stops = daemon.lines_with("longer than max_run_duration (10s)");
    assert_eq!(stops.len(), 1, "{stops:?}");
    assert!(stops[0].contains("WARN") && stops[0].contains("stop     NTGithubRunner-acme-app-"), "{stops:?}");
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_node_is_drained_is_run_again_once_and_one_that_somebody_stops_is_not() {
    let Some(agent) = Agent::start(AgentOptions::default()).await else { return };
    let (site, config) = site_on(&agent, "", "rerun_lost: {enabled: true}\n").await;
    let daemon = site.run(&config);
    let job = site.queue(&["nomadtools"], 15_000);
    site.in_progress(job).await;
    let node = agent.get("/v1/nodes").await[0]["ID"].as_str().unwrap().to_owned();
    agent.drain(&node).await;
    until(&site, "the job is lost", || site.status(job) == Status::Completed).await;
    daemon.says("rerun    NTGithubRunner-acme-app-").await;
    let lines = daemon.lines_with("running job");
    assert!(lines[0].contains("its node was drained"), "{lines:?}");
    let undrain = serde_json::json!({ "DrainSpec": null, "MarkEligible": true });
    let request = githubrunner::http::Request::put(format!("/v1/node/{node}/drain")).json(&undrain);
    agent.client().send(request).await.unwrap().success().unwrap();
    at_last(&daemon, "its re-run succeeds", || has_succeeded_again(&site, job)).await;
    assert_eq!(marks(&agent).await, 1);

    let stopped = site.queue(&["nomadtools"], 600_000);
    site.in_progress(stopped).await;
    let running = running_allocation(&agent).await;
    let stop = githubrunner::http::Request::put(format!("/v1/allocation/{running}/stop"));
    agent.client().send(stop).await.unwrap().success().unwrap();
    until(&site, "the job fails", || site.status(stopped) == Status::Completed).await;
    daemon.says("someone stopped its allocation").await;
    assert_eq!(
        (
            marks(&agent).await,
            daemon.lines_with("again (run").iter().filter(|l| l.contains(": done")).count()
        ),
        (1, 1)
    );
    daemon.end().await;
}
