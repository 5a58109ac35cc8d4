//! Observations and policies, drawn from few distinct parts so that they collide: few jobs, few groups, ages
//! around the planner's limits.

use std::{collections::BTreeMap, sync::OnceLock, time::Duration};

use githubrunner::{
    labels::LabelRules,
    model::*,
    plan::{Policy, plan},
};
use jiff::SignedDuration;
use proptest::{
    collection::vec,
    prelude::*,
    sample::select,
    strategy::ValueTree,
    test_runner::{Config, RngSeed, TestCaseError, TestRunner},
};

use crate::strays::{add_stray, stray};

pub const PREFIX: &str = "ghr";
pub const INSTANCE: &str = "instance";

/// Our own clock at the time of the plan.
pub const NOW: Moment = Duration::from_secs(100_000);

/// Ages around the planner's limits, in seconds.
const AGES: [u64; 20] =
    [0, 1, 29, 30, 31, 59, 60, 61, 119, 120, 121, 240, 599, 600, 601, 3599, 3600, 3601, 86_401, 100_000];

/// Labels that may be rendered. The first word stays as it is: `runson_match` minds case, as Python's does.
pub const GOOD: [&[&str]; 4] =
    [&["nomadtools"], &["nomadtools a"], &["nomadtools", "gpu"], &["nomadtools mem=100", "Big"]];

/// Labels that get nothing.
const BAD: [&[&str]; 5] =
    [&[], &["ubuntu-latest"], &["nomadtools x,y"], &["nomadtools \u{1b}[2J\n"], &["nomadtools mem=12345678"]];

/// The servers' clock at the time of the plan.
pub fn server_now() -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_hours(500_000)
}

pub fn ago(seconds: u64) -> Timestamp {
    server_now() - SignedDuration::from_secs(seconds as i64)
}

pub fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Compiled once: that takes longer than a plan.
pub fn rules() -> LabelRules {
    static RULES: OnceLock<LabelRules> = OnceLock::new();
    RULES.get_or_init(|| LabelRules::new("nomadtools *(.*)").unwrap()).clone()
}

pub fn repository(index: usize) -> Repository {
    let id = RepositoryId(index as u64 + 1);
    Repository {
        id,
        owner: "Own.er".to_owned(),
        name: format!("r{id}"),
        html_url: format!("https://github.com/Own.er/r{id}"),
        archived: false,
        disabled: false,
    }
}

/// What the planner gets, and its plan.
#[derive(Clone)]
pub struct Case {
    pub observation: Observation,
    pub policy: Policy,
}

impl Case {
    pub fn plan(&self) -> Plan {
        plan(&self.observation, &self.policy, NOW)
    }

    /// The runners; none when Nomad is unseen.
    pub fn runners(&self) -> &[Runner] {
        self.observation.nomad.as_ref().map_or(&[], |nomad| &nomad.runners)
    }
}

/// Cases that all properties of single plans share: drawing one takes longer than planning and checking it.
pub const CASES: u32 = 2500;

/// Checks a property over the shared cases (PROPTEST_CASES: so many), and shows the smallest world in which
/// it fails.
#[track_caller]
pub fn for_all(property: impl Fn(&Case, &Plan) -> Result<(), TestCaseError>) {
    show(shared(), &case(), property);
}

/// Checks a property over cases that were drawn from the strategy already.
#[track_caller]
pub fn show(
    cases: &[(Case, Plan)],
    strategy: &impl Strategy<Value = Case>,
    property: impl Fn(&Case, &Plan) -> Result<(), TestCaseError>,
) {
    for (at, (case, plan)) in cases.iter().enumerate() {
        let Err(first) = property(case, plan) else { continue };
        // The same case is drawn once more, now to find a smaller one.
        let mut runner = runner(CASES);
        let mut tree = strategy.new_tree(&mut runner).unwrap();
        for _ in 0..at {
            tree = strategy.new_tree(&mut runner).unwrap();
        }
        match runner.run_one(tree, |case| property(&case, &case.plan())) {
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("{first}\n{case:?}"),
        }
    }
}

