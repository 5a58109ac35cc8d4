//! Generates observations and policies from few distinct parts, so that they collide: few jobs, few groups,
//! ages around the planner's limits.

use std::{collections::BTreeSet, sync::OnceLock, time::Duration};

use githubrunner::{
    config::{Class, ClassMatch, ClassNomad, RepoGlob, RerunLost},
    labels::{LabelPattern, LabelRules},
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

use crate::{
    drawing::{Pair, backoff, build, job, labels, pair, repository_spec, runner_spec, spell},
    specification::{Asks, Checked, Facts, Seen},
    strays::{add_stray, stray},
    warming::warming,
};

pub const PREFIX: &str = "ghr";
pub const DEPLOYMENT: &str = "instance";

/// Our own clock at the time of the plan.
pub const NOW: Moment = Moment::after_start(Duration::from_secs(100_000));

/// Ages around the planner's limits, in seconds.
pub const AGES: [u64; 20] =
    [0, 1, 29, 30, 31, 59, 60, 61, 119, 120, 121, 240, 599, 600, 601, 3599, 3600, 3601, 86_401, 100_000];

/// Labels that may be rendered. The first word keeps its case, because `runson_match` is case-sensitive.
pub const GOOD: [&[&str]; 4] =
    [&["nomadtools"], &["nomadtools a"], &["nomadtools", "gpu"], &["nomadtools mem=100", "Big"]];

/// Labels that get no runner.
pub const BAD: [&[&str]; 5] =
    [&[], &["ubuntu-latest"], &["nomadtools x,y"], &["nomadtools \u{1b}[2J\n"], &["nomadtools mem=12345678"]];

/// What generated labels request.
fn asks(labels: &[String]) -> Asks {
    let key =
        |set: &mut dyn Iterator<Item = &str>| -> BTreeSet<String> { set.map(str::to_lowercase).collect() };
    let asked = key(&mut labels.iter().map(String::as_str));
    if GOOD.iter().any(|set| key(&mut set.iter().copied()) == asked) {
        Asks::Runner
    } else if labels.is_empty() || labels.iter().any(|label| label.starts_with("nomadtools")) {
        Asks::Word
    } else {
        Asks::Nothing
    }
}

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

/// Compiled once, because that takes longer than a plan.
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
        visibility: githubrunner::model::Visibility::default(),
    }
}

/// The planner's input and its plan.
#[derive(Clone)]
pub struct Case {
    pub observation: Observation,
    pub policy: Policy,
}

impl Case {
    pub fn plan(&self) -> Plan {
        plan(&self.observation, &self.policy, NOW)
    }

    /// The same for the specification.
    pub fn seen(&self) -> Seen<'_> {
        Seen { observation: &self.observation, policy: &self.policy, now: NOW, asks }
    }

    pub fn facts(&self) -> Facts<'_> {
        Facts::new(self.seen())
    }

    /// The runners; none if Nomad is unreachable.
    pub fn runners(&self) -> &[Runner] {
        self.observation.nomad.as_ref().map_or(&[], |nomad| &nomad.runners)
    }
}

/// The number of cases that all properties of single plans share. Generating one takes longer than planning
/// and checking it.
pub const CASES: u32 = 2500;

/// Checks a property over the shared cases (PROPTEST_CASES: their number), and shows the smallest failing
/// world.
#[track_caller]
pub fn for_all(property: impl Fn(&Case, &Plan) -> Result<(), TestCaseError>) {
    show(shared(), &case(), property);
}

/// A test for each of these properties over the shared cases, named after it.
macro_rules! tested {
    ($module:ident: $($name:ident,)*) => {
        $(#[test]
        fn $name() {
            crate::cases::for_all_facts(githubrunner_specification::$module::$name);
        })*
    };
}
pub(crate) use tested;

/// Checks a property of the specification over the shared cases.
#[track_caller]
pub fn for_all_facts(property: fn(&Facts, &Plan) -> Checked) {
    for_all(|case, plan| property(&case.facts(), plan));
}

