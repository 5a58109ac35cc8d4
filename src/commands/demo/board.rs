//! The state of the demo's jobs and runners, and the words for it.

use std::{collections::BTreeMap, time::Duration};

use githubrunner_sim::{
    github::{Conclusion, Job, Status},
    world::World,
};

use crate::model::{Finish, NomadView, RunnerState};

/// How many characters of a runner's name the table shows.
const SHORT_NAME: usize = 6;

/// The colour of a cell on a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    /// No colour.
    Plain,
    /// It is waiting for something.
    Waits,
    /// It is working.
    Works,
    /// It ended well.
    Well,
    /// It ended badly.
    Bad,
    /// It is over.
    Past,
}

/// A text with a colour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub text: String,
    pub mood: Mood,
}

fn cell(mood: Mood, text: impl Into<String>) -> Cell {
    Cell { text: text.into(), mood }
}

/// One line: a job with its runner, or another runner that was started for the job above.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// `owner/name`
    pub repository: String,
    /// The job's name.
    pub job: String,
    /// `runs-on`
    pub labels: String,
    /// The job's state.
    pub doing: Cell,
    /// The last part of the runner's name.
    pub runner: String,
    /// The runner's state.
    pub state: Cell,
    /// Identifies the line across updates.
    pub key: (u64, usize),
}

/// A runner as last seen.
struct Seen {
    job_id: Option<u64>,
    warm: bool,
    state: RunnerState,
    finish: Option<Finish>,
    blocked: Option<String>,
    gone: bool,
}

/// Everything that is known.
#[derive(Default)]
pub(super) struct Board {
    runners: BTreeMap<String, Seen>,
    order: Vec<String>,
}

impl Board {
    /// Updates from Nomad's view.
    pub fn learn(&mut self, view: &NomadView) {
        for seen in self.runners.values_mut() {
            seen.gone = true;
        }
        for runner in &view.runners {
            let seen = Seen {
                job_id: runner.meta.job_id().map(|id| id.0),
                warm: runner.warm().is_some(),
                state: runner.state,
                finish: runner.finish.clone(),
                blocked: runner.blocked.as_ref().map(|blocked| blocked.reason.clone()),
                gone: false,
            };
            if self.runners.insert(runner.name.clone(), seen).is_none() {
                self.order.push(runner.name.clone());
            }
        }
    }

    /// The state of the newest existing runner that was started for a job.
    pub fn runner_of(&self, job_id: u64) -> Option<RunnerState> {
        let of_job = self.order.iter().rev().filter_map(|name| self.runners.get(name));
        of_job.filter(|seen| seen.job_id == Some(job_id) && !seen.gone).map(|seen| seen.state).next()
    }

    /// Whether this is a live warm runner.
    pub fn is_warm(&self, name: &str) -> bool {
        self.runners.get(name).is_some_and(|seen| seen.warm && !seen.gone && seen.state != RunnerState::Dead)
    }

    /// How many runners were started, and how many of them were purged.
    pub fn counts(&self) -> (usize, usize) {
        (self.runners.len(), self.runners.values().filter(|seen| seen.gone).count())
    }

    /// The table, in the order in which the jobs arrived.
    pub fn rows(&self, world: &World) -> Vec<Row> {
        let mut rows = Vec::new();
        let taken: Vec<&str> = world.github.jobs().filter_map(runner_name).collect();
        for job in world.github.jobs() {
            let of_job =
                self.order.iter().map(String::as_str).filter(|name| self.job_id(name) == Some(job.id));
            let free: Vec<&str> = of_job.filter(|name| !taken.contains(name)).collect();
            let own = runner_name(job).or(free.last().copied());
            rows.push(Row {
                repository: world.github.full_name(job.repository).unwrap_or_default(),
                job: job.name.clone(),
                labels: job.labels.join(", "),
                doing: doing(job),
                runner: own.map(short).unwrap_or_default(),
                state: own.map_or(cell(Mood::Plain, ""), |name| self.state(name, job, world)),
                key: (job.id, 0),
            });
            for (index, name) in free.iter().enumerate().filter(|(_, name)| Some(**name) != own) {
                rows.push(Row {
                    repository: String::new(),
                    job: String::new(),
                    labels: String::new(),
                    doing: cell(Mood::Plain, ""),
                    runner: short(name),
                    state: self.state(name, job, world),
                    key: (job.id, index + 1),
                });
            }
        }
        // Those that have no job yet.
        let idle = self.order.iter().filter(|name| self.is_warm(name) && !taken.contains(&name.as_str()));
        rows.extend(idle.enumerate().map(|(index, name)| Row {
            repository: String::new(),
            job: String::new(),
            labels: String::new(),
            doing: cell(Mood::Plain, "warm"),
            runner: short(name),
            state: self.state_of(name, world),
            key: (u64::MAX, index),
        }));
        rows
    }

