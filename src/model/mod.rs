//! The types that all layers share: what GitHub requests, what Nomad runs, and what to do.
//!
//! Ages are the difference between a server's timestamp and the same server's `Date` header. They are never
//! computed with our own wall clock. What we remember ourselves is timed by a monotonic [`Moment`].

mod action;
mod entry;
mod glob;
mod hold;
mod job;
mod labels;
mod moment;
mod names;
mod namespace;
mod naming;
mod observation;
mod owners;
mod plan;
mod purpose;
mod reason;
mod report;
mod rerun;
mod runner;
mod span;
pub mod summary;

use std::time::Duration;

pub use action::{
    Action, CleanUp, IssueCredentials, Orphan, Purge, RemoveOrphan, Rerun, Start, Stop, VerifyRegistration,
};
pub use entry::RepoEntry;
pub use glob::glob_covers;
pub use hold::{Cap, Hold, HoldReason, Subject};
pub use jiff::Timestamp;
pub use job::{
    JobFacts, JobId, JobStatus, Repository, RepositoryId, RepositoryRef, RunFacts, RunId, RunnerId,
    RunnerLevel, Visibility, WorkflowJob,
};
pub use labels::Labels;
pub use moment::Moment;
pub use names::{host_of_page, is_class, is_login, is_repository_name};
pub use namespace::Namespace;
pub use naming::{RUNNER_NAME_MAX, SUFFIX_LENGTH, digest, is_ours_by_name, job_key, last_part, runner_name};
pub use observation::{
    Backoff, Listing, Memory, NomadView, Observation, OwnRegistration, Presence, Refusal, RepositoryView,
    RunnerVariable, Unseen,
};
pub use owners::OwnerPattern;
pub use plan::Plan;
pub use purpose::{Purpose, Warm};
pub use reason::{Consent, PurgeReason, StartReason, StopReason, WarmEnd};
pub use report::{Done, NotDone, Outcome, Report, Unobserved};
pub use rerun::{Conclusion, Ended, EndedJob, Loss, Lost, RerunLimit, RerunMark};
pub use runner::{
    Allocation, Asks, Blocked, Finish, Foreign, ForeignReason, GroupKey, Ownership, Registration, Runner,
    RunnerMeta, RunnerState,
};
pub use span::span;

/// How much later `now` is than `then`; zero if it is earlier.
pub fn age(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or(Duration::ZERO)
}

/// An exponential backoff: `first`, doubled for each of `times`.
pub fn doubled(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1u32.checked_shl(times).unwrap_or(u32::MAX))
}
