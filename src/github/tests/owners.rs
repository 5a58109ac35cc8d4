//! Several credentials, each for its own owners.

use super::*;
use crate::model::OwnerPattern;

const OTHER: &str = "ghp_OTHERMARKEDTOKEN";

/// Beta has its own token. All other owners use the default.
fn world() -> (World, GitHub) {
    let world = World::new(sim::Options::default());
    world.sim(|sim, _| {
        sim.add_user("guest");
        sim.add_organization("Beta", &["octo", "guest"]);
        sim.add_token(OTHER, sim::Token::classic("guest", &["repo", "admin:org", "admin:org_hook"]));
    });
    let github = GitHub::with(
        world.http.clone(),
        Auth::Token(Secret::new(TOKEN)),
        vec![assigned("guests", &["beta"], OTHER)],
        world.options(),
    );
    (world, github)
}

fn assigned(name: &str, owners: &[&str], token: &str) -> Assigned {
    Assigned {
        name: name.to_owned(),
        owners: owners.iter().map(|text| OwnerPattern::new(text).unwrap()).collect(),
        auth: Auth::Token(Secret::new(token)),
    }
}

/// The token with which each path is requested from now on.
fn signed(world: &World) -> Arc<Mutex<Vec<(String, String)>>> {
    let seen: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
    let all = Arc::clone(&seen);
    world.fault(move |request| {
        let bearer = request.headers.get("authorization").and_then(|value| value.to_str().ok());
        all.lock().unwrap().push((request.path.clone(), bearer.unwrap_or_default().to_owned()));
        None
    });
    seen
}

#[tokio::test(start_paused = true)]
async fn each_owners_requests_use_its_own_credentials() {
    let (world, github) = world();
    let (octo, beta) = (world.repository("octo/app", 1, 1), world.repository("Beta/tool", 1, 1));
    let seen = signed(&world);
    let found = github.repositories(&[entry("octo"), entry("beta")], Refresh::WhenDue).await;
    assert!(found.failures.is_empty(), "{:?}", found.failures);
    let listings =
        github.list_all(&[octo.clone(), beta.clone()], Look::Active, Duration::from_secs(60)).await;
    assert!(listings.values().all(Result::is_ok), "{listings:?}");
    for repository in [&octo, &beta] {
        github.registration_token(&Scope::from(repository)).await.unwrap();
    }
    let place = HookPlace::Organization("Beta".into());
    let hook =
        github.create_hook(&place, "https://ci.example/webhook", &Secret::new("secret")).await.unwrap();
    github.deliveries(&place, Some(hook), 1, |_| true).await.unwrap();
    let lists = [github.pushed_list("octo").await.unwrap(), github.pushed_list("beta").await.unwrap()];
    for list in &lists {
        github.pushed(list).await.unwrap();
    }
    let seen = seen.lock().unwrap();
    for (path, bearer) in seen.iter() {
        let of_beta = path.to_ascii_lowercase().contains("beta");
        let expected = if of_beta { OTHER } else { TOKEN };
        assert_eq!(bearer, &format!("Bearer {expected}"), "{path}");
    }
    assert!(seen.iter().any(|(path, _)| path.contains("/orgs/Beta/hooks")), "{seen:?}");
    assert!(seen.len() >= 12, "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_token_does_not_affect_other_owners() {
    let (world, github) = world();
    let all = [world.repository("octo/app", 1, 1), world.repository("Beta/tool", 1, 1)];
    let listings = github.list_all(&all, Look::Active, Duration::from_secs(60)).await;
    assert!(listings.values().all(Result::is_ok), "{listings:?}");
    world.sim(|sim, now| sim.use_up(TOKEN, now));
    for _ in 0..3 {
        sleep(60).await;
        let listings = github.list_all(&all, Look::All, Duration::from_secs(60)).await;
        assert!(matches!(listings[&all[0].id], Err(Error::RateLimited { .. })), "{listings:?}");
        assert!(listings[&all[1].id].is_ok(), "{listings:?}");
    }
    // Nothing of octo is requested with the other token meanwhile.
    let seen = signed(&world);
    github.list_jobs(&all[0], Look::All).await.unwrap_err();
    assert!(seen.lock().unwrap().is_empty(), "{seen:?}");
    let rates = github.rates();
    let left = |name: &str| {
        let of = |((who, bucket), _): &(&(String, String), &Rate)| who.starts_with(name) && bucket == "core";
        rates.iter().find(of).map(|(_, rate)| rate.remaining)
    };
    assert_eq!(left("token-"), Some(0), "{rates:?}");
    assert!(left("guests").is_some_and(|left| left > 4_000), "{rates:?}");
    assert!(!format!("{rates:?}").contains("MARKED"), "{rates:?}");
    let (octo, beta) = (github.payer("octo"), github.payer("Beta"));
    assert_ne!(octo, beta);
    assert!(!github.headroom(&octo).ahead && github.headroom(&beta).ahead);
}

#[tokio::test(start_paused = true)]
async fn everything_means_what_each_credential_sees_of_its_own_owners() {
    let (world, github) = world();
    for name in ["octo/one", "Beta/two", "guest/three"] {
        world.repository(name, 0, 0);
    }
    let found = github.repositories(&[entry("*")], Refresh::WhenDue).await;
    assert!(found.failures.is_empty(), "{:?}", found.failures);
    // The owner guest would need its own token, which is for Beta only.
    assert_eq!(names(&found.repositories), ["Beta/two", "octo/one"]);
    // A failure of one of them leaves a gap, and its known repositories stay.
    world.sim(|sim, _| sim.revoke_token(OTHER));
    let found = github.repositories(&[entry("*")], Refresh::Now).await;
    assert_eq!(names(&found.repositories), ["Beta/two", "octo/one"]);
    assert_eq!(found.unconfirmed.len(), 1);
    let told = found.failures[0].1.to_string();
    assert!(told.contains("guests"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn each_of_the_credentials_is_tried() {
    let (world, github) = world();
    let people = |tried: Vec<Tried>| -> Vec<(Option<String>, Option<Option<String>>)> {
        tried.into_iter().map(|tried| (tried.name, tried.person.ok())).collect()
    };
    let (octo, guest) = (Some(Some("octo".to_owned())), Some(Some("guest".to_owned())));
    let named = Some("guests".to_owned());
    assert_eq!(people(github.try_credentials().await), [(None, octo.clone()), (named.clone(), guest)]);
    world.sim(|sim, _| sim.revoke_token(OTHER));
    assert_eq!(people(github.try_credentials().await), [(None, octo), (named, None)]);
}

#[tokio::test(start_paused = true)]
async fn without_a_default_only_assigned_owners_are_served() {
    let (world, _) = world();
    let beta = world.repository("Beta/tool", 1, 1);
    let octo = world.repository("octo/app", 1, 1);
    let github = GitHub::with(
        world.http.clone(),
        Auth::Token(Secret::new("")),
        vec![assigned("guests", &["beta"], OTHER)],
        world.options(),
    );
    github.list_jobs(&beta, Look::Active).await.unwrap();
    let error = github.list_jobs(&octo, Look::Active).await.unwrap_err();
    assert!(error.to_string().contains("octo has no credentials"), "{error}");
    let found = github.repositories(&[entry("*")], Refresh::WhenDue).await;
    assert_eq!((names(&found.repositories), found.failures.len()), (vec!["Beta/tool".to_owned()], 0));
}
