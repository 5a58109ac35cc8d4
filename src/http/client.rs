//! The client: exchanges with one host, within limits.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::Engine;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Method, Uri,
    body::{Body, Incoming},
    header::{self, HeaderValue},
};
use hyper_util::{
    client::{
        legacy,
        legacy::connect::{CaptureConnection, capture_connection},
    },
    rt::{TokioExecutor, TokioTimer},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::{
    connect::{ConnectFailure, Connector, Endpoint, Proxy},
    error::{Error, Exchange, shown_path},
    lines::Lines,
    message::{Request, Response},
    retry::RetryPolicy,
    secret,
    tls::TlsOptions,
    watch::{Observer, Watch},
};
use crate::secret::Secret;

/// Every body may be read up to this size, in bytes. Larger ones are read one at a time, so that all bodies together
/// take at most this much per connection, plus `max_body` once.
const SMALL_BODY: usize = 1024 * 1024;

/// A response with more headers is refused. GitHub sends about 30.
const MAX_HEADERS: usize = 128;

/// The largest header section, in bytes. hyper parses an unfinished section again after each read, so a larger one that
/// is sent a few bytes at a time would cost seconds of CPU.
const MAX_HEADER_SECTION: usize = 64 * 1024;

/// The settings of a client.
#[derive(Debug, Clone)]
pub struct Options {
    /// The User-Agent header.
    pub user_agent: String,
    /// The number of concurrent exchanges, and so of connections. Nomad refuses the 101st connection from an
    /// address (contract nomad.md §9), and GitHub more than 100 concurrent requests (contract github.md §4). A
    /// handful is plenty.
    pub max_connections: usize,
    /// The deadline of an exchange, for requests that set none.
    pub deadline: Duration,
    /// The largest body in bytes, for requests that set none.
    pub max_body: usize,
    /// Idle connections are closed after this, before the server closes them while we are sending.
    pub idle_timeout: Duration,
    /// For `https` endpoints.
    pub tls: TlsOptions,
    /// For `https` endpoints.
    pub proxy: Proxy,
    /// The seed for the jitter of retries.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            user_agent: concat!("githubrunner/", env!("CARGO_PKG_VERSION")).to_owned(),
            max_connections: 8,
            deadline: Duration::from_secs(30),
            max_body: 32 * 1024 * 1024,
            idle_timeout: Duration::from_secs(20),
            tls: TlsOptions::default(),
            proxy: Proxy::None,
            seed: 0,
        }
    }
}

/// A client for one host. Clones share its connections and limits.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    hyper: legacy::Client<Connector, Full<Bytes>>,
    endpoint: Endpoint,
    base: String,
    shown: String,
    user_agent: HeaderValue,
    basic_auth: Option<HeaderValue>,
    permits: Semaphore,
    /// The turn for bodies larger than [`SMALL_BODY`].
    large: Arc<Semaphore>,
    deadline: Duration,
    max_body: usize,
    random: Mutex<StdRng>,
    watch: Watch,
}

impl Client {
    /// A client for `endpoint`. Does not connect yet; reads certificates if the endpoint is `https`.
    ///
    /// # Errors
    /// [`Error::Setup`] if a certificate, the proxy or the address is invalid.
    pub fn new(endpoint: Endpoint, options: Options) -> Result<Self, Error> {
        let connector = Connector::new(endpoint.clone(), &options.tls, &options.proxy)?;
        let hyper = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(options.idle_timeout)
            .pool_max_idle_per_host(options.max_connections)
            // Safe for every method: hyper-util only retries a request that it got back unsent from a pooled
            // connection that had already been closed. If any byte may have been sent, that is an error.
            .retry_canceled_requests(true)
            .http1_max_headers(MAX_HEADERS)
            .http1_max_buf_size(MAX_HEADER_SECTION)
            .build(connector);
        let user_agent = HeaderValue::from_str(&options.user_agent)
            .map_err(|_| Error::Setup("the user agent contains an invalid character".into()))?;
        Ok(Self(Arc::new(Inner {
            hyper,
            base: endpoint.base(),
            shown: endpoint.shown(),
            basic_auth: basic_auth(&endpoint)?,
            endpoint,
            user_agent,
            permits: Semaphore::new(options.max_connections.max(1)),
            large: Arc::new(Semaphore::new(1)),
            deadline: options.deadline,
            max_body: options.max_body,
            random: Mutex::new(StdRng::seed_from_u64(options.seed)),
            watch: Watch::default(),
        })))
    }

