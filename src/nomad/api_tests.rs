//! The client against a scripted Nomad: its requests, and how it handles bad responses.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};

use super::{super::allocations::tests::recorded, *};
use crate::{
    http::{
        Endpoint, MemoryConnect,
        tests::{Answer, Seen, answer, server},
    },
    model::{ForeignReason, Registration, RunnerMeta, RunnerState},
    nomad::{
        PreparedJob, Registered, Written, prepare,
        seal::sample::{self, NAME},
    },
};

const DATE: (&str, &str) = ("date", "Tue, 24 Nov 2026 07:08:09 GMT");

fn ok(body: &Value) -> Answer {
    answer(200, &[DATE], body.to_string())
}

fn text(status: u16, body: &str) -> Answer {
    answer(status, &[DATE], body.to_owned())
}

fn options(endpoint: Endpoint) -> Options {
    Options { token: Some(Secret::new("hidden-token")), ..Options::new(endpoint, "github", "ghr", "runner") }
}

/// A client of a Nomad with this handler, and its requests.
fn nomad<F>(handler: F) -> (Nomad, Arc<Mutex<Vec<Seen>>>)
where
    F: Fn(&Seen) -> Answer + Send + Sync + 'static,
{
    let (endpoint, seen) = server(handler);
    (Nomad::new(options(endpoint), "new-instance").unwrap(), seen)
}

/// The requests' methods and paths without their queries.
fn asked(seen: &Mutex<Vec<Seen>>) -> Vec<String> {
    let seen = seen.lock().unwrap();
    seen.iter().map(|seen| format!("{} {}", seen.method, seen.path.split('?').next().unwrap())).collect()
}

fn meta(deployment: &str) -> RunnerMeta {
    sample::meta(deployment)
}

fn stub(name: &str, status: &str) -> Value {
    sample::stub(name, status, &meta("i"))
}

/// A Nomad with the deployment "i", these jobs and allocations, and nothing else.
fn standing(jobs: Value, allocations: Value) -> impl Fn(&Seen) -> Answer + Send + Sync + 'static {
    move |seen| match seen.path.split('?').next().unwrap() {
        "/v1/jobs" => ok(&jobs),
        "/v1/allocations" => ok(&allocations),
        "/v1/vars" | "/v1/evaluations" => ok(&json!([])),
        "/v1/var/githubrunner/ghr/instance" => ok(&json!({ "Items": { "id": "i" } })),
        "/v1/var/githubrunner/ghr/key" => ok(&sample::key_variable()),
        path => text(404, path),
    }
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_pass_is_three_requests() {
    let nomadtools = sample::stub("ghr-2", "dead", &RunnerMeta::default());
    let jobs = json!([stub(NAME, "running"), nomadtools]);
    let running = json!([{ "ID": "a", "JobID": NAME, "ClientStatus": "running", "DesiredStatus": "run" }]);
    let (nomad, seen) = nomad(standing(jobs, running));
    let view = nomad.observe().await.unwrap();
    assert_eq!((view.deployment.as_str(), view.runners.len()), ("i", 2));
    assert_eq!(view.now.to_string(), "2026-11-24T07:08:09Z");
    assert_eq!(seen.lock().unwrap().len(), 6, "the first one reads the deployment, the key and the nodes");
    seen.lock().unwrap().clear();
    nomad.observe().await.unwrap();
    assert_eq!(asked(&seen), ["GET /v1/jobs", "GET /v1/allocations", "GET /v1/vars"]);
    for seen in seen.lock().unwrap().iter() {
        assert_eq!(seen.header("x-nomad-token"), "hidden-token");
        assert!(seen.path.contains("namespace=github"), "{}", seen.path);
    }
    seen.lock().unwrap().clear();
    tokio::time::advance(Duration::from_secs(301)).await;
    nomad.observe().await.unwrap();
    assert_eq!(seen.lock().unwrap().len(), 6, "now and then they are read again");
}

