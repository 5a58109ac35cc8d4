//! HCL's JSON syntax, converted to the native one by the schema. A body that begins with `{` is JSON.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::{
    super::schema::{JOB, Kind, PORT, Type},
    convert::{attribute_field, block_exists, short_form, suggestion},
};

/// The same job in native syntax. Positions in later errors are those of the converted text.
///
/// # Errors
/// The text after `Failed to parse job: `.
pub fn to_native(text: &str) -> Result<String, String> {
    let root: Value = serde_json::from_str(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("input.hcl:{line},{column}-{column}: Invalid JSON; {error}")
    })?;
    let Value::Object(root) = root else {
        return Err("input.hcl:1,1-2: Incorrect JSON value type; A JSON object is required here.".into());
    };
    let mut writer = Writer { text, out: String::new() };
    for (key, value) in &root {
        match key.as_str() {
            "job" => writer.labelled(&JOB, "job", value)?,
            "variable" => {
                for (name, body) in value.as_object().into_iter().flatten() {
                    let _ = writeln!(writer.out, "variable {} {{", quote(name));
                    writer.attributes(body, &["type"]);
                    writer.out.push_str("}\n");
                }
            }
            "locals" | "variables" => {
                let _ = writeln!(writer.out, "{key} {{");
                writer.attributes(value, &[]);
                writer.out.push_str("}\n");
            }
            other => return Err(writer.extraneous(other, ["job", "variable", "locals"].into_iter())),
        }
    }
    Ok(writer.out)
}

struct Writer<'t> {
    text: &'t str,
    out: String,
}

impl Writer<'_> {
    fn extraneous<'n>(&self, name: &str, names: impl Iterator<Item = &'n str>) -> String {
        let quoted = quote(name);
        let at = self.text.find(&quoted).unwrap_or_default();
        let before = self.text.get(..at).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let hint =
            suggestion(name, names).map_or_else(String::new, |near| format!(" Did you mean {near:?}?"));
        let end = column + quoted.chars().count();
        let detail = format!("No argument or block type is named {name:?}.{hint}");
        format!("input.hcl:{line},{column}-{end}: Extraneous JSON object property; {detail}")
    }

    fn body(&mut self, ty: &'static Type, block: &str, object: &Map<String, Value>) -> Result<(), String> {
        for (key, value) in object {
            let field = ty.fields.iter().find(|f| f.hcl == key.as_str() && !key.is_empty());
            match field.map(|f| f.kind) {
                Some(Kind::One(inner) | Kind::Many(inner)) => {
                    for one in each(value) {
                        self.block(inner, key, None, one)?;
                    }
                }
                Some(Kind::Named(inner, _) | Kind::Keyed(inner, _)) => self.labelled(inner, key, value)?,
                Some(Kind::Any) if key == "config" => {
                    for one in each(value) {
                        let _ = writeln!(self.out, "{key} {{");
                        self.attributes(one, &[]);
                        self.out.push_str("}\n");
                    }
                }
                _ if block == "network" && key == "port" => self.labelled(&PORT, key, value)?,
                _ if block == "task" && key == "identity" => {
                    for one in each(value) {
                        self.block(&super::super::schema::IDENTITY, key, None, one)?;
                    }
                }
                _ if attribute_field(ty, key).is_some() || short_form(block, key).is_some() => {
                    let _ = writeln!(self.out, "{key} = {}", expression(value));
                }
                _ if block_exists(ty, block, key) => {}
                _ => return Err(self.extraneous(key, ty.fields.iter().map(|f| f.hcl))),
            }
        }
        Ok(())
    }

    fn block(
        &mut self,
        ty: &'static Type,
        name: &str,
        label: Option<&str>,
        body: &Value,
    ) -> Result<(), String> {
        let label = label.map(|label| format!(" {}", quote(label))).unwrap_or_default();
        let _ = writeln!(self.out, "{name}{label} {{");
        if let Value::Object(object) = body {
            self.body(ty, name, object)?;
        }
        self.out.push_str("}\n");
        Ok(())
    }

    fn labelled(&mut self, ty: &'static Type, name: &str, value: &Value) -> Result<(), String> {
        for group in each(value) {
            for (label, bodies) in group.as_object().into_iter().flatten() {
                for body in each(bodies) {
                    self.block(ty, name, Some(label), body)?;
                }
            }
        }
        Ok(())
    }

    fn attributes(&mut self, object: &Value, bare: &[&str]) {
        for (key, value) in object.as_object().into_iter().flatten() {
            match value.as_str().filter(|_| bare.contains(&key.as_str())) {
                Some(name) => {
                    let _ = writeln!(self.out, "{key} = {name}");
                }
                None => {
                    let _ = writeln!(self.out, "{key} = {}", expression(value));
                }
            }
        }
    }
}

/// The items of a list, or a single value that is not a list.
fn each(value: &Value) -> impl Iterator<Item = &Value> {
    match value {
        Value::Array(items) => items.iter(),
        other => std::slice::from_ref(other).iter(),
    }
}

fn expression(value: &Value) -> String {
    match value {
        Value::String(text) => quote(text),
        Value::Array(items) => format!("[{}]", items.iter().map(expression).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let items: Vec<_> =
                map.iter().map(|(k, v)| format!("{} = {}", quote(k), expression(v))).collect();
            format!("{{{}}}", items.join(", "))
        }
        other => other.to_string(),
    }
}

/// A quoted template: escaped outside of `${ … }`, unchanged inside.
fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    let mut depth = 0usize;
    let mut previous = ' ';
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '$' | '%' if chars.peek() == Some(&'{') && previous != c => {
                chars.next();
                depth += 1;
                out.push(c);
                out.push('{');
            }
            '}' => {
                depth = depth.saturating_sub(1);
                out.push(c);
            }
            _ if depth > 0 => out.push(c),
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            other => out.push(other),
        }
        previous = c;
    }
    out.push('"');
    out
}
