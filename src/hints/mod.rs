//! Reasons to look at a repository soon. Each is a hint and nothing more: the lists are the truth, so one that is lost,
//! late, repeated or forged costs a look at most.
//!
//! All sources end in [`Hints`]: webhooks ([`webhook`]), pushes ([`pushes`]) and the log of a webhook's deliveries
//! ([`deliveries`]). It is bounded in everything: repositories that wait, looks at one repository, deliveries that are
//! remembered.

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

use ring::hmac;
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

pub use delivery::{Guid, LONGEST_GUID};
pub use pushes::WATCHED_FROM;
pub use sources::follow;

/// The shortest time between two looks that hints for one repository cause. What comes earlier waits, and is not lost.
pub const LOOKS_APART: Duration = Duration::from_secs(1);

/// At most this many repositories wait for a look; the pace of the lists finds the others.
const MOST_WAITING: usize = 10_000;

/// At most this many deliveries are remembered: at 50 a second those of more than a minute, and no replay wakes anything for as long.
const MOST_DELIVERIES: usize = 4_096;

/// A file with a secret is read again after this time, so that a rotation is noticed at once.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// What everyone can provoke is told no more often.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// The longest wait of a source after failures.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// A reason to look at a repository soon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// Which one.
    pub repository: RepositoryId,
    /// `owner/name`, where the source tells it; checked.
    pub full_name: Option<String>,
    /// Where the hint comes from.
    pub reason: Reason,
}

/// Where a hint comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// A webhook told of a job that was queued, started or completed.
    Webhook,
    /// Somebody pushed to it: jobs may follow within seconds, so one look may come too early.
    Push,
    /// The log of a webhook's deliveries told of a job.
    Delivery,
}

impl Reason {
    const ALL: [Reason; 3] = [Reason::Webhook, Reason::Push, Reason::Delivery];

    /// The word for it in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Webhook => "webhook",
            Reason::Push => "push",
            Reason::Delivery => "delivery",
        }
    }
}

/// What became of a hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// The repository is looked at soon.
    Taken,
    /// The configuration does not name it.
    NotConfigured,
    /// Too many repositories wait.
    Full,
}

/// The repositories that are to be looked at soon. Clones share everything.
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
    /// When a look was last handed out; older ones than [`LOOKS_APART`] do not matter.
    looked: BTreeMap<RepositoryId, Instant>,
    known: BTreeMap<RepositoryId, Known>,
    deliveries: Deliveries,
    settings: Option<Arc<Settings>>,
    file: Option<(Arc<hmac::Key>, Instant)>,
    complained: Option<Instant>,
}

/// A repository that the daemon watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The owner's login.
    pub owner: String,
    /// The name without the owner.
    pub name: String,
}

/// What the sources need of the configuration.
struct Settings {
    repos: Vec<RepoEntry>,
    interest: Interest,
    secret: Option<Secret>,
    secret_file: Option<PathBuf>,
}

impl Hints {
    /// None yet, and nothing is configured. What comes is counted in `status`.
    pub fn new(status: Status) -> Self {
        status.expect(Counter::Hints, Reason::ALL.map(Reason::as_str));
        status.expect(Counter::WebhookRequests, webhook::Outcome::ALL.map(webhook::Outcome::as_str));
        Hints(Arc::new(Shared { inner: Mutex::default(), news: Notify::new(), status }))
    }

    /// Goes by this configuration from now on.
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

    /// These are the repositories that the daemon watches.
    pub fn know<'a>(&self, repositories: impl IntoIterator<Item = &'a Repository>) {
        let known = repositories.into_iter().map(|repository| {
            (repository.id, Known { owner: repository.owner.clone(), name: repository.name.clone() })
        });
        self.inner().known = known.collect();
    }

    /// The repositories that the daemon watches.
    pub fn known(&self) -> BTreeMap<RepositoryId, Known> {
        self.inner().known.clone()
    }

    /// Asks for a look at a repository. Hints for one that waits already are one look.
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

    /// Ends as soon as a repository is to be looked at. One waits for it at a time.
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

    /// The repositories that are to be looked at now.
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

    /// Whether this delivery was not seen before, by whichever way. From now on it was.
    pub fn is_news(&self, delivery: &Guid) -> bool {
        self.inner().deliveries.insert(delivery)
    }

    /// How many things it remembers, by what they are.
    pub fn sizes(&self) -> BTreeMap<&'static str, usize> {
        let inner = self.inner();
        BTreeMap::from([
            ("hints", inner.waiting.len()),
            ("hinted looks", inner.looked.len()),
            ("hinted repositories", inner.known.len()),
            ("deliveries", inner.deliveries.order.len()),
        ])
    }

    /// Whether a job is one for our runners, or runs on one.
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
            _ => Err("there is no webhook.secret".to_owned()),
        }
    }

    /// Whether it is time to say again what everyone can provoke.
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
    /// Whether the daemon watches it, or an entry of the configuration names it.
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

/// How long a source waits after its n-th failure in a row: twice as long each time, and as long as GitHub asks for.
fn wait_after(every: Duration, failures: u32, error: &Error) -> Duration {
    let wait = doubled(every, failures).min(LONGEST_WAIT);
    match error {
        Error::RateLimited { wait: limited, .. } => wait.max(*limited),
        _ => wait,
    }
}

/// The deliveries that were seen, the latest of them.
#[derive(Default)]
struct Deliveries {
    known: HashSet<Guid>,
    order: VecDeque<Guid>,
}

impl Deliveries {
    /// Whether it was not there.
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
