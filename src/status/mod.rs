//! What the daemon tells of itself over HTTP: `/healthz`, `/readyz` and `/metrics`. No secret is in any of it.

mod server;

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::model::RunnerState;

pub use server::serve;

/// A pass that takes longer than this beyond the loop's interval hangs: listing all repositories, a minute,
/// and an action's deadlines fit in it several times.
const PASS_AT_MOST: Duration = Duration::from_secs(600);

/// A loop that has not turned for so long is stuck in a computation.
const STUCK: Duration = Duration::from_secs(60);

/// What the last pass saw and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Whether Nomad was seen.
    pub nomad_seen: bool,
    /// Repositories with a listing of this pass, and all; `None` for a pass that did not ask GitHub.
    pub repositories: Option<(usize, usize)>,
    /// Runners by state.
    pub runners: BTreeMap<RunnerState, usize>,
    /// Queued jobs that may be served.
    pub queued: usize,
    /// Things deliberately not done.
    pub holds: usize,
    /// Whether this replica applies.
    pub leads: bool,
    /// Actions since the start, by what was done and how it came out.
    pub actions: BTreeMap<(&'static str, &'static str), u64>,
}

/// Shared between the daemon, which writes it after each pass, and the server.
#[derive(Clone, Debug)]
pub struct Status(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    interval: Duration,
    passes: u64,
    last: Instant,
    /// When the loop last said that it turns; `None` where nobody says so.
    beat: Option<Instant>,
    seen: Option<Snapshot>,
    counts: BTreeMap<(Counter, &'static str), u64>,
    ends: BTreeMap<String, u64>,
}

/// What is counted between passes, by one label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counter {
    /// Requests to the webhook's port, by how they came out.
    WebhookRequests,
    /// Reasons to look at a repository soon, by where they came from.
    Hints,
}

impl Counter {
    /// Name, label and help of its metric.
    fn texts(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Counter::WebhookRequests => {
                ("webhook_requests_total", "outcome", "Requests to the webhook's port, by outcome.")
            }
            Counter::Hints => ("hints_total", "source", "Reasons to look at a repository soon, by source."),
        }
    }
}

impl Status {
    /// That of a daemon that has made no pass yet; `interval` is the loop's.
    pub fn new(interval: Duration) -> Self {
        Status(Arc::new(Mutex::new(Inner {
            interval,
            passes: 0,
            last: Instant::now(),
            beat: None,
            seen: None,
            counts: BTreeMap::new(),
            ends: BTreeMap::new(),
        })))
    }

    /// Counts one more.
    pub fn count(&self, counter: Counter, label: &'static str) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *inner.counts.entry((counter, label)).or_default() += 1;
    }