    /// The host of this client.
    pub fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    /// Reports each exchange to `observer` from now on, except for streams.
    pub fn observed_by(&self, observer: Arc<dyn Observer>) {
        self.0.watch.set(observer);
    }

    /// Sends a request once and reads the whole response. Any status is `Ok`.
    ///
    /// # Errors
    /// Every [`Error`] except `Status` and `Json`.
    pub async fn send(&self, request: Request) -> Result<Response, Error> {
        let within = request.deadline.unwrap_or(self.0.deadline);
        self.exchange(&request, within).await
    }

    /// Sends a request until it succeeds or the policy's limits are reached, then returns the last response or
    /// error. For reads, and for writes that are harmless to repeat.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn send_with_retries(&self, request: Request, policy: &RetryPolicy) -> Result<Response, Error> {
        let end = Instant::now() + policy.total;
        let each = request.deadline.unwrap_or(self.0.deadline);
        let mut attempt = 1;
        let mut repeated = false;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let result = match self.exchange(&request, each.min(left)).await {
                Ok(response) => Ok(Response { repeated, ..response }),
                Err(error) => Err(if repeated { error.repeated() } else { error }),
            };
            let asked = match &result {
                Ok(response) if (policy.again)(response) => (policy.asked)(response),
                Err(error) if error.is_transient() => None,
                _ => return result,
            };
            attempt += 1;
            let random = self.0.random.lock().unwrap_or_else(PoisonError::into_inner).random::<f64>();
            let Some(wait) = policy.wait(attempt, asked, random) else { return result };
            if attempt > policy.attempts || Instant::now() + wait >= end {
                return result;
            }
            // A later failure does not undo the effect of this attempt.
            repeated |= match &result {
                Ok(response) => response.error().is_ambiguous(),
                Err(error) => error.is_ambiguous(),
            };
            tracing::debug!(attempt, wait_ms = wait.as_millis() as u64, ?result, "retrying the request");
            tokio::time::sleep(wait).await;
        }
    }

    /// Sends a request and returns the response's lines as they arrive. The deadline is for the response's
    /// headers; each wait for a line has its own. Such a stream holds a connection beyond `max_connections`, so
    /// open only a few.
    ///
    /// # Errors
    /// As [`Client::send`], and [`Error::Status`] if the status is not 2xx.
    pub async fn lines(&self, request: Request) -> Result<Lines, Error> {
        let within = request.deadline.unwrap_or(self.0.deadline);
        let exchange = self.describe(&request);
        let (message, connection) = self.message(&request, &exchange)?;
        let max_line = request.max_body.unwrap_or(self.0.max_body);
        let open = async {
            let permit = self.0.permits.acquire().await;
            let (parts, body) = self.head(message, &exchange).await?.into_parts();
            if parts.status.is_success() {
                return Ok((parts.status, body));
            }
            let (body, _) = self.read_body(body, &parts, self.0.max_body, &exchange).await?;
            drop(permit);
            let (status, headers, exchange) = (parts.status, parts.headers, exchange.clone());
            let answer = Response { status, headers, body, exchange, repeated: false, _turn: None };
            Err(answer.error())
        };
        let (status, body) = match tokio::time::timeout(within, open).await {
            Ok(opened) => opened?,
            Err(_) => return Err(timed_out(&exchange, within, &connection)),
        };
        Ok(Lines { exchange, status, body, buffer: BytesMut::new(), searched: 0, max_line })
    }

    /// One exchange with one deadline.
    async fn exchange(&self, request: &Request, within: Duration) -> Result<Response, Error> {
        let exchange = self.describe(request);
        let (message, connection) = self.message(request, &exchange)?;
        let max_body = request.max_body.unwrap_or(self.0.max_body);
        let started = Instant::now();
        let mut watched = self.0.watch.begin(request);
        let whole = async {
            // The semaphore is never closed. A permit is held until the body has been read.
            let _permit = self.0.permits.acquire().await;
            let (parts, body) = self.head(message, &exchange).await?.into_parts();
            let (body, turn) = self.read_body(body, &parts, max_body, &exchange).await?;
            Ok((parts.status, parts.headers, body, turn))
        };
        let outcome = match tokio::time::timeout(within, whole).await {
            Ok(Ok((status, headers, body, turn))) => {
                // The turn ends when the caller has read a success. Only the start of a failure is shown.
                let _turn = turn.filter(|_| status.is_success()).map(Arc::new);
                Ok(Response { status, headers, body, exchange: exchange.clone(), repeated: false, _turn })
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(timed_out(&exchange, within, &connection)),
        };
        let took_ms = started.elapsed().as_millis() as u64;
        match &outcome {
            Ok(response) => {
                watched.status = Some(response.status);
                tracing::debug!(%exchange, status = response.status.as_u16(), bytes = response.body.len(), took_ms);
            }
            Err(error) => tracing::debug!(took_ms, "{error}"),
        }
        outcome
    }

    fn describe(&self, request: &Request) -> Exchange {
        let prefix = if request.from_root { "" } else { self.0.endpoint.prefix() };
        Exchange {
            method: request.method.clone(),
            url: format!("{}{prefix}{}", self.0.shown, shown_path(&request.path)),
            secret_answer: request.secret_answer,
            secrets: request.secrets.clone().into(),
        }
    }

    /// The request for hyper, and a way to see whether it was given a connection.
    fn message(
        &self,
        request: &Request,
        exchange: &Exchange,
    ) -> Result<(hyper::Request<Full<Bytes>>, CaptureConnection), Error> {
        let invalid = |detail: String| Error::Invalid { exchange: Box::new(exchange.clone()), detail };
        if let Some(detail) = &request.invalid {
            return Err(invalid(detail.clone()));
        }
        if !request.path.starts_with('/') {
            return Err(invalid("its path does not start with a slash".into()));
        }
        let prefix = if request.from_root { "" } else { self.0.endpoint.prefix() };
        let uri = format!("{}{prefix}{}", self.0.base, request.path);
        let uri: Uri = uri.parse().map_err(|error| invalid(format!("not a URL: {error}")))?;
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, self.0.user_agent.clone());
        if let Some(auth) = &self.0.basic_auth {
            headers.insert(header::AUTHORIZATION, auth.clone());
        }
        if request.body.is_none() && matches!(request.method, Method::POST | Method::PUT | Method::PATCH) {
            // hyper omits it, and some servers then answer 411.
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        headers.extend(request.headers.clone());
        let mut message = hyper::Request::new(Full::new(request.body.clone().unwrap_or_default()));
        *message.method_mut() = request.method.clone();
        *message.uri_mut() = uri;
        *message.headers_mut() = headers;
        let connection = capture_connection(&mut message);
        Ok((message, connection))
    }

    async fn head(
        &self,
        message: hyper::Request<Full<Bytes>>,
        exchange: &Exchange,
    ) -> Result<hyper::Response<Incoming>, Error> {
        self.0.hyper.request(message).await.map_err(|error| {
            let exchange = Box::new(exchange.clone());
            match (failure_of(&error), error.is_connect()) {
                (Some(ConnectFailure::Tls(detail)), _) => Error::Tls { exchange, detail: detail.clone() },
                (Some(ConnectFailure::Connect(detail)), _) => {
                    Error::Connect { exchange, detail: detail.clone() }
                }
                (None, true) => Error::Connect { exchange, detail: innermost(&error) },
                (None, false) if is_refused_certificate(&error) => {
                    Error::Tls { exchange, detail: innermost(&error) }
                }
                (None, false) => Error::Closed { exchange, detail: innermost(&error) },
            }
        })
    }
}

