//! Generates the parts of a case: jobs, runners and repositories that collide.

use std::collections::BTreeMap;

use githubrunner::model::*;
use proptest::{prelude::*, sample::select};

use crate::cases::{AGES, BAD, DEPLOYMENT, GOOD, NOW, PREFIX, ago, repository, secs, server_now};

/// A client whose clock is days behind.
const BEHIND: u64 = 200_000;

#[derive(Clone, Debug)]
pub struct JobSpec {
    labels: (usize, u8),
    status: JobStatus,
    runner: Option<usize>,
    age: Option<u64>,
    /// Listed a second time in the same listing.
    again: Option<(JobStatus, Option<usize>)>,
}

#[derive(Clone, Debug)]
pub struct RunnerSpec {
    /// The index of a job, or of one that is no longer listed, or none.
    job_id: Option<(bool, usize)>,
    attempt: Option<u32>,
    labels: (usize, u8),
    state: RunnerState,
    /// nomadtools' own, lost, started although that is optional, with a variable if either is possible, on a draining
    /// node.
    flags: (bool, bool, bool, bool, bool),
    registration: Registration,
    /// Seconds since it was submitted, and from there to placement, start and end.
    times: (u64, u64, u64, u64),
    finish: Finish,
    exhausted: Option<bool>,

    memory: Remembered,
}

fn status() -> impl Strategy<Value = JobStatus> {
    use JobStatus::*;
    prop_oneof![12 => Just(Queued), 4 => Just(InProgress), 2 => Just(Completed), 1 => Just(Waiting), 1 => Just(Pending),
        1 => Just(Requested), 1 => Just(Unknown)]
}

pub fn labels(good_only: bool) -> impl Strategy<Value = (usize, u8)> {
    let few = prop_oneof![6 => 0..1_usize, 4 => 1..GOOD.len()];
    let all = prop_oneof![8 => few.clone(), 2 => GOOD.len()..GOOD.len() + BAD.len()];
    let index = if good_only { few.boxed() } else { all.boxed() };
    (index, prop_oneof![3 => Just(0_u8), 2 => 0..8_u8])
}

pub fn job() -> impl Strategy<Value = JobSpec> {
    let on = || proptest::option::weighted(0.5, 0..12_usize);
    let age = prop_oneof![5 => select(&AGES[..12]).prop_map(Some), 1 => select(vec![86_399, 86_400, 86_401]).prop_map(Some),
        1 => Just(None)];
    (labels(false), status(), on(), age, proptest::option::weighted(0.2, (status(), on())))
        .prop_map(|(labels, status, runner, age, again)| JobSpec { labels, status, runner, age, again })
}

pub fn runner_spec() -> impl Strategy<Value = RunnerSpec> {
    use RunnerState::*;
    let job_id = prop_oneof![
        6 => (Just(true), 0..10_usize).prop_map(Some),
        3 => (Just(false), 0..6_usize).prop_map(Some),
        1 => Just(None)
    ];
    let attempt = prop_oneof![20 => (1..5_u32).prop_map(Some), 3 => select(vec![6, 7, 50]).prop_map(Some), 1 => Just(None)];
    let state = prop_oneof![3 => Just(Pending), 2 => Just(Waiting), 2 => Just(Starting), 5 => Just(Running), 1 => Just(Stopping),
        1 => Just(Disconnected), 5 => Just(Dead)];
    let flag = proptest::bool::weighted;
    let registration = prop_oneof![
        6 => Just(Registration::Jit),
        1 => Just(Registration::Token),
        1 => Just(Registration::AccessToken)
    ];
    let age = || select(AGES.to_vec());
    let lately = prop_oneof![3 => select(AGES[..12].to_vec()), 2 => age()];
    let times = (age(), select(vec![0, 1, 60]), select(vec![0, 1, 60, BEHIND]), lately);
    let finish = prop_oneof![
        Just(Finish::Success),
        Just(Finish::Stopped),
        Just(Finish::Failure { exit_code: Some(1) }),
        Just(Finish::OutOfMemory),
    ];
    let presence = (proptest::option::weighted(0.8, age()), age());
    let memory = (
        flag(0.7),
        proptest::option::weighted(0.25, presence),
        proptest::option::weighted(0.15, age()),
        proptest::option::weighted(0.12, -1..2_i64),
    );
    (
        job_id,
        attempt,
        labels(true),
        state,
        (flag(0.12), flag(0.1), flag(0.1), flag(0.5), flag(0.06)),
        registration,
        times,
        finish,
        proptest::option::weighted(0.7, flag(0.6)),
        memory,
    )
        .prop_map(
            |(job_id, attempt, labels, state, flags, registration, times, finish, exhausted, memory)| {
                RunnerSpec {
                    job_id,
                    attempt,
                    labels,
                    state,
                    flags,
                    registration,
                    times,
                    finish,
                    exhausted,
                    memory,
                }
            },
        )
}

