//! `init`: writes a first configuration from flags or answers, and explains how to create a GitHub App.

use std::{
    fs::{self, OpenOptions},
    io::{BufRead, ErrorKind, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use serde_json::json;

use crate::{
    cli::Init,
    config::{BUILTIN_TEMPLATES, Config},
    model::{RunnerLevel, is_login, is_repository_name},
    secret::without_tokens,
    text::shown,
};

/// The template of a new configuration. It gives runners single-use credentials.
const TEMPLATE: &str = "builtin:docker";

/// The file name of the App's manifest.
const MANIFEST: &str = "githubrunner-app.json";

/// How the daemon authenticates to GitHub.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Credentials {
    /// `GH_TOKEN`, or its counterpart for an Enterprise Server.
    Environment,
    /// A file with a token.
    TokenFile(String),
    /// A GitHub App.
    App { client_id: String, key_file: String },
}

/// The content of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answers {
    repos: Vec<String>,
    url: Option<String>,
    credentials: Credentials,
    template: String,
    organization: bool,
}

/// The person at the terminal, if there is one.
pub struct Person<'a> {
    /// The person's input; `None` without a terminal.
    pub answers: Option<&'a mut dyn BufRead>,
    /// The output for questions.
    pub questions: &'a mut dyn Write,
}

impl Person<'_> {
    /// The answer to a question, or the default if nothing is entered or there is no terminal.
    fn ask(&mut self, question: &str, default: &str) -> anyhow::Result<String> {
        let Some(answers) = &mut self.answers else { return Ok(default.to_owned()) };
        let shown_default = if default.is_empty() { String::new() } else { format!(" [{default}]") };
        write!(self.questions, "{question}{shown_default}: ")?;
        self.questions.flush()?;
        let mut line = String::new();
        if answers.read_line(&mut line).context("reading the answer")? == 0 {
            bail!("the input ended; nothing was written");
        }
        let line = line.trim();
        Ok(if line.is_empty() { default.to_owned() } else { line.to_owned() })
    }
}

/// Writes a configuration. With `--app`, explains how to create the App and writes its manifest next to the
/// configuration.
///
/// # Errors
/// An answer is missing or invalid, a file exists and `--force` is not given, or a file cannot be written.
pub fn run(args: &Init, mut person: Person<'_>, out: &mut dyn Write) -> anyhow::Result<()> {
    let path = &args.output;
    if path.exists() && !args.force {
        bail!("{} already exists: use --force to overwrite it, or --output for another file", path.display());
    }
    let repos = repos(args, &mut person)?;
    if args.app {
        explain_app(args, &repos, path, out)?;
    }
    let answers = Answers {
        credentials: credentials(args, &mut person)?,
        template: template(args, &mut person)?,
        url: args.github_url.clone(),
        organization: args.organization,
        repos,
    };
    let text = text(&answers);
    // The result must be valid: anything else is a bug in this command.
    Config::load(&text, &|_| None)
        .map_err(|errors| anyhow::anyhow!("the answers do not make a valid configuration: {errors}"))?;
    write(path, &text, args.force)?;
    writeln!(out, "Wrote {}. Next:", path.display())?;
    if answers.credentials == Credentials::Environment {
        let name = if answers.url.is_some() { "GH_ENTERPRISE_TOKEN" } else { "GH_TOKEN" };
        writeln!(
            out,
            "  export {name}=…                 # for its rights see docs/deployment.md, Tokens and permissions"
        )?;
    }
    writeln!(
        out,
        "  githubrunner -c {0} check    # tests everything, and leaves nothing behind",
        path.display()
    )?;
    writeln!(out, "  githubrunner -c {0} run", path.display())?;
    Ok(())
}

fn repos(args: &Init, person: &mut Person<'_>) -> anyhow::Result<Vec<String>> {
    let repos = match args.repos.as_slice() {
        [] => {
            let question = "Repositories or organizations, separated by spaces (owner/name, owner, or *)";
            let answer = person.ask(question, "")?;
            answer.split([' ', ',']).filter(|text| !text.is_empty()).map(str::to_owned).collect()
        }
        repos => repos.to_vec(),
    };
    if repos.is_empty() {
        bail!("no repository: name at least one with --repo OWNER[/NAME]");
    }
    for repo in &repos {
        let is_well = match repo.split_once('/') {
            None => repo == "*" || is_login(repo),
            Some((owner, name)) => is_login(owner) && is_repository_name(name),
        };
        if !is_well {
            bail!(
                "\"{}\" is not a repository: enter owner/name, an owner, or *",
                shown(&without_tokens(repo), 100)
            );
        }
    }
    Ok(repos)
}

