//! Follows jobs and runners from pass to pass, and measures how long they waited, started and ran.
//!
//! What happened before this process saw it is not measured, so a restart counts nothing twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;

use super::{metrics::Time, snapshot::Seen};
use crate::model::{
    EndedJob, JobId, JobStatus, Listing, Moment, RepositoryId, Runner, RunnerState, Subject, WorkflowJob, age,
};

/// At most this many jobs are followed at once; others are not measured.
const JOBS: usize = 50_000;

/// If a runner has been gone from Nomad for this long, no look will show its job's end for the first time.
const GONE: Duration = Duration::from_secs(60);

/// The number of ended jobs that are remembered. GitHub's IDs increase, so the smallest are forgotten.
const DONE: usize = 10_000;

/// The moment when this process started, so that times before it can be expressed too.
pub(super) const BEGAN: Moment = Moment::after_start(Duration::from_secs(10 * 365 * 24 * 60 * 60));

/// Follows jobs and runners.
#[derive(Debug, Default)]
pub(super) struct Track {
    jobs: BTreeMap<JobId, Job>,
    /// Repositories that have been listed before. What is running in a first listing started unobserved.
    listed: BTreeSet<RepositoryId>,
    /// Live runners, and whether they were seen connected.
    runners: BTreeMap<String, bool>,
    nomad_was_seen: bool,
    /// When each of our runners was last seen in Nomad, alive or dead.
    ours: BTreeMap<String, Moment>,
    /// Our runners whose job has ended, and when they took it.
    took: BTreeMap<String, Moment>,
    /// Jobs that were measured to their end. A run's list shows them until the run is over.
    done: BTreeSet<JobId>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Job {
    repository: RepositoryId,
    /// When it was queued.
    queued: Option<Moment>,
    /// It was seen before it was queued, so its age is not its waiting time.
    waited: bool,
    /// When one of our runners took it.
    taken: Option<Moment>,
}

impl Track {
    /// Follows a pass. Returns what can be measured now, and how runners have ended since the last one.
    pub fn follow(&mut self, seen: &Seen, now: Moment) -> (Vec<(Time, Duration)>, Vec<&'static str>) {
        let mut times = Vec::new();
        self.follow_jobs(seen, now, &mut times);
        for job in seen.deeds.iter().filter_map(|deed| deed.first_start()) {
            let queued = self.jobs.get(&job).and_then(|job| job.queued);
            times.extend(queued.map(|at| (Time::QueuedToStarted, now.since(at))));
        }
        let finishes = self.follow_runners(seen, now, &mut times);
        (times, finishes)
    }

    /// Measures an ended job by GitHub's own times, which is the only way for one that ran between two looks. `date` is
    /// GitHub's time of the look, `now` this process's.
    pub fn ended(&mut self, job: &EndedJob, date: Timestamp, now: Moment) -> Vec<(Time, Duration)> {
        let known = self.jobs.get(&job.id).copied().unwrap_or_default();
        // It is at least as old as this process, so the previous process may have measured it.
        let is_older = age(date, job.created_at) >= now.since(BEGAN);
        if is_older && known.queued.is_none() && known.taken.is_none()
            || !self.ours.contains_key(&job.runner)
            || !self.done.insert(job.id)
        {
            return Vec::new();
        }
        while self.done.len() > DONE {
            self.done.pop_first();
        }
        self.jobs.remove(&job.id);
        let taken = now - age(date, job.started_at);
        self.took.insert(job.runner.clone(), taken);
        let wait = match known {
            // Its waiting time was measured when it was taken.
            Job { taken: Some(_), .. } => None,
            Job { waited: true, queued, .. } => queued.map(|queued| taken.since(queued)),
            _ => Some(age(job.started_at, job.created_at)),
        };
        let mut times = vec![(Time::JobDuration, age(job.completed_at, job.started_at))];
        times.extend(wait.map(|wait| (Time::QueuedToTaken, wait)));
        times
    }

    /// How many jobs and runners are followed.
    pub fn len(&self) -> usize {
        self.jobs.len()
            + self.listed.len()
            + self.runners.len()
            + self.ours.len()
            + self.took.len()
            + self.done.len()
    }

