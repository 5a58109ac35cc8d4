//! Changes to the world behind the daemon's back.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use githubrunner::model::{JobId, runner_name};
use githubrunner_sim::{
    github::{JobSpec, Leave, Reach, RegisteredAt, Registration, Status},
    nomad::{Exit, Processes, StartFailure},
    world::{Phase, World},
};
use hyper::{Method, Request};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::namesake::Rename;
use crate::{
    deployment::{MARK, MAX_BODY, META, PLANTED, PREFIX, Place, STRANGER, is_planted, meta_of_job},
    faults::{answers::FORGED, labels::is_placeable, races::Interfere},
};

/// A change. If it does not name its target, `pick` chooses one of those that exist then.
#[derive(Clone, Debug)]
pub enum Mishap {
    /// A node loses power.
    NodeCrash { pick: usize },
    /// The servers lose contact with a node; its processes continue.
    NodeCut { pick: usize },
    /// All nodes are reconnected, and accept new work.
    NodesBack,
    /// A node is drained.
    Drain {
        pick: usize,
        /// How long runners may continue.
        deadline: Duration,
    },
    /// The agent restarts without its state.
    RestartEmpty {
        /// It was killed: the processes continue, and nobody knows about them.
        processes: Processes,
    },
    /// `nomad system gc`.
    Collect,
    /// Someone purges a job of ours.
    Purge { pick: usize },
    /// Someone stops a job of ours.
    Stop { pick: usize },
    /// Someone stops an allocation of ours, which is replaced.
    StopAllocation { pick: usize },
    /// Someone restarts an allocation of ours in place.
    RestartAllocation { pick: usize },
    /// Someone deletes a variable of ours.
    DeleteVariable { pick: usize },
    /// A runner runs out of memory.
    OutOfMemory { pick: usize },
    /// A runner's process fails.
    Crash {
        pick: usize,
        /// Its exit code.
        code: i64,
    },
    /// From now on, processes take this long to start.
    SlowImages(Duration),
    /// Self-hosted runners are disabled for a repository, or enabled again.
    RefuseRunners {
        pick: usize,
        /// Disabled.
        yes: bool,
    },
    /// From now on, the processes of one repository's runners take this long to start.
    SlowImagesOf {
        pick: usize,
        /// How long.
        delay: Duration,
    },
    /// From now on, no process can be started.
    StartFailure,
    /// The same, with a very long driver error.
    LongStartFailure,
    /// A neighbour registers jobs that make a list too large, including one that is too large on its own.
    LargeJobs,
    /// A neighbour registers jobs with a hostile Meta.
    HostileMeta {
        /// The runner whose Meta is partly copied.
        pick: usize,
    },
    /// Processes can be started again.
    StartWorks,
    /// The servers lose their leader.
    LeaderLost,
    /// The servers have a leader again.
    LeaderBack,
    /// A repository is renamed.
    Rename { pick: usize },
    /// A repository is archived, or no longer.
    Archive {
        pick: usize,
        /// Archived.
        yes: bool,
    },
    /// A repository is disabled by GitHub, or no longer.
    Disable {
        pick: usize,
        /// Disabled.
        yes: bool,
    },
    /// A repository is made private so that the token cannot access it, or is visible again.
    Hide {
        pick: usize,
        /// Hidden.
        yes: bool,
    },
    /// A repository is deleted.
    DeleteRepository { pick: usize },
    /// A repository is renamed, and someone creates another one under the old name.
    Namesake {
        pick: usize,
        /// The jobs queued there.
        jobs: Vec<JobSpec>,
    },
    /// The other one is deleted, and the first one has its name again.
    NameBack { pick: usize },
    /// A completed run is rerun.
    Rerun { pick: usize },
    /// Someone cancels a run.
    Cancel { pick: usize },
    /// Someone deletes a registration of ours.
    DeleteRegistration { pick: usize },
    /// A foreign runner appears and takes a job.
    ForeignRunner {
        /// Its repository.
        pick: usize,
        /// Its labels.
        labels: Vec<String>,
    },
    /// Someone with only submit-job registers a job with the Meta of one of ours.
    PlantedJob {
        /// The runner whose Meta is copied.
        pick: usize,
    },
    /// GitHub refuses the token, or accepts it again.
    TokenRefused {
        /// Refused.
        yes: bool,
    },
}

