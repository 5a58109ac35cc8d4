//! What a pass leaves for the next.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use githubrunner::{model::*, plan::learn};
use proptest::prelude::*;

use super::{Checked, secs};

/// The outcomes of a plan's actions, in order.
pub fn reports_of(plan: &Plan, mut outcome: impl FnMut(&Action) -> Outcome) -> Vec<Report> {
    plan.actions.iter().map(|action| Report { action: action.clone(), outcome: outcome(action) }).collect()
}

/// What the daemon remembers after such a pass.
pub fn learned(observation: &Observation, plan: &Plan, reports: &[Report], now: Moment) -> Memory {
    let mut memory = observation.memory.clone();
    learn(&mut memory, observation, plan, reports, now);
    memory
}

/// What a pass saw and did, and what it leaves.
pub struct Lesson<'a> {
    /// What it saw, including what was remembered before.
    pub observation: &'a Observation,
    /// What it planned.
    pub plan: &'a Plan,
    /// The outcomes, with those of earlier plans' actions first.
    pub reports: &'a [Report],
    /// How many of them belong to earlier plans.
    pub late: usize,
    /// The actions still in progress; `None` if this replica is no longer the leader.
    pub left: Option<&'a [Action]>,
    /// Our own clock at its end.
    pub now: Moment,
    /// What is remembered afterwards.
    pub after: &'a Memory,
}

impl Lesson<'_> {
    fn before(&self) -> &Memory {
        &self.observation.memory
    }

    fn runners(&self) -> impl Iterator<Item = &Runner> {
        self.observation.nomad.iter().flat_map(|nomad| &nomad.runners)
    }

    /// The runners that work on a job, according to a listing of this pass.
    fn busy(&self) -> BTreeSet<&str> {
        let views = self.observation.repositories.values();
        views
            .filter(|view| matches!(view.listing, Listing::Fresh { .. }))
            .flat_map(|view| view.listing.jobs())
            .filter(|job| job.status == JobStatus::InProgress)
            .filter_map(|job| job.runner_name.as_deref())
            .collect()
    }

    /// The outcomes of the actions on a runner, in order, without dry runs.
    fn outcomes_of<'b>(&'b self, name: &'b str) -> impl Iterator<Item = (&'b Action, &'b Outcome)> {
        self.reports
            .iter()
            .filter(move |report| {
                report.action.runner() == name && !matches!(report.outcome, Outcome::NotDone(NotDone::DryRun))
            })
            .map(|report| (&report.action, &report.outcome))
    }
}

/// Outcomes are in the order of the actions. They may be missing if this replica is not the leader, and later ones if
/// they take long. A Start has ended or is in progress: it waits only for its turn.
pub fn what_is_planned_is_done_in_its_order_or_not_at_all(lesson: &Lesson) -> Checked {
    let Lesson { plan, reports, late, left, .. } = lesson;
    let mut planned = plan.actions.iter();
    for report in &reports[*late..] {
        prop_assert!(planned.any(|action| *action == report.action), "something else was done");
    }
    let Some(left) = left else { return Ok(()) };
    for start in plan.actions.iter().filter(|action| matches!(action, Action::Start(_))) {
        let mut done = reports.iter().map(|report| &report.action).chain(*left);
        prop_assert!(done.any(|action| action.runner() == start.runner()), "{} is left out", start);
    }
    Ok(())
}

pub fn a_pass_that_sees_nothing_teaches_nothing(lesson: &Lesson) -> Checked {
    // Actions of earlier passes may still have ended.
    let Observation { nomad, repositories, .. } = lesson.observation;
    if nomad.is_none() && repositories.is_empty() && lesson.reports.is_empty() {
        prop_assert!(lesson.after == lesson.before());
    }
    Ok(())
}

