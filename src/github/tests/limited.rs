use super::*;

/// How many seconds nothing is asked after a limit is met, and how many requests it took to learn of it.
async fn silent_for(world: &World, github: &GitHub, repository: &Repository) -> (u64, usize) {
    world.requests();
    let started = Instant::now();
    let mut refused = 0;
    loop {
        let result = github.list_jobs(repository, false).await;
        refused +=
            world.requests().iter().filter(|line| line.ends_with(" 403") || line.ends_with(" 429")).count();
        match result {
            Ok(_) => return (started.elapsed().as_secs(), refused),
            Err(Error::RateLimited { until, .. }) => {
                assert!(until > Instant::now());
                assert!(started.elapsed() < Duration::from_secs(100_000));
            }
            Err(error) => panic!("{error}"),
        }
        sleep(1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_until_the_limit_is_over() {
    for limit_status in [403, 429] {
        let world = World::new(sim::Options { limit_status, ..sim::Options::default() });
        let repository = world.repository("octo/app", 1, 1);
        let github = world.github();
        let until = |seconds| world.now() + Duration::from_secs(seconds);

        world.sim(|sim, _| sim.impose_limit(sim::Limited::Primary, until(1000)));
        assert_eq!(silent_for(&world, &github, &repository).await, (1000, 1));
        world.sim(|sim, _| sim.impose_limit(sim::Limited::Secondary, until(77)));
        assert_eq!(silent_for(&world, &github, &repository).await, (77, 1));
        // Unnamed: 60, then 120, then 240 s.
        world.sim(|sim, _| sim.impose_limit(sim::Limited::SecondarySilent, until(300)));
        assert_eq!(silent_for(&world, &github, &repository).await, (420, 3));
        // Begins anew once it was lifted.
        world.sim(|sim, _| sim.impose_limit(sim::Limited::SecondarySilent, until(30)));
        assert_eq!(silent_for(&world, &github, &repository).await, (60, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn requests_under_way_meet_one_limit_once() {
    let world = World::new(sim::Options::default());
    let repositories: Vec<_> =
        (0..8).map(|number| world.repository(&format!("octo/r{number}"), 1, 1)).collect();
    let github = world.github();
    world.sim(|sim, now| sim.impose_limit(sim::Limited::SecondarySilent, now + Duration::from_secs(50)));
    let listings = github.list_all(&repositories, false, Duration::from_secs(30)).await;
    assert!(listings.values().all(|listing| matches!(listing, Err(Error::RateLimited { .. }))));
    assert!(world.requests().len() <= 8);
    sleep(60).await;
    let listings = github.list_all(&repositories, false, Duration::from_secs(30)).await;
    assert!(listings.values().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn a_missing_right_is_no_limit() {
    let world = World::new(sim::Options::default());
    let repository = world.repository("octo/app", 1, 1);
    world.fault(|seen| {
        seen.path.contains("/jobs").then(|| {
            answer(
                403,
                &[("x-ratelimit-remaining", "4000"), ("x-ratelimit-resource", "core")],
                r#"{"message":"Resource not accessible by personal access token"}"#,
            )
        })
    });
    let github = world.github();
    let error = github.list_jobs(&repository, false).await.unwrap_err();
    assert!(matches!(error, Error::Forbidden(_)), "{error}");
    assert!(error.to_string().contains("not accessible"), "{error}");
    world.no_fault();
    github.list_jobs(&repository, false).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn buckets_are_told_apart() {
    let world = World::new(sim::Options::default());
    let repository = world.repository("octo/app", 1, 1);
    let github = world.github();
    let scope = Scope::from(&repository);
    world.fault(|seen| {
        (seen.method == hyper::Method::POST).then(|| {
            let headers = [
                ("x-ratelimit-remaining", "0"),
                ("x-ratelimit-limit", "1500"),
                ("x-ratelimit-resource", "actions_runner_registration"),
                ("x-ratelimit-reset", "1767268860"),
                ("date", "Thu, 01 Jan 2026 12:00:00 GMT"),
            ];
            answer(403, &headers, r#"{"message":"API rate limit exceeded"}"#)
        })
    });
    let error = github.registration_token(&scope).await.unwrap_err();
    assert!(matches!(&error, Error::RateLimited { wait, .. } if wait.as_secs() == 60), "{error}");
    github.list_jobs(&repository, false).await.unwrap();
    world.no_fault();
    assert!(matches!(github.registration_token(&scope).await, Err(Error::RateLimited { .. })));
    sleep(61).await;
    github.registration_token(&scope).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn points_are_spread_over_the_minutes() {
    let world = World::new(sim::Options { points_a_minute: 100, ..sim::Options::default() });
    let repositories: Vec<_> =
        (0..30).map(|number| world.repository(&format!("octo/r{number}"), 4, 1)).collect();
    let options = Options { points_a_minute: Some(90), ..world.options() };
    let github = world.github_with(Auth::Token(Secret::new(TOKEN)), options);
    let listings = github.list_all(&repositories, false, Duration::from_secs(600)).await;
    assert!(listings.values().all(Result::is_ok));
    assert!(world.requests().iter().all(|line| line.ends_with(" 200")));
    assert_eq!(Options::new(api_url("github.com").unwrap()).points_a_minute, Some(800));
    assert_eq!(Options::new(api_url("ghe.example").unwrap()).points_a_minute, None);
}
