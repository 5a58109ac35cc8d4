//! Each of the planner's reasons, in a world in which the planner produces it: the answer names the right step, and
//! says what to do.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use super::{Answer, Explanation, Mark, Seen, Step, Verdict, World, meaning, print, whole};
use crate::{
    commands::{Exit, Style},
    config::{Class, ClassNomad, Hours, WarmEntry},
    labels::LabelRules,
    model::*,
    plan::{Policy, WarmPolicy, plan},
};

const REPOSITORY: RepositoryId = RepositoryId(7);
const DEPLOYMENT: &str = "instance";
const NOW: Moment = Moment::after_start(Duration::from_secs(10_000));

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ago(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_hours(500_000) - SignedDuration::from_secs(seconds)
}

fn repository() -> Repository {
    Repository {
        id: REPOSITORY,
        owner: "acme".to_owned(),
        name: "app".to_owned(),
        html_url: "https://github.com/acme/app".to_owned(),
        archived: false,
        disabled: false,
        visibility: crate::model::Visibility::default(),
    }
}

fn job(id: u64, status: JobStatus) -> WorkflowJob {
    WorkflowJob {
        id: JobId(id),
        run_id: RunId(1),
        repository: REPOSITORY,
        name: "build".to_owned(),
        status,
        labels: vec!["nomadtools".to_owned()].into(),
        runner_name: None,
        created_at: Some(ago(1000)),
        started_at: None,
        html_url: None,
        run: Default::default(),
    }
}

