//! A list that is being read, page by page.

use super::{listed::Listed, pagination::Walk};
use crate::model::Timestamp;

/// A list from all its pages.
pub(super) struct Pages<T> {
    pub list: Listed<T>,
    /// The `Date` of its last page.
    pub date: Option<Timestamp>,
}

/// A list that is being read.
#[derive(Debug)]
pub(super) struct Reading<T> {
    pub first: String,
    pub walk: Walk<T>,
    /// The page being requested.
    pub now: Option<String>,
    pub total: Option<u64>,
    pub date: Option<Timestamp>,
    pub read: bool,
    pub lost: usize,
}

impl<T> Reading<T> {
    /// How many items have been read so far.
    pub fn len(&self) -> usize {
        self.walk.taken()
    }

    /// What has been read.
    pub fn end(self) -> Pages<T> {
        let list = self.walk.finish();
        if let Some(gap) = list.gap() {
            tracing::debug!(list = self.first, "a list from GitHub is incomplete: {gap}");
        }
        Pages { list, date: self.date }
    }
}
