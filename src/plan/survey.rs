//! Demand and supply of each group, who is busy and who is idle.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use super::{ClassPolicy, Policy};
use crate::labels::{LabelRules, Match, Verdicts};
use crate::model::{
    Backoff, GroupKey, Hold, HoldReason, JobId, JobStatus, Labels, Listing, Memory, Moment, NomadView,
    Observation, Ownership, Registration, Repository, RepositoryId, RepositoryView, Runner, RunnerState,
    Subject, WorkflowJob, age,
};
use crate::text;

/// Clocks that are kept at all differ by less.
const CLOCKS_APART: Duration = Duration::from_secs(60);

/// A runner that GitHub has not listed as connected for this long is not coming back.
pub(super) const ABSENT_AT_LEAST: Duration = Duration::from_secs(600);

/// Hostile labels are cut to this length where people read them, in characters.
const SHOWN_LABELS: usize = 100;

/// What holds a job whose labels `runson_match` was given up on.
const GAVE_UP: &str = "runson_match takes too many steps to judge one of them; an expression without look-around and \
                       back-references takes few";

/// One group's jobs and runners.
#[derive(Default)]
pub(super) struct Group<'a> {
    /// The class that its jobs' runners are started as.
    pub class: Option<&'a str>,
    /// Queued jobs that may be served, oldest first.
    pub demand: Vec<&'a WorkflowJob>,
    /// Runners that can take them, by name.
    pub supply: Vec<&'a Runner>,
    /// Runners that are not dead.
    pub live: usize,
    /// The one started last.
    pub last: Option<&'a Runner>,
    /// The labels with the smallest spelling.
    pub labels: Labels,
}

/// What the rules look at: the observation in order, counted once.
pub(super) struct Survey<'a> {
    pub nomad: &'a NomadView,
    pub policy: &'a Policy,
    pub now: Moment,
    pub memory: &'a Memory,
    pub repositories: &'a BTreeMap<RepositoryId, RepositoryView>,
    /// Runners by name.
    pub runners: BTreeMap<&'a str, &'a Runner>,
    pub groups: BTreeMap<GroupKey, Group<'a>>,
    /// The status of each listed job.
    pub statuses: BTreeMap<JobId, JobStatus>,
    /// The highest attempt of each job, dead or alive.
    pub newest: BTreeMap<JobId, &'a Runner>,
    /// How many attempts of each job are alive and not busy.
    pub attempts: BTreeMap<JobId, usize>,
    /// Holds that the counting found.
    pub holds: Vec<Hold>,
    busy: BTreeSet<&'a str>,
    by_url: BTreeMap<String, RepositoryId>,
    /// What the runners' Meta has as labels, each text read once.
    joined: HashMap<&'a str, Labels>,
}

/// Labels of jobs, each list checked once for each class.
type Checked<'a> = HashMap<(Option<&'a str>, &'a [String]), Result<Labels, String>>;

/// Whether a job is to have a runner, and if not, why.
enum Verdict<'a> {
    /// With these labels, as a runner of this class.
    Demand(Labels, Option<&'a str>),
    /// It asks for something else, or needs none any more.
    NotOurs,
    /// Its repository gets none, …
    RepositoryHeld(HoldReason),
    /// … or this job.
    Held(HoldReason),
}

impl<'a> Survey<'a> {
    pub fn new(observation: &'a Observation, nomad: &'a NomadView, policy: &'a Policy, now: Moment) -> Self {
        let mut survey = Survey {
            nomad,
            policy,
            now,
            memory: &observation.memory,
            repositories: &observation.repositories,
            runners: nomad.runners.iter().map(|runner| (runner.name.as_str(), runner)).collect(),
            groups: BTreeMap::new(),
            statuses: BTreeMap::new(),
            newest: BTreeMap::new(),
            attempts: BTreeMap::new(),
            holds: Vec::new(),
            busy: BTreeSet::new(),
            by_url: BTreeMap::new(),
            joined: HashMap::new(),
        };
        // Where two had the same address, one after the other, it means the one that the configuration names.
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
        for view in survey.repositories.values() {
            verdicts.next_repository();
            survey.count_jobs(view, &mut verdicts, &mut checked);
        }
        for group in survey.groups.values_mut() {
            group.demand.sort_by_key(|job| oldest_first(job));
        }
        survey.count_runners();
        survey
    }

