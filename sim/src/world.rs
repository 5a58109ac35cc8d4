//! The world: a simulated GitHub, a simulated Nomad, and the runner processes between them.
//!
//! When a Nomad task starts, its environment says which runner it is. After a startup time, the process connects to
//! GitHub, takes jobs, and ends. It ends on its own after an ephemeral runner's job or a refusal (with exit code 0,
//! like `run.sh`; contract github.md §7), or because Nomad kills it. The world knows the true state, and tests
//! compare it with what a daemon believes.

pub mod fault;
mod reactions;
mod requests;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use fault::{Fault, NoFault, Side};
use hyper::{Request, Response};
use jiff::{SignedDuration, Timestamp};
use rand::{SeedableRng, rngs::StdRng};
pub use reactions::job_in;
pub use requests::Requests;
use tokio::sync::{Notify, watch as watched};
pub use watch::Watch;

pub use super::process::Phase;
use super::{
    clock::{Clock, shift},
    github::{GitHub, JobSpec, Parcel, Trigger},
    nomad::Nomad,
    process::Process,
};

/// The maximum length of the timeline. The oldest lines are dropped.
const LONGEST_TIMELINE: usize = 20_000;
/// More steps than this at one instant indicate a mistake in a side's `next_event`. The instant is then left.
const MOST_STEPS: usize = 100_000;

/// How the processes behave. The ranges are minimum and maximum. The seed chooses between them.
#[derive(Clone, Debug)]
pub struct Options {
    /// Determines the times below.
    pub seed: u64,
    /// From a task's start to its connection.
    pub start_up: (Duration, Duration),
    /// From a refused connection to the end of the task.
    pub give_up: (Duration, Duration),
    /// From the end of an ephemeral runner's job to the end of the task.
    pub wind_down: (Duration, Duration),
    /// From the kill signal to the end of the task.
    pub stop: (Duration, Duration),
    /// The share of processes that hang and never connect: 0 none, 1 all.
    pub hangs: f64,
    /// How far GitHub's clock is ahead of the true one.
    pub github_skew: SignedDuration,
    /// How far Nomad's clock is ahead of the true one.
    pub nomad_skew: SignedDuration,
}

impl Default for Options {
    fn default() -> Self {
        let seconds = |from: u64, to: u64| (Duration::from_secs(from), Duration::from_secs(to));
        Options {
            seed: 1,
            start_up: seconds(1, 3),
            give_up: seconds(2, 5),
            wind_down: (Duration::from_millis(200), Duration::from_secs(1)),
            stop: (Duration::from_millis(100), Duration::from_millis(500)),
            hangs: 0.0,
            github_skew: SignedDuration::ZERO,
            nomad_skew: SignedDuration::ZERO,
        }
    }
}

/// Something that must never happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// When.
    pub time: Timestamp,
    /// The Nomad job.
    pub nomad_job: String,
    /// The runner's name.
    pub runner: String,
    /// The GitHub job that failed for it.
    pub job: u64,
    /// What ended the runner.
    pub reason: String,
}

/// The true state of a live runner process.
#[derive(Clone, Debug)]
pub struct LiveRunner {
    /// The allocation it belongs to.
    pub allocation: String,
    /// The Nomad job's namespace.
    pub namespace: String,
    /// The Nomad job's ID.
    pub nomad_job: String,
    /// Its state.
    pub phase: Phase,
    /// Its ID at GitHub, once connected.
    pub runner: Option<u64>,
    /// The GitHub job that it runs.
    pub job: Option<u64>,
    /// The GitHub job it was started for: `job_id` in a Meta value that is JSON.
    pub job_id: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Connect,
    Exit(i64),
    Stop,
}

