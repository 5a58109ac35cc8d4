//! `demo`: the daemon at work on a simulated GitHub, and a simulated or a real Nomad.
//!
//! It runs the code of `run`, over HTTP on loopback. The simulators, the scene and the table share its
//! process but tell it nothing: the daemon only knows what it requests.

mod board;
mod cluster;
mod github_only;
mod scene;
mod screen;

use std::{io::Write, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use board::Board;
use cluster::Cluster;
pub use github_only::run as github_only;
use githubrunner_sim::{
    clock::Clock,
    fault::Side,
    github::{Conclusion, GitHub, Status},
    nomad as sim_nomad,
    serve::serve_tcp,
    world::{self, Shared, World, drive, lock},
};
use jiff::Timestamp;
use screen::Shown;
pub use screen::{LogPane, Screen};
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    Setup,
    run::{beside, listen, listener},
    setup::{Environment, seed},
};
use crate::{apply::ApplyMode, config::Config, daemon::Signals, nomad::Nomad, status};

/// How often the table is updated.
const TICK: Duration = Duration::from_millis(100);

/// The demo takes about 20 s. Whatever has not ended by this time never will.
const AT_MOST: Duration = Duration::from_secs(90);

/// Ctrl-C ends the demo within a second, including the clean-up.
const CLEAN_UP_INTERRUPTED: Duration = Duration::from_millis(800);

/// Nomad's namespace cannot be deleted before the servers know that the last task has ended.
const CLEAN_UP: Duration = Duration::from_secs(10);

/// In megabytes: the memory of the simulated node, and what each of the two large jobs requests.
const NODE_MEMORY: u64 = 4096;
const LARGE: u64 = 3000;

/// The same for a real node, whose size is not ours to choose.
const LARGE_ON_A_REAL_NODE: u64 = 300;

/// The components of a demo.
struct Stage {
    shared: Shared,
    github: String,
    directory: TempDir,
}

/// How the demo ended.
enum Ending {
    /// All jobs are over and nothing is left.
    Over,
    /// The time limit was reached.
    OutOfTime,
    /// A signal came.
    Interrupted,
}

/// Runs the demo. Returns whether every job was served and nothing is left over.
///
/// # Errors
/// Loopback, the temporary directory, the real Nomad or `out` cannot be used.
pub async fn run(
    real_nomad: bool,
    env: Environment<'_>,
    screen: Screen,
    out: &mut dyn Write,
) -> anyhow::Result<bool> {
    let mut signals = listen(0)?;
    let stage = Stage::build().await?;
    let cluster = match real_nomad {
        true => Some(Cluster::prepare(env, format!("demo-{:06x}", seed()? & 0xff_ffff)).await?),
        false => None,
    };
    let result = stage.play(cluster.as_ref(), env, &screen, &mut signals, out).await;
    // Whatever happens, nothing of the demo stays in the cluster.
    let mut left = Vec::new();
    if let Some(cluster) = &cluster {
        let interrupted = *signals.shutdown.borrow();
        left = cluster.clean_up(if interrupted { CLEAN_UP_INTERRUPTED } else { CLEAN_UP }).await;
    }
    for problem in &left {
        writeln!(out, "Cleaning up: {problem}")?;
    }
    Ok(result? && left.is_empty())
}

impl Stage {
    /// Starts serving the simulated GitHub.
    async fn build() -> anyhow::Result<Stage> {
        let now = Timestamp::now();
        let seed = seed()?;
        let node = sim_nomad::Node { memory_mb: NODE_MEMORY, ..sim_nomad::Node::default() };
        let nomad = sim_nomad::Options {
            seed,
            nodes: vec![node],
            namespaces: vec![SIMULATED_NAMESPACE.to_owned()],
            ..sim_nomad::Options::default()
        };
        let shared = bring_to_life(scene::github(now, seed), sim_nomad::Nomad::new(nomad, now), now, seed);
        let directory = tempfile::Builder::new().prefix("githubrunner-demo-").tempdir()?;
        Ok(Stage { github: serve(&shared, Side::GitHub).await?, shared, directory })
    }

