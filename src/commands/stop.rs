//! `stop` and `purge`: what the daemon does by itself, on demand, with the same consent.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    time::Duration,
};

use anyhow::{Context, bail};
use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use super::{
    Setup,
    progress::{Progress, beside},
};
use crate::model::{
    Action, CleanUp, Consent, NomadView, Outcome, Plan, Purge, PurgeReason, Registration, Report, Runner,
    RunnerState, Stop, StopReason,
};

/// So long `purge` waits for what it stopped to die: Nomad's default kill_timeout is 5 s, the client's
/// longest 30 s (contract nomad.md §12).
const DYING_AT_MOST: Duration = Duration::from_secs(40);

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Which runners are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// These.
    Ids(Vec<String>),
    /// All that are dead.
    Dead,
    /// All.
    All,
}

impl Selection {
    fn of<'a>(&self, view: &'a NomadView) -> anyhow::Result<Vec<&'a Runner>> {
        match self {
            Selection::All => Ok(view.runners.iter().collect()),
            Selection::Dead => {
                Ok(view.runners.iter().filter(|runner| runner.state == RunnerState::Dead).collect())
            }
            Selection::Ids(ids) => ids
                .iter()
                .map(|id| {
                    let runner = view.runners.iter().find(|runner| runner.name == *id);
                    runner.with_context(|| {
                        format!("{id} is not one of our runners; `githubrunner list` shows them")
                    })
                })
                .collect(),
        }
    }
}

/// Stops the selected runners that are alive. Whether all of them stopped.
///
/// # Errors
/// Nomad cannot be read, an ID is not ours, the person says no.
pub async fn stop(
    setup: &Setup,
    selection: Selection,
    yes: bool,
    out: &mut dyn Write,
) -> anyhow::Result<bool> {
    let view = setup.nomad.observe().await.context("listing the runners")?;
    let alive = alive(selection.of(&view)?);
    confirm("stop", alive.len(), yes)?;
    stop_all(setup, &view, &alive, out).await
}

/// Purges the selected runners; those alive are stopped first. Whether all of them are gone.
///
/// # Errors
/// As for [`stop`].
pub async fn purge(
    setup: &Setup,
    selection: Selection,
    yes: bool,
    out: &mut dyn Write,
) -> anyhow::Result<bool> {
    let mut view = setup.nomad.observe().await.context("listing the runners")?;
    let selected = selection.of(&view)?;
    confirm("purge", selected.len(), yes)?;
    let names: Vec<String> = selected.iter().map(|runner| runner.name.clone()).collect();
    let stopped = stop_all(setup, &view, &alive(selected), out).await?;
    if setup.dry_run {
        return Ok(stopped);
    }

    let deadline = Instant::now() + DYING_AT_MOST;
    let is_dying = |runner: &Runner| names.contains(&runner.name) && runner.state == RunnerState::Stopping;
    view = setup.nomad.observe().await?;
    let progress = Progress::going_on("waiting for what was stopped to end");
    while view.runners.iter().any(is_dying) && Instant::now() < deadline {
        tokio::time::sleep(LOOK_EVERY).await;
        view = setup.nomad.observe().await?;
    }
    drop(progress);
    let dead: Vec<&Runner> = view
        .runners
        .iter()
        .filter(|runner| names.contains(&runner.name) && runner.state == RunnerState::Dead)
        .collect();
    let clean_ups = dead.iter().filter(|runner| runner.variable.is_some()).map(|runner| {
        Action::CleanUp(CleanUp {
            name: runner.name.clone(),
            repository: Some(runner.repository()),
            class: runner.class().map(str::to_owned),
            finish: runner.how_it_ended(),
        })
    });
    let cleaned = perform(setup, &view, clean_ups.collect(), out).await?;
    let purges = dead.iter().filter(|runner| runner.variable.is_none() || cleaned).map(|runner| {
        let in_job = runner.registration() == Registration::AccessToken && runner.started;
        let repository = in_job.then(|| runner.repository());
        let class = runner.class().map(str::to_owned);
        Action::Purge(Purge { name: runner.name.clone(), repository, class, reason: PurgeReason::Asked })
    });
    let purged = perform(setup, &view, purges.collect(), out).await?;
    let left = view.runners.iter().filter(|runner| names.contains(&runner.name)).count() - dead.len();
    if left > 0 {
        writeln!(out, "{left} still alive; `githubrunner list` shows them")?;
    }
    Ok(stopped && cleaned && purged && left == 0)
}

