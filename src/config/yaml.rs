//! YAML with positions: a tree in which every node and key knows its line and column. Plain scalars mean what
//! they mean to PyYAML's `safe_load` (YAML 1.1): `yes` and `on` are booleans, `<<` merges.

use std::{collections::BTreeMap, rc::Rc};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use super::error::ConfigError;
use crate::labels::harmless;

/// A configuration has a few hundred nodes. Aliases of aliases can expand to any number.
const NODES_MAX: usize = 20_000;

/// Deeper nesting is useless here, and code that walks the tree is recursive.
const DEPTH_MAX: usize = 64;

/// A configuration with a template in it has a few kilobytes.
const BYTES_MAX: usize = 4 << 20;

/// Line and column, from 1.
pub type Place = (usize, usize);

/// A node of the tree.
#[derive(Debug)]
pub struct Node {
    pub data: Data,
    pub place: Place,
    size: usize,
}

/// The content of a node.
#[derive(Debug)]
pub enum Data {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Rc<Node>>),
    Map(Vec<(Key, Rc<Node>)>),
}

/// A mapping's key, as written.
#[derive(Clone, Debug)]
pub struct Key {
    pub text: String,
    pub place: Place,
}

impl Node {
    /// Its kind, for messages.
    pub fn kind(&self) -> String {
        match &self.data {
            Data::Null => "nothing".to_owned(),
            Data::Bool(value) => format!("{value}, a boolean"),
            Data::Int(value) => format!("the number {value}"),
            Data::Float(value) => format!("the number {value}"),
            Data::Text(_) => "text".to_owned(),
            Data::List(_) => "a list".to_owned(),
            Data::Map(_) => "a mapping".to_owned(),
        }
    }

    /// A text node.
    pub fn text(text: &str, place: Place) -> Node {
        Node { data: Data::Text(text.to_owned()), place, size: 1 }
    }

    /// The position of the value at a path of keys, or of as much of the path as exists.
    pub fn key_place(&self, path: &[&str]) -> Place {
        let mut node = self;
        for key in path {
            let Data::Map(entries) = &node.data else { break };
            match entries.iter().find(|(other, _)| other.text == *key) {
                Some((_, next)) => node = next,
                None => break,
            }
        }
        node.place
    }

    /// Converts it to JSON.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value;
        match &self.data {
            Data::Null => Value::Null,
            Data::Bool(value) => Value::from(*value),
            Data::Int(value) => Value::from(*value),
            Data::Float(value) => Value::from(*value),
            Data::Text(text) => Value::from(text.as_str()),
            Data::List(items) => items.iter().map(|item| item.to_json()).collect(),
            Data::Map(entries) => {
                entries.iter().map(|(key, node)| (key.text.clone(), node.to_json())).collect()
            }
        }
    }
}

/// Parses a text with one document; an empty one is a Null.
///
/// # Errors
/// A syntax error that prevents further parsing is returned alone. Duplicate keys and the like are collected,
/// and returned with whatever could be read.
pub fn parse(text: &str) -> (Option<Rc<Node>>, Vec<ConfigError>) {
    let mut loader = Loader::default();
    if text.len() > BYTES_MAX {
        loader.problem((1, 1), "larger than 4 MiB", "is this the right file?");
        return (None, loader.errors);
    }
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let going_on = match event {
            Ok((event, span)) => loader.take(event, place(span.start)),
            Err(error) => {
                let message = format!("not YAML: {}", error.info());
                loader.problem(place(*error.marker()), &message, syntax_help(text, *error.marker()));
                return (None, loader.errors);
            }
        };
        if !going_on {
            return (None, loader.errors);
        }
    }
    let null = || Rc::new(Node { data: Data::Null, place: (1, 1), size: 1 });
    (Some(loader.root.unwrap_or_else(null)), loader.errors)
}

fn place(marker: Marker) -> Place {
    (marker.line(), marker.col() + 1)
}

/// The most common mistakes.
fn syntax_help(text: &str, marker: Marker) -> &'static str {
    let line = text.lines().nth(marker.line().saturating_sub(1)).unwrap_or("");
    if line.trim_start_matches(' ').starts_with('\t') {
        return "indent with spaces, not with tabs";
    }
    if line.trim_end().ends_with('*') {
        return "put the * in quotes: \"*\"";
    }
    "check the indentation here and in the line above, and quote text with special characters"
}

