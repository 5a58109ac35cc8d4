//! The operators' commands: list, stop, purge, cache, render, demo.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use githubrunner_sim::github::Status;
use serde_json::Value;

use crate::common::site::{Site, until};

/// A site with a busy runner and an idle one.
async fn busy_and_idle() -> (Site, u64, u64) {
    let site = Site::start().await;
    let busy = site.queue(&["nomadtools busy"], 600_000);
    let idle = site.queue(&["nomadtools idle"], 600_000);
    // The second runner is started, and then there is nothing for it to do.
    site.world().options_mut().start_up = (Duration::from_secs(1), Duration::from_secs(1));
    site.call(&["once"]).await.well();
    let run = site.world().github.job(idle).unwrap().run;
    {
        let mut world = site.world();
        let now = world.clock.now();
        assert!(world.github.cancel_run(run, now));
        world.touch();
    }
    site.in_progress(busy).await;
    until(&site, "both runners are online", || {
        site.world().github.runners().filter(|runner| runner.online).count() == 2
    })
    .await;
    (site, busy, idle)
}

async fn listed(site: &Site) -> Vec<Value> {
    serde_json::from_str(&site.call(&["list", "--json"]).await.well()).unwrap()
}

/// The name of the runner that was started for a job.
async fn runner_for(site: &Site, job: u64) -> String {
    let runners = listed(site).await;
    let runner = runners.iter().find(|runner| runner["github_job"] == job).unwrap();
    runner["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn list_shows_the_runners_to_people_and_to_programs() {
    let (site, busy, _) = busy_and_idle().await;
    until(&site, "Nomad has heard of both tasks", || {
        site.world().nomad.allocations().filter(|allocation| allocation.client_status == "running").count()
            == 2
    })
    .await;
    let runners = listed(&site).await;
    assert_eq!(runners.len(), 2);
    let runner = runners.iter().find(|runner| runner["github_job"] == busy).unwrap();
    assert_eq!(runner["repository"], "acme/app");
    assert_eq!(runner["labels"], serde_json::json!(["nomadtools busy"]));
    assert_eq!(runner["state"], "running");
    assert_eq!(runner["node"], "node-1");

    let table = site.call(&["list"]).await.well();
    let mut lines = table.lines();
    assert!(lines.next().unwrap().starts_with("ID "), "{table}");
    assert!(
        lines.any(|line| line.contains(runner["id"].as_str().unwrap()) && line.contains("running")),
        "{table}"
    );
    // nomadtools' name for it.
    assert_eq!(site.call(&["listrunners"]).await.well().lines().count(), 3);
    assert!(site.writes().iter().all(|route| !route.starts_with("DELETE")));
}

#[tokio::test]
async fn stop_asks_github_first() {
    let (site, busy, idle) = busy_and_idle().await;
    let name = runner_for(&site, busy).await;
    let refused = site.call(&["stop", "-y", &name]).await;
    assert_eq!(refused.code, 1, "{}{}", refused.out, refused.err);
    assert!(refused.out.contains("running a job"), "{}", refused.out);
    assert_eq!(site.status(busy), Status::InProgress);

    let name = runner_for(&site, idle).await;
    let out = site.call(&["stop", "-y", &name]).await.well();
    assert!(out.contains(&name) && out.contains("done"), "{out}");
    until(&site, "the idle one's process is gone", || site.world().live_runners().len() == 1).await;

    let err = site.call(&["stop", "-y", "nonsense"]).await.failed(1);
    assert!(err.contains("nonsense") && err.contains("githubrunner list"), "{err}");
    assert!(site.world().violations().is_empty());
}

#[tokio::test]
async fn purge_removes_dead_runners_and_leaves_live_ones() {
    let (site, busy, idle) = busy_and_idle().await;
    let name = runner_for(&site, idle).await;
    site.call(&["stop", "-y", &name]).await.well();
    until(&site, "the idle one's process is gone", || site.world().live_runners().len() == 1).await;
    until(&site, "Nomad knows", || {
        site.world().nomad.allocations().filter(|allocation| allocation.client_status == "running").count()
            == 1
    })
    .await;
    let out = site.call(&["purge", "--dead", "-y"]).await.well();
    assert!(out.contains(&name), "{out}");
    let busy = runner_for(&site, busy).await;
    assert_eq!(site.nomad_jobs(), std::slice::from_ref(&busy));
    assert_eq!(site.secrets(), [format!("nomad/jobs/{busy}")]);

    // A busy runner stays, and the exit code reports it.
    let refused = site.call(&["purge", "--all", "-y"]).await;
    assert_eq!(refused.code, 1, "{}{}", refused.out, refused.err);
    assert_eq!(site.nomad_jobs(), [busy]);
    assert!(site.world().violations().is_empty());
}

/// How many runners are stopped on a terminal.
const MANY: usize = 12;

#[tokio::test]
async fn on_a_terminal_stopping_many_runners_shows_how_far_it_is() {
    if std::process::Command::new("script").arg("--version").output().is_err() {
        println!("skipped: there is no script(1) on PATH to provide a terminal");
        return;
    }
    let site = Site::start().await;
    for _ in 0..MANY {
        site.never_assigned();
    }
    let daemon = site.run(&site.config(""));
    until(&site, "all runners are online", || {
        site.world().github.runners().filter(|runner| runner.online).count() == MANY
    })
    .await;
    daemon.end().await;
    let config = site.write_config(&site.config(""));
    let program = env!("CARGO_BIN_EXE_githubrunner");
    let line = format!("stty cols 100; exec '{program}' -c '{}' stop --all -y", config.display());
    let mut command = tokio::process::Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).env("NOMAD_ADDR", &site.nomad).env("TERM", "xterm");
    let output = command.stdin(Stdio::null()).output().await.unwrap();
    let seen = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{seen}");
    assert!(seen.contains("stopping ") && seen.contains(&format!("/{MANY}, ")), "{seen}");
    let done = seen.lines().filter(|line| line.contains("stop ") && line.contains(": done")).count();
    assert_eq!(done, MANY, "{seen}");
    // The bar is gone at the end, and so are the runners.
    until(&site, "no runner is left", || site.world().live_runners().is_empty()).await;

    // In a pipe, there are only the lines.
    let piped = site.call(&["purge", "--all", "-y"]).await;
    assert!(!piped.out.contains('\u{1b}') && !piped.err.contains('\u{1b}'), "{}{}", piped.out, piped.err);
}

