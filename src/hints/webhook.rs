//! The server that GitHub delivers webhooks to: `POST /webhook` (contract github.md §5).
//!
//! Whoever can reach the port can send anything. Nothing is believed without a signature, and nothing that is sent holds
//! up a delivery for longer than a moment: connections are short, the oldest goes first, and bodies are bounded, each and
//! together.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Body, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
};
use tokio::{
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore},
};

use super::{
    Guid, Hint, Hints, Offered, Reason,
    delivery::{self, Said},
};
use crate::{listen, status::Counter};

/// Where GitHub sends deliveries.
pub const PATH: &str = "/webhook";

/// Connections open at the same time: GitHub opens one for each delivery, and a run of 256 jobs is 256 deliveries at once.
const CONNECTIONS: usize = 256;

/// The longest body, in bytes. GitHub allows 25 MB; a job's has 20 kB, and its steps 200 bytes each.
const LONGEST_BODY: usize = 2 << 20;

/// The bodies that are under way together, in bytes.
const BODIES: usize = 16 << 20;

/// How a request came out. A word of GitHub's log of deliveries shows the status and the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A repository is looked at soon.
    Taken,
    /// The hook was made, or somebody tries it.
    Ping,
    /// The same delivery was there before.
    Repeated,
    /// A job for others' runners.
    NotOurs,
    /// A job that waits for something else than a runner.
    Held,
    /// A repository that is not configured.
    NotConfigured,
    /// An event that we have not asked for.
    OtherEvent,
    /// No signature by our secret.
    NotSigned,
    /// Signed, and nevertheless none of GitHub's.
    Malformed,
    /// A body that is too long, or too many bodies at once.
    TooLarge,
    /// No body within the time, or none at all.
    Broken,
    /// Too much to do, or no secret to check with.
    Unavailable,
    /// Not `POST /webhook`.
    Elsewhere,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Outcome; 13] = [
        Outcome::Taken,
        Outcome::Ping,
        Outcome::Repeated,
        Outcome::NotOurs,
        Outcome::Held,
        Outcome::NotConfigured,
        Outcome::OtherEvent,
        Outcome::NotSigned,
        Outcome::Malformed,
        Outcome::TooLarge,
        Outcome::Broken,
        Outcome::Unavailable,
        Outcome::Elsewhere,
    ];

    /// The HTTP status that answers it.
    pub fn status(self) -> u16 {
        self.told().1.as_u16()
    }

    /// The word for it in metrics.
    pub fn as_str(self) -> &'static str {
        self.told().0
    }

    /// The word for it in metrics, the status, and what is answered.
    fn told(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Outcome::Taken => ("taken", StatusCode::ACCEPTED, "the repository is looked at soon"),
            Outcome::Ping => ("ping", StatusCode::OK, "pong"),
            Outcome::Repeated => ("repeated", StatusCode::OK, "this delivery is known"),
            Outcome::NotOurs => ("not_ours", StatusCode::OK, "not a job for these runners"),
            Outcome::Held => ("held", StatusCode::OK, "the job does not wait for a runner"),
            Outcome::NotConfigured => ("not_configured", StatusCode::OK, "this repository is not configured"),
            Outcome::OtherEvent => {
                ("other_event", StatusCode::OK, "ignored: only workflow_job events are used")
            }
            Outcome::NotSigned => (
                "not_signed",
                StatusCode::UNAUTHORIZED,
                "no valid X-Hub-Signature-256: the hook's secret must be webhook.secret",
            ),
            Outcome::Malformed => {
                ("malformed", StatusCode::BAD_REQUEST, "not a delivery as GitHub describes them")
            }
            Outcome::TooLarge => ("too_large", StatusCode::PAYLOAD_TOO_LARGE, "the body is too large"),
            Outcome::Broken => ("broken", StatusCode::BAD_REQUEST, "the body did not arrive"),
            Outcome::Unavailable => {
                ("unavailable", StatusCode::SERVICE_UNAVAILABLE, "not now; see the log of githubrunner")
            }
            Outcome::Elsewhere => ("elsewhere", StatusCode::NOT_FOUND, "not found: POST /webhook"),
        }
    }
}

