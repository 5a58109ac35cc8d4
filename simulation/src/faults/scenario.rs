//! What a seed determines: the world, its jobs, and what fails.

use std::{collections::BTreeSet, time::Duration};

use githubrunner_sim::{
    fault::Side,
    github::{self, Conclusion, JobSpec, Status},
    nomad::{self, Delays, Node, Processes},
    world,
};
use jiff::{SignedDuration, Timestamp};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{mishap::Mishap, settings::settings};
use crate::{
    deployment::{ELSEWHERE, NAMESPACE},
    faults::{
        draw::seconds,
        kind::FaultKind,
        labels::{LABELS, UNPLACEABLE},
        nemesis::{Cut, DeathWhen},
        races::{Race, Turn},
        settings::{Entries, Settings, Warm},
        trouble::{Episode, Trouble},
    },
};

/// When a daemon dies.
#[derive(Clone, Copy, Debug)]
pub enum DeathAt {
    /// After this many wake-ups.
    Poll(usize),
    /// At the write after this many others.
    Write {
        /// This many are survived.
        after: usize,
        /// The last one takes effect.
        when: DeathWhen,
    },
}

/// An event at a certain time.
#[derive(Clone, Debug)]
pub enum Happening {
    /// A workflow run is queued in a repository, by its position.
    Run(usize, Vec<JobSpec>),
    /// A run is queued in the repository that the daemon does not watch.
    Elsewhere(Vec<JobSpec>),
    /// A mishap.
    Mishap(Mishap),
    /// The daemon dies some time after this; what it had on the wire is lost or arrives; the next one starts
    /// later.
    Death {
        /// When exactly.
        at: DeathAt,
        /// The connections are cut with it.
        cut: bool,
        /// How long until the next one starts.
        down: Duration,
    },
    /// SIGHUP.
    Hangup,
    /// SIGHUP with a configuration without warm runners.
    Cool,
    /// SIGHUP with a configuration that no longer names this repository, by its position; `None`: it names all
    /// again.
    LeaveOut(Option<usize>),
    /// An event for one of two daemons.
    Replica {
        /// Whether it is the standby.
        standby: bool,
        what: ReplicaMishap,
    },
}

/// What happens to one of two daemons, besides death.
#[derive(Clone, Copy, Debug)]
pub enum ReplicaMishap {
    /// It is told to exit, and starts again later.
    Exit {
        /// This much later.
        down: Duration,
    },
    /// It is suspended and resumed later; its connections stay open.
    Pause {
        /// This much later.
        for_so_long: Duration,
        /// At the write after this many others, which takes effect this much later; `None`: at once.
        at: Option<(usize, Duration)>,
    },
    /// It cannot reach Nomad for a while.
    Cut { how: Cut, for_so_long: Duration },
}

/// The whole run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The seed it comes from.
    pub seed: u64,
    /// What goes wrong.
    pub faults: Vec<FaultKind>,
    /// True time at the start.
    pub base: Timestamp,
    /// `owner/name` of each repository.
    pub repositories: Vec<String>,
    /// GitHub's behaviour.
    pub github: github::Options,
    /// Nomad's behaviour.
    pub nomad: nomad::Options,
    /// The processes' behaviour.
    pub world: world::Options,
    /// The maximum duration of an exchange.
    pub latency: Duration,
    /// When exchanges fail.
    pub episodes: Vec<Episode>,
    /// What happens between observations and actions.
    pub races: Vec<Race>,
    /// What happens, in order.
    pub happenings: Vec<(Duration, Happening)>,
    /// When all trouble is over.
    pub over: Duration,
    /// The daemon's configuration.
    pub settings: Settings,
    /// There are two daemons, one of them the leader.
    pub replicas: bool,
}

/// The number of queued runs in a flooded repository.
const FLOOD: usize = 200;

