//! No label changes the structure of what the bundled templates render: the result is the same job, or none.

use std::sync::{Mutex, OnceLock};

use githubrunner::{
    config::Config,
    labels::{LabelRules, RunsOn},
    model::{JobId, Labels, Registration},
    render::{Renderer, RunContext},
};
use githubrunner_sim::nomad::{Nomad, Options};
use proptest::{collection::vec, prelude::*};

use crate::{
    cases::{repository, rules, runner},
    labels::hostile,
};

const NAME: &str = "ghr-Own-er-r1-abcdefghijklmno";

/// The bundled templates, each with every kind of credentials that it supports.
fn renderers() -> &'static [(&'static str, Renderer)] {
    static RENDERERS: OnceLock<Vec<(&'static str, Renderer)>> = OnceLock::new();
    RENDERERS.get_or_init(|| {
        let configurations = [
            ("raw_exec", "template: builtin:raw_exec\n"),
            ("docker", "template: builtin:docker\n"),
            ("podman", "template: builtin:podman\n"),
            ("myoung34", "template: builtin:myoung34\n"),
            (
                "myoung34 with everything",
                "template: builtin:myoung34\ngithub: { registration: access_token }\n\
                 template_settings: { docker: host, debug: true, entrypoint: \"#!/bin/sh\", cache: /var/cache }\n",
            ),
        ];
        let env = |name: &str| (name == "GH_TOKEN").then(|| "ghp_marked".to_owned());
        configurations
            .into_iter()
            .map(|(name, yaml)| {
                let config = Config::load(&format!("repos: [acme/widgets]\n{yaml}"), &env)
                    .unwrap_or_else(|errors| panic!("{name}: {errors}"));
                (name, Renderer::new(&config).unwrap())
            })
            .collect()
    })
}

fn render(renderer: &Renderer, labels: &Labels, runs_on: &RunsOn) -> String {
    let context = RunContext {
        class: None,
        name: NAME,
        repository: &repository(0),
        labels,
        runs_on,
        info: "queued=1",
        job: Some(JobId(42)),
        facts: &Default::default(),
        attempt: 1,
        nomad_limits: true,
    };
    renderer.render(&context).unwrap_or_else(|error| panic!("{labels}: {error}"))
}

/// The job without the values of its strings and numbers, which leaves the structure.
fn structure(body: &hcl::Body, depth: usize, out: &mut String) {
    for structure_ in body.iter() {
        out.push_str(&" ".repeat(depth));
        match structure_ {
            hcl::Structure::Attribute(attribute) => {
                out.push_str(attribute.key.as_str());
                out.push_str(" = ");
                kind(&attribute.expr, out);
                out.push('\n');
            }
            hcl::Structure::Block(block) => {
                out.push_str(block.identifier.as_str());
                block.labels.iter().for_each(|label| out.push_str(&format!(" {}", label.as_str())));
                out.push_str(" {\n");
                structure(&block.body, depth + 1, out);
                out.push_str(&" ".repeat(depth));
                out.push_str("}\n");
            }
        }
    }
}

fn kind(expression: &hcl::Expression, out: &mut String) {
    match expression {
        hcl::Expression::String(_) => out.push_str("string"),
        hcl::Expression::Number(_) => out.push_str("number"),
        hcl::Expression::Array(items) => {
            out.push('[');
            for item in items {
                kind(item, out);
                out.push(' ');
            }
            out.push(']');
        }
        // Templates, variables, operations and objects in full, because labels must not appear in them.
        other => out.push_str(&format!("{other:?}")),
    }
}

/// The value of an attribute, wherever it is.
fn find<'a>(body: &'a hcl::Body, key: &str) -> Option<&'a hcl::Expression> {
    body.iter().find_map(|structure| match structure {
        hcl::Structure::Attribute(attribute) if attribute.key.as_str() == key => Some(&attribute.expr),
        hcl::Structure::Attribute(_) => None,
        hcl::Structure::Block(block) => find(&block.body, key),
    })
}

fn text_of(expression: Option<&hcl::Expression>) -> Option<&str> {
    match expression {
        Some(hcl::Expression::String(text)) => Some(text),
        _ => None,
    }
}

/// Harmless labels of the same kind. Sizes are kept, because they determine which lines exist.
fn harmless_twin(runs_on: &RunsOn) -> RunsOn {
    let sizes = ["cpu", "cores", "mem", "maxmem", "disk"];
    runs_on
        .iter()
        .filter(|(key, _)| {
            sizes.contains(&key.as_str()) || ["image", "tag", "nodocker"].contains(&key.as_str())
        })
        .map(|(key, value)| {
            let harmless = if sizes.contains(&key.as_str()) || value.is_empty() { value } else { "x" };
            (key.clone(), harmless.to_owned())
        })
        .collect()
}

