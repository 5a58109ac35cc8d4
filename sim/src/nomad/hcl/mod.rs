//! `POST /v1/jobs/parse`: HCL2 to the API's job (contract, section 1).
//!
//! `hcl-rs` parses the text, with positions. The schema determines what a job may contain. Errors have Nomad's
//! wording where a template's author is likely to see them.

mod convert;
mod decode;
mod eval;
mod functions;
mod jsonform;
mod source;
mod syntax;

use std::collections::BTreeMap;

use decode::Decoder;
pub use decode::unset;
use eval::Scope;
use hcl::edit::{
    expr::Expression,
    structure::{Block, Body, Structure},
};
use serde_json::{Map, Value, json};
use source::{Diagnostics, Source, span};

/// Parses a job. `variables` is the content of a variable file.
///
/// # Errors
/// The text after `Failed to parse job: `.
pub fn parse(text: &str, variables: &str) -> Result<Value, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let converted;
    let text = if text.trim_start().starts_with('{') {
        converted = jsonform::to_native(text)?;
        converted.as_str()
    } else {
        text
    };
    let source = Source::new(text);
    let body = syntax::parse(&source)?;
    let job = job_block(&source, &body).map_err(|errors| errors.join("\n"))?;
    let given = variable_file(variables)?;
    let scope = scope(&source, &body, &given).map_err(|errors| errors.join("\n"))?;
    let mut decoder = Decoder::new(&source);
    let job = decoder.job(&scope, job);
    if decoder.errors.is_empty() { Ok(job) } else { Err(decoder.errors.join("\n")) }
}

/// The only `job` block, after checking the other blocks.
fn job_block<'b>(source: &Source<'_>, body: &'b Body) -> Result<&'b Block, Diagnostics> {
    let mut errors = Diagnostics::new();
    let mut found: Option<&Block> = None;
    for structure in body {
        let block = match structure {
            Structure::Attribute(attribute) => {
                let name = attribute.key.as_str();
                let detail = format!("An argument named {name:?} is not expected here.");
                errors.extend(source.error(decode::place(&attribute.key), "Unsupported argument", detail));
                continue;
            }
            Structure::Block(block) => block,
        };
        match block.ident.as_str() {
            "job" => match found {
                None => found = Some(block),
                Some(first) => {
                    let detail = format!(
                        "Only one block of type \"job\" is allowed. Previous definition was at {}.",
                        source.place(decode::header(first))
                    );
                    return Err(source.error(decode::header(block), "Duplicate job block", detail));
                }
            },
            "variable" | "variables" | "locals" => {}
            other => {
                let detail = format!("Blocks of type {other:?} are not expected here.");
                errors.extend(source.error(decode::place(&block.ident), "Unsupported block type", detail));
            }
        }
    }
    match found {
        _ if !errors.is_empty() => Err(errors),
        Some(job) => Ok(job),
        None => Err(vec!["<nil>: Missing job block; A job block is required".into()]),
    }
}

/// The values in a variable file.
fn variable_file(text: &str) -> Result<BTreeMap<String, Value>, String> {
    if text.is_empty() {
        return Ok(BTreeMap::new());
    }
    let source = Source::new(text);
    let body = syntax::parse(&source)?;
    let scope = Scope { source: &source, names: BTreeMap::new() };
    let mut values = BTreeMap::new();
    for attribute in body.attributes() {
        let value = scope.value(&attribute.value).map_err(|errors| errors.join("\n"))?;
        values.insert(attribute.key.as_str().to_owned(), value);
    }
    Ok(values)
}

/// `var` and `local`, from the blocks that define them.
fn scope<'s>(
    source: &'s Source<'s>,
    body: &Body,
    given: &BTreeMap<String, Value>,
) -> Result<Scope<'s>, Diagnostics> {
    let mut scope = Scope { source, names: BTreeMap::new() };
    let mut variables = Map::new();
    for block in body.get_blocks("variable") {
        let Some(name) = block.labels.first().map(|label| label.as_str().to_owned()) else { continue };
        let default = block.body.get_attribute("default").map(|default| &default.value);
        let value = match (given.get(&name), default) {
            (Some(given), _) => given.clone(),
            (None, Some(default)) => {
                let value = scope.value(default)?;
                let wants = block.body.get_attribute("type").and_then(|kind| kind.value.as_variable());
                if wants.is_some_and(|kind| kind.as_str() == "number") && functions::number(&value).is_none()
                {
                    let detail = "This default value is not compatible with the variable's type constraint: a number is required.";
                    return Err(source.error(span(default), "Invalid default value for variable", detail));
                }
                value
            }
            (None, None) if !source.text().contains(&format!("var.{name}")) => Value::Null,
            (None, None) => {
                let more = "https://developer.hashicorp.com/nomad/docs/reference/hcl2/variables";
                let detail =
                    format!("A used variable must be set or have a default value; see {more}  for details.");
                return Err(vec![format!("<nil>: Unset variable {name:?}; {detail}")]);
            }
        };
        variables.insert(name, value);
    }
    for attribute in body.get_blocks("variables").flat_map(|block| block.body.attributes()) {
        let name = attribute.key.as_str().to_owned();
        let value = match given.get(&name) {
            Some(given) => given.clone(),
            None => scope.value(&attribute.value)?,
        };
        variables.insert(name, value);
    }
    scope.names.insert("var".into(), Value::Object(variables));
    locals(&mut scope, body)?;
    Ok(scope)
}

/// `local`: they may refer to each other in any order.
fn locals(scope: &mut Scope<'_>, body: &Body) -> Result<(), Diagnostics> {
    let mut waiting: Vec<(&str, &Expression)> = body
        .get_blocks("locals")
        .flat_map(|block| block.body.attributes())
        .map(|attribute| (attribute.key.as_str(), &attribute.value))
        .collect();
    scope.names.insert("local".into(), json!({}));
    while !waiting.is_empty() {
        let before = waiting.len();
        let mut errors = Diagnostics::new();
        waiting.retain(|(name, expression)| match scope.value(expression) {
            Ok(value) => {
                if let Some(Value::Object(local)) = scope.names.get_mut("local") {
                    local.insert((*name).to_owned(), value);
                }
                false
            }
            Err(more) => {
                errors.extend(more);
                true
            }
        });
        if waiting.len() == before {
            return Err(errors);
        }
    }
    Ok(())
}
