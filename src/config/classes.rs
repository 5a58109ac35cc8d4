//! `classes`: kinds of runners. The first class that matches a job determines its runner. The top level provides what a
//! class does not set.

use std::{collections::BTreeSet, path::Path, time::Duration};

use fancy_regex::Regex;
use serde_json::{Map, Value, json};

use super::{
    Config, RegistrationSetting, RepoEntry, RunnerLevel, Scheduler, Template, Tokens, WarmEntry, duration,
    github::{REGISTRATIONS, SCOPES},
    reader::{Problems, Section, Shape},
    rules::{free, keys_tree, label_rules},
    template, warm,
    yaml::{Data, Node},
};
use crate::{
    labels::{LabelPattern, LabelRules, harmless},
    model::{Namespace, Registration, Repository, Visibility, is_class},
};

/// More classes are probably a mistake, and each job is matched against all of them.
const CLASSES_MAX: usize = 100;

/// The longest reason of `deny`, in characters.
const DENY_MAX: usize = 200;

/// The longest name of a namespace, Nomad's own limit.
const NAMESPACE_MAX: usize = 128;

/// The most namespaces besides the daemon's own. Each is listed in every pass, and has its own event stream.
const NAMESPACES_MAX: usize = 20;

/// Nomad's own limits for `priority` (contract nomad.md §2).
const PRIORITIES: std::ops::RangeInclusive<usize> = 1..=100;

/// A kind of runner. `None`: the top level's value.
#[derive(Clone, Debug, Default)]
pub struct Class {
    /// `name`: 1 to 32 of a-z, A-Z, 0-9, _ and -.
    pub name: String,
    /// `match`
    pub matches: ClassMatch,
    /// `deny`: matching jobs are held, with this reason.
    pub deny: Option<String>,
    /// `public: allow`; `None`: the top level's value.
    pub public: Option<bool>,
    /// `template`
    pub template: Option<Template>,
    /// `template_settings`, merged over the top level's.
    pub settings: Map<String, Value>,
    /// `runson_allowed`, `runson_max_length`, `runson_limits`, `runson_numbers`, `allow_keys` and `deny_keys`, merged
    /// over the top level's.
    pub labels: Option<LabelRules>,
    /// `nomad`
    pub nomad: ClassNomad,
    /// `max_runners`: the maximum number of runners of this class; `None`: no limit of its own.
    pub max_runners: Option<usize>,
    /// `max_runners_per_repository`: the maximum of this class for one repository; `None`: no limit of its own.
    pub max_runners_per_repository: Option<usize>,
    /// `max_runners_per_group`; `Some(None)`: no limit.
    pub max_runners_per_group: Option<Option<usize>>,
    /// `runner_inactivity_timeout`; `Some(None)`: never.
    pub runner_inactivity_timeout: Option<Option<Duration>>,
    /// `strict`
    pub strict: Option<bool>,
    /// `waiting_timeout`
    pub waiting_timeout: Option<Duration>,
    /// `starting_timeout`
    pub starting_timeout: Option<Duration>,
    /// `connect_timeout`
    pub connect_timeout: Option<Duration>,
    /// `unassigned_timeout`
    pub unassigned_timeout: Option<Duration>,
    /// `max_run_duration`; `Some(None)`: no limit.
    pub max_run_duration: Option<Option<Duration>>,
    /// `github.scope`
    pub scope: Option<RunnerLevel>,
    /// `github.runner_group`
    pub runner_group: Option<String>,
    /// `github.registration`, as written.
    pub registration_setting: Option<RegistrationSetting>,
    /// The resolved kind of credentials; `None`: the top level's.
    pub registration: Option<Registration>,
    /// `warm`: its runners that are started before there are jobs for them.
    pub warm: Vec<WarmEntry>,
}

