//! Namespaces of Nomad.

use std::fmt;

/// A namespace other than the daemon's own, possibly in another region. Where it is optional, `None` is the daemon's
/// own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace {
    pub name: String,
    /// `None`: the daemon's region.
    pub region: Option<String>,
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.region {
            Some(region) => write!(f, "{} in region {region}", self.name),
            None => f.write_str(&self.name),
        }
    }
}
