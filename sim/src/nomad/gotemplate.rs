//! The part of Go's templates and consul-template's functions that runners' environments need.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Variable;

/// A piece of a template.
#[derive(Debug, Clone)]
enum Piece {
    Text(String),
    Action(String),
}

/// Evaluates templates.
pub struct Engine<'e, F> {
    lookup: F,
    env: &'e BTreeMap<String, String>,
    /// The paths of requested variables that were not found.
    pub missing: Vec<String>,
    names: BTreeMap<String, Value>,
}

impl<'e, F: Fn(&str) -> Option<&'e Variable>> Engine<'e, F> {
    /// With a lookup for variables, and the environment for `env`.
    pub fn new(lookup: F, env: &'e BTreeMap<String, String>) -> Self {
        Engine { lookup, env, missing: Vec::new(), names: BTreeMap::new() }
    }

    /// The output of a template.
    ///
    /// # Errors
    /// Unsupported or invalid syntax.
    pub fn template(&mut self, text: &str) -> Result<String, String> {
        let pieces = pieces(text)?;
        let mut out = String::new();
        let end = self.run(&pieces, 0, &Value::Null, true, &mut out)?;
        if end < pieces.len() { Err("unexpected {{end}}".into()) } else { Ok(out) }
    }

    /// Runs pieces until the block's `end` or `else`, and returns its position.
    fn run(
        &mut self,
        pieces: &[Piece],
        from: usize,
        dot: &Value,
        on: bool,
        out: &mut String,
    ) -> Result<usize, String> {
        let mut at = from;
        while let Some(piece) = pieces.get(at) {
            match piece {
                Piece::Text(text) => {
                    if on {
                        out.push_str(text);
                    }
                    at += 1;
                }
                Piece::Action(action) => {
                    let (word, rest) = action.split_once(char::is_whitespace).unwrap_or((action, ""));
                    match word {
                        "end" | "else" => return Ok(at),
                        "with" | "if" | "range" => {
                            at = self.block(pieces, at, word, rest.trim(), dot, on, out)?
                        }
                        _ if action.starts_with("/*") => at += 1,
                        _ => {
                            if on {
                                let value = self.pipeline(action, dot)?;
                                out.push_str(&shown(&value));
                            }
                            at += 1;
                        }
                    }
                }
            }
        }
        Ok(at)
    }

    #[allow(clippy::too_many_arguments)]
    fn block(
        &mut self,
        pieces: &[Piece],
        at: usize,
        word: &str,
        rest: &str,
        dot: &Value,
        on: bool,
        out: &mut String,
    ) -> Result<usize, String> {
        let (names, expression) = match rest.split_once(":=") {
            Some((names, expression)) => {
                (names.split(',').map(|n| n.trim().to_owned()).collect(), expression.trim())
            }
            None => (Vec::new(), rest),
        };
        let value = if on { self.pipeline(expression, dot)? } else { Value::Null };
        let holds = !matches!(&value, Value::Null | Value::Bool(false))
            && value != json!("")
            && value.as_object().is_none_or(|map| !map.is_empty())
            && value.as_array().is_none_or(|list| !list.is_empty());
        let mut end = at;
        if word == "range" && on && holds {
            let entries: Vec<(Value, Value)> = match value {
                Value::Object(map) => map.into_iter().map(|(k, v)| (json!(k), v)).collect(),
                Value::Array(items) => items.into_iter().enumerate().map(|(n, v)| (json!(n), v)).collect(),
                _ => return Err(format!("range can't iterate over {expression}")),
            };
            for (key, item) in entries {
                match names.as_slice() {
                    [one] => {
                        self.names.insert(one.clone(), item.clone());
                    }
                    [one, two] => {
                        self.names.insert(one.clone(), key);
                        self.names.insert(two.clone(), item.clone());
                    }
                    _ => {}
                }
                end = self.run(pieces, at + 1, &item, true, out)?;
            }
        } else {
            if let [one] = names.as_slice() {
                self.names.insert(one.clone(), value.clone());
            }
            let inner = if word == "with" { &value } else { dot };
            end = self.run(pieces, end + 1, inner, on && holds, out)?;
        }
        match pieces.get(end) {
            Some(Piece::Action(action)) if action.trim() == "end" => Ok(end + 1),
            Some(Piece::Action(action)) if action.trim() == "else" => {
                let end = self.run(pieces, end + 1, dot, on && !holds, out)?;
                if end < pieces.len() { Ok(end + 1) } else { Err("unexpected EOF".into()) }
            }
            _ => Err("unexpected EOF".into()),
        }
    }

    fn pipeline(&mut self, text: &str, dot: &Value) -> Result<Value, String> {
        let mut piped: Option<Value> = None;
        for stage in split(text, '|') {
            let mut words = words(stage.trim())?;
            if words.is_empty() {
                return Err(format!("missing value for {text:?}"));
            }
            let head = words.remove(0);
            let mut arguments = Vec::new();
            for word in &words {
                arguments.push(self.term(word, dot)?);
            }
            arguments.extend(piped.take());
            piped = Some(if arguments.is_empty() {
                self.term(&head, dot)?
            } else {
                self.call(&head, &arguments)?
            });
        }
        Ok(piped.unwrap_or_default())
    }

    fn term(&mut self, word: &str, dot: &Value) -> Result<Value, String> {
        if let Some(inner) = word.strip_prefix('(').and_then(|w| w.strip_suffix(')')) {
            return self.pipeline(inner, dot);
        }
        if word.starts_with('"') {
            return serde_json::from_str(word).map_err(|e| e.to_string());
        }
        if let Some(raw) = word.strip_prefix('`').and_then(|w| w.strip_suffix('`')) {
            return Ok(json!(raw));
        }
        if word.starts_with('$') {
            let (name, path) = word.split_once('.').unwrap_or((word, ""));
            let value =
                self.names.get(name).cloned().ok_or_else(|| format!("undefined variable {name:?}"))?;
            return Ok(field(&value, path));
        }
        if let Some(path) = word.strip_prefix('.') {
            return Ok(field(dot, path));
        }
        if let Ok(number) = word.parse::<i64>() {
            return Ok(json!(number));
        }
        Err(format!("function {word:?} not defined"))
    }

    fn call(&mut self, name: &str, arguments: &[Value]) -> Result<Value, String> {
        let text = |at: usize| arguments.get(at).map(shown).unwrap_or_default();
        Ok(match name {
            "nomadVar" => {
                let path = text(0);
                match (self.lookup)(path.split('@').next().unwrap_or_default()) {
                    Some(variable) => json!(variable.items),
                    None => {
                        self.missing.push(path);
                        Value::Null
                    }
                }
            }
            "nomadVarExists" => json!((self.lookup)(&text(0)).is_some()),
            "env" | "mustEnv" => json!(self.env.get(&text(0)).cloned().unwrap_or_default()),
            "index" => arguments.get(1).map_or(Value::Null, |key| field(&arguments[0], &shown(key))),
            "printf" => {
                let mut out = text(0);
                for at in 1..arguments.len() {
                    out = out.replacen("%s", &text(at), 1).replacen("%v", &text(at), 1);
                }
                json!(out)
            }
            "toJSON" => json!(arguments.first().map(Value::to_string).unwrap_or_default()),
            "toLower" => json!(text(0).to_lowercase()),
            "toUpper" => json!(text(0).to_uppercase()),
            "trimSpace" => json!(text(0).trim()),
            "base64Encode" => {
                use base64::Engine as _;
                json!(base64::engine::general_purpose::STANDARD.encode(text(0)))
            }
            "base64Decode" => {
                use base64::Engine as _;
                let bytes =
                    base64::engine::general_purpose::STANDARD.decode(text(0)).map_err(|e| e.to_string())?;
                json!(String::from_utf8_lossy(&bytes))
            }
            other => return Err(format!("function {other:?} not defined")),
        })
    }
}

