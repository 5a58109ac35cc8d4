//! How tasks end: on their own, killed, or at a time limit, restarted or not (contract, section 10).

use std::sync::Arc;

use super::{
    Due, Exit, Nomad, TaskEvent, gotime,
    gotime::Nanos,
    spec::TaskSpec,
    state::{Task, TaskPhase},
};

/// The reason if an allocation exceeded its maximum duration.
pub const EXCEEDED: &str = "allocation exceeded max_run_duration";

impl Nomad {
    /// The task that is meant by an exit of the allocation's process.
    pub(super) fn foremost_task(&self, id: &str) -> Option<usize> {
        let allocation = self.allocations.get(id)?;
        let order = |at: &usize| {
            let spec = &allocation.spec.tasks[*at];
            (spec.sidecar, spec.hook.is_empty() && !spec.leader, *at)
        };
        (0..allocation.client.tasks.len()).filter(|at| allocation.client.tasks[*at].alive()).min_by_key(order)
    }

    /// A process has ended, on its own or killed.
    pub(super) fn task_ended(&mut self, id: &str, at: usize, exit: Exit) {
        let now = self.now;
        let Some(allocation) = self.allocations.get(id) else { return };
        let (namespace, job_id) = (allocation.namespace.clone(), allocation.job_id.clone());
        let service = !matches!(allocation.job.kind.as_str(), "batch" | "sysbatch");
        let Some((spec, task)) = self.task_mut(id, at) else { return };
        let killed = task.phase == TaskPhase::Killing;
        task.tell_terminated(now, exit);
        let name = task.name.clone();
        let well = exit.code == 0 && exit.signal == 0 && !exit.oom;
        if let Some(reason) = task.again.take().filter(|_| killed) {
            task.restarts += 1;
            task.last_restart = Some(now);
            task.phase = TaskPhase::New;
            task.tell_restarting(now, 0, reason);
        } else if killed {
            task.tell_killed(now);
            task.phase = TaskPhase::Dead;
            task.finished_at = Some(now);
        } else if well && (!service || !spec.hook.is_empty()) {
            task.phase = TaskPhase::Dead;
            task.finished_at = Some(now);
        } else {
            self.restart_or_not(id, at);
        }
        self.events.push(TaskEvent::Ended {
            allocation: id.to_owned(),
            namespace,
            job_id,
            task: name,
            exit,
            now: gotime::timestamp(now),
        });
        self.after_end(id);
    }

    /// A task could not be started. Its restart policy applies.
    pub(super) fn give_up(&mut self, id: &str, at: usize) {
        self.restart_or_not(id, at);
        self.after_end(id);
    }

    /// Applies the restart policy after a failure.
    fn restart_or_not(&mut self, id: &str, at: usize) {
        let now = self.now;
        let Some((spec, task)) = self.task_mut(id, at) else { return };
        let policy = &spec.restart;
        let begin = now.saturating_sub(policy.interval);
        task.recent_restarts.retain(|at| *at > begin);
        let used = i64::try_from(task.recent_restarts.len()).unwrap_or(i64::MAX);
        let (delay, reason) = if used < policy.attempts {
            (policy.delay, "Restart within policy")
        } else if policy.fail {
            let reason = match policy.attempts {
                0 => "Policy allows no restarts".to_owned(),
                n => format!(
                    "Exceeded allowed attempts {n} in interval {} and mode is \"fail\"",
                    gotime::format(policy.interval)
                ),
            };
            task.tell_not_restarting(now, &reason);
            task.failed = true;
            task.phase = TaskPhase::Dead;
            task.finished_at = Some(now);
            return;
        } else {
            let oldest = task.recent_restarts.first().copied().unwrap_or(now);
            let wait = oldest.saturating_add(policy.interval).saturating_sub(now);
            (wait, "Exceeded allowed attempts, applying a delay")
        };
        task.recent_restarts.push(now);
        task.restarts += 1;
        task.last_restart = Some(now);
        task.phase = TaskPhase::Restarting;
        task.round += 1;
        task.tell_restarting(now, delay, reason);
        let due = Due::Start { allocation: id.to_owned(), task: at, round: task.round };
        self.at(now.saturating_add(delay), due);
    }

    /// The effects of a task's end on the other tasks and on the allocation.
    pub(super) fn after_end(&mut self, id: &str) {
        let Some(allocation) = self.allocations.get(id) else { return };
        let pairs: Vec<(&Arc<TaskSpec>, &Task)> =
            allocation.spec.tasks.iter().zip(&allocation.client.tasks).collect();
        let over =
            |(spec, task): &&(&Arc<TaskSpec>, &Task)| spec.hook.is_empty() && task.phase == TaskPhase::Dead;
        let mains = pairs.iter().filter(|(spec, _)| spec.hook.is_empty()).count();
        let led = pairs.iter().any(|(spec, task)| spec.leader && task.phase == TaskPhase::Dead);
        let failed = pairs.iter().any(|(_, task)| task.failed);
        let finished = pairs.iter().filter(over).count() == mains;
        let restarting = pairs.iter().position(|(_, task)| {
            task.phase == TaskPhase::New && task.started_at.is_some() && !allocation.client.stopping
        });
        if let Some(at) = restarting {
            self.render_or_wait(id, at);
        } else if led || failed || finished {
            self.end_the_rest(id);
        }
        self.next_turns(id);
        self.report_later(id);
        self.make_way(id);
    }

