//! Issues credentials: registers a runner at GitHub, and writes the result to its variable in Nomad.

use super::{Apply, Result, github_outcome, nomad_outcome, registrations::online_already};
use crate::{
    github,
    github::{Scope, Sought},
    model::{Done, IssueCredentials, NotDone, Registration, RepositoryRef},
    nomad::{CredentialItems, Written},
    render::credential_items,
    secret::Secret,
};

impl Apply {
    /// Registers the runner at GitHub, then writes the variable, which releases the waiting task. This also
    /// repairs the result of a crash between the two steps: GitHub then answers 409.
    pub(super) async fn issue_credentials(&self, issue: &IssueCredentials) -> Result<Done> {
        let scope = self.scope(&RepositoryRef::from(&issue.repository), issue.class.as_deref());
        match issue.registration {
            Registration::AccessToken => Ok(Done::Already),
            Registration::Token => {
                let answer = self.github.registration_token(&scope).await.map_err(github_outcome)?;
                let items = credentials(issue.registration, &answer.token);
                match self.nomad.put_variable(&issue.name, &items).await.map_err(nomad_outcome)? {
                    Written::Written => Ok(Done::Performed),
                    Written::Exists => Ok(Done::Already),
                }
            }
            Registration::Jit => self.issue_jit(issue, &scope).await,
        }
    }

    async fn issue_jit(&self, issue: &IssueCredentials, scope: &Scope) -> Result<Done> {
        let labels: Vec<String> = issue.labels.shown().map(str::to_owned).collect();
        let group = self.runner_group(scope, issue.class.as_deref()).await?;
        let config = match self.github.jit_config(scope, &issue.name, &labels, group).await {
            Err(github::Error::AlreadyExists { .. }) => {
                if let Some(outcome) = self.clear_registration(issue, scope).await? {
                    return Ok(outcome);
                }
                self.github.jit_config(scope, &issue.name, &labels, group).await
            }
            result => result,
        };
        let config = match config {
            Ok(config) => config,
            Err(error @ github::Error::BadSecret(_)) => {
                // Not by the ID in an invalid response, which may be another runner's.
                match self.clear_registration(issue, scope).await {
                    Ok(_) | Err(NotDone::Held(_)) => {}
                    Err(outcome) => tracing::warn!(runner = issue.name, %outcome, "registration not removed"),
                }
                return Err(github_outcome(error));
            }
            Err(error) => return Err(github_outcome(error)),
        };
        let items = credentials(issue.registration, &config.encoded);
        let written = self.nomad.put_variable(&issue.name, &items).await;
        if let Ok(Written::Written) = written {
            return Ok(Done::Performed);
        }
        // Only the registration that this call made is removed. After an ambiguous failure the variable may
        // contain it, so it stays: the next pass sees whether the variable exists.
        let keep = matches!(&written, Err(error) if error.is_ambiguous());
        if !keep && let Err(error) = self.github.delete_runner(scope, config.runner_id).await {
            return Err(github_outcome(error));
        }
        match written {
            Ok(_) => Ok(Done::Already),
            Err(error) => Err(nomad_outcome(error)),
        }
    }

    /// A registration of that name exists: an earlier call of ours made it, and its configuration is lost.
    /// `None` if the name is free now.
    async fn clear_registration(&self, issue: &IssueCredentials, scope: &Scope) -> Result<Option<Done>> {
        if self.nomad.variables(&issue.name).await.map_err(nomad_outcome)?.contains_key(&issue.name) {
            return Ok(Some(Done::Already));
        }
        match self.registered(scope, &issue.name).await? {
            Some(runner) if runner.online => Err(online_already()),
            Some(runner) => {
                self.delete_registration(scope, runner.id).await?;
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// The ID of the runner group that runners join. A repository has only the first one (contract github.md
    /// §2).
    async fn runner_group(&self, scope: &Scope, class: Option<&str>) -> Result<u64> {
        let name = self.kinds.of(class).runner_group.as_deref();
        let (Scope::Organization(organization), Some(name)) = (scope, name) else {
            return Ok(1);
        };
        match self.github.runner_group(organization, name).await.map_err(github_outcome)? {
            Sought::Found(id) => Ok(id),
            Sought::Unseen(gap) => Err(NotDone::Held(format!(
                "cannot tell whether {organization} has the runner group {name:?}: GitHub's list is incomplete: {gap}"
            ))),
            Sought::Absent => {
                Err(NotDone::Rejected(format!("{organization} has no runner group named {name:?}")))
            }
        }
    }
}

fn credentials(registration: Registration, secret: &Secret) -> CredentialItems {
    credential_items(registration, secret).into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}
