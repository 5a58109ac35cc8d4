//! What an action does if the situation has changed since the plan.

use serde_json::{Value, json};

use super::*;
use crate::{
    github::Auth,
    http::{
        self, Client,
        tests::{Answer, Seen, answer, server},
    },
    model::{
        CleanUp, Conclusion, Consent, Done, EndedJob, IssueCredentials, Loss, Orphan, Purge, PurgeReason,
        Registration, RemoveOrphan, Repository, RepositoryId, RepositoryRef, Rerun, RunnerMeta,
        RunnerVariable, Stop, StopReason, VerifyRegistration,
    },
    nomad::seal::sample,
    secret::Secret,
};

const DATE: (&str, &str) = ("date", "Tue, 24 Nov 2026 07:08:09 GMT");

fn ok(body: &Value) -> Answer {
    answer(200, &[DATE], body.to_string())
}

/// A Nomad with one runner of ours that has this one allocation.
fn nomad_with(job_status: &str, client_status: &str) -> impl Fn(&Seen) -> Answer + Send + Sync + use<> {
    let job = sample::stub(sample::NAME, job_status, &sample::meta("i"));
    let allocation = json!({ "ID": "a", "JobID": "ghr-o-r-653s2utuoiw6qcj", "ClientStatus": client_status, "DesiredStatus": "run" });
    move |seen| match (seen.method.as_str(), seen.path.split('?').next().unwrap()) {
        ("GET", "/v1/jobs") => ok(&json!([job])),
        ("GET", "/v1/allocations") => ok(&json!([allocation])),
        ("GET", "/v1/vars") => ok(&json!([])),
        ("GET", "/v1/var/githubrunner/ghr/instance") => ok(&json!({ "Items": { "id": "i" } })),
        ("GET", "/v1/var/githubrunner/ghr/key") => ok(&sample::key_variable()),
        ("DELETE", "/v1/job/ghr-o-r-653s2utuoiw6qcj") => ok(&json!({})),
        (method, path) => answer(404, &[DATE], format!("{method} {path}")),
    }
}

/// A GitHub that lists this runner, or none.
fn github_with(runner: Option<Value>) -> impl Fn(&Seen) -> Answer + Send + Sync + use<> {
    move |seen| match seen.method.as_str() {
        "GET" => ok(&json!({ "total_count": runner.iter().count(), "runners": runner.as_slice() })),
        "DELETE" => answer(204, &[DATE], ""),
        method => answer(404, &[DATE], method.to_owned()),
    }
}

/// The outcome of one action, and the changes that were requested from Nomad, then GitHub.
async fn perform(
    action: Action,
    nomad: impl Fn(&Seen) -> Answer + Send + Sync + 'static,
    github: impl Fn(&Seen) -> Answer + Send + Sync + 'static,
) -> (Outcome, Vec<String>) {
    perform_with("", action, nomad, github).await
}

/// The same with more configuration.
async fn perform_with(
    more: &str,
    action: Action,
    nomad: impl Fn(&Seen) -> Answer + Send + Sync + 'static,
    github: impl Fn(&Seen) -> Answer + Send + Sync + 'static,
) -> (Outcome, Vec<String>) {
    let config =
        "repos: [o/r]\ngithub: {token: t}\nnomad: {namespace: runners, jobprefix: ghr, meta: runner}\n";
    let config = Config::load(&format!("{config}{more}"), &|_| None).unwrap();
    let (endpoint, seen) = server(nomad);
    let nomad = Nomad::new(nomad::Options::new(endpoint, "runners", "ghr", "runner"), "i").unwrap();
    let (endpoint, asked) = server(github);
    let client = Client::new(endpoint, http::Options::default()).unwrap();
    let options = github::Options::new(url::Url::parse("http://api.github.test").unwrap());
    let github = GitHub::new(client, Auth::Token(Secret::new("a-token")), options);
    let renderer = Renderer::new(&config).unwrap();
    let apply =
        Apply::new(&config, github, nomad, renderer.into(), "i", Leadership::always(), ApplyMode::Perform);
    let mut reports = apply.apply(&Plan { actions: vec![action], ..Plan::default() }).await;
    let writes = [seen, asked].into_iter().flat_map(|seen| seen.lock().unwrap().clone());
    let writes = writes
        .filter(|seen| seen.method != "GET")
        .map(|seen| format!("{} {}", seen.method, seen.path.split(['&', '?']).next().unwrap_or_default()))
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
        visibility: crate::model::Visibility::default(),
    }
}

