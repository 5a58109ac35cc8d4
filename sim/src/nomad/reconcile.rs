//! Compares the wanted and the actual allocations of a job: what to place, stop and replace.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Due, Key, Nomad,
    spec::Group,
    state::{Allocation, Client, Counts, OfJob, Replacement, Reschedule, Task, TaskPhase},
    view,
};

/// Why an allocation is no longer wanted, with Nomad's text.
pub const NOT_NEEDED: &str = "alloc not needed due to job update";
/// The node is drained.
pub const MIGRATING: &str = "alloc is being migrated";
const UPDATING: &str = "alloc is being updated due to job update";

/// The result of one evaluation.
#[derive(Default)]
pub struct Outcome {
    /// New allocations.
    pub placed: Vec<String>,
    /// Allocations that are no longer wanted.
    pub stopped: Vec<String>,
    /// By group: why some could not be placed.
    pub failed: BTreeMap<String, serde_json::Value>,
    /// By group: the number of waiting allocations.
    pub queued: BTreeMap<String, u64>,
    /// By group: the changes.
    pub counts: BTreeMap<String, Counts>,
}

/// An evaluation in progress.
struct Work<'a> {
    key: &'a Key,
    evaluation: &'a str,
    index: u64,
    /// The job's version.
    version: u64,
    /// All its allocations.
    ids: &'a [String],
}

/// The allocations in one slot of a group.
struct Slot {
    /// Those of earlier versions of the job.
    outdated: Vec<String>,
    /// To be stopped and replaced.
    moving: Option<String>,
    /// It is occupied: nothing is to be placed.
    kept: bool,
    /// The last one that ended here.
    previous: Option<String>,
}

/// A new task.
fn fresh_task(name: &str) -> Task {
    Task {
        name: name.to_owned(),
        phase: TaskPhase::New,
        failed: false,
        restarts: 0,
        started_at: None,
        finished_at: None,
        last_restart: None,
        events: Vec::new(),
        recent_restarts: Vec::new(),
        env: BTreeMap::new(),
        round: 0,
        again: None,
    }
}

impl Nomad {
    /// Reconciles a job's allocations.
    pub(super) fn reconcile(&mut self, key: &Key, evaluation: &str) -> Outcome {
        let index = self.index + 1;
        let ids: Vec<String> = self.by_job.get(key).into_iter().flatten().cloned().collect();
        let (version, groups) = match self.jobs.get(key) {
            Some(job) if !job.stop => (job.version, job.groups.clone()),
            other => {
                let names =
                    other.into_iter().flat_map(|job| job.groups.iter().map(|group| group.name.clone()));
                let names: Vec<String> = names.collect();
                return self.stop_all(names, ids, evaluation);
            }
        };
        let mut outcome = Outcome::default();
        let work = Work { key, evaluation, index, version, ids: &ids };
        for group in groups {
            self.reconcile_group(&work, &group, &mut outcome);
        }
        self.commit_plan(&outcome, index);
        outcome
    }

    /// Stops all allocations of a job that is stopped or gone.
    fn stop_all(&mut self, groups: Vec<String>, ids: Vec<String>, evaluation: &str) -> Outcome {
        let mut outcome = Outcome::default();
        let index = self.index + 1;
        for name in groups {
            outcome.queued.insert(name.clone(), 0);
            outcome.counts.insert(name, Counts::default());
        }
        for id in ids {
            if self.desire_stop(&id, NOT_NEEDED, evaluation, index) {
                let group = self.allocations.get(&id).map(|a| a.group.clone()).unwrap_or_default();
                outcome.counts.entry(group).or_default().stop += 1;
                outcome.stopped.push(id);
            }
        }
        self.commit_plan(&outcome, index);
        outcome
    }

    fn reconcile_group(&mut self, work: &Work<'_>, group: &Arc<Group>, outcome: &mut Outcome) {
        let (mut queued, mut counts) = (0u64, Counts::default());
        let mut failed: Option<Box<super::placement::Metrics>> = None;
        for number in 0..group.count {
            let slot = self.slot(work, group, number);
            if let Some(id) = &slot.moving {
                let own = self.allocations.get(id).map(|a| a.eval_id.clone()).unwrap_or_default();
                self.desire_stop(id, MIGRATING, &own, work.index);
                outcome.stopped.push(id.clone());
            }
            for id in slot.outdated {
                if self.desire_stop(&id, UPDATING, work.evaluation, work.index) {
                    counts.stop += 1;
                    outcome.stopped.push(id);
                }
            }
            if slot.kept {
                continue;
            }
            match slot.moving {
                Some(_) => counts.migrate += 1,
                None => counts.place += 1,
            }
            if let Some(metrics) = failed.as_mut() {
                metrics.coalesce();
                queued += 1;
                continue;
            }
            match self.place_without(group, slot.moving.as_deref()) {
                Ok(node) => {
                    let previous = slot.moving.or(slot.previous);
                    outcome.placed.push(self.allocate(work, group, number, &node, previous));
                }
                Err(metrics) => {
                    queued += 1;
                    failed = Some(metrics);
                }
            }
        }
        counts.stop += self.stop_surplus(work, group, outcome);
        if let Some(metrics) = failed {
            outcome.failed.insert(group.name.clone(), metrics.json());
        }
        outcome.queued.insert(group.name.clone(), queued);
        outcome.counts.insert(group.name.clone(), counts);
    }

