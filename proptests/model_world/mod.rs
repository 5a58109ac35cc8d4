//! A small GitHub and a small Nomad in virtual time, with their own rules: nothing here uses the planner.
//!
//! GitHub gives a queued job to any idle online runner of its repository that has all of the job's labels.
//! Nomad places jobs in order while there is room, makes a task wait for its variable, and kills it slowly.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use githubrunner::model::{Registration as Mode, *};
use jiff::SignedDuration;

mod actions;
mod sights;

/// A runner with this label fits no node.
pub const NOWHERE: &str = "nomadtools nowhere";

/// A small generator with the same numbers for the same seed.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit.max(1)
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

/// The world's behaviour. Times in seconds, chances in percent.
#[derive(Clone, Debug)]
pub struct Settings {
    pub repositories: usize,
    /// How many runners fit on the nodes at once.
    pub capacity: usize,
    /// From the credentials to the started task.
    pub pull: u64,
    /// From the order to stop to the end of the task.
    pub kill: u64,
    pub mode: Mode,
    /// A runner's process ends before it takes a job.
    pub crashes: u64,
    /// An action fails before it takes effect.
    pub failures: u64,
    /// An action takes effect although its response is an error.
    pub lost_answers: u64,
    /// A repository, or all of Nomad, cannot be listed.
    pub unseen: u64,
    /// A listing is incomplete, and says so.
    pub incomplete: u64,
    /// GitHub forgets a registered runner, at each step.
    pub forgets: u64,
    /// A runner's node cannot reach GitHub: its process runs but never connects.
    pub unreachable: u64,
}

#[derive(Clone, Debug)]
pub struct Job {
    pub repository: usize,
    pub labels: Vec<String>,
    pub created: u64,
    pub lasts: u64,
    pub status: JobStatus,
    pub runner: Option<String>,
    pub ends: u64,
}

#[derive(Clone, Debug)]
enum Phase {
    Pending,
    Waiting,
    Starting { ready: u64 },
    Running,
    Stopping { until: u64 },
    Dead { at: u64, finish: Finish },
}

#[derive(Clone, Debug)]
struct Task {
    meta: RunnerMeta,
    submitted: u64,
    placed: Option<u64>,
    started: Option<u64>,
    phase: Phase,
}

#[derive(Clone, Debug)]
struct Listed {
    repository: usize,
    labels: BTreeSet<String>,
    online: bool,
    job: Option<JobId>,
}

#[derive(Clone, Debug)]
pub struct World {
    pub now: u64,
    pub settings: Settings,
    pub random: Random,
    pub jobs: BTreeMap<JobId, Job>,
    tasks: BTreeMap<String, Task>,
    variables: BTreeSet<String>,
    registrations: BTreeMap<String, Listed>,
    /// What happened, for display.
    pub log: Vec<String>,
    /// What must never happen.
    pub wrong: Vec<String>,
}

pub fn at(seconds: u64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_hours(500_000) + SignedDuration::from_secs(seconds as i64)
}

impl World {
    pub fn new(settings: Settings, seed: u64) -> Self {
        World {
            now: 0,
            settings,
            random: Random(seed),
            jobs: BTreeMap::new(),
            tasks: BTreeMap::new(),
            variables: BTreeSet::new(),
            registrations: BTreeMap::new(),
            log: Vec::new(),
            wrong: Vec::new(),
        }
    }

    pub fn say(&mut self, text: impl Into<String>) {
        self.log.push(format!("{:>6}s  {}", self.now, text.into()));
    }

    pub fn queue(&mut self, repository: usize, labels: &[&str], lasts: u64) {
        let id = JobId(self.jobs.len() as u64 + 1);
        self.say(format!("job {id} of r{} queued: {labels:?}, lasts {lasts}s", repository + 1));
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        let created = self.now;
        let status = JobStatus::Queued;
        let job = Job { repository, labels, created, lasts, status, runner: None, ends: 0 };
        self.jobs.insert(id, job);
    }

    /// Advances time by a step, in which everything that is due happens.
    pub fn advance(&mut self, seconds: u64) {
        self.now += seconds;
        self.finish_jobs();
        self.run_tasks();
        self.place();
        self.give_out();
        if self.random.percent(self.settings.forgets) {
            self.forget_one();
        }
    }