#[tokio::test]
async fn cache_shows_the_cached_responses() {
    let site = Site::start().await;
    site.queue(&["nomadtools"], 60_000);
    site.call(&["once"]).await.well();
    let table = site.call(&["cache"]).await.well();
    let url =
        table.lines().find_map(|line| line.split(' ').find(|word| word.contains("/actions/runs"))).unwrap();
    let one = site.call(&["cache", url]).await.well();
    serde_json::from_str::<Value>(one.lines().next().unwrap()).unwrap();
    assert_eq!(site.call(&["showgithubcache"]).await.well(), table);
}

#[tokio::test]
async fn render_needs_no_server_and_with_parse_only_nomad() {
    let (site, mut reserved) = Site::absent();
    let hcl = site.call(&["render", "nomadtools mem=2000"]).await.well();
    assert!(hcl.contains("memory") && hcl.contains("2000"), "{hcl}");
    let err = site.call(&["render", "--parse", "nomadtools"]).await.failed(1);
    assert!(err.contains(&site.nomad), "{err}");

    reserved.nomad(&site);
    let json = site.call(&["render", "--parse", "nomadtools mem=2000"]).await.well();
    let job: Value = serde_json::from_str(&json).unwrap();
    let job = job.get("Job").unwrap_or(&job);
    assert_eq!(job["TaskGroups"][0]["Tasks"][0]["Resources"]["MemoryMB"], 2000, "{json}");
    assert!(site.nomad_jobs().is_empty());
}

