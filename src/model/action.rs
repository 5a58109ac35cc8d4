//! Actions and holds: what to do, what is deliberately not done, and why.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;

use super::{
    EndedJob, ForeignReason, GroupKey, JobFacts, JobId, Labels, Loss, Moment, Purpose, Registration,
    Repository, RepositoryId, RerunLimit, RerunMark, RunId, naming::last_part,
};
use crate::text::Escaped;

/// The result of planning. It leaves nothing to decide.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What to do, most important first. The actions are independent of one another.
    pub actions: Vec<Action>,
    /// What is deliberately not done.
    pub holds: Vec<Hold>,
    /// The surplus of each completely listed repository, for [`super::Memory::surplus`].
    pub surplus: BTreeMap<RepositoryId, BTreeSet<String>>,
    /// Everything that currently belongs to no runner, for [`super::Memory::orphans`].
    pub orphans: BTreeSet<Orphan>,
    /// The IDs of the queued jobs that may have one of our runners, oldest first.
    pub demand: BTreeMap<GroupKey, Vec<JobId>>,
    /// The jobs that are left to warm runners, for [`super::Memory::left`].
    pub left: BTreeSet<JobId>,
    /// The class of each job that is in demand, or held after it matched one, by the job's ID.
    pub classes: BTreeMap<JobId, Arc<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Register the Nomad job of a runner.
    Start(Start),
    /// Give a placed runner its credentials.
    IssueCredentials(IssueCredentials),
    /// Stop a runner.
    Stop(Stop),
    /// Ask GitHub whether a runner is still registered.
    VerifyRegistration(VerifyRegistration),
    /// Remove what a dead runner left behind: its registration, then its variable.
    CleanUp(CleanUp),
    /// Remove a dead runner's job.
    Purge(Purge),
    /// Remove a variable or registration that no longer belongs to a runner.
    RemoveOrphan(RemoveOrphan),
    /// Run a job again that was lost with its runner.
    Rerun(Rerun),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    pub repository: Repository,
    /// `None`: the top level of the configuration.
    pub class: Option<String>,
    pub labels: Labels,
    pub purpose: Purpose,
    /// GitHub's facts about the job, for the template.
    pub facts: JobFacts,
    /// 1, 2, … for the job; another increasing number for a warm runner.
    pub attempt: u32,
    /// The Nomad job's ID and the runner's name.
    pub name: String,
    /// A line on the scheduler's state, for templates (`RUN.INFO`).
    pub info: String,
    pub reason: StartReason,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartReason {
    /// The group has fewer runners than queued jobs.
    Missing {
        /// Queued jobs of the group.
        demand: usize,
        /// Runners that can take them.
        supply: usize,
    },
    /// Fewer warm runners are ready than their entry asks for.
    Warm {
        /// How many it asks for.
        count: usize,
        /// How many are ready, or soon will be.
        ready: usize,
    },
}

/// Give credentials to a runner that has an allocation, no started task and no variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssueCredentials {
    pub name: String,
    pub repository: Repository,
    /// `None`: the top level of the configuration.
    pub class: Option<String>,
    /// All labels: GitHub adds none of its own (contract github.md §2).
    pub labels: Labels,
    /// The kind of credentials.
    pub registration: Registration,
}

/// Stop a runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    pub name: String,
    pub repository: Repository,
    /// `None`: the top level of the configuration.
    pub class: Option<String>,
    /// Whose consent it takes.
    pub consent: Consent,
    pub registration: Registration,
    pub reason: StopReason,
}

/// Whose consent a Stop needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Consent {
    /// Its task never started: the registration is deleted, and the allocation is read once more.
    NeverStarted,
    /// It has started: only after GitHub has answered the deletion of its registration with 204.
    GitHub,
    /// It has started, and is known not to be connected, so it cannot be given a job. If its registration still
    /// exists, it is deleted first, and GitHub decides.
    Unregistered,
    /// None: it has run for longer than `max_run_duration`, and its job ends with it. Only this Stop needs no
    /// consent.
    OutOfTime {
        /// The exceeded limit.
        limit: Duration,
    },
}

