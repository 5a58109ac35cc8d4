//! The adapter against the simulated GitHub, in memory and in virtual time.

mod app;
mod cached;
mod hooks;
mod hostile;
mod jobs;
mod limited;
mod owners;
mod repositories;
mod runners;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use githubrunner_sim::github as sim;
use tokio::time::Instant;

use super::*;
use crate::{
    http::{
        Client,
        tests::{Answer, Seen, answer, server},
    },
    model::{RepoEntry, Repository, RunId, RunnerId, Timestamp, WorkflowJob},
    secret::Secret,
};

const TOKEN: &str = "ghp_MARKEDTOKEN";

/// Answers a request in place of the simulated GitHub.
type Fault = Box<dyn Fn(&Seen) -> Option<Answer> + Send + Sync>;

/// A simulated GitHub whose clock follows tokio's, a log of its requests, and the adapter.
struct World {
    sim: Arc<Mutex<sim::GitHub>>,
    log: Arc<Mutex<Vec<String>>>,
    fault: Arc<Mutex<Option<Fault>>>,
    start: (Timestamp, Instant),
    http: Client,
}

impl World {
    fn new(options: sim::Options) -> Self {
        let start: (Timestamp, Instant) = ("2026-01-01T12:00:00Z".parse().unwrap(), Instant::now());
        let mut github = sim::GitHub::new(options, start.0);
        github.add_user("octo");
        github.add_organization("Acme", &["octo"]);
        github.add_token(TOKEN, sim::Token::classic("octo", &["repo", "admin:org"]));
        let sim = Arc::new(Mutex::new(github));
        let log = Arc::new(Mutex::new(Vec::new()));
        let fault: Arc<Mutex<Option<Fault>>> = Arc::default();
        let (world, lines, faults) = (sim.clone(), log.clone(), fault.clone());
        let (endpoint, _) = server(move |seen| {
            let now = start.0 + start.1.elapsed();
            let ours = faults.lock().unwrap().as_ref().and_then(|fault| fault(seen));
            let answer = ours.unwrap_or_else(|| {
                let mut request = hyper::Request::builder().method(&seen.method).uri(&seen.path);
                for (name, value) in &seen.headers {
                    request = request.header(name, value);
                }
                let request = request.body(seen.body.clone()).unwrap();
                world.lock().unwrap().handle(&request, now).map(http_body_util::Full::new)
            });
            lines.lock().unwrap().push(format!("{} {} {}", seen.method, seen.path, answer.status().as_u16()));
            answer
        });
        let http = Client::new(endpoint, crate::http::Options::default()).unwrap();
        Self { sim, log, fault, start, http }
    }

    fn now(&self) -> Timestamp {
        self.start.0 + self.start.1.elapsed()
    }

    fn sim<T>(&self, change: impl FnOnce(&mut sim::GitHub, Timestamp) -> T) -> T {
        change(&mut self.sim.lock().unwrap(), self.now())
    }

    fn options(&self) -> Options {
        let start = self.start;
        Options {
            clock: Arc::new(move || start.0 + start.1.elapsed()),
            ..Options::new(api_url("http://host.test/").unwrap().join("/").unwrap())
        }
    }

    fn github(&self) -> GitHub {
        self.github_with(Auth::Token(Secret::new(TOKEN)), self.options())
    }

    fn github_with(&self, auth: Auth, options: Options) -> GitHub {
        GitHub::new(self.http.clone(), auth, options)
    }

    /// A repository with runs, each with these jobs.
    fn repository(&self, name: &str, runs: usize, jobs: usize) -> Repository {
        self.sim(|sim, now| {
            let id = sim.add_repository(name);
            for _ in 0..runs {
                let spec = sim::JobSpec::new(&["self-hosted"], Duration::from_secs(60));
                sim.queue_run(id, vec![spec; jobs], now).unwrap();
            }
            let (owner, name) = name.split_once('/').unwrap();
            Repository {
                id: crate::model::RepositoryId(id),
                owner: owner.into(),
                name: name.into(),
                html_url: format!("https://github.com/{owner}/{name}"),
                archived: false,
                disabled: false,
                visibility: crate::model::Visibility::default(),
            }
        })
    }

    /// The requests since the last call, as `METHOD path status`.
    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.log.lock().unwrap())
    }

    fn fault(&self, fault: impl Fn(&Seen) -> Option<Answer> + Send + Sync + 'static) {
        *self.fault.lock().unwrap() = Some(Box::new(fault));
    }

    fn no_fault(&self) {
        *self.fault.lock().unwrap() = None;
    }
}

fn entry(text: &str) -> RepoEntry {
    match text.split_once('/') {
        _ if text == "*" => RepoEntry::All,
        Some((owner, name)) => RepoEntry::Repository { owner: owner.into(), name: name.into() },
        None => RepoEntry::Owner(text.into()),
    }
}

fn names(repositories: &[Repository]) -> Vec<String> {
    let mut names: Vec<String> = repositories.iter().map(Repository::full_name).collect();
    names.sort();
    names
}

fn ids(jobs: &[WorkflowJob]) -> Vec<u64> {
    jobs.iter().map(|job| job.id.0).collect()
}

/// JSON with a Date header, from a server other than the simulated one.
fn dated(body: impl Into<Bytes>) -> Answer {
    answer(200, &[("date", "Thu, 01 Jan 2026 12:00:00 GMT")], body)
}

async fn sleep(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}
