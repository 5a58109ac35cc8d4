//! What a run has found wrong.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::sync::Notify;

/// What was found wrong, oldest first; somebody is told of the first.
#[derive(Clone, Default)]
pub struct Findings {
    lines: Arc<Mutex<Vec<String>>>,
    /// Told of each.
    pub told: Arc<Notify>,
}

impl Findings {
    /// Something is wrong.
    pub fn add(&self, now: Timestamp, what: String) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() < 10 {
            lines.push(format!("{now} {what}"));
        }
        self.told.notify_one();
    }

    /// All that is wrong.
    pub fn all(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
