use super::*;

#[tokio::test(start_paused = true)]
async fn the_life_of_a_registration() {
    let world = World::new(sim::Options::default());
    let repository = world.repository("octo/app", 1, 1);
    let github = world.github();
    for scope in [Scope::from(&repository), Scope::Organization("Acme".into())] {
        let labels = ["self-hosted".to_string(), "nomadtools cpu=1".to_string()];
        let jit = github.jit_config(&scope, "p-octo-app-1", &labels, 1).await.unwrap();
        assert!(jit.encoded.expose().len() > 100);
        assert!(!format!("{jit:?}").contains(jit.encoded.expose()));
        let error = github.jit_config(&scope, "p-octo-app-1", &labels, 1).await.unwrap_err();
        assert!(matches!(&error, Error::AlreadyExists { name } if name == "p-octo-app-1"), "{error}");
        assert!(!error.is_ambiguous());
        github.jit_config(&scope, "p-octo-app-10", &labels, 1).await.unwrap();

        let found = found(&github, &scope, "p-octo-app-1").await;
        assert_eq!((found.id, found.online, found.busy), (jit.runner_id, false, false));
        assert_eq!(github.find_runner(&scope, "p-octo-app").await.unwrap(), Sought::Absent);
        assert_eq!(github.list_runners(&scope).await.unwrap().whole().unwrap().len(), 2);

        assert_eq!(github.delete_runner(&scope, jit.runner_id).await.unwrap(), Deleted::Deleted);
        assert_eq!(github.delete_runner(&scope, jit.runner_id).await.unwrap(), Deleted::NotThere);
        assert_eq!(github.find_runner(&scope, "p-octo-app-1").await.unwrap(), Sought::Absent);
        let token = github.registration_token(&scope).await.unwrap();
        assert_eq!(token.expires_at, Some(world.now() + Duration::from_secs(3600)));
        assert!(!token.token.is_empty() && !format!("{token:?}").contains(token.token.expose()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_runner_stays() {
    let world = World::new(sim::Options::default());
    let repository = world.repository("octo/app", 1, 1);
    let github = world.github();
    let scope = Scope::from(&repository);
    let jit = github.jit_config(&scope, "runner", &["self-hosted".into()], 1).await.unwrap();
    world.sim(|sim, now| {
        sim.connect_jit(jit.encoded.expose(), now).unwrap();
    });
    sleep(5).await;
    assert_eq!(github.delete_runner(&scope, jit.runner_id).await.unwrap(), Deleted::Busy);
    let found = found(&github, &scope, "runner").await;
    assert!(found.online && found.busy);
    let listing = github.list_jobs(&repository, Look::Active).await.unwrap();
    assert_eq!(listing.jobs[0].runner_name.as_deref(), Some("runner"));
}

#[tokio::test(start_paused = true)]
async fn registrations_are_sent_once_and_lost_responses_are_ambiguous() {
    let world = World::new(sim::Options::default());
    let repository = world.repository("octo/app", 1, 1);
    let scope = Scope::from(&repository);
    let github = world.github();
    for (status, ambiguous) in [(500, true), (502, true), (422, false), (404, false)] {
        world.fault(move |_| Some(answer(status, &[], "{}")));
        let error = github.jit_config(&scope, "r", &["a".into()], 1).await.unwrap_err();
        assert_eq!(error.is_ambiguous(), ambiguous, "{error}");
        assert_eq!(world.requests().len(), 1);
        assert!(github.delete_runner(&scope, RunnerId(1)).await.is_ok() == (status == 422 || status == 404));
        assert_eq!(world.requests().len(), 1);
    }
    // An answer from something in between is no refusal.
    world.fault(|_| Some(answer(200, &[], "<html>Please log in to the network.</html>")));
    assert!(github.delete_runner(&scope, RunnerId(1)).await.unwrap_err().is_ambiguous());
    // An invalid body after a success: something is registered, and the body is not quoted.
    world.fault(|_| Some(answer(201, &[], r#"{"encoded_jit_config":"MARKED"}"#)));
    let error = github.jit_config(&scope, "r", &["a".into()], 1).await.unwrap_err();
    assert!(error.is_ambiguous() && !format!("{error} {error:?}").contains("MARKED"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_renamed_repository_still_registers_runners() {
    let world = World::new(sim::Options::default());
    let repository = world.repository("octo/old", 1, 1);
    world.sim(|sim, _| sim.rename_repository(repository.id.0, "octo/new"));
    world.github().jit_config(&Scope::from(&repository), "r", &["a".into()], 1).await.unwrap();
    let lines = world.requests();
    assert!(lines[0].ends_with(" 307") && lines[1].ends_with(" 201"), "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn a_runner_group_is_found_by_its_name() {
    let world = World::new(sim::Options::default());
    let group = world.sim(|sim, _| {
        let organization = sim.add_organization("Widgets", &["octo"]);
        sim.add_runner_group(organization, "nomad")
    });
    let github = world.github();
    assert_eq!(github.runner_group("Widgets", "nomad").await.unwrap(), Sought::Found(group));
    assert_eq!(github.runner_group("Widgets", "other").await.unwrap(), Sought::Absent);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_runners_version_is_known_and_an_unknown_version_has_none() {
    let world = World::new(sim::Options {
        runner_version: Some("2.334.0".to_owned()),
        runner_versions: [
            ("2.334.0".to_owned(), Some("2026-08-10T00:00:00Z".parse().unwrap())),
            ("2.340.0".to_owned(), None),
        ]
        .into(),
        ..sim::Options::default()
    });
    let repository = world.repository("octo/app", 1, 1);
    let github = world.github();
    for scope in [Scope::from(&repository), Scope::Organization("Acme".into())] {
        let jit = github.jit_config(&scope, "r", &["a".into()], 1).await.unwrap();
        assert_eq!(found(&github, &scope, "r").await.version, None, "it has never connected");
        world.sim(|sim, now| sim.connect_jit(jit.encoded.expose(), now).unwrap());
        assert_eq!(found(&github, &scope, "r").await.version.as_deref(), Some("2.334.0"));
        let ends = github.version_ends(&scope, "2.334.0").await.unwrap().unwrap();
        assert_eq!(ends.jobs, Some("2026-08-10T00:00:00Z".parse().unwrap()));
        assert_eq!(ends.now, Some(world.now()));
        assert_eq!(github.version_ends(&scope, "2.340.0").await.unwrap().unwrap().jobs, None);
        assert_eq!(github.version_ends(&scope, "1.0.0").await.unwrap(), None);
    }
}

async fn found(github: &GitHub, scope: &Scope, name: &str) -> RegisteredRunner {
    match github.find_runner(scope, name).await.unwrap() {
        Sought::Found(runner) => runner,
        other => panic!("{name}: {other:?}"),
    }
}

/// A server that does not know `?name=` lists all runners: only a runner on none of the pages is absent.
#[tokio::test(start_paused = true)]
async fn an_incomplete_list_proves_presence_but_not_absence() {
    let world = World::new(sim::Options::default());
    let repository = world.repository("octo/app", 1, 1);
    let scope = Scope::from(&repository);
    let github = world.github();
    let page = r#"{"total_count":150,"runners":[{"id":1,"name":"seen","status":"online","busy":true}]}"#;
    let link = "<https://ghe-2.example/api/v3/repositories/1/actions/runners?page=2>; rel=\"next\"";
    world.fault(move |_| Some(answer(200, &[("link", link)], page)));
    assert!(found(&github, &scope, "seen").await.busy);
    let Sought::Unseen(gap) = github.find_runner(&scope, "other").await.unwrap() else { panic!() };
    assert!(gap.to_string().contains("set github.url to https://ghe-2.example"), "{gap}");
    let list = github.list_runners(&scope).await.unwrap();
    assert_eq!((list.known().len(), list.whole().is_err()), (1, true));
    world.fault(move |_| Some(answer(200, &[], page)));
    let Sought::Unseen(gap) = github.find_runner(&scope, "other").await.unwrap() else { panic!() };
    assert_eq!(gap, Gap::Count { counted: 150, seen: 1 });
    let groups = r#"{"total_count":3,"runner_groups":[{"id":2,"name":"seen"}]}"#;
    world.fault(move |_| Some(answer(200, &[], groups)));
    assert_eq!(github.runner_group("Widgets", "seen").await.unwrap(), Sought::Found(2));
    assert!(matches!(github.runner_group("Widgets", "other").await.unwrap(), Sought::Unseen(_)));
}

/// All runners of a large organization are listed, even if there are more than GitHub returns of a filtered
/// list.
#[tokio::test(start_paused = true)]
async fn a_list_of_many_runners_is_complete() {
    let world = World::new(sim::Options::default());
    let repository = world.repository("octo/app", 1, 1);
    world.fault(|seen| {
        let page: u64 = seen.path.split("&page=").nth(1).and_then(|page| page.parse().ok()).unwrap_or(1);
        let runners: Vec<String> =
            (0..100).map(|at| format!(r#"{{"id":{},"name":"r{at}"}}"#, page * 100 + at)).collect();
        let body = format!(r#"{{"total_count":1200,"runners":[{}]}}"#, runners.join(","));
        let next = format!("</repos/octo/app/actions/runners?per_page=100&page={}>; rel=\"next\"", page + 1);
        let headers = if page < 12 { vec![("link", next.as_str())] } else { Vec::new() };
        Some(answer(200, &headers, body))
    });
    let scope = Scope::from(&repository);
    assert_eq!(world.github().list_runners(&scope).await.unwrap().whole().unwrap().len(), 1200);
    assert_eq!(world.github().find_runner(&scope, "other").await.unwrap(), Sought::Absent);
}