fn credentials(args: &Init, person: &mut Person<'_>) -> anyhow::Result<Credentials> {
    let file = |text: String| {
        if without_tokens(&text) != text {
            bail!(
                "that is a token, which does not belong in a configuration: put it into a file and enter the file's name"
            );
        }
        if text.is_empty() { bail!("a file is required") } else { Ok(text) }
    };
    if args.app {
        let client_id = match &args.client_id {
            Some(id) => id.clone(),
            None => person.ask("The App's client ID", "")?,
        };
        if client_id.is_empty() {
            bail!(
                "the App's client ID is missing: create the App as described above, then run this again with --client-id"
            );
        }
        let key_file = match &args.private_key_file {
            Some(path) => path.clone(),
            None => person.ask("The file with the App's private key", "~/.config/githubrunner/app.pem")?,
        };
        return Ok(Credentials::App { client_id, key_file: file(key_file)? });
    }
    match &args.token_file {
        Some(path) => Ok(Credentials::TokenFile(file(path.clone())?)),
        None => {
            let question = "A file with the GitHub token; leave empty to use the environment (GH_TOKEN)";
            match person.ask(question, "")? {
                path if path.is_empty() => Ok(Credentials::Environment),
                path => Ok(Credentials::TokenFile(file(path)?)),
            }
        }
    }
}

fn template(args: &Init, person: &mut Person<'_>) -> anyhow::Result<String> {
    let names: Vec<&str> = BUILTIN_TEMPLATES.iter().map(|template| template.name).collect();
    let template = match &args.template {
        Some(template) => template.clone(),
        None => person.ask(&format!("Template: {}, or a file", names.join(", ")), TEMPLATE)?,
    };
    if template.starts_with("builtin:") && !names.contains(&template.as_str()) {
        bail!("there is no template \"{}\"; choose one of {}", shown(&template, 100), names.join(", "));
    }
    Ok(template)
}

/// A quoted YAML text: quoted JSON is valid YAML.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-:~".contains(c);
    match text.chars().all(is_plain)
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || "/~".contains(c))
        && !text.ends_with(':')
    {
        // A word that YAML would not read as text.
        true if !["y", "n", "yes", "no", "on", "off", "true", "false", "null", "~"]
            .contains(&text.to_lowercase().as_str()) =>
        {
            text.to_owned()
        }
        _ => json!(text).to_string(),
    }
}

fn text(answers: &Answers) -> String {
    let mut text = "\
# yaml-language-server: $schema=githubrunner.schema.json
# The line above gives editors completion and checks; the file comes from: githubrunner schema > githubrunner.schema.json
#
# All keys, with their defaults, are in docs/configuration.md. `githubrunner -c THIS check` tries all of it.

# Which jobs get runners: owner/name, a user or an organization, or \"*\" for everything the token can access. A job requests one
# with `runs-on: nomadtools`, or `runs-on: \"nomadtools cpu=2000 mem=4000\"`.
repos:
"
    .to_owned();
    for repo in &answers.repos {
        text.push_str(&format!("  - {}\n", quoted(repo)));
    }
    let github = github_lines(answers);
    if answers.credentials == Credentials::Environment {
        text.push_str("\n# The token comes from the environment: GH_TOKEN, or GH_ENTERPRISE_TOKEN for an Enterprise Server.\n");
    } else {
        text.push('\n');
    }
    if !github.is_empty() {
        text.push_str(&format!("github:\n{}\n", github.join("\n")));
    }
    text.push_str(&format!(
        "
# What a runner's Nomad job looks like: a bundled template or your own file.
template: {}

# Nomad's address and token come from the environment: NOMAD_ADDR, NOMAD_TOKEN. Here is where the runners live.
# nomad:
#   namespace: github

# How many runners, and for how long. These are the defaults.
# scheduler:
#   max_runners: 0                   # 0: no limit
#   runner_inactivity_timeout: \"\"    # \"\": an idle runner stays
#   purge_successfull_timeout: 10m
#   purge_failure_timeout: 1w

# Health, metrics and the state over HTTP.
# status:
#   listen: 127.0.0.1:9090
",
        quoted(&answers.template)
    ));
    text
}

/// The lines of the section `github`.
fn github_lines(answers: &Answers) -> Vec<String> {
    let mut github = Vec::new();
    if let Some(url) = &answers.url {
        github.push(format!("  url: {}", quoted(url)));
    }
    match &answers.credentials {
        Credentials::Environment => {}
        Credentials::TokenFile(path) => {
            github.push("  # Reread when it changes. Nobody else should be able to read it.".to_owned());
            github.push(format!("  token_file: {}", quoted(path)));
        }
        Credentials::App { client_id, key_file } => {
            github.push("  app:".to_owned());
            github.push(format!("    client_id: {}", quoted(client_id)));
            github.push(format!("    private_key_file: {}", quoted(key_file)));
        }
    }
    if answers.organization {
        github.push("  # Runners belong to the organization; all its repositories may use them.".to_owned());
        github.push("  scope: organization".to_owned());
    }
    github
}

