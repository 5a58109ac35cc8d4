//! The loop: observe, plan, apply; what wakes it, what ends it.
//!
//! GitHub and Nomad are the only state. What this keeps between passes makes it faster or more patient,
//! never wrong: killed at any await and started again, it converges.

mod acts;
mod ended;
mod hints;
mod memory;
mod observe;
mod said;
mod snapshot;
mod versions;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{
    apply::{Apply, Report},
    config::Config,
    github::{Error, GitHub, JobListing, Look},
    hints::{Hints, Reason, WATCHED_FROM, follow},
    labels::Interest,
    leadership::{Leader, Leadership},
    model::{
        Action, HoldReason, Memory, Moment, NomadView, Observation, Ownership, Plan, RepositoryId,
        RunnerState, is_ours_by_name,
    },
    nomad::Nomad,
    plan::{Policy, plan},
    render::Renderer,
    schedule::{AFTER_PUSH, AFTER_WEBHOOK, Budget, Schedule, Seen},
    status::Status,
};
use acts::Acts;
pub use memory::learn;
use observe::{Chore, GitHubSide, Marks};
use said::Said;

/// After a Start, Nomad is looked at again so soon (an allocation is there within 30 ms, contract nomad.md §8), and ever
/// later while something waits for a place or a secret. The last one repeats.
const FOLLOW_UPS: [Duration; 7] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(15),
];

/// Events and looks come several at a time: so long after the first one a pass begins.
const TOGETHER: Duration = Duration::from_millis(50);

/// Two passes are never closer together.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// While there are runners or jobs a pass begins at least so often: much is a matter of time.
const WITH_WORK: Duration = Duration::from_secs(5);

/// What is due by its pace is taken from the schedule no more often; what is asked for does not wait.
const LOOKS_TOGETHER: Duration = Duration::from_millis(250);

/// So many looks are under way at most.
const MOST_LOOKS: usize = 24;

/// One look takes no longer; what it has read by then counts, and the next one goes on.
const LOOK_WITHIN: Duration = Duration::from_secs(20);

/// Where everything is looked at in one pass (`once`, `plan`): the longest time for that.
const GITHUB_AT_MOST: Duration = Duration::from_secs(60);

/// What waits for a place needs all who may make room to be listed at the same time; asked for no more often.
const ROOM_EVERY: Duration = Duration::from_secs(10);

/// What to expect of the schedule is said where a repository may wait for longer.
const WORTH_A_WORD: Duration = Duration::from_secs(10);

/// What is seen in full, for Stops and purges, is seen at least so often while runners of ours are there, or every `loop`.
const ACTIVE_EVERY: Duration = Duration::from_secs(60);

/// What the entries of `repos` mean is asked this often at most; the adapter knows when it is due.
const RESOLVE_EVERY: Duration = Duration::from_secs(30);

/// A chore at GitHub (registrations, versions) is given up after this.
const CHORE_WITHIN: Duration = Duration::from_secs(30);

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
    renderer: Arc<Renderer>,
    interest: Interest,
    dry_run: bool,
    epoch: Instant,
    leader: Option<Leader>,
    leadership: Leadership,
    memory: Memory,
    github_side: GitHubSide,
    schedule: Schedule,
    looks: JoinSet<Looked>,
    acts: Acts,
    /// What performs actions, for the instance that Nomad told of.
    apply: Option<Apply>,
    /// What each repository's runners were in the last view of Nomad; `None` before the first one.
    marks: Option<Marks>,
    /// What went wrong since the last pass.
    errors: Vec<String>,
    /// When all who may make room were last asked for.
    room_at: Option<Moment>,
    /// When what is due is to be taken from the schedule next.
    looks_due: Instant,
    /// What to expect of the schedule was said.
    forecast_said: bool,
    status: Status,
    hints: Hints,
    said: Said,
    witness: Option<Witness>,
}

