//! The clients' reports to the servers and their effects: ended allocations, reschedules, lost nodes.

use super::{
    Due, Nomad,
    ending::EXCEEDED,
    evaluate::LOST,
    gotime::Nanos,
    state::{Allocation, TaskPhase},
};

impl Nomad {
    /// The client will soon send a report to the servers.
    pub(super) fn report_later(&mut self, id: &str) {
        let Some(allocation) = self.allocations.get_mut(id) else { return };
        allocation.client.unreported = true;
        if !allocation.client.report_due {
            allocation.client.report_due = true;
            self.later(self.options.delays.report, Due::Report(id.to_owned()));
        }
    }

    /// The report arrives, unless the client is disconnected.
    pub(super) fn report(&mut self, id: &str) {
        let Some(allocation) = self.allocations.get_mut(id) else { return };
        allocation.client.report_due = false;
        let connected = self.nodes.get(&allocation.node).is_some_and(|node| node.up);
        if !connected || !allocation.client.unreported {
            return;
        }
        if !self.leader {
            // The client retries until a server is reachable.
            return self.report_later(id);
        }
        if allocation.purged {
            if !allocation.alive() {
                self.forget(id);
            }
            return;
        }
        let was_terminal = allocation.client_terminal();
        let index = self.index + 1;
        let (status, description) = client_status(allocation);
        // A lost allocation stays lost until its client reports how it ended.
        if allocation.client_status == "lost" && status != "complete" && status != "failed" {
            return;
        }
        allocation.client.unreported = false;
        allocation.client_status = status;
        allocation.client_description = description;
        allocation.tasks.clone_from(&allocation.client.tasks);
        allocation.modify_index = index;
        allocation.modify_time = self.now;
        allocation.unknown_since = 0;
        let ended = !was_terminal && allocation.client_terminal();
        let key = (allocation.namespace.clone(), allocation.job_id.clone());
        let node = allocation.node.clone();
        self.index = index;
        self.tables.allocations = index;
        if let Some(job) = self.jobs.get_mut(&key) {
            job.summary_index = index;
        }
        self.stream_allocation(id, "AllocationUpdated");
        if ended {
            if let Some(node) = self.nodes.get_mut(&node) {
                node.ended.insert((self.now, id.to_owned()));
            }
            self.trim_logs(&node);
            self.maybe_reschedule(id);
            self.room_appeared();
        }
        self.refresh_status(&key, "AllocationUpdated");
    }

    /// With more than 50 ended allocations on a node, the oldest lose their logs (contract, section 12).
    fn trim_logs(&mut self, node: &str) {
        const KEPT: usize = 50;
        let Some(state) = self.nodes.get_mut(node) else { return };
        while state.ended.len() > KEPT {
            let Some((_, id)) = state.ended.pop_first() else { return };
            self.logs.retain(|(allocation, _), _| *allocation != id);
        }
    }

    /// Reschedules a failed allocation if its policy says so, after the policy's delay.
    fn maybe_reschedule(&mut self, id: &str) {
        let Some(allocation) = self.allocations.get(id) else { return };
        let policy = &allocation.spec.reschedule;
        if allocation.client_status != "failed" || allocation.desired_status != "run" {
            return;
        }
        let begin = self.now.saturating_sub(policy.interval);
        let used = allocation.replacement.reschedules.iter().filter(|r| r.at > begin).count();
        let used = i64::try_from(used).unwrap_or(i64::MAX);
        if !policy.unlimited && used >= policy.attempts {
            return;
        }
        let base = policy.delay.max(1);
        let grown = match policy.function.as_str() {
            "exponential" => base.saturating_mul(1i64.checked_shl(used.min(40) as u32).unwrap_or(i64::MAX)),
            "fibonacci" => base.saturating_mul(fibonacci(used)),
            _ => base,
        };
        let delay = if policy.max_delay > 0 { grown.min(policy.max_delay) } else { grown };
        self.at(self.now.saturating_add(delay), Due::Reschedule(id.to_owned()));
    }

    pub(super) fn reschedule(&mut self, id: &str) {
        let Some(allocation) = self.allocations.get_mut(id) else { return };
        if allocation.desired_status != "run" || allocation.purged || !allocation.next.is_empty() {
            return;
        }
        allocation.client.again = true;
        let key = (allocation.namespace.clone(), allocation.job_id.clone());
        self.evaluate_job(&key, "alloc-failure");
    }

    /// Creates an evaluation for an unchanged job.
    pub(super) fn evaluate_job(&mut self, key: &super::Key, cause: &'static str) {
        let Some(job) = self.jobs.get(key) else { return };
        let (kind, priority) = (job.kind.clone(), job.priority);
        self.next_index();
        let evaluation = self.new_evaluation(key, &kind, priority, cause);
        self.stream_evaluation(&evaluation, "EvaluationUpdated");
    }

