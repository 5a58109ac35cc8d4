//! The repositories of an owner that were pushed to last (contract §1, §8).

use serde::{Deserialize, Serialize};

use super::{
    api::GitHub,
    auth::{Principal, Which},
    error::Error,
    repositories::Account,
    wire::{Owner, Page},
};
use crate::{
    http::escape_segment,
    model::{RepositoryId, Timestamp, is_login, is_repository_name},
};

/// At most this many repositories are listed at once, which is GitHub's maximum.
pub const PUSHED_PAGE: usize = 100;

/// Whose repositories are listed by their last push.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PushedList {
    /// An organization's.
    Organization(String),
    /// A user's; only public ones.
    Person(String),
    /// Everything that the default token's user can see.
    Everything,
    /// Those that belong to this owner, listed with its own token.
    Own(String),
}

/// A repository and its last push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    pub id: RepositoryId,
    /// `owner/name`, checked.
    pub full_name: String,
    /// The last push, in whole seconds.
    pub at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct PushedPage(Vec<PushedRow>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct PushedRow {
    id: u64,
    name: String,
    owner: Owner,
    #[serde(default)]
    pushed_at: Option<Timestamp>,
}

impl Page for PushedPage {
    type Item = PushedRow;
    fn items(&self) -> impl Iterator<Item = (u64, PushedRow)> {
        self.0.iter().map(|row| (row.id, row.clone()))
    }
    fn total(&self) -> Option<u64> {
        None
    }
}

impl GitHub {
    /// The list of this owner's repositories by their last push.
    ///
    /// # Errors
    /// It cannot be determined whether the owner is an organization.
    pub async fn pushed_list(&self, owner: &str) -> Result<PushedList, Error> {
        Ok(match self.account(&Principal::Owner(owner.to_owned()), owner).await? {
            Account::Organization => PushedList::Organization(owner.to_owned()),
            Account::Ourselves => PushedList::Own(owner.to_owned()),
            Account::Person => PushedList::Person(owner.to_owned()),
        })
    }

    /// The [`PUSHED_PAGE`] repositories that were pushed to last, newest first: one request, free of the primary limit
    /// while nothing changes.
    ///
    /// # Errors
    /// Those of a list.
    pub async fn pushed(&self, list: &PushedList) -> Result<Vec<Pushed>, Error> {
        let order = format!("sort=pushed&direction=desc&per_page={PUSHED_PAGE}");
        let (principal, path) = match list {
            PushedList::Organization(login) => {
                let path = format!("/orgs/{}/repos?type=all&{order}", escape_segment(login));
                (Principal::Owner(login.clone()), path)
            }
            PushedList::Person(login) => {
                let path = format!("/users/{}/repos?type=owner&{order}", escape_segment(login));
                (Principal::Owner(login.clone()), path)
            }
            PushedList::Own(login) => {
                (Principal::Owner(login.clone()), format!("/user/repos?affiliation=owner&{order}"))
            }
            PushedList::Everything => (Principal::Token(Which::DEFAULT), format!("/user/repos?{order}")),
        };
        let page = self.one::<PushedPage>(&principal, &path).await?;
        // Entries that break GitHub's own rules are ignored.
        let checked = page.0.iter().filter(|row| is_login(&row.owner.login) && is_repository_name(&row.name));
        let pushed = checked.filter_map(|row| {
            let full_name = format!("{}/{}", row.owner.login, row.name);
            Some(Pushed { id: RepositoryId(row.id), full_name, at: row.pushed_at? })
        });
        Ok(pushed.take(PUSHED_PAGE).collect())
    }
}
