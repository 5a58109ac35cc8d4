//! Which path means what.

use hyper::Method;
use serde_json::{Value, json};

use super::auth::{Kind, Level, Who};
use super::data::*;
use super::http::{Ask, Reply};
use super::page::cut;
use super::runners::JitRefused;
use super::{GitHub, auth};

/// A filtered listing of runs ends here (contract §1).
const MOST_RUNS: usize = 1000;

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
                    Some(id) => Reply::json(200, self.user_json(*id, &ask.base, true)),
                    None if matches!(ask.who, Who::Anonymous) => Reply::error(401, "Requires authentication"),
                    None => Reply::error(403, "Resource not accessible by integration"),
                }
            }
            ["user", "repos"] if get => self.own_repositories(ask),
            ["user", id, "repos"] if get => self.public_repositories(ask, number(id)),
            ["users", login, rest @ ..] if get => {
                let id = self.logins.get(&login.to_lowercase()).copied();
                match (id, rest) {
                    (Some(id), []) => Reply::json(200, self.user_json(id, &ask.base, true)),
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
        // An App asks about its own installation before it has a token that sees anything.
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
            [] if get => Reply::json(200, self.repository_json(id, &ask.base, true).unwrap_or_default()),
            ["actions", "runners", rest @ ..] => {
                // The route's own right decides reading too: administration.
                if let Err(reply) = self.may(&ask.who, repository, "administration", level) {
                    return reply;
                }
                self.runner_route(ask, Scope::Repository(id), rest)
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

    fn actions_route(&mut self, ask: &Ask, repository: u64, rest: &[&str]) -> Reply {
        let get = ask.method == Method::GET;
        let now = self.now;
        match rest {
            ["runs"] if get => self.list_runs(ask, repository),
            ["runs", run, rest @ ..] => {
                let known = number(run).and_then(|run| self.runs.get(&run));
                let Some(run) = known.filter(|run| run.repository == repository) else {
                    return Reply::not_found();
                };
                let id = run.id;
                match rest {
                    [] if get => Reply::json(200, self.run_json(run, &ask.base)),
                    ["jobs"] if get => {
                        let all = ask.parameter("filter") == Some("all");
                        self.list_jobs(ask, run, if all { None } else { Some(run.attempt) })
                    }
                    ["attempts", attempt, "jobs"] if get => {
                        self.list_jobs(ask, run, Some(attempt.parse().unwrap_or(0)))
                    }
                    ["cancel"] if ask.method == Method::POST => match self.cancel_run(id, now) {
                        true => Reply::json(202, json!({})),
                        false => Reply::error(409, "Cannot cancel a workflow run that is completed."),
                    },
                    ["rerun"] if ask.method == Method::POST => match self.rerun(id, now) {
                        true => Reply::json(201, json!({})),
                        false => Reply::error(403, "The workflow run is not completed"),
                    },
                    _ => Reply::not_found(),
                }
            }
            ["jobs", job] if get => match number(job).and_then(|job| self.jobs.get(&job)) {
                Some(job) if job.repository == repository => Reply::json(200, self.job_json(job, &ask.base)),
                _ => Reply::not_found(),
            },
            _ => Reply::not_found(),
        }
    }

    fn list_runs(&self, ask: &Ask, repository: u64) -> Reply {
        let status = ask.parameter("status");
        let matches = |run: &&Run| {
            let conclusion = run.conclusion.map(Conclusion::as_str);
            status.is_none_or(|status| run.status.as_str() == status || conclusion == Some(status))
                && ask.parameter("created").is_none_or(|range| created_in(run, range))
        };
        let runs = self.runs_of.get(&repository).into_iter().flatten().rev();
        let runs: Vec<&Run> = runs.filter_map(|run| self.runs.get(run)).filter(matches).collect();
        let total = runs.len();
        let reach = if ask.parameter("status").is_some() || ask.parameter("created").is_some() {
            MOST_RUNS
        } else {
            usize::MAX
        };
        let path = format!("/repositories/{repository}/actions/runs");
        let (runs, link) = cut(ask, &path, runs, reach);
        let runs: Vec<Value> = runs.into_iter().map(|run| self.run_json(run, &ask.base)).collect();
        Reply::json(200, json!({"total_count": total, "workflow_runs": runs})).linked(link)
    }

    fn list_jobs(&self, ask: &Ask, run: &Run, attempt: Option<u32>) -> Reply {
        let jobs = run.jobs.iter().filter_map(|job| self.jobs.get(job));
        let jobs: Vec<&Job> =
            jobs.filter(|job| attempt.is_none_or(|attempt| job.attempt == attempt)).collect();
        let total = jobs.len();
        let path = format!("/repositories/{}/actions/runs/{}/jobs", run.repository, run.id);
        let (jobs, link) = cut(ask, &path, jobs, usize::MAX);
        let jobs: Vec<Value> = jobs.into_iter().map(|job| self.job_json(job, &ask.base)).collect();
        Reply::json(200, json!({"total_count": total, "jobs": jobs})).linked(link)
    }

    fn runner_route(&mut self, ask: &Ask, scope: Scope, rest: &[&str]) -> Reply {
        let now = self.now;
        match (ask.method, rest) {
            (&Method::GET, []) => {
                let name = ask.parameter("name");
                let runners = self.runners.values().filter(|runner| {
                    runner.scope == scope && name.is_none_or(|name| runner.name.eq_ignore_ascii_case(name))
                });
                let runners: Vec<&Runner> = runners.collect();
                let total = runners.len();
                let path = match scope {
                    Scope::Repository(id) => format!("/repositories/{id}/actions/runners"),
                    Scope::Organization(id) => format!("/organizations/{id}/actions/runners"),
                };
                let (runners, link) = cut(ask, &path, runners, usize::MAX);
                let runners: Vec<Value> =
                    runners.into_iter().map(|runner| self.runner_json(runner)).collect();
                Reply::json(200, json!({"total_count": total, "runners": runners})).linked(link)
            }
            (&Method::POST, ["generate-jitconfig"]) => self.jit_route(ask, scope),
            (&Method::POST, [kind @ ("registration-token" | "remove-token")]) => {
                let (token, expires_at) = self.make_registration_token(scope, *kind == "remove-token");
                Reply::json(201, json!({"token": token, "expires_at": super::shapes::time(expires_at)}))
            }
            (&Method::GET | &Method::DELETE, [id]) => {
                let known = number(id).and_then(|id| self.runners.get(&id));
                let Some(runner) = known.filter(|runner| runner.scope == scope) else {
                    return Reply::not_found();
                };
                if ask.method == Method::GET {
                    return Reply::json(200, self.runner_json(runner));
                }
                let (id, name) = (runner.id, runner.name.clone());
                if self.delete_runner(id, now) {
                    Reply::empty(204)
                } else {
                    Reply::error(422, &format!("Bad request - Runner \"{name}\" is still running a job\""))
                }
            }
            _ => Reply::not_found(),
        }
    }

    fn jit_route(&mut self, ask: &Ask, scope: Scope) -> Reply {
        let body = match ask.json() {
            Ok(body) => body,
            Err(reply) => return reply,
        };
        let name = body.get("name").and_then(Value::as_str).unwrap_or("");
        let group = body.get("runner_group_id").and_then(Value::as_u64);
        let labels = body.get("labels").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let labels: Vec<String> = labels.iter().filter_map(Value::as_str).map(str::to_string).collect();
        let work_folder = body.get("work_folder").and_then(Value::as_str).unwrap_or("_work");
        let Some(group) = group else {
            return Reply::error(422, "Invalid request.\n\n\"runner_group_id\" wasn't supplied.");
        };
        if name.is_empty() || name.chars().count() > 64 {
            return Reply::error(422, "Runner name must be between 1 and 64 characters.");
        }
        if labels.is_empty() || labels.len() > 100 {
            return Reply::error(422, "Invalid request.\n\n\"labels\" must have between 1 and 100 items.");
        }
        if labels.iter().any(|label| label.is_empty() || label.chars().count() > 256) {
            return Reply::error(422, "Labels must be between 1 and 256 characters.");
        }
        let group_known = match scope {
            Scope::Repository(_) => group == 1,
            Scope::Organization(id) => {
                group == 1 || self.groups.iter().any(|known| known.id == group && known.organization == id)
            }
        };
        if !group_known {
            return Reply::not_found();
        }
        match self.generate_jit(scope, group, name, &labels, work_folder, &ask.base) {
            Ok((id, encoded)) => {
                let runner = self.runners.get(&id).map(|runner| self.runner_json(runner)).unwrap_or_default();
                Reply::json(201, json!({"runner": runner, "encoded_jit_config": encoded}))
            }
            Err(JitRefused::NameTaken) => {
                Reply::error(409, &format!("Already exists - A runner with the name {name} already exists."))
            }
            Err(JitRefused::TooMany) => {
                Reply::error(429, "Too many runner registrations").with("retry-after", "60".to_string())
            }
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
            ["actions", "runners", rest @ ..] => match self.may_in_organization(&ask.who, owner, level) {
                Ok(()) => self.runner_route(ask, Scope::Organization(id), rest),
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

    /// Sorts, pages and shows repositories.
    fn repository_list(&self, ask: &Ask, path: &str, mut list: Vec<&Repository>, sort: &str) -> Reply {
        self.sort_repositories(ask, &mut list, sort);
        let (list, link) = cut(ask, path, list, usize::MAX);
        let list = list.iter().filter_map(|repository| self.repository_json(repository.id, &ask.base, false));
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
        let list = list.iter().filter_map(|repository| self.repository_json(repository.id, &ask.base, false));
        let list: Vec<Value> = list.collect();
        let selection = token.reach.selection();
        let body = json!({"total_count": total, "repository_selection": selection, "repositories": list});
        Reply::json(200, body).linked(link)
    }

    /// The App's installation for an owner, or for a repository that it was given.
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

fn number(text: &str) -> Option<u64> {
    text.parse().ok()
}

/// A renamed repository: by its ID, permanently; a request that changes something keeps its method.
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

/// The `created` parameter: `>=T`, `>T`, `<=T`, `<T`, `A..B`, with `*` for an open end. What cannot be read fits nothing.
fn created_in(run: &Run, range: &str) -> bool {
    let time = |text: &str| -> Option<jiff::Timestamp> {
        text.parse().ok().or_else(|| format!("{text}T00:00:00Z").parse().ok())
    };
    let created = run.created_at;
    let compare = |text: &str, test: fn(jiff::Timestamp, jiff::Timestamp) -> bool| {
        text == "*" || time(text).is_some_and(|bound| test(created, bound))
    };
    if let Some(bound) = range.strip_prefix(">=") {
        compare(bound, |created, bound| created >= bound)
    } else if let Some(bound) = range.strip_prefix('>') {
        compare(bound, |created, bound| created > bound)
    } else if let Some(bound) = range.strip_prefix("<=") {
        compare(bound, |created, bound| created <= bound)
    } else if let Some(bound) = range.strip_prefix('<') {
        compare(bound, |created, bound| created < bound)
    } else if let Some((from, to)) = range.split_once("..") {
        compare(from, |created, bound| created >= bound) && compare(to, |created, bound| created <= bound)
    } else {
        super::shapes::time(created).starts_with(range)
    }
}
