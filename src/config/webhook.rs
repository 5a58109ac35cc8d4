//! The section `webhook`: GitHub's deliveries as hints to poll sooner.

use std::{net::SocketAddr, path::PathBuf};

use super::{Environment, GitHubConfig, RepoEntry, github::expand, reader::Section};
use crate::{labels::harmless, secret::Secret};

/// A shorter secret can be guessed.
pub(super) const SHORT_SECRET: usize = 16;

/// `webhook`: GitHub's deliveries as hints to poll sooner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebhookConfig {
    /// `listen`: serves `POST /webhook`.
    pub listen: Option<SocketAddr>,
    /// `secret`: signs the deliveries.
    pub secret: Option<Secret>,
    /// `secret_file`: a file with the secret, reread when it changes.
    pub secret_file: Option<PathBuf>,
    /// `url`: where GitHub delivers to. It also identifies our webhook among others.
    pub url: Option<String>,
    /// `poll_deliveries`: reads the delivery log, for deliveries that never arrive.
    pub poll_deliveries: bool,
}

/// Reads the section.
pub(super) fn parse(
    top: &Section,
    env: Environment,
    github: Option<&GitHubConfig>,
    repos: &[RepoEntry],
) -> WebhookConfig {
    let section = top.section("webhook");
    let config = WebhookConfig {
        listen: section.text("listen").and_then(|text| listen_address(&section, text)),
        secret: section.text("secret").map(|text| Secret::new(text.trim())),
        secret_file: section.text("secret_file").map(|text| expand(text, env)),
        url: url(&section),
        poll_deliveries: section.boolean("poll_deliveries", false),
    };
    if config.secret.is_some() && config.secret_file.is_some() {
        section.problem("secret_file", "conflicts with webhook.secret", "remove one of them");
    }
    if config.listen.is_some() && config.secret.is_none() && config.secret_file.is_none() {
        section.problem(
            "listen",
            "without a secret anyone could send deliveries",
            "set webhook.secret_file or webhook.secret to the secret in the webhook's settings at GitHub",
        );
    }
    let is_app = github.is_none_or(GitHubConfig::is_app_alone);
    if config.poll_deliveries && !is_app && section.text("url").is_none() {
        section.problem(
            "poll_deliveries",
            "the webhook whose deliveries to read is unknown",
            "set webhook.url to the webhook's URL, or use a github.app with a webhook",
        );
    }
    if config.poll_deliveries
        && !is_app
        && repos.iter().all(|entry| *entry == RepoEntry::All)
        && !repos.is_empty()
    {
        section.problem(
            "poll_deliveries",
            "\"*\" in repos cannot have a webhook",
            "list the organizations and repositories that have one, or use a github.app",
        );
    }
    section.finish();
    config
}

fn url(section: &Section) -> Option<String> {
    let text = section.text("url")?;
    let message = match url::Url::parse(text) {
        Err(error) => format!("not a URL: {error}"),
        Ok(url) if !matches!(url.scheme(), "http" | "https") => "not an http or https URL".to_owned(),
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            "contains a user name or password, which everyone who can see the webhook can read".to_owned()
        }
        Ok(_) => return Some(text.to_owned()),
    };
    section.problem("url", message, "write a URL that GitHub can reach, like https://ci.example.com/webhook");
    None
}

/// The address in a section's `listen`.
pub(super) fn listen_address(section: &Section, text: &str) -> Option<SocketAddr> {
    let address = text.parse();
    if address.is_err() {
        let problem = format!("\"{}\" is not an address", harmless(text));
        section.problem("listen", problem, "write an IP address and a port, like 127.0.0.1:9090");
    }
    address.ok()
}
