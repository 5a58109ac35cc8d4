//! The life of jobs, variables and nodes in the simulated Nomad, through its HTTP API and its hooks.

// Test helpers may panic; clippy's exception for tests covers only the test functions themselves.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use githubrunner_sim::nomad::{Exit, Node, Nomad, Options, Processes, TaskEvent};
use jiff::Timestamp;
use serde_json::{Value, json};

struct World {
    nomad: Nomad,
    now: Timestamp,
}

impl World {
    fn new(options: Options) -> World {
        let now: Timestamp = "2026-11-24T06:00:00Z".parse().unwrap();
        World { nomad: Nomad::new(options, now), now }
    }

    fn with_nodes(nodes: Vec<Node>) -> World {
        World::new(Options { nodes, ..Options::default() })
    }

    fn pass(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
        self.nomad.advance(self.now);
    }

    fn ask(&mut self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let body = Bytes::from(body.map(|body| body.to_string()).unwrap_or_default());
        let request = hyper::Request::builder().method(method).uri(path).body(body).unwrap();
        let response = self.nomad.handle(&request, self.now);
        let text = String::from_utf8(response.body().to_vec()).unwrap();
        (response.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Parses a job and registers it as clients do: only if it does not exist.
    fn register(&mut self, hcl: &str) -> (u16, Value) {
        let (status, job) = self.ask("POST", "/v1/jobs/parse", Some(json!({"JobHCL": hcl})));
        assert_eq!(status, 200, "{job}");
        self.ask("PUT", "/v1/jobs", Some(json!({"Job": job, "EnforceIndex": true, "JobModifyIndex": 0})))
    }

    fn status(&self, job: &str) -> &'static str {
        self.nomad.job("default", job).map_or("gone", |job| job.status)
    }

    /// Client status, desired status and the types of the first task's events, for each allocation in order.
    fn allocations(&mut self, job: &str) -> Vec<(String, String, Vec<String>)> {
        let (_, list) = self.ask("GET", &format!("/v1/job/{job}/allocations"), None);
        let show = |a: &Value| {
            let tasks = a["TaskStates"].as_object().into_iter().flatten();
            let events = tasks.flat_map(|(_, task)| task["Events"].as_array().cloned().unwrap_or_default());
            let text = |key: &str| a[key].as_str().unwrap().to_owned();
            let types = events.map(|event| event["Type"].as_str().unwrap().to_owned()).collect();
            (text("ClientStatus"), text("DesiredStatus"), types)
        };
        list.as_array().unwrap().iter().map(show).collect()
    }

    fn allocation(&mut self, job: &str) -> (String, String, Vec<String>) {
        let mut all = self.allocations(job);
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    /// The ID of the job's newest allocation.
    fn id(&self, job: &str) -> String {
        let mine = self.nomad.allocations().filter(|a| a.job_id == job);
        mine.max_by_key(|a| a.create_index).unwrap().id.clone()
    }

    fn exit(&mut self, job: &str, exit: Exit) {
        let id = self.id(job);
        self.nomad.exit_task(&id, exit, self.now);
    }

    fn happened(&mut self) -> Vec<String> {
        let show = |event: &TaskEvent| match event {
            TaskEvent::Started { job_id, .. } => format!("{job_id} started"),
            TaskEvent::KillRequested { job_id, signal, .. } => format!("{job_id} told {signal}"),
            TaskEvent::Ended { job_id, exit, .. } => format!("{job_id} ended {}", exit.code),
        };
        self.nomad.take_events().iter().map(show).collect()
    }
}

fn runner(id: &str, memory: u64, more: &str) -> String {
    format!(
        r#"job "{id}" {{
  type = "batch"
  group "g" {{
    restart {{
      attempts = 0
      mode     = "fail"
    }}
    reschedule {{
      attempts  = 0
      unlimited = false
    }}
    {more}
    task "runner" {{
      driver = "raw_exec"
      config {{
        command = "/bin/run"
      }}
      env {{
        FIXED = "1"
        WHERE = "${{NOMAD_JOB_ID}}"
      }}
      template {{
        data        = "{{{{ with nomadVar \"nomad/jobs/{id}\" }}}}SECRET={{{{ .secret }}}}\n{{{{ end }}}}"
        destination = "secrets/env"
        env         = true
        change_mode = "noop"
        once        = true
      }}
      resources {{
        cpu    = 100
        memory = {memory}
      }}
    }}
  }}
}}
"#
    )
}

fn secret(world: &mut World, job: &str) {
    let path = format!("/v1/var/nomad/jobs/{job}?cas=0");
    assert_eq!(world.ask("PUT", &path, Some(json!({"Items": {"secret": "s3cr3t"}}))).0, 200);
}

