//! The invariants of DESIGN.md, checked against the world's truth at every step and request.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use githubrunner::model::is_ours_by_name;
use githubrunner::sim::chaos::exchange::Trouble;
use githubrunner::sim::chaos::mishap::Place;
use githubrunner::sim::chaos::scenario::{Mode, Scenario, Woe, is_servable};
use githubrunner::sim::fault::Side;
use githubrunner::sim::github::{Job, Status};
use githubrunner::sim::nomad;
use githubrunner::sim::world::{LiveRunner, Phase, Watch, World};
use hyper::{Method, Request, Response};
use jiff::{SignedDuration, Timestamp};
use percent_encoding::percent_decode_str;
use serde_json::Value;
use tokio::sync::Notify;

use super::daemon::{META, PREFIX};
use super::secrets::secret_in;

/// What was found wrong, oldest first; somebody is told of the first.
#[derive(Clone, Default)]
pub struct Findings {
    lines: Arc<Mutex<Vec<String>>>,
    /// Told of each.
    pub told: Arc<Notify>,
}

impl Findings {
    /// Something is wrong.
    pub fn add(&self, now: Timestamp, what: String) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() < 10 {
            lines.push(format!("{now} {what}"));
        }
        self.told.notify_one();
    }

    /// All that is wrong.
    pub fn all(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One of our runners, by its Nomad job.
#[derive(Default)]
struct Fate {
    cause: u64,
    /// When it last could not take its job: busy, dead, stopping, disconnected, unregistered.
    unavailable_at: Option<Timestamp>,
}

/// What is watched.
pub struct Truth {
    place: Place,
    caps: [Option<usize>; 3],
    mode: Mode,
    slack: SignedDuration,
    fates: BTreeMap<String, Fate>,
    secrets: Vec<String>,
    findings: Findings,
    /// How many runners were registered in Nomad.
    pub starts: usize,
}

impl Truth {
    /// A watch on a scenario's world.
    pub fn new(scenario: &Scenario, place: Place, findings: Findings) -> Truth {
        Truth {
            caps: scenario.settings.caps,
            mode: scenario.settings.mode,
            slack: slack(scenario),
            fates: BTreeMap::new(),
            secrets: Vec::new(),
            place,
            findings,
            starts: 0,
        }
    }

    fn wrong(&self, now: Timestamp, what: String) {
        self.findings.add(now, what);
    }

    /// A runner is to be stopped or purged: it must be ours, and not busy.
    fn deregisters(&mut self, world: &World, name: &str, purge: bool, now: Timestamp) {
        if !self.fates.contains_key(name) {
            return self.wrong(now, format!("a job that is not ours is stopped or purged: {name}"));
        }
        for live in world.live_runners().iter().filter(|live| live.nomad_job == name) {
            if purge && live.phase != Phase::Ending {
                self.wrong(now, format!("{name} is purged while its process runs"));
            }
            if live.phase != Phase::Ending && has_job(world, live) {
                self.wrong(now, format!("a busy runner is stopped: {name}"));
            }
        }
    }

    fn deletes_variable(&mut self, world: &World, name: &str, now: Timestamp) {
        if !self.fates.contains_key(name) {
            return self.wrong(now, format!("a variable that is not ours is deleted: {name}"));
        }
        let live = allocations(world, &self.place, name).any(|allocation| !allocation.client_terminal());
        if live {
            self.wrong(now, format!("the variable of {name} is deleted while it has an allocation"));
        }
    }

    fn deletes_registration(&mut self, world: &World, id: u64, now: Timestamp) {
        let Some(runner) = world.github.runner(id) else { return };
        if !self.fates.contains_key(&runner.name) {
            self.wrong(now, format!("a registration that is not ours is deleted: {}", runner.name));
        }
    }

    /// A runner is to be registered in Nomad.
    fn registers(&mut self, world: &World, body: &Value, now: Timestamp) {
        let name = body["Job"]["ID"].as_str().unwrap_or_default();
        let known = world.nomad.job(&self.place.namespace, name).is_some();
        if body["EnforceIndex"] != true || body["JobModifyIndex"] != 0 {
            self.wrong(now, format!("{name} is registered without EnforceIndex 0"));
        }
        let meta = body["Job"]["Meta"][META].as_str().unwrap_or_default();
        let meta: Value = serde_json::from_str(meta).unwrap_or_default();
        let Some(cause) = meta["job_id"].as_u64() else {
            return self.wrong(now, format!("{name} has no cause in its Meta: {meta}"));
        };
        if known {
            return;
        }
        match world.github.job(cause) {
            None => self.wrong(now, format!("{name} is started for job {cause}, which is not there")),
            Some(job) => self.has_cause(world, name, &meta, job, now),
        }
        for (other, fate) in self.fates.iter().filter(|(other, fate)| fate.cause == cause && *other != name) {
            let recently = fate.unavailable_at.is_some_and(|at| now.duration_since(at) <= self.slack);
            if self.is_available(world, other) && !recently {
                self.wrong(now, format!("{name} is started for job {cause}, which has {other} already"));
            }
        }
    }

    fn has_cause(&self, world: &World, name: &str, meta: &Value, job: &Job, now: Timestamp) {
        let wrong = |what: &str| self.wrong(now, format!("{name} is started for job {}, {what}", job.id));
        if meta["repo_id"].as_u64() != Some(job.repository) {
            wrong("of another repository");
        }
        let mut labels: Vec<String> = job.labels.iter().map(|label| label.to_lowercase()).collect();
        labels.sort();
        labels.dedup();
        if meta["labelsstr"].as_str().unwrap_or_default().to_lowercase() != labels.join(",") {
            wrong(&format!("with other labels: {} for {labels:?}", meta["labelsstr"]));
        }
        if !is_servable(&job.labels) {
            wrong("whose labels no runner may have");
        }
        let left_queue = match job.status {
            Status::Queued => return,
            Status::InProgress => Some(job.started_at),
            Status::Completed if job.runner.is_some() => Some(job.started_at),
            Status::Completed => job.completed_at,
            _ => None,
        };
        let at = world.github_time(now);
        match left_queue {
            None => wrong("which was never queued"),
            Some(left) if at.duration_since(left) > self.slack => {
                wrong(&format!("which left the queue at {left}"));
            }
            Some(_) => {}
        }
    }

    /// The caps count what is not dead; a registration must not go over them.
    fn was_registered(&mut self, world: &World, request: &Request<Bytes>, now: Timestamp) {
        let body: Value = serde_json::from_slice(request.body()).unwrap_or_default();
        let name = body["Job"]["ID"].as_str().unwrap_or_default().to_owned();
        let meta: Value =
            serde_json::from_str(body["Job"]["Meta"][META].as_str().unwrap_or_default()).unwrap_or_default();
        let cause = meta["job_id"].as_u64().unwrap_or_default();
        self.fates.insert(name.clone(), Fate { cause, unavailable_at: None });
        self.starts += 1;

        let group = |meta: &Value| (meta["repo_id"].clone(), meta["labelsstr"].to_string().to_lowercase());
        let live: Vec<Value> = world
            .nomad
            .jobs()
            .filter(|job| job.namespace == self.place.namespace && self.fates.contains_key(&job.id))
            .filter(|job| is_live(world, &self.place, job))
            .map(|job| {
                serde_json::from_str(job.meta.get(META).map_or("", String::as_str)).unwrap_or_default()
            })
            .collect();
        let counts = [
            live.len(),
            live.iter().filter(|other| other["repo_id"] == meta["repo_id"]).count(),
            live.iter().filter(|other| group(other) == group(&meta)).count(),
        ];
        for ((cap, count), what) in
            self.caps.iter().zip(counts).zip(["", " of its repository", " of its group"])
        {
            if cap.is_some_and(|cap| count > cap) {
                self.wrong(now, format!("{name} is one of {count} runners{what}, over the cap"));
            }
        }
    }

    /// Whether a runner could take its job now or soon.
    fn is_available(&self, world: &World, name: &str) -> bool {
        let Some(job) = world.nomad.job(&self.place.namespace, name) else { return false };
        let mut seen = false;
        let mut running = false;
        for allocation in allocations(world, &self.place, name) {
            seen = true;
            let heard_of = matches!(allocation.client_status, "pending" | "running");
            running |= heard_of && allocation.desired_status == "run";
            if allocation.client_status == "lost" || allocation.desired_description.contains("lost") {
                return false;
            }
        }
        if job.stop || (seen && !running) || (!seen && job.status == "dead") {
            return false;
        }
        let process = world.live_runners().into_iter().find(|live| live.nomad_job == name);
        match process {
            Some(live) => {
                let idle = matches!(live.phase, Phase::Starting | Phase::Listening);
                idle && !has_job(world, &live) && (live.phase == Phase::Starting || live.runner.is_some())
            }
            // Its secret may be of no use any more.
            None => {
                self.mode == Mode::Token || !self.has_variable(world, name) || self.is_listed(world, name)
            }
        }
    }

    fn has_variable(&self, world: &World, name: &str) -> bool {
        world
            .nomad
            .variables()
            .any(|variable| variable.path.strip_prefix("nomad/jobs/").is_some_and(|of| of == name))
    }

    fn is_listed(&self, world: &World, name: &str) -> bool {
        world.github.runners().any(|runner| runner.name == name)
    }

    fn look_for_secrets(&mut self, side: Side, request: &Request<Bytes>, now: Timestamp) {
        let path = request.uri().path();
        if side == Side::Nomad && path.starts_with("/v1/var/nomad/jobs/") {
            return;
        }
        for (place, text) in
            [("address", request.uri().to_string().as_bytes()), ("body", request.body().as_ref())]
        {
            if secret_in(text, &self.secrets).is_some() {
                self.wrong(now, format!("a secret in the {place} of {} {path}", request.method()));
            }
        }
    }
}

/// How long ago what a pass saw may have been so: the pass itself, with its retries, and what answers lag.
fn slack(scenario: &Scenario) -> SignedDuration {
    use Trouble::{Lag, Stall};
    let slow = scenario.woes.iter().any(|woe| match woe {
        Woe::Exchange(_) | Woe::Leaderless | Woe::Deaths => true,
        // A run that is not listed yet is not followed yet.
        Woe::RunLag => true,
        _ => false,
    });
    let lag = scenario.has(Woe::Exchange(Lag)) || scenario.has(Woe::Exchange(Stall));
    SignedDuration::from_secs(match (slow, lag) {
        (_, true) => 600,
        (true, false) => 300,
        (false, false) => 15,
    })
}

/// Whether a runner works on a job, or was offered one.
fn has_job(world: &World, live: &LiveRunner) -> bool {
    live.job.is_some()
        || live.runner.and_then(|id| world.github.runner(id)).is_some_and(|runner| runner.job.is_some())
}

fn allocations<'a>(
    world: &'a World,
    place: &'a Place,
    name: &'a str,
) -> impl Iterator<Item = &'a nomad::Allocation> {
    world
        .nomad
        .allocations()
        .filter(move |allocation| allocation.namespace == place.namespace && allocation.job_id == name)
}