/// The jobs of a class.
#[derive(Clone, Debug, Default)]
pub struct ClassMatch {
    /// `labels`: matches one of the labels at its start; `None`: any labels.
    pub labels: Option<LabelPattern>,
    /// `repos`: one of them covers the repository; empty: all repositories.
    pub repos: Vec<RepoGlob>,
    /// `visibility`: one of them is the repository's; empty: any.
    pub visibility: BTreeSet<Visibility>,
}

/// Settings of a class that override a runner's job template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassNomad {
    /// `namespace` and `region`; `None`: the top level's.
    pub namespace: Option<Namespace>,
    /// `datacenters`; empty: the template's.
    pub datacenters: Vec<String>,
    /// `node_pool`
    pub node_pool: Option<String>,
    /// `priority`
    pub priority: Option<usize>,
}

/// A pattern of `owner/name`: `*` is any text without a slash, `?` one character. Case-insensitive.
#[derive(Clone, Debug)]
pub struct RepoGlob {
    text: String,
    regex: Regex,
}

impl RepoGlob {
    /// Parses a pattern; `None` if it is not one of `owner/name`.
    pub fn new(text: &str) -> Option<Self> {
        let (owner, name) = text.split_once('/')?;
        let fits = |part: &str| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.*?".contains(c))
        };
        if text.len() > 200 || !fits(owner) || !fits(name) {
            return None;
        }
        let pattern = text.replace('.', r"\.").replace('*', "[^/]*").replace('?', "[^/]");
        let regex = Regex::new(&format!("(?i)^{pattern}$")).ok()?;
        Some(RepoGlob { text: text.to_owned(), regex })
    }

    fn covers(&self, repository: &str) -> bool {
        self.regex.is_match(repository).unwrap_or(false)
    }
}

impl ClassMatch {
    /// Whether a job with these labels in this repository belongs to the class.
    pub fn covers<S: AsRef<str>>(&self, repository: &Repository, labels: &[S]) -> bool {
        self.may_cover(repository) && self.labels.as_ref().is_none_or(|pattern| pattern.matches(labels))
    }

    /// Whether a job in this repository can have the class.
    pub fn may_cover(&self, repository: &Repository) -> bool {
        let name = repository.full_name();
        (self.visibility.is_empty() || self.visibility.contains(&repository.visibility))
            && (self.repos.is_empty() || self.repos.iter().any(|glob| glob.covers(&name)))
    }

    /// Whether it covers everything that another covers, as far as the patterns show.
    fn covers_all_of(&self, other: &ClassMatch) -> bool {
        let same = |a: &RepoGlob, b: &RepoGlob| a.text.eq_ignore_ascii_case(&b.text) || a.text == "*/*";
        let labels = match (&self.labels, &other.labels) {
            (None, _) => true,
            (Some(own), Some(other)) => own.text() == other.text(),
            (Some(_), None) => false,
        };
        let in_own = |glob: &RepoGlob| self.repos.iter().any(|own| same(own, glob));
        let repos = self.repos.is_empty()
            || !other.repos.is_empty() && other.repos.iter().all(in_own)
            || self.repos.iter().any(|own| own.text == "*/*");
        let visibility = self.visibility.is_empty()
            || !other.visibility.is_empty() && other.visibility.is_subset(&self.visibility);
        labels && repos && visibility
    }
}

/// The namespaces of these classes other than the daemon's own, each once.
fn namespaces(classes: &[Class]) -> BTreeSet<&Namespace> {
    classes.iter().filter_map(|class| class.nomad.namespace.as_ref()).collect()
}

impl Config {
    /// The namespaces of classes other than the daemon's own, each once.
    pub fn elsewhere(&self) -> Vec<Namespace> {
        namespaces(&self.classes).into_iter().cloned().collect()
    }

