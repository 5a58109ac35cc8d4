//! Several namespaces: each is requested once, and one that fails is unseen.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use serde_json::{Value, json};

use super::*;
use crate::{
    http::tests::{Answer, Seen, answer, server},
    model::Namespace,
    nomad::{
        Options,
        seal::sample::{self, NAME},
    },
};

const DATE: (&str, &str) = ("date", "Tue, 24 Nov 2026 07:08:09 GMT");

#[test]
fn a_prefix_cannot_break_out_of_the_filter() {
    assert_eq!(escape_pattern("NT_Github-Runner-"), "NT_Github-Runner-");
    assert_eq!(escape_pattern("a\"b\\c."), "a[^a-zA-Z0-9_-]b[^a-zA-Z0-9_-]c[^a-zA-Z0-9_-]");
}

fn gpu() -> Namespace {
    Namespace { name: "gpu".to_owned(), region: None }
}

fn in_eu() -> Namespace {
    Namespace { name: "github".to_owned(), region: Some("eu".to_owned()) }
}

fn ok(body: &Value) -> Answer {
    answer(200, &[DATE], body.to_string())
}

/// The runners that a namespace has: its own, and a copy of the one in the daemon's own namespace.
fn jobs(namespace: Option<&Namespace>) -> Value {
    let (name, meta) = sample::runner("i", namespace);
    let mut jobs = vec![sample::stub(&name, "running", &meta)];
    if namespace.is_some() {
        jobs.push(sample::stub(NAME, "running", &sample::meta("i")));
    }
    json!(jobs)
}

/// A daemon in the namespace `github` of region `us`, with runners in others. `gpu` refuses everything while `denies`.
fn nomad(elsewhere: &[Namespace]) -> (Nomad, Arc<Mutex<Vec<Seen>>>, Arc<AtomicBool>) {
    let denies = Arc::new(AtomicBool::new(false));
    let denied = denies.clone();
    let (endpoint, seen) = server(move |seen: &Seen| {
        let namespace = match (seen.path.contains("namespace=gpu"), seen.path.contains("region=eu")) {
            (true, _) if denied.load(Ordering::Relaxed) => {
                return answer(403, &[DATE], "Permission denied".to_owned());
            }
            (true, _) => Some(gpu()),
            (_, true) => Some(in_eu()),
            _ => None,
        };
        let (name, _) = sample::runner("i", namespace.as_ref());
        match seen.path.split('?').next().unwrap() {
            "/v1/jobs" => ok(&jobs(namespace.as_ref())),
            "/v1/allocations" => {
                let of = |job: &str| json!({ "ID": "a", "JobID": job, "ClientStatus": "running" });
                ok(&json!([of(&name), of(NAME)]))
            }
            "/v1/vars" => ok(&json!([{ "Path": format!("nomad/jobs/{name}") }])),
            "/v1/var/githubrunner/ghr/instance" => ok(&json!({ "Items": { "id": "i" } })),
            "/v1/var/githubrunner/ghr/key" => ok(&sample::key_variable()),
            path => answer(404, &[DATE], path.to_owned()),
        }
    });
    let options = Options {
        region: Some("us".to_owned()),
        elsewhere: elsewhere.to_vec(),
        ..Options::new(endpoint, "github", "ghr", "runner")
    };
    (Nomad::new(options, "i").unwrap(), seen, denies)
}

/// Where runners are, by their names.
fn places(view: &NomadView) -> BTreeMap<String, Option<Namespace>> {
    view.runners.iter().map(|runner| (runner.name.clone(), runner.namespace.clone())).collect()
}

/// The requests, without their filters, in order.
fn asked(seen: &Mutex<Vec<Seen>>) -> Vec<String> {
    let mut asked: Vec<String> = Vec::new();
    for seen in std::mem::take(&mut *seen.lock().unwrap()) {
        let (path, query) = seen.path.split_once('?').unwrap();
        let kept = |pair: &&str| pair.starts_with("namespace=") || pair.starts_with("region=");
        let query: Vec<&str> = query.split('&').filter(kept).collect();
        asked.push(format!("{path} {}", query.join(" ")));
    }
    asked.sort();
    asked
}

