//! The rules as scenarios. The invariants are in `proptests/`.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::{Policy, plan};
use crate::{
    config::{Class, ClassMatch, ClassNomad},
    labels::{LabelPattern, LabelRules, unread},
    model::*,
};

pub(super) const REPOSITORY: RepositoryId = RepositoryId(7);
pub(super) const DEPLOYMENT: &str = "instance";

pub(super) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn at(seconds: u64) -> Moment {
    Moment::after_start(Duration::from_secs(seconds))
}

pub(super) fn ago(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_hours(500_000) - SignedDuration::from_secs(seconds)
}

pub(super) fn policy() -> Policy {
    Policy {
        prefix: "ghr".to_owned(),
        labels: LabelRules::new("nomadtools *(.*)").unwrap(),
        max_runners: None,
        max_runners_per_repository: None,
        max_runners_per_group: None,
        runner_inactivity_timeout: None,
        strict: false,
        purge_successfull_timeout: Some(seconds(600)),
        purge_failure_timeout: Some(seconds(3600)),
        pending_to_kill_listening: Some(seconds(60)),
        waiting_timeout: seconds(300),
        starting_timeout: seconds(1200),
        connect_timeout: seconds(300),
        unassigned_timeout: seconds(300),
        max_run_duration: None,
        rerun_lost: None,
        level: RunnerLevel::Repository,
        classes: Vec::new(),
        classes_only: false,
        warm: Vec::new(),
    }
}

pub(super) fn repository(id: RepositoryId) -> Repository {
    Repository {
        id,
        owner: "o".to_owned(),
        name: format!("r{id}"),
        html_url: format!("https://github.com/o/r{id}"),
        archived: false,
        disabled: false,
        visibility: crate::model::Visibility::default(),
    }
}

pub(super) fn job(id: u64, status: JobStatus) -> WorkflowJob {
    WorkflowJob {
        id: JobId(id),
        run_id: RunId(id),
        repository: REPOSITORY,
        name: "build".to_owned(),
        status,
        labels: vec!["nomadtools".to_owned()].into(),
        runner_name: None,
        created_at: Some(ago(100 - id as i64)),
        started_at: None,
        html_url: None,
        run: Default::default(),
    }
}

fn variable(name: String) -> RunnerVariable {
    RunnerVariable { namespace: None, name }
}

pub(super) fn queued(id: u64) -> WorkflowJob {
    job(id, JobStatus::Queued)
}

pub(super) fn runner(job_id: u64, attempt: u32, state: RunnerState) -> Runner {
    let started = matches!(state, RunnerState::Running | RunnerState::Stopping | RunnerState::Dead);
    Runner {
        name: runner_name(
            "ghr",
            DEPLOYMENT,
            None,
            &repository(REPOSITORY).full_name(),
            JobId(job_id),
            attempt,
        ),
        namespace: None,
        ownership: Ownership::Ours,
        meta: RunnerMeta {
            labelsstr: "nomadtools".to_owned(),
            repo_url: repository(REPOSITORY).html_url,
            version: "0".to_owned(),
            deployment: Some(DEPLOYMENT.to_owned()),
            repo_id: Some(REPOSITORY),
            purpose: Some(JobId(job_id).into()),
            attempt: Some(attempt),
            registration: Some(Registration::Jit),
            task: None,
            asks: None,
            class: None,
            mac: None,
        },
        state,
        finish: (state == RunnerState::Dead).then_some(Finish::Success),
        started,
        spent: false,
        ending: false,
        lost: None,
        variable: (started && state != RunnerState::Dead).then(|| ago(1000)),
        submitted_at: ago(100_000),
        allocation: (state != RunnerState::Pending).then(|| Allocation {
            id: "a".to_owned(),
            node: "n".to_owned(),
            node_id: "n".to_owned(),
            draining: false,
            created_at: ago(if started { 1000 } else { 60 }),
        }),
        started_at: started.then(|| ago(900)),
        ended_at: (state == RunnerState::Dead).then(|| ago(10)),
        blocked: None,
        last_event: None,
    }
}

#[test]
fn a_runner_started_within_the_servers_current_second_is_not_idle_since_its_placement() {
    for (ahead, is_asked_for) in [(500, false), (3_600_000, true)] {
        let mut runner = runner(1, 1, RunnerState::Running);
        placed(&mut runner, 1000);
        runner.started_at = Some(ago(0) + SignedDuration::from_millis(ahead));
        let world = world(vec![queued(1)], vec![runner]);
        let actions = plan(&world.0, &policy(), at(0)).actions;
        let is_verification = |action: &Action| matches!(action, Action::VerifyRegistration(_));
        assert_eq!(actions.iter().any(is_verification), is_asked_for, "{ahead} ms ahead: {actions:?}");
    }
}

fn placed(runner: &mut Runner, seconds: i64) {
    runner.allocation.as_mut().unwrap().created_at = ago(seconds);
}

pub(super) struct World(pub(super) Observation);

pub(super) fn world(jobs: Vec<WorkflowJob>, runners: Vec<Runner>) -> World {
    let listing = Listing::Fresh { now: ago(0), jobs, complete: true };
    let view =
        RepositoryView { repository: repository(REPOSITORY), configured: true, listing, missing: None };
    World(Observation {
        nomad: Some(NomadView {
            now: ago(0),
            deployment: DEPLOYMENT.to_owned(),
            runners,
            foreign: Vec::new(),
            variables: Default::default(),
            unseen: std::collections::BTreeMap::new(),
        }),
        repositories: [(REPOSITORY, view)].into(),
        ..Observation::default()
    })
}

