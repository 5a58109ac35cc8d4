//! What a job should have against what it has: what is placed, stopped, replaced.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::spec::Group;
use super::state::{Allocation, Client, Counts, Reschedule, Task, TaskPhase};
use super::{Due, Key, Nomad, view};

/// Why an allocation is no longer wanted, in Nomad's words.
pub const NOT_NEEDED: &str = "alloc not needed due to job update";
/// A node that is drained.
pub const MIGRATING: &str = "alloc is being migrated";
const UPDATING: &str = "alloc is being updated due to job update";

/// What became of one evaluation.
#[derive(Default)]
pub struct Outcome {
    /// New allocations.
    pub placed: Vec<String>,
    /// Allocations that are no longer wanted.
    pub stopped: Vec<String>,
    /// By group: why not all was placed.
    pub failed: BTreeMap<String, serde_json::Value>,
    /// By group: how many wait.
    pub queued: BTreeMap<String, u64>,
    /// By group: what was done.
    pub counts: BTreeMap<String, Counts>,
}

impl Nomad {
    /// Brings a job's allocations to what it should have.
    pub(super) fn reconcile(&mut self, key: &Key, evaluation: &str) -> Outcome {
        let mut outcome = Outcome::default();
        let index = self.index + 1;
        let ids: Vec<String> = self.by_job.get(key).into_iter().flatten().cloned().collect();
        let (version, groups) = match self.jobs.get(key) {
            Some(job) if !job.stop => (job.version, job.groups.clone()),
            other => {
                for name in other.into_iter().flat_map(|job| job.groups.iter().map(|g| g.name.clone())) {
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
                return outcome;
            }
        };
        for group in groups {
            let mut queued = 0u64;
            let mut failed: Option<Box<super::placement::Metrics>> = None;
            let Counts { mut place, mut stop, mut migrate } = Counts::default();
            for slot in 0..group.count {
                let mine: Vec<&Allocation> = ids
                    .iter()
                    .filter_map(|id| self.allocations.get(id))
                    .filter(|a| a.group == group.name && a.index == slot && !a.purged)
                    .collect();
                let outdated: Vec<String> = mine
                    .iter()
                    .filter(|a| !a.terminal() && a.job_version != version)
                    .map(|a| a.id.clone())
                    .collect();
                let moving = mine.iter().find(|a| a.moves && !a.terminal()).map(|a| a.id.clone());
                let kept = mine.iter().any(|a| a.job_version == version && holds_its_place(a));
                let kept = kept && moving.is_none();
                let previous = mine
                    .iter()
                    .filter(|a| {
                        a.client_status == "lost"
                            || a.client_status == "unknown"
                            || a.client_status == "failed"
                    })
                    .max_by_key(|a| a.create_index)
                    .map(|a| a.id.clone());
                let previous = moving.clone().or(previous);
                if let Some(id) = &moving {
                    let own = self.allocations.get(id).map(|a| a.eval_id.clone()).unwrap_or_default();
                    self.desire_stop(id, MIGRATING, &own, index);
                    outcome.stopped.push(id.clone());
                }
                for id in outdated {
                    if self.desire_stop(&id, UPDATING, evaluation, index) {
                        stop += 1;
                        outcome.stopped.push(id);
                    }
                }
                if kept {
                    continue;
                }
                match moving {
                    Some(_) => migrate += 1,
                    None => place += 1,
                }
                if let Some(metrics) = failed.as_mut() {
                    metrics.coalesce();
                    queued += 1;
                    continue;
                }
                match self.place_without(&group, moving.as_deref()) {
                    Ok(node) => {
                        let id = self.allocate(key, &group, slot, &node, evaluation, index, previous);
                        outcome.placed.push(id);
                    }
                    Err(metrics) => {
                        queued += 1;
                        failed = Some(metrics);
                    }
                }
            }
            // Allocations beyond the count, or of groups' former sizes.
            for id in &ids {
                let surplus = self
                    .allocations
                    .get(id)
                    .is_some_and(|a| a.group == group.name && a.index >= group.count && !a.terminal());
                if surplus && self.desire_stop(id, NOT_NEEDED, evaluation, index) {
                    stop += 1;
                    outcome.stopped.push(id.clone());
                }
            }
            if let Some(metrics) = failed {
                outcome.failed.insert(group.name.clone(), metrics.json());
            }
            outcome.queued.insert(group.name.clone(), queued);
            outcome.counts.insert(group.name.clone(), Counts { place, stop, migrate });
        }
        self.commit_plan(&outcome, index);
        outcome
    }

    fn commit_plan(&mut self, outcome: &Outcome, index: u64) {
        if !outcome.placed.is_empty() || !outcome.stopped.is_empty() {
            self.index = index;
            self.tables.allocations = index;
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn allocate(
        &mut self,
        key: &Key,
        group: &Arc<Group>,
        slot: u64,
        node: &str,
        evaluation: &str,
        index: u64,
        previous: Option<String>,
    ) -> String {
        let id = self.new_id();
        let node_id = self.nodes.get(node).map(|n| n.id.clone()).unwrap_or_default();
        let clock_ahead = self.nodes.get(node).map_or(0, |n| n.node.clock_ahead.as_nanos());
        let clock_ahead = i64::try_from(clock_ahead).unwrap_or(0);
        let job = self.jobs.get(key);
        let tasks = group.tasks.iter().map(|spec| Task {
            name: spec.name.clone(),
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
        });
        let previous = previous.unwrap_or_default();
        let mut reschedules = Vec::new();
        if let Some(before) = self.allocations.get_mut(&previous) {
            before.next = id.clone();
            before.modify_index = index;
            if before.client_status == "failed" {
                before.desired_status = "stop";
                reschedules = before.reschedules.clone();
                let delay = group.reschedule.delay;
                reschedules.push(Reschedule { at: self.now, delay, previous: previous.clone() });
            }
        }
        let allocation = Allocation {
            id: id.clone(),
            name: format!("{}.{}[{slot}]", key.1, group.name),
            namespace: key.0.clone(),
            job_id: key.1.clone(),
            job_version: job.map_or(0, |job| job.version),
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
            kind: job.map(|job| job.kind.clone()).unwrap_or_default(),
            index: slot,
            followup: String::new(),
            reschedules,
            migrate: false,
            moves: false,
            spec: Arc::clone(group),
            job_name: job.map(|job| view::text(&job.spec, "Name")).unwrap_or_default(),
            job_meta: job.map(|job| job.meta.clone()).unwrap_or_default(),
            client: Client { tasks: tasks.collect(), ..Client::default() },
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

/// Whether an allocation still fills its slot, so that nothing is placed there.
fn holds_its_place(allocation: &Allocation) -> bool {
    match allocation.client_status {
        "lost" => false,
        "unknown" => {
            allocation.desired_status == "run" && !(allocation.spec.replace && allocation.next.is_empty())
        }
        "complete" => allocation.kind == "batch" && allocation.desired_status == "run",
        // A failed one is replaced only by its policy.
        "failed" => {
            allocation.next.is_empty() && allocation.desired_status == "run" && !allocation.due_again()
        }
        _ => allocation.desired_status == "run",
    }
}