pub fn nothing_is_remembered_of_what_is_no_more(lesson: &Lesson) -> Checked {
    if lesson.observation.nomad.is_none() {
        return Ok(());
    }
    let runners: BTreeSet<&str> = lesson.runners().map(|runner| runner.name.as_str()).collect();
    let Memory {
        surplus,
        presence,
        last_busy,
        last_start,
        orphans,
        start_backoff,
        refused,
        warm_backoff,
        left,
        runner_backoff,
        issue_backoff,
        not_lost,
    } = lesson.after;
    for name in
        presence.keys().chain(last_busy.keys()).chain(runner_backoff.keys()).chain(issue_backoff.keys())
    {
        prop_assert!(runners.contains(name.as_str()), "{} is no more", name);
    }
    prop_assert!(not_lost.iter().all(|name| runners.contains(name.as_str())), "{:?}", not_lost);
    let failed = start_backoff.keys().chain(refused.keys()).map(|group| &group.repository);
    for id in surplus.keys().chain(last_start.keys()).chain(failed) {
        prop_assert!(lesson.observation.repositories.contains_key(id), "repository {} is no more", id);
    }
    let recent = |backoff: &Backoff| lesson.now < backoff.until + secs(600);
    prop_assert!(warm_backoff.values().all(recent), "{:?}", warm_backoff);
    let jobs = lesson.observation.repositories.values().flat_map(|view| view.listing.jobs());
    let queued: BTreeSet<JobId> =
        jobs.filter(|job| job.status == JobStatus::Queued).map(|job| job.id).collect();
    prop_assert!(left.keys().all(|job| queued.contains(job)), "{:?}", left);
    for orphan in orphans.keys() {
        prop_assert!(lesson.plan.orphans.contains(orphan), "{:?} is none any more", orphan);
    }
    Ok(())
}

/// A re-run that can never be done is not planned again and again.
pub fn what_was_not_lost_is_remembered(lesson: &Lesson) -> Checked {
    let is_known = |name: &str| lesson.runners().any(|runner| runner.name == name);
    for report in lesson.reports {
        let name = report.action.runner();
        let is_settled = matches!(report.action, Action::Rerun(_))
            && matches!(report.outcome, Outcome::NotDone(NotDone::NotLost(_)));
        if is_settled && is_known(name) && lesson.observation.nomad.is_some() {
            prop_assert!(lesson.after.not_lost.contains(name), "{} is planned again", name);
        }
    }
    let before = &lesson.before().not_lost;
    for name in lesson.after.not_lost.difference(before) {
        let is_it =
            |report: &&Report| report.action.runner() == *name && matches!(report.action, Action::Rerun(_));
        prop_assert!(lesson.reports.iter().any(|report| is_it(&report)), "{} out of nowhere", name);
    }
    Ok(())
}

/// Each since the first consecutive listing that showed it. The same listing again does not count.
pub fn the_surplus_is_that_of_the_last_complete_listing(lesson: &Lesson) -> Checked {
    if lesson.observation.nomad.is_none() {
        return Ok(());
    }
    for (id, view) in &lesson.observation.repositories {
        let before = lesson.before().surplus.get(id);
        let expected = match view.listing {
            Listing::Fresh { complete: true, now, .. } => lesson.plan.surplus.get(id).map(|names| {
                let since =
                    |name: &String| before.and_then(|before| before.get(name)).copied().unwrap_or(now);
                names.iter().map(|name| (name.clone(), since(name))).collect()
            }),
            _ => before.cloned(),
        };
        prop_assert_eq!(lesson.after.surplus.get(id), expected.as_ref(), "repository {}", id);
    }
    Ok(())
}

pub fn the_busy_are_remembered(lesson: &Lesson) -> Checked {
    let busy = lesson.busy();
    for runner in lesson.runners() {
        let last = lesson.before().last_busy.get(&runner.name).copied();
        let expected = if busy.contains(runner.name.as_str()) { Some(lesson.now) } else { last };
        prop_assert_eq!(lesson.after.last_busy.get(&runner.name).copied(), expected, "{}", runner.name);
    }
    Ok(())
}

