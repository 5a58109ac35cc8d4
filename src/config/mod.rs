//! The configuration: YAML in nomadtools' form, read once into types that cannot be wrong.
//!
//! [`Config::load`] finds every problem of a file in one run; each names its key, line and column.

mod classes;
mod duration;
mod effective;
mod error;
mod github;
mod parse;
mod reader;
mod rerun;
mod rules;
mod schema;
mod status;
mod template;
#[cfg(test)]
mod tests;
mod webhook;
mod yaml;

use std::{fmt, path::PathBuf, time::Duration};

pub use classes::{Class, ClassMatch, ClassNomad, RepoGlob};
pub use effective::Format;
pub(crate) use effective::settings;
pub use error::{ConfigError, ConfigErrors};
pub use rerun::RerunLost;
pub use schema::schema;
pub use status::StatusConfig;
pub use template::{BUILTIN_TEMPLATES, BuiltinTemplate, DEFAULT_TEMPLATE, Template};
pub use webhook::WebhookConfig;

pub use crate::model::RepoEntry;
use crate::{
    labels::{Interest, LabelRules},
    model::Registration,
    secret::Secret,
};

/// Environment variables.
type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The largest `nomad.jobprefix`: with it, a runner's name still shows the repository within GitHub's 64
/// characters.
pub const JOBPREFIX_MAX: usize = 32;

/// Everything that can be configured. Made by [`Config::load`] alone.
#[derive(Clone)]
pub struct Config {
    /// `nomad`
    pub nomad: NomadConfig,
    /// `github`
    pub github: GitHubConfig,
    /// `repos`; never empty.
    pub repos: Vec<RepoEntry>,
    /// `runson_match`, `runson_allowed`, `runson_max_length`, `runson_limits`
    pub labels: LabelRules,
    /// `loop`: the longest wait between two passes.
    pub loop_interval: Duration,
    /// `template`
    pub template: Template,
    /// The built-in defaults, overlaid by `template_default_settings`, overlaid by `template_settings`.
    pub settings: serde_json::Map<String, serde_json::Value>,
    /// `scheduler`
    pub scheduler: Scheduler,
    /// `classes`: the first that matches a job makes its runner.
    pub classes: Vec<Class>,
    /// `public: allow`: where there are classes, jobs that reach their host serve public repositories all the same.
    pub public: bool,
    /// `classes_only`: jobs that no class matches get no runner.
    pub classes_only: bool,
    /// `rerun_lost`: jobs that were lost with their runners are run again; `None`: they are not.
    pub rerun_lost: Option<RerunLost>,
    /// `status` and `metrics`
    pub status: StatusConfig,
    /// `webhook`
    pub webhook: WebhookConfig,
    /// `ha.enabled`: several replicas run, and only the holder of a lock in Nomad applies.
    pub ha: bool,
    /// `parallel`, or `-P`: how many requests and actions are under way at once.
    pub parallel: usize,
    registration: Registration,
    warnings: Vec<String>,
}

/// `nomad`: where the runners' jobs live and how ours are told from others'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NomadConfig {
    /// `namespace` of the runners' jobs; `NOMAD_NAMESPACE` does not change it.
    pub namespace: String,
    /// `jobprefix`: first part of job and runner names, `[a-zA-Z0-9_-]{1,32}`.
    pub jobprefix: String,
    /// `meta`: the Meta key that holds our JSON, `[a-zA-Z0-9_.-]{1,128}`.
    pub meta: String,
}

/// `github`: where to ask for jobs, and how runners register.
#[derive(Clone, Debug)]
pub struct GitHubConfig {
    /// `url` of the API, as it was written, with a scheme and without a slash at the end.
    pub url: String,
    /// `token`, else `GH_TOKEN`, else `GITHUB_TOKEN`; `None` also when `token_file` or `app` are given.
    pub token: Option<Secret>,
    /// `token_file`: a file with the token, read again when it changes.
    pub token_file: Option<PathBuf>,
    /// `app`: a GitHub App instead of a token.
    pub app: Option<AppConfig>,
    /// `access_token`: what a job gets where `registration` is `access_token`: a token, or an expression
    /// that becomes one.
    pub access_token: Option<Secret>,
    /// `cachefile`: the ETags and the answers that go with them.
    pub cachefile: PathBuf,
    /// `registration`, as it was written; [`Config::registration`] tells what `auto` comes to.
    pub registration: RegistrationSetting,
    /// `scope`: where runners are registered.
    pub scope: ScopeSetting,
    /// `runner_group` of an organization's runners, by name; `None`: the default group.
    pub runner_group: Option<String>,
    /// `watch_pushes`: the repositories that were pushed to last are asked for often.
    pub watch_pushes: bool,
    /// `ca_file`: certificates (PEM) that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
}

