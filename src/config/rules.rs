//! Label rules and settings, of the top level and of a class that overrides it.

use serde_json::{Map, Value};

use super::{
    RepoEntry, Template,
    reader::{Problems, Section, Shape},
    yaml::Data,
};
use crate::labels::{
    AllowedCharacters, DEFAULT_ALLOWED, Keys, LABEL_LENGTH_MAX, LabelRules, SIZES, ValueGlob, harmless,
};

/// An entry of `repos`.
pub(super) fn repo_entry(text: &str) -> Option<RepoEntry> {
    let word = |text: &str, more: &str| {
        !text.is_empty()
            && text.len() <= 100
            && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
            && text.chars().any(|c| c != '.')
    };
    if text == "*" {
        return Some(RepoEntry::All);
    }
    match text.split_once('/') {
        None => word(text, "-_").then(|| RepoEntry::Owner(text.to_owned())),
        Some((owner, name)) => (word(owner, "-_") && word(name, "-_."))
            .then(|| RepoEntry::Repository { owner: owner.to_owned(), name: name.to_owned() }),
    }
}

/// The label rules of a section, merged over others.
pub(super) fn label_rules(
    section: &Section,
    problems: &Problems,
    mut rules: LabelRules,
    template: Option<&Template>,
) -> Option<LabelRules> {
    let mut is_well = true;
    if let Some(allowed) = section.text("runson_allowed") {
        match AllowedCharacters::parse(allowed) {
            Ok(allowed) => rules = rules.with_allowed(allowed),
            Err(error) => {
                is_well = false;
                let help = format!("write characters and ranges, like {DEFAULT_ALLOWED}");
                section.problem("runson_allowed", error, help);
            }
        }
    }
    if let Some(max_length) = section.count("runson_max_length") {
        if max_length == 0 || max_length > LABEL_LENGTH_MAX {
            section.problem(
                "runson_max_length",
                format!("{max_length} characters"),
                format!("write 1 to {LABEL_LENGTH_MAX}, GitHub's own limit"),
            );
        }
        rules = rules.with_max_length(max_length);
    }
    section.shape("runson_limits", Shape::Counts);
    let of_limits = section.section("runson_limits");
    let mut limits = rules.limits().clone();
    for (key, node) in of_limits.entries() {
        match node.data {
            Data::Int(limit) if limit >= 0 => {
                limits.insert(key.text.to_lowercase(), limit.unsigned_abs());
            }
            _ => {
                let message = format!("expected a whole number, found {}", node.kind());
                problems.add(
                    &of_limits.key(&key.text),
                    node.place,
                    message,
                    "write `cpu: 4000` in MHz, `mem: 16000` in MB",
                );
            }
        }
    }
    rules = rules.with_limits(limits);
    if let Some(numbers) = runson_numbers(section, template) {
        rules = rules.with_numbers(numbers);
    }
    section.shape("allow_keys", Shape::TextLists);
    section.shape("deny_keys", Shape::TextLists);
    if section.get("allow_keys").is_some() {
        rules = rules.with_allow_keys(Some(label_keys(section, problems, "allow_keys")));
    }
    if section.get("deny_keys").is_some() {
        rules = rules.with_deny_keys(label_keys(section, problems, "deny_keys"));
    }
    is_well.then_some(rules)
}

/// Keys of labels, each with value patterns.
fn label_keys(section: &Section, problems: &Problems, name: &'static str) -> Keys {
    const HELP: &str = "list patterns of values, like [acme/*], or [] for all values";
    let of_keys = section.section(name);
    let mut keys = Keys::new();
    for (key, node) in of_keys.entries() {
        let problem = |message: String| problems.add(&of_keys.key(&key.text), node.place, message, HELP);
        let items = match &node.data {
            Data::List(items) => items.as_slice(),
            Data::Null => &[],
            _ => {
                problem(format!("expected a list, found {}", node.kind()));
                continue;
            }
        };
        let globs = keys.entry(key.text.to_lowercase()).or_default();
        for item in items {
            match &item.data {
                Data::Text(text) => match ValueGlob::new(text) {
                    Some(glob) => globs.push(glob),
                    None => {
                        problem(format!("\"{}\" is not a valid pattern of a label's value", harmless(text)))
                    }
                },
                _ => problem(format!("expected text, found {}", item.kind())),
            }
        }
    }
    keys
}

/// `allow_keys` or `deny_keys` in the format of the file.
pub(super) fn keys_tree(keys: &Keys) -> Value {
    let texts = |globs: &[ValueGlob]| globs.iter().map(|glob| glob.text().to_owned()).collect::<Vec<_>>();
    keys.iter().map(|(key, globs)| (key.clone(), Value::from(texts(globs)))).collect::<Map<_, _>>().into()
}

/// The keys whose values are numbers. With a bundled template, the keys that it reads as numbers are
/// required.
fn runson_numbers(top: &Section, template: Option<&Template>) -> Option<Vec<String>> {
    top.shape("runson_numbers", Shape::Texts);
    let node = top.get("runson_numbers")?;
    let help = "write a list like [cpu, mem], or [] for none";
    let Data::List(items) = &node.data else {
        top.problem("runson_numbers", format!("expected a list, found {}", node.kind()), help);
        return None;
    };
    let mut numbers = Vec::new();
    for item in items {
        match &item.data {
            Data::Text(key) => numbers.push(key.to_lowercase()),
            _ => top.problem("runson_numbers", format!("expected text, found {}", item.kind()), help),
        }
    }
    let missing = SIZES.iter().find(|size| !numbers.iter().any(|key| key == *size));
    if let (Some(missing), true) =
        (missing, template.is_some_and(|template| template.name.starts_with("builtin:")))
    {
        let message = format!("the bundled templates read {missing} as a number");
        top.problem("runson_numbers", message, "remove this setting, or use your own template");
    }
    Some(numbers)
}

/// The entries of a mapping with arbitrary keys, merged over existing ones.
pub(super) fn free(section: &Section, key: &'static str, settings: &mut Map<String, Value>) {
    section.shape(key, Shape::Free);
    for (key, node) in section.section(key).entries() {
        settings.insert(key.text.clone(), node.to_json());
    }
}
