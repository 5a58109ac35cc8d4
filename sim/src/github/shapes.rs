//! The JSON of GitHub's responses, complete enough for GitHub's own schemas.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use super::{
    GitHub,
    apps::{App, Installation, permissions_json},
    data::*,
    reply::time,
};

fn node_id(kind: &str, id: u64) -> String {
    STANDARD.encode(format!("0{}:{kind}{id}", kind.len()))
}

/// Forty hexadecimal digits that look like a commit.
fn commit(id: u64) -> String {
    format!("{:040x}", u128::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834))
}

/// What follows a repository's API address in the keys that end in `_url`.
const REPOSITORY_URLS: [(&str, &str); 37] = [
    ("archive_url", "/{archive_format}{/ref}"),
    ("assignees_url", "/assignees{/user}"),
    ("blobs_url", "/git/blobs{/sha}"),
    ("branches_url", "/branches{/branch}"),
    ("collaborators_url", "/collaborators{/collaborator}"),
    ("comments_url", "/comments{/number}"),
    ("commits_url", "/commits{/sha}"),
    ("compare_url", "/compare/{base}...{head}"),
    ("contents_url", "/contents/{+path}"),
    ("contributors_url", "/contributors"),
    ("deployments_url", "/deployments"),
    ("downloads_url", "/downloads"),
    ("events_url", "/events"),
    ("forks_url", "/forks"),
    ("git_commits_url", "/git/commits{/sha}"),
    ("git_refs_url", "/git/refs{/sha}"),
    ("git_tags_url", "/git/tags{/sha}"),
    ("hooks_url", "/hooks"),
    ("issue_comment_url", "/issues/comments{/number}"),
    ("issue_events_url", "/issues/events{/number}"),
    ("issues_url", "/issues{/number}"),
    ("keys_url", "/keys{/key_id}"),
    ("labels_url", "/labels{/name}"),
    ("languages_url", "/languages"),
    ("merges_url", "/merges"),
    ("milestones_url", "/milestones{/number}"),
    ("notifications_url", "/notifications{?since,all,participating}"),
    ("pulls_url", "/pulls{/number}"),
    ("releases_url", "/releases{/id}"),
    ("stargazers_url", "/stargazers"),
    ("statuses_url", "/statuses/{sha}"),
    ("subscribers_url", "/subscribers"),
    ("subscription_url", "/subscription"),
    ("tags_url", "/tags"),
    ("teams_url", "/teams"),
    ("trees_url", "/git/trees{/sha}"),
    ("url", ""),
];

/// The only step of a job that a runner took. What ends by itself ends with it; what ends otherwise (a cancel, a lost runner) leaves it as it
/// was, or cancelled (contract §8).
fn steps(job: &Job) -> Value {
    if job.runner.is_none() {
        return json!([]);
    }
    let (status, conclusion) = match (job.conclusion, job.reason) {
        (Some(conclusion), None) => ("completed", Some(conclusion.as_str())),
        (Some(Conclusion::Cancelled), Some(_)) => ("completed", Some("cancelled")),
        (Some(_), Some(_)) | (None, _) => ("in_progress", None),
    };
    let ended = job.completed_at.filter(|_| status == "completed").map(time);
    json!([{
        "name": "Run", "status": status, "conclusion": conclusion, "number": 1,
        "started_at": time(job.started_at), "completed_at": ended,
    }])
}

