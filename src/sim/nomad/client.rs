//! The clients: tasks are set up, wait for their templates, start, run, are killed and end (contract, section 10).
//! The servers learn of it by reports, a little later.

use std::sync::Arc;
use std::time::Duration;

use super::events;
use super::spec::TaskSpec;
use super::state::{Allocation, Nanos, Task, TaskPhase};
use super::template::{self, Rendered};
use super::{Due, Exit, Nomad, TaskEvent, gotime};

/// Why an allocation ended that ran longer than it may.
pub const EXCEEDED: &str = "allocation exceeded max_run_duration";

impl Nomad {
    /// The client has learnt of an allocation.
    pub(super) fn set_up(&mut self, id: &str) {
        let now = self.now;
        let Some(allocation) = self.allocations.get_mut(id) else { return };
        if allocation.client.stopping {
            return;
        }
        for task in &mut allocation.client.tasks {
            task.tell_received(now);
        }
        self.next_turns(id);
        self.report_later(id);
    }

    /// Starts the tasks whose turn has come: `prestart` before the others, `poststop` after them.
    fn next_turns(&mut self, id: &str) {
        let Some(allocation) = self.allocations.get(id) else { return };
        let (specs, tasks) = (&allocation.spec.tasks, &allocation.client.tasks);
        let all = |hook: &str, ready: &dyn Fn(&TaskSpec, &Task) -> bool| {
            specs
                .iter()
                .zip(tasks)
                .filter(|(spec, _)| spec.hook == hook)
                .all(|(spec, task)| ready(spec, task))
        };
        let prepared = all("prestart", &|spec, task| {
            if spec.sidecar { task.alive() } else { task.phase == TaskPhase::Dead && !task.failed }
        });
        let started = all("", &|_, task| task.started_at.is_some());
        let over = all("", &|_, task| task.phase == TaskPhase::Dead);
        let stopping = allocation.client.stopping;
        let due: Vec<usize> = specs
            .iter()
            .zip(tasks)
            .enumerate()
            .filter(|(_, (spec, task))| {
                let turn = match spec.hook.as_str() {
                    "prestart" => !stopping,
                    "poststart" => prepared && started && !over && !stopping,
                    "poststop" => over,
                    _ => prepared && !stopping,
                };
                task.phase == TaskPhase::New && turn
            })
            .map(|(at, _)| at)
            .collect();
        for at in due {
            self.begin(id, at);
        }
    }

    /// One task's set-up.
    fn begin(&mut self, id: &str, at: usize) {
        let now = self.now;
        let Some((spec, task)) = self.task_mut(id, at) else { return };
        task.tell_setup(now);
        if let Some(wrong) = wrong_configuration(&spec) {
            task.tell_failure(now, "Failed Validation", &wrong);
            return self.give_up(id, at);
        }
        self.render_or_wait(id, at);
    }

    /// Starts a task whose templates have all they need; lets it wait otherwise.
    fn render_or_wait(&mut self, id: &str, at: usize) {
        let Some(allocation) = self.allocations.get(id) else { return };
        match self.render(allocation, at) {
            Rendered::Ready(_) => {
                let delay = self.start_delay(&allocation.job_id);
                let Some((_, task)) = self.task_mut(id, at) else { return };
                task.phase = TaskPhase::Starting;
                task.round += 1;
                let round = task.round;
                self.later(delay, Due::Start { allocation: id.to_owned(), task: at, round });
            }
            Rendered::Missing(_) => {
                if let Some((_, task)) = self.task_mut(id, at) {
                    task.phase = TaskPhase::Waiting;
                }
                self.waiting.insert(id.to_owned());
                self.later(self.options.delays.missing, Due::Missing { allocation: id.to_owned(), task: at });
            }
            Rendered::Broken(error) => {
                let now = self.now;
                if let Some((spec, task)) = self.task_mut(id, at) {
                    let timeout = spec.kill_timeout;
                    task.tell_killing(now, timeout, Some(&format!("Template failed: {error}")));
                    task.failed = true;
                    task.phase = TaskPhase::Dead;
                    task.finished_at = Some(now);
                }
                self.after_end(id);
            }
        }
    }

    fn start_delay(&self, job_id: &str) -> Duration {
        let own = self.start_delays.iter().filter(|(prefix, _)| job_id.starts_with(prefix.as_str()));
        own.max_by_key(|(prefix, _)| prefix.len()).map_or(self.options.delays.start, |(_, delay)| *delay)
    }

