//! Runners at GitHub: their registrations (contract §2).

use std::fmt;

use hyper::Method;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::{
    api::{Caching, GitHub, Repeat},
    auth::Principal,
    error::Error,
    listed::{Listed, Sought},
    secrets::{jit_configuration, token},
    wire::{GroupsPage, RunnerRow, RunnersPage, runner_version},
};
use crate::{
    http::{Response, escape_segment},
    model::{Repository, RepositoryRef, RunnerId, RunnerLevel},
    secret::Secret,
};

/// The kind of requests that GitHub counts as runner registrations: 1,500 in 5 minutes.
const REGISTRATION: &str = "registration";

/// Where runners are registered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// At a repository.
    Repository { owner: String, name: String },
    /// At an organization.
    Organization(String),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repository { owner, name } => write!(f, "{owner}/{name}"),
            Self::Organization(name) => f.write_str(name),
        }
    }
}

impl From<&Repository> for Scope {
    fn from(repository: &Repository) -> Self {
        Self::Repository { owner: repository.owner.clone(), name: repository.name.clone() }
    }
}

impl Scope {
    /// Where a repository's runners register: at its organization, or at the repository itself.
    pub fn of(repository: &RepositoryRef, level: RunnerLevel) -> Self {
        let RepositoryRef { owner, name, .. } = repository.clone();
        match level {
            RunnerLevel::Repository => Self::Repository { owner, name },
            RunnerLevel::Organization => Self::Organization(owner),
        }
    }

    pub(super) fn owner(&self) -> &str {
        match self {
            Self::Repository { owner, .. } | Self::Organization(owner) => owner,
        }
    }
}

/// A just-in-time configuration: for one runner and one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JitConfig {
    /// The registration's ID.
    pub runner_id: RunnerId,
    /// What the runner is started with, about 4 kB.
    pub encoded: Secret,
}

/// A registration token, valid for an hour and for many runners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrationToken {
    pub token: Secret,
    /// Its expiry, by GitHub's clock.
    pub expires_at: Option<Timestamp>,
}

/// A runner in GitHub's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredRunner {
    /// The registration's ID.
    pub id: RunnerId,
    pub name: String,
    /// Whether it is connected.
    pub online: bool,
    /// Whether it runs a job.
    pub busy: bool,
    /// Its version, once it has connected: numbers separated by dots.
    pub version: Option<String>,
}

impl RegisteredRunner {
    /// Whether it can get a job, or has one.
    pub fn is_connected(&self) -> bool {
        self.online || self.busy
    }
}

/// The result of a deletion. GitHub decides whether a runner may be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// 204: it is deleted, and gets no more jobs.
    Deleted,
    /// 422: it runs a job, and stays.
    Busy,
    /// 404: it did not exist.
    NotThere,
}

#[derive(Deserialize)]
struct JitAnswer {
    runner: RunnerRow,
    encoded_jit_config: String,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: String,
    #[serde(default)]
    expires_at: Option<String>,
}

impl GitHub {
    /// Registers a just-in-time runner. `labels` is the full set, 1 to 100: GitHub adds none. `group` is a runner
    /// group's ID; that of a repository is 1. Not retried: [`Error::is_ambiguous`] tells whether a failure may still
    /// have registered it, and [`GitHub::find_runner`] resolves that.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] for a 409; [`Error::BadSecret`] for a response that must not be passed to a runner:
    /// then the registration under the name must be removed.
    pub async fn jit_config(
        &self,
        scope: &Scope,
        name: &str,
        labels: &[String],
        group: u64,
    ) -> Result<JitConfig, Error> {
        let body =
            json!({ "name": name, "runner_group_id": group, "labels": labels, "work_folder": "_work" });
        let response = self.register(scope, "generate-jitconfig", Some(&body)).await?;
        match response.status.as_u16() {
            200 | 201 => {
                let answer: JitAnswer = response.json()?;
                if answer.runner.name != name {
                    return Err(Error::BadSecret(format!(
                        "GitHub was asked for a configuration for {name} and returned that of another runner"
                    )));
                }
                let encoded = jit_configuration(answer.encoded_jit_config).map_err(|problem| {
                    Error::BadSecret(format!("GitHub's configuration for {name} cannot be used: {problem}"))
                })?;
                Ok(JitConfig { runner_id: answer.runner.id, encoded })
            }
            409 => Err(Error::AlreadyExists { name: name.to_owned() }),
            _ => Err(Error::from_answer(&response)),
        }
    }

