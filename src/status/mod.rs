//! The daemon's status over HTTP: `/healthz`, `/readyz`, `/metrics`, the page and its API. None of it contains a
//! secret.

mod access;
mod history;
mod metrics;
mod page;
mod process;
mod server;
mod snapshot;
mod state;
#[cfg(test)]
mod tests;
mod track;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

pub use access::Access;
use history::{Events, History};
use jiff::Timestamp;
pub use metrics::{Counter, Exchange, Exposition};
use metrics::{Metrics, STATES, Time};
pub use server::serve;
use snapshot::Since;
pub use snapshot::{Deed, Rate, Seen, Snapshot};
pub use state::State;
use state::{Health, Jobs, LastPass, List, Program, Repositories, Runners};
use tokio::{sync::watch, time::Instant};
use track::{BEGAN, Track};

use crate::model::EndedJob;

/// A pass that takes this much longer than the loop's interval hangs. Listing all repositories, a minute, and
/// an action's deadlines fit into it several times.
const PASS_AT_MOST: Duration = Duration::from_secs(600);

/// A loop that has not advanced for this long is stuck in a computation.
const STUCK: Duration = Duration::from_secs(60);

/// How many waiting times are kept from one pass to the next.
const WAITS: usize = 1000;

/// The period over which points are counted, in seconds.
const MINUTE: u64 = 60;

/// Shared between the daemon, which updates it after each pass, and the server.
#[derive(Clone, Debug)]
pub struct Status(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    /// The number of passes, to wait for the next one.
    news: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    interval: Duration,
    epoch: Instant,
    started_at: Timestamp,
    access: Access,
    passes: u64,
    last: Instant,
    /// When the loop last signalled that it is alive; `None` if nothing signals it.
    beat: Option<Instant>,
    seen: Option<Snapshot>,
    /// Whether Nomad and GitHub can be reached, each with the time since when.
    nomad: Option<(bool, Timestamp)>,
    github: Option<(bool, Timestamp)>,
    metrics: Metrics,
    track: Track,
    since: Since,
    events: Events,
    history: History,
    /// The waiting times of jobs that ended since the last pass.
    waits: Vec<Duration>,
    rates: Vec<Rate>,
    /// The points of GitHub's secondary limit that requests have used, per second.
    points: VecDeque<(u64, u64)>,
}

impl Inner {
    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Records measured times.
    fn measured(&mut self, times: &[(Time, Duration)]) {
        for (time, took) in times {
            self.metrics.time(*time, *took);
            if *time == Time::QueuedToTaken && self.waits.len() < WAITS {
                self.waits.push(*took);
            }
        }
    }

    /// The points of the last minute.
    fn points(&self) -> u64 {
        let now = self.now().as_secs();
        self.points.iter().filter(|(second, _)| second + MINUTE > now).map(|(_, points)| points).sum()
    }
}

impl Status {
    /// The status of a daemon without a pass so far. `interval` is the loop's.
    pub fn new(interval: Duration) -> Self {
        let inner = Mutex::new(Inner {
            interval,
            epoch: Instant::now(),
            started_at: Timestamp::now(),
            access: Access::default(),
            passes: 0,
            last: Instant::now(),
            beat: None,
            seen: None,
            nomad: None,
            github: None,
            metrics: Metrics::default(),
            track: Track::default(),
            since: Since::default(),
            events: Events::default(),
            history: History::default(),
            waits: Vec::new(),
            rates: Vec::new(),
            points: VecDeque::new(),
        });
        Status(Arc::new(Shared { inner, news: watch::Sender::new(0) }))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether gauges of jobs and runners have a label for the repository from now on.
    pub fn per_repository(&self, yes: bool) {
        self.inner().metrics.per_repository = yes;
    }

    /// Sets the configured classes, in the configuration's order.
    pub fn classes<'a>(&self, names: impl Iterator<Item = &'a str>) {
        self.inner().metrics.classes = names.map(Arc::from).collect();
    }

    /// Increments a counter.
    pub fn count(&self, counter: Counter, label: &'static str) {
        self.inner().metrics.count(counter, label, 1);
    }

