//! Repositories and the jobs of their workflow runs.

use std::{fmt, sync::Arc};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// GitHub's numeric IDs: each kind has a type of its own, so that one is never taken for another.
macro_rules! ids {
    ($($(#[$doc:meta])* $id:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $id(pub u64);

        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

ids! {
    /// A repository; a rename keeps it.
    RepositoryId;
    /// A job of a workflow run; a re-run has another one.
    JobId;
    /// A workflow run; its attempts share it.
    RunId;
    /// A runner's registration.
    RunnerId;
}

/// A repository, as GitHub spells it (contract github.md §1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repository {
    /// The key.
    pub id: RepositoryId,
    /// The owner's login.
    pub owner: String,
    /// The name without the owner.
    pub name: String,
    /// The page of the repository, for example `https://github.com/owner/name`.
    pub html_url: String,
    /// Archived: it takes no new jobs.
    pub archived: bool,
    /// Disabled by GitHub: it takes no new jobs.
    pub disabled: bool,
    /// Who can see it.
    #[serde(default)]
    pub visibility: Visibility,
}

impl Repository {
    /// `owner/name`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }
}

/// Who can see a repository, and open pull requests in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    /// Everybody; and what nobody has told is as careful.
    #[default]
    Public,
    /// Members of the enterprise.
    Internal,
    /// Whom it was shared with.
    Private,
}

impl Visibility {
    /// GitHub's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Visibility::Public => "public",
            Visibility::Internal => "internal",
            Visibility::Private => "private",
        }
    }

    /// From GitHub's word.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Public, Self::Internal, Self::Private].into_iter().find(|known| known.as_str() == text)
    }
}

/// A job's own status; a run's status says nothing of its jobs' (contract github.md §1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    /// Wants a runner.
    Queued,
    /// Runs on a runner.
    InProgress,
    /// Over.
    Completed,
    /// Waits for a deployment's protection rules: wants no runner.
    Waiting,
    /// Waits for a concurrency group: wants no runner.
    Pending,
    /// Not yet queued: wants no runner.
    Requested,
    /// A status this program does not know: wants no runner.
    #[serde(other)]
    Unknown,
}

impl JobStatus {
    /// GitHub's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            JobStatus::Queued => "queued",
            JobStatus::InProgress => "in_progress",
            JobStatus::Completed => "completed",
            JobStatus::Waiting => "waiting",
            JobStatus::Pending => "pending",
            JobStatus::Requested => "requested",
            JobStatus::Unknown => "unknown",
        }
    }
}

/// A job that ran and is over, by GitHub's clock: for what is measured, the planner needs none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedJob {
    /// GitHub's ID of the job.
    pub id: JobId,
    /// The runner that had it.
    pub runner: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When a runner took it.
    pub started_at: Timestamp,
    /// When it ended.
    pub completed_at: Timestamp,
}

/// A job of a workflow run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkflowJob {
    /// GitHub's ID of the job; a re-run has another one.
    pub id: JobId,
    /// The run it belongs to.
    pub run_id: RunId,
    /// Its repository.
    pub repository: RepositoryId,
    /// Free text.
    pub name: String,
    /// Its own status.
    pub status: JobStatus,
    /// `runs-on` as GitHub gives it: hostile text, in any order and case. Of labels that break the rules for being too many
    /// or too long there is only as much as tells it.
    pub labels: Arc<[String]>,
    /// The runner that has it, when it is in progress.
    pub runner_name: Option<String>,
    /// When it was made; GitHub's own examples leave it out.
    pub created_at: Option<Timestamp>,
    /// When a runner took it; of a job that no runner has it says nothing.
    pub started_at: Option<Timestamp>,
    /// Its page.
    pub html_url: Option<String>,
}
