//! The life of runners: registered with a JIT configuration or a registration token, online, busy, removed.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{GitHub, Timer, after, data::*, life};

/// The lifetime of registration tokens (contract §2: an hour).
const TOKEN_LIFE: Duration = Duration::from_secs(3600);
/// 1,500 registrations in five minutes (contract §2).
const MOST_REGISTRATIONS: usize = 1500;
const REGISTRATION_WINDOW: Duration = Duration::from_secs(300);

/// Why GitHub refuses a runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The text is not a JIT configuration.
    #[error("the configuration cannot be decoded")]
    BadConfiguration,
    /// A JIT configuration was used before.
    #[error("the configuration has been used")]
    Used,
    /// A JIT configuration or a token was not used in time.
    #[error("the configuration or token has expired")]
    Expired,
    /// The registration is gone.
    #[error("the runner registration has been deleted from the server")]
    Deleted,
    /// The token is unknown or for another scope.
    #[error("the token is not valid here")]
    BadToken,
    /// The URL is not that of a repository or organization.
    #[error("the address leads to no repository or organization")]
    NotFound,
    /// Another runner has the name.
    #[error("a runner with this name exists")]
    NameTaken,
    /// Another process is connected as this runner.
    #[error("a session for this runner already exists")]
    Conflict,
}

/// How a runner's process disconnects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// It was told to stop and reports it: its job fails at once.
    Graceful,
    /// It vanishes: its job fails after [`super::Options::lost_after`].
    Vanished,
}

/// The data that `config.sh` sends.
#[derive(Clone)]
pub struct Registration {
    /// A registration token, or a personal access token that may create one.
    pub token: String,
    /// The URL of the repository or organization. Its path determines the scope.
    pub url: String,
    /// The runner's name.
    pub name: String,
    /// Its own labels.
    pub labels: Vec<String>,
    /// Adds self-hosted, the OS and the architecture (contract §6).
    pub default_labels: bool,
    /// One job only.
    pub ephemeral: bool,
    /// Replaces an idle runner of the same name.
    pub replace: bool,
}

#[derive(Clone)]
struct Jit {
    runner: u64,
    expires_at: Timestamp,
    used: bool,
}

#[derive(Clone)]
struct RegistrationToken {
    scope: RegisteredAt,
    removes: bool,
    expires_at: Timestamp,
}

/// The secrets that were issued for registrations.
#[derive(Clone, Default)]
pub(super) struct RegistrationBook {
    jit: BTreeMap<String, Jit>,
    tokens: BTreeMap<String, RegistrationToken>,
    recent: VecDeque<Timestamp>,
}

/// Why a JIT configuration is refused.
pub(super) enum JitRefused {
    NameTaken,
    TooMany,
}

impl GitHub {
    /// Registers a runner and creates its JIT configuration. `server` is the address in it for the runner.
    pub(super) fn generate_jit(
        &mut self,
        scope: RegisteredAt,
        group: u64,
        name: &str,
        labels: &[String],
        work_folder: &str,
        server: &str,
    ) -> Result<(u64, String), JitRefused> {
        let now = self.now;
        if self.runner_by_name(scope, name).is_some() {
            return Err(JitRefused::NameTaken);
        }
        while self.registration.recent.front().is_some_and(|time| after(*time, REGISTRATION_WINDOW) <= now) {
            self.registration.recent.pop_front();
        }
        if self.registration.recent.len() >= MOST_REGISTRATIONS {
            return Err(JitRefused::TooMany);
        }
        self.registration.recent.push_back(now);
        let labels = labels.iter().map(|label| label.to_lowercase()).collect();
        let runner = self.add_runner(scope, group, name, labels, true, true);
        let secret = format!("{}-{}", runner, self.random_text(32));
        let expires_at = after(now, self.options.jit_expiry);
        self.registration.jit.insert(secret.clone(), Jit { runner, expires_at, used: false });
        let about = json!({
            "AgentId": runner.to_string(), "AgentName": name, "PoolId": group.to_string(), "DisableUpdate": "True",
            "Ephemeral": "True", "ServerUrl": server, "GitHubUrl": self.scope_url(scope), "WorkFolder": work_folder,
        });
        let credentials = json!({"Scheme": "OAuth", "Data": {"ClientId": secret}});
        // As long as a real one: about 4 kB in all (contract §2).
        let key = json!({ "modulus": self.random_text(1500) });
        let part = |value: Value| STANDARD.encode(value.to_string());
        let whole = json!({
            ".runner": part(about), ".credentials": part(credentials), ".credentials_rsaparams": part(key),
        });
        Ok((runner, STANDARD.encode(whole.to_string())))
    }

