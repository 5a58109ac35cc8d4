//! Authentication and authorization.

use super::{
    GitHub, apps,
    data::*,
    reply::Reply,
    token::{Kind, Level, Token},
};

/// The sender of a request.
#[derive(Clone)]
pub(super) enum Who {
    Anonymous,
    App(u64),
    Token { token: Token },
}

impl GitHub {
    /// Reads the Authorization header. An invalid one gets 401, whatever is requested.
    pub(super) fn authenticate(&self, header: Option<&str>) -> Result<Who, Reply> {
        let Some(header) = header else { return Ok(Who::Anonymous) };
        let (scheme, secret) = header.split_once(' ').unwrap_or(("", header));
        if !scheme.eq_ignore_ascii_case("bearer") && !scheme.eq_ignore_ascii_case("token") {
            return Err(Reply::error(401, "Bad credentials"));
        }
        let secret = secret.trim();
        if let Some(token) = self.tokens.get(secret) {
            if token.expires_at.is_some_and(|end| end <= self.now) {
                return Err(Reply::error(401, "Bad credentials"));
            }
            if let Kind::Installation { id } = token.kind {
                match self.installations.get(&id) {
                    None => return Err(Reply::error(401, "Bad credentials")),
                    Some(known) if known.suspended_at.is_some() => {
                        return Err(Reply::error(403, "This installation has been suspended"));
                    }
                    Some(_) => {}
                }
            }
            return Ok(Who::Token { token: token.clone() });
        }
        if secret.split('.').count() == 3 {
            return apps::verify_jwt(&self.apps, secret, self.now).map(Who::App);
        }
        Err(Reply::error(401, "Bad credentials"))
    }

    /// The login behind a personal token.
    pub(super) fn login_of<'a>(&self, who: &'a Who) -> Option<&'a str> {
        match who {
            Who::Token { token: Token { kind: Kind::Classic { login, .. }, .. }, .. }
            | Who::Token { token: Token { kind: Kind::FineGrained { login }, .. }, .. } => Some(login),
            _ => None,
        }
    }

    /// Whether the token's owner, or its installation, belongs to the repository's owner.
    fn belongs(&self, token: &Token, repository: &Repository) -> bool {
        let Some(owner) = self.owners.get(&repository.owner) else { return false };
        match &token.kind {
            Kind::Classic { login, .. } | Kind::FineGrained { login } => is_member(owner, login),
            Kind::Installation { id } => self.installations.get(id).is_some_and(|installation| {
                installation.account == owner.id && installation.repositories.contains(repository.id)
            }),
        }
    }

    /// Whether the sender may know that a repository exists.
    pub(super) fn sees(&self, who: &Who, repository: &Repository) -> bool {
        if repository.deleted {
            return false;
        }
        if !repository.private {
            return true;
        }
        let Who::Token { token, .. } = who else { return false };
        let scoped = match &token.kind {
            Kind::Classic { scopes, .. } => scopes.iter().any(|scope| scope == "repo"),
            _ => true,
        };
        scoped && token.reach.contains(repository.id) && self.belongs(token, repository)
    }

    /// Whether a token of an installation or a user counts a repository among its own.
    pub(super) fn reaches(&self, token: &Token, repository: &Repository) -> bool {
        !repository.deleted && token.reach.contains(repository.id) && self.belongs(token, repository)
    }

    /// Whether the sender may do something with a visible repository. Anyone may read the runs of a public one.
    pub(super) fn may(
        &self,
        who: &Who,
        repository: &Repository,
        name: &str,
        level: Level,
    ) -> Result<(), Reply> {
        let open = !repository.private && level == Level::Read && name != "administration";
        if open || self.may_here(who, repository, name, level) { Ok(()) } else { Err(denied(who)) }
    }

    /// Whether a token has this permission for a repository.
    pub(super) fn may_here(&self, who: &Who, repository: &Repository, name: &str, level: Level) -> bool {
        let Who::Token { token, .. } = who else { return false };
        token.permissions.get(name).is_some_and(|own| *own >= level) && self.reaches(token, repository)
    }

    /// Whether the sender may do something with an organization's runners.
    pub(super) fn may_in_organization(&self, who: &Who, owner: &Owner, level: Level) -> Result<(), Reply> {
        let allowed = self.may_there(who, owner, "organization_self_hosted_runners", level);
        if allowed { Ok(()) } else { Err(denied(who)) }
    }

    /// Whether a token has this permission for an organization.
    pub(super) fn may_there(&self, who: &Who, owner: &Owner, name: &str, level: Level) -> bool {
        let Who::Token { token, .. } = who else { return false };
        let allowed = token.permissions.get(name).is_some_and(|own| *own >= level);
        let belongs = match &token.kind {
            Kind::Classic { login, .. } | Kind::FineGrained { login } => is_member(owner, login),
            Kind::Installation { id } => {
                self.installations.get(id).is_some_and(|known| known.account == owner.id)
            }
        };
        allowed && belongs
    }

    /// Whether a runner's access token may create a registration token.
    pub(super) fn may_register(&self, secret: &str, scope: RegisteredAt) -> bool {
        let Ok(who) = self.authenticate(Some(&format!("Bearer {secret}"))) else { return false };
        match scope {
            RegisteredAt::Repository(id) => self.repositories.get(&id).is_some_and(|repository| {
                self.sees(&who, repository)
                    && self.may(&who, repository, "administration", Level::Write).is_ok()
            }),
            RegisteredAt::Organization(id) => self
                .owners
                .get(&id)
                .is_some_and(|owner| self.may_in_organization(&who, owner, Level::Write).is_ok()),
        }
    }
}

pub(super) fn is_member(owner: &Owner, login: &str) -> bool {
    owner.login.eq_ignore_ascii_case(login) || owner.members.contains(&login.to_lowercase())
}

fn denied(who: &Who) -> Reply {
    match who {
        Who::Anonymous => Reply::error(401, "Requires authentication"),
        Who::App(_) => Reply::error(403, "Resource not accessible by integration"),
        Who::Token { token, .. } => Reply::error(
            403,
            match token.kind {
                Kind::Classic { .. } => "Must have admin rights to Repository.",
                Kind::FineGrained { .. } => "Resource not accessible by personal access token",
                Kind::Installation { .. } => "Resource not accessible by integration",
            },
        ),
    }
}
