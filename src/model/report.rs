//! What became of an action.

use std::fmt::{self, Write};

use super::Action;
use crate::text::Escaped;

/// What became of an action.
#[derive(Clone, Debug)]
pub struct Report {
    /// The action.
    pub action: Action,
    /// Its outcome.
    pub outcome: Outcome,
}

/// What became of an action.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Done.
    Done,
    /// There was nothing to do any more: somebody else, or an earlier attempt of ours, was faster.
    AlreadyDone,
    /// The runner is registered at GitHub and connected.
    Present,
    /// The runner is not registered at GitHub, or not connected.
    Absent,
    /// Not done, with a reason that may pass: busy, online, no right.
    Held(String),
    /// Failed in a way that trying again may mend.
    Failed(String),
    /// Failed for a reason that lies in the template, the labels or the configuration.
    Rejected(String),
    /// Dry run: nothing was performed.
    DryRun,
}

impl Outcome {
    /// The word for it, without what happened.
    pub fn kind(&self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::AlreadyDone => "already_done",
            Outcome::Present => "present",
            Outcome::Absent => "absent",
            Outcome::Held(_) => "held",
            Outcome::Failed(_) => "failed",
            Outcome::Rejected(_) => "rejected",
            Outcome::DryRun => "dry_run",
        }
    }

    /// Whether `once` must say that something failed.
    pub fn is_failure(&self) -> bool {
        matches!(self, Outcome::Failed(_) | Outcome::Rejected(_))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let f = &mut Escaped::line(f);
        match self {
            Outcome::Done => f.write_str("done"),
            Outcome::AlreadyDone => f.write_str("already done"),
            Outcome::Present => f.write_str("connected to GitHub"),
            Outcome::Absent => f.write_str("not connected to GitHub"),
            Outcome::Held(why) => write!(f, "skipped: {why}"),
            Outcome::Failed(error) => write!(f, "failed: {error}"),
            Outcome::Rejected(error) => write!(f, "rejected: {error}"),
            Outcome::DryRun => f.write_str("dry run"),
        }
    }
}
