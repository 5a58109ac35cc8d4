//! Which keys a label may have, and with which values: `allow_keys` and `deny_keys`.

use std::collections::BTreeMap;

/// The longest pattern, in characters: that of a label.
const LONGEST: usize = super::LABEL_LENGTH_MAX;

/// In `allow_keys`, all other keys.
const ALL: &str = "*";

/// Keys in lower case, each with the values that it is about; none: all of them.
pub type Keys = BTreeMap<String, Vec<ValueGlob>>;

/// A pattern of a value: `*` is any text, `?` one character. Case does not matter, as for labels as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueGlob(String);

impl ValueGlob {
    /// From its text; `None` where no value could be like it.
    pub fn new(text: &str) -> Option<Self> {
        let is_well = !text.is_empty() && text.chars().count() <= LONGEST && !text.contains(char::is_control);
        is_well.then(|| ValueGlob(text.to_owned()))
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Whether a value is like it. It takes no more steps than the product of both lengths.
    pub fn covers(&self, value: &str) -> bool {
        let pattern: Vec<char> = self.0.to_lowercase().chars().collect();
        let value: Vec<char> = value.to_lowercase().chars().collect();
        let (mut at, mut seen) = (0, 0);
        // Where the last star stands, and up to where it reaches.
        let mut star: Option<(usize, usize)> = None;
        while seen < value.len() {
            match pattern.get(at) {
                Some('*') => {
                    star = Some((at, seen));
                    at += 1;
                }
                Some(c) if *c == '?' || value.get(seen) == Some(c) => {
                    at += 1;
                    seen += 1;
                }
                _ => {
                    let Some((place, reach)) = star else { return false };
                    star = Some((place, reach + 1));
                    (at, seen) = (place + 1, reach + 1);
                }
            }
        }
        pattern.iter().skip(at).all(|c| *c == '*')
    }
}

/// What a key and its value break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The key may not be there at all.
    Key,
    /// This value may not.
    Value,
}

/// What a key with this value breaks of `allow_keys`. A key without a value is not its business.
pub(super) fn not_allowed(keys: &Keys, key: &str, value: &str) -> Option<Broken> {
    if value.is_empty() {
        return None;
    }
    match keys.get(key).or_else(|| keys.get(ALL)) {
        None => Some(Broken::Key),
        Some(globs) => (!covers(globs, value)).then_some(Broken::Value),
    }
}

/// What a key with this value, or without one, breaks of `deny_keys`.
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
        // Many stars take no longer than the product of the lengths.
        let stars = ValueGlob::new(&"*a".repeat(128)).unwrap();
        assert!(!stars.covers(&"a".repeat(127)) && stars.covers(&"ba".repeat(128)));
    }
}