/// Whether it counts against the caps: an allocation is not over, or there is none yet.
fn is_live(world: &World, place: &Place, job: &nomad::Job) -> bool {
    let mut seen = false;
    for allocation in allocations(world, place, &job.id) {
        seen = true;
        if !allocation.client_terminal() {
            return true;
        }
    }
    !seen && !job.stop && job.status != "dead"
}

impl Watch for Truth {
    fn asked(&mut self, world: &World, side: Side, request: &Request<Bytes>, now: Timestamp) {
        if request.method() == Method::GET {
            return;
        }
        self.look_for_secrets(side, request, now);
        let path = percent_decode_str(request.uri().path()).decode_utf8_lossy().into_owned();
        let query = request.uri().query().unwrap_or_default();
        match (side, request.method().as_str()) {
            (Side::Nomad, "DELETE") if path.starts_with("/v1/job/") => {
                let name = path.trim_start_matches("/v1/job/").to_owned();
                self.deregisters(world, &name, query.contains("purge=true"), now);
            }
            (Side::Nomad, "DELETE") if path.starts_with("/v1/var/nomad/jobs/") => {
                let name = path.trim_start_matches("/v1/var/nomad/jobs/").to_owned();
                self.deletes_variable(world, &name, now);
            }
            (Side::Nomad, "DELETE") => self.wrong(now, format!("{path} is deleted")),
            (Side::Nomad, "PUT") if path == "/v1/jobs" => {
                let body = serde_json::from_slice(request.body()).unwrap_or_default();
                self.registers(world, &body, now);
            }
            (Side::Nomad, "PUT") if path.starts_with("/v1/var/") => {
                if !query.split('&').any(|pair| pair == "cas=0") {
                    self.wrong(now, format!("{path} is written without cas=0"));
                }
            }
            (Side::GitHub, "DELETE") => {
                let id = path.rsplit('/').next().and_then(|id| id.parse().ok());
                if let Some(id) = id {
                    self.deletes_registration(world, id, now);
                }
            }
            _ => {}
        }
    }

