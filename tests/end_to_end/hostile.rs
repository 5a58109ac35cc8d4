//! A GitHub, or something in its place, that returns half of its lists, invents names and issues invalid
//! credentials: nothing stops, nothing foreign is run, and each problem is reported with what to do.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use githubrunner_sim::{
    fault::Side,
    github::{JobSpec, Status},
    nomad,
};
use hyper::{
    Method, Request, Response,
    header::{CONTENT_LENGTH, ETAG, HeaderValue, LINK},
};
use serde_json::{Value, json};

use crate::common::site::{REPOSITORY, Site, until};

/// The Link header of an Enterprise Server that uses another host name for itself.
const ELSEWHERE: HeaderValue =
    HeaderValue::from_static("<https://git.example/api/v3/next?page=2>; rel=\"next\"");

/// Replaces the JSON of a response.
fn answer(response: &mut Response<Bytes>, body: &Value) {
    response.headers_mut().remove(CONTENT_LENGTH);
    response.headers_mut().remove(ETAG);
    *response.body_mut() = Bytes::from(body.to_string());
}

fn body(response: &Response<Bytes>) -> Value {
    serde_json::from_slice(response.body()).unwrap()
}

/// Whether it is a successful response of GitHub to a GET of such a path.
fn shows(side: Side, request: &Request<Bytes>, response: &Response<Bytes>, end: &str) -> bool {
    side == Side::GitHub
        && request.method() == Method::GET
        && request.uri().path().ends_with(end)
        && response.status() == 200
}

/// Queues a job in a repository, by its name.
fn queue_in(site: &Site, full_name: &str, milliseconds: u64) -> u64 {
    let mut world = site.world();
    let repository = world.github.repository_id(full_name).unwrap();
    let spec = JobSpec::new(&["nomadtools"], Duration::from_millis(milliseconds));
    let run = world.queue_run(repository, vec![spec]).unwrap();
    world.github.run(run).unwrap().jobs[0]
}

#[tokio::test]
async fn a_truncated_list_of_runners_stops_nothing() {
    let site = Site::start().await;
    let busy = site.queue(&["nomadtools"], 600_000);
    site.call(&["once"]).await.well();
    site.in_progress(busy).await;
    site.lie(|side, request, response| {
        if shows(side, request, response, "/actions/runners") {
            let other =
                json!({ "id": 1, "name": "somebody", "os": "linux", "status": "online", "busy": true });
            answer(response, &json!({ "total_count": 150, "runners": [other] }));
            response.headers_mut().insert(LINK, ELSEWHERE);
        }
    });
    for arguments in [["stop", "--all", "-y"], ["purge", "--all", "-y"]] {
        let stopped = site.call(&arguments).await;
        assert_ne!(stopped.code, 0, "{}", stopped.out);
        assert!(stopped.out.contains("cannot tell whether it is registered"), "{}", stopped.out);
        assert!(stopped.out.contains("set github.url to https://git.example"), "{}", stopped.out);
    }
    assert_eq!(site.status(busy), Status::InProgress);
    assert!(site.world().nomad.jobs().all(|job| !job.stop), "the busy runner was told to stop");
    assert!(site.world().violations().is_empty());
}

