//! The life of runners and their registrations.

use super::*;

const JIT: &str = "/repos/octo-org/app/actions/runners/generate-jitconfig";
const RUNNERS: &str = "/repos/octo-org/app/actions/runners";

fn jit(site: &mut Site, name: &str) -> (u64, String) {
    let made = site.post(JIT, json!({"name": name, "runner_group_id": 1, "labels": ["X Y=1"]}));
    assert_eq!(made.status, 201, "{made:?}");
    let encoded = made.body["encoded_jit_config"].as_str().unwrap().to_string();
    (made.body["runner"]["id"].as_u64().unwrap(), encoded)
}

#[test]
fn a_jit_configuration_is_single_use_and_soon_expires() {
    let mut site = Site::new();
    let (runner, encoded) = jit(&mut site, "r1");
    assert!((3000..6000).contains(&encoded.len()), "about 4 kB: {}", encoded.len());
    let known = site.get(&format!("{RUNNERS}/{runner}")).body;
    assert_eq!(
        (&known["status"], &known["os"], &known["busy"]),
        (&json!("offline"), &json!("unknown"), &json!(false))
    );
    assert_eq!(known["labels"][0]["name"], "x y=1", "labels come back lower-cased");
    assert_eq!(known["labels"].as_array().unwrap().len(), 1, "none is added");
    assert_eq!(jit_server(&encoded), Some("http://api.test".to_string()));
    assert_eq!(site.github.connect_jit(&encoded, site.now), Ok(runner));
    assert_eq!(site.get(&format!("{RUNNERS}/{runner}")).body["status"], "online");
    assert_eq!(site.github.connect_jit(&encoded, site.now), Err(Refused::Used));
    site.github.disconnect(runner, Leave::Graceful, site.now);
    assert_eq!(site.github.connect_jit(&encoded, site.now), Err(Refused::Used));
    let (_, late) = jit(&mut site, "r2");
    site.pass(Duration::from_secs(300));
    assert_eq!(site.github.connect_jit(&late, site.now), Err(Refused::Expired));
    let (gone, encoded) = jit(&mut site, "r3");
    assert_eq!(site.delete(&format!("{RUNNERS}/{gone}")).status, 204);
    assert_eq!(site.github.connect_jit(&encoded, site.now), Err(Refused::Deleted));
    assert_eq!(site.github.connect_jit("bm9uc2Vuc2U=", site.now), Err(Refused::BadConfiguration));
}

#[test]
fn names_are_unique_within_their_place() {
    let mut site = Site::new();
    jit(&mut site, "r1");
    let taken = site.post(JIT, json!({"name": "R1", "runner_group_id": 1, "labels": ["x"]}));
    assert_eq!(taken.status, 409);
    assert_eq!(taken.message(), "Already exists - A runner with the name R1 already exists.");
    let elsewhere = site.post(
        "/repos/octocat/tool/actions/runners/generate-jitconfig",
        json!({"name": "r1", "runner_group_id": 1, "labels": ["x"]}),
    );
    assert_eq!(elsewhere.status, 201);
    let found = site.get(&format!("{RUNNERS}?name=r1&per_page=100"));
    assert_eq!((found.ids("runners").len(), &found.body["total_count"]), (1, &json!(1)));
    assert_eq!(site.get(&format!("{RUNNERS}?name=r")).body["total_count"], 0);
}

#[test]
fn malformed_requests_are_422() {
    let mut site = Site::new();
    let label = |length: usize| "x".repeat(length);
    for (body, status) in [
        (json!({"name": "a", "runner_group_id": 1, "labels": []}), 422),
        (json!({"name": "a", "runner_group_id": 1, "labels": vec!["x"; 101]}), 422),
        (json!({"name": "a", "runner_group_id": 1, "labels": [label(257)]}), 422),
        (json!({"name": label(65), "runner_group_id": 1, "labels": ["x"]}), 422),
        (json!({"name": "", "runner_group_id": 1, "labels": ["x"]}), 422),
        (json!({"name": "a", "labels": ["x"]}), 422),
        (json!({"name": "a", "runner_group_id": 5, "labels": ["x"]}), 404),
        (json!({"name": label(64), "runner_group_id": 1, "labels": [label(256)]}), 201),
    ] {
        assert_eq!(site.post(JIT, body.clone()).status, status, "{body}");
    }
    assert_eq!(site.github.runners().count(), 1);
}

#[test]
fn a_busy_runner_cannot_be_deleted() {
    let mut site = Site::new();
    let runner = site.online("r1", &["x"]);
    let job = site.queue(site.app, &["x"]);
    let target = format!("{RUNNERS}/{runner}");
    let refused = site.delete(&target);
    assert_eq!((refused.status, site.status(job)), (422, Status::Queued), "offered is busy already");
    assert!(refused.message().contains("is still running a job"), "{}", refused.message());
    site.pass(Duration::from_secs(5));
    assert_eq!(site.status(job), Status::InProgress);
    assert_eq!(site.delete(&target).status, 422);
    assert_eq!(site.get(&target).body["busy"], true);
    site.pass(HOUR);
    assert_eq!(site.delete(&target).status, 404);
    let idle = site.online("r2", &["x"]);
    assert_eq!(site.delete(&format!("{RUNNERS}/{idle}")).status, 204);
    let later = site.queue(site.app, &["x"]);
    site.pass(Duration::from_secs(5));
    assert_eq!(site.status(later), Status::Queued);
}

#[test]
fn runners_are_listed_in_pages() {
    let mut site = Site::new();
    let ids: Vec<u64> = (0..5).map(|index| jit(&mut site, &format!("r{index}")).0).collect();
    let first = site.get(&format!("{RUNNERS}?per_page=3"));
    assert_eq!((first.ids("runners"), &first.body["total_count"]), (ids[..3].to_vec(), &json!(5)));
    assert_eq!(site.get(&first.link("next").unwrap()).ids("runners"), ids[3..]);
}