/// A field of a value. A variable's items are also a list of pairs, `.Tuples`.
fn field(value: &Value, path: &str) -> Value {
    if path.is_empty() {
        return value.clone();
    }
    if path == "Tuples" {
        let items = value.as_object().into_iter().flatten();
        return items.map(|(k, v)| json!({"K": k, "V": v})).collect();
    }
    path.split('.').fold(value.clone(), |value, name| value.get(name).cloned().unwrap_or_default())
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "<no value>".into(),
        other => other.to_string(),
    }
}

fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim = false;
    loop {
        let (before, action) = match rest.split_once("{{") {
            Some((before, action)) => (before, Some(action)),
            None => (rest, None),
        };
        let cut_right = action.is_some_and(|a| a.starts_with("- "));
        let before = if trim { before.trim_start() } else { before };
        let before = if cut_right { before.trim_end() } else { before };
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        let Some(action) = action else { return Ok(pieces) };
        let (inner, after) = action.split_once("}}").ok_or("unclosed action")?;
        let inner = inner.strip_prefix("- ").unwrap_or(inner);
        trim = inner.ends_with(" -");
        pieces.push(Piece::Action(inner.strip_suffix(" -").unwrap_or(inner).trim().to_owned()));
        rest = after;
    }
}

/// Splits outside of quotes and parentheses.
fn split(text: &str, by: char) -> Vec<&str> {
    let (mut parts, mut start, mut quoted, mut depth) = (Vec::new(), 0, false, 0u32);
    for (at, c) in text.char_indices() {
        match c {
            '"' | '`' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth = depth.saturating_sub(1),
            c if c == by && !quoted && depth == 0 => {
                parts.push(&text[start..at]);
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn words(text: &str) -> Result<Vec<String>, String> {
    let parts = split(text, ' ');
    Ok(parts.into_iter().map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_yield_lines_of_an_environment() {
        let items = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "x=y".to_owned())]);
        let variable = Variable {
            namespace: "default".into(),
            path: "p".into(),
            items,
            create_index: 1,
            modify_index: 1,
            create_time: 0,
            modify_time: 0,
            lock: None,
        };
        let env = BTreeMap::from([("NOMAD_JOB_ID".to_owned(), "p".to_owned())]);
        let render = |text: &str| {
            let lookup = |path: &str| (path == "p").then_some(&variable);
            let mut engine = Engine::new(lookup, &env);
            engine.template(text).map(|out| (out, engine.missing))
        };
        for (text, out) in [
            ("{{ with nomadVar \"p\" }}A={{ .a }}\nB={{ .b }}\n{{ end }}", "A=1\nB=x=y\n"),
            ("{{ with nomadVar \"p\" -}}\n  A={{ .a }}\n{{- end }}", "A=1"),
            ("{{ range $k, $v := nomadVar \"p\" }}{{ $k }}={{ $v }};{{ end }}", "a=1;b=x=y;"),
            (
                "{{ with nomadVar \"p\" }}{{ range .Tuples }}{{ .K }}={{ .V }};{{ end }}{{ end }}",
                "a=1;b=x=y;",
            ),
            ("{{ with nomadVar (printf \"%s\" (env \"NOMAD_JOB_ID\")) }}{{ .a | toJSON }}{{ end }}", "\"1\""),
            ("{{ if nomadVarExists \"q\" }}yes{{ else }}no{{ end }}", "no"),
        ] {
            assert_eq!(render(text), Ok((out.to_owned(), Vec::new())), "{text}");
        }
        let waits = render("{{ with nomadVar \"q\" }}A={{ .a }}{{ end }}");
        assert_eq!(waits, Ok((String::new(), vec!["q".to_owned()])));
        for broken in ["{{ with nomadVar \"p\" }}", "{{ nosuch \"x\" }}", "{{ .a"] {
            assert!(render(broken).is_err(), "{broken}");
        }
    }
}
