//! What the rules say about a case, computed from the text of docs/architecture.md without the planner's code.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use githubrunner::{config::Class, model::*, plan::Policy};

use super::{Asks, Seen, secs};

pub type Group = (RepositoryId, Vec<String>);

/// A label set as GitHub compares it.
pub fn key<'a>(labels: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut set: Vec<String> = labels.into_iter().map(str::to_lowercase).collect();
    set.sort_unstable();
    set.dedup();
    set
}

/// The group of a job.
pub fn group_of_job(view: &RepositoryView, job: &WorkflowJob) -> Group {
    (view.repository.id, key(job.labels.iter().map(String::as_str)))
}

pub fn group_of_start(start: &Start) -> Group {
    (start.repository.id, key(start.labels.key()))
}

/// What is known of one group.
#[derive(Default)]
struct Known<'a> {
    demand: Vec<&'a WorkflowJob>,
    supply: Vec<&'a Runner>,
    live: usize,
}

pub struct Facts<'a> {
    seen: Seen<'a>,
    /// The last sighting of each job, by ID, with its repository.
    pub jobs: BTreeMap<JobId, (&'a RepositoryView, &'a WorkflowJob)>,
    pub busy: BTreeSet<&'a str>,
    /// Those in a namespace that was read.
    runners: BTreeMap<&'a str, (&'a Runner, Option<usize>)>,
    /// Those in a namespace that could not be read, as they were last seen.
    unseen: Vec<&'a Runner>,
    groups: Vec<(Group, Known<'a>)>,
}

impl<'a> Facts<'a> {
    pub fn new(seen: Seen<'a>) -> Self {
        let rank = |status| match status {
            JobStatus::Completed => 3,
            JobStatus::InProgress => 2,
            JobStatus::Queued => 1,
            _ => 0,
        };
        let mut facts = Facts {
            seen,
            jobs: BTreeMap::new(),
            busy: BTreeSet::new(),
            runners: BTreeMap::new(),
            unseen: Vec::new(),
            groups: Vec::new(),
        };
        for view in seen.observation.repositories.values() {
            for job in view.listing.jobs() {
                if job.status == JobStatus::InProgress {
                    facts.busy.extend(job.runner_name.as_deref());
                }
                let seen = facts.jobs.entry(job.id).or_insert((view, job));
                if rank(job.status) > rank(seen.1.status) {
                    *seen = (view, job);
                }
            }
        }
        let mut numbers: BTreeMap<Group, usize> = BTreeMap::new();
        let mut number = |groups: &mut Vec<(Group, Known<'a>)>, group: Group| {
            *numbers.entry(group).or_insert_with_key(|group| {
                groups.push((group.clone(), Known::default()));
                groups.len() - 1
            })
        };
        for (view, job) in facts.jobs.values() {
            if facts.takes_jobs(view) && facts.wants_runner(view, job) {
                let at = number(&mut facts.groups, group_of_job(view, job));
                facts.groups[at].1.demand.push(job);
            }
        }
        for runner in facts.nomad().iter().flat_map(|nomad| &nomad.runners) {
            let labels = runner.meta.labelsstr.split(',');
            let group = facts.view(runner).map(|view| (view.repository.id, key(labels)));
            let at = group.map(|group| number(&mut facts.groups, group));
            let is_unseen = facts.is_unseen(runner.namespace.as_ref());
            match is_unseen {
                true => facts.unseen.push(runner),
                false => drop(facts.runners.insert(&runner.name, (runner, at))),
            }
            let Some(at) = at.filter(|_| !facts.is_shared(runner)) else { continue };
            facts.groups[at].1.live += usize::from(runner.state != RunnerState::Dead);
            if is_unseen {
                continue;
            }
            if facts.supplies(runner) && facts.warm(runner).is_none() {
                facts.groups[at].1.supply.push(runner);
            }
        }
        facts
    }

