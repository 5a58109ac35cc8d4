//! What must hold when a runner is registered in Nomad.

use std::time::Duration;

use bytes::Bytes;
use githubrunner_sim::{
    fault::Arrived,
    github::{Job, Status},
    nomad,
    world::World,
};
use githubrunner_specification::invariants::wait_after;
use hyper::Request;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{
    Checker,
    lifecycle::{
        Group, Lifecycle, allocations, group_of, group_of_job, group_of_labels, is_live, is_lost,
        was_replaced_since,
    },
    sender,
};
use crate::{
    deployment::{ELSEWHERE, META, meta_of},
    faults::{
        kind::FaultKind,
        labels::is_servable,
        scenario::{Happening, Scenario},
        settings::Mode,
        trouble::Trouble,
    },
};

impl Checker {
    /// A runner is about to be registered.
    pub(super) fn registers(&mut self, world: &World, request: &Request<Bytes>, now: Timestamp) {
        let body: Value = serde_json::from_slice(request.body()).unwrap_or_default();
        let looked = self.looked(world, request, now);
        let name = body["Job"]["ID"].as_str().unwrap_or_default();
        if body["EnforceIndex"] != true || body["JobModifyIndex"] != 0 {
            self.wrong(now, format!("{name} is registered without EnforceIndex 0"));
        }
        // Old servers do not know `disconnect`, so it is removed on the way to them.
        let as_asked = !self.has_any(&[FaultKind::OldServers, FaultKind::LostAfter]);
        if self.mode != Mode::AccessToken && as_asked && !runs_once(&body["Job"]) {
            self.wrong(now, format!("{name} may be started again by Nomad, with a secret that is used"));
        }
        let meta = meta_of(body["Job"]["Meta"][META].as_str());
        self.sights.does(request, |history| history.asks_for(name, &meta));
        if meta["warm"].is_object() {
            return self.registers_warm(world, name, &meta, now);
        }
        let Some(job_id) = meta["job_id"].as_u64() else {
            return self.wrong(now, format!("{name} has no job_id in its Meta: {meta}"));
        };
        if self.place.job(world, name).is_some() {
            return;
        }
        match world.github.job(job_id) {
            None => self.wrong(now, format!("{name} is started for job {job_id}, which is not there")),
            Some(job) => {
                self.has_job(world, name, &meta, job, now);
                self.overtakes(world, name, job, now);
            }
        }
        let is_same = |deployment: &Value| *deployment == meta["instance"];
        if !self.lifecycles.deployments().iter().all(is_same) && !self.has(FaultKind::RestartsEmpty) {
            self.wrong(
                now,
                format!("{name} is of another deployment, and nobody has forgotten the first one"),
            );
        }
        for (other, lifecycle) in self.lifecycles.of_job(job_id).filter(|(other, _)| *other != name) {
            // If the agent and the daemon forgot everything at once, what they knew belongs to another
            // deployment.
            let two_lead = self.leases.two_may_lead(world, now);
            let job = self.place.job(world, other);
            // An old list may still show a runner as dead that was purged and registered again since.
            let is_unseen = self.has(FaultKind::Exchange(Trouble::Lag))
                && !self.is_so_for_long(Some(lifecycle.registered_at), now);
            let is_nobodys = job.is_some_and(|job| self.sights.is_of_a_forgotten_key(world, job));
            if is_same(&lifecycle.deployment)
                && lifecycle.available
                && !is_nobodys
                && !is_unseen
                && !self.is_unknown_for_long(lifecycle, now)
                && !two_lead
                && self.is_so_for_long(lifecycle.unavailable_at, now)
            {
                self.wrong(now, format!("{name} is started for job {job_id}, which has {other} already"));
            }
        }
        self.is_missing(world, name, &meta, now);
        self.has_no_warm_one(world, name, job_id, now);
        self.has_waited(world, name, job_id, meta["attempt"].as_u64().unwrap_or_default(), looked, now);
    }

    fn has_job(&self, world: &World, name: &str, meta: &Value, job: &Job, now: Timestamp) {
        let wrong = |what: &str| self.wrong(now, format!("{name} is started for job {}, {what}", job.id));
        if group_of(meta) != group_of_job(job) {
            wrong(&format!("which is of another group: {:?} and not {meta}", job.labels));
        }
        if !is_servable(&job.labels) {
            wrong("whose labels no runner may have");
        }
        if self.is_left_out(job.repository, now) {
            wrong("whose repository the configuration does not name");
        }
        if self.archived.get(&job.repository).is_some_and(|at| self.is_so_for_long(Some(*at), now)) {
            wrong("whose repository takes none");
        }
        match left_queue(job) {
            Queue::Never => wrong("which was never queued"),
            Queue::Left(left) if world.github_time(now).duration_since(left) > self.slack => {
                wrong(&format!("which left the queue at {left}"));
            }
            Queue::Left(_) | Queue::In => {}
        }
    }

