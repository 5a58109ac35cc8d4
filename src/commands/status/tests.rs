use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::status::{Access, Snapshot, Status, serve};

fn config(yaml: &str) -> StatusConfig {
    let yaml = format!("repos: [acme]\ntemplate: builtin:docker\ngithub: {{token: t}}\n{yaml}\n");
    crate::config::Config::load(&yaml, &|_| None).unwrap().status
}

async fn port() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// What `status` prints about the daemon at this address, and the exit code.
async fn says(address: SocketAddr, token: Option<&str>, json: bool) -> anyhow::Result<(Exit, String)> {
    let config = StatusConfig { token: token.map(Secret::new), ..StatusConfig::default() };
    let mut out = Vec::new();
    let daemon = Daemon::new(Some(&address.to_string()), &config)?;
    let exit = daemon.show(json, Style::default(), &mut out).await?;
    Ok((exit, String::from_utf8(out).unwrap()))
}

async fn error(address: SocketAddr, token: Option<&str>) -> String {
    format!("{:#}", says(address, token, false).await.unwrap_err())
}

/// A server that gives every request this response.
async fn answers(answer: &'static str) -> SocketAddr {
    let (listener, address) = port().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    address
}

#[tokio::test]
async fn a_daemon_that_reaches_nothing_is_unhealthy_and_one_that_does_is_healthy() {
    let (listener, address) = port().await;
    let status = Status::new(Duration::from_secs(60));
    status.open_to(Access::Public);
    tokio::spawn(serve(listener, status.clone()));
    let (exit, out) = says(address, None, false).await.unwrap();
    assert_eq!(exit, Exit::FAILED, "{out}");
    for line in ["last pass     none yet", "Nomad         not reached yet", "runners       none"] {
        assert!(out.contains(line), "{line}: {out}");
    }

    let seen = Snapshot {
        at: jiff::Timestamp::now(),
        nomad_seen: true,
        repositories: Some((2, 3)),
        leads: true,
        errors: vec!["acme/x:\u{1b}[2J 502".to_owned()],
        ..Snapshot::default()
    };
    status.record(seen);
    let (exit, out) = says(address, None, false).await.unwrap();
    assert_eq!(exit, Exit::WELL, "{out}");
    let version = env!("CARGO_PKG_VERSION");
    assert!(
        out.starts_with(&format!("githubrunner {version} at http://{address}: leader, up for ")),
        "{out}"
    );
    for line in
        ["Nomad         up for 0s", "repositories  2 of 3 listed", "error         acme/x:\\u{1b}[2J 502"]
    {
        assert!(out.contains(line), "{line}: {out}");
    }

    let (_, json) = says(address, None, true).await.unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["repositories"]["all"], 3);
    assert_eq!(json["revision"], 1, "all that the daemon says");
}

