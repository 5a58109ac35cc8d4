//! The state of servers and clients: plain data without behaviour.
//!
//! Times are nanoseconds since the epoch. Indexes are Raft's, as in Nomad's own API.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::Value;

use super::{gotime::Nanos, spec::Group};

/// How many allocations of a group were placed, stopped, and stopped with a replacement.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    pub place: u64,
    pub stop: u64,
    pub migrate: u64,
}

/// A job as the servers know it.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its namespace.
    pub namespace: String,
    /// Its ID.
    pub id: String,
    /// Its type: `batch`, `service`, …
    pub kind: String,
    /// Its priority.
    pub priority: i64,
    /// Its metadata.
    pub meta: BTreeMap<String, String>,
    /// `pending`, `running` or `dead`.
    pub status: &'static str,
    /// Whether it has been stopped.
    pub stop: bool,
    /// How often its specification has changed.
    pub version: u64,
    /// When it was last registered.
    pub submit_time: Nanos,
    /// The index of its creation.
    pub create_index: u64,
    /// The index of its last change, including its status.
    pub modify_index: u64,
    /// The index of the last change of its specification.
    pub job_modify_index: u64,
    /// The specification in the servers' form, with all fields set.
    pub spec: Arc<Value>,
    /// The submission that came with it, if any.
    pub submission: Option<Value>,
    pub(super) groups: Vec<Arc<Group>>,
    pub(super) summary_index: u64,
}

/// An evaluation.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// Its ID.
    pub id: String,
    /// The job's namespace.
    pub namespace: String,
    /// The job's ID.
    pub job_id: String,
    /// The job's type.
    pub kind: String,
    /// Its priority.
    pub priority: i64,
    /// `pending`, `complete`, `blocked` or `canceled`.
    pub status: &'static str,
    /// Why, if the status alone does not say it.
    pub status_description: String,
    /// What caused it.
    pub triggered_by: &'static str,
    /// The index of its creation.
    pub create_index: u64,
    /// The index of its last change.
    pub modify_index: u64,
    /// When it was created.
    pub create_time: Nanos,
    /// When it last changed.
    pub modify_time: Nanos,
    /// By group: why it could not place all allocations.
    pub failed: BTreeMap<String, Value>,
    pub(super) job_modify_index: u64,
    pub(super) snapshot_index: u64,
    pub(super) previous: String,
    pub(super) blocked: String,
    pub(super) wait_until: Nanos,
    pub(super) queued: Option<BTreeMap<String, u64>>,
    pub(super) placed: Option<BTreeMap<String, Counts>>,
}

/// An allocation as the servers know it, and what its client already knows.
#[derive(Debug, Clone)]
pub struct Allocation {
    /// Its ID.
    pub id: String,
    /// `JOB.GROUP[N]`.
    pub name: String,
    /// The job's namespace.
    pub namespace: String,
    /// The job's ID.
    pub job_id: String,
    /// The job at that time.
    pub(super) job: OfJob,
    /// The group's name.
    pub group: String,
    /// The node's name.
    pub node: String,
    /// The node's ID.
    pub node_id: String,
    /// The evaluation that created or last changed it.
    pub eval_id: String,
    /// `run`, `stop` or `evict`.
    pub desired_status: &'static str,
    /// Why.
    pub desired_description: &'static str,
    /// `pending`, `running`, `complete`, `failed`, `lost` or `unknown`.
    pub client_status: &'static str,
    /// Why.
    pub client_description: &'static str,
    /// The tasks' states.
    pub tasks: Vec<Task>,
    /// The index of its creation.
    pub create_index: u64,
    /// The index of its last change.
    pub modify_index: u64,
    /// When it was created.
    pub create_time: Nanos,
    /// When it last changed.
    pub modify_time: Nanos,
    /// The allocation that replaces it, or empty.
    pub next: String,
    /// The allocation that it replaces, or empty.
    pub previous: String,
    pub(super) alloc_modify_index: u64,
    pub(super) index: u64,
    /// Its replacement.
    pub(super) replacement: Replacement,
    pub(super) spec: Arc<Group>,
    /// The client's knowledge.
    pub(super) client: Client,
    /// Its job was purged. The servers no longer know it, but its process may still exist.
    pub(super) purged: bool,
    /// Since when its node has been disconnected, while it is unknown.
    pub(super) unknown_since: Nanos,
    /// How far its node's clock is ahead of the servers'.
    pub(super) clock_ahead: Nanos,
}

/// The parts of the job that an allocation keeps, from when it was created.
#[derive(Debug, Clone)]
pub struct OfJob {
    pub version: u64,
    pub kind: String,
    pub name: String,
    pub meta: BTreeMap<String, String>,
}

/// How an allocation is replaced.
#[derive(Debug, Clone, Default)]
pub struct Replacement {
    /// The evaluation that will do it.
    pub followup: String,
    pub reschedules: Vec<Reschedule>,
    /// Its node is drained.
    pub migrate: bool,
    /// Someone requested that it is stopped and replaced.
    pub moves: bool,
}

