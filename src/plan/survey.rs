//! Demand and supply of each group, and which runners are busy or idle.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use super::{ClassPolicy, Policy};
use crate::{
    labels::{LabelRules, Match, Verdicts},
    model::{
        Backoff, GroupKey, Hold, HoldReason, JobId, JobStatus, Labels, Listing, Memory, Moment, Namespace,
        NomadView, Observation, Ownership, Registration, Repository, RepositoryId, RepositoryView, Runner,
        RunnerState, Subject, Unseen, WorkflowJob, age,
    },
    text,
};

/// Synchronized clocks differ by less than this.
const CLOCKS_APART: Duration = Duration::from_secs(60);

/// A runner that GitHub has not listed as connected for this long is not coming back.
pub(super) const ABSENT_AT_LEAST: Duration = Duration::from_secs(600);

/// Hostile labels are truncated to this many characters for display.
const SHOWN_LABELS: usize = 100;

/// Why a job is held if matching its labels against `runson_match` was aborted.
const GAVE_UP: &str = "matching one of them against runson_match takes too many steps; use an expression \
                       without look-around and back-references";

/// One group's jobs and runners.
#[derive(Default)]
pub(super) struct Group<'a> {
    /// The class of its jobs' runners.
    pub class: Option<&'a str>,
    /// Queued jobs that may be served, oldest first.
    pub demand: Vec<&'a WorkflowJob>,
    /// Runners that can take these jobs, by name.
    pub supply: Vec<&'a Runner>,
    /// Runners that are not dead.
    pub live: usize,
    /// The most recently started runner.
    pub last: Option<&'a Runner>,
    /// The labels with the smallest spelling.
    pub labels: Labels,
}

/// The observation, counted once and in a defined order, for the rules to use.
pub(super) struct Survey<'a> {
    pub nomad: &'a NomadView,
    pub policy: &'a Policy,
    pub now: Moment,
    pub memory: &'a Memory,
    pub repositories: &'a BTreeMap<RepositoryId, RepositoryView>,
    /// Runners by name, without those in an unseen namespace: nothing is done to them, and nothing relies on them.
    pub runners: BTreeMap<&'a str, &'a Runner>,
    /// The runners in unseen namespaces, as they were last seen. They count against the caps, and so do their attempts.
    pub unseen: Vec<&'a Runner>,
    pub groups: BTreeMap<GroupKey, Group<'a>>,
    /// The status of each listed job.
    pub statuses: BTreeMap<JobId, JobStatus>,
    /// The highest attempt of each job, dead or alive.
    pub newest: BTreeMap<JobId, &'a Runner>,
    /// How many attempts of each job are alive and not busy.
    pub attempts: BTreeMap<JobId, usize>,
    /// The warm runners, dead or alive, by entry.
    pub warm: BTreeMap<&'a str, Vec<&'a Runner>>,
    /// Holds found while counting.
    pub holds: Vec<Hold>,
    /// The class of each job that should get a runner or is held.
    pub classes: BTreeMap<JobId, Arc<str>>,
    /// The runners that a job in progress names, with one of these jobs.
    busy: BTreeMap<&'a str, (&'a RepositoryView, &'a WorkflowJob)>,
    by_url: BTreeMap<String, RepositoryId>,
    /// The labels in the runners' Meta, each text parsed once.
    joined: HashMap<&'a str, Labels>,
}

/// The labels of jobs, each list checked once per class.
type Checked<'a> = HashMap<(Option<&'a str>, &'a [String]), Result<Labels, String>>;

/// The names of the classes, each allocated once for all of its jobs.
type Names<'a> = BTreeMap<&'a str, Arc<str>>;

