//! The labels of a class.

use fancy_regex::Regex;

use super::{LABEL_LENGTH_MAX, python_to_rust, takes_steps_back};

/// An expression like `runson_match`, but without backtracking, and case-insensitive. GitHub compares labels
/// case-insensitively, so equal label sets belong to the same class.
#[derive(Clone, Debug)]
pub struct LabelPattern {
    text: String,
    regex: Regex,
}

impl LabelPattern {
    /// From an expression in Python's syntax.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn new(text: &str) -> Result<Self, String> {
        let pattern = format!("(?i:{})", python_to_rust(text));
        let regex = Regex::new(&pattern).map_err(|error| format!("not a regular expression: {error}"))?;
        if takes_steps_back(&pattern) {
            return Err(
                "look-around and back-references are not allowed, because they can take forever".to_owned()
            );
        }
        Ok(LabelPattern { text: text.to_owned(), regex })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it matches one of the labels at its start.
    pub fn matches<S: AsRef<str>>(&self, labels: &[S]) -> bool {
        labels.iter().any(|label| {
            let label = label.as_ref();
            // One more than the longest that may be rendered: either all of it is seen, or it breaks the rules
            // anyway.
            let seen = label.char_indices().nth(LABEL_LENGTH_MAX + 1).map_or(label, |(end, _)| &label[..end]);
            self.regex.find(seen).ok().flatten().is_some_and(|found| found.start() == 0)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_matches_one_label_at_its_start_in_any_case() {
        let gpu = LabelPattern::new(r"nomadtools.*\bgpu\b").unwrap();
        assert!(gpu.matches(&["self-hosted", "nomadtools mem=1 GPU"]));
        assert!(!gpu.matches(&["nomadtools gpus"]) && !gpu.matches(&["x nomadtools gpu"]));
        assert!(!gpu.matches(&["nomadtools", "gpu"]), "no label has both");
        assert!(!LabelPattern::new("a|b").unwrap().matches(&["xb"]));
    }

    #[test]
    fn expressions_that_can_take_forever_are_refused() {
        for (text, why) in
            [("(", "not a regular expression"), ("a(?=b)", "look-around"), (r"(a)\1", "look-around")]
        {
            assert!(LabelPattern::new(text).unwrap_err().contains(why), "{text}");
        }
    }
}
