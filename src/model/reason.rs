//! Why runners are started, stopped and purged.

use std::{
    fmt::{self, Write},
    time::Duration,
};

use super::span;
use crate::text::Escaped;

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
    /// It has no job, and its node is being drained.
    NodeDrains {
        /// The node's name.
        node: String,
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
            StopReason::NodeDrains { node } => write!(f, "its node {node} is being drained"),
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
    pub(super) fn word(&self) -> &'static str {
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

pub(super) fn not_started(f: &mut impl Write, starting: Duration, event: Option<&str>) -> fmt::Result {
    write!(f, "its task has not started for {}", span(starting))?;
    event.map_or(Ok(()), |event| write!(f, ", last event: {event}"))
}
