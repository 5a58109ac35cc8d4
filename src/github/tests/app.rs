use std::{path::Path, process::Command, sync::OnceLock};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{super::jwt, *};

/// A key pair from openssl in both of its formats, or nothing without openssl.
struct Keys {
    directory: tempfile::TempDir,
}

impl Keys {
    fn make() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let openssl = |arguments: &[&str]| openssl(directory.path(), arguments);
        if Command::new("openssl").arg("version").output().is_err() {
            eprintln!("skipped: openssl is not on PATH");
            return None;
        }
        openssl(&["genrsa", "-traditional", "-out", "pkcs1.pem", "2048"]);
        openssl(&["pkcs8", "-topk8", "-nocrypt", "-in", "pkcs1.pem", "-out", "pkcs8.pem"]);
        openssl(&["rsa", "-in", "pkcs1.pem", "-pubout", "-out", "public.pem"]);
        openssl(&["rsa", "-in", "pkcs1.pem", "-RSAPublicKey_out", "-outform", "DER", "-out", "public.der"]);
        Some(Self { directory })
    }

    /// Shared by all tests, because creating a key takes a while.
    fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Keys>> = OnceLock::new();
        SHARED.get_or_init(Self::make).as_ref()
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn pem(&self, name: &str) -> Secret {
        Secret::new(std::fs::read_to_string(self.path(name)).unwrap())
    }
}

fn openssl(directory: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_signature_is_one_that_openssl_verifies() {
    let Some(keys) = Keys::shared() else { return };
    let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
    for form in ["pkcs1.pem", "pkcs8.pem"] {
        let token = jwt::sign("Iv1.client", &keys.pem(form), now).unwrap();
        let parts: Vec<&str> = token.expose().split('.').collect();
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap();
        let header: serde_json::Value = serde_json::from_slice(&decode(parts[0])).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&decode(parts[1])).unwrap();
        assert_eq!(header, serde_json::json!({"alg": "RS256", "typ": "JWT"}));
        assert_eq!(claims["iss"], "Iv1.client");
        assert_eq!(claims["iat"], now.as_second() - 60);
        let lifetime = claims["exp"].as_i64().unwrap() - now.as_second();
        assert!(lifetime > 300 && lifetime <= 600);
        std::fs::write(keys.path("message"), format!("{}.{}", parts[0], parts[1])).unwrap();
        std::fs::write(keys.path("signature"), decode(parts[2])).unwrap();
        openssl(
            keys.directory.path(),
            &["dgst", "-sha256", "-verify", "public.pem", "-signature", "signature", "message"],
        );
    }
    for bad in ["", "no key", "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n"] {
        let error = jwt::sign("x", &Secret::new(bad), now).unwrap_err();
        assert!(error.contains("App") && error.contains("private key"), "{error}");
    }
}

/// A world with an App that octo and Acme have installed.
fn world(keys: &Keys) -> (World, u64, u64) {
    let world = World::new(sim::Options::default());
    let (octo, acme) = world.sim(|sim, _| {
        let owner = sim.add_user("maker");
        let permissions = sim::permissions(&[
            ("metadata", sim::Level::Read),
            ("actions", sim::Level::Read),
            ("administration", sim::Level::Write),
        ]);
        let key = std::fs::read(keys.path("public.der")).unwrap();
        let app = sim.add_app(owner, "Iv1.client", key, permissions);
        for name in ["octo/app", "Acme/tool", "Acme/second"] {
            sim.add_repository(name);
        }
        let id = |sim: &sim::GitHub, name: &str| {
            let repository = sim.repository_id(name).unwrap();
            sim.repository(repository).unwrap().owner
        };
        let (octo, acme) = (id(sim, "octo/app"), id(sim, "Acme/tool"));
        (sim.install_app(app, octo, sim::Reach::All), sim.install_app(app, acme, sim::Reach::All))
    });
    (world, octo, acme)
}

fn app(keys: &Keys) -> Auth {
    Auth::App { issuer: "Iv1.client".into(), key: Key::Pem(keys.pem("pkcs1.pem")) }
}

