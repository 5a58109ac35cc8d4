//! The simulated GitHub's behaviour, by subject.

mod apps;
mod hooks;
mod jobs;
mod limits;
mod listings;
mod runners;
mod schemas;

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use hyper::{Method, Request};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;

pub(super) const TOKEN: &str = "ghp_of_octocat";
pub(super) const HOUR: Duration = Duration::from_secs(3600);

/// An answer, taken apart.
#[derive(Debug, PartialEq)]
pub(super) struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Value,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(String::as_str).unwrap_or_default()
    }

    /// The Link header's address of a relation.
    pub fn link(&self, relation: &str) -> Option<String> {
        let mark = format!(">; rel=\"{relation}\"");
        let link =
            self.header("link").split(", ").find_map(|link| link.strip_suffix(&mark)?.strip_prefix('<'));
        link.map(str::to_string)
    }

    pub fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }

    /// The IDs in a list, or in the list of this key.
    pub fn ids(&self, key: &str) -> Vec<u64> {
        let list = if key.is_empty() { &self.body } else { &self.body[key] };
        list.as_array().unwrap().iter().map(|item| item["id"].as_u64().unwrap()).collect()
    }
}

/// A GitHub with a person, an organization, a repository of each, and a clock.
pub(super) struct Site {
    pub github: GitHub,
    pub now: Timestamp,
    pub token: Option<String>,
    pub octo_org: u64,
    /// `octo-org/app`.
    pub app: u64,
    /// `octocat/tool`.
    pub tool: u64,
}

impl Site {
    pub fn new() -> Site {
        Site::with(Options::default())
    }

    pub fn with(options: Options) -> Site {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let mut github = GitHub::new(options, now);
        github.add_user("octocat");
        let octo_org = github.add_organization("octo-org", &["octocat"]);
        let app = github.add_repository("octo-org/app");
        let tool = github.add_repository("octocat/tool");
        github.add_token(TOKEN, Token::classic("octocat", &["repo", "admin:org", "admin:org_hook"]));
        Site { github, now, token: Some(TOKEN.to_string()), octo_org, app, tool }
    }

    pub fn pass(&mut self, time: Duration) {
        self.now = after(self.now, time);
        self.github.advance(self.now);
    }

    pub fn ask(&mut self, method: Method, target: &str, headers: &[(&str, &str)], body: Value) -> Answer {
        let target = target.strip_prefix("http://api.test").unwrap_or(target);
        let mut request = Request::builder().method(method).uri(target).header("host", "api.test");
        if !headers.iter().any(|(name, _)| *name == "user-agent") {
            request = request.header("user-agent", "test");
        }
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let response = self.github.handle(&request.body(body).unwrap(), self.now);
        let headers = response.headers().iter();
        Answer {
            status: response.status().as_u16(),
            headers: headers
                .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_string()))
                .collect(),
            body: if response.body().is_empty() {
                Value::Null
            } else {
                serde_json::from_slice(response.body()).unwrap()
            },
        }
    }

    pub fn get(&mut self, target: &str) -> Answer {
        self.ask(Method::GET, target, &[], Value::Null)
    }

    pub fn post(&mut self, target: &str, body: Value) -> Answer {
        self.ask(Method::POST, target, &[], body)
    }

    pub fn patch(&mut self, target: &str, body: Value) -> Answer {
        self.ask(Method::PATCH, target, &[], body)
    }

    pub fn delete(&mut self, target: &str) -> Answer {
        self.ask(Method::DELETE, target, &[], Value::Null)
    }

    /// A run with one job of these labels that takes ten minutes. Answers the job's ID.
    pub fn queue(&mut self, repository: u64, labels: &[&str]) -> u64 {
        let spec = JobSpec::new(labels, Duration::from_secs(600));
        let run = self.github.queue_run(repository, vec![spec], self.now).unwrap();
        self.github.run(run).unwrap().jobs[0]
    }

    /// A JIT runner of `octo-org/app` that is online. Answers its ID.
    pub fn online(&mut self, name: &str, labels: &[&str]) -> u64 {
        let body = json!({"name": name, "runner_group_id": 1, "labels": labels});
        let answer = self.post("/repos/octo-org/app/actions/runners/generate-jitconfig", body);
        assert_eq!(answer.status, 201, "{answer:?}");
        self.github.connect_jit(answer.body["encoded_jit_config"].as_str().unwrap(), self.now).unwrap()
    }

    pub fn status(&self, job: u64) -> Status {
        self.github.job(job).unwrap().status
    }
}
