//! Puts either side of the [`World`](super::world::World) on a listener or on an in-memory stream.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::{
    Request, Response, StatusCode,
    body::{Body, Frame, Incoming, SizeHint},
    header::{CONNECTION, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

use super::{
    stream,
    world::{
        Shared,
        fault::{Arrived, Sender, Side, Verdict},
        lock,
    },
};

/// Longer request bodies get 413. This is more than any job or Submission (Nomad drops one over 1 MB).
const LONGEST_BODY: usize = 8 << 20;
/// The maximum number of concurrent connections. Later ones wait.
const MOST_CONNECTIONS: usize = 256;
/// A stalled response takes longer than any client's deadline, but not forever.
const STALL: Duration = Duration::from_secs(3600);

/// Serves one side on a listener until `shutdown`. Connections that are still open then are dropped.
pub async fn serve_tcp(
    listener: TcpListener,
    side: Side,
    shared: Shared,
    shutdown: impl Future<Output = ()>,
) {
    let mut shutdown = std::pin::pin!(shutdown);
    let mut connections = JoinSet::new();
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => return,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = async {
                let permit = Arc::clone(&room).acquire_owned().await;
                (listener.accept().await, permit)
            } => accepted,
        };
        // A connection that failed while it was accepted concerns only its client.
        let (Ok((stream, _)), Ok(permit)) = accepted else { continue };
        // Responses are small and complete, so waiting to fill a packet would only delay them.
        let _ = stream.set_nodelay(true);
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let _permit = permit;
            serve_connection(stream, side, shared).await;
        });
    }
}

/// Serves one side on one connection until it closes.
pub async fn serve_connection(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    side: Side,
    shared: Shared,
) {
    serve_client(io, side, shared, Sender(0)).await;
}

/// The same for one of several clients.
pub async fn serve_client(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    side: Side,
    shared: Shared,
    sender: Sender,
) {
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(sender);
        exchange(side, Arc::clone(&shared), request)
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    // Idle connections stay open: the client decides when to drop them.
    http.header_read_timeout(None);
    // The responses have the date of their side's own clock.
    http.auto_date_header(false);
    // An error here is a client that went away, or a requested fault.
    let _ = http.serve_connection(TokioIo::new(io), service).await;
}

/// The connection closes without a response.
#[derive(Debug, thiserror::Error)]
#[error("the connection was reset on purpose")]
struct Reset;

async fn exchange(side: Side, shared: Shared, request: Request<Incoming>) -> Result<Response<Served>, Reset> {
    let mut request = match whole(request).await {
        Ok(request) => request,
        Err(refusal) => return Ok(refusal.map(Served::whole)),
    };
    let before = {
        let mut world = lock(&shared);
        world.count(side, &request);
        let now = world.clock.now();
        world.fault.alter(side, &mut request, now);
        request.extensions_mut().insert(Arrived(now));
        world.watched(|watch, world| watch.sent(world, side, &request, now));
        let verdict = world.fault.before(side, &request, now);
        world.told(side, &request, None, now);
        verdict
    };
    let mut cut = None;
    match before {
        Verdict::Pass => {}
        Verdict::Answer(answer) => return Ok(dated(answer, side, &shared).map(Served::whole)),
        Verdict::Stall => {
            tokio::time::sleep(STALL).await;
            return Err(Reset);
        }
        Verdict::Reset => return Err(Reset),
        Verdict::Truncate(bytes) => cut = Some(bytes),
        Verdict::Delay(wait) => tokio::time::sleep(wait).await,
        Verdict::Late { after, closes } => return late(side, shared, request, after, closes).await,
    }
    let (mut response, after) = {
        let mut world = lock(&shared);
        world.meanwhile(side, &request);
        let now = world.clock.now();
        let mut response = world.handle(side, &request, now);
        world.told(side, &request, Some(&response), now);
        let after = world.fault.after(side, &request, &mut response, now);
        world.told(side, &request, None, now);
        (response, after)
    };
    match after {
        Verdict::Pass => {}
        Verdict::Answer(answer) => response = dated(answer, side, &shared),
        Verdict::Stall => {
            tokio::time::sleep(STALL).await;
            return Err(Reset);
        }
        Verdict::Reset => return Err(Reset),
        Verdict::Truncate(bytes) => cut = Some(bytes),
        Verdict::Delay(wait) => tokio::time::sleep(wait).await,
        Verdict::Late { .. } => return Err(Reset),
    }
    Ok(served(side, &shared, &request, response, cut))
}

