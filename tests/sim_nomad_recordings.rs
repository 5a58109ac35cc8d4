//! The simulated Nomad responds as a real agent did: every recording in `tests/recordings/nomad` is replayed
//! against it, in an order that brings it into the same state.
//!
//! Compares the status, the content type, the presence of other headers, the text of errors, the names and
//! types of all JSON fields, and every value that is not an ID, a time or an index.

// Test helpers may panic; clippy's exception for tests covers only the test functions themselves.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::PathBuf,
    time::Duration,
};

use bytes::Bytes;
use githubrunner_sim::nomad::{
    Exit, JobPolicy, Node, Nomad, Options, Policy, StartFailure, Token, TokenKind, Topics,
};
use jiff::Timestamp;
use serde_json::{Value, json};

const MANAGEMENT: &str = "00000000-0000-0000-0000-00000000000a";
const READ_ONLY: &str = "00000000-1111-2222-3333-444444444444";
const LIST_ONLY: &str = "00000000-0000-0000-0000-00000000000b";

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/nomad")
}

fn recording(name: &str) -> Value {
    let text = std::fs::read_to_string(folder().join(format!("{name}.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A cluster, its clock, and the recordings' IDs in it.
struct World {
    nomad: Nomad,
    now: Timestamp,
    names: BTreeMap<String, String>,
    played: BTreeSet<String>,
    wrong: String,
    task_api: bool,
}

impl World {
    fn new(options: Options) -> World {
        let now: Timestamp = "2026-11-23T23:22:40Z".parse().unwrap();
        World {
            nomad: Nomad::new(options, now),
            now,
            names: BTreeMap::new(),
            played: BTreeSet::new(),
            wrong: String::new(),
            task_api: false,
        }
    }

    fn pass(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
        self.nomad.advance(self.now);
    }

    fn ask(&mut self, method: &str, path: &str, token: Option<&str>, body: Bytes) -> hyper::Response<Bytes> {
        let mut request = hyper::Request::builder().method(method).uri(path.replace('"', "%22"));
        if let Some(token) = token {
            request = request.header("X-Nomad-Token", token);
        }
        if self.task_api {
            request = request.header("x-sim-task-api", "1");
        }
        self.nomad.handle(&request.body(body).unwrap(), self.now)
    }

    fn put(&mut self, path: &str, body: &Value) -> Value {
        let response = self.ask("PUT", path, Some(MANAGEMENT), Bytes::from(body.to_string()));
        assert!(response.status().is_success(), "{path}: {:?}", response.body());
        serde_json::from_slice(response.body()).unwrap_or_default()
    }

    /// Replays a recording's request, and compares its response with ours.
    fn play(&mut self, name: &str) -> Value {
        self.played.insert(name.to_owned());
        let recording = recording(name);
        let request = &recording["request"];
        let mut path = request["path"].as_str().unwrap().to_owned();
        let body = match (&request["body"], request["raw"].as_str()) {
            (_, Some(raw)) => raw.to_owned(),
            (Value::Null, None) => String::new(),
            (body, None) => body.to_string(),
        };
        let mut body = body;
        for (recorded, ours) in &self.names {
            path = path.replace(recorded, ours);
            body = body.replace(recorded, ours);
        }
        let token = match request["token"].as_str() {
            None => None,
            Some("management") => Some(MANAGEMENT),
            Some("list-jobs") => Some(LIST_ONLY),
            Some("list-jobs, read-job" | "list-jobs, read-job in github only") => Some(READ_ONLY),
            Some("workload identity") => Some("workload"),
            Some("not a UUID") => Some("not a UUID"),
            Some("unknown") => Some("99999999-9999-9999-9999-999999999999"),
            Some("nonsense") => Some("nonsense"),
            Some(other) => panic!("{name}: what token is {other:?}?"),
        };
        let method = request["method"].as_str().unwrap();
        let response = self.ask(method, &path, token, Bytes::from(body));
        let wanted = &recording["response"];
        let mut wrong = Vec::new();
        if wanted["status"] != response.status().as_u16() {
            wrong.push(format!("status {} instead of {}", response.status(), wanted["status"]));
        }
        for header in [
            "content-type",
            "x-nomad-index",
            "x-nomad-knownleader",
            "x-nomad-lastcontact",
            "x-nomad-nexttoken",
        ] {
            let (had, has) = (wanted["headers"].get(header), response.headers().get(header));
            match (had.and_then(Value::as_str), has.and_then(|value| value.to_str().ok())) {
                // An index differs, and so does a page's token that is an index and an ID.
                (Some(_), Some(_)) if header == "x-nomad-index" || header == "x-nomad-nexttoken" => {}
                (a, b) if a != b => wrong.push(format!("{header}: {b:?} instead of {a:?}")),
                _ => {}
            }
        }
        assert!(response.headers().contains_key("date"), "{name}: every answer has a date");
        let answer: Value = serde_json::from_slice(response.body()).unwrap_or_default();
        if let Some(text) = wanted["text"].as_str() {
            let body = String::from_utf8_lossy(response.body());
            if body != text {
                wrong.push(format!("text {body:?}\n      instead of {text:?}"));
            }
        } else {
            compare("", &wanted["json"], &answer, &mut wrong);
        }
        if !wrong.is_empty() {
            let _ = writeln!(self.wrong, "{name}:\n    {}", wrong.join("\n    "));
        }
        answer
    }

    /// From now on, the simulated allocation of a job stands for a recorded ID.
    fn name_allocation(&mut self, recorded: &str, job: &str) -> String {
        let id = self.nomad.allocations().find(|a| a.job_id == job).map(|a| a.id.clone());
        let id = id.unwrap_or_else(|| panic!("{job} has no allocation"));
        self.names.insert(recorded.to_owned(), id.clone());
        id
    }

    fn finish(self) -> BTreeSet<String> {
        assert!(self.wrong.is_empty(), "answers that differ from the recordings:\n{}", self.wrong);
        self.played
    }
}

/// A text without an index at its end.
fn without_index(text: &str) -> &str {
    text.trim_end_matches(|c: char| c.is_ascii_digit())
}

/// Names of fields whose values differ from run to run.
fn varies(path: &str) -> bool {
    let name = path.rsplit('.').next().unwrap_or_default();
    name.ends_with("Index")
        || name.ends_with("Time")
        || matches!(name, "Hash" | "NormScore" | "binpack" | "Version" | "JobVersion")
}

fn is_id(text: &str) -> bool {
    text.len() == 36 && text.split('-').map(str::len).eq([8, 4, 4, 4, 12])
}

fn is_time(text: &str) -> bool {
    text.parse::<Timestamp>().is_ok()
}

fn compare(path: &str, wanted: &Value, found: &Value, wrong: &mut Vec<String>) {
    match (wanted, found) {
        // The key is the hash of a node's class.
        (Value::Object(a), Value::Object(b)) if path.ends_with(".ClassEligibility") => {
            if !a.values().eq(b.values()) {
                wrong.push(format!("{path} is {found} instead of {wanted}"));
            }
        }
        (Value::Object(a), Value::Object(b)) => {
            for (key, value) in a {
                match b.get(key) {
                    Some(other) => compare(&format!("{path}.{key}"), value, other, wrong),
                    None => wrong.push(format!("{path}.{key} is missing")),
                }
            }
            for key in b.keys().filter(|key| !a.contains_key(*key)) {
                wrong.push(format!("{path}.{key} should not be there"));
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            if a.len() != b.len() {
                wrong.push(format!("{path} has {} items instead of {}", b.len(), a.len()));
            }
            for (at, (a, b)) in a.iter().zip(b).enumerate() {
                compare(&format!("{path}[{at}]"), a, b, wrong);
            }
        }
        (Value::String(a), Value::String(b)) => {
            let alike = a == b || (is_id(a) && is_id(b)) || (is_time(a) && is_time(b)) || varies(path);
            let described = a.contains("evaluation \"") && b.contains("evaluation \"");
            if !alike && !described {
                wrong.push(format!("{path} is {b:?} instead of {a:?}"));
            }
        }
        (Value::Number(_), Value::Number(_)) if varies(path) => {}
        (a, b) if a == b => {}
        (a, b) => wrong.push(format!("{path} is {b} instead of {a}")),
    }
}

/// The job of a recorded registration with another ID.
fn job(id: &str) -> Value {
    let mut job = recording("register-create")["request"]["body"]["Job"].clone();
    job["ID"] = json!(id);
    job["Name"] = json!(id);
    job
}

fn tasks(job: &mut Value) -> &mut Value {
    &mut job["TaskGroups"][0]["Tasks"][0]
}

#[test]
fn an_agent_without_acls() {
    let mut world = World::new(Options::default());
    requests_without_jobs(&mut world);
    jobs_of_the_recordings(&mut world);
    // The eighth needs its 2 s, and 5 s more to be killed.
    world.nomad.set_kill_delay(Duration::from_secs(60));
    world.pass(7_500);
    world.nomad.set_kill_delay(Duration::from_secs(1));
    lists_and_refusals(&mut world);
    stops_and_purges(&mut world);
    variables(&mut world);
    world.play("namespace-create");
    // A task that runs out of memory.
    world.put("/v1/jobs", &json!({"Job": job("ghr-o-r-000000oom1")}));
    world.pass(500);
    let allocation = world.nomad.allocations().find(|a| a.job_id == "ghr-o-r-000000oom1").unwrap().id.clone();
    world.nomad.exit_task(&allocation, Exit::oom(), world.now);
    world.pass(500);
    world.play("allocations-oom");
    world.finish();
}

fn requests_without_jobs(world: &mut World) {
    for name in [
        "namespaces",
        "namespace-missing",
        "status-leader",
        "regions",
        "agent-health",
        "region-missing",
        "not-found",
        "parse-ok",
        "parse-ok-canonicalized",
        "parse-escapes",
        "parse-hcl-json",
        "parse-get",
        "parse-bad-json",
        "parse-empty-body",
        "parse-empty-hcl",
        "parse-file-function",
        "parse-missing-variable",
        "parse-shell-default",
        "parse-syntax-error",
        "parse-two-jobs",
        "parse-unknown-attribute",
        "plan-new",
        "validate-ok",
        "validate-invalid",
        "register-bad-json",
        "register-no-job",
        "register-missing-namespace",
        "register-missing-namespace-query",
        "register-bad-node-pool",
        "register-invalid",
    ] {
        world.play(name);
    }
}

/// Eight jobs of ours and a foreign one, as in the recordings' README.
fn jobs_of_the_recordings(world: &mut World) {
    let failure = StartFailure {
        kind: "Driver Failure".into(),
        message: "failed to launch command with executor: rpc error: code = Unknown desc = binary \"/nonexistent\" could not be found".into(),
    };
    world.nomad.set_start_failure("ghr-o-r-0000000005", Some(failure));
    world.play("register-create");
    for id in ["ghr-o-r-0000000002", "ghr-o-r-0000000003", "ghr-o-r-0000000004"] {
        world.pass(5);
        world.put("/v1/jobs", &json!({"Job": job(id)}));
    }
    world.pass(5);
    world.play("register-bad-command");
    world.play("register-unplaceable");
    world.pass(5);
    let mut stubborn = job("ghr-o-r-0000000007");
    tasks(&mut stubborn)["KillTimeout"] = json!(3_000_000_000i64);
    world.put("/v1/jobs", &json!({"Job": stubborn}));
    let mut endless = job("ghr-o-r-0000000008");
    endless["TaskGroups"][0]["MaxRunDuration"] = json!(2_000_000_000i64);
    world.put("/v1/jobs", &json!({"Job": endless}));
    let mut foreign = job("foreign-1");
    foreign["Meta"] = Value::Null;
    world.put("/v1/jobs", &json!({"Job": foreign}));
    world.pass(500);
    let first = world.name_allocation("d3d19322-da12-47f7-ab28-4352926cd909", "ghr-o-r-0000000001");
    world.name_allocation("ef356143-b4a3-5499-34ac-ca6b88f189fa", "ghr-o-r-0000000005");
    world.nomad.write_log(&first, "runner", "hello\n");
    for (id, exit) in [
        ("ghr-o-r-0000000002", Exit::code(0)),
        ("ghr-o-r-0000000003", Exit::code(3)),
        ("ghr-o-r-0000000004", Exit::signal(9)),
    ] {
        let allocation = world.nomad.allocations().find(|a| a.job_id == id).unwrap().id.clone();
        world.nomad.exit_task(&allocation, exit, world.now);
    }
    world.play("evaluations-blocked-filter");
    let blocked = recording("job-evaluations-blocked");
    let mut evaluations = world.play_unordered("job-evaluations-blocked", "Status");
    assert_eq!(
        evaluations.as_array_mut().map(|list| list.len()),
        blocked["response"]["json"].as_array().map(Vec::len)
    );
}

fn lists_and_refusals(world: &mut World) {
    for name in [
        "job-get",
        "job-get-missing",
        "jobs-list-prefix-meta",
        "jobs-list-filter-meta",
        "jobs-list-no-meta",
        "jobs-list-all-namespaces",
        "jobs-list-missing-namespace",
        "jobs-list-bad-filter",
        "jobs-list-page-1",
        "jobs-list-page-2",
        "allocations-by-prefix",
        "allocations-no-task-states",
        "logs-tail",
        "logs-empty",
        "logs-never-ran",
        "logs-no-task",
        "logs-unknown-task",
        "logs-unknown-allocation",
        "register-conflict",
        "delete-missing",
        "delete-missing-purge",
        "delete-bad-bool",
        "delete-pending",
        "delete-running",
    ] {
        world.play(name);
    }
}

fn stops_and_purges(world: &mut World) {
    world.pass(40);
    world.play("allocations-just-stopped");
    world.play("jobs-list-just-stopped");
    world.pass(3_000);
    world.play("allocations-killed");
    world.play("allocations-max-run-duration");
    world.play("delete-dead-purge");
    world.play("delete-dead-purge-again");
    world.play("allocations-after-purge");
    world.play("delete-finished");
    world.pass(300);
    world.play("allocations-finished-then-stopped");
    world.play("register-dead-conflict");
}

fn variables(world: &mut World) {
    for name in [
        "variable-create",
        "variable-create-conflict",
        "variable-get",
        "variable-get-missing",
        "variables-list",
        "variable-bad-path",
        "variable-empty",
        "variable-delete",
        "variable-delete-missing",
        "lock-bad-ttl",
        "lock-renew-missing",
    ] {
        world.play(name);
    }
    let lock = world.play("lock-acquire");
    let id = lock["Lock"]["ID"].as_str().unwrap().to_owned();
    world.names.insert("48316f34-78f8-3d24-82d7-deec104835aa".into(), id);
    for name in [
        "lock-read",
        "lock-held",
        "lock-write-without",
        "lock-renew",
        "lock-renew-wrong",
        "lock-release",
        "lock-renew-lost",
    ] {
        world.play(name);
    }
}

impl World {
    /// A list in the order of random IDs: both are sorted by a field before they are compared.
    fn play_unordered(&mut self, name: &str, field: &str) -> Value {
        self.played.insert(name.to_owned());
        let recording = recording(name);
        let response = self.ask("GET", recording["request"]["path"].as_str().unwrap(), None, Bytes::new());
        let sorted = |value: &Value| {
            let mut list = value.as_array().cloned().unwrap_or_default();
            list.sort_by_key(|item| item[field].to_string());
            json!(list)
        };
        let answer = sorted(&serde_json::from_slice(response.body()).unwrap());
        let mut wrong = Vec::new();
        compare("", &sorted(&recording["response"]["json"]), &answer, &mut wrong);
        if !wrong.is_empty() {
            let _ = writeln!(self.wrong, "{name}:\n    {}", wrong.join("\n    "));
        }
        answer
    }
}

fn tokens() -> Vec<Token> {
    let client = |secret: &str, name: &str, capabilities: &[&str]| Token {
        secret: secret.into(),
        name: name.into(),
        kind: TokenKind::Client(vec![Policy::new(name, "github", capabilities, &[])]),
    };
    vec![
        Token { secret: MANAGEMENT.into(), name: "Bootstrap Token".into(), kind: TokenKind::Management },
        client(LIST_ONLY, "lo", &["list-jobs"]),
        client(READ_ONLY, "ro", &["list-jobs", "read-job"]),
        Token {
            secret: "workload".into(),
            name: String::new(),
            kind: TokenKind::Workload { namespace: "github".into(), job_id: "githubrunner".into() },
        },
    ]
}

fn policies() -> Vec<JobPolicy> {
    let all: &[&str] = &["list", "read", "write", "destroy"];
    let policy = Policy::new(
        "githubrunner",
        "github",
        &["list-jobs", "read-job", "parse-job", "submit-job", "read-logs"],
        &[("githubrunner/*", all), ("nomad/jobs/ghr-*", all)],
    );
    vec![JobPolicy { namespace: "github".into(), job_id: "githubrunner".into(), policy }]
}

fn with_acls() -> World {
    World::new(Options {
        acl: true,
        tokens: tokens(),
        job_policies: policies(),
        namespaces: vec!["github".into()],
        ..Options::default()
    })
}

#[test]
fn an_agent_with_acls() {
    let mut world = with_acls();
    for name in [
        "acl-anonymous-allocations",
        "acl-anonymous-jobs",
        "acl-anonymous-parse",
        "acl-bad-token-jobs",
        "acl-bad-token-parse",
        "acl-event-stream-anonymous",
        "acl-event-stream-bad-token",
        "acl-event-stream-denied",
        "acl-listonly-allocations",
        "acl-listonly-logs",
        "acl-malformed-token-jobs",
        "acl-missing-namespace-jobs",
        "acl-readonly-delete",
        "acl-readonly-jobs",
        "acl-readonly-other-namespace",
        "acl-readonly-parse",
        "acl-readonly-register",
        "acl-readonly-variable-get",
        "acl-readonly-variable-put",
        "acl-readonly-variables-list",
        "acl-self",
    ] {
        world.play(name);
    }
    // A task that waits for another job's variable waits forever.
    let mut waiting = job("ghr-o-r-00000000jw");
    tasks(&mut waiting)["Templates"] = json!([{
        "EmbeddedTmpl": "{{ with nomadVar \"nomad/jobs/ghr-o-r-00000000ji\" }}X={{ .x }}{{ end }}",
        "DestPath": "secrets/x", "Envvars": true,
    }]);
    world.put("/v1/jobs?namespace=github", &json!({"Job": waiting}));
    world.put("/v1/var/nomad/jobs/ghr-o-r-00000000ji?namespace=github", &json!({"Items": {"x": "y"}}));
    world.pass(4_000);
    world.play("allocations-waiting-for-variable");
    world.finish();
}

#[test]
fn the_task_api() {
    let mut world = with_acls();
    let mut own = job("githubrunner");
    own["Type"] = json!("service");
    own["Meta"] = Value::Null;
    world.put("/v1/jobs?namespace=github", &json!({"Job": own}));
    world.pass(1_000);
    world.task_api = true;
    for name in [
        "task-api-no-token",
        "task-api-bad-token",
        "task-api-parse-no-namespace",
        "task-api-parse",
        "task-api-jobs",
        "task-api-namespaces",
        "task-api-namespace",
        "task-api-token-self",
        "task-api-register",
    ] {
        world.play(name);
    }
    world.pass(31);
    world.name_allocation("f3d17abf-a077-f51f-b495-2692082631cf", "ghr-o-r-0000000001");
    for name in [
        "task-api-allocations",
        "task-api-variable-create",
        "task-api-vars-list",
        "task-api-foreign-variable",
        "task-api-lock",
        "task-api-lock-read",
        "task-api-logs",
        "task-api-delete-purge",
        "task-api-variable-delete",
    ] {
        world.play(name);
    }
    world.finish();
}

#[test]
fn the_event_stream_of_one_jobs_life() {
    let mut world = World::new(Options::default());
    world.played.insert("event-stream".into());
    let recording = recording("event-stream");
    let mut job = job("ghr-o-r-00000000ev");
    tasks(&mut job)["Config"]["args"] = json!(["-c", "echo hi; sleep 1"]);
    world.put("/v1/jobs", &json!({"Job": job}));
    world.pass(400);
    let id = world.nomad.allocations().next().unwrap().id.clone();
    world.pass(1_000);
    world.nomad.exit_task(&id, Exit::code(0), world.now);
    world.pass(400);
    world.ask("DELETE", "/v1/job/ghr-o-r-00000000ev?purge=true", None, Bytes::new());
    world.pass(100);
    let topics = Topics::from_query("topic=Job&topic=Allocation&topic=Evaluation&namespace=default");
    // The distribution of events over lines depends on timing; the events themselves and their order do not.
    let flat = |frames: &[Value]| -> Vec<Value> {
        frames.iter().filter_map(|frame| frame["Events"].as_array()).flatten().cloned().collect()
    };
    let lines: Vec<Value> =
        world.nomad.events_for(&topics, 0).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    for frame in &lines {
        assert!(frame["Index"].is_u64());
    }
    let frames = recording["response"]["frames"].as_array().unwrap();
    let mut wrong = Vec::new();
    compare("", &json!(flat(frames)), &json!(flat(&lines)), &mut wrong);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let other = Topics::from_query("topic=Job&namespace=other");
    assert!(world.nomad.events_for(&other, 0).is_empty());
}

/// Every recording is replayed by one of the tests above.
#[test]
fn no_recording_is_left_out() {
    let source = include_str!("sim_nomad_recordings.rs");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder()).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let name = file.trim_end_matches(".json");
        assert!(source.contains(&format!("\"{name}\"")), "{name} is not played");
        seen += 1;
    }
    assert!(seen > 100, "only {seen} recordings");
}

/// A real agent's responses to a sequence of requests: validation, variables and locks, lists and filters,
/// plans, and a job that uses every block.
#[test]
fn a_long_conversation_goes_as_with_a_real_agent() {
    let text = std::fs::read_to_string(folder().with_file_name("nomad-sequence.jsonl")).unwrap();
    let mut world = World::new(Options::default());
    let mut wrong = String::new();
    for line in text.lines() {
        let step: Value = serde_json::from_str(line).unwrap();
        let mut request = match (&step["body"], step["raw"].as_str()) {
            (_, Some(raw)) => raw.to_owned(),
            (Value::Null, None) => String::new(),
            (body, None) => body.to_string(),
        };
        for (recorded, ours) in &world.names {
            request = request.replace(recorded, ours);
        }
        world.pass(100);
        let (method, path) = (step["method"].as_str().unwrap(), step["path"].as_str().unwrap());
        let response = world.ask(method, path, None, Bytes::from(request));
        let body = String::from_utf8_lossy(response.body()).into_owned();
        let mut differences = Vec::new();
        if step["status"] != response.status().as_u16() {
            differences.push(format!("status {} instead of {}", response.status(), step["status"]));
        }
        let kind = response.headers().get("content-type").map(|kind| kind.to_str().unwrap());
        if step["type"].as_str() != kind {
            differences.push(format!("type {kind:?} instead of {}", step["type"]));
        }
        match step["text"].as_str() {
            Some(text) if text == body || without_index(text) == without_index(&body) => {}
            Some(text) => differences.push(format!("{body:?}\n      instead of {text:?}")),
            None => {
                let answer: Value = serde_json::from_str(&body).unwrap_or_default();
                compare("", &step["json"], &answer, &mut differences);
                if let (Some(recorded), Some(ours)) =
                    (step["json"]["Lock"]["ID"].as_str(), answer["Lock"]["ID"].as_str())
                {
                    world.names.insert(recorded.to_owned(), ours.to_owned());
                }
            }
        }
        if !differences.is_empty() {
            let _ = writeln!(
                wrong,
                "{method} {path} {}\n    {}",
                step["body"].to_string().chars().take(200).collect::<String>(),
                differences.join("\n    ")
            );
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// A real agent's parse results for texts as people and templates write them. If the message differs, it is
/// still an error.
#[test]
fn texts_parse_as_on_a_real_agent() {
    let text = std::fs::read_to_string(folder().with_file_name("nomad-parse.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    let mut world = World::new(Options { nodes: vec![Node::named("n")], ..Options::default() });
    let mut wrong = String::new();
    for case in &cases {
        let body = json!({"JobHCL": case["hcl"]}).to_string();
        let response = world.ask("POST", "/v1/jobs/parse?namespace=default", None, Bytes::from(body));
        let answer = String::from_utf8_lossy(response.body()).into_owned();
        let same = match case["error"].as_str() {
            Some(error) if case["words"] == "differ" => response.status() == 400 && answer != error,
            Some(error) => response.status() == 400 && answer == error,
            None => {
                response.status() == 200 && set(&serde_json::from_str(&answer).unwrap()) == set(&case["job"])
            }
        };
        if !same {
            let _ = writeln!(wrong, "{}\n  {}\n  {answer}\n", case["hcl"], case["error"]);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// A job without unset fields.
fn set(value: &Value) -> Value {
    let unset = |v: &Value| {
        matches!(v, Value::Null | Value::Bool(false))
            || *v == json!("")
            || *v == json!(0)
            || *v == json!([])
            || *v == json!({})
    };
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(_, v)| !unset(v))
            .map(|(k, v)| (k.clone(), set(v)))
            .filter(|(_, v)| *v != json!({}))
            .collect(),
        Value::Array(items) => items.iter().map(set).collect(),
        other => other.clone(),
    }
}
