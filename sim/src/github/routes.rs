//! The routes.

use hyper::Method;
use serde_json::{Value, json};

use super::{
    GitHub, auth,
    auth::Who,
    data::{number, *},
    hooks::HookPlace,
    http::Ask,
    page::cut,
    reply::Reply,
    token::{Kind, Level},
};
use crate::github::data::Detail;

impl GitHub {
    pub(super) fn route(&mut self, ask: &Ask) -> Reply {
        let path: Vec<&str> = ask.path.iter().map(String::as_str).collect();
        let get = ask.method == Method::GET;
        match path.as_slice() {
            ["repos", owner, name, rest @ ..] => {
                let full_name = format!("{owner}/{name}").to_lowercase();
                if let Some(id) = self.names.get(&full_name).copied() {
                    return self.repository_route(ask, id, rest);
                }
                match self.former_names.get(&full_name).copied().filter(|id| self.visible(ask, *id)) {
                    Some(id) => moved(ask, id, rest),
                    None => Reply::not_found(),
                }
            }
            ["repositories", id, rest @ ..] => match number(id) {
                Some(id) => self.repository_route(ask, id, rest),
                None => Reply::not_found(),
            },
            ["orgs", login, rest @ ..] => {
                match self.logins.get(&login.to_lowercase()).copied().filter(|id| self.is_organization(*id)) {
                    Some(id) => self.organization_route(ask, id, rest),
                    None => Reply::not_found(),
                }
            }
            ["organizations", id, rest @ ..] => match number(id).filter(|id| self.is_organization(*id)) {
                Some(id) => self.organization_route(ask, id, rest),
                None => Reply::not_found(),
            },
            ["user"] if get => {
                match self.login_of(&ask.who).and_then(|login| self.logins.get(&login.to_lowercase())) {
                    Some(id) => Reply::json(200, self.user_json(*id, &ask.base, Detail::Full)),
                    None if matches!(ask.who, Who::Anonymous) => Reply::error(401, "Requires authentication"),
                    None => Reply::error(403, "Resource not accessible by integration"),
                }
            }
            ["user", "repos"] if get => self.own_repositories(ask),
            ["user", id, "repos"] if get => self.public_repositories(ask, number(id)),
            ["users", login, rest @ ..] if get => {
                let id = self.logins.get(&login.to_lowercase()).copied();
                match (id, rest) {
                    (Some(id), []) => Reply::json(200, self.user_json(id, &ask.base, Detail::Full)),
                    (Some(id), ["repos"]) => self.public_repositories(ask, Some(id)),
                    (Some(id), ["installation"]) => self.find_installation(ask, id, None),
                    _ => Reply::not_found(),
                }
            }
            ["installation", "repositories"] if get => self.installation_repositories(ask),
            ["app", rest @ ..] => self.app_route(ask, rest),
            _ => Reply::not_found(),
        }
    }

    fn is_organization(&self, id: u64) -> bool {
        self.owners.get(&id).is_some_and(|owner| owner.organization)
    }

    fn visible(&self, ask: &Ask, id: u64) -> bool {
        self.repositories.get(&id).is_some_and(|repository| self.sees(&ask.who, repository))
    }

    fn repository_route(&mut self, ask: &Ask, id: u64, rest: &[&str]) -> Reply {
        let Some(repository) = self.repositories.get(&id) else { return Reply::not_found() };
        // An App requests its own installation before it has a token with access to anything.
        if rest == ["installation"] {
            return self.find_installation(ask, repository.owner, Some(id));
        }
        if !self.sees(&ask.who, repository) {
            return Reply::not_found();
        }
        if repository.disabled {
            return Reply::error(403, "Repository access blocked");
        }
        let get = ask.method == Method::GET;
        let level = if get { Level::Read } else { Level::Write };
        match rest {
            [] if get => {
                Reply::json(200, self.repository_json(id, &ask.base, Detail::Full).unwrap_or_default())
            }
            ["hooks", rest @ ..] => {
                let place = HookPlace::Repository(id);
                if !self.may_hook(&ask.who, place, level) {
                    return Reply::not_found();
                }
                let path = format!("{}/repos/{}/hooks", ask.base, self.full_name(id).unwrap_or_default());
                self.hooks_route(ask, place, &path, rest)
            }
            ["actions", "runners", rest @ ..] => {
                // The route's own permission also applies to reading: administration.
                if let Err(reply) = self.may(&ask.who, repository, "administration", level) {
                    return reply;
                }
                self.runner_route(ask, RegisteredAt::Repository(id), rest)
            }
            ["actions", rest @ ..] => {
                if let Err(reply) = self.may(&ask.who, repository, "actions", level) {
                    return reply;
                }
                self.actions_route(ask, id, rest)
            }
            _ => Reply::not_found(),
        }
    }

