//! What somebody on call asks: list, logs, explain. Beside a real Nomad agent where it matters what Nomad says.

use std::process::Stdio;
use std::time::{Duration, Instant};

use githubrunner_sim::github::Status;

use crate::common::nomad_agent::{Agent, AgentOptions};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::common::site::{NAMESPACE, Site, WITHIN};

/// A site on a real agent whose runner begins with these lines of a shell script, and its configuration. Dead runners stay.
async fn on(agent: &Agent, first: &str) -> (Site, String) {
    agent.create_namespace(NAMESPACE).await;
    let mut site = Site::start().await;
    site.nomad = agent.address.clone();
    let runner = site.stand_in_after(first);
    let settings = format!("template_settings: {{runner_directory: \"{}\"}}\n", runner.display());
    let config = site.config(&settings).replace("timeout: 1s", "timeout: 1h");
    (site, config)
}

/// What `list` says until it says this.
async fn lists(site: &Site, config: &str, arguments: &[&str], wanted: &str) -> String {
    let deadline = Instant::now() + WITHIN;
    loop {
        let out = site.call_with(config, &[&["list"], arguments].concat()).await.well();
        if out.contains(wanted) {
            return out;
        }
        assert!(Instant::now() < deadline, "it never says {wanted:?}:\n{out}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_show_what_a_runner_has_written_on_a_real_agent() {
    let Some(agent) = Agent::start(AgentOptions::default()).await else { return };
    let marks = tempfile::tempdir().unwrap();
    let mark = marks.path().join("go-on");
    let first = format!(
        "echo 'to its \u{1b}[2Jout'; echo 'to its err' >&2; until [ -e '{}' ]; do sleep 0.1; done; echo 'and more'",
        mark.display()
    );
    let (site, config) = on(&agent, &first).await;
    site.queue(&["nomadtools"], 300);
    site.call_with(&config, &["once"]).await.well();
    lists(&site, &config, &[], "running").await;
    let id = site.call_with(&config, &["list", "-q"]).await.well().trim().to_owned();

    let deadline = Instant::now() + WITHIN;
    loop {
        let logs = site.call_with(&config, &["logs", &id]).await;
        if logs.code == 0 && logs.out.contains("out\n") && logs.err.contains("to its err\n") {
            // Nobody's terminal: what was written, as it was written.
            assert_eq!(logs.out, "to its \u{1b}[2Jout\n");
            break;
        }
        assert!(Instant::now() < deadline, "{logs:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let last = site.call_with(&config, &["logs", &id, "--bytes", "4"]).await;
    assert_eq!(last.out, "out\n");

    // Followed to its end, which comes by itself.
    let mut program = site.program();
    program.arg("-c").arg(site.write_config(&config)).args(["logs", "-f", &id]);
    let mut child = program.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "to its \u{1b}[2Jout");
    std::fs::write(&mark, "").unwrap();
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "and more");
    let ended = tokio::time::timeout(WITHIN, child.wait_with_output()).await.unwrap().unwrap();
    assert!(ended.status.success() && ended.stderr.starts_with(b"to its err\n"), "{ended:?}");

    let unknown = site.call_with(&config, &["logs", "NTGithubRunner-nonsense"]).await.failed(1);
    assert!(
        unknown.contains("NTGithubRunner-nonsense") && unknown.contains("githubrunner list"),
        "{unknown}"
    );
    // The dead are there when they are asked for, with how they ended.
    let all = lists(&site, &config, &["-a"], "dead").await;
    assert!(all.contains("success"), "{all}");
    assert_eq!(site.call_with(&config, &["list", "-q"]).await.well(), "");
    let table = site.call_with(&config, &["list"]).await.well();
    assert!(!table.contains(&id) && table.contains("1 dead: -a"), "{table}");
}

#[tokio::test]
async fn list_shows_the_jobs_page_and_what_a_runner_waits_for() {
    let site = Site::start_with(githubrunner_sim::nomad::Options {
        nodes: Vec::new(),
        ..githubrunner_sim::nomad::Options::default()
    })
    .await;
    let job = site.queue(&["nomadtools"], 600_000);
    site.call(&["once"]).await;
    let out = site.call(&["list"]).await.well();
    let mut lines = out.lines();
    let head: Vec<&str> =
        lines.next().unwrap().split("  ").map(str::trim).filter(|word| !word.is_empty()).collect();
    assert_eq!(head, ["ID", "REPOSITORY", "LABELS", "STATE", "AGE", "NODE", "GITHUB JOB", "NOTE"]);
    let line = lines.next().unwrap();
    assert!(line.contains(&format!("/acme/app/runs/{job} ")), "{out}");
    assert!(line.contains(" pending ") && line.contains("no node is up"), "{out}");

    let names = |out: String| out.lines().count();
    assert_eq!(names(site.call(&["list", "-q"]).await.well()), 1);
    assert_eq!(names(site.call(&["list", "-q", "-r", "ACME"]).await.well()), 1);
    assert_eq!(names(site.call(&["list", "-q", "-r", "acme/other"]).await.well()), 0);
    assert_eq!(names(site.call(&["list", "-q", "--state", "running", "--state", "dead"]).await.well()), 0);
    let failed = site.call(&["list", "--state", "nonsense"]).await.failed(2);
    assert!(failed.contains("disconnected"), "it names them: {failed}");
    assert_eq!(site.status(job), Status::Queued);
}

#[tokio::test]
async fn a_watched_list_ends_with_a_signal() {
    let site = Site::start().await;
    let mut program = site.program();
    program.arg("-c").arg(site.write_config(&site.config(""))).args(["list", "--watch"]);
    let mut child = program.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next_line().await.unwrap().unwrap().starts_with("ID "));
    let id = child.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let status = tokio::time::timeout(WITHIN, child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
}
