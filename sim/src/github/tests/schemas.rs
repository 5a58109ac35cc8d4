//! Every kind of answer against GitHub's own schemas.

use super::*;

/// Fails with all differences between a value and one of GitHub's schemas.
fn holds(schema: &str, value: &Value) {
    let path =
        format!("{}/../tests/fixtures/github/schemas/{schema}.schema.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut schema_json: Value = serde_json::from_str(&text).unwrap();
    // The webhook's schema is a choice by action: the action's own part says what is wrong.
    if schema == "webhook.workflow_job" {
        let action = value["action"].as_str().unwrap();
        schema_json["$ref"] = json!(format!("#/definitions/workflow_job${action}"));
    }
    let validator = jsonschema::options().should_validate_formats(true).build(&schema_json).unwrap();
    let errors: Vec<String> = validator
        .iter_errors(value)
        .map(|error| {
            format!("{}: {}", error.instance_path(), error.to_string().chars().take(300).collect::<String>())
        })
        .collect();
    assert!(errors.is_empty(), "{schema}:\n{}", errors.join("\n"));
}

#[test]
fn the_schemas_find_faults() {
    let mut site = Site::new();
    site.queue(site.app, &["x"]);
    let mut answer = site.get("/repos/octo-org/app/actions/runs").body;
    answer["workflow_runs"][0]["status"] = json!(7);
    let caught = std::panic::catch_unwind(|| holds("list-runs", &answer));
    assert!(caught.is_err());
}

#[test]
fn repositories_and_owners() {
    let mut site = Site::new();
    holds("get-repo", &site.get("/repos/octo-org/app").body);
    holds("get-user", &site.get("/users/octocat").body);
    holds("get-user", &site.get("/users/octo-org").body);
    holds("get-user", &site.get("/user").body);
    holds("get-org", &site.get("/orgs/octo-org").body);
    for (schema, target, length) in [
        ("list-org-repos", "/orgs/octo-org/repos?type=all&sort=pushed", 1),
        ("list-user-repos", "/users/octocat/repos", 1),
        ("list-my-repos", "/user/repos", 2),
    ] {
        let answer = site.get(target);
        assert_eq!((answer.status, answer.body.as_array().unwrap().len()), (200, length), "{target}");
        holds(schema, &answer.body);
    }
    holds("rate-limit", &site.get("/rate_limit").body);
}

#[test]
fn a_repository_never_pushed_to() {
    let mut site = Site::new();
    site.github.repository_mut(site.app).unwrap().pushed_at = None;
    holds("get-repo", &site.get("/repos/octo-org/app").body);
    let list = site.get("/orgs/octo-org/repos").body;
    assert_eq!(list[0]["pushed_at"], Value::Null);
    holds("list-org-repos", &list);
}

#[test]
fn runs_and_jobs_in_every_state() {
    let mut site = Site::new();
    let held = |status| JobSpec { held: Some(status), ..JobSpec::new(&["w"], HOUR) };
    let specs = vec![
        JobSpec::new(&["Linux", "x"], Duration::from_secs(60)),
        JobSpec::new(&["never"], HOUR),
        held(Status::Waiting),
        held(Status::Pending),
        held(Status::Requested),
    ];
    let run = site.github.queue_run(site.app, specs, site.now).unwrap();
    let jobs = format!("/repos/octo-org/app/actions/runs/{run}/jobs");
    let mut seen = std::collections::BTreeSet::new();
    site.online("r1", &["linux", "X"]);
    for wait in [0, 10, 100] {
        site.pass(Duration::from_secs(wait));
        holds("list-runs", &site.get("/repos/octo-org/app/actions/runs").body);
        let list = site.get(&jobs).body;
        holds("list-jobs-for-run", &list);
        for job in list["jobs"].as_array().unwrap() {
            seen.insert(job["status"].as_str().unwrap().to_string());
            holds("get-job", job);
        }
    }
    let all = ["completed", "in_progress", "pending", "queued", "requested", "waiting"];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), all);
}

#[test]
fn runners_and_their_tokens() {
    let mut site = Site::new();
    let group = site.github.add_runner_group(site.octo_org, "big");
    for (place, group, list) in
        [("/repos/octo-org/app", 1, "list-runners-repo"), ("/orgs/octo-org", group, "list-runners-org")]
    {
        let body = json!({"name": "r1", "runner_group_id": group, "labels": ["self-hosted", "GPU"]});
        holds("generate-jitconfig.request", &body);
        let made = site.post(&format!("{place}/actions/runners/generate-jitconfig"), body);
        assert_eq!(made.status, 201);
        holds("generate-jitconfig", &made.body);
        holds(list, &site.get(&format!("{place}/actions/runners")).body);
        let id = made.body["runner"]["id"].as_u64().unwrap();
        holds("get-runner", &site.get(&format!("{place}/actions/runners/{id}")).body);
        for kind in ["registration-token", "remove-token"] {
            let token = site.post(&format!("{place}/actions/runners/{kind}"), Value::Null);
            assert_eq!(token.status, 201);
            holds(kind, &token.body);
        }
    }
    let groups = site.get("/orgs/octo-org/actions/runner-groups");
    assert_eq!(groups.body["total_count"], 2);
    holds("list-runner-groups-org", &groups.body);
}

