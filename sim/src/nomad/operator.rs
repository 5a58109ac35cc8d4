//! Actions of operators, and failures: hooks for tests and for fault simulation.

use std::{collections::BTreeSet, time::Duration};

use hyper::Method;
use jiff::Timestamp;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;

use super::{
    Due, Exit, Node, Nomad, TaskEvent, events, gotime,
    gotime::Nanos,
    listings::check_id,
    request::{Exchange, Handled, Refusal, Reply},
    state::{NodeState, TaskPhase},
};
use crate::nomad::jobs::Deregister;

/// Why a process cannot be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartFailure {
    /// The event's type: `Driver Failure`, `Setup Failure`, `Failed Artifact Download`.
    pub kind: String,
    /// The event's message.
    pub message: String,
}

const RESTART: &str = "User requested running tasks to restart";

/// What becomes of the processes of an agent that restarts without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processes {
    /// They end with it.
    End,
    /// It was killed: they continue and belong to nobody.
    Continue,
}

impl Nomad {
    /// A node joins. If the name exists, its capacity is replaced and its allocations stay.
    pub fn add_node(&mut self, node: Node, now: Timestamp) {
        self.advance(now);
        self.put_node(node);
        self.room_appeared();
    }

    pub(super) fn put_node(&mut self, node: Node) {
        let id = self.new_id();
        self.tables.nodes = self.index;
        let modify_index = self.index;
        let fresh = NodeState {
            id,
            node: node.clone(),
            up: true,
            draining: false,
            drain_deadline: 0,
            modify_index,
            ended: BTreeSet::new(),
        };
        self.nodes.entry(node.name.clone()).and_modify(|state| state.node = node).or_insert(fresh);
    }

    /// The servers lose contact with a node. Its processes continue.
    pub fn node_down(&mut self, name: &str, now: Timestamp) {
        self.advance(now);
        let index = self.index + 1;
        let Some(node) = self.nodes.get_mut(name).filter(|node| node.up) else { return };
        node.up = false;
        node.modify_index = index;
        self.index = index;
        self.tables.nodes = index;
        self.node_gone(name);
    }

    /// A node loses power: its processes are gone, and the servers lose contact with it.
    pub fn node_crash(&mut self, name: &str, now: Timestamp) {
        self.node_down(name, now);
        let ids: Vec<String> =
            self.allocations.values().filter(|a| a.node == name).map(|a| a.id.clone()).collect();
        for id in ids {
            self.vanish(&id);
        }
    }

    /// The processes of an allocation vanish unnoticed. Its client will report that they failed.
    fn vanish(&mut self, id: &str) {
        let now = self.now;
        let Some(allocation) = self.allocations.get_mut(id) else { return };
        let (namespace, job_id) = (allocation.namespace.clone(), allocation.job_id.clone());
        allocation.client.stopping = true;
        allocation.client.unreported = true;
        let mut events = Vec::new();
        for task in allocation.client.tasks.iter_mut().filter(|task| task.phase != TaskPhase::Dead) {
            let exit = Exit { code: 137, signal: 9, oom: false };
            if task.alive() {
                task.tell_terminated(now, exit);
                events.push(TaskEvent::Ended {
                    allocation: id.to_owned(),
                    namespace: namespace.clone(),
                    job_id: job_id.clone(),
                    task: task.name.clone(),
                    exit,
                    now: gotime::timestamp(now),
                });
            }
            task.tell_not_restarting(now, "Policy allows no restarts");
            task.failed = true;
            task.phase = TaskPhase::Dead;
            task.finished_at = Some(now);
        }
        self.waiting.remove(id);
        self.events.extend(events);
    }

    /// The servers are in contact with a node again.
    pub fn node_up(&mut self, name: &str, now: Timestamp) {
        self.advance(now);
        let index = self.index + 1;
        let Some(node) = self.nodes.get_mut(name).filter(|node| !node.up) else { return };
        node.up = true;
        node.modify_index = index;
        self.index = index;
        self.tables.nodes = index;
        self.node_back(name);
        self.room_appeared();
    }

