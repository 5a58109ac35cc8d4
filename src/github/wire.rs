//! The parts of GitHub's responses that we read. The cache keeps the same.
//!
//! GitHub's own examples omit fields, and clients see nulls that the description does not allow, so everything
//! that can be missing may be.

use std::{borrow::Cow, fmt, sync::Arc};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{IgnoredAny, SeqAccess, Visitor},
};

use super::address::Web;
use crate::{
    labels::{LABEL_LENGTH_MAX, LABELS_LENGTH_MAX, LABELS_MAX},
    model::{
        Conclusion, EndedJob, JobId, JobStatus, Repository, RepositoryId, RunFacts, RunId, RunnerId,
        Timestamp, Visibility, WorkflowJob, is_login, is_repository_name, job_key,
    },
};

/// Names of jobs and workflows are free text, and are truncated to this many characters. A longer branch or login is
/// dropped instead, because a part of it is another one's name.
const MAX_NAME: usize = 200;

/// A page of a list. Its items have IDs, and some lists have a total.
pub trait Page: Serialize + serde::de::DeserializeOwned + Send + Sync + 'static {
    /// The type of the items.
    type Item: Clone + Send;
    /// Whether GitHub filters the list, and returns no more than [`MAX_ITEMS`](super::listed::MAX_ITEMS) of
    /// it.
    const FILTERED: bool = false;
    /// The items with their IDs.
    fn items(&self) -> impl Iterator<Item = (u64, Self::Item)>;
    /// The server's total of all pages.
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
    pub id: RunId,
    /// Counted from 1; a rerun increases it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_attempt: Option<u32>,
    /// The repository, if the response includes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<Reference>,
    /// Its status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<JobStatus>,
    /// When it was created.
    #[serde(default, deserialize_with = "time_or_none", skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// When it last changed.
    #[serde(default, deserialize_with = "time_or_none", skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Timestamp>,
    /// The workflow's name.
    #[serde(default, deserialize_with = "cut_name", skip_serializing_if = "String::is_empty")]
    name: String,
    /// Its branch or tag.
    #[serde(default, deserialize_with = "whole_name", skip_serializing_if = "String::is_empty")]
    head_branch: String,
    /// The event that started it.
    #[serde(default, deserialize_with = "whole_name", skip_serializing_if = "String::is_empty")]
    event: String,
    /// The user who started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    actor: Option<Actor>,
}

/// The user who started a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Actor {
    #[serde(default, deserialize_with = "whole_name")]
    login: String,
}

impl Run {
    /// The facts that templates may use.
    pub fn facts(&self) -> RunFacts {
        RunFacts {
            workflow: self.name.clone(),
            actor: self.actor.as_ref().map(|actor| actor.login.clone()).unwrap_or_default(),
            branch: self.head_branch.clone(),
            event: self.event.clone(),
        }
    }
}

/// Something with a numeric ID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
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
    pub id: JobId,
    /// Its own status.
    pub status: JobStatus,
    #[serde(default, deserialize_with = "cut_name")]
    name: String,
    #[serde(default)]
    run_id: RunId,
    #[serde(default, deserialize_with = "or_default")]
    run_attempt: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    conclusion: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    steps: Steps,
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

/// Whether one of a job's steps failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Step>", into = "Vec<Step>")]
pub(super) struct Steps {
    failed: bool,
}

#[derive(Default, Serialize, Deserialize)]
struct Step {
    #[serde(default)]
    conclusion: Option<String>,
}

impl From<Vec<Step>> for Steps {
    fn from(steps: Vec<Step>) -> Self {
        let failed = steps.iter().any(|step| step.conclusion.as_deref() == Some("failure"));
        Steps { failed }
    }
}

impl From<Steps> for Vec<Step> {
    fn from(steps: Steps) -> Self {
        let failed = || Step { conclusion: Some("failure".to_owned()) };
        Vec::from_iter(steps.failed.then(failed))
    }
}

impl Steps {
    /// How the job ended, given GitHub's conclusion. A job with a failed step failed on its own. If its runner was
    /// lost, the step that ran has no conclusion (contract §8).
    pub(super) fn conclusion(self, word: Option<&str>) -> Conclusion {
        match Conclusion::parse(word) {
            _ if self.failed => Conclusion::Other,
            conclusion => conclusion,
        }
    }
}

impl Job {
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The key that it shares with its re-runs.
    pub(super) fn key(&self) -> String {
        job_key(&self.name)
    }

    /// When it was created.
    pub(super) fn created_at(&self) -> Option<Timestamp> {
        self.created_at
    }

    /// The result of its steps.
    pub(super) fn steps(&self) -> Steps {
        self.steps
    }

    /// The runner that runs it.
    pub fn runner_name(&self) -> Option<&str> {
        self.runner_name.as_deref().filter(|name| !name.is_empty())
    }