/// The name and the Meta of the next attempt, with this one's seal.
fn next_attempt(own: &Value) -> Option<(String, Value)> {
    let (job, attempt) = (own["job_id"].as_u64()?, u32::try_from(own["attempt"].as_u64()?).ok()? + 1);
    let repository = own["repo_url"].as_str()?.strip_prefix("https://github.com/")?;
    let name = runner_name(PREFIX, own["instance"].as_str()?, None, repository, JobId(job), attempt);
    let mut meta = own.clone();
    (meta["attempt"], meta[MARK]) = (json!(attempt), json!(true));
    Some((name, meta))
}

/// The prefix of the names of a repository's runners.
fn names_of(full_name: &str) -> String {
    format!("{PREFIX}-{}-", full_name.replace('/', "-"))
}

/// A neighbour's job, already ended, so that it takes up no room.
fn strange_job(name: &str, meta: &Value) -> Value {
    json!({"Job": {
        "ID": name, "Name": name, "Type": "batch", "Stop": true, "Meta": meta,
        "TaskGroups": [{"Name": "g", "Tasks": [{
            "Name": "t", "Driver": "raw_exec", "Config": {"command": "sleep"},
            "Resources": {"CPU": 1, "MemoryMB": 10},
        }]}],
    }})
}

/// What a neighbour may write instead of a Meta, using what it can know of this one.
fn hostile_metas(own: &Value) -> Vec<String> {
    let with = |changes: Value| {
        let mut meta = own.clone();
        for (key, value) in changes.as_object().into_iter().flatten() {
            meta[key] = value.clone();
        }
        meta.to_string()
    };
    vec![
        format!("{{\"labelsstr\": \"{FORGED}"),
        "[".repeat(5_000),
        format!("\u{0}{own}"),
        with(json!({ "labelsstr": ["sim"] })),
        with(json!({ "job_id": "1", "attempt": -1 })),
        with(json!({ "attempt": u64::MAX, "repo_id": 1.5 })),
        with(json!({ "labelsstr": FORGED, "mac": FORGED })),
        with(json!({ "repo_url": format!("https://github.com/{FORGED}/app") })),
        with(json!({ "labelsstr": "sim,".repeat(20_000) })),
        with(json!({ "registration": FORGED })),
        with(json!({ "mac": null })),
        with(json!({ "mac": "A".repeat(20_000) })),
    ]
}

/// One of them.
fn chosen<T: Clone>(all: &[T], pick: usize) -> Option<T> {
    (!all.is_empty()).then(|| all[pick % all.len()].clone())
}

/// Applies a change to nodes and servers.
fn nodes_suffer(world: &mut World, mishap: &Mishap, now: Timestamp) -> Option<String> {
    let nodes: Vec<String> = world.nomad.options().nodes.iter().map(|node| node.name.clone()).collect();
    let at_nomad = world.nomad_time(now);
    match mishap {
        Mishap::NodeCrash { pick } => {
            let node = chosen(&nodes, *pick)?;
            world.nomad.node_crash(&node, at_nomad);
            Some(format!("node {node} loses its power"))
        }
        Mishap::NodeCut { pick } => {
            let node = chosen(&nodes, *pick)?;
            world.nomad.node_down(&node, at_nomad);
            Some(format!("node {node} is not heard of"))
        }
        Mishap::NodesBack => {
            for node in &nodes {
                world.nomad.node_up(node, at_nomad);
                world.nomad.undrain(node, at_nomad);
            }
            Some("all nodes are back".into())
        }
        Mishap::Drain { pick, deadline } => {
            let node = chosen(&nodes, *pick)?;
            world.nomad.drain(&node, *deadline, at_nomad);
            Some(format!("node {node} is drained within {deadline:?}"))
        }
        Mishap::RestartEmpty { processes } => {
            world.nomad.restart_empty(*processes, at_nomad);
            let what = match processes {
                Processes::Continue => "is killed; its processes go on, and it",
                Processes::End => "restarts and",
            };
            Some(format!("the agent {what} has forgotten everything"))
        }
        Mishap::Collect => {
            world.nomad.collect_garbage(at_nomad);
            Some("nomad system gc".into())
        }
        Mishap::LeaderLost => {
            world.nomad.lose_leader(at_nomad);
            Some("the servers have no leader".into())
        }
        Mishap::LeaderBack => {
            world.nomad.elect_leader(at_nomad);
            Some("the servers have a leader".into())
        }
        _ => None,
    }
}

