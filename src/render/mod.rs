//! Renders labels and a template to the text of a Nomad job. Pure: no IO, and the same result every time.

mod bounded;
mod credentials;
mod filters;
#[cfg(test)]
mod listener_tests;
mod said;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt};

use bounded::Bounded;
pub use credentials::{credential_items, variable_path};
use minijinja::{Environment, UndefinedBehavior, Value, context, syntax::SyntaxConfig, value::Serde};

use crate::{
    config::{Config, Template, Tokens, settings},
    labels::{LABELS_MAX, RunsOn},
    model::{JobFacts, JobId, Labels, Registration, Repository},
};

/// The limit for a template, about 500,000 steps or 32 MB: far more than any job needs, and some tens of
/// milliseconds.
const FUEL: u64 = 500_000;

/// Nomad drops the source of a job above 1 MB (contract nomad.md §2).
const RENDERED_MAX: usize = 1_000_000;

/// `RUN.LISTENER`: a bash script that runs the official runner in the working directory.
const LISTENER: &str = include_str!("../../templates/listener.sh");

/// The script without its comments, which every job would otherwise contain.
fn listener() -> String {
    let is_code = |line: &&str| !line.trim_start().starts_with('#');
    LISTENER.lines().filter(is_code).map(|line| format!("{line}\n")).collect()
}

/// The maximum depth of macro calls.
const RECURSION_MAX: usize = 100;

/// The compiled template, with the part of its context that is the same for all runners.
pub struct Renderer {
    templates: Bounded,
    name: String,
    registration: Registration,
    config: Value,
    settings: Value,
    /// `max_run_duration` in Nomad's format.
    max_run_duration: Option<String>,
    /// The value of `RUN.CREDENTIALS` for runners that register with an access token.
    access_token: String,
    /// The renderers of the classes, by name.
    classes: BTreeMap<String, Renderer>,
}

/// What a job is rendered for.
#[derive(Clone, Debug)]
pub struct RunContext<'a> {
    /// The Nomad job's ID and the runner's name.
    pub name: &'a str,
    /// The class; `None`: the top level's template.
    pub class: Option<&'a str>,
    /// The runner's repository.
    pub repository: &'a Repository,
    /// The job's labels, checked.
    pub labels: &'a Labels,
    /// The parsed labels: [`crate::labels::LabelRules::check`].
    pub runs_on: &'a RunsOn,
    /// A line on the scheduler's state.
    pub info: &'a str,
    /// The GitHub ID of the job that it is started for; `None` for a warm runner.
    pub job: Option<JobId>,
    /// GitHub's facts about that job.
    pub facts: &'a JobFacts,
    /// 1, 2, … for that job.
    pub attempt: u32,
    /// Whether Nomad supports `max_run_duration` (2.0.3 and later). If not, the template does not get it.
    pub nomad_limits: bool,
}

/// Why a template cannot be used, or not for these labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    /// The template's name: the path of a file, `builtin:NAME`, or `template`.
    pub name: String,
    /// The line, from 1, if it is known.
    pub line: Option<usize>,
    /// What is wrong, and what to do.
    pub message: String,
}

impl std::error::Error for TemplateError {}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A template inside a configuration is named by its position there.
        let inline = self.name.starts_with("the template in ");
        write!(f, "{}{}", if inline { "" } else { "template " }, self.name)?;
        if let Some(line) = self.line {
            write!(f, "{} line {line}", if inline { ", its" } else { "," })?;
        }
        write!(f, ": {}", self.message)
    }
}