    /// A registration token, for images that register themselves.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn registration_token(&self, scope: &Scope) -> Result<RegistrationToken, Error> {
        let response = self.register(scope, "registration-token", None).await?;
        if !response.is_success() {
            return Err(Error::from_answer(&response));
        }
        let answer: TokenAnswer = response.json()?;
        Ok(RegistrationToken {
            token: token(answer.token).map_err(|problem| {
                Error::BadSecret(format!("GitHub's registration token for {scope} cannot be used: {problem}"))
            })?,
            expires_at: answer.expires_at.and_then(|text| text.parse().ok()),
        })
    }

    /// The runner with exactly this name, if it is registered.
    ///
    /// # Errors
    /// See [`Error`]: then it is unknown.
    pub async fn find_runner(&self, scope: &Scope, name: &str) -> Result<Sought<RegisteredRunner>, Error> {
        // Older servers do not know the parameter and list all runners: then only all pages prove an absence.
        let runners = self.runners(scope, &format!("?name={}&per_page=100", escape_segment(name))).await?;
        Ok(runners.seek(|runner| runner.name == name))
    }

    /// The registered runners of the scope.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_runners(&self, scope: &Scope) -> Result<Listed<RegisteredRunner>, Error> {
        self.runners(scope, "?per_page=100").await
    }

    /// Deletes a registration. Not retried: after an ambiguous failure, the next pass checks again.
    ///
    /// # Errors
    /// Anything but a deletion, a busy runner or an absent one: then it must be assumed to exist.
    pub async fn delete_runner(&self, scope: &Scope, id: RunnerId) -> Result<Deleted, Error> {
        let path = self.runners_path(scope, &format!("/{id}"));
        let principal = Principal::Owner(scope.owner().to_owned());
        let build = |_: &_| self.request(Method::DELETE, path.clone());
        let (response, _) = self.authorized(&principal, "write", Repeat::Never, build).await?;
        match response.status.as_u16() {
            204 => Ok(Deleted::Deleted),
            404 => Ok(Deleted::NotThere),
            422 => Ok(Deleted::Busy),
            _ => Err(Error::from_answer(&response)),
        }
    }

    /// The ID of an organization's runner group, by its name.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn runner_group(&self, organization: &str, name: &str) -> Result<Sought<u64>, Error> {
        let first =
            self.path(&format!("/orgs/{}/actions/runner-groups?per_page=100", escape_segment(organization)));
        let principal = Principal::Owner(organization.to_owned());
        let groups = self.all_pages::<GroupsPage>(&principal, first, Caching::Nothing).await?.list;
        Ok(groups.seek(|group| group.name == name).map(|group| group.id))
    }

    async fn runners(&self, scope: &Scope, query: &str) -> Result<Listed<RegisteredRunner>, Error> {
        let principal = Principal::Owner(scope.owner().to_owned());
        // Not cached: the response decides whether something is deleted, and names differ each time.
        let pages = self
            .all_pages::<RunnersPage>(&principal, self.runners_path(scope, query), Caching::Nothing)
            .await?;
        let runner = |row: RunnerRow| RegisteredRunner {
            id: row.id,
            online: row.status == "online",
            busy: row.busy,
            name: row.name,
            version: runner_version(row.version),
        };
        Ok(pages.list.map(runner))
    }

    async fn register(
        &self,
        scope: &Scope,
        what: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<Response, Error> {
        let path = self.runners_path(scope, &format!("/{what}"));
        let principal = Principal::Owner(scope.owner().to_owned());
        let build = |_: &_| {
            let request = self.request(Method::POST, path.clone()).secret_answer();
            match body {
                Some(body) => request.json(body),
                None => request,
            }
        };
        Ok(self.authorized(&principal, REGISTRATION, Repeat::Never, build).await?.0)
    }

    pub(super) fn runners_path(&self, scope: &Scope, rest: &str) -> String {
        let base = match scope {
            Scope::Repository { owner, name } => {
                format!("/repos/{}/{}", escape_segment(owner), escape_segment(name))
            }
            Scope::Organization(name) => format!("/orgs/{}", escape_segment(name)),
        };
        self.path(&format!("{base}/actions/runners{rest}"))
    }
}
