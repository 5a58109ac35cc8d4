//! The servers: in memory and on loopback, with faults, counted.

use std::collections::VecDeque;

use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::{
    fault::{Fault, Verdict},
    serve::serve_tcp,
};

/// Verdicts for the next exchanges: before, then after.
#[derive(Default)]
struct Script(VecDeque<(Verdict, Verdict)>, Option<Verdict>);

impl Fault for Script {
    fn before(&mut self, _: Side, _: &Request<Bytes>, _: Timestamp) -> Verdict {
        let (before, after) = self.0.pop_front().unwrap_or((Verdict::Pass, Verdict::Pass));
        self.1 = Some(after);
        before
    }

    fn after(
        &mut self,
        _: Side,
        _: &Request<Bytes>,
        response: &mut hyper::Response<Bytes>,
        _: Timestamp,
    ) -> Verdict {
        response.headers_mut().insert("x-changed", hyper::header::HeaderValue::from_static("yes"));
        self.1.take().unwrap_or(Verdict::Pass)
    }
}

fn script(shared: &Shared, before: Verdict, after: Verdict) {
    lock(shared).fault = Box::new(Script([(before, after)].into(), None));
}

const REGISTRATION: &str = "/repos/octo-org/app/actions/runners/generate-jitconfig";
const BODY: &str = r#"{"name": "r1", "runner_group_id": 1, "labels": ["x"]}"#;

