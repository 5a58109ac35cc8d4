//! Webhooks (contract §5, §8): their settings, their deliveries, and the log of deliveries.
//!
//! A delivery is created when its event happens. It waits as a [`Parcel`] until a carrier takes it, which reports the
//! result to [`GitHub::delivered`]. Nothing is redelivered automatically.

use std::collections::VecDeque;

use hyper::Method;
use jiff::Timestamp;
use rand::RngExt;
use ring::hmac;
use serde_json::{Value, json};

use super::{
    GitHub, after,
    auth::Who,
    data::number,
    http::Ask,
    reply::{Reply, time},
    token::Level,
};
use crate::{github::data::Detail, keep};

/// The maximum number of deliveries in a webhook's log (GitHub: those of 3 days).
const LONGEST_LOG: usize = 2_000;

/// The maximum number of waiting parcels.
const MOST_PARCELS: usize = 10_000;

/// GitHub's limit for one event at one place.
const MOST_HOOKS: usize = 20;

/// The owner of a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HookPlace {
    /// A repository.
    Repository(u64),
    /// An organization, for all its repositories.
    Organization(u64),
    /// An App, for everything where it is installed.
    App(u64),
}

/// A webhook.
#[derive(Clone)]
pub struct Hook {
    /// Numeric ID.
    pub id: u64,
    /// Its owner.
    pub place: HookPlace,
    /// Its target URL.
    pub url: String,
    /// The signing secret; empty: deliveries are not signed.
    pub secret: String,
    /// Sends a form instead of JSON.
    pub form: bool,
    /// The subscribed events; `*` for all.
    pub events: Vec<String>,
    /// Whether it delivers.
    pub active: bool,
    created_at: Timestamp,
    updated_at: Timestamp,
    log: VecDeque<Delivery>,
}

/// A delivery in the log.
#[derive(Clone)]
struct Delivery {
    id: u64,
    guid: String,
    at: Timestamp,
    redelivery: bool,
    event: &'static str,
    action: Option<String>,
    repository: Option<u64>,
    installation: Option<u64>,
    body: String,
    /// The status of the response; `None` if there is none.
    status: Option<u16>,
}

/// A delivery on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// The ID of the delivery.
    pub delivery: u64,
    /// The target URL.
    pub url: String,
    /// X-GitHub-Event.
    pub event: String,
    /// X-GitHub-Delivery.
    pub guid: String,
    /// X-Hub-Signature-256, if the webhook has a secret.
    pub signature: Option<String>,
    /// Content-Type.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
}

impl Hook {
    /// The status of the response to its last delivery.
    pub fn last_answer(&self) -> Option<u16> {
        self.log.back()?.status
    }

    fn wants(&self, event: &str) -> bool {
        self.active && self.events.iter().any(|wanted| wanted == event || wanted == "*")
    }

    fn json(&self, path: &str) -> Value {
        let mut config = json!({
            "content_type": if self.form { "form" } else { "json" }, "insecure_ssl": "0", "url": self.url,
        });
        if !self.secret.is_empty() {
            config["secret"] = json!("********");
        }
        let url = format!("{path}/{}", self.id);
        let mut hook = json!({
            "type": "Organization", "id": self.id, "name": "web", "active": self.active, "events": self.events,
            "config": config, "updated_at": time(self.updated_at), "created_at": time(self.created_at), "url": url,
            "ping_url": format!("{url}/pings"), "deliveries_url": format!("{url}/deliveries"),
        });
        if matches!(self.place, HookPlace::Repository(_)) {
            hook["type"] = json!("Repository");
            hook["test_url"] = json!(format!("{url}/test"));
            let last = self.last_answer();
            let status = if last.is_some() { "active" } else { "unused" };
            hook["last_response"] = json!({"code": last, "status": status, "message": null});
        }
        hook
    }
}

impl Delivery {
    fn json(&self) -> Value {
        let status = match self.status {
            None | Some(0) => "failed to connect to host".to_string(),
            Some(200..=299) => "OK".to_string(),
            Some(code) => format!("Invalid HTTP Response: {code}"),
        };
        json!({
            "id": self.id, "guid": self.guid, "delivered_at": time(self.at), "redelivery": self.redelivery,
            "duration": 0.27, "status": status, "status_code": self.status.unwrap_or(0), "event": self.event,
            "action": self.action, "installation_id": self.installation, "repository_id": self.repository,
            "throttled_at": null,
        })
    }
}

impl GitHub {
    /// Creates a webhook for job events, without a ping. An App has one webhook, created in its settings.
    pub fn make_hook(&mut self, place: HookPlace, url: &str, secret: &str) -> u64 {
        let events = vec!["workflow_job".to_string()];
        self.add_hook(place, url, secret, false, events, true)
    }

