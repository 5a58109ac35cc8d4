//! Errors of the Nomad adapter, and what the reader can do about them.

use std::fmt;

use crate::http::{self, Response, StatusCode};

/// A failed request to Nomad, or an unsuitable job.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An invalid option.
    #[error("{0}")]
    Setup(String),
    /// One of our variables has unexpected content, or another program writes to it.
    #[error("{0}")]
    Variable(String),
    /// A runner's Meta could not be sealed.
    #[error("{0}")]
    Seal(String),
    /// A list is empty although something exists, which is how Nomad refuses a list (contract §7).
    #[error("{0}")]
    EmptyList(String),
    /// The response cannot be used: too large, endless, or without a date.
    #[error("{0}")]
    Unusable(String),
    /// No complete response.
    #[error("{error}{}", hint_of(.error))]
    Exchange { error: http::Error },
    /// The servers cannot respond now: no leader, no connection between them, too many requests.
    #[error("{0}; Nomad's servers are not ready (see nomad server members)")]
    Unavailable(http::Error),
    /// The response contains stale data.
    #[error(
        "the Nomad server lost contact with its leader {} s ago, so its data is stale (see nomad server members)",
        .silent.as_secs()
    )]
    Old {
        /// For how long.
        silent: std::time::Duration,
    },
    /// The token lacks a right, or there is none.
    #[error("{error}; {}", .right.advice(*.with_token, .namespace))]
    Denied {
        error: http::Error,
        /// The required right.
        right: Right,
        /// The namespace.
        namespace: Box<str>,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// The namespace does not exist. A list in it returns `200 []`.
    #[error(
        "the Nomad namespace {namespace:?} does not exist; create it with: nomad namespace apply {namespace}"
    )]
    NamespaceMissing { namespace: String },
    /// The event stream was opened but is silent, which is how a refusal looks from 1.11.2 on (contract §6).
    #[error(
        "Nomad's event stream is silent: the token needs the capability read-job in namespace {namespace:?}, and \
         a workload identity needs Nomad 1.9.6"
    )]
    StreamRefused {
        /// The namespace.
        namespace: String,
    },
    /// Nomad refuses the request as such.
    #[error("{0}")]
    Refused(http::Error),
    /// Nomad cannot parse the rendered template.
    #[error("{message}{}", line.as_ref().map(|line| format!("; that line: {line}")).unwrap_or_default())]
    Hcl {
        /// Nomad's message, with line and column.
        message: String,
        /// The line, if it may be shown.
        line: Option<String>,
    },
    /// The rendered job cannot be a runner.
    #[error("the rendered job cannot be a runner: {0}")]
    Job(String),
    /// A job with this ID exists, and is not the one to be registered.
    #[error("the Nomad job {name:?} already exists and is not this runner's; see nomad job status {name}")]
    Taken {
        /// The job's ID.
        name: String,
    },
}

/// The right that a request needs, in the terms of an ACL policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// A capability in the namespace.
    Capability(&'static str),
    /// A capability for variables below a path.
    Variables {
        /// The path's pattern. PREFIX stands for the configured one.
        path: &'static str,
        /// `list`, `read`, `write` or `destroy`.
        capability: &'static str,
    },
    /// Reading nodes. It is optional.
    Nodes,
}

impl Right {
    pub(super) fn advice(self, with_token: bool, namespace: &str) -> String {
        if self == Right::Nodes {
            return format!("the Nomad token needs {self} (nomad acl policy apply)");
        }
        if with_token {
            format!("the Nomad token needs {self} in namespace {namespace:?} (nomad acl policy apply)")
        } else {
            format!("no token was sent: set NOMAD_TOKEN to one with {self} in namespace {namespace:?}")
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Right::Capability(name) => write!(f, "the capability {name}"),
            Right::Variables { path, capability } => {
                write!(f, "the capability {capability} for variables {path}")
            }
            Right::Nodes => f.write_str("node { policy = \"read\" }"),
        }
    }
}