#[tokio::test(start_paused = true)]
async fn a_fault_before_keeps_a_request_from_having_an_effect() {
    let (shared, _) = world(Options::default());
    script(&shared, Verdict::status(502, "bad gateway"), Verdict::Pass);
    let mut client = Client::connect(&shared, Side::GitHub).await;
    let (status, _, body) = client.ask(Method::POST, REGISTRATION, BODY).await.unwrap();
    assert_eq!((status, &body[..]), (502, &b"bad gateway"[..]));
    script(&shared, Verdict::Reset, Verdict::Pass);
    assert!(client.ask(Method::POST, REGISTRATION, BODY).await.is_err());
    let mut client = Client::connect(&shared, Side::GitHub).await;
    script(&shared, Verdict::Stall, Verdict::Pass);
    let stalled = tokio::time::timeout(seconds(600), client.ask(Method::POST, REGISTRATION, BODY)).await;
    assert!(stalled.is_err());
    assert_eq!(lock(&shared).github.runners().count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_fault_after_loses_only_the_answer() {
    for (after, index) in [(Verdict::Reset, 0), (Verdict::status(500, "oops"), 1), (Verdict::Truncate(10), 2)]
    {
        let (shared, _) = world(Options::default());
        script(&shared, Verdict::Pass, after);
        let mut client = Client::connect(&shared, Side::GitHub).await;
        let answer = client.ask(Method::POST, REGISTRATION, BODY).await;
        match index {
            1 => assert_eq!(answer.unwrap().0, 500),
            _ => assert!(answer.is_err(), "{answer:?}"),
        }
        assert_eq!(lock(&shared).github.runners().count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_delay_is_only_a_delay() {
    let (shared, _) = world(Options::default());
    script(&shared, Verdict::Delay(seconds(7)), Verdict::Delay(seconds(5)));
    let mut client = Client::connect(&shared, Side::GitHub).await;
    let before = tokio::time::Instant::now();
    assert_eq!(client.json(Method::POST, REGISTRATION, BODY).await.0, 201);
    assert_eq!(before.elapsed().as_secs(), 12);
}

#[tokio::test(start_paused = true)]
async fn requests_are_counted_by_route() {
    let (shared, _) = world(Options::default());
    let mut client = Client::connect(&shared, Side::GitHub).await;
    for target in [
        "/repos/octo-org/app/actions/runs?status=queued",
        "/repos/octo-org/other/actions/runs",
        "/repositories/17/actions/runs/4711/jobs",
    ] {
        client.ask(Method::GET, target, "").await.unwrap();
    }
    let mut nomad = Client::connect(&shared, Side::Nomad).await;
    nomad.ask(Method::GET, "/v1/var/nomad/jobs/ghr-1?namespace=x", "").await.unwrap();
    nomad.ask(Method::DELETE, "/v1/job/ghr-1?purge=true", "").await.unwrap();
    let mut world = lock(&shared);
    let requests = world.requests();
    assert_eq!(requests.of(Side::GitHub, "GET /repos/{owner}/{repo}/actions/runs"), 2);
    assert_eq!(requests.of(Side::GitHub, "GET /repositories/{id}/actions/runs/{id}/jobs"), 1);
    assert_eq!(requests.of(Side::Nomad, "GET /v1/var/{path}"), 1);
    assert_eq!(requests.of(Side::Nomad, "DELETE /v1/job/{name}"), 1);
    assert_eq!((requests.total(Side::GitHub), requests.total(Side::Nomad)), (3, 2));
    world.reset_requests();
    assert_eq!(world.requests().routes().count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_without_end_is_refused() {
    let (shared, _) = world(Options::default());
    let mut client = Client::connect(&shared, Side::GitHub).await;
    let long = "x".repeat((8 << 20) + 1);
    // The refusal may come while the body is still on its way.
    match client.ask(Method::POST, REGISTRATION, &long).await {
        Ok((status, _, _)) => assert_eq!(status, 413),
        Err(error) => assert!(!error.is_empty()),
    }
    assert_eq!(lock(&shared).requests().total(Side::GitHub), 0);
}

#[tokio::test]
async fn a_listener_serves_until_the_shutdown() {
    let (shared, _) = world(Options::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let shutdown = async move { drop(stopped.await) };
    let server = tokio::spawn(serve_tcp(listener, Side::GitHub, Arc::clone(&shared), shutdown));
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut client = Client(sender);
    for _ in 0..3 {
        assert_eq!(client.json(Method::GET, "/repos/octo-org/app", "").await.0, 200);
    }
    stop.send(()).unwrap();
    server.await.unwrap();
    // Connections still open are dropped with it.
    assert!(client.ask(Method::GET, "/repos/octo-org/app", "").await.is_err());
    drop(connection);
    assert!(TcpStream::connect(address).await.is_err());
}

/// An open event stream.
struct Stream {
    body: hyper::body::Incoming,
    read: Vec<u8>,
}

impl Stream {
    /// Opens it; a client sees the status before anything else.
    async fn open(shared: &Shared, token: &str) -> Stream {
        let mut client = Client::connect(shared, Side::Nomad).await;
        let target = "/v1/event/stream?topic=Job&topic=Allocation&namespace=default";
        let request = Request::get(target).header("host", "nomad.test").header("x-nomad-token", token);
        let response = client.0.send_request(request.body(Full::new(Bytes::new())).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        Stream { body: response.into_body(), read: Vec::new() }
    }

    /// The next line; None when the stream has ended.
    async fn line(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            self.read.extend(self.body.frame().await?.unwrap().into_data().unwrap());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_event_stream_tells_of_jobs_at_once_and_is_never_silent_for_long() {
    let (shared, _) = world(Options::default());
    let start = tokio::time::Instant::now();
    let mut stream = Stream::open(&shared, "").await;
    assert_eq!(stream.line().await, Some(serde_json::json!({})));
    assert_eq!(start.elapsed(), Duration::ZERO);
    let mut client = Client::connect(&shared, Side::Nomad).await;
    let job = super::world::nomad_job("ghr-1", 1);
    assert_eq!(client.json(Method::PUT, "/v1/jobs", &job).await.0, 200);
    let first = stream.line().await.unwrap();
    assert_eq!((&first["Events"][0]["Topic"], &first["Events"][0]["Key"]), (&"Job".into(), &"ghr-1".into()));
    assert!(start.elapsed() < seconds(1));
    let silence = async { while stream.line().await.unwrap() != serde_json::json!({}) {} };
    tokio::time::timeout(seconds(31), silence).await.unwrap();
    // The same from the beginning for another subscriber.
    let mut second = Stream::open(&shared, "").await;
    assert_eq!(second.line().await, Some(serde_json::json!({})));
    assert_eq!(second.line().await, Some(first));
    lock(&shared).end_streams();
    while stream.line().await.is_some() {}
}

#[tokio::test(start_paused = true)]
async fn a_refused_event_stream_is_silent_and_ends() {
    let (shared, _) = world(Options::default());
    {
        let mut world = lock(&shared);
        let options = nomad::Options { acl: true, ..nomad::Options::default() };
        world.nomad = Nomad::new(options, "2026-03-01T12:00:00Z".parse().unwrap());
    }
    let start = tokio::time::Instant::now();
    let mut stream = Stream::open(&shared, "bad").await;
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(stream.line().await, None);
    assert_eq!(start.elapsed().as_secs(), 15);
}
