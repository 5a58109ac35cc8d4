//! GitHub Apps.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};

use super::*;

const CLIENT: &str = "Iv23liTest";

pub(super) fn key(name: &str) -> RsaKeyPair {
    let path = format!("{}/../tests/fixtures/keys/{name}.pkcs8.der", env!("CARGO_MANIFEST_DIR"));
    RsaKeyPair::from_pkcs8(&std::fs::read(path).unwrap()).unwrap()
}

pub(super) fn jwt(key: &RsaKeyPair, issuer: &str, now: Timestamp, issued: i64, ends: i64) -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let now = now.as_second();
    let claims = json!({"iat": now + issued, "exp": now + ends, "iss": issuer});
    let signed = format!("{}.{}", part(json!({"alg": "RS256", "typ": "JWT"})), part(claims));
    let mut signature = vec![0; key.public().modulus_len()];
    let random = ring::rand::SystemRandom::new();
    key.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// An App installed for `octo-org`. Answers its ID and key.
pub(super) fn install(site: &mut Site, repositories: Reach) -> (u64, RsaKeyPair) {
    let key = key("app");
    let rights = permissions(&[("actions", Level::Read), ("administration", Level::Write)]);
    let app = site.github.add_app(site.octo_org, CLIENT, key.public_key().as_ref().to_vec(), rights);
    site.github.install_app(app, site.octo_org, repositories);
    (app, key)
}

fn installation(site: &mut Site) -> u64 {
    site.get("/app/installations").ids("")[0]
}

#[test]
fn a_signed_token_speaks_for_the_app() {
    let mut site = Site::new();
    let (app, key) = install(&mut site, Reach::All);
    for issuer in [app.to_string(), CLIENT.to_string()] {
        site.token = Some(jwt(&key, &issuer, site.now, -60, 600));
        let answer = site.get("/app");
        assert_eq!((answer.status, &answer.body["id"]), (200, &json!(app)));
    }
    let other = super::apps::key("other");
    for (token, status, message) in [
        (jwt(&other, CLIENT, site.now, -60, 300), 401, "could not be decoded"),
        (jwt(&key, "none", site.now, -60, 300), 404, "Integration not found"),
        (jwt(&key, CLIENT, site.now, -60, 700), 401, "too far in the future"),
        (jwt(&key, CLIENT, site.now, -60, 0), 401, "('exp') must be"),
        (jwt(&key, CLIENT, site.now, 60, 300), 401, "('iat') must be"),
        ("a.b.c".to_string(), 401, "could not be decoded"),
    ] {
        site.token = Some(token);
        let answer = site.get("/app");
        assert_eq!(answer.status, status, "{message}");
        assert!(answer.message().contains(message), "{}", answer.message());
    }
    // It may not do what its installations may, and others may not do what it may.
    site.token = Some(jwt(&key, CLIENT, site.now, -60, 300));
    assert_eq!(site.get("/repos/octo-org/app/actions/runners").status, 403);
    assert_eq!(site.get("/users/octocat/installation").status, 404);
    site.token = Some(TOKEN.to_string());
    assert_eq!(site.get("/app/installations").status, 401);
}

#[test]
fn an_installation_token_lasts_an_hour_and_reaches_what_was_given() {
    let mut site = Site::new();
    let other = site.github.add_repository("octo-org/other");
    for repository in [site.app, other, site.tool] {
        site.github.repository_mut(repository).unwrap().private = true;
    }
    let only = Reach::Only([site.app].into());
    let (_, key) = install(&mut site, only);
    site.token = Some(jwt(&key, CLIENT, site.now, -60, 300));
    assert_eq!(site.get("/repos/octo-org/other/installation").status, 404);
    let id = installation(&mut site);
    let made = site.post(&format!("/app/installations/{id}/access_tokens"), Value::Null);
    assert_eq!((made.status, &made.body["expires_at"]), (201, &json!("2026-03-01T13:00:00Z")));
    site.token = Some(made.body["token"].as_str().unwrap().to_string());
    let list = site.get("/installation/repositories");
    assert_eq!((list.ids("repositories"), &list.body["total_count"]), (vec![site.app], &json!(1)));
    assert_eq!(site.get("/repos/octo-org/app/actions/runs").status, 200);
    assert_eq!(site.get("/repos/octo-org/other/actions/runs").status, 404);
    assert_eq!(site.get("/repos/octocat/tool/actions/runs").status, 404);
    assert_eq!(site.post("/repos/octo-org/app/actions/runners/registration-token", Value::Null).status, 201);
    let refused = site.get("/orgs/octo-org/actions/runners");
    assert_eq!((refused.status, refused.message()), (403, "Resource not accessible by integration"));
    assert_eq!(site.get("/user/repos").status, 403);
    site.pass(HOUR);
    assert_eq!(site.get("/repos/octo-org/app/actions/runs").status, 401);
}

#[test]
fn a_token_can_be_narrowed_but_not_widened() {
    let mut site = Site::new();
    site.github.add_repository("octo-org/other");
    let (_, key) = install(&mut site, Reach::All);
    let signed = jwt(&key, CLIENT, site.now, -60, 300);
    site.token = Some(signed.clone());
    let id = installation(&mut site);
    let target = format!("/app/installations/{id}/access_tokens");
    for (body, status) in [
        (json!({"permissions": {"actions": "read"}, "repositories": ["app"]}), 201),
        (json!({"permissions": {"actions": "write"}}), 422),
        (json!({"permissions": {"contents": "read"}}), 422),
        (json!({"repositories": ["none"]}), 422),
        (json!({"repository_ids": [site.tool]}), 422),
    ] {
        site.token = Some(signed.clone());
        let answer = site.post(&target, body.clone());
        assert_eq!(answer.status, status, "{body}");
        if status == 201 {
            site.token = Some(answer.body["token"].as_str().unwrap().to_string());
            assert_eq!(site.get("/installation/repositories").ids("repositories"), [site.app]);
            let refused = site.post("/repos/octo-org/app/actions/runners/registration-token", Value::Null);
            assert_eq!(refused.status, 403);
        }
    }
    site.token = Some(signed);
    assert_eq!(site.post("/app/installations/1/access_tokens", Value::Null).status, 404);
}

#[test]
fn a_suspended_or_removed_installation_is_refused() {
    let mut site = Site::new();
    let (_, key) = install(&mut site, Reach::All);
    let signed = jwt(&key, CLIENT, site.now, -60, 300);
    site.token = Some(signed.clone());
    let id = installation(&mut site);
    let target = format!("/app/installations/{id}/access_tokens");
    let token = site.post(&target, Value::Null).body["token"].as_str().unwrap().to_string();
    site.github.installation_mut(id).unwrap().suspended_at = Some(site.now);
    let refused = site.post(&target, Value::Null);
    assert_eq!((refused.status, refused.message()), (403, "This installation has been suspended"));
    assert_eq!(site.get("/orgs/octo-org/installation").body["suspended_at"], "2026-03-01T12:00:00Z");
    site.token = Some(token.clone());
    assert_eq!(site.get("/repos/octo-org/app").status, 403);
    site.github.uninstall(id);
    assert_eq!(site.get("/repos/octo-org/app").status, 401);
    site.token = Some(signed);
    assert_eq!(site.get("/orgs/octo-org/installation").status, 404);
}
