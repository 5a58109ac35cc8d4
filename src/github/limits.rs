//! GitHub's rate limits (contract §4): a rate limiter for each credential that keeps below every limit, and if one is
//! reached all the same, a pause that is logged once.
//!
//! - Points: at most [`Options::points_a_minute`](super::Options::points_a_minute) in any minute.
//! - Response times: at most [`SECONDS_A_MINUTE`] in total in any minute. GitHub recommends this to estimate its own
//!   CPU time.
//! - The primary limit: a tenth of it is reserved for writes.
//!
//! A server whose responses have no rate-limit headers has no limits and no rate limiter.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::error::Error;
use crate::{http::Response, model::doubled};

/// The wait if GitHub does not specify one; doubled each time in a row.
const UNNAMED: Duration = Duration::from_secs(60);

/// The longest wait: primary limits reset within the hour, and clocks can be wrong.
const LONGEST: Duration = Duration::from_secs(2 * 60 * 60);

/// The kind of all requests that read.
pub const READS: &str = "read";

/// Smaller primary limits are not GitHub's, and nothing of them is reserved.
const KEPT_FROM: u64 = 1_000;

/// The name of a secondary limit here. It applies to all requests.
const SECONDARY: &str = "secondary";

/// A bucket as GitHub last reported it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests an hour.
    pub limit: u64,
    /// Requests left.
    pub remaining: u64,
    /// When it resets, in seconds since the epoch by GitHub's clock.
    pub reset: i64,
}

/// The period of secondary limits.
const MINUTE: Duration = Duration::from_secs(60);

/// Reads leave this fraction (a tenth) of a minute's points to writes, so that runners still get their credentials
/// while a repository is flooded. The same fraction applies to the primary limit.
const KEPT_FOR_WRITES: u64 = 10;

/// Scheduled requests leave this fraction, a fifth, so that a look requested by a webhook never waits for a
/// scheduled one.
const KEPT_FOR_ASKED: u64 = 5;

/// The limit for the total response time in a minute. GitHub allows 90 s of its CPU time a minute.
pub const SECONDS_A_MINUTE: Duration = Duration::from_secs(70);

/// The maximum that one response counts: a slower one waits for something other than a CPU.
const ONE_ANSWER: Duration = Duration::from_secs(2);

/// The assumed response time before any is known.
const FIRST_GUESS: Duration = Duration::from_millis(100);

/// The period of the primary limit.
const HOUR: Duration = Duration::from_secs(3600);

/// Reads may be ahead of an even use of the primary limit by a quarter of it: at a start nothing is cached.
const AHEAD: f64 = 0.25;

/// A standby uses this fraction (a quarter) of a minute's points. Together with the leader's they stay below GitHub's
/// 900.
const STANDBY_PART: u64 = 4;

/// The schedule's rate for a server without limits.
const UNLIMITED_A_MINUTE: f64 = 1_200.0;

/// Why a request is made. Later variants may use more of the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    /// A scheduled read.
    Pace,
    /// A requested read that someone is waiting for.
    Asked,
    /// A write.
    Write,
}

impl Claim {
    /// Its cost as GitHub counts it (contract §4).
    fn points(self) -> u64 {
        if self == Claim::Write { 5 } else { 1 }
    }

    /// The part of a limit that it may use.
    fn part(self, most: u64) -> u64 {
        match self {
            Claim::Pace => most - most / KEPT_FOR_ASKED,
            Claim::Asked => most - most / KEPT_FOR_WRITES,
            Claim::Write => most,
        }
    }
}

/// The requests that a credential may still make.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Headroom {
    /// Reads per minute, according to the points and the response times.
    pub a_minute: f64,
    /// The part of it for scheduled looks, after what else was requested in the last minute.
    pub for_pace: f64,
    /// Whether the primary limit is used no faster than it refills, so that less urgent requests may be made
    /// as well.
    pub ahead: bool,
}

/// The usage of the last minute, per second to keep it short.
#[derive(Default)]
struct Window {
    used: VecDeque<Used>,
    sum: u64,
}

/// The usage within a second.
#[derive(Clone, Copy)]
struct Used {
    first: Instant,
    /// All of it expires together, a minute after its last part: never too early.
    last: Instant,
    sum: u64,
}

