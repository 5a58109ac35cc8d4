//! Nomad's variables: runners' credentials, the deployment ID, and the key of the seal (contract §8).

use std::{collections::BTreeMap, sync::PoisonError, time::Duration};

use serde_json::json;
use tokio::time::Instant;

use super::{
    api::{KnownDeployment, KnownKey, Nomad, Retry},
    error::{Error, Right},
    seal::Key,
    wire::{Variable, VariableStub, nanoseconds},
};
use crate::{
    http::{Request, StatusCode, escape_segment},
    model::{RunnerMeta, Timestamp},
    secret::Secret,
};

/// The items of a runner's variable, by key.
pub type CredentialItems = BTreeMap<String, Secret>;

/// How often the deployment's variable is read although jobs have its ID: someone may have deleted it, and a
/// restart would then choose another ID and never touch these jobs again.
const CONFIRM_EVERY: Duration = Duration::from_secs(300);

/// The maximum age of the key that seals a new runner. Another replica may have created another key since, and a job
/// sealed with the old one after that would belong to nobody.
const SEAL_WITH_AT_MOST: Duration = Duration::from_secs(10);

/// The result of a write with cas 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The variable has the written content.
    Written,
    /// It existed with other content.
    Exists,
}

impl Nomad {
    /// Writes the variable `nomad/jobs/NAME` if there is none, which releases the task that waits for it. It is
    /// harmless to repeat after a lost response: the same content is [`Written::Written`].
    ///
    /// # Errors
    /// [`Error`]; if [`Error::is_ambiguous`], the variable may have been written.
    pub async fn put_variable(&self, name: &str, items: &CredentialItems) -> Result<Written, Error> {
        let plain: BTreeMap<&str, &str> =
            items.iter().map(|(key, secret)| (key.as_str(), secret.expose())).collect();
        let right = Right::Variables { path: "nomad/jobs/PREFIX-*", capability: "write" };
        self.create_variable(&job_path(name), &plain, right).await
    }

