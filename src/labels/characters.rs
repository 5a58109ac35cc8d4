//! Individual characters: which are allowed in a label, and which are safe to show.

use crate::text::is_harmful;

/// How many characters of a hostile label an error message shows.
const SHOWN_LENGTH: usize = 64;

/// A hostile text for display: escaped, so that it cannot move a terminal's cursor or start a new line, and
/// truncated.
pub fn harmless(text: &str) -> String {
    let mut shown = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == SHOWN_LENGTH {
            shown.push('…');
            break;
        }
        // Everything outside printable ASCII and plain letters: bidirectional marks reverse text too.
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
    /// Parses the form of [`super::DEFAULT_ALLOWED`]; the brackets are optional.
    ///
    /// # Errors
    /// There are no characters, a range is empty, or a character would break HCL or the splitting of labels.
    pub fn parse(class: &str) -> Result<Self, String> {
        let inner = class.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(class);
        let characters: Vec<char> = inner.chars().collect();
        if characters.is_empty() {
            return Err("it allows no characters".to_owned());
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
        // Beyond U+3000 only a few more are invisible.
        let beyond = ('\u{fe00}'..='\u{ffff}').chain('\u{e0000}'..='\u{e007f}');
        match ('\0'..='\u{3000}').chain(beyond).find(|c| breaks(c) && allowed.contains(*c)) {
            Some(c) => Err(format!(
                "'{}' cannot be allowed: it has a meaning in HCL, separates labels or is invisible",
                c.escape_default()
            )),
            None => Ok(allowed),
        }
    }

    pub fn contains(&self, c: char) -> bool {
        self.ranges.iter().any(|&(first, last)| (first..=last).contains(&c))
    }
}