/// The job as parsed by a Nomad server, with texts and numbers blanked. The simulated server is compared with
/// a real agent's responses (`tests/sim_nomad_recordings.rs`).
fn shape_in_nomad(hcl: &str) -> Result<serde_json::Value, TestCaseError> {
    static NOMAD: OnceLock<Mutex<Nomad>> = OnceLock::new();
    let now = jiff::Timestamp::UNIX_EPOCH;
    let body = serde_json::json!({ "JobHCL": hcl, "Canonicalize": false }).to_string();
    let request = hyper::Request::post("/v1/jobs/parse?namespace=default").body(body.into()).unwrap();
    let mut nomad = NOMAD.get_or_init(|| Mutex::new(Nomad::new(Options::default(), now))).lock().unwrap();
    let answer = nomad.handle(&request, now);
    let text = String::from_utf8_lossy(answer.body());
    prop_assert!(answer.status() == 200, "{text}\n{hcl}");
    let mut job = serde_json::from_str(&text).unwrap();
    blank(&mut job);
    Ok(job)
}

fn blank(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::String(text) => text.clear(),
        serde_json::Value::Number(_) => *value = serde_json::Value::from(0),
        serde_json::Value::Array(items) => items.iter_mut().for_each(blank),
        serde_json::Value::Object(entries) => entries.values_mut().for_each(blank),
        serde_json::Value::Bool(_) | serde_json::Value::Null => {}
    }
}

fn check(rules: &LabelRules, labels: &[String]) -> Result<bool, TestCaseError> {
    let Ok(runs_on) = rules.check(labels) else { return Ok(false) };
    let set = Labels::new(labels.iter().map(String::as_str));
    for (name, renderer) in renderers() {
        let text = render(renderer, &set, &runs_on);
        let body: Result<hcl::Body, _> = hcl::from_str(&text);
        let body = body.map_err(|error| TestCaseError::fail(format!("{name}: {error}\n{text}")))?;
        let twin = render(renderer, &Labels::new(["nomadtools"]), &harmless_twin(&runs_on));
        prop_assert_eq!(shape_in_nomad(&text)?, shape_in_nomad(&twin)?, "{}", name);
        let twin: hcl::Body = hcl::from_str(&twin).unwrap();
        let (mut got, mut expected) = (String::new(), String::new());
        structure(&body, 0, &mut got);
        structure(&twin, 0, &mut expected);
        prop_assert_eq!(&got, &expected, "{}", name);
        prop_assert!(got.contains("memory = number") && got.contains("job ghr-"), "{}", got);
        // The labels arrive unchanged.
        if let Some(labels) = text_of(find(&body, "LABELS")) {
            prop_assert_eq!(labels, set.joined());
        }
        if let Some(image) = text_of(find(&body, "image")) {
            let asked = runs_on.get("image").filter(|image| !image.is_empty());
            prop_assert!(asked.is_none_or(|asked| asked == image), "{image}");
        }
        let number = |key| match find(&body, key) {
            Some(hcl::Expression::Number(number)) => number.as_u64(),
            _ => None,
        };
        for key in ["cpu", "cores", "memory", "memory_max", "size"] {
            prop_assert!(number(key).is_none_or(|number| number <= 10_000_000), "{key} in {text}");
        }
        let needs_variable = renderer.registration() != Registration::AccessToken;
        prop_assert_eq!(text.contains("ghp_marked"), !needs_variable, "{}", name);
    }
    Ok(true)
}

/// A million cases take ten and a half CPU minutes in a release build, and passed: `PROPTEST_CASES=1000000
/// cargo test --release --test proptests -- templates::no_label`.
#[test]
fn no_label_changes_the_structure_of_the_rendered_job() {
    let rules = rules();
    let passed = std::cell::Cell::new((0, 0));
    let result = runner(2000).run(&vec(hostile(), 1..4), |labels| {
        let rendered = check(&rules, &labels)?;
        let (yes, no) = passed.get();
        passed.set(if rendered { (yes + 1, no) } else { (yes, no + 1) });
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let (rendered, refused) = passed.get();
    assert!(rendered >= 40 && refused >= 40, "{rendered} rendered, {refused} refused");
}

/// The same with every character that the configuration can allow, so that only quoting protects.
#[test]
fn no_label_changes_the_structure_with_all_characters_allowed() {
    let allowed =
        githubrunner::labels::AllowedCharacters::parse("[!$%&()*+./0-9:;<=>?@A-Z^_a-z|~[-]").unwrap();
    let rules = rules().with_allowed(allowed);
    let text = "[!$%&()*+./0-9:;<=>?@A-Z^_a-z|~-]{1,12}";
    let label = prop_oneof![
        text,
        ("(image|tag|x)=", text).prop_map(|(key, value)| key + &value),
        ("image=a", text).prop_map(|(key, value)| key + &value),
    ];
    let result = runner(150).run(&vec(label, 1..4), |labels| check(&rules, &labels).map(|_| ()));
    if let Err(error) = result {
        panic!("{error}");
    }
}
