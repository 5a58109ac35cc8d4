//! The metrics, with Prometheus's own crate. All label values come from fixed sets. The only external text is in
//! repository names, and those are included only if the configuration enables them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::{
    encoding::{prometheus_text, text},
    metrics::{counter::Counter as Count, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};

use super::{
    process::Process,
    snapshot::{Rate, Snapshot, Waiting, Whose},
};
use crate::model::RunnerState;

/// The prefix of all names except those of the process.
const PREFIX: &str = "githubrunner";

/// With more repositories than this, the rest are `other`.
const REPOSITORIES: usize = 1000;

/// From a second to six hours, for jobs that wait for a runner, start and run.
const LONG: [f64; 15] =
    [1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 10_800.0, 21_600.0];

/// From milliseconds to two minutes, for requests and passes.
const SHORT: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0];

/// With more node pools than this, the rest are `other`.
const NODE_POOLS: usize = 100;

/// With more classes than this, the rest are `other`: runners can have classes that are no longer configured.
const CLASSES: usize = 200;

/// A MiB, in bytes.
const MIB: u64 = 1 << 20;

/// The labels of a value of a metric.
type Labels = Vec<(&'static str, String)>;

/// Counters that are incremented between passes, with one label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counter {
    /// Requests to the webhook port, by outcome.
    WebhookRequests,
    /// Reasons to poll a repository soon, by source.
    Hints,
}

/// Measured times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Time {
    QueuedToStarted,
    QueuedToTaken,
    StartedToConnected,
    JobDuration,
}

/// An exchange with GitHub or Nomad that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// `github` or `nomad`.
    pub host: &'static str,
    /// The path's template: one of a fixed set.
    pub route: &'static str,
    /// The response's status; `None` if no complete response came in time.
    pub code: Option<u16>,
    /// How long it took.
    pub took: Duration,
    /// Its cost in points of GitHub's secondary limit.
    pub points: u64,
}

/// A format of the page of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// OpenMetrics, for those who ask for it.
    OpenMetrics,
    /// Prometheus' older format.
    Prometheus,
}

/// All metrics.
pub(super) struct Metrics {
    registry: Registry,
    passes: Count,
    pass_duration: Histogram,
    look_duration: Family<Labels, Histogram>,
    last_pass: Gauge<f64, std::sync::atomic::AtomicU64>,
    nomad_up: Gauge,
    github_up: Gauge,
    leader: Gauge,
    repositories: Family<Labels, Gauge>,
    jobs_queued: Family<Labels, Gauge>,
    jobs_held: Family<Labels, Gauge>,
    jobs_running: Family<Labels, Gauge>,
    holds: Family<Labels, Gauge>,
    waiting_runners: Family<Labels, Gauge>,
    waiting_cpu: Family<Labels, Gauge>,
    waiting_cores: Family<Labels, Gauge>,
    waiting_memory: Family<Labels, Gauge>,
    /// The node pools seen so far. An autoscaler also needs the value zero when nothing is waiting there any
    /// more.
    node_pools: Mutex<BTreeSet<String>>,
    runners: Family<Labels, Gauge>,
    finishes: Family<Labels, Count>,
    actions: Family<Labels, Count>,
    version_ends: Family<Labels, Gauge>,
    webhook_requests: Family<Labels, Count>,
    hints: Family<Labels, Count>,
    queued_to_started: Histogram,
    queued_to_taken: Histogram,
    started_to_connected: Histogram,
    job_duration: Histogram,
    requests: Family<Labels, Count>,
    request_duration: Family<Labels, Histogram>,
    rate_limit: Family<Labels, Gauge>,
    rate_remaining: Family<Labels, Gauge>,
    rate_reset: Family<Labels, Gauge>,
    points: Gauge,
    /// Whether gauges have a label for the repository.
    pub per_repository: bool,
    /// The configured classes, which are a label of the gauges.
    pub classes: Vec<Arc<str>>,
}

/// The first few values of a label. The rest share one.
#[derive(Default)]
struct Few<'a, const N: usize>(Vec<&'a str>);

