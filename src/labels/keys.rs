//! `allow_keys` and `deny_keys`: which keys labels may have, and with which values.

use std::collections::BTreeMap;

use crate::model::glob_covers;

/// The maximum length of a pattern, in characters: that of a label.
const LONGEST: usize = super::LABEL_LENGTH_MAX;

/// In `allow_keys`: all other keys.
const ALL: &str = "*";

/// Keys in lower case, each with its value patterns. An empty list covers all values.
pub type Keys = BTreeMap<String, Vec<ValueGlob>>;

/// A pattern of a value: `*` is any text, `?` is one character. Case does not matter, as in all labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueGlob(String);

impl ValueGlob {
    /// Parses a pattern; `None` if no value can match it.
    pub fn new(text: &str) -> Option<Self> {
        let is_well = !text.is_empty() && text.chars().count() <= LONGEST && !text.contains(char::is_control);
        is_well.then(|| ValueGlob(text.to_owned()))
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Whether a value matches.
    pub fn covers(&self, value: &str) -> bool {
        glob_covers(&self.0, value)
    }
}

/// The rule that a key and its value break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The key is not permitted.
    Key,
    /// The value is not permitted.
    Value,
}

/// The rule of `allow_keys` that a key with this value breaks. Keys without a value are always allowed.
pub(super) fn not_allowed(keys: &Keys, key: &str, value: &str) -> Option<Broken> {
    if value.is_empty() {
        return None;
    }
    match keys.get(key).or_else(|| keys.get(ALL)) {
        None => Some(Broken::Key),
        Some(globs) => (!covers(globs, value)).then_some(Broken::Value),
    }
}

/// The rule of `deny_keys` that a key breaks, with this value or without one.
pub(super) fn denied(keys: &Keys, key: &str, value: &str) -> Option<Broken> {
    let globs = keys.get(key)?;
    match globs.is_empty() {
        true => Some(Broken::Key),
        false => covers(globs, value).then_some(Broken::Value),
    }
}

fn covers(globs: &[ValueGlob], value: &str) -> bool {
    globs.is_empty() || globs.iter().any(|glob| glob.covers(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text_and_a_question_mark_one_character() {
        for (glob, value, is_covered) in [
            ("acme/*", "acme/x", true),
            ("acme/*", "ACME/x/y:1", true),
            ("acme/*", "acme", false),
            ("acme/*", "evil.example/acme/x", false),
            ("*/x", "a/b/x", true),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("v?", "v1", true),
            ("v?", "v12", false),
            ("*", "", true),
            ("?", "", false),
            ("x", "x", true),
            ("Ä*", "äb", true),
        ] {
            assert_eq!(ValueGlob::new(glob).unwrap().covers(value), is_covered, "{glob} {value}");
        }
        assert_eq!(ValueGlob::new(""), None);
        assert_eq!(ValueGlob::new("a\nb"), None);
        assert_eq!(ValueGlob::new(&"x".repeat(257)), None);
        // Many stars do not take longer than the product of the lengths.
        let stars = ValueGlob::new(&"*a".repeat(128)).unwrap();
        assert!(!stars.covers(&"a".repeat(127)) && stars.covers(&"ba".repeat(128)));
    }
}
