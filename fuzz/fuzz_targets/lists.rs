//! GitHub's lists: what is kept of them is limited and validated.
#![no_main]

use githubrunner::{
    github::{
        Web,
        wire::{InstallationRepositoriesPage, JobsPage, Page, RepositoriesPage, RepositoryRow, RunnersPage, RunsPage},
    },
    labels::{LABEL_LENGTH_MAX, LABELS_LENGTH_MAX, LABELS_MAX},
    model::{RepositoryId, is_login, is_repository_name},
    text::is_harmful,
};
use libfuzzer_sys::fuzz_target;
use url::Url;

/// The cached form parses to the same value.
fn kept<P: Page>(text: &[u8]) -> Option<P> {
    let page: P = serde_json::from_slice(text).ok()?;
    let written = serde_json::to_vec(&page).expect("it can be written");
    let again: P = serde_json::from_slice(&written).expect("it can be read");
    assert_eq!(serde_json::to_vec(&again).expect("it can be written"), written);
    assert_eq!(page.items().count(), again.items().count());
    Some(page)
}

fn check(row: &RepositoryRow) {
    for api in ["https://api.github.com/", "https://ghe.example/api/v3/"] {
        match row.to_model(&Web::of(&Url::parse(api).expect("it is a URL"))) {
            Ok(repository) => {
                assert!(is_login(&repository.owner) && is_repository_name(&repository.name));
                let host = if api.contains("github.com") { "https://github.com/" } else { "https://ghe.example/" };
                // Logins and names are compared case-insensitively.
                let page = format!("{host}{}", repository.full_name());
                assert!(repository.html_url.eq_ignore_ascii_case(&page), "{}", repository.html_url);
            }
            Err(problem) => assert!(problem.len() < 4096 && !problem.chars().any(is_harmful), "{problem:?}"),
        }
    }
}

fuzz_target!(|text: &[u8]| {
    kept::<RunsPage>(text);
    kept::<RunnersPage>(text);
    if let Some(page) = kept::<JobsPage>(text) {
        for (_, job) in page.items() {
            let job = job.to_model(RepositoryId(1), 1);
            assert!(job.labels.len() <= LABELS_MAX + 1);
            let length: usize = job.labels.iter().map(String::len).sum();
            assert!(length <= LABELS_LENGTH_MAX + 4 * (LABEL_LENGTH_MAX + 1));
        }
    }
    for (_, row) in kept::<RepositoriesPage>(text).iter().flat_map(Page::items) {
        check(&row);
    }
    for (_, row) in kept::<InstallationRepositoriesPage>(text).iter().flat_map(Page::items) {
        check(&row);
    }
});
