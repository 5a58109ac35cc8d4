//! What people do to single allocations: `nomad alloc stop` and `nomad alloc restart`, as an agent of version 2.0.5
//! does them for a batch job that is neither restarted nor rescheduled.
//!
//! A stop is no end: the servers put another allocation in the place of the stopped one, in the same plan, whatever the
//! job's policies say, on the same node if there is room for no more than one. Its tasks are set up when the stopped
//! one is over. A restart starts running tasks again where they are, with the environment they had.

use hyper::Method;
use jiff::Timestamp;
use serde_json::json;

use super::listings::check_id;
use super::request::{Exchange, Handled, Refusal, Reply};
use super::state::TaskPhase;
use super::{Nomad, events};

const RESTART: &str = "User requested running tasks to restart";

impl Nomad {
    /// `nomad alloc stop`. The evaluation that replaces it, or `None` if there is no such allocation. One that is over
    /// or stopped already stays as it is.
    pub fn stop_one(&mut self, id: &str, now: Timestamp) -> Option<String> {
        self.advance(now);
        let allocation = self.allocations.get(id).filter(|a| !a.purged)?;
        let key = (allocation.namespace.clone(), allocation.job_id.clone());
        let job = self.jobs.get(&key)?;
        let (kind, priority) = (job.kind.clone(), job.priority);
        let index = self.next_index();
        self.tables.allocations = index;
        let now = self.now;
        if let Some(allocation) = self.allocations.get_mut(id) {
            allocation.moves = true;
            allocation.modify_index = index;
            allocation.modify_time = now;
        }
        self.stream_allocation(id, "AllocationUpdateDesiredStatus");
        let evaluation = self.new_evaluation(&key, &kind, priority, "alloc-stop");
        self.stream_evaluation(&evaluation, "AllocationUpdateDesiredStatus");
        Some(evaluation)
    }

    /// `nomad alloc restart`: what runs is ended and started again; what waits goes on waiting. Whether there was
    /// something to restart or to wait for.
    pub fn restart_one(&mut self, id: &str, now: Timestamp) -> bool {
        self.advance(now);
        let Some(allocation) = self.allocations.get(id).filter(|a| !a.purged) else { return false };
        let node_up = self.nodes.get(&allocation.node).is_some_and(|node| node.up);
        if allocation.terminal() || allocation.client.stopping || !node_up {
            return false;
        }
        let tasks = allocation.client.tasks.iter().enumerate();
        let running: Vec<usize> =
            tasks.filter(|(_, task)| task.phase == TaskPhase::Running).map(|(at, _)| at).collect();
        let now = self.now;
        for at in running {
            let Some((_, task)) = self.task_mut(id, at) else { continue };
            task.again = Some("");
            let details = json!({"restart_reason": RESTART});
            let fields = [("RestartReason", json!(RESTART))];
            task.tell(events::event(now, "Restart Signaled", RESTART, details, &fields));
            self.signal_end(id, at);
        }
        true
    }

    /// `PUT /v1/allocation/ID/stop`.
    pub(super) fn stop_route(&mut self, exchange: &Exchange<'_>, id: &str) -> Handled {
        if !matches!(*exchange.method, Method::PUT | Method::POST) {
            return Err(Refusal::method());
        }
        check_id("alloc", id)?;
        let unknown = || Refusal::new(404, "allocation not found");
        let allocation = self.allocations.get(id).filter(|a| !a.purged).ok_or_else(unknown)?;
        if !exchange.access.namespace(&allocation.namespace, &["alloc-lifecycle"]) {
            return Err(Refusal::denied());
        }
        let evaluation = self.stop_one(id, self.now()).ok_or_else(unknown)?;
        let index = self.tables.allocations;
        Ok(Reply::json(&json!({"EvalID": evaluation, "Index": index})).at(index))
    }
}
