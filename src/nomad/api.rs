//! The HTTP client: authenticates each request and interprets the responses.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::Engine;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::{
    error::{Error, Right, worth_again},
    options::Options,
    remembered::{Drains, Remembered},
    seal::Key,
};
use crate::{
    http::{
        self, Client, Request, Response, RetryPolicy,
        header::{AUTHORIZATION, HeaderName},
    },
    model::Namespace,
    secret::Secret,
};

/// The deadline for one exchange. A server without a leader takes up to 5 s to say so (contract §9).
const DEADLINE: Duration = Duration::from_secs(20);

/// The page size of a list. 600 jobs with Meta are 0.38 MB (contract §11), so most clusters need one request,
/// and larger lists are read in pieces that fit into memory.
pub(super) const PAGE: usize = 1000;

/// A list with more pages than this is not genuine.
const MAX_PAGES: usize = 400;

/// How long a list that was too large for its pages starts with small ones.
const SIZE_REMEMBERED: Duration = Duration::from_secs(600);

/// The number of concurrent exchanges. Nomad counts connections, including idle ones, and refuses the 101st
/// from an address (contract §9).
const MAX_CONNECTIONS: usize = 8;

/// The header with the start of a list's next page.
const NEXT_TOKEN: &str = "x-nomad-nexttoken";

/// A list, as far as it could be read.
pub(super) struct ListRead<T> {
    pub(super) entries: Vec<T>,
    /// The servers' clock.
    pub(super) now: Option<jiff::Timestamp>,
    /// The positions of entries that are too large: what to begin a page with to get each of them.
    pub(super) unread: Vec<String>,
}

/// The header with the token.
const TOKEN: HeaderName = HeaderName::from_static("x-nomad-token");

/// The Nomad client. Clones share connections, token and the deployment ID.
#[derive(Clone)]
pub struct Nomad {
    pub(super) inner: Arc<Inner>,
    /// With the namespace and the region that requests are sent to.
    options: Arc<Options>,
    /// That namespace; `None`: the daemon's own.
    namespace: Option<Namespace>,
}

pub(super) struct Inner {
    pub(super) client: Client,
    /// With the daemon's own namespace and region.
    own: Arc<Options>,
    pub(super) new_deployment: String,
    pub(super) deployment: Mutex<Option<KnownDeployment>>,
    pub(super) key: Mutex<Option<KnownKey>>,
    /// What is remembered of each namespace, if there are several.
    pub(super) remembered: Mutex<BTreeMap<Option<Namespace>, Remembered>>,
    /// The nodes that are being drained.
    pub(super) drains: Mutex<Drains>,
    token: Mutex<Option<Secret>>,
    /// The current page size of lists that need a small one, by the list's path, and since when.
    sizes: Mutex<BTreeMap<String, (usize, Instant)>>,
    http_auth: Option<Secret>,
}

/// The deployment ID as last read from the variable.
#[derive(Clone)]
pub(super) struct KnownDeployment {
    pub(super) id: String,
    pub(super) confirmed_at: Instant,
}

/// The key as last read from the variable; `None` if there is none and this process only reads.
#[derive(Clone)]
pub(super) struct KnownKey {
    pub(super) key: Option<Key>,
    pub(super) confirmed_at: Instant,
}

/// Whether a request may be retried automatically.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    /// A read, or a write that is harmless to repeat.
    Yes,
    /// Sent once, whatever happens.
    No,
}

/// By default the leader answers, so responses are current. A server that answers without having heard from a leader
/// for longer than this returns stale data.
const SILENT_AT_MOST: Duration = Duration::from_secs(5);

impl Nomad {
    /// Creates a client without connecting. `new_deployment` is the random ID (see [`super::deployment_id`]) to
    /// write if there is none yet.
    ///
    /// # Errors
    /// [`Error::Setup`] if the address or a certificate is invalid.
    pub fn new(options: Options, new_deployment: impl Into<String>) -> Result<Self, Error> {
        let client = Client::new(
            options.address.clone(),
            http::Options {
                max_connections: MAX_CONNECTIONS,
                deadline: DEADLINE,
                max_body: options.max_body,
                tls: options.tls.clone(),
                seed: options.seed,
                ..http::Options::default()
            },
        )?;
        let http_auth = options.http_auth.as_ref().map(|pair| {
            Secret::new(base64::engine::general_purpose::STANDARD.encode(pair.expose().as_bytes()))
        });
        let options = Arc::new(options);
        let inner = Inner {
            client,
            new_deployment: new_deployment.into(),
            deployment: Mutex::new(None),
            key: Mutex::new(None),
            remembered: Mutex::default(),
            drains: Mutex::default(),
            token: Mutex::new(options.first_token()),
            sizes: Mutex::default(),
            http_auth,
            own: options.clone(),
        };
        Ok(Nomad { inner: Arc::new(inner), options, namespace: None })
    }