impl World {
    fn listing(mut self, change: impl FnOnce(Vec<WorkflowJob>) -> Listing) -> Self {
        let view = self.0.repositories.get_mut(&REPOSITORY).unwrap();
        view.listing = change(view.listing.jobs().to_vec());
        self
    }

    /// As if the previous listing had found the same surplus.
    fn seen_twice(mut self) -> Self {
        let surplus = plan(&self.0, &policy(), at(1000)).surplus;
        let before = ago(5);
        self.0.memory.surplus = surplus
            .into_iter()
            .map(|(id, names)| (id, names.into_iter().map(|name| (name, before)).collect()))
            .collect();
        self
    }

    fn plan(&self) -> String {
        self.plan_with(&policy())
    }

    fn plan_with(&self, policy: &Policy) -> String {
        let plan = plan(&self.0, policy, at(1000));
        let mut text = plan.to_string();
        for (name, job_id) in
            self.0.nomad.iter().flat_map(|nomad| &nomad.runners).map(|r| (&r.name, r.meta.job_id()))
        {
            text = text.replace(name.as_str(), &format!("runner{}", job_id.unwrap()));
        }
        // Real names sort differently.
        let (mut holds, actions): (Vec<&str>, Vec<&str>) =
            text.lines().partition(|line| line.starts_with("hold"));
        holds.sort_unstable();
        [actions, holds].concat().join("\n")
    }
}

#[track_caller]
fn assert_plan(actual: String, expected: &[&str]) {
    let actual: Vec<&str> = actual.lines().collect();
    assert_eq!(actual.len(), expected.len(), "{actual:#?}");
    for (line, expected) in actual.iter().zip(expected) {
        for part in expected.split(" … ") {
            assert!(line.contains(part), "{line:?} lacks {part:?}");
        }
    }
}

#[test]
fn a_queued_job_gets_a_runner_and_a_placed_runner_gets_its_credentials() {
    assert_plan(
        world(vec![queued(1)], vec![]).plan(),
        &["start … for job 1, attempt 1: 1 queued, 0 available"],
    );
    let waiting = world(vec![queued(1)], vec![runner(1, 1, RunnerState::Waiting)]);
    assert_plan(waiting.plan(), &["issue    runner1"]);
}

#[test]
fn jobs_that_need_no_runner_are_held_with_a_reason() {
    let mut comma = queued(2);
    comma.labels = vec!["nomadtools a,b".to_owned()].into();
    let mut no_labels = queued(3);
    no_labels.labels = Vec::new().into();
    let mut foreign = queued(4);
    foreign.labels = vec!["ubuntu-latest".to_owned()].into();
    assert_plan(
        world(vec![job(1, JobStatus::Waiting), comma, no_labels, foreign], vec![]).plan(),
        &["job 1 … waiting", "job 2 … labels", "job 3 … the job has none"],
    );
}

/// It may have waited for approval for days, so its age is not a queue time.
#[test]
fn a_job_is_served_however_old_it_is() {
    let mut old = queued(1);
    old.created_at = Some(ago(3 * 24 * 3600));
    assert_plan(world(vec![old], vec![]).plan(), &["start … for job 1, attempt 1"]);
}

#[test]
fn a_busy_runner_is_no_supply_whichever_group_its_job_is_in() {
    let mut other = job(9, JobStatus::InProgress);
    other.labels = vec!["else".to_owned()].into();
    let busy = runner(1, 1, RunnerState::Running);
    other.runner_name = Some(busy.name.clone());
    assert_plan(world(vec![queued(1), other], vec![busy]).plan(), &["start … for job 1, attempt 2"]);
}

#[test]
fn the_next_attempt_waits_after_the_last_ones_death() {
    let mut dead = runner(1, 2, RunnerState::Dead);
    dead.ended_at = Some(ago(59));
    dead.finish = Some(Finish::Failure { exit_code: Some(7) });
    let held = "attempt 3 starts in 1s; the last one ended: failure, exit code 7: the runner's version is deprecated";
    assert_plan(world(vec![queued(1)], vec![dead.clone()]).plan(), &[held]);
    dead.finish = Some(Finish::Success);
    dead.ended_at = Some(ago(60));
    assert_plan(world(vec![queued(1)], vec![dead.clone()]).plan(), &["start … attempt 3"]);
    dead.ended_at = Some(ago(3600));
    assert_plan(
        world(vec![queued(1)], vec![dead.clone()]).plan(),
        &["start … attempt 3", "dead, kept: it is the newest attempt"],
    );
    assert_plan(world(vec![], vec![dead]).plan(), &["purge    runner1 … success, dead for 1h"]);
}

#[test]
fn surplus_runners_stop_when_seen_twice_and_idle_ones_only_after_their_timeout() {
    let starting = world(vec![], vec![runner(1, 1, RunnerState::Starting)]);
    assert_plan(starting.plan(), &["runner1  surplus; stops if the next listing confirms it"]);
    assert_plan(starting.seen_twice().plan(), &["stop     runner1 … its task is not running"]);
    let idle = world(vec![], vec![runner(1, 1, RunnerState::Running)]).seen_twice();
    assert_plan(idle.plan(), &["surplus, idle for 15m; runner_inactivity_timeout is off"]);
    let strict = Policy { strict: true, ..policy() };
    assert_plan(idle.plan_with(&strict), &["stop     runner1 … after GitHub removes its registration"]);
    let patient = Policy { runner_inactivity_timeout: Some(seconds(901)), ..policy() };
    assert_plan(idle.plan_with(&patient), &["surplus, idle for 15m of 15m1s"]);
    let due = Policy { runner_inactivity_timeout: Some(seconds(900)), ..policy() };
    assert_plan(idle.plan_with(&due), &["stop     runner1"]);
}

