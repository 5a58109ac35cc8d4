//! What is to be done, what is deliberately not done, and why.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write},
    time::Duration,
};

use super::{ForeignReason, GroupKey, JobId, Labels, Moment, Registration, Repository, RepositoryId};
use crate::text::Escaped;

/// The outcome of planning: it leaves nothing to decide.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What to do. Their order is the order of importance; all are independent of one another.
    pub actions: Vec<Action>,
    /// What is deliberately not done.
    pub holds: Vec<Hold>,
    /// The surplus of each repository whose listing was complete, for [`super::Memory::surplus`].
    pub surplus: BTreeMap<RepositoryId, BTreeSet<String>>,
    /// What belongs to no runner now, for [`super::Memory::orphans`].
    pub orphans: BTreeSet<Orphan>,
    /// The queued jobs that want a runner of ours and may have one, oldest first, by their IDs.
    pub demand: BTreeMap<GroupKey, Vec<JobId>>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Register a Nomad job for a runner.
    Start(Start),
    /// Give a waiting runner its secret.
    IssueCredentials(IssueCredentials),
    /// Let a runner go.
    Stop(Stop),
    /// Ask GitHub whether a runner is still registered.
    VerifyRegistration(VerifyRegistration),
    /// Remove what a dead runner left: its registration, then its variable.
    CleanUp(CleanUp),
    /// Remove a dead runner's job.
    Purge(Purge),
    /// Remove what belongs to no runner any more.
    RemoveOrphan(RemoveOrphan),
}

/// Start a runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// For this repository.
    pub repository: Repository,
    /// Its class; `None`: the top level of the configuration.
    pub class: Option<String>,
    /// With these labels.
    pub labels: Labels,
    /// For this GitHub job.
    pub job_id: JobId,
    /// 1, 2, … for the job.
    pub attempt: u32,
    /// The Nomad job's ID and the runner's name.
    pub name: String,
    /// A line on the scheduler's state, for templates (`RUN.INFO`).
    pub info: String,
    /// Why.
    pub reason: StartReason,
}

/// Why a runner is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartReason {
    /// The group has fewer runners than queued jobs.
    Missing {
        /// Queued jobs of the group.
        demand: usize,
        /// Runners that can take them.
        supply: usize,
    },
}

/// Give a runner that has an allocation, no task started and no variable its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssueCredentials {
    /// The runner.
    pub name: String,
    /// Its repository.
    pub repository: Repository,
    /// Its class; `None`: the top level of the configuration.
    pub class: Option<String>,
    /// The full set: GitHub adds none (contract github.md §2).
    pub labels: Labels,
    /// What kind of secret.
    pub registration: Registration,
}

/// Let a runner go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// The runner.
    pub name: String,
    /// Its repository.
    pub repository: Repository,
    /// Its class; `None`: the top level of the configuration.
    pub class: Option<String>,
    /// Whose consent it takes.
    pub consent: Consent,
    /// How it registers.
    pub registration: Registration,
    /// Why.
    pub reason: StopReason,
}

/// Whose consent a Stop takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Consent {
    /// Its task never started: the registration is deleted, the allocation read once more.
    NeverStarted,
    /// It started: only after GitHub's 204 to the deletion of its registration.
    GitHub,
    /// It started, and is known not to be connected: nobody can give it a job. A registration that is still there is
    /// deleted first, and GitHub decides.
    Unregistered,
}

/// Why a runner is let go.
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
        /// For how long it has been absent.
        absent: Duration,
    },
    /// Idle and needed by no job, while something else waits for room.
    MakeRoom {
        /// The runner or the job that waits.
        waits: String,
    },
    /// It makes no progress: unplaced for long, without credentials, or given no job. Another group's job or runner waits.
    Yield {
        /// The runner or the job that waits.
        waits: String,
        /// What it does instead of a job, for people.
        but: &'static str,
    },
    /// An earlier allocation has used its configuration: no other one can.
    Spent,
    /// Its task did not start within `scheduler.starting_timeout`: another node may do better.
    NotStarting {
        /// For how long it has had all it needs.
        starting: Duration,
        /// What Nomad said last of its task.
        event: Option<String>,
    },
    /// Its repository is gone, and it never started or its organization can say whether it is busy.
    RepositoryGone,
    /// Somebody asked for it on the command line.
    Asked,
}

/// Ask GitHub for a runner by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyRegistration {
    /// The runner.
    pub name: String,
    /// Its repository.
    pub repository: Repository,
    /// Its class; `None`: the top level of the configuration.
    pub class: Option<String>,
}

