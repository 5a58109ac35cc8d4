//! The protocol of the stand-in runners below `/_runner/`, which is not GitHub's.
//!
//! `POST /_runner/sessions` comes online, `GET /_runner/sessions/{id}/message` polls, `DELETE
//! /_runner/sessions/{id}` disconnects. A session that is silent for too long is a vanished runner.

use std::{collections::BTreeMap, time::Duration};

use hyper::Method;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{GitHub, Leave, Refused, Registration, Timer, after, data::*, http::Ask, reply::Reply};

/// Without a request for this long, a session is dead.
const SILENCE: Duration = Duration::from_secs(30);

#[derive(Clone)]
struct Session {
    runner: u64,
    /// The job that was reported to the runner.
    told: Option<u64>,
    heard_at: Timestamp,
}

#[derive(Clone, Default)]
pub(super) struct Sessions(BTreeMap<String, Session>);

impl GitHub {
    pub(super) fn runner_protocol(&mut self, ask: &Ask) -> Reply {
        let path: Vec<&str> = ask.path.iter().skip(1).map(String::as_str).collect();
        match (ask.method, path.as_slice()) {
            (&Method::POST, ["sessions"]) => self.open_session(ask),
            (&Method::GET, ["sessions", id, "message"]) => self.message(id),
            (&Method::DELETE, ["sessions", id]) => {
                let now = self.now;
                if let Some(session) = self.sessions.0.remove(*id) {
                    self.disconnect(session.runner, Leave::Graceful, now);
                }
                Reply::empty(204)
            }
            _ => Reply::not_found(),
        }
    }

    fn open_session(&mut self, ask: &Ask) -> Reply {
        let now = self.now;
        let Ok(body) = ask.json() else { return Reply::error(400, "Problems parsing JSON") };
        let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or("").to_string();
        let flag = |name: &str| body.get(name).and_then(Value::as_bool).unwrap_or(true);
        let runner = match body.get("jitconfig").and_then(Value::as_str) {
            Some(encoded) => self.connect_jit(encoded, now),
            None => {
                let labels =
                    body.get("labels").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                let registration = Registration {
                    token: text("token"),
                    url: text("url"),
                    name: text("name"),
                    labels: labels.iter().filter_map(Value::as_str).map(str::to_string).collect(),
                    default_labels: flag("default_labels"),
                    ephemeral: flag("ephemeral"),
                    replace: true,
                };
                self.register(&registration, now)
                    .and_then(|runner| self.come_online(runner, now).map(|()| runner))
            }
        };
        let runner = match runner {
            Ok(runner) => runner,
            Err(refused) => return Reply::error(status(refused), &refused.to_string()),
        };
        let id = self.random_text(24);
        self.sessions.0.insert(id.clone(), Session { runner, told: None, heard_at: now });
        self.timers.insert((after(now, SILENCE), Timer::Silence { runner }));
        let name = self.runners.get(&runner).map(|runner| runner.name.clone());
        Reply::json(201, json!({"id": id, "runner": name}))
    }

    /// A message for a runner: a job, the end of its job, or nothing (204). 410 if it has been removed.
    fn message(&mut self, id: &str) -> Reply {
        let now = self.now;
        let Some(session) = self.sessions.0.get_mut(id) else {
            return Reply::error(410, &Refused::Deleted.to_string());
        };
        session.heard_at = now;
        let (runner, told) = (session.runner, session.told);
        let registered = self.runners.contains_key(&runner);
        if let Some(job) = told {
            return match self.jobs.get(&job) {
                Some(job) if job.status == Status::InProgress => Reply::empty(204),
                job => {
                    let result = job.and_then(|job| job.conclusion).unwrap_or(Conclusion::Failure);
                    let name = job.map(|job| job.name.clone());
                    if let Some(session) = self.sessions.0.get_mut(id) {
                        session.told = None;
                    }
                    if !registered {
                        self.sessions.0.remove(id);
                    }
                    let more = registered;
                    Reply::json(
                        200,
                        json!({"kind": "done", "name": name, "result": result.printed(), "more": more}),
                    )
                }
            };
        }
        // A job may have started and ended since the last request.
        let job = self.running_job(runner).map(|job| job.id).or_else(|| {
            let of = |job: &&Job| job.runner.as_ref().is_some_and(|own| own.id == runner);
            (!registered).then(|| self.jobs.values().rev().find(of).map(|job| job.id)).flatten()
        });
        match job.and_then(|job| self.jobs.get(&job)) {
            Some(job) => {
                let (job, name) = (job.id, job.name.clone());
                if let Some(session) = self.sessions.0.get_mut(id) {
                    session.told = Some(job);
                }
                Reply::json(200, json!({"kind": "job", "name": name}))
            }
            None if registered => Reply::empty(204),
            None => {
                self.sessions.0.remove(id);
                Reply::error(410, &Refused::Deleted.to_string())
            }
        }
    }

    /// Ends a runner's session if it has been silent for too long.
    pub(super) fn check_silence(&mut self, runner: u64, now: Timestamp) {
        let Some((id, heard_at)) = self
            .sessions
            .0
            .iter()
            .find(|(_, session)| session.runner == runner)
            .map(|(id, session)| (id.clone(), session.heard_at))
        else {
            return;
        };
        if after(heard_at, SILENCE) <= now {
            self.sessions.0.remove(&id);
            self.disconnect(runner, Leave::Vanished, now);
        } else {
            self.timers.insert((after(heard_at, SILENCE), Timer::Silence { runner }));
        }
    }
}

fn status(refused: Refused) -> u16 {
    match refused {
        Refused::BadConfiguration => 400,
        Refused::Used | Refused::Expired | Refused::BadToken => 401,
        Refused::Deleted | Refused::NotFound => 404,
        Refused::NameTaken | Refused::Conflict => 409,
    }
}
