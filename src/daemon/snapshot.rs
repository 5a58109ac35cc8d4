//! A pass as the status tells it.

use super::Pass;
use crate::{
    labels::Verdicts,
    model::{JobStatus, Listing, RepositoryView},
    plan::Policy,
    status::Snapshot,
};

pub(super) fn snapshot(pass: &Pass, policy: &Policy) -> Snapshot {
    let mut snapshot = Snapshot {
        nomad_seen: pass.observation.nomad.is_some(),
        holds: pass.plan.holds.len(),
        leads: pass.led,
        ..Snapshot::default()
    };
    let views = pass.observation.repositories.values();
    let is_seen =
        |view: &&RepositoryView| matches!(view.listing, Listing::Fresh { .. } | Listing::Earlier { .. });
    snapshot.repositories = Some((views.clone().filter(is_seen).count(), views.len()));
    let mut verdicts = Verdicts::new(&policy.labels);
    for view in views {
        verdicts.next_repository();
        let queued = view.listing.jobs().iter().filter(|job| job.status == JobStatus::Queued);
        snapshot.queued += queued.filter(|job| verdicts.of(&job.labels).is_yes()).count();
    }
    for runner in pass.observation.nomad.iter().flat_map(|nomad| &nomad.runners) {
        *snapshot.runners.entry(runner.state).or_default() += 1;
    }
    for report in pass.done() {
        *snapshot.actions.entry((report.action.kind(), report.outcome.kind())).or_default() += 1;
    }
    snapshot
}
