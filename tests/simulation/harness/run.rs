//! One run: a world, a daemon in it, what happens to both, and what must be so at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use bytes::Bytes;
use githubrunner::sim::chaos::mishap::Place;
use githubrunner::sim::chaos::scenario::{DeathAt, Happening, Mode, Scenario, Woe};
use githubrunner::sim::chaos::{Budget, Death, Faults};
use githubrunner::sim::clock::Clock;
use githubrunner::sim::fault::Side;
use githubrunner::sim::github::{GitHub, Job, Registration};
use githubrunner::sim::nomad::Nomad;
use githubrunner::sim::world::{Shared, World, drive, lock};
use hyper::Request;
use jiff::Timestamp;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::daemon::{GITHUB_TOKEN, Incarnation, META, Maker, NAMESPACE, PREFIX};
use super::secrets::Log;
use super::truth::{Findings, Truth, left_over};

/// After all trouble is over, everything is done and gone within this time: a silent rate limit may last two
/// hours, and failed actions wait up to ten minutes.
const SETTLED_WITHIN: Duration = Duration::from_secs(3 * 3600 + 1800);

/// How often it is looked whether all is done.
const LOOK: Duration = Duration::from_secs(5);

/// More requests than this are usually a daemon that runs wild.
const MOST_REQUESTS: u64 = 60_000;

/// The login that the daemon's token belongs to.
const LOGIN: &str = "bot";

/// How a run is made.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// So many things may happen: the shortest prefix that fails is found by it.
    pub budget: usize,
    /// The timeline tells of each exchange and log line.
    pub record: bool,
    /// Log lines are searched for secrets.
    pub listen: bool,
    /// The outcome has the jobs.
    pub jobs: bool,
    /// More requests than this are a daemon that runs wild.
    pub requests: u64,
}

impl How {
    /// All of it, quietly.
    pub fn quietly() -> How {
        How { budget: usize::MAX, record: false, listen: false, jobs: false, requests: MOST_REQUESTS }
    }
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was wrong; empty if all was well.
    pub findings: Vec<String>,
    /// What happened, in true time since the start.
    pub timeline: Vec<String>,
    /// How many things of the budget happened.
    pub happened: usize,
    /// How many requests were made.
    pub requests: u64,
    /// How long it took in virtual time.
    pub took: Duration,
    /// How many registrations of jobs in Nomad, and how many parses, were asked for.
    pub registered: u64,
    /// The jobs that GitHub still knows.
    pub jobs: Vec<Job>,
    /// How large the daemon was at each SIGHUP.
    pub sizes: Vec<BTreeMap<&'static str, usize>>,
}

/// Runs a scenario.
pub fn run(scenario: &Scenario, how: How) -> Outcome {
    let log = Log::default();
    let body = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.unwrap_or_else(|error| panic!("no runtime: {error}"));
        runtime.block_on(simulate(scenario, how, &log))
    };
    let caught = std::panic::catch_unwind(AssertUnwindSafe(|| match how.record || how.listen {
        true => tracing::subscriber::with_default(log.clone(), body),
        false => body(),
    }));
    let mut outcome = caught.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Outcome {
            findings: vec![format!("panic: {}", text.unwrap_or_default())],
            timeline: Vec::new(),
            happened: 0,
            requests: 0,
            took: Duration::ZERO,
            registered: 0,
            jobs: Vec::new(),
            sizes: Vec::new(),
        }
    });
    for leak in log.leaks() {
        outcome.findings.push(format!("a secret in the log: {leak}"));
    }
    outcome
}

/// The world of a scenario, with things that belong to others.
fn world(scenario: &Scenario) -> (World, Place) {
    let clock = Clock::starting_at(scenario.base);
    let base = scenario.base;
    let skewed = |skew| base.checked_add(skew).unwrap_or(base);
    let mut github = GitHub::new(scenario.github.clone(), skewed(scenario.world.github_skew));
    let mut place = Place {
        namespace: NAMESPACE.into(),
        prefix: format!("{PREFIX}-"),
        foreign: BTreeSet::new(),
        token: GITHUB_TOKEN.into(),
        login: LOGIN.into(),
        repositories: Vec::new(),
        jit: scenario.settings.mode == Mode::Jit,
        renamed: scenario.settings.mode == Mode::Renamed,
    };
    for name in &scenario.repositories {
        let (owner, _) = name.split_once('/').unwrap_or((name, ""));
        github.add_organization(owner, &[LOGIN]);
        place.repositories.push(github.add_repository(name));
    }
    github.add_token(GITHUB_TOKEN, place.token_without(&BTreeSet::new()));
    let nomad = Nomad::new(scenario.nomad.clone(), skewed(scenario.world.nomad_skew));
    let mut world = World::new(github, nomad, clock, scenario.world.clone());
    add_foreign(&mut world, &mut place);
    (world, place)
}

