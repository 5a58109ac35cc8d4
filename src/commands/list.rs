//! `list`: the runners in Nomad, as a table, as JSON, as names, or redrawn continuously.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Write},
    time::Duration,
};

use anyhow::Context;
use serde::Serialize;

use super::{Style, keys::Keys, status::Daemon, style::Mood, table::Table};
use crate::{
    cli::List,
    model::{Foreign, JobId, NomadView, Ownership, Runner, RunnerState, age, span},
    nomad::Nomad,
    text::{LINE, harmless_json, shown},
};

/// How many characters of a runner's note the table shows; the JSON has all of it.
const SHOWN_NOTE: usize = 200;

/// How often `--watch` updates.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// A runner in `list --json`. Times are RFC 3339.
#[derive(Serialize)]
struct Row<'a> {
    id: &'a str,
    repository: &'a str,
    labels: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'a str>,
    /// Where its job is; absent for the daemon's own namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    state: &'static str,
    finish: Option<String>,
    reason: Option<String>,
    age_seconds: Option<u64>,
    submitted_at: Option<String>,
    node: Option<&'a str>,
    allocation: Option<&'a str>,
    github_job: Option<JobId>,
    github_job_url: Option<String>,
    /// A warm runner, which was started for no job.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    warm: bool,
    attempt: Option<u32>,
    registration: Option<String>,
    owner: &'static str,
    note: Option<String>,
}

