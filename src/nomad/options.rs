//! Nomad's address and our credentials (contract §7).

use std::path::PathBuf;

use super::error::Error;
use crate::{
    http::{self, Endpoint, TlsOptions},
    model::Namespace,
    secret::Secret,
};

/// The largest response body. A page of [`PAGE`] allocations with all their events has about 5 MB. Anyone who may
/// submit jobs can make some of them much larger; they are then requested a few at a time.
pub(super) const MAX_BODY: usize = 16 * 1024 * 1024;

/// The nomad CLI's default.
const DEFAULT_ADDRESS: &str = "http://127.0.0.1:4646";

/// Nomad's address, our credentials, and what identifies our jobs.
#[derive(Clone, Debug)]
pub struct Options {
    /// NOMAD_ADDR, or the task API's socket.
    pub address: Endpoint,
    pub token: Option<Secret>,
    /// A file with the token of a workload identity, which Nomad may renew. It is used if there is no `token`, and
    /// reread when Nomad refuses the token.
    pub token_file: Option<PathBuf>,
    pub namespace: String,
    /// The other namespaces that our runners are in.
    pub elsewhere: Vec<Namespace>,
    /// NOMAD_REGION; `None`: the agent's own.
    pub region: Option<String>,
    /// NOMAD_HTTP_AUTH, `user:password` for a proxy in front of Nomad.
    pub http_auth: Option<Secret>,
    pub tls: TlsOptions,
    /// The first part of our jobs' IDs, followed by a dash.
    pub prefix: String,
    /// The Meta key of our JSON.
    pub meta_key: String,
    /// Whether to write a missing deployment ID. Off for commands that only read.
    pub create_deployment: bool,
    /// The largest response body, in bytes. A longer list is read a few entries at a time.
    pub max_body: usize,
    /// The seed of the retries' jitter.
    pub seed: u64,
}

impl Options {
    /// Options for an address, without a token.
    pub fn new(
        address: Endpoint,
        namespace: impl Into<String>,
        prefix: impl Into<String>,
        meta_key: impl Into<String>,
    ) -> Self {
        Options {
            address,
            token: None,
            token_file: None,
            namespace: namespace.into(),
            elsewhere: Vec::new(),
            region: None,
            http_auth: None,
            tls: TlsOptions::default(),
            prefix: prefix.into(),
            meta_key: meta_key.into(),
            create_deployment: true,
            max_body: MAX_BODY,
            seed: 0,
        }
    }

    /// The options from the environment, as the nomad CLI reads it. Inside a Nomad task and without NOMAD_ADDR,
    /// it is the task API with the task's workload identity. Namespace, prefix and Meta key come from the
    /// configuration.
    ///
    /// # Errors
    /// [`Error::Setup`] if a variable has an invalid value.
    pub fn from_env(
        lookup: impl Fn(&str) -> Option<String>,
        namespace: impl Into<String>,
        prefix: impl Into<String>,
        meta_key: impl Into<String>,
    ) -> Result<Self, Error> {
        let lookup = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let secrets_dir = lookup("NOMAD_SECRETS_DIR").map(PathBuf::from);
        let socket = || {
            let given = lookup("NOMAD_UNIX_ADDR").map(|address| match address.strip_prefix("unix://") {
                Some(path) => PathBuf::from(path),
                None => PathBuf::from(&address),
            });
            given.or_else(|| secrets_dir.as_ref().map(|dir| dir.join("api.sock")))
        };
        let (address, task_api) = match (lookup("NOMAD_ADDR"), socket()) {
            (Some(address), socket) => {
                let address = named("NOMAD_ADDR", Endpoint::parse(&address))?;
                // A job can set this explicitly, because raw_exec tasks inherit the agent's own NOMAD_ADDR.
                let task_api = matches!(&address, Endpoint::Unix(path) if Some(path) == socket.as_ref());
                (address, task_api)
            }
            (None, Some(path)) => (Endpoint::Unix(path), true),
            (None, None) => (named("NOMAD_ADDR", Endpoint::parse(DEFAULT_ADDRESS))?, false),
        };
        let token = lookup("NOMAD_TOKEN").map(Secret::new);
        let token_file =
            secrets_dir.map(|dir| dir.join("nomad_token")).filter(|_| task_api || token.is_none());
        let http_auth = lookup("NOMAD_HTTP_AUTH").map(Secret::new);
        if http_auth.as_ref().is_some_and(|auth| !auth.expose().contains(':')) {
            return Err(Error::Setup("NOMAD_HTTP_AUTH: use the form user:password".to_owned()));
        }
        if lookup("NOMAD_CLIENT_CERT").is_some() != lookup("NOMAD_CLIENT_KEY").is_some() {
            let both = "NOMAD_CLIENT_CERT and NOMAD_CLIENT_KEY go together: set both or none";
            return Err(Error::Setup(both.to_owned()));
        }
        let ca_files: Vec<PathBuf> = lookup("NOMAD_CACERT").map(PathBuf::from).into_iter().collect();
        let ca_dirs: Vec<PathBuf> = lookup("NOMAD_CAPATH").map(PathBuf::from).into_iter().collect();
        let tls = TlsOptions {
            only_given_authorities: !(ca_files.is_empty() && ca_dirs.is_empty()),
            ca_files,
            ca_dirs,
            client_certificate: lookup("NOMAD_CLIENT_CERT").map(PathBuf::from),
            client_key: lookup("NOMAD_CLIENT_KEY").map(PathBuf::from),
            server_name: lookup("NOMAD_TLS_SERVER_NAME"),
            skip_verify: match lookup("NOMAD_SKIP_VERIFY") {
                None => false,
                Some(text) => boolean(&text).ok_or_else(|| {
                    Error::Setup(format!("NOMAD_SKIP_VERIFY: {text:?} is not true or false"))
                })?,
            },
        };
        Ok(Options {
            token,
            token_file,
            region: lookup("NOMAD_REGION"),
            http_auth,
            tls,
            ..Options::new(address, namespace, prefix, meta_key)
        })
    }