    /// A waiting template says what it waits for.
    pub(super) fn tell_missing(&mut self, id: &str, at: usize) {
        let now = self.now;
        let Some(allocation) = self.allocations.get(id) else { return };
        if allocation.client.tasks.get(at).is_none_or(|task| task.phase != TaskPhase::Waiting) {
            return;
        }
        let Rendered::Missing(paths) = self.render(allocation, at) else { return };
        let place = format!("@{}.{}", allocation.namespace, self.options.region);
        let blocks: Vec<String> =
            paths.iter().map(|path| format!("nomad.var.block({path}{place})")).collect();
        if let Some((_, task)) = self.task_mut(id, at) {
            task.tell_template(now, &format!("Missing: {}", blocks.join(", ")));
        }
        self.report_later(id);
    }

    /// A variable has appeared or changed: what waits for it goes on a little later, what reads it may be restarted.
    pub(super) fn variable_changed(&mut self, namespace: &str, path: &str) {
        for id in self.waiting.iter().cloned().collect::<Vec<_>>() {
            if self.allocations.get(&id).is_some_and(|a| a.namespace == namespace && template::reads(a, path))
            {
                self.later(self.options.delays.template, Due::Release { allocation: id });
            }
        }
        let mut restarted = Vec::new();
        for allocation in self.allocations.values().filter(|a| a.namespace == namespace) {
            for (at, (spec, task)) in allocation.spec.tasks.iter().zip(&allocation.client.tasks).enumerate() {
                let watches = spec.templates.iter().any(|t| !t.once && !t.noop && t.data.contains(path));
                if watches && task.phase == TaskPhase::Running {
                    restarted.push((allocation.id.clone(), at, task.round));
                }
            }
        }
        for (allocation, task, round) in restarted {
            self.later(self.options.delays.template, Due::Rerender { allocation, task, round });
        }
    }

    pub(super) fn release(&mut self, id: &str) {
        let Some(allocation) = self.allocations.get(id) else { return };
        let ready: Vec<usize> = (0..allocation.client.tasks.len())
            .filter(|at| allocation.client.tasks[*at].phase == TaskPhase::Waiting)
            .filter(|at| matches!(self.render(allocation, *at), Rendered::Ready(_) | Rendered::Broken(_)))
            .collect();
        for at in ready {
            self.render_or_wait(id, at);
        }
        let Some(allocation) = self.allocations.get(id) else { return };
        if allocation.client.tasks.iter().all(|task| task.phase != TaskPhase::Waiting) {
            self.waiting.remove(id);
        }
    }

    /// A template with the default change_mode restarts its task, in spite of its restart policy.
    pub(super) fn rerender(&mut self, id: &str, at: usize, round: u64) {
        let now = self.now;
        let Some((_, task)) = self.task_mut(id, at) else { return };
        if task.phase != TaskPhase::Running || task.round != round {
            return;
        }
        task.again = true;
        let message = "Template with change_mode restart re-rendered";
        task.tell(events::event(now, "Restart Signaled", message, serde_json::json!({}), &[]));
        self.signal_end(id, at);
    }

    /// The servers have been gone for five minutes: templates that keep asking give up (contract, section 8).
    pub(super) fn fail_templates(&mut self, since: Nanos) {
        if self.leader || self.leaderless_since != since {
            return;
        }
        let mut failing = Vec::new();
        for allocation in self.allocations.values() {
            for (at, (spec, task)) in allocation.spec.tasks.iter().zip(&allocation.client.tasks).enumerate() {
                let asks = spec.templates.iter().any(|t| !t.once && t.data.contains("nomadVar"));
                if asks && task.phase == TaskPhase::Running {
                    failing.push((allocation.id.clone(), at, spec.kill_timeout));
                }
            }
        }
        let now = self.now;
        for (id, at, timeout) in failing {
            if let Some((_, task)) = self.task_mut(&id, at) {
                task.failed = true;
                let message =
                    "Template failed: nomad.var.block: Unexpected response code: 500 (No cluster leader)";
                task.tell_killing(now, timeout, Some(message));
            }
            self.signal_end(&id, at);
        }
    }

