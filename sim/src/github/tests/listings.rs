//! Pages, Link headers, order, filters, visibility, redirects, ETags.

use super::*;

/// All pages from `target` on; no more than `most` requests.
fn pages(site: &mut Site, target: &str, key: &str, most: usize) -> Vec<u64> {
    let mut ids = Vec::new();
    let mut next = Some(target.to_string());
    for _ in 0..most {
        let Some(target) = next.take() else { return ids };
        let answer = site.get(&target);
        assert_eq!(answer.status, 200, "{target}");
        ids.extend(answer.ids(key));
        next = answer.link("next");
    }
    assert_eq!(next, None, "more than {most} pages");
    ids
}

#[test]
fn pages_yield_every_run_once_newest_first() {
    let mut site = Site::new();
    for _ in 0..45 {
        site.queue(site.app, &["x"]);
        site.pass(Duration::from_secs(1));
    }
    let own: Vec<u64> = site.github.runs().map(|run| run.id).rev().collect();
    for per_page in [1, 7, 44, 45, 100, 1000] {
        let target = format!("/repos/octo-org/app/actions/runs?status=queued&per_page={per_page}");
        assert_eq!(pages(&mut site, &target, "workflow_runs", 45), own, "{per_page}");
    }
    let default = site.get("/repos/octo-org/app/actions/runs");
    assert_eq!((default.ids("workflow_runs").len(), &default.body["total_count"]), (30, &json!(45)));
}

#[test]
fn link_headers_name_the_repository_by_id_on_the_own_host() {
    let mut site = Site::with(Options { path_prefix: "/api/v3".to_string(), ..Options::default() });
    for _ in 0..5 {
        site.queue(site.app, &["x"]);
    }
    let middle = site.get("/api/v3/repos/octo-org/app/actions/runs?status=queued&per_page=2&page=2");
    let page = |page: u32| {
        format!(
            "http://api.test/api/v3/repositories/{}/actions/runs?status=queued&per_page=2&page={page}",
            site.app
        )
    };
    assert_eq!(middle.link("next"), Some(page(3)));
    assert_eq!(middle.link("last"), Some(page(3)));
    assert_eq!(middle.link("prev"), Some(page(1)));
    assert_eq!(middle.link("first"), Some(page(1)));
    let last = site.get("/api/v3/repos/octo-org/app/actions/runs?per_page=2&page=3");
    assert_eq!((last.link("next"), last.ids("workflow_runs").len()), (None, 1));
    let whole = site.get("/api/v3/repos/octo-org/app/actions/runs?per_page=5");
    assert_eq!(whole.header("link"), "");
    let beyond = site.get("/api/v3/repos/octo-org/app/actions/runs?per_page=2&page=9");
    assert_eq!((beyond.status, beyond.ids("workflow_runs").len()), (200, 0));
    assert_eq!(site.get("/repos/octo-org/app").status, 404);
}

#[test]
fn a_filtered_listing_of_runs_ends_after_a_thousand() {
    let mut site = Site::with(Options { lean: true, ..Options::default() });
    for _ in 0..1030 {
        site.queue(site.app, &["x"]);
    }
    let first = site.get("/repos/octo-org/app/actions/runs?status=queued&per_page=100");
    assert_eq!(first.body["total_count"], 1030);
    assert!(first.link("last").unwrap().ends_with("page=10"));
    let all =
        pages(&mut site, "/repos/octo-org/app/actions/runs?status=queued&per_page=100", "workflow_runs", 10);
    assert_eq!(all.len(), 1000);
    let beyond = site.get("/repos/octo-org/app/actions/runs?status=queued&per_page=100&page=11");
    assert_eq!((beyond.status, beyond.ids("workflow_runs").len()), (200, 0));
}

