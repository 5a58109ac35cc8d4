//! A namespace that cannot be read holds only its classes: the jobs of the others still get runners.

use std::collections::BTreeMap;

use githubrunner_sim::world::World;
use jiff::{SignedDuration, Timestamp};

use super::{
    Checker,
    lifecycle::{Group, group_of_job, is_live},
    prompt::lasts,
};

/// A request to the other namespace that stalls delays a pass by this much. It is retried rarely.
const STALLED: SignedDuration = SignedDuration::from_secs(25);

impl Checker {
    /// Checks that each group of the own namespace has had a runner for each of its jobs lately.
    pub(super) fn serves_the_others(&mut self, world: &World, now: Timestamp) {
        if !self.only_elsewhere_fails {
            return;
        }
        let mut waits = std::mem::take(&mut self.waits);
        let mut supply: BTreeMap<&Group, usize> = BTreeMap::new();
        for (name, lifecycle) in self.lifecycles.iter() {
            let job = self.place.job(world, name);
            let dead = job.is_some_and(|job| !is_live(world, &self.place, job));
            lasts(&mut waits.dead, name, dead, now);
            *supply.entry(&lifecycle.group).or_default() += usize::from(lifecycle.supplies);
        }
        let patience = self.soon() + STALLED;
        let known = world.github_time(now) - patience;
        let mut demand: BTreeMap<Group, usize> = BTreeMap::new();
        let old = world.github.jobs().filter(|job| job.queued_at < known);
        for job in old.filter(|job| self.wants_runner(&waits, world, job, now)) {
            let group = group_of_job(job);
            if !self.settings.classes.is_elsewhere(&group.1) {
                *demand.entry(group).or_default() += 1;
            }
        }
        waits.groups.retain(|group, _| demand.contains_key(group));
        let mut late = Vec::new();
        for (group, wanted) in demand {
            let at_hand = supply.get(&group).copied().unwrap_or(0);
            let lasted = lasts(&mut waits.groups, &group, wanted > at_hand, now);
            if lasted > patience && !self.is_at_its_cap(&group) {
                late.push(format!(
                    "{wanted} jobs of {group:?} have {at_hand} runners for {lasted}, for others' namespace"
                ));
            }
        }
        self.waits = waits;
        late.into_iter().for_each(|what| self.wrong(now, what));
    }

    fn is_at_its_cap(&self, group: &Group) -> bool {
        self.settings.classes.cap.is_some() && self.settings.classes.has_cap(&group.1)
    }
}