impl Renderer {
    /// Compiles the configuration's template and those of its classes.
    ///
    /// # Errors
    /// A syntax error; or runners get their credentials from a variable and the template never reads
    /// `RUN.CREDENTIALS`.
    pub fn new(config: &Config) -> Result<Renderer, TemplateError> {
        let template = &config.template;
        let name = match template.place {
            Some(_) => template.called(),
            None => template.name.clone(),
        };
        let error = |message| TemplateError { name: name.clone(), line: None, message };
        let mut environment = environment().map_err(|failed| template_error(&name, &failed))?;
        environment.add_template_owned(name.clone(), config.template.text.clone()).map_err(|failed| {
            let mut error = template_error(&name, &failed);
            if has_braces_of_consul_template(&config.template.text, error.line) {
                error.message.push_str(
                    "; consul-template's braces are not Jinja's: put them between {% raw %} and {% endraw %}",
                );
            }
            error
        })?;

        let registration = config.registration();
        if registration.needs_variable() && !reads_credentials(&config.template) {
            return Err(error(format!(
                "it never reads RUN.CREDENTIALS, so its runners could not register ({registration}); put \
                 {{{{ RUN.CREDENTIALS }}}} on its own line in the task, or set github.registration to \
                 access_token if it gets a token in another way"
            )));
        }
        // A class that denies has no runners.
        let served = config.classes.iter().filter(|class| class.deny.is_none());
        let of_class = |class: &crate::config::Class| {
            let renderer = Renderer::new(&config.of_class(class)).map_err(|mut error| {
                error.message = format!("class {}: {}", class.name, error.message);
                error
            })?;
            Ok((class.name.clone(), renderer))
        };
        let classes = served.map(of_class).collect::<Result<_, TemplateError>>()?;
        let tokens = if registration.needs_variable() { Tokens::Absent } else { Tokens::Plain };
        let settings = settings(&config.settings, tokens);
        let mut tree = config.tree(tokens);
        tree["template_default_settings"] = tree["template_settings"].clone();
        let access_token = settings
            .get("access_token")
            .and_then(serde_json::Value::as_str)
            .filter(|text| !text.is_empty())
            .or_else(|| config.github.access_token.as_ref().map(|secret| secret.expose()))
            .or_else(|| config.github.token.as_ref().map(|secret| secret.expose()))
            .unwrap_or_default()
            .to_owned();
        Ok(Renderer {
            templates: Bounded::new(environment),
            name: name.clone(),
            registration,
            config: Value::from(Serde(&tree)),
            settings: Value::from(Serde(&settings)),
            max_run_duration: config.scheduler.max_run_duration.map(|limit| format!("{}s", limit.as_secs())),
            access_token: if registration.needs_variable() { String::new() } else { access_token },
            classes,
        })
    }

    /// The job's text, HCL or JSON, for Nomad's own parser.
    ///
    /// # Errors
    /// The template fails for these labels, or omits the credentials for them.
    pub fn render(&self, run: &RunContext) -> Result<String, TemplateError> {
        if let Some(renderer) = run.class.and_then(|class| self.classes.get(class)) {
            return renderer.render(run);
        }
        let failed = |error: minijinja::Error| template_error(&self.name, &error);
        let error = |message| Err(TemplateError { name: self.name.clone(), line: None, message });
        if run.labels.len() > LABELS_MAX {
            return error(format!("{} labels, but at most {LABELS_MAX} are possible", run.labels.len()));
        }
        let data = credentials::data(self.registration, run.name, &self.access_token);
        let variables = context! {
            CONFIG => self.config.clone(),
            SETTINGS => self.settings.clone(),
            RUNSON => Value::from(Serde(run.runs_on)),
            RUN => context! {
                RUNNER_NAME => run.name,
                CLASS => run.class.unwrap_or_default(),
                REPO_URL => &run.repository.html_url,
                REPO => run.repository.full_name(),
                REPO_ID => run.repository.id.0,
                REPO_OWNER => &run.repository.owner,
                REPO_NAME => &run.repository.name,
                LABELS => run.labels.joined().replace('"', "\\\""),
                INFO => run.info,
                JOB_ID => run.job.map_or(Value::from(""), |job| Value::from(job.0)),
                JOB_URL => job_url(run),
                JOB_NAME => said::free(&run.facts.name),
                WORKFLOW => said::free(&run.facts.run.workflow),
                ACTOR => said::login(&run.facts.run.actor),
                BRANCH => said::exact(&run.facts.run.branch),
                EVENT => said::exact(&run.facts.run.event),
                ATTEMPT => run.attempt,
                MAX_RUN_DURATION => self.max_run_duration.as_deref().filter(|_| run.nomad_limits).unwrap_or_default(),
                LISTENER => listener(),
                CREDENTIALS => credentials::block(&data),
                CREDENTIALS_JSON => credentials::json(&data),
            },
        };
        let text = self.templates.render(&self.name, variables).map_err(failed)?;
        if self.registration.needs_variable() && !text.contains(&variable_path(run.name)) {
            return error(format!(
                "no RUN.CREDENTIALS in the job for the labels {}: the runner could not register",
                run.labels
            ));
        }
        Ok(text)
    }

