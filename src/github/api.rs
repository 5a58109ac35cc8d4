//! The adapter's core: requests with credentials, limits, redirects, ETags and pages.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::Method;
use hyper::header::{self, HeaderName, HeaderValue};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use url::Url;

use super::auth::{Auth, Authenticator, Credentials, Principal};
use super::cache::{Cache, CacheStore};
use super::error::Error;
use super::jobs::Followed;
use super::limits::{Limits, Rate};
use super::pagination::{Walk, next_link, on_same_host};
use super::repositories::Remembered;
use super::wire::Page;
use crate::http::{self, Request, Response, RetryPolicy};
use crate::model::RepositoryId;

/// The version of the REST API that we speak (contract §4).
const API_VERSION: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-github-api-version"), HeaderValue::from_static("2022-11-28"));

/// How many redirects in a row are followed: a repository can be renamed more than once.
const MAX_REDIRECTS: usize = 3;

/// Tells the time of day, for the tokens of an App only; corrected by GitHub's own clock.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// How the adapter behaves.
#[derive(Clone)]
pub struct Options {
    /// The API's URL, from [`super::api_url`].
    pub api_url: Url,
    /// Where ETags are kept over restarts.
    pub cache: CacheStore,
    /// How many requests, and how many repositories, are under way at once. GitHub bears 100 (contract §4), its secondary limits fewer.
    pub concurrency: usize,
    /// How long the repositories of an entry are remembered.
    pub refresh: Duration,
    /// How often a repository's waiting, pending and requested runs are listed too: they can hold queued jobs.
    pub full_every: Duration,
    /// Requests are spread so that they use no more points a minute, where one that reads costs 1 and others 5;
    /// `None`: as fast as they come.
    pub points_a_minute: Option<u64>,
    /// The time of day.
    pub clock: Clock,
}

/// GitHub's secondary limit is 900 points a minute (contract §4); others use the same token.
const POINTS_A_MINUTE: u64 = 800;

impl Options {
    /// The defaults for an API.
    pub fn new(api_url: Url) -> Self {
        // An Enterprise Server sets its own limits, most set none.
        let public =
            api_url.host_str().is_some_and(|host| host == "api.github.com" || host.ends_with(".ghe.com"));
        Self {
            points_a_minute: public.then_some(POINTS_A_MINUTE),
            api_url,
            cache: CacheStore::None,
            concurrency: 8,
            refresh: Duration::from_secs(10 * 60),
            full_every: Duration::from_secs(5 * 60),
            clock: Arc::new(Timestamp::now),
        }
    }
}

/// GitHub. Clones share everything.
#[derive(Clone)]
pub struct GitHub(pub(super) Arc<Inner>);

pub(super) struct Inner {
    http: http::Client,
    api: Url,
    /// The API's scheme, host and port.
    origin: String,
    pub(super) cache: Cache,
    limits: Limits,
    slots: Semaphore,
    authenticator: Authenticator,
    clock: Clock,
    /// GitHub's clock minus ours, in seconds.
    ahead: AtomicI64,
    pub(super) concurrency: usize,
    pub(super) refresh: Duration,
    pub(super) full_every: Duration,
    pub(super) resolved: Mutex<BTreeMap<String, Remembered>>,
    pub(super) followed: Mutex<BTreeMap<RepositoryId, Followed>>,
}

/// A list, all pages of it.
pub(super) struct Pages<T> {
    pub items: Vec<T>,
    pub complete: bool,
    /// The `Date` of its last page.
    pub date: Option<Timestamp>,
}

/// One page, whether GitHub sent it or only said that it is still the same.
struct Fetched<P> {
    value: Arc<P>,
    next: Option<String>,
    date: Option<Timestamp>,
}