    /// The initial token: the given one, or else the file's.
    pub(super) fn first_token(&self) -> Option<Secret> {
        self.token.clone().or_else(|| self.read_token_file())
    }

    /// The token file's content. The file is small and local, so reading it blocks no longer than a log line
    /// does.
    pub(super) fn read_token_file(&self) -> Option<Secret> {
        let text = std::fs::read_to_string(self.token_file.as_ref()?).ok()?;
        let text = text.trim();
        (!text.is_empty()).then(|| Secret::new(text))
    }
}

fn named<T>(variable: &str, result: Result<T, http::Error>) -> Result<T, Error> {
    result.map_err(|error| Error::Setup(format!("{variable}: {error}")))
}

/// Go's spellings of a boolean, which the nomad CLI accepts.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(pairs: &[(&str, &str)]) -> Result<Options, Error> {
        let lookup =
            |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Options::from_env(lookup, "ns", "ghr", "runner")
    }

    #[test]
    fn the_default_is_the_local_agent() {
        let options = from(&[]).unwrap();
        assert_eq!(format!("{:?}", options.address), "Endpoint(http://127.0.0.1:4646)");
        assert!(options.token.is_none() && options.token_file.is_none());
        assert!(!options.tls.only_given_authorities);
    }

    #[test]
    fn inside_a_task_the_task_api_is_used_with_the_workload_identity() {
        let options = from(&[("NOMAD_SECRETS_DIR", "/secrets"), ("NOMAD_TOKEN", "identity")]).unwrap();
        assert!(
            matches!(&options.address, Endpoint::Unix(path) if path == std::path::Path::new("/secrets/api.sock"))
        );
        assert_eq!(options.token_file, Some(PathBuf::from("/secrets/nomad_token")));
        assert_eq!(options.token.unwrap().expose(), "identity");
    }

    #[test]
    fn a_unix_address_overrides_the_secrets_directory_in_both_spellings() {
        for address in ["unix:///other/api.sock", "/other/api.sock"] {
            let options = from(&[("NOMAD_SECRETS_DIR", "/secrets"), ("NOMAD_UNIX_ADDR", address)]).unwrap();
            assert!(
                matches!(&options.address, Endpoint::Unix(path) if path == std::path::Path::new("/other/api.sock"))
            );
        }
    }

    #[test]
    fn the_task_api_may_be_named_as_the_address() {
        let options = from(&[
            ("NOMAD_SECRETS_DIR", "/secrets"),
            ("NOMAD_ADDR", "unix:///secrets/api.sock"),
            ("NOMAD_TOKEN", "identity"),
        ])
        .unwrap();
        assert_eq!(options.token_file, Some(PathBuf::from("/secrets/nomad_token")));
    }

    #[test]
    fn a_given_address_and_token_override_the_tasks_own() {
        let options = from(&[
            ("NOMAD_SECRETS_DIR", "/secrets"),
            ("NOMAD_ADDR", "https://nomad:4646"),
            ("NOMAD_TOKEN", "mine"),
            ("NOMAD_CACERT", "/ca.pem"),
            ("NOMAD_SKIP_VERIFY", "1"),
            ("NOMAD_REGION", "eu"),
        ])
        .unwrap();
        assert_eq!(format!("{:?}", options.address), "Endpoint(https://nomad:4646)");
        assert_eq!(options.token_file, None);
        assert!(options.tls.skip_verify && options.tls.only_given_authorities);
        assert_eq!(options.region.as_deref(), Some("eu"));
    }

    #[test]
    fn invalid_values_are_named() {
        for (variable, value) in [
            ("NOMAD_ADDR", "nomad:4646"),
            ("NOMAD_SKIP_VERIFY", "maybe"),
            ("NOMAD_HTTP_AUTH", "user"),
            ("NOMAD_CLIENT_CERT", "/c.pem"),
            ("NOMAD_CLIENT_KEY", "/c.key"),
        ] {
            let error = from(&[(variable, value)]).unwrap_err().to_string();
            assert!(error.contains(variable), "{error}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let options = from(&[("NOMAD_TOKEN", "hidden"), ("NOMAD_HTTP_AUTH", "hidden:hidden")]).unwrap();
        assert!(!format!("{options:?}").contains("hidden"));
    }
}
