//! Webhook settings, the delivery log, and the last pushes.

use super::*;

const ADMIN: &str = "ghp_admin_of_hooks";

/// With a token that may administer an organization's webhooks.
fn world() -> World {
    let world = World::new(sim::Options::default());
    world.sim(|sim, _| {
        sim.add_token(ADMIN, sim::Token::classic("octo", &["repo", "admin:org_hook"]));
        sim.add_repository("Acme/a");
    });
    world
}

fn github(world: &World) -> GitHub {
    world.github_with(Auth::Token(Secret::new(ADMIN)), world.options())
}

fn organization() -> HookPlace {
    HookPlace::Organization("acme".into())
}

#[tokio::test(start_paused = true)]
async fn a_webhook_is_created_updated_listed_and_removed() {
    let world = world();
    let github = github(&world);
    let repository = HookPlace::Repository { owner: "Acme".into(), name: "a".into() };
    for place in [organization(), repository] {
        assert_eq!(github.hooks(&place).await.unwrap().whole().unwrap(), [], "{place}");
        let id = github.create_hook(&place, "http://ci.test/webhook", &Secret::new("one")).await.unwrap();
        let hooks = github.hooks(&place).await.unwrap();
        let [hook] = hooks.whole().unwrap() else { panic!("{hooks:?}") };
        assert_eq!((hook.id, hook.active, &hook.events[..]), (id, true, &[HOOK_EVENT.to_owned()][..]));
        assert_eq!(hook.config.url.as_deref(), Some("http://ci.test/webhook"));
        assert_eq!(hook.config.content_type.as_deref(), Some("json"));
        let again = github.create_hook(&place, "http://ci.test/webhook", &Secret::new("one")).await;
        assert!(again.unwrap_err().to_string().contains("already exists"));
        github.update_hook(&place, id, "http://ci.test/webhook", &Secret::new("two")).await.unwrap();
        assert_eq!(world.sim(|sim, _| sim.hooks().next().unwrap().secret.clone()), "two");
        assert!(github.delete_hook(&place, id).await.unwrap());
        assert!(!github.delete_hook(&place, id).await.unwrap(), "{place}: it was gone");
    }
    let stranger = world.github_with(Auth::Token(Secret::new(TOKEN)), world.options());
    assert!(matches!(stranger.hooks(&organization()).await, Err(Error::NotFound { .. })));
}

#[tokio::test(start_paused = true)]
async fn the_log_is_read_as_far_as_needed_and_is_free_while_nothing_is_new() {
    let world = world();
    let github = github(&world);
    let hook =
        github.create_hook(&organization(), "http://ci.test/webhook", &Secret::new("s")).await.unwrap();
    world.repository("Acme/a", 250, 1);
    world.requests();
    let all = github.deliveries(&organization(), Some(hook), 5, |_| false).await.unwrap();
    assert_eq!((all.len(), world.requests().len()), (251, 3));
    assert!(all.is_sorted_by(|one, other| one.id > other.id), "newest first");
    let jobs = all.iter().filter_map(HookDelivery::job_of).count();
    assert_eq!((jobs, all[250].event.as_str(), all[250].arrived()), (250, "ping", false));
    let some = github.deliveries(&organization(), Some(hook), 5, |read| read.len() > 100).await.unwrap();
    assert_eq!(some.len(), 200);
    let one = github.deliveries(&organization(), Some(hook), 1, |_| false).await.unwrap();
    assert_eq!(one.len(), 100);
    let asked = world.requests();
    assert!(asked.len() == 3 && asked.iter().all(|line| line.ends_with(" 304")), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn the_last_pushes_are_one_request_free_while_nothing_changes() {
    let world = world();
    let github = world.github();
    let ids: Vec<u64> = (0..30).map(|n| world.repository(&format!("Acme/r{n}"), 0, 0).id.0).collect();
    world.repository("octo/own", 0, 0);
    tokio::time::sleep(Duration::from_secs(10)).await;
    world.sim(|sim, now| sim.push(ids[7], now));
    let list = github.pushed_list("ACME").await.unwrap();
    assert_eq!(list, PushedList::Organization("ACME".into()));
    assert_eq!(github.pushed_list("octo").await.unwrap(), PushedList::Own("octo".into()));
    world.requests();
    let pushed = github.pushed(&list).await.unwrap();
    assert_eq!((pushed.len(), pushed[0].id.0, pushed[0].full_name.as_str()), (31, ids[7], "Acme/r7"));
    github.pushed(&list).await.unwrap();
    let asked = world.requests();
    assert!(
        asked[0].contains("/orgs/ACME/repos?type=all&sort=pushed&direction=desc&per_page=100 200"),
        "{asked:?}"
    );
    assert!(asked.len() == 2 && asked[1].ends_with(" 304"), "{asked:?}");
    let own = github.pushed(&PushedList::Own("octo".into())).await.unwrap();
    assert_eq!(own.iter().map(|one| one.full_name.as_str()).collect::<Vec<_>>(), ["octo/own"]);
}

#[tokio::test(start_paused = true)]
async fn githubs_own_examples_are_parsed() {
    let read = |name: &str| {
        let path = format!("{}/tests/fixtures/github/rest/{name}.json", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).unwrap()
    };
    let deliveries: Vec<HookDelivery> = serde_json::from_str(&read("list-hook-deliveries")).unwrap();
    assert_eq!((deliveries[1].id, deliveries[1].repository_id), (123_456_789, Some(456)));
    assert!(deliveries[0].arrived() && deliveries[0].job_of().is_none(), "issues are no jobs");
    for name in ["list-org-hooks", "list-repo-hooks"] {
        let hooks: Vec<Hook> = serde_json::from_str(&read(name)).unwrap();
        assert!(hooks[0].config.url.as_deref().is_some_and(|url| url.contains("example.com")), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_that_echoes_the_secret_does_not_show_it() {
    let world = world();
    let github = github(&world);
    world.fault(|seen| {
        let told = String::from_utf8_lossy(&seen.body).into_owned();
        (seen.method == "POST").then(|| answer(422, &[], told))
    });
    for secret in ["plain words", "with \"quotes\""] {
        let made = github.create_hook(&organization(), "http://ci.test/webhook", &Secret::new(secret)).await;
        let error = made.unwrap_err().to_string();
        assert!(error.contains("422") && error.contains("ci.test"), "{error}");
        assert!(!error.contains("words") && !error.contains("quotes"), "{error}");
    }
}