impl Scenario {
    /// The scenario of a seed. A quarter of the seeds have no faults, a quarter one fault each in turn, a quarter a
    /// few, a quarter many.
    pub fn of(seed: u64) -> Scenario {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x0073_6365_6e61);
        let all = FaultKind::all();
        let faults: Vec<FaultKind> = match seed % 4 {
            0 => Vec::new(),
            1 => vec![all[(seed / 4) as usize % all.len()]],
            2 => (0..rng.random_range(2..=4)).map(|_| all[rng.random_range(0..all.len())]).collect(),
            _ => all.iter().copied().filter(|_| rng.random_bool(0.35)).collect(),
        };
        // Two daemons are expensive, so they are rare unless a fault requires them.
        let replicas = rng.random_bool(0.1);
        let fits = |fault: &FaultKind| replicas || seed % 4 == 1 || !fault.is_of_replicas();
        let mut faults: Vec<FaultKind> = faults.into_iter().filter(fits).collect();
        // If nothing else is wrong, the time until the other one leads is measured.
        if replicas && seed.is_multiple_of(4) {
            let ones: Vec<FaultKind> = all.into_iter().filter(|fault| fault.is_of_replicas()).collect();
            faults.push(ones[rng.random_range(0..ones.len())]);
        }
        let mut scenario = Scenario::with(seed, faults);
        scenario.replicas |= replicas;
        scenario
    }

    /// The scenario of a seed with these faults.
    pub fn with(seed: u64, mut faults: Vec<FaultKind>) -> Scenario {
        if faults.contains(&FaultKind::Meanwhile) {
            faults.extend(Turn::of(seed).needs());
        }
        let mut rng = StdRng::seed_from_u64(seed ^ 0x776f_6573);
        let base = Timestamp::from_second(1_780_000_000).unwrap_or(Timestamp::UNIX_EPOCH);
        let repositories = ["acme/app", "acme/lib", "zoe/site"];
        let repositories: Vec<String> =
            repositories[..rng.random_range(1..=3)].iter().map(|name| (*name).to_string()).collect();
        let mut settings = settings(&mut rng);
        // An owner's other repositories would be ours too.
        let one_by_one = [FaultKind::Configuration, FaultKind::Repositories, FaultKind::Namesakes];
        if !settings.access.organization && !faults.iter().any(|fault| one_by_one.contains(fault)) {
            settings.access.entries = [Entries::Each, Entries::Owners, Entries::All][seed as usize % 3];
        }
        // Independent of the other random values.
        settings.webhooks = (seed / 3).is_multiple_of(3);
        let mut nomad = cluster(&mut rng, seed);
        nomad.event_buffer = if settings.hints { 50 } else { 0 };
        let mut over = Duration::from_secs(rng.random_range(120..=420));
        // Runners that make no progress are given five minutes, or twenty.
        if faults.iter().any(|fault| fault.is_of_the_stuck()) {
            over += Duration::from_secs(rng.random_range(600..=2700));
        }
        let mut scenario = Scenario {
            seed,
            base,
            github: github::Options {
                seed,
                lean: true,
                runner_version: Some("2.334.0".to_owned()),
                runner_versions: [("2.334.0".to_owned(), Some(base))].into(),
                requeues: rng.random_bool(0.5),
                // An hour is longer than most runs.
                token_life: Duration::from_secs(rng.random_range(120..=3600)),
                ..github::Options::default()
            },
            nomad,
            world: world::Options { seed, ..world::Options::default() },
            latency: Duration::from_millis([0, 0, 50, 400][rng.random_range(0..4)]),
            episodes: Vec::new(),
            races: Vec::new(),
            happenings: Vec::new(),
            over,
            repositories,
            settings,
            replicas: faults.iter().any(|fault| fault.is_of_replicas()),
            faults,
        };
        scenario.arrive(&mut rng);
        for fault in BTreeSet::from_iter(scenario.faults.clone()) {
            scenario.add(fault, &mut rng);
        }
        let nomads_clock = base.checked_add(scenario.world.nomad_skew).unwrap_or(base);
        scenario.settings.warm = Warm::of(seed, &scenario.settings, &scenario.repositories, nomads_clock);
        if !scenario.settings.warm.is_empty() {
            scenario.happenings.push((scenario.over, Happening::Cool));
        }
        scenario.happenings.sort_by_key(|(at, _)| *at);
        scenario
    }

    /// Whether nothing fails.
    pub fn is_calm(&self) -> bool {
        self.faults.is_empty()
    }

    /// Whether it has a fault.
    pub fn has(&self, fault: FaultKind) -> bool {
        self.faults.contains(&fault)
    }

    fn arrive(&mut self, rng: &mut StdRng) {
        for _ in 0..rng.random_range(2..=6) {
            let at = Duration::from_millis(rng.random_range(0..=self.over.as_millis() as u64 * 2 / 3));
            let repository = rng.random_range(0..self.repositories.len());
            let mut jobs: Vec<JobSpec> =
                (0..rng.random_range(1..=3)).map(|index| self.job(index, rng)).collect();
            // A matrix: many jobs of one kind.
            if rng.random_bool(0.04) {
                let one = self.job(0, rng);
                jobs = (0..rng.random_range(4..=6))
                    .map(|_| JobSpec { labels: one.labels.clone(), ..self.job(0, rng) })
                    .collect();
            }
            self.happenings.push((at, Happening::Run(repository, jobs)));
        }
        if self.settings.access.organization {
            for at in self.times(rng) {
                let jobs = vec![self.job(0, rng)];
                self.happenings.push((at, Happening::Elsewhere(jobs)));
            }
        }
    }

    fn job(&self, index: usize, rng: &mut StdRng) -> JobSpec {
        // Most jobs are ours, some are not, and few have labels that break the rules.
        let labels = match rng.random_range(0..20) {
            0 => LABELS[6],
            1 => LABELS[5],
            _ => LABELS[rng.random_range(0..5)],
        };
        let mut job = JobSpec::new(labels, seconds(rng, 3, 240));
        if index > 0 && rng.random_bool(0.3) {
            job.needs = vec![index - 1];
        }
        if rng.random_bool(0.1) {
            job.conclusion = Conclusion::Failure;
        }
        if rng.random_bool(0.2) {
            job.delay = seconds(rng, 1, 60);
        }
        if self.has(FaultKind::HeldJobs) && rng.random_bool(0.5) {
            job.held = Some([Status::Waiting, Status::Pending, Status::Requested][rng.random_range(0..3)]);
            // A deployment that requires approval waits much longer than other jobs.
            let longest = if rng.random_bool(0.2) { (600, 1500) } else { (5, 300) };
            job.held_for = Some(seconds(rng, longest.0, longest.1));
        }
        if self.has(FaultKind::Unplaceable) && rng.random_bool(0.3) {
            job.labels = UNPLACEABLE.map(String::from).to_vec();
        }
        if self.has(FaultKind::Ghosts) && rng.random_bool(0.3) {
            job.ghost = true;
        }
        job
    }

    /// Times within the trouble, usually about two.
    fn times(&self, rng: &mut StdRng) -> Vec<Duration> {
        let over = self.over.as_millis() as u64;
        (0..rng.random_range(1..=3)).map(|_| Duration::from_millis(rng.random_range(0..over))).collect()
    }

    fn mishap(&mut self, at: Duration, mishap: Mishap) {
        self.happenings.push((at, Happening::Mishap(mishap)));
    }

    fn add(&mut self, fault: FaultKind, rng: &mut StdRng) {
        let pick = rng.random_range(0..64usize);
        match fault {
            FaultKind::Exchange(trouble) => self.trouble(trouble, rng),
            FaultKind::Namespaces => {
                (self.settings.classes.on, self.settings.classes.elsewhere) = (true, true);
                self.trouble(Trouble::Namespace, rng);
            }
            FaultKind::Flood => {
                let at = self.times(rng)[0];
                let repository = self.repositories.len() - 1;
                // None of them is ours, and each has to be read.
                let job = JobSpec { ghost: true, ..JobSpec::new(LABELS[5], Duration::from_secs(10)) };
                let run = || (at, Happening::Run(repository, vec![job.clone()]));
                self.happenings.extend((0..FLOOD).map(|_| run()));
            }
            FaultKind::RefusedRunners | FaultKind::UnassignedJobs | FaultKind::SlowStarts => {
                self.stick(fault, pick, rng)
            }
            FaultKind::Ghosts | FaultKind::HeldJobs | FaultKind::Unplaceable => {}
            FaultKind::Clocks => {
                let mut hours = || SignedDuration::from_secs(rng.random_range(-8 * 3600..8 * 3600));
                self.world.github_skew = hours();
                self.world.nomad_skew = hours();
                // An App signs with its own clock, which is corrected by minutes at most.
                if self.settings.access.app {
                    let minutes = self.world.github_skew.as_secs() / 60;
                    self.world.github_skew = SignedDuration::from_secs(minutes);
                }
            }
            FaultKind::NodeClocks => {
                for node in &mut self.nomad.nodes {
                    node.clock_ahead = SignedDuration::from_secs(rng.random_range(-8 * 3600..8 * 3600));
                }
            }
            FaultKind::SlowStops => self.world.stop = (Duration::from_secs(1), Duration::from_secs(40)),
            FaultKind::RunLag => self.github.run_lag = seconds(rng, 1, 60),
            FaultKind::Hangs => self.world.hangs = rng.random_range(0.1..0.6),
            _ => {
                // Busy servers replace lost allocations only when the evaluation's turn comes.
                if fault == FaultKind::OldServers && rng.random_bool(0.5) {
                    self.nomad.delays.placement = seconds(rng, 1, 15);
                }
                for at in self.times(rng) {
                    self.happens(fault, at, pick, rng);
                }
            }
        }
    }

    fn happens(&mut self, fault: FaultKind, at: Duration, pick: usize, rng: &mut StdRng) {
        let is_done = self.happens_to_nodes(fault, at, pick, rng)
            || self.happens_to_jobs(fault, at, pick, rng)
            || self.happens_to_github(fault, at, pick, rng);
        if !is_done {
            self.happens_to_daemon(fault, at, pick, rng);
        }
    }

    /// Events for nodes and servers; false if the fault is not one of these.
    fn happens_to_nodes(&mut self, fault: FaultKind, at: Duration, pick: usize, rng: &mut StdRng) -> bool {
        let later = |rng: &mut StdRng| at + seconds(rng, 5, 400);
        match fault {
            FaultKind::NodesCrash => {
                self.mishap(at, Mishap::NodeCrash { pick });
                self.mishap(later(rng), Mishap::NodesBack);
            }
            FaultKind::NodesCut | FaultKind::OldServers | FaultKind::LostAfter => {
                self.mishap(at, Mishap::NodeCut { pick });
                self.mishap(later(rng), Mishap::NodesBack);
            }
            FaultKind::Drains => {
                self.mishap(at, Mishap::Drain { pick, deadline: seconds(rng, 1, 300) });
                self.mishap(later(rng), Mishap::NodesBack);
            }
            FaultKind::RestartsEmpty => {
                let processes = if rng.random_bool(0.3) { Processes::Continue } else { Processes::End };
                self.mishap(at, Mishap::RestartEmpty { processes });
            }
            FaultKind::SlowImages => {
                self.mishap(at, Mishap::SlowImages(Duration::from_secs(rng.random_range(60..=600))));
            }
            FaultKind::StartFailures => {
                self.mishap(at, Mishap::StartFailure);
                self.mishap(later(rng), Mishap::StartWorks);
            }
            FaultKind::Leaderless => {
                self.mishap(at, Mishap::LeaderLost);
                self.mishap(later(rng), Mishap::LeaderBack);
            }
            _ => return false,
        }
        true
    }

    /// Events for Nomad jobs; false likewise.
    fn happens_to_jobs(&mut self, fault: FaultKind, at: Duration, pick: usize, rng: &mut StdRng) -> bool {
        let later = |rng: &mut StdRng| at + seconds(rng, 5, 400);
        match fault {
            FaultKind::Purges => self.mishap(
                at,
                match rng.random_range(0..3) {
                    0 => Mishap::Collect,
                    1 => Mishap::Purge { pick },
                    _ => Mishap::Stop { pick },
                },
            ),
            FaultKind::Allocations => self.mishap(
                at,
                match rng.random_range(0..4) {
                    0 => Mishap::RestartAllocation { pick },
                    _ => Mishap::StopAllocation { pick },
                },
            ),
            FaultKind::Variables => self.mishap(at, Mishap::DeleteVariable { pick }),
            FaultKind::Crashes => self.mishap(
                at,
                match rng.random_range(0..2) {
                    0 => Mishap::OutOfMemory { pick },
                    _ => Mishap::Crash { pick, code: rng.random_range(0..3) },
                },
            ),
            FaultKind::LargeJobs => {
                self.mishap(at, Mishap::LargeJobs);
                if rng.random_bool(0.3) {
                    self.mishap(at, Mishap::LongStartFailure);
                    self.mishap(later(rng), Mishap::StartWorks);
                }
            }
            FaultKind::HostileMeta => self.mishap(at, Mishap::HostileMeta { pick }),
            _ => return false,
        }
        true
    }

    /// Events for repositories, runs, registrations and the token; false likewise.
    fn happens_to_github(&mut self, fault: FaultKind, at: Duration, pick: usize, rng: &mut StdRng) -> bool {
        let later = |rng: &mut StdRng| at + seconds(rng, 5, 400);
        match fault {
            FaultKind::Registrations => self.mishap(at, Mishap::DeleteRegistration { pick }),
            FaultKind::Repositories => match rng.random_range(0..5) {
                0 => self.mishap(at, Mishap::Rename { pick }),
                1 => {
                    self.mishap(at, Mishap::Archive { pick, yes: true });
                    if rng.random_bool(0.5) {
                        self.mishap(later(rng), Mishap::Archive { pick, yes: false });
                    }
                }
                2 => {
                    self.mishap(at, Mishap::Disable { pick, yes: true });
                    if rng.random_bool(0.5) {
                        self.mishap(later(rng), Mishap::Disable { pick, yes: false });
                    }
                }
                3 => {
                    self.mishap(at, Mishap::Hide { pick, yes: true });
                    self.mishap(later(rng), Mishap::Hide { pick, yes: false });
                }
                _ => self.mishap(at, Mishap::DeleteRepository { pick }),
            },
            FaultKind::Namesakes => {
                let mut jobs: Vec<JobSpec> = (0..2).map(|index| self.job(index, rng)).collect();
                // Jobs there are for others, or for us once the configuration includes them.
                if rng.random_bool(0.5) {
                    jobs.iter_mut()
                        .for_each(|job| job.labels = LABELS[5].iter().map(|l| (*l).into()).collect());
                }
                self.mishap(at, Mishap::Namesake { pick, jobs });
                self.mishap(later(rng), Mishap::NameBack { pick });
            }
            FaultKind::Runs => self.mishap(
                at,
                match rng.random_range(0..2) {
                    0 => Mishap::Rerun { pick },
                    _ => Mishap::Cancel { pick },
                },
            ),
            FaultKind::Foreigners => {
                let labels = ["sim", "linux", "big"].map(String::from).to_vec();
                self.mishap(at, Mishap::ForeignRunner { pick, labels });
                self.mishap(later(rng), Mishap::PlantedJob { pick });
            }
            FaultKind::Token => {
                self.mishap(at, Mishap::TokenRefused { yes: true });
                self.mishap(later(rng), Mishap::TokenRefused { yes: false });
            }
            _ => return false,
        }
        true
    }

    /// Events for the daemons.
    fn happens_to_daemon(&mut self, fault: FaultKind, at: Duration, pick: usize, rng: &mut StdRng) {
        let later = |rng: &mut StdRng| at + seconds(rng, 5, 400);
        match fault {
            FaultKind::Meanwhile => {
                let from = self.base.checked_add(at).unwrap_or(self.base);
                let turn = Turn::of(self.seed);
                self.races.push(Race { turn, from, chance: rng.random_range(0.2..1.0) });
            }
            FaultKind::Deaths | FaultKind::LeaderDies => {
                let death = match rng.random_range(0..3) {
                    0 => DeathAt::Poll(rng.random_range(0..400)),
                    _ => {
                        let after = rng.random_range(0..6);
                        let effect = rng.random_bool(0.5);
                        let when = if effect { DeathWhen::AfterEffect } else { DeathWhen::BeforeEffect };
                        DeathAt::Write { after, when }
                    }
                };
                let (cut, down) = (rng.random_bool(0.5), seconds(rng, 1, 90));
                self.happenings.push((at, Happening::Death { at: death, cut, down }));
            }
            FaultKind::Hangups => self.happenings.push((at, Happening::Hangup)),
            FaultKind::Configuration if self.repositories.len() > 1 => {
                let which = pick % self.repositories.len();
                self.happenings.push((at, Happening::LeaveOut(Some(which))));
                self.happenings.push((later(rng), Happening::LeaveOut(None)));
            }
            FaultKind::LeaderExits | FaultKind::LeaderPauses | FaultKind::LeaderCut => {
                let what = replica_mishap(fault, rng);
                if let ReplicaMishap::Pause { for_so_long, at: None } = what
                    && rng.random_bool(0.5)
                {
                    // It learns of the signal when it is resumed.
                    let exit = ReplicaMishap::Exit { down: seconds(rng, 1, 90) };
                    let meanwhile = at + for_so_long.mul_f64(rng.random());
                    self.happenings.push((meanwhile, Happening::Replica { standby: false, what: exit }));
                }
                self.happenings.push((at, Happening::Replica { standby: rng.random_bool(0.2), what }));
            }
            _ => {}
        }
    }

    /// One repository's runners make no progress for a while or until the end, and others have jobs in the
    /// meantime.
    fn stick(&mut self, fault: FaultKind, pick: usize, rng: &mut StdRng) {
        let repository = pick % self.repositories.len();
        let of_over = |share: f64| self.over.mul_f64(share);
        let (from, until) =
            (of_over(rng.random_range(0.0..0.3)), of_over(rng.random_range(0.5..1.3)).min(self.over));
        match fault {
            FaultKind::RefusedRunners => {
                self.mishap(from, Mishap::RefuseRunners { pick: repository, yes: true });
                self.mishap(until, Mishap::RefuseRunners { pick: repository, yes: false });
            }
            FaultKind::SlowStarts => {
                let delay = seconds(rng, 120, 3600);
                self.mishap(from, Mishap::SlowImagesOf { pick: repository, delay });
                let delay = self.nomad.delays.start;
                self.mishap(until, Mishap::SlowImagesOf { pick: repository, delay });
            }
            _ => {
                for (at, happening) in &mut self.happenings {
                    if let Happening::Run(of, jobs) = happening
                        && *of == repository
                        && *at >= from
                    {
                        jobs.iter_mut().for_each(|job| job.ghost = true);
                    }
                }
            }
        }
        for _ in 0..rng.random_range(2..=6) {
            let at = from + (self.over - from).mul_f64(rng.random_range(0.0..0.8));
            let of = rng.random_range(0..self.repositories.len());
            let ghost = fault == FaultKind::UnassignedJobs && of == repository;
            let job = self.job(0, rng);
            let jobs = vec![JobSpec { ghost: job.ghost || ghost, ..job }];
            self.happenings.push((at, Happening::Run(of, jobs)));
        }
    }

    /// One to three episodes, rare over a long time or dense over a short one.
    fn trouble(&mut self, trouble: Trouble, rng: &mut StdRng) {
        for _ in 0..rng.random_range(1..=3) {
            let side = trouble.side().unwrap_or(match rng.random_bool(0.5) {
                true => Side::GitHub,
                false => Side::Nomad,
            });
            let over = self.over.as_millis() as u64;
            let (from, length, chance) = match rng.random_range(0..3) {
                0 => (0, over, rng.random_range(0.02..0.15)),
                1 => {
                    (rng.random_range(0..over), rng.random_range(1_000..240_000), rng.random_range(0.2..0.9))
                }
                _ => (rng.random_range(0..over), rng.random_range(1_000..120_000), 1.0),
            };
            // Faults that cost a client its whole deadline each time are rarer.
            let stalls = matches!(trouble, Trouble::Stall | Trouble::LateStall);
            let chance = if stalls { f64::min(chance, 0.4) } else { chance };
            let (from, length) = (Duration::from_millis(from), Duration::from_millis(length));
            let until = (from + length).min(self.over);
            self.episodes.push(Episode {
                trouble,
                side,
                from: self.base.checked_add(from).unwrap_or(self.base),
                until: self.base.checked_add(until).unwrap_or(self.base),
                chance,
            });
        }
    }
}

