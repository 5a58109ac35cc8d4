//! Pages and the Link header (contract §1).

use super::{http::Ask, reply::Reply};

const DEFAULT: usize = 30;
const MOST: usize = 100;

/// Takes the requested page of a list, with links to the others. `path` is the canonical one, with IDs for names. Only
/// the first `reach` items of a list are accessible.
pub(super) fn cut<T>(ask: &Ask, path: &str, items: Vec<T>, reach: usize) -> (Vec<T>, Option<String>) {
    let number = |name: &str| ask.parameter(name).and_then(|text| text.parse::<usize>().ok());
    let per_page = number("per_page").filter(|size| *size > 0).unwrap_or(DEFAULT).min(MOST);
    let page = number("page").unwrap_or(1).max(1);
    let last = items.len().min(reach).div_ceil(per_page).max(1);
    let link = (last > 1).then(|| {
        let mut links = Vec::new();
        if page > 1 {
            links.push((page - 1, "prev"));
        }
        if page < last {
            links.extend([(page + 1, "next"), (last, "last")]);
        }
        if page > 1 {
            links.push((1, "first"));
        }
        let one = |(page, name): &(usize, &str)| format!("<{}>; rel=\"{name}\"", address(ask, path, *page));
        links.iter().map(one).collect::<Vec<_>>().join(", ")
    });
    let first = (page - 1).saturating_mul(per_page);
    let items = items.into_iter().take(reach).skip(first).take(per_page).collect();
    (items, link)
}

fn address(ask: &Ask, path: &str, page: usize) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in ask.query.iter().filter(|(name, _)| name != "page") {
        query.append_pair(name, value);
    }
    query.append_pair("page", &page.to_string());
    format!("{}{path}?{}", ask.base, query.finish())
}

impl Reply {
    /// With a Link header, if there are other pages.
    pub fn linked(self, link: Option<String>) -> Reply {
        match link {
            Some(link) => self.with("link", link),
            None => self,
        }
    }
}