    /// The process of a task starts.
    pub(super) fn start(&mut self, id: &str, at: usize, round: u64) {
        let now = self.now;
        let Some(allocation) = self.allocations.get(id) else { return };
        let due = allocation.client.tasks.get(at).is_some_and(|task| {
            task.round == round && matches!(task.phase, TaskPhase::Starting | TaskPhase::Restarting)
        });
        if !due {
            return;
        }
        let job_id = allocation.job_id.clone();
        let failure = self.start_failures.iter().find(|(prefix, _)| job_id.starts_with(prefix.as_str()));
        if let Some(failure) = failure.map(|(_, failure)| failure.clone()) {
            if let Some((_, task)) = self.task_mut(id, at) {
                task.tell_failure(now, &failure.kind, &failure.message);
            }
            return self.give_up(id, at);
        }
        let Rendered::Ready(env) = self.render(allocation, at) else { return self.render_or_wait(id, at) };
        let first = allocation.client.tasks.iter().all(|task| task.started_at.is_none());
        let max_run = allocation.spec.max_run.filter(|_| first);
        let (namespace, name) = (allocation.namespace.clone(), allocation.client.tasks[at].name.clone());
        if let Some((_, task)) = self.task_mut(id, at) {
            task.phase = TaskPhase::Running;
            task.started_at = Some(now);
            task.finished_at = None;
            task.env.clone_from(&env);
            task.tell_started(now);
        }
        if let Some(limit) = max_run {
            self.at(now.saturating_add(limit), Due::MaxRun(id.to_owned()));
        }
        self.events.push(TaskEvent::Started {
            allocation: id.to_owned(),
            namespace,
            job_id,
            task: name,
            env,
            now: gotime::timestamp(now),
        });
        self.next_turns(id);
        self.report_later(id);
    }

    /// The task that an exit of the allocation's process means.
    pub(super) fn foremost_task(&self, id: &str) -> Option<usize> {
        let allocation = self.allocations.get(id)?;
        let order = |at: &usize| {
            let spec = &allocation.spec.tasks[*at];
            (spec.sidecar, spec.hook.is_empty() && !spec.leader, *at)
        };
        (0..allocation.client.tasks.len()).filter(|at| allocation.client.tasks[*at].alive()).min_by_key(order)
    }

    /// A process is gone: it ended by itself, or it was killed.
    pub(super) fn task_ended(&mut self, id: &str, at: usize, exit: Exit) {
        let now = self.now;
        let Some(allocation) = self.allocations.get(id) else { return };
        let (namespace, job_id) = (allocation.namespace.clone(), allocation.job_id.clone());
        let service = !matches!(allocation.kind.as_str(), "batch" | "sysbatch");
        let Some((spec, task)) = self.task_mut(id, at) else { return };
        let killed = task.phase == TaskPhase::Killing;
        task.tell_terminated(now, exit);
        let name = task.name.clone();
        let well = exit.code == 0 && exit.signal == 0 && !exit.oom;
        if killed && task.again {
            task.again = false;
            task.restarts += 1;
            task.last_restart = Some(now);
            task.phase = TaskPhase::New;
            task.tell_restarting(now, 0, "Template with change_mode restart re-rendered");
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

    /// A task could not be started: its restart policy decides.
    fn give_up(&mut self, id: &str, at: usize) {
        self.restart_or_not(id, at);
        self.after_end(id);
    }

    /// The restart policy, after a failure.
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

    /// What the end of a task means for the others, and for the allocation.
    fn after_end(&mut self, id: &str) {
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

    /// The servers, or the client itself, want the allocation to end. A client that is cut off does not hear it.
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
    }

    fn end_task(&mut self, id: &str, at: usize, message: Option<&str>) {
        let now = self.now;
        let longest = Nanos::try_from(self.options.max_kill_timeout.as_nanos()).unwrap_or(Nanos::MAX);
        let Some((spec, task)) = self.task_mut(id, at) else { return };
        let timeout = spec.kill_timeout.min(longest);
        match task.phase {
            TaskPhase::Dead | TaskPhase::Killing => {}
            TaskPhase::Running => {
                task.tell_killing(now, timeout, message);
                self.signal_end(id, at);
            }
            _ => {
                // A task that never ran is over at once, with this one event.
                task.tell_killing(now, timeout, message);
                task.phase = TaskPhase::Dead;
                task.finished_at = Some(now);
            }
        }
    }

    /// The signal goes out; the process ends by itself or is killed.
    fn signal_end(&mut self, id: &str, at: usize) {
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

    /// The time to end is over. Who had less time than it needs is killed; who had enough ended by the signal.
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

    fn task_mut(&mut self, id: &str, at: usize) -> Option<(Arc<TaskSpec>, &mut Task)> {
        let allocation: &mut Allocation = self.allocations.get_mut(id)?;
        let spec = Arc::clone(allocation.spec.tasks.get(at)?);
        Some((spec, allocation.client.tasks.get_mut(at)?))
    }
}

/// Why a driver refuses a task's configuration: it passes parse and registration (contract, section 12).
fn wrong_configuration(spec: &TaskSpec) -> Option<String> {
    let required = match spec.driver.as_str() {
        "raw_exec" | "exec" => "command",
        "docker" | "podman" => "image",
        _ => return None,
    };
    spec.config[required].is_null().then(|| {
        format!("2 errors occurred:\n\t* failed to parse config: \n\t* Missing required argument: The argument {required:?} is required, but no definition was found.\n\n")
    })
}