/// Applies a change to a runner's job, allocation, variable or process.
fn runners_suffer(world: &mut World, mishap: &Mishap, place: &Place, now: Timestamp) -> Option<String> {
    let at_nomad = world.nomad_time(now);
    match mishap {
        Mishap::Purge { pick } | Mishap::Stop { pick } => {
            let job = chosen(&world.our_jobs(place), *pick)?;
            if matches!(mishap, Mishap::Purge { .. }) {
                let namespace = place.namespace_of(world, &job).to_owned();
                world.nomad.purge_job(&namespace, &job, at_nomad);
                Some(format!("somebody purges {job}"))
            } else {
                let namespace = place.namespace_of(world, &job).to_owned();
                world.nomad.stop_job(&namespace, &job, at_nomad);
                Some(format!("somebody stops {job}"))
            }
        }
        Mishap::StopAllocation { pick } | Mishap::RestartAllocation { pick } => {
            let ours = world.nomad.allocations().filter(|allocation| {
                place.covers(&allocation.namespace)
                    && place.ours(&allocation.job_id)
                    && !allocation.terminal()
                    && matches!(allocation.client_status, "pending" | "running")
            });
            let ours: Vec<(String, String)> =
                ours.map(|allocation| (allocation.id.clone(), allocation.job_id.clone())).collect();
            let (allocation, job) = chosen(&ours, *pick)?;
            if matches!(mishap, Mishap::StopAllocation { .. }) {
                world.nomad.stop_one(&allocation, at_nomad);
                Some(format!("nomad alloc stop of {job}"))
            } else {
                world.nomad.restart_one(&allocation, at_nomad);
                Some(format!("nomad alloc restart of {job}"))
            }
        }
        Mishap::DeleteVariable { pick } => {
            let ours = world.nomad.variables().filter(|variable| {
                let name = variable.path.strip_prefix("nomad/jobs/");
                place.covers(&variable.namespace) && name.is_some_and(|name| place.ours(name))
            });
            let ours = ours.map(|variable| (variable.namespace.clone(), variable.path.clone()));
            let (namespace, path) = chosen(&ours.collect::<Vec<_>>(), *pick)?;
            world.nomad.delete_variable(&namespace, &path, at_nomad);
            Some(format!("somebody deletes the variable {path}"))
        }
        Mishap::OutOfMemory { pick } | Mishap::Crash { pick, .. } => {
            let live: Vec<(String, String)> = world
                .live_runners()
                .into_iter()
                .filter(|runner| place.ours(&runner.nomad_job))
                .map(|runner| (runner.allocation, runner.nomad_job))
                .collect();
            let (allocation, job) = chosen(&live, *pick)?;
            let exit = match mishap {
                Mishap::Crash { code, .. } => Exit::code(*code),
                _ => Exit::oom(),
            };
            world.crash(&allocation, exit);
            Some(format!("the process of {job} ends: {exit:?}"))
        }
        _ => None,
    }
}

