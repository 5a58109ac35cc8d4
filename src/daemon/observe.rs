//! The GitHub side of an observation: the repositories, the results of looks at them, and how fresh these
//! are.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    Looked,
    acts::Acts,
    marks::{Marks, OfOne},
    news::News,
};
use crate::{
    github::{Error, Look, Resolution, Scope},
    labels::Interest,
    model::{
        GroupKey, JobStatus, Labels, Listing, Moment, NomadView, Observation, Ownership, Repository,
        RepositoryId, RepositoryRef, RepositoryView, Runner, RunnerLevel, Timestamp, Unobserved, WorkflowJob,
    },
};

/// A listing may be used for this long, provided that nothing of its repository has appeared or disappeared in Nomad
/// since.
const FRESH_FOR: Duration = Duration::from_secs(10);

/// At most this many repositories' errors are logged individually.
const SAID_AT_MOST: usize = 3;

/// Why a repository keeps its earlier state.
const UNCONFIRMED: &str =
    "its entry in `repos` could not be read completely; it named this repository before";

/// What is remembered of GitHub between passes.
pub(super) struct GitHubSide {
    known: BTreeMap<RepositoryId, Known>,
    /// The last resolution of `repos`.
    found: Option<Resolution>,
    /// The set of repositories has changed and was not reported yet.
    is_news: bool,
    /// Repositories with more runners than jobs in some group.
    spare: BTreeSet<RepositoryId>,
    /// Repositories for whose next listing a pass waits.
    awaited: BTreeSet<RepositoryId>,
    fresh_for: Duration,
}

impl Default for GitHubSide {
    fn default() -> Self {
        GitHubSide {
            known: BTreeMap::new(),
            found: None,
            is_news: true,
            spare: BTreeSet::new(),
            awaited: BTreeSet::new(),
            fresh_for: FRESH_FOR,
        }
    }
}

/// What is known of a repository.
struct Known {
    repository: Repository,
    /// An entry names it.
    configured: bool,
    /// The entry could not be read completely the last time.
    unconfirmed: bool,
    /// The jobs of the last successful look, and whether the listing was complete.
    jobs: Option<(Vec<WorkflowJob>, bool)>,
    /// The result of the last look.
    last: Last,
    /// When a pass last had a complete and fresh listing of it.
    active_at: Option<Moment>,
    /// When a look for a complete listing was last requested.
    asked_in_full: Option<Moment>,
    /// How many of its jobs need or have a runner of ours.
    wanted: usize,
}

/// The result of the last look at a repository.
enum Last {
    Never,
    Listed { began: Moment, ended: Moment, marks: OfOne, now: Timestamp, missing: Option<String> },
    Failed(Error),
    Gone { since: Moment },
}

impl GitHubSide {
    /// Records what the entries of `repos` resolve to. A failure affects only its own entry. Returns whether the
    /// repositories changed.
    pub fn resolved(&mut self, found: Resolution) -> bool {
        let is_news = self.found.as_ref().is_none_or(|before| {
            before.repositories != found.repositories || before.failures.len() != found.failures.len()
        });
        self.found = Some(found);
        is_news
    }

    /// Whether any entry of `repos` has been resolved.
    pub fn is_resolved(&self) -> bool {
        self.found.is_some()
    }

    /// The current errors of entries and repositories.
    pub fn trouble(&self) -> Vec<Unobserved> {
        // A rate limit affects all of them, so one line reports it.
        let mut limited = None;
        let mut told = |error: &Error, subject: &dyn Fn() -> String| {
            let kind = error.kind();
            if matches!(error, Error::RateLimited { .. }) {
                limited = Some(Unobserved { subject: "GitHub".to_owned(), kind, text: error.to_string() });
                return None;
            }
            let subject = subject();
            Some(Unobserved { text: format!("{subject}: {error}"), subject, kind })
        };
        let failures = self.found.iter().flat_map(|found| &found.failures);
        let entries = failures
            .filter_map(|(entry, error)| told(error, &|| format!("repositories of {entry}")))
            .collect();
        let repositories = self.known.values().filter_map(|known| match &known.last {
            Last::Failed(error) => told(error, &|| known.repository.full_name()),
            _ => None,
        });
        let repositories = repositories.collect();
        let mut errors = few(entries, "entries of `repos`");
        errors.extend(few(repositories, "repositories"));
        errors.extend(limited);
        errors
    }

