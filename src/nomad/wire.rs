//! The parts of Nomad's responses that we read. Lists and maps may be `null`, and fields may be missing in
//! other versions: everything but an ID has a default (contract §0).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer};

/// One entry of `GET /v1/jobs?meta=true` (contract §3).
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct JobStub {
    #[serde(rename = "ID")]
    pub id: String,
    /// The job that dispatched or launched it; empty for a plain job.
    #[serde(rename = "ParentID", default, deserialize_with = "nullable")]
    pub parent_id: String,
    /// Launches other jobs periodically.
    #[serde(default, deserialize_with = "nullable")]
    pub periodic: bool,
    /// Launches other jobs on dispatch.
    #[serde(default, deserialize_with = "nullable")]
    pub parameterized_job: bool,
    /// Whether it was told to stop.
    #[serde(default, deserialize_with = "nullable")]
    pub stop: bool,
    /// `pending`, `running` or `dead`; also `dead` while a task of a stopped job is still running (contract
    /// §10).
    #[serde(default, deserialize_with = "nullable")]
    pub status: String,
    /// The cluster's index when it was first registered.
    #[serde(default, deserialize_with = "nullable")]
    pub create_index: u64,
    /// The cluster's index when it was last registered or stopped.
    #[serde(default, deserialize_with = "nullable")]
    pub job_modify_index: u64,
    /// Nanoseconds since the epoch. Stopping a job changes it.
    #[serde(default, deserialize_with = "nullable")]
    pub submit_time: i64,
    /// Counts of allocations.
    #[serde(default, deserialize_with = "nullable")]
    pub job_summary: JobSummary,
    /// Omitted if empty.
    #[serde(default, deserialize_with = "nullable")]
    pub meta: BTreeMap<String, String>,
}

/// `JobSummary` of a [`JobStub`].
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct JobSummary {
    /// By task group.
    #[serde(default, deserialize_with = "nullable")]
    pub summary: BTreeMap<String, GroupSummary>,
}

/// The counts of one task group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct GroupSummary {
    /// Not placed yet.
    pub queued: i64,
    /// Ended successfully.
    pub complete: i64,
    /// Failed.
    pub failed: i64,
    /// Their node is down.
    pub lost: i64,
}

/// One entry of `GET /v1/allocations` (contract §3).
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AllocationStub {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "JobID")]
    pub job_id: String,
    #[serde(rename = "NodeID", default, deserialize_with = "nullable")]
    pub node_id: String,
    /// The name of its node.
    #[serde(default, deserialize_with = "nullable")]
    pub node_name: String,
    /// `run`, `stop` or `evict`.
    #[serde(default, deserialize_with = "nullable")]
    pub desired_status: String,
    /// The reason.
    #[serde(default, deserialize_with = "nullable")]
    pub desired_description: String,
    /// `pending`, `running`, `complete`, `failed`, `lost` or `unknown`.
    #[serde(default, deserialize_with = "nullable")]
    pub client_status: String,
    /// The reason.
    #[serde(default, deserialize_with = "nullable")]
    pub client_description: String,
    /// By task; `null` until the client has reported it.
    #[serde(default, deserialize_with = "nullable")]
    pub task_states: BTreeMap<String, TaskState>,
    /// It is too large to read with its tasks, so nothing is known about them.
    #[serde(skip)]
    pub tasks_unread: bool,
    /// The evaluation that will replace a failed allocation after a delay.
    #[serde(rename = "FollowupEvalID", default, deserialize_with = "nullable")]
    pub followup_evaluation: String,
    /// The order of creation.
    #[serde(default, deserialize_with = "nullable")]
    pub create_index: u64,
    /// Nanoseconds since the epoch, by the servers' clock.
    #[serde(default, deserialize_with = "nullable")]
    pub create_time: i64,
    /// Nanoseconds since the epoch, by the servers' clock.
    #[serde(default, deserialize_with = "nullable")]
    pub modify_time: i64,
}

