//! What a pass costs: 100 repositories, 200 runs, 200 runners, the simulators in this process and the daemon in one of
//! its own. Prints a table; `scripts/bench` runs it. Linux only: it reads /proc.
//!
//! Three passes are measured. The first one starts 200 runners from nothing. Then the program is started again
//! beside them with an empty cache: it has to learn everything. Then nothing has changed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use githubrunner_sim::clock::Clock;
use githubrunner_sim::fault::Side;
use githubrunner_sim::github::{self, GitHub, JobSpec, Status, Token};
use githubrunner_sim::nomad::{self, Nomad};
use githubrunner_sim::serve::serve_tcp;
use githubrunner_sim::world::{self, Shared, World, drive, lock};
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::time::sleep;

const REPOSITORIES: usize = 100;
const RUNS: usize = 200;
const TOKEN: &str = "ghp_of_the_benchmark";

/// Seconds between two passes: more than a pass takes.
const LOOP: u64 = 20;

/// A side that was not asked for so long is not going to be in this pass.
const QUIET: Duration = Duration::from_millis(1500);

fn main() {
    // `cargo bench` and `cargo test --benches` hand over arguments that mean nothing here.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(measure());
}

async fn measure() {
    let site = Site::start().await;
    println!(
        "{REPOSITORIES} repositories, {RUNS} runs, {RUNS} runners; the simulators are in another process\n"
    );
    println!(
        "{:32} {:>8} {:>8} {:>9} {:>8} {:>8} {:>11}",
        "pass", "CPU", "wall", "peak RSS", "GitHub", "Nomad", "written"
    );

    let daemon = Daemon::start(&site);
    let first = daemon.pass(&site).await;
    first.print("first, 200 runners started");
    site.all_in_progress().await;
    drop(daemon);
    assert_eq!(site.live_runners(), RUNS);

    fs::remove_file(site.cache()).unwrap();
    let daemon = Daemon::start(&site);
    let restarted = daemon.pass(&site).await;
    restarted.print("first, 200 runners there");
    let mut unchanged = Vec::new();
    for _ in 0..3 {
        unchanged.push(daemon.pass(&site).await);
    }
    for measured in &unchanged {
        measured.print("nothing changed");
    }
    assert_eq!(site.live_runners(), RUNS, "the passes changed something");
    println!("\nrequests of the last pass:");
    for (side, route, count) in lock(&site.shared).requests().routes() {
        println!("  {:6} {count:5}  {route}", side.name());
    }
}

struct Site {
    shared: Shared,
    github: String,
    nomad: String,
    directory: tempfile::TempDir,
}

impl Site {
    async fn start() -> Site {
        let now = Timestamp::now();
        let options = github::Options {
            rate_limit: 1_000_000,
            points_a_minute: 1_000_000,
            ..github::Options::default()
        };
        let mut github = GitHub::new(options, now);
        github.add_organization("acme", &["octocat"]);
        github.add_token(TOKEN, Token::classic("octocat", &["repo"]));
        let repositories: Vec<u64> =
            (0..REPOSITORIES).map(|number| github.add_repository(&format!("acme/app-{number}"))).collect();
        for number in 0..RUNS {
            let job = JobSpec::new(&["nomadtools mem=200"], Duration::from_secs(24 * 3600));
            github.queue_run(repositories[number % REPOSITORIES], vec![job], now).unwrap();
        }
        let nomad =
            Nomad::new(nomad::Options { namespaces: vec!["github".to_owned()], ..Default::default() }, now);
        let world = World::new(github, nomad, Clock::starting_at(now), world::Options::default());
        let shared = world.shared();
        tokio::spawn(drive(Arc::clone(&shared), std::future::pending()));
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (github, nomad) = (serve(&shared, Side::GitHub).await, serve(&shared, Side::Nomad).await);
        Site { shared, github, nomad, directory }
    }

    fn cache(&self) -> PathBuf {
        self.directory.path().join("cache.json")
    }

    fn live_runners(&self) -> usize {
        lock(&self.shared).live_runners().len()
    }

    /// When a side was last asked, by the number of requests so far.
    fn asked(&self) -> u64 {
        let world = lock(&self.shared);
        world.requests().total(Side::GitHub) + world.requests().total(Side::Nomad)
    }

