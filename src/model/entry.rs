//! An entry of `repos`: a repository, an owner, or everything.

use std::fmt;

/// One entry of the configuration's `repos`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RepoEntry {
    /// `owner/name`
    Repository { owner: String, name: String },
    /// All repositories of a user or an organization.
    Owner(String),
    /// `*`: everything that the token or the App can access.
    All,
}

impl RepoEntry {
    /// Whose repositories it means, where that is one owner.
    pub fn owner(&self) -> Option<&str> {
        match self {
            RepoEntry::Repository { owner, .. } | RepoEntry::Owner(owner) => Some(owner),
            RepoEntry::All => None,
        }
    }
}

impl fmt::Display for RepoEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RepoEntry::Repository { owner, name } => write!(f, "{owner}/{name}"),
            RepoEntry::Owner(owner) => f.write_str(owner),
            RepoEntry::All => f.write_str("*"),
        }
    }
}
