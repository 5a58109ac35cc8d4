//! The bundled templates and the template language, as users see them.

use super::*;
use crate::{
    model::{RepositoryId, RunFacts, RunId},
    secret::Secret,
};

const HEAD: &str = "repos: [acme/widgets]\n";

fn config(yaml: &str) -> Config {
    let env = |name: &str| (name == "GH_TOKEN").then(|| "ghp_daemon".to_owned());
    Config::load(&format!("{HEAD}{yaml}"), &env).unwrap_or_else(|errors| panic!("{yaml}: {errors}"))
}

fn with_template(template: &str, more: &str) -> Config {
    let template = serde_json::to_string(&format!("{template}\n")).unwrap();
    config(&format!("template: {template}\n{more}"))
}

fn render(config: &Config, labels: &[&str]) -> Result<String, TemplateError> {
    render_for(config, labels, &JobFacts::default())
}

fn render_for(config: &Config, labels: &[&str], facts: &JobFacts) -> Result<String, TemplateError> {
    let runs_on = config.labels.check(labels).unwrap();
    let repository = Repository {
        id: RepositoryId(7),
        owner: "acme".to_owned(),
        name: "widgets".to_owned(),
        html_url: "https://github.com/acme/widgets".to_owned(),
        archived: false,
        disabled: false,
        visibility: crate::model::Visibility::default(),
    };
    Renderer::new(config)?.render(&RunContext {
        class: None,
        name: "NTGithubRunner-acme-widgets-abcdefghijklmno",
        repository: &repository,
        labels: &Labels::new(labels.iter().copied()),
        runs_on: &runs_on,
        info: "1 queued",
        job: Some(JobId(42)),
        facts,
        attempt: 1,
        nomad_limits: true,
    })
}

/// Renders one template's text with an access token, which has no requirements.
fn by_hand(template: &str, labels: &[&str]) -> String {
    render(&with_template(template, "github: {registration: access_token}\n"), labels).unwrap()
}

/// Settings for placement and devices.
const NODES: &str = "node_pool: gpu, constraint: [{attribute: '${node.class}', value: ci}, \
                     {attribute: '${attr.kernel.version}', operator: version, value: '>= 5'}, \
                     {attribute: '${meta.x}', operator: is_set}], arch: arm64, gpu: 2, links: true, \
                     job_started: \"#!/bin/bash\\necho ${x} \\\"y\\\"\\n\", job_completed: /opt/completed.sh";

/// Host volumes, a dynamic one and a CSI volume.
const VOLUMES: &str = ", volumes: [{source: data, destination: /data, read_only: true}, \
                       {source: state, destination: /state, access_mode: single-node-writer, \
                       attachment_mode: file-system, sticky: true}, \
                       {type: csi, source: db, destination: /db, access_mode: multi-node-multi-writer, attachment_mode: file-system}]";

/// Every combination of the settings and labels that the bundled templates read.
fn combinations() -> Vec<(String, Vec<&'static str>)> {
    let mut all = Vec::new();
    let more = [
        "",
        "ephemeral: false, run_as_root: true, debug: true",
        "entrypoint: \"#!/bin/bash\\necho ${HOME} %{x} {{ y }}\\nexec \\\"$@\\\"\\n\"",
        "cpu: 500, mem: 2048, maxmem: 4096, image: 'registry:5000/x/y', docker_group: '999'",
        "runner_url: 'https://example.com/runner.tar.gz', runner_directory: '/srv/runner'",
        "extra_config: 'labels = { a = \"b\" }', extra_group: 'shutdown_delay = \"1s\"', extra_task: 'user = \"me\"', \
         extra_job: 'priority = 40'",
    ];
    let labels: [&[&str]; 6] = [
        &["nomadtools"],
        &["nomadtools mem=2000 cpu=100 maxmem=3000 disk=500"],
        &["self-hosted", "nomadtools", "MEM=1", "cpu=0", "disk=1"],
        &["nomadtools maxmem=500 cores=2 cpu=5"],
        &["nomadtools tag=ubuntu-jammy nodocker"],
        &["nomadtools image=ghcr.io/acme/runner:1.2@sha256:00 mem=3000 maxmem=200"],
    ];
    for template in ["myoung34", "docker", "podman", "raw_exec"] {
        for docker in ["none", "dind", "host"] {
            if matches!(template, "docker" | "podman") && docker == "dind" {
                continue;
            }
            for cache in ["''", "volume", "no", "'no'", "/srv/cache"] {
                for more in more {
                    for labels in labels {
                        let yaml = format!(
                            "template: builtin:{template}\ntemplate_settings: {{docker: {docker}, cache: {cache}, {more}}}\n"
                        );
                        all.push((yaml, labels.to_vec()));
                    }
                }
            }
        }
    }
    for template in ["myoung34", "docker", "podman", "raw_exec"] {
        let volumes = if template == "raw_exec" { "" } else { VOLUMES };
        for cache in ["''", "volume", "tools", "/srv/cache"] {
            let yaml = format!(
                "template: builtin:{template}\ntemplate_settings: {{cache: {cache}, {NODES}{volumes}}}\n"
            );
            all.push((yaml, vec!["nomadtools maxmem=2048"]));
        }
    }
    for github in [
        "github: {access_token: '{{ with nomadVar \"nomad/jobs\" }}{{ .token }}{{ end }}'}\n",
        "github: {registration: access_token}\n",
        "github: {scope: organization, runner_group: 'a \"b\" ${c}'}\n",
        "github: {url: 'https://ghe.example.com/api/v3'}\n",
    ] {
        all.push((github.to_owned(), vec!["nomadtools"]));
    }
    all
}