    async fn all_in_progress(&self) {
        let deadline = Instant::now() + Duration::from_secs(120);
        let waits = || lock(&self.shared).github.jobs().any(|job| job.status != Status::InProgress);
        while waits() {
            assert!(Instant::now() < deadline, "not all jobs were taken");
            sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn serve(shared: &Shared, side: Side) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(serve_tcp(listener, side, Arc::clone(shared), std::future::pending()));
    address
}

/// The program, measured from outside.
struct Daemon {
    child: Child,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a pass cost.
struct Cost {
    cpu: Duration,
    wall: Duration,
    peak_kib: u64,
    github: u64,
    nomad: u64,
    written: u64,
}

impl Cost {
    fn print(&self, name: &str) {
        println!(
            "{name:32} {:6.3} s {:6.2} s {:6.1} MB {:8} {:8} {:8.1} kB",
            self.cpu.as_secs_f64(),
            self.wall.as_secs_f64(),
            self.peak_kib as f64 / 1024.0,
            self.github,
            self.nomad,
            self.written as f64 / 1024.0,
        );
    }
}

impl Daemon {
    fn start(site: &Site) -> Daemon {
        lock(&site.shared).reset_requests();
        let config = format!(
            "github: {{url: \"{}\", token: {TOKEN}, cachefile: \"{}\"}}\nrepos: [acme]\nloop: {LOOP}\n\
             template: builtin:raw_exec\n",
            site.github,
            site.cache().display(),
        );
        let child = Command::new(env!("CARGO_BIN_EXE_githubrunner"))
            .args(["-c", &config, "run"])
            .env_clear()
            .env("NOMAD_ADDR", &site.nomad)
            .stdin(Stdio::null())
            .stderr(fs::File::create(site.directory.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        Daemon { child }
    }

    /// Waits for the next pass to begin and to end. What the process did before its first pass counts too.
    async fn pass(&self, site: &Site) -> Cost {
        let fresh = site.asked() == 0;
        let before = if fresh { Reading::zero() } else { self.read() };
        if !fresh {
            lock(&site.shared).reset_requests();
            // The peak from here on.
            fs::write(self.proc("clear_refs"), "5").unwrap();
        }
        let deadline = Instant::now() + Duration::from_secs(4 * LOOP);
        while site.asked() == 0 {
            assert!(Instant::now() < deadline, "no pass begins");
            sleep(Duration::from_millis(2)).await;
        }
        let began = Instant::now();
        let (mut last, mut count) = (Instant::now(), site.asked());
        while last.elapsed() < QUIET {
            assert!(Instant::now() < deadline, "the pass does not end");
            sleep(Duration::from_millis(2)).await;
            let now = site.asked();
            if now != count {
                (last, count) = (Instant::now(), now);
            }
        }
        let after = self.read();
        let world = lock(&site.shared);
        Cost {
            cpu: after.cpu - before.cpu,
            wall: last - began,
            peak_kib: after.peak_kib,
            github: world.requests().total(Side::GitHub),
            nomad: world.requests().total(Side::Nomad),
            written: after.written - before.written,
        }
    }

    fn proc(&self, file: &str) -> PathBuf {
        Path::new("/proc").join(self.child.id().to_string()).join(file)
    }

    /// `schedstat` counts nanoseconds; `stat`'s ticks of 10 ms would be too coarse.
    fn read(&self) -> Reading {
        let mut cpu = 0;
        for task in fs::read_dir(self.proc("task")).unwrap() {
            // A thread may end meanwhile.
            let Ok(text) = fs::read_to_string(task.unwrap().path().join("schedstat")) else { continue };
            cpu += text.split(' ').next().unwrap().parse::<u64>().unwrap();
        }
        let status = fs::read_to_string(self.proc("status")).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let io = fs::read_to_string(self.proc("io")).unwrap();
        // What goes to files; what goes to sockets is not in it.
        let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).unwrap();
        Reading {
            cpu: Duration::from_nanos(cpu),
            peak_kib: peak.trim().trim_end_matches(" kB").parse().unwrap(),
            written: written.trim().parse().unwrap(),
        }
    }
}

struct Reading {
    cpu: Duration,
    peak_kib: u64,
    written: u64,
}

impl Reading {
    fn zero() -> Reading {
        Reading { cpu: Duration::ZERO, peak_kib: 0, written: 0 }
    }
}
