//! Which repositories the configuration's entries mean.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::api::{GitHub, older_than};
use super::auth::Principal;
use super::error::Error;
use super::wire::{InstallationRepositoriesPage, Owner, RepositoriesPage, RepositoryRow};
use crate::config::RepoEntry;
use crate::http::escape_segment;
use crate::model::{Repository, RepositoryId};

/// What the entries mean.
#[derive(Debug, Clone, Default)]
pub struct Resolution {
    /// The repositories, each once, sorted by ID; also those of an entry that cannot be refreshed now.
    pub repositories: Vec<Repository>,
    /// The entries that could not be resolved or refreshed, and why.
    pub failures: Vec<(RepoEntry, Error)>,
}

/// What an entry meant.
#[derive(Debug, Clone)]
pub(super) struct Remembered {
    repositories: Vec<Repository>,
    at: Instant,
}

impl GitHub {
    /// The repositories that the entries mean, remembered for a while unless `refresh`. An entry that fails harms no
    /// other; what it meant before still counts.
    pub async fn repositories(&self, entries: &[RepoEntry], refresh: bool) -> Resolution {
        let mut resolution = Resolution::default();
        let mut found: BTreeMap<RepositoryId, Repository> = BTreeMap::new();
        let mut asked: BTreeMap<RepoEntry, Option<Result<Vec<Repository>, Error>>> = BTreeMap::new();
        let mut tasks = JoinSet::new();
        for entry in entries {
            let due = {
                let resolved = self.0.resolved.lock().unwrap_or_else(PoisonError::into_inner);
                resolved.get(&key(entry)).is_none_or(|known| refresh || older_than(known.at, self.0.refresh))
            };
            if due && !asked.contains_key(entry) {
                asked.insert(entry.clone(), None);
                let (github, entry) = (self.clone(), entry.clone());
                tasks.spawn(async move {
                    let result = github.resolve(&entry).await;
                    (entry, result)
                });
            }
        }
        while let Some(joined) = tasks.join_next().await {
            if let Ok((entry, result)) = joined {
                asked.insert(entry, Some(result));
            }
        }
        let mut resolved = self.0.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        for (entry, result) in asked {
            match result {
                Some(Ok(repositories)) => {
                    resolved.insert(key(&entry), Remembered { repositories, at: Instant::now() });
                }
                Some(Err(error)) => resolution.failures.push((entry, error)),
                None => {
                    resolution.failures.push((entry, Error::Unexpected("the task that asked ended".into())));
                }
            }
        }
        for known in entries.iter().filter_map(|entry| resolved.get(&key(entry))) {
            for repository in &known.repositories {
                found.entry(repository.id).or_insert_with(|| repository.clone());
            }
        }
        resolution.repositories = found.into_values().collect();
        resolution
    }

    /// A repository by its numeric ID, for runners whose repository no entry names any more.
    ///
    /// # Errors
    /// [`Error::NotFound`] and all others. `owner` is whose credentials to use.
    pub async fn repository_by_id(&self, id: RepositoryId, owner: &str) -> Result<Repository, Error> {
        let principal = Principal::Owner(owner.to_owned());
        Ok(self.one::<RepositoryRow>(&principal, &format!("/repositories/{id}")).await?.to_model())
    }

    async fn resolve(&self, entry: &RepoEntry) -> Result<Vec<Repository>, Error> {
        match entry {
            RepoEntry::Repository { owner, name } => {
                let path = format!("/repos/{}/{}", escape_segment(owner), escape_segment(name));
                let principal = Principal::Owner(owner.clone());
                Ok(vec![self.one::<RepositoryRow>(&principal, &path).await?.to_model()])
            }
            RepoEntry::Owner(owner) if self.is_app() => self.of_installation(owner).await,
            RepoEntry::Owner(owner) => self.of_owner(owner).await,
            RepoEntry::All if self.is_app() => {
                let mut all = Vec::new();
                for installation in self.installations().await? {
                    let Some(account) = installation.account else { continue };
                    match self.of_installation(&account.login).await {
                        Ok(repositories) => all.extend(repositories),
                        // One owner's trouble is not everybody's.
                        Err(error @ Error::Installation { .. }) => tracing::warn!("{error}"),
                        Err(error) => return Err(error),
                    }
                }
                Ok(all)
            }
            RepoEntry::All => self.listed("/user/repos?per_page=100").await,
        }
    }

    async fn of_installation(&self, owner: &str) -> Result<Vec<Repository>, Error> {
        let principal = Principal::Owner(owner.to_owned());
        let first = self.path("/installation/repositories?per_page=100");
        Ok(self.all_pages::<InstallationRepositoriesPage>(&principal, first, true).await?.items)
    }

    /// A user's or an organization's. Only the user itself sees its private ones, by another path (contract §1).
    async fn of_owner(&self, owner: &str) -> Result<Vec<Repository>, Error> {
        let escaped = escape_segment(owner);
        let account = self.one::<Owner>(&Principal::Token, &format!("/users/{escaped}")).await?;
        if account.kind == "Organization" {
            return self.listed(&format!("/orgs/{escaped}/repos?type=all&sort=pushed&per_page=100")).await;
        }
        let ourselves = match self.one::<Owner>(&Principal::Token, "/user").await {
            Ok(user) => user.login.eq_ignore_ascii_case(owner),
            // Some tokens belong to nobody.
            Err(Error::Forbidden(_) | Error::NotFound { .. }) => false,
            Err(error) => return Err(error),
        };
        if ourselves {
            self.listed("/user/repos?affiliation=owner&per_page=100").await
        } else {
            self.listed(&format!("/users/{escaped}/repos?type=owner&per_page=100")).await
        }
    }

    async fn listed(&self, path: &str) -> Result<Vec<Repository>, Error> {
        Ok(self.all_pages::<RepositoriesPage>(&Principal::Token, self.path(path), true).await?.items)
    }
}

/// What an entry is remembered by: logins and names differ in more than case.
fn key(entry: &RepoEntry) -> String {
    entry.to_string().to_ascii_lowercase()
}
