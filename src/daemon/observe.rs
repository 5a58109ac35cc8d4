//! GitHub's side of what is observed: the repositories, what looks at them have shown, and how fresh that is.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream};
use tokio::{task::JoinSet, time::Instant};

use super::{CHORE_WITHIN, Looked, RESOLVE_EVERY, acts::Acts, versions::Versions};
use crate::{
    github::{Error, GitHub, Listed, Look, RegisteredRunner, Resolution, Scope, VersionEnds},
    labels::Interest,
    model::{
        GroupKey, JobStatus, Labels, Listing, Moment, NomadView, Observation, OwnRegistration, Ownership,
        RepoEntry as Entry, Repository, RepositoryId, RepositoryView, Runner, RunnerState, Timestamp,
        WorkflowJob,
    },
};

/// A listing may be used for so long after it was made, if nothing of its repository has come or gone in Nomad since.
const FRESH_FOR: Duration = Duration::from_secs(10);

/// What the entries of `repos` mean is asked for no longer than this at a time.
const RESOLVED_WITHIN: Duration = Duration::from_secs(120);

/// What the entries that answered mean is used when the others take longer than this.
const SLOW: Duration = Duration::from_secs(10);

/// Registrations are listed for orphans only: not before a start's first passes are done.
const REGISTRATIONS_AFTER: Duration = Duration::from_secs(60);

/// How often one scope's registrations are listed, at most.
const REGISTRATIONS_INTERVAL: Duration = Duration::from_secs(600);

/// With many scopes more rarely, so that it takes no more than 600 of the 5,000 requests an hour that a
/// token has (contract github.md §3).
const REGISTRATION_COST: Duration = Duration::from_secs(6);

/// So many scopes are listed at once.
const REGISTRATIONS_AT_ONCE: usize = 8;

/// So many repositories' errors are told one by one.
const SAID_AT_MOST: usize = 3;

/// Why a repository is taken for what it was.
const UNCONFIRMED: &str = "its entry in `repos` could not be read whole, and named it before";

/// What is remembered of GitHub's side between passes.
pub(super) struct GitHubSide {
    known: BTreeMap<RepositoryId, Known>,
    /// What the entries of `repos` meant when that was last asked.
    found: Option<Resolution>,
    /// What is to be asked of GitHub now and then.
    chores: JoinSet<Chore>,
    resolved_at: Option<Moment>,
    resolving: bool,
    ended_pass_at: Moment,
    /// Where there are more runners than jobs.
    spare: BTreeSet<RepositoryId>,
    registered: BTreeMap<Scope, Registered>,
    /// The versions of the runners that were listed.
    pub(super) versions: Versions,
    fresh_for: Duration,
}

impl Default for GitHubSide {
    fn default() -> Self {
        GitHubSide {
            known: BTreeMap::new(),
            found: None,
            chores: JoinSet::new(),
            resolved_at: None,
            resolving: false,
            ended_pass_at: Moment::ZERO,
            spare: BTreeSet::new(),
            registered: BTreeMap::new(),
            versions: Versions::default(),
            fresh_for: FRESH_FOR,
        }
    }
}

/// What was asked of GitHub beside the looks.
pub(super) enum Chore {
    Resolution(Resolution),
    Registrations(Vec<(Scope, RepositoryId, Result<Listed<RegisteredRunner>, Error>)>),
    Versions(Vec<(String, Result<Option<VersionEnds>, Error>)>),
    EndOfPass,
}

/// The registrations of ours in one scope.
struct Registered {
    at: Moment,
    registrations: Vec<OwnRegistration>,
}

/// What a repository's runners are to Nomad, as far as a listing depends on it: who came, and who went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks(BTreeMap<RepositoryId, BTreeMap<Arc<str>, Mark>>);

/// What a runner is to a listing of its repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    /// It takes jobs, now or soon.
    Serves,
    /// It is alive and takes none.
    Leaves,
    Dead,
}

