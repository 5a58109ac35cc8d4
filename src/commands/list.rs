//! `list`: the runners in Nomad, as a table or as JSON.

use std::io::Write;

use anyhow::Context;
use serde::Serialize;

use super::table::Table;
use crate::{
    model::{Foreign, NomadView, Ownership, Runner, age, span},
    nomad::Nomad,
    text::{harmless_json, shown},
};

/// How much a table says of why a runner is where it is, in characters; the JSON says all of it.
const SHOWN_DETAIL: usize = 200;

/// A runner as `list --json` shows it. Times are RFC 3339.
#[derive(Serialize)]
struct Row<'a> {
    id: &'a str,
    repository: &'a str,
    labels: Vec<String>,
    state: &'static str,
    finish: Option<String>,
    reason: Option<String>,
    age_seconds: Option<u64>,
    submitted_at: Option<String>,
    node: Option<&'a str>,
    allocation: Option<&'a str>,
    github_job: Option<u64>,
    attempt: Option<u32>,
    registration: Option<String>,
    owner: &'static str,
}

/// Lists the runners of this instance, and nomadtools' own.
///
/// # Errors
/// Nomad cannot be read, or `out` cannot be written.
pub async fn run(nomad: &Nomad, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let view = nomad.observe().await.context("listing the runners")?;
    let mut runners: Vec<&Runner> = view.runners.iter().collect();
    runners.sort_by_key(|runner| (runner.state, runner.submitted_at, runner.name.as_str()));
    if json {
        let rows = runners.iter().map(|runner| row(&view, runner));
        let rows: Vec<Row> = rows.chain(view.foreign.iter().map(foreign_row)).collect();
        writeln!(out, "{}", harmless_json(&serde_json::to_string_pretty(&rows)?))?;
        return Ok(());
    }
    let mut table = Table::new(["ID", "REPOSITORY", "LABELS", "STATE", "AGE", "NODE", "GITHUB JOB"]);
    let rows = runners.into_iter().map(|runner| row(&view, runner));
    for row in rows.chain(view.foreign.iter().map(foreign_row)) {
        let detail = row.finish.as_deref().or(row.reason.as_deref());
        let state = detail.map_or(row.state.to_owned(), |detail| {
            format!("{} ({})", row.state, shown(detail, SHOWN_DETAIL))
        });
        let age = row.age_seconds.map(|age| span(std::time::Duration::from_secs(age))).unwrap_or_default();
        let job = row.github_job.map(|job| job.to_string()).unwrap_or_default();
        let node = row.node.unwrap_or_default();
        table.row([row.id, row.repository, &row.labels.join(","), &state, &age, node, &job]);
    }
    table.write(out)?;
    Ok(())
}

fn row<'a>(view: &NomadView, runner: &'a Runner) -> Row<'a> {
    Row {
        id: &runner.name,
        repository: repository_of(runner),
        labels: runner.labels().shown().map(str::to_owned).collect(),
        state: runner.state.as_str(),
        finish: runner.finish.as_ref().map(ToString::to_string),
        reason: runner.blocked.as_ref().map(|blocked| blocked.reason.clone()),
        age_seconds: Some(age(view.now, runner.submitted_at).as_secs()),
        submitted_at: Some(runner.submitted_at.to_string()),
        node: runner.allocation.as_ref().map(|allocation| allocation.node.as_str()),
        allocation: runner.allocation.as_ref().map(|allocation| allocation.id.as_str()),
        github_job: runner.meta.job_id,
        attempt: runner.meta.attempt,
        registration: Some(runner.registration().to_string()),
        owner: match runner.ownership {
            Ownership::Ours => "githubrunner",
            Ownership::Nomadtools => "nomadtools",
        },
    }
}

/// A job that says it is ours and is not: only its name is believed.
fn foreign_row(foreign: &Foreign) -> Row<'_> {
    Row {
        id: &foreign.name,
        repository: "",
        labels: Vec::new(),
        state: "foreign",
        finish: None,
        reason: Some(foreign.reason.to_string()),
        age_seconds: None,
        submitted_at: None,
        node: None,
        allocation: None,
        github_job: None,
        attempt: None,
        registration: None,
        owner: "foreign",
    }
}

/// `owner/name`, from the address that the Meta holds.
fn repository_of(runner: &Runner) -> &str {
    let url = runner.meta.repo_url.trim_end_matches('/');
    let path = url.split_once("://").map_or(url, |(_, rest)| rest);
    path.split_once('/').map_or(path, |(_, path)| path)
}