/// A look that has ended.
struct Looked {
    repository: RepositoryId,
    began: Moment,
    ended: Moment,
    /// What the repository's runners were before it began.
    marks: Marks,
    look: Look,
    /// It was asked for, apart from the pace.
    asked: bool,
    /// Whether it is gone on with.
    unfinished: bool,
    result: Result<JobListing, Error>,
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
    /// What became of it, as far as it is over, in the plan's order.
    pub reports: Vec<Report>,
    /// What became of actions that earlier passes began.
    pub late: Vec<Report>,
    /// What could not be observed.
    pub errors: Vec<String>,
    /// Which listings it could use as fresh ones, and how long before the plan each of them began.
    pub fresh: BTreeMap<RepositoryId, Duration>,
    /// The actions that earlier passes had begun and that were not over when this one planned.
    pub under_way: Vec<Action>,
    /// Those that were not over at its end.
    pub left: Vec<Action>,
    /// When it had done what it could.
    pub applied_at: Moment,
    /// Whether this replica led at the end: otherwise nothing was applied, or not all.
    pub led: bool,
}

impl Pass {
    /// Whether anything failed.
    pub fn failed(&self) -> bool {
        !self.errors.is_empty() || self.done().any(|report| report.outcome.is_failure())
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

    /// What became of actions, whenever they began.
    pub fn done(&self) -> impl Iterator<Item = &Report> {
        self.late.iter().chain(&self.reports)
    }

    fn starts(&self) -> usize {
        self.reports.iter().filter(|report| matches!(report.action, Action::Start(_))).count()
    }
}

impl Daemon {
    /// A daemon that has seen nothing yet.
    pub fn new(
        config: Config,
        github: GitHub,
        nomad: Nomad,
        renderer: impl Into<Arc<Renderer>>,
        dry_run: bool,
    ) -> Self {
        let leader = (config.ha && !dry_run).then(|| Leader::new(nomad.clone(), holder()));
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
            interest: Interest::new(&config.labels, &config.nomad.jobprefix),
            config,
            github,
            nomad,
            renderer: renderer.into(),
            dry_run,
            epoch: Instant::now(),
            memory: Memory::default(),
            github_side: GitHubSide::default(),
            schedule: Schedule::default(),
            looks: JoinSet::new(),
            acts: Acts::default(),
            apply: None,
            marks: None,
            errors: Vec::new(),
            room_at: None,
            looks_due: Instant::now(),
            forecast_said: false,
            said: Said::default(),
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
        renderer: impl Into<Arc<Renderer>>,
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
            marks: self.marks,
            said: self.said,
            witness: self.witness,
            ..fresh
        }
    }

