//! Removes what dead runners leave behind.

use super::{
    Apply, Result, github_outcome, nomad_outcome,
    registrations::{online_already, seen},
};
use crate::{
    github,
    github::Scope,
    model::{CleanUp, Done, NotDone, Orphan, Purge, RemoveOrphan, RepositoryRef},
};

impl Apply {
    pub(super) async fn clean_up(&self, clean_up: &CleanUp) -> Result<Done> {
        if let Some(repository) = &clean_up.repository {
            self.remove_registration_if_any(repository, clean_up.class.as_deref(), &clean_up.name).await?;
        }
        self.nomad.delete_variable(&clean_up.name).await.map_err(nomad_outcome)?;
        Ok(Done::Performed)
    }

    /// Purges a dead runner's job, after reading it once more. A purge ends whatever is running, and Nomad may have
    /// replaced the lost allocation in the meantime.
    pub(super) async fn purge(&self, purge: &Purge) -> Result<Done> {
        let runner = self.read(&purge.name).await?;
        if runner.is_some_and(|runner| runner.is_live()) {
            return Err(NotDone::Held("it is no longer dead".to_owned()));
        }
        if let Some(repository) = &purge.repository {
            self.remove_registration_if_any(repository, purge.class.as_deref(), &purge.name).await?;
        }
        self.nomad.purge(&purge.name).await.map_err(nomad_outcome)?;
        Ok(Done::Performed)
    }

    /// Removes an orphan, after checking once more that it is one.
    pub(super) async fn remove_orphan(&self, remove: &RemoveOrphan) -> Result<Done> {
        let name = remove.orphan.name();
        match (&remove.orphan, &remove.repository) {
            (Orphan::Variable(_), _) if self.read(name).await?.is_none() => {
                self.nomad.delete_variable(name).await.map_err(nomad_outcome)?;
                Ok(Done::Performed)
            }
            (Orphan::Registration { .. }, Some(repository)) if !self.is_live_anywhere(name).await? => {
                // Its class is no longer known.
                for level in self.kinds.levels() {
                    let scope = Scope::of(&RepositoryRef::from(repository), level);
                    match self.registered(&scope, name).await? {
                        Some(found) if found.is_connected() => return Err(NotDone::StillConnected),
                        Some(found) => {
                            return self.delete_registration(&scope, found.id).await.map(|_| Done::Performed);
                        }
                        None => {}
                    }
                }
                Ok(Done::Already)
            }
            _ => Ok(Done::Already),
        }
    }

    /// Whether a runner is alive in any namespace.
    async fn is_live_anywhere(&self, name: &str) -> Result<bool> {
        for nomad in self.nomad.everywhere() {
            let runner = nomad.read_runner(name).await.map_err(nomad_outcome)?;
            if runner.is_some_and(|runner| runner.is_live()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes what a dead runner left at GitHub. If its repository is gone, so is everything in it.
    async fn remove_registration_if_any(
        &self,
        repository: &RepositoryRef,
        class: Option<&str>,
        name: &str,
    ) -> Result<()> {
        let scope = self.scope(repository, class);
        let found = match self.github.find_runner(&scope, name).await {
            Err(github::Error::NotFound { .. }) => return Ok(()),
            result => seen(result.map_err(github_outcome)?)?,
        };
        match found {
            // GitHub takes a while to notice that a runner has ended. But if this runner never started, then
            // the online one is another.
            Some(runner) if runner.is_connected() && !self.has_started(name).await? => Err(online_already()),
            Some(runner) => self.delete_registration(&scope, runner.id).await.map(|_| ()),
            None => Ok(()),
        }
    }

    /// Whether a task of this runner has ever started.
    async fn has_started(&self, name: &str) -> Result<bool> {
        Ok(self.read(name).await?.is_some_and(|runner| runner.started))
    }
}
