//! The permissions of a token.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

/// The level of a permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Read.
    Read,
    /// Read and write.
    Write,
}

/// Permissions by GitHub's names: `actions`, `administration`, `organization_self_hosted_runners`, `metadata` …
pub type Permissions = BTreeMap<String, Level>;

/// Permissions from pairs.
pub fn permissions(pairs: &[(&str, Level)]) -> Permissions {
    pairs.iter().map(|(name, level)| (name.to_string(), *level)).collect()
}

/// The repositories that a token can access, of those that its owner can see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All of them.
    All,
    /// Those with these IDs.
    Only(BTreeSet<u64>),
}

impl Reach {
    pub(super) fn contains(&self, repository: u64) -> bool {
        match self {
            Reach::All => true,
            Reach::Only(ids) => ids.contains(&repository),
        }
    }

    /// GitHub's text for it in an installation's response.
    pub(super) fn selection(&self) -> &'static str {
        match self {
            Reach::All => "all",
            Reach::Only(_) => "selected",
        }
    }
}

/// A token's permissions. Its text is the key under which it is stored.
#[derive(Clone)]
pub struct Token {
    pub(super) kind: Kind,
    pub(super) permissions: Permissions,
    pub(super) reach: Reach,
    pub(super) expires_at: Option<Timestamp>,
}

#[derive(Clone)]
pub(super) enum Kind {
    Classic { login: String, scopes: Vec<String> },
    FineGrained { login: String },
    Installation { id: u64 },
}

impl Token {
    /// A classic personal access token with scopes such as `repo` and `admin:org`.
    pub fn classic(login: &str, scopes: &[&str]) -> Token {
        let mut all = vec![("metadata", Level::Read), ("actions", Level::Read)];
        if scopes.contains(&"repo") || scopes.contains(&"public_repo") {
            all.extend([("actions", Level::Write), ("administration", Level::Write)]);
            all.push(("repository_hooks", Level::Write));
        }
        if scopes.contains(&"admin:org_hook") {
            all.push(("organization_hooks", Level::Write));
        }
        if scopes.contains(&"admin:org") {
            all.push(("organization_self_hosted_runners", Level::Write));
        }
        Token {
            kind: Kind::Classic {
                login: login.to_string(),
                scopes: scopes.iter().map(|scope| scope.to_string()).collect(),
            },
            permissions: permissions(&all),
            reach: Reach::All,
            expires_at: None,
        }
    }

    /// A fine-grained personal access token.
    pub fn fine_grained(login: &str, permissions: Permissions, reach: Reach) -> Token {
        Token { kind: Kind::FineGrained { login: login.to_string() }, permissions, reach, expires_at: None }
    }

    /// The same token, with access to only these private repositories.
    pub fn reaching(mut self, reach: Reach) -> Token {
        self.reach = reach;
        self
    }

    /// The same token, with an expiry.
    pub fn expiring(mut self, at: Timestamp) -> Token {
        self.expires_at = Some(at);
        self
    }
}
