//! What the simulated GitHub is made of.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

/// A person or an organization.
#[derive(Clone, Debug)]
pub struct Owner {
    /// Numeric ID.
    pub id: u64,
    /// Login, as spelled.
    pub login: String,
    /// True for an organization.
    pub organization: bool,
    /// Logins of an organization's members; they see its private repositories.
    pub members: BTreeSet<String>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A repository.
#[derive(Clone, Debug)]
pub struct Repository {
    /// Numeric ID; a rename keeps it.
    pub id: u64,
    /// The owner's ID.
    pub owner: u64,
    /// Name without the owner.
    pub name: String,
    /// Not visible to everybody.
    pub private: bool,
    /// Read-only.
    pub archived: bool,
    /// Disabled by GitHub.
    pub disabled: bool,
    /// Self-hosted runners are disabled for it: each registration is refused.
    pub refuses_runners: bool,
    /// Gone: every request answers 404.
    pub deleted: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// The last push; none yet is null.
    pub pushed_at: Option<Timestamp>,
}

/// A job's or a run's status (contract §1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// Asked for, not looked at yet; wants no runner.
    Requested,
    /// Held by a concurrency group; wants no runner.
    Pending,
    /// Held by a deployment's protection rule; wants no runner.
    Waiting,
    /// Wants a runner.
    Queued,
    /// A runner works on it.
    InProgress,
    /// Over.
    Completed,
}

impl Status {
    /// As GitHub writes it.
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
    /// It did what it should.
    #[default]
    Success,
    /// It failed, or its runner was lost.
    Failure,
    /// Somebody cancelled it.
    Cancelled,
    /// A job that it needs did not succeed.
    Skipped,
}

impl Conclusion {
    /// As GitHub writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Conclusion::Success => "success",
            Conclusion::Failure => "failure",
            Conclusion::Cancelled => "cancelled",
            Conclusion::Skipped => "skipped",
        }
    }

    /// As the runner prints it.
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
    /// Free text; empty becomes `job N`.
    pub name: String,
    /// `runs-on`. Empty with `runs-on: {group: …}`: such a job finds no runner here.
    pub labels: Vec<String>,
    /// How long a runner works on it.
    pub duration: Duration,
    /// How it ends by itself.
    pub conclusion: Conclusion,
    /// Positions in the run's list of the jobs that must succeed before this one appears.
    pub needs: Vec<usize>,
    /// How long after that it appears (a run can have no jobs yet).
    pub delay: Duration,
    /// Held in this status first (waiting, pending or requested) …
    pub held: Option<Status>,
    /// … for so long; without an end until [`super::GitHub::release_job`].
    pub held_for: Option<Duration>,
    /// Listed as queued for ever: no runner is given to it and no limit ends it.
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
    /// A time.
    Schedule,
    /// Somebody, by hand or by the API.
    Dispatch,
}

impl Trigger {
    /// As GitHub writes it.
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
    /// The status that filtered lists go by; none until the index has the run.
    pub indexed: Option<Status>,
    /// Counts the repository's runs.
    pub number: u64,
    /// 1, then one more with each re-run.
    pub attempt: u32,
    /// What the listing shows; it may lag behind the jobs ([`super::Options::run_lag`]).
    pub status: Status,
    /// Set once completed.
    pub conclusion: Option<Conclusion>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its latest attempt began.
    pub started_at: Timestamp,
    /// When its status last changed.
    pub updated_at: Timestamp,
    /// What its jobs are, in order.
    pub plan: Vec<JobSpec>,
    /// The latest attempt's jobs that have appeared, by their position in the plan.
    pub latest: BTreeMap<usize, u64>,
    /// All jobs of all attempts, oldest first.
    pub jobs: Vec<u64>,
    /// Somebody cancelled it: no further job appears.
    pub cancelled: bool,
}

/// Who works on a job.
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
    /// Which attempt of the run it belongs to.
    pub attempt: u32,
    /// Its position in the run's plan.
    pub index: usize,
    /// Free text.
    pub name: String,
    /// `runs-on` as spelled.
    pub labels: Vec<String>,
    /// Its own status.
    pub status: Status,
    /// Set once completed.
    pub conclusion: Option<Conclusion>,
    /// When it appeared.
    pub created_at: Timestamp,
    /// When it was last put in the queue.
    pub queued_at: Timestamp,
    /// When a runner began, or when it appeared while none has.
    pub started_at: Timestamp,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
    /// Who works or worked on it.
    pub runner: Option<JobRunner>,
    /// The runner it was offered to, until that one picks it up.
    pub offered: Option<u64>,
    /// How often it was put in the queue; tells timers of an earlier time apart.
    pub turn: u32,
    /// Why it ended otherwise than by itself, for people.
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
    /// Numeric ID, never used again.
    pub id: u64,
    /// Where it is registered; names are unique there.
    pub scope: RegisteredAt,
    /// The runner group's ID.
    pub group: u64,
    /// Its name, as spelled.
    pub name: String,
    /// Its labels; JIT configurations give them lower-cased.
    pub labels: Vec<String>,
    /// Leaves the list after one job.
    pub ephemeral: bool,
    /// Made by a JIT configuration.
    pub jit: bool,
    /// A process is connected.
    pub online: bool,
    /// The job offered to it or running on it.
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

/// What happened, for the [world](crate::world) and for webhooks. The state is read with the accessors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A job appeared or was put in the queue (again).
    JobQueued {
        /// The job's ID.
        job: u64,
    },
    /// A job appeared that waits for something else than a runner.
    JobHeld {
        /// The job's ID.
        job: u64,
    },
    /// A runner began to work on it.
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
        /// Who worked on it.
        runner: Option<u64>,
        /// How it ended.
        conclusion: Conclusion,
    },
    /// A runner's process connected.
    RunnerOnline {
        /// The runner's ID.
        runner: u64,
    },
    /// A runner's process went away.
    RunnerOffline {
        /// The runner's ID.
        runner: u64,
    },
    /// A registration was deleted, or left the list by itself.
    RunnerRemoved {
        /// The runner's ID.
        runner: u64,
        /// Its name.
        name: String,
        /// Who or what removed it.
        by: Removal,
    },
}

/// Why a runner left the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// A request deleted it.
    Deleted,
    /// It was ephemeral and its job is over.
    JobDone,
    /// It was offline for too long.
    Stale,
    /// `config.sh --replace` registered the name anew.
    Replaced,
}

/// An ID in a path.
pub(super) fn number(text: &str) -> Option<u64> {
    text.parse().ok()
}
