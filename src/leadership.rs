//! With replicas only the holder of a lock applies. The others observe.
//!
//! The lock is a Nomad variable (contract nomad.md §8). The holder renews it at half its TTL and counts itself
//! out one TTL after it *began* its last successful renewal, by its own monotonic clock: the server lets the
//! lock expire no earlier than that. It is released only while it is certainly still ours. Renewing is always harmless:
//! a lock is renewed by its ID, so it succeeds only if nobody else has had it meanwhile.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use crate::nomad::{Acquired, Kept, Lease, Nomad};

/// The shortest that Nomad takes: the server expires the lock at twice this.
const TTL: Duration = Duration::from_secs(10);

/// How long Nomad waits after an expiry before the next holder gets the lock; zero would mean 15 s.
const LOCK_DELAY: Duration = Duration::from_secs(1);

/// How often a standby asks: after a clean exit it follows within a second.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// The time for one request about the lock: a second one must fit before the lease is over.
const REQUEST_DEADLINE: Duration = Duration::from_secs(3);

/// The time to release the lock on the way out.
const RELEASE_DEADLINE: Duration = Duration::from_millis(700);

/// A time of leading. Between two of them another replica may have led.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term(u64);

/// Whether this process may apply, and until when.
#[derive(Clone, Debug)]
pub struct Leadership(Option<watch::Receiver<Option<Held>>>);

#[derive(Clone, Copy, Debug)]
struct Held {
    term: Term,
    until: Instant,
}

impl Leadership {
    /// That of a daemon without replicas.
    pub fn always() -> Self {
        Leadership(None)
    }

    /// The term in which it may apply now. What was seen in another term, or in none, is not to be acted on.
    pub fn term(&self) -> Option<Term> {
        let Some(held) = &self.0 else { return Some(Term(0)) };
        held.borrow().filter(|held| Instant::now() < held.until).map(|held| held.term)
    }

    /// Whether it may apply now.
    pub fn holds(&self) -> bool {
        self.term().is_some()
    }

    /// Ends when this term is over.
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

    /// Ends as soon as it may apply.
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
    /// The lock that it had last, until Nomad says that it is gone.
    lease: Option<Lease>,
    terms: u64,
    held: watch::Sender<Option<Held>>,
}

impl Leader {
    /// A candidate; `holder` tells people who it is.
    pub fn new(nomad: Nomad, holder: String) -> Self {
        Leader { nomad, holder, lease: None, terms: 0, held: watch::Sender::new(None) }
    }

    /// Goes on with another client.
    pub fn use_nomad(&mut self, nomad: Nomad) {
        self.nomad = nomad;
    }

    /// What it may do, followed as it changes.
    pub fn leadership(&self) -> Leadership {
        Leadership(Some(self.held.subscribe()))
    }

    /// Asks for the lock, keeps it, asks again when it is lost; never ends by itself.
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

    /// A new term, for what was asked then.
    fn lead(&mut self, lease: Lease, began: Instant) {
        tracing::info!(holder = self.holder, "acquired the leader lock");
        self.terms += 1;
        self.lease = Some(lease);
        self.held.send_replace(Some(Held { term: Term(self.terms), until: began + TTL }));
    }

    /// Renews at half the TTL; a renewal that fails is tried again until the lease is over.
    async fn keep(&mut self, lease: Lease, Held { term, until }: Held) {
        sleep_until(until - TTL / 2).await;
        loop {
            let began = Instant::now();
            if began >= until {
                return self.give_up("it could not be renewed in time");
            }
            let deadline = REQUEST_DEADLINE.min(until - began);
            match self.nomad.lock_renew(&lease, deadline).await {
                // An answer that was read late, after this process stood still, is good for what it was asked for.
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

    /// The lease is over by our clock, the lock perhaps not: it expires later at the server. If nobody else has had it,
    /// it is ours again at once.
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

    /// Releases the lock if it is certainly still ours, so that the next replica follows at once.
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
