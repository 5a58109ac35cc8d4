//! Walks through the pages of a list. It is pure, so that property tests can try hostile servers.
//!
//! The Link header gives the next page (contract §1). It is followed verbatim, but only on the API's own
//! host, never twice, and not forever. Pages can shift or repeat while they are read: each item is returned
//! once, and the walk reports whether it has seen as many as the server counts.

use std::collections::BTreeSet;

use url::{Position, Url};

use super::listed::{Gap, Listed};
pub use super::listed::{MAX_ITEMS, MAX_PAGES};

/// The target of the first link with the relation `next` in a Link header (RFC 8288).
pub fn next_link(header: &str) -> Option<&str> {
    let mut rest = header;
    loop {
        let (_, after) = rest.split_once('<')?;
        let (target, after) = after.split_once('>')?;
        let (parameters, after) = split_parameters(after);
        if relation(parameters).is_some_and(|relation| {
            relation.split_ascii_whitespace().any(|word| word.eq_ignore_ascii_case("next"))
        }) {
            return Some(target);
        }
        rest = after;
    }
}

/// Splits at the comma that ends a link's parameters, ignoring commas in quotes.
fn split_parameters(text: &str) -> (&str, &str) {
    let mut quoted = false;
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => return (&text[..at], &text[at + 1..]),
            _ => {}
        }
    }
    (text, "")
}

/// The value of the first `rel` parameter; later ones are ignored.
fn relation(parameters: &str) -> Option<&str> {
    let mut rest = parameters;
    loop {
        rest = rest.trim_start_matches([';', ' ', '\t']);
        if rest.is_empty() {
            return None;
        }
        let end = rest.find(['=', ';']).unwrap_or(rest.len());
        let name = rest[..end].trim();
        let mut value = "";
        rest = &rest[end..];
        if let Some(after) = rest.strip_prefix('=') {
            let after = after.trim_start();
            if let Some(inner) = after.strip_prefix('"') {
                let close = inner.find('"').unwrap_or(inner.len());
                value = &inner[..close];
                rest = inner.get(close + 1..).unwrap_or("");
            } else {
                let close = after.find(';').unwrap_or(after.len());
                value = after[..close].trim();
                rest = &after[close..];
            }
        }
        if name.eq_ignore_ascii_case("rel") {
            return Some(value);
        }
        // Text between a quoted value and the next semicolon is ignored.
        rest = &rest[rest.find(';').unwrap_or(rest.len())..];
    }
}

/// The path and query of a link (or redirect) found on `base`, if it stays on `api`'s scheme, host and port.
pub fn on_same_host(api: &Url, base: &str, link: &str) -> Option<String> {
    let target = api.join(base).ok()?.join(link).ok()?;
    let same = target.scheme() == api.scheme()
        && target.host_str() == api.host_str()
        && target.port_or_known_default() == api.port_or_known_default()
        && target.username().is_empty()
        && target.password().is_none();
    // A path that begins with two slashes would be taken for another host when it is joined again.
    let path = &target[Position::BeforePath..Position::AfterQuery];
    (same && !path.starts_with("//")).then(|| path.to_owned())
}

/// The longest host name (RFC 1035).
const LONGEST_HOST: usize = 253;

/// The target of a link in a form that can be shown: scheme, host and port.
pub(super) fn origin_of(api: &Url, base: &str, link: &str) -> Option<String> {
    let target = api.join(base).ok()?.join(link).ok()?;
    let shown = matches!(target.scheme(), "http" | "https") && target.host_str()?.len() <= LONGEST_HOST;
    shown.then(|| target.origin().ascii_serialization())
}

/// One walk through the pages of a list.
#[derive(Debug)]
pub struct Walk<T> {
    api: Url,
    next: Option<String>,
    seen: BTreeSet<String>,
    ids: BTreeSet<u64>,
    items: Vec<T>,
    totals: BTreeSet<u64>,
    most: Option<u64>,
    gap: Option<Gap>,
}

impl<T> Walk<T> {
    /// A walk on the API's host that begins at `first`, a path with a query.
    pub fn new(api: &Url, first: impl Into<String>) -> Self {
        Self {
            api: api.clone(),
            next: Some(first.into()),
            seen: BTreeSet::new(),
            ids: BTreeSet::new(),
            items: Vec::new(),
            totals: BTreeSet::new(),
            most: Some(MAX_ITEMS),
            gap: None,
        }
    }

