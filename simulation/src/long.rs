//! Long life: many days with churn, a large backlog, labels that fit nowhere, templates that fail.

use std::{collections::BTreeMap, time::Duration};

use githubrunner_sim::{
    fault::Side,
    github::{Conclusion, Job, JobSpec},
    nomad::Node,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::run::{How, Outcome, run};
use crate::faults::{
    mishap::Mishap,
    scenario::{Happening, Scenario},
    settings::{Access, Classes, Mode, Settings},
    trouble::{Episode, Trouble},
};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn settings(loop_interval: Duration) -> Settings {
    Settings {
        max_run_duration: None,
        rerun_lost: None,
        loop_interval,
        caps: [None; 3],
        classes: Classes::default(),
        warm: Vec::new(),
        inactivity: Duration::from_secs(120),
        strict: false,
        purge: [Duration::from_secs(60), Duration::from_secs(300)],
        make_room: Some(Duration::from_secs(60)),
        parallel: 8,
        mode: Mode::Jit,
        access: Access::default(),
        json_template: true,
        cache: true,
        hints: true,
        webhooks: false,
    }
}

fn scenario(seed: u64, repositories: usize, nodes: usize, loop_interval: Duration) -> Scenario {
    let mut scenario = Scenario::with(seed, Vec::new());
    scenario.happenings.clear();
    scenario.repositories = (0..repositories).map(|number| format!("acme/app-{number}")).collect();
    scenario.settings = settings(loop_interval);
    scenario.github.points_a_minute = 100_000;
    scenario.github.rate_limit = 1_000_000;
    scenario.nomad.nodes = (0..nodes).map(|number| Node::named(&format!("node-{number}"))).collect();
    scenario
}

/// Runs, mishaps and faults for so many days; the daemon reads its configuration again each hour, and is looked at
/// then.
pub fn days(days: u32, loop_interval: Duration) -> Outcome {
    let mut rng = StdRng::seed_from_u64(30);
    let mut scenario = scenario(30, 3, 2, loop_interval);
    scenario.over = DAY * days;
    let end = scenario.over.as_secs();
    let mut at = 0;
    while at < end {
        at += rng.random_range(300..3600);
        let jobs = (0..rng.random_range(1..=3))
            .map(|_| {
                // Anyone who can open a pull request can think of new labels for ever.
                let label = match rng.random_range(0..4) {
                    0 => format!("sim v={at}"),
                    1 => format!("sim fail={at}"),
                    _ => "sim".to_owned(),
                };
                JobSpec::new(&[&label], Duration::from_secs(rng.random_range(5..1200)))
            })
            .collect();
        scenario.happenings.push((Duration::from_secs(at), Happening::Run(rng.random_range(0..3), jobs)));
    }
    for hour in 1..days * 24 {
        let start = HOUR * hour;
        let pick = rng.random_range(0..100);
        let mishap = match hour % 12 {
            0 => Mishap::Collect,
            1 => Mishap::NodeCrash { pick },
            2 | 4 | 8 => Mishap::NodesBack,
            3 => Mishap::NodeCut { pick },
            5 => Mishap::Cancel { pick },
            6 => Mishap::Rerun { pick },
            7 => Mishap::Drain { pick, deadline: Duration::from_secs(60) },
            9 => Mishap::Purge { pick },
            10 => Mishap::OutOfMemory { pick },
            _ => Mishap::DeleteRegistration { pick },
        };
        scenario.happenings.push((start, Happening::Mishap(mishap)));
        scenario.happenings.push((start + HOUR / 2, Happening::Hangup));
        let trouble = Trouble::ALL[rng.random_range(0..Trouble::ALL.len())];
        if let Some(side) = trouble.side()
            && trouble != Trouble::SilentLimit
        {
            let at = |passed: Duration| scenario.base.checked_add(passed).unwrap_or(scenario.base);
            let (from, until) = (at(start), at(start + HOUR / 4));
            scenario.episodes.push(Episode { trouble, side, from, until, chance: 0.05 });
        }
    }
    scenario.happenings.sort_by_key(|(at, _)| *at);
    let mut outcome = run(&scenario, How { requests: u64::MAX, ..How::quietly() });
    // Labels with which the template fails are never served; all else must be.
    outcome.findings.retain(|finding| !finding.contains("left over"));
    let growth = growing(&outcome.sizes);
    outcome.findings.extend(growth);
    outcome
}

/// What is larger in the last third of the time than it was in the second.
fn growing(sizes: &[BTreeMap<&'static str, usize>]) -> Vec<String> {
    let third = sizes.len() / 3;
    let most = |part: &[BTreeMap<&'static str, usize>], what: &str| {
        part.iter().filter_map(|sizes| sizes.get(what)).copied().max().unwrap_or(0)
    };
    let Some(first) = sizes.first() else { return vec!["nothing was measured".into()] };
    let grown = first.keys().filter_map(|what| {
        let (before, after) = (most(&sizes[third..2 * third], what), most(&sizes[2 * third..], what));
        let allowed = before + before / 2 + if what.starts_with("bytes") { 20_000 } else { 20 };
        (after > allowed).then(|| format!("{what} grew from {before} to {after}"))
    });
    grown.collect()
}

/// How long each job waited, by repository.
fn waits(jobs: &[Job]) -> BTreeMap<u64, Vec<Duration>> {
    let mut waits: BTreeMap<u64, Vec<Duration>> = BTreeMap::new();
    for job in jobs.iter().filter(|job| job.runner.is_some()) {
        let wait = Duration::try_from(job.started_at.duration_since(job.created_at)).unwrap_or_default();
        waits.entry(job.repository).or_default().push(wait);
    }
    waits
}

/// How many repositories have a backlog.
const LOADED: usize = 20;

/// A backlog in twenty repositories, worked off at a cap, and before it in another repository two jobs that fit nowhere;
/// one job in one more repository comes late.
pub fn backlog(jobs_each: usize, cap: usize, loop_interval: Duration) -> Outcome {
    let mut rng = StdRng::seed_from_u64(20);
    let mut scenario = scenario(20, LOADED + 2, 4, loop_interval);
    scenario.settings.caps = [Some(cap), None, None];
    let jobs_in_all = jobs_each * LOADED;
    // A job takes forty seconds, and then its place is free until a pass looks at GitHub again: most are done by then.
    scenario.over = Duration::from_secs((60 * jobs_in_all / cap) as u64);
    let huge = (0..2).map(|_| JobSpec::new(&["sim mem=999999"], Duration::from_secs(30))).collect();
    scenario.happenings.push((Duration::ZERO, Happening::Run(LOADED + 1, huge)));
    for repository in 0..LOADED {
        for begin in (0..jobs_each).step_by(50) {
            let jobs = (begin..jobs_each.min(begin + 50))
                .map(|_| JobSpec::new(&["sim"], Duration::from_secs(rng.random_range(20..60))));
            scenario.happenings.push((Duration::ZERO, Happening::Run(repository, jobs.collect())));
        }
    }
    let late = Duration::from_secs(600);
    let job = JobSpec::new(&["sim"], Duration::from_secs(30));
    scenario.happenings.push((late, Happening::Run(LOADED, vec![job])));
    let end = scenario.over - Duration::from_secs(1);
    // The first run that is not over: the one that fits nowhere.
    scenario.happenings.push((end, Happening::Mishap(Mishap::Cancel { pick: 0 })));
    let minutes = scenario.over.as_secs() / 60;
    scenario.happenings.extend((1..minutes / 5).map(|at| (Duration::from_secs(300 * at), Happening::Hangup)));
    scenario.happenings.sort_by_key(|(at, _)| *at);
    let how = How { requests: u64::MAX, jobs: true, ..How::quietly() };
    let mut outcome = run(&scenario, how);
    let mut wrong = growing(&outcome.sizes);
    let served = outcome.jobs.iter().filter(|job| job.conclusion == Some(Conclusion::Success)).count();
    if served != jobs_in_all + 1 {
        wrong.push(format!("{served} of {} jobs were served", jobs_in_all + 1));
    }

    let mut begun: Vec<&Job> = outcome.jobs.iter().filter(|job| job.runner.is_some()).collect();
    begun.sort_by_key(|job| (job.started_at, job.id));
    // When half of the jobs have started, each repository has had about its share.
    let mut share: BTreeMap<u64, usize> = BTreeMap::new();
    for job in &begun[..begun.len() / 2] {
        *share.entry(job.repository).or_default() += 1;
    }
    let half = jobs_each / 2;
    for (repository, count) in share.iter().filter(|(_, count)| **count > 1) {
        if count * 10 < half * 7 || count * 10 > half * 13 {
            wrong.push(format!(
                "repository {repository} had {count} of {half} when half of the jobs had begun"
            ));
        }
    }
    // Nobody is passed over while others have turn after turn: all places are taken once, and then each has had two.
    for (repository, between) in longest_passed_over(&begun) {
        if between > cap + 2 * LOADED {
            wrong.push(format!("{between} jobs of others began between two of repository {repository}"));
        }
    }
    // Who comes late with one job gets one of the next places.
    let lonely = waits(&outcome.jobs).into_values().find(|waits| waits.len() == 1);
    match lonely.as_deref() {
        Some([wait]) if *wait <= loop_interval * 2 + Duration::from_secs(90) => {}
        other => wrong.push(format!("the job of another repository waited {other:?}")),
    }
    outcome.findings.extend(wrong);
    outcome
}

/// By repository with more than one job: how many jobs of others began at most between two of its own, and before its
/// first one.
fn longest_passed_over(begun: &[&Job]) -> BTreeMap<u64, usize> {
    let mut own: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (at, job) in begun.iter().enumerate() {
        own.entry(job.repository).or_default().push(at);
    }
    own.retain(|_, begun| begun.len() > 1);
    let longest = |begun: Vec<usize>| {
        let first = begun.first().copied().unwrap_or_default();
        begun.windows(2).map(|pair| pair[1] - pair[0] - 1).fold(first, usize::max)
    };
    own.into_iter().map(|(repository, begun)| (repository, longest(begun))).collect()
}

/// Labels that fit nowhere fill all places; the jobs of others are served all the same.
pub fn unplaceable() -> Outcome {
    let mut scenario = scenario(40, 3, 1, Duration::from_secs(30));
    scenario.settings.caps = [Some(4), None, None];
    scenario.over = HOUR;
    let short = Duration::from_secs(30);
    let huge = (0..10).map(|_| JobSpec::new(&["sim mem=999999"], short)).collect();
    scenario.happenings.push((Duration::ZERO, Happening::Run(LOADED + 1, huge)));
    for minute in 1..=10 {
        let jobs = vec![JobSpec::new(&["sim"], short), JobSpec::new(&["sim", "linux"], short)];
        let repository = minute as usize % 3;
        scenario.happenings.push((Duration::from_secs(60 * minute), Happening::Run(repository, jobs)));
    }
    let end = scenario.over - Duration::from_secs(1);
    scenario.happenings.push((end, Happening::Mishap(Mishap::Cancel { pick: 0 })));
    let mut outcome = run(&scenario, How { jobs: true, ..How::quietly() });
    let served = |job: &&Job| job.runner.is_some();
    let count = outcome.jobs.iter().filter(served).count();
    if count != 20 {
        outcome.findings.push(format!("{count} of 20 jobs were served"));
    }
    let longest = waits(&outcome.jobs).into_values().flatten().max().unwrap_or_default();
    if longest > Duration::from_secs(600) {
        outcome.findings.push(format!("a job that fits waited {longest:?}"));
    }
    outcome
}

/// What can be wrong with one repository, for as long as anybody looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// GitHub refuses to register its runners.
    Refused,
    /// GitHub assigns its jobs to nobody.
    Unassigned,
    /// The tasks of its runners do not start.
    NeverStarts,
}

/// What limits the number of runners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitedBy {
    Cap,
    Nodes,
}