    /// Shows these counters with zero before there is anything to count.
    pub fn expect(&self, counter: Counter, labels: impl IntoIterator<Item = &'static str>) {
        let inner = self.inner();
        labels.into_iter().for_each(|label| inner.metrics.count(counter, label, 0));
    }

    /// Records a look at a repository that requested `newest`, `queued`, `active` or `all` runs.
    pub fn look(&self, look: &'static str, took: Duration) {
        self.inner().metrics.look(look, took);
    }

    /// Records an exchange with GitHub or Nomad.
    pub fn exchange(&self, exchange: Exchange) {
        let mut inner = self.inner();
        inner.metrics.exchange(exchange);
        let now = inner.now().as_secs();
        match inner.points.back_mut() {
            Some((second, points)) if *second == now => *points += exchange.points,
            _ => inner.points.push_back((now, exchange.points)),
        }
        while inner.points.front().is_some_and(|(second, _)| second + MINUTE <= now) {
            inner.points.pop_front();
        }
    }

    /// Records ended jobs that a look has shown. `date` is GitHub's time.
    pub fn ended(&self, jobs: &[EndedJob], date: Timestamp) {
        let mut inner = self.inner();
        let now = BEGAN + inner.now();
        for job in jobs {
            let times = inner.track.ended(job, date, now);
            inner.measured(&times);
        }
    }

    /// Records a pass.
    pub fn pass(&self, seen: &Seen) {
        let at = seen.at;
        let mut guard = self.inner();
        let inner = &mut *guard;
        let (times, finishes) = inner.track.follow(seen, BEGAN + inner.epoch.elapsed());
        finishes.into_iter().for_each(|finish| inner.metrics.finish(finish));
        inner.measured(&times);
        let waits = std::mem::take(&mut inner.waits);
        let snapshot = Snapshot::of(seen, &mut inner.since);
        inner.events.see(at, &snapshot.deeds, seen.errors, snapshot.leads);
        inner.history.see(at, snapshot.counts.sums(), &waits);
        inner.rates = seen.rates.iter().map(Rate::made_safe).collect();
        drop(guard);
        self.record(snapshot);
    }

    /// Records what a pass saw and did.
    pub fn record(&self, mut snapshot: Snapshot) {
        let mut inner = self.inner();
        inner.metrics.pass(&snapshot);
        if let Some(before) = inner.seen.take() {
            snapshot.after(before);
        }
        let since = |known: Option<(bool, Timestamp)>, seen: bool| {
            known.filter(|(before, _)| *before == seen).or(Some((seen, snapshot.at)))
        };
        inner.nomad = since(inner.nomad, snapshot.nomad_seen);
        inner.github =
            since(inner.github, snapshot.sees_github()).filter(|_| snapshot.repositories.is_some());
        inner.passes += 1;
        inner.last = Instant::now();
        inner.seen = Some(snapshot);
        self.0.news.send_replace(inner.passes);
    }

    /// Sets who may see the page and the API.
    pub fn open_to(&self, access: Access) {
        self.inner().access = access;
    }

    /// Who may see the page and the API.
    fn access(&self) -> Access {
        self.inner().access.clone()
    }

    /// The numbers of jobs queued, held and running.
    fn jobs(&self) -> (usize, usize, usize) {
        self.inner().seen.as_ref().map_or((0, 0, 0), |seen| seen.counts.sums())
    }

