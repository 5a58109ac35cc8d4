//! `github.tokens` and `github.apps`: credentials for some owners, where one for all is not enough.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::{
    AppConfig, Environment, PrivateKey,
    github::{app_of, expand, not_a_variable},
    reader::{Problems, Section, Shape},
    yaml::{Data, Node},
};
use crate::{
    labels::harmless,
    model::{OwnerPattern, is_class},
    secret::{HIDDEN, Secret},
};

/// More credentials than this are a mistake.
const MOST: usize = 100;

/// What metrics call the default's.
const RESERVED: [&str; 3] = ["token", "app", "installation"];

/// An element of `github.tokens` or `github.apps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialConfig {
    /// `name`, else the first of `owners`: what it is called in metrics and messages.
    pub name: String,
    /// `owners`
    pub owners: Vec<OwnerPattern>,
    /// What it is.
    pub source: CredentialSource,
}

/// What credentials consist of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialSource {
    /// `token`
    Token(Secret),
    /// `token_file`: read again when it changes.
    TokenFile(PathBuf),
    /// `client_id` or `app_id`, and `private_key` or `private_key_file`
    App(AppConfig),
}

impl CredentialConfig {
    /// Whether it is an App's.
    pub fn is_app(&self) -> bool {
        matches!(self.source, CredentialSource::App(_))
    }
}

/// Reads both lists, tokens first.
pub(super) fn parse(github: &Section, problems: &Problems, env: Environment) -> Vec<CredentialConfig> {
    let mut all: Vec<CredentialConfig> = Vec::new();
    for list in ["tokens", "apps"] {
        github.shape(list, Shape::Any);
        let items: &[_] = match github.get(list).map(|node| (&node.data, node)) {
            Some((Data::List(items), _)) => items,
            Some((_, node)) => {
                let message = format!("expected a list, found {}", node.kind());
                github.problem(list, message, "write `- owners: [acme]` and the credentials below it");
                &[]
            }
            None => &[],
        };
        if items.len() > MOST {
            github.problem(list, format!("{} elements", items.len()), format!("write {MOST} at most"));
        }
        for item in items.iter().take(MOST) {
            let Some(read) = one(item, list, problems, env) else { continue };
            let is_taken = |problem: String, help: &str| {
                problems.add(&format!("github.{list}.{}", read.name), item.place, problem, help);
            };
            if all.iter().any(|other| other.name.eq_ignore_ascii_case(&read.name)) {
                is_taken(format!("another one is called \"{}\"", read.name), "give each its own name");
            }
            let others = || all.iter().flat_map(|other| &other.owners);
            if let Some(owner) = read.owners.iter().find(|owner| others().any(|other| other.is_same(owner))) {
                is_taken(
                    format!("{owner} has credentials already"),
                    "an owner has one token or App: GitHub's limits are not to be got around",
                );
            }
            all.push(read);
        }
    }
    all
}

fn one(node: &Node, list: &str, problems: &Problems, env: Environment) -> Option<CredentialConfig> {
    let called = text_of(node, "name").filter(|name| is_class(name));
    let path = format!("github.{list}.{}", called.unwrap_or_default());
    let section = Section::new(problems, path.trim_end_matches('.'), Some(node), node.place);
    let name = section.text("name");
    if let Some(name) = name {
        let is_reserved = RESERVED.iter().any(|word| name == *word || name.starts_with(&format!("{word}-")));
        if !is_class(name) || is_reserved {
            let problem = format!("\"{}\" cannot be used", harmless(name));
            section.problem(
                "name",
                problem,
                "write 1 to 32 of a-z, A-Z, 0-9, _ and -, like the owner's login",
            );
        }
    }
    let owners = owners(&section);
    let source = if list == "apps" {
        app_of(&section, env, |key, message, help| section.problem(key, message, help))
            .map(CredentialSource::App)
    } else {
        not_a_variable(&section, "token", "write the token into a file, and its path as token_file");
        let (token, file) = (section.text("token"), section.text("token_file"));
        match (token, file) {
            (Some(token), None) => Some(CredentialSource::Token(Secret::new(token.trim()))),
            (None, Some(file)) => Some(CredentialSource::TokenFile(expand(file, env))),
            _ => {
                section.problem(
                    "token_file",
                    "token_file or token is needed, one of them",
                    "write the path of a file with the token",
                );
                None
            }
        }
    };
    section.finish();
    let first = owners.first()?.to_string();
    Some(CredentialConfig { name: name.map_or(first, str::to_owned), owners, source: source? })
}

fn owners(section: &Section) -> Vec<OwnerPattern> {
    let mut owners = Vec::new();
    let texts = section.texts("owners");
    if texts.is_empty() {
        section.problem(
            "owners",
            "whom these credentials are for is unknown",
            "list users and organizations: `owners: [acme, \"acme-*\"]`",
        );
    }
    for text in texts {
        match OwnerPattern::new(text) {
            Some(pattern) if pattern.is_everyone() => section.problem(
                "owners",
                "\"*\" would be for all owners",
                "what is for all other owners is github.token_file, github.token or github.app",
            ),
            Some(pattern) => owners.push(pattern),
            None => section.problem(
                "owners",
                format!("\"{}\" is no owner", harmless(text)),
                "write a user's or an organization's login, with * for any text",
            ),
        }
    }
    owners
}

/// The text of a mapping's key.
fn text_of<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    let Data::Map(entries) = &node.data else { return None };
    match &entries.iter().find(|(other, _)| other.text == key)?.1.data {
        Data::Text(text) => Some(text),
        _ => None,
    }
}

/// Both lists in the form of the file, without what is secret.
pub(super) fn tree(all: &[CredentialConfig]) -> Map<String, Value> {
    let one = |credential: &CredentialConfig| {
        let owners: Vec<String> = credential.owners.iter().map(ToString::to_string).collect();
        let mut tree = match &credential.source {
            CredentialSource::Token(_) => json!({ "token": HIDDEN }),
            CredentialSource::TokenFile(path) => json!({ "token_file": path }),
            CredentialSource::App(app) => app_tree(app),
        };
        tree["name"] = json!(credential.name);
        tree["owners"] = json!(owners);
        // Where the name is an owner's, the file need not say it.
        if credential.owners.first().is_some_and(|first| first.to_string() == credential.name)
            && let Value::Object(tree) = &mut tree
        {
            tree.remove("name");
        }
        tree
    };
    let (apps, tokens): (Vec<&CredentialConfig>, Vec<_>) = all.iter().partition(|one| one.is_app());
    [("tokens", tokens), ("apps", apps)]
        .into_iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(key, list)| (key.to_owned(), list.into_iter().map(one).collect()))
        .collect()
}

/// An App in the form of the file, without what is secret.
pub(super) fn app_tree(app: &AppConfig) -> Value {
    match &app.private_key {
        PrivateKey::Inline(_) => json!({ "client_id": app.issuer, "private_key": HIDDEN }),
        PrivateKey::File(path) => json!({ "client_id": app.issuer, "private_key_file": path }),
    }
}

#[cfg(test)]
#[path = "credentials_tests.rs"]
mod tests;
