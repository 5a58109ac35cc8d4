//! The input of a status: a world with hostile external text, and one on a normal working day.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use githubrunner::{
    model::{
        Action, Allocation, Cap, Done, Finish, GroupKey, Hold, HoldReason, JobId, JobStatus, Labels, Listing,
        NomadView, NotDone, Observation, Outcome, Ownership, Plan, Report, Repository, RepositoryId,
        RepositoryView, RunId, Runner, RunnerMeta, RunnerState, Start, StartReason, Subject, Timestamp,
        Unobserved, WorkflowJob,
    },
    status::{Deed, Rate, Seen, Status},
};

/// Hostile text: HTML with all kinds of quotes, reversed text, terminal commands, template expressions, and a lot of
/// it.
pub const HOSTILE: [&str; 8] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "'--><svg/onload=alert(1)>",
    "</title></main></body><script src=//evil.example/x.js></script>",
    "\u{202e}gnp.exe\u{2066}\u{200b}\u{feff}",
    "\u{1b}[2J\u{7}\r\n\0",
    "{{ state }}{% raw %}${alert(1)}",
    "&lt;b&gt; &amp; \u{65e5}\u{672c}",
];

const REPOSITORY: RepositoryId = RepositoryId(7);

pub struct World {
    pub observation: Observation,
    pub plan: Plan,
    pub deeds: Vec<Deed>,
    pub errors: Vec<Unobserved>,
    pub rates: Vec<Rate>,
}

impl World {
    pub fn tell(&self, status: &Status) {
        let now = self.observation.nomad.as_ref().map_or_else(Timestamp::now, |nomad| nomad.now);
        status.pass(&Seen {
            at: now,
            observation: &self.observation,
            plan: &self.plan,
            deeds: &self.deeds,
            errors: &self.errors,
            rates: &self.rates,
            took: Duration::from_millis(120),
            leads: true,
        });
    }
}

fn repository(owner: &str, name: &str) -> Repository {
    Repository {
        id: REPOSITORY,
        owner: owner.to_owned(),
        name: name.to_owned(),
        html_url: format!("https://github.com/{owner}/{name}"),
        archived: false,
        disabled: false,
        visibility: githubrunner::model::Visibility::default(),
    }
}

fn ago(now: Timestamp, seconds: i64) -> Timestamp {
    Timestamp::from_second(now.as_second() - seconds).unwrap()
}

fn job(id: u64, name: &str, label: &str, now: Timestamp, seconds: i64) -> WorkflowJob {
    WorkflowJob {
        id: JobId(id),
        run_id: RunId(1),
        repository: REPOSITORY,
        name: name.to_owned(),
        status: JobStatus::Queued,
        labels: vec![label.to_owned()].into(),
        runner_name: None,
        created_at: Some(ago(now, seconds)),
        started_at: None,
        html_url: Some(format!("https://github.com/acme/widgets/actions/runs/1/job/{id}")),
        run: Default::default(),
    }
}

fn on(job: WorkflowJob, runner: &str, now: Timestamp, seconds: i64) -> WorkflowJob {
    WorkflowJob {
        status: JobStatus::InProgress,
        runner_name: Some(runner.to_owned()),
        started_at: Some(ago(now, seconds)),
        ..job
    }
}

fn runner(name: &str, job_id: u64, labels: &str, state: RunnerState, now: Timestamp, seconds: i64) -> Runner {
    Runner {
        name: name.to_owned(),
        namespace: None,
        ownership: Ownership::Ours,
        meta: RunnerMeta {
            labelsstr: labels.to_owned(),
            repo_url: "https://github.com/acme/widgets".to_owned(),
            repo_id: Some(REPOSITORY),
            purpose: Some(JobId(job_id).into()),
            attempt: Some(1),
            ..RunnerMeta::default()
        },
        state,
        finish: None,
        started: state == RunnerState::Running,
        spent: false,
        ending: false,
        lost: None,
        variable: None,
        submitted_at: ago(now, seconds),
        allocation: Some(Allocation {
            id: "a".to_owned(),
            node: "client-2".to_owned(),
            node_id: "n".to_owned(),
            draining: false,
            created_at: ago(now, seconds),
        }),
        started_at: None,
        ended_at: None,
        blocked: None,
        last_event: None,
    }
}