/// Serves webhooks until it is dropped.
pub async fn serve(listener: TcpListener, hints: Hints) {
    let room = Arc::new(Semaphore::new(BODIES));
    let answer = move |request: Request<Incoming>| {
        let (hints, room) = (hints.clone(), room.clone());
        async move {
            if request.uri().path() == PATH && *request.method() == Method::GET {
                // For a load balancer: deliveries are for the replica that acts on them.
                return match hints.0.status.leads() {
                    true => page(StatusCode::OK, "this replica leads"),
                    false => page(StatusCode::SERVICE_UNAVAILABLE, "this replica does not lead"),
                };
            }
            if request.uri().path() == PATH && *request.method() != Method::POST {
                let mut response = page(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "only POST, and GET to ask whether this replica leads",
                );
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, POST"));
                hints.0.status.count(Counter::WebhookRequests, Outcome::Elsewhere.as_str());
                return response;
            }
            let outcome = receive(&hints, room, request).await;
            let (word, status, text) = outcome.told();
            hints.0.status.count(Counter::WebhookRequests, word);
            page(status, text)
        }
    };
    listen::serve(listener, "webhook", CONNECTIONS, answer).await;
}

async fn receive(hints: &Hints, room: Arc<Semaphore>, request: Request<Incoming>) -> Outcome {
    if request.uri().path() != PATH {
        return Outcome::Elsewhere;
    }
    let (head, body) = request.into_parts();
    if body.size_hint().lower() > LONGEST_BODY as u64 {
        return Outcome::TooLarge;
    }
    let (body, _room) = match read_body(body, room).await {
        Ok(body) => body,
        Err(outcome) => return outcome,
    };
    accept(hints, &head.headers, &body).await
}

/// The body, and the room that it takes.
async fn read_body(
    mut body: Incoming,
    room: Arc<Semaphore>,
) -> Result<(Bytes, Vec<OwnedSemaphorePermit>), Outcome> {
    let (mut read, mut taken) = (BytesMut::new(), Vec::new());
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Err(Outcome::Broken) };
        let Ok(data) = frame.into_data() else { continue };
        if read.len() + data.len() > LONGEST_BODY {
            return Err(Outcome::TooLarge);
        }
        // Room is taken as it is needed: who sends slowly takes little from the others.
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let permit = room.clone().try_acquire_many_owned(length).map_err(|_| Outcome::Unavailable)?;
        taken.push(permit);
        read.extend_from_slice(&data);
    }
    Ok((read.freeze(), taken))
}

/// What becomes of a delivery with these headers and this body.
pub async fn accept(hints: &Hints, headers: &HeaderMap, body: &[u8]) -> Outcome {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let key = match hints.key().await {
        Ok(key) => key,
        Err(error) => {
            if hints.may_complain() {
                tracing::warn!("cannot verify webhook deliveries, so all are refused: {error}");
            }
            return Outcome::Unavailable;
        }
    };
    if !delivery::is_signed(&key, header("x-hub-signature-256"), body) {
        return Outcome::NotSigned;
    }
    let (Some(event), Some(guid)) =
        (header("x-github-event"), header("x-github-delivery").and_then(Guid::parse))
    else {
        return Outcome::Malformed;
    };
    let form = header(CONTENT_TYPE.as_str()).is_some_and(|kind| {
        kind.trim_start().to_ascii_lowercase().starts_with("application/x-www-form-urlencoded")
    });
    let job = match delivery::read(event, form, body) {
        Ok(Said::Job(job)) => job,
        Ok(Said::Ping) => return Outcome::Ping,
        Ok(Said::Other) => return Outcome::OtherEvent,
        Err(error) => {
            tracing::debug!("cannot parse a signed webhook delivery: {error}");
            return Outcome::Malformed;
        }
    };
    if job.held {
        return Outcome::Held;
    }
    if !hints.is_ours(&job.labels, job.runner.as_deref()) {
        return Outcome::NotOurs;
    }
    if !hints.is_news(&guid) {
        return Outcome::Repeated;
    }
    let hint = Hint { repository: job.repository, full_name: Some(job.full_name), reason: Reason::Webhook };
    match hints.offer(hint) {
        Offered::Taken => Outcome::Taken,
        Offered::NotConfigured => Outcome::NotConfigured,
        Offered::Full => Outcome::Unavailable,
    }
}

fn page(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{text}\n"))));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}
