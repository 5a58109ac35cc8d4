//! What the daemon tells of itself over HTTP: `/healthz`, `/readyz` and `/metrics`. No secret is in any of it.

mod history;
mod metrics;
mod process;
mod server;
mod snapshot;
#[cfg(test)]
mod tests;
mod track;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::Instant;

use history::{Events, History};
pub use metrics::{Counter, Exchange};
use metrics::{Metrics, Time};
pub use server::serve;
use snapshot::Since;
pub use snapshot::{Deed, Rate, Seen, Snapshot};
use track::Track;

/// A pass that takes longer than this beyond the loop's interval hangs: listing all repositories, a minute,
/// and an action's deadlines fit in it several times.
const PASS_AT_MOST: Duration = Duration::from_secs(600);

/// A loop that has not turned for so long is stuck in a computation.
const STUCK: Duration = Duration::from_secs(60);

/// The time over which points are counted, in seconds.
const MINUTE: u64 = 60;

/// Shared between the daemon, which writes it after each pass, and the server.
#[derive(Clone, Debug)]
pub struct Status(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    interval: Duration,
    epoch: Instant,
    passes: u64,
    last: Instant,
    /// When the loop last said that it turns; `None` where nobody says so.
    beat: Option<Instant>,
    seen: Option<Snapshot>,
    metrics: Metrics,
    track: Track,
    since: Since,
    events: Events,
    history: History,
    rates: Vec<Rate>,
    /// What requests cost of GitHub's secondary limit, by the second.
    points: VecDeque<(u64, u64)>,
}

impl Inner {
    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// What the requests of the last minute cost.
    fn points(&self) -> u64 {
        let now = self.now().as_secs();
        self.points.iter().filter(|(second, _)| second + MINUTE > now).map(|(_, points)| points).sum()
    }
}

impl Status {
    /// That of a daemon that has made no pass yet; `interval` is the loop's.
    pub fn new(interval: Duration) -> Self {
        Status(Arc::new(Mutex::new(Inner {
            interval,
            epoch: Instant::now(),
            passes: 0,
            last: Instant::now(),
            beat: None,
            seen: None,
            metrics: Metrics::default(),
            track: Track::default(),
            since: Since::default(),
            events: Events::default(),
            history: History::default(),
            rates: Vec::new(),
            points: VecDeque::new(),
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gauges of jobs and runners have a label for the repository from now on, or none.
    pub fn per_repository(&self, yes: bool) {
        self.inner().metrics.per_repository = yes;
    }

    /// Counts one more.
    pub fn count(&self, counter: Counter, label: &'static str) {
        self.inner().metrics.count(counter, label, 1);
    }

    /// Shows these counters before there is anything to count.
    pub fn expect(&self, counter: Counter, labels: impl IntoIterator<Item = &'static str>) {
        let inner = self.inner();
        labels.into_iter().for_each(|label| inner.metrics.count(counter, label, 0));
    }

    /// An exchange with GitHub or Nomad is over.
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

    /// Takes in a pass.
    pub fn pass(&self, seen: &Seen) {
        let at = Timestamp::now();
        let mut guard = self.inner();
        let inner = &mut *guard;
        let (times, finishes) = inner.track.follow(seen, inner.epoch.elapsed());
        finishes.into_iter().for_each(|finish| inner.metrics.finish(finish));
        let mut waits = Vec::new();
        for (time, took) in times {
            inner.metrics.time(time, took);
            if time == Time::QueuedToTaken {
                waits.push(took);
            }
        }
        let snapshot = Snapshot::of(seen, &mut inner.since, at);
        inner.events.see(at, &snapshot.deeds, &snapshot.errors, snapshot.leads);
        inner.history.see(at, snapshot.counts.sums(), &waits);
        inner.rates = seen.rates.to_vec();
        drop(guard);
        self.record(snapshot);
    }

    /// Takes in what a pass saw and did.
    pub fn record(&self, mut snapshot: Snapshot) {
        let mut inner = self.inner();
        inner.metrics.pass(&snapshot);
        if let Some(before) = inner.seen.take() {
            snapshot.after(before);
        }
        inner.passes += 1;
        inner.last = Instant::now();
        inner.seen = Some(snapshot);
    }

    /// The loop turns.
    pub fn beat(&self) {
        self.inner().beat = Some(Instant::now());
    }

    /// When each version of the runner that ends stops getting jobs, in seconds since the epoch.
    pub fn ends(&self, ends: &BTreeMap<String, u64>) {
        self.inner().metrics.version_ends(ends);
    }

    /// Whether this replica applied in its last pass.
    pub fn leads(&self) -> bool {
        self.inner().seen.as_ref().is_some_and(|seen| seen.leads)
    }

    /// How many things it remembers, by what they are.
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

    /// Whether this process is alive: the loop turns, and passes end, whatever GitHub and Nomad do.
    fn health(&self) -> Result<String, String> {
        let inner = self.inner();
        let ago = inner.last.elapsed();
        let text = format!("{} passes, the last one ended {} s ago\n", inner.passes, ago.as_secs());
        if let Some(stuck) = inner.beat.map(|beat| beat.elapsed()).filter(|stuck| *stuck > STUCK) {
            return Err(format!("the loop has been computing for {} s; {text}", stuck.as_secs()));
        }
        if ago <= inner.interval + PASS_AT_MOST { Ok(text) } else { Err(text) }
    }

    /// Whether the last pass saw Nomad and GitHub.
    fn readiness(&self) -> Result<String, String> {
        let inner = self.inner();
        let Some(seen) = &inner.seen else { return Err("no pass yet\n".to_owned()) };
        let (listed, all) = seen.repositories.unwrap_or_default();
        let role = if seen.leads { "applies" } else { "standby" };
        let nomad = if seen.nomad_seen { "seen" } else { "not seen" };
        let text = format!("Nomad {nomad}; {listed} of {all} repositories listed; {role}\n");
        if seen.nomad_seen && (listed > 0 || all == 0) { Ok(text) } else { Err(text) }
    }

    /// The metrics, as OpenMetrics or in Prometheus' older format, and their content type.
    pub fn metrics(&self, open_metrics: bool) -> (String, &'static str) {
        let inner = self.inner();
        let nothing = Snapshot::default();
        inner.metrics.see(inner.seen.as_ref().unwrap_or(&nothing), inner.points());
        inner.metrics.rates(&inner.rates);
        inner.metrics.page(open_metrics)
    }
}
