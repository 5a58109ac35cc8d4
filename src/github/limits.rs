//! GitHub's rate limits (contract §4): a governor for each credential, so that no limit is ever exhausted; and where one
//! is reached all the same, a stop that is said once.
//!
//! - Points: at most [`Options::points_a_minute`](super::Options::points_a_minute) in any minute.
//! - Response times: at most [`SECONDS_A_MINUTE`] together in any minute, which is how GitHub says to estimate its own CPU time.
//! - The primary limit: a tenth of it is kept for requests that change something.
//!
//! A server whose answers have no rate-limit headers has no limits, and no governor.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::error::Error;
use crate::http::Response;
use crate::model::doubled;

/// The wait when GitHub names none; doubled each time in a row.
const UNNAMED: Duration = Duration::from_secs(60);

/// No wait is longer: primary limits reset within the hour, and clocks can be wrong.
const LONGEST: Duration = Duration::from_secs(2 * 60 * 60);

/// The kind of all requests that read.
pub const READS: &str = "read";

/// Smaller primary limits are not GitHub's, and nothing of them is kept.
const KEPT_FROM: u64 = 1_000;

/// What a secondary limit is called here; it holds for all requests.
const SECONDARY: &str = "secondary";

/// A bucket as GitHub last described it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests an hour.
    pub limit: u64,
    /// Those left.
    pub remaining: u64,
    /// When it starts anew, in seconds since the epoch by GitHub's clock.
    pub reset: i64,
}

/// The time over which secondary limits count.
const MINUTE: Duration = Duration::from_secs(60);

/// Requests that read leave this part of a minute's points, a tenth, to those that change something: while a repository
/// is flooded, runners get their secrets all the same. The same part of the primary limit.
const KEPT_FOR_WRITES: u64 = 10;

/// What nobody waits for leaves this part, a fifth: a look that a webhook asks for never waits for one by the pace.
const KEPT_FOR_ASKED: u64 = 5;

/// The response times of a minute may add up to this much. GitHub allows 90 s of its CPU time a minute.
pub const SECONDS_A_MINUTE: Duration = Duration::from_secs(70);

/// The most that one answer counts: what takes longer waits for something other than a CPU.
const ONE_ANSWER: Duration = Duration::from_secs(2);

/// An answer takes this long where none is known yet.
const FIRST_GUESS: Duration = Duration::from_millis(100);

/// The window of the primary limit.
const HOUR: Duration = Duration::from_secs(3600);

/// Reading may be ahead of an even use of the primary limit by a quarter of it: at a start everything is new.
const AHEAD: f64 = 0.25;

/// A standby uses this part of a minute's points, a quarter: together with the leader's they stay below GitHub's 900.
const STANDBY_PART: u64 = 4;

/// Without limits a server is asked no faster by the schedule.
const UNLIMITED_A_MINUTE: f64 = 1_200.0;

/// Why a request is made. What comes later may use more of the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    /// It reads, and it is time again.
    Pace,
    /// It reads, and somebody waits for it.
    Asked,
    /// It changes something.
    Write,
}

impl Claim {
    /// What GitHub counts for it (contract §4).
    fn points(self) -> u64 {
        if self == Claim::Write { 5 } else { 1 }
    }

    /// What a limit is for it.
    fn part(self, most: u64) -> u64 {
        match self {
            Claim::Pace => most - most / KEPT_FOR_ASKED,
            Claim::Asked => most - most / KEPT_FOR_WRITES,
            Claim::Write => most,
        }
    }
}

/// What a credential may still do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Headroom {
    /// Requests that read, a minute, by the points and the response times.
    pub a_minute: f64,
    /// What looks by the pace have of it, after what else was asked in the last minute.
    pub for_pace: f64,
    /// The primary limit is used no faster than it is refilled, so that what is not urgent may be asked too.
    pub ahead: bool,
}

/// What was used in the last minute, by the second, so that it stays short.
#[derive(Default)]
struct Window {
    used: VecDeque<Used>,
    sum: u64,
}

/// What was used within a second.
#[derive(Clone, Copy)]
struct Used {
    first: Instant,
    /// All of it is forgotten together, a minute after its last part: never too early.
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

