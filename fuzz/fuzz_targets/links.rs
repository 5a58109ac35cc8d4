//! Link headers: links that are followed stay on the API's own host.
#![no_main]

use githubrunner::github::pagination::{next_link, on_same_host};
use libfuzzer_sys::fuzz_target;
use url::Url;

fuzz_target!(|header: &str| {
    let api = Url::parse("https://ghe.example:8443/api/v3/").expect("it is a URL");
    let base = "/api/v3/repos/o/r/actions/runs?page=1";
    for link in next_link(header).into_iter().chain([header]) {
        let Some(path) = on_same_host(&api, base, link) else { continue };
        let target = api.join(&path).expect("it is a path");
        assert!(path.starts_with('/') && !path.starts_with("//"), "{path:?}");
        assert_eq!(target.origin(), api.origin(), "{path:?}");
        assert!(target.username().is_empty() && target.password().is_none());
    }
});
