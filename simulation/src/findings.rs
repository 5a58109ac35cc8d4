//! The problems that a run has found.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::sync::Notify;

/// The problems, oldest first. The first one wakes a listener.
#[derive(Clone, Default)]
pub struct Findings {
    lines: Arc<Mutex<Vec<String>>>,
    /// Notified of each.
    pub told: Arc<Notify>,
}

impl Findings {
    /// Adds a problem.
    pub fn add(&self, now: Timestamp, what: String) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() < 10 {
            lines.push(format!("{now} {what}"));
        }
        self.told.notify_one();
    }

    /// All problems.
    pub fn all(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
