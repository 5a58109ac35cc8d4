//! Prints the state as text.

use std::{io::Write, time::Duration};

use jiff::Timestamp;

use super::view::{Health, View};
use crate::{
    commands::{Style, style::Mood, table::Table},
    model::{age, span},
    text::{LINE, shown},
};

/// At most this many classes, jobs, other holds and failures are told one by one.
const CLASSES: usize = 20;
const JOBS: usize = 20;
const HOLDS: usize = 10;
const FAILURES: usize = 5;

/// How many characters of a name and of a reason the table shows; the JSON has more.
const NAME: usize = 40;
const WHY: usize = 160;

/// Prints the state of the daemon at this address.
pub(super) fn table(view: &View, address: &str, style: Style, out: &mut dyn Write) -> std::io::Result<()> {
    let up = span(age(view.now, view.program.started_at));
    let role = if view.leads { "leader" } else { "standby" };
    let version = shown(&view.program.version, NAME);
    writeln!(out, "githubrunner {version} at {}: {role}, up for {up}", shown(address, LINE))?;
    for (name, mood, text) in facts(view) {
        let line = format!("  {name:<13} {}", shown(&text, LINE));
        writeln!(out, "{}", mood.map_or(line.clone(), |mood| style.paint(mood, &line)))?;
    }
    classes(view, out)?;
    jobs(view, out)?;
    holds(view, out)?;
    failures(view, style, out)
}

/// One line each: a name, a colour if it matters, and a text.
fn facts(view: &View) -> Vec<(&'static str, Option<Mood>, String)> {
    let mut facts = Vec::new();
    match &view.last_pass {
        None => facts.push(("last pass", Some(Mood::Waits), "none yet".to_owned())),
        Some(pass) => {
            let ago = span(age(view.now, pass.at));
            facts.push(("last pass", None, format!("{ago} ago, took {:.2} s", pass.took_seconds)));
            let errors = pass.errors.iter().map(|error| ("error", Some(Mood::Bad), error.clone()));
            facts.extend(errors);
        }
    }
    for (name, health) in [("Nomad", &view.nomad), ("GitHub", &view.github)] {
        facts.push((name, (!health.seen).then_some(Mood::Bad), seen(health, view.now)));
    }
    let repositories = &view.repositories;
    let gaps = (repositories.listed < repositories.all).then_some(Mood::Waits);
    facts.push(("repositories", gaps, format!("{} of {} listed", repositories.listed, repositories.all)));
    let jobs = &view.jobs;
    let counts = format!("{} queued, {} held, {} running", jobs.queued, jobs.held, jobs.running);
    facts.push(("jobs", (jobs.held > 0).then_some(Mood::Waits), counts));
    let runners: Vec<String> = (view.runners.by_state.iter())
        .filter(|(_, count)| **count > 0)
        .map(|(state, count)| format!("{count} {state}"))
        .collect();
    let none = || "none".to_owned();
    facts.push(("runners", None, if runners.is_empty() { none() } else { runners.join(", ") }));
    let seconds = |value: f64| span(Duration::from_secs_f64(value.clamp(0.0, 1e9)));
    if let (Some(half), Some(most)) = (view.history.queue_p50_seconds, view.history.queue_p95_seconds) {
        let text = format!("p50 {}, p95 {} in the last hour", seconds(half), seconds(most));
        facts.push(("queue time", None, text));
    }
    for rate in &view.rate_limits {
        let low = (rate.remaining < rate.limit / 10).then_some(Mood::Bad);
        let reset = Timestamp::from_second(rate.reset).map(|reset| span(age(reset, view.now)));
        let resets = reset.map(|span| format!(", resets in {span}")).unwrap_or_default();
        let text = format!(
            "{} of {} left ({} {}{resets})",
            rate.remaining, rate.limit, rate.credential, rate.bucket
        );
        facts.push(("rate limit", low, text));
    }
    facts.push(("points", None, format!("{} in the last minute; GitHub allows 900", view.points_per_minute)));
    facts
}

fn seen(health: &Health, now: Timestamp) -> String {
    match (health.seen, health.since.map(|since| span(age(now, since)))) {
        (true, Some(span)) => format!("up for {span}"),
        (true, None) => "up".to_owned(),
        (false, Some(span)) => format!("UNREACHABLE for {span}"),
        (false, None) => "not reached yet".to_owned(),
    }
}

fn classes(view: &View, out: &mut dyn Write) -> std::io::Result<()> {
    if view.classes.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(["CLASS", "QUEUED", "HELD", "RUNNING", "RUNNERS"]);
    for class in view.classes.iter().take(CLASSES) {
        let [queued, held, running, runners] =
            [class.queued, class.held, class.running, class.runners].map(|count| count.to_string());
        table.row([&class.name, &queued, &held, &running, &runners]);
    }
    writeln!(out)?;
    table.write(out)?;
    more(view.classes.len(), CLASSES.min(view.classes.len()), "more classes", out)
}

fn jobs(view: &View, out: &mut dyn Write) -> std::io::Result<()> {
    let waiting = &view.jobs.waiting;
    if waiting.total == 0 {
        return Ok(());
    }
    let mut table = Table::new(["REPOSITORY", "JOB", "NAME", "LABELS", "STATE", "WAITS", "WHY"]);
    for job in waiting.items.iter().take(JOBS) {
        let cut = |text: &str, most| shown(text, most).to_string();
        let waits = job.waits_seconds.map(|seconds| span(Duration::from_secs(seconds))).unwrap_or_default();
        let why = match (&job.reason, &job.runner) {
            (Some(reason), _) => reason.text.clone(),
            (None, Some(runner)) => format!("{runner} is starting"),
            (None, None) => String::new(),
        };
        table.row([
            &job.repository,
            &job.id.to_string(),
            &cut(&job.name, NAME),
            &cut(&job.labels, NAME),
            &job.state,
            &waits,
            &cut(&why, WHY),
        ]);
    }
    writeln!(out)?;
    table.write(out)?;
    more(waiting.total, JOBS.min(waiting.items.len()), "more jobs are waiting", out)
}

/// Holds other than those of jobs.
fn holds(view: &View, out: &mut dyn Write) -> std::io::Result<()> {
    let others = view.holds.items.iter().filter(|hold| hold.about != "job");
    let count = others.clone().count();
    if count == 0 {
        return Ok(());
    }
    let mut table = Table::new(["HELD", "SUBJECT", "WHY"]);
    for hold in others.take(HOLDS) {
        table.row([&hold.about, &hold.subject, &shown(&hold.reason.text, WHY).to_string()]);
    }
    writeln!(out)?;
    table.write(out)?;
    more(count, HOLDS.min(count), "more are held", out)
}

fn failures(view: &View, style: Style, out: &mut dyn Write) -> std::io::Result<()> {
    let failed = view.events.iter().filter(|event| event.failed);
    let count = failed.clone().count();
    if count == 0 {
        return Ok(());
    }
    writeln!(out, "\nLAST FAILURES")?;
    for event in failed.take(FAILURES) {
        let line = format!("{}  {}", event.at.strftime("%H:%M:%SZ"), shown(&event.text, LINE));
        writeln!(out, "{}", style.paint(Mood::Bad, &line))?;
    }
    more(count, FAILURES.min(count), "more failures", out)
}

/// A line with the number of omitted rows.
fn more(all: usize, told: usize, what: &str, out: &mut dyn Write) -> std::io::Result<()> {
    match all.saturating_sub(told) {
        0 => Ok(()),
        rest => writeln!(out, "… {rest} {what}; --json shows more"),
    }
}