#[test]
fn bundled_templates_are_hcl_in_every_combination() {
    let directory = std::env::var_os("GITHUBRUNNER_RENDERED");
    // All of them take a minute without optimization; the step is coprime to the lists' lengths.
    let step = if directory.is_some() { 1 } else { 19 };
    for (index, (yaml, labels)) in combinations().into_iter().enumerate().step_by(step) {
        let text =
            render(&config(&yaml), &labels).unwrap_or_else(|error| panic!("{yaml}{labels:?}: {error}"));
        let body: hcl::Body =
            hcl::from_str(&text).unwrap_or_else(|error| panic!("{yaml}{labels:?}: {error}\n{text}"));
        assert_eq!(body.blocks().count(), 1, "{text}");
        assert!(!text.contains("\n\n\n"), "{text}");
        if let Some(directory) = &directory {
            std::fs::write(std::path::Path::new(directory).join(format!("{index}.hcl")), text).unwrap();
        }
    }
}

#[test]
fn the_default_template() {
    insta::assert_snapshot!("myoung34", render(&config(""), &["nomadtools mem=1000"]).unwrap());
    let all = "template_settings: {docker: host, cache: /srv/cache, entrypoint: \"exec \\\"$@\\\" ${x}\\n\", debug: true}\n";
    let labels = ["self-hosted", "nomadtools cpu=2000 mem=1000 maxmem=2000 tag=ubuntu-jammy disk=300"];
    insta::assert_snapshot!("myoung34_all", render(&config(all), &labels).unwrap());
}

#[test]
fn the_other_templates() {
    let docker = "template: builtin:docker\ntemplate_settings: {docker: host, docker_group: 999}\n";
    insta::assert_snapshot!("docker", render(&config(docker), &["nomadtools maxmem=4000"]).unwrap());
    insta::assert_snapshot!(
        "podman",
        render(&config("template: builtin:podman\n"), &["nomadtools"]).unwrap()
    );
    insta::assert_snapshot!(
        "raw_exec",
        render(&config("template: builtin:raw_exec\n"), &["nomadtools"]).unwrap()
    );
}

#[test]
fn settings_control_placement_devices_and_volumes() {
    let with = |template: &str, cache: &str, more: &str| {
        let yaml =
            format!("template: builtin:{template}\ntemplate_settings: {{cache: {cache}, {NODES}{more}}}\n");
        let run = RunFacts { branch: "main".to_owned(), ..RunFacts::default() };
        let facts = JobFacts { name: "build".to_owned(), run_id: Some(RunId(4711)), run: run.into() };
        render_for(&config(&yaml), &["nomadtools"], &facts).unwrap()
    };
    insta::assert_snapshot!("docker_everywhere", with("docker", "tools", VOLUMES));
    insta::assert_snapshot!("podman_everywhere", with("podman", "/srv/cache", VOLUMES));
    let raw_exec = with("raw_exec", "/srv/cache", "");
    assert!(raw_exec.contains("RUNNER_TOOL_CACHE                   = \"/srv/cache/tools\""), "{raw_exec}");
    let yaml = format!("template: builtin:raw_exec\ntemplate_settings: {{debug: false{VOLUMES}}}\n");
    let error = render(&config(&yaml), &["nomadtools"]).unwrap_err();
    assert!(error.to_string().contains("raw_exec cannot mount volumes"), "{error}");
    // A single value needs no list.
    let one = config(
        "template: builtin:docker\ntemplate_settings: {gpu: amd/gpu, constraint: {attribute: a, value: b}}\n",
    );
    let one = render(&one, &["nomadtools"]).unwrap();
    assert!(
        one.contains("device \"amd/gpu\" {\n          count = 1") && one.matches("constraint {").count() == 1
    );
}