impl Client {
    /// The whole body, or an error as soon as it is longer than `limit`, with the turn that a large body
    /// holds.
    async fn read_body(
        &self,
        mut body: Incoming,
        parts: &hyper::http::response::Parts,
        limit: usize,
        exchange: &Exchange,
    ) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Error> {
        let too_large = || Error::BodyTooLarge {
            exchange: Box::new(exchange.clone()),
            status: parts.status,
            limit,
            headers: Box::new(parts.headers.clone()),
        };
        let announced = body.size_hint().lower();
        if announced > limit as u64 {
            return Err(too_large());
        }
        let mut turn = None;
        // A server may announce more than it sends.
        let mut whole = BytesMut::with_capacity(SMALL_BODY.min(announced as usize));
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Error::Closed {
                exchange: Box::new(exchange.clone()),
                detail: innermost(&error),
            })?;
            if let Ok(data) = frame.into_data() {
                let length = whole.len() + data.len();
                if length > limit {
                    return Err(too_large());
                }
                if length > SMALL_BODY && turn.is_none() {
                    // The semaphore is never closed; the exchange's deadline limits the wait.
                    turn = Arc::clone(&self.0.large).acquire_owned().await.ok();
                }
                whole.extend_from_slice(&data);
            }
        }
        Ok((whole.freeze(), turn))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({:?})", self.0.endpoint)
    }
}

