//! How long the planner takes for 1,000 repositories, 10,000 jobs and 5,000 runners: half of the jobs have a runner,
//! the others are started, or held at a cap. Prints the median of 41 plans; `scripts/bench` runs it.
#![allow(clippy::unwrap_used)]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use githubrunner::{
    config::Config,
    model::{
        Allocation, JobId, JobStatus, Listing, Moment, NomadView, Observation, Ownership, Registration,
        Repository, RepositoryId, RepositoryView, RunId, Runner, RunnerMeta, RunnerState, RunnerVariable,
        WorkflowJob, runner_name,
    },
    plan::{Policy, plan},
};
use jiff::{SignedDuration, Timestamp};

const REPOSITORIES: u64 = 1_000;
const JOBS_OF_EACH: u64 = 10;
const DEPLOYMENT: &str = "benchmark";
const LABELS: [&str; 2] = ["nomadtools", "mem=1000"];
const PLANS: usize = 41;
const NOW: Moment = Moment::after_start(Duration::from_secs(60));

fn main() {
    let source = "github: {token: ghp_of_the_benchmark}\nrepos: [acme]\ntemplate: builtin:raw_exec\n";
    let policy = Policy::from(&Config::load(source, &|_| None).unwrap());
    let observation = observation(&policy.prefix);
    let jobs: usize = observation.repositories.values().map(|view| view.listing.jobs().len()).sum();
    let runners = observation.nomad.as_ref().map_or(0, |nomad| nomad.runners.len());
    let capped = Policy { max_runners: Some(runners), ..policy.clone() };
    for (name, policy) in [("planner, no cap", policy), ("planner, at its cap", capped)] {
        let found = plan(&observation, &policy, NOW);
        let mut times: Vec<Duration> = (0..PLANS)
            .map(|_| {
                let began = Instant::now();
                black_box(plan(black_box(&observation), &policy, NOW));
                began.elapsed()
            })
            .collect();
        times.sort();
        println!(
            "{name:26} {} repositories, {jobs} jobs, {runners} runners: {} actions, {} holds in {:.1} ms",
            observation.repositories.len(),
            found.actions.len(),
            found.holds.len(),
            times[PLANS / 2].as_secs_f64() * 1000.0
        );
    }
}

fn observation(prefix: &str) -> Observation {
    let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
    let ago = |seconds: u64| now - SignedDuration::from_secs(i64::try_from(seconds).unwrap());
    let mut runners = Vec::new();
    let views = (0..REPOSITORIES).map(|number| {
        let repository = Repository {
            id: RepositoryId(number),
            owner: "acme".to_owned(),
            name: format!("app-{number}"),
            html_url: format!("https://github.com/acme/app-{number}"),
            archived: false,
            disabled: false,
            visibility: githubrunner::model::Visibility::default(),
        };
        let jobs = (0..JOBS_OF_EACH).map(|index| {
            let id = JobId(number * JOBS_OF_EACH + index);
            let is_busy = index % 2 == 0;
            let name = is_busy.then(|| {
                let runner = runner(prefix, &repository, id, ago(60));
                let name = runner.name.clone();
                runners.push(runner);
                name
            });
            WorkflowJob {
                id,
                run_id: RunId(id.0),
                repository: repository.id,
                name: "build".to_owned(),
                status: if is_busy { JobStatus::InProgress } else { JobStatus::Queued },
                labels: LABELS.map(str::to_owned).to_vec().into(),
                runner_name: name,
                created_at: Some(ago(300 - index)),
                started_at: is_busy.then(|| ago(30)),
                html_url: None,
                run: Default::default(),
            }
        });
        let listing = Listing::Fresh { now, jobs: jobs.collect(), complete: true };
        (repository.id, RepositoryView { repository, configured: true, listing, missing: None })
    });
    let repositories = views.collect();
    let variable = |runner: &Runner| RunnerVariable { namespace: None, name: runner.name.clone() };
    let (variables, unseen) = (runners.iter().map(variable).collect(), Default::default());
    let deployment = DEPLOYMENT.to_owned();
    let nomad = NomadView { now, deployment, runners, foreign: Vec::new(), variables, unseen };
    Observation { nomad: Some(nomad), repositories, ..Observation::default() }
}

/// A busy runner.
fn runner(prefix: &str, repository: &Repository, job_id: JobId, since: Timestamp) -> Runner {
    Runner {
        name: runner_name(prefix, DEPLOYMENT, None, &repository.full_name(), job_id, 1),
        namespace: None,
        ownership: Ownership::Ours,
        meta: RunnerMeta {
            labelsstr: LABELS.join(","),
            repo_url: repository.html_url.clone(),
            version: "0".to_owned(),
            deployment: Some(DEPLOYMENT.to_owned()),
            repo_id: Some(repository.id),
            purpose: Some(job_id.into()),
            attempt: Some(1),
            registration: Some(Registration::Jit),
            task: None,
            asks: None,
            class: None,
            mac: None,
        },
        state: RunnerState::Running,
        finish: None,
        started: true,
        spent: false,
        ending: false,
        lost: None,
        variable: Some(since),
        submitted_at: since,
        allocation: Some(Allocation {
            id: "a".to_owned(),
            node: "n".to_owned(),
            node_id: "n".to_owned(),
            draining: false,
            created_at: since,
        }),
        started_at: Some(since),
        ended_at: None,
        blocked: None,
        last_event: None,
    }
}
