//! Checks the invariants of docs/architecture.md against the world's true state, at every step and request.

mod elsewhere;
mod history;
mod lifecycle;
mod look;
mod prompt;
pub mod replicas;
mod reruns;
pub mod sight;
mod starts;
mod stops;
mod stuck;
mod warm;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use githubrunner::model::is_ours_by_name;
use githubrunner_sim::{
    fault::{Arrived, Sender, Side},
    github::{RegisteredAt, Status},
    keep,
    nomad::{self, TaskPhase},
    world::{LiveRunner, Phase, Watch, World, job_in},
};
use hyper::{Method, Request, Response};
use jiff::{SignedDuration, Timestamp};
use lifecycle::Lifecycles;
use percent_encoding::percent_decode_str;
use replicas::Leases;
use serde_json::Value;
use sight::{List, Sights};
use stops::Known;

use super::secrets::secret_in;
use crate::{
    deployment::{GITHUB_TOKEN, PREFIX, Place, is_elsewhere, is_planted, is_strange},
    faults::{
        answers::HOSTILE,
        kind::FaultKind,
        labels::is_servable,
        mishap::Suffer,
        scenario::Scenario,
        settings::{Mode, Settings},
        subject::subject,
        trouble::Trouble,
    },
    findings::Findings,
};

/// The state of the checks.
pub struct Checker {
    place: Place,
    settings: Settings,
    faults: Vec<FaultKind>,
    caps: [Option<usize>; 3],
    mode: Mode,
    slack: SignedDuration,
    lifecycles: Lifecycles,
    archived: BTreeMap<u64, Timestamp>,
    secrets: Vec<String>,
    findings: Findings,
    leases: Leases,
    sights: Sights,
    /// The repositories that the configuration does not name, by position, and the times from and until.
    left_out: Vec<(usize, Timestamp, Timestamp)>,
    /// GitHub's responses may contain hostile text.
    has_hostile: bool,
    /// Nomad sends events.
    told: bool,
    /// Nothing disturbs the daemon, so it must act promptly and in order.
    quiet: bool,
    /// Only GitHub's lists are slow, so the Nomad side must be prompt.
    slow: bool,
    /// Only the namespace of one class's runners fails, so the others must be served.
    only_elsewhere_fails: bool,
    /// Responses are correct, and one daemon acts all the time.
    steady: bool,
    looked_up: BTreeMap<String, Timestamp>,
    /// When GitHub was last asked about each runner, for any reason.
    asked_for: BTreeMap<String, Timestamp>,
    /// When each daemon last listed Nomad.
    looked: [Looked; 2],
    waits: prompt::Waits,
    looked_at: Timestamp,
    stuck: stuck::Stuck,
    rerun: reruns::Rerun,
    warm: warm::Warmth,
    /// When a daemon last sent Nomad any request.
    asked_nomad_at: Timestamp,
    /// When it last acted, or asked GitHub about a runner.
    acted_at: Timestamp,
}

/// When a daemon listed what.
#[derive(Clone, Default)]
struct Looked {
    jobs: Option<Timestamp>,
    /// The latest, oldest first.
    allocations: VecDeque<Timestamp>,
}

/// This many lists are remembered, because a late effect was decided then.
const LISTS: usize = 64;

/// With more jobs than this, not every step is checked.
const LARGE: usize = 500;

impl Checker {
    /// Checks for a scenario's world.
    pub fn new(scenario: &Scenario, place: Place, findings: Findings) -> Checker {
        Checker {
            settings: scenario.settings.clone(),
            faults: scenario.faults.clone(),
            caps: scenario.settings.caps,
            mode: scenario.settings.mode,
            slack: slack(scenario),
            leases: Leases::new(scenario),
            sights: Sights::new(scenario),
            lifecycles: Lifecycles::new(scenario.has(FaultKind::Meanwhile)),
            archived: BTreeMap::new(),
            secrets: Vec::new(),
            left_out: starts::left_out(scenario),
            has_hostile: [Trouble::Names, Trouble::Secrets]
                .into_iter()
                .any(|trouble| scenario.episodes.iter().any(|episode| episode.trouble == trouble)),
            told: scenario.settings.hints && scenario.nomad.event_buffer > 0,
            quiet: prompt::is_quiet(scenario),
            slow: prompt::is_slow(scenario),
            only_elsewhere_fails: prompt::fails_elsewhere(scenario),
            steady: slack(scenario) <= SignedDuration::from_secs(15) && !scenario.replicas,
            looked_up: BTreeMap::new(),
            asked_for: BTreeMap::new(),
            looked: Default::default(),
            waits: prompt::Waits::default(),
            looked_at: Timestamp::UNIX_EPOCH,
            stuck: stuck::Stuck::new(scenario, &place),
            rerun: reruns::Rerun::default(),
            warm: warm::Warmth::new(scenario),
            asked_nomad_at: Timestamp::UNIX_EPOCH,
            acted_at: Timestamp::UNIX_EPOCH,
            place,
            findings,
        }
    }

