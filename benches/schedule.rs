//! How soon a queued job is taken, and what that costs: organizations of several sizes, with the simulators in this
//! process and the daemon in its own. Prints a table; `scripts/bench` runs it. Linux only: it reads /proc.
//!
//! Each world begins without a cache. Its first five minutes are measured, or less for small ones. Then jobs are
//! queued, each by a push to a random repository, and the time until each is registered in Nomad and taken is measured.
//! The simulated GitHub takes 50 ms to respond, enforces the points and the primary limit, and refuses excess requests.
//! With `BENCH_NOMAD`, the address of a real agent, only GitHub is simulated, and *seen* is the same as *taken*.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use common::{TOKEN, idle_organization, push, quantile};
use githubrunner_sim::{
    carrier::{carry, over_http},
    fault::{Fault, Side, Verdict},
    github::{HookPlace, Status},
    serve::serve_tcp,
    world::{Shared, drive, lock},
};
use hyper::{Request, Response};
use jiff::Timestamp;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{net::TcpListener, time::sleep};

const SECRET: &str = "of the benchmark";

/// The number of jobs queued in each world, two seconds apart.
const JOBS: usize = 60;

struct Case {
    name: &'static str,
    repositories: usize,
    webhooks: bool,
    /// One repository responds after 9 s, another one with 502.
    sick: bool,
    /// How long it is idle first.
    first: Duration,
}

