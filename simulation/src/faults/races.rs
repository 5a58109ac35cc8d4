//! What happens between an observation and an action: just before a request takes effect, to the runner that
//! it is about.

use std::time::Duration;

use bytes::Bytes;
use githubrunner_sim::{
    fault::Side,
    github::Status,
    nomad::Job,
    world::{World, job_in},
};
use hyper::{Method, Request};
use jiff::{SignedDuration, Timestamp};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use crate::{
    deployment::{ELSEWHERE, Place},
    faults::{kind::FaultKind, subject::subject},
};

/// An event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Turn {
    /// The runner's process starts, because its image has been pulled.
    Starts,
    /// The runner's process connects to GitHub, whether or not it hung.
    Connects,
    /// Someone starts the stopped job again: `nomad job start`.
    StartsAgain,
    /// Someone registers the purged job again, unchanged.
    Registers,
    /// The jobs in progress of a run end while it is looked up among the runs in progress, and others of its jobs
    /// are still queued.
    JobsEnd,
}

impl Turn {
    /// All of them.
    pub const ALL: [Turn; 5] =
        [Turn::Starts, Turn::Connects, Turn::StartsAgain, Turn::Registers, Turn::JobsEnd];

    /// The event of a seed.
    pub fn of(seed: u64) -> Turn {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x7475_726e);
        Turn::ALL[rng.random_range(0..Turn::ALL.len())]
    }

    /// The faults without which it hardly ever occurs.
    pub fn needs(self) -> Vec<FaultKind> {
        match self {
            // A runner that is stopped before it has started.
            Turn::Starts => vec![FaultKind::SlowImages, FaultKind::Runs],
            // A process that nobody knows about, that hung, or that idles while a job is queued that GitHub
            // assigns to no runner.
            Turn::Connects => {
                vec![FaultKind::RestartsEmpty, FaultKind::Hangs, FaultKind::Ghosts, FaultKind::Runs]
            }
            Turn::Registers => vec![FaultKind::Purges, FaultKind::Runs],
            Turn::StartsAgain => vec![FaultKind::Runs],
            Turn::JobsEnd => Vec::new(),
        }
    }
}

/// An event that happens once, at the first opportunity that is taken.
#[derive(Clone, Copy, Debug)]
pub struct Race {
    /// The event.
    pub turn: Turn,
    /// Not before this, in true time.
    pub from: Timestamp,
    /// How often an opportunity is taken: 0 never, 1 always.
    pub chance: f64,
}

/// The shortest time between a process's start and its connection.
const SHORTEST_START_UP: SignedDuration = SignedDuration::from_secs(1);

fn is_over(job: &Job) -> bool {
    job.stop && job.status == "dead"
}

/// Whether a request ends a job in Nomad: nothing can be checked between the last read and this.
fn ends(side: Side, request: &Request<Bytes>) -> bool {
    side == Side::Nomad && request.method() == Method::DELETE && request.uri().path().starts_with("/v1/job/")
}

/// What others do to the world between an observation and an action.
pub trait Interfere {
    /// Lets an event happen before this request takes effect, if it applies to the request's subject. Returns a
    /// message for the timeline.
    fn take_turn(
        &mut self,
        turn: Turn,
        place: &Place,
        side: Side,
        request: &Request<Bytes>,
        registered: impl Fn(&str) -> Option<Value>,
    ) -> Option<String>;

    /// A job of ours that was stopped and has ended.
    fn stopped(&self, place: &Place) -> Option<String>;

    fn start_again(&mut self, place: &Place, name: &str, now: Timestamp) -> bool;

    fn register_again(&mut self, place: &Place, name: &str, body: &Value, now: Timestamp) -> bool;

    /// People's actions are not a daemon's, so the checks of the daemons do not see them.
    fn put_job(&mut self, place: &Place, body: &Value, now: Timestamp) -> bool;

    fn jobs_end(&mut self, side: Side, request: &Request<Bytes>) -> Option<String>;
}

