//! What happens in the demo: repositories, the jobs that arrive, one that is cancelled.

use std::time::Duration;

use crate::{
    model::RunnerState,
    sim::{
        github::{self, GitHub, JobSpec, Status, Token},
        world::World,
    },
};

/// The token of the demo's GitHub: it opens nothing but the simulation.
pub(super) const TOKEN: &str = "token-of-the-demo";

const WEBSITE: &str = "acme/website";
const API: &str = "acme/api";
const TOOLS: &str = "acme/tools";

/// The repositories of the demo.
pub(super) const REPOSITORIES: [&str; 3] = [WEBSITE, API, TOOLS];

const GPU_JOB: &str = "train";

/// A GitHub with the demo's repositories, and none of their jobs yet.
pub(super) fn github(now: jiff::Timestamp, seed: u64) -> GitHub {
    let options = github::Options {
        seed,
        pickup: (Duration::from_millis(300), Duration::from_millis(800)),
        // With a pass a second the demo asks more often than GitHub would like.
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
    /// So long after the beginning.
    After(Duration),
    /// Once there is a runner for [`GPU_JOB`], which is still queued: the moment to cancel it.
    GpuRunnerIsThere,
    /// Once the step before was taken.
    AtOnce,
}

/// One thing that happens.
enum Step {
    /// A workflow run begins in a repository.
    Run(&'static str, Vec<JobSpec>),
    /// Somebody cancels the run of [`GPU_JOB`].
    CancelGpuJob,
}

/// The steps, in order.
pub(super) struct Scene {
    steps: std::vec::IntoIter<(When, Step)>,
    next: Option<(When, Step)>,
}

impl Scene {
    /// `room` has the larger jobs ask for so much memory (MB) each.
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
            // Together they want more memory than the demo's node has: one of them waits for room.
            (after(20), Step::Run(API, vec![job("test 1", &[&large], 35), job("test 2", &[&large], 35)])),
            // A runner with more labels than the next job asks for loses its own job and takes that one.
            (after(45), Step::Run(TOOLS, vec![job(GPU_JOB, &["nomad", "gpu"], 30)])),
            (When::GpuRunnerIsThere, Step::CancelGpuJob),
            (When::AtOnce, Step::Run(TOOLS, vec![job("docs", &["nomad"], 30)])),
            (after(80), Step::Run(WEBSITE, vec![job("nightly", &["nomad cpu=200"], 20)])),
        ];
        let mut steps = steps.into_iter();
        Scene { next: steps.next(), steps }
    }

    /// Takes the steps that are due. `runner` tells of a job's runner, if it has one.
    pub fn advance(
        &mut self,
        world: &mut World,
        elapsed: Duration,
        runner: impl Fn(u64) -> Option<RunnerState>,
    ) {
        while let Some((when, step)) = self.next.take() {
            let gpu = world.github.jobs().find(|job| job.name == GPU_JOB);
            let due = match when {
                When::After(time) => time <= elapsed,
                When::AtOnce => true,
                // Whatever became of it, the show goes on.
                When::GpuRunnerIsThere => gpu.is_some_and(|job| {
                    job.status != Status::Queued
                        || runner(job.id).is_some_and(|state| state > RunnerState::Pending)
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
                Step::CancelGpuJob => {
                    let queued = gpu.filter(|job| job.status == Status::Queued).map(|job| job.run);
                    if let Some(run) = queued {
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

/// A job that takes so many tenths of a second.
fn job(name: &str, labels: &[&str], tenths: u64) -> JobSpec {
    JobSpec { name: name.to_owned(), ..JobSpec::new(labels, Duration::from_millis(tenths * 100)) }
}