/// Why a runner is stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// More runners than jobs in two successive complete listings.
    Surplus {
        /// Queued jobs of the group.
        demand: usize,
        /// Runners that can take them.
        supply: usize,
    },
    /// Not registered at GitHub or never connected, and no job names it.
    Unregistered {
        /// How long it has been absent.
        absent: Duration,
    },
    /// Idle and not needed by any job, while something else is waiting for room.
    MakeRoom {
        /// The runner or the job that is waiting.
        waits: String,
    },
    /// It makes no progress (unplaced for long, without credentials, or given no job), and a job or runner of another
    /// group is waiting.
    Yield {
        /// The runner or the job that is waiting.
        waits: String,
        /// Why it makes no progress, for display.
        but: &'static str,
    },
    /// A warm runner that is no longer wanted.
    Warm(WarmEnd),
    /// An earlier allocation has used its credentials, so no other allocation can register.
    Spent,
    /// Its task did not start within `scheduler.starting_timeout`. Another node may do better.
    NotStarting {
        /// How long ago it had everything it needs to start.
        starting: Duration,
        /// Nomad's last event for its task.
        event: Option<String>,
    },
    /// Its repository is gone, and either it never started, or its organization can say whether it is busy.
    RepositoryGone,
    /// It has run for longer than `max_run_duration`. This is the only reason that ends a busy runner.
    MaxRunDuration {
        /// How long it has run.
        ran: Duration,
        /// The limit.
        limit: Duration,
    },
    /// Requested on the command line.
    Asked,
}

/// Why a warm runner is stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WarmEnd {
    /// There are more than its entry asks for.
    Excess {
        /// How many it asks for.
        count: usize,
        /// How many are ready, or soon will be.
        ready: usize,
    },
    /// The schedule of its entry is over.
    Closed,
    /// The configuration no longer has its entry.
    Removed,
    /// It is older than a day: its image may be outdated.
    Old {
        /// How old it is.
        age: Duration,
    },
    /// The settings with which it was started have changed.
    Settings,
    /// It has made no progress for too long.
    Fails {
        /// Why, for display.
        why: &'static str,
    },
}

/// Ask GitHub for a runner by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyRegistration {
    pub name: String,
    pub repository: Repository,
    /// `None`: the top level of the configuration.
    pub class: Option<String>,
}

/// Remove a dead runner's registration, if it is still listed, then its variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CleanUp {
    pub name: String,
    /// Where it was registered; `None` if the repository is no longer known.
    pub repository: Option<Repository>,
    /// `None`: the top level of the configuration.
    pub class: Option<String>,
    /// How it ended, for display.
    pub finish: String,
}

/// Remove a dead runner's job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purge {
    pub name: String,
    /// Where a registration may be left. Only for runners without a variable (access_token), because a
    /// clean-up handles the others.
    pub repository: Option<Repository>,
    /// `None`: the top level of the configuration.
    pub class: Option<String>,
    pub reason: PurgeReason,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PurgeReason {
    /// Dead for longer than its timeout.
    Expired {
        /// How it ended, for display.
        finish: String,
        /// How long it has been dead.
        dead: Duration,
    },
    /// Requested on the command line.
    Asked,
}

/// Remove what no longer belongs to a runner: after a crash, a purge by someone else, or a restart of the
/// agent without its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoveOrphan {
    pub orphan: Orphan,
    /// Where it is registered; `None` for a variable.
    pub repository: Option<Repository>,
    /// How long it has been seen without a runner.
    pub seen: Duration,
}

/// Run a job again that was lost with its runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rerun {
    /// The dead runner that had it.
    pub name: String,
    /// The repository.
    pub repository: Repository,
    /// The runner's class; `None`: the top level of the configuration.
    pub class: Option<String>,
    /// The job, as GitHub listed it.
    pub job: EndedJob,
    /// What took the runner away.
    pub loss: Loss,
    /// Records of older re-runs that are no longer needed.
    pub forgets: Vec<RerunMark>,
}

impl Rerun {
    /// The record of this request.
    pub fn mark(&self, at: Timestamp) -> RerunMark {
        let runner = last_part(&self.name).to_owned();
        RerunMark { run_id: self.job.run_id, key: self.job.key.clone(), runner, at }
    }
}

/// Something of ours, by name, without the runner that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Orphan {
    /// A variable `nomad/jobs/NAME` without a job.
    Variable { name: String },
    /// An offline registration at GitHub without a live runner.
    Registration { name: String },
}

impl Orphan {
    /// The name of the runner it belonged to.
    pub fn name(&self) -> &str {
        match self {
            Orphan::Variable { name } | Orphan::Registration { name } => name,
        }
    }
}

/// A start that is not permitted for its rendered job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Until when. Then it is judged again.
    pub until: Moment,
    /// Why, for people.
    pub why: String,
}

