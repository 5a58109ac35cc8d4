//! Runners: Nomad jobs that are ours.

use std::fmt::{self, Write};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    JobId, Labels, Lost, Namespace, Purpose, RepositoryId, RepositoryRef, Warm, host_of_page, is_class,
    is_login, is_repository_name,
};
use crate::text::Escaped;

/// A repository and a label set. Demand and supply are counted per group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKey {
    pub repository: RepositoryId,
    /// The labels, compared case-insensitively.
    pub labels: Labels,
}

/// The kind of credentials with which a runner registers at GitHub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Registration {
    /// A single-use just-in-time configuration in the job's Nomad variable.
    Jit,
    /// A registration token, in the job's Nomad variable.
    Token,
    /// A long-lived token in the rendered job, as in nomadtools.
    AccessToken,
}

impl Registration {
    /// Whether the credentials are passed in the job's Nomad variable, written once the job has an
    /// allocation.
    pub fn needs_variable(self) -> bool {
        !matches!(self, Registration::AccessToken)
    }
}

impl fmt::Display for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Registration::Jit => "jit",
            Registration::Token => "token",
            Registration::AccessToken => "access_token",
        })
    }
}

/// What a job requests from Nomad while it waits for a place. An autoscaler must make room for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asks {
    /// CPU, in MHz.
    pub cpu: u64,
    /// Reserved cores.
    #[serde(default)]
    pub cores: u64,
    /// Memory that Nomad reserves, in MiB.
    pub memory: u64,
    /// The node pool. The template sets it, possibly from a label, so it is external text.
    pub node_pool: String,
}

/// The JSON in a job's `Meta[nomad.meta]`. The first three fields are what nomadtools writes; a job without
/// `instance` belongs to nomadtools. Anyone with read-job can see it, so it must not contain a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerMeta {
    /// Labels, sorted and comma-separated.
    pub labelsstr: String,
    pub repo_url: String,
    #[serde(default)]
    pub version: String,
    /// The deployment that this runner belongs to.
    #[serde(default, rename = "instance", skip_serializing_if = "Option::is_none")]
    pub deployment: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo_id: Option<RepositoryId>,
    /// What the runner was started for: the fields `job_id` or `warm`.
    #[serde(flatten, with = "super::purpose")]
    pub purpose: Option<Purpose>,
    /// The number of the start. Counted from 1 for each job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// The kind of credentials. A later change of the configuration does not affect existing jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<Registration>,
    /// The task that is the runner, if the job has several. It alone determines the runner's state and exit
    /// code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// What it requests from Nomad.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asks: Option<Asks>,
    /// The class it was started as; `None`: the top level of the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The MAC with the deployment's key over the job's ID and the rest. Without it, nothing here is trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
}

impl RunnerMeta {
    /// The GitHub job that the runner was started for.
    pub fn job_id(&self) -> Option<JobId> {
        self.purpose.as_ref()?.job_id()
    }
}

impl RunnerMeta {
    /// The repository that it names; `None` if its URL is not the page of one. Anyone with submit-job can write a Meta.
    pub fn repository(&self) -> Option<RepositoryRef> {
        let html_url = self.repo_url.trim_end_matches('/');
        let mut path = html_url.rsplit('/');
        let (name, owner) = (path.next()?, path.next()?);
        let is_page =
            is_login(owner) && is_repository_name(name) && host_of_page(html_url, owner, name).is_some();
        is_page.then(|| RepositoryRef {
            id: self.repo_id,
            owner: owner.to_owned(),
            name: name.to_owned(),
            html_url: html_url.to_owned(),
        })
    }
}

/// A job that claims to belong to this deployment and does not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Foreign {
    pub name: String,
    /// What gives it away.
    pub reason: ForeignReason,
}

/// Why a job with our deployment ID in its Meta is not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ForeignReason {
    /// Its ID is not the one derived from its Meta.
    Name,
    /// Its Meta has no MAC.
    Unsealed,
    /// The MAC in its Meta was not made with our key for this job.
    WrongSeal,
    /// Nomad's data about it or its allocation is too large to read. It may well be ours; it is left alone.
    Unreadable,
}

impl fmt::Display for ForeignReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ForeignReason::Name => "its Meta belongs to another job: the name does not match",
            ForeignReason::Unsealed => "its Meta has no MAC",
            ForeignReason::WrongSeal => "the MAC in its Meta was not made by this deployment",
            ForeignReason::Unreadable => "Nomad's data about it or its allocation is too large to read",
        })
    }
}

/// Who started a runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ownership {
    /// Started by this deployment.
    Ours,
    /// Started by nomadtools with the same prefix and Meta key: counts as supply, is purged when dead, and is
    /// never stopped.
    Nomadtools,
}

/// The state of a runner, from its allocations (contract nomad.md §10), never from the job's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RunnerState {
    /// No allocation.
    Pending,
    /// An allocation, no started task, and no credentials yet.
    Waiting,
    /// An allocation and credentials, but no started task.
    Starting,
    /// A task has started: idle or busy.
    Running,
    /// Told to stop, but a task is still alive.
    Stopping,
    /// Its node is disconnected (client status `unknown`).
    Disconnected,
    /// Every allocation is terminal.
    Dead,
}