/// Two attempts at one job, to reach the limit: both are alive, and neither can take the job.
#[derive(Clone, Debug)]
pub struct Pair {
    job: usize,
    attempt: u32,
    /// Connected once but out of GitHub's reach, or else out of the servers'.
    idle: (bool, bool),
    runners: (RunnerSpec, RunnerSpec),
}

pub fn pair() -> impl Strategy<Value = Pair> {
    let idle = (any::<bool>(), any::<bool>());
    (0..4_usize, 1..4_u32, idle, (runner_spec().boxed(), runner_spec().boxed()))
        .prop_map(|(job, attempt, idle, runners)| Pair { job, attempt, idle, runners })
}

impl Pair {
    /// Its runners in the form that [`build`] needs.
    pub fn specs(&self) -> [RunnerSpec; 2] {
        let out_of_reach = |spec: &RunnerSpec, attempt: u32, idle: bool| {
            let (surplus, presence, busy, failed) = &spec.memory;
            let absent = presence.map_or((Some(60), 0), |(absent, asked)| (absent.or(Some(60)), asked));
            RunnerSpec {
                job_id: Some((true, self.job)),
                attempt: Some(attempt),
                state: if idle { RunnerState::Running } else { RunnerState::Disconnected },
                flags: (false, false, spec.flags.2, true, false),
                registration: Registration::Jit,
                memory: (*surplus, Some(absent), *busy, *failed),
                ..spec.clone()
            }
        };
        [
            out_of_reach(&self.runners.0, self.attempt, self.idle.0),
            out_of_reach(&self.runners.1, self.attempt + 1, self.idle.1),
        ]
    }
}

/// Previously surplus; presence (absent since, asked); last busy; failed (until, relative to now).
type Remembered = (bool, Option<(Option<u64>, u64)>, Option<u64>, Option<i64>);

/// How a repository is seen: its properties, the kind of its listing, whether that is complete, since when it
/// is gone.
pub type RepositorySpec = (u8, u8, bool, u64);

pub fn repository_spec() -> impl Strategy<Value = RepositorySpec> {
    let oddity = prop_oneof![14 => Just(0_u8), 1 => Just(1_u8), 1 => Just(2_u8), 1 => Just(3_u8)];
    let kind =
        prop_oneof![12 => Just(0_u8), 1 => Just(1_u8), 1 => Just(2_u8), 1 => Just(3_u8), 1 => Just(4_u8)];
    (oddity, kind, proptest::bool::weighted(0.85), select(AGES.to_vec()))
}

pub fn backoff(until: i64) -> Backoff {
    Backoff {
        failures: 1,
        until: Moment::after_start(secs((NOW.since_start().as_secs() as i64 + until) as u64)),
        error: "500".to_owned(),
    }
}

/// The labels spelled differently: in upper case, in another order, twice.
pub fn spell(index: usize, spelling: u8) -> Vec<String> {
    let set = GOOD.get(index).copied().unwrap_or_else(|| BAD[index - GOOD.len()]);
    let upper = |label: &str| match label.split_once("tools") {
        Some((_, rest)) => format!("nomadtools{}", rest.to_uppercase()),
        None => label.to_uppercase(),
    };
    let mut labels: Vec<String> =
        set.iter().map(|l| if spelling & 1 == 1 { upper(l) } else { (*l).to_owned() }).collect();
    if spelling & 2 == 2 {
        labels.reverse();
    }
    if spelling & 4 == 4 {
        labels.extend(set.first().map(|label| upper(label)));
    }
    labels
}