/// A failure that is not to be repeated at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// How many times in a row.
    pub failures: u32,
    /// Do not retry before this.
    pub until: Moment,
    pub error: String,
}

/// Something that is deliberately not done.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hold {
    /// What it is about.
    pub subject: Subject,
    pub reason: HoldReason,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The whole pass.
    Nomad,
    Repository {
        /// `owner/name`.
        name: String,
    },
    Job {
        /// `owner/name`.
        repository: String,
        id: JobId,
        /// Its labels, made safe for a terminal.
        labels: String,
    },
    Runner {
        name: String,
    },
    /// An entry of `warm`.
    Warm {
        /// Its owner, or `owner/name`.
        place: String,
        /// Its labels.
        labels: String,
    },
}

/// Why something is not done.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HoldReason {
    /// Nomad, its namespace or the deployment ID could not be read.
    NomadUnseen,
    /// The repository could not be listed in this pass.
    NotListed { why: String },
    /// GitHub answers 404.
    RepositoryGone {
        /// For how long.
        since: Duration,
    },
    /// The repository is archived or disabled: it takes no jobs.
    Archived,
    /// The configuration no longer names the repository.
    NotConfigured,
    /// The listing is incomplete, so nothing stops.
    Incomplete { why: String },
    /// The job needs no runner now: it is waiting, pending or requested.
    NotQueued { status: &'static str },
    /// Its class denies such jobs.
    Denied {
        class: String,
        /// The reason that the class gives.
        why: String,
    },
    /// No class matches it, and `classes_only` is set.
    NoClass,
    /// The labels may not be rendered.
    BadLabels {
        /// Which and why.
        why: String,
    },
    /// Its repository is public, and its runner would give its tasks access to the host that they run on.
    ReachesHost {
        /// How.
        why: String,
    },
    /// Earlier attempts are alive and none of them takes it: there are never more at once.
    LiveAttempts {
        /// How many.
        count: usize,
    },
    /// The previous attempt died a short while ago, or is alive and takes no job.
    Attempts {
        /// The number of the next attempt.
        attempt: u32,
        /// How long it still has to wait.
        wait: Duration,
    },
    /// The group's last start failed.
    StartFailed {
        error: String,
        /// How long it still has to wait.
        wait: Duration,
    },
    /// A cap is reached.
    Cap {
        cap: Cap,
        /// How many are allowed.
        limit: usize,
    },
    /// An idle warm runner is expected to take the job within a short time.
    LeftToWarm { runner: String },
    /// The next listing of the repository of a warm entry is needed.
    Unpolled { repository: String },
    /// None of the repositories of a warm entry is known.
    NoRepository,
    /// The schedule of a warm entry is over.
    Closed {
        /// When it opens again.
        opens: Option<Timestamp>,
    },
    /// The last runners of a warm entry failed.
    WarmFailed {
        /// How many in a row.
        failed: u32,
        /// How long the next one still has to wait.
        wait: Duration,
    },
    /// No warm runner competes with a runner that waits for room in the same node pool.
    WarmYields {
        /// The runner that waits.
        to: String,
    },
    /// A runner of nomadtools is expected to take the job.
    LeftToNomadtools { runner: String },
    /// The places left below a cap are kept for another repository, whose turn is first and which is polled next.
    Turn {
        /// The cap.
        cap: Cap,
        /// The cap's value.
        limit: usize,
        /// The other repository, `owner/name`.
        before: String,
    },
    /// The same plan stops a runner of the group.
    GroupStops,
    /// Nomad cannot place it.
    Unplaced { why: String },
    /// Its node is disconnected.
    Disconnected,
    /// Nomad's data about its tasks is too large to read. The runner counts as started.
    TasksUnread,
    /// A job that claims to be ours and is not. It is left alone.
    Foreign {
        /// What gives it away.
        reason: ForeignReason,
    },
    /// Surplus, but so far in only one listing.
    SurplusOnce,
    /// Surplus, but not idle for long enough.
    Idle {
        /// How long it has been idle.
        idle: Duration,
        /// When it may be stopped; `None`: never, the timeout is off.
        timeout: Option<Duration>,
    },
    /// An action on it failed.
    ActionFailed {
        error: String,
        /// How long it still has to wait.
        wait: Duration,
    },
    /// It was placed, and has had no credentials for longer than `scheduler.waiting_timeout`.
    NoCredentials {
        /// How long ago it was placed.
        waiting: Duration,
        /// The last error, if this process has tried.
        error: Option<String>,
    },
    /// It has everything it needs, but its task does not start.
    NotStarting {
        /// How long ago it was placed.
        starting: Duration,
        /// Nomad's last event for its task.
        event: Option<String>,
    },
    /// It has been idle for longer than `scheduler.unassigned_timeout`, and a job for it has been queued for
    /// as long.
    Unassigned {
        /// How long it has been idle.
        idle: Duration,
        /// Whether GitHub has reported it as connected.
        online: bool,
    },
    /// GitHub does not list it as connected, so it does not count as supply.
    Unregistered {
        /// For how long.
        absent: Duration,
    },
    /// It will soon exceed its `max_run_duration`, and is then stopped with its job.
    MaxRunDuration {
        /// How long it has run.
        ran: Duration,
        /// The limit.
        limit: Duration,
    },
    /// It was lost with the job it ran, and GitHub has not noticed yet.
    LostJobRuns {
        /// What took it away.
        loss: Loss,
    },
    /// Its job is run again when the workflow run is over, because GitHub refuses until then.
    RunGoesOn {
        /// GitHub's ID of the run.
        run: RunId,
    },
    /// Its job is not run again.
    RerunLimit {
        /// Why not.
        limit: RerunLimit,
    },
    /// Dead, but it is the newest attempt at a job that is still queued.
    CountsAttempts,
    /// Dead, but it counts the failures of its warm entry.
    CountsFailures,
    /// Dead, but its repository has not been listed since: its job may still be queued.
    JobUnknown,
    /// Its variable must be removed first.
    VariableFirst,
}

