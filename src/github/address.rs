//! The address of the API, however people write it.

use url::{Host, Url};

/// The URL of GitHub's REST API for what a person wrote: `https://github.com`, `https://api.github.com/`,
/// `https://HOST` (Enterprise Server: `https://HOST/api/v3`), `X.ghe.com` (`https://api.X.ghe.com`). An IP address,
/// `localhost` and everything with a path are taken as they are: proxies and simulators (contract §4).
///
/// The result ends with a slash, so that paths can be joined to it.
///
/// # Errors
/// A text for people, when it is no `http` or `https` URL with a host.
pub fn api_url(text: &str) -> Result<Url, String> {
    let text = text.trim();
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let mut url = Url::parse(&with_scheme).map_err(|error| format!("{text:?} is not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("{text:?} is neither http nor https"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "the URL of the API has user information in it; give the token as github.token".to_owned()
        );
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

fn with_slash(mut url: Url) -> Url {
    let path = format!("{}/", url.path().trim_end_matches('/'));
    url.set_path(&path);
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_it_leads_to_the_api() {
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
}