#[test]
fn started_runners_of_a_gone_repository_stop_only_if_the_organization_can_be_asked() {
    let runners = vec![runner(1, 1, RunnerState::Running)];
    let gone = world(vec![], runners).listing(|_| Listing::Gone { since: at(1000) });
    let organization = Policy { level: RunnerLevel::Organization, ..policy() };
    let after = |policy: &Policy, gone_for: u64| plan(&gone.0, policy, at(1000 + gone_for)).to_string();
    assert!(!after(&policy(), 3600).contains("stop "), "{}", after(&policy(), 3600));
    assert!(!after(&organization, 3599).contains("stop "), "{}", after(&organization, 3599));
    let text = after(&organization, 3600);
    assert!(text.contains("its repository is gone; after GitHub removes its registration"), "{text}");
}

/// Between two listings: a runner next to one that has just finished was surplus, and then it is needed, or no job
/// needs it.
#[test]
fn only_runners_with_a_job_in_the_last_listing_get_credentials() {
    let waiting = || runner(1, 1, RunnerState::Waiting);
    let stale = |jobs| Listing::Stale { jobs, complete: true, reason: "old".to_owned() };
    let mut needed = world(vec![queued(1)], vec![waiting(), runner(2, 1, RunnerState::Running)]).seen_twice();
    needed.0.nomad.as_mut().unwrap().runners.pop();
    let needed = needed.listing(stale);
    assert!(!needed.0.memory.surplus[&REPOSITORY].is_empty());
    assert!(needed.plan().contains("issue    runner1"), "{}", needed.plan());
    let spare = world(vec![], vec![waiting()]).listing(stale);
    assert!(!spare.plan().contains("issue "), "{}", spare.plan());
}

#[test]
fn unseen_is_not_zero() {
    let runners = vec![runner(1, 1, RunnerState::Starting), runner(2, 1, RunnerState::Waiting)];
    let stale = world(vec![queued(2), queued(3)], runners).seen_twice().listing(|jobs| Listing::Stale {
        jobs,
        complete: true,
        reason: "503".to_owned(),
    });
    assert_plan(
        stale.plan(),
        &["issue    runner2", "o/r7  could not be listed, so nothing starts or stops: 503"],
    );
    let incomplete = world(vec![], vec![runner(1, 1, RunnerState::Starting)])
        .seen_twice()
        .listing(|jobs| Listing::Fresh { now: ago(0), jobs, complete: false });
    let mut incomplete = incomplete;
    // If only a part was requested, nothing is wrong and nothing stops.
    assert_plan(incomplete.plan(), &[]);
    incomplete.0.repositories.values_mut().for_each(|view| view.missing = Some("run 3: 502".to_owned()));
    assert_plan(incomplete.plan(), &["o/r7  the listing is incomplete, so nothing stops: run 3: 502"]);
    let blind = Observation { nomad: None, ..stale.0 };
    assert_plan(plan(&blind, &policy(), at(0)).to_string(), &["everything  Nomad unreachable"]);
}

#[test]
fn caps_count_live_runners_and_hold_further_starts() {
    let capped = Policy { max_runners: Some(2), ..policy() };
    let dead = runner(9, 1, RunnerState::Dead);
    let stopping = runner(8, 1, RunnerState::Stopping);
    assert_plan(
        world(vec![queued(1), queued(2)], vec![dead, stopping]).plan_with(&capped),
        &["start … for job 1", "job 2 … scheduler.max_runners is 2"],
    );
}

#[test]
fn an_idle_runner_that_no_job_needs_makes_room() {
    let mut pending = runner(2, 1, RunnerState::Pending);
    pending.blocked = Some(Blocked { exhausted: true, reason: "memory".to_owned() });
    pending.meta.labelsstr = "nomadtools big".to_owned();
    let mut wanted = queued(2);
    wanted.labels = vec!["nomadtools big".to_owned()].into();
    let idle = runner(1, 1, RunnerState::Running);
    let full = world(vec![wanted.clone()], vec![pending.clone(), idle.clone()]).seen_twice();
    let unplaced = "runner2  Nomad cannot place it: memory";
    assert_plan(full.plan(), &["stop     runner1 … making room for runner2", unplaced]);
    pending.blocked = Some(Blocked { exhausted: false, reason: "memory".to_owned() });
    let never_fits = world(vec![wanted], vec![pending, idle]).seen_twice();
    assert_plan(never_fits.plan(), &["runner1  surplus, idle", unplaced]);
}

#[test]
fn an_unregistered_runner_is_verified_then_replaced_then_stopped() {
    let idle = runner(1, 1, RunnerState::Running);
    let mut world = world(vec![queued(1)], vec![idle.clone()]);
    assert_plan(world.plan(), &["verify   runner1"]);
    let absent = |since, checked| Presence { checked_at: at(checked), absent_since: Some(at(since)) };
    world.0.memory.presence.insert(idle.name.clone(), absent(900, 990));
    assert_plan(world.plan(), &["start … attempt 2", "runner1  not connected to GitHub for 1m40s"]);
    world.0.memory.presence.insert(idle.name, absent(400, 1000));
    assert_plan(
        world.plan(),
        &["stop     runner1 … GitHub cannot assign it a job", "this pass stops a runner with its labels"],
    );
}