/// Remove a dead runner's registration, if it is still listed, then its variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CleanUp {
    /// The runner.
    pub name: String,
    /// Where it was registered; `None` when the repository is not known any more.
    pub repository: Option<Repository>,
    /// Its class; `None`: the top level of the configuration.
    pub class: Option<String>,
    /// How it ended, for people.
    pub finish: String,
}

/// Remove a dead runner's job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purge {
    /// The runner.
    pub name: String,
    /// Where a registration may be left: only where no variable told of it (access_token).
    pub repository: Option<Repository>,
    /// Its class; `None`: the top level of the configuration.
    pub class: Option<String>,
    /// Why now.
    pub reason: PurgeReason,
}

/// Why a job is purged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PurgeReason {
    /// Dead for longer than its timeout.
    Expired {
        /// How it ended, for people.
        finish: String,
        /// For how long it has been dead.
        dead: Duration,
    },
    /// Somebody asked for it on the command line.
    Asked,
}

/// Remove what belongs to no runner any more: after a crash, a purge by somebody else, an agent that
/// restarted empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoveOrphan {
    /// What it is.
    pub orphan: Orphan,
    /// Where it is registered; `None` for a variable.
    pub repository: Option<Repository>,
    /// For how long it has been seen so.
    pub seen: Duration,
}

/// Something of ours, by name, without the runner it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Orphan {
    /// A variable `nomad/jobs/NAME` without a job.
    Variable {
        /// The name.
        name: String,
    },
    /// A registration at GitHub, offline, without a live runner.
    Registration {
        /// The name.
        name: String,
    },
}

impl Orphan {
    /// The name of the runner it belonged to.
    pub fn name(&self) -> &str {
        match self {
            Orphan::Variable { name } | Orphan::Registration { name } => name,
        }
    }
}

/// A failure that is not to be repeated at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// How often in a row.
    pub failures: u32,
    /// Not before this.
    pub until: Moment,
    /// What happened.
    pub error: String,
}

/// Something that is deliberately not done.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hold {
    /// What it is about.
    pub subject: Subject,
    /// Why.
    pub reason: HoldReason,
}

/// What a Hold is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// All of it.
    Nomad,
    /// A repository.
    Repository {
        /// `owner/name`.
        name: String,
    },
    /// A GitHub job.
    Job {
        /// `owner/name`.
        repository: String,
        /// GitHub's ID.
        id: JobId,
        /// Its labels, made harmless for a terminal.
        labels: String,
    },
    /// A runner.
    Runner {
        /// Its name.
        name: String,
    },
}

/// Why something is not done.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HoldReason {
    /// Nomad, its namespace or the deployment could not be read.
    NomadUnseen,
    /// The repository could not be listed in this pass.
    NotListed {
        /// Why.
        why: String,
    },
    /// GitHub says the repository is not there.
    RepositoryGone {
        /// For how long.
        since: Duration,
    },
    /// The repository takes no jobs.
    Archived,
    /// The configuration does not name the repository any more.
    NotConfigured,
    /// The listing is incomplete: no Stop.
    Incomplete {
        /// Why.
        why: String,
    },
    /// The job wants no runner now: waiting, pending or requested.
    NotQueued {
        /// GitHub's word.
        status: &'static str,
    },
    /// Its class says that such jobs get no runner.
    Denied {
        /// The class.
        class: String,
        /// What the class says.
        why: String,
    },
    /// No class matches it, and `classes_only` is set.
    NoClass,
    /// The labels may not be rendered.
    BadLabels {
        /// Which and why.
        why: String,
    },
    /// Earlier attempts are alive and none of them takes it: there are never more at once.
    LiveAttempts {
        /// How many.
        count: usize,
    },
    /// The previous attempt died a short while ago, or is alive and takes no job.
    Attempts {
        /// The next one's number.
        attempt: u32,
        /// How long it still waits.
        wait: Duration,
    },
    /// The group's last Start failed.
    StartFailed {
        /// What happened.
        error: String,
        /// How long it still waits.
        wait: Duration,
    },
    /// A cap is reached.
    Cap {
        /// Which.
        cap: Cap,
        /// How many are allowed.
        limit: usize,
    },
    /// A runner of nomadtools is to take it.
    LeftToNomadtools {
        /// Its name.
        runner: String,
    },
    /// The group lets a runner go in this very plan.
    GroupStops,
    /// Nomad does not place it.
    Unplaced {
        /// Why.
        why: String,
    },
    /// Its node is disconnected.
    Disconnected,
    /// What Nomad says of its tasks is too large to be read: it is taken for one that has started.
    TasksUnread,
    /// A job that says it is ours and is not: nothing is done with it.
    Foreign {
        /// What tells.
        reason: ForeignReason,
    },
    /// Surplus, but seen so in one listing only.
    SurplusOnce,
    /// Surplus, but not idle for long enough.
    Idle {
        /// For how long it is idle.
        idle: Duration,
        /// When it may go; `None`: never, the timeout is off.
        timeout: Option<Duration>,
    },
    /// An action on it failed.
    ActionFailed {
        /// What happened.
        error: String,
        /// How long it still waits.
        wait: Duration,
    },
    /// It was placed and has no credentials for longer than `scheduler.waiting_timeout`.
    NoCredentials {
        /// For how long it has been placed.
        waiting: Duration,
        /// What was answered last, if this process has asked.
        error: Option<String>,
    },
    /// It has all it needs, and its task does not start.
    NotStarting {
        /// For how long it has been placed.
        starting: Duration,
        /// What Nomad said last of its task.
        event: Option<String>,
    },
    /// It is idle for longer than `scheduler.unassigned_timeout`, and a job for it is queued for as long.
    Unassigned {
        /// For how long it has been idle.
        idle: Duration,
        /// Whether GitHub has said that it is connected.
        online: bool,
    },
    /// GitHub does not list it as connected: it counts as no supply.
    Unregistered {
        /// For how long.
        absent: Duration,
    },
    /// Dead, but it is the newest attempt for a job that is still queued.
    CountsAttempts,
    /// Dead, but its repository has not been seen since: its job may still be queued.
    JobUnknown,
    /// Its variable goes first.
    VariableFirst,
}

