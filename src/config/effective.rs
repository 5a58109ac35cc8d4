//! The effective configuration, for `dumpconfig`, and for templates as `CONFIG`.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Class, Config, Tokens, WarmEntry, classes, credentials, duration, rules, warm};
use crate::{
    model::digest,
    secret::{self, HIDDEN, Secret, without_assigned},
    text::harmless_json,
};

/// The format of `dumpconfig`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// YAML, which can be read back (except for the secrets).
    Yaml,
    /// JSON.
    Json,
}

pub(super) fn print(config: &Config, format: Format) -> String {
    let tree = config.tree(Tokens::Hidden);
    let text = match format {
        Format::Json => serde_json::to_string_pretty(&tree)
            .map(|json| harmless_json(&json))
            .map_err(|error| error.to_string()),
        Format::Yaml => serde_yaml::to_string(&tree).map_err(|error| error.to_string()),
    };
    match text {
        // A token can be in the wrong place, for example instead of a path or a name.
        Ok(text) => secret::without_tokens(text.trim_end()).into_owned() + "\n",
        // A tree of plain JSON can always be serialized.
        Err(error) => format!("the configuration cannot be printed: {error}\n"),
    }
}

impl Config {
    /// The configuration in the format of its file, with all defaults filled in.
    pub fn tree(&self, tokens: Tokens) -> Value {
        let Config { nomad, labels, .. } = self;
        let mut tree = json!({
            "nomad": { "namespace": nomad.namespace, "jobprefix": nomad.jobprefix, "meta": nomad.meta },
            "github": self.github_tree(tokens),
            "repos": self.repos.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "runson_match": labels.to_string(),
            "runson_allowed": labels.allowed(),
            "runson_max_length": labels.max_length(),
            "runson_limits": labels.limits(),
            "runson_numbers": labels.numbers(),
            "loop": seconds(self.loop_interval),
            "parallel": self.parallel,
            "status": self.status_tree(tokens),
            "metrics": { "per_repository": self.status.per_repository },
            "webhook": self.webhook_tree(tokens),
            "ha": { "enabled": self.ha },
            "template": self.template.shown(tokens),
            "template_settings": settings(&self.settings, tokens),
            "scheduler": self.scheduler_tree(),
        });
        if let Some(keys) = labels.allow_keys() {
            tree["allow_keys"] = rules::keys_tree(keys);
        }
        if let Some(keys) = labels.deny_keys() {
            tree["deny_keys"] = rules::keys_tree(keys);
        }
        if let Some(rerun) = self.rerun_lost {
            tree["rerun_lost"] = json!({
                "enabled": true,
                "per_job": rerun.per_job,
                "per_hour": rerun.per_hour,
                "cancelled": rerun.cancelled,
            });
        }
        if !self.classes.is_empty() {
            tree["classes"] = classes::tree(&self.classes, tokens, self::settings);
            tree["classes_only"] = json!(self.classes_only);
            tree["public"] = json!(classes::word_of_public(self.public));
        }
        if !self.warm.is_empty() {
            tree["warm"] = warm::tree(&self.warm);
        }
        tree
    }

    fn github_tree(&self, tokens: Tokens) -> Value {
        let github = &self.github;
        let mut tree = json!({
            "url": github.url,
            "token": token(github.token.as_ref(), tokens),
            "token_file": github.token_file,
            "access_token": token(github.access_token.as_ref(), tokens),
            "cachefile": github.cachefile,
            "registration": github.registration.as_str(),
            "scope": github.scope.as_str(),
            "runner_group": github.runner_group,
            "watch_pushes": github.watch_pushes,
            "ca_file": github.ca_file,
        });
        if let (Some(app), true) = (&github.app, tokens == Tokens::Hidden) {
            tree["app"] = credentials::app_tree(app);
        }
        if let Value::Object(entries) = &mut tree {
            // Templates do not need them.
            if tokens == Tokens::Hidden {
                entries.extend(credentials::tree(&github.credentials));
            }
            entries.retain(|_, value| !value.is_null());
        }
        tree
    }

    fn webhook_tree(&self, tokens: Tokens) -> Value {
        let webhook = &self.webhook;
        let mut tree = json!({
            "listen": webhook.listen.map(|address| address.to_string()).unwrap_or_default(),
            // It signs deliveries; no template needs it.
            "secret": webhook.secret.as_ref().filter(|_| tokens == Tokens::Hidden).map(|_| HIDDEN),
            "secret_file": webhook.secret_file,
            "url": webhook.url,
            "poll_deliveries": webhook.poll_deliveries,
        });
        if let Value::Object(entries) = &mut tree {
            entries.retain(|_, value| !value.is_null());
        }
        tree
    }

