//! The planner and its memory against the model world: every job is served, nothing is left over.

use std::collections::BTreeMap;

use githubrunner::{
    model::{Registration as Mode, *},
    plan::{Policy, learn, plan},
};
use proptest::{collection::vec, prelude::*, sample::select};

use crate::{
    cases::{PREFIX, repository, rules, runner, secs},
    model_world::{NOWHERE, Settings, World, at},
    specification::reports_of,
};

/// Seconds between two passes that list GitHub, and between those that only observe Nomad.
const LOOP: u64 = 30;
const STEP: u64 = 5;

const LABELS: [&[&str]; 4] = [&["nomadtools"], &["nomadtools a"], &["nomadtools", "gpu"], &[NOWHERE]];

/// The daemon's loop without its IO.
pub struct Loop {
    pub policy: Policy,
    pub memory: Memory,
    seen: BTreeMap<usize, (Vec<WorkflowJob>, bool)>,
}

impl Loop {
    pub fn new(policy: Policy) -> Self {
        Loop { policy, memory: Memory::default(), seen: BTreeMap::new() }
    }

    /// One pass. Returns whether something was started or is waiting, so that Nomad should be observed again
    /// soon.
    pub fn pass(&mut self, world: &mut World, everything: bool) -> (Plan, bool) {
        let unseen = |world: &mut World| {
            world.settings.unseen > 0 && {
                let chance = world.settings.unseen;
                world.random.percent(chance)
            }
        };
        let nomad = if unseen(world) { None } else { Some(world.nomad_view()) };
        let mut repositories = BTreeMap::new();
        for index in 0..world.settings.repositories {
            let repository = repository(index);
            let listing = if everything && !unseen(world) {
                let (jobs, complete) = world.list(index);
                self.seen.insert(index, (jobs.clone(), complete));
                Listing::Fresh { now: at(world.now), jobs, complete }
            } else if let Some((jobs, complete)) = self.seen.get(&index) {
                Listing::Stale { jobs: jobs.clone(), complete: *complete, reason: "503".to_owned() }
            } else {
                Listing::Unseen { reason: "503".to_owned() }
            };
            repositories.insert(
                repository.id,
                RepositoryView { repository, configured: true, listing, missing: None },
            );
        }
        let registrations = world.own_registrations();
        let observation = Observation {
            nomad,
            repositories,
            registrations,
            memory: self.memory.clone(),
            ..Observation::default()
        };
        let plan = plan(&observation, &self.policy, world.moment());
        let reports = reports_of(&plan, |action| world.perform(action));
        learn(&mut self.memory, &observation, &plan, &reports, world.moment());
        let waits = |runner: &Runner| matches!(runner.state, RunnerState::Pending | RunnerState::Waiting);
        let unsettled = plan.actions.iter().any(|action| matches!(action, Action::Start(_)))
            || observation.nomad.iter().flat_map(|nomad| &nomad.runners).any(waits);
        (plan, unsettled)
    }

    /// Killed and restarted: everything it remembered is gone.
    pub fn restart(&mut self) {
        self.memory = Memory::default();
        self.seen.clear();
    }
}

#[derive(Clone, Debug)]
struct Story {
    settings: Settings,
    /// Repository, labels, when, how long.
    arrivals: Vec<(usize, usize, u64, u64)>,
    caps: (Option<usize>, Option<usize>, Option<usize>),
    /// Idle runners are stopped after this; `None`: at once.
    idle: Option<u64>,
    purge: u64,
    /// The chance, in percent, that the daemon restarts at a pass.
    restarts: u64,
    seed: u64,
}

fn story(faulty: bool) -> impl Strategy<Value = Story> {
    let mode = select(vec![Mode::Jit, Mode::Jit, Mode::Token, Mode::AccessToken]);
    let label = prop_oneof![5 => Just(0_usize), 2 => Just(1), 2 => Just(2), 1 => Just(3)];
    let arrival = (0..3_usize, label, 0..900_u64, select(vec![1_u64, 20, 90, 300]));
    let cap = || proptest::option::weighted(0.5, 1..4_usize);
    let unreachable = prop_oneof![Just(0_u64), 1..40_u64];
    let chances = if faulty {
        (0..30_u64, 0..25_u64, 0..20_u64, 0..25_u64, 0..25_u64, 0..20_u64, 0..4_u64, unreachable).boxed()
    } else {
        Just((0, 0, 0, 0, 0, 0, 0, 0)).boxed()
    };
    (
        (1..4_usize, 1..5_usize, select(vec![0_u64, 10, 60]), select(vec![0_u64, 10, 40]), mode),
        chances,
        vec(arrival, 1..12),
        (cap(), cap(), cap()),
        proptest::option::of(select(vec![0_u64, 60, 300])),
        select(vec![0_u64, 60, 400]),
        any::<u64>(),
    )
        .prop_map(|(world, chances, mut arrivals, caps, idle, purge, seed)| {
            let (repositories, capacity, pull, kill, mode) = world;
            let (crashes, failures, lost_answers, unseen, incomplete, restarts, forgets, unreachable) =
                chances;
            // Absence is measured from this daemon's first verification, so one that never lives for ten minutes cannot
            // know that a runner is not coming.
            let restarts = if unreachable > 0 { 0 } else { restarts };
            arrivals.iter_mut().for_each(|arrival| arrival.0 %= repositories);
            arrivals.sort_by_key(|arrival| arrival.2);
            let settings = Settings {
                repositories,
                capacity,
                pull,
                kill,
                mode,
                crashes,
                failures,
                lost_answers,
                unseen,
                incomplete,
                forgets,
                unreachable,
            };
            Story { settings, arrivals, caps, idle, purge, restarts, seed }
        })
}

