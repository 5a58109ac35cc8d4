//! The loop: observe, plan, apply; what wakes it, what ends it.
//!
//! GitHub and Nomad are the only state. What this keeps between passes makes it faster or more patient,
//! never wrong: killed at any await and started again, it converges.

mod hints;
mod memory;
mod observe;
mod snapshot;
mod versions;

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{
    apply::{Apply, Report},
    config::Config,
    github::{GitHub, Resolution},
    hints::{Hints, follow},
    leadership::{Leader, Leadership},
    model::{
        Action, Hold, HoldReason, Memory, Moment, NomadView, Observation, Ownership, Plan, RunnerState,
        is_ours_by_name, summary,
    },
    nomad::Nomad,
    plan::{Policy, plan},
    render::Renderer,
    status::Status,
};
pub use memory::{LISTINGS_APART, learn};
use observe::GitHubSide;

/// After a Start, Nomad alone is looked at again so soon (an allocation is there within 30 ms, contract
/// nomad.md §8), and ever later while something waits for a place or a secret. The last one repeats.
const FOLLOW_UPS: [Duration; 7] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(15),
];

/// Events come several at a time: so long after the first one is looked.
const HINTS_TOGETHER: Duration = Duration::from_millis(200);

/// Passes that ask GitHub are never closer together, whatever wakes them.
const SHORTEST_LOOP: Duration = Duration::from_secs(1);

/// The longest time a pass asks GitHub. What was answered by then counts; the next pass asks for the rest.
const GITHUB_AT_MOST: Duration = Duration::from_secs(20);

/// The longest wait for the entries of `repos`, which leaves time to list the repositories that are known.
const RESOLUTION_AT_MOST: Duration = Duration::from_secs(10);

/// While GitHub is asked, Nomad alone is looked at so often: who waits for a secret does not wait for a slow GitHub.
const NOMAD_MEANWHILE: Duration = Duration::from_secs(5);

/// Registrations are listed for no longer in one pass.
const REGISTRATIONS_AT_MOST: Duration = Duration::from_secs(10);

/// No action that needs GitHub begins later in a pass: Nomad waits.
const ACTIONS_BEGIN_WITHIN: Duration = Duration::from_secs(20);

/// An action asks GitHub no longer than this.
const ACTIONS_END_WITHIN: Duration = Duration::from_secs(60);

/// `once` waits at most so long for the runners it started to get their secrets.
const SETTLE_DEADLINE: Duration = Duration::from_secs(30);

/// What ends or wakes the loop from outside.
#[derive(Clone, Debug)]
pub struct Signals {
    /// True: end now, also in the middle of a pass.
    pub shutdown: watch::Receiver<bool>,
    /// Read the configuration again and pass at once.
    pub hangup: Arc<Notify>,
}

/// Why the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Shutdown,
    /// The configuration is to be read again.
    Hangup,
}

/// The daemon.
pub struct Daemon {
    config: Config,
    policy: Policy,
    github: GitHub,
    nomad: Nomad,
    renderer: Renderer,
    dry_run: bool,
    epoch: Instant,
    leader: Option<Leader>,
    leadership: Leadership,
    memory: Memory,
    /// Since when each runner of a surplus has been one.
    surplus_since: BTreeMap<String, Moment>,
    github_side: GitHubSide,
    status: Status,
    hints: Hints,
    /// The holds and errors of the last pass of each scope: they were said already.
    said: BTreeMap<Scope, BTreeSet<String>>,
    witness: Option<Witness>,
}

/// Told of each pass when it is over, with the policy that it planned by and with what it leaves for the next one.
pub type Witness = Box<dyn FnMut(&Pass, &Policy, &Memory) + Send>;

/// What a pass saw and did.
#[derive(Debug)]
pub struct Pass {
    /// What it saw.
    pub observation: Observation,
    /// When it planned.
    pub planned_at: Moment,
    /// What it planned.
    pub plan: Plan,
    /// What became of it.
    pub reports: Vec<Report>,
    /// What could not be observed.
    pub errors: Vec<String>,
    /// Whether it asked GitHub for jobs.
    pub asked_github: bool,
    /// When it had done what it could.
    pub applied_at: Moment,
    /// Whether this replica led at the end: otherwise nothing was applied, or not all.
    pub led: bool,
}

