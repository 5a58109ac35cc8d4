//! Repositories and the jobs of their workflow runs.

use std::{fmt, sync::Arc};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// GitHub's numeric IDs. Each kind has its own type, so that one is never taken for another.
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
    /// A repository. A rename does not change it.
    RepositoryId;
    /// A job of a workflow run. A rerun has a new ID.
    JobId;
    /// A workflow run. Its attempts share it.
    RunId;
    /// A runner's registration.
    RunnerId;
}

/// A repository with GitHub's spelling (contract github.md §1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repository {
    pub id: RepositoryId,
    pub owner: String,
    /// Without the owner.
    pub name: String,
    /// For example `https://github.com/owner/name`.
    pub html_url: String,
    /// Archived: it takes no new jobs.
    pub archived: bool,
    /// Disabled by GitHub: it takes no new jobs.
    pub disabled: bool,
    #[serde(default)]
    pub visibility: Visibility,
}

impl Repository {
    /// `owner/name`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }
}

/// A repository as a runner's Meta names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryRef {
    /// `None` for a runner of nomadtools, which does not record it.
    pub id: Option<RepositoryId>,
    pub owner: String,
    /// Without the owner.
    pub name: String,
    pub html_url: String,
}

impl RepositoryRef {
    /// `owner/name`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// As a repository that takes jobs, if its ID is known.
    pub fn into_repository(self) -> Option<Repository> {
        let RepositoryRef { id, owner, name, html_url } = self;
        let visibility = Visibility::default();
        Some(Repository { id: id?, owner, name, html_url, archived: false, disabled: false, visibility })
    }
}

impl From<&Repository> for RepositoryRef {
    fn from(repository: &Repository) -> Self {
        let Repository { id, owner, name, html_url, .. } = repository.clone();
        RepositoryRef { id: Some(id), owner, name, html_url }
    }
}

/// Where runners register: GitHub's repository-level and organization-level runners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RunnerLevel {
    /// At the repository.
    Repository,
    /// At the organization that owns the repository. They outlive the repository.
    Organization,
}

impl RunnerLevel {
    /// The value of `github.scope`.
    pub fn as_str(self) -> &'static str {
        match self {
            RunnerLevel::Repository => "repository",
            RunnerLevel::Organization => "organization",
        }
    }
}

/// Who can see a repository, and open pull requests in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    /// Everyone. Also the safe assumption if GitHub does not report the visibility.
    #[default]
    Public,
    /// Members of the enterprise.
    Internal,
    /// Those it is shared with.
    Private,
}

impl Visibility {
    /// GitHub's name for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Visibility::Public => "public",
            Visibility::Internal => "internal",
            Visibility::Private => "private",
        }
    }

    /// From GitHub's name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Public, Self::Internal, Self::Private].into_iter().find(|known| known.as_str() == text)
    }
}

/// A job's own status. The status of its run does not determine it (contract github.md §1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    /// Needs a runner.
    Queued,
    /// Is running on a runner.
    InProgress,
    /// Has ended.
    Completed,
    /// Waits for a deployment's protection rules: needs no runner.
    Waiting,
    /// Waits for a concurrency group: needs no runner.
    Pending,
    /// Not yet queued: needs no runner.
    Requested,
    /// A status that this program does not know: needs no runner.
    #[serde(other)]
    Unknown,
}

impl JobStatus {
    /// GitHub's name for it.
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

/// What GitHub reports about a run, for templates. Strangers choose this text. It is truncated when read, and empty if
/// GitHub reports nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFacts {
    /// The workflow's name: free text.
    pub workflow: String,
    /// The login of the user who first started it.
    pub actor: String,
    /// Its branch or tag. That of a pull request from a fork is the fork's.
    pub branch: String,
    /// The event that started it: `push`, `pull_request`, …
    pub event: String,
}

/// What GitHub reports about a job that a runner is started for, besides its labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFacts {
    /// Its name: free text.
    pub name: String,
    /// Its run; 0 if unknown.
    pub run_id: Option<RunId>,
    /// The facts about its run.
    pub run: Arc<RunFacts>,
}

/// A job of a workflow run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkflowJob {
    /// GitHub's ID of the job. A rerun has a new ID.
    pub id: JobId,
    pub run_id: RunId,
    pub repository: RepositoryId,
    /// Free text.
    pub name: String,
    /// Its own status.
    pub status: JobStatus,
    /// `runs-on` as GitHub returns it: hostile text, in any order and case. If there are too many labels or they are
    /// too long, it is truncated to what is needed to detect that.
    pub labels: Arc<[String]>,
    /// The runner that runs it, while it is in progress.
    pub runner_name: Option<String>,
    /// When it was created. GitHub's own examples omit it.
    pub created_at: Option<Timestamp>,
    /// When a runner took it. Meaningless while no runner has it.
    pub started_at: Option<Timestamp>,
    /// Its URL.
    pub html_url: Option<String>,
    /// The facts about its run. The jobs of one run share them.
    #[serde(default)]
    pub run: Arc<RunFacts>,
}

impl WorkflowJob {
    /// The facts that templates may use.
    pub fn facts(&self) -> JobFacts {
        JobFacts { name: self.name.clone(), run_id: Some(self.run_id), run: Arc::clone(&self.run) }
    }
}
