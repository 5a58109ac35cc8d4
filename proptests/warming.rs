//! Generates warm entries and their runners, and tests the rules for them.

use std::collections::BTreeMap;

use githubrunner::{
    config::{Hours, WarmEntry},
    model::*,
    plan::{Policy, WarmPolicy},
};
use proptest::{collection::vec, prelude::*, sample::select};

use crate::{
    cases::{AGES, NOW, for_all, for_all_facts, repository, secs, server_now},
    drawing::{backoff, labels, spell},
    memory::for_all_lucks,
    room::for_all_crowded,
    specification::facts::{starts, stops, warm_starts},
};

macro_rules! tested_whatever_comes {
    ($module:ident: $($name:ident,)*) => {
        $(#[test]
        fn $name() {
            for_all_lucks(githubrunner_specification::$module::$name);
        })*
    };
}

githubrunner_specification::properties!(warm, tested_crowded);
githubrunner_specification::properties!(memory_of_warm, tested_whatever_comes);

/// A schedule that is open, and one that is not.
const SCHEDULES: [&str; 2] = ["00:00-24:00 UTC", "08:30-08:00 UTC"];

/// The settings of all entries.
const SETTINGS: &str = "settings";

/// Warm entries, and the runners that were started as theirs.
#[derive(Clone, Debug, Default)]
pub struct Warming {
    entries: Vec<WarmPolicy>,
    organization: bool,
    /// By runner: its entry or one that is not configured, whether its settings are the present ones, its failures.
    runners: Vec<Option<(usize, bool, u32)>>,
    /// By job: how long ago it was left to a warm runner.
    left: Vec<Option<u64>>,
    /// The node pools of runners.
    pools: Vec<Option<bool>>,
    /// Of the entries.
    failed: Vec<Option<i64>>,
}

pub fn warming() -> impl Strategy<Value = Warming> {
    let schedule = proptest::option::weighted(0.4, select(&SCHEDULES[..]));
    let entry =
        (labels(true), 0..3_usize, 1..4_usize, schedule, proptest::option::weighted(0.3, Just("gpu")));
    let runner = (0..4_usize, proptest::bool::weighted(0.7), 0..3_u32);
    let some = (
        vec(entry, 1..4),
        proptest::bool::weighted(0.4),
        vec(proptest::option::weighted(0.6, runner), 9),
        vec(proptest::option::weighted(0.3, select(AGES.to_vec())), 9),
        vec(proptest::option::weighted(0.5, any::<bool>()), 9),
        vec(proptest::option::weighted(0.2, -1..2_i64), 3),
    );
    let some = some.prop_map(|(entries, organization, runners, left, pools, failed)| {
        let one = |(at, ((index, spelling), of, count, schedule, class)): (usize, _)| {
            let _: &Option<&str> = &class;
            let own: Repository = repository(of);
            let place = match organization {
                true => RepoEntry::Owner(own.owner),
                false => RepoEntry::Repository { owner: own.owner, name: own.name },
            };
            let schedule: Option<&str> = schedule;
            let entry = WarmEntry {
                id: format!("entry{at}"),
                labels: Labels::new(spell(index, spelling)),
                place,
                count,
                schedule: schedule.map(|text| Hours::parse(text).unwrap()),
            };
            WarmPolicy { class: class.map(str::to_owned), settings: SETTINGS.to_owned(), entry }
        };
        let entries = entries.into_iter().enumerate().map(one).collect();
        Warming { entries, organization, runners, left, pools, failed }
    });
    prop_oneof![2 => Just(Warming::default()), 1 => some]
}