    async fn play(
        &self,
        cluster: Option<&Cluster>,
        env: Environment<'_>,
        screen: &Screen,
        signals: &mut Signals,
        out: &mut dyn Write,
    ) -> anyhow::Result<bool> {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener =
            listener("the demo's page", Some(any))?.context("cannot listen for the demo's page")?;
        let page = listener.local_addr()?;
        let setup = match cluster {
            Some(cluster) => {
                let runner = self.directory.path().join("runner");
                stand_in_for_the_runner(&runner)?;
                Setup::new(self.config(&cluster.namespace, &cluster.prefix, page)?, env, ApplyMode::Perform)?
            }
            None => {
                let address = serve(&self.shared, Side::Nomad).await?;
                let env = move |name: &str| (name == "NOMAD_ADDR").then(|| address.clone());
                Setup::new(self.config(SIMULATED_NAMESPACE, "demo", page)?, &env, ApplyMode::Perform)?
            }
        };
        let which = match cluster {
            Some(cluster) => {
                format!("a real Nomad (namespace {}, prefix {})", cluster.namespace, cluster.prefix)
            }
            None => "a simulated Nomad".to_owned(),
        };
        // Printed first, because the table is redrawn below it.
        writeln!(out, "The daemon's page, while this runs: http://{page}/")?;
        writeln!(
            out,
            "githubrunner at work on a simulated GitHub and {which}, about 20 s; Ctrl-C ends it.\n"
        )?;
        let nomad = setup.nomad.clone();
        let mut daemon = setup.into_daemon();
        beside()?.spawn(status::serve(listener, daemon.status()));
        let mut director = Director::new(cluster.is_some());
        let mut shutdown = signals.shutdown.clone();
        let ending = tokio::select! {
            biased;
            _ = shutdown.wait_for(|shutdown| *shutdown) => Ending::Interrupted,
            // This only ends on a signal.
            _ = daemon.run(signals) => Ending::Interrupted,
            ending = director.direct(&self.shared, &nomad, screen, out) => ending?,
        };
        director.sum_up(&lock(&self.shared), &ending, out)
    }

    fn config(&self, namespace: &str, prefix: &str, page: SocketAddr) -> anyhow::Result<Config> {
        let directory = self.directory.path();
        let config = json!({
            "github": {
                "url": self.github,
                "token": scene::TOKEN,
                "cachefile": directory.join("cache.json"),
            },
            "nomad": { "namespace": namespace, "jobprefix": prefix },
            "repos": scene::REPOSITORIES,
            "runson_match": "nomad *(.*)",
            "loop": 1,
            "status": { "listen": page.to_string() },
            "template": "builtin:raw_exec",
            "template_settings": { "runner_directory": directory.join("runner"), "mem": 128 },
            // If there are classes, this template serves public repositories only if the configuration says
            // so.
            "public": "allow",
            "classes": [
                { "name": "large", "match": { "labels": "nomad mem=" }, "max_runners": 2 },
                {
                    "name": "gpu",
                    "match": { "labels": "gpu" },
                    "warm": [{ "labels": ["nomad", "gpu"], "repository": scene::WEBSITE }],
                },
            ],
            "scheduler": {
                "runner_inactivity_timeout": "3s",
                "purge_successfull_timeout": "2s",
                "purge_failure_timeout": "2s",
            },
        });
        // JSON is YAML, and text with a newline is not taken for a file name.
        Config::load(&format!("{config}\n"), &|_| None).map_err(|errors| anyhow::anyhow!("{errors}"))
    }
}

/// The namespace in the simulated Nomad.
const SIMULATED_NAMESPACE: &str = "github";

/// Starts a world whose runners take times that people can follow.
fn bring_to_life(github: GitHub, nomad: sim_nomad::Nomad, now: Timestamp, seed: u64) -> Shared {
    let millis = |from: u64, to: u64| (Duration::from_millis(from), Duration::from_millis(to));
    let options = world::Options {
        seed,
        start_up: millis(800, 1600),
        wind_down: millis(200, 600),
        stop: millis(100, 300),
        ..world::Options::default()
    };
    let shared = World::new(github, nomad, Clock::starting_at(now), options).shared();
    tokio::spawn(drive(Arc::clone(&shared), std::future::pending()));
    shared
}

/// Serves one side on a port that the system chooses. Returns its address.
async fn serve(shared: &Shared, side: Side) -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("listening on loopback")?;
    let address = format!("http://{}", listener.local_addr()?);
    tokio::spawn(serve_tcp(listener, side, Arc::clone(shared), std::future::pending()));
    Ok(address)
}

/// Creates a directory like the runner's unpacked tarball, in which this program is the runner. So the
/// bundled template can be used unchanged.
fn stand_in_for_the_runner(directory: &Path) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("finding this program")?;
    let program = program.to_str().context("the path of this program is not UTF-8")?;
    let script = format!("#!/bin/sh\nexec {} stand-in\n", shlex::try_quote(program)?);
    let bin = directory.join("bin");
    std::fs::create_dir_all(&bin)?;
    let listener = bin.join("Runner.Listener");
    std::fs::write(&listener, script)?;
    // Nomad's clients may run as another user.
    for path in [directory.parent().unwrap_or(directory), directory, &bin, &listener] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// Advances the scene, observes, and displays.
struct Director {
    scene: scene::Scene,
    board: Board,
    shown: Shown,
    began: Instant,
    real_nomad: bool,
    /// Jobs and variables that still exist in Nomad.
    left: Vec<String>,
    /// Why Nomad could not be observed.
    trouble: Option<String>,
}

impl Director {
    fn new(real_nomad: bool) -> Director {
        Director {
            scene: scene::Scene::new(if real_nomad { LARGE_ON_A_REAL_NODE } else { LARGE }),
            board: Board::default(),
            shown: Shown::default(),
            began: Instant::now(),
            real_nomad,
            left: Vec::new(),
            trouble: None,
        }
    }