impl GitHub {
    /// A user or an organization.
    pub(super) fn user_json(&self, id: u64, base: &str, detail: Detail) -> Value {
        let Some(owner) = self.owners.get(&id) else { return Value::Null };
        let login = &owner.login;
        let kind = if owner.organization { "Organization" } else { "User" };
        if self.options.lean {
            return json!({"login": login, "id": id, "type": kind});
        }
        let of = |path: &str| format!("{base}/users/{login}{path}");
        let mut user = json!({
            "login": login, "id": id, "node_id": node_id(kind, id),
            "avatar_url": format!("{}/images/{id}.png", self.options.web_url), "gravatar_id": "", "url": of(""),
            "html_url": format!("{}/{login}", self.options.web_url), "followers_url": of("/followers"),
            "following_url": of("/following{/other_user}"), "gists_url": of("/gists{/gist_id}"),
            "starred_url": of("/starred{/owner}{/repo}"), "subscriptions_url": of("/subscriptions"),
            "organizations_url": of("/orgs"), "repos_url": of("/repos"), "events_url": of("/events{/privacy}"),
            "received_events_url": of("/received_events"), "type": kind, "site_admin": false,
        });
        if detail == Detail::Full {
            let public =
                self.repositories.values().filter(|one| one.owner == id && !one.private && !one.deleted);
            extend(
                &mut user,
                json!({
                    "name": login, "company": null, "blog": "", "location": null, "email": null, "hireable": null,
                    "bio": null, "twitter_username": null, "public_repos": public.count(), "public_gists": 0,
                    "followers": 0, "following": 0, "created_at": time(owner.created_at),
                    "updated_at": time(owner.created_at),
                }),
            );
        }
        user
    }

    pub(super) fn organization_json(&self, owner: &Owner, base: &str) -> Value {
        let of = |path: &str| format!("{base}/orgs/{}{path}", owner.login);
        let public = self.repositories.values().filter(|one| one.owner == owner.id && !one.private);
        json!({
            "login": owner.login, "id": owner.id, "node_id": node_id("Organization", owner.id), "url": of(""),
            "repos_url": of("/repos"), "events_url": of("/events"), "hooks_url": of("/hooks"),
            "issues_url": of("/issues"), "members_url": of("/members{/member}"),
            "public_members_url": of("/public_members{/member}"),
            "avatar_url": format!("{}/images/{}.png", self.options.web_url, owner.id), "description": "",
            "name": owner.login, "has_organization_projects": true, "has_repository_projects": true,
            "public_repos": public.count(), "public_gists": 0, "followers": 0, "following": 0,
            "html_url": format!("{}/{}", self.options.web_url, owner.login),
            "created_at": time(owner.created_at), "updated_at": time(owner.created_at), "archived_at": null,
            "type": "Organization",
        })
    }

    /// A repository.
    pub(super) fn repository_json(&self, id: u64, base: &str, detail: Detail) -> Option<Value> {
        let repository = self.repositories.get(&id)?;
        let full_name = self.full_name(id)?;
        let mut json = self.minimal_repository_json(repository, &full_name, base);
        let web = format!("{}/{full_name}", self.options.web_url);
        let host = self.options.web_url.split("://").nth(1).unwrap_or("github.com");
        let visibility = if repository.private { "private" } else { "public" };
        extend(
            &mut json,
            json!({
                "archived": repository.archived, "disabled": repository.disabled, "visibility": visibility,
                "pushed_at": repository.pushed_at.map(time), "created_at": time(repository.created_at),
                "updated_at": time(repository.pushed_at.unwrap_or(repository.created_at)), "default_branch": "main",
            }),
        );
        if self.options.lean {
            return Some(json);
        }
        extend(
            &mut json,
            json!({
                "git_url": format!("git://{host}/{full_name}.git"), "ssh_url": format!("git@{host}:{full_name}.git"),
                "clone_url": format!("{web}.git"), "svn_url": web, "mirror_url": null, "homepage": null,
                "language": null, "license": null, "size": 1, "stargazers_count": 0, "watchers_count": 0,
                "watchers": 0, "forks_count": 0, "forks": 0, "open_issues_count": 0, "open_issues": 0,
                "has_issues": true, "has_projects": true, "has_downloads": true, "has_wiki": true,
                "has_pages": false, "has_discussions": false, "is_template": false, "allow_forking": true,
                "web_commit_signoff_required": false, "topics": [],
                "permissions": {"admin": true, "maintain": true, "push": true, "triage": true, "pull": true},
            }),
        );
        if detail == Detail::Full {
            extend(&mut json, json!({"network_count": 0, "subscribers_count": 0}));
            // The full form's schema has no null there.
            if repository.pushed_at.is_none() {
                json["pushed_at"] = json!(time(repository.created_at));
            }
        }
        Some(json)
    }