    fn follow_jobs(&mut self, seen: &Seen, now: Moment, times: &mut Vec<(Time, Duration)>) {
        let ours: BTreeSet<&str> = runners(seen).map(|runner| runner.name.as_str()).collect();
        let held = seen.plan.holds.iter().filter_map(|hold| match &hold.subject {
            Subject::Job { id, .. } => Some(*id),
            _ => None,
        });
        let wanted: BTreeSet<JobId> = seen.plan.demand.values().flatten().copied().chain(held).collect();
        for (id, view) in &seen.observation.repositories {
            let Listing::Fresh { now: date, jobs, complete } = &view.listing else { continue };
            let is_first = self.listed.insert(*id);
            for job in jobs {
                let is_ours = job.runner_name.as_deref().is_some_and(|runner| ours.contains(runner));
                let is_new = self.jobs.len() < JOBS
                    && !self.done.contains(&job.id)
                    && (is_ours || wanted.contains(&job.id));
                if is_new || self.jobs.contains_key(&job.id) {
                    let known = self.jobs.entry(job.id).or_insert(Job { repository: *id, ..Job::default() });
                    known.see(job, is_ours, is_first, *date, now, times);
                }
            }
            if *complete {
                let listed: BTreeSet<JobId> = jobs.iter().map(|job| job.id).collect();
                self.jobs.retain(|job, known| {
                    let is_over = known.repository == *id && !listed.contains(job);
                    if let (true, Some(taken)) = (is_over, known.taken) {
                        times.push((Time::JobDuration, now.since(taken)));
                    }
                    !is_over
                });
            }
        }
        if seen.observation.nomad.is_some() {
            let repositories = &seen.observation.repositories;
            self.listed.retain(|id| repositories.contains_key(id));
            self.jobs.retain(|_, job| repositories.contains_key(&job.repository));
        }
    }

    fn follow_runners(
        &mut self,
        seen: &Seen,
        now: Moment,
        times: &mut Vec<(Time, Duration)>,
    ) -> Vec<&'static str> {
        let Some(nomad) = &seen.observation.nomad else { return Vec::new() };
        let is_first = !std::mem::replace(&mut self.nomad_was_seen, true);
        let connected = connected(seen);
        for runner in &nomad.runners {
            // A runner with a job had connected by the time it took the job.
            let took = self.took.remove(&runner.name);
            if let Some(at) = took.filter(|_| self.runners.get(&runner.name) == Some(&false)) {
                let since = now.since(at);
                times.push((
                    Time::StartedToConnected,
                    age(nomad.now, runner.submitted_at).saturating_sub(since),
                ));
                self.runners.insert(runner.name.clone(), true);
            }
            self.ours.insert(runner.name.clone(), now);
        }
        self.took.clear();
        self.ours.retain(|_, at| now.since(*at) < GONE);
        let mut live = BTreeMap::new();
        for runner in nomad.runners.iter().filter(|runner| runner.is_live()) {
            let is_connected = connected.contains(runner.name.as_str());
            let was = match self.runners.get(&runner.name) {
                Some(was) => *was,
                // It may have connected before this process started.
                None => is_first && runner.state == RunnerState::Running,
            };
            if is_connected && !was {
                times.push((Time::StartedToConnected, age(nomad.now, runner.submitted_at)));
            }
            live.insert(runner.name.clone(), was || is_connected);
        }
        let dead = nomad.runners.iter().filter(|runner| self.runners.contains_key(&runner.name));
        let finishes = dead.filter_map(|runner| Some(runner.finish.as_ref()?.word())).collect();
        self.runners = live;
        finishes
    }
}

impl Job {
    fn see(
        &mut self,
        job: &WorkflowJob,
        is_ours: bool,
        is_first: bool,
        date: Timestamp,
        now: Moment,
        times: &mut Vec<(Time, Duration)>,
    ) {
        let ago = |at: Option<Timestamp>| at.map_or(now, |at| now - age(date, at));
        match job.status {
            JobStatus::Waiting | JobStatus::Pending | JobStatus::Requested => self.waited = true,
            JobStatus::Queued if self.queued.is_none() => {
                self.queued = Some(if self.waited { now } else { ago(job.created_at) });
            }
            JobStatus::InProgress if is_ours && self.taken.is_none() => {
                let taken = ago(job.started_at);
                self.taken = Some(taken);
                let wait = match (self.queued, job.created_at, job.started_at) {
                    (Some(queued), ..) if self.waited => Some(taken.since(queued)),
                    // It was queued and taken between two looks.
                    (None, ..) if self.waited => None,
                    (_, Some(created), Some(started)) => Some(age(started, created)),
                    (queued, ..) => queued.map(|queued| taken.since(queued)),
                };
                times.extend(wait.filter(|_| !is_first).map(|wait| (Time::QueuedToTaken, wait)));
            }
            _ => {}
        }
    }
}

fn runners<'a>(seen: &Seen<'a>) -> impl Iterator<Item = &'a Runner> {
    seen.observation.nomad.iter().flat_map(|nomad| &nomad.runners)
}

/// The names of runners that are known to be connected: a job is running on them, or GitHub lists them as
/// connected.
fn connected<'a>(seen: &Seen<'a>) -> BTreeSet<&'a str> {
    let observation = seen.observation;
    let jobs = observation.repositories.values().flat_map(|view| view.listing.jobs());
    let busy = jobs.filter(|job| job.status == JobStatus::InProgress);
    let busy = busy.filter_map(|job| job.runner_name.as_deref());
    let online = observation.registrations.iter().filter(|registration| registration.online);
    let present = observation.memory.presence.iter().filter(|(_, there)| there.absent_since.is_none());
    busy.chain(online.map(|registration| registration.name.as_str()))
        .chain(present.map(|(name, _)| name.as_str()))
        .collect()
}
