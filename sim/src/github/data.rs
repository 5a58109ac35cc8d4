//! The data of the simulated GitHub.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;

/// How much a response shows of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detail {
    /// What lists and other objects contain.
    Short,
    /// What the object's own path returns.
    Full,
}

/// A user or an organization.
#[derive(Clone, Debug)]
pub struct Owner {
    /// Numeric ID.
    pub id: u64,
    /// Login, in its original spelling.
    pub login: String,
    /// True for an organization.
    pub organization: bool,
    /// The logins of an organization's members, who can see its private repositories.
    pub members: BTreeSet<String>,
    /// When it was created.
    pub created_at: Timestamp,
}

/// A repository.
#[derive(Clone, Debug)]
pub struct Repository {
    /// Numeric ID, which survives a rename.
    pub id: u64,
    /// The owner's ID.
    pub owner: u64,
    /// Name without the owner.
    pub name: String,
    /// Not visible to everyone.
    pub private: bool,
    /// Read-only.
    pub archived: bool,
    /// Disabled by GitHub.
    pub disabled: bool,
    /// Self-hosted runners are disabled for it, so each registration is refused.
    pub refuses_runners: bool,
    /// Deleted: every request gets 404.
    pub deleted: bool,
    /// When it was created.
    pub created_at: Timestamp,
    /// The last push; null if there was none.
    pub pushed_at: Option<Timestamp>,
}

/// A job's or a run's status (contract §1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// Requested but not processed yet; needs no runner.
    Requested,
    /// Held by a concurrency group; needs no runner.
    Pending,
    /// Held by a deployment's protection rule; needs no runner.
    Waiting,
    /// Needs a runner.
    Queued,
    /// Running on a runner.
    InProgress,
    /// Over.
    Completed,
}

impl Status {
    /// GitHub's text for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Requested => "requested",
            Status::Pending => "pending",
            Status::Waiting => "waiting",
            Status::Queued => "queued",
            Status::InProgress => "in_progress",
            Status::Completed => "completed",
        }
    }
}

/// How a job or a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Conclusion {
    /// It succeeded.
    #[default]
    Success,
    /// It failed, or its runner was lost.
    Failure,
    /// Someone cancelled it.
    Cancelled,
    /// A job that it needs did not succeed.
    Skipped,
}

impl Conclusion {
    /// GitHub's text for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Conclusion::Success => "success",
            Conclusion::Failure => "failure",
            Conclusion::Cancelled => "cancelled",
            Conclusion::Skipped => "skipped",
        }
    }

    /// The runner's text for it.
    pub fn printed(self) -> &'static str {
        match self {
            Conclusion::Success => "Succeeded",
            Conclusion::Failure => "Failed",
            Conclusion::Cancelled => "Canceled",
            Conclusion::Skipped => "Skipped",
        }
    }
}

/// A job as its workflow describes it.
#[derive(Clone, Debug)]
pub struct JobSpec {
    /// Free text. An empty one becomes `job N`.
    pub name: String,
    /// `runs-on`. Empty for `runs-on: {group: …}`; such a job finds no runner here.
    pub labels: Vec<String>,
    /// How long it runs.
    pub duration: Duration,
    /// Its conclusion.
    pub conclusion: Conclusion,
    /// The jobs that must succeed before this one appears, by position in the run's list.
    pub needs: Vec<usize>,
    /// The delay after that before it appears (a run can have no jobs yet).
    pub delay: Duration,
    /// It is held in this status first (waiting, pending or requested).
    pub held: Option<Status>,
    /// How long it is held; `None`: until [`super::GitHub::release_job`].
    pub held_for: Option<Duration>,
    /// Listed as queued forever: it gets no runner, and no limit ends it.
    pub ghost: bool,
}

impl JobSpec {
    /// A job with these labels that takes `duration` and succeeds.
    pub fn new(labels: &[&str], duration: Duration) -> Self {
        JobSpec {
            name: String::new(),
            labels: labels.iter().map(|label| label.to_string()).collect(),
            duration,
            conclusion: Conclusion::Success,
            needs: Vec::new(),
            delay: Duration::ZERO,
            held: None,
            held_for: None,
            ghost: false,
        }
    }
}

/// What starts a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Trigger {
    /// A push, which moves the repository's `pushed_at`.
    #[default]
    Push,
    /// A schedule.
    Schedule,
    /// A user, manually or through the API.
    Dispatch,
}

impl Trigger {
    /// GitHub's text for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Trigger::Push => "push",
            Trigger::Schedule => "schedule",
            Trigger::Dispatch => "workflow_dispatch",
        }
    }
}

