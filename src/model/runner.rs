//! Runners: Nomad jobs that are ours.

use std::fmt::{self, Write};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    JobId, Labels, Repository, RepositoryId, Visibility, host_of_page, is_class, is_login, is_repository_name,
};
use crate::text::Escaped;

/// A repository and a set of labels: demand and supply are counted per group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKey {
    /// The repository.
    pub repository: RepositoryId,
    /// The labels, compared without case.
    pub labels: Labels,
}

/// How a runner gets to register itself at GitHub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Registration {
    /// A just-in-time configuration, single use, in the job's Nomad variable.
    Jit,
    /// A registration token, in the job's Nomad variable.
    Token,
    /// nomadtools' way: a long-lived token in the rendered job.
    AccessToken,
}

impl Registration {
    /// Whether the runner's secret comes in its job's Nomad variable, written once it has an allocation.
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

/// What a job asks Nomad for, as long as it waits for a place: what an autoscaler must make room for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asks {
    /// CPU, in MHz.
    pub cpu: u64,
    /// Cores of its own.
    #[serde(default)]
    pub cores: u64,
    /// Memory, in MiB: what Nomad reserves.
    pub memory: u64,
    /// The node pool: text of the template, and perhaps of a label.
    pub node_pool: String,
}

/// The JSON in a job's `Meta[nomad.meta]`. The first three are what nomadtools writes; a job without
/// `instance` is nomadtools' own. Anyone with read-job sees it: no secret belongs here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerMeta {
    /// Labels, sorted, with commas between.
    pub labelsstr: String,
    /// The repository's page.
    pub repo_url: String,
    /// The version of the program that wrote this.
    #[serde(default)]
    pub version: String,
    /// Which githubrunner this runner belongs to.
    #[serde(default, rename = "instance", skip_serializing_if = "Option::is_none")]
    pub deployment: Option<String>,
    /// GitHub's ID of the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo_id: Option<RepositoryId>,
    /// The job: the GitHub job the runner was started for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
    /// 1, 2, … for one job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// How it registers: a configuration that changes later does not change it for jobs that exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<Registration>,
    /// The task that is the runner, where the job has others too: it decides the runner's state and exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// What it asks Nomad for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asks: Option<Asks>,
    /// The class it was started as; none: what the top level of the configuration says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The seal by the deployment's key over the job's ID and the rest: without it nothing here counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
}

/// The repository that a Meta names, as far as it tells: ID 0 where there is none (nomadtools), an empty owner or name
/// where the address has none, and neither archived nor disabled.
pub fn whose_repository(meta: &RunnerMeta) -> Repository {
    let html_url = meta.repo_url.trim_end_matches('/');
    let mut path = html_url.rsplit('/');
    let (name, owner) = (path.next().unwrap_or_default(), path.next().unwrap_or_default());
    // Anyone with submit-job writes a Meta.
    let is_page =
        is_login(owner) && is_repository_name(name) && host_of_page(html_url, owner, name).is_some();
    let checked = |text: &str| if is_page { text.to_owned() } else { String::new() };
    Repository {
        id: meta.repo_id.unwrap_or(RepositoryId(0)),
        owner: checked(owner),
        name: checked(name),
        html_url: checked(html_url),
        archived: false,
        disabled: false,
        visibility: Visibility::default(),
    }
}

/// A job that says it is this deployment's and is not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Foreign {
    /// The job's ID.
    pub name: String,
    /// What tells.
    pub reason: ForeignReason,
}

/// What tells that a job with our deployment in its Meta is not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ForeignReason {
    /// Its ID is not the one that its Meta makes.
    Name,
    /// Its Meta has no seal.
    Unsealed,
    /// Its Meta has a seal, and not one of our key for this.
    WrongSeal,
    /// What Nomad says of it or of its allocation is too large to be read. It may well be ours; nothing is done about it.
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

/// Whose a runner is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ownership {
    /// Started by this deployment.
    Ours,
    /// Started by nomadtools with the same prefix and Meta key: supply, purged when dead, never stopped.
    Nomadtools,
}

/// Where a runner stands, from its allocations (contract nomad.md §10), never from the job's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RunnerState {
    /// No allocation.
    Pending,
    /// An allocation, no task started, and no secret yet.
    Waiting,
    /// An allocation and all it needs, no task started.
    Starting,
    /// A task has started: idle or busy.
    Running,
    /// Told to stop, a task is still alive.
    Stopping,
    /// Its node is disconnected (ClientStatus `unknown`).
    Disconnected,
    /// Every allocation is terminal.
    Dead,
}

impl RunnerState {
    /// Whether its task has yet to start: that of its present allocation, for which there may have been others.
    pub fn is_unstarted(self) -> bool {
        matches!(self, RunnerState::Pending | RunnerState::Waiting | RunnerState::Starting)
    }

    /// The word for it.
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

/// How a dead runner ended: a detail for people, and which of the two purge timeouts applies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// Exit code 0 without a `Killing` event, whatever the desired status says.
    Success,
    /// Told to stop.
    Stopped,
    /// Another exit code, or a signal nobody of us sent.
    Failure {
        /// The exit code, where one is known.
        exit_code: Option<i64>,
    },
    /// Killed for memory.
    OutOfMemory,
    /// Its node went down.
    Lost,
    /// Its node was drained.
    Drained,
    /// It exceeded `max_run_duration`.
    TimedOut,
    /// No task ever started: driver, setup, artifact or hook failed.
    NeverRan {
        /// What the task's last event says.
        reason: String,
    },
}

