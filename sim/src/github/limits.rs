//! Primary and secondary rate limits (contract §4).

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    GitHub, Options, after,
    auth::Who,
    reply::Reply,
    token::{Kind, Token},
};

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

/// A limit that a test imposes on all clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// The hour's requests are exhausted.
    Primary,
    /// The secondary limit, with the time to wait.
    Secondary,
    /// The secondary limit, without the time to wait.
    SecondarySilent,
}

#[derive(Clone, Default)]
struct Bucket {
    used: u64,
    reset: Timestamp,
}

#[derive(Clone, Default)]
pub(super) struct Limits {
    buckets: BTreeMap<(String, &'static str), Bucket>,
    /// The start, the points, and GitHub's own time.
    points: BTreeMap<String, (Timestamp, u64, Duration)>,
    imposed: Option<(Limited, Timestamp)>,
    /// The number of requests refused after a limit was exhausted.
    exhausted: u64,
}

/// The state of a sender in a bucket.
#[derive(Clone, Copy)]
pub(super) struct Standing {
    limit: u64,
    used: u64,
    reset: Timestamp,
}

impl Standing {
    fn remaining(&self) -> u64 {
        self.limit.saturating_sub(self.used)
    }

    pub fn headers(&self, resource: &'static str) -> Vec<(&'static str, String)> {
        vec![
            ("x-ratelimit-limit", self.limit.to_string()),
            ("x-ratelimit-remaining", self.remaining().to_string()),
            ("x-ratelimit-used", self.used.to_string()),
            ("x-ratelimit-reset", self.reset.as_second().to_string()),
            ("x-ratelimit-resource", resource.to_string()),
        ]
    }
}

impl GitHub {
    /// The number of requests refused because their sender had exhausted a limit, except for limits that a
    /// test imposed.
    pub fn exhausted(&self) -> u64 {
        self.limits.exhausted
    }

    /// A client restarts and does not know about its previous requests: its minute begins now.
    pub fn begin_minute(&mut self) {
        self.limits.points.clear();
    }

    /// Refuses all requests with this limit until then.
    pub fn impose_limit(&mut self, limit: Limited, until: Timestamp) {
        self.limits.imposed = Some((limit, until));
    }

    /// The owner of this token has used up this hour's requests.
    pub fn use_up(&mut self, secret: &str, now: Timestamp) {
        let Some(token) = self.tokens.get(secret).cloned() else { return };
        let key = self.limit_key(&Who::Token { token });
        let bucket = Bucket { used: self.options.rate_limit, reset: after(now, HOUR) };
        self.limits.buckets.insert((key, "core"), bucket);
    }

    /// The key under which requests are counted together.
    pub(super) fn limit_key(&self, who: &Who) -> String {
        match who {
            Who::Anonymous => "anonymous".to_string(),
            Who::App(id) => format!("app {id}"),
            Who::Token { token: Token { kind, .. }, .. } => match kind {
                Kind::Classic { login, .. } | Kind::FineGrained { login } => format!("user {login}"),
                Kind::Installation { id } => format!("installation {id}"),
            },
        }
    }
}

impl Limits {
    /// Refuses a request beyond a limit. Counts its points towards the secondary limit.
    pub fn admit(
        &mut self,
        key: &str,
        resource: &'static str,
        limit: u64,
        points: u64,
        options: &Options,
        now: Timestamp,
    ) -> Option<Reply> {
        if self.imposed.is_some_and(|(_, until)| until <= now) {
            self.imposed = None;
        }
        if let Some((imposed, until)) = self.imposed {
            let left = until.as_second().saturating_sub(now.as_second()).max(1);
            return Some(match imposed {
                Limited::Primary => {
                    let used = limit.max(self.standing(key, resource, limit, now).used);
                    self.buckets.insert((key.to_string(), resource), Bucket { used, reset: until });
                    primary(options)
                }
                Limited::Secondary => secondary(options).with("retry-after", left.to_string()),
                Limited::SecondarySilent => secondary(options),
            });
        }
        let window = self.points.entry(key.to_string()).or_insert((now, 0, Duration::ZERO));
        if after(window.0, MINUTE) <= now {
            *window = (now, 0, Duration::ZERO);
        }
        window.1 += points;
        window.2 = window.2.saturating_add(options.cpu_per_request);
        if window.1 > options.points_a_minute || window.2 > options.cpu_a_minute {
            self.exhausted += 1;
            return Some(secondary(options).with("retry-after", "60".to_string()));
        }
        if self.standing(key, resource, limit, now).remaining() == 0 {
            self.exhausted += 1;
            return Some(primary(options));
        }
        None
    }

    pub fn standing(&self, key: &str, resource: &'static str, limit: u64, now: Timestamp) -> Standing {
        match self.buckets.get(&(key.to_string(), resource)) {
            Some(bucket) if bucket.reset > now => Standing { limit, used: bucket.used, reset: bucket.reset },
            _ => Standing { limit, used: 0, reset: after(now, HOUR) },
        }
    }

    pub fn count(&mut self, key: &str, resource: &'static str, now: Timestamp) {
        let bucket = self.buckets.entry((key.to_string(), resource)).or_default();
        if bucket.reset <= now {
            *bucket = Bucket { used: 0, reset: after(now, HOUR) };
        }
        bucket.used += 1;
    }
}

fn primary(options: &Options) -> Reply {
    Reply::error(options.limit_status, "API rate limit exceeded for user ID 1.")
}

fn secondary(options: &Options) -> Reply {
    let message = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.";
    Reply::error(options.limit_status, message)
}

/// GET /rate_limit.
pub(super) fn overview(core: Standing, now: Timestamp) -> Value {
    let one = |standing: Standing| {
        json!({
            "limit": standing.limit, "used": standing.used, "remaining": standing.remaining(),
            "reset": standing.reset.as_second(),
        })
    };
    let unused = |limit, wait| one(Standing { limit, used: 0, reset: after(now, wait) });
    json!({
        "resources": {
            "core": one(core), "search": unused(30, MINUTE), "graphql": unused(5000, HOUR),
            "actions_runner_registration": unused(10_000, HOUR),
        },
        "rate": one(core),
    })
}
