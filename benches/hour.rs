//! The requests per hour for many repositories, and the time until a job is taken. The daemon's own code runs against
//! the simulators in virtual time, so that hours pass in a minute. Prints a line for each hour. `scripts/bench` runs
//! it. CPU and memory are not measured, because both sides are in this process.
//!
//! An organization has 1,000 repositories, one token with 5,000 requests an hour, no webhook, and an empty cache at
//! first. GitHub takes 50 ms per response, counts points and the primary limit, and refuses what exceeds them. In the
//! last hour, 60 jobs are queued, one a minute, each by a push to a random repository. Then the same is measured for 10
//! repositories, where a job is queued every 2 s for ten minutes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use common::{TOKEN, idle_organization, push, quantile};
use githubrunner::{
    apply::ApplyMode,
    config::Config,
    daemon::{Daemon, Signals},
    github::{self as api, Auth},
    http::{self, Client, Endpoint, Secret},
    nomad::{self as agent, deployment_id},
    render::Renderer,
};
use githubrunner_sim::{
    fault::{Fault, Sender, Side, Verdict},
    serve::serve_client,
    world::{Shared, drive, lock},
};
use hyper::{Request, Response};
use jiff::Timestamp;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};

/// GitHub's latency.
const LATENCY: Duration = Duration::from_millis(50);

const MINUTE: Duration = Duration::from_secs(60);

/// The number of hours. The last one has jobs.
const HOURS: usize = 3;

fn main() {
    let count = std::env::var("BENCH_REPOSITORIES").ok().and_then(|text| text.parse().ok());
    println!(
        "{:<34} {:>9} {:>16} {:>18} {:>8} {:>8}",
        "virtual time", "requests", "of the primary", "points in a minute", "refused", "took"
    );
    match count {
        Some(count) => in_virtual_time(count, by_the_hour),
        None => {
            in_virtual_time(1000, by_the_hour);
            in_virtual_time(10, every_two_seconds);
        }
    }
}

/// Runs `watch` on a world with this many repositories and a daemon.
fn in_virtual_time<W: Future<Output = ()>>(count: usize, watch: impl FnOnce(Watched) -> W) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(async move {
        let (mut world, repositories) = idle_organization(count, "2026-01-05T12:00:00Z".parse().unwrap());
        let counts = Arc::new(Counts::default());
        world.fault = Box::new(Answers(Arc::clone(&counts)));
        let shared = world.shared();
        tokio::spawn(drive(Arc::clone(&shared), std::future::pending()));
        let (_alive, shutdown) = watch::channel(false);
        let mut signals = Signals { shutdown, hangup: Arc::new(Notify::new()) };
        let mut daemon = daemon(&shared);
        let random = StdRng::seed_from_u64(1);
        let watched =
            Watched { shared, repositories, counts, random, runs: Vec::new(), took: Instant::now() };
        tokio::select! {
            _ = daemon.run(&mut signals) => panic!("the daemon ended"),
            () = watch(watched) => {}
        }
    });
}

/// Hours without jobs, then one with jobs.
async fn by_the_hour(mut watched: Watched) {
    for hour in 1..=HOURS {
        let every = if hour == HOURS { Some(60) } else { None };
        let name = format!("{} repositories, hour {hour}", watched.repositories.len());
        watched.for_seconds(3600, every, &name).await;
    }
    sleep(2 * MINUTE).await;
    watched.tell_waits();
}

/// A steady stream of jobs in a few repositories.
async fn every_two_seconds(mut watched: Watched) {
    sleep(MINUTE / 2).await;
    let name = format!("{} repositories, 30 jobs a minute", watched.repositories.len());
    watched.for_seconds(600, Some(2), &name).await;
    sleep(2 * MINUTE).await;
    watched.tell_waits();
}

/// What is measured, and the results.
struct Watched {
    shared: Shared,
    repositories: Vec<u64>,
    counts: Arc<Counts>,
    random: StdRng,
    runs: Vec<u64>,
    took: Instant,
}

impl Watched {
    /// Waits for this long, with a job now and then, and prints the cost.
    async fn for_seconds(&mut self, seconds: usize, every: Option<usize>, name: &str) {
        let before = self.counts.read();
        let points = || self.counts.points.load(Relaxed);
        let mut by_second = vec![points()];
        for second in 0..seconds {
            if every.is_some_and(|every| second % every == every / 2) {
                let run = push(
                    &self.shared,
                    self.repositories[self.random.random_range(0..self.repositories.len())],
                );
                self.runs.push(run);
            }
            sleep(Duration::from_secs(1)).await;
            by_second.push(points());
        }
        let most = by_second.windows(61).map(|window| window[60] - window[0]).max().unwrap_or(0);
        let [requests, paid, refused] = self.counts.read();
        println!(
            "{name:<34} {:>9} {:>16} {most:>18} {:>8} {:>6.1} s",
            requests - before[0],
            paid - before[1],
            refused - before[2],
            self.took.elapsed().as_secs_f64(),
        );
        self.took = Instant::now();
    }

