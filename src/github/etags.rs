//! How GitHub makes an ETag: SHA-256 of the Accept value, `:`, the Authorization value, `:`, and the body (contract §8). Undocumented,
//! so that nothing relies on it where an answer of this very server has not proven it.

use ring::digest::{Context, SHA256};

use crate::secret::Secret;

/// What all requests accept.
pub(super) const ACCEPT: &str = "application/vnd.github+json";

/// The digits of SHA-256.
const DIGITS: usize = 64;

/// Whether an ETag is made of this token and body in GitHub's way.
pub(super) fn is_made_so(etag: &str, token: &Secret, body: &[u8]) -> bool {
    digits(etag).is_some_and(|known| known == hash(token, body))
}

/// The ETag of the same body for another token, in the form of the one that is known: `W/` and quotes stay as they are.
pub(super) fn for_token(etag: &str, token: &Secret, body: &[u8]) -> Option<String> {
    let known = digits(etag)?;
    Some(etag.replace(known, &hash(token, body)))
}

/// The hash in an ETag.
fn digits(etag: &str) -> Option<&str> {
    let inner = etag.strip_prefix("W/").unwrap_or(etag).strip_prefix('"')?.strip_suffix('"')?;
    let is_hash =
        inner.len() == DIGITS && inner.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_hash.then_some(inner)
}

fn hash(token: &Secret, body: &[u8]) -> String {
    let mut context = Context::new(&SHA256);
    for part in [ACCEPT, ":Bearer ", token.expose(), ":"] {
        context.update(part.as_bytes());
    }
    context.update(body);
    context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_is_made_as_the_contract_says() {
        let (token, other) = (Secret::new("hunter2"), Secret::new("hunter3"));
        // printf 'application/vnd.github+json:Bearer hunter2:[]' | sha256sum
        let hash = "4ca3654066548c66635d8c4ff18efdef7630cfe4b140ed1c40f72fad4dbff62d";
        for etag in [format!("\"{hash}\""), format!("W/\"{hash}\"")] {
            assert!(is_made_so(&etag, &token, b"[]"));
            assert!(!is_made_so(&etag, &other, b"[]") && !is_made_so(&etag, &token, b"[1]"));
            let renewed = for_token(&etag, &other, b"[]").unwrap();
            assert!(is_made_so(&renewed, &other, b"[]") && renewed != etag);
            assert_eq!(renewed.starts_with("W/"), etag.starts_with("W/"));
            assert_eq!(for_token(&renewed, &token, b"[]").unwrap(), etag);
        }
    }

    #[test]
    fn what_has_another_form_proves_nothing() {
        let token = Secret::new("hunter2");
        for etag in ["", "\"\"", "W/", "\"abc\"", "\"", "6eb3", &format!("\"{}\"", "Z".repeat(64))] {
            assert!(!is_made_so(etag, &token, b"[]") && for_token(etag, &token, b"[]").is_none(), "{etag}");
        }
    }
}
