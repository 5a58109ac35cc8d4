//! HCL's values, and the functions of Nomad's job files that runners' templates use.

use serde_json::{Map, Number, Value, json};

/// Functions that read files: disabled on a server (contract, section 1).
pub const READS_FILES: [&str; 12] = [
    "abspath",
    "basename",
    "dirname",
    "file",
    "filebase64",
    "fileexists",
    "fileset",
    "filemd5",
    "filesha1",
    "filesha256",
    "pathexpand",
    "templatefile",
];

const NAMES: [&str; 34] = [
    "abs",
    "base64decode",
    "base64encode",
    "ceil",
    "chomp",
    "coalesce",
    "concat",
    "contains",
    "distinct",
    "element",
    "flatten",
    "floor",
    "format",
    "join",
    "jsondecode",
    "jsonencode",
    "keys",
    "length",
    "lookup",
    "lower",
    "max",
    "merge",
    "min",
    "range",
    "replace",
    "reverse",
    "split",
    "substr",
    "tonumber",
    "tostring",
    "trimspace",
    "upper",
    "values",
    "toset",
];

/// Whether there is a function of this name.
pub fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

/// A value as a string, if it converts to one.
pub fn to_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(number) => Some(match number.as_f64().filter(|_| number.is_f64()) {
            Some(float) => float.to_string(),
            None => number.to_string(),
        }),
        _ => None,
    }
}

/// A value as a number, if it converts to one.
pub fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok().filter(|n: &f64| n.is_finite()),
        _ => None,
    }
}

/// A number as a value, an integer if possible.
pub fn from_number(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 9.0e18 {
        return Value::from(number as i64);
    }
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

/// A value as a boolean, if it converts to one.
pub fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(value) => Some(*value),
        Value::String(text) if text == "true" || text == "1" => Some(true),
        Value::String(text) if text == "false" || text == "0" => Some(false),
        _ => None,
    }
}

/// HCL's equality: numbers by value.
pub fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x.as_f64() == y.as_f64(),
        _ => a == b,
    }
}

/// HCL's name for a value's type.
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "dynamic",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "tuple",
        Value::Object(_) => "object",
    }
}

/// The arguments of a function call.
struct Arguments<'a>(&'a [Value]);

impl Arguments<'_> {
    fn at(&self, index: usize) -> Result<&Value, String> {
        self.0.get(index).ok_or_else(|| "not enough arguments".to_owned())
    }

    fn text(&self, index: usize) -> Result<String, String> {
        to_text(self.at(index)?).ok_or_else(|| "string required".to_owned())
    }

    fn float(&self, index: usize) -> Result<f64, String> {
        number(self.at(index)?).ok_or_else(|| "a number is required".to_owned())
    }

    fn list(&self, index: usize) -> Result<Vec<Value>, String> {
        match self.at(index)? {
            Value::Array(items) => Ok(items.clone()),
            _ => Err("list required".to_owned()),
        }
    }

    fn object(&self, index: usize) -> Result<Map<String, Value>, String> {
        match self.at(index)? {
            Value::Object(map) => Ok(map.clone()),
            _ => Err("map required".to_owned()),
        }
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

/// Calls an existing function.
pub fn call(name: &str, arguments: &[Value]) -> Result<Value, String> {
    let arguments = Arguments(arguments);
    for group in [of_numbers, of_texts, of_collections, of_maps] {
        if let Some(value) = group(name, &arguments)? {
            return Ok(value);
        }
    }
    Err("not simulated".into())
}

fn of_numbers(name: &str, arguments: &Arguments<'_>) -> Result<Option<Value>, String> {
    Ok(Some(match name {
        "abs" => from_number(arguments.float(0)?.abs()),
        "ceil" => from_number(arguments.float(0)?.ceil()),
        "floor" => from_number(arguments.float(0)?.floor()),
        "max" | "min" => {
            let numbers =
                (0..arguments.len()).map(|index| arguments.float(index)).collect::<Result<Vec<_>, _>>()?;
            let pick = if name == "max" { f64::max } else { f64::min };
            from_number(numbers.into_iter().reduce(pick).ok_or("must pass at least one number")?)
        }
        "tonumber" => from_number(arguments.float(0)?),
        _ => return Ok(None),
    }))
}

fn of_texts(name: &str, arguments: &Arguments<'_>) -> Result<Option<Value>, String> {
    Ok(Some(match name {
        "base64encode" => {
            use base64::Engine as _;
            json!(base64::engine::general_purpose::STANDARD.encode(arguments.text(0)?))
        }
        "base64decode" => {
            use base64::Engine as _;
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(arguments.text(0)?)
                .map_err(|_| "failed to decode base64 data".to_owned())?;
            json!(String::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned())?)
        }
        "chomp" => json!(arguments.text(0)?.trim_end_matches(['\r', '\n'])),
        "lower" => json!(arguments.text(0)?.to_lowercase()),
        "upper" => json!(arguments.text(0)?.to_uppercase()),
        "trimspace" => json!(arguments.text(0)?.trim()),
        "tostring" => json!(arguments.text(0)?),
        "replace" => json!(arguments.text(0)?.replace(&arguments.text(1)?, &arguments.text(2)?)),
        "split" => json!(arguments.text(1)?.split(&arguments.text(0)?).collect::<Vec<_>>()),
        "join" => {
            let mut parts = Vec::new();
            for index in 1..arguments.len() {
                for item in arguments.list(index)? {
                    parts.push(to_text(&item).ok_or("string required")?);
                }
            }
            json!(parts.join(&arguments.text(0)?))
        }
        "substr" => {
            let (chars, offset): (Vec<char>, f64) =
                (arguments.text(0)?.chars().collect(), arguments.float(1)?);
            let start = if offset < 0.0 { chars.len() as f64 + offset } else { offset }.max(0.0) as usize;
            let length = arguments.float(2)?;
            let taken = if length < 0.0 { chars.len() } else { length as usize };
            json!(chars.into_iter().skip(start).take(taken).collect::<String>())
        }
        "format" => json!(format(&arguments.text(0)?, &arguments.0[1..])?),
        "jsonencode" => json!(arguments.at(0)?.to_string()),
        "jsondecode" => serde_json::from_str(&arguments.text(0)?).map_err(|e| e.to_string())?,
        _ => return Ok(None),
    }))
}

