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

        let found = github.find_runner(&scope, "p-octo-app-1").await.unwrap().unwrap();
        assert_eq!((found.id, found.online, found.busy), (jit.runner_id, false, false));
        assert_eq!(github.find_runner(&scope, "p-octo-app").await.unwrap(), None);
        assert_eq!(github.list_runners(&scope).await.unwrap().len(), 2);

        assert_eq!(github.delete_runner(&scope, jit.runner_id).await.unwrap(), Deleted::Deleted);
        assert_eq!(github.delete_runner(&scope, jit.runner_id).await.unwrap(), Deleted::NotThere);
        assert_eq!(github.find_runner(&scope, "p-octo-app-1").await.unwrap(), None);
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
    let found = github.find_runner(&scope, "runner").await.unwrap().unwrap();
    assert!(found.online && found.busy);
    let listing = github.list_jobs(&repository, false).await.unwrap();
    assert_eq!(listing.jobs[0].runner_name.as_deref(), Some("runner"));
}

#[tokio::test(start_paused = true)]
async fn registrations_are_sent_once_and_lost_answers_are_ambiguous() {
    let world = World::new(sim::Options::default());
    let repository = world.repository("octo/app", 1, 1);
    let scope = Scope::from(&repository);
    let github = world.github();
    for (status, ambiguous) in [(500, true), (502, true), (422, false), (404, false)] {
        world.fault(move |_| Some(answer(status, &[], "{}")));
        let error = github.jit_config(&scope, "r", &["a".into()], 1).await.unwrap_err();
        assert_eq!(error.is_ambiguous(), ambiguous, "{error}");
        assert_eq!(world.requests().len(), 1);
        assert!(github.delete_runner(&scope, 1).await.is_ok() == (status == 422 || status == 404));
        assert_eq!(world.requests().len(), 1);
    }
    // Whoever answered so, nobody refused.
    world.fault(|_| Some(answer(200, &[], "<html>Please log in to the network.</html>")));
    assert!(github.delete_runner(&scope, 1).await.unwrap_err().is_ambiguous());
    // A body that makes no sense after a success: it is registered, and the body is not quoted.
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
    assert_eq!(github.runner_group("Widgets", "nomad").await.unwrap(), Some(group));
    assert_eq!(github.runner_group("Widgets", "other").await.unwrap(), None);
}
