//! What is wrong with a configuration, for the person who wrote it.

use std::fmt;

use crate::{labels::harmless, secret::without_tokens};

/// At most this many problems of one file are shown: the first ones explain most of the others.
const SHOWN_AT_MOST: usize = 20;

/// A path of keys is no longer.
const KEY_PARTS: usize = 8;

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The key it is about, like `github.url`; empty when it is about the whole.
    pub key: String,
    /// Line and column, from 1; `None` when the text itself could not be read.
    pub place: Option<(usize, usize)>,
    /// What is wrong.
    pub message: String,
    /// What to do; may be empty.
    pub help: String,
}

/// All problems of one configuration: at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The file, or words for the inline text.
    pub source: String,
    /// In the order of the text.
    pub errors: Vec<ConfigError>,
}

impl std::error::Error for ConfigErrors {}

/// A line for each problem: `config.yml:3:5: github.tokn: unknown key; did you mean "token"?`
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().take(SHOWN_AT_MOST).enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            // A token that stands where a file's name should.
            f.write_str(&without_tokens(&self.source))?;
            if let Some((line, column)) = error.place {
                write!(f, ":{line}:{column}")?;
            }
            write!(f, ": {error}")?;
        }
        match self.errors.len().saturating_sub(SHOWN_AT_MOST) {
            0 => Ok(()),
            more => write!(f, "\n{}: {more} more problems", without_tokens(&self.source)),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            // Keys come from the file: a path of them, each bounded.
            let parts: Vec<String> =
                self.key.split('.').take(KEY_PARTS).map(|part| harmless(&without_tokens(part))).collect();
            write!(f, "{}: ", parts.join("."))?;
        }
        f.write_str(&without_tokens(&self.message))?;
        if !self.help.is_empty() {
            write!(f, "; {}", self.help)?;
        }
        Ok(())
    }
}