impl Window {
    fn forget(&mut self, now: Instant) {
        while let Some(used) = self.used.front().copied()
            && now.duration_since(used.last) >= MINUTE
        {
            self.used.pop_front();
            self.sum -= used.sum;
        }
    }

    fn add(&mut self, now: Instant, sum: u64) {
        self.sum += sum;
        match self.used.back_mut() {
            Some(used) if now.duration_since(used.first) < Duration::from_secs(1) => {
                used.last = now;
                used.sum += sum;
            }
            _ => self.used.push_back(Used { first: now, last: now, sum }),
        }
    }

    /// How long until some of it expires.
    fn wait(&self, now: Instant) -> Duration {
        let first = self.used.front();
        let wait = first.map_or(MINUTE, |used| MINUTE.saturating_sub(now.duration_since(used.last)));
        wait.max(Duration::from_millis(10))
    }
}

/// The limits of all credentials.
pub struct Limits {
    credentials: Mutex<BTreeMap<String, Credential>>,
    points_a_minute: Option<u64>,
    stands_by: AtomicBool,
}

/// The limits of one token or installation.
#[derive(Default)]
struct Credential {
    /// By bucket, or [`SECONDARY`].
    blocked: BTreeMap<String, Blocked>,
    rates: BTreeMap<String, Rate>,
    /// The bucket in which each kind of request was last counted.
    resources: BTreeMap<&'static str, String>,
    points: Window,
    /// The usage by other than scheduled requests.
    asked: Window,
    /// Response times, in milliseconds.
    times: Window,
    /// The mean response time.
    mean: Option<Duration>,
    /// The responses have no rate-limit headers.
    unlimited: bool,
    /// When each bucket resets.
    resets: BTreeMap<String, Instant>,
    /// Until then, the rest of a bucket is reserved, and that has been logged.
    kept: Option<Instant>,
}

struct Blocked {
    until: Instant,
    in_a_row: u32,
}

/// Which replica this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Leader,
    /// Another replica is the leader, and uses the same credentials.
    Standby,
}

impl Limits {
    /// Rate limits. If a number is given, requests are spread so that a minute has at most that many points.
    pub fn new(points_a_minute: Option<u64>) -> Self {
        Self { credentials: Mutex::default(), points_a_minute, stands_by: AtomicBool::new(false) }
    }

    /// Sets whether another replica leads and uses the same limits. Then this one uses only a part of them, whatever fails.
    pub fn set_role(&self, role: Role) {
        self.stands_by.store(role == Role::Standby, Ordering::Relaxed);
    }