/// The caps, all counting runners that are not dead.
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
    /// The word for what it does.
    pub fn kind(&self) -> &'static str {
        match self {
            Action::Start(_) => "start",
            Action::IssueCredentials(_) => "issue_credentials",
            Action::Stop(_) => "stop",
            Action::VerifyRegistration(_) => "verify_registration",
            Action::CleanUp(_) => "clean_up",
            Action::Purge(_) => "purge",
            Action::RemoveOrphan(_) => "remove_orphan",
        }
    }

    /// The word for why, for metrics: one of few.
    pub fn reason(&self) -> &'static str {
        match self {
            Action::Start(Start { reason: StartReason::Missing { .. }, .. }) => "missing",
            Action::IssueCredentials(action) => match action.registration {
                Registration::Jit => "jit",
                Registration::Token => "token",
                Registration::AccessToken => "access_token",
            },
            Action::Stop(action) => match action.reason {
                StopReason::Surplus { .. } => "surplus",
                StopReason::Unregistered { .. } => "unregistered",
                StopReason::MakeRoom { .. } => "make_room",
                StopReason::Yield { .. } => "yield",
                StopReason::Spent => "spent",
                StopReason::NotStarting { .. } => "not_starting",
                StopReason::RepositoryGone => "repository_gone",
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
        }
    }

    /// Whether GitHub is asked for it; otherwise Nomad alone.
    pub fn needs_github(&self) -> bool {
        match self {
            Action::Start(_) => false,
            Action::IssueCredentials(action) => action.registration != Registration::AccessToken,
            Action::Stop(_) | Action::VerifyRegistration(_) => true,
            Action::CleanUp(action) => action.repository.is_some(),
            Action::Purge(action) => action.repository.is_some(),
            Action::RemoveOrphan(action) => matches!(action.orphan, Orphan::Registration { .. }),
        }
    }

    /// The repository it is about; `None` where that is not known.
    pub fn repository(&self) -> Option<&Repository> {
        match self {
            Action::Start(action) => Some(&action.repository),
            Action::IssueCredentials(action) => Some(&action.repository),
            Action::Stop(action) => Some(&action.repository),
            Action::VerifyRegistration(action) => Some(&action.repository),
            Action::CleanUp(action) => action.repository.as_ref(),
            Action::Purge(action) => action.repository.as_ref(),
            Action::RemoveOrphan(action) => action.repository.as_ref(),
        }
    }

    /// The runner it is about.
    pub fn runner(&self) -> &str {
        match self {
            Action::Start(action) => &action.name,
            Action::IssueCredentials(action) => &action.name,
            Action::Stop(action) => &action.name,
            Action::VerifyRegistration(action) => &action.name,
            Action::CleanUp(action) => &action.name,
            Action::Purge(action) => &action.name,
            Action::RemoveOrphan(action) => action.orphan.name(),
        }
    }
}