/// A runner's state in GitHub's list.
#[derive(Clone, Copy)]
enum AtGitHub {
    Offline,
    Idle,
    Busy,
    /// It runs a job and has lost its connection.
    BusyOffline,
}

fn listed(state: AtGitHub) -> Option<Value> {
    let (status, busy) = match state {
        AtGitHub::Offline => ("offline", false),
        AtGitHub::Idle => ("online", false),
        AtGitHub::Busy => ("online", true),
        AtGitHub::BusyOffline => ("offline", true),
    };
    Some(
        json!({ "id": 5, "name": "ghr-o-r-653s2utuoiw6qcj", "os": "linux", "status": status, "busy": busy, "labels": [] }),
    )
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_is_alive_again_is_not_purged() {
    let purge = || {
        let name = "ghr-o-r-653s2utuoiw6qcj".to_owned();
        Action::Purge(Purge {
            name,
            namespace: None,
            repository: None,
            class: None,
            reason: PurgeReason::Asked,
        })
    };
    let (outcome, writes) = perform(purge(), nomad_with("running", "running"), github_with(None)).await;
    assert!(matches!(outcome, Outcome::NotDone(NotDone::Held(_))), "{outcome}");
    assert_eq!(writes, Vec::<String>::new());
    let (outcome, writes) = perform(purge(), nomad_with("dead", "complete"), github_with(None)).await;
    assert!(matches!(outcome, Outcome::Done(Done::Performed)), "{outcome}");
    assert_eq!(writes, ["DELETE /v1/job/ghr-o-r-653s2utuoiw6qcj"]);
}

#[tokio::test(start_paused = true)]
async fn only_a_connected_runner_is_present() {
    for (runner, is_present) in [
        (None, false),
        (listed(AtGitHub::Offline), false),
        (listed(AtGitHub::Idle), true),
        (listed(AtGitHub::BusyOffline), true),
    ] {
        let verify_registration = Action::VerifyRegistration(VerifyRegistration {
            name: "ghr-o-r-653s2utuoiw6qcj".to_owned(),
            repository: repository(),
            class: None,
        });
        let nomad = nomad_with("running", "running");
        let (outcome, _) = perform(verify_registration, nomad, github_with(runner.clone())).await;
        let as_expected = match is_present {
            true => matches!(outcome, Outcome::Done(Done::Connected)),
            false => matches!(outcome, Outcome::Done(Done::NotConnected)),
        };
        assert!(as_expected, "{runner:?}: {outcome}");
        // A connected runner is not stopped as unregistered either.
        let (_, writes) = perform(
            stop(Consent::Unregistered),
            nomad_with("running", "running"),
            github_with(runner.clone()),
        )
        .await;
        assert_eq!(writes.is_empty(), is_present, "{runner:?}: {writes:?}");
    }
}

/// A runner that is online under the name of one that never started is another one.
#[tokio::test(start_paused = true)]
async fn a_runner_that_never_started_does_not_remove_an_online_registration() {
    let unplaced = || but(nomad_with("pending", "pending"), "GET", "/v1/allocations", || ok(&json!([])));
    let delete = format!("DELETE /v1/job/{}", sample::NAME);
    let (outcome, writes) =
        perform(stop(Consent::NeverStarted), unplaced(), github_with(listed(AtGitHub::Idle))).await;
    assert!(matches!(outcome, Outcome::Done(Done::Performed)), "{outcome}");
    assert_eq!(writes, [delete.as_str()]);
    // With credentials, it may be the same one.
    let waits = || ok(&json!([{ "Path": format!("nomad/jobs/{}", sample::NAME) }]));
    let nomad = but(unplaced(), "GET", "/v1/vars", waits);
    let (outcome, writes) =
        perform(stop(Consent::NeverStarted), nomad, github_with(listed(AtGitHub::Idle))).await;
    assert!(matches!(outcome, Outcome::NotDone(NotDone::Held(_))), "{outcome}");
    assert_eq!(writes, Vec::<String>::new());
    let (_, writes) =
        perform(stop(Consent::NeverStarted), unplaced(), github_with(listed(AtGitHub::Offline))).await;
    assert_eq!(writes, [delete.as_str(), "DELETE /repos/o/r/actions/runners/5"]);
    // The clean-up of a dead runner does not remove it either.
    let clean_up = || {
        Action::CleanUp(CleanUp {
            namespace: None,
            class: None,
            name: sample::NAME.to_owned(),
            repository: Some(RepositoryRef::from(&repository())),
            finish: String::new(),
        })
    };
    let never_ran = || nomad_with("dead", "failed");
    let (outcome, writes) = perform(clean_up(), never_ran(), github_with(listed(AtGitHub::Idle))).await;
    assert!(matches!(outcome, Outcome::NotDone(NotDone::Held(_))), "{outcome}");
    assert_eq!(writes, Vec::<String>::new());
}

/// The same Nomad, except for one kind of request.
fn but(
    nomad: impl Fn(&Seen) -> Answer + Send + Sync,
    method: &'static str,
    path: &'static str,
    says: impl Fn() -> Answer + Send + Sync,
) -> impl Fn(&Seen) -> Answer + Send + Sync {
    move |seen| match seen.method == method && seen.path.starts_with(path) {
        true => says(),
        false => nomad(seen),
    }
}

const VARIABLE: &str = "/v1/var/nomad/jobs/ghr-o-r-653s2utuoiw6qcj";

fn issue_credentials() -> Action {
    Action::IssueCredentials(IssueCredentials {
        namespace: None,
        class: None,
        name: "ghr-o-r-653s2utuoiw6qcj".to_owned(),
        repository: repository(),
        labels: crate::model::Labels::new(["a".to_owned()]),
        registration: Registration::Jit,
    })
}

fn made() -> Answer {
    let runner = json!({ "id": 6, "name": sample::NAME, "os": "linux", "status": "offline", "busy": false, "labels": [] });
    // `{"a":"b"}`
    answer(201, &[DATE], json!({ "runner": runner, "encoded_jit_config": "eyJhIjoiYiJ9" }).to_string())
}

/// An invalid configuration, or one for another runner, is not written to a variable. The registration is removed by
/// its name, not by the ID in the response.
#[tokio::test(start_paused = true)]
async fn an_invalid_configuration_is_not_passed_on() {
    let answers = [
        (sample::NAME, "abc\nLD_PRELOAD=/tmp/evil.so"),
        (sample::NAME, ""),
        (sample::NAME, "c"),
        (sample::NAME, "bm90IEpTT04="),
        ("ghr-2", "eyJhIjoiYiJ9"),
    ];
    for (name, config) in answers {
        let made = move || {
            let runner = json!({ "id": 6, "name": name, "os": "linux", "status": "offline", "busy": false });
            answer(201, &[DATE], json!({ "runner": runner, "encoded_jit_config": config }).to_string())
        };
        let github =
            but(github_with(listed(AtGitHub::Offline)), "POST", "/repos/o/r/actions/runners/generate", made);
        let (outcome, writes) = perform(issue_credentials(), nomad_with("running", "pending"), github).await;
        let Outcome::NotDone(NotDone::Failed(error)) = outcome else {
            panic!("{name} {config:?}: {outcome}")
        };
        assert!(!error.contains("LD_PRELOAD"), "{error}");
        assert_eq!(
            writes,
            ["POST /repos/o/r/actions/runners/generate-jitconfig", "DELETE /repos/o/r/actions/runners/5"]
        );
    }
    let token = || answer(201, &[DATE], json!({ "token": "a\nLD_PRELOAD=/tmp/evil.so" }).to_string());
    let github = but(github_with(None), "POST", "/repos/o/r/actions/runners/registration-token", token);
    let Action::IssueCredentials(issue) = issue_credentials() else { unreachable!() };
    let by_token = Action::IssueCredentials(IssueCredentials { registration: Registration::Token, ..issue });
    let (outcome, writes) = perform(by_token, nomad_with("running", "pending"), github).await;
    assert!(matches!(outcome, Outcome::NotDone(NotDone::Failed(_))), "{outcome}");
    assert_eq!(writes, ["POST /repos/o/r/actions/runners/registration-token"]);
}

/// An incomplete list with one foreign runner: the next page is on another host, the total is larger, or the token may
/// not see everything.
fn incomplete_lists() -> [Answer; 4] {
    let other = json!({ "id": 4, "name": "other", "os": "linux", "status": "online", "busy": true });
    let list = |total: u64, headers: &[(&'static str, &'static str)]| {
        let headers: Vec<_> = [DATE].iter().chain(headers).copied().collect();
        answer(200, &headers, json!({ "total_count": total, "runners": [other] }).to_string())
    };
    [
        list(150, &[("link", "<https://git.example/api/v3/repos/o/r/actions/runners?page=2>; rel=\"next\"")]),
        list(1, &[("link", "<https://git.example/api/v3/repos/o/r/actions/runners?page=2>; rel=\"next\"")]),
        list(150, &[]),
        list(1, &[("x-github-sso", "partial-results; organizations=7")]),
    ]
}

#[tokio::test(start_paused = true)]
async fn an_incomplete_list_does_not_prove_absence() {
    let (name, repository) = (sample::NAME.to_owned(), repository());
    let actions = [
        stop(Consent::GitHub),
        stop(Consent::Unregistered),
        Action::VerifyRegistration(VerifyRegistration {
            name: name.clone(),
            repository: repository.clone(),
            class: None,
        }),
        Action::CleanUp(CleanUp {
            namespace: None,
            class: None,
            name: name.clone(),
            repository: Some(RepositoryRef::from(&repository)),
            finish: String::new(),
        }),
        Action::Purge(Purge {
            namespace: None,
            class: None,
            name: name.clone(),
            repository: Some(RepositoryRef::from(&repository)),
            reason: PurgeReason::Asked,
        }),
        Action::RemoveOrphan(RemoveOrphan {
            orphan: Orphan::Registration { name },
            repository: Some(repository),
            seen: std::time::Duration::from_secs(600),
        }),
    ];
    for action in actions {
        for at in 0..incomplete_lists().len() {
            let github = but(github_with(None), "GET", "/repos/o/r/actions/runners", move || {
                let mut lists = incomplete_lists();
                std::mem::replace(&mut lists[at], answer(500, &[], ""))
            });
            let state = if matches!(action, Action::Stop(_) | Action::VerifyRegistration(_)) {
                "running"
            } else {
                "complete"
            };
            let (outcome, writes) = perform(action.clone(), nomad_with("dead", state), github).await;
            let Outcome::NotDone(NotDone::Held(why)) = &outcome else {
                panic!("{action}, list {at}: {outcome}")
            };
            assert!(why.contains("list of runners is incomplete"), "{why}");
            assert_eq!(why.contains("set github.url to https://git.example"), at < 2, "{why}");
            assert_eq!(writes, Vec::<String>::new(), "{action}, list {at}");
        }
    }
}

/// An earlier registration under the name may or may not exist, so it is neither removed nor assumed to be
/// removed.
#[tokio::test(start_paused = true)]
async fn a_taken_name_stays_taken_while_its_owner_is_unknown() {
    for at in 0..incomplete_lists().len() {
        let github = but(github_with(None), "GET", "/repos/o/r/actions/runners", move || {
            let mut lists = incomplete_lists();
            std::mem::replace(&mut lists[at], answer(500, &[], ""))
        });
        let taken = || answer(409, &[DATE], json!({ "message": "Already exists" }).to_string());
        let github = but(github, "POST", "/repos/o/r/actions/runners/generate", taken);
        let (outcome, writes) = perform(issue_credentials(), nomad_with("running", "pending"), github).await;
        assert!(matches!(outcome, Outcome::NotDone(NotDone::Held(_))), "{outcome}");
        assert_eq!(writes, ["POST /repos/o/r/actions/runners/generate-jitconfig"]);
    }
}

/// Anyone with submit-job can write a Meta: GitHub is not asked about what it names.
#[tokio::test(start_paused = true)]
async fn a_meta_that_names_no_repository_causes_no_request() {
    for repo_url in
        ["https://github.com/../x", "https://github.com/o/r\"", "x", "", "https://e.example/a b/c"]
    {
        let meta = RunnerMeta { repo_url: repo_url.to_owned(), ..RunnerMeta::default() };
        assert_eq!(meta.repository(), None, "{repo_url}");
        let repository = None;
        let Action::Stop(asked) = stop(Consent::GitHub) else { unreachable!() };
        let action = Action::Stop(Stop { repository, ..asked });
        let github = |seen: &Seen| panic!("asked for {}", seen.path);
        let (outcome, writes) = perform(action, nomad_with("running", "running"), github).await;
        assert!(matches!(outcome, Outcome::NotDone(NotDone::Held(_))), "{outcome}");
        assert_eq!(writes, Vec::<String>::new());
    }
}

/// If a name is taken, a connected runner stays, and so does a registration whose credentials are waiting for
/// their task.
#[tokio::test(start_paused = true)]
async fn a_registration_in_use_is_not_replaced() {
    let taken = || answer(409, &[DATE], json!({ "message": "Already exists" }).to_string());
    let github = |runner| but(github_with(runner), "POST", "/repos/o/r/actions/runners/generate", taken);
    let (outcome, writes) =
        perform(issue_credentials(), nomad_with("running", "pending"), github(listed(AtGitHub::Idle))).await;
    assert!(matches!(outcome, Outcome::NotDone(NotDone::Held(_))), "{outcome}");
    assert_eq!(writes, ["POST /repos/o/r/actions/runners/generate-jitconfig"]);
    let waits = || ok(&json!([{ "Path": "nomad/jobs/ghr-o-r-653s2utuoiw6qcj" }]));
    let nomad = but(nomad_with("running", "pending"), "GET", "/v1/vars", waits);
    let (outcome, writes) = perform(issue_credentials(), nomad, github(listed(AtGitHub::Offline))).await;
    assert!(matches!(outcome, Outcome::Done(Done::Already)), "{outcome}");
    assert_eq!(writes, ["POST /repos/o/r/actions/runners/generate-jitconfig"]);
}

/// If another replica's variable came first, our unused registration is removed. If it is unknown whether the
/// variable was written, the registration stays.
#[tokio::test(start_paused = true)]
async fn only_an_unused_registration_is_removed_again() {
    let github = || but(github_with(None), "POST", "/repos/o/r/actions/runners/generate", made);
    let others = || answer(409, &[DATE], json!({ "Items": { "jitconfig": "another" } }).to_string());
    let nomad = but(nomad_with("running", "pending"), "PUT", VARIABLE, others);
    let (outcome, writes) = perform(issue_credentials(), nomad, github()).await;
    assert!(matches!(outcome, Outcome::Done(Done::Already)), "{outcome}");
    assert_eq!(writes.last().unwrap(), "DELETE /repos/o/r/actions/runners/6");
    let nomad = but(nomad_with("running", "pending"), "PUT", VARIABLE, || answer(500, &[DATE], "lost"));
    let (outcome, writes) = perform(issue_credentials(), nomad, github()).await;
    assert!(matches!(outcome, Outcome::NotDone(NotDone::Failed(_))), "{outcome}");
    assert!(writes.iter().all(|write| !write.starts_with("DELETE")), "{writes:?}");
}

fn stop(consent: Consent) -> Action {
    let (name, repository, registration) =
        ("ghr-o-r-653s2utuoiw6qcj".to_owned(), Some(RepositoryRef::from(&repository())), Registration::Jit);
    let (namespace, class, reason) = (None, None, StopReason::Spent);
    Action::Stop(Stop { name, namespace, repository, class, consent, registration, reason })
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_has_started_meanwhile_is_not_stopped_as_never_started() {
    let (outcome, writes) =
        perform(stop(Consent::NeverStarted), nomad_with("running", "pending"), github_with(None)).await;
    assert!(matches!(outcome, Outcome::Done(Done::Performed)), "{outcome}");
    assert_eq!(writes, ["DELETE /v1/job/ghr-o-r-653s2utuoiw6qcj"]);
    let allocation = json!({ "ID": "a", "JobID": "ghr-o-r-653s2utuoiw6qcj", "ClientStatus": "running", "DesiredStatus": "run",
        "TaskStates": { "t": { "State": "running", "StartedAt": "2026-11-24T07:00:00Z" } } });
    let started = move || ok(&json!([allocation]));
    let nomad = but(nomad_with("running", "running"), "GET", "/v1/allocations", started);
    let (outcome, writes) = perform(stop(Consent::NeverStarted), nomad, github_with(None)).await;
    assert!(matches!(outcome, Outcome::NotDone(NotDone::Held(_))), "{outcome}");
    assert_eq!(writes, Vec::<String>::new());
}

/// The response to a deletion was lost. If the registration is gone then, that is GitHub's consent.
#[tokio::test(start_paused = true)]
async fn a_deletion_with_a_lost_response_is_verified() {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let lost_once = move || match asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
        0 => answer(502, &[DATE], "lost"),
        _ => answer(404, &[DATE], json!({ "message": "Not Found" }).to_string()),
    };
    let github =
        but(github_with(listed(AtGitHub::Idle)), "DELETE", "/repos/o/r/actions/runners/5", lost_once);
    let (outcome, writes) = perform(stop(Consent::GitHub), nomad_with("running", "running"), github).await;
    assert!(matches!(outcome, Outcome::Done(Done::Performed)), "{outcome}");
    let removal = "DELETE /repos/o/r/actions/runners/5";
    assert_eq!(writes, ["DELETE /v1/job/ghr-o-r-653s2utuoiw6qcj", removal, removal]);
}

/// GitHub cannot consent to the removal of a runner that it does not list. Only a runner with used credentials
/// certainly cannot be given a job.
#[tokio::test(start_paused = true)]
async fn a_runner_that_github_does_not_list_is_stopped_only_if_its_credentials_are_used() {
    for (reason, is_stopped) in [(StopReason::Spent, true), (StopReason::Asked, false)] {
        let Action::Stop(stop) = stop(Consent::GitHub) else { panic!("it is a stop") };
        let stop = Action::Stop(Stop { reason, ..stop });
        let (outcome, writes) = perform(stop, nomad_with("running", "running"), github_with(None)).await;
        let expected: &[&str] = if is_stopped { &["DELETE /v1/job/ghr-o-r-653s2utuoiw6qcj"] } else { &[] };
        assert_eq!(writes, expected, "{outcome}");
        assert_eq!(matches!(outcome, Outcome::NotDone(NotDone::NotListed)), !is_stopped, "{outcome}");
    }
}

/// Orphans are checked once more.
#[tokio::test(start_paused = true)]
async fn something_with_a_runner_again_is_no_orphan() {
    let variable =
        Orphan::Variable(RunnerVariable { namespace: None, name: "ghr-o-r-653s2utuoiw6qcj".to_owned() });
    let registration = Orphan::Registration { name: "ghr-o-r-653s2utuoiw6qcj".to_owned() };
    let remove = |orphan: &Orphan| {
        let repository = matches!(orphan, Orphan::Registration { .. }).then(repository);
        Action::RemoveOrphan(RemoveOrphan {
            orphan: orphan.clone(),
            repository,
            seen: std::time::Duration::ZERO,
        })
    };
    let nobody = || but(nomad_with("dead", "complete"), "GET", "/v1/jobs", || ok(&json!([])));
    for (orphan, runner, is_alone, removed) in [
        (&variable, None, true, Some("DELETE /v1/var/nomad/jobs/ghr-o-r-653s2utuoiw6qcj")),
        (&variable, None, false, None),
        (&registration, listed(AtGitHub::Offline), true, Some("DELETE /repos/o/r/actions/runners/5")),
        (&registration, listed(AtGitHub::Offline), false, None),
        (&registration, listed(AtGitHub::Idle), true, None),
    ] {
        let (_, writes) = match is_alone {
            true => {
                perform(
                    remove(orphan),
                    but(nobody(), "DELETE", VARIABLE, || ok(&json!({}))),
                    github_with(runner),
                )
                .await
            }
            false => perform(remove(orphan), nomad_with("running", "running"), github_with(runner)).await,
        };
        assert_eq!(writes, removed.into_iter().collect::<Vec<_>>(), "{orphan:?}");
    }
}

fn rerun(loss: Loss) -> Action {
    let at = crate::model::Timestamp::UNIX_EPOCH;
    let job = EndedJob {
        id: crate::model::JobId(9),
        run_id: crate::model::RunId(8),
        run_attempt: 1,
        key: "build".to_owned(),
        conclusion: Conclusion::Failure,
        runner: sample::NAME.to_owned(),
        created_at: at,
        started_at: at,
        completed_at: at,
    };
    let name = sample::NAME.to_owned();
    let (namespace, repository, class, forgets) = (None, repository(), None, Vec::new());
    Action::Rerun(Rerun { name, namespace, repository, class, job, loss, forgets })
}

/// A GitHub with the job and its run, both changed as given, that answers a re-run with this status.
fn github_with_job(job: &Value, run: &Value, status: u16) -> impl Fn(&Seen) -> Answer + Send + Sync + use<> {
    let with = |mut value: Value, change: &Value| {
        if let (Value::Object(value), Value::Object(change)) = (&mut value, change) {
            value.extend(change.clone());
        }
        value
    };
    let steps = json!([{ "name": "Run", "status": "in_progress", "conclusion": null, "number": 1 }]);
    let ended = json!({
        "id": 9, "run_id": 8, "run_attempt": 1, "status": "completed", "conclusion": "failure", "name": "build",
        "runner_name": sample::NAME, "steps": steps,
    });
    let job = with(ended, job);
    let run = with(json!({ "id": 8, "status": "completed", "run_attempt": 1 }), run);
    move |seen| match (seen.method.as_str(), seen.path.as_str()) {
        ("GET", "/repos/o/r/actions/jobs/9") => ok(&job),
        ("GET", "/repos/o/r/actions/runs/8") => ok(&run),
        ("POST", "/repos/o/r/actions/jobs/9/rerun") => answer(status, &[DATE], "{}"),
        (method, path) => answer(404, &[DATE], format!("{method} {path}")),
    }
}

/// A Nomad that answers a write of a mark with this status, and whose evaluations have this cause.
fn nomad_with_marks(status: u16, cause: &'static str) -> impl Fn(&Seen) -> Answer + Send + Sync + use<> {
    let nomad = nomad_with("dead", "lost");
    move |seen| {
        let is_mark = seen.path.starts_with("/v1/var/githubrunner/ghr/reruns/8-build-653s2utuoiw6qcj");
        match (seen.method.as_str(), is_mark) {
            ("PUT", true) => answer(status, &[DATE], "{}"),
            ("DELETE", true) => answer(204, &[DATE], ""),
            _ if seen.path.contains("/evaluations") => ok(&json!([{ "TriggeredBy": cause }])),
            _ => nomad(seen),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_job_is_run_again_by_whoever_writes_so_first() {
    let mark = "/v1/var/githubrunner/ghr/reruns/8-build-653s2utuoiw6qcj";
    let (put, delete, post) =
        (format!("PUT {mark}"), format!("DELETE {mark}"), "POST /repos/o/r/actions/jobs/9/rerun".to_owned());
    let nothing = json!({});
    for (written, answered, outcome_is, expected) in [
        (200, 201, "done", vec![&put, &post]),
        (409, 201, "already_done", vec![&put]),
        // Refused: nothing has happened, so it may be requested again.
        (200, 403, "held", vec![&put, &delete, &post]),
        // Unknown: it is not requested again.
        (200, 502, "failed", vec![&put, &post]),
        (500, 201, "failed", vec![]),
    ] {
        let github = github_with_job(&nothing, &nothing, answered);
        let (outcome, mut writes) =
            perform(rerun(Loss::Drain), nomad_with_marks(written, "node-drain"), github).await;
        // A failed write is repeated. Only one of them takes effect.
        writes.dedup();
        assert_eq!(outcome.kind(), outcome_is, "{written}, {answered}: {outcome}");
        let expected: Vec<&String> = if written == 500 { vec![&put] } else { expected };
        assert_eq!(writes.iter().collect::<Vec<_>>(), expected, "{written}, {answered}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_is_run_again_only_if_it_is_as_it_was_and_nobody_stopped_its_runner() {
    let nothing = json!({});
    for (job, run, why) in [
        (json!({ "conclusion": "success" }), nothing.clone(), "has changed"),
        (json!({ "conclusion": "cancelled" }), nothing.clone(), "has changed"),
        (json!({ "steps": [{ "conclusion": "failure" }] }), nothing.clone(), "has changed"),
        (json!({ "runner_name": "another" }), nothing.clone(), "has changed"),
        (json!({ "run_id": 7 }), nothing.clone(), "has changed"),
        (nothing.clone(), json!({ "run_attempt": 2 }), "run again since"),
        (nothing.clone(), json!({ "status": "in_progress" }), "still active"),
    ] {
        let github = github_with_job(&job, &run, 201);
        let (outcome, writes) =
            perform(rerun(Loss::Node), nomad_with_marks(200, "node-update"), github).await;
        assert!(outcome.error().is_some_and(|error| error.contains(why)), "{job} {run}: {outcome}");
        assert_eq!(writes, Vec::<String>::new());
    }
    let github = github_with_job(&nothing, &nothing, 201);
    let (outcome, writes) = perform(rerun(Loss::Drain), nomad_with_marks(200, "alloc-stop"), github).await;
    assert!(outcome.error().is_some_and(|error| error.contains("someone stopped")), "{outcome}");
    assert_eq!(writes, Vec::<String>::new());
}

/// A Nomad whose runner's task has started.
fn nomad_with_task() -> impl Fn(&Seen) -> Answer + Send + Sync + use<> {
    let started = json!({ "State": "running", "StartedAt": "2026-11-24T00:00:00Z", "Events": [] });
    let allocation = json!([{
        "ID": "a", "JobID": sample::NAME, "ClientStatus": "running", "DesiredStatus": "run",
        "TaskStates": { "runner": started },
    }]);
    but(nomad_with("running", "running"), "GET", "/v1/allocations", move || ok(&allocation))
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_is_out_of_time_is_stopped_busy_or_not_and_only_under_its_own_limit() {
    let out_of_time = |limit| stop(Consent::OutOfTime { limit: Duration::from_secs(limit) });
    let busy = || but(github_with(listed(AtGitHub::Busy)), "DELETE", "/repos", || answer(422, &[DATE], "{}"));
    let (outcome, writes) =
        perform_with("scheduler: {max_run_duration: 1h}\n", out_of_time(3600), nomad_with_task(), busy())
            .await;
    assert!(matches!(outcome, Outcome::Done(Done::Performed)), "{outcome}");
    assert_eq!(writes, [&format!("DELETE /v1/job/{}", sample::NAME), "DELETE /repos/o/r/actions/runners/5"]);
    for config in ["", "scheduler: {max_run_duration: 2h}\n"] {
        let (outcome, writes) = perform_with(config, out_of_time(3600), nomad_with_task(), busy()).await;
        assert!(matches!(outcome, Outcome::NotDone(NotDone::Held(_))), "{config}: {outcome}");
        assert_eq!(writes, Vec::<String>::new());
    }
}