    /// Drains a node: nothing new is placed there. Service jobs move at once. Batch jobs run until the deadline
    /// (an hour from the CLI) and are not replaced (contract, section 12).
    pub fn drain(&mut self, name: &str, deadline: Duration, now: Timestamp) {
        self.advance(now);
        let until = self.now.saturating_add(Nanos::try_from(deadline.as_nanos()).unwrap_or(Nanos::MAX));
        let Some(node) = self.nodes.get_mut(name) else { return };
        node.draining = true;
        node.drain_deadline = until;
        self.at(until, Due::Drain { node: name.to_owned(), deadline: until });
        let moving = self.on_node(name, false);
        for (id, key) in moving {
            self.migrate(&id);
            self.evaluate_job(&key, "node-drain");
        }
    }

    /// A drain is cancelled or over: the node accepts new work again.
    pub fn undrain(&mut self, name: &str, now: Timestamp) {
        self.advance(now);
        if let Some(node) = self.nodes.get_mut(name) {
            node.draining = false;
        }
        self.room_appeared();
    }

    pub(super) fn drain_deadline(&mut self, name: &str, deadline: Nanos) {
        if self.nodes.get(name).is_some_and(|node| node.draining && node.drain_deadline == deadline) {
            for (id, _) in self.on_node(name, true) {
                self.migrate(&id);
            }
        }
    }

    fn migrate(&mut self, id: &str) {
        if let Some(allocation) = self.allocations.get_mut(id) {
            allocation.replacement.migrate = true;
        }
        self.stop_allocation(id, super::reconcile::MIGRATING);
    }

    fn on_node(&self, name: &str, batch: bool) -> Vec<(String, super::Key)> {
        let here = self.allocations.values().filter(|a| a.node == name && !a.terminal() && !a.purged);
        here.filter(|a| (a.job.kind == "batch") == batch)
            .map(|a| (a.id.clone(), (a.namespace.clone(), a.job_id.clone())))
            .collect()
    }

    /// The servers lose their leader. Without one, nearly everything is refused and nothing is scheduled.
    pub fn lose_leader(&mut self, now: Timestamp) {
        const TEMPLATES_WAIT: Duration = Duration::from_secs(300);
        self.advance(now);
        if self.leader {
            self.leaderless_since = self.now;
            self.later(TEMPLATES_WAIT, Due::TemplatesFail { since: self.now });
        }
        self.leader = false;
    }

    /// The servers elect a leader.
    pub fn elect_leader(&mut self, now: Timestamp) {
        self.advance(now);
        if !self.leader {
            // A new leader restarts every lock's TTL, and does not know about delays.
            self.lock_delays.clear();
            let keys: Vec<super::Key> = self.variables.keys().cloned().collect();
            for key in keys {
                let Some(lock) = self.variables.get_mut(&key).and_then(|variable| variable.lock.as_mut())
                else {
                    continue;
                };
                lock.expires = self.now.saturating_add(lock.ttl.saturating_mul(2));
                let expires = lock.expires;
                self.at(expires, Due::Lock(key));
            }
        }
        self.leader = true;
    }

    /// A `-dev` agent restarts without data: its index goes back.
    pub fn restart_empty(&mut self, processes: Processes, now: Timestamp) {
        self.advance(now);
        if processes == Processes::End {
            for id in self.allocations.keys().cloned().collect::<Vec<_>>() {
                self.vanish(&id);
            }
        }
        let mut options = self.options.clone();
        options.nodes = self.nodes.values().map(|state| state.node.clone()).collect();
        let seed: u64 = self.rng.random();
        let events = std::mem::take(&mut self.events);
        let (delays, failures) = (self.start_delays.clone(), self.start_failures.clone());
        *self = Nomad::new(options, now);
        self.rng = StdRng::seed_from_u64(seed);
        self.events = events;
        self.start_delays = delays;
        self.start_failures = failures;
        self.forgot_at = Some(now);
    }

    /// When the agent last restarted without data.
    pub fn forgot_at(&self) -> Option<Timestamp> {
        self.forgot_at
    }