    fn end_the_rest(&mut self, id: &str) {
        let Some(allocation) = self.allocations.get(id) else { return };
        let rest: Vec<usize> = allocation
            .spec
            .tasks
            .iter()
            .zip(&allocation.client.tasks)
            .enumerate()
            .filter(|(_, (spec, task))| spec.hook != "poststop" && task.phase != TaskPhase::Dead)
            .map(|(at, _)| at)
            .collect();
        for at in rest {
            self.end_task(id, at, None);
        }
    }

    /// The servers or the client want the allocation to end. A disconnected client does not receive that.
    pub(super) fn client_stop(&mut self, id: &str) {
        let Some(allocation) = self.allocations.get(id) else { return };
        if !self.nodes.get(&allocation.node).is_some_and(|node| node.up) || allocation.client.stopping {
            return;
        }
        self.end_allocation(id, None);
    }

    /// Ends every task of an allocation.
    pub(super) fn end_allocation(&mut self, id: &str, message: Option<&str>) {
        let Some(allocation) = self.allocations.get_mut(id) else { return };
        allocation.client.stopping = true;
        self.waiting.remove(id);
        let tasks = allocation.client.tasks.len();
        for at in 0..tasks {
            self.end_task(id, at, message);
        }
        self.report_later(id);
        self.make_way(id);
    }

    fn end_task(&mut self, id: &str, at: usize, message: Option<&str>) {
        let now = self.now;
        let longest = Nanos::try_from(self.options.max_kill_timeout.as_nanos()).unwrap_or(Nanos::MAX);
        let Some((spec, task)) = self.task_mut(id, at) else { return };
        let timeout = spec.kill_timeout.min(longest);
        match task.phase {
            TaskPhase::Dead => {}
            // A pending restart is cancelled.
            TaskPhase::Killing => task.again = None,
            TaskPhase::Running => {
                task.tell_killing(now, timeout, message);
                self.signal_end(id, at);
            }
            _ => {
                // A task that never ran ends at once, with only this event.
                task.tell_killing(now, timeout, message);
                task.phase = TaskPhase::Dead;
                task.finished_at = Some(now);
            }
        }
    }

    /// Sends the signal. The process ends on its own or is killed.
    pub(super) fn signal_end(&mut self, id: &str, at: usize) {
        let now = self.now;
        let longest = Nanos::try_from(self.options.max_kill_timeout.as_nanos()).unwrap_or(Nanos::MAX);
        let usual = Nanos::try_from(self.options.delays.kill.as_nanos()).unwrap_or(Nanos::MAX);
        let Some(allocation) = self.allocations.get(id) else { return };
        let (namespace, job_id) = (allocation.namespace.clone(), allocation.job_id.clone());
        let Some((spec, task)) = self.task_mut(id, at) else { return };
        task.phase = TaskPhase::Killing;
        task.round += 1;
        let (round, name, signal) = (task.round, task.name.clone(), spec.kill_signal.clone());
        let wait = usual.min(spec.kill_timeout).min(longest);
        self.at(now.saturating_add(wait), Due::Kill { allocation: id.to_owned(), task: at, round });
        self.events.push(TaskEvent::KillRequested {
            allocation: id.to_owned(),
            namespace,
            job_id,
            task: name,
            signal,
            now: gotime::timestamp(now),
        });
        self.report_later(id);
    }

    /// The time to end is over. If it was shorter than the process needs, the process is killed. Otherwise the
    /// signal has ended it.
    pub(super) fn kill_hard(&mut self, id: &str, at: usize, round: u64) {
        let usual = Nanos::try_from(self.options.delays.kill.as_nanos()).unwrap_or(Nanos::MAX);
        let longest = Nanos::try_from(self.options.max_kill_timeout.as_nanos()).unwrap_or(Nanos::MAX);
        let Some((spec, task)) = self.task_mut(id, at) else { return };
        if task.phase != TaskPhase::Killing || task.round != round {
            return;
        }
        let signal = match spec.kill_signal.as_str() {
            _ if usual >= spec.kill_timeout.min(longest) => 9,
            "SIGHUP" => 1,
            "SIGQUIT" => 3,
            "SIGKILL" => 9,
            "SIGUSR1" => 10,
            "SIGUSR2" => 12,
            "SIGTERM" => 15,
            _ => 2,
        };
        self.task_ended(id, at, Exit::signal(signal));
    }

    /// `max_run_duration` is over.
    pub(super) fn exceed(&mut self, id: &str) {
        let Some(allocation) = self.allocations.get_mut(id) else { return };
        if allocation.client.stopping || allocation.client.tasks.iter().all(|t| t.phase == TaskPhase::Dead) {
            return;
        }
        allocation.client.exceeded = true;
        self.end_allocation(id, Some(EXCEEDED));
    }
}
