//! A GitHub App: its own token, its installations and their tokens (contract §3).

use std::{sync::PoisonError, time::Duration};

use hyper::Method;
use serde::Deserialize;
use tokio::time::Instant;

use super::{
    api::{GitHub, Repeat},
    auth::{Auth, Authenticator, Credentials, Principal, Which, hash},
    error::Error,
    jwt,
    listed::Listed,
    pages::Caching,
    secrets,
    wire::{Installation, InstallationsPage},
};
use crate::http::{Response, escape_segment};

/// How long the App's own token is used. It is valid for 9 minutes.
const JWT_USED: Duration = Duration::from_secs(8 * 60);

/// An installation's token is renewed this long before it expires.
const RENEWED_EARLY: Duration = Duration::from_secs(5 * 60);

/// A missing or suspended installation is retried after this.
const ASKED_AGAIN: Duration = Duration::from_secs(5 * 60);

#[derive(Deserialize)]
struct TokenAnswer {
    token: String,
    expires_at: Option<String>,
}

impl GitHub {
    /// The credentials for a request.
    pub(super) async fn credentials(&self, principal: &Principal) -> Result<Credentials, Error> {
        let authenticator = self.authenticator(principal);
        match (&authenticator.auth, principal) {
            (Auth::App { .. }, Principal::App(_)) => self.app_credentials(authenticator).await,
            (Auth::App { .. }, Principal::Owner(owner)) => {
                self.installation_credentials(authenticator, owner).await
            }
            _ => match self.keyring().lacks(principal) {
                Some(detail) => Err(Error::Credentials(detail)),
                None => authenticator.token().await,
            },
        }
    }

    /// After a 401 with these credentials: whether there are others.
    pub(super) async fn renew(&self, principal: &Principal, refused: &Credentials) -> bool {
        let authenticator = self.authenticator(principal);
        match (&authenticator.auth, principal) {
            (Auth::App { .. }, Principal::App(_)) => {
                // The key may have changed, or our clock been corrected by the refusal's Date.
                authenticator.app.forget_jwt();
                true
            }
            (Auth::App { .. }, Principal::Owner(owner)) => {
                let owner = authenticator.app.owner(owner);
                let mut state = owner.lock().await;
                if state.token.as_ref().is_some_and(|(known, _)| known.token == refused.token) {
                    state.token = None;
                }
                true
            }
            _ => authenticator.renew_token(refused).await,
        }
    }

    /// Whether an App is used for this owner.
    pub fn is_app_for(&self, owner: &str) -> bool {
        self.keyring().is_app(self.keyring().of(owner))
    }

    /// An App's installations that are not suspended.
    pub(super) async fn installations(&self, app: Which) -> Result<Listed<Installation>, Error> {
        let first = self.path("/app/installations?per_page=100");
        let list =
            self.all_pages::<InstallationsPage>(&Principal::App(app), first, Caching::Nothing).await?.list;
        Ok(list.retain(|installation| installation.suspended_at.is_none()))
    }

    async fn app_credentials(&self, authenticator: &Authenticator) -> Result<Credentials, Error> {
        let Auth::App { issuer, key } = &authenticator.auth else {
            return Err(Error::Unexpected("no App is configured".into()));
        };
        let known = authenticator.app.jwt.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let token = match known {
            Some((token, made)) if made.elapsed() < JWT_USED => token,
            _ => {
                let pem = key.read().await?;
                let token = jwt::sign(issuer, &pem, self.now()).map_err(Error::Credentials)?;
                let mut known = authenticator.app.jwt.lock().unwrap_or_else(PoisonError::into_inner);
                *known = Some((token.clone(), Instant::now()));
                token
            }
        };
        Ok(Credentials { token, who: format!("app-{}", hash(issuer)).into() })
    }