/// A runner that was placed 60 s ago, or started 900 s ago.
fn runner(job_id: u64, attempt: u32, state: RunnerState) -> Runner {
    let started = matches!(state, RunnerState::Running | RunnerState::Stopping | RunnerState::Dead);
    Runner {
        name: runner_name("ghr", DEPLOYMENT, None, &repository().full_name(), JobId(job_id), attempt),
        namespace: None,
        ownership: Ownership::Ours,
        meta: RunnerMeta {
            labelsstr: "nomadtools".to_owned(),
            repo_url: repository().html_url,
            deployment: Some(DEPLOYMENT.to_owned()),
            repo_id: Some(REPOSITORY),
            purpose: Some(JobId(job_id).into()),
            attempt: Some(attempt),
            registration: Some(Registration::Jit),
            ..RunnerMeta::default()
        },
        state,
        finish: (state == RunnerState::Dead).then_some(Finish::Success),
        started,
        spent: false,
        ending: false,
        lost: None,
        variable: (started && state != RunnerState::Dead || state == RunnerState::Starting).then(|| ago(60)),
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

/// The target of a case.
enum About {
    Job(u64),
    Runner(u64, u32),
    Foreign,
    Everything,
    /// The warm entry.
    Warm,
}

/// A world, and the target in it.
struct Case {
    observation: Observation,
    policy: Policy,
    about: About,
}

impl Case {
    fn new(about: About, jobs: Vec<WorkflowJob>, runners: Vec<Runner>) -> Case {
        let listing = Listing::Fresh { now: ago(0), jobs, complete: true };
        let view = RepositoryView { repository: repository(), configured: true, listing, missing: None };
        let observation = Observation {
            nomad: Some(NomadView {
                now: ago(0),
                deployment: DEPLOYMENT.to_owned(),
                runners,
                foreign: Vec::new(),
                variables: BTreeSet::new(),
                unseen: std::collections::BTreeMap::new(),
            }),
            repositories: [(REPOSITORY, view)].into(),
            ..Observation::default()
        };
        let policy = Policy {
            prefix: "ghr".to_owned(),
            labels: LabelRules::new("nomadtools *(.*)").unwrap(),
            max_runners: None,
            max_runners_per_repository: None,
            max_runners_per_group: None,
            runner_inactivity_timeout: Some(seconds(3600)),
            strict: false,
            purge_successfull_timeout: Some(seconds(5)),
            purge_failure_timeout: Some(seconds(5)),
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
        };
        Case { observation, policy, about }
    }

    /// With another repository, listed a moment ago, that has an older job.
    fn beside_an_older_job(mut self) -> Case {
        let id = RepositoryId(REPOSITORY.0 + 1);
        let mut older = job(2, JobStatus::Queued);
        (older.repository, older.created_at) =
            (id, older.created_at.map(|at| at - SignedDuration::from_secs(60)));
        let repository = Repository { id, name: "other".to_owned(), ..repository() };
        let listing = Listing::Earlier { ended: NOW - seconds(5), jobs: vec![older], complete: true };
        let view = RepositoryView { repository, configured: true, listing, missing: None };
        self.observation.repositories.insert(id, view);
        self
    }

    fn queued() -> Case {
        Case::new(About::Job(1), vec![job(1, JobStatus::Queued)], Vec::new())
    }

    /// A queued job whose class's namespace could not be read.
    fn in_unseen_namespace() -> Case {
        let gpu = Namespace { name: "gpu".to_owned(), region: None };
        let nomad = ClassNomad { namespace: Some(gpu.clone()), ..ClassNomad::default() };
        let class = Class { name: "gpu".to_owned(), nomad, ..Class::default() };
        let mut case = Case::queued().policy(|policy| policy.classes = vec![class]);
        let why = "403 Permission denied".to_owned();
        let unseen = Unseen { namespace: gpu.to_string(), kind: "denied", why };
        case.observation.nomad.as_mut().unwrap().unseen = [(Some(gpu), unseen)].into();
        case
    }

    /// A queued job with its own runner in this state.
    fn with_runner(state: RunnerState, change: impl FnOnce(&mut Runner)) -> Case {
        let mut runner = runner(1, 1, state);
        change(&mut runner);
        Case::new(About::Job(1), vec![job(1, JobStatus::Queued)], vec![runner])
    }

    fn view(mut self, change: impl FnOnce(&mut RepositoryView)) -> Case {
        change(self.observation.repositories.get_mut(&REPOSITORY).unwrap());
        self
    }

    fn memory(mut self, change: impl FnOnce(&mut Memory)) -> Case {
        change(&mut self.observation.memory);
        self
    }

    fn policy(mut self, change: impl FnOnce(&mut Policy)) -> Case {
        change(&mut self.policy);
        self
    }

    fn plan(&self) -> Plan {
        plan(&self.observation, &self.policy, NOW)
    }

    fn explain_seen(&self, seen: BTreeMap<String, Seen>) -> Explanation {
        let plan = self.plan();
        let world =
            World { observation: &self.observation, plan: &plan, performed: &[], policy: &self.policy, seen };
        let view = self.observation.repositories.get(&REPOSITORY);
        match self.about {
            About::Everything => world.everything(&[unreachable()]).unwrap(),
            About::Warm => world.warm(&repository()).remove(0),
            About::Foreign => world.foreign("ghr-planted").unwrap(),
            About::Job(id) => {
                let view = view.unwrap();
                // GitHub itself reports a job that is in no list.
                let asked = job(id, JobStatus::Queued);
                let listed = view.listing.jobs().iter().find(|job| job.id == JobId(id));
                world.job(view, listed.unwrap_or(&asked), None)
            }
            About::Runner(job_id, attempt) => {
                let name =
                    runner_name("ghr", DEPLOYMENT, None, &repository().full_name(), JobId(job_id), attempt);
                let runners = &self.observation.nomad.as_ref().unwrap().runners;
                world.runner(runners.iter().find(|runner| runner.name == name).unwrap())
            }
        }
    }

    fn explain(&self) -> Explanation {
        self.explain_seen(BTreeMap::new())
    }
}

fn backoff() -> Backoff {
    Backoff { failures: 1, until: NOW + seconds(30), error: "it answered 500".to_owned() }
}

fn absent(since: u64) -> Presence {
    Presence { checked_at: NOW - seconds(1), absent_since: Some(NOW - seconds(since)) }
}

/// A runner that was lost with job 1 of run 7. Another job of the run may still be active. The job has been run
/// again this often.
fn lost(status: JobStatus, reruns: usize) -> Case {
    let loss = Lost { loss: Loss::Node, at: ago(600) };
    let dead = Runner { lost: Some(loss), finish: Some(Finish::Lost), ..runner(1, 1, RunnerState::Dead) };
    let name = dead.name.clone();
    let of_run = |id, status| WorkflowJob { run_id: RunId(7), ..job(id, status) };
    let own = WorkflowJob { runner_name: Some(name.clone()), ..of_run(1, status) };
    let jobs = match status {
        JobStatus::InProgress => vec![own],
        _ => vec![of_run(2, JobStatus::Waiting)],
    };
    let mut case = Case::new(About::Runner(1, 1), jobs, vec![dead])
        .policy(|policy| policy.rerun_lost = Some(crate::config::RerunLost::default()));
    let key = job_key("build");
    let ended = EndedJob {
        id: JobId(1),
        run_id: RunId(7),
        run_attempt: 1,
        key: key.clone(),
        conclusion: Conclusion::Failure,
        runner: name.clone(),
        created_at: ago(1000),
        started_at: ago(900),
        completed_at: ago(5),
    };
    if status != JobStatus::InProgress {
        case.observation.ended = [(name, Ended { job: ended, ago: seconds(5) })].into();
    }
    let mark =
        |at: usize| RerunMark { run_id: RunId(7), key: key.clone(), runner: format!("r{at}"), at: ago(100) };
    case.observation.reruns = Some((0..reruns).map(mark).collect());
    case
}

/// A warm runner of the entry of [`warm_case`].
fn warm(number: u32, state: RunnerState) -> Runner {
    let mut warm = runner(1, number, state);
    warm.meta.purpose = Some(Purpose::Warm(Warm { entry: "e".to_owned(), ..Warm::default() }));
    warm
}

/// A world with an entry of one warm runner.
fn warm_case(about: About, jobs: Vec<WorkflowJob>, runners: Vec<Runner>) -> Case {
    let entry = WarmEntry {
        id: "e".to_owned(),
        labels: Labels::new(["nomadtools"]),
        place: RepoEntry::Repository { owner: "acme".to_owned(), name: "app".to_owned() },
        count: 1,
        schedule: None,
    };
    let warm = WarmPolicy { class: None, settings: String::new(), entry };
    Case::new(about, jobs, runners).policy(|policy| policy.warm = vec![warm])
}

/// The worlds of warm runners.
fn warm_cases() -> Vec<Case> {
    let schedule = || Some(Hours::parse("08:30-08:00").unwrap());
    let mut failed = warm(1, RunnerState::Dead);
    failed.finish = Some(Finish::Failure { exit_code: Some(1) });
    let mut at_once = failed.clone();
    at_once.started_at = at_once.ended_at;
    let mut waiting = runner(2, 1, RunnerState::Pending);
    waiting.blocked = Some(Blocked { exhausted: true, reason: "memory exhausted on 2 nodes".to_owned() });
    let mut well = warm(1, RunnerState::Dead);
    well.ended_at = Some(ago(1));
    let queued = || vec![job(1, JobStatus::Queued)];
    vec![
        warm_case(About::Job(1), queued(), vec![warm(1, RunnerState::Running)]),
        warm_case(About::Warm, vec![], vec![]).view(|view| {
            view.listing = Listing::Earlier { ended: NOW - seconds(5), jobs: vec![], complete: true };
        }),
        warm_case(About::Warm, vec![], vec![]).view(|view| view.configured = false),
        warm_case(About::Warm, vec![], vec![]).policy(|policy| policy.warm[0].entry.schedule = schedule()),
        warm_case(About::Warm, vec![], vec![at_once.clone()]),
        warm_case(About::Warm, queued(), vec![waiting, well]),
        warm_case(About::Runner(1, 1), vec![], vec![at_once]),
    ]
}

/// A world for each reason.
#[allow(clippy::too_many_lines)] // A table: one row for each reason.
fn cases() -> Vec<Case> {
    let name =
        |job_id, attempt| runner_name("ghr", DEPLOYMENT, None, &repository().full_name(), job_id, attempt);
    let mut nowhere = Case::new(About::Everything, Vec::new(), Vec::new());
    nowhere.observation.nomad = None;
    let mut planted = Case::new(About::Foreign, Vec::new(), Vec::new());
    let foreign = Foreign { name: "ghr-planted".to_owned(), reason: ForeignReason::Unsealed };
    planted.observation.nomad.as_mut().unwrap().foreign.push(foreign);
    let unseen = || Listing::Unseen { reason: "GitHub answered 502".to_owned() };
    let mut comma = job(1, JobStatus::Queued);
    comma.labels = vec!["nomadtools a,b".to_owned()].into();
    let mut nomadtools = runner(1, 1, RunnerState::Running);
    nomadtools.name = "ghr-of-nomadtools".to_owned();
    nomadtools.ownership = Ownership::Nomadtools;
    nomadtools.meta = RunnerMeta { repo_id: None, deployment: None, purpose: None, ..nomadtools.meta };
    let mut busy_job = job(2, JobStatus::InProgress);
    let busy = runner(2, 1, RunnerState::Running);
    busy_job.runner_name = Some(busy.name.clone());
    let mut spent = runner(3, 1, RunnerState::Waiting);
    spent.spent = true;
    let idle = || Case::new(About::Runner(1, 1), Vec::new(), vec![runner(1, 1, RunnerState::Running)]);
    let dead = |change: fn(&mut Runner)| {
        let mut case = Case::with_runner(RunnerState::Dead, change);
        case.about = About::Runner(1, 1);
        case
    };
    let mut cases = warm_cases();
    cases.extend([
        nowhere,
        planted,
        Case::in_unseen_namespace(),
        Case::queued().view(|view| view.listing = unseen()),
        Case::queued().view(|view| view.listing = Listing::Gone { since: NOW - seconds(60) }),
        Case::queued().view(|view| view.repository.archived = true),
        Case::queued().view(|view| view.configured = false),
        Case::queued().view(|view| {
            let jobs = view.listing.jobs().to_vec();
            view.listing = Listing::Fresh { now: ago(0), jobs, complete: false };
            view.missing = Some("run 3 could not be read".to_owned());
        }),
        Case::new(About::Job(1), vec![job(1, JobStatus::Waiting)], Vec::new()),
        Case::queued().policy(|policy| policy.classes_only = true),
        Case::queued().policy(|policy| {
            let deny = Some("ask #platform".to_owned());
            policy.classes = vec![Class { name: "gpu".to_owned(), deny, ..Class::default() }];
        }),
        Case::new(About::Job(1), vec![comma], Vec::new()),
        Case::new(
            About::Job(1),
            vec![job(1, JobStatus::Queued)],
            vec![runner(1, 1, RunnerState::Running), runner(1, 2, RunnerState::Running)],
        )
        .memory(|memory| {
            memory.presence = [(name(JobId(1), 1), absent(60)), (name(JobId(1), 2), absent(60))].into();
        }),
        Case::with_runner(RunnerState::Dead, |_| {}),
        Case::queued().memory(|memory| {
            let labels = Labels::new(["nomadtools"]);
            memory.start_backoff = [(GroupKey { repository: REPOSITORY, labels }, backoff())].into();
        }),
        Case::queued().memory(|memory| {
            let labels = Labels::new(["nomadtools"]);
            let refusal =
                Refusal { until: NOW + seconds(30), why: "acme/widgets is public, and …".to_owned() };
            memory.refused = [(GroupKey { repository: REPOSITORY, labels }, refusal)].into();
        }),
        Case::new(About::Job(1), vec![job(1, JobStatus::Queued), busy_job], vec![busy])
            .policy(|policy| policy.max_runners = Some(1)),
        Case::queued().policy(|policy| policy.max_runners = Some(1)).beside_an_older_job(),
        Case::new(About::Job(1), vec![job(1, JobStatus::Queued)], vec![nomadtools]),
        Case::new(About::Job(1), vec![job(1, JobStatus::Queued)], vec![spent]),
        Case::with_runner(RunnerState::Pending, |runner| {
            let reason = "memory exhausted on 2 nodes".to_owned();
            runner.blocked = Some(Blocked { exhausted: true, reason });
        }),
        Case::with_runner(RunnerState::Disconnected, |_| {}),
        Case::with_runner(RunnerState::Running, |runner| runner.last_event = Some("too large".to_owned())),
        idle(),
        idle().memory(|memory| memory.surplus = [(REPOSITORY, [(name(JobId(1), 1), ago(60))].into())].into()),
        Case::with_runner(RunnerState::Waiting, |_| {})
            .memory(|memory| memory.issue_backoff = [(name(JobId(1), 1), backoff())].into()),
        Case::with_runner(RunnerState::Waiting, |runner| {
            runner.allocation.as_mut().unwrap().created_at = ago(400);
        })
        .memory(|memory| memory.issue_backoff = [(name(JobId(1), 1), backoff())].into()),
        Case::with_runner(RunnerState::Starting, |runner| {
            runner.allocation.as_mut().unwrap().created_at = ago(300);
            runner.variable = Some(ago(299));
            runner.last_event = Some("Downloading image".to_owned());
        }),
        Case::with_runner(RunnerState::Running, |_| {}),
        idle().policy(|policy| policy.max_run_duration = Some(seconds(1000))),
        lost(JobStatus::InProgress, 0),
        lost(JobStatus::Completed, 0),
        lost(JobStatus::Queued, 2),
        Case::with_runner(RunnerState::Running, |_| {})
            .memory(|memory| memory.presence = [(name(JobId(1), 1), absent(60))].into()),
        dead(|_| {}),
        dead(|_| {}).view(|view| view.listing = Listing::Unseen { reason: "GitHub answered 502".to_owned() }),
        dead(|runner| runner.variable = Some(ago(100))),
    ]);
    cases
}

/// The step of a reason, whether it holds, and a word of its advice. A new reason does not compile without an entry
/// here.
fn expected(reason: &HoldReason) -> (Step, Mark, &'static str) {
    use Mark::{Held, Note, Now};
    match reason {
        HoldReason::NomadUnseen => (Step::Nomad, Held, "NOMAD_ADDR"),
        HoldReason::NamespaceUnseen { .. } => (Step::Nomad, Held, "in the namespace gpu"),
        HoldReason::NotListed { .. } => (Step::Repository, Held, "githubrunner check"),
        HoldReason::RepositoryGone { .. } => (Step::Repository, Held, "access"),
        HoldReason::Archived => (Step::Repository, Held, "unarchive"),
        HoldReason::NotConfigured => (Step::Repository, Held, "`repos`"),
        HoldReason::Incomplete { .. } => (Step::Repository, Note, "nothing"),
        HoldReason::NotQueued { .. } => (Step::Status, Held, "approve"),
        HoldReason::Denied { .. } => (Step::Match, Held, "`deny`"),
        HoldReason::NoClass => (Step::Match, Held, "add a class"),
        HoldReason::BadLabels { .. } => (Step::Labels, Held, "runs-on"),
        HoldReason::ReachesHost { .. } => (Step::Registration, Held, "`public: allow`"),
        HoldReason::LiveAttempts { .. } => (Step::Attempts, Held, "githubrunner stop"),
        HoldReason::Attempts { .. } => (Step::Attempts, Held, "automatically"),
        HoldReason::StartFailed { .. } => (Step::Registration, Held, "githubrunner check"),
        HoldReason::Cap { .. } => (Step::Caps, Held, "raise scheduler.max_runners"),
        HoldReason::Turn { .. } => (Step::Caps, Now, "fewest runners"),
        HoldReason::LeftToNomadtools { .. } => (Step::Attempts, Held, "nomad job stop ghr-of-nomadtools"),
        HoldReason::LeftToWarm { .. } => (Step::Connection, Now, "after a minute"),
        HoldReason::Unpolled { .. } => (Step::Repository, Now, "being polled"),
        HoldReason::NoRepository => (Step::Repository, Held, "`repos`"),
        HoldReason::Closed { .. } => (Step::Status, Held, "`schedule`"),
        HoldReason::WarmFailed { .. } => (Step::Attempts, Held, "automatically"),
        HoldReason::WarmYields { .. } => (Step::Evaluation, Held, "add nodes"),
        HoldReason::CountsFailures => (Step::End, Note, "failures"),
        HoldReason::GroupStops => (Step::Attempts, Now, "next pass"),
        HoldReason::Unplaced { .. } => (Step::Evaluation, Held, "add nodes"),
        HoldReason::Disconnected => (Step::Task, Held, "nomad node status"),
        HoldReason::TasksUnread => (Step::Task, Note, "nomad alloc status"),
        HoldReason::Foreign { .. } => (Step::Registration, Held, "who registered it"),
        HoldReason::SurplusOnce => (Step::End, Note, "nothing"),
        HoldReason::Idle { .. } => (Step::End, Note, "runner_inactivity_timeout"),
        HoldReason::ActionFailed { .. } => (Step::Credentials, Held, "automatically"),
        HoldReason::NoCredentials { .. } => (Step::Credentials, Held, "register a runner"),
        HoldReason::NotStarting { .. } => (Step::Task, Held, "last event"),
        HoldReason::MaxRunDuration { .. } => (Step::End, Note, "raise max_run_duration"),
        HoldReason::LostJobRuns { .. } => (Step::End, Note, "ten minutes"),
        HoldReason::RunGoesOn { .. } => (Step::End, Note, "other jobs"),
        HoldReason::RerunLimit { .. } => (Step::End, Note, "rerun_lost.per_job"),
        HoldReason::Unassigned { .. } => (Step::Connection, Held, "runner group"),
        HoldReason::Unregistered { .. } => (Step::Connection, Held, "githubrunner logs"),
        HoldReason::CountsAttempts => (Step::End, Note, "attempts"),
        HoldReason::JobUnknown => (Step::End, Note, "attempts"),
        HoldReason::VariableFirst => (Step::End, Note, "variable"),
    }
}

/// The variants of `HoldReason`, read from its source.
fn variants() -> BTreeSet<&'static str> {
    let source = include_str!("../../model/hold.rs");
    let (_, rest) = source.split_once("pub enum HoldReason {").unwrap();
    let (body, _) = rest.split_once("\n}").unwrap();
    let names = body
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()));
    names.map(|line| line.split([' ', ',', '(']).next().unwrap()).collect()
}

