//! What can go wrong in a run, by name.

use crate::faults::trouble::Trouble;

/// What can go wrong in a run: each by itself, several, or all at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// Exchanges.
    Exchange(Trouble),
    /// Nodes lose their power.
    NodesCrash,
    /// Nodes are not heard of for a while.
    NodesCut,
    /// Nodes are drained.
    Drains,
    /// The agent restarts empty.
    RestartsEmpty,
    /// Dead jobs are collected, and jobs purged and stopped by somebody else.
    Purges,
    /// Allocations are stopped, which replaces them, and restarted by hand.
    Allocations,
    /// Variables are deleted by hand.
    Variables,
    /// Registrations are deleted by hand.
    Registrations,
    /// Runners are killed for memory, or crash.
    Crashes,
    /// Images pull for ten minutes.
    SlowImages,
    /// Processes cannot be started for a while.
    StartFailures,
    /// The servers lose their leader.
    Leaderless,
    /// Repositories are renamed, archived, disabled, deleted, made private.
    Repositories,
    /// Another repository has one's name for a while.
    Namesakes,
    /// Runs are run again and cancelled.
    Runs,
    /// Jobs queued for ever.
    Ghosts,
    /// Jobs that wait, are pending or requested at first.
    HeldJobs,
    /// Runners of others take jobs.
    Foreigners,
    /// The clocks are hours apart.
    Clocks,
    /// The nodes' clocks are not the servers'.
    NodeClocks,
    /// Processes that are told to end take their time.
    SlowStops,
    /// The token is refused for a while.
    Token,
    /// Runs' statuses lag behind their jobs'.
    RunLag,
    /// The servers are too old for `disconnect`, and nodes are not heard of: what runs there is lost and replaced.
    OldServers,
    /// Nodes are not heard of for longer than `lost_after`, which is a minute here: what runs there is given up.
    LostAfter,
    /// Some runners hang and never connect.
    Hangs,
    /// The daemon dies, at any await or at a request that changes something.
    Deaths,
    /// The daemon is told to read its configuration again.
    Hangups,
    /// A repository is taken out of the configuration for a while.
    Configuration,
    /// Jobs with labels that fit on no node.
    Unplaceable,
    /// Something happens to a runner between a look at it and what is done about it.
    Meanwhile,
    /// A neighbour's jobs, and what drivers say, are so large that lists are read a few entries at a time.
    LargeJobs,
    /// A neighbour's jobs have a Meta that is no JSON, or not of our form, or tells a terminal what to do.
    HostileMeta,
    /// One repository has very many runs in its queue, and requests are paced.
    Flood,
    /// GitHub refuses to register one repository's runners.
    RefusedRunners,
    /// GitHub assigns one repository's jobs to nobody.
    UnassignedJobs,
    /// The tasks of one repository's runners take very long to start.
    SlowStarts,
    /// Of two daemons the one that leads dies, as in `Deaths`.
    LeaderDies,
    /// It is told to end.
    LeaderExits,
    /// It is paused and goes on.
    LeaderPauses,
    /// It does not reach Nomad.
    LeaderCut,
}

impl FaultKind {
    /// All of them.
    pub fn all() -> Vec<FaultKind> {
        let exchanges = Trouble::ALL.iter().map(|trouble| FaultKind::Exchange(*trouble));
        exchanges
            .chain([
                FaultKind::NodesCrash,
                FaultKind::NodesCut,
                FaultKind::Drains,
                FaultKind::RestartsEmpty,
                FaultKind::Purges,
                FaultKind::Allocations,
                FaultKind::Variables,
                FaultKind::Registrations,
                FaultKind::Crashes,
                FaultKind::SlowImages,
                FaultKind::StartFailures,
                FaultKind::Leaderless,
                FaultKind::Repositories,
                FaultKind::Namesakes,
                FaultKind::Runs,
                FaultKind::Ghosts,
                FaultKind::HeldJobs,
                FaultKind::Foreigners,
                FaultKind::Clocks,
                FaultKind::NodeClocks,
                FaultKind::SlowStops,
                FaultKind::Token,
                FaultKind::RunLag,
                FaultKind::OldServers,
                FaultKind::LostAfter,
                FaultKind::Hangs,
                FaultKind::Deaths,
                FaultKind::Hangups,
                FaultKind::Configuration,
                FaultKind::Unplaceable,
                FaultKind::Meanwhile,
                FaultKind::LargeJobs,
                FaultKind::HostileMeta,
                FaultKind::Flood,
                FaultKind::RefusedRunners,
                FaultKind::UnassignedJobs,
                FaultKind::SlowStarts,
                FaultKind::LeaderDies,
                FaultKind::LeaderExits,
                FaultKind::LeaderPauses,
                FaultKind::LeaderCut,
            ])
            .collect()
    }

    /// Whether one repository's runners make no progress.
    pub fn is_of_the_stuck(self) -> bool {
        [FaultKind::RefusedRunners, FaultKind::UnassignedJobs, FaultKind::SlowStarts].contains(&self)
    }

    /// Whether it is one of two daemons with a lock.
    pub fn is_of_replicas(self) -> bool {
        let ones =
            [FaultKind::LeaderDies, FaultKind::LeaderExits, FaultKind::LeaderPauses, FaultKind::LeaderCut];
        ones.contains(&self) || self == FaultKind::Exchange(Trouble::LockAnswer)
    }
}