#[tokio::test(start_paused = true)]
async fn each_namespace_costs_three_requests_in_its_region() {
    let (nomad, seen, _) = nomad(&[gpu(), in_eu()]);
    let view = nomad.observe().await.unwrap();
    let expected = [None, Some(gpu()), Some(in_eu())];
    let expected = expected.map(|namespace| (sample::runner("i", namespace.as_ref()).0, namespace));
    assert_eq!(places(&view), expected.into());
    assert!(view.unseen.is_empty());
    asked(&seen);
    nomad.observe().await.unwrap();
    assert_eq!(
        asked(&seen),
        [
            "/v1/allocations namespace=github region=eu",
            "/v1/allocations namespace=github region=us",
            "/v1/allocations namespace=gpu region=us",
            "/v1/jobs namespace=github region=eu",
            "/v1/jobs namespace=github region=us",
            "/v1/jobs namespace=gpu region=us",
            "/v1/vars namespace=github region=eu",
            "/v1/vars namespace=github region=us",
            "/v1/vars namespace=gpu region=us",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_a_runner_in_another_namespace_is_foreign() {
    let (nomad, ..) = nomad(&[gpu()]);
    let view = nomad.observe().await.unwrap();
    let copy = Foreign { name: NAME.to_owned(), reason: ForeignReason::Name };
    assert_eq!(view.foreign, [copy]);
    let (own, _) = sample::runner("i", Some(&gpu()));
    assert!(view.has_variable(Some(&gpu()), &own) && !view.has_variable(None, &own));
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_refuses_is_unseen_and_the_others_are_seen() {
    let (nomad, seen, denies) = nomad(&[gpu()]);
    let before = nomad.observe().await.unwrap();
    denies.store(true, Ordering::Relaxed);
    let view = nomad.observe().await.unwrap();
    let unseen = &view.unseen[&Some(gpu())];
    assert_eq!((unseen.namespace.as_str(), unseen.kind), ("gpu", "denied"));
    assert!(unseen.why.contains("list-jobs in namespace \"gpu\""), "{}", unseen.why);
    assert_eq!(view.runners, before.runners, "its runners are as they were last seen");
    assert!(view.variables.iter().all(|variable| variable.namespace.is_none()));
    // It rests for a while.
    denies.store(false, Ordering::Relaxed);
    asked(&seen);
    let view = nomad.observe().await.unwrap();
    assert!(!view.unseen.is_empty() && !asked(&seen).iter().any(|asked| asked.contains("gpu")));
    tokio::time::advance(Duration::from_secs(6)).await;
    assert!(nomad.observe().await.unwrap().unseen.is_empty());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_known_if_no_namespace_can_be_read() {
    let (endpoint, _) = server(|_: &Seen| answer(403, &[DATE], "Permission denied".to_owned()));
    let options = Options { elsewhere: vec![gpu()], ..Options::new(endpoint, "github", "ghr", "runner") };
    let error = Nomad::new(options, "i").unwrap().observe().await.unwrap_err();
    assert_eq!(error.kind(), "denied");
}

#[tokio::test(start_paused = true)]
async fn the_daemons_own_variables_are_in_its_own_namespace() {
    let (nomad, seen, _) = nomad(&[gpu()]);
    let elsewhere = nomad.at(Some(&gpu()));
    elsewhere.seal(NAME, RunnerMeta::default()).await.unwrap();
    elsewhere.deployment().await.unwrap();
    elsewhere.reruns().await.unwrap();
    assert!(asked(&seen).iter().all(|asked| asked.ends_with("namespace=github region=us")));
    assert_eq!(nomad.everywhere().iter().map(Nomad::namespace).collect::<Vec<_>>(), [None, Some(&gpu())]);
}
