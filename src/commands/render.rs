//! `render`: the Nomad job for some labels. Works without GitHub, and without Nomad unless the job is to be
//! parsed.

use std::io::Write;

use anyhow::{Context, bail};

use crate::{
    config::{Config, RepoEntry},
    labels::unread,
    model::{JobFacts, JobId, Labels, Registration, Repository, RepositoryId, RunFacts, RunId, runner_name},
    render::{Renderer, RunContext},
};

/// The deployment ID, job and attempt in the name of an example runner.
const EXAMPLE: (&str, JobId, u32) = ("example", JobId(1), 1);

/// The ID of its repository: GitHub, which knows the real one, is not asked.
const EXAMPLE_REPOSITORY: RepositoryId = RepositoryId(1);

/// The configuration of a class merged over the top level, and the class's name: the requested class, or else the first
/// that matches.
///
/// # Errors
/// There is no such class, such jobs get no runner, or the repository is not `owner/name`.
pub fn of_class(
    config: &Config,
    labels: &[String],
    repo: Option<&str>,
    class: Option<&str>,
) -> anyhow::Result<(Config, Option<String>)> {
    let repository = repository(config, repo)?;
    let found = match class {
        Some(name) => {
            let known: Vec<&str> = config.classes.iter().map(|class| class.name.as_str()).collect();
            let known = if known.is_empty() { "there are none".to_owned() } else { known.join(", ") };
            Some(config.class(name).with_context(|| format!("no class {name:?}; classes: {known}"))?)
        }
        None => config.classes.iter().find(|class| class.matches.covers(&repository, labels)),
    };
    match found {
        Some(class) => {
            if let Some(why) = &class.deny {
                bail!("class {} denies such jobs: {why}", class.name);
            }
            Ok((config.of_class(class), Some(class.name.clone())))
        }
        None if config.classes_only => bail!("no class matches these labels, and classes_only is set"),
        None => Ok((config.clone(), None)),
    }
}

/// The job for these labels, with a class's configuration, as it would be sent to Nomad's parser.
///
/// # Errors
/// The labels break the rules, the repository is not `owner/name`, or the template fails.
pub fn text(
    config: &Config,
    labels: &[String],
    repo: Option<&str>,
    class: Option<&str>,
) -> anyhow::Result<String> {
    let runs_on = config.labels.check(labels).context("these labels would get no runner")?;
    let repository = repository(config, repo)?;
    let (deployment, job, attempt) = EXAMPLE;
    let name = runner_name(&config.nomad.jobprefix, deployment, None, &repository.full_name(), job, attempt);
    let facts = example_facts(job);
    let run = RunContext {
        class,
        name: &name,
        repository: &repository,
        labels: &Labels::new(labels.iter().cloned()),
        runs_on: &runs_on,
        info: "rendered on the command line",
        job: Some(job),
        facts: &facts,
        attempt,
        nomad_limits: true,
    };
    Ok(Renderer::new(config)?.render(&run)?)
}

/// Example facts about a job.
fn example_facts(job: JobId) -> JobFacts {
    let run = RunFacts {
        workflow: "CI".to_owned(),
        actor: "octocat".to_owned(),
        branch: "main".to_owned(),
        event: "push".to_owned(),
    };
    JobFacts { name: "build".to_owned(), run_id: Some(RunId(job.0)), run: run.into() }
}

/// Prints the job for these labels; says so if `runson_match` does not match them.
///
/// # Errors
/// See [`text`]; or the output cannot be written.
pub fn run(
    config: &Config,
    labels: &[String],
    repo: Option<&str>,
    class: Option<&str>,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> anyhow::Result<()> {
    let (config, class) = of_class(config, labels, repo, class)?;
    let text = text(&config, labels, repo, class.as_deref())?;
    note(&config, labels, class.as_deref(), notes)?;
    writeln!(out, "{}", text.trim_end())?;
    Ok(())
}

/// Prints Nomad's JSON of the job for these labels. `parse` is Nomad's parser.
///
/// # Errors
/// See [`text`]; Nomad cannot be reached or refuses the job; or the output cannot be written.
pub async fn run_parsed<F, E>(
    config: &Config,
    labels: &[String],
    repo: Option<&str>,
    class: Option<&str>,
    parse: impl FnOnce(String, Registration) -> F,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> anyhow::Result<()>
where
    F: Future<Output = Result<serde_json::Value, E>>,
    anyhow::Error: From<E>,
{
    let (config, class) = of_class(config, labels, repo, class)?;
    let text = text(&config, labels, repo, class.as_deref())?;
    note(&config, labels, class.as_deref(), notes)?;
    let job = parse(text, config.registration()).await?;
    writeln!(out, "{}", serde_json::to_string_pretty(&job)?)?;
    Ok(())
}

fn note(
    config: &Config,
    labels: &[String],
    class: Option<&str>,
    notes: &mut dyn Write,
) -> std::io::Result<()> {
    if let Some(class) = class {
        writeln!(notes, "note: class {class}")?;
    }
    if let (Some(keys), Ok(runs_on)) = (config.template.label_keys(), config.labels.check(labels)) {
        for note in unread(&keys, &runs_on) {
            writeln!(notes, "note: {note}")?;
        }
    }
    if config.labels.matches(labels).is_yes() {
        return Ok(());
    }
    writeln!(
        notes,
        "note: runson_match ({}) matches none of these labels: such a job gets no runner",
        config.labels
    )
}

/// The given repository, or else the first of the configuration, or else a placeholder.
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
        id: EXAMPLE_REPOSITORY,
        owner: owner.to_owned(),
        name: name.to_owned(),
        html_url: format!("{}/{owner}/{name}", site(&config.github.url)),
        archived: false,
        disabled: false,
        visibility: crate::model::Visibility::default(),
    })
}

