//! The loop: observe, plan, apply, and when it wakes and ends.
//!
//! GitHub and Nomad are the only state. What this keeps between passes makes it faster or more patient, never
//! wrong: killed at any await and restarted, it converges.

mod acts;
mod chores;
mod ended;
mod hints;
mod looks;
mod lost;
mod marks;
mod news;
mod observe;
mod pass;
mod said;
mod snapshot;
mod steps;
mod versions;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use acts::Acts;
use chores::{Chore, Chores};
use looks::Looked;
use marks::Marks;
use news::News;
use observe::GitHubSide;
pub use pass::{Pass, Witness};
use said::Said;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{
    apply::{Apply, ApplyMode},
    config::Config,
    github::{GitHub, Role},
    hints::{Hints, follow},
    labels::Interest,
    leadership::{Leader, Leadership},
    model::{Memory, Moment, is_ours_by_name},
    nomad::Nomad,
    plan::Policy,
    render::Renderer,
    schedule::Schedule,
    status::Status,
};

/// After a Start, Nomad is observed again this soon (an allocation exists within 30 ms, contract nomad.md §8), and then
/// at growing intervals while something waits for a place or for credentials. The last interval repeats.
const FOLLOW_UPS: [Duration; 6] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    WITH_WORK,
];

/// Events and looks often arrive in groups, so a pass starts this long after the first one.
const TOGETHER: Duration = Duration::from_millis(50);

/// The shortest time between two passes.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// The longest time between two passes while there are runners or jobs: many rules depend on time.
const WITH_WORK: Duration = Duration::from_secs(5);

/// How long `once` waits at most for the runners it started to get their credentials.
const SETTLE_DEADLINE: Duration = Duration::from_secs(30);

/// External signals that end or wake the loop.
#[derive(Clone, Debug)]
pub struct Signals {
    /// True: end now, even in the middle of a pass.
    pub shutdown: watch::Receiver<bool>,
    /// Reload the configuration and start a pass at once.
    pub hangup: Arc<Notify>,
}

/// Why the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// A shutdown was requested.
    Shutdown,
    /// The configuration is to be reloaded.
    Hangup,
}

/// The daemon.
pub struct Daemon {
    config: Config,
    policy: Policy,
    github: GitHub,
    nomad: Nomad,
    renderer: Arc<Renderer>,
    interest: Interest,
    mode: ApplyMode,
    epoch: Instant,
    leader: Option<Leader>,
    leadership: Leadership,
    memory: Memory,
    github_side: GitHubSide,
    chores: Chores,
    schedule: Schedule,
    looks: JoinSet<Looked>,
    acts: Acts,
    /// Carries out actions for the deployment that Nomad reported.
    apply: Option<Apply>,
    /// Each repository's runners in the last view of Nomad; `None` before the first one.
    marks: Option<Marks>,
    /// When fresh listings were last requested to make room.
    room_at: Option<Moment>,
    /// When due looks are next taken from the schedule.
    looks_due: Instant,
    /// Whether the forecast of the schedule was logged.
    forecast_said: bool,
    status: Status,
    hints: Hints,
    /// The unsuccessful jobs, by the runners that had them.
    lost: lost::LostJobs,
    said: Said,
    witness: Option<Witness>,
}

impl Daemon {
    /// A daemon that has not observed anything yet.
    pub fn new(
        config: Config,
        github: GitHub,
        nomad: Nomad,
        renderer: impl Into<Arc<Renderer>>,
        mode: ApplyMode,
    ) -> Self {
        let leader = (config.ha && !mode.is_dry_run()).then(|| Leader::new(nomad.clone(), holder()));
        let leadership = leader.as_ref().map_or_else(Leadership::always, Leader::leadership);
        let status = Status::new(config.loop_interval);
        let hints = Hints::new(status.clone());
        hints.configure(&config);
        snapshot::watch(&status, &github, &nomad);
        snapshot::configure(&status, &config);
        Daemon {
            leader,
            leadership,
            status,
            hints,
            policy: Policy::from(&config),
            interest: config.interest(),
            config,
            github,
            nomad,
            renderer: renderer.into(),
            mode,
            epoch: Instant::now(),
            memory: Memory::default(),
            github_side: GitHubSide::default(),
            chores: Chores::default(),
            schedule: Schedule::default(),
            looks: JoinSet::new(),
            acts: Acts::default(),
            apply: None,
            marks: None,
            room_at: None,
            looks_due: Instant::now(),
            forecast_said: false,
            lost: lost::LostJobs::default(),
            said: Said::default(),
            witness: None,
        }
    }

    /// Reports each pass to `witness`.
    pub fn witnessed_by(self, witness: Witness) -> Self {
        Daemon { witness: Some(witness), ..self }
    }