    /// Which daemon leads, for others to use.
    pub fn leases(&self) -> Leases {
        self.leases.clone()
    }

    /// What the daemons are shown, for others to use.
    pub fn sights(&self) -> Sights {
        self.sights.clone()
    }

    fn wrong(&self, now: Timestamp, what: String) {
        self.findings.add(now, what);
    }

    /// When the sending daemon had last listed the allocations at the time it sent this, by the servers'
    /// clock.
    fn looked(&self, world: &World, request: &Request<Bytes>, now: Timestamp) -> Timestamp {
        let Arrived(sent) = request.extensions().get().copied().unwrap_or(Arrived(now));
        let mut lists = self.looked[sender(request)].allocations.iter().rev();
        world.nomad_time(lists.find(|list| **list <= sent).copied().unwrap_or(now))
    }

    /// GitHub's names and secrets must be validated before they get anywhere.
    fn look_for_hostile_text(&mut self, side: Side, request: &Request<Bytes>, now: Timestamp) {
        let has = |text: &[u8]| text.windows(HOSTILE.len()).any(|part| part == HOSTILE.as_bytes());
        if has(request.uri().to_string().as_bytes()) || has(request.body()) {
            let (method, path) = (request.method(), request.uri().path());
            let path: String = path.chars().take(100).collect();
            self.wrong(now, format!("hostile text in {method} {} {path}", side.name()));
        }
    }

    fn look_for_secrets(&mut self, side: Side, request: &Request<Bytes>, now: Timestamp) {
        let path = request.uri().path();
        if side == Side::Nomad && path.starts_with("/v1/var/nomad/jobs/") {
            return;
        }
        let mut body = request.body().clone();
        // As in nomadtools: in a job, and nowhere else.
        if self.mode == Mode::AccessToken && side == Side::Nomad && path.starts_with("/v1/jobs") {
            body = String::from_utf8_lossy(&body).replace(GITHUB_TOKEN, "").into();
        }
        for (place, text) in [("address", request.uri().to_string().as_bytes()), ("body", body.as_ref())] {
            if secret_in(text, &self.secrets).is_some() {
                self.wrong(now, format!("a secret in the {place} of {} {path}", request.method()));
            }
        }
    }
}

fn is_large(world: &World) -> bool {
    world.github.count_jobs() > LARGE
}

/// Which list of all our things in Nomad is requested. An action's own check requests one runner's.
fn list(request: &Request<Bytes>) -> Option<List> {
    let query = request.uri().query().filter(|_| request.method() == Method::GET)?;
    match request.uri().path() {
        "/v1/jobs" if query.contains(&format!("prefix={PREFIX}-&")) => Some(List::Jobs),
        "/v1/allocations" if query.contains(&format!("%5E{PREFIX}-%22")) => Some(List::Allocations),
        "/v1/vars" if query.contains(&format!("prefix=nomad%2Fjobs%2F{PREFIX}-&")) => Some(List::Variables),
        _ => None,
    }
}

/// Which registration is to be removed.
fn removed_registration(side: Side, request: &Request<Bytes>) -> Option<u64> {
    let is_removal = side == Side::GitHub && request.method() == Method::DELETE;
    request.uri().path().rsplit('/').next().filter(|_| is_removal)?.parse().ok()
}

/// The sending daemon.
fn sender(request: &Request<Bytes>) -> usize {
    request.extensions().get::<Sender>().map_or(0, |Sender(number)| *number)
}

