//! Whether GitHub accepts each of the credentials.

use super::{
    api::GitHub,
    auth::{Principal, Which},
    error::Error,
    wire::Owner,
};

/// The result for one of the credentials.
#[derive(Debug)]
pub struct Tried {
    /// Its name; `None` for the default.
    pub name: Option<String>,
    /// The token's user, if it has one.
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
            // Some tokens have no user.
            Err(Error::Forbidden(_) | Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
