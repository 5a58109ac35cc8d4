//! What the configuration names: a repository, an owner, or everything.

use std::fmt;

/// One entry of the configuration's `repos`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RepoEntry {
    /// `owner/name`
    Repository {
        /// The owner's login.
        owner: String,
        /// The repository's name.
        name: String,
    },
    /// A user or an organization: all its repositories.
    Owner(String),
    /// `*`: all that the token or the App may see.
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
