//! The result of planning.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Action, GroupKey, Hold, JobId, Orphan, RepositoryId};

/// The result of planning. It leaves nothing to decide.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What to do, most important first. The actions are independent of one another.
    pub actions: Vec<Action>,
    /// What is deliberately not done.
    pub holds: Vec<Hold>,
    /// The surplus of each completely listed repository, for [`super::Memory::surplus`].
    pub surplus: BTreeMap<RepositoryId, BTreeSet<String>>,
    /// Everything that currently belongs to no runner, for [`super::Memory::orphans`].
    pub orphans: BTreeSet<Orphan>,
    /// The IDs of the queued jobs that may have one of our runners, oldest first.
    pub demand: BTreeMap<GroupKey, Vec<JobId>>,
    /// The jobs that are left to warm runners, for [`super::Memory::left`].
    pub left: BTreeSet<JobId>,
    /// The repositories that places are kept for, because it is their turn. They should be polled next.
    pub kept: BTreeSet<RepositoryId>,
    /// The class of each job that is in demand, or held after it matched one, by the job's ID.
    pub classes: BTreeMap<JobId, Arc<str>>,
}