    /// The allocations in one slot of a group.
    fn slot(&self, work: &Work<'_>, group: &Group, number: u64) -> Slot {
        let mine: Vec<&Allocation> = work
            .ids
            .iter()
            .filter_map(|id| self.allocations.get(id))
            .filter(|a| a.group == group.name && a.index == number && !a.purged)
            .collect();
        let id = |a: &&Allocation| a.id.clone();
        let is_over = |a: &&&Allocation| matches!(a.client_status, "lost" | "unknown" | "failed");
        let outdated =
            mine.iter().filter(|a| !a.terminal() && a.job.version != work.version).map(id).collect();
        let moving = mine.iter().find(|a| a.replacement.moves && !a.terminal()).map(id);
        let kept = mine.iter().any(|a| a.job.version == work.version && holds_its_place(a));
        Slot {
            outdated,
            kept: kept && moving.is_none(),
            previous: mine.iter().filter(is_over).max_by_key(|a| a.create_index).map(id),
            moving,
        }
    }

    /// Stops allocations beyond the count. Returns their number.
    fn stop_surplus(&mut self, work: &Work<'_>, group: &Group, outcome: &mut Outcome) -> u64 {
        let mut stopped = 0;
        for id in work.ids {
            let surplus = self
                .allocations
                .get(id)
                .is_some_and(|a| a.group == group.name && a.index >= group.count && !a.terminal());
            if surplus && self.desire_stop(id, NOT_NEEDED, work.evaluation, work.index) {
                stopped += 1;
                outcome.stopped.push(id.clone());
            }
        }
        stopped
    }

    fn commit_plan(&mut self, outcome: &Outcome, index: u64) {
        if !outcome.placed.is_empty() || !outcome.stopped.is_empty() {
            self.index = index;
            self.tables.allocations = index;
        }
    }

    /// Records that this allocation replaces another one. Returns the previous reschedules.
    fn is_replaced(&mut self, previous: &str, by: &str, group: &Group, index: u64) -> Vec<Reschedule> {
        let now = self.now;
        let Some(before) = self.allocations.get_mut(previous) else { return Vec::new() };
        before.next = by.to_owned();
        before.modify_index = index;
        if before.client_status != "failed" {
            return Vec::new();
        }
        before.desired_status = "stop";
        let mut reschedules = before.replacement.reschedules.clone();
        reschedules.push(Reschedule {
            at: now,
            delay: group.reschedule.delay,
            previous: previous.to_owned(),
        });
        reschedules
    }

    fn allocate(
        &mut self,
        work: &Work<'_>,
        group: &Arc<Group>,
        slot: u64,
        node: &str,
        previous: Option<String>,
    ) -> String {
        let Work { key, evaluation, index, .. } = *work;
        let id = self.new_id();
        let node_id = self.nodes.get(node).map(|n| n.id.clone()).unwrap_or_default();
        let clock_ahead = self.nodes.get(node).map_or(0, |n| n.node.clock_ahead.as_nanos());
        let clock_ahead = i64::try_from(clock_ahead).unwrap_or(0);
        let previous = previous.unwrap_or_default();
        let reschedules = self.is_replaced(&previous, &id, group, index);
        let job = self.jobs.get(key);
        let allocation = Allocation {
            id: id.clone(),
            name: format!("{}.{}[{slot}]", key.1, group.name),
            namespace: key.0.clone(),
            job_id: key.1.clone(),
            group: group.name.clone(),
            node: node.to_owned(),
            node_id,
            eval_id: evaluation.to_owned(),
            desired_status: "run",
            desired_description: "",
            client_status: "pending",
            client_description: "",
            tasks: Vec::new(),
            create_index: index,
            modify_index: index,
            create_time: self.now,
            modify_time: self.now,
            next: String::new(),
            previous,
            alloc_modify_index: index,
            job: OfJob {
                version: job.map_or(0, |job| job.version),
                kind: job.map(|job| job.kind.clone()).unwrap_or_default(),
                name: job.map(|job| view::text(&job.spec, "Name")).unwrap_or_default(),
                meta: job.map(|job| job.meta.clone()).unwrap_or_default(),
            },
            index: slot,
            replacement: Replacement { reschedules, ..Replacement::default() },
            spec: Arc::clone(group),
            client: Client {
                tasks: group.tasks.iter().map(|spec| fresh_task(&spec.name)).collect(),
                ..Client::default()
            },
            purged: false,
            unknown_since: 0,
            clock_ahead,
        };
        self.allocations.insert(id.clone(), allocation);
        self.by_job.entry(key.clone()).or_default().insert(id.clone());
        self.later(self.options.delays.setup, Due::Setup(id.clone()));
        id
    }
}

/// Whether an allocation still occupies its slot, so that nothing is placed there.
fn holds_its_place(allocation: &Allocation) -> bool {
    match allocation.client_status {
        "lost" => false,
        "unknown" => {
            allocation.desired_status == "run" && !(allocation.spec.replace && allocation.next.is_empty())
        }
        "complete" => allocation.job.kind == "batch" && allocation.desired_status == "run",
        // A failed one is replaced only if its policy says so.
        "failed" => {
            allocation.next.is_empty() && allocation.desired_status == "run" && !allocation.due_again()
        }
        _ => allocation.desired_status == "run",
    }
}
