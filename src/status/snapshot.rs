//! A pass as the status reports it: what was seen, what is waiting and why, and what was done.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    model::{
        Action, Asks, Hold, HoldReason, JobId, JobStatus, Labels, Listing, NomadView, Observation, Ownership,
        Plan, Report, RepositoryView, Runner, RunnerState, Subject, Unobserved, WorkflowJob, age,
    },
    secret::without_tokens,
    text::shown,
};

/// At most this many jobs, runners, holds and actions are listed; the rest is a number.
const JOBS: usize = 200;
const RUNNERS: usize = 500;
const HOLDS: usize = 200;
const ACTIONS: usize = 200;

/// At most this many classes are listed: twice as many as can be configured, for runners of earlier ones.
const CLASSES: usize = 200;

/// For this many holds, the start is remembered.
const SINCE: usize = 5000;

/// The longest text, in characters.
const TEXT: usize = 300;

/// The longest URL, in bytes.
const URL: usize = 1000;

/// For an unknown repository.
const UNKNOWN: &str = "unknown";

/// The daemon's report of a pass at its end.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// When it ended, by this machine's clock.
    pub at: Timestamp,
    /// What it saw.
    pub observation: &'a Observation,
    pub plan: &'a Plan,
    pub deeds: &'a [Deed],
    /// What could not be observed.
    pub errors: &'a [Unobserved],
    /// The rate limits that GitHub last reported.
    pub rates: &'a [Rate],
    /// How long it took.
    pub took: Duration,
    /// Whether this replica is the leader.
    pub leads: bool,
}

/// An action and its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deed {
    /// The name of the action.
    pub action: &'static str,
    /// The reason: one of a fixed set.
    pub reason: &'static str,
    /// The outcome: one of a fixed set.
    pub outcome: &'static str,
    /// The affected runner.
    pub runner: String,
    /// The whole line, for display.
    pub text: String,
    /// Whether an operator should look at it.
    pub failed: bool,
    /// For a start: the GitHub job and the attempt.
    job_id: Option<(JobId, u32)>,
}

impl Deed {
    /// An action that has ended.
    pub fn new(Report { action, outcome }: &Report) -> Deed {
        let job_id = match action {
            Action::Start(start) => start.purpose.job_id().map(|job_id| (job_id, start.attempt)),
            _ => None,
        };
        Deed {
            action: action.kind(),
            reason: action.reason(),
            outcome: outcome.kind(),
            runner: safe(action.runner()),
            text: safe(&format!("{action}: {outcome}")),
            failed: outcome.is_failure(),
            job_id,
        }
    }

    /// The GitHub job for which this has started the first runner.
    pub(super) fn first_start(&self) -> Option<JobId> {
        let (job_id, attempt) = self.job_id?;
        (self.outcome == "done" && attempt == 1).then_some(job_id)
    }
}

/// A bucket of GitHub's rate limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rate {
    /// The credential's name, not a secret.
    pub credential: String,
    /// GitHub's name for it.
    pub bucket: String,
    /// Requests per period.
    pub limit: u64,
    /// Requests left.
    pub remaining: u64,
    /// When it resets, in seconds since the epoch by GitHub's clock.
    pub reset: i64,
}

impl Rate {
    /// The same made safe to show: GitHub chooses the names of buckets.
    pub(super) fn made_safe(&self) -> Rate {
        Rate { credential: safe(&self.credential), bucket: safe(&self.bucket), ..self.clone() }
    }
}

/// What the last pass saw and did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// When it ended.
    pub at: Timestamp,
    /// Whether Nomad was reached.
    pub nomad_seen: bool,
    /// How many repositories the last look at them has listed, and how many there are; `None` for a pass that
    /// did not reach Nomad.
    pub repositories: Option<(usize, usize)>,
    /// Whether this replica is the leader.
    pub leads: bool,
    /// How long it took.
    pub took: Duration,
    /// What could not be observed.
    pub errors: Vec<String>,
    /// What it did.
    pub deeds: Vec<Deed>,
    /// Numbers.
    pub counts: Counts,
    /// Individual items, up to the limits.
    pub rows: Rows,
}

/// The repository and class of something.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Whose {
    /// `owner/name`, or a placeholder if it is unknown.
    pub repository: String,
    /// The class; `None` for the top level.
    pub class: Option<Arc<str>>,
}

