//! The ways in which an exchange fails, and when.

use githubrunner_sim::fault::Side;
use jiff::Timestamp;

/// A way in which an exchange goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// Connections are refused, and existing ones are cut.
    Refused,
    /// The connection is cut before the request takes effect.
    Reset,
    /// The request takes effect, and the connection is cut before the response.
    LostAnswer,
    /// No response, and no effect.
    Stall,
    /// The request takes effect, but there is no response.
    LateStall,
    /// 500, 502, 503 or 504 without an effect.
    Error,
    /// The same, but the request took effect.
    LateError,
    /// The body ends early.
    Truncated,
    /// The body is damaged.
    Garbled,
    /// 200 with an HTML page, as from a captive portal.
    ContentType,
    /// Everything works, but up to 15 seconds later.
    Slow,
    /// 403 or 429 with no requests remaining until the reset.
    PrimaryLimit,
    /// 403 or 429 with `retry-after`.
    SecondaryLimit,
    /// 403 that mentions a secondary limit without a time.
    SilentLimit,
    /// 429 without a text.
    TooMany,
    /// Pages of a few entries, which shift or repeat while they are read.
    Pages,
    /// A wrong `total_count`.
    Totals,
    /// Listings show an earlier state.
    Lag,
    /// 409 to a registration of a runner that does not exist.
    JitConflict,
    /// 422 to a registration of a runner.
    JitInvalid,
    /// The registration succeeds, but the response is an error.
    JitLateError,
    /// 500 `No cluster leader`.
    NoLeader,
    /// A server that has lost its leader still answers listings, with the state when it last heard from the leader.
    Follower,
    /// A request for a lock takes effect, and its response is lost.
    LockAnswer,
    /// A write takes effect seconds after its client has abandoned it, or just before the next one about the same
    /// runner.
    Late,
    /// A registration is removed, and the response is lost.
    RemovalAnswer,
    /// Lists are incomplete: they continue on another host, have a larger total than items, or omit what the token
    /// is not authorized for.
    Part,
    /// Repositories have names and URLs that GitHub does not permit.
    Names,
    /// A runner is registered, but its configuration is invalid or another runner's.
    Secrets,
    /// The jobs of some runs get a 502 unless only a few are requested at a time.
    LargePages,
    /// Each page of a list takes several seconds.
    SlowPages,
    /// 500, 502 or 503 with a text that contains terminal commands, a forged log line and secrets.
    HostileErrors,
    /// Requests to the namespace of one class's runners are refused, fail or stall. Only in `FaultKind::Namespaces`.
    Namespace,
}

impl Trouble {
    /// All of them.
    pub const ALL: [Trouble; 32] = [
        Trouble::Refused,
        Trouble::Reset,
        Trouble::LostAnswer,
        Trouble::Stall,
        Trouble::LateStall,
        Trouble::Error,
        Trouble::LateError,
        Trouble::Truncated,
        Trouble::Garbled,
        Trouble::ContentType,
        Trouble::Slow,
        Trouble::PrimaryLimit,
        Trouble::SecondaryLimit,
        Trouble::SilentLimit,
        Trouble::TooMany,
        Trouble::Pages,
        Trouble::Totals,
        Trouble::Lag,
        Trouble::JitConflict,
        Trouble::JitInvalid,
        Trouble::JitLateError,
        Trouble::NoLeader,
        Trouble::Follower,
        Trouble::LockAnswer,
        Trouble::Late,
        Trouble::RemovalAnswer,
        Trouble::Part,
        Trouble::Names,
        Trouble::Secrets,
        Trouble::LargePages,
        Trouble::SlowPages,
        Trouble::HostileErrors,
    ];

    /// The side that it affects; `None`: either.
    pub fn side(self) -> Option<Side> {
        use Trouble::*;
        match self {
            PrimaryLimit | SecondaryLimit | SilentLimit | TooMany | Pages | Totals | JitConflict
            | JitInvalid | JitLateError | RemovalAnswer | Part | Names | Secrets | LargePages | SlowPages => {
                Some(Side::GitHub)
            }
            NoLeader | Follower | LockAnswer | Namespace => Some(Side::Nomad),
            _ => None,
        }
    }
}

/// A period during which one fault occurs now and then.
#[derive(Clone, Debug)]
pub struct Episode {
    /// The fault.
    pub trouble: Trouble,
    /// The affected side.
    pub side: Side,
    /// From when, in true time.
    pub from: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// How often: 0 never, 1 always.
    pub chance: f64,
}
