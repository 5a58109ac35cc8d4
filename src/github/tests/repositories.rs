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
async fn entries_mean_repositories() {
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
        let resolution = github.repositories(&entries, false).await;
        assert!(resolution.failures.is_empty(), "{:?}", resolution.failures);
        assert_eq!(names(&resolution.repositories), expected, "{entries:?}");
    }
    let archived = world.sim(|sim, _| {
        let id = sim.repository_id("octo/one").unwrap();
        sim.repository_mut(id).unwrap().archived = true;
        crate::model::RepositoryId(id)
    });
    let resolution = github.repositories(&[entry("octo/one")], true).await;
    assert!(resolution.repositories[0].archived);
    assert_eq!(github.repository_by_id(archived, "octo").await.unwrap().full_name(), "octo/one");
}

#[tokio::test(start_paused = true)]
async fn many_repositories_come_over_many_pages() {
    let world = World::new(sim::Options::default());
    for number in 0..205 {
        world.repository(&format!("Acme/r{number}"), 0, 0);
    }
    let resolution = world.github().repositories(&[entry("acme")], false).await;
    assert_eq!(resolution.repositories.len(), 205);
}

#[tokio::test(start_paused = true)]
async fn what_an_entry_means_is_remembered_and_outlives_failures() {
    let world = world();
    let github = world.github();
    let entries = [entry("octo/one"), entry("octo/missing")];
    let resolution = github.repositories(&entries, false).await;
    assert_eq!(names(&resolution.repositories), ["octo/one"]);
    assert_eq!(resolution.failures.len(), 1);
    assert_eq!(resolution.failures[0].0, entries[1]);
    assert!(matches!(resolution.failures[0].1, Error::NotFound { .. }));
    world.requests();
    // Only the failed one is asked for again.
    github.repositories(&entries, false).await;
    assert_eq!(world.requests(), ["GET /repos/octo/missing 404"]);
    sleep(11 * 60).await;
    world.fault(|_| Some(answer(500, &[], "")));
    let resolution = github.repositories(&entries, false).await;
    assert_eq!(names(&resolution.repositories), ["octo/one"]);
    assert_eq!(resolution.failures.len(), 2);
    world.no_fault();
    world.sim(|sim, _| {
        let id = sim.repository_id("octo/one").unwrap();
        sim.rename_repository(id, "octo/two");
    });
    // Its old name still leads to it.
    assert_eq!(names(&github.repositories(&entries, false).await.repositories), ["octo/two"]);
}