#[test]
fn runs_are_filtered_by_status_conclusion_and_time() {
    let mut site = Site::new();
    let early = site.queue(site.app, &["never"]);
    site.pass(HOUR);
    site.queue(site.app, &["x"]);
    site.online("r1", &["x"]);
    site.pass(Duration::from_secs(5));
    let count = |site: &mut Site, query: &str| {
        site.get(&format!("/repos/octo-org/app/actions/runs?{query}")).body["total_count"].as_u64().unwrap()
    };
    assert_eq!(count(&mut site, "status=queued"), 1);
    assert_eq!(count(&mut site, "status=in_progress"), 1);
    assert_eq!(count(&mut site, "created=%3E2026-03-01T12:30:00Z"), 1);
    assert_eq!(count(&mut site, "created=2026-03-01T11:00:00Z..2026-03-01T12:30:00Z"), 1);
    assert_eq!(count(&mut site, "created=2026-03-01"), 2);
    site.pass(Duration::from_secs(700));
    assert_eq!(count(&mut site, "status=success"), 1);
    assert_eq!(count(&mut site, "status=completed"), 1);
    let run = site.github.job(early).unwrap().run;
    let one = site.get(&format!("/repos/octo-org/app/actions/runs/{run}"));
    assert_eq!((one.status, &one.body["status"]), (200, &json!("queued")));
    let foreign = site.get(&format!("/repos/octocat/tool/actions/runs/{run}"));
    assert_eq!(foreign.status, 404);
}

#[test]
fn what_the_token_may_not_see_is_not_there() {
    let mut site = Site::new();
    site.github.add_user("stranger");
    site.github.add_token("ghp_stranger", Token::classic("stranger", &["repo", "admin:org"]));
    site.github.add_token("ghp_scopeless", Token::classic("octocat", &[]));
    site.github.repository_mut(site.app).unwrap().private = true;
    let target = "/repos/octo-org/app/actions/runs";
    assert_eq!(site.get(target).status, 200);
    for token in [Some("ghp_stranger"), Some("ghp_scopeless"), None] {
        site.token = token.map(str::to_string);
        assert_eq!(site.get(target).status, 404, "{token:?}");
        assert_eq!(site.get("/orgs/octo-org/repos").ids("").len(), 0);
        assert_eq!(site.get("/users/octo-org/repos").ids("").len(), 0);
    }
    // A public repository's runs are there for everybody, its runners are not.
    site.token = Some("ghp_stranger".to_string());
    assert_eq!(site.get("/repos/octocat/tool/actions/runs").status, 200);
    let refused = site.get("/repos/octocat/tool/actions/runners");
    assert_eq!((refused.status, refused.message()), (403, "Must have admin rights to Repository."));
    assert_eq!(site.get("/orgs/octo-org/actions/runners").status, 403);
    site.token = Some("ghp_wrong".to_string());
    let bad = site.get("/repos/octocat/tool");
    assert_eq!((bad.status, bad.message()), (401, "Bad credentials"));
    site.token = None;
    let bare = site.ask(Method::GET, "/repos/octocat/tool", &[("user-agent", "")], Value::Null);
    assert_eq!(bare.status, 403);
}

#[test]
fn a_fine_grained_token_reaches_what_it_was_given() {
    let mut site = Site::new();
    site.github.repository_mut(site.app).unwrap().private = true;
    site.github.repository_mut(site.tool).unwrap().private = true;
    let only = Reach::Only([site.app].into());
    let read = permissions(&[("actions", Level::Read)]);
    site.github.add_token(
        "github_pat_1",
        Token::fine_grained("octocat", read, only).expiring(after(site.now, HOUR)),
    );
    site.token = Some("github_pat_1".to_string());
    assert_eq!(site.get("/repos/octo-org/app/actions/runs").status, 200);
    assert_eq!(site.get("/repos/octocat/tool/actions/runs").status, 404);
    assert_eq!(site.get("/user/repos").ids(""), [site.app]);
    let refused = site.post("/repos/octo-org/app/actions/runners/registration-token", Value::Null);
    assert_eq!(
        (refused.status, refused.message()),
        (403, "Resource not accessible by personal access token")
    );
    site.pass(HOUR);
    assert_eq!(site.get("/repos/octo-org/app/actions/runs").status, 401);
}

