//! The client against small servers in memory, on sockets and behind TLS.

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    time::Instant,
};

use super::*;

mod secure;

/// A request as a test's server sees it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Seen {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

pub(crate) type Answer = hyper::Response<Full<Bytes>>;

/// A response with a status, headers and a body.
pub(crate) fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
    let mut builder = hyper::Response::builder().status(status);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(Full::new(body.into())).unwrap()
}

/// An in-memory endpoint whose requests `handler` answers, and the requests it has seen.
pub(crate) fn server<F>(handler: F) -> (Endpoint, Arc<Mutex<Vec<Seen>>>)
where
    F: Fn(&Seen) -> Answer + Send + Sync + 'static,
{
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (handler, log) = (Arc::new(handler), seen.clone());
    let endpoint = raw(move |stream| {
        let (handler, log) = (handler.clone(), log.clone());
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let (handler, log) = (handler.clone(), log.clone());
            async move {
                let (parts, body) = request.into_parts();
                let seen = Seen {
                    method: parts.method,
                    path: parts.uri.to_string(),
                    headers: parts.headers,
                    body: body.collect().await.map(|body| body.to_bytes()).unwrap_or_default(),
                };
                let answer = handler(&seen);
                log.lock().unwrap().push(seen);
                Ok::<_, Infallible>(answer)
            }
        });
        async move {
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await
                .ok();
        }
    });
    (endpoint, seen)
}

/// An in-memory endpoint that passes every connection to `connection`.
fn raw<F, T>(connection: F) -> Endpoint
where
    F: Fn(DuplexStream) -> T + Send + Sync + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    Endpoint::Memory {
        name: "host.test".into(),
        connect: Arc::new(move || {
            let (ours, theirs) = tokio::io::duplex(64 * 1024);
            tokio::spawn(connection(theirs));
            Ok(ours)
        }),
    }
}

