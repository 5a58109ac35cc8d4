//! Page sizes. GitHub sometimes fails to return a hundred items at a time, but can return ten (contract §8: the jobs of
//! a large run repeatedly get a 502 at 100 a page, but not at 30).

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::github::Error;

/// The sizes that are tried in turn. The first is GitHub's maximum.
const SIZES: [u64; 4] = [100, 50, 25, 10];

/// A list that needs smaller pages is tried with large ones again after this time.
const REMEMBERED: Duration = Duration::from_secs(10 * 60);

/// Smaller pages are tried only if GitHub answered any request properly within this time: in an outage they would only
/// be more requests.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// At most this many lists are tried with smaller pages in one pass: each costs up to 9 more requests.
const TRIED_IN_A_PASS: usize = 32;

/// How a page failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageFailure {
    /// It took too long. The smaller size is remembered before it has worked: this pass may have no time left.
    Timeout,
    Other,
}

impl PageFailure {
    pub fn of(error: &Error) -> Self {
        if error.is_timeout() { PageFailure::Timeout } else { PageFailure::Other }
    }
}

/// Which lists need smaller pages, and whether it makes sense to try.
#[derive(Default)]
pub struct Sizes(Mutex<State>);

#[derive(Default)]
struct State {
    /// The page size of a list and since when, by the path of its first large page.
    known: BTreeMap<String, (u64, Instant)>,
    answered_at: Option<Instant>,
    tried: usize,
}

impl Sizes {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// GitHub has answered a request properly.
    pub fn answered(&self) {
        self.state().answered_at = Some(Instant::now());
    }

    /// Whether GitHub recently answered a request properly, so that a failure now concerns only part of it.
    pub fn is_answering(&self) -> bool {
        self.state().answered_at.is_some_and(|at| at.elapsed() < ANSWERED_WITHIN)
    }

    /// How many lists need smaller pages.
    pub fn len(&self) -> usize {
        self.state().known.len()
    }

    /// The first page of a list, in the size that it is known to need.
    pub fn first(&self, list: &str) -> String {
        let size =
            self.state().known.get(list).filter(|(_, at)| at.elapsed() < REMEMBERED).map(|(size, _)| *size);
        size.and_then(|size| resized(list, size)).unwrap_or_else(|| list.to_owned())
    }

    /// The range of a failed page, from its beginning and in smaller pages.
    pub fn smaller(&self, list: &str, page: &str, failure: PageFailure) -> Option<String> {
        let (size, _) = place(page)?;
        let next = SIZES.into_iter().find(|smaller| *smaller < size)?;
        if !self.is_answering() {
            return None;
        }
        let mut state = self.state();
        if size == SIZES[0] {
            if state.tried >= TRIED_IN_A_PASS {
                return None;
            }
            state.tried += 1;
        }
        if failure == PageFailure::Timeout {
            state.known.insert(list.to_owned(), (next, Instant::now()));
        }
        resized(page, next)
    }

    /// A page of a list was read. The time of the first success counts, so that large pages are tried again.
    pub fn worked(&self, list: &str, page: &str) {
        if let Some((size, _)) = place(page).filter(|(size, _)| *size < SIZES[0]) {
            let mut state = self.state();
            let known = state.known.entry(list.to_owned()).or_insert((size, Instant::now()));
            if known.1.elapsed() >= REMEMBERED {
                known.1 = Instant::now();
            }
            known.0 = size;
        }
    }

    /// Smaller pages do not help with this list.
    pub fn failed(&self, list: &str) {
        self.state().known.remove(list);
    }

    /// Ends a pass: forgets old entries.
    pub fn end_pass(&self) {
        let mut state = self.state();
        state.tried = 0;
        state.known.retain(|_, (_, at)| at.elapsed() < 2 * REMEMBERED);
    }
}

/// The page after one that cannot be read, if GitHub counts items beyond it.
pub fn after(page: &str, total: Option<u64>) -> Option<String> {
    let (size, number) = place(page)?;
    (total? > size.checked_mul(number)?).then(|| placed(page, size, number + 1))
}

