//! Of two daemons, one acts: which of them truly holds the lock, and when the other must hold it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use githubrunner_sim::{
    fault::{Arrived, Sender, Side},
    world::World,
};
use hyper::{Method, Request};
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::super::replica::Replica;
use crate::{
    deployment::PREFIX,
    faults::{kind::FaultKind, scenario::Scenario},
};

/// A holder acts for one TTL after it sent its last successful request for the lock.
const TTL: SignedDuration = SignedDuration::from_secs(10);

/// After a kill, and after the start of a suspension.
const AFTER_A_KILL: Duration = Duration::from_secs(25);

/// After a clean exit.
const AFTER_AN_EXIT: Duration = Duration::from_secs(1);

/// Whether this is the lock's path.
pub fn is_lock(path: &str) -> bool {
    path.starts_with("/v1/var/githubrunner/") && path.ends_with("/leader")
}

/// Until when each daemon may act.
#[derive(Clone)]
pub struct Leases {
    inner: Arc<Mutex<Inner>>,
    on: bool,
    /// A lock that the servers have forgotten may be another's at once.
    forgets: bool,
}

#[derive(Default)]
struct Inner {
    until: [Option<Timestamp>; 2],
    /// The last one to acquire or renew the lock, unless it was released.
    holder: Option<usize>,
    /// When that took effect.
    kept_at: Option<Instant>,
}

impl Leases {
    /// Nobody holds it.
    pub fn new(scenario: &Scenario) -> Leases {
        let forgets = scenario.has(FaultKind::RestartsEmpty);
        Leases { inner: Arc::default(), on: scenario.replicas, forgets }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last one to acquire the lock.
    pub fn leader(&self) -> Option<usize> {
        self.inner().holder
    }

    /// Whether the servers have forgotten a lock whose holder cannot know that yet.
    pub fn two_may_lead(&self, world: &World, now: Timestamp) -> bool {
        let forgot_at = world.nomad.forgot_at();
        self.on && forgot_at.is_some_and(|at| world.nomad_time(now).duration_since(at) <= TTL)
    }

    /// A daemon has ended: it sends nothing more.
    pub fn ended(&self, number: usize) {
        if let Some(until) = self.inner().until.get_mut(number) {
            *until = None;
        }
    }

    /// A request is sent. Returns what is wrong with that.
    pub fn sent(&self, side: Side, request: &Request<Bytes>, now: Timestamp) -> Option<String> {
        if !self.on || request.method() == Method::GET {
            return None;
        }
        let Sender(who) = *request.extensions().get::<Sender>()?;
        let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
        let about_lock = side == Side::Nomad && is_lock(path);
        // Allowed: reads, which a standby makes too, and authentication.
        let harmless = match side {
            // Also allowed: creating the key, which a standby does if it finds jobs but no key. It names the previous
            // key, and only one of two writes succeeds.
            Side::Nomad => {
                path == "/v1/jobs/parse"
                    || path.ends_with("/instance")
                    || path == format!("/v1/var/githubrunner/{PREFIX}/key")
            }
            Side::GitHub => path.starts_with("/app/"),
        };
        if harmless || (about_lock && !query.contains("lock-release")) {
            return None;
        }
        let inner = self.inner();
        let method = request.method();
        if inner.until[who].is_none_or(|until| until < now) {
            let until = inner.until[who];
            return Some(format!("daemon {who} sends {method} {path}?{query}; it may act until {until:?}"));
        }
        let other = inner.until[1 - who].filter(|until| *until > now);
        match other {
            Some(until) if !self.forgets => {
                Some(format!("daemon {who} sends {method} {path}; the other one may act until {until}"))
            }
            _ => None,
        }
    }

    /// A request for the lock succeeded.
    pub fn kept(&self, request: &Request<Bytes>, now: Timestamp) {
        let (Some(Sender(who)), true) = (request.extensions().get().copied(), self.on) else { return };
        if request.method() == Method::GET {
            return;
        }
        let mut inner = self.inner();
        if request.uri().query().is_some_and(|query| query.contains("lock-release")) {
            inner.until[who] = None;
            inner.holder = None;
            return;
        }
        let Arrived(sent) = request.extensions().get().copied().unwrap_or(Arrived(now));
        let until = sent.checked_add(TTL).unwrap_or(sent);
        inner.until[who] = inner.until[who].max(Some(until));
        inner.holder = Some(who);
        inner.kept_at = Some(Instant::now());
    }

    /// Whether anyone has acquired or kept the lock since then.
    fn is_held_since(&self, since: Instant, who: usize) -> bool {
        let inner = self.inner();
        inner.holder == Some(who) && inner.kept_at.is_some_and(|at| at >= since)
    }
}

/// When the other daemon must lead, if nothing else is wrong.
pub struct Takeover {
    on: bool,
    expected: Option<Expected>,
    wire: Duration,
}

struct Expected {
    since: Instant,
    by: Instant,
    why: String,
}

impl Takeover {
    /// Nothing is expected yet.
    pub fn new(scenario: &Scenario) -> Takeover {
        let only = [FaultKind::LeaderDies, FaultKind::LeaderExits, FaultKind::LeaderPauses];
        let on = scenario.replicas && scenario.faults.iter().all(|fault| only.contains(fault));
        // A release and a request are on the wire.
        Takeover { on, expected: None, wire: scenario.latency * 2 }
    }

    /// A request may be on the wire for this long.
    pub fn wire(&mut self, wire: Duration) {
        self.wire = self.wire.max(wire);
    }

    /// When the next check is due.
    pub fn due(&self) -> Option<Instant> {
        self.expected.as_ref().map(|expected| expected.by)
    }

    /// Something has happened to a daemon. The other one must take over only if this one led and the other is
    /// well.
    pub fn expect(&mut self, number: usize, leader: Option<usize>, what: &str, replicas: &[Replica]) {
        // It ends some time after it was told to, so the time counts from then.
        if what.contains("ends as") {
            return;
        }
        self.expected = None;
        let others_are_well = replicas.iter().all(|other| other.number == number || other.is_well());
        if !self.on || leader != Some(number) || !others_are_well {
            return;
        }
        let since = Instant::now();
        let exits = what.contains("told to end") && replicas.iter().all(|replica| !replica.is_paused());
        let within = match exits {
            true => AFTER_AN_EXIT + self.wire,
            false => AFTER_A_KILL + self.wire,
        };
        self.expected = Some(Expected { since, by: since + within, why: what.to_owned() });
    }

    /// Whether there is a leader when it is due.
    pub fn check(&mut self, now: Instant, leases: &Leases, replicas: &[Replica]) -> Option<String> {
        let expected = self.expected.take_if(|expected| expected.by <= now)?;
        let leads =
            |replica: &&Replica| replica.is_well() && leases.is_held_since(expected.since, replica.number);
        match replicas.iter().find(leads) {
            Some(_) => None,
            None => Some(format!("nobody leads {:?} after {}", now - expected.since, expected.why)),
        }
    }
}