/// `github.app`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppConfig {
    /// `client_id` or `app_id`: the issuer of the App's JWT (contract github.md §3).
    pub issuer: String,
    /// `private_key` or `private_key_file`
    pub private_key: PrivateKey,
}

/// An App's key: PEM, PKCS#1 or PKCS#8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrivateKey {
    /// The text itself.
    Inline(Secret),
    /// A file, read again when it changes.
    File(PathBuf),
}

/// `github.registration`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistrationSetting {
    /// What the template asks for.
    Auto,
    /// A single-use JIT configuration.
    Jit,
    /// A registration token.
    Token,
    /// A long-lived token in the job, as nomadtools does it.
    AccessToken,
}

/// `github.scope`: where runners are registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScopeSetting {
    /// The repository whose job they were started for.
    Repository,
    /// The repository's owner, an organization.
    Organization,
}

/// `scheduler`: how many, and for how long. Empty times and zeroes are `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduler {
    /// Idle runners that no job needs go after this; `None`: never.
    pub runner_inactivity_timeout: Option<Duration>,
    /// Jobs of runners that ended well, or were stopped, are purged after this; `None`: never.
    pub purge_successfull_timeout: Option<Duration>,
    /// Jobs of the other dead runners are purged after this; `None`: never.
    pub purge_failure_timeout: Option<Duration>,
    /// The most runners; `None`: no limit.
    pub max_runners: Option<usize>,
    /// The most runners for one repository; `None`: no limit.
    pub max_runners_per_repository: Option<usize>,
    /// The most runners for one repository and set of labels; `None`: no limit.
    pub max_runners_per_group: Option<usize>,
    /// How long a job waits for room before an idle runner is stopped for it; `None`: for ever.
    pub pending_to_kill_listening: Option<Duration>,
    /// A placed runner without credentials yields to others after this.
    pub waiting_timeout: Duration,
    /// A runner whose task has not started after this is stopped, and its job gets another attempt.
    pub starting_timeout: Duration,
    /// A runner that has not connected to GitHub after this yields to others.
    pub connect_timeout: Duration,
    /// An idle runner that is given no queued job for this long yields to others.
    pub unassigned_timeout: Duration,
    /// A runner that has run for longer is stopped, busy or not; `None`: never.
    pub max_run_duration: Option<Duration>,
    /// Idle runners go as soon as no job needs them.
    pub strict: bool,
}

/// What becomes of secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tokens {
    /// Shown as `***`.
    Hidden,
    /// Left out altogether, `github.app` as well.
    Absent,
    /// As they are, for a template that puts a token into the job; not the App's key.
    Plain,
}

impl Config {
    /// Reads a configuration: a file's path, or the YAML itself if it contains a newline. `env` gives
    /// environment variables: the tokens, and the directories that paths may begin with.
    ///
    /// # Errors
    /// All problems found, each with its place and what to do.
    pub fn load(source: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, ConfigErrors> {
        parse::load(source, env)
    }

    /// How runners register: `github.registration`, with `auto` resolved to what the template asks for.
    pub fn registration(&self) -> Registration {
        self.registration
    }

    /// Which jobs concern this deployment.
    pub fn interest(&self) -> Interest {
        Interest::new(&self.labels, &self.nomad.jobprefix)
    }

    /// Whether runners register at their repository's organization (`github.scope`), not at the repository.
    pub fn organization(&self) -> bool {
        self.github.scope == ScopeSetting::Organization
    }

    /// What is allowed but not as it should be, each with what to change.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    /// The configuration as it takes effect, secrets replaced by `***`.
    pub fn effective(&self, format: Format) -> String {
        effective::print(self, format)
    }
}

/// The effective configuration; no secret is in it.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.effective(Format::Json))
    }
}

impl RegistrationSetting {
    /// The word for it in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            RegistrationSetting::Auto => "auto",
            RegistrationSetting::Jit => "jit",
            RegistrationSetting::Token => "token",
            RegistrationSetting::AccessToken => "access_token",
        }
    }
}

impl ScopeSetting {
    /// The word for it in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            ScopeSetting::Repository => "repository",
            ScopeSetting::Organization => "organization",
        }
    }
}
