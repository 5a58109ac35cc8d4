//! Jobs that were lost with their runners, and their re-runs.

use std::{fmt, time::Duration};

use jiff::Timestamp;
use serde::Serialize;

use super::{JobId, RunId};

/// How a runner was lost through no fault of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// Its node went down.
    Node,
    /// Its node was drained, and the drain's deadline had passed.
    Drain,
    /// A job of a higher priority took its place.
    Preemption,
    /// It was killed by the OOM killer.
    Memory,
}

impl Loss {
    /// Its label in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Loss::Node => "node_lost",
            Loss::Drain => "node_drained",
            Loss::Preemption => "preempted",
            Loss::Memory => "out_of_memory",
        }
    }

    /// Whether the runner was told to stop and had time to report that to GitHub. Otherwise GitHub notices ten
    /// minutes later.
    pub fn tells_github(self) -> bool {
        matches!(self, Loss::Drain | Loss::Preemption)
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Loss::Node => "its node went down",
            Loss::Drain => "its node was drained",
            Loss::Preemption => "it was preempted",
            Loss::Memory => "it was killed for memory",
        })
    }
}

/// A runner's loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// How it was lost.
    pub loss: Loss,
    /// When the servers last heard of it. The loss happened no later.
    pub at: Timestamp,
}

/// How a job ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conclusion {
    /// It failed, and none of its steps did.
    Failure,
    /// A person or a newer run cancelled it, or its runner was told to stop; none of its steps had failed.
    Cancelled,
    /// Any other way, on its own.
    #[default]
    Other,
}

impl Conclusion {
    /// Parses GitHub's text.
    pub fn parse(text: Option<&str>) -> Self {
        match text {
            Some("failure") => Conclusion::Failure,
            Some("cancelled") => Conclusion::Cancelled,
            _ => Conclusion::Other,
        }
    }
}

/// A completed job, by GitHub's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedJob {
    /// GitHub's ID of the job.
    pub id: JobId,
    /// The run it belongs to.
    pub run_id: RunId,
    /// The attempt of the run.
    pub run_attempt: u32,
    /// The key that it shares with its re-runs within the run: see [`super::job_key`].
    pub key: String,
    /// How it ended.
    pub conclusion: Conclusion,
    /// The runner that had it.
    pub runner: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// When a runner took it.
    pub started_at: Timestamp,
    /// When it ended.
    pub completed_at: Timestamp,
}

/// The job of a lost runner, as reported by GitHub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The job.
    pub job: EndedJob,
    /// How long ago it ended, by GitHub's clock.
    pub ago: Duration,
}

/// Records that the job of a lost runner is or was run again, in a variable
/// `githubrunner/PREFIX/reruns/RUN-KEY-RUNNER`. There is one for each runner, which had one job. So a loss is handled
/// once, whatever ID GitHub gives the job in later attempts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RerunMark {
    /// The run.
    pub run_id: RunId,
    /// The key that the job shares with its re-runs.
    pub key: String,
    /// The last part of the runner's name, which is unique.
    pub runner: String,
    /// When it was written, by Nomad's clock.
    pub at: Timestamp,
}

impl RerunMark {
    /// The last part of the variable's path.
    pub fn name(&self) -> String {
        format!("{}-{}-{}", self.run_id, self.key, self.runner)
    }

    /// Parses the last part of a variable's path; `None` if it is something else.
    pub fn parse(name: &str, at: Timestamp) -> Option<Self> {
        let mut parts = name.split('-');
        let (run, key, runner) = (parts.next()?, parts.next()?, parts.next()?);
        let is_hash = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let (run_id, key, runner) = (RunId(run.parse().ok()?), key.to_owned(), runner.to_owned());
        let mark = RerunMark { run_id, key, runner, at };
        (is_hash(&mark.key) && is_hash(&mark.runner) && parts.next().is_none() && mark.name() == name)
            .then_some(mark)
    }
}

/// A limit for running lost jobs again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RerunLimit {
    /// `rerun_lost.per_job`
    Job(usize),
    /// `rerun_lost.per_hour`
    Hour(usize),
    /// GitHub's own, for each run.
    Run(u32),
}

impl fmt::Display for RerunLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RerunLimit::Job(limit) => write!(f, "rerun_lost.per_job is {limit}"),
            RerunLimit::Hour(limit) => write!(f, "rerun_lost.per_hour is {limit}"),
            RerunLimit::Run(limit) => write!(f, "GitHub runs a workflow run again {limit} times at most"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written_and_nothing_else_is_one() {
        let at = Timestamp::UNIX_EPOCH;
        let mark = RerunMark { run_id: RunId(7), key: "abc".to_owned(), runner: "r2".to_owned(), at };
        assert_eq!(RerunMark::parse(&mark.name(), at), Some(mark));
        for other in
            ["", "7", "7-abc", "7-abc-r2-3", "07-abc-r2", "x-abc-r2", "7-abc-", "7--r2", "7-abc-r2/x"]
        {
            assert_eq!(RerunMark::parse(other, at), None, "{other}");
        }
    }
}
