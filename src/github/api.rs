//! The adapter's core: requests with credentials, rate limits, redirects, ETags and pages.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use hyper::{
    Method,
    header::{self, HeaderName, HeaderValue},
};
use jiff::{SignedDuration, Timestamp};
use tokio::{sync::Semaphore, time::Instant};
use url::Url;

use super::{
    address::Web,
    auth::{Auth, Authenticator, Credentials, Principal},
    cache::{Cache, CacheStore},
    error::Error,
    etags,
    followed::Followed,
    keyring::{Assigned, Keyring},
    limits::{Claim, Headroom, Limits, Rate},
    pagination::{on_same_host, origin_of},
    remembered::Remembered,
    sizes::Sizes,
    turns::Turn,
};
use crate::{
    github::Role,
    http::{self, Request, Response, RetryPolicy},
    labels::Interest,
    model::{RepositoryId, span},
};

/// The REST API version that we use (contract §4).
const API_VERSION: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-github-api-version"), HeaderValue::from_static("2022-11-28"));

/// The lists of a pass leave at least this many of the concurrent requests to others, so that runners still get their
/// credentials and are stopped while GitHub is slow.
const KEPT_FOR_ACTIONS: usize = 2;

/// How many redirects in a row are followed. A repository can be renamed more than once.
const MAX_REDIRECTS: usize = 3;

/// Our clock is corrected by GitHub's if they differ by at most this: synchronized clocks drift by minutes. A `Date`
/// that is years off must not create tokens that are valid in years.
const CORRECTED_AT_MOST: SignedDuration = SignedDuration::from_mins(10);

/// Returns the time of day. Only used for an App's tokens, and corrected by GitHub's own clock.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The adapter's settings.
#[derive(Clone)]
pub struct Options {
    /// The API's URL, from [`super::api_url`].
    pub api_url: Url,
    /// Where ETags are kept across restarts.
    pub cache: CacheStore,
    /// How many requests, and how many repositories, are processed concurrently. GitHub allows 100 (contract §4), its
    /// secondary limits fewer.
    pub concurrency: usize,
    /// How long the repositories of an entry are cached.
    pub refresh: Duration,
    /// The limit on points in any minute, where a read costs 1 and any other request 5. It applies while the server's
    /// responses have rate-limit headers; `None`: no limit.
    pub points_a_minute: Option<u64>,
    /// The time of day.
    pub clock: Clock,
    /// Which jobs are of interest: a run without any of them is rarely read. `None`: all.
    pub interest: Option<Arc<Interest>>,
}

/// GitHub's secondary limit is 900 points a minute (contract §4). The rest is for other users of the same
/// token.
pub const POINTS_A_MINUTE: u64 = 700;

impl Options {
    /// The defaults for an API.
    pub fn new(api_url: Url) -> Self {
        Self {
            points_a_minute: Some(POINTS_A_MINUTE),
            api_url,
            cache: CacheStore::None,
            concurrency: 16,
            refresh: Duration::from_secs(10 * 60),
            clock: Arc::new(Timestamp::now),
            interest: None,
        }
    }
}

/// The GitHub client. Clones share everything except their own limits on time and requests.
#[derive(Clone)]
pub struct GitHub(pub(super) Arc<Inner>, Bounds);

/// The limits for one user of [`GitHub`].
#[derive(Clone, Default)]
struct Bounds {
    /// No request begins after this, and responses to reads are not awaited longer.
    until: Option<Instant>,
    /// The turn of a repository's listing.
    turn: Option<Arc<Turn>>,
    /// How many more reads someone is waiting for; `None`: all of them.
    awaited: Option<Arc<AtomicUsize>>,
}

impl Bounds {
    /// The claim of the next request.
    fn claim(&self, reads: bool) -> Claim {
        let take = |left: &Arc<AtomicUsize>| {
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
        };
        match &self.awaited {
            _ if !reads => Claim::Write,
            Some(left) if !take(left) => Claim::Pace,
            _ => Claim::Asked,
        }
    }
}

pub(super) struct Inner {
    http: http::Client,
    pub(super) api: Url,
    /// The API's scheme, host and port.
    origin: String,
    pub(super) web: Web,
    pub(super) cache: Cache,
    limits: Limits,
    pub(super) sizes: Sizes,
    slots: Semaphore,
    /// The slots that the lists of a pass may use. The other slots are for everything else.
    reading: Semaphore,
    keyring: Keyring,
    clock: Clock,
    /// GitHub's clock minus ours, in seconds, according to its last response.
    ahead: AtomicI64,
    pub(super) concurrency: usize,
    pub(super) refresh: Duration,
    pub(super) interest: Option<Arc<Interest>>,
    pub(super) resolved: Mutex<BTreeMap<String, Remembered>>,
    pub(super) followed: Mutex<BTreeMap<RepositoryId, Followed>>,
    /// The last push of each repository, where a list reported it.
    pub(super) pushed: Mutex<BTreeMap<RepositoryId, Timestamp>>,
}

