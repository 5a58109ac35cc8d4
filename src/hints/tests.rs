//! Hints and webhooks: what is accepted, what is refused, and what is limited.

use std::path::Path;

use hyper::{HeaderMap, header::HeaderValue};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::{
    delivery::{Said, is_signed, read},
    webhook::{Outcome, accept, serve},
    *,
};
use crate::status::Exposition;

const SECRET: &str = "a secret of sixteen and more";

fn config(yaml: &str) -> Config {
    Config::load(&format!("{yaml}\n"), &|_| None).unwrap_or_else(|errors| panic!("{yaml}: {errors}"))
}

fn hints_with(yaml: &str) -> Hints {
    let hints = Hints::new(Status::new(Duration::from_secs(60)));
    hints.configure(&config(yaml));
    hints
}

fn hints() -> Hints {
    hints_with(&format!(
        "repos: [Codertocat, octo-org/octo-repo]\nrunson_match: 'ubuntu|nomadtools'\nwebhook: {{secret: {SECRET}}}\n"
    ))
}

fn hint(repository: u64) -> Hint {
    Hint {
        repository: RepositoryId(repository),
        full_name: Some("Codertocat/x".into()),
        reason: Reason::Webhook,
    }
}

fn example(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/fixtures/github/webhooks/{name}.json", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(Path::new(&path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn sign(secret: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let hex: String = hmac::sign(&key, body).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={hex}")
}