    fn job_id(&self, name: &str) -> Option<u64> {
        self.runners.get(name).and_then(|seen| seen.job_id)
    }

    fn state(&self, name: &str, job: &Job, world: &World) -> Cell {
        let mut state = self.state_of(name, world);
        let Some(seen) = self.runners.get(name) else { return state };
        let other =
            seen.job_id.filter(|job_id| *job_id != job.id).and_then(|job_id| world.github.job(job_id));
        if let Some(other) = other {
            state.text.push_str(&format!(" (started for {})", other.name));
        }
        if seen.warm {
            state.text.push_str(" (warm)");
        }
        state
    }

    fn state_of(&self, name: &str, world: &World) -> Cell {
        let Some(seen) = self.runners.get(name) else { return cell(Mood::Plain, "not seen") };
        if seen.gone {
            cell(Mood::Past, "purged")
        } else {
            let works = world.github.jobs().any(|job| works_on(job, name));
            match (seen.state, &seen.blocked) {
                // Nomad learns of a task's start slightly later than GitHub of its runner.
                (RunnerState::Starting | RunnerState::Running, _) if works => cell(Mood::Works, "running"),
                (RunnerState::Pending, Some(why)) => cell(Mood::Waits, format!("waiting for room: {why}")),
                (RunnerState::Pending, None) => cell(Mood::Waits, "pending"),
                (RunnerState::Waiting, _) => cell(Mood::Waits, "waiting for credentials"),
                (RunnerState::Starting, _) => cell(Mood::Waits, "starting"),
                (RunnerState::Running, _) => {
                    match world.github.runners().find(|runner| runner.name == name) {
                        Some(runner) if runner.online => cell(Mood::Plain, "listening for jobs"),
                        Some(_) => cell(Mood::Waits, "starting"),
                        None => cell(Mood::Past, "ending"),
                    }
                }
                (RunnerState::Stopping, _) => cell(Mood::Past, "stopping"),
                (RunnerState::Disconnected, _) => cell(Mood::Bad, "disconnected"),
                (RunnerState::Dead, _) => match &seen.finish {
                    Some(finish) if !finish.is_success() => cell(Mood::Bad, format!("dead: {finish}")),
                    Some(Finish::Stopped) => cell(Mood::Past, "stopped"),
                    _ => cell(Mood::Past, "done"),
                },
            }
        }
    }
}

fn works_on(job: &Job, runner: &str) -> bool {
    job.status == Status::InProgress && runner_name(job) == Some(runner)
}

fn runner_name(job: &Job) -> Option<&str> {
    job.runner.as_ref().map(|runner| runner.name.as_str())
}

fn doing(job: &Job) -> Cell {
    let passed = |from: jiff::Timestamp, to: jiff::Timestamp| {
        let passed = Duration::try_from(to.duration_since(from)).unwrap_or_default();
        format!("{:.1} s", passed.as_secs_f64())
    };
    match (job.status, job.conclusion) {
        (Status::Completed, Some(Conclusion::Success)) => {
            let ended = job.completed_at.unwrap_or(job.started_at);
            cell(Mood::Well, format!("done; waited {}", passed(job.queued_at, job.started_at.min(ended))))
        }
        (Status::Completed, conclusion) => {
            let how = conclusion.map_or("over", Conclusion::as_str);
            let mood = if conclusion == Some(Conclusion::Cancelled) { Mood::Past } else { Mood::Bad };
            cell(mood, how)
        }
        (Status::InProgress, _) => cell(Mood::Works, "in progress"),
        (status, _) => cell(Mood::Waits, status.as_str()),
    }
}

/// The end of a runner's name, which is a hash.
fn short(name: &str) -> String {
    format!("…{}", &name[name.len().saturating_sub(SHORT_NAME)..])
}
