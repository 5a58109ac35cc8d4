//! Occasional requests to GitHub besides looks: which repositories the entries of `repos` name, which registrations
//! exist, which runner versions end.

use std::{collections::BTreeMap, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::{task::JoinSet, time::Instant};

use super::versions::Versions;
use crate::{
    github::{Error, GitHub, Listed, Refresh, RegisteredRunner, Resolution, Scope, VersionEnds},
    model::{Moment, OwnRegistration, RepoEntry as Entry, RepositoryId},
};

/// The shortest time between two resolutions of `repos`. The adapter knows when each entry is due.
const RESOLVE_EVERY: Duration = Duration::from_secs(30);

/// The deadline for one resolution of `repos`.
const RESOLVED_WITHIN: Duration = Duration::from_secs(120);

/// The deadline for any other chore.
const CHORE_WITHIN: Duration = Duration::from_secs(30);

/// Registrations are listed only to find orphans, so not before the first passes after a start.
const REGISTRATIONS_AFTER: Moment = Moment::after_start(Duration::from_secs(60));

/// With many scopes, not before all repositories have been seen.
const MANY_REGISTRATIONS_AFTER: Moment = Moment::after_start(Duration::from_secs(300));

/// The shortest time between two listings of one scope's registrations.
const REGISTRATIONS_INTERVAL: Duration = Duration::from_secs(600);

/// With many scopes, listings are rarer, so that they take at most 600 of a token's 5,000 requests an hour
/// (contract github.md §3).
const REGISTRATION_COST: Duration = Duration::from_secs(6);

/// At most this many scopes are listed at once. The others follow at the allowed rate: orphans do no harm, and with a
/// thousand scopes, jobs that are waiting come first.
const REGISTRATIONS_AT_ONCE: usize = 8;

/// The result of a chore.
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
    /// No registrations are listed before this time.
    registrations_at: Moment,
    /// The versions of the listed runners.
    versions: Versions,
}

/// Our registrations in one scope.
struct Registered {
    at: Moment,
    registrations: Vec<OwnRegistration>,
}

impl Chores {
    /// Starts a due chore, if none is in progress. `scopes` are those in which runners can be registered, each with a
    /// repository.
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
        if self.resolved_at.is_none_or(|at| now.since(at) >= RESOLVE_EVERY.min(pass)) {
            self.resolved_at = Some(now);
            self.resolving = true;
            let (github, entries) = (github.until(Instant::now() + RESOLVED_WITHIN), entries.to_vec());
            self.tasks.spawn(async move {
                Chore::Resolution(github.repositories(&entries, Refresh::WhenDue).await)
            });
        } else if now.since(self.ended_pass_at) >= pass {
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

    /// Waits for the next chore to end; forever if there is none.
    pub async fn next(&mut self) -> Chore {
        while let Some(joined) = self.tasks.join_next().await {
            match joined {
                Ok(chore) => return chore,
                Err(error) => {
                    self.resolving = false;
                    if !error.is_cancelled() {
                        tracing::error!("a request to GitHub ended unexpectedly: {error}");
                    }
                }
            }
        }
        std::future::pending().await
    }

    /// Records the result of a chore. Returns the resolution, if it was one.
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

    /// How long a resolution of `repos` has been in progress; `None` if there is none.
    pub fn resolving_for(&self, now: Moment) -> Option<Duration> {
        self.resolved_at.filter(|_| self.resolving).map(|at| now.since(at))
    }

    /// For each version that ends, when it stops getting jobs.
    pub fn version_ends(&self) -> &BTreeMap<String, u64> {
        self.versions.ends()
    }

    /// Our registrations, as last listed.
    pub fn registrations(&self) -> Vec<OwnRegistration> {
        self.registered.values().flat_map(|registered| registered.registrations.iter().cloned()).collect()
    }

    /// The same with another configuration: `repos` is resolved again.
    pub fn reconfigured(self) -> Self {
        Chores { tasks: JoinSet::new(), resolved_at: None, resolving: false, ..self }
    }

    /// The scopes whose registrations are due to be listed. A failed listing is retried after the usual time: orphans
    /// do no harm.
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
            .filter(|(at, ..)| at.is_none_or(|at| now.since(at) >= interval))
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
            // Every runner in the list is registered, even if the list is incomplete. Each is verified once more
            // before it is removed.
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
            let now = Moment::after_start(Duration::from_secs(second));
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
