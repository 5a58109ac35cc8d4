//! Builds a [`Config`] from the YAML tree.

use std::{collections::BTreeMap, fs::File, io::Read, path::Path, time::Duration};

use serde_json::{Map, Value, json};

use super::{
    Config, ConfigError, ConfigErrors, DEFAULT_TEMPLATE, Environment, GitHubConfig, JOBPREFIX_MAX,
    NomadConfig, RegistrationSetting, RepoEntry, RunnerLevel, Scheduler, Template, classes, github,
    reader::{Problems, Section, Shape},
    rerun,
    rules::{free, label_rules, repo_entry},
    status, template, warm, webhook,
    yaml::{self, Data, Node},
};
use crate::{
    config::{RerunLost, WarmEntry, WebhookConfig},
    labels::{LabelRules, harmless},
    model::Registration,
};

/// nomadtools' `runson_match`.
const DEFAULT_MATCH: &str = "nomadtools *(.*)";

/// How many requests and actions run concurrently. With 8, Nomad is four times faster than with one (contract
/// nomad.md §11), and far from its limit of 100 connections.
const DEFAULT_PARALLEL: usize = 8;

/// More would come close to the limits of Nomad (100 connections) and GitHub (100 concurrent requests).
const PARALLEL_MAX: usize = 64;

/// A shorter `loop` only wastes CPU time.
const LOOP_MIN: f64 = 0.1;

/// A longer `loop` is probably a mistake: a day.
const LOOP_MAX: f64 = 86_400.0;

/// More than the YAML parser accepts.
const BYTES_MAX: u64 = 8 << 20;

pub(super) fn load(source: &str, env: Environment) -> Result<Config, ConfigErrors> {
    let (name, text, directory) = if source.contains('\n') {
        ("configuration".to_owned(), source.to_owned(), None)
    } else {
        let text = read(source)?;
        (source.to_owned(), text, Path::new(source).parent().map(Path::to_owned))
    };
    let fail = |errors| Err(ConfigErrors { source: name.clone(), errors });
    let (root, errors) = yaml::parse(&text);
    let Some(root) = root else { return fail(errors) };
    let problems = Problems::new(errors);
    let file = Path::new(source).file_name().and_then(|name| name.to_str()).filter(|_| directory.is_some());
    let config = build(&root, &problems, env, &harmless(file.unwrap_or_default()), directory.as_deref());
    match (problems.into_sorted(), config) {
        (errors, Some(config)) if errors.is_empty() => Ok(config),
        (errors, _) => fail(errors),
    }
}

fn read(path: &str) -> Result<String, ConfigErrors> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(BYTES_MAX).read_to_string(&mut text));
    match read {
        Ok(_) => Ok(text),
        Err(error) => Err(ConfigErrors {
            source: harmless(path),
            errors: vec![ConfigError {
                key: String::new(),
                place: None,
                message: format!("cannot be read: {error}"),
                help: "-c takes the path of a YAML file, or the YAML itself if it contains a newline"
                    .to_owned(),
            }],
        }),
    }
}

/// The type of each key of a configuration, by its path. Every key is read once, and the reader that it uses
/// determines its type.
pub(super) fn shapes(probe: &str) -> BTreeMap<String, Shape> {
    let (root, errors) = yaml::parse(probe);
    let problems = Problems::new(errors);
    if let Some(root) = root {
        let _ = build(&root, &problems, &|_| None, "", None);
    }
    problems.shapes()
}

