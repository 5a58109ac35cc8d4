//! The faults of a run, by name.

use crate::faults::trouble::Trouble;

/// The faults of a run: one at a time, several, or all at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// Exchanges.
    Exchange(Trouble),
    /// Nodes lose power.
    NodesCrash,
    /// Nodes are disconnected for a while.
    NodesCut,
    /// Nodes are drained.
    Drains,
    /// The agent restarts without its state.
    RestartsEmpty,
    /// Dead jobs are garbage-collected, and someone else purges and stops jobs.
    Purges,
    /// Allocations are stopped, and so replaced, or restarted by hand.
    Allocations,
    /// Variables are deleted by hand.
    Variables,
    /// Registrations are deleted by hand.
    Registrations,
    /// Runners run out of memory, or crash.
    Crashes,
    /// Image pulls take ten minutes.
    SlowImages,
    /// Processes cannot be started for a while.
    StartFailures,
    /// The servers lose their leader.
    Leaderless,
    /// Repositories are renamed, archived, disabled, deleted, made private.
    Repositories,
    /// Another repository has a repository's name for a while.
    Namesakes,
    /// Runs are rerun and cancelled.
    Runs,
    /// Jobs that stay queued forever.
    Ghosts,
    /// Jobs that are waiting, pending or requested at first.
    HeldJobs,
    /// Foreign runners take jobs.
    Foreigners,
    /// The clocks are hours apart.
    Clocks,
    /// The nodes' clocks differ from the servers'.
    NodeClocks,
    /// Processes that are told to end are slow to do so.
    SlowStops,
    /// The token is refused for a while.
    Token,
    /// Runs' statuses lag behind their jobs'.
    RunLag,
    /// The servers are too old for `disconnect`, and nodes are disconnected: what runs there is lost and replaced.
    OldServers,
    /// Nodes are disconnected for longer than `lost_after`, which is a minute here: what runs there is given up.
    LostAfter,
    /// Some runners hang and never connect.
    Hangs,
    /// The daemon dies, at any await or at a write.
    Deaths,
    /// The daemon is told to reload its configuration.
    Hangups,
    /// A repository is removed from the configuration for a while.
    Configuration,
    /// Jobs with labels that fit no node.
    Unplaceable,
    /// Something happens to a runner between an observation and the action on it.
    Meanwhile,
    /// A neighbour's jobs, and driver errors, are so large that lists are read a few entries at a time.
    LargeJobs,
    /// A neighbour's jobs have a Meta that is not JSON, not in our format, or contains terminal commands.
    HostileMeta,
    /// One repository has very many queued runs, and requests are rate-limited.
    Flood,
    /// GitHub refuses to register one repository's runners.
    RefusedRunners,
    /// GitHub assigns one repository's jobs to no runner.
    UnassignedJobs,
    /// The tasks of one repository's runners take very long to start.
    SlowStarts,
    /// The namespace of one class's runners cannot be read or changed for a while.
    Namespaces,
    /// With two daemons, the leader dies, as in `Deaths`.
    LeaderDies,
    /// It is told to end.
    LeaderExits,
    /// It is suspended and resumed.
    LeaderPauses,
    /// It cannot reach Nomad.
    LeaderCut,
}

impl FaultKind {
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
                FaultKind::Namespaces,
                FaultKind::LeaderDies,
                FaultKind::LeaderExits,
                FaultKind::LeaderPauses,
                FaultKind::LeaderCut,
            ])
            .collect()
    }

    /// Whether it makes one repository's runners stuck.
    pub fn is_of_the_stuck(self) -> bool {
        [FaultKind::RefusedRunners, FaultKind::UnassignedJobs, FaultKind::SlowStarts].contains(&self)
    }

    /// Whether it needs two daemons with a lock.
    pub fn is_of_replicas(self) -> bool {
        let ones =
            [FaultKind::LeaderDies, FaultKind::LeaderExits, FaultKind::LeaderPauses, FaultKind::LeaderCut];
        ones.contains(&self) || self == FaultKind::Exchange(Trouble::LockAnswer)
    }
}
