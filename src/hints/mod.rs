//! Reasons to poll a repository soon. They are only hints: the lists are the source of truth, so one that is lost,
//! late, repeated or forged costs at most one look.
//!
//! All sources end in [`Hints`]: webhooks ([`webhook`]), pushes ([`pushes`]) and a webhook's delivery log
//! ([`deliveries`]). Everything in it is limited: waiting repositories, looks at one repository, remembered deliveries.

pub mod deliveries;
mod delivery;
pub mod pushes;
mod sources;
pub mod webhook;

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

pub use delivery::{Guid, LONGEST_GUID};
pub use pushes::WATCHED_FROM;
use ring::hmac;
pub use sources::follow;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::{
    config::{Config, RepoEntry},
    github::Error,
    labels::Interest,
    model::{Repository, RepositoryId, doubled},
    secret::{self, Secret},
    status::{Counter, Status},
};

/// The shortest time between two looks that hints for one repository cause. Earlier hints wait and are not lost.
pub const LOOKS_APART: Duration = Duration::from_secs(1);

/// At most this many repositories wait for a look. Scheduled looks cover the others.
const MOST_WAITING: usize = 10_000;

/// At most this many deliveries are remembered: more than a minute's worth at 50 a second, so that a replay has no
/// effect for that long.
const MOST_DELIVERIES: usize = 4_096;

/// A secret file is reread after this time, so that a rotation is noticed at once.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// How often something that anyone can provoke is logged.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// The longest wait of a source after failures.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// A reason to poll a repository soon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// The repository.
    pub repository: RepositoryId,
    /// `owner/name`, if the source provides it; validated.
    pub full_name: Option<String>,
    /// The source of the hint.
    pub reason: Reason,
}

/// The source of a hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// A webhook reported a job that was queued, started or completed.
    Webhook,
    /// Someone pushed to it. Jobs may follow within seconds, so one look may come too early.
    Push,
    /// A webhook's delivery log reported a job.
    Delivery,
}

impl Reason {
    const ALL: [Reason; 3] = [Reason::Webhook, Reason::Push, Reason::Delivery];

    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Webhook => "webhook",
            Reason::Push => "push",
            Reason::Delivery => "delivery",
        }
    }
}

/// The result of a hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// The repository is polled soon.
    Taken,
    /// The configuration does not name it.
    NotConfigured,
    /// Too many repositories are waiting.
    Full,
}

/// The repositories to be polled soon. Clones share everything.
#[derive(Clone)]
pub struct Hints(Arc<Shared>);

struct Shared {
    inner: Mutex<Inner>,
    news: Notify,
    status: Status,
}

#[derive(Default)]
struct Inner {
    /// Each with the earliest time of its look.
    waiting: BTreeMap<RepositoryId, (Hint, Instant)>,
    /// When a look was last requested. Entries older than [`LOOKS_APART`] do not matter.
    looked: BTreeMap<RepositoryId, Instant>,
    known: BTreeMap<RepositoryId, Known>,
    deliveries: Deliveries,
    settings: Option<Arc<Settings>>,
    file: Option<(Arc<hmac::Key>, Instant)>,
    complained: Option<Instant>,
}

/// A watched repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The owner's login.
    pub owner: String,
    /// The name without the owner.
    pub name: String,
}

/// The settings that the sources need.
struct Settings {
    repos: Vec<RepoEntry>,
    interest: Interest,
    secret: Option<Secret>,
    secret_file: Option<PathBuf>,
}

impl Hints {
    /// Without hints, and without a configuration. Hints are counted in `status`.
    pub fn new(status: Status) -> Self {
        status.expect(Counter::Hints, Reason::ALL.map(Reason::as_str));
        status.expect(Counter::WebhookRequests, webhook::Outcome::ALL.map(webhook::Outcome::as_str));
        Hints(Arc::new(Shared { inner: Mutex::default(), news: Notify::new(), status }))
    }

    /// Sets the configuration.
    pub fn configure(&self, config: &Config) {
        let settings = Settings {
            repos: config.repos.clone(),
            interest: config.interest(),
            secret: config.webhook.secret.clone(),
            secret_file: config.webhook.secret_file.clone(),
        };
        let mut inner = self.inner();
        inner.settings = Some(Arc::new(settings));
        inner.file = None;
    }