    fn organization_route(&mut self, ask: &Ask, id: u64, rest: &[&str]) -> Reply {
        let get = ask.method == Method::GET;
        let Some(owner) = self.owners.get(&id) else { return Reply::not_found() };
        let level = if get { Level::Read } else { Level::Write };
        match rest {
            [] if get => Reply::json(200, self.organization_json(owner, &ask.base)),
            ["repos"] if get => {
                let list = self
                    .repositories
                    .values()
                    .filter(|repository| repository.owner == id && self.sees(&ask.who, repository));
                let list = list.collect();
                self.repository_list(ask, &format!("/organizations/{id}/repos"), list, "created")
            }
            ["installation"] if get => self.find_installation(ask, id, None),
            ["hooks", rest @ ..] => {
                let (place, path) =
                    (HookPlace::Organization(id), format!("{}/orgs/{}/hooks", ask.base, owner.login));
                if !self.may_hook(&ask.who, place, level) {
                    return Reply::not_found();
                }
                self.hooks_route(ask, place, &path, rest)
            }
            ["actions", "runners", rest @ ..] => match self.may_in_organization(&ask.who, owner, level) {
                Ok(()) => self.runner_route(ask, RegisteredAt::Organization(id), rest),
                Err(reply) => reply,
            },
            ["actions", "runner-groups"] if get => match self.may_in_organization(&ask.who, owner, level) {
                Ok(()) => self.list_groups(ask, owner),
                Err(reply) => reply,
            },
            _ => Reply::not_found(),
        }
    }

    fn list_groups(&self, ask: &Ask, owner: &Owner) -> Reply {
        let mut groups = vec![(1, "Default")];
        let own = self.groups.iter().filter(|group| group.organization == owner.id);
        groups.extend(own.map(|group| (group.id, group.name.as_str())));
        let total = groups.len();
        let path = format!("/organizations/{}/actions/runner-groups", owner.id);
        let (groups, link) = cut(ask, &path, groups, usize::MAX);
        let groups: Vec<Value> = groups
            .into_iter()
            .map(|(id, name)| {
                json!({
                    "id": id, "name": name, "visibility": "all", "default": id == 1, "inherited": false,
                    "runners_url": format!("{}/orgs/{}/actions/runner_groups/{id}/runners", ask.base, owner.login),
                    "allows_public_repositories": true, "restricted_to_workflows": false, "selected_workflows": [],
                    "workflow_restrictions_read_only": false,
                })
            })
            .collect();
        Reply::json(200, json!({"total_count": total, "runner_groups": groups})).linked(link)
    }

    /// Sorts, paginates and renders repositories.
    fn repository_list(&self, ask: &Ask, path: &str, mut list: Vec<&Repository>, sort: &str) -> Reply {
        self.sort_repositories(ask, &mut list, sort);
        let (list, link) = cut(ask, path, list, usize::MAX);
        let list = list
            .iter()
            .filter_map(|repository| self.repository_json(repository.id, &ask.base, Detail::Short));
        Reply::json(200, Value::Array(list.collect())).linked(link)
    }

    fn sort_repositories(&self, ask: &Ask, list: &mut [&Repository], sort: &str) {
        let sort = ask.parameter("sort").unwrap_or(sort);
        match sort {
            "full_name" => {
                list.sort_by_key(|repository| self.full_name(repository.id).map(|n| n.to_lowercase()))
            }
            "pushed" => list.sort_by_key(|repository| (repository.pushed_at, repository.id)),
            _ => list.sort_by_key(|repository| (repository.created_at, repository.id)),
        }
        let descending = if sort == "full_name" { "asc" } else { "desc" };
        if ask.parameter("direction").unwrap_or(descending) == "desc" {
            list.reverse();
        }
    }

    /// GET /users/{u}/repos: public ones only (contract §1).
    fn public_repositories(&self, ask: &Ask, owner: Option<u64>) -> Reply {
        let Some(owner) = owner.and_then(|id| self.owners.get(&id)) else { return Reply::not_found() };
        let list = self
            .repositories
            .values()
            .filter(|repository| repository.owner == owner.id && !repository.private && !repository.deleted);
        let list = list.collect();
        self.repository_list(ask, &format!("/user/{}/repos", owner.id), list, "full_name")
    }