    /// The same with the name of the daemon's own region, which the environment provides.
    ///
    /// # Errors
    /// A class names a region, and the own one has no name. It could be the same one.
    pub fn in_region(mut self, own: Option<&str>) -> Result<Self, String> {
        for class in &mut self.classes {
            let Some(namespace) = &mut class.nomad.namespace else { continue };
            let Some(region) = &namespace.region else { continue };
            let Some(own) = own else {
                return Err(format!(
                    "classes.{}.nomad.region: the name of the daemon's own region is unknown; set NOMAD_REGION",
                    class.name
                ));
            };
            if region == own {
                namespace.region = None;
                if namespace.name == self.nomad.namespace {
                    class.nomad.namespace = None;
                }
            }
        }
        Ok(self)
    }

    /// The class with this name.
    pub fn class(&self, name: &str) -> Option<&Class> {
        self.classes.iter().find(|class| class.name == name)
    }

    /// The effective configuration of a class: its values merged over the top level's. It has no classes
    /// itself.
    pub fn of_class(&self, class: &Class) -> Config {
        let mut config =
            Config { classes: Vec::new(), classes_only: false, warm: class.warm.clone(), ..self.clone() };
        config.public = class.public.unwrap_or(self.public);
        if let Some(namespace) = &class.nomad.namespace {
            config.nomad.namespace.clone_from(&namespace.name);
        }
        if let Some(template) = &class.template {
            config.template = template.clone();
        }
        config.settings.extend(class.settings.clone());
        if let Some(labels) = &class.labels {
            config.labels = labels.clone();
        }
        if let Some(scope) = class.scope {
            config.github.scope = scope;
        }
        if let Some(group) = &class.runner_group {
            config.github.runner_group = Some(group.clone());
        } else if config.github.scope == RunnerLevel::Repository {
            config.github.runner_group = None;
        }
        if let Some(setting) = class.registration_setting {
            config.github.registration = setting;
        }
        config.registration = class.registration.unwrap_or(self.registration);
        let Scheduler {
            max_runners,
            max_runners_per_repository,
            max_runners_per_group,
            runner_inactivity_timeout,
            strict,
            waiting_timeout,
            starting_timeout,
            connect_timeout,
            unassigned_timeout,
            max_run_duration,
            purge_successfull_timeout: _,
            purge_failure_timeout: _,
            pending_to_kill_listening: _,
        } = &mut config.scheduler;
        *max_runners = class.max_runners.or(*max_runners);
        *max_runners_per_repository = class.max_runners_per_repository.or(*max_runners_per_repository);
        *max_runners_per_group = class.max_runners_per_group.unwrap_or(*max_runners_per_group);
        *runner_inactivity_timeout = class.runner_inactivity_timeout.unwrap_or(*runner_inactivity_timeout);
        *strict = class.strict.unwrap_or(*strict);
        *waiting_timeout = class.waiting_timeout.unwrap_or(*waiting_timeout);
        *starting_timeout = class.starting_timeout.unwrap_or(*starting_timeout);
        *connect_timeout = class.connect_timeout.unwrap_or(*connect_timeout);
        *unassigned_timeout = class.unassigned_timeout.unwrap_or(*unassigned_timeout);
        *max_run_duration = class.max_run_duration.unwrap_or(*max_run_duration);
        config
    }
}

/// The top-level values that classes build on.
pub(super) struct Top<'a> {
    pub(super) labels: Option<&'a LabelRules>,
    pub(super) template: Option<&'a Template>,
    pub(super) scope: RunnerLevel,
    pub(super) registration: RegistrationSetting,
    pub(super) has_access_token: bool,
    pub(super) namespace: &'a str,
    /// The file's name, for templates in it, and its directory.
    pub(super) source: &'a str,
    pub(super) directory: Option<&'a Path>,
    pub(super) repos: &'a [RepoEntry],
}

/// The values of `public`.
pub(super) const PUBLIC: [(&str, bool); 2] = [("allow", true), ("deny", false)];

/// The value for it.
pub(super) fn word_of_public(allowed: bool) -> &'static str {
    if allowed { "allow" } else { "deny" }
}