/// Basic authentication from the user information in an address.
fn basic_auth(endpoint: &Endpoint) -> Result<Option<HeaderValue>, Error> {
    let Endpoint::Url(url) = endpoint else { return Ok(None) };
    if url.username().is_empty() && url.password().is_none() {
        return Ok(None);
    }
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let pair = format!("{}:{}", decoded(url.username()), decoded(url.password().unwrap_or_default()));
    let encoded = Secret::new(base64::engine::general_purpose::STANDARD.encode(pair));
    secret::header("Basic ", &encoded)
        .map(Some)
        .map_err(|_| Error::Setup("invalid user name or password in the address".into()))
}

/// A request that was given a connection may have been sent; any other certainly has not.
fn timed_out(exchange: &Exchange, after: Duration, connection: &CaptureConnection) -> Error {
    let sent = connection.connection_metadata().is_some();
    Error::Timeout { exchange: Box::new(exchange.clone()), after, sent }
}

/// Whether the server's TLS refused our certificate or its absence. With TLS 1.3 that comes after our side of the
/// handshake: the request may have been sent already, but was not processed.
fn is_refused_certificate(error: &(dyn std::error::Error + 'static)) -> bool {
    use rustls::AlertDescription::{
        AccessDenied, BadCertificate, CertificateExpired, CertificateRequired, CertificateRevoked,
        CertificateUnknown, UnknownCA, UnsupportedCertificate,
    };
    let of = |error: &(dyn std::error::Error + 'static)| match error.downcast_ref::<rustls::Error>() {
        Some(rustls::Error::AlertReceived(alert)) => Some(*alert),
        _ => None,
    };
    // The inner error of an `io::Error` is not its source.
    let inside = |error: &(dyn std::error::Error + 'static)| {
        of(error).or_else(|| of(error.downcast_ref::<std::io::Error>()?.get_ref()?))
    };
    let alert = std::iter::successors(Some(error), |error| error.source()).find_map(inside);
    matches!(
        alert,
        Some(
            AccessDenied
                | BadCertificate
                | CertificateExpired
                | CertificateRequired
                | CertificateRevoked
                | CertificateUnknown
                | UnknownCA
                | UnsupportedCertificate
        )
    )
}

fn failure_of(error: &legacy::Error) -> Option<&ConnectFailure> {
    let mut source: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(failure) = inner.downcast_ref() {
            return Some(failure);
        }
        source = inner.source();
    }
    None
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}
