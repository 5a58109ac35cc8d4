//! Organizations: their runners and runner groups; and one App for several owners.

use base64::{Engine, engine::general_purpose::STANDARD};
use githubrunner_sim::github::{GitHub, Level, Reach, Token, permissions};
use ring::signature::{KeyPair, RsaKeyPair};

use crate::common::site::{REPOSITORY, Site, TOKEN, until};

const KEY: &[u8] = include_bytes!("../fixtures/keys/app.pkcs8.der");
const CLIENT_ID: &str = "Iv1.0123456789abcdef";

#[tokio::test]
async fn an_organizations_runners_join_the_group_of_the_configuration() {
    let site = Site::start().await;
    let (organization, group) = {
        let github = &mut site.world().github;
        github.add_token(TOKEN, Token::classic("octocat", &["repo", "admin:org"]));
        let organization = github.add_organization("acme", &[]);
        (organization, github.add_runner_group(organization, "special"))
    };
    let config =
        site.config("").replace("github: {", "github: {scope: organization, runner_group: special, ");
    let jobs = [0, 1].map(|_| site.queue(&["nomadtools"], 1500));
    let daemon = site.run(&config);
    for job in jobs {
        site.in_progress(job).await;
    }
    for runner in site.world().github.runners() {
        assert_eq!(
            runner.scope,
            githubrunner_sim::github::RegisteredAt::Organization(organization),
            "{}",
            runner.name
        );
        assert_eq!(runner.group, group, "{}", runner.name);
    }
    for job in jobs {
        site.served(job).await;
    }
    until(&site, "nothing is left", || site.is_clean()).await;
    daemon.end().await;
    // The bundled template that uses registration tokens works at the organization as well.
    let token = config.replace("builtin:raw_exec", "builtin:myoung34");
    let job = site.queue(&["nomadtools"], 300);
    let daemon = site.run(&token);
    site.served(job).await;
    daemon.end().await;

    let check = site.call_with(&config, &["check"]).await.well();
    assert!(check.contains("acme: runners can be registered"), "{check}");
    assert!(check.contains("acme: the runner group \"special\" exists"), "{check}");
    let wrong = config.replace("special", "unknown");
    site.queue(&["nomadtools other"], 300);
    let err = site.call_with(&wrong, &["once"]).await.failed(1);
    assert!(err.contains("acme has no runner group named \"unknown\""), "{err}");
    let check = site.call_with(&wrong, &["check"]).await;
    assert!(check.code == 1 && check.out.contains("github.runner_group"), "{}", check.out);
}

#[tokio::test]
async fn a_token_without_the_right_to_an_organizations_runners_is_reported() {
    let site = Site::start().await;
    let config = site.config("").replace("github: {", "github: {scope: organization, ");
    let check = site.call_with(&config, &["check"]).await;
    assert_eq!(check.code, 1);
    assert!(check.out.contains("organization_self_hosted_runners"), "{}", check.out);
}

#[tokio::test]
async fn check_makes_and_removes_a_just_in_time_registration() {
    let site = Site::start().await;
    let check = site.call(&["check"]).await.well();
    assert!(check.contains("acme/app: runners can be registered"), "{check}");
    let writes = site.writes();
    assert!(writes.iter().any(|route| route.contains("generate-jitconfig")), "{writes:?}");
    assert!(site.world().github.runners().next().is_none());
}

#[tokio::test]
async fn check_reports_a_server_without_just_in_time_configurations() {
    let site = Site::start().await;
    site.fault(|_, request| match request.uri().path().ends_with("/generate-jitconfig") {
        true => githubrunner_sim::fault::Verdict::status(404, "{\"message\":\"Not Found\"}"),
        false => githubrunner_sim::fault::Verdict::Pass,
    });
    let check = site.call(&["check"]).await;
    assert!(check.code == 1 && check.out.contains("github.registration: token"), "{}", check.out);
}

