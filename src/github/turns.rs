//! Each repository's share of a pass's requests.
//!
//! A listing that has used up its share lets the next repository go first, and continues when all others have had
//! theirs. So a repository with a thousand runs does not slow down the others.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::sync::{Notify, Semaphore};

use super::error::Error;

/// The number of requests in a share, which is enough for nearly all repositories: five lists of runs, and the jobs of
/// 19 runs.
pub(super) const SHARE: usize = 24;

/// The maximum number of requests of a look at one repository. The next look continues.
const OF_A_LOOK: usize = 60;

/// One repository's turn in a pass.
pub(super) struct Turn {
    share: Semaphore,
    /// It ends with its share: it gets no other one.
    alone: bool,
    /// It is waiting for another share.
    waits: AtomicBool,
    asked: AtomicUsize,
    /// Notified when it starts to wait.
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

    /// Takes one request from the share, or waits for another share if it is used up.
    ///
    /// # Errors
    /// [`Error::OutOfTime`] if there is no other share.
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

    /// Whether it is waiting for another share.
    pub fn waits(&self) -> bool {
        self.waits.load(Ordering::SeqCst)
    }

    /// Gives it another share.
    pub fn go_on(&self) {
        self.waits.store(false, Ordering::SeqCst);
        self.share.add_permits(SHARE);
    }

    /// How many requests it has made.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}
