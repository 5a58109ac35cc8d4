//! The server that GitHub delivers webhooks to: `POST /webhook` (contract github.md §5).
//!
//! Anyone who can reach the port can send anything. Nothing is accepted without a signature, and nothing can delay a
//! delivery for longer than a moment: connections are short, the oldest is closed first, and bodies are limited,
//! individually and in total.

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

/// The path of deliveries.
pub const PATH: &str = "/webhook";

/// The maximum number of open connections. GitHub opens one for each delivery, and a run of 256 jobs causes 256
/// deliveries at once.
const CONNECTIONS: usize = 256;

/// The largest body, in bytes. GitHub allows 25 MB; a job's has 20 kB, plus 200 bytes per step.
const LONGEST_BODY: usize = 2 << 20;

/// The total size of the bodies being received, in bytes.
const BODIES: usize = 16 << 20;

/// The outcome of a request. GitHub's delivery log shows the status and the text of the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A repository is polled soon.
    Taken,
    /// The webhook was created or is being tested.
    Ping,
    /// The same delivery was received before.
    Repeated,
    /// A job for other runners.
    NotOurs,
    /// A job that waits for something other than a runner.
    Held,
    /// A repository that is not configured.
    NotConfigured,
    /// An event that we have not subscribed to.
    OtherEvent,
    /// Not signed with our secret.
    NotSigned,
    /// Signed, but not a valid delivery from GitHub.
    Malformed,
    /// A body that is too large, or too many bodies at once.
    TooLarge,
    /// The body did not arrive in time, or not at all.
    Broken,
    /// Overloaded, or no secret to verify with.
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

    /// The HTTP status of the response.
    pub fn status(self) -> u16 {
        self.told().1.as_u16()
    }

    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        self.told().0
    }

    /// The name in metrics, the status, and the text of the response.
    fn told(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Outcome::Taken => ("taken", StatusCode::ACCEPTED, "the repository will be polled soon"),
            Outcome::Ping => ("ping", StatusCode::OK, "pong"),
            Outcome::Repeated => ("repeated", StatusCode::OK, "this delivery was already received"),
            Outcome::NotOurs => ("not_ours", StatusCode::OK, "not a job for these runners"),
            Outcome::Held => ("held", StatusCode::OK, "the job is not waiting for a runner"),
            Outcome::NotConfigured => ("not_configured", StatusCode::OK, "this repository is not configured"),
            Outcome::OtherEvent => {
                ("other_event", StatusCode::OK, "ignored: only workflow_job events are used")
            }
            Outcome::NotSigned => (
                "not_signed",
                StatusCode::UNAUTHORIZED,
                "no valid X-Hub-Signature-256: the webhook's secret must match webhook.secret",
            ),
            Outcome::Malformed => ("malformed", StatusCode::BAD_REQUEST, "not a valid delivery from GitHub"),
            Outcome::TooLarge => ("too_large", StatusCode::PAYLOAD_TOO_LARGE, "the body is too large"),
            Outcome::Broken => ("broken", StatusCode::BAD_REQUEST, "the body did not arrive"),
            Outcome::Unavailable => {
                ("unavailable", StatusCode::SERVICE_UNAVAILABLE, "unavailable; see the log of githubrunner")
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
                // For a load balancer: deliveries should go to the replica that acts on them.
                return match hints.0.status.leads() {
                    true => page(StatusCode::OK, "this replica is the leader"),
                    false => page(StatusCode::SERVICE_UNAVAILABLE, "this replica is not the leader"),
                };
            }
            if request.uri().path() == PATH && *request.method() != Method::POST {
                let mut response = page(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "use POST, or GET to ask whether this replica is the leader",
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

/// The body, and the reserved memory for it.
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
        // Memory is reserved as it is needed, so that a slow sender takes little from the others.
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let permit = room.clone().try_acquire_many_owned(length).map_err(|_| Outcome::Unavailable)?;
        taken.push(permit);
        read.extend_from_slice(&data);
    }
    Ok((read.freeze(), taken))
}

/// Handles a delivery with these headers and this body.
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