#[tokio::test]
async fn check_reports_that_a_user_cannot_have_runners() {
    let site = Site::start().await;
    site.world().github.add_repository("octocat/app");
    let config = site.config("").replace("github: {", "github: {scope: organization, ");
    for template in ["builtin:raw_exec", "builtin:myoung34"] {
        let config = config.replace("[acme/app]", "[octocat/app]").replace("builtin:raw_exec", template);
        let check = site.call_with(&config, &["check"]).await;
        assert!(
            check.code == 1 && check.out.contains("octocat is a user: use scope: repository"),
            "{}",
            check.out
        );
    }
}

/// Registers the App; `acme` has installed it, `beta` suspended it, `gamma` never installed it.
fn install(github: &mut GitHub, now: jiff::Timestamp) -> u64 {
    let public = RsaKeyPair::from_pkcs8(KEY).unwrap().public_key().as_ref().to_vec();
    let rights =
        permissions(&[("actions", Level::Read), ("administration", Level::Write), ("metadata", Level::Read)]);
    let owners = ["acme", "beta", "gamma"].map(|owner| github.add_organization(owner, &[]));
    for owner in ["beta", "gamma"] {
        github.add_repository(&format!("{owner}/app"));
    }
    let app = github.add_app(owners[0], CLIENT_ID, public, rights);
    github.install_app(app, owners[0], Reach::All);
    let beta = github.install_app(app, owners[1], Reach::All);
    github.installation_mut(beta).unwrap().suspended_at = Some(now);
    beta
}

fn with_app(site: &Site) -> String {
    let key = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(KEY));
    let file = site.cache_file().with_file_name("app.pem");
    std::fs::write(&file, key).unwrap();
    let app = format!("app: {{client_id: {CLIENT_ID}, private_key_file: \"{}\"}}", file.display());
    site.config("")
        .replace(&format!("token: {TOKEN}"), &app)
        .replace(&format!("repos: [{REPOSITORY}]"), "repos: [acme/app, beta/app, gamma/app]")
}

#[tokio::test]
async fn a_missing_or_suspended_installation_affects_only_its_owner() {
    let site = Site::start().await;
    let beta = {
        let mut world = site.world();
        let now = world.clock.now();
        install(&mut world.github, now)
    };
    let config = with_app(&site);
    let job = site.queue(&["nomadtools"], 300);
    let other = {
        let mut world = site.world();
        let repository = world.github.repository_id("beta/app").unwrap();
        let spec =
            githubrunner_sim::github::JobSpec::new(&["nomadtools"], std::time::Duration::from_millis(300));
        let run = world.queue_run(repository, vec![spec]).unwrap();
        world.github.run(run).unwrap().jobs[0]
    };
    let plan = site.call_with(&config, &["plan"]).await;
    let said = format!("{}{}", plan.out, plan.err);
    let line =
        |owner: &str, words: &str| said.lines().any(|line| line.contains(owner) && line.contains(words));
    assert!(line("beta", "suspended") && line("gamma", "install the App"), "{said}");
    assert!(plan.out.contains("start "), "{said}");

    let mut daemon = site.run(&config);
    site.served(job).await;
    assert!(daemon.is_alive());
    assert_eq!(site.status(other), githubrunner_sim::github::Status::Queued);
    let check = site.call_with(&config, &["check"]).await;
    assert!(check.code == 1 && check.out.contains("suspended"), "{}", check.out);
    daemon.end().await;

    // Once the suspension is lifted, that owner's jobs are served too.
    site.world().github.installation_mut(beta).unwrap().suspended_at = None;
    let daemon = site.run(&config);
    site.served(other).await;
    daemon.end().await;
}

const OTHER: &str = "ghp_ofanotherperson";