/// A busy runner is registered, without any verification.
pub fn absence_counts_from_its_first_sight_and_a_sign_of_life_ends_it(lesson: &Lesson) -> Checked {
    let busy = lesson.busy();
    for runner in lesson.runners() {
        let name = runner.name.as_str();
        let mut presence = lesson.before().presence.get(name).copied().filter(|_| !busy.contains(name));
        for (_, outcome) in lesson.outcomes_of(name) {
            let since = presence.and_then(|presence| presence.absent_since);
            presence = match outcome {
                Outcome::Done(Done::Connected) | Outcome::NotDone(NotDone::StillConnected) => {
                    Some(Presence { checked_at: lesson.now, absent_since: None })
                }
                Outcome::Done(Done::NotConnected) | Outcome::NotDone(NotDone::NotListed) => {
                    Some(Presence { checked_at: lesson.now, absent_since: since.or(Some(lesson.now)) })
                }
                _ => presence,
            };
        }
        prop_assert_eq!(lesson.after.presence.get(name).copied(), presence, "{}", name);
    }
    Ok(())
}

/// Including runners that have been purged since.
pub fn the_last_start_of_each_repository_is_remembered(lesson: &Lesson) -> Checked {
    if lesson.observation.nomad.is_none() {
        return Ok(());
    }
    for id in lesson.observation.repositories.keys() {
        let is_warm =
            |r: &Runner| matches!(r.meta.purpose, Some(Purpose::Warm(_))) && r.ownership == Ownership::Ours;
        let of_jobs = lesson.runners().filter(|r| r.meta.repo_id == Some(*id) && !is_warm(r));
        let seen = of_jobs.map(|r| r.submitted_at).max();
        let last = lesson.before().last_start.get(id).copied().max(seen);
        prop_assert_eq!(lesson.after.last_start.get(id).copied(), last, "repository {}", id);
    }
    Ok(())
}

/// Since when something is an orphan: from the first consecutive pass that saw it so. The next pass shows whether it
/// was removed.
pub fn an_orphan_counts_from_the_first_pass_that_saw_it(lesson: &Lesson) -> Checked {
    let before = &lesson.before().orphans;
    let removed = |orphan: &Orphan| {
        lesson
            .outcomes_of(orphan.name())
            .any(|(action, _)| matches!(action, Action::RemoveOrphan(remove) if remove.orphan == *orphan))
    };
    if lesson.observation.nomad.is_none() {
        let expected: BTreeMap<_, _> =
            before.iter().filter(|(orphan, _)| !removed(orphan)).map(|(o, at)| (o.clone(), *at)).collect();
        prop_assert_eq!(&lesson.after.orphans, &expected);
        return Ok(());
    }
    for orphan in &lesson.plan.orphans {
        let since = before.get(orphan).copied().unwrap_or(lesson.now);
        let expected = (!removed(orphan)).then_some(since);
        prop_assert_eq!(lesson.after.orphans.get(orphan).copied(), expected, "{:?}", orphan);
    }
    Ok(())
}

/// The wait after the n-th consecutive failure: doubling each time, at most ten minutes.
fn wait(first: u64, failures: u32) -> Duration {
    secs(600.min(first << failures.saturating_sub(1).min(10)))
}

/// The wait after another failure.
type Waits = Option<(u32, Moment)>;

fn waits(backoff: Option<&Backoff>) -> Waits {
    backoff.map(|backoff| (backoff.failures, backoff.until))
}

fn longer(before: Waits, first: u64, now: Moment) -> Waits {
    let failures = before.map_or(0, |(failures, _)| failures).saturating_add(1);
    Some((failures, now + wait(first, failures)))
}

