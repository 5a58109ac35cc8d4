//! Holds: what is deliberately not done, and why.

use std::{
    fmt::{self, Write},
    time::Duration,
};

use jiff::Timestamp;

use super::{ForeignReason, JobId, Loss, RerunLimit, RunId, reason::not_started, span};
use crate::text::Escaped;

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
    /// The namespace of its class or runner could not be read, but others could.
    NamespaceUnseen {
        /// For display.
        namespace: String,
        /// What Nomad answered.
        why: String,
    },
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
        /// How the previous attempt ended; `None` if it is alive.
        ended: Option<String>,
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
            HoldReason::NamespaceUnseen { .. } => "namespace_unseen",
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
        use HoldReason::{
            MaxRunDuration, NamespaceUnseen, NoCredentials, NotStarting, RerunLimit, Unassigned, Unregistered,
        };
        matches!(
            self,
            NamespaceUnseen { .. }
                | NoCredentials { .. }
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
    #[allow(clippy::too_many_lines)] // A table: one row for each reason.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let f = &mut Escaped::line(f);
        match self {
            HoldReason::NomadUnseen => f.write_str("Nomad unreachable: skipping this pass"),
            HoldReason::NamespaceUnseen { namespace, why } => {
                write!(
                    f,
                    "the Nomad namespace {namespace} could not be read, so nothing starts or stops there: {why}"
                )
            }
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
            HoldReason::Attempts { attempt, wait, ended } => {
                write!(f, "attempt {attempt} starts in {}", span(*wait))?;
                ended.iter().try_for_each(|ended| write!(f, "; the last one ended: {ended}"))
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