impl Error {
    /// The kind, in one word.
    pub fn kind(&self) -> &'static str {
        match self {
            Error::Setup(_) => "setup",
            Error::Variable(_) => "variable",
            Error::Seal(_) => "seal",
            Error::EmptyList(_) => "empty_list",
            Error::Unusable(_) => "unusable",
            Error::Exchange { error } | Error::Unavailable(error) | Error::Refused(error) => error.kind(),
            Error::Old { .. } => "stale",
            Error::Denied { .. } => "denied",
            Error::NamespaceMissing { .. } => "namespace",
            Error::StreamRefused { .. } => "stream",
            Error::Hcl { .. } => "hcl",
            Error::Job(_) => "job",
            Error::Taken { .. } => "taken",
        }
    }

    /// The meaning of a response other than 2xx. Errors are plain text, a 500 can mean many things, and
    /// followers add a prefix, so the text is searched (contract §0, §9).
    pub(super) fn from_answer(response: &Response, right: Right, namespace: &str, with_token: bool) -> Error {
        let error = response.error();
        match Verdict::of(response) {
            Verdict::Denied => Error::Denied { error, right, namespace: namespace.into(), with_token },
            Verdict::NamespaceMissing => Error::NamespaceMissing { namespace: namespace.to_owned() },
            Verdict::Refused => Error::Refused(error),
            Verdict::Unavailable => Error::Unavailable(error),
        }
    }

    /// Whether the same request may succeed a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Exchange { error } => error.is_transient(),
            Error::Unavailable(_) => true,
            _ => false,
        }
    }

    /// Whether the request may still have taken effect.
    pub fn is_ambiguous(&self) -> bool {
        match self {
            Error::Exchange { error } => error.is_ambiguous(),
            Error::Unavailable(error) => error.is_ambiguous(),
            // This attempt was refused, which says nothing about an earlier one.
            Error::Refused(error) | Error::Denied { error, .. } => matches!(error, http::Error::Repeated(_)),
            _ => false,
        }
    }
}

impl From<http::Error> for Error {
    fn from(error: http::Error) -> Self {
        match error {
            http::Error::Setup(text) => Error::Setup(text),
            error => Error::Exchange { error },
        }
    }
}

/// The meaning of a response other than 2xx.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Denied,
    NamespaceMissing,
    Refused,
    Unavailable,
}

impl Verdict {
    fn of(response: &Response) -> Verdict {
        let body = String::from_utf8_lossy(&response.body);
        let says = |texts: &[&str]| texts.iter().any(|text| body.contains(text));
        if matches!(response.status, StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED)
            || says(&["Permission denied", "ACL token not found", "Server error authenticating request"])
        {
            Verdict::Denied
        } else if says(&["nonexistent namespace"]) {
            Verdict::NamespaceMissing
        } else if response.status == StatusCode::TOO_MANY_REQUESTS
            || response.status == StatusCode::REQUEST_TIMEOUT
        {
            Verdict::Unavailable
        } else if !response.status.is_server_error()
            || says(&["error occurred:", "errors occurred:", "nonexistent", "Enforcing job modify index"])
        {
            Verdict::Refused
        } else {
            Verdict::Unavailable
        }
    }
}

/// Whether to retry at once after a response.
pub(super) fn worth_again(response: &Response) -> bool {
    // "No path to region" resolves slowly if at all (contract §9), so only the next pass retries.
    !response.is_success()
        && Verdict::of(response) == Verdict::Unavailable
        && !String::from_utf8_lossy(&response.body).contains("No path to region")
}

fn hint_of(error: &http::Error) -> &'static str {
    match error {
        http::Error::Repeated(last) => hint_of(last),
        http::Error::Connect { detail, .. } if detail.contains("SUN_LEN") => {
            " (there is no task API where the path of its socket would be longer than 107 bytes: give the Nomad \
             client a shorter data_dir or alloc_dir)"
        }
        http::Error::Connect { .. } => " (NOMAD_ADDR sets Nomad's address)",
        http::Error::Tls { detail, .. } if detail.contains("fatal alert") => {
            " (Nomad requires a client certificate: set NOMAD_CLIENT_CERT and NOMAD_CLIENT_KEY)"
        }
        http::Error::Tls { .. } => " (NOMAD_CACERT, NOMAD_CAPATH, NOMAD_TLS_SERVER_NAME)",
        _ => "",
    }
}