/// The state of one task of an allocation (contract §10). Times are by the client's clock.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TaskState {
    /// `pending`, `running` or `dead`.
    #[serde(default, deserialize_with = "nullable")]
    pub state: String,
    #[serde(default, deserialize_with = "nullable")]
    pub failed: bool,
    /// When its process started.
    #[serde(default, deserialize_with = "time")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, deserialize_with = "time")]
    pub finished_at: Option<Timestamp>,
    /// The last ten events.
    #[serde(default, deserialize_with = "nullable")]
    pub events: Vec<TaskEvent>,
}

/// One event of a task.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TaskEvent {
    /// `Started`, `Terminated`, `Killing`, `Driver Failure`, …
    #[serde(default, rename = "Type", deserialize_with = "nullable")]
    pub kind: String,
    /// For display.
    #[serde(default, deserialize_with = "nullable")]
    pub display_message: String,
    /// All strings: `exit_code`, `signal`, `oom_killed`, …
    #[serde(default, deserialize_with = "nullable")]
    pub details: BTreeMap<String, String>,
}

/// One entry of `GET /v1/evaluations` (contract §12).
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Evaluation {
    /// The job it is for.
    #[serde(rename = "JobID", default, deserialize_with = "nullable")]
    pub job_id: String,
    /// The order of changes.
    #[serde(default, deserialize_with = "nullable")]
    pub modify_index: u64,
    /// Why task groups were not placed.
    #[serde(rename = "FailedTGAllocs", default, deserialize_with = "nullable")]
    pub failed_groups: BTreeMap<String, AllocationMetric>,
}

/// What the scheduler saw when it could not place a task group.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AllocationMetric {
    /// Nodes that were considered.
    #[serde(default, deserialize_with = "nullable")]
    pub nodes_evaluated: i64,
    /// Nodes that were filtered out.
    #[serde(default, deserialize_with = "nullable")]
    pub nodes_filtered: i64,
    /// Nodes that match but are full.
    #[serde(default, deserialize_with = "nullable")]
    pub nodes_exhausted: i64,
    /// Nodes that are up, by datacenter.
    #[serde(default, deserialize_with = "nullable")]
    pub nodes_available: BTreeMap<String, i64>,
    /// Nodes by the constraint that excluded them.
    #[serde(default, deserialize_with = "nullable")]
    pub constraint_filtered: BTreeMap<String, i64>,
    /// Nodes by the class that excluded them.
    #[serde(default, deserialize_with = "nullable")]
    pub class_filtered: BTreeMap<String, i64>,
    /// Full nodes by what they lack.
    #[serde(default, deserialize_with = "nullable")]
    pub dimension_exhausted: BTreeMap<String, i64>,
    /// The reached limits of the namespace's quota.
    #[serde(default, deserialize_with = "nullable")]
    pub quota_exhausted: Vec<String>,
}

/// One entry of `GET /v1/vars`, or a variable's metadata.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct VariableStub {
    #[serde(default, deserialize_with = "nullable")]
    pub(super) path: String,
    /// Nanoseconds since the epoch, by the servers' clock.
    #[serde(default, deserialize_with = "nullable")]
    pub(super) create_time: i64,
}

/// `GET /v1/var/PATH`, and the response to a write. No `Debug`, because Items may be secrets.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Variable {
    #[serde(default, deserialize_with = "nullable")]
    pub(super) items: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) create_index: u64,
}

/// Reads `null` as the default.
pub(super) fn nullable<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// RFC 3339, `null`, or Go's zero time, which means no time.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.and_then(|text| text.parse().ok()).filter(|time| *time > Timestamp::UNIX_EPOCH))
}

/// Nanoseconds since the epoch.
pub(super) fn nanoseconds(time: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(time)).unwrap_or(Timestamp::UNIX_EPOCH)
}
