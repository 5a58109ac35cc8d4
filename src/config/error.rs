//! Problems of a configuration, for its author.

use std::fmt;

use crate::{labels::harmless, secret::without_tokens};

/// At most this many problems of one file are shown. The first ones explain most of the others.
const SHOWN_AT_MOST: usize = 20;

/// The maximum length of a path of keys.
const KEY_PARTS: usize = 8;

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The key that it is about, like `github.url`; empty if it is about the whole.
    pub key: String,
    /// Line and column, from 1; `None` if the text could not be read.
    pub place: Option<(usize, usize)>,
    pub message: String,
    /// What to do; may be empty.
    pub help: String,
}

/// All problems of one configuration; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The file, or a description of the inline text.
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
            // A token in place of a file name.
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
            // Keys come from the file: a path of them, each truncated.
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