/// Writes a new file, or with `force` replaces it.
fn write(path: &Path, text: &str, force: bool) -> anyhow::Result<()> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    }
    let mut options = OpenOptions::new();
    match force {
        true => options.write(true).create(true).truncate(true),
        false => options.write(true).create_new(true),
    };
    let opened = options.open(path);
    if let Err(error) = &opened
        && error.kind() == ErrorKind::AlreadyExists
    {
        bail!("{} already exists: use --force to overwrite it", path.display());
    }
    opened
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("writing {}", path.display()))
}

/// The permissions that an App needs, with their names in GitHub's manifest and URLs.
fn permissions(level: RunnerLevel) -> Vec<(&'static str, &'static str)> {
    match level {
        RunnerLevel::Organization => {
            vec![("actions", "read"), ("metadata", "read"), ("organization_self_hosted_runners", "write")]
        }
        RunnerLevel::Repository => {
            vec![("actions", "read"), ("administration", "write"), ("metadata", "read")]
        }
    }
}

/// The URL for creating an App, with everything that this one needs filled in.
fn new_app(web: &str, owner: Option<&str>, level: RunnerLevel) -> String {
    let place = match owner {
        Some(owner) => format!("{web}/organizations/{owner}/settings/apps/new"),
        None => format!("{web}/settings/apps/new"),
    };
    let rights: Vec<String> =
        permissions(level).into_iter().map(|(right, how)| format!("{right}={how}")).collect();
    format!("{place}?name=githubrunner&public=false&webhook_active=false&{}", rights.join("&"))
}

fn explain_app(args: &Init, repos: &[String], output: &Path, out: &mut dyn Write) -> anyhow::Result<()> {
    let owners: Vec<&str> = repos
        .iter()
        .map(|repo| repo.split('/').next().unwrap_or_default())
        .filter(|owner| *owner != "*")
        .collect();
    let owner = owners.first().copied();
    let web = web(args.github_url.as_deref());
    let level = if args.organization { RunnerLevel::Organization } else { RunnerLevel::Repository };
    let manifest = json!({
        "name": "githubrunner",
        "url": web,
        "public": false,
        "default_permissions": permissions(level).into_iter().collect::<std::collections::BTreeMap<_, _>>(),
        "default_events": ["workflow_job"],
    });
    let path: PathBuf = output.with_file_name(MANIFEST);
    write(&path, &(serde_json::to_string_pretty(&manifest)? + "\n"), args.force)?;
    let key = args.private_key_file.as_deref().unwrap_or("~/.config/githubrunner/app.pem");
    writeln!(
        out,
        "\
A GitHub App has its own rate limit, belongs to no user, and can be installed for selected repositories.

1. Open, as an owner of the organization (for a person's account: {personal}):
   {address}
   Name, rights and the rest are filled in. The name must be free at GitHub: add your organization's to it.
2. \"Homepage URL\": any page of yours. Leave \"Webhook: Active\" off, unless you set `webhook` later.
3. \"Repository permissions\" and \"Organization permissions\" show these; no others are needed:
{rights}4. \"Where can this GitHub App be installed?\": Only on this account. Press \"Create GitHub App\".
5. On the App's page, copy the \"Client ID\": it is github.app.client_id.
6. \"Private keys\": press \"Generate a private key\". The browser downloads a .pem file: move it to {key}, and
   let nobody else read it (chmod 600).
7. \"Install App\" in the menu: install it for {installed}, for all repositories or for those that should get runners.

The same as a manifest, for who makes Apps by a program: {manifest}
",
        personal = new_app(&web, None, RunnerLevel::Repository),
        address = new_app(&web, owner, level),
        rights = permissions(level)
            .into_iter()
            .map(|(right, how)| format!("   - {}: {how}\n", in_words(right)))
            .collect::<String>(),
        installed = if owners.is_empty() { "each owner".to_owned() } else { owners.join(", ") },
        manifest = path.display(),
    )?;
    Ok(())
}

/// GitHub's name for a permission in its web pages.
fn in_words(right: &str) -> &'static str {
    match right {
        "actions" => "Repository, Actions",
        "administration" => "Repository, Administration",
        "organization_self_hosted_runners" => "Organization, Self-hosted runners",
        _ => "Repository, Metadata",
    }
}