    /// All hooks.
    pub fn hooks(&self) -> impl Iterator<Item = &Hook> {
        self.hooks.values()
    }

    /// The deliveries that are waiting for a carrier.
    pub fn take_parcels(&mut self) -> Vec<Parcel> {
        self.parcels.drain(..).collect()
    }

    /// Whether any delivery is waiting for a carrier.
    pub fn has_parcels(&self) -> bool {
        !self.parcels.is_empty()
    }

    /// A delivery got a response with this status, or none.
    pub fn delivered(&mut self, delivery: u64, status: Option<u16>) {
        let mut all = self.hooks.values_mut().flat_map(|hook| hook.log.iter_mut().rev());
        if let Some(known) = all.find(|known| known.id == delivery) {
            known.status = status.or(Some(0));
        }
    }

    /// A job event: each webhook that covers the repository delivers it.
    pub(super) fn deliver_job(&mut self, job: u64, action: &'static str) {
        if self.hooks.is_empty() {
            return;
        }
        let Some(repository) = self.jobs.get(&job).and_then(|job| self.repositories.get(&job.repository))
        else {
            return;
        };
        let (id, owner) = (repository.id, repository.owner);
        let covering: Vec<(u64, Option<u64>)> =
            self.hooks
                .values()
                .filter(|hook| hook.wants("workflow_job"))
                .filter_map(|hook| match hook.place {
                    HookPlace::Repository(of) => (of == id).then_some((hook.id, None)),
                    HookPlace::Organization(of) => (of == owner).then_some((hook.id, None)),
                    HookPlace::App(app) => {
                        let mut installed = self.installations.values().filter(|one| {
                            one.app == app && one.account == owner && one.suspended_at.is_none()
                        });
                        let covers = installed.find(|one| one.repositories.contains(id));
                        covers.map(|installation| (hook.id, Some(installation.id)))
                    }
                })
                .collect();
        if covering.is_empty() {
            return;
        }
        let base = format!("{}://api.github.com{}", self.options.scheme, self.options.path_prefix);
        let Some(body) = self.workflow_job_event(job, action, &base) else { return };
        for (hook, installation) in covering {
            let mut body = body.clone();
            if let Some(installation) = installation {
                body["installation"] = json!({"id": installation, "node_id": "MDIzOkludGVncmF0aW9u"});
            }
            let made = (Some(id), installation, body.to_string());
            self.deliver(hook, "workflow_job", Some(action.to_string()), made);
        }
    }

    fn deliver(
        &mut self,
        hook: u64,
        event: &'static str,
        action: Option<String>,
        (repository, installation, body): (Option<u64>, Option<u64>, String),
    ) {
        let id = self.new_id();
        let guid = self.guid();
        let at = self.now;
        let redelivery = false;
        let delivery = Delivery {
            id,
            guid,
            at,
            redelivery,
            event,
            action,
            repository,
            installation,
            body,
            status: None,
        };
        self.post(hook, delivery);
    }

    /// Logs a delivery and queues it for a carrier.
    fn post(&mut self, hook: u64, delivery: Delivery) {
        let Some(hook) = self.hooks.get_mut(&hook) else { return };
        let (content_type, body) = if hook.form {
            let form = url::form_urlencoded::Serializer::new(String::new())
                .append_pair("payload", &delivery.body)
                .finish();
            ("application/x-www-form-urlencoded", form)
        } else {
            ("application/json", delivery.body.clone())
        };
        let signature = (!hook.secret.is_empty()).then(|| sign(&hook.secret, body.as_bytes()));
        let parcel = Parcel {
            delivery: delivery.id,
            url: hook.url.clone(),
            event: delivery.event.to_string(),
            guid: delivery.guid.clone(),
            signature,
            content_type,
            body,
        };
        keep(&mut hook.log, LONGEST_LOG, delivery);
        keep(&mut self.parcels, MOST_PARCELS, parcel);
    }

