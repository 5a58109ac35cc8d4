//! The true state of each of our runners.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Deref,
};

use githubrunner_sim::{
    github::Job,
    nomad::{self, TaskPhase},
    world::{LiveRunner, Phase, World},
};
use jiff::Timestamp;
use serde_json::Value;

use crate::{
    deployment::{ELSEWHERE, NAMESPACE, Place, meta_of_job},
    faults::{labels::is_servable, settings::Mode},
};

/// A repository's ID and the labels, lower-cased and sorted.
pub type Group = (u64, String);

/// One of our runners, by its Nomad job.
pub struct Lifecycle {
    /// The GitHub job it was started for; 0 for a warm runner.
    pub job_id: u64,
    /// The entry, if it is a warm runner.
    pub warm: Option<String>,
    /// The number of the attempt.
    pub attempt: u64,
    /// Its group.
    pub group: Group,
    /// The deployment ID that it belongs to.
    pub deployment: Value,
    /// When it was registered in Nomad.
    pub registered_at: Timestamp,
    /// When that was requested, because the response may have been slow.
    pub asked_at: Timestamp,
    /// Whether it can take a job now or soon.
    pub available: bool,
    /// When it was last unavailable: busy, dead, stopping, disconnected, unregistered.
    pub unavailable_at: Option<Timestamp>,
    /// Since when it has been available while its group has more available runners than queued jobs.
    pub surplus_since: Option<Timestamp>,
    /// When that was first the case since it became available: two listings need not see the time in between.
    pub surplus_first: Option<Timestamp>,
    /// When that last ended.
    pub surplus_ended: Option<Timestamp>,
    /// Since when its process has existed and been idle.
    pub idle_since: Option<Timestamp>,
    /// Its process existed but was useless, so another one could be started before its death.
    pub of_no_use: bool,
    /// Whether the daemon counts on it: it is available, or its offered job is not visible yet.
    pub supplies: bool,
    /// How many more runners than queued jobs its group has.
    pub spare: usize,
    /// Whether it has or had an allocation.
    pub placed: bool,
    /// Since when the servers have known it as dead.
    pub dead_since: Option<Timestamp>,
    /// Since when it has had no job in Nomad.
    pub gone_since: Option<Timestamp>,
    /// It had none for a while: someone has registered it again.
    pub is_back: bool,
    /// It was dead for a while and is alive again. GitHub may no longer know it.
    pub is_revived: bool,
}

impl Lifecycle {
    /// The lifecycle of a runner that is being registered with this Meta.
    pub fn new(meta: &Value, now: Timestamp) -> Lifecycle {
        Lifecycle {
            job_id: meta["job_id"].as_u64().unwrap_or_default(),
            warm: meta["warm"]["entry"].as_str().map(str::to_owned),
            attempt: meta["attempt"].as_u64().unwrap_or_default(),
            group: group_of(meta),
            deployment: meta["instance"].clone(),
            registered_at: now,
            asked_at: now,
            available: true,
            unavailable_at: None,
            surplus_since: None,
            surplus_first: None,
            surplus_ended: None,
            idle_since: None,
            of_no_use: false,
            supplies: true,
            spare: 0,
            placed: false,
            dead_since: None,
            gone_since: None,
            is_back: false,
            is_revived: false,
        }
    }
}

/// The group in a Meta.
pub fn group_of(meta: &Value) -> Group {
    let labels = meta["labelsstr"].as_str().unwrap_or_default().split(',').map(str::to_owned);
    (meta["repo_id"].as_u64().unwrap_or_default(), joined(labels))
}

/// The group of a GitHub job.
pub fn group_of_job(job: &Job) -> Group {
    group_of_labels(job.repository, &job.labels)
}

/// The group of a repository's jobs with these labels.
pub fn group_of_labels(repository: u64, labels: &[String]) -> Group {
    (repository, joined(labels.iter().cloned()))
}

/// Labels in the form used for groups.
fn joined(labels: impl IntoIterator<Item = String>) -> String {
    let labels: BTreeSet<String> = labels.into_iter().map(|label| label.to_lowercase()).collect();
    labels.into_iter().collect::<Vec<_>>().join(",")
}

/// The repository that a runner's Nomad job is for, by its ID.
pub fn repository_of(job: &nomad::Job) -> Option<u64> {
    meta_of_job(job)["repo_id"].as_u64()
}

/// The repository's name that the daemon knew when it started the runner, as `owner/name`.
pub fn name_of_repository(job: &nomad::Job) -> Option<String> {
    Some(meta_of_job(job)["repo_url"].as_str()?.trim_start_matches("https://github.com/").to_owned())
}

/// Whether a runner is running a job, or was offered one.
pub fn has_job(world: &World, live: &LiveRunner) -> bool {
    live.job.is_some()
        || live.runner.and_then(|id| world.github.runner(id)).is_some_and(|runner| runner.job.is_some())
}

