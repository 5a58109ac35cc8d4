//! The demo's script: repositories, the jobs that arrive, and one that is cancelled.

use std::time::Duration;

use githubrunner_sim::{
    github::{self, GitHub, Job, JobSpec, Status, Token},
    world::World,
};

use crate::model::RunnerState;

/// The token of the demo's GitHub. It only works for the simulation.
pub(super) const TOKEN: &str = "token-of-the-demo";

pub(super) const WEBSITE: &str = "acme/website";
const API: &str = "acme/api";
const TOOLS: &str = "acme/tools";

/// The repositories of the demo.
pub(super) const REPOSITORIES: [&str; 3] = [WEBSITE, API, TOOLS];

/// Cancelled once its runner exists, which then takes a job that requests fewer labels.
const TAKEN_OVER: &str = "train";

/// Cancelled once its runner exists, which then is surplus.
const SURPLUS: &str = "compare";

/// A GitHub with the demo's repositories, without their jobs.
pub(super) fn github(now: jiff::Timestamp, seed: u64) -> GitHub {
    let options = github::Options {
        seed,
        pickup: (Duration::from_millis(300), Duration::from_millis(800)),
        // With a pass every second, the demo makes more requests than GitHub would allow.
        points_a_minute: 1_000_000,
        ..github::Options::default()
    };
    let mut github = GitHub::new(options, now);
    github.add_organization("acme", &["octocat"]);
    github.add_token(TOKEN, Token::classic("octocat", &["repo"]));
    for name in REPOSITORIES {
        github.add_repository(name);
    }
    github
}

/// When a step is due.
enum When {
    /// This long after the start.
    After(Duration),
    /// Once the job of this name has a runner, or no longer waits for one.
    RunnerFor(&'static str),
    /// Directly after the previous step.
    AtOnce,
}

/// One event.
enum Step {
    /// A workflow run starts in a repository.
    Run(&'static str, Vec<JobSpec>),
    /// Cancels the run of the job of this name, if it is still queued.
    Cancel(&'static str),
}

/// The steps, in order.
pub(super) struct Scene {
    steps: std::vec::IntoIter<(When, Step)>,
    next: Option<(When, Step)>,
}

impl Scene {
    /// The memory (MB) that each of the two larger jobs requests.
    pub fn new(large: u64) -> Scene {
        let after = |tenths: u64| When::After(Duration::from_millis(tenths * 100));
        let large = format!("nomad mem={large}");
        let steps = vec![
            (
                after(5),
                Step::Run(
                    WEBSITE,
                    vec![
                        job("build", &["nomad"], 30),
                        job("lint", &["nomad"], 20),
                        JobSpec { needs: vec![0], ..job("deploy", &["nomad", "deploy"], 15) },
                    ],
                ),
            ),
            // Together they request more memory than the demo's node has, so one of them waits for room.
            (after(20), Step::Run(API, vec![job("test 1", &[&large], 35), job("test 2", &[&large], 35)])),
            (after(45), Step::Run(TOOLS, vec![job(TAKEN_OVER, &["nomad", "gpu"], 30)])),
            (When::RunnerFor(TAKEN_OVER), Step::Cancel(TAKEN_OVER)),
            (When::AtOnce, Step::Run(TOOLS, vec![job("docs", &["nomad"], 30)])),
            (after(65), Step::Run(API, vec![job(SURPLUS, &["nomad", "fast"], 30)])),
            (When::RunnerFor(SURPLUS), Step::Cancel(SURPLUS)),
            // A warm runner takes it at once, and is replaced.
            (after(80), Step::Run(WEBSITE, vec![job("hotfix", &["nomad"], 20)])),
            (after(90), Step::Run(WEBSITE, vec![job("nightly", &["nomad cpu=200"], 20)])),
        ];
        let mut steps = steps.into_iter();
        Scene { next: steps.next(), steps }
    }

    /// Takes the steps that are due. `runner` returns the state of a job's runner, if it has one.
    pub fn advance(
        &mut self,
        world: &mut World,
        elapsed: Duration,
        runner: impl Fn(u64) -> Option<RunnerState>,
    ) {
        while let Some((when, step)) = self.next.take() {
            let due = match when {
                When::After(time) => time <= elapsed,
                When::AtOnce => true,
                When::RunnerFor(name) => job_named(world, name).is_some_and(|job| {
                    let placed = |state| state > RunnerState::Pending;
                    job.status != Status::Queued || runner(job.id).is_some_and(placed)
                }),
            };
            if !due {
                self.next = Some((when, step));
                return;
            }
            match step {
                Step::Run(name, jobs) => {
                    if let Some(repository) = world.github.repository_id(name) {
                        world.queue_run(repository, jobs);
                    }
                }
                Step::Cancel(name) => {
                    let queued = job_named(world, name).filter(|job| job.status == Status::Queued);
                    if let Some(run) = queued.map(|job| job.run) {
                        let now = world.github_time(world.clock.now());
                        world.github.cancel_run(run, now);
                        world.touch();
                    }
                }
            }
            self.next = self.steps.next();
        }
    }

    /// Whether everything has happened.
    pub fn is_over(&self) -> bool {
        self.next.is_none()
    }
}

fn job_named<'a>(world: &'a World, name: &str) -> Option<&'a Job> {
    world.github.jobs().find(|job| job.name == name)
}

/// A job that takes this many tenths of a second.
fn job(name: &str, labels: &[&str], tenths: u64) -> JobSpec {
    JobSpec { name: name.to_owned(), ..JobSpec::new(labels, Duration::from_millis(tenths * 100)) }
}