fn alive(runners: Vec<&Runner>) -> Vec<&Runner> {
    let stops = |runner: &&Runner| !matches!(runner.state, RunnerState::Dead | RunnerState::Stopping);
    runners.into_iter().filter(stops).collect()
}

async fn stop_all(
    setup: &Setup,
    view: &NomadView,
    runners: &[&Runner],
    out: &mut dyn Write,
) -> anyhow::Result<bool> {
    let action = |runner: &&Runner, consent| {
        Action::Stop(Stop {
            name: runner.name.clone(),
            repository: runner.repository(),
            class: runner.class().map(str::to_owned),
            consent,
            registration: runner.registration(),
            reason: StopReason::Asked,
        })
    };
    let consent =
        |runner: &Runner| if runner.may_have_process() { Consent::GitHub } else { Consent::NeverStarted };
    let actions = runners.iter().map(|runner| action(runner, consent(runner))).collect();
    let mut absent = Vec::new();
    // A JIT runner that GitHub does not list can get no job. The others may bear another name there.
    let stopped = each(setup, view, "stopping", actions, |report| match report.outcome {
        Outcome::Absent => {
            absent.push(report);
            Ok(true)
        }
        _ => print(&report, out),
    })
    .await?;
    let is_absent = |runner: &&&Runner| absent.iter().any(|report| report.action.runner() == runner.name);
    let (jit, other): (Vec<&&Runner>, Vec<&&Runner>) =
        runners.iter().filter(is_absent).partition(|runner| runner.registration() == Registration::Jit);
    for runner in &other {
        let name = &runner.name;
        writeln!(out, "{name}: GitHub lists no runner of this name; if it is idle: nomad job stop {name}")?;
    }
    let unregistered = jit.into_iter().map(|runner| action(runner, Consent::Unregistered)).collect();
    Ok(perform(setup, view, unregistered, out).await? && stopped && other.is_empty())
}

async fn perform(
    setup: &Setup,
    view: &NomadView,
    actions: Vec<Action>,
    out: &mut dyn Write,
) -> anyhow::Result<bool> {
    let what = match actions.first() {
        Some(Action::Stop(_)) => "stopping",
        Some(Action::CleanUp(_)) => "cleaning up",
        _ => "purging",
    };
    each(setup, view, what, actions, |report| print(&report, out)).await
}

/// Performs actions, several at once, and tells of each as soon as it and those before it are done. Whether all went well.
async fn each(
    setup: &Setup,
    view: &NomadView,
    what: &'static str,
    actions: Vec<Action>,
    mut told: impl FnMut(Report) -> anyhow::Result<bool>,
) -> anyhow::Result<bool> {
    let progress = Progress::of(what, actions.len());
    let apply = setup.apply(view);
    let apply = &apply;
    let mut reports = stream::iter(actions)
        .map(|action| async move { apply.apply(&Plan { actions: vec![action], ..Plan::default() }).await })
        .buffered(setup.config.parallel.max(1));
    let mut well = true;
    while let Some(reports) = reports.next().await {
        for report in reports {
            well &= told(report)?;
        }
        progress.step();
    }
    Ok(well)
}

/// A line. Whether it went well.
fn print(Report { action, outcome }: &Report, out: &mut dyn Write) -> anyhow::Result<bool> {
    beside(|| writeln!(out, "{action}: {outcome}"))?;
    Ok(matches!(outcome, Outcome::Done | Outcome::AlreadyDone | Outcome::DryRun))
}

/// Asks on a terminal.
fn confirm(verb: &str, count: usize, yes: bool) -> anyhow::Result<()> {
    if yes || count == 0 || !io::stdin().is_terminal() {
        return Ok(());
    }
    eprint!("{verb} {count} runner{}? [y/N] ", if count == 1 { "" } else { "s" });
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).context("reading the answer")?;
    if !matches!(answer.trim(), "y" | "Y" | "yes") {
        bail!("nothing done");
    }
    Ok(())
}
