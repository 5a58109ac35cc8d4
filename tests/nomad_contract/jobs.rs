//! Jobs: parsed, registered, observed, stopped and purged.

use std::time::Duration;

use githubrunner::{
    http::Request,
    model::{
        Finish, ForeignReason, JobId, NomadView, Ownership, Registration, RepositoryId, RunnerMeta,
        RunnerState,
    },
    nomad::{Error, Nomad, Options, Registered, Written, job_from_json, prepare},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::place::{ENDS, LASTS, NAMESPACE, Place, Task, WITHIN, hcl, items, until, until_state};

pub async fn parses(place: Place) {
    let nomad = place.nomad();
    let job = place.parsed(&nomad, ENDS, "").await;
    assert_eq!(job["ID"], json!("template"));
    assert_eq!(job["TaskGroups"][0]["Tasks"][0]["Config"]["command"], json!("/bin/sh"));
    // Not canonicalized: what the template omits stays omitted.
    assert_eq!(job["Region"], Value::Null);
    let api_json = json!({ "Job": job }).to_string();
    assert_eq!(job_from_json(&api_json).unwrap(), Some(job));
}

pub async fn says_where_hcl_is_wrong(place: Place) {
    let nomad = place.nomad();
    let wrong = "job \"x\" {\n  type = \n}\n";
    let Err(Error::Hcl { message, line }) = nomad.parse(wrong, Registration::Jit).await else { panic!() };
    assert!(message.starts_with("Failed to parse job: input.hcl:2,10"), "{message}");
    assert_eq!(line.as_deref(), Some("type ="));
    // In this mode the text may contain the token.
    let Err(Error::Hcl { line, .. }) = nomad.parse(wrong, Registration::AccessToken).await else { panic!() };
    assert_eq!(line, None);
    let Err(Error::Hcl { message, .. }) = nomad.parse("", Registration::Jit).await else { panic!() };
    assert!(message.contains("Job spec is empty"), "{message}");
    let files = "job \"x\" {\n  type = file(\"/etc/passwd\")\n}\n";
    assert!(matches!(nomad.parse(files, Registration::Jit).await, Err(Error::Hcl { .. })));
}

pub async fn refuses_what_a_parse_lets_through(place: Place) {
    let nomad = place.nomad();
    let hcl = hcl(ENDS, "").replace("memory = 10", "memory = 9223372036854775807");
    let job = nomad.parse(&hcl, Registration::Jit).await.unwrap();
    let meta = place.meta(&nomad, 1, Registration::Jit).await;
    let refused = prepare(job, nomad.options(), meta, &place.name(1), Registration::Jit);
    let error = refused.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("memory is 9223372036854775807"), "{error}");
}

pub async fn registers_once(place: Place) {
    let nomad = place.nomad();
    let job = place.job(&nomad, 1, Registration::Jit, LASTS).await;
    let validation = nomad.validate(&job).await.unwrap();
    assert_eq!(validation.validation_errors, Vec::<String>::new());
    assert_eq!(nomad.plan_job(&job).await.unwrap().blocked(), None);
    assert_eq!(nomad.read_runner(job.name()).await.unwrap(), None, "neither has registered it");
    let first = nomad.register(&job, Some("# as rendered")).await.unwrap();
    assert!(matches!(first, Registered::Created { .. }));
    // The response was lost, or another replica does the same.
    assert_eq!(nomad.register(&job, Some("# as rendered")).await.unwrap(), Registered::Already);
    let runner = nomad.read_runner(job.name()).await.unwrap().unwrap();
    assert_eq!(runner.ownership, Ownership::Ours);
    assert_eq!(runner.meta, place.meta(&nomad, 1, Registration::Jit).await);
    nomad.stop(job.name()).await.unwrap();
    let dead = until_state(&nomad, job.name(), RunnerState::Dead).await;
    assert_eq!((dead.finish, dead.started), (Some(Finish::Stopped), false));
    assert_eq!(nomad.register(&job, None).await.unwrap(), Registered::Already, "the dead count too");
    nomad.purge(job.name()).await.unwrap();
    assert!(matches!(nomad.register(&job, None).await.unwrap(), Registered::Created { .. }));
    nomad.stop(job.name()).await.unwrap();
}

