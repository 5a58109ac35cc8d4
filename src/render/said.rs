//! What GitHub says of a job, as a template may have it. Branches, workflows and jobs are named by anyone who opens a pull
//! request, and a template may put the names between quotes as they are: only what a label may have by default gets through.

use std::borrow::Cow;

/// Longer text is cut or left out, in characters: that of a label.
const LONGEST: usize = 256;

/// What the login of an App ends in.
const BOT: &str = "[bot]";

/// Free text: what a label may not have becomes `_`. Two texts can become the same.
pub(super) fn free(text: &str) -> String {
    let mut free = String::new();
    for word in text.split_whitespace() {
        if !free.is_empty() {
            free.push(' ');
        }
        free.extend(word.chars().map(|c| if is_plain(c) { c } else { '_' }));
    }
    let free: String = free.chars().take(LONGEST).collect();
    let free = free.trim_end().replace("..", "__");
    // Neither an option nor a path.
    match free.chars().next() {
        Some(first) if !begins_well(first) => format!("_{}", &free[first.len_utf8()..]),
        _ => free,
    }
}

/// A name that means something as it is: none at all where it has what a label may not have. Something else in its place
/// could be another one's name.
pub(super) fn exact(text: &str) -> &str {
    let is_well = text.chars().next().is_some_and(begins_well)
        && text.chars().all(is_plain)
        && text.len() <= LONGEST
        && !text.contains("..");
    if is_well { text } else { "" }
}

/// A login; that of an App has brackets at its end.
pub(super) fn login(text: &str) -> Cow<'_, str> {
    match text.strip_suffix(BOT).map(exact) {
        Some("") => Cow::Borrowed(""),
        Some(name) => Cow::Owned(format!("{name}{BOT}")),
        None => Cow::Borrowed(exact(text)),
    }
}

/// What [`crate::labels::DEFAULT_ALLOWED`] lists.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._/:@+=-".contains(c)
}

fn begins_well(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::{AllowedCharacters, DEFAULT_ALLOWED};

    #[test]
    fn only_what_a_label_may_have_gets_through() {
        let allowed = AllowedCharacters::parse(DEFAULT_ALLOWED).unwrap();
        for c in (0..=0x2_ffff).filter_map(char::from_u32) {
            assert_eq!(is_plain(c), allowed.contains(c), "{c:?}");
        }
        let long = "x".repeat(10_000);
        for text in [
            "a b",
            " test (18, ubuntu) ",
            "-rf",
            "..\n",
            "\"\n } }",
            "${x}",
            "%{x}",
            "\u{202e}x",
            "",
            "=",
            &long,
        ] {
            let free = free(text);
            assert!(free.chars().all(|c| c == ' ' || allowed.contains(c)), "{text:?}: {free}");
            assert!(free.chars().next().is_none_or(begins_well) && !free.contains(".."), "{text:?}: {free}");
            assert!(
                free.len() <= LONGEST && !free.ends_with(' ') && !free.contains("  "),
                "{text:?}: {free}"
            );
        }
        assert_eq!(free(" test (18, ubuntu) "), "test _18_ ubuntu_");
        assert_eq!(free("../../etc"), "__/__/etc");
    }

    #[test]
    fn a_name_is_what_it_is_or_nothing() {
        for good in ["main", "feature/x_1", "release-1.2", "v1+x", "pull_request"] {
            assert_eq!(exact(good), good);
        }
        for bad in ["", "-x", "a b", "a..b", "a\"b", "größe", "a`b", "$(id)", &"x".repeat(257)] {
            assert_eq!(exact(bad), "", "{bad}");
        }
        assert_eq!(login("dependabot[bot]"), "dependabot[bot]");
        assert_eq!(login("octo-cat"), "octo-cat");
        for bad in ["[bot]", "a[b]", "x\"[bot]", "a[bot]b"] {
            assert_eq!(login(bad), "", "{bad}");
        }
    }
}
