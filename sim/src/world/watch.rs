//! Observers: tests see each request and each step, and the timeline records each exchange.

use bytes::Bytes;
use hyper::{Request, Response};
use jiff::Timestamp;

use super::{LONGEST_TIMELINE, World, fault::Side};
use crate::keep;

/// Sees everything when it happens, and cannot change anything.
pub trait Watch: Send {
    /// A request has arrived. It is not decided yet whether and when it takes effect.
    fn sent(&mut self, world: &World, side: Side, request: &Request<Bytes>, now: Timestamp) {
        let _ = (world, side, request, now);
    }

    /// A request is about to take effect.
    fn asked(&mut self, world: &World, side: Side, request: &Request<Bytes>, now: Timestamp) {
        let _ = (world, side, request, now);
    }

    /// It was answered. Faults have not changed the response yet.
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

    /// Something has changed, except for what depends only on time.
    fn stepped(&mut self, world: &World, now: Timestamp) {
        let _ = (world, now);
    }
}

impl World {
    /// Sets the observer.
    pub fn set_watch(&mut self, watch: Option<Box<dyn Watch>>) {
        self.watch = watch;
    }

    /// Records each exchange in the timeline, not just faulty ones.
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

    /// Records the faults' notes on an exchange, and the response if all are recorded.
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