fn world(repository: Repository, now: Timestamp, jobs: Vec<WorkflowJob>, runners: Vec<Runner>) -> World {
    let demand = jobs.iter().filter(|job| job.status == JobStatus::Queued).map(|job| job.id).collect();
    let group = GroupKey { repository: REPOSITORY, labels: Labels::new(["nomadtools"]) };
    let listing = Listing::Fresh { now, jobs, complete: true };
    let view = RepositoryView { repository, configured: true, listing, missing: None };
    let nomad = NomadView {
        now,
        deployment: "i".to_owned(),
        runners,
        foreign: Vec::new(),
        variables: BTreeSet::new(),
        unseen: std::collections::BTreeMap::new(),
    };
    World {
        observation: Observation {
            nomad: Some(nomad),
            repositories: BTreeMap::from([(REPOSITORY, view)]),
            ..Observation::default()
        },
        plan: Plan { demand: BTreeMap::from([(group, demand)]), ..Plan::default() },
        deeds: Vec::new(),
        errors: Vec::new(),
        rates: Vec::new(),
    }
}

fn hold(subject: Subject, reason: HoldReason) -> Hold {
    Hold { subject, reason }
}

fn start(name: &str, label: &str, job_id: u64) -> Action {
    Action::Start(Start {
        namespace: None,
        class: None,
        repository: repository("acme", "widgets"),
        labels: Labels::new([label]),
        purpose: JobId(job_id).into(),
        facts: Default::default(),
        attempt: 1,
        name: name.to_owned(),
        info: String::new(),
        reason: StartReason::Missing { demand: 1, supply: 0 },
    })
}

/// Everything external is hostile, and there is more of it than is shown.
pub fn hostile() -> World {
    let now = Timestamp::now();
    let (mut jobs, mut runners, mut holds, mut actions, mut deeds) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (number, text) in HOSTILE.iter().cycle().take(1000).enumerate() {
        let id = number as u64;
        let mut queued = job(id, text, text, now, 1000 + number as i64);
        queued.html_url = Some(format!("javascript:alert(1)//{text}"));
        jobs.push(queued);
        let mut one = runner(text, id, text, RunnerState::Starting, now, number as i64);
        one.name = format!("{text}{number}");
        one.meta.repo_url = format!("https://github.com/{text}");
        one.meta.class = Some(if number % 2 == 0 { "gpu" } else { *text }.to_owned());
        one.last_event = Some(text.repeat(1000));
        one.finish = Some(Finish::NeverRan { reason: (*text).to_owned() });
        one.allocation.as_mut().unwrap().node = (*text).to_owned();
        runners.push(one);
        let subject = Subject::Job {
            repository: format!("acme/{text}"),
            id: JobId(5000 + id),
            labels: (*text).to_owned(),
        };
        holds.push(hold(subject, HoldReason::BadLabels { why: (*text).to_owned() }));
        let subject = Subject::Runner { name: format!("{text}{number}") };
        holds.push(hold(subject, HoldReason::Unplaced { why: (*text).to_owned() }));
        actions.push(start(text, text, id));
        deeds.push(Deed::new(&Report {
            action: start(text, text, id),
            outcome: Outcome::NotDone(NotDone::Failed((*text).to_owned())),
        }));
    }
    let hostile = HOSTILE.join(" ");
    let mut world = world(repository(&hostile, &hostile), now, jobs, runners);
    let rate = |text: &&str| Rate {
        credential: (*text).to_owned(),
        bucket: (*text).to_owned(),
        limit: 5000,
        remaining: 10,
        reset: i64::MAX,
    };
    world.rates = HOSTILE.iter().map(rate).collect();
    let error = |text: &&str| Unobserved {
        subject: (*text).to_owned(),
        kind: "unexpected",
        text: format!("GitHub: {text} ghp_{}", "a".repeat(36)),
    };
    world.errors = HOSTILE.iter().map(error).collect();
    world.plan.classes = (0..200).map(|id| (JobId(id), "gpu".into())).collect();
    (world.plan.holds, world.plan.actions, world.deeds) = (holds, actions, deeds);
    world
}

