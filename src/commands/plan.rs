//! `plan`: what a pass would do now and why.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
};

use super::{Exit, Setup, Style, style::Mood};
use crate::{
    labels::{LabelRules, Verdicts, unread},
    model::{
        Action, Hold, HoldReason, JobStatus, Labels, Listing, Observation, Plan, Report, Subject, summary,
    },
};

/// As in `nomad job plan`: something would change.
const CHANGES: Exit = Exit(2);

/// Keys in the labels of queued jobs that the template does not read, once for each label set.
fn unread_keys(
    observation: &Observation,
    rules: &LabelRules,
    keys: &BTreeSet<String>,
) -> BTreeMap<Labels, Vec<String>> {
    let mut found = BTreeMap::new();
    let mut verdicts = Verdicts::new(rules);
    for view in observation.repositories.values() {
        let Listing::Fresh { jobs, .. } = &view.listing else { continue };
        verdicts.next_repository();
        for job in jobs.iter().filter(|job| job.status == JobStatus::Queued) {
            let labels: Vec<&str> = job.labels.iter().map(AsRef::as_ref).collect();
            if !verdicts.of(&labels).is_yes() {
                continue;
            }
            let notes = rules.check(&labels).map(|runs_on| unread(keys, &runs_on)).unwrap_or_default();
            if !notes.is_empty() {
                found.insert(Labels::new(labels.iter().copied()), notes);
            }
        }
    }
    found
}

/// The marker for an action, as in `nomad job plan`.
fn mark(action: &Action) -> (char, Mood) {
    match action {
        Action::Start(_) => ('+', Mood::Well),
        Action::IssueCredentials(_) => ('~', Mood::Works),
        Action::VerifyRegistration(_) => ('?', Mood::Works),
        Action::Stop(_) => ('-', Mood::Bad),
        Action::CleanUp(_) | Action::Purge(_) | Action::RemoveOrphan(_) => ('x', Mood::Past),
    }
}

/// The number of actions of each kind.
fn summary(plan: &Plan) -> String {
    let count = |wanted: char| plan.actions.iter().filter(|action| mark(action).0 == wanted).count();
    let other = count('~') + count('?');
    let mut parts = match plan.actions.len() {
        0 => vec!["nothing to do".to_owned()],
        _ => vec![
            format!("{} to start", count('+')),
            format!("{} to stop", count('-')),
            format!("{} to purge or clean up", count('x')),
        ],
    };
    if other > 0 {
        parts.push(format!("{other} to get credentials or to be verified"));
    }
    if !plan.holds.is_empty() {
        parts.push(format!("{} held", plan.holds.len()));
    }
    format!("Plan: {}.", parts.join(", "))
}

/// Whether a hold already says what an error says.
fn is_held(plan: &Plan, error: &str) -> bool {
    plan.holds.iter().any(|Hold { subject, reason }| match (subject, reason) {
        (Subject::Repository { name }, HoldReason::NotListed { why }) => {
            error == why
                || error.strip_prefix(name.as_str()).and_then(|rest| rest.strip_prefix(": ")) == Some(why)
        }
        _ => false,
    })
}

/// Prints each action and each hold on a line, without duplicates. Changes nothing. With `detailed`, exit code 2 means
/// changes.
///
/// # Errors
/// `out` cannot be written.
pub async fn run(setup: Setup, detailed: bool, style: Style, out: &mut dyn Write) -> anyhow::Result<Exit> {
    let (keys, rules) = (setup.config.template.label_keys(), setup.config.labels.clone());
    let pass = setup.into_daemon().preview().await;
    let plan = &pass.plan;
    for action in &plan.actions {
        let (mark, mood) = mark(action);
        writeln!(out, "{}", style.paint(mood, &format!("{mark} {action}")))?;
        let failed = |report: &&Report| report.action == *action && report.outcome.is_failure();
        for report in pass.reports.iter().filter(failed) {
            writeln!(out, "{}", style.paint(Mood::Bad, &format!("  ! {}", report.outcome)))?;
        }
    }
    for line in summary::lines(&plan.holds) {
        writeln!(out, "{}", style.paint(Mood::Waits, &format!("= {line}")))?;
    }
    if let Some(keys) = keys {
        for (labels, notes) in unread_keys(&pass.observation, &rules, &keys) {
            writeln!(out, "note  {labels}: {}", notes.join("; "))?;
        }
    }
    writeln!(out, "{}", summary(plan))?;
    for error in pass.errors.iter().filter(|error| !is_held(plan, &error.text)) {
        tracing::error!("{error}");
    }
    Ok(match (pass.failed(), plan.actions.is_empty()) {
        (true, _) => Exit::FAILED,
        (false, false) if detailed => CHANGES,
        (false, _) => Exit::WELL,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_a_hold_reports_is_not_repeated() {
        let subject = Subject::Repository { name: "acme/app".to_owned() };
        let reason = HoldReason::NotListed { why: "GitHub answered 502".to_owned() };
        let plan = Plan { holds: vec![Hold { subject, reason }], ..Plan::default() };
        assert!(is_held(&plan, "acme/app: GitHub answered 502"));
        assert!(is_held(&plan, "GitHub answered 502"), "a limit concerns all of them");
        assert!(!is_held(&plan, "acme/app2: GitHub answered 502"));
        assert!(!is_held(&plan, "Nomad: GitHub answered 502 again"));
        assert_eq!(summary(&plan), "Plan: nothing to do, 1 held.");
    }
}
