//! Replays a pass's observation with a small change: the plan for it, and the resulting memory, must also follow the
//! specification. Real observations reach few of the corner cases in which the rules differ, and each run has thousands
//! of passes.

use std::{collections::BTreeSet, time::Duration};

use githubrunner::{
    daemon::Pass,
    model::*,
    plan::{Policy, plan},
};
use githubrunner_specification::{Asks, Lesson, Seen, broken_by, learned, reports_of, wrongly_remembered};
use jiff::SignedDuration;

/// Times around the planner's limits, in seconds.
const AGES: [u64; 16] = [0, 4, 29, 31, 59, 61, 119, 121, 240, 599, 601, 700, 3599, 3601, 86_399, 86_401];

/// The planner's input with a small change.
struct Variant {
    observation: Observation,
    policy: Policy,
    now: Moment,
    random: Random,
}

/// A small generator. Any numbers will do, as long as they are reproducible.
struct Random(u64);

impl Random {
    fn below(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below.max(1)
    }

    fn of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    fn pick<'a, T>(&mut self, items: &'a mut [T]) -> Option<&'a mut T> {
        let at = self.below(items.len());
        items.get_mut(at)
    }
}

/// What would have been wrong in that pass with a small change to its observation; `number` selects the
/// change.
pub fn broken_in(pass: &Pass, policy: &Policy, number: u64, asks: fn(&[String]) -> Asks) -> Vec<String> {
    if pass.observation.nomad.is_none() {
        return Vec::new();
    }
    let seed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ pass.planned_at.since_start().as_nanos() as u64;
    let mut other = Variant {
        observation: pass.observation.clone(),
        policy: policy.clone(),
        now: pass.planned_at,
        random: Random(seed),
    };
    let mut how = Vec::new();
    for _ in 0..1 + other.random.below(4) {
        how.push(other.change());
    }
    let Variant { observation, policy, now, mut random } = other;
    let plan = plan(&observation, &policy, now);
    let seen = Seen { observation: &observation, policy: &policy, now, asks };
    let plans = broken_by(seen, &plan);
    let reports = reports_of(&plan, |action| outcome(action, &mut random));
    let after = learned(&observation, &plan, &reports, now);
    let lesson = Lesson {
        observation: &observation,
        plan: &plan,
        reports: &reports,
        late: 0,
        left: None,
        now,
        after: &after,
    };
    let memories = wrongly_remembered(&lesson);
    let told = |wrong: String| format!("it would break {wrong}, had it been otherwise: {}", how.join(", "));
    plans.into_iter().chain(memories).map(told).collect()
}

/// A possible outcome of an action.
fn outcome(action: &Action, random: &mut Random) -> Outcome {
    let why = || "no luck".to_owned();
    match (action, random.below(8)) {
        (_, 0) => Outcome::NotDone(NotDone::Rejected(why())),
        (_, 1) => Outcome::NotDone(NotDone::Failed(why())),
        (_, 2) => Outcome::NotDone(NotDone::Held(why())),
        (_, 3) => Outcome::Done(Done::Already),
        (Action::VerifyRegistration(_), 4 | 5) => Outcome::Done(Done::NotConnected),
        (Action::Stop(_), 4 | 5) => Outcome::NotDone(NotDone::NotListed),
        (Action::VerifyRegistration(_), _) => Outcome::Done(Done::Connected),
        _ => Outcome::Done(Done::Performed),
    }
}

impl Variant {
    fn runners(&mut self) -> &mut Vec<Runner> {
        &mut self.observation.nomad.as_mut().expect("Nomad is seen").runners
    }

    fn server_now(&self) -> Timestamp {
        self.observation.nomad.as_ref().expect("Nomad is seen").now
    }

    fn seconds(&mut self) -> u64 {
        self.random.of(&AGES)
    }

    /// This many seconds ago, by our own clock.
    fn moment(&mut self) -> Moment {
        let earlier = Duration::from_secs(self.seconds());
        self.now - earlier
    }

    /// This many seconds ago, by Nomad's clock.
    fn ago(&mut self) -> Timestamp {
        let seconds = self.seconds();
        self.server_now() - SignedDuration::from_secs(seconds as i64)
    }

    /// The name of a runner.
    fn name(&mut self) -> Option<String> {
        let count = self.runners().len();
        let at = self.random.below(count);
        self.runners().get(at).map(|runner| runner.name.clone())
    }

    fn view(&mut self) -> Option<&mut RepositoryView> {
        let at = self.random.below(self.observation.repositories.len());
        self.observation.repositories.values_mut().nth(at)
    }