/// The shared cases with their plans.
pub fn shared() -> &'static [(Case, Plan)] {
    static SHARED: OnceLock<Vec<(Case, Plan)>> = OnceLock::new();
    SHARED.get_or_init(|| {
        let mut runner = runner(CASES);
        let strategy = case();
        (0..runner.config().cases)
            .map(|_| strategy.new_tree(&mut runner).unwrap().current())
            .map(|case| (case.clone(), case.plan()))
            .collect()
    })
}

/// So many cases, unless PROPTEST_CASES asks for another number; nothing is written down.
pub fn config(cases: u32) -> Config {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    Config {
        cases: asked.unwrap_or(cases),
        failure_persistence: None,
        max_shrink_iters: 20_000,
        rng_seed: RngSeed::Fixed(7),
        ..Config::default()
    }
}

/// The same cases at every run.
pub fn runner(cases: u32) -> TestRunner {
    TestRunner::new(config(cases))
}

#[derive(Clone, Debug)]
struct JobSpec {
    labels: (usize, u8),
    status: JobStatus,
    runner: Option<usize>,
    age: Option<u64>,
    /// Seen a second time in the same listing.
    again: Option<(JobStatus, Option<usize>)>,
}

#[derive(Clone, Debug)]
struct RunnerSpec {
    /// A job's index, or that of one nobody lists any more, or none.
    cause: Option<(bool, usize)>,
    attempt: Option<u32>,
    labels: (usize, u8),
    state: RunnerState,
    /// nomadtools' own, lost, started although it need not be, with a variable where both is possible.
    flags: (bool, bool, bool, bool),
    registration: Registration,
    /// Submitted, placed so much later, started later, ended later.
    times: (u64, u64, u64, u64),
    finish: Finish,
    exhausted: Option<bool>,
    /// In the surplus before, presence (absent, checked), busy last, failed (until relative to now).
    memory: (bool, Option<(Option<u64>, u64)>, Option<u64>, Option<i64>),
}

fn status() -> impl Strategy<Value = JobStatus> {
    use JobStatus::*;
    prop_oneof![12 => Just(Queued), 4 => Just(InProgress), 2 => Just(Completed), 1 => Just(Waiting), 1 => Just(Pending),
        1 => Just(Requested), 1 => Just(Unknown)]
}

fn labels(good_only: bool) -> impl Strategy<Value = (usize, u8)> {
    let few = prop_oneof![6 => 0..1_usize, 4 => 1..GOOD.len()];
    let all = prop_oneof![8 => few.clone(), 2 => GOOD.len()..GOOD.len() + BAD.len()];
    let index = if good_only { few.boxed() } else { all.boxed() };
    (index, prop_oneof![3 => Just(0_u8), 2 => 0..8_u8])
}

fn job() -> impl Strategy<Value = JobSpec> {
    let on = || proptest::option::weighted(0.5, 0..12_usize);
    let age = prop_oneof![5 => select(&AGES[..12]).prop_map(Some), 1 => select(vec![86_399, 86_400, 86_401]).prop_map(Some),
        1 => Just(None)];
    (labels(false), status(), on(), age, proptest::option::weighted(0.2, (status(), on())))
        .prop_map(|(labels, status, runner, age, again)| JobSpec { labels, status, runner, age, again })
}