impl GitHub {
    /// The adapter over a client for the API's host. Reads the cache file.
    pub fn new(http: http::Client, auth: Auth, options: Options) -> Self {
        let origin = options.api_url[..url::Position::BeforePath].to_owned();
        Self(Arc::new(Inner {
            http,
            origin,
            api: options.api_url,
            cache: Cache::open(options.cache),
            limits: Limits::new(options.points_a_minute),
            slots: Semaphore::new(options.concurrency.max(1)),
            concurrency: options.concurrency.max(1),
            authenticator: Authenticator::new(auth),
            clock: options.clock,
            ahead: AtomicI64::new(0),
            refresh: options.refresh,
            full_every: options.full_every,
            resolved: Mutex::default(),
            followed: Mutex::default(),
        }))
    }

    /// Ends a pass: the cache lets go what is unused and writes its file if anything changed.
    pub async fn end_pass(&self) {
        self.0.cache.end_pass().await;
    }

    /// How many things are remembered, by what they are.
    pub fn sizes(&self) -> BTreeMap<&'static str, usize> {
        let followed = self.0.followed.lock().unwrap_or_else(PoisonError::into_inner);
        let resolved = self.0.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        BTreeMap::from([
            ("cached pages", self.0.cache.len()),
            ("followed repositories", followed.len()),
            ("followed runs", followed.values().map(|followed| followed.runs.len()).sum()),
            ("resolved entries", resolved.len()),
            ("rates", self.0.limits.rates().len()),
        ])
    }

    /// The rate limits as GitHub last told them, by credentials (a name, no secret) and bucket.
    pub fn rates(&self) -> BTreeMap<(String, String), Rate> {
        self.0.limits.rates()
    }

    pub(super) fn authenticator(&self) -> &Authenticator {
        &self.0.authenticator
    }

    /// The time of day by GitHub's clock, as far as it is known.
    pub(super) fn now(&self) -> Timestamp {
        let ahead = SignedDuration::from_secs(self.0.ahead.load(Ordering::Relaxed));
        let now = (self.0.clock)();
        now.checked_add(ahead).unwrap_or(now)
    }

    /// The path on the host for a path of the API, which begins with a slash.
    pub(super) fn path(&self, path: &str) -> String {
        format!("{}{path}", self.0.api.path().trim_end_matches('/'))
    }

    /// The URL of a path on the host, as the cache's keys have it.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.0.origin)
    }

    /// A request for a path on the host, with the headers of every request (contract §4).
    pub(super) fn request(&self, method: Method, path: impl Into<String>) -> Request {
        let (name, version) = API_VERSION;
        Request::new(method, path)
            .from_root()
            .header(header::ACCEPT, HeaderValue::from_static("application/vnd.github+json"))
            .header(name, version)
    }

    /// Sends what `build` makes with the principal's credentials; after a 401 once more with renewed ones. `kind` names
    /// requests that GitHub counts together. With `repeat` it is sent again after transient failures.
    ///
    /// Any status but a rate limit's is `Ok`; a 401 that stays is an error.
    pub(super) async fn authorized<F>(
        &self,
        principal: &Principal,
        kind: &'static str,
        repeat: bool,
        build: F,
    ) -> Result<(Response, Credentials), Error>
    where
        F: Fn(&Credentials) -> Request + Sync,
    {
        let mut renewed = false;
        loop {
            // Boxed: an installation's credentials are themselves got by authorized requests.
            let credentials = Box::pin(self.credentials(principal)).await?;
            let request = build(&credentials).bearer(&credentials.token);
            let response = self.exchange(&credentials, kind, repeat, request).await?;
            if response.status.as_u16() != 401 {
                return Ok((response, credentials));
            }
            if renewed || !self.renew(principal, &credentials).await {
                return Err(Error::Unauthorized(response.error().to_string()));
            }
            renewed = true;
        }
    }

    /// One exchange within the limits; redirects on the API's own host are followed (renamed repositories).
    async fn exchange(
        &self,
        credentials: &Credentials,
        kind: &'static str,
        repeat: bool,
        mut request: Request,
    ) -> Result<Response, Error> {
        let policy = RetryPolicy { again: worth_repeating, ..RetryPolicy::default() };
        for _ in 0..=MAX_REDIRECTS {
            let points = if request.method() == Method::GET { 1 } else { 5 };
            while let Some(wait) = self.0.limits.pace(&credentials.who, points) {
                self.0.limits.check(&credentials.who, kind)?;
                tokio::time::sleep(wait).await;
            }
            let response = {
                // Waiting for a slot is not part of the exchange's deadline. The semaphore is never closed.
                let _slot = self.0.slots.acquire().await;
                self.0.limits.check(&credentials.who, kind)?;
                if repeat {
                    self.0.http.send_with_retries(request.clone(), &policy).await?
                } else {
                    self.0.http.send(request.clone()).await?
                }
            };
            if let Some(date) = response.date() {
                self.0.ahead.store(date.as_second() - (self.0.clock)().as_second(), Ordering::Relaxed);
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
            let target = response
                .header(header::LOCATION)
                .and_then(|location| on_same_host(&self.0.api, request.path(), location));
            let Some(target) = target else {
                return Err(Error::Unexpected(format!(
                    "{}: redirected away from the API's host, which is not followed",
                    response.exchange
                )));
            };
            request = request.with_path(target);
        }
        Err(Error::Unexpected(format!("{} {}: too many redirects", request.method(), request.path())))
    }

    /// One page, by ETag if `cached`.
    async fn page<P: Page>(
        &self,
        principal: &Principal,
        path: &str,
        cached: bool,
    ) -> Result<Fetched<P>, Error> {
        let url = self.url(path);
        let known = |who: &str| if cached { self.0.cache.get::<P>(who, &url) } else { None };
        let (response, credentials) = self
            .authorized(principal, "read", true, |credentials| {
                let request = self.request(Method::GET, path);
                match known(&credentials.who) {
                    Some(known) => request.header_text(header::IF_NONE_MATCH, &known.etag),
                    None => request,
                }
            })
            .await?;
        let date = response.date();
        match response.status.as_u16() {
            200 => {
                let value = Arc::new(response.json::<P>()?);
                let next = response.header(header::LINK).and_then(next_link);
                if cached && let Some(etag) = response.header(header::ETAG) {
                    self.0.cache.put(&credentials.who, &url, etag, next, &value);
                }
                Ok(Fetched { value, next: next.map(str::to_owned), date })
            }
            304 => match known(&credentials.who) {
                Some(known) => Ok(Fetched { value: known.value, next: known.next, date }),
                None => Err(Error::Unexpected(format!("{}: 304 without being asked for", response.exchange))),
            },
            _ => Err(Error::from_answer(&response)),
        }
    }

    /// A whole list from its first page, a path on the host.
    pub(super) async fn all_pages<P: Page>(
        &self,
        principal: &Principal,
        first: String,
        cached: bool,
    ) -> Result<Pages<P::Item>, Error> {
        let mut walk = Walk::new(&self.0.api, first);
        let mut date = None;
        while let Some(path) = walk.next_page() {
            let page = self.page::<P>(principal, &path, cached).await?;
            walk.take(&path, page.value.items(), page.value.total(), page.next.as_deref());
            date = page.date.or(date);
        }
        let collected = walk.finish();
        if let Some(cut) = &collected.cut {
            tracing::warn!("a list of GitHub was read in part only: {cut}");
        }
        Ok(Pages { items: collected.items, complete: collected.complete, date })
    }

    /// A single thing, by ETag.
    pub(super) async fn one<P: Page>(&self, principal: &Principal, path: &str) -> Result<Arc<P>, Error> {
        Ok(self.page::<P>(principal, &self.path(path), true).await?.value)
    }
}

/// 5xx; rate limits are dealt with by [`Limits`].
fn worth_repeating(response: &Response) -> bool {
    matches!(response.status.as_u16(), 500 | 502 | 503 | 504)
}

/// How long something was ago, for what is remembered.
pub(super) fn older_than(at: Instant, limit: Duration) -> bool {
    at.elapsed() >= limit
}