/// Registered, placed, its variable written, running.
fn running(world: &mut World, id: &str, memory: u64, more: &str) {
    assert_eq!(world.register(&runner(id, memory, more)).0, 200);
    world.pass(50);
    secret(world, id);
    world.pass(600);
    assert_eq!(world.allocation(id).0, "running");
}

#[test]
fn a_runner_waits_for_its_variable_runs_and_ends() {
    let mut world = World::new(Options::default());
    assert_eq!(world.register(&runner("r-1", 100, "")).0, 200);
    assert_eq!(world.status("r-1"), "pending");
    world.pass(31);
    assert_eq!(world.status("r-1"), "running");
    assert_eq!(world.allocation("r-1"), ("pending".into(), "run".into(), vec![]));
    world.pass(4_000);
    let waiting = ["Received", "Task Setup", "Template"].map(String::from).to_vec();
    assert_eq!(world.allocation("r-1"), ("pending".into(), "run".into(), waiting));
    assert_eq!(world.happened(), [""; 0]);

    secret(&mut world, "r-1");
    world.pass(199);
    assert!(world.nomad.live_tasks().is_empty(), "the template has not been released yet");
    world.pass(102);
    let events = world.nomad.take_events();
    let [TaskEvent::Started { env, task, .. }] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(task, "runner");
    let wanted = BTreeMap::from([
        ("FIXED", "1"),
        ("WHERE", "r-1"),
        ("SECRET", "s3cr3t"),
        ("NOMAD_TASK_NAME", "runner"),
    ]);
    for (key, value) in wanted {
        assert_eq!(env.get(key).map(String::as_str), Some(value), "{key}");
    }
    // The servers learn of it slightly later than the process.
    assert_eq!(world.allocation("r-1").0, "pending");
    world.pass(200);
    assert_eq!(world.allocation("r-1").0, "running");

    world.pass(60_000);
    world.exit("r-1", Exit::code(0));
    assert_eq!(world.status("r-1"), "running");
    world.pass(200);
    assert_eq!(world.status("r-1"), "dead");
    let (client, desired, events) = world.allocation("r-1");
    assert_eq!((client.as_str(), desired.as_str()), ("complete", "run"));
    assert_eq!(events.last().unwrap(), "Terminated");
    // Purging a job leaves its variable.
    assert_eq!(world.ask("DELETE", "/v1/job/r-1?purge=true", None).0, 200);
    assert_eq!(world.status("r-1"), "gone");
    assert_eq!(world.ask("GET", "/v1/var/nomad/jobs/r-1", None).0, 200);
    assert_eq!(world.ask("DELETE", "/v1/var/nomad/jobs/r-1", None).0, 204);
    assert_eq!(world.register(&runner("r-1", 100, "")).0, 200, "its ID is free again");
}

#[test]
fn another_jobs_variable_releases_no_task() {
    let mut world = World::new(Options::default());
    let text = runner("r-1", 100, "").replace("nomad/jobs/r-1", "nomad/jobs/r-2");
    assert_eq!(world.register(&text).0, 200);
    world.pass(100);
    secret(&mut world, "r-2");
    world.pass(60_000);
    assert_eq!(world.allocation("r-1").0, "pending");
    assert!(world.nomad.live_tasks().is_empty());
}

#[test]
fn kinds_of_failures_are_distinguished() {
    let mut world = World::new(Options::default());
    for (id, exit) in [("r-1", Exit::code(3)), ("r-2", Exit::signal(9)), ("r-3", Exit::oom())] {
        running(&mut world, id, 100, "");
        world.exit(id, exit);
        world.pass(200);
        let (client, desired, events) = world.allocation(id);
        assert_eq!((client.as_str(), desired.as_str()), ("failed", "run"));
        assert_eq!(events[events.len() - 2..], ["Terminated", "Not Restarting"]);
        assert_eq!(world.status(id), "dead");
        let (_, list) = world.ask("GET", &format!("/v1/job/{id}/allocations"), None);
        let event = &list[0]["TaskStates"]["runner"]["Events"][3]["Details"];
        assert_eq!(event["oom_killed"], exit.oom.to_string());
        assert_eq!(event["exit_code"], exit.code.to_string());
    }
}

#[test]
fn a_stopped_runner_is_dead_before_its_process_is_gone() {
    let mut world = World::new(Options::default());
    running(&mut world, "r-1", 100, "");
    world.happened();
    assert_eq!(world.ask("DELETE", "/v1/job/r-1", None).0, 200);
    world.pass(40);
    assert_eq!(world.status("r-1"), "dead");
    assert_eq!(world.allocation("r-1").0, "running");
    assert_eq!(world.allocation("r-1").1, "stop");
    assert_eq!(world.nomad.live_tasks().len(), 1);
    assert_eq!(world.happened(), ["r-1 told SIGINT"]);
    world.pass(1_300);
    assert_eq!(world.happened(), ["r-1 ended 130"]);
    let (client, _, events) = world.allocation("r-1");
    assert_eq!(client, "complete");
    assert_eq!(events[events.len() - 3..], ["Killing", "Terminated", "Killed"]);

    // A runner that ends by itself when it is told to.
    running(&mut world, "r-2", 100, "");
    world.happened();
    world.ask("DELETE", "/v1/job/r-2", None);
    world.pass(100);
    world.exit("r-2", Exit::code(0));
    world.pass(2_000);
    assert_eq!(world.happened(), ["r-2 told SIGINT", "r-2 ended 0"]);
}