    /// The list is not filtered: GitHub returns all of it, however long it is.
    #[must_use]
    pub fn unfiltered(mut self) -> Self {
        self.most = None;
        self
    }

    /// The path and query of the next page, or `None` at the end of the walk.
    pub fn next_page(&mut self) -> Option<String> {
        let page = self.next.take()?;
        if !self.seen.insert(page.clone()) {
            self.miss(Gap::Circle);
            return None;
        }
        if self.seen.len() > MAX_PAGES {
            self.miss(Gap::Endless);
            return None;
        }
        Some(page)
    }

    /// Records the contents of `page`: its items with their IDs, the list's total if the page has it, and the
    /// target of its `next` link.
    pub fn take(
        &mut self,
        page: &str,
        items: impl IntoIterator<Item = (u64, T)>,
        total: Option<u64>,
        next: Option<&str>,
    ) {
        for (id, item) in items {
            if self.ids.insert(id) {
                self.items.push(item);
            }
        }
        self.totals.extend(total);
        if let Some(link) = next {
            self.next = on_same_host(&self.api, page, link);
            if self.next.is_none() {
                self.miss(Gap::Elsewhere(origin_of(&self.api, page, link)));
            }
        }
    }

    /// How many items were read so far.
    pub fn taken(&self) -> usize {
        self.items.len()
    }

    /// Reads another page instead of the next one.
    pub fn instead(&mut self, page: impl Into<String>) {
        self.next = Some(page.into());
    }

    /// Something in the list could not be read. Only the first reason is kept.
    pub fn miss(&mut self, gap: Gap) {
        self.gap.get_or_insert(gap);
    }

