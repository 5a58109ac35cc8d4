//! One run: a world, a daemon in it, what happens to both, and what must hold at the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::AssertUnwindSafe,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use githubrunner_sim::{
    clock::Clock,
    fault::Side,
    github::{GitHub, Job, JobSpec, Registration},
    nomad::Nomad,
    world::{Shared, World, drive, lock},
};
use hyper::Request;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::{
    checker::{
        Checker, left_over,
        replicas::{Leases, Takeover},
        sight::Sights,
    },
    daemon::{self, Maker, Sizes},
    replica::{End, Replica},
    secrets::{Log, be_quiet},
    specified,
    webhooks::{self, DeliveryFaults, Inboxes},
};
use crate::{
    deployment::{GITHUB_TOKEN, GROUP, META, NAMESPACE, PREFIX, Place},
    faults::{
        Budget,
        exchange::{Disconnect, Faults, REPLICAS},
        kind::FaultKind,
        mishap::Suffer,
        nemesis::{Nemesis, Told},
        scenario::{Happening, ReplicaMishap, Scenario},
        settings::Mode,
    },
    findings::Findings,
};

/// After all trouble is over, everything is done and cleaned up within this time: a silent rate limit may
/// last two hours, and failed actions wait up to ten minutes.
const SETTLED_WITHIN: Duration = Duration::from_secs(3 * 3600 + 1800);

/// How often to check whether everything is done.
const LOOK: Duration = Duration::from_secs(5);

/// More requests than this usually mean that the daemon is out of control.
const MOST_REQUESTS: u64 = 300_000;

/// The owner of the daemon's token.
const LOGIN: &str = "bot";

/// How to run it.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// This many faults may happen: used to find the shortest prefix that fails.
    pub budget: usize,
    /// Whether the timeline contains each exchange and log line.
    pub record: bool,
    /// Whether log lines are searched for secrets.
    pub listen: bool,
    /// Whether the outcome contains the jobs.
    pub jobs: bool,
    /// More requests than this mean that the daemon is out of control.
    pub requests: u64,
}

impl How {
    /// All of it, without output.
    pub fn quietly() -> How {
        How { budget: usize::MAX, record: false, listen: false, jobs: false, requests: MOST_REQUESTS }
    }
}

/// The result of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What was wrong; empty if nothing was.
    pub findings: Vec<String>,
    /// What happened, in true time since the start.
    pub timeline: Vec<String>,
    /// How many faults of the budget happened.
    pub happened: usize,
    /// How many requests were made.
    pub requests: u64,
    /// How long it took in virtual time.
    pub took: Duration,
    /// How many job registrations and parses were requested from Nomad.
    pub registered: u64,
    /// How many JIT configurations were requested.
    pub issued: u64,
    /// The jobs that GitHub still knows.
    pub jobs: Vec<Job>,
    /// The sizes of the daemon's memory at each SIGHUP.
    pub sizes: Vec<BTreeMap<&'static str, usize>>,
}

/// Runs a scenario.
pub fn run(scenario: &Scenario, how: How) -> Outcome {
    be_quiet();
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
        Outcome { findings: vec![format!("panic: {}", text.unwrap_or_default())], ..Outcome::default() }
    });
    for leak in log.leaks() {
        outcome.findings.push(format!("a secret in the log: {leak}"));
    }
    for line in log.harmful() {
        outcome.findings.push(format!("a line of the log that is not harmless: {line:?}"));
    }
    outcome
}

/// The world of a scenario, including things that belong to others.
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
        installations: Vec::new(),
        repositories: Vec::new(),
        elsewhere: None,
        jit: scenario.settings.mode == Mode::Jit,
        renamed: scenario.settings.mode == Mode::Renamed,
    };
    let mut organizations = BTreeSet::new();
    for name in &scenario.repositories {
        let (owner, _) = name.split_once('/').unwrap_or((name, ""));
        let organization = github.add_organization(owner, &[LOGIN]);
        if organizations.insert(organization) {
            github.add_runner_group(organization, GROUP);
        }
        place.repositories.push(github.add_repository(name));
    }
    if scenario.settings.webhooks {
        webhooks::install(&mut github, organizations.iter().copied());
    }
    if let Some((owner, _)) =
        scenario.repositories[0].split_once('/').filter(|_| scenario.settings.access.organization)
    {
        place.elsewhere = Some(github.add_repository(&format!("{owner}/elsewhere")));
    }
    github.add_token(GITHUB_TOKEN, place.token_without(&BTreeSet::new()));
    if scenario.settings.access.app {
        place.installations = daemon::install(&mut github, &organizations);
    }
    let nomad = Nomad::new(scenario.nomad.clone(), skewed(scenario.world.nomad_skew));
    let mut world = World::new(github, nomad, clock, scenario.world.clone());
    let organization = scenario.settings.access.organization;
    add_foreign(&mut world, &mut place, scenario.settings.caps, organization);
    if scenario.has(FaultKind::Ghosts) {
        add_old_ghost(&mut world, &place);
    }
    (world, place)
}