fn of_collections(name: &str, arguments: &Arguments<'_>) -> Result<Option<Value>, String> {
    Ok(Some(match name {
        "coalesce" => arguments.0.iter().find(|v| !v.is_null()).cloned().ok_or("no non-null arguments")?,
        "length" => match arguments.at(0)? {
            Value::Array(items) => json!(items.len()),
            Value::Object(map) => json!(map.len()),
            Value::String(text) => json!(text.chars().count()),
            _ => return Err("argument must be a string, a collection type, or a structural type".into()),
        },
        "contains" => json!(
            arguments.list(0)?.iter().any(|item| arguments.at(1).is_ok_and(|wanted| equal(item, wanted)))
        ),
        "concat" => {
            let mut all = Vec::new();
            for index in 0..arguments.len() {
                all.extend(arguments.list(index)?);
            }
            Value::Array(all)
        }
        "distinct" | "toset" => {
            let mut kept: Vec<Value> = Vec::new();
            for item in arguments.list(0)? {
                if !kept.iter().any(|other| equal(other, &item)) {
                    kept.push(item);
                }
            }
            Value::Array(kept)
        }
        "element" => {
            let items = arguments.list(0)?;
            let index = arguments.float(1)?.max(0.0) as usize;
            items
                .get(index % items.len().max(1))
                .cloned()
                .ok_or("cannot use element function with an empty list")?
        }
        "flatten" => Value::Array(flatten(&arguments.list(0)?)),
        "reverse" => Value::Array(arguments.list(0)?.into_iter().rev().collect()),
        "range" => {
            let (start, end) = if arguments.len() > 1 {
                (arguments.float(0)?, arguments.float(1)?)
            } else {
                (0.0, arguments.float(0)?)
            };
            if end - start > 1024.0 {
                return Err("more than 1024 values were generated".into());
            }
            Value::Array((start as i64..end as i64).map(Value::from).collect())
        }
        _ => return Ok(None),
    }))
}

fn of_maps(name: &str, arguments: &Arguments<'_>) -> Result<Option<Value>, String> {
    Ok(Some(match name {
        "keys" => Value::Array(sorted(arguments.object(0)?).into_keys().map(Value::String).collect()),
        "values" => Value::Array(sorted(arguments.object(0)?).into_values().collect()),
        "lookup" => match (arguments.object(0)?.get(&arguments.text(1)?), arguments.0.get(2)) {
            (Some(found), _) => found.clone(),
            (None, Some(default)) => default.clone(),
            (None, None) => return Err("lookup failed to find key".into()),
        },
        "merge" => {
            let mut merged = Map::new();
            for index in 0..arguments.len() {
                merged.extend(arguments.object(index)?);
            }
            Value::Object(merged)
        }
        _ => return Ok(None),
    }))
}

fn sorted(map: Map<String, Value>) -> std::collections::BTreeMap<String, Value> {
    map.into_iter().collect()
}

fn flatten(items: &[Value]) -> Vec<Value> {
    let mut flat = Vec::new();
    for item in items {
        match item {
            Value::Array(inner) => flat.extend(flatten(inner)),
            other => flat.push(other.clone()),
        }
    }
    flat
}

/// `format` with the verbs s, d, v, q, t and f.
fn format(pattern: &str, arguments: &[Value]) -> Result<String, String> {
    let mut text = String::new();
    let mut chars = pattern.chars();
    let mut next = arguments.iter();
    while let Some(c) = chars.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        let verb = chars.next().ok_or("unrecognized format character")?;
        if verb == '%' {
            text.push('%');
            continue;
        }
        let value = next.next().ok_or("not enough arguments")?;
        text += &match verb {
            's' | 't' => to_text(value).ok_or("unsupported value")?,
            'd' => from_number(number(value).ok_or("a number is required")?.trunc()).to_string(),
            'f' => format!("{:.6}", number(value).ok_or("a number is required")?),
            'q' => Value::String(to_text(value).ok_or("unsupported value")?).to_string(),
            'v' => to_text(value).unwrap_or_else(|| value.to_string()),
            other => return Err(format!("unsupported value for {other:?}")),
        };
    }
    Ok(text)
}