    /// The same client for another namespace; `None`: the daemon's own.
    #[must_use]
    pub fn at(&self, namespace: Option<&Namespace>) -> Nomad {
        let own = &self.inner.own;
        let options = match namespace {
            None => own.clone(),
            Some(Namespace { name, region }) => Arc::new(Options {
                namespace: name.clone(),
                region: region.clone().or_else(|| own.region.clone()),
                ..Options::clone(own)
            }),
        };
        Nomad { inner: self.inner.clone(), options, namespace: namespace.cloned() }
    }

    /// The same client for each namespace that our runners are in, the daemon's own first.
    pub fn everywhere(&self) -> Vec<Nomad> {
        [None].into_iter().chain(self.inner.own.elsewhere.iter().map(Some)).map(|at| self.at(at)).collect()
    }

    /// The namespace that requests are sent to; `None`: the daemon's own.
    pub fn namespace(&self) -> Option<&Namespace> {
        self.namespace.as_ref()
    }

    /// Whether requests are sent to another cluster than the daemon's own, whose indices tell nothing here.
    pub(super) fn is_in_another_region(&self) -> bool {
        self.namespace.as_ref().is_some_and(|namespace| namespace.region.is_some())
    }

    /// Reports each exchange to `observer` from now on.
    pub fn observed_by(&self, observer: Arc<dyn http::Observer>) {
        self.inner.client.observed_by(observer);
    }

    /// The options that it was created with, for its namespace.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Sends a request in its namespace and region, and returns the response whatever its status. If the token is
    /// refused, the token file is reread, and with another token the request is sent again.
    pub(super) async fn answer(&self, request: Request, retry: Retry) -> Result<Response, Error> {
        let mut request = request.query("namespace", &self.options.namespace);
        if let Some(region) = &self.options.region {
            request = request.query("region", region);
        }
        let token = self.token();
        let response = self.send(request.clone(), token.as_ref(), retry).await?;
        if !is_refused_token(&response) {
            return Ok(response);
        }
        match self.options.read_token_file() {
            Some(renewed) if token.as_ref() != Some(&renewed) => {
                tracing::debug!("Nomad refused the token; retrying with the new one from its file");
                *self.inner.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(renewed.clone());
                self.send(request, Some(&renewed), retry).await
            }
            _ => Ok(response),
        }
    }

    /// As [`Nomad::answer`], but a response other than 2xx is an error.
    pub(super) async fn call(&self, request: Request, retry: Retry, right: Right) -> Result<Response, Error> {
        let response = self.answer(request, retry).await?;
        if response.is_success() { Ok(response) } else { Err(self.error(&response, right)) }
    }

    /// The meaning of a response other than 2xx.
    pub(super) fn error(&self, response: &Response, right: Right) -> Error {
        Error::from_answer(response, right, &self.options.namespace, self.token().is_some())
    }

