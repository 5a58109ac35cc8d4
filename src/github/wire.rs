//! What we read of GitHub's answers, and no more of it: these are also what the cache keeps.
//!
//! GitHub's own examples leave out fields and its clients meet nulls where its description has none, so everything
//! that can be missing may be.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::address::Web;
use crate::labels::{LABEL_LENGTH_MAX, LABELS_LENGTH_MAX, LABELS_MAX};
use crate::model::{
    EndedJob, JobId, JobStatus, Repository, RepositoryId, RunId, RunnerId, Timestamp, Visibility,
    WorkflowJob, is_login, is_repository_name,
};

/// The longest job name kept, in characters: it is free text and only shown.
const MAX_NAME: usize = 200;

/// A page of a list: its items have IDs, and some lists count themselves.
pub trait Page: Serialize + serde::de::DeserializeOwned + Send + Sync + 'static {
    /// What the list is of.
    type Item: Clone + Send;
    /// Whether GitHub filters the list, and shows no more than [`MAX_ITEMS`](super::listed::MAX_ITEMS) of it.
    const FILTERED: bool = false;
    /// The items with their IDs.
    fn items(&self) -> impl Iterator<Item = (u64, Self::Item)>;
    /// How many the server says there are, on all pages.
    fn total(&self) -> Option<u64>;
}

/// A page of `/actions/runs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunsPage {
    total_count: u64,
    workflow_runs: Vec<Run>,
}

/// A workflow run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Its ID.
    pub id: RunId,
    /// 1, 2, … as it is run again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_attempt: Option<u32>,
    /// The repository, where the answer tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<Reference>,
    /// Its status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<JobStatus>,
    /// When it was made.
    #[serde(default, deserialize_with = "time_or_none", skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// When it last changed.
    #[serde(default, deserialize_with = "time_or_none", skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Timestamp>,
}

/// Something with a numeric ID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// The ID.
    pub id: u64,
}

impl Page for RunsPage {
    type Item = Run;
    const FILTERED: bool = true;
    fn items(&self) -> impl Iterator<Item = (u64, Run)> {
        self.workflow_runs.iter().map(|run| (run.id.0, run.clone()))
    }
    fn total(&self) -> Option<u64> {
        Some(self.total_count)
    }
}

/// A page of a run's jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobsPage {
    total_count: u64,
    jobs: Vec<Arc<Job>>,
}

/// A job of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its ID.
    pub id: JobId,
    /// Its own status.
    pub status: JobStatus,
    #[serde(default, deserialize_with = "or_default")]
    name: String,
    #[serde(default, deserialize_with = "bounded_labels")]
    labels: Arc<[String]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    runner_name: Option<String>,
    #[serde(default, deserialize_with = "time_or_none", skip_serializing_if = "Option::is_none")]
    created_at: Option<Timestamp>,
    #[serde(default, deserialize_with = "time_or_none", skip_serializing_if = "Option::is_none")]
    started_at: Option<Timestamp>,
    #[serde(default, deserialize_with = "time_or_none", skip_serializing_if = "Option::is_none")]
    completed_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    html_url: Option<String>,
}

impl Job {
    /// What it runs on.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Who runs it.
    pub fn runner_name(&self) -> Option<&str> {
        self.runner_name.as_deref().filter(|name| !name.is_empty())
    }

    /// The job if it ran and is over, and GitHub says when.
    pub fn ended(&self) -> Option<EndedJob> {
        let runner = self.runner_name().filter(|_| self.status == JobStatus::Completed)?;
        Some(EndedJob {
            id: self.id,
            runner: runner.to_owned(),
            created_at: self.created_at?,
            started_at: self.started_at?,
            completed_at: self.completed_at?,
        })
    }

    /// The job in the words of the model.
    pub fn to_model(&self, repository: RepositoryId, run_id: RunId) -> WorkflowJob {
        WorkflowJob {
            id: self.id,
            run_id,
            repository,
            name: self.name.chars().take(MAX_NAME).collect(),
            status: self.status,
            labels: self.labels.clone(),
            // An empty name is what GitHub sends for a job that no runner has.
            runner_name: self.runner_name.clone().filter(|name| !name.is_empty()),
            created_at: self.created_at,
            started_at: self.started_at.filter(|_| self.status == JobStatus::InProgress),
            html_url: self.html_url.clone(),
        }
    }
}

