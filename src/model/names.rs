//! Which logins, names and repository URLs GitHub permits. External text is checked here before it goes into templates,
//! paths and Meta.

/// The longest login: 39 characters, plus `_` and the short code of an enterprise with managed users.
const LONGEST_LOGIN: usize = 48;

const LONGEST_NAME: usize = 100;

/// The longest `host:port`.
const LONGEST_HOST: usize = 253 + 6;

const LONGEST_CLASS: usize = 32;

/// Whether this is a valid name for a class. It appears in Meta, in metrics and on the page.
pub fn is_class(text: &str) -> bool {
    (1..=LONGEST_CLASS).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// Whether GitHub permits this as the login of a user or an organization.
pub fn is_login(text: &str) -> bool {
    (1..=LONGEST_LOGIN).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// Whether GitHub permits this as the name of a repository.
pub fn is_repository_name(text: &str) -> bool {
    (1..=LONGEST_NAME).contains(&text.len())
        && !matches!(text, "." | "..")
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

/// The `host` or `host:port` of a URL, if it is the URL of exactly that repository:
/// `https://HOST/owner/name`, in any case.
pub fn host_of_page<'a>(url: &'a str, owner: &str, name: &str) -> Option<&'a str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let (host, path) = rest.split_once('/')?;
    let same = path
        .split_once('/')
        .is_some_and(|(of, named)| of.eq_ignore_ascii_case(owner) && named.eq_ignore_ascii_case(name));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']');
    (same && (1..=LONGEST_HOST).contains(&host.len()) && host.bytes().all(plain)).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_and_names_are_as_github_permits_them() {
        for login in ["a", "octo-cat", "mona_acme", "-legacy-", &"a".repeat(48)] {
            assert!(is_login(login), "{login}");
        }
        for login in ["", ".", "..", "a/b", "a b", "ä", "a\n", "a\"", "a.b", "${a}", &"a".repeat(49)] {
            assert!(!is_login(login), "{login}");
        }
        for name in ["a", ".github", "a.b_c-d", "...", &"n".repeat(100)] {
            assert!(is_repository_name(name), "{name}");
        }
        for name in ["", ".", "..", "a/b", "a b", "\u{1b}[2J", "a\u{202e}", "a\"", &"n".repeat(101)] {
            assert!(!is_repository_name(name), "{name}");
        }
    }

    #[test]
    fn a_page_is_that_of_the_repository_and_nothing_else() {
        let host = |url| host_of_page(url, "acme", "app");
        assert_eq!(host("https://github.com/acme/app"), Some("github.com"));
        assert_eq!(host("http://127.0.0.1:8080/Acme/App"), Some("127.0.0.1:8080"));
        assert_eq!(host("https://[::1]:8/acme/app"), Some("[::1]:8"));
        for bad in [
            "https://github.com/acme/app/",
            "https://github.com/acme/app?x",
            "https://github.com/acme/app\"\n } } task \"evil\" {",
            "https://github.com/acme/other",
            "https://github.com/x/acme/app",
            "https://user@github.com/acme/app",
            "https://git\nhub.com/acme/app",
            "https://${NOMAD}/acme/app",
            "https:///acme/app",
            "ftp://github.com/acme/app",
            "acme/app",
            "",
        ] {
            assert_eq!(host(bad), None, "{bad:?}");
        }
    }
}
