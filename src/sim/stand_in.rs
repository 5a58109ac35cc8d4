//! A stand-in for the official runner, for a real Nomad and the simulated GitHub.
//!
//! A raw_exec task runs it in place of `run.sh`: it takes the same environment, speaks the simulated
//! GitHub's `/_runner/` routes over plain HTTP on loopback, and prints what the real one prints.

use std::collections::BTreeMap;
use std::future::Future;

/// Runs a runner until its job is over, it is refused, or `shutdown`. Answers the exit code: 0 as `run.sh`
/// gives it, 2 for an environment that makes no runner.
pub async fn run(env: BTreeMap<String, String>, shutdown: impl Future<Output = ()>) -> u8 {
    let _ = (env, shutdown);
    0
}
