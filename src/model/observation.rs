//! What a pass knows before it plans.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use jiff::Timestamp;

use super::{
    Ended, Foreign, GroupKey, JobId, Moment, Namespace, Orphan, Repository, RepositoryId, RerunMark, Runner,
    RunnerVariable, WorkflowJob,
};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// `None` if Nomad could not be read: then nothing is done at all.
    pub nomad: Option<NomadView>,
    /// Each repository that is configured, or that one of our runners belongs to.
    pub repositories: BTreeMap<RepositoryId, RepositoryView>,
    /// The registrations at GitHub with names of ours, as last listed.
    pub registrations: Vec<OwnRegistration>,
    /// The jobs that GitHub lists as failed or cancelled, by the runner that had them, as far as this process knows.
    pub ended: BTreeMap<String, Ended>,
    /// The lost jobs that were run again; `None` if they have not been requested.
    pub reruns: Option<Vec<RerunMark>>,
    /// What earlier passes remember.
    pub memory: Memory,
}

/// Our jobs in Nomad at one point in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NomadView {
    /// The `Date` of the list of allocations.
    pub now: Timestamp,
    /// The deployment's ID, from the variable `githubrunner/PREFIX/instance`.
    pub deployment: String,
    /// Our runners and nomadtools', alive and dead. Foreign jobs are not included. Those in an unseen namespace are as
    /// they were last seen, if this process has seen them.
    pub runners: Vec<Runner>,
    /// Jobs that claim to be ours and are not: they do not count as supply, and are neither stopped nor
    /// purged.
    pub foreign: Vec<Foreign>,
    /// The variables `nomad/jobs/ID` of job IDs with our prefix, whether or not the job exists.
    pub variables: BTreeSet<RunnerVariable>,
    /// The namespaces that could not be read. Nothing is started, stopped or removed there. If there is only one
    /// namespace and it could not be read, there is no view.
    pub unseen: BTreeMap<Option<Namespace>, Unseen>,
}

impl NomadView {
    /// Why a namespace is unseen; `None` if it was read.
    pub fn unseen(&self, namespace: Option<&Namespace>) -> Option<&Unseen> {
        // Nearly always empty, and the key would have to be cloned.
        self.unseen.iter().find(|(unseen, _)| unseen.as_ref() == namespace).map(|(_, unseen)| unseen)
    }

    /// Whether a job ID has a variable in its namespace.
    pub fn has_variable(&self, namespace: Option<&Namespace>, name: &str) -> bool {
        let variable = RunnerVariable { namespace: namespace.cloned(), name: name.to_owned() };
        self.variables.contains(&variable)
    }
}

/// A namespace that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unseen {
    /// The namespace for display, also if it is the daemon's own.
    pub namespace: String,
    /// The kind of error, in one word.
    pub kind: &'static str,
    /// What Nomad answered.
    pub why: String,
}

impl fmt::Display for Unseen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the Nomad namespace {} could not be read: {}", self.namespace, self.why)
    }
}

/// A registration at GitHub with a name of ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OwnRegistration {
    pub name: String,
    /// Whether it is connected or runs a job.
    pub online: bool,
    /// A repository that lists it: its own, or one of its organization.
    pub repository: RepositoryId,
}

/// A repository and what is known of its jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryView {
    pub repository: Repository,
    /// Whether the configuration (still) names it.
    pub configured: bool,
    pub listing: Listing,
    /// Why a fresh listing is not complete, for display. Also `None` if only a part was requested.
    pub missing: Option<String>,
}

/// What is known of a repository's jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listing {
    /// A listing that may be compared with this pass's listing of Nomad: since before it began, nothing of this
    /// repository has appeared or disappeared in Nomad. It permits a Start and, if complete, a Stop.
    Fresh {
        /// The `Date` of its last page.
        now: Timestamp,
        jobs: Vec<WorkflowJob>,
        /// Every list has as many distinct IDs as its `total_count`, and fewer than 1,000. Also false if only a part
        /// was requested.
        complete: bool,
    },
    /// An earlier listing, while the next one is not due yet. It permits as much as [`Listing::Stale`], but nothing is
    /// wrong. For a short while, its queued jobs can claim places.
    Earlier {
        /// When it was completed.
        ended: Moment,
        jobs: Vec<WorkflowJob>,
        /// Whether it was complete.
        complete: bool,
    },
    /// An earlier listing. It is only good enough to know which runners are busy and which jobs are waiting.
    Stale {
        jobs: Vec<WorkflowJob>,
        /// Whether it was complete.
        complete: bool,
        /// Why there is no fresh one.
        reason: String,
    },
    /// Never listed so far.
    Unseen {
        /// Why not.
        reason: String,
    },
    /// GitHub answers 404.
    Gone {
        /// Since when.
        since: Moment,
    },
}

impl Listing {
    /// The jobs of any listing, fresh or stale.
    pub fn jobs(&self) -> &[WorkflowJob] {
        match self {
            Listing::Fresh { jobs, .. } | Listing::Earlier { jobs, .. } | Listing::Stale { jobs, .. } => jobs,
            Listing::Unseen { .. } | Listing::Gone { .. } => &[],
        }
    }
}

/// What one pass leaves for the next. Correctness does not depend on it: if it is lost at a restart, the
/// planner only becomes more patient.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// For each repository, the names of the surplus runners in its last complete listing, each with the time of the
    /// first consecutive listing in which it was surplus.
    pub surplus: BTreeMap<RepositoryId, BTreeMap<String, Timestamp>>,
    /// The results of verifications at GitHub, by runner name.
    pub presence: BTreeMap<String, Presence>,
    /// When a runner was last seen busy, by name. Only needed for runners that take several jobs.
    pub last_busy: BTreeMap<String, Moment>,
    /// When each repository's last runner was started, by the servers' clock. It also covers purged runners,
    /// so that they count when turns are decided.
    pub last_start: BTreeMap<RepositoryId, Timestamp>,
    /// Since when each of these has been seen without a runner.
    pub orphans: BTreeMap<Orphan, Moment>,
    /// Groups whose last start failed in a way that will not resolve itself.
    pub start_backoff: BTreeMap<GroupKey, Backoff>,
    /// The label sets of public repositories whose runners would give their tasks access to the host.
    pub refused: BTreeMap<GroupKey, Refusal>,
    /// Warm entries whose last start failed or was not permitted, by ID.
    pub warm_backoff: BTreeMap<String, Backoff>,
    /// Since when each queued job has been left to warm runners.
    pub left: BTreeMap<JobId, Moment>,
    /// Runners for which an action failed (Stop, verification, clean-up, purge), by name.
    pub runner_backoff: BTreeMap<String, Backoff>,
    /// Dead runners that were not lost with a job that may be run again, as an attempt to do so has shown.
    pub not_lost: BTreeSet<String>,
    /// Runners that got no credentials, by name. They may still be stopped.
    pub issue_backoff: BTreeMap<String, Backoff>,
}

/// The result of a verification of a runner by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presence {
    /// When GitHub was last asked.
    pub checked_at: Moment,
    /// Since when it has been absent; `None` if it is present.
    pub absent_since: Option<Moment>,
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

impl Backoff {
    /// How long to wait; `None` if the time has come.
    pub fn wait(&self, now: Moment) -> Option<Duration> {
        Some(self.until.since(now)).filter(|wait| !wait.is_zero())
    }
}
