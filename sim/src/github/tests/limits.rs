//! Primary and secondary limits.

use super::*;

#[test]
fn every_answer_tells_where_one_stands() {
    let mut site = Site::new();
    let answer = site.get("/repos/octo-org/app");
    let reset = (site.now.as_second() + 3600).to_string();
    for (name, value) in [
        ("x-ratelimit-limit", "5000"),
        ("x-ratelimit-remaining", "4999"),
        ("x-ratelimit-used", "1"),
        ("x-ratelimit-reset", reset.as_str()),
        ("x-ratelimit-resource", "core"),
        ("date", "Sun, 01 Mar 2026 12:00:00 GMT"),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    // Another bucket, and one that costs nothing to look at.
    let token = site.post("/repos/octo-org/app/actions/runners/registration-token", Value::Null);
    assert_eq!(token.header("x-ratelimit-resource"), "actions_runner_registration");
    let standing = site.get("/rate_limit");
    assert_eq!(standing.body["resources"]["core"]["used"], 1);
    assert_eq!(site.get("/rate_limit").body["rate"]["remaining"], 4999);
    site.token = None;
    assert_eq!(site.get("/repos/octo-org/app").header("x-ratelimit-limit"), "60");
}

#[test]
fn the_primary_limit_refuses_until_the_reset() {
    for limit_status in [403, 429] {
        let mut site = Site::with(Options { rate_limit: 3, limit_status, ..Options::default() });
        for _ in 0..3 {
            assert_eq!(site.get("/repos/octo-org/app").status, 200);
        }
        let refused = site.get("/repos/octo-org/app");
        assert_eq!((refused.status, refused.header("x-ratelimit-remaining")), (limit_status, "0"));
        assert!(refused.message().contains("rate limit exceeded"));
        assert_eq!(refused.header("retry-after"), "");
        site.pass(HOUR);
        assert_eq!(site.get("/repos/octo-org/app").status, 200);
    }
}

#[test]
fn the_secondary_limit_counts_points() {
    let mut site = Site::with(Options { points_a_minute: 11, ..Options::default() });
    assert_eq!(site.post("/repos/octo-org/app/actions/runners/registration-token", Value::Null).status, 201);
    assert_eq!(site.post("/repos/octo-org/app/actions/runners/registration-token", Value::Null).status, 201);
    assert_eq!(site.get("/repos/octo-org/app").status, 200);
    let refused = site.get("/repos/octo-org/app");
    assert_eq!((refused.status, refused.header("retry-after")), (403, "60"));
    assert!(refused.message().contains("secondary rate limit"));
    site.pass(Duration::from_secs(60));
    assert_eq!(site.get("/repos/octo-org/app").status, 200);
}

#[test]
fn a_test_imposes_limits() {
    let mut site = Site::new();
    let until = after(site.now, Duration::from_secs(90));
    for (limit, retry_after, remaining) in [
        (Limited::Secondary, "90", "5000"),
        (Limited::SecondarySilent, "", "5000"),
        (Limited::Primary, "", "0"),
    ] {
        site.github.impose_limit(limit, until);
        let refused = site.get("/repos/octo-org/app");
        assert_eq!(refused.status, 403);
        assert_eq!(refused.header("retry-after"), retry_after, "{limit:?}");
        assert_eq!(refused.header("x-ratelimit-remaining"), remaining, "{limit:?}");
    }
    assert_eq!(site.get("/repos/octo-org/app").header("x-ratelimit-reset"), until.as_second().to_string());
    site.pass(Duration::from_secs(90));
    assert_eq!(site.get("/repos/octo-org/app").status, 200);
}