/// The processes of runners, except for those that have lost their job to another of the same name.
pub fn processes<'a>(world: &'a World, place: &'a Place) -> impl Iterator<Item = LiveRunner> + 'a {
    world.live_runners().into_iter().filter(|live| {
        place.job(world, &live.nomad_job).is_none() || allocation_of(world, place, live).is_some()
    })
}

/// The allocation that a process belongs to, if Nomad still knows it.
pub fn allocation_of<'a>(
    world: &'a World,
    place: &'a Place,
    live: &'a LiveRunner,
) -> Option<&'a nomad::Allocation> {
    allocations(world, place, &live.nomad_job).find(|allocation| allocation.id == live.allocation)
}

/// Whether a runner has or had a process in any of its allocations.
pub fn had_process(world: &World, place: &Place, name: &str) -> bool {
    let mut all = allocations(world, place, name);
    all.any(|allocation| allocation.client_tasks().iter().any(|task| task.started_at.is_some()))
}

/// A job's allocations.
pub fn allocations<'a>(
    world: &'a World,
    place: &'a Place,
    name: &'a str,
) -> impl Iterator<Item = &'a nomad::Allocation> {
    world.nomad.allocations_of(place.namespace_of(world, name), name)
}

/// Whether an allocation was lost with its node.
pub fn is_lost(allocation: &nomad::Allocation) -> bool {
    allocation.client_status == "lost" || allocation.desired_description.contains("lost")
}

/// Whether it counts against the caps: an allocation has not ended, or there is none yet.
pub fn is_live(world: &World, place: &Place, job: &nomad::Job) -> bool {
    let mut seen = false;
    for allocation in allocations(world, place, &job.id) {
        seen = true;
        if !allocation.client_terminal() {
            return true;
        }
    }
    !seen && !job.stop && job.status != "dead"
}

/// Whether Nomad has replaced an ended allocation since then, and only the replacement is alive.
pub fn was_replaced_since(world: &World, place: &Place, name: &str, since: Timestamp) -> bool {
    let is_new = |allocation: &nomad::Allocation| i128::from(allocation.create_time) > since.as_nanosecond();
    let all = || allocations(world, place, name);
    all().any(|allocation| !is_new(allocation))
        && all().filter(|allocation| !allocation.client_terminal()).all(is_new)
}

/// The true state of all our runners.
#[derive(Default)]
pub struct Lifecycles {
    all: BTreeMap<String, Lifecycle>,
    /// Those that can still change; the others have neither a job nor a process.
    open: BTreeSet<String>,
    by_job: BTreeMap<u64, BTreeSet<String>>,
    deployments: Vec<Value>,
    /// A runner that has lost its job can get one again.
    reopen: bool,
}

impl Deref for Lifecycles {
    type Target = BTreeMap<String, Lifecycle>;

    fn deref(&self) -> &Self::Target {
        &self.all
    }
}

impl Lifecycles {
    /// Empty. With `reopen`, a runner that has lost its job can get it back.
    pub fn new(reopen: bool) -> Lifecycles {
        Lifecycles { reopen, ..Lifecycles::default() }
    }

    /// A runner has been registered.
    pub fn insert(&mut self, name: String, lifecycle: Lifecycle) {
        self.open.insert(name.clone());
        self.by_job.entry(lifecycle.job_id).or_default().insert(name.clone());
        if !self.deployments.contains(&lifecycle.deployment) {
            self.deployments.push(lifecycle.deployment.clone());
        }
        self.all.insert(name, lifecycle);
    }

    /// Those that still have a job or a process; no other is available.
    pub fn open(&self) -> impl Iterator<Item = (&String, &Lifecycle)> {
        self.open.iter().filter_map(|name| self.all.get_key_value(name))
    }

    /// Those that were started for this job.
    pub fn of_job(&self, job_id: u64) -> impl Iterator<Item = (&String, &Lifecycle)> {
        self.by_job.get(&job_id).into_iter().flatten().filter_map(|name| self.all.get_key_value(name))
    }

    /// The deployment IDs of all of them.
    pub fn deployments(&self) -> &[Value] {
        &self.deployments
    }