#[test]
fn dead_runners_leave_nothing_behind() {
    let mut dead = runner(1, 1, RunnerState::Dead);
    dead.variable = Some(ago(1000));
    assert_plan(
        world(vec![], vec![dead.clone()]).plan(),
        &["clean up runner1  dead (success): removing its registration"],
    );
    dead.ended_at = Some(ago(700));
    assert_plan(world(vec![], vec![dead]).plan(), &["clean up runner1", "kept until its variable is gone"]);
}

#[test]
fn the_replacement_of_a_lost_allocation_is_stopped() {
    let mut lost = runner(1, 1, RunnerState::Waiting);
    lost.spent = true;
    lost.started = true;
    assert_plan(
        world(vec![queued(1)], vec![lost]).plan(),
        &[
            "stop     runner1 … an earlier allocation … its task is not running",
            "job 1 … this pass stops a runner with its labels",
        ],
    );
}

/// A job of another repository that is waiting for the only place.
fn another_repositorys_job(world: &mut World) {
    let other = RepositoryId(REPOSITORY.0 + 1);
    let job = WorkflowJob { id: JobId(50), repository: other, created_at: Some(ago(1)), ..queued(50) };
    let listing = Listing::Fresh { now: ago(0), jobs: vec![job], complete: true };
    let view = RepositoryView { repository: repository(other), configured: true, listing, missing: None };
    world.0.repositories.insert(other, view);
}

/// One place, and no room is made for long waits.
fn one_place() -> Policy {
    Policy { max_runners: Some(1), pending_to_kill_listening: None, ..policy() }
}

#[test]
fn a_runner_that_github_refuses_yields_its_place() {
    let mut waiting = runner(1, 1, RunnerState::Waiting);
    placed(&mut waiting, 900);
    let mut world = world(vec![queued(1)], vec![waiting.clone()]);
    another_repositorys_job(&mut world);
    // A process that has not tried yet does so first, and reports what it sees.
    assert_plan(
        world.plan_with(&one_place()),
        &["issue    runner1", "job 50 … waiting for a place", "runner1  no credentials for 15m"],
    );
    let refused = |until| Backoff { failures: 9, until: at(until), error: "403: disabled".to_owned() };
    for until in [900, 1600] {
        world.0.memory.issue_backoff = [(waiting.name.clone(), refused(until))].into();
        assert_plan(
            world.plan_with(&one_place()),
            &["stop     runner1 … no credentials for too long, yielding to o/r8 job 50", "job 50 … waiting"],
        );
    }
    let patient = Policy { waiting_timeout: seconds(901), ..one_place() };
    assert_plan(
        world.plan_with(&patient),
        &["job 50 … waiting for a place", "runner1  retrying in 10m: 403: disabled"],
    );
    // If nothing is waiting, the runner stays, with the reason as a hold.
    world.0.repositories.remove(&RepositoryId(REPOSITORY.0 + 1));
    assert_plan(world.plan_with(&one_place()), &["runner1  no credentials for 15m: 403: disabled"]);
}

/// A runner of o/r7 that GitHub refused, and its error.
fn refused() -> (Runner, BTreeMap<String, Backoff>) {
    let mut waiting = runner(1, 1, RunnerState::Waiting);
    placed(&mut waiting, 900);
    let backoff = Backoff { failures: 9, until: at(900), error: "403: disabled".to_owned() };
    let failed = [(waiting.name.clone(), backoff)].into();
    (waiting, failed)
}

/// Nomad would place the unplaced runner of the same group first, because it has waited longer.
#[test]
fn on_full_nodes_unplaced_runners_leave_with_the_stuck_runner_of_their_group() {
    let (waiting, failed) = refused();
    let mut behind = runner(2, 1, RunnerState::Pending);
    let mut other = runner(3, 1, RunnerState::Pending);
    behind.submitted_at = other.submitted_at - Duration::from_secs(1);
    other.meta.labelsstr = "nomadtools big".to_owned();
    other.blocked = Some(Blocked { exhausted: true, reason: "memory".to_owned() });
    let mut wanted = queued(3);
    wanted.labels = vec!["nomadtools big".to_owned()].into();
    let mut world = world(vec![queued(1), queued(2), wanted], vec![waiting, behind, other]);
    world.0.memory.issue_backoff = failed;
    let text = world.plan();
    for stopped in ["runner1", "runner2"] {
        let line = format!("stop     {stopped}  no credentials for too long, yielding to runner3");
        assert!(text.contains(&line), "{text}");
    }
    assert!(!text.contains("stop     runner3"), "{text}");
    // A runner that came later is in nobody's way.
    let nomad = world.0.nomad.as_mut().unwrap();
    let behind = nomad.runners.iter_mut().find(|runner| runner.meta.job_id() == Some(JobId(2))).unwrap();
    behind.submitted_at += Duration::from_secs(2);
    let text = world.plan();
    assert!(text.contains("stop     runner1") && !text.contains("stop     runner2"), "{text}");
}

#[test]
fn a_stuck_runner_does_not_yield_to_a_group_that_gave_up_a_place_itself() {
    let (waiting, failed) = refused();
    let other = RepositoryId(REPOSITORY.0 + 1);
    let mut gave_up = runner(50, 1, RunnerState::Dead);
    gave_up.meta.repo_id = Some(other);
    (gave_up.finish, gave_up.ended_at) = (Some(Finish::Stopped), Some(ago(100)));
    let mut world = world(vec![queued(1)], vec![waiting, gave_up]);
    another_repositorys_job(&mut world);
    let job = WorkflowJob { repository: other, created_at: Some(ago(400)), ..queued(50) };
    let listing = Listing::Fresh { now: ago(0), jobs: vec![job], complete: true };
    world.0.repositories.get_mut(&other).unwrap().listing = listing;
    world.0.memory.issue_backoff = failed;
    let capped = Policy { max_runners: Some(1), ..policy() };
    let text = world.plan_with(&capped);
    assert!(text.contains("job 50") && !text.contains("stop "), "{text}");
}