    fn count_jobs(&mut self, view: &'a RepositoryView, verdicts: &mut Verdicts, checked: &mut Checked<'a>) {
        let name = view.repository.full_name();
        let repository = || Subject::Repository { name: name.clone() };
        self.holds.extend(self.of_listing(view).map(|reason| Hold { subject: repository(), reason }));
        // Pages shift while they are read: a job can be in a listing twice. The further status is the later one.
        let mut latest: BTreeMap<JobId, &'a WorkflowJob> = BTreeMap::new();
        for job in view.listing.jobs() {
            if job.status == JobStatus::InProgress {
                self.busy.extend(job.runner_name.as_deref());
            }
            let seen = latest.entry(job.id).or_insert(job);
            if progress(job) > progress(seen) {
                *seen = job;
            }
        }
        for job in latest.into_values() {
            self.statuses.insert(job.id, job.status);
            match self.verdict(view, job, verdicts, checked) {
                Verdict::NotOurs => {}
                Verdict::Demand(labels, class) => self.demands(view.repository.id, job, labels, class),
                Verdict::RepositoryHeld(reason) => self.holds.push(Hold { subject: repository(), reason }),
                Verdict::Held(reason) => {
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
            // Where only a part was asked for nothing is wrong.
            Listing::Fresh { complete, .. } => {
                view.missing.clone().filter(|_| !complete).map(|why| HoldReason::Incomplete { why })
            }
            Listing::Earlier { .. } => None,
            Listing::Stale { reason, .. } | Listing::Unseen { reason } => {
                Some(HoldReason::NotListed { why: reason.clone() })
            }
            Listing::Gone { since } => {
                Some(HoldReason::RepositoryGone { since: self.now.saturating_sub(*since) })
            }
        }
    }

    /// Whether a job is to have a runner.
    fn verdict(
        &self,
        view: &RepositoryView,
        job: &'a WorkflowJob,
        verdicts: &mut Verdicts,
        checked: &mut Checked<'a>,
    ) -> Verdict<'a> {
        let is_queued = job.status == JobStatus::Queued;
        if is_queued && job.labels.is_empty() {
            let why = "it has none: `runs-on` names only a group".to_owned();
            return Verdict::Held(HoldReason::BadLabels { why });
        }
        match verdicts.of(&job.labels) {
            Match::GaveUp if is_queued => {
                return Verdict::Held(HoldReason::BadLabels { why: GAVE_UP.to_owned() });
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
                    return Verdict::Held(HoldReason::NoClass);
                };
                let name = class.name();
                if let (Some(name), Some(why)) = (name, class.deny()) {
                    return Verdict::Held(HoldReason::Denied { class: name.to_owned(), why: why.to_owned() });
                }
                match checked.entry((name, &job.labels)).or_insert_with(|| check(class.labels(), job)) {
                    Ok(labels) => Verdict::Demand(labels.clone(), name),
                    Err(why) => Verdict::Held(HoldReason::BadLabels { why: why.clone() }),
                }
            }
            JobStatus::Waiting | JobStatus::Pending | JobStatus::Requested => {
                Verdict::Held(HoldReason::NotQueued { status: job.status.as_str() })
            }
            JobStatus::InProgress | JobStatus::Completed | JobStatus::Unknown => Verdict::NotOurs,
        }
    }

