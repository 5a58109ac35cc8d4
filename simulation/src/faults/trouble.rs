//! The ways in which an exchange goes wrong, and when they do.

use githubrunner_sim::fault::Side;
use jiff::Timestamp;

/// A way in which an exchange goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// Nobody is there: connections are refused, and those that exist are cut.
    Refused,
    /// The connection is cut before the request takes effect.
    Reset,
    /// The request takes effect, and the connection is cut before the answer.
    LostAnswer,
    /// No answer, and no effect.
    Stall,
    /// The request takes effect, and no answer comes.
    LateStall,
    /// 500, 502, 503 or 504 without an effect.
    Error,
    /// The same, but the request took effect.
    LateError,
    /// The body ends early.
    Truncated,
    /// The body is damaged.
    Garbled,
    /// 200 with a page for people, as a captive portal has it.
    ContentType,
    /// All is well, up to 15 seconds later.
    Slow,
    /// 403 or 429, nothing remains until the reset.
    PrimaryLimit,
    /// 403 or 429 with `retry-after`.
    SecondaryLimit,
    /// 403 that speaks of a secondary limit and names no time.
    SilentLimit,
    /// 429 without a word.
    TooMany,
    /// Pages of a few entries, which shift or repeat while they are read.
    Pages,
    /// A `total_count` that is off.
    Totals,
    /// Listings show how things were a while ago.
    Lag,
    /// 409 to a registration of a runner that does not exist.
    JitConflict,
    /// 422 to a registration of a runner.
    JitInvalid,
    /// The registration succeeds, and the answer is an error.
    JitLateError,
    /// 500 `No cluster leader`.
    NoLeader,
    /// A server that has lost its leader answers listings all the same: with how things were when it last heard of it.
    Follower,
    /// A request about a lock takes effect, and its answer is lost.
    LockAnswer,
    /// A request that changes something takes effect seconds after its client has given it up, or just before the next
    /// one about the same runner.
    Late,
    /// A registration is removed, and the answer is lost.
    RemovalAnswer,
    /// Lists come in part: they go on at another host, count more than they show, or leave out what the token is not
    /// authorized for.
    Part,
    /// Repositories have names and pages that GitHub does not permit.
    Names,
    /// A runner is registered, and what it is to be started with is not a configuration, or another runner's.
    Secrets,
    /// The jobs of some runs answer 502 unless few are asked for at a time.
    LargePages,
    /// Each page of a list takes several seconds.
    SlowPages,
    /// 500, 502 or 503 with a text that commands a terminal, forges a line of the log and quotes secrets.
    HostileErrors,
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

    /// Where it happens; `None`: on either side.
    pub fn side(self) -> Option<Side> {
        use Trouble::*;
        match self {
            PrimaryLimit | SecondaryLimit | SilentLimit | TooMany | Pages | Totals | JitConflict
            | JitInvalid | JitLateError | RemovalAnswer | Part | Names | Secrets | LargePages | SlowPages => {
                Some(Side::GitHub)
            }
            NoLeader | Follower | LockAnswer => Some(Side::Nomad),
            _ => None,
        }
    }
}

/// A time in which one thing goes wrong now and then.
#[derive(Clone, Debug)]
pub struct Episode {
    /// What.
    pub trouble: Trouble,
    /// With whom.
    pub side: Side,
    /// From when, in true time.
    pub from: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// How often: 0 never, 1 always.
    pub chance: f64,
}