    /// Whether the configuration has not named a repository for a long time.
    pub(super) fn is_left_out(&self, repository: u64, now: Timestamp) -> bool {
        self.times_left_out(repository)
            .any(|(from, until)| now < until && self.is_so_for_long(Some(from), now))
    }

    /// The times during which the configuration does not name a repository.
    pub(super) fn times_left_out(&self, repository: u64) -> impl Iterator<Item = (Timestamp, Timestamp)> {
        let at = self.place.repositories.iter().position(|id| *id == repository);
        let left_out = self.left_out.iter().filter(move |(out, ..)| Some(*out) == at);
        left_out.map(|(_, from, until)| (*from, *until))
    }

    /// No more runners than there are jobs for.
    fn is_missing(&self, world: &World, name: &str, meta: &Value, now: Timestamp) {
        let group = group_of(meta);
        let at_hand = self.lifecycles.open().filter(|(name, lifecycle)| {
            let settled = self.is_so_for_long(Some(lifecycle.registered_at), now)
                && self.is_so_for_long(lifecycle.unavailable_at, now);
            let job = self.place.job(world, name);
            // GitHub may no longer know a runner that someone restored.
            lifecycle.group == group
                && lifecycle.warm.is_none()
                && !job.is_some_and(|job| self.sights.is_of_a_forgotten_key(world, job))
                && lifecycle.available
                && settled
                && !lifecycle.is_revived
                && !self.is_unknown_for_long(lifecycle, now)
        });
        let wanted = self.lately_queued(world, &group, now);
        let at_hand: Vec<&String> = at_hand.map(|(name, _)| name).collect();
        if at_hand.len() >= wanted {
            self.wrong(
                now,
                format!("{name} is started although {at_hand:?} are available for {wanted} jobs"),
            );
        }
    }

    /// Whether it has been idle under another name for so long that verifications have not found it for ten minutes.
    /// Then it no longer counts, and its job may have another attempt.
    pub(super) fn is_unknown_for_long(&self, lifecycle: &Lifecycle, now: Timestamp) -> bool {
        let long = SignedDuration::from_secs(600);
        self.mode == Mode::Renamed
            && lifecycle.idle_since.is_some_and(|since| now.duration_since(since) >= long)
    }

    /// How many of a group's jobs are queued, or were when a pass that is still acting observed.
    pub(super) fn lately_queued(&self, world: &World, group: &Group, now: Timestamp) -> usize {
        let at_github = world.github_time(now);
        let of_group = |repository: u64, labels: &[String]| group_of_labels(repository, labels) == *group;
        let queued = world.github.queued().filter(|(repository, labels, _)| of_group(*repository, labels));
        let since = at_github.checked_sub(self.slack).unwrap_or(Timestamp::MIN);
        let lately = world.github.changed_since(since).filter(|job| {
            let left =
                matches!(left_queue(job), Queue::Left(at) if at_github.duration_since(at) <= self.slack);
            left && of_group(job.repository, &job.labels)
        });
        queued.map(|(_, _, line)| line.len()).sum::<usize>() + lately.count()
    }

    /// A runner's credentials are about to be written.
    pub(super) fn gets_secret(&self, world: &World, name: &str, now: Timestamp) {
        let Some(lifecycle) = self.lifecycles.get(name) else {
            return self.wrong(now, format!("a secret for what is not ours: {name}"));
        };
        // Credentials need no listing. A daemon that has just started and cannot see the repository does not know.
        let forgets = self.has(FaultKind::Deaths)
            && self.faults.iter().any(|fault| matches!(fault, FaultKind::Exchange(_) | FaultKind::Token));
        let archived = self.archived.get(&lifecycle.group.0).filter(|_| !forgets);
        if archived.is_some_and(|at| self.is_so_for_long(Some(*at), now)) {
            self.wrong(now, format!("{name} gets a secret, and its repository takes no jobs"));
        }
        if self.is_left_out(lifecycle.group.0, now) {
            self.wrong(
                now,
                format!("{name} gets a secret, and the configuration does not name its repository"),
            );
        }
        let at_nomad = world.nomad_time(now).as_nanosecond();
        let lost = allocations(world, &self.place, name).any(|allocation| {
            let passed = at_nomad - i128::from(allocation.modify_time);
            is_lost(allocation) && passed > self.slack.as_nanos()
        });
        if lost {
            self.wrong(now, format!("{name} gets a secret after its allocation was lost"));
        }
    }

