//! Starts a runner: renders its job, has Nomad parse it, and registers it.

use std::sync::atomic::Ordering;

use serde_json::Value;

use super::{Apply, Result, kinds::Kind, nomad_outcome};
use crate::{
    model::{Done, NotDone, RunnerMeta, Start, Visibility},
    nomad::{self, Registered, asks, job_from_json, main_task, prepare, reaches_host},
    render::RunContext,
};

impl Apply {
    /// The job for a start, as text and as Nomad parses it, if it may be started.
    pub(super) async fn parsed(&self, start: &Start) -> Result<(String, Value)> {
        let labels: Vec<String> = start.labels.shown().map(str::to_owned).collect();
        let kind = self.kinds.of(start.class.as_deref());
        let runs_on = kind.labels.check(&labels).map_err(rejected)?;
        let context = RunContext {
            class: start.class.as_deref(),
            name: &start.name,
            repository: &start.repository,
            labels: &start.labels,
            runs_on: &runs_on,
            info: &start.info,
            job: start.purpose.job_id(),
            facts: &start.facts,
            attempt: start.attempt,
            // Nomad counts from the allocation. A warm runner has that time for a job, however long it was idle, so the
            // planner alone ends it.
            nomad_limits: start.purpose.job_id().is_some() && !self.nomad_is_old.load(Ordering::Relaxed),
        };
        let (hcl, parsed) = self.rendered(context, kind).await?;
        if let Some(how) = reaches_host(&parsed)
            && self.guards(start)
        {
            return Err(NotDone::ReachesHost(format!(
                "{} is public, and {how}: anyone who opens a pull request would have the host; `public: allow` permits it",
                start.repository.full_name()
            )));
        }
        Ok((hcl, parsed))
    }

    /// Whether a job that reaches its host may not be started for this one.
    pub(super) fn guards(&self, start: &Start) -> bool {
        let kind = self.kinds.of(start.class.as_deref());
        kind.guards_public && start.repository.visibility == Visibility::Public
    }

    /// Renders the job, has Nomad parse it, and registers it with EnforceIndex 0.
    pub(super) async fn start(&self, start: &Start) -> Result<Done> {
        let kind = self.kinds.of(start.class.as_deref());
        let (hcl, parsed) = self.parsed(start).await?;
        let meta = RunnerMeta {
            labelsstr: start.labels.joined(),
            repo_url: start.repository.html_url.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            deployment: Some(self.deployment.to_string()),
            repo_id: Some(start.repository.id),
            purpose: Some(start.purpose.clone()),
            attempt: Some(start.attempt),
            registration: Some(kind.registration),
            task: main_task(&parsed),
            asks: Some(asks(&parsed)),
            class: start.class.clone(),
            mac: None,
        };
        let meta = self.nomad.seal(&start.name, meta).await.map_err(nomad_outcome)?;
        let options = self.nomad.options();
        let job = prepare(parsed, options, meta, &start.name, kind.registration).map_err(nomad_outcome)?;
        let job = job.placed(&kind.placement);
        match self.nomad.register(&job, Some(&hcl)).await.map_err(nomad_outcome)? {
            Registered::Created { warnings } => {
                if !warnings.is_empty() {
                    tracing::debug!(runner = start.name, warnings, "Nomad returned warnings");
                }
                Ok(Done::Performed)
            }
            Registered::Already => Ok(Done::Already),
        }
    }

    /// The job's text and its parsed form. Servers before 2.0.3 reject `max_run_duration`. It is then omitted until
    /// this daemon restarts.
    async fn rendered(&self, mut context: RunContext<'_>, kind: &Kind) -> Result<(String, Value)> {
        loop {
            let hcl = self.renderer.render(&context).map_err(rejected)?;
            if let Some(job) = job_from_json(&hcl).map_err(nomad_outcome)? {
                return Ok((hcl, job));
            }
            match self.nomad.parse(&hcl, kind.registration).await {
                Ok(job) => return Ok((hcl, job)),
                Err(nomad::Error::Hcl { message, .. })
                    if context.nomad_limits
                        && message.contains("max_run_duration")
                        && self.renderer.has_max_run_duration(context.class) =>
                {
                    if !self.nomad_is_old.swap(true, Ordering::Relaxed) {
                        tracing::warn!(
                            "Nomad does not know max_run_duration (2.0.3 and later do): runners are stopped by githubrunner instead, \
                             which needs it to run"
                        );
                    }
                    context.nomad_limits = false;
                }
                Err(error) => return Err(nomad_outcome(error)),
            }
        }
    }
}

fn rejected(error: impl std::fmt::Display) -> NotDone {
    NotDone::Rejected(error.to_string())
}
