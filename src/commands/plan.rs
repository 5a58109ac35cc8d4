//! `plan`: what a pass would do now and why.

use std::io::Write;

use super::Setup;

/// Prints each action and each hold as a line; changes nothing. Whether everything could be observed.
///
/// # Errors
/// `out` cannot be written.
pub async fn run(setup: Setup, out: &mut dyn Write) -> anyhow::Result<bool> {
    let pass = setup.into_daemon().preview().await;
    write!(out, "{}", pass.plan)?;
    if pass.plan.actions.is_empty() && pass.plan.holds.is_empty() {
        writeln!(out, "nothing to do")?;
    }
    Ok(pass.errors.is_empty())
}
