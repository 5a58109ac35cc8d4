//! Stops a runner, with the consent that the plan requires.

use std::time::Duration;

use super::{
    Apply, Result, nomad_outcome,
    registrations::{Removed, online_already},
};
use crate::{
    github::Scope,
    model::{Consent, Done, NotDone, Registration, RunnerState, Stop, StopReason},
};

impl Apply {
    /// Stops a runner with the consent that the plan requires. If anything is unclear, the runner keeps
    /// running.
    pub(super) async fn stop(&self, stop: &Stop) -> Result<Done> {
        let may_stop = match stop.consent {
            Consent::NeverStarted => self.has_never_started(stop).await?,
            Consent::GitHub => match self.remove_registration(stop).await? {
                Removed::Yes => true,
                // Used credentials cannot register again, so this process can get no job.
                Removed::WasAbsent
                    if stop.reason == StopReason::Spent && stop.registration == Registration::Jit =>
                {
                    true
                }
                Removed::WasAbsent => return Err(NotDone::NotListed),
            },
            Consent::Unregistered => {
                let scope = self.scope_of_stop(stop)?;
                match self.registered(&scope, &stop.name).await? {
                    Some(found) if found.is_connected() => return Err(NotDone::StillConnected),
                    // It never connected, or lost the connection: GitHub decides whether it may be stopped.
                    Some(found) => {
                        self.delete_registration(&scope, found.id).await?;
                    }
                    None => {}
                }
                true
            }
            Consent::OutOfTime { limit } => self.may_end(stop, limit).await?,
        };
        if !may_stop {
            return Ok(Done::Already);
        }
        self.nomad.stop(&stop.name).await.map_err(nomad_outcome)?;
        Ok(Done::Performed)
    }

    /// Removes the registration of a runner that has not started, and reads it once more. Returns whether it is still to
    /// be stopped.
    async fn has_never_started(&self, stop: &Stop) -> Result<bool> {
        let removed = self.remove_idle_registration(stop).await;
        let Some(runner) = self.read(&stop.name).await? else {
            return Ok(false);
        };
        if runner.state == RunnerState::Dead {
            return Ok(false);
        }
        if runner.may_have_process() {
            return Err(NotDone::Held("its task has started in the meantime".to_owned()));
        }
        // Without credentials it cannot take a job; with them, only after its registration is removed.
        match removed {
            Ok(_) => {}
            Err(outcome) if runner.variable.is_some() => return Err(outcome),
            Err(outcome) => tracing::debug!(runner = stop.name, %outcome, "registration not removed"),
        }
        Ok(true)
    }

    /// A Stop without consent: only for a runner that is still running, and only while its class has this limit. Its
    /// registration is deleted first if GitHub permits it, so that an idle runner gets no job while it is stopping.
    async fn may_end(&self, stop: &Stop, limit: Duration) -> Result<bool> {
        if self.kinds.of(stop.class.as_deref()).max_run_duration != Some(limit) {
            return Err(NotDone::Held("max_run_duration has changed".to_owned()));
        }
        let Some(runner) = self.read(&stop.name).await? else {
            return Ok(false);
        };
        match runner.state {
            RunnerState::Running => {}
            RunnerState::Dead | RunnerState::Stopping => return Ok(false),
            state => return Err(NotDone::Held(format!("it is {state} by now"))),
        }
        if let Err(outcome) = self.remove_registration(stop).await {
            tracing::debug!(runner = stop.name, %outcome, "registration not removed");
        }
        Ok(true)
    }

    /// Removes a registration by the runner's name, if it exists and is not busy.
    async fn remove_registration(&self, stop: &Stop) -> Result<Removed> {
        let scope = self.scope_of_stop(stop)?;
        match self.registered(&scope, &stop.name).await? {
            Some(runner) => self.delete_registration(&scope, runner.id).await,
            None => Ok(Removed::WasAbsent),
        }
    }

    /// Removes the registration of a runner that never started, by its name. A runner that is online under this name
    /// is another one, or has started in the meantime.
    async fn remove_idle_registration(&self, stop: &Stop) -> Result<Removed> {
        let scope = self.scope_of_stop(stop)?;
        match self.registered(&scope, &stop.name).await? {
            Some(runner) if runner.is_connected() => Err(online_already()),
            Some(runner) => self.delete_registration(&scope, runner.id).await,
            None => Ok(Removed::WasAbsent),
        }
    }

    /// Where a runner that is to be stopped is registered. Anyone with submit-job can write a Meta that names no
    /// repository.
    fn scope_of_stop(&self, stop: &Stop) -> Result<Scope> {
        let unnamed = || NotDone::Held("its Meta does not name a repository of GitHub".to_owned());
        let repository = stop.repository.as_ref().ok_or_else(unnamed)?;
        Ok(self.scope(repository, stop.class.as_deref()))
    }
}
