//! The endpoint of a client, and the connector for it.

use std::{
    fmt, io,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper::Uri;
use hyper_util::{
    client::{
        legacy::connect::{Connected, Connection, HttpConnector, proxy::Tunnel},
        proxy::matcher::{Intercept, Matcher},
    },
    rt::TokioIo,
};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream},
    net::UnixStream,
};
use tokio_rustls::TlsConnector;
use tower_service::Service;
use url::Url;

use super::{
    error::Error,
    tls::{self, TlsOptions},
};

/// Creates one in-memory connection; an error is a refused connection.
pub type MemoryConnect = Arc<dyn Fn() -> io::Result<DuplexStream> + Send + Sync>;

/// The host of a client.
#[derive(Clone)]
pub enum Endpoint {
    /// `http://…` or `https://…`, with a port, and optionally a path below which all requests are. User
    /// information in it becomes basic authentication.
    Url(Url),
    /// A unix socket, plain HTTP.
    Unix(PathBuf),
    /// In-memory connections, plain HTTP, for simulations.
    Memory {
        /// The host's name, for the Host header and for errors.
        name: String,
        /// Creates a connection.
        connect: MemoryConnect,
    },
}

impl Endpoint {
    /// An endpoint from an address: `http://…`, `https://…` or `unix:///path`.
    ///
    /// # Errors
    /// [`Error::Setup`] if it is none of these.
    pub fn parse(address: &str) -> Result<Self, Error> {
        if let Some(path) = address.strip_prefix("unix://") {
            if !path.starts_with('/') {
                return Err(Error::Setup(format!(
                    "{address:?} is not an address: write a Unix socket as unix:///path"
                )));
            }
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        // The address itself is not quoted, because it may contain a password.
        let url = Url::parse(address)
            .map_err(|error| Error::Setup(format!("not an address: {error}; write http://HOST:PORT")))?;
        Self::from_url(url)
    }

    /// An endpoint from a URL.
    ///
    /// # Errors
    /// [`Error::Setup`] if it is neither `http` nor `https`, or has no host.
    pub fn from_url(url: Url) -> Result<Self, Error> {
        match url.scheme() {
            "http" | "https" if url.host_str().is_some() => Ok(Self::Url(url)),
            other => Err(Error::Setup(format!("not an address: {other}: neither http nor https"))),
        }
    }

    /// Whether others can read the traffic: plain `http` to another machine.
    pub fn is_exposed(&self) -> bool {
        matches!(self, Self::Url(url) if url.scheme() == "http" && !is_loopback(url))
    }

    /// Scheme, host and port for display; or the path of a unix socket.
    pub fn shown(&self) -> String {
        match self {
            Self::Url(url) => format!("{}://{}", url.scheme(), authority(url)),
            Self::Unix(path) => format!("unix://{}:", path.display()),
            Self::Memory { name, .. } => format!("http://{name}"),
        }
    }

    /// Scheme and authority of the URIs for hyper.
    pub(super) fn base(&self) -> String {
        match self {
            Self::Url(url) => format!("{}://{}", url.scheme(), authority(url)),
            Self::Unix(_) => "http://localhost".to_owned(),
            Self::Memory { name, .. } => format!("http://{name}"),
        }
    }

    /// The endpoint's own path, without a trailing slash.
    pub(super) fn prefix(&self) -> &str {
        match self {
            Self::Url(url) => url.path().trim_end_matches('/'),
            Self::Unix(_) | Self::Memory { .. } => "",
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({}{})", self.shown(), self.prefix())
    }
}

fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The proxy for an `https` endpoint, by CONNECT. Plain `http`, sockets and loopback addresses never use a
/// proxy.
#[derive(Debug, Clone, Default)]
pub enum Proxy {
    /// A direct connection.
    #[default]
    None,
    /// From HTTPS_PROXY (or ALL_PROXY) and NO_PROXY, in upper or lower case.
    Environment,
    /// From these values.
    Given {
        /// The proxy's URL, as in HTTPS_PROXY.
        https: String,
        /// Hosts, domains and networks with a direct connection, as in NO_PROXY.
        no: String,
    },
}

impl Proxy {
    fn intercept(&self, url: &Url) -> Result<Option<Intercept>, Error> {
        let (https, no) = match self {
            Self::None => return Ok(None),
            Self::Environment => (
                first_of(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]),
                first_of(&["NO_PROXY", "no_proxy"]),
            ),
            Self::Given { https, no } => (https.clone(), no.clone()),
        };
        if url.scheme() != "https" || is_loopback(url) {
            return Ok(None);
        }
        let uri: Uri = format!("https://{}", authority(url))
            .parse()
            .map_err(|error| Error::Setup(format!("not an address: {error}")))?;
        // An invalid proxy must not be ignored silently: it may be the only permitted way.
        let without_exceptions = Matcher::builder().https(https.clone()).build();
        if !https.trim().is_empty() && without_exceptions.intercept(&uri).is_none() {
            return Err(Error::Setup("HTTPS_PROXY: not an address; write http://HOST:PORT".into()));
        }
        let no = exceptions_for(&no, url.port_or_known_default());
        let Some(intercept) = Matcher::builder().https(https).no(no).build().intercept(&uri) else {
            return Ok(None);
        };
        if intercept.uri().scheme_str() != Some("http") || intercept.raw_auth().is_some() {
            return Err(Error::Setup(
                "HTTPS_PROXY: only plain-http proxies are supported: http://HOST:PORT".into(),
            ));
        }
        Ok(Some(intercept))
    }
}

/// Whether a URL's host is this machine.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// The first of these environment variables that is set.
fn first_of(names: &[&str]) -> String {
    names.iter().find_map(|name| std::env::var(name).ok()).unwrap_or_default()
}

/// NO_PROXY's entries for this port, without the port: `HOST:PORT` is common there, but the matcher does not support
/// it.
fn exceptions_for(no_proxy: &str, port: Option<u16>) -> String {
    let host = |entry: &str| -> Option<String> {
        let entry = entry.trim();
        match entry.rsplit_once(':') {
            // An IPv6 address without brackets contains several colons.
            Some((host, own)) if !host.contains(':') || host.ends_with(']') => match own.parse::<u16>() {
                Ok(own) => (Some(own) == port).then(|| host.trim_matches(['[', ']']).to_owned()),
                Err(_) => Some(entry.to_owned()),
            },
            _ => Some(entry.to_owned()),
        }
    };
    no_proxy.split(',').filter_map(host).collect::<Vec<_>>().join(",")
}

/// Any byte stream.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Connection for Box<dyn Io> {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectFailure {
    #[error("{0}")]
    Connect(String),
    #[error("{0}")]
    Tls(String),
}