/// Builds the tree from the parser's events, without recursion.
#[derive(Default)]
struct Loader {
    root: Option<Rc<Node>>,
    documents: usize,
    open: Vec<Open>,
    anchors: BTreeMap<usize, Rc<Node>>,
    errors: Vec<ConfigError>,
    nodes: usize,
}

struct Open {
    place: Place,
    anchor: usize,
    size: usize,
    kind: OpenKind,
}

enum OpenKind {
    List(Vec<Rc<Node>>),
    Map { entries: Vec<(Key, Rc<Node>)>, key: Option<Key>, merges: Vec<(Place, Rc<Node>)> },
}

impl Loader {
    fn problem(&mut self, place: Place, message: &str, help: &str) {
        self.errors.push(ConfigError {
            key: String::new(),
            place: Some(place),
            message: message.to_owned(),
            help: help.to_owned(),
        });
    }

    /// Handles an event; `false` if there is no point in continuing.
    fn take(&mut self, event: Event<'_>, place: Place) -> bool {
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    self.problem(
                        place,
                        "a second document",
                        "a configuration is one document: remove the `---`",
                    );
                    return false;
                }
                true
            }
            Event::Scalar(text, style, anchor, tag) => {
                if self.wants_key() {
                    // A key is text, whatever it looks like.
                    if let Some(tag) = tag.as_deref().filter(|tag| !is_text(tag)) {
                        self.meaningless(tag, place);
                    }
                    self.set_key(Key { text: text.into_owned(), place });
                    return true;
                }
                let data = self.scalar(&text, style, tag.as_deref(), place);
                self.value(Node { data, place, size: 1 }, anchor)
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                _ if self.wants_key() => {
                    self.problem(place, "an alias as a key", "write the key itself");
                    false
                }
                Some(node) => self.attach(node, 0),
                None => {
                    self.problem(place, "an alias inside its own anchor", "write it out");
                    false
                }
            },
            Event::SequenceStart(anchor, tag) => {
                self.open(OpenKind::List(Vec::new()), anchor, tag.as_deref(), place)
            }
            Event::MappingStart(anchor, tag) => {
                let kind = OpenKind::Map { entries: Vec::new(), key: None, merges: Vec::new() };
                self.open(kind, anchor, tag.as_deref(), place)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => true,
        }
    }

    fn wants_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { kind: OpenKind::Map { key: None, .. }, .. }))
    }

    fn set_key(&mut self, new: Key) {
        if let Some(Open { kind: OpenKind::Map { key, .. }, .. }) = self.open.last_mut() {
            *key = Some(new);
        }
    }

    fn open(&mut self, kind: OpenKind, anchor: usize, tag: Option<&Tag>, place: Place) -> bool {
        if self.wants_key() {
            self.problem(
                place,
                "a list or a mapping as a key",
                "a key is a word; quote text that starts with [ or {",
            );
            return false;
        }
        if self.open.len() >= DEPTH_MAX {
            self.problem(place, "nested too deeply", "a configuration has a few levels only");
            return false;
        }
        let own = if matches!(kind, OpenKind::List(_)) { "seq" } else { "map" };
        // `!!python/object/apply` belongs to the same schema as `!!map`, and makes other readers run code.
        if let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema() || tag.suffix != own) {
            self.meaningless(tag, place);
        }
        self.open.push(Open { place, anchor, size: 1, kind });
        true
    }

    fn meaningless(&mut self, tag: &Tag, place: Place) {
        self.problem(place, &format!("unknown tag {}", shown_tag(tag)), "remove it");
    }

    fn close(&mut self) -> bool {
        let Some(Open { place, anchor, size, kind }) = self.open.pop() else { return true };
        let data = match kind {
            OpenKind::List(items) => Data::List(items),
            OpenKind::Map { mut entries, merges, .. } => {
                self.merge(&mut entries, merges);
                Data::Map(entries)
            }
        };
        self.value(Node { data, place, size }, anchor)
    }

    fn value(&mut self, node: Node, anchor: usize) -> bool {
        self.attach(Rc::new(node), anchor)
    }

    /// Puts a finished node into its parent.
    fn attach(&mut self, node: Rc<Node>, anchor: usize) -> bool {
        self.nodes += 1;
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return true;
        };
        open.size = open.size.saturating_add(node.size);
        if open.size.max(self.nodes) > NODES_MAX {
            let place = node.place;
            self.problem(place, "too large after its aliases are expanded", "use fewer of them");
            return false;
        }
        match &mut open.kind {
            OpenKind::List(items) => items.push(node),
            OpenKind::Map { entries, key, merges } => {
                let Some(key) = key.take() else { return true };
                if key.text == "<<" {
                    merges.push((key.place, node));
                } else if let Some((first, _)) = entries.iter().find(|(other, _)| other.text == key.text) {
                    let message = format!("duplicate key, first in line {}", first.place.0);
                    self.errors.push(ConfigError {
                        key: key.text,
                        place: Some(key.place),
                        message,
                        help: "remove one of them".to_owned(),
                    });
                } else {
                    entries.push((key, node));
                }
            }
        }
        true
    }

    /// `<<: *other` and `<<: [*one, *two]`: adds what is not there already; the first of several wins.
    fn merge(&mut self, entries: &mut Vec<(Key, Rc<Node>)>, merges: Vec<(Place, Rc<Node>)>) {
        for (place, node) in merges {
            let sources: Vec<&Node> = match &node.data {
                Data::List(items) => items.iter().map(Rc::as_ref).collect(),
                _ => vec![&node],
            };
            for source in sources {
                let Data::Map(more) = &source.data else {
                    self.problem(
                        place,
                        "<< merges mappings only",
                        "write `<<: *name` with the name of a mapping",
                    );
                    continue;
                };
                for (key, node) in more {
                    if !entries.iter().any(|(other, _)| other.text == key.text) {
                        entries.push((key.clone(), node.clone()));
                    }
                }
            }
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, place: Place) -> Data {
        let as_text = || Data::Text(text.to_owned());
        match tag {
            None if style == ScalarStyle::Plain => resolve(text),
            None => as_text(),
            Some(tag) if tag.is_yaml_core_schema() || tag.handle == "!!" => {
                match (tag.suffix.as_str(), resolve(text)) {
                    ("str", _) => as_text(),
                    ("null", data @ Data::Null) | ("bool", data @ Data::Bool(_)) => data,
                    ("int", data @ Data::Int(_)) | ("float", data @ Data::Float(_)) => data,
                    ("float", Data::Int(value)) => Data::Float(value as f64),
                    _ => {
                        self.problem(
                            place,
                            &format!("the value does not match its tag {}", shown_tag(tag)),
                            "remove the tag",
                        );
                        as_text()
                    }
                }
            }
            Some(tag) if is_text(tag) => as_text(),
            Some(tag) => {
                self.meaningless(tag, place);
                as_text()
            }
        }
    }
}

