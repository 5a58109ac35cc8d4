//! Values that must never be shown: tokens, keys, JIT configurations.

use std::{borrow::Cow, fmt, io::Read, path::Path};

use serde::{Deserialize, Deserializer};

/// A secret. `Debug` and `Display` show `***`; only [`Secret::expose`] returns the text.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into().into_boxed_str())
    }

    /// The text itself, to be passed only to the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Secret::new)
    }
}

/// The largest file with a secret, in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// A secret from a file, without trailing white space.
///
/// # Errors
/// The file cannot be read, or is empty. The text names `what` and the path.
pub async fn read_file(what: &str, path: &Path) -> Result<Secret, String> {
    let fail = |error: String| format!("cannot read {what} from {}: {error}", path.display());
    let owned = path.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        std::fs::File::open(owned)?.take(MAX_FILE).read_to_string(&mut text).map(|_| text)
    });
    let text = match read.await {
        Ok(Ok(text)) => text,
        Ok(Err(error)) => return Err(fail(error.to_string())),
        Err(error) => return Err(fail(error.to_string())),
    };
    let text = text.trim();
    if text.is_empty() {
        return Err(fail("it is empty".into()));
    }
    Ok(Secret::new(text))
}

/// The replacement for a secret.
pub const HIDDEN: &str = "***";

/// The prefixes of GitHub's, Vault's and other tokens.
pub const TOKEN_PREFIXES: [&str; 12] = [
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "hvs.",
    "hvb.",
    "xoxb-",
    "xoxp-",
    "sk_live_",
];

/// A shorter word with such a prefix is a name, not a token.
const SHORTEST_TOKEN: usize = 10;

/// Words in a key whose values are all secrets.
const SECRET_WORDS: [&str; 13] = [
    "token",
    "tokens",
    "secret",
    "secrets",
    "password",
    "passwords",
    "passwd",
    "pwd",
    "passphrase",
    "pat",
    "credential",
    "credentials",
    "jitconfig",
];

/// Pairs of words with the same meaning.
const SECRET_PAIRS: [(&str, &str); 6] = [
    ("api", "key"),
    ("access", "key"),
    ("private", "key"),
    ("secret", "key"),
    ("signing", "key"),
    ("encryption", "key"),
];

/// Whether the values below a key are secrets, by its name: `api_key`, `dbPassword`, `GH_TOKEN`; but not
/// `token_file`.
pub fn is_secret_key(key: &str) -> bool {
    let words = words(key);
    // The location of a secret is not a secret.
    if matches!(words.last().map(String::as_str), Some("file" | "path" | "url" | "name" | "id")) {
        return false;
    }
    words
        .iter()
        .any(|word| SECRET_WORDS.contains(&word.as_str()) || matches!(word.as_str(), "apikey" | "apitoken"))
        || words.windows(2).any(|pair| SECRET_PAIRS.contains(&(pair[0].as_str(), pair[1].as_str())))
}

/// The words of a key in snake, kebab or camel case, lower-cased.
fn words(key: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut was_lower = false;
    let mut begins = true;
    for c in key.chars() {
        if !c.is_alphanumeric() {
            begins = true;
            continue;
        }
        if begins || c.is_uppercase() && was_lower {
            words.push(String::new());
        }
        begins = false;
        was_lower = c.is_lowercase() || c.is_numeric();
        if let Some(word) = words.last_mut() {
            word.extend(c.to_lowercase());
        }
    }
    words
}

/// A text in which everything that looks like a token or a private key is hidden, wherever it is.
pub fn without_tokens(text: &str) -> Cow<'_, str> {
    let mut result = Cow::Borrowed(text);
    if let Some(hidden) = without_keys(&result) {
        result = Cow::Owned(hidden);
    }
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let mut spans: Vec<(usize, usize)> = Vec::new();
    let mut rest = 0;
    while let Some(start) = result[rest..].find(is_word).map(|at| rest + at) {
        let end = result[start..].find(|c| !is_word(c)).map_or(result.len(), |length| start + length);
        if let Some(at) = token_in(&result[start..end]) {
            spans.push((start + at, end));
        }
        rest = end;
    }
    for (start, end) in spans.into_iter().rev() {
        result.to_mut().replace_range(start..end, HIDDEN);
    }
    result
}

/// The start of a token in a word of letters, digits, `_`, `-` and `.`.
fn token_in(word: &str) -> Option<usize> {
    let prefixed = TOKEN_PREFIXES.iter().filter_map(|prefix| {
        let at = word.find(prefix)?;
        // `xghp_` is another word; `TOKEN=ghp_` was split before.
        let begins = word[..at].chars().next_back().is_none_or(|c| !c.is_ascii_alphanumeric());
        (begins && word.len() - at >= SHORTEST_TOKEN.max(prefix.len() + 4)).then_some(at)
    });
    // A JSON Web Token: {" in base64.
    let signed = word.find("eyJ").filter(|at| word[*at..].matches('.').count() >= 2 && word.len() - at > 40);
    prefixed.chain(signed).min()
}

