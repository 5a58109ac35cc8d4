//! Webhooks on their way: over HTTP, and lost, late, twice and forged.

use std::{collections::VecDeque, sync::Mutex};

use http_body_util::Full;
use hyper::{Response, body::Incoming, service::service_fn};
use tokio::{net::TcpListener, sync::mpsc};

use super::*;
use crate::{
    carrier::{carry, over_http},
    fault::Fault,
    github::{HookPlace, JobSpec, Parcel, sign},
};

fn queue(shared: &Shared, repository: u64) {
    lock(shared).queue_run(repository, vec![JobSpec::new(&["x"], seconds(60))]).unwrap();
}

/// A hook of the organization, and whatever its making sent.
async fn hook(shared: &Shared, url: &str) -> String {
    lock(shared).github.add_token(TOKEN, Token::classic("octocat", &["repo", "admin:org_hook"]));
    let mut client = Client::connect(shared, Side::GitHub).await;
    let config = format!(r#"{{"url": "{url}", "content_type": "json", "secret": "a secret"}}"#);
    let body = format!(r#"{{"name": "web", "events": ["workflow_job"], "config": {config}}}"#);
    let (status, made) = client.json(Method::POST, "/orgs/octo-org/hooks", &body).await;
    assert_eq!(status, 201, "{made}");
    lock(shared).take_parcels();
    format!("/orgs/octo-org/hooks/{}/deliveries", made["id"])
}

/// What becomes of each delivery in turn.
struct Deliveries(VecDeque<Vec<(Duration, bool)>>);

impl Fault for Deliveries {
    fn carry(&mut self, parcel: Parcel, _: Timestamp) -> Vec<(Duration, Parcel)> {
        let copies = self.0.pop_front().unwrap_or_default();
        let forged = Parcel { signature: Some(sign("guessed", parcel.body.as_bytes())), ..parcel.clone() };
        copies.into_iter().map(|(wait, real)| (wait, if real { &parcel } else { &forged }.clone())).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_delivery_is_lost_late_twice_or_forged_as_the_fault_has_it() {
    let (shared, repository) = world(Options::default());
    hook(&shared, "http://ci.test/webhook").await;
    let at_once = Duration::ZERO;
    lock(&shared).fault = Box::new(Deliveries(VecDeque::from([
        vec![],
        vec![(seconds(30), true)],
        vec![(at_once, true), (seconds(5), true)],
        vec![(at_once, false)],
    ])));
    let (arrives, mut arrived) = mpsc::unbounded_channel();
    let began = tokio::time::Instant::now();
    let post = move |parcel: Parcel| {
        let signed = parcel.signature.as_deref() == Some(&sign("a secret", parcel.body.as_bytes()));
        arrives.send((began.elapsed().as_secs(), parcel.guid, signed)).unwrap();
        std::future::ready(Some(202))
    };
    tokio::spawn(carry(Arc::clone(&shared), post, std::future::pending()));
    for _ in 0..4 {
        queue(&shared, repository);
    }
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(arrived.recv().await.unwrap());
    }
    let of = |at: usize| (seen[at].0, seen[at].2);
    assert_eq!([of(0), of(1), of(2), of(3)], [(0, true), (0, false), (5, true), (30, true)]);
    assert_eq!(seen[0].1, seen[2].1, "the same delivery twice");
    assert_ne!(seen[0].1, seen[3].1);
    assert!(tokio::time::timeout(seconds(3600), arrived.recv()).await.is_err(), "one is lost");
}

#[tokio::test]
async fn a_delivery_arrives_over_http_and_its_answer_stands_in_the_log() {
    let (shared, repository) = world(Options::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/webhook?x=1", listener.local_addr().unwrap());
    let log = hook(&shared, &url).await;
    let place = lock(&shared).github.hooks().next().unwrap().place;
    assert!(matches!(place, HookPlace::Organization(_)));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let heads = Arc::clone(&seen);
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = service_fn(move |request: Request<Incoming>| {
            let heads = Arc::clone(&heads);
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                heads.lock().unwrap().push((head.method, head.uri, head.headers, body));
                Response::builder().status(418).body(Full::new(Bytes::new()))
            }
        });
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
    });
    queue(&shared, repository);
    let answered = |world: &World| world.github.hooks().any(|hook| hook.last_answer() == Some(418));
    carry(Arc::clone(&shared), over_http, until(&shared, "it is answered", answered)).await;
    let mut client = Client::connect(&shared, Side::GitHub).await;
    let (_, page) = client.json(Method::GET, &log, "").await;
    assert_eq!((&page[0]["status_code"], &page[0]["action"]), (&418.into(), &"queued".into()));
    let seen = seen.lock().unwrap();
    let (method, uri, headers, body) = &seen[0];
    assert_eq!((method, uri.path()), (&Method::POST, "/webhook"));
    assert_eq!(headers["x-github-event"], "workflow_job");
    assert_eq!(headers["x-hub-signature-256"], sign("a secret", body).as_str());
}

#[tokio::test]
async fn a_delivery_to_nobody_stands_in_the_log_as_failed() {
    let (shared, repository) = world(Options::default());
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    hook(&shared, &format!("http://{free}/webhook")).await;
    queue(&shared, repository);
    let (_, parcel) = lock(&shared).take_parcels().remove(0);
    assert_eq!(over_http(parcel.clone()).await, None);
    assert_eq!(over_http(Parcel { url: "https://ci.test/webhook".to_string(), ..parcel }).await, None);
}
