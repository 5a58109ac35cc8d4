//! What each of the planner's reasons means to an operator: the step that it holds, and what to do. The rules are the
//! planner's; this file only has the texts.

use serde::Serialize;

use crate::model::{HoldReason, JobStatus, RunnerState};

/// The steps from a job to its runner, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Nomad can be reached.
    Nomad,
    /// The repository is listed, and gets runners.
    Repository,
    /// GitHub's status of the job.
    Status,
    /// `runson_match`.
    Match,
    /// The rules for labels.
    Labels,
    /// Turns, and earlier attempts.
    Attempts,
    /// The caps.
    Caps,
    /// The Nomad job is registered.
    Registration,
    /// Nomad's scheduling decision.
    Evaluation,
    /// The allocation.
    Placement,
    /// The credentials for GitHub.
    Credentials,
    /// The task.
    Task,
    /// GitHub sees the runner and gives it a job.
    Connection,
    /// What happens when it is no longer needed.
    End,
}

impl Step {
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

/// The state of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// Done.
    Done,
    /// In progress.
    Now,
    /// It holds the subject.
    Held,
    /// Worth knowing, but it holds nothing.
    Note,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// The step that it belongs to.
    pub step: Step,
    pub mark: Mark,
    /// What to do.
    pub advice: String,
}