    /// Brings all lifecycles up to date.
    pub fn update(&mut self, world: &World, place: &Place, mode: Mode, now: Timestamp) {
        let live: BTreeMap<String, LiveRunner> =
            processes(world, place).map(|live| (live.nomad_job.clone(), live)).collect();
        // Someone may register again what someone has purged.
        if self.reopen {
            let jobs = world.nomad.jobs().map(|job| &job.id);
            self.open.extend(jobs.filter(|id| self.all.contains_key(*id)).cloned());
        }
        // A client that is cut off from the servers may still start what they have forgotten.
        self.open.extend(live.keys().filter(|name| self.all.contains_key(*name)).cloned());
        let mut supply: BTreeMap<Group, usize> = BTreeMap::new();
        let mut settled = Vec::new();
        for name in &self.open {
            let Some(lifecycle) = self.all.get_mut(name) else { continue };
            let process = live.get(name);
            lifecycle.look(world, place, mode, name, process, now);
            if lifecycle.supplies && lifecycle.warm.is_none() {
                *supply.entry(lifecycle.group.clone()).or_default() += 1;
            }
            if lifecycle.gone_since.is_some() && process.is_none() {
                settled.push(name.clone());
            }
        }
        let demand = demand(world);
        for name in &self.open {
            let Some(lifecycle) = self.all.get_mut(name) else { continue };
            let of = |counts: &BTreeMap<Group, usize>| counts.get(&lifecycle.group).copied().unwrap_or(0);
            lifecycle.spare = of(&supply).saturating_sub(of(&demand));
            let surplus = lifecycle.available && lifecycle.spare > 0 && lifecycle.warm.is_none();
            if !surplus && lifecycle.surplus_since.is_some() {
                lifecycle.surplus_ended = Some(now);
            }
            lifecycle.surplus_since = surplus.then(|| lifecycle.surplus_since.unwrap_or(now));
            lifecycle.surplus_first =
                lifecycle.surplus_first.or(lifecycle.surplus_since).filter(|_| lifecycle.available);
        }
        for name in settled {
            self.open.remove(&name);
        }
    }
}

impl Lifecycle {
    /// Its current state.
    fn look(
        &mut self,
        world: &World,
        place: &Place,
        mode: Mode,
        name: &str,
        process: Option<&LiveRunner>,
        now: Timestamp,
    ) {
        let available = is_available(world, place, mode, name, process);
        if !available || !self.available {
            self.unavailable_at = Some(now);
        }
        self.available = available;
        self.of_no_use |=
            !available && process.is_some_and(|live| live.phase != Phase::Ending && !has_job(world, live));
        // A runner that was offered a job still looks idle to everyone.
        let looks_idle = process.is_some_and(|live| live.phase != Phase::Ending && live.job.is_none());
        self.idle_since = looks_idle.then(|| self.idle_since.unwrap_or(now));
        self.supplies = available || (looks_idle && process.is_some_and(|live| has_job(world, live)));
        self.placed |= allocations(world, place, name).next().is_some();
        let job = place.job(world, name);
        let is_dead = job.is_none_or(|job| !is_live(world, place, job));
        self.is_back |= job.is_some() && self.gone_since.is_some();
        if !is_dead && self.dead_since.is_some() {
            self.registered_at = now;
            self.is_revived = true;
        }
        self.dead_since = is_dead.then(|| self.dead_since.unwrap_or(now));
        self.gone_since = job.is_none().then(|| self.gone_since.unwrap_or(now));
    }
}

/// How many jobs of each group need a runner.
fn demand(world: &World) -> BTreeMap<Group, usize> {
    let mut demand = BTreeMap::new();
    for (repository, labels, line) in world.github.queued().filter(|(_, labels, _)| is_servable(labels)) {
        *demand.entry(group_of_labels(repository, labels)).or_default() += line.len();
    }
    demand
}

/// Whether a runner could take its job now or soon.
fn is_available(world: &World, place: &Place, mode: Mode, name: &str, process: Option<&LiveRunner>) -> bool {
    let Some(job) = place.job(world, name) else { return false };
    let mut seen = false;
    let mut running = false;
    for allocation in allocations(world, place, name) {
        seen = true;
        let heard_of = matches!(allocation.client_status, "pending" | "running");
        // The servers learn of a task's end slightly later.
        let tasks = allocation.client_tasks();
        let over = !tasks.is_empty() && tasks.iter().all(|task| task.phase == TaskPhase::Dead);
        running |= heard_of && !over && allocation.desired_status == "run";
        if is_lost(allocation) {
            return false;
        }
    }
    if job.stop || (seen && !running) || (!seen && job.status == "dead") {
        return false;
    }
    match process {
        Some(live) => {
            // Without its registration, a starting runner will be refused.
            let will_connect =
                || mode != Mode::Jit || world.github.runners().any(|runner| runner.name == name);
            !has_job(world, live)
                && match live.phase {
                    Phase::Starting => will_connect(),
                    Phase::Listening => live.runner.is_some(),
                    _ => false,
                }
        }
        // Its credentials may be useless by now, or GitHub may still think that an earlier runner of the name
        // has a job.
        None => {
            let listed = world.github.runners().find(|runner| runner.name == name);
            // If restarted by hand, it waits for credentials that it had and no longer has.
            let waits_again =
                mode == Mode::Jit && !has_variable(world, name) && had_process(world, place, name);
            !waits_again
                && listed.is_none_or(|runner| runner.job.is_none())
                && (mode != Mode::Jit || !has_variable(world, name) || listed.is_some())
        }
    }
}

/// Whether a runner's variable exists.
pub fn has_variable(world: &World, name: &str) -> bool {
    let path = format!("nomad/jobs/{name}");
    [NAMESPACE, ELSEWHERE].into_iter().any(|namespace| world.nomad.variable(namespace, &path).is_some())
}