/// Checks a property over cases that were already generated from the strategy.
#[track_caller]
pub fn show(
    cases: &[(Case, Plan)],
    strategy: &impl Strategy<Value = Case>,
    property: impl Fn(&Case, &Plan) -> Result<(), TestCaseError>,
) {
    for (at, (case, plan)) in cases.iter().enumerate() {
        let Err(first) = property(case, plan) else { continue };
        // Generates the same case once more, this time to shrink it.
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

/// This many cases, unless PROPTEST_CASES sets another number; writes no files.
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

pub fn policy() -> impl Strategy<Value = Policy> {
    let cap = || proptest::option::weighted(0.4, 0..5_usize);
    let time = |values: &'static [u64]| proptest::option::weighted(0.8, select(values).prop_map(secs));
    let idle = proptest::option::weighted(0.6, select(&[0_u64, 60, 600][..]).prop_map(secs));
    let times = (idle, time(&[0, 60, 600]), time(&[0, 600, 3600]), time(&[0, 60, 600]));
    let limit = || select(&[30_u64, 120, 600][..]).prop_map(secs);
    let limits = (limit(), limit(), limit(), limit());
    let longest = proptest::option::weighted(0.3, select(&[30_u64, 600, 3600][..]).prop_map(secs));
    let rerun = (1..3_usize, 1..4_usize, proptest::bool::ANY)
        .prop_map(|(per_job, per_hour, cancelled)| RerunLost { per_job, per_hour, cancelled });
    let rerun = proptest::option::weighted(0.6, rerun);
    (cap(), cap(), cap(), proptest::bool::weighted(0.3), times, limits, (longest, rerun)).prop_map(
        |(all, repository, group, strict, (idle, success, failure, patience), limits, (longest, rerun))| {
            Policy {
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
                waiting_timeout: limits.0,
                starting_timeout: limits.1,
                connect_timeout: limits.2,
                unassigned_timeout: limits.3,
                max_run_duration: longest,
                rerun_lost: rerun,
                level: RunnerLevel::Repository,
                classes: Vec::new(),
                classes_only: false,
                warm: Vec::new(),
            }
        },
    )
}

/// The daemon's own namespace, another one, and one in another region.
fn namespace_at(at: usize) -> Option<Namespace> {
    let region = (at > 1).then(|| "eu".to_owned());
    (at > 0).then(|| Namespace { name: "gpu".to_owned(), region })
}

/// Puts the runners into the namespaces of their classes, or into another one if the class has moved, and makes some
/// of the namespaces unseen.
fn spread(observation: &mut Observation, policy: &Policy, moved: &[Option<usize>], unseen: [bool; 3]) {
    let Some(nomad) = &mut observation.nomad else { return };
    for (runner, moved) in nomad.runners.iter_mut().zip(moved.iter().chain(std::iter::repeat(&None))) {
        let own = policy.class_named(runner.meta.class.as_deref()).namespace().cloned();
        runner.namespace = moved.map_or(own, namespace_at);
    }
    let runners = nomad.runners.iter().filter(|runner| runner.variable.is_some());
    let of_runners = runners
        .map(|runner| RunnerVariable { namespace: runner.namespace.clone(), name: runner.name.clone() });
    nomad.variables = of_runners.collect();
    for (at, _) in unseen.iter().enumerate().filter(|(_, unseen)| **unseen) {
        let namespace = namespace_at(at);
        let shown = namespace.as_ref().map_or_else(|| "own".to_owned(), Namespace::to_string);
        let unseen = Unseen { namespace: shown, kind: "denied", why: "403".to_owned() };
        nomad.unseen.insert(namespace, unseen);
    }
}

/// Classes that cover some of the generated jobs, with their own caps and timeouts, and the classes that the runners
/// were started as. One of those is no longer configured.
fn classes() -> impl Strategy<Value = (Vec<Class>, bool, Vec<Option<&'static str>>)> {
    let cap = || proptest::option::weighted(0.5, 0..4_usize);
    let limit = || proptest::option::weighted(0.3, select(&[30_u64, 120, 600][..]).prop_map(secs));
    let flag = proptest::bool::weighted;
    let idle = proptest::option::weighted(0.2, proptest::option::of(Just(secs(60))));
    let own = (
        cap(),
        cap(),
        proptest::option::weighted(0.2, cap()),
        idle,
        limit(),
        limit(),
        limit(),
        limit(),
        (flag(0.15), flag(0.2), select(&[0_usize, 0, 0, 1, 2][..])),
        proptest::option::weighted(0.2, limit()),
    );
    let matching = select(&["gpu", "nomadtools a", "repository", "internal"][..]);
    let class = (matching, own).prop_map(|(name, own)| {
        let mut matches = ClassMatch::default();
        match name {
            "repository" => matches.repos = vec![RepoGlob::new("own.er/R1").unwrap()],
            "internal" => matches.visibility = [Visibility::Internal].into(),
            labels => matches.labels = Some(LabelPattern::new(labels).unwrap()),
        }
        Class {
            name: name.replace(' ', "_"),
            matches,
            max_runners: own.0,
            max_runners_per_repository: own.1,
            max_runners_per_group: own.2,
            runner_inactivity_timeout: own.3,
            waiting_timeout: own.4,
            starting_timeout: own.5,
            connect_timeout: own.6,
            unassigned_timeout: own.7,
            max_run_duration: own.9,
            deny: own.8.0.then(|| "ask".to_owned()),
            labels: own.8.1.then(|| rules().with_deny_keys([("mem".to_owned(), Vec::new())].into())),
            nomad: ClassNomad { namespace: namespace_at(own.8.2), ..ClassNomad::default() },
            ..Class::default()
        }
    });
    let names = select(&["gpu", "nomadtools_a", "repository", "former"][..]);
    let started_as = vec(proptest::option::weighted(0.6, names), 9);
    let some = (vec(class, 1..3), flag(0.15), started_as);
    prop_oneof![2 => Just((vec![], false, vec![])), 1 => some].prop_map(|(mut classes, only, started_as)| {
        classes.dedup_by(|a: &mut Class, b| a.name == b.name);
        (classes, only, started_as)
    })
}

/// Everything: any listing, any runner, any memory, any policy.
pub fn case() -> impl Strategy<Value = Case> {
    let groups_failed = vec((0..3_usize, labels(true), -1..2_i64), 0..2);
    let started = vec((0..3_usize, select(AGES.to_vec())), 0..3);
    let strays = vec(stray(), 0..4);
    let pairs = proptest::option::weighted(0.1, pair().boxed());
    let moved = vec(proptest::option::weighted(0.2, 0..3_usize), 9);
    let unseen = proptest::option::weighted(0.25, proptest::array::uniform3(proptest::bool::weighted(0.4)));
    (
        vec(repository_spec(), 1..4),
        vec(job(), 0..9),
        (vec(runner_spec(), 0..9), pairs),
        policy(),
        groups_failed,
        started,
        strays,
        (proptest::bool::weighted(0.02), classes(), moved, unseen, warming()),
    )
        .prop_map(
            |(repositories, jobs, (mut runners, pair), mut policy, failed, started, strays, more)| {
                let (blind, (classes, classes_only, started_as), moved, unseen, warming) = more;
                (policy.classes, policy.classes_only) = (classes, classes_only);
                runners.extend(pair.iter().flat_map(Pair::specs));
                let mut observation = build(&repositories, &jobs, &runners);
                let runners = observation.nomad.iter_mut().flat_map(|nomad| &mut nomad.runners);
                for (runner, class) in runners.zip(started_as) {
                    runner.meta.class = class.map(str::to_owned);
                }
                if !policy.classes.is_empty() {
                    spread(&mut observation, &policy, &moved, unseen.unwrap_or_default());
                }
                for (at, (labels, spelling), until) in failed {
                    let group = GroupKey {
                        repository: repository(at).id,
                        labels: Labels::new(spell(labels, spelling)),
                    };
                    if spelling % 2 == 1 {
                        let until = backoff(until).until;
                        let refusal = Refusal { until, why: "it is public".to_owned() };
                        observation.memory.refused.insert(group.clone(), refusal);
                    } else {
                        observation.memory.start_backoff.insert(group, backoff(until));
                    }
                }
                for (at, age) in started {
                    observation.memory.last_start.insert(repository(at).id, ago(age));
                }
                strays.iter().for_each(|stray| add_stray(&mut observation, stray));
                warming.put(&mut observation, &mut policy);
                if let Some(nomad) = &mut observation.nomad {
                    let unseen = &nomad.unseen;
                    nomad.variables.retain(|variable| !unseen.contains_key(&variable.namespace));
                }
                if blind {
                    observation.nomad = None;
                }
                Case { observation, policy }
            },
        )
}
