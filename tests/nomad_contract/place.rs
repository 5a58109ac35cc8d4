//! Where the cases run, and what they have in common.

use std::{collections::BTreeMap, time::Duration};

use githubrunner::{
    http::{self, Client, Endpoint, Request, header::HeaderName},
    model::{JobId, Registration, RepositoryId, Runner, RunnerMeta, RunnerState, runner_name},
    nomad::{Nomad, Options, PreparedJob, Registered, prepare},
    secret::Secret,
};
use serde_json::Value;
use tokio::time::Instant;

/// The longest wait for anything on a busy machine.
pub const WITHIN: Duration = Duration::from_secs(60);

/// The namespace that exists.
pub const NAMESPACE: &str = "github";

/// Where a case runs: a Nomad, and a prefix of its own so that cases do not collide.
#[derive(Clone)]
pub struct Place {
    pub endpoint: Endpoint,
    pub prefix: String,
    pub token: Option<Secret>,
}

/// What a runner's task does. On a real agent a shell reads it from the environment; in a simulation the world does.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    /// How long it runs.
    pub seconds: u32,
    /// Its exit code.
    pub exit: i32,
    /// The configuration that it must find in its environment, or else it ends with 9.
    pub wants: &'static str,
}

/// Succeeds at once.
pub const ENDS: Task = Task { seconds: 0, exit: 0, wants: "" };

/// Runs until it is killed; it ignores interrupts.
pub const LASTS: Task = Task { seconds: 300, ..ENDS };

/// The task as a shell script.
const SCRIPT: &str =
    "trap '' INT; test \"$JIT\" = \"$RUN_WANTS\" || exit 9; sleep $RUN_SECONDS; exit $RUN_EXIT";

impl Place {
    pub fn options(&self) -> Options {
        Options {
            seed: 1,
            token: self.token.clone(),
            ..Options::new(self.endpoint.clone(), NAMESPACE, &self.prefix, "runner")
        }
    }

    pub fn nomad(&self) -> Nomad {
        Nomad::new(self.options(), self.deployment()).unwrap()
    }

    fn client(&self) -> Client {
        Client::new(self.endpoint.clone(), http::Options::default()).unwrap()
    }

    /// Sends a request that the adapter has no method for.
    pub async fn send(&self, request: Request) {
        let request = match &self.token {
            Some(token) => request.header_secret(HeaderName::from_static("x-nomad-token"), "", token),
            None => request,
        };
        self.client().send(request).await.unwrap().success().unwrap();
    }

    fn deployment(&self) -> String {
        format!("instance-of-{}", self.prefix)
    }

    /// The name of attempt 1 for this job, in the deployment of [`Place::nomad`].
    pub fn name(&self, number: u64) -> String {
        runner_name(&self.prefix, &self.deployment(), None, "o/r", JobId(number), 1)
    }

    /// A parsed job of one raw_exec task.
    pub async fn parsed(&self, nomad: &Nomad, task: Task, extra: &str) -> Value {
        let hcl = hcl(task, extra);
        nomad.parse(&hcl, Registration::Jit).await.unwrap()
    }

    /// A runner's job, ready to register.
    pub async fn job(
        &self,
        nomad: &Nomad,
        number: u64,
        registration: Registration,
        task: Task,
    ) -> PreparedJob {
        let name = self.name(number);
        let extra = if registration.needs_variable() { credentials(&name) } else { String::new() };
        let parsed = self.parsed(nomad, task, &extra).await;
        let meta = self.meta(nomad, number, registration).await;
        prepare(parsed, nomad.options(), meta, &name, registration).unwrap()
    }

    pub async fn meta(&self, nomad: &Nomad, number: u64, registration: Registration) -> RunnerMeta {
        let meta = RunnerMeta {
            labelsstr: "nomadtools".into(),
            repo_url: "https://github.com/o/r".into(),
            version: "0".into(),
            deployment: Some(nomad.deployment().await.unwrap()),
            repo_id: Some(RepositoryId(1)),
            purpose: Some(JobId(number).into()),
            attempt: Some(1),
            registration: Some(registration),
            task: None,
            asks: None,
            class: None,
            mac: None,
        };
        nomad.seal(&self.name(number), meta).await.unwrap()
    }

    /// Registers a runner whose task needs no variable.
    pub async fn start(&self, nomad: &Nomad, number: u64, task: Task) -> String {
        let job = self.job(nomad, number, Registration::AccessToken, task).await;
        assert!(matches!(nomad.register(&job, None).await.unwrap(), Registered::Created { .. }));
        job.name().to_owned()
    }
}

/// A batch job of one task.
pub fn hcl(task: Task, extra: &str) -> String {
    let Task { seconds, exit, wants } = task;
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
        args    = ["-c", {SCRIPT:?}]
      }}
      env {{
        RUN_SECONDS = "{seconds}"
        RUN_EXIT    = "{exit}"
        RUN_WANTS   = "{wants}"
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

/// Makes a task wait for its variable, and puts it into its environment.
pub fn credentials(name: &str) -> String {
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

pub fn items(text: &str) -> BTreeMap<String, Secret> {
    BTreeMap::from([("jitconfig".to_owned(), Secret::new(text))])
}

/// Observes a runner until it is as expected; fails with the last observation.
pub async fn until(nomad: &Nomad, name: &str, what: &str, wanted: impl Fn(&Runner) -> bool) -> Runner {
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

pub async fn until_state(nomad: &Nomad, name: &str, state: RunnerState) -> Runner {
    until(nomad, name, state.as_str(), |runner| runner.state == state).await
}
