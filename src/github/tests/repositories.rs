use super::*;

fn world() -> World {
    let world = World::new(sim::Options::default());
    world.sim(|sim, _| {
        for name in ["octo/one", "octo/secret", "Acme/Tool", "Acme/hidden", "stranger/public"] {
            if name.starts_with("stranger") {
                sim.add_user("stranger");
            }
            let id = sim.add_repository(name);
            let private = name.ends_with("secret") || name.ends_with("hidden");
            sim.repository_mut(id).unwrap().private = private;
        }
    });
    world
}

#[tokio::test(start_paused = true)]
async fn entries_resolve_to_repositories() {
    let world = world();
    let github = world.github();
    let cases: [(&[&str], &[&str]); 6] = [
        (&["octo/one"], &["octo/one"]),
        (&["OCTO/One", "octo/one"], &["octo/one"]),
        (&["octo"], &["octo/one", "octo/secret"]),
        (&["acme"], &["Acme/Tool", "Acme/hidden"]),
        (&["stranger", "acme/tool"], &["Acme/Tool", "stranger/public"]),
        (&["*"], &["Acme/Tool", "Acme/hidden", "octo/one", "octo/secret"]),
    ];
    for (entries, expected) in cases {
        let entries: Vec<RepoEntry> = entries.iter().map(|text| entry(text)).collect();
        let resolution = github.repositories(&entries, Refresh::WhenDue).await;
        assert!(resolution.failures.is_empty(), "{:?}", resolution.failures);
        assert_eq!(names(&resolution.repositories), expected, "{entries:?}");
    }
    let archived = world.sim(|sim, _| {
        let id = sim.repository_id("octo/one").unwrap();
        sim.repository_mut(id).unwrap().archived = true;
        crate::model::RepositoryId(id)
    });
    let resolution = github.repositories(&[entry("octo/one")], Refresh::Now).await;
    assert!(resolution.repositories[0].archived);
    assert_eq!(github.repository_by_id(archived, "octo").await.unwrap().full_name(), "octo/one");
}

#[tokio::test(start_paused = true)]
async fn many_repositories_are_read_from_many_pages() {
    let world = World::new(sim::Options::default());
    for number in 0..205 {
        world.repository(&format!("Acme/r{number}"), 0, 0);
    }
    let resolution = world.github().repositories(&[entry("acme")], Refresh::WhenDue).await;
    assert_eq!(resolution.repositories.len(), 205);
}

#[tokio::test(start_paused = true)]
async fn a_resolved_entry_is_cached_and_outlives_failures() {
    let world = world();
    let github = world.github();
    let entries = [entry("octo/one"), entry("octo/missing")];
    let resolution = github.repositories(&entries, Refresh::WhenDue).await;
    assert_eq!(names(&resolution.repositories), ["octo/one"]);
    assert_eq!(resolution.failures.len(), 1);
    assert_eq!(resolution.failures[0].0, entries[1]);
    assert!(matches!(resolution.failures[0].1, Error::NotFound { .. }));
    world.requests();
    // Only the failed one is requested again.
    github.repositories(&entries, Refresh::WhenDue).await;
    assert_eq!(world.requests(), ["GET /repos/octo/missing 404"]);
    sleep(11 * 60).await;
    world.fault(|_| Some(answer(500, &[], "")));
    let resolution = github.repositories(&entries, Refresh::WhenDue).await;
    assert_eq!(names(&resolution.repositories), ["octo/one"]);
    assert_eq!(resolution.failures.len(), 2);
    world.no_fault();
    world.sim(|sim, _| {
        let id = sim.repository_id("octo/one").unwrap();
        sim.rename_repository(id, "octo/two");
    });
    // Its old name still redirects to it.
    assert_eq!(names(&github.repositories(&entries, Refresh::WhenDue).await.repositories), ["octo/two"]);
}

/// The list of an organization's repositories, truncated to the first one.
fn cut(world: &World, headers: &'static [(&'static str, &'static str)]) {
    let rows =
        r#"[{"id":ID,"name":"Tool","owner":{"login":"Acme"},"html_url":"https://github.com/Acme/Tool"}]"#;
    let id = world.sim(|sim, _| sim.repository_id("Acme/Tool").unwrap());
    let rows = rows.replace("ID", &id.to_string());
    world.fault(move |seen| {
        seen.path.contains("/orgs/acme/repos").then(|| answer(200, headers, rows.clone()))
    });
}

const FOREIGN: &[(&str, &str)] =
    &[("link", "<https://git.example/organizations/7/repos?page=2>; rel=\"next\"")];
const SINGLE_SIGN_ON: &[(&str, &str)] =
    &[("x-github-sso", "partial-results; organizations=21955855,20582480")];

