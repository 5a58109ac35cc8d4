//! How a runner gets its credentials: the template block in the job, and the job's variable.

use serde_json::json;

use super::filters::escape;
use crate::{model::Registration, secret::Secret};

/// The file with the task's environment: in memory, and gone with the task.
const DESTINATION: &str = "secrets/githubrunner.env";

/// The variable that only the job's own tasks can read (contract nomad.md §8).
pub fn variable_path(name: &str) -> String {
    format!("nomad/jobs/{name}")
}

/// The only item of the job's variable, which the rendered template reads; `None` if the runner needs no
/// variable.
pub fn credential_items(registration: Registration, secret: &Secret) -> Option<(&'static str, Secret)> {
    Some((item(registration)?.0, secret.clone()))
}

/// The variable's item, and the environment variable that the runner reads: the official runner's own
/// (contract github.md §7), or that of myoung34's image.
fn item(registration: Registration) -> Option<(&'static str, &'static str)> {
    match registration {
        Registration::Jit => Some(("jitconfig", "ACTIONS_RUNNER_INPUT_JITCONFIG")),
        Registration::Token => Some(("token", "RUNNER_TOKEN")),
        Registration::AccessToken => None,
    }
}

/// The consul-template text that becomes the task's environment.
pub(super) fn data(registration: Registration, name: &str, access_token: &str) -> String {
    match item(registration) {
        Some((item, variable)) => {
            let path = variable_path(name);
            format!("{variable}={{{{ with nomadVar \"{path}\" }}}}{{{{ .{item} }}}}{{{{ end }}}}\n")
        }
        None => format!("ACCESS_TOKEN={access_token}\n"),
    }
}

/// The task's whole `template` block. Its data is a quoted string rather than a heredoc, so any indentation
/// parses. Without `once`, five minutes without servers would kill the running task (contract nomad.md §8).
pub(super) fn block(data: &str) -> String {
    format!(
        "template {{\n  data        = \"{}\"\n  destination = \"{DESTINATION}\"\n  env         = true\n  \
         change_mode = \"noop\"\n  once        = true\n}}",
        escape(data)
    )
}

/// The same for templates in JSON: an element of the task's `Templates`.
pub(super) fn json(data: &str) -> String {
    json!({
        "EmbeddedTmpl": data,
        "DestPath": DESTINATION,
        "Envvars": true,
        "ChangeMode": "noop",
        "Once": true,
    })
    .to_string()
}
