//! Removes secrets from responses that errors quote.
//!
//! A server, or a proxy in front of it, can echo a request in its error page, and a failed response can still
//! contain the requested secret (contract github.md §2).

use super::error::SHOWN_BODY;
use crate::secret::{HIDDEN, Secret, TOKEN_PREFIXES};

/// How many bytes of a body are searched: more than is shown, so that a secret is seen completely.
const LOOKED_AT: usize = 64 * 1024;

/// A shorter secret would hide half of the text, and no server issues one.
const SHORTEST: usize = 6;

/// Longer runs of letters and digits are always hidden. Messages do not contain them; registration tokens (29), JIT
/// configurations, keys, JSON Web Tokens and anything encoded do.
const LONG: usize = 20;

/// The same for runs that include slashes, dashes and underscores, as base64 does.
const LONGEST: usize = 100;

/// The start of a body as text, with its secrets replaced.
pub(super) fn redacted(body: &[u8], secrets: &[Secret]) -> String {
    let cut = body.len() > LOOKED_AT;
    let mut text = String::from_utf8_lossy(&body[..body.len().min(LOOKED_AT)]).into_owned();
    for secret in secrets.iter().map(Secret::expose).filter(|secret| secret.len() >= SHORTEST) {
        if text.contains(secret) {
            text = text.replace(secret, HIDDEN);
        }
    }
    let text = without_long_words(&text);
    if cut && text.len() <= SHOWN_BODY {
        // The rest was not searched.
        return text + "…";
    }
    text
}

fn without_long_words(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_base64) {
        let end = rest[start..].find(|c| !is_base64(c)).map_or(rest.len(), |length| start + length);
        let word = &rest[start..end];
        result.push_str(&rest[..start]);
        let token = TOKEN_PREFIXES.iter().any(|prefix| word.contains(prefix));
        let long = word.len() >= LONGEST || word.split(is_mark).any(|part| part.len() >= LONG);
        result.push_str(if token || long { HIDDEN } else { word });
        rest = &rest[end..];
    }
    result.push_str(rest);
    result
}

fn is_base64(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '_' | '-')
}

/// A separator in a path, a runner's name or a permission.
fn is_mark(c: char) -> bool {
    matches!(c, '/' | '-' | '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sent_secrets_and_texts_that_look_like_secrets_are_hidden() {
        let sent = [Secret::new("5f2c-my-nomad-token"), Secret::new("x")];
        let show = |text: &str| redacted(text.as_bytes(), &sent);
        assert_eq!(show("x: 5f2c-my-nomad-token!"), "x: ***!");
        assert_eq!(show("for ghp_abc, github_pat_11_x and A"), "for ***, *** and A");
        assert_eq!(show(&format!("jit: {}.", "Ab+/".repeat(30))), "jit: ***.");
        assert_eq!(show("token AABBCCDDEEFFGGHHIIJJKKLLMMNNO"), "token ***");
        for message in [
            "A runner with the name NTGithubRunner-acme-app-0123456789abcdef exists",
            "organization_self_hosted_runners: https://docs.github.com/rest/actions/self-hosted-runners",
            "evaluation 5ec2e700-0000-4000-8000-0123456789ab of \"NTGithubRunner-acme\"",
        ] {
            assert_eq!(show(message), message);
        }
    }

    #[test]
    fn a_secret_is_hidden_wherever_the_shown_part_ends() {
        let sent = [Secret::new("0123456789")];
        for before in SHOWN_BODY - 12..SHOWN_BODY + 2 {
            let text = format!("{} 0123456789", "a ".repeat(before / 2));
            assert!(!redacted(text.as_bytes(), &sent).contains("01234"), "{before}");
        }
    }
}
