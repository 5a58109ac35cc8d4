//! `run`, `once` and `plan` without faults.

use std::time::Duration;

use githubrunner_sim::{
    fault::{Side, Verdict},
    github::{JobSpec, Status},
    nomad,
};

use crate::common::site::{Site, until};

#[tokio::test]
async fn a_queued_job_is_served_and_everything_purged() {
    let site = Site::start().await;
    let job = site.queue(&["nomadtools"], 300);
    let daemon = site.run(&site.config(""));
    site.served(job).await;
    until(&site, "nothing is left", || site.is_clean()).await;
    let log = daemon.end().await;
    assert!(site.world().violations().is_empty());
    for word in ["start ", "issue ", "purge "] {
        assert!(log.iter().any(|line| line.contains(word)), "{word:?} in {}", log.join("\n"));
    }
}

#[tokio::test]
async fn each_job_gets_one_runner_with_its_labels() {
    let site = Site::start().await;
    // No runner has all the labels of another job.
    let labels: [&[&str]; 4] =
        [&["nomadtools a"], &["nomadtools mem=2000"], &["NomadTools A"], &["nomadtools", "gpu"]];
    let jobs = labels.map(|labels| site.queue(labels, 1500));
    let daemon = site.run(&site.config("runson_match: \"(?i)nomadtools *(.*)\"\n"));
    for job in jobs {
        site.in_progress(job).await;
    }
    assert_eq!(site.nomad_jobs().len(), jobs.len());
    for job in jobs {
        site.served(job).await;
    }
    until(&site, "nothing is left", || site.is_clean()).await;
    assert!(site.world().violations().is_empty());
    daemon.end().await;
}

#[tokio::test]
async fn a_job_that_requests_no_runner_of_ours_gets_none() {
    let site = Site::start().await;
    let other = site.queue(&["ubuntu-latest"], 100);
    let ours = site.queue(&["nomadtools"], 100);
    let daemon = site.run(&site.config(""));
    site.served(ours).await;
    until(&site, "nothing is left", || site.is_clean()).await;
    assert_eq!(site.status(other), Status::Queued);
    daemon.end().await;
}

#[tokio::test]
async fn a_runner_waits_for_capacity_and_then_serves() {
    let node = nomad::Node { memory_mb: 3000, ..nomad::Node::default() };
    let site = Site::start_with(nomad::Options { nodes: vec![node], ..nomad::Options::default() }).await;
    let jobs = [0, 1].map(|_| site.queue(&["nomadtools mem=2000"], 1500));
    let daemon = site.run(&site.config(""));
    until(&site, "one is in progress, two are in Nomad", || {
        jobs.iter().any(|job| site.status(*job) == Status::InProgress) && site.nomad_jobs().len() == 2
    })
    .await;
    // A runner without capacity uses up no registration.
    assert_eq!(site.world().github.runners().count(), 1);
    daemon.says("memory").await;
    for job in jobs {
        site.served(job).await;
    }
    daemon.end().await;
}

#[tokio::test]
async fn a_surplus_runner_is_stopped_with_consent() {
    let site = Site::start().await;
    let job = site.queue(&["nomadtools"], 300);
    let run = site.world().github.job(job).unwrap().run;
    let daemon = site.run(&site.config("").replace("scheduler: {", "scheduler: {strict: true, "));
    until(&site, "a runner is there", || !site.secrets().is_empty()).await;
    {
        let mut world = site.world();
        let now = world.clock.now();
        assert!(world.github.cancel_run(run, now));
        world.touch();
    }
    until(&site, "nothing is left", || site.is_clean()).await;
    assert!(site.world().violations().is_empty());
    daemon.end().await;
}

#[tokio::test]
async fn once_waits_until_its_runners_have_their_credentials() {
    let site = Site::start().await;
    let jobs = [0, 1, 2].map(|_| site.queue(&["nomadtools"], 60_000));
    site.call(&["once"]).await.well();
    // The program has ended, so what is missing now would never come.
    assert_eq!(site.nomad_jobs().len(), jobs.len());
    assert_eq!(site.secrets().len(), jobs.len());
    for job in jobs {
        site.in_progress(job).await;
    }
    let log = site.call(&["once"]).await;
    assert_eq!(log.code, 0);
    assert_eq!(site.nomad_jobs().len(), jobs.len(), "a second time starts none:\n{}", log.err);
}

#[tokio::test]
async fn plan_shows_what_would_be_done_and_does_nothing() {
    let site = Site::start().await;
    site.queue(&["nomadtools"], 1000);
    site.queue(&["nomadtools # cpu=1"], 1000);
    let plan = site.call(&["plan"]).await;
    assert_eq!(plan.err, "", "each line is told once, on standard output");
    let out = plan.well();
    assert!(out.contains("start ") && out.contains("acme/app"), "{out}");
    assert!(out.contains("hold ") && out.contains("labels"), "{out}");
    // The output reads like `nomad job plan`.
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with("+ start ") && lines[1].starts_with("= hold "), "{out}");
    assert_eq!(lines[2..], ["Plan: 1 to start, 0 to stop, 0 to purge or clean up, 1 held."], "{out}");
    assert_eq!(site.writes(), Vec::<String>::new());
    assert!(!site.cache_file().exists());
}

