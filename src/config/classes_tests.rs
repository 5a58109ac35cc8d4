//! Classes as people write them, correct and incorrect.

use super::*;
use crate::{config::Format, model::RepositoryId};

fn load(yaml: &str) -> Result<Config, String> {
    Config::load(&format!("repos: [acme]\n{yaml}\n"), &|_| None).map_err(|errors| errors.to_string())
}

fn well(yaml: &str) -> Config {
    load(yaml).unwrap_or_else(|errors| panic!("{yaml}: {errors}"))
}

fn repository(full: &str, visibility: Visibility) -> Repository {
    let (owner, name) = full.split_once('/').unwrap();
    Repository {
        id: RepositoryId(1),
        owner: owner.to_owned(),
        name: name.to_owned(),
        html_url: format!("https://github.com/{full}"),
        archived: false,
        disabled: false,
        visibility,
    }
}

const GPU: &str = "
scheduler: {max_runners: 10, waiting_timeout: 7m}
runson_limits: {cpu: 4000, mem: 8000}
template: builtin:docker
template_settings: {image: one, mounts: two}
classes:
  - name: gpu
    match: {labels: 'nomadtools.*\\bgpu\\b', repos: [acme/ml-*], visibility: [private, internal]}
    template: builtin:raw_exec
    template_settings: {image: three}
    runson_limits: {mem: 64000}
    nomad: {datacenters: [dc1], node_pool: gpu, priority: 70}
    max_runners: 4
    max_runners_per_repository: 2
    runner_inactivity_timeout: 10m
    starting_timeout: 15m
    github: {scope: organization, runner_group: gpu}
  - name: rest
";

#[test]
fn a_class_is_merged_over_the_top_level() {
    let config = well(GPU);
    let class = config.class("gpu").unwrap();
    let gpu = config.of_class(class);
    assert_eq!(gpu.template.name, "builtin:raw_exec");
    assert_eq!((&gpu.settings["image"], &gpu.settings["mounts"]), (&json!("three"), &json!("two")));
    assert_eq!(gpu.labels.limits(), &[("cpu".to_owned(), 4000), ("mem".to_owned(), 64_000)].into());
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    assert_eq!(gpu.scheduler.max_runners, Some(4));
    assert_eq!(gpu.scheduler.waiting_timeout, minutes(7));
    assert_eq!(gpu.scheduler.starting_timeout, minutes(15));
    assert_eq!(gpu.scheduler.runner_inactivity_timeout, Some(minutes(10)));
    assert_eq!(gpu.github.runner_group.as_deref(), Some("gpu"));
    assert_eq!((gpu.github.scope, config.github.scope), (RunnerLevel::Organization, RunnerLevel::Repository));
    assert_eq!(class.nomad.node_pool.as_deref(), Some("gpu"));
    let rest = config.of_class(config.class("rest").unwrap());
    assert_eq!(rest.settings["image"], "one");
    assert_eq!(rest.labels.limits(), config.labels.limits());
    assert_eq!(rest.registration(), config.registration());
}

#[test]
fn a_class_matches_labels_repositories_and_visibilities() {
    let config = well(GPU);
    let gpu = &config.class("gpu").unwrap().matches;
    let inside = repository("Acme/ML-vision", Visibility::Private);
    assert!(gpu.covers(&inside, &["self-hosted", "nomadtools GPU"]));
    assert!(!gpu.covers(&inside, &["nomadtools"]));
    assert!(!gpu.covers(&repository("acme/web", Visibility::Private), &["nomadtools gpu"]));
    assert!(!gpu.covers(&repository("acme/ml-vision", Visibility::Public), &["nomadtools gpu"]));
    assert!(config.class("rest").unwrap().matches.covers(&inside, &["anything"]));
    let glob = |text, name| RepoGlob::new(text).unwrap().covers(name);
    assert!(
        glob("*/a?", "x/ab")
            && !glob("*/a?", "x/a")
            && !glob("acme/*", "acme.x/y")
            && !glob("a.b/*", "axb/y")
    );
}

