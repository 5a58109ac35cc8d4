//! The URL of the API, in any form that people write it.

use url::{Host, Url};

use crate::model::host_of_page;

/// The URL of GitHub's REST API for what a person wrote: `https://github.com`, `https://api.github.com/`,
/// `https://HOST` (Enterprise Server: `https://HOST/api/v3`), `X.ghe.com` (`https://api.X.ghe.com`). An IP address,
/// `localhost` and anything with a path are used unchanged, for proxies and simulators (contract §4).
///
/// The result ends with a slash, so that paths can be joined to it.
///
/// # Errors
/// A text for display if it is not an `http` or `https` URL with a host.
pub fn api_url(text: &str) -> Result<Url, String> {
    let text = text.trim();
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let mut url = Url::parse(&with_scheme).map_err(|error| format!("{text:?} is not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("{text:?} is not an http or https URL"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("the API's URL contains credentials; set github.token instead".to_owned());
    }
    url.set_query(None);
    url.set_fragment(None);
    let Some(host) = url.host() else { return Err(format!("{text:?} has no host")) };
    let Host::Domain(domain) = host else { return Ok(with_slash(url)) };
    let domain = domain.to_ascii_lowercase();
    let domain = domain.trim_end_matches('.');
    if matches!(domain, "github.com" | "www.github.com" | "api.github.com") {
        return Url::parse("https://api.github.com/").map_err(|error| error.to_string());
    }
    if url.path().trim_matches('/').is_empty() && domain != "localhost" {
        if domain.ends_with(".ghe.com") {
            if !domain.starts_with("api.") {
                url.set_host(Some(&format!("api.{domain}"))).map_err(|error| error.to_string())?;
            }
        } else {
            url.set_path("/api/v3");
        }
    }
    Ok(with_slash(url))
}

/// The web site of an API: the host of `html_url`s.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Web {
    /// `None`: the API is reached through a proxy or is a simulator, so its host name says nothing.
    host: Option<String>,
}

impl Web {
    /// The web site of an API (contract §4).
    pub fn of(api: &Url) -> Self {
        let host = api.host_str().unwrap_or_default();
        let host = match host {
            "api.github.com" => Some("github.com"),
            _ if host.ends_with(".ghe.com") => Some(host.strip_prefix("api.").unwrap_or(host)),
            _ if api.path().trim_matches('/') == "api/v3" => Some(host),
            _ => None,
        };
        Self { host: host.map(str::to_owned) }
    }

    /// Checks that `url` is the page of that repository on this site.
    ///
    /// # Errors
    /// What is wrong, without the invalid text.
    pub fn check(&self, url: &str, owner: &str, name: &str) -> Result<(), String> {
        let Some(host) = host_of_page(url, owner, name) else {
            return Err(format!("its html_url is not the page of {owner}/{name}"));
        };
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        match &self.host {
            Some(site) if !site.eq_ignore_ascii_case(name) => Err(format!(
                "its html_url is on {host}, not on {site}; if that is the same server, set github.url to https://{host}"
            )),
            _ => Ok(()),
        }
    }
}

fn with_slash(mut url: Url) -> Url {
    let path = format!("{}/", url.path().trim_end_matches('/'));
    url.set_path(&path);
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_the_url_leads_to_the_api() {
        let cases = [
            ("https://github.com", "https://api.github.com/"),
            ("github.com", "https://api.github.com/"),
            ("https://www.github.com/", "https://api.github.com/"),
            ("https://api.github.com", "https://api.github.com/"),
            ("https://api.github.com/", "https://api.github.com/"),
            ("http://GitHub.com", "https://api.github.com/"),
            ("https://ghe.example.org", "https://ghe.example.org/api/v3/"),
            ("https://ghe.example.org/", "https://ghe.example.org/api/v3/"),
            ("https://ghe.example.org/api/v3", "https://ghe.example.org/api/v3/"),
            ("https://ghe.example.org/api/v3/", "https://ghe.example.org/api/v3/"),
            ("https://ghe.example.org:8443", "https://ghe.example.org:8443/api/v3/"),
            ("ghe.example.org", "https://ghe.example.org/api/v3/"),
            ("octo.ghe.com", "https://api.octo.ghe.com/"),
            ("https://octo.ghe.com/", "https://api.octo.ghe.com/"),
            ("https://api.octo.ghe.com", "https://api.octo.ghe.com/"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/"),
            ("http://[::1]:8080/github", "http://[::1]:8080/github/"),
            ("http://localhost:8080", "http://localhost:8080/"),
            ("https://proxy.example/gh", "https://proxy.example/gh/"),
        ];
        for (text, expected) in cases {
            assert_eq!(api_url(text).unwrap().as_str(), expected, "{text}");
        }
        for bad in ["", "ftp://github.com", "https://user:word@ghe.example", "https://"] {
            let error = api_url(bad).unwrap_err();
            assert!(!error.contains("word"), "{error}");
        }
    }
    #[test]
    fn pages_are_on_the_site_of_the_api() {
        let site = |api: &str| Web::of(&api_url(api).unwrap());
        let check = |api: &str, page: &str| site(api).check(page, "o", "r");
        for (api, page) in [
            ("https://github.com", "https://github.com/o/r"),
            ("https://octo.ghe.com", "https://octo.ghe.com/o/r"),
            ("https://ghe.example.org", "https://GHE.example.org/o/r"),
            ("https://ghe.example.org:8443", "https://ghe.example.org:8443/o/r"),
            ("http://127.0.0.1:8080", "https://github.com/o/r"),
            ("https://proxy.example/gh", "https://github.com/o/r"),
        ] {
            assert_eq!(check(api, page), Ok(()), "{api} {page}");
        }
        for (api, page) in [
            ("https://github.com", "https://github.com.evil.example/o/r"),
            ("https://github.com", "https://api.github.com/o/r"),
            ("https://octo.ghe.com", "https://github.com/o/r"),
            ("http://127.0.0.1:8080", "https://github.com/o/r\"\n}"),
        ] {
            assert!(check(api, page).is_err(), "{api} {page}");
        }
        let other = check("https://ghe.example.org", "https://git.example.org/o/r").unwrap_err();
        assert!(other.contains("set github.url to https://git.example.org"), "{other}");
    }
}
