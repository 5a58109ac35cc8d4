//! The HTTP server for the status.
//!
//! Every client gets a response: a connection serves one request, and if too many are open, the oldest is closed. An
//! event stream is such a connection too: it ends after a while, and clients reconnect.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Frame, Incoming},
    header::{self, ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue},
};
use tokio::{
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until, timeout_at},
};

use super::{Exposition, Status, access::Refused, page};
use crate::{listen, text::harmless_json};

/// The maximum number of open connections. One more closes the oldest, so that nobody can block a health
/// check.
const CONNECTIONS: usize = 32;

/// The maximum number of event streams among them. Clients that get none retry later.
const STREAMS: usize = 12;

/// The deadline of a connection. The request must still arrive within seconds.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(60);

/// An event stream ends by itself before that, because a browser treats an interrupted stream as an error.
const STREAM_DEADLINE: Duration = Duration::from_secs(50);

/// The shortest time between two events of a stream.
const EVENTS_APART: Duration = Duration::from_secs(1);

/// The media type that OpenMetrics clients accept.
const OPEN_METRICS: &str = "application/openmetrics-text";

/// The available paths.
const PATHS: &str = "/ /api/v1/state /api/v1/events /healthz /readyz /metrics";

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Serves the status until it is dropped.
pub async fn serve(listener: TcpListener, status: Status) {
    let streams = Arc::new(Semaphore::new(STREAMS));
    let answer = move |request: Request<Incoming>| std::future::ready(answer(&status, &streams, &request));
    listen::serve_for(listener, "status", CONNECTIONS, CONNECTION_DEADLINE, answer).await;
}

fn answer(status: &Status, streams: &Arc<Semaphore>, request: &Request<Incoming>) -> Answer {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let verdict = |verdict: Result<String, String>| match verdict {
        Ok(text) => plain(StatusCode::OK, text),
        Err(text) => plain(StatusCode::SERVICE_UNAVAILABLE, text),
    };
    match request.uri().path() {
        _ if !is_read => plain(StatusCode::METHOD_NOT_ALLOWED, "use GET\n".to_owned()),
        "/healthz" => verdict(status.health()),
        "/readyz" => verdict(status.readiness()),
        "/metrics" => metrics(status, request.headers()),
        // These contain no data.
        "/style.css" => typed(StatusCode::OK, page::STYLE, "text/css; charset=utf-8"),
        "/script.js" => typed(StatusCode::OK, page::SCRIPT, "text/javascript; charset=utf-8"),
        "/icon.svg" => typed(StatusCode::OK, page::ICON, "image/svg+xml"),
        path @ ("/" | "/api/v1/state" | "/api/v1/events") => match status.access().check(request.headers()) {
            Err(refused) => refusal(refused),
            Ok(()) if path == "/" => html(status),
            Ok(()) if path == "/api/v1/state" => state(status),
            Ok(()) => events(status, streams),
        },
        _ => plain(StatusCode::NOT_FOUND, format!("not found: {PATHS}\n")),
    }
}

/// In the format that the client accepts, as Prometheus does.
fn metrics(status: &Status, headers: &HeaderMap) -> Answer {
    let mut accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let format = match accepted.any(|kinds| kinds.contains(OPEN_METRICS)) {
        true => Exposition::OpenMetrics,
        false => Exposition::Prometheus,
    };
    let (text, kind) = status.metrics(format);
    typed(StatusCode::OK, text, kind)
}

fn html(status: &Status) -> Answer {
    match page::render(&status.state()) {
        Ok(text) => typed(StatusCode::OK, text, "text/html; charset=utf-8"),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot render the page: {error}\n")),
    }
}

fn state(status: &Status) -> Answer {
    match serde_json::to_string(&status.state()) {
        Ok(text) => typed(StatusCode::OK, harmless_json(&text), "application/json"),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot write the state: {error}\n")),
    }
}

