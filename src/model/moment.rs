//! The time that we remember ourselves.

use std::{
    fmt,
    ops::{Add, AddAssign, Sub},
    time::Duration,
};

/// A monotonic time since the start of this process. It is never compared with a server's timestamp.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(Duration);

impl Moment {
    /// The start of this process.
    pub const START: Moment = Moment(Duration::ZERO);

    /// The moment this long after the start.
    pub const fn after_start(duration: Duration) -> Self {
        Moment(duration)
    }

    /// How long after the start it is.
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// How long after `earlier` it is; zero if it is not after it.
    pub fn since(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// As `30s`, since the start.
impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, duration: Duration) -> Moment {
        Moment(self.0.saturating_add(duration))
    }
}

impl AddAssign<Duration> for Moment {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

/// Nothing is before the start.
impl Sub<Duration> for Moment {
    type Output = Moment;

    fn sub(self, duration: Duration) -> Moment {
        Moment(self.0.saturating_sub(duration))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_the_times_between_them_never_become_negative() {
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        let moment = Moment::START + minute;
        assert_eq!(moment.since(Moment::START + second), Duration::from_secs(59));
        assert_eq!((Moment::START + second).since(moment), Duration::ZERO);
        assert_eq!(moment - second, Moment::after_start(Duration::from_secs(59)));
        assert_eq!(Moment::START - second, Moment::START);
        assert_eq!((moment + Duration::MAX).since_start(), Duration::MAX);
        assert_eq!(format!("{moment:?}"), "60s");
    }
}