/// The whole configuration, or `None` if a part is missing; there is a problem for it then.
fn build(
    root: &Node,
    problems: &Problems,
    env: Environment,
    source: &str,
    directory: Option<&Path>,
) -> Option<Config> {
    let top = Section::new(problems, "", Some(root), (1, 1));
    let nomad = nomad(&top);
    let github = github::parse(&top, problems, env);
    let repos = repos(&top, problems);
    let loop_interval = loop_interval(&top);
    let parallel = parallel(&top);
    let source = if source.is_empty() { "the configuration" } else { source };
    let template = template(&top, source, directory);
    let labels = labels(&top, problems, template.as_ref());
    let (settings, scheduler, ha) = (settings(&top), scheduler(&top), ha(&top));
    let has_access_token = has_access_token(&settings, github.as_ref());
    let over = classes::Top {
        labels: labels.as_ref(),
        template: template.as_ref(),
        scope: github.as_ref().map_or(RunnerLevel::Repository, |github| github.scope),
        registration: github.as_ref().map_or(RegistrationSetting::Auto, |github| github.registration),
        has_access_token,
        namespace: &nomad.namespace,
        source,
        directory,
        repos: &repos,
    };
    let (classes, classes_only) = classes::parse(&top, problems, &over);
    let public = top.choice("public", &classes::PUBLIC, false);
    let warm = warm(&top, problems, &over, classes_only);
    let rerun_lost = rerun::parse(&top);
    let status = status::parse(&top, env);
    let webhook = webhook::parse(&top, env, github.as_ref(), &repos);
    top.finish();
    let (github, labels, template) = (github?, labels?, template?);

    let place = root.key_place(&["github", "registration"]);
    let not_possible = |(message, help)| problems.add("github.registration", place, message, help);
    let registration = template::registration(github.registration, &template, has_access_token);
    let registration = registration.map_err(not_possible).ok()?;
    let mut warnings = warnings(&github, registration, &template, has_access_token);
    warnings.extend(github::token_of_another_host(&github, env));
    warnings.extend([status.warnings(), classes::shadowed(&classes)].concat());
    warnings.extend(without_effect_or_unsafe(rerun_lost, registration, &labels, &webhook));
    Some(Config {
        nomad,
        github,
        repos,
        labels,
        loop_interval,
        template,
        settings,
        scheduler,
        classes,
        classes_only,
        public,
        warm,
        rerun_lost,
        status,
        webhook,
        ha,
        parallel,
        registration,
        warnings,
    })
}

/// The warm runners of the top level.
fn warm(top: &Section, problems: &Problems, over: &classes::Top, classes_only: bool) -> Vec<WarmEntry> {
    let classes::Top { labels, scope, repos, .. } = *over;
    warm::parse(
        top,
        problems,
        &warm::Around { class: None, pattern: None, labels, scope, repos, classes_only },
    )
}

/// Whether jobs contain a long-lived token.
fn has_access_token(settings: &Map<String, Value>, github: Option<&GitHubConfig>) -> bool {
    let in_settings = settings.get("access_token").and_then(Value::as_str);
    in_settings.is_some_and(|text| !text.is_empty())
        || github.is_some_and(|github| github.access_token.is_some())
}

/// The number of concurrent actions.
fn parallel(top: &Section) -> usize {
    match top.count("parallel") {
        Some(0) => {
            top.problem("parallel", "nothing could run", "write 1 or more");
            DEFAULT_PARALLEL
        }
        Some(number) => number.min(PARALLEL_MAX),
        None => DEFAULT_PARALLEL,
    }
}

fn template(top: &Section, source: &str, directory: Option<&Path>) -> Option<Template> {
    match Template::find(top.text("template").unwrap_or(DEFAULT_TEMPLATE), directory) {
        Ok(template) => Some(template.placed(source, top.place("template").0)),
        Err((message, help)) => {
            top.problem("template", message, help);
            None
        }
    }
}

fn ha(top: &Section) -> bool {
    let section = top.section("ha");
    let enabled = section.boolean("enabled", false);
    section.finish();
    enabled
}

/// Warnings about settings that have no effect, take long, or can be guessed.
fn without_effect_or_unsafe(
    rerun_lost: Option<RerunLost>,
    registration: Registration,
    labels: &LabelRules,
    webhook: &WebhookConfig,
) -> Vec<String> {
    let mut warnings = Vec::new();
    if rerun_lost.is_some() && registration != Registration::Jit {
        warnings.push(format!(
            "rerun_lost runs only jobs of just-in-time runners again, and runners register by {registration} (github.registration)"
        ));
    }
    if labels.may_give_up() {
        warnings.push(
            "runson_match has look-around or back-references, so labels that take too many steps are held; an expression without \
             (?=, (?!, (?<, back-references and possessive or atomic groups takes no longer than a label is long"
                .to_owned(),
        );
    }
    if webhook.secret.as_ref().is_some_and(|secret| secret.expose().len() < webhook::SHORT_SECRET) {
        warnings.push(format!(
            "webhook.secret is shorter than {} characters and can be guessed: use a long random one, here and in the webhook's \
             settings at GitHub",
            webhook::SHORT_SECRET
        ));
    }
    warnings
}