    /// Shows these counters before there is anything to count.
    pub fn expect(&self, counter: Counter, labels: impl IntoIterator<Item = &'static str>) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for label in labels {
            inner.counts.entry((counter, label)).or_default();
        }
    }

    /// Takes in a pass: what it saw and, in `actions`, only what it did itself.
    pub fn record(&self, mut snapshot: Snapshot) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = inner.seen.take() {
            snapshot.repositories = snapshot.repositories.or(before.repositories);
            for (key, count) in before.actions {
                *snapshot.actions.entry(key).or_default() += count;
            }
        }
        inner.passes += 1;
        inner.last = Instant::now();
        inner.seen = Some(snapshot);
    }

    /// The loop turns.
    pub fn beat(&self) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.beat = Some(Instant::now());
    }

    /// When each version of the runner that ends stops getting jobs, in seconds since the epoch.
    pub fn ends(&self, ends: &BTreeMap<String, u64>) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.ends.clone_from(ends);
    }

    /// Whether this replica applied in its last pass.
    pub fn leads(&self) -> bool {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.seen.as_ref().is_some_and(|seen| seen.leads)
    }

    /// Whether this process is alive: the loop turns, and passes end, whatever GitHub and Nomad do.
    fn health(&self) -> Result<String, String> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ago = inner.last.elapsed();
        let text = format!("{} passes, the last one ended {} s ago\n", inner.passes, ago.as_secs());
        if let Some(stuck) = inner.beat.map(|beat| beat.elapsed()).filter(|stuck| *stuck > STUCK) {
            return Err(format!("the loop has been computing for {} s; {text}", stuck.as_secs()));
        }
        if ago <= inner.interval + PASS_AT_MOST { Ok(text) } else { Err(text) }
    }

    /// Whether the last pass saw Nomad and GitHub.
    fn readiness(&self) -> Result<String, String> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(seen) = &inner.seen else { return Err("no pass yet\n".to_owned()) };
        let (listed, all) = seen.repositories.unwrap_or_default();
        let role = if seen.leads { "applies" } else { "standby" };
        let nomad = if seen.nomad_seen { "seen" } else { "not seen" };
        let text = format!("Nomad {nomad}; {listed} of {all} repositories listed; {role}\n");
        if seen.nomad_seen && (listed > 0 || all == 0) { Ok(text) } else { Err(text) }
    }

    /// In Prometheus' text format.
    pub(crate) fn metrics(&self) -> String {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = inner.seen.clone().unwrap_or_default();
        let mut page = Page::default();
        page.metric("passes_total", "counter", "Passes since the start.", [("", inner.passes)]);
        let ago = inner.last.elapsed().as_secs();
        page.metric("last_pass_seconds", "gauge", "Seconds since the last pass ended.", [("", ago)]);
        let count = |number: usize| number as u64;
        page.metric(
            "nomad_up",
            "gauge",
            "Whether the last pass saw Nomad.",
            [("", u64::from(seen.nomad_seen))],
        );
        page.metric("leader", "gauge", "Whether this replica applies.", [("", u64::from(seen.leads))]);
        let (listed, all) = seen.repositories.unwrap_or_default();
        let repositories =
            [("{listed=\"true\"}", count(listed)), ("{listed=\"false\"}", count(all.saturating_sub(listed)))];
        page.metric(
            "repositories",
            "gauge",
            "Repositories, by whether the last pass listed them.",
            repositories,
        );
        page.metric(
            "jobs_queued",
            "gauge",
            "GitHub jobs that wait for a runner.",
            [("", count(seen.queued))],
        );
        page.metric("holds", "gauge", "Things deliberately not done.", [("", count(seen.holds))]);
        let states = [
            RunnerState::Pending,
            RunnerState::Waiting,
            RunnerState::Starting,
            RunnerState::Running,
            RunnerState::Stopping,
            RunnerState::Disconnected,
            RunnerState::Dead,
        ];
        let runners = states.map(|state| {
            (format!("{{state=\"{state}\"}}"), count(seen.runners.get(&state).copied().unwrap_or(0)))
        });
        page.metric("runners", "gauge", "Runners, by state.", runners);
        let actions = seen.actions.iter().map(|((action, outcome), number)| {
            (format!("{{action=\"{action}\",outcome=\"{outcome}\"}}"), *number)
        });
        page.metric("actions_total", "counter", "Actions since the start.", actions);
        let ends = inner.ends.iter().map(|(version, at)| (format!("{{version=\"{version}\"}}"), *at));
        page.metric(
            "runner_version_end_timestamp_seconds",
            "gauge",
            "When a runner's version stops getting jobs.",
            ends,
        );
        for counter in [Counter::WebhookRequests, Counter::Hints] {
            let (name, label, help) = counter.texts();
            let counts = inner.counts.iter().filter(|((of, _), _)| *of == counter);
            let counts = counts.map(|((_, value), count)| (format!("{{{label}=\"{value}\"}}"), *count));
            page.metric(name, "counter", help, counts);
        }
        page.0
    }
}

/// A page of metrics.
#[derive(Default)]
struct Page(String);

impl Page {
    fn metric<L: AsRef<str>>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) {
        // Writing to a String does not fail.
        let _ = writeln!(self.0, "# HELP githubrunner_{name} {help}\n# TYPE githubrunner_{name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(self.0, "githubrunner_{name}{} {value}", labels.as_ref());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn healthy_while_passes_end_and_ready_while_they_see() {
        let status = Status::new(Duration::from_secs(60));
        assert!(status.health().is_ok() && status.readiness().is_err());
        let seen = Snapshot { nomad_seen: true, repositories: Some((1, 2)), ..Snapshot::default() };
        status.record(seen.clone());
        assert_eq!(status.readiness().unwrap(), "Nomad seen; 1 of 2 repositories listed; standby\n");
        status.record(Snapshot { repositories: Some((0, 2)), ..seen.clone() });
        assert!(status.readiness().is_err());
        status.record(Snapshot { repositories: None, ..seen.clone() });
        assert!(status.readiness().is_err(), "a pass without GitHub says nothing of it");
        status.record(Snapshot { nomad_seen: false, ..seen });
        assert!(status.readiness().is_err());
        tokio::time::advance(Duration::from_secs(660)).await;
        assert!(status.health().is_ok());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(status.health().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_does_not_turn_is_not_healthy() {
        let status = Status::new(Duration::from_secs(60));
        status.beat();
        tokio::time::advance(STUCK).await;
        assert!(status.health().is_ok());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(status.health().is_err());
        status.beat();
        assert!(status.health().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn actions_add_up() {
        let status = Status::new(Duration::from_secs(60));
        let did = |count| Snapshot { actions: [(("start", "done"), count)].into(), ..Snapshot::default() };
        status.record(did(2));
        status.record(did(3));
        let metrics = status.metrics();
        assert!(
            metrics.contains("githubrunner_actions_total{action=\"start\",outcome=\"done\"} 5\n"),
            "{metrics}"
        );
        assert!(metrics.contains("githubrunner_passes_total 2\n"), "{metrics}");
    }
}
