//! Pushes as hints: one request lists the repositories of an owner that were pushed to last.
//!
//! Calls [`GitHub::pushed`] and yields the repositories whose `pushed_at` has changed. It misses schedules, dispatches
//! and reruns (contract github.md §8). With many owners, each is polled less often.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{Hint, Hints, Known, Reason, wait_after};
use crate::{
    config::RepoEntry,
    github::{Error, GitHub, PUSHED_PAGE, Pushed, PushedList},
    model::{RepositoryId, Timestamp},
};

/// Owners with more repositories than this are polled; with fewer, the repositories' own lists cost no more.
pub const WATCHED_FROM: usize = 20;

/// How often an owner is polled: 12 of the 900 points a minute, and at most 720 of the 5,000 requests an hour.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// The shortest time between two requests for different owners: with many owners, each is polled less often.
const QUESTIONS_APART: Duration = Duration::from_secs(2);

/// At most this many owners are polled.
const MOST_OWNERS: usize = 100;

/// The first page reports pushes from this long before the newest one.
const AT_FIRST: Duration = Duration::from_secs(60);

/// The deadline of a request.
const ANSWERED_WITHIN: Duration = Duration::from_secs(20);

/// What has been seen of a list, to recognize changes.
#[derive(Debug, Default)]
pub struct Moved {
    seen: BTreeMap<RepositoryId, Timestamp>,
    /// An older repository that was not on the page only appeared because another one left.
    floor: Option<Timestamp>,
    /// There was an earlier page.
    begun: bool,
    /// Pushed to in the newest second that was seen: another push in that second would not be visible.
    newest: BTreeSet<RepositoryId>,
}

impl Moved {
    /// The repositories that were pushed to since the previous page. The first page reports those that were pushed to
    /// shortly before the newest, because the first listings have seen everything before that. A push in the newest
    /// second counts twice, because a second push in it would not be visible.
    pub fn since(&mut self, page: &[Pushed]) -> Vec<Pushed> {
        let newest = page.iter().map(|pushed| pushed.at).max();
        let has_moved = |pushed: &&Pushed| match (self.seen.get(&pushed.id), newest) {
            _ if self.newest.contains(&pushed.id) => true,
            (Some(at), _) => pushed.at > *at,
            (None, Some(newest)) if !self.begun => {
                newest.duration_since(pushed.at).unsigned_abs() <= AT_FIRST
            }
            (None, _) => self.floor.is_none_or(|floor| pushed.at > floor),
        };
        let moved: Vec<Pushed> = page.iter().filter(has_moved).cloned().collect();
        let is_unsure =
            |pushed: &&Pushed| Some(pushed.at) == newest && self.seen.get(&pushed.id) != Some(&pushed.at);
        self.newest = page.iter().filter(is_unsure).map(|pushed| pushed.id).collect();
        self.seen = page.iter().map(|pushed| (pushed.id, pushed.at)).collect();
        let is_full = page.len() >= PUSHED_PAGE;
        self.floor = if is_full { page.iter().map(|pushed| pushed.at).min() } else { None };
        self.begun = true;
        moved
    }
}

/// The lists that are polled, and what was seen of each.
#[derive(Default)]
struct Watched {
    /// By owner, in lower case; `*` for everything that the token can access.
    lists: BTreeMap<String, Owner>,
}

struct Owner {
    list: Option<PushedList>,
    moved: Moved,
    next: Instant,
    failures: u32,
}

/// Polls forever while `leads`.
pub(super) async fn follow(
    github: &GitHub,
    repos: &[RepoEntry],
    hints: &Hints,
    leads: &(dyn Fn() -> bool + Sync),
) {
    let mut watched = Watched::default();
    loop {
        sleep(QUESTIONS_APART).await;
        if !leads() {
            // Another replica polls; the next leader starts from scratch.
            watched.lists.clear();
            continue;
        }
        watched.update(&owners(&hints.known(), repos, |owner| github.payer(owner).is_empty()));
        let now = Instant::now();
        let due = watched.lists.iter_mut().filter(|(_, owner)| owner.next <= now);
        let Some((name, owner)) = due.min_by_key(|(_, owner)| owner.next) else { continue };
        ask(github, name, owner, hints).await;
    }
}

async fn ask(github: &GitHub, name: &str, owner: &mut Owner, hints: &Hints) {
    owner.next = Instant::now() + ASK_EVERY;
    match page(github, name, owner).await {
        Ok(page) => {
            owner.failures = 0;
            for Pushed { id, full_name, .. } in owner.moved.since(&page) {
                hints.offer(Hint { repository: id, full_name: Some(full_name), reason: Reason::Push });
            }
        }
        Err(error) => {
            tracing::debug!("cannot list the latest pushes of {name}: {error}");
            owner.failures = owner.failures.saturating_add(1);
            owner.next = Instant::now() + wait_after(ASK_EVERY, owner.failures, &error);
        }
    }
}

async fn page(github: &GitHub, name: &str, owner: &mut Owner) -> Result<Vec<Pushed>, Error> {
    let github = github.until(Instant::now() + ANSWERED_WITHIN);
    let list = match &owner.list {
        Some(list) => list.clone(),
        None => github.pushed_list(name).await?,
    };
    owner.list = Some(list.clone());
    github.pushed(&list).await
}