/// Reads `classes` and `classes_only`.
pub(super) fn parse(section: &Section, problems: &Problems, top: &Top) -> (Vec<Class>, bool) {
    section.shape("classes", Shape::Any);
    let only = section.boolean("classes_only", false);
    let items: &[_] = match section.get("classes").map(|node| (&node.data, node)) {
        Some((Data::List(items), _)) => items,
        Some((_, node)) => {
            let message = format!("expected a list, found {}", node.kind());
            section.problem("classes", message, "write `- name: …` and the settings of the class below it");
            &[]
        }
        None => &[],
    };
    let mut classes: Vec<Class> = Vec::new();
    for item in items {
        let Some(class) = class(item, problems, top) else { continue };
        if classes.iter().any(|other| other.name == class.name) {
            let key = format!("classes.{}", class.name);
            problems.add(&key, item.place, "duplicate class name", "give each class its own name");
            continue;
        }
        classes.push(class);
    }
    if classes.len() > CLASSES_MAX {
        section.problem(
            "classes",
            format!("{} classes", classes.len()),
            format!("write at most {CLASSES_MAX}"),
        );
        classes.truncate(CLASSES_MAX);
    }
    let others = namespaces(&classes).len();
    if others > NAMESPACES_MAX {
        let message = format!("they name {others} Nomad namespaces besides nomad.namespace");
        section.problem("classes", message, format!("use at most {NAMESPACES_MAX}, or several daemons"));
    }
    if only && classes.is_empty() && items.is_empty() {
        section.problem("classes_only", "there are no classes, so no job would get a runner", "add classes");
    }
    (classes, only)
}

/// The classes that no job ever belongs to, each with the earlier class that takes all its jobs.
pub(super) fn shadowed(classes: &[Class]) -> Vec<String> {
    let of = |(at, class): (usize, &Class)| {
        let earlier = classes[..at].iter().find(|earlier| earlier.matches.covers_all_of(&class.matches))?;
        Some(format!(
            "class {} never matches: class {} comes first and matches all its jobs; move it up, or change its match",
            class.name, earlier.name
        ))
    };
    classes.iter().enumerate().filter_map(of).collect()
}

fn class(node: &Node, problems: &Problems, top: &Top) -> Option<Class> {
    let name = text_of(node, "name").filter(|name| is_class(name));
    let path = format!("classes.{}", name.unwrap_or_default());
    let section = Section::new(problems, path.trim_end_matches('.'), Some(node), node.place);
    let name = valid_name(&section, name)?;
    let mut class = Class { name: name.to_owned(), matches: matches(&section), ..Class::default() };
    class.deny = section.text("deny").map(harmless);
    if let Some(deny) = class.deny.as_ref().filter(|deny| deny.chars().count() > DENY_MAX) {
        let message = format!("it has {} characters", deny.chars().count());
        section.problem("deny", message, format!("write at most {DENY_MAX}"));
    }
    let public = section.choice("public", &PUBLIC, false);
    class.public = section.get("public").map(|_| public);
    class.template = section.text("template").and_then(|text| match Template::find(text, top.directory) {
        Ok(template) => Some(template.placed(top.source, section.place("template").0)),
        Err((message, help)) => {
            section.problem("template", message, help);
            None
        }
    });
    free(&section, "template_settings", &mut class.settings);
    class.labels = own_label_rules(&section, problems, &class, top);
    class.nomad = nomad(&section, top);
    scheduling(&section, &mut class);
    github(&section, &mut class, top);
    let around = warm::Around {
        class: Some(name),
        pattern: class.matches.labels.as_ref(),
        labels: class.labels.as_ref().or(top.labels),
        scope: class.scope.unwrap_or(top.scope),
        repos: top.repos,
        classes_only: false,
    };
    class.warm = warm::parse(&section, problems, &around);
    if class.deny.is_some()
        && let Some(key) = section.others(&["name", "match", "deny"])
    {
        section.problem(
            "deny",
            format!("jobs of this class get no runner, so {key} has no effect"),
            "remove one of them",
        );
    }
    section.finish();
    Some(class)
}