impl Warming {
    /// Puts them into a case.
    pub fn put(self, observation: &mut Observation, policy: &mut Policy) {
        if self.organization {
            policy.level = RunnerLevel::Organization;
        }
        policy.warm = self.entries;
        // A class that is not configured has no entries.
        policy.warm.retain(|entry| {
            entry.class.as_ref().is_none_or(|name| policy.classes.iter().any(|class| class.name == *name))
        });
        let mut names = Vec::new();
        let runners = observation.nomad.iter_mut().flat_map(|nomad| &mut nomad.runners);
        let ours = runners.filter(|runner| runner.ownership == Ownership::Ours);
        for ((runner, warm), pool) in ours.zip(self.runners).zip(self.pools) {
            runner.meta.asks = pool.map(|pool| Asks { node_pool: pool.to_string(), ..Asks::default() });
            let Some((at, same, failed)) = warm else { continue };
            let settings = if same { SETTINGS.to_owned() } else { "former".to_owned() };
            runner.meta.purpose = Some(Purpose::Warm(Warm { entry: format!("entry{at}"), settings, failed }));
            if let Some(entry) = policy.warm.iter().find(|policy| policy.entry.id == format!("entry{at}")) {
                runner.meta.labelsstr = entry.entry.labels.joined();
                runner.meta.class.clone_from(&entry.class);
            }
            names.push((runner.name.clone(), format!("{}-warm{}", runner.name, names.len())));
            runner.name = names[names.len() - 1].1.clone();
        }
        names.iter().for_each(|(old, new)| rename(observation, old, new));
        for (at, left) in self.left.into_iter().enumerate() {
            let since = left.map(|seconds| (JobId(at as u64 + 1), NOW - secs(seconds.min(90_000))));
            observation.memory.left.extend(since);
        }
        for (at, until) in self.failed.into_iter().enumerate() {
            observation.memory.warm_backoff.extend(until.map(|until| (format!("entry{at}"), backoff(until))));
        }
    }
}

/// A warm runner does not have the name of a job's runner.
fn rename(observation: &mut Observation, old: &str, new: &str) {
    let Observation { nomad, repositories, ended, memory, .. } = observation;
    if let Some(nomad) = nomad {
        let renamed =
            std::mem::take(&mut nomad.variables).into_iter().map(|variable| match variable.name == old {
                true => RunnerVariable { name: new.to_owned(), ..variable },
                false => variable,
            });
        nomad.variables = renamed.collect();
    }
    for view in repositories.values_mut() {
        if let Listing::Fresh { jobs, .. } | Listing::Earlier { jobs, .. } | Listing::Stale { jobs, .. } =
            &mut view.listing
        {
            let named = jobs.iter_mut().filter(|job| job.runner_name.as_deref() == Some(old));
            named.for_each(|job| job.runner_name = Some(new.to_owned()));
        }
    }
    for names in memory.surplus.values_mut() {
        let since = names.remove(old);
        names.extend(since.map(|since| (new.to_owned(), since)));
    }
    fn moved<T>(map: &mut BTreeMap<String, T>, old: &str, new: &str) {
        let value = map.remove(old);
        map.extend(value.map(|value| (new.to_owned(), value)));
    }
    moved(ended, old, new);
    moved(&mut memory.presence, old, new);
    moved(&mut memory.last_busy, old, new);
    moved(&mut memory.runner_backoff, old, new);
    moved(&mut memory.issue_backoff, old, new);
    if memory.not_lost.remove(old) {
        memory.not_lost.insert(new.to_owned());
    }
}

#[test]
fn the_schedules_of_the_cases_are_open_and_closed() {
    let is_open = |text: &str| Hours::parse(text).unwrap().are_open(server_now());
    assert_eq!(SCHEDULES.map(is_open), [true, false], "at {}", server_now());
}

/// The cases reach the rules.
#[test]
fn warm_cases_reach_every_rule() {
    let seen = std::cell::RefCell::new(BTreeMap::<String, usize>::new());
    for_all_crowded(|_, plan| {
        let mut seen = seen.borrow_mut();
        let mut note = |what: &str| *seen.entry(what.to_owned()).or_default() += 1;
        warm_starts(plan).for_each(|_| note("start"));
        for stop in stops(plan) {
            note(Action::Stop(stop.clone()).reason());
        }
        plan.holds.iter().for_each(|hold| note(hold.reason.word()));
        let both =
            warm_starts(plan).next().is_some() && starts(plan).any(|start| start.purpose.job_id().is_some());
        if both {
            note("start of both");
        }
        Ok(())
    });
    for_all(|_, plan| {
        for hold in &plan.holds {
            *seen.borrow_mut().entry(hold.reason.word().to_owned()).or_default() += 1;
        }
        for stop in stops(plan) {
            let reason = Action::Stop(stop.clone()).reason().to_owned();
            *seen.borrow_mut().entry(reason).or_default() += 1;
        }
        Ok(())
    });
    let seen = seen.into_inner();
    for what in [
        "start",
        "start of both",
        "warm_excess",
        "warm_closed",
        "warm_removed",
        "warm_old",
        "warm_settings",
        "warm_fails",
        "left_to_warm",
        "closed",
        "warm_failed",
        "warm_yields",
        "no_repository",
        "unpolled",
        "counts_failures",
    ] {
        assert!(seen.get(what).copied().unwrap_or(0) > 0, "{what} is never reached: {seen:?}");
    }
}