/// A Stop without anyone's consent has failed too; what is not tried keeps waiting.
pub fn failed_actions_wait_longer_each_time_and_success_ends_that(lesson: &Lesson) -> Checked {
    for runner in lesson.runners() {
        let name = runner.name.as_str();
        let before = lesson.before();
        let (mut expected, mut credentials) =
            (waits(before.runner_backoff.get(name)), waits(before.issue_backoff.get(name)));
        for (action, outcome) in lesson.outcomes_of(name) {
            // A runner that was refused credentials may still be stopped.
            let waits =
                if matches!(action, Action::IssueCredentials(_)) { &mut credentials } else { &mut expected };
            *waits = match (action, outcome) {
                (Action::Start(_) | Action::RemoveOrphan(_), _) => *waits,
                (_, Outcome::NotDone(NotDone::Held(_) | NotDone::Failed(_) | NotDone::Rejected(_)))
                | (_, Outcome::NotDone(NotDone::NotListed)) => longer(*waits, 5, lesson.now),
                _ => None,
            };
        }
        for (after, expected) in [
            (lesson.after.runner_backoff.get(name), expected),
            (lesson.after.issue_backoff.get(name), credentials),
        ] {
            prop_assert_eq!(waits(after), expected, "{}", name);
            prop_assert!(after.is_none_or(|backoff| !backoff.error.is_empty()), "{} waits for nothing", name);
        }
    }
    Ok(())
}

/// A start that is not permitted is not retried for ten minutes. Then it is judged again.
pub fn refused_starts_are_held_for_ten_minutes(lesson: &Lesson) -> Checked {
    if lesson.observation.nomad.is_none() {
        return Ok(());
    }
    let mut expected: BTreeMap<GroupKey, Moment> =
        lesson.before().refused.iter().map(|(group, refusal)| (group.clone(), refusal.until)).collect();
    for report in lesson.reports {
        match (&report.action, &report.outcome) {
            (Action::Start(Start { purpose: Purpose::Warm(_), .. }), _) => {}
            (Action::Start(start), Outcome::NotDone(NotDone::ReachesHost(_))) => {
                expected.insert(start.group(), lesson.now + secs(600));
            }
            (Action::Start(start), Outcome::Done(_)) => drop(expected.remove(&start.group())),
            _ => {}
        }
    }
    let known = |id: &_| lesson.observation.repositories.contains_key(id);
    expected.retain(|group, until| known(&group.repository) && *until > lesson.now);
    let after = lesson.after.refused.iter().map(|(group, refusal)| (group.clone(), refusal.until));
    prop_assert_eq!(after.collect::<BTreeMap<_, _>>(), expected);
    Ok(())
}

/// A failure that has not been retried for ten minutes is forgotten. Transient failures are retried in the next
/// pass.
pub fn rejected_starts_wait_longer_each_time_and_success_ends_that(lesson: &Lesson) -> Checked {
    if lesson.observation.nomad.is_none() {
        return Ok(());
    }
    let (before, after) = (&lesson.before().start_backoff, &lesson.after.start_backoff);
    let started = lesson.reports.iter().filter_map(|report| match &report.action {
        Action::Start(start) if start.purpose.job_id().is_some() => Some((start.group(), &report.outcome)),
        _ => None,
    });
    let started: Vec<(GroupKey, &Outcome)> = started.collect();
    let groups = before.keys().chain(after.keys()).chain(started.iter().map(|(group, _)| group));
    for group in groups.collect::<BTreeSet<&GroupKey>>() {
        let mut expected = waits(before.get(group));
        for (_, outcome) in started.iter().filter(|(other, _)| other == group) {
            expected = match outcome {
                Outcome::NotDone(NotDone::Rejected(_)) => longer(expected, 30, lesson.now),
                Outcome::Done(Done::Performed | Done::Already) => None,
                _ => expected,
            };
        }
        let known = lesson.observation.repositories.contains_key(&group.repository);
        let expected = expected.filter(|(_, until)| known && lesson.now < *until + secs(600));
        prop_assert_eq!(waits(after.get(group)), expected, "{:?}", group);
    }
    Ok(())
}