impl Start {
    /// The group it belongs to.
    pub fn group(&self) -> GroupKey {
        GroupKey { repository: self.repository.id, labels: self.labels.clone() }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let f = &mut Escaped::line(f);
        match self {
            Action::Start(Start { repository, class, labels, job_id, attempt, name, reason, .. }) => {
                let repository = repository.full_name();
                write!(f, "start    {name}  {repository} [{labels}] for job {job_id}, attempt {attempt}")?;
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
                write!(f, "verify   {name}  idle while a job waits: verifying its registration")
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
        }
    }
}

impl fmt::Display for StartReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartReason::Missing { demand, supply } => write!(f, "{demand} queued, {supply} available"),
        }
    }
}

impl fmt::Display for Consent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Consent::NeverStarted => "its task is not running",
            Consent::GitHub => "after GitHub removes its registration",
            Consent::Unregistered => "GitHub cannot assign it a job",
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
            StopReason::Spent => f.write_str("an earlier allocation used its credentials"),
            StopReason::NotStarting { starting, event } => not_started(f, *starting, event.as_deref()),
            StopReason::RepositoryGone => f.write_str("its repository is gone"),
            StopReason::Asked => f.write_str("requested on the command line"),
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
            Subject::Runner { name } => f.write_str(name),
        }
    }
}

impl Subject {
    /// The word for what it is.
    pub fn kind(&self) -> &'static str {
        match self {
            Subject::Nomad => "nomad",
            Subject::Repository { .. } => "repository",
            Subject::Job { .. } => "job",
            Subject::Runner { .. } => "runner",
        }
    }
}

impl HoldReason {
    /// The word for it, for metrics: one of few.
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
            HoldReason::LeftToNomadtools { .. } => "left_to_nomadtools",
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
            HoldReason::CountsAttempts => "counts_attempts",
            HoldReason::JobUnknown => "job_unknown",
            HoldReason::VariableFirst => "variable_first",
        }
    }

    /// Whether somebody should look: it lasts, and does not mend by itself.
    pub fn is_warning(&self) -> bool {
        use HoldReason::{NoCredentials, NotStarting, Unassigned, Unregistered};
        matches!(self, NoCredentials { .. } | NotStarting { .. } | Unassigned { .. } | Unregistered { .. })
    }

    /// Whether almost every runner is held so for a moment: worth a word in a plan, not a line in the log.
    pub fn is_routine(&self) -> bool {
        use HoldReason::{JobUnknown, NoCredentials, SurplusOnce, VariableFirst};
        matches!(self, SurplusOnce | VariableFirst | JobUnknown | NoCredentials { error: None, .. })
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
            HoldReason::Archived => f.write_str("archived or disabled: it gets no runners"),
            HoldReason::NotConfigured => f.write_str("no longer configured: it gets no runners"),
            HoldReason::Incomplete { why } => write!(f, "the listing is incomplete, so nothing stops: {why}"),
            HoldReason::NotQueued { status } => write!(f, "{status}: it needs no runner yet"),
            HoldReason::Denied { class, why } => write!(f, "class {class} denies it: {why}"),
            HoldReason::NoClass => f.write_str("no class matches it, and classes_only is set"),
            HoldReason::BadLabels { why } => write!(f, "labels: {why}"),
            HoldReason::LiveAttempts { count } => {
                write!(
                    f,
                    "{count} attempts are alive and none takes it: the next one starts after one of them ends"
                )
            }
            HoldReason::Attempts { attempt, wait } => {
                write!(f, "attempt {attempt} starts in {}", span(*wait))
            }
            HoldReason::StartFailed { error, wait } => write!(f, "retrying in {}: {error}", span(*wait)),
            HoldReason::Cap { cap, limit } => write!(f, "waits for a place: {cap} is {limit}"),
            HoldReason::LeftToNomadtools { runner } => {
                write!(f, "left to {runner}, a job of nomadtools; stop that job if it never takes one")
            }
            HoldReason::GroupStops => {
                f.write_str("a runner of its group stops in this pass: it starts in the next one")
            }
            HoldReason::Unplaced { why } => write!(f, "Nomad cannot place it: {why}"),
            HoldReason::Disconnected => f.write_str("node disconnected (client status unknown)"),
            HoldReason::TasksUnread => f.write_str(
                "what Nomad says of its tasks is too large to be read: it is taken for a running one",
            ),
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
                write!(f, "not connected to GitHub for {}: it does not count as supply", span(*absent))
            }
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

/// A duration for people: `1d2h`, `3m5s`, `0s`; at most two units.
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