fn runner_spec() -> impl Strategy<Value = RunnerSpec> {
    use RunnerState::*;
    let cause = prop_oneof![
        6 => (Just(true), 0..10_usize).prop_map(Some),
        3 => (Just(false), 0..6_usize).prop_map(Some),
        1 => Just(None)
    ];
    let attempt = prop_oneof![20 => (1..5_u32).prop_map(Some), 1 => Just(None)];
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
    let times = (age(), select(vec![0, 1, 60]), select(vec![0, 1, 60]), lately);
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
        cause,
        attempt,
        labels(true),
        state,
        (flag(0.12), flag(0.1), flag(0.1), flag(0.5)),
        registration,
        times,
        finish,
        proptest::option::weighted(0.7, flag(0.6)),
        memory,
    )
        .prop_map(
            |(cause, attempt, labels, state, flags, registration, times, finish, exhausted, memory)| {
                RunnerSpec {
                    cause,
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

pub fn policy() -> impl Strategy<Value = Policy> {
    let cap = || proptest::option::weighted(0.4, 0..5_usize);
    let time = |values: &'static [u64]| proptest::option::weighted(0.8, select(values).prop_map(secs));
    let idle = proptest::option::weighted(0.6, select(&[0_u64, 60, 600][..]).prop_map(secs));
    let times = (idle, time(&[0, 60, 600]), time(&[0, 600, 3600]), time(&[0, 60, 600]));
    (cap(), cap(), cap(), proptest::bool::weighted(0.3), times).prop_map(
        |(all, repository, group, strict, (idle, success, failure, patience))| Policy {
            prefix: PREFIX.to_owned(),
            labels: rules(),
            max_runners: all,
            max_runners_per_repository: repository,
            max_runners_per_group: group,
            runner_inactivity_timeout: idle,
            strict,
            purge_successfull_timeout: success,
            purge_failure_timeout: failure,
            pending_to_kill_listening: patience,
        },
    )
}

/// How a repository is seen: what it is, its listing's kind, whether that is complete, since when it is gone.
type RepositorySpec = (u8, u8, bool, u64);

fn repository_spec() -> impl Strategy<Value = RepositorySpec> {
    let oddity = prop_oneof![14 => Just(0_u8), 1 => Just(1_u8), 1 => Just(2_u8), 1 => Just(3_u8)];
    let kind = prop_oneof![12 => Just(0_u8), 2 => Just(1_u8), 1 => Just(2_u8), 1 => Just(3_u8)];
    (oddity, kind, proptest::bool::weighted(0.85), select(AGES.to_vec()))
}

/// Everything: any listing, any runner, any memory, any policy.
pub fn case() -> impl Strategy<Value = Case> {
    let groups_failed = vec((0..3_usize, labels(true), -1..2_i64), 0..2);
    let started = vec((0..3_usize, select(AGES.to_vec())), 0..3);
    let strays = vec(stray(), 0..4);
    (
        vec(repository_spec(), 1..4),
        vec(job(), 0..9),
        vec(runner_spec(), 0..9),
        policy(),
        groups_failed,
        started,
        strays,
        proptest::bool::weighted(0.02),
    )
        .prop_map(|(repositories, jobs, runners, policy, failed, started, strays, blind)| {
            let mut observation = build(&repositories, &jobs, &runners);
            for (at, (labels, spelling), until) in failed {
                let group =
                    GroupKey { repository: repository(at).id, labels: Labels::new(spell(labels, spelling)) };
                observation.memory.start_backoff.insert(group, backoff(until));
            }
            for (at, age) in started {
                observation.memory.last_start.insert(repository(at).id, ago(age));
            }
            strays.iter().for_each(|stray| add_stray(&mut observation, stray));
            if blind {
                observation.nomad = None;
            }
            Case { observation, policy }
        })
}

fn backoff(until: i64) -> Backoff {
    Backoff { failures: 1, until: secs((NOW.as_secs() as i64 + until) as u64), error: "500".to_owned() }
}

/// The labels, otherwise written: in upper case, in another order, twice.
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

fn build(repositories: &[RepositorySpec], jobs: &[JobSpec], specs: &[RunnerSpec]) -> Observation {
    let mut memory = Memory::default();
    let mut runners: BTreeMap<String, Runner> = BTreeMap::new();
    let mut names = Vec::new();
    for (at, spec) in specs.iter().enumerate() {
        let runner = runner_of(at, spec, repositories.len(), jobs);
        let name = runner.name.clone();
        names.push(name.clone());
        let (surplus, presence, busy, failed) = &spec.memory;
        if let Some(id) = runner.meta.repo_id.filter(|_| *surplus) {
            memory.surplus.entry(id).or_default().insert(name.clone());
        }
        if let Some((absent, checked)) = presence {
            let checked = absent.map_or(*checked, |absent| absent.min(*checked));
            let presence =
                Presence { checked_at: NOW - secs(checked), absent_since: absent.map(|a| NOW - secs(a)) };
            memory.presence.insert(name.clone(), presence);
        }
        memory.last_busy.extend(busy.map(|age| (name.clone(), NOW - secs(age))));
        memory.runner_backoff.extend(failed.map(|until| (name.clone(), backoff(until))));
        runners.insert(name, runner);
    }
    let mut views = BTreeMap::new();
    for (at, &(oddity, kind, complete, since)) in repositories.iter().enumerate() {
        let mut repository = repository(at);
        repository.archived = oddity == 1;
        repository.disabled = oddity == 2;
        let jobs = listed(at, repositories.len(), jobs, &names);
        let listing = match kind {
            0 => Listing::Fresh { now: server_now(), jobs, complete },
            1 => Listing::Stale { jobs, complete, reason: "503".to_owned() },
            2 => Listing::Unseen { reason: "503".to_owned() },
            _ => Listing::Gone { since: NOW - secs(since) },
        };
        views.insert(repository.id, RepositoryView { repository, configured: oddity != 3, listing });
    }
    let runners: Vec<Runner> = runners.into_values().collect();
    let variables = runners.iter().filter(|r| r.has_variable).map(|r| r.name.clone()).collect();
    let nomad = NomadView { now: server_now(), instance: INSTANCE.to_owned(), runners, variables };
    Observation { nomad: Some(nomad), repositories: views, registrations: Vec::new(), memory }
}

/// The jobs of one repository: those whose index has its remainder.
fn listed(at: usize, repositories: usize, jobs: &[JobSpec], names: &[String]) -> Vec<WorkflowJob> {
    let mut list = Vec::new();
    for (index, spec) in jobs.iter().enumerate().filter(|(index, _)| index % repositories == at) {
        let named = |runner: Option<usize>| {
            runner.map(|r| names.get(r).cloned().unwrap_or_else(|| format!("foreign{r}")))
        };
        let sightings = std::iter::once((spec.status, spec.runner)).chain(spec.again);
        list.extend(sightings.map(|(status, runner)| WorkflowJob {
            id: index as u64 + 1,
            run_id: 1,
            repository: repository(at).id,
            name: "build".to_owned(),
            status,
            labels: spell(spec.labels.0, spec.labels.1),
            runner_name: named(runner.filter(|_| status != JobStatus::Queued)),
            created_at: spec.age.map(ago),
            html_url: None,
        }));
    }
    list
}

fn runner_of(at: usize, spec: &RunnerSpec, repositories: usize, jobs: &[JobSpec]) -> Runner {
    use RunnerState::*;
    let (theirs, lost, started, variable) = spec.flags;
    let state = spec.state;
    let (id, index, labels) = match spec.cause {
        Some((true, index)) => {
            let own = jobs.get(index).map(|job| job.labels).filter(|(labels, _)| *labels < GOOD.len());
            (Some(index as u64 + 1), index, own.unwrap_or(spec.labels))
        }
        Some((false, index)) => (Some(index as u64 + 101), index, spec.labels),
        None => (None, at, spec.labels),
    };
    let repository = repository(index % repositories);
    let name = match (theirs, id) {
        (false, Some(id)) => runner_name(PREFIX, INSTANCE, &repository, id, spec.attempt.unwrap_or(1)),
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
        ownership: if theirs { Ownership::Nomadtools } else { Ownership::Ours },
        meta: RunnerMeta {
            labelsstr: Labels::new(spell(labels.0, labels.1)).joined(),
            repo_url: repository.html_url,
            version: "1".to_owned(),
            instance: (!theirs).then(|| INSTANCE.to_owned()),
            repo_id: (!theirs).then_some(repository.id),
            job_id: id.filter(|_| !theirs),
            attempt: spec.attempt.filter(|_| !theirs),
            registration: (!theirs).then_some(spec.registration),
        },
        state,
        finish: (state == Dead).then(|| spec.finish.clone()),
        started,
        lost: lost && placed,
        has_variable: match state {
            Waiting => false,
            Starting => needs_variable,
            _ => needs_variable && placed && variable,
        },
        submitted_at: ago(submitted),
        allocation: placed.then(|| Allocation {
            id: "a".to_owned(),
            node: "n".to_owned(),
            created_at: later(place),
        }),
        started_at: (started && placed).then(|| later(place + start)),
        ended_at: (state == Dead && placed).then(|| ago(dead.min(submitted))),
        blocked: spec
            .exhausted
            .filter(|_| state == Pending)
            .map(|exhausted| Blocked { exhausted, reason: "memory".to_owned() }),
    }
}