    /// The job if it ran and has ended, and GitHub says when.
    pub fn ended(&self) -> Option<EndedJob> {
        let runner = self.runner_name().filter(|_| self.status == JobStatus::Completed)?;
        Some(EndedJob {
            id: self.id,
            run_id: self.run_id,
            // GitHub's own examples omit it.
            run_attempt: self.run_attempt.unwrap_or(1),
            key: job_key(&self.name),
            conclusion: self.steps.conclusion(self.conclusion.as_deref()),
            runner: runner.to_owned(),
            created_at: self.created_at?,
            started_at: self.started_at?,
            completed_at: self.completed_at?,
        })
    }

    /// The job in the words of the model.
    pub fn to_model(&self, repository: RepositoryId, run_id: RunId, run: Arc<RunFacts>) -> WorkflowJob {
        WorkflowJob {
            id: self.id,
            run_id,
            repository,
            name: self.name.clone(),
            status: self.status,
            labels: self.labels.clone(),
            // GitHub sends an empty name for a job without a runner.
            runner_name: self.runner_name.clone().filter(|name| !name.is_empty()),
            created_at: self.created_at,
            started_at: self.started_at.filter(|_| self.status == JobStatus::InProgress),
            html_url: self.html_url.clone(),
            run,
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
    pub login: String,
    /// `User` or `Organization`.
    #[serde(default, rename = "type", deserialize_with = "or_default")]
    pub kind: String,
}

impl RepositoryRow {
    /// Its visibility (contract github.md §1). Older servers only report whether it is private.
    fn visibility(&self) -> Visibility {
        let told = self.visibility.as_deref().and_then(Visibility::parse);
        told.unwrap_or(if self.private == Some(true) { Visibility::Private } else { Visibility::Public })
    }

    /// Converts the repository to the model and checks its texts: owner, name and URL go into templates, paths and
    /// Meta.
    ///
    /// # Errors
    /// Which of GitHub's own rules it breaks.
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

/// How many characters of an invalid text are shown.
const SHOWN: usize = 40;

/// The start of an external text, made safe: ASCII, with everything else escaped.
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
    pub id: RunnerId,
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

/// The longest runner version, in bytes.
const LONGEST_VERSION: usize = 20;

/// A valid version; it becomes part of a path and of messages.
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
    pub id: u64,
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
    pub id: u64,
    /// The owner; an enterprise has none.
    pub account: Option<Account>,
    /// Since when it has been suspended.
    #[serde(default)]
    pub suspended_at: Option<String>,
}

/// The account of an installation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Account {
    /// An enterprise has none.
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

/// Reads `null` as the default.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Free text, truncated.
fn cut_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = Option::<Cow<'_, str>>::deserialize(deserializer)?.unwrap_or_default();
    let end = text.char_indices().nth(MAX_NAME).map_or(text.len(), |(end, _)| end);
    Ok(text[..end].to_owned())
}

/// A name, or an empty text if it is too long.
fn whole_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = Option::<Cow<'_, str>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(if text.len() <= MAX_NAME { text.into_owned() } else { String::new() })
}

/// Labels, but only as many as are needed to detect that they break the rules (see [`crate::labels`]). Strangers choose
/// them, and a page can have 100 jobs with 100 labels each.
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

/// A time, or `None` if it is invalid: it is only used to give up on old jobs.
fn time_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.and_then(|text| text.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_facts_for_templates_are_kept_of_a_run() {
        let long = "x".repeat(1_000_000);
        let run = |name: &str, branch: &str, actor: serde_json::Value| -> Run {
            serde_json::from_value(serde_json::json!({
                "id": 7, "name": name, "head_branch": branch, "event": "push", "actor": actor,
            }))
            .unwrap()
        };
        let facts = run(&long, &long, serde_json::json!({"login": long, "id": 1})).facts();
        assert_eq!((facts.workflow.len(), facts.branch.len(), facts.actor.len()), (MAX_NAME, 0, 0));
        let one = run("CI", "main", serde_json::json!({"login": "octocat"}));
        let again: Run = serde_json::from_str(&serde_json::to_string(&one).unwrap()).unwrap();
        assert_eq!((&again, again.facts().actor.as_str()), (&one, "octocat"), "as it is cached");
        let nothing: Run = serde_json::from_str(
            r#"{"id": 7, "name": null, "head_branch": null, "event": null, "actor": null}"#,
        )
        .unwrap();
        assert_eq!(nothing.facts(), RunFacts::default());
        let job: Job =
            serde_json::from_value(serde_json::json!({"id": 1, "status": "queued", "name": long})).unwrap();
        assert_eq!(job.name.len(), MAX_NAME);
    }

    #[test]
    fn a_version_is_numbers_with_points() {
        let good = |text: &str| runner_version(Some(text.to_owned())).is_some();
        assert!(good("2.334.0"));
        for bad in ["", ".", "2.", "2/../3", "2.334.0-beta", "1.2.3.4.5.6.7.8.9.10.11", "2\u{202e}"] {
            assert!(!good(bad), "{bad}");
        }
    }
}
