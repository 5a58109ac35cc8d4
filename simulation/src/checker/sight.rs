//! Compares what a daemon says it saw with the true state when it observed.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use githubrunner::{
    daemon::Pass,
    model::{
        Action, ForeignReason, Listing, NomadView, Ownership, RepositoryId, RepositoryView, RunnerState,
    },
};
use githubrunner_sim::{
    fault::{Arrived, Side},
    github::Status,
    nomad,
    world::World,
};
use hyper::Request;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{
    history::{Answers, History},
    lifecycle::Lifecycles,
    prompt::signed,
    sender,
};
use crate::{
    checker::look::{Look, look, looks},
    deployment::{ELSEWHERE, NAMESPACE, PREFIX, Place, is_elsewhere, is_planted, meta_of_job},
    faults::{
        kind::FaultKind,
        mishap::Mishap,
        scenario::{Happening, Scenario},
        settings::Entries,
        subject::subject,
        trouble::Trouble,
    },
};

/// What each daemon was shown in its pass.
#[derive(Clone)]
pub struct Sights {
    inner: Arc<Mutex<[Sight; 2]>>,
    /// The seals of all runners that a daemon has registered, and when it last requested that, by the servers' clock.
    seals: Arc<Mutex<BTreeMap<String, Timestamp>>>,
    answers: Answers,
    /// Runs are listed some time after they appear.
    runs_lag: bool,
    /// There is one daemon at a time, and nothing of an earlier one takes effect later.
    alone: bool,
    /// Two may lead at once, because the servers may forget the lock.
    crowded: bool,
    /// Totals may be wrong, and pages incomplete.
    miscounted: bool,
    /// A pass always ends normally.
    whole: bool,
    /// The entries of the configuration.
    entries: Vec<String>,
    /// They are resolved again within this time,
    resolved_within: SignedDuration,
    /// and nothing keeps the daemon from that.
    resolves: bool,
    /// `*` means everything that the App is installed for, and a suspended installation counts as none until the daemon
    /// retries: the times from and until when that may be so.
    suspended: Vec<(Timestamp, Timestamp)>,
}

/// One of the three lists of Nomad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum List {
    /// The jobs, the first list: a pass begins with it.
    Jobs,
    /// The allocations.
    Allocations,
    /// The variables, the last list.
    Variables,
}

/// This many views of Nomad are remembered for each daemon: more than are shown during the slowest look.
const VIEWS: usize = 4096;

/// Entries are resolved again within this time after a refusal: every minute, with a backoff after failures.
const ASKED_AGAIN_WITHIN: Duration = Duration::from_secs(600);

/// Whether each runner of a repository was alive; `None` for one that was being started, and is shown as if it existed.
type Shown = BTreeMap<String, Option<bool>>;

/// Our runners when each list was answered.
type Lists = BTreeMap<List, BTreeMap<String, Look>>;

#[derive(Default)]
struct Sight {
    /// When the pass began.
    began: Option<Timestamp>,
    /// Our runners when each list was answered: those in the own namespace, and those in the other one.
    runners: [Lists; 2],
    /// Since when its requests belong to actions that are still in progress.
    floor: Option<Timestamp>,
    /// The actions in progress, and when the passes began that planned them.
    left: Vec<(Action, Option<Timestamp>)>,
    /// Its runners by repository, pass by pass, each with the time when the pass ended.
    views: VecDeque<(Timestamp, BTreeMap<RepositoryId, Shown>)>,
    /// The runs that it has listed with jobs, and so follows.
    followed: BTreeSet<u64>,
    /// The repositories that were deleted, and when a pass first began after that.
    deleted: BTreeMap<u64, Timestamp>,
    /// The deployment ID that this daemon knows.
    deployment: Option<String>,
    history: History,
}

