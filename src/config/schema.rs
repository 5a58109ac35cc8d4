//! The JSON Schema of the configuration. The keys and their types come from the reader, the descriptions from the
//! configuration's document, so nothing is written down a third time.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{parse, reader::Shape};

/// A configuration with every section that is read only if it is present. Each list has one element.
const PROBE: &str = "classes: [{name: probe, match: {labels: probe}, warm: [{labels: [probe]}]}]
warm: [{labels: [probe]}]
github: {tokens: [{name: probe, owners: [a], token: a}], apps: [{name: probe, owners: [b], client_id: a, private_key: a}]}
";

/// The lists of mappings, and how the path of their only element in the probe ends.
const LISTS: [(&str, &str); 5] = [
    ("classes", "classes.probe"),
    ("classes.probe.warm", "classes.probe.warm"),
    ("warm", "warm"),
    ("github.tokens", "github.tokens.probe"),
    ("github.apps", "github.apps.probe"),
];

/// The descriptions of the keys.
const DOCUMENT: &str = include_str!("../../docs/configuration.md");

/// YAML 1.1's booleans besides `true` and `false`. Editors that read YAML 1.2 take them for text.
const WORDS: [&str; 12] = ["yes", "no", "on", "off", "Yes", "No", "On", "Off", "YES", "NO", "ON", "OFF"];

/// nomadtools' times.
const TIME: &str = r"^\s*([0-9]+w)?([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?\s*$";

/// The schema, in draft 2020-12.
pub fn schema() -> Value {
    let shapes = parse::shapes(PROBE);
    let mut root = section("", &shapes, &meanings());
    if let Value::Object(root) = &mut root {
        root.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        root.insert("title".to_owned(), json!("Configuration of githubrunner"));
        root.insert("required".to_owned(), json!(["repos"]));
    }
    root
}

/// A mapping with the keys below a path.
fn section(path: &str, shapes: &BTreeMap<String, Shape>, meanings: &BTreeMap<String, String>) -> Value {
    let mut properties = Map::new();
    for (key, shape) in shapes {
        let below = match path {
            "" => Some(key.as_str()),
            _ => key.strip_prefix(path).and_then(|rest| rest.strip_prefix('.')),
        };
        let Some(name) = below.filter(|name| !name.contains('.')) else { continue };
        let list = LISTS.iter().find(|(list, _)| list == key);
        let mut value = match (list, shape) {
            (Some((_, element)), _) => {
                json!({ "type": ["array", "null"], "items": section(element, shapes, meanings) })
            }
            (None, Shape::Section) => {
                let mut value = section(key, shapes, meanings);
                value["type"] = json!(["object", "null"]);
                value
            }
            (None, shape) => of(shape),
        };
        if let Some(meaning) = meanings.get(&documented(key)).or_else(|| meanings.get(name)) {
            value["description"] = json!(meaning);
        }
        properties.insert(name.to_owned(), value);
    }
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

/// A key's path as in the document, where elements of a list have no names.
fn documented(key: &str) -> String {
    let element = LISTS.iter().find_map(|(list, element)| Some((list, key.strip_prefix(element)?)));
    element.map_or_else(|| key.to_owned(), |(list, rest)| format!("{list}{rest}"))
}

fn of(shape: &Shape) -> Value {
    match shape {
        Shape::Any | Shape::Section => json!({}),
        Shape::Free => json!({ "type": ["object", "null"] }),
        Shape::Counts => {
            json!({ "type": ["object", "null"], "additionalProperties": { "type": "integer", "minimum": 0 } })
        }
        Shape::TextLists => json!({
            "type": ["object", "null"],
            "additionalProperties": { "type": ["array", "null"], "items": { "type": "string" } },
        }),
        Shape::Text => json!({ "type": ["string", "null"] }),
        Shape::TextOrNumber => json!({ "type": ["string", "integer", "null"] }),
        Shape::Texts => json!({ "type": ["array", "null"], "items": { "type": "string" } }),
        Shape::TextOrTexts => json!({ "type": ["array", "string"], "items": { "type": "string" } }),
        Shape::Boolean => json!({ "anyOf": [{ "type": ["boolean", "null"] }, { "enum": WORDS }] }),
        Shape::Count => json!({ "type": ["integer", "null"], "minimum": 0 }),
        Shape::Time => json!({ "type": ["string", "integer", "null"], "minimum": 0, "pattern": TIME }),
        Shape::Seconds => json!({ "type": ["string", "number", "null"], "minimum": 0, "pattern": TIME }),
        Shape::Choice(words) => {
            let words: Vec<Value> = words.iter().map(|word| json!(word)).chain([Value::Null]).collect();
            json!({ "enum": words })
        }
    }
}

/// The descriptions and defaults of the keys, from the document's tables.
fn meanings() -> BTreeMap<String, String> {
    let mut meanings = BTreeMap::new();
    let mut head: Vec<&str> = Vec::new();
    let mut under = String::new();
    for line in DOCUMENT.lines() {
        if let Some(title) = line.strip_prefix("## ").or_else(|| line.strip_prefix("### ")) {
            under = title.trim_matches('`').to_owned();
        }
        let Some(row) = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |")) else {
            if !line.starts_with("|--") {
                head.clear();
            }
            continue;
        };
        let cells: Vec<&str> = row.split(" | ").map(str::trim).collect();
        if head.is_empty() {
            head = cells;
            continue;
        }
        if head.first() != Some(&"key") {
            continue;
        }
        let cell = |name: &str| {
            let at = head.iter().position(|title| *title == name)?;
            cells.get(at).copied().filter(|text| !text.is_empty())
        };
        let Some(meaning) = cell("meaning") else { continue };
        let default = cell("default").map(|text| format!(" Default: {text}.")).unwrap_or_default();
        let text = plain(&format!("{meaning}{default}"));
        for key in keys(cells[0]) {
            // A table below a section's own heading may contain keys without the section.
            let full = if key.contains('.') || !under.contains('.') {
                key.clone()
            } else {
                format!("{under}.{key}")
            };
            meanings.insert(full, text.clone());
        }
    }
    meanings
}

