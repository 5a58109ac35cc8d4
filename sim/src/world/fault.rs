//! What can go wrong between a client and a simulated server.

use std::time::Duration;

use bytes::Bytes;
use hyper::{Request, Response};
use jiff::Timestamp;

use super::World;
use crate::github::Parcel;

/// One of the two servers.
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

/// The number of the client that sent a request, if there are several. In-memory connections set this
/// extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sender(pub usize);

/// When a request arrived. Also an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrived(pub Timestamp);

/// What happens to an exchange.
#[derive(Debug)]
pub enum Verdict {
    /// Nothing goes wrong.
    Pass,
    /// Another response. If given before, the request has no effect. If given after, it had one.
    Answer(Response<Bytes>),
    /// No response for as long as the client waits (at most an hour).
    Stall,
    /// The connection closes without a response.
    Reset,
    /// The response ends after this many bytes of its body, although its length announced more.
    Truncate(usize),
    /// All is well, but later.
    Delay(Duration),
    /// The request takes effect after this time, although nobody waits for a response any more. The connection closes
    /// immediately or stays silent.
    Late {
        /// After how long.
        after: Duration,
        /// The connection closes.
        closes: bool,
    },
}

impl Verdict {
    /// A response with this status and text.
    pub fn status(status: u16, text: &str) -> Verdict {
        let mut response = Response::new(Bytes::from(text.to_string()));
        if let Ok(status) = hyper::StatusCode::from_u16(status) {
            *response.status_mut() = status;
        }
        Verdict::Answer(response)
    }
}

/// Decides about each exchange. It sees them in order and has no clock.
pub trait Fault: Send {
    /// Whether a new connection is refused.
    fn refuses(&mut self, side: Side, now: Timestamp) -> bool {
        let _ = (side, now);
        false
    }

    /// Changes a request before anything sees it, for example for a server that returns smaller pages than
    /// requested.
    fn alter(&mut self, side: Side, request: &mut Request<Bytes>, now: Timestamp) {
        let _ = (side, request, now);
    }

    /// Called before the server sees a request. Anything but `Pass`, `Delay`, `Late` and `Truncate` prevents its
    /// effect.
    fn before(&mut self, side: Side, request: &Request<Bytes>, now: Timestamp) -> Verdict {
        let _ = (side, request, now);
        Verdict::Pass
    }

    /// Called just before it takes effect, if it does. Something may happen in the meantime.
    fn meanwhile(&mut self, world: &mut World, side: Side, request: &Request<Bytes>) {
        let _ = (world, side, request);
    }

    /// Called after it took effect. The response may be changed in place: an incorrect list, a repeated page.
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

    /// What happens to a webhook's delivery. An empty result loses it, several elements deliver it again, each with its
    /// delay. A changed one is forged.
    fn carry(&mut self, parcel: Parcel, now: Timestamp) -> Vec<(Duration, Parcel)> {
        let _ = now;
        vec![(Duration::ZERO, parcel)]
    }

    /// The last decision, for the timeline.
    fn take_note(&mut self) -> Option<String> {
        None
    }
}

/// Nothing ever goes wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFault;

impl Fault for NoFault {}