    /// Watches exactly the repositories that are configured or have a runner of ours.
    pub fn want(&mut self, nomad: &NomadView) {
        let Some(found) = &self.found else { return };
        let of_runners: BTreeMap<RepositoryId, Repository> = with_runners(&nomad.runners).collect();
        let named = found.repositories.iter().map(|repository| (repository.id, (repository, true)));
        let mut wanted: BTreeMap<RepositoryId, (&Repository, bool)> =
            of_runners.iter().map(|(id, repository)| (*id, (repository, false))).chain(named).collect();
        wanted.retain(|id, (repository, _)| {
            let sleeps = repository.archived || repository.disabled;
            !sleeps || nomad.runners.iter().any(|runner| runner.meta.repo_id == Some(*id))
        });
        let before = self.known.len();
        self.known.retain(|id, _| wanted.contains_key(id));
        self.awaited.retain(|id| wanted.contains_key(id));
        self.is_news |= self.known.len() < before;
        for (id, (repository, configured)) in wanted {
            let unconfirmed = found.unconfirmed.contains(&id);
            let known = self.known.entry(id).or_insert_with(|| {
                self.is_news = true;
                Known::new(repository.clone())
            });
            if known.repository != *repository {
                known.repository.clone_from(repository);
                self.is_news = true;
            }
            (known.configured, known.unconfirmed) = (configured, unconfirmed);
        }
        self.count_spare(nomad);
    }

    /// Whether the repositories have changed since the last call.
    pub fn has_news(&mut self) -> bool {
        std::mem::take(&mut self.is_news)
    }

    /// The repository of a runner, by its ID or else by the URL that nomadtools wrote.
    pub fn repository_of(&self, runner: &Runner) -> Option<RepositoryId> {
        let has_address = |known: &&Known| {
            let (address, own) = (&runner.meta.repo_url, &known.repository.html_url);
            address.to_lowercase() == own.to_lowercase()
        };
        // If two repositories have had the same URL one after the other, it means the one that the
        // configuration names.
        let by_address = || self.known.values().filter(has_address).max_by_key(|known| known.configured);
        runner.meta.repo_id.or_else(|| by_address().map(|known| known.repository.id))
    }

    /// The scopes in which our runners can be registered, each with an existing repository.
    pub fn scopes(&self, levels: &[RunnerLevel]) -> BTreeMap<Scope, RepositoryId> {
        self.known
            .values()
            .filter(|known| !matches!(known.last, Last::Gone { .. }))
            .flat_map(|known| {
                let scope = |level: &RunnerLevel| Scope::of(&RepositoryRef::from(&known.repository), *level);
                levels.iter().map(move |level| (scope(level), known.repository.id))
            })
            .collect()
    }

    /// The watched repositories.
    pub fn repositories(&self) -> Vec<Repository> {
        self.known.values().map(|known| known.repository.clone()).collect()
    }

    /// The repositories to be looked at, each with its last push, if known.
    pub fn scheduled(&self) -> impl Iterator<Item = (&Repository, Option<Timestamp>)> + Clone {
        let pushed = self.found.as_ref().map(|found| &found.pushed_at);
        self.known.values().map(move |known| {
            (&known.repository, pushed.and_then(|pushed| pushed.get(&known.repository.id)).copied())
        })
    }

    /// Remembers where a group has more available runners than jobs, according to the last listings.
    fn count_spare(&mut self, nomad: &NomadView) {
        let jobs = || self.known.values().filter_map(|known| known.jobs.as_ref()).flat_map(|(jobs, _)| jobs);
        let in_progress = jobs().filter(|job| job.status == JobStatus::InProgress);
        let busy: BTreeSet<&str> = in_progress.filter_map(|job| job.runner_name.as_deref()).collect();
        let mut over: BTreeMap<GroupKey, isize> = BTreeMap::new();
        // A warm runner is idle for hours, so a complete listing each minute is enough for it.
        let counts = |r: &&Runner| r.is_live() && !busy.contains(r.name.as_str()) && r.warm().is_none();
        for runner in nomad.runners.iter().filter(counts) {
            if let Some(repository) = runner.meta.repo_id {
                *over.entry(GroupKey { repository, labels: runner.labels() }).or_default() += 1;
            }
        }
        if !over.is_empty() {
            for job in jobs().filter(|job| job.status == JobStatus::Queued) {
                let labels = Labels::new(job.labels.iter().map(String::as_str));
                let group = GroupKey { repository: job.repository, labels };
                over.entry(group).and_modify(|count| *count -= 1);
            }
        }
        let spare = over.into_iter().filter(|(_, count)| *count > 0).map(|(group, _)| group.repository);
        self.spare = spare.collect();
    }

    /// The next successful look at a repository is news.
    pub fn awaits(&mut self, id: RepositoryId) {
        self.awaited.insert(id);
    }

    /// Whether a job waits for a runner of ours, according to the last listings.
    pub fn has_demand(&self) -> bool {
        self.known.values().any(|known| known.wanted > 0)
    }