fn variant(reason: &HoldReason) -> String {
    let debug = format!("{reason:?}");
    debug.split([' ', '(']).next().unwrap().to_owned()
}

fn unreachable() -> Unobserved {
    let text = "Nomad: connection refused".to_owned();
    Unobserved { subject: "Nomad".to_owned(), kind: "connect", text }
}

#[test]
fn every_hold_reason_of_the_planner_is_explained() {
    let mut seen = BTreeSet::new();
    for case in cases() {
        let holds = case.plan().holds;
        let explanation = case.explain();
        let mut explained = 0;
        for hold in &holds {
            let (step, mark, advice) = expected(&hold.reason);
            let text = hold.reason.to_string();
            let Some(entry) = explanation.steps.iter().find(|entry| entry.text.contains(&text)) else {
                continue;
            };
            assert_eq!((entry.step, entry.mark), (step, mark), "{hold}");
            assert!(entry.advice.as_ref().unwrap().contains(advice), "{hold}: {entry:?}");
            seen.insert(variant(&hold.reason));
            explained += 1;
            if mark == Mark::Held {
                assert_eq!(explanation.verdict, Verdict::Held, "{hold}");
            }
        }
        assert!(explained > 0, "{holds:#?} in {explanation:#?}");
    }
    let seen: BTreeSet<&str> = seen.iter().map(String::as_str).collect();
    assert!(variants().len() >= 27 && seen == variants(), "never seen: {:?}", variants().difference(&seen));
}