/// What a reason means. `state` is the state of the runner that it is about, if any.
#[allow(clippy::too_many_lines)] // A table: one row for each reason.
pub fn meaning(reason: &HoldReason, state: Option<RunnerState>) -> Meaning {
    use Mark::{Held, Note, Now};
    let (step, mark, advice) = match reason {
        HoldReason::NomadUnseen => (
            Step::Nomad,
            Held,
            "check NOMAD_ADDR, NOMAD_TOKEN and `nomad server members`; `githubrunner check` tests each right".to_owned(),
        ),
        HoldReason::NamespaceUnseen { namespace, .. } => (
            Step::Nomad,
            Held,
            format!(
                "`githubrunner check` tests each right in the namespace {namespace}; other namespaces go on without it"
            ),
        ),
        HoldReason::NotListed { .. } => (
            Step::Repository,
            Held,
            "`githubrunner check` asks GitHub and says which right is missing; an outage or a rate limit resolves itself"
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
            "nothing: jobs that were seen get runners, and nothing stops until a complete listing was read".to_owned(),
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
            "ask the owner of the configuration; `match` and `deny` of the class determine which jobs it holds".to_owned(),
        ),
        HoldReason::NoClass => (
            Step::Match,
            Held,
            "change `runs-on` in the workflow so that a class matches, or add a class for the job".to_owned(),
        ),
        HoldReason::BadLabels { .. } => (
            Step::Labels,
            Held,
            "change `runs-on` in the workflow; if such labels are intended, see runson_match, runson_allowed, \
             runson_max_length and runson_limits"
                .to_owned(),
        ),
        HoldReason::ReachesHost { .. } => (
            Step::Registration,
            Held,
            "use a template that does not give its tasks access to the host, or set `public: allow` in the class or at the \
             top level; `githubrunner check` says which classes it concerns"
                .to_owned(),
        ),
        HoldReason::LiveAttempts { .. } => (
            Step::Attempts,
            Held,
            "find out why none of them takes the job: use `githubrunner explain` and `githubrunner logs` with the IDs that \
             `githubrunner list` shows; `githubrunner stop ID` stops one"
                .to_owned(),
        ),
        HoldReason::Attempts { .. } => (
            Step::Attempts,
            Held,
            "the next one starts automatically; `githubrunner list -a` and `githubrunner logs ID` say why the last one ended"
                .to_owned(),
        ),
        HoldReason::StartFailed { .. } => (
            Step::Registration,
            Held,
            "fix what Nomad refuses: `githubrunner check` and `githubrunner render --parse LABEL` show it".to_owned(),
        ),
        HoldReason::Cap { cap, .. } => (
            Step::Caps,
            Held,
            format!("wait for a runner to end, or raise {cap}; `githubrunner list` shows the runners that have the places"),
        ),
        HoldReason::Turn { .. } => (
            Step::Caps,
            Now,
            "nothing: the repository with the fewest runners goes first, and the other one is being polled now".to_owned(),
        ),
        HoldReason::LeftToNomadtools { runner } => (
            Step::Attempts,
            Held,
            format!("if that runner takes no jobs: nomad job stop {runner}. The job then gets its own runner"),
        ),
        HoldReason::LeftToWarm { .. } => (
            Step::Connection,
            Now,
            "nothing: GitHub gives a job to an idle runner within seconds; after a minute, the job gets its own runner".to_owned(),
        ),
        HoldReason::Unpolled { .. } => (Step::Repository, Now, "nothing: it is being polled".to_owned()),
        HoldReason::NoRepository => (
            Step::Repository,
            Held,
            "add a repository of its owner to `repos`, and give the token or the App's installation access to it".to_owned(),
        ),
        HoldReason::Closed { .. } => (Step::Status, Held, "nothing: `schedule` says when it has runners".to_owned()),
        HoldReason::WarmFailed { .. } => (
            Step::Attempts,
            Held,
            "the next one starts automatically; `githubrunner list -a` and `githubrunner logs ID` say why the last one ended"
                .to_owned(),
        ),
        HoldReason::WarmYields { .. } => (
            Step::Evaluation,
            Held,
            "add nodes; runners for jobs go first".to_owned(),
        ),
        HoldReason::GroupStops => {
            (Step::Attempts, Now, "nothing: the next pass starts one".to_owned())
        }
        HoldReason::Unplaced { .. } => (
            Step::Evaluation,
            Held,
            "if nodes are exhausted: wait, add nodes or request less; if nodes are filtered: fix the datacenters, node \
             pool, constraints or driver in the template. `nomad job status ID` shows the same"
                .to_owned(),
        ),
        HoldReason::Disconnected => (
            Step::Task,
            Held,
            "bring the node back (`nomad node status`); to give up on the runner: nomad job stop ID".to_owned(),
        ),
        HoldReason::Foreign { .. } => (
            Step::Registration,
            Held,
            "find out who registered it; it gets no credentials and is never touched. To remove it: nomad job stop -purge ID"
                .to_owned(),
        ),
        HoldReason::SurplusOnce => (Step::End, Note, "nothing: no job needs it".to_owned()),
        HoldReason::Idle { .. } => (
            Step::End,
            Note,
            "nothing: it waits for the next job; scheduler.runner_inactivity_timeout and scheduler.strict determine for how long"
                .to_owned(),
        ),
        HoldReason::ActionFailed { .. } => (
            if state == Some(RunnerState::Waiting) { Step::Credentials } else { Step::End },
            Held,
            "nothing at first: it is retried automatically; `githubrunner check` says whether a right is missing".to_owned(),
        ),
        HoldReason::NoCredentials { .. } => (
            Step::Credentials,
            Held,
            "check that the daemon is running, and read its log; `githubrunner check` tries to register a runner at GitHub"
                .to_owned(),
        ),
        HoldReason::TasksUnread => (
            Step::Task,
            Note,
            "look at the allocation's events with `nomad alloc status`: a driver or a template writes endless errors"
                .to_owned(),
        ),
        HoldReason::NotStarting { .. } => (
            Step::Task,
            Held,
            "look at the last event: an image that cannot be pulled, a missing variable, a driver error. \
             `nomad job status ID` shows the allocation"
                .to_owned(),
        ),
        HoldReason::Unassigned { .. } => (
            Step::Connection,
            Held,
            "check that the runner group allows the repository, and that the runner has all labels of the job, at \
             GitHub under Settings, Actions, Runners"
                .to_owned(),
        ),
        HoldReason::Unregistered { .. } => (
            Step::Connection,
            Held,
            "check that the node can reach GitHub: `githubrunner logs ID`".to_owned(),
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
            "nothing: it is kept to count attempts, and is purged when its job is over".to_owned(),
        ),
        HoldReason::CountsFailures => (
            Step::End,
            Note,
            "nothing: it is kept to count the failures of its warm entry, and is purged within half an hour".to_owned(),
        ),
        HoldReason::VariableFirst => (Step::End, Note, "nothing: the next pass removes its variable".to_owned()),
    };
    Meaning { step, mark, advice }
}