    /// The current state.
    pub fn state(&self) -> State {
        let inner = self.inner();
        let nothing = Snapshot::default();
        let seen = inner.seen.as_ref().unwrap_or(&nothing);
        let health = |known: Option<(bool, Timestamp)>| Health {
            seen: known.is_some_and(|(seen, _)| seen),
            since: known.map(|(_, since)| since),
        };
        let (listed, all) = seen.repositories.unwrap_or_default();
        let (queued, held, running) = seen.counts.sums();
        let mut by_state: BTreeMap<&'static str, usize> =
            STATES.iter().map(|state| (state.as_str(), 0)).collect();
        for ((_, state), count) in &seen.counts.runners {
            *by_state.entry(state.as_str()).or_default() += count;
        }
        let rows = &seen.rows;
        let (queue_p50_seconds, queue_p95_seconds) = inner.history.percentiles();
        State {
            program: Program { version: env!("CARGO_PKG_VERSION"), started_at: inner.started_at },
            now: Timestamp::now(),
            revision: inner.passes,
            leads: seen.leads,
            last_pass: inner.seen.as_ref().map(|seen| LastPass {
                at: seen.at,
                took_seconds: seen.took.as_secs_f64(),
                errors: seen.errors.clone(),
            }),
            nomad: health(inner.nomad),
            github: health(inner.github),
            repositories: Repositories { all, listed },
            classes: seen.counts.classes(&inner.metrics.classes),
            jobs: Jobs {
                queued,
                held,
                running,
                waiting: List { total: rows.jobs_total, items: rows.jobs.clone() },
            },
            runners: Runners {
                list: List { total: by_state.values().sum(), items: rows.runners.clone() },
                by_state,
            },
            holds: List { total: seen.counts.holds.values().sum(), items: rows.holds.clone() },
            plan: List { total: rows.plan_total, items: rows.plan.clone() },
            events: inner.events.newest_first(),
            rate_limits: inner.rates.clone(),
            points_per_minute: inner.points(),
            history: state::History { queue_p50_seconds, queue_p95_seconds, points: inner.history.points() },
        }
    }

    /// The loop is alive.
    pub fn beat(&self) {
        self.inner().beat = Some(Instant::now());
    }

    /// For each runner version that ends, when it stops getting jobs, in seconds since the epoch.
    pub fn ends(&self, ends: &BTreeMap<String, u64>) {
        self.inner().metrics.version_ends(ends);
    }

    /// Whether this replica was the leader in its last pass.
    pub fn leads(&self) -> bool {
        self.inner().seen.as_ref().is_some_and(|seen| seen.leads)
    }

    /// The sizes of everything it remembers, by name.
    pub fn sizes(&self) -> BTreeMap<&'static str, usize> {
        let inner = self.inner();
        BTreeMap::from([
            ("status holds", inner.since.len()),
            ("status jobs and runners", inner.track.len()),
            ("status events", inner.events.newest_first().len()),
            ("status minutes", inner.history.points().len()),
            ("status points", inner.points.len()),
        ])
    }

    /// Whether this process is alive: the loop advances and passes end, whatever GitHub and Nomad do.
    fn health(&self) -> Result<String, String> {
        let inner = self.inner();
        let ago = inner.last.elapsed();
        let text = format!("{} passes, the last one ended {} s ago\n", inner.passes, ago.as_secs());
        if let Some(stuck) = inner.beat.map(|beat| beat.elapsed()).filter(|stuck| *stuck > STUCK) {
            return Err(format!("the loop has been computing for {} s; {text}", stuck.as_secs()));
        }
        if ago <= inner.interval + PASS_AT_MOST { Ok(text) } else { Err(text) }
    }

    /// Whether the last pass reached Nomad and GitHub.
    fn readiness(&self) -> Result<String, String> {
        let inner = self.inner();
        let Some(seen) = &inner.seen else { return Err("no pass yet\n".to_owned()) };
        let (listed, all) = seen.repositories.unwrap_or_default();
        let role = if seen.leads { "applies" } else { "standby" };
        let nomad = if seen.nomad_seen { "up" } else { "unreachable" };
        let text = format!("Nomad {nomad}; {listed} of {all} repositories listed; {role}\n");
        if seen.nomad_seen && (listed > 0 || all == 0) { Ok(text) } else { Err(text) }
    }

    /// The metrics and their content type.
    pub fn metrics(&self, format: Exposition) -> (String, &'static str) {
        let inner = self.inner();
        let nothing = Snapshot::default();
        inner.metrics.see(inner.seen.as_ref().unwrap_or(&nothing), inner.points());
        inner.metrics.rates(&inner.rates);
        inner.metrics.page(format)
    }
}
