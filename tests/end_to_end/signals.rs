//! Signals: it ends within a second whatever is in progress, and reloads its configuration.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use githubrunner_sim::{
    fault::{Side, Verdict},
    github::Status,
};

use crate::common::site::{Site, until};

#[tokio::test]
async fn it_ends_within_a_second_while_it_waits() {
    let site = Site::start().await;
    for signal in ["TERM", "INT"] {
        let daemon = site.run(&site.config("").replace("loop: 1", "loop: 3600"));
        let before = site.requests(Side::GitHub);
        until(&site, "a pass was made", || site.requests(Side::GitHub) > before + 1).await;
        daemon.end_by(signal).await;
    }
}

#[tokio::test]
async fn it_ends_within_a_second_in_the_middle_of_a_pass() {
    for stalled in [Side::GitHub, Side::Nomad] {
        let site = Site::start().await;
        let reached = Arc::new(AtomicBool::new(false));
        let reach = Arc::clone(&reached);
        site.fault(move |side, _| {
            if side != stalled {
                return Verdict::Pass;
            }
            reach.store(true, Ordering::SeqCst);
            Verdict::Stall
        });
        let daemon = site.run(&site.config(""));
        until(&site, "an answer stalls", || reached.load(Ordering::SeqCst)).await;
        daemon.end().await;
    }
}

#[tokio::test]
async fn it_ends_within_a_second_in_the_middle_of_a_registration_and_continues_later() {
    let site = Site::start().await;
    let job = site.queue(&["nomadtools"], 300);
    let reached = Arc::new(AtomicBool::new(false));
    let reach = Arc::clone(&reached);
    site.fault(move |_, request| {
        if !request.uri().path().ends_with("/generate-jitconfig") {
            return Verdict::Pass;
        }
        reach.store(true, Ordering::SeqCst);
        Verdict::Stall
    });
    let daemon = site.run(&site.config(""));
    until(&site, "a registration stalls", || reached.load(Ordering::SeqCst)).await;
    daemon.end().await;
    assert_eq!(site.nomad_jobs().len(), 1);

    site.no_fault();
    let daemon = site.run(&site.config(""));
    site.served(job).await;
    until(&site, "nothing is left", || site.is_clean()).await;
    daemon.end().await;
}

#[tokio::test]
async fn sighup_passes_at_once_with_the_new_configuration() {
    let site = Site::start().await;
    let config = site.config("").replace("loop: 1", "loop: 3600");
    let daemon = site.run(&config.replace("acme/app", "acme/nothing"));
    daemon.says("acme/nothing").await;
    let job = site.queue(&["nomadtools"], 300);
    site.write_config(&config);
    daemon.signal("HUP");
    daemon.says("reloaded the configuration").await;
    site.served(job).await;
    daemon.end().await;
}

#[tokio::test]
async fn sighup_with_an_invalid_configuration_keeps_the_old_one_and_logs_why() {
    let site = Site::start().await;
    let daemon = site.run(&site.config("").replace("loop: 1", "loop: 3600"));
    until(&site, "a pass was made", || site.requests(Side::GitHub) > 1).await;
    let job = site.queue(&["nomadtools"], 300);
    site.write_config("repos: [acme/app]\nlopo: 1\n");
    daemon.signal("HUP");
    daemon.says("keeping the old configuration").await;
    let said = daemon.lines_with("lopo");
    assert!(!said.is_empty(), "{}", daemon.log().join("\n"));
    // It still makes a pass at once with the old one.
    site.served(job).await;
    assert_eq!(site.status(job), Status::Completed);
    daemon.end().await;
}
