//! Reads typed values from the YAML tree, and collects problems.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};

use super::{
    duration,
    error::ConfigError,
    yaml::{Data, Key, Node, Place},
};

/// The type of a key's value, for the schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Unknown.
    Any,
    /// A mapping with the keys that are read.
    Section,
    /// A mapping with arbitrary keys and values.
    Free,
    /// A mapping from arbitrary keys to whole numbers.
    Counts,
    /// A mapping with free keys and lists of texts.
    TextLists,
    /// Text.
    Text,
    /// Text, or a number.
    TextOrNumber,
    /// A list of texts.
    Texts,
    /// A list of texts, or a single one.
    TextOrTexts,
    /// A boolean.
    Boolean,
    /// A whole number, 0 or more.
    Count,
    /// A time.
    Time,
    /// A number of seconds, or a time.
    Seconds,
    /// One of these values.
    Choice(Vec<String>),
}

/// Collects problems, and the type of each key, which follows from how it is read.
#[derive(Default)]
pub struct Problems {
    errors: RefCell<Vec<ConfigError>>,
    shapes: RefCell<BTreeMap<String, Shape>>,
}

impl Problems {
    /// Starts with the parser's problems.
    pub fn new(errors: Vec<ConfigError>) -> Self {
        Problems { errors: RefCell::new(errors), ..Problems::default() }
    }

    /// The keys that were read, by their paths.
    pub fn shapes(&self) -> BTreeMap<String, Shape> {
        self.shapes.borrow().clone()
    }

    /// A more specific type replaces a less specific one.
    fn shape(&self, path: String, shape: Shape) {
        let mut shapes = self.shapes.borrow_mut();
        let known = shapes.entry(path).or_insert(Shape::Any);
        // A section may turn out to have arbitrary keys. A key that is only inspected has no type.
        if *known == Shape::Any || *known == Shape::Section && shape != Shape::Any {
            *known = shape;
        }
    }

    /// Adds a problem.
    pub fn add(&self, key: &str, place: Place, message: impl Into<String>, help: impl Into<String>) {
        self.errors.borrow_mut().push(ConfigError {
            key: key.to_owned(),
            place: Some(place),
            message: message.into(),
            help: help.into(),
        });
    }

    /// All problems, in the order of the text.
    pub fn into_sorted(self) -> Vec<ConfigError> {
        let mut errors = self.errors.into_inner();
        errors.sort_by_key(|error| error.place);
        errors
    }
}

