use super::*;
use crate::github::limits::Claim;

const NONE: &str = r#"{"total_count":0,"workflow_runs":[]}"#;

/// For how many seconds nothing is requested after a limit is reached, and how many requests it took to learn
/// of it.
async fn silent_for(world: &World, github: &GitHub, repository: &Repository) -> (u64, usize) {
    world.requests();
    let started = Instant::now();
    let mut refused = 0;
    loop {
        let result = github.list_jobs(repository, Look::Active).await;
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
async fn nothing_is_requested_until_the_limit_is_over() {
    for limit_status in [403, 429] {
        let world = World::new(sim::Options { limit_status, ..sim::Options::default() });
        let repository = world.repository("octo/app", 1, 1);
        let github = world.github();
        let until = |seconds| world.now() + Duration::from_secs(seconds);

        world.sim(|sim, _| sim.impose_limit(sim::Limited::Primary, until(1000)));
        assert_eq!(silent_for(&world, &github, &repository).await, (1000, 1));
        world.sim(|sim, _| sim.impose_limit(sim::Limited::Secondary, until(77)));
        assert_eq!(silent_for(&world, &github, &repository).await, (77, 1));
        // Without a specified wait: 60, then 120, then 240 s.
        world.sim(|sim, _| sim.impose_limit(sim::Limited::SecondarySilent, until(300)));
        assert_eq!(silent_for(&world, &github, &repository).await, (420, 3));
        // Starts again after the limit was lifted.
        world.sim(|sim, _| sim.impose_limit(sim::Limited::SecondarySilent, until(30)));
        assert_eq!(silent_for(&world, &github, &repository).await, (60, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn concurrent_requests_count_as_one_limit() {
    let world = World::new(sim::Options::default());
    let repositories: Vec<_> =
        (0..8).map(|number| world.repository(&format!("octo/r{number}"), 1, 1)).collect();
    let github = world.github();
    world.sim(|sim, now| sim.impose_limit(sim::Limited::SecondarySilent, now + Duration::from_secs(50)));
    let listings = github.list_all(&repositories, Look::Active, Duration::from_secs(30)).await;
    assert!(listings.values().all(|listing| matches!(listing, Err(Error::RateLimited { .. }))));
    assert!(world.requests().len() <= 8);
    sleep(60).await;
    let listings = github.list_all(&repositories, Look::Active, Duration::from_secs(30)).await;
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
    let error = github.list_jobs(&repository, Look::Active).await.unwrap_err();
    assert!(matches!(error, Error::Forbidden(_)), "{error}");
    assert!(error.to_string().contains("not accessible"), "{error}");
    world.no_fault();
    github.list_jobs(&repository, Look::Active).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn buckets_are_separate() {
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
    github.list_jobs(&repository, Look::Active).await.unwrap();
    world.no_fault();
    assert!(matches!(github.registration_token(&scope).await, Err(Error::RateLimited { .. })));
    sleep(61).await;
    github.registration_token(&scope).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_not_repeated_before_the_reset_when_nothing_remains() {
    let world = World::new(sim::Options::default());
    let repository = world.repository("octo/app", 1, 1);
    world.fault(|seen| {
        seen.path.contains("/runs").then(|| {
            let headers = [
                ("x-ratelimit-remaining", "0"),
                ("x-ratelimit-limit", "5000"),
                ("x-ratelimit-resource", "core"),
                ("x-ratelimit-reset", "1767268860"),
                ("date", "Thu, 01 Jan 2026 12:00:00 GMT"),
            ];
            answer(502, &headers, "")
        })
    });
    world.requests();
    world.github().list_jobs(&repository, Look::Newest).await.unwrap_err();
    let failed: Vec<String> = world.requests().into_iter().filter(|line| line.ends_with(" 502")).collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
}

#[tokio::test(start_paused = true)]
async fn points_are_spread_over_the_minutes() {
    let world = World::new(sim::Options { points_a_minute: 100, ..sim::Options::default() });
    let repositories: Vec<_> =
        (0..30).map(|number| world.repository(&format!("octo/r{number}"), 4, 1)).collect();
    let options = Options { points_a_minute: Some(90), ..world.options() };
    let github = world.github_with(Auth::Token(Secret::new(TOKEN)), options);
    let listings = github.list_all(&repositories, Look::Active, Duration::from_secs(600)).await;
    assert!(listings.values().all(Result::is_ok));
    assert!(world.requests().iter().all(|line| line.ends_with(" 200")));
    assert_eq!(Options::new(api_url("github.com").unwrap()).points_a_minute, Some(700));
}

#[tokio::test(start_paused = true)]
async fn a_server_without_rate_limit_headers_is_not_limited() {
    let world = World::new(sim::Options::default());
    let repository = world.repository("octo/app", 0, 0);
    world.fault(|_| {
        Some(answer(
            200,
            &[("date", "Thu, 01 Jan 2026 12:00:00 GMT")],
            r#"{"total_count":0,"workflow_runs":[]}"#,
        ))
    });
    let options = Options { points_a_minute: Some(10), ..world.options() };
    let github = world.github_with(Auth::Token(Secret::new(TOKEN)), options);
    let began = Instant::now();
    for _ in 0..20 {
        github.list_jobs(&repository, Look::Active).await.unwrap();
    }
    assert!(began.elapsed() < Duration::from_secs(1));
    assert!(github.headroom("").a_minute > 1000.0);
}

#[tokio::test(start_paused = true)]
async fn response_times_of_a_minute_are_bounded_and_leave_writes_alone() {
    let limits = super::super::limits::Limits::new(Some(700));
    let began = Instant::now();
    let mut asked: Vec<Duration> = Vec::new();
    while began.elapsed() < Duration::from_secs(300) {
        match limits.pace("us", Claim::Asked) {
            None => {
                asked.push(began.elapsed());
                limits.took("us", Duration::from_millis(500));
                // Four at once.
                tokio::time::sleep(Duration::from_millis(125)).await;
            }
            Some(wait) => {
                assert_eq!(limits.pace("us", Claim::Write), None);
                tokio::time::sleep(wait).await;
            }
        }
    }
    let in_a_minute = |from: &Duration| {
        asked.iter().filter(|at| *at >= from && **at < *from + Duration::from_secs(60)).count()
    };
    let most = asked.iter().map(in_a_minute).max().unwrap();
    assert!((139..=143).contains(&most), "{most}");
    let a_minute = limits.headroom("us").a_minute;
    assert!((139.0..141.0).contains(&a_minute), "{a_minute}");
    // One that waits for something other than a CPU counts little more than others.
    limits.took("slow", Duration::from_secs(20));
    assert_eq!(limits.headroom("slow").a_minute, 35.0);
}

#[tokio::test(start_paused = true)]
async fn scheduled_reads_leave_points_for_requested_ones_and_all_reads_leave_some_for_writes() {
    let limits = super::super::limits::Limits::new(Some(700));
    let until_it_waits = |claim: Claim| (0..1000).take_while(|_| limits.pace("us", claim).is_none()).count();
    assert_eq!(limits.headroom("us").for_pace, 560.0);
    assert_eq!(until_it_waits(Claim::Pace), 560);
    assert_eq!(until_it_waits(Claim::Asked), 70);
    // Requested looks slow down the pace, so that it does not reach the limit.
    assert_eq!(limits.headroom("us").for_pace, 490.0);
    assert_eq!(until_it_waits(Claim::Write), 14);
    assert_eq!(limits.headroom("us").for_pace, 420.0);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(limits.headroom("us").for_pace, 560.0);
}

#[tokio::test(start_paused = true)]
async fn no_minute_has_more_points_than_allowed_wherever_it_begins() {
    let limits = super::super::limits::Limits::new(Some(100));
    let began = Instant::now();
    let mut used: Vec<(Duration, u64)> = Vec::new();
    let mut turn = 0;
    while began.elapsed() < Duration::from_secs(300) {
        turn += 1;
        let (claim, points) = if turn % 7 == 0 { (Claim::Write, 5) } else { (Claim::Asked, 1) };
        match limits.pace("us", claim) {
            None => used.push((began.elapsed(), points)),
            Some(wait) => tokio::time::sleep(wait.min(Duration::from_millis(700))).await,
        }
    }
    let in_a_minute = |from: &Duration| -> u64 {
        used.iter()
            .filter(|(at, _)| at >= from && *at < *from + Duration::from_secs(60))
            .map(|(_, points)| points)
            .sum()
    };
    let most = used.iter().map(|(at, _)| in_a_minute(at)).max().unwrap();
    assert!((95..=100).contains(&most), "{most}");
    assert!(used.iter().map(|(_, points)| points).sum::<u64>() >= 450);
}

#[tokio::test(start_paused = true)]
async fn a_tenth_of_the_primary_limit_is_reserved_for_writes() {
    let world = World::new(sim::Options::default());
    let repository = world.repository("octo/app", 0, 0);
    let github = world.github();
    let told = |remaining: &'static str| {
        move |seen: &Seen| {
            let headers = [
                ("x-ratelimit-remaining", remaining),
                ("x-ratelimit-limit", "5000"),
                ("x-ratelimit-resource", "core"),
                ("x-ratelimit-reset", "1767272400"),
                ("date", "Thu, 01 Jan 2026 12:00:00 GMT"),
            ];
            seen.path.contains("/runs").then(|| answer(200, &headers, NONE))
        }
    };
    world.fault(told("501"));
    github.list_jobs(&repository, Look::Newest).await.unwrap();
    assert!(!github.headroom("").ahead, "an hour before the reset 3,375 would be even");
    world.fault(told("500"));
    github.list_jobs(&repository, Look::Newest).await.unwrap();
    world.no_fault();
    let error = github.list_jobs(&repository, Look::Newest).await.unwrap_err();
    assert!(matches!(&error, Error::RateLimited { wait, .. } if wait.as_secs() > 1000), "{error}");
    github.registration_token(&Scope::from(&repository)).await.unwrap();
    sleep(3601).await;
    github.list_jobs(&repository, Look::Newest).await.unwrap();
}