    /// Someone purges a job.
    pub fn purge_job(&mut self, namespace: &str, id: &str, now: Timestamp) {
        self.advance(now);
        self.deregister(&(namespace.to_owned(), id.to_owned()), Deregister::Purge);
    }

    /// Someone stops a job.
    pub fn stop_job(&mut self, namespace: &str, id: &str, now: Timestamp) {
        self.advance(now);
        self.deregister(&(namespace.to_owned(), id.to_owned()), Deregister::Stop);
    }

    /// `nomad system gc`: dead jobs and their allocations are removed, variables stay.
    pub fn collect_garbage(&mut self, now: Timestamp) {
        self.advance(now);
        self.collect(0);
    }

    /// Someone deletes a variable, locked or not.
    pub fn delete_variable(&mut self, namespace: &str, path: &str, now: Timestamp) {
        self.advance(now);
        if self.variables.remove(&(namespace.to_owned(), path.to_owned())).is_some() {
            self.tables.variables = self.next_index();
        }
    }

    /// From now on, the processes of jobs with this ID prefix need this long to start: a large image, a slow
    /// disk.
    pub fn set_start_delay(&mut self, job_prefix: &str, delay: Duration) {
        self.start_delays.insert(job_prefix.to_owned(), delay);
    }

    /// Finishes the pending starts of a job. Returns whether there were any.
    pub fn start_now(&mut self, namespace: &str, job: &str, now: Timestamp) -> bool {
        self.advance(now);
        let allocations = self.allocations.values().filter(|a| a.namespace == namespace && a.job_id == job);
        let starting = allocations.flat_map(|allocation| {
            let tasks = allocation.client.tasks.iter().enumerate();
            let starting = tasks.filter(|(_, task)| task.phase == TaskPhase::Starting);
            starting.map(|(at, task)| (allocation.id.clone(), at, task.round))
        });
        let starting: Vec<(String, usize, u64)> = starting.collect();
        for (allocation, task, round) in &starting {
            self.start(allocation, *task, *round);
        }
        !starting.is_empty()
    }

    /// From now on, a process that is told to end takes this long, at most its `kill_timeout`.
    pub fn set_kill_delay(&mut self, delay: Duration) {
        self.options.delays.kill = delay;
    }

    /// From now on, the processes of jobs with this ID prefix cannot be started. `None` removes the failure.
    pub fn set_start_failure(&mut self, job_prefix: &str, failure: Option<StartFailure>) {
        match failure {
            Some(failure) => self.start_failures.insert(job_prefix.to_owned(), failure),
            None => self.start_failures.remove(job_prefix),
        };
    }

    /// A process writes to its standard output, which `/v1/client/fs/logs` returns.
    pub fn write_log(&mut self, allocation: &str, task: &str, text: &str) {
        self.logs.entry((allocation.to_owned(), task.to_owned())).or_default().push_str(text);
    }
}

/// `nomad alloc stop` and `nomad alloc restart`, like an agent of version 2.0.5 for a batch job that is neither
/// restarted nor rescheduled.
///
/// A stopped allocation is replaced in the same plan, regardless of the job's policies, on the same node if no other
/// has room. The replacement's tasks are set up when the stopped one is over. A restart starts running tasks again in
/// place, with the same environment.
impl Nomad {
    /// `nomad alloc stop`. Returns the evaluation that replaces it, or `None` if there is no such allocation. One that
    /// is over or already stopped is unchanged.
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
            allocation.replacement.moves = true;
            allocation.modify_index = index;
            allocation.modify_time = now;
        }
        self.stream_allocation(id, "AllocationUpdateDesiredStatus");
        let evaluation = self.new_evaluation(&key, &kind, priority, "alloc-stop");
        self.stream_evaluation(&evaluation, "AllocationUpdateDesiredStatus");
        Some(evaluation)
    }

    /// `nomad alloc restart`: running tasks are ended and started again; waiting ones continue to wait. Returns
    /// whether there was a running or waiting task.
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