/// The web site of an API (contract github.md §4).
fn site(api: &str) -> String {
    let (scheme, rest) = api.split_once("://").unwrap_or(("https", api));
    let host = rest.split_once("/api/").map_or(rest, |(host, _)| host);
    format!("{scheme}://{}", host.strip_prefix("api.").unwrap_or(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(yaml: &str) -> Config {
        Config::load(&format!("{yaml}\n"), &|_| None).unwrap()
    }

    fn labels(labels: &[&str]) -> Vec<String> {
        labels.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_repository_is_given_or_configured_or_a_placeholder() {
        let url = |yaml: &str, repo| repository(&config(yaml), repo).unwrap().html_url;
        assert_eq!(url("repos: [acme/widgets]", Some("a/b")), "https://github.com/a/b");
        assert_eq!(url("repos: [acme, acme/widgets]", None), "https://github.com/acme/widgets");
        assert_eq!(url("repos: [acme]", None), "https://github.com/owner/name");
        let enterprise = "repos: [acme]\ngithub: {url: 'https://ghe.example.com/api/v3'}";
        assert_eq!(url(enterprise, None), "https://ghe.example.com/owner/name");
        assert_eq!(
            url("repos: [acme]\ngithub: {url: 'https://api.x.ghe.com'}", None),
            "https://x.ghe.com/owner/name"
        );
        for bad in ["a", "a/", "/b", "a/b/c"] {
            assert!(repository(&config("repos: [acme]"), Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn labels_that_break_the_rules_are_an_error_and_labels_that_do_not_match_a_note() {
        let config = config("repos: [acme/widgets]\ntemplate: builtin:docker");
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        let error = run(&config, &labels(&["mem=${x}"]), None, None, &mut out, &mut notes).unwrap_err();
        assert!(format!("{error:#}").contains("has the character '$'"), "{error:#}");
        assert!(out.is_empty());

        run(&config, &labels(&["ubuntu-latest"]), None, None, &mut out, &mut notes).unwrap();
        assert!(String::from_utf8(out).unwrap().starts_with("job \"NTGithubRunner-acme-widgets-"));
        assert!(String::from_utf8(notes).unwrap().contains("matches none of these labels"));
    }

    #[test]
    fn a_key_that_the_template_does_not_read_is_a_note_with_a_suggestion() {
        let notes = |template: &str, label: &str| {
            let (mut out, mut notes) = (Vec::new(), Vec::new());
            let yaml = format!(
                "repos: [acme/widgets]\ngithub: {{registration: access_token}}\ntemplate: {template}"
            );
            run(&config(&yaml), &labels(&[label]), None, None, &mut out, &mut notes).unwrap();
            String::from_utf8(notes).unwrap()
        };
        let builtin = "builtin:myoung34";
        assert_eq!(
            notes(builtin, "nomadtools memmax=2000 ram=1 color=red mem=5"),
            "note: the template does not read color=\nnote: the template does not read memmax=; did you mean maxmem=\n\
             note: the template does not read ram=; did you mean mem=\n"
        );
        assert_eq!(notes(builtin, "nomadtools mem=5 cpu=1 tag=x image=y disk=500 nodocker other"), "");
        assert_eq!(
            notes("'{{ RUNSON.color }} job {}'", "nomadtools colour=red"),
            "note: the template does not read colour=; did you mean color=\n"
        );
        // This template may read any key.
        assert_eq!(notes("'{% for key in RUNSON %}{{ key }}{% endfor %}'", "nomadtools colour=red"), "");
    }

    #[tokio::test]
    async fn the_parser_gets_the_text_and_its_response_is_printed() {
        let config = config("repos: [acme/widgets]\ntemplate: builtin:docker");
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        let parse = |text: String, _| async move { anyhow::Ok(serde_json::json!({ "Length": text.len() })) };
        run_parsed(&config, &labels(&["nomadtools"]), None, None, parse, &mut out, &mut notes).await.unwrap();
        let printed: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert!(printed["Length"].as_u64().unwrap() > 500);
        assert!(notes.is_empty());
    }

    #[test]
    fn the_class_is_given_or_the_first_that_matches() {
        let config = config(
            "repos: [acme/widgets]\ntemplate: 'top {{ RUN.CREDENTIALS }}'\nclasses:\n\
             - {name: gpu, match: {labels: nomadtools gpu}, template: 'a {{ RUN.CLASS }} {{ RUN.CREDENTIALS }}'}\n\
             - {name: denied, match: {labels: nomadtools no}, deny: ask}",
        );
        let shown = |label: &str, class: Option<&str>| {
            let (mut out, mut notes) = (Vec::new(), Vec::new());
            let result = run(&config, &labels(&[label]), None, class, &mut out, &mut notes);
            result
                .map(|()| String::from_utf8([out, notes].concat()).unwrap())
                .map_err(|error| format!("{error:#}"))
        };
        let gpu = shown("nomadtools gpu", None).unwrap();
        assert!(gpu.starts_with("a gpu ") && gpu.contains("note: class gpu\n"), "{gpu}");
        assert!(shown("nomadtools", Some("gpu")).unwrap().starts_with("a gpu "));
        assert!(shown("nomadtools", None).unwrap().starts_with("top "));
        assert!(shown("nomadtools no", None).unwrap_err().contains("class denied denies such jobs: ask"));
        assert_eq!(shown("nomadtools", Some("x")).unwrap_err(), "no class \"x\"; classes: gpu, denied");
    }
}
