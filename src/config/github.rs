//! The section `github`: the API, the credentials, and how runners register.

use std::path::{Path, PathBuf};

use super::{
    AppConfig, Environment, GitHubConfig, RegistrationSetting, RunnerLevel, credentials,
    reader::{Problems, Section},
    source::{app_of, expand, not_a_variable},
};
use crate::secret::Secret;

/// The values of `scope`.
pub(super) const SCOPES: [(&str, RunnerLevel); 2] =
    [("repository", RunnerLevel::Repository), ("organization", RunnerLevel::Organization)];

/// The values of `registration`.
pub(super) const REGISTRATIONS: [(&str, RegistrationSetting); 4] = [
    ("auto", RegistrationSetting::Auto),
    ("jit", RegistrationSetting::Jit),
    ("token", RegistrationSetting::Token),
    ("access_token", RegistrationSetting::AccessToken),
];

/// Reads the section; `None` if a required part is invalid.
pub(super) fn parse(top: &Section, problems: &Problems, env: Environment) -> Option<GitHubConfig> {
    let section = top.section("github");
    let path = |key| section.text(key).map(|text| expand(text, env));
    let url = url(&section);
    let token = section.text("token");
    for key in ["token", "access_token"] {
        not_a_variable(&section, key, "remove the key, and set the environment variable GH_TOKEN");
    }
    let token_file = path("token_file");
    let app = app(&section, env);
    for (key, other, both) in [
        ("token_file", "token", token.is_some() && token_file.is_some()),
        ("app", "token", token.is_some() && section.get("app").is_some()),
        ("app", "token_file", token_file.is_some() && section.get("app").is_some()),
    ] {
        if both {
            section.problem(key, format!("conflicts with github.{other}"), "remove one of them");
        }
    }
    let from_env = || tokens_for(url.as_deref()).iter().find_map(|name| set(env, name));
    let token = match token {
        Some(token) => Some(token.to_owned()),
        None if token_file.is_none() && section.get("app").is_none() => from_env(),
        None => None,
    };
    let scope = section.choice("scope", &SCOPES, RunnerLevel::Repository);
    let runner_group = section.text("runner_group").map(str::to_owned);
    if runner_group.is_some() && scope == RunnerLevel::Repository {
        section.problem(
            "runner_group",
            "only organizations have runner groups",
            "write scope: organization, or remove it",
        );
    }
    let github = GitHubConfig {
        token: token.map(|token| Secret::new(token.trim())),
        token_file,
        app,
        credentials: credentials::parse(&section, problems, env),
        access_token: section.text("access_token").map(Secret::new),
        cachefile: path("cachefile").unwrap_or_else(|| default_cachefile(env)),
        registration: section.choice("registration", &REGISTRATIONS, RegistrationSetting::Auto),
        scope,
        runner_group,
        watch_pushes: section.boolean("watch_pushes", true),
        ca_file: path("ca_file"),
        url: url.clone().unwrap_or_default(),
    };
    section.finish();
    url.map(|_| github)
}

fn url(section: &Section) -> Option<String> {
    let text = section.text("url").unwrap_or("https://api.github.com");
    let text = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let help = "write https://api.github.com, or https://HOST/api/v3 for an Enterprise Server";
    let message = match url::Url::parse(&text) {
        Err(error) => format!("not a URL: {error}"),
        Ok(url) if !matches!(url.scheme(), "http" | "https") => "not an http or https URL".to_owned(),
        Ok(url) if url.host_str().is_none() => "has no host".to_owned(),
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            "contains a user name or password".to_owned()
        }
        Ok(url) if url.query().is_some() || url.fragment().is_some() => {
            "contains a query or fragment".to_owned()
        }
        Ok(_) => return Some(text.trim_end_matches('/').to_owned()),
    };
    section.problem("url", message, help);
    None
}

fn app(section: &Section, env: Environment) -> Option<AppConfig> {
    let is_there = section.get("app").is_some();
    let app = section.section("app");
    let read = app_of(&app, env, |_, message, help| {
        if is_there {
            section.problem("app", message, help);
        }
    });
    if is_there {
        app.finish();
    }
    read.filter(|_| is_there)
}

/// The environment variables with the token for an API's host, as in `gh`. A token for github.com is never sent to
/// another company's server (contract github.md §8).
fn tokens_for(url: Option<&str>) -> [&'static str; 2] {
    match url.is_none_or(is_githubs_own) {
        true => ["GH_TOKEN", "GITHUB_TOKEN"],
        false => ["GH_ENTERPRISE_TOKEN", "GITHUB_ENTERPRISE_TOKEN"],
    }
}

/// Whether an API belongs to github.com or *.ghe.com.
fn is_githubs_own(url: &str) -> bool {
    let host = url::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned));
    host.is_some_and(|host| {
        ["github.com", "api.github.com"].contains(&host.as_str()) || host.ends_with(".ghe.com")
    })
}

/// An environment variable, if it is not empty.
fn set(env: Environment, name: &str) -> Option<String> {
    env(name).filter(|text| !text.is_empty())
}

/// A message if there is no token for this host, but one for another in the environment.
pub(super) fn token_of_another_host(github: &GitHubConfig, env: Environment) -> Option<String> {
    let has_one = github.token.is_some()
        || github.token_file.is_some()
        || github.app.is_some()
        || !github.credentials.is_empty();
    let wanted = tokens_for(Some(&github.url));
    let others = ["GH_TOKEN", "GITHUB_TOKEN", "GH_ENTERPRISE_TOKEN", "GITHUB_ENTERPRISE_TOKEN"];
    let other = others.iter().find(|name| !wanted.contains(name) && set(env, name).is_some())?;
    (!has_one).then(|| {
        format!("{other} is not sent to {}: set {} to the token for that server", github.url, wanted[0])
    })
}

/// In the user's cache directory, or else the Nomad task's own directory, or else here.
fn default_cachefile(env: Environment) -> PathBuf {
    let directory = |name: &str, below: &str| {
        env(name).filter(|text| text.starts_with('/')).map(|text| Path::new(&text).join(below))
    };
    directory("XDG_CACHE_HOME", "githubrunner")
        .or_else(|| directory("HOME", ".cache/githubrunner"))
        .or_else(|| directory("NOMAD_TASK_DIR", "githubrunner"))
        .unwrap_or_else(|| PathBuf::from(".githubrunner"))
        .join("github.json")
}
