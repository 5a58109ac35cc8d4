//! Errors of the GitHub adapter.

use std::time::Duration;

use tokio::time::Instant;

use super::listed::Gap;
use crate::http;

/// A failure, by what it means to the caller.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// 404 (or 410, 451): it does not exist, or the token cannot see it.
    #[error("{what} does not exist, or the token cannot see it")]
    NotFound {
        /// What was requested, with method and URL.
        what: String,
    },
    /// A rate limit, primary or secondary: no requests until then (contract §4).
    #[error("GitHub's rate limit ({resource}) is exhausted: no requests for another {} s", .wait.as_secs())]
    RateLimited {
        /// When the next request makes sense.
        until: Instant,
        /// How long that was away when this error was created.
        wait: Duration,
        /// The bucket, or `secondary`.
        resource: String,
    },
    /// 401, even after rereading the credentials.
    #[error("GitHub rejects the credentials: {0}; check the token or the App's key")]
    Unauthorized(String),
    /// 403 that is not a rate limit: the token lacks a permission.
    #[error("the token lacks a permission: {0}")]
    Forbidden(String),
    /// The App is not installed for this owner, or its installation is suspended.
    #[error("the App's installation for {owner}: {detail}")]
    Installation {
        owner: String,
        /// What is wrong.
        detail: String,
    },
    /// The credentials cannot be read or used at all.
    #[error("{0}")]
    Credentials(String),
    /// 409: a runner of that name is already registered.
    #[error("a runner named {name} is already registered")]
    AlreadyExists {
        /// The name.
        name: String,
    },
    /// The deadline of the pass was reached.
    #[error("not read completely: the pass ran out of time")]
    OutOfTime,
    /// The credentials that GitHub issued for a runner are invalid: malformed, or another runner's.
    #[error("{0}")]
    BadSecret(String),
    /// An incomplete list: an item that is missing from it may still exist.
    #[error("{what} is incomplete: {gap}")]
    Incomplete {
        /// Which list.
        what: String,
        /// Why it is incomplete.
        gap: Gap,
    },
    /// An invalid response.
    #[error("{0}")]
    Unexpected(String),
    /// The exchange failed, or the response has an unexpected status.
    #[error(transparent)]
    Http(#[from] http::Error),
}

impl Error {
    /// The kind, in one word.
    pub fn kind(&self) -> &'static str {
        match self {
            Error::NotFound { .. } => "not_found",
            Error::RateLimited { .. } => "rate_limited",
            Error::Unauthorized(_) => "unauthorized",
            Error::Forbidden(_) => "forbidden",
            Error::Installation { .. } => "installation",
            Error::Credentials(_) => "credentials",
            Error::AlreadyExists { .. } => "already_exists",
            Error::OutOfTime => "out_of_time",
            Error::BadSecret(_) => "bad_secret",
            Error::Incomplete { .. } => "incomplete",
            Error::Unexpected(_) => "unexpected",
            Error::Http(error) => error.kind(),
        }
    }

    /// Whether the request may still have taken effect; see [`http::Error::is_ambiguous`].
    pub fn is_ambiguous(&self) -> bool {
        match self {
            Error::Http(error) => error.is_ambiguous(),
            // Something was registered and must be removed again.
            Error::Unexpected(_) | Error::BadSecret(_) => true,
            _ => false,
        }
    }

    /// Whether GitHub, or the connection to it, is in trouble, so that no change of the configuration would
    /// help.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Http(error) => error.is_transient(),
            Error::RateLimited { .. }
            | Error::OutOfTime
            | Error::BadSecret(_)
            | Error::Incomplete { .. }
            | Error::Unexpected(_) => true,
            _ => false,
        }
    }

    /// Whether only this response failed: 5xx, too large, interrupted, too late. A smaller request may work, and other
    /// requests need not fail.
    pub(super) fn is_of_the_answer(&self) -> bool {
        let Error::Http(error) = self else { return false };
        error.status().is_some_and(|status| status.is_server_error())
            || error.is_timeout()
            || matches!(error, http::Error::BodyTooLarge { .. } | http::Error::Closed { .. })
    }

    /// Whether the exchange timed out.
    pub(super) fn is_timeout(&self) -> bool {
        matches!(self, Error::Http(error) if error.is_timeout())
    }

    /// Whether one response was invalid, which says nothing about others.
    pub(super) fn is_senseless(&self) -> bool {
        matches!(self, Error::Http(http::Error::Json { .. }))
    }

    /// The error for an unexpected response.
    pub(super) fn from_answer(response: &http::Response) -> Self {
        let error = response.error();
        match response.status.as_u16() {
            401 => Error::Unauthorized(error.to_string()),
            403 => Error::Forbidden(error.to_string()),
            404 | 410 | 451 => Error::NotFound { what: response.exchange.to_string() },
            _ => Error::Http(error),
        }
    }
}