#[test]
fn a_renamed_repository_redirects_by_id_and_a_deleted_one_is_gone() {
    let mut site = Site::new();
    site.queue(site.app, &["x"]);
    site.github.rename_repository(site.app, "octo-org/service");
    let moved = site.get("/repos/Octo-Org/App/actions/runs?status=queued&per_page=100");
    assert_eq!(moved.status, 301);
    let to = format!("http://api.test/repositories/{}/actions/runs?status=queued&per_page=100", site.app);
    assert_eq!(moved.header("location"), to);
    assert_eq!(site.get(&to).body["total_count"], 1);
    assert_eq!(site.get("/repos/octo-org/service").body["id"], site.app);
    assert_eq!(site.post("/repos/octo-org/app/actions/runners/registration-token", Value::Null).status, 307);
    // A new repository takes the old name over.
    let new = site.github.add_repository("octo-org/app");
    assert_eq!(site.get("/repos/octo-org/app").body["id"], new);
    site.github.delete_repository(site.app, site.now);
    assert_eq!(site.get(&to).status, 404);
    assert_eq!(site.get("/repos/octo-org/service").status, 404);
}

#[test]
fn repositories_are_sorted_as_asked() {
    let mut site = Site::new();
    site.pass(HOUR);
    let later = site.github.add_repository("octo-org/Zebra");
    site.pass(HOUR);
    site.queue(site.app, &["x"]);
    assert_eq!(site.get("/orgs/octo-org/repos?sort=pushed").ids(""), [site.app, later]);
    assert_eq!(site.get("/orgs/octo-org/repos").ids(""), [later, site.app]);
    assert_eq!(site.get("/orgs/octo-org/repos?sort=full_name").ids(""), [site.app, later]);
    let links = site.get("/orgs/octo-org/repos?per_page=1");
    let next = format!("http://api.test/organizations/{}/repos?per_page=1&page=2", site.octo_org);
    assert_eq!(links.link("next"), Some(next.clone()));
    assert_eq!(site.get(&next).ids(""), [site.app]);
}

#[test]
fn etags_are_weak_change_with_token_and_content_and_make_304() {
    let mut site = Site::new();
    site.queue(site.app, &["x"]);
    let target = "/repos/octo-org/app/actions/runs?status=queued&per_page=1";
    let first = site.get(target);
    let etag = first.header("etag").to_string();
    assert!(etag.starts_with("W/\""), "{etag}");
    let known = [("if-none-match", etag.as_str())];
    let same = site.ask(Method::GET, target, &known, Value::Null);
    assert_eq!((same.status, &same.body, same.header("etag")), (304, &Value::Null, etag.as_str()));
    let used = |answer: &Answer| answer.header("x-ratelimit-used").parse::<u64>().unwrap();
    assert_eq!(used(&same), used(&first));
    // The ETag is made of the body, not of the address.
    let other = |status: &str| format!("/repos/octo-org/app/actions/runs?status={status}");
    assert_eq!(site.ask(Method::GET, &other("queued"), &known, Value::Null).status, 304);
    let other = site.ask(Method::GET, &other("in_progress"), &known, Value::Null);
    assert_eq!((other.status, used(&other)), (200, used(&first) + 1));
    site.github.add_token("ghp_second", Token::classic("octocat", &["repo"]));
    site.token = Some("ghp_second".to_string());
    assert_eq!(site.ask(Method::GET, target, &known, Value::Null).status, 200);
    site.token = Some(TOKEN.to_string());
    site.queue(site.app, &["x"]);
    assert_eq!(site.ask(Method::GET, target, &known, Value::Null).status, 200);
}