#[tokio::test(start_paused = true)]
async fn an_incomplete_list_of_repositories_removes_nothing() {
    for (headers, told) in
        [(FOREIGN, "set github.url to https://git.example"), (SINGLE_SIGN_ON, "(IDs 21955855, 20582480)")]
    {
        let world = world();
        let github = world.github();
        let entries = [entry("acme")];
        cut(&world, headers);
        // If nothing was known before, the visible part counts, and the entry has failed.
        let resolution = github.repositories(&entries, Refresh::Now).await;
        assert_eq!(names(&resolution.repositories), ["Acme/Tool"]);
        assert_eq!(resolution.unconfirmed.len(), 0);
        assert!(resolution.failures[0].1.to_string().contains(told), "{:?}", resolution.failures);
        world.no_fault();
        let resolution = github.repositories(&entries, Refresh::Now).await;
        assert_eq!((resolution.failures.len(), resolution.repositories.len()), (0, 2));
        // What was known before still counts but is not confirmed; additional repositories are used.
        cut(&world, headers);
        for refresh in [Refresh::Now, Refresh::WhenDue] {
            let resolution = github.repositories(&entries, refresh).await;
            assert_eq!(names(&resolution.repositories), ["Acme/Tool", "Acme/hidden"]);
            let hidden = world.sim(|sim, _| sim.repository_id("Acme/hidden").unwrap());
            let unconfirmed: Vec<u64> = resolution.unconfirmed.iter().map(|id| id.0).collect();
            assert_eq!(unconfirmed, [hidden]);
            assert_eq!(resolution.failures.len(), 1);
            let error = &resolution.failures[0].1;
            assert!(error.to_string().contains(told), "{error}");
        }
        // Another entry confirms it.
        let both = [entry("acme"), entry("acme/hidden")];
        assert_eq!(github.repositories(&both, Refresh::WhenDue).await.unconfirmed.len(), 0);
        // It is read again before the usual time.
        world.no_fault();
        sleep(61).await;
        let resolution = github.repositories(&entries, Refresh::WhenDue).await;
        assert_eq!((resolution.failures.len(), resolution.unconfirmed.len()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_reading_confirms_nothing() {
    let world = world();
    let github = world.github();
    let entries = [entry("acme")];
    github.repositories(&entries, Refresh::Now).await;
    world.fault(|_| Some(answer(500, &[], "")));
    let resolution = github.repositories(&entries, Refresh::Now).await;
    assert_eq!((resolution.repositories.len(), resolution.unconfirmed.len()), (2, 2));
}

/// GitHub's names are external text, and a template would use them unchanged.
#[tokio::test(start_paused = true)]
async fn a_repository_with_an_invalid_name_is_left_out_and_reported() {
    let long = "x".repeat(2_000_000);
    let evil = r#"https://github.com/Acme/b\"\n } } task \"evil\" { driver = \"raw_exec\" {"#;
    let bad = [
        ("Acme", "b", evil),
        ("Acme", "b", "https://github.com/Acme/other"),
        ("Acme", "b", "javascript:alert(1)"),
        ("..", "b", "https://github.com/../b"),
        (long.as_str(), "b", "https://github.com/Acme/b"),
        ("Acme", "..", "https://github.com/Acme/.."),
        ("Acme", "\\u001b[2Jhold", "https://github.com/Acme/b"),
        ("Acme", "b\\u202e", "https://github.com/Acme/b"),
        ("Ac me", "b", "https://github.com/Ac me/b"),
    ];
    for (owner, name, html_url) in bad {
        let world = world();
        let rows = format!(
            r#"[{{"id":1,"name":"a","owner":{{"login":"Acme"}},"html_url":"https://github.com/Acme/a"}},
                {{"id":2,"name":"{name}","owner":{{"login":"{owner}"}},"html_url":"{html_url}"}}]"#
        );
        serde_json::from_str::<serde_json::Value>(&rows).unwrap();
        let one =
            format!(r#"{{"id":2,"name":"{name}","owner":{{"login":"{owner}"}},"html_url":"{html_url}"}}"#);
        world.fault(move |seen| match seen.path.as_str() {
            path if path.contains("/orgs/acme/repos") => Some(answer(200, &[], rows.clone())),
            path if path.contains("/repos/acme/b") => Some(answer(200, &[], one.clone())),
            _ => None,
        });
        let resolution =
            world.github().repositories(&[entry("acme"), entry("acme/b")], Refresh::WhenDue).await;
        assert_eq!(names(&resolution.repositories), ["Acme/a"], "{owner:.20} {name}");
        assert_eq!(resolution.failures.len(), 2);
        for (_, error) in resolution.failures {
            let error = error.to_string();
            assert!(error.contains("repository 2 is left out") && error.len() < 500, "{error}");
            assert!(error.chars().all(|c| c.is_ascii_graphic() || c == ' ' || c == '…'), "{error:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn another_host_name_of_an_enterprise_server_is_reported_with_the_setting_to_change() {
    let world = world();
    let options = Options { api_url: api_url("http://host.test/").unwrap(), ..world.options() };
    let row = r#"{"id":2,"name":"b","owner":{"login":"Acme"},"html_url":"https://git.example/Acme/b"}"#;
    world.fault(move |_| Some(answer(200, &[], row)));
    let github = world.github_with(Auth::Token(Secret::new(TOKEN)), options);
    let resolution = github.repositories(&[entry("acme/b")], Refresh::WhenDue).await;
    let error = resolution.failures[0].1.to_string();
    assert!(error.contains("set github.url to https://git.example"), "{error}");
}