    fn status_tree(&self, tokens: Tokens) -> Value {
        let status = &self.status;
        let mut tree = json!({
            "listen": status.listen.map(|address| address.to_string()).unwrap_or_default(),
            "public": status.public,
        });
        // No template needs it.
        if status.token.is_some() && tokens == Tokens::Hidden {
            tree["token"] = json!(HIDDEN);
        }
        tree
    }

    fn scheduler_tree(&self) -> Value {
        let scheduler = &self.scheduler;
        json!({
            "runner_inactivity_timeout": duration::format(scheduler.runner_inactivity_timeout),
            "purge_successfull_timeout": duration::format(scheduler.purge_successfull_timeout),
            "purge_failure_timeout": duration::format(scheduler.purge_failure_timeout),
            "max_runners": scheduler.max_runners.unwrap_or(0),
            "max_runners_per_repository": scheduler.max_runners_per_repository.unwrap_or(0),
            "max_runners_per_group": scheduler.max_runners_per_group.unwrap_or(0),
            "pending_to_kill_listening": duration::format(scheduler.pending_to_kill_listening),
            "waiting_timeout": duration::format(Some(scheduler.waiting_timeout)),
            "starting_timeout": duration::format(Some(scheduler.starting_timeout)),
            "connect_timeout": duration::format(Some(scheduler.connect_timeout)),
            "unassigned_timeout": duration::format(Some(scheduler.unassigned_timeout)),
            "max_run_duration": duration::format(scheduler.max_run_duration),
            "strict": scheduler.strict,
        })
    }
}

fn token(secret: Option<&Secret>, tokens: Tokens) -> Value {
    match secret {
        None => Value::Null,
        Some(secret) => shown(secret.expose(), tokens),
    }
}

fn shown(text: &str, tokens: Tokens) -> Value {
    match tokens {
        Tokens::Absent => Value::Null,
        Tokens::Plain => Value::from(text),
        // An expression that yields a token later is not a token itself.
        Tokens::Hidden if text.contains("{{") => Value::from(text),
        Tokens::Hidden => Value::from(HIDDEN),
    }
}

/// The settings. Hides everything that looks like a token, that is assigned to a key that sounds like a secret, or that
/// is below such a key, at any depth.
pub(crate) fn settings(settings: &Map<String, Value>, tokens: Tokens) -> Map<String, Value> {
    let is_left_out = |key: &str| key == "access_token" && tokens == Tokens::Absent;
    let kept = settings.iter().filter(|(key, _)| !is_left_out(key));
    match tokens {
        Tokens::Hidden => {
            kept.map(|(key, value)| (key.clone(), hidden(value, secret::is_secret_key(key)))).collect()
        }
        Tokens::Absent | Tokens::Plain => kept.map(|(key, value)| (key.clone(), value.clone())).collect(),
    }
}

/// A value with its secrets hidden; with `all` the whole value is one.
fn hidden(value: &Value, all: bool) -> Value {
    match value {
        Value::String(text) if text.is_empty() => value.clone(),
        Value::String(text) if all => shown(text, Tokens::Hidden),
        Value::String(text) => Value::from(without_assigned(text)),
        Value::Number(_) if all => Value::from(HIDDEN),
        Value::Array(items) => items.iter().map(|item| hidden(item, all)).collect(),
        Value::Object(entries) => entries
            .iter()
            .map(|(key, value)| {
                let name = secret::without_tokens(key).into_owned();
                (name, hidden(value, all || secret::is_secret_key(key)))
            })
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// A whole number of seconds as such.
fn seconds(duration: Duration) -> Value {
    if duration.subsec_nanos() == 0 {
        Value::from(duration.as_secs())
    } else {
        Value::from(duration.as_secs_f64())
    }
}

/// A class's warm entries and what identifies its settings; those of the top level without a class.
pub(super) fn warm_of(config: &Config, class: Option<&Class>) -> (Vec<WarmEntry>, String) {
    match class {
        None => (config.warm.clone(), settings_of(config, &Value::Null)),
        Some(class) => {
            let settings = settings_of(&config.of_class(class), &classes::placement_tree(class));
            (class.warm.clone(), settings)
        }
    }
}

/// Identifies everything that decides what a warm runner of a class is, except for its labels and secrets: if it
/// changes, runners that were started before are outdated.
fn settings_of(config: &Config, placement: &Value) -> String {
    let settings = settings(&config.settings, Tokens::Hidden);
    let github = &config.github;
    let registration = config.registration().to_string();
    let what = json!([
        config.template.text,
        settings,
        placement,
        [github.scope.as_str(), &registration],
        github.runner_group,
    ]);
    digest(&what.to_string())
}
