//! One suite over the Nomad adapter: on a real agent where `nomad` is on PATH.

mod common;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use common::nomad_agent::{Agent, AgentOptions};
use githubrunner::http::{self, Client, Endpoint, Request};
use githubrunner::model::{Finish, Ownership, Registration, RepositoryId, Runner, RunnerMeta, RunnerState};
use githubrunner::nomad::{
    Acquired, Error, Kept, Nomad, Options, PreparedJob, Registered, Written, job_from_json, prepare,
};
use githubrunner::secret::Secret;
use serde_json::{Value, json};
use tokio::time::Instant;

/// The longest that anything may take on a busy machine.
const WITHIN: Duration = Duration::from_secs(60);

/// The namespace that exists.
const NAMESPACE: &str = "github";

/// Where a case runs: some Nomad, and a prefix of its own so that cases do not meet.
#[derive(Clone)]
struct Place {
    endpoint: Endpoint,
    prefix: String,
}

type Run = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The cases, by name.
const CASES: &[(&str, fn(Place) -> Run)] = &[
    ("parse", |place| Box::pin(parses(place))),
    ("parse-errors", |place| Box::pin(says_where_hcl_is_wrong(place))),
    ("hostile", |place| Box::pin(refuses_what_a_parse_lets_through(place))),
    ("register", |place| Box::pin(registers_once(place))),
    ("conflict", |place| Box::pin(tells_another_job_of_that_name(place))),
    ("invalid", |place| Box::pin(says_what_is_wrong_with_a_job(place))),
    ("life", |place| Box::pin(sees_a_whole_life(place))),
    ("ends", |place| Box::pin(sees_how_runners_end(place))),
    ("stop", |place| Box::pin(stops_what_runs_waits_and_is_not_there(place))),
    ("unplaced", |place| Box::pin(says_why_a_job_is_not_placed(place))),
    ("variables", |place| Box::pin(writes_a_variable_once(place))),
    ("foreign", |place| Box::pin(leaves_out_what_is_not_ours(place))),
    ("namespace", |place| Box::pin(tells_a_missing_namespace(place))),
    ("instance", |place| Box::pin(agrees_on_one_instance(place))),
    ("lock", |place| Box::pin(one_holds_the_lock(place))),
    ("events", |place| Box::pin(hears_of_what_changes(place))),
    ("instance-back", |place| Box::pin(writes_its_instance_again(place))),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_real_agent() {
    let Some(agent) = Agent::start(AgentOptions::default()).await else { return };
    agent.create_namespace(NAMESPACE).await;
    run_all(&Endpoint::parse(&agent.address).unwrap()).await;
}

/// Runs every case, side by side, and fails with the names of those that failed.
async fn run_all(endpoint: &Endpoint) {
    let mut running = Vec::new();
    for (name, case) in CASES {
        let place = Place { endpoint: endpoint.clone(), prefix: format!("ghr-{name}") };
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

impl Place {
    fn options(&self) -> Options {
        Options { seed: 1, ..Options::new(self.endpoint.clone(), NAMESPACE, &self.prefix, "runner") }
    }

    fn nomad(&self) -> Nomad {
        Nomad::new(self.options(), format!("instance-of-{}", self.prefix)).unwrap()
    }

    /// A plain client, for what the adapter does not do.
    fn client(&self) -> Client {
        Client::new(self.endpoint.clone(), http::Options::default()).unwrap()
    }

    fn name(&self, number: u64) -> String {
        format!("{}-o-r-{number:015}", self.prefix)
    }

    /// A parsed job of one raw_exec task.
    async fn parsed(&self, nomad: &Nomad, script: &str, extra: &str) -> Value {
        let hcl = hcl(script, extra);
        nomad.parse(&hcl, Registration::Jit).await.unwrap()
    }

    /// A runner's job, ready to register.
    async fn job(&self, nomad: &Nomad, number: u64, registration: Registration, script: &str) -> PreparedJob {
        let name = self.name(number);
        let extra = if registration.needs_variable() { credentials(&name) } else { String::new() };
        let parsed = self.parsed(nomad, script, &extra).await;
        let meta = self.meta(nomad, number, registration).await;
        prepare(parsed, nomad.options(), meta, &name, registration).unwrap()
    }

    async fn meta(&self, nomad: &Nomad, number: u64, registration: Registration) -> RunnerMeta {
        RunnerMeta {
            labelsstr: "nomadtools".into(),
            repo_url: "https://github.com/o/r".into(),
            version: "0".into(),
            instance: Some(nomad.instance().await.unwrap()),
            repo_id: Some(RepositoryId(1)),
            job_id: Some(number),
            attempt: Some(1),
            registration: Some(registration),
        }
    }

    /// Registers a runner whose task needs no variable.
    async fn start(&self, nomad: &Nomad, number: u64, script: &str) -> String {
        let job = self.job(nomad, number, Registration::AccessToken, script).await;
        assert!(matches!(nomad.register(&job, None).await.unwrap(), Registered::Created { .. }));
        job.name().to_owned()
    }
}

/// A batch job that runs a shell script.
fn hcl(script: &str, extra: &str) -> String {
    format!(
        r#"
job "template" {{
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
    task "runner" {{
      driver       = "raw_exec"
      kill_timeout = "1s"
      config {{
        command = "/bin/sh"
        args    = ["-c", {script:?}]
      }}
      resources {{
        cpu    = 1
        memory = 10
      }}
      {extra}
    }}
  }}
}}
"#
    )
}

/// What makes a task wait for its variable, and put it into its environment.
fn credentials(name: &str) -> String {
    format!(
        r#"
      template {{
        destination = "${{NOMAD_SECRETS_DIR}}/runner.env"
        env         = true
        change_mode = "noop"
        once        = true
        data        = "{{{{ with nomadVar \"nomad/jobs/{name}\" }}}}JIT={{{{ .jitconfig }}}}{{{{ end }}}}\n"
      }}
"#
    )
}

fn items(text: &str) -> BTreeMap<String, Secret> {
    BTreeMap::from([("jitconfig".to_owned(), Secret::new(text))])
}

/// Looks at a runner until it is as wanted; fails with what was seen last.
async fn until(nomad: &Nomad, name: &str, what: &str, wanted: impl Fn(&Runner) -> bool) -> Runner {
    let deadline = Instant::now() + WITHIN;
    loop {
        let runner = nomad.read_runner(name).await.unwrap();
        match &runner {
            Some(runner) if wanted(runner) => return runner.clone(),
            _ if Instant::now() > deadline => panic!("{name} is not {what} within {WITHIN:?}: {runner:#?}"),
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn until_state(nomad: &Nomad, name: &str, state: RunnerState) -> Runner {
    until(nomad, name, state.as_str(), |runner| runner.state == state).await
}

async fn parses(place: Place) {
    let nomad = place.nomad();
    let job = place.parsed(&nomad, "exit 0", "").await;
    assert_eq!(job["ID"], json!("template"));
    assert_eq!(job["TaskGroups"][0]["Tasks"][0]["Config"]["command"], json!("/bin/sh"));
    // Not canonicalized: what the template leaves out is left out.
    assert_eq!(job["Region"], Value::Null);
    let api_json = json!({ "Job": job }).to_string();
    assert_eq!(job_from_json(&api_json).unwrap(), Some(job));
}

async fn says_where_hcl_is_wrong(place: Place) {
    let nomad = place.nomad();
    let wrong = "job \"x\" {\n  type = \n}\n";
    let Err(Error::Hcl { message, line }) = nomad.parse(wrong, Registration::Jit).await else { panic!() };
    assert!(message.starts_with("Failed to parse job: input.hcl:2,10"), "{message}");
    assert_eq!(line.as_deref(), Some("type ="));
    // In this mode the text may hold the token.
    let Err(Error::Hcl { line, .. }) = nomad.parse(wrong, Registration::AccessToken).await else { panic!() };
    assert_eq!(line, None);
    let Err(Error::Hcl { message, .. }) = nomad.parse("", Registration::Jit).await else { panic!() };
    assert!(message.contains("Job spec is empty"), "{message}");
    let files = "job \"x\" {\n  type = file(\"/etc/passwd\")\n}\n";
    assert!(matches!(nomad.parse(files, Registration::Jit).await, Err(Error::Hcl { .. })));
}

async fn refuses_what_a_parse_lets_through(place: Place) {
    let nomad = place.nomad();
    let hcl = hcl("exit 0", "").replace("memory = 10", "memory = 9223372036854775807");
    let job = nomad.parse(&hcl, Registration::Jit).await.unwrap();
    let meta = place.meta(&nomad, 1, Registration::Jit).await;
    let refused = prepare(job, nomad.options(), meta, &place.name(1), Registration::Jit);
    let error = refused.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("memory is 9223372036854775807"), "{error}");
}

async fn registers_once(place: Place) {
    let nomad = place.nomad();
    let job = place.job(&nomad, 1, Registration::Jit, "sleep 300").await;
    let validation = nomad.validate(&job).await.unwrap();
    assert_eq!(validation.validation_errors, Vec::<String>::new());
    assert_eq!(nomad.plan_job(&job).await.unwrap().blocked(), None);
    assert_eq!(nomad.read_runner(job.name()).await.unwrap(), None, "neither has registered it");
    let first = nomad.register(&job, Some("# as rendered")).await.unwrap();
    assert!(matches!(first, Registered::Created { .. }));
    // The answer got lost, or another replica does the same.
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

async fn tells_another_job_of_that_name(place: Place) {
    let nomad = place.nomad();
    let name = place.start(&nomad, 1, "exit 0").await;
    let parsed = place.parsed(&nomad, "exit 0", "").await;
    let mut meta = place.meta(&nomad, 1, Registration::AccessToken).await;
    meta.attempt = Some(2);
    let other = prepare(parsed, nomad.options(), meta, &name, Registration::AccessToken).unwrap();
    let refused = nomad.register(&other, None).await;
    assert!(matches!(&refused, Err(Error::Taken { name: taken }) if *taken == name), "{refused:?}");
}

async fn says_what_is_wrong_with_a_job(place: Place) {
    let nomad = place.nomad();
    let meta = place.meta(&nomad, 1, Registration::Jit).await;
    let empty = json!({ "TaskGroups": [{ "Name": "g", "Tasks": [] }] });
    let job = prepare(empty, nomad.options(), meta, &place.name(1), Registration::Jit).unwrap();
    let error = nomad.register(&job, None).await.unwrap_err();
    assert!(matches!(error, Error::Refused(_)), "{error:?}");
    assert!(error.to_string().contains("error") && !error.is_transient() && !error.is_ambiguous(), "{error}");
    assert!(!nomad.validate(&job).await.unwrap().validation_errors.is_empty());
}

async fn sees_a_whole_life(place: Place) {
    let nomad = place.nomad();
    assert_eq!(nomad.observe().await.unwrap().runners, Vec::new());
    let script = "test \"$JIT\" = configuration && sleep 1";
    let job = place.job(&nomad, 1, Registration::Jit, script).await;
    nomad.register(&job, Some("# as rendered")).await.unwrap();
    let waiting = until_state(&nomad, job.name(), RunnerState::Waiting).await;
    assert!(!waiting.started && !waiting.has_variable);
    assert_eq!(nomad.put_variable(job.name(), &items("configuration")).await.unwrap(), Written::Written);
    let running = until(&nomad, job.name(), "started", |runner| runner.started).await;
    assert!(running.has_variable && running.started_at.is_some());
    let dead = until_state(&nomad, job.name(), RunnerState::Dead).await;
    assert_eq!(dead.finish, Some(Finish::Success), "its task had the variable in its environment");
    assert!(dead.ended_at > dead.started_at);
    let view = nomad.observe().await.unwrap();
    assert_eq!(view.runners, vec![dead]);
    assert!(view.variables.contains(job.name()));
    nomad.delete_variable(job.name()).await.unwrap();
    nomad.purge(job.name()).await.unwrap();
    let view = nomad.observe().await.unwrap();
    assert!(view.runners.is_empty() && view.variables.is_empty());
    nomad.purge(job.name()).await.unwrap();
    nomad.delete_variable(job.name()).await.unwrap();
}

async fn sees_how_runners_end(place: Place) {
    let nomad = place.nomad();
    for (number, (script, finish)) in
        [("exit 0", Finish::Success), ("exit 3", Finish::Failure { exit_code: Some(3) })]
            .into_iter()
            .enumerate()
    {
        let name = place.start(&nomad, number as u64, script).await;
        let dead = until_state(&nomad, &name, RunnerState::Dead).await;
        assert_eq!(dead.finish, Some(finish), "{script}");
        // Stopping what has ended changes nothing.
        nomad.stop(&name).await.unwrap();
        assert_eq!(nomad.read_runner(&name).await.unwrap().unwrap().finish, dead.finish, "{script}");
    }
    let mut parsed = place.parsed(&nomad, "exit 0", "").await;
    parsed["TaskGroups"][0]["Tasks"][0]["Config"]["command"] = json!("/nonexistent");
    let meta = place.meta(&nomad, 9, Registration::AccessToken).await;
    let job = prepare(parsed, nomad.options(), meta, &place.name(9), Registration::AccessToken).unwrap();
    nomad.register(&job, None).await.unwrap();
    let dead = until_state(&nomad, job.name(), RunnerState::Dead).await;
    let Some(Finish::NeverRan { reason }) = &dead.finish else { panic!("{dead:#?}") };
    assert!(reason.contains("Driver Failure") && !dead.started, "{reason}");
}

async fn stops_what_runs_waits_and_is_not_there(place: Place) {
    let nomad = place.nomad();
    let running = place.start(&nomad, 1, "trap '' INT; sleep 300 & wait; wait").await;
    until_state(&nomad, &running, RunnerState::Running).await;
    nomad.stop(&running).await.unwrap();
    let seen = until(&nomad, &running, "stopping", |runner| runner.state != RunnerState::Running).await;
    assert!(matches!(seen.state, RunnerState::Stopping | RunnerState::Dead));
    let dead = until_state(&nomad, &running, RunnerState::Dead).await;
    assert_eq!((dead.finish, dead.started), (Some(Finish::Stopped), true));
    let job = place.job(&nomad, 2, Registration::Jit, "exit 0").await;
    nomad.register(&job, None).await.unwrap();
    until_state(&nomad, job.name(), RunnerState::Waiting).await;
    nomad.stop(job.name()).await.unwrap();
    let dead = until_state(&nomad, job.name(), RunnerState::Dead).await;
    assert_eq!((dead.finish, dead.started), (Some(Finish::Stopped), false));
    nomad.stop(&place.name(99)).await.unwrap();
    nomad.purge(&place.name(99)).await.unwrap();
}

async fn says_why_a_job_is_not_placed(place: Place) {
    let nomad = place.nomad();
    let mut names = Vec::new();
    for (number, change) in
        [json!({ "Resources": { "CPU": 1, "MemoryMB": 9_999_999 } }), json!({ "Driver": "no-such-driver" })]
            .into_iter()
            .enumerate()
    {
        let mut parsed = place.parsed(&nomad, "exit 0", "").await;
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
        let view = nomad.observe().await.unwrap();
        assert!(view.runners.iter().all(|runner| runner.state == RunnerState::Pending));
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

async fn writes_a_variable_once(place: Place) {
    let nomad = place.nomad();
    let name = place.name(1);
    assert_eq!(nomad.put_variable(&name, &items("one")).await.unwrap(), Written::Written);
    assert_eq!(nomad.put_variable(&name, &items("two")).await.unwrap(), Written::Exists);
    assert_eq!(nomad.put_variable(&name, &items("one")).await.unwrap(), Written::Written, "a lost answer");
    let view = nomad.observe().await.unwrap();
    assert_eq!(view.variables.into_iter().collect::<Vec<_>>(), vec![name.clone()], "without its job");
    nomad.delete_variable(&name).await.unwrap();
    assert!(nomad.observe().await.unwrap().variables.is_empty());
    assert_eq!(nomad.put_variable(&name, &items("two")).await.unwrap(), Written::Written);
    nomad.delete_variable(&name).await.unwrap();
}

async fn leaves_out_what_is_not_ours(place: Place) {
    let nomad = place.nomad();
    let ours = place.start(&nomad, 1, "exit 0").await;
    let nomadtools = json!({ "repo_url": "https://github.com/o/r", "labelsstr": "nomadtools" }).to_string();
    let mut another = place.meta(&nomad, 3, Registration::Jit).await;
    another.instance = Some("another".into());
    let another = serde_json::to_string(&another).unwrap();
    for (number, meta) in [
        (2, json!({ "runner": nomadtools })),
        (3, json!({ "runner": another })),
        (4, json!({ "runner": "not JSON" })),
        (5, json!({ "other": nomadtools })),
        (6, json!({})),
    ] {
        let mut job = place.parsed(&nomad, "exit 0", "").await;
        job["ID"] = json!(place.name(number));
        job["Meta"] = meta;
        let request = Request::put(format!("/v1/jobs?namespace={NAMESPACE}")).json(&json!({ "Job": job }));
        place.client().send(request).await.unwrap().success().unwrap();
    }
    let view = nomad.observe().await.unwrap();
    let mut seen: Vec<_> =
        view.runners.iter().map(|runner| (runner.name.clone(), runner.ownership)).collect();
    seen.sort();
    assert_eq!(seen, vec![(ours, Ownership::Ours), (place.name(2), Ownership::Nomadtools)]);
    assert_eq!(nomad.read_runner(&place.name(3)).await.unwrap(), None);
}

async fn tells_a_missing_namespace(place: Place) {
    let options = Options { namespace: "nowhere".into(), ..place.options() };
    let nomad = Nomad::new(options, "i").unwrap();
    let error = nomad.observe().await.unwrap_err();
    assert!(matches!(error, Error::NamespaceMissing { .. }), "{error:?}");
    assert!(error.to_string().contains("nomad namespace apply nowhere"), "{error}");
    assert!(matches!(nomad.instance().await, Err(Error::NamespaceMissing { .. })));
    assert!(matches!(nomad.check_namespace().await, Err(Error::NamespaceMissing { .. })));
    place.nomad().check_namespace().await.unwrap();
    let job = place.job(&place.nomad(), 1, Registration::Jit, "exit 0").await;
    let elsewhere = prepare(
        job.job().clone(),
        nomad.options(),
        place.meta(&place.nomad(), 1, Registration::Jit).await,
        &place.name(1),
        Registration::Jit,
    )
    .unwrap();
    let refused = nomad.register(&elsewhere, None).await;
    assert!(matches!(refused, Err(Error::NamespaceMissing { .. })), "{refused:?}");
}

async fn agrees_on_one_instance(place: Place) {
    let replicas: Vec<Nomad> =
        (0..5).map(|number| Nomad::new(place.options(), format!("i{number}")).unwrap()).collect();
    let racing: Vec<_> = replicas
        .iter()
        .map(|nomad| {
            let nomad = nomad.clone();
            tokio::spawn(async move { nomad.instance().await.unwrap() })
        })
        .collect();
    let mut agreed = Vec::new();
    for racer in racing {
        agreed.push(racer.await.unwrap());
    }
    assert!(agreed.iter().all(|instance| *instance == agreed[0]), "{agreed:?}");
    assert_eq!(replicas[3].observe().await.unwrap().instance, agreed[0]);
}

async fn writes_its_instance_again(place: Place) {
    let first = place.nomad();
    let instance = first.instance().await.unwrap();
    let path = format!("/v1/var/githubrunner/{}/instance?namespace={NAMESPACE}", place.prefix);
    place.client().send(Request::delete(path)).await.unwrap().success().unwrap();
    assert_eq!(first.observe().await.unwrap().instance, instance);
    let restarted = Nomad::new(place.options(), "another").unwrap();
    assert_eq!(restarted.instance().await.unwrap(), instance, "it was written again");
}

async fn one_holds_the_lock(place: Place) {
    let (ttl, delay, deadline) = (Duration::from_secs(10), Duration::from_secs(1), Duration::from_secs(10));
    let (one, two) = (place.nomad(), place.nomad());
    assert_eq!(one.lock_holder().await.unwrap(), None);
    let first = one.lock_acquire("one", ttl, delay, deadline).await.unwrap();
    let Acquired::Ours(lease) = first else { panic!("{first:?}") };
    assert_eq!(two.lock_acquire("two", ttl, delay, deadline).await.unwrap(), Acquired::Held);
    assert_eq!(two.lock_holder().await.unwrap().as_deref(), Some("one"));
    assert_eq!(one.lock_renew(&lease, deadline).await.unwrap(), Kept::Kept);
    assert_eq!(one.lock_release(&lease, deadline).await.unwrap(), Kept::Kept);
    let second = two.lock_acquire("two", ttl, delay, deadline).await.unwrap();
    let Acquired::Ours(other) = second else { panic!("{second:?}") };
    assert_eq!(one.lock_renew(&lease, deadline).await.unwrap(), Kept::Lost);
    assert_eq!(one.lock_holder().await.unwrap().as_deref(), Some("two"));
    assert_eq!(two.lock_release(&other, deadline).await.unwrap(), Kept::Kept);
    assert_eq!(two.lock_renew(&other, deadline).await.unwrap(), Kept::Lost);
    let bad = one.lock_acquire("one", Duration::from_secs(1), delay, deadline).await;
    assert!(matches!(bad, Err(Error::Refused(_))), "{bad:?}");
}

async fn hears_of_what_changes(place: Place) {
    let nomad = place.nomad();
    let mut events = nomad.events().await.unwrap();
    let name = place.start(&nomad, 1, "exit 0").await;
    let mut about = Vec::new();
    // Registered, placed, run and ended are more than two changes.
    while about.len() < 3 {
        let hint = tokio::time::timeout(WITHIN, events.next()).await.unwrap().unwrap();
        about.extend(hint.unwrap().jobs);
    }
    assert!(about.iter().all(|job| *job == name), "{about:?}");
}