impl Watched {
    fn update(&mut self, owners: &BTreeSet<String>) {
        self.lists.retain(|name, _| owners.contains(name));
        for name in owners {
            self.lists.entry(name.clone()).or_insert_with(|| Owner {
                list: (name == "*").then_some(PushedList::Everything),
                moved: Moved::default(),
                next: Instant::now(),
                failures: 0,
            });
        }
    }
}

/// Whom to ask about: owners of more than [`WATCHED_FROM`] repositories, in lower case. With `"*"` one list names all that the
/// default token `sees`.
fn owners(
    known: &BTreeMap<RepositoryId, Known>,
    repos: &[RepoEntry],
    sees: impl Fn(&str) -> bool,
) -> BTreeSet<String> {
    let in_one = known.values().filter(|repository| sees(&repository.owner)).count();
    let as_one = repos.contains(&RepoEntry::All) && in_one > WATCHED_FROM;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for repository in known.values().filter(|repository| !as_one || !sees(&repository.owner)) {
        *counts.entry(repository.owner.to_ascii_lowercase()).or_default() += 1;
    }
    let mut many: Vec<(usize, String)> = counts
        .into_iter()
        .filter(|(_, count)| *count > WATCHED_FROM)
        .map(|(name, count)| (count, name))
        .collect();
    many.sort_by(|one, other| other.cmp(one));
    let as_one = as_one.then(|| "*".to_owned());
    as_one.into_iter().chain(many.into_iter().map(|(_, name)| name)).take(MOST_OWNERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(rows: &[(u64, i64)]) -> Vec<Pushed> {
        let pushed = |(id, at): &(u64, i64)| Pushed {
            id: RepositoryId(*id),
            full_name: format!("acme/r{id}"),
            at: Timestamp::from_second(*at).unwrap(),
        };
        rows.iter().map(pushed).collect()
    }

    fn since(moved: &mut Moved, rows: &[(u64, i64)]) -> Vec<u64> {
        moved.since(&page(rows)).into_iter().map(|pushed| pushed.id.0).collect()
    }

    #[test]
    fn the_first_page_reports_the_last_minute_and_later_ones_what_changed() {
        let mut moved = Moved::default();
        assert_eq!(since(&mut moved, &[(1, 330), (2, 320), (3, 10)]), [1, 2]);
        assert_eq!(since(&mut moved, &[(1, 330), (2, 320), (3, 10)]), [1], "the newest second");
        assert_eq!(since(&mut moved, &[(1, 330), (2, 320), (3, 10)]), [0; 0]);
        assert_eq!(since(&mut moved, &[(3, 340), (1, 330), (2, 320)]), [3]);
        // A new repository.
        assert_eq!(since(&mut moved, &[(4, 350), (3, 340), (1, 330), (2, 320)]), [4, 3]);
        assert_eq!(since(&mut moved, &[(4, 350), (3, 340), (1, 330), (2, 320)]), [4]);
        assert_eq!(since(&mut moved, &[(4, 350), (3, 340), (1, 330), (2, 320)]), [0; 0]);
    }

    #[test]
    fn a_push_in_the_newest_second_counts_twice_because_another_one_would_not_be_visible() {
        let mut moved = Moved::default();
        since(&mut moved, &[(1, 30), (2, 20)]);
        since(&mut moved, &[(1, 30), (2, 20)]);
        assert_eq!(since(&mut moved, &[(2, 31), (1, 30)]), [2]);
        assert_eq!(since(&mut moved, &[(2, 31), (1, 30)]), [2]);
        assert_eq!(since(&mut moved, &[(2, 31), (1, 30)]), [0; 0]);
    }

    #[test]
    fn a_repository_that_appears_because_another_left_has_not_changed() {
        let full: Vec<(u64, i64)> = (0..PUSHED_PAGE as u64).map(|n| (n, 1_000 - n as i64)).collect();
        let mut moved = Moved::default();
        since(&mut moved, &full);
        since(&mut moved, &full);
        let mut shifted = full[1..].to_vec();
        shifted.push((500, 800));
        assert_eq!(since(&mut moved, &shifted), [0; 0]);
        shifted.pop();
        shifted.insert(0, (600, 2_000));
        assert_eq!(since(&mut moved, &shifted), [600]);
    }

    #[test]
    fn owners_of_few_repositories_are_not_polled() {
        let known = |of: &[(&str, u64)]| -> BTreeMap<RepositoryId, Known> {
            let each = of.iter().flat_map(|(owner, count)| (0..*count).map(move |n| (owner.to_string(), n)));
            each.enumerate()
                .map(|(id, (owner, n))| (RepositoryId(id as u64), Known { owner, name: format!("r{n}") }))
                .collect()
        };
        let names = |known, repos: &[RepoEntry], app: bool| {
            owners(&known, repos, |_| !app).into_iter().collect::<Vec<_>>()
        };
        let many = known(&[("Acme", 21), ("few", 20)]);
        assert_eq!(names(many.clone(), &[RepoEntry::Owner("Acme".into())], false), ["acme"]);
        assert_eq!(names(many.clone(), &[RepoEntry::All], false), ["*"]);
        assert_eq!(names(many, &[RepoEntry::All], true), ["acme"]);
        assert!(names(known(&[("few", 20)]), &[RepoEntry::All], false).is_empty());
        // Acme has credentials of its own.
        let both = known(&[("Acme", 21), ("octo", 21)]);
        let asked = owners(&both, &[RepoEntry::All], |owner| owner != "Acme");
        assert_eq!(asked.into_iter().collect::<Vec<_>>(), ["*", "acme"]);
    }
}
