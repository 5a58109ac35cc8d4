//! Webhooks, what they deliver and the log of it; what pushes move; indexes that are behind.

use super::*;

fn hook(events: &[&str]) -> Value {
    let config = json!({"url": "http://ci.test/webhook", "content_type": "json", "secret": "a secret"});
    json!({"name": "web", "events": events, "config": config})
}

/// An organization's hook for jobs. Answers its path.
fn organization_hook(site: &mut Site) -> String {
    let made = site.post("/orgs/octo-org/hooks", hook(&["workflow_job"]));
    assert_eq!(made.status, 201, "{made:?}");
    site.github.take_parcels();
    format!("/orgs/octo-org/hooks/{}", made.body["id"])
}

#[test]
fn a_job_is_delivered_to_each_hook_that_covers_its_repository() {
    let mut site = Site::new();
    organization_hook(&mut site);
    site.queue(site.app, &["x"]);
    site.queue(site.tool, &["x"]);
    site.online("r1", &["x"]);
    site.pass(Duration::from_secs(10));
    let parcels = site.github.take_parcels();
    let told: Vec<(Value, Value)> = parcels
        .iter()
        .map(|parcel| serde_json::from_str::<Value>(&parcel.body).unwrap())
        .map(|body| (body["action"].clone(), body["repository"]["full_name"].clone()))
        .collect();
    let app = json!("octo-org/app");
    assert_eq!(told, [(json!("queued"), app.clone()), (json!("in_progress"), app)]);
    let first = &parcels[0];
    assert_eq!(first.signature.as_deref(), Some(sign("a secret", first.body.as_bytes()).as_str()));
    assert_eq!((first.event.as_str(), first.guid.len()), ("workflow_job", 36));
    assert_ne!(first.guid, parcels[1].guid);
}

#[test]
fn a_hook_that_is_inactive_removed_or_for_other_events_delivers_nothing() {
    let mut site = Site::new();
    let path = organization_hook(&mut site);
    assert_eq!(site.patch(&path, json!({"active": false})).status, 200);
    site.queue(site.app, &["x"]);
    assert_eq!(site.patch(&path, json!({"active": true, "events": ["push"]})).status, 200);
    site.queue(site.app, &["x"]);
    assert_eq!(site.github.take_parcels(), []);
    assert_eq!(site.delete(&path).status, 204);
    assert_eq!(site.delete(&path).status, 404);
    site.queue(site.app, &["x"]);
    assert_eq!(site.github.take_parcels(), []);
}

#[test]
fn a_hook_without_the_right_to_it_is_not_there() {
    let mut site = Site::new();
    organization_hook(&mut site);
    site.github.add_token("classic", Token::classic("octocat", &["repo", "admin:org"]));
    site.github.add_token("other", Token::classic("stranger", &["repo", "admin:org_hook"]));
    for token in ["classic", "other"] {
        site.token = Some(token.to_string());
        assert_eq!(site.get("/orgs/octo-org/hooks").status, 404, "{token}");
        assert_eq!(site.post("/orgs/octo-org/hooks", hook(&["workflow_job"])).status, 404, "{token}");
    }
    assert_eq!(site.get("/repos/octo-org/app/hooks").status, 404);
    site.token = Some("classic".to_string());
    assert_eq!(site.get("/repos/octo-org/app/hooks").status, 200);
}

#[test]
fn the_log_is_newest_first_with_a_cursor_and_says_what_was_answered() {
    let mut site = Site::new();
    let path = organization_hook(&mut site);
    for _ in 0..5 {
        site.queue(site.app, &["x"]);
    }
    let parcels = site.github.take_parcels();
    site.github.delivered(parcels[4].delivery, Some(202));
    site.github.delivered(parcels[3].delivery, None);
    let (mut ids, mut next) = (Vec::new(), Some(format!("{path}/deliveries?per_page=2")));
    while let Some(target) = next {
        let page = site.get(&target);
        assert!(page.body.as_array().unwrap().len() <= 2);
        ids.extend(page.ids(""));
        next = page.link("next");
    }
    let mut expected: Vec<u64> = parcels.iter().map(|parcel| parcel.delivery).collect();
    expected.reverse();
    assert_eq!(ids[..5], expected);
    assert_eq!(ids.len(), 6, "the ping");
    let page = site.get(&format!("{path}/deliveries")).body;
    assert_eq!((&page[0]["status"], &page[0]["status_code"]), (&json!("OK"), &json!(202)));
    assert_eq!(page[1]["status_code"], 0);
    assert_eq!((&page[0]["event"], &page[0]["repository_id"]), (&json!("workflow_job"), &json!(site.app)));
    assert_eq!(site.get(&format!("{path}/deliveries?cursor=nonsense")).status, 422);
}

#[test]
fn a_delivery_that_is_sent_again_has_its_guid_and_another_number() {
    let mut site = Site::new();
    let path = organization_hook(&mut site);
    site.queue(site.app, &["x"]);
    let first = site.github.take_parcels().remove(0);
    let again = site.post(&format!("{path}/deliveries/{}/attempts", first.delivery), Value::Null);
    assert_eq!(again.status, 202);
    let second = site.github.take_parcels().remove(0);
    assert_eq!((&second.guid, &second.body), (&first.guid, &first.body));
    assert_ne!(second.delivery, first.delivery);
}