    /// The next attempt has the next number, and waits after the death of the last one.
    fn has_waited(
        &self,
        world: &World,
        name: &str,
        job_id: u64,
        attempt: u64,
        looked: Timestamp,
        now: Timestamp,
    ) {
        let last = self.lifecycles.of_job(job_id).max_by_key(|(_, f)| f.attempt);
        let Some((last, lifecycle)) = last else { return };
        // If someone removes jobs, attempts are no longer counted. A job whose runners were purged in time is queued
        // again if listings lag, or if the repository was not visible.
        let gone = [
            FaultKind::Purges,
            FaultKind::RestartsEmpty,
            FaultKind::RunLag,
            FaultKind::Repositories,
            FaultKind::Namesakes,
            FaultKind::Exchange(Trouble::Lag),
        ];
        let counts = !self.has_any(&gone);
        // A request that takes effect late may have taken effect before, and its runner may have been purged by
        // now.
        let again = last == name && self.has(FaultKind::Exchange(Trouble::Late));
        if counts && !again && attempt <= lifecycle.attempt {
            self.wrong(
                now,
                format!("{name} is attempt {attempt} after {last}, attempt {}", lifecycle.attempt),
            );
        }
        // A death on a disconnected node becomes known later. Until then the runner is not dead, but useless.
        let unheard = [
            FaultKind::NodesCrash,
            FaultKind::NodesCut,
            FaultKind::LostAfter,
            FaultKind::OldServers,
            FaultKind::NodeClocks,
        ];
        if self.has_any(&unheard) {
            return;
        }
        // An old listing may show the last runner's earlier death.
        if self.place.job(world, last).is_none() || self.has(FaultKind::Exchange(Trouble::Lag)) {
            return;
        }
        let ended = allocations(world, &self.place, last).flat_map(|allocation| &allocation.tasks);
        let Some(ended) = ended.filter_map(|task| task.finished_at).max() else { return };
        // A runner that died while the pass was listing GitHub was alive when it observed Nomad. If GitHub
        // stalls, passes that observe only Nomad have ended since.
        let stalls =
            [Trouble::Stall, Trouble::LateStall, Trouble::Slow, Trouble::SlowPages].map(FaultKind::Exchange);
        let patience = match (self.steady, self.has_any(&stalls)) {
            (true, _) => 0,
            (false, true) => 30_000_000_000,
            (false, false) => 2_000_000_000,
        };
        if i128::from(ended) + patience > looked.as_nanosecond() {
            return;
        }
        let at_nomad = world.nomad_time(now).as_nanosecond();
        let waited = Duration::from_nanos(u64::try_from(at_nomad - i128::from(ended)).unwrap_or(0));
        let wait = wait_after(lifecycle.attempt);
        let is_over = allocations(world, &self.place, last).all(|allocation| allocation.client_terminal());
        if is_over && !lifecycle.of_no_use && waited + Duration::from_secs(2) < wait {
            self.wrong(now, format!("{name} is started {waited:?} after the death of {last}, not {wait:?}"));
        }
    }

    /// The caps count runners that are not dead, and a registration must not exceed them.
    pub(super) fn was_registered(&mut self, world: &World, request: &Request<Bytes>, now: Timestamp) {
        let body: Value = serde_json::from_slice(request.body()).unwrap_or_default();
        let name = body["Job"]["ID"].as_str().unwrap_or_default().to_owned();
        let meta = meta_of(body["Job"]["Meta"][META].as_str());
        let Arrived(asked_at) = request.extensions().get().copied().unwrap_or(Arrived(now));
        self.sights.has_sealed(&meta["mac"], world.nomad_time(asked_at));
        self.lifecycles.insert(name.clone(), Lifecycle { asked_at, ..Lifecycle::new(&meta, now) });
        let Some(own) = self.lifecycles.get(&name) else { return };
        let looked = self.looked(world, request, now);
        let listed = self.looked[sender(request)].jobs.unwrap_or(now);
        // Nomad may have replaced what the daemon saw as dead, and an earlier request may have taken effect
        // since.
        let unseen = |name: &str, lifecycle: &Lifecycle| {
            let late = lifecycle.asked_at < listed && lifecycle.registered_at >= listed;
            late || was_replaced_since(world, &self.place, name, looked)
        };
        let is_live = |name: &str| {
            let job = self.place.job(world, name);
            // A runner that someone registered again with the seal of a forgotten key belongs to nobody, and
            // takes no place.
            let is_ours = |job: &&nomad::Job| !self.sights.is_of_a_forgotten_key(world, job);
            job.filter(is_ours).is_some_and(|job| is_live(world, &self.place, job))
        };
        let of_deployment = self.lifecycles.open().filter(|(_, other)| other.deployment == own.deployment);
        // A daemon that has not seen them since its start does not count them.
        let uncounted =
            |name: &str| self.has(FaultKind::Namespaces) && self.place.namespace_of(world, name) == ELSEWHERE;
        let live = of_deployment
            .filter(|(name, lifecycle)| is_live(name) && !unseen(name, lifecycle) && !uncounted(name));
        // An organization's warm runner belongs to none of its repositories.
        let is_shared = |lifecycle: &Lifecycle| lifecycle.warm.is_some() && self.settings.access.organization;
        let live: Vec<(&Group, bool)> =
            live.map(|(_, lifecycle)| (&lifecycle.group, is_shared(lifecycle))).collect();
        let own_is_shared = is_shared(own);
        let within = |counts: &dyn Fn(&Group) -> bool| {
            live.iter().filter(|(other, shared)| !own_is_shared && !shared && counts(other)).count()
        };
        let counts =
            [live.len(), within(&|other| other.0 == own.group.0), within(&|other| *other == own.group)];
        let classes = self.settings.classes;
        let of_class = live.iter().filter(|(other, _)| classes.has_cap(&other.1)).count();
        let class_cap = classes.cap.filter(|_| classes.has_cap(&own.group.1));
        let caps = self.caps.iter().copied().zip(counts).chain([(class_cap, of_class)]);
        for ((cap, count), what) in caps.zip(["", " of its repository", " of its group", " of its class"]) {
            // A follower's old data lacks the runners that were started since.
            if cap.is_some_and(|cap| count > cap) && !self.has(FaultKind::Exchange(Trouble::Lag)) {
                self.wrong(now, format!("{name} is one of {count} runners{what}, over the cap"));
            }
        }
    }

