//! The simulated GitHub: repositories, runs, jobs, runners, tokens and Apps as plain data, and the part of
//! the REST API that a runner daemon uses, as one function from request to response.
//!
//! It has no clock: each call takes the time, and [`GitHub::advance`] updates the data to it. All of GitHub's
//! own choices come from one seed. Facts come from the GitHub contract. A section is cited where the
//! behaviour is surprising.

mod actions;
mod apps;
mod auth;
mod data;
mod hooks;
mod http;
mod life;
mod limits;
mod page;
mod queue;
mod reply;
mod routes;
mod runners;
mod session;
mod shapes;
#[cfg(test)]
mod tests;
mod token;
mod webhook;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

pub use apps::{App, Installation};
pub use data::{
    Conclusion, Event, Job, JobRunner, JobSpec, Owner, RegisteredAt, Removal, Repository, Run, Runner,
    RunnerGroup, Status, Trigger,
};
pub use hooks::{Hook, HookPlace, Parcel, sign};
use jiff::Timestamp;
pub use limits::Limited;
use rand::{RngExt, SeedableRng, rngs::StdRng};
pub(crate) use runners::jit_server;
pub use runners::{Leave, Refused, Registration};
pub use token::{Level, Permissions, Reach, Token, permissions};

/// How ETags are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Etags {
    /// As GitHub does: from the headers Accept and Authorization and the body (contract §8).
    #[default]
    OfGitHub,
    /// Unpredictable, as behind a proxy that computes its own.
    Opaque,
}

/// How the simulated GitHub behaves. `Default` behaves like the real one, with a pickup time of a second or
/// two.
#[derive(Clone, Debug)]
pub struct Options {
    /// The version that connected runners report.
    pub runner_version: Option<String>,
    /// When a version stops getting jobs. The newest has no end. Other versions are unknown.
    pub runner_versions: BTreeMap<String, Option<Timestamp>>,
    /// Determines IDs, tokens and which of several matching runners gets a job.
    pub seed: u64,
    /// The prefix of every path: empty, or `/api/v3` as on an Enterprise Server.
    pub path_prefix: String,
    /// The scheme of URLs in responses.
    pub scheme: String,
    /// The base of `html_url`s, without a slash at the end.
    pub web_url: String,
    /// Omits most URLs of repositories and users. Such responses are smaller and sufficient for clients, but
    /// no longer match GitHub's schemas.
    pub lean: bool,
    /// How ETags are computed.
    pub etags: Etags,
    /// The lifetime of installation tokens (contract §3: an hour).
    pub token_life: Duration,
    /// Requests per hour for a user or an installation (contract §3, §4).
    pub rate_limit: u64,
    /// The status of a response beyond a limit: 403 or 429.
    pub limit_status: u16,
    /// Points per minute before the secondary limit (GET 1, others 5; contract §4).
    pub points_a_minute: u64,
    /// The minimum and maximum time from offering a job to a runner until it is in progress.
    pub pickup: (Duration, Duration),
    /// The lifetime of an unused JIT configuration.
    pub jit_expiry: Duration,
    /// A job that is queued for longer fails (contract §6: 24 h).
    pub queue_limit: Duration,
    /// The delay of the index for filtered lists (contract §8: minutes to days at times).
    pub index_lag: Duration,
    /// The delay until a delivery is in its webhook's log (contract §8: minutes at times).
    pub delivery_lag: Duration,
    /// GitHub's own time for one request, of which [`Options::cpu_a_minute`] is the secondary limit; zero: not counted.
    pub cpu_per_request: Duration,
    /// The maximum of GitHub's own time for one client's requests in a minute (contract §8: 90 s).
    pub cpu_a_minute: Duration,
    /// The maximum time by which a run's status lags behind its jobs.
    pub run_lag: Duration,
    /// A run without a job in progress is queued again while one waits for a runner. Otherwise, it stays in progress
    /// once it was (contract §1: a run's status does not reflect its jobs).
    pub requeues: bool,
    /// After this time, a job whose runner vanished fails.
    pub lost_after: Duration,
    /// An ephemeral runner that is offline for longer is removed (contract §7: a day).
    pub stale_after: Duration,
    /// Completed runs are forgotten after this time, which limits the memory (GitHub: 90 days).
    pub keep_runs: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            runner_version: None,
            runner_versions: BTreeMap::new(),
            seed: 1,
            path_prefix: String::new(),
            scheme: "http".to_string(),
            web_url: "https://github.com".to_string(),
            lean: false,
            etags: Etags::default(),
            token_life: Duration::from_secs(3600),
            rate_limit: 5000,
            limit_status: 403,
            points_a_minute: 900,
            pickup: (Duration::from_millis(500), Duration::from_secs(2)),
            jit_expiry: Duration::from_secs(300),
            queue_limit: Duration::from_secs(24 * 3600),
            index_lag: Duration::ZERO,
            delivery_lag: Duration::ZERO,
            cpu_per_request: Duration::ZERO,
            cpu_a_minute: Duration::from_secs(90),
            run_lag: Duration::ZERO,
            requeues: false,
            lost_after: Duration::from_secs(600),
            stale_after: Duration::from_secs(24 * 3600),
            keep_runs: Duration::from_secs(24 * 3600),
        }
    }
}