#[test]
fn a_bundled_template_reports_unsupported_settings() {
    let yaml = "template: builtin:docker\ntemplate_settings: {docker: dind}\n";
    let error = render(&config(yaml), &["nomadtools"]).unwrap_err();
    assert!(error.to_string().contains("builtin:myoung34 supports dind"), "{error}");
    assert!(error.line.is_some());
}

#[test]
fn block_tags_remove_their_lines() {
    assert_eq!(by_hand("a\n  {% if true %}\n  b\n  {% endif %}\nc", &["x"]), "a\n  b\nc");
}

#[test]
fn undefined_names_work_as_in_jinja() {
    assert_eq!(
        by_hand("[{{ nothing }}{{ SETTINGS.nothing }}{% for x in nothing %}{% endfor %}]", &["x"]),
        "[]"
    );
    let broken = with_template("a\n{{ nothing.attribute }}", "github: {registration: access_token}\n");
    let error = render(&broken, &["x"]).unwrap_err();
    assert_eq!(error.line, Some(2), "{error}");
    assert!(
        error.to_string().starts_with("the template in the configuration, line 2, its line 2: "),
        "{error}"
    );
}

#[test]
fn python_methods_and_booleans_work() {
    let template = "{{ RUNSON.get('mem', '5') }} {{ RUNSON.items()|length }} {{ 'a,b'.split(',')|join('-') }} \
                    {{ RUN.REPO.upper() }} {% if not '' and not 0 and not [] and not {} and '0' %}yes{% endif %}";
    assert_eq!(by_hand(template, &["a mem=7"]), "7 2 a-b ACME/WIDGETS yes");
}

#[test]
fn int_works_as_in_jinja() {
    let template = "{{ 'x'|int }} {{ ''|int }} {{ none|int }} {{ nothing|int }} {{ '12.7'|int }} {{ ' 5 '|int }} \
                    {{ 'x'|int(3) }} {{ '0x1f'|int(base=16) }} {{ true|int }} {{ 2.9|int }} {{ '1e3'|int }} {{ '-4'|int }} \
                    {{ 'x'|int(default=8) }} {{ [1]|int }}";
    assert_eq!(by_hand(template, &["x"]), "0 0 0 0 12 5 3 31 1 2 1000 -4 8 0");
}