impl<'a, const N: usize> Few<'a, N> {
    fn one(&mut self, value: &'a str) -> &'a str {
        if self.0.contains(&value) {
            return value;
        }
        if self.0.len() >= N {
            return "other";
        }
        self.0.push(value);
        value
    }
}

fn long() -> Histogram {
    Histogram::new(LONG)
}

fn short() -> Histogram {
    Histogram::new(SHORT)
}

fn labels<const N: usize>(labels: [(&'static str, &str); N]) -> Labels {
    labels.into_iter().map(|(key, value)| (key, value.to_owned())).collect()
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process));
        let metrics = Metrics::unregistered();
        let own = registry.sub_registry_with_prefix(PREFIX);
        metrics.register_passes(own);
        metrics.register_jobs(own);
        metrics.register_waiting(own);
        metrics.register_runners(own);
        metrics.register_times(own);
        metrics.register_requests(own);
        // Prometheus sees a first failure only if there was a zero before it.
        for finish in FINISHES {
            drop(metrics.finishes.get_or_create(&labels([("finish", finish)])));
        }
        Metrics { registry, ..metrics }
    }
}

impl Metrics {
    fn unregistered() -> Self {
        Metrics {
            registry: Registry::default(),
            passes: Count::default(),
            pass_duration: short(),
            look_duration: Family::new_with_constructor(short as fn() -> Histogram),
            last_pass: Gauge::default(),
            nomad_up: Gauge::default(),
            github_up: Gauge::default(),
            leader: Gauge::default(),
            repositories: Family::default(),
            jobs_queued: Family::default(),
            jobs_held: Family::default(),
            jobs_running: Family::default(),
            holds: Family::default(),
            waiting_runners: Family::default(),
            waiting_cpu: Family::default(),
            waiting_cores: Family::default(),
            waiting_memory: Family::default(),
            node_pools: Mutex::default(),
            runners: Family::default(),
            finishes: Family::default(),
            actions: Family::default(),
            version_ends: Family::default(),
            webhook_requests: Family::default(),
            hints: Family::default(),
            queued_to_started: long(),
            queued_to_taken: long(),
            started_to_connected: long(),
            job_duration: long(),
            requests: Family::default(),
            request_duration: Family::new_with_constructor(short as fn() -> Histogram),
            rate_limit: Family::default(),
            rate_remaining: Family::default(),
            rate_reset: Family::default(),
            points: Gauge::default(),
            per_repository: false,
            classes: Vec::new(),
        }
    }

    fn register_passes(&self, own: &mut Registry) {
        own.register(
            "build",
            "The running version",
            Info::new(labels([("version", env!("CARGO_PKG_VERSION"))])),
        );
        own.register("passes", "Passes since the start", self.passes.clone());
        own.register_with_unit(
            "pass_duration",
            "How long passes took",
            Unit::Seconds,
            self.pass_duration.clone(),
        );
        own.register_with_unit(
            "look_duration",
            "How long polling a repository took, by what was requested",
            Unit::Seconds,
            self.look_duration.clone(),
        );
        own.register_with_unit(
            "last_pass_timestamp",
            "When the last pass ended",
            Unit::Seconds,
            self.last_pass.clone(),
        );
        own.register("nomad_up", "Whether the last pass reached Nomad", self.nomad_up.clone());
        own.register(
            "github_up",
            "Whether the most recent poll of at least one repository succeeded",
            self.github_up.clone(),
        );
        own.register("leader", "Whether this replica is the leader", self.leader.clone());
        own.register(
            "repositories",
            "Repositories, by whether the last pass had a listing of them",
            self.repositories.clone(),
        );
    }

    fn register_jobs(&self, own: &mut Registry) {
        own.register(
            "jobs_queued",
            "Queued GitHub jobs that request one of our runners",
            self.jobs_queued.clone(),
        );
        own.register(
            "jobs_held",
            "GitHub jobs that deliberately get no runner now, by reason",
            self.jobs_held.clone(),
        );
        own.register("jobs_running", "GitHub jobs running on our runners", self.jobs_running.clone());
        own.register(
            "holds",
            "Everything that is deliberately not done, by kind of subject and by reason",
            self.holds.clone(),
        );
    }