    /// The same daemon and memory with another configuration.
    pub async fn reconfigured(
        mut self,
        config: Config,
        github: GitHub,
        nomad: Nomad,
        renderer: impl Into<Arc<Renderer>>,
    ) -> Self {
        nomad.take_over(&self.nomad);
        github.take_over(&self.github);
        match (&mut self.leader, config.ha) {
            (Some(leader), true) => leader.use_nomad(nomad.clone()),
            (Some(leader), false) => leader.release().await,
            (None, _) => {}
        }
        let fresh = Daemon::new(config, github, nomad, renderer, self.mode);
        let (leader, leadership) = match self.leader {
            Some(leader) if fresh.config.ha => (Some(leader), self.leadership),
            _ => (fresh.leader, fresh.leadership),
        };
        self.hints.configure(&fresh.config);
        snapshot::watch(&self.status, &fresh.github, &fresh.nomad);
        snapshot::configure(&self.status, &fresh.config);
        Daemon {
            leader,
            leadership,
            epoch: self.epoch,
            status: self.status,
            hints: self.hints,
            memory: self.memory,
            github_side: self.github_side.reconfigured(),
            chores: self.chores.reconfigured(),
            marks: self.marks,
            lost: self.lost,
            said: self.said,
            witness: self.witness,
            ..fresh
        }
    }