/// Scheduled events. Entries that no longer apply are ignored when they are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A job of a run's attempt appears.
    Appear { run: u64, attempt: u32, index: usize },
    /// A held job is queued.
    Release { job: u64 },
    /// The runner to which a job was offered starts it.
    Start { job: u64, turn: u32 },
    /// A job in progress ends.
    End { job: u64, turn: u32, conclusion: u8 },
    /// A queued job has waited too long.
    GiveUp { job: u64, turn: u32 },
    /// The index of runs learns a status.
    Index { run: u64, status: Status },
    /// A run's listed status catches up with its jobs.
    Status { run: u64 },
    /// An offline runner may have to be removed.
    Stale { runner: u64 },
    /// A stand-in runner's session may be silent for too long.
    Silence { runner: u64 },
    /// A completed run is forgotten.
    Forget { run: u64, attempt: u32 },
}

/// The simulated GitHub. See the [module](self).
pub struct GitHub {
    options: Options,
    rng: StdRng,
    now: Timestamp,
    next_id: u64,
    owners: BTreeMap<u64, Owner>,
    logins: BTreeMap<String, u64>,
    repositories: BTreeMap<u64, Repository>,
    /// Lower-cased `owner/name` → ID.
    names: BTreeMap<String, u64>,
    /// Lower-cased former `owner/name` → ID.
    former_names: BTreeMap<String, u64>,
    /// Lower-cased `owner/name` → its last repository, and since when if another one had it before.
    meanings: BTreeMap<String, (u64, Option<Timestamp>)>,
    runs: BTreeMap<u64, Run>,
    runs_of: BTreeMap<u64, BTreeSet<u64>>,
    run_numbers: BTreeMap<u64, u64>,
    jobs: BTreeMap<u64, Job>,
    queued: BTreeSet<(Timestamp, u64)>,
    queue: queue::Queue,
    runners: BTreeMap<u64, Runner>,
    groups: Vec<RunnerGroup>,
    idle: BTreeSet<u64>,
    timers: BTreeSet<(Timestamp, Timer)>,
    events: Vec<Event>,
    tokens: BTreeMap<String, Token>,
    apps: BTreeMap<u64, App>,
    installations: BTreeMap<u64, Installation>,
    hooks: BTreeMap<u64, Hook>,
    parcels: VecDeque<Parcel>,
    registration: runners::RegistrationBook,
    limits: limits::Limits,
    sessions: session::Sessions,
}

/// `time` after a duration; the maximum time instead of an overflow.
fn after(time: Timestamp, duration: Duration) -> Timestamp {
    time.checked_add(duration).unwrap_or(Timestamp::MAX)
}

impl GitHub {
    /// An empty GitHub at this time.
    pub fn new(options: Options, now: Timestamp) -> GitHub {
        let rng = StdRng::seed_from_u64(options.seed ^ 0x6769_7468_7562);
        GitHub {
            options,
            rng,
            now,
            next_id: 1_000,
            owners: BTreeMap::new(),
            logins: BTreeMap::new(),
            repositories: BTreeMap::new(),
            names: BTreeMap::new(),
            former_names: BTreeMap::new(),
            meanings: BTreeMap::new(),
            runs: BTreeMap::new(),
            runs_of: BTreeMap::new(),
            run_numbers: BTreeMap::new(),
            jobs: BTreeMap::new(),
            queued: BTreeSet::new(),
            queue: queue::Queue::default(),
            runners: BTreeMap::new(),
            groups: Vec::new(),
            idle: BTreeSet::new(),
            timers: BTreeSet::new(),
            events: Vec::new(),
            tokens: BTreeMap::new(),
            apps: BTreeMap::new(),
            installations: BTreeMap::new(),
            hooks: BTreeMap::new(),
            parcels: VecDeque::new(),
            registration: runners::RegistrationBook::default(),
            limits: limits::Limits::default(),
            sessions: session::Sessions::default(),
        }
    }

