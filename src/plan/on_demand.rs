//! What an operator asks for: `stop` and `purge` of single runners, by the rules that hold for the planner.

use crate::model::{
    Action, CleanUp, Consent, Purge, PurgeReason, Registration, Runner, RunnerState, Stop, StopReason,
};

/// Stops a runner that is alive: with GitHub's consent, or without where no task of it has started.
pub fn stop(runner: &Runner) -> Option<Action> {
    let consent = if runner.may_have_process() { Consent::GitHub } else { Consent::NeverStarted };
    is_to_be_stopped(runner).then(|| stopped(runner, consent))
}

/// Stops a runner that GitHub did not list when it was to be removed. Only a JIT runner: it can get no job, while the others
/// may bear another name there.
pub fn stop_unregistered(runner: &Runner) -> Option<Action> {
    (runner.registration() == Registration::Jit).then(|| stopped(runner, Consent::Unregistered))
}

/// Removes what a dead runner has left, if it has left anything.
pub fn clean_up(runner: &Runner) -> Option<Action> {
    runner.variable.as_ref()?;
    Some(Action::CleanUp(CleanUp {
        name: runner.name.clone(),
        repository: Some(runner.repository()),
        class: runner.class().map(str::to_owned),
        finish: runner.how_it_ended(),
    }))
}

/// Purges a dead runner whose variable is gone. Where the token was in the job, its registration may be there still.
pub fn purge(runner: &Runner) -> Action {
    let may_be_registered = runner.registration() == Registration::AccessToken && runner.started;
    let repository = may_be_registered.then(|| runner.repository());
    let class = runner.class().map(str::to_owned);
    Action::Purge(Purge { name: runner.name.clone(), repository, class, reason: PurgeReason::Asked })
}

/// Whether it is alive and not told to stop yet.
pub fn is_to_be_stopped(runner: &Runner) -> bool {
    !matches!(runner.state, RunnerState::Dead | RunnerState::Stopping)
}

fn stopped(runner: &Runner, consent: Consent) -> Action {
    Action::Stop(Stop {
        name: runner.name.clone(),
        repository: runner.repository(),
        class: runner.class().map(str::to_owned),
        consent,
        registration: runner.registration(),
        reason: StopReason::Asked,
    })
}