    pub fn observation(&self) -> &'a Observation {
        self.seen.observation
    }

    pub fn nomad(&self) -> Option<&'a NomadView> {
        self.seen.observation.nomad.as_ref()
    }

    pub fn memory(&self) -> &'a Memory {
        &self.seen.observation.memory
    }

    pub fn policy(&self) -> &'a Policy {
        self.seen.policy
    }

    /// How long ago this was, by our own clock.
    pub fn since(&self, moment: Moment) -> Duration {
        self.seen.now.since(moment)
    }

    pub fn now(&self) -> Moment {
        self.seen.now
    }

    /// How long ago this was, by Nomad's clock.
    pub fn age(&self, at: Timestamp) -> Duration {
        self.nomad().map_or(Duration::ZERO, |nomad| age(nomad.now, at))
    }

    /// How long a job has been queued, by GitHub's clock; `None` without a fresh listing.
    pub fn queued_for(&self, view: &RepositoryView, job: &WorkflowJob) -> Option<Duration> {
        match view.listing {
            Listing::Fresh { now, .. } => Some(age(now, job.created_at?)),
            _ => None,
        }
    }

    /// The same plan once more.
    pub fn plan_again(&self) -> Plan {
        githubrunner::plan::plan(self.seen.observation, self.seen.policy, self.seen.now)
    }

    pub fn asks(&self, labels: &[String]) -> Asks {
        (self.seen.asks)(labels)
    }

    fn known(&self, group: &Group) -> Option<&Known<'a>> {
        self.groups.iter().find(|(other, _)| other == group).map(|(_, known)| known)
    }

    /// The runners in the namespaces that were read.
    pub fn runners(&self) -> impl Iterator<Item = &'a Runner> {
        self.runners.values().map(|(runner, _)| *runner)
    }

    /// The runners in the namespaces that could not be read, as they were last seen.
    pub fn unseen(&self) -> impl Iterator<Item = &'a Runner> {
        self.unseen.iter().copied()
    }

    /// All runners that count against the caps, if they live.
    pub fn counted(&self) -> impl Iterator<Item = &'a Runner> {
        self.runners().chain(self.unseen())
    }

    /// Whether a namespace could not be read.
    pub fn is_unseen(&self, namespace: Option<&Namespace>) -> bool {
        self.nomad().is_some_and(|nomad| nomad.unseen.keys().any(|unseen| unseen.as_ref() == namespace))
    }

    /// The namespace of a class's runners.
    pub fn namespace_of(&self, class: Option<&str>) -> Option<&'a Namespace> {
        self.class_named(class?)?.nomad.namespace.as_ref()
    }

    /// Whether nothing starts for a job because its class's namespace could not be read.
    pub fn is_held_by_its_namespace(&self, view: &RepositoryView, job: &WorkflowJob) -> bool {
        let class = self.class_of_job(view, job);
        self.is_unseen(class.and_then(|class| class.nomad.namespace.as_ref()))
    }

    /// Whether a variable in this namespace, or a foreign job, has this name.
    pub fn is_taken(&self, namespace: Option<&Namespace>, name: &str) -> bool {
        let is_foreign = |nomad: &NomadView| {
            let is_known = |foreign: &&Foreign| foreign.reason != ForeignReason::Unreadable;
            nomad.foreign.iter().filter(is_known).any(|foreign| foreign.name == name)
        };
        let has_variable = |nomad: &NomadView| {
            nomad.variables.iter().any(|one| one.name == name && one.namespace.as_ref() == namespace)
        };
        self.nomad().is_some_and(|nomad| has_variable(nomad) || is_foreign(nomad))
    }

    /// The name of the same start with another number.
    pub fn name(&self, start: &Start, attempt: u32) -> String {
        let deployment = self.nomad().map_or("", |nomad| &nomad.deployment);
        let namespace = self.namespace_of(start.class.as_deref());
        let repository = start.repository.full_name();
        runner_name(&self.policy().prefix, deployment, namespace, &repository, start.purpose.clone(), attempt)
    }

    pub fn runner(&self, name: &str) -> Option<&'a Runner> {
        self.runners.get(name).map(|(runner, _)| *runner)
    }

    /// The runner of an action.
    pub fn runner_of(&self, name: &str) -> Result<&'a Runner, proptest::test_runner::TestCaseError> {
        let unknown = || proptest::test_runner::TestCaseError::fail(format!("nobody knows {name}"));
        self.runner(name).ok_or_else(unknown)
    }

    pub fn view(&self, runner: &Runner) -> Option<&'a RepositoryView> {
        let views = &self.seen.observation.repositories;
        match runner.meta.repo_id {
            Some(id) => views.get(&id),
            // Two repositories can have had this URL one after the other; the configuration names one of
            // them.
            None => {
                let of_url = || views.values().filter(|v| v.repository.html_url == runner.meta.repo_url);
                of_url().find(|view| view.configured).or_else(|| of_url().next())
            }
        }
    }

    pub fn group(&self, runner: &Runner) -> Option<&Group> {
        let (_, at) = self.runners.get(runner.name.as_str())?;
        Some(&self.groups[(*at)?].0)
    }

    /// Whether its repository was listed in this pass, and completely.
    pub fn fresh(&self, runner: &Runner) -> Option<bool> {
        match self.view(runner)?.listing {
            Listing::Fresh { complete, .. } => Some(complete),
            _ => None,
        }
    }

    pub fn is_gone(&self, runner: &Runner) -> bool {
        self.view(runner).is_some_and(|view| matches!(view.listing, Listing::Gone { .. }))
    }

    pub fn is_busy(&self, runner: &Runner) -> bool {
        self.busy.contains(runner.name.as_str())
    }

    pub fn ours(&self, runner: &Runner) -> bool {
        runner.ownership == Ownership::Ours
    }

    /// How many runners are not dead.
    pub fn live(&self) -> usize {
        self.counted().filter(|runner| runner.state != RunnerState::Dead).count()
    }

    /// What it was started as, if it is a warm runner.
    pub fn warm(&self, runner: &'a Runner) -> Option<&'a Warm> {
        match &runner.meta.purpose {
            Some(Purpose::Warm(warm)) if self.ours(runner) => Some(warm),
            _ => None,
        }
    }

    /// Whether runners of this class register at organizations.
    pub fn is_of_organization(&self, class: Option<&Class>) -> bool {
        let scope = class.and_then(|class| class.scope);
        scope.unwrap_or(self.policy().level) == RunnerLevel::Organization
    }

    /// Whether it is a warm runner of an organization, which belongs to none of its repositories.
    pub fn is_shared(&self, runner: &'a Runner) -> bool {
        self.warm(runner).is_some() && self.is_of_organization(self.class_of(runner))
    }

    /// Whether this starts one.
    pub fn starts_shared(&self, start: &Start) -> bool {
        let class = start.class.as_deref().and_then(|name| self.class_named(name));
        matches!(start.purpose, Purpose::Warm(_)) && self.is_of_organization(class)
    }

    /// How many of a repository's runners are not dead.
    pub fn live_in(&self, id: RepositoryId) -> usize {
        self.groups.iter().filter(|(group, _)| group.0 == id).map(|(_, known)| known.live).sum()
    }

    /// How many of a group's runners are not dead.
    pub fn live_of(&self, group: &Group) -> usize {
        self.known(group).map_or(0, |known| known.live)
    }

    /// Whether its credentials are used, whatever caused another allocation.
    pub fn spent(&self, runner: &Runner) -> bool {
        runner.spent && self.ours(runner) && runner.registration() != Registration::AccessToken
    }

    /// Whether verifications did not find it.
    pub fn absent(&self, runner: &Runner) -> bool {
        self.memory().presence.get(&runner.name).is_some_and(|p| p.absent_since.is_some())
    }

    /// Whether verifications did not find it for ten minutes, from the first to the last.
    pub fn is_unregistered(&self, runner: &Runner) -> bool {
        let Some(presence) = self.memory().presence.get(&runner.name) else { return false };
        presence.absent_since.is_some_and(|since| presence.checked_at.since(since) >= secs(600))
    }

    /// Whether no job can reach it. A runner that registers itself may have another name at GitHub, and counts
    /// as reachable for ten minutes.
    pub fn out_of_reach(&self, runner: &Runner) -> bool {
        self.absent(runner) && (runner.registration() == Registration::Jit || self.is_unregistered(runner))
    }

    /// Whether it can take a job of its group, now or soon.
    pub fn supplies(&self, runner: &Runner) -> bool {
        use RunnerState::*;
        matches!(runner.state, Pending | Waiting | Starting | Running)
            && !self.is_busy(runner)
            && !self.out_of_reach(runner)
            && !self.spent(runner)
    }

    /// The runners that can take a job of the group, now or soon.
    pub fn supply(&self, group: &Group) -> &[&'a Runner] {
        self.known(group).map_or(&[], |known| &known.supply)
    }

    /// Queued, with labels of ours that may be rendered, whatever its age or the repository's state.
    pub fn wants_runner(&self, view: &RepositoryView, job: &WorkflowJob) -> bool {
        let serves = match self.class_of_job(view, job) {
            Some(class) => class.deny.is_none() && !self.denies_a_key(class, job),
            None => !self.policy().classes_only,
        };
        job.status == JobStatus::Queued && self.asks(&job.labels) == Asks::Runner && serves
    }

    /// Whether a class's `deny_keys` contains a key of the job's labels. Value patterns are ignored.
    pub fn denies_a_key(&self, class: &Class, job: &WorkflowJob) -> bool {
        let Some(keys) = class.labels.as_ref().and_then(|rules| rules.deny_keys()) else { return false };
        let mut words = job.labels.iter().flat_map(|label| label.split(' '));
        words.any(|word| keys.contains_key(&word.split('=').next().unwrap_or_default().to_lowercase()))
    }

    /// The first class that covers a job.
    pub fn class_of_job(&self, view: &RepositoryView, job: &WorkflowJob) -> Option<&'a Class> {
        let mut classes = self.policy().classes.iter();
        classes.find(|class| class.matches.covers(&view.repository, &job.labels))
    }

    /// The policy's class with this name.
    pub fn class_named(&self, name: &str) -> Option<&'a Class> {
        self.policy().classes.iter().find(|class| class.name == name)
    }

    /// The class that a runner was started as, if the policy still has it.
    pub fn class_of(&self, runner: &Runner) -> Option<&'a Class> {
        let name = runner.meta.class.as_deref().filter(|_| self.ours(runner));
        name.and_then(|name| self.class_named(name))
    }

    /// How many runners of a class are not dead: in one repository, or in all.
    pub fn live_of_class(&self, class: Option<&str>, within: Option<RepositoryId>) -> usize {
        let of_class = |runner: &&Runner| self.class_of(runner).map(|class| class.name.as_str()) == class;
        let live = self.counted().filter(|runner| runner.state != RunnerState::Dead).filter(of_class);
        let is_within = |runner: &&Runner| {
            let is_of = |id| self.view(runner).is_some_and(|view| view.repository.id == id);
            within.is_none_or(|id| is_of(id) && !self.is_shared(runner))
        };
        live.filter(is_within).count()
    }

    /// Whether a class has its own cap.
    pub fn classes_have_caps(&self) -> bool {
        self.policy().classes.iter().any(|class| {
            class.max_runners.is_some()
                || class.max_runners_per_repository.is_some()
                || class.max_runners_per_group.is_some()
        })
    }

    /// The cap on a group's runners of this class.
    pub fn group_cap(&self, class: Option<&Class>) -> Option<usize> {
        class.and_then(|class| class.max_runners_per_group).unwrap_or(self.policy().max_runners_per_group)
    }

    /// The class's value for a runner, or else the policy's.
    fn limit(&self, runner: &Runner, own: fn(&Class) -> Option<Duration>, top: Duration) -> Duration {
        self.class_of(runner).and_then(own).unwrap_or(top)
    }

    pub fn takes_jobs(&self, view: &RepositoryView) -> bool {
        view.configured && !view.repository.archived && !view.repository.disabled
    }

    /// The demand of each group with demand, in repositories that take jobs.
    pub fn demand(&self) -> impl Iterator<Item = (&Group, &[&'a WorkflowJob])> {
        self.groups
            .iter()
            .filter(|(_, known)| !known.demand.is_empty())
            .map(|(group, known)| (group, known.demand.as_slice()))
    }

    pub fn demand_of(&self, group: &Group) -> usize {
        self.known(group).map_or(0, |known| known.demand.len())
    }

    /// Whether the job with this ID is queued, as far as is known.
    pub fn is_queued(&self, job_id: Option<JobId>) -> bool {
        let job = job_id.and_then(|job_id| self.jobs.get(&job_id));
        job.is_some_and(|(_, job)| job.status == JobStatus::Queued)
    }

    /// The newest attempt of a job.
    pub fn newest(&self, job_id: JobId) -> Option<&'a Runner> {
        self.counted()
            .filter(|runner| runner.meta.job_id() == Some(job_id))
            .max_by(|a, b| a.meta.attempt.cmp(&b.meta.attempt).then(b.name.cmp(&a.name)))
    }

    /// How long a running runner has been idle.
    pub fn idle(&self, runner: &Runner) -> Option<Duration> {
        let running = self.running_for(runner).filter(|_| !self.is_busy(runner))?;
        let busy = self.memory().last_busy.get(&runner.name).map(|at| self.since(*at));
        Some(busy.unwrap_or(running).min(running))
    }

    /// How long its task has been running, by the servers' clock.
    pub fn running_for(&self, runner: &Runner) -> Option<Duration> {
        let nomad = self.nomad().filter(|_| runner.state == RunnerState::Running)?;
        let placed = runner.allocation.as_ref().map_or(runner.submitted_at, |a| a.created_at);
        let known = |at: &Timestamp| age(*at, nomad.now) <= secs(60);
        let started = runner.started_at.filter(known).unwrap_or(placed).max(placed);
        Some(age(nomad.now, started))
    }

    /// How long it has run, for its limit: a warm one since it took its job, by GitHub's clock.
    pub fn in_use_for(&self, runner: &'a Runner) -> Option<Duration> {
        let running = self.running_for(runner)?;
        if self.warm(runner).is_none() {
            return Some(running);
        }
        let views = self.observation().repositories.values();
        let mut jobs = views.flat_map(|view| view.listing.jobs().iter().map(move |job| (view, job)));
        let is_its = |(_, job): &(&RepositoryView, &WorkflowJob)| {
            job.status == JobStatus::InProgress && job.runner_name.as_deref() == Some(&runner.name)
        };
        let (view, job) = jobs.rfind(is_its)?;
        match view.listing {
            Listing::Fresh { now, .. } => Some(age(now, job.started_at?).min(running)),
            _ => None,
        }
    }

    /// How long it may run.
    pub fn max_run_duration(&self, runner: &Runner) -> Option<Duration> {
        let own = self.class_of(runner).and_then(|class| class.max_run_duration);
        own.unwrap_or(self.policy().max_run_duration)
    }

    /// How long a dead runner has been dead. A client's clock that is far ahead of the servers' does not count.
    pub fn dead_for(&self, runner: &Runner) -> Duration {
        let Some(nomad) = self.nomad() else { return Duration::ZERO };
        let known = |at: &Timestamp| age(*at, nomad.now) <= secs(60);
        let died = runner.ended_at.filter(known).unwrap_or(runner.submitted_at);
        self.age(died.max(runner.submitted_at))
    }

    /// Whether an action on it failed recently.
    pub fn waits_after_failure(&self, name: &str) -> bool {
        self.memory().runner_backoff.get(name).is_some_and(|backoff| backoff.until > self.seen.now)
    }

    /// Whether it was recently refused credentials.
    pub fn waits_for_credentials(&self, name: &str) -> bool {
        self.memory().issue_backoff.get(name).is_some_and(|backoff| backoff.until > self.seen.now)
    }

    /// How many attempts of a job are alive, not counting those that have taken another job.
    pub fn live_attempts(&self, job_id: JobId) -> usize {
        let of_job = |runner: &&Runner| runner.meta.job_id() == Some(job_id);
        let alive = |runner: &&Runner| runner.state != RunnerState::Dead && !self.is_busy(runner);
        self.runners().filter(of_job).filter(alive).count()
    }

    /// How long it has had its allocation.
    fn placed_for(&self, runner: &Runner) -> Option<Duration> {
        Some(self.age(runner.allocation.as_ref()?.created_at))
    }

    /// Whether its task has not started in time.
    pub fn is_not_starting(&self, runner: &Runner) -> bool {
        // It cannot start before it has its credentials.
        let released = runner.variable.map(|at| self.age(at));
        let starting = self.placed_for(runner).map(|placed| placed.min(released.unwrap_or(placed)));
        runner.state == RunnerState::Starting
            && starting.is_some_and(|starting| {
                starting >= self.limit(runner, |class| class.starting_timeout, self.policy().starting_timeout)
            })
    }

    /// Whether it has been placed without credentials for too long.
    pub fn is_not_issued(&self, runner: &Runner) -> bool {
        let limit = self.limit(runner, |class| class.waiting_timeout, self.policy().waiting_timeout);
        runner.state == RunnerState::Waiting && self.placed_for(runner).is_some_and(|placed| placed >= limit)
    }

    /// Whether it has been running without a connection to GitHub for too long. One that GitHub has not known for ten
    /// minutes is stopped as unregistered.
    pub fn is_not_connected(&self, runner: &Runner) -> bool {
        let limit = self.limit(runner, |class| class.connect_timeout, self.policy().connect_timeout);
        runner.registration() == Registration::Jit
            && self.absent(runner)
            && !self.is_unregistered(runner)
            && self.idle(runner).is_some_and(|idle| idle >= limit)
    }

    /// Whether it has been without credentials for too long, and not just because nobody has tried.
    pub fn is_refused(&self, runner: &Runner) -> bool {
        self.is_not_issued(runner) && self.memory().issue_backoff.contains_key(&runner.name)
    }

    /// Whether GitHub has given it no job for too long, although one of its group has been waiting as long.
    pub fn is_unassigned(&self, runner: &'a Runner) -> bool {
        let limit = self.limit(runner, |class| class.unassigned_timeout, self.policy().unassigned_timeout);
        let waits = |group: &Group| {
            let known = self.known(group);
            known.is_some_and(|known| {
                known.demand.iter().any(|job| {
                    let view = self.view(runner);
                    view.and_then(|view| self.queued_for(view, job)).is_some_and(|queued| queued >= limit)
                })
            })
        };
        self.warm(runner).is_none()
            && self.supplies(runner)
            && self.idle(runner).is_some_and(|idle| idle >= limit)
            && self.group(runner).is_some_and(waits)
    }

    /// Whether it has made no progress for so long that others get its place. A runner that GitHub has not known for
    /// ten minutes is not verified again: it is stopped as unregistered.
    pub fn is_stuck(&self, runner: &'a Runner) -> bool {
        let stuck = self.is_refused(runner) || self.is_not_connected(runner) || self.is_unassigned(runner);
        self.ours(runner) && stuck
    }

    /// Whether the other runners of its group would fare no better.
    pub fn is_stuck_with_its_group(&self, runner: &'a Runner) -> bool {
        self.ours(runner)
            && (self.is_refused(runner) || self.is_unassigned(runner) || self.is_not_starting(runner))
    }

    /// Whether the group's last runner was stopped recently although its job is still waiting: for ten minutes after a
    /// first attempt, doubling with each attempt, at most four hours.
    pub fn gave_up_its_place(&self, group: &Group) -> bool {
        let of_group =
            self.runners().filter(|runner| self.group(runner) == Some(group) && self.warm(runner).is_none());
        let last = of_group.max_by(|a, b| (a.submitted_at, &a.name).cmp(&(b.submitted_at, &b.name)));
        last.is_some_and(|last| {
            let attempt = last.meta.attempt.unwrap_or(1);
            let lateness = secs(14_400.min(600 << attempt.saturating_sub(1).min(10)));
            let stopped = last.allocation.is_none() || last.finish == Some(Finish::Stopped);
            last.state == RunnerState::Dead
                && stopped
                && self.dead_for(last) < lateness
                && self.is_queued(last.meta.job_id())
        })
    }

    pub fn was_surplus(&self, runner: &Runner) -> bool {
        let Some(view) = self.view(runner) else { return false };
        let Listing::Fresh { now, .. } = view.listing else { return false };
        let since = self.memory().surplus.get(&view.repository.id).and_then(|names| names.get(&runner.name));
        since.is_some_and(|since| now.duration_since(*since).as_secs_f64() >= 5.0)
    }
}