impl Sights {
    /// Nothing was shown yet.
    pub fn new(scenario: &Scenario) -> Sights {
        let ends_early = |fault: &FaultKind| {
            matches!(fault, FaultKind::Hangups | FaultKind::Deaths | FaultKind::Configuration)
                || fault.is_of_replicas()
        };
        let told = |happening: &Happening| {
            matches!(happening, Happening::Hangup | Happening::Death { .. } | Happening::LeaveOut(_))
        };
        Sights {
            inner: Arc::default(),
            seals: Arc::default(),
            answers: Answers {
                are_so: !scenario.has(FaultKind::Exchange(Trouble::Lag)),
                of_all: !scenario.has(FaultKind::Repositories) && !scenario.has(FaultKind::Namesakes),
                are_legible: ![Trouble::Garbled, Trouble::Truncated, Trouble::ContentType]
                    .into_iter()
                    .any(|trouble| scenario.has(FaultKind::Exchange(trouble))),
            },
            runs_lag: scenario.has(FaultKind::RunLag),
            alone: !scenario.replicas && scenario.episodes.is_empty(),
            crowded: scenario.replicas && scenario.has(FaultKind::RestartsEmpty),
            miscounted: [Trouble::Totals, Trouble::Pages]
                .into_iter()
                .all(|trouble| scenario.has(FaultKind::Exchange(trouble))),
            entries: scenario.repositories.clone(),
            // They are resolved every minute (see the daemon's options here), in a pass.
            resolved_within: signed(scenario.settings.loop_interval) * 2 + SignedDuration::from_secs(75),
            resolves: scenario.episodes.is_empty()
                && !scenario.replicas
                && ![FaultKind::Token, FaultKind::Repositories].into_iter().any(|fault| scenario.has(fault)),
            suspended: suspended(scenario),
            whole: !scenario.replicas
                && !scenario.faults.iter().any(ends_early)
                && !scenario.happenings.iter().any(|(_, happening)| told(happening)),
        }
    }

    fn inner(&self) -> MutexGuard<'_, [Sight; 2]> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A daemon has registered a runner with this seal, requested at this time by the servers' clock.
    pub fn has_sealed(&self, seal: &Value, at: Timestamp) {
        if let Some(seal) = seal.as_str() {
            self.seals.lock().unwrap_or_else(PoisonError::into_inner).insert(seal.to_owned(), at);
        }
    }

    /// Whether a job was sealed before the agent forgot the key, and someone has registered it again since. To the
    /// daemon it belongs to nobody, and is left alone.
    pub fn is_of_a_forgotten_key(&self, world: &World, job: &nomad::Job) -> bool {
        let Some(forgot_at) = world.nomad.forgot_at() else { return false };
        // For a while after that, a daemon still seals with the key that it remembers.
        let key = world.nomad.variable(NAMESPACE, &format!("githubrunner/{PREFIX}/key"));
        let made_at = key.and_then(|key| Timestamp::from_nanosecond(key.create_time.into()).ok());
        let forgot_at = made_at.map_or(forgot_at, |made_at| made_at.max(forgot_at));
        let meta = meta_of_job(job);
        let seals = self.seals.lock().unwrap_or_else(PoisonError::into_inner);
        meta["mac"].as_str().and_then(|seal| seals.get(seal)).is_some_and(|sealed_at| *sealed_at < forgot_at)
    }

    /// A daemon begins a pass, or repeats the list with which it begins.
    pub fn begins(&self, who: usize, world: &World, now: Timestamp) {
        let mut inner = self.inner();
        let sight = &mut inner[who];
        sight.runners[0].clear();
        sight.began = Some(now);
        for repository in world.github.repositories().filter(|repository| repository.deleted) {
            sight.deleted.entry(repository.id).or_insert(now);
        }
        if sight.left.is_empty() {
            sight.floor = Some(now);
            sight.history = History::default();
        }
    }

    /// A daemon begins to read the other namespace, together with the own.
    pub fn begins_elsewhere(&self, who: usize) {
        self.inner()[who].runners[1].clear();
    }

    /// A daemon reads or writes its deployment ID. Returns what is wrong with that.
    pub fn is_told(&self, who: usize, deployment: &str) -> Option<String> {
        let known = self.inner()[who].deployment.replace(deployment.to_owned());
        let known = known.filter(|known| known != deployment && self.alone)?;
        Some(format!("a daemon of {known} is of {deployment} now"))
    }

    /// A daemon has ended.
    pub fn ended(&self, who: usize) {
        self.inner()[who] = Sight::default();
    }

    /// One of the lists is answered.
    pub fn answers(
        &self,
        request: &Request<Bytes>,
        list: List,
        world: &World,
        place: &Place,
        lifecycles: &Lifecycles,
    ) {
        if self.answers.are_so {
            let elsewhere = is_elsewhere(request);
            let mut looks = looks(world, place, lifecycles);
            looks.retain(|name, _| (place.namespace_of(world, name) == ELSEWHERE) == elsewhere);
            let shown = &mut self.inner()[sender(request)].runners[usize::from(elsewhere)];
            // A runner that changed between two pages of one list may be on either.
            if let Some(before) = shown.get(&list) {
                looks.retain(|name, look| before.get(name) == Some(look));
            }
            shown.insert(list, looks);
        }
    }