impl Marks {
    /// Those of all runners.
    pub fn of_all(nomad: &NomadView) -> Marks {
        let mut marks = Marks::default();
        for runner in &nomad.runners {
            let mark = match runner.state {
                RunnerState::Dead => Mark::Dead,
                RunnerState::Stopping | RunnerState::Disconnected => Mark::Leaves,
                _ if runner.spent => Mark::Leaves,
                _ => Mark::Serves,
            };
            // Those of nomadtools name none by its ID: they concern all.
            let repository = runner.meta.repo_id.unwrap_or(RepositoryId(0));
            marks.0.entry(repository).or_default().insert(runner.name.as_str().into(), mark);
        }
        marks
    }

    /// Those of one repository's runners.
    pub fn of(&self, repository: RepositoryId) -> Marks {
        let of_one = [repository, RepositoryId(0)].into_iter();
        Marks(of_one.filter_map(|id| Some((id, self.0.get(&id)?.clone()))).collect())
    }

    /// The repositories with runners that are alive.
    pub fn live(&self) -> impl Iterator<Item = &RepositoryId> {
        self.0.iter().filter(|(_, marks)| marks.values().any(|mark| *mark != Mark::Dead)).map(|(id, _)| id)
    }

    /// Whether one is alive.
    pub fn any_live(&self) -> bool {
        self.live().next().is_some()
    }

    fn any(&self) -> bool {
        self.0.values().any(|marks| !marks.is_empty())
    }

    /// Whether a runner that served then does not serve now.
    fn lacks(&self, repository: RepositoryId, before: &Marks) -> bool {
        [repository, RepositoryId(0)].iter().any(|id| {
            let serves = |marks: &Marks, name: &str| {
                marks.0.get(id).and_then(|marks| marks.get(name)) == Some(&Mark::Serves)
            };
            let names = before.0.get(id).into_iter().flat_map(BTreeMap::keys);
            names.into_iter().any(|name| serves(before, name) && !serves(self, name))
        })
    }

    /// Whether nothing came or went for this repository: who was dead and is gone does not matter.
    fn is_still(&self, repository: RepositoryId, before: &Marks) -> bool {
        let none = BTreeMap::new();
        [repository, RepositoryId(0)].iter().all(|id| {
            let (now, before) = (self.0.get(id).unwrap_or(&none), before.0.get(id).unwrap_or(&none));
            now == before
        })
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
    /// How many of its jobs want a runner of ours, or have one.
    wanted: usize,
}

/// What came of the last look at a repository.
enum Last {
    Never,
    Listed { began: Moment, ended: Moment, marks: Marks, now: Timestamp, missing: Option<String> },
    Failed { why: String },
    Gone { since: Moment },
}

impl GitHubSide {
    /// What the entries of `repos` mean now. What goes wrong costs only the entry that it concerns.
    pub fn resolved(&mut self, found: Resolution) {
        self.found = Some(found);
    }

    /// While some entries take their time, what the others mean is used.
    pub fn resolved_so_far(&mut self, github: &GitHub, entries: &[Entry], now: Moment) {
        let is_slow = self.resolved_at.is_some_and(|at| now.saturating_sub(at) >= SLOW);
        if self.resolving && (is_slow || self.found.is_none()) {
            self.found = Some(github.resolved(entries));
        }
    }

    /// What goes wrong with entries, as long as it does.
    pub fn trouble(&self) -> Vec<String> {
        // A limit concerns all of them: one line tells it.
        let mut limited = None;
        let mut failed = Vec::new();
        for (entry, error) in self.found.iter().flat_map(|found| &found.failures) {
            match error {
                Error::RateLimited { .. } => limited = Some(error.to_string()),
                _ => failed.push(format!("repositories of {entry}: {error}")),
            }
        }
        let mut errors = few(failed, "entries of `repos`");
        errors.extend(limited);
        errors
    }

