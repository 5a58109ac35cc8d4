//! Evaluations: the wanted and the actual state of a job (contract, sections 2 and 10).

use std::collections::BTreeMap;

use super::{Due, Key, Nomad, reconcile::Outcome, state::Evaluation};

const RECONNECTED: &str = "alloc not needed due to disconnected client reconnect";
/// A node that is down.
pub const LOST: &str = "alloc is lost since its node is down";
/// A node that is disconnected.
pub const UNKNOWN: &str = "alloc is unknown since its node is disconnected";
impl Nomad {
    /// Creates a pending evaluation at the current index, and schedules its processing.
    pub(super) fn new_evaluation(
        &mut self,
        key: &Key,
        kind: &str,
        priority: i64,
        cause: &'static str,
    ) -> String {
        let id = self.new_id();
        let evaluation = Evaluation {
            id: id.clone(),
            namespace: key.0.clone(),
            job_id: key.1.clone(),
            kind: kind.to_owned(),
            priority,
            status: "pending",
            status_description: String::new(),
            triggered_by: cause,
            create_index: self.index,
            modify_index: self.index,
            create_time: self.now,
            modify_time: self.now,
            failed: BTreeMap::new(),
            job_modify_index: self.jobs.get(key).map_or(self.index, |job| job.job_modify_index),
            snapshot_index: 0,
            previous: String::new(),
            blocked: String::new(),
            wait_until: 0,
            queued: None,
            placed: None,
        };
        self.evaluations.insert(id.clone(), evaluation);
        self.pending.insert((key.clone(), id.clone()));
        self.tables.evaluations = self.index;
        self.later(self.options.delays.placement, Due::Evaluate(id.clone()));
        id
    }

    /// Processes an evaluation.
    pub(super) fn evaluate(&mut self, id: &str) {
        let Some(evaluation) = self.evaluations.get(id) else { return };
        if evaluation.status != "pending" && evaluation.status != "blocked" {
            return;
        }
        let again = evaluation.status == "blocked";
        let key = (evaluation.namespace.clone(), evaluation.job_id.clone());
        let snapshot = self.index;
        let outcome = self.reconcile(&key, id);
        if again && !outcome.failed.is_empty() && outcome.placed.is_empty() && outcome.stopped.is_empty() {
            // Still blocked, but what it lacks may have changed.
            if let Some(evaluation) = self.evaluations.get_mut(id) {
                evaluation.failed = outcome.failed;
            }
            return;
        }
        if !outcome.placed.is_empty() || !outcome.stopped.is_empty() {
            self.publish_plan(&key, id, &outcome);
        }
        let blocked = self.block_the_rest(&key, id, &outcome);
        let index = self.next_index();
        self.tables.evaluations = index;
        self.pending.remove(&(key.clone(), id.to_owned()));
        if blocked.is_empty() && self.blocked.get(&key).is_some_and(|open| open == id) {
            self.blocked.remove(&key);
        }
        let now = self.now;
        if let Some(evaluation) = self.evaluations.get_mut(id) {
            evaluation.status = "complete";
            evaluation.status_description = String::new();
            evaluation.modify_index = index;
            evaluation.modify_time = now;
            evaluation.snapshot_index = snapshot;
            evaluation.failed = outcome.failed;
            evaluation.blocked = blocked;
            evaluation.queued = Some(outcome.queued).filter(|queued| !queued.is_empty());
            evaluation.placed = Some(outcome.counts);
        }
        if let Some(job) = self.jobs.get_mut(&key) {
            job.summary_index = index;
        }
        self.stream_evaluation(id, "EvaluationUpdated");
        self.refresh_status(&key, "EvaluationUpdated");
    }

    /// Publishes the allocations that a plan placed and stopped, and the resulting status of the job.
    fn publish_plan(&mut self, key: &Key, evaluation: &str, outcome: &Outcome) {
        if let Some(known) = self.evaluations.get_mut(evaluation) {
            known.modify_index = self.index;
        }
        self.stream_evaluation(evaluation, "PlanResult");
        for id in outcome.stopped.iter().chain(&outcome.placed) {
            self.stream_allocation(id, "PlanResult");
        }
        self.refresh_status(key, "PlanResult");
        for id in &outcome.stopped {
            self.client_stop(id);
        }
    }

