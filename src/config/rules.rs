//! Label rules and settings, of the top level and of a class that overrides it.

use serde_json::{Map, Value};

use super::{
    Template,
    reader::{Problems, Section, Shape},
    yaml::Data,
};
use crate::labels::{AllowedCharacters, DEFAULT_ALLOWED, LABEL_LENGTH_MAX, LabelRules, SIZES};

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
    is_well.then_some(rules)
}

/// The keys whose values are numbers. Those that the bundled templates read as numbers must be included with
/// such a template.
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
        top.problem("runson_numbers", message, "remove this setting, or use a template of your own");
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
