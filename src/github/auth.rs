//! Authentication to GitHub: a token, a token in a file, or a GitHub App.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ring::digest::{SHA256, digest};
use tokio::time::Instant;

use super::error::Error;
use crate::secret::{self, Secret};

/// A token file is reread after this time: a rotation is noticed at once, and a pass reads the file once.
const READ_AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub enum Auth {
    /// A personal access token, or any other that GitHub accepts as a bearer token.
    Token(Secret),
    /// A file with such a token, reread when it changes and after a 401.
    TokenFile(PathBuf),
    /// A GitHub App.
    App {
        /// Its client ID, or its App ID.
        issuer: String,
        /// Its private key.
        key: Key,
    },
}

/// An App's private key in PEM form, PKCS#1 or PKCS#8.
#[derive(Debug, Clone)]
pub enum Key {
    /// The text itself.
    Pem(Secret),
    /// A file, read whenever a new token is signed.
    File(PathBuf),
}

impl Key {
    pub(super) async fn read(&self) -> Result<Secret, Error> {
        match self {
            Key::Pem(pem) => Ok(pem.clone()),
            Key::File(path) => read_file("the App's private key", path).await,
        }
    }
}

/// One of the credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Which(pub(super) usize);

impl Which {
    /// The credentials for all owners that no other entry covers.
    pub const DEFAULT: Which = Which(0);
}

/// Whose credentials a request uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// The user of a token. An App has none.
    Token(Which),
    /// The owner of what is requested. With an App, its installation there.
    Owner(String),
    /// An App itself.
    App(Which),
}

/// The credentials for a request.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The bearer token.
    pub token: Secret,
    /// Identifies these credentials in cache and limits: not secret, without spaces.
    pub who: Arc<str>,
}

/// The cached state of the App.
#[derive(Default)]
pub struct AppState {
    pub(super) jwt: Mutex<Option<(Secret, Instant)>>,
    /// By the owner's login in lower case. The inner mutex is tokio's, because one task holds it while it asks GitHub
    /// and the others wait for the response.
    owners: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<OwnerState>>>>,
}

#[derive(Default)]
pub(super) struct OwnerState {
    pub(super) installation: Option<u64>,
    pub(super) token: Option<(Credentials, Instant)>,
    pub(super) failed: Option<(Error, Instant)>,
}

impl AppState {
    pub(super) fn owner(&self, login: &str) -> Arc<tokio::sync::Mutex<OwnerState>> {
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        owners.entry(login.to_ascii_lowercase()).or_default().clone()
    }

    pub(super) fn forget_jwt(&self) {
        self.jwt.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Credentials in use.
pub struct Authenticator {
    pub(super) auth: Auth,
    file: Mutex<Option<(Credentials, Instant)>>,
    pub(super) app: AppState,
}

impl Authenticator {
    pub fn new(auth: Auth) -> Self {
        Self { auth, file: Mutex::new(None), app: AppState::default() }
    }

    /// Whether there are no credentials.
    pub fn is_missing(&self) -> bool {
        matches!(&self.auth, Auth::Token(token) if token.is_empty())
    }

    /// The token, for [`Auth::Token`] and [`Auth::TokenFile`].
    pub async fn token(&self) -> Result<Credentials, Error> {
        match &self.auth {
            Auth::Token(token) if token.is_empty() => Err(Error::Credentials(
                "no GitHub token: set github.token, github.token_file or GH_TOKEN (GH_ENTERPRISE_TOKEN for a server that is not github.com)".into(),
            )),
            Auth::Token(token) => Ok(credentials(token.clone())),
            Auth::TokenFile(path) => {
                let known = self.file.lock().unwrap_or_else(PoisonError::into_inner).clone();
                if let Some((known, at)) = known
                    && at.elapsed() < READ_AGAIN
                {
                    return Ok(known);
                }
                let read = credentials(read_file("the GitHub token", path).await?);
                let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
                *file = Some((read.clone(), Instant::now()));
                Ok(read)
            }
            Auth::App { .. } => Err(Error::Unexpected(
                "an App was asked for a user token, which it does not have".into(),
            )),
        }
    }

    /// After a 401: forgets the file's token. Returns whether a retry makes sense.
    pub async fn renew_token(&self, refused: &Credentials) -> bool {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).take();
        match &self.auth {
            Auth::TokenFile(_) => self.token().await.is_ok_and(|token| token.token != refused.token),
            Auth::Token(_) | Auth::App { .. } => false,
        }
    }
}

fn credentials(token: Secret) -> Credentials {
    let who = format!("token-{}", hash(token.expose()));
    Credentials { token, who: who.into() }
}

impl Credentials {
    /// Identifies this token among others of the same owner: the beginning of its SHA-256.
    pub fn tag(&self) -> u64 {
        let hash = digest(&SHA256, self.token.expose().as_bytes());
        hash.as_ref().iter().take(8).fold(0, |tag, byte| tag << 8 | u64::from(*byte))
    }
}

/// A short hash to identify credentials: 64 bits of SHA-256.
pub(super) fn hash(text: &str) -> String {
    digest(&SHA256, text.as_bytes()).as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// A secret from a file, without trailing white space.
async fn read_file(what: &str, path: &Path) -> Result<Secret, Error> {
    secret::read_file(what, path).await.map_err(Error::Credentials)
}
