//! The operators' questions: list, logs, explain. Against a real Nomad agent if Nomad's responses matter.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use githubrunner_sim::github::Status;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::common::{
    nomad_agent::{Agent, AgentOptions},
    site::{NAMESPACE, Site, TOKEN, WITHIN},
};

/// A site on a real agent whose runner begins with these lines of shell script, and its configuration. Dead runners
/// stay.
async fn on(agent: &Agent, first: &str) -> (Site, String) {
    agent.create_namespace(NAMESPACE).await;
    let mut site = Site::start().await;
    site.nomad = agent.address.clone();
    let runner = site.stand_in_after(first);
    let settings = format!("template_settings: {{runner_directory: \"{}\"}}\n", runner.display());
    let config = site.config(&settings).replace("timeout: 1s", "timeout: 1h");
    (site, config)
}

/// The output of `list` once it contains this.
async fn lists(site: &Site, config: &str, arguments: &[&str], wanted: &str) -> String {
    let deadline = Instant::now() + WITHIN;
    loop {
        let out = site.call_with(config, &[&["list"], arguments].concat()).await.well();
        if out.contains(wanted) {
            return out;
        }
        assert!(Instant::now() < deadline, "it never says {wanted:?}:\n{out}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_show_a_runners_output_on_a_real_agent() {
    let Some(agent) = Agent::start(AgentOptions::default()).await else { return };
    let marks = tempfile::tempdir().unwrap();
    let mark = marks.path().join("go-on");
    let first = format!(
        "echo 'to its \u{1b}[2Jout'; until [ -e '{}' ]; do sleep 0.1; done; echo 'to its err' >&2; echo 'and more'",
        mark.display()
    );
    let (site, config) = on(&agent, &first).await;
    site.queue(&["nomadtools"], 300);
    site.call_with(&config, &["once"]).await.well();
    lists(&site, &config, &[], "running").await;
    let id = site.call_with(&config, &["list", "-q"]).await.well().trim().to_owned();

    let deadline = Instant::now() + WITHIN;
    loop {
        let logs = site.call_with(&config, &["logs", &id]).await;
        if logs.code == 0 && logs.out.contains("out\n") {
            // Not a terminal: the output is unchanged.
            assert_eq!(logs.out, "to its \u{1b}[2Jout\n");
            break;
        }
        assert!(Instant::now() < deadline, "{logs:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let last = site.call_with(&config, &["logs", &id, "--bytes", "4"]).await;
    assert_eq!(last.out, "out\n");

    // Followed to its end, which comes by itself. Nomad does not answer for standard error before something is written
    // there.
    let mut program = site.program();
    program.arg("-c").arg(site.write_config(&config)).args(["logs", "-f", &id]);
    let mut child = program.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "to its \u{1b}[2Jout");
    std::fs::write(&mark, "").unwrap();
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "and more");
    let ended = tokio::time::timeout(WITHIN, child.wait_with_output()).await.unwrap().unwrap();
    assert!(ended.status.success() && ended.stderr.starts_with(b"to its err\n"), "{ended:?}");

    let unknown = site.call_with(&config, &["logs", "NTGithubRunner-nonsense"]).await.failed(1);
    assert!(
        unknown.contains("NTGithubRunner-nonsense") && unknown.contains("githubrunner list"),
        "{unknown}"
    );
    // The dead are listed on request, with how they ended.
    let all = lists(&site, &config, &["-a"], "dead").await;
    assert!(all.contains("success"), "{all}");
    assert_eq!(site.call_with(&config, &["list", "-q"]).await.well(), "");
    let table = site.call_with(&config, &["list"]).await.well();
    assert!(!table.contains(&id) && table.contains("1 dead: use -a"), "{table}");
}

#[tokio::test]
async fn list_shows_the_jobs_url_and_what_a_runner_is_waiting_for() {
    let site = Site::start_with(githubrunner_sim::nomad::Options {
        nodes: Vec::new(),
        ..githubrunner_sim::nomad::Options::default()
    })
    .await;
    let job = site.queue(&["nomadtools"], 600_000);
    site.call(&["once"]).await;
    let out = site.call(&["list"]).await.well();
    let mut lines = out.lines();
    let head: Vec<&str> =
        lines.next().unwrap().split("  ").map(str::trim).filter(|word| !word.is_empty()).collect();
    assert_eq!(head, ["ID", "REPOSITORY", "LABELS", "STATE", "AGE", "NODE", "GITHUB JOB", "NOTE"]);
    let line = lines.next().unwrap();
    assert!(line.contains(&format!("/acme/app/runs/{job} ")), "{out}");
    assert!(line.contains(" pending ") && line.contains("no node is up"), "{out}");

    let names = |out: String| out.lines().count();
    assert_eq!(names(site.call(&["list", "-q"]).await.well()), 1);
    assert_eq!(names(site.call(&["list", "-q", "-r", "ACME"]).await.well()), 1);
    assert_eq!(names(site.call(&["list", "-q", "-r", "acme/other"]).await.well()), 0);
    assert_eq!(names(site.call(&["list", "-q", "--state", "running", "--state", "dead"]).await.well()), 0);
    let failed = site.call(&["list", "--state", "nonsense"]).await.failed(2);
    assert!(failed.contains("disconnected"), "it names them: {failed}");
    assert_eq!(site.status(job), Status::Queued);
}

#[tokio::test]
async fn a_watched_list_ends_with_a_signal() {
    let site = Site::start().await;
    let mut program = site.program();
    program.arg("-c").arg(site.write_config(&site.config(""))).args(["list", "--watch"]);
    let mut child = program.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next_line().await.unwrap().unwrap().starts_with("ID "));
    let id = child.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let status = tokio::time::timeout(WITHIN, child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
}

/// The output of `explain` once it contains this, with its exit code.
async fn explains(site: &Site, config: &str, target: &str, wanted: &str) -> (i32, String) {
    let deadline = Instant::now() + WITHIN;
    loop {
        let said = site.call_with(config, &["explain", target]).await;
        if said.out.contains(wanted) {
            return (said.code, said.out);
        }
        assert!(Instant::now() < deadline, "it never says {wanted:?}: {said:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The line of a step.
fn step<'a>(out: &'a str, name: &str) -> &'a str {
    let is_of = |line: &&str| line.split_whitespace().take(3).any(|word| word == name);
    out.lines().find(is_of).unwrap_or_else(|| panic!("no {name} in\n{out}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_shows_the_state_of_jobs_on_a_real_agent() {
    let Some(agent) = Agent::start(AgentOptions::default()).await else { return };
    let (site, config) = on(&agent, "").await;
    let daemon = site.run(&config);
    let page = |job: u64| {
        let run = site.world().github.job(job).unwrap().run;
        format!("https://github.com/acme/app/actions/runs/{run}/job/{job}")
    };

    let held = site.queue(&["nomadtools a,b"], 500);
    let (code, out) = explains(&site, &config, &page(held), "has a comma").await;
    assert_eq!(code, 1, "{out}");
    assert!(step(&out, "labels").starts_with("> HELD"), "{out}");
    assert!(out.contains("to do: change `runs-on`"), "{out}");
    assert!(step(&out, "match").contains(" ok "), "{out}");

    let pending = site.queue(&["nomadtools mem=9000000"], 500);
    let (code, out) = explains(&site, &config, &page(pending), "cannot place it").await;
    assert_eq!(code, 1, "{out}");
    assert!(step(&out, "evaluation").starts_with("> HELD") && out.contains("memory exhausted"), "{out}");
    assert!(step(&out, "registration").contains(", attempt 1"), "{out}");
    let id = step(&out, "registration")
        .split_whitespace()
        .find(|word| word.starts_with("NTGithubRunner-"))
        .unwrap();
    let (code, by_runner) = explains(&site, &config, id.trim_end_matches(','), "cannot place it").await;
    assert!(code == 1 && by_runner.starts_with("runner NTGithubRunner-"), "{by_runner}");

    let served = site.queue(&["nomadtools"], 600_000);
    site.in_progress(served).await;
    // Nomad learns slightly later than GitHub that the task has started.
    let (code, out) = explains(&site, &config, &page(served), "  ok   task ").await;
    assert!(out.contains("taken by NTGithubRunner-"), "{out}");
    assert_eq!(code, 0, "{out}");
    for name in ["status", "registration", "placement", "credentials", "task", "connection"] {
        assert!(step(&out, name).contains(" ok "), "{name} in\n{out}");
    }
    println!("{out}");

    // The whole repository: its worst job determines the exit code, and the JSON has the same content.
    let (code, out) = explains(&site, &config, "ACME/app", "has a comma").await;
    assert!(code == 1 && out.starts_with("acme/app: nothing is wrong"), "{out}");
    let json = site.call_with(&config, &["explain", "--json", "acme/app"]).await;
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    let verdicts: Vec<&str> =
        json["explanations"].as_array().unwrap().iter().map(|one| one["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["served", "held", "held", "served"], "{json:#}");
    assert_eq!(json["exit_code"], 1);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_shows_what_a_starting_task_is_waiting_for_on_a_real_agent() {
    let Some(agent) = Agent::start(AgentOptions::default()).await else { return };
    let (site, config) = on(&agent, "").await;
    let missing = r#"{extra_task: "template {\n data = \"{{ with nomadVar \\\"nomad/jobs/ci\\\" }}{{ .key }}{{ end }}\"\n destination = \"local/ci\"\n}", "#;
    let config = config.replace("template_settings: {", &format!("template_settings: {missing}"));
    let job = site.queue(&["nomadtools"], 500);
    let target = format!("https://github.com/acme/app/runs/{job}");
    let (code, out) = explains(&site, &config, &target, "the next pass starts NTGithubRunner-").await;
    assert!(code == 0 && out.contains("on its way"), "nobody acts yet: {out}");
    let daemon = site.run(&config);
    let (code, out) = explains(&site, &config, &target, "Missing: nomad.var").await;
    assert!(code == 0 && out.contains("on its way"), "{out}");
    let line = step(&out, "task");
    assert!(
        line.contains(" now ") && line.contains("has not started yet, last event: Missing: nomad.var"),
        "{out}"
    );
    assert!(step(&out, "credentials").contains(" ok "), "{out}");
    println!("{out}");
    daemon.end().await;
}

#[tokio::test]
async fn explain_knows_what_no_pass_lists() {
    let site = Site::start().await;
    let config = site.config("");
    // Over, and in no list of waiting or running ones.
    let daemon = site.run(&config);
    let job = site.queue(&["nomadtools"], 200);
    site.served(job).await;
    let run = site.world().github.job(job).unwrap().run;
    let target = format!("https://github.com/acme/app/actions/runs/{run}/job/{job}");
    let out = site.call(&["explain", &target]).await.well();
    assert!(step(&out, "status").contains("completed: success"), "{out}");
    let out =
        site.call(&["explain", &format!("https://github.com/acme/app/actions/runs/{run}")]).await.well();
    assert!(out.contains(&format!("job {job} ")), "{out}");
    daemon.end().await;

    for (target, words) in [
        ("https://github.com/acme/app/runs/99999999", "has no job 99999999"),
        ("https://github.com/acme/app/actions/runs/99999999", "has no run 99999999"),
        ("acme/nothing", "does not exist, or the token cannot see it"),
        ("NTGithubRunner-nonsense", "Nomad has no runner NTGithubRunner-nonsense"),
        ("https://example.com/", "pass the URL"),
    ] {
        let said = site.call(&["explain", target]).await;
        assert!(
            said.code == 2 && said.out.starts_with("not found: ") && said.out.contains(words),
            "{said:?}"
        );
    }

    let (archived, other) = {
        let mut world = site.world();
        (world.github.add_repository("acme/archived"), world.github.add_repository("acme/other"))
    };
    site.world().github.repository_mut(archived).unwrap().archived = true;
    assert_ne!(archived, other);
    let all = site.config("").replace("repos: [acme/app]", "repos: [acme/app, acme/archived]");
    for (target, words) in [("acme/archived", "archived or disabled"), ("acme/other", "no longer configured")]
    {
        let said = site.call_with(&all, &["explain", target]).await;
        assert!(said.code == 1 && said.out.contains(words) && said.out.contains("to do: "), "{said:?}");
    }

    // Without Nomad nothing is done at all, and that is the answer.
    let mut nowhere = site.program();
    let config = site.write_config(&config);
    nowhere.env("NOMAD_ADDR", "http://127.0.0.1:1").arg("-c").arg(config).args(["explain", "acme/app"]);
    let said = nowhere.output().await.unwrap();
    let out = String::from_utf8(said.stdout).unwrap();
    assert!(said.status.code() == Some(1) && step(&out, "nomad").starts_with("> HELD"), "{out}");
}

#[tokio::test]
async fn the_output_of_init_passes_check() {
    let site = Site::start().await;
    let directory = tempfile::tempdir().unwrap();
    let (config, token) = (directory.path().join("new/config.yml"), directory.path().join("token"));
    std::fs::write(&token, format!("{TOKEN}\n")).unwrap();
    let mut init = site.program();
    init.args(["init", "--repo", "acme/app", "--template", "builtin:raw_exec"])
        .args(["--github-url", &site.github])
        .arg("--output")
        .arg(&config)
        .arg("--token-file")
        .arg(&token);
    let output = init.output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let written = std::fs::read_to_string(&config).unwrap();
    assert!(written.starts_with("# yaml-language-server: $schema=") && !written.contains(TOKEN), "{written}");
    let mut check = site.program();
    let output = check.arg("-c").arg(&config).args(["check", "--strict"]).output().await.unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{out}");
    assert!(out.contains("acme/app: runners can be registered"), "{out}");
    assert_eq!(init.output().await.unwrap().status.code(), Some(1), "it does not overwrite");
}

#[tokio::test]
async fn the_files_for_a_package_are_printed_without_a_configuration() {
    let site = Site::start().await;
    for (arguments, words) in [
        (&["completion", "bash"][..], "_githubrunner"),
        (&["completion", "zsh"], "#compdef githubrunner"),
        (&["completion", "fish"], "complete -c githubrunner"),
        (&["man"], ".TH githubrunner"),
        (&["schema"], "\"purge_failure_timeout\""),
        (&["check", "--from-nomadtools", "repos: [acme]\n"], "differs  "),
    ] {
        let output = site.program().args(arguments).output().await.unwrap();
        let out = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && out.contains(words), "{arguments:?}: {out}");
    }
    let bad = site
        .program()
        .args(["check", "--from-nomadtools", "repos: [acme]\nlopo: 1\n"])
        .output()
        .await
        .unwrap();
    assert_eq!(bad.status.code(), Some(2), "{bad:?}");
    assert_eq!(site.requests(githubrunner_sim::fault::Side::Nomad), 0);
}
