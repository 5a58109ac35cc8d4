//! The configuration: YAML in nomadtools' format, read once into types that are always valid.
//!
//! [`Config::load`] finds every problem of a file in one run. Each names its key, line and column.

mod classes;
mod credentials;
mod duration;
mod effective;
mod error;
mod github;
mod hours;
mod parse;
mod reader;
mod rerun;
mod rules;
mod schema;
mod source;
mod status;
mod template;
#[cfg(test)]
mod tests;
mod warm;
mod webhook;
mod yaml;

use std::{fmt, path::PathBuf, time::Duration};

pub use classes::{Class, ClassMatch, ClassNomad, RepoGlob};
pub use credentials::{CredentialConfig, CredentialSource};
pub use effective::Format;
pub(crate) use effective::settings;
pub use error::{ConfigError, ConfigErrors};
pub use hours::Hours;
pub use rerun::RerunLost;
pub use schema::schema;
pub use status::StatusConfig;
pub use template::{BUILTIN_TEMPLATES, BuiltinTemplate, DEFAULT_TEMPLATE, Template};
pub use warm::WarmEntry;
pub use webhook::WebhookConfig;

pub use crate::model::RepoEntry;
use crate::{
    labels::{Interest, LabelRules},
    model::{Registration, RunnerLevel},
    secret::Secret,
};

/// Environment variables.
type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The largest `nomad.jobprefix`. It leaves room for the repository in a runner's name, which has at most 64
/// characters at GitHub.
pub const JOBPREFIX_MAX: usize = 32;

/// Everything that can be configured. Only [`Config::load`] creates it.
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
    /// `loop`: the longest time between two passes.
    pub loop_interval: Duration,
    /// `template`
    pub template: Template,
    /// The built-in defaults, overridden by `template_default_settings`, overridden by `template_settings`.
    pub settings: serde_json::Map<String, serde_json::Value>,
    /// `scheduler`
    pub scheduler: Scheduler,
    /// `classes`: the first that matches a job determines its runner.
    pub classes: Vec<Class>,
    /// `public: allow`: if there are classes, jobs that can reach their host serve public repositories too.
    pub public: bool,
    /// `classes_only`: jobs that no class matches get no runner.
    pub classes_only: bool,
    /// `warm`: runners of the top level that are started before there are jobs for them.
    pub warm: Vec<WarmEntry>,
    /// `rerun_lost`: runs jobs again that were lost with their runners; `None`: off.
    pub rerun_lost: Option<RerunLost>,
    /// `status` and `metrics`
    pub status: StatusConfig,
    /// `webhook`
    pub webhook: WebhookConfig,
    /// `ha.enabled`: several replicas run, and only the holder of a lock in Nomad acts.
    pub ha: bool,
    /// `parallel`, or `-P`: how many requests and actions run concurrently.
    pub parallel: usize,
    registration: Registration,
    warnings: Vec<String>,
}

/// `nomad`: where the runners' jobs run, and what identifies ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NomadConfig {
    /// `namespace` of the runners' jobs; `NOMAD_NAMESPACE` does not change it.
    pub namespace: String,
    /// `jobprefix`: the first part of job and runner names, `[a-zA-Z0-9_-]{1,32}`.
    pub jobprefix: String,
    /// `meta`: the Meta key that holds our JSON, `[a-zA-Z0-9_.-]{1,128}`.
    pub meta: String,
}

/// `github`: the API, the credentials, and how runners register.
#[derive(Clone, Debug)]
pub struct GitHubConfig {
    /// `url` of the API as written, completed with a scheme and without a trailing slash.
    pub url: String,
    /// `token`, or else `GH_TOKEN`, or else `GITHUB_TOKEN`; also `None` if `token_file` or `app` is set.
    pub token: Option<Secret>,
    /// `token_file`: a file with the token, reread when it changes.
    pub token_file: Option<PathBuf>,
    /// `app`: a GitHub App instead of a token.
    pub app: Option<AppConfig>,
    /// `tokens` and `apps`: separate credentials for some owners.
    pub credentials: Vec<CredentialConfig>,
    /// `access_token`: what a job gets if `registration` is `access_token`: a token, or an expression that
    /// yields one.
    pub access_token: Option<Secret>,
    /// `cachefile`: the cached responses with their ETags.
    pub cachefile: PathBuf,
    /// `registration` as written; [`Config::registration`] resolves `auto`.
    pub registration: RegistrationSetting,
    /// `scope`: where runners are registered.
    pub scope: RunnerLevel,
    /// `runner_group` of an organization's runners, by name; `None`: the default group.
    pub runner_group: Option<String>,
    /// `watch_pushes`: polls the repositories that were pushed to last.
    pub watch_pushes: bool,
    /// `ca_file`: certificates (PEM) to trust in addition to the system's.
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
    /// A file, reread when it changes.
    File(PathBuf),
}