#[test]
fn strings_stay_strings() {
    let template = r#"{{ "a\"b\\c\n${d}%{e}$$\u0007"|hcl }} {{ nomadlib.escape("${a} %{b} $c") }} {{ {"a": [1, "x"]}|tojson }}"#;
    assert_eq!(by_hand(template, &["x"]), r#"a\"b\\c\n$${d}%%{e}$$\u0007 $${a} %%{b} $c {"a": [1, "x"]}"#);
}

#[test]
fn nothing_is_escaped_for_html() {
    assert_eq!(by_hand("{{ '<\"&>' }}", &["x"]), "<\"&>");
}

#[test]
fn a_template_cannot_run_forever() {
    let bomb = "{% for a in range(9999) %}{% for b in range(9999) %}{{ b }}{% endfor %}{% endfor %}";
    let error = render(&with_template(bomb, "github: {registration: access_token}\n"), &["x"]).unwrap_err();
    assert!(error.message.contains("fuel"), "{error}");
    let macros = "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}";
    assert!(render(&with_template(macros, "github: {registration: access_token}\n"), &["x"]).is_err());
}

#[test]
fn a_template_has_a_bounded_time_and_output_whatever_its_steps_cost() {
    let config = |template: &str| with_template(template, "github: {registration: access_token}\n");
    let list =
        "{% set ns = namespace(x=[1]) %}{% for i in range(26) %}{% set ns.x = ns.x + ns.x %}{% endfor %}";
    let both = render(&config(&format!("{list}{{{{ ns.x }}}}")), &["x"]).unwrap_err();
    assert!(both.message.contains("longer than"), "{both}");
    let output = "{% for i in range(2000) %}{{ 'x' * 1000 }}{% endfor %}";
    let large = render(&config(output), &["x"]).unwrap_err();
    assert!(large.message.contains("longer than 1000000 bytes"), "{large}");
}

#[test]
fn other_files_are_out_of_reach() {
    for template in ["{% include '/etc/passwd' %}", "{% import '/etc/passwd' as x %}", "{% extends 'x' %}"] {
        assert!(render(&with_template(template, "github: {registration: access_token}\n"), &["x"]).is_err());
    }
}

#[test]
fn a_template_without_credentials_is_an_error_at_start() {
    let error = Renderer::new(&with_template("job {}", "")).unwrap_err();
    assert!(error.message.contains("RUN.CREDENTIALS"), "{error}");
    for reads in [
        "{{ RUN.CREDENTIALS }}",
        "{{ RUN['CREDENTIALS'] }}",
        "{% set r = RUN %}{{ r.CREDENTIALS }}",
        "{{ RUN.CREDENTIALS_JSON }}",
    ] {
        assert!(render(&with_template(reads, ""), &["x"]).is_ok(), "{reads}");
    }
    // It reads them, but not for these labels.
    let error = render(&with_template("{% if RUNSON.big %}{{ RUN.CREDENTIALS }}{% endif %}", ""), &["x"])
        .unwrap_err();
    assert!(error.message.contains("RUN.CREDENTIALS"), "{error}");
}

#[test]
fn a_syntax_error_is_an_error_at_start() {
    let error = Renderer::new(&with_template("a\n{% if %}", "")).unwrap_err();
    assert_eq!(error.line, Some(2), "{error}");
}

#[test]
fn unescaped_consul_template_braces_are_explained() {
    for braces in [
        r#"{{ with nomadVar "x" }}{{ .token }}{{ end }}"#,
        r#"{{ env "HOME" }}"#,
        r#"{{- key "a/b" }}"#,
        "{{ .Data }}",
        "{{ range services }}",
    ] {
        let error = Renderer::new(&with_template(&format!("a\n{braces}"), "")).unwrap_err();
        assert!(error.message.contains("{% raw %}"), "{braces}: {error}");
    }
    for jinja in ["{{ key + }}", "{% if %}", "{{ env.a b }}"] {
        let error = Renderer::new(&with_template(&format!("a\n{jinja}"), "")).unwrap_err();
        assert!(!error.message.contains("{% raw %}"), "{jinja}: {error}");
    }
}

#[test]
fn the_token_is_not_in_the_context_unless_configured() {
    let github = "github: {token: ghp_secret, access_token: ghp_other, registration: MODE}\ntemplate_settings: {access_token: ghp_third}\n";
    for (mode, seen) in [("jit", false), ("token", false), ("access_token", true)] {
        let config = with_template(
            "{{ RUN.CREDENTIALS }} {{ CONFIG }} {{ SETTINGS }} {{ RUN }}",
            &github.replace("MODE", mode),
        );
        let text = render(&config, &["x"]).unwrap();
        for token in ["ghp_secret", "ghp_other", "ghp_third"] {
            assert_eq!(text.contains(token), seen, "{mode} {token}: {text}");
        }
    }
}

#[test]
fn errors_and_debug_show_no_token() {
    let config = with_template("{{ CONFIG.github.token.nothing.more }}", "");
    assert_eq!(config.registration(), Registration::AccessToken);
    let error = render(&config, &["x"]).unwrap_err();
    for text in [format!("{error} {error:?}"), format!("{:?}", Renderer::new(&config)), format!("{config:?}")]
    {
        assert!(!text.contains("ghp_daemon"), "{text}");
    }
}

#[test]
fn credentials_and_variables_have_the_same_keys() {
    for (registration, item) in [(Registration::Jit, "jitconfig"), (Registration::Token, "token")] {
        let (key, secret) = credential_items(registration, &Secret::new("s")).unwrap();
        assert_eq!((key, secret.expose()), (item, "s"));
        assert!(credentials::data(registration, "name", "").contains(&format!("{{{{ .{key} }}}}")));
    }
    assert!(credential_items(Registration::AccessToken, &Secret::new("s")).is_none());
    insta::assert_snapshot!(
        "credentials",
        credentials::block(&credentials::data(Registration::Jit, "name", ""))
    );
    insta::assert_snapshot!(
        "credentials_json",
        credentials::json(&credentials::data(Registration::Token, "name", ""))
    );
}

#[test]
fn the_whole_context_by_name() {
    let template = "{{ RUN.RUNNER_NAME }} {{ RUN.REPO_URL }} {{ RUN.REPO }} {{ RUN.LABELS }} {{ RUN.INFO }} {{ RUN.JOB_ID }} \
                    {{ CONFIG.nomad.namespace }} {{ CONFIG.loop }} {{ CONFIG.repos[0] }} {{ CONFIG.scheduler.purge_failure_timeout }} \
                    {{ CONFIG.template_default_settings.docker }} {{ SETTINGS.x }}";
    let config = with_template(template, "github: {registration: access_token}\ntemplate_settings: {x: y}\n");
    assert_eq!(
        render(&config, &["b", "a mem=1"]).unwrap(),
        "NTGithubRunner-acme-widgets-abcdefghijklmno https://github.com/acme/widgets acme/widgets a mem=1,b 1 queued 42 \
         github 60 acme/widgets 1w none y"
    );
}

/// The user documents, by name.
const DOCUMENTS: [(&str, &str); 9] = [
    ("README.md", include_str!("../../README.md")),
    ("docs/architecture.md", include_str!("../../docs/architecture.md")),
    ("docs/configuration.md", CONFIGURATION),
    ("docs/deployment.md", include_str!("../../docs/deployment.md")),
    ("docs/development.md", include_str!("../../docs/development.md")),
    ("docs/from-nomadtools.md", include_str!("../../docs/from-nomadtools.md")),
    ("docs/security.md", include_str!("../../docs/security.md")),
    ("docs/templates-and-labels.md", TEMPLATES),
    ("docs/testing.md", include_str!("../../docs/testing.md")),
];
const CONFIGURATION: &str = include_str!("../../docs/configuration.md");
const TEMPLATES: &str = include_str!("../../docs/templates-and-labels.md");

/// The fenced code blocks of a document in this language.
fn blocks<'a>(document: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("\n```{language}\n");
    document.split(fence.as_str()).skip(1).map(|rest| rest.split_once("\n```").unwrap().0).collect()
}