    /// A daemon acts in its pass. Excludes requests of earlier passes that take effect only now.
    pub fn does(&self, request: &Request<Bytes>, what: impl FnOnce(&mut History)) {
        let sight = &mut self.inner()[sender(request)];
        let asked = request.extensions().get().map(|Arrived(at)| *at);
        if sight.floor <= asked {
            sight.history.asked = asked;
            what(&mut sight.history);
        }
    }

    /// A daemon may have read one runner.
    pub fn reads(&self, world: &World, place: &Place, request: &Request<Bytes>) {
        let path = request.uri().path();
        let Some(name) = subject(Some(world), Side::Nomad, request) else { return };
        match path {
            "/v1/jobs" | "/v1/allocations" => {
                let job = place.job(world, &name);
                let look = job.map(|job| look(world, place, job, false));
                self.does(request, |history| history.reads(&name, path == "/v1/jobs", look));
            }
            "/v1/vars" => self.does(request, |history| history.reads_variable(world, &name)),
            _ => {}
        }
    }

    /// Whether a daemon has removed a runner's registration in its pass.
    pub fn has_removed(&self, request: &Request<Bytes>, name: &str) -> bool {
        self.inner()[sender(request)].history.has_removed(name)
    }

    /// Whether the servers told a daemon that a runner had not started when it last read it individually.
    pub fn has_read_unstarted(&self, request: &Request<Bytes>, name: &str) -> bool {
        self.inner()[sender(request)].history.has_read_unstarted(name)
    }

    /// What a pass saw and did. Returns what is wrong with that.
    pub fn passed(
        &self,
        who: usize,
        pass: &Pass,
        world: &World,
        place: &Place,
        left_out: Option<usize>,
    ) -> Vec<String> {
        let mut inner = self.inner();
        let sight = &mut inner[who];
        let history = std::mem::take(&mut sight.history);
        // Each runner has one action at a time, so an unfinished one comes first.
        let left = sight.left.iter().map(|(action, _)| action);
        let planned: Vec<&Action> = left.chain(&pass.under_way).chain(&pass.plan.actions).collect();
        let since = |name: &str| {
            let left = sight.left.iter().find(|(action, _)| action.runner() == name);
            left.map_or(sight.began, |(_, since)| *since)
        };
        let mut wrong = if self.crowded {
            Vec::new()
        } else {
            history.passed(pass, &planned, since, world, place, self.answers)
        };
        let left: Vec<_> = pass.left.iter().map(|action| (action.clone(), since(action.runner()))).collect();
        sight.left = left;
        sight.history = history.kept_for(|name| pass.left.iter().any(|action| action.runner() == name));
        let now = world.clock.now();
        let observation = &pass.observation;
        if !self.answers.are_so {
            return wrong;
        }
        let Some(nomad) = &observation.nomad else { return wrong };
        let is_nobodys = |name: &str| {
            let job = place.job(world, name);
            job.is_none_or(|job| is_planted(job) || self.is_of_a_forgotten_key(world, job))
        };
        let is_changing = |name: &str| pass.under_way.iter().any(|action| action.runner() == name);
        for (at, shown) in sight.runners.iter().enumerate() {
            // Nobody has seen what is in an unseen namespace.
            if at == 0 && nomad.unseen(None).is_none() || at == 1 && nomad.unseen.keys().all(Option::is_none)
            {
                wrong.extend(runners_seen_wrongly(nomad, shown, is_nobodys, is_changing));
            }
        }
        let fresh = |view: &&RepositoryView| matches!(view.listing, Listing::Fresh { .. });
        if observation.repositories.values().any(|view| fresh(&view)) {
            for runner in nomad.runners.iter().filter(|runner| runner.ownership == Ownership::Ours) {
                if let Some(id) = runner.meta.repo_id
                    && !observation.repositories.contains_key(&id)
                {
                    wrong.push(format!("{} is seen, and its repository {id} is not", runner.name));
                }
            }
        }
        let since_planned = pass.applied_at.since(pass.planned_at);
        for (id, view) in observation.repositories.iter().filter(|(_, view)| fresh(view)) {
            let Some(ago) = pass.fresh.get(id) else {
                wrong.push(format!("nobody knows when {id} was listed"));
                continue;
            };
            let began = now - signed(*ago + since_planned);
            wrong.extend(self.listed_wrongly(view, world, place, left_out, began, &sight.followed));
            sight.followed.extend(view.listing.jobs().iter().map(|job| job.run_id.0));
            let deleted = sight.deleted.get(&id.0).is_some_and(|at| *at < began);
            if deleted && !is_astray(view, world, began) {
                wrong.push(format!("{} is listed, and it is deleted", view.repository.full_name()));
            }
        }
        wrong
    }