    /// The URL of a scope for people.
    pub(super) fn scope_url(&self, scope: RegisteredAt) -> String {
        let path = match scope {
            RegisteredAt::Repository(id) => self.full_name(id),
            RegisteredAt::Organization(id) => self.owners.get(&id).map(|owner| owner.login.clone()),
        };
        format!("{}/{}", self.options.web_url, path.unwrap_or_default())
    }

    pub(super) fn make_registration_token(
        &mut self,
        scope: RegisteredAt,
        removes: bool,
    ) -> (String, Timestamp) {
        let now = self.now;
        self.registration.tokens.retain(|_, token| token.expires_at > now);
        let token = format!("A{}", self.random_text(28).to_uppercase());
        let expires_at = after(now, TOKEN_LIFE);
        self.registration.tokens.insert(token.clone(), RegistrationToken { scope, removes, expires_at });
        (token, expires_at)
    }

    fn add_runner(
        &mut self,
        scope: RegisteredAt,
        group: u64,
        name: &str,
        labels: Vec<String>,
        ephemeral: bool,
        jit: bool,
    ) -> u64 {
        let id = self.new_id();
        let runner = Runner {
            id,
            scope,
            group,
            name: name.to_string(),
            labels,
            ephemeral,
            jit,
            online: false,
            job: None,
            registered_at: self.now,
            offline_since: self.now,
            connected_at: None,
        };
        self.runners.insert(id, runner);
        self.timers.insert((after(self.now, self.options.stale_after), Timer::Stale { runner: id }));
        id
    }

    /// A process comes online with a JIT configuration. Returns the runner's ID.
    pub fn connect_jit(&mut self, encoded: &str, now: Timestamp) -> Result<u64, Refused> {
        self.advance(now);
        let secret = jit_secret(encoded).ok_or(Refused::BadConfiguration)?;
        let jit = self.registration.jit.get_mut(&secret).ok_or(Refused::Deleted)?;
        if jit.used {
            return Err(Refused::Used);
        }
        if jit.expires_at <= now {
            return Err(Refused::Expired);
        }
        jit.used = true;
        let runner = jit.runner;
        self.come_online(runner, now)?;
        Ok(runner)
    }

    /// Registers a runner like `config.sh`. Returns its ID. It is still offline.
    pub fn register(&mut self, registration: &Registration, now: Timestamp) -> Result<u64, Refused> {
        self.advance(now);
        let scope = self.scope_of_url(&registration.url).ok_or(Refused::NotFound)?;
        match self.registration.tokens.get(&registration.token) {
            Some(token) if token.expires_at <= now => return Err(Refused::Expired),
            Some(token) if token.scope == scope && !token.removes => {}
            Some(_) => return Err(Refused::BadToken),
            None if self.may_register(&registration.token, scope) => {}
            None => return Err(Refused::BadToken),
        }
        if let Some(old) = self.runner_by_name(scope, &registration.name) {
            if !registration.replace || old.job.is_some() {
                return Err(Refused::NameTaken);
            }
            let old = old.id;
            self.remove_runner(old, Removal::Replaced);
        }
        let mut labels = registration.labels.clone();
        if registration.default_labels {
            for label in ["self-hosted", "Linux", "X64"] {
                if !labels.iter().any(|own| own.eq_ignore_ascii_case(label)) {
                    labels.push(label.to_string());
                }
            }
        }
        Ok(self.add_runner(scope, 1, &registration.name, labels, registration.ephemeral, false))
    }

    /// The scope of a URL like `https://github.com/owner/name`.
    fn scope_of_url(&self, url: &str) -> Option<RegisteredAt> {
        let path =
            url::Url::parse(url).ok()?.path().trim_matches('/').trim_end_matches(".git").to_lowercase();
        match path.split_once('/') {
            Some(_) => {
                let id = self.names.get(&path).or_else(|| self.former_names.get(&path))?;
                Some(RegisteredAt::Repository(*id))
            }
            None => {
                let id = self.logins.get(&path)?;
                self.owners
                    .get(id)
                    .filter(|owner| owner.organization)
                    .map(|_| RegisteredAt::Organization(*id))
            }
        }
    }