fn main() {
    let minutes = std::env::var("BENCH_FIRST").ok().and_then(|text| text.parse().ok()).unwrap_or(300);
    let many = Duration::from_secs(minutes);
    let cases = [
        Case {
            name: "10, defaults",
            repositories: 10,
            webhooks: false,
            sick: false,
            first: Duration::from_secs(30),
        },
        Case { name: "1,000, no webhook", repositories: 1000, webhooks: false, sick: false, first: many },
        Case { name: "1,000, webhook", repositories: 1000, webhooks: true, sick: false, first: many },
        Case {
            name: "1,000, webhook, two sick",
            repositories: 1000,
            webhooks: true,
            sick: true,
            first: many,
        },
    ];
    let wanted = std::env::var("BENCH_CASES").unwrap_or_default();
    println!(
        "{:26} {:>7} {:>8} {:>6} {:>8} {:>9} {:>9} {:>7} {:>7} {:>7} {:>7} {:>7}",
        "world",
        "first",
        "requests",
        "paid",
        "points",
        "CPU",
        "RSS",
        "seen50",
        "seen95",
        "took50",
        "took95",
        "refused"
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for case in cases.iter().filter(|case| case.name.contains(&wanted)) {
        runtime.block_on(measure(case));
    }
}

async fn measure(case: &Case) {
    let now = Timestamp::now();
    let (mut world, repositories) = idle_organization(case.repositories, now);
    let counts = Arc::new(Counts::default());
    world.fault = Box::new(Answers { sick: case.sick, counts: Arc::clone(&counts) });
    let shared = world.shared();
    tokio::spawn(drive(Arc::clone(&shared), std::future::pending()));
    let (api, agent) = (serve(&shared, Side::GitHub).await, serve(&shared, Side::Nomad).await);
    let directory = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = config(case, &api, port, directory.path());
    let log = std::env::var_os("BENCH_LOG").map_or(directory.path().join("log"), PathBuf::from);
    // A real agent has the namespace `github`.
    let agent = std::env::var("BENCH_NOMAD").unwrap_or(agent);
    let daemon = Daemon::start(&config, &agent, &log);
    if case.webhooks {
        let url = format!("http://127.0.0.1:{port}/webhook");
        let mut world = lock(&shared);
        let owner = world.github.repository(repositories[0]).unwrap().owner;
        world.github.make_hook(HookPlace::Organization(owner), &url, SECRET);
        drop(world);
        tokio::spawn(carry(Arc::clone(&shared), over_http, std::future::pending()));
    }
    let asked = || lock(&shared).requests().total(Side::GitHub);
    let points = || counts.points.load(Relaxed);
    let (began, mut by_second) = (Instant::now(), vec![points()]);
    while began.elapsed() < case.first {
        sleep(Duration::from_secs(1)).await;
        by_second.push(points());
    }
    let (first, paid) = (asked(), counts.paid.load(Relaxed));
    let (cpu, rss) = daemon.read();
    let jobs = queue_jobs(&shared, &repositories, || {
        by_second.push(points());
        by_second.push(points());
    })
    .await;
    let most = by_second.windows(61).map(|window| window[60] - window[0]).max().unwrap_or_else(points);
    let seen: Vec<_> = jobs.iter().map(|(.., seen, _)| *seen).collect();
    let taken: Vec<_> = jobs.iter().map(|(.., taken)| *taken).collect();
    let refused = counts.refused.load(Relaxed);
    println!(
        "{:26} {:>5} s {first:>8} {paid:>6} {most:>8} {:>7.2} s {:>6.1} MB {:>7} {:>7} {:>7} {:>7} {refused:>7}",
        case.name,
        case.first.as_secs(),
        cpu.as_secs_f64(),
        rss as f64 / 1024.0,
        quantile(seen.clone(), 50),
        quantile(seen, 95),
        quantile(taken.clone(), 50),
        quantile(taken, 95),
    );
}

/// The daemon's configuration.
fn config(case: &Case, api: &str, port: u16, directory: &Path) -> String {
    let webhook = match case.webhooks {
        true => format!("webhook: {{listen: \"127.0.0.1:{port}\", secret: {SECRET}}}\n"),
        false => String::new(),
    };
    format!(
        "github: {{url: \"{api}\", token: {TOKEN}, cachefile: \"{}\"}}\nrepos: [acme]\n{webhook}template: builtin:raw_exec\n\
         template_settings: {{runner_directory: \"{}\"}}\n",
        directory.join("cache.json").display(),
        stand_in(directory).display(),
    )
}

/// Queues a job every two seconds by a push to a random repository, and waits until all of them are taken. Calls
/// `queued` after each.
async fn queue_jobs(shared: &Shared, repositories: &[u64], mut queued: impl FnMut()) -> Vec<Queued> {
    let mut random = StdRng::seed_from_u64(1);
    let mut jobs = Vec::new();
    for _ in 0..JOBS {
        let repository = repositories[random.random_range(2..repositories.len())];
        jobs.push((push(shared, repository), Instant::now(), None, None));
        for _ in 0..20 {
            sleep(Duration::from_millis(100)).await;
            see(shared, &mut jobs);
        }
        queued();
    }
    let deadline = Instant::now() + Duration::from_secs(400);
    while jobs.iter().any(|(.., taken)| taken.is_none()) && Instant::now() < deadline {
        sleep(Duration::from_millis(100)).await;
        see(shared, &mut jobs);
    }
    jobs
}

/// GitHub's responses.
#[derive(Default)]
struct Counts {
    /// The points of the requests to its REST API.
    points: AtomicU64,
    /// Responses that count against the primary limit.
    paid: AtomicU64,
    /// Refusals because of a limit.
    refused: AtomicU64,
}

/// GitHub's behaviour: with a delay, and badly for two repositories.
struct Answers {
    sick: bool,
    counts: Arc<Counts>,
}

impl Fault for Answers {
    fn before(&mut self, side: Side, request: &Request<Bytes>, _: Timestamp) -> Verdict {
        let path = request.uri().path();
        if side == Side::GitHub && ["/repos/", "/org", "/user"].iter().any(|start| path.starts_with(start)) {
            self.counts.points.fetch_add(if request.method() == "GET" { 1 } else { 5 }, Relaxed);
        }
        match side {
            Side::GitHub if self.sick && request.uri().path().contains("/acme/app-1/") => {
                Verdict::status(502, "Bad Gateway")
            }
            _ => Verdict::Pass,
        }
    }

    fn after(
        &mut self,
        side: Side,
        request: &Request<Bytes>,
        response: &mut Response<Bytes>,
        _: Timestamp,
    ) -> Verdict {
        if side == Side::Nomad {
            return Verdict::Pass;
        }
        match response.status().as_u16() {
            304 => {}
            403 | 429 => drop(self.counts.refused.fetch_add(1, Relaxed)),
            _ => drop(self.counts.paid.fetch_add(1, Relaxed)),
        }
        let is_slow = self.sick && request.uri().path().contains("/acme/app-0/");
        Verdict::Delay(if is_slow { Duration::from_secs(9) } else { Duration::from_millis(50) })
    }
}

/// A run, when it was queued, and the time until its job had a runner in Nomad and was taken.
type Queued = (u64, Instant, Option<Duration>, Option<Duration>);

fn see(shared: &Shared, jobs: &mut [Queued]) {
    let world = lock(shared);
    let live = world.live_by_job();
    for (run, queued, seen, taken) in jobs.iter_mut().filter(|(.., taken)| taken.is_none()) {
        let Some(job) = world.github.jobs().find(|job| job.run == *run) else { continue };
        if seen.is_none() && live.contains_key(&job.id) {
            *seen = Some(queued.elapsed());
        }
        if matches!(job.status, Status::InProgress | Status::Completed) {
            *taken = Some(queued.elapsed());
            seen.get_or_insert(queued.elapsed());
        }
    }
}

/// A directory in which a runner's program is the stand-in, for a real agent.
fn stand_in(directory: &Path) -> PathBuf {
    let directory = directory.join("runner");
    let listener = directory.join("bin/Runner.Listener");
    fs::create_dir_all(directory.join("bin")).unwrap();
    let program = env!("CARGO_BIN_EXE_githubrunner");
    fs::write(&listener, format!("#!/bin/sh\nexec '{program}' stand-in\n")).unwrap();
    fs::set_permissions(&listener, fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

async fn serve(shared: &Shared, side: Side) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(serve_tcp(listener, side, Arc::clone(shared), std::future::pending()));
    address
}

/// The program, measured from outside.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Daemon {
    fn start(config: &str, nomad: &str, log: &Path) -> Daemon {
        let program =
            std::env::var_os("BENCH_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_githubrunner").into());
        let child = Command::new(program)
            .args(["-c", config, "run"])
            .env_clear()
            .envs(std::env::var_os("BENCH_LEVEL").map(|level| ("RUST_LOG", level)))
            .env("NOMAD_ADDR", nomad)
            .stdin(Stdio::null())
            .stderr(fs::File::create(log).unwrap())
            .spawn()
            .unwrap();
        Daemon(child)
    }

    /// CPU time, and resident memory in KiB.
    fn read(&self) -> (Duration, u64) {
        let of = |file: &str| PathBuf::from("/proc").join(self.0.id().to_string()).join(file);
        let mut cpu = 0;
        for task in fs::read_dir(of("task")).unwrap() {
            let Ok(text) = fs::read_to_string(task.unwrap().path().join("schedstat")) else { continue };
            cpu += text.split(' ').next().unwrap().parse::<u64>().unwrap();
        }
        let status = fs::read_to_string(of("status")).unwrap();
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        (Duration::from_nanos(cpu), rss.trim().trim_end_matches(" kB").parse().unwrap())
    }
}
