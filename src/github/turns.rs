//! Each repository's share of a pass's requests.
//!
//! A listing that has used up its share makes way for the next repository, and goes on when all others had theirs. So a
//! repository with a thousand runs costs the others nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::{Notify, Semaphore};

use super::error::Error;

/// At most this many requests are one share: what nearly all repositories need. Five lists of runs, and the jobs of 19 runs.
pub(super) const SHARE: usize = 24;

/// A look at one repository alone makes this many requests; it is continued in the next one.
const OF_A_LOOK: usize = 60;

/// One repository's turn in a pass.
pub(super) struct Turn {
    share: Semaphore,
    /// It ends with its share: nobody gives it another one.
    alone: bool,
    /// It waits for another share.
    waits: AtomicBool,
    asked: AtomicUsize,
    /// Told when it begins to wait.
    told: Arc<Notify>,
}

impl Turn {
    /// A turn with its first share.
    pub fn new(told: Arc<Notify>) -> Self {
        Self {
            share: Semaphore::new(SHARE),
            alone: false,
            waits: AtomicBool::new(false),
            asked: AtomicUsize::new(0),
            told,
        }
    }

    /// The only turn of a look.
    pub fn alone() -> Self {
        Self { share: Semaphore::new(OF_A_LOOK), alone: true, ..Self::new(Arc::default()) }
    }

    /// Takes one request from the share; waits for another share when it is used up.
    ///
    /// # Errors
    /// [`Error::OutOfTime`]: there is no other share.
    pub async fn ask(&self) -> Result<(), Error> {
        if let Ok(permit) = self.share.try_acquire() {
            permit.forget();
        } else if self.alone {
            return Err(Error::OutOfTime);
        } else {
            if !self.waits.swap(true, Ordering::SeqCst) {
                self.told.notify_one();
            }
            // The semaphore is never closed.
            if let Ok(permit) = self.share.acquire().await {
                permit.forget();
            }
        }
        self.asked.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    /// Whether it waits for another share.
    pub fn waits(&self) -> bool {
        self.waits.load(Ordering::SeqCst)
    }

    /// Another share.
    pub fn go_on(&self) {
        self.waits.store(false, Ordering::SeqCst);
        self.share.add_permits(SHARE);
    }

    /// How many requests it has made.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}