#[test]
fn a_job_that_github_holds_says_what_it_is_waiting_for() {
    for (status, word) in [("waiting", "approve"), ("pending", "concurrency"), ("requested", "wait")] {
        let advice = meaning(&HoldReason::NotQueued { status }, None).advice;
        assert!(advice.contains(word), "{status}: {advice}");
    }
    // Other failed actions on a runner are about its end.
    let failed = HoldReason::ActionFailed { error: String::new(), wait: seconds(1) };
    assert_eq!(meaning(&failed, Some(RunnerState::Waiting)).step, Step::Credentials);
    assert_eq!(meaning(&failed, Some(RunnerState::Running)).step, Step::End);
}

fn at(explanation: &Explanation, step: Step) -> Vec<(Mark, &str)> {
    let entries = explanation.steps.iter().filter(|entry| entry.step == step);
    entries.map(|entry| (entry.mark, entry.text.as_str())).collect()
}

#[test]
fn a_job_on_its_way_is_explained_step_by_step() {
    let fresh = Case::queued().explain();
    assert_eq!(fresh.verdict, Verdict::OnItsWay);
    assert_eq!(at(&fresh, Step::Status), [(Mark::Done, "queued for 16m40s")]);
    assert!(at(&fresh, Step::Registration)[0].1.contains("the next pass starts ghr-acme-app-"), "{fresh:?}");

    let pending = Case::with_runner(RunnerState::Pending, |_| {}).explain();
    assert_eq!(at(&pending, Step::Evaluation), [(Mark::Now, "Nomad has not placed it yet")]);
    let waiting = Case::with_runner(RunnerState::Waiting, |_| {}).explain();
    assert_eq!(at(&waiting, Step::Credentials), [(Mark::Now, "the next pass issues them")]);
    let starting = Case::with_runner(RunnerState::Starting, |_| {}).explain();
    assert_eq!(at(&starting, Step::Credentials), [(Mark::Done, "issued")]);
    assert_eq!(at(&starting, Step::Task), [(Mark::Now, "has not started yet")]);
    for explanation in [pending, waiting, starting] {
        assert_eq!(explanation.verdict, Verdict::OnItsWay, "{explanation:?}");
    }

    let mut idle = Case::with_runner(RunnerState::Running, |_| {});
    idle.policy.unassigned_timeout = seconds(100_000);
    let name = runner_name("ghr", DEPLOYMENT, None, &repository().full_name(), JobId(1), 1);
    let connected = idle.explain_seen([(name, Seen::Connected)].into());
    assert_eq!(at(&connected, Step::Connection)[0].0, Mark::Now);
    assert_eq!(connected.verdict, Verdict::OnItsWay);
}