/// One repository is broken, with a backlog, and two others have a job now and then. At this cap, or on nodes with room
/// for as many, each of those is taken in bounded time, and no job has more than two live attempts.
pub fn one_is_broken(how: Broken, places: usize, limited_by: LimitedBy) -> Outcome {
    let mut scenario = scenario(70, 3, 1, Duration::from_secs(30));
    match limited_by {
        LimitedBy::Cap => scenario.settings.caps = [Some(places), None, None],
        LimitedBy::Nodes => {
            let memory_mb = 2_100 + 500 * places as u64;
            scenario.nomad.nodes = vec![Node { memory_mb, cpu: 4_000, ..Node::named("node-0") }];
        }
    }
    scenario.over = HOUR * 3;
    let short = Duration::from_secs(30);
    match how {
        Broken::Refused => {
            let refuse = |yes| Happening::Mishap(Mishap::RefuseRunners { pick: 0, yes });
            scenario.happenings.push((Duration::ZERO, refuse(true)));
            scenario.happenings.push((scenario.over - short, refuse(false)));
        }
        Broken::NeverStarts => {
            let slow = |delay| Happening::Mishap(Mishap::SlowImagesOf { pick: 0, delay });
            scenario.happenings.push((Duration::ZERO, slow(DAY)));
            scenario.happenings.push((scenario.over - short, slow(Duration::from_secs(1))));
        }
        Broken::Unassigned => {}
    }
    let ghost = how == Broken::Unassigned;
    let broken = || JobSpec { ghost, ..JobSpec::new(&["sim"], short) };
    scenario.happenings.push((Duration::ZERO, Happening::Run(0, (0..4).map(|_| broken()).collect())));
    for at in 1..=10 {
        let jobs = vec![JobSpec::new(&["sim"], short)];
        scenario.happenings.push((Duration::from_secs(900 * at), Happening::Run(1 + at as usize % 2, jobs)));
        scenario.happenings.push((Duration::from_secs(900 * at), Happening::Run(0, vec![broken()])));
    }
    scenario.happenings.sort_by_key(|(at, _)| *at);
    let mut outcome = run(&scenario, How { jobs: true, requests: u64::MAX, ..How::quietly() });
    let others: Vec<&Job> =
        outcome.jobs.iter().filter(|job| job.repository != outcome.jobs[0].repository).collect();
    let served = others.iter().filter(|job| job.runner.is_some()).count();
    if others.len() != 10 || served != 10 {
        outcome.findings.push(format!("{how:?}: {served} of {} jobs of others were served", others.len()));
    }
    let taken =
        |job: &&&Job| Duration::try_from(job.started_at.duration_since(job.created_at)).unwrap_or(DAY);
    let longest = others.iter().map(|job| taken(&job)).max().unwrap_or(DAY);
    // The longest limit of a state, and two passes.
    let limit = if how == Broken::NeverStarts { 20 * 60 } else { 5 * 60 };
    if longest > Duration::from_secs(limit + 120) {
        outcome
            .findings
            .push(format!("{how:?}, {places} places: a job of another repository waited {longest:?}"));
    }
    outcome
}

