//! Whether GitHub takes each of the credentials.

use super::api::GitHub;
use super::auth::Principal;
use super::error::Error;
use super::keyring::Which;
use super::wire::Owner;

/// Credentials that were tried.
#[derive(Debug)]
pub struct Tried {
    /// What they are called; `None` for the default.
    pub name: Option<String>,
    /// Whom a token belongs to, where it is a person's.
    pub person: Result<Option<String>, Error>,
}

impl GitHub {
    /// Tries each of the credentials with one request.
    pub async fn try_credentials(&self) -> Vec<Tried> {
        let mut tried = Vec::new();
        for which in self.keyring().all() {
            let name = self.keyring().name(which).map(str::to_owned);
            tried.push(Tried { name, person: self.person_of(which).await });
        }
        tried
    }

    async fn person_of(&self, which: Which) -> Result<Option<String>, Error> {
        if self.keyring().is_app(which) {
            return self.installations(which).await.map(|_| None);
        }
        match self.one::<Owner>(&Principal::Token(which), "/user").await {
            Ok(user) => Ok(Some(user.login.clone())),
            // Some tokens belong to nobody.
            Err(Error::Forbidden(_) | Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