#[test]
fn a_runner_that_goes_away_loses_its_job_or_gives_it_back() {
    let mut site = Site::new();
    // Before it began: another runner gets it.
    let first = site.online("r1", &["x"]);
    let job = site.queue(site.app, &["x"]);
    site.github.disconnect(first, Leave::Vanished, site.now);
    let second = site.online("r2", &["x"]);
    site.pass(Duration::from_secs(5));
    assert_eq!(site.github.job(job).unwrap().runner.as_ref().unwrap().id, second);
    // Told to stop: the job fails at once and the runner leaves the list.
    site.github.disconnect(second, Leave::Graceful, site.now);
    assert_eq!(site.github.job(job).unwrap().conclusion, Some(Conclusion::Failure));
    assert!(site.github.runner(second).is_none());
    // Vanished: the job goes on to be listed as in progress, even beyond its own end, then fails.
    let third = site.online("r3", &["y"]);
    let job = site.queue(site.app, &["y"]);
    site.pass(Duration::from_secs(500));
    site.github.disconnect(third, Leave::Vanished, site.now);
    site.pass(Duration::from_secs(599));
    assert_eq!(site.status(job), Status::InProgress);
    assert_eq!(site.delete(&format!("{RUNNERS}/{third}")).status, 422);
    site.pass(Duration::from_secs(1));
    assert_eq!(site.github.job(job).unwrap().conclusion, Some(Conclusion::Failure));
    assert_eq!(site.github.job(job).unwrap().reason, Some("the runner was lost"));
}

#[test]
fn a_runner_that_never_came_online_stays_for_a_day() {
    let mut site = Site::new();
    let (runner, _) = jit(&mut site, "r1");
    site.pass(HOUR * 24 - Duration::from_secs(1));
    assert!(site.github.runner(runner).is_some());
    site.pass(Duration::from_secs(1));
    assert!(site.github.runner(runner).is_none());
}

#[test]
fn a_registration_token_makes_runners_of_its_place() {
    let mut site = Site::new();
    let token = site.post("/repos/octo-org/app/actions/runners/registration-token", Value::Null);
    let removal = site.post("/repos/octo-org/app/actions/runners/remove-token", Value::Null);
    let registration = |token: &Answer, url: &str, ephemeral| Registration {
        token: token.body["token"].as_str().unwrap().to_string(),
        url: url.to_string(),
        name: "r1".to_string(),
        labels: vec!["Mine".to_string()],
        default_labels: true,
        ephemeral,
        replace: true,
    };
    let here = "https://github.com/Octo-Org/app";
    let wrong = registration(&token, "https://github.com/octocat/tool", true);
    assert_eq!(site.github.register(&wrong, site.now), Err(Refused::BadToken));
    assert_eq!(site.github.register(&registration(&removal, here, true), site.now), Err(Refused::BadToken));
    let nowhere = registration(&token, "https://github.com/octo-org/none", true);
    assert_eq!(site.github.register(&nowhere, site.now), Err(Refused::NotFound));
    let runner = site.github.register(&registration(&token, here, false), site.now).unwrap();
    let labels = site.github.runner(runner).unwrap().labels.clone();
    assert_eq!(labels, ["Mine", "self-hosted", "Linux", "X64"]);
    site.github.come_online(runner, site.now).unwrap();
    assert_eq!(site.github.come_online(runner, site.now), Err(Refused::Conflict));
    // It is not ephemeral: it takes one job after another.
    for _ in 0..2 {
        let job = site.queue(site.app, &["mine", "linux"]);
        site.pass(Duration::from_secs(700));
        assert_eq!(site.github.job(job).unwrap().runner.as_ref().unwrap().id, runner);
    }
    let again = site.github.register(&registration(&token, here, true), site.now).unwrap();
    assert!(site.github.runner(runner).is_none(), "replaced by one of the same name");
    assert!(site.github.runner(again).unwrap().ephemeral);
    site.pass(HOUR);
    assert_eq!(site.github.register(&registration(&token, here, true), site.now), Err(Refused::Expired));
}

#[test]
fn an_access_token_registers_what_it_may() {
    let mut site = Site::new();
    site.github.add_token("ghp_stranger", Token::classic("stranger", &["repo"]));
    let registration = |token: &str, url: &str| Registration {
        token: token.to_string(),
        url: url.to_string(),
        name: "r1".to_string(),
        labels: vec![],
        default_labels: false,
        ephemeral: true,
        replace: false,
    };
    let here = "https://github.com/octo-org/app";
    assert_eq!(site.github.register(&registration("ghp_stranger", here), site.now), Err(Refused::BadToken));
    assert!(site.github.register(&registration(TOKEN, here), site.now).is_ok());
    assert_eq!(site.github.register(&registration(TOKEN, here), site.now), Err(Refused::NameTaken));
    let organization =
        site.github.register(&registration(TOKEN, "https://github.com/octo-org"), site.now).unwrap();
    assert_eq!(site.github.runner(organization).unwrap().scope, RegisteredAt::Organization(site.octo_org));
}

#[test]
fn too_many_registrations_are_refused_for_a_while() {
    let mut site = Site::with(Options { points_a_minute: 1_000_000, ..Options::default() });
    (0..1500).for_each(|index| drop(jit(&mut site, &format!("r{index}"))));
    let body = json!({"name": "more", "runner_group_id": 1, "labels": ["x"]});
    let refused = site.post(JIT, body.clone());
    assert_eq!((refused.status, refused.header("retry-after")), (429, "60"));
    site.pass(Duration::from_secs(300));
    assert_eq!(site.post(JIT, body).status, 201);
}