#[test]
fn a_stopped_runner_that_never_ran_is_complete_at_once() {
    let mut world = World::new(Options::default());
    world.register(&runner("r-1", 100, ""));
    world.pass(500);
    world.ask("DELETE", "/v1/job/r-1", None);
    world.pass(300);
    let (client, desired, events) = world.allocation("r-1");
    assert_eq!((client.as_str(), desired.as_str()), ("complete", "stop"));
    assert_eq!(events, ["Received", "Task Setup", "Killing"]);
    secret(&mut world, "r-1");
    world.pass(5_000);
    assert_eq!(world.happened(), [""; 0], "it does not start any more");
}

#[test]
fn a_purged_job_is_gone_while_its_process_still_runs() {
    let mut world = World::new(Options::default());
    running(&mut world, "r-1", 100, "");
    world.ask("DELETE", "/v1/job/r-1?purge=true", None);
    assert_eq!(world.status("r-1"), "gone");
    assert!(world.allocations("r-1").is_empty());
    assert_eq!(world.nomad.live_tasks().len(), 1);
    world.pass(1_100);
    assert!(world.nomad.live_tasks().is_empty());
    assert!(world.happened().ends_with(&["r-1 told SIGINT".into(), "r-1 ended 130".into()]));
}

#[test]
fn a_runner_without_room_waits_blocked_and_is_placed_when_there_is_some() {
    let small = Node { memory_mb: 250, ..Node::named("small") };
    let mut world = World::with_nodes(vec![small]);
    running(&mut world, "r-1", 200, "");
    assert_eq!(world.register(&runner("r-2", 100, "")).0, 200);
    world.pass(100);
    assert_eq!(world.status("r-2"), "pending");
    let (_, blocked) = world.ask("GET", "/v1/evaluations?status=blocked", None);
    assert_eq!(blocked[0]["JobID"], "r-2");
    assert_eq!(blocked[0]["FailedTGAllocs"]["g"]["DimensionExhausted"], json!({"memory": 1}));
    let (_, jobs) = world.ask("GET", "/v1/jobs?prefix=r-2", None);
    assert_eq!(jobs[0]["JobSummary"]["Summary"]["g"]["Queued"], 1);
    world.exit("r-1", Exit::code(0));
    world.pass(1_100);
    assert_eq!(world.status("r-2"), "pending");
    world.pass(200);
    assert_eq!(world.status("r-2"), "running");
    assert_eq!(world.ask("GET", "/v1/evaluations?status=blocked", None).1, json!([]));
    assert_eq!(world.allocation("r-2").0, "pending");

    // A runner that never fits says why, and stopping it cancels what is waiting.
    let text = runner("r-3", 100, "").replace("raw_exec", "nosuch");
    world.register(&text);
    let elsewhere = runner("r-4", 100, "").replacen("group", "datacenters = [\"dc9\"]\n  group", 1);
    world.register(&elsewhere);
    world.pass(100);
    let (_, blocked) = world.ask("GET", "/v1/evaluations?status=blocked", None);
    assert_eq!(blocked[0]["FailedTGAllocs"]["g"]["ConstraintFiltered"], json!({"missing drivers": 1}));
    assert_eq!(blocked[1]["FailedTGAllocs"]["g"]["NodesAvailable"], json!({}));
    world.ask("DELETE", "/v1/job/r-3", None);
    world.pass(100);
    assert_eq!(world.status("r-3"), "dead");
    let (_, evaluations) = world.ask("GET", "/v1/evaluations?job=r-3", None);
    let statuses: Vec<_> =
        evaluations.as_array().unwrap().iter().map(|e| e["Status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["complete", "canceled", "complete"]);
    world.nomad.add_node(Node { datacenter: "dc9".into(), ..Node::named("far") }, world.now);
    world.pass(1_100);
    assert_eq!(world.status("r-4"), "running");
}

#[test]
fn a_lock_expires_after_twice_its_ttl_and_is_free_after_its_delay() {
    let mut world = World::new(Options::default());
    let acquire = |world: &mut World, holder: &str| {
        let body = json!({"Items": {"holder": holder}, "Lock": {"TTL": "10s", "LockDelay": "1s"}});
        world.ask("PUT", "/v1/var/githubrunner/leader?lock-acquire", Some(body))
    };
    let (status, variable) = acquire(&mut world, "a");
    assert_eq!(status, 200);
    let lock = json!({"Lock": {"ID": variable["Lock"]["ID"]}});
    world.pass(15_000);
    let (status, _) = world.ask("PUT", "/v1/var/githubrunner/leader?lock-renew", Some(lock.clone()));
    assert_eq!(status, 200);
    world.pass(19_999);
    assert_eq!(acquire(&mut world, "b").0, 409);
    world.pass(2);
    assert_eq!(acquire(&mut world, "b").0, 409, "nobody gets it for the delay");
    let (status, text) = world.ask("PUT", "/v1/var/githubrunner/leader?lock-renew", Some(lock.clone()));
    assert_eq!((status, text), (409, json!("variable doesn't hold a lock")));
    world.pass(1_000);
    let (status, variable) = acquire(&mut world, "b");
    assert_eq!(status, 200);
    // A release lets the next one in at once.
    let lock = json!({"Lock": {"ID": variable["Lock"]["ID"]}});
    assert_eq!(world.ask("PUT", "/v1/var/githubrunner/leader?lock-release", Some(lock)).0, 200);
    assert_eq!(acquire(&mut world, "c").0, 200);
    // Never renewed: 2 × TTL and the delay, as measured on a real agent.
    world.pass(20_999);
    assert_eq!(acquire(&mut world, "d").0, 409);
    world.pass(2);
    assert_eq!(acquire(&mut world, "d").0, 200);
}

const PATIENT: &str = "disconnect {\n lost_after = \"24h\"\n replace = false\n }";

#[test]
fn a_node_lost_and_back_with_lost_after() {
    let mut world = World::with_nodes(vec![Node::named("a"), Node::named("b")]);
    running(&mut world, "r-1", 100, PATIENT);
    running(&mut world, "r-2", 100, PATIENT);
    let node = world.nomad.allocations().next().unwrap().node.clone();
    world.nomad.node_down(&node, world.now);
    world.pass(5_000);
    assert_eq!(world.allocation("r-1").0, "unknown");
    assert_eq!(world.allocation("r-1").1, "run");
    assert_eq!(world.nomad.live_tasks().len(), 2, "the processes go on");
    // The servers learn later what ended meanwhile.
    world.exit("r-2", Exit::code(7));
    world.pass(5_000);
    assert_eq!(world.allocation("r-2").0, "unknown");
    world.nomad.node_up(&node, world.now);
    world.pass(500);
    assert_eq!(world.allocation("r-1").0, "running");
    assert_eq!(world.allocation("r-2").0, "failed");
    // When the time is over, it is replaced anyway.
    world.nomad.node_down(&node, world.now);
    world.pass(24 * 3_600_000 + 100);
    let all = world.allocations("r-1");
    assert_eq!(all.len(), 2, "{all:?}");
    assert_eq!((all[0].0.as_str(), all[0].1.as_str()), ("lost", "stop"));
}

#[test]
fn a_disconnected_runner_that_may_be_replaced_is_and_the_replacement_goes_when_it_is_back() {
    let mut world = World::with_nodes(vec![Node::named("a"), Node::named("b")]);
    running(&mut world, "r-1", 100, "disconnect {\n lost_after = \"24h\"\n }");
    let node = world.nomad.allocations().next().unwrap().node.clone();
    world.nomad.node_down(&node, world.now);
    world.pass(1_000);
    let statuses: Vec<_> = world.allocations("r-1").into_iter().map(|a| a.0).collect();
    assert_eq!(statuses, ["unknown", "running"]);
    world.nomad.node_up(&node, world.now);
    world.pass(2_000);
    let statuses: Vec<_> = world.allocations("r-1").into_iter().map(|a| (a.0, a.1)).collect();
    let wanted = [("running", "run"), ("complete", "stop")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(statuses, wanted);
}

#[test]
fn a_node_lost_and_back_without_lost_after_runs_it_twice() {
    let mut world = World::with_nodes(vec![Node::named("a"), Node::named("b")]);
    running(&mut world, "r-1", 100, "");
    let first = world.id("r-1");
    let node = world.nomad.allocations().next().unwrap().node.clone();
    world.nomad.node_down(&node, world.now);
    world.pass(1_000);
    let all = world.allocations("r-1");
    assert_eq!((all[0].0.as_str(), all[0].1.as_str()), ("lost", "stop"));
    assert_eq!(all[1].0, "running");
    assert_eq!(world.nomad.live_tasks().len(), 2, "two processes for one job");
    world.happened();
    world.nomad.node_up(&node, world.now);
    world.pass(1_500);
    assert_eq!(world.happened(), ["r-1 told SIGINT", "r-1 ended 130"]);
    let (_, list) = world.ask("GET", "/v1/job/r-1/allocations", None);
    let lost = list.as_array().unwrap().iter().find(|a| a["ID"] == first.as_str()).unwrap();
    assert_eq!(lost["ClientStatus"], "complete");
    assert_eq!(lost["DesiredDescription"], "alloc is lost since its node is down");
}

#[test]
fn a_drained_node_lets_batch_jobs_run_to_the_deadline() {
    let mut world = World::with_nodes(vec![Node::named("a"), Node::named("b")]);
    running(&mut world, "r-1", 100, "");
    let node = world.nomad.allocations().next().unwrap().node.clone();
    world.nomad.drain(&node, Duration::from_secs(3600), world.now);
    world.pass(3_599_000);
    assert_eq!(world.allocation("r-1").0, "running");
    world.pass(3_000);
    let (client, desired, _) = world.allocation("r-1");
    assert_eq!((client.as_str(), desired.as_str()), ("complete", "stop"));
    assert!(!world.nomad.job("default", "r-1").unwrap().stop);
    running(&mut world, "r-2", 100, "");
    assert_ne!(world.nomad.live_tasks()[0].node, node, "nothing new goes there");
}

#[test]
fn policies_with_attempts_are_followed() {
    let mut world = World::new(Options::default());
    let text = runner("r-1", 100, "").replacen("attempts = 0", "attempts = 1\n delay = \"2s\"", 1);
    world.register(&text);
    world.pass(50);
    secret(&mut world, "r-1");
    world.pass(600);
    world.exit("r-1", Exit::code(1));
    world.pass(1_000);
    assert_eq!(world.allocation("r-1").0, "pending");
    world.pass(1_500);
    assert_eq!(world.allocation("r-1").0, "running");
    world.exit("r-1", Exit::code(1));
    world.pass(300);
    assert_eq!(world.allocation("r-1").0, "failed");

    let again = "attempts = 1\n delay = \"5s\"\n delay_function = \"constant\"\n interval = \"1h\"";
    let text = runner("r-2", 100, "").replace("attempts  = 0", again);
    world.register(&text);
    world.pass(50);
    secret(&mut world, "r-2");
    world.pass(600);
    for allocations in [1, 2] {
        assert_eq!(world.allocations("r-2").len(), allocations);
        world.exit("r-2", Exit::code(1));
        world.pass(6_000);
    }
    let all = world.allocations("r-2");
    let statuses: Vec<_> = all.iter().map(|a| (a.0.as_str(), a.1.as_str())).collect();
    assert_eq!(statuses, [("failed", "stop"), ("failed", "run")]);
    assert_eq!(world.status("r-2"), "dead");
}

#[test]
fn a_run_that_takes_too_long_is_killed() {
    let mut world = World::new(Options::default());
    running(&mut world, "r-1", 100, "max_run_duration = \"1h\"");
    world.pass(3_600_000 + 2_000);
    let (_, list) = world.ask("GET", "/v1/job/r-1/allocations", None);
    assert_eq!(list[0]["ClientStatus"], "complete");
    assert_eq!(list[0]["DesiredStatus"], "run");
    assert_eq!(list[0]["ClientDescription"], "allocation exceeded max_run_duration");
}

#[test]
fn a_dead_job_registered_again_runs_again_only_if_it_changed() {
    let mut world = World::new(Options::default());
    running(&mut world, "r-1", 100, "");
    world.exit("r-1", Exit::code(0));
    world.pass(300);
    let (_, mut job) = world.ask("POST", "/v1/jobs/parse", Some(json!({"JobHCL": runner("r-1", 100, "")})));
    let (status, text) =
        world.ask("PUT", "/v1/jobs", Some(json!({"Job": job, "EnforceIndex": true, "JobModifyIndex": 0})));
    assert_eq!((status, text), (500, json!("Enforcing job modify index 0: job already exists")));
    assert_eq!(world.ask("PUT", "/v1/jobs", Some(json!({"Job": job}))).0, 200);
    world.pass(1_000);
    assert_eq!(world.status("r-1"), "dead");
    assert_eq!(world.allocations("r-1").len(), 1);
    job["Meta"] = json!({"again": "yes"});
    assert_eq!(world.ask("PUT", "/v1/jobs", Some(json!({"Job": job}))).0, 200);
    world.pass(1_000);
    assert_eq!(world.status("r-1"), "running");
    assert_eq!(world.allocations("r-1").len(), 2);
}

#[test]
fn dead_jobs_are_collected_after_four_hours_and_variables_are_not() {
    let mut world = World::new(Options::default());
    running(&mut world, "r-1", 100, "");
    running(&mut world, "r-2", 100, "");
    world.exit("r-1", Exit::code(0));
    world.pass(3 * 3_600_000);
    assert_eq!(world.status("r-1"), "dead");
    world.pass(3_600_000 + 300_000);
    assert_eq!(world.status("r-1"), "gone");
    assert_eq!(world.status("r-2"), "running");
    assert_eq!(world.nomad.variables().count(), 2);
    assert_eq!(world.ask("PUT", "/v1/system/gc", None).0, 200);
    assert_eq!(world.status("r-2"), "running");
}

#[test]
fn without_a_leader_everything_is_refused_and_nothing_placed() {
    let mut world = World::new(Options::default());
    running(&mut world, "r-1", 100, "");
    world.register(&runner("r-2", 100, ""));
    world.nomad.lose_leader(world.now);
    world.pass(2_000);
    for (method, path) in [("GET", "/v1/jobs"), ("DELETE", "/v1/job/r-1"), ("GET", "/v1/vars")] {
        assert_eq!(world.ask(method, path, None), (500, json!("No cluster leader")));
    }
    assert_eq!(world.ask("GET", "/v1/agent/health", None).0, 200);
    assert_eq!(world.ask("GET", "/v1/status/leader", None).1, json!(""));
    assert!(world.nomad.allocations().all(|a| a.job_id == "r-1"));
    world.nomad.elect_leader(world.now);
    world.pass(1_100);
    assert_eq!(world.allocation("r-2").0, "pending");
    // Five minutes only kill a task that keeps reading: with `once` it does not.
    world.nomad.lose_leader(world.now);
    world.pass(400_000);
    assert_eq!(world.nomad.live_tasks().len(), 1);
}

#[test]
fn a_template_without_once_does_not_survive_five_minutes_without_servers() {
    let mut world = World::new(Options::default());
    let text = runner("r-1", 100, "").replace("once        = true", "");
    world.register(&text);
    world.pass(50);
    secret(&mut world, "r-1");
    world.pass(600);
    world.nomad.lose_leader(world.now);
    world.pass(299_000);
    assert_eq!(world.nomad.live_tasks().len(), 1);
    world.pass(3_000);
    assert!(world.nomad.live_tasks().is_empty());
    world.nomad.elect_leader(world.now);
    world.pass(500);
    assert_eq!(world.allocation("r-1").0, "failed");
}

#[test]
fn a_changed_variable_restarts_tasks_without_noop() {
    let mut world = World::new(Options::default());
    let text = runner("r-1", 100, "").replace("once        = true", "").replace("\"noop\"", "\"restart\"");
    world.register(&text);
    running(&mut world, "r-2", 100, "");
    secret(&mut world, "r-1");
    world.pass(600);
    world.happened();
    for job in ["r-1", "r-2"] {
        let path = format!("/v1/var/nomad/jobs/{job}");
        assert_eq!(world.ask("PUT", &path, Some(json!({"Items": {"secret": "new"}}))).0, 200);
    }
    world.pass(3_000);
    assert_eq!(world.happened(), ["r-1 told SIGINT", "r-1 ended 130", "r-1 started"]);
    assert_eq!(world.allocation("r-1").0, "running");
}

#[test]
fn an_agent_that_restarts_empty_has_forgotten_everything() {
    let mut world = World::new(Options::default());
    running(&mut world, "r-1", 100, "");
    let before = world.nomad.index();
    world.nomad.restart_empty(Processes::End, world.now);
    assert!(world.nomad.index() < before);
    assert_eq!(world.nomad.jobs().count() + world.nomad.variables().count(), 0);
    assert!(world.nomad.live_tasks().is_empty());
    assert_eq!(world.happened().last().unwrap(), "r-1 ended 137");
    running(&mut world, "r-1", 100, "");
}

#[test]
fn several_tasks_take_turns() {
    let mut world = World::new(Options::default());
    let more = "task \"prepare\" {\n driver = \"raw_exec\"\n lifecycle {\n hook = \"prestart\"\n }\n config {\n command = \"/bin/true\"\n }\n }\n task \"helper\" {\n driver = \"raw_exec\"\n lifecycle {\n hook = \"prestart\"\n sidecar = true\n }\n config {\n command = \"/bin/help\"\n }\n }";
    world.register(&runner("r-1", 100, more));
    world.pass(50);
    secret(&mut world, "r-1");
    world.pass(1_000);
    let names = |world: &World| world.nomad.live_tasks().into_iter().map(|t| t.task).collect::<Vec<_>>();
    assert_eq!(names(&world), ["prepare", "helper"]);
    world.exit("r-1", Exit::code(0));
    world.pass(1_000);
    assert_eq!(names(&world), ["helper", "runner"]);
    world.exit("r-1", Exit::code(0));
    world.pass(2_000);
    assert!(names(&world).is_empty(), "the sidecar ends with the task it helps");
    assert_eq!(world.allocation("r-1").0, "complete");
}

#[test]
fn a_stopped_allocation_is_replaced_and_the_other_one_waits_for_its_end() {
    let mut world = World::with_nodes(vec![Node { memory_mb: 900, ..Node::named("a") }]);
    running(&mut world, "r", 500, "");
    let first = world.id("r");
    world.happened();
    let (status, answer) = world.ask("PUT", &format!("/v1/allocation/{first}/stop"), None);
    assert_eq!((status, answer["Index"].is_u64()), (200, true), "{answer}");
    // At once, in the first one's place, and whatever the policies are.
    world.pass(50);
    let second = world.id("r");
    assert_ne!(second, first);
    let (_, old) = world.ask("GET", &format!("/v1/allocation/{first}"), None);
    assert_eq!(
        [&old["DesiredStatus"], &old["DesiredDescription"], &old["ClientStatus"], &old["NextAllocation"]],
        ["stop", "alloc is being migrated", "running", second.as_str()]
    );
    let (_, new) = world.ask("GET", &format!("/v1/allocation/{second}"), None);
    assert_eq!(
        [&new["DesiredStatus"], &new["ClientStatus"], &new["TaskStates"]],
        [&json!("run"), &json!("pending"), &Value::Null],
    );
    let evaluation = answer["EvalID"].as_str().unwrap();
    let (_, evaluation) = world.ask("GET", &format!("/v1/evaluation/{evaluation}"), None);
    let updates = &evaluation["PlanAnnotations"]["DesiredTGUpdates"]["g"];
    assert_eq!(evaluation["TriggeredBy"], "alloc-stop");
    assert_eq!([&updates["Migrate"], &updates["Place"], &updates["Stop"]], [1, 0, 0]);
    assert_eq!((world.happened(), world.status("r")), (vec!["r told SIGINT".to_owned()], "running"));
    // Not two at a time.
    world.nomad.exit_task(&first, Exit::code(0), world.now);
    world.pass(3_000);
    assert_eq!(world.happened(), ["r ended 0", "r started"]);
    // Once more: the first one does not change.
    assert_eq!(world.ask("PUT", &format!("/v1/allocation/{first}/stop"), None).0, 200);
    world.pass(3_000);
    assert_eq!(world.happened(), [""; 0]);
    world.exit("r", Exit::code(0));
    world.pass(3_000);
    assert_eq!((world.allocations("r").len(), world.status("r")), (2, "dead"));
    // An ended allocation is not replaced.
    assert_eq!(world.ask("PUT", &format!("/v1/allocation/{second}/stop"), None).0, 200);
    world.pass(3_000);
    assert_eq!((world.allocations("r").len(), world.status("r")), (2, "dead"));
    for (method, id, wanted) in [
        ("PUT", "00000000-0000-0000-0000-000000000000", (404, "allocation not found")),
        ("PUT", "xyz", (500, "alloc lookup failed: index error: UUID must be 36 characters")),
        ("GET", second.as_str(), (405, "Invalid method")),
    ] {
        let (status, text) = world.ask(method, &format!("/v1/allocation/{id}/stop"), None);
        assert_eq!((status, text.as_str().unwrap()), wanted);
    }
}

#[test]
fn a_restarted_allocation_starts_its_task_again_in_spite_of_its_policy() {
    let mut world = World::with_nodes(vec![Node::named("a")]);
    running(&mut world, "r", 500, "");
    let id = world.id("r");
    world.happened();
    assert!(world.nomad.restart_one(&id, world.now));
    world.pass(10);
    world.exit("r", Exit::signal(2));
    world.pass(3_000);
    assert_eq!(world.happened(), ["r told SIGINT", "r ended 130", "r started"]);
    let (client, desired, events) = world.allocation("r");
    assert_eq!((client.as_str(), desired.as_str()), ("running", "run"));
    assert_eq!(events[events.len() - 4..], ["Restart Signaled", "Terminated", "Restarting", "Started"]);
    // If it is stopped before it has restarted, it does not restart.
    assert!(world.nomad.restart_one(&id, world.now));
    world.nomad.stop_job("default", "r", world.now);
    world.pass(100);
    world.exit("r", Exit::signal(2));
    world.pass(3_000);
    assert_eq!((world.allocation("r").0.as_str(), world.status("r")), ("complete", "dead"));
    assert!(!world.nomad.restart_one(&id, world.now));
}

#[test]
fn a_bad_driver_configuration_fails_before_it_runs() {
    let mut world = World::new(Options::default());
    world.register(&runner("r-1", 100, "").replace("command = \"/bin/run\"", "args = []"));
    world.pass(500);
    let (client, _, events) = world.allocation("r-1");
    assert_eq!(client, "failed");
    assert_eq!(events[2..], ["Failed Validation", "Not Restarting"]);
    assert_eq!(world.happened(), [""; 0]);
}

#[test]
fn a_slow_image_delays_only_its_own_jobs() {
    let mut world = World::new(Options::default());
    world.nomad.set_start_delay("r-slow", Duration::from_secs(600));
    for id in ["r-slow-1", "r-2"] {
        world.register(&runner(id, 100, ""));
        world.pass(50);
        secret(&mut world, id);
    }
    world.pass(1_000);
    assert_eq!(world.happened(), ["r-2 started"]);
    world.pass(600_000);
    assert_eq!(world.happened(), ["r-slow-1 started"]);
}

/// The same seed and the same requests give the same bytes, and a caller only has to wait for `next_event`.
#[test]
fn a_run_is_determined_by_its_seed() {
    let run = |seed: u64, step_by_event: bool| {
        let mut world = World::new(Options { seed, ..Options::default() });
        running(&mut world, "r-1", 100, "");
        world.register(&runner("r-2", 100, ""));
        secret(&mut world, "r-2");
        let end = world.now + Duration::from_secs(10);
        while step_by_event && let Some(next) = world.nomad.next_event().filter(|next| *next <= end) {
            world.nomad.advance(next);
        }
        world.now = end;
        let (_, jobs) = world.ask("GET", "/v1/jobs?meta=true", None);
        let (_, allocations) = world.ask("GET", "/v1/allocations", None);
        format!("{jobs}{allocations}{:?}{:?}", world.nomad.take_events(), world.nomad.events_since(0))
    };
    assert_eq!(run(1, false), run(1, true));
    assert_ne!(run(1, false), run(2, false));
}

/// Whatever is done to a text or a job, the response has one of the known statuses and nothing crashes.
#[test]
fn mangled_texts_and_jobs_are_answered() {
    use rand::{RngExt, SeedableRng, rngs::StdRng};
    let mut rng = StdRng::seed_from_u64(7);
    let mut world = World::new(Options::default());
    let text = runner("r-1", 100, PATIENT);
    let pieces = [
        "${",
        "%{",
        "}",
        "\"",
        "\\",
        "\n",
        "<<EOT\n",
        "{",
        "[",
        "(",
        "=",
        ",",
        "ä",
        "\u{1F600}",
        "#",
        "/*",
        "*",
        ".",
        "null",
        "1e9",
        ":",
        "$",
        "%",
        "{{",
        "for",
        "\0",
    ];
    let mut refused = 0;
    for _ in 0..500 {
        let mut chars: Vec<char> = text.chars().collect();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..chars.len());
            let length = rng.random_range(0..6).min(chars.len() - at);
            let piece = pieces[rng.random_range(0..pieces.len())];
            chars.splice(at..at + length, piece.chars());
        }
        let hcl: String = chars.into_iter().collect();
        let (status, job) = world.ask("POST", "/v1/jobs/parse", Some(json!({"JobHCL": hcl})));
        assert!(status == 200 || status == 400, "{hcl}: {status} {job}");
        refused += u32::from(status == 400);
        if status == 200 {
            let (status, answer) = world.ask("PUT", "/v1/jobs", Some(json!({"Job": job})));
            assert!(status == 200 || status == 400 || status == 500, "{job}: {status} {answer}");
            world.pass(300);
        }
    }
    assert!(refused > 60 && refused < 500, "{refused} of 500 were refused");
    let (_, job) = world.ask("POST", "/v1/jobs/parse", Some(json!({"JobHCL": text})));
    for value in [
        json!(null),
        json!(5),
        json!(-1),
        json!("x"),
        json!([]),
        json!([null]),
        json!([5]),
        json!({}),
        json!({"x": 5}),
    ] {
        for pointer in [
            "",
            "/ID",
            "/Meta",
            "/TaskGroups",
            "/TaskGroups/0",
            "/TaskGroups/0/Count",
            "/TaskGroups/0/Tasks",
            "/TaskGroups/0/Tasks/0",
            "/TaskGroups/0/Tasks/0/Resources",
            "/TaskGroups/0/Tasks/0/Templates/0",
            "/TaskGroups/0/Tasks/0/Config",
            "/TaskGroups/0/Disconnect",
            "/Constraints",
        ] {
            let mut mangled = job.clone();
            *mangled.pointer_mut(pointer).unwrap() = value.clone();
            for (method, path) in
                [("PUT", "/v1/jobs"), ("PUT", "/v1/validate/job"), ("PUT", "/v1/job/r-1/plan")]
            {
                let (status, answer) = world.ask(method, path, Some(json!({"Job": mangled})));
                assert!([200, 400, 500].contains(&status), "{pointer} {value}: {status} {answer}");
            }
            world.pass(100);
        }
    }
}
