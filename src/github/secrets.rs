//! Checks the secrets that GitHub issues before they are passed on: they end up in a task's environment, where a
//! newline would start another variable.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::de::IgnoredAny;

use crate::secret::Secret;

/// The largest JIT configuration, in bytes. GitHub's have about 4 kB (contract §2).
const LONGEST_CONFIGURATION: usize = 64 * 1024;

/// The longest token, in bytes. An installation's has about 520 (contract §8), but GitHub does not guarantee
/// a length.
const LONGEST_TOKEN: usize = 8 * 1024;

/// A JIT configuration: a JSON object in base64, as the runner reads it.
///
/// # Errors
/// What is wrong, without the text.
pub fn jit_configuration(text: String) -> Result<Secret, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() > LONGEST_CONFIGURATION {
        return Err("it is longer than 64 kB");
    }
    let Ok(decoded) = STANDARD.decode(&text) else { return Err("it is not base64") };
    match serde_json::from_slice::<BTreeMap<String, IgnoredAny>>(&decoded) {
        Ok(_) => Ok(Secret::new(text)),
        Err(_) => Err("it is not a JSON object in base64"),
    }
}

/// A token for a runner's registration or an installation.
///
/// # Errors
/// What is wrong, without the text.
pub fn token(text: String) -> Result<Secret, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() > LONGEST_TOKEN {
        return Err("it is longer than 8 kB");
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if !text.bytes().all(plain) {
        return Err("it contains characters that are not valid in a token");
    }
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_a_json_object_in_base64() {
        let good = STANDARD.encode(r#"{".runner":"e30=",".credentials":"e30="}"#);
        assert_eq!(jit_configuration(good.clone()).unwrap().expose(), good);
        let bad = [
            String::new(),
            "abc\nLD_PRELOAD=/tmp/evil.so".to_owned(),
            format!("{good}\n"),
            format!("{good}\nLD_PRELOAD=x"),
            format!(" {good}"),
            STANDARD.encode("[]"),
            STANDARD.encode("not JSON"),
            STANDARD.encode(format!("{{\"a\":\"{}\"}}", "x".repeat(64 * 1024))),
            "{{ key }}".to_owned(),
        ];
        for text in bad {
            let problem = jit_configuration(text.clone()).unwrap_err();
            assert!(text.is_empty() || !problem.contains(&text), "{problem}");
        }
    }

    #[test]
    fn a_token_is_one_word_of_plain_characters() {
        for good in ["AABF3JGZDX3P5PMEXLND6TS6FCWO6", "ghs_1_eyJ0.eyJp-c_3.s1g"] {
            assert_eq!(token(good.to_owned()).unwrap().expose(), good);
        }
        for bad in ["", "a b", "a\n", "a\nLD_PRELOAD=x", "a\"", "${a}", "ä", &"a".repeat(8193)] {
            assert!(token(bad.to_owned()).is_err(), "{bad:?}");
        }
    }
}
