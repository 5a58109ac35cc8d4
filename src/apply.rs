//! Turns actions into API calls. Tolerates losing every race, reports each outcome, and contains the only dry-run
//! switch.
//!
//! Each action can be interrupted at any await and repeated: names are unique and registered with EnforceIndex 0,
//! variables are written with cas 0, conflicting registrations are repaired by the next IssueCredentials, and
//! everything else removes what may already be gone.

mod credentials;
mod kinds;
mod registrations;
mod rerun;
mod start;
mod stop;
mod tidy;

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use futures_util::future::join_all;
use kinds::Kinds;
pub use kinds::placement;
use tokio::{sync::Semaphore, time::Instant};

use crate::{
    config::Config,
    github::{self, GitHub},
    leadership::Leadership,
    model::{Action, Namespace, NotDone, Outcome, Plan, Report, Runner},
    nomad::{self, Nomad},
    render::Renderer,
};

/// Whether anything is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplyMode {
    /// Actions are performed.
    Perform,
    /// Nothing is changed.
    DryRun,
}

impl ApplyMode {
    /// For the option `--dry-run`.
    pub fn of_option(dry_run: bool) -> Self {
        if dry_run { ApplyMode::DryRun } else { ApplyMode::Perform }
    }

    pub fn is_dry_run(self) -> bool {
        self == ApplyMode::DryRun
    }
}

/// Carries out plans. Clones share everything but GitHub's deadline.
#[derive(Clone)]
pub struct Apply {
    github: GitHub,
    nomad: Nomad,
    renderer: Arc<Renderer>,
    /// Properties of new runners.
    kinds: Arc<Kinds>,
    /// The deployment ID of new runners.
    deployment: Arc<str>,
    mode: ApplyMode,
    /// Whether this replica may act.
    leadership: Leadership,
    /// Limits the concurrent actions that need GitHub.
    at_github: Arc<Semaphore>,
    /// Limits those that do not, so that neither kind waits for the other.
    at_nomad: Arc<Semaphore>,
    /// Nomad has rejected a job because of its `max_run_duration`. Jobs then omit it, and only the planner ends runners
    /// that exceed it.
    nomad_is_old: Arc<AtomicBool>,
    /// Called at the end of each action, with its duration.
    told: Option<Tell>,
}

/// Receives an action's outcome and duration.
pub type Tell = fn(&Report, Duration);

/// An action that needs GitHub must begin within this time after it was planned. Later, the observation is
/// too old.
const BEGINS_WITHIN: Duration = Duration::from_secs(20);

/// The deadline for an action's requests to GitHub.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// A preview judges at most this many label sets. Each needs a request.
const JUDGED_AT_MOST: usize = 50;

/// The result of an action that may end early.
type Result<T, E = NotDone> = std::result::Result<T, E>;

impl Apply {
    /// For the runners of a deployment, as configured.
    pub fn new(
        config: &Config,
        github: GitHub,
        nomad: Nomad,
        renderer: Arc<Renderer>,
        deployment: &str,
        leadership: Leadership,
        mode: ApplyMode,
    ) -> Self {
        let side_by_side = || Arc::new(Semaphore::new(config.parallel.max(1)));
        Apply {
            github,
            nomad,
            renderer,
            kinds: Arc::new(Kinds::new(config)),
            deployment: deployment.into(),
            mode,
            leadership,
            at_github: side_by_side(),
            at_nomad: side_by_side(),
            nomad_is_old: Arc::default(),
            told: None,
        }
    }

    /// The deployment ID of new runners.
    pub fn deployment(&self) -> &str {
        &self.deployment
    }

    /// Calls `told` at the end of each action.
    #[must_use]
    pub fn telling(self, told: Tell) -> Self {
        Apply { told: Some(told), ..self }
    }

    /// Carries out a plan, several actions at once, and reports their outcomes in the plan's order. Actions that come
    /// too late are not reported.
    pub async fn apply(&self, plan: &Plan) -> Vec<Report> {
        let reports = plan.actions.iter().cloned().map(|action| self.act(action));
        join_all(reports).await.into_iter().flatten().collect()
    }

    /// Carries out one action when it is its turn; `None` if that was too late.
    pub async fn act(&self, action: Action) -> Option<Report> {
        if self.mode.is_dry_run() {
            return Some(Report { action, outcome: Outcome::NotDone(NotDone::DryRun) });
        }
        let needs_github = action.needs_github();
        let turns = if needs_github { &self.at_github } else { &self.at_nomad };
        let turn = turns.acquire();
        let _turn = match needs_github {
            true => tokio::time::timeout(BEGINS_WITHIN, turn).await.ok()?,
            false => turn.await,
        };
        let github = self.github.until(Instant::now() + ENDS_WITHIN);
        let apply = Apply { github, ..self.at(action.namespace()) };
        let began = Instant::now();
        let report = Report { outcome: apply.perform(&action).await, action };
        if let Some(tell) = self.told {
            tell(&report, began.elapsed());
        }
        Some(report)
    }

    /// The same for another namespace.
    fn at(&self, namespace: Option<&Namespace>) -> Self {
        Apply { nomad: self.nomad.at(namespace), ..self.clone() }
    }

    async fn read(&self, name: &str) -> Result<Option<Runner>> {
        self.nomad.read_runner(name).await.map_err(nomad_outcome)
    }

    async fn perform(&self, action: &Action) -> Outcome {
        if !self.leadership.holds() {
            return Outcome::NotDone(NotDone::Held("another replica holds the leader lock".to_owned()));
        }
        let result = match action {
            Action::Start(start) => self.start(start).await,
            Action::IssueCredentials(issue) => self.issue_credentials(issue).await,
            Action::Stop(stop) => self.stop(stop).await,
            Action::VerifyRegistration(verify_registration) => {
                self.verify_registration(verify_registration).await
            }
            Action::CleanUp(clean_up) => self.clean_up(clean_up).await,
            Action::Purge(purge) => self.purge(purge).await,
            Action::RemoveOrphan(remove) => self.remove_orphan(remove).await,
            Action::Rerun(rerun) => self.rerun(rerun).await,
        };
        Outcome::from(result)
    }

    /// What the plan would start but may not for a public repository, once for each label set, with the text of the
    /// start itself. Nothing is changed.
    pub async fn refused(&self, plan: &Plan) -> Vec<Report> {
        let starts = plan.actions.iter().filter_map(|action| match action {
            Action::Start(start) if self.guards(start) => Some(start),
            _ => None,
        });
        let (mut judged, mut refused) = (BTreeSet::new(), Vec::new());
        for start in starts {
            if judged.len() < JUDGED_AT_MOST
                && judged.insert(start.group())
                && let Err(why @ NotDone::ReachesHost(_)) =
                    self.at(start.namespace.as_ref()).parsed(start).await
            {
                let action = Action::Start(start.clone());
                refused.push(Report { action, outcome: Outcome::NotDone(why) });
            }
        }
        refused
    }
}

fn github_outcome(error: github::Error) -> NotDone {
    use github::Error::{Forbidden, RateLimited};
    match error {
        Forbidden(_) | RateLimited { .. } => NotDone::Held(error.to_string()),
        _ => NotDone::Failed(error.to_string()),
    }
}

fn nomad_outcome(error: nomad::Error) -> NotDone {
    use nomad::Error::{Hcl, Job, Refused, Taken};
    match error {
        Hcl { .. } | Job(_) | Refused(_) | Taken { .. } => NotDone::Rejected(error.to_string()),
        _ => NotDone::Failed(error.to_string()),
    }
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
