//! The only source of time in the simulation.

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// Wall-clock time derived from tokio's clock: with tokio's time paused it is virtual time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The time at `start`.
    pub base: Timestamp,
    /// The time on tokio's clock at that moment.
    pub start: Instant,
    /// How far this clock is ahead of the true one.
    pub skew: SignedDuration,
}

impl Clock {
    /// A clock that shows `base` now and is not skewed. Only inside a tokio runtime, if its time is paused.
    pub fn starting_at(base: Timestamp) -> Clock {
        Clock { base, start: Instant::now(), skew: SignedDuration::ZERO }
    }

    /// The current time of this clock.
    pub fn now(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.start.elapsed()).unwrap_or(SignedDuration::MAX);
        shift(shift(self.base, passed), self.skew)
    }

    /// When tokio's clock will show `time`; its start for earlier times.
    pub fn instant(&self, time: Timestamp) -> Instant {
        let wait = shift(time, -self.skew).duration_since(self.base);
        let wait = std::time::Duration::try_from(wait).unwrap_or_default();
        self.start.checked_add(wait).unwrap_or(self.start)
    }
}

/// `time` shifted by a duration, within the representable range.
pub(super) fn shift(time: Timestamp, by: SignedDuration) -> Timestamp {
    let end = if by.is_negative() { Timestamp::MIN } else { Timestamp::MAX };
    time.checked_add(by).unwrap_or(end)
}
