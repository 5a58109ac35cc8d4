//! Nomad's event stream as a response that does not end (contract of Nomad, §6).

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use hyper::{Method, Request, StatusCode};
use tokio::{
    sync::{mpsc, watch},
    time::MissedTickBehavior,
};

use super::{
    nomad::Topics,
    world::{Shared, lock},
};

/// `{}` is sent at once and then at this interval.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// A refused stream is silent for this long and then ends.
const REFUSED: Duration = Duration::from_secs(15);
/// The maximum number of buffered lines for one subscriber. A slow one makes the stream wait.
const AHEAD: usize = 16;

/// Whether a request is for the stream.
pub(super) fn is_stream(request: &Request<Bytes>) -> bool {
    request.method() == Method::GET && request.uri().path() == "/v1/event/stream"
}

/// The stream's lines. Its task ends with the subscriber.
pub(super) fn open(shared: &Shared, request: &Request<Bytes>) -> mpsc::Receiver<Bytes> {
    let query = request.uri().query().unwrap_or_default();
    let parameters = url::form_urlencoded::parse(query.as_bytes());
    let index = parameters.filter(|(name, _)| name == "index").find_map(|(_, value)| value.parse().ok());
    let (sender, lines) = mpsc::channel(AHEAD);
    if !allowed(shared, request, query) {
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = sender.closed() => {}
                () = tokio::time::sleep(REFUSED) => {}
            }
        });
        return lines;
    }
    let moved = lock(shared).nomad_moved();
    tokio::spawn(feed(Arc::clone(shared), Topics::from_query(query), index.unwrap_or(0), moved, sender));
    lines
}

/// The stream needs the same capability as a list of allocations: read-job. It is checked after the header has
/// been sent.
fn allowed(shared: &Shared, request: &Request<Bytes>, query: &str) -> bool {
    let mut list = Request::new(Bytes::new());
    *list.headers_mut() = request.headers().clone();
    let Ok(uri) = format!("/v1/allocations?{query}").parse() else { return false };
    *list.uri_mut() = uri;
    let mut world = lock(shared);
    let now = world.clock.now();
    let now = world.nomad_time(now);
    world.nomad.handle(&list, now).status() != StatusCode::FORBIDDEN
}

async fn feed(
    shared: Shared,
    topics: Topics,
    mut next: u64,
    mut moved: watch::Receiver<u64>,
    lines: mpsc::Sender<Bytes>,
) {
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    heartbeat.tick().await;
    let mut news = vec!["{}".to_string()];
    loop {
        {
            let world = lock(&shared);
            let last = world.nomad.index();
            // The index of an agent that restarted without data goes back.
            if next > last + 1 {
                next = 0;
            }
            news.extend(world.nomad.events_for(&topics, next));
            next = last + 1;
        }
        for line in news.drain(..) {
            if lines.send(Bytes::from(format!("{line}\n"))).await.is_err() {
                return;
            }
        }
        tokio::select! {
            biased;
            () = lines.closed() => return,
            // The world ends its streams by dropping the sender.
            moved = moved.changed() => if moved.is_err() {
                return;
            },
            _ = heartbeat.tick() => news.push("{}".to_string()),
        }
    }
}