/// The names in a cell's backticks.
fn keys(cell: &str) -> Vec<String> {
    let names = cell.split('`').skip(1).step_by(2);
    names.map(str::to_owned).collect()
}

/// A cell's text without links and backticks.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("](") {
        let (start, name) = before.rsplit_once('[').unwrap_or((before, ""));
        plain.push_str(start);
        plain.push_str(name);
        rest = after.split_once(')').map_or("", |(_, rest)| rest);
    }
    plain.push_str(rest);
    plain.replace('`', "").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each key's path in a schema, including sections.
    fn paths(schema: &Value, path: &str, found: &mut BTreeMap<String, Value>) {
        for (name, value) in schema["properties"].as_object().into_iter().flatten() {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            found.insert(path.clone(), value.clone());
            let below = if value["items"].is_object() { &value["items"] } else { value };
            paths(below, &path, found);
        }
    }

    fn all() -> BTreeMap<String, Value> {
        let mut found = BTreeMap::new();
        paths(&schema(), "", &mut found);
        found
    }

    #[test]
    fn each_key_of_the_reader_is_in_the_schema_with_its_type() {
        let found = all();
        for (key, shape) in parse::shapes(PROBE) {
            let is_list = LISTS.iter().any(|(list, _)| *list == key);
            let path = LISTS.iter().fold(key, |path, (list, element)| match path.strip_prefix(element) {
                Some(rest) => format!("{list}{rest}"),
                None => path,
            });
            if LISTS.iter().any(|(list, element)| path == *element || path == *list) && !is_list {
                continue;
            }
            let value = found.get(&path).unwrap_or_else(|| panic!("{path} is missing"));
            assert!(
                shape != Shape::Any || is_list,
                "{path}: nobody has said what it is; where it is read, add `section.shape(\"…\", Shape::…)`"
            );
            assert!(value.is_object(), "{path}: {value}");
        }
        for path in ["github.app.private_key_file", "scheduler.max_runners", "runson_limits", "ha.enabled"] {
            assert!(found.contains_key(path), "{path}");
        }
    }

    #[test]
    fn each_key_of_the_document_is_in_the_schema_and_each_key_of_the_schema_in_the_document() {
        let (found, meanings) = (all(), meanings());
        assert!(meanings.len() >= 40, "{}", meanings.len());
        for key in meanings.keys() {
            let is_there = |path: &String| path == key || path.ends_with(&format!(".{key}"));
            assert!(found.keys().any(is_there), "{key} of the document is not in the schema");
        }
        for (path, value) in &found {
            let is_section = value["properties"].is_object() || value["items"]["properties"].is_object();
            assert!(
                is_section || value["description"].is_string(),
                "{path}: docs/configuration.md has no row for it in a table whose head is `| key | … | meaning |`"
            );
        }
        let description = found["scheduler.max_runners"]["description"].as_str().unwrap();
        assert!(
            description.contains("The maximum number of runners") && !description.contains('`'),
            "{description}"
        );
    }

    /// A configuration as JSON, as an editor's YAML reader sees it.
    fn json_of(yaml: &str) -> Value {
        serde_yaml::from_str(yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"))
    }

    fn problems(yaml: &str) -> Vec<String> {
        let validator = jsonschema::validator_for(&schema()).unwrap();
        let value = json_of(yaml);
        validator.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path())).collect()
    }

    /// The examples in all documents, except those for Prometheus and others.
    fn examples() -> Vec<(String, String)> {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut files = vec![root.join("README.md")];
        let documents = std::fs::read_dir(root.join("docs")).unwrap();
        files.extend(documents.map(|entry| entry.unwrap().path()));
        let mut found = Vec::new();
        for path in files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
            let text = std::fs::read_to_string(path).unwrap();
            for block in text.split("\n```yaml\n").skip(1) {
                let yaml = block.split("\n```").next().unwrap();
                if !yaml.starts_with("groups:") && !yaml.starts_with("scrape_configs:") {
                    found.push((path.display().to_string(), format!("{yaml}\n")));
                }
            }
        }
        found
    }

    #[test]
    fn each_example_in_the_documents_fits_the_schema() {
        let examples = examples();
        assert!(examples.len() >= 7, "{}", examples.len());
        for (path, yaml) in examples {
            assert_eq!(problems(&yaml), Vec::<String>::new(), "{path}\n{yaml}");
        }
    }

    #[test]
    fn the_schema_accepts_and_refuses_what_the_reader_does() {
        for good in [
            "repos: acme\n",
            "repos: [acme, a/b, '*']\nloop: 0.5\nha: {enabled: on}\nscheduler: {purge_failure_timeout: 1w2d, strict: yes}\n",
            "repos: [a]\ngithub: {app: {app_id: 12, private_key_file: x}, registration: jit}\nnomad:\n",
            "repos: [a]\nrunson_limits: {cpu: 4000}\nrunson_numbers: [cpu]\ntemplate_settings: {any: [1, {b: c}]}\n",
            "repos: [a]\nscheduler: {purge_failure_timeout: '', purge_successfull_timeout: 60}\n",
            "repos: [a]\nallow_keys: {image: [acme/*], mem: []}\ndeny_keys: {docker: }\n",
        ] {
            assert_eq!(problems(good), Vec::<String>::new(), "{good}");
        }
        for (bad, at) in [
            ("loop: 5\n", "repos"),
            ("repos: [a]\nlopo: 1\n", "lopo"),
            ("repos: [a]\nnomad: {metta: x}\n", "metta"),
            ("repos: [1]\n", "/repos/0"),
            ("repos: [a]\nparallel: -1\n", "/parallel"),
            ("repos: [a]\nparallel: many\n", "/parallel"),
            ("repos: [a]\nscheduler: {purge_failure_timeout: 1 week}\n", "purge_failure_timeout"),
            ("repos: [a]\ngithub: {registration: magic}\n", "/github/registration"),
            ("repos: [a]\nrunson_limits: {cpu: lots}\n", "/runson_limits/cpu"),
            ("repos: [a]\nha: {enabled: maybe}\n", "/ha/enabled"),
            ("repos: [a]\nallow_keys: {image: acme}\n", "/allow_keys/image"),
        ] {
            let problems = problems(bad);
            assert!(problems.len() == 1 && problems[0].contains(at), "{bad}: {problems:?}");
            assert!(super::super::Config::load(bad, &|_| None).is_err(), "{bad}");
        }
    }
}