/// How old a pass's observation may be: the pass itself, with its retries, and the lag of responses.
fn slack(scenario: &Scenario) -> SignedDuration {
    use Trouble::{Lag, Stall};
    let slow = scenario.faults.iter().any(|fault| match fault {
        FaultKind::Exchange(_) | FaultKind::Leaderless | FaultKind::Deaths | FaultKind::Namespaces => true,
        fault if fault.is_of_replicas() => true,
        // A run that is not listed yet is not followed yet.
        FaultKind::RunLag => true,
        _ => false,
    });
    let lag = scenario.has(FaultKind::Exchange(Lag)) || scenario.has(FaultKind::Exchange(Stall));
    SignedDuration::from_secs(match (slow, lag) {
        (_, true) => 600,
        (true, false) => 300,
        (false, false) => 15,
    })
}

impl Checker {
    /// A daemon reads a list or looks for a runner.
    fn read(&mut self, world: &World, side: Side, request: &Request<Bytes>, now: Timestamp) {
        let who = sender(request);
        match list(request) {
            // A further page starts nothing, and the other namespace is read together with the own.
            Some(List::Jobs) if is_elsewhere(request) => self.sights.begins_elsewhere(who),
            Some(List::Jobs) if request.uri().query().is_some_and(|query| query.contains("next_token=")) => {}
            Some(List::Jobs) => {
                self.looked[who].jobs = Some(now);
                self.sights.begins(who, world, now);
            }
            Some(List::Allocations) => {
                keep(&mut self.looked[who].allocations, LISTS, now);
                // An allocation that ends without a process and is to be replaced causes no other event.
                self.lifecycles.update(world, &self.place, self.mode, now);
            }
            _ => {}
        }
        if self.quiet && side == Side::GitHub && request.uri().path().ends_with("/actions/runners") {
            let name = subject(None, side, request).unwrap_or_default();
            self.looks_up(world, &name, now);
            self.asked_for.insert(name, now);
        }
    }

    /// No write is about a job that was planted.
    fn look_for_planted(&mut self, world: &World, side: Side, request: &Request<Bytes>, now: Timestamp) {
        let about = subject(Some(world), side, request);
        let about = about.map(|name| percent_decode_str(&name).decode_utf8_lossy().into_owned());
        // Something that belongs to an earlier runner of the name may still be removed.
        let is_planted = |name: &str| {
            let gives = request.method() != Method::DELETE && request.uri().path() != "/v1/jobs";
            gives && self.place.job(world, name).is_some_and(is_planted)
        };
        if about.is_some_and(|name| is_strange(&name) || is_planted(&name)) {
            self.wrong(
                now,
                format!("a planted job is taken for ours: {} {}", request.method(), request.uri()),
            );
        }
    }

    /// A daemon changes something in Nomad.
    fn written_to_nomad(&mut self, world: &World, request: &Request<Bytes>, now: Timestamp) {
        let path = percent_decode_str(request.uri().path()).decode_utf8_lossy().into_owned();
        let query = request.uri().query().unwrap_or_default();
        match request.method().as_str() {
            "DELETE" if path.starts_with("/v1/job/") => {
                let name = path.trim_start_matches("/v1/job/").to_owned();
                let known = Known {
                    looked: self.looked(world, request, now),
                    unstarted: self.sights.has_read_unstarted(request, &name),
                    removed: self.sights.has_removed(request, &name),
                };
                self.deregisters(world, &name, query.contains("purge=true"), known, now);
            }
            "DELETE" if path.starts_with("/v1/var/nomad/jobs/") => {
                let name = path.trim_start_matches("/v1/var/nomad/jobs/").to_owned();
                self.sights.does(request, |history| history.removes_variable(world, &name));
                self.deletes_variable(world, &name, self.looked(world, request, now), now);
            }
            "DELETE" if reruns::is_mark(&path) => {}
            "DELETE" => self.wrong(now, format!("{path} is deleted")),
            "PUT" if path == "/v1/jobs" => {
                self.registers(world, request, now);
            }
            "PUT" if replicas::is_lock(&path) => {}
            "PUT" if path.starts_with("/v1/var/") && !query.split('&').any(|pair| pair == "cas=0") => {
                self.wrong(now, format!("{path} is written without cas=0"));
            }
            "PUT" if path.starts_with("/v1/var/nomad/jobs/") => {
                self.gets_secret(world, path.trim_start_matches("/v1/var/nomad/jobs/"), now);
            }
            _ => {}
        }
    }

