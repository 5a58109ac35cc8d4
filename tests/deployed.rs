//! The daemon deployed as in docs/deployment.md, on a real agent with ACLs: the unchanged files in `nomad/`,
//! the built program, and a simulated GitHub. Without `nomad` on PATH, prints a message instead.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use common::nomad_agent::{Agent, AgentOptions};

const PROGRAM: &str = env!("CARGO_BIN_EXE_githubrunner");
const POLICY: &str = "nomad/githubrunner.policy.hcl";

/// In seconds. A deployment with all its jobs takes ten on an idle machine.
const WITHIN: u64 = 240;

/// For one command of `nomad`, which takes some seconds on an idle machine.
const COMMAND_WITHIN: Duration = Duration::from_secs(60);

/// The job's `kill_timeout` is 10 s, and a task that needs it did not end by itself. Includes Nomad's own
/// share.
const STOPPED_WITHIN: Duration = Duration::from_secs(8);

#[tokio::test]
async fn the_bundled_job_serves_jobs_as_nobody_in_a_chroot() {
    let options = AgentOptions { acl: true, program: Some(PROGRAM), ..AgentOptions::default() };
    let Some(agent) = Agent::start(options).await else {
        return;
    };
    let node = &agent.get("/v1/nodes").await[0];
    let exec = &node["Drivers"]["exec"];
    if exec["Healthy"] != true {
        println!("skipped: this agent has no exec driver: {}", exec["HealthDescription"]);
        return;
    }
    let program = "/usr/local/bin/githubrunner";
    let id = deployed(&agent, &[], program, &["id", "-u"]).await;
    let nobody = std::fs::read_to_string("/etc/passwd").unwrap();
    let nobody = nobody.lines().find(|line| line.starts_with("nobody:")).unwrap();
    assert_eq!(Some(id.trim()), nobody.split(':').nth(2));
}

#[tokio::test]
async fn the_bundled_job_serves_jobs_with_raw_exec_if_a_variable_selects_it() {
    let Some(agent) = Agent::start(AgentOptions { acl: true, ..AgentOptions::default() }).await else {
        return;
    };
    let binary = format!("binary={PROGRAM}");
    deployed(&agent, &["-var", "driver=raw_exec", "-var", &binary], PROGRAM, &["id", "-u"]).await;
}

/// Creates the namespace, the policy, and the variable with the configuration and the token.
async fn prepare(agent: &Agent, directory: &Path) {
    let nomad = async |args: &[&str]| nomad(agent, args).await;
    nomad(&["namespace", "apply", "nomad/namespace.hcl"]).await;
    nomad(&[
        "acl",
        "policy",
        "apply",
        "-namespace",
        "github",
        "-job",
        "githubrunner",
        "githubrunner",
        POLICY,
    ])
    .await;
    let item = |name: &str, file: &str| format!("{name}=@{}", directory.join(file).display());
    let (config, token) = (item("config", "config.yml"), item("token", "token"));
    nomad(&[
        "var",
        "put",
        "-namespace",
        "github",
        "-out",
        "none",
        "nomad/jobs/githubrunner",
        &config,
        &token,
    ])
    .await;
}

/// The secret is not in the daemon's log, the job or its Submission.
fn assert_no_secret(secret: &str, places: &[(&str, String)]) {
    for (place, text) in places {
        assert!(!text.is_empty() && !text.contains(secret), "the token is in the {place}: {text}");
    }
}