/// A workflow run.
#[derive(Clone, Debug)]
pub struct Run {
    /// Numeric ID.
    pub id: u64,
    /// The repository's ID.
    pub repository: u64,
    /// The workflow's name.
    pub name: String,
    /// What started it.
    pub trigger: Trigger,
    /// The status that filtered lists use; `None` until the index contains the run.
    pub indexed: Option<Status>,
    /// The number of the run in its repository.
    pub number: u64,
    /// 1, incremented by each re-run.
    pub attempt: u32,
    /// The listed status, which may lag behind the jobs ([`super::Options::run_lag`]).
    pub status: Status,
    /// Set once completed.
    pub conclusion: Option<Conclusion>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its latest attempt began.
    pub started_at: Timestamp,
    /// When its status last changed.
    pub updated_at: Timestamp,
    /// Its jobs, in order.
    pub plan: Vec<JobSpec>,
    /// The latest attempt's jobs that have appeared, by their position in the plan.
    pub latest: BTreeMap<usize, u64>,
    /// All jobs of all attempts, oldest first.
    pub jobs: Vec<u64>,
    /// Someone cancelled it, so no further job appears.
    pub cancelled: bool,
}

/// The runner of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRunner {
    /// The runner's ID.
    pub id: u64,
    /// The runner's name.
    pub name: String,
    /// The group's ID.
    pub group: u64,
}

/// A workflow job.
#[derive(Clone, Debug)]
pub struct Job {
    /// Numeric ID, new with each attempt of the run.
    pub id: u64,
    /// The run's ID.
    pub run: u64,
    /// The repository's ID.
    pub repository: u64,
    /// The attempt of the run that it belongs to.
    pub attempt: u32,
    /// Its position in the run's plan.
    pub index: usize,
    /// Free text.
    pub name: String,
    /// `runs-on` in its original spelling.
    pub labels: Vec<String>,
    /// Its own status.
    pub status: Status,
    /// Set once completed.
    pub conclusion: Option<Conclusion>,
    /// When it appeared.
    pub created_at: Timestamp,
    /// When it was last put in the queue.
    pub queued_at: Timestamp,
    /// When a runner started it; before that, when it appeared.
    pub started_at: Timestamp,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
    /// The runner that runs or ran it.
    pub runner: Option<JobRunner>,
    /// The runner to which it is offered, until that one takes it.
    pub offered: Option<u64>,
    /// How often it was queued. Identifies outdated timers.
    pub turn: u32,
    /// Why it ended early, for people.
    pub reason: Option<&'static str>,
}

/// Where a runner is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RegisteredAt {
    /// At the repository with this ID.
    Repository(u64),
    /// At the organization with this ID.
    Organization(u64),
}

/// A registered runner.
#[derive(Clone, Debug)]
pub struct Runner {
    /// Numeric ID, never reused.
    pub id: u64,
    /// Where it is registered. Names are unique there.
    pub scope: RegisteredAt,
    /// The runner group's ID.
    pub group: u64,
    /// Its name, in its original spelling.
    pub name: String,
    /// Its labels, in lower case if they come from a JIT configuration.
    pub labels: Vec<String>,
    /// Leaves the list after one job.
    pub ephemeral: bool,
    /// Registered by a JIT configuration.
    pub jit: bool,
    /// A process is connected.
    pub online: bool,
    /// The job that is offered to it or running on it.
    pub job: Option<u64>,
    /// When it was registered.
    pub registered_at: Timestamp,
    /// When it last went offline.
    pub offline_since: Timestamp,
    /// When it first came online.
    pub connected_at: Option<Timestamp>,
}

/// An organization's runner group.
#[derive(Clone, Debug)]
pub struct RunnerGroup {
    /// Numeric ID; 1 is the default group of every owner.
    pub id: u64,
    /// The organization's ID.
    pub organization: u64,
    /// Its name.
    pub name: String,
}

/// Events for the [world](crate::world) and for webhooks. The state is read with the accessors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A job appeared or was queued (again).
    JobQueued {
        /// The job's ID.
        job: u64,
    },
    /// A job appeared that waits for something other than a runner.
    JobHeld {
        /// The job's ID.
        job: u64,
    },
    /// A runner started it.
    JobStarted {
        /// The job's ID.
        job: u64,
        /// The runner's ID.
        runner: u64,
    },
    /// It is over.
    JobCompleted {
        /// The job's ID.
        job: u64,
        /// The runner that ran it.
        runner: Option<u64>,
        /// How it ended.
        conclusion: Conclusion,
    },
    /// A runner's process connected.
    RunnerOnline {
        /// The runner's ID.
        runner: u64,
    },
    /// A runner's process disconnected.
    RunnerOffline {
        /// The runner's ID.
        runner: u64,
    },
    /// A registration was deleted or removed automatically.
    RunnerRemoved {
        /// The runner's ID.
        runner: u64,
        /// Its name.
        name: String,
        /// The reason.
        by: Removal,
    },
}

/// Why a runner was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// A request deleted it.
    Deleted,
    /// It was ephemeral and its job is over.
    JobDone,
    /// It was offline for too long.
    Stale,
    /// `config.sh --replace` registered the name again.
    Replaced,
}

/// An ID in a path.
pub(super) fn number(text: &str) -> Option<u64> {
    text.parse().ok()
}