/// The response with its body: a stream, the whole body, or the part before it is cut off.
fn served(
    side: Side,
    shared: &Shared,
    request: &Request<Bytes>,
    mut response: Response<Bytes>,
    cut: Option<usize>,
) -> Response<Served> {
    if side == Side::Nomad && stream::is_stream(request) && response.status() == StatusCode::OK {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        let lines = stream::open(shared, request);
        return response.map(|_| Served::Lines(lines));
    }
    response.map(|body| match cut {
        Some(bytes) => Served::cut(body, bytes),
        None => Served::whole(body),
    })
}

/// The request with its body, or the response if it is too large.
async fn whole(request: Request<Incoming>) -> Result<Request<Bytes>, Response<Bytes>> {
    let (head, body) = request.into_parts();
    match Limited::new(body, LONGEST_BODY).collect().await {
        Ok(body) => Ok(Request::from_parts(head, body.to_bytes())),
        Err(_) => {
            let mut response = Response::new(Bytes::from_static(b"http: request body too large"));
            *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
            Err(response)
        }
    }
}

/// The request takes effect later, whatever happens to the connection. There is no response.
async fn late(
    side: Side,
    shared: Shared,
    request: Request<Bytes>,
    after: Duration,
    closes: bool,
) -> Result<Response<Served>, Reset> {
    tokio::spawn(async move {
        tokio::time::sleep(after).await;
        lock(&shared).takes_effect_late(side, &request);
    });
    if !closes {
        tokio::time::sleep(STALL).await;
    }
    Err(Reset)
}

/// Adds the side's date to the response, as every server does.
fn dated(mut answer: Response<Bytes>, side: Side, shared: &Shared) -> Response<Bytes> {
    let world = lock(shared);
    let now = world.clock.now();
    let time = match side {
        Side::GitHub => world.github_time(now),
        Side::Nomad => world.nomad_time(now),
    };
    let time = std::time::UNIX_EPOCH + Duration::from_secs(u64::try_from(time.as_second()).unwrap_or(0));
    if let Ok(date) = httpdate::fmt_http_date(time).parse() {
        answer.headers_mut().entry(hyper::header::DATE).or_insert(date);
    }
    answer
}

/// A body that may end before its promised length, or that has no length.
enum Served {
    Whole { data: Option<Bytes>, length: u64, broken: bool },
    Lines(mpsc::Receiver<Bytes>),
}

impl Served {
    fn whole(data: Bytes) -> Served {
        Served::Whole { length: data.len() as u64, data: Some(data), broken: false }
    }

    fn cut(data: Bytes, bytes: usize) -> Served {
        let broken = bytes < data.len();
        let length = data.len() as u64;
        Served::Whole { length, data: Some(data.slice(..bytes.min(data.len()))), broken }
    }
}

impl Body for Served {
    type Data = Bytes;
    type Error = Reset;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Reset>>> {
        match &mut *self {
            Served::Whole { data, broken, .. } => match data.take() {
                Some(data) if !data.is_empty() => Poll::Ready(Some(Ok(Frame::data(data)))),
                _ if *broken => Poll::Ready(Some(Err(Reset))),
                _ => Poll::Ready(None),
            },
            Served::Lines(lines) => {
                lines.poll_recv(context).map(|line| line.map(|line| Ok(Frame::data(line))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Served::Whole { data, broken, .. } => !broken && data.as_ref().is_none_or(Bytes::is_empty),
            Served::Lines(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Served::Whole { length, .. } => SizeHint::with_exact(*length),
            Served::Lines(_) => SizeHint::default(),
        }
    }
}
