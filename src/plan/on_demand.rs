//! Operators' requests: `stop` and `purge` of individual runners, by the planner's rules.

use crate::model::{
    Action, CleanUp, Consent, Purge, PurgeReason, Registration, Runner, RunnerState, Stop, StopReason,
};

/// Stops a live runner: with GitHub's consent, or without it if none of its tasks has started.
pub fn stop(runner: &Runner) -> Option<Action> {
    let consent = if runner.may_have_process() { Consent::GitHub } else { Consent::NeverStarted };
    is_to_be_stopped(runner).then(|| stopped(runner, consent))
}

/// Stops a runner that GitHub did not list when its registration was to be removed. Only for JIT runners, which then
/// cannot get a job; other runners may have another name at GitHub.
pub fn stop_unregistered(runner: &Runner) -> Option<Action> {
    (runner.registration() == Registration::Jit).then(|| stopped(runner, Consent::Unregistered))
}

/// Removes what a dead runner left behind, if anything.
pub fn clean_up(runner: &Runner) -> Option<Action> {
    runner.variable.as_ref()?;
    Some(Action::CleanUp(CleanUp {
        name: runner.name.clone(),
        namespace: runner.namespace.clone(),
        repository: runner.repository(),
        class: runner.class().map(str::to_owned),
        finish: runner.how_it_ended(),
    }))
}

/// Purges a dead runner whose variable is gone. If the job contained the token, the runner's registration may still
/// exist.
pub fn purge(runner: &Runner) -> Action {
    let may_be_registered = runner.registration() == Registration::AccessToken && runner.started;
    let repository = runner.repository().filter(|_| may_be_registered);
    let class = runner.class().map(str::to_owned);
    let (name, namespace) = (runner.name.clone(), runner.namespace.clone());
    Action::Purge(Purge { name, namespace, repository, class, reason: PurgeReason::Asked })
}

/// Whether it is alive and not yet told to stop.
pub fn is_to_be_stopped(runner: &Runner) -> bool {
    !matches!(runner.state, RunnerState::Dead | RunnerState::Stopping)
}

fn stopped(runner: &Runner, consent: Consent) -> Action {
    Action::Stop(Stop {
        name: runner.name.clone(),
        namespace: runner.namespace.clone(),
        repository: runner.repository(),
        class: runner.class().map(str::to_owned),
        consent,
        registration: runner.registration(),
        reason: StopReason::Asked,
    })
}
