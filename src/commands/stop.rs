//! `stop` and `purge`: what the daemon does on its own, on demand and with the same consent.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    time::Duration,
};

use anyhow::{Context, bail};
use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use super::{
    Setup,
    list::say_unseen,
    progress::{Progress, beside},
};
use crate::{
    model::{Action, Done, NomadView, NotDone, Outcome, Plan, Report, Runner, RunnerState},
    plan::on_demand,
};

/// How long `purge` waits for stopped runners to die. Nomad's default kill_timeout is 5 s, and the client's
/// maximum 30 s (contract nomad.md §12).
const DYING_AT_MOST: Duration = Duration::from_secs(40);

/// How often to check whether they have died.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The selected runners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Those with these IDs.
    Ids(Vec<String>),
    /// All dead ones.
    Dead,
    /// All.
    All,
}

impl Selection {
    /// Whether selected runners may be in a namespace that could not be read.
    fn misses_some(&self, view: &NomadView) -> bool {
        !matches!(self, Selection::Ids(_)) && !view.unseen.is_empty()
    }

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

/// Stops the selected live runners. Returns whether all of them stopped.
///
/// # Errors
/// Nomad cannot be read, an ID is not ours, or the operator says no.
pub async fn stop(
    setup: &Setup,
    selection: Selection,
    yes: bool,
    out: &mut dyn Write,
) -> anyhow::Result<bool> {
    let view = observe(setup).await?;
    let alive = alive(selection.of(&view)?);
    confirm("stop", alive.len(), yes)?;
    let stopped = stop_all(setup, &view, &alive, out).await?;
    Ok(stopped && !selection.misses_some(&view))
}

/// Purges the selected runners. Live ones are stopped first. Returns whether all of them are gone.
///
/// # Errors
/// As for [`stop`].
pub async fn purge(
    setup: &Setup,
    selection: Selection,
    yes: bool,
    out: &mut dyn Write,
) -> anyhow::Result<bool> {
    let mut view = observe(setup).await?;
    let selected = selection.of(&view)?;
    confirm("purge", selected.len(), yes)?;
    let names: Vec<String> = selected.iter().map(|runner| runner.name.clone()).collect();
    let stopped = stop_all(setup, &view, &alive(selected), out).await?;
    if setup.mode.is_dry_run() {
        return Ok(stopped);
    }

    let deadline = Instant::now() + DYING_AT_MOST;
    let is_dying = |runner: &Runner| names.contains(&runner.name) && runner.state == RunnerState::Stopping;
    view = setup.nomad.observe().await?;
    let progress = Progress::going_on("waiting for stopped runners to end");
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
    let clean_ups = dead.iter().filter_map(|runner| on_demand::clean_up(runner));
    let cleaned = perform(setup, &view, clean_ups.collect(), out).await?;
    let purges = dead.iter().filter(|runner| runner.variable.is_none() || cleaned);
    let purges = purges.map(|runner| on_demand::purge(runner));
    let purged = perform(setup, &view, purges.collect(), out).await?;
    let left = view.runners.iter().filter(|runner| names.contains(&runner.name)).count() - dead.len();
    if left > 0 {
        writeln!(out, "{left} still alive; `githubrunner list` shows them")?;
    }
    Ok(stopped && cleaned && purged && left == 0 && !selection.misses_some(&view))
}

/// The runners, with a warning for each namespace that cannot be read.
async fn observe(setup: &Setup) -> anyhow::Result<NomadView> {
    let view = setup.nomad.observe().await.context("listing the runners")?;
    say_unseen(&view);
    Ok(view)
}

fn alive(runners: Vec<&Runner>) -> Vec<&Runner> {
    runners.into_iter().filter(|runner| on_demand::is_to_be_stopped(runner)).collect()
}

async fn stop_all(
    setup: &Setup,
    view: &NomadView,
    runners: &[&Runner],
    out: &mut dyn Write,
) -> anyhow::Result<bool> {
    let actions = runners.iter().filter_map(|runner| on_demand::stop(runner)).collect();
    let mut absent = Vec::new();
    let stopped = each(setup, view, "stopping", actions, |report| match report.outcome {
        Outcome::NotDone(NotDone::NotListed) => {
            absent.push(report);
            Ok(true)
        }
        _ => print(&report, out),
    })
    .await?;
    let is_absent = |runner: &&&Runner| absent.iter().any(|report| report.action.runner() == runner.name);
    let mut unregistered = Vec::new();
    let mut others = false;
    for runner in runners.iter().filter(is_absent) {
        if let Some(action) = on_demand::stop_unregistered(runner) {
            unregistered.push(action);
            continue;
        }
        let name = &runner.name;
        writeln!(
            out,
            "{name}: GitHub lists no runner with this name; if it is idle, run: nomad job stop {name}"
        )?;
        others = true;
    }
    Ok(perform(setup, view, unregistered, out).await? && stopped && !others)
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

/// Carries out actions concurrently, and reports them in order, each as soon as it has ended. Returns whether all of
/// them succeeded.
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

/// Prints a line. Returns whether the action succeeded.
fn print(Report { action, outcome }: &Report, out: &mut dyn Write) -> anyhow::Result<bool> {
    beside(|| writeln!(out, "{action}: {outcome}"))?;
    Ok(outcome.is_dry_run() || matches!(outcome, Outcome::Done(Done::Performed | Done::Already)))
}

/// Asks for confirmation on a terminal.
fn confirm(verb: &str, count: usize, yes: bool) -> anyhow::Result<()> {
    if yes || count == 0 || !io::stdin().is_terminal() {
        return Ok(());
    }
    eprint!("{verb} {count} runner{}? [y/N] ", if count == 1 { "" } else { "s" });
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).context("reading the answer")?;
    if !matches!(answer.trim(), "y" | "Y" | "yes") {
        bail!("cancelled; nothing was changed");
    }
    Ok(())
}