/// Whether a job should get a runner, and if not, why.
enum Verdict<'a> {
    /// It should, with these labels and in this class.
    Demand(Labels, Option<&'a str>),
    /// It does not request one of our runners, or no longer needs one.
    NotOurs,
    /// Its repository gets no runners.
    RepositoryHeld(HoldReason),
    /// This job is held. The class is the one that it matches.
    Held(HoldReason, Option<&'a str>),
}

impl<'a> Survey<'a> {
    pub fn new(observation: &'a Observation, nomad: &'a NomadView, policy: &'a Policy, now: Moment) -> Self {
        let is_unseen = |runner: &&Runner| nomad.unseen(runner.namespace.as_ref()).is_some();
        let (mut unseen, seen): (Vec<&Runner>, Vec<&Runner>) = nomad.runners.iter().partition(is_unseen);
        unseen.sort_by_key(|runner| runner.name.as_str());
        let mut survey = Survey {
            nomad,
            policy,
            now,
            memory: &observation.memory,
            repositories: &observation.repositories,
            runners: seen.into_iter().map(|runner| (runner.name.as_str(), runner)).collect(),
            unseen,
            groups: BTreeMap::new(),
            statuses: BTreeMap::new(),
            newest: BTreeMap::new(),
            attempts: BTreeMap::new(),
            warm: BTreeMap::new(),
            holds: Vec::new(),
            classes: BTreeMap::new(),
            busy: BTreeMap::new(),
            by_url: BTreeMap::new(),
            joined: HashMap::new(),
        };
        // If two repositories have had the same URL one after the other, it means the one that the
        // configuration names.
        let (named, others): (Vec<_>, Vec<_>) =
            survey.repositories.values().partition(|view| view.configured);
        for view in named.into_iter().chain(others) {
            survey.by_url.entry(view.repository.html_url.to_lowercase()).or_insert(view.repository.id);
        }
        for runner in &nomad.runners {
            survey.joined.entry(runner.meta.labelsstr.as_str()).or_insert_with(|| runner.labels());
        }
        let mut verdicts = Verdicts::new(&policy.labels);
        let mut checked = Checked::new();
        let names = policy.classes.iter().map(|class| (class.name.as_str(), Arc::from(class.name.as_str())));
        let names: Names = names.collect();
        for view in survey.repositories.values() {
            verdicts.next_repository();
            survey.count_jobs(view, &mut verdicts, &mut checked, &names);
        }
        for group in survey.groups.values_mut() {
            group.demand.sort_by_key(|job| oldest_first(job));
        }
        survey.count_runners();
        survey
    }

    fn count_jobs(
        &mut self,
        view: &'a RepositoryView,
        verdicts: &mut Verdicts,
        checked: &mut Checked<'a>,
        names: &Names<'a>,
    ) {
        let name = view.repository.full_name();
        let repository = || Subject::Repository { name: name.clone() };
        self.holds.extend(self.of_listing(view).map(|reason| Hold { subject: repository(), reason }));
        // Pages shift while they are read, so a job can appear twice in a listing. The more advanced status is
        // the later one.
        let mut latest: BTreeMap<JobId, &'a WorkflowJob> = BTreeMap::new();
        for job in view.listing.jobs() {
            if job.status == JobStatus::InProgress {
                self.busy.extend(job.runner_name.as_deref().map(|name| (name, (view, job))));
            }
            let seen = latest.entry(job.id).or_insert(job);
            if progress(job) > progress(seen) {
                *seen = job;
            }
        }
        for job in latest.into_values() {
            self.statuses.insert(job.id, job.status);
            let verdict = self.verdict(view, job, verdicts, checked);
            if let Verdict::Demand(_, Some(class)) | Verdict::Held(_, Some(class)) = verdict
                && let Some(name) = names.get(class)
            {
                self.classes.insert(job.id, Arc::clone(name));
            }
            match verdict {
                Verdict::NotOurs => {}
                Verdict::Demand(labels, class) => self.demands(view.repository.id, job, labels, class),
                Verdict::RepositoryHeld(reason) => self.holds.push(Hold { subject: repository(), reason }),
                Verdict::Held(reason, _) => {
                    let labels = shown(&job.labels);
                    let subject = Subject::Job { repository: name.clone(), id: job.id, labels };
                    self.holds.push(Hold { subject, reason });
                }
            }
        }
    }

    /// What is wrong with a repository's listing.
    fn of_listing(&self, view: &RepositoryView) -> Option<HoldReason> {
        match &view.listing {
            // If only a part was requested, nothing is wrong.
            Listing::Fresh { complete, .. } => {
                view.missing.clone().filter(|_| !complete).map(|why| HoldReason::Incomplete { why })
            }
            Listing::Earlier { .. } => None,
            Listing::Stale { reason, .. } | Listing::Unseen { reason } => {
                Some(HoldReason::NotListed { why: reason.clone() })
            }
            Listing::Gone { since } => Some(HoldReason::RepositoryGone { since: self.now.since(*since) }),
        }
    }

    /// Whether a job should have a runner.
    fn verdict(
        &self,
        view: &RepositoryView,
        job: &'a WorkflowJob,
        verdicts: &mut Verdicts,
        checked: &mut Checked<'a>,
    ) -> Verdict<'a> {
        let is_queued = job.status == JobStatus::Queued;
        if is_queued && job.labels.is_empty() {
            let why = "the job has none: `runs-on` names only a runner group".to_owned();
            return Verdict::Held(HoldReason::BadLabels { why }, None);
        }
        match verdicts.of(&job.labels) {
            Match::GaveUp if is_queued => {
                return Verdict::Held(HoldReason::BadLabels { why: GAVE_UP.to_owned() }, None);
            }
            Match::No | Match::GaveUp => return Verdict::NotOurs,
            Match::Yes => {}
        }
        match job.status {
            JobStatus::Queued if !view.configured => Verdict::RepositoryHeld(HoldReason::NotConfigured),
            JobStatus::Queued if view.repository.archived || view.repository.disabled => {
                Verdict::RepositoryHeld(HoldReason::Archived)
            }
            JobStatus::Queued => {
                let Some(class) = self.policy.class_for(&view.repository, &job.labels) else {
                    return Verdict::Held(HoldReason::NoClass, None);
                };
                let name = class.name();
                if let (Some(class), Some(why)) = (name, class.deny()) {
                    let reason = HoldReason::Denied { class: class.to_owned(), why: why.to_owned() };
                    return Verdict::Held(reason, name);
                }
                match checked.entry((name, &job.labels)).or_insert_with(|| check(class.labels(), job)) {
                    Ok(labels) => Verdict::Demand(labels.clone(), name),
                    Err(why) => Verdict::Held(HoldReason::BadLabels { why: why.clone() }, name),
                }
            }
            JobStatus::Waiting | JobStatus::Pending | JobStatus::Requested => {
                let class = self.policy.class_for(&view.repository, &job.labels).and_then(ClassPolicy::name);
                Verdict::Held(HoldReason::NotQueued { status: job.status.as_str() }, class)
            }
            JobStatus::InProgress | JobStatus::Completed | JobStatus::Unknown => Verdict::NotOurs,
        }
    }

    /// Adds a job to its group.
    fn demands(
        &mut self,
        repository: RepositoryId,
        job: &'a WorkflowJob,
        labels: Labels,
        class: Option<&'a str>,
    ) {
        let group = self.groups.entry(GroupKey { repository, labels: labels.clone() }).or_default();
        group.class = class;
        if group.demand.is_empty() {
            group.labels = labels;
        } else {
            group.labels.merge_spelling(&labels);
        }
        group.demand.push(job);
    }

    fn count_runners(&mut self) {
        for runner in self.unseen.clone() {
            self.count_attempt(runner);
            if let Some(key) = self.group_of(runner).filter(|_| !self.is_shared(runner)) {
                self.groups.entry(key).or_default().live += usize::from(runner.is_live());
            }
        }
        let runners: Vec<&'a Runner> = self.runners.values().copied().collect();
        for runner in runners {
            self.count_attempt(runner);
            if let Some(job_id) = runner.meta.job_id() {
                // A busy runner has taken another job, and is no longer an attempt at its own.
                if runner.is_live() && !self.is_busy(runner) {
                    *self.attempts.entry(job_id).or_default() += 1;
                }
            }
            if let Some(warm) = runner.warm() {
                self.warm.entry(&warm.entry).or_default().push(runner);
            }
            let Some(key) = self.group_of(runner).filter(|_| !self.is_shared(runner)) else { continue };
            let supplies = self.supplies(runner);
            let group = self.groups.entry(key).or_default();
            group.live += usize::from(runner.is_live());
            if runner.warm().is_some() {
                continue;
            }
            if group.last.is_none_or(|last| last.submitted_at <= runner.submitted_at) {
                group.last = Some(runner);
            }
            if supplies {
                group.supply.push(runner);
            }
        }
    }

    fn count_attempt(&mut self, runner: &'a Runner) {
        let Some(job_id) = runner.meta.job_id() else { return };
        let order = |runner: &'a Runner| (runner.meta.attempt, Reverse(runner.name.as_str()));
        let newest = self.newest.entry(job_id).or_insert(runner);
        if order(newest) < order(runner) {
            *newest = runner;
        }
    }

    /// Why a namespace is unseen, if it is.
    pub fn why_unseen(&self, namespace: Option<&Namespace>) -> Option<HoldReason> {
        let Unseen { namespace, why, .. } = self.nomad.unseen(namespace)?;
        Some(HoldReason::NamespaceUnseen { namespace: namespace.clone(), why: why.clone() })
    }

    /// The queued jobs that may be served, by group.
    pub fn demand(&self) -> BTreeMap<GroupKey, Vec<JobId>> {
        let groups = self.groups.iter().filter(|(_, group)| !group.demand.is_empty());
        groups.map(|(key, group)| (key.clone(), group.demand.iter().map(|job| job.id).collect())).collect()
    }

    /// The group of a runner; `None` if its repository is unknown.
    pub fn group_of(&self, runner: &Runner) -> Option<GroupKey> {
        Some(GroupKey { repository: self.repository_id(runner)?, labels: self.labels_of(runner) })
    }

    /// The repository of a runner, by its ID or else by the URL that nomadtools wrote.
    pub fn repository_id(&self, runner: &Runner) -> Option<RepositoryId> {
        runner.meta.repo_id.or_else(|| self.by_url.get(&runner.meta.repo_url.to_lowercase()).copied())
    }

    /// The view of a runner's repository.
    pub fn view_of(&self, runner: &Runner) -> Option<&'a RepositoryView> {
        self.repositories.get(&self.repository_id(runner)?)
    }

    /// The view of a runner's repository, if a fresh listing permits a Stop there.
    pub fn listed(&self, runner: &Runner) -> Option<&'a Repository> {
        let view = self.view_of(runner)?;
        matches!(view.listing, Listing::Fresh { .. }).then_some(&view.repository)
    }

    /// The same, if the listing is complete, so that the absence of a job counts.
    pub fn listed_in_full(&self, runner: &Runner) -> Option<&'a Repository> {
        let view = self.view_of(runner)?;
        matches!(view.listing, Listing::Fresh { complete: true, .. }).then_some(&view.repository)
    }

    /// Whether a job in progress, in any group, names it.
    pub fn is_busy(&self, runner: &Runner) -> bool {
        self.busy.contains_key(runner.name.as_str())
    }

    /// How long GitHub has not listed it; `None` if it is listed, or was never verified.
    pub fn absent(&self, runner: &Runner) -> Option<Duration> {
        let since = self.memory.presence.get(&runner.name)?.absent_since?;
        Some(self.now.since(since))
    }

    /// How long verifications have found it absent, from the first to the last. The time since the last one
    /// proves nothing.
    pub fn absence_confirmed(&self, runner: &Runner) -> Option<Duration> {
        let presence = self.memory.presence.get(&runner.name)?;
        Some(presence.checked_at.since(presence.absent_since?))
    }

    /// Whether it can take a job of its group, now or soon.
    pub fn supplies(&self, runner: &Runner) -> bool {
        use RunnerState::{Pending, Running, Starting, Waiting};
        matches!(runner.state, Pending | Waiting | Starting | Running)
            && !self.is_busy(runner)
            && !self.is_out_of_reach(runner)
            && !self.is_spent(runner)
    }

    /// Whether no job can reach it because GitHub does not list it as connected. A runner that registers
    /// itself may have another name there; it counts as reachable for as long as an unregistered one is kept.
    fn is_out_of_reach(&self, runner: &Runner) -> bool {
        match runner.registration() {
            Registration::Jit => self.absent(runner).is_some(),
            Registration::Token | Registration::AccessToken => {
                self.absence_confirmed(runner).is_some_and(|confirmed| confirmed >= ABSENT_AT_LEAST)
            }
        }
    }

    /// Whether an earlier allocation used its credentials, so that nothing can use them again.
    pub fn is_spent(&self, runner: &Runner) -> bool {
        runner.spent && runner.ownership == Ownership::Ours && runner.registration().needs_variable()
    }

    /// Its labels, parsed once.
    pub fn labels_of(&self, runner: &Runner) -> Labels {
        let known = self.joined.get(runner.meta.labelsstr.as_str()).cloned();
        known.unwrap_or_else(|| runner.labels())
    }

    /// Whether it is a warm runner of an organization. It belongs to none of its repositories.
    pub fn is_shared(&self, runner: &Runner) -> bool {
        runner.warm().is_some() && self.class_of(runner).registers_at_organization()
    }

    /// The policy for a runner: that of the class it was started as.
    pub fn class_of(&self, runner: &Runner) -> ClassPolicy<'a> {
        self.policy.class_named(runner.class())
    }

    /// How long a running runner has been idle; `None` if it is not.
    pub fn idle(&self, runner: &Runner) -> Option<Duration> {
        if self.is_busy(runner) {
            return None;
        }
        let running = self.running_for(runner)?;
        let busy = self.memory.last_busy.get(&runner.name).map(|at| self.now.since(*at));
        Some(busy.map_or(running, |busy| busy.min(running)))
    }

    /// How long its task has been running; `None` if it is not.
    pub fn running_for(&self, runner: &Runner) -> Option<Duration> {
        if runner.state != RunnerState::Running {
            return None;
        }
        // A client's clock may be wrong, so its times are bounded by the servers' times.
        let placed = runner.allocation.as_ref().map_or(runner.submitted_at, |a| a.created_at);
        // A `Date` has whole seconds: a runner that started within this second is not ahead of it.
        let known = |at: &crate::model::Timestamp| age(*at, self.nomad.now) <= CLOCKS_APART;
        let started = runner.started_at.filter(known).map_or(placed, |at| at.max(placed));
        Some(age(self.nomad.now, started))
    }

    /// How long a runner has run, for its limit. A warm one does not run out of time while it is idle: it has run since it
    /// took its job, by GitHub's clock.
    pub fn in_use_for(&self, runner: &Runner) -> Option<Duration> {
        let running = self.running_for(runner)?;
        if runner.warm().is_none() {
            return Some(running);
        }
        let (view, job) = self.busy.get(runner.name.as_str())?;
        let Listing::Fresh { now, .. } = view.listing else { return None };
        Some(age(now, job.started_at?).min(running))
    }

    /// How long a dead runner has been dead, by the servers' clock.
    pub fn dead_for(&self, runner: &Runner) -> Duration {
        // The end is a client's time. If it is slightly ahead, it counts as now. If it is far ahead, it is
        // useless, and anything that waits for it would wait for hours.
        let died = runner.died_at();
        let known = age(died, self.nomad.now) <= CLOCKS_APART;
        let died = if known { died.max(runner.submitted_at) } else { runner.submitted_at };
        age(self.nomad.now, died)
    }

    /// How long a placed runner has had everything it needs without its task starting.
    pub fn not_started_for(&self, runner: &Runner) -> Option<Duration> {
        let placed = runner.allocation.as_ref().filter(|_| runner.state == RunnerState::Starting)?;
        let released = runner.variable.unwrap_or(placed.created_at);
        Some(age(self.nomad.now, placed.created_at.max(released)))
    }

    /// The same, if its task should have started by now.
    pub fn starting_too_long(&self, runner: &Runner) -> Option<Duration> {
        self.not_started_for(runner).filter(|starting| *starting >= self.class_of(runner).starting_timeout())
    }

    /// The last error when it was to get credentials.
    pub fn issue_error(&self, runner: &Runner) -> Option<&'a str> {
        Some(&self.memory.issue_backoff.get(&runner.name)?.error)
    }

    /// How long a runner waits for its credentials after a failure, and the failure.
    pub fn issue_backoff(&self, runner: &Runner) -> Option<HoldReason> {
        self.still_waits(self.memory.issue_backoff.get(&runner.name)?)
    }

    /// How long other actions on this runner still wait after a failure, and the failure.
    pub fn backoff(&self, runner: &Runner) -> Option<HoldReason> {
        self.still_waits(self.memory.runner_backoff.get(&runner.name)?)
    }

    fn still_waits(&self, backoff: &Backoff) -> Option<HoldReason> {
        Some(HoldReason::ActionFailed { error: backoff.error.clone(), wait: backoff.wait(self.now)? })
    }
}