#[test]
fn a_runner_that_gets_no_job_yields_its_place() {
    let idle = runner(1, 1, RunnerState::Running);
    let mut old = queued(1);
    old.created_at = Some(ago(400));
    let mut world = world(vec![old], vec![idle.clone()]);
    let presence = Presence { checked_at: at(990), absent_since: None };
    world.0.memory.presence.insert(idle.name.clone(), presence);
    assert_plan(
        world.plan_with(&one_place()),
        &["runner1  online and idle for 15m though its job is queued: check the runner group's access"],
    );
    another_repositorys_job(&mut world);
    assert_plan(
        world.plan_with(&one_place()),
        &[
            "stop     runner1 … idle for too long though its job is queued, yielding to o/r8 … GitHub removes",
            "job 50 … waiting",
        ],
    );
}

#[test]
fn runners_without_a_job_leave_a_draining_node() {
    let on_draining = |state| {
        let mut runner = runner(1, 1, state);
        runner.allocation.as_mut().unwrap().draining = true;
        runner
    };
    let idle = on_draining(RunnerState::Running);
    assert_plan(world(vec![queued(1)], vec![idle.clone()]).plan(), &["stop … its node n is being drained"]);
    let starting = on_draining(RunnerState::Starting);
    assert_plan(world(vec![queued(1)], vec![starting]).plan(), &["stop … its node n is being drained"]);
    let mut busy = queued(1);
    (busy.status, busy.runner_name) = (JobStatus::InProgress, Some(idle.name.clone()));
    assert_plan(world(vec![busy], vec![idle]).plan(), &[]);
}

#[test]
fn a_runner_that_does_not_start_is_reported_and_then_replaced() {
    let mut starting = runner(1, 1, RunnerState::Starting);
    placed(&mut starting, 900);
    starting.last_event = Some("Missing: nomad.var.block(nomad/jobs/ci@github.global)".to_owned());
    let world = |runner: &Runner| world(vec![queued(1)], vec![runner.clone()]);
    assert_plan(
        world(&starting).plan(),
        &["runner1  its task has not started for 15m, last event: Missing: nomad.var.block(nomad/jobs/ci@"],
    );
    let strict = Policy { starting_timeout: seconds(900), ..policy() };
    assert_plan(
        world(&starting).plan_with(&strict),
        &["stop     runner1  its task has not started for 15m, last event: Missing"],
    );
    // The time spent waiting for credentials does not count as starting.
    starting.variable = Some(ago(30));
    assert_plan(world(&starting).plan_with(&strict), &[]);
}

#[test]
fn a_runner_that_runs_for_too_long_is_announced_and_then_stopped_with_its_job() {
    let runner = runner(1, 1, RunnerState::Running);
    let mut job = job(1, JobStatus::InProgress);
    job.runner_name = Some(runner.name.clone());
    let plan = |limit: Option<u64>| {
        let policy = Policy { max_run_duration: limit.map(seconds), ..policy() };
        world(vec![job.clone()], vec![runner.clone()]).plan_with(&policy)
    };
    let ran = age(ago(0), runner.started_at.unwrap()).as_secs();
    assert_plan(plan(None), &[]);
    assert_plan(plan(Some(ran * 2)), &[]);
    assert_plan(
        plan(Some(ran + 60)),
        &["runner1 … of max_run_duration … it ends in 1m, with the job it runs"],
    );
    assert_plan(plan(Some(ran - 29)), &["runner1 … of max_run_duration … it ends in 0s"]);
    assert_plan(
        plan(Some(ran - 30)),
        &["stop     runner1  has run for … longer than max_run_duration … with the job it runs"],
    );
}

#[test]
fn at_most_two_attempts_of_a_job_are_alive() {
    let absent = |attempt| {
        let mut runner = runner(1, attempt, RunnerState::Running);
        runner.submitted_at = ago(70);
        runner
    };
    let plan_of = |runners: Vec<Runner>| {
        let mut world = world(vec![queued(1)], runners.clone());
        world.0.memory.presence = runners
            .iter()
            .map(|r| (r.name.clone(), Presence { checked_at: at(990), absent_since: Some(at(900)) }))
            .collect();
        world.plan()
    };
    assert!(plan_of(vec![absent(1)]).contains("attempt 2"), "{}", plan_of(vec![absent(1)]));
    let two = plan_of(vec![absent(1), absent(2)]);
    assert!(two.contains("2 attempts are alive") && !two.contains("start "), "{two}");
    // A single later attempt waits, measured from its start.
    let third = plan_of(vec![absent(3)]);
    assert!(third.contains("attempt 4 starts in 50s"), "{third}");
}

#[test]
fn a_group_that_gave_up_a_place_waits_for_others() {
    let mut gave_up = runner(1, 1, RunnerState::Dead);
    (gave_up.finish, gave_up.ended_at) = (Some(Finish::Stopped), Some(ago(599)));
    let mut world = world(vec![queued(1)], vec![gave_up]);
    another_repositorys_job(&mut world);
    world.0.memory.last_start.insert(RepositoryId(REPOSITORY.0 + 1), ago(1));
    let expected = ["start … for job 50", "job 1 … waiting for a place"];
    assert_plan(world.plan_with(&one_place()), &expected);
    world.0.nomad.as_mut().unwrap().runners[0].ended_at = Some(ago(600));
    assert_plan(
        world.plan_with(&one_place()),
        &["start … for job 1, attempt 2", "job 50 … waiting for a place", "dead, kept"],
    );
}