    /// A complete list, page by page: one request for most clusters. Also returns the servers' clock.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        request: Request,
        right: Right,
    ) -> Result<(Vec<T>, Option<jiff::Timestamp>), Error> {
        let read = self.list_but(request.clone(), right).await?;
        match read.unread.first() {
            None => Ok((read.entries, read.now)),
            Some(_) => {
                let most = self.options.max_body;
                Err(Error::Unusable(format!("{request:?}: one entry is larger than {most} bytes")))
            }
        }
    }

    /// A list without the entries that are too large. After a page that is too large, fewer entries are requested at a
    /// time, down to one; after one that fits, more.
    pub(super) async fn list_but<T: DeserializeOwned>(
        &self,
        request: Request,
        right: Right,
    ) -> Result<ListRead<T>, Error> {
        let path = request.path().split('?').next().unwrap_or_default().to_owned();
        let mut size = self.page_size(&path);
        let mut smallest = PAGE;
        let mut read = ListRead { entries: Vec::new(), now: None, unread: Vec::new() };
        let mut token = String::new();
        for _ in 0..MAX_PAGES {
            let mut page = request.clone().query("per_page", &size.to_string());
            if !token.is_empty() {
                page = page.query("next_token", &token);
            }
            let headers = match self.call(page, Retry::Yes, right).await {
                Ok(response) => {
                    read.entries.append(&mut response.json()?);
                    smallest = smallest.min(size);
                    size = (size * 2).min(PAGE);
                    response.headers
                }
                Err(Error::Exchange { error: http::Error::BodyTooLarge { .. } }) if size > 1 => {
                    size /= 2;
                    continue;
                }
                // Only this entry is lost: the headers tell what follows.
                Err(Error::Exchange { error: http::Error::BodyTooLarge { headers, .. } }) => {
                    read.unread.push(token.clone());
                    smallest = 1;
                    *headers
                }
                Err(error) => return Err(error),
            };
            let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
            let silent = header("x-nomad-lastcontact").and_then(|text| text.parse().ok());
            let silent = Duration::from_millis(silent.unwrap_or(0));
            if silent > SILENT_AT_MOST {
                return Err(Error::Old { silent });
            }
            read.now = http::date_of(&headers);
            // It contains the ID of a job, which anyone can choose and which need not be ASCII. A list whose rest
            // cannot be requested is not complete.
            let next = headers.get(NEXT_TOKEN).map_or(&[][..], |value| value.as_bytes());
            let Ok(next) = String::from_utf8(next.to_vec()) else {
                return Err(Error::Unusable(format!("{request:?}: the next page's token is not text")));
            };
            if next.is_empty() || next == token {
                self.remember_size(path, smallest);
                return Ok(read);
            }
            token = next;
        }
        Err(Error::Unusable(format!("{request:?}: the list does not end after {MAX_PAGES} pages")))
    }

    fn page_size(&self, path: &str) -> usize {
        let sizes = self.inner.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        sizes.get(path).filter(|(_, at)| at.elapsed() < SIZE_REMEMBERED).map_or(PAGE, |(size, _)| *size)
    }

    fn remember_size(&self, path: String, size: usize) {
        let mut sizes = self.inner.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        match (size, sizes.get(&path)) {
            (PAGE, _) => drop(sizes.remove(&path)),
            (_, Some((known, at))) if *known == size && at.elapsed() < SIZE_REMEMBERED => {}
            _ => drop(sizes.insert(path, (size, Instant::now()))),
        }
    }

    pub(super) async fn send(
        &self,
        request: Request,
        token: Option<&Secret>,
        retry: Retry,
    ) -> Result<Response, Error> {
        let request = self.signed(request, token);
        let response = match retry {
            Retry::No => self.inner.client.send(request).await?,
            Retry::Yes => {
                let policy = RetryPolicy { again: worth_again, ..RetryPolicy::default() };
                self.inner.client.send_with_retries(request, &policy).await?
            }
        };
        Ok(response)
    }

    /// Adds authentication to a request.
    pub(super) fn signed(&self, mut request: Request, token: Option<&Secret>) -> Request {
        if let Some(token) = token {
            request = request.header_secret(TOKEN, "", token);
        }
        if let Some(auth) = &self.inner.http_auth {
            request = request.header_secret(AUTHORIZATION, "Basic ", auth);
        }
        request
    }

    pub(super) fn token(&self) -> Option<Secret> {
        self.inner.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Nomad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Nomad({:?}, namespace {:?})", self.inner.client, self.options.namespace)
    }
}

/// Whether the token itself may be the problem. A missing right looks the same (contract §7).
fn is_refused_token(response: &Response) -> bool {
    match response.status.as_u16() {
        401 | 403 => true,
        500 => {
            let body = String::from_utf8_lossy(&response.body);
            ["Server error authenticating request", "Permission denied", "ACL token not found"]
                .iter()
                .any(|text| body.contains(text))
        }
        _ => false,
    }
}

#[cfg(test)]
#[path = "api_tests.rs"]
mod tests;