    /// GET /user/repos: personal tokens only.
    fn own_repositories(&self, ask: &Ask) -> Reply {
        let Who::Token { token, .. } = &ask.who else {
            return Reply::error(401, "Requires authentication");
        };
        let Some(login) = self.login_of(&ask.who) else {
            return Reply::error(403, "Resource not accessible by integration");
        };
        let affiliation = ask.parameter("affiliation").unwrap_or("owner,collaborator,organization_member");
        let list = self.repositories.values().filter(|repository| {
            let Some(owner) = self.owners.get(&repository.owner) else { return false };
            let own = owner.login.eq_ignore_ascii_case(login);
            let asked = if own { "owner" } else { "organization_member" };
            auth::is_member(owner, login)
                && affiliation.split(',').any(|kind| kind == asked)
                && token.reach.contains(repository.id)
                && self.sees(&ask.who, repository)
        });
        let list = list.collect();
        self.repository_list(ask, "/user/repos", list, "full_name")
    }

    fn installation_repositories(&self, ask: &Ask) -> Reply {
        let Who::Token { token, .. } = &ask.who else {
            return Reply::error(401, "Requires authentication");
        };
        if !matches!(token.kind, Kind::Installation { .. }) {
            let message = "You must authenticate with an installation access token in order to list repositories \
                           for an installation.";
            return Reply::error(403, message);
        }
        let list = self.repositories.values().filter(|repository| self.reaches(token, repository));
        let list: Vec<&Repository> = list.collect();
        let total = list.len();
        let (list, link) = cut(ask, "/installation/repositories", list, usize::MAX);
        let list = list
            .iter()
            .filter_map(|repository| self.repository_json(repository.id, &ask.base, Detail::Short));
        let list: Vec<Value> = list.collect();
        let selection = token.reach.selection();
        let body = json!({"total_count": total, "repository_selection": selection, "repositories": list});
        Reply::json(200, body).linked(link)
    }

    /// The App's installation for an owner, or for a repository that it can access.
    fn find_installation(&self, ask: &Ask, owner: u64, repository: Option<u64>) -> Reply {
        let Who::App(app) = ask.who else { return needs_jwt(ask) };
        let found = self.installations.values().find(|installation| {
            installation.app == app
                && installation.account == owner
                && repository.is_none_or(|id| installation.repositories.contains(id))
        });
        match found
            .filter(|_| repository.is_none_or(|id| self.repositories.get(&id).is_some_and(|r| !r.deleted)))
        {
            Some(installation) => Reply::json(200, self.installation_json(installation, &ask.base)),
            None => Reply::not_found(),
        }
    }

    fn app_route(&mut self, ask: &Ask, rest: &[&str]) -> Reply {
        let Who::App(app) = ask.who else { return needs_jwt(ask) };
        let get = ask.method == Method::GET;
        match rest {
            [] if get => match self.apps.get(&app) {
                Some(app) => Reply::json(200, self.app_json(app, &ask.base)),
                None => Reply::not_found(),
            },
            ["hook", rest @ ..] => self.app_hook_route(ask, app, rest),
            ["installations"] if get => {
                let list = self.installations.values().filter(|installation| installation.app == app);
                let (list, link) = cut(ask, "/app/installations", list.collect(), usize::MAX);
                let list =
                    list.into_iter().map(|installation| self.installation_json(installation, &ask.base));
                Reply::json(200, Value::Array(list.collect())).linked(link)
            }
            ["installations", id] if get => {
                let known = number(id).and_then(|id| self.installations.get(&id));
                match known.filter(|installation| installation.app == app) {
                    Some(installation) => Reply::json(200, self.installation_json(installation, &ask.base)),
                    None => Reply::not_found(),
                }
            }
            ["installations", id, "access_tokens"] if ask.method == Method::POST => {
                let (Some(id), Ok(body)) = (number(id), ask.json()) else { return Reply::not_found() };
                self.create_installation_token(app, id, &body, &ask.base)
            }
            _ => Reply::not_found(),
        }
    }
}

fn needs_jwt(ask: &Ask) -> Reply {
    match ask.who {
        Who::App(_) => Reply::not_found(),
        _ => Reply::error(401, "A JSON web token could not be decoded"),
    }
}

/// A renamed repository redirects permanently to its ID. A request that changes something keeps its method.
fn moved(ask: &Ask, id: u64, rest: &[&str]) -> Reply {
    let mut location = format!("{}/repositories/{id}", ask.base);
    for part in rest {
        location.push('/');
        location.push_str(part);
    }
    if !ask.query.is_empty() {
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&ask.query).finish();
        location = format!("{location}?{query}");
    }
    let status = if ask.method == Method::GET { 301 } else { 307 };
    let body = json!({
        "message": "Moved Permanently", "url": location,
        "documentation_url": "https://docs.github.com/rest/guides/best-practices-for-using-the-rest-api#follow-redirects",
    });
    Reply::json(status, body).with("location", location)
}
