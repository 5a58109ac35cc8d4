//! Which owners something is for.

use std::fmt;

use super::is_login;

/// The longest pattern, in characters.
const LONGEST: usize = 100;

/// An owner's login, or a pattern of logins: `*` is any text. Case does not matter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OwnerPattern(String);

impl OwnerPattern {
    /// From its text; `None` where no login fits it.
    pub fn new(text: &str) -> Option<Self> {
        let without = text.replace('*', "");
        let fits = text.len() <= LONGEST && (is_login(&without) || without.is_empty() && !text.is_empty());
        fits.then(|| OwnerPattern(text.to_owned()))
    }

    /// Whether it names one owner alone.
    pub fn is_exact(&self) -> bool {
        !self.0.contains('*')
    }

    /// Whether any owner fits it.
    pub fn is_everyone(&self) -> bool {
        self.0.bytes().all(|byte| byte == b'*')
    }

    /// Whether both are written alike.
    pub fn is_same(&self, other: &OwnerPattern) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }

    /// Whether it is for this owner.
    pub fn covers(&self, login: &str) -> bool {
        let (pattern, login) = (self.0.to_ascii_lowercase(), login.to_ascii_lowercase());
        let mut parts = pattern.split('*');
        let Some(mut rest) = login.strip_prefix(parts.next().unwrap_or_default()) else { return false };
        let mut parts: Vec<&str> = parts.collect();
        let Some(last) = parts.pop() else { return rest.is_empty() };
        for part in parts {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
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
    fn a_pattern_covers_what_it_says() {
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
    fn what_is_no_login_is_no_pattern() {
        for text in ["", "a/b", "a b", "a.b", "acme/*", "ä*", "${a}", &"a".repeat(101)] {
            assert!(OwnerPattern::new(text).is_none(), "{text}");
        }
        assert!(OwnerPattern::new("*").unwrap().is_everyone());
        assert!(!OwnerPattern::new("a*").unwrap().is_exact());
    }
}
