//! Two classes of runners, one with a cap, and jobs that one of them denies.

use githubrunner_sim::github::Status;
use serde_json::Value;

use crate::common::site::{Site, until};

const CLASSES: &str = "
classes:
  - name: small
    match: {labels: nomadtools small}
    max_runners: 1
    nomad: {priority: 70}
  - name: denied
    match: {labels: nomadtools gpu}
    deny: ask the platform team
";

#[tokio::test]
async fn each_class_has_its_cap_its_placement_and_its_name_in_the_output() {
    let site = Site::start().await;
    // All of the simulated GitHub's repositories are public, and the template uses raw_exec.
    let config = site.config(&format!("public: allow\n{CLASSES}"));
    let small = [0, 1].map(|_| site.queue(&["nomadtools small"], 1500));
    let (other, denied) = (site.queue(&["nomadtools"], 1500), site.queue(&["nomadtools gpu"], 100));
    let plan = site.call_with(&config, &["plan"]).await.well();
    assert_eq!(plan.matches(", class small: ").count(), 1, "{plan}");
    assert!(plan.contains("waiting for a place: its class's max_runners is 1"), "{plan}");
    assert!(plan.contains("class denied denies it: ask the platform team"), "{plan}");

    let daemon = site.run(&config);
    site.in_progress(other).await;
    until(&site, "one of the small ones runs", || {
        small.iter().any(|job| site.status(*job) == Status::InProgress)
    })
    .await;
    assert_eq!(site.nomad_jobs().len(), 2, "{:?}", site.nomad_jobs());
    let list = site.call_with(&config, &["list", "--json"]).await.well();
    let list: Vec<Value> = serde_json::from_str(&list).unwrap();
    let classes: Vec<Option<&str>> = list.iter().map(|row| row["class"].as_str()).collect();
    assert!(classes.contains(&Some("small")) && classes.contains(&None), "{classes:?}");
    for job in small.into_iter().chain([other]) {
        site.served(job).await;
    }
    assert_eq!(site.status(denied), Status::Queued);
    until(&site, "nothing is left", || site.is_clean()).await;
    daemon.end().await;
    assert!(site.world().violations().is_empty());

    let check = site.call_with(&config, &["check"]).await.well();
    assert!(check.contains(" of class small renders for the label"), "{check}");
    assert!(!check.contains("class denied"), "who is denied gets no job to render: {check}");
    let explained =
        site.call_with(&config, &["explain", &format!("https://github.com/acme/app/runs/{denied}")]).await;
    assert!(explained.out.contains("ask the platform team"), "{}", explained.out);
}

#[tokio::test]
async fn a_job_that_can_reach_its_host_serves_no_public_repository_unless_allowed() {
    let site = Site::start().await;
    let config = site.config(CLASSES);
    let job = site.queue(&["nomadtools small"], 100);
    let error = site.call_with(&config, &["once"]).await.failed(1);
    assert!(error.contains("acme/app is public, and task") && error.contains("uses raw_exec"), "{error}");
    assert!(site.nomad_jobs().is_empty());
    // What would be refused is no start, but a hold.
    let plan = site.call_with(&config, &["plan"]).await.well();
    assert!(plan.contains("uses raw_exec") && plan.contains("Plan: nothing to do, 1 held."), "{plan}");
    let target = format!("https://github.com/acme/app/actions/runs/1/job/{job}");
    let explained = site.call_with(&config, &["explain", &target]).await;
    assert!(explained.out.contains("public: allow"), "{}", explained.out);
    let check = site.call_with(&config, &["check"]).await.well();
    assert!(check.contains("public repositories get runners of class small: no: task"), "{check}");
    // Without classes, and if it is allowed, nothing is refused.
    let allowed = site.config(&CLASSES.replace("max_runners: 1", "public: allow"));
    let daemon = site.run(&allowed);
    site.served(job).await;
    daemon.end().await;
}