    /// How many things it remembers, by what they are: none of them may grow for ever.
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
            ("runner backoff", self.memory.runner_backoff.len()),
            ("mint backoff", self.memory.mint_backoff.len()),
            ("orphans", self.memory.orphans.len()),
            ("repositories", self.github_side.len()),
            ("said", self.said.len()),
            ("scheduled", self.schedule.len()),
            ("looks under way", self.looks.len()),
            ("actions under way", self.acts.len()),
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
            never = self.go_on(&hint) => never,
        };
        // Whatever is under way is cut off, as by a crash: the next pass sees what came of it.
        self.looks.abort_all();
        self.acts.cut();
        if let (Ended::Shutdown, Some(leader)) = (ended, &mut leader) {
            leader.release().await;
        }
        self.leader = leader;
        ended
    }

    /// Looks at repositories as the schedule has it, and passes whenever there is something to plan for: a look has brought
    /// news, Nomad hints at something, an action is over, something waits for a place or a secret, or it is time.
    async fn go_on(&mut self, hint: &Notify) -> Ended {
        let mut step = 0;
        let mut next = Instant::now();
        let mut led = None;
        loop {
            if self.leadership.term() != led {
                // Whoever leads now looks at what goes on first.
                led = self.leadership.term();
                self.schedule.ask_hot(self.now());
                next = Instant::now();
            }
            self.chores();
            self.look_around();
            if Instant::now() >= next {
                let pass = self.pass().await;
                let ended = Instant::now();
                step = if pass.starts() > 0 { 0 } else { step + 1 };
                let unsettled = pass.is_unsettled() && !self.dry_run;
                let has_runners = pass
                    .observation
                    .nomad
                    .as_ref()
                    .is_none_or(|nomad| nomad.runners.iter().any(|r| r.is_live()));
                let has_work = has_runners || self.github_side.has_demand();
                let wait = if unsettled {
                    FOLLOW_UPS[FOLLOW_UPS.len().min(step + 1) - 1].min(WITH_WORK)
                } else if has_work && !self.dry_run {
                    WITH_WORK
                } else {
                    self.config.loop_interval
                };
                next = ended + wait.min(self.config.loop_interval).max(SHORTEST_PAUSE);
                continue;
            }
            // A dry run says the same again with each pass.
            let dry_run = self.dry_run;
            let soon = move |next: &mut Instant| {
                if !dry_run {
                    *next = (*next).min(Instant::now() + TOGETHER);
                }
            };
            // Nothing is looked at before Nomad was.
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
                Some(looked) = self.looks.join_next() => {
                    if self.looked(looked) {
                        soon(&mut next);
                    }
                }
                chore = self.github_side.chore() => {
                    if self.chore_done(chore) {
                        soon(&mut next);
                    }
                }
                () = self.hints.due() => self.take_hints(),
                () = sleep_until(due) => {}
            }
        }
    }

    /// Takes what is hinted at into the schedule.
    fn take_hints(&mut self) {
        let now = self.now();
        for hint in self.hints.take() {
            let stays_hot = match hint.reason {
                Reason::Push => AFTER_PUSH,
                Reason::Webhook | Reason::Delivery => AFTER_WEBHOOK,
            };
            self.schedule.hint(hint.repository, now, stays_hot);
        }
    }

    /// What the schedule may ask with a payer's credentials.
    fn budget(&self) -> impl Fn(&str) -> Budget + use<> {
        let (github, leads, longest_hot) =
            (self.github.clone(), self.leadership.holds(), self.config.loop_interval);
        move |payer| Budget { headroom: github.headroom(payer), leads, longest_hot }
    }

    /// When something is to be looked at next.
    fn next_look(&self) -> Instant {
        let longest = Instant::now() + RESOLVE_EVERY;
        if self.marks.is_none() || self.looks.len() >= MOST_LOOKS {
            return longest;
        }
        let next = self.schedule.next(self.now(), self.budget());
        next.map_or(longest, |next| longest.min(self.epoch + next))
    }

    /// Begins the looks that are due.
    fn look_around(&mut self) {
        // What Nomad was like before a look began is what the look is held against.
        let Some(marks) = &self.marks else { return };
        if !self.schedule.is_urgent() && Instant::now() < self.looks_due {
            return;
        }
        let now = self.now();
        let room = MOST_LOOKS.saturating_sub(self.looks.len());
        let due = self.schedule.due(now, room, self.budget());
        for (id, asked) in due {
            let at_least = self.schedule.at_least(id, now);
            let marks = marks.of(id);
            let active_every = self.config.loop_interval.min(ACTIVE_EVERY);
            let found = self.github_side.to_look_at(id, at_least, &marks, now, active_every);
            let Some((repository, look)) = found else { continue };
            let (github, epoch) = (self.github.clone(), self.epoch);
            self.looks.spawn(async move {
                let result = github.look(&repository, look, LOOK_WITHIN).await;
                Looked {
                    repository: repository.id,
                    began: now,
                    ended: epoch.elapsed(),
                    marks,
                    look,
                    asked,
                    unfinished: github.is_unfinished(repository.id),
                    result,
                }
            });
        }
        self.looks_due = self.next_look().max(Instant::now() + LOOKS_TOGETHER);
    }

    /// Takes in what a look has shown. Whether that calls for a pass.
    fn looked(&mut self, looked: Result<Looked, tokio::task::JoinError>) -> bool {
        let looked = match looked {
            Ok(looked) => looked,
            Err(error) => {
                if !error.is_cancelled() {
                    tracing::error!("a look at a repository ended by itself: {error}");
                }
                return false;
            }
        };
        let id = looked.repository;
        self.status.look(looked.look.as_str(), looked.ended.saturating_sub(looked.began));
        if let Err(Error::RateLimited { until, .. }) = &looked.result {
            self.schedule.pause(id, until.saturating_duration_since(self.epoch));
        }
        let mut seen = Seen {
            at: looked.ended,
            took: looked.ended.saturating_sub(looked.began),
            failed: !matches!(looked.result, Ok(_) | Err(Error::RateLimited { .. } | Error::OutOfTime)),
            unfinished: looked.unfinished,
            ours: looked.marks.any_live(),
            newest_run: None,
            unused: false,
            requests: 1,
        };
        if let Ok(listing) = &looked.result {
            let age = |at| Duration::try_from(listing.now.duration_since(at)).unwrap_or_default();
            seen.newest_run = listing.newest_run.map(age);
            seen.unused = listing.has_runs == Some(false);
            seen.requests = listing.requests;
        }
        let (is_news, has_jobs) = self.github_side.learn(looked, &self.interest, &mut self.errors);
        seen.ours |= has_jobs;
        self.schedule.seen(id, &seen);
        self.looks_due = self.looks_due.min(Instant::now() + LOOKS_TOGETHER);
        is_news
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
            tracing::warn!("standing by: another replica holds the leader lock");
        }
        self.look_at_everything().await;
        let mut first = self.pass().await;
        self.github.end_pass().await;
        let deadline = Instant::now() + SETTLE_DEADLINE;
        let mut unsettled = !self.dry_run && (first.is_unsettled() || self.acts.len() > 0);
        for wait in FOLLOW_UPS.iter().chain(std::iter::repeat(&Duration::from_secs(2))) {
            if !unsettled || Instant::now() + *wait > deadline {
                break;
            }
            sleep_until(Instant::now() + *wait).await;
            let next = self.pass().await;
            unsettled = next.waits_for_secret() || self.acts.len() > 0;
            first.reports.extend(next.late.into_iter().chain(next.reports));
            first.errors.extend(next.errors);
        }
        first
    }

    /// What a pass would do now; nothing is changed, not even remembered. Whoever asks says it: nothing is logged.
    pub async fn preview(&mut self) -> Pass {
        self.dry_run = true;
        self.look_at_everything().await;
        self.look_and_act().await
    }

    /// Looks at all repositories at once, in full.
    async fn look_at_everything(&mut self) {
        let nomad = match self.nomad.observe().await {
            Ok(nomad) => nomad,
            // The pass says it.
            Err(_) => return,
        };
        let marks = Marks::of_all(&nomad);
        let began = self.now();
        let found = self.github.repositories(&self.config.repos, false).await;
        self.github_side.resolved(found);
        self.github_side.want(&nomad);
        self.marks = Some(marks.clone());
        let repositories = self.github_side.repositories();
        let listings = self.github.list_all(&repositories, Look::All, GITHUB_AT_MOST).await;
        let ended = self.now();
        for (repository, result) in listings {
            let marks = marks.of(repository);
            let looked = Looked {
                repository,
                began,
                ended,
                marks,
                look: Look::All,
                asked: true,
                unfinished: false,
                result,
            };
            self.github_side.learn(looked, &self.interest, &mut self.errors);
        }
        self.github_side.all_at_once(GITHUB_AT_MOST);
    }

    async fn pass(&mut self) -> Pass {
        let pass = self.look_and_act().await;
        self.said.say(&pass, self.now());
        pass
    }

    async fn look_and_act(&mut self) -> Pass {
        let began = Instant::now();
        // What is over by now is in what Nomad shows next; what is not may be in it or not.
        let late = self.acts.taken();
        // What was seen before it led is not acted on, nor what was seen when it led before: another one has acted since.
        let term = self.leadership.term();
        let observation = self.observe().await;
        let mut errors = std::mem::take(&mut self.errors);
        errors.splice(0..0, self.github_side.trouble());
        let planned_at = self.now();
        let under_way = self.acts.under_way();
        let plan = plan(&observation, &self.policy, planned_at);
        // Each runner has one action at a time.
        let due: Vec<Action> = plan
            .actions
            .iter()
            .filter(|action| !under_way.iter().any(|other| other.runner() == action.runner()))
            .cloned()
            .collect();
        let reports = match (&observation.nomad, term) {
            (Some(nomad), Some(term)) => {
                let (apply, leadership) = (self.apply(nomad), self.leadership.clone());
                self.acts.begin(due, apply, leadership, term).await
            }
            (Some(nomad), None) if self.dry_run => {
                self.apply(nomad).apply(&Plan { actions: due, ..Plan::default() }).await
            }
            _ => Vec::new(),
        };
        let now = self.now();
        let done: Vec<Report> = late.iter().chain(&reports).cloned().collect();
        learn(&mut self.memory, &observation, &plan, &done, now);
        self.make_room(&observation, &plan, now);
        let fresh = self.github_side.fresh(&observation, planned_at);
        let pass = Pass {
            observation,
            planned_at,
            plan,
            reports,
            late,
            errors,
            fresh,
            under_way,
            left: self.acts.under_way(),
            applied_at: now,
            led: term.is_some() && self.leadership.term() == term,
        };
        snapshot::tell(&self.status, &pass, &self.github, began.elapsed());
        if let Some(witness) = &mut self.witness {
            witness(&pass, &self.policy, &self.memory);
        }
        pass
    }

    /// Who may make room for what waits is looked at together.
    fn make_room(&mut self, observation: &Observation, plan: &Plan, now: Moment) {
        let is_time = self.room_at.is_none_or(|at| now.saturating_sub(at) >= ROOM_EVERY);
        let is_held = || plan.holds.iter().any(|hold| matches!(hold.reason, HoldReason::Cap { .. }));
        let mut runners = observation.nomad.iter().flat_map(|nomad| &nomad.runners);
        if is_time && (runners.any(|runner| runner.blocked.is_some()) || is_held()) {
            self.room_at = Some(now);
            self.schedule.ask_hot(now);
        }
    }

    /// What Nomad shows now, and what GitHub has shown.
    async fn observe(&mut self) -> Observation {
        let mut nomad = match self.nomad.observe().await {
            Ok(nomad) => nomad,
            Err(error) => {
                self.errors.push(format!("Nomad: {error}"));
                return Observation { memory: self.memory.clone(), ..Observation::default() };
            }
        };
        let marks = Marks::of_all(&nomad);
        let now = self.now();
        self.github_side.resolved_so_far(&self.github, &self.config.repos, now);
        // What has come or gone since a look began makes it worthless. Where a runner serves no more, another one is due at once.
        for id in self.github_side.outdated(&marks) {
            self.schedule.again(id);
        }
        self.github_side.want(&nomad);
        let (github_side, github) = (&self.github_side, &self.github);
        self.schedule.know(
            github_side
                .scheduled()
                .map(|(repository, pushed)| (repository.id, github.payer(&repository.owner), pushed)),
        );
        self.looks_due = self.looks_due.min(Instant::now() + LOOKS_TOGETHER);
        self.schedule.ours(marks.live());
        self.say_forecast();
        self.hints.know(&self.github_side.repositories());
        let repositories = self.github_side.views(&marks, &self.acts, now);
        self.marks = Some(marks);
        self.acts.show_in(&mut nomad);
        let registrations = self.github_side.registrations();
        Observation { nomad: Some(nomad), repositories, registrations, memory: self.memory.clone() }
    }

    /// Says once what to expect of the schedule, where it is not a matter of seconds.
    fn say_forecast(&mut self) {
        if self.forecast_said || self.schedule.is_empty() || self.dry_run {
            return;
        }
        self.forecast_said = true;
        let watched_from = self.config.github.watch_pushes.then_some(WATCHED_FROM);
        let webhook = self.config.webhook.listen.is_some();
        let forecasts = self.schedule.forecasts(self.budget(), watched_from, webhook);
        for forecast in forecasts.iter().filter(|forecast| forecast.every > WORTH_A_WORD) {
            tracing::info!("{forecast}");
        }
    }

    /// What performs actions for the instance that Nomad tells of.
    fn apply(&mut self, nomad: &NomadView) -> Apply {
        if let Some(apply) = self.apply.as_ref().filter(|apply| apply.instance() == nomad.instance) {
            return apply.clone();
        }
        let (github, nomads, renderer) = (self.github.clone(), self.nomad.clone(), self.renderer.clone());
        let leadership = self.leadership.clone();
        let apply =
            Apply::new(&self.config, github, nomads, renderer, &nomad.instance, leadership, self.dry_run)
                .telling(ended::say);
        self.apply = Some(apply.clone());
        apply
    }

    /// Begins what is to be asked of GitHub now and then: what the entries of `repos` mean, whose registrations there are,
    /// which versions end.
    fn chores(&mut self) {
        let now = self.now();
        let scope = self.policy.organization;
        self.github_side.chores(&self.github, &self.config.repos, scope, now, self.config.loop_interval);
    }

    /// Takes in what a chore has brought. Whether that calls for a pass.
    fn chore_done(&mut self, chore: Option<Chore>) -> bool {
        let Some(chore) = chore else { return false };
        let now = self.now();
        let (prefix, apply) = (&self.policy.prefix, &self.apply);
        let is_ours =
            |name: &str| apply.as_ref().is_some_and(|apply| is_ours_by_name(prefix, apply.instance(), name));
        let is_news = self.github_side.done(chore, is_ours, now);
        self.status.ends(self.github_side.versions.ends());
        is_news
    }

    fn now(&self) -> Moment {
        self.epoch.elapsed()
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
