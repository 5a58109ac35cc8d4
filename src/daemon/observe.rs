//! Observe: what Nomad says, then what GitHub says, each with its freshness.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use tokio::task::JoinSet;

use super::versions::Versions;
use crate::{
    github::{Error, GitHub, JobListing, Listed, Resolution, Scope},
    model::{
        Listing, Moment, NomadView, OwnRegistration, Ownership, RepoEntry as Entry, Repository, RepositoryId,
        RepositoryView, Runner, WorkflowJob,
    },
};

/// Registrations are listed for orphans only: not before a start's first passes are done.
const REGISTRATIONS_AFTER: Duration = Duration::from_secs(60);

/// How often one scope's registrations are listed, at most.
const REGISTRATIONS_INTERVAL: Duration = Duration::from_secs(600);

/// With many scopes more rarely, so that it takes no more than 1,800 of the 5,000 requests an hour that a
/// token has (contract github.md §3).
const REGISTRATION_COST: Duration = Duration::from_secs(2);

/// So many scopes are listed after one pass, so that the next one is not late.
const REGISTRATIONS_A_PASS: usize = 32;

/// So many repositories' errors are told one by one.
const SAID_AT_MOST: usize = 3;

/// Why a repository is taken for what it was.
const UNCONFIRMED: &str = "its entry in `repos` could not be read whole, and named it before";

/// What is remembered of GitHub's side between passes.
#[derive(Default)]
pub(super) struct GitHubSide {
    known: BTreeMap<RepositoryId, Known>,
    registered: BTreeMap<Scope, Registered>,
    /// Finds out what the entries of `repos` mean; empty when that is known.
    resolving: JoinSet<Resolution>,
    /// What the last time could not find out.
    unsure: bool,
    /// The versions of the runners that were listed.
    pub(super) versions: Versions,
}

/// The registrations of ours in one scope.
struct Registered {
    at: Moment,
    registrations: Vec<OwnRegistration>,
}

struct Known {
    view: RepositoryView,
    jobs: Option<(Vec<WorkflowJob>, bool)>,
    gone_since: Option<Moment>,
    /// An entry was known to name it.
    configured: bool,
    /// One that could not be read whole the last time.
    unconfirmed: bool,
}

/// What came of listing repositories.
pub(super) type Listings = BTreeMap<RepositoryId, Result<JobListing, Error>>;

/// What is to be listed in a pass.
#[derive(Default)]
pub(super) struct Wanted {
    /// Each with whether the configuration names it.
    repositories: BTreeMap<RepositoryId, (Repository, bool)>,
    /// Those that an entry named before, and that nobody has confirmed since.
    unconfirmed: BTreeSet<RepositoryId>,
    /// Some entry could not be read: it may name any of them.
    unsure: bool,
}

impl Wanted {
    /// The repositories.
    pub fn repositories(&self) -> Vec<Repository> {
        self.repositories.values().map(|(repository, _)| repository.clone()).collect()
    }
}

impl GitHubSide {
    /// The task that finds out what the entries of `repos` mean. One that has no end yet goes on.
    pub fn resolving(&mut self, github: &GitHub, entries: &[Entry]) -> JoinSet<Resolution> {
        let mut tasks = std::mem::take(&mut self.resolving);
        if tasks.is_empty() {
            let (github, entries) = (github.clone(), entries.to_vec());
            tasks.spawn(async move { github.repositories(&entries, false).await });
        }
        tasks
    }

    /// What the entries mean is not known whole yet: their task goes on beside the passes.
    pub fn go_on_resolving(&mut self, tasks: JoinSet<Resolution>) {
        self.resolving = tasks;
    }

