//! Derives a runner's state from a job and its allocations. Pure. The order of the checks follows contract §10
//! and §12.

use super::wire::{AllocationStub, Evaluation, JobStub, TaskEvent, TaskState, nanoseconds};
use crate::{
    model::{Allocation, Blocked, Finish, Loss, Lost, Ownership, Runner, RunnerMeta, RunnerState, Timestamp},
    text::shown,
};

/// The DesiredDescription of an allocation whose node is down. It stays when the node comes back (contract §12).
const LOST: &str = "alloc is lost since its node is down";

/// The DesiredDescription of an allocation on a node being drained (contract §12).
const MIGRATED: &str = "alloc is being migrated";

/// The start of the DesiredDescription of an allocation that was preempted by a job of higher priority (contract
/// §10).
const PREEMPTED: &str = "Preempted by alloc ID";

/// The ClientDescription of an allocation that ran too long (contract §10).
const TIMED_OUT: &str = "exceeded max_run_duration";

/// The start of the `Template` event of a task that waits for its variable (contract §8).
const MISSING_VARIABLE: &str = "Missing: nomad.var";

/// Replaces the events of tasks that are too large to read.
const TASKS_UNREAD: &str = "Nomad's data about its tasks is too large to read";

/// How many characters of an event are kept.
const SHOWN_EVENT: usize = 300;

/// Events that say why a task never started (contract §10, §12).
const NEVER_RAN: &[&str] =
    &["Driver Failure", "Setup Failure", "Failed Artifact Download", "Task hook failed", "Failed Validation"];

/// A runner, from a job's stub and all its allocations.
pub fn classify(
    job: &JobStub,
    ownership: Ownership,
    meta: RunnerMeta,
    allocations: &[&AllocationStub],
    variable: Option<Timestamp>,
    blocked: Option<Blocked>,
) -> Runner {
    let mut runner = Runner {
        name: job.id.clone(),
        namespace: None,
        ownership,
        meta,
        state: RunnerState::Pending,
        finish: None,
        started: false,
        spent: false,
        ending: false,
        lost: None,
        variable,
        submitted_at: nanoseconds(job.submit_time),
        allocation: None,
        started_at: None,
        ended_at: None,
        blocked: None,
        last_event: None,
    };
    let main = runner.meta.task.clone();
    let main = main.as_deref();
    let newest = allocations.iter().max_by_key(|allocation| allocation.create_index);
    let live = allocations.iter().filter(|allocation| !allocation.is_terminal()).max_by_key(|allocation| {
        (!allocation.is_told_to_stop(), allocation.client_status == "running", allocation.create_index)
    });
    if let Some(allocation) = live.or(newest) {
        runner.started_at = allocation.started_at(main);
        runner.allocation = Some(Allocation {
            id: allocation.id.clone(),
            node: allocation.node_name.clone(),
            node_id: allocation.node_id.clone(),
            draining: false,
            created_at: nanoseconds(allocation.create_time),
        });
    }
    let is_lost = allocations.iter().any(|allocation| allocation.is_lost());
    let started = || allocations.iter().filter(|allocation| allocation.has_started(main));
    let is_live = |allocation: &&AllocationStub| live.is_some_and(|live| live.id == allocation.id);
    runner.started = started().next().is_some();
    runner.spent = is_lost || started().any(|allocation| !is_live(allocation));
    // A later allocation proves nothing: it never had a job.
    runner.lost = started().find_map(|allocation| allocation.lost(main));
    runner.ending = started().any(|allocation| !is_live(allocation) && allocation.is_ending(main));
    let needs_variable = runner.registration().needs_variable();
    // Nomad itself replaces lost allocations, and anything that nomadtools started, because its jobs keep
    // Nomad's defaults.
    let may_come_back = is_lost || ownership == Ownership::Nomadtools;
    match (live, newest) {
        (Some(allocation), _) => {
            runner.state = allocation.state(main, job.stop, needs_variable && variable.is_none());
            let tells = runner.state.is_unstarted() || allocation.tasks_unread;
            runner.last_event = tells.then(|| allocation.last_event(main)).flatten();
        }
        (None, Some(newest)) if !is_queued(job, newest, may_come_back) => {
            runner.state = RunnerState::Dead;
            runner.finish = Some(newest.finish(main));
            runner.ended_at = allocations.iter().map(|allocation| allocation.ended_at()).max();
        }
        (None, None) if job.stop || job.status == "dead" => {
            runner.state = RunnerState::Dead;
            runner.finish = Some(finish_of_summary(job));
        }
        (None, _) => runner.blocked = blocked,
    }
    runner
}