    /// A repository to be looked at, and how: in full if a Stop or a purge may depend on it.
    pub fn to_look_at(
        &self,
        id: RepositoryId,
        at_least: Look,
        marks: &OfOne,
        now: Moment,
        active_every: Duration,
    ) -> Option<(Repository, Look)> {
        let known = self.known.get(&id)?;
        let in_full = self.spare.contains(&id) || self.is_due_in_full(id, now, active_every);
        let look = if marks.any() && in_full { Look::Active } else { Look::Newest };
        Some((known.repository.clone(), look.max(at_least)))
    }

    /// Whether to request a look for a complete listing, because there was none for this long. A look that fails or is
    /// cut short is not repeated at once.
    pub fn asks_in_full(&mut self, id: RepositoryId, now: Moment, active_every: Duration) -> bool {
        let is_due = self.is_due_in_full(id, now, active_every);
        let Some(known) = self.known.get_mut(&id).filter(|_| is_due) else { return false };
        let again = known.asked_in_full.is_none_or(|at| now.since(at) >= active_every);
        known.asked_in_full = if again { Some(now) } else { known.asked_in_full };
        again
    }

    /// Whether there was no complete listing of a repository for this long.
    fn is_due_in_full(&self, id: RepositoryId, now: Moment, active_every: Duration) -> bool {
        let active_at = self.known.get(&id).map(|known| known.active_at);
        active_at.is_some_and(|at| at.is_none_or(|at| now.since(at) >= active_every))
    }

    /// Records the result of a look. A failure affects only its own repository. Returns whether it is news, and whether
    /// there are jobs of ours.
    pub fn learn(&mut self, looked: Looked, interest: &Interest) -> (News, bool) {
        let is_awaited = looked.result.is_ok() && self.awaited.remove(&looked.repository);
        let Some(known) = self.known.get_mut(&looked.repository) else { return (News::No, false) };
        let is_first = matches!(known.last, Last::Never);
        let was_well = matches!(known.last, Last::Listed { .. });
        match looked.result {
            Ok(listing) => {
                let complete = listing.is_complete();
                let mut judge = interest.judge();
                let wants = |job: &&WorkflowJob| {
                    matches!(job.status, JobStatus::Queued | JobStatus::InProgress)
                        && judge.is_ours(&job.labels, job.runner_name.as_deref())
                };
                known.wanted = listing.jobs.iter().filter(wants).count();
                let has_changed = known.jobs.as_ref().is_none_or(|(jobs, _)| *jobs != listing.jobs);
                let concerns_us = known.wanted > 0 || looked.marks.any();
                // Only a complete listing permits Stops and purges.
                let is_full = listing.look >= Look::Active && looked.marks.any();
                known.jobs = Some((listing.jobs, complete));
                known.last = Last::Listed {
                    began: looked.began,
                    ended: looked.ended,
                    marks: looked.marks,
                    now: listing.now,
                    missing: listing.missing,
                };
                let is_well_again = !was_well && !is_first && has_changed;
                let is_now =
                    concerns_us && (looked.asked || has_changed) || is_well_again || is_full || is_awaited;
                let news = if is_first && !is_now { News::Later } else { News::now_if(is_now) };
                (news, known.wanted > 0)
            }
            Err(Error::NotFound { .. }) => {
                let since = match known.last {
                    Last::Gone { since } => since,
                    _ => looked.ended,
                };
                known.last = Last::Gone { since };
                (News::now_if(was_well || looked.marks.any()), false)
            }
            Err(error) => {
                let was_failed = matches!(known.last, Last::Failed(_));
                known.last = Last::Failed(error);
                let has_jobs = known.wanted > 0;
                if was_failed {
                    return (News::No, has_jobs);
                }
                // The first failure is reported at once. If GitHub is down, all of them fail, and the others follow
                // together.
                let fails = |known: &&Known| matches!(known.last, Last::Failed(_));
                let is_only_one = self.known.values().filter(fails).nth(1).is_none();
                let news = if is_only_one { News::Now } else { News::Later };
                (news, has_jobs)
            }
        }
    }

    /// The repositories whose last listing is invalid because a runner no longer takes jobs, so a job may be waiting
    /// for the next one. An added runner does not matter.
    pub fn outdated(&self, marks: &Marks) -> Vec<RepositoryId> {
        let is_outdated = |(id, known): &(&RepositoryId, &Known)| match &known.last {
            Last::Listed { marks: before, .. } => marks.lack(**id, before),
            _ => false,
        };
        self.known.iter().filter(is_outdated).map(|(id, _)| *id).collect()
    }