    /// Deletes the variable `nomad/jobs/NAME`. A missing one counts as deleted.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn delete_variable(&self, name: &str) -> Result<(), Error> {
        let right = Right::Variables { path: "nomad/jobs/PREFIX-*", capability: "destroy" };
        let request = Request::delete(job_path(name));
        let response = self.answer(request, Retry::Yes).await?;
        if response.is_success() || response.status == StatusCode::NOT_FOUND {
            return Ok(());
        }
        Err(self.error(&response, right))
    }

    /// The deployment ID as last read. If it has not been read yet, the variable is read or created.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn deployment(&self) -> Result<String, Error> {
        match self.last_deployment() {
            Some(known) => Ok(known.id),
            None => self.confirm_deployment().await,
        }
    }

    /// The deployment ID if it was read recently.
    pub(super) fn known_deployment(&self) -> Option<String> {
        let known = self.last_deployment()?;
        (known.confirmed_at.elapsed() < CONFIRM_EVERY).then_some(known.id)
    }

    /// Adopts the deployment ID that another client has read, if both are for the same jobs. If its variable
    /// disappears, it is written again, so that no runner becomes foreign.
    pub fn take_over(&self, other: &Nomad) {
        let jobs = |nomad: &Nomad| {
            let options = nomad.options();
            (options.namespace.clone(), options.region.clone(), options.prefix.clone())
        };
        if jobs(self) == jobs(other) {
            let known = other.last_deployment();
            *self.inner.deployment.lock().unwrap_or_else(PoisonError::into_inner) = known;
            let known = other.last_key();
            *self.inner.key.lock().unwrap_or_else(PoisonError::into_inner) = known;
            let mut remembered =
                other.inner.remembered.lock().unwrap_or_else(PoisonError::into_inner).clone();
            remembered.retain(|namespace, last| {
                let Some(gone) = namespace.as_ref().filter(|one| !self.options().elsewhere.contains(one)) else {
                    return true;
                };
                if last.has_runners() {
                    tracing::warn!(
                        "no class names the Nomad namespace {gone} any more, so the runners there are no longer seen: put it \
                         back, and take it out once they have ended (githubrunner purge --all removes them)"
                    );
                }
                false
            });
            *self.inner.remembered.lock().unwrap_or_else(PoisonError::into_inner) = remembered;
        }
    }

    fn last_deployment(&self) -> Option<KnownDeployment> {
        self.inner.deployment.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the variable `githubrunner/PREFIX/instance`. If it is missing, it is created: with the ID known
    /// before (a development agent that restarted without its state, a variable deleted by hand), or else with
    /// the new one. This also detects a missing namespace, which no list does.
    pub(super) async fn confirm_deployment(&self) -> Result<String, Error> {
        let own = self.at(None);
        let path = format!("/v1/var/githubrunner/{}/instance", escape_segment(&own.options().prefix));
        let right = |capability| Right::Variables { path: "githubrunner/*", capability };
        let candidate =
            self.last_deployment().map_or_else(|| self.inner.new_deployment.clone(), |known| known.id);
        // The second round is for a lost race. Nobody deletes what was just created.
        for _ in 0..2 {
            let response = own.answer(Request::get(path.clone()).secret_answer(), Retry::Yes).await?;
            let id = if response.is_success() {
                let variable: Variable = response.json()?;
                variable.items.get("id").cloned().ok_or_else(|| no_id(&path))?
            } else if response.status == StatusCode::NOT_FOUND {
                own.check_namespace().await?;
                if !own.options().create_deployment {
                    return Ok(candidate);
                }
                let items = BTreeMap::from([("id", candidate.as_str())]);
                match own.create_variable(&path, &items, right("write")).await? {
                    Written::Written => candidate.clone(),
                    Written::Exists => continue,
                }
            } else {
                return Err(own.error(&response, right("read")));
            };
            let confirmed = KnownDeployment { id: id.clone(), confirmed_at: Instant::now() };
            *self.inner.deployment.lock().unwrap_or_else(PoisonError::into_inner) = Some(confirmed);
            return Ok(id);
        }
        Err(Error::Variable(format!("{path} keeps changing: another program writes it")))
    }

    /// The Meta with the seal for the job with this ID.
    ///
    /// # Errors
    /// [`Error`]; [`Error::Seal`] if there is no key and none may be created.
    pub async fn seal(&self, name: &str, meta: RunnerMeta) -> Result<RunnerMeta, Error> {
        let Some(key) = self.key(SEAL_WITH_AT_MOST).await? else {
            return Err(Error::Seal("this process may not create a key to seal runners with".to_owned()));
        };
        Ok(RunnerMeta { mac: Some(key.seal(name, &meta)), ..meta })
    }

    /// The key that seals our jobs' Metas, if it was read recently or exists now.
    pub(super) async fn current_key(&self) -> Result<Option<Key>, Error> {
        self.key(CONFIRM_EVERY).await
    }

    async fn key(&self, at_most: Duration) -> Result<Option<Key>, Error> {
        match self.last_key() {
            Some(known) if known.confirmed_at.elapsed() < at_most => Ok(known.key),
            _ => self.confirm_key().await,
        }
    }

    pub(super) fn last_key(&self) -> Option<KnownKey> {
        self.inner.key.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the variable `githubrunner/PREFIX/key`. If it is missing, a new key is created, which includes the
    /// previous one: jobs sealed with that one until then stay ours. `None` if this process may not create one.
    pub(super) async fn confirm_key(&self) -> Result<Option<Key>, Error> {
        let own = self.at(None);
        let path = format!("/v1/var/githubrunner/{}/key", escape_segment(&own.options().prefix));
        let right = |capability| Right::Variables { path: "githubrunner/*", capability };
        let known = self.last_key().and_then(|known| known.key);
        // The second round reads what the first one wrote, and its index.
        for _ in 0..2 {
            let response = own.answer(Request::get(path.clone()).secret_answer(), Retry::Yes).await?;
            let key = if response.is_success() {
                let variable: Variable = response.json()?;
                let item = |name: &str| variable.items.get(name).map(String::as_str);
                let key = item("key").and_then(|key| Key::new(key, item("previous"), variable.create_index));
                Some(key.ok_or_else(|| no_key(&path))?)
            } else if response.status != StatusCode::NOT_FOUND {
                return Err(own.error(&response, right("read")));
            } else if !own.options().create_deployment {
                None
            } else {
                own.check_namespace().await?;
                let new = Key::random()?;
                let mut items = BTreeMap::from([("key", new.expose())]);
                items.extend(known.as_ref().map(|known| ("previous", known.text().expose())));
                // Another start or replica may have been faster: the next round reads what it wrote.
                if own.create_variable(&path, &items, right("write")).await? == Written::Written {
                    tracing::info!(
                        "created a new key for runners' Metas in the variable githubrunner/{}/key",
                        own.options().prefix
                    );
                }
                continue;
            };
            let confirmed = KnownKey { key: key.clone(), confirmed_at: Instant::now() };
            *self.inner.key.lock().unwrap_or_else(PoisonError::into_inner) = Some(confirmed);
            return Ok(key);
        }
        Err(Error::Variable(format!("{path} keeps changing: another program writes it")))
    }

    /// The job IDs with this prefix that have a variable `nomad/jobs/ID`, and when it was created. A token without the
    /// right to list them gets an empty list (contract §7).
    ///
    /// # Errors
    /// [`Error`].
    pub async fn variables(&self, prefix: &str) -> Result<BTreeMap<String, Timestamp>, Error> {
        let request = Request::get("/v1/vars").query("prefix", &format!("nomad/jobs/{prefix}"));
        let right = Right::Variables { path: "nomad/jobs/PREFIX-*", capability: "list" };
        let (stubs, _) = self.list::<VariableStub>(request, right).await?;
        let names = stubs.into_iter().filter_map(|stub| {
            // A longer path belongs to a group or a task, and not to us.
            let name = stub.path.strip_prefix("nomad/jobs/")?;
            (!name.contains('/')).then(|| (name.to_owned(), nanoseconds(stub.create_time)))
        });
        Ok(names.collect())
    }

    pub(super) async fn create_variable(
        &self,
        path: &str,
        items: &BTreeMap<&str, &str>,
        right: Right,
    ) -> Result<Written, Error> {
        let request = Request::put(path).query("cas", "0").json(&json!({ "Items": items })).secret_answer();
        let request = items.values().fold(request, |request, item| request.hiding(&Secret::new(*item)));
        let response = self.answer(request, Retry::Yes).await?;
        if response.is_success() {
            return Ok(Written::Written);
        }
        if response.status != StatusCode::CONFLICT {
            return Err(self.error(&response, right));
        }
        // The body of a conflict is the existing variable, for those who may read it, so it is never quoted. If
        // the content is ours, an earlier attempt succeeded and its response was lost.
        let existing: Variable = serde_json::from_slice(&response.body).unwrap_or_default();
        let existing: BTreeMap<&str, &str> =
            existing.items.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        Ok(if existing == *items { Written::Written } else { Written::Exists })
    }
}

fn job_path(name: &str) -> String {
    format!("/v1/var/nomad/jobs/{}", escape_segment(name))
}

fn no_key(path: &str) -> Error {
    Error::Variable(format!(
        "{path} contains no key: another program wrote it; delete it with nomad var purge"
    ))
}

fn no_id(path: &str) -> Error {
    Error::Variable(format!(
        "{path} has no item \"id\": another program wrote it; delete it with nomad var purge"
    ))
}