impl Interfere for World {
    fn take_turn(
        &mut self,
        turn: Turn,
        place: &Place,
        side: Side,
        request: &Request<Bytes>,
        registered: impl Fn(&str) -> Option<Value>,
    ) -> Option<String> {
        if turn == Turn::JobsEnd {
            return self.jobs_end(side, request);
        }
        let name = match subject(Some(self), side, request) {
            // It takes a while until the job is running again, which happens while GitHub is being polled.
            None if turn == Turn::StartsAgain && side == Side::GitHub => self.stopped(place)?,
            about => about.filter(|name| place.ours(name))?,
        };
        // A missing credential or registration keeps the process from getting a job; otherwise nothing does.
        if ends(side, request) && !place.jit {
            return None;
        }
        let now = self.clock.now();
        let at_nomad = self.nomad_time(now);
        let done = match turn {
            Turn::Starts => {
                let namespace = place.namespace_of(self, &name).to_owned();
                self.nomad.start_now(&namespace, &name, at_nomad).then_some("starts")
            }
            Turn::Connects => self.connect_now(&name, SHORTEST_START_UP).then_some("connects"),
            Turn::StartsAgain => {
                self.start_again(place, &name, now).then_some("is started again by somebody")
            }
            Turn::Registers => {
                let body = registered(&name).filter(|_| !ends(side, request))?;
                self.register_again(place, &name, &body, now).then_some("is registered again by somebody")
            }
            Turn::JobsEnd => None,
        }?;
        self.touch();
        Some(format!("meanwhile {name} {done}"))
    }

    fn stopped(&self, place: &Place) -> Option<String> {
        let is_ours = |job: &&Job| place.covers(&job.namespace) && place.ours(&job.id);
        self.nomad.jobs().filter(is_ours).find(|job| is_over(job)).map(|job| job.id.clone())
    }

    fn start_again(&mut self, place: &Place, name: &str, now: Timestamp) -> bool {
        let job = place.job(self, name).filter(|job| is_over(job));
        let Some(job) = job else { return false };
        let mut spec = (*job.spec).clone();
        spec["Stop"] = json!(false);
        self.put_job(place, &json!({ "Job": spec }), now)
    }

    fn register_again(&mut self, place: &Place, name: &str, body: &Value, now: Timestamp) -> bool {
        if place.job(self, name).is_some() {
            return false;
        }
        // If its job has another runner by now, there would be two, and nobody could prevent it.
        let metas = body["Job"]["Meta"].as_object().into_iter().flat_map(|meta| meta.values());
        let Some(own) = metas.filter_map(Value::as_str).find_map(job_in) else { return false };
        let has_other = self.nomad.jobs().any(|job| job.meta.values().any(|meta| job_in(meta) == Some(own)));
        !has_other && self.put_job(place, body, now)
    }

    fn put_job(&mut self, place: &Place, body: &Value, now: Timestamp) -> bool {
        let elsewhere = body["Job"]["Namespace"] == ELSEWHERE;
        let namespace = if elsewhere { ELSEWHERE } else { &place.namespace };
        let path = format!("/v1/jobs?namespace={namespace}");
        let request = Request::builder().method(Method::PUT).uri(path).body(Bytes::from(body.to_string()));
        let Ok(request) = request else { return false };
        let at_nomad = self.nomad_time(now);
        self.nomad.handle(&request, at_nomad).status().is_success()
    }

    fn jobs_end(&mut self, side: Side, request: &Request<Bytes>) -> Option<String> {
        let path = request.uri().path().strip_prefix("/repos/")?.strip_suffix("/actions/runs")?;
        let in_progress = request.uri().query()?.contains("status=in_progress");
        let repository = self.github.repository_id(path).filter(|_| in_progress && side == Side::GitHub)?;
        let has =
            |run: u64, status: Status| self.github.jobs().any(|job| job.run == run && job.status == status);
        let run = self.github.runs().find(|run| {
            run.repository == repository && has(run.id, Status::InProgress) && has(run.id, Status::Queued)
        })?;
        let run = run.id;
        let at_github = self.github_time(self.clock.now());
        self.github.end_jobs(run, at_github);
        self.touch();
        Some(format!("meanwhile the jobs in progress of run {run} end"))
    }
}

/// An abandoned request, which takes effect when the next one about its runner arrives.
pub(super) struct Held {
    pub side: Side,
    pub request: Request<Bytes>,
    pub subject: String,
    pub until: Timestamp,
}

/// How long a sent request without a response stays on the wire: a closed connection still sends what it has.
pub(super) const HELD_FOR: Duration = Duration::from_secs(60);