/// The caps. All of them count runners that are not dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cap {
    /// `scheduler.max_runners`
    All,
    /// `scheduler.max_runners_per_repository`
    Repository,
    /// `scheduler.max_runners_per_group`, or the class's
    Group,
    /// `max_runners` of the class
    Class,
    /// `max_runners_per_repository` of the class
    ClassRepository,
}

impl Action {
    /// The name of the action in logs and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Action::Start(_) => "start",
            Action::IssueCredentials(_) => "issue_credentials",
            Action::Stop(_) => "stop",
            Action::VerifyRegistration(_) => "verify_registration",
            Action::CleanUp(_) => "clean_up",
            Action::Purge(_) => "purge",
            Action::RemoveOrphan(_) => "remove_orphan",
            Action::Rerun(_) => "rerun",
        }
    }

    /// The reason as a metric label: one of a fixed set.
    pub fn reason(&self) -> &'static str {
        match self {
            Action::Start(Start { reason: StartReason::Missing { .. }, .. }) => "missing",
            Action::Start(Start { reason: StartReason::Warm { .. }, .. }) => "warm",
            Action::IssueCredentials(action) => match action.registration {
                Registration::Jit => "jit",
                Registration::Token => "token",
                Registration::AccessToken => "access_token",
            },
            Action::Stop(action) => match &action.reason {
                StopReason::Surplus { .. } => "surplus",
                StopReason::Unregistered { .. } => "unregistered",
                StopReason::MakeRoom { .. } => "make_room",
                StopReason::Yield { .. } => "yield",
                StopReason::Warm(end) => end.word(),
                StopReason::Spent => "spent",
                StopReason::NotStarting { .. } => "not_starting",
                StopReason::RepositoryGone => "repository_gone",
                StopReason::MaxRunDuration { .. } => "max_run_duration",
                StopReason::Asked => "asked",
            },
            Action::VerifyRegistration(_) => "idle",
            Action::CleanUp(_) => "dead",
            Action::Purge(action) => match action.reason {
                PurgeReason::Expired { .. } => "expired",
                PurgeReason::Asked => "asked",
            },
            Action::RemoveOrphan(action) => match action.orphan {
                Orphan::Variable { .. } => "variable",
                Orphan::Registration { .. } => "registration",
            },
            Action::Rerun(action) => action.loss.word(),
        }
    }

    /// Whether the action needs GitHub; the others need only Nomad.
    pub fn needs_github(&self) -> bool {
        match self {
            Action::Start(_) => false,
            Action::IssueCredentials(action) => action.registration != Registration::AccessToken,
            Action::Stop(_) | Action::VerifyRegistration(_) => true,
            Action::CleanUp(action) => action.repository.is_some(),
            Action::Purge(action) => action.repository.is_some(),
            Action::RemoveOrphan(action) => matches!(action.orphan, Orphan::Registration { .. }),
            Action::Rerun(_) => true,
        }
    }

    /// `None` if it is not known.
    pub fn repository(&self) -> Option<&Repository> {
        match self {
            Action::Start(action) => Some(&action.repository),
            Action::IssueCredentials(action) => Some(&action.repository),
            Action::Stop(action) => Some(&action.repository),
            Action::VerifyRegistration(action) => Some(&action.repository),
            Action::CleanUp(action) => action.repository.as_ref(),
            Action::Purge(action) => action.repository.as_ref(),
            Action::RemoveOrphan(action) => action.repository.as_ref(),
            Action::Rerun(action) => Some(&action.repository),
        }
    }

    pub fn runner(&self) -> &str {
        match self {
            Action::Start(action) => &action.name,
            Action::IssueCredentials(action) => &action.name,
            Action::Stop(action) => &action.name,
            Action::VerifyRegistration(action) => &action.name,
            Action::CleanUp(action) => &action.name,
            Action::Purge(action) => &action.name,
            Action::RemoveOrphan(action) => action.orphan.name(),
            Action::Rerun(action) => &action.name,
        }
    }
}