/// Lists the runners of this deployment, and nomadtools' own. With `names`, only their IDs.
///
/// # Errors
/// Nomad cannot be read, or `out` cannot be written.
pub async fn run(
    nomad: &Nomad,
    daemon: Option<&Daemon>,
    args: &List,
    names: bool,
    style: Style,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    if args.watch {
        return watch(nomad, daemon, args, style, out).await;
    }
    let view = nomad.observe().await.context("listing the runners")?;
    let rows = rows(&view, &holds(daemon).await?, args);
    if args.json || names {
        say_unseen(&view);
    }
    if args.json {
        writeln!(out, "{}", harmless_json(&serde_json::to_string_pretty(&rows)?))?;
    } else if names {
        for row in rows {
            writeln!(out, "{}", shown(row.id, LINE))?;
        }
    } else {
        for line in table(&view, args, &rows) {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

/// Warns of each namespace that could not be read: the list lacks its runners.
pub(super) fn say_unseen(view: &NomadView) {
    for unseen in view.unseen.values() {
        tracing::warn!("{unseen}");
    }
}

/// The daemon's notes on runners, by their IDs.
type Holds = BTreeMap<String, String>;

async fn holds(daemon: Option<&Daemon>) -> anyhow::Result<Holds> {
    match daemon {
        Some(daemon) => daemon.holds_of_runners().await,
        None => Ok(Holds::new()),
    }
}

/// Redraws the table until `q`, Ctrl-C or SIGTERM.
async fn watch(
    nomad: &Nomad,
    daemon: Option<&Daemon>,
    args: &List,
    style: Style,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let mut signals = super::run::listen(0)?;
    // Without a terminal, the tables are printed one after the other.
    let mut keys = io::stdout().is_terminal().then(Keys::take);
    loop {
        let looked = async { anyhow::Ok((nomad.observe().await?, holds(daemon).await?)) };
        let mut lines = match looked.await {
            Ok((view, holds)) => table(&view, args, &rows(&view, &holds, args)),
            Err(error) => vec![style.paint(Mood::Bad, &shown(&format!("{error:#}"), LINE).to_string())],
        };
        if keys.is_some() {
            lines.insert(0, format!("{} UTC, every {} s; press q to quit", now(), WATCH_EVERY.as_secs()));
            out.write_all(page(&lines, terminal_size::terminal_size()).as_bytes())?;
        } else {
            writeln!(out, "{}\n", lines.join("\n"))?;
        }
        out.flush()?;
        let pressed = async {
            match &mut keys {
                Some(keys) => keys.pressed(b'q').await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = signals.shutdown.wait_for(|shutdown| *shutdown) => return Ok(()),
            () = pressed => return Ok(()),
            () = tokio::time::sleep(WATCH_EVERY) => {}
        }
    }
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%H:%M:%S").to_string()
}

/// A full page. Each line overwrites the previous one, and what does not fit is left out.
fn page(lines: &[String], size: Option<(terminal_size::Width, terminal_size::Height)>) -> String {
    let (width, height) = size.map_or((100, 40), |(width, height)| (width.0.into(), usize::from(height.0)));
    let mut page = "\x1b[H".to_owned();
    let fits = height.saturating_sub(1);
    let cut = if lines.len() > fits { fits.saturating_sub(1) } else { lines.len() };
    for line in &lines[..cut] {
        let line: String = line.chars().take(width).collect();
        // Ends a colour whose end was truncated.
        page.push_str(&format!("{line}\x1b[0m\x1b[K\r\n"));
    }
    if cut < lines.len() {
        page.push_str(&format!("… {} more\x1b[K\r\n", lines.len() - cut));
    }
    page + "\x1b[J"
}

/// The selected runners. Dead ones are always in the JSON, and otherwise included with `--all` or if their state is
/// selected.
fn rows<'a>(view: &'a NomadView, holds: &Holds, args: &List) -> Vec<Row<'a>> {
    let mut runners: Vec<&Runner> = view.runners.iter().collect();
    runners.sort_by_key(|runner| (runner.state, runner.submitted_at, runner.name.as_str()));
    let rows = runners.into_iter().map(|runner| row(view, holds, runner));
    rows.chain(view.foreign.iter().map(foreign_row)).filter(|row| is_wanted(row, args)).collect()
}

fn is_wanted(row: &Row, args: &List) -> bool {
    let of_repository = args.repo.is_empty() || args.repo.iter().any(|repo| is_of(row.repository, repo));
    let in_state = match args.state.as_slice() {
        [] => args.all || args.json || row.state != RunnerState::Dead.as_str(),
        states => states.iter().any(|state| state == row.state),
    };
    of_repository && in_state
}

/// Whether a repository matches `owner/name` or an owner.
fn is_of(repository: &str, meant: &str) -> bool {
    let owner = repository.split('/').next().unwrap_or_default();
    !repository.is_empty() && [repository, owner].iter().any(|name| name.eq_ignore_ascii_case(meant))
}

fn table(view: &NomadView, args: &List, rows: &[Row]) -> Vec<String> {
    let mut table = Table::new(["ID", "REPOSITORY", "LABELS", "STATE", "AGE", "NODE", "GITHUB JOB", "NOTE"]);
    for row in rows {
        let age = row.age_seconds.map(|age| span(Duration::from_secs(age))).unwrap_or_default();
        let number = row.github_job.map(|job| job.to_string());
        let warm = || if row.warm { "warm".to_owned() } else { String::new() };
        let job = row.github_job_url.clone().or(number).unwrap_or_else(warm);
        let class = row.class.map(|class| format!("class {class}"));
        let namespace = row.namespace.as_ref().map(|namespace| format!("namespace {namespace}"));
        let note: Vec<&str> =
            [&class, &namespace, &row.note].into_iter().filter_map(|one| one.as_deref()).collect();
        let note = note.join(": ");
        let note = shown(&note, SHOWN_NOTE).to_string();
        let node = row.node.unwrap_or_default();
        table.row([row.id, row.repository, &row.labels.join(","), row.state, &age, node, &job, &note]);
    }
    let mut lines = table.lines();
    lines.extend(view.unseen.values().map(|unseen| shown(&unseen.to_string(), LINE).to_string()));
    let of_repository = List { state: vec![RunnerState::Dead.as_str().to_owned()], ..args.clone() };
    let is_hidden = !args.all && args.state.is_empty();
    let dead = if is_hidden { self::rows(view, &Holds::new(), &of_repository).len() } else { 0 };
    if dead > 0 {
        lines.push(format!("{dead} dead: use -a to show them and why they died"));
    }
    lines
}

fn row<'a>(view: &NomadView, holds: &Holds, runner: &'a Runner) -> Row<'a> {
    Row {
        id: &runner.name,
        repository: repository_of(runner),
        labels: runner.labels().shown().map(str::to_owned).collect(),
        class: runner.class(),
        namespace: runner.namespace.as_ref().map(ToString::to_string),
        state: runner.state.as_str(),
        finish: runner.finish.as_ref().map(ToString::to_string),
        reason: runner.blocked.as_ref().map(|blocked| blocked.reason.clone()),
        age_seconds: Some(age(view.now, runner.submitted_at).as_secs()),
        submitted_at: Some(runner.submitted_at.to_string()),
        node: runner.allocation.as_ref().map(|allocation| allocation.node.as_str()),
        allocation: runner.allocation.as_ref().map(|allocation| allocation.id.as_str()),
        github_job: runner.meta.job_id(),
        github_job_url: job_url(runner),
        warm: runner.warm().is_some(),
        attempt: runner.meta.attempt,
        registration: Some(runner.registration().to_string()),
        owner: match runner.ownership {
            Ownership::Ours => "githubrunner",
            Ownership::Nomadtools => "nomadtools",
        },
        note: note(runner, holds.get(&runner.name)),
    }
}