pub fn build(repositories: &[RepositorySpec], jobs: &[JobSpec], specs: &[RunnerSpec]) -> Observation {
    let mut memory = Memory::default();
    let mut runners: BTreeMap<String, Runner> = BTreeMap::new();
    let mut names = Vec::new();
    for (at, spec) in specs.iter().enumerate() {
        let runner = runner_of(at, spec, repositories.len(), jobs);
        let name = runner.name.clone();
        names.push(name.clone());
        let (surplus, presence, busy, failed) = &spec.memory;
        if let Some(id) = runner.meta.repo_id.filter(|_| *surplus) {
            memory.surplus.entry(id).or_default().insert(name.clone(), ago([60, 5, 60, 4][at % 4]));
        }
        if let Some((absent, checked)) = presence {
            let checked = absent.map_or(*checked, |absent| absent.min(*checked));
            let presence =
                Presence { checked_at: NOW - secs(checked), absent_since: absent.map(|a| NOW - secs(a)) };
            memory.presence.insert(name.clone(), presence);
        }
        memory.last_busy.extend(busy.map(|age| (name.clone(), NOW - secs(age))));
        let failed = failed.map(|until| (name.clone(), backoff(until)));
        if runner.state == RunnerState::Waiting && at % 3 > 0 {
            memory.issue_backoff.extend(failed);
        } else {
            memory.runner_backoff.extend(failed);
        }
        runners.insert(name, runner);
    }
    let (ended, reruns) = losses(&mut runners);
    let is_settled = |runner: &&Runner| {
        runner.lost.is_some() && runner.name.bytes().map(usize::from).sum::<usize>() % 7 == 3
    };
    memory.not_lost.extend(runners.values().filter(is_settled).map(|runner| runner.name.clone()));
    let views = views(repositories, jobs, &names);
    let runners: Vec<Runner> = runners.into_values().collect();
    let variable = |runner: &Runner| RunnerVariable { namespace: None, name: runner.name.clone() };
    let variables = runners.iter().filter(|r| r.variable.is_some()).map(variable).collect();
    let nomad = NomadView {
        now: server_now(),
        deployment: DEPLOYMENT.to_owned(),
        runners,
        foreign: Vec::new(),
        variables,
        unseen: BTreeMap::new(),
    };
    Observation { nomad: Some(nomad), repositories: views, registrations: Vec::new(), ended, reruns, memory }
}

/// The views of the drawn repositories.
fn views(
    repositories: &[RepositorySpec],
    jobs: &[JobSpec],
    names: &[String],
) -> BTreeMap<RepositoryId, RepositoryView> {
    let mut views = BTreeMap::new();
    for (at, &(oddity, kind, complete, since)) in repositories.iter().enumerate() {
        let mut repository = repository(at);
        repository.archived = oddity == 1;
        repository.disabled = oddity == 2;
        let jobs = listed(at, repositories.len(), jobs, names);
        let listing = match kind {
            0 => Listing::Fresh { now: server_now(), jobs, complete },
            1 => Listing::Stale { jobs, complete, reason: "503".to_owned() },
            4 => Listing::Earlier { ended: NOW - secs(since % 60), jobs, complete },
            2 => Listing::Unseen { reason: "503".to_owned() },
            _ => Listing::Gone { since: NOW - secs(since) },
        };
        views.insert(
            repository.id,
            RepositoryView { repository, configured: oddity != 3, listing, missing: None },
        );
    }
    views
}

/// The losses of runners, the ends of their jobs, and their re-runs, all derived from what has been drawn.
fn losses(runners: &mut BTreeMap<String, Runner>) -> (BTreeMap<String, Ended>, Option<Vec<RerunMark>>) {
    let (mut ended, mut marks) = (BTreeMap::new(), Vec::new());
    let count = runners.len();
    for (at, runner) in runners.values_mut().enumerate() {
        let loss = match &runner.finish {
            Some(Finish::Lost) => Loss::Node,
            Some(Finish::OutOfMemory) => Loss::Memory,
            Some(Finish::Drained) => Loss::Drain,
            Some(Finish::Stopped) if at % 2 == 0 => Loss::Preemption,
            _ if at % 4 == 0 => Loss::Node,
            _ => continue,
        };
        let mut random =
            runner.name.bytes().fold(at, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let mut one_of = |of: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % of
        };
        let since = [1, 90, 700, 80_000, 90_000][one_of(5)];
        runner.lost = Some(Lost { loss, at: ago(since) });
        let end = [0, since / 2, since, since + 2, since + 3, since + 60, since + 61][one_of(7)];
        let job = EndedJob {
            id: JobId(900 + at as u64),
            run_id: RunId(1 + one_of(12) as u64),
            run_attempt: [1, 2, 50, 51][one_of(4)],
            key: ["build", "test"][one_of(2)].to_owned(),
            conclusion: [Conclusion::Failure, Conclusion::Failure, Conclusion::Cancelled, Conclusion::Other]
                [one_of(4)],
            runner: runner.name.clone(),
            created_at: ago(since + 1000),
            started_at: ago(since + 900),
            completed_at: ago(end),
        };
        let mark = |runner: &str, seconds| RerunMark {
            run_id: job.run_id,
            key: job.key.clone(),
            runner: runner.to_owned(),
            at: ago(seconds),
        };
        match one_of(6) {
            0 => marks.push(mark(last_part(&runner.name), 60)),
            1 => marks.push(mark("another", 3000)),
            2 => marks.push(mark("another", 4000)),
            3 => marks.push(mark(&format!("old{at}"), 700_000)),
            _ => {}
        }
        if one_of(8) > 0 {
            ended.insert(runner.name.clone(), Ended { job, ago: secs(end) });
        }
    }
    marks.sort();
    marks.dedup();
    (ended, (count % 7 != 6).then_some(marks))
}