/// Whether a request that failed is retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Sent once: a request whose response was lost may have changed something.
    Never,
    /// Retried after transient failures.
    AfterFailures,
}

impl GitHub {
    /// The adapter over a client for the API's host. Reads the cache file.
    pub fn new(http: http::Client, auth: Auth, options: Options) -> Self {
        Self::with(http, auth, Vec::new(), options)
    }

    /// The same, with separate credentials for some owners; `auth` is for all others.
    pub fn with(http: http::Client, auth: Auth, assigned: Vec<Assigned>, options: Options) -> Self {
        let origin = options.api_url[..url::Position::BeforePath].to_owned();
        let inner = Inner {
            http,
            origin,
            web: Web::of(&options.api_url),
            api: options.api_url,
            cache: Cache::open(options.cache),
            limits: Limits::new(options.points_a_minute),
            sizes: Sizes::default(),
            slots: Semaphore::new(options.concurrency.max(1)),
            reading: Semaphore::new(options.concurrency.saturating_sub(KEPT_FOR_ACTIONS).max(1)),
            concurrency: options.concurrency.max(1),
            keyring: Keyring::new(auth, assigned),
            clock: options.clock,
            ahead: AtomicI64::new(0),
            refresh: options.refresh,
            interest: options.interest,
            resolved: Mutex::default(),
            followed: Mutex::default(),
            pushed: Mutex::default(),
        };
        Self(Arc::new(inner), Bounds::default())
    }

    /// The same client with a deadline: whatever has no response by then is [`Error::OutOfTime`]. A write in progress
    /// is still awaited.
    #[must_use]
    pub fn until(&self, end: Instant) -> Self {
        let until = Some(self.1.until.map_or(end, |until| until.min(end)));
        Self(self.0.clone(), Bounds { until, ..self.1.clone() })
    }

    /// The same client for one repository's turn in a pass.
    pub(super) fn in_turn(&self, turn: Arc<Turn>) -> Self {
        Self(self.0.clone(), Bounds { turn: Some(turn), ..self.1.clone() })
    }

    /// The same client for scheduled requests: it leaves more of the limits to others.
    #[must_use]
    pub fn by_the_pace(&self) -> Self {
        self.awaited(0)
    }

    /// The same client, of whose reads the first `reads` are not scheduled: someone is waiting for them.
    #[must_use]
    pub fn awaited(&self, reads: usize) -> Self {
        let awaited = Some(Arc::new(AtomicUsize::new(reads)));
        Self(self.0.clone(), Bounds { awaited, ..self.1.clone() })
    }

    /// Ends a pass: the cache drops unused entries, and writes its file if anything changed.
    pub async fn end_pass(&self) {
        self.0.sizes.end_pass();
        self.0.cache.end_pass().await;
    }

