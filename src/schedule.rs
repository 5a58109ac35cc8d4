//! Decides when each repository is polled next, from what is known of it and from the rate limits. Pure: the caller
//! provides the time.
//!
//! A repository is *hot* while it has jobs or runners of ours, or shortly after a hint; *warm* if its newest run is at
//! most an hour old; *cold* otherwise; *unused* if it has never had a run. The intervals follow from the budget of the
//! credentials that pay for the looks: with few repositories, everything is polled every few seconds; with thousands,
//! the cold ones wait. Hot looks take what they need first, then warm ones, then cold ones. An unused repository waits
//! at most an hour.

mod forecast;
mod pace;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

pub use forecast::{Forecast, HintSources};
use pace::HOT;
pub use pace::{Budget, Heat, Load, Pace};

use crate::{
    github::Look,
    model::{Moment, RepositoryId, Timestamp, doubled},
};

/// A repository stays hot for this long after a push: most jobs follow within seconds.
pub const AFTER_PUSH: Duration = Duration::from_secs(30);

/// A repository stays hot for this long after a webhook: lists lag slightly, and the next change is delivered
/// too.
pub const AFTER_WEBHOOK: Duration = Duration::from_secs(15);

/// The second look at a cold repository comes no sooner than this: at a start nothing is cached, so everything counts
/// against the primary limit.
const AFTER_FIRST_LOOK: Duration = Duration::from_secs(300);

/// If cold repositories are polled more often than this, there are so few of them that it does not matter.
const OFTEN: Duration = Duration::from_secs(60);

/// First looks may exceed that share by this factor: after a start, everything should be seen soon.
const FOR_FIRST_LOOKS: f64 = 1.3;

/// The pause after a look, as a multiple of its duration, so that a slow repository does not slow down the
/// others.
const REST: u32 = 3;

/// A look counts as at most this many requests. The rate limiter gives each repository its turn, so that one with hundreds
/// of runs does not slow down the others.
const COUNTED_AT_MOST: usize = 10;

/// After failures, the wait doubles up to this.
const LONGEST_AFTER_FAILURE: Duration = Duration::from_secs(300);

/// How much can be due at once, in seconds of the pace. This spreads looks instead of making bursts.
const BURST: f64 = 2.0;

/// How many looks may start.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Of any kind.
    pub all: usize,
    /// Scheduled ones.
    pub by_pace: usize,
}

/// What a look showed.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When it ended.
    pub at: Moment,
    pub took: Duration,
    /// It failed.
    pub failed: bool,
    /// It is to be continued at once.
    pub unfinished: bool,
    /// There are jobs or runners of ours.
    pub ours: bool,
    /// The age of the newest run, if there is one.
    pub newest_run: Option<Duration>,
    /// There has never been a run.
    pub unused: bool,
    /// How many requests it took.
    pub requests: usize,
}

/// The state of a repository in the schedule.
#[derive(Clone, Debug)]
struct Place {
    /// The index of its payer.
    payer: usize,
    pushed_at: Option<Timestamp>,
    heat: Heat,
    /// When the previous look ended.
    looked: Option<Moment>,
    /// That was the first one.
    only_once: bool,
    under_way: bool,
    /// Not polled before this, whatever its kind.
    rests_until: Moment,
    hot_until: Moment,
    /// A look was requested, apart from the schedule.
    asked: bool,
    /// The last look is to be continued.
    unfinished: bool,
    failures: u32,
    cost: f64,
    /// When its lists by status were last read, by how much they show.
    listed: [Option<Moment>; 2],
}

/// The owner of credentials that pay for looks.
#[derive(Clone, Debug)]
struct Payer {
    name: String,
    /// The remaining requests of the pace, and when that was.
    credit: Option<(f64, Moment)>,
    /// No request before this time, because a limit was reached.
    paused: Moment,
}

/// The schedule of all repositories.
#[derive(Debug, Default)]
pub struct Schedule {
    places: BTreeMap<RepositoryId, Place>,
    payers: Vec<Payer>,
    /// Something was requested since due looks were last taken.
    urgent: bool,
}