pub async fn tells_another_job_of_that_name(place: Place) {
    let nomad = place.nomad();
    let name = place.start(&nomad, 1, ENDS).await;
    let parsed = place.parsed(&nomad, ENDS, "").await;
    let mut meta = place.meta(&nomad, 1, Registration::AccessToken).await;
    meta.attempt = Some(2);
    // The seal was for the first attempt.
    meta.mac = None;
    let other = prepare(parsed, nomad.options(), meta, &name, Registration::AccessToken).unwrap();
    let refused = nomad.register(&other, None).await;
    assert!(matches!(&refused, Err(Error::Taken { name: taken }) if *taken == name), "{refused:?}");
}

pub async fn says_what_is_wrong_with_a_job(place: Place) {
    let nomad = place.nomad();
    let meta = place.meta(&nomad, 1, Registration::Jit).await;
    let empty = json!({ "TaskGroups": [{ "Name": "g", "Tasks": [] }] });
    let job = prepare(empty, nomad.options(), meta, &place.name(1), Registration::Jit).unwrap();
    let error = nomad.register(&job, None).await.unwrap_err();
    assert!(matches!(error, Error::Refused(_)), "{error:?}");
    assert!(error.to_string().contains("error") && !error.is_transient() && !error.is_ambiguous(), "{error}");
    assert!(!nomad.validate(&job).await.unwrap().validation_errors.is_empty());
}

pub async fn sees_a_whole_life(place: Place) {
    let nomad = place.nomad();
    assert_eq!(nomad.observe().await.unwrap().runners, Vec::new());
    let task = Task { seconds: 1, wants: "configuration", ..ENDS };
    let job = place.job(&nomad, 1, Registration::Jit, task).await;
    nomad.register(&job, Some("# as rendered")).await.unwrap();
    let waiting = until_state(&nomad, job.name(), RunnerState::Waiting).await;
    assert!(!waiting.started && waiting.variable.is_none());
    assert_eq!(nomad.put_variable(job.name(), &items("configuration")).await.unwrap(), Written::Written);
    let running = until(&nomad, job.name(), "started", |runner| runner.started).await;
    assert!(running.variable >= Some(running.submitted_at) && running.started_at.is_some());
    let dead = until_state(&nomad, job.name(), RunnerState::Dead).await;
    assert_eq!(dead.finish, Some(Finish::Success), "its task had the variable in its environment");
    assert!(dead.ended_at > dead.started_at);
    let view = nomad.observe().await.unwrap();
    assert_eq!(view.runners, vec![dead]);
    assert!(view.has_variable(None, job.name()));
    nomad.delete_variable(job.name()).await.unwrap();
    nomad.purge(job.name()).await.unwrap();
    let view = nomad.observe().await.unwrap();
    assert!(view.runners.is_empty() && view.variables.is_empty());
    nomad.purge(job.name()).await.unwrap();
    nomad.delete_variable(job.name()).await.unwrap();
}

pub async fn sees_how_runners_end(place: Place) {
    let nomad = place.nomad();
    for (number, (task, finish)) in
        [(ENDS, Finish::Success), (Task { exit: 3, ..ENDS }, Finish::Failure { exit_code: Some(3) })]
            .into_iter()
            .enumerate()
    {
        let name = place.start(&nomad, number as u64, task).await;
        let dead = until_state(&nomad, &name, RunnerState::Dead).await;
        assert_eq!(dead.finish, Some(finish), "{task:?}");
        // Stopping a job that has ended changes nothing.
        nomad.stop(&name).await.unwrap();
        assert_eq!(nomad.read_runner(&name).await.unwrap().unwrap().finish, dead.finish, "{task:?}");
    }
}

pub async fn sees_what_never_ran(place: Place) {
    let nomad = place.nomad();
    let mut parsed = place.parsed(&nomad, ENDS, "").await;
    parsed["TaskGroups"][0]["Tasks"][0]["Config"]["command"] = json!("/nonexistent");
    let meta = place.meta(&nomad, 9, Registration::AccessToken).await;
    let job = prepare(parsed, nomad.options(), meta, &place.name(9), Registration::AccessToken).unwrap();
    nomad.register(&job, None).await.unwrap();
    let dead = until_state(&nomad, job.name(), RunnerState::Dead).await;
    let Some(Finish::NeverRan { reason }) = &dead.finish else { panic!("{dead:#?}") };
    assert!(reason.contains("Driver Failure") && !dead.started, "{reason}");
}

