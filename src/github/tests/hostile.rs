use super::*;

#[tokio::test(start_paused = true)]
async fn redirects_and_links_to_other_hosts_are_not_followed() {
    let world = World::new(sim::Options::default());
    let repository = world.repository("octo/app", 1, 1);
    for location in
        ["http://evil.test/repos/octo/app", "https://host.test/x", "//evil.test/", "http://host.test:81/"]
    {
        world.fault(move |_| Some(answer(301, &[("location", location)], "")));
        let error = world.github().list_jobs(&repository, Look::Active).await.unwrap_err();
        assert!(error.to_string().contains("not followed"), "{error}");
        assert_eq!(world.requests().len(), 1);
    }
    world.fault(move |_| Some(answer(301, &[("location", "http://host.test/elsewhere")], "")));
    let below =
        Options { api_url: url::Url::parse("http://host.test/github/api/").unwrap(), ..world.options() };
    let github = world.github_with(Auth::Token(Secret::new(TOKEN)), below);
    let error = github.list_jobs(&repository, Look::Active).await.unwrap_err();
    assert!(error.to_string().contains("outside of github.url's own, /github/api/"), "{error}");
    assert_eq!(world.requests().len(), 1);
    world.fault(|_| {
        let headers =
            [("date", "Thu, 01 Jan 2026 12:00:00 GMT"), ("link", "<http://evil.test/?page=2>; rel=\"next\"")];
        Some(answer(200, &headers, r#"{"total_count":0,"workflow_runs":[]}"#))
    });
    let listing = world.github().list_jobs(&repository, Look::Active).await.unwrap();
    assert!(listing.missing.unwrap().contains("set github.url to http://evil.test"));
}

#[tokio::test(start_paused = true)]
async fn redirect_loops_end() {
    let world = World::new(sim::Options::default());
    let repository = world.repository("octo/app", 1, 1);
    world.fault(|seen| Some(answer(301, &[("location", seen.path.as_str())], "")));
    let error = world.github().list_jobs(&repository, Look::Active).await.unwrap_err();
    assert!(error.to_string().contains("too many redirects"), "{error}");
    assert_eq!(world.requests().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn an_unexpected_304_is_an_error() {
    let world = World::new(sim::Options::default());
    let repository = world.repository("octo/app", 1, 1);
    world.fault(|_| Some(answer(304, &[], "")));
    assert!(matches!(world.github().list_jobs(&repository, Look::Active).await, Err(Error::Unexpected(_))));
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_is_reported_and_not_shown() {
    let world = World::new(sim::Options::default());
    let repository = world.repository("octo/app", 1, 1);
    world.sim(|sim, _| sim.revoke_token(TOKEN));
    let error = world.github().list_jobs(&repository, Look::Active).await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized(_)), "{error}");
    assert!(!format!("{error} {error:?}").contains("MARKED"));
    let missing = world.github_with(Auth::Token(Secret::new("")), world.options());
    let error = missing.list_jobs(&repository, Look::Active).await.unwrap_err();
    assert!(error.to_string().contains("GH_TOKEN"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_token_file_is_reread_when_it_changes() {
    let world = World::new(sim::Options::default());
    let repository = world.repository("octo/app", 1, 1);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    let github = world.github_with(Auth::TokenFile(path.clone()), world.options());
    let error = github.list_jobs(&repository, Look::Active).await.unwrap_err();
    assert!(error.to_string().contains("cannot read the GitHub token from"), "{error}");
    std::fs::write(&path, format!("{TOKEN}\n")).unwrap();
    github.list_jobs(&repository, Look::Active).await.unwrap();
    // Rotated: the old token is rejected at once, and the file has the new one.
    world.sim(|sim, _| {
        sim.revoke_token(TOKEN);
        sim.add_token("ghp_NEW", sim::Token::classic("octo", &["repo"]));
    });
    std::fs::write(&path, "ghp_NEW").unwrap();
    github.list_jobs(&repository, Look::Active).await.unwrap();
    assert_eq!(world.requests().iter().filter(|line| line.ends_with(" 401")).count(), 1);
}