/// Two owners, each with its own token.
fn with_tokens(site: &Site) -> String {
    let github = &mut site.world().github;
    github.add_user("guest");
    github.add_organization("beta", &["guest"]);
    github.add_repository("beta/app");
    github.add_token(OTHER, Token::classic("guest", &["repo"]));
    let file = site.cache_file().with_file_name("other");
    std::fs::write(&file, OTHER).unwrap();
    let tokens =
        format!("tokens: [{{name: guests, owners: [\"bet*\"], token_file: \"{}\"}}], url:", file.display());
    site.config("status: {listen: '127.0.0.1:0'}\n")
        .replace("url:", &tokens)
        .replace(&format!("repos: [{REPOSITORY}]"), "repos: [acme/app, beta/app]")
}

fn queue_in(site: &Site, repository: &str) -> u64 {
    let mut world = site.world();
    let repository = world.github.repository_id(repository).unwrap();
    let spec = githubrunner_sim::github::JobSpec::new(&["nomadtools"], std::time::Duration::from_millis(300));
    let run = world.queue_run(repository, vec![spec]).unwrap();
    world.github.run(run).unwrap().jobs[0]
}

#[tokio::test]
async fn each_owners_token_is_used_and_checked_and_an_exhausted_one_does_not_affect_others() {
    let site = Site::start().await;
    let config = with_tokens(&site);
    let check = site.call_with(&config, &["check"]).await.well();
    for line in [
        "GitHub accepts the credentials for all other owners",
        "GitHub accepts the credentials guests",
        "beta/app: runners can be registered",
        "GitHub's rate limit core for guests",
    ] {
        assert!(check.contains(line), "{line}: {check}");
    }
    let shown = site.call_with(&config, &["dumpconfig"]).await.well();
    assert!(shown.contains("guests") && !shown.contains(OTHER), "{shown}");

    let daemon = site.run(&config);
    let jobs = ["acme/app", "beta/app"].map(|repository| queue_in(&site, repository));
    for job in jobs {
        site.served(job).await;
    }
    let now = site.world().clock.now();
    site.world().github.use_up(TOKEN, now);
    let (held, served) = (queue_in(&site, "acme/app"), queue_in(&site, "beta/app"));
    site.served(served).await;
    let again = queue_in(&site, "beta/app");
    site.served(again).await;
    assert_eq!(site.status(held), githubrunner_sim::github::Status::Queued);
    daemon.says("status on http://").await;
    let line = daemon.lines_with("status on http://").remove(0);
    let address = line.split("status on http://").nth(1).unwrap().trim().to_owned();
    let left = |credential: &str| {
        let metrics = metrics(&address);
        let name = "githubrunner_github_rate_limit_remaining";
        let begins = format!("{name}{{credential=\"{credential}\",bucket=\"core\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&begins)?.parse::<u64>().ok())
    };
    until(&site, "both limits are reported", || {
        left("token") == Some(0) && left("guests").is_some_and(|left| left > 1_000)
    })
    .await;
    daemon.end().await;

    // Credentials that GitHub refuses are named.
    site.world().github.revoke_token(OTHER);
    let check = site.call_with(&config, &["check"]).await;
    let line = check.out.lines().find(|line| line.contains("GitHub accepts the credentials guests")).unwrap();
    assert!(check.code == 1 && line.starts_with("failure") && !check.out.contains(OTHER), "{}", check.out);
}

fn metrics(address: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nhost: {address}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test]
async fn check_warns_of_two_tokens_of_one_person_and_of_unneeded_ones() {
    let site = Site::start().await;
    let config = with_tokens(&site);
    site.world().github.add_user("octocat");
    site.world().github.add_token(OTHER, Token::classic("octocat", &["repo"]));
    let check = site.call_with(&config, &["check"]).await;
    let line = check.out.lines().find(|line| line.contains("they belong to octocat"));
    assert!(line.is_some_and(|line| line.starts_with("warning")), "{}", check.out);
    let check = site.call_with(&config.replace("bet*", "gamma"), &["check"]).await;
    assert!(check.out.contains("no entry of repos belongs to one of their owners"), "{}", check.out);
}