impl RunnerState {
    /// Whether the task of its current allocation has not started yet. There may have been earlier allocations.
    pub fn is_unstarted(self) -> bool {
        matches!(self, RunnerState::Pending | RunnerState::Waiting | RunnerState::Starting)
    }

    /// The name of the state.
    pub fn as_str(self) -> &'static str {
        match self {
            RunnerState::Pending => "pending",
            RunnerState::Waiting => "waiting",
            RunnerState::Starting => "starting",
            RunnerState::Running => "running",
            RunnerState::Stopping => "stopping",
            RunnerState::Disconnected => "disconnected",
            RunnerState::Dead => "dead",
        }
    }
}

impl fmt::Display for RunnerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How a dead runner ended. This determines which of the two purge timeouts applies, and is shown as a
/// detail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// Exit code 0 without a `Killing` event, whatever the desired status is.
    Success,
    /// Told to stop.
    Stopped,
    /// Another exit code, or a signal that we did not send.
    Failure {
        /// If it is known.
        exit_code: Option<i64>,
    },
    /// Out of memory.
    OutOfMemory,
    /// Its node is down.
    Lost,
    /// Its node was drained.
    Drained,
    /// It exceeded `max_run_duration`.
    TimedOut,
    /// No task ever started: the driver, setup, an artifact or a hook failed.
    NeverRan {
        /// The task's last event.
        reason: String,
    },
}

impl Finish {
    /// The name for metrics: one of a fixed set.
    pub fn word(&self) -> &'static str {
        match self {
            Finish::Success => "success",
            Finish::Stopped => "stopped",
            Finish::Failure { .. } => "failure",
            Finish::OutOfMemory => "out_of_memory",
            Finish::Lost => "lost",
            Finish::Drained => "drained",
            Finish::TimedOut => "timed_out",
            Finish::NeverRan { .. } => "never_ran",
        }
    }

    /// Whether `purge_successfull_timeout` applies rather than `purge_failure_timeout`.
    pub fn is_success(&self) -> bool {
        matches!(self, Finish::Success | Finish::Stopped)
    }
}

impl fmt::Display for Finish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let f = &mut Escaped::line(f);
        match self {
            Finish::Success => f.write_str("success"),
            Finish::Stopped => f.write_str("stopped"),
            Finish::Failure { exit_code: Some(code) } => {
                write!(f, "failure, exit code {code}")?;
                exit_code_means(*code).map_or(Ok(()), |meaning| write!(f, ": {meaning}"))
            }
            Finish::Failure { exit_code: None } => f.write_str("failure"),
            Finish::OutOfMemory => f.write_str("out of memory"),
            Finish::Lost => f.write_str("node lost"),
            Finish::Drained => f.write_str("node drained"),
            Finish::TimedOut => f.write_str("exceeded max_run_duration"),
            Finish::NeverRan { reason } => write!(f, "never ran: {reason}"),
        }
    }
}

/// The meaning of the official runner's exit codes (`Runner.Common/Constants.cs`, `ReturnCode`).
fn exit_code_means(code: i64) -> Option<&'static str> {
    Some(match code {
        0 => "the runner succeeded, but its task did not",
        1 => "the runner gave up; see the task's log",
        2 => "temporary error: the runner asked for a restart",
        3 | 4 => "the runner asked for a restart to update itself: use a newer version",
        5 => "another runner is using this registration's session",
        6 => "the runner's configuration was refreshed: it asked for a restart",
        7 => "the runner's version is deprecated: use a newer version",
        _ => return None,
    })
}

/// Why Nomad cannot place a job, from its blocked evaluation (contract nomad.md §12).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// True if matching nodes are full, so room can be made. False if no node matches at all.
    pub exhausted: bool,
    /// For display: `memory exhausted on 2 nodes`, `missing drivers filtered 2 nodes`, …
    pub reason: String,
}

/// The allocation that determines a runner's state: the live one, or else the newest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    pub id: String,
    /// The node's name.
    pub node: String,
    pub node_id: String,
    /// The node is being drained: Nomad stops what runs there at the drain's deadline.
    pub draining: bool,
    /// When it was created, by the servers' clock.
    pub created_at: Timestamp,
}