/// Applies a change that affects starts of processes.
fn starts_suffer(world: &mut World, mishap: &Mishap, place: &Place) -> Option<String> {
    let repository = |pick: &usize| chosen(&place.repositories, *pick);
    match mishap {
        Mishap::SlowImages(delay) => {
            world.nomad.set_start_delay("", *delay);
            Some(format!("processes take {delay:?} to start"))
        }
        Mishap::SlowImagesOf { pick, delay } => {
            let full_name = world.github.full_name(repository(pick)?)?;
            world.nomad.set_start_delay(&names_of(&full_name), *delay);
            Some(format!("{full_name}: processes take {delay:?} to start"))
        }
        Mishap::StartFailure => {
            let failure = StartFailure {
                kind: "Driver Failure".into(),
                // A driver quotes a registry's or a shell's message, whatever that is.
                message: "Failed to pull `image`:\r\n\u{1b}[2K ERROR forged \u{202e}no space left".into(),
            };
            world.nomad.set_start_failure("", Some(failure));
            Some("no process can be started".into())
        }
        Mishap::LongStartFailure => {
            let message = format!("{FORGED} {}", "x".repeat(MAX_BODY / 8));
            let failure = StartFailure { kind: "Driver Failure".into(), message };
            world.nomad.set_start_failure("", Some(failure));
            Some("no process can be started, which takes many words".into())
        }
        Mishap::StartWorks => {
            world.nomad.set_start_failure("", None);
            Some("processes can be started again".into())
        }
        _ => None,
    }
}

/// Registers other people's jobs.
fn neighbours_come(world: &mut World, mishap: &Mishap, place: &Place, now: Timestamp) -> Option<String> {
    let repository = |pick: &usize| chosen(&place.repositories, *pick);
    let at_github = world.github_time(now);
    match mishap {
        Mishap::LargeJobs => {
            let sizes = (0..16).map(|_| MAX_BODY / 8).chain([MAX_BODY + 1, MAX_BODY / 8]);
            let registered = sizes.enumerate().filter(|(number, size)| {
                let job = strange_job(&format!("{STRANGER}{number:02}"), &json!({ "x": "x".repeat(*size) }));
                world.put_job(place, &job, now)
            });
            Some(format!("somebody registers {} large jobs", registered.count()))
        }
        Mishap::HostileMeta { pick } => {
            let name = chosen(&world.our_jobs(place), *pick)?;
            let own = meta_of_job(place.job(world, &name)?);
            let registered = hostile_metas(&own).into_iter().enumerate().filter(|(number, meta)| {
                let job = strange_job(&format!("{STRANGER}\u{202e}{number:02}"), &json!({ META: meta }));
                world.put_job(place, &job, now)
            });
            let registered = registered.count();
            // Only its seal distinguishes it from ours: it has the next attempt's name, and everything that
            // belongs into its Meta.
            let next =
                next_attempt(&own).filter(|(name, _)| place.job(world, name).is_none() && place.ours(name));
            let planted = next.is_some_and(|(name, meta)| {
                let job = strange_job(&name, &json!({ META: meta.to_string() }));
                world.put_job(place, &job, now)
            });
            let next = if planted { ", and one under the next attempt's name" } else { "" };
            Some(format!("somebody registers {registered} jobs with a hostile Meta{next}"))
        }
        Mishap::ForeignRunner { pick, labels } => {
            let id = repository(pick)?;
            let full_name = world.github.full_name(id)?;
            let registration = Registration {
                token: place.token.clone(),
                url: format!("https://github.com/{full_name}"),
                name: format!("foreign-{}", world.github.runners().count()),
                labels: labels.clone(),
                default_labels: false,
                ephemeral: true,
                replace: false,
            };
            let runner = world.github.register(&registration, at_github).ok()?;
            world.github.come_online(runner, at_github).ok()?;
            Some(format!("the runner {} comes to {full_name}", registration.name))
        }
        Mishap::PlantedJob { pick } => {
            let ours = world.our_jobs(place);
            let name = ours.get(pick % ours.len().max(1))?;
            let mut spec = (*place.job(world, name)?.spec).clone();
            spec["ID"] = json!(PLANTED);
            spec["Name"] = json!(PLANTED);
            world
                .put_job(place, &json!({ "Job": spec }), now)
                .then(|| format!("somebody registers {PLANTED} with the Meta of {name}"))
        }
        _ => None,
    }
}

