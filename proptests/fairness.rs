//! Whose turn it is, with a cap on all runners and a backlog in every repository.

use std::collections::{BTreeMap, BTreeSet};

use githubrunner::{
    model::{Registration as Mode, *},
    plan::Policy,
};
use proptest::{prelude::*, sample::select};

use crate::{
    cases::{PREFIX, rules, runner, secs},
    convergence::Loop,
    model_world::{NOWHERE, Random, Settings, World},
    specification::facts::starts,
};

#[derive(Clone, Debug)]
struct Backlog {
    cap: usize,
    /// How many jobs each repository has queued. The first repository's jobs are the oldest.
    jobs: Vec<usize>,
    /// Job durations to choose from.
    lasts: Vec<u64>,
    /// When dead runners are purged. With 0, the next pass sees nothing of them.
    purge: u64,
    seed: u64,
}

fn backlog() -> impl Strategy<Value = Backlog> {
    let jobs = proptest::collection::vec(prop_oneof![1..10_usize, 30..60_usize], 3..9);
    let lasts = select(vec![vec![20], vec![300], vec![20, 20, 20, 300], vec![20, 90, 200]]);
    (2..6_usize, jobs, lasts, select(vec![0_u64, 60, 3600]), any::<u64>())
        .prop_map(|(cap, jobs, lasts, purge, seed)| Backlog { cap, jobs, lasts, purge, seed })
}

fn settings(repositories: usize) -> Settings {
    Settings {
        repositories,
        capacity: 100,
        pull: 5,
        kill: 5,
        mode: Mode::Jit,
        crashes: 0,
        failures: 0,
        lost_answers: 0,
        unseen: 0,
        incomplete: 0,
        forgets: 0,
        unreachable: 0,
    }
}

fn policy(cap: usize, purge: u64) -> Policy {
    Policy {
        prefix: PREFIX.to_owned(),
        labels: rules(),
        max_runners: Some(cap),
        max_runners_per_repository: None,
        max_runners_per_group: None,
        runner_inactivity_timeout: None,
        strict: true,
        purge_successfull_timeout: Some(secs(purge)),
        purge_failure_timeout: Some(secs(purge)),
        pending_to_kill_listening: Some(secs(60)),
        waiting_timeout: secs(300),
        starting_timeout: secs(1200),
        connect_timeout: secs(300),
        unassigned_timeout: secs(300),
        max_run_duration: None,
        rerun_lost: None,
        level: RunnerLevel::Repository,
        classes: Vec::new(),
        classes_only: false,
        warm: Vec::new(),
    }
}

/// For each repository with a held start: how often others got a place while they had as many runners as it
/// had.
#[derive(Default)]
struct Turns {
    passed_over: BTreeMap<u64, BTreeMap<u64, usize>>,
}

impl Turns {
    /// Checks one plan's starts, in order, given how many runners each repository had before.
    fn check(&mut self, mut live: BTreeMap<u64, usize>, plan: &Plan) -> Result<(), String> {
        let held: BTreeSet<u64> = plan
            .holds
            .iter()
            .filter(|hold| matches!(hold.reason, HoldReason::Cap { .. }))
            .filter_map(|hold| match &hold.subject {
                Subject::Job { repository, .. } => repository.strip_prefix("Own.er/r")?.parse().ok(),
                _ => None,
            })
            .collect();
        self.passed_over.retain(|waiting, _| held.contains(waiting));
        for start in starts(plan) {
            let gets = start.repository.id.0;
            self.passed_over.remove(&gets);
            let has = live.get(&gets).copied().unwrap_or(0);
            for waits in held.iter().copied().filter(|waits| *waits != gets) {
                let other = live.get(&waits).copied().unwrap_or(0);
                if has > other {
                    return Err(format!("r{gets} with {has} runners goes before r{waits} with {other}"));
                }
                if has == other {
                    let times = self.passed_over.entry(waits).or_default().entry(gets).or_default();
                    *times += 1;
                    // Twice is possible if both were started in one plan, at the same instant.
                    if *times > 2 {
                        return Err(format!("r{gets} got {times} places, r{waits} with as few runners none"));
                    }
                }
            }
            *live.entry(gets).or_default() += 1;
        }
        Ok(())
    }
}

fn live(world: &World) -> BTreeMap<u64, usize> {
    let mut live = BTreeMap::new();
    for ((repository, _), count) in world.live() {
        *live.entry(repository).or_default() += count;
    }
    live
}

impl Backlog {
    fn play(&self) -> Result<(), String> {
        let mut world = World::new(settings(self.jobs.len()), self.seed);
        let mut random = Random(self.seed);
        for (repository, count) in self.jobs.iter().enumerate() {
            for _ in 0..*count {
                let lasts = self.lasts[random.below(self.lasts.len() as u64) as usize];
                world.queue(repository, &["nomadtools"], lasts);
            }
            world.advance(1);
        }
        let mut daemon = Loop::new(policy(self.cap, self.purge));
        let mut turns = Turns::default();
        let total: usize = self.jobs.iter().sum();
        for _ in 0..total * 12 {
            let before = live(&world);
            let (plan, _) = daemon.pass(&mut world, true);
            turns.check(before, &plan).map_err(|why| format!("{}s: {why}\n{plan}", world.now))?;
            // Its credentials, without asking GitHub.
            world.advance(1);
            daemon.pass(&mut world, false);
            world.advance(29);
            if world.jobs.values().all(|job| job.status == JobStatus::Completed) {
                return Ok(());
            }
        }
        Err("the backlog is never done".to_owned())
    }
}

/// A place goes to a repository with the fewest runners, and equals take turns. So a repository without
/// runners waits for at most twice as many places as there are others.
#[test]
fn a_repository_with_a_held_start_gets_one_of_the_next_places() {
    let result = runner(10).run(&backlog(), |backlog| {
        backlog.play().map_err(|why| TestCaseError::fail(format!("{why}\n{backlog:?}")))
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

/// One repository has a runner for an hour and a backlog; the other's jobs fit no node. These get the second
/// place only part of the time.
#[test]
fn a_label_that_fits_no_node_starves_nobody() {
    let mut world = World::new(settings(2), 1);
    world.queue(0, &["nomadtools"], 7200);
    let mut daemon = Loop::new(policy(2, 600));
    daemon.pass(&mut world, true);
    for _ in 0..6 {
        world.advance(5);
        daemon.pass(&mut world, true);
    }
    for _ in 0..40 {
        world.queue(1, &[NOWHERE], 30);
        world.queue(0, &["nomadtools"], 20);
    }
    while world.now < 3600 {
        daemon.pass(&mut world, true);
        world.advance(5);
        daemon.pass(&mut world, false);
        world.advance(25);
    }
    let done = world.jobs.values().filter(|job| job.status == JobStatus::Completed).count();
    assert!(done >= 35, "{done} of 40 jobs done in an hour\n{}", world.log.join("\n"));
}