fn done(action: Action) -> Deed {
    Deed::new(&Report { action, outcome: Outcome::Done(Done::Performed) })
}

/// A working day, with the hour before it.
pub fn working_day(status: &Status) {
    let now = Timestamp::now();
    let acme = || repository("acme", "widgets");
    let name = |number: u64| format!("NTGithubRunner-acme-widgets-k3v9xq2m{number:02}");
    // What was listed before this daemon started is not measured.
    world(acme(), ago(now, 3540), Vec::new(), Vec::new()).tell(status);
    for minute in (1..59).rev() {
        let at = ago(now, minute * 60);
        let wave = |width: f64| (1.0 + (minute as f64 / width).sin()) / 2.0;
        let (running, queued) = ((1.0 + 5.0 * wave(7.0)) as u64, (4.0 * wave(5.0)) as u64);
        let first = 1000 * minute as u64;
        let mut jobs: Vec<WorkflowJob> =
            (0..queued).map(|number| job(first + 500 + number, "test", "nomadtools", at, 10)).collect();
        let mut runners = Vec::new();
        for number in 0..running {
            let waited = 4 + (25.0 * wave(11.0)) as i64 * number as i64 / 5;
            let queued = job(first + number, "test", "nomadtools", at, 30 + waited);
            jobs.push(on(queued, &name(number), at, 30));
            runners.push(runner(&name(number), first + number, "nomadtools", RunnerState::Running, at, 40));
        }
        world(acme(), at, jobs, runners).tell(status);
    }
    let (mut jobs, mut runners) = (Vec::new(), Vec::new());
    for (number, (job_name, waited)) in
        [("test", 4), ("lint", 5), ("build", 7), ("e2e", 9), ("docs", 12), ("bench", 31)]
            .into_iter()
            .enumerate()
    {
        let (id, began) = (number as u64, 40 + 35 * number as i64);
        jobs.push(on(job(id, job_name, "nomadtools", now, began + waited), &name(id), now, began));
        runners.push(runner(&name(id), id, "nomadtools", RunnerState::Running, now, began + 3));
    }
    jobs.push(job(20, "image", "nomadtools mem=16000", now, 95));
    jobs.push(job(21, "nightly (1)", "nomadtools", now, 40));
    jobs.push(job(22, "nightly (2)", "nomadtools", now, 40));
    jobs.push(job(23, "deploy", "nomadtools", now, 12));
    runners.push(runner(&name(20), 20, "nomadtools mem=16000", RunnerState::Pending, now, 92));
    runners.push(runner(&name(23), 23, "nomadtools", RunnerState::Starting, now, 9));
    let mut dead = runner(&name(30), 30, "nomadtools", RunnerState::Dead, now, 900);
    dead.finish = Some(Finish::OutOfMemory);
    runners.push(dead);
    let mut world = world(acme(), now, jobs, runners);
    let job_of =
        |id| Subject::Job { repository: "acme/widgets".to_owned(), id, labels: "nomadtools".to_owned() };
    let unplaced = HoldReason::Unplaced { why: "memory exhausted on 3 nodes".to_owned() };
    world.plan.holds = vec![
        hold(job_of(JobId(21)), HoldReason::Cap { cap: Cap::Repository, limit: 8 }),
        hold(job_of(JobId(22)), HoldReason::Cap { cap: Cap::Repository, limit: 8 }),
        hold(Subject::Runner { name: name(20) }, unplaced),
    ];
    world.deeds =
        vec![done(start(&name(20), "nomadtools mem=16000", 20)), done(start(&name(23), "nomadtools", 23))];
    let rate = |bucket: &str, limit, remaining| Rate {
        credential: "installation-4711".to_owned(),
        bucket: bucket.to_owned(),
        limit,
        remaining,
        reset: now.as_second() + 1800,
    };
    world.rates = vec![rate("core", 5000, 4211), rate("actions_runner_registration", 10_000, 9968)];
    world.tell(status);
}