    /// How long until some of it is forgotten.
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
    /// Which bucket a kind of request was last counted in.
    resources: BTreeMap<&'static str, String>,
    points: Window,
    /// Those of them that were not used by the pace.
    asked: Window,
    /// Response times, in milliseconds.
    times: Window,
    /// The mean of them.
    mean: Option<Duration>,
    /// An answer came without rate-limit headers, and none with them.
    unlimited: bool,
    /// When each bucket begins anew.
    resets: BTreeMap<String, Instant>,
    /// It was said that the rest of a bucket is kept, until then.
    kept: Option<Instant>,
}

struct Blocked {
    until: Instant,
    in_a_row: u32,
}

impl Limits {
    /// Limits; requests are spread so that no more points are used in a minute, if a number is given.
    pub fn new(points_a_minute: Option<u64>) -> Self {
        Self { credentials: Mutex::default(), points_a_minute, stands_by: AtomicBool::new(false) }
    }

    /// Another replica leads, and uses the same limits: this one keeps to a part of them, however much goes wrong.
    pub fn stand_by(&self, stands_by: bool) {
        self.stands_by.store(stands_by, Ordering::Relaxed);
    }

    /// What was used up to now counts on where the configuration was read anew.
    pub fn take_over(&self, before: &Limits) {
        let credentials = std::mem::take(&mut *before.lock());
        *self.lock() = credentials;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Credential>> {
        self.credentials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long a request has to wait for its turn; `None`: go, it is counted.
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
        // What changes something is never held up by it.
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

    /// Records how long an answer took.
    pub fn took(&self, who: &str, time: Duration) {
        let time = time.min(ONE_ANSWER);
        let mut credentials = self.lock();
        let credential = credentials.entry(who.to_owned()).or_default();
        credential.times.add(Instant::now(), u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        credential.mean = Some(credential.mean.map_or(time, |mean| mean * 9 / 10 + time / 10));
    }

    /// What a credential may still do.
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

    /// Learns from an answer.
    ///
    /// # Errors
    /// [`Error::RateLimited`] when the answer is a limit's.
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
        // Whatever else answers in the server's place has no headers either.
        if response.status.is_success() || response.status.as_u16() == 304 {
            credential.unlimited = credential.rates.is_empty();
        }
        credential.keeps(kind, now);
        let resource = credential.resources.get(kind).map_or("core", String::as_str).to_owned();
        if !matches!(response.status.as_u16(), 403 | 429) {
            // It goes through again: the next limit starts with a short wait. Answers to requests sent before
            // the limit was met can still come in.
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
            // Requests that were under way are refused too: one limit, met once.
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
            "GitHub's rate limit ({name}) is reached: nothing is asked for {} s, and nothing starts or stops meanwhile",
            wait.as_secs()
        );
        Err(Error::RateLimited { until: now + wait, wait, resource: name })
    }

    /// The buckets as last described, by `(credentials, bucket)`, each with its figures.
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

    /// Until when reading waits because the rest of a bucket is kept for requests that change something.
    fn kept_until(&self, resource: &str, now: Instant) -> Option<Instant> {
        let rate = self.rates.get(resource)?;
        let until = self.resets.get(resource).copied().filter(|until| *until > now)?;
        // A bucket that is nearly empty by nature keeps nothing.
        let kept = rate.limit / KEPT_FOR_WRITES;
        (rate.limit >= KEPT_FROM && rate.remaining > 0 && rate.remaining <= kept).then_some(until)
    }

    /// Says once that the rest is kept.
    fn keeps(&mut self, kind: &str, now: Instant) {
        if kind != READS {
            return;
        }
        let resource = self.resource(kind).to_owned();
        let Some(until) = self.kept_until(&resource, now) else { return };
        if self.kept.is_none_or(|kept| kept <= now) {
            self.kept = Some(until);
            tracing::warn!(
                "GitHub's rate limit ({resource}) is nearly reached: what is left is kept for runners, and nothing is looked at for {} s",
                (until - now).as_secs()
            );
        }
    }

    /// Whether the primary limit is used no faster than it is refilled.
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