    async fn installation_credentials(
        &self,
        authenticator: &Authenticator,
        owner: &str,
    ) -> Result<Credentials, Error> {
        let slot = authenticator.app.owner(owner);
        let mut state = slot.lock().await;
        if let Some((credentials, until)) = &state.token
            && Instant::now() < *until
        {
            return Ok(credentials.clone());
        }
        if let Some((error, at)) = &state.failed
            && at.elapsed() < ASKED_AGAIN
        {
            return Err(error.clone());
        }
        match self.installation_token(owner, &mut state.installation).await {
            Ok((credentials, until)) => {
                state.failed = None;
                state.token = Some((credentials.clone(), until));
                Ok(credentials)
            }
            Err(error) => {
                if matches!(error, Error::Installation { .. }) {
                    state.installation = None;
                    state.failed = Some((error.clone(), Instant::now()));
                }
                Err(error)
            }
        }
    }

    /// A new token of the owner's installation, which is looked up if it is not known, and when to stop using
    /// it.
    async fn installation_token(
        &self,
        owner: &str,
        known: &mut Option<u64>,
    ) -> Result<(Credentials, Instant), Error> {
        let fail = |detail: String| Error::Installation { owner: owner.to_owned(), detail };
        let id = match known {
            Some(id) => *id,
            None => *known.insert(self.installation_of(owner).await?),
        };
        let path = self.path(&format!("/app/installations/{id}/access_tokens"));
        // Safe to repeat: another token does not invalidate this one.
        let response = self
            .authorized(&self.app_of(owner), "app", Repeat::AfterFailures, |_| {
                self.request(Method::POST, path.clone()).secret_answer()
            })
            .await?
            .0;
        match response.status.as_u16() {
            200 | 201 => {}
            403 if !mentions_suspended(&response) => {
                return Err(fail(format!("no token: {}", response.error())));
            }
            403 => return Err(fail("it is suspended; its owner can unsuspend it in the settings".into())),
            404 => return Err(fail("it no longer exists; install the App again".into())),
            _ => return Err(Error::from_answer(&response)),
        }
        let answer: TokenAnswer = response.json()?;
        let lifetime = answer
            .expires_at
            .and_then(|text| text.parse::<jiff::Timestamp>().ok())
            .zip(response.date())
            .and_then(|(end, now)| Duration::try_from(end.duration_since(now)).ok())
            .unwrap_or(Duration::from_secs(60 * 60));
        let used = lifetime.saturating_sub(RENEWED_EARLY).max(lifetime / 2);
        let token = secrets::token(answer.token).map_err(|problem| {
            Error::BadSecret(format!("GitHub's token for the installation {id} cannot be used: {problem}"))
        })?;
        let credentials = Credentials { token, who: format!("installation-{id}").into() };
        Ok((credentials, Instant::now() + used))
    }

    /// The App that is used for an owner.
    fn app_of(&self, owner: &str) -> Principal {
        Principal::App(self.keyring().of(owner))
    }

    async fn installation_of(&self, owner: &str) -> Result<u64, Error> {
        let fail = |detail: &str| Error::Installation { owner: owner.to_owned(), detail: detail.to_owned() };
        for kind in ["orgs", "users"] {
            let path = self.path(&format!("/{kind}/{}/installation", escape_segment(owner)));
            let response = self
                .authorized(&self.app_of(owner), "app", Repeat::AfterFailures, |_| {
                    self.request(Method::GET, path.clone())
                })
                .await?
                .0;
            match response.status.as_u16() {
                200 => {
                    let installation: Installation = response.json()?;
                    return match installation.suspended_at {
                        None => Ok(installation.id),
                        Some(_) => Err(fail("it is suspended; its owner can unsuspend it in the settings")),
                    };
                }
                404 => {}
                _ => return Err(Error::from_answer(&response)),
            }
        }
        Err(fail("it does not exist; install the App for this owner"))
    }
}

fn mentions_suspended(response: &Response) -> bool {
    String::from_utf8_lossy(&response.body).to_ascii_lowercase().contains("suspended")
}