/// The format of the template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplateFormat {
    Hcl,
    Json,
}

/// A template that fails for some labels is tried ever more rarely, and harms no others.
pub fn failing_template(format: TemplateFormat) -> Outcome {
    let json = format == TemplateFormat::Json;
    let mut scenario = scenario(50, 2, 1, Duration::from_secs(20));
    scenario.settings.json_template = json;
    scenario.over = HOUR * 6;
    let short = Duration::from_secs(30);
    scenario.happenings.push((Duration::ZERO, Happening::Run(0, vec![JobSpec::new(&["sim fail=1"], short)])));
    for hour in 0..6 {
        let at = HOUR * hour + Duration::from_secs(60);
        scenario.happenings.push((at, Happening::Run(0, vec![JobSpec::new(&["sim"], short)])));
    }
    let end = scenario.over - Duration::from_secs(1);
    scenario.happenings.push((end, Happening::Mishap(Mishap::Cancel { pick: 0 })));
    let mut outcome = run(&scenario, How { jobs: true, ..How::quietly() });
    let served = outcome.jobs.iter().filter(|job| job.runner.is_some()).count();
    if served != 6 {
        outcome.findings.push(format!("{served} of 6 jobs were served"));
    }
    // Half a minute, doubled up to ten: about forty in six hours, besides the six that succeed.
    if !json && !(20..=60).contains(&outcome.registered) {
        outcome.findings.push(format!("{} parses and registrations", outcome.registered));
    }
    outcome
}

