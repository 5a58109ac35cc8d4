//! Actions: what to do.

use std::{
    fmt::{self, Write},
    time::Duration,
};

use jiff::Timestamp;

use super::{
    Consent, EndedJob, GroupKey, JobFacts, Labels, Loss, Namespace, PurgeReason, Purpose, Registration,
    Repository, RepositoryRef, RerunMark, RunnerVariable, StartReason, StopReason, naming::last_part, span,
};
use crate::text::Escaped;

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
    /// `None`: the daemon's own.
    pub namespace: Option<Namespace>,
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

/// Give credentials to a runner that has an allocation, no started task and no variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssueCredentials {
    pub name: String,
    /// `None`: the daemon's own.
    pub namespace: Option<Namespace>,
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
    /// `None`: the daemon's own.
    pub namespace: Option<Namespace>,
    /// `None` if its Meta names none: then it is not stopped.
    pub repository: Option<RepositoryRef>,
    /// `None`: the top level of the configuration.
    pub class: Option<String>,
    /// Whose consent it takes.
    pub consent: Consent,
    pub registration: Registration,
    pub reason: StopReason,
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
    /// `None`: the daemon's own.
    pub namespace: Option<Namespace>,
    /// Where it was registered; `None` if the repository is no longer known.
    pub repository: Option<RepositoryRef>,
    /// `None`: the top level of the configuration.
    pub class: Option<String>,
    /// How it ended, for display.
    pub finish: String,
}

/// Remove a dead runner's job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purge {
    pub name: String,
    /// `None`: the daemon's own.
    pub namespace: Option<Namespace>,
    /// Where a registration may be left. Only for runners without a variable (access_token), because a
    /// clean-up handles the others.
    pub repository: Option<RepositoryRef>,
    /// `None`: the top level of the configuration.
    pub class: Option<String>,
    pub reason: PurgeReason,
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
    /// `None`: the daemon's own.
    pub namespace: Option<Namespace>,
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
    Variable(RunnerVariable),
    /// An offline registration at GitHub without a live runner.
    Registration { name: String },
}

impl Orphan {
    /// The name of the runner it belonged to.
    pub fn name(&self) -> &str {
        match self {
            Orphan::Variable(RunnerVariable { name, .. }) | Orphan::Registration { name } => name,
        }
    }
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
                StopReason::NodeDrains { .. } => "node_drains",
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
                Orphan::Variable(_) => "variable",
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
    pub fn repository(&self) -> Option<String> {
        let named = |repository: &Repository| Some(repository.full_name());
        match self {
            Action::Start(action) => named(&action.repository),
            Action::IssueCredentials(action) => named(&action.repository),
            Action::Stop(action) => Some(action.repository.as_ref()?.full_name()),
            Action::VerifyRegistration(action) => named(&action.repository),
            Action::CleanUp(action) => Some(action.repository.as_ref()?.full_name()),
            Action::Purge(action) => Some(action.repository.as_ref()?.full_name()),
            Action::RemoveOrphan(action) => named(action.repository.as_ref()?),
            Action::Rerun(action) => named(&action.repository),
        }
    }

    /// Where its requests to Nomad go; `None`: the daemon's own.
    pub fn namespace(&self) -> Option<&Namespace> {
        match self {
            Action::Start(action) => action.namespace.as_ref(),
            Action::IssueCredentials(action) => action.namespace.as_ref(),
            Action::Stop(action) => action.namespace.as_ref(),
            Action::VerifyRegistration(_) => None,
            Action::CleanUp(action) => action.namespace.as_ref(),
            Action::Purge(action) => action.namespace.as_ref(),
            Action::RemoveOrphan(action) => match &action.orphan {
                Orphan::Variable(variable) => variable.namespace.as_ref(),
                Orphan::Registration { .. } => None,
            },
            Action::Rerun(action) => action.namespace.as_ref(),
        }
    }

    /// The name of the runner that it is about.
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
                    Orphan::Variable(_) => ("variable", "a job"),
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
