//! The routes below `…/actions/`: runs, jobs, runners.

use hyper::Method;
use serde_json::{Value, json};

use super::{
    GitHub,
    data::{number, *},
    http::Ask,
    page::cut,
    reply::Reply,
    runners::JitRefused,
};

/// Filtered lists of runs end after this many (contract §1).
const MOST_RUNS: usize = 1000;

impl GitHub {
    pub(super) fn actions_route(&mut self, ask: &Ask, repository: u64, rest: &[&str]) -> Reply {
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
            ["jobs", job, "rerun"] if ask.method == Method::POST => {
                let known = number(job).and_then(|job| self.jobs.get(&job));
                let Some(job) = known.filter(|job| job.repository == repository).map(|job| job.id) else {
                    return Reply::not_found();
                };
                match self.rerun_job(job, now) {
                    Ok(()) => Reply::json(201, json!({})),
                    Err(message) => Reply::error(403, message),
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
            // The index determines which ones. The rows themselves are current.
            let conclusion = run.conclusion.filter(|_| run.indexed == Some(Status::Completed));
            let conclusion = conclusion.map(Conclusion::as_str);
            let indexed = run.indexed.map(Status::as_str);
            status.is_none_or(|status| indexed == Some(status) || conclusion == Some(status))
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
        let jobs = self.job_texts(run.repository, &jobs, &ask.base);
        Reply::text(200, format!(r#"{{"total_count":{total},"jobs":[{jobs}]}}"#)).linked(link)
    }

    pub(super) fn runner_route(&mut self, ask: &Ask, scope: RegisteredAt, rest: &[&str]) -> Reply {
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
                    RegisteredAt::Repository(id) => format!("/repositories/{id}/actions/runners"),
                    RegisteredAt::Organization(id) => format!("/organizations/{id}/actions/runners"),
                };
                let (runners, link) = cut(ask, &path, runners, usize::MAX);
                let runners: Vec<Value> =
                    runners.into_iter().map(|runner| self.runner_json(runner)).collect();
                Reply::json(200, json!({"total_count": total, "runners": runners})).linked(link)
            }
            (&Method::GET, ["deprecations", version]) => match self.options.runner_versions.get(*version) {
                Some(end) => {
                    let mut answer = json!({ "runner_version": version });
                    if let Some(end) = end {
                        answer["runtime_deprecates_at"] = json!(super::reply::time(*end));
                    }
                    Reply::json(200, answer)
                }
                None => Reply::not_found(),
            },
            (&Method::POST, ["generate-jitconfig" | "registration-token"])
                if matches!(scope, RegisteredAt::Repository(id)
                    if self.repositories.get(&id).is_some_and(|repository| repository.refuses_runners)) =>
            {
                Reply::error(403, "")
            }
            (&Method::POST, ["generate-jitconfig"]) => self.jit_route(ask, scope),
            (&Method::POST, [kind @ ("registration-token" | "remove-token")]) => {
                let (token, expires_at) = self.make_registration_token(scope, *kind == "remove-token");
                Reply::json(201, json!({"token": token, "expires_at": super::reply::time(expires_at)}))
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

    fn jit_route(&mut self, ask: &Ask, scope: RegisteredAt) -> Reply {
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
            RegisteredAt::Repository(_) => group == 1,
            RegisteredAt::Organization(id) => {
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
}

/// The `created` parameter: `>=T`, `>T`, `<=T`, `<T`, `A..B`, with `*` for an open end. Invalid text matches nothing.
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
        super::reply::time(created).starts_with(range)
    }
}
