//! `webhook install|status|remove`: the webhook of an organization or a repository that delivers to
//! `webhook.url`.

use std::{collections::BTreeSet, io::Write};

use anyhow::{anyhow, bail};

use super::table::Table;
use crate::{
    apply::ApplyMode,
    cli::WebhookAction,
    config::Config,
    github::{Error, GitHub, HOOK_EVENT, Hook, HookDelivery, HookPlace},
    secret::{self, Secret, without_tokens},
    text::{LINE, shown},
};

/// At most this many deliveries are shown.
const SHOWN: usize = 10;

/// Runs the command for each place, or for each entry of `repos`. Returns whether all of them succeeded.
///
/// # Errors
/// The configuration is incomplete, or `out` cannot be written. A failure at one place is printed, and the other
/// places continue.
pub async fn run(
    config: &Config,
    github: &GitHub,
    action: WebhookAction,
    places: &[String],
    mode: ApplyMode,
    out: &mut dyn Write,
) -> anyhow::Result<bool> {
    let Some(url) = &config.webhook.url else {
        bail!("webhook.url is not set: set it to the URL at which GitHub reaches webhook.listen");
    };
    let places = match places {
        [] => configured(config)?,
        places => places.iter().map(|text| place(text)).collect::<Result<_, _>>()?,
    };
    let secret = match action {
        WebhookAction::Install => Some(secret_of(config).await?),
        WebhookAction::Status | WebhookAction::Remove => None,
    };
    let mut well = true;
    for place in &places {
        let done = match (action, &secret) {
            (WebhookAction::Install, Some(secret)) => install(github, place, url, secret, mode).await,
            (WebhookAction::Remove, _) => remove(github, place, url, mode).await,
            _ => status(github, place, url).await,
        };
        match done {
            Ok(Told { text, is_well }) => {
                well &= is_well;
                write!(out, "{text}")?;
            }
            Err(error) => {
                well = false;
                let text = format!("{place}: {}", explained(place, &error));
                writeln!(out, "{}", shown(&without_tokens(&text), LINE))?;
            }
        }
    }
    Ok(well)
}

/// The result for one place.
struct Told {
    text: String,
    is_well: bool,
}

fn well(text: String) -> Result<Told, Error> {
    Ok(Told { text: text + "\n", is_well: true })
}

/// The places that the configuration names.
fn configured(config: &Config) -> anyhow::Result<BTreeSet<HookPlace>> {
    let places: BTreeSet<HookPlace> = config.repos.iter().filter_map(HookPlace::of).collect();
    if places.is_empty() {
        bail!("\"*\" in repos cannot have a webhook: name an organization, or owner/name");
    }
    Ok(places)
}

fn place(text: &str) -> anyhow::Result<HookPlace> {
    use crate::model::{is_login, is_repository_name};
    match text.split_once('/') {
        None if is_login(text) => Ok(HookPlace::Organization(text.to_owned())),
        Some((owner, name)) if is_login(owner) && is_repository_name(name) => {
            Ok(HookPlace::Repository { owner: owner.to_owned(), name: name.to_owned() })
        }
        _ => Err(anyhow!("\"{}\" is neither an organization nor owner/name", shown(text, 100))),
    }
}

async fn secret_of(config: &Config) -> anyhow::Result<Secret> {
    match (&config.webhook.secret, &config.webhook.secret_file) {
        (Some(secret), _) => Ok(secret.clone()),
        (None, Some(path)) => {
            secret::read_file("webhook.secret_file", path).await.map_err(|error| anyhow!(error))
        }
        (None, None) => {
            bail!("webhook.secret is not set: set webhook.secret_file to a file with a long random text")
        }
    }
}

/// The webhooks of the place that deliver to our URL.
async fn ours(github: &GitHub, place: &HookPlace, url: &str) -> Result<Vec<Hook>, Error> {
    let hooks = github.hooks(place).await?;
    if let Some(gap) = hooks.gap() {
        return Err(Error::Incomplete { what: "the list of webhooks".to_owned(), gap: gap.clone() });
    }
    Ok(hooks.into_known().into_iter().filter(|hook| hook.config.url.as_deref() == Some(url)).collect())
}