/// Jobs, variables and registrations that look like ours.
fn add_foreign(world: &mut World, place: &mut Place) {
    let now = world.clock.now();
    let other = json!({
        "labelsstr": "sim", "repo_url": "https://github.com/acme/app", "version": "0", "instance": "another",
        "repo_id": place.repositories[0], "job_id": 1, "attempt": 1, "registration": "jit",
    });
    let jobs = [
        (format!("{PREFIX}-by-hand"), json!(null)),
        (format!("{PREFIX}-acme-app-zzzzzaaaaaaaaaa"), json!({ META: other.to_string() })),
        (format!("{PREFIX}ulator-acme"), json!(null)),
    ];
    for (id, meta) in jobs {
        let job = json!({"Job": {
            "ID": id, "Name": id, "Type": "batch", "Namespace": NAMESPACE, "Meta": meta,
            "TaskGroups": [{"Name": "g", "Tasks": [{
                "Name": "t", "Driver": "raw_exec", "Config": {"command": "sleep"},
                "Resources": {"CPU": 1, "MemoryMB": 10},
            }]}],
        }});
        ask(world, "PUT", "/v1/jobs", &job.to_string(), now);
        let items = json!({"Items": {"jitconfig": "somebody's"}});
        ask(world, "PUT", &format!("/v1/var/nomad/jobs/{id}?cas=0"), &items.to_string(), now);
        place.foreign.insert(id);
    }
    let at_github = world.github_time(now);
    for name in ["by-hand", "acme-app-zzzzzbbbbbbbbbb"].map(|name| format!("{PREFIX}-{name}")) {
        let full_name = world.github.full_name(place.repositories[0]).unwrap_or_default();
        let registration = Registration {
            token: place.token.clone(),
            url: format!("https://github.com/{full_name}"),
            name: name.clone(),
            labels: vec!["unrelated".into()],
            default_labels: false,
            ephemeral: false,
            replace: false,
        };
        let registered = world.github.register(&registration, at_github);
        registered.unwrap_or_else(|error| panic!("{name}: {error}"));
        place.foreign.insert(name);
    }
    world.touch();
}

fn ask(world: &mut World, method: &str, path: &str, body: &str, now: Timestamp) {
    let path = match path.contains('?') {
        true => format!("{path}&namespace={NAMESPACE}"),
        false => format!("{path}?namespace={NAMESPACE}"),
    };
    let request = Request::builder().method(method).uri(path).body(Bytes::from(body.to_owned()));
    let request = request.unwrap_or_else(|error| panic!("{error}"));
    let response = world.handle(Side::Nomad, &request, now);
    assert!(response.status().is_success(), "{method} {}: {:?}", request.uri(), response.body());
}

/// The run while it goes on.
struct Run<'a> {
    scenario: &'a Scenario,
    shared: Shared,
    place: Place,
    maker: Maker,
    daemon: Option<Incarnation>,
    /// When the next daemon starts.
    again: Option<Instant>,
    death: Death,
    /// How the daemon dies when it does.
    dying: (bool, Duration),
    budget: Budget,
    start: Instant,
    how: How,
}

/// Why the run goes on.
enum Woken {
    Found,
    Died,
    Ended,
    Time,
}

async fn simulate(scenario: &Scenario, how: How, log: &Log) -> Outcome {
    let budget = Budget::new(how.budget);
    let (mut world, place) = world(scenario);
    let skew = (scenario.world.github_skew, scenario.world.nomad_skew);
    let mut faults = Faults::new(scenario.seed, scenario.episodes.clone(), budget.clone(), skew);
    faults.refuse_stream(!scenario.settings.hints);
    faults.old_servers(scenario.has(Woe::OldServers));
    let death = faults.death();
    world.fault = Box::new(faults);
    world.record_exchanges(how.record);
    let findings = Findings::default();
    world.set_watch(Some(Box::new(Truth::new(scenario, place.clone(), findings.clone()))));
    let shared = world.shared();
    if how.record {
        log.tell(&shared);
    }
    let driver = tokio::spawn(drive(shared.clone(), std::future::pending()));
    let mut run = Run {
        scenario,
        maker: Maker::new(scenario, &shared),
        shared,
        place,
        daemon: None,
        again: Some(Instant::now()),
        death,
        dying: (false, Duration::ZERO),
        budget,
        start: Instant::now(),
        how,
    };
    run.go(&findings).await;
    driver.abort();
    let world = lock(&run.shared);
    Outcome {
        findings: findings.all(),
        timeline: world.timeline().map(|(at, line)| shown(scenario.base, *at, line)).collect(),
        happened: run.budget.used(),
        requests: world.requests().total(Side::GitHub) + world.requests().total(Side::Nomad),
        took: run.start.elapsed(),
        registered: world.requests().of(Side::Nomad, "PUT /v1/jobs")
            + world.requests().of(Side::Nomad, "POST /v1/jobs/parse"),
        jobs: if how.jobs { world.github.jobs().cloned().collect() } else { Vec::new() },
        sizes: run.maker.sizes.all(),
    }
}