    /// The sizes of everything it remembers, by name.
    pub fn sizes(&self) -> BTreeMap<&'static str, usize> {
        let followed = self.0.followed.lock().unwrap_or_else(PoisonError::into_inner);
        let resolved = self.0.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        BTreeMap::from([
            ("cached pages", self.0.cache.len()),
            ("bodies of pages", self.0.cache.bodies.len()),
            ("followed repositories", followed.len()),
            ("followed runs", followed.values().map(|followed| followed.runs.len()).sum()),
            ("lists in small pages", self.0.sizes.len()),
            ("resolved entries", resolved.len()),
            ("rates", self.0.limits.rates().len()),
        ])
    }

    /// Sets whether this replica is the leader. A standby uses only a part of the limits.
    pub fn set_role(&self, role: Role) {
        self.0.limits.set_role(role);
    }

    /// Counts what another client has used of the limits.
    pub fn take_over(&self, other: &GitHub) {
        self.0.limits.take_over(&other.0.limits);
    }

    /// Reports each exchange to `observer` from now on.
    pub fn observed_by(&self, observer: Arc<dyn http::Observer>) {
        self.0.http.observed_by(observer);
    }

    /// The rate limits that GitHub last reported, by credentials (a name, not a secret) and bucket.
    pub fn rates(&self) -> BTreeMap<(String, String), Rate> {
        let mut rates: BTreeMap<(String, String), Rate> = BTreeMap::new();
        for ((who, bucket), rate) in self.0.limits.rates() {
            // After a rotation, two tokens share one name for a while. The later response counts.
            let known = rates.entry((self.0.keyring.named(&who), bucket)).or_insert(rate);
            if known.reset < rate.reset {
                *known = rate;
            }
        }
        rates
    }

    /// The name under which requests for an owner's repositories are counted. With an App, each owner has its own. With
    /// a token, all of its owners share one.
    pub fn payer(&self, owner: &str) -> String {
        self.0.keyring.payer(owner)
    }

    /// The requests that a [`payer`](Self::payer) may still make.
    pub fn headroom(&self, payer: &str) -> Headroom {
        self.0.limits.headroom(self.0.keyring.who(payer).as_deref().unwrap_or_default())
    }

    pub(super) fn keyring(&self) -> &Keyring {
        &self.0.keyring
    }

    pub(super) fn authenticator(&self, principal: &Principal) -> &Authenticator {
        self.0.keyring.authenticator(self.0.keyring.of_principal(principal))
    }

    /// The time of day by GitHub's clock, as far as it is plausible.
    pub(super) fn now(&self) -> Timestamp {
        let now = (self.0.clock)();
        match self.ahead() {
            ahead if ahead.abs() <= CORRECTED_AT_MOST => now.checked_add(ahead).unwrap_or(now),
            _ => now,
        }
    }

    /// How far GitHub's clock is ahead of ours, according to its last response.
    fn ahead(&self) -> SignedDuration {
        SignedDuration::from_secs(self.0.ahead.load(Ordering::Relaxed))
    }

    /// A message if the clocks differ by more than is corrected.
    fn clocks_differ(&self) -> Option<String> {
        let ahead = self.ahead();
        let by = span(ahead.unsigned_abs());
        let order = if ahead.is_negative() { "behind" } else { "ahead of" };
        (ahead.abs() > CORRECTED_AT_MOST).then(|| {
            format!(
                "GitHub's clock (its Date header) is {by} {order} this machine's: set this machine's clock, or look for \
                 a proxy that answers in GitHub's place"
            )
        })
    }

    /// The path on the host for a path of the API, which begins with a slash.
    pub(super) fn path(&self, path: &str) -> String {
        format!("{}{path}", self.0.api.path().trim_end_matches('/'))
    }

    /// The URL of a path on the host, as in the cache's keys.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.0.origin)
    }

    /// A request for a path on the host, with the headers of every request (contract §4).
    pub(super) fn request(&self, method: Method, path: impl Into<String>) -> Request {
        let (name, version) = API_VERSION;
        Request::new(method, path)
            .from_root()
            .header(header::ACCEPT, HeaderValue::from_static(etags::ACCEPT))
            .header(name, version)
    }

    /// Sends what `build` creates with the principal's credentials; after a 401, once more with renewed ones. `kind`
    /// names requests that GitHub counts together. With `repeat`, it is retried after transient failures.
    ///
    /// Any status except that of a rate limit is `Ok`. A repeated 401 is an error.
    pub(super) async fn authorized<F>(
        &self,
        principal: &Principal,
        kind: &'static str,
        repeat: Repeat,
        build: F,
    ) -> Result<(Response, Credentials), Error>
    where
        F: Fn(&Credentials) -> Request + Sync,
    {
        let mut renewed = false;
        loop {
            // Boxed, because getting an installation's credentials itself needs authorized requests.
            let credentials = Box::pin(self.credentials(principal)).await?;
            self.0.keyring.is_known_as(principal, &credentials.who);
            let request = build(&credentials).bearer(&credentials.token);
            let response = self.exchange(&credentials, kind, repeat, request).await?;
            if response.status.as_u16() != 401 {
                return Ok((response, credentials));
            }
            if renewed || !self.renew(principal, &credentials).await {
                let mut detail = response.error().to_string();
                // A token signed with a wrong clock is refused.
                if matches!(principal, Principal::App(_))
                    && let Some(clocks) = self.clocks_differ()
                {
                    detail = format!("{detail}; {clocks}");
                }
                return Err(Error::Unauthorized(detail));
            }
            renewed = true;
        }
    }

    /// One exchange within the limits. Redirects on the API's own host are followed (renamed repositories).
    async fn exchange(
        &self,
        credentials: &Credentials,
        kind: &'static str,
        repeat: Repeat,
        mut request: Request,
    ) -> Result<Response, Error> {
        let policy = RetryPolicy { again: worth_repeating, asked: wait_asked_for, ..RetryPolicy::default() };
        if self.1.until.is_some_and(|end| Instant::now() >= end) {
            return Err(Error::OutOfTime);
        }
        for _ in 0..=MAX_REDIRECTS {
            let reads = request.method() == Method::GET;
            let claim = self.1.claim(reads);
            while let Some(wait) = self.0.limits.pace(&credentials.who, claim) {
                self.0.limits.check(&credentials.who, kind)?;
                self.in_time(tokio::time::sleep(wait)).await?;
            }
            // A request that waits for points does not block others.
            let _reading = match &self.1.turn {
                Some(_) => Some(self.in_time(self.0.reading.acquire()).await?),
                None => None,
            };
            // Waiting for a slot does not count towards the exchange's deadline. The semaphore is never
            // closed.
            let _slot = self.in_time(self.0.slots.acquire()).await?;
            self.0.limits.check(&credentials.who, kind)?;
            let began = Instant::now();
            let sent = async {
                match repeat {
                    Repeat::AfterFailures => self.0.http.send_with_retries(request.clone(), &policy).await,
                    Repeat::Never => self.0.http.send(request.clone()).await,
                }
            };
            let response = if reads { self.in_time(sent).await?? } else { sent.await? };
            drop(_slot);
            self.0.limits.took(&credentials.who, began.elapsed());
            if let Some(date) = response.date() {
                let ahead = date.as_second().saturating_sub((self.0.clock)().as_second());
                self.0.ahead.store(ahead, Ordering::Relaxed);
            }
            self.0.limits.learn(&credentials.who, kind, &response)?;
            let follows = match response.status.as_u16() {
                301 | 302 => request.method() == Method::GET,
                307 | 308 => true,
                _ => false,
            };
            if !follows {
                return Ok(response);
            }
            let target = self.redirected(&request, &response)?;
            request = request.with_path(target);
        }
        Err(Error::Unexpected(format!("{} {}: too many redirects", request.method(), request.path())))
    }

    /// The path of a redirect that may be followed.
    fn redirected(&self, request: &Request, response: &Response) -> Result<String, Error> {
        let location = response.header(header::LOCATION).unwrap_or_default();
        let Some(target) = on_same_host(&self.0.api, request.path(), location) else {
            let advice = match origin_of(&self.0.api, request.path(), location) {
                Some(origin) => format!("; if {origin} is the same server, set github.url to {origin}"),
                None => String::new(),
            };
            return Err(Error::Unexpected(format!(
                "{}: redirected away from the API's host, which is not followed{advice}",
                response.exchange
            )));
        };
        // A proxy may serve the API below a path, and something else next to it that must not get the token.
        let prefix = self.path("/");
        if !target.starts_with(&prefix) {
            return Err(Error::Unexpected(format!(
                "{}: redirected to a path outside of github.url's own, {prefix}, which is not followed",
                response.exchange
            )));
        }
        Ok(target)
    }

    /// The turn of a listing that this is for.
    pub(super) fn turn(&self) -> Option<&Turn> {
        self.1.turn.as_deref()
    }

    /// How many requests this turn has made.
    pub(super) fn asked(&self) -> usize {
        self.1.turn.as_ref().map_or(0, |turn| turn.asked())
    }

    /// The result, if it is ready before the deadline.
    pub(super) async fn in_time<T>(&self, what: impl Future<Output = T>) -> Result<T, Error> {
        match self.1.until {
            None => Ok(what.await),
            // A result that is ready at the last moment counts.
            Some(end) => tokio::time::timeout_at(end, what).await.map_err(|_| Error::OutOfTime),
        }
    }
}

/// 5xx. [`Limits`] handles rate limits.
fn worth_repeating(response: &Response) -> bool {
    matches!(response.status.as_u16(), 500 | 502 | 503 | 504)
}

/// The wait that a response requests: `retry-after`, or until `x-ratelimit-reset` if nothing remains (contract §4), by
/// the server's own clock.
fn wait_asked_for(response: &Response) -> Option<Duration> {
    response.retry_after().or_else(|| {
        if response.header("x-ratelimit-remaining")?.trim() != "0" {
            return None;
        }
        let reset: i64 = response.header("x-ratelimit-reset")?.trim().parse().ok()?;
        let wait = Timestamp::from_second(reset).ok()?.duration_since(response.date()?);
        Some(Duration::try_from(wait).unwrap_or_default())
    })
}