    /// Sets the watched repositories.
    pub fn know<'a>(&self, repositories: impl IntoIterator<Item = &'a Repository>) {
        let known = repositories.into_iter().map(|repository| {
            (repository.id, Known { owner: repository.owner.clone(), name: repository.name.clone() })
        });
        self.inner().known = known.collect();
    }

    /// The watched repositories.
    pub fn known(&self) -> BTreeMap<RepositoryId, Known> {
        self.inner().known.clone()
    }

    /// Requests a look at a repository. Several hints for a waiting one cause one look.
    pub fn offer(&self, hint: Hint) -> Offered {
        let mut inner = self.inner();
        if !inner.is_configured(&hint) {
            return Offered::NotConfigured;
        }
        self.0.status.count(Counter::Hints, hint.reason.as_str());
        let now = Instant::now();
        if inner.waiting.contains_key(&hint.repository) {
            return Offered::Taken;
        }
        if inner.waiting.len() >= MOST_WAITING {
            return Offered::Full;
        }
        let due = inner.looked.get(&hint.repository).map_or(now, |looked| now.max(*looked + LOOKS_APART));
        inner.waiting.insert(hint.repository, (hint, due));
        drop(inner);
        self.0.news.notify_one();
        Offered::Taken
    }

    /// Completes as soon as a repository is due. Only one caller may wait at a time.
    pub async fn due(&self) {
        loop {
            let first = self.inner().waiting.values().map(|(_, due)| *due).min();
            match first {
                Some(due) if due <= Instant::now() => return,
                Some(due) => tokio::select! {
                    () = sleep_until(due) => {}
                    () = self.0.news.notified() => {}
                },
                None => self.0.news.notified().await,
            }
        }
    }

    /// The repositories that are due now.
    pub fn take(&self) -> Vec<Hint> {
        let now = Instant::now();
        let mut inner = self.inner();
        inner.looked.retain(|_, looked| *looked + LOOKS_APART > now);
        let due: Vec<RepositoryId> =
            inner.waiting.iter().filter(|(_, (_, due))| *due <= now).map(|(id, _)| *id).collect();
        due.into_iter()
            .filter_map(|id| {
                inner.looked.insert(id, now);
                inner.waiting.remove(&id).map(|(hint, _)| hint)
            })
            .collect()
    }

    /// Whether this delivery is new, from whatever source. It then counts as known.
    pub fn is_news(&self, delivery: &Guid) -> bool {
        self.inner().deliveries.insert(delivery)
    }

    /// The sizes of everything it remembers, by name.
    pub fn sizes(&self) -> BTreeMap<&'static str, usize> {
        let inner = self.inner();
        BTreeMap::from([
            ("hints", inner.waiting.len()),
            ("hinted looks", inner.looked.len()),
            ("hinted repositories", inner.known.len()),
            ("deliveries", inner.deliveries.order.len()),
        ])
    }

    /// Whether a job requests one of our runners, or is running on one.
    fn is_ours(&self, labels: &[String], runner: Option<&str>) -> bool {
        let Some(settings) = self.inner().settings.clone() else { return false };
        settings.interest.is_ours(labels, runner)
    }

    /// The key of the webhook's signatures.
    ///
    /// # Errors
    /// Why there is none.
    async fn key(&self) -> Result<Arc<hmac::Key>, String> {
        let (settings, read) = {
            let inner = self.inner();
            (inner.settings.clone(), inner.file.clone())
        };
        let made = |secret: &Secret| Arc::new(hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes()));
        match settings.as_deref() {
            Some(Settings { secret: Some(secret), .. }) => Ok(made(secret)),
            Some(Settings { secret_file: Some(path), .. }) => {
                if let Some((key, _)) = read.filter(|(_, at)| at.elapsed() < READ_AGAIN) {
                    return Ok(key);
                }
                let key = made(&secret::read_file("webhook.secret_file", path).await?);
                self.inner().file = Some((key.clone(), Instant::now()));
                Ok(key)
            }
            _ => Err("webhook.secret is not set".to_owned()),
        }
    }

    /// Whether something that anyone can provoke may be logged again.
    fn may_complain(&self) -> bool {
        let mut inner = self.inner();
        let may = inner.complained.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY);
        if may {
            inner.complained = Some(Instant::now());
        }
        may
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Hints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.sizes()).finish()
    }
}

impl Inner {
    /// Whether it is watched, or an entry of the configuration names it.
    fn is_configured(&self, hint: &Hint) -> bool {
        if self.known.contains_key(&hint.repository) {
            return true;
        }
        let Some((owner, name)) = hint.full_name.as_deref().and_then(|name| name.split_once('/')) else {
            return false;
        };
        self.settings.iter().flat_map(|settings| &settings.repos).any(|entry| match entry {
            RepoEntry::Repository { owner: of, name: called } => {
                of.eq_ignore_ascii_case(owner) && called.eq_ignore_ascii_case(name)
            }
            RepoEntry::Owner(login) => login.eq_ignore_ascii_case(owner),
            RepoEntry::All => true,
        })
    }
}

/// How long a source waits after its n-th consecutive failure: doubling each time, and at least as long as GitHub
/// requests.
fn wait_after(every: Duration, failures: u32, error: &Error) -> Duration {
    let wait = doubled(every, failures).min(LONGEST_WAIT);
    match error {
        Error::RateLimited { wait: limited, .. } => wait.max(*limited),
        _ => wait,
    }
}

/// The latest deliveries that have been seen.
#[derive(Default)]
struct Deliveries {
    known: HashSet<Guid>,
    order: VecDeque<Guid>,
}

impl Deliveries {
    /// Whether it was not there yet.
    fn insert(&mut self, delivery: &Guid) -> bool {
        if !self.known.insert(delivery.clone()) {
            return false;
        }
        self.order.push_back(delivery.clone());
        if self.order.len() > MOST_DELIVERIES
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests;