impl Pass {
    /// Whether anything failed.
    pub fn failed(&self) -> bool {
        !self.errors.is_empty() || self.reports.iter().any(|report| report.outcome.is_failure())
    }

    /// Whether Nomad alone can bring news soon: something was started, or waits for a place or a secret.
    fn is_unsettled(&self) -> bool {
        let waits = |state| matches!(state, RunnerState::Pending | RunnerState::Waiting);
        self.starts() > 0
            || self
                .observation
                .nomad
                .iter()
                .flat_map(|nomad| &nomad.runners)
                .any(|runner| waits(runner.state) && runner.ownership == Ownership::Ours)
    }

    fn starts(&self) -> usize {
        self.reports.iter().filter(|report| matches!(report.action, Action::Start(_))).count()
    }
}

/// Whether a pass asks GitHub too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    Everything,
    /// Only for what it could not tell to its end the last time.
    Unfinished,
    NomadOnly,
}

impl Daemon {
    /// A daemon that has seen nothing yet.
    pub fn new(config: Config, github: GitHub, nomad: Nomad, renderer: Renderer, dry_run: bool) -> Self {
        let leader = (config.ha && !dry_run).then(|| Leader::new(nomad.clone(), holder()));
        let leadership = leader.as_ref().map_or_else(Leadership::always, Leader::leadership);
        let status = Status::new(config.loop_interval);
        let hints = Hints::new(status.clone());
        hints.configure(&config);
        Daemon {
            leader,
            leadership,
            status,
            hints,
            policy: Policy::from(&config),
            config,
            github,
            nomad,
            renderer,
            dry_run,
            epoch: Instant::now(),
            memory: Memory::default(),
            surplus_since: BTreeMap::new(),
            github_side: GitHubSide::default(),
            said: BTreeMap::new(),
            witness: None,
        }
    }

    /// Each pass is told to `witness`.
    pub fn witnessed_by(self, witness: Witness) -> Self {
        Daemon { witness: Some(witness), ..self }
    }

    /// The same daemon, with all it remembers, under another configuration.
    pub async fn reconfigured(
        mut self,
        config: Config,
        github: GitHub,
        nomad: Nomad,
        renderer: Renderer,
    ) -> Self {
        nomad.take_over(&self.nomad);
        match (&mut self.leader, config.ha) {
            (Some(leader), true) => leader.use_nomad(nomad.clone()),
            (Some(leader), false) => leader.release().await,
            (None, _) => {}
        }
        let fresh = Daemon::new(config, github, nomad, renderer, self.dry_run);
        let (leader, leadership) = match self.leader {
            Some(leader) if fresh.config.ha => (Some(leader), self.leadership),
            _ => (fresh.leader, fresh.leadership),
        };
        self.hints.configure(&fresh.config);
        Daemon {
            leader,
            leadership,
            epoch: self.epoch,
            status: self.status,
            hints: self.hints,
            memory: self.memory,
            surplus_since: self.surplus_since,
            github_side: self.github_side.reconfigured(),
            witness: self.witness,
            ..fresh
        }
    }

