//! The registrations of runners at GitHub: found by name, and deleted if GitHub permits it.

use super::{Apply, Result, github_outcome};
use crate::{
    github::{Deleted, RegisteredRunner, Scope, Sought},
    model::{Done, NotDone, RepositoryRef, RunnerId, VerifyRegistration},
};

impl Apply {
    pub(super) async fn verify_registration(&self, verify_registration: &VerifyRegistration) -> Result<Done> {
        let scope = self.scope(
            &RepositoryRef::from(&verify_registration.repository),
            verify_registration.class.as_deref(),
        );
        match self.registered(&scope, &verify_registration.name).await? {
            Some(found) if found.is_connected() => Ok(Done::Connected),
            // No job can reach a runner that hangs before it connects, or whose node cannot reach GitHub.
            Some(_) | None => Ok(Done::NotConnected),
        }
    }

    /// The registration of that name; `None` only if GitHub returned the complete list without it.
    pub(super) async fn registered(&self, scope: &Scope, name: &str) -> Result<Option<RegisteredRunner>> {
        seen(self.github.find_runner(scope, name).await.map_err(github_outcome)?)
    }

    /// Deletes a registration. After a lost response, it asks once more; if the registration is gone, we
    /// deleted it.
    pub(super) async fn delete_registration(&self, scope: &Scope, id: RunnerId) -> Result<Removed> {
        let (deleted, repeated) = match self.github.delete_runner(scope, id).await {
            Err(error) if error.is_ambiguous() => (self.github.delete_runner(scope, id).await, true),
            result => (result, false),
        };
        match deleted.map_err(github_outcome)? {
            Deleted::Deleted => Ok(Removed::Yes),
            Deleted::NotThere if repeated => Ok(Removed::Yes),
            Deleted::NotThere => Ok(Removed::WasAbsent),
            Deleted::Busy => Err(NotDone::Held("GitHub says it is running a job".to_owned())),
        }
    }

    /// Where a class's runners for a repository register.
    pub(super) fn scope(&self, repository: &RepositoryRef, class: Option<&str>) -> Scope {
        Scope::of(repository, self.kinds.of(class).level)
    }
}

/// Whether there was a registration to remove.
pub(super) enum Removed {
    Yes,
    WasAbsent,
}

/// Whether something was found. An error if its absence is not certain.
pub(super) fn seen<T>(sought: Sought<T>) -> Result<Option<T>> {
    match sought {
        Sought::Found(found) => Ok(Some(found)),
        Sought::Absent => Ok(None),
        Sought::Unseen(gap) => Err(NotDone::Held(format!(
            "cannot tell whether it is registered: GitHub's list of runners is incomplete: {gap}"
        ))),
    }
}

pub(super) fn online_already() -> NotDone {
    NotDone::Held("a runner of this name is already online at GitHub".to_owned())
}