    fn finish_jobs(&mut self) {
        let now = self.now;
        let over: Vec<(JobId, String)> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.status == JobStatus::InProgress && job.ends <= now)
            .filter_map(|(id, job)| Some((*id, job.runner.clone()?)))
            .collect();
        for (id, runner) in over {
            self.jobs.get_mut(&id).unwrap().status = JobStatus::Completed;
            self.registrations.remove(&runner);
            self.say(format!("job {id} done by {runner}"));
            self.end(&runner, Finish::Success);
        }
    }

    fn end(&mut self, name: &str, finish: Finish) {
        if let Some(task) = self.tasks.get_mut(name) {
            task.phase = Phase::Dead { at: self.now, finish };
        }
    }

    fn run_tasks(&mut self) {
        let now = self.now;
        for name in self.tasks.keys().cloned().collect::<Vec<_>>() {
            match self.tasks[&name].phase.clone() {
                Phase::Stopping { until } if until <= now => self.end(&name, Finish::Stopped),
                Phase::Waiting if self.variables.contains(&name) || !self.settings.mode.needs_variable() => {
                    self.tasks.get_mut(&name).unwrap().phase =
                        Phase::Starting { ready: now + self.settings.pull };
                }
                Phase::Starting { ready } if ready <= now => self.start(&name),
                _ => {}
            }
        }
    }

    fn start(&mut self, name: &str) {
        let task = self.tasks.get_mut(name).unwrap();
        task.started = Some(self.now);
        task.phase = Phase::Running;
        let listed = Listed {
            repository: task.meta.repo_id.unwrap().0 as usize - 1,
            labels: task.meta.labelsstr.split(',').map(str::to_lowercase).collect(),
            online: true,
            job: None,
        };
        let configured = match self.settings.mode {
            Mode::Jit => self.registrations.contains_key(name),
            _ => true,
        };
        if !configured || self.random.percent(self.settings.crashes) {
            self.say(format!("{name} crashes"));
            if self.settings.mode != Mode::Jit {
                self.registrations.insert(name.to_owned(), Listed { online: false, ..listed });
            }
            self.end(name, Finish::Failure { exit_code: Some(1) });
        } else {
            // GitHub does not know a runner that registers itself until it connects.
            let reachable =
                self.settings.mode != Mode::Jit || !self.random.percent(self.settings.unreachable);
            if !reachable {
                self.say(format!("{name} does not get to GitHub"));
            }
            self.registrations.insert(name.to_owned(), Listed { online: reachable, ..listed });
        }
    }

    fn place(&mut self) {
        let used = |world: &World| {
            let on_node = |task: &&Task| !matches!(task.phase, Phase::Pending | Phase::Dead { .. });
            world.tasks.values().filter(on_node).count()
        };
        let mut waiting: Vec<(u64, String)> = self
            .tasks
            .iter()
            .filter(|(_, task)| matches!(task.phase, Phase::Pending) && task.fits())
            .map(|(name, task)| (task.submitted, name.clone()))
            .collect();
        waiting.sort();
        for (_, name) in waiting {
            if used(self) < self.settings.capacity {
                let task = self.tasks.get_mut(&name).unwrap();
                task.placed = Some(self.now);
                task.phase = Phase::Waiting;
            }
        }
    }

    fn give_out(&mut self) {
        let mut queued: Vec<(u64, JobId)> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.status == JobStatus::Queued)
            .map(|(id, job)| (job.created, *id))
            .collect();
        queued.sort();
        for (_, id) in queued {
            let job = &self.jobs[&id];
            let idle: Vec<String> = self
                .registrations
                .iter()
                .filter(|(_, listed)| listed.online && listed.job.is_none())
                .filter(|(_, listed)| listed.repository == job.repository)
                .filter(|(_, listed)| {
                    job.labels.iter().all(|label| listed.labels.contains(&label.to_lowercase()))
                })
                .map(|(name, _)| name.clone())
                .collect();
            if idle.is_empty() {
                continue;
            }
            let runner = idle[self.random.below(idle.len() as u64) as usize].clone();
            self.say(format!("job {id} given to {runner}"));
            self.registrations.get_mut(&runner).unwrap().job = Some(id);
            let now = self.now;
            let job = self.jobs.get_mut(&id).unwrap();
            job.status = JobStatus::InProgress;
            job.ends = now + job.lasts;
            job.runner = Some(runner);
        }
    }

    /// A running runner disappears from GitHub's list.
    fn forget_one(&mut self) {
        let idle = self.registrations.iter().find(|(_, listed)| listed.online && listed.job.is_none());
        if let Some(name) = idle.map(|(name, _)| name.clone()) {
            self.say(format!("GitHub forgets {name}"));
            self.registrations.remove(&name);
        }
    }

    /// Runners that are not dead, by group.
    pub fn live(&self) -> BTreeMap<(u64, String), usize> {
        let mut live = BTreeMap::new();
        for task in self.tasks.values().filter(|task| !matches!(task.phase, Phase::Dead { .. })) {
            let group = (task.meta.repo_id.unwrap().0, task.meta.labelsstr.to_lowercase());
            *live.entry(group).or_default() += 1;
        }
        live
    }

    /// How many attempts of each job are alive, not counting those that have taken another job.
    pub fn attempts(&self) -> BTreeMap<JobId, usize> {
        let mut attempts = BTreeMap::new();
        for (name, task) in &self.tasks {
            let busy = self.registrations.get(name).is_some_and(|listed| listed.job.is_some());
            if !busy && !matches!(task.phase, Phase::Dead { .. }) {
                *attempts.entry(task.meta.job_id().unwrap()).or_default() += 1;
            }
        }
        attempts
    }

    /// The runners of each job that could take a job, now or soon.
    pub fn at_hand(&self) -> BTreeMap<JobId, Vec<&str>> {
        let mut at_hand: BTreeMap<JobId, Vec<&str>> = BTreeMap::new();
        for (name, task) in &self.tasks {
            let listed = self.registrations.get(name);
            let idle = match task.phase {
                Phase::Pending | Phase::Waiting | Phase::Starting { .. } => true,
                Phase::Running => listed.is_some_and(|listed| listed.online && listed.job.is_none()),
                Phase::Stopping { .. } | Phase::Dead { .. } => false,
            };
            if idle {
                at_hand.entry(task.meta.job_id().unwrap()).or_default().push(name);
            }
        }
        at_hand
    }

    /// What is left in Nomad and at GitHub.
    pub fn left_over(&self) -> Vec<String> {
        let tasks = self.tasks.iter().map(|(name, task)| format!("job {name} {:?}", task.phase));
        let variables = self.variables.iter().map(|name| format!("variable {name}"));
        let registrations = self.registrations.keys().map(|name| format!("registration {name}"));
        tasks.chain(variables).chain(registrations).collect()
    }

    pub fn moment(&self) -> Moment {
        Moment::after_start(Duration::from_secs(self.now))
    }
}

impl Task {
    /// Whether it fits any node at all.
    fn fits(&self) -> bool {
        !self.meta.labelsstr.contains("nowhere")
    }
}
