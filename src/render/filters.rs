//! Filters and functions for templates, in addition to minijinja's.

use minijinja::{
    Environment, Error, ErrorKind, Value,
    value::{Kwargs, ValueKind},
};

/// Adds the filters and `nomadlib`.
pub(super) fn add_to(environment: &mut Environment<'static>) {
    environment.add_filter("int", int);
    environment.add_filter("hcl", hcl);
    environment.add_function("fail", fail);
    let nomadlib = minijinja::context! { escape => Value::from_function(nomadlib_escape) };
    environment.add_global("nomadlib", nomadlib);
}

/// Escapes text for a quoted string in HCL.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 16);
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '"' | '\\' => escaped.extend(['\\', c]),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            '$' | '%' if characters.peek() == Some(&'{') => escaped.extend([c, c]),
            c if c.is_control() => escaped.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => escaped.push(c),
        }
    }
    escaped
}

/// `"{{ value|hcl }}"`: no value can end the string or start an expression in it.
fn hcl(value: Value) -> Result<String, Error> {
    match value.kind() {
        ValueKind::Undefined => Ok(String::new()),
        _ => Ok(escape(&text(&value))),
    }
}

/// `nomadlib.escape`: `${` to `$${`, `%{` to `%%{`, so that a shell script survives HCL.
fn nomadlib_escape(value: Value) -> String {
    text(&value).replace("${", "$${").replace("%{", "%%{")
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// `fail("…")`: the template refuses the labels.
fn fail(message: String) -> Result<String, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// Jinja2's `int`: the default, 0, for anything that is not a number.
fn int(value: Value, default: Option<Value>, base: Option<u32>, kwargs: Kwargs) -> Result<Value, Error> {
    let default = match default {
        Some(default) => default,
        None => kwargs.get::<Option<Value>>("default")?.unwrap_or_else(|| Value::from(0)),
    };
    let base = match base {
        Some(base) => base,
        None => kwargs.get::<Option<u32>>("base")?.unwrap_or(10),
    };
    kwargs.assert_all_used()?;
    if !(2..=36).contains(&base) {
        return Err(Error::new(ErrorKind::InvalidOperation, "int accepts a base from 2 to 36"));
    }
    let number = match value.kind() {
        ValueKind::Bool => Some(i64::from(value.is_true())),
        ValueKind::Number => match i64::try_from(value.clone()) {
            Ok(number) => Some(number),
            Err(_) => f64::try_from(value).ok().and_then(whole),
        },
        ValueKind::String => parse(value.as_str().unwrap_or_default(), base),
        _ => None,
    };
    Ok(number.map_or(default, Value::from))
}

fn parse(text: &str, base: u32) -> Option<i64> {
    let text = text.trim();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let prefix = match base {
        2 => ["0b", "0B"],
        8 => ["0o", "0O"],
        16 => ["0x", "0X"],
        _ => ["", ""],
    };
    let bare = prefix.iter().find_map(|prefix| digits.strip_prefix(prefix)).unwrap_or(digits);
    if bare.starts_with(|c: char| c.is_ascii_alphanumeric())
        && let Ok(number) = i64::from_str_radix(&format!("{sign}{bare}"), base)
    {
        return Some(number);
    }
    // "12.7" is 12, as in Jinja2.
    if base == 10 { text.parse().ok().and_then(whole) } else { None }
}

fn whole(number: f64) -> Option<i64> {
    // Within the range that a float represents exactly.
    (number.abs() < 9e15).then_some(number as i64)
}