impl Start {
    pub fn group(&self) -> GroupKey {
        GroupKey { repository: self.repository.id, labels: self.labels.clone() }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let f = &mut Escaped::line(f);
        match self {
            Action::Start(Start { repository, class, labels, purpose, attempt, name, reason, .. }) => {
                let repository = repository.full_name();
                write!(f, "start    {name}  {repository} [{labels}] ")?;
                match purpose {
                    Purpose::Job(job_id) => write!(f, "for job {job_id}, attempt {attempt}")?,
                    Purpose::Warm(_) => write!(f, "as a warm runner")?,
                }
                class.as_ref().map_or(Ok(()), |class| write!(f, ", class {class}"))?;
                write!(f, ": {reason}")
            }
            Action::IssueCredentials(IssueCredentials { name, registration, .. }) => {
                write!(f, "issue    {name}  placed and waiting for credentials ({registration})")
            }
            Action::Stop(Stop { name, consent, reason, .. }) => {
                write!(f, "stop     {name}  {reason}; {consent}")
            }
            Action::VerifyRegistration(VerifyRegistration { name, .. }) => {
                write!(f, "verify   {name}  idle while a job is waiting: verifying its registration")
            }
            Action::CleanUp(CleanUp { name, finish, .. }) => {
                write!(f, "clean up {name}  dead ({finish}): removing its registration and variable")
            }
            Action::Purge(Purge { name, reason, .. }) => write!(f, "purge    {name}  {reason}"),
            Action::RemoveOrphan(RemoveOrphan { orphan, seen, .. }) => {
                let (what, lacks) = match orphan {
                    Orphan::Variable { .. } => ("variable", "a job"),
                    Orphan::Registration { .. } => ("offline registration", "a live runner"),
                };
                write!(f, "remove   {}  {what} without {lacks} for {}", orphan.name(), span(*seen))
            }
            Action::Rerun(Rerun { name, repository, job, loss, .. }) => {
                let (repository, id, run) = (repository.full_name(), job.id, job.run_id);
                write!(f, "rerun    {name}  {loss}: running job {id} of {repository} again (run {run})")
            }
        }
    }
}

impl fmt::Display for StartReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartReason::Missing { demand, supply } => write!(f, "{demand} queued, {supply} available"),
            StartReason::Warm { count, ready } => write!(f, "{ready} of {count} ready"),
        }
    }
}

impl fmt::Display for Consent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Consent::NeverStarted => "its task is not running",
            Consent::GitHub => "after GitHub removes its registration",
            Consent::Unregistered => "GitHub cannot assign it a job",
            Consent::OutOfTime { .. } => "with the job it runs",
        })
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let f = &mut Escaped::line(f);
        match self {
            StopReason::Surplus { demand, supply } => {
                write!(f, "surplus: {demand} queued, {supply} available")
            }
            StopReason::Unregistered { absent } => write!(f, "not connected to GitHub for {}", span(*absent)),
            StopReason::MakeRoom { waits } => write!(f, "idle and not needed, making room for {waits}"),
            StopReason::Yield { waits, but } => write!(f, "{but}, yielding to {waits}"),
            StopReason::Warm(end) => write!(f, "{end}"),
            StopReason::Spent => f.write_str("an earlier allocation used its credentials"),
            StopReason::NotStarting { starting, event } => not_started(f, *starting, event.as_deref()),
            StopReason::RepositoryGone => f.write_str("its repository is gone"),
            StopReason::MaxRunDuration { ran, limit } => {
                write!(f, "has run for {}, longer than max_run_duration ({})", span(*ran), span(*limit))
            }
            StopReason::Asked => f.write_str("requested on the command line"),
        }
    }
}

