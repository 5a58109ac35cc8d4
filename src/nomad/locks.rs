//! A lock in a Nomad variable, for replicas of which one acts (contract §8).
//!
//! The server lets a lock expire at twice its TTL and then waits for the LockDelay. A holder renews it at half the
//! TTL, and considers it lost one TTL after it *began* its last successful renewal. After that it must not release
//! the lock, which may belong to another holder by then.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::{
    api::{Nomad, Retry},
    error::{Error, Right},
    wire::Variable,
};
use crate::http::{Request, Response, StatusCode, escape_segment};

/// The variables with locks.
const RIGHT: Right = Right::Variables { path: "githubrunner/*", capability: "write" };

/// An acquired lock. The server-generated ID identifies the holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    id: String,
}

/// The result of a request for a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// It is ours.
    Ours(Lease),
    /// Another holds it, or held it less than its LockDelay ago.
    Held,
}

/// The response to the holder of a lock.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    lock: Lock,
}

#[derive(Deserialize)]
struct Lock {
    #[serde(rename = "ID")]
    id: String,
}

/// Whether a lease is still ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    Kept,
    /// It expired, or the variable is gone.
    Lost,
}

impl Nomad {
    /// Requests the lock `githubrunner/PREFIX/leader`. `holder` tells people who holds it. `ttl` is 10 s to 24 h.
    /// Nomad takes a `delay` of zero as its default of 15 s. Not retried: a lost response may have been a success,
    /// and that lock then expires.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn lock_acquire(
        &self,
        holder: &str,
        ttl: Duration,
        delay: Duration,
        deadline: Duration,
    ) -> Result<Acquired, Error> {
        let body = json!({
            "Items": { "holder": holder },
            "Lock": { "TTL": duration(ttl), "LockDelay": duration(delay) },
        });
        let response = self.lock_call("lock-acquire", &body, deadline).await?;
        match response.status {
            StatusCode::CONFLICT => Ok(Acquired::Held),
            status if status.is_success() => {
                let answer: Answer = response.json()?;
                Ok(Acquired::Ours(Lease { id: answer.lock.id }))
            }
            _ => Err(self.error(&response, RIGHT)),
        }
    }

    /// Renews a lease.
    ///
    /// # Errors
    /// [`Error`]; then its state is unknown.
    pub async fn lock_renew(&self, lease: &Lease, deadline: Duration) -> Result<Kept, Error> {
        let Some(response) = self.lock_keep("lock-renew", lease, deadline).await? else {
            return Ok(Kept::Lost);
        };
        // Any proxy can answer 200: the lock is renewed only if the response is the lock's.
        let answer: Answer = response.json()?;
        Ok(if answer.lock.id == lease.id { Kept::Kept } else { Kept::Lost })
    }

    /// Releases a lease, so that the next holder gets the lock at once. Only for a lease that is certainly
    /// still ours.
    ///
    /// # Errors
    /// [`Error`]; then the lock expires.
    pub async fn lock_release(&self, lease: &Lease, deadline: Duration) -> Result<Kept, Error> {
        let response = self.lock_keep("lock-release", lease, deadline).await?;
        Ok(response.map_or(Kept::Lost, |_| Kept::Kept))
    }

    /// The holder that acquired the lock last, as it named itself; `None` if nobody ever did.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn lock_holder(&self) -> Result<Option<String>, Error> {
        let response = self.answer(Request::get(self.lock_path()).secret_answer(), Retry::Yes).await?;
        if response.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if !response.is_success() {
            return Err(
                self.error(&response, Right::Variables { path: "githubrunner/*", capability: "read" })
            );
        }
        Ok(response.json::<Variable>()?.items.remove("holder"))
    }

    /// The response to the holder of a lease; `None` if Nomad says that it no longer holds the lock.
    async fn lock_keep(
        &self,
        operation: &str,
        lease: &Lease,
        deadline: Duration,
    ) -> Result<Option<Response>, Error> {
        let body = json!({ "Lock": { "ID": lease.id } });
        let response = self.lock_call(operation, &body, deadline).await?;
        match response.status {
            StatusCode::CONFLICT | StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => Ok(Some(response)),
            _ => Err(self.error(&response, RIGHT)),
        }
    }

    async fn lock_call(
        &self,
        operation: &str,
        body: &serde_json::Value,
        deadline: Duration,
    ) -> Result<Response, Error> {
        let request = Request::put(format!("{}?{operation}", self.lock_path())).json(body).deadline(deadline);
        self.answer(request, Retry::No).await
    }

    fn lock_path(&self) -> String {
        format!("/v1/var/githubrunner/{}/leader", escape_segment(&self.options().prefix))
    }
}

/// A duration in Go's format.
fn duration(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}
