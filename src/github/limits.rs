//! GitHub's rate limits: stop asking when told to, and say so once (contract §4).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::error::Error;
use crate::http::Response;

/// The wait when GitHub names none; doubled each time in a row.
const UNNAMED: Duration = Duration::from_secs(60);

/// No wait is longer: primary limits reset within the hour, and clocks can be wrong.
const LONGEST: Duration = Duration::from_secs(2 * 60 * 60);

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

/// The time over which secondary limits count points.
const MINUTE: Duration = Duration::from_secs(60);

/// Requests that read leave this part of a minute's points, a tenth, to those that change something: while a repository
/// is flooded, runners get their secrets all the same.
const KEPT_FOR_WRITES: u64 = 10;

/// The limits of all credentials.
pub struct Limits {
    credentials: Mutex<BTreeMap<String, Credential>>,
    points_a_minute: Option<u64>,
}

/// The limits of one token or installation.
#[derive(Default)]
struct Credential {
    /// By bucket, or [`SECONDARY`].
    blocked: BTreeMap<String, Blocked>,
    rates: BTreeMap<String, Rate>,
    /// Which bucket a kind of request was last counted in.
    resources: BTreeMap<&'static str, String>,
    /// The points used since then.
    points: Option<(Instant, u64)>,
}

struct Blocked {
    until: Instant,
    in_a_row: u32,
}

impl Limits {
    /// Limits; requests are spread so that no more points are used in a minute, if a number is given.
    pub fn new(points_a_minute: Option<u64>) -> Self {
        Self { credentials: Mutex::default(), points_a_minute }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Credential>> {
        self.credentials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long a request that costs so many points has to wait for its turn; `None`: go, it is counted.
    pub fn pace(&self, who: &str, points: u64) -> Option<Duration> {
        let most = self.points_a_minute?;
        let most = if points == 1 { most - most / KEPT_FOR_WRITES } else { most };
        let now = Instant::now();
        let mut credentials = self.lock();
        let window = &mut credentials.entry(who.to_owned()).or_default().points;
        match window {
            Some((since, used)) if now.duration_since(*since) < MINUTE => {
                if *used > 0 && *used + points > most {
                    return Some(MINUTE - now.duration_since(*since));
                }
                *used += points;
            }
            _ => *window = Some((now, points)),
        }
        None
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
                }
            }
        }
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
        let unnamed = UNNAMED.saturating_mul(1u32.checked_shl(in_a_row - 1).unwrap_or(u32::MAX));
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
