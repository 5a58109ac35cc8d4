//! Single characters: which may stand in a label, and which may be shown to a person.

use crate::text::is_harmful;

/// How much of a hostile label an error message shows, in characters.
const SHOWN_LENGTH: usize = 64;

/// A hostile text for people: escaped, so that it cannot move a terminal's cursor or begin a new line, and
/// cut off.
pub fn harmless(text: &str) -> String {
    let mut shown = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == SHOWN_LENGTH {
            shown.push('…');
            break;
        }
        // Everything outside printable ASCII and plain letters: bidirectional marks turn text around too.
        match c {
            '"' | '\\' => shown.extend(['\\', c]),
            ' '..='~' => shown.push(c),
            _ if c.is_alphanumeric() => shown.push(c),
            _ => shown.extend(c.escape_unicode()),
        }
    }
    shown
}

/// `[A-Za-z0-9._/:@+=-]`: single characters and ranges.
#[derive(Clone, Debug)]
pub struct AllowedCharacters {
    pub(super) text: String,
    ranges: Vec<(char, char)>,
}

impl AllowedCharacters {
    /// Reads the form of [`super::DEFAULT_ALLOWED`]; the brackets may be left out.
    ///
    /// # Errors
    /// No character at all, a range that is empty, or a character that would break HCL or the splitting
    /// of labels.
    pub fn parse(class: &str) -> Result<Self, String> {
        let inner = class.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(class);
        let characters: Vec<char> = inner.chars().collect();
        if characters.is_empty() {
            return Err("no character is allowed at all".to_owned());
        }
        let mut ranges = Vec::new();
        let mut rest = characters.as_slice();
        while let [first, tail @ ..] = rest {
            let last = match tail {
                ['-', last, after @ ..] => {
                    rest = after;
                    *last
                }
                _ => {
                    rest = tail;
                    *first
                }
            };
            if last < *first {
                return Err(format!("the range {first}-{last} is empty"));
            }
            ranges.push((*first, last));
        }
        let allowed = AllowedCharacters { text: class.to_owned(), ranges };
        let breaks = |c: &char| is_harmful(*c) || c.is_whitespace() || "\"'`\\{}#,".contains(*c);
        // U+3000 is the last that is common; beyond it there are only a few.
        let beyond = ('\u{fe00}'..='\u{ffff}').chain('\u{e0000}'..='\u{e007f}');
        match ('\0'..='\u{3000}').chain(beyond).find(|c| breaks(c) && allowed.contains(*c)) {
            Some(c) => Err(format!(
                "'{}' cannot be allowed: it has a meaning in HCL, separates labels or cannot be seen",
                c.escape_default()
            )),
            None => Ok(allowed),
        }
    }

    /// Whether it is one of them.
    pub fn contains(&self, c: char) -> bool {
        self.ranges.iter().any(|&(first, last)| (first..=last).contains(&c))
    }
}