/// Whether a job with only terminal allocations will get another one: it is queued, or waits to be rescheduled. A job
/// that is not dead has an unfinished evaluation, which may be about to place one.
fn is_queued(job: &JobStub, newest: &AllocationStub, may_come_back: bool) -> bool {
    let queued = job.job_summary.summary.values().any(|group| group.queued > 0);
    let waits = queued || !newest.followup_evaluation.is_empty();
    !job.stop && job.status != "dead" && (waits || may_come_back)
}

/// How a job without allocations ended: it was stopped before it got one, or they have been
/// garbage-collected.
fn finish_of_summary(job: &JobStub) -> Finish {
    let groups = || job.job_summary.summary.values();
    if groups().any(|group| group.lost > 0) {
        Finish::Lost
    } else if groups().any(|group| group.failed > 0) {
        Finish::Failure { exit_code: None }
    } else if job.stop {
        Finish::Stopped
    } else if groups().any(|group| group.complete > 0) {
        Finish::Success
    } else {
        Finish::NeverRan { reason: "it never got an allocation".to_owned() }
    }
}

impl AllocationStub {
    fn tasks(&self) -> impl Iterator<Item = &TaskState> {
        self.task_states.values()
    }

    fn is_terminal(&self) -> bool {
        matches!(self.client_status.as_str(), "complete" | "failed" | "lost")
    }

    fn is_told_to_stop(&self) -> bool {
        matches!(self.desired_status.as_str(), "stop" | "evict")
    }

    fn is_lost(&self) -> bool {
        self.client_status == "lost" || self.desired_description.contains(LOST)
    }

    /// The task that is the runner, if the Meta names it and the client has reported it.
    fn main(&self, main: Option<&str>) -> Option<&TaskState> {
        self.task_states.get(main?)
    }

    /// Whether the runner's own task may have started. If its name is not known, a task that waits for its variable is
    /// the runner, and a started task is a prestart or sidecar task: the stub does not include lifecycles. If its
    /// tasks are too large to read, it may have a job, and only GitHub knows.
    fn has_started(&self, main: Option<&str>) -> bool {
        match main {
            _ if self.tasks_unread => true,
            Some(_) => self.main(main).is_some_and(TaskState::has_started),
            None => {
                self.tasks().any(TaskState::has_started) && !self.tasks().any(TaskState::waits_for_variable)
            }
        }
    }

    /// Whether the runner's own task has ended while others (poststop, sidecars) have not.
    fn is_over(&self, main: Option<&str>) -> bool {
        self.main(main).is_some_and(|task| task.state == "dead")
    }

    /// The last event of the runner's own task, or else of a task that has not ended.
    fn last_event(&self, main: Option<&str>) -> Option<String> {
        if self.tasks_unread {
            return Some(TASKS_UNREAD.to_owned());
        }
        let task = self.main(main).or_else(|| self.tasks().find(|task| task.state != "dead"))?;
        let event = task.events.last()?;
        let text = if event.display_message.is_empty() { &event.kind } else { &event.display_message };
        Some(shown(text, SHOWN_EVENT).to_string())
    }

    /// Whether it still runs the main task, if it was told to stop.
    fn is_ending(&self, main: Option<&str>) -> bool {
        !self.is_terminal() && !self.is_lost() && !self.is_over(main)
    }