    /// The servers give up a node: its allocations become unknown if they may wait for it, otherwise lost.
    pub(super) fn node_gone(&mut self, node: &str) {
        let ids: Vec<String> =
            self.allocations.values().filter(|a| a.node == node && !a.purged).map(|a| a.id.clone()).collect();
        let mut jobs = std::collections::BTreeSet::new();
        for id in ids {
            let index = self.index + 1;
            let now = self.now;
            let Some(allocation) = self.allocations.get_mut(&id) else { continue };
            if allocation.client_terminal() {
                continue;
            }
            jobs.insert((allocation.namespace.clone(), allocation.job_id.clone()));
            match allocation.spec.lost_after {
                Some(wait) if allocation.desired_status == "run" => {
                    allocation.client_status = "unknown";
                    allocation.client_description = super::evaluate::UNKNOWN;
                    allocation.unknown_since = now;
                    let due = Due::LostAfter { allocation: id.clone(), since: now };
                    self.at(now.saturating_add(wait), due);
                }
                _ => lose(allocation),
            }
            self.touch(&id, index);
        }
        for key in jobs {
            // A job with a pending evaluation is not dead.
            self.evaluate_job(&key, "node-update");
            self.refresh_status(&key, "NodeEvent");
        }
    }

    /// `lost_after` is over.
    pub(super) fn lose_unknown(&mut self, id: &str, since: Nanos) {
        let index = self.index + 1;
        let Some(allocation) = self.allocations.get_mut(id) else { return };
        if allocation.client_status != "unknown" || allocation.unknown_since != since {
            return;
        }
        lose(allocation);
        let key = (allocation.namespace.clone(), allocation.job_id.clone());
        self.touch(id, index);
        self.evaluate_job(&key, "max-disconnect-timeout");
        self.refresh_status(&key, "AllocationUpdated");
    }

    fn touch(&mut self, id: &str, index: u64) {
        self.index = index;
        self.tables.allocations = index;
        if let Some(allocation) = self.allocations.get_mut(id) {
            allocation.modify_index = index;
            allocation.modify_time = self.now;
            let key = (allocation.namespace.clone(), allocation.job_id.clone());
            if let Some(job) = self.jobs.get_mut(&key) {
                job.summary_index = index;
            }
        }
        self.stream_allocation(id, "AllocationUpdated");
    }

    /// A lost node is back: unwanted allocations are killed, and everything is reported.
    pub(super) fn node_back(&mut self, node: &str) {
        let ids: Vec<String> =
            self.allocations.values().filter(|a| a.node == node).map(|a| a.id.clone()).collect();
        for id in ids {
            let Some(allocation) = self.allocations.get(&id) else { continue };
            if allocation.client_status == "unknown" {
                self.stop_replacement(&id);
                self.report_later(&id);
            }
            let Some(allocation) = self.allocations.get(&id) else { continue };
            let unwanted = allocation.desired_status != "run" || allocation.purged;
            if unwanted && !allocation.client.stopping {
                self.end_allocation(&id, None);
            } else if allocation.client.unreported {
                self.report_later(&id);
            }
        }
    }

    /// The servers and the client forget an allocation.
    pub(super) fn forget(&mut self, id: &str) {
        self.waiting.remove(id);
        let Some(allocation) = self.allocations.remove(id) else { return };
        let stubs = self.stubs.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        stubs.retain(|(of, _), _| of != id);
        if let Some(node) = self.nodes.get_mut(&allocation.node) {
            node.ended.retain(|(_, ended)| ended != id);
        }
        let key = (allocation.namespace, allocation.job_id);
        if let Some(ids) = self.by_job.get_mut(&key) {
            ids.remove(id);
            if ids.is_empty() {
                self.by_job.remove(&key);
            }
        }
        self.logs.retain(|(allocation, _), _| allocation != id);
    }
}

fn lose(allocation: &mut Allocation) {
    allocation.client_status = "lost";
    allocation.client_description = "";
    allocation.desired_status = "stop";
    allocation.desired_description = LOST;
}

fn fibonacci(n: i64) -> i64 {
    let (mut a, mut b) = (1i64, 1i64);
    for _ in 0..n.min(80) {
        (a, b) = (b, a.saturating_add(b));
    }
    a
}

/// The client status that follows from the tasks' states, and its description.
fn client_status(allocation: &Allocation) -> (&'static str, &'static str) {
    let tasks = &allocation.client.tasks;
    let any = |test: &dyn Fn(&super::Task) -> bool| tasks.iter().any(test);
    let over = tasks.iter().all(|task| task.phase == TaskPhase::Dead);
    if allocation.client.exceeded && over {
        ("complete", EXCEEDED)
    } else if any(&|task| task.failed) {
        ("failed", "Failed tasks")
    } else if any(&|task| task.state() == "running") {
        ("running", "Tasks are running")
    } else if any(&|task| task.state() == "pending") {
        ("pending", "No tasks have started")
    } else {
        ("complete", "All tasks have completed")
    }
}