    /// A listing counts only if nothing of its repository has appeared or disappeared in Nomad since the view
    /// before it began.
    pub fn held_against(&self, who: usize, pass: &Pass, now: Timestamp) -> Vec<String> {
        let mut inner = self.inner();
        let sight = &mut inner[who];
        let Some(nomad) = &pass.observation.nomad else { return Vec::new() };
        let mut view: BTreeMap<RepositoryId, Shown> = BTreeMap::new();
        for runner in &nomad.runners {
            // A runner that is being started is shown as if it existed.
            let starts =
                |action: &Action| matches!(action, Action::Start(_)) && action.runner() == runner.name;
            let is_starting = pass.under_way.iter().any(starts);
            if let Some(id) = runner.meta.repo_id {
                let shown = if is_starting { None } else { Some(runner.is_live()) };
                view.entry(id).or_default().insert(runner.name.clone(), shown);
            }
        }
        let differ = |before: Option<&Shown>, now: Option<&Shown>| {
            let names = before.into_iter().chain(now).flat_map(BTreeMap::keys);
            let of = |view: Option<&Shown>, name| view.and_then(|view| view.get(name)).copied();
            names.into_iter().any(|name| match (of(before, name), of(now, name)) {
                (Some(None), _) | (_, Some(None)) => false,
                (before, now) => before != now,
            })
        };
        let since_planned = pass.applied_at.since(pass.planned_at);
        let mut wrong = Vec::new();
        for (id, ago) in &pass.fresh {
            let began = now - signed(*ago + since_planned);
            let before = sight.views.iter().rev().find(|(over, _)| *over <= began);
            match before {
                None => wrong.push(format!("{id} was listed before Nomad was")),
                Some((_, before)) if differ(before.get(id), view.get(id)) => {
                    wrong.push(format!("{id} was listed before its runners changed"));
                }
                Some(_) => {}
            }
        }
        sight.views.push_back((now, view));
        if sight.views.len() > VIEWS {
            sight.views.pop_front();
        }
        wrong
    }

    /// Whether the configuration names a repository; `None` while the daemon may not know which repositories
    /// its names refer to.
    fn is_configured(&self, id: u64, world: &World, place: &Place, left_out: Option<usize>) -> Option<bool> {
        let now = world.clock.now();
        if self.suspended.iter().any(|(from, until)| *from <= now && now <= *until) {
            return None;
        }
        let now = world.github_time(now);
        let mut configured = false;
        for (at, name) in self.entries.iter().enumerate().filter(|(at, _)| Some(*at) != left_out) {
            let first = place.repositories[at];
            match world.github.meaning(name) {
                Some((meant, Some(since))) => {
                    let is_known = self.resolves && now.duration_since(since) > self.resolved_within;
                    if !is_known && (id == first || !place.repositories.contains(&id)) {
                        return None;
                    }
                    configured |= meant == id;
                }
                _ => configured |= first == id,
            }
        }
        Some(configured)
    }