/// Applies a change to a repository.
fn repositories_suffer(world: &mut World, mishap: &Mishap, place: &Place, now: Timestamp) -> Option<String> {
    let repository = |pick: &usize| chosen(&place.repositories, *pick);
    let at_github = world.github_time(now);
    match mishap {
        Mishap::RefuseRunners { pick, yes } => {
            let id = repository(pick)?;
            world.github.repository_mut(id)?.refuses_runners = *yes;
            Some(format!("{}: runners are refused: {yes}", world.github.full_name(id)?))
        }
        Mishap::Rename { pick } => {
            let id = repository(pick)?;
            let old = world.github.full_name(id)?;
            let (owner, name) = old.split_once('/')?;
            let new = format!("{owner}/{name}2");
            world.github.rename_repository(id, &new);
            Some(format!("{old} is now {new}"))
        }
        Mishap::Archive { pick, yes } => {
            let id = repository(pick)?;
            world.github.repository_mut(id)?.archived = *yes;
            Some(format!("{}: archived: {yes}", world.github.full_name(id)?))
        }
        Mishap::Disable { pick, yes } => {
            let id = repository(pick)?;
            world.github.repository_mut(id)?.disabled = *yes;
            Some(format!("{}: disabled: {yes}", world.github.full_name(id)?))
        }
        Mishap::DeleteRepository { pick } => {
            let id = repository(pick)?;
            let name = world.github.full_name(id)?;
            world.github.delete_repository(id, at_github);
            Some(format!("{name} is deleted"))
        }
        Mishap::Namesake { pick, jobs } => world.take_name(repository(pick)?, jobs, at_github),
        Mishap::NameBack { pick } => world.give_name_back(repository(pick)?, at_github),
        _ => None,
    }
}

/// Applies a change to what the token and the App can access.
fn access_suffers(world: &mut World, mishap: &Mishap, place: &Place, now: Timestamp) -> Option<String> {
    let repository = |pick: &usize| chosen(&place.repositories, *pick);
    let at_github = world.github_time(now);
    match mishap {
        Mishap::Hide { pick, yes } => {
            let id = repository(pick)?;
            world.github.repository_mut(id)?.private = *yes;
            let hidden = if *yes { BTreeSet::from([id]) } else { BTreeSet::new() };
            world.github.add_token(&place.token, place.token_without(&hidden));
            let shown = place.repositories.iter().copied().filter(|other| !hidden.contains(other));
            let reach = if *yes { Reach::Only(shown.collect()) } else { Reach::All };
            for installation in &place.installations {
                if let Some(installation) = world.github.installation_mut(*installation) {
                    installation.repositories = reach.clone();
                }
            }
            Some(format!("{}: private, out of reach: {yes}", world.github.full_name(id)?))
        }
        Mishap::TokenRefused { yes } => {
            match yes {
                true => world.github.revoke_token(&place.token),
                false => world.github.add_token(&place.token, place.token_without(&BTreeSet::new())),
            }
            for installation in &place.installations {
                if let Some(installation) = world.github.installation_mut(*installation) {
                    installation.suspended_at = yes.then_some(at_github);
                    installation.repositories = Reach::All;
                }
            }
            // While suspended, they answer 403; afterwards the old ones are invalid.
            if !yes {
                world.github.revoke_installation_tokens();
            }
            Some(format!("the token is refused: {yes}"))
        }
        _ => None,
    }
}