/// The class's name, or a problem.
fn valid_name<'a>(section: &Section, name: Option<&'a str>) -> Option<&'a str> {
    let written = section.text("name");
    let valid = name.filter(|_| written.is_some());
    let help = "write 1 to 32 of a-z, A-Z, 0-9, _ and -";
    match written {
        _ if valid.is_some() => {}
        Some(name) => section.problem("name", format!("\"{}\" is not a valid name", harmless(name)), help),
        None if section.get("name").is_some() => {}
        None => section.problem("name", "a class needs a name", help),
    }
    valid
}

/// The top level's label rules with the class's own; `None` if it has none.
fn own_label_rules(section: &Section, problems: &Problems, class: &Class, top: &Top) -> Option<LabelRules> {
    let says_of_labels =
        ["runson_allowed", "runson_max_length", "runson_limits", "runson_numbers", "allow_keys", "deny_keys"]
            .map(|key| section.get(key).is_some())
            .contains(&true);
    let template = class.template.as_ref().or(top.template);
    // If the top level's rules are invalid, the class's are read anyway, to report their problems.
    let rules = top.labels.cloned().or_else(|| LabelRules::new("").ok());
    rules.and_then(|rules| label_rules(section, problems, rules, template)).filter(|_| says_of_labels)
}

/// The class's caps and times.
fn scheduling(section: &Section, class: &mut Class) {
    let cap = |key| section.count(key).filter(|count| *count > 0);
    class.max_runners = cap("max_runners");
    class.max_runners_per_repository = cap("max_runners_per_repository");
    class.max_runners_per_group =
        section.count("max_runners_per_group").map(|count| Some(count).filter(|count| *count > 0));
    let idle = section.time("runner_inactivity_timeout", None);
    class.runner_inactivity_timeout = section.has("runner_inactivity_timeout").then_some(idle);
    let strict = section.boolean("strict", false);
    class.strict = section.get("strict").map(|_| strict);
    let limit = |key| {
        let limit = section.time(key, None);
        if section.has(key) && limit.is_none_or(|limit| limit.is_zero()) {
            section.problem(
                key,
                "it cannot be off, or the runner would never yield to others",
                "write a time like 5m",
            );
        }
        limit
    };
    class.waiting_timeout = limit("waiting_timeout");
    class.starting_timeout = limit("starting_timeout");
    class.connect_timeout = limit("connect_timeout");
    class.unassigned_timeout = limit("unassigned_timeout");
    let longest = max_run_duration(section);
    class.max_run_duration = section.has("max_run_duration").then_some(longest);
}

/// The minimum `max_run_duration`. A shorter one is a mistake, because no job could finish.
const RUN_DURATION_MIN: Duration = Duration::from_secs(10);

/// Reads `max_run_duration`; `None`: no limit.
pub(super) fn max_run_duration(section: &Section) -> Option<Duration> {
    let limit = section.time("max_run_duration", None)?;
    if limit < RUN_DURATION_MIN {
        section.problem(
            "max_run_duration",
            format!("{} is too short", duration::format(Some(limit))),
            "write a time like 6h",
        );
    }
    Some(limit)
}

/// The text of a mapping's key.
fn text_of<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    let Data::Map(entries) = &node.data else { return None };
    match &entries.iter().find(|(other, _)| other.text == key)?.1.data {
        Data::Text(text) => Some(text),
        _ => None,
    }
}

