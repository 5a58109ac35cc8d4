//! If GitHub or Nomad fails, the log has a line, the next pass retries, and nothing is scaled down.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use githubrunner_sim::{
    fault::{Side, Verdict},
    github::Status,
    nomad,
};
use hyper::Response;
use jiff::Timestamp;

use crate::common::site::{Site, until};

/// A busy runner, then one side fails, then a second job; the fault ends and everything continues.
async fn survives(broken: Side, verdict: impl Fn() -> Verdict + Send + 'static, says: &str) {
    let site = Site::start().await;
    let busy = site.queue(&["nomadtools"], 12_000);
    let mut daemon = site.run(&site.config(""));
    site.in_progress(busy).await;

    site.fault(move |side, request| {
        // The runners themselves still work here.
        let runners = request.uri().path().starts_with("/_runner");
        if side == broken && !runners { verdict() } else { Verdict::Pass }
    });
    let job = site.queue(&["nomadtools"], 300);
    daemon.says(says).await;
    assert!(daemon.is_alive());
    assert_eq!(site.nomad_jobs().len(), 1, "neither started nor stopped:\n{}", daemon.log().join("\n"));
    assert_eq!(site.status(busy), Status::InProgress);

    site.no_fault();
    site.served(job).await;
    site.served(busy).await;
    until(&site, "nothing is left", || site.is_clean()).await;
    assert!(site.world().violations().is_empty());
    daemon.end().await;
}

#[tokio::test]
async fn it_survives_500_from_github() {
    survives(Side::GitHub, || Verdict::status(500, "{\"message\": \"Server Error\"}"), "500").await;
}

#[tokio::test]
async fn it_survives_500_from_nomad() {
    survives(Side::Nomad, || Verdict::status(500, "No cluster leader"), "No cluster leader").await;
}

#[tokio::test]
async fn it_survives_closed_connections_to_github() {
    survives(Side::GitHub, || Verdict::Reset, "ERROR").await;
}

#[tokio::test]
async fn it_survives_closed_connections_to_nomad() {
    survives(Side::Nomad, || Verdict::Reset, "ERROR").await;
}

#[tokio::test]
async fn it_survives_truncated_responses() {
    survives(Side::GitHub, || Verdict::Truncate(20), "ERROR").await;
}

/// The first request to a side never gets a response: its deadline passes, and the next one succeeds.
async fn outwaits(stalled: Side) {
    let site = Site::start().await;
    let job = site.queue(&["nomadtools"], 300);
    let first = AtomicU64::new(0);
    site.fault(move |side, _| {
        if side == stalled && first.fetch_add(1, Ordering::SeqCst) == 0 {
            Verdict::Stall
        } else {
            Verdict::Pass
        }
    });
    let daemon = site.run(&site.config(""));
    until(&site, "the stalled request is given up", || site.world().requests().total(stalled) > 1).await;
    site.served(job).await;
    daemon.end().await;
}

#[tokio::test]
async fn stalled_responses_time_out() {
    tokio::join!(outwaits(Side::GitHub), outwaits(Side::Nomad));
}

#[tokio::test]
async fn it_waits_for_servers_that_start_later() {
    let (site, mut reserved) = Site::absent();
    let job = site.queue(&["nomadtools"], 300);
    let mut daemon = site.run(&site.config(""));
    daemon.says(&site.nomad.replace("http://", "")).await;
    reserved.nomad(&site);
    daemon.says(&site.github.replace("http://", "")).await;
    assert!(daemon.is_alive());
    assert!(site.nomad_jobs().is_empty());
    reserved.github(&site);
    site.served(job).await;
    until(&site, "nothing is left", || site.is_clean()).await;
    daemon.end().await;
}