/// Counts by repository and class.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// Queued jobs that may be served.
    pub queued: BTreeMap<Whose, usize>,
    /// Held jobs, by reason.
    pub held: BTreeMap<(Whose, &'static str), usize>,
    /// Jobs running on our runners.
    pub running: BTreeMap<Whose, usize>,
    /// Runners by state.
    pub runners: BTreeMap<(Whose, RunnerState), usize>,
    /// The resources that waiting runners request, by node pool. Pools of other runners are zero.
    pub waiting: BTreeMap<String, Waiting>,
    /// Holds by kind of subject and reason.
    pub holds: BTreeMap<(&'static str, &'static str), usize>,
}

/// What runners request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// The number of runners.
    pub runners: u64,
    /// CPU, in MHz.
    pub cpu: u64,
    /// Reserved cores.
    pub cores: u64,
    /// Memory, in MiB.
    pub memory: u64,
}

impl Waiting {
    fn add(&mut self, asks: &Asks) {
        self.runners += 1;
        self.cpu = self.cpu.saturating_add(asks.cpu);
        self.cores = self.cores.saturating_add(asks.cores);
        self.memory = self.memory.saturating_add(asks.memory);
    }
}

/// The listed items.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// Waiting jobs, the oldest first.
    pub jobs: Vec<JobRow>,
    /// Runners, live ones first.
    pub runners: Vec<RunnerRow>,
    /// What is deliberately not done.
    pub holds: Vec<HoldRow>,
    /// The plan.
    pub plan: Vec<PlanRow>,
    /// The number of waiting jobs.
    pub jobs_total: usize,
    /// The number of planned actions.
    pub plan_total: usize,
}

/// A waiting GitHub job.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JobRow {
    /// `owner/name`.
    pub repository: String,
    pub id: JobId,
    pub name: String,
    /// Its labels, comma-separated.
    pub labels: String,
    /// The class that it matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<Arc<str>>,
    /// Its URL.
    pub url: Option<String>,
    /// When it was created, by GitHub's clock.
    pub created_at: Option<Timestamp>,
    /// Its age when it was last listed, by the same clock.
    pub waits_seconds: Option<u64>,
    /// `held`, `starting` (a runner is starting for it) or `queued` (a runner may take it at once).
    pub state: &'static str,
    /// What it is waiting for.
    pub reason: Option<Why>,
    /// The runner that was started for it.
    pub runner: Option<String>,
}

/// The counts of a class.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ClassRow {
    /// Its name.
    pub name: Arc<str>,
    /// Its jobs that request a runner and may have one.
    pub queued: usize,
    /// Its jobs that are held.
    pub held: usize,
    /// Jobs running on its runners.
    pub running: usize,
    /// Its runners that are not dead.
    pub runners: usize,
}

/// Why something waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Why {
    /// One of a fixed set.
    pub word: &'static str,
    /// For display.
    pub text: String,
    /// Since when this has been seen, by this machine's clock.
    pub since: Timestamp,
}

/// A runner.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunnerRow {
    /// Its name, which is also its job's ID.
    pub name: String,
    /// `owner/name`.
    pub repository: String,
    /// Its labels, comma-separated.
    pub labels: String,
    /// The class it was started as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<Arc<str>>,
    /// The namespace of its job, if it is not the daemon's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its state.
    pub state: RunnerState,
    /// Whether a job is running on it.
    pub busy: bool,
    /// When it was registered at Nomad, by Nomad's clock.
    pub submitted_at: Timestamp,
    /// Its age when it was last listed, by the same clock.
    pub age_seconds: u64,
    /// Its node.
    pub node: Option<String>,
    /// The job that is running on it, or else the one that it was started for.
    pub job: Option<JobRef>,
    /// How it ended, or what it is waiting for.
    pub note: Option<String>,
    /// Whether it was started by nomadtools.
    pub nomadtools: bool,
}

/// A GitHub job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct JobRef {
    pub id: JobId,
    /// Its URL, if known.
    pub url: Option<String>,
}

/// Something that is deliberately not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HoldRow {
    /// The kind of subject: `nomad`, `repository`, `job` or `runner`.
    pub about: &'static str,
    pub subject: String,
    pub reason: Why,
}

/// A planned action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlanRow {
    /// The name of the action.
    pub action: &'static str,
    /// The reason: one of a fixed set.
    pub reason: &'static str,
    /// The affected runner.
    pub runner: String,
    /// For display.
    pub text: String,
}

/// Why something is waiting, and since when. Its text is created only if it is shown.
#[derive(Clone, Copy, Debug)]
struct Reason<'a> {
    of: &'a HoldReason,
    since: Timestamp,
}