#[tokio::test]
async fn the_exit_code_of_plan_says_whether_there_is_something_to_do() {
    let site = Site::start().await;
    let detailed = ["plan", "--detailed-exitcode"];
    let nothing = site.call(&detailed).await;
    assert_eq!((nothing.code, nothing.out.as_str()), (0, "Plan: nothing to do.\n"), "{}", nothing.err);
    site.queue(&["nomadtools"], 60_000);
    assert_eq!(site.call(&detailed).await.code, 2);
    assert_eq!(site.call(&["plan"]).await.code, 0, "without the flag it is no failure");

    // A repository that cannot be listed is reported once, as a hold, and is an error.
    site.fault(|_, request| match request.uri().path().ends_with("/actions/runs") {
        true => Verdict::status(403, r#"{"message": "Resource not accessible"}"#),
        false => Verdict::Pass,
    });
    let unseen = site.call(&detailed).await;
    let said = format!("{}{}", unseen.out, unseen.err);
    assert_eq!(unseen.code, 1, "{said}");
    assert_eq!(said.matches("Resource not accessible").count(), 1, "{said}");
    assert!(unseen.out.starts_with("= hold     acme/app  could not be listed"), "{said}");
}

#[tokio::test]
async fn plan_points_out_label_keys_that_the_template_does_not_read() {
    let site = Site::start().await;
    for _ in 0..2 {
        site.queue(&["nomadtools memmax=2000"], 1000);
    }
    site.queue(&["nomadtools mem=1000"], 1000);
    let out = site.call(&["plan"]).await.well();
    let notes: Vec<&str> = out.lines().filter(|line| line.starts_with("note ")).collect();
    assert_eq!(
        notes,
        ["note  nomadtools memmax=2000: the template does not read memmax=; did you mean maxmem="],
        "{out}"
    );
}

#[tokio::test]
async fn a_dry_run_reports_the_same_and_does_nothing() {
    let site = Site::start().await;
    site.queue(&["nomadtools"], 1000);
    let err = site.call(&["-n", "once"]).await;
    assert_eq!(err.code, 0);
    assert!(err.err.contains("start ") && err.err.contains("dry run"), "{}", err.err);

    let daemon = site.run_with(&site.config(""), &["--dry-run"]);
    daemon.says("dry run").await;
    let passes = site.world().requests().of(Side::Nomad, "GET /v1/jobs");
    until(&site, "two more passes", || site.world().requests().of(Side::Nomad, "GET /v1/jobs") >= passes + 2)
        .await;
    daemon.end().await;
    assert_eq!(site.writes(), Vec::<String>::new());
}

#[tokio::test]
async fn the_daemon_finds_its_runners_again_after_a_restart() {
    let site = Site::start().await;
    let job = site.queue(&["nomadtools"], 2500);
    let daemon = site.run(&site.config(""));
    site.in_progress(job).await;
    daemon.end().await;
    let daemon = site.run(&site.config(""));
    site.served(job).await;
    until(&site, "nothing is left", || site.is_clean()).await;
    assert!(site.world().violations().is_empty());
    assert_eq!(site.world().requests().of(Side::Nomad, "PUT /v1/jobs"), 1);
    daemon.end().await;
}

#[tokio::test]
async fn a_job_that_needs_another_comes_later_and_is_served_too() {
    let site = Site::start().await;
    let spec = || JobSpec::new(&["nomadtools"], Duration::from_millis(200));
    let run = {
        let mut world = site.world();
        let after = JobSpec { needs: vec![0], ..spec() };
        world.queue_run(site.repository, vec![spec(), after]).unwrap()
    };
    let daemon = site.run(&site.config(""));
    until(&site, "the run is over", || site.world().github.run(run).unwrap().status == Status::Completed)
        .await;
    until(&site, "nothing is left", || site.is_clean()).await;
    daemon.end().await;
}

/// Between two listings of GitHub, Nomad's event stream reports when a place was found. The daemon's own
/// interval is 15 s by then.
#[tokio::test]
async fn a_runner_that_is_placed_late_gets_its_credentials_at_once() {
    let node = nomad::Node { memory_mb: 3000, ..nomad::Node::default() };
    let site = Site::start_with(nomad::Options { nodes: vec![node], ..nomad::Options::default() }).await;
    let [first, second] = [0, 1].map(|_| site.queue(&["nomadtools mem=2000"], 16_000));
    let daemon = site.run(&site.config("").replace("loop: 1\n", "loop: 600\n"));
    until(&site, "one of them is done", || {
        [first, second].map(|job| site.status(job)).contains(&Status::Completed)
    })
    .await;
    let done = std::time::Instant::now();
    until(&site, "the other one is in progress", || {
        [first, second].iter().all(|job| site.status(*job) >= Status::InProgress)
    })
    .await;
    let took = done.elapsed();
    assert!(took < Duration::from_secs(6), "{took:?}\n{}", daemon.log().join("\n"));
    daemon.end().await;
}
