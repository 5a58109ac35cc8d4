//! The clients: tasks are set up, wait for their templates and start (contract, section 10). The servers learn about
//! it slightly later, from reports.

use std::{sync::Arc, time::Duration};

use super::{
    Due, Nomad, TaskEvent, events, gotime,
    gotime::Nanos,
    spec::TaskSpec,
    state::{Allocation, Task, TaskPhase},
    template::{self, Rendered},
};

impl Nomad {
    /// The client has received an allocation.
    pub(super) fn set_up(&mut self, id: &str) {
        let now = self.now;
        let Some(allocation) = self.allocations.get(id) else { return };
        // It waits for the end of the one that it replaces on the same node.
        let before = self.allocations.get(&allocation.previous);
        if before.is_some_and(|before| before.node == allocation.node && !before.over()) {
            return;
        }
        let Some(allocation) = self.allocations.get_mut(id) else { return };
        let begun = |allocation: &Allocation| allocation.client.tasks.iter().any(|t| !t.events.is_empty());
        if allocation.client.stopping || begun(allocation) {
            return;
        }
        for task in &mut allocation.client.tasks {
            task.tell_received(now);
        }
        self.next_turns(id);
        self.report_later(id);
    }

    /// An allocation has ended. Its replacement has been waiting for that.
    pub(super) fn make_way(&mut self, id: &str) {
        let Some(allocation) = self.allocations.get(id) else { return };
        if !allocation.next.is_empty() && allocation.over() {
            let next = allocation.next.clone();
            self.later(Duration::ZERO, Due::Setup(next));
        }
    }

    /// Starts the tasks that are next: `prestart` before the others, `poststop` after them.
    pub(super) fn next_turns(&mut self, id: &str) {
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

    /// Sets up one task.
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

    /// Starts a task if its templates have everything they need; otherwise it waits.
    pub(super) fn render_or_wait(&mut self, id: &str, at: usize) {
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

    /// A waiting template reports what it waits for.
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

    /// A variable has appeared or changed. Tasks that wait for it continue slightly later. Tasks that read it may be
    /// restarted.
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

    /// A template with the default change_mode restarts its task, regardless of the restart policy.
    pub(super) fn rerender(&mut self, id: &str, at: usize, round: u64) {
        let now = self.now;
        let Some((_, task)) = self.task_mut(id, at) else { return };
        if task.phase != TaskPhase::Running || task.round != round {
            return;
        }
        let message = "Template with change_mode restart re-rendered";
        task.again = Some(message);
        task.tell(events::event(now, "Restart Signaled", message, serde_json::json!({}), &[]));
        self.signal_end(id, at);
    }

    /// The servers have been unreachable for five minutes, so templates that keep requesting them fail
    /// (contract, section 8).
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

    /// Starts the process of a task.
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

    /// A task and its state.
    pub(super) fn task_mut(&mut self, id: &str, at: usize) -> Option<(Arc<TaskSpec>, &mut Task)> {
        let allocation: &mut Allocation = self.allocations.get_mut(id)?;
        let spec = Arc::clone(allocation.spec.tasks.get(at)?);
        Some((spec, allocation.client.tasks.get_mut(at)?))
    }
}

/// The reason if a driver rejects a task's configuration. Parsing and registration accept it (contract,
/// section 12).
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