    fn minimal_repository_json(&self, repository: &Repository, full_name: &str, base: &str) -> Value {
        let mut json = json!({
            "id": repository.id, "node_id": node_id("Repository", repository.id), "name": repository.name,
            "full_name": full_name, "private": repository.private,
            "owner": self.user_json(repository.owner, base, Detail::Short),
            "html_url": format!("{}/{full_name}", self.options.web_url), "description": null, "fork": false,
        });
        if self.options.lean {
            return json;
        }
        let api = format!("{base}/repos/{full_name}");
        for (key, path) in REPOSITORY_URLS {
            json[key] = json!(format!("{api}{path}"));
        }
        json
    }

    pub(super) fn run_json(&self, run: &Run, base: &str) -> Value {
        let full_name = self.full_name(run.repository).unwrap_or_default();
        let api = format!("{base}/repos/{full_name}");
        let url = format!("{api}/actions/runs/{}", run.id);
        let repository = self.repositories.get(&run.repository);
        let owner = repository.map_or(0, |repository| repository.owner);
        let repository =
            repository.map(|repository| self.minimal_repository_json(repository, &full_name, base));
        let actor = self.user_json(owner, base, Detail::Short);
        let mut json = json!({
            "id": run.id, "name": run.name, "node_id": node_id("WorkflowRun", run.id), "head_branch": "main",
            "head_sha": commit(run.id), "path": ".github/workflows/ci.yml", "display_title": "Change something",
            "run_number": run.number, "event": run.trigger.as_str(), "status": run.status.as_str(),
            "conclusion": run.conclusion.map(Conclusion::as_str), "workflow_id": 1,
            "check_suite_id": run.id, "check_suite_node_id": node_id("CheckSuite", run.id), "url": url,
            "html_url": format!("{}/{full_name}/actions/runs/{}", self.options.web_url, run.id),
            "pull_requests": [], "created_at": time(run.created_at), "updated_at": time(run.updated_at),
            "run_attempt": run.attempt, "run_started_at": time(run.started_at),
            "jobs_url": format!("{url}/jobs"),
        });
        if self.options.lean {
            // The repository tells a client that the name now belongs to another one.
            json["repository"] = json!({ "id": run.repository, "full_name": full_name });
            return json;
        }
        extend(
            &mut json,
            json!({
                "actor": actor, "triggering_actor": actor, "referenced_workflows": [],
                "logs_url": format!("{url}/logs"), "check_suite_url": format!("{api}/check-suites/{}", run.id),
                "artifacts_url": format!("{url}/artifacts"), "cancel_url": format!("{url}/cancel"),
                "rerun_url": format!("{url}/rerun"), "previous_attempt_url": null,
                "workflow_url": format!("{api}/actions/workflows/1"),
                "head_commit": {
                    "id": commit(run.id), "tree_id": commit(run.id + 1), "message": "Change something",
                    "timestamp": time(run.created_at), "author": {"name": "A", "email": "a@example.com"},
                    "committer": {"name": "A", "email": "a@example.com"},
                },
                "repository": repository, "head_repository": repository,
            }),
        );
        json
    }