#[test]
fn problems_name_the_class_and_what_to_do() {
    for (yaml, expected) in [
        ("classes: {a: 1}", "classes: expected a list, found a mapping"),
        ("classes: [{match: {}}]", "a class needs a name"),
        ("classes: [{name: 'a b'}]", "\"a b\" is not a valid name; write 1 to 32"),
        ("classes: [{name: a}, {name: a}]", "classes.a: duplicate class name"),
        (
            "classes: [{name: a, max_runer: 2}]",
            "classes.a.max_runer: unknown key; did you mean \"max_runners\"?",
        ),
        (
            "classes: [{name: a, match: {repos: [acme]}}]",
            "classes.a.match.repos: \"acme\" is not a pattern of owner/name",
        ),
        ("classes: [{name: a, match: {repos: ['a/[b]']}}]", "is not a pattern of owner/name"),
        (
            "classes: [{name: a, match: {visibility: [secret]}}]",
            "\"secret\" is not a valid value; write public",
        ),
        ("classes: [{name: a, match: {labels: '('}}]", "classes.a.match.labels: not a regular expression"),
        ("classes: [{name: a, match: {labels: 'a(?!b)'}}]", "look-around"),
        (
            "classes: [{name: a, nomad: {namespace: '*'}}]",
            "classes.a.nomad.namespace: \"*\" is not valid; jobs run",
        ),
        ("classes: [{name: a, nomad: {namespace: a_b}}]", "write 1 to 128 of"),
        (
            "classes: [{name: a, nomad: {region: 'a b'}}]",
            "classes.a.nomad.region: \"a b\" is not a valid name",
        ),
        ("classes: [{name: a, nomad: {priority: 101}}]", "classes.a.nomad.priority: 101"),
        ("classes: [{name: a, github: {runner_group: x}}]", "only organizations have runner groups"),
        (
            "classes: [{name: a, github: {registration: jit}, template: builtin:myoung34}]",
            "cannot register runners by jit",
        ),
        (
            "classes: [{name: a, template: builtin:none}]",
            "classes.a.template: template \"builtin:none\" does not exist",
        ),
        ("classes: [{name: a, starting_timeout: 0}]", "classes.a.starting_timeout: it cannot be off"),
        ("classes: [{name: a, deny: no, max_runners: 2}]", "classes.a.deny: expected text"),
        ("classes: [{name: a, deny: 'ask', max_runners: 2}]", "so max_runners has no effect"),
        ("classes_only: true", "there are no classes"),
    ] {
        let errors = load(yaml).map(|_| ()).unwrap_err();
        assert!(errors.contains(expected), "{yaml}: {errors}");
    }
    let many: Vec<String> = (0..21).map(|n| format!("{{name: c{n}, nomad: {{namespace: n{n}}}}}")).collect();
    let errors = load(&format!("classes: [{}]", many.join(", "))).map(|_| ()).unwrap_err();
    assert!(errors.contains("they name 21 Nomad namespaces"), "{errors}");
}

#[test]
fn a_class_has_its_own_namespace_and_region() {
    let yaml = "nomad: {namespace: ci}
classes:
- {name: a, nomad: {namespace: gpu}}
- {name: b, nomad: {namespace: gpu}}
- {name: c, nomad: {namespace: ci}}
- {name: d, nomad: {region: eu}}
- {name: e}";
    let config = well(yaml);
    let namespace = |name: &str, region: Option<&str>| Namespace {
        name: name.to_owned(),
        region: region.map(str::to_owned),
    };
    let of = |config: &Config, name: &str| config.class(name).unwrap().nomad.namespace.clone();
    assert_eq!(of(&config, "a"), Some(namespace("gpu", None)));
    assert_eq!(of(&config, "c"), None, "it is the top level's");
    assert_eq!(of(&config, "d"), Some(namespace("ci", Some("eu"))));
    assert_eq!(config.elsewhere(), [namespace("ci", Some("eu")), namespace("gpu", None)]);
    assert_eq!(config.of_class(config.class("a").unwrap()).nomad.namespace, "gpu");
    let shown = config.effective(Format::Yaml);
    assert!(shown.contains("namespace: gpu") && shown.contains("region: eu"), "{shown}");
    // The environment names the daemon's own region.
    assert!(config.clone().in_region(None).unwrap_err().contains("classes.d.nomad.region"));
    assert_eq!(config.clone().in_region(Some("us")).unwrap().elsewhere(), config.elsewhere());
    assert_eq!(of(&config.in_region(Some("eu")).unwrap(), "d"), None);
}

