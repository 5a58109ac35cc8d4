//! What must be so when something is stopped, purged or deleted.

use std::time::Duration;

use githubrunner::sim::chaos::Trouble;
use githubrunner::sim::chaos::scenario::{Mode, Woe};
use githubrunner::sim::nomad::Allocation;
use githubrunner::sim::world::{LiveRunner, Phase, World};
use jiff::Timestamp;

use super::Truth;
use super::fates::{Fate, allocations, has_job, has_variable};

impl Truth {
    /// A runner is to be stopped or purged: it must be ours, and not busy.
    pub(super) fn deregisters(&mut self, world: &World, name: &str, purge: bool, now: Timestamp) {
        let Some(fate) = self.fates.get(name) else {
            return self.wrong(now, format!("a job that is not ours is stopped or purged: {name}"));
        };
        // What ran on a node that is lost, Nomad ends by itself.
        let lost = |live: &LiveRunner| {
            let is_its = |allocation: &&Allocation| allocation.id == live.allocation;
            let description = allocations(world, &self.place, name).find(is_its);
            description.is_some_and(|allocation| allocation.desired_description.contains("lost"))
        };
        for live in world.live_runners().iter().filter(|live| live.nomad_job == name && !lost(live)) {
            if purge && live.phase != Phase::Ending {
                self.wrong(now, format!("{name} is purged while its process runs"));
            }
            if live.phase != Phase::Ending && has_job(world, live) {
                self.wrong(now, format!("a busy runner is stopped: {name}"));
            }
        }
        if purge {
            if has_variable(world, name) {
                self.wrong(now, format!("{name} is purged before its variable"));
            }
        } else {
            self.was_not_needed(name, fate, now);
        }
    }

    /// Only a runner that nobody needs goes: surplus in two listings, idle for long enough.
    fn was_not_needed(&self, name: &str, fate: &Fate, now: Timestamp) {
        // What answers say is not so, or the daemon looks when it is not its time.
        let unsure = self.woes.iter().any(|woe| {
            let unsure = [Woe::RunLag, Woe::Hangups, Woe::Deaths, Woe::Repositories, Woe::Token];
            matches!(woe, Woe::Exchange(trouble) if *trouble != Trouble::Pages && *trouble != Trouble::Totals)
                || unsure.contains(woe)
        });
        // Who works under another name looks idle to the daemon.
        if unsure || !fate.available || self.mode == Mode::Renamed {
            return;
        }
        let settings = &self.settings;
        // A runner that was never placed yields to others, needed or not.
        let yields = settings.make_room.is_some() && fate.idle_since.is_none();
        let passed = |since: Timestamp| Duration::try_from(now.duration_since(since)).unwrap_or_default();
        let surplus = fate.surplus_since.map(passed);
        if !yields && surplus.is_none_or(|surplus| surplus * 10 < settings.loop_interval * 9) {
            self.wrong(now, format!("{name} is stopped, surplus for {surplus:?} only"));
        }
        if let Some(idle) = fate.idle_since.map(passed)
            && !settings.strict
            && settings.make_room.is_none()
            && idle + Duration::from_secs(2) < settings.inactivity
        {
            self.wrong(now, format!("{name} is stopped after {idle:?}, before it was idle for long enough"));
        }
    }

    pub(super) fn deletes_variable(&mut self, world: &World, name: &str, now: Timestamp) {
        if !self.fates.contains_key(name) {
            return self.wrong(now, format!("a variable that is not ours is deleted: {name}"));
        }
        let live = allocations(world, &self.place, name).any(|allocation| !allocation.client_terminal());
        if live {
            self.wrong(now, format!("the variable of {name} is deleted while it has an allocation"));
        }
    }

    pub(super) fn deletes_registration(&mut self, world: &World, id: u64, now: Timestamp) {
        let Some(runner) = world.github.runner(id) else { return };
        if !self.fates.contains_key(&runner.name) {
            self.wrong(now, format!("a registration that is not ours is deleted: {}", runner.name));
        }
    }
}
