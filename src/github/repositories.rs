//! Which repositories the configuration's entries name.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::PoisonError,
};

use tokio::task::JoinSet;

use super::{
    api::GitHub,
    auth::{Principal, Which},
    error::Error,
    listed::{Gap, Listed},
    pages::Caching,
    remembered::Remembered,
    wire::{InstallationRepositoriesPage, Owner, Page, RepositoriesPage, RepositoryRow, shown},
};
use crate::{
    http::escape_segment,
    model::{RepoEntry, Repository, RepositoryId, Timestamp, is_login},
};

/// What the entries resolve to.
#[derive(Debug, Clone, Default)]
pub struct Resolution {
    /// The repositories, each once, sorted by ID. Includes those of an entry that cannot be refreshed now.
    pub repositories: Vec<Repository>,
    /// Repositories that an entry named before and that have not been confirmed since: its last reading failed, or was
    /// incomplete and did not include them.
    pub unconfirmed: BTreeSet<RepositoryId>,
    /// The last push of each, if a list reported it.
    pub pushed_at: BTreeMap<RepositoryId, Timestamp>,
    /// The entries that could not be resolved or refreshed, or only partly, and why.
    pub failures: Vec<(RepoEntry, Error)>,
}

/// When the entries of `repos` are read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    /// Once they have been cached for a while.
    WhenDue,
    /// At once.
    Now,
}

/// What an owner is in relation to the token.
pub(super) enum Account {
    /// An organization.
    Organization,
    /// The token's own user.
    Ourselves,
    /// Another user.
    Person,
}

impl GitHub {
    /// The repositories that the entries name. A failing entry does not affect
    /// the others, and what it named before still counts.
    pub async fn repositories(&self, entries: &[RepoEntry], refresh: Refresh) -> Resolution {
        let mut asked = BTreeSet::new();
        let mut failures = Vec::new();
        let mut tasks = JoinSet::new();
        for entry in entries {
            let due = {
                let resolved = self.0.resolved.lock().unwrap_or_else(PoisonError::into_inner);
                resolved
                    .get(&key(entry))
                    .is_none_or(|known| refresh == Refresh::Now || known.is_due(self.0.refresh))
            };
            if due && asked.insert(entry.clone()) {
                let (github, entry) = (self.clone(), entry.clone());
                tasks.spawn(async move {
                    let result = github.resolve(&entry).await;
                    (entry, result)
                });
            }
        }
        // Each result is available as soon as it is read: a caller that no longer waits for the others calls
        // `resolved`.
        while let Some(joined) = tasks.join_next().await {
            let Ok((entry, result)) = joined else { continue };
            asked.remove(&entry);
            let mut resolved = self.0.resolved.lock().unwrap_or_else(PoisonError::into_inner);
            match result {
                Ok(read) => {
                    let learned = Remembered::learned(resolved.get(&key(&entry)), read);
                    resolved.insert(key(&entry), learned);
                }
                Err(error) => {
                    if let Some(known) = resolved.get_mut(&key(&entry)) {
                        known.doubt();
                    }
                    failures.push((entry, error));
                }
            }
        }
        let ended = || Error::Unexpected("the task ended unexpectedly".into());
        failures.extend(asked.into_iter().map(|entry| (entry, ended())));
        failures.sort_by(|(one, _), (other, _)| one.cmp(other));
        self.meant(entries, failures)
    }

    /// What is known of the entries without a request. Those that were never read are failures.
    pub fn resolved(&self, entries: &[RepoEntry]) -> Resolution {
        let unread = |entry: &&RepoEntry| {
            let resolved = self.0.resolved.lock().unwrap_or_else(PoisonError::into_inner);
            !resolved.contains_key(&key(entry))
        };
        let failures = entries.iter().filter(unread).map(|entry| (entry.clone(), Error::OutOfTime));
        self.meant(entries, failures.collect())
    }

