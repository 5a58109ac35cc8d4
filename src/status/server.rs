//! The HTTP server for the status.
//!
//! Whoever asks gets an answer: a connection serves one request, and when too many are open the oldest goes.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ACCEPT, CONTENT_TYPE, HeaderValue},
};
use tokio::net::TcpListener;

use super::Status;
use crate::listen;

/// Connections open at the same time. One more closes the oldest, so that nobody can hold up a health check.
const CONNECTIONS: usize = 32;

/// What a client that reads OpenMetrics accepts.
const OPEN_METRICS: &str = "application/openmetrics-text";

/// Serves the status until it is dropped.
pub async fn serve(listener: TcpListener, status: Status) {
    let answer = move |request: Request<Incoming>| std::future::ready(answer(&status, &request));
    listen::serve(listener, "status", CONNECTIONS, answer).await;
}

fn answer(status: &Status, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let verdict = match request.uri().path() {
        _ if !is_read => return page(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned()),
        "/healthz" => status.health(),
        "/readyz" => status.readiness(),
        "/metrics" => return metrics(status, request),
        "/" => Ok("githubrunner: /healthz /readyz /metrics\n".to_owned()),
        _ => return page(StatusCode::NOT_FOUND, "not found: /healthz /readyz /metrics\n".to_owned()),
    };
    match verdict {
        Ok(text) => page(StatusCode::OK, text),
        Err(text) => page(StatusCode::SERVICE_UNAVAILABLE, text),
    }
}

/// In the format that the client asks for, as Prometheus does.
fn metrics(status: &Status, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let accepted = request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let (text, kind) = status.metrics(accepted.into_iter().any(|kinds| kinds.contains(OPEN_METRICS)));
    typed(StatusCode::OK, text, kind)
}

fn page(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    typed(status, text, "text/plain; charset=utf-8")
}

fn typed(status: StatusCode, text: String, kind: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
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
    async fn a_health_check_is_answered_whoever_holds_connections_open() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, Status::new(Duration::from_secs(60))));
        let mut held = Vec::new();
        for number in 0..3 * CONNECTIONS {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // Some say nothing, some begin a request, some have had an answer and stay.
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
        // The first one was closed to make way.
        let mut nothing = Vec::new();
        assert_eq!(held[0].read_to_end(&mut nothing).await.unwrap_or(0), 0);
    }
}