    fn register_waiting(&self, own: &mut Registry) {
        for (name, help, family) in [
            ("waiting_runners", "Runners that Nomad has not placed yet, by node pool", &self.waiting_runners),
            (
                "waiting_cpu_megahertz",
                "CPU requested by runners that Nomad has not placed yet, by node pool",
                &self.waiting_cpu,
            ),
            (
                "waiting_cores",
                "Cores requested by runners that Nomad has not placed yet, by node pool",
                &self.waiting_cores,
            ),
            (
                "waiting_memory_bytes",
                "Memory requested by runners that Nomad has not placed yet, by node pool",
                &self.waiting_memory,
            ),
        ] {
            own.register(name, help, family.clone());
        }
    }

    fn register_runners(&self, own: &mut Registry) {
        own.register("runners", "Runners, by state and class", self.runners.clone());
        own.register(
            "runners_finished",
            "Runners that have ended since the start, by result",
            self.finishes.clone(),
        );
        own.register(
            "actions",
            "Actions since the start, by action, reason and outcome",
            self.actions.clone(),
        );
        own.register(
            "runner_version_end_timestamp_seconds",
            "When a runner version stops getting jobs",
            self.version_ends.clone(),
        );
        own.register(
            "webhook_requests",
            "Requests to the webhook port, by outcome",
            self.webhook_requests.clone(),
        );
        own.register("hints", "Reasons to poll a repository soon, by source", self.hints.clone());
    }

    fn register_times(&self, own: &mut Registry) {
        for (name, help, histogram) in [
            (
                "job_queued_to_started",
                "From the time a job is queued to the registration of its first runner at Nomad",
                &self.queued_to_started,
            ),
            (
                "job_queued_to_taken",
                "From the time a job is queued to its start on one of our runners, by GitHub's clock",
                &self.queued_to_taken,
            ),
            (
                "runner_started_to_connected",
                "From a runner's registration at Nomad to the first time it is seen connected to GitHub",
                &self.started_to_connected,
            ),
            ("job_duration", "How long jobs ran on our runners", &self.job_duration),
        ] {
            own.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        }
    }

    fn register_requests(&self, own: &mut Registry) {
        own.register(
            "requests",
            "Requests by host, route and class of the response's status",
            self.requests.clone(),
        );
        own.register_with_unit(
            "request_duration",
            "How long requests took, by host and route",
            Unit::Seconds,
            self.request_duration.clone(),
        );
        own.register(
            "github_rate_limit",
            "Requests that GitHub allows in a bucket's period",
            self.rate_limit.clone(),
        );
        own.register("github_rate_limit_remaining", "Requests left in a bucket", self.rate_remaining.clone());
        own.register(
            "github_rate_limit_reset_timestamp_seconds",
            "When a bucket resets, by GitHub's clock",
            self.rate_reset.clone(),
        );
        own.register(
            "github_points_per_minute",
            "Points of GitHub's secondary limit used in the last minute",
            self.points.clone(),
        );
    }

    /// Increments a counter.
    pub fn count(&self, counter: Counter, label: &str, by: u64) {
        let (family, key) = match counter {
            Counter::WebhookRequests => (&self.webhook_requests, "outcome"),
            Counter::Hints => (&self.hints, "source"),
        };
        family.get_or_create(&labels([(key, label)])).inc_by(by);
    }

    /// Records a measured time.
    pub fn time(&self, time: Time, took: Duration) {
        let histogram = match time {
            Time::QueuedToStarted => &self.queued_to_started,
            Time::QueuedToTaken => &self.queued_to_taken,
            Time::StartedToConnected => &self.started_to_connected,
            Time::JobDuration => &self.job_duration,
        };
        histogram.observe(took.as_secs_f64());
    }

    /// Records an exchange.
    pub fn exchange(&self, Exchange { host, route, code, took, .. }: Exchange) {
        let code = match code {
            None => "none",
            Some(304) => "304",
            Some(200..300) => "2xx",
            Some(300..400) => "3xx",
            Some(400..500) => "4xx",
            Some(_) => "5xx",
        };
        self.requests.get_or_create(&labels([("host", host), ("route", route), ("code", code)])).inc();
        let duration = self.request_duration.get_or_create(&labels([("host", host), ("route", route)]));
        duration.observe(took.as_secs_f64());
    }

    /// Records the end of a runner.
    pub fn finish(&self, finish: &'static str) {
        self.finishes.get_or_create(&labels([("finish", finish)])).inc();
    }

