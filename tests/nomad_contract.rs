//! One suite for the Nomad adapter: on the simulated Nomad, and on a real agent if `nomad` is on PATH.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "nomad_contract/jobs.rs"]
mod jobs;
#[path = "nomad_contract/large.rs"]
mod large;
#[path = "nomad_contract/place.rs"]
mod place;
#[path = "nomad_contract/variables.rs"]
mod variables;

use std::{future::Future, pin::Pin};

use common::{
    nomad_agent::{Agent, AgentOptions},
    sim_nomad::SimNomad,
};
use githubrunner::{http::Endpoint, secret::Secret};
use githubrunner_sim::{clock::Clock, nomad as sim};
use place::{NAMESPACE, Place, WITHIN};
use tokio::time::Instant;

type Run = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A case: its name, which is in its prefix, and its code.
type Case = (&'static str, fn(Place) -> Run);

const CASES: &[Case] = &[
    ("parse", |place| Box::pin(jobs::parses(place))),
    ("parse-errors", |place| Box::pin(jobs::says_where_hcl_is_wrong(place))),
    ("hostile", |place| Box::pin(jobs::refuses_what_a_parse_lets_through(place))),
    ("register", |place| Box::pin(jobs::registers_once(place))),
    ("conflict", |place| Box::pin(jobs::tells_another_job_of_that_name(place))),
    ("invalid", |place| Box::pin(jobs::says_what_is_wrong_with_a_job(place))),
    ("life", |place| Box::pin(jobs::sees_a_whole_life(place))),
    ("ends", |place| Box::pin(jobs::sees_how_runners_end(place))),
    ("never-ran", |place| Box::pin(jobs::sees_what_never_ran(place))),
    ("stop", |place| Box::pin(jobs::stops_what_runs_waits_and_is_not_there(place))),
    ("unplaced", |place| Box::pin(jobs::says_why_a_job_is_not_placed(place))),
    ("variables", |place| Box::pin(variables::writes_a_variable_once(place))),
    ("foreign", |place| Box::pin(jobs::leaves_out_what_is_not_ours(place))),
    ("taken-over", |place| Box::pin(jobs::takes_over_once(place))),
    ("large", |place| Box::pin(large::reads_the_rest_of_lists_that_are_too_large(place))),
    ("namespace", |place| Box::pin(variables::tells_a_missing_namespace(place))),
    ("instance", |place| Box::pin(variables::agrees_on_one_deployment(place))),
    ("lock", |place| Box::pin(variables::one_holds_the_lock(place))),
    ("events", |place| Box::pin(variables::hears_of_what_changes(place))),
    ("instance-back", |place| Box::pin(variables::writes_its_deployment_again(place))),
];

/// The rights that are sufficient for all of it (contract nomad.md §7).
const POLICY: &str = r#"
namespace "github" {
  capabilities = ["list-jobs", "read-job", "parse-job", "submit-job", "read-logs"]
  variables {
    path "githubrunner/*" { capabilities = ["list", "read", "write", "destroy"] }
    path "nomad/jobs/ghr-*" { capabilities = ["list", "read", "write", "destroy"] }
  }
}
"#;

#[tokio::test(start_paused = true)]
async fn on_the_simulated_nomad() {
    let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
    let options = sim::Options { namespaces: vec![NAMESPACE.to_owned()], ..sim::Options::default() };
    let mut nomad = sim::Nomad::new(options, clock.now());
    let failure = sim::StartFailure { kind: "Driver Failure".into(), message: "no such command".into() };
    nomad.set_start_failure("ghr-never-ran-", Some(failure));
    let place = Place {
        endpoint: Endpoint::parse("http://nomad.sim").unwrap(),
        prefix: "ghr-large".into(),
        token: None,
    };
    for (job, message) in large::start_errors(&place) {
        nomad.set_start_failure(&job, Some(sim::StartFailure { kind: "Driver Failure".into(), message }));
    }
    let nomad = SimNomad::serve(nomad, clock);
    // The simulated Nomad leaves the event stream to its server.
    let cases: Vec<Case> = CASES.iter().filter(|(name, _)| *name != "events").copied().collect();
    run_all(&cases, &nomad.endpoint, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_real_agent() {
    let Some(agent) = Agent::start(AgentOptions::default()).await else { return };
    agent.create_namespace(NAMESPACE).await;
    run_all(CASES, &Endpoint::parse(&agent.address).unwrap(), None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_real_agent_with_the_smallest_policy() {
    let Some(agent) = Agent::start(AgentOptions { acl: true, ..AgentOptions::default() }).await else {
        return;
    };
    agent.create_namespace(NAMESPACE).await;
    let token = agent.create_token("githubrunner", POLICY).await;
    // With this policy, missing things look like forbidden ones.
    let cases: Vec<Case> = CASES.iter().filter(|(name, _)| *name != "namespace").copied().collect();
    let endpoint = Endpoint::parse(&agent.address).unwrap();
    run_all(&cases, &endpoint, Some(Secret::new(token))).await;
    refusals_name_what_is_missing(&agent, &endpoint).await;
}

/// If one right is missing, the error names it.
async fn refusals_name_what_is_missing(agent: &Agent, endpoint: &Endpoint) {
    for (number, (policy, says)) in [
        (POLICY.replace("\"list-jobs\", ", ""), "needs the capability list-jobs"),
        (POLICY.replace("\"read-job\", ", ""), "needs the capability read-job"),
        (POLICY.replace("\"parse-job\", \"submit-job\", ", ""), "needs the capability submit-job"),
        (POLICY.replace("\"submit-job\", ", ""), "needs the capability submit-job"),
        (POLICY.replace("path \"githubrunner/*\"", "path \"other/*\""), "for variables githubrunner/*"),
        (POLICY.replace("nomad/jobs/ghr-*", "nomad/jobs/other-*"), "for variables nomad/jobs/PREFIX-*"),
    ]
    .into_iter()
    .enumerate()
    {
        let token = agent.create_token(&format!("less-{number}"), &policy).await;
        let prefix = format!("ghr-less-{number}");
        let place = Place { endpoint: endpoint.clone(), prefix, token: Some(Secret::new(token)) };
        let error = jobs::does_everything_once(place).await.expect_err(says);
        assert!(error.to_string().contains(says) && !error.is_transient(), "{says}: {error}");
    }
}

/// Runs cases concurrently, and fails with the names of those that failed.
async fn run_all(cases: &[Case], endpoint: &Endpoint, token: Option<Secret>) {
    let mut running = Vec::new();
    for (name, case) in cases.iter().copied() {
        let place = Place { endpoint: endpoint.clone(), prefix: format!("ghr-{name}"), token: token.clone() };
        let run = case(place);
        let timed = async move {
            let started = Instant::now();
            let result = tokio::time::timeout(WITHIN * 2, run).await;
            println!("{name}: {:.1} s", started.elapsed().as_secs_f64());
            result
        };
        running.push((name, tokio::spawn(timed)));
    }
    let mut failed = Vec::new();
    for (name, case) in running {
        match case.await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => failed.push(format!("{name}: not over within {:?}", WITHIN * 2)),
            Err(error) => failed.push(format!("{name}: {error}")),
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}
