//! What can go wrong with GitHub.

use std::time::Duration;

use tokio::time::Instant;

use super::listed::Gap;
use crate::http;

/// A failure, told by what it means for the caller.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// 404 (or 410, 451): it does not exist, or the token may not see it.
    #[error("{what} does not exist, or the token cannot see it")]
    NotFound {
        /// What was asked for, with method and URL.
        what: String,
    },
    /// A rate limit, primary or secondary: nothing is asked until then (contract §4).
    #[error("GitHub's rate limit ({resource}) is exhausted: no requests for another {} s", .wait.as_secs())]
    RateLimited {
        /// When asking makes sense again.
        until: Instant,
        /// How long that was away when this error was made.
        wait: Duration,
        /// The bucket, or `secondary`.
        resource: String,
    },
    /// 401, also with the credentials read again.
    #[error("GitHub refuses the credentials: {0}; check the token or the App's key")]
    Unauthorized(String),
    /// 403 that is no rate limit: the token lacks a permission.
    #[error("the token may not do this: {0}")]
    Forbidden(String),
    /// The App is not installed for this owner, or its installation is suspended.
    #[error("the App's installation for {owner}: {detail}")]
    Installation {
        /// The owner's login.
        owner: String,
        /// What is wrong.
        detail: String,
    },
    /// The credentials cannot be read or used at all.
    #[error("{0}")]
    Credentials(String),
    /// 409: a runner of that name is registered already.
    #[error("a runner named {name} is already registered")]
    AlreadyExists {
        /// The name.
        name: String,
    },
    /// The time for a whole pass is over.
    #[error("not read completely: the pass ran out of time")]
    OutOfTime,
    /// What GitHub gave out for a runner cannot be used: not a secret of the form that it has, or another runner's.
    #[error("{0}")]
    BadSecret(String),
    /// A list that was read in part: what is not in it may be there all the same.
    #[error("{what} is incomplete: {gap}")]
    Incomplete {
        /// Which list.
        what: String,
        /// Why.
        gap: Gap,
    },
    /// An answer that makes no sense.
    #[error("{0}")]
    Unexpected(String),
    /// The exchange failed, or was answered with a status that is not expected.
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

    /// Whether the request may have taken effect all the same; see [`http::Error::is_ambiguous`].
    pub fn is_ambiguous(&self) -> bool {
        match self {
            Error::Http(error) => error.is_ambiguous(),
            // It was registered, and must be removed again.
            Error::Unexpected(_) | Error::BadSecret(_) => true,
            _ => false,
        }
    }

    /// Whether GitHub, or the way to it, is in trouble: nothing that the configuration could mend.
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

    /// Whether an answer was begun or refused by the server itself: 5xx, too large, cut off, too late. Less at a time may
    /// work, and other answers need not fail.
    pub(super) fn is_of_the_answer(&self) -> bool {
        let Error::Http(error) = self else { return false };
        error.status().is_some_and(|status| status.is_server_error())
            || error.is_timeout()
            || matches!(error, http::Error::BodyTooLarge { .. } | http::Error::Closed { .. })
    }

    /// Whether the time for an exchange was over.
    pub(super) fn is_timeout(&self) -> bool {
        matches!(self, Error::Http(error) if error.is_timeout())
    }

    /// Whether one answer made no sense, which says nothing of others.
    pub(super) fn is_senseless(&self) -> bool {
        matches!(self, Error::Http(http::Error::Json { .. }))
    }

    /// The error for an answer that no caller expects.
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