    /// A registered runner's process connects.
    pub fn come_online(&mut self, runner: u64, now: Timestamp) -> Result<(), Refused> {
        self.advance(now);
        let known = self.runners.get_mut(&runner).ok_or(Refused::Deleted)?;
        if known.online {
            return Err(Refused::Conflict);
        }
        known.online = true;
        known.connected_at.get_or_insert(now);
        if known.job.is_none() {
            self.idle.insert(runner);
        }
        self.event(Event::RunnerOnline { runner });
        self.assign(now);
        Ok(())
    }

    /// A runner's process disconnects. Ignored if it is not online.
    pub fn disconnect(&mut self, runner: u64, leave: Leave, now: Timestamp) {
        self.advance(now);
        let Some(known) = self.runners.get_mut(&runner).filter(|runner| runner.online) else { return };
        known.online = false;
        known.offline_since = now;
        let job = known.job;
        self.idle.remove(&runner);
        self.timers.insert((after(now, self.options.stale_after), Timer::Stale { runner }));
        self.event(Event::RunnerOffline { runner });
        let Some(job) = job else { return };
        let Some(known) = self.jobs.get_mut(&job) else { return };
        if known.status != Status::InProgress {
            if let Some(runner) = self.runners.get_mut(&runner) {
                runner.job = None;
            }
            self.enqueue(job, now);
        } else if leave == Leave::Graceful {
            self.complete_job(job, Conclusion::Failure, Some("the runner was stopped"), now);
        } else {
            known.turn += 1;
            let timer = Timer::End { job, turn: known.turn, conclusion: life::LOST };
            self.timers.insert((after(now, self.options.lost_after), timer));
        }
    }

    /// The job that a runner is running.
    pub fn running_job(&self, runner: u64) -> Option<&Job> {
        let job = self.runners.get(&runner)?.job?;
        self.jobs.get(&job).filter(|job| job.status == Status::InProgress)
    }

    /// Deletes a registration like a request: refused (false) while the runner is busy.
    pub fn delete_runner(&mut self, runner: u64, now: Timestamp) -> bool {
        self.advance(now);
        let idle = self.runners.get(&runner).is_some_and(|runner| runner.job.is_none());
        if idle {
            self.remove_runner(runner, Removal::Deleted);
        }
        idle
    }

    pub(super) fn remove_runner(&mut self, id: u64, by: Removal) {
        let Some(runner) = self.runners.remove(&id) else { return };
        self.idle.remove(&id);
        self.registration.jit.retain(|_, jit| jit.runner != id);
        self.event(Event::RunnerRemoved { runner: id, name: runner.name, by });
        // Offered but not started: queued again.
        let offered =
            runner.job.filter(|job| self.jobs.get(job).is_some_and(|job| job.status == Status::Queued));
        if let Some(job) = offered {
            let now = self.now;
            self.enqueue(job, now);
        }
    }

    /// An offer was withdrawn because the job is over.
    pub(super) fn free_runner(&mut self, id: u64) {
        if let Some(runner) = self.runners.get_mut(&id) {
            runner.job = None;
            if runner.online {
                self.idle.insert(id);
            }
        }
    }

    /// A runner's job is over. An ephemeral runner is removed.
    pub(super) fn job_done(&mut self, id: u64) {
        match self.runners.get(&id).map(|runner| runner.ephemeral) {
            Some(true) => self.remove_runner(id, Removal::JobDone),
            Some(false) => self.free_runner(id),
            None => {}
        }
    }
}

/// The secret inside a JIT configuration.
fn jit_secret(encoded: &str) -> Option<String> {
    let part = |value: &Value| -> Option<Value> {
        serde_json::from_slice(&STANDARD.decode(value.as_str()?).ok()?).ok()
    };
    let whole: Value = serde_json::from_slice(&STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let credentials = part(whole.get(".credentials")?)?;
    Some(credentials.get("Data")?.get("ClientId")?.as_str()?.to_string())
}

/// The server's address inside a JIT configuration.
pub(crate) fn jit_server(encoded: &str) -> Option<String> {
    let whole: Value = serde_json::from_slice(&STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let about = STANDARD.decode(whole.get(".runner")?.as_str()?).ok()?;
    let about: Value = serde_json::from_slice(&about).ok()?;
    Some(about.get("ServerUrl")?.as_str()?.to_string())
}