#[test]
fn every_yaml_example_of_the_documents_loads() {
    let mut examples = 0;
    for (name, text) in DOCUMENTS {
        for yaml in blocks(text, "yaml") {
            // Prometheus's rules are also YAML.
            if yaml.starts_with("groups:") {
                continue;
            }
            let config = Config::load(&format!("{yaml}\n"), &|_| None)
                .unwrap_or_else(|errors| panic!("{name}: {errors}\n{yaml}"));
            Renderer::new(&config).unwrap_or_else(|error| panic!("{name}: {error}\n{yaml}"));
            examples += 1;
        }
    }
    assert!(examples >= 7, "{examples}");
    for (document, first) in [(DOCUMENTS[0].1, "yaml"), (CONFIGURATION, "yaml")] {
        let yaml = blocks(document, first)[0];
        assert_eq!(Config::load(&format!("{yaml}\n"), &|_| None).unwrap().registration(), Registration::Jit);
    }
}

#[test]
fn the_template_of_the_documents_renders() {
    let [template] = blocks(TEMPLATES, "jinja")[..] else { panic!("one template") };
    let template = serde_json::to_string(template).unwrap();
    let text = render(&config(&format!("template: {template}\n")), &["nomadtools mem=2000"]).unwrap();
    let body: hcl::Body = hcl::from_str(&text).unwrap();
    assert_eq!(body.blocks().count(), 1);
    assert!(text.contains("memory = 2000") && text.contains("ACTIONS_RUNNER_INPUT_JITCONFIG"), "{text}");
}

#[test]
fn the_documents_name_every_key_and_every_setting() {
    let tree = config("").tree(Tokens::Hidden);
    let mut keys = vec![
        "github.token_file",
        "github.app",
        "github.access_token",
        "github.runner_group",
        "github.ca_file",
    ]
    .into_iter()
    .map(str::to_owned)
    .collect::<Vec<_>>();
    let mut settings = Vec::new();
    for (key, value) in tree.as_object().unwrap() {
        match value.as_object() {
            Some(inner) if key == "template_settings" => {
                settings.extend(inner.keys().cloned());
                keys.push(key.clone());
            }
            Some(inner) if key != "runson_limits" => {
                keys.extend(inner.keys().map(|inner| format!("{key}.{inner}")));
            }
            _ => keys.push(key.clone()),
        }
    }
    // What the bundled templates read besides settings with a default.
    for template in crate::config::BUILTIN_TEMPLATES {
        let read = template.text.split("SETTINGS.").skip(1);
        let name =
            |rest: &str| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap().to_owned();
        settings.extend(read.map(name));
    }
    assert!(settings.iter().any(|setting| setting == "runner_url"), "{settings:?}");
    for key in keys {
        assert!(CONFIGURATION.contains(&format!("`{key}`")), "{key}");
    }
    for setting in settings {
        assert!(TEMPLATES.contains(&format!("`{setting}`")), "{setting}");
    }
}

