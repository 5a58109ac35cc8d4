//! GitHub's side of what is observed: the repositories, what looks at them have shown, and how fresh that is.

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
        RepositoryId, RepositoryView, Runner, Timestamp, Unobserved, WorkflowJob,
    },
};

/// A listing may be used for this long after it was made, if nothing of its repository has come or gone in Nomad since.
const FRESH_FOR: Duration = Duration::from_secs(10);

/// At most this many repositories' errors are told one by one.
const SAID_AT_MOST: usize = 3;

/// Why a repository is taken for what it was.
const UNCONFIRMED: &str = "its entry in `repos` could not be read whole, and named it before";

/// What is remembered of GitHub's side between passes.
pub(super) struct GitHubSide {
    known: BTreeMap<RepositoryId, Known>,
    /// What the entries of `repos` meant when that was last asked.
    found: Option<Resolution>,
    /// Which repositories there are has not been told since it changed.
    is_news: bool,
    /// Where there are more runners than jobs.
    spare: BTreeSet<RepositoryId>,
    fresh_for: Duration,
}

impl Default for GitHubSide {
    fn default() -> Self {
        GitHubSide {
            known: BTreeMap::new(),
            found: None,
            is_news: true,
            spare: BTreeSet::new(),
            fresh_for: FRESH_FOR,
        }
    }
}

/// What is known of a repository.
struct Known {
    repository: Repository,
    /// An entry names it.
    configured: bool,
    /// One that could not be read whole the last time.
    unconfirmed: bool,
    /// The jobs of the last look that succeeded, and whether it was complete.
    jobs: Option<(Vec<WorkflowJob>, bool)>,
    /// What came of the last look.
    last: Last,
    /// When a pass last had a full listing of it that was fresh.
    active_at: Option<Moment>,
    /// When a look was last asked for to see it in full.
    asked_in_full: Option<Moment>,
    /// How many of its jobs want a runner of ours, or have one.
    wanted: usize,
}

/// What came of the last look at a repository.
enum Last {
    Never,
    Listed { began: Moment, ended: Moment, marks: OfOne, now: Timestamp, missing: Option<String> },
    Failed(Error),
    Gone { since: Moment },
}

impl GitHubSide {
    /// What the entries of `repos` mean now. What goes wrong costs only the entry that it concerns. Whether it is news.
    pub fn resolved(&mut self, found: Resolution) -> bool {
        let is_news = self.found.as_ref().is_none_or(|before| {
            before.repositories != found.repositories || before.failures.len() != found.failures.len()
        });
        self.found = Some(found);
        is_news
    }

    /// Whether it is known what any entry of `repos` means.
    pub fn is_resolved(&self) -> bool {
        self.found.is_some()
    }

