//! The HTTP client of both adapters: one host, HTTP/1.1, pooled connections, hard limits.
//!
//! A [`Client`] belongs to one [`Endpoint`] (TCP, TLS, a unix socket, or an in-memory connection for
//! simulations). One deadline covers the whole exchange: the wait for a free connection, connecting, TLS, and
//! the response's headers and body. Bodies, lines, retries and connections are limited. Time is tokio's and
//! randomness comes from a seed, so that a whole run can be simulated.
//!
//! [`Error::is_ambiguous`] tells whether a failed exchange may have had an effect, and
//! [`Error::is_transient`] whether a retry makes sense. No request is ever sent twice unless the caller uses
//! [`Client::send_with_retries`].

mod client;
mod connect;
mod error;
mod lines;
mod message;
mod redact;
mod retry;
mod secret;
mod tls;
mod watch;

#[cfg(test)]
pub(crate) mod tests;

pub use client::{Client, Options};
pub use connect::{Endpoint, MemoryConnect, Proxy};
pub use error::{Error, Exchange};
pub use hyper::{HeaderMap, Method, StatusCode, header};
pub use lines::Lines;
pub use message::{Request, Response, date_of, escape_segment};
pub use retry::RetryPolicy;
pub use tls::TlsOptions;
pub use watch::{Exchanged, OTHER, Observer, route};

pub use crate::secret::Secret;
