//! With replicas, only the holder of a lock applies plans. The others observe.
//!
//! The lock is a Nomad variable (contract nomad.md §8). The holder renews it at half its TTL. By its own monotonic
//! clock, it considers the lock lost one TTL after it *began* its last successful renewal; the server does not let the
//! lock expire earlier than that. The holder releases it only while it certainly still holds it. A renewal is always
//! harmless: it uses the lock's ID, so it succeeds only if nobody else has held the lock in the meantime.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use crate::nomad::{Acquired, Kept, Lease, Nomad};

/// The shortest TTL that Nomad accepts. The server expires the lock at twice this.
const TTL: Duration = Duration::from_secs(10);

/// How long Nomad waits after an expiry before another holder can get the lock. Zero would mean 15 s.
const LOCK_DELAY: Duration = Duration::from_secs(1);

/// How often a standby tries: after a clean exit it takes over within a second.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// The deadline for one request about the lock. A second one must fit in before the lease ends.
const REQUEST_DEADLINE: Duration = Duration::from_secs(3);

/// The deadline for releasing the lock at exit.
const RELEASE_DEADLINE: Duration = Duration::from_millis(700);

/// A period of leadership. Another replica may have led between two terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term(u64);

/// Whether this process may apply plans, and until when.
#[derive(Clone, Debug)]
pub struct Leadership(Option<watch::Receiver<Option<Held>>>);

#[derive(Clone, Copy, Debug)]
struct Held {
    term: Term,
    until: Instant,
}

impl Leadership {
    /// Permanent leadership, for a daemon without replicas.
    pub fn always() -> Self {
        Leadership(None)
    }

    /// The current term; `None` without leadership. Observations from another term, or from none, must not be
    /// acted on.
    pub fn term(&self) -> Option<Term> {
        let Some(held) = &self.0 else { return Some(Term(0)) };
        held.borrow().filter(|held| Instant::now() < held.until).map(|held| held.term)
    }

    /// Whether it may apply plans now.
    pub fn holds(&self) -> bool {
        self.term().is_some()
    }

    /// Completes when this term is over.
    pub async fn over(&self, term: Term) {
        let Some(mut held) = self.0.clone() else { return std::future::pending().await };
        loop {
            let Some(now) = *held.borrow_and_update() else { return };
            if now.term != term {
                return;
            }
            tokio::select! {
                biased;
                changed = held.changed() => if changed.is_err() { return },
                () = sleep_until(now.until) => return,
            }
        }
    }

    /// Completes as soon as it may apply plans.
    pub async fn held(&self) {
        let Some(mut held) = self.0.clone() else { return };
        while !self.holds() {
            if held.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

/// The candidate for the lock.
pub struct Leader {
    nomad: Nomad,
    holder: String,
    /// The last lease, until Nomad says that it is gone.
    lease: Option<Lease>,
    terms: u64,
    held: watch::Sender<Option<Held>>,
}

impl Leader {
    /// A candidate. `holder` identifies it to people.
    pub fn new(nomad: Nomad, holder: String) -> Self {
        Leader { nomad, holder, lease: None, terms: 0, held: watch::Sender::new(None) }
    }

    /// Continues with another client.
    pub fn use_nomad(&mut self, nomad: Nomad) {
        self.nomad = nomad;
    }

    /// The leadership, updated as it changes.
    pub fn leadership(&self) -> Leadership {
        Leadership(Some(self.held.subscribe()))
    }

    /// Acquires the lock, keeps it, and acquires it again when it is lost. Never ends.
    pub async fn stand(&mut self) {
        loop {
            let held = *self.held.borrow();
            match (self.lease.clone(), held) {
                (None, _) => self.ask().await,
                (Some(lease), Some(held)) => self.keep(lease, held).await,
                (Some(lease), None) => self.regain(lease).await,
            }
        }
    }

    async fn ask(&mut self) {
        let began = Instant::now();
        match self.nomad.lock_acquire(&self.holder, TTL, LOCK_DELAY, REQUEST_DEADLINE).await {
            Ok(Acquired::Ours(lease)) => self.lead(lease, began),
            Ok(Acquired::Held) => sleep(ASK_EVERY).await,
            Err(error) => {
                tracing::debug!(%error, "cannot read the leader lock");
                sleep(ASK_EVERY * 2).await;
            }
        }
    }

    /// Starts a new term. Its lease counts from when it was requested.
    fn lead(&mut self, lease: Lease, began: Instant) {
        tracing::info!(holder = self.holder, "acquired the leader lock");
        self.terms += 1;
        self.lease = Some(lease);
        self.held.send_replace(Some(Held { term: Term(self.terms), until: began + TTL }));
    }

    /// Renews at half the TTL. A failed renewal is retried until the lease ends.
    async fn keep(&mut self, lease: Lease, Held { term, until }: Held) {
        sleep_until(until - TTL / 2).await;
        loop {
            let began = Instant::now();
            if began >= until {
                return self.give_up("it could not be renewed in time");
            }
            let deadline = REQUEST_DEADLINE.min(until - began);
            match self.nomad.lock_renew(&lease, deadline).await {
                // If this process was suspended and reads the response late, the lease still counts from the
                // request.
                Ok(Kept::Kept) => {
                    self.held.send_replace(Some(Held { term, until: began + TTL }));
                    return;
                }
                Ok(Kept::Lost) => {
                    self.lease = None;
                    return self.give_up("another replica holds it");
                }
                Err(error) => {
                    tracing::debug!(%error, "the leader lock was not renewed");
                    sleep(ASK_EVERY).await;
                }
            }
        }
    }

    /// The lease has ended by our clock, but maybe not at the server, where it expires later. If nobody else has held
    /// the lock, we hold it again at once.
    async fn regain(&mut self, lease: Lease) {
        let began = Instant::now();
        match self.nomad.lock_renew(&lease, REQUEST_DEADLINE).await {
            Ok(Kept::Kept) => self.lead(lease, began),
            Ok(Kept::Lost) => self.lease = None,
            Err(error) => {
                tracing::debug!(%error, "cannot renew the leader lock");
                sleep(ASK_EVERY * 2).await;
            }
        }
    }

    fn give_up(&mut self, why: &str) {
        tracing::warn!("lost the leader lock ({why}); standing by");
        self.held.send_replace(None);
    }

    /// Releases the lock if we certainly still hold it, so that the next replica takes over at once.
    pub async fn release(&mut self) {
        let held = self.held.send_replace(None);
        let (Some(lease), Some(held)) = (self.lease.take(), held) else { return };
        let now = Instant::now();
        if now >= held.until {
            return;
        }
        if let Err(error) = self.nomad.lock_release(&lease, RELEASE_DEADLINE.min(held.until - now)).await {
            tracing::debug!(%error, "could not release the leader lock; it will expire");
        }
    }
}