#[tokio::test]
async fn bad_usage_and_bad_configurations_end_with_2() {
    let site = Site::start().await;
    let err = site.call_with("repos: [acme/app]\nlopo: 1\nloop: -3\n", &["once"]).await.failed(2);
    assert!(err.contains(":2:1: lopo") && err.contains(":3:7: loop"), "{err}");
    site.call(&["nonsense"]).await.failed(2);
    assert_eq!(site.requests(githubrunner_sim::fault::Side::Nomad), 0);
}

#[tokio::test]
async fn the_demo_serves_its_jobs_and_leaves_nothing() {
    let site = Site::start().await;
    let output = site.program().arg("demo").output().await.unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{out}\n{err}");
    assert!(out.contains("job queued") && out.contains("Nothing is left"), "{out}");
    assert_eq!(site.requests(githubrunner_sim::fault::Side::Nomad), 0, "it has a Nomad of its own");
}

#[tokio::test]
async fn the_demo_ends_within_a_second_when_it_is_interrupted() {
    let site = Site::start().await;
    let mut child = site.program().arg("demo").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines =
        tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(child.stdout.take().unwrap()));
    while !lines.next_line().await.unwrap().expect("a job is queued").contains("job queued") {}
    let id = child.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let began = Instant::now();
    let status = child.wait().await.unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_configuration_can_come_from_standard_input() {
    let site = Site::start().await;
    let mut child = site.program();
    child.args(["-c", "-", "render", "nomadtools"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = child.spawn().unwrap();
    // Without a final newline, as from `echo -n`.
    let yaml = b"repos: [acme/of-standard-input]";
    tokio::io::AsyncWriteExt::write_all(&mut child.stdin.take().unwrap(), yaml).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("of-standard-input"), "{text}");
    assert!(text.ends_with("}\n"), "{text:?}");
}

#[tokio::test]
async fn argument_forms_of_other_programs_are_understood() {
    let site = Site::start().await;
    let config = site.write_config(&site.config(""));
    let config = config.to_str().unwrap();
    for arguments in [
        &["-config", config, "render", "nomadtools"][..],
        &["render", &format!("-config={config}"), "nomadtools"],
        &["help"],
        &["help", "run"],
        &["version"],
        &["-c", config, "validate"],
    ] {
        let output = site.program().args(arguments).output().await.unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        assert!(!output.stdout.is_empty(), "{arguments:?}");
    }
}

#[tokio::test]
async fn check_warns_about_a_runner_version_that_ends_soon() {
    let site = Site::start().await;
    {
        let mut world = site.world();
        let end = world.github_time(world.clock.now()) + jiff::SignedDuration::from_hours(24);
        let options = world.github.options_mut();
        options.runner_version = Some("2.334.0".to_owned());
        options.runner_versions = [("2.334.0".to_owned(), Some(end))].into();
    }
    let busy = site.queue(&["nomadtools"], 60_000);
    site.call(&["once"]).await.well();
    site.in_progress(busy).await;
    let check = site.call(&["check"]).await;
    assert!(
        check.out.contains("warning  runner version 2.334.0 gets jobs: runner 2.334.0 gets no jobs from"),
        "{}",
        check.out
    );
}

#[tokio::test]
async fn check_reports_a_nomad_that_is_too_old_for_the_templates() {
    let site = Site::start().await;
    site.fault(|_, request| match request.uri().path().ends_with("/jobs/parse") {
        true => githubrunner_sim::fault::Verdict::status(
            400,
            "Failed to parse job: input.hcl:42,7-11: Unsupported argument; An argument named \"once\" is not expected here.",
        ),
        false => githubrunner_sim::fault::Verdict::Pass,
    });
    let check = site.call(&["check"]).await;
    assert!(check.code == 1 && check.out.contains("older than Nomad 1.10.2"), "{}", check.out);
}