async fn read_head(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

fn client(endpoint: Endpoint) -> Client {
    Client::new(endpoint, Options::default()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_exchange_carries_method_path_headers_and_body_both_ways() {
    let (endpoint, seen) = server(|seen| {
        assert_eq!(seen.body, r#"{"a":1}"#);
        answer(201, &[("date", "Sun, 06 Nov 1994 08:49:37 GMT"), ("x-more", "yes")], r#"{"b":2}"#)
    });
    let request = Request::put("/v1/jobs").query("name space", "a/b&c").json(&serde_json::json!({"a": 1}));
    let response = client(endpoint).send(request.bearer(&Secret::new("tok"))).await.unwrap();
    assert_eq!(response.status, StatusCode::CREATED);
    assert_eq!(response.header("x-more"), Some("yes"));
    assert_eq!(response.json::<serde_json::Value>().unwrap(), serde_json::json!({"b": 2}));
    assert_eq!(response.date(), Some("1994-11-06T08:49:37Z".parse().unwrap()));
    assert_eq!(response.exchange.to_string(), "PUT http://host.test/v1/jobs?name%20space=a%2Fb%26c");
    let seen = &seen.lock().unwrap()[0];
    assert_eq!((&seen.method, seen.path.as_str()), (&Method::PUT, "/v1/jobs?name%20space=a%2Fb%26c"));
    assert_eq!(seen.header("authorization"), "Bearer tok");
    assert_eq!(seen.header("host"), "host.test");
    assert!(seen.header("user-agent").starts_with("githubrunner/"));
}

#[tokio::test(start_paused = true)]
async fn a_post_without_a_body_has_a_length_of_zero() {
    let (endpoint, seen) = server(|_| answer(204, &[], ""));
    client(endpoint).send(Request::post("/x")).await.unwrap();
    assert_eq!(seen.lock().unwrap()[0].header("content-length"), "0");
}

#[tokio::test(start_paused = true)]
async fn a_refused_connection_differs_from_a_stall() {
    let refused = Endpoint::Memory {
        name: "host.test".into(),
        connect: Arc::new(|| Err(io::ErrorKind::ConnectionRefused.into())),
    };
    let error = client(refused).send(Request::post("/x")).await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error}");
    assert!(!error.is_ambiguous() && error.is_transient());
    assert!(
        error.to_string().starts_with("POST http://host.test/x: cannot connect: connection refused"),
        "{error}"
    );

    let stalls = raw(|mut stream| async move {
        read_head(&mut stream).await;
        std::future::pending::<()>().await;
    });
    let started = Instant::now();
    let request = Request::post("/x").deadline(Duration::from_secs(7));
    let error = client(stalls).send(request).await.unwrap_err();
    assert_eq!(started.elapsed(), Duration::from_secs(7));
    assert!(matches!(error, Error::Timeout { sent: true, .. }), "{error}");
    assert!(error.is_ambiguous());
}

#[tokio::test(start_paused = true)]
async fn the_deadline_covers_the_wait_for_a_permit_and_the_body() {
    let body_stalls = raw(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab").await.unwrap();
        std::future::pending::<()>().await;
    });
    let options = Options { max_connections: 1, deadline: Duration::from_secs(10), ..Options::default() };
    let client = Client::new(body_stalls, options).unwrap();
    let first = client.send(Request::get("/1"));
    let second = client.send(Request::get("/2").deadline(Duration::from_secs(4)));
    let (first, second) = tokio::join!(first, second);
    assert!(matches!(first.unwrap_err(), Error::Timeout { sent: true, .. }));
    let second = second.unwrap_err();
    assert!(matches!(second, Error::Timeout { sent: false, .. }), "{second}");
    assert!(!second.is_ambiguous());
    assert_eq!(second.to_string(), "GET http://host.test/2: timed out after 4.0 s connecting");
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_connection_closes_without_a_response_is_sent_once_and_ambiguous() {
    let heads = Arc::new(AtomicUsize::new(0));
    let count = heads.clone();
    let endpoint = raw(move |mut stream| {
        let count = count.clone();
        async move {
            // The first request of a connection is answered, the second is read and then dropped.
            read_head(&mut stream).await;
            count.fetch_add(1, Ordering::SeqCst);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            read_head(&mut stream).await;
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let client = client(endpoint);
    assert_eq!(client.send(Request::get("/warm")).await.unwrap().body, "ok");
    let error = client.send(Request::post("/once")).await.unwrap_err();
    assert!(matches!(error, Error::Closed { .. }), "{error}");
    assert!(error.is_ambiguous());
    assert_eq!(heads.load(Ordering::SeqCst), 2);
}

/// The first attempt is read and not answered; after that, there is no server any more.
#[tokio::test(start_paused = true)]
async fn a_failed_last_attempt_does_not_undo_the_first_ones_effect() {
    let connections = Arc::new(AtomicUsize::new(0));
    let endpoint = Endpoint::Memory {
        name: "host.test".into(),
        connect: Arc::new(move || {
            if connections.fetch_add(1, Ordering::SeqCst) > 0 {
                return Err(std::io::ErrorKind::ConnectionRefused.into());
            }
            let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
            tokio::spawn(async move { read_head(&mut theirs).await });
            Ok(ours)
        }),
    };
    let client = client(endpoint);
    let error = client.send_with_retries(Request::put("/x"), &RetryPolicy::default()).await.unwrap_err();
    assert!(error.to_string().contains("cannot connect"), "{error}");
    assert!(error.is_ambiguous() && error.is_transient());
    let error = client.send(Request::put("/x")).await.unwrap_err();
    assert!(!error.is_ambiguous(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_closed_while_idle_is_replaced() {
    let endpoint = raw(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
    });
    let client = client(endpoint);
    for _ in 0..3 {
        assert_eq!(client.send(Request::post("/x")).await.unwrap().body, "ok");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn idle_connections_are_reused_and_then_dropped() {
    let connections = Arc::new(AtomicUsize::new(0));
    let ended = Arc::new(AtomicUsize::new(0));
    let (made, gone) = (connections.clone(), ended.clone());
    let endpoint = raw(move |mut stream| {
        made.fetch_add(1, Ordering::SeqCst);
        let gone = gone.clone();
        async move {
            while !read_head(&mut stream).await.is_empty() {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            }
            gone.fetch_add(1, Ordering::SeqCst);
        }
    });
    let client = client(endpoint);
    for _ in 0..5 {
        client.send(Request::get("/x")).await.unwrap();
        tokio::time::sleep(Duration::from_secs(15)).await;
    }
    assert_eq!((connections.load(Ordering::SeqCst), ended.load(Ordering::SeqCst)), (1, 0));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(ended.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn bodies_are_limited_with_and_without_a_length() {
    for head in ["content-length: 11\r\n\r\n", "transfer-encoding: chunked\r\n\r\nb\r\n"] {
        let endpoint = raw(move |mut stream| async move {
            read_head(&mut stream).await;
            stream
                .write_all(format!("HTTP/1.1 200 OK\r\n{head}hello world\r\n0\r\n\r\n").as_bytes())
                .await
                .ok();
        });
        let client = client(endpoint);
        let error = client.send(Request::get("/x").max_body(10)).await.unwrap_err();
        assert!(matches!(error, Error::BodyTooLarge { limit: 10, .. }), "{error}");
        assert_eq!(client.send(Request::get("/x").max_body(11)).await.unwrap().body, "hello world");
    }
}

#[tokio::test(start_paused = true)]
async fn large_bodies_take_turns_and_small_ones_do_not_wait_for_them() {
    let endpoint = raw(|mut stream| async move {
        while let head = read_head(&mut stream).await
            && !head.is_empty()
        {
            let length = if head.starts_with("GET /large") { 3 << 20 } else { 1 << 20 };
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.ok();
            stream.write_all(&vec![b'x'; length]).await.ok();
        }
    });
    let client = client(endpoint);
    let first = client.send(Request::get("/large/1")).await.unwrap();
    let second = client.send(Request::get("/large/2").deadline(Duration::from_secs(5)));
    assert!(matches!(second.await.unwrap_err(), Error::Timeout { .. }), "the first one is still in memory");
    assert_eq!(client.send(Request::get("/small")).await.unwrap().body.len(), 1 << 20);
    drop(first);
    assert_eq!(client.send(Request::get("/large/3")).await.unwrap().body.len(), 3 << 20);
}

#[tokio::test(start_paused = true)]
async fn an_endless_header_section_is_an_error_before_it_costs_anything() {
    for header in ["x: y\r\n".to_owned(), format!("x: {}", "y".repeat(4000))] {
        let sent = Arc::new(AtomicUsize::new(0));
        let (count, size) = (sent.clone(), header.len());
        let endpoint = raw(move |mut stream| {
            let (count, header) = (count.clone(), header.clone());
            async move {
                read_head(&mut stream).await;
                stream.write_all(b"HTTP/1.1 200 OK\r\n").await.ok();
                while stream.write_all(header.as_bytes()).await.is_ok() {
                    count.fetch_add(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                }
            }
        });
        let error = client(endpoint).send(Request::get("/x")).await.unwrap_err();
        assert!(matches!(error, Error::Closed { .. }), "{error}");
        // The connection's own buffer comes on top.
        let read = sent.load(Ordering::SeqCst) * size;
        assert!(read <= 3 * 64 * 1024, "{read} bytes of headers were taken");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_cut_off_is_an_error() {
    let endpoint = raw(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{\"half\":").await.unwrap();
    });
    let error = client(endpoint).send(Request::get("/x")).await.unwrap_err();
    assert!(matches!(error, Error::Closed { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn there_are_no_more_connections_than_allowed() {
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (now, high) = (open.clone(), most.clone());
    let endpoint = raw(move |mut stream| {
        let (now, high) = (now.clone(), high.clone());
        async move {
            high.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            while !read_head(&mut stream).await.is_empty() {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.is_err() {
                    break;
                }
            }
            now.fetch_sub(1, Ordering::SeqCst);
        }
    });
    let client = Client::new(endpoint, Options { max_connections: 3, ..Options::default() }).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let client = client.clone();
        tasks.spawn(async move { client.send(Request::get("/x")).await.map(|answer| answer.status) });
    }
    for result in tasks.join_all().await {
        assert_eq!(result.unwrap(), StatusCode::OK);
    }
    assert_eq!(most.load(Ordering::SeqCst), 3);
}

/// Gives these responses in turn, the last one forever.
fn in_turn(answers: Vec<(u16, Vec<(&'static str, &'static str)>)>) -> (Endpoint, Arc<Mutex<Vec<Seen>>>) {
    let turn = AtomicUsize::new(0);
    server(move |_| {
        let (status, headers) = &answers[turn.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1)];
        answer(*status, headers, "")
    })
}

#[tokio::test(start_paused = true)]
async fn reads_are_retried_with_growing_waits_within_bounds() {
    let policy = RetryPolicy::default();
    let (endpoint, seen) = in_turn(vec![(503, vec![]), (502, vec![]), (200, vec![])]);
    let started = Instant::now();
    let response = client(endpoint).send_with_retries(Request::get("/x"), &policy).await.unwrap();
    assert_eq!((response.status, seen.lock().unwrap().len()), (StatusCode::OK, 3));
    let waited = started.elapsed();
    assert!(waited >= Duration::from_millis(375) && waited <= Duration::from_millis(755), "{waited:?}");

    let (endpoint, seen) = in_turn(vec![(500, vec![])]);
    let response = client(endpoint).send_with_retries(Request::get("/x"), &policy).await.unwrap();
    assert_eq!((response.status.as_u16(), seen.lock().unwrap().len()), (500, 3));

    let (endpoint, seen) = in_turn(vec![(404, vec![])]);
    client(endpoint).send_with_retries(Request::get("/x"), &policy).await.unwrap();
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn retries_honour_the_servers_wait_within_a_limit() {
    let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
    let cases = [
        (vec![("retry-after", "3")], 2, 3),
        (vec![("retry-after", "60")], 1, 0),
        (vec![date, ("retry-after", "Sun, 06 Nov 1994 08:49:41 GMT")], 2, 4),
    ];
    for (headers, requests, seconds) in cases {
        let (endpoint, seen) = in_turn(vec![(429, headers.clone()), (200, vec![])]);
        let started = Instant::now();
        client(endpoint).send_with_retries(Request::get("/x"), &RetryPolicy::default()).await.unwrap();
        assert_eq!(seen.lock().unwrap().len(), requests, "{headers:?}");
        assert_eq!(started.elapsed().as_secs(), seconds, "{headers:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn all_attempts_share_one_total_time() {
    let endpoint = raw(|mut stream| async move {
        read_head(&mut stream).await;
        std::future::pending::<()>().await;
    });
    let policy = RetryPolicy { attempts: 100, ..RetryPolicy::default() };
    let started = Instant::now();
    let request = Request::get("/x").deadline(Duration::from_secs(8));
    client(endpoint).send_with_retries(request, &policy).await.unwrap_err();
    assert!(started.elapsed() <= policy.total && started.elapsed() >= Duration::from_secs(24));
}

#[tokio::test(start_paused = true)]
async fn secrets_are_shown_nowhere() {
    let (endpoint, _) = server(|_| answer(200, &[], r#"{"token": "MARKED"}"#));
    let token = Secret::new("MARKED");
    let client = client(endpoint);
    let request =
        Request::post("/x?access_token=MARKED&next_token=job").bearer(&token).body("MARKED").secret_answer();
    let mut shown = format!("{token} {token:?} {request:?} {client:?} {:?}", request.headers);
    let response = client.send(request).await.unwrap();
    let error = response.json::<Vec<u8>>().unwrap_err();
    #[derive(Debug, serde::Deserialize)]
    struct Wrong {
        #[allow(dead_code)]
        token: u64,
    }
    let wrong = response.json::<Wrong>().unwrap_err();
    shown += &format!("{response:?} {error} {error:?} {wrong} {wrong:?} {}", response.error());
    assert!(!shown.contains("MARKED"), "{shown}");
    assert!(shown.contains("access_token=***&next_token=job"), "{shown}");
    let with_password = Endpoint::parse("http://user:MARKED@127.0.0.1:1/base/").unwrap();
    assert_eq!(format!("{with_password:?}"), "Endpoint(http://127.0.0.1:1/base)");
    let bad = client.send(Request::get("/x").bearer(&Secret::new("MARKED\n"))).await.unwrap_err();
    assert!(matches!(bad, Error::Invalid { .. }));
    assert!(!bad.to_string().contains("MARKED") && bad.to_string().contains("newline"), "{bad}");
}

#[tokio::test(start_paused = true)]
async fn errors_show_the_start_of_the_body_without_control_characters() {
    let (endpoint, _) = server(|_| answer(500, &[], format!("one\r\n\u{1b}[31mtwo {}", "xxx ".repeat(300))));
    let error = client(endpoint).send(Request::get("/x")).await.unwrap().success().unwrap_err();
    let shown = error.to_string();
    assert!(
        shown.starts_with("GET http://host.test/x: status 500 Internal Server Error: one [31mtwo xxx"),
        "{shown}"
    );
    assert!(shown.len() < 450 && shown.ends_with('…'), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn errors_escape_directional_marks_in_paths_and_bodies() {
    let (endpoint, _) = server(|_| answer(500, &[], "one \u{202e}owt\u{2066} \u{200b}three".to_owned()));
    let error = client(endpoint).send(Request::get("/x?\u{202e}a")).await.unwrap().success().unwrap_err();
    assert!(error.to_string().contains("/x?\\u{202e}a: status 500"), "{error}");
    assert!(error.to_string().ends_with("one \\u{202e}owt\\u{2066} \\u{200b}three"), "{error}");
    for text in [error.to_string(), format!("{error:?}")] {
        assert!(!text.chars().any(crate::text::is_harmful), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn lines_arrive_one_by_one_within_limits() {
    let endpoint = raw(|mut stream| async move {
        let head = read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n{}\n{\"a\"").await.unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        stream.write_all(b":1}\r\n\nlast\nhalf").await.unwrap();
        if head.contains("/long") {
            stream.write_all(&[b'x'; 200]).await.ok();
        }
        if head.contains("/stays") {
            std::future::pending::<()>().await;
        }
    });
    let client = client(endpoint);
    let wait = Duration::from_secs(2);
    let mut lines = client.lines(Request::get("/ends").max_body(100)).await.unwrap();
    assert_eq!(lines.next(wait).await.unwrap().unwrap(), "{}");
    let stalled = lines.next(wait).await.unwrap_err();
    assert!(matches!(stalled, Error::Timeout { .. }), "{stalled}");
    // An abandoned wait loses nothing.
    assert_eq!(lines.next(wait * 5).await.unwrap().unwrap(), "{\"a\":1}");
    assert_eq!(lines.next(wait).await.unwrap().unwrap(), "");
    assert_eq!(lines.next(wait).await.unwrap().unwrap(), "last");
    assert_eq!(lines.next(wait).await.unwrap(), None);

    let mut lines = client.lines(Request::get("/long").max_body(100)).await.unwrap();
    let mut results = Vec::new();
    for _ in 0..5 {
        results.push(lines.next(wait * 5).await);
    }
    assert!(matches!(results[4], Err(Error::BodyTooLarge { limit: 100, .. })), "{results:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_stream_is_an_error_with_its_status() {
    let (endpoint, _) = server(|_| answer(403, &[], "Permission denied"));
    let error = client(endpoint).lines(Request::get("/v1/event/stream")).await.unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::FORBIDDEN));
    assert!(error.to_string().contains("Permission denied"));
}

#[tokio::test]
async fn a_unix_socket_is_an_endpoint() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("api.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        head
    });
    let client = client(Endpoint::parse(&format!("unix://{}", path.display())).unwrap());
    assert_eq!(client.send(Request::get("/v1/jobs")).await.unwrap().body, "ok");
    assert!(serving.await.unwrap().starts_with("GET /v1/jobs HTTP/1.1\r\n"));
    drop(directory);
    let error = client.send(Request::get("/v1/jobs").deadline(Duration::from_secs(5))).await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error}");
}

#[tokio::test]
async fn an_address_can_have_a_path_and_a_password() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heads = Vec::new();
        for _ in 0..2 {
            heads.push(read_head(&mut stream).await);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        }
        heads
    });
    let client = client(Endpoint::parse(&format!("http://me:pass%20word@{address}/api/v3/")).unwrap());
    let response = client.send(Request::get("/user")).await.unwrap();
    assert_eq!(response.exchange.url, format!("http://{address}/api/v3/user"));
    client.send(Request::get("/api/v3/link").from_root()).await.unwrap();
    let heads = serving.await.unwrap();
    assert!(heads[0].starts_with("GET /api/v3/user HTTP/1.1\r\n"), "{heads:?}");
    assert!(heads[0].contains("authorization: Basic bWU6cGFzcyB3b3Jk\r\n"), "{heads:?}");
    assert!(heads[1].starts_with("GET /api/v3/link HTTP/1.1\r\n"), "{heads:?}");
}

#[test]
fn invalid_addresses_are_refused() {
    for bad in ["", "127.0.0.1:4646", "ftp://host", "unix://relative", "http://"] {
        assert!(Endpoint::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn plain_http_to_another_machine_is_exposed() {
    let exposed = |address: &str| Endpoint::parse(address).unwrap().is_exposed();
    for address in ["http://nomad.service.consul:4646", "http://10.0.0.1:4646", "http://[2001:db8::1]/"] {
        assert!(exposed(address), "{address}");
    }
    for address in
        ["https://nomad:4646", "http://127.0.0.1:4646", "http://localhost", "http://[::1]", "unix:///x"]
    {
        assert!(!exposed(address), "{address}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_exchange_is_observed_without_its_query_even_if_it_is_cancelled() {
    #[derive(Debug, Default)]
    struct Told(Mutex<Vec<(String, Option<u16>, Duration)>>);
    impl Observer for Told {
        fn exchanged(&self, exchange: Exchanged<'_>) {
            let told = format!("{} {}", exchange.method, exchange.path);
            let status = exchange.status.map(|status| status.as_u16());
            self.0.lock().unwrap().push((told, status, exchange.took));
        }
    }
    let told = Arc::new(Told::default());
    let (endpoint, _) = server(|_| answer(404, &[], ""));
    let observed = client(endpoint);
    observed.observed_by(told.clone());
    observed.send(Request::get("/x?secret=1")).await.unwrap();
    let stalls = client(raw(|mut stream| async move {
        read_head(&mut stream).await;
        std::future::pending::<()>().await;
    }));
    stalls.observed_by(told.clone());
    let second = Duration::from_secs(1);
    assert!(tokio::time::timeout(second, stalls.send(Request::post("/y"))).await.is_err());
    let told = told.0.lock().unwrap().clone();
    assert_eq!((told[0].0.as_str(), told[0].1), ("GET /x", Some(404)));
    assert_eq!(told[1..], [("POST /y".to_owned(), None, second)]);
}
