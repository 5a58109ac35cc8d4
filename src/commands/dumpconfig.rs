//! `dumpconfig`: the effective configuration.

use std::io::Write;

use crate::config::{Config, Format};

/// Prints the configuration with secrets replaced, as YAML that can be read back or as JSON.
///
/// # Errors
/// The output cannot be written.
pub fn run(config: &Config, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let format = if json { Format::Json } else { Format::Yaml };
    out.write_all(config.effective(format).as_bytes())?;
    Ok(())
}
