//! The HTTP client that both adapters use: one host, HTTP/1.1, pooled connections, hard limits.
//!
//! A [`Client`] belongs to one [`Endpoint`] (TCP, TLS, a unix socket, or an in-memory connection for
//! simulations). Every exchange has one deadline around all of it: the wait for a free connection,
//! connecting, TLS, the answer's headers and its body. Bodies, lines, retries and connections are
//! bounded. Time is tokio's and randomness comes from a seed, so that a whole run can be simulated.
//!
//! What may have happened when an exchange fails is told by [`Error::is_ambiguous`]; whether trying
//! again later makes sense by [`Error::is_transient`]. No request is ever sent twice unless the
//! caller asks for it with [`Client::send_with_retries`].

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

pub use crate::secret::Secret;
pub use client::{Client, Options};
pub use connect::{Endpoint, MemoryConnect, Proxy};
pub use error::{Error, Exchange};
pub use hyper::header;
pub use hyper::{HeaderMap, Method, StatusCode};
pub use lines::Lines;
pub use message::{Request, Response, date_of, escape_segment};
pub use retry::RetryPolicy;
pub use tls::TlsOptions;
pub use watch::{Exchanged, OTHER, Observer, route};
