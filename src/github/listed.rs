//! What was read of a list, and what that proves.
//!
//! Presence is proven by any part of a list, absence only by the whole of it. The types keep the two apart: who asks
//! whether something is absent must say what happens when that is unknown.

use std::fmt;

/// How many pages of one list are read at most: 10,000 items at 100 a page.
pub const MAX_PAGES: usize = 100;

/// GitHub shows at most this many items of a filtered list: one of this length may be cut (contract §1).
pub const MAX_ITEMS: u64 = 1000;

/// A list of GitHub, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<T> {
    items: Vec<T>,
    gap: Option<Gap>,
}

impl<T> Listed<T> {
    /// A list from its parts; without a gap it is whole.
    pub fn new(items: Vec<T>, gap: Option<Gap>) -> Self {
        Self { items, gap }
    }

    /// What is known to be in the list. What is not among it may be in it all the same.
    pub fn known(&self) -> &[T] {
        &self.items
    }

    /// See [`Listed::known`].
    pub fn into_known(self) -> Vec<T> {
        self.items
    }

    /// All of the list: what is not in it is absent.
    ///
    /// # Errors
    /// Why it may not be all.
    pub fn whole(&self) -> Result<&[T], &Gap> {
        match &self.gap {
            None => Ok(&self.items),
            Some(gap) => Err(gap),
        }
    }

    /// Why it may not be all; `None` when it is.
    pub fn gap(&self) -> Option<&Gap> {
        self.gap.as_ref()
    }

    /// The first item that is looked for.
    pub fn seek(self, mut is_sought: impl FnMut(&T) -> bool) -> Sought<T> {
        match (self.items.into_iter().find(|item| is_sought(item)), self.gap) {
            (Some(item), _) => Sought::Found(item),
            (None, None) => Sought::Absent,
            (None, Some(gap)) => Sought::Unseen(gap),
        }
    }

    /// The same list without some of its items.
    #[must_use]
    pub fn retain(mut self, is_wanted: impl FnMut(&T) -> bool) -> Self {
        self.items.retain(is_wanted);
        self
    }

    /// The same list of other items.
    pub fn map<U>(self, item: impl FnMut(T) -> U) -> Listed<U> {
        Listed { items: self.items.into_iter().map(item).collect(), gap: self.gap }
    }
}

/// What came of looking for one thing in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Sought<T> {
    /// It is there.
    Found(T),
    /// The whole list was read, and it is not there.
    Absent,
    /// It is not in the part that was read: unknown.
    Unseen(Gap),
}

impl<T> Sought<T> {
    /// The same for another thing.
    pub fn map<U>(self, thing: impl FnOnce(T) -> U) -> Sought<U> {
        match self {
            Self::Found(found) => Sought::Found(thing(found)),
            Self::Absent => Sought::Absent,
            Self::Unseen(gap) => Sought::Unseen(gap),
        }
    }
}

/// Why a list may not be all. Made of numbers and checked text alone, so that it can be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gap {
    /// A page links to one that was read already.
    Circle,
    /// More pages than are read.
    Endless,
    /// The next page is on another host: its origin, where it has one that can be shown.
    Elsewhere(Option<String>),
    /// Another number of items than GitHub counts: pages shift while they are read, or some are not shown.
    Count {
        /// What GitHub says.
        counted: u64,
        /// What was seen.
        seen: u64,
    },
    /// As many items as GitHub shows of a filtered list at most.
    Capped,
    /// The token is not authorized for the single sign-on of some organizations, and their items are left out.
    SingleSignOn {
        /// Their IDs, where GitHub tells them.
        organizations: Vec<u64>,
    },
    /// A page could not be read, not even in small pieces.
    Page {
        /// What happened.
        error: String,
    },
    /// A part could not be read.
    Part {
        /// Which.
        what: String,
        /// What happened.
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
                write!(f, "GitHub counts {counted} items and shows {seen}")
            }
            Self::Capped => write!(f, "GitHub shows no more than {MAX_ITEMS} items"),
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

/// How many organizations a gap names at most.
const ORGANIZATIONS_NAMED: usize = 20;

impl Gap {
    /// What `X-GitHub-SSO` says of a list: `partial-results; organizations=1,2` (contract §8).
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
    fn absence_is_known_from_a_whole_list_alone() {
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