    fn listed_wrongly(
        &self,
        view: &RepositoryView,
        world: &World,
        place: &Place,
        left_out: Option<usize>,
        began: Timestamp,
        followed: &BTreeSet<u64>,
    ) -> Vec<String> {
        let id = view.repository.id.0;
        let mut wrong = Vec::new();
        let configured = self.is_configured(id, world, place, left_out);
        if let Some(configured) = configured.filter(|configured| view.configured != *configured) {
            wrong.push(format!("{}: configured is {configured}", view.repository.full_name()));
        }
        let mut listed = BTreeSet::new();
        for job in view.listing.jobs() {
            listed.insert(job.id.0);
            if world.github.job(job.id.0).is_none_or(|job| job.repository != id) {
                wrong.push(format!("job {} is not one of {}", job.id, view.repository.full_name()));
            }
        }
        let complete = matches!(view.listing, Listing::Fresh { complete: true, .. });
        // The repository that now has its name may have no runs at all, and then nothing distinguishes the
        // two.
        let complete = complete && !is_astray(view, world, began);
        let began = world.github_time(began);
        // A run that returns to a list that was already read is seen if it is followed, since the configuration was
        // read.
        let may_be_missed = |run: u64| {
            !(self.whole && followed.contains(&run))
                && world.github.run(run).is_some_and(|run| run.updated_at >= began)
        };
        let waited = world.github.jobs().filter(|job| {
            // A job that waits for something other than a runner is listed once an hour.
            job.repository == id
                && job.status == Status::Queued
                && job.queued_at < began
                && job.created_at < began
                && !may_be_missed(job.run)
        });
        for job in
            waited.filter(|job| complete && !self.runs_lag && !self.miscounted && !listed.contains(&job.id))
        {
            wrong.push(format!(
                "a complete listing does not have job {}, queued at {}",
                job.id, job.queued_at
            ));
        }
        wrong
    }
}

/// The times when `*` may mean less than it says: from each refusal of the token until the daemon must have
/// retried.
fn suspended(scenario: &Scenario) -> Vec<(Timestamp, Timestamp)> {
    if !scenario.settings.access.app || scenario.settings.access.entries != Entries::All {
        return Vec::new();
    }
    let at = |passed: Duration| scenario.base.checked_add(passed).unwrap_or(scenario.base);
    let mut all = Vec::new();
    let mut since = None;
    for (passed, happening) in &scenario.happenings {
        match happening {
            Happening::Mishap(Mishap::TokenRefused { yes: true }) => since = since.or(Some(*passed)),
            Happening::Mishap(Mishap::TokenRefused { yes: false }) => {
                // Another refusal may follow; the last retry ends it.
                all.extend(since.take().map(|since| (at(since), at(*passed + ASKED_AGAIN_WITHIN))));
            }
            _ => {}
        }
    }
    all.extend(since.map(|since| (at(since), at(scenario.over + ASKED_AGAIN_WITHIN))));
    all
}

/// Whether another repository has the name under which this one was listed, or had it until the pass had begun.
fn is_astray(view: &RepositoryView, world: &World, began: Timestamp) -> bool {
    world.github.meaning(&view.repository.full_name()).is_some_and(|(id, since)| {
        id != view.repository.id.0 || since.is_some_and(|since| since >= world.github_time(began))
    })
}

/// If all three lists showed the same state, the daemon must have seen it so.
fn runners_seen_wrongly(
    nomad: &NomadView,
    shown: &Lists,
    is_nobodys: impl Fn(&str) -> bool,
    is_changing: impl Fn(&str) -> bool,
) -> Vec<String> {
    let (Some(jobs), Some(allocations), Some(variables)) =
        (shown.get(&List::Jobs), shown.get(&List::Allocations), shown.get(&List::Variables))
    else {
        return Vec::new();
    };
    let mut wrong = Vec::new();
    let is_ours = |look: &Look| look.deployment == nomad.deployment.as_str();
    for (name, look) in jobs.iter().filter(|(name, look)| is_ours(look) && !is_changing(name)) {
        if allocations.get(name) != Some(look) || variables.get(name) != Some(look) {
            continue;
        }
        let Some(runner) = nomad.runners.iter().find(|runner| runner.name == *name) else {
            // It was sealed with a key that the agent has forgotten since, so it belongs to nobody and has a
            // hold saying so.
            let is_held = nomad.foreign.iter().any(|foreign| {
                let is_nobodys = foreign.reason == ForeignReason::WrongSeal && is_nobodys(name);
                // A runner next to something that is too large to read has a hold, and keeps its state.
                foreign.name == *name && (is_nobodys || foreign.reason == ForeignReason::Unreadable)
            });
            if !is_held {
                wrong.push(format!("{name} is not seen"));
            }
            continue;
        };
        let seen = Look {
            deployment: look.deployment.clone(),
            state: runner.state,
            started: runner.started,
            spent: runner.spent,
            undecided: look.undecided,
        };
        let waits = look.undecided && seen.state == RunnerState::Pending;
        if seen != *look && !waits {
            wrong.push(format!("{name} is seen as {seen:?}, and is {look:?}"));
        }
    }
    wrong
}