#[test]
fn refusals() {
    let mut site = Site::new();
    let body = json!({"name": "r1", "runner_group_id": 1, "labels": ["a"]});
    let target = "/repos/octo-org/app/actions/runners/generate-jitconfig";
    assert_eq!(site.post(target, body.clone()).status, 201);
    for (target, body, status, schema) in [
        (target, body, 409, "basic-error"),
        (target, json!({"name": "r2", "runner_group_id": 1, "labels": []}), 422, "validation-error-simple"),
        ("/repos/octo-org/none/actions/runners/registration-token", Value::Null, 404, "basic-error"),
    ] {
        let answer = site.post(target, body);
        assert_eq!(answer.status, status);
        assert!(!answer.message().is_empty());
        holds(schema, &answer.body);
    }
}

#[test]
fn installations() {
    let mut site = Site::new();
    let (app, key) = super::apps::install(&mut site, Reach::All);
    site.token = Some(super::apps::jwt(&key, &app.to_string(), site.now, 0, 300));
    let mut list = site.get("/app/installations").body;
    assert_eq!(list.as_array().unwrap().len(), 1);
    holds("get-org-installation", &list[0]);
    // The list's schema asks of an account that it be a person and an enterprise at once; the single one's does not.
    list[0]["account"] = Value::Null;
    holds("list-app-installations", &list);
    for target in
        ["/repos/octo-org/app/installation", "/orgs/octo-org/installation", "/users/octo-org/installation"]
    {
        let answer = site.get(target);
        assert_eq!(answer.status, 200, "{target}");
        let schema =
            if target.starts_with("/repos") { "get-repo-installation" } else { "get-org-installation" };
        holds(schema, &answer.body);
    }
    let id = site.get("/orgs/octo-org/installation").body["id"].as_u64().unwrap();
    let asked = json!({"repositories": ["app"], "permissions": {"actions": "read"}});
    holds("create-installation-token.request", &asked);
    let token = site.post(&format!("/app/installations/{id}/access_tokens"), asked);
    assert_eq!(token.status, 201);
    holds("create-installation-token", &token.body);
    site.token = Some(token.body["token"].as_str().unwrap().to_string());
    holds("list-installation-repos", &site.get("/installation/repositories").body);
}

#[test]
fn hooks_and_their_deliveries() {
    let mut site = Site::new();
    let mut pings = Vec::new();
    for (place, schema) in [("/orgs/octo-org", "org"), ("/repos/octo-org/app", "repo")] {
        let body = json!({
            "name": "web", "active": true, "events": ["workflow_job"],
            "config": {"url": "http://ci.test/webhook", "content_type": "json", "secret": "s", "insecure_ssl": "0"},
        });
        holds(&format!("create-{schema}-hook.request"), &body);
        let made = site.post(&format!("{place}/hooks"), body.clone());
        assert_eq!(made.status, 201, "{made:?}");
        holds(&format!("get-{schema}-hook"), &made.body);
        let list = site.get(&format!("{place}/hooks")).body;
        assert_eq!(list.as_array().unwrap().len(), 1);
        holds(&format!("list-{schema}-hooks"), &list);
        let hook = format!("{place}/hooks/{}", made.body["id"]);
        let changed = site.patch(&hook, json!({"events": ["workflow_job", "push"]}));
        assert_eq!((changed.status, &changed.body["events"][1]), (200, &json!("push")));
        holds(&format!("get-{schema}-hook"), &changed.body);
        pings.extend(site.github.take_parcels());
        let again = site.post(&format!("{place}/hooks"), body);
        assert_eq!(again.status, 422);
        holds("validation-error", &again.body);
    }
    assert_eq!(pings.len(), 2);
    for ping in pings {
        holds("webhook.ping", &serde_json::from_str(&ping.body).unwrap());
    }
    site.queue(site.app, &["x"]);
    let parcels = site.github.take_parcels();
    assert_eq!(parcels.len(), 2, "the repository's hook and its organization's");
    for parcel in parcels {
        holds("webhook.workflow_job", &serde_json::from_str(&parcel.body).unwrap());
        site.github.delivered(parcel.delivery, Some(502));
    }
    let hook = site.get("/orgs/octo-org/hooks").body[0]["deliveries_url"].as_str().unwrap().to_string();
    let log = site.get(&hook).body;
    assert_eq!(log.as_array().unwrap().len(), 2);
    holds("list-hook-deliveries", &log);
}

#[test]
fn webhooks_in_every_action() {
    let mut site = Site::new();
    let held = JobSpec { held: Some(Status::Pending), ..JobSpec::new(&["x"], HOUR) };
    let run = site.github.queue_run(site.app, vec![held], site.now).unwrap();
    let held = site.github.run(run).unwrap().jobs[0];
    let job = site.queue(site.app, &["x"]);
    let check = |site: &Site, job, action: &str, schema: &str| {
        let event = site.github.workflow_job_event(job, action, "http://api.test").unwrap();
        holds("webhook.workflow_job", &event);
        holds(&format!("webhook-openapi.workflow_job.{schema}"), &event);
        event
    };
    assert_eq!(check(&site, held, "waiting", "waiting")["workflow_job"]["status"], "waiting");
    assert_eq!(check(&site, held, "queued", "queued")["workflow_job"]["status"], "waiting");
    assert_eq!(check(&site, job, "queued", "queued")["workflow_job"]["runner_id"], Value::Null);
    let runner = site.online("r1", &["x"]);
    site.pass(Duration::from_secs(10));
    assert_eq!(check(&site, job, "in_progress", "in-progress")["workflow_job"]["runner_id"], runner);
    site.pass(HOUR);
    assert_eq!(check(&site, job, "completed", "completed")["workflow_job"]["conclusion"], "success");
    assert_eq!(site.github.workflow_job_event(1, "queued", ""), None);
}
