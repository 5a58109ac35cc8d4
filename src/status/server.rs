//! The HTTP server for the status.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};

use super::Status;

/// Connections served at the same time; later ones wait. A scraper and a health check need two.
const CONNECTIONS: usize = 16;

/// A connection lives no longer: whoever holds it open holds up another.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(60);

/// A request's head must be there by then.
const HEAD_DEADLINE: Duration = Duration::from_secs(5);

/// Serves the status until it is dropped.
pub async fn serve(listener: TcpListener, status: Status) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: others must be closed first.
                tracing::warn!("the status server cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let status = status.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let service =
                service_fn(|request| std::future::ready(Ok::<_, Infallible>(answer(&status, &request))));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_DEADLINE)
                .serve_connection(TokioIo::new(stream), service);
            // An error here concerns only whoever asked.
            let _ = timeout(CONNECTION_DEADLINE, connection).await;
        });
    }
}

fn answer(status: &Status, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let verdict = match request.uri().path() {
        _ if !is_read => return page(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned()),
        "/healthz" => status.health(),
        "/readyz" => status.readiness(),
        "/metrics" => Ok(status.metrics()),
        "/" => Ok("githubrunner: /healthz /readyz /metrics\n".to_owned()),
        _ => return page(StatusCode::NOT_FOUND, "not found: /healthz /readyz /metrics\n".to_owned()),
    };
    match verdict {
        Ok(text) => page(StatusCode::OK, text),
        Err(text) => page(StatusCode::SERVICE_UNAVAILABLE, text),
    }
}

fn page(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}
