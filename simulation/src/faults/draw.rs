//! Random values for several files.

use std::time::Duration;

use rand::{RngExt, rngs::StdRng};

/// A random number of seconds in a range, small ones more often.
pub fn seconds(rng: &mut StdRng, from: u64, to: u64) -> Duration {
    let (from_log, to_log) = ((from.max(1) as f64).ln(), (to.max(1) as f64).ln());
    let seconds = (from_log + (to_log - from_log) * rng.random::<f64>()).exp();
    Duration::from_millis((seconds * 1000.0) as u64)
}