/// PEM blocks of private keys, hidden completely.
fn without_keys(text: &str) -> Option<String> {
    const END: &str = "-----END ";
    let mut result = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("PRIVATE KEY-----") {
        let begin = rest[..start].rfind("-----BEGIN ")?;
        let after = start + "PRIVATE KEY-----".len();
        let end = rest[after..].find(END).map_or(rest.len(), |at| {
            let dashes = after + at + END.len();
            rest[dashes..].find("-----").map_or(rest.len(), |at| dashes + at + 5)
        });
        result.push_str(&rest[..begin]);
        result.push_str(HIDDEN);
        rest = &rest[end..];
    }
    if result.is_empty() && rest.len() == text.len() {
        return None;
    }
    result.push_str(rest);
    Some(result)
}

/// The same for a text that assigns values in any of the usual languages: `password = "x"`, `api_key: x`,
/// `--token x`. Hides values assigned to a key that sounds like a secret.
pub fn without_assigned(text: &str) -> String {
    let text = without_tokens(text);
    let mut result = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        result.push_str(&line_without_assigned(line));
    }
    result
}

fn line_without_assigned(line: &str) -> Cow<'_, str> {
    let is_key = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    let mut result = String::new();
    let mut rest = line;
    while let Some(start) = rest.find(is_key) {
        let end = rest[start..].find(|c| !is_key(c)).map_or(rest.len(), |length| start + length);
        let key = &rest[start..end];
        let after = rest[end..].trim_start_matches(['"', '\'', '\\', ' ', '\t']);
        let skipped = rest.len() - after.len();
        let assigned = after.strip_prefix(['=', ':']).or(key.starts_with("--").then_some(after));
        let Some(value) = assigned.filter(|_| is_secret_key(key)) else {
            result.push_str(&rest[..end]);
            rest = &rest[end..];
            continue;
        };
        let value_start = rest.len() - value.len();
        let trimmed = value.trim_start_matches(['>', ' ', '\t']);
        let quote = trimmed.chars().next().filter(|c| matches!(c, '"' | '\''));
        let body = quote.map_or(trimmed, |quote| &trimmed[quote.len_utf8()..]);
        let length = match quote {
            Some(quote) => body.find(quote).unwrap_or(body.trim_end_matches('\n').len()),
            None => body.find([',', '}', ']', ';', '\n', '#']).unwrap_or(body.len()),
        };
        let plain = body[..length].trim_end();
        let body_start = rest.len() - body.len();
        debug_assert!(skipped <= value_start && value_start <= body_start);
        // A template expression, a variable or an empty value is no secret.
        let is_harmless = plain.is_empty() || plain.contains("{{") || plain.starts_with(['$', '{', '[']);
        result.push_str(&rest[..body_start]);
        result.push_str(if is_harmless { plain } else { HIDDEN });
        rest = &rest[body_start + plain.len()..];
    }
    if result.is_empty() {
        return Cow::Borrowed(line);
    }
    result.push_str(rest);
    Cow::Owned(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_sound_like_secrets() {
        for key in [
            "token",
            "access_token",
            "api_key",
            "pat",
            "GH_PAT",
            "dbPassword",
            "private-key",
            "client_secret",
        ] {
            assert!(is_secret_key(key), "{key}");
        }
        for key in
            ["token_file", "pattern", "path", "key", "author", "image", "private_key_file", "secretary", ""]
        {
            assert!(!is_secret_key(key), "{key}");
        }
    }

    #[test]
    fn tokens_are_hidden_anywhere() {
        let token = format!("ghp_{}", "a1".repeat(18));
        for (text, expected) in [
            (format!("x {token}, y"), "x ***, y"),
            (format!("https://{token}@github.com/"), "https://***@github.com/"),
            (format!("GH_TOKEN={token}"), "GH_TOKEN=***"),
            (format!("no such file: {token}"), "no such file: ***"),
            ("github_pat_11ABCDEFG0_abcdefghij".to_owned(), "***"),
            (
                "a -----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc=\n-----END RSA PRIVATE KEY----- b".to_owned(),
                "a *** b",
            ),
            ("-----BEGIN PRIVATE KEY-----\nMIIE and cut".to_owned(), "***"),
        ] {
            assert_eq!(without_tokens(&text), expected);
        }
        let signed = format!("Bearer eyJ{}.eyJ{}.{}", "h".repeat(20), "p".repeat(40), "s".repeat(40));
        assert_eq!(without_tokens(&signed), "Bearer ***");
        for text in [
            "the ghp_ prefix",
            "ghs_ok",
            "acme/web-x job 12",
            "eyJust a word. And. More.",
            "PRIVATE KEY-----",
        ] {
            assert_eq!(without_tokens(text), text);
        }
    }

    #[test]
    fn values_of_secret_keys_are_hidden() {
        for (text, expected) in [
            ("password = \"hunter2\"\nimage = \"x\"", "password = \"***\"\nimage = \"x\""),
            ("auth { username = \"u\" password = \"p\" }", "auth { username = \"u\" password = \"***\" }"),
            ("api_key: abc # why", "api_key: *** # why"),
            ("{\"apiKey\": \"abc\", \"n\": 1}", "{\"apiKey\": \"***\", \"n\": 1}"),
            ("DB_PASSWORD='p w d'", "DB_PASSWORD='***'"),
            ("run --token abc", "run --token ***"),
            ("token = \"{{ SETTINGS.token }}\"", "token = \"{{ SETTINGS.token }}\""),
            ("token = \"${TOKEN}\"", "token = \"${TOKEN}\""),
            ("token_file: /etc/token", "token_file: /etc/token"),
            ("the token is read", "the token is read"),
        ] {
            assert_eq!(without_assigned(text), expected);
        }
    }
}