#[test]
fn a_job_that_has_a_runner_is_served_even_by_a_foreign_runner() {
    for (runner_is, words) in [(1, "taken by ghr-acme-app-"), (2, "which was started for job 2")] {
        let runner = runner(runner_is, 1, RunnerState::Running);
        let mut taken = job(1, JobStatus::InProgress);
        taken.runner_name = Some(runner.name.clone());
        let explanation = Case::new(About::Job(1), vec![taken], vec![runner]).explain();
        assert_eq!(explanation.verdict, Verdict::Served);
        assert!(at(&explanation, Step::Connection)[0].1.contains(words), "{explanation:?}");
    }
    let mut elsewhere = job(1, JobStatus::InProgress);
    elsewhere.runner_name = Some("somebody-elses".to_owned());
    let explanation = Case::new(About::Job(1), vec![elsewhere], Vec::new()).explain();
    assert!(at(&explanation, Step::Connection)[0].1.contains("a runner in Nomad"), "{explanation:?}");
}

#[test]
fn a_runner_taken_by_another_job_is_shown_with_that_job() {
    let runner = runner(1, 1, RunnerState::Running);
    let mut taker = job(2, JobStatus::InProgress);
    taker.runner_name = Some(runner.name.clone());
    let explanation =
        Case::new(About::Job(1), vec![job(1, JobStatus::Queued), taker], vec![runner]).explain();
    let attempts = at(&explanation, Step::Attempts);
    assert!(attempts[0].1.ends_with("was taken by another job: 2"), "{explanation:?}");
}