impl Schedule {
    /// Sets the repositories, each with its payer and its last push. Everything about other repositories is forgotten.
    pub fn know<'a>(
        &mut self,
        repositories: impl Iterator<Item = (RepositoryId, String, Option<Timestamp>)> + Clone + 'a,
    ) {
        let ids: BTreeSet<RepositoryId> = repositories.clone().map(|(id, ..)| id).collect();
        self.places.retain(|id, _| ids.contains(id));
        let before = std::mem::take(&mut self.payers);
        let mut payers: BTreeMap<String, usize> = BTreeMap::new();
        for (id, name, pushed_at) in repositories {
            let payer = *payers.entry(name).or_insert_with_key(|name| {
                let known = before.iter().find(|payer| payer.name == *name);
                let new = || Payer { name: name.clone(), credit: None, paused: Moment::START };
                self.payers.push(known.cloned().unwrap_or_else(new));
                self.payers.len() - 1
            });
            let place = self.places.entry(id).or_insert_with(|| Place {
                payer,
                pushed_at,
                heat: Heat::Cold,
                looked: None,
                only_once: false,
                under_way: false,
                rests_until: Moment::START,
                hot_until: Moment::START,
                asked: false,
                unfinished: false,
                failures: 0,
                cost: 1.0,
                listed: [None; 2],
            });
            place.payer = payer;
            place.pushed_at = place.pushed_at.max(pushed_at);
        }
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Requests a look now, and keeps the repository hot for a while.
    pub fn hint(&mut self, id: RepositoryId, now: Moment, stays_hot: Duration) {
        if let Some(place) = self.places.get_mut(&id) {
            place.asked = true;
            place.hot_until = place.hot_until.max(now + stays_hot);
            self.urgent = true;
        }
    }

    /// Requests a look as soon as possible, because the result of the last one could not be used.
    pub fn again(&mut self, id: RepositoryId) {
        if let Some(place) = self.places.get_mut(&id) {
            place.asked = true;
            self.urgent = true;
        }
    }

    /// Whether something was requested since due looks were last taken. It does not wait for the next time.
    pub fn is_urgent(&self) -> bool {
        self.urgent
    }

    /// Nomad has runners of ours for these repositories.
    pub fn ours<'a>(&mut self, ids: impl Iterator<Item = &'a RepositoryId>) {
        for id in ids {
            if let Some(place) = self.places.get_mut(id) {
                place.heat = Heat::Hot;
            }
        }
    }

    /// A limit was reached: no request with the credentials that pay for this repository before this time.
    pub fn pause(&mut self, id: RepositoryId, until: Moment) {
        if let Some(payer) = self.places.get(&id).and_then(|place| self.payers.get_mut(place.payer)) {
            payer.paused = payer.paused.max(until);
        }
    }

    /// Looks at everything as after a start: a new leader has polled less often until now.
    pub fn begin_anew(&mut self, now: Moment) {
        self.ask_hot(now);
        for place in self.places.values_mut() {
            place.looked = None;
        }
    }

    /// Requests a look at all hot repositories now.
    pub fn ask_hot(&mut self, now: Moment) {
        for place in self.places.values_mut().filter(|place| place.heat(now) == Heat::Hot) {
            place.asked = true;
            self.urgent = true;
        }
    }

    /// Records the end of a look.
    pub fn seen(&mut self, id: RepositoryId, seen: &Seen) {
        let Some(place) = self.places.get_mut(&id) else { return };
        place.under_way = false;
        place.only_once = place.looked.is_none();
        place.looked = Some(seen.at);
        place.unfinished = seen.unfinished;
        place.failures = if seen.failed { place.failures.saturating_add(1) } else { 0 };
        let after_failure = match place.failures {
            0 => Duration::ZERO,
            n => doubled(HOT, n).min(LONGEST_AFTER_FAILURE),
        };
        let rest = if seen.unfinished { seen.took } else { seen.took.saturating_mul(REST) };
        place.rests_until = seen.at + rest.min(LONGEST_AFTER_FAILURE).max(after_failure);
        if !seen.failed {
            place.cost = (place.cost + seen.requests.clamp(1, COUNTED_AT_MOST) as f64) / 2.0;
            place.heat = match seen.newest_run {
                _ if seen.ours => Heat::Hot,
                Some(age) if age < Duration::from_secs(3600) => Heat::Warm,
                None if seen.unused => Heat::Unused,
                _ => Heat::Cold,
            };
        }
    }

    /// The minimum that a look at the repository requests if it starts now: the newest runs, and the slower lists when
    /// they are due.
    pub fn at_least(&mut self, id: RepositoryId, now: Moment) -> Look {
        let Some(place) = self.places.get_mut(&id) else { return Look::Newest };
        let heat = place.heat(now);
        if heat == Heat::Unused {
            return Look::Newest;
        }
        let queued_every = Duration::from_secs(600);
        let all_every = Duration::from_secs(if heat == Heat::Cold { 6 * 3600 } else { 3600 });
        // The slower lists are spread, and none of them comes with the first looks.
        let spread = |every: Duration| every.mul_f64((id.0 % 997) as f64 / 997.0);
        let [queued, all] = &mut place.listed;
        let since = |at: &mut Option<Moment>, every: Duration| match at {
            None => {
                *at = Some(now + queued_every + spread(every) - every);
                false
            }
            Some(at) => now >= *at + every,
        };
        let (queued_is_due, all_is_due) = (since(queued, queued_every), since(all, all_every));
        if all_is_due {
            (*queued, *all) = (Some(now), Some(now));
            return Look::All;
        }
        if queued_is_due {
            *queued = Some(now);
            return Look::Queued;
        }
        Look::Newest
    }

    /// The repositories to be polled now, each with whether that was requested apart from the schedule. They count as
    /// in progress until [`seen`](Self::seen).
    pub fn due(
        &mut self,
        now: Moment,
        room: Room,
        budget: impl Fn(&str) -> Budget,
    ) -> Vec<(RepositoryId, bool)> {
        self.urgent = false;
        let paces = self.paces(now, &budget);
        // Requested looks come first, then hot repositories, then those never seen (last pushed first), then those that
        // have waited longest.
        let mut due: Vec<_> = self
            .places
            .iter()
            .filter(|(_, place)| self.next_of(place, now, &paces).is_some_and(|next| next <= now))
            .map(|(id, place)| {
                let heat = place.heat(now);
                let urgent = place.asked || heat == Heat::Hot;
                let first = place.looked.is_none();
                let pushed = std::cmp::Reverse(place.pushed_at.filter(|_| first));
                ((!place.asked, heat != Heat::Hot, !first, pushed, heat, place.looked, *id), urgent)
            })
            .collect();
        due.sort();
        let mut first = vec![false; self.payers.len()];
        for place in self.places.values().filter(|place| place.looked.is_none()) {
            first[place.payer] = true;
        }
        for ((payer, pace), first) in self.payers.iter_mut().zip(&paces).zip(first) {
            let a_second = pace.a_second * if first { FOR_FIRST_LOOKS } else { 1.0 };
            let (credit, at) = payer.credit.get_or_insert((a_second * BURST, now));
            *credit = (*credit + now.since(*at).as_secs_f64() * a_second).min(a_second * BURST);
            *at = now;
        }
        let mut taken = Vec::new();
        for ((.., id), urgent) in due {
            if taken.len() >= room.all {
                break;
            }
            let Some(place) = self.places.get_mut(&id) else { continue };
            let Some((credit, _)) = &mut self.payers[place.payer].credit else { continue };
            if !place.asked && (taken.len() >= room.by_pace || *credit < 1.0 && !urgent) {
                continue;
            }
            // Urgent looks start at once, and others wait longer for it.
            *credit -= place.cost.max(1.0);
            place.under_way = true;
            taken.push((id, std::mem::take(&mut place.asked)));
        }
        taken
    }

    /// When the next look is due, if nothing happens before.
    pub fn next(&self, now: Moment, budget: impl Fn(&str) -> Budget) -> Option<Moment> {
        let paces = self.paces(now, &budget);
        let next = self.places.values().filter_map(|place| self.next_of(place, now, &paces));
        let next = next.min()?;
        // If the pace is used up, there is more in a moment.
        Some(next.max(now + Duration::from_millis(if next <= now { 250 } else { 0 })))
    }

    /// How often each kind is polled, by payer.
    fn paces(&self, now: Moment, budget: &impl Fn(&str) -> Budget) -> Vec<Pace> {
        let mut loads = vec![Load::default(); self.payers.len()];
        for place in self.places.values() {
            loads[place.payer] = loads[place.payer].with(place.heat(now), place.cost);
        }
        let each = self.payers.iter().zip(loads);
        each.map(|(payer, load)| Pace::new(&load, &budget(&payer.name))).collect()
    }

    /// The forecast for each payer. If pushes are watched, they are for payers of more than `watched_from`
    /// repositories.
    pub fn forecasts(
        &self,
        budget: impl Fn(&str) -> Budget,
        watched_from: Option<usize>,
        webhook: bool,
    ) -> Vec<Forecast> {
        let mut payers: BTreeMap<&str, usize> = BTreeMap::new();
        for place in self.places.values() {
            *payers.entry(self.payers[place.payer].name.as_str()).or_default() += 1;
        }
        let forecast = |(payer, count)| {
            let pushes = watched_from.is_some_and(|from| count > from);
            Forecast::new(count, &budget(payer), HintSources { pushes, webhook })
        };
        payers.into_iter().map(forecast).collect()
    }

    fn next_of(&self, place: &Place, now: Moment, paces: &[Pace]) -> Option<Moment> {
        let (payer, pace) = (self.payers.get(place.payer)?, paces.get(place.payer)?);
        Some(place.next(now, pace)?.max(payer.paused))
    }
}

impl Place {
    fn heat(&self, now: Moment) -> Heat {
        if now < self.hot_until { Heat::Hot } else { self.heat }
    }

    /// When it is to be polled; `None` while a look is in progress.
    fn next(&self, now: Moment, pace: &Pace) -> Option<Moment> {
        if self.under_way {
            return None;
        }
        let by_pace = match self.looked {
            None => Moment::START,
            Some(_) if self.asked || self.unfinished => Moment::START,
            Some(looked) => {
                let (heat, mut every) = (self.heat(now), pace.every(self.heat(now)));
                if self.only_once && heat == Heat::Cold && every >= OFTEN {
                    every = every.max(AFTER_FIRST_LOOK);
                }
                looked + every
            }
        };
        Some(by_pace.max(self.rests_until))
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