    /// Watches each repository that is configured or has a runner of ours, and no other one.
    pub fn want(&mut self, nomad: &NomadView) {
        let Some(found) = &self.found else { return };
        let mut wanted: BTreeMap<RepositoryId, (Repository, bool)> =
            found.repositories.iter().map(|repository| (repository.id, (repository.clone(), true))).collect();
        for (id, repository) in with_runners(&nomad.runners) {
            wanted.entry(id).or_insert_with(|| (repository, false));
        }
        let idle = |repository: &Repository| {
            (repository.archived || repository.disabled)
                && !nomad.runners.iter().any(|r| r.meta.repo_id == Some(repository.id))
        };
        wanted.retain(|_, (repository, _)| !idle(repository));
        self.known.retain(|id, _| wanted.contains_key(id));
        for (id, (repository, configured)) in wanted {
            let unconfirmed = found.unconfirmed.contains(&id);
            let known = self.known.entry(id).or_insert_with(|| Known {
                repository: repository.clone(),
                configured,
                unconfirmed,
                jobs: None,
                last: Last::Never,
                active_at: None,
                wanted: 0,
            });
            (known.repository, known.configured, known.unconfirmed) = (repository, configured, unconfirmed);
        }
        self.count_spare(nomad);
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
        marks: &Marks,
        now: Moment,
        active_every: Duration,
    ) -> Option<(Repository, Look)> {
        let known = self.known.get(&id)?;
        let is_old = known.active_at.is_none_or(|at| now.saturating_sub(at) >= active_every);
        let look =
            if marks.any() && (is_old || self.spare.contains(&id)) { Look::Active } else { Look::Newest };
        Some((known.repository.clone(), look.max(at_least)))
    }