    /// Changes one thing, and says what.
    fn change(&mut self) -> &'static str {
        match self.random.below(23) {
            20 | 21 => self.crowded(),
            22 => self.unseen_namespace(),
            0 => self.later(),
            1..4 => self.listed(),
            4 | 5 => self.capped(),
            6 => self.vary_told(),
            7..10 => self.vary_runner(),
            10..15 => self.remembered(),
            15..18 => self.vary_job(),
            18 => self.left_over(),
            _ => self.vary_repository(),
        }
    }

    /// One of the namespaces could not be read, or its runners are in another one.
    fn unseen_namespace(&mut self) -> &'static str {
        let namespace = self.policy.classes.iter().find_map(|class| class.nomad.namespace.clone());
        let (is_own, moves) = (self.random.below(2) == 0, self.random.below(3) == 0);
        let namespace = namespace.filter(|_| !is_own);
        if moves {
            let (at, count) = (namespace.clone(), self.runners().len());
            let which = self.random.below(count);
            if let Some(runner) = self.runners().get_mut(which) {
                runner.namespace = at;
            }
        }
        let unseen = Unseen { namespace: "a namespace".to_owned(), kind: "denied", why: "403".to_owned() };
        if let Some(nomad) = &mut self.observation.nomad {
            nomad.variables.retain(|variable| variable.namespace != namespace);
            nomad.unseen.insert(namespace, unseen);
        }
        "a namespace unseen"
    }

    fn later(&mut self) -> &'static str {
        let seconds = self.seconds();
        let later = SignedDuration::from_secs(seconds as i64);
        self.now += Duration::from_secs(seconds);
        if let Some(nomad) = &mut self.observation.nomad {
            nomad.now += later;
        }
        for view in self.observation.repositories.values_mut() {
            if let Listing::Fresh { now, .. } = &mut view.listing {
                *now += later;
            }
        }
        "later"
    }

    fn listed(&mut self) -> &'static str {
        let (server_now, since, kind) = (self.server_now(), self.moment(), self.random.below(8));
        for view in self.observation.repositories.values_mut() {
            let jobs = view.listing.jobs().to_vec();
            match kind {
                // Most passes observe only Nomad. This makes them look as if they had listed GitHub.
                0..4 if !matches!(view.listing, Listing::Fresh { .. } | Listing::Gone { .. }) => {
                    view.listing = Listing::Fresh { now: server_now, jobs, complete: true };
                }
                4 | 5 => view.listing = Listing::Fresh { now: server_now, jobs, complete: false },
                _ => {}
            }
        }
        if kind < 6 {
            return if kind < 4 { "listed" } else { "half listed" };
        }
        let Some(view) = self.view() else { return "no repository" };
        view.listing = match kind {
            6 => {
                let jobs = view.listing.jobs().to_vec();
                Listing::Stale { jobs, complete: true, reason: "503".to_owned() }
            }
            _ => Listing::Gone { since },
        };
        if kind == 6 { "not listed" } else { "gone" }
    }

    fn capped(&mut self) -> &'static str {
        let live = self.runners().iter().filter(|runner| runner.state != RunnerState::Dead).count();
        let (cap, more) = (self.random.below(4), self.random.below(3));
        let Policy { max_runners, max_runners_per_repository, max_runners_per_group, .. } = &mut self.policy;
        match cap {
            0 => *max_runners = Some(live + more),
            1 => {
                (*max_runners, *max_runners_per_repository, *max_runners_per_group) =
                    (Some(live), None, None);
            }
            2 => *max_runners_per_repository = Some(more + 1),
            _ => *max_runners_per_group = Some(more + 1),
        }
        "capped"
    }

    /// Everything is seen, all places are taken, idle runners have long been idle, and something is waiting:
    /// room must be made.
    fn crowded(&mut self) -> &'static str {
        let server_now = self.server_now();
        for view in self.observation.repositories.values_mut() {
            if !matches!(view.listing, Listing::Fresh { .. } | Listing::Gone { .. }) {
                let jobs = view.listing.jobs().to_vec();
                view.listing = Listing::Fresh { now: server_now, jobs, complete: true };
            }
        }
        let mut memory = std::mem::take(&mut self.observation.memory);
        let mut random = Random(self.random.0);
        for runner in self.runners() {
            match random.below(4) {
                0 => {}
                1 if !runner.started && runner.state != RunnerState::Dead => {
                    runner.state = RunnerState::Pending;
                    runner.allocation = None;
                    let waited = SignedDuration::from_secs(random.of(&AGES) as i64);
                    runner.submitted_at = runner.submitted_at.min(server_now - waited);
                    let blocked = Blocked { exhausted: random.below(3) > 0, reason: "memory".to_owned() };
                    runner.blocked = Some(blocked);
                }
                _ => {
                    let since = server_now - SignedDuration::from_mins(1);
                    if let Some(id) = runner.meta.repo_id {
                        memory.surplus.entry(id).or_default().insert(runner.name.clone(), since);
                    }
                }
            }
        }
        self.observation.memory = memory;
        let live = self.runners().iter().filter(|runner| runner.state != RunnerState::Dead).count();
        let other = |cap: Option<usize>, many: usize| cap.filter(|_| many == 0);
        let (full, many) = (self.random.below(3) > 0, self.random.below(3));
        self.policy = Policy {
            max_runners: Some(if full { live } else { live + 1 }),
            max_runners_per_repository: other(self.policy.max_runners_per_repository.or(Some(2)), many),
            max_runners_per_group: other(self.policy.max_runners_per_group.or(Some(1)), many / 2),
            pending_to_kill_listening: Some(Duration::from_secs(self.random.of(&[0, 60, 600]))),
            runner_inactivity_timeout: None,
            strict: false,
            ..self.policy.clone()
        };
        // A repository that was not seen makes no room.
        if self.random.below(4) == 0
            && let Some(view) = self.view()
        {
            let jobs = view.listing.jobs().to_vec();
            view.listing = Listing::Stale { jobs, complete: true, reason: "503".to_owned() };
        }
        "crowded"
    }

    fn vary_told(&mut self) -> &'static str {
        let (strict, time) =
            (self.random.below(2) == 0, self.random.of(&[None, Some(0), Some(60), Some(600)]));
        let time = time.map(Duration::from_secs);
        match self.random.below(4) {
            0 => self.policy.strict = strict,
            1 => self.policy.runner_inactivity_timeout = time,
            2 => self.policy.pending_to_kill_listening = time,
            _ => {
                self.policy.purge_failure_timeout = self.policy.purge_successfull_timeout;
                self.policy.purge_successfull_timeout = time;
            }
        }
        "told otherwise"
    }

    fn vary_runner(&mut self) -> &'static str {
        let (at, ago, behind) = (self.ago(), self.ago(), self.random.below(2) == 0);
        let ahead = self.server_now() + SignedDuration::from_hours(if behind { -50 } else { 2 });
        let (kind, exhausted) = (self.random.below(10), self.random.below(4) > 0);
        let attempt = self.random.of(&[1, 1, 2, 5, 6, 7, 40]);
        let mut random = Random(self.random.0);
        let Some(runner) = random.pick(self.runners()) else { return "no runner" };
        match kind {
            0 => runner.state = RunnerState::Stopping,
            1 => runner.state = RunnerState::Disconnected,
            2 => runner.spent = runner.allocation.is_some(),
            3 | 4 if !runner.started => {
                runner.state = RunnerState::Pending;
                runner.allocation = None;
                runner.submitted_at = at.min(runner.submitted_at);
                runner.blocked = Some(Blocked { exhausted, reason: "memory".to_owned() });
            }
            5 if !runner.started => {
                runner.state = RunnerState::Waiting;
                runner.variable = None;
            }
            6 | 7 => {
                runner.state = RunnerState::Dead;
                runner.meta.attempt = runner.meta.attempt.max(Some(attempt));
                runner.finish = Some(if exhausted { Finish::OutOfMemory } else { Finish::Success });
                runner.ended_at = Some(at.max(runner.submitted_at));
                if exhausted && !runner.started {
                    (runner.allocation, runner.ended_at) = (None, None);
                }
            }
            8 => {
                runner.started_at = runner.started_at.map(|_| ahead);
                runner.ended_at = runner.ended_at.map(|_| ahead);
            }
            _ if runner.state == RunnerState::Running => {
                runner.submitted_at = ago.min(runner.submitted_at);
                runner.started_at = Some(runner.submitted_at);
                if let Some(allocation) = &mut runner.allocation {
                    allocation.created_at = runner.submitted_at;
                }
            }
            _ => {}
        }
        "a runner otherwise"
    }

    fn remembered(&mut self) -> &'static str {
        let (then, later) = (self.moment(), self.moment());
        let (since, checked_at) = (then.min(later), then.max(later));
        let until = if self.random.below(2) == 0 { self.now + Duration::from_secs(1) } else { then };
        let backoff = Backoff { failures: 1, until, error: "500".to_owned() };
        let (kind, ago, name) = (self.random.below(9), self.ago(), self.name());
        let runners: Vec<(String, GroupKey)> = self
            .runners()
            .iter()
            .filter_map(|r| {
                Some((r.name.clone(), GroupKey { repository: r.meta.repo_id?, labels: r.labels() }))
            })
            .collect();
        let first = self.observation.repositories.keys().next().copied();
        let before = self.server_now() - SignedDuration::from_mins(1);
        let memory = &mut self.observation.memory;
        match (kind, name) {
            (0..3, _) => {
                for (name, group) in runners {
                    memory.surplus.entry(group.repository).or_default().insert(name, before);
                }
            }
            (3 | 4, Some(name)) => {
                let absent_since = (kind == 3).then_some(since);
                memory.presence.insert(name, Presence { checked_at, absent_since });
            }
            (5, Some(name)) => {
                memory.last_busy.insert(name, then);
            }
            (6, Some(name)) => {
                memory.issue_backoff.insert(name.clone(), backoff.clone());
                memory.runner_backoff.insert(name, backoff);
            }
            (7, _) => {
                let groups: BTreeSet<GroupKey> = runners.into_iter().map(|(_, group)| group).collect();
                memory.start_backoff.extend(groups.into_iter().map(|group| (group, backoff.clone())));
            }
            _ => memory.last_start.extend(first.map(|id| (id, ago))),
        }
        "remembered otherwise"
    }

    fn vary_job(&mut self) -> &'static str {
        let (kind, status) = (self.random.below(6), self.random.below(4));
        let (name, seconds) = (self.name(), self.seconds());
        let mut random = Random(self.random.0);
        let Some(view) = self.view() else { return "no repository" };
        let now = match &view.listing {
            Listing::Fresh { now, .. } => Some(*now),
            _ => None,
        };
        let (Listing::Fresh { jobs, .. } | Listing::Earlier { jobs, .. } | Listing::Stale { jobs, .. }) =
            &mut view.listing
        else {
            return "no jobs";
        };
        // An ID that nothing else has.
        let new_id = JobId(jobs.iter().map(|job| job.id.0).max().unwrap_or(0) + 1_000_000_000);
        let Some(job) = random.pick(jobs) else { return "no job" };
        let status = match status {
            0 => JobStatus::InProgress,
            1 => JobStatus::Completed,
            2 => JobStatus::Waiting,
            _ => JobStatus::Queued,
        };
        let runner_name = name.filter(|_| status == JobStatus::InProgress);
        match kind {
            0 => (job.status, job.runner_name) = (status, runner_name),
            1 => {
                let (id, created_at) =
                    (job.id, now.map(|now| now - SignedDuration::from_secs(seconds as i64)));
                jobs.iter_mut().filter(|job| job.id == id).for_each(|job| job.created_at = created_at);
            }
            2 => {
                let again = WorkflowJob { status, runner_name, ..job.clone() };
                jobs.push(again);
            }
            3 => {
                let gone = job.id;
                jobs.retain(|job| job.id != gone);
            }
            _ => {
                let another = WorkflowJob {
                    id: new_id,
                    status: JobStatus::Queued,
                    runner_name: None,
                    created_at: now.map(|now| now - SignedDuration::from_secs(seconds as i64)),
                    ..job.clone()
                };
                jobs.push(another);
            }
        }
        "a job otherwise"
    }

    fn left_over(&mut self) -> &'static str {
        let (online, since) = (self.random.below(3) == 0, self.moment());
        let (kind, first) = (self.random.below(4), self.observation.repositories.keys().next().copied());
        let (Some(name), Some(repository)) = (self.name(), first) else { return "nothing" };
        let orphan = match kind {
            0 | 1 => {
                let registration = OwnRegistration { name: name.clone(), online, repository };
                self.observation.registrations.push(registration);
                Orphan::Registration { name: name.clone() }
            }
            _ => {
                let variable = RunnerVariable { namespace: None, name: name.clone() };
                // Nothing is known of what is in an unseen namespace.
                let nomad = self.observation.nomad.iter_mut().filter(|nomad| nomad.unseen(None).is_none());
                nomad.for_each(|nomad| _ = nomad.variables.insert(variable.clone()));
                Orphan::Variable(variable)
            }
        };
        if kind % 2 == 0 {
            self.runners().retain(|runner| runner.name != name);
        }
        self.observation.memory.orphans.insert(orphan, since);
        "something left over"
    }

    fn vary_repository(&mut self) -> &'static str {
        let kind = self.random.below(3);
        let Some(view) = self.view() else { return "no repository" };
        match kind {
            0 => view.repository.archived = true,
            1 => view.repository.disabled = true,
            _ => view.configured = false,
        }
        "a repository otherwise"
    }
}