    /// Its options.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Changes its options (the web URL once a port is known, a limit in a test).
    pub fn options_mut(&mut self) -> &mut Options {
        &mut self.options
    }

    /// IDs increase with gaps, like GitHub's.
    fn new_id(&mut self) -> u64 {
        self.next_id += self.rng.random_range(1..=9u64);
        self.next_id
    }

    /// Random text of letters and digits.
    fn random_text(&mut self, length: usize) -> String {
        const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        (0..length).map(|_| char::from(LETTERS[self.rng.random_range(0..LETTERS.len())])).collect()
    }

    /// Adds a user. An existing login keeps its ID.
    pub fn add_user(&mut self, login: &str) -> u64 {
        self.add_owner(login, false, &[])
    }

    /// Adds an organization with members, who administer its repositories.
    pub fn add_organization(&mut self, login: &str, members: &[&str]) -> u64 {
        self.add_owner(login, true, members)
    }

    fn add_owner(&mut self, login: &str, organization: bool, members: &[&str]) -> u64 {
        if let Some(id) = self.logins.get(&login.to_lowercase()) {
            return *id;
        }
        let id = self.new_id();
        let members = members.iter().map(|member| member.to_lowercase()).collect();
        let owner = Owner { id, login: login.to_string(), organization, members, created_at: self.now };
        self.owners.insert(id, owner);
        self.logins.insert(login.to_lowercase(), id);
        id
    }

    /// Adds a public repository `owner/name`. An unknown owner becomes a user. An existing repository keeps
    /// its ID.
    pub fn add_repository(&mut self, full_name: &str) -> u64 {
        if let Some(id) = self.names.get(&full_name.to_lowercase()) {
            return *id;
        }
        let (owner, name) = full_name.split_once('/').unwrap_or(("nobody", full_name));
        let owner = self.add_user(owner);
        let id = self.new_id();
        let repository = Repository {
            id,
            owner,
            name: name.to_string(),
            private: false,
            archived: false,
            disabled: false,
            refuses_runners: false,
            deleted: false,
            created_at: self.now,
            pushed_at: Some(self.now),
        };
        self.former_names.remove(&full_name.to_lowercase());
        self.names.insert(full_name.to_lowercase(), id);
        self.note_meaning(full_name, id);
        self.repositories.insert(id, repository);
        id
    }

    /// Adds a runner group to an organization (the default group, 1, always exists).
    pub fn add_runner_group(&mut self, organization: u64, name: &str) -> u64 {
        let id = 1 + self.groups.iter().map(|group| group.id).max().unwrap_or(1);
        self.groups.push(RunnerGroup { id, organization, name: name.to_string() });
        id
    }

    /// Adds a token. Tests choose the text, so that they can search for it.
    pub fn add_token(&mut self, secret: &str, token: Token) {
        self.tokens.insert(secret.to_string(), token);
    }

    /// Removes a token, which then gets 401.
    pub fn revoke_token(&mut self, secret: &str) {
        self.tokens.remove(secret);
    }

    /// The repository with this ID.
    pub fn repository(&self, id: u64) -> Option<&Repository> {
        self.repositories.get(&id)
    }

    /// The repository with this ID, to make it private, archived, disabled, and so on.
    pub fn repository_mut(&mut self, id: u64) -> Option<&mut Repository> {
        self.repositories.get_mut(&id)
    }

    /// The ID of a repository by its current name, in any case.
    pub fn repository_id(&self, full_name: &str) -> Option<u64> {
        self.names.get(&full_name.to_lowercase()).copied()
    }

    /// `owner/name` in its current spelling.
    pub fn full_name(&self, repository: u64) -> Option<String> {
        let repository = self.repositories.get(&repository)?;
        let owner = self.owners.get(&repository.owner)?;
        Some(format!("{}/{}", owner.login, repository.name))
    }