#[test]
fn the_log_may_lag() {
    let lag = Duration::from_secs(120);
    let mut site = Site::with(Options { delivery_lag: lag, ..Options::default() });
    let path = format!("{}/deliveries", organization_hook(&mut site));
    assert_eq!(site.get(&path).ids(""), [0; 0]);
    site.pass(lag);
    assert_eq!(site.get(&path).ids("").len(), 1);
}

#[test]
fn an_apps_hook_covers_what_it_is_installed_for_and_its_log_needs_its_jwt() {
    let mut site = Site::new();
    let (app, key) = super::apps::install(&mut site, Reach::All);
    site.github.make_hook(HookPlace::App(app), "http://ci.test/webhook", "a secret");
    site.queue(site.app, &["x"]);
    site.queue(site.tool, &["x"]);
    let parcels = site.github.take_parcels();
    assert_eq!(parcels.len(), 1, "octocat has not installed it");
    assert!(parcels[0].body.contains("\"installation\""));
    assert_eq!(site.get("/app/hook/deliveries").status, 401);
    site.token = Some(super::apps::jwt(&key, &app.to_string(), site.now, 0, 300));
    let log = site.get("/app/hook/deliveries");
    assert_eq!((log.status, &log.body[0]["repository_id"]), (200, &json!(site.app)));
}

#[test]
fn pushes_move_pushed_at_and_schedules_dispatches_and_reruns_do_not() {
    let mut site = Site::new();
    let spec = || vec![JobSpec::new(&["x"], Duration::from_secs(1))];
    let pushed = |site: &mut Site| site.get("/repos/octo-org/app").body["pushed_at"].clone();
    let (first, minute) = (pushed(&mut site), Duration::from_secs(60));
    for trigger in [Trigger::Schedule, Trigger::Dispatch] {
        site.pass(minute);
        let run = site.github.queue_run_by(trigger, site.app, spec(), site.now).unwrap();
        assert_eq!(pushed(&mut site), first, "{trigger:?}");
        let shown = site.get(&format!("/repos/octo-org/app/actions/runs/{run}")).body;
        assert_eq!(shown["event"], trigger.as_str());
        site.github.cancel_run(run, site.now);
        assert!(site.github.rerun(run, site.now));
        assert_eq!(pushed(&mut site), first, "a re-run");
    }
    site.github.push(site.app, site.now);
    assert_ne!(pushed(&mut site), first);
    let other = site.github.add_repository("octo-org/other");
    site.pass(minute);
    site.github.push(other, site.now);
    let newest_first = site.get("/orgs/octo-org/repos?sort=pushed&direction=desc&per_page=100").ids("");
    assert_eq!(newest_first, [other, site.app]);
    site.pass(minute);
    site.queue(site.app, &["x"]);
    let newest_first = site.get("/orgs/octo-org/repos?sort=pushed&direction=desc&per_page=100").ids("");
    assert_eq!(newest_first, [site.app, other]);
}

#[test]
fn filtered_lists_are_behind_where_the_unfiltered_one_is_not() {
    let lag = Duration::from_secs(300);
    let mut site = Site::with(Options { index_lag: lag, ..Options::default() });
    let runs = |site: &mut Site, query: &str| {
        let answer = site.get(&format!("/repos/octo-org/app/actions/runs{query}"));
        (answer.body["total_count"].as_u64().unwrap(), answer.ids("workflow_runs").len())
    };
    let job = site.queue(site.app, &["x"]);
    let run = site.github.job(job).unwrap().run;
    assert_eq!(runs(&mut site, "?status=queued"), (0, 0));
    assert_eq!(runs(&mut site, ""), (1, 1));
    site.pass(lag);
    assert_eq!(runs(&mut site, "?status=queued"), (1, 1));
    site.github.cancel_run(run, site.now);
    assert_eq!(runs(&mut site, "?status=queued"), (1, 1), "what is over is still listed");
    assert_eq!(runs(&mut site, "?status=completed"), (0, 0));
    let listed = site.get("/repos/octo-org/app/actions/runs?status=queued").body;
    assert_eq!(listed["workflow_runs"][0]["status"], "completed", "the row is current");
    site.pass(lag);
    assert_eq!(runs(&mut site, "?status=queued"), (0, 0));
    assert_eq!(runs(&mut site, "?status=cancelled"), (1, 1));
}

#[test]
fn a_clients_share_of_githubs_own_time_is_limited() {
    let cpu_per_request = Duration::from_secs(1);
    let mut site = Site::with(Options { cpu_per_request, ..Options::default() });
    for _ in 0..90 {
        assert_eq!(site.get("/repos/octo-org/app").status, 200);
    }
    let refused = site.get("/repos/octo-org/app");
    assert_eq!((refused.status, refused.header("retry-after")), (403, "60"));
    assert!(refused.message().contains("secondary rate limit"));
    site.pass(Duration::from_secs(60));
    assert_eq!(site.get("/repos/octo-org/app").status, 200);
}
