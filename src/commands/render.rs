//! `render`: the Nomad job for some labels. Works without GitHub, and without Nomad unless it is to parse.

use std::io::Write;

use anyhow::{Context, bail};

use crate::{
    config::{Config, RepoEntry},
    model::{Labels, Repository, RepositoryId, runner_name},
    render::{Renderer, RunContext},
};

/// The instance, job and attempt in the name of a runner that is only looked at.
const EXAMPLE: (&str, u64, u32) = ("example", 1, 1);

/// The job for these labels, as it would be sent to Nomad's parser.
///
/// # Errors
/// Labels that break the rules, a repository that is not `owner/name`, a template that fails.
pub fn text(config: &Config, labels: &[String], repo: Option<&str>) -> anyhow::Result<String> {
    let runs_on = config.labels.check(labels).context("these labels would get no runner")?;
    let repository = repository(config, repo)?;
    let (instance, job, attempt) = EXAMPLE;
    let name = runner_name(&config.nomad.jobprefix, instance, &repository, job, attempt);
    let run = RunContext {
        name: &name,
        repository: &repository,
        labels: &Labels::new(labels.iter().cloned()),
        runs_on: &runs_on,
        info: "rendered by hand",
        job,
        attempt,
    };
    Ok(Renderer::new(config)?.render(&run)?)
}

/// Prints the job for these labels; says so if `runson_match` does not match them.
///
/// # Errors
/// See [`text`]; or the output cannot be written.
pub fn run(
    config: &Config,
    labels: &[String],
    repo: Option<&str>,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> anyhow::Result<()> {
    let text = text(config, labels, repo)?;
    note(config, labels, notes)?;
    writeln!(out, "{}", text.trim_end())?;
    Ok(())
}

/// Prints what Nomad makes of the job for these labels, `parse` being Nomad's parser.
///
/// # Errors
/// See [`text`]; Nomad cannot be reached or refuses the job; or the output cannot be written.
pub async fn run_parsed<F, E>(
    config: &Config,
    labels: &[String],
    repo: Option<&str>,
    parse: impl FnOnce(String) -> F,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> anyhow::Result<()>
where
    F: Future<Output = Result<serde_json::Value, E>>,
    anyhow::Error: From<E>,
{
    let text = text(config, labels, repo)?;
    note(config, labels, notes)?;
    let job = parse(text).await?;
    writeln!(out, "{}", serde_json::to_string_pretty(&job)?)?;
    Ok(())
}

fn note(config: &Config, labels: &[String], notes: &mut dyn Write) -> std::io::Result<()> {
    if config.labels.matches(labels) {
        return Ok(());
    }
    writeln!(
        notes,
        "note: runson_match ({}) matches none of these labels: such a job gets no runner",
        config.labels
    )
}

/// The repository that is given, else the first one of the configuration, else a placeholder.
fn repository(config: &Config, repo: Option<&str>) -> anyhow::Result<Repository> {
    let configured = config.repos.iter().find_map(|entry| match entry {
        RepoEntry::Repository { owner, name } => Some((owner.as_str(), name.as_str())),
        _ => None,
    });
    let (owner, name) = match repo {
        Some(text) => match text.split_once('/') {
            Some((owner, name)) if !owner.is_empty() && !name.is_empty() && !name.contains('/') => {
                (owner, name)
            }
            _ => bail!("--repo takes owner/name"),
        },
        None => configured.unwrap_or(("owner", "name")),
    };
    Ok(Repository {
        id: RepositoryId(0),
        owner: owner.to_owned(),
        name: name.to_owned(),
        html_url: format!("{}/{owner}/{name}", site(&config.github.url)),
        archived: false,
        disabled: false,
    })
}

/// The site that an API belongs to (contract github.md §4).
fn site(api: &str) -> String {
    let (scheme, rest) = api.split_once("://").unwrap_or(("https", api));
    let host = rest.split_once("/api/").map_or(rest, |(host, _)| host);
    format!("{scheme}://{}", host.strip_prefix("api.").unwrap_or(host))
}
