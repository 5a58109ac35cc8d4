//! Looking on: tests see each request and each step, and the timeline tells of each exchange.

use bytes::Bytes;
use hyper::{Request, Response};
use jiff::Timestamp;

use super::fault::Side;
use super::{LONGEST_TIMELINE, World};
use crate::keep;

/// Sees everything that happens, at its own time, and can change nothing.
pub trait Watch: Send {
    /// A request has arrived; whether and when it takes effect is not decided yet.
    fn sent(&mut self, world: &World, side: Side, request: &Request<Bytes>, now: Timestamp) {
        let _ = (world, side, request, now);
    }

    /// A request is about to take effect.
    fn asked(&mut self, world: &World, side: Side, request: &Request<Bytes>, now: Timestamp) {
        let _ = (world, side, request, now);
    }

    /// It was answered; faults have not touched the answer yet.
    fn answered(
        &mut self,
        world: &World,
        side: Side,
        request: &Request<Bytes>,
        response: &Response<Bytes>,
        now: Timestamp,
    ) {
        let _ = (world, side, request, response, now);
    }

    /// Something has changed, but for what only time tells.
    fn stepped(&mut self, world: &World, now: Timestamp) {
        let _ = (world, now);
    }
}

impl World {
    /// Lets somebody look on from now on.
    pub fn set_watch(&mut self, watch: Option<Box<dyn Watch>>) {
        self.watch = watch;
    }

    /// Tells of each exchange in the timeline, not only of those that go wrong.
    pub fn record_exchanges(&mut self, yes: bool) {
        self.records = yes;
    }

    /// A line for the timeline.
    pub fn note(&mut self, time: Timestamp, line: String) {
        keep(&mut self.timeline, LONGEST_TIMELINE, (time, line));
    }

    pub(crate) fn watched(&mut self, see: impl FnOnce(&mut dyn Watch, &World)) {
        if let Some(mut watch) = self.watch.take() {
            see(watch.as_mut(), self);
            self.watch = Some(watch);
        }
    }

    /// Notes what the faults have to say of an exchange, and its answer if all are told.
    pub(crate) fn told(
        &mut self,
        side: Side,
        request: &Request<Bytes>,
        response: Option<&Response<Bytes>>,
        now: Timestamp,
    ) {
        let fault = self.fault.take_note();
        let answer = response
            .filter(|_| self.records)
            .map(|response| format!("{} ({} bytes)", response.status().as_u16(), response.body().len()));
        for (mark, what) in [("FAULT ", fault), ("", answer)] {
            if let Some(what) = what {
                let line = format!("{mark}{} {} {}: {what}", side.name(), request.method(), request.uri());
                self.note(now, line);
            }
        }
    }
}
