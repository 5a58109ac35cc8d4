//! Pagination: each item once for every page size and every form of the Link header, an end to loops, and never
//! a request to a host other than the API's.

use std::collections::{BTreeMap, BTreeSet};

use githubrunner::github::{
    Gap,
    pagination::{MAX_ITEMS, MAX_PAGES, Walk, next_link, on_same_host},
};
use proptest::prelude::*;
use url::Url;

const API: &str = "https://ghe.example/api/v3/";

fn api() -> Url {
    Url::parse(API).unwrap()
}

/// The form of a server's Link header.
#[derive(Debug, Clone)]
struct Form {
    quoted: bool,
    upper: bool,
    space: bool,
    relative: bool,
    title: bool,
    others_first: bool,
    two_relations: bool,
}

fn form() -> impl Strategy<Value = Form> {
    any::<[bool; 7]>().prop_map(|[quoted, upper, space, relative, title, others_first, two_relations]| Form {
        quoted,
        upper,
        space,
        relative,
        title,
        others_first,
        two_relations,
    })
}

impl Form {
    /// The header of a page, or none on the last page if the server omits it there.
    fn header(&self, path: &str) -> String {
        let link = |path: &str, relation: &str| {
            let url = if self.relative { path.to_owned() } else { format!("https://ghe.example{path}") };
            let space = if self.space { " " } else { "" };
            let name = if self.upper { "REL" } else { "rel" };
            let relation = if self.quoted { format!("\"{relation}\"") } else { relation.to_owned() };
            let title = if self.title {
                format!(";{space}title=\"a, <b>; rel=\\\"next\\\"\"")
            } else {
                String::new()
            };
            format!("<{url}>{title};{space}{name}={relation}")
        };
        let relation = if self.two_relations && self.quoted { "last next" } else { "next" };
        let (next, first) = (link(path, relation), link("/first?page=1", "first"));
        if self.others_first { format!("{first}, {next}") } else { format!("{next}, {first}") }
    }
}

proptest! {
    #[test]
    fn every_item_comes_out_once_for_every_page_size(
        count in 0u64..1200,
        size in 1usize..150,
        form in form(),
    ) {
        let ids: Vec<u64> = (1..=count).map(|number| number * 7).collect();
        let pages: Vec<&[u64]> = if ids.is_empty() { vec![&[]] } else { ids.chunks(size).collect() };
        let path = |number: usize| format!("/repositories/1/runs?status=queued&page={number}");
        let mut walk = Walk::new(&api(), path(0));
        let mut read = 0;
        while let Some(page) = walk.next_page() {
            prop_assert_eq!(&page, &path(read));
            let header = (read + 1 < pages.len()).then(|| form.header(&path(read + 1)));
            let next = header.as_deref().and_then(next_link);
            walk.take(&page, pages[read].iter().map(|id| (*id, *id)), Some(count), next);
            read += 1;
        }
        let collected = walk.finish();
        let all_read = pages.len() <= MAX_PAGES;
        prop_assert_eq!(read, pages.len().min(MAX_PAGES));
        prop_assert_eq!(collected.known(), &ids[..collected.known().len()]);
        prop_assert_eq!(collected.known().len() == ids.len(), all_read);
        prop_assert_eq!(collected.whole().is_ok(), all_read && count < MAX_ITEMS);
        prop_assert_eq!(collected.gap() == Some(&Gap::Endless), !all_read);
    }

    /// Items leave from the front of the list while it is read, so that later ones move to pages already read; and
    /// new ones arrive, so that old ones are seen again.
    #[test]
    fn a_list_that_shifts_while_it_is_read_is_never_called_complete_if_something_was_missed(
        count in 1u64..60,
        size in 1usize..20,
        changes in prop::collection::vec(-3i64..4, 1..60),
    ) {
        let mut list: Vec<u64> = (1..=count).collect();
        let mut fresh = 1000;
        let mut always: BTreeSet<u64> = list.iter().copied().collect();
        let mut walk = Walk::new(&api(), "/p?page=0");
        let mut number = 0;
        while let Some(page) = walk.next_page() {
            let start = (number * size).min(list.len());
            let end = (start + size).min(list.len());
            number += 1;
            let next = format!("/p?page={number}");
            let total = list.len() as u64;
            walk.take(&page, list[start..end].iter().map(|id| (*id, *id)), Some(total), (end < list.len()).then_some(next.as_str()));
            match changes[number % changes.len()] {
                gone if gone < 0 => {
                    let gone = gone.unsigned_abs().min(list.len() as u64) as usize;
                    list.drain(..gone);
                    always.retain(|id| list.contains(id));
                }
                come => for _ in 0..come {
                    fresh += 1;
                    if list.len() < 100 {
                        list.insert(0, fresh);
                    }
                },
            }
        }
        let collected = walk.finish();
        let distinct: BTreeSet<u64> = collected.known().iter().copied().collect();
        prop_assert_eq!(distinct.len(), collected.known().len());
        if collected.whole().is_ok() {
            let missed: Vec<_> = always.difference(&distinct).collect();
            prop_assert!(missed.is_empty(), "missed {:?}", missed);
        }
    }

    #[test]
    fn a_hostile_server_gets_a_bounded_number_of_requests_and_only_on_its_own_host(
        links in prop::collection::vec(prop_oneof![
            4 => (0u8..30).prop_map(|page| format!("/p{page}")),
            4 => (0u8..30).prop_map(|page| format!("https://ghe.example/p{page}?x=%2F")),
            1 => Just("https://evil.example/foreign".to_owned()),
            1 => Just("//evil.example/foreign".to_owned()),
            1 => Just("http://ghe.example:443/foreign".to_owned()),
            1 => Just("https://ghe.example:8443/foreign".to_owned()),
            1 => Just("https://ghe.example@evil.example/foreign".to_owned()),
            1 => Just("https://ghe.example//evil.example/p1".to_owned()),
            1 => ".{0,40}",
        ], 1..200),
    ) {
        let mut walk = Walk::new(&api(), "/p0");
        let mut asked = BTreeMap::new();
        let mut requests = 0;
        while let Some(path) = walk.next_page() {
            prop_assert!(path.starts_with('/'));
            prop_assert!(!path.contains("foreign"), "a foreign link was followed: {}", path);
            let url = Url::parse(&format!("https://ghe.example{path}")).unwrap();
            prop_assert_eq!(url.origin(), api().origin());
            *asked.entry(path.clone()).or_insert(0) += 1;
            let link = &links[requests % links.len()];
            requests += 1;
            prop_assert!(requests <= MAX_PAGES);
            walk.take(&path, [(requests as u64, ())], None, Some(link));
        }
        prop_assert!(asked.values().all(|times| *times == 1));
        // There was a next page to the very end, so something was not read.
        prop_assert!(walk.finish().whole().is_err());
    }

    #[test]
    fn no_text_leads_away_or_panics(link in "\\PC*", header in "[<>;,=\"\\\\ a-zA-Z/:.]{0,80}") {
        if let Some(path) = on_same_host(&api(), "/repos/o/r?page=1", &link) {
            prop_assert!(path.starts_with('/'));
            prop_assert_eq!(Url::parse(&format!("https://ghe.example{path}")).unwrap().origin(), api().origin());
        }
        if let Some(target) = next_link(&header) {
            let inside = format!("<{target}>");
            prop_assert!(header.contains(&inside));
            prop_assert!(header.to_ascii_lowercase().contains("next"));
        }
    }
}