impl Page for JobsPage {
    type Item = Arc<Job>;
    const FILTERED: bool = true;
    fn items(&self) -> impl Iterator<Item = (u64, Arc<Job>)> {
        self.jobs.iter().map(|job| (job.id.0, job.clone()))
    }
    fn total(&self) -> Option<u64> {
        Some(self.total_count)
    }
}

/// A repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryRow {
    id: u64,
    name: String,
    owner: Owner,
    html_url: String,
    #[serde(default, deserialize_with = "or_default")]
    archived: bool,
    #[serde(default, deserialize_with = "or_default")]
    disabled: bool,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    private: Option<bool>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    visibility: Option<String>,
    /// The last push.
    #[serde(default, deserialize_with = "time_or_none", skip_serializing_if = "Option::is_none")]
    pub pushed_at: Option<Timestamp>,
}

/// A user or an organization.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The login.
    pub login: String,
    /// `User` or `Organization`.
    #[serde(default, rename = "type", deserialize_with = "or_default")]
    pub kind: String,
}

impl RepositoryRow {
    /// Who can see it (contract github.md §1): older servers tell only whether it is private.
    fn visibility(&self) -> Visibility {
        let told = self.visibility.as_deref().and_then(Visibility::parse);
        told.unwrap_or(if self.private == Some(true) { Visibility::Private } else { Visibility::Public })
    }

    /// The repository in the words of the model, its texts checked: owner, name and page go into templates, paths and
    /// Meta.
    ///
    /// # Errors
    /// Which rule of GitHub's own it breaks.
    pub fn to_model(&self, web: &Web) -> Result<Repository, String> {
        let problem = |what: String| Err(format!("repository {} is left out: {what}", self.id));
        let (owner, name) = (&self.owner.login, &self.name);
        if !is_login(owner) {
            return problem(format!("\"{}\" is not a valid GitHub login", shown(owner)));
        }
        if !is_repository_name(name) {
            return problem(format!("\"{}\" is not a valid repository name", shown(name)));
        }
        if let Err(what) = web.check(&self.html_url, owner, name) {
            return problem(what);
        }
        Ok(Repository {
            id: RepositoryId(self.id),
            owner: owner.clone(),
            name: name.clone(),
            html_url: self.html_url.clone(),
            archived: self.archived,
            disabled: self.disabled,
            visibility: self.visibility(),
        })
    }
}

/// How much of a text that is not permitted is shown, in characters.
const SHOWN: usize = 40;

/// The start of a text from outside, harmless: in ASCII, the rest escaped.
pub(super) fn shown(text: &str) -> String {
    let more = if text.chars().nth(SHOWN).is_some() { "…" } else { "" };
    let start: String = text.chars().take(SHOWN).collect();
    format!("{}{more}", start.escape_default())
}

/// A page of a user's or an organization's repositories.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RepositoriesPage(Vec<RepositoryRow>);

impl Page for RepositoriesPage {
    type Item = RepositoryRow;
    fn items(&self) -> impl Iterator<Item = (u64, RepositoryRow)> {
        self.0.iter().map(|row| (row.id, row.clone()))
    }
    fn total(&self) -> Option<u64> {
        None
    }
}

/// A page of an installation's repositories.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallationRepositoriesPage {
    total_count: u64,
    repositories: Vec<RepositoryRow>,
}

impl Page for InstallationRepositoriesPage {
    type Item = RepositoryRow;
    fn items(&self) -> impl Iterator<Item = (u64, RepositoryRow)> {
        self.repositories.iter().map(|row| (row.id, row.clone()))
    }
    fn total(&self) -> Option<u64> {
        Some(self.total_count)
    }
}

/// A page of runners.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunnersPage {
    total_count: u64,
    runners: Vec<RunnerRow>,
}

/// A registered runner.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunnerRow {
    /// Its ID.
    pub id: RunnerId,
    /// Its name.
    pub name: String,
    /// `online` or `offline`.
    #[serde(default, deserialize_with = "or_default")]
    pub status: String,
    /// Whether it runs a job.
    #[serde(default, deserialize_with = "or_default")]
    pub busy: bool,
    /// Its version, once it has connected.
    #[serde(default, deserialize_with = "or_default")]
    pub version: Option<String>,
}

