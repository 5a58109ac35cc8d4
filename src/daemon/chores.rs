//! What is asked of GitHub now and then, beside the looks: what the entries of `repos` mean, whose registrations there are, which
//! versions of runners end.

use std::{collections::BTreeMap, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::{task::JoinSet, time::Instant};

use super::versions::Versions;
use crate::{
    github::{Error, GitHub, Listed, Refresh, RegisteredRunner, Resolution, Scope, VersionEnds},
    model::{Moment, OwnRegistration, RepoEntry as Entry, RepositoryId},
};

/// What the entries of `repos` mean is asked this often at most; the adapter knows when it is due.
const RESOLVE_EVERY: Duration = Duration::from_secs(30);

/// What the entries of `repos` mean is asked for no longer than this at a time.
const RESOLVED_WITHIN: Duration = Duration::from_secs(120);

/// Any other chore is given up after this.
const CHORE_WITHIN: Duration = Duration::from_secs(30);

/// Registrations are listed for orphans only: not before a start's first passes are done.
const REGISTRATIONS_AFTER: Duration = Duration::from_secs(60);

/// Nor, where there are many scopes, before all repositories were seen.
const MANY_REGISTRATIONS_AFTER: Duration = Duration::from_secs(300);

/// How often one scope's registrations are listed, at most.
const REGISTRATIONS_INTERVAL: Duration = Duration::from_secs(600);

/// With many scopes more rarely, so that it takes no more than 600 of the 5,000 requests an hour that a
/// token has (contract github.md §3).
const REGISTRATION_COST: Duration = Duration::from_secs(6);

/// At most this many scopes are listed at once. The next ones follow when they have cost what they may: orphans harm nobody, and with a
/// thousand scopes whoever waits for a job comes first.
const REGISTRATIONS_AT_ONCE: usize = 8;

/// What was asked of GitHub.
pub(super) enum Chore {
    Resolution(Resolution),
    Registrations(Vec<(Scope, RepositoryId, Result<Listed<RegisteredRunner>, Error>)>),
    Versions(Vec<(String, Result<Option<VersionEnds>, Error>)>),
    EndOfPass,
}

/// The chores, one at a time.
#[derive(Default)]
pub(super) struct Chores {
    tasks: JoinSet<Chore>,
    resolved_at: Option<Moment>,
    resolving: bool,
    ended_pass_at: Moment,
    registered: BTreeMap<Scope, Registered>,
    /// No registrations are listed before.
    registrations_at: Moment,
    /// The versions of the runners that were listed.
    versions: Versions,
}

/// The registrations of ours in one scope.
struct Registered {
    at: Moment,
    registrations: Vec<OwnRegistration>,
}

impl Chores {
    /// Begins what is due, if none is under way. `scopes` are those in which runners can be registered, each with a repository.
    pub fn begin(
        &mut self,
        github: &GitHub,
        entries: &[Entry],
        scopes: impl FnOnce() -> BTreeMap<Scope, RepositoryId>,
        now: Moment,
        pass: Duration,
    ) {
        if !self.tasks.is_empty() {
            return;
        }
        if self.resolved_at.is_none_or(|at| now.saturating_sub(at) >= RESOLVE_EVERY.min(pass)) {
            self.resolved_at = Some(now);
            self.resolving = true;
            let (github, entries) = (github.until(Instant::now() + RESOLVED_WITHIN), entries.to_vec());
            self.tasks.spawn(async move {
                Chore::Resolution(github.repositories(&entries, Refresh::WhenDue).await)
            });
        } else if now.saturating_sub(self.ended_pass_at) >= pass {
            self.ended_pass_at = now;
            let github = github.clone();
            self.tasks.spawn(async move {
                github.end_pass().await;
                Chore::EndOfPass
            });
        } else if let due = self.versions.due(now)
            && !due.is_empty()
        {
            let github = github.until(Instant::now() + CHORE_WITHIN).by_the_pace();
            self.tasks.spawn(async move {
                let mut ends = Vec::new();
                for (version, scope) in due {
                    let end = github.version_ends(&scope, &version).await;
                    ends.push((version, end));
                }
                Chore::Versions(ends)
            });
        } else if now >= self.registrations_at.max(REGISTRATIONS_AFTER)
            && let due = self.registrations_due(scopes(), now)
            && !due.is_empty()
        {
            let github = github.until(Instant::now() + CHORE_WITHIN).by_the_pace();
            self.tasks.spawn(async move {
                let listed = stream::iter(due).map(|(scope, id)| {
                    let github = github.clone();
                    async move {
                        let runners = github.list_runners(&scope).await;
                        (scope, id, runners)
                    }
                });
                Chore::Registrations(listed.buffered(REGISTRATIONS_AT_ONCE).collect().await)
            });
        }
    }

    /// Waits for the next one that is over; for ever if there is none.
    pub async fn next(&mut self) -> Chore {
        while let Some(joined) = self.tasks.join_next().await {
            match joined {
                Ok(chore) => return chore,
                Err(error) => {
                    self.resolving = false;
                    if !error.is_cancelled() {
                        tracing::error!("a task that asks GitHub ended by itself: {error}");
                    }
                }
            }
        }
        std::future::pending().await
    }

    /// Takes in what one has brought. What the entries of `repos` mean, if it was that.
    pub fn over(&mut self, chore: Chore, is_ours: impl Fn(&str) -> bool, now: Moment) -> Option<Resolution> {
        match chore {
            Chore::Resolution(found) => {
                self.resolving = false;
                return Some(found);
            }
            Chore::Registrations(listed) => self.registrations_listed(listed, is_ours, now),
            Chore::Versions(ends) => self.versions.learn(ends),
            Chore::EndOfPass => {}
        }
        None
    }

    /// For how long it has been asked what the entries of `repos` mean; `None` while it is not.
    pub fn resolving_for(&self, now: Moment) -> Option<Duration> {
        self.resolved_at.filter(|_| self.resolving).map(|at| now.saturating_sub(at))
    }

    /// When each version that was seen and ends stops getting jobs.
    pub fn version_ends(&self) -> &BTreeMap<String, u64> {
        self.versions.ends()
    }

    /// The registrations of ours as last listed.
    pub fn registrations(&self) -> Vec<OwnRegistration> {
        self.registered.values().flat_map(|registered| registered.registrations.iter().cloned()).collect()
    }

    /// The same under another configuration: what its entries mean is asked for anew.
    pub fn reconfigured(self) -> Self {
        Chores { tasks: JoinSet::new(), resolved_at: None, resolving: false, ..self }
    }

    /// The scopes whose registrations are to be listed. What cannot be listed is tried again after the usual time: orphans harm
    /// nobody.
    fn registrations_due(
        &mut self,
        scopes: BTreeMap<Scope, RepositoryId>,
        now: Moment,
    ) -> Vec<(Scope, RepositoryId)> {
        if scopes.len() > REGISTRATIONS_AT_ONCE && now < MANY_REGISTRATIONS_AFTER {
            self.registrations_at = MANY_REGISTRATIONS_AFTER;
            return Vec::new();
        }
        self.registered.retain(|scope, _| scopes.contains_key(scope));
        let count = u32::try_from(scopes.len()).unwrap_or(u32::MAX);
        let interval = REGISTRATIONS_INTERVAL.max(REGISTRATION_COST.saturating_mul(count));
        let mut due: Vec<(Option<Moment>, Scope, RepositoryId)> = scopes
            .into_iter()
            .map(|(scope, id)| (self.registered.get(&scope).map(|registered| registered.at), scope, id))
            .filter(|(at, ..)| at.is_none_or(|at| now.saturating_sub(at) >= interval))
            .collect();
        due.sort();
        due.truncate(REGISTRATIONS_AT_ONCE);
        let listed = u32::try_from(due.len()).unwrap_or(u32::MAX).max(1);
        self.registrations_at = now + REGISTRATION_COST.saturating_mul(listed);
        due.into_iter().map(|(_, scope, id)| (scope, id)).collect()
    }

    fn registrations_listed(
        &mut self,
        listed: Vec<(Scope, RepositoryId, Result<Listed<RegisteredRunner>, Error>)>,
        is_ours: impl Fn(&str) -> bool,
        now: Moment,
    ) {
        for (scope, repository, runners) in listed {
            // Whoever is in the list is registered, be it read in part; each is looked up once more before it goes.
            let runners = runners.map(Listed::into_known).unwrap_or_else(|error| {
                tracing::debug!(?scope, %error, "registrations not listed");
                Vec::new()
            });
            self.versions.see(&scope, &runners);
            let ours = runners.into_iter().filter(|runner| is_ours(&runner.name));
            let registrations = ours.map(|runner| OwnRegistration {
                online: runner.is_connected(),
                name: runner.name,
                repository,
            });
            self.registered.insert(scope, Registered { at: now, registrations: registrations.collect() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registrations_of_a_thousand_scopes_come_after_the_first_looks_and_a_few_a_minute() {
        let repository =
            |number: u64| Scope::Repository { owner: "acme".into(), name: format!("app-{number}") };
        let scopes: BTreeMap<Scope, RepositoryId> =
            (0..1000).map(|number| (repository(number), RepositoryId(number))).collect();
        let mut chores = Chores::default();
        let mut listed = Vec::new();
        for second in 0..1200 {
            let now = Duration::from_secs(second);
            if now >= chores.registrations_at {
                for (scope, ..) in chores.registrations_due(scopes.clone(), now) {
                    chores.registered.insert(scope, Registered { at: now, registrations: Vec::new() });
                    listed.push(second);
                }
            }
        }
        assert_eq!(listed.first(), Some(&300));
        assert!((140..=160).contains(&listed.len()), "{}", listed.len());
        let few = scopes.into_iter().take(8).collect();
        assert_eq!(Chores::default().registrations_due(few, REGISTRATIONS_AFTER).len(), 8);
    }
}