impl Reason<'_> {
    fn why(&self) -> Why {
        Why { word: self.of.word(), text: safe(&self.of.to_string()), since: self.since }
    }
}

/// Since when holds have been seen, by subject and reason.
#[derive(Debug, Default)]
pub(super) struct Since(BTreeMap<(String, &'static str), Timestamp>);

impl Snapshot {
    /// The snapshot of a pass that has ended.
    pub(super) fn of(seen: &Seen, since: &mut Since) -> Snapshot {
        let Seen { at, observation, plan, .. } = *seen;
        let views = observation.repositories.values();
        let is_listed =
            |listing: &Listing| matches!(listing, Listing::Fresh { .. } | Listing::Earlier { .. });
        let repositories = observation.nomad.is_some().then(|| {
            (views.clone().filter(|view| is_listed(&view.listing)).count(), observation.repositories.len())
        });
        let reasons = since.follow(&plan.holds, at);
        let world = World::of(observation, plan, &reasons);
        Snapshot {
            at,
            nomad_seen: observation.nomad.is_some(),
            repositories,
            leads: seen.leads,
            took: seen.took,
            errors: seen.errors.iter().map(|error| safe(&error.text)).collect(),
            deeds: seen.deeds.to_vec(),
            counts: world.counts(),
            rows: Rows {
                jobs: world.job_rows(),
                runners: world.runner_rows(),
                holds: plan.holds.iter().zip(&reasons).take(HOLDS).map(hold_row).collect(),
                plan: plan.actions.iter().take(ACTIONS).map(plan_row).collect(),
                jobs_total: world.waiting.len(),
                plan_total: plan.actions.len(),
            },
        }
    }

    /// Whether the last request to GitHub succeeded.
    pub(super) fn sees_github(&self) -> bool {
        self.repositories.is_some_and(|(listed, all)| listed > 0 || all == 0)
    }

    /// Keeps the values of the previous pass that this one did not observe.
    pub(super) fn after(&mut self, before: Snapshot) {
        self.repositories = self.repositories.or(before.repositories);
        if !self.nomad_seen {
            self.counts = before.counts;
            self.rows = before.rows;
        }
    }
}

impl Counts {
    /// The numbers of jobs queued, held and running.
    pub(super) fn sums(&self) -> (usize, usize, usize) {
        (self.queued.values().sum(), self.held.values().sum(), self.running.values().sum())
    }

    /// The counts of these classes, in their order, then of any others. The top level is not included.
    pub(super) fn classes(&self, configured: &[Arc<str>]) -> Vec<ClassRow> {
        let row = |name: &Arc<str>| ClassRow { name: Arc::clone(name), ..ClassRow::default() };
        let mut rows: Vec<ClassRow> = configured.iter().map(row).collect();
        let mut of = |whose: &Whose, count: usize, number: fn(&mut ClassRow) -> &mut usize| {
            let Some(class) = &whose.class else { return };
            let at = rows.iter().position(|row| row.name == *class).unwrap_or_else(|| {
                rows.push(row(class));
                rows.len() - 1
            });
            if let Some(row) = rows.get_mut(at) {
                *number(row) += count;
            }
        };
        self.queued.iter().for_each(|(whose, count)| of(whose, *count, |row| &mut row.queued));
        self.held.iter().for_each(|((whose, _), count)| of(whose, *count, |row| &mut row.held));
        self.running.iter().for_each(|(whose, count)| of(whose, *count, |row| &mut row.running));
        let live = self.runners.iter().filter(|((_, state), _)| *state != RunnerState::Dead);
        live.for_each(|((whose, _), count)| of(whose, *count, |row| &mut row.runners));
        rows.truncate(CLASSES);
        rows
    }
}

impl Since {
    /// The reason for each of these holds, with the time since when.
    fn follow<'a>(&mut self, holds: &'a [Hold], at: Timestamp) -> Vec<Reason<'a>> {
        let known = std::mem::take(&mut self.0);
        let mut kept = BTreeMap::new();
        let reasons = holds.iter().map(|hold| {
            let key = (hold.subject.to_string(), hold.reason.word());
            let since = known.get(&key).copied().unwrap_or(at);
            if kept.len() < SINCE {
                kept.insert(key, since);
            }
            Reason { of: &hold.reason, since }
        });
        let reasons = reasons.collect();
        self.0 = kept;
        reasons
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// An observation with its jobs and runners indexed.
struct World<'a> {
    nomad: Option<&'a NomadView>,
    plan: &'a Plan,
    jobs: BTreeMap<JobId, (&'a WorkflowJob, &'a RepositoryView)>,
    /// The job that is running on a runner.
    busy: BTreeMap<&'a str, JobId>,
    /// The newest live runner that was started for a job.
    started: BTreeMap<JobId, &'a Runner>,
    /// Why a job or a runner is waiting.
    held: BTreeMap<JobId, Reason<'a>>,
    noted: BTreeMap<&'a str, Reason<'a>>,
    /// The jobs in demand and the held jobs, the oldest first.
    waiting: Vec<JobId>,
}

impl<'a> World<'a> {
    fn of(observation: &'a Observation, plan: &'a Plan, reasons: &[Reason<'a>]) -> World<'a> {
        let nomad = observation.nomad.as_ref();
        let mut jobs: BTreeMap<JobId, (&WorkflowJob, &RepositoryView)> = BTreeMap::new();
        let mut busy = BTreeMap::new();
        for view in observation.repositories.values() {
            for job in view.listing.jobs() {
                // Pages shift while they are read: a job that is listed twice has been taken meanwhile.
                if job.status == JobStatus::InProgress || !jobs.contains_key(&job.id) {
                    jobs.insert(job.id, (job, view));
                }
                if let (JobStatus::InProgress, Some(runner)) = (job.status, &job.runner_name) {
                    busy.insert(runner.as_str(), job.id);
                }
            }
        }
        let mut started: BTreeMap<JobId, &Runner> = BTreeMap::new();
        for runner in nomad.iter().flat_map(|nomad| &nomad.runners) {
            if let Some(job_id) = runner.meta.job_id().filter(|_| runner.is_live()) {
                let newest = started.entry(job_id).or_insert(runner);
                if newest.meta.attempt < runner.meta.attempt {
                    *newest = runner;
                }
            }
        }
        let (mut held, mut noted) = (BTreeMap::new(), BTreeMap::new());
        for (hold, reason) in plan.holds.iter().zip(reasons) {
            match &hold.subject {
                Subject::Job { id, .. } => drop(held.insert(*id, *reason)),
                Subject::Runner { name } => drop(noted.insert(name.as_str(), *reason)),
                Subject::Nomad | Subject::Repository { .. } | Subject::Warm { .. } => {}
            }
        }
        let waiting: BTreeSet<JobId> = plan.demand.values().flatten().chain(held.keys()).copied().collect();
        let age = |id: &JobId| (jobs.get(id).and_then(|(job, _)| job.created_at), *id);
        let mut waiting: Vec<JobId> = waiting.into_iter().collect();
        waiting.sort_by_key(age);
        World { nomad, plan, jobs, busy, started, held, noted, waiting }
    }

    fn runners(&self) -> impl Iterator<Item = &'a Runner> {
        self.nomad.into_iter().flat_map(|nomad| &nomad.runners)
    }

    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        let of = |id: &JobId| {
            self.jobs
                .get(id)
                .map_or_else(|| UNKNOWN.to_owned(), |(_, view)| safe(&view.repository.full_name()))
        };
        let class_of = |id: &JobId| self.plan.classes.get(id).cloned();
        for id in self.plan.demand.values().flatten() {
            let whose = Whose { repository: of(id), class: class_of(id) };
            *counts.queued.entry(whose).or_default() += 1;
        }
        for hold in &self.plan.holds {
            *counts.holds.entry((hold.subject.kind(), hold.reason.word())).or_default() += 1;
            if let Subject::Job { repository, id, .. } = &hold.subject {
                let whose = Whose { repository: safe(repository), class: class_of(id) };
                *counts.held.entry((whose, hold.reason.word())).or_default() += 1;
            }
        }
        for runner in self.runners() {
            if let Some(asks) = &runner.meta.asks {
                let waiting = counts.waiting.entry(safe(&asks.node_pool)).or_default();
                if runner.state == RunnerState::Pending {
                    waiting.add(asks);
                }
            }
            let class = runner.class().map(Arc::from);
            if let Some(job) = self.busy.get(runner.name.as_str()) {
                let whose = Whose { repository: of(job), class: class.clone() };
                *counts.running.entry(whose).or_default() += 1;
            }
            let whose = Whose { repository: repository_of(runner), class };
            *counts.runners.entry((whose, runner.state)).or_default() += 1;
        }
        counts
    }

    fn job_rows(&self) -> Vec<JobRow> {
        self.waiting.iter().filter_map(|id| self.job_row(*id)).take(JOBS).collect()
    }

    fn job_row(&self, id: JobId) -> Option<JobRow> {
        let (job, view) = self.jobs.get(&id)?;
        let runner = self.started.get(&id);
        let starts = self.plan.actions.iter().find_map(|action| match action {
            Action::Start(start) if start.purpose.job_id() == Some(id) => Some(start.name.as_str()),
            _ => None,
        });
        let reason = self.held.get(&id).or_else(|| self.noted.get(runner?.name.as_str()));
        let now = match &view.listing {
            Listing::Fresh { now, .. } => Some(*now),
            _ => None,
        };
        Some(JobRow {
            repository: safe(&view.repository.full_name()),
            id,
            name: safe(&job.name),
            labels: safe(&Labels::new(job.labels.iter().map(String::as_str)).joined()),
            class: self.plan.classes.get(&id).cloned(),
            url: job.html_url.as_deref().and_then(web_page),
            created_at: job.created_at,
            waits_seconds: now.zip(job.created_at).map(|(now, then)| age(now, then).as_secs()),
            state: match (self.held.contains_key(&id), runner.is_some() || starts.is_some()) {
                (true, false) => "held",
                (_, true) => "starting",
                (false, false) => "queued",
            },
            reason: reason.map(Reason::why),
            runner: runner.map(|runner| runner.name.as_str()).or(starts).map(safe),
        })
    }

    fn runner_rows(&self) -> Vec<RunnerRow> {
        let mut runners: Vec<&Runner> = self.runners().collect();
        // The newest dead runners are more interesting than the oldest.
        runners.sort_by_key(|runner| (!runner.is_live(), std::cmp::Reverse(runner.submitted_at)));
        runners.into_iter().take(RUNNERS).map(|runner| self.runner_row(runner)).collect()
    }

    fn runner_row(&self, runner: &Runner) -> RunnerRow {
        let busy = self.busy.get(runner.name.as_str()).copied();
        let noted = self.noted.get(runner.name.as_str()).map(|reason| reason.why().text);
        let ended = runner.finish.as_ref().map(|finish| safe(&finish.to_string()));
        let event = runner.last_event.as_deref().map(safe);
        RunnerRow {
            name: safe(&runner.name),
            repository: repository_of(runner),
            labels: safe(&runner.labels().joined()),
            class: runner.class().map(Arc::from),
            namespace: runner.namespace.as_ref().map(ToString::to_string),
            state: runner.state,
            busy: busy.is_some(),
            submitted_at: runner.submitted_at,
            age_seconds: self.nomad.map_or(0, |nomad| age(nomad.now, runner.submitted_at).as_secs()),
            node: runner.allocation.as_ref().map(|allocation| safe(&allocation.node)),
            job: busy.or(runner.meta.job_id()).map(|id| JobRef {
                id,
                url: self.jobs.get(&id).and_then(|(job, _)| web_page(job.html_url.as_deref()?)),
            }),
            note: ended.or(noted).or(event).or_else(|| runner.warm().map(|_| "warm".to_owned())),
            nomadtools: runner.ownership == Ownership::Nomadtools,
        }
    }
}

fn hold_row((hold, reason): (&Hold, &Reason)) -> HoldRow {
    HoldRow { about: hold.subject.kind(), subject: safe(&hold.subject.to_string()), reason: reason.why() }
}

fn plan_row(action: &Action) -> PlanRow {
    PlanRow {
        action: action.kind(),
        reason: action.reason(),
        runner: safe(action.runner()),
        text: safe(&action.to_string()),
    }
}

/// The repository that a runner's Meta names. Anyone with submit-job can write one.
fn repository_of(runner: &Runner) -> String {
    runner.repository().map_or_else(|| UNKNOWN.to_owned(), |repository| repository.full_name())
}

/// External text made safe to show, with anything that looks like a token hidden.
pub(super) fn safe(text: &str) -> String {
    // The text can have megabytes, so what is truncated anyway is not searched. A token is shorter than what remains
    // here.
    let start = text.char_indices().nth(4 * TEXT).map_or(text, |(end, _)| &text[..end]);
    shown(&without_tokens(start), TEXT).to_string()
}

/// A URL that is safe as a link: a web page and nothing else.
fn web_page(text: &str) -> Option<String> {
    let url = url::Url::parse(text).ok().filter(|_| text.len() <= URL)?;
    let is_plain = matches!(url.scheme(), "http" | "https") && url.username().is_empty();
    (is_plain && url.password().is_none()).then(|| url.to_string())
}
