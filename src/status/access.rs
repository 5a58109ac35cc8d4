//! Who may see the page and the API. Health and metrics are open to everyone who can reach the port.

use std::net::IpAddr;

use base64::Engine;
use hyper::{
    HeaderMap,
    header::{AUTHORIZATION, HOST},
};
use ring::hmac;

use crate::secret::Secret;

/// Who may see the page and the API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Nobody: other machines can reach the port, and the configuration does not permit it.
    #[default]
    Closed,
    /// Everyone who presents the token, as a bearer token or as the password that a browser asks for.
    Token(Secret),
    /// Everyone on this machine, by IP address. A web page whose host name resolves to this machine is
    /// refused.
    Local,
    /// Everyone who can reach the port.
    Public,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The token is missing or wrong.
    Unauthorized,
    /// The port is closed to everyone.
    Closed,
    /// The request's host name is not this machine's own.
    ForeignHost,
}

impl Access {
    /// Whether a request with these headers may see the page and the API.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Refused> {
        match self {
            Access::Public => Ok(()),
            Access::Closed => Err(Refused::Closed),
            Access::Local => is_local(headers).then_some(()).ok_or(Refused::ForeignHost),
            Access::Token(token) => {
                let shown = headers.get(AUTHORIZATION).and_then(|value| shown_token(value.to_str().ok()?));
                shown
                    .is_some_and(|shown| is_same(token.expose(), &shown))
                    .then_some(())
                    .ok_or(Refused::Unauthorized)
            }
        }
    }
}

/// The token in a header: `Bearer TOKEN`, or `Basic` with any user and the token as the password.
fn shown_token(header: &str) -> Option<String> {
    let (scheme, value) = header.split_once(' ')?;
    let value = value.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(value.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = base64::engine::general_purpose::STANDARD.decode(value).ok()?;
    let pair = String::from_utf8(pair).ok()?;
    pair.split_once(':').map(|(_, password)| password.to_owned())
}

/// In a time that does not depend on where they differ.
fn is_same(token: &str, shown: &str) -> bool {
    let key = |text: &str| hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes());
    let tag = hmac::sign(&key(token), b"status");
    hmac::verify(&key(shown), b"status", tag.as_ref()).is_ok()
}

/// Whether the request's host is an IP address or this machine's own name. A host name on the web can resolve to this
/// machine too, and its page could then read what is here.
fn is_local(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok()) else { return false };
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn with(name: hyper::header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn a_token_is_accepted_as_a_bearer_or_as_a_password() {
        let access = Access::Token(Secret::new("0123456789abcdef"));
        let basic = |pair: &str| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
        for good in ["Bearer 0123456789abcdef", "bearer 0123456789abcdef", &basic("me:0123456789abcdef")] {
            assert_eq!(access.check(&with(AUTHORIZATION, good)), Ok(()), "{good}");
        }
        let bad = [
            "Bearer 0123456789abcdeg",
            "Bearer ",
            "0123456789abcdef",
            &basic("0123456789abcdef:"),
            "Basic x",
        ];
        for bad in bad {
            assert_eq!(access.check(&with(AUTHORIZATION, bad)), Err(Refused::Unauthorized), "{bad}");
        }
        assert_eq!(access.check(&HeaderMap::new()), Err(Refused::Unauthorized));
    }

    #[test]
    fn a_web_page_whose_host_name_resolves_here_sees_nothing() {
        for good in ["127.0.0.1:9090", "[::1]:9090", "localhost", "LOCALHOST:1", "127.0.0.1"] {
            assert_eq!(Access::Local.check(&with(HOST, good)), Ok(()), "{good}");
        }
        for bad in ["evil.example:9090", "127.0.0.1.evil.example", "localhost.evil.example", ""] {
            assert_eq!(Access::Local.check(&with(HOST, bad)), Err(Refused::ForeignHost), "{bad}");
        }
        assert_eq!(Access::Local.check(&HeaderMap::new()), Err(Refused::ForeignHost));
        assert_eq!(Access::Closed.check(&with(HOST, "127.0.0.1")), Err(Refused::Closed));
    }
}