    /// A daemon changes something at GitHub.
    fn written_to_github(&mut self, world: &World, request: &Request<Bytes>, now: Timestamp) {
        let path = percent_decode_str(request.uri().path()).decode_utf8_lossy().into_owned();
        match request.method().as_str() {
            "POST" if path.ends_with("/rerun") => self.reruns(world, &path, now),
            "DELETE" => {
                if let Some(id) = removed_registration(Side::GitHub, request) {
                    self.sights.does(request, |history| history.removes_registration(world, &self.place, id));
                    self.deletes_registration(world, id, now);
                }
            }
            _ => {}
        }
    }
}

impl Watch for Checker {
    fn sent(&mut self, _: &World, side: Side, request: &Request<Bytes>, now: Timestamp) {
        if let Some(wrong) = self.leases.sent(side, request, now) {
            self.wrong(now, wrong);
        }
        if let Some(id) = removed_registration(side, request) {
            self.sights.does(request, |history| history.sends_removal(id));
        }
    }

    fn asked(&mut self, world: &World, side: Side, request: &Request<Bytes>, now: Timestamp) {
        if self.has_hostile {
            self.look_for_hostile_text(side, request, now);
        }
        if side == Side::Nomad {
            self.asked_nomad_at = now;
        }
        if request.method() != Method::GET || request.uri().path().contains("/actions/runners") {
            self.acted_at = now;
        }
        if request.method() == Method::GET {
            self.read(world, side, request, now);
            return;
        }
        self.look_for_secrets(side, request, now);
        self.look_for_planted(world, side, request, now);
        // An allocation that ends without a process causes no event.
        self.lifecycles.update(world, &self.place, self.mode, now);
        match side {
            Side::Nomad => self.written_to_nomad(world, request, now),
            Side::GitHub => self.written_to_github(world, request, now),
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
        if side == Side::GitHub {
            self.has_looked_meanwhile(world, request, now);
        }
        let path = request.uri().path();
        if !response.status().is_success() {
            if let Some(id) = removed_registration(side, request) {
                self.sights.does(request, |history| history.keeps_registration(world, id));
            }
            return;
        }
        if side == Side::Nomad && replicas::is_lock(path) {
            self.leases.kept(request, now);
        }
        if side == Side::Nomad
            && let Some(list) = list(request)
            && !is_large(world)
        {
            self.sights.answers(request, list, world, &self.place, &self.lifecycles);
        }
        if side == Side::Nomad
            && request.method() == Method::DELETE
            && let Some(name) = path.strip_prefix("/v1/job/")
        {
            self.sights.does(request, |history| history.ends(name));
        }
        if side == Side::GitHub && request.method() == Method::GET && path.ends_with("/actions/runners") {
            self.sights.does(request, |history| history.looked_up(world, request));
        }
        if side == Side::Nomad && path.ends_with("/instance") {
            let told: Value = serde_json::from_slice(response.body()).unwrap_or_default();
            let wrong = told["Items"]["id"].as_str().and_then(|id| self.sights.is_told(sender(request), id));
            wrong.into_iter().for_each(|wrong| self.wrong(now, wrong));
        }
        if side == Side::GitHub && path.ends_with("/rerun") {
            self.was_rerun(world, path, now);
        }
        if side == Side::GitHub && path.ends_with("/generate-jitconfig") {
            self.sights.does(request, |history| history.made(response));
        }
        if side == Side::Nomad && request.method() == Method::GET {
            self.sights.reads(world, &self.place, request);
        }
        if side == Side::Nomad && request.method() == Method::PUT && path == "/v1/jobs" {
            self.was_registered(world, request, now);
        }
        if side == Side::GitHub && (path.ends_with("/registration-token") || path.ends_with("/access_tokens"))
        {
            let body: Value = serde_json::from_slice(response.body()).unwrap_or_default();
            self.secrets.extend(body["token"].as_str().map(str::to_owned));
        }
    }

    fn stepped(&mut self, world: &World, now: Timestamp) {
        // With thousands of jobs, not every step is checked; each write still is.
        if is_large(world) && now.duration_since(self.looked_at) < SignedDuration::from_secs(5) {
            return;
        }
        self.looked_at = now;
        self.lifecycles.update(world, &self.place, self.mode, now);
        self.note_archived(world, now);
        self.stuck.look(world, now);
        self.is_prompt(world, now);
        self.is_warm(world, now);
        self.serves_the_others(world, now);
        self.is_passed_over(world, now);
    }
}

/// The repository of a live runner's own job.
fn own_repository(world: &World, live: &LiveRunner) -> Option<u64> {
    Some(world.github.job(live.job_id?)?.repository)
}

/// Whether the repository of its job is gone.
fn is_gone(world: &World, live: &LiveRunner) -> bool {
    own_repository(world, live)
        .is_none_or(|id| world.github.repository(id).is_none_or(|repository| repository.deleted))
}

/// Whether a runner got its credentials while another repository had the deleted one's name. It waits there for a job
/// with its labels. While that repository has active runs, the only thing known about the deleted one is that it is
/// gone.
fn is_strayed(world: &World, live: &LiveRunner) -> bool {
    let scope = live.runner.and_then(|id| world.github.runner(id)).map(|runner| runner.scope);
    let elsewhere = match scope {
        Some(RegisteredAt::Repository(id)) => own_repository(world, live).is_some_and(|own| own != id),
        Some(RegisteredAt::Organization(_)) => true,
        None => false,
    };
    elsewhere && is_gone(world, live)
}

/// What remains that should be gone or done after all trouble is over.
pub fn left_over(world: &World, place: &Place, sights: &Sights) -> Vec<String> {
    // If the agent and the daemon forgot everything at once, what they knew belongs to another deployment.
    let path = format!("githubrunner/{PREFIX}/instance");
    let deployment = world.nomad.variable(&place.namespace, &path);
    let deployment = deployment.and_then(|variable| variable.items.get("id"));
    // A start that takes effect only after that belongs to another deployment too.
    let is_own = |name: &str| deployment.is_none_or(|deployment| is_ours_by_name(PREFIX, deployment, name));
    // If restarted by hand, it waits for a variable that someone has deleted, and nobody can say that it has no
    // job.
    let waits_again = |allocation: &&nomad::Allocation| {
        let mut tasks = allocation.client_tasks().iter();
        place.renamed && tasks.any(|task| task.started_at.is_some() && task.phase == TaskPhase::Waiting)
    };
    // A runner that someone registered again with the seal of a key that the agent has forgotten since belongs to
    // nobody. Alive, it takes up room; dead, it is just left alone, together with anything that has its name.
    let is_nobodys = |name: &str| {
        let job = place.job(world, name);
        job.is_some_and(|job| sights.is_of_a_forgotten_key(world, job))
    };
    let takes_room = |name: &str| {
        let job = place.job(world, name);
        job.is_some_and(|job| lifecycle::is_live(world, place, job))
    };
    let waiting_again = world.nomad.allocations().filter(waits_again);
    let waiting_again = waiting_again.map(|allocation| allocation.job_id.clone());
    let stays: BTreeSet<String> = world
        .live_runners()
        .into_iter()
        .filter(|live| {
            // Under another name, GitHub cannot say whether a runner is busy, so it stays until it has had a job. A
            // runner that hangs and whose repository is gone stays too, because nobody can say that it is not busy.
            place.renamed && live.phase == Phase::Listening
                || live.phase == Phase::Stuck && is_gone(world, live)
                || live.phase == Phase::Listening && is_strayed(world, live)
        })
        .map(|live| live.nomad_job)
        .chain(waiting_again)
        .chain(world.our_jobs(place).into_iter().filter(|name| !is_own(name)))
        .chain(world.our_jobs(place).into_iter().filter(|name| is_nobodys(name) && takes_room(name)))
        .collect();
    let is_unplaced = |name: &str| lifecycle::allocations(world, place, name).next().is_none();
    // What stays may take up others' room, and counts against the caps. A neighbour's copy of one of our jobs takes up room,
    // too.
    let takes_up_room = |job: &nomad::Job| is_planted(job) && lifecycle::is_live(world, place, job);
    let may_be_full = !stays.is_empty() || world.nomad.jobs().any(takes_up_room);
    let no_room = stays.iter().any(|name| is_own(name) && !is_nobodys(name))
        || may_be_full && world.our_jobs(place).iter().any(|name| is_own(name) && is_unplaced(name));
    let mut left = Vec::new();
    for job in world.github.jobs().filter(|job| job.status != Status::Completed) {
        if is_servable(&job.labels) && !no_room && place.repositories.contains(&job.repository) {
            left.push(format!("job {} of {} is {}", job.id, job.repository, job.status.as_str()));
        }
    }
    let waits = |name: &str| may_be_full && is_unplaced(name);
    let jobs = world.our_jobs(place).into_iter();
    let jobs = jobs.filter(|name| !stays.contains(name) && is_own(name) && !waits(name));
    // The newest attempt for a job that gets no place counts its attempts.
    let counts_attempts = |name: &str| no_room && is_for_a_queued_job(world, place, name);
    let jobs =
        jobs.filter(|name| !is_kept(world, place, name) && !is_nobodys(name) && !counts_attempts(name));
    left.extend(jobs.map(|name| format!("Nomad job {name}")));
    let Some(deployment) = deployment else { return left };
    let ours =
        |name: &str| is_ours_by_name(PREFIX, deployment, name) && !stays.contains(name) && !is_nobodys(name);
    for variable in world.nomad.variables() {
        if variable.path.strip_prefix("nomad/jobs/").is_some_and(ours) {
            left.push(format!("variable {}", variable.path));
        }
    }
    left.extend(registrations_left(world, place, ours));
    left
}

/// Whether a runner's job was started for a job that is still queued.
fn is_for_a_queued_job(world: &World, place: &Place, name: &str) -> bool {
    let of = place.job(world, name).and_then(|job| job.meta.values().find_map(|meta| job_in(meta)));
    of.and_then(|id| world.github.job(id)).is_some_and(|job| job.status == Status::Queued)
}

/// Whether a runner's job stays. While an entry of the configuration cannot be resolved, it is unknown whether a
/// repository that it may name still has its jobs. Dead runners of a repository that had another's name for a while and
/// was deleted stay until Nomad collects them.
fn is_kept(world: &World, place: &Place, name: &str) -> bool {
    let is_deleted = |id: u64| world.github.repository(id).is_some_and(|repository| repository.deleted);
    let is_unsure = place.repositories.iter().any(|id| is_deleted(*id));
    let Some(job) = place.job(world, name) else { return false };
    // A runner that has had a process and waits for credentials again was started by hand.
    let was_started = lifecycle::had_process(world, place, name);
    let is_idle = !world.live_runners().iter().any(|live| live.nomad_job == *name);
    let is_over = is_unsure && !lifecycle::is_live(world, place, job) || was_started && is_idle;
    let of = lifecycle::repository_of(job);
    is_over && of.is_some_and(|id| is_deleted(id) && !place.repositories.contains(&id))
}

/// The registrations that should be gone.
fn registrations_left(world: &World, place: &Place, ours: impl Fn(&str) -> bool) -> Vec<String> {
    // A repository that takes no jobs is not polled. GitHub removes a runner that never connects within a
    // day.
    let takes_none = |scope: &RegisteredAt| match scope {
        RegisteredAt::Repository(id) => world.github.repository(*id).is_none_or(|r| r.archived || r.disabled),
        RegisteredAt::Organization(id) => {
            let mut repositories = place.repositories.iter().filter_map(|id| world.github.repository(*id));
            !repositories.any(|r| r.owner == *id && !r.archived && !r.disabled && !r.deleted)
        }
    };
    // A process that Nomad does not know about cannot be stopped by anyone while it is connected.
    let processes = world.live_runners();
    let is_unknown = |live: &LiveRunner| lifecycle::allocation_of(world, place, live).is_none();
    let is_lost = |runner: u64| processes.iter().any(|live| live.runner == Some(runner) && is_unknown(live));
    let registrations = world.github.runners().filter(|runner| !takes_none(&runner.scope));
    let registrations = registrations.filter(|runner| !(runner.online && is_lost(runner.id)));
    let ours = registrations.filter(|runner| ours(&runner.name));
    ours.map(|runner| format!("registration {}", runner.name)).collect()
}