    /// What the entries resolve to as far as it is known, if these could not be read.
    fn meant(&self, entries: &[RepoEntry], failures: Vec<(RepoEntry, Error)>) -> Resolution {
        let mut resolution = Resolution { failures, ..Resolution::default() };
        let mut found: BTreeMap<RepositoryId, (Repository, bool)> = BTreeMap::new();
        let resolved = self.0.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        let failed: BTreeSet<RepoEntry> =
            resolution.failures.iter().map(|(entry, _)| entry.clone()).collect();
        let mut seen = BTreeSet::new();
        for entry in entries.iter().filter(|entry| seen.insert(key(entry))) {
            let Some(known) = resolved.get(&key(entry)) else { continue };
            if let Some(gap) = known.gap.clone().filter(|_| !failed.contains(entry)) {
                let what = "the list of its repositories".to_owned();
                resolution.failures.push((entry.clone(), Error::Incomplete { what, gap }));
            }
            for (id, (repository, confirmed)) in &known.repositories {
                let entry = found.entry(*id).or_insert_with(|| (repository.clone(), false));
                if *confirmed && !entry.1 {
                    *entry = (repository.clone(), true);
                }
            }
        }
        let pushed = self.0.pushed.lock().unwrap_or_else(PoisonError::into_inner);
        resolution.pushed_at =
            pushed.iter().filter(|(id, _)| found.contains_key(id)).map(|(id, at)| (*id, *at)).collect();
        resolution.unconfirmed =
            found.iter().filter(|(_, (_, confirmed))| !confirmed).map(|(id, _)| *id).collect();
        resolution.repositories = found.into_values().map(|(repository, _)| repository).collect();
        resolution
    }

    /// A repository by its numeric ID, for runners whose repository is no longer named by an entry. `owner`
    /// determines the credentials.
    ///
    /// # Errors
    /// [`Error::NotFound`] and all others.
    pub async fn repository_by_id(&self, id: RepositoryId, owner: &str) -> Result<Repository, Error> {
        let principal = Principal::Owner(owner.to_owned());
        self.repository(&principal, &format!("/repositories/{id}")).await
    }

    async fn repository(&self, principal: &Principal, path: &str) -> Result<Repository, Error> {
        let row = self.one::<RepositoryRow>(principal, path).await?;
        row.to_model(&self.0.web).map_err(Error::Unexpected)
    }

    async fn resolve(&self, entry: &RepoEntry) -> Result<Listed<Repository>, Error> {
        match entry {
            RepoEntry::Repository { owner, name } => {
                let path = format!("/repos/{}/{}", escape_segment(owner), escape_segment(name));
                let principal = Principal::Owner(owner.clone());
                Ok(Listed::new(vec![self.repository(&principal, &path).await?], None))
            }
            RepoEntry::Owner(owner) if self.is_app_for(owner) => self.of_installation(owner).await,
            RepoEntry::Owner(owner) => self.of_owner(owner).await,
            RepoEntry::All => self.everything().await,
        }
    }

    /// Everything that the credentials can see, each of its own owners. A failure of one of several leaves a
    /// gap.
    async fn everything(&self) -> Result<Listed<Repository>, Error> {
        let keyring = self.keyring();
        let all: Vec<Which> = keyring.all().collect();
        let (mut found, mut gap, mut failure) = (Vec::new(), None, None);
        for which in &all {
            match self.seen_by(*which).await {
                Ok(listed) => {
                    gap = gap.or_else(|| listed.gap().cloned());
                    let is_its = |repository: &Repository| keyring.of(&repository.owner) == *which;
                    found.push(listed.retain(is_its));
                }
                Err(error) if all.len() == 1 => return Err(error),
                Err(error) => {
                    let what = format!(
                        "the repositories of {}",
                        keyring.name(*which).unwrap_or("the default token")
                    );
                    gap.get_or_insert(Gap::Part { what, error: error.to_string() });
                    failure.get_or_insert(error);
                }
            }
        }
        match failure {
            Some(error) if found.is_empty() => Err(error),
            _ => Ok(Listed::new(found.into_iter().flat_map(Listed::into_known).collect(), gap)),
        }
    }

    async fn seen_by(&self, which: Which) -> Result<Listed<Repository>, Error> {
        if self.keyring().is_app(which) {
            return self.of_all_installations(which).await;
        }
        self.listed(&Principal::Token(which), "/user/repos?per_page=100").await
    }

