//! What can go wrong between a client and a simulated server.

use std::time::Duration;

use bytes::Bytes;
use hyper::{Request, Response};
use jiff::Timestamp;

use super::World;
use crate::github::Parcel;

/// Which of the two servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The simulated GitHub.
    GitHub,
    /// The simulated Nomad.
    Nomad,
}

impl Side {
    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Side::GitHub => "GitHub",
            Side::Nomad => "Nomad",
        }
    }
}

/// Which of several clients sent a request, by its number: the extension that in-memory connections give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sender(pub usize);

/// When a request arrived: likewise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrived(pub Timestamp);

/// What becomes of an exchange.
#[derive(Debug)]
pub enum Verdict {
    /// Nothing goes wrong.
    Pass,
    /// Another answer. Given before, the request has no effect; given after, it had.
    Answer(Response<Bytes>),
    /// No answer comes, for as long as the client waits (an hour at most).
    Stall,
    /// The connection closes without an answer.
    Reset,
    /// The answer ends after so many bytes of its body, though its length said more.
    Truncate(usize),
    /// All is well, later.
    Delay(Duration),
    /// The request takes effect after this, though nobody waits for an answer any more: the connection closes at once, or
    /// stays silent.
    Late {
        /// So much later.
        after: Duration,
        /// The connection closes.
        closes: bool,
    },
}

impl Verdict {
    /// An answer with this status and a text.
    pub fn status(status: u16, text: &str) -> Verdict {
        let mut response = Response::new(Bytes::from(text.to_string()));
        if let Ok(status) = hyper::StatusCode::from_u16(status) {
            *response.status_mut() = status;
        }
        Verdict::Answer(response)
    }
}

/// Decides about each exchange. It sees them in order and has no clock of its own.
pub trait Fault: Send {
    /// Whether a new connection is refused.
    fn refuses(&mut self, side: Side, now: Timestamp) -> bool {
        let _ = (side, now);
        false
    }

    /// Changes a request before anybody looks at it: a server that gives smaller pages than it was asked for.
    fn alter(&mut self, side: Side, request: &mut Request<Bytes>, now: Timestamp) {
        let _ = (side, request, now);
    }

    /// Before the server sees a request: anything but `Pass`, `Delay`, `Late` and `Truncate` keeps it from having an effect.
    fn before(&mut self, side: Side, request: &Request<Bytes>, now: Timestamp) -> Verdict {
        let _ = (side, request, now);
        Verdict::Pass
    }

    /// Just before it takes effect, if it does: something may happen meanwhile.
    fn meanwhile(&mut self, world: &mut World, side: Side, request: &Request<Bytes>) {
        let _ = (world, side, request);
    }

    /// After it took effect. The answer may be changed in place: a listing that lies, a page that repeats.
    fn after(
        &mut self,
        side: Side,
        request: &Request<Bytes>,
        response: &mut Response<Bytes>,
        now: Timestamp,
    ) -> Verdict {
        let _ = (side, request, response, now);
        Verdict::Pass
    }

    /// What becomes of a webhook's delivery: nothing is one that is lost, several are one that comes again, each so much
    /// later. A changed one is forged.
    fn carry(&mut self, parcel: Parcel, now: Timestamp) -> Vec<(Duration, Parcel)> {
        let _ = now;
        vec![(Duration::ZERO, parcel)]
    }

    /// What the last decision was, for the timeline.
    fn take_note(&mut self) -> Option<String> {
        None
    }
}

/// Nothing ever goes wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFault;

impl Fault for NoFault {}