    pub(super) fn job_json(&self, job: &Job, base: &str) -> Value {
        let full_name = self.full_name(job.repository).unwrap_or_default();
        let api = format!("{base}/repos/{full_name}");
        let runner = job.runner.as_ref();
        let group = runner.map(|runner| self.group_name(runner.group));
        let run = self.runs.get(&job.run);
        json!({
            "id": job.id, "run_id": job.run, "workflow_name": run.map(|run| run.name.as_str()),
            "head_branch": "main", "run_url": format!("{api}/actions/runs/{}", job.run),
            "run_attempt": job.attempt, "node_id": node_id("CheckRun", job.id), "head_sha": commit(job.run),
            "url": format!("{api}/actions/jobs/{}", job.id),
            "html_url": format!("{}/{full_name}/actions/runs/{}/job/{}", self.options.web_url, job.run, job.id),
            "status": job.status.as_str(), "conclusion": job.conclusion.map(Conclusion::as_str),
            "created_at": time(job.created_at), "started_at": time(job.started_at),
            "completed_at": job.completed_at.map(time), "name": job.name, "steps": steps(job),
            "check_run_url": format!("{api}/check-runs/{}", job.id), "labels": job.labels,
            "runner_id": runner.map(|runner| runner.id), "runner_name": runner.map(|runner| runner.name.as_str()),
            "runner_group_id": runner.map(|runner| runner.group), "runner_group_name": group,
        })
    }

    fn group_name(&self, id: u64) -> &str {
        self.groups.iter().find(|group| group.id == id).map_or("Default", |group| group.name.as_str())
    }

    pub(super) fn runner_json(&self, runner: &Runner) -> Value {
        let built_in =
            |label: &str| ["self-hosted", "linux", "x64"].iter().any(|name| name.eq_ignore_ascii_case(label));
        let label = |(index, label): (usize, &String)| {
            let kind = if built_in(label) { "read-only" } else { "custom" };
            json!({"id": index + 1, "name": label, "type": kind})
        };
        json!({
            "id": runner.id, "name": runner.name, "os": if runner.online || !runner.jit { "Linux" } else { "unknown" },
            "status": if runner.online { "online" } else { "offline" }, "busy": runner.job.is_some(),
            "ephemeral": runner.ephemeral, "runner_group_id": runner.group,
            "version": self.options.runner_version.as_ref().filter(|_| runner.online),
            "labels": runner.labels.iter().enumerate().map(label).collect::<Vec<_>>(),
        })
    }

    pub(super) fn app_json(&self, app: &App, base: &str) -> Value {
        json!({
            "id": app.id, "slug": app.slug, "client_id": app.client_id, "node_id": node_id("App", app.id),
            "owner": self.user_json(app.owner, base, Detail::Short), "name": app.slug, "description": null,
            "external_url": format!("{}/apps/{}", self.options.web_url, app.slug),
            "html_url": format!("{}/apps/{}", self.options.web_url, app.slug), "created_at": time(self.now),
            "updated_at": time(self.now), "permissions": permissions_json(&app.permissions),
            "events": ["workflow_job"],
        })
    }

    pub(super) fn installation_json(&self, installation: &Installation, base: &str) -> Value {
        let app = self.apps.get(&installation.app);
        let organization = self.owners.get(&installation.account).is_some_and(|owner| owner.organization);
        let id = installation.id;
        json!({
            "id": id, "account": self.user_json(installation.account, base, Detail::Short),
            "repository_selection": installation.repositories.selection(),
            "access_tokens_url": format!("{base}/app/installations/{id}/access_tokens"),
            "repositories_url": format!("{base}/installation/repositories"),
            "html_url": format!("{}/settings/installations/{id}", self.options.web_url),
            "app_id": installation.app, "client_id": app.map(|app| app.client_id.as_str()),
            "app_slug": app.map(|app| app.slug.as_str()), "target_id": installation.account,
            "target_type": if organization { "Organization" } else { "User" },
            "permissions": permissions_json(&installation.permissions), "events": ["workflow_job"],
            "created_at": time(installation.created_at), "updated_at": time(installation.created_at),
            "single_file_name": null, "has_multiple_single_files": false, "single_file_paths": [],
            "suspended_at": installation.suspended_at.map(time), "suspended_by": null,
        })
    }
}

/// Adds the members of one object to another.
pub(super) fn extend(object: &mut Value, more: Value) {
    if let (Some(object), Value::Object(more)) = (object.as_object_mut(), more) {
        let object: &mut Map<String, Value> = object;
        object.extend(more);
    }
}