    fn answered(
        &mut self,
        world: &World,
        side: Side,
        request: &Request<Bytes>,
        response: &Response<Bytes>,
        now: Timestamp,
    ) {
        let path = request.uri().path();
        if !response.status().is_success() {
            return;
        }
        if side == Side::Nomad && request.method() == Method::PUT && path == "/v1/jobs" {
            self.was_registered(world, request, now);
        }
        if side == Side::GitHub && path.ends_with("/registration-token") {
            let body: Value = serde_json::from_slice(response.body()).unwrap_or_default();
            self.secrets.extend(body["token"].as_str().map(str::to_owned));
        }
    }

    fn stepped(&mut self, world: &World, now: Timestamp) {
        let unavailable: Vec<String> =
            self.fates.keys().filter(|name| !self.is_available(world, name)).cloned().collect();
        for name in unavailable {
            if let Some(fate) = self.fates.get_mut(&name) {
                fate.unavailable_at = Some(now);
            }
        }
    }
}

/// What is left that should be gone or done, when all trouble is over.
pub fn left_over(world: &World, place: &Place) -> Vec<String> {
    let mut left = Vec::new();
    for job in world.github.jobs().filter(|job| job.status != Status::Completed) {
        if is_servable(&job.labels) {
            left.push(format!("job {} of {} is {}", job.id, job.repository, job.status.as_str()));
        }
    }
    left.extend(world.our_jobs(place).into_iter().map(|name| format!("Nomad job {name}")));
    // Where the agent and the daemon forgot everything at once, what they knew is another instance's.
    let path = format!("githubrunner/{PREFIX}/instance");
    let instance = world.nomad.variables().find(|variable| variable.path == path);
    let Some(instance) = instance.and_then(|variable| variable.items.get("id")) else { return left };
    let ours = |name: &str| is_ours_by_name(PREFIX, instance, name);
    for variable in world.nomad.variables() {
        if variable.path.strip_prefix("nomad/jobs/").is_some_and(ours) {
            left.push(format!("variable {}", variable.path));
        }
    }
    for runner in world.github.runners().filter(|runner| ours(&runner.name)) {
        left.push(format!("registration {}", runner.name));
    }
    left
}
