//! What each reason of the planner means for somebody on call: which step it holds, and what to do. The rules are the
//! planner's; here are words alone.

use serde::Serialize;

use crate::model::{HoldReason, JobStatus, RunnerState};

/// The steps on a job's way to its runner, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Nomad can be seen.
    Nomad,
    /// The repository is listed, and gets runners.
    Repository,
    /// GitHub's status of the job.
    Status,
    /// `runson_match`.
    Match,
    /// The rules for labels.
    Labels,
    /// Whose turn it is, and how often it was tried.
    Attempts,
    /// The caps.
    Caps,
    /// The Nomad job.
    Registration,
    /// Nomad's decision where it runs.
    Evaluation,
    /// The allocation.
    Placement,
    /// What it registers with at GitHub.
    Credentials,
    /// Its process.
    Task,
    /// GitHub sees it and gives it a job.
    Connection,
    /// What becomes of it when it is not needed any more.
    End,
}

impl Step {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Step::Nomad => "nomad",
            Step::Repository => "repository",
            Step::Status => "status",
            Step::Match => "match",
            Step::Labels => "labels",
            Step::Attempts => "attempts",
            Step::Caps => "caps",
            Step::Registration => "registration",
            Step::Evaluation => "evaluation",
            Step::Placement => "placement",
            Step::Credentials => "credentials",
            Step::Task => "task",
            Step::Connection => "connection",
            Step::End => "end",
        }
    }
}

/// How a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// It is done.
    Done,
    /// It is under way.
    Now,
    /// It holds what is asked about.
    Held,
    /// Worth knowing; holds nothing.
    Note,
}

/// What a reason means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// The step it stands at.
    pub step: Step,
    /// Whether it holds.
    pub mark: Mark,
    /// What to do.
    pub advice: String,
}