/// Creates the webhook, or updates its settings and secret. The secret is always sent, because it cannot be
/// compared.
async fn install(
    github: &GitHub,
    place: &HookPlace,
    url: &str,
    secret: &Secret,
    mode: ApplyMode,
) -> Result<Told, Error> {
    match ours(github, place, url).await?.first() {
        Some(hook) if mode.is_dry_run() => well(format!("{place}: would update webhook {}", hook.id)),
        None if mode.is_dry_run() => well(format!("{place}: would create a webhook that delivers to {url}")),
        Some(hook) => {
            github.update_hook(place, hook.id, url, secret).await?;
            well(format!("{place}: updated webhook {}", hook.id))
        }
        None => {
            let id = github.create_hook(place, url, secret).await?;
            well(format!("{place}: webhook {id} delivers to {url}"))
        }
    }
}

async fn remove(github: &GitHub, place: &HookPlace, url: &str, mode: ApplyMode) -> Result<Told, Error> {
    let hooks = ours(github, place, url).await?;
    if hooks.is_empty() {
        return well(format!("{place}: no webhook delivers to {url}"));
    }
    let mut lines = Vec::new();
    for hook in hooks {
        if mode.is_dry_run() {
            lines.push(format!("{place}: would remove webhook {}", hook.id));
        } else {
            github.delete_hook(place, hook.id).await?;
            lines.push(format!("{place}: removed webhook {}", hook.id));
        }
    }
    well(lines.join("\n"))
}

/// The webhook's settings and its last deliveries.
async fn status(github: &GitHub, place: &HookPlace, url: &str) -> Result<Told, Error> {
    let hooks = ours(github, place, url).await?;
    let Some(hook) = hooks.first() else {
        let text = format!(
            "{place}: no webhook delivers to {url}; create one with `githubrunner webhook install`\n"
        );
        return Ok(Told { text, is_well: false });
    };
    let mut problems = Vec::new();
    if !hook.active {
        problems.push("is not active");
    }
    if !hook.events.iter().any(|event| event == HOOK_EVENT || event == "*") {
        problems.push("does not deliver workflow_job events");
    }
    if hook.config.secret.is_none() {
        problems.push("has no secret");
    }
    let deliveries = github.deliveries(place, Some(hook.id), 1, |_| true).await?;
    let failed = deliveries.iter().filter(|delivery| !delivery.arrived()).count();
    let mut text = format!("{place}: hook {}", hook.id);
    match problems.as_slice() {
        [] => text.push_str(" is active"),
        problems => {
            text.push_str(&format!(" {}: fix it with `githubrunner webhook install`", problems.join(", ")))
        }
    }
    text.push_str(&match deliveries.len() {
        0 => "; no deliveries yet\n".to_owned(),
        count => format!("; {failed} of the last {count} deliveries failed\n"),
    });
    if !deliveries.is_empty() {
        let mut table = Table::new(["DELIVERED", "EVENT", "REPOSITORY", "CODE", "STATUS"]);
        for delivery in deliveries.iter().take(SHOWN) {
            table.row(row(delivery).each_ref().map(String::as_str));
        }
        let mut lines = Vec::new();
        // Writing to memory does not fail.
        let _ = table.write(&mut lines);
        text.push_str(&String::from_utf8_lossy(&lines));
    }
    let arrives = deliveries.first().is_none_or(HookDelivery::arrived);
    Ok(Told { text, is_well: problems.is_empty() && arrives })
}

fn row(delivery: &HookDelivery) -> [String; 5] {
    let event = match &delivery.action {
        Some(action) => format!("{}.{action}", delivery.event),
        None => delivery.event.clone(),
    };
    [
        delivery.delivered_at.map(|at| at.to_string()).unwrap_or_default(),
        event,
        delivery.repository_id.map(|id| id.to_string()).unwrap_or_default(),
        delivery.status_code.to_string(),
        delivery.status.clone(),
    ]
}

/// An error, with the needed permission if it is missing: GitHub then answers as if the webhooks did not
/// exist.
fn explained(place: &HookPlace, error: &Error) -> String {
    let needs = match place {
        HookPlace::Organization(_) => {
            "an organization's webhooks need admin:org_hook (classic token) or \"Webhooks: write\" of the organization; a \
             person's account has none: name repositories"
        }
        _ => "a repository's webhooks need repo or admin:repo_hook (classic token) or \"Webhooks: write\"",
    };
    match error {
        Error::NotFound { .. } | Error::Forbidden(_) => format!("{error}; {needs}"),
        _ => error.to_string(),
    }
}