/// A mapping with its path. Every key that is read becomes a known key.
pub struct Section<'a> {
    problems: &'a Problems,
    path: String,
    entries: &'a [(Key, Rc<Node>)],
    place: Place,
    known: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Section<'a> {
    /// The mapping of a node. A missing node, or an empty `key:`, is an empty mapping.
    pub fn new(problems: &'a Problems, path: &str, node: Option<&'a Node>, place: Place) -> Self {
        let entries: &[(Key, Rc<Node>)] = match node.map(|node| &node.data) {
            Some(Data::Map(entries)) => entries,
            None | Some(Data::Null) => &[],
            Some(_) => {
                let kind = node.map(Node::kind).unwrap_or_default();
                let place = node.map_or(place, |node| node.place);
                problems.add(
                    path,
                    place,
                    format!("expected a mapping, found {kind}"),
                    "write `key: value` lines, indented",
                );
                &[]
            }
        };
        let place = node.map_or(place, |node| node.place);
        Section { problems, path: path.to_owned(), entries, place, known: RefCell::default() }
    }

    /// The path of a key in this section.
    pub fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Declares the type of a key's value if reading it does not.
    pub fn shape(&self, key: &'static str, shape: Shape) {
        self.problems.shape(self.key(key), shape);
    }

    /// The node of a key, unless it is missing or empty.
    pub fn get(&self, key: &'static str) -> Option<&'a Node> {
        self.entry(key).filter(|node| !matches!(node.data, Data::Null))
    }

    fn entry(&self, key: &'static str) -> Option<&'a Node> {
        self.known.borrow_mut().insert(key);
        self.shape(key, Shape::Any);
        self.entries.iter().find(|(other, _)| other.text == key).map(|(_, node)| node.as_ref())
    }

    /// Whether a key is present, even if it is empty.
    pub fn has(&self, key: &'static str) -> bool {
        self.entry(key).is_some()
    }

    /// The first key other than these.
    pub fn others(&self, but: &[&str]) -> Option<&'a str> {
        self.entries.iter().map(|(key, _)| key.text.as_str()).find(|key| !but.contains(key))
    }

    /// A list of texts; empty if it is missing.
    pub fn texts(&self, key: &'static str) -> Vec<&'a str> {
        self.shape(key, Shape::Texts);
        let Some(node) = self.get(key) else { return Vec::new() };
        let Data::List(items) = &node.data else {
            self.wrong_type(key, "a list", node, "write it like [a, b]");
            return Vec::new();
        };
        let text = |item: &'a Rc<Node>| match &item.data {
            Data::Text(text) => Some(text.as_str()),
            _ => {
                self.wrong_type(key, "text", item, "put it in quotes");
                None
            }
        };
        items.iter().filter_map(text).collect()
    }

    /// The position of a key's value, or else of the section.
    pub fn place(&self, key: &'static str) -> Place {
        self.entry(key).map_or(self.place, |node| node.place)
    }

    /// Adds a problem with a key's value.
    pub fn problem(&self, key: &'static str, message: impl Into<String>, help: impl Into<String>) {
        self.problems.add(&self.key(key), self.place(key), message, help);
    }

    fn wrong_type(&self, key: &'static str, expected: &str, node: &Node, help: &str) {
        self.problem(key, format!("expected {expected}, found {}", node.kind()), help);
    }

    /// A nested mapping.
    pub fn section(&self, key: &'static str) -> Section<'a> {
        self.shape(key, Shape::Section);
        Section::new(self.problems, &self.key(key), self.get(key), self.place(key))
    }

    /// Text; `None` if it is missing or empty.
    pub fn text(&self, key: &'static str) -> Option<&'a str> {
        self.shape(key, Shape::Text);
        let node = self.get(key)?;
        match &node.data {
            Data::Text(text) => Some(text.as_str()).filter(|text| !text.is_empty()),
            _ => {
                self.wrong_type(key, "text", node, "put it in quotes");
                None
            }
        }
    }

    /// A boolean.
    pub fn boolean(&self, key: &'static str, default: bool) -> bool {
        self.shape(key, Shape::Boolean);
        let Some(node) = self.get(key) else { return default };
        match node.data {
            Data::Bool(value) => value,
            _ => {
                self.wrong_type(key, "true or false", node, "write it without quotes");
                default
            }
        }
    }

    /// A number that is not negative; `None` if it is missing.
    pub fn count(&self, key: &'static str) -> Option<usize> {
        self.shape(key, Shape::Count);
        let node = self.get(key)?;
        match node.data {
            Data::Int(value) if value >= 0 => usize::try_from(value).ok(),
            Data::Int(value) => {
                self.problem(key, format!("{value} is negative"), "write 0 or more");
                None
            }
            _ => {
                self.wrong_type(key, "a whole number", node, "write it without quotes");
                None
            }
        }
    }

    /// A time: nomadtools' format, or seconds. Empty means off.
    pub fn time(&self, key: &'static str, default: Option<Duration>) -> Option<Duration> {
        self.shape(key, Shape::Time);
        let node = self.entry(key);
        match node.map(|node| &node.data) {
            None => default,
            Some(Data::Null) => None,
            Some(Data::Text(text)) => match duration::parse(text) {
                Ok(time) => time,
                Err(why) => {
                    self.problem(key, format!("\"{}\" is {why}", crate::labels::harmless(text)), "");
                    default
                }
            },
            Some(Data::Int(seconds)) => match u64::try_from(*seconds) {
                Ok(seconds) => Some(Duration::from_secs(seconds)),
                Err(_) => {
                    self.problem(
                        key,
                        format!("{seconds} is negative"),
                        "write 10m, or seconds, or \"\" to turn it off",
                    );
                    default
                }
            },
            Some(_) => {
                if let Some(node) = node {
                    self.wrong_type(key, "a time", node, "write it like 10m or 1w2d3h");
                }
                default
            }
        }
    }

    /// One of several values.
    pub fn choice<T: Copy>(&self, key: &'static str, words: &[(&str, T)], default: T) -> T {
        self.shape(key, Shape::Choice(words.iter().map(|(word, _)| (*word).to_owned()).collect()));
        let Some(text) = self.text(key) else { return default };
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => *value,
            None => {
                let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                let help = match suggestion(text, all.iter().copied()) {
                    Some(word) => format!("did you mean \"{word}\"?"),
                    None => format!("write one of {}", all.join(", ")),
                };
                self.problem(
                    key,
                    format!("\"{}\" is not a valid value", crate::labels::harmless(text)),
                    help,
                );
                default
            }
        }
    }

    /// All entries, for a mapping with arbitrary keys.
    pub fn entries(&self) -> &'a [(Key, Rc<Node>)] {
        self.entries
    }

    /// Reports all keys that were not read as unknown.
    pub fn finish(self) {
        let known = self.known.into_inner();
        for (key, _) in self.entries.iter().filter(|(key, _)| !known.contains(key.text.as_str())) {
            let path =
                if self.path.is_empty() { key.text.clone() } else { format!("{}.{}", self.path, key.text) };
            let elsewhere = FROM_ENVIRONMENT.iter().find(|(known, _)| *known == path);
            let help = match (elsewhere, suggestion(&key.text, known.iter().copied())) {
                (Some((_, variable)), _) => {
                    format!("set the environment variable {variable}, as for `nomad`")
                }
                (None, Some(word)) => format!("did you mean \"{word}\"?"),
                (None, None) => {
                    format!("known keys: {}", known.iter().copied().collect::<Vec<_>>().join(", "))
                }
            };
            self.problems.add(&path, key.place, "unknown key", help);
        }
    }
}

/// Settings that people look for in the configuration but that Nomad's own variables provide.
const FROM_ENVIRONMENT: [(&str, &str); 6] = [
    ("nomad.address", "NOMAD_ADDR"),
    ("nomad.addr", "NOMAD_ADDR"),
    ("nomad.token", "NOMAD_TOKEN"),
    ("nomad.region", "NOMAD_REGION"),
    ("nomad.ca_cert", "NOMAD_CACERT"),
    ("nomad.cacert", "NOMAD_CACERT"),
];

/// The closest known word, if one is similar.
fn suggestion<'w>(text: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    const NEAR: f64 = 0.8;
    // The comparison takes time proportional to the product of both lengths.
    if text.len() > 100 {
        return None;
    }
    words
        .map(|word| (strsim::jaro_winkler(text, word), word))
        .filter(|(score, _)| *score >= NEAR)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, word)| word)
}
