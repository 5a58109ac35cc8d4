//! How often each kind of repository is polled, within the budget of the credentials that pay for it.

use std::time::Duration;

use crate::github::Headroom;

/// The time between two looks at a hot repository, if the budget allows it.
pub(super) const HOT: Duration = Duration::from_secs(2);

/// The shortest time between two looks at any other repository.
pub(super) const OTHERS: Duration = Duration::from_secs(3);

/// The time between two looks at a repository that has never had a run, if that is longer than for a cold one.
pub(super) const UNUSED: Duration = Duration::from_secs(3600);

/// With fewer repositories than this, unused ones are polled as often as cold ones.
const FEW: usize = 50;

/// The share of a credential's requests a minute for scheduled looks. The rest is for requested looks, for the sources
/// of hints, for runners, and for other users of the same credential.
const FOR_LOOKS: f64 = 0.7;

/// Cold repositories take at most this share of that, so that there is room for more urgent looks.
const FOR_COLD: f64 = 0.6;

/// Hot repositories take at most this share of the looks while others need them.
const FOR_HOT: f64 = 0.7;

/// Warm ones take at most this share of the rest while cold ones need it.
const FOR_WARM: f64 = 0.5;

/// A standby replica uses this share of the pace, because the leader uses the same credentials.
const STANDING_BY: f64 = 0.25;

/// If the primary limit is used faster than it refills, repositories that are not hot wait this many times
/// longer.
const BEHIND: f64 = 4.0;

/// How urgently a repository is polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Heat {
    /// It has jobs or runners of ours, or will soon.
    Hot,
    /// It had a run within the last hour.
    Warm,
    /// It had no run within the last hour.
    Cold,
    /// It has never had a run.
    Unused,
}

/// The requests that some repositories' credentials may make.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// What their rate limiter allows.
    pub headroom: Headroom,
    /// Whether this replica is the leader.
    pub leads: bool,
    /// The longest interval for a hot repository, if the budget allows it.
    pub longest_hot: Duration,
}

/// How many repositories of each kind there are, and how many requests one look at all of them costs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    counts: [usize; 4],
    costs: [f64; 4],
}

impl Load {
    /// The same with one more repository, a look at which costs this many requests.
    #[must_use]
    pub fn with(mut self, heat: Heat, cost: f64) -> Self {
        self.counts[heat as usize] += 1;
        self.costs[heat as usize] += cost;
        self
    }

    fn all(&self) -> usize {
        self.counts.iter().sum()
    }
}

/// How often each kind is polled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    intervals: [Duration; 4],
    /// The total pace of looks, in requests per second.
    pub(super) a_second: f64,
}

impl Pace {
    /// The pace for a load within a budget.
    pub fn new(load: &Load, budget: &Budget) -> Pace {
        let Headroom { a_minute, for_pace, ahead } = budget.headroom;
        let part = if budget.leads { 1.0 } else { STANDING_BY };
        let all = (a_minute * FOR_LOOKS * part).min(for_pace).max(1.0);
        let behind = if ahead { 1.0 } else { BEHIND };
        let within = |cost: f64, a_minute: f64, least: Duration| {
            let seconds = cost * 60.0 / a_minute.max(0.1);
            Duration::from_secs_f64(seconds.max(least.as_secs_f64()).min(UNUSED.as_secs_f64()))
        };
        let [hot, warm, cold, unused] = load.costs;
        let few = load.all() < FEW;
        let (warm, cold) = (warm * behind, (if few { cold + unused } else { cold }) * behind);
        let least = if budget.leads && ahead { HOT.min(budget.longest_hot) } else { budget.longest_hot };
        // The most that each kind would use. What one does not need goes to the others.
        let need = |cost: f64, every: Duration| cost * 60.0 / every.as_secs_f64();
        let (needs_hot, needs_warm, needs_cold) = (need(hot, least), need(warm, OTHERS), need(cold, OTHERS));
        let for_hot = needs_hot.min((all * FOR_HOT).max(all - needs_warm - needs_cold));
        let rest = all - for_hot;
        let for_warm = needs_warm.min((rest * FOR_WARM).max(rest - needs_cold));
        let for_cold = (rest - for_warm).min(a_minute * FOR_COLD * part);
        let hot_every = within(hot, for_hot, least);
        let warm_every = within(warm, for_warm, OTHERS);
        let cold_every = within(cold, for_cold, OTHERS);
        let unused_every = if few { cold_every } else { UNUSED };
        Pace {
            intervals: [hot_every, warm_every, cold_every.max(warm_every), unused_every],
            a_second: all / 60.0,
        }
    }

    /// How often a kind is polled.
    pub fn every(&self, heat: Heat) -> Duration {
        self.intervals[heat as usize]
    }
}
