//! Patterns of owners.

use std::fmt;

use super::{glob_covers, is_login};

/// The maximum length of a pattern, in characters.
const LONGEST: usize = 100;

/// An owner's login, or a pattern of logins: `*` is any text. Case does not matter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OwnerPattern(String);

impl OwnerPattern {
    /// Parses a pattern; `None` if no login can match it.
    pub fn new(text: &str) -> Option<Self> {
        let without = text.replace('*', "");
        let fits = text.len() <= LONGEST && (is_login(&without) || without.is_empty() && !text.is_empty());
        fits.then(|| OwnerPattern(text.to_owned()))
    }

    /// Whether it names exactly one owner.
    pub fn is_exact(&self) -> bool {
        !self.0.contains('*')
    }

    /// Whether it matches every owner.
    pub fn is_everyone(&self) -> bool {
        self.0.bytes().all(|byte| byte == b'*')
    }

    /// Whether both have the same text.
    pub fn is_same(&self, other: &OwnerPattern) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }

    /// Whether it matches this owner.
    pub fn covers(&self, login: &str) -> bool {
        glob_covers(&self.0, login)
    }
}

impl fmt::Display for OwnerPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_matching_owners() {
        let covers = |pattern: &str, login: &str| OwnerPattern::new(pattern).unwrap().covers(login);
        for (pattern, login) in [
            ("acme", "Acme"),
            ("acme-*", "acme-labs"),
            ("acme-*", "ACME-"),
            ("*-labs", "acme-labs"),
            ("a*c*e", "abcde"),
            ("a*a", "aa"),
            ("*", "anyone"),
            ("a**b", "ab"),
        ] {
            assert!(covers(pattern, login), "{pattern} {login}");
        }
        for (pattern, login) in
            [("acme", "acme2"), ("acme", "theacme"), ("acme-*", "acme"), ("a*a", "a"), ("a*b*b", "ab")]
        {
            assert!(!covers(pattern, login), "{pattern} {login}");
        }
    }

    #[test]
    fn invalid_logins_are_invalid_patterns() {
        for text in ["", "a/b", "a b", "a.b", "acme/*", "ä*", "${a}", &"a".repeat(101)] {
            assert!(OwnerPattern::new(text).is_none(), "{text}");
        }
        assert!(OwnerPattern::new("*").unwrap().is_everyone());
        assert!(!OwnerPattern::new("a*").unwrap().is_exact());
    }
}