    /// How many things it remembers, by what they are: none of them may grow for ever.
    pub fn sizes(&self) -> BTreeMap<&'static str, usize> {
        let mut sizes = self.github.sizes();
        sizes.extend(self.hints.sizes());
        sizes.extend([
            ("surplus", self.memory.surplus.len()),
            ("presence", self.memory.presence.len()),
            ("last busy", self.memory.last_busy.len()),
            ("last start", self.memory.last_start.len()),
            ("start backoff", self.memory.start_backoff.len()),
            ("runner backoff", self.memory.runner_backoff.len()),
            ("mint backoff", self.memory.mint_backoff.len()),
            ("orphans", self.memory.orphans.len()),
            ("repositories", self.github_side.len()),
            ("said", self.said.values().map(BTreeSet::len).sum()),
        ]);
        sizes
    }

    /// What it tells of itself, for a server.
    pub fn status(&self) -> Status {
        self.status.clone()
    }

    /// What it is hinted at, for the server that receives webhooks.
    pub fn hints(&self) -> Hints {
        self.hints.clone()
    }

    /// Passes until it is told to end. A failing GitHub or Nomad never ends it.
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
            never = self.pass_for_ever(&hint) => never,
        };
        if let (Ended::Shutdown, Some(leader)) = (ended, &mut leader) {
            leader.release().await;
        }
        self.leader = leader;
        ended
    }

    /// Passes that ask GitHub begin every `loop`; between them Nomad alone is looked at: after a hint, and
    /// while something waits for a place or a secret.
    async fn pass_for_ever(&mut self, hint: &Notify) -> Ended {
        loop {
            let began = Instant::now();
            let mut pass = self.pass(Scope::Everything).await;
            let next = (began + self.config.loop_interval).max(Instant::now() + SHORTEST_LOOP);
            let mut may_go_on = Instant::now() + SHORTEST_LOOP;
            for step in 0.. {
                let wait = FOLLOW_UPS[FOLLOW_UPS.len().min(step + 1) - 1];
                let unsettled = pass.is_unsettled() && !self.dry_run;
                let mut until = if unsettled { (Instant::now() + wait).min(next) } else { next };
                let unfinished = !self.github.unfinished().is_empty();
                if unfinished {
                    until = until.min(may_go_on);
                }
                tokio::select! {
                    biased;
                    // A replica that has become the leader since does not wait for its turn.
                    () = self.leadership.held(), if !pass.led => break,
                    () = self.hints.due(), if !self.dry_run && pass.led => {
                        sleep_until(may_go_on.min(next)).await;
                        break;
                    }
                    () = sleep_until(until) => {}
                    () = hint.notified(), if !self.dry_run => {
                        sleep_until((Instant::now() + HINTS_TOGETHER).min(next)).await;
                    }
                }
                if Instant::now() >= next {
                    break;
                }
                let goes_on = unfinished && Instant::now() >= may_go_on;
                pass = self.pass(if goes_on { Scope::Unfinished } else { Scope::NomadOnly }).await;
                if goes_on {
                    may_go_on = Instant::now() + SHORTEST_LOOP;
                }
            }
        }
    }

    /// One pass, then Nomad alone until the runners it started have their secrets. The first pass is given
    /// back, with the later ones' failures and reports.
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
            tracing::warn!("another replica leads: this one only looks");
        }
        let mut first = self.pass(Scope::Everything).await;
        let deadline = Instant::now() + SETTLE_DEADLINE;
        let mut unsettled = !self.dry_run && first.is_unsettled();
        for wait in FOLLOW_UPS.iter().chain(std::iter::repeat(&Duration::from_secs(2))) {
            if !unsettled || Instant::now() + *wait > deadline {
                break;
            }
            sleep_until(Instant::now() + *wait).await;
            let next = self.pass(Scope::NomadOnly).await;
            unsettled = next.waits_for_secret();
            first.reports.extend(next.reports);
            first.errors.extend(next.errors);
        }
        first
    }

    /// What a pass would do now; nothing is changed, not even remembered. Whoever asks says it: nothing is logged.
    pub async fn preview(&mut self) -> Pass {
        self.dry_run = true;
        self.look_and_act(Scope::Everything).await
    }

    async fn pass(&mut self, scope: Scope) -> Pass {
        let pass = self.look_and_act(scope).await;
        self.say(&pass, scope);
        pass
    }

    async fn look_and_act(&mut self, scope: Scope) -> Pass {
        let mut errors = Vec::new();
        // What was seen before it led is not acted on, nor what was seen when it led before: another one has acted since.
        let term = self.leadership.term();
        if scope == Scope::Everything {
            // What is hinted at from now on may be too late for this pass's lists.
            self.hints.take();
        }
        let (observation, meanwhile) = self.observe(scope, &mut errors).await;
        let planned_at = self.now();
        let plan = plan(&observation, &self.policy, planned_at);
        // What Nomad alone tells of was seen again meanwhile, and is newer there.
        let due = |action: &&Action| {
            meanwhile == 0 || matches!(action, Action::Start(_) | Action::Stop(_) | Action::LookUp(_))
        };
        let due = Plan { actions: plan.actions.iter().filter(due).cloned().collect(), ..Plan::default() };
        let reports = match (&observation.nomad, term) {
            (Some(nomad), Some(term)) => tokio::select! {
                biased;
                () = self.leadership.over(term) => Vec::new(),
                reports = self.apply(nomad, &due) => reports,
            },
            (Some(nomad), None) if self.dry_run => self.apply(nomad, &due).await,
            _ => Vec::new(),
        };
        let now = self.now();
        learn(&mut self.memory, &observation, &plan, &reports, now);
        self.surplus_since = memory::surplus_since(&self.memory, &self.surplus_since, planned_at);
        if scope == Scope::Everything {
            if let Some(nomad) = &observation.nomad {
                let is_ours = |name: &str| is_ours_by_name(&self.policy.prefix, &nomad.instance, name);
                let organization = self.policy.organization;
                let github = self.github.until(Instant::now() + REGISTRATIONS_AT_MOST);
                self.github_side.list_registrations(&github, organization, is_ours, now).await;
                self.status.ends(self.github_side.versions.ask(&github, now).await);
            }
            self.github.end_pass().await;
        }
        let pass = Pass {
            observation,
            planned_at,
            plan,
            reports,
            errors,
            asked_github: scope != Scope::NomadOnly,
            applied_at: now,
            led: term.is_some() && self.leadership.term() == term,
        };
        self.status.record(snapshot::snapshot(&pass, &self.policy, scope));
        if let Some(witness) = &mut self.witness {
            witness(&pass, &self.policy, &self.memory);
        }
        pass
    }

    /// What is seen, and how many passes looked at Nomad alone while GitHub was asked.
    async fn observe(&mut self, scope: Scope, errors: &mut Vec<String>) -> (Observation, usize) {
        let nomad = match self.nomad.observe().await {
            Ok(nomad) => nomad,
            Err(error) => {
                errors.push(format!("Nomad: {error}"));
                return (Observation { memory: self.memory.clone(), ..Observation::default() }, 0);
            }
        };
        // GitHub after Nomad: a stale view of GitHub would start runners for jobs that are done. So this view of Nomad
        // stays the one that GitHub's is held against, whatever is seen of Nomad meanwhile.
        let now = self.now();
        let mut meanwhile = Meanwhile { next: Instant::now() + NOMAD_MEANWHILE, passes: 0 };
        let repositories = match scope {
            Scope::NomadOnly => self.github_side.recall(),
            Scope::Everything | Scope::Unfinished => {
                let end = Instant::now() + GITHUB_AT_MOST;
                let wanted = match scope {
                    Scope::Everything => {
                        let found = self.resolve(&mut meanwhile).await;
                        let wanted = self.github_side.wanted(found, &nomad, errors);
                        self.hints.know(&wanted.repositories());
                        wanted
                    }
                    _ => self.github_side.unfinished(&self.github),
                };
                let mut tasks = JoinSet::new();
                let (github, repositories) = (self.github.clone(), wanted.repositories());
                let within = end.saturating_duration_since(Instant::now());
                tasks.spawn(async move { github.list_all(&repositories, false, within).await });
                let listings = self.meanwhile(&mut tasks, None, &mut meanwhile).await.unwrap_or_default();
                self.github_side.learn_all(wanted, listings, now, errors)
            }
        };
        let registrations = self.github_side.registrations();
        let mut memory = self.memory.clone();
        memory::forget_recent_surplus(&mut memory, &self.surplus_since, &repositories, now);
        (Observation { nomad: Some(nomad), repositories, registrations, memory }, meanwhile.passes)
    }

    /// What the entries of `repos` mean, as far as GitHub says so in time.
    async fn resolve(&mut self, meanwhile: &mut Meanwhile) -> Resolution {
        let mut tasks = self.github_side.resolving(&self.github, &self.config.repos);
        let end = Instant::now() + RESOLUTION_AT_MOST;
        match self.meanwhile(&mut tasks, Some(end), meanwhile).await {
            Some(found) => found,
            None => {
                self.github_side.go_on_resolving(tasks);
                self.github.resolved(&self.config.repos)
            }
        }
    }

    /// What a task says, if it does in time. While it is waited for, Nomad's half goes on.
    async fn meanwhile<T: 'static>(
        &mut self,
        tasks: &mut JoinSet<T>,
        end: Option<Instant>,
        meanwhile: &mut Meanwhile,
    ) -> Option<T> {
        loop {
            let wake = end.map_or(meanwhile.next, |end| end.min(meanwhile.next));
            tokio::select! {
                biased;
                joined = tasks.join_next() => match joined {
                    Some(Ok(said)) => return Some(said),
                    Some(Err(error)) => tracing::error!("a task that asks GitHub ended by itself: {error}"),
                    None => return None,
                },
                () = sleep_until(wake) => {}
            }
            if end.is_some_and(|end| Instant::now() >= end) {
                return None;
            }
            if Instant::now() >= meanwhile.next {
                if !self.dry_run {
                    self.nomad_pass().await;
                    meanwhile.passes += 1;
                }
                meanwhile.next = Instant::now() + NOMAD_MEANWHILE;
            }
        }
    }

    /// A pass inside of another one.
    fn nomad_pass(&mut self) -> Pin<Box<dyn Future<Output = Pass> + '_>> {
        Box::pin(self.pass(Scope::NomadOnly))
    }

    async fn apply(&self, nomad: &NomadView, plan: &Plan) -> Vec<Report> {
        let now = Instant::now();
        let (leadership, instance) = (self.leadership.clone(), &nomad.instance);
        let Daemon { config, github, nomad, renderer, dry_run, .. } = self;
        let github = github.until(now + ACTIONS_END_WITHIN);
        Apply::new(config, &github, nomad, renderer, instance, leadership, *dry_run)
            .beginning_until(now + ACTIONS_BEGIN_WITHIN)
            .apply(plan)
            .await
    }

    fn now(&self) -> Moment {
        self.epoch.elapsed()
    }

    /// Says what was done, and what is new among what was not.
    fn say(&mut self, pass: &Pass, scope: Scope) {
        for Report { action, outcome } in &pass.reports {
            if outcome.is_failure() {
                tracing::error!("{action}: {outcome}");
            } else {
                tracing::info!("{action}: {outcome}");
            }
        }
        let mut said = BTreeSet::new();
        let is_news = |key: &String| !self.said.values().any(|said| said.contains(key));
        for error in &pass.errors {
            // The time that is left, say, is no news.
            let key = error.replace(|c: char| c.is_ascii_digit(), "");
            if is_news(&key) {
                tracing::error!("{error}");
            }
            said.insert(key);
        }
        // An error says it already; and a pass without GitHub lists no repository.
        let is_worth_a_line =
            |hold: &&Hold| !matches!(hold.reason, HoldReason::NotListed { .. }) && !hold.reason.is_routine();
        for line in summary::lines(pass.plan.holds.iter().filter(is_worth_a_line)) {
            let key = line.topic();
            if is_news(&key) && line.hold().reason.is_warning() {
                tracing::warn!("{line}");
            } else if is_news(&key) {
                tracing::info!("{line}");
            }
            said.insert(key);
        }
        // Each scope sees what the other one does not.
        self.said.insert(scope, said);
        tracing::debug!(actions = pass.reports.len(), holds = pass.plan.holds.len(), ?scope, "pass");
    }
}

impl Pass {
    fn waits_for_secret(&self) -> bool {
        self.observation.nomad.iter().flat_map(|nomad| &nomad.runners).any(|runner| {
            let placed = runner.state == RunnerState::Pending && runner.blocked.is_none();
            runner.ownership == Ownership::Ours && (placed || runner.state == RunnerState::Waiting)
        })
    }
}

/// The passes that look at Nomad alone while GitHub is asked.
struct Meanwhile {
    next: Instant,
    passes: usize,
}

/// Stands for the lock, if there are replicas; never ends.
async fn stand<T>(leader: &mut Option<Leader>) -> T {
    if let Some(leader) = leader {
        leader.stand().await;
    }
    std::future::pending().await
}

/// Who this process is, for people who look at the lock.
fn holder() -> String {
    let host = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty());
    let host = host.or_else(|| std::fs::read_to_string("/etc/hostname").ok());
    format!("{} pid {}", host.as_deref().map_or("unknown host", str::trim), std::process::id())
}
