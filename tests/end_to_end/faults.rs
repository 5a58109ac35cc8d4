//! A GitHub or a Nomad that fails: a line in the log, the next pass tries again, nothing is scaled down.

use bytes::Bytes;
use githubrunner_sim::fault::{Side, Verdict};
use githubrunner_sim::github::Status;
use githubrunner_sim::nomad;
use hyper::Response;
use jiff::Timestamp;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::common::site::{Site, until};

/// A busy runner, then one side fails, then a second job; the fault ends and all goes on.
async fn survives(broken: Side, verdict: impl Fn() -> Verdict + Send + 'static, says: &str) {
    let site = Site::start().await;
    let busy = site.queue(&["nomadtools"], 12_000);
    let mut daemon = site.run(&site.config(""));
    site.in_progress(busy).await;

    site.fault(move |side, request| {
        // Runners are not what is broken here.
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
async fn github_answers_500() {
    survives(Side::GitHub, || Verdict::status(500, "{\"message\": \"Server Error\"}"), "500").await;
}

#[tokio::test]
async fn nomad_answers_500() {
    survives(Side::Nomad, || Verdict::status(500, "No cluster leader"), "No cluster leader").await;
}

#[tokio::test]
async fn github_closes_connections() {
    survives(Side::GitHub, || Verdict::Reset, "ERROR").await;
}

#[tokio::test]
async fn nomad_closes_connections() {
    survives(Side::Nomad, || Verdict::Reset, "ERROR").await;
}

#[tokio::test]
async fn answers_are_cut_short() {
    survives(Side::GitHub, || Verdict::Truncate(20), "ERROR").await;
}

/// The first request of a side never gets an answer: its deadline passes, and the next one goes well.
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
async fn stalled_answers_are_given_up() {
    tokio::join!(outwaits(Side::GitHub), outwaits(Side::Nomad));
}

#[tokio::test]
async fn nobody_is_there_at_first() {
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
async fn at_a_rate_limit_it_stops_asking_until_the_reset_and_says_so_once() {
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
async fn a_wrong_token_is_told_and_the_daemon_stays() {
    let site = Site::start().await;
    let job = site.queue(&["nomadtools"], 300);
    let wrong = site.config("").replace("ghp_of_the_end_to_end_tests", "ghp_mistyped_token");
    let mut daemon = site.run(&wrong);
    daemon.says("401").await;
    assert!(daemon.is_alive());
    // With the right one it goes on.
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
async fn a_namespace_that_does_not_exist_is_told_with_what_to_do() {
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
async fn once_tells_a_failure_by_its_exit_code() {
    let site = Site::start().await;
    site.queue(&["nomadtools"], 300);
    for broken in [Side::GitHub, Side::Nomad] {
        site.fault(
            move |side, _| if side == broken { Verdict::status(500, "broken") } else { Verdict::Pass },
        );
        let err = site.call(&["once"]).await.failed(1);
        assert!(err.contains("broken"), "{err}");
    }
    // One that fails only to start its runner, too.
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
async fn nomad_refuses_a_token_with_words_that_help() {
    let site = Site::start_with(nomad::Options { acl: true, ..nomad::Options::default() }).await;
    let err = site.call(&["list"]).await.failed(1);
    assert!(err.contains("NOMAD_TOKEN"), "{err}");
}
