//! Runs any number of seeds of the simulation on all cores: `scripts/simulate --seeds N [--seed FIRST]`.

use std::{
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use clap::Parser;
use githubrunner_simulation::{
    faults::{kind::FaultKind, scenario::Scenario, settings::Mode},
    long::{self, Broken, Failing, LimitedBy, TemplateFormat},
    run::{How, Outcome, run},
    shrink::{brief, story},
    sweep,
};

/// The system's allocator took a fifth of the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(
    about = "Runs the deterministic simulation. A seed determines a whole run; for a failing one, its story is printed."
)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first one.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many threads; the number of cores by default.
    #[arg(long)]
    threads: Option<usize>,
    /// Continues after a failure.
    #[arg(long)]
    keep_going: bool,
    /// Kills the daemon at each of its awaits.
    #[arg(long)]
    sweep: bool,
    /// Reports only the seed of a failure and what was wrong.
    #[arg(long)]
    brief: bool,
    /// Runs thirty days, works off 10,000 jobs, and the like.
    #[arg(long)]
    long: bool,
    /// Skips the seeds with one daemon.
    #[arg(long)]
    replicas: bool,
    /// The same, but shorter: two days, 250 jobs.
    #[arg(long)]
    short: bool,
    /// Only those long runs whose name contains this.
    #[arg(long, default_value = "")]
    life: String,
    /// Only these faults in every seed: `SlowImages,LostAnswer`.
    #[arg(long, value_delimiter = ',', value_parser = fault)]
    faults: Vec<FaultKind>,
    /// Prints the timeline of the first seed and ends.
    #[arg(long)]
    show: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.long || arguments.short {
        return long_life(arguments.short, &arguments.life);
    }
    if arguments.sweep {
        return deaths();
    }
    if arguments.show {
        return show(&arguments);
    }
    search(&arguments)
}

/// Prints the timeline of one seed.
fn show(arguments: &Arguments) -> ExitCode {
    let scenario = scenario(arguments.seed, &arguments.faults);
    let outcome = run(&scenario, How { record: true, ..How::quietly() });
    println!("{:?}\n{:?}", scenario.faults, scenario.settings);
    outcome.timeline.iter().for_each(|line| println!("{line}"));
    outcome.findings.iter().for_each(|finding| println!("FAILED {finding}"));
    if outcome.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs many seeds, and prints those that fail.
fn search(arguments: &Arguments) -> ExitCode {
    let threads = arguments
        .threads
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    let (next, done, requests, failed) =
        (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let (stop, output) = (AtomicBool::new(false), Mutex::new(()));
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= arguments.seeds {
                        return;
                    }
                    let scenario = scenario(arguments.seed + number, &arguments.faults);
                    if arguments.replicas && !scenario.replicas {
                        continue;
                    }
                    let outcome = run(&scenario, How { listen: number % 16 == 0, ..How::quietly() });
                    requests.fetch_add(outcome.requests, Ordering::Relaxed);
                    let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                    if !outcome.findings.is_empty() {
                        failed.fetch_add(1, Ordering::Relaxed);
                        let story = match arguments.brief {
                            true => brief(&scenario, &outcome),
                            false => story(&scenario, &outcome),
                        };
                        let _guard = output.lock();
                        println!("{story}");
                        if !arguments.keep_going {
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                    if done % 1000 == 0 {
                        let _guard = output.lock();
                        eprintln!(
                            "{done} seeds, {:.0} a second",
                            done as f64 / started.elapsed().as_secs_f64()
                        );
                    }
                }
            });
        }
    });
    let (done, seconds) = (done.into_inner(), started.elapsed().as_secs_f64());
    println!(
        "{done} seeds from {} in {seconds:.1} s: {:.1} a second, {} requests; {} failed",
        arguments.seed,
        done as f64 / seconds,
        requests.into_inner(),
        failed.load(Ordering::Relaxed),
    );
    if failed.into_inner() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Finds a fault by its name.