#[tokio::test]
async fn waiting_jobs_and_failures_are_shown_with_their_reasons() {
    let state = serde_json::json!({
        "program": {"version": "9", "started_at": "2026-01-01T00:00:00Z"},
        "now": "2026-01-01T02:00:00Z", "revision": 7, "leads": false,
        "last_pass": {"at": "2026-01-01T01:59:58Z", "took_seconds": 0.25, "errors": []},
        "nomad": {"seen": true, "since": "2026-01-01T00:00:00Z"},
        "github": {"seen": false, "since": "2026-01-01T01:00:00Z"},
        "repositories": {"all": 1, "listed": 1},
        "classes": [{"name": "gpu", "queued": 30, "held": 1, "running": 0, "runners": 2}],
        "jobs": {"queued": 30, "held": 1, "running": 0, "waiting": {"total": 31, "items":
            (0..31).map(|id| serde_json::json!({
                "repository": "acme/app", "id": id, "name": "b", "labels": "l", "state": "held", "waits_seconds": 61,
                "reason": {"word": "cap_all", "text": format!("cap {id}"), "since": "2026-01-01T00:00:00Z"}, "runner": null,
            })).collect::<Vec<_>>()}},
        "runners": {"by_state": {"running": 2, "dead": 0}, "list": {"total": 2, "items": []}},
        "holds": {"total": 1, "items": [{"about": "nomad", "subject": "Nomad", "reason": {"text": "no leader"}}]},
        "plan": {"total": 0, "items": []},
        "events": [{"at": "2026-01-01T01:00:00Z", "kind": "action", "failed": true, "runner": null, "text": "start: 500"}],
        "rate_limits": [{"credential": "token", "bucket": "core", "limit": 5000, "remaining": 10, "reset": 1767236400}],
        "points_per_minute": 12,
        "history": {"queue_p50_seconds": 3.0, "queue_p95_seconds": 75.0, "points": []},
        "of_a_later_version": 1,
    });
    let view: View = serde_json::from_value(state).unwrap();
    assert!(!view.is_well());
    let mut out = Vec::new();
    print::table(&view, "http://127.0.0.1:9090", Style::default(), &mut out).unwrap();
    let out = String::from_utf8(out).unwrap();
    for words in [
        "standby, up for 2h",
        "last pass     2s ago, took 0.25 s",
        "GitHub        UNREACHABLE for 1h",
        "queue time    p50 3s, p95 1m15s in the last hour",
        "10 of 5000 left (token core, resets in 1h)",
        "runners       2 running\n",
        "held   1m1s   cap 19\n… 11 more jobs are waiting; --json",
        "nomad  Nomad    no leader",
        "CLASS  QUEUED  HELD  RUNNING  RUNNERS\ngpu    30      1     0        2\n",
        "01:00:00Z  start: 500",
    ] {
        assert!(out.contains(words), "{words}: {out}");
    }
}

#[tokio::test]
async fn responses_of_other_servers_are_reported_as_such() {
    let (listener, free) = port().await;
    drop(listener);
    let nobody = error(free, None).await;
    assert!(nobody.contains("cannot connect") && nobody.contains("`githubrunner run`"), "{nobody}");

    let (listener, address) = port().await;
    let status = Status::new(Duration::from_secs(60));
    status.open_to(Access::Token(Secret::new("0123456789abcdef")));
    tokio::spawn(serve(listener, status.clone()));
    let without = error(address, None).await;
    assert!(without.contains("401") && without.contains("GITHUBRUNNER_STATUS_TOKEN"), "{without}");
    let wrong = error(address, Some("fedcba9876543210")).await;
    assert!(wrong.contains("status.token differs") && !wrong.contains("fedcba"), "{wrong}");
    assert!(says(address, Some("0123456789abcdef"), false).await.is_ok());
    status.open_to(Access::Closed);
    let closed = error(address, None).await;
    assert!(closed.contains("403") && closed.contains("set status.token"), "{closed}");

    for (answer, words) in [
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "status 404"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>", "the response is not JSON"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", "the JSON is not a daemon's state"),
    ] {
        let said = error(answers(answer).await, None).await;
        assert!(said.contains("does not serve githubrunner's status") && said.contains(words), "{said}");
    }
    let said = error(answers("SSH-2.0-OpenSSH_9.2\r\n").await, None).await;
    assert!(said.starts_with("asking the daemon for its status: GET http://"), "{said}");
}

#[test]
fn the_configurations_address_is_used_as_seen_from_the_same_machine() {
    let of = |yaml: &str| configured(&config(yaml)).map_err(|error| error.to_string());
    assert_eq!(of("status: {listen: '0.0.0.0:9090', public: true}").unwrap(), "http://127.0.0.1:9090");
    assert_eq!(of("status: {listen: '[::]:9090', public: true}").unwrap(), "http://[::1]:9090");
    assert_eq!(of("status: {listen: '10.1.2.3:80'}").unwrap(), "http://10.1.2.3:80");
    assert!(of("").unwrap_err().contains("has no status.listen"));
    assert!(of("status: {listen: '127.0.0.1:0'}").unwrap_err().contains("--address"));
    assert_eq!(with_scheme("ci.example.com:9090"), "http://ci.example.com:9090");
    assert_eq!(with_scheme("https://ci.example.com/x"), "https://ci.example.com/x");
    let nonsense = Daemon::new(Some("ftp://x"), &StatusConfig::default()).unwrap_err();
    assert!(format!("{nonsense:#}").starts_with("--address: "), "{nonsense:#}");
}