/// The jobs of one repository: those whose index modulo the number of repositories matches.
fn listed(at: usize, repositories: usize, jobs: &[JobSpec], names: &[String]) -> Vec<WorkflowJob> {
    let mut list = Vec::new();
    for (index, spec) in jobs.iter().enumerate().filter(|(index, _)| index % repositories == at) {
        let named = |runner: Option<usize>| {
            runner.map(|r| names.get(r).cloned().unwrap_or_else(|| format!("foreign{r}")))
        };
        let sightings = std::iter::once((spec.status, spec.runner)).chain(spec.again);
        list.extend(sightings.map(|(status, runner)| WorkflowJob {
            id: JobId(index as u64 + 1),
            run_id: RunId(1),
            repository: repository(at).id,
            name: "build".to_owned(),
            status,
            labels: spell(spec.labels.0, spec.labels.1).into(),
            runner_name: named(runner.filter(|_| status != JobStatus::Queued)),
            created_at: spec.age.map(ago),
            started_at: None,
            html_url: None,
            run: Default::default(),
        }));
    }
    list
}

/// The Meta of a drawn runner of ours, or of nomadtools.
fn meta_of(
    spec: &RunnerSpec,
    repository: &Repository,
    job_id: Option<JobId>,
    labels: (usize, u8),
) -> RunnerMeta {
    let of_nomadtools = RunnerMeta {
        labelsstr: Labels::new(spell(labels.0, labels.1)).joined(),
        repo_url: repository.html_url.clone(),
        version: "1".to_owned(),
        ..RunnerMeta::default()
    };
    if spec.flags.0 {
        return of_nomadtools;
    }
    RunnerMeta {
        deployment: Some(DEPLOYMENT.to_owned()),
        repo_id: Some(repository.id),
        purpose: job_id.map(Purpose::Job),
        attempt: spec.attempt,
        registration: Some(spec.registration),
        ..of_nomadtools
    }
}

fn runner_of(at: usize, spec: &RunnerSpec, repositories: usize, jobs: &[JobSpec]) -> Runner {
    use RunnerState::*;
    let (theirs, lost, started, variable, draining) = spec.flags;
    let state = spec.state;
    let (id, index, labels) = match spec.job_id {
        Some((true, index)) => {
            let own = jobs.get(index).map(|job| job.labels).filter(|(labels, _)| *labels < GOOD.len());
            (Some(JobId(index as u64 + 1)), index, own.unwrap_or(spec.labels))
        }
        Some((false, index)) => (Some(JobId(index as u64 + 101)), index, spec.labels),
        None => (None, at, spec.labels),
    };
    let repository = repository(index % repositories);
    let name = match (theirs, id) {
        (false, Some(id)) => {
            runner_name(PREFIX, DEPLOYMENT, None, &repository.full_name(), id, spec.attempt.unwrap_or(1))
        }
        _ => format!("{PREFIX}-other-{at}"),
    };
    let placed = state != Pending && !(state == Dead && started);
    let started = matches!(state, Running | Stopping)
        || (state == Dead && placed)
        || (lost && placed)
        || (started && placed && state == Disconnected);
    let (submitted, place, start, dead) = spec.times;
    let later = |seconds: u64| ago(submitted.saturating_sub(seconds));
    let needs_variable = theirs || spec.registration.needs_variable();
    Runner {
        name,
        namespace: None,
        ownership: if theirs { Ownership::Nomadtools } else { Ownership::Ours },
        meta: meta_of(spec, &repository, id, labels),
        state,
        finish: (state == Dead).then(|| spec.finish.clone()),
        started,
        spent: lost && placed,
        ending: lost && placed && variable,
        lost: None,
        variable: match state {
            Waiting => false,
            Starting => needs_variable,
            _ => needs_variable && placed && variable,
        }
        .then(|| later(place + start)),
        submitted_at: ago(submitted),
        allocation: placed.then(|| Allocation {
            id: "a".to_owned(),
            node: "n".to_owned(),
            node_id: "n".to_owned(),
            draining,
            created_at: later(place),
        }),
        started_at: (started && placed)
            .then(|| if start == BEHIND { ago(200_000) } else { later(place + start) }),
        ended_at: (state == Dead && placed).then(|| ago(dead.min(submitted))),
        blocked: spec
            .exhausted
            .filter(|_| state == Pending)
            .map(|exhausted| Blocked { exhausted, reason: "memory".to_owned() }),
        last_event: None,
    }
}
