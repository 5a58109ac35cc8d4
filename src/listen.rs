//! A small HTTP server that everyone can reach.
//!
//! A connection serves one request within a short time. If too many are open, the oldest is closed.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, Response,
    body::{Body, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
    time::timeout,
};

/// The deadline of a connection, which serves one request.
pub const CONNECTION_DEADLINE: Duration = Duration::from_secs(10);

/// The deadline for a request's head.
const HEAD_DEADLINE: Duration = Duration::from_secs(5);

/// The largest head of a request, in bytes.
const LONGEST_HEAD: usize = 16 * 1024;

/// Serves until it is dropped. If more than `connections` are open, the oldest is closed, so that nobody can block the
/// others. `what` names the server in the log.
pub async fn serve<A, F>(listener: TcpListener, what: &str, connections: usize, answer: A)
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    serve_for(listener, what, connections, CONNECTION_DEADLINE, answer).await;
}

/// The same with another deadline for each connection, and with streamed responses.
pub async fn serve_for<A, F, B>(
    listener: TcpListener,
    what: &str,
    connections: usize,
    deadline: Duration,
    answer: A,
) where
    A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let mut open = JoinSet::new();
    let mut by_age: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = open.join_next() => {
                by_age.retain(|connection| !connection.is_finished());
                continue;
            }
        };
        match stream {
            Ok((stream, _)) => {
                while by_age.len() >= connections
                    && let Some(oldest) = by_age.pop_front()
                {
                    oldest.abort();
                }
                by_age.push_back(open.spawn(connection(stream, deadline, answer.clone())));
            }
            Err(error) => {
                // Most likely out of file descriptors. Our connections are closed first.
                by_age.drain(..).for_each(|connection| connection.abort());
                tracing::warn!("the {what} server cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn connection<A, F, B>(stream: TcpStream, deadline: Duration, answer: A)
where
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<B>>,
    B: Body<Data = Bytes, Error = Infallible> + 'static,
{
    let service = service_fn(|request| {
        let answer = answer(request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(LONGEST_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    // An error here only affects the client.
    let _ = timeout(deadline, connection).await;
}
