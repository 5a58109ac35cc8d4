//! The life of runs and jobs: they appear, are held, queued, offered to a runner, run, and end.

use std::{collections::BTreeSet, time::Duration};

use jiff::{SignedDuration, Timestamp};
use rand::RngExt;

use super::{GitHub, Timer, after, data::*};

/// The maximum number of re-runs of a run (contract §8).
const MOST_RERUNS: u32 = 50;

/// How long a run can be run again (contract §8).
const MAY_RUN_AGAIN: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The time that a cancelled job's runner gets to stop.
const CANCEL_GRACE: Duration = Duration::from_secs(2);

impl GitHub {
    /// Starts a workflow run in a repository. `None` if the repository does not exist.
    pub fn queue_run(&mut self, repository: u64, jobs: Vec<JobSpec>, now: Timestamp) -> Option<u64> {
        self.queue_run_by(Trigger::Push, repository, jobs, now)
    }

    /// A push to a repository that starts no run.
    pub fn push(&mut self, repository: u64, now: Timestamp) {
        self.advance(now);
        if let Some(known) = self.repositories.get_mut(&repository) {
            known.pushed_at = Some(now);
        }
    }

    /// Starts a workflow run with this trigger. Only a push changes `pushed_at` (contract §8).
    pub fn queue_run_by(
        &mut self,
        trigger: Trigger,
        repository: u64,
        jobs: Vec<JobSpec>,
        now: Timestamp,
    ) -> Option<u64> {
        self.advance(now);
        let known = self.repositories.get_mut(&repository).filter(|repository| !repository.deleted)?;
        if trigger == Trigger::Push {
            known.pushed_at = Some(now);
        }
        let id = self.new_id();
        let number = self.run_numbers.entry(repository).or_insert(0);
        *number += 1;
        let run = Run {
            id,
            repository,
            name: "CI".to_string(),
            trigger,
            indexed: None,
            number: *number,
            attempt: 1,
            status: Status::Queued,
            conclusion: None,
            created_at: now,
            started_at: now,
            updated_at: now,
            plan: jobs,
            latest: Default::default(),
            jobs: Vec::new(),
            cancelled: false,
        };
        self.runs.insert(id, run);
        self.runs_of.entry(repository).or_default().insert(id);
        self.index(id, Status::Queued, now);
        self.schedule_ready_jobs(id, now);
        self.update_run(id, now);
        self.advance(now);
        Some(id)
    }

    /// Runs all jobs of a completed run again, with new IDs. Returns false if it is not completed.
    pub fn rerun(&mut self, run: u64, now: Timestamp) -> bool {
        self.advance(now);
        let Some(known) = self.runs.get_mut(&run).filter(|run| run.status == Status::Completed) else {
            return false;
        };
        known.attempt += 1;
        known.latest.clear();
        known.status = Status::Queued;
        known.conclusion = None;
        known.cancelled = false;
        known.started_at = now;
        known.updated_at = now;
        self.index(run, Status::Queued, now);
        self.schedule_ready_jobs(run, now);
        self.advance(now);
        true
    }