/// Deploys the bundled job with these variables. It serves three jobs through the task API with the bundled policy,
/// becomes healthy, leaks nothing and stops at once. `program` is where its task finds it. Returns the output of
/// `command` in its task.
async fn deployed(agent: &Agent, variables: &[&str], program: &str, command: &[&str]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let github = SimulatedGitHub::start(directory.path());
    let nomad = async |args: &[&str]| nomad(agent, args).await;
    prepare(agent, directory.path()).await;
    nomad(&[&["job", "run", "-detach"], variables, &["nomad/githubrunner.nomad.hcl"]].concat()).await;

    let ids = nomad(&["job", "allocs", "-namespace", "github", "-t", ALLOCATIONS, "githubrunner"]).await;
    let logs = async || {
        let id = ids.lines().next().unwrap_or_default();
        nomad_output(agent, &["alloc", "logs", "-namespace", "github", "-stderr", id]).await
    };
    let began = Instant::now();
    while !directory.path().join("served").exists() {
        if began.elapsed() > Duration::from_secs(WITHIN) {
            panic!("{}\nthe daemon says: {}", github.end(), text(&logs().await));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    // An allocation is healthy after it has reached Nomad and GitHub for a while.
    let deployment =
        ["job", "deployments", "-namespace", "github", "-latest", "-t", "{{.Status}}", "githubrunner"];
    let began = Instant::now();
    while nomad(&deployment).await.trim() == "running" && began.elapsed() < Duration::from_secs(WITHIN) {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(nomad(&deployment).await.trim(), "successful", "{}", text(&logs().await));

    // `check` next to it has the same rights: it runs in the task's environment, so it uses the task API.
    let exec = ["alloc", "exec", "-namespace", "github", "-i=false", "-t=false", "-job", "githubrunner"];
    let check = [program, "-c", "local/config.yml", "check"];
    let check = nomad_output(agent, &[&exec[..], &check[..]].concat()).await;
    let lines = text(&check);
    assert!(check.status.success(), "{lines}");
    assert!(lines.contains("the Nomad token has the capability submit-job"), "{lines}");
    // The job's actions in Nomad's UI, wherever its task's directory is.
    let action = ["action", "-namespace", "github", "-i=false", "-t=false", "-job", "githubrunner"];
    let list =
        nomad(&[&action[..], &["-group", "githubrunner", "-task", "githubrunner", "list"]].concat()).await;
    assert!(list.starts_with("ID  "), "{list}");
    let said = github.end();
    assert!(said.contains("3 of 3 jobs served."), "{said}");
    let answer = nomad(&[&exec[..], command].concat()).await;

    let secret = std::fs::read_to_string(directory.path().join("token")).unwrap();
    let inspect = nomad(&["job", "inspect", "-namespace", "github", "githubrunner"]).await;
    assert_no_secret(secret.trim(), &[("log", text(&logs().await)), ("job", inspect)]);

    // It ends by itself when it is told to.
    let allocation = format!("/v1/allocation/{}", ids.lines().next().unwrap_or_default());
    let began = Instant::now();
    nomad(&["job", "stop", "-detach", "-namespace", "github", "githubrunner"]).await;
    let ended = loop {
        let allocation = agent.get(&allocation).await;
        if allocation["ClientStatus"] != "running" {
            break allocation;
        }
        assert!(began.elapsed() < STOPPED_WITHIN, "{}", text(&logs().await));
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(ended["ClientStatus"], "complete", "{}", text(&logs().await));
    answer
}

const ALLOCATIONS: &str = "{{range .}}{{println .ID}}{{end}}";

/// The bundled policy's rights, as `check` names them.
const RIGHTS: [&str; 9] = [
    "the capability list-jobs",
    "the capability read-job",
    "the capability submit-job",
    "the capability read for variables githubrunner/*",
    "the capability write for variables githubrunner/*",
    "the capability list for variables nomad/jobs/PREFIX-*",
    "the capability read for variables nomad/jobs/PREFIX-*",
    "the capability write for variables nomad/jobs/PREFIX-*",
    "the capability destroy for variables nomad/jobs/PREFIX-*",
];

/// A text to remove from the policy, and the indices of [`RIGHTS`] that are missing then. `read` includes
/// `list`, so only both can be missing.
const REMOVALS: [(&str, &str, &[usize]); 8] = [
    ("\"list-jobs\", ", "", &[0]),
    ("\"read-job\", ", "", &[1]),
    (", \"submit-job\"", "", &[2]),
    ("[\"read\", \"write\"]", "[\"write\"]", &[3]),
    ("[\"read\", \"write\"]", "[\"read\"]", &[4]),
    ("\"list\", \"read\", ", "", &[5, 6]),
    ("\"write\", \"destroy\"", "\"destroy\"", &[7]),
    (", \"destroy\"", "", &[8]),
];

#[tokio::test]
async fn check_names_each_right_that_a_policy_lacks() {
    let Some(agent) = Agent::start(AgentOptions { acl: true, ..AgentOptions::default() }).await else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    // Its jobs wait until it is dropped: `check` starts nothing.
    let _github = SimulatedGitHub::start(directory.path());
    nomad(&agent, &["namespace", "apply", "nomad/namespace.hcl"]).await;
    let policy = std::fs::read_to_string(POLICY).unwrap();
    // Without the examples in its comments.
    let lines = policy.lines().filter(|line| !line.trim_start().starts_with('#'));
    let policy: String = lines.flat_map(|line| [line, "\n"]).collect();
    let check = |token: &str| {
        let output = Command::new(PROGRAM)
            .arg("-c")
            .arg(directory.path().join("config.yml"))
            .arg("check")
            .env("GH_ENTERPRISE_TOKEN", std::fs::read_to_string(directory.path().join("token")).unwrap())
            .env("NOMAD_ADDR", &agent.address)
            .env("NOMAD_TOKEN", token)
            .output()
            .unwrap();
        (output.status.code(), text(&output))
    };
    let (code, lines) = check(&agent.create_token("whole", &policy).await);
    assert_eq!(code, Some(0), "{lines}");
    for right in RIGHTS {
        assert!(
            lines.lines().any(|line| line.starts_with("ok") && line.ends_with(right)),
            "{right}: {lines}"
        );
    }
    for (index, (from, to, missing)) in REMOVALS.into_iter().enumerate() {
        // The last one: what re-runs may do stands before what runners' variables need.
        let at = policy.rfind(from).unwrap_or_else(|| panic!("{from}: the policy is another one now"));
        let less = format!("{}{to}{}", &policy[..at], &policy[at + from.len()..]);
        let (code, lines) = check(&agent.create_token(&format!("less-{index}"), &less).await);
        assert_eq!(code, Some(1), "{from}: {lines}");
        let failures: Vec<&str> = lines.lines().filter(|line| line.starts_with("failure")).collect();
        for right in missing.iter().map(|index| RIGHTS[*index]) {
            assert!(failures.iter().any(|line| line.contains(right)), "{right}: {lines}");
        }
        // Rights that are not missing are not reported.
        let blamed = |line: &&str| missing.iter().any(|index| line.contains(RIGHTS[*index]));
        assert!(failures.iter().all(blamed), "{from}: {lines}");
    }
    // The tests of the rights leave nothing behind.
    let left = nomad(&agent, &["var", "list", "-namespace", "github", "-out", "terse"]).await;
    assert_eq!(left.trim(), "", "{left}");
}

/// Runs a nomad command with the management token. Returns its output; panics with it if the command fails.
async fn nomad(agent: &Agent, args: &[&str]) -> String {
    let output = nomad_output(agent, args).await;
    assert!(output.status.success(), "nomad {args:?}: {}", text(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A command that does not end is killed: `alloc exec` of a path that is not in the chroot waits forever.
async fn nomad_output(agent: &Agent, args: &[&str]) -> Output {
    let mut command = tokio::process::Command::new("nomad");
    command.args(args).env("NOMAD_ADDR", &agent.address).stdin(Stdio::null()).kill_on_drop(true);
    command.env("NOMAD_TOKEN", agent.token.as_deref().unwrap());
    let output = tokio::time::timeout(COMMAND_WITHIN, command.output()).await;
    output.unwrap_or_else(|_| panic!("nomad {args:?}: not done after {COMMAND_WITHIN:?}")).unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// The program's simulated GitHub, in a separate process.
struct SimulatedGitHub {
    process: Child,
    stdout: Option<std::process::ChildStdout>,
}

impl SimulatedGitHub {
    /// Starts it; `directory` then contains the configuration and the token.
    fn start(directory: &Path) -> SimulatedGitHub {
        let mut process = Command::new(PROGRAM)
            .args(["simulated-github", "--stay", "--within", &WITHIN.to_string(), "--directory"])
            .arg(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = process.stdout.take().unwrap();
        // Its first line comes when everything is ready.
        BufReader::with_capacity(1, &mut stdout).read_line(&mut line).unwrap();
        assert!(line.contains("A simulated GitHub is on http://127.0.0.1:"), "{line}");
        let config: PathBuf = directory.join("config.yml");
        assert!(config.exists());
        SimulatedGitHub { process, stdout: Some(stdout) }
    }

    /// Ends it. Returns its output.
    fn end(mut self) -> String {
        let _ = self.process.kill();
        std::io::read_to_string(self.stdout.take().unwrap()).unwrap()
    }
}

impl Drop for SimulatedGitHub {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
