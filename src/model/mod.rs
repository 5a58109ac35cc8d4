//! The words that all layers share: what GitHub asks for, what Nomad runs, what is to be done.
//!
//! Ages are computed between a server's timestamp and that same server's `Date` header; our own
//! wall clock is never compared with theirs. What we remember ourselves is timed by a monotonic
//! [`Moment`].

mod action;
mod entry;
mod job;
mod labels;
mod names;
mod naming;
mod observation;
mod report;
mod runner;
pub mod summary;

use std::time::Duration;

pub use action::{
    Action, Backoff, Cap, CleanUp, Consent, Hold, HoldReason, IssueCredentials, Orphan, Plan, Purge,
    PurgeReason, RemoveOrphan, Start, StartReason, Stop, StopReason, Subject, VerifyRegistration, span,
};
pub use entry::RepoEntry;
pub use jiff::Timestamp;
pub use job::{
    EndedJob, JobId, JobStatus, Repository, RepositoryId, RunId, RunnerId, Visibility, WorkflowJob,
};
pub use labels::Labels;
pub use names::{host_of_page, is_class, is_login, is_repository_name};
pub use naming::{RUNNER_NAME_MAX, SUFFIX_LENGTH, is_ours_by_name, runner_name};
pub use observation::{Listing, Memory, NomadView, Observation, OwnRegistration, Presence, RepositoryView};
pub use report::{Done, NotDone, Outcome, Report, Unobserved};
pub use runner::{
    Allocation, Asks, Blocked, Finish, Foreign, ForeignReason, GroupKey, Ownership, Registration, Runner,
    RunnerMeta, RunnerState, whose_repository,
};

/// A monotonic time: how long after the start of this process.
pub type Moment = Duration;

/// How much later `now` is than `then`; zero where it is earlier.
pub fn age(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or(Duration::ZERO)
}

/// A wait that doubles: `first`, then twice that, and so on, for each of `times`.
pub fn doubled(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1u32.checked_shl(times).unwrap_or(u32::MAX))
}