#[test]
fn nomadtools_runners_are_supply_and_never_stopped_alive() {
    let mut theirs = runner(1, 1, RunnerState::Running);
    theirs.ownership = Ownership::Nomadtools;
    let strict = Policy { strict: true, ..policy() };
    assert_plan(world(vec![queued(1)], vec![theirs.clone()]).plan(), &[]);
    // A runner that names no job: the hold of a waiting job says where to look.
    let mut nameless = theirs.clone();
    nameless.meta.purpose = Some(JobId(99).into());
    assert_plan(world(vec![queued(1)], vec![nameless]).plan(), &["job 1 … left to runner"]);
    assert_plan(world(vec![], vec![theirs.clone()]).seen_twice().plan_with(&strict), &[]);
    theirs.state = RunnerState::Dead;
    theirs.variable = None;
    theirs.ended_at = Some(ago(3600));
    assert_plan(world(vec![], vec![theirs]).plan(), &["purge"]);
}

#[test]
fn a_url_that_two_repositories_had_means_the_configured_one() {
    let mut theirs = runner(1, 1, RunnerState::Running);
    theirs.ownership = Ownership::Nomadtools;
    theirs.meta.repo_id = None;
    for other in [REPOSITORY.0 - 1, REPOSITORY.0 + 1].map(RepositoryId) {
        let mut world = world(vec![queued(1)], vec![theirs.clone()]);
        let repository = Repository { id: other, ..repository(REPOSITORY) };
        let listing = Listing::Gone { since: at(1000) };
        let former = RepositoryView { repository, configured: false, listing, missing: None };
        world.0.repositories.insert(other, former);
        let plan = world.plan();
        assert!(!plan.contains("start"), "{plan}");
    }
}

#[test]
fn a_start_does_not_use_a_name_whose_variable_still_exists() {
    let mut world = world(vec![queued(1)], vec![]);
    let name = |attempt| {
        runner_name("ghr", DEPLOYMENT, None, &repository(REPOSITORY).full_name(), JobId(1), attempt)
    };
    world.0.nomad.as_mut().unwrap().variables = [name(1), name(2)].map(variable).into();
    let Some(Action::Start(start)) = plan(&world.0, &policy(), at(0)).actions.pop() else {
        panic!("no start")
    };
    assert_eq!((start.attempt, start.name), (3, name(3)));
}

#[test]
fn a_start_does_not_use_the_name_of_a_foreign_job() {
    let mut world = world(vec![queued(1)], vec![]);
    let name = |attempt| {
        runner_name("ghr", DEPLOYMENT, None, &repository(REPOSITORY).full_name(), JobId(1), attempt)
    };
    world.0.nomad.as_mut().unwrap().foreign =
        vec![Foreign { name: name(1), reason: ForeignReason::WrongSeal }];
    let Some(Action::Start(start)) = plan(&world.0, &policy(), at(0)).actions.pop() else {
        panic!("no start")
    };
    assert_eq!((start.attempt, start.name), (2, name(2)));
}

#[test]
fn a_planted_job_is_held_and_variables_with_its_name_stay() {
    let name = runner_name("ghr", DEPLOYMENT, None, &repository(REPOSITORY).full_name(), JobId(1), 1);
    let mut world = world(vec![queued(2)], vec![]);
    let nomad = world.0.nomad.as_mut().unwrap();
    nomad.foreign = vec![Foreign { name: name.clone(), reason: ForeignReason::Unsealed }];
    nomad.variables = [variable(name.clone())].into();
    let plan = plan(&world.0, &policy(), at(0));
    assert_eq!(plan.orphans, Default::default());
    assert_eq!(plan.actions.len(), 1, "it is no supply: {plan}");
    let hold = format!("hold     {name}  a foreign job, left alone: its Meta has no MAC");
    assert!(plan.to_string().contains(&hold), "{plan}");
}