/// A runner: a Nomad job of ours (or of nomadtools) with the state of its allocations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runner {
    /// The Nomad job's ID, which is also the runner's name at GitHub.
    pub name: String,
    /// Where its job is; `None`: the daemon's own namespace.
    pub namespace: Option<Namespace>,
    pub ownership: Ownership,
    /// The parsed Meta.
    pub meta: RunnerMeta,
    /// Its current state.
    pub state: RunnerState,
    /// How it ended; only if it is dead.
    pub finish: Option<Finish>,
    /// Whether a task of any of its allocations has ever started.
    pub started: bool,
    /// A lost or ended allocation has used the runner's credentials. Whatever caused the next allocation (a lost
    /// node, preemption, `nomad alloc stop`), it gets no credentials and is stopped.
    pub spent: bool,
    /// How it was lost while it may have had a job; `None` if it ended on its own or someone ended it.
    pub lost: Option<Lost>,
    /// Another allocation that was told to stop still runs the runner's task.
    pub ending: bool,
    /// When the variable `nomad/jobs/NAME` was created, by the servers' clock; `None` if it does not exist.
    pub variable: Option<Timestamp>,
    /// When it was registered, by the servers' clock.
    pub submitted_at: Timestamp,
    /// The allocation that determines its state.
    pub allocation: Option<Allocation>,
    /// When its task started, by the client's clock.
    pub started_at: Option<Timestamp>,
    /// When its last task ended, by the client's clock; only if it is dead.
    pub ended_at: Option<Timestamp>,
    /// Why it is not placed, if it is pending.
    pub blocked: Option<Blocked>,
    /// Nomad's last event for its task, if it has an allocation and its task has not started. `Some` for a running
    /// runner means that Nomad's data about its tasks is too large to read.
    pub last_event: Option<String>,
}

impl Runner {
    pub fn labels(&self) -> Labels {
        Labels::from_joined(&self.meta.labelsstr)
    }

    /// The class it was started as, even if the configuration has changed. A nomadtools job has none.
    pub fn class(&self) -> Option<&str> {
        let class = self.meta.class.as_deref().filter(|_| self.ownership == Ownership::Ours);
        class.filter(|class| is_class(class))
    }

    /// What it was started as, if it is a warm runner. A nomadtools job never is.
    pub fn warm(&self) -> Option<&Warm> {
        self.meta.purpose.as_ref().filter(|_| self.ownership == Ownership::Ours)?.warm()
    }

    /// The repository that its Meta names.
    pub fn repository(&self) -> Option<RepositoryRef> {
        self.meta.repository()
    }

    /// Whether its Meta names this repository (`owner/name`).
    pub fn is_of(&self, full_name: &str) -> bool {
        self.repository().is_some_and(|own| own.full_name().eq_ignore_ascii_case(full_name))
    }

    /// Whether a Stop may end a process. Nomad itself ends the process of a lost allocation once it can reach the node
    /// again. An allocation that replaces another one and has not started has no process.
    pub fn may_have_process(&self) -> bool {
        self.started && (self.ending || !(self.spent && self.state.is_unstarted()))
    }

    /// Whether it is not dead, so that it counts against the caps.
    pub fn is_live(&self) -> bool {
        self.state != RunnerState::Dead
    }

    /// The kind of credentials. A nomadtools job contains its token.
    pub fn registration(&self) -> Registration {
        match self.ownership {
            Ownership::Ours => self.meta.registration.unwrap_or(Registration::Jit),
            Ownership::Nomadtools => Registration::AccessToken,
        }
    }

    /// How it ended, for display.
    pub fn how_it_ended(&self) -> String {
        self.finish.as_ref().map_or_else(|| "ended".to_owned(), ToString::to_string)
    }

    /// When it died: the end of its last task, or else when it was registered.
    pub fn died_at(&self) -> Timestamp {
        self.ended_at.unwrap_or(self.submitted_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meta_is_written_as_it_always_was_and_is_for_a_job_or_warm() {
        let text = r#"{"labelsstr":"a","repo_url":"u","version":"1","job_id":7,"attempt":2}"#;
        let meta: RunnerMeta = serde_json::from_str(text).unwrap();
        assert_eq!((meta.job_id(), meta.attempt), (Some(JobId(7)), Some(2)));
        assert_eq!(serde_json::to_string(&meta).unwrap(), text);
        let warm = r#"{"labelsstr":"a","repo_url":"u","version":"1","warm":{"entry":"e","settings":"s"},"attempt":2}"#;
        let meta: RunnerMeta = serde_json::from_str(warm).unwrap();
        let Some(Purpose::Warm(is)) = &meta.purpose else { panic!("{meta:?}") };
        assert_eq!((is.entry.as_str(), is.settings.as_str(), is.failed, meta.job_id()), ("e", "s", 0, None));
        assert_eq!(serde_json::to_string(&meta).unwrap(), warm);
        for wrong in
            [r#""job_id":"7""#, r#""job_id":-1"#, r#""job_id":7,"warm":{"entry":"e"}"#, r#""warm":"e""#]
        {
            let text = format!(r#"{{"labelsstr":"a","repo_url":"u",{wrong}}}"#);
            assert!(serde_json::from_str::<RunnerMeta>(&text).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_runners_own_exit_codes_have_words() {
        let shown = |code| Finish::Failure { exit_code: Some(code) }.to_string();
        assert_eq!(shown(7), "failure, exit code 7: the runner's version is deprecated: use a newer version");
        assert!((0..=7).all(|code| shown(code).starts_with(&format!("failure, exit code {code}: "))));
        assert_eq!(shown(137), "failure, exit code 137");
        assert_eq!(Finish::Failure { exit_code: None }.to_string(), "failure");
    }
}
