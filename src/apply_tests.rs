//! What an action does when things are not any more as the plan saw them.

use serde_json::{Value, json};

use super::*;
use crate::{
    github::Auth,
    http::tests::{Answer, Seen, answer, server},
    http::{self, Client},
    model::{Consent, PurgeReason, RepositoryId, StopReason},
};

const DATE: (&str, &str) = ("date", "Tue, 24 Nov 2026 07:08:09 GMT");

fn ok(body: &Value) -> Answer {
    answer(200, &[DATE], body.to_string())
}

/// A Nomad with one runner of ours, which has this one allocation.
fn nomad_with(job_status: &str, client_status: &str) -> impl Fn(&Seen) -> Answer + Send + Sync + use<> {
    let meta = RunnerMeta { instance: Some("i".to_owned()), job_id: Some(7), ..RunnerMeta::default() };
    let meta = serde_json::to_string(&meta).unwrap();
    let job = json!({ "ID": "ghr-1", "Status": job_status, "SubmitTime": 1, "Meta": { "runner": meta } });
    let allocation =
        json!({ "ID": "a", "JobID": "ghr-1", "ClientStatus": client_status, "DesiredStatus": "run" });
    move |seen| match (seen.method.as_str(), seen.path.split('?').next().unwrap()) {
        ("GET", "/v1/jobs") => ok(&json!([job])),
        ("GET", "/v1/allocations") => ok(&json!([allocation])),
        ("GET", "/v1/vars") => ok(&json!([])),
        ("GET", "/v1/var/githubrunner/ghr/instance") => ok(&json!({ "Items": { "id": "i" } })),
        ("DELETE", "/v1/job/ghr-1") => ok(&json!({})),
        (method, path) => answer(404, &[DATE], format!("{method} {path}")),
    }
}

/// A GitHub that lists the runner so, or not at all.
fn github_with(runner: Option<Value>) -> impl Fn(&Seen) -> Answer + Send + Sync + use<> {
    move |seen| match seen.method.as_str() {
        "GET" => ok(&json!({ "total_count": runner.iter().count(), "runners": runner.as_slice() })),
        "DELETE" => answer(204, &[DATE], ""),
        method => answer(404, &[DATE], method.to_owned()),
    }
}

/// What became of one action, and what Nomad was told to change.
async fn perform(
    action: Action,
    nomad: impl Fn(&Seen) -> Answer + Send + Sync + 'static,
    github: impl Fn(&Seen) -> Answer + Send + Sync + 'static,
) -> (Outcome, Vec<String>) {
    let config =
        "repos: [o/r]\ngithub: {token: t}\nnomad: {namespace: runners, jobprefix: ghr, meta: runner}\n";
    let config = Config::load(config, &|_| None).unwrap();
    let (endpoint, seen) = server(nomad);
    let nomad = Nomad::new(nomad::Options::new(endpoint, "runners", "ghr", "runner"), "i").unwrap();
    let client = Client::new(server(github).0, http::Options::default()).unwrap();
    let options = github::Options::new(url::Url::parse("http://api.github.test").unwrap());
    let github = GitHub::new(client, Auth::Token(Secret::new("a-token")), options);
    let renderer = Renderer::new(&config).unwrap();
    let apply = Apply::new(&config, &github, &nomad, &renderer, "i", Leadership::always(), false);
    let mut reports = apply.apply(&Plan { actions: vec![action], ..Plan::default() }).await;
    let writes = seen
        .lock()
        .unwrap()
        .iter()
        .filter(|seen| seen.method != "GET")
        .map(|seen| format!("{} {}", seen.method, seen.path.split("&namespace").next().unwrap_or_default()))
        .collect();
    (reports.remove(0).outcome, writes)
}

fn repository() -> Repository {
    Repository {
        id: RepositoryId(1),
        owner: "o".to_owned(),
        name: "r".to_owned(),
        html_url: "https://github.com/o/r".to_owned(),
        archived: false,
        disabled: false,
    }
}

fn listed(online: bool, busy: bool) -> Option<Value> {
    let status = if online { "online" } else { "offline" };
    Some(json!({ "id": 5, "name": "ghr-1", "os": "linux", "status": status, "busy": busy, "labels": [] }))
}

#[tokio::test(start_paused = true)]
async fn what_lives_again_is_not_purged() {
    let purge = || {
        let name = "ghr-1".to_owned();
        Action::Purge(Purge { name, repository: None, reason: PurgeReason::Asked })
    };
    let (outcome, writes) = perform(purge(), nomad_with("running", "running"), github_with(None)).await;
    assert!(matches!(outcome, Outcome::Held(_)), "{outcome}");
    assert_eq!(writes, Vec::<String>::new());
    let (outcome, writes) = perform(purge(), nomad_with("dead", "complete"), github_with(None)).await;
    assert!(matches!(outcome, Outcome::Done), "{outcome}");
    assert_eq!(writes, ["DELETE /v1/job/ghr-1?purge=true"]);
}

#[tokio::test(start_paused = true)]
async fn only_who_is_connected_is_present() {
    for (runner, is_present) in [
        (None, false),
        (listed(false, false), false),
        (listed(true, false), true),
        (listed(false, true), true),
    ] {
        let look_up = Action::LookUp(LookUp { name: "ghr-1".to_owned(), repository: repository() });
        let nomad = nomad_with("running", "running");
        let (outcome, _) = perform(look_up, nomad, github_with(runner.clone())).await;
        let as_expected = match is_present {
            true => matches!(outcome, Outcome::Present),
            false => matches!(outcome, Outcome::Absent),
        };
        assert!(as_expected, "{runner:?}: {outcome}");
        // Nor is who is connected let go as unregistered.
        let stop = Action::Stop(Stop {
            name: "ghr-1".to_owned(),
            repository: repository(),
            consent: Consent::Unregistered,
            registration: Registration::Jit,
            reason: StopReason::Lost,
        });
        let (_, writes) = perform(stop, nomad_with("running", "running"), github_with(runner.clone())).await;
        assert_eq!(writes.is_empty(), is_present, "{runner:?}: {writes:?}");
    }
}