    /// Everything was looked at for one pass, so the view of Nomad applies to all of it.
    pub fn all_at_once(&mut self, within: Duration) {
        self.fresh_for = within + FRESH_FOR;
    }

    /// The views of all repositories, compared with the view of Nomad.
    pub fn views(&self, marks: &Marks, acts: &Acts, now: Moment) -> BTreeMap<RepositoryId, RepositoryView> {
        let unsure = self.found.as_ref().is_none_or(|found| !found.failures.is_empty());
        let view = |(id, known): (&RepositoryId, &Known)| (*id, self.view(known, unsure, marks, acts, now));
        self.known.iter().map(view).collect()
    }

    fn view(&self, known: &Known, unsure: bool, marks: &Marks, acts: &Acts, now: Moment) -> RepositoryView {
        let id = known.repository.id;
        let mut view = RepositoryView {
            repository: known.repository.clone(),
            // If an entry could not be resolved, it is unknown whether it still names this repository.
            configured: known.configured || unsure,
            listing: Listing::Unseen { reason: "not polled yet".to_owned() },
            missing: None,
        };
        match &known.last {
            Last::Never => {}
            Last::Gone { since } => view.listing = Listing::Gone { since: *since },
            Last::Failed(error) => view.listing = known.stale(&error.to_string()),
            Last::Listed { .. } if !known.configured && unsure => {
                view.listing = known.stale("it is not known whether the configuration still names it");
            }
            Last::Listed { ended, marks: before, now: listed_at, missing, .. } => {
                let (jobs, complete) = known.jobs.clone().unwrap_or_default();
                let is_fresh =
                    now.since(*ended) <= self.fresh_for && marks.are_still(id, before) && !acts.change(id);
                view.missing = missing.clone();
                // What its entry meant before still counts: jobs get runners, and nothing stops.
                if known.unconfirmed {
                    view.missing.get_or_insert_with(|| UNCONFIRMED.to_owned());
                }
                let complete = complete && !known.unconfirmed;
                view.listing = match is_fresh {
                    true => Listing::Fresh { now: *listed_at, jobs, complete },
                    false => Listing::Earlier { ended: *ended, jobs, complete },
                };
            }
        }
        view
    }

    /// Which listings an observation treats as fresh, and how long ago each began.
    pub fn fresh(&mut self, observation: &Observation, now: Moment) -> BTreeMap<RepositoryId, Duration> {
        let mut fresh = BTreeMap::new();
        for (id, view) in &observation.repositories {
            let Listing::Fresh { complete, .. } = view.listing else { continue };
            let Some(known) = self.known.get_mut(id) else { continue };
            if let Last::Listed { began, .. } = known.last {
                fresh.insert(*id, now.since(began));
            }
            if complete {
                known.active_at = Some(now);
            }
        }
        fresh
    }

    /// The same with another configuration: `repos` is resolved again, and until then nothing starts or stops.
    pub fn reconfigured(self) -> Self {
        let mut known = self.known;
        known.values_mut().for_each(|known| known.configured = false);
        GitHubSide { found: None, is_news: true, known, ..self }
    }

    /// How many repositories are remembered.
    pub fn len(&self) -> usize {
        self.known.len()
    }
}

impl Known {
    /// A repository without a look so far.
    fn new(repository: Repository) -> Self {
        Known {
            repository,
            configured: false,
            unconfirmed: false,
            jobs: None,
            last: Last::Never,
            active_at: None,
            asked_in_full: None,
            wanted: 0,
        }
    }

    fn stale(&self, reason: &str) -> Listing {
        let reason = reason.to_owned();
        match &self.jobs {
            Some((jobs, complete)) => Listing::Stale { jobs: jobs.clone(), complete: *complete, reason },
            None => Listing::Unseen { reason },
        }
    }
}

/// The first few of many errors: if GitHub is down, there is one for each repository.
fn few(mut errors: Vec<Unobserved>, of_what: &str) -> Vec<Unobserved> {
    let more = errors.len().saturating_sub(SAID_AT_MOST);
    if more > 0 {
        errors.truncate(SAID_AT_MOST);
        let text = format!("{more} more {of_what} could not be read");
        errors.push(Unobserved { subject: of_what.to_owned(), kind: "more", text });
    }
    errors
}

/// The repositories that our runners' Meta names.
fn with_runners(runners: &[Runner]) -> impl Iterator<Item = (RepositoryId, Repository)> {
    runners.iter().filter(|runner| runner.ownership == Ownership::Ours).filter_map(|runner| {
        let repository = runner.repository()?.into_repository()?;
        Some((repository.id, repository))
    })
}

#[cfg(test)]
#[path = "observe_tests.rs"]
mod tests;