fn replica_mishap(fault: FaultKind, rng: &mut StdRng) -> ReplicaMishap {
    match fault {
        FaultKind::LeaderExits => ReplicaMishap::Exit { down: seconds(rng, 1, 90) },
        FaultKind::LeaderPauses => {
            let for_so_long = seconds(rng, 5, 120);
            let at = rng.random_bool(0.6).then(|| (rng.random_range(0..8), seconds(rng, 1, 40)));
            ReplicaMishap::Pause { for_so_long, at }
        }
        _ => {
            let how = if rng.random_bool(0.5) { Cut::Refused } else { Cut::Silent };
            ReplicaMishap::Cut { how, for_so_long: seconds(rng, 5, 90) }
        }
    }
}

/// One to three nodes, with room for one to a few runners each.
fn cluster(rng: &mut StdRng, seed: u64) -> nomad::Options {
    let nodes = (1..=rng.random_range(1..=3))
        .map(|number| {
            let runners = rng.random_range(1..=3u64);
            Node { memory_mb: 2_100 + runners * 500, cpu: 4_000, ..Node::named(&format!("node-{number}")) }
        })
        .collect();
    let delays = Delays { start: seconds(rng, 1, 20) / 10, ..Delays::default() };
    nomad::Options {
        seed,
        nodes,
        delays,
        namespaces: vec![NAMESPACE.into(), ELSEWHERE.into()],
        lean: true,
        ..nomad::Options::default()
    }
}
