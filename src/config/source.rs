//! The parts that credentials are made of: files, Apps, and what only looks like a variable.

use std::path::{Path, PathBuf};

use super::{
    AppConfig, Environment, PrivateKey,
    reader::{Section, Shape},
    yaml::Data,
};
use crate::secret::Secret;

/// An App's parts; `problem` reports what is missing at a key.
pub(super) fn app_of(
    app: &Section,
    env: Environment,
    problem: impl Fn(&'static str, &str, &str),
) -> Option<AppConfig> {
    app.shape("app_id", Shape::TextOrNumber);
    let id = match app.get("app_id").map(|node| &node.data) {
        Some(Data::Int(number)) if *number > 0 => Some(number.to_string()),
        _ => app.text("app_id").map(str::to_owned),
    };
    let (client, key, file) = (app.text("client_id"), app.text("private_key"), app.text("private_key_file"));
    let issuer = match (client, id) {
        (Some(client), None) => Some(client.to_owned()),
        (None, Some(id)) => Some(id),
        _ => {
            problem("client_id", "needs either client_id or app_id", "the App's settings page shows both");
            None
        }
    };
    let private_key = match (key, file) {
        (Some(key), None) => Some(PrivateKey::Inline(Secret::new(key))),
        (None, Some(path)) => Some(PrivateKey::File(expand(path, env))),
        _ => {
            problem(
                "private_key_file",
                "needs either private_key or private_key_file",
                "generate a key on the App's settings page",
            );
            None
        }
    };
    Some(AppConfig { issuer: issuer?, private_key: private_key? })
}

/// Rejects a value that looks like a variable, because nothing expands it.
pub(super) fn not_a_variable(section: &Section, key: &'static str, instead: &str) {
    if let Some(name) = section.text(key).and_then(variable_in) {
        let help = format!("{instead} (here: from {name})");
        section.problem(key, "environment variables are not expanded in the configuration", help);
    }
}

/// The environment variable that a text refers to in the syntax of shells and other programs: `$NAME`, `${NAME}`,
/// `env(NAME)`, `${env.NAME}`.
fn variable_in(text: &str) -> Option<&str> {
    let text = text.trim();
    let inner = text
        .strip_prefix("env(")
        .and_then(|rest| rest.strip_suffix(')'))
        .or_else(|| text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')))
        .or_else(|| text.strip_prefix('$'))?;
    let name = inner.trim_start_matches("env.").trim_matches(['"', '\'']);
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    is_name.then_some(name)
}

/// Expands `~/` to the home directory.
pub(super) fn expand(text: &str, env: Environment) -> PathBuf {
    match (text.strip_prefix("~/"), env("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => PathBuf::from(text),
    }
}