    fn guid(&mut self) -> String {
        let random: u128 = self.rng.random();
        let hex = format!("{random:032x}");
        [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
    }

    fn add_hook(
        &mut self,
        place: HookPlace,
        url: &str,
        secret: &str,
        form: bool,
        events: Vec<String>,
        active: bool,
    ) -> u64 {
        let id = self.new_id();
        let now = self.now;
        let hook = Hook {
            id,
            place,
            url: url.to_string(),
            secret: secret.to_string(),
            form,
            events,
            active,
            created_at: now,
            updated_at: now,
            log: VecDeque::new(),
        };
        self.hooks.insert(id, hook);
        id
    }

    /// The routes below `…/hooks`, for those who may administer them. `path` is their address.
    pub(super) fn hooks_route(&mut self, ask: &Ask, place: HookPlace, path: &str, rest: &[&str]) -> Reply {
        let get = ask.method == Method::GET;
        match rest {
            [] if get => {
                let hooks = self.hooks.values().filter(|hook| hook.place == place).collect();
                let (hooks, link) =
                    super::page::cut(ask, path.trim_start_matches(&ask.base), hooks, usize::MAX);
                let hooks = hooks.into_iter().map(|hook| hook.json(path)).collect();
                Reply::json(200, Value::Array(hooks)).linked(link)
            }
            [] if ask.method == Method::POST => self.create_hook(ask, place, path),
            [id, rest @ ..] => {
                let known = number(id).and_then(|id| self.hooks.get(&id));
                let Some(hook) = known.filter(|hook| hook.place == place) else { return Reply::not_found() };
                let id = hook.id;
                match rest {
                    [] if get => Reply::json(200, hook.json(path)),
                    [] if ask.method == Method::PATCH => self.change_hook(ask, id, path),
                    [] if ask.method == Method::DELETE => {
                        self.hooks.remove(&id);
                        Reply::empty(204)
                    }
                    ["pings"] if ask.method == Method::POST => {
                        self.ping(id, path);
                        Reply::empty(204)
                    }
                    ["deliveries", rest @ ..] => {
                        self.deliveries_route(ask, id, &format!("{path}/{id}/deliveries"), rest)
                    }
                    _ => Reply::not_found(),
                }
            }
            _ => Reply::not_found(),
        }
    }

    /// The routes below `/app/hook`.
    pub(super) fn app_hook_route(&mut self, ask: &Ask, app: u64, rest: &[&str]) -> Reply {
        let known = self.hooks.values().find(|hook| hook.place == HookPlace::App(app));
        let Some(hook) = known else { return Reply::not_found() };
        let id = hook.id;
        match rest {
            ["config"] if ask.method == Method::GET => Reply::json(200, hook.json("")["config"].clone()),
            ["deliveries", rest @ ..] => {
                self.deliveries_route(ask, id, &format!("{}/app/hook/deliveries", ask.base), rest)
            }
            _ => Reply::not_found(),
        }
    }

    fn create_hook(&mut self, ask: &Ask, place: HookPlace, path: &str) -> Reply {
        let Ok(body) = ask.json() else { return Reply::error(400, "Problems parsing JSON") };
        let named = matches!(place, HookPlace::Repository(_)) && body["name"].is_null();
        if body["name"] != "web" && !named {
            return Reply::error(422, "Validation Failed: name must be \"web\"");
        }
        let Some(url) = body["config"]["url"].as_str().filter(|url| url.starts_with("http")) else {
            return Reply::error(422, "Validation Failed: url is missing its scheme");
        };
        let text = |key: &str| body["config"][key].as_str().unwrap_or_default().to_string();
        let events = events(&body["events"]).unwrap_or_else(|| vec!["push".to_string()]);
        let here = || self.hooks.values().filter(|hook| hook.place == place);
        let whose = if matches!(place, HookPlace::Repository(_)) { "repository" } else { "organization" };
        if here().any(|hook| hook.url == url && hook.events.iter().any(|event| events.contains(event))) {
            return invalid(&format!("Hook already exists on this {whose}"));
        }
        if here().count() >= MOST_HOOKS {
            return invalid(&format!("The \"{}\" event cannot have more than {MOST_HOOKS} hooks", events[0]));
        }
        let (secret, form) = (text("secret"), text("content_type") != "json");
        let active = body["active"].as_bool().unwrap_or(true);
        let id = self.add_hook(place, url, &secret, form, events, active);
        if active {
            self.ping(id, path);
        }
        Reply::json(201, self.hooks.get(&id).map(|hook| hook.json(path)).unwrap_or_default())
    }

    fn change_hook(&mut self, ask: &Ask, id: u64, path: &str) -> Reply {
        let Ok(body) = ask.json() else { return Reply::error(400, "Problems parsing JSON") };
        let now = self.now;
        let Some(hook) = self.hooks.get_mut(&id) else { return Reply::not_found() };
        if let Some(config) = body["config"].as_object() {
            // A new configuration replaces the previous one completely. An omitted secret is removed.
            let text = |key: &str| config.get(key).and_then(Value::as_str).unwrap_or_default();
            hook.url = text("url").to_string();
            hook.secret = text("secret").to_string();
            hook.form = text("content_type") != "json";
        }
        hook.events = events(&body["events"]).unwrap_or_else(|| std::mem::take(&mut hook.events));
        hook.active = body["active"].as_bool().unwrap_or(hook.active);
        hook.updated_at = now;
        Reply::json(200, hook.json(path))
    }

    fn ping(&mut self, id: u64, path: &str) {
        let Some(hook) = self.hooks.get(&id) else { return };
        let mut body = json!({"zen": "Design for failure.", "hook_id": id, "hook": hook.json(path)});
        let mut repository = None;
        match hook.place {
            HookPlace::Repository(of) => {
                let base = path.split("/repos/").next().unwrap_or_default().to_string();
                repository = Some(of);
                body["repository"] = self.repository_json(of, &base, Detail::Short).unwrap_or_default();
                if let Some(shown) = body["repository"].as_object_mut() {
                    shown.shift_remove("permissions");
                    shown.shift_remove("has_discussions");
                    shown.insert("custom_properties".to_string(), json!({}));
                }
                let owner = self.repositories.get(&of).map_or(0, |repository| repository.owner);
                body["sender"] = self.user_json(owner, &base, Detail::Short);
            }
            HookPlace::Organization(of) => {
                let base = path.split("/orgs/").next().unwrap_or_default();
                body["organization"] = self.short_organization_json(of, base);
                body["sender"] = self.user_json(of, base, Detail::Short);
            }
            HookPlace::App(_) => {}
        }
        self.deliver(id, "ping", None, (repository, None, body.to_string()));
    }

    fn deliveries_route(&mut self, ask: &Ask, hook: u64, path: &str, rest: &[&str]) -> Reply {
        let (get, now) = (ask.method == Method::GET, self.now);
        let lag = self.options.delivery_lag;
        let Some(known) = self.hooks.get(&hook) else { return Reply::not_found() };
        let visible = |delivery: &&Delivery| after(delivery.at, lag) <= now;
        let of = |id: &str| number(id).and_then(|id| known.log.iter().find(|one| one.id == id));
        match rest {
            [] if get => {
                let size = ask.parameter("per_page").and_then(|size| size.parse().ok()).unwrap_or(30usize);
                let size = size.clamp(1, 100);
                // The cursor names the first delivery of the page. Clients must not interpret it.
                let from = match ask.parameter("cursor").map(|text| text.strip_prefix("v1_")) {
                    None => u64::MAX,
                    Some(cursor) => match cursor.and_then(number) {
                        Some(id) => id,
                        None => return Reply::error(422, "Invalid cursor"),
                    },
                };
                let newest_first = known.log.iter().rev().filter(visible).filter(|one| one.id <= from);
                let listed: Vec<&Delivery> = newest_first.take(size + 1).collect();
                let next = listed
                    .get(size)
                    .map(|one| format!("<{path}?per_page={size}&cursor=v1_{}>; rel=\"next\"", one.id));
                let page = listed.iter().take(size).map(|one| one.json()).collect();
                Reply::json(200, Value::Array(page)).linked(next)
            }
            [id] if get => match of(id) {
                Some(delivery) => {
                    let mut shown = delivery.json();
                    let payload: Value = serde_json::from_str(&delivery.body).unwrap_or_default();
                    shown["request"] = json!({"headers": {}, "payload": payload});
                    shown["response"] = json!({"headers": {}, "payload": ""});
                    Reply::json(200, shown)
                }
                None => Reply::not_found(),
            },
            [id, "attempts"] if ask.method == Method::POST => match of(id).cloned() {
                Some(delivery) => {
                    let id = self.new_id();
                    let again = Delivery { id, at: now, redelivery: true, status: None, ..delivery };
                    self.post(hook, again);
                    Reply::json(202, json!({}))
                }
                None => Reply::not_found(),
            },
            _ => Reply::not_found(),
        }
    }

    /// Whether the sender may administer the webhooks there. Otherwise they do not exist (404).
    pub(super) fn may_hook(&self, who: &Who, place: HookPlace, level: Level) -> bool {
        match place {
            HookPlace::Repository(id) => self
                .repositories
                .get(&id)
                .is_some_and(|repository| self.may_here(who, repository, "repository_hooks", level)),
            HookPlace::Organization(id) => self
                .owners
                .get(&id)
                .is_some_and(|owner| self.may_there(who, owner, "organization_hooks", level)),
            HookPlace::App(app) => matches!(who, Who::App(id) if *id == app),
        }
    }
}

fn events(value: &Value) -> Option<Vec<String>> {
    let events = value.as_array()?.iter().filter_map(|event| Some(event.as_str()?.to_string()));
    Some(events.collect()).filter(|events: &Vec<String>| !events.is_empty())
}

fn invalid(message: &str) -> Reply {
    let body = json!({
        "message": "Validation Failed",
        "errors": [{"resource": "Hook", "code": "custom", "message": message}],
        "documentation_url": "https://docs.github.com/rest/webhooks",
    });
    Reply::json(422, body)
}

/// The X-Hub-Signature-256 of a body.
pub fn sign(secret: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let hex: String = hmac::sign(&key, body).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={hex}")
}
