//! A lock in a Nomad variable, for replicas of which one acts (contract §8).
//!
//! The server lets a lock expire at twice its TTL and then waits for the LockDelay. A holder renews at half the TTL
//! and counts itself out one TTL after it *began* its last successful renewal. After that it does not release: by
//! then the lock may be another's.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use crate::http::{Request, Response, StatusCode, escape_segment};

use super::api::{Nomad, Retry};
use super::error::{Error, Right};
use super::wire::Variable;

/// The variables that locks live in.
const RIGHT: Right = Right::Variables { path: "githubrunner/*", capability: "write" };

/// A lock that was acquired. What holds it is the ID, which the server made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    id: String,
}

/// What asking for a lock came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// It is ours.
    Ours(Lease),
    /// Another holds it, or held it until less than its LockDelay ago.
    Held,
}

/// What the holder of a lock is answered.
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

/// Whether a lease is still, or was until now, ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Yes.
    Kept,
    /// No: it expired, or the variable is gone.
    Lost,
}

impl Nomad {
    /// Asks for the lock `githubrunner/PREFIX/leader`. `holder` is for people: who holds it. `ttl` is 10 s to 24 h;
    /// Nomad takes a `delay` of zero for its default of 15 s. Sent once: an answer that is lost may have been a yes,
    /// which then expires by itself.
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
    /// [`Error`]; then nothing is known of it.
    pub async fn lock_renew(&self, lease: &Lease, deadline: Duration) -> Result<Kept, Error> {
        let Some(response) = self.lock_keep("lock-renew", lease, deadline).await? else {
            return Ok(Kept::Lost);
        };
        // Any proxy says 200: it is renewed only where the answer is the lock's.
        let answer: Answer = response.json()?;
        Ok(if answer.lock.id == lease.id { Kept::Kept } else { Kept::Lost })
    }

    /// Releases a lease: the next one gets it at once. Only for a lease that is certainly still ours.
    ///
    /// # Errors
    /// [`Error`]; then it expires by itself.
    pub async fn lock_release(&self, lease: &Lease, deadline: Duration) -> Result<Kept, Error> {
        let response = self.lock_keep("lock-release", lease, deadline).await?;
        Ok(response.map_or(Kept::Lost, |_| Kept::Kept))
    }

    /// Who acquired the lock last, in its own words; `None` when nobody ever did.
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

    /// The answer to the holder of a lease; `None` when Nomad says that it is not its holder any more.
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

/// A duration as Go reads it.
fn duration(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}