/// `github.registration`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistrationSetting {
    /// Whatever the template reads.
    Auto,
    /// A single-use JIT configuration.
    Jit,
    /// A registration token.
    Token,
    /// A long-lived token in the job, as in nomadtools.
    AccessToken,
}

/// `scheduler`: how many runners, and for how long. Empty times and zeroes are `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduler {
    /// Idle runners that no job needs are stopped after this; `None`: never.
    pub runner_inactivity_timeout: Option<Duration>,
    /// Jobs of runners that succeeded or were stopped are purged after this; `None`: never.
    pub purge_successfull_timeout: Option<Duration>,
    /// Jobs of the other dead runners are purged after this; `None`: never.
    pub purge_failure_timeout: Option<Duration>,
    /// The maximum number of runners; `None`: no limit.
    pub max_runners: Option<usize>,
    /// The maximum for one repository; `None`: no limit.
    pub max_runners_per_repository: Option<usize>,
    /// The maximum for one repository and label set; `None`: no limit.
    pub max_runners_per_group: Option<usize>,
    /// How long a job waits for room before an idle runner is stopped for it; `None`: forever.
    pub pending_to_kill_listening: Option<Duration>,
    /// A placed runner without credentials yields its place after this.
    pub waiting_timeout: Duration,
    /// A runner whose task has not started after this is stopped, and its job gets another attempt.
    pub starting_timeout: Duration,
    /// A runner that has not connected to GitHub yields its place after this.
    pub connect_timeout: Duration,
    /// An idle runner that is given none of its queued jobs yields its place after this.
    pub unassigned_timeout: Duration,
    /// A runner that has run for longer is stopped, even if it is busy; `None`: never.
    pub max_run_duration: Option<Duration>,
    /// Idle runners are stopped as soon as no job needs them.
    pub strict: bool,
}

/// How to treat secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tokens {
    /// Shown as `***`.
    Hidden,
    /// Left out completely, including `github.app`.
    Absent,
    /// Included, for a template that puts a token into the job; except for the App's key.
    Plain,
}

impl Config {
    /// Loads a configuration: the path of a file, or the YAML itself if it contains a newline. `env` reads
    /// environment variables: the tokens, and the directories at the start of paths.
    ///
    /// # Errors
    /// All problems found, each with its position and what to do.
    pub fn load(source: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, ConfigErrors> {
        parse::load(source, env)
    }

    /// How runners register: `github.registration`, with `auto` resolved to what the template reads.
    pub fn registration(&self) -> Registration {
        self.registration
    }

    /// Which jobs are of interest to this deployment.
    pub fn interest(&self) -> Interest {
        Interest::new(&self.labels, &self.nomad.jobprefix)
    }

    /// The warm entries of the top level and of the classes: each with its class, and what identifies the settings of
    /// their runners.
    pub fn warm_entries(&self) -> Vec<(Option<String>, String, WarmEntry)> {
        let classes = [None].into_iter().chain(self.classes.iter().map(Some));
        let of_class = |class: Option<&Class>| {
            let (entries, settings) = effective::warm_of(self, class);
            let class = class.map(|class| class.name.clone());
            entries.into_iter().map(move |entry| (class.clone(), settings.clone(), entry))
        };
        classes.flat_map(of_class).collect()
    }

    /// Warnings about valid but problematic settings, each with what to change.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    /// The effective configuration, with secrets replaced by `***`.
    pub fn effective(&self, format: Format) -> String {
        effective::print(self, format)
    }
}

impl GitHubConfig {
    /// Whether all credentials are Apps.
    fn is_app_alone(&self) -> bool {
        let has_token = self.token.is_some() || self.token_file.is_some();
        let has_app = self.app.is_some() || !self.credentials.is_empty();
        has_app && !has_token && self.credentials.iter().all(CredentialConfig::is_app)
    }
}

/// The effective configuration, without secrets.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.effective(Format::Json))
    }
}

impl RegistrationSetting {
    pub fn as_str(self) -> &'static str {
        match self {
            RegistrationSetting::Auto => "auto",
            RegistrationSetting::Jit => "jit",
            RegistrationSetting::Token => "token",
            RegistrationSetting::AccessToken => "access_token",
        }
    }
}