    /// Records a look at a repository.
    pub fn look(&self, look: &'static str, took: Duration) {
        self.look_duration.get_or_create(&labels([("look", look)])).observe(took.as_secs_f64());
    }

    /// Records a pass.
    pub fn pass(&self, snapshot: &Snapshot) {
        self.passes.inc();
        self.pass_duration.observe(snapshot.took.as_secs_f64());
        self.last_pass.set(epoch_seconds(snapshot.at));
        for deed in &snapshot.deeds {
            let which = [("action", deed.action), ("outcome", deed.outcome), ("reason", deed.reason)];
            self.actions.get_or_create(&labels(which)).inc();
        }
    }

    /// Records the current state.
    pub fn see(&self, snapshot: &Snapshot, points: u64) {
        self.nomad_up.set(i64::from(snapshot.nomad_seen));
        self.github_up.set(i64::from(snapshot.sees_github()));
        self.leader.set(i64::from(snapshot.leads));
        self.points.set(i64::try_from(points).unwrap_or(i64::MAX));
        let (listed, all) = snapshot.repositories.unwrap_or_default();
        for (is_listed, count) in [("true", listed), ("false", all.saturating_sub(listed))] {
            self.repositories.get_or_create(&labels([("listed", is_listed)])).set(number(count));
        }
        let counts = &snapshot.counts;
        // Each class has its value. Sums over repositories do not change.
        let classes = self.classes.iter().cloned().map(Some).chain([None]);
        let classes = classes.map(|class| Whose { repository: String::new(), class });
        let zeros: Vec<Whose> = if self.per_repository { Vec::new() } else { classes.collect() };
        let none = || zeros.iter().map(|of| (Vec::new(), of, 0));
        self.set(&self.jobs_queued, none().chain(counts.queued.iter().map(|(of, n)| (Vec::new(), of, *n))));
        let reason = |reason: &str| labels([("reason", reason)]);
        self.set(&self.jobs_held, counts.held.iter().map(|((of, why), n)| (reason(why), of, *n)));
        self.set(&self.jobs_running, none().chain(counts.running.iter().map(|(of, n)| (Vec::new(), of, *n))));
        self.holds.clear();
        for ((about, why), count) in &counts.holds {
            self.holds.get_or_create(&labels([("about", about), ("reason", why)])).set(number(*count));
        }
        let state = |state: RunnerState| labels([("state", state.as_str())]);
        self.waiting(&counts.waiting);
        let none = zeros.iter().flat_map(|of| STATES.map(|at| (state(at), of, 0)));
        let runners = counts.runners.iter().map(|((of, at), n)| (state(*at), of, *n));
        self.set(&self.runners, none.chain(runners));
    }

    /// The requests of runners that wait for a place.
    fn waiting(&self, seen: &BTreeMap<String, Waiting>) {
        let mut pools = self.node_pools.lock().unwrap_or_else(PoisonError::into_inner);
        for pool in seen.keys() {
            if pools.len() < NODE_POOLS {
                pools.insert(pool.clone());
            }
        }
        let families = [&self.waiting_runners, &self.waiting_cpu, &self.waiting_cores, &self.waiting_memory];
        families.iter().for_each(|family| family.clear());
        let none = Waiting::default();
        let zeros = pools.iter().map(|pool| (pool, &none));
        for (pool, waiting) in zeros.chain(seen) {
            let shown = if pools.contains(pool) { pool } else { "other" };
            let of = labels([("node_pool", shown)]);
            let memory = waiting.memory.saturating_mul(MIB);
            for (family, amount) in families.iter().zip([waiting.runners, waiting.cpu, waiting.cores, memory])
            {
                family.get_or_create(&of).inc_by(i64::try_from(amount).unwrap_or(i64::MAX));
            }
        }
    }

    /// The rate limits that GitHub last reported.
    pub fn rates(&self, rates: &[Rate]) {
        for family in [&self.rate_limit, &self.rate_remaining, &self.rate_reset] {
            family.clear();
        }
        for rate in rates {
            let which = labels([("credential", &rate.credential), ("bucket", &rate.bucket)]);
            let value = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
            self.rate_limit.get_or_create(&which).set(value(rate.limit));
            self.rate_remaining.get_or_create(&which).set(value(rate.remaining));
            self.rate_reset.get_or_create(&which).set(rate.reset);
        }
    }

