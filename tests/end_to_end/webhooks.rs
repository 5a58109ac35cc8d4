//! GitHub's hints: a job is served at once although the daemon itself polls only once an hour.

use std::time::Duration;

use githubrunner_sim::{
    fault::{Fault, Side},
    github::{Parcel, Status, Token, sign},
};
use jiff::Timestamp;

use crate::common::site::{Running, Site, TOKEN, until};

const SECRET: &str = "a secret of sixteen and more";

/// A configuration that polls once an hour, with this section `webhook`.
fn rarely(site: &Site, webhook: &str) -> String {
    site.config(&format!("webhook: {{{webhook}}}\n")).replace("loop: 1", "loop: 3600")
}

/// A daemon that has polled everything and waits for webhooks, and the configuration with which its webhook is
/// created.
async fn listening(site: &Site) -> (Running, String) {
    let daemon = site.run(&rarely(site, &format!("listen: '127.0.0.1:0', secret: '{SECRET}'")));
    daemon.says("webhooks on http://").await;
    let line = daemon.lines_with("webhooks on http://").remove(0);
    let url = line.split("webhooks on ").nth(1).unwrap().trim().to_owned();
    first_pass(site).await;
    (daemon, rarely(site, &format!("url: '{url}', secret: '{SECRET}'")))
}

/// The first pass has listed the repository, so only a hint causes another one.
async fn first_pass(site: &Site) {
    let lists = "GET /repos/{owner}/{repo}/actions/runs";
    until(site, "its first pass is over", || site.world().requests().of(Side::GitHub, lists) >= 5).await;
}

#[tokio::test]
async fn a_job_is_served_after_a_webhook_though_the_loop_is_long() {
    let site = Site::start().await;
    site.carry_webhooks();
    let (daemon, config) = listening(&site).await;
    let told = site.call_with(&config, &["webhook", "install"]).await.well();
    assert!(
        told.starts_with("acme/app: webhook ") && told.contains("delivers to http://127.0.0.1:"),
        "{told}"
    );
    let job = site.queue(&["nomadtools"], 100);
    site.served(job).await;
    let log = daemon.end().await;
    assert!(!log.iter().any(|line| line.contains(SECRET)), "{log:?}");
}

#[tokio::test]
async fn forged_deliveries_have_no_effect_and_lost_or_duplicate_ones_do_no_harm() {
    /// The first is forged, the second is lost, the others come twice, one of them late.
    struct Odd(usize);
    impl Fault for Odd {
        fn carry(&mut self, parcel: Parcel, _: Timestamp) -> Vec<(Duration, Parcel)> {
            self.0 += 1;
            let signature = Some(sign("guessed", parcel.body.as_bytes()));
            match self.0 {
                1 => vec![(Duration::ZERO, Parcel { signature, ..parcel })],
                2 => Vec::new(),
                _ => vec![(Duration::ZERO, parcel.clone()), (Duration::from_millis(100), parcel)],
            }
        }
    }
    let site = Site::start().await;
    let (daemon, config) = listening(&site).await;
    site.call_with(&config, &["webhook", "install"]).await.well();
    site.world().github.take_parcels();
    site.world().fault = Box::new(Odd(0));
    site.carry_webhooks();
    let asked = site.requests(Side::GitHub);
    let forged = site.queue(&["nomadtools"], 100);
    until(&site, "the forged one is refused", || {
        site.world().github.hooks().any(|hook| hook.last_answer() == Some(401))
    })
    .await;
    let lost = site.queue(&["nomadtools"], 100);
    assert_eq!(site.requests(Side::GitHub), asked, "nobody looked");
    assert_eq!([site.status(forged), site.status(lost)], [Status::Queued; 2]);
    let last = site.queue(&["nomadtools"], 100);
    for job in [forged, lost, last] {
        site.served(job).await;
    }
    daemon.end().await;
}