#[test]
fn a_job_for_other_runners_is_held_only_by_its_labels() {
    let mut other = job(1, JobStatus::Queued);
    other.labels = vec!["ubuntu-latest".to_owned()].into();
    let explanation = Case::new(About::Job(1), vec![other], Vec::new()).explain();
    assert_eq!(explanation.verdict, Verdict::Held);
    assert_eq!(at(&explanation, Step::Match)[0].0, Mark::Held);
    assert!(at(&explanation, Step::Registration).is_empty(), "{explanation:?}");
}

#[test]
fn an_answer_is_escaped_and_its_worst_part_determines_the_exit_code() {
    let mut hostile = job(1, JobStatus::Queued);
    hostile.name = "\u{1b}[2J\nHELD forged".to_owned();
    hostile.labels = vec!["nomadtools \u{202e}a,b".to_owned()].into();
    let case = Case::new(About::Job(1), vec![hostile, job(2, JobStatus::Queued)], Vec::new());
    let plan = case.plan();
    let world = World {
        observation: &case.observation,
        plan: &plan,
        performed: &[],
        policy: &case.policy,
        seen: BTreeMap::new(),
    };
    let answer = whole(&world, &case.observation.repositories[&REPOSITORY]);
    assert_eq!(answer.explanations.len(), 3, "the repository and its jobs");
    assert_eq!(answer.exit(), Exit::FAILED);
    let mut text = Vec::new();
    print::text(&answer, Style::default(), &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(!text.chars().any(|c| c != '\n' && crate::text::is_harmful(c)), "{text:?}");
    assert!(text.contains("\\u{1b}[2J\\nHELD forged"), "{text}");
    let mut json = Vec::new();
    print::json(&answer, &mut json).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["exit_code"], 1);
    assert_eq!(json["explanations"][1]["verdict"], "held");
    assert_eq!(Answer::not_found("no").exit(), Exit(2));
}