fn matches(class: &Section) -> ClassMatch {
    let section = class.section("match");
    let labels = section.text("labels").and_then(|text| match LabelPattern::new(text) {
        Ok(pattern) => Some(pattern),
        Err(why) => {
            let help = "Python's syntax without look-around and back-references, matched at a label's start";
            section.problem("labels", why, help);
            None
        }
    });
    let mut repos = Vec::new();
    for text in section.texts("repos") {
        match RepoGlob::new(text) {
            Some(glob) => repos.push(glob),
            None => section.problem(
                "repos",
                format!("\"{}\" is not a pattern of owner/name", harmless(text)),
                "write one like acme/* or acme/ml-*",
            ),
        }
    }
    let mut visibility = BTreeSet::new();
    for text in section.texts("visibility") {
        match Visibility::parse(text) {
            Some(known) => drop(visibility.insert(known)),
            None => section.problem(
                "visibility",
                format!("\"{}\" is not a valid value", harmless(text)),
                "write public, private or internal",
            ),
        }
    }
    section.finish();
    ClassMatch { labels, repos, visibility }
}

/// Checks the name of a namespace.
pub(super) fn namespace_word(section: &Section, text: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if text.is_empty() || text.len() > NAMESPACE_MAX || !text.chars().all(fits) {
        let help = match text {
            "*" => "jobs run in a single namespace: write its name".to_owned(),
            _ => format!("write 1 to {NAMESPACE_MAX} of a-z, A-Z, 0-9 and -"),
        };
        section.problem("namespace", format!("\"{}\" is not valid", harmless(text)), help);
    }
    text.to_owned()
}

fn nomad(class: &Section, top: &Top) -> ClassNomad {
    let section = class.section("nomad");
    let word = |key, text: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.*".contains(c);
        if text.is_empty() || text.len() > 128 || !text.chars().all(fits) {
            section.problem(
                key,
                format!("\"{}\" is not a valid name", harmless(text)),
                "write the name as Nomad shows it",
            );
        }
        text.to_owned()
    };
    let namespace = section.text("namespace").map(|text| namespace_word(&section, text));
    let region = section.text("region").map(|text| word("region", text));
    let priority = section.count("priority");
    if let Some(priority) = priority.filter(|priority| !PRIORITIES.contains(priority)) {
        section.problem("priority", format!("{priority}"), "write 1 to 100, as in a Nomad job");
    }
    let namespace = Namespace { name: namespace.unwrap_or_else(|| top.namespace.to_owned()), region };
    let is_own = namespace.region.is_none() && namespace.name == top.namespace;
    let nomad = ClassNomad {
        namespace: (!is_own).then_some(namespace),
        datacenters: section.texts("datacenters").into_iter().map(|text| word("datacenters", text)).collect(),
        node_pool: section.text("node_pool").map(|text| word("node_pool", text)),
        priority,
    };
    section.finish();
    nomad
}

fn github(section: &Section, class: &mut Class, top: &Top) {
    let github = section.section("github");
    let scope = github.choice("scope", &SCOPES, top.scope);
    class.scope = github.get("scope").map(|_| scope);
    class.runner_group = github.text("runner_group").map(str::to_owned);
    if class.runner_group.is_some() && scope == RunnerLevel::Repository {
        github.problem(
            "runner_group",
            "only organizations have runner groups",
            "write scope: organization, or remove it",
        );
    }
    let setting = github.choice("registration", &REGISTRATIONS, top.registration);
    class.registration_setting = github.get("registration").map(|_| setting);
    let has_access_token = top.has_access_token
        || class.settings.get("access_token").and_then(Value::as_str).is_some_and(|text| !text.is_empty());
    if let Some(template) = class.template.as_ref().or(top.template) {
        match template::registration(setting, template, has_access_token) {
            Ok(registration) => class.registration = Some(registration),
            Err((message, help)) => github.problem("registration", message, help),
        }
    }
    github.finish();
}

/// How settings are shown.
type Shown = fn(&Map<String, Value>, Tokens) -> Map<String, Value>;

/// The classes in the format of the file, with only what they set themselves.
pub(super) fn tree(classes: &[Class], tokens: Tokens, shown: Shown) -> Value {
    classes.iter().map(|class| one(class, tokens, shown)).collect()
}