fn headers(event: &str, guid: &str, body: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in
        [("x-github-event", event), ("x-github-delivery", guid), ("x-hub-signature-256", &sign(SECRET, body))]
    {
        headers.insert(name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

async fn deliver(hints: &Hints, event: &str, guid: &str, body: &[u8]) -> Outcome {
    accept(hints, &headers(event, guid, body), body).await
}

/// A job's event, with changes.
fn job(action: &str, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut event = json!({
        "action": action,
        "workflow_job": { "status": action, "labels": ["nomadtools"], "runner_name": null },
        "repository": { "id": 7, "full_name": "Codertocat/seven" },
    });
    change(&mut event);
    event.to_string().into_bytes()
}

#[test]
fn githubs_own_signature_is_valid_and_others_are_not() {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"It's a Secret to Everybody");
    let mac = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    assert!(is_signed(&key, Some(&format!("sha256={mac}")), b"Hello, World!"));
    assert!(is_signed(&key, Some(&format!("sha256={}", mac.to_uppercase())), b"Hello, World!"));
    assert!(!is_signed(&key, Some(&format!("sha256={mac}")), b"Hello, World?"));
    for wrong in [None, Some(""), Some(mac), Some("sha256="), Some("sha1=757107ea"), Some("sha256=é")] {
        assert!(!is_signed(&key, wrong, b"Hello, World!"), "{wrong:?}");
    }
    let cut = &mac[..62];
    for wrong in [format!("sha256={cut}"), format!("sha256={mac}00"), format!("sha256={cut}zz")] {
        assert!(!is_signed(&key, Some(&wrong), b"Hello, World!"), "{wrong}");
    }
}

#[test]
fn githubs_own_examples_are_parsed() {
    let of_github = ("ubuntu-latest", Some("GitHub Actions 5"));
    for (name, held, (label, runner)) in [
        ("workflow_job.queued", false, of_github),
        ("workflow_job.queued.status-waiting", true, ("self-hosted", None)),
        ("workflow_job.waiting", true, ("self-hosted", None)),
        ("workflow_job.in_progress.installation", false, ("ubuntu-latest", Some("GitHub Actions 6"))),
        ("workflow_job.in_progress.organization", false, ("gpu", Some("my runner"))),
        ("workflow_job.completed.success", false, of_github),
        ("workflow_job.completed.failure", false, of_github),
    ] {
        let body = example(name);
        let Ok(Said::Job(job)) = read("workflow_job", false, &body) else { panic!("{name}") };
        assert_eq!((job.held, job.full_name.contains('/')), (held, true), "{name}");
        let original: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(job.repository.0, original["repository"]["id"].as_u64().unwrap(), "{name}");
        assert_eq!(job.labels[0], label, "{name}");
        assert_eq!(job.runner.as_deref().filter(|name| !name.is_empty()), runner, "{name}");
    }
    for name in ["ping.repository.0", "ping.repository.1", "ping.repository.2", "ping.organization.3"] {
        assert_eq!(read("ping", false, &example(name)), Ok(Said::Ping), "{name}");
    }
    assert_eq!(read("installation", false, &example("installation.created")), Ok(Said::Other));
}

#[test]
fn deliveries_that_break_githubs_rules_are_refused() {
    let refused = |body: &[u8]| read("workflow_job", false, body).unwrap_err();
    assert!(refused(b"{").contains("JSON"));
    assert!(refused(&job("queued", |event| event["repository"]["id"] = json!(-1))).contains("JSON"));
    for name in ["seven", "a/b/c", "../etc", "acme/\u{1b}[2J", "acme/"] {
        let body = job("queued", |event| event["repository"]["full_name"] = json!(name));
        assert!(refused(&body).contains("name"), "{name}");
    }
    assert_eq!(read("workflow_job", false, &job("deleted", |_| {})), Ok(Said::Other));
    assert!(read("workflow_job", true, b"other=1").is_err());
}

#[tokio::test(start_paused = true)]
async fn a_signed_event_about_a_job_of_ours_is_a_hint() {
    let hints = hints();
    let body = example("workflow_job.queued");
    assert_eq!(
        deliver(&hints, "workflow_job", "72d3162e-cc78-11e3-81ab-4c9367dc0958", &body).await,
        Outcome::Taken
    );
    hints.due().await;
    let expected = Hint {
        repository: RepositoryId(186_853_002),
        full_name: Some("Codertocat/Hello-World".into()),
        reason: Reason::Webhook,
    };
    assert_eq!(hints.take(), [expected]);
    assert_eq!(hints.take(), []);
}

#[tokio::test(start_paused = true)]
async fn a_form_is_as_good_as_json() {
    let hints = hints();
    let json = String::from_utf8(example("workflow_job.queued")).unwrap();
    let body = url::form_urlencoded::Serializer::new(String::new()).append_pair("payload", &json).finish();
    let mut headers = headers("workflow_job", "1", body.as_bytes());
    let form = "application/x-www-form-urlencoded; charset=utf-8";
    headers.insert("content-type", HeaderValue::from_static(form));
    assert_eq!(accept(&hints, &headers, body.as_bytes()).await, Outcome::Taken);
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    assert_eq!(accept(&hints, &headers, body.as_bytes()).await, Outcome::Malformed);
}

#[tokio::test(start_paused = true)]
async fn without_a_valid_signature_nothing_is_accepted_or_remembered() {
    let hints = hints();
    let body = job("queued", |_| {});
    let mut forged = headers("workflow_job", "1", &body);
    forged.remove("x-hub-signature-256");
    assert_eq!(accept(&hints, &forged, &body).await, Outcome::NotSigned);
    for signature in [sign("another secret of some length", &body), sign(SECRET, b"another body")] {
        forged.insert("x-hub-signature-256", HeaderValue::from_str(&signature).unwrap());
        assert_eq!(accept(&hints, &forged, &body).await, Outcome::NotSigned);
    }
    assert_eq!(hints.take(), []);
    assert_eq!(deliver(&hints, "workflow_job", "1", &body).await, Outcome::Taken, "its ID is not used up");
}

#[tokio::test(start_paused = true)]
async fn deliveries_that_need_no_look_are_answered_and_ignored() {
    let hints = hints();
    let configured = |name: &str| job("queued", |event| event["repository"]["full_name"] = json!(name));
    let labels = |labels: Value| job("queued", |event| event["workflow_job"]["labels"] = labels);
    let ran_on = |runner: &str| {
        job("completed", |event| {
            event["workflow_job"] = json!({"status": "completed", "labels": ["x"], "runner_name": runner});
        })
    };
    let held = job("queued", |event| event["workflow_job"]["status"] = json!("waiting"));
    for (event, guid, body, outcome) in [
        ("ping", "1", example("ping.organization.3"), Outcome::Ping),
        ("push", "2", b"{}".to_vec(), Outcome::OtherEvent),
        ("workflow_job", "3", held, Outcome::Held),
        ("workflow_job", "4", configured("stranger/x"), Outcome::NotConfigured),
        ("workflow_job", "5", configured("OCTO-org/Octo-Repo"), Outcome::Taken),
        ("workflow_job", "6", labels(json!(["windows"])), Outcome::NotOurs),
        ("workflow_job", "7", labels(json!([])), Outcome::NotOurs),
        ("workflow_job", "8", ran_on("NTGithubRunner-acme-x-1"), Outcome::Taken),
        ("workflow_job", "9", ran_on("somebody else's"), Outcome::NotOurs),
        ("workflow_job", "5", configured("octo-org/octo-repo"), Outcome::Repeated),
        ("workflow_job", "", configured("octo-org/octo-repo"), Outcome::Malformed),
        ("workflow_job", "a b", configured("octo-org/octo-repo"), Outcome::Malformed),
    ] {
        assert_eq!(deliver(&hints, event, guid, &body).await, outcome, "{guid}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_watched_repository_is_recognized_by_its_id_after_a_rename() {
    let hints = hints();
    let renamed = Hint { full_name: Some("elsewhere/now".into()), ..hint(9) };
    assert_eq!(hints.offer(renamed.clone()), Offered::NotConfigured);
    let watched = Repository {
        id: RepositoryId(9),
        owner: "octo-org".into(),
        name: "octo-repo".into(),
        html_url: String::new(),
        archived: false,
        disabled: false,
        visibility: crate::model::Visibility::default(),
    };
    hints.know([&watched]);
    assert_eq!(hints.offer(renamed), Offered::Taken);
    assert_eq!(hints.offer(Hint { full_name: None, ..hint(9) }), Offered::Taken);
    assert_eq!(hints.offer(Hint { full_name: None, ..hint(10) }), Offered::NotConfigured);
}

#[tokio::test(start_paused = true)]
async fn many_hints_for_a_repository_are_one_look_a_second_and_the_last_is_not_lost() {
    let hints = hints();
    let began = Instant::now();
    for _ in 0..100 {
        assert_eq!(hints.offer(hint(1)), Offered::Taken);
    }
    hints.due().await;
    assert_eq!(hints.take().len(), 1);
    // A hint that comes right after a look has started.
    hints.offer(hint(1));
    assert_eq!(hints.take(), []);
    hints.due().await;
    assert_eq!(began.elapsed(), LOOKS_APART);
    assert_eq!(hints.take().len(), 1);
    // Other repositories do not wait for it.
    hints.offer(hint(1));
    hints.offer(hint(2));
    hints.due().await;
    assert_eq!(hints.take(), [hint(2)]);
}

#[tokio::test(start_paused = true)]
async fn waiting_hints_and_remembered_deliveries_are_limited() {
    let hints = hints();
    for repository in 0..20_000 {
        let expected = if repository < 10_000 { Offered::Taken } else { Offered::Full };
        assert_eq!(hints.offer(hint(repository)), expected);
        assert!(hints.is_news(&Guid::parse(&format!("g-{repository}")).unwrap()));
    }
    assert_eq!((hints.sizes()["hints"], hints.sizes()["deliveries"]), (10_000, 4_096));
    assert!(!hints.is_news(&Guid::parse("g-19999").unwrap()));
    assert!(hints.is_news(&Guid::parse("g-1").unwrap()), "forgotten");
    hints.take();
    tokio::time::advance(LOOKS_APART).await;
    hints.take();
    assert_eq!((hints.sizes()["hints"], hints.sizes()["hinted looks"]), (0, 0));
}

#[tokio::test]
async fn a_secret_file_is_reread() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    std::fs::write(&path, format!("{SECRET}\n")).unwrap();
    let hints = hints_with(&format!("repos: [Codertocat]\nwebhook: {{secret_file: {}}}\n", path.display()));
    let body = job("queued", |_| {});
    assert_eq!(deliver(&hints, "workflow_job", "1", &body).await, Outcome::Taken);
    std::fs::write(&path, "another secret of some length").unwrap();
    // As if a second had passed.
    hints.inner().file = None;
    assert_eq!(deliver(&hints, "workflow_job", "2", &body).await, Outcome::NotSigned);
    std::fs::remove_file(&path).unwrap();
    hints.inner().file = None;
    assert_eq!(deliver(&hints, "workflow_job", "3", &body).await, Outcome::Unavailable);
}

/// A server, and its hints.
async fn served() -> (std::net::SocketAddr, Hints) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, hints) = (listener.local_addr().unwrap(), hints());
    tokio::spawn(serve(listener, hints.clone()));
    (address, hints)
}

/// The status of the response to a request.
async fn ask(address: std::net::SocketAddr, head: &str, body: &[u8]) -> u16 {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("{head}\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    // The server may have responded and closed already.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    let _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    answer.split(' ').nth(1).unwrap_or_default().parse().unwrap_or_else(|_| panic!("{answer:?}"))
}

fn head(guid: &str, body: &[u8]) -> String {
    let signature = sign(SECRET, body);
    format!(
        "POST /webhook HTTP/1.1\r\nx-github-event: workflow_job\r\nx-github-delivery: {guid}\r\n\
         x-hub-signature-256: {signature}\r\ncontent-type: application/json"
    )
}

#[tokio::test]
async fn the_server_answers_at_once_and_counts_each_request() {
    let (address, hints) = served().await;
    let body = example("workflow_job.queued");
    assert_eq!(ask(address, &head("1", &body), &body).await, 202);
    assert_eq!(hints.take().len(), 1);
    assert_eq!(ask(address, &head("1", &body), &body).await, 200);
    assert_eq!(ask(address, "POST /webhook HTTP/1.1", &body).await, 401);
    assert_eq!(ask(address, &head("2", b"{"), b"{").await, 400);
    assert_eq!(ask(address, "PUT /webhook HTTP/1.1", b"").await, 405);
    assert_eq!(ask(address, "POST /elsewhere HTTP/1.1", b"").await, 404);
    let (metrics, _) = hints.0.status.metrics(Exposition::OpenMetrics);
    for (outcome, count) in
        [("taken", 1), ("repeated", 1), ("not_signed", 1), ("malformed", 1), ("elsewhere", 2), ("ping", 0)]
    {
        let line = format!("githubrunner_webhook_requests_total{{outcome=\"{outcome}\"}} {count}\n");
        assert!(metrics.contains(&line), "{outcome}: {metrics}");
    }
    assert!(metrics.contains("githubrunner_hints_total{source=\"webhook\"} 1\n"), "{metrics}");
}

#[tokio::test]
async fn a_load_balancer_can_ask_whether_this_replica_is_the_leader() {
    let (address, hints) = served().await;
    for (leads, status) in [(false, 503), (true, 200), (false, 503)] {
        hints.0.status.record(crate::status::Snapshot { leads, ..Default::default() });
        assert_eq!(ask(address, "GET /webhook HTTP/1.1", b"").await, status);
    }
}

#[tokio::test]
async fn a_body_is_limited_with_and_without_a_length() {
    let (address, _) = served().await;
    let large = vec![b' '; 3 << 20];
    assert_eq!(ask(address, "POST /webhook HTTP/1.1", &large).await, 413);
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = "POST /webhook HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("{:x}\r\n{}\r\n", 1 << 20, " ".repeat(1 << 20));
    for _ in 0..16 {
        if stream.write_all(chunk.as_bytes()).await.is_err() {
            break;
        }
    }
    let mut answer = Vec::new();
    let read = timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(read.is_err() || answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn a_delivery_is_answered_while_others_hold_connections_open() {
    let (address, _) = served().await;
    let mut held = Vec::new();
    let body = job("queued", |_| {});
    for number in 0..600 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // Some send nothing, some start a body and never end it.
        if number % 2 == 1 {
            let head = "POST /webhook HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n{";
            stream.write_all(head.as_bytes()).await.unwrap();
        }
        held.push(stream);
        if number % 100 == 99 {
            let guid = format!("g-{number}");
            let status = timeout(Duration::from_secs(5), ask(address, &head(&guid, &body), &body)).await;
            assert_eq!(status.unwrap(), 202, "{number}");
        }
    }
    let mut nothing = Vec::new();
    assert_eq!(held[0].read_to_end(&mut nothing).await.unwrap_or(0), 0, "the oldest has made way");
}
