//! The fields of blocks, and the conversion of values to their fields' types.

use serde_json::{Map, Value, json};

use super::{
    super::{
        gotime,
        schema::{Field, Kind, Type},
    },
    functions,
};

/// Whether a block of this name is permitted there.
pub fn block_exists(ty: &Type, block: &str, name: &str) -> bool {
    let beside =
        matches!((block, name), ("network", "port") | ("task", "identity") | ("job" | "group", "vault"));
    beside
        || ty
            .fields
            .iter()
            .any(|f| f.hcl == name && is_block(f.kind) && !matches!(f.kind, Kind::Map | Kind::Any))
}

/// The field an attribute of this name sets.
pub fn attribute_field(ty: &'static Type, name: &str) -> Option<&'static Field> {
    let attribute =
        |f: &&Field| f.hcl == name && (!is_block(f.kind) || matches!(f.kind, Kind::Map | Kind::Any));
    ty.fields.iter().find(attribute).filter(|f| !f.hcl.is_empty() && f.hcl != "config")
}

/// Whether a field of this kind is written as a block.
pub fn is_block(kind: Kind) -> bool {
    !matches!(kind, Kind::Str | Kind::Int | Kind::Bool | Kind::Span | Kind::Strs)
}

/// The operator of a short form of a constraint or an affinity.
pub fn short_form(block: &str, attribute: &str) -> Option<&'static str> {
    const CONSTRAINT: [&str; 9] = [
        "version",
        "semver",
        "regexp",
        "set_contains",
        "set_contains_any",
        "set_contains_all",
        "distinct_hosts",
        "distinct_property",
        "is_set",
    ];
    let names = match block {
        "constraint" => &CONSTRAINT[..],
        "affinity" => &CONSTRAINT[..6],
        _ => return None,
    };
    names.iter().find(|name| **name == attribute).copied()
}

/// The first similar name.
pub fn suggestion<'n>(given: &str, mut names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    names.find(|name| !name.is_empty() && strsim::levenshtein(given, name) < 3)
}

/// A value as a string, or why not.
pub fn string_item(value: &Value) -> Result<String, String> {
    match value {
        Value::Null => Err("value: null value is not allowed".into()),
        other => functions::to_text(other)
            .ok_or_else(|| format!("value: string required, but have {}", functions::type_name(other))),
    }
}

/// A value in its field's type, or why not.
pub fn convert(kind: Kind, value: Value) -> Result<Value, String> {
    match kind {
        Kind::Str => string_item(&value).map(Value::String),
        Kind::Int => {
            let number = functions::number(&value).ok_or("value: a number is required")?;
            let whole = match &value {
                Value::Number(exact) if !exact.is_f64() => exact.as_i64(),
                _ => functions::from_number(number).as_i64(),
            };
            whole.map(Value::from).ok_or_else(|| {
                "value: value must be a whole number, between -9223372036854775808 and 9223372036854775807".into()
            })
        }
        Kind::Bool => {
            functions::boolean(&value).map(Value::Bool).ok_or_else(|| "value: a bool is required".into())
        }
        Kind::Span => match &value {
            Value::String(text) => {
                gotime::parse(text).map(Value::from).map_err(|error| format!("duration value: {error}"))
            }
            other => functions::number(other)
                .and_then(|n| functions::from_number(n).as_i64())
                .map(Value::from)
                .ok_or_else(|| "value: expected a string".into()),
        },
        Kind::Strs => match value {
            Value::Array(items) => {
                items.iter().map(string_item).collect::<Result<Vec<_>, _>>().map(|items| json!(items))
            }
            other => {
                Err(format!("value: list of string required, but have {}", functions::type_name(&other)))
            }
        },
        Kind::Map => match value {
            Value::Object(map) => {
                let items =
                    map.into_iter().map(|(key, value)| string_item(&value).map(|text| (key, json!(text))));
                items.collect::<Result<Map<_, _>, _>>().map(Value::Object)
            }
            _ => Err("value: map of string required".into()),
        },
        _ => Ok(value),
    }
}