/// Whether it is in the plan's surplus.
pub fn is_surplus(plan: &Plan, runner: &Runner) -> bool {
    plan.surplus.values().any(|names| names.contains(&runner.name))
}

/// Whether the plan stops it.
pub fn is_stopped(plan: &Plan, runner: &str) -> bool {
    stops(plan).any(|stop| stop.name == runner)
}

pub fn starts(plan: &Plan) -> impl Iterator<Item = &Start> {
    plan.actions.iter().filter_map(|action| match action {
        Action::Start(start) => Some(start),
        _ => None,
    })
}

/// The starts for jobs.
pub fn job_starts(plan: &Plan) -> impl Iterator<Item = (JobId, &Start)> {
    starts(plan).filter_map(|start| match start.purpose {
        Purpose::Job(job_id) => Some((job_id, start)),
        Purpose::Warm(_) => None,
    })
}

/// The starts of warm runners.
pub fn warm_starts(plan: &Plan) -> impl Iterator<Item = (&Warm, &Start)> {
    starts(plan).filter_map(|start| match &start.purpose {
        Purpose::Job(_) => None,
        Purpose::Warm(warm) => Some((warm, start)),
    })
}

pub fn stops(plan: &Plan) -> impl Iterator<Item = &Stop> {
    plan.actions.iter().filter_map(|action| match action {
        Action::Stop(stop) => Some(stop),
        _ => None,
    })
}

/// The hold reasons for a GitHub job.
pub fn job_holds(plan: &Plan, job: JobId) -> impl Iterator<Item = &HoldReason> {
    plan.holds.iter().filter_map(move |hold| match &hold.subject {
        Subject::Job { id, .. } if *id == job => Some(&hold.reason),
        _ => None,
    })
}

/// The hold reasons for a runner.
pub fn runner_holds<'a>(plan: &'a Plan, runner: &str) -> impl Iterator<Item = &'a HoldReason> {
    plan.holds.iter().filter_map(move |hold| match &hold.subject {
        Subject::Runner { name } if name == runner => Some(&hold.reason),
        _ => None,
    })
}

/// The hold reasons for a repository.
pub fn repository_holds<'a>(plan: &'a Plan, repository: &str) -> impl Iterator<Item = &'a HoldReason> {
    plan.holds.iter().filter_map(move |hold| match &hold.subject {
        Subject::Repository { name } if name == repository => Some(&hold.reason),
        _ => None,
    })
}