#[test]
fn orphans_are_removed_and_foreign_things_stay() {
    let name = |deployment, job_id| {
        runner_name("ghr", deployment, None, &repository(REPOSITORY).full_name(), job_id, 1)
    };
    let mut world = world(vec![], vec![runner(1, 1, RunnerState::Running)]);
    let variables = [
        name(DEPLOYMENT, JobId(1)),
        name(DEPLOYMENT, JobId(2)),
        name("other", JobId(3)),
        "ghr-by-hand".to_owned(),
    ];
    world.0.nomad.as_mut().unwrap().variables = variables.map(variable).into();
    let registration = |name, online| OwnRegistration { name, online, repository: REPOSITORY };
    world.0.registrations = vec![
        registration(name(DEPLOYMENT, JobId(1)), false),
        registration(name(DEPLOYMENT, JobId(4)), false),
        registration(name(DEPLOYMENT, JobId(5)), true),
        registration(name("other", JobId(6)), false),
    ];
    let orphans = plan(&world.0, &policy(), at(0)).orphans;
    let expected = [
        Orphan::Variable(variable(name(DEPLOYMENT, JobId(2)))),
        Orphan::Registration { name: name(DEPLOYMENT, JobId(4)) },
    ];
    assert_eq!(orphans, expected.clone().into());
    world.0.memory.orphans = expected.map(|orphan| (orphan, at(401))).into();
    let removed = |world: &World| {
        let actions = plan(&world.0, &policy(), at(1000)).actions;
        actions.iter().map(|action| action.runner().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(removed(&world), [name(DEPLOYMENT, JobId(2))]);
    world.0.memory.orphans.values_mut().for_each(|since| *since = at(400));
    assert_eq!(removed(&world), [name(DEPLOYMENT, JobId(2)), name(DEPLOYMENT, JobId(4))]);
}

fn class(name: &str, labels: &str) -> Class {
    let matches = ClassMatch { labels: Some(LabelPattern::new(labels).unwrap()), ..ClassMatch::default() };
    Class { name: name.to_owned(), matches, ..Class::default() }
}

fn labelled(id: u64, label: &str) -> WorkflowJob {
    WorkflowJob { labels: vec![label.to_owned()].into(), ..queued(id) }
}

fn of_class(class: Option<&str>, mut runner: Runner) -> Runner {
    runner.meta.class = class.map(str::to_owned);
    runner
}

#[test]
fn a_job_gets_a_runner_of_the_first_class_that_covers_it() {
    let classes =
        vec![class("gpu", "nomadtools gpu"), class("any", "nomadtools"), class("late", "nomadtools gpu")];
    let policy = Policy { classes, ..policy() };
    let world = world(vec![labelled(1, "nomadtools GPU"), labelled(2, "nomadtools")], vec![]);
    let expected = ["start … for job 2, attempt 1, class any", "start … for job 1, attempt 1, class gpu"];
    let plan = world.plan_with(&policy);
    for line in expected {
        assert!(plan.lines().any(|found| line.split(" … ").all(|part| found.contains(part))), "{plan}");
    }
    assert!(!world.plan().contains("class"), "without classes nobody speaks of them");
}

#[test]
fn a_class_can_deny_jobs_and_uncovered_jobs_can_be_held() {
    let deny = Some("ask #platform".to_owned());
    let classes = vec![Class { deny, ..class("gpu", "nomadtools gpu") }];
    let jobs = || vec![labelled(1, "nomadtools gpu"), labelled(2, "nomadtools")];
    let denying = Policy { classes: classes.clone(), ..policy() };
    assert_plan(
        world(jobs(), vec![]).plan_with(&denying),
        &["start … for job 2", "job 1 … class gpu denies it: ask #platform"],
    );
    let only = Policy { classes_only: true, classes, ..policy() };
    assert_plan(
        world(jobs(), vec![]).plan_with(&only),
        &["job 1 … class gpu denies it", "job 2 … no class matches it, and classes_only is set"],
    );
}

#[test]
fn runners_count_against_the_class_that_they_were_started_as() {
    let gpu = Class { max_runners: Some(1), ..class("gpu", "nomadtools gpu") };
    let policy = Policy { classes: vec![gpu], ..policy() };
    let busy = |class| {
        let runner = of_class(class, runner(9, 1, RunnerState::Running));
        let mut other = job(9, JobStatus::InProgress);
        other.runner_name = Some(runner.name.clone());
        (other, runner)
    };
    for (started_as, is_held) in [(Some("gpu"), true), (Some("former"), false), (None, false)] {
        let (other, busy) = busy(started_as);
        let plan = world(vec![labelled(1, "nomadtools gpu"), other], vec![busy]).plan_with(&policy);
        let held = plan.contains("waiting for a place: its class's max_runners is 1");
        assert_eq!((held, plan.contains("start ")), (is_held, !is_held), "{started_as:?}: {plan}");
    }
}

#[test]
fn at_the_cap_on_all_the_class_with_the_fewest_runners_is_next() {
    let classes = vec![class("gpu", "nomadtools gpu")];
    let policy = Policy { classes, max_runners: Some(2), ..policy() };
    let (mut mine, runner) = (job(9, JobStatus::InProgress), runner(9, 1, RunnerState::Running));
    mine.runner_name = Some(runner.name.clone());
    for (started_as, next) in [(None, "for job 2"), (Some("gpu"), "for job 1")] {
        let jobs = vec![labelled(1, "nomadtools"), labelled(2, "nomadtools gpu"), mine.clone()];
        let plan = world(jobs, vec![of_class(started_as, runner.clone())]).plan_with(&policy);
        assert!(plan.lines().next().unwrap().contains(next), "{started_as:?}: {plan}");
        assert_eq!(plan.matches("start ").count(), 1, "{plan}");
    }
}

#[test]
fn only_runners_of_a_full_class_make_room_for_it() {
    let gpu = Class { max_runners: Some(1), ..class("gpu", "nomadtools gpu") };
    let policy = Policy { classes: vec![gpu], ..policy() };
    let mut waiting = labelled(1, "nomadtools gpu");
    waiting.created_at = Some(ago(100));
    for (started_as, makes_room) in [(Some("gpu"), true), (None, false)] {
        let idle = of_class(started_as, runner(8, 1, RunnerState::Running));
        let busy = (started_as.is_none()).then(|| of_class(Some("gpu"), runner(9, 1, RunnerState::Running)));
        let mut jobs = vec![waiting.clone()];
        if let Some(busy) = &busy {
            jobs.push(WorkflowJob { runner_name: Some(busy.name.clone()), ..job(9, JobStatus::InProgress) });
        }
        let runners = [idle].into_iter().chain(busy).collect();
        let plan = world(jobs, runners).seen_twice().plan_with(&policy);
        assert_eq!(plan.contains("making room for"), makes_room, "{started_as:?}: {plan}");
    }
}

#[test]
fn a_runners_timeouts_are_those_of_its_class() {
    let gpu = Class { starting_timeout: Some(seconds(3600)), ..class("gpu", "nomadtools gpu") };
    let policy = Policy { classes: vec![gpu], ..policy() };
    for (started_as, is_stopped) in [(None, true), (Some("gpu"), false)] {
        let mut starting = of_class(started_as, runner(1, 1, RunnerState::Starting));
        placed(&mut starting, 1300);
        starting.variable = Some(ago(1300));
        let plan = world(vec![queued(1)], vec![starting]).plan_with(&policy);
        assert_eq!(plan.contains("stop "), is_stopped, "{started_as:?}: {plan}");
    }
}

/// `runs-on: nomadtools run=${{ github.run_id }}`: the recipe of docs/templates-and-labels.md.
#[test]
fn a_runner_with_the_label_of_one_run_is_no_supply_for_another() {
    let mut labels: Vec<String> = Vec::new();
    for jobs in [
        vec![labelled(1, "nomadtools run=1")],
        vec![labelled(1, "nomadtools run=1"), labelled(2, "nomadtools run=2")],
    ] {
        let mut idle = runner(1, 1, RunnerState::Running);
        idle.meta.labelsstr = "nomadtools run=1".to_owned();
        let plan = plan(&world(jobs, vec![idle]).0, &policy(), at(0));
        labels.extend(plan.actions.iter().filter_map(|action| match action {
            Action::Start(start) => Some(start.labels.joined()),
            _ => None,
        }));
    }
    assert_eq!(labels, ["nomadtools run=2"], "a run's own runner serves only that run");
    let keys = ["mem".to_owned()].into();
    let notes =
        |label: &str| unread(&keys, &LabelRules::new("nomadtools").unwrap().check(&[label]).unwrap()).len();
    assert_eq!((notes("nomadtools run=1"), notes("nomadtools rum=1")), (0, 1));
}

fn gpu_namespace() -> Namespace {
    Namespace { name: "gpu".to_owned(), region: None }
}

/// The class `gpu` in its own namespace.
fn policy_elsewhere() -> Policy {
    let nomad = ClassNomad { namespace: Some(gpu_namespace()), ..ClassNomad::default() };
    Policy { classes: vec![Class { nomad, ..class("gpu", "nomadtools gpu") }], ..policy() }
}

impl World {
    /// The namespace `gpu` could not be read.
    fn gpu_unseen(mut self) -> Self {
        let (namespace, kind, why) = ("gpu".to_owned(), "denied", "403 Permission denied".to_owned());
        let unseen = [(Some(gpu_namespace()), Unseen { namespace, kind, why })].into();
        self.0.nomad.as_mut().unwrap().unseen = unseen;
        self
    }
}

#[test]
fn a_namespace_that_could_not_be_read_holds_its_class_and_nobody_else() {
    let jobs = vec![labelled(1, "nomadtools gpu"), labelled(2, "nomadtools")];
    let seen = plan(&world(jobs.clone(), vec![]).0, &policy_elsewhere(), at(0)).actions;
    let of = |action: &Action| (action.runner().to_owned(), action.namespace().cloned());
    let name = |namespace: Option<&Namespace>, job| {
        runner_name("ghr", DEPLOYMENT, namespace, &repository(REPOSITORY).full_name(), JobId(job), 1)
    };
    let gpu = gpu_namespace();
    let both = [(name(Some(&gpu), 1), Some(gpu)), (name(None, 2), None)];
    assert!(seen.iter().map(of).all(|start| both.contains(&start)) && seen.len() == 2, "{seen:?}");

    let dead = Runner { namespace: Some(gpu_namespace()), ..runner(9, 1, RunnerState::Dead) };
    let left = dead.name.clone();
    let unseen = world(jobs.clone(), vec![dead]).gpu_unseen();
    let shown = plan(&unseen.0, &policy_elsewhere(), at(10_000));
    assert_eq!(shown.actions.iter().map(of).collect::<Vec<_>>(), [both[1].clone()], "{shown}");
    let why = "the Nomad namespace gpu could not be read, so nothing starts or stops there: 403";
    for subject in [format!("job 1 [nomadtools gpu]  {why}"), format!("{left}  {why}")] {
        assert!(shown.to_string().contains(&subject), "{shown}");
    }
    // What was last seen there counts.
    let alive = Runner { namespace: Some(gpu_namespace()), ..runner(9, 1, RunnerState::Running) };
    let capped = Policy { max_runners: Some(1), ..policy_elsewhere() };
    let shown = plan(&world(jobs, vec![alive]).gpu_unseen().0, &capped, at(0));
    assert!(shown.actions.is_empty() && shown.to_string().contains("max_runners is 1"), "{shown}");
}

#[test]
fn attempts_count_across_namespaces() {
    // The class was in the daemon's own namespace before.
    let first = of_class(Some("gpu"), runner(1, 1, RunnerState::Dead));
    let mut labelled_first = first.clone();
    labelled_first.meta.labelsstr = "nomadtools gpu".to_owned();
    labelled_first.ended_at = Some(ago(60));
    let world = world(vec![labelled(1, "nomadtools gpu")], vec![labelled_first]);
    let starts: Vec<(u32, Option<Namespace>)> = plan(&world.0, &policy_elsewhere(), at(0))
        .actions
        .iter()
        .filter_map(|action| match action {
            Action::Start(start) => Some((start.attempt, start.namespace.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(starts, [(2, Some(gpu_namespace()))]);
}