/// Whether a tag says that a scalar is text: `!!str`, or `!`.
fn is_text(tag: &Tag) -> bool {
    let is_core = tag.is_yaml_core_schema() || tag.handle == "!!";
    is_core && tag.suffix == "str" || tag.handle.is_empty() && tag.suffix == "!"
}

/// A tag as written, made safe.
fn shown_tag(tag: &Tag) -> String {
    let handle = if tag.is_yaml_core_schema() { "!!" } else { tag.handle.as_str() };
    harmless(&format!("{handle}{}", tag.suffix))
}

/// The meaning of a plain scalar in YAML 1.1, except for its times and base-60 numbers.
fn resolve(text: &str) -> Data {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Data::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => return Data::Bool(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => return Data::Bool(false),
        ".inf" | ".Inf" | ".INF" | "-.inf" | "-.Inf" | "-.INF" | ".nan" | ".NaN" | ".NAN" => {
            return Data::Text(text.to_owned());
        }
        _ => {}
    }
    let (sign, digits) = match text.split_at_checked(1) {
        Some(("-", rest)) => (-1, rest),
        Some(("+", rest)) => (1, rest),
        _ => (1, text),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Data::Text(text.to_owned());
    }
    let clean = digits.replace('_', "");
    let integer = match clean.get(..2) {
        Some("0x") => i64::from_str_radix(&clean[2..], 16),
        Some("0b") => i64::from_str_radix(&clean[2..], 2),
        Some("0o") => return Data::Text(text.to_owned()),
        _ if clean.len() > 1 && clean.starts_with('0') && clean.bytes().all(|b| b.is_ascii_digit()) => {
            i64::from_str_radix(&clean, 8)
        }
        _ => clean.parse(),
    };
    // A sign after the prefix (`0x-1`) is not a number.
    if let Some(value) = integer.ok().filter(|_| !clean.contains(['-', '+'])) {
        return Data::Int(sign * value);
    }
    let decimal = clean.contains('.') && !clean.ends_with(['e', 'E']) && clean != ".";
    match clean.parse::<f64>() {
        Ok(value) if decimal && value.is_finite() => Data::Float(f64::from(sign as i32) * value),
        _ => Data::Text(text.to_owned()),
    }
}