fn fault(name: &str) -> Result<FaultKind, String> {
    let name_of = |fault: &FaultKind| match fault {
        FaultKind::Exchange(trouble) => format!("{trouble:?}"),
        fault => format!("{fault:?}"),
    };
    let all = FaultKind::all();
    let names: Vec<String> = all.iter().map(name_of).collect();
    let at = names.iter().position(|known| known == name);
    at.map(|at| all[at]).ok_or_else(|| format!("there is none of this name; there are {}", names.join(", ")))
}

/// The scenario of a seed, optionally with these faults.
fn scenario(seed: u64, faults: &[FaultKind]) -> Scenario {
    if faults.is_empty() { Scenario::of(seed) } else { Scenario::with(seed, faults.to_vec()) }
}

fn deaths() -> ExitCode {
    let mut well = true;
    for mode in [Mode::Jit, Mode::Token, Mode::Persistent] {
        let (deaths, bad) = sweep::sweep(mode, 1);
        println!("{mode:?}: {deaths} deaths, {} badly", bad.len());
        for (at, cut, outcome) in bad.iter().take(5) {
            println!("{at:?}, connections cut: {cut}: {:#?}\n{:#?}", outcome.findings, outcome.timeline);
            well = false;
        }
    }
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The resident memory of this process, in megabytes.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096 / 1_000_000
}

fn long_life(short: bool, which: &str) -> ExitCode {
    let minute = std::time::Duration::from_secs(60);
    let lives: [(&str, &dyn Fn() -> Outcome); 13] = [
        ("many days of churn", &|| {
            if short { long::days(2, minute * 5) } else { long::days(30, minute * 2) }
        }),
        ("many jobs at a cap", &|| match short {
            true => long::backlog(25, 10, minute),
            false => long::backlog(500, 50, minute / 2),
        }),
        ("labels that fit nowhere", &long::unplaceable),
        ("a failing template, HCL", &|| long::failing_template(TemplateFormat::Hcl)),
        ("a failing template, JSON", &|| long::failing_template(TemplateFormat::Json)),
        ("starts that fail for hours", &|| long::failing_for_hours(Failing::Starts)),
        ("secrets that fail for hours", &|| long::failing_for_hours(Failing::Credentials)),
        ("a repository whose runners are refused", &|| {
            long::one_is_broken(Broken::Refused, 2, LimitedBy::Cap)
        }),
        ("a repository whose runners are refused, on nodes", &|| {
            long::one_is_broken(Broken::Refused, 2, LimitedBy::Nodes)
        }),
        ("a repository whose jobs are not assigned", &|| {
            long::one_is_broken(Broken::Unassigned, 2, LimitedBy::Cap)
        }),
        ("a repository whose jobs are not assigned, on nodes", &|| {
            long::one_is_broken(Broken::Unassigned, 2, LimitedBy::Nodes)
        }),
        ("a repository whose runners never start", &|| {
            long::one_is_broken(Broken::NeverStarts, 2, LimitedBy::Cap)
        }),
        ("a repository whose runners never start, on nodes", &|| {
            long::one_is_broken(Broken::NeverStarts, 2, LimitedBy::Nodes)
        }),
    ];
    let mut well = true;
    for (name, life) in lives.into_iter().filter(|(name, _)| name.contains(which)) {
        let started = Instant::now();
        let outcome = life();
        println!(
            "{name}: {:.1} days in {:.1} s, {} requests, {} MB resident",
            outcome.took.as_secs_f64() / 86_400.0,
            started.elapsed().as_secs_f64(),
            outcome.requests,
            resident(),
        );
        for (when, sizes) in [("after a third", outcome.sizes.len() / 3), ("at the end", outcome.sizes.len())]
        {
            if let Some(sizes) = sizes.checked_sub(1).and_then(|at| outcome.sizes.get(at)) {
                println!("  {when}: {sizes:?}");
            }
        }
        for finding in &outcome.findings {
            println!("  FAILED {finding}");
            well = false;
        }
    }
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