#[tokio::test]
async fn at_a_rate_limit_it_sends_no_requests_until_the_reset_and_logs_it_once() {
    let site = Site::start().await;
    let job = site.queue(&["nomadtools"], 300);
    let limited = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&limited);
    let reset = Timestamp::now().as_second() + 5;
    site.fault(move |side, _| {
        if side == Side::Nomad || Timestamp::now().as_second() >= reset {
            return Verdict::Pass;
        }
        count.fetch_add(1, Ordering::SeqCst);
        let mut answer = Response::new(Bytes::from_static(b"{\"message\": \"API rate limit exceeded\"}"));
        *answer.status_mut() = hyper::StatusCode::FORBIDDEN;
        let date = httpdate::fmt_http_date(std::time::SystemTime::now());
        let headers = [
            ("x-ratelimit-limit", "5000".to_owned()),
            ("x-ratelimit-remaining", "0".to_owned()),
            ("x-ratelimit-used", "5000".to_owned()),
            ("x-ratelimit-resource", "core".to_owned()),
            ("x-ratelimit-reset", reset.to_string()),
            ("date", date),
        ];
        for (name, value) in headers {
            answer.headers_mut().insert(name, value.parse().unwrap());
        }
        Verdict::Answer(answer)
    });
    let daemon = site.run(&site.config(""));
    site.served(job).await;
    let log = daemon.end().await;
    let limited = limited.load(Ordering::SeqCst);
    assert!((1..=4).contains(&limited), "asked {limited} times during the limit:\n{}", log.join("\n"));
    let said: Vec<&String> = log.iter().filter(|line| line.contains("limit")).collect();
    assert!((1..=2).contains(&said.len()), "{}", log.join("\n"));
}

#[tokio::test]
async fn a_wrong_token_is_logged_and_the_daemon_keeps_running() {
    let site = Site::start().await;
    let job = site.queue(&["nomadtools"], 300);
    let wrong = site.config("").replace("ghp_of_the_end_to_end_tests", "ghp_mistyped_token");
    let mut daemon = site.run(&wrong);
    daemon.says("401").await;
    assert!(daemon.is_alive());
    // With the right token it continues.
    site.write_config(&site.config(""));
    daemon.signal("HUP");
    site.served(job).await;
    let log = daemon.end().await.join("\n");
    assert!(!log.contains("ghp_"), "{log}");

    let failed = site.call_with(&wrong, &["once"]).await;
    assert!(failed.err.contains("401"), "{}", failed.err);
    assert_eq!(failed.code, 1);
}

#[tokio::test]
async fn a_missing_namespace_is_logged_with_what_to_do() {
    let site = Site::start().await;
    site.queue(&["nomadtools"], 300);
    let missing = site.config("nomad: {namespace: nowhere}\n");
    for command in [&["once"][..], &["list"]] {
        let err = site.call_with(&missing, command).await.failed(1);
        assert!(err.contains("nomad namespace apply nowhere"), "{command:?}: {err}");
    }
    let mut daemon = site.run(&missing);
    daemon.says("nomad namespace apply nowhere").await;
    assert!(daemon.is_alive());
    daemon.end().await;
    assert!(site.nomad_jobs().is_empty());
}

#[tokio::test]
async fn once_reports_a_failure_by_its_exit_code() {
    let site = Site::start().await;
    site.queue(&["nomadtools"], 300);
    for broken in [Side::GitHub, Side::Nomad] {
        site.fault(
            move |side, _| if side == broken { Verdict::status(500, "broken") } else { Verdict::Pass },
        );
        let err = site.call(&["once"]).await.failed(1);
        assert!(err.contains("broken"), "{err}");
    }
    // It also reports a failure that is only the start of its runner.
    site.fault(|side, request| {
        let registers = request.method() == hyper::Method::PUT && request.uri().path() == "/v1/jobs";
        if side == Side::Nomad && registers {
            Verdict::status(500, "1 error occurred:\n\t* bad")
        } else {
            Verdict::Pass
        }
    });
    let err = site.call(&["once"]).await.failed(1);
    assert!(err.contains("bad"), "{err}");
    site.no_fault();
    site.call(&["once"]).await.well();
}

#[tokio::test]
async fn a_token_that_nomad_refuses_is_logged_with_what_to_do() {
    let site = Site::start_with(nomad::Options { acl: true, ..nomad::Options::default() }).await;
    let err = site.call(&["list"]).await.failed(1);
    assert!(err.contains("NOMAD_TOKEN"), "{err}");
}