/// Applies a change to runs and registrations.
fn runs_suffer(world: &mut World, mishap: &Mishap, place: &Place, now: Timestamp) -> Option<String> {
    let at_github = world.github_time(now);
    match mishap {
        Mishap::Rerun { pick } => {
            let over = world.github.runs().filter(|run| run.status == Status::Completed);
            let run = chosen(&over.map(|run| run.id).collect::<Vec<_>>(), *pick)?;
            world.github.rerun(run, at_github);
            Some(format!("run {run} is run again"))
        }
        Mishap::Cancel { pick } => {
            let active = world.github.runs().filter(|run| run.status != Status::Completed);
            let run = chosen(&active.map(|run| run.id).collect::<Vec<_>>(), *pick)?;
            world.github.cancel_run(run, at_github);
            Some(format!("run {run} is cancelled"))
        }
        Mishap::DeleteRegistration { pick } => {
            let ours = world.github.runners().filter(|runner| place.ours(&runner.name));
            let runners: Vec<(u64, String)> = ours.map(|runner| (runner.id, runner.name.clone())).collect();
            let (id, name) = chosen(&runners, *pick)?;
            let gone = world.github.delete_runner(id, at_github);
            Some(format!("somebody deletes the registration {name}: {gone}"))
        }
        _ => None,
    }
}

/// Applies a change at this time.
fn suffer_at(world: &mut World, mishap: &Mishap, place: &Place, now: Timestamp) -> Option<String> {
    match mishap {
        Mishap::NodeCrash { .. }
        | Mishap::NodeCut { .. }
        | Mishap::NodesBack
        | Mishap::Drain { .. }
        | Mishap::RestartEmpty { .. }
        | Mishap::Collect
        | Mishap::LeaderLost
        | Mishap::LeaderBack => nodes_suffer(world, mishap, now),
        Mishap::Purge { .. }
        | Mishap::Stop { .. }
        | Mishap::StopAllocation { .. }
        | Mishap::RestartAllocation { .. }
        | Mishap::DeleteVariable { .. }
        | Mishap::OutOfMemory { .. }
        | Mishap::Crash { .. } => runners_suffer(world, mishap, place, now),
        Mishap::SlowImages(_)
        | Mishap::SlowImagesOf { .. }
        | Mishap::StartFailure
        | Mishap::LongStartFailure
        | Mishap::StartWorks => starts_suffer(world, mishap, place),
        Mishap::LargeJobs
        | Mishap::HostileMeta { .. }
        | Mishap::PlantedJob { .. }
        | Mishap::ForeignRunner { .. } => neighbours_come(world, mishap, place, now),
        Mishap::RefuseRunners { .. }
        | Mishap::Rename { .. }
        | Mishap::Archive { .. }
        | Mishap::Disable { .. }
        | Mishap::DeleteRepository { .. }
        | Mishap::Namesake { .. }
        | Mishap::NameBack { .. } => repositories_suffer(world, mishap, place, now),
        Mishap::Hide { .. } | Mishap::TokenRefused { .. } => access_suffers(world, mishap, place, now),
        Mishap::Rerun { .. } | Mishap::Cancel { .. } | Mishap::DeleteRegistration { .. } => {
            runs_suffer(world, mishap, place, now)
        }
    }
}

/// Foreign runners leave, and jobs that can never be served are cancelled.
fn the_rest_leaves(world: &mut World, at_github: Timestamp) {
    let foreign: Vec<u64> = world
        .github
        .runners()
        .filter(|runner| runner.name.starts_with("foreign-"))
        .map(|runner| runner.id)
        .collect();
    for runner in foreign {
        world.github.disconnect(runner, Leave::Graceful, at_github);
        world.github.delete_runner(runner, at_github);
    }
    let hopeless: BTreeSet<u64> = world
        .github
        .runs()
        .filter(|run| run.status != Status::Completed && !world.can_be_served(run.repository, run.id))
        .map(|run| run.id)
        .collect();
    for run in hopeless {
        world.github.cancel_run(run, at_github);
    }
}

/// Changes to the world.
pub trait Suffer {
    /// Applies a change. Returns what happened, for the timeline; `None` if there was no target.
    fn suffer(&mut self, mishap: &Mishap, place: &Place) -> Option<String>;

    /// Our jobs, including dead ones.
    fn our_jobs(&self, place: &Place) -> Vec<String>;

    /// The jobs that someone created under names that ours will have.
    fn planted_jobs(&self, place: &Place) -> Vec<String>;