    async fn direct(
        &mut self,
        shared: &Shared,
        nomad: &Nomad,
        screen: &Screen,
        out: &mut dyn Write,
    ) -> anyhow::Result<Ending> {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match nomad.observe().await {
                Ok(view) => {
                    self.board.learn(&view);
                    // A warm runner stays.
                    let others = view.runners.iter().filter(|runner| !self.board.is_warm(&runner.name));
                    self.left = others.map(|runner| format!("job {}", runner.name)).collect();
                    let others = view.variables.iter().filter(|variable| !self.board.is_warm(&variable.name));
                    self.left.extend(others.map(|variable| format!("variable nomad/jobs/{}", variable.name)));
                    self.trouble = None;
                }
                Err(error) => self.trouble = Some(error.to_string()),
            }
            let elapsed = self.began.elapsed();
            let (rows, status, over) = {
                let mut world = lock(shared);
                self.scene.advance(&mut world, elapsed, |job| self.board.runner_of(job));
                let jobs_over = world.github.jobs().all(|job| job.status == Status::Completed)
                    && world.github.runs().all(|run| run.status == Status::Completed);
                let mut registered =
                    world.github.runners().filter(|runner| !self.board.is_warm(&runner.name));
                let nothing_left = self.left.is_empty() && registered.next().is_none();
                let over = self.scene.is_over() && jobs_over && nothing_left && self.trouble.is_none();
                (self.board.rows(&world), self.status(&world), over)
            };
            screen.show(&mut self.shown, &rows, &status, elapsed, out)?;
            if over {
                return Ok(Ending::Over);
            }
            if elapsed > AT_MOST {
                return Ok(Ending::OutOfTime);
            }
        }
    }

    /// The line above the table.
    fn status(&self, world: &World) -> String {
        let count = |status| world.github.jobs().filter(|job| job.status == status).count();
        let (started, purged) = self.board.counts();
        let status = format!(
            "{:4.1} s   jobs: {} queued, {} in progress, {} over   runners: {} in Nomad, {started} started, {purged} purged",
            self.began.elapsed().as_secs_f64(),
            count(Status::Queued),
            count(Status::InProgress),
            count(Status::Completed),
            started - purged,
        );
        match &self.trouble {
            Some(trouble) => format!("{status}   {trouble}"),
            None => status,
        }
    }

    /// The final lines. Returns whether everything went well.
    fn sum_up(&self, world: &World, ending: &Ending, out: &mut dyn Write) -> anyhow::Result<bool> {
        let ended = |conclusion| world.github.jobs().filter(|job| job.conclusion == Some(conclusion)).count();
        let served = ended(Conclusion::Success);
        let cancelled = ended(Conclusion::Cancelled);
        let wanted = world.github.jobs().count() - cancelled;
        let (started, purged) = self.board.counts();
        let killed = world.violations().len();
        let seconds = self.began.elapsed().as_secs_f64();
        writeln!(out)?;
        match ending {
            Ending::Over => {}
            Ending::OutOfTime => writeln!(out, "Timed out.")?,
            Ending::Interrupted => writeln!(out, "Interrupted.")?,
        }
        let cancelled = match cancelled {
            0 => String::new(),
            count => format!(" ({count} more cancelled while queued)"),
        };
        writeln!(out, "{served} of {wanted} jobs served in {seconds:.0} s{cancelled}.")?;
        write!(out, "{started} runners started, {purged} purged")?;
        // Only the simulated Nomad can tell. On either, the job of a killed runner has failed.
        match self.real_nomad {
            true => writeln!(out, ".")?,
            false => writeln!(out, "; {killed} killed while busy.")?,
        }
        let mut left = self.left.clone();
        let registered = world.github.runners().filter(|runner| !self.board.is_warm(&runner.name));
        left.extend(registered.map(|runner| format!("runner {} at GitHub", runner.name)));
        if left.is_empty() {
            let nomad = if self.real_nomad { "Nomad" } else { "the simulated Nomad" };
            writeln!(
                out,
                "Nothing is left but the warm runner: no other job or variable in {nomad}, no other runner at GitHub."
            )?;
        } else if !matches!(ending, Ending::Interrupted) {
            writeln!(out, "Left over: {}.", left.join(", "))?;
        }
        out.flush()?;
        let over = matches!(ending, Ending::Over);
        Ok(over && served == wanted && left.is_empty() && killed == 0)
    }
}

/// `stand-in`: a runner for [`run`] on a real Nomad, until its job is over or a signal arrives. Returns the exit
/// code.
///
/// # Errors
/// Signals cannot be received.
pub async fn stand_in(environment: impl Iterator<Item = (String, String)>) -> anyhow::Result<u8> {
    let mut signals = listen(0)?;
    let shutdown = async move {
        let _ = signals.shutdown.wait_for(|shutdown| *shutdown).await;
    };
    Ok(githubrunner_sim::stand_in::run(environment.collect(), shutdown).await)
}