    /// Keeps the usage when the configuration is reloaded.
    pub fn take_over(&self, before: &Limits) {
        let credentials = std::mem::take(&mut *before.lock());
        *self.lock() = credentials;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Credential>> {
        self.credentials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long a request must wait for its turn; `None`: send it now, it is counted.
    pub fn pace(&self, who: &str, claim: Claim) -> Option<Duration> {
        let all = self.points_a_minute?;
        let part = if self.stands_by.load(Ordering::Relaxed) { STANDBY_PART } else { 1 };
        let (most, points) = (claim.part(all / part), claim.points());
        let now = Instant::now();
        let mut credentials = self.lock();
        let credential = credentials.entry(who.to_owned()).or_default();
        if credential.unlimited {
            return None;
        }
        credential.points.forget(now);
        credential.asked.forget(now);
        credential.times.forget(now);
        if credential.points.sum > 0 && credential.points.sum + points > most {
            return Some(credential.points.wait(now));
        }
        let millis = u64::try_from(SECONDS_A_MINUTE.as_millis()).unwrap_or(u64::MAX);
        // Writes are never delayed by this.
        let most = if claim == Claim::Pace { claim.part(millis) } else { millis };
        if claim != Claim::Write && credential.times.sum >= most {
            return Some(credential.times.wait(now));
        }
        credential.points.add(now, points);
        if claim != Claim::Pace {
            credential.asked.add(now, points);
        }
        None
    }

    /// Records a response time.
    pub fn took(&self, who: &str, time: Duration) {
        let time = time.min(ONE_ANSWER);
        let mut credentials = self.lock();
        let credential = credentials.entry(who.to_owned()).or_default();
        credential.times.add(Instant::now(), u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        credential.mean = Some(credential.mean.map_or(time, |mean| mean * 9 / 10 + time / 10));
    }

    /// The requests that a credential may still make.
    pub fn headroom(&self, who: &str) -> Headroom {
        let mut credentials = self.lock();
        let asked = credentials.get_mut(who).map_or(0, |credential| {
            credential.asked.forget(Instant::now());
            credential.asked.sum
        });
        let credential = credentials.get(who);
        let mean = credential.and_then(|credential| credential.mean).unwrap_or(FIRST_GUESS);
        let unlimited = credential.is_some_and(|credential| credential.unlimited);
        let Some(points) = self.points_a_minute.filter(|_| !unlimited) else {
            return Headroom { a_minute: UNLIMITED_A_MINUTE, for_pace: UNLIMITED_A_MINUTE, ahead: true };
        };
        let reads = Claim::Asked.part(points) as f64;
        let by_time = SECONDS_A_MINUTE.as_secs_f64() / mean.as_secs_f64().max(0.001);
        let ahead = credential.is_none_or(|credential| credential.is_ahead());
        let a_minute = reads.min(by_time);
        let for_pace = a_minute.min(Claim::Pace.part(points).saturating_sub(asked) as f64);
        Headroom { a_minute, for_pace, ahead }
    }

    /// Whether a kind of request may be sent now.
    ///
    /// # Errors
    /// [`Error::RateLimited`].
    pub fn check(&self, who: &str, kind: &'static str) -> Result<(), Error> {
        let credentials = self.lock();
        let Some(credential) = credentials.get(who) else { return Ok(()) };
        let resource = credential.resources.get(kind).map_or("core", String::as_str);
        let now = Instant::now();
        if kind == READS
            && let Some(until) = credential.kept_until(resource, now)
        {
            return Err(Error::RateLimited { until, wait: until - now, resource: resource.to_owned() });
        }
        for name in [SECONDARY, resource] {
            if let Some(blocked) = credential.blocked.get(name)
                && blocked.until > now
            {
                return Err(Error::RateLimited {
                    until: blocked.until,
                    wait: blocked.until - now,
                    resource: name.to_owned(),
                });
            }
        }
        Ok(())
    }

    /// Learns from a response.
    ///
    /// # Errors
    /// [`Error::RateLimited`] if the response is a rate limit's.
    pub fn learn(&self, who: &str, kind: &'static str, response: &Response) -> Result<(), Error> {
        let now = Instant::now();
        let named = response.header("x-ratelimit-resource").map(str::trim).filter(|name| name.len() < 64);
        let mut credentials = self.lock();
        let credential = credentials.entry(who.to_owned()).or_default();
        if let Some(name) = named {
            credential.resources.insert(kind, name.to_owned());
            if let Some(rate) = rate(response) {
                // Bounded: GitHub has about a dozen buckets.
                if credential.rates.len() < 50 || credential.rates.contains_key(name) {
                    credential.rates.insert(name.to_owned(), rate);
                    if let Some(wait) = until_reset(response) {
                        credential.resets.insert(name.to_owned(), now + wait.min(LONGEST));
                    }
                }
            }
        }
        // Anything else that answers in the server's place has no headers either.
        if response.status.is_success() || response.status.as_u16() == 304 {
            credential.unlimited = credential.rates.is_empty();
        }
        credential.keeps(kind, now);
        let resource = credential.resources.get(kind).map_or("core", String::as_str).to_owned();
        if !matches!(response.status.as_u16(), 403 | 429) {
            // The limit is over, so the next one starts with a short wait. Responses to requests sent before
            // the limit was reached can still arrive.
            credential
                .blocked
                .retain(|name, blocked| blocked.until > now || (name != SECONDARY && *name != resource));
            return Ok(());
        }
        let exhausted = response.header("x-ratelimit-remaining").map(str::trim) == Some("0");
        let asked = response.retry_after();
        let text =
            String::from_utf8_lossy(&response.body[..response.body.len().min(4096)]).to_ascii_lowercase();
        let told = text.contains("rate limit") || text.contains("abuse detection");
        if !(exhausted || asked.is_some() || told || response.status.as_u16() == 429) {
            return Ok(());
        }
        let name = if exhausted { resource } else { SECONDARY.to_owned() };
        let already = credential.blocked.get(&name);
        if let Some(blocked) = already
            && blocked.until > now
        {
            // Concurrent requests are refused too; they count as one limit.
            return Err(Error::RateLimited {
                until: blocked.until,
                wait: blocked.until - now,
                resource: name,
            });
        }
        let in_a_row = already.map_or(0, |blocked| blocked.in_a_row).saturating_add(1);
        let unnamed = doubled(UNNAMED, in_a_row - 1);
        let wait = match (asked, exhausted) {
            (Some(asked), _) => asked,
            (None, true) => until_reset(response).unwrap_or(unnamed),
            (None, false) => unnamed,
        };
        let wait = wait.clamp(Duration::from_secs(1), LONGEST);
        credential.blocked.insert(name.clone(), Blocked { until: now + wait, in_a_row });
        tracing::warn!(
            "GitHub's rate limit ({name}) is reached: no requests for {} s; nothing starts or stops in the meantime",
            wait.as_secs()
        );
        Err(Error::RateLimited { until: now + wait, wait, resource: name })
    }

    /// The buckets as last reported, by `(credentials, bucket)`.
    pub fn rates(&self) -> BTreeMap<(String, String), Rate> {
        let credentials = self.lock();
        let all = credentials.iter().flat_map(|(who, credential)| {
            credential.rates.iter().map(|(name, rate)| ((who.clone(), name.clone()), *rate))
        });
        all.collect()
    }
}

impl Credential {
    fn resource(&self, kind: &str) -> &str {
        self.resources.get(kind).map_or("core", String::as_str)
    }

    /// Until when reads wait because the rest of a bucket is reserved for writes.
    fn kept_until(&self, resource: &str, now: Instant) -> Option<Instant> {
        let rate = self.rates.get(resource)?;
        let until = self.resets.get(resource).copied().filter(|until| *until > now)?;
        // Nothing is reserved of a bucket that is always nearly empty.
        let kept = rate.limit / KEPT_FOR_WRITES;
        (rate.limit >= KEPT_FROM && rate.remaining > 0 && rate.remaining <= kept).then_some(until)
    }

    /// Logs once that the rest is reserved.
    fn keeps(&mut self, kind: &str, now: Instant) {
        if kind != READS {
            return;
        }
        let resource = self.resource(kind).to_owned();
        let Some(until) = self.kept_until(&resource, now) else { return };
        if self.kept.is_none_or(|kept| kept <= now) {
            self.kept = Some(until);
            tracing::warn!(
                "GitHub's rate limit ({resource}) is nearly reached: the rest is reserved for runners; no repository is polled for {} s",
                (until - now).as_secs()
            );
        }
    }

    /// Whether the primary limit is used no faster than it refills.
    fn is_ahead(&self) -> bool {
        let resource = self.resource(READS);
        let (Some(rate), Some(reset)) = (self.rates.get(resource), self.resets.get(resource)) else {
            return true;
        };
        let left = reset.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        let kept = rate.limit / KEPT_FOR_WRITES;
        let part = (left.as_secs_f64() / HOUR.as_secs_f64()).min(1.0);
        let line = (rate.limit - kept) as f64 * part * (1.0 - AHEAD);
        rate.remaining.saturating_sub(kept) as f64 >= line
    }
}

fn rate(response: &Response) -> Option<Rate> {
    Some(Rate {
        limit: response.header("x-ratelimit-limit")?.trim().parse().ok()?,
        remaining: response.header("x-ratelimit-remaining")?.trim().parse().ok()?,
        reset: response.header("x-ratelimit-reset")?.trim().parse().ok()?,
    })
}

/// The time to the reset, by GitHub's own clock.
fn until_reset(response: &Response) -> Option<Duration> {
    let reset = response.header("x-ratelimit-reset")?.trim().parse().ok()?;
    let reset = jiff::Timestamp::from_second(reset).ok()?;
    Duration::try_from(reset.duration_since(response.date()?)).ok()
}
