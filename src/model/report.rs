//! The outcomes of actions.

use std::fmt::{self, Write};

use super::Action;
use crate::text::Escaped;

/// Something that a pass could not observe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unobserved {
    /// A repository, an entry of `repos`, `GitHub`, or `Nomad`.
    pub subject: String,
    /// The kind of error, in one word. For each subject and kind, the error is logged once, even if its times and
    /// numbers change.
    pub kind: &'static str,
    /// The whole line.
    pub text: String,
}

impl fmt::Display for Unobserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[derive(Clone, Debug)]
pub struct Report {
    pub action: Action,
    pub outcome: Outcome,
}

/// The outcome of an action.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The action is done.
    Done(Done),
    /// The action is not done, for this reason.
    NotDone(NotDone),
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// The action was performed.
    Performed,
    /// There was nothing left to do: someone else, or an earlier attempt of ours, was faster.
    Already,
    /// GitHub says that the runner is registered and connected.
    Connected,
    /// GitHub says that the runner is not registered, or not connected.
    NotConnected,
}

/// Why an action was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotDone {
    /// The runner is connected to GitHub, contrary to what was planned.
    StillConnected,
    /// GitHub lists no runner with this name, so it may be busy.
    NotListed,
    /// A reason that may pass: busy, online, a missing right.
    Held(String),
    /// It failed, and a retry may help.
    Failed(String),
    /// It failed because of the template, the labels or the configuration.
    Rejected(String),
    /// The repository is public, and the job would give its tasks access to the host that they run on.
    ReachesHost(String),
    /// The runner was not lost with a job that may be run again, and this will not change.
    NotLost(String),
    /// Dry run: nothing was performed.
    DryRun,
}

impl From<Result<Done, NotDone>> for Outcome {
    fn from(result: Result<Done, NotDone>) -> Outcome {
        result.map_or_else(Outcome::NotDone, Outcome::Done)
    }
}

impl Outcome {
    /// The name of the outcome, without details.
    pub fn kind(&self) -> &'static str {
        match self {
            Outcome::Done(Done::Performed) => "done",
            Outcome::Done(Done::Already) => "already_done",
            Outcome::Done(Done::Connected) | Outcome::NotDone(NotDone::StillConnected) => "present",
            Outcome::Done(Done::NotConnected) | Outcome::NotDone(NotDone::NotListed) => "absent",
            Outcome::NotDone(NotDone::Held(_) | NotDone::NotLost(_)) => "held",
            Outcome::NotDone(NotDone::Failed(_)) => "failed",
            Outcome::NotDone(NotDone::Rejected(_) | NotDone::ReachesHost(_)) => "rejected",
            Outcome::NotDone(NotDone::DryRun) => "dry_run",
        }
    }

    /// Whether `once` must report a failure.
    pub fn is_failure(&self) -> bool {
        use NotDone::{Failed, ReachesHost, Rejected};
        matches!(self, Outcome::NotDone(Failed(_) | Rejected(_) | ReachesHost(_)))
    }

    pub fn is_dry_run(&self) -> bool {
        matches!(self, Outcome::NotDone(NotDone::DryRun))
    }

    /// The error or the reason, if the outcome has one.
    pub fn error(&self) -> Option<&str> {
        match self {
            Outcome::NotDone(
                NotDone::Held(text)
                | NotDone::NotLost(text)
                | NotDone::Failed(text)
                | NotDone::Rejected(text)
                | NotDone::ReachesHost(text),
            ) => Some(text),
            _ => None,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Done(Done::Performed) => f.write_str("done"),
            Outcome::Done(Done::Already) => f.write_str("already done"),
            Outcome::Done(Done::Connected) => f.write_str("connected to GitHub"),
            Outcome::Done(Done::NotConnected) => f.write_str("not connected to GitHub"),
            Outcome::NotDone(why) => why.fmt(f),
        }
    }
}

impl fmt::Display for NotDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let f = &mut Escaped::line(f);
        match self {
            NotDone::StillConnected => f.write_str("connected to GitHub"),
            NotDone::NotListed => f.write_str("not connected to GitHub"),
            NotDone::Held(why) | NotDone::NotLost(why) => write!(f, "skipped: {why}"),
            NotDone::Failed(error) => write!(f, "failed: {error}"),
            NotDone::Rejected(error) | NotDone::ReachesHost(error) => write!(f, "rejected: {error}"),
            NotDone::DryRun => f.write_str("dry run"),
        }
    }
}