/// A line with the time since the start.
fn shown(base: Timestamp, at: Timestamp, line: &str) -> String {
    let passed = at.duration_since(base);
    format!("{:>9.3}s {line}", passed.as_secs_f64())
}

impl Run<'_> {
    async fn go(&mut self, findings: &Findings) {
        let mut happenings = self.scenario.happenings.iter().peekable();
        let over = self.start + self.scenario.over;
        let mut calm = false;
        let mut look = over;
        loop {
            let next = happenings.peek().filter(|_| !calm).map(|(at, _)| self.start + *at);
            let next = [next, self.again, Some(look)].into_iter().flatten().min().unwrap_or(over);
            let woken = self.wait(findings, next).await;
            match woken {
                Woken::Found => return,
                Woken::Ended => {
                    let now = lock(&self.shared).clock.now();
                    return findings.add(now, "the daemon ended by itself".into());
                }
                Woken::Died => self.bury(),
                Woken::Time => {}
            }
            let now = Instant::now();
            if self.again.is_some_and(|at| at <= now) {
                self.again = None;
                self.daemon = Some(self.maker.make());
            }
            while !calm && let Some((_, happening)) = happenings.next_if(|(at, _)| self.start + *at <= now) {
                if self.budget.take() {
                    self.happen(happening);
                }
            }
            if now >= over && !calm {
                calm = true;
                self.death.never();
                if let Some(daemon) = &mut self.daemon {
                    daemon.never_die();
                }
                let start_delay = self.scenario.nomad.delays.start;
                let mut world = lock(&self.shared);
                let at = world.clock.now();
                world.note(at, "all trouble is over".into());
                world.calm_down(&self.place, start_delay);
            }
            if calm && now >= look {
                look = now + LOOK;
                if self.is_over(now, over, findings) {
                    return;
                }
            }
        }
    }

    async fn wait(&mut self, findings: &Findings, next: Instant) -> Woken {
        let is_doomed = self.daemon.as_ref().is_some_and(Incarnation::is_doomed);
        let life = async {
            match &mut self.daemon {
                Some(daemon) => daemon.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = findings.told.notified() => Woken::Found,
            () = self.death.comes() => Woken::Died,
            () = life => if is_doomed { Woken::Died } else { Woken::Ended },
            () = sleep_until(next) => Woken::Time,
        }
    }

    /// The daemon is dead: it and, if they are cut, its connections go; the next one comes later.
    fn bury(&mut self) {
        let Some(daemon) = self.daemon.take() else { return };
        let (cut, down) = self.dying;
        if cut {
            daemon.connections.cut();
        }
        drop(daemon);
        self.death.never();
        self.again = Some(Instant::now() + down);
        let mut world = lock(&self.shared);
        let now = world.clock.now();
        world.note(now, format!("MISHAP the daemon dies; connections cut: {cut}; down for {down:?}"));
    }

    fn happen(&mut self, happening: &Happening) {
        match happening {
            Happening::Run(repository, jobs) => {
                let repository = self.place.repositories[repository % self.place.repositories.len()];
                lock(&self.shared).queue_run(repository, jobs.clone());
            }
            Happening::Mishap(mishap) => {
                lock(&self.shared).suffer(mishap, &self.place);
            }
            Happening::Death { at, cut, down } => {
                self.dying = (*cut, *down);
                match (at, &mut self.daemon) {
                    (DeathAt::Poll(polls), Some(daemon)) => daemon.die_after(*polls),
                    (DeathAt::Write { after, with_effect }, Some(_)) => {
                        self.death.after(*after, *with_effect)
                    }
                    (_, None) => {}
                }
            }
            Happening::Hangup => {
                if let Some(daemon) = &self.daemon {
                    daemon.hangup.notify_one();
                }
            }
        }
    }

    /// Whether all is done and gone, or should be.
    fn is_over(&self, now: Instant, over: Instant, findings: &Findings) -> bool {
        let world = lock(&self.shared);
        let left = left_over(&world, &self.place);
        let at = world.clock.now();
        if left.is_empty() {
            return true;
        }
        let requests = world.requests().total(Side::GitHub) + world.requests().total(Side::Nomad);
        if requests > self.how.requests {
            findings.add(at, format!("{requests} requests were made"));
            return true;
        }
        if now - over > SETTLED_WITHIN {
            findings.add(at, format!("left over: {}", left.join("; ")));
            return true;
        }
        false
    }
}