/// An attempt to reschedule a failed allocation.
#[derive(Debug, Clone)]
pub struct Reschedule {
    pub(super) at: Nanos,
    pub(super) delay: Nanos,
    pub(super) previous: String,
}

/// The client's side of an allocation.
#[derive(Debug, Clone, Default)]
pub struct Client {
    pub(super) tasks: Vec<Task>,
    /// Stopping, on the servers' or its own initiative.
    pub(super) stopping: bool,
    /// Stopped because `max_run_duration` was over.
    pub(super) exceeded: bool,
    /// A report to the servers is on its way.
    pub(super) report_due: bool,
    /// The servers do not know everything yet.
    pub(super) unreported: bool,
    /// Its reschedule policy wants a replacement now.
    pub(super) again: bool,
}

/// The phase of a task, as its client knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TaskPhase {
    /// Not set up yet.
    New,
    /// A template waits for a variable.
    Waiting,
    /// The process is being started.
    Starting,
    /// The process is running.
    Running,
    /// The process was told to end.
    Killing,
    /// It waits for its next start.
    Restarting,
    /// It has ended.
    Dead,
}

/// A task's state.
#[derive(Debug, Clone)]
pub struct Task {
    /// Its name.
    pub name: String,
    /// Its phase.
    pub phase: TaskPhase,
    /// Whether it failed.
    pub failed: bool,
    /// How often it was restarted.
    pub restarts: u64,
    /// When its process last started.
    pub started_at: Option<Nanos>,
    /// When it ended.
    pub finished_at: Option<Nanos>,
    /// When it was last restarted.
    pub last_restart: Option<Nanos>,
    /// The last ten events, in the API's format.
    pub events: Vec<Arc<Value>>,
    /// The restarts counted against the policy.
    pub(super) recent_restarts: Vec<Nanos>,
    /// The environment of the process.
    pub(super) env: BTreeMap<String, String>,
    /// Counts starts. Identifies events of an earlier one.
    pub(super) round: u64,
    /// If it is killed only to be restarted: why.
    pub(super) again: Option<&'static str>,
}

impl Task {
    /// `pending`, `running` or `dead`.
    pub fn state(&self) -> &'static str {
        match self.phase {
            TaskPhase::Running | TaskPhase::Killing => "running",
            TaskPhase::Dead => "dead",
            _ => "pending",
        }
    }

    /// Whether its process exists.
    pub fn alive(&self) -> bool {
        matches!(self.phase, TaskPhase::Running | TaskPhase::Killing)
    }
}

impl Allocation {
    /// Whether the servers consider it ended: stopped, or ended on its client.
    pub fn terminal(&self) -> bool {
        self.desired_status != "run" || self.client_terminal()
    }

    /// Whether its client has reported its end.
    pub fn client_terminal(&self) -> bool {
        matches!(self.client_status, "complete" | "failed" | "lost")
    }

    /// Whether its policy wants a replacement now.
    pub(super) fn due_again(&self) -> bool {
        self.client.again
    }

    /// Whether its client has ended all its tasks.
    pub(super) fn over(&self) -> bool {
        self.client.tasks.iter().all(|task| task.phase == TaskPhase::Dead)
    }

    /// Whether it has a process now.
    pub fn alive(&self) -> bool {
        self.client.tasks.iter().any(Task::alive)
    }

    /// The tasks as the client knows them now, including unreported changes.
    pub fn client_tasks(&self) -> &[Task] {
        &self.client.tasks
    }
}

/// A variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// Its namespace.
    pub namespace: String,
    /// Its path.
    pub path: String,
    /// Its items.
    pub items: BTreeMap<String, String>,
    /// The index of its creation.
    pub create_index: u64,
    /// The index of its last change.
    pub modify_index: u64,
    /// When it was created.
    pub create_time: Nanos,
    /// When it last changed.
    pub modify_time: Nanos,
    /// The lock on it.
    pub lock: Option<Lock>,
}

/// A lock on a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// Its ID.
    pub id: String,
    /// Its time to live in nanoseconds.
    pub ttl: Nanos,
    /// How long nobody can acquire it after it expired, in nanoseconds.
    pub delay: Nanos,
    /// When it expires unless it is renewed.
    pub expires: Nanos,
}

/// A namespace.
#[derive(Debug, Clone)]
pub struct Namespace {
    pub(super) name: String,
    pub(super) description: String,
    pub(super) create_index: u64,
    pub(super) modify_index: u64,
}

/// A client node.
#[derive(Debug, Clone)]
pub struct NodeState {
    pub(super) id: String,
    pub(super) node: super::Node,
    pub(super) up: bool,
    pub(super) draining: bool,
    pub(super) drain_deadline: Nanos,
    pub(super) modify_index: u64,
    /// Allocations that ended on it, oldest first. The oldest lose their logs first.
    pub(super) ended: BTreeSet<(Nanos, String)>,
}