    /// A job is one more of its group.
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
        let runners: Vec<&'a Runner> = self.runners.values().copied().collect();
        for runner in runners {
            if let Some(job_id) = runner.meta.job_id {
                let newest = self.newest.entry(job_id).or_insert(runner);
                if newest.meta.attempt < runner.meta.attempt {
                    *newest = runner;
                }
                // A busy one has found another job, and is nobody's attempt any more.
                if runner.is_live() && !self.is_busy(runner) {
                    *self.attempts.entry(job_id).or_default() += 1;
                }
            }
            let Some(key) = self.group_of(runner) else { continue };
            let supplies = self.supplies(runner);
            let group = self.groups.entry(key).or_default();
            group.live += usize::from(runner.is_live());
            if group.last.is_none_or(|last| last.submitted_at <= runner.submitted_at) {
                group.last = Some(runner);
            }
            if supplies {
                group.supply.push(runner);
            }
        }
    }

    /// The queued jobs that may be served, by group.
    pub fn demand(&self) -> BTreeMap<GroupKey, Vec<JobId>> {
        let groups = self.groups.iter().filter(|(_, group)| !group.demand.is_empty());
        groups.map(|(key, group)| (key.clone(), group.demand.iter().map(|job| job.id).collect())).collect()
    }

    /// The group of a runner; `None` when its repository is unknown.
    pub fn group_of(&self, runner: &Runner) -> Option<GroupKey> {
        let known = self.joined.get(runner.meta.labelsstr.as_str()).cloned();
        let labels = known.unwrap_or_else(|| runner.labels());
        Some(GroupKey { repository: self.repository_id(runner)?, labels })
    }

    /// The repository of a runner: by its ID, else by the address that nomadtools wrote.
    pub fn repository_id(&self, runner: &Runner) -> Option<RepositoryId> {
        runner.meta.repo_id.or_else(|| self.by_url.get(&runner.meta.repo_url.to_lowercase()).copied())
    }

    /// What is known of a runner's repository.
    pub fn view_of(&self, runner: &Runner) -> Option<&'a RepositoryView> {
        self.repositories.get(&self.repository_id(runner)?)
    }

    /// The repository of a runner, if a fresh listing permits a Stop there.
    pub fn listed(&self, runner: &Runner) -> Option<&'a Repository> {
        let view = self.view_of(runner)?;
        matches!(view.listing, Listing::Fresh { .. }).then_some(&view.repository)
    }

    /// The same, if the listing is complete: where a job's absence counts.
    pub fn listed_in_full(&self, runner: &Runner) -> Option<&'a Repository> {
        let view = self.view_of(runner)?;
        matches!(view.listing, Listing::Fresh { complete: true, .. }).then_some(&view.repository)
    }

    /// Whether a job in progress names it, whichever group that job belongs to.
    pub fn is_busy(&self, runner: &Runner) -> bool {
        self.busy.contains(runner.name.as_str())
    }

    /// For how long GitHub has not listed it; `None` when it is, or nobody asked.
    pub fn absent(&self, runner: &Runner) -> Option<Duration> {
        let since = self.memory.presence.get(&runner.name)?.absent_since?;
        Some(self.now.saturating_sub(since))
    }

    /// For how long verifications have found it absent, from the first to the last: what nobody asked about since
    /// proves nothing.
    pub fn absence_confirmed(&self, runner: &Runner) -> Option<Duration> {
        let presence = self.memory.presence.get(&runner.name)?;
        Some(presence.checked_at.saturating_sub(presence.absent_since?))
    }

    /// Whether it can take a job of its group, now or soon.
    pub fn supplies(&self, runner: &Runner) -> bool {
        use RunnerState::{Pending, Running, Starting, Waiting};
        matches!(runner.state, Pending | Waiting | Starting | Running)
            && !self.is_busy(runner)
            && !self.is_out_of_reach(runner)
            && !self.is_spent(runner)
    }

    /// Whether no job gets to it: GitHub does not list it as connected. One that registers by itself may bear
    /// another name there: it is believed for as long as an unregistered one is kept.
    fn is_out_of_reach(&self, runner: &Runner) -> bool {
        match runner.registration() {
            Registration::Jit => self.absent(runner).is_some(),
            Registration::Token | Registration::AccessToken => {
                self.absence_confirmed(runner).is_some_and(|confirmed| confirmed >= ABSENT_AT_LEAST)
            }
        }
    }

    /// Whether an earlier allocation used its credentials: nothing can use it again.
    pub fn is_spent(&self, runner: &Runner) -> bool {
        runner.spent && runner.ownership == Ownership::Ours && runner.registration().needs_variable()
    }

    /// What the policy says of a runner: by the class it was started as.
    pub fn class_of(&self, runner: &Runner) -> ClassPolicy<'a> {
        self.policy.class_named(runner.class())
    }

    /// For how long a running runner has been idle; `None` when it is not.
    pub fn idle(&self, runner: &Runner) -> Option<Duration> {
        if runner.state != RunnerState::Running || self.is_busy(runner) {
            return None;
        }
        // A client's clock may be off: its times are held between the servers' own.
        let placed = runner.allocation.as_ref().map_or(runner.submitted_at, |a| a.created_at);
        // A `Date` has whole seconds: who has started within this one is not ahead.
        let known = |at: &crate::model::Timestamp| age(*at, self.nomad.now) <= CLOCKS_APART;
        let started = runner.started_at.filter(known).map_or(placed, |at| at.max(placed));
        let idle = age(self.nomad.now, started);
        let busy = self.memory.last_busy.get(&runner.name).map(|at| self.now.saturating_sub(*at));
        Some(busy.map_or(idle, |busy| busy.min(idle)))
    }

    /// For how long a dead runner has been dead, by the servers' clock.
    pub fn dead_for(&self, runner: &Runner) -> Duration {
        // The end is a client's time: a little ahead it is now, far ahead it says nothing, and what waits for
        // it would wait for hours.
        let died = runner.died_at();
        let known = age(died, self.nomad.now) <= CLOCKS_APART;
        let died = if known { died.max(runner.submitted_at) } else { runner.submitted_at };
        age(self.nomad.now, died)
    }

    /// For how long a placed runner has had all it needs, and its task has not started.
    pub fn not_started_for(&self, runner: &Runner) -> Option<Duration> {
        let placed = runner.allocation.as_ref().filter(|_| runner.state == RunnerState::Starting)?;
        let released = runner.variable.unwrap_or(placed.created_at);
        Some(age(self.nomad.now, placed.created_at.max(released)))
    }

    /// The same, where its task should have started by now.
    pub fn starting_too_long(&self, runner: &Runner) -> Option<Duration> {
        self.not_started_for(runner).filter(|starting| *starting >= self.class_of(runner).starting_timeout())
    }

    /// Why it got no credentials the last time.
    pub fn issue_error(&self, runner: &Runner) -> Option<&'a str> {
        Some(&self.memory.issue_backoff.get(&runner.name)?.error)
    }

    /// How long a runner waits for its credentials after a failure, and what it was.
    pub fn issue_backoff(&self, runner: &Runner) -> Option<HoldReason> {
        self.still_waits(self.memory.issue_backoff.get(&runner.name)?)
    }

    /// How long other actions on this runner still wait after a failure, and what it was.
    pub fn backoff(&self, runner: &Runner) -> Option<HoldReason> {
        self.still_waits(self.memory.runner_backoff.get(&runner.name)?)
    }

    fn still_waits(&self, backoff: &Backoff) -> Option<HoldReason> {
        let wait = backoff.until.checked_sub(self.now).filter(|wait| !wait.is_zero())?;
        Some(HoldReason::ActionFailed { error: backoff.error.clone(), wait })
    }
}

/// A job's labels, if all of them may be rendered; else why not.
fn check(rules: &LabelRules, job: &WorkflowJob) -> Result<Labels, String> {
    rules.check(&job.labels).map_err(|problem| problem.to_string())?;
    Ok(Labels::new(job.labels.iter().map(String::as_str)))
}

/// The order in which jobs are served within a group.
pub(super) fn oldest_first(job: &WorkflowJob) -> (Option<jiff::Timestamp>, JobId) {
    (job.created_at, job.id)
}

/// How far a job has come, and all else that can differ between two sightings of one job, so that their order
/// does not show.
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

/// Labels for people: in one order, harmless, cut to a bearable length.
fn shown(labels: &[String]) -> String {
    let labels = Labels::new(labels.iter().map(String::as_str)).joined();
    text::shown(&labels, SHOWN_LABELS).to_string()
}
