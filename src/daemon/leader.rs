//! With replicas only the holder of a lock applies. The others observe.
//!
//! The lock is a Nomad variable (contract nomad.md §8). The holder renews it at half its TTL and counts itself
//! out one TTL after it *began* its last successful renewal, by its own monotonic clock: the server lets the
//! lock expire no earlier than that. It is released only while it is certainly still ours.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use crate::nomad::{Acquired, Kept, Lease, Nomad};

/// The shortest that Nomad takes: the server expires the lock at twice this.
const TTL: Duration = Duration::from_secs(10);

/// Nomad waits so long after an expiry before the next holder gets the lock; zero would mean 15 s.
const LOCK_DELAY: Duration = Duration::from_secs(1);

/// How often a standby asks: after a clean exit it follows within a second.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// The time for one request about the lock: a second one must fit before the lease is over.
const REQUEST_DEADLINE: Duration = Duration::from_secs(3);

/// The time to release the lock on the way out.
const RELEASE_DEADLINE: Duration = Duration::from_millis(700);

/// Whether this process may apply, and until when.
#[derive(Clone, Debug)]
pub struct Leadership(Option<watch::Receiver<Option<Instant>>>);

impl Leadership {
    /// That of a daemon without replicas.
    pub fn always() -> Self {
        Leadership(None)
    }

    /// Whether it may apply now.
    pub fn holds(&self) -> bool {
        match &self.0 {
            None => true,
            Some(until) => until.borrow().is_some_and(|until| Instant::now() < until),
        }
    }

    /// Ends when it may not apply any more.
    pub async fn lost(&self) {
        let Some(mut until) = self.0.clone() else { return std::future::pending().await };
        loop {
            let Some(end) = *until.borrow_and_update() else { return };
            tokio::select! {
                biased;
                changed = until.changed() => if changed.is_err() { return },
                () = sleep_until(end) => return,
            }
        }
    }

    /// Ends as soon as it may apply.
    pub async fn held(&self) {
        let Some(mut until) = self.0.clone() else { return };
        while !self.holds() {
            if until.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

/// The candidate for the lock.
pub(super) struct Leader {
    nomad: Nomad,
    holder: String,
    lease: Option<Lease>,
    until: watch::Sender<Option<Instant>>,
}

impl Leader {
    /// A candidate; `holder` tells people who it is.
    pub fn new(nomad: Nomad, holder: String) -> Self {
        Leader { nomad, holder, lease: None, until: watch::Sender::new(None) }
    }

    /// Goes on with another client.
    pub fn use_nomad(&mut self, nomad: Nomad) {
        self.nomad = nomad;
    }

    /// What it may do, followed as it changes.
    pub fn leadership(&self) -> Leadership {
        Leadership(Some(self.until.subscribe()))
    }

    /// Asks for the lock, keeps it, asks again when it is lost; never ends by itself.
    pub async fn stand(&mut self) {
        loop {
            match self.lease.clone() {
                None => self.ask().await,
                Some(lease) => self.keep(lease).await,
            }
        }
    }

    async fn ask(&mut self) {
        let began = Instant::now();
        match self.nomad.lock_acquire(&self.holder, TTL, LOCK_DELAY, REQUEST_DEADLINE).await {
            Ok(Acquired::Ours(lease)) => {
                tracing::info!(holder = self.holder, "leads: this replica applies");
                self.lease = Some(lease);
                self.until.send_replace(Some(began + TTL));
            }
            Ok(Acquired::Held) => sleep(ASK_EVERY).await,
            Err(error) => {
                tracing::debug!(%error, "the lock cannot be asked for");
                sleep(ASK_EVERY * 2).await;
            }
        }
    }

    /// Renews at half the TTL; a renewal that fails is tried again until the lease is over.
    async fn keep(&mut self, lease: Lease) {
        let Some(until) = *self.until.borrow() else { return self.give_up("it was given up") };
        let renew_at = until - TTL / 2;
        sleep_until(renew_at).await;
        loop {
            let began = Instant::now();
            if began >= until {
                return self.give_up("it could not be renewed in time");
            }
            let deadline = REQUEST_DEADLINE.min(until - began);
            match self.nomad.lock_renew(&lease, deadline).await {
                Ok(Kept::Kept) => {
                    self.until.send_replace(Some(began + TTL));
                    return;
                }
                Ok(Kept::Lost) => return self.give_up("Nomad says that it is another's"),
                Err(error) => {
                    tracing::debug!(%error, "the lock was not renewed");
                    sleep(ASK_EVERY).await;
                }
            }
        }
    }

    fn give_up(&mut self, why: &str) {
        tracing::warn!("leads no more: the lock is lost ({why}); this replica only observes");
        self.lease = None;
        self.until.send_replace(None);
    }

    /// Releases the lock if it is certainly still ours, so that the next replica follows at once.
    pub async fn release(&mut self) {
        let until = self.until.send_replace(None);
        let (Some(lease), Some(until)) = (self.lease.take(), until) else { return };
        let now = Instant::now();
        if now >= until {
            return;
        }
        if let Err(error) = self.nomad.lock_release(&lease, RELEASE_DEADLINE.min(until - now)).await {
            tracing::debug!(%error, "the lock was not released; it expires by itself");
        }
    }
}