impl WarmEnd {
    /// The reason as a metric label.
    fn word(&self) -> &'static str {
        match self {
            WarmEnd::Excess { .. } => "warm_excess",
            WarmEnd::Closed => "warm_closed",
            WarmEnd::Removed => "warm_removed",
            WarmEnd::Old { .. } => "warm_old",
            WarmEnd::Settings => "warm_settings",
            WarmEnd::Fails { .. } => "warm_fails",
        }
    }
}

impl fmt::Display for WarmEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WarmEnd::Excess { count, ready } => write!(f, "{ready} warm runners, {count} configured"),
            WarmEnd::Closed => f.write_str("warm, and its schedule is over"),
            WarmEnd::Removed => f.write_str("warm, and its entry is no longer configured"),
            WarmEnd::Old { age } => write!(f, "warm, and {} old: a new one replaces it", span(*age)),
            WarmEnd::Settings => f.write_str("warm, and its settings have changed: a new one replaces it"),
            WarmEnd::Fails { why } => write!(f, "warm, and {why}"),
        }
    }
}

impl fmt::Display for PurgeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let f = &mut Escaped::line(f);
        match self {
            PurgeReason::Expired { finish, dead } => write!(f, "{finish}, dead for {}", span(*dead)),
            PurgeReason::Asked => f.write_str("requested on the command line"),
        }
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let f = &mut Escaped::line(f);
        write!(f, "hold     {}  {}", self.subject, self.reason)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let f = &mut Escaped::line(f);
        match self {
            Subject::Nomad => f.write_str("everything"),
            Subject::Repository { name } => f.write_str(name),
            Subject::Job { repository, id, labels } => write!(f, "{repository} job {id} [{labels}]"),
            Subject::Warm { place, labels } => write!(f, "warm {place} [{labels}]"),
            Subject::Runner { name } => f.write_str(name),
        }
    }
}

impl Subject {
    pub fn kind(&self) -> &'static str {
        match self {
            Subject::Nomad => "nomad",
            Subject::Repository { .. } => "repository",
            Subject::Job { .. } => "job",
            Subject::Runner { .. } => "runner",
            Subject::Warm { .. } => "warm",
        }
    }
}

