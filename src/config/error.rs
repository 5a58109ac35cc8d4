//! What is wrong with a configuration, for the person who wrote it.

use std::fmt;

use crate::labels::harmless;

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
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            f.write_str(&self.source)?;
            if let Some((line, column)) = error.place {
                write!(f, ":{line}:{column}")?;
            }
            write!(f, ": {error}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            // Keys come from the file: a path of them, each bounded.
            let parts: Vec<String> = self.key.split('.').map(harmless).collect();
            write!(f, "{}: ", parts.join("."))?;
        }
        f.write_str(&self.message)?;
        if !self.help.is_empty() {
            write!(f, "; {}", self.help)?;
        }
        Ok(())
    }
}