#[tokio::test]
async fn a_truncated_list_of_repositories_removes_none() {
    // There is no capacity, so runners stay pending.
    let mut options = nomad::Options::default();
    options.nodes.clear();
    let site = Site::start_with(options).await;
    site.world().github.add_repository("acme/w2");
    let job = queue_in(&site, "acme/w2", 300);
    let config = site.config("").replace(&format!("repos: [{REPOSITORY}]"), "repos: [acme]");
    site.call_with(&config, &["once"]).await.well();
    assert_eq!(site.nomad_jobs().len(), 1);
    // A 304 would prove nothing.
    std::fs::remove_file(site.cache_file()).unwrap();
    let listed = Arc::new(AtomicUsize::new(0));
    let count = listed.clone();
    site.lie(move |side, request, response| {
        if shows(side, request, response, "/orgs/acme/repos") {
            let mut list = body(response);
            list.as_array_mut().unwrap().retain(|repository| repository["name"] == "app");
            answer(response, &list);
            response.headers_mut().insert(LINK, ELSEWHERE);
        }
        if side == Side::GitHub && request.uri().path().ends_with("/acme/app/actions/runs") {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let check = site.call_with(&config, &["check"]).await;
    assert_eq!(check.code, 1, "{}", check.out);
    let line = check.out.lines().find(|line| line.starts_with("failure")).unwrap_or_default();
    assert!(line.contains("repositories of acme") && line.contains("https://git.example"), "{}", check.out);

    let daemon = site.run(&config);
    daemon.says("the list of its repositories is incomplete").await;
    let before = listed.load(Ordering::SeqCst);
    until(&site, "four more passes", || listed.load(Ordering::SeqCst) >= before + 8).await;
    let log = daemon.end().await.join("\n");
    assert!(!log.contains("no longer configured"), "{log}");
    assert!(site.world().nomad.jobs().all(|job| !job.stop), "{log}");
    assert_eq!(site.status(job), Status::Queued);
}

#[tokio::test]
async fn a_repository_url_is_never_code() {
    let site = Site::start().await;
    site.world().github.add_repository("acme/good");
    // As in nomadtools: the URL unchanged.
    let template = r#"template: |
  job "{{ RUN.RUNNER_NAME }}" {
    type = "batch"
    group "g" {
      task "runner" {
        driver = "raw_exec"
        config {
          command = "/bin/true"
        }
        env {
          REPO_URL = "{{ RUN.REPO_URL }}"
          TOKEN = "{{ SETTINGS.access_token }}"
        }
      }
    }
  }
"#;
    let evil = "https://github.com/acme/app\"\n } }\n task \"evil\" { driver = \"raw_exec\"\n config { command = \"/bin/sh\"";
    site.lie(move |side, request, response| {
        if shows(side, request, response, "/repos/acme/app") {
            let mut repository = body(response);
            repository["html_url"] = json!(evil);
            answer(response, &repository);
        }
    });
    let bad = queue_in(&site, "acme/app", 300);
    let good = queue_in(&site, "acme/good", 300);
    let config = site
        .config("")
        .replace(&format!("repos: [{REPOSITORY}]"), "repos: [acme/app, acme/good]")
        .replace("template: builtin:raw_exec\n", template);
    let once = site.call_with(&config, &["once"]).await;
    assert_eq!(once.code, 1, "{}\n{}", once.out, once.err);
    assert!(once.err.contains("its html_url is not the page of acme/app"), "{}", once.err);
    let jobs: Vec<String> = site.world().nomad.jobs().map(|job| job.spec.to_string()).collect();
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    assert!(jobs[0].contains("https://github.com/acme/good") && !jobs[0].contains("evil"), "{jobs:?}");
    assert_eq!((site.status(bad), site.status(good)), (Status::Queued, Status::Queued));
    let check = site.call_with(&config, &["check"]).await;
    assert!(check.code == 1 && check.out.contains("html_url"), "{}", check.out);
}

/// Changes GitHub's response to the registration of a runner, and then lets it be correct again.
async fn refuses_a_configuration(change: fn(&mut Value)) {
    let site = Site::start().await;
    let job = site.queue(&["nomadtools"], 300);
    site.lie(move |side, request, response| {
        let made = side == Side::GitHub && request.uri().path().ends_with("/generate-jitconfig");
        if made && response.status() == 201 {
            let mut given = body(response);
            change(&mut given);
            answer(response, &given);
        }
    });
    let daemon = site.run(&site.config(""));
    until(&site, "the registration is made and removed", || {
        let world = site.world();
        let removed = "DELETE /repos/{owner}/{repo}/actions/runners/{id}";
        world.requests().of(Side::GitHub, removed) > 0 && world.github.runners().next().is_none()
    })
    .await;
    assert_eq!(site.secrets(), Vec::<String>::new());
    site.no_fault();
    site.served(job).await;
    let log = daemon.end().await.join("\n");
    assert!(!log.contains("LD_PRELOAD"), "{log}");
    assert!(log.contains("cannot be used") || log.contains("that of another runner"), "{log}");
}

#[tokio::test]
async fn an_invalid_configuration_reaches_no_variable() {
    tokio::join!(
        refuses_a_configuration(|made| {
            made["encoded_jit_config"] = json!("abc\nLD_PRELOAD=/tmp/evil.so");
        }),
        refuses_a_configuration(|made| made["encoded_jit_config"] = json!("")),
        refuses_a_configuration(|made| made["runner"] = json!({ "id": 1, "name": "another" })),
    );
}

/// As seen in public projects: GitHub cannot return the jobs of a large run a hundred at a time.
#[tokio::test]
async fn a_run_that_needs_small_pages_is_served_and_does_not_affect_others() {
    let site = Site::start().await;
    site.fault(|side, request| {
        let uri = request.uri().to_string();
        let large = ["per_page=100", "per_page=50"].iter().any(|size| uri.contains(size));
        if side == Side::GitHub && uri.contains("/jobs?") && large {
            return githubrunner_sim::fault::Verdict::status(502, r#"{"message": "Server Error"}"#);
        }
        githubrunner_sim::fault::Verdict::Pass
    });
    let job = site.queue(&["nomadtools"], 300);
    let daemon = site.run(&site.config(""));
    site.served(job).await;
    let log = daemon.end().await.join("\n");
    assert!(!log.contains("ERROR"), "{log}");
}

/// The peak memory of a process, in MB.
fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[tokio::test]
async fn memory_and_log_are_bounded_whatever_labels_a_matrix_has() {
    let site = Site::start().await;
    {
        let mut world = site.world();
        let repository = world.github.repository_id(REPOSITORY).unwrap();
        for run in 0..20 {
            let job = |job: usize| {
                let label = |number: usize| format!("nomadtools a{run}x{job}x{number}={}", "y".repeat(220));
                JobSpec { labels: (0..100).map(label).collect(), ..JobSpec::new(&[], Duration::from_secs(1)) }
            };
            world.queue_run(repository, (0..256).map(job).collect()).unwrap();
        }
    }
    let daemon = site.run(&site.config(""));
    daemon.says("more jobs of").await;
    let listed = site.requests(Side::GitHub);
    // Two more complete listings: 20 runs of three pages, and the lists of runs.
    until(&site, "the jobs are listed again and again", || site.requests(Side::GitHub) > listed + 2 * 62)
        .await;
    let memory = peak_memory(daemon.id());
    let log: usize = daemon.log().iter().map(|line| line.len() + 1).sum();
    println!("{memory} MB, {log} bytes of log");
    daemon.end().await;
    assert!(memory < 64, "{memory} MB");
    assert!(log < 50_000, "{log} bytes of log");
}