    /// Whether runners of a class have a `max_run_duration`.
    pub fn has_max_run_duration(&self, class: Option<&str>) -> bool {
        let renderer = class.and_then(|class| self.classes.get(class)).unwrap_or(self);
        renderer.max_run_duration.is_some()
    }

    /// How its runners register.
    pub fn registration(&self) -> Registration {
        self.registration
    }
}

/// The URL of the job, built from trusted parts only; empty if its run is unknown.
fn job_url(run: &RunContext) -> String {
    match run.facts.run_id.zip(run.job) {
        None => String::new(),
        Some((run_id, job)) => format!("{}/actions/runs/{run_id}/job/{job}", run.repository.html_url),
    }
}

/// Shows nothing of the context, which may contain a token.
impl fmt::Debug for Renderer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renderer").field("name", &self.name).finish_non_exhaustive()
    }
}

fn environment() -> Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    environment.set_syntax(syntax);
    // As in Jinja2: an undefined name is empty, an attribute of it is an error (contract nomadtools.md).
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    // The long form of its errors prints variables, possibly a token.
    environment.set_debug(false);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(RECURSION_MAX);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    minijinja_contrib::add_to_environment(&mut environment);
    filters::add_to(&mut environment);
    Ok(environment)
}

/// Whether the template can put the credentials into the job.
fn reads_credentials(template: &Template) -> bool {
    template.reads("RUN.CREDENTIALS") || template.reads("RUN.CREDENTIALS_JSON")
}

/// Whether a line that Jinja cannot parse, or the one before it, is consul-template's.
fn has_braces_of_consul_template(text: &str, line: Option<usize>) -> bool {
    const WORDS: [&str; 12] = [
        "with",
        "env",
        "key",
        "keyOrDefault",
        "range",
        "nomadVar",
        "secret",
        "service",
        "else",
        "end",
        "if",
        "define",
    ];
    let Some(line) = line else { return false };
    text.lines().skip(line.saturating_sub(2)).take(2).any(|line| {
        line.split("{{").skip(1).any(|inner| {
            let inner = inner.trim_start_matches('-').trim_start();
            let word: String = inner.chars().take_while(char::is_ascii_alphanumeric).collect();
            let after = &inner[word.len()..];
            let rest = after.trim_start();
            // `{{ key }}` is also valid in Jinja, `{{ key "x" }}` is not.
            inner.starts_with(['.', '$'])
                || WORDS.contains(&word.as_str())
                    && after.starts_with([' ', '"', '`'])
                    && rest.starts_with(|c: char| c.is_ascii_alphabetic() || "\"`.$".contains(c))
        })
    })
}

/// The reasons without the values.
fn template_error(name: &str, error: &minijinja::Error) -> TemplateError {
    let mut message = String::new();
    let mut next: Option<&dyn std::error::Error> = Some(error);
    let mut line = None;
    while let Some(current) = next {
        if !message.is_empty() {
            message.push_str(": ");
        }
        match current.downcast_ref::<minijinja::Error>() {
            Some(inner) => {
                line = inner.line().or(line);
                message.push_str(&inner.kind().to_string());
                if let Some(detail) = inner.detail() {
                    message.push_str(": ");
                    message.push_str(detail);
                }
            }
            None => message.push_str(&current.to_string()),
        }
        next = current.source();
    }
    TemplateError { name: name.to_owned(), line, message }
}
