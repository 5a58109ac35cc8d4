//! The consequences of events: the steps of a runner's process.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rand::RngExt;

use super::{
    super::{
        clock::shift,
        github::{Event, Leave, Removal},
        keep,
        nomad::{Exit, TaskEvent},
        process::{Credentials, Phase, Process},
    },
    LONGEST_TIMELINE, Step, Violation, World,
};

impl World {
    pub(super) fn github_event(&mut self, event: Event, now: Timestamp) {
        match event {
            Event::JobQueued { job } => self.job_event(job, "queued", now),
            Event::JobHeld { job } => self.job_event(job, "waiting", now),
            Event::JobStarted { job, .. } => self.job_event(job, "in_progress", now),
            Event::JobCompleted { job, .. } => self.job_event(job, "completed", now),
            Event::RunnerOnline { .. } | Event::RunnerOffline { .. } => {}
            Event::RunnerRemoved { runner, name, by } => {
                if by != Removal::JobDone {
                    self.note(now, format!("GitHub removed runner {name} ({by:?})"));
                }
                let own = |process: &&Process| process.runner == Some(runner);
                let Some(allocation) =
                    self.processes.values().find(own).map(|process| process.allocation.clone())
                else {
                    return;
                };
                // If its job is done or its registration is gone, the process ends on its own.
                let wait = if by == Removal::JobDone { self.options.wind_down } else { self.options.give_up };
                if let Some(process) = self.processes.get_mut(&allocation) {
                    process.phase = Phase::Ending;
                    process.runner = None;
                }
                self.later(&allocation, wait, Step::Exit(0), now);
            }
        }
    }

    fn job_event(&mut self, id: u64, action: &'static str, now: Timestamp) {
        keep(&mut self.webhooks, LONGEST_TIMELINE, (id, action));
        let Some(job) = self.github.job(id) else { return };
        let repository = self.github.full_name(job.repository).unwrap_or_default();
        let mut line = format!("job {id} of {repository} [{}] {action}", job.labels.join(", "));
        if let Some(runner) = &job.runner {
            line.push_str(&format!(" on {}", runner.name));
        }
        if let Some(conclusion) = job.conclusion {
            line.push_str(&format!(": {}", conclusion.as_str()));
        }
        if let Some(reason) = job.reason {
            line.push_str(&format!(" ({reason})"));
        }
        self.note(now, line);
    }

    /// An event of a Nomad task. The simulated Nomad's own events arrive automatically. Tests may add others.
    pub fn task_event(&mut self, event: TaskEvent, now: Timestamp) {
        match event {
            TaskEvent::Started { allocation, namespace, job_id, env, .. } => {
                self.note(now, format!("task of {job_id} started"));
                let Some(credentials) = Credentials::from_environment(&env) else { return };
                self.rounds += 1;
                let github_job = self.github_job(&namespace, &job_id);
                let process = Process {
                    allocation: allocation.clone(),
                    namespace,
                    nomad_job: job_id,
                    credentials,
                    phase: Phase::Starting,
                    runner: None,
                    job_id: github_job,
                    since: now,
                    round: self.rounds,
                };
                self.processes.insert(allocation.clone(), process);
                self.later(&allocation, self.options.start_up, Step::Connect, now);
            }
            TaskEvent::KillRequested { allocation, job_id, .. } => {
                self.note(now, format!("task of {job_id} told to stop"));
                if let Some(process) = self.processes.get_mut(&allocation) {
                    process.phase = Phase::Ending;
                    self.check_busy(&allocation, "told to stop", now);
                    self.later(&allocation, self.options.stop, Step::Stop, now);
                }
            }
            TaskEvent::Ended { allocation, job_id, exit, .. } => {
                self.note(now, format!("task of {job_id} ended ({})", exit.code));
                self.check_busy(&allocation, "its task ended", now);
                if let Some(runner) = self.processes.remove(&allocation).and_then(|process| process.runner) {
                    self.github.disconnect(runner, Leave::Vanished, self.github_time(now));
                }
            }
        }
    }

