//! What was read of a list, and what that proves.
//!
//! Any part of a list can prove presence; only the complete list can prove absence. The types separate the two: code
//! that asks whether something is absent must handle the case that this is unknown.

use std::fmt;

/// The maximum number of pages read of one list: 10,000 items at 100 a page.
pub const MAX_PAGES: usize = 100;

/// GitHub returns at most this many items of a filtered list, so one of this length may be truncated
/// (contract §1).
pub const MAX_ITEMS: u64 = 1000;

/// A list from GitHub, complete or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<T> {
    items: Vec<T>,
    gap: Option<Gap>,
}

impl<T> Listed<T> {
    /// A list from its parts. Without a gap it is complete.
    pub fn new(items: Vec<T>, gap: Option<Gap>) -> Self {
        Self { items, gap }
    }

    /// The items known to be in the list. An item that is not among them may still be in it.
    pub fn known(&self) -> &[T] {
        &self.items
    }

    /// See [`Listed::known`].
    pub fn into_known(self) -> Vec<T> {
        self.items
    }

    /// The complete list: an item that is not in it is absent.
    ///
    /// # Errors
    /// Why it may be incomplete.
    pub fn whole(&self) -> Result<&[T], &Gap> {
        match &self.gap {
            None => Ok(&self.items),
            Some(gap) => Err(gap),
        }
    }

    /// Why it may be incomplete; `None` if it is complete.
    pub fn gap(&self) -> Option<&Gap> {
        self.gap.as_ref()
    }

    /// The first matching item.
    pub fn seek(self, mut is_sought: impl FnMut(&T) -> bool) -> Sought<T> {
        match (self.items.into_iter().find(|item| is_sought(item)), self.gap) {
            (Some(item), _) => Sought::Found(item),
            (None, None) => Sought::Absent,
            (None, Some(gap)) => Sought::Unseen(gap),
        }
    }

    /// The same list with only some of its items.
    #[must_use]
    pub fn retain(mut self, is_wanted: impl FnMut(&T) -> bool) -> Self {
        self.items.retain(is_wanted);
        self
    }

    /// The same list with converted items.
    pub fn map<U>(self, item: impl FnMut(T) -> U) -> Listed<U> {
        Listed { items: self.items.into_iter().map(item).collect(), gap: self.gap }
    }
}

/// The result of searching a list for one item.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Sought<T> {
    /// It is in the list.
    Found(T),
    /// The complete list was read, and it is not in it.
    Absent,
    /// It is not in the part that was read, so this is unknown.
    Unseen(Gap),
}

impl<T> Sought<T> {
    /// The same with a converted item.
    pub fn map<U>(self, thing: impl FnOnce(T) -> U) -> Sought<U> {
        match self {
            Self::Found(found) => Sought::Found(thing(found)),
            Self::Absent => Sought::Absent,
            Self::Unseen(gap) => Sought::Unseen(gap),
        }
    }
}

/// Why a list may be incomplete. Contains only numbers and checked text, so that it can be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gap {
    /// A page links to one that was already read.
    Circle,
    /// It has more pages than are read.
    Endless,
    /// The next page is on another host: its origin, if it can be shown.
    Elsewhere(Option<String>),
    /// The number of items differs from GitHub's count: pages shifted while they were read, or some items are
    /// not shown.
    Count {
        /// GitHub's count.
        counted: u64,
        /// The number of items read.
        seen: u64,
    },
    /// GitHub returned as many items as it ever does for a filtered list.
    Capped,
    /// The token is not authorized for the single sign-on of some organizations, so their items are left out.
    SingleSignOn {
        /// Their IDs, if GitHub reports them.
        organizations: Vec<u64>,
    },
    /// A page could not be read, even in smaller pages.
    Page { error: String },
    /// A part could not be read.
    Part {
        /// Which part.
        what: String,
        error: String,
    },
    /// An item breaks GitHub's own rules and is left out.
    Item {
        /// What is wrong with it.
        problem: String,
    },
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Circle => f.write_str("its pages form a loop"),
            Self::Endless => write!(f, "it has more than {MAX_PAGES} pages"),
            Self::Elsewhere(Some(origin)) => write!(
                f,
                "its next page is on {origin}, which is not followed; if that is the same server, set github.url to \
                 {origin}"
            ),
            Self::Elsewhere(None) => f.write_str("its next page is on another host, which is not followed"),
            Self::Count { counted, seen } => {
                write!(f, "GitHub counts {counted} items but returned {seen}")
            }
            Self::Capped => write!(f, "GitHub returns no more than {MAX_ITEMS} items"),
            Self::SingleSignOn { organizations } => {
                f.write_str(
                    "GitHub leaves out organizations for whose single sign-on the token is not authorized",
                )?;
                if !organizations.is_empty() {
                    let ids: Vec<String> = organizations.iter().map(u64::to_string).collect();
                    write!(f, " (IDs {})", ids.join(", "))?;
                }
                f.write_str("; authorize it in the token's settings (Configure SSO)")
            }
            Self::Page { error } => write!(f, "cannot read a page: {error}"),
            Self::Part { what, error } => write!(f, "cannot read {what}: {error}"),
            Self::Item { problem } => f.write_str(problem),
        }
    }
}

/// The maximum number of organizations that a gap names.
const ORGANIZATIONS_NAMED: usize = 20;

impl Gap {
    /// Parses `X-GitHub-SSO` of a list: `partial-results; organizations=1,2` (contract §8).
    pub(super) fn of_single_sign_on(header: &str) -> Option<Self> {
        let mut parts = header.split(';').map(str::trim);
        if !parts.next()?.eq_ignore_ascii_case("partial-results") {
            return None;
        }
        let ids = parts.find_map(|part| part.strip_prefix("organizations=")).unwrap_or_default();
        let ids = ids.split(',').filter_map(|id| id.trim().parse().ok()).take(ORGANIZATIONS_NAMED);
        Some(Self::SingleSignOn { organizations: ids.collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_complete_list_proves_absence() {
        let whole = Listed::new(vec![1, 2], None);
        assert_eq!(whole.whole().unwrap(), [1, 2]);
        assert_eq!(whole.clone().seek(|item| *item == 2), Sought::Found(2));
        assert_eq!(whole.seek(|item| *item == 3), Sought::Absent);
        let part = Listed::new(vec![1, 2], Some(Gap::Circle));
        assert_eq!(part.whole(), Err(&Gap::Circle));
        assert_eq!(part.known(), [1, 2]);
        assert_eq!(part.clone().seek(|item| *item == 2), Sought::Found(2));
        assert_eq!(part.seek(|item| *item == 3), Sought::Unseen(Gap::Circle));
    }

    #[test]
    fn single_sign_on_is_read_from_its_header() {
        let gap = |header| Gap::of_single_sign_on(header);
        let ids = |organizations: &[u64]| Some(Gap::SingleSignOn { organizations: organizations.into() });
        assert_eq!(gap("partial-results; organizations=21955855,20582480"), ids(&[21_955_855, 20_582_480]));
        assert_eq!(gap("partial-results"), ids(&[]));
        assert_eq!(gap("Partial-Results; organizations=1,\u{1b}[2J,3"), ids(&[1, 3]));
        assert_eq!(gap("required; url=https://github.com/orgs/acme/sso"), None);
        assert_eq!(gap(""), None);
    }
}