    /// What is to be listed: each repository that is configured or has a runner of ours. What goes wrong is told in
    /// `errors` and costs only the entry that it concerns.
    pub fn wanted(&mut self, found: Resolution, nomad: &NomadView, errors: &mut Vec<String>) -> Wanted {
        // A limit concerns all of them: one line tells it.
        let mut limited = None;
        let mut failed = Vec::new();
        for (entry, error) in &found.failures {
            match error {
                Error::RateLimited { .. } => limited = Some(error.to_string()),
                _ => failed.push(format!("repositories of {entry}: {error}")),
            }
        }
        errors.extend(few(failed, "entries of `repos`"));
        let unconfirmed = found.unconfirmed;
        let mut wanted: BTreeMap<RepositoryId, (Repository, bool)> =
            found.repositories.into_iter().map(|repository| (repository.id, (repository, true))).collect();
        for (id, repository) in with_runners(&nomad.runners) {
            wanted.entry(id).or_insert_with(|| (repository, false));
        }
        let idle = |repository: &Repository| {
            (repository.archived || repository.disabled)
                && !nomad.runners.iter().any(|r| r.meta.repo_id == Some(repository.id))
        };
        wanted.retain(|_, (repository, _)| !idle(repository));
        self.known.retain(|id, _| wanted.contains_key(id));

        errors.extend(limited);
        let unsure = !found.failures.is_empty();
        Wanted { repositories: wanted, unconfirmed, unsure }
    }

    /// Those of the last time whose listings were not over.
    pub fn unfinished(&self, github: &GitHub) -> Wanted {
        let unfinished = github.unfinished();
        let mut wanted = Wanted { unsure: self.unsure, ..Wanted::default() };
        for (id, known) in self.known.iter().filter(|(id, _)| unfinished.contains(id)) {
            wanted.repositories.insert(*id, (known.view.repository.clone(), known.configured));
            wanted.unconfirmed.extend(known.unconfirmed.then_some(*id));
        }
        wanted
    }

    /// Takes in what GitHub said of these repositories; all others are as they were when they were last listed. What goes
    /// wrong is told in `errors` and costs only the repository that it concerns.
    pub fn learn_all(
        &mut self,
        wanted: Wanted,
        mut listings: Listings,
        now: Moment,
        errors: &mut Vec<String>,
    ) -> BTreeMap<RepositoryId, RepositoryView> {
        let Wanted { repositories, unconfirmed, unsure } = wanted;
        self.unsure = unsure;
        let mut views = self.recall();
        let mut limited = None;
        let mut failed = Vec::new();
        for (id, (repository, configured)) in repositories {
            let mut listing = listings.remove(&id).unwrap_or(Err(Error::OutOfTime));
            // What its entry meant before counts on: jobs get runners, and nothing stops.
            if let Ok(listing) = &mut listing
                && unconfirmed.contains(&id)
            {
                listing.missing.get_or_insert_with(|| UNCONFIRMED.to_owned());
            }
            match &listing {
                // Said as a Hold.
                Ok(_) | Err(Error::NotFound { .. }) => {}
                Err(error @ Error::RateLimited { .. }) => limited = Some(error.to_string()),
                Err(error) => failed.push(format!("{}: {error}", repository.full_name())),
            }
            let known = self.learn(repository, configured, unsure, listing, now);
            known.configured = configured;
            known.unconfirmed = unconfirmed.contains(&id);
            views.insert(id, known.view.clone());
        }
        errors.extend(few(failed, "repositories"));
        errors.extend(limited);
        views
    }

    /// What earlier passes saw: enough for all that needs no listing of this pass.
    pub fn recall(&self) -> BTreeMap<RepositoryId, RepositoryView> {
        let stale = |known: &Known| match known.view.listing {
            Listing::Gone { .. } => known.view.clone(),
            _ => {
                RepositoryView { listing: known.stale("not listed again in this pass"), ..known.view.clone() }
            }
        };
        self.known.iter().map(|(id, known)| (*id, stale(known))).collect()
    }