pub async fn stops_what_runs_waits_and_is_not_there(place: Place) {
    let nomad = place.nomad();
    let running = place.start(&nomad, 1, LASTS).await;
    until_state(&nomad, &running, RunnerState::Running).await;
    nomad.stop(&running).await.unwrap();
    let seen = until(&nomad, &running, "stopping", |runner| runner.state != RunnerState::Running).await;
    assert!(matches!(seen.state, RunnerState::Stopping | RunnerState::Dead));
    let dead = until_state(&nomad, &running, RunnerState::Dead).await;
    assert_eq!((dead.finish, dead.started), (Some(Finish::Stopped), true));
    let job = place.job(&nomad, 2, Registration::Jit, ENDS).await;
    nomad.register(&job, None).await.unwrap();
    until_state(&nomad, job.name(), RunnerState::Waiting).await;
    nomad.stop(job.name()).await.unwrap();
    let dead = until_state(&nomad, job.name(), RunnerState::Dead).await;
    assert_eq!((dead.finish, dead.started), (Some(Finish::Stopped), false));
    nomad.stop(&place.name(99)).await.unwrap();
    nomad.purge(&place.name(99)).await.unwrap();
}

pub async fn says_why_a_job_is_not_placed(place: Place) {
    let nomad = place.nomad();
    let mut names = Vec::new();
    for (number, change) in
        [json!({ "Resources": { "CPU": 1, "MemoryMB": 9_999_999 } }), json!({ "Driver": "no-such-driver" })]
            .into_iter()
            .enumerate()
    {
        let mut parsed = place.parsed(&nomad, ENDS, "").await;
        for (key, value) in change.as_object().unwrap() {
            parsed["TaskGroups"][0]["Tasks"][0][key] = value.clone();
        }
        let meta = place.meta(&nomad, number as u64, Registration::Jit).await;
        let name = place.name(number as u64);
        let job = prepare(parsed, nomad.options(), meta, &name, Registration::Jit).unwrap();
        assert!(nomad.plan_job(&job).await.unwrap().blocked().is_some());
        nomad.register(&job, None).await.unwrap();
        names.push(name);
    }
    let deadline = Instant::now() + WITHIN;
    let blocked = loop {
        let mut view = nomad.observe().await.unwrap();
        assert!(view.runners.iter().all(|runner| runner.state == RunnerState::Pending));
        view.runners.sort_by_key(|runner| runner.meta.job_id());
        let blocked: Option<Vec<_>> = view.runners.into_iter().map(|runner| runner.blocked).collect();
        match blocked {
            Some(blocked) if blocked.len() == 2 => break blocked,
            _ if Instant::now() > deadline => panic!("no reason within {WITHIN:?}"),
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    assert!(blocked[0].exhausted && blocked[0].reason.contains("memory exhausted"), "{blocked:?}");
    assert!(!blocked[1].exhausted && blocked[1].reason.contains("missing drivers"), "{blocked:?}");
    for name in names {
        nomad.stop(&name).await.unwrap();
        let dead = until_state(&nomad, &name, RunnerState::Dead).await;
        assert_eq!((dead.finish, dead.allocation), (Some(Finish::Stopped), None));
        nomad.purge(&name).await.unwrap();
    }
}

pub async fn leaves_out_what_is_not_ours(place: Place) {
    let nomad = place.nomad();
    let ours = place.start(&nomad, 1, ENDS).await;
    let nomadtools = json!({ "repo_url": "https://github.com/o/r", "labelsstr": "nomadtools" }).to_string();
    let mut another = place.meta(&nomad, 3, Registration::Jit).await;
    another.deployment = Some("another".into());
    let another = serde_json::to_string(&another).unwrap();
    // Planted by someone who may submit jobs and read our Metas.
    let copied = serde_json::to_string(&place.meta(&nomad, 1, Registration::Jit).await).unwrap();
    let mut unsealed = place.meta(&nomad, 8, Registration::Jit).await;
    unsealed.mac = None;
    let changed = RunnerMeta {
        mac: place.meta(&nomad, 8, Registration::Jit).await.mac,
        ..place.meta(&nomad, 9, Registration::Jit).await
    };
    let text = |meta: &RunnerMeta| serde_json::to_string(meta).unwrap();
    for (number, meta) in [
        (7, json!({ "runner": copied })),
        (8, json!({ "runner": text(&unsealed) })),
        (9, json!({ "runner": text(&changed) })),
        (2, json!({ "runner": nomadtools })),
        (3, json!({ "runner": another })),
        (4, json!({ "runner": "not JSON" })),
        (5, json!({ "other": nomadtools })),
        (6, json!({})),
    ] {
        let mut job = place.parsed(&nomad, ENDS, "").await;
        job["ID"] = json!(place.name(number));
        job["Meta"] = meta;
        let request = Request::put(format!("/v1/jobs?namespace={NAMESPACE}")).json(&json!({ "Job": job }));
        place.send(request).await;
    }
    let view = nomad.observe().await.unwrap();
    let mut seen: Vec<_> =
        view.runners.iter().map(|runner| (runner.name.clone(), runner.ownership)).collect();
    seen.sort();
    let mut expected = vec![(ours, Ownership::Ours), (place.name(2), Ownership::Nomadtools)];
    expected.sort();
    assert_eq!(seen, expected);
    for number in [3, 7, 8, 9] {
        assert_eq!(nomad.read_runner(&place.name(number)).await.unwrap(), None, "{number}");
    }
    let mut foreign: Vec<_> =
        view.foreign.into_iter().map(|foreign| (foreign.name, foreign.reason)).collect();
    let mut expected = vec![
        (place.name(7), ForeignReason::Name),
        (place.name(8), ForeignReason::Unsealed),
        (place.name(9), ForeignReason::WrongSeal),
    ];
    foreign.sort();
    expected.sort();
    assert_eq!(foreign, expected);
}

/// Registers the job of this number with an unchanged Meta.
async fn plant(place: &Place, nomad: &Nomad, number: u64, meta: &RunnerMeta) -> String {
    let mut job = place.parsed(nomad, LASTS, "").await;
    job["ID"] = json!(place.name(number));
    job["Meta"] = json!({ "runner": serde_json::to_string(meta).unwrap() });
    let request = Request::put(format!("/v1/jobs?namespace={NAMESPACE}")).json(&json!({ "Job": job }));
    place.send(request).await;
    place.name(number)
}

pub async fn takes_over_once(place: Place) {
    // From the previous version: the deployment exists, but there is no key, and jobs have no MAC.
    let looking = Nomad::new(Options { create_deployment: false, ..place.options() }, "none").unwrap();
    let nomad = place.nomad();
    let deployment = nomad.deployment().await.unwrap();
    let meta = |number: JobId| RunnerMeta {
        labelsstr: "a".into(),
        repo_url: "https://github.com/o/r".into(),
        version: "0".into(),
        deployment: Some(deployment.clone()),
        repo_id: Some(RepositoryId(1)),
        purpose: Some(number.into()),
        attempt: Some(1),
        registration: Some(Registration::Jit),
        task: None,
        asks: None,
        class: None,
        mac: None,
    };
    let old = plant(&place, &nomad, 1, &meta(JobId(1))).await;
    let replaced = plant(&place, &nomad, 2, &meta(JobId(2))).await;
    // A read-only client creates no key, and sees what will be taken over.
    assert_eq!(looking.observe().await.unwrap().runners.len(), 2);
    let names = |view: &NomadView| view.runners.iter().map(|runner| runner.name.clone()).collect::<Vec<_>>();
    assert_eq!(nomad.observe().await.unwrap().runners.len(), 2);
    // From here on a MAC is required, even in place of an old job.
    let planted = plant(&place, &nomad, 3, &meta(JobId(3))).await;
    plant(&place, &nomad, 2, &RunnerMeta { labelsstr: "b".into(), ..meta(JobId(2)) }).await;
    let ours = place.start(&nomad, 4, LASTS).await;
    for nomad in [&nomad, &place.nomad()] {
        let view = nomad.observe().await.unwrap();
        let mut expected = vec![old.clone(), ours.clone()];
        expected.sort();
        assert_eq!(names(&view), expected);
        let mut foreign: Vec<_> = view.foreign.iter().map(|foreign| foreign.name.clone()).collect();
        let mut expected = vec![replaced.clone(), planted.clone()];
        foreign.sort();
        expected.sort();
        assert_eq!(foreign, expected);
    }
    // Stopping an old job leaves it ours.
    nomad.stop(&old).await.unwrap();
    until(&nomad, &old, "stopping", |runner| runner.state != RunnerState::Running).await;
    for name in [old, ours, replaced, planted] {
        nomad.stop(&name).await.unwrap();
    }
}

/// Each kind of request once.
pub async fn does_everything_once(place: Place) -> Result<(), Error> {
    let nomad = place.nomad();
    nomad.observe().await?;
    let parsed = nomad.parse(&hcl(ENDS, ""), Registration::Jit).await?;
    let meta = place.meta(&nomad, 1, Registration::Jit).await;
    let job = prepare(parsed, nomad.options(), meta, &place.name(1), Registration::Jit)?;
    nomad.register(&job, None).await?;
    nomad.put_variable(job.name(), &items("configuration")).await?;
    nomad.read_runner(job.name()).await?;
    nomad.delete_variable(job.name()).await?;
    nomad.stop(job.name()).await?;
    nomad.purge(job.name()).await
}
