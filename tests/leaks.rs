//! No secret appears where it should not: covers the whole life of runners with each kind of credentials, through
//! success and each kind of failure, with servers that echo everything they know, and the finest log level. Every
//! byte that the program writes or sends is searched for every secret that it has seen.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "leaks/echo.rs"]
mod echo;
#[path = "leaks/modes.rs"]
mod modes;

use std::{
    os::unix::fs::PermissionsExt,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use common::site::{Running, Site, until};
use echo::{Echo, Kind, Known, What};
use modes::{Mode, NOMAD_TOKEN};

/// A failure lasts until it has hit this many requests,
const MET: usize = 3;

/// or this long, if there are no more requests.
const AT_MOST: Duration = Duration::from_millis(800);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_just_in_time_configurations() {
    whole_life(modes::jit()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_registration_tokens() {
    whole_life(modes::token()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_access_tokens() {
    whole_life(modes::access_token()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_an_app() {
    whole_life(modes::app()).await;
}

async fn whole_life(mode: Mode) {
    let site = Site::start_with(modes::cluster()).await;
    (mode.prepare)(&mut site.world().github);
    let known = Arc::new(Mutex::new(Known::with(&mode.secrets)));
    set_echo(&site, &known, What::Nothing, Kind::Garbage);
    let config = modes::config(&mode, &site);
    let mut written = String::new();

    // Once without failures, then through each of them.
    let daemon = start(&site, &config);
    for line in [daemon.command_line(), std::fs::read_to_string(site.cache_file()).unwrap_or_default()] {
        written.push_str(&line);
    }
    let job = site.queue(&["nomadtools"], 400);
    site.served(job).await;
    through_all_failures(&site, &known).await;
    let job = site.queue(&["nomadtools last"], 300);
    until(&site, "all is well again", || site.world().github.job(job).unwrap().conclusion.is_some()).await;
    written.push_str(&daemon.end().await.join("\n"));
    assert!(
        written.len() > 100_000 && written.contains("\"level\":\"DEBUG\""),
        "the log is at its finest: {}",
        written.len()
    );

    all_commands(&site, &mode, &config, &known).await;
    let metadata = std::fs::metadata(site.cache_file()).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    written.push_str(&std::fs::read_to_string(site.cache_file()).unwrap());

    check(&site, &mode, &known.lock().unwrap(), &written);
}

fn set_echo(site: &Site, known: &Arc<Mutex<Known>>, what: What, kind: Kind) {
    site.world().fault = Box::new(Echo::new(Arc::clone(known), what, kind));
}

/// Serves a job during each kind of failure.
async fn through_all_failures(site: &Site, known: &Arc<Mutex<Known>>) {
    let set = |what, kind| set_echo(site, known, what, kind);
    for kind in Kind::ALL {
        for what in [What::Secrets, What::Effects, What::Everything] {
            let job = site.queue(&["nomadtools"], 300);
            let before = known.lock().unwrap().met;
            set(what, kind);
            let began = Instant::now();
            while known.lock().unwrap().met < before + MET && began.elapsed() < AT_MOST {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            set(What::Nothing, kind);
            // A job whose runner could not register is served by the next one, or cancelled.
            let run = site.world().github.job(job).unwrap().run;
            let mut world = site.world();
            let now = world.clock.now();
            world.github.cancel_run(run, now);
            world.touch();
        }
    }
}

/// Runs each command, also while the servers echo what they know.
async fn all_commands(site: &Site, mode: &Mode, config: &str, known: &Arc<Mutex<Known>>) {
    let set = |what, kind| set_echo(site, known, what, kind);
    for (what, kind) in [
        (What::Nothing, Kind::Garbage),
        (What::Everything, Kind::Status(500)),
        (What::Everything, Kind::Wrong),
    ] {
        set(what, kind);
        for command in COMMANDS {
            let mut program = program(site);
            program
                .arg("-c")
                .arg(site.write_config(config))
                .args(["-vv", "--log-format", "json"])
                .args(*command);
            let output =
                tokio::time::timeout(Duration::from_secs(120), program.output()).await.unwrap().unwrap();
            for bytes in [&output.stdout, &output.stderr] {
                let text = String::from_utf8_lossy(bytes);
                // There, the job's own text was requested.
                let excused = if command[0] == "render" { mode.in_jobs } else { &[] };
                let found = known.lock().unwrap().found_in(&text, excused);
                assert_eq!(found, None, "{}: {command:?}", mode.name);
            }
        }
    }
}

/// No secret is where it does not belong.
fn check(site: &Site, mode: &Mode, known: &Known, written: &str) {
    for kind in mode.kinds {
        assert!(known.kinds.contains(kind), "{}: no {kind} was ever seen: {:?}", mode.name, known.kinds);
    }
    assert_eq!(known.found_in(written, &[]), None, "{}: log, arguments or cache", mode.name);
    // What was sent to Nomad and GitHub apart from headers and jobs' variables.
    assert!(known.sent.len() > 10);
    for (request, body) in &known.sent {
        let excused = match request {
            request if request.contains("/v1/job") => mode.in_jobs,
            // GitHub needs the webhook's secret.
            request if request.contains("/hooks") => &[modes::WEBHOOK_SECRET],
            _ => &[],
        };
        assert_eq!(known.found_in(&format!("{request}\n{body}"), excused), None, "{}: {request}", mode.name);
    }
    // And what Nomad contains.
    let world = site.world();
    for variable in world.nomad.variables().filter(|variable| !variable.path.starts_with("nomad/jobs/")) {
        assert_eq!(known.found_in(&format!("{:?}", variable.items), &[]), None, "{}", variable.path);
    }
    for (place, text) in &known.in_nomad {
        assert_eq!(known.found_in(text, mode.in_jobs), None, "{}: {place}", mode.name);
    }
    assert!(
        known.in_nomad.keys().any(|place| place.starts_with("allocation")),
        "{:?}",
        known.in_nomad.keys()
    );
}

const COMMANDS: &[&[&str]] = &[
    &["dumpconfig"],
    &["dumpconfig", "--json"],
    &["render", "nomadtools", "--repo", "acme/app"],
    &["list"],
    &["list", "--json"],
    &["plan"],
    &["list", "-a"],
    &["explain", "acme/app"],
    &["explain", "--json", "acme/app"],
    &["check"],
    &["cache"],
    &["webhook", "install"],
    &["webhook", "install"],
    &["webhook", "status"],
    &["webhook", "remove"],
    &["stop", "--all", "-y"],
    &["purge", "--all", "-y"],
];

fn program(site: &Site) -> tokio::process::Command {
    let mut program = site.program();
    program.env("NOMAD_TOKEN", NOMAD_TOKEN).env("RUST_LOG", "trace");
    program
}

fn start(site: &Site, config: &str) -> Running {
    let mut program = program(site);
    program.arg("-c").arg(site.write_config(config)).args(["-vv", "--log-format", "json", "run"]);
    Running::spawn(program)
}