    /// Runs one job of a completed run again, and those that need it, with new IDs. The others keep their results (contract
    /// §8).
    ///
    /// # Errors
    /// The message of GitHub's refusal.
    pub fn rerun_job(&mut self, job: u64, now: Timestamp) -> Result<(), &'static str> {
        self.advance(now);
        let job = self.jobs.get(&job).ok_or("Not Found")?;
        let (id, attempt, index) = (job.run, job.attempt, job.index);
        let run = self.runs.get_mut(&id).ok_or("Not Found")?;
        if run.status != Status::Completed {
            return Err("The workflow run containing this job is already running");
        }
        let is_old = now.duration_since(run.created_at) > MAY_RUN_AGAIN;
        if attempt != run.attempt || run.attempt > MOST_RERUNS || is_old {
            return Err("This workflow run cannot be retried");
        }
        let mut again = BTreeSet::from([index]);
        // A job that needs it may itself be needed, so this repeats at most once per job.
        for _ in 0..run.plan.len() {
            let needs = |spec: &JobSpec| spec.needs.iter().any(|need| again.contains(need));
            let more: Vec<usize> = (0..run.plan.len()).filter(|at| needs(&run.plan[*at])).collect();
            again.extend(more);
        }
        run.attempt += 1;
        run.status = Status::Queued;
        run.conclusion = None;
        run.cancelled = false;
        run.started_at = now;
        run.updated_at = now;
        let attempt = run.attempt;
        run.latest.retain(|at, _| !again.contains(at));
        // The others are listed in the new attempt with new IDs.
        let kept: Vec<(usize, u64)> = run.latest.iter().map(|(at, job)| (*at, *job)).collect();
        for (at, old) in kept {
            let id = self.new_id();
            let Some(copy) = self.jobs.get(&old).map(|job| Job { id, attempt, ..job.clone() }) else {
                continue;
            };
            let Some(run) = self.runs.get_mut(&copy.run) else { continue };
            run.latest.insert(at, id);
            run.jobs.push(id);
            self.jobs.insert(id, copy);
            self.note_status(id, now);
        }
        self.index(id, Status::Queued, now);
        self.schedule_ready_jobs(id, now);
        self.advance(now);
        Ok(())
    }

    /// The index learns a run's status, now or later.
    fn index(&mut self, run: u64, status: Status, now: Timestamp) {
        if self.options.index_lag.is_zero() {
            if let Some(known) = self.runs.get_mut(&run) {
                known.indexed = Some(status);
            }
            return;
        }
        self.timers.insert((after(now, self.options.index_lag), Timer::Index { run, status }));
    }

    /// Cancels a run. Its queued jobs end at once, those in progress soon.
    pub fn cancel_run(&mut self, run: u64, now: Timestamp) -> bool {
        self.advance(now);
        let Some(known) = self.runs.get_mut(&run).filter(|run| run.status != Status::Completed) else {
            return false;
        };
        known.cancelled = true;
        for id in known.latest.values().copied().collect::<Vec<_>>() {
            let Some(job) = self.jobs.get(&id) else { continue };
            match job.status {
                Status::Completed => {}
                Status::InProgress => {
                    let timer = Timer::End { job: id, turn: job.turn, conclusion: CANCELLED };
                    self.timers.insert((after(now, CANCEL_GRACE), timer));
                }
                _ => self.complete_job(id, Conclusion::Cancelled, Some("cancelled"), now),
            }
        }
        self.update_run(run, now);
        self.advance(now);
        true
    }

    /// The jobs in progress of a run end now, successfully.
    pub fn end_jobs(&mut self, run: u64, now: Timestamp) {
        self.advance(now);
        let known = self.runs.get(&run).into_iter().flat_map(|run| run.latest.values());
        let in_progress = |id: &u64| self.jobs.get(id).is_some_and(|job| job.status == Status::InProgress);
        for id in known.copied().filter(in_progress).collect::<Vec<_>>() {
            self.complete_job(id, Conclusion::Success, None, now);
        }
    }

    /// Queues a held job. Returns false if it is not held.
    pub fn release_job(&mut self, job: u64, now: Timestamp) -> bool {
        self.advance(now);
        let held = self
            .jobs
            .get(&job)
            .is_some_and(|job| matches!(job.status, Status::Waiting | Status::Pending | Status::Requested));
        if held {
            self.enqueue(job, now);
            self.advance(now);
        }
        held
    }

    /// Processes everything that happens up to `now`, in order, each event at its own time.
    pub fn advance(&mut self, now: Timestamp) {
        while let Some((time, timer)) = self.timers.first().copied().filter(|(time, _)| *time <= now) {
            self.timers.remove(&(time, timer));
            self.now = self.now.max(time);
            self.fire(timer, time);
        }
        self.now = self.now.max(now);
    }

    fn fire(&mut self, timer: Timer, now: Timestamp) {
        match timer {
            Timer::Appear { run, attempt, index } => self.appear(run, attempt, index, now),
            Timer::Release { job } => {
                let held = self.jobs.get(&job).is_some_and(|job| {
                    matches!(job.status, Status::Waiting | Status::Pending | Status::Requested)
                });
                if held {
                    self.enqueue(job, now);
                }
            }
            Timer::Start { job, turn } => self.start(job, turn, now),
            Timer::End { job, turn, conclusion } => {
                let running = self
                    .jobs
                    .get(&job)
                    .is_some_and(|job| job.status == Status::InProgress && job.turn == turn);
                if running {
                    let (conclusion, reason) = decode(conclusion);
                    self.complete_job(job, conclusion, reason, now);
                }
            }
            Timer::GiveUp { job, turn } => {
                let queued = self.jobs.get(&job).is_some_and(|job| {
                    job.status == Status::Queued && job.turn == turn && job.offered.is_none()
                });
                if queued {
                    self.complete_job(job, Conclusion::Failure, Some("queued for too long"), now);
                }
            }
            Timer::Status { run } => self.set_status(run, now),
            Timer::Index { run, status } => {
                if let Some(known) = self.runs.get_mut(&run) {
                    known.indexed = Some(status);
                }
            }
            Timer::Silence { runner } => self.check_silence(runner, now),
            Timer::Stale { runner } => {
                let limit = self.options.stale_after;
                let stale = self.runners.get(&runner).is_some_and(|runner| {
                    runner.ephemeral && !runner.online && after(runner.offline_since, limit) <= now
                });
                if stale {
                    self.remove_runner(runner, Removal::Stale);
                }
            }
            Timer::Forget { run, attempt } => self.forget_run(run, attempt),
        }
    }

    /// Forgets a run that was over at this attempt.
    fn forget_run(&mut self, run: u64, attempt: u32) {
        let is_over = |run: &Run| run.status == Status::Completed && run.attempt == attempt;
        if !self.runs.get(&run).is_some_and(is_over) {
            return;
        }
        let Some(run) = self.runs.remove(&run) else { return };
        for job in &run.jobs {
            self.forget_job(*job);
        }
        if let Some(runs) = self.runs_of.get_mut(&run.repository) {
            runs.remove(&run.id);
        }
    }

    /// Lets the jobs of a run appear if their dependencies have succeeded. Those that depend on an
    /// unsuccessful one are skipped.
    fn schedule_ready_jobs(&mut self, run: u64, now: Timestamp) {
        // Skipping one job can skip another, so this repeats at most once per job.
        let rounds = self.runs.get(&run).map_or(0, |run| run.plan.len());
        for _ in 0..=rounds {
            let Some(known) = self.runs.get(&run).filter(|run| !run.cancelled) else { return };
            let attempt = known.attempt;
            let mut skipped = Vec::new();
            for (index, spec) in known.plan.iter().enumerate() {
                if known.latest.contains_key(&index) {
                    continue;
                }
                let ends = spec.needs.iter().map(|need| {
                    known.latest.get(need).and_then(|job| self.jobs.get(job)).and_then(|job| job.conclusion)
                });
                let ends: Vec<Option<Conclusion>> = ends.collect();
                if ends.iter().any(|end| end.is_some_and(|end| end != Conclusion::Success)) {
                    skipped.push(index);
                } else if ends.iter().all(Option::is_some) {
                    self.timers.insert((after(now, spec.delay), Timer::Appear { run, attempt, index }));
                }
            }
            if skipped.is_empty() {
                return;
            }
            for index in skipped {
                if let Some(job) = self.make_job(run, index, now) {
                    self.complete_job_alone(
                        job,
                        Conclusion::Skipped,
                        Some("a job it needs did not succeed"),
                        now,
                    );
                }
            }
        }
    }

    fn make_job(&mut self, run: u64, index: usize, now: Timestamp) -> Option<u64> {
        let id = self.new_id();
        let run = self.runs.get_mut(&run)?;
        let spec = run.plan.get(index)?;
        let job = Job {
            id,
            run: run.id,
            repository: run.repository,
            attempt: run.attempt,
            index,
            name: if spec.name.is_empty() { format!("job {}", index + 1) } else { spec.name.clone() },
            labels: spec.labels.clone(),
            status: spec.held.unwrap_or(Status::Queued),
            conclusion: None,
            created_at: now,
            queued_at: now,
            started_at: now,
            completed_at: None,
            runner: None,
            offered: None,
            turn: 0,
            reason: None,
        };
        run.latest.insert(index, id);
        run.jobs.push(id);
        self.jobs.insert(id, job);
        self.note_status(id, now);
        Some(id)
    }

    fn appear(&mut self, run: u64, attempt: u32, index: usize, now: Timestamp) {
        let wanted = self
            .runs
            .get(&run)
            .is_some_and(|run| run.attempt == attempt && !run.cancelled && !run.latest.contains_key(&index));
        if !wanted {
            return;
        }
        let Some(job) = self.make_job(run, index, now) else { return };
        let spec = self.runs.get(&run).and_then(|run| run.plan.get(index));
        let (held, held_for) = spec.map_or((None, None), |spec| (spec.held, spec.held_for));
        if held.is_some() {
            if let Some(held_for) = held_for {
                self.timers.insert((after(now, held_for), Timer::Release { job }));
            }
            self.event(Event::JobHeld { job });
            self.update_run(run, now);
        } else {
            self.enqueue(job, now);
        }
    }

    fn ghost(&self, job: &Job) -> bool {
        self.runs.get(&job.run).and_then(|run| run.plan.get(job.index)).is_some_and(|spec| spec.ghost)
    }

    pub(super) fn enqueue(&mut self, id: u64, now: Timestamp) {
        let Some(ghost) = self.jobs.get(&id).map(|job| self.ghost(job)) else { return };
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.status = Status::Queued;
        job.queued_at = now;
        job.started_at = now;
        job.offered = None;
        job.runner = None;
        job.turn += 1;
        let (run, turn) = (job.run, job.turn);
        self.note_status(id, now);
        if !ghost {
            self.queued.insert((now, id));
            self.timers.insert((after(now, self.options.queue_limit), Timer::GiveUp { job: id, turn }));
        }
        self.event(Event::JobQueued { job: id });
        self.update_run(run, now);
        self.assign(now);
    }

    /// Whether a runner may get a job: its scope includes the repository and it has all the labels, in any case
    /// (contract §6). A job without labels (`runs-on: {group: …}`) finds none.
    pub fn fits(&self, runner: &Runner, job: &Job) -> bool {
        let reaches = match runner.scope {
            RegisteredAt::Repository(repository) => repository == job.repository,
            RegisteredAt::Organization(owner) => {
                self.repositories.get(&job.repository).is_some_and(|repository| repository.owner == owner)
            }
        };
        let has = |label: &String| runner.labels.iter().any(|own| own.to_lowercase() == label.to_lowercase());
        reaches && !job.labels.is_empty() && job.labels.iter().all(has)
    }

    /// Offers queued jobs, oldest first, to idle runners. Any matching one will do. Nothing is reserved.
    pub(super) fn assign(&mut self, now: Timestamp) {
        if self.idle.is_empty() {
            return;
        }
        for (time, id) in self.queued.iter().copied().collect::<Vec<_>>() {
            let Some(job) = self.jobs.get(&id) else { continue };
            let runners = self.idle.iter().filter_map(|runner| self.runners.get(runner));
            let fitting: Vec<u64> =
                runners.filter(|runner| self.fits(runner, job)).map(|runner| runner.id).collect();
            if fitting.is_empty() {
                continue;
            }
            let runner = fitting[self.rng.random_range(0..fitting.len())];
            let (shortest, longest) = self.options.pickup;
            let wait = self.rng.random_range(shortest.as_millis()..=longest.max(shortest).as_millis());
            let wait = Duration::from_millis(u64::try_from(wait).unwrap_or(0));
            self.queued.remove(&(time, id));
            self.idle.remove(&runner);
            if let Some(runner) = self.runners.get_mut(&runner) {
                runner.job = Some(id);
            }
            if let Some(job) = self.jobs.get_mut(&id) {
                job.offered = Some(runner);
                let turn = job.turn;
                self.timers.insert((after(now, wait), Timer::Start { job: id, turn }));
            }
            if self.idle.is_empty() {
                return;
            }
        }
    }

    fn start(&mut self, id: u64, turn: u32, now: Timestamp) {
        let spec =
            self.jobs.get(&id).and_then(|job| Some((self.runs.get(&job.run)?.plan.get(job.index)?, job)));
        let Some((duration, conclusion)) = spec.map(|(spec, _)| (spec.duration, spec.conclusion)) else {
            return;
        };
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.status != Status::Queued || job.turn != turn {
            return;
        }
        let Some(runner) = job.offered.take().and_then(|runner| self.runners.get(&runner)) else { return };
        job.status = Status::InProgress;
        job.started_at = now;
        job.runner = Some(JobRunner { id: runner.id, name: runner.name.clone(), group: runner.group });
        let (run, runner) = (job.run, runner.id);
        let timer = Timer::End { job: id, turn, conclusion: encode(conclusion) };
        self.timers.insert((after(now, duration), timer));
        self.note_status(id, now);
        self.event(Event::JobStarted { job: id, runner });
        self.update_run(run, now);
    }

    /// Ends a job now and continues its run.
    pub(super) fn complete_job(
        &mut self,
        id: u64,
        conclusion: Conclusion,
        reason: Option<&'static str>,
        now: Timestamp,
    ) {
        let Some(run) = self.jobs.get(&id).map(|job| job.run) else { return };
        self.complete_job_alone(id, conclusion, reason, now);
        self.schedule_ready_jobs(run, now);
        self.update_run(run, now);
        self.assign(now);
    }

    fn complete_job_alone(
        &mut self,
        id: u64,
        conclusion: Conclusion,
        reason: Option<&'static str>,
        now: Timestamp,
    ) {
        let Some(job) = self.jobs.get_mut(&id).filter(|job| job.status != Status::Completed) else { return };
        self.queued.remove(&(job.queued_at, id));
        let offered = job.offered.take();
        job.status = Status::Completed;
        job.conclusion = Some(conclusion);
        job.completed_at = Some(now);
        job.reason = reason;
        let runner = job.runner.as_ref().map(|runner| runner.id);
        self.note_status(id, now);
        self.event(Event::JobCompleted { job: id, runner, conclusion });
        if let Some(offered) = offered {
            self.free_runner(offered);
        }
        if let Some(runner) = runner {
            self.job_done(runner);
        }
    }

    /// Updates a run's listed status from its jobs, at once or after the lag.
    fn update_run(&mut self, run: u64, now: Timestamp) {
        if self.options.run_lag.is_zero() {
            return self.set_status(run, now);
        }
        let lag = u64::try_from(self.options.run_lag.as_millis()).unwrap_or(u64::MAX);
        let lag = Duration::from_millis(self.rng.random_range(0..=lag));
        self.timers.insert((after(now, lag), Timer::Status { run }));
    }

    fn set_status(&mut self, run: u64, now: Timestamp) {
        let Some(known) = self.runs.get(&run) else { return };
        let jobs: Vec<&Job> = known.latest.values().filter_map(|job| self.jobs.get(job)).collect();
        let all_there = jobs.len() == known.plan.len() || known.cancelled;
        let over = |job: &&Job| job.status == Status::Completed;
        let status = if all_there && jobs.iter().all(over) {
            Status::Completed
        } else if jobs
            .iter()
            .any(|job| job.status == Status::InProgress || (over(job) && !self.options.requeues))
        {
            Status::InProgress
        } else if jobs.is_empty() || jobs.iter().any(|job| job.status == Status::Queued) {
            Status::Queued
        } else {
            jobs.iter().filter(|job| !over(job)).map(|job| job.status).max().unwrap_or(Status::Queued)
        };
        let any = |end: Conclusion| jobs.iter().any(|job| job.conclusion == Some(end));
        let conclusion = (status == Status::Completed).then(|| {
            if known.cancelled || any(Conclusion::Cancelled) {
                Conclusion::Cancelled
            } else if any(Conclusion::Failure) {
                Conclusion::Failure
            } else {
                Conclusion::Success
            }
        });
        let Some(known) = self.runs.get_mut(&run) else { return };
        if known.status != status || known.conclusion != conclusion {
            known.status = status;
            known.conclusion = conclusion;
            known.updated_at = now;
            let attempt = known.attempt;
            self.index(run, status, now);
            if status == Status::Completed {
                let forget = Timer::Forget { run, attempt };
                self.timers.insert((after(now, self.options.keep_runs), forget));
            }
        }
    }
}

/// Conclusions in a timer, which must be ordered plain data.
const CANCELLED: u8 = 2;
pub(super) const LOST: u8 = 3;

fn encode(conclusion: Conclusion) -> u8 {
    match conclusion {
        Conclusion::Success => 0,
        Conclusion::Failure => 1,
        Conclusion::Cancelled => CANCELLED,
        Conclusion::Skipped => 4,
    }
}

fn decode(conclusion: u8) -> (Conclusion, Option<&'static str>) {
    match conclusion {
        0 => (Conclusion::Success, None),
        1 => (Conclusion::Failure, None),
        CANCELLED => (Conclusion::Cancelled, Some("cancelled")),
        LOST => (Conclusion::Failure, Some("the runner was lost")),
        _ => (Conclusion::Skipped, None),
    }
}
