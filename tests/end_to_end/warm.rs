//! Warm runners: a job gets one at once, and another one takes its place.

use githubrunner_sim::github::{JobSpec, Status};
use serde_json::Value;

use crate::common::{
    nomad_agent::{Agent, AgentOptions},
    site::{NAMESPACE, REPOSITORY, Site, until},
};

/// One warm runner for the site's repository.
fn warm(site: &Site, count: usize) -> String {
    site.config(&format!(
        "warm: [{{labels: [nomadtools, spare], repository: {REPOSITORY}, count: {count}}}]\n"
    ))
}

/// The names of the runners that are connected and idle.
fn idle(site: &Site) -> Vec<String> {
    let world = site.world();
    let idle = world.github.runners().filter(|runner| runner.online && runner.job.is_none());
    idle.map(|runner| runner.name.clone()).collect()
}

#[tokio::test]
async fn a_warm_runner_takes_a_job_is_replaced_and_leaves_with_its_entry() {
    let site = Site::start().await;
    let daemon = site.run(&warm(&site, 1));
    until(&site, "a runner is ready without a job", || idle(&site).len() == 1).await;
    let first = idle(&site).remove(0);
    daemon.says("as a warm runner: 0 of 1 ready").await;

    let job = site.queue(&["NomadTools"], 1500);
    site.in_progress(job).await;
    let taken_by = site.world().github.job(job).unwrap().runner.as_ref().unwrap().name.clone();
    assert_eq!(taken_by, first);
    until(&site, "another one takes its place", || idle(&site).iter().any(|name| *name != first)).await;
    site.served(job).await;
    // Nothing was started for the job.
    let starts = daemon.lines_with("start    ");
    assert!(starts.iter().all(|line| line.contains("as a warm runner")), "{starts:?}");

    // Without its entry it leaves, with GitHub's consent.
    site.write_config(&site.config(""));
    daemon.signal("HUP");
    until(&site, "nothing is left", || site.is_clean()).await;
    assert!(site.world().violations().is_empty());
    daemon.says("its entry is no longer configured; after GitHub removes its registration").await;
    daemon.end().await;
}

#[tokio::test]
async fn a_restarted_daemon_and_every_command_know_a_warm_runner() {
    let site = Site::start().await;
    let config = warm(&site, 2);
    let daemon = site.run(&config);
    until(&site, "two runners are ready", || idle(&site).len() == 2).await;
    daemon.end().await;
    let list = site.call_with(&config, &["list", "--json"]).await.well();
    let runners: Vec<Value> = serde_json::from_str(&list).unwrap();
    assert!(runners.len() == 2 && runners.iter().all(|runner| runner["warm"] == true), "{list}");
    assert_eq!(site.call_with(&config, &["plan"]).await.well().matches("start ").count(), 0);
    let more = site.call_with(&warm(&site, 3), &["plan"]).await.well();
    assert!(more.contains("as a warm runner: 2 of 3 ready"), "{more}");
    let explained = site.call_with(&config, &["explain", REPOSITORY]).await;
    assert!(explained.out.contains("a warm runner: it takes any job"), "{}", explained.out);
    let closed = config.replace("count: 2", "count: 2, schedule: '00:00-00:01 UTC'");
    let plan = site.call_with(&closed, &["plan"]).await.well();
    // It is open for a minute a day.
    assert!(plan.contains("outside its schedule") || plan.is_empty(), "{plan}");

    let daemon = site.run(&config);
    let job = site.queue(&["nomadtools"], 300);
    site.served(job).await;
    until(&site, "two runners are ready again", || idle(&site).len() == 2).await;
    let starts = daemon.lines_with("start    ");
    assert_eq!(starts.len(), 1, "{starts:?}");
    daemon.end().await;
}

#[tokio::test]
async fn at_a_cap_a_warm_runner_yields_to_a_job_that_it_cannot_take() {
    let site = Site::start().await;
    let config =
        warm(&site, 2).replace("scheduler: {", "scheduler: {max_runners: 1, pending_to_kill_listening: 5s, ");
    let daemon = site.run(&config);
    until(&site, "a warm runner has the only place", || site.nomad_jobs().len() == 1).await;
    until(&site, "it is connected", || idle(&site).len() == 1).await;
    let job = site.queue(&["nomadtools", "other"], 300);
    site.served(job).await;
    daemon.says("making room for acme/app job").await;
    assert!(site.world().violations().is_empty());
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_real_agent_a_warm_runner_takes_a_job_and_is_replaced() {
    let Some(agent) = Agent::start(AgentOptions::default()).await else { return };
    agent.create_namespace(NAMESPACE).await;
    let mut site = Site::start().await;
    site.nomad = agent.address.clone();
    let runner = site.stand_in();
    let settings = format!("template_settings: {{runner_directory: \"{}\"}}\n", runner.display());
    let config = format!("{}{settings}", warm(&site, 1));
    let daemon = site.run(&config);
    until(&site, "a runner is ready without a job", || idle(&site).len() == 1).await;
    let first = idle(&site).remove(0);
    let spec = JobSpec::new(&["nomadtools"], std::time::Duration::from_millis(1500));
    let run = site.world().queue_run(site.repository, vec![spec]).unwrap();
    let job = site.world().github.run(run).unwrap().jobs[0];
    until(&site, "the job is taken", || site.status(job) >= Status::InProgress).await;
    let taken_by = site.world().github.job(job).unwrap().runner.as_ref().map(|runner| runner.name.clone());
    assert_eq!(taken_by.as_deref(), Some(first.as_str()));
    until(&site, "another one takes its place", || idle(&site).iter().any(|name| *name != first)).await;
    site.served(job).await;
    let starts = daemon.lines_with("start    ");
    assert_eq!(starts.len(), 2, "{starts:?}");
    daemon.end().await;
}