fn nomad(top: &Section) -> NomadConfig {
    let section = top.section("nomad");
    // Each with its allowed characters: for GitHub's runner names, and a Meta key used in filter expressions.
    let word = |key, default: &str, more: &str, max: usize| {
        let value = section.text(key).unwrap_or(default);
        let fits = |c: char| c.is_ascii_alphanumeric() || more.contains(c);
        if value.len() > max || !value.chars().all(fits) {
            let help = format!(
                "write 1 to {max} of a-z, A-Z, 0-9 and {}",
                more.chars().map(String::from).collect::<Vec<_>>().join(" ")
            );
            section.problem(key, format!("\"{}\" is not valid", harmless(value)), help);
        }
        value.to_owned()
    };
    let nomad = NomadConfig {
        namespace: classes::namespace_word(&section, section.text("namespace").unwrap_or("github")),
        jobprefix: word("jobprefix", "NTGithubRunner", "_-", JOBPREFIX_MAX),
        meta: word("meta", "NOMADTOOLS", "_.-", 128),
    };
    section.finish();
    nomad
}

fn repos(top: &Section, problems: &Problems) -> Vec<RepoEntry> {
    top.shape("repos", Shape::TextOrTexts);
    let mut repos = Vec::new();
    let help = "list them: `repos: [owner/name, organization]`, or \"*\" for everything the token can access";
    let one;
    let items: &[_] = match top.get("repos").map(|node| (&node.data, node)) {
        Some((Data::List(items), _)) => items,
        Some((Data::Text(text), node)) => {
            one = [std::rc::Rc::new(Node::text(text, node.place))];
            &one
        }
        Some((_, node)) => {
            top.problem("repos", format!("expected a list, found {}", node.kind()), help);
            return repos;
        }
        None => &[],
    };
    if items.is_empty() {
        top.problem("repos", "the list is empty", help);
    }
    for item in items {
        let entry = match &item.data {
            Data::Text(text) => repo_entry(text),
            _ => None,
        };
        match entry {
            Some(entry) if !repos.contains(&entry) => repos.push(entry),
            Some(_) => {}
            None => {
                let shown = match &item.data {
                    Data::Text(text) => format!("\"{}\" is not a repository", harmless(text)),
                    _ => format!("expected text, found {}", item.kind()),
                };
                problems.add(
                    "repos",
                    item.place,
                    shown,
                    "write owner/name, a user or an organization, or \"*\"",
                );
            }
        }
    }
    repos
}

fn labels(top: &Section, problems: &Problems, template: Option<&Template>) -> Option<LabelRules> {
    let (rules, is_well) = match LabelRules::new(top.text("runson_match").unwrap_or(DEFAULT_MATCH)) {
        Ok(rules) => (Some(rules), true),
        Err(error) => {
            top.problem(
                "runson_match",
                format!("not a regular expression: {error}"),
                "use Python's syntax; it is matched at a label's start",
            );
            (LabelRules::new(DEFAULT_MATCH).ok(), false)
        }
    };
    label_rules(top, problems, rules?, template).filter(|_| is_well)
}

fn loop_interval(top: &Section) -> Duration {
    const DEFAULT: Duration = Duration::from_secs(60);
    top.shape("loop", Shape::Seconds);
    let seconds = match top.get("loop").map(|node| &node.data) {
        Some(Data::Int(seconds)) => *seconds as f64,
        Some(Data::Float(seconds)) => *seconds,
        _ => match top.time("loop", Some(DEFAULT)) {
            Some(time) => time.as_secs_f64(),
            None => return DEFAULT,
        },
    };
    if !(LOOP_MIN..=LOOP_MAX).contains(&seconds) {
        top.problem(
            "loop",
            format!("{seconds} seconds"),
            format!("write the longest time between two passes: {LOOP_MIN} to {LOOP_MAX} seconds"),
        );
        return DEFAULT;
    }
    Duration::from_secs_f64(seconds)
}