    /// The collected items, each once, in the order of their first appearance. The list is complete if all pages were
    /// read, with as many distinct items as each page's total, and fewer than [`MAX_ITEMS`] for a filtered list. A
    /// list without totals is complete if all its pages were read.
    pub fn finish(self) -> Listed<T> {
        let seen = self.ids.len() as u64;
        let miscounted = self.totals.iter().find(|total| **total != seen);
        let miscounted = miscounted.map(|counted| Gap::Count { counted: *counted, seen });
        let capped = self.most.is_some_and(|most| self.totals.iter().any(|total| *total >= most));
        let gap = self.gap.or(capped.then_some(Gap::Capped)).or(miscounted);
        Listed::new(self.items, gap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_link_is_found_in_every_form() {
        let cases = [
            (r#"<https://h/2>; rel="next", <https://h/9>; rel="last""#, Some("https://h/2")),
            (r#"<https://h/1>; rel="prev", <https://h/3>; rel="next""#, Some("https://h/3")),
            (r#"<https://h/2>;rel=next"#, Some("https://h/2")),
            (
                r#"<https://h/2>; title="a, <b>; rel=\"next\"", <https://h/3>; REL="Next""#,
                Some("https://h/3"),
            ),
            (r#"<https://h/2>; rel="last next""#, Some("https://h/2")),
            (r#"<https://h/2>; rel=prev; rel=next"#, None),
            (r#"<https://h/2?a=1,2&b=<>; rel="next""#, Some("https://h/2?a=1,2&b=<")),
            (r#"<https://h/2>; rel="nextish""#, None),
            (r#"<https://h/2>; type="x" junk; rel="next""#, Some("https://h/2")),
            (r#"<https://h/2"#, None),
            (r#"<https://h/2>; rel="next"#, Some("https://h/2")),
            ("", None),
            ("nonsense", None),
        ];
        for (header, expected) in cases {
            assert_eq!(next_link(header), expected, "{header}");
        }
    }

    #[test]
    fn links_stay_on_the_api_host() {
        let api = Url::parse("https://ghe.example/api/v3/").unwrap();
        let base = "/api/v3/repos/o/r/actions/runs?page=1";
        let cases = [
            ("https://ghe.example/repositories/1/x?page=2", Some("/repositories/1/x?page=2")),
            ("https://ghe.example:443/x", Some("/x")),
            ("https://GHE.example/x%20y?q=%2F", Some("/x%20y?q=%2F")),
            ("/elsewhere?page=2", Some("/elsewhere?page=2")),
            ("?page=2", Some("/api/v3/repos/o/r/actions/runs?page=2")),
            ("http://ghe.example/x", None),
            ("https://ghe.example:444/x", None),
            ("https://evil.example/x", None),
            ("//evil.example/x", None),
            ("https://ghe.example@evil.example/x", None),
            ("https://user@ghe.example/x", None),
            ("https://ghe.example.evil.example/x", None),
            ("\\\\evil.example/x", None),
            ("file:///etc/passwd", None),
            ("/.//evil.example/x", None),
            ("https://ghe.example//evil.example/x", None),
        ];
        for (link, expected) in cases {
            assert_eq!(on_same_host(&api, base, link).as_deref(), expected, "{link}");
        }
    }

    #[test]
    fn a_list_is_complete_only_if_every_page_counts_as_many_as_were_seen() {
        let api = Url::parse("https://h").unwrap();
        let walk = |pages: &[(&[u64], u64)]| {
            let mut walk = Walk::new(&api, "/p/0");
            for (at, (ids, total)) in pages.iter().enumerate() {
                let page = walk.next_page().unwrap();
                let link = format!("/p/{}", at + 1);
                let next = (at + 1 < pages.len()).then_some(link.as_str());
                walk.take(&page, ids.iter().map(|id| (*id, *id)), Some(*total), next);
            }
            assert_eq!(walk.next_page(), None);
            walk.finish()
        };
        let whole = walk(&[(&[1, 2], 3), (&[3], 3)]);
        assert_eq!(whole.whole().unwrap(), [1, 2, 3]);
        let repeated = walk(&[(&[1, 2], 4), (&[2, 3], 4)]);
        assert_eq!(repeated.known(), [1, 2, 3]);
        assert_eq!(repeated.whole(), Err(&Gap::Count { counted: 4, seen: 3 }));
        // One item disappeared while the second page was read, so the third item moved to the first page
        // unseen.
        assert!(walk(&[(&[1, 2], 4), (&[4], 3)]).whole().is_err());
        assert!(walk(&[(&[], 0)]).whole().is_ok());
        let thousand: Vec<u64> = (1..=1000).collect();
        assert_eq!(walk(&[(&thousand, 1000)]).whole(), Err(&Gap::Capped));
        let mut unfiltered = Walk::new(&api, "/p").unfiltered();
        unfiltered.take("/p", thousand.iter().map(|id| (*id, *id)), Some(1000), None);
        assert!(unfiltered.finish().whole().is_ok());
    }

    #[test]
    fn a_link_to_another_host_is_reported_with_the_setting_to_change() {
        let api = Url::parse("https://ghe.example/api/v3/").unwrap();
        let gap = |link: &str| {
            let mut walk = Walk::new(&api, "/api/v3/x");
            walk.take("/api/v3/x", [(1, ())], None, Some(link));
            walk.finish().gap().unwrap().to_string()
        };
        let told = gap("https://git.example/api/v3/x?page=2");
        assert!(told.contains("set github.url to https://git.example"), "{told}");
        assert!(gap("http://ghe.example/x").contains("set github.url to http://ghe.example"));
        for odd in ["file:///etc/passwd", "mailto:a@b", &format!("https://{}.example/", "a".repeat(300))] {
            assert_eq!(gap(odd), "its next page is on another host, which is not followed", "{odd}");
        }
        let hostile = gap("https://e\u{202e}vil.example\u{7}/\u{1b}[2J");
        assert!(hostile.chars().all(|c| c.is_ascii_graphic() || c == ' '), "{hostile:?}");
    }

    #[test]
    fn a_walk_ends_on_loops_and_at_the_page_limit() {
        let api = Url::parse("https://h").unwrap();
        let mut circle = Walk::new(&api, "/a");
        for next in ["/b", "/a"] {
            let page = circle.next_page().unwrap();
            circle.take(&page, [(1, ())], None, Some(next));
        }
        assert_eq!(circle.next_page(), None);
        assert_eq!(circle.finish().gap(), Some(&Gap::Circle));

        let mut endless = Walk::<()>::new(&api, "/0");
        let mut pages = 0;
        while let Some(page) = endless.next_page() {
            pages += 1;
            endless.take(&page, [], None, Some(&format!("/{pages}")));
        }
        assert_eq!(pages, MAX_PAGES);
        assert!(endless.finish().gap().unwrap().to_string().contains("more than 100 pages"));
    }
}