    /// When its main task started, or else the last of its tasks.
    fn started_at(&self, main: Option<&str>) -> Option<Timestamp> {
        let of_tasks = || self.tasks().filter_map(|task| task.started_at).max();
        let started_at = self.main(main).map_or_else(of_tasks, |task| task.started_at);
        started_at.map(|at| self.by_the_servers(at))
    }

    /// The state of an allocation that is not terminal.
    fn state(&self, main: Option<&str>, job_stopped: bool, lacks_variable: bool) -> RunnerState {
        if job_stopped || self.is_told_to_stop() || self.is_over(main) {
            RunnerState::Stopping
        } else if self.client_status == "unknown" {
            RunnerState::Disconnected
        } else if self.has_started(main) {
            RunnerState::Running
        } else if lacks_variable {
            RunnerState::Waiting
        } else {
            RunnerState::Starting
        }
    }

    /// When a task of a live allocation started. A client's clock may be off by hours: a start before the allocation
    /// was created, or after the servers last heard of it, counts as the time when they last heard of it (contract
    /// nomad.md §3).
    fn by_the_servers(&self, started_at: Timestamp) -> Timestamp {
        let (made, heard) = (nanoseconds(self.create_time), nanoseconds(self.modify_time));
        let is_known = self.is_terminal() || (made..=heard).contains(&started_at);
        if is_known { started_at } else { heard.max(made) }
    }

    /// When a terminal allocation ended: the end of its last task, or else when the servers learned of it.
    fn ended_at(&self) -> Timestamp {
        self.tasks()
            .filter_map(|task| task.finished_at)
            .max()
            .unwrap_or_else(|| nanoseconds(self.modify_time))
    }

    /// How a terminal allocation ended.
    fn finish(&self, main: Option<&str>) -> Finish {
        let principal_tasks = || self.principal_tasks(main);
        let exit_code =
            principal_tasks().filter_map(TaskState::exit_code).find(|code| *code != 0).or_else(|| {
                // All are zero, or none is known.
                principal_tasks().find_map(TaskState::exit_code)
            });
        // The result of a poststop task says nothing about the runner.
        let is_complete = self.client_status == "complete" || self.main(main).is_some();
        if is_complete && self.has_succeeded(main) {
            Finish::Success
        } else if self.is_lost() {
            Finish::Lost
        } else if self.tasks().any(TaskState::is_out_of_memory) {
            Finish::OutOfMemory
        } else if self.client_status == "failed" {
            if self.tasks_unread || principal_tasks().any(TaskState::has_started) {
                Finish::Failure { exit_code }
            } else {
                Finish::NeverRan { reason: self.why_never_ran() }
            }
        } else if self.client_description.contains(TIMED_OUT) {
            Finish::TimedOut
        } else if self.desired_description.contains(MIGRATED) {
            Finish::Drained
        } else if self.is_told_to_stop() || self.tasks().any(|task| task.event("Killing").is_some()) {
            Finish::Stopped
        } else if exit_code.is_some_and(|code| code != 0) {
            Finish::Failure { exit_code }
        } else {
            Finish::Success
        }
    }

    /// How it was lost while its task was running, and when the servers last heard of it.
    fn lost(&self, main: Option<&str>) -> Option<Lost> {
        let is_disconnected = self.client_status == "unknown";
        if self.tasks_unread || !(self.is_terminal() || is_disconnected) {
            return None;
        }
        let loss = match self.finish(main) {
            // It may come back, with or without its runner. GitHub reports which jobs failed.
            _ if is_disconnected => Loss::Node,
            Finish::Lost => Loss::Node,
            Finish::OutOfMemory => Loss::Memory,
            Finish::Drained => Loss::Drain,
            Finish::Stopped if self.desired_description.starts_with(PREEMPTED) => Loss::Preemption,
            _ => return None,
        };
        Some(Lost { loss, at: nanoseconds(self.modify_time) })
    }

