//! Observe: what Nomad says, then what GitHub says, each with its freshness.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    github::{Entry, Error, GitHub, JobListing},
    model::{
        Listing, Moment, NomadView, Ownership, Repository, RepositoryId, RepositoryView, Runner, WorkflowJob,
    },
};

/// Repositories that are not listed by then are not seen in this pass: they must not hold up the others.
const LISTING_DEADLINE: Duration = Duration::from_secs(60);

/// What is remembered of GitHub's side between passes.
#[derive(Default)]
pub(super) struct GitHubSide {
    known: BTreeMap<RepositoryId, Known>,
}

struct Known {
    view: RepositoryView,
    jobs: Option<(Vec<WorkflowJob>, bool)>,
    gone_since: Option<Moment>,
}

impl GitHubSide {
    /// Lists each repository that is configured or has a runner of ours. What goes wrong is told in
    /// `errors` and costs only the repository or entry that it concerns.
    pub async fn list(
        &mut self,
        github: &GitHub,
        entries: &[Entry],
        nomad: &NomadView,
        now: Moment,
        errors: &mut Vec<String>,
    ) -> BTreeMap<RepositoryId, RepositoryView> {
        let found = github.repositories(entries, false).await;
        errors
            .extend(found.failures.iter().map(|(entry, error)| format!("repositories of {entry}: {error}")));
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

        let repositories: Vec<Repository> =
            wanted.values().map(|(repository, _)| repository.clone()).collect();
        let mut listings = github.list_all(&repositories, false, LISTING_DEADLINE).await;
        let unsure = !found.failures.is_empty();
        for (id, (repository, configured)) in wanted {
            let listing = listings.remove(&id).unwrap_or(Err(Error::OutOfTime));
            match &listing {
                // Said as a Hold.
                Ok(_) | Err(Error::NotFound { .. }) => {}
                Err(error) => errors.push(format!("{}: {error}", repository.full_name())),
            }
            self.learn(repository, configured, unsure, listing, now);
        }
        self.known.iter().map(|(id, known)| (*id, known.view.clone())).collect()
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

    fn learn(
        &mut self,
        repository: Repository,
        configured: bool,
        unsure: bool,
        listing: Result<JobListing, Error>,
        now: Moment,
    ) {
        let id = repository.id;
        let view =
            RepositoryView { repository, configured, listing: Listing::Unseen { reason: String::new() } };
        let known = self.known.entry(id).or_insert_with(|| Known {
            view: view.clone(),
            jobs: None,
            gone_since: None,
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
                known.jobs = Some((listing.jobs.clone(), listing.complete));
                Listing::Fresh { now: listing.now, jobs: listing.jobs, complete: listing.complete }
            }
            Err(Error::NotFound { .. }) => Listing::Gone { since: *known.gone_since.get_or_insert(now) },
            Err(error) => known.stale(&error.to_string()),
        };
        if !configured && unsure {
            known.view.configured = true;
        }
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

/// The repositories that our runners name, as far as their Meta tells.
fn with_runners(runners: &[Runner]) -> impl Iterator<Item = (RepositoryId, Repository)> {
    runners.iter().filter(|runner| runner.ownership == Ownership::Ours).filter_map(|runner| {
        let id = runner.meta.repo_id?;
        let mut path = runner.meta.repo_url.trim_end_matches('/').rsplit('/');
        let (name, owner) = (path.next()?.to_owned(), path.next()?.to_owned());
        let html_url = runner.meta.repo_url.clone();
        Some((id, Repository { id, owner, name, html_url, archived: false, disabled: false }))
    })
}