impl HoldReason {
    /// The reason as a metric label: one of a fixed set.
    pub fn word(&self) -> &'static str {
        match self {
            HoldReason::NomadUnseen => "nomad_unseen",
            HoldReason::NotListed { .. } => "not_listed",
            HoldReason::RepositoryGone { .. } => "repository_gone",
            HoldReason::Archived => "archived",
            HoldReason::NotConfigured => "not_configured",
            HoldReason::Incomplete { .. } => "incomplete",
            HoldReason::NotQueued { .. } => "not_queued",
            HoldReason::Denied { .. } => "denied",
            HoldReason::NoClass => "no_class",
            HoldReason::BadLabels { .. } => "bad_labels",
            HoldReason::ReachesHost { .. } => "reaches_host",
            HoldReason::LiveAttempts { .. } => "live_attempts",
            HoldReason::Attempts { .. } => "attempts",
            HoldReason::StartFailed { .. } => "start_failed",
            HoldReason::Cap { cap, .. } => match cap {
                Cap::All => "cap_all",
                Cap::Repository => "cap_repository",
                Cap::Group => "cap_group",
                Cap::Class => "cap_class",
                Cap::ClassRepository => "cap_class_repository",
            },
            HoldReason::LeftToWarm { .. } => "left_to_warm",
            HoldReason::Unpolled { .. } => "unpolled",
            HoldReason::NoRepository => "no_repository",
            HoldReason::Closed { .. } => "closed",
            HoldReason::WarmFailed { .. } => "warm_failed",
            HoldReason::WarmYields { .. } => "warm_yields",
            HoldReason::CountsFailures => "counts_failures",
            HoldReason::LeftToNomadtools { .. } => "left_to_nomadtools",
            HoldReason::Turn { .. } => "turn",
            HoldReason::GroupStops => "group_stops",
            HoldReason::Unplaced { .. } => "unplaced",
            HoldReason::Disconnected => "disconnected",
            HoldReason::TasksUnread => "tasks_unread",
            HoldReason::Foreign { .. } => "foreign",
            HoldReason::SurplusOnce => "surplus_once",
            HoldReason::Idle { .. } => "idle",
            HoldReason::ActionFailed { .. } => "action_failed",
            HoldReason::NoCredentials { .. } => "no_credentials",
            HoldReason::NotStarting { .. } => "not_starting",
            HoldReason::Unassigned { .. } => "unassigned",
            HoldReason::Unregistered { .. } => "unregistered",
            HoldReason::MaxRunDuration { .. } => "max_run_duration",
            HoldReason::LostJobRuns { .. } => "lost_job_runs",
            HoldReason::RunGoesOn { .. } => "run_goes_on",
            HoldReason::RerunLimit { limit } => match limit {
                RerunLimit::Job(_) => "rerun_per_job",
                RerunLimit::Hour(_) => "rerun_per_hour",
                RerunLimit::Run(_) => "rerun_per_run",
            },
            HoldReason::CountsAttempts => "counts_attempts",
            HoldReason::JobUnknown => "job_unknown",
            HoldReason::VariableFirst => "variable_first",
        }
    }

    /// Whether an operator should look at it: it lasts and does not resolve itself.
    pub fn is_warning(&self) -> bool {
        use HoldReason::{MaxRunDuration, NoCredentials, NotStarting, RerunLimit, Unassigned, Unregistered};
        matches!(
            self,
            NoCredentials { .. }
                | NotStarting { .. }
                | Unassigned { .. }
                | Unregistered { .. }
                | MaxRunDuration { .. }
                | RerunLimit { .. }
        )
    }

    /// Whether nearly every runner is held for this reason for a moment. Such holds are shown in a plan but
    /// not logged.
    pub fn is_routine(&self) -> bool {
        use HoldReason::{
            CountsFailures, JobUnknown, LeftToWarm, NoCredentials, SurplusOnce, Unpolled, VariableFirst,
        };
        let is_of_all = matches!(
            self,
            Unpolled { .. } | SurplusOnce | VariableFirst | JobUnknown | CountsFailures | LeftToWarm { .. }
        );
        is_of_all || matches!(self, NoCredentials { error: None, .. })
    }
}