/// Cancels what fits nowhere, and ends the faults.
fn end_of_trouble(world: &mut World) {
    world.say("all is served; what fits nowhere is cancelled, and faults are over");
    let now = world.now;
    for job in world.jobs.values_mut().filter(|job| job.status != JobStatus::Completed) {
        job.status = JobStatus::Completed;
        job.ends = now;
    }
    let Settings { crashes, failures, lost_answers, unseen, incomplete, forgets, unreachable, .. } =
        &mut world.settings;
    for chance in [crashes, failures, lost_answers, unseen, incomplete, forgets, unreachable] {
        *chance = 0;
    }
}

impl Story {
    fn policy(&self) -> Policy {
        let (all, repository, group) = self.caps;
        Policy {
            prefix: PREFIX.to_owned(),
            labels: rules(),
            max_runners: all,
            max_runners_per_repository: repository,
            max_runners_per_group: group,
            runner_inactivity_timeout: self.idle.map(secs),
            strict: self.idle.is_none(),
            purge_successfull_timeout: Some(secs(self.purge)),
            purge_failure_timeout: Some(secs(2 * self.purge)),
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

    /// The time by which everything that fits has run, even one after the other: its run time, an image pull,
    /// the wait for a place that an idle or unplaced runner must first leave, and two passes to see each
    /// step.
    fn deadline(&self) -> u64 {
        let Settings { failures, crashes, forgets, unreachable, .. } = &self.settings;
        let slow = if self.restarts + failures + crashes + forgets + unreachable > 0 { 2400 } else { 0 };
        let each = |lasts: u64| lasts + self.settings.pull + self.settings.kill + 90 + 6 * LOOP;
        900 + self.arrivals.iter().map(|arrival| each(arrival.3) + slow).sum::<u64>() + 1200
    }

    fn play(&self) -> Result<(), Box<(World, String)>> {
        let mut world = World::new(self.settings.clone(), self.seed);
        let mut daemon = Loop::new(self.policy());
        let mut arrivals = self.arrivals.iter().peekable();
        let (mut next_full, mut unsettled) = (0, false);
        let mut served_at = None;
        loop {
            while let Some((repository, labels, _, lasts)) = arrivals.next_if(|a| a.2 <= world.now) {
                world.queue(*repository, LABELS[*labels], *lasts);
            }
            if world.random.percent(self.restarts) {
                world.say("the daemon restarts");
                daemon.restart();
            }
            if world.now >= next_full || unsettled {
                let everything = world.now >= next_full;
                unsettled = daemon.pass(&mut world, everything).1;
                if everything {
                    next_full = world.now + LOOP;
                }
            }
            world.advance(STEP);
            if let Err(why) = self.check(&world) {
                return Err(Box::new((world, why)));
            }
            let waits = |job: &crate::model_world::Job| {
                job.status != JobStatus::Completed && job.labels[0] != NOWHERE
            };
            if arrivals.peek().is_none() && !world.jobs.values().any(waits) && served_at.is_none() {
                end_of_trouble(&mut world);
                served_at = Some(world.now);
            }
            match served_at {
                None if world.now > self.deadline() => {
                    return Err(Box::new((world, "not everything is served in time".to_owned())));
                }
                // The longest wait after failures, then ten minutes until an orphan is removed.
                Some(served) if world.now > served + 600 + 700 + 3 * self.purge + self.idle.unwrap_or(0) => {
                    let left = world.left_over();
                    return if left.is_empty() {
                        Ok(())
                    } else {
                        Err(Box::new((world, format!("left over: {left:#?}"))))
                    };
                }
                _ => {}
            }
        }
    }

    /// What holds at every moment, according to the world's true state.
    fn check(&self, world: &World) -> Result<(), String> {
        if let Some(wrong) = world.wrong.first() {
            return Err(wrong.clone());
        }
        let live = world.live();
        let (all, repository, group) = self.caps;
        let over = |cap: Option<usize>, live: usize| cap.is_some_and(|cap| live > cap);
        let mut repositories: BTreeMap<u64, usize> = BTreeMap::new();
        for ((id, _), count) in &live {
            *repositories.entry(*id).or_default() += count;
        }
        if over(all, live.values().sum())
            || repositories.values().any(|count| over(repository, *count))
            || live.values().any(|count| over(group, *count))
        {
            return Err(format!("over a cap: {live:?}"));
        }
        if let Some((job_id, count)) = world.attempts().iter().find(|(_, count)| **count > 2) {
            return Err(format!("job {job_id} has {count} live attempts"));
        }
        match world.at_hand().iter().find(|(_, runners)| runners.len() > 1) {
            Some((job_id, runners)) => Err(format!("job {job_id} has two available runners: {runners:?}")),
            None => Ok(()),
        }
    }
}

fn all_converge(cases: u32, faulty: bool) {
    let result = runner(cases).run(&story(faulty), |story| match story.play() {
        Ok(()) => Ok(()),
        Err(failed) => {
            let (world, why) = *failed;
            Err(TestCaseError::fail(format!("{why}\n{}\n{story:#?}", world.log.join("\n"))))
        }
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn without_faults_everything_is_served_within_the_caps_and_nothing_is_left_over() {
    all_converge(250, false);
}

#[test]
fn with_crashes_restarts_and_lost_responses_too() {
    all_converge(250, true);
}