/// A job's labels if all of them may be rendered, or why not.
fn check(rules: &LabelRules, job: &WorkflowJob) -> Result<Labels, String> {
    rules.check(&job.labels).map_err(|problem| problem.to_string())?;
    Ok(Labels::new(job.labels.iter().map(String::as_str)))
}

/// The order in which jobs within a group are served.
pub(super) fn oldest_first(job: &WorkflowJob) -> (Option<jiff::Timestamp>, JobId) {
    (job.created_at, job.id)
}

/// How advanced a job is, and everything else in which two sightings of a job can differ, so that their order
/// does not matter.
fn progress(job: &WorkflowJob) -> (u8, Option<jiff::Timestamp>, &[String], Option<&str>) {
    let rank = match job.status {
        JobStatus::Unknown => 0,
        JobStatus::Requested => 1,
        JobStatus::Pending => 2,
        JobStatus::Waiting => 3,
        JobStatus::Queued => 4,
        JobStatus::InProgress => 5,
        JobStatus::Completed => 6,
    };
    (rank, job.created_at, &job.labels, job.runner_name.as_deref())
}

/// Labels for display: sorted, made safe, and truncated.
fn shown(labels: &[String]) -> String {
    let labels = Labels::new(labels.iter().map(String::as_str)).joined();
    text::shown(&labels, SHOWN_LABELS).to_string()
}