    /// Exit code 0 that was not forced. A sidecar is killed when the main task is done, and a prestart task is
    /// done before it begins. So one principal task that ended well, and none that failed on its own, is success.
    fn has_succeeded(&self, main: Option<&str>) -> bool {
        let by_itself = || self.principal_tasks(main).filter(|task| task.event("Killing").is_none());
        by_itself().any(|task| task.exit_code() == Some(0))
            && by_itself().all(|task| task.exit_code().unwrap_or(0) == 0)
    }

    /// The runner's own task, or if its name is not known, those that had not ended when another one started.
    fn principal_tasks(&self, main: Option<&str>) -> impl Iterator<Item = &TaskState> {
        let main = self.main(main);
        let last_start = self.tasks().filter_map(|task| task.started_at).max();
        self.tasks().filter(move |task| match (main, task.finished_at, last_start) {
            (Some(main), ..) => std::ptr::eq(*task, main),
            (None, Some(finished), Some(start)) => finished >= start,
            _ => true,
        })
    }

    fn why_never_ran(&self) -> String {
        let events = || self.tasks().flat_map(|task| task.events.iter().rev());
        let event =
            events().find(|event| NEVER_RAN.contains(&event.kind.as_str())).or_else(|| events().next());
        match event {
            Some(event) if !event.display_message.is_empty() => {
                format!("{}: {}", event.kind, event.display_message)
            }
            Some(event) => event.kind.clone(),
            None => self.client_description.clone(),
        }
    }
}

impl TaskState {
    fn has_started(&self) -> bool {
        self.started_at.is_some()
    }

    fn waits_for_variable(&self) -> bool {
        let template = self.event("Template");
        self.state == "pending"
            && !self.has_started()
            && template.is_some_and(|event| event.display_message.starts_with(MISSING_VARIABLE))
    }

    /// The last event of a kind.
    fn event(&self, kind: &str) -> Option<&TaskEvent> {
        self.events.iter().rev().find(|event| event.kind == kind)
    }

    fn exit_code(&self) -> Option<i64> {
        self.event("Terminated")?.details.get("exit_code")?.parse().ok()
    }

    fn is_out_of_memory(&self) -> bool {
        self.events.iter().any(|event| event.details.get("oom_killed").is_some_and(|killed| killed == "true"))
    }
}

/// Why Nomad cannot place a job, from its blocked evaluation (contract §12); `None` if it gives no reason.
pub fn blocked(evaluation: &Evaluation) -> Option<Blocked> {
    let mut reasons: Vec<String> = Vec::new();
    let mut exhausted = false;
    for metric in evaluation.failed_groups.values() {
        exhausted |= metric.nodes_exhausted > 0 || !metric.quota_exhausted.is_empty();
        reasons.extend(metric.quota_exhausted.iter().map(|limit| format!("quota reached: {limit}")));
        reasons.extend(
            metric
                .dimension_exhausted
                .iter()
                .map(|(what, count)| format!("{what} exhausted on {}", nodes(*count))),
        );
        if metric.dimension_exhausted.is_empty() && metric.nodes_exhausted > 0 {
            reasons.push(format!("{} full", nodes(metric.nodes_exhausted)));
        }
        for (what, count) in metric.constraint_filtered.iter().chain(&metric.class_filtered) {
            reasons.push(format!("{what} excluded {}", nodes(*count)));
        }
        if metric.constraint_filtered.is_empty()
            && metric.class_filtered.is_empty()
            && metric.nodes_filtered > 0
        {
            reasons.push(format!("{} excluded", nodes(metric.nodes_filtered)));
        }
        if metric.nodes_evaluated == 0 && metric.quota_exhausted.is_empty() {
            reasons.push("no node is up in the job's datacenters and node pool".to_owned());
        }
    }
    (!evaluation.failed_groups.is_empty()).then(|| Blocked { exhausted, reason: reasons.join(", ") })
}

fn nodes(count: i64) -> String {
    if count == 1 { "1 node".to_owned() } else { format!("{count} nodes") }
}

#[cfg(test)]
#[path = "allocations_tests.rs"]
pub(super) mod tests;