fn count(requests: &[String], what: &str) -> usize {
    requests.iter().filter(|line| line.contains(what)).count()
}

#[tokio::test(start_paused = true)]
async fn an_app_serves_several_owners_each_by_its_installation() {
    let Some(keys) = Keys::shared() else { return };
    let (world, ..) = world(keys);
    let github = world.github_with(app(keys), world.options());
    let entries = [entry("octo/app"), entry("acme")];
    let resolution = github.repositories(&entries, Refresh::WhenDue).await;
    assert!(resolution.failures.is_empty(), "{:?}", resolution.failures);
    assert_eq!(names(&resolution.repositories), ["Acme/second", "Acme/tool", "octo/app"]);
    let all = github.repositories(&[entry("*")], Refresh::WhenDue).await;
    assert_eq!(names(&all.repositories), ["Acme/second", "Acme/tool", "octo/app"]);
    let listings = github.list_all(&resolution.repositories, Look::Active, Duration::from_secs(60)).await;
    assert!(listings.values().all(Result::is_ok), "{listings:?}");
    // Looked up once and cached: one token per owner, however many concurrent requests there are.
    assert_eq!(count(&world.requests(), "access_tokens 201"), 2);
    github.registration_token(&Scope::from(&resolution.repositories[0])).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn installation_tokens_are_renewed_early_and_cached_answers_outlive_them() {
    let Some(keys) = Keys::shared() else { return };
    let (world, ..) = world(keys);
    let github = world.github_with(app(keys), world.options());
    let repositories = github.repositories(&[entry("octo/app")], Refresh::WhenDue).await.repositories;
    github.list_jobs(&repositories[0], Look::Active).await.unwrap();
    world.requests();
    for (minutes, renewals) in [(54, 0), (2, 1), (50, 0)] {
        sleep(minutes * 60).await;
        github.list_jobs(&repositories[0], Look::Active).await.unwrap();
        let requests = world.requests();
        assert_eq!(count(&requests, "access_tokens 201"), renewals, "{requests:?}");
        assert_eq!(count(&requests, " 401"), 0);
    }
    // Rejected early: retried once with a new one.
    let start = world.start;
    world.fault({
        let refused = std::sync::atomic::AtomicBool::new(false);
        move |seen| {
            let first = seen.path.contains("status=queued")
                && !refused.swap(true, std::sync::atomic::Ordering::SeqCst);
            let now = start.0 + start.1.elapsed();
            let date = now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
            first.then(|| answer(401, &[("date", &date)], r#"{"message":"Bad credentials"}"#))
        }
    });
    github.list_jobs(&repositories[0], Look::Active).await.unwrap();
    let requests = world.requests();
    assert_eq!((count(&requests, " 401"), count(&requests, "access_tokens 201")), (1, 1), "{requests:?}");
}

/// The requests of the primary limit that an owner's installation has left.
fn left(github: &GitHub) -> u64 {
    let rates = github.rates();
    let mut of_installation = rates.iter().filter(|((who, _), _)| who.starts_with("installation-"));
    of_installation.next().unwrap().1.remaining
}

/// A cache in a file in this directory.
fn with_file(world: &World, keys: &Keys, directory: &tempfile::TempDir) -> GitHub {
    let cache = CacheStore::File(directory.path().join("cache.json"));
    world.github_with(app(keys), Options { cache, ..world.options() })
}

#[tokio::test(start_paused = true)]
async fn a_new_installation_token_costs_nothing_if_nothing_has_changed() {
    let Some(keys) = Keys::shared() else { return };
    let (world, ..) = world(keys);
    let queue = |repository: u64| {
        world.sim(|sim, now| {
            let spec = sim::JobSpec::new(&["self-hosted"], Duration::from_secs(60));
            sim.queue_run(repository, vec![spec], now).unwrap();
        });
    };
    let directory = tempfile::tempdir().unwrap();
    let github = with_file(&world, keys, &directory);
    let repositories = github.repositories(&[entry("octo")], Refresh::Now).await.repositories;
    queue(repositories[0].id.0);
    let listed = github.list_jobs(&repositories[0], Look::All).await.unwrap();
    github.end_pass().await;
    let before = left(&github);
    // Some hours later, each with a new token.
    let mut all = 0;
    for _ in 0..3 {
        world.requests();
        // The limit resets each hour.
        sleep(3601).await;
        assert_eq!(github.repositories(&[entry("octo")], Refresh::Now).await.repositories, repositories);
        assert_eq!(github.list_jobs(&repositories[0], Look::All).await.unwrap().jobs, listed.jobs);
        github.end_pass().await;
        let requests = world.requests();
        assert_eq!(count(&requests, "access_tokens 201"), 1);
        assert_eq!(count(&requests, " 200"), 0, "{requests:?}");
        all += count(&requests, " 304");
        assert_eq!(left(&github), 5000, "{requests:?}");
    }
    assert!(all >= 3 * 8 && before < 5000, "{all} {before}");

    // After a restart, the token is new too. Changes are seen.
    queue(repositories[0].id.0);
    let github = with_file(&world, keys, &directory);
    world.requests();
    let jobs = github.list_jobs(&repositories[0], Look::All).await.unwrap().jobs;
    assert_eq!(jobs.len(), listed.jobs.len() + 1);
    let requests = world.requests();
    assert!(count(&requests, " 304") >= 4 && (1..=4).contains(&count(&requests, " 200")), "{requests:?}");
    let text = std::fs::read_to_string(directory.path().join("cache.json")).unwrap();
    assert!(!text.contains("ghs_"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_new_token_requests_everything_if_etags_are_opaque() {
    let Some(keys) = Keys::shared() else { return };
    let (world, ..) = world(keys);
    world.sim(|sim, _| sim.options_mut().etags = sim::Etags::Opaque);
    let directory = tempfile::tempdir().unwrap();
    let github = with_file(&world, keys, &directory);
    let repositories = github.repositories(&[entry("octo/app")], Refresh::WhenDue).await.repositories;
    let listed = github.list_jobs(&repositories[0], Look::Active).await.unwrap();
    github.end_pass().await;
    assert_eq!(github.sizes()["bodies of pages"], 0);
    sleep(3590).await;
    world.requests();
    assert_eq!(github.list_jobs(&repositories[0], Look::Active).await.unwrap().jobs, listed.jobs);
    let requests = world.requests();
    assert!(count(&requests, " 304") == 0 && count(&requests, " 200") > 1, "{requests:?}");
}

#[tokio::test(start_paused = true)]
async fn a_suspended_or_missing_installation_affects_only_its_owner() {
    let Some(keys) = Keys::shared() else { return };
    let (world, octo, acme) = world(keys);
    let github = world.github_with(app(keys), world.options());
    let entries = [entry("octo/app"), entry("Acme/tool")];
    let repositories = github.repositories(&entries, Refresh::WhenDue).await.repositories;
    world.sim(|sim, now| {
        sim.installation_mut(acme).unwrap().suspended_at = Some(now);
    });
    sleep(3600).await;
    for _ in 0..3 {
        let listings = github.list_all(&repositories, Look::Active, Duration::from_secs(60)).await;
        for repository in &repositories {
            match &listings[&repository.id] {
                Ok(_) => assert_eq!(repository.owner, "octo"),
                Err(error @ Error::Installation { owner, .. }) => {
                    assert_eq!(owner, "Acme");
                    assert!(error.to_string().contains("suspended"), "{error}");
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    // The problem is cached, not checked each time.
    assert_eq!(count(&world.requests(), "/access_tokens 403"), 1);
    world.sim(|sim, _| {
        sim.installation_mut(acme).unwrap().suspended_at = None;
        sim.uninstall(octo);
    });
    sleep(3600).await;
    let listings = github.list_all(&repositories, Look::Active, Duration::from_secs(60)).await;
    for repository in &repositories {
        assert_eq!(listings[&repository.id].is_ok(), repository.owner == "Acme", "{listings:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_minutes_off_is_corrected_by_githubs() {
    let Some(keys) = Keys::shared() else { return };
    let (world, ..) = world(keys);
    for minutes in [-10i64, 10] {
        let start = world.start;
        let wrong = jiff::SignedDuration::from_mins(minutes);
        let options =
            Options { clock: Arc::new(move || start.0 + start.1.elapsed() + wrong), ..world.options() };
        let github = world.github_with(app(keys), options);
        let resolution = github.repositories(&[entry("octo/app")], Refresh::WhenDue).await;
        assert!(resolution.failures.is_empty(), "{:?}", resolution.failures);
        assert_eq!(count(&world.requests(), " 401"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_hours_off_is_reported_and_not_corrected() {
    let Some(keys) = Keys::shared() else { return };
    let (world, ..) = world(keys);
    for (hours, told) in [(-5i64, "5h ahead of this machine's"), (5, "5h behind this machine's")] {
        let start = world.start;
        let wrong = jiff::SignedDuration::from_hours(hours);
        let options =
            Options { clock: Arc::new(move || start.0 + start.1.elapsed() + wrong), ..world.options() };
        let github = world.github_with(app(keys), options);
        let resolution = github.repositories(&[entry("octo/app")], Refresh::WhenDue).await;
        let error = resolution.failures[0].1.to_string();
        assert!(error.contains(told) && error.contains("clock"), "{error}");
    }
}

/// A server in GitHub's place must not get a token that is valid in years.
#[tokio::test(start_paused = true)]
async fn no_date_header_creates_a_token_for_another_year() {
    let Some(keys) = Keys::shared() else { return };
    let (world, ..) = world(keys);
    let tokens: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen_tokens = tokens.clone();
    world.fault(move |seen| {
        let bearer = seen.headers.get("authorization").and_then(|value| value.to_str().ok());
        seen_tokens.lock().unwrap().extend(bearer.map(str::to_owned));
        Some(answer(401, &[("date", "Mon, 01 Jan 2035 12:00:00 GMT")], "{}"))
    });
    let github = world.github_with(app(keys), world.options());
    for _ in 0..2 {
        let resolution = github.repositories(&[entry("octo/app")], Refresh::WhenDue).await;
        let error = resolution.failures[0].1.to_string();
        assert!(error.contains("ahead of this machine's"), "{error}");
    }
    let tokens = tokens.lock().unwrap().clone();
    assert!(tokens.len() >= 2);
    for token in tokens.iter() {
        use base64::Engine;
        let claims = token.split('.').nth(1).unwrap();
        let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        let left = claims["exp"].as_i64().unwrap() - world.now().as_second();
        assert!((0..=600).contains(&left), "it ends in {left} s");
    }
    drop(tokens);
    // A correct Date is accepted again.
    world.no_fault();
    let resolution = github.repositories(&[entry("octo/app")], Refresh::WhenDue).await;
    assert!(resolution.failures.is_empty(), "{:?}", resolution.failures);
}

#[tokio::test(start_paused = true)]
async fn a_key_file_is_reread_when_it_changes() {
    let (Some(old), Some(new)) = (Keys::make(), Keys::shared()) else { return };
    let (world, ..) = world(new);
    let path = old.path("current.pem");
    std::fs::copy(old.path("pkcs1.pem"), &path).unwrap();
    let auth = Auth::App { issuer: "Iv1.client".into(), key: Key::File(path.clone()) };
    let github = world.github_with(auth, world.options());
    let failed = github.repositories(&[entry("octo/app")], Refresh::WhenDue).await;
    assert!(matches!(failed.failures[0].1, Error::Unauthorized(_)), "{:?}", failed.failures);
    std::fs::copy(new.path("pkcs8.pem"), &path).unwrap();
    let resolution = github.repositories(&[entry("octo/app")], Refresh::WhenDue).await;
    assert!(resolution.failures.is_empty(), "{:?}", resolution.failures);
}
