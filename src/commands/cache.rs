//! `cache`: the cached GitHub responses.

use std::{io::Write, path::Path};

use anyhow::anyhow;

use super::table::Table;
use crate::github::read_cache;

/// Prints a table of the cache file's entries, or the cached response for one URL.
///
/// # Errors
/// The file cannot be read, or `out` cannot be written.
pub fn run(path: &Path, url: Option<&str>, out: &mut dyn Write) -> anyhow::Result<()> {
    let entries = read_cache(path).map_err(|error| anyhow!("the cache file {}: {error}", path.display()))?;
    if let Some(url) = url {
        for entry in entries.iter().filter(|entry| entry.url == url) {
            writeln!(out, "{}", entry.value)?;
        }
        return Ok(());
    }
    let mut table = Table::new(["URL", "ETAG", "BYTES"]);
    for entry in &entries {
        table.row([&entry.url, &entry.etag, &entry.value.get().len().to_string()]);
    }
    table.write(out)?;
    Ok(())
}
