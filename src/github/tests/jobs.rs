use super::*;
use crate::model::JobStatus;

#[tokio::test(start_paused = true)]
async fn all_jobs_of_all_active_runs_are_listed_over_all_pages() {
    let world = World::new(sim::Options::default());
    let many_runs = world.repository("Acme/runs", 230, 1);
    let many_jobs = world.repository("Acme/jobs", 2, 250);
    let github = world.github();
    for (repository, count) in [(many_runs, 230), (many_jobs, 500)] {
        let listing = github.list_jobs(&repository, Look::Active).await.unwrap();
        assert_eq!((listing.jobs.len(), listing.is_complete()), (count, true));
        assert!(listing.jobs.is_sorted_by_key(|job| job.id));
        let job = &listing.jobs[0];
        assert_eq!((job.status, job.repository), (JobStatus::Queued, repository.id));
        assert_eq!((&job.labels[..], job.runner_name.as_deref()), (["self-hosted".into()].as_slice(), None));
        assert_eq!((job.run.branch.as_str(), job.run.event.as_str()), ("main", "push"));
        assert!(!job.run.workflow.is_empty() && !job.run.actor.is_empty(), "{:?}", job.run);
        assert_eq!(job.created_at, Some(world.now()));
        assert_eq!(listing.now, world.now());
    }
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_pass_is_free_and_has_the_same_result() {
    let world = World::new(sim::Options::default());
    let repository = world.repository("octo/app", 3, 2);
    let github = world.github();
    let first = github.list_jobs(&repository, Look::Active).await.unwrap();
    assert!(world.requests().iter().all(|line| line.ends_with(" 200")));
    let remaining = |github: &GitHub| github.rates().values().next().unwrap().remaining;
    let before = remaining(&github);
    sleep(1).await;
    let second = github.list_jobs(&repository, Look::Active).await.unwrap();
    let requests = world.requests();
    assert_eq!(requests.len(), 3 + 3, "{requests:?}");
    assert!(requests.iter().all(|line| line.ends_with(" 304")), "{requests:?}");
    assert_eq!(remaining(&github), before);
    assert_eq!(first.jobs, second.jobs);
    assert!(second.is_complete() && second.now > first.now);
}

#[tokio::test(start_paused = true)]
async fn each_kind_of_look_requests_more_and_only_complete_ones_prove_absence() {
    let world = World::new(sim::Options::default());
    let repository = world.repository("octo/app", 0, 0);
    let github = world.github();
    for (look, asked, complete) in [
        (Look::Newest, &["per_page=20"][..], false),
        (Look::Queued, &["per_page=20", "status=queued&"], false),
        (Look::Active, &["per_page=20", "status=queued&", "status=in_progress&"], true),
        (
            Look::All,
            &[
                "per_page=20",
                "status=queued&",
                "status=in_progress&",
                "status=waiting&",
                "status=pending&",
                "status=requested&",
            ],
            true,
        ),
    ] {
        world.requests();
        let listing = github.list_jobs(&repository, look).await.unwrap();
        let requests = world.requests();
        assert_eq!(requests.len(), asked.len(), "{look:?}: {requests:?}");
        assert!(asked.iter().all(|part| requests.iter().any(|line| line.contains(part))), "{requests:?}");
        assert_eq!((listing.is_complete(), listing.requests), (complete, 0));
        assert_eq!((listing.has_runs, listing.newest_run), (Some(false), None));
    }
}

/// Old runs that are rerun keep their place in the list, and are found by the list of queued ones.
#[tokio::test(start_paused = true)]
async fn the_newest_runs_show_what_the_lists_by_status_lack_and_vice_versa() {
    let world = World::new(sim::Options { index_lag: Duration::from_secs(600), ..sim::Options::default() });
    let repository = world.repository("octo/app", 3, 1);
    let github = world.github();
    let seen = async |look| github.list_jobs(&repository, look).await.unwrap().jobs.len();
    assert_eq!(seen(Look::Newest).await, 3, "the index knows of none yet");
    let old = World::new(sim::Options::default());
    let repository = old.repository("octo/app", 30, 1);
    let github = old.github();
    assert_eq!(github.list_jobs(&repository, Look::Newest).await.unwrap().jobs.len(), 20);
    assert_eq!(github.list_jobs(&repository, Look::Queued).await.unwrap().jobs.len(), 30);
    // A run that has been seen once is followed.
    assert_eq!(github.list_jobs(&repository, Look::Newest).await.unwrap().jobs.len(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_run_without_a_job_of_ours_is_read_again_when_it_changes_or_after_a_minute() {
    let world = World::new(sim::Options::default());
    let repository = world.repository("octo/app", 0, 0);
    let other = sim::JobSpec::new(&["windows"], Duration::from_secs(3600));
    let run = world.sim(|sim, now| sim.queue_run(repository.id.0, vec![other.clone()], now).unwrap());
    let rules = crate::labels::LabelRules::new("self-hosted").unwrap();
    let interest = Some(Arc::new(crate::labels::Interest::new(&rules, "ghr")));
    let options = Options { interest, ..world.options() };
    let github = world.github_with(Auth::Token(Secret::new(TOKEN)), options);
    let looked_into = async |look| {
        world.requests();
        github.list_jobs(&repository, look).await.unwrap();
        world.requests().iter().filter(|line| line.contains(&format!("/runs/{run}/jobs"))).count()
    };
    assert_eq!(looked_into(Look::Newest).await, 1);
    sleep(10).await;
    assert_eq!(looked_into(Look::Newest).await, 0);
    assert_eq!(looked_into(Look::Queued).await, 0);
    assert_eq!(looked_into(Look::Active).await, 1, "who is busy is read in full");
    sleep(61).await;
    assert_eq!(looked_into(Look::Newest).await, 1);
    sleep(10).await;
    world.sim(|sim, now| sim.rerun(run, now));
    assert_eq!(looked_into(Look::Newest).await, 0, "it is not over");
    world.sim(|sim, now| sim.cancel_run(run, now));
    assert_eq!(looked_into(Look::Newest).await, 1, "it has changed");
    // A run with a job of ours is read each time.
    let ours = sim::JobSpec::new(&["self-hosted"], Duration::from_secs(3600));
    world.sim(|sim, now| sim.queue_run(repository.id.0, vec![other, ours], now).unwrap());
    for _ in 0..3 {
        assert_eq!(github.list_jobs(&repository, Look::Newest).await.unwrap().jobs.len(), 2);
        sleep(1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_look_takes_a_share_of_requests_and_the_next_one_continues() {
    let world = World::new(sim::Options::default());
    let repository = world.repository("octo/app", 150, 1);
    let github = world.github();
    let mut seen = std::collections::BTreeSet::new();
    let mut looks = 0;
    loop {
        let listing = github.look(&repository, Look::Active, Duration::from_secs(20)).await.unwrap();
        looks += 1;
        assert!(listing.requests <= 60 && looks < 10);
        seen.extend(listing.jobs.iter().map(|job| job.id));
        if !github.is_unfinished(repository.id) {
            break;
        }
        assert!(!listing.is_complete());
    }
    assert_eq!((seen.len(), looks), (150, 3));
}

#[tokio::test(start_paused = true)]
async fn jobs_that_need_others_are_seen_when_they_appear_in_a_run_whose_jobs_were_all_done() {
    let world = World::new(sim::Options::default());
    let repository = world.repository("octo/app", 0, 0);
    let run = world.sim(|sim, now| {
        let first = sim::JobSpec::new(&["self-hosted"], Duration::from_secs(1));
        let second = sim::JobSpec { needs: vec![0], delay: Duration::from_secs(20), ..first.clone() };
        sim.queue_run(repository.id.0, vec![first, second], now).unwrap()
    });
    let github = world.github();
    let first = github.list_jobs(&repository, Look::Active).await.unwrap();
    assert_eq!(first.jobs.len(), 1);
    let jit =
        github.jit_config(&Scope::from(&repository), "runner", &["self-hosted".into()], 1).await.unwrap();
    world.sim(|sim, now| {
        sim.connect_jit(jit.encoded.expose(), now).unwrap();
    });
    sleep(10).await;
    let between = github.list_jobs(&repository, Look::Active).await.unwrap();
    assert_eq!(between.jobs, []);
    sleep(20).await;
    let second = github.list_jobs(&repository, Look::Active).await.unwrap();
    assert_eq!(second.jobs.len(), 1);
    assert_eq!(second.jobs[0].run_id, RunId(run));
    assert_ne!(second.jobs[0].id, first.jobs[0].id);
}

/// A repository with given lists of runs and given jobs of run 7. The lists of other statuses are empty.
fn given(world: &World, in_progress: &'static str, jobs: &'static str) {
    world.fault(move |seen| {
        let empty = r#"{"total_count":0,"workflow_runs":[]}"#;
        Some(match &seen.path {
            path if path.contains("/runs/7/jobs") => dated(jobs),
            path if path.contains("status=in_progress") => dated(in_progress),
            _ => dated(empty),
        })
    });
}

const RUN: &str = r#"{"total_count":1,"workflow_runs":[{"id":7}]}"#;
const NONE: &str = r#"{"total_count":0,"workflow_runs":[]}"#;
const QUEUED: &str = r#"{"total_count":2,"jobs":[{"id":1,"status":"completed"},{"id":2,"status":"queued"}]}"#;
const OVER: &str =
    r#"{"total_count":2,"jobs":[{"id":1,"status":"completed"},{"id":2,"status":"completed"}]}"#;

#[tokio::test(start_paused = true)]
async fn a_run_that_is_in_no_list_is_followed_until_its_own_jobs_are_over() {
    let world = World::new(sim::Options::default());
    let repository = world.repository("octo/app", 0, 0);
    let github = world.github();
    for (runs, jobs, expected, asked) in [
        (RUN, QUEUED, &[2][..], true),
        (NONE, QUEUED, &[2], true),
        (NONE, QUEUED, &[2], true),
        (NONE, OVER, &[], true),
        (NONE, OVER, &[], false),
    ] {
        given(&world, runs, jobs);
        let listing = github.list_jobs(&repository, Look::Active).await.unwrap();
        assert_eq!(ids(&listing.jobs), expected);
        assert!(listing.is_complete());
        assert_eq!(world.requests().iter().any(|line| line.contains("/runs/7/jobs")), asked);
    }
}

#[tokio::test(start_paused = true)]
async fn a_followed_run_that_was_deleted_makes_the_listing_incomplete_once() {
    let world = World::new(sim::Options::default());
    let repository = world.repository("octo/app", 0, 0);
    let github = world.github();
    given(&world, RUN, QUEUED);
    github.list_jobs(&repository, Look::Active).await.unwrap();
    world.no_fault();
    let listing = github.list_jobs(&repository, Look::Active).await.unwrap();
    assert_eq!((ids(&listing.jobs).as_slice(), listing.is_complete()), (&[][..], false));
    assert!(github.list_jobs(&repository, Look::Active).await.unwrap().is_complete());
}

#[tokio::test(start_paused = true)]
async fn a_wrong_total_makes_a_listing_incomplete() {
    let world = World::new(sim::Options::default());
    let repository = world.repository("octo/app", 0, 0);
    for (runs, jobs) in [
        (r#"{"total_count":2,"workflow_runs":[{"id":7}]}"#, QUEUED),
        (r#"{"total_count":1000,"workflow_runs":[{"id":7}]}"#, QUEUED),
        (RUN, r#"{"total_count":3,"jobs":[{"id":2,"status":"queued"}]}"#),
    ] {
        given(&world, runs, jobs);
        let listing = world.github().list_jobs(&repository, Look::Active).await.unwrap();
        assert_eq!((ids(&listing.jobs).as_slice(), listing.is_complete()), (&[2][..], false));
    }
}

#[tokio::test(start_paused = true)]
async fn optional_fields_may_be_missing_and_required_ones_may_not() {
    let world = World::new(sim::Options::default());
    let repository = world.repository("octo/app", 0, 0);
    given(
        &world,
        RUN,
        r#"{"total_count":3,"jobs":[
            {"id":1,"status":"brand_new","labels":null,"name":null,"runner_name":null},
            {"id":2,"status":"queued","labels":["a"],"created_at":"nonsense","runner_name":""},
            {"id":3,"status":"in_progress","created_at":"2026-01-01T12:00:00.000+02:00","runner_name":"r","html_url":null}]}"#,
    );
    let jobs = world.github().list_jobs(&repository, Look::Active).await.unwrap().jobs;
    assert_eq!(
        jobs.iter().map(|job| job.status).collect::<Vec<_>>(),
        [JobStatus::Unknown, JobStatus::Queued, JobStatus::InProgress]
    );
    assert_eq!((jobs[1].created_at, jobs[1].runner_name.as_deref()), (None, None));
    assert_eq!(jobs[2].created_at, Some("2026-01-01T10:00:00Z".parse().unwrap()));
    assert_eq!(jobs[2].runner_name.as_deref(), Some("r"));
    for garbage in ["", "{}", "[]", "{\"total_count\":1,\"jobs\":[{\"id\":\"x\"}]}", "<html>"] {
        given(&world, RUN, garbage);
        // Only this run is affected, and that is reported.
        let listing = world.github().list_jobs(&repository, Look::Active).await.unwrap();
        assert_eq!(listing.jobs, []);
        let missing = listing.missing.unwrap();
        assert!(missing.contains("the jobs of run 7 could not be read"), "{garbage}: {missing}");
        assert!(missing.contains("unexpected response"), "{garbage}: {missing}");
        given(&world, garbage, QUEUED);
        let missing = world.github().list_jobs(&repository, Look::Active).await.unwrap().missing.unwrap();
        assert!(missing.contains("the in_progress runs could not be read"), "{garbage}: {missing}");
        world.fault(move |_| Some(dated(garbage)));
        let error = world.github().list_jobs(&repository, Look::Active).await.unwrap_err();
        assert!(matches!(error, Error::Http(crate::http::Error::Json { .. })), "{garbage}: {error}");
    }
}

/// The jobs of large runs repeatedly get a 502 at a hundred a page, but not at fewer (contract §8).
#[tokio::test(start_paused = true)]
async fn a_list_that_fails_in_large_pages_is_read_in_small_ones() {
    let world = World::new(sim::Options::default());
    let repository = world.repository("octo/app", 2, 60);
    world.repository("octo/other", 1, 1);
    let sick = world.sim(|sim, _| sim.runs().map(|run| run.id).next().unwrap());
    let github = world.github();
    for largest in [50, 30, 10] {
        world.fault(move |seen| {
            let size: u64 = seen.path.split("per_page=").nth(1)?.split('&').next()?.parse().ok()?;
            (seen.path.contains(&format!("/{sick}/jobs")) && size > largest)
                .then(|| answer(502, &[], r#"{"message":"Server Error"}"#))
        });
        let listing = github.list_jobs(&repository, Look::Active).await.unwrap();
        assert_eq!((listing.jobs.len(), listing.missing), (120, None), "{largest}");
        github.end_pass().await;
        world.requests();
        // The size that works is remembered.
        github.list_jobs(&repository, Look::Active).await.unwrap();
        assert_eq!(world.requests().iter().filter(|line| line.ends_with(" 502")).count(), 0, "{largest}");
        github.end_pass().await;
    }
    world.no_fault();
    sleep(11 * 60).await;
    world.requests();
    github.list_jobs(&repository, Look::Active).await.unwrap();
    assert!(world.requests().iter().all(|line| !line.contains("per_page=10&")), "large pages are back");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_cannot_be_read_affects_only_itself() {
    let world = World::new(sim::Options::default());
    let repository = world.repository("octo/app", 3, 2);
    let sick = world.sim(|sim, _| sim.runs().map(|run| run.id).next().unwrap());
    let fails: [fn() -> Answer; 3] = [
        || answer(502, &[], "<html>"),
        || answer(200, &[], vec![b' '; 64 * 1024 * 1024]),
        || answer(200, &[], "{}"),
    ];
    for fail in fails {
        let github = world.github();
        world.fault(move |seen| seen.path.contains(&format!("/{sick}/jobs")).then(fail));
        let listing = github.list_jobs(&repository, Look::Active).await.unwrap();
        assert_eq!(listing.jobs.len(), 4);
        let missing = listing.missing.unwrap();
        assert!(missing.contains(&format!("the jobs of run {sick} could not be read")), "{missing}");
        assert!(!missing.contains("more like this"), "{missing}");
        // It is followed until it can be read again.
        world.no_fault();
        let listing = github.list_jobs(&repository, Look::Active).await.unwrap();
        assert_eq!((listing.jobs.len(), listing.missing), (6, None));
    }
}

#[tokio::test(start_paused = true)]
async fn one_failing_list_of_runs_does_not_affect_the_others() {
    let world = World::new(sim::Options::default());
    let repository = world.repository("octo/app", 2, 1);
    let github = world.github();
    world.fault(|seen| seen.path.contains("status=in_progress").then(|| answer(502, &[], "<html>")));
    for _ in 0..2 {
        let listing = github.list_jobs(&repository, Look::All).await.unwrap();
        assert_eq!(listing.jobs.len(), 2);
        assert!(listing.missing.unwrap().contains("the in_progress runs could not be read"));
    }
    world.no_fault();
    assert_eq!(github.list_jobs(&repository, Look::Active).await.unwrap().missing, None);
}

#[tokio::test(start_paused = true)]
async fn a_page_that_cannot_be_read_affects_only_itself() {
    let world = World::new(sim::Options::default());
    let repository = world.repository("octo/app", 1, 120);
    let github = world.github();
    world.fault(|seen| {
        let tenth = seen.path.contains("per_page=10&page=7");
        let larger = seen.path.contains("/jobs?")
            && !seen.path.contains("per_page=10&")
            && !seen.path.ends_with("per_page=10");
        (tenth || larger).then(|| answer(502, &[], "<html>"))
    });
    let listing = github.list_jobs(&repository, Look::Active).await.unwrap();
    assert_eq!(listing.jobs.len(), 110);
    assert!(listing.missing.unwrap().contains("cannot read a page"));
}

/// In an outage, smaller requests would only be more requests.
#[tokio::test(start_paused = true)]
async fn an_outage_costs_no_more_requests_than_retries() {
    let world = World::new(sim::Options::default());
    let repository = world.repository("octo/app", 1, 1);
    let github = world.github();
    github.list_jobs(&repository, Look::Active).await.unwrap();
    world.fault(|_| Some(answer(502, &[], "<html>")));
    sleep(61).await;
    world.requests();
    github.list_jobs(&repository, Look::Active).await.unwrap_err();
    assert_eq!(world.requests().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn one_failing_repository_does_not_affect_the_others() {
    let world = World::new(sim::Options::default());
    let good = world.repository("octo/good", 2, 1);
    let bad = world.repository("octo/bad", 2, 1);
    let gone = world.repository("octo/gone", 0, 0);
    world.sim(|sim, now| sim.delete_repository(gone.id.0, now));
    world.fault(|seen| seen.path.contains("/octo/bad/").then(|| answer(502, &[], "<html>")));
    let all = [bad.clone(), gone.clone(), good.clone()];
    let listings = world.github().list_all(&all, Look::Active, Duration::from_secs(60)).await;
    assert_eq!(listings[&good.id].as_ref().unwrap().jobs.len(), 2);
    let error = listings[&bad.id].as_ref().unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("502"), "{error}");
    assert!(matches!(listings[&gone.id], Err(Error::NotFound { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_repository_without_a_response_in_time_is_unseen_and_comes_first_in_the_next_pass() {
    let world = World::new(sim::Options::default());
    let repositories: Vec<_> =
        (0..6).map(|number| world.repository(&format!("octo/r{number}"), 1, 1)).collect();
    let options = Options { points_a_minute: Some(15), concurrency: 2, ..world.options() };
    let github = world.github_with(Auth::Token(Secret::new(TOKEN)), options);
    // A first listing takes six requests, so two repositories fit into a minute's points.
    let seen = |listings: &std::collections::BTreeMap<_, Result<JobListing, Error>>| {
        let seen = repositories.iter().filter(|repository| listings[&repository.id].is_ok());
        seen.map(|repository| repository.name.clone()).collect::<Vec<_>>()
    };
    let mut listed = std::collections::BTreeSet::new();
    for _ in 0..4 {
        let listings = github.list_all(&repositories, Look::Active, Duration::from_secs(59)).await;
        for result in listings.values().filter_map(|listing| listing.as_ref().err()) {
            assert!(matches!(result, Error::OutOfTime), "{result}");
        }
        listed.extend(seen(&listings));
        sleep(1).await;
    }
    assert_eq!(listed.len(), 6, "{listed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_renamed_repository_is_followed_and_one_that_took_its_name_is_not() {
    let world = World::new(sim::Options::default());
    let repository = world.repository("octo/old", 1, 1);
    world.sim(|sim, _| sim.rename_repository(repository.id.0, "Acme/new"));
    let github = world.github();
    assert_eq!(github.list_jobs(&repository, Look::Active).await.unwrap().jobs.len(), 1);
    world.requests();
    assert_eq!(github.list_jobs(&repository, Look::Active).await.unwrap().jobs.len(), 1);
    assert!(world.requests().iter().all(|line| line.ends_with(" 301") || line.ends_with(" 304")));
    world.repository("octo/old", 1, 1);
    let error = github.list_jobs(&repository, Look::Active).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
}

/// A repository with 900 queued runs, and 100 others with one job each.
fn flooded(world: &World) -> (Repository, Vec<Repository>) {
    let flood = world.repository("octo/flood", 900, 1);
    let others = (0..100).map(|number| world.repository(&format!("octo/r{number}"), 1, 1)).collect();
    (flood, others)
}

#[tokio::test(start_paused = true)]
async fn a_flood_in_one_repository_does_not_starve_the_others() {
    let world = World::new(sim::Options::default());
    let (flood, others) = flooded(&world);
    let mut all = vec![flood.clone()];
    all.extend(others.clone());
    let github = world.github_with(
        Auth::Token(Secret::new(TOKEN)),
        Options { points_a_minute: Some(800), ..world.options() },
    );
    let began = Instant::now();
    let mut seen = std::collections::BTreeMap::new();
    let mut of_flood = std::collections::BTreeSet::new();
    let mut whole = None;
    while began.elapsed() < Duration::from_secs(600) && whole.is_none() {
        let pass = Instant::now();
        let listings = github.list_all(&all, Look::Active, Duration::from_secs(20)).await;
        for (id, listing) in &listings {
            if let Ok(listing) = listing {
                seen.entry(*id).or_insert(began.elapsed().as_secs());
                if *id == flood.id {
                    of_flood.extend(listing.jobs.iter().map(|job| job.id));
                    if of_flood.len() == 900 {
                        whole = Some(began.elapsed().as_secs());
                    }
                }
            }
        }
        github.end_pass().await;
        tokio::time::sleep_until(pass + Duration::from_secs(60)).await;
    }
    let late: Vec<u64> = others.iter().map(|other| seen.get(&other.id).copied().unwrap_or(999)).collect();
    let in_the_first_minute = late.iter().filter(|at| **at <= 60).count();
    assert_eq!(in_the_first_minute, 100);
    assert!(whole.is_some_and(|whole| whole <= 300), "{whole:?}, {} jobs", of_flood.len());
}

#[tokio::test(start_paused = true)]
async fn a_listing_that_takes_several_passes_is_continued() {
    let world = World::new(sim::Options::default());
    let repository = world.repository("octo/app", 3, 1);
    let options = Options { points_a_minute: Some(2), ..world.options() };
    let github = world.github_with(Auth::Token(Secret::new(TOKEN)), options);
    let mut seen = std::collections::BTreeSet::new();
    for minute in 0..3 {
        let listings =
            github.list_all(std::slice::from_ref(&repository), Look::Active, Duration::from_secs(59)).await;
        match &listings[&repository.id] {
            // Two of the three lists of runs, then the last of them and the jobs of one run.
            Err(error) => assert!(minute < 1 && matches!(error, Error::OutOfTime), "{minute}: {error}"),
            Ok(listing) => {
                assert!(minute >= 1, "{minute}");
                let missing = listing.missing.as_deref().unwrap_or_default();
                assert!(missing.contains("reading it takes several passes"), "{missing}");
                assert_eq!(listing.jobs.len(), minute, "only what this pass has read");
                seen.extend(listing.jobs.iter().map(|job| job.id));
            }
        }
        assert_eq!(github.is_unfinished(repository.id), minute < 2);
        sleep(1).await;
    }
    let mut requests = world.requests();
    requests.sort();
    requests.dedup();
    assert_eq!((seen.len(), requests.len()), (3, 6), "nothing is asked for twice: {requests:?}");
}