    /// Ends all trouble: nodes and leader are back, processes start, foreign runners leave, and jobs that can
    /// never be served are cancelled.
    fn calm_down(&mut self, place: &Place, start_delay: Duration);

    /// Whether a repository takes jobs, and GitHub assigns those of the run.
    fn can_be_served(&self, repository: u64, run: u64) -> bool;

    /// Where a runner registers, to look it up.
    fn scope_of(&self, repository: u64) -> RegisteredAt;
}

impl Suffer for World {
    fn suffer(&mut self, mishap: &Mishap, place: &Place) -> Option<String> {
        let now = self.clock.now();
        self.advance(now);
        let told = suffer_at(self, mishap, place, now);
        if let Some(told) = &told {
            self.note(now, format!("MISHAP {told}"));
        }
        self.touch();
        told
    }

    fn our_jobs(&self, place: &Place) -> Vec<String> {
        let ours = self
            .nomad
            .jobs()
            .filter(|job| place.covers(&job.namespace) && place.ours(&job.id) && !is_planted(job));
        ours.map(|job| job.id.clone()).collect()
    }

    fn planted_jobs(&self, place: &Place) -> Vec<String> {
        let planted = self.nomad.jobs().filter(|job| place.covers(&job.namespace) && is_planted(job));
        planted.map(|job| job.id.clone()).collect()
    }

    fn calm_down(&mut self, place: &Place, start_delay: Duration) {
        let now = self.clock.now();
        self.suffer(&Mishap::NodesBack, place);
        self.suffer(&Mishap::LeaderBack, place);
        self.suffer(&Mishap::StartWorks, place);
        self.suffer(&Mishap::SlowImages(start_delay), place);
        let path = format!("/v1/job/{PLANTED}?purge=true&namespace={}", place.namespace);
        if let Ok(request) = Request::builder().method(Method::DELETE).uri(path).body(Bytes::new()) {
            let at_nomad = self.nomad_time(now);
            self.nomad.handle(&request, at_nomad);
        }
        self.suffer(&Mishap::TokenRefused { yes: false }, place);
        for pick in 0..place.repositories.len() {
            self.suffer(&Mishap::NameBack { pick }, place);
        }
        let at_github = self.github_time(now);
        for id in &place.repositories {
            if let Some(repository) = self.github.repository_mut(*id) {
                repository.private = false;
                // GitHub does not let anyone remove a disabled repository's runners.
                repository.disabled = false;
                repository.refuses_runners = false;
            }
            if let Some(full_name) = self.github.full_name(*id) {
                self.nomad.set_start_delay(&names_of(&full_name), start_delay);
            }
        }
        for name in self.planted_jobs(place) {
            let namespace = place.namespace_of(self, &name).to_owned();
            self.nomad.purge_job(&namespace, &name, self.nomad_time(now));
        }
        // If GitHub cannot say whether a runner is busy, only its owner can end one that hangs.
        self.options_mut().hangs = 0.0;
        if !place.jit {
            let stuck = self.live_runners().into_iter().filter(|live| live.phase == Phase::Stuck);
            for allocation in stuck.map(|live| live.allocation).collect::<Vec<_>>() {
                self.crash(&allocation, Exit::code(1));
            }
        }
        the_rest_leaves(self, at_github);
        self.touch();
    }

    fn can_be_served(&self, repository: u64, run: u64) -> bool {
        let takes = self
            .github
            .repository(repository)
            .is_some_and(|repository| !(repository.archived || repository.disabled || repository.deleted));
        let placeable = |spec: &JobSpec| spec.labels.iter().all(|label| is_placeable(label));
        let ghost = |spec: &JobSpec| {
            spec.ghost || !placeable(spec) || (spec.held.is_some() && spec.held_for.is_none())
        };
        takes && self.github.run(run).is_some_and(|run| !run.plan.iter().any(ghost))
    }

    fn scope_of(&self, repository: u64) -> RegisteredAt {
        RegisteredAt::Repository(repository)
    }
}