    /// What goes wrong with entries and repositories, as long as it does.
    pub fn trouble(&self) -> Vec<Unobserved> {
        // A limit concerns all of them: one line tells it.
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

    /// Watches each repository that is configured or has a runner of ours, and no other one.
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

    /// Whether the repositories are others than when this was last asked.
    pub fn has_news(&mut self) -> bool {
        std::mem::take(&mut self.is_news)
    }

    /// The repository of a runner: by its ID, else by the address that nomadtools wrote.
    pub fn repository_of(&self, runner: &Runner) -> Option<RepositoryId> {
        let has_address = |known: &&Known| {
            let (address, own) = (&runner.meta.repo_url, &known.repository.html_url);
            address.to_lowercase() == own.to_lowercase()
        };
        // Where two had the same address, one after the other, it means the one that the configuration names.
        let by_address = || self.known.values().filter(has_address).max_by_key(|known| known.configured);
        runner.meta.repo_id.or_else(|| by_address().map(|known| known.repository.id))
    }

    /// The scopes in which runners of ours can be registered, each with a repository that is there.
    pub fn scopes(&self, organizations: &[bool]) -> BTreeMap<Scope, RepositoryId> {
        self.known
            .values()
            .filter(|known| !matches!(known.last, Last::Gone { .. }))
            .flat_map(|known| {
                let scope = |organization: &bool| Scope::of(&known.repository, *organization);
                organizations.iter().map(move |organization| (scope(organization), known.repository.id))
            })
            .collect()
    }

    /// The repositories that are watched.
    pub fn repositories(&self) -> Vec<Repository> {
        self.known.values().map(|known| known.repository.clone()).collect()
    }

    /// Those to be looked at, and when each was last pushed to, if that is known.
    pub fn scheduled(&self) -> impl Iterator<Item = (&Repository, Option<Timestamp>)> + Clone {
        let pushed = self.found.as_ref().map(|found| &found.pushed_at);
        self.known.values().map(move |known| {
            (&known.repository, pushed.and_then(|pushed| pushed.get(&known.repository.id)).copied())
        })
    }

    /// Remembers where a group has more runners that take jobs than jobs, as far as the last listings tell.
    fn count_spare(&mut self, nomad: &NomadView) {
        let jobs = || self.known.values().filter_map(|known| known.jobs.as_ref()).flat_map(|(jobs, _)| jobs);
        let in_progress = jobs().filter(|job| job.status == JobStatus::InProgress);
        let busy: BTreeSet<&str> = in_progress.filter_map(|job| job.runner_name.as_deref()).collect();
        let mut over: BTreeMap<GroupKey, isize> = BTreeMap::new();
        for runner in nomad.runners.iter().filter(|r| r.is_live() && !busy.contains(r.name.as_str())) {
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

    /// Whether a job waits for a runner of ours, as far as the last listings tell.
    pub fn has_demand(&self) -> bool {
        self.known.values().any(|known| known.wanted > 0)
    }

    /// A repository that is to be looked at, and how: in full where a Stop or a purge may be decided.
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

    /// Whether a repository that was not seen in full for this long is to be looked at for that: a look that fails or is cut short
    /// is not repeated at once.
    pub fn asks_in_full(&mut self, id: RepositoryId, now: Moment, active_every: Duration) -> bool {
        let is_due = self.is_due_in_full(id, now, active_every);
        let Some(known) = self.known.get_mut(&id).filter(|_| is_due) else { return false };
        let again = known.asked_in_full.is_none_or(|at| now.saturating_sub(at) >= active_every);
        known.asked_in_full = if again { Some(now) } else { known.asked_in_full };
        again
    }

    /// Whether a repository was not seen in full for this long.
    fn is_due_in_full(&self, id: RepositoryId, now: Moment, active_every: Duration) -> bool {
        let active_at = self.known.get(&id).map(|known| known.active_at);
        active_at.is_some_and(|at| at.is_none_or(|at| now.saturating_sub(at) >= active_every))
    }

    /// Takes in what a look has shown. What goes wrong costs only the repository that it concerns. Whether it is news, and
    /// whether there are jobs of ours.
    pub fn learn(&mut self, looked: Looked, interest: &Interest) -> (News, bool) {
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
                // Only a full listing lets runners stop, and their jobs be purged.
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
                let is_now = concerns_us && (looked.asked || has_changed) || is_well_again || is_full;
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
                // The first failure is told at once. Where GitHub is down all of them fail, and the others follow together.
                let fails = |known: &&Known| matches!(known.last, Last::Failed(_));
                let is_only_one = self.known.values().filter(fails).nth(1).is_none();
                let news = if is_only_one { News::Now } else { News::Later };
                (news, has_jobs)
            }
        }
    }

    /// The repositories whose last listing is worth nothing any more, because a runner serves no more: a job may wait for the
    /// next one. Where one was added, nothing is missed.
    pub fn outdated(&self, marks: &Marks) -> Vec<RepositoryId> {
        let is_outdated = |(id, known): &(&RepositoryId, &Known)| match &known.last {
            Last::Listed { marks: before, .. } => marks.lack(**id, before),
            _ => false,
        };
        self.known.iter().filter(is_outdated).map(|(id, _)| *id).collect()
    }

    /// Everything was looked at for one pass: it is held against that as a whole.
    pub fn all_at_once(&mut self, within: Duration) {
        self.fresh_for = within + FRESH_FOR;
    }

    /// What is known of all of them, held against what Nomad shows.
    pub fn views(&self, marks: &Marks, acts: &Acts, now: Moment) -> BTreeMap<RepositoryId, RepositoryView> {
        let unsure = self.found.as_ref().is_none_or(|found| !found.failures.is_empty());
        let view = |(id, known): (&RepositoryId, &Known)| (*id, self.view(known, unsure, marks, acts, now));
        self.known.iter().map(view).collect()
    }

    fn view(&self, known: &Known, unsure: bool, marks: &Marks, acts: &Acts, now: Moment) -> RepositoryView {
        let id = known.repository.id;
        let mut view = RepositoryView {
            repository: known.repository.clone(),
            // While an entry could not be resolved it is unknown whether it still names this repository.
            configured: known.configured || unsure,
            listing: Listing::Unseen { reason: "not looked at yet".to_owned() },
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
                let is_fresh = now.saturating_sub(*ended) <= self.fresh_for
                    && marks.are_still(id, before)
                    && !acts.change(id);
                view.missing = missing.clone();
                // What its entry meant before counts on: jobs get runners, and nothing stops.
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

    /// Which listings an observation has as fresh ones, and how long ago each of them began.
    pub fn fresh(&mut self, observation: &Observation, now: Moment) -> BTreeMap<RepositoryId, Duration> {
        let mut fresh = BTreeMap::new();
        for (id, view) in &observation.repositories {
            let Listing::Fresh { complete, .. } = view.listing else { continue };
            let Some(known) = self.known.get_mut(id) else { continue };
            if let Last::Listed { began, .. } = known.last {
                fresh.insert(*id, now.saturating_sub(began));
            }
            if complete {
                known.active_at = Some(now);
            }
        }
        fresh
    }

    /// The same under another configuration: what its entries mean is asked for anew, and until that is known nothing starts or
    /// stops.
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
    /// A repository that nobody has looked at yet.
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

/// The first few of many errors: when GitHub is down there is one for each repository.
fn few(mut errors: Vec<Unobserved>, of_what: &str) -> Vec<Unobserved> {
    let more = errors.len().saturating_sub(SAID_AT_MOST);
    if more > 0 {
        errors.truncate(SAID_AT_MOST);
        let text = format!("{more} more {of_what} could not be read either");
        errors.push(Unobserved { subject: of_what.to_owned(), kind: "more", text });
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

#[cfg(test)]
#[path = "observe_tests.rs"]
mod tests;
