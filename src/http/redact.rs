//! What errors quote of an answer, without the secrets that it may repeat.
//!
//! A server, or a proxy before it, can put into its error page what it was sent, and an answer that failed can
//! still carry what was asked for (contract github.md §2).

use super::error::SHOWN_BODY;
use crate::secret::Secret;

/// What stands for a secret.
const HIDDEN: &str = "***";

/// How much of a body is looked at, in bytes: more than is shown, so that a secret is seen whole.
const LOOKED_AT: usize = 64 * 1024;

/// A shorter secret would hide half of the text, and is none that a server gives out.
const SHORTEST: usize = 6;

/// Words of so many letters and digits are hidden whatever they are: no message has them, JIT configurations,
/// keys and JSON Web Tokens do.
const LONG: usize = 100;

/// The same in the answer to a request for a secret: registration tokens have 29.
const LONG_IN_SECRET_ANSWERS: usize = 20;

/// What GitHub's tokens begin with.
const TOKENS: [&str; 6] = ["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"];

/// The body's start as text, with the secrets in it replaced.
pub(super) fn redacted(body: &[u8], secrets: &[Secret], secret_answer: bool) -> String {
    let cut = body.len() > LOOKED_AT;
    let mut text = String::from_utf8_lossy(&body[..body.len().min(LOOKED_AT)]).into_owned();
    for secret in secrets.iter().map(Secret::expose).filter(|secret| secret.len() >= SHORTEST) {
        if text.contains(secret) {
            text = text.replace(secret, HIDDEN);
        }
    }
    let text = without_long_words(&text, secret_answer);
    if cut && text.len() <= SHOWN_BODY {
        // The rest was not looked at.
        return text + "…";
    }
    text
}

fn without_long_words(text: &str, secret_answer: bool) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_base64) {
        let end = rest[start..].find(|c| !is_base64(c)).map_or(rest.len(), |length| start + length);
        let word = &rest[start..end];
        result.push_str(&rest[..start]);
        let token = TOKENS.iter().any(|prefix| word.contains(prefix));
        let long = word.len() >= LONG || secret_answer && word.split(is_mark).any(is_long_part);
        result.push_str(if token || long { HIDDEN } else { word });
        rest = &rest[end..];
    }
    result.push_str(rest);
    result
}

fn is_base64(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '_' | '-')
}

/// What separates the words of a path or a runner's name.
fn is_mark(c: char) -> bool {
    matches!(c, '/' | '-')
}

fn is_long_part(part: &str) -> bool {
    part.len() >= LONG_IN_SECRET_ANSWERS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_and_what_looks_like_a_secret_is_hidden() {
        let sent = [Secret::new("5f2c-my-nomad-token"), Secret::new("x")];
        let show = |text: &str, answer| redacted(text.as_bytes(), &sent, answer);
        assert_eq!(show("x: 5f2c-my-nomad-token!", false), "x: ***!");
        assert_eq!(show("for ghp_abc, github_pat_11_x and A", false), "for ***, *** and A");
        assert_eq!(show(&format!("jit: {}.", "Ab+/".repeat(30)), false), "jit: ***.");
        let message = "A runner with the name NTGithubRunner-acme-app-0123456789abcdef exists";
        assert_eq!(show(message, true), message);
        assert_eq!(show("token AABBCCDDEEFFGGHHIIJJKKLLMMNNO", true), "token ***");
        assert_eq!(show("token AABBCCDDEEFFGGHHIIJJKKLLMMNNO", false), "token AABBCCDDEEFFGGHHIIJJKKLLMMNNO");
    }

    #[test]
    fn a_secret_is_hidden_wherever_the_shown_part_ends() {
        let sent = [Secret::new("0123456789")];
        for before in SHOWN_BODY - 12..SHOWN_BODY + 2 {
            let text = format!("{} 0123456789", "a ".repeat(before / 2));
            assert!(!redacted(text.as_bytes(), &sent, false).contains("01234"), "{before}");
        }
    }
}