/// No version of a runner is longer, in bytes.
const LONGEST_VERSION: usize = 20;

/// A version as GitHub says it, if it is one: it becomes a part of a path and of what people read.
pub(super) fn runner_version(version: Option<String>) -> Option<String> {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    version.filter(|version| version.len() <= LONGEST_VERSION && version.split('.').all(is_number))
}

impl Page for RunnersPage {
    type Item = RunnerRow;
    fn items(&self) -> impl Iterator<Item = (u64, RunnerRow)> {
        self.runners.iter().map(|row| (row.id.0, row.clone()))
    }
    fn total(&self) -> Option<u64> {
        Some(self.total_count)
    }
}

/// A page of an organization's runner groups.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GroupsPage {
    total_count: u64,
    runner_groups: Vec<GroupRow>,
}

/// A runner group.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GroupRow {
    /// Its ID.
    pub id: u64,
    /// Its name.
    pub name: String,
}

impl Page for GroupsPage {
    type Item = GroupRow;
    fn items(&self) -> impl Iterator<Item = (u64, GroupRow)> {
        self.runner_groups.iter().map(|row| (row.id, row.clone()))
    }
    fn total(&self) -> Option<u64> {
        Some(self.total_count)
    }
}

/// A page of an App's installations.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstallationsPage(Vec<Installation>);

/// An App's installation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Installation {
    /// Its ID.
    pub id: u64,
    /// Whose it is; nobody's for an enterprise.
    pub account: Option<Account>,
    /// Since when it is suspended.
    #[serde(default)]
    pub suspended_at: Option<String>,
}

/// The account of an installation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Account {
    /// The login; an enterprise has none.
    #[serde(default, deserialize_with = "or_default")]
    pub login: String,
}

impl Page for InstallationsPage {
    type Item = Installation;
    fn items(&self) -> impl Iterator<Item = (u64, Installation)> {
        self.0.iter().map(|installation| (installation.id, installation.clone()))
    }
    fn total(&self) -> Option<u64> {
        None
    }
}

impl Page for RepositoryRow {
    type Item = RepositoryRow;
    fn items(&self) -> impl Iterator<Item = (u64, RepositoryRow)> {
        std::iter::once((self.id, self.clone()))
    }
    fn total(&self) -> Option<u64> {
        None
    }
}

impl Page for Owner {
    type Item = Owner;
    fn items(&self) -> impl Iterator<Item = (u64, Owner)> {
        std::iter::once((0, self.clone()))
    }
    fn total(&self) -> Option<u64> {
        None
    }
}

/// `null` as the default.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Labels, no more of them than it takes to see that they break the rules (see [`crate::labels`]): a stranger writes them,
/// and a page can hold 100 jobs with 100 labels each.
fn bounded_labels<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<[String]>, D::Error> {
    struct Bounded;

    impl<'de> Visitor<'de> for Bounded {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of labels")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut labels: A) -> Result<Self::Value, A::Error> {
            let (mut kept, mut length) = (Vec::new(), 0);
            while kept.len() <= LABELS_MAX && length <= LABELS_LENGTH_MAX {
                let Some(label) = labels.next_element::<Cow<'_, str>>()? else { return Ok(kept) };
                let end = label.char_indices().nth(LABEL_LENGTH_MAX + 1).map_or(label.len(), |(at, _)| at);
                let label = label[..end].to_owned();
                length += label.len();
                kept.push(label);
            }
            while labels.next_element::<IgnoredAny>()?.is_some() {}
            Ok(kept)
        }
    }

    Ok(deserializer.deserialize_any(Bounded)?.into())
}

/// A time; anything else is none: it is only used to give up on old jobs.
fn time_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.and_then(|text| text.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_numbers_with_points() {
        let good = |text: &str| runner_version(Some(text.to_owned())).is_some();
        assert!(good("2.334.0"));
        for bad in ["", ".", "2.", "2/../3", "2.334.0-beta", "1.2.3.4.5.6.7.8.9.10.11", "2\u{202e}"] {
            assert!(!good(bad), "{bad}");
        }
    }
}
