//! What a pass knows before it plans.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{
    Backoff, Ended, Foreign, GroupKey, Moment, Orphan, Repository, RepositoryId, RerunMark, Runner,
    WorkflowJob,
};

/// Everything the planner looks at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// Nomad's side; `None` when it could not be seen: then nothing is done at all.
    pub nomad: Option<NomadView>,
    /// GitHub's side: each repository that is configured, or that a runner of ours belongs to.
    pub repositories: BTreeMap<RepositoryId, RepositoryView>,
    /// The registrations at GitHub that bear our names, as last listed.
    pub registrations: Vec<OwnRegistration>,
    /// The jobs that GitHub lists as failed or cancelled, by the runner that had them, as far as this process has seen.
    pub ended: BTreeMap<String, Ended>,
    /// The lost jobs that were run again; `None` where nobody has looked.
    pub reruns: Option<Vec<RerunMark>>,
    /// What earlier passes left.
    pub memory: Memory,
}

/// Our jobs in Nomad, at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NomadView {
    /// The `Date` of the list of allocations.
    pub now: Timestamp,
    /// The deployment's ID, from the variable `githubrunner/PREFIX/instance`.
    pub deployment: String,
    /// Our runners and nomadtools', alive and dead; foreign jobs are not in it.
    pub runners: Vec<Runner>,
    /// Jobs that say they are ours and are not: neither supply nor stopped nor purged.
    pub foreign: Vec<Foreign>,
    /// The job IDs that a variable `nomad/jobs/ID` with our prefix exists for, jobs or no jobs.
    pub variables: BTreeSet<String>,
}

/// A registration at GitHub that bears a name of ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OwnRegistration {
    /// The runner's name.
    pub name: String,
    /// Whether it is connected or runs a job.
    pub online: bool,
    /// A repository in whose list it stands: its own, or one of its organization.
    pub repository: RepositoryId,
}

/// A repository and what is known of its jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryView {
    /// The repository.
    pub repository: Repository,
    /// Whether the configuration (still) names it.
    pub configured: bool,
    /// Its jobs.
    pub listing: Listing,
    /// Why a fresh listing is not complete, for people; `None`, too, where only a part was asked for.
    pub missing: Option<String>,
}

/// What is known of a repository's jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listing {
    /// A listing that may be held against this pass's listing of Nomad: since before it began, nothing of this repository
    /// came or went in Nomad. It permits Start and, if complete, Stop.
    Fresh {
        /// The `Date` of its last page.
        now: Timestamp,
        /// The jobs of all active runs.
        jobs: Vec<WorkflowJob>,
        /// As many distinct IDs as `total_count` everywhere, and less than 1,000. False where only a part was asked for, too.
        complete: bool,
    },
    /// A listing of a while ago; the schedule says when the next one is due. As good as [`Listing::Stale`], and nothing is wrong.
    /// For a short while its queued jobs have a claim to places.
    Earlier {
        /// When it ended.
        ended: Moment,
        /// Its jobs.
        jobs: Vec<WorkflowJob>,
        /// Whether it was complete.
        complete: bool,
    },
    /// An earlier listing: good enough to know who is busy and which jobs wait, for nothing else.
    Stale {
        /// Its jobs.
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
    /// The jobs, fresh or stale.
    pub fn jobs(&self) -> &[WorkflowJob] {
        match self {
            Listing::Fresh { jobs, .. } | Listing::Earlier { jobs, .. } | Listing::Stale { jobs, .. } => jobs,
            Listing::Unseen { .. } | Listing::Gone { .. } => &[],
        }
    }
}

/// What one pass leaves for the next. Nothing here is needed to be right: lost at a restart, it only
/// makes the planner more patient.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Each repository's surplus runners, by name, in its last complete listing, and the time of the first listing in a row
    /// that showed each of them as one.
    pub surplus: BTreeMap<RepositoryId, BTreeMap<String, Timestamp>>,
    /// What a verification at GitHub said of a runner, by name.
    pub presence: BTreeMap<String, Presence>,
    /// When a runner was last seen busy, by name; only runners that take several jobs need it.
    pub last_busy: BTreeMap<String, Moment>,
    /// When each repository's last runner was started, by the servers' clock: purged ones are not forgotten
    /// when it is decided whose turn it is.
    pub last_start: BTreeMap<RepositoryId, Timestamp>,
    /// Since when something has been seen to belong to no runner.
    pub orphans: BTreeMap<Orphan, Moment>,
    /// Groups whose last Start failed in a way that will not mend by itself.
    pub start_backoff: BTreeMap<GroupKey, Backoff>,
    /// Runners for which an action failed (Stop, verification, clean-up, purge), by name.
    pub runner_backoff: BTreeMap<String, Backoff>,
    /// Runners that got no credentials, by name: they may be stopped all the same.
    pub issue_backoff: BTreeMap<String, Backoff>,
}

/// The answer to a verification of a runner by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presence {
    /// When GitHub was last asked.
    pub checked_at: Moment,
    /// Since when it is absent; `None` when it was there.
    pub absent_since: Option<Moment>,
}