    /// A failure for one owner does not affect the others, and leaves a gap.
    async fn of_all_installations(&self, app: Which) -> Result<Listed<Repository>, Error> {
        let installations = self.installations(app).await?;
        let mut gap = installations.gap().cloned();
        let mut all = Vec::new();
        for installation in installations.into_known() {
            // An enterprise's installation has no login and no repositories.
            let Some(account) = installation.account.filter(|account| !account.login.is_empty()) else {
                continue;
            };
            if !is_login(&account.login) {
                let problem = format!(
                    "the App is installed for \"{}\", which is not a valid login",
                    shown(&account.login)
                );
                gap.get_or_insert(Gap::Item { problem });
                continue;
            }
            // This owner has another App or a token.
            if self.keyring().of(&account.login) != app {
                continue;
            }
            match self.of_installation(&account.login).await {
                Ok(repositories) => {
                    if let Some(of_one) = repositories.gap() {
                        let what = format!("part of the repositories of {}", account.login);
                        gap.get_or_insert(Gap::Part { what, error: of_one.to_string() });
                    }
                    all.extend(repositories.into_known());
                }
                Err(error @ (Error::RateLimited { .. } | Error::Unauthorized(_) | Error::Credentials(_))) => {
                    return Err(error);
                }
                Err(error) => {
                    let what = format!("the repositories of {}", account.login);
                    gap.get_or_insert(Gap::Part { what, error: error.to_string() });
                }
            }
        }
        Ok(Listed::new(all, gap))
    }

    async fn of_installation(&self, owner: &str) -> Result<Listed<Repository>, Error> {
        let principal = Principal::Owner(owner.to_owned());
        let first = self.path("/installation/repositories?per_page=100");
        self.checked::<InstallationRepositoriesPage>(&principal, first).await
    }

    /// A list of repositories. Those that break GitHub's own rules leave a gap.
    async fn checked<P: Page<Item = RepositoryRow>>(
        &self,
        principal: &Principal,
        first: String,
    ) -> Result<Listed<Repository>, Error> {
        let rows = self.all_pages::<P>(principal, first, Caching::ByEtag).await?.list;
        let mut gap = rows.gap().cloned();
        let mut repositories = Vec::with_capacity(rows.known().len());
        for row in rows.known() {
            match row.to_model(&self.0.web) {
                Ok(repository) => {
                    if let Some(at) = row.pushed_at {
                        let mut pushed = self.0.pushed.lock().unwrap_or_else(PoisonError::into_inner);
                        pushed.insert(repository.id, at);
                    }
                    repositories.push(repository);
                }
                Err(problem) => {
                    gap.get_or_insert(Gap::Item { problem });
                }
            }
        }
        Ok(Listed::new(repositories, gap))
    }

    /// Whether an owner is a user, who cannot have runners.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn is_user(&self, owner: &str) -> Result<bool, Error> {
        Ok(self.kind_of(&Principal::Owner(owner.to_owned()), owner).await? == "User")
    }

    /// What an owner is in relation to the token.
    pub(super) async fn account(&self, principal: &Principal, owner: &str) -> Result<Account, Error> {
        if self.kind_of(principal, owner).await? == "Organization" {
            return Ok(Account::Organization);
        }
        if self.is_app_for(owner) {
            return Ok(Account::Person);
        }
        match self.one::<Owner>(principal, "/user").await {
            Ok(user) if user.login.eq_ignore_ascii_case(owner) => Ok(Account::Ourselves),
            // Some tokens belong to no user.
            Ok(_) | Err(Error::Forbidden(_) | Error::NotFound { .. }) => Ok(Account::Person),
            Err(error) => Err(error),
        }
    }

    /// `User` or `Organization`.
    async fn kind_of(&self, principal: &Principal, owner: &str) -> Result<String, Error> {
        let account = self.one::<Owner>(principal, &format!("/users/{}", escape_segment(owner))).await?;
        Ok(account.kind.clone())
    }

    /// The repositories of a user or an organization. Only the user itself sees its private ones, on another
    /// path (contract §1).
    async fn of_owner(&self, owner: &str) -> Result<Listed<Repository>, Error> {
        let escaped = escape_segment(owner);
        let principal = Principal::Owner(owner.to_owned());
        let path = match self.account(&principal, owner).await? {
            Account::Organization => format!("/orgs/{escaped}/repos?type=all&sort=pushed&per_page=100"),
            Account::Ourselves => "/user/repos?affiliation=owner&per_page=100".to_owned(),
            Account::Person => format!("/users/{escaped}/repos?type=owner&per_page=100"),
        };
        self.listed(&principal, &path).await
    }

    async fn listed(&self, principal: &Principal, path: &str) -> Result<Listed<Repository>, Error> {
        self.checked::<RepositoriesPage>(principal, self.path(path)).await
    }
}

/// The cache key of an entry: logins and names are compared case-insensitively.
fn key(entry: &RepoEntry) -> String {
    entry.to_string().to_ascii_lowercase()
}
