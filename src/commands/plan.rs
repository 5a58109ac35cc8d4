//! `plan`: what a pass would do now and why.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
};

use super::Setup;
use crate::{
    labels::{LabelRules, Verdicts, unread},
    model::{JobStatus, Labels, Listing, Observation},
};

/// What the labels of queued jobs say in vain, for each set of them once.
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

/// Prints each action and each hold as a line; changes nothing. Whether everything could be observed.
///
/// # Errors
/// `out` cannot be written.
pub async fn run(setup: Setup, out: &mut dyn Write) -> anyhow::Result<bool> {
    let (keys, rules) = (setup.config.template.label_keys(), setup.config.labels.clone());
    let pass = setup.into_daemon().preview().await;
    write!(out, "{}", pass.plan)?;
    if let Some(keys) = keys {
        for (labels, notes) in unread_keys(&pass.observation, &rules, &keys) {
            writeln!(out, "note  {labels}: {}", notes.join("; "))?;
        }
    }
    if pass.plan.actions.is_empty() && pass.plan.holds.is_empty() {
        writeln!(out, "nothing to do")?;
    }
    Ok(pass.errors.is_empty())
}