#[test]
fn a_tool_cache_belongs_to_one_repository_and_exists_only_if_configured() {
    let mount = |settings: &str| {
        let text = render(&config(settings), &["nomadtools"]).unwrap();
        text.lines().find(|line| line.contains("source = ")).map(|line| line.trim().to_owned())
    };
    for off in ["", "template_settings: {cache: no}\n", "template_settings: {cache: ''}\n"] {
        assert_eq!(mount(off), None, "{off}");
    }
    // `acme/web-x` is not `acme-web/x`: the ID distinguishes them.
    let source = mount("template_settings: {cache: volume}\n");
    assert_eq!(source.as_deref(), Some("source = \"NTGithubRunner-7-acme-widgets\""));
}

/// Names that strangers could give a job, a workflow, a branch and themselves.
const HOSTILE: [&str; 9] = [
    "\"\n } } task \"evil\" {\n driver = \"raw_exec\" ",
    "x\" } group \"g2\" { count = 9",
    "${file(\"/etc/passwd\")}",
    "%{ for x in [1] }y%{ endfor }",
    "\\",
    "a\nEOF\nb",
    "{{ CONFIG }}",
    "$(touch x)`touch y`",
    "\u{202e}\u{0}\r",
];

/// All of them between quotes and in a heredoc, without a filter.
const UNFILTERED: &str = r#"
job "x" {
  meta {
    url      = "{{ RUN.JOB_URL }}"
    name     = "{{ RUN.JOB_NAME }}"
    workflow = "{{ RUN.WORKFLOW }}"
    actor    = "{{ RUN.ACTOR }}"
    branch   = "{{ RUN.BRANCH }}"
    event    = "{{ RUN.EVENT }}"
  }
  group "g" {
    task "t" {
      driver = "docker"
      template {
        destination = "local/x"
        data = <<EOF
{{ RUN.JOB_NAME }} {{ RUN.WORKFLOW }} {{ RUN.BRANCH }}
EOF
      }
    }
  }
}
"#;

/// The blocks of a job, its task group and its task, and the values of its Meta.
fn shape(text: &str) -> (Vec<String>, Vec<String>) {
    let body: hcl::Body = hcl::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let mut blocks = Vec::new();
    let mut within = vec![&body];
    while let Some(body) = within.pop() {
        for block in body.blocks() {
            let labels: Vec<&str> = block.labels.iter().map(|label| label.as_str()).collect();
            blocks.push(format!("{} {}", block.identifier.as_str(), labels.join(" ")));
            within.push(&block.body);
        }
    }
    let job = &body.blocks().next().unwrap().body;
    let meta = &job.blocks().next().unwrap().body;
    let value = |attribute: &hcl::Attribute| match &attribute.expr {
        hcl::Expression::String(text) => text.clone(),
        other => panic!("{other:?} in {text}"),
    };
    (blocks, meta.attributes().map(value).collect())
}

#[test]
fn names_from_strangers_do_not_change_the_jobs_structure() {
    let config = with_template(UNFILTERED, "github: {registration: access_token}\n");
    let rendered = |text: &str| {
        let run = RunFacts {
            workflow: text.to_owned(),
            actor: text.to_owned(),
            branch: text.to_owned(),
            event: text.to_owned(),
        };
        let facts = JobFacts { name: text.to_owned(), run_id: Some(RunId(4711)), run: run.into() };
        render_for(&config, &["nomadtools"], &facts).unwrap()
    };
    let (blocks, values) = shape(&rendered("main"));
    let url = "https://github.com/acme/widgets/actions/runs/4711/job/42";
    assert_eq!(values, [url, "main", "main", "main", "main", "main"]);
    assert_eq!(blocks, ["job x", "meta ", "group g", "task t", "template "]);
    for text in HOSTILE {
        let text = rendered(text);
        let (others, values) = shape(&text);
        assert_eq!(others, blocks, "{text}");
        // Exact names are empty instead.
        assert_eq!(values[3..], ["", "", ""], "{text}");
    }
    let (_, values) = shape(&render(&config, &["nomadtools"]).unwrap());
    assert_eq!(values, [""; 6], "facts that GitHub does not report are empty");
}