    pub(super) fn take_step(&mut self, allocation: &str, step: Step, now: Timestamp) {
        match step {
            Step::Connect => {
                let Some(process) = self.processes.get_mut(allocation) else { return };
                if process.phase != Phase::Starting {
                    return;
                }
                if self.options.hangs > 0.0 && self.rng.random_bool(self.options.hangs) {
                    process.phase = Phase::Stuck;
                    let line = format!("the process of {} hangs", process.nomad_job);
                    return self.note(now, line);
                }
                self.connect(allocation, now);
            }
            Step::Stop => {
                self.check_busy(allocation, "told to stop", now);
                if let Some(runner) = self.processes.get(allocation).and_then(|process| process.runner) {
                    self.github.disconnect(runner, Leave::Graceful, self.github_time(now));
                }
                self.end(allocation, 0, now);
            }
            Step::Exit(code) => self.end(allocation, code, now),
        }
    }

    fn connect(&mut self, allocation: &str, now: Timestamp) {
        let Some(process) = self.processes.get_mut(allocation) else { return };
        let github_now = shift(now, self.options.github_skew);
        let connected = process.credentials.connect(&mut self.github, github_now);
        let job = process.nomad_job.clone();
        match connected {
            Ok(runner) => {
                process.runner = Some(runner);
                process.phase = Phase::Listening;
                self.note(now, format!("runner of {job} connected"));
            }
            Err(refused) => {
                process.phase = Phase::Ending;
                self.note(now, format!("runner of {job} refused: {refused}"));
                self.later(allocation, self.options.give_up, Step::Exit(0), now);
            }
        }
    }

    /// Connects a process that started at least that long ago and is not connected, even if it hangs. Returns
    /// whether there was one.
    pub fn connect_now(&mut self, nomad_job: &str, at_least: SignedDuration) -> bool {
        let now = self.clock.now();
        let waits = |process: &&Process| {
            process.nomad_job == nomad_job
                && matches!(process.phase, Phase::Starting | Phase::Stuck)
                && now.duration_since(process.since) >= at_least
        };
        let waiting = self.processes.values().find(waits).map(|process| process.allocation.clone());
        if let Some(allocation) = &waiting {
            self.connect(allocation, now);
        }
        waiting.is_some()
    }

    fn end(&mut self, allocation: &str, code: i64, now: Timestamp) {
        if self.processes.remove(allocation).is_some() {
            self.nomad.exit_task(allocation, Exit::code(code), self.nomad_time(now));
        }
    }

    /// Ends a runner's process from outside, as a crash or the kernel's OOM killer would.
    pub fn crash(&mut self, allocation: &str, exit: Exit) {
        let now = self.clock.now();
        self.advance(now);
        if let Some(process) = self.processes.remove(allocation) {
            if let Some(runner) = process.runner {
                self.github.disconnect(runner, Leave::Vanished, self.github_time(now));
            }
            self.nomad.exit_task(allocation, exit, self.nomad_time(now));
        }
        self.touch();
    }

    /// Records a violation if a runner that is about to end is running a job.
    fn check_busy(&mut self, allocation: &str, reason: &str, now: Timestamp) {
        let Some(process) = self.processes.get(allocation) else { return };
        let Some(runner) = process.runner else { return };
        let Some(job) = self.github.running_job(runner).map(|job| job.id) else { return };
        if self.violations.iter().any(|known| known.job == job) {
            return;
        }
        let name = self.github.runner(runner).map(|runner| runner.name.clone()).unwrap_or_default();
        let nomad_job = process.nomad_job.clone();
        self.note(now, format!("busy runner killed: {name} with job {job}: {reason}"));
        self.violations.push(Violation {
            time: now,
            nomad_job,
            runner: name,
            job,
            reason: reason.to_string(),
        });
    }

    fn later(
        &mut self,
        allocation: &str,
        (shortest, longest): (Duration, Duration),
        step: Step,
        now: Timestamp,
    ) {
        let Some(round) = self.processes.get(allocation).map(|process| process.round) else { return };
        let wait = self.rng.random_range(shortest.as_millis()..=longest.max(shortest).as_millis());
        let wait = SignedDuration::from_millis(i64::try_from(wait).unwrap_or(i64::MAX));
        self.timers.insert((shift(now, wait), allocation.to_string(), round, step));
    }

    fn github_job(&self, namespace: &str, nomad_job: &str) -> Option<u64> {
        let job = self.nomad.job(namespace, nomad_job)?;
        job.meta.values().find_map(|text| job_in(text))
    }
}

/// The GitHub job that a Nomad job was started for: `job_id` in a Meta value that is JSON.
pub fn job_in(meta: &str) -> Option<u64> {
    serde_json::from_str::<serde_json::Value>(meta).ok()?.get("job_id")?.as_u64()
}