#[tokio::test]
async fn a_job_is_served_by_the_delivery_log_without_an_open_port() {
    let site = Site::start().await;
    site.carry_webhooks();
    // Nothing listens there.
    let config = rarely(
        &site,
        &format!("url: 'http://127.0.0.1:1/webhook', secret: '{SECRET}', poll_deliveries: yes"),
    );
    site.call_with(&config, &["webhook", "install"]).await.well();
    let daemon = site.run(&config);
    first_pass(&site).await;
    until(&site, "the log is read", || {
        site.world().requests().of(Side::GitHub, "GET /repos/{owner}/{repo}/hooks/{id}/deliveries") > 0
    })
    .await;
    let job = site.queue(&["nomadtools"], 100);
    site.served(job).await;
    daemon.end().await;
}

#[tokio::test]
async fn a_job_is_served_after_a_push_if_an_owner_has_many_repositories() {
    let site = Site::start().await;
    for number in 0..21 {
        site.world().github.add_repository(&format!("acme/other-{number}"));
    }
    let config = site.config("").replace("loop: 1", "loop: 3600").replace("[acme/app]", "[acme]");
    let daemon = site.run(&config);
    until(&site, "the pushes are known", || {
        let world = site.world();
        let listed = world.requests().of(Side::GitHub, "GET /orgs/{name}/repos");
        listed >= 2 && world.requests().of(Side::GitHub, "GET /repos/{owner}/{repo}/actions/runs") >= 5 * 22
    })
    .await;
    let job = site.queue(&["nomadtools"], 100);
    site.served(job).await;
    daemon.end().await;
}

#[tokio::test]
async fn the_webhook_is_installed_shown_and_removed() {
    let site = Site::start().await;
    site.carry_webhooks();
    site.world().github.add_token(TOKEN, Token::classic("octocat", &["repo", "admin:org_hook"]));
    let config = rarely(&site, &format!("url: 'http://127.0.0.1:1/webhook', secret: '{SECRET}'"));
    let call = async |arguments: &[&str]| site.call_with(&config, arguments).await;
    let status = call(&["webhook", "status", "acme"]).await;
    assert!(
        status.code == 1 && status.out.contains("acme: no webhook delivers to http://127.0.0.1:1/webhook")
    );
    let planned = call(&["-n", "webhook", "install", "acme"]).await.well();
    assert!(
        planned.contains("would create a webhook") && site.world().github.hooks().count() == 0,
        "{planned}"
    );
    call(&["webhook", "install", "acme"]).await.well();
    let again = call(&["webhook", "install", "acme"]).await.well();
    assert!(again.contains("updated webhook"), "{again}");
    assert_eq!(site.world().github.hooks().map(|hook| hook.secret.clone()).collect::<Vec<_>>(), [SECRET]);
    let job = site.queue(&["nomadtools"], 100);
    until(&site, "a delivery has failed", || {
        site.world().github.hooks().all(|hook| hook.last_answer() == Some(0))
    })
    .await;
    let shown = call(&["webhook", "status", "acme"]).await;
    assert_eq!(shown.code, 1, "the last delivery failed");
    for text in
        ["is active; 2 of the last 2 deliveries failed", "workflow_job.queued", "failed to connect to host"]
    {
        assert!(shown.out.contains(text), "{text}: {}", shown.out);
    }
    let removed = call(&["webhook", "remove", "acme"]).await.well();
    assert!(removed.contains("removed webhook") && site.world().github.hooks().count() == 0, "{removed}");
    call(&["webhook", "remove", "acme"]).await.well();
    assert_eq!(site.status(job), Status::Queued);
    site.world().github.add_token(TOKEN, Token::classic("octocat", &["repo"]));
    let refused = call(&["webhook", "install", "acme"]).await;
    assert!(refused.code == 1 && refused.out.contains("admin:org_hook"), "{}", refused.out);
    let odd = call(&["webhook", "install", "a/b/c"]).await.failed(1);
    assert!(odd.contains("neither an organization nor owner/name"), "{odd}");
    for text in [&planned, &again, &shown.out, &shown.err, &removed] {
        assert!(!text.contains(SECRET), "{text}");
    }
}