    /// For each runner version that ends, when it stops getting jobs.
    pub fn version_ends(&self, ends: &BTreeMap<String, u64>) {
        self.version_ends.clear();
        for (version, at) in ends {
            let at = i64::try_from(*at).unwrap_or(i64::MAX);
            self.version_ends.get_or_create(&labels([("version", version)])).set(at);
        }
    }

    /// Replaces a gauge's values. Without a repository label, the values of several repositories are added
    /// up.
    fn set<'a>(
        &'a self,
        family: &Family<Labels, Gauge>,
        values: impl Iterator<Item = (Labels, &'a Whose, usize)>,
    ) {
        family.clear();
        if !self.per_repository && values.size_hint().1 == Some(0) {
            family.get_or_create(&Vec::new()).set(0);
        }
        let mut repositories = Few::<REPOSITORIES>::default();
        let mut classes = Few::<CLASSES>(self.classes.iter().map(AsRef::as_ref).collect());
        for (mut labels, Whose { repository, class }, count) in values {
            if let Some(class) = class {
                labels.push(("class", classes.one(class).to_owned()));
            }
            if self.per_repository {
                labels.push(("repository", repositories.one(repository).to_owned()));
            }
            family.get_or_create(&labels).inc_by(number(count));
        }
    }

    /// The metrics page and its content type.
    pub fn page(&self, format: Exposition) -> (String, &'static str) {
        let mut page = String::new();
        let written = match format {
            Exposition::OpenMetrics => text::encode(&mut page, &self.registry),
            Exposition::Prometheus => prometheus_text::encode(&mut page, &self.registry),
        };
        if let Err(error) = written {
            tracing::error!("cannot write the metrics: {error}");
        }
        let kind = match format {
            Exposition::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Exposition::Prometheus => prometheus_text::CONTENT_TYPE,
        };
        (page, kind)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// How a runner can end: the names of [`crate::model::Finish`].
const FINISHES: [&str; 8] =
    ["success", "stopped", "failure", "out_of_memory", "lost", "drained", "timed_out", "never_ran"];

/// All states of a runner.
pub(super) const STATES: [RunnerState; 7] = [
    RunnerState::Pending,
    RunnerState::Waiting,
    RunnerState::Starting,
    RunnerState::Running,
    RunnerState::Stopping,
    RunnerState::Disconnected,
    RunnerState::Dead,
];

fn epoch_seconds(at: jiff::Timestamp) -> f64 {
    at.as_duration().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whose(repository: &str, class: Option<&str>) -> Whose {
        Whose { repository: repository.to_owned(), class: class.map(Arc::from) }
    }

    fn page(metrics: &Metrics, snapshot: &Snapshot) -> String {
        metrics.see(snapshot, 7);
        metrics.page(Exposition::OpenMetrics).0
    }

    #[test]
    fn the_page_is_open_metrics_and_every_name_has_its_type_once() {
        let metrics = Metrics::default();
        let page = page(&metrics, &Snapshot::default());
        assert!(page.ends_with("# EOF\n"), "{page}");
        let types: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let mut names: Vec<&str> = types.iter().filter_map(|line| line.split(' ').next()).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "{page}");
        let others = names.iter().filter(|name| !name.starts_with("githubrunner_"));
        assert!(others.clone().all(|name| name.starts_with("process_")), "{names:?}");
        assert!(page.contains("githubrunner_build_info{version=\""), "{page}");
        for state in STATES {
            assert!(page.contains(&format!("githubrunner_runners{{state=\"{state}\"}} 0\n")), "{page}");
        }
        // The older format has another content type and the same names.
        let (older, kind) = metrics.page(Exposition::Prometheus);
        assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
        assert!(older.contains("# TYPE githubrunner_passes_total counter\n") && !older.contains("# EOF"));
    }

    #[test]
    fn repositories_are_labels_only_if_enabled_and_at_most_a_thousand() {
        let mut snapshot = Snapshot::default();
        for number in 0..2 * REPOSITORIES {
            snapshot.counts.queued.insert(whose(&format!("acme/r{number}"), None), 2);
        }
        let mut metrics = Metrics::default();
        let without = page(&metrics, &snapshot);
        assert!(
            without.contains("githubrunner_jobs_queued 4000\n") && !without.contains("acme"),
            "{without}"
        );
        metrics.per_repository = true;
        let with = page(&metrics, &snapshot);
        assert_eq!(with.matches("githubrunner_jobs_queued{repository=\"").count(), REPOSITORIES + 1);
        assert!(with.contains("githubrunner_jobs_queued{repository=\"other\"} 2000\n"), "{with}");
        assert!(with.contains("githubrunner_jobs_queued{repository=\"acme/r0\"} 2\n"), "{with}");
    }

    #[test]
    fn each_class_has_its_value_and_the_top_level_has_no_label() {
        let mut metrics = Metrics { classes: vec!["gpu".into(), "small".into()], ..Metrics::default() };
        let mut snapshot = Snapshot::default();
        snapshot.counts.queued.insert(whose("acme/a", Some("gpu")), 2);
        snapshot.counts.queued.insert(whose("acme/b", Some("gpu")), 3);
        snapshot.counts.queued.insert(whose("acme/b", None), 4);
        snapshot.counts.held.insert((whose("acme/a", Some("gpu")), "cap_class"), 1);
        snapshot.counts.runners.insert((whose("acme/a", Some("gpu")), RunnerState::Running), 7);
        let text = page(&metrics, &snapshot);
        for line in [
            "jobs_queued{class=\"gpu\"} 5",
            "jobs_queued{class=\"small\"} 0",
            "jobs_queued 4",
            "jobs_running{class=\"small\"} 0",
            "jobs_held{reason=\"cap_class\",class=\"gpu\"} 1",
            "runners{state=\"running\",class=\"gpu\"} 7",
            "runners{state=\"dead\",class=\"small\"} 0",
            "runners{state=\"running\"} 0",
        ] {
            assert!(text.contains(&format!("githubrunner_{line}\n")), "{line}: {text}");
        }
        metrics.per_repository = true;
        let text = page(&metrics, &snapshot);
        let line = "githubrunner_jobs_queued{class=\"gpu\",repository=\"acme/b\"} 3\n";
        assert!(text.contains(line), "{text}");
        // Runners can have classes that are no longer configured.
        for number in 0..2 * CLASSES {
            let class = format!("old{number}");
            snapshot.counts.runners.insert((whose("acme/a", Some(&class)), RunnerState::Dead), 1);
        }
        let text = page(&metrics, &snapshot);
        assert_eq!(text.matches("class=\"old").count(), CLASSES - 2);
        assert!(text.contains("class=\"other\",repository=\"acme/a\"} 202\n"), "{text}");
    }

    #[test]
    fn values_that_are_over_are_removed() {
        let metrics = Metrics::default();
        let mut snapshot = Snapshot::default();
        snapshot.counts.holds.insert(("job", "cap_all"), 3);
        snapshot.counts.held.insert((whose("acme/widgets", None), "cap_all"), 3);
        let held = page(&metrics, &snapshot);
        assert!(held.contains("githubrunner_jobs_held{reason=\"cap_all\"} 3\n"), "{held}");
        assert!(held.contains("githubrunner_holds{about=\"job\",reason=\"cap_all\"} 3\n"), "{held}");
        let after = page(&metrics, &Snapshot::default());
        assert!(!after.contains("cap_all"), "{after}");
    }

    #[test]
    fn requests_are_counted_by_class_and_measured_by_route() {
        let metrics = Metrics::default();
        let took = Duration::from_millis(200);
        for code in [Some(200), Some(201), Some(304), Some(404), Some(503), None] {
            metrics.exchange(Exchange { host: "github", route: "/user", code, took, points: 1 });
        }
        let page = metrics.page(Exposition::OpenMetrics).0;
        for (code, count) in [("2xx", 2), ("304", 1), ("4xx", 1), ("5xx", 1), ("none", 1)] {
            let line = format!("code=\"{code}\"}} {count}\n");
            assert!(page.contains(&line), "{line}{page}");
        }
        let count = "githubrunner_request_duration_seconds_count{host=\"github\",route=\"/user\"} 6\n";
        assert!(page.contains(count), "{page}");
    }
}