    /// Takes in what a look has shown. What goes wrong is told in `errors` and costs only the repository that it concerns.
    /// Whether it is news, and whether there are jobs of ours.
    pub fn learn(&mut self, looked: Looked, interest: &Interest, errors: &mut Vec<String>) -> (bool, bool) {
        let Some(known) = self.known.get_mut(&looked.repository) else { return (false, false) };
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
                let is_news =
                    concerns_us && (looked.asked || has_changed) || !was_well && has_changed || is_full;
                (is_news, known.wanted > 0)
            }
            Err(Error::NotFound { .. }) => {
                let since = match known.last {
                    Last::Gone { since } => since,
                    _ => looked.ended,
                };
                known.last = Last::Gone { since };
                (was_well || looked.marks.any(), false)
            }
            Err(error) => {
                // Said as long as it lasts; a limit concerns all.
                errors.push(match error {
                    Error::RateLimited { .. } => error.to_string(),
                    _ => format!("{}: {error}", known.repository.full_name()),
                });
                known.last = Last::Failed { why: error.to_string() };
                (true, known.wanted > 0)
            }
        }
    }

    /// The repositories whose last listing is worth nothing any more, because a runner serves no more: a job may wait for the
    /// next one. Where one was added, nothing is missed.
    pub fn outdated(&self, marks: &Marks) -> Vec<RepositoryId> {
        let is_outdated = |(id, known): &(&RepositoryId, &Known)| match &known.last {
            Last::Listed { marks: before, .. } => marks.lacks(**id, before),
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
            // While an entry could not be resolved nobody knows whether it still names this repository.
            configured: known.configured || unsure,
            listing: Listing::Unseen { reason: "not looked at yet".to_owned() },
            missing: None,
        };
        match &known.last {
            Last::Never => {}
            Last::Gone { since } => view.listing = Listing::Gone { since: *since },
            Last::Failed { why } => view.listing = known.stale(why),
            Last::Listed { .. } if !known.configured && unsure => {
                view.listing = known.stale("it is not known whether the configuration still names it");
            }
            Last::Listed { ended, marks: before, now: listed_at, missing, .. } => {
                let (jobs, complete) = known.jobs.clone().unwrap_or_default();
                let is_fresh = now.saturating_sub(*ended) <= self.fresh_for
                    && marks.is_still(id, before)
                    && !acts.change(id);
                view.missing = missing.clone();
                // What its entry meant before counts on: jobs get runners, and nothing stops.
                if known.unconfirmed {
                    view.missing.get_or_insert_with(|| UNCONFIRMED.to_owned());
                }
                let complete = complete && !known.unconfirmed;
                view.listing = match is_fresh {
                    true => Listing::Fresh { now: *listed_at, jobs, complete },
                    false => Listing::Earlier { jobs, complete },
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

    /// Begins what is due of what is to be asked now and then. One at a time.
    pub fn chores(
        &mut self,
        github: &GitHub,
        entries: &[Entry],
        organization: bool,
        now: Moment,
        pass: Duration,
    ) {
        if !self.chores.is_empty() {
            return;
        }
        if self.resolved_at.is_none_or(|at| now.saturating_sub(at) >= RESOLVE_EVERY.min(pass)) {
            self.resolved_at = Some(now);
            self.resolving = true;
            let (asks, entries) = (github.until(Instant::now() + RESOLVED_WITHIN), entries.to_vec());
            self.chores.spawn(async move { Chore::Resolution(asks.repositories(&entries, false).await) });
        } else if now.saturating_sub(self.ended_pass_at) >= pass {
            self.ended_pass_at = now;
            let github = github.clone();
            self.chores.spawn(async move {
                github.end_pass().await;
                Chore::EndOfPass
            });
        } else if let due = self.versions.due(now)
            && !due.is_empty()
        {
            let github = github.until(Instant::now() + CHORE_WITHIN);
            self.chores.spawn(async move {
                let mut ends = Vec::new();
                for (version, scope) in due {
                    let end = github.version_ends(&scope, &version).await;
                    ends.push((version, end));
                }
                Chore::Versions(ends)
            });
        } else if let due = self.registrations_due(organization, now)
            && !due.is_empty()
        {
            let github = github.until(Instant::now() + CHORE_WITHIN);
            self.chores.spawn(async move {
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

    /// When a chore is over; for ever where there is none.
    pub async fn chore(&mut self) -> Option<Chore> {
        match self.chores.join_next().await {
            Some(Ok(chore)) => Some(chore),
            Some(Err(error)) => {
                if !error.is_cancelled() {
                    tracing::error!("a task that asks GitHub ended by itself: {error}");
                }
                None
            }
            None => std::future::pending().await,
        }
    }

    /// Takes in what a chore has brought. Whether that calls for a pass.
    pub fn done(&mut self, chore: Chore, is_ours: impl Fn(&str) -> bool, now: Moment) -> bool {
        match chore {
            Chore::Resolution(found) => {
                self.resolving = false;
                let is_news = self.found.as_ref().is_none_or(|before| {
                    before.repositories != found.repositories || before.failures.len() != found.failures.len()
                });
                self.found = Some(found);
                return is_news;
            }
            Chore::Registrations(listed) => self.registrations_listed(listed, is_ours, now),
            Chore::Versions(ends) => self.versions.learn(ends),
            Chore::EndOfPass => {}
        }
        false
    }

    /// The scopes whose registrations are to be listed. What cannot be listed is tried again after the usual time: orphans harm
    /// nobody.
    fn registrations_due(&mut self, organization: bool, now: Moment) -> Vec<(Scope, RepositoryId)> {
        if now < REGISTRATIONS_AFTER {
            return Vec::new();
        }
        let scopes: BTreeMap<Scope, RepositoryId> = self
            .known
            .values()
            .filter(|known| !matches!(known.last, Last::Gone { .. }))
            .map(|known| (Scope::of(&known.repository, organization), known.repository.id))
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
        due.truncate(REGISTRATIONS_AT_ONCE);
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

    /// The same under another configuration: what its entries mean is asked for anew, and until that is known nothing starts or
    /// stops.
    pub fn reconfigured(self) -> Self {
        let mut known = self.known;
        known.values_mut().for_each(|known| known.configured = false);
        GitHubSide { chores: JoinSet::new(), resolved_at: None, resolving: false, found: None, known, ..self }
    }

    /// How many repositories are remembered.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// The registrations of ours as last listed.
    pub fn registrations(&self) -> Vec<OwnRegistration> {
        self.registered.values().flat_map(|registered| registered.registrations.iter().cloned()).collect()
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