/// Jobs, variables and registrations that look like ours.
fn add_foreign(world: &mut World, place: &mut Place, caps: [Option<usize>; 3], scope_is_organization: bool) {
    let now = world.clock.now();
    let other = json!({
        "labelsstr": "sim", "repo_url": "https://github.com/acme/app", "version": "0", "instance": "another",
        "repo_id": place.repositories[0], "job_id": 1, "attempt": 1, "registration": "jit",
    });
    // A job that nomadtools started. Nothing needs it, but we must not stop it. It counts against the caps.
    let of_nomadtools = json!({
        "labelsstr": "sim,unrelated", "repo_url": "https://github.com/acme/app", "version": "1",
    });
    let of_nomadtools = match caps {
        [None, None, _] => json!({ META: of_nomadtools.to_string() }),
        _ => json!(null),
    };
    let jobs = [
        (format!("{PREFIX}-by-hand"), of_nomadtools),
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
            url: match (scope_is_organization, full_name.split_once('/')) {
                (true, Some((owner, _))) => format!("https://github.com/{owner}"),
                _ => format!("https://github.com/{full_name}"),
            },
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

/// A job that has been queued for longer than GitHub's limit, and that GitHub never assigns.
fn add_old_ghost(world: &mut World, place: &Place) {
    let mut ghost = JobSpec::new(&["sim"], Duration::from_secs(10));
    ghost.ghost = true;
    let at_github = world.github_time(world.clock.now());
    let long_ago = at_github.checked_sub(SignedDuration::from_hours(25)).unwrap_or(at_github);
    world.github.queue_run(place.repositories[0], vec![ghost], long_ago);
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

/// A run in progress.
struct Run<'a> {
    scenario: &'a Scenario,
    shared: Shared,
    place: Place,
    replicas: Vec<Replica>,
    leases: Leases,
    sights: Sights,
    takeover: Takeover,
    sizes: Sizes,
    budget: Budget,
    start: Instant,
    how: How,
}

/// Why the run woke up.
enum Woken {
    Found,
    Disturbed,
    Over(usize, End),
    Time,
}

async fn simulate(scenario: &Scenario, how: How, log: &Log) -> Outcome {
    let budget = Budget::new(how.budget);
    let (mut world, place) = world(scenario);
    let faults = faults(scenario, &budget, &place);
    let nemeses = faults.nemeses();
    world.fault = Box::new(faults);
    world.record_exchanges(how.record);
    let findings = Findings::default();
    let truth = Checker::new(scenario, place.clone(), findings.clone());
    let leases = truth.leases();
    let sights = truth.sights();
    world.set_watch(Some(Box::new(truth)));
    let shared = world.shared();
    if how.record {
        log.tell(&shared);
    }
    let driver = tokio::spawn(drive(shared.clone(), std::future::pending()));
    let inboxes = Inboxes::default();
    let carrier = webhooks::deliver(&shared, &inboxes, &findings);
    let sizes = Sizes::default();
    let replica = |(number, nemesis): (usize, Nemesis)| {
        let maker = Maker::new(
            scenario,
            &shared,
            number,
            nemesis.clone(),
            &sizes,
            specified::Told { findings: findings.clone(), sights: sights.clone(), place: place.clone() },
            inboxes.clone(),
        );
        Replica::new(number, maker, nemesis)
    };
    let count = if scenario.replicas { REPLICAS } else { 1 };
    let mut run = Run {
        scenario,
        replicas: nemeses.into_iter().enumerate().take(count).map(replica).collect(),
        takeover: Takeover::new(scenario),
        leases,
        sights,
        sizes: sizes.clone(),
        shared,
        place,
        budget,
        start: Instant::now(),
        how,
    };
    run.go(&findings).await;
    driver.abort();
    carrier.abort();
    run.outcome(&findings)
}

/// The faults between the daemons and the servers.
fn faults(scenario: &Scenario, budget: &Budget, place: &Place) -> Faults {
    let skew = (scenario.world.github_skew, scenario.world.nomad_skew);
    let mut faults = Faults::new(scenario.seed, scenario.episodes.clone(), budget.clone(), skew);
    faults.refuse_stream(!scenario.settings.hints);
    faults.latency(scenario.latency);
    faults.disconnect(match (scenario.has(FaultKind::OldServers), scenario.has(FaultKind::LostAfter)) {
        (true, _) => Disconnect::Ignored,
        (false, true) => Disconnect::ForAMinute,
        (false, false) => Disconnect::AsAsked,
    });
    faults.carry_by(DeliveryFaults::new(scenario.seed));
    faults.race(scenario.races.clone(), place.clone());
    faults
}

/// How many requests were made.
fn requests(world: &World) -> u64 {
    world.requests().total(Side::GitHub) + world.requests().total(Side::Nomad)
}

/// A line with the time since the start.
fn shown(base: Timestamp, at: Timestamp, line: &str) -> String {
    let passed = at.duration_since(base);
    format!("{:>9.3}s {line}", passed.as_secs_f64())
}

impl Run<'_> {
    fn outcome(&self, findings: &Findings) -> Outcome {
        let world = lock(&self.shared);
        let of = |side, route| world.requests().of(side, route);
        let jit = "POST /repos/{owner}/{repo}/actions/runners/generate-jitconfig";
        Outcome {
            findings: findings.all(),
            timeline: world.timeline().map(|(at, line)| shown(self.scenario.base, *at, line)).collect(),
            happened: self.budget.used(),
            requests: requests(&world),
            took: self.start.elapsed(),
            registered: of(Side::Nomad, "PUT /v1/jobs") + of(Side::Nomad, "POST /v1/jobs/parse"),
            issued: of(Side::GitHub, jit),
            jobs: if self.how.jobs { world.github.jobs().cloned().collect() } else { Vec::new() },
            sizes: self.sizes.all(),
        }
    }

    async fn go(&mut self, findings: &Findings) {
        let mut happenings = self.scenario.happenings.iter().peekable();
        let over = self.start + self.scenario.over;
        let mut calm = false;
        let mut look = over;
        let mut leader = None;
        loop {
            // The new leader does not know how many of a minute's points the previous one has used, so GitHub may
            // refuse its requests.
            if let Some(leads) = self.leases.leader()
                && leader.replace(leads) != Some(leads)
            {
                lock(&self.shared).github.begin_minute();
            }
            let next = happenings.peek().filter(|_| !calm).map(|(at, _)| self.start + *at);
            let due = self.replicas.iter().map(Replica::next).chain([next, Some(look), self.takeover.due()]);
            let next = due.flatten().min().unwrap_or(over);
            match self.wait(findings, next).await {
                Woken::Found => return,
                Woken::Over(_, End::ByItself) => {
                    let now = lock(&self.shared).clock.now();
                    return findings.add(now, "the daemon ended by itself".into());
                }
                Woken::Over(number, End::Dies | End::Exits) => self.bury(number),
                Woken::Disturbed => self.disturbed(),
                Woken::Time => {}
            }
            let now = Instant::now();
            self.tick(now);
            if let Some(wrong) = self.takeover.check(now, &self.leases, &self.replicas) {
                let now = lock(&self.shared).clock.now();
                findings.add(now, wrong);
            }
            while !calm && let Some((_, happening)) = happenings.next_if(|(at, _)| self.start + *at <= now) {
                if self.budget.take() {
                    self.happen(happening);
                }
            }
            if now >= over && !calm {
                calm = true;
                self.replicas.iter_mut().for_each(Replica::calm_down);
                if self.scenario.has(FaultKind::Configuration) {
                    self.replicas.iter().for_each(|replica| replica.leave_out(None));
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
        let Run { replicas, .. } = self;
        let nemeses: Vec<Nemesis> = replicas.iter().map(|replica| replica.nemesis.clone()).collect();
        let disturbed = |number: usize| {
            let nemesis = nemeses.get(number);
            async move {
                match nemesis {
                    Some(nemesis) => nemesis.told().await,
                    None => std::future::pending().await,
                }
            }
        };
        let lives = std::future::poll_fn(|context| {
            let over = replicas.iter_mut().find_map(|replica| match replica.poll(context) {
                Poll::Ready(end) => Some((replica.number, end)),
                Poll::Pending => None,
            });
            over.map_or(Poll::Pending, Poll::Ready)
        });
        tokio::select! {
            biased;
            () = findings.told.notified() => Woken::Found,
            () = disturbed(0) => Woken::Disturbed,
            () = disturbed(1) => Woken::Disturbed,
            (number, end) = lives => Woken::Over(number, end),
            () = sleep_until(next) => Woken::Time,
        }
    }

    /// Starts and resumes daemons when that is due.
    fn tick(&mut self, now: Instant) {
        for number in 0..self.replicas.len() {
            while let Some(what) = self.replicas[number].tick(now) {
                if self.scenario.replicas {
                    self.note(number, &format!("the daemon {what}"));
                }
            }
        }
    }

    /// A request has arrived at which a daemon dies or is suspended.
    fn disturbed(&mut self) {
        for number in 0..self.replicas.len() {
            match self.replicas[number].nemesis.take() {
                Some(Told::Dies) => self.bury(number),
                Some(Told::Pauses) => self.hits(number, Replica::pause),
                None => {}
            }
        }
    }

    /// Lets something happen to a daemon, and records whether another one has to take over.
    fn hits(&mut self, number: usize, happen: impl FnOnce(&mut Replica) -> Option<String>) {
        let led = self.leases.leader();
        let Some(what) = happen(&mut self.replicas[number]) else { return };
        self.note(number, &what);
        self.takeover.expect(number, led, &what, &self.replicas);
    }

    fn note(&self, number: usize, what: &str) {
        let who = if self.scenario.replicas { format!(" {number}") } else { String::new() };
        let mut world = lock(&self.shared);
        let now = world.clock.now();
        world.note(now, format!("MISHAP{who} {what}"));
    }

    /// The daemon is dead; the next one starts later.
    fn bury(&mut self, number: usize) {
        self.hits(number, Replica::bury);
        self.leases.ended(number);
        self.sights.ended(number);
        // It is no longer known how many of a minute's points the previous one has used, so GitHub may refuse the next
        // one's requests.
        lock(&self.shared).github.begin_minute();
    }

    fn leader(&self) -> usize {
        self.leases.leader().unwrap_or(0)
    }

    /// The replica after the leader.
    fn standby(&self) -> usize {
        (self.leader() + 1) % self.replicas.len()
    }

    fn happen(&mut self, happening: &Happening) {
        match happening {
            Happening::Run(repository, jobs) => {
                let repository = self.place.repositories[repository % self.place.repositories.len()];
                lock(&self.shared).queue_run(repository, jobs.clone());
            }
            Happening::Elsewhere(jobs) => {
                if let Some(repository) = self.place.elsewhere {
                    lock(&self.shared).queue_run(repository, jobs.clone());
                }
            }
            Happening::Mishap(mishap) => {
                lock(&self.shared).suffer(mishap, &self.place);
            }
            Happening::Death { at, cut, down } => {
                let who = self.leader();
                self.replicas[who].doom(*at, *cut, *down);
            }
            Happening::LeaveOut(repository) => {
                self.replicas.iter().for_each(|replica| replica.leave_out(*repository));
            }
            Happening::Cool => self.replicas.iter().for_each(Replica::cool),
            Happening::Hangup => self.replicas.iter().for_each(Replica::hang_up),
            Happening::Replica { standby, what } => {
                let who = if *standby { self.standby() } else { self.leader() };
                let what = *what;
                if let ReplicaMishap::Pause { at: Some((_, effect)), .. } = what {
                    self.takeover.wire(effect);
                }
                self.hits(who, |replica| replica.suffer(what));
            }
        }
    }

    /// Whether everything is done and cleaned up, or should be.
    fn is_over(&self, now: Instant, over: Instant, findings: &Findings) -> bool {
        let world = lock(&self.shared);
        let left = left_over(&world, &self.place, &self.sights);
        let at = world.clock.now();
        if left.is_empty() {
            return true;
        }
        if world.github.exhausted() > 0 {
            findings.add(at, "a limit of GitHub's was used up".to_owned());
            return true;
        }
        let requests = requests(&world);
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