/// The action that fails for hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failing {
    Starts,
    Credentials,
}

/// What fails for hours is retried ever more rarely, but not too rarely: one job, whose runner cannot be started or get
/// its credentials for six hours.
pub fn failing_for_hours(what: Failing) -> Outcome {
    let starts = what == Failing::Starts;
    let mut scenario = scenario(60, 1, 1, Duration::from_secs(20));
    scenario.over = HOUR * 8;
    let until = HOUR * 6;
    let at = |passed: Duration| scenario.base.checked_add(passed).unwrap_or(scenario.base);
    if starts {
        scenario.happenings.push((Duration::ZERO, Happening::Mishap(Mishap::StartFailure)));
        scenario.happenings.push((until, Happening::Mishap(Mishap::StartWorks)));
    } else {
        let (from, until, side) = (at(Duration::ZERO), at(until), Side::GitHub);
        scenario.episodes.push(Episode { trouble: Trouble::JitInvalid, side, from, until, chance: 1.0 });
    }
    let job = JobSpec::new(&["sim"], Duration::from_secs(30));
    scenario.happenings.push((Duration::from_secs(5), Happening::Run(0, vec![job])));
    scenario.happenings.sort_by_key(|(at, _)| *at);
    let how = How { requests: u64::MAX, jobs: true, ..How::quietly() };
    let mut outcome = run(&scenario, how);
    // Half a minute, or five seconds, doubled up to ten minutes: six or eight times, then every ten minutes.
    let tried = if starts { outcome.registered } else { outcome.issued };
    if !(30..=48).contains(&tried) {
        outcome.findings.push(format!("it was tried {tried} times in six hours"));
    }
    let most = until + Duration::from_secs(690);
    let longest = waits(&outcome.jobs).into_values().flatten().max();
    if longest.is_none_or(|longest| longest > most) {
        outcome.findings.push(format!("the job waited {longest:?}, of which six hours were trouble"));
    }
    outcome
}