    /// Lists the registrations that bear our names, where that is due. What cannot be listed is tried again
    /// after the usual time: orphans harm nobody.
    pub async fn list_registrations(
        &mut self,
        github: &GitHub,
        organization: bool,
        is_ours: impl Fn(&str) -> bool,
        now: Moment,
    ) {
        if now < REGISTRATIONS_AFTER {
            return;
        }
        let scopes: BTreeMap<Scope, RepositoryId> = self
            .known
            .values()
            .filter(|known| known.gone_since.is_none())
            .map(|known| (Scope::of(&known.view.repository, organization), known.view.repository.id))
            .collect();
        self.registered.retain(|scope, _| scopes.contains_key(scope));
        let count = u32::try_from(scopes.len()).unwrap_or(u32::MAX);
        let interval = REGISTRATIONS_INTERVAL.max(REGISTRATION_COST.saturating_mul(count));
        let mut due: Vec<(Option<Moment>, Scope, RepositoryId)> = scopes
            .into_iter()
            .map(|(scope, id)| (self.registered.get(&scope).map(|registered| registered.at), scope, id))
            .filter(|(at, ..)| at.is_none_or(|at| now.saturating_sub(at) >= interval))
            .collect();
        due.sort();
        due.truncate(REGISTRATIONS_A_PASS);
        let listed: Vec<_> = stream::iter(due)
            .map(|(_, scope, id)| async move {
                let runners = github.list_runners(&scope).await;
                (scope, id, runners)
            })
            .buffered(REGISTRATIONS_A_PASS)
            .collect()
            .await;
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

    /// The same under another configuration: what its entries mean is asked for anew.
    pub fn reconfigured(self) -> Self {
        GitHubSide { resolving: JoinSet::new(), ..self }
    }

    /// How many repositories are remembered.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// The registrations of ours as last listed.
    pub fn registrations(&self) -> Vec<OwnRegistration> {
        self.registered.values().flat_map(|registered| registered.registrations.iter().cloned()).collect()
    }

    fn learn(
        &mut self,
        repository: Repository,
        configured: bool,
        unsure: bool,
        listing: Result<JobListing, Error>,
        now: Moment,
    ) -> &mut Known {
        let id = repository.id;
        let listed = Listing::Unseen { reason: String::new() };
        let view = RepositoryView { repository, configured, listing: listed, missing: None };
        let known = self.known.entry(id).or_insert_with(|| Known {
            view: view.clone(),
            jobs: None,
            gone_since: None,
            configured,
            unconfirmed: false,
        });
        known.view = view;
        if !matches!(listing, Err(Error::NotFound { .. })) {
            known.gone_since = None;
        }
        known.view.listing = match listing {
            // While an entry could not be resolved nobody knows whether it still names this repository.
            Ok(_) if !configured && unsure => {
                known.stale("it is not known whether the configuration still names it")
            }
            Ok(listing) => {
                let complete = listing.is_complete();
                known.view.missing = listing.missing;
                known.jobs = Some((listing.jobs.clone(), complete));
                Listing::Fresh { now: listing.now, jobs: listing.jobs, complete }
            }
            Err(Error::NotFound { .. }) => Listing::Gone { since: *known.gone_since.get_or_insert(now) },
            Err(error) => known.stale(&error.to_string()),
        };
        if !configured && unsure {
            known.view.configured = true;
        }
        known
    }
}

impl Known {
    fn stale(&self, reason: &str) -> Listing {
        let reason = reason.to_owned();
        match &self.jobs {
            Some((jobs, complete)) => Listing::Stale { jobs: jobs.clone(), complete: *complete, reason },
            None => Listing::Unseen { reason },
        }
    }
}

/// The first few of many errors: when GitHub is down there is one for each repository.
fn few(mut errors: Vec<String>, of_what: &str) -> Vec<String> {
    let more = errors.len().saturating_sub(SAID_AT_MOST);
    if more > 1 {
        errors.truncate(SAID_AT_MOST);
        errors.push(format!("{more} more {of_what} could not be read either"));
    }
    errors
}

/// The repositories that our runners name, as far as their Meta tells.
fn with_runners(runners: &[Runner]) -> impl Iterator<Item = (RepositoryId, Repository)> {
    runners.iter().filter(|runner| runner.ownership == Ownership::Ours).filter_map(|runner| {
        let id = runner.meta.repo_id?;
        let repository = runner.repository();
        (!repository.owner.is_empty()).then_some((id, repository))
    })
}