impl Finish {
    /// The word for it, for metrics: one of few.
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

    /// Whether `purge_successfull_timeout` applies, rather than `purge_failure_timeout`.
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

/// What the official runner means by an exit code (`Runner.Common/Constants.cs`, `ReturnCode`).
fn exit_code_means(code: i64) -> Option<&'static str> {
    Some(match code {
        0 => "the runner succeeded and its task did not",
        1 => "the runner gave up; see the task's log",
        2 => "temporary error: the runner asked for a restart",
        3 | 4 => "the runner asked for a restart to update itself: use a newer version",
        5 => "another runner uses the session of this registration",
        6 => "the runner's configuration was refreshed: it asked for a restart",
        7 => "the runner's version is deprecated: use a newer version",
        _ => return None,
    })
}

/// Why Nomad does not place a job: from its blocked evaluation (contract nomad.md §12).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// Nodes that would fit are full: room may be made. Otherwise none fits at all.
    pub exhausted: bool,
    /// For people: `memory exhausted on 2 nodes`, `missing drivers filtered 2 nodes`, …
    pub reason: String,
}

/// The allocation that a runner's state comes from: the one that is alive, else the newest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// Its ID.
    pub id: String,
    /// The node's name.
    pub node: String,
    /// When it was made, by the servers' clock.
    pub created_at: Timestamp,
}

/// One runner: a Nomad job of ours (or of nomadtools) with what its allocations say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runner {
    /// The Nomad job's ID, which is the runner's name at GitHub too.
    pub name: String,
    /// Whose it is.
    pub ownership: Ownership,
    /// Its Meta JSON.
    pub meta: RunnerMeta,
    /// Where it stands.
    pub state: RunnerState,
    /// How it ended; only when dead.
    pub finish: Option<Finish>,
    /// Whether a task of any of its allocations has ever started.
    pub started: bool,
    /// An allocation that is lost or over has used what the runner registers with: whatever brought the next one
    /// (a lost node, preemption, `nomad alloc stop`), it gets no credentials and is stopped.
    pub spent: bool,
    /// Another allocation, told to stop, still runs the runner's task.
    pub ending: bool,
    /// When the variable `nomad/jobs/NAME` was created, by the servers' clock; `None`: there is none.
    pub variable: Option<Timestamp>,
    /// When it was registered, by the servers' clock.
    pub submitted_at: Timestamp,
    /// The allocation its state comes from.
    pub allocation: Option<Allocation>,
    /// When its task started, by the client's clock.
    pub started_at: Option<Timestamp>,
    /// When its last task ended, by the client's clock; only when dead.
    pub ended_at: Option<Timestamp>,
    /// Why it is not placed, when it is pending.
    pub blocked: Option<Blocked>,
    /// What Nomad said last of its task, when it has an allocation and its task has not started. `Some` of a running one
    /// means that what Nomad says of its tasks is too large to be read.
    pub last_event: Option<String>,
}

impl Runner {
    /// Its labels, from its Meta.
    pub fn labels(&self) -> Labels {
        Labels::from_joined(&self.meta.labelsstr)
    }

    /// The class it was started as, whatever the configuration says now. A job of nomadtools is of none.
    pub fn class(&self) -> Option<&str> {
        let class = self.meta.class.as_deref().filter(|_| self.ownership == Ownership::Ours);
        class.filter(|class| is_class(class))
    }

    /// Its repository, as far as its Meta tells: see [`whose_repository`].
    pub fn repository(&self) -> Repository {
        whose_repository(&self.meta)
    }

    /// Whether a Stop may end its process. The process of a lost allocation is Nomad's to end, as soon as it hears from
    /// the node again; an allocation that replaces another one and has not started has none.
    pub fn may_have_process(&self) -> bool {
        self.started && (self.ending || !(self.spent && self.state.is_unstarted()))
    }

    /// Whether it is not dead: it counts against the caps.
    pub fn is_live(&self) -> bool {
        self.state != RunnerState::Dead
    }

    /// How it registers. A job of nomadtools has its token in the job.
    pub fn registration(&self) -> Registration {
        match self.ownership {
            Ownership::Ours => self.meta.registration.unwrap_or(Registration::Jit),
            Ownership::Nomadtools => Registration::AccessToken,
        }
    }

    /// How it ended, for people.
    pub fn how_it_ended(&self) -> String {
        self.finish.as_ref().map_or_else(|| "ended".to_owned(), ToString::to_string)
    }

    /// When it died: the end of its last task, else when it was registered.
    pub fn died_at(&self) -> Timestamp {
        self.ended_at.unwrap_or(self.submitted_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runners_own_exit_codes_have_words() {
        let shown = |code| Finish::Failure { exit_code: Some(code) }.to_string();
        assert_eq!(shown(7), "failure, exit code 7: the runner's version is deprecated: use a newer version");
        assert!((0..=7).all(|code| shown(code).starts_with(&format!("failure, exit code {code}: "))));
        assert_eq!(shown(137), "failure, exit code 137");
        assert_eq!(Finish::Failure { exit_code: None }.to_string(), "failure");
    }
}