    /// Unplaced allocations wait in a blocked evaluation. One that is no longer needed is cancelled.
    fn block_the_rest(&mut self, key: &Key, id: &str, outcome: &Outcome) -> String {
        if let Some(old) = self.blocked.remove(key).filter(|old| old != id) {
            let now = self.now;
            let index = self.index + 1;
            if let Some(evaluation) = self.evaluations.get_mut(&old) {
                evaluation.status = "canceled";
                evaluation.status_description = format!("evaluation {id:?} successful");
                evaluation.modify_index = index;
                evaluation.modify_time = now;
            }
        }
        if outcome.failed.is_empty() {
            return String::new();
        }
        let index = self.next_index();
        let blocked = self.new_id();
        let Some(parent) = self.evaluations.get(id) else { return String::new() };
        let evaluation = Evaluation {
            id: blocked.clone(),
            status: "blocked",
            status_description: "created to place remaining allocations".into(),
            triggered_by: "queued-allocs",
            create_index: index,
            modify_index: index,
            create_time: self.now,
            modify_time: self.now,
            failed: outcome.failed.clone(),
            snapshot_index: index - 1,
            previous: id.to_owned(),
            ..parent.clone()
        };
        self.evaluations.insert(blocked.clone(), evaluation);
        self.blocked.insert(key.clone(), blocked.clone());
        self.tables.evaluations = index;
        self.stream_evaluation(&blocked, "EvaluationUpdated");
        blocked
    }

    /// The servers no longer want an allocation. Returns whether that is new.
    pub(super) fn desire_stop(&mut self, id: &str, why: &'static str, evaluation: &str, index: u64) -> bool {
        let now = self.now;
        let Some(allocation) = self.allocations.get_mut(id) else { return false };
        if allocation.terminal() || allocation.purged {
            return false;
        }
        allocation.desired_status = "stop";
        allocation.desired_description = why;
        allocation.eval_id = evaluation.to_owned();
        allocation.modify_index = index;
        allocation.alloc_modify_index = index;
        allocation.modify_time = now;
        true
    }

    /// Stops one allocation outside of an evaluation: a drain, or a returning client.
    pub(super) fn stop_allocation(&mut self, id: &str, why: &'static str) {
        let evaluation = self.allocations.get(id).map(|a| a.eval_id.clone()).unwrap_or_default();
        let index = self.index + 1;
        if self.desire_stop(id, why, &evaluation, index) {
            self.index = index;
            self.tables.allocations = index;
            self.stream_allocation(id, "AllocationUpdateDesiredStatus");
            self.client_stop(id);
            self.refresh_allocation_job(id);
        }
    }

    /// A client came back with an allocation that has been replaced: stops the replacement.
    pub(super) fn stop_replacement(&mut self, id: &str) {
        let next = self.allocations.get(id).map(|a| a.next.clone()).unwrap_or_default();
        if !next.is_empty() {
            self.stop_allocation(&next, RECONNECTED);
        }
    }

    /// Resources have become free. Blocked evaluations are retried after a while.
    pub(super) fn room_appeared(&mut self) {
        if !self.unblock_due && !self.blocked.is_empty() {
            self.unblock_due = true;
            self.later(self.options.delays.unblock, Due::Unblock);
        }
    }

    pub(super) fn unblock(&mut self) {
        self.unblock_due = false;
        let mut waiting: Vec<(i64, u64, String)> = self
            .blocked
            .values()
            .filter_map(|id| self.evaluations.get(id))
            .map(|e| (-e.priority, e.create_index, e.id.clone()))
            .collect();
        waiting.sort();
        for (_, _, id) in waiting {
            self.evaluate(&id);
        }
    }

    /// Updates a job's status from its allocations and evaluations.
    pub(super) fn refresh_status(&mut self, key: &Key, cause: &'static str) {
        let Some(job) = self.jobs.get(key) else { return };
        let ids = self.by_job.get(key).into_iter().flatten();
        let running = ids.filter_map(|id| self.allocations.get(id)).any(|a| !a.purged && !a.terminal());
        let open = || {
            let mut later = self.pending.range((key.clone(), String::new())..);
            later.next().is_some_and(|(job, _)| job == key) || self.blocked.contains_key(key)
        };
        let status = if running {
            "running"
        } else if open() {
            "pending"
        } else {
            "dead"
        };
        if job.status == status {
            return;
        }
        let index = self.index;
        self.tables.jobs = index;
        if let Some(job) = self.jobs.get_mut(key) {
            job.status = status;
            job.modify_index = index;
        }
        if status == "dead" {
            self.collect_later();
        }
        self.stream_job(key, cause);
    }

    /// The same for the job of an allocation.
    pub(super) fn refresh_allocation_job(&mut self, id: &str) {
        if let Some(allocation) = self.allocations.get(id) {
            let key = (allocation.namespace.clone(), allocation.job_id.clone());
            self.refresh_status(&key, "AllocationUpdated");
        }
    }
}