    /// Whether something has been so for long enough that every pass that can still act has seen it.
    pub(super) fn is_so_for_long(&self, since: Option<Timestamp>, now: Timestamp) -> bool {
        since.is_none_or(|since| now.duration_since(since) > self.slack)
    }

    pub(super) fn has(&self, fault: FaultKind) -> bool {
        self.faults.contains(&fault)
    }

    pub(super) fn has_any(&self, faults: &[FaultKind]) -> bool {
        faults.iter().any(|fault| self.has(*fault))
    }

    /// Records since when repositories take no jobs, as far as the daemon can know.
    pub(super) fn note_archived(&mut self, world: &World, now: Timestamp) {
        // They are resolved every minute (see the daemon's options here).
        let known_after = SignedDuration::from_secs(75);
        for id in &self.place.repositories {
            let takes_none = world.github.repository(*id).is_some_and(|r| r.archived || r.disabled);
            if takes_none {
                let at = now.checked_add(known_after).unwrap_or(now);
                self.archived.entry(*id).or_insert(at);
            } else {
                self.archived.remove(id);
            }
        }
    }
}

/// The repositories that the configuration does not name, and when.
pub(super) fn left_out(scenario: &Scenario) -> Vec<(usize, Timestamp, Timestamp)> {
    let at = |passed: &Duration| scenario.base.checked_add(*passed).unwrap_or(scenario.base);
    let mut all = Vec::new();
    let mut changes = scenario.happenings.iter().filter_map(|(passed, happening)| match happening {
        Happening::LeaveOut(which) if *passed < scenario.over => Some((at(passed), *which)),
        _ => None,
    });
    let mut last = changes.next();
    for next in changes.map(Some).chain([Some((at(&scenario.over), None))]) {
        if let (Some((from, Some(which))), Some((until, _))) = (last, next) {
            all.push((which, from, until));
        }
        last = next;
    }
    all
}

/// Whether Nomad neither starts anything of a job a second time nor gives up on it for a day.
fn runs_once(job: &Value) -> bool {
    let day = 24 * 3600 * 1_000_000_000_i64;
    job["TaskGroups"].as_array().is_some_and(|groups| {
        groups.iter().all(|group| {
            group["RestartPolicy"]["Attempts"] == 0
                && group["ReschedulePolicy"]["Attempts"] == 0
                && group["ReschedulePolicy"]["Unlimited"] != true
                && group["Disconnect"]["LostAfter"].as_i64() == Some(day)
        })
    })
}

/// Whether a job is queued.
enum Queue {
    In,
    Left(Timestamp),
    Never,
}

/// When a job was no longer queued, by GitHub's clock.
fn left_queue(job: &Job) -> Queue {
    let left = match job.status {
        Status::Queued => return Queue::In,
        Status::InProgress => Some(job.started_at),
        Status::Completed if job.runner.is_some() => Some(job.started_at),
        Status::Completed => job.completed_at.filter(|_| job.turn > 0),
        _ => None,
    };
    left.map_or(Queue::Never, Queue::Left)
}
