//! How a parsed job is changed, and what is refused.

use serde_json::json;

use super::{super::allocations::tests::recorded, *};
use crate::{http::Endpoint, model::JobId};

fn options() -> Options {
    Options::new(Endpoint::parse("http://127.0.0.1:4646").unwrap(), "github", "ghr", "runner")
}

fn meta() -> RunnerMeta {
    RunnerMeta {
        labelsstr: "a,b".into(),
        deployment: Some("i".into()),
        purpose: Some(JobId(7).into()),
        ..Default::default()
    }
}

fn prepared(job: Value, registration: Registration) -> Result<Value, Error> {
    prepare(job, &options(), meta(), "ghr-o-r-1", registration).map(|prepared| prepared.job().clone())
}

/// A parsed job with one task with these resources.
fn with_resources(resources: Value) -> Value {
    json!({ "ID": "x", "Name": "x", "Type": "batch", "TaskGroups": [
        { "Name": "g", "Tasks": [{ "Name": "runner", "Driver": "raw_exec", "Resources": resources }] }
    ] })
}

fn refusal(job: Value) -> String {
    match prepared(job, Registration::Jit) {
        Ok(job) => panic!("accepted: {job}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn the_main_task_is_the_leader_or_the_only_one_without_a_lifecycle() {
    let of = |tasks: Value| main_task(&json!({ "TaskGroups": [{ "Tasks": tasks }] }));
    let task = |name: &str, leader: bool, lifecycle: Value| json!({ "Name": name, "Leader": leader, "Lifecycle": lifecycle });
    let hook = || json!({ "Hook": "poststop", "Sidecar": false });
    let (runner, after) = (task("runner", false, Value::Null), task("after", false, hook()));
    assert_eq!(of(json!([after, runner])).as_deref(), Some("runner"));
    assert_eq!(of(json!([runner, task("led", true, Value::Null)])).as_deref(), Some("led"));
    assert_eq!(of(json!([runner, task("other", false, Value::Null)])), None);
    // No other task can be the runner.
    assert_eq!(of(json!([runner])), None);
    assert_eq!(main_task(&json!({})), None);
}

#[test]
fn a_recorded_job_becomes_a_runners() {
    let mut options = options();
    options.region = Some("global".into());
    let mut parsed = recorded("parse-ok");
    parsed["Meta"] = json!({ "mine": "kept", "runner": "replaced" });
    let job = prepare(parsed, &options, meta(), "ghr-o-r-1", Registration::Jit).unwrap().job;
    for (key, value) in [
        ("ID", "ghr-o-r-1"),
        ("Name", "ghr-o-r-1"),
        ("Namespace", "github"),
        ("Region", "global"),
        ("Type", "batch"),
    ] {
        assert_eq!(job[key], json!(value), "{key}");
    }
    assert_eq!(job["Meta"]["mine"], json!("kept"));
    let written: RunnerMeta = serde_json::from_str(job["Meta"]["runner"].as_str().unwrap()).unwrap();
    assert_eq!(written, meta());
}

#[test]
fn a_runner_with_single_use_credentials_runs_once_whatever_the_template_says() {
    let mut job = with_resources(json!({ "CPU": 100 }));
    job["TaskGroups"][0]["Count"] = json!(5);
    job["TaskGroups"][0]["RestartPolicy"] = json!({ "Attempts": 3, "Mode": "delay", "Delay": 1 });
    job["TaskGroups"][0]["ReschedulePolicy"] = json!({ "Attempts": 1, "Unlimited": true });
    job["TaskGroups"][0]["Disconnect"] =
        json!({ "LostAfter": null, "Replace": true, "StopOnClientAfter": 5, "Reconcile": "keep_original" });
    job["TaskGroups"][0]["MaxClientDisconnect"] = json!(5);
    job["TaskGroups"][0]["Tasks"][0]["RestartPolicy"] = json!({ "Attempts": 2 });
    for registration in [Registration::Jit, Registration::Token] {
        let group = &prepared(job.clone(), registration).unwrap()["TaskGroups"][0];
        assert_eq!(group["Count"], json!(1));
        assert_eq!(group["RestartPolicy"], json!({ "Attempts": 0, "Mode": "fail", "Delay": 1 }));
        assert_eq!(group["ReschedulePolicy"], json!({ "Attempts": 0, "Unlimited": false }));
        let disconnect = &group["Disconnect"];
        assert_eq!(disconnect["LostAfter"], json!(86_400_000_000_000_i64));
        assert_eq!(disconnect["Replace"], json!(false));
        assert_eq!(disconnect["Reconcile"], json!("keep_original"));
        assert!(disconnect.get("StopOnClientAfter").is_none() && group.get("MaxClientDisconnect").is_none());
        assert_eq!(group["Tasks"][0]["RestartPolicy"]["Attempts"], json!(0));
    }
    // With a reusable token the template decides, but one job is still one runner.
    let group = &prepared(job, Registration::AccessToken).unwrap()["TaskGroups"][0];
    assert_eq!((&group["Count"], &group["RestartPolicy"]["Attempts"]), (&json!(1), &json!(3)));
}

#[test]
fn amounts_are_bounded_whatever_label_they_came_from() {
    for key in ["CPU", "Cores", "MemoryMB", "MemoryMaxMB", "DiskMB"] {
        for amount in [json!(-1), json!(10_000_001), json!(u64::MAX), json!(1e300), json!("100"), json!([1])]
        {
            let error = refusal(with_resources(json!({ key: amount })));
            assert!(error.contains("task \"runner\"'s") && error.contains(&amount.to_string()), "{error}");
        }
        for amount in [json!(null), json!(0), json!(10_000_000)] {
            assert!(prepared(with_resources(json!({ key: amount })), Registration::Jit).is_ok());
        }
    }
    let mut job = with_resources(json!({}));
    job["TaskGroups"][0]["EphemeralDisk"] = json!({ "SizeMB": i64::MAX });
    assert!(refusal(job).contains("ephemeral_disk"));
}

#[test]
fn amounts_are_bounded_in_access_token_mode_too() {
    let job = with_resources(json!({ "MemoryMB": i64::MAX }));
    assert!(prepared(job, Registration::AccessToken).is_err());
}

#[test]
fn jobs_that_cannot_be_runners_are_refused() {
    for kind in ["service", "system", "sysbatch"] {
        let mut job = with_resources(json!({}));
        job["Type"] = json!(kind);
        assert!(refusal(job).contains("type = \"batch\""));
    }
    for key in ["Periodic", "ParameterizedJob", "Multiregion"] {
        let mut job = with_resources(json!({}));
        job[key] = json!({});
        assert!(refusal(job).contains(key));
    }
    assert!(refusal(json!([])).contains("not a JSON object"));
    assert!(refusal(json!({ "TaskGroups": [] })).contains("no group"));
    assert!(refusal(json!({ "TaskGroups": null })).contains("no group"));
    assert!(refusal(json!({ "TaskGroups": [{}, {}] })).contains("several groups"));
    assert!(refusal(json!({ "TaskGroups": [1] })).contains("not a JSON object"));
    assert!(refusal(json!({ "TaskGroups": [{ "Tasks": [1] }] })).contains("not a JSON object"));
    assert!(refusal(json!({ "Meta": 1, "TaskGroups": [{}] })).contains("Meta"));
}

#[test]
fn the_default_type_is_batch() {
    let job = prepared(json!({ "Type": null, "TaskGroups": [{}] }), Registration::Jit).unwrap();
    assert_eq!(job["Type"], json!("batch"));
}

#[test]
fn names_fit_a_variables_path() {
    let long = format!("ghr-{}", "x".repeat(114));
    for name in ["other-1", "ghr1", "ghr", "ghr-a.b", "ghr-a/plan", "ghr-ä", long.as_str()] {
        let job = with_resources(json!({}));
        assert!(prepare(job, &options(), meta(), name, Registration::Jit).is_err(), "{name}");
    }
    let job = with_resources(json!({}));
    assert!(prepare(job, &options(), meta(), &long[..117], Registration::Jit).is_ok());
}

#[test]
fn json_templates_are_used_directly_and_hcl_is_left_to_nomad() {
    let bare = json!({ "ID": "x", "TaskGroups": [] });
    assert_eq!(job_from_json(&bare.to_string()).unwrap(), Some(bare.clone()));
    assert_eq!(job_from_json(&format!("  \n{}", json!({ "Job": bare }))).unwrap(), Some(bare));
    assert_eq!(job_from_json("job \"x\" {}").unwrap(), None);
    assert_eq!(job_from_json("{\"job\": {\"x\": {}}}").unwrap(), None);
    let error = job_from_json("{\n \"Job\": secret }").err().unwrap().to_string();
    assert!(error.contains("line 2") && !error.contains("secret"), "{error}");
}

#[test]
fn a_job_requests_what_its_tasks_need_at_the_same_time() {
    let of = |tasks: Value| asks(&json!({ "NodePool": "ci", "TaskGroups": [{ "Tasks": tasks }] }));
    let task = |cpu: u64, memory: u64| json!({ "Resources": { "CPU": cpu, "MemoryMB": memory } });
    let with = |mut task: Value, hook: &str, sidecar: bool| {
        task["Lifecycle"] = json!({ "Hook": hook, "Sidecar": sidecar });
        task
    };
    let asked = of(json!([
        task(500, 1000),
        with(task(900, 100), "prestart", false),
        with(task(50, 64), "prestart", true),
        with(task(10, 5000), "poststop", false),
    ]));
    let expected = Asks { cpu: 950, cores: 0, memory: 5064, node_pool: "ci".to_owned() };
    assert_eq!(asked, expected);
    // Nomad's defaults.
    let asked = asks(&json!({ "TaskGroups": [{ "Tasks": [{}, { "Resources": { "Cores": 2 } }] }] }));
    assert_eq!(asked, Asks { cpu: 100, cores: 2, memory: 600, node_pool: "default".to_owned() });
    assert_eq!(asks(&json!({})).cpu, 0);
}

#[test]
fn a_class_overrides_the_placement_of_the_template() {
    let job =
        json!({ "Datacenters": ["a"], "TaskGroups": [{ "Tasks": [{ "Name": "t", "Driver": "docker" }] }] });
    let placed = |placement: Placement| {
        prepare(job.clone(), &options(), meta(), "ghr-o-r-1", Registration::Jit)
            .unwrap()
            .placed(&placement)
            .job
    };
    let top = placed(Placement::default());
    assert_eq!(
        (&top["Datacenters"], &top["NodePool"], &top["Priority"]),
        (&json!(["a"]), &Value::Null, &Value::Null)
    );
    let placement = Placement {
        datacenters: vec!["b".to_owned()],
        node_pool: Some("gpu".to_owned()),
        priority: Some(70),
    };
    let placed = placed(placement);
    assert_eq!(
        (&placed["Datacenters"], &placed["NodePool"], &placed["Priority"]),
        (&json!(["b"]), &json!("gpu"), &json!(70))
    );
}

#[test]
fn a_job_that_can_reach_its_host_is_recognized() {
    let job = |driver: &str, config: Value| {
        json!({ "TaskGroups": [{ "Tasks": [{ "Name": "a", "Driver": "docker", "Config": {} },
            { "Name": "t", "Driver": driver, "Config": config }] }] })
    };
    for (driver, config, expected) in [
        ("docker", json!({ "image": "x", "privileged": false }), None),
        ("docker", json!({ "privileged": true }), Some("is privileged")),
        ("docker", json!({ "privileged": "true" }), Some("is privileged")),
        ("docker", json!({ "volumes": ["/var/run/docker.sock:/x"] }), Some("mounts docker.sock")),
        ("podman", json!({ "mount": [{ "source": "/run/podman/podman.sock" }] }), Some("mounts podman.sock")),
        ("raw_exec", json!({}), Some("uses raw_exec")),
    ] {
        let found = reaches_host(&job(driver, config.clone()));
        assert_eq!(found.is_some(), expected.is_some(), "{config}");
        assert!(found.unwrap_or_default().contains(expected.unwrap_or_default()), "{config}");
    }
    assert_eq!(reaches_host(&Value::Null), None);
}