    /// The sizes of everything it remembers, by name. None of them may grow without limit.
    pub fn sizes(&self) -> BTreeMap<&'static str, usize> {
        let mut sizes = self.github.sizes();
        sizes.extend(self.hints.sizes());
        sizes.extend(self.status.sizes());
        sizes.extend([
            ("surplus", self.memory.surplus.len()),
            ("presence", self.memory.presence.len()),
            ("last busy", self.memory.last_busy.len()),
            ("last start", self.memory.last_start.len()),
            ("start backoff", self.memory.start_backoff.len()),
            ("refused", self.memory.refused.len()),
            ("warm backoff", self.memory.warm_backoff.len()),
            ("left to warm runners", self.memory.left.len()),
            ("runner backoff", self.memory.runner_backoff.len()),
            ("issue backoff", self.memory.issue_backoff.len()),
            ("runners not lost", self.memory.not_lost.len()),
            ("orphans", self.memory.orphans.len()),
            ("repositories", self.github_side.len()),
            ("lost jobs", self.lost.len()),
            ("said", self.said.len()),
            ("scheduled", self.schedule.len()),
            ("looks under way", self.looks.len()),
            ("actions under way", self.acts.len()),
        ]);
        sizes
    }

    /// The status for the status server.
    pub fn status(&self) -> Status {
        self.status.clone()
    }

    /// The hints for the webhook server.
    pub fn hints(&self) -> Hints {
        self.hints.clone()
    }

    /// Makes passes until it is told to end. A failure of GitHub or Nomad never ends it.
    pub async fn run(&mut self, signals: &mut Signals) -> Ended {
        let hangup = signals.hangup.clone();
        let mut leader = self.leader.take();
        let (nomad, hint) = (self.nomad.clone(), Notify::new());
        let leadership = self.leadership.clone();
        let (github, config, hints) = (self.github.clone(), self.config.clone(), self.hints.clone());
        let sources = follow(&github, &config, &hints, || leadership.holds());
        let sources = std::pin::pin!(sources);
        let ended = tokio::select! {
            biased;
            _ = signals.shutdown.wait_for(|shutdown| *shutdown) => Ended::Shutdown,
            () = hangup.notified() => Ended::Hangup,
            never = stand(&mut leader) => never,
            never = hints::follow(&nomad, &hint) => never,
            never = sources => never,
            never = self.go_on(&hint) => never,
        };
        // Everything in progress is aborted, as in a crash. The next pass sees the effects.
        self.looks.abort_all();
        self.acts.cut();
        if let (Ended::Shutdown, Some(leader)) = (ended, &mut leader) {
            leader.release().await;
        }
        self.leader = leader;
        ended
    }

    /// Looks at repositories on schedule, and makes a pass whenever there is something to plan for: a look has found
    /// something, Nomad hints at a change, an action has ended, something waits for a place or for credentials, or it
    /// is time.
    async fn go_on(&mut self, hint: &Notify) -> Ended {
        let mut step = 0;
        let mut next = Instant::now();
        let mut earliest = next;
        let mut led = None;
        let role = |leads| if leads { Role::Leader } else { Role::Standby };
        self.github.set_role(role(self.leadership.holds()));
        loop {
            if self.leadership.term() != led {
                led = self.leadership.term();
                self.github.set_role(role(led.is_some()));
                self.schedule.begin_anew(self.now());
                self.looks_due = Instant::now();
                next = earliest;
            }
            self.begin_chores();
            self.look_around();
            if Instant::now() >= next {
                let pass = self.pass().await;
                let ended = Instant::now();
                step = if pass.starts() > 0 { 0 } else { step + 1 };
                earliest = ended + SHORTEST_PAUSE;
                next = earliest.max(ended + self.wait_after(&pass, step));
                continue;
            }
            // A dry run reports the same in each pass.
            let dry_run = self.mode.is_dry_run();
            let soon = move |next: &mut Instant| {
                if !dry_run {
                    *next = (*next).min(earliest.max(Instant::now() + TOGETHER));
                }
            };
            // Nothing is looked at before the first view of Nomad.
            let due = match self.marks {
                Some(_) => self.looks_due,
                None => next,
            };
            tokio::select! {
                biased;
                () = self.leadership.held(), if led.is_none() => {}
                () = sleep_until(next) => {}
                done = self.acts.next() => {
                    self.acts.over(done);
                    soon(&mut next);
                }
                () = hint.notified() => soon(&mut next),
                Some(Ok(looked)) = self.looks.join_next() => match self.looked(looked) {
                    News::Now => soon(&mut next),
                    News::Later if !dry_run => next = next.min(earliest + WITH_WORK),
                    News::Later | News::No => {}
                },
                chore = self.chores.next() => {
                    if self.chore_done(chore) {
                        soon(&mut next);
                    }
                }
                () = self.hints.due() => self.take_hints(),
                () = sleep_until(due) => {}
            }
        }
    }

    /// The longest time until the next pass. `step` counts the passes since the last start.
    fn wait_after(&self, pass: &Pass, step: usize) -> Duration {
        let longest = self.config.loop_interval;
        if self.mode.is_dry_run() {
            return longest;
        }
        let nomad = pass.observation.nomad.as_ref();
        let has_runners = nomad.is_none_or(|nomad| nomad.runners.iter().any(|runner| runner.is_live()));
        let wait = if pass.is_unsettled() {
            FOLLOW_UPS[FOLLOW_UPS.len().min(step + 1) - 1]
        } else if has_runners || self.github_side.has_demand() {
            WITH_WORK
        } else {
            longest
        };
        wait.min(longest)
    }

    /// Makes one pass, then observes only Nomad until the runners it started have their credentials. Returns
    /// the first pass, with the failures and reports of the later ones.
    pub async fn once(&mut self) -> Pass {
        let mut leader = self.leader.take();
        let pass = tokio::select! {
            biased;
            never = stand(&mut leader) => never,
            pass = self.once_as_leader() => pass,
        };
        if let Some(leader) = &mut leader {
            leader.release().await;
        }
        pass
    }

    async fn once_as_leader(&mut self) -> Pass {
        if tokio::time::timeout(SETTLE_DEADLINE, self.leadership.held()).await.is_err() {
            tracing::warn!("standing by: another replica holds the leader lock");
        }
        self.look_at_everything().await;
        let mut first = self.pass().await;
        self.github.end_pass().await;
        let deadline = Instant::now() + SETTLE_DEADLINE;
        let mut unsettled = !self.mode.is_dry_run() && (first.is_unsettled() || self.acts.len() > 0);
        for wait in FOLLOW_UPS.iter().chain(std::iter::repeat(&Duration::from_secs(2))) {
            if !unsettled || Instant::now() + *wait > deadline {
                break;
            }
            sleep_until(Instant::now() + *wait).await;
            let next = self.pass().await;
            unsettled = next.waits_for_secret() || self.acts.len() > 0;
            first.reports.extend(next.early.into_iter().chain(next.late).chain(next.reports));
            first.errors.extend(next.errors);
        }
        first
    }

    /// Starts a due chore.
    fn begin_chores(&mut self) {
        let (now, pass) = (self.now(), self.config.loop_interval);
        let scopes = || self.github_side.scopes(&self.policy.levels());
        self.chores.begin(&self.github, &self.config.repos, scopes, now, pass);
    }

    /// Records the result of a chore. Returns whether it needs a pass.
    fn chore_done(&mut self, chore: Chore) -> bool {
        let now = self.now();
        let (prefix, apply) = (&self.policy.prefix, &self.apply);
        let is_ours = |name: &str| {
            apply.as_ref().is_some_and(|apply| is_ours_by_name(prefix, apply.deployment(), name))
        };
        let found = self.chores.over(chore, is_ours, now);
        self.status.ends(self.chores.version_ends());
        found.is_some_and(|found| self.github_side.resolved(found))
    }

    fn now(&self) -> Moment {
        Moment::after_start(self.epoch.elapsed())
    }
}

/// Keeps trying to acquire and hold the lock, if there are replicas. Never ends.
async fn stand<T>(leader: &mut Option<Leader>) -> T {
    if let Some(leader) = leader {
        leader.stand().await;
    }
    std::future::pending().await
}

/// Identifies this process to people who look at the lock.
fn holder() -> String {
    let host = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty());
    let host = host.or_else(|| std::fs::read_to_string("/etc/hostname").ok());
    format!("{} pid {}", host.as_deref().map_or("unknown host", str::trim), std::process::id())
}