/// Connects to the endpoint, whatever URI hyper passes.
#[derive(Clone)]
pub(super) struct Connector(Arc<Target>);

struct Target {
    endpoint: Endpoint,
    proxy: Option<Intercept>,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Connector {
    /// A connector for an endpoint. Reads files, but only if the endpoint is `https`.
    pub(super) fn new(endpoint: Endpoint, options: &TlsOptions, proxy: &Proxy) -> Result<Self, Error> {
        let (proxy, tls) = match &endpoint {
            Endpoint::Url(url) if url.scheme() == "https" => {
                let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
                let name = options.server_name.as_deref().unwrap_or(host).to_owned();
                let name = ServerName::try_from(name)
                    .map_err(|error| Error::Setup(format!("TLS: not a server's name: {error}")))?;
                (proxy.intercept(url)?, Some((tls::client_config(options)?, name)))
            }
            _ => (None, None),
        };
        Ok(Self(Arc::new(Target { endpoint, proxy, tls })))
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Io>>;
    type Error = ConnectFailure;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let target = self.0.clone();
        Box::pin(async move { target.connect(uri).await.map(TokioIo::new) })
    }
}

impl Target {
    async fn connect(&self, uri: Uri) -> Result<Box<dyn Io>, ConnectFailure> {
        match &self.endpoint {
            Endpoint::Unix(path) => match UnixStream::connect(path).await {
                Ok(stream) => Ok(Box::new(stream)),
                Err(error) => Err(ConnectFailure::Connect(error.to_string())),
            },
            Endpoint::Memory { connect, .. } => match connect() {
                Ok(stream) => Ok(Box::new(stream)),
                Err(error) => Err(ConnectFailure::Connect(error.to_string())),
            },
            Endpoint::Url(_) => {
                let mut tcp = HttpConnector::new();
                tcp.enforce_http(false);
                tcp.set_nodelay(true);
                let stream = match &self.proxy {
                    None => tcp.call(uri).await.map_err(|error| refused("", &error))?,
                    Some(proxy) => {
                        let mut tunnel = Tunnel::new(proxy.uri().clone(), tcp);
                        if let Some(auth) = proxy.basic_auth() {
                            tunnel = tunnel.with_auth(auth.clone());
                        }
                        tunnel.call(uri).await.map_err(|error| refused("through the proxy: ", &error))?
                    }
                };
                self.secure(stream.into_inner()).await
            }
        }
    }

    async fn secure(&self, stream: impl Io + 'static) -> Result<Box<dyn Io>, ConnectFailure> {
        let Some((config, name)) = &self.tls else { return Ok(Box::new(stream)) };
        match TlsConnector::from(config.clone()).connect(name.clone(), stream).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
                Err(ConnectFailure::Tls(error.to_string()))
            }
            Err(error) => Err(ConnectFailure::Connect(format!("during the TLS handshake: {error}"))),
        }
    }
}

/// The innermost error has the best description: "Connection refused (os error 111)".
fn refused(how: &str, error: &dyn std::error::Error) -> ConnectFailure {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    ConnectFailure::Connect(format!("{how}{inner}"))
}
