//! The world of the benchmarks that measure how soon jobs are taken.

use std::time::Duration;

use githubrunner_sim::{
    clock::Clock,
    github::{self, GitHub, JobSpec, Token},
    nomad::{self, Nomad},
    world::{self, Shared, World, lock},
};
use jiff::Timestamp;

pub const TOKEN: &str = "ghp_of_the_benchmark";

/// One in this many repositories was pushed to today.
const PUSHED_TODAY: usize = 10;

/// An organization whose repositories each had a run a month ago, so that none of them is unused. Some were pushed to
/// today. The stand-in runner is fast, because the daemon is being measured.
pub fn idle_organization(count: usize, now: Timestamp) -> (World, Vec<u64>) {
    let ago = |time: Duration| now.checked_sub(time).unwrap();
    let options = github::Options {
        keep_runs: Duration::from_secs(90 * 24 * 3600),
        pickup: (Duration::from_millis(100), Duration::from_millis(300)),
        ..github::Options::default()
    };
    let long_ago = ago(Duration::from_secs(30 * 24 * 3600));
    let mut github = GitHub::new(options, long_ago);
    github.add_organization("acme", &["octocat"]);
    github.add_token(TOKEN, Token::classic("octocat", &["repo", "admin:org"]));
    let repositories: Vec<u64> =
        (0..count).map(|number| github.add_repository(&format!("acme/app-{number}"))).collect();
    for repository in &repositories {
        let jobs = vec![JobSpec::new(&["other"], Duration::from_secs(1))];
        let run = github.queue_run(*repository, jobs, long_ago).unwrap();
        github.cancel_run(run, long_ago);
    }
    for (minutes, repository) in (90..).step_by(10).zip(repositories.iter().skip(1).step_by(PUSHED_TODAY)) {
        github.repository_mut(*repository).unwrap().pushed_at = Some(ago(Duration::from_secs(minutes * 60)));
    }
    github.advance(now);
    let options = nomad::Options { namespaces: vec!["github".to_owned()], ..Default::default() };
    let quick = world::Options {
        start_up: (Duration::from_millis(200), Duration::from_millis(500)),
        ..world::Options::default()
    };
    let world = World::new(github, Nomad::new(options, now), Clock::starting_at(now), quick);
    (world, repositories)
}

/// A push to a repository, and its run of one job. Returns the run.
pub fn push(shared: &Shared, repository: u64) -> u64 {
    let mut world = lock(shared);
    let now = world.clock.now();
    world.github.push(repository, now);
    let job = JobSpec::new(&["nomadtools mem=100"], Duration::from_secs(5));
    world.queue_run(repository, vec![job]).unwrap()
}

/// This part of a hundred of the times, which are not sorted; `None` is never.
pub fn quantile(times: impl IntoIterator<Item = Option<Duration>>, part: usize) -> String {
    let mut times: Vec<Option<Duration>> = times.into_iter().collect();
    times.sort_by_key(|time| time.unwrap_or(Duration::MAX));
    match times[(times.len() * part / 100).min(times.len() - 1)] {
        Some(time) => format!("{:.1} s", time.as_secs_f64()),
        None => "never".to_owned(),
    }
}