/// The URL of the web site for an API.
fn web(api: Option<&str>) -> String {
    let Some(api) = api else { return "https://github.com".to_owned() };
    let api = if api.contains("://") { api.to_owned() } else { format!("https://{api}") };
    api.trim_end_matches('/').trim_end_matches("/api/v3").replace("://api.", "://")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(config: &Config) -> Vec<String> {
        config.repos.iter().map(ToString::to_string).collect()
    }

    fn answered(args: Init, answers: &str) -> (anyhow::Result<()>, String) {
        let (mut answers, mut questions, mut out) = (answers.as_bytes(), Vec::new(), Vec::new());
        let person = Person { answers: Some(&mut answers), questions: &mut questions };
        let done = run(&args, person, &mut out);
        (done, String::from_utf8(questions).unwrap() + &String::from_utf8(out).unwrap())
    }

    fn flags(args: Init) -> (anyhow::Result<()>, String) {
        let mut out = Vec::new();
        let done = run(&args, Person { answers: None, questions: &mut Vec::new() }, &mut out);
        (done, String::from_utf8(out).unwrap())
    }

    fn args(directory: &tempfile::TempDir) -> Init {
        Init { output: directory.path().join("config.yml"), ..Init::default() }
    }

    fn load(directory: &tempfile::TempDir) -> Config {
        Config::load(directory.path().join("config.yml").to_str().unwrap(), &|_| None).unwrap()
    }

    #[test]
    fn answers_become_a_valid_configuration() {
        let directory = tempfile::tempdir().unwrap();
        let (done, said) = answered(args(&directory), "acme octocat/app *\n/etc/githubrunner/token\n\n");
        done.unwrap();
        assert!(said.contains("Repositories") && said.contains("check"), "{said}");
        let config = load(&directory);
        assert_eq!(entries(&config), ["acme", "octocat/app", "*"]);
        assert_eq!(config.github.token_file.as_deref(), Some(Path::new("/etc/githubrunner/token")));
        assert_eq!(config.template.name, TEMPLATE);
        assert_eq!(config.warnings(), Vec::<String>::new());
    }

    #[test]
    fn flags_need_no_answers() {
        let directory = tempfile::tempdir().unwrap();
        let (missing, _) = flags(args(&directory));
        assert!(missing.unwrap_err().to_string().contains("--repo"));
        let repos = vec!["acme".to_owned(), "yes".to_owned(), "1e3".to_owned()];
        let (done, said) = flags(Init { repos: repos.clone(), ..args(&directory) });
        done.unwrap();
        assert!(said.contains("export GH_TOKEN"), "{said}");
        let config = load(&directory);
        assert_eq!(entries(&config), repos, "words that YAML reads otherwise are in quotes");
        assert!(config.github.token_file.is_none() && config.github.app.is_none());
    }

    #[test]
    fn an_existing_file_is_kept_without_force() {
        let directory = tempfile::tempdir().unwrap();
        let repos = vec!["acme".to_owned()];
        fs::write(directory.path().join("config.yml"), "mine").unwrap();
        let (refused, _) = flags(Init { repos: repos.clone(), ..args(&directory) });
        assert!(refused.unwrap_err().to_string().contains("--force"));
        assert_eq!(fs::read_to_string(directory.path().join("config.yml")).unwrap(), "mine");
        flags(Init { repos, force: true, ..args(&directory) }).0.unwrap();
        assert_eq!(entries(&load(&directory)), ["acme"]);
    }

    #[test]
    fn a_token_is_never_written() {
        let directory = tempfile::tempdir().unwrap();
        let token = format!("ghp_{}", "a".repeat(36));
        let (refused, said) = answered(args(&directory), &format!("acme\n{token}\n\n"));
        let error = refused.unwrap_err().to_string();
        assert!(error.contains("put it into a file") && !error.contains(&token), "{error}");
        assert!(!said.contains(&token) && !directory.path().join("config.yml").exists());
    }

    #[test]
    fn an_app_is_explained_and_its_manifest_has_only_the_needed_permissions() {
        let directory = tempfile::tempdir().unwrap();
        let app = Init {
            app: true,
            organization: true,
            repos: vec!["acme".to_owned()],
            client_id: Some("Iv23liAbCdEfGh".to_owned()),
            ..args(&directory)
        };
        let (done, said) = flags(app);
        done.unwrap();
        let address = "https://github.com/organizations/acme/settings/apps/new?name=githubrunner&public=false&\
                       webhook_active=false&actions=read&metadata=read&organization_self_hosted_runners=write";
        assert!(said.contains(address) && said.contains("Client ID"), "{said}");
        let manifest: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(directory.path().join(MANIFEST)).unwrap()).unwrap();
        assert_eq!(
            manifest["default_permissions"],
            json!({ "actions": "read", "metadata": "read", "organization_self_hosted_runners": "write" })
        );
        let config = load(&directory);
        assert_eq!(config.github.app.as_ref().unwrap().issuer, "Iv23liAbCdEfGh");
        assert_eq!(config.github.scope, RunnerLevel::Organization);
        assert_eq!(web(Some("https://ghes.example.com/api/v3")), "https://ghes.example.com");
        assert_eq!(web(Some("api.acme.ghe.com")), "https://acme.ghe.com");
    }
}