/// The URL of the job that the runner was started for. GitHub redirects from it to the run's page, whose ID is not
/// known here.
pub(super) fn job_url(runner: &Runner) -> Option<String> {
    let (repository, job) = (runner.repository()?, runner.meta.job_id()?);
    Some(format!("{}/runs/{job}", repository.html_url))
}

/// What it is waiting for, in the daemon's words if it has any, or how it ended.
fn note(runner: &Runner, hold: Option<&String>) -> Option<String> {
    if let Some(hold) = hold.filter(|_| runner.is_live()) {
        return Some(hold.clone());
    }
    let event =
        || runner.last_event.as_ref().map(|event| format!(", last event: {event}")).unwrap_or_default();
    Some(match runner.state {
        RunnerState::Pending => match &runner.blocked {
            Some(blocked) => blocked.reason.clone(),
            None => "waiting for Nomad to place it".to_owned(),
        },
        RunnerState::Waiting => "waiting for its credentials".to_owned(),
        RunnerState::Starting => format!("its task is starting{}", event()),
        RunnerState::Running => return None,
        RunnerState::Stopping => "told to stop".to_owned(),
        RunnerState::Disconnected => "node disconnected (client status unknown)".to_owned(),
        RunnerState::Dead => runner.how_it_ended(),
    })
}

/// A job that claims to be ours and is not: nothing but its name is trusted.
fn foreign_row(foreign: &Foreign) -> Row<'_> {
    let reason = foreign.reason.to_string();
    Row {
        id: &foreign.name,
        repository: "",
        labels: Vec::new(),
        class: None,
        namespace: None,
        state: "foreign",
        finish: None,
        reason: Some(reason.clone()),
        age_seconds: None,
        submitted_at: None,
        node: None,
        allocation: None,
        github_job: None,
        github_job_url: None,
        warm: false,
        attempt: None,
        registration: None,
        owner: "foreign",
        note: Some(reason),
    }
}

/// `owner/name`, from the URL in the Meta.
fn repository_of(runner: &Runner) -> &str {
    let url = runner.meta.repo_url.trim_end_matches('/');
    let path = url.split_once("://").map_or(url, |(_, rest)| rest);
    path.split_once('/').map_or(path, |(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_matches_its_name_or_its_owners() {
        for meant in ["acme/app", "Acme/App", "acme", "ACME"] {
            assert!(is_of("acme/app", meant), "{meant}");
        }
        for meant in ["acme/ap", "app", "", "acme/app/x"] {
            assert!(!is_of("acme/app", meant), "{meant}");
        }
        assert!(!is_of("", ""), "a foreign job has none");
    }

    #[test]
    fn a_page_is_no_larger_than_the_terminal() {
        let lines: Vec<String> = (0..50).map(|line| format!("{line} {}", "x".repeat(200))).collect();
        let size = Some((terminal_size::Width(20), terminal_size::Height(10)));
        let text = page(&lines, size);
        assert_eq!(text.matches("\r\n").count(), 9);
        assert!(text.contains("… 42 more"), "{text:?}");
        assert!(text.split("\r\n").all(|line| {
            line.replace("\x1b[H", "").replace("\x1b[0m", "").replace("\x1b[K", "").chars().count() <= 20
        }));
        assert_eq!(page(&lines[..9], size).matches("\r\n").count(), 9);
    }
}