impl fmt::Display for HoldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let f = &mut Escaped::line(f);
        match self {
            HoldReason::NomadUnseen => f.write_str("Nomad unreachable: skipping this pass"),
            HoldReason::NotListed { why } => {
                write!(f, "could not be listed, so nothing starts or stops: {why}")
            }
            HoldReason::RepositoryGone { since } => {
                write!(f, "GitHub has answered 404 for {}: deleted, or the token cannot see it", span(*since))
            }
            HoldReason::Archived => f.write_str("archived or disabled, so it gets no runners"),
            HoldReason::NotConfigured => f.write_str("no longer configured, so it gets no runners"),
            HoldReason::Incomplete { why } => write!(f, "the listing is incomplete, so nothing stops: {why}"),
            HoldReason::NotQueued { status } => write!(f, "{status}: needs no runner yet"),
            HoldReason::Denied { class, why } => write!(f, "class {class} denies it: {why}"),
            HoldReason::NoClass => f.write_str("no class matches it, and classes_only is set"),
            HoldReason::BadLabels { why } => write!(f, "labels: {why}"),
            HoldReason::ReachesHost { why } => f.write_str(why),
            HoldReason::LiveAttempts { count } => {
                write!(
                    f,
                    "{count} attempts are alive and none takes it; the next one starts after one of them ends"
                )
            }
            HoldReason::Attempts { attempt, wait } => {
                write!(f, "attempt {attempt} starts in {}", span(*wait))
            }
            HoldReason::StartFailed { error, wait } => write!(f, "retrying in {}: {error}", span(*wait)),
            HoldReason::Cap { cap, limit } => write!(f, "waiting for a place: {cap} is {limit}"),
            HoldReason::Turn { cap, limit, before } => {
                write!(f, "waiting for a place: {cap} is {limit}, and {before} is next")
            }
            HoldReason::LeftToWarm { runner } => {
                write!(f, "left to {runner}, a warm runner that is idle")
            }
            HoldReason::Unpolled { repository } => write!(f, "starts after the next poll of {repository}"),
            HoldReason::NoRepository => f.write_str(
                "none of its repositories is known: the token cannot see them, or they are archived",
            ),
            HoldReason::Closed { opens: Some(opens) } => {
                write!(f, "outside its schedule, which opens at {opens}")
            }
            HoldReason::Closed { opens: None } => f.write_str("outside its schedule"),
            HoldReason::WarmFailed { failed, wait } => {
                write!(
                    f,
                    "its last runner failed ({failed} in a row); the next one starts in {}",
                    span(*wait)
                )
            }
            HoldReason::WarmYields { to } => write!(f, "{to} waits for room in its node pool"),
            HoldReason::CountsFailures => f.write_str("dead, kept: it counts the failures of its warm entry"),
            HoldReason::LeftToNomadtools { runner } => {
                write!(f, "left to {runner}, a nomadtools job; stop that job if it never takes one")
            }
            HoldReason::GroupStops => {
                f.write_str("this pass stops a runner with its labels; the next pass starts one")
            }
            HoldReason::Unplaced { why } => write!(f, "Nomad cannot place it: {why}"),
            HoldReason::Disconnected => f.write_str("node disconnected (client status unknown)"),
            HoldReason::TasksUnread => {
                f.write_str("Nomad's data about its tasks is too large to read; it counts as running")
            }
            HoldReason::Foreign { reason } => write!(f, "a foreign job, left alone: {reason}"),
            HoldReason::SurplusOnce => f.write_str("surplus; stops if the next listing confirms it"),
            HoldReason::Idle { idle, timeout: Some(timeout) } => {
                write!(f, "surplus, idle for {} of {}", span(*idle), span(*timeout))
            }
            HoldReason::Idle { idle, timeout: None } => {
                write!(f, "surplus, idle for {}; runner_inactivity_timeout is off", span(*idle))
            }
            HoldReason::ActionFailed { error, wait } => write!(f, "retrying in {}: {error}", span(*wait)),
            HoldReason::NoCredentials { waiting, error } => {
                let waiting = span(*waiting);
                match error {
                    Some(error) => write!(f, "no credentials for {waiting}: {error}"),
                    None => write!(
                        f,
                        "no credentials for {waiting}: see the daemon's log, or run `githubrunner check`"
                    ),
                }
            }
            HoldReason::NotStarting { starting, event } => not_started(f, *starting, event.as_deref()),
            HoldReason::Unassigned { idle, online } => {
                let online = if *online { "online and " } else { "" };
                write!(
                    f,
                    "{online}idle for {} though its job is queued: check the runner group's access to the repository",
                    span(*idle)
                )
            }
            HoldReason::Unregistered { absent } => {
                write!(f, "not connected to GitHub for {}; it does not count as supply", span(*absent))
            }
            HoldReason::MaxRunDuration { ran, limit } => {
                let (ran, left) = (span(*ran), span(limit.saturating_sub(*ran)));
                write!(
                    f,
                    "has run for {ran} of max_run_duration {}: it ends in {left}, with the job it runs",
                    span(*limit)
                )
            }
            HoldReason::LostJobRuns { loss } => {
                write!(f, "{loss}: its job is run again once GitHub lists it as failed")
            }
            HoldReason::RunGoesOn { run } => {
                write!(f, "its job was lost: it is run again when run {run} is over")
            }
            HoldReason::RerunLimit { limit } => write!(f, "its job was lost and is not run again: {limit}"),
            HoldReason::CountsAttempts => {
                f.write_str("dead, kept: it is the newest attempt for a job that is still queued")
            }
            HoldReason::JobUnknown => f.write_str("dead, kept: its job may still be queued"),
            HoldReason::VariableFirst => f.write_str("dead, kept until its variable is gone"),
        }
    }
}

impl fmt::Display for Cap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cap::All => "scheduler.max_runners",
            Cap::Repository => "scheduler.max_runners_per_repository",
            Cap::Group => "scheduler.max_runners_per_group",
            Cap::Class => "its class's max_runners",
            Cap::ClassRepository => "its class's max_runners_per_repository",
        })
    }
}

fn not_started(f: &mut impl Write, starting: Duration, event: Option<&str>) -> fmt::Result {
    write!(f, "its task has not started for {}", span(starting))?;
    event.map_or(Ok(()), |event| write!(f, ", last event: {event}"))
}

/// A duration for display, with at most two units: `1d2h`, `3m5s`, `0s`.
pub fn span(duration: Duration) -> String {
    let mut seconds = duration.as_secs();
    let mut text = String::new();
    let mut units = 0;
    for (unit, size) in [("w", 604_800), ("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)] {
        if seconds >= size && units < 2 {
            text.push_str(&format!("{}{unit}", seconds / size));
            units += 1;
        }
        seconds %= size;
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}