/// The whole world. All its methods are synchronous. Its locks are never held across an await.
pub struct World {
    /// The simulated GitHub. Call [`World::touch`] after changing it directly.
    pub github: GitHub,
    /// The simulated Nomad. Call [`World::touch`] after changing it directly.
    pub nomad: Nomad,
    /// True time.
    pub clock: Clock,
    /// The faults.
    pub fault: Box<dyn Fault>,
    options: Options,
    rng: StdRng,
    processes: BTreeMap<String, Process>,
    timers: BTreeSet<(Timestamp, String, u64, Step)>,
    rounds: u64,
    timeline: VecDeque<(Timestamp, String)>,
    violations: Vec<Violation>,
    webhooks: VecDeque<(u64, &'static str)>,
    requests: Requests,
    changed: Arc<Notify>,
    posted: Arc<Notify>,
    moved: watched::Sender<u64>,
    watch: Option<Box<dyn Watch>>,
    records: bool,
}

/// A world shared by servers, the driver and tests.
pub type Shared = Arc<Mutex<World>>;

/// Locks the world. A panic elsewhere does not make it unusable, because tests want to inspect it then.
pub fn lock(shared: &Shared) -> MutexGuard<'_, World> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Advances the world until `shutdown`: sleeps until the next event, then advances to it.
pub async fn drive(shared: Shared, shutdown: impl Future<Output = ()>) {
    let mut shutdown = std::pin::pin!(shutdown);
    let changed = Arc::clone(&lock(&shared).changed);
    loop {
        let wake = {
            let mut world = lock(&shared);
            let now = world.clock.now();
            world.advance(now);
            world.next_event().map(|time| world.clock.instant(time))
        };
        let sleep = async {
            match wake {
                Some(wake) => tokio::time::sleep_until(wake).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = &mut shutdown => return,
            () = changed.notified() => {}
            () = sleep => {}
        }
    }
}

impl World {
    /// A world with these two sides.
    pub fn new(github: GitHub, nomad: Nomad, clock: Clock, options: Options) -> World {
        World {
            github,
            nomad,
            clock,
            fault: Box::new(NoFault),
            rng: StdRng::seed_from_u64(options.seed ^ 0x0077_6f72_6c64),
            options,
            processes: BTreeMap::new(),
            timers: BTreeSet::new(),
            rounds: 0,
            timeline: VecDeque::new(),
            violations: Vec::new(),
            webhooks: VecDeque::new(),
            requests: Requests::default(),
            changed: Arc::new(Notify::new()),
            posted: Arc::new(Notify::new()),
            moved: watched::Sender::new(0),
            watch: None,
            records: false,
        }
    }

    /// The same, ready to be shared.
    pub fn shared(self) -> Shared {
        Arc::new(Mutex::new(self))
    }

    /// The time that GitHub's clock shows at a true time.
    pub fn github_time(&self, now: Timestamp) -> Timestamp {
        shift(now, self.options.github_skew)
    }

    /// The time that Nomad's clock shows at a true time.
    pub fn nomad_time(&self, now: Timestamp) -> Timestamp {
        shift(now, self.options.nomad_skew)
    }

    /// The processes' behaviour, to change it.
    pub fn options_mut(&mut self) -> &mut Options {
        &mut self.options
    }

    /// One HTTP exchange with a side at this true time, including all its consequences.
    pub fn handle(&mut self, side: Side, request: &Request<Bytes>, now: Timestamp) -> Response<Bytes> {
        self.advance(now);
        self.watched(|watch, world| watch.asked(world, side, request, now));
        let response = match side {
            Side::GitHub => self.github.handle(request, shift(now, self.options.github_skew)),
            Side::Nomad => self.nomad.handle(request, shift(now, self.options.nomad_skew)),
        };
        let changed = self.absorb(now) || request.method() != hyper::Method::GET;
        self.watched(|watch, world| {
            watch.answered(world, side, request, &response, now);
            if changed {
                watch.stepped(world, now);
            }
        });
        self.changed.notify_one();
        response
    }

    /// A request takes effect after its client has stopped waiting for a response.
    pub fn takes_effect_late(&mut self, side: Side, request: &Request<Bytes>) {
        let now = self.clock.now();
        let response = self.handle(side, request, now);
        let (method, path, status) = (request.method(), request.uri().path(), response.status());
        self.note(now, format!("LATE  {} {method} {path} takes effect: {}", side.name(), status.as_u16()));
    }

    /// What happens before a request takes effect.
    pub(super) fn meanwhile(&mut self, side: Side, request: &Request<Bytes>) {
        let mut fault = std::mem::replace(&mut self.fault, Box::new(NoFault));
        fault.meanwhile(self, side, request);
        self.fault = fault;
    }

    /// Starts a workflow run now. `None` if the repository does not exist.
    pub fn queue_run(&mut self, repository: u64, jobs: Vec<JobSpec>) -> Option<u64> {
        self.queue_run_by(Trigger::Push, repository, jobs)
    }

    /// The same, with this trigger.
    pub fn queue_run_by(&mut self, trigger: Trigger, repository: u64, jobs: Vec<JobSpec>) -> Option<u64> {
        let now = self.clock.now();
        self.advance(now);
        let run = self.github.queue_run_by(trigger, repository, jobs, self.github_time(now));
        self.touch();
        run
    }

    /// To be called after a change from outside. Processes its consequences and wakes the driver.
    pub fn touch(&mut self) {
        let now = self.clock.now();
        self.absorb(now);
        self.watched(|watch, world| watch.stepped(world, now));
        self.changed.notify_one();
    }

    /// Processes everything that happens up to a true time, in order.
    pub fn advance(&mut self, now: Timestamp) {
        for _ in 0..MOST_STEPS {
            let Some(next) = self.next_event().filter(|next| *next <= now) else { break };
            self.step(next);
        }
        self.step(now);
    }

    fn step(&mut self, now: Timestamp) {
        self.github.advance(self.github_time(now));
        self.nomad.advance(self.nomad_time(now));
        let mut changed = self.absorb(now);
        while let Some(timer) = self.timers.first().filter(|timer| timer.0 <= now).cloned() {
            self.timers.remove(&timer);
            let (_, allocation, round, step) = timer;
            if self.processes.get(&allocation).is_some_and(|process| process.round == round) {
                self.take_step(&allocation, step, now);
                self.absorb(now);
                changed = true;
            }
        }
        if changed {
            self.watched(|watch, world| watch.stepped(world, now));
        }
    }

    /// When the next event happens, in true time.
    pub fn next_event(&self) -> Option<Timestamp> {
        let github = self.github.next_event().map(|time| shift(time, -self.options.github_skew));
        let nomad = self.nomad.next_event().map(|time| shift(time, -self.options.nomad_skew));
        let own = self.timers.first().map(|timer| timer.0);
        [github, nomad, own].into_iter().flatten().min()
    }

    /// Processes what happened on both sides until nothing more follows from it. Returns whether anything
    /// happened.
    fn absorb(&mut self, now: Timestamp) -> bool {
        let mut changed = false;
        for _ in 0..MOST_STEPS {
            let github = self.github.take_events();
            let nomad = self.nomad.take_events();
            if github.is_empty() && nomad.is_empty() {
                break;
            }
            changed = true;
            for event in github {
                self.github_event(event, now);
            }
            for event in nomad {
                self.task_event(event, now);
            }
        }
        if self.github.has_parcels() {
            self.posted.notify_one();
        }
        let index = self.nomad.index();
        self.moved.send_if_modified(|known| std::mem::replace(known, index) != index);
        changed
    }

    /// Notifies event streams when Nomad's index has changed.
    pub(super) fn nomad_moved(&self) -> watched::Receiver<u64> {
        self.moved.subscribe()
    }

    /// Ends all open event streams, like a restarting agent.
    pub fn end_streams(&mut self) {
        self.moved = watched::Sender::new(self.nomad.index());
    }

    /// What happened, oldest first, in true time; the latest twenty thousand lines.
    pub fn timeline(&self) -> impl Iterator<Item = &(Timestamp, String)> {
        self.timeline.iter()
    }

    /// Busy runners that were killed. A correct daemon never causes one. A requested lost node or crash does.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Notifies when a webhook is to be delivered.
    pub(super) fn posted(&self) -> Arc<Notify> {
        Arc::clone(&self.posted)
    }

    /// The webhooks to be delivered, each with its delay, as decided by the fault.
    pub fn take_parcels(&mut self) -> Vec<(Duration, Parcel)> {
        let now = self.clock.now();
        let parcels = self.github.take_parcels();
        parcels.into_iter().flat_map(|parcel| self.fault.carry(parcel, now)).collect()
    }

    /// The webhooks that GitHub would have sent since the last call: a job's ID and the action.
    pub fn take_webhooks(&mut self) -> Vec<(u64, &'static str)> {
        self.webhooks.drain(..).collect()
    }

    /// The live runner processes.
    pub fn live_runners(&self) -> Vec<LiveRunner> {
        let live = |process: &Process| {
            let job = process.runner.and_then(|runner| self.github.running_job(runner));
            LiveRunner {
                allocation: process.allocation.clone(),
                namespace: process.namespace.clone(),
                nomad_job: process.nomad_job.clone(),
                phase: if job.is_some() && process.phase == Phase::Listening {
                    Phase::Working
                } else {
                    process.phase
                },
                runner: process.runner,
                job: job.map(|job| job.id),
                job_id: process.job_id,
            }
        };
        self.processes.values().map(live).collect()
    }

    /// The number of live runner processes for each GitHub job.
    pub fn live_by_job(&self) -> BTreeMap<u64, usize> {
        let mut counts = BTreeMap::new();
        for job_id in self.processes.values().filter_map(|process| process.job_id) {
            *counts.entry(job_id).or_insert(0) += 1;
        }
        counts
    }

    /// The number of requests for each route.
    pub fn requests(&self) -> &Requests {
        &self.requests
    }

    pub(super) fn count(&mut self, side: Side, request: &Request<Bytes>) {
        self.requests.count(side, request);
    }

    /// Resets the counts of requests.
    pub fn reset_requests(&mut self) {
        self.requests = Requests::default();
    }
}
