//! `simulated-github`: the demo's GitHub for a daemon that runs elsewhere, for example as a job on a real
//! Nomad.
//!
//! It writes a configuration for that daemon, queues jobs, reports their progress, and ends once all of them
//! have been served.

use std::{collections::BTreeMap, fs, io::Write, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use anyhow::{Context, bail};
use githubrunner_sim::{
    fault::Side,
    github::{Conclusion, JobSpec, Status},
    nomad,
    world::{World, lock},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{TICK, bring_to_life, listen, scene, seed, stand_in_for_the_runner};
use crate::cli::SimulatedGithub;

/// The configuration. It is written last, when everything is ready.
const CONFIGURATION: &str = "config.yml";

/// The token, in a file as an operator would keep it.
const TOKEN_FILE: &str = "token";

/// Written once all jobs have been served.
const SERVED: &str = "served";

/// Serves until all jobs are over. Returns whether each was served.
///
/// # Errors
/// Loopback or the directory cannot be used.
pub async fn run(args: &SimulatedGithub, out: &mut dyn Write) -> anyhow::Result<bool> {
    let mut signals = listen(0)?;
    let now = Timestamp::now();
    let seed = seed()?;
    // Nobody uses this Nomad.
    let nomad = nomad::Nomad::new(nomad::Options::default(), now);
    let shared = bring_to_life(scene::github(now, seed), nomad, now, seed);
    let address = super::serve(&shared, Side::GitHub).await?;
    prepare(&args.directory, &address)?;
    queue(&mut lock(&shared))?;
    writeln!(out, "A simulated GitHub is on {address}; {} jobs are waiting for a runner.", JOBS.len())?;
    let mut told = BTreeMap::new();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let deadline = Instant::now() + Duration::from_secs(args.within);
    loop {
        tokio::select! {
            biased;
            _ = signals.shutdown.wait_for(|shutdown| *shutdown) => bail!("interrupted"),
            _ = ticks.tick() => {}
        }
        let news = news(&lock(&shared), &mut told);
        for line in news {
            writeln!(out, "{line}")?;
        }
        let world = lock(&shared);
        let jobs = || world.github.jobs();
        // The runner deregisters last, and GitHub must still be there for that.
        if jobs().all(|job| job.status == Status::Completed) && world.github.runners().next().is_none() {
            let served = jobs().filter(|job| job.conclusion == Some(Conclusion::Success)).count();
            writeln!(out, "{served} of {} jobs served.", JOBS.len())?;
            if served < JOBS.len() || !args.stay {
                return Ok(served == JOBS.len());
            }
            break;
        }
        if Instant::now() > deadline {
            writeln!(out, "Timed out after {} s.", args.within)?;
            return Ok(false);
        }
    }
    fs::write(args.directory.join(SERVED), "")?;
    let _ = signals.shutdown.wait_for(|shutdown| *shutdown).await;
    Ok(true)
}

/// The jobs: repository, name, label.
const JOBS: [(&str, &str, &str); 3] = [
    (scene::REPOSITORIES[0], "build", "nomadtools"),
    (scene::REPOSITORIES[0], "lint", "nomadtools"),
    (scene::REPOSITORIES[1], "test", "nomadtools mem=64"),
];

fn queue(world: &mut World) -> anyhow::Result<()> {
    for (repository, name, label) in JOBS {
        let repository = world.github.repository_id(repository).context("the repository does not exist")?;
        let job = JobSpec { name: name.to_owned(), ..JobSpec::new(&[label], Duration::from_secs(2)) };
        world.queue_run(repository, vec![job]);
    }
    Ok(())
}

/// A line for each job whose state has changed since the last report.
fn news(world: &World, told: &mut BTreeMap<u64, Status>) -> Vec<String> {
    let mut lines = Vec::new();
    for job in world.github.jobs() {
        if told.insert(job.id, job.status) == Some(job.status) {
            continue;
        }
        let runner = job.runner.as_ref().map(|runner| format!(" on {}", runner.name)).unwrap_or_default();
        let state = match job.status {
            Status::Completed => {
                format!("completed, {}", job.conclusion.map_or("no conclusion", |end| end.as_str()))
            }
            status => status.as_str().replace('_', " "),
        };
        lines.push(format!("  job {}: {state}{runner}", job.name));
    }
    lines
}

/// Writes what the daemon needs into a directory: its configuration, its token, a runner.
fn prepare(directory: &Path, github: &str) -> anyhow::Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    let directory = directory.canonicalize()?;
    let runner = directory.join("runner");
    stand_in_for_the_runner(&runner)?;
    let token = directory.join(TOKEN_FILE);
    fs::write(&token, scene::TOKEN)?;
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600))?;
    let text = serde_yaml::to_string(&configuration(github, &runner))?;
    // Renamed when complete, so that a reader never sees a part of it.
    let unfinished = directory.join("config.yml.new");
    fs::write(&unfinished, text)?;
    fs::rename(unfinished, directory.join(CONFIGURATION))?;
    Ok(())
}

fn configuration(github: &str, runner: &Path) -> Value {
    json!({
        "github": { "url": github },
        "repos": &scene::REPOSITORIES[..2],
        "loop": 1,
        "template": "builtin:raw_exec",
        "template_settings": { "runner_directory": runner, "mem": 64 },
        "scheduler": { "purge_successfull_timeout": "5s", "purge_failure_timeout": "5s" },
    })
}