fn one(class: &Class, tokens: Tokens, shown: Shown) -> Value {
    let texts = |globs: &[RepoGlob]| globs.iter().map(|glob| glob.text.clone()).collect::<Vec<_>>();
    let words = |known: &BTreeSet<Visibility>| known.iter().map(|one| one.as_str()).collect::<Vec<_>>();
    let time = |time: Option<Duration>| time.map(|time| duration::format(Some(time)));
    let some = |list: Vec<String>| Some(list).filter(|list| !list.is_empty());
    let ClassMatch { labels, repos, visibility } = &class.matches;
    let labels_tree = class.labels.as_ref().map(|rules| {
        json!({
            "runson_allowed": rules.allowed(),
            "runson_max_length": rules.max_length(),
            "runson_limits": rules.limits(),
            "runson_numbers": rules.numbers(),
            "allow_keys": rules.allow_keys().map(keys_tree),
            "deny_keys": rules.deny_keys().map(keys_tree),
        })
    });
    let mut tree = json!({
        "name": class.name,
        "match": {
            "labels": labels.as_ref().map(LabelPattern::text),
            "repos": some(texts(repos)),
            "visibility": Some(words(visibility)).filter(|list| !list.is_empty()),
        },
        "deny": class.deny,
        "public": class.public.map(word_of_public),
        "template": class.template.as_ref().map(|template| template.shown(tokens)),
        "template_settings": Some(shown(&class.settings, tokens)).filter(|settings| !settings.is_empty()),
        "nomad": placement_tree(class),
        "max_runners": class.max_runners,
        "max_runners_per_repository": class.max_runners_per_repository,
        "max_runners_per_group": class.max_runners_per_group.map(|cap| cap.unwrap_or(0)),
        "runner_inactivity_timeout": class.runner_inactivity_timeout.map(duration::format),
        "strict": class.strict,
        "waiting_timeout": time(class.waiting_timeout),
        "starting_timeout": time(class.starting_timeout),
        "connect_timeout": time(class.connect_timeout),
        "unassigned_timeout": time(class.unassigned_timeout),
        "max_run_duration": class.max_run_duration.map(duration::format),
        "github": {
            "scope": class.scope.map(RunnerLevel::as_str),
            "runner_group": class.runner_group,
            "registration": class.registration_setting.map(RegistrationSetting::as_str),
        },
    });
    if let (Value::Object(tree), Some(Value::Object(labels))) = (&mut tree, labels_tree) {
        tree.extend(labels);
    }
    if !class.warm.is_empty() {
        tree["warm"] = warm::tree(&class.warm);
    }
    without_nothing(tree)
}

/// `nomad` of a class.
pub(super) fn placement_tree(class: &Class) -> Value {
    let datacenters = Some(&class.nomad.datacenters).filter(|list| !list.is_empty());
    let namespace = class.nomad.namespace.as_ref();
    json!({
        "namespace": namespace.map(|namespace| &namespace.name),
        "region": namespace.and_then(|namespace| namespace.region.as_ref()),
        "datacenters": datacenters,
        "node_pool": class.nomad.node_pool,
        "priority": class.nomad.priority,
    })
}

/// Without empty values.
fn without_nothing(value: Value) -> Value {
    let Value::Object(entries) = value else { return value };
    let entries = entries.into_iter().map(|(key, value)| {
        let inner = key == "match" || key == "nomad" || key == "github";
        (key, if inner { without_nothing(value) } else { value })
    });
    // For these two, an empty mapping has a meaning: no key.
    let says_nothing = |(key, value): &(String, Value)| {
        let may_be_empty = key == "allow_keys" || key == "deny_keys";
        value.is_null() || !may_be_empty && value.as_object().is_some_and(Map::is_empty)
    };
    Value::Object(entries.filter(|entry| !says_nothing(entry)).collect())
}

#[cfg(test)]
#[path = "classes_tests.rs"]
mod tests;