    /// Prints how long the jobs waited, from queued to in progress.
    fn tell_waits(&self) {
        let world = lock(&self.shared);
        let jobs = world.github.jobs().filter(|job| self.runs.contains(&job.run));
        let wait = |job: &githubrunner_sim::github::Job| {
            let wait = Duration::try_from(job.started_at.duration_since(job.created_at)).unwrap_or_default();
            job.runner.is_some().then_some(wait)
        };
        let mut waits: Vec<(Option<Duration>, u64)> = jobs.map(|job| (wait(job), job.id)).collect();
        waits.sort_by_key(|(wait, _)| wait.unwrap_or(Duration::MAX));
        let quantile = |part| quantile(waits.iter().map(|(wait, _)| *wait), part);
        let (half, most, all) = (quantile(50), quantile(95), quantile(100));
        println!("{} pushes, queued to taken: p50 {half}, p95 {most}, longest {all}", waits.len());
        if std::env::var_os("BENCH_SHOW").is_some() {
            waits.iter().rev().take(20).for_each(|(wait, job)| println!("job {job} waited {wait:?}"));
            world.timeline().for_each(|(time, line)| println!("{time} {line}"));
        }
    }
}

fn daemon(shared: &Shared) -> Daemon {
    let config = format!(
        "github: {{token: {TOKEN}}}\nrepos: [acme]\ntemplate: builtin:raw_exec\n\
         template_settings: {{runner_directory: /none}}\n"
    );
    let config = Config::load(&config, &|_| None).unwrap();
    let options = http::Options { deadline: Duration::from_secs(20), ..http::Options::default() };
    let client = Client::new(endpoint(shared, Side::GitHub), options).unwrap();
    let options = api::Options {
        interest: Some(Arc::new(config.interest())),
        ..api::Options::new(url::Url::parse("http://github.test").unwrap())
    };
    let github = api::GitHub::new(client, Auth::Token(Secret::new(TOKEN)), options);
    let settings = &config.nomad;
    let options = agent::Options::new(
        endpoint(shared, Side::Nomad),
        &settings.namespace,
        &settings.jobprefix,
        &settings.meta,
    );
    let nomad = agent::Nomad::new(options, deployment_id(&mut StdRng::seed_from_u64(7))).unwrap();
    let renderer = Renderer::new(&config).unwrap();
    Daemon::new(config, github, nomad, renderer, ApplyMode::Perform)
}

fn endpoint(shared: &Shared, side: Side) -> Endpoint {
    let shared = Arc::clone(shared);
    let name = match side {
        Side::GitHub => "github.test",
        Side::Nomad => "nomad.test",
    };
    let connect = move || -> io::Result<tokio::io::DuplexStream> {
        let (near, far) = tokio::io::duplex(64 << 10);
        tokio::spawn(serve_client(far, side, Arc::clone(&shared), Sender(0)));
        Ok(near)
    };
    Endpoint::Memory { name: name.to_owned(), connect: Arc::new(connect) }
}

/// GitHub's responses.
#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    /// The points of the requests.
    points: AtomicU64,
    /// Responses that count against the primary limit.
    paid: AtomicU64,
    /// Refusals because of a limit.
    refused: AtomicU64,
}

impl Counts {
    /// Requests, those that count against the primary limit, and refusals.
    fn read(&self) -> [u64; 3] {
        [&self.requests, &self.paid, &self.refused].map(|count| count.load(Relaxed))
    }
}

struct Answers(Arc<Counts>);

impl Fault for Answers {
    fn before(&mut self, side: Side, request: &Request<Bytes>, _: Timestamp) -> Verdict {
        if side == Side::GitHub && !request.uri().path().starts_with("/_runner/") {
            self.0.requests.fetch_add(1, Relaxed);
            self.0.points.fetch_add(if request.method() == "GET" { 1 } else { 5 }, Relaxed);
        }
        Verdict::Pass
    }

    fn after(
        &mut self,
        side: Side,
        request: &Request<Bytes>,
        response: &mut Response<Bytes>,
        _: Timestamp,
    ) -> Verdict {
        if side == Side::Nomad || request.uri().path().starts_with("/_runner/") {
            return Verdict::Pass;
        }
        // Registrations have their own limit.
        let bucket = response.headers().get("x-ratelimit-resource");
        match response.status().as_u16() {
            304 => {}
            403 | 429 => drop(self.0.refused.fetch_add(1, Relaxed)),
            _ if bucket.is_some_and(|bucket| bucket != "core") => {}
            _ => drop(self.0.paid.fetch_add(1, Relaxed)),
        }
        Verdict::Delay(LATENCY)
    }
}
