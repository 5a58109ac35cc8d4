//! Jobs that were lost with their runners, and runners that run for too long, on the simulated Nomad.

use std::time::Duration;

use githubrunner_sim::{
    fault::{Side, Verdict},
    github::{Conclusion, JobSpec, Status},
    nomad::{self, Node},
};

use crate::common::site::{Site, until};

/// Two nodes, and a GitHub that notices a lost runner at once.
async fn two_nodes() -> (Site, String) {
    let nodes = ["one", "two"].map(Node::named);
    let site = Site::start_with(nomad::Options { nodes: nodes.into(), ..nomad::Options::default() }).await;
    site.world().github.options_mut().lost_after = Duration::from_millis(1500);
    let config = site.config("rerun_lost: {enabled: true, per_job: 1}\n");
    (site, config)
}

fn rerun_marks(site: &Site) -> usize {
    site.world().nomad.variables().filter(|variable| variable.path.contains("/reruns/")).count()
}

/// The node of a job's runner loses power once the servers know that the runner is running.
async fn crash_its_node(site: &Site) {
    until(site, "the servers know of the runner", || {
        site.world().nomad.allocations().any(|a| a.client_status == "running")
    })
    .await;
    let mut world = site.world();
    let now = world.clock.now();
    let node = world.nomad.allocations().find(|a| a.client_status == "running").unwrap().node.clone();
    world.nomad.node_crash(&node, now);
    world.touch();
}

fn rerun_requests(site: &Site) -> u64 {
    site.world().requests().of(Side::GitHub, "POST /repos/{owner}/{repo}/actions/jobs/{id}/rerun")
}

#[tokio::test]
async fn a_job_that_was_lost_with_its_node_is_run_again_once() {
    let (site, config) = two_nodes().await;
    let daemon = site.run(&config);
    let job = site.queue(&["nomadtools"], 4000);
    site.in_progress(job).await;
    crash_its_node(&site).await;
    until(&site, "GitHub gives the job up", || site.status(job) == Status::Completed).await;
    daemon.says("rerun    ").await;
    until(&site, "its re-run succeeds", || site.attempt(job) == (2, Some(Conclusion::Success))).await;
    let lines = daemon.lines_with("running job");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("its node went down"), "{lines:?}");
    assert_eq!((rerun_marks(&site), rerun_requests(&site)), (1, 1));
    daemon.end().await;
}

#[tokio::test]
async fn a_crash_after_the_request_and_a_lost_answer_ask_for_no_second_one() {
    let (site, config) = two_nodes().await;
    // The request takes effect, but its response is lost.
    site.lie(|side, request, response| {
        if side == Side::GitHub && request.uri().path().ends_with("/rerun") {
            *response.status_mut() = hyper::StatusCode::BAD_GATEWAY;
        }
    });
    let daemon = site.run(&config);
    let job = site.queue(&["nomadtools"], 2000);
    site.in_progress(job).await;
    crash_its_node(&site).await;
    until(&site, "it is run again", || site.attempt(job).0 == 2).await;
    daemon.signal("KILL");
    drop(daemon);
    let daemon = site.run(&config);
    until(&site, "its re-run succeeds", || site.attempt(job) == (2, Some(Conclusion::Success))).await;
    assert_eq!((rerun_marks(&site), rerun_requests(&site)), (1, 1));
    daemon.end().await;
}

#[tokio::test]
async fn what_fails_by_itself_or_is_stopped_by_somebody_is_not_run_again() {
    let (site, config) = two_nodes().await;
    let config = config.replace("purge_failure_timeout: 1s", "purge_failure_timeout: 1h");
    let daemon = site.run(&config);
    let failing = JobSpec {
        conclusion: Conclusion::Failure,
        ..JobSpec::new(&["nomadtools"], Duration::from_millis(300))
    };
    let run = site.world().queue_run(site.repository, vec![failing]).unwrap();
    let failed = site.world().github.run(run).unwrap().jobs[0];
    until(&site, "it fails", || site.status(failed) == Status::Completed).await;
    let stopped = site.queue(&["nomadtools"], 600_000);
    site.in_progress(stopped).await;
    {
        let mut world = site.world();
        let now = world.clock.now();
        let running = world.nomad.allocations().find(|a| a.client_status == "running").unwrap().id.clone();
        world.nomad.stop_one(&running, now);
        world.touch();
    }
    until(&site, "it fails", || site.status(stopped) == Status::Completed).await;
    daemon.says("someone stopped its allocation").await;
    // A pass that has seen it, and another one.
    let third = site.queue(&["nomadtools"], 300);
    site.served(third).await;
    assert_eq!((site.attempt(failed).0, site.attempt(stopped).0), (1, 1));
    assert_eq!((rerun_marks(&site), rerun_requests(&site)), (0, 0));
    daemon.end().await;
}

#[tokio::test]
async fn servers_that_do_not_know_max_run_duration_get_a_job_without_it_and_check_tells_of_missing_rights() {
    let site = Site::start().await;
    site.fault(|_, _| Verdict::Pass);
    let config = site.config("rerun_lost: {enabled: true}\n");
    let check = site.call_with(&config, &["check"]).await.well();
    assert!(check.contains("acme/app: jobs can be run again"), "{check}");
    let limited = config.replace("scheduler: {", "scheduler: {max_run_duration: 6h, ");
    let rendered = site.call_with(&limited, &["render", "nomadtools"]).await.well();
    assert!(rendered.contains("max_run_duration = \"21600s\""), "{rendered}");
    let rendered = site.call_with(&config, &["render", "nomadtools"]).await.well();
    assert!(!rendered.contains("max_run_duration"), "{rendered}");
    // An old server's parser.
    site.lie(|side, request, response| {
        let body = String::from_utf8_lossy(request.body());
        let parses = side == Side::Nomad && request.uri().path() == "/v1/jobs/parse";
        if parses && body.contains("max_run_duration") {
            *response.status_mut() = hyper::StatusCode::BAD_REQUEST;
            *response.body_mut() = "job.hcl:6,5-21: Unsupported argument; An argument named \"max_run_duration\" is not expected here.".into();
        }
    });
    let daemon = site.run(&limited);
    for _ in 0..2 {
        let job = site.queue(&["nomadtools"], 300);
        site.served(job).await;
    }
    let said = daemon.lines_with("Nomad does not know max_run_duration");
    assert_eq!(said.len(), 1, "{said:?}");
    daemon.end().await;
}
