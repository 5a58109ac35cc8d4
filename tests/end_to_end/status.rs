//! The program's status port: what it reports, and to whom.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use crate::common::site::{Running, Site, TOKEN, until};

const STATUS_TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Its address.
async fn address(daemon: &Running) -> String {
    daemon.says("status on http://").await;
    let line = daemon.lines_with("status on http://").remove(0);
    line.split("status on http://").nth(1).unwrap().trim().to_owned()
}

fn get(address: &str, path: &str, more: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\n{more}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test]
async fn list_says_in_the_daemons_words_why_a_runner_gets_no_job() {
    let site = Site::start().await;
    let config = site.config("status: {listen: '127.0.0.1:0'}\n");
    let daemon = site.run(&config.replace("scheduler: {", "scheduler: {unassigned_timeout: 1s, "));
    let address = address(&daemon).await;
    let job = site.never_assigned();
    daemon.says("though its job is queued").await;
    let list = site.call(&["list", "--address", &address]).await.well();
    let line = list.lines().find(|line| line.contains(&format!("/runs/{job} "))).unwrap_or_default();
    assert!(line.contains(" running ") && line.contains("though its job is queued"), "{list}");
    // Without the daemon, the reason is unknown. That is no error unless the daemon was asked for.
    let alone = site.call(&["list"]).await.well();
    assert!(alone.contains(" running ") && !alone.contains("though"), "{alone}");
    let failed = site.call(&["list", "--address", "127.0.0.1:1"]).await.failed(1);
    assert!(failed.contains("asking the daemon for its status"), "{failed}");
}

#[tokio::test]
async fn a_served_job_is_in_metrics_page_and_state_and_no_token_is() {
    let site = Site::start().await;
    let daemon = site.run(&site.config("status: {listen: '127.0.0.1:0'}\n"));
    let address = address(&daemon).await;
    // After the first pass, everything is measured.
    until(&site, "the first pass is over", || !get(&address, "/readyz", "").starts_with("HTTP/1.1 503"))
        .await;
    // Shorter than the interval between two polls: GitHub's own times are used.
    let job = site.queue(&["nomadtools"], 100);
    site.served(job).await;
    let taken = "githubrunner_job_queued_to_taken_seconds_count 1\n";
    until(&site, "the job was measured", || get(&address, "/metrics", "").contains(taken)).await;
    let metrics = get(&address, "/metrics", "");
    assert!(metrics.contains("githubrunner_job_duration_seconds_count 1\n"), "{metrics}");
    let issues =
        "githubrunner_actions_total{action=\"issue_credentials\",outcome=\"done\",reason=\"jit\"} 1\n";
    assert!(metrics.contains(issues), "{metrics}");
    for line in
        ["host=\"github\",route=\"/repos/{owner}/{repo}/actions/runs\"", "host=\"nomad\",route=\"/v1/jobs\""]
    {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    // The program asks the daemon too, by an address alone and by a configuration.
    let mut program = site.program();
    let out = program.args(["status", "--address", &address]).output().await.unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success() && text.contains("Nomad         up for "), "{text}");
    let config = site.config(&format!("status: {{listen: '{address}'}}\n"));
    let json = site.call_with(&config, &["status", "--json"]).await.well();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(json["revision"].as_u64().is_some_and(|passes| passes > 0), "{json:#}");
    let failed = site.call(&["status"]).await.failed(2);
    assert!(failed.contains("has no status.listen") && failed.contains("--address"), "{failed}");
    let nobody = site.program().arg("status").output().await.unwrap();
    assert!(nobody.status.code() == Some(2) && String::from_utf8_lossy(&nobody.stderr).contains("--address"));
    let (page, state) = (get(&address, "/", ""), get(&address, "/api/v1/state", ""));
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("acme&#x2f;app"), "{page}");
    assert!(state.contains("\"credential\":\"token\""), "{state}");
    for told in [metrics, page, state] {
        assert!(!told.contains(TOKEN), "{told}");
    }
    daemon.end().await;
}

#[tokio::test]
async fn an_exposed_page_is_closed_without_a_token_and_the_start_logs_it() {
    let site = Site::start().await;
    let daemon = site.run(&site.config("status: {listen: '0.0.0.0:0'}\n"));
    daemon.says("the page and the API are closed").await;
    let open = address(&daemon).await.replace("0.0.0.0", "127.0.0.1");
    assert!(get(&open, "/", "").starts_with("HTTP/1.1 403"));
    assert!(get(&open, "/healthz", "").starts_with("HTTP/1.1 200"));
    daemon.end().await;
    let config = site.config(&format!("status: {{listen: '0.0.0.0:0', token: {STATUS_TOKEN}}}\n"));
    let daemon = site.run(&config);
    let open = address(&daemon).await.replace("0.0.0.0", "127.0.0.1");
    assert!(get(&open, "/", "").starts_with("HTTP/1.1 401"));
    assert!(
        get(&open, "/", &format!("authorization: Bearer {STATUS_TOKEN}\r\n")).starts_with("HTTP/1.1 200")
    );
    let log = daemon.end().await;
    assert!(!log.iter().any(|line| line.contains(STATUS_TOKEN) || line.contains("are closed")), "{log:?}");
}