    /// Renames a repository, or transfers it to another owner. The old name then redirects (301).
    pub fn rename_repository(&mut self, id: u64, full_name: &str) {
        let Some(old) = self.full_name(id) else { return };
        let (owner, name) = full_name.split_once('/').unwrap_or(("nobody", full_name));
        let owner = self.add_user(owner);
        self.names.remove(&old.to_lowercase());
        self.former_names.insert(old.to_lowercase(), id);
        self.former_names.remove(&full_name.to_lowercase());
        self.names.insert(full_name.to_lowercase(), id);
        self.note_meaning(full_name, id);
        if let Some(repository) = self.repositories.get_mut(&id) {
            repository.owner = owner;
            repository.name = name.to_string();
        }
    }

    fn note_meaning(&mut self, full_name: &str, id: u64) {
        let known = self.meanings.entry(full_name.to_lowercase()).or_insert((id, None));
        if known.0 != id {
            *known = (id, Some(self.now));
        }
    }

    /// The repository that has or last had a name; and since when, by GitHub's clock, if another one had it before.
    pub fn meaning(&self, full_name: &str) -> Option<(u64, Option<Timestamp>)> {
        self.meanings.get(&full_name.to_lowercase()).copied()
    }

    /// Deletes a repository with its runners. Its runs become inaccessible and its jobs end.
    pub fn delete_repository(&mut self, id: u64, now: Timestamp) {
        self.advance(now);
        let Some(name) = self.full_name(id) else { return };
        self.names.remove(&name.to_lowercase());
        if let Some(repository) = self.repositories.get_mut(&id) {
            repository.deleted = true;
        }
        for run in self.runs_of.get(&id).cloned().unwrap_or_default() {
            self.cancel_run(run, now);
        }
        let gone = self.runners.values().filter(|runner| runner.scope == RegisteredAt::Repository(id));
        for runner in gone.map(|runner| runner.id).collect::<Vec<_>>() {
            self.remove_runner(runner, Removal::Deleted);
        }
    }

    /// All repositories.
    pub fn repositories(&self) -> impl Iterator<Item = &Repository> {
        self.repositories.values()
    }

    /// The run with this ID.
    pub fn run(&self, id: u64) -> Option<&Run> {
        self.runs.get(&id)
    }

    /// All runs that are remembered.
    pub fn runs(&self) -> impl DoubleEndedIterator<Item = &Run> {
        self.runs.values()
    }

    /// The job with this ID.
    pub fn job(&self, id: u64) -> Option<&Job> {
        self.jobs.get(&id)
    }

    /// All jobs that are remembered.
    pub fn jobs(&self) -> impl DoubleEndedIterator<Item = &Job> {
        self.jobs.values()
    }

    /// The registered runner with this ID.
    pub fn runner(&self, id: u64) -> Option<&Runner> {
        self.runners.get(&id)
    }

    /// The registered runner with this name there.
    pub fn runner_by_name(&self, scope: RegisteredAt, name: &str) -> Option<&Runner> {
        self.runners.values().find(|runner| runner.scope == scope && runner.name.eq_ignore_ascii_case(name))
    }

    /// All registered runners.
    pub fn runners(&self) -> impl Iterator<Item = &Runner> {
        self.runners.values()
    }

    /// Events since the last call, oldest first. At most the latest ten thousand are kept.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    fn event(&mut self, event: Event) {
        const MOST_EVENTS: usize = 10_000;
        if self.events.len() >= MOST_EVENTS {
            self.events.drain(..MOST_EVENTS / 2);
        }
        match event {
            Event::JobQueued { job } => self.deliver_job(job, "queued"),
            Event::JobHeld { job } => self.deliver_job(job, "waiting"),
            Event::JobStarted { job, .. } => self.deliver_job(job, "in_progress"),
            Event::JobCompleted { job, .. } => self.deliver_job(job, "completed"),
            Event::RunnerOnline { .. } | Event::RunnerOffline { .. } | Event::RunnerRemoved { .. } => {}
        }
        self.events.push(event);
    }

    /// When the next scheduled event happens, if there is one.
    pub fn next_event(&self) -> Option<Timestamp> {
        self.timers.first().map(|(time, _)| *time)
    }
}