/// An event after each pass: `event: pass`, with the state's revision as its ID and the numbers of jobs as its data.
fn events(status: &Status, streams: &Arc<Semaphore>) -> Answer {
    let Ok(permit) = streams.clone().try_acquire_owned() else {
        let mut answer = plain(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{STREAMS} streams are already open: retry later\n"),
        );
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("10"));
        return answer;
    };
    let follow = Follow {
        news: status.0.news.subscribe(),
        status: status.clone(),
        end: Instant::now() + STREAM_DEADLINE,
        next: None,
        _permit: permit,
    };
    let events = stream::unfold(follow, |mut follow| async {
        let event = follow.event().await?;
        Some((event, follow))
    });
    let frames = events.map(|event| Ok(Frame::data(Bytes::from(event))));
    with_headers(Response::new(StreamBody::new(frames).boxed_unsync()), "text/event-stream")
}

/// An event stream.
struct Follow {
    news: tokio::sync::watch::Receiver<u64>,
    status: Status,
    end: Instant,
    /// When the next event may be sent; `None` before the first one, which is sent at once.
    next: Option<Instant>,
    _permit: OwnedSemaphorePermit,
}

impl Follow {
    /// The next event; `None` at the end.
    async fn event(&mut self) -> Option<String> {
        if let Some(next) = self.next {
            let wait = async {
                sleep_until(next).await;
                self.news.changed().await
            };
            timeout_at(self.end, wait).await.ok()?.ok()?;
        }
        self.next = Some(Instant::now() + EVENTS_APART);
        let revision = *self.news.borrow_and_update();
        let (queued, held, running) = self.status.jobs();
        let data = serde_json::json!({ "queued": queued, "held": held, "running": running });
        Some(format!("retry: 1000\nid: {revision}\nevent: pass\ndata: {data}\n\n"))
    }
}

fn refusal(refused: Refused) -> Answer {
    let (status, text) = match refused {
        Refused::Unauthorized => (
            StatusCode::UNAUTHORIZED,
            "status.token is required: send `Authorization: Bearer TOKEN`, or in a browser any user and the token as the password\n",
        ),
        Refused::Closed => (
            StatusCode::FORBIDDEN,
            "The page and the API are closed, because other machines can reach this address: set status.token, or status.public: true. \
             /healthz, /readyz and /metrics are open.\n",
        ),
        Refused::ForeignHost => (
            StatusCode::FORBIDDEN,
            "Use an IP address of this machine, like 127.0.0.1: without status.token, other host names are refused, because a web \
             page's own host name could resolve to this machine.\n",
        ),
    };
    let mut answer = plain(status, text.to_owned());
    if refused == Refused::Unauthorized {
        let challenge = HeaderValue::from_static("Basic realm=\"githubrunner\", charset=\"UTF-8\"");
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    answer
}

fn plain(status: StatusCode, text: String) -> Answer {
    typed(status, text, "text/plain; charset=utf-8")
}

fn typed(status: StatusCode, text: impl Into<Bytes>, kind: &'static str) -> Answer {
    let mut answer = Response::new(Full::new(text.into()).boxed_unsync());
    *answer.status_mut() = status;
    with_headers(answer, kind)
}

/// With headers that restrict what the browser may do.
fn with_headers(mut answer: Answer, kind: &'static str) -> Answer {
    let headers = [
        (CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, page::POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in headers {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        time::timeout,
    };

    use super::*;

    async fn ask(address: std::net::SocketAddr) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_health_check_is_answered_while_others_hold_connections_open() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, Status::new(Duration::from_secs(60))));
        let mut held = Vec::new();
        for number in 0..3 * CONNECTIONS {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // Some send nothing, some start a request, some have had a response and stay.
            match number % 3 {
                0 => {}
                1 => stream.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap(),
                _ => stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap(),
            }
            held.push(stream);
            if number % 8 == 0 {
                let answer = timeout(Duration::from_secs(5), ask(address)).await.unwrap();
                assert!(answer.starts_with("HTTP/1.1 200"), "{number}: {answer}");
            }
        }
        // The first one was closed to make room.
        let mut nothing = Vec::new();
        assert_eq!(held[0].read_to_end(&mut nothing).await.unwrap_or(0), 0);
    }
}