#[tokio::test(start_paused = true)]
async fn a_pass_without_jobs_is_three_requests() {
    let (nomad, seen) = nomad(standing(json!([]), json!([])));
    for _ in 0..2 {
        seen.lock().unwrap().clear();
        nomad.observe().await.unwrap();
        let expected = ["GET /v1/jobs", "GET /v1/var/githubrunner/ghr/instance", "GET /v1/vars"];
        assert_eq!(asked(&seen), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pending_job_costs_the_blocked_evaluations() {
    let (nomad, seen) = nomad(standing(json!([stub(NAME, "pending")]), json!([])));
    assert_eq!(nomad.observe().await.unwrap().runners[0].state, RunnerState::Pending);
    assert!(asked(&seen).contains(&"GET /v1/evaluations".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_long_list_is_read_page_by_page() {
    let (nomad, seen) = nomad(|seen| {
        let (page, next) = match seen.path.split_once("next_token=") {
            None => (0, Some("one")),
            Some((_, rest)) if rest.starts_with("one") => (1, Some("two")),
            Some(_) => (2, None),
        };
        let paths: Vec<Value> =
            (0..2).map(|entry| json!({ "Path": format!("nomad/jobs/ghr-{page}{entry}") })).collect();
        let mut answer = ok(&json!(paths));
        if let Some(next) = next {
            answer.headers_mut().insert("x-nomad-nexttoken", next.parse().unwrap());
        }
        answer
    });
    let names: Vec<String> = nomad.variables("ghr-").await.unwrap().into_keys().collect();
    assert_eq!(names, ["ghr-00", "ghr-01", "ghr-10", "ghr-11", "ghr-20", "ghr-21"]);
    assert_eq!(seen.lock().unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn variables_of_groups_and_tasks_are_ignored() {
    let list = json!([{ "Path": "nomad/jobs/ghr-1" }, { "Path": "nomad/jobs/ghr-1/g/t" }]);
    let (nomad, _) = nomad(move |_| ok(&list));
    assert_eq!(nomad.variables("ghr-").await.unwrap().into_keys().collect::<Vec<_>>(), ["ghr-1"]);
}

#[tokio::test(start_paused = true)]
async fn servers_without_a_leader_are_retried() {
    let count = AtomicUsize::new(0);
    let (nomad, seen) = nomad(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        0 => text(500, "rpc error: No cluster leader"),
        1 => text(429, ""),
        _ => ok(&json!([])),
    });
    nomad.variables("ghr-").await.unwrap();
    assert_eq!(seen.lock().unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_text_of_a_500_determines_its_meaning() {
    for (status, body, times, says) in [
        (500, "rpc error: rpc error: No cluster leader", 3, "not ready"),
        (500, "No path to region", 1, "No path to region"),
        (500, "1 error occurred:\n\t* Missing job task groups\n\n", 1, "Missing job task groups"),
        (403, "Permission denied", 1, "the capability list for variables nomad/jobs/PREFIX-*"),
        (500, "rpc error: Permission denied", 1, "the capability list for variables"),
        (500, "Server error authenticating request\n", 1, "nomad acl policy apply"),
        (401, "Unauthorized", 1, "the capability list for variables"),
        (500, "job \"x\" is in nonexistent namespace \"github\"", 1, "nomad namespace apply github"),
    ] {
        let (nomad, seen) = nomad(move |_| text(status, body));
        let error = nomad.variables("ghr-").await.unwrap_err();
        assert!(error.to_string().contains(says), "{body}: {error}");
        assert_eq!(seen.lock().unwrap().len(), times, "{body}");
        assert_eq!(error.is_transient(), times > 1 || body.contains("region"), "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_connection_names_the_variable_for_the_address() {
    let refuse: MemoryConnect = Arc::new(|| Err(std::io::ErrorKind::ConnectionRefused.into()));
    let endpoint = Endpoint::Memory { name: "nomad.test".into(), connect: refuse };
    let error = Nomad::new(options(endpoint), "i").unwrap().observe().await.unwrap_err();
    assert!(error.is_transient() && !error.is_ambiguous());
    assert!(error.to_string().contains("nomad.test") && error.to_string().contains("NOMAD_ADDR"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_reread_from_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("nomad_token");
    std::fs::write(&file, "old\n").unwrap();
    let (endpoint, seen) = server(|seen| match seen.header("x-nomad-token") {
        "new" => ok(&json!([])),
        _ => text(403, "Permission denied"),
    });
    let options = Options { token: None, token_file: Some(file.clone()), ..options(endpoint) };
    let nomad = Nomad::new(options, "i").unwrap();
    nomad.variables("ghr-").await.unwrap_err();
    assert_eq!(seen.lock().unwrap().len(), 1, "the file holds the same token");
    std::fs::write(&file, "new\n").unwrap();
    nomad.variables("ghr-").await.unwrap();
    nomad.variables("ghr-").await.unwrap();
    let tokens: Vec<String> =
        seen.lock().unwrap().iter().map(|seen| seen.header("x-nomad-token").to_owned()).collect();
    assert_eq!(tokens, ["old", "old", "new", "new"]);
}

#[tokio::test(start_paused = true)]
async fn without_a_token_a_refusal_says_so() {
    let (endpoint, _) = server(|_| text(401, "Unauthorized"));
    let nomad = Nomad::new(Options { token: None, ..options(endpoint) }, "i").unwrap();
    let error = nomad.variables("ghr-").await.unwrap_err().to_string();
    assert!(error.contains("no token was sent: set NOMAD_TOKEN"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn basic_authentication_and_the_region_are_sent() {
    let (endpoint, seen) = server(|_| ok(&json!([])));
    let options = Options {
        http_auth: Some(Secret::new("user:password")),
        region: Some("eu".into()),
        ..options(endpoint)
    };
    Nomad::new(options, "i").unwrap().variables("ghr-").await.unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(seen[0].header("authorization"), "Basic dXNlcjpwYXNzd29yZA==");
    assert!(seen[0].path.contains("region=eu"));
}

fn prepared(nomad: &Nomad, registration: Registration) -> PreparedJob {
    prepare(recorded("parse-ok"), nomad.options(), meta("i"), NAME, registration).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_registration_with_a_lost_response_is_recognized_by_its_meta() {
    let existing = |meta: RunnerMeta| sample::stub(NAME, "dead", &meta);
    for (job, ours) in [
        (existing(meta("i")), true),
        (existing(RunnerMeta { version: "another".into(), ..meta("i") }), true),
        (existing(RunnerMeta { mac: None, ..meta("i") }), false),
        (existing(meta("another")), false),
        (json!({ "Meta": null }), false),
    ] {
        let count = AtomicUsize::new(0);
        let (nomad, seen) =
            nomad(move |seen| match (seen.method.as_str(), count.fetch_add(1, Ordering::Relaxed)) {
                ("PUT", 0) => text(500, "rpc error: EOF"),
                ("PUT", _) => text(500, "Enforcing job modify index 0: job already exists"),
                _ if seen.path.starts_with("/v1/var/") => ok(&sample::key_variable()),
                _ => ok(&job),
            });
        let result = nomad.register(&prepared(&nomad, Registration::Jit), None).await;
        assert_eq!(result.is_ok_and(|registered| registered == Registered::Already), ours);
        let read = format!("GET /v1/job/{NAME}");
        assert_eq!(asked(&seen)[..3], ["PUT /v1/jobs", "PUT /v1/jobs", read.as_str()]);
        let body: Value = serde_json::from_slice(&seen.lock().unwrap()[0].body).unwrap();
        assert_eq!((&body["EnforceIndex"], &body["JobModifyIndex"]), (&json!(true), &json!(0)));
    }
}

#[tokio::test(start_paused = true)]
async fn the_rendered_text_is_shown_if_it_contains_no_secret() {
    for (registration, shown) in
        [(Registration::Jit, true), (Registration::Token, true), (Registration::AccessToken, false)]
    {
        let (nomad, seen) = nomad(|_| ok(&json!({ "Warnings": "" })));
        nomad.register(&prepared(&nomad, registration), Some("job {}")).await.unwrap();
        let body: Value = serde_json::from_slice(&seen.lock().unwrap()[0].body).unwrap();
        assert_eq!(body["Submission"]["Source"] == json!("job {}"), shown, "{registration}");
    }
}

#[tokio::test(start_paused = true)]
async fn two_concurrent_purges_both_succeed() {
    let (nomad, seen) = nomad(|_| text(500, "rpc error: job not found"));
    nomad.purge("ghr-1").await.unwrap();
    assert!(seen.lock().unwrap().last().unwrap().path.starts_with("/v1/job/ghr-1?purge=true&"));
}

#[tokio::test(start_paused = true)]
async fn a_variable_is_ours_if_the_lost_response_was_a_success() {
    for (content, written) in [("configuration", Written::Written), ("another", Written::Exists)] {
        let count = AtomicUsize::new(0);
        let (nomad, _) = nomad(move |_| match count.fetch_add(1, Ordering::Relaxed) {
            0 => text(500, "leadership lost while committing log"),
            _ => text(409, &json!({ "Items": { "jitconfig": content } }).to_string()),
        });
        let items = BTreeMap::from([("jitconfig".to_owned(), Secret::new("configuration"))]);
        assert_eq!(nomad.put_variable("ghr-1", &items).await.unwrap(), written);
    }
}

#[tokio::test(start_paused = true)]
async fn no_error_shows_a_secret() {
    let (nomad, _) = nomad(|seen| match seen.method.as_str() {
        // An unexpected body with a secret in it.
        "GET" => ok(&json!({ "Items": ["hidden-item"] })),
        _ => text(409, "hidden-item"),
    });
    let items = BTreeMap::from([("jitconfig".to_owned(), Secret::new("hidden-item"))]);
    let mut shown = format!("{nomad:?} {:?}", nomad.options());
    shown.push_str(&format!("{:?}", nomad.put_variable("ghr-1", &items).await));
    shown.push_str(&format!("{:?}", nomad.deployment().await));
    shown.push_str(&format!("{:?}", nomad.lock_holder().await));
    assert!(shown.contains("unexpected answer") || shown.contains("Json"), "{shown}");
    assert!(!shown.contains("hidden"), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn read_only_commands_write_no_deployment_id() {
    let (endpoint, seen) = server(|seen| match seen.path.split('?').next().unwrap() {
        "/v1/var/githubrunner/ghr/instance" => text(404, "variable not found"),
        "/v1/namespace/github" => ok(&json!({ "Name": "github" })),
        _ => ok(&json!([])),
    });
    let nomad = Nomad::new(Options { create_deployment: false, ..options(endpoint) }, "new").unwrap();
    assert_eq!(nomad.observe().await.unwrap().deployment, "new");
    assert!(seen.lock().unwrap().iter().all(|seen| seen.method.as_str() == "GET"));
}

#[tokio::test(start_paused = true)]
async fn a_silent_event_stream_is_a_refused_one() {
    // The recorded refusal: 200, and the end without a byte.
    let (nomad, _) = nomad(|_| text(200, ""));
    let error = nomad.events().await.unwrap_err();
    assert!(matches!(error, Error::StreamRefused { .. }), "{error:?}");
    let (nomad, _) = self::nomad(|_| text(403, "Permission denied"));
    assert!(matches!(nomad.events().await.unwrap_err(), Error::Denied { .. }));
}

#[tokio::test(start_paused = true)]
async fn an_event_stream_ends_with_its_connection() {
    let lines = [
        json!({}),
        json!({ "Events": [{ "Topic": "Job", "Key": "other" }] }),
        json!({ "Events": [{ "Topic": "Allocation", "Key": "a", "FilterKeys": ["ghr-1", ""] }] }),
    ];
    let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let (nomad, _) = nomad(move |_| text(200, &body));
    let mut events = nomad.events().await.unwrap();
    let hint = events.next().await.unwrap().unwrap();
    assert_eq!(hint.jobs.into_iter().collect::<Vec<_>>(), ["ghr-1"]);
    assert_eq!(events.next().await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn data_from_a_server_without_a_leader_is_not_used() {
    for (silent, is_old) in [("0", false), ("5000", false), ("5001", true)] {
        let (nomad, _) = nomad(move |seen| {
            let body = match seen.path.split('?').next().unwrap() {
                "/v1/var/githubrunner/ghr/instance" => json!({ "Items": { "id": "i" } }),
                _ => json!([]),
            };
            answer(200, &[DATE, ("x-nomad-lastcontact", silent)], body.to_string())
        });
        match nomad.observe().await {
            Err(Error::Old { silent }) => {
                assert!(is_old);
                assert_eq!(silent.as_millis(), 5001);
            }
            other => assert!(!is_old && other.is_ok(), "{silent}: {other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_lock_is_renewed_only_if_the_response_is_the_locks() {
    use crate::nomad::{Acquired, Kept};
    let second = Duration::from_secs(1);
    for (renewal, kept) in [
        (ok(&json!({ "Lock": { "ID": "ours" } })), Some(Kept::Kept)),
        (ok(&json!({ "Lock": { "ID": "another's" } })), Some(Kept::Lost)),
        (text(409, "lock held"), Some(Kept::Lost)),
        // A page from something in between.
        (text(200, "<html>Sign in</html>"), None),
    ] {
        let renewal = Mutex::new(Some(renewal));
        let (nomad, _) = nomad(move |seen| match seen.path.contains("lock-acquire") {
            true => ok(&json!({ "Lock": { "ID": "ours" } })),
            false => renewal.lock().unwrap().take().unwrap(),
        });
        let acquired = nomad.lock_acquire("me", second * 10, second, second).await.unwrap();
        let Acquired::Ours(lease) = acquired else { panic!("{acquired:?}") };
        let renewed = nomad.lock_renew(&lease, second).await;
        assert_eq!(renewed.as_ref().ok(), kept.as_ref(), "{renewed:?}");
    }
}

/// A Nomad whose key variable can be deleted, and that then accepts a new one.
#[tokio::test(start_paused = true)]
async fn a_deleted_key_is_recreated_and_jobs_sealed_with_the_old_one_stay_ours() {
    let variable = Arc::new(Mutex::new(Some(sample::key_variable())));
    let jobs = Arc::new(Mutex::new(json!([stub(NAME, "running")])));
    let (key, listed) = (variable.clone(), jobs.clone());
    let (nomad, seen) =
        nomad(move |seen| match (seen.method.as_str(), seen.path.split('?').next().unwrap()) {
            ("GET", "/v1/jobs") => ok(&listed.lock().unwrap()),
            ("GET", "/v1/var/githubrunner/ghr/instance") => ok(&json!({ "Items": { "id": "i" } })),
            ("GET", "/v1/var/githubrunner/ghr/key") => match &*key.lock().unwrap() {
                Some(variable) => ok(variable),
                None => text(404, "variable not found"),
            },
            ("PUT", "/v1/var/githubrunner/ghr/key") => {
                let mut body: Value = serde_json::from_slice(&seen.body).unwrap();
                body["CreateIndex"] = json!(20);
                *key.lock().unwrap() = Some(body.clone());
                ok(&body)
            }
            ("GET", "/v1/namespace/github") => ok(&json!({ "Name": "github" })),
            _ => ok(&json!([])),
        });
    assert_eq!(nomad.observe().await.unwrap().runners.len(), 1);
    *variable.lock().unwrap() = None;
    tokio::time::advance(Duration::from_secs(301)).await;
    let view = nomad.observe().await.unwrap();
    assert_eq!((view.runners.len(), view.foreign.len()), (1, 0));
    let items = variable.lock().unwrap().clone().unwrap();
    let old = sample::key_variable()["Items"]["key"].clone();
    assert_eq!(items["Items"]["previous"], old);
    assert_ne!(items["Items"]["key"], old);
    // Knowledge of the old key is no longer sufficient.
    let mut forged = stub(NAME, "running");
    forged["CreateIndex"] = json!(21);
    *jobs.lock().unwrap() = json!([forged]);
    let view = nomad.observe().await.unwrap();
    assert_eq!((view.runners.len(), view.foreign[0].reason), (0, ForeignReason::WrongSeal));
    // A new runner is sealed with the new key, which is reread if it is not fresh.
    tokio::time::advance(Duration::from_secs(11)).await;
    seen.lock().unwrap().clear();
    let sealed = nomad.seal(NAME, RunnerMeta { mac: None, ..meta("i") }).await.unwrap();
    assert_eq!(asked(&seen), ["GET /v1/var/githubrunner/ghr/key"]);
    assert!(sealed.mac.is_some() && sealed.mac != meta("i").mac);
    let shown = format!("{nomad:?} {:?}", nomad.options());
    assert!(!shown.contains(items["Items"]["key"].as_str().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn jobs_that_another_replica_sealed_with_a_newer_key_are_ours_at_once() {
    let variable = Arc::new(Mutex::new(sample::earlier_key_variable()));
    let key = variable.clone();
    let (nomad, seen) = nomad(move |seen| match seen.path.split('?').next().unwrap() {
        "/v1/var/githubrunner/ghr/key" => ok(&key.lock().unwrap()),
        _ => standing(json!([stub(NAME, "running")]), json!([]))(seen),
    });
    assert_eq!(nomad.observe().await.unwrap().foreign[0].reason, ForeignReason::WrongSeal);
    *variable.lock().unwrap() = sample::key_variable();
    let view = nomad.observe().await.unwrap();
    assert_eq!((view.runners.len(), view.foreign.len()), (1, 0));
    assert!(nomad.read_runner(NAME).await.unwrap().is_some());
    seen.lock().unwrap().clear();
    nomad.observe().await.unwrap();
    assert!(asked(&seen).iter().all(|path| !path.ends_with("/key")), "{:?}", asked(&seen));
}

#[tokio::test(start_paused = true)]
async fn a_job_sealed_with_a_replaced_key_is_not_registered() {
    let variable = Arc::new(Mutex::new(sample::earlier_key_variable()));
    let key = variable.clone();
    let (nomad, seen) = nomad(move |seen| match seen.path.split('?').next().unwrap() {
        "/v1/var/githubrunner/ghr/key" => ok(&key.lock().unwrap()),
        _ => standing(json!([stub(NAME, "running")]), json!([]))(seen),
    });
    let puts = || seen.lock().unwrap().iter().filter(|seen| seen.method == "PUT").count();
    for (is_replaced, is_sent) in [(true, false), (false, true)] {
        let meta = nomad.seal(NAME, RunnerMeta { mac: None, ..meta("i") }).await.unwrap();
        if is_replaced {
            *variable.lock().unwrap() = sample::key_variable();
            // The pass finds that its jobs have another key.
            nomad.observe().await.unwrap();
        }
        let job = json!({ "ID": NAME });
        let job = PreparedJob { name: NAME.to_owned(), meta, registration: Registration::Jit, job };
        let before = puts();
        let registered = nomad.register(&job, None).await;
        assert_eq!(puts() > before, is_sent, "{registered:?}");
        assert!(is_sent || registered.unwrap_err().to_string().contains("replaced in the meantime"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_planted_job_is_foreign_and_says_why() {
    let planted = [
        ("ghr-o-r-somewhere", meta("i"), Some(ForeignReason::Name)),
        (NAME, RunnerMeta { mac: None, ..meta("i") }, Some(ForeignReason::Unsealed)),
        (NAME, RunnerMeta { repo_id: None, ..meta("i") }, Some(ForeignReason::WrongSeal)),
        (NAME, meta("i"), None),
        (NAME, meta("another"), None),
    ];
    for (name, meta, reason) in planted {
        let is_ours = reason.is_none() && meta.deployment.as_deref() == Some("i");
        let (nomad, _) = nomad(standing(json!([sample::stub(name, "running", &meta)]), json!([])));
        let view = nomad.observe().await.unwrap();
        assert_eq!(view.foreign.first().map(|foreign| foreign.reason), reason, "{name}: {meta:?}");
        assert_eq!(view.runners.len(), usize::from(is_ours), "{name}: {meta:?}");
        assert_eq!(nomad.read_runner(name).await.unwrap().is_some(), is_ours);
    }
}

/// A Nomad that pages a list as requested, with entries of about this many bytes.
fn paged(entries: Vec<Value>, seen: &Seen) -> Answer {
    let value = |name: &str| {
        let query = seen.path.split_once('?').unwrap().1.to_owned();
        query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}="))).map(str::to_owned)
    };
    let size: usize = value("per_page").unwrap().parse().unwrap();
    let first: usize = value("next_token").map_or(0, |token| token.parse().unwrap());
    let stubs_only = value("task_states").as_deref() == Some("false");
    let page: Vec<Value> = entries[first..entries.len().min(first + size)]
        .iter()
        .map(|entry| {
            let mut entry = entry.clone();
            if stubs_only {
                entry.as_object_mut().unwrap().remove("TaskStates");
            }
            entry
        })
        .collect();
    let next = (first + size < entries.len()).then(|| (first + size).to_string());
    let next: Option<&'static str> = next.map(|next| &*next.leak());
    let headers: Vec<(&str, &str)> =
        [Some(DATE), next.map(|next| ("x-nomad-nexttoken", next))].into_iter().flatten().collect();
    answer(200, &headers, Value::from(page).to_string())
}

/// An allocation of a job with a start error of this many bytes.
fn allocation_with_error(number: usize, job: &str, bytes: usize) -> Value {
    json!({
        "ID": format!("a{number}"), "JobID": job, "ClientStatus": "failed", "DesiredStatus": "run",
        "TaskStates": { "runner": { "State": "dead", "Failed": true, "StartedAt": null, "Events": [
            { "Type": "Driver Failure", "Time": 1, "DisplayMessage": "x".repeat(bytes) }
        ] } }
    })
}

#[tokio::test(start_paused = true)]
async fn what_a_neighbour_made_large_is_read_a_few_at_a_time() {
    let foreign_meta = json!({ "ID": "ghr-other", "Meta": { "huge": "y".repeat(900_000) } });
    let mut jobs = vec![foreign_meta; 40];
    jobs.push(stub(NAME, "dead"));
    let mut allocations: Vec<Value> =
        (0..62).map(|number| allocation_with_error(number, "ghr-other", 600_000)).collect();
    allocations.push(allocation_with_error(62, NAME, 100));
    let (nomad, seen) = nomad(move |seen| match seen.path.split('?').next().unwrap() {
        "/v1/jobs" => paged(jobs.clone(), seen),
        "/v1/allocations" => paged(allocations.clone(), seen),
        _ => standing(json!([]), json!([]))(seen),
    });
    let view = nomad.observe().await.unwrap();
    assert_eq!(view.runners.len(), 1, "{:?}", view.runners);
    assert_eq!((view.runners[0].name.as_str(), view.runners[0].state), (NAME, RunnerState::Dead));
    let requests = seen.lock().unwrap().len();
    assert!(requests < 60, "{requests} requests");
    // The next pass knows which size fits.
    nomad.observe().await.unwrap();
    let again = seen.lock().unwrap().len() - requests;
    assert!(again <= requests, "{again} requests");
}

#[tokio::test(start_paused = true)]
async fn a_list_continues_after_a_job_whose_id_is_not_ascii() {
    const TOKEN: &str = "ghr-\u{202e}ä";
    let (nomad, seen) = nomad(|seen| match seen.path.split_once('?').unwrap() {
        ("/v1/jobs", query) if query.contains("next_token=") => ok(&json!([stub(NAME, "running")])),
        ("/v1/jobs", _) => answer(200, &[DATE, ("x-nomad-nexttoken", TOKEN)], "[]".to_owned()),
        _ => standing(json!([]), json!([]))(seen),
    });
    assert_eq!(nomad.observe().await.unwrap().runners.len(), 1);
    assert!(seen.lock().unwrap()[1].path.contains("next_token=ghr-%E2%80%AE%C3%A4"));
}

#[tokio::test(start_paused = true)]
async fn an_allocation_that_is_too_large_is_known_without_its_tasks() {
    let whole = crate::nomad::options::MAX_BODY + 1;
    for job in ["ghr-other", NAME] {
        let allocations = vec![allocation_with_error(0, job, whole), allocation_with_error(1, NAME, 100)];
        let (nomad, _) = nomad(move |seen| match seen.path.split('?').next().unwrap() {
            "/v1/jobs" => ok(&json!([stub(NAME, "dead")])),
            "/v1/allocations" => paged(allocations.clone(), seen),
            _ => standing(json!([]), json!([]))(seen),
        });
        let view = nomad.observe().await.unwrap();
        assert!(view.foreign.is_empty(), "{job}: {:?}", view.foreign);
        let states: Vec<RunnerState> = view.runners.iter().map(|runner| runner.state).collect();
        assert_eq!(states, [RunnerState::Dead], "{job}");
        assert_eq!(nomad.read_runner(NAME).await.unwrap().as_ref(), view.runners.first(), "{job}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_live_runner_whose_tasks_are_too_large_to_read_counts_as_running() {
    let whole = crate::nomad::options::MAX_BODY + 1;
    for (status, state) in [("pending", RunnerState::Running), ("unknown", RunnerState::Disconnected)] {
        let mut allocation = allocation_with_error(0, NAME, whole);
        allocation["ClientStatus"] = json!(status);
        let (nomad, _) = nomad(move |seen| match seen.path.split('?').next().unwrap() {
            "/v1/jobs" => ok(&json!([stub(NAME, "running")])),
            "/v1/allocations" => paged(vec![allocation.clone()], seen),
            _ => standing(json!([]), json!([]))(seen),
        });
        let view = nomad.observe().await.unwrap();
        assert!(view.foreign.is_empty(), "{:?}", view.foreign);
        let [runner] = &view.runners[..] else { panic!("{:?}", view.runners) };
        // It may be busy: only GitHub knows.
        assert_eq!((runner.state, runner.started), (state, true), "{status}");
        assert!(runner.last_event.as_ref().is_some_and(|event| event.contains("too large")), "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_too_large_is_not_absent() {
    let whole = crate::nomad::options::MAX_BODY + 1;
    let mut large = stub(NAME, "running");
    large["Meta"]["huge"] = json!("y".repeat(whole));
    let by_meta = json!(large);
    let mut nameless = stub(NAME, "running");
    nameless["Name"] = json!("y".repeat(whole));
    for (job, named) in [(by_meta, true), (nameless, false)] {
        let (nomad, _) = nomad(move |seen| match seen.path.split('?').next().unwrap() {
            "/v1/jobs" => {
                let mut job = job.clone();
                if !seen.path.contains("meta=true") {
                    job.as_object_mut().unwrap().remove("Meta");
                }
                paged(vec![job], seen)
            }
            _ => standing(json!([]), json!([]))(seen),
        });
        let view = nomad.observe().await.unwrap();
        assert!(view.runners.is_empty());
        let held = view.foreign.iter().any(|foreign| foreign.name == NAME);
        assert_eq!(held, named, "{:?}", view.foreign);
        let error = nomad.read_runner(NAME).await.unwrap_err().to_string();
        assert!(error.contains("too large to read"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_runner_without_an_allocation_is_unknown_while_an_unreadable_one_may_be_its_own() {
    let mut huge = allocation_with_error(0, "ghr-other", 10);
    huge["TaskGroup"] = json!("y".repeat(crate::nomad::options::MAX_BODY + 1));
    let (nomad, _) = nomad(move |seen| match seen.path.split('?').next().unwrap() {
        "/v1/jobs" => ok(&json!([stub(NAME, "running")])),
        "/v1/allocations" => paged(vec![huge.clone()], seen),
        _ => standing(json!([]), json!([]))(seen),
    });
    let view = nomad.observe().await.unwrap();
    assert!(view.runners.is_empty(), "{:?}", view.runners);
    assert_eq!(view.foreign.len(), 1);
    assert!(nomad.read_runner(NAME).await.is_err());
}