/// nomadtools' defaults, then the configuration's defaults, then its settings.
fn settings(top: &Section) -> Map<String, Value> {
    let mut settings = Map::new();
    let built_in = json!({
        "extra_config": "",
        "extra_group": "",
        "extra_task": "",
        "extra_job": "",
        "docker": "none",
        "ephemeral": true,
        "run_as_root": false,
        "cache": "",
        "entrypoint": "",
    });
    if let Value::Object(built_in) = built_in {
        settings.extend(built_in);
    }
    free(top, "template_default_settings", &mut settings);
    free(top, "template_settings", &mut settings);
    settings
}

fn scheduler(top: &Section) -> Scheduler {
    const MINUTE: Duration = Duration::from_secs(60);
    const WEEK: Duration = Duration::from_secs(7 * 86_400);
    let section = top.section("scheduler");
    let cap = |key| section.count(key).filter(|count| *count > 0);
    let limit = |key, minutes| {
        let default = MINUTE * minutes;
        let limit = section.time(key, Some(default)).filter(|limit| !limit.is_zero());
        limit.unwrap_or_else(|| {
            section.problem(
                key,
                "it cannot be off, or the runner would never yield to others".to_owned(),
                "write a time like 5m",
            );
            default
        })
    };
    let scheduler = Scheduler {
        runner_inactivity_timeout: section.time("runner_inactivity_timeout", None),
        purge_successfull_timeout: section.time("purge_successfull_timeout", Some(10 * MINUTE)),
        purge_failure_timeout: section.time("purge_failure_timeout", Some(WEEK)),
        max_runners: cap("max_runners"),
        max_runners_per_repository: cap("max_runners_per_repository"),
        max_runners_per_group: cap("max_runners_per_group"),
        pending_to_kill_listening: section.time("pending_to_kill_listening", Some(MINUTE)),
        waiting_timeout: limit("waiting_timeout", 5),
        starting_timeout: limit("starting_timeout", 20),
        connect_timeout: limit("connect_timeout", 5),
        unassigned_timeout: limit("unassigned_timeout", 5),
        max_run_duration: classes::max_run_duration(&section),
        strict: section.boolean("strict", false),
    };
    section.finish();
    scheduler
}

fn warnings(
    github: &GitHubConfig,
    registration: Registration,
    template: &Template,
    has_access_token: bool,
) -> Vec<String> {
    let mut warnings = Vec::new();
    if registration == Registration::AccessToken && template.reads_a_token() {
        let what_to_do = if template.name.starts_with("builtin:") {
            "remove github.access_token, template_settings.access_token and github.registration: runners then get \
             something that is good for nothing else"
        } else {
            "put {{ RUN.CREDENTIALS }} into its task instead and remove every access_token and github.token from it, \
             or take one of the templates that come with githubrunner"
        };
        warnings.push(format!(
            "{} puts a long-lived token into the runners' jobs, where everyone who may read jobs can see it \
             and so can the workflows' code: {what_to_do}",
            template.called()
        ));
        if !has_access_token && github.token.is_none() {
            warnings.push(
                "runners should register with an access token, but there is none: set github.access_token, or \
                 github.token, or another github.registration"
                    .to_owned(),
            );
        }
        if !github.credentials.is_empty() {
            warnings.push(
                "runners of all owners register with the same access token, even if github.tokens or github.apps has \
                 other credentials for an owner: set github.registration to jit or token"
                    .to_owned(),
            );
        }
    } else if registration != Registration::AccessToken && has_access_token {
        warnings.push(format!(
            "an access_token is configured but not used: runners register by {registration} (github.registration)"
        ));
    }
    warnings
}