#[test]
fn a_class_that_can_never_match_is_a_warning() {
    for (first, second, is_shadowed) in [
        ("{}", "{labels: x}", true),
        ("{labels: x}", "{}", false),
        ("{labels: x}", "{labels: x, repos: [a/b]}", true),
        ("{labels: x, repos: [a/b, a/c]}", "{labels: x, repos: [A/b]}", true),
        ("{repos: ['*/*']}", "{repos: [a/b]}", true),
        ("{repos: [a/b]}", "{repos: [a/b, a/c]}", false),
        ("{visibility: [private]}", "{visibility: [private, internal]}", false),
        ("{visibility: [private, internal]}", "{visibility: [private]}", true),
    ] {
        let yaml = format!("classes: [{{name: one, match: {first}}}, {{name: two, match: {second}}}]");
        let warnings = well(&yaml).warnings().join("\n");
        assert_eq!(
            warnings.contains("class two never matches: class one comes first"),
            is_shadowed,
            "{yaml}"
        );
    }
}

#[test]
fn classes_are_printed_as_written_and_nothing_without_them() {
    let config = well(GPU);
    let again = Config::load(&config.effective(Format::Yaml), &|_| None).unwrap();
    assert_eq!(again.effective(Format::Yaml), config.effective(Format::Yaml));
    assert_eq!(
        again.of_class(&again.classes[0]).effective(Format::Yaml),
        config.of_class(&config.classes[0]).effective(Format::Yaml)
    );
    assert!(!well("").effective(Format::Json).contains("classes"));
}

#[test]
fn the_keys_of_a_class_replace_those_of_the_top_level() {
    let yaml = "repos: [acme]\ntemplate: builtin:docker\ngithub: {token: t}\nallow_keys: {image: [acme/*]}\n\
                deny_keys: {Docker: []}\nclasses:\n  - name: free\n    allow_keys: {image: [], mem: []}\n  - name: same\n  - name: open\n    allow_keys: {'*': []}\n    deny_keys: {}\n";
    let config = Config::load(yaml, &|_| None).unwrap();
    let check = |class: Option<&str>, label: &str| {
        let class = class.map(|name| config.of_class(config.class(name).unwrap()));
        class.as_ref().unwrap_or(&config).labels.check(&[label]).is_ok()
    };
    for (class, label, is_well) in [
        (None, "nomadtools image=acme/x", true),
        (None, "nomadtools image=x", false),
        (None, "nomadtools mem=1", false),
        (Some("same"), "nomadtools image=x", false),
        (Some("free"), "nomadtools image=x mem=1", true),
        (Some("free"), "nomadtools cpu=1", false),
        (Some("free"), "nomadtools docker", false),
        (Some("open"), "nomadtools docker=host cpu=1", true),
    ] {
        assert_eq!(check(class, label), is_well, "{class:?} {label}");
    }
    // The output of dumpconfig is read back as the same configuration.
    let printed = config.effective(Format::Yaml);
    assert!(
        printed.contains("allow_keys:\n  image:\n  - acme/*\n") && printed.contains("docker: []"),
        "{printed}"
    );
    let again = Config::load(&printed.replace("'***'", "t"), &|_| None).unwrap();
    assert_eq!(again.effective(Format::Yaml), printed);
    for (wrong, says) in [
        ("image: acme", "expected a list"),
        ("image: [1]", "expected text"),
        ("image: ['']", "not a valid pattern"),
    ] {
        let yaml = format!(
            "repos: [acme]\ntemplate: builtin:docker\ngithub: {{token: t}}\nallow_keys: {{{wrong}}}\n"
        );
        let error = Config::load(&yaml, &|_| None).unwrap_err().to_string();
        assert!(error.contains("allow_keys.image") && error.contains(says), "{wrong}: {error}");
    }
}