/// What a reason means; `state` is that of the runner which it is about, if it is about one.
pub fn meaning(reason: &HoldReason, state: Option<RunnerState>) -> Meaning {
    use Mark::{Held, Note, Now};
    let (step, mark, advice) = match reason {
        HoldReason::NomadUnseen => (
            Step::Nomad,
            Held,
            "check NOMAD_ADDR, NOMAD_TOKEN and `nomad server members`; `githubrunner check` tries each right".to_owned(),
        ),
        HoldReason::NotListed { .. } => (
            Step::Repository,
            Held,
            "`githubrunner check` asks GitHub and says which right is missing; an outage or a rate limit passes by itself"
                .to_owned(),
        ),
        HoldReason::RepositoryGone { .. } => (
            Step::Repository,
            Held,
            "if the repository exists, give the token or the App's installation access to it; otherwise remove it from \
             `repos`"
                .to_owned(),
        ),
        HoldReason::Archived => {
            (Step::Repository, Held, "unarchive the repository at GitHub; an archived one gets no runners".to_owned())
        }
        HoldReason::NotConfigured => {
            (Step::Repository, Held, "add the repository or its owner to `repos`, then send SIGHUP".to_owned())
        }
        HoldReason::Incomplete { .. } => (
            Step::Repository,
            Note,
            "nothing: jobs that were seen get runners, and nothing stops until a whole list was read".to_owned(),
        ),
        HoldReason::NotQueued { status } => (
            Step::Status,
            Held,
            match *status {
                word if word == JobStatus::Waiting.as_str() => {
                    "approve the deployment on the run's page: the environment's protection rules hold the job"
                }
                word if word == JobStatus::Pending.as_str() => {
                    "the workflow's concurrency group holds the job: wait for the other run, or cancel it"
                }
                _ => "wait: GitHub has not queued the job yet",
            }
            .to_owned(),
        ),
        HoldReason::Denied { .. } => (
            Step::Match,
            Held,
            "ask whoever keeps the configuration; `match` and `deny` of the class say which jobs it holds".to_owned(),
        ),
        HoldReason::NoClass => (
            Step::Match,
            Held,
            "change `runs-on` in the workflow to what a class matches, or add a class for it".to_owned(),
        ),
        HoldReason::BadLabels { .. } => (
            Step::Labels,
            Held,
            "change `runs-on` in the workflow; if such labels are meant, see runson_match, runson_allowed, \
             runson_max_length and runson_limits"
                .to_owned(),
        ),
        HoldReason::LiveAttempts { .. } => (
            Step::Attempts,
            Held,
            "see why none of them takes the job: `githubrunner explain` and `githubrunner logs` with the IDs that \
             `githubrunner list` shows; `githubrunner stop ID` lets one go"
                .to_owned(),
        ),
        HoldReason::Attempts { .. } => (
            Step::Attempts,
            Held,
            "the next one starts by itself; `githubrunner list -a` and `githubrunner logs ID` say why the last one ended"
                .to_owned(),
        ),
        HoldReason::StartFailed { .. } => (
            Step::Registration,
            Held,
            "mend what Nomad refuses: `githubrunner check` and `githubrunner render --parse LABEL` show it".to_owned(),
        ),
        HoldReason::Cap { cap, .. } => (
            Step::Caps,
            Held,
            format!("wait for a runner to end, or raise {cap}; `githubrunner list` shows who has the places"),
        ),
        HoldReason::Turn { .. } => (
            Step::Caps,
            Now,
            "nothing: places go to the repository with the fewest runners first, and the other one is looked at now".to_owned(),
        ),
        HoldReason::LeftToNomadtools { runner } => (
            Step::Attempts,
            Held,
            format!("if that runner takes no jobs: nomad job stop {runner}. The job then gets a runner of its own"),
        ),
        HoldReason::GroupStops => {
            (Step::Attempts, Now, "nothing: the next pass starts one".to_owned())
        }
        HoldReason::Unplaced { .. } => (
            Step::Evaluation,
            Held,
            "nodes that are exhausted: wait, add nodes or ask for less; nodes that are excluded: mend datacenters, node \
             pool, constraints or driver in the template. `nomad job status ID` says the same"
                .to_owned(),
        ),
        HoldReason::Disconnected => (
            Step::Task,
            Held,
            "bring the node back (`nomad node status`); to give the runner up: nomad job stop ID".to_owned(),
        ),
        HoldReason::Foreign { .. } => (
            Step::Registration,
            Held,
            "find out who registered it; it gets no secret and is never touched. To remove it: nomad job stop -purge ID"
                .to_owned(),
        ),
        HoldReason::SurplusOnce => (Step::End, Note, "nothing: no job needs it".to_owned()),
        HoldReason::Idle { .. } => (
            Step::End,
            Note,
            "nothing: it waits for the next job; scheduler.runner_inactivity_timeout and scheduler.strict say for how long"
                .to_owned(),
        ),
        HoldReason::ActionFailed { .. } => (
            if state == Some(RunnerState::Waiting) { Step::Credentials } else { Step::End },
            Held,
            "it is tried again by itself; `githubrunner check` says which right is missing, if one is".to_owned(),
        ),
        HoldReason::NoCredentials { .. } => (
            Step::Credentials,
            Held,
            "see whether the daemon runs, and what its log says; `githubrunner check` tries to register a runner at GitHub"
                .to_owned(),
        ),
        HoldReason::TasksUnread => (
            Step::Task,
            Note,
            "look at the allocation's events with `nomad alloc status`: a driver or a template writes errors without end"
                .to_owned(),
        ),
        HoldReason::NotStarting { .. } => (
            Step::Task,
            Held,
            "look at the last event: an image that cannot be pulled, a variable that nobody wrote, a driver. \
             `nomad job status ID` leads to the allocation"
                .to_owned(),
        ),
        HoldReason::Unassigned { .. } => (
            Step::Connection,
            Held,
            "see whether the runner group lets the repository in, and whether the runner has all labels of the job, at \
             GitHub under Settings, Actions, Runners"
                .to_owned(),
        ),
        HoldReason::Unregistered { .. } => (
            Step::Connection,
            Held,
            "see whether the node reaches GitHub: `githubrunner logs ID`".to_owned(),
        ),
        HoldReason::MaxRunDuration { .. } => (
            Step::End,
            Note,
            "if the job needs longer, raise max_run_duration of its class or of the scheduler, then send SIGHUP; where Nomad \
             itself enforces the limit, that helps new runners alone"
                .to_owned(),
        ),
        HoldReason::LostJobRuns { .. } => (
            Step::End,
            Note,
            "nothing: GitHub notices ten minutes after it last heard of the runner".to_owned(),
        ),
        HoldReason::RunGoesOn { .. } => {
            (Step::End, Note, "nothing: it happens by itself when the run's other jobs are over".to_owned())
        }
        HoldReason::RerunLimit { .. } => (
            Step::End,
            Note,
            "run the job again on its page at GitHub; rerun_lost.per_job and rerun_lost.per_hour say how often it is done by itself"
                .to_owned(),
        ),
        HoldReason::CountsAttempts | HoldReason::JobUnknown => (
            Step::End,
            Note,
            "nothing: it is kept to count attempts, and goes when its job is over".to_owned(),
        ),
        HoldReason::VariableFirst => (Step::End, Note, "nothing: the next pass removes its variable".to_owned()),
    };
    Meaning { step, mark, advice }
}