/// The size and number of a page, from its query.
fn place(page: &str) -> Option<(u64, u64)> {
    let (_, query) = page.split_once('?')?;
    let value = |name: &str| {
        query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name)?.1.parse().ok()
    };
    let size: u64 = value("per_page").filter(|size| (1..=SIZES[0]).contains(size))?;
    Some((size, value("page").unwrap_or(1).max(1)))
}

/// The page in another size that contains a page's first item.
fn resized(page: &str, size: u64) -> Option<String> {
    let (old, number) = place(page)?;
    let skipped = (number - 1).checked_mul(old)?;
    Some(placed(page, size, skipped / size + 1))
}

fn placed(page: &str, size: u64, number: u64) -> String {
    let (path, query) = page.split_once('?').unwrap_or((page, ""));
    let others = query.split('&').filter(|pair| {
        let key = pair.split_once('=').map_or(*pair, |(key, _)| key);
        !pair.is_empty() && !matches!(key, "per_page" | "page")
    });
    let mut query: Vec<String> = others.map(str::to_owned).collect();
    query.push(format!("per_page={size}"));
    if number > 1 {
        query.push(format!("page={number}"));
    }
    format!("{path}?{}", query.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_smaller_page_begins_no_later_than_the_one_that_failed() {
        assert_eq!(resized("/x?status=queued&per_page=100", 50).unwrap(), "/x?status=queued&per_page=50");
        assert_eq!(resized("/x?per_page=100&page=3", 50).unwrap(), "/x?per_page=50&page=5");
        // Items 76 to 100 begin in the page with items 71 to 80.
        assert_eq!(resized("/x?page=4&per_page=25&a=b%26c", 10).unwrap(), "/x?a=b%26c&per_page=10&page=8");
        for odd in ["/x", "/x?per_page=0", "/x?per_page=many", "/x?per_page=1000", "/x?cursor=abc"] {
            assert_eq!(resized(odd, 10), None, "{odd}");
        }
        assert_eq!(resized("/x?per_page=100&page=18446744073709551615", 10), None);
    }

    #[test]
    fn a_lost_page_is_followed_by_another_if_the_total_says_so() {
        assert_eq!(after("/x?per_page=10&page=2", Some(21)).unwrap(), "/x?per_page=10&page=3");
        assert_eq!(after("/x?per_page=10&page=2", Some(20)), None);
        assert_eq!(after("/x?per_page=10&page=2", None), None);
    }

    #[tokio::test(start_paused = true)]
    async fn smaller_pages_are_tried_if_github_answers_otherwise_and_large_ones_again_later() {
        let sizes = Sizes::default();
        let list = "/x?per_page=100";
        assert_eq!(sizes.smaller(list, list, PageFailure::Other), None, "nothing was answered yet");
        sizes.answered();
        let half = sizes.smaller(list, list, PageFailure::Other).unwrap();
        assert_eq!(half, "/x?per_page=50");
        assert_eq!(sizes.first(list), list, "it has not worked yet");
        sizes.worked(list, &half);
        assert_eq!(sizes.first(list), half);
        tokio::time::advance(REMEMBERED).await;
        assert_eq!(sizes.first(list), list);
        sizes.end_pass();
        assert_eq!(sizes.smaller(list, list, PageFailure::Other), None, "long ago");
        sizes.answered();
        assert_eq!(
            sizes.smaller(list, "/x?per_page=10&page=3", PageFailure::Other),
            None,
            "there is no smaller one"
        );
        for _ in 0..TRIED_IN_A_PASS {
            assert!(sizes.smaller(list, list, PageFailure::Other).is_some());
        }
        assert_eq!(sizes.smaller(list, list, PageFailure::Other), None, "enough for one pass");
        sizes.end_pass();
        assert!(sizes.smaller(list, list, PageFailure::Timeout).is_some());
        assert_eq!(sizes.first(list), half, "a timeout is remembered at once");
        sizes.failed(list);
        assert_eq!(sizes.first(list), list);
    }
}
