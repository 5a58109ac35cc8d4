//! Servers that echo what they know, and a record of all requests and responses.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use githubrunner_sim::fault::{Fault, Side, Verdict};
use hyper::{Method, Request, Response};
use jiff::Timestamp;
use serde_json::Value;

/// The kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// This status, with a body that echoes everything.
    Status(u16),
    /// The same with 200, but not JSON.
    Garbage,
    /// The same as JSON, with texts in place of other types.
    Wrong,
    /// The connection ends without a response.
    Reset,
}

impl Kind {
    pub const ALL: [Kind; 9] = [
        Kind::Status(500),
        Kind::Status(502),
        Kind::Status(403),
        Kind::Status(404),
        Kind::Status(409),
        Kind::Status(422),
        Kind::Garbage,
        Kind::Wrong,
        Kind::Reset,
    ];
}

/// The affected requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// None.
    Nothing,
    /// Those that request or store a secret; they have no effect.
    Secrets,
    /// All writes; they took effect.
    Effects,
    /// All.
    Everything,
}

/// The secrets seen so far, and what was sent.
#[derive(Default)]
pub struct Known {
    secrets: BTreeSet<String>,
    /// The kinds of secrets seen.
    pub kinds: BTreeSet<&'static str>,
    /// How many requests failed.
    pub met: usize,
    /// Method, URL and body of each distinct request, without headers and except for those that store a job's
    /// variable.
    pub sent: BTreeMap<String, String>,
    /// Jobs, Submissions and allocations, unchanged.
    pub in_nomad: BTreeMap<String, String>,
}

impl Known {
    pub fn with(secrets: &[String]) -> Known {
        let mut known = Known::default();
        for secret in secrets {
            known.add("given", secret);
        }
        known
    }

    fn add(&mut self, kind: &'static str, secret: &str) {
        // A key has many lines, and each of them must be hidden.
        for line in secret.lines().filter(|line| line.len() >= 16 && !line.contains("-----")) {
            self.kinds.insert(kind);
            self.secrets.insert(line.to_owned());
            self.secrets.insert(STANDARD.encode(line));
        }
    }

    /// A secret found in a text, except for excused ones, with its surroundings.
    pub fn found_in(&self, text: &str, excused: &[&str]) -> Option<String> {
        let secrets = self.secrets.iter().filter(|secret| !excused.contains(&secret.as_str()));
        let at = secrets.filter_map(|secret| text.find(secret.as_str())).min()?;
        let from = (0..=at.saturating_sub(300)).rev().find(|from| text.is_char_boundary(*from))?;
        Some(text[from..].chars().take(600).collect())
    }

    fn learn_request(&mut self, side: Side, request: &Request<Bytes>) {
        for (header, kind) in [("authorization", "authorization"), ("x-nomad-token", "given")] {
            let Some(value) = request.headers().get(header).and_then(|value| value.to_str().ok()) else {
                continue;
            };
            let secret = value.split_once(' ').map_or(value, |(_, secret)| secret);
            // The last part is what makes it a JWT.
            let kind = if secret.matches('.').count() == 2 { "jwt" } else { kind };
            self.add(kind, secret);
        }
        let path = request.uri().path();
        if side == Side::Nomad && path.starts_with("/v1/var/nomad/jobs/") {
            self.kinds.insert("variable");
            return;
        }
        let place = format!("{side:?} {} {}", request.method(), request.uri());
        self.sent.insert(place, String::from_utf8_lossy(request.body()).into_owned());
    }

    fn learn_answer(&mut self, request: &Request<Bytes>, answer: &Response<Bytes>) {
        let Ok(body) = serde_json::from_slice::<Value>(answer.body()) else { return };
        let path = request.uri().path();
        if path.starts_with("/v1/job") || path == "/v1/allocations" {
            self.learn_nomad(path, &body);
        }
        if let Some(encoded) = body["encoded_jit_config"].as_str() {
            self.add("jit", encoded);
            let json = |text: &str| {
                STANDARD.decode(text).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
            };
            let outer = json(encoded).unwrap();
            let inner = |part: &str| json(outer[part].as_str().unwrap()).unwrap();
            self.add("jit", inner(".credentials")["Data"]["ClientId"].as_str().unwrap());
            self.add("jit", inner(".credentials_rsaparams")["modulus"].as_str().unwrap());
        }
        if let Some(token) = body["token"].as_str() {
            let installation = path.ends_with("/access_tokens");
            self.add(if installation { "installation" } else { "registration" }, token);
        }
    }

    fn learn_nomad(&mut self, path: &str, body: &Value) {
        let kind = if path == "/v1/allocations" { "allocation" } else { "job" };
        self.in_nomad.insert(format!("{kind} {path}"), body.to_string());
    }
}

/// The fault.
pub struct Echo {
    known: Arc<Mutex<Known>>,
    what: What,
    kind: Kind,
}

impl Echo {
    pub fn new(known: Arc<Mutex<Known>>, what: What, kind: Kind) -> Echo {
        Echo { known, what, kind }
    }

    fn verdict(&self, request: &Request<Bytes>, answer: Option<&Response<Bytes>>) -> Verdict {
        let mut known = self.known.lock().unwrap();
        known.met += 1;
        let told =
            answer.map(|answer| String::from_utf8_lossy(answer.body()).into_owned()).unwrap_or_default();
        drop(known);
        // Everything that this server knows about this exchange, plain and encoded.
        let header =
            |name| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (github, nomad) = (header("authorization"), header("x-nomad-token"));
        let bare = github.split_once(' ').map_or("", |(_, secret)| secret);
        let encoded = [bare, nomad].map(|secret| STANDARD.encode(secret)).join(" ");
        let body = String::from_utf8_lossy(request.body());
        let echo = format!("{told} {github} {nomad} {encoded} {body}");
        match self.kind {
            Kind::Reset => Verdict::Reset,
            Kind::Status(status) => Verdict::status(status, &echo),
            Kind::Garbage => Verdict::status(200, &echo),
            Kind::Wrong => Verdict::status(200, &Value::String(echo).to_string()),
        }
    }
}

impl Fault for Echo {
    fn before(&mut self, side: Side, request: &Request<Bytes>, _: Timestamp) -> Verdict {
        if is_runner(request) {
            return Verdict::Pass;
        }
        self.known.lock().unwrap().learn_request(side, request);
        let hit = match self.what {
            What::Nothing | What::Effects => false,
            What::Everything => true,
            What::Secrets => is_secret(request),
        };
        if hit { self.verdict(request, None) } else { Verdict::Pass }
    }

    fn after(
        &mut self,
        _: Side,
        request: &Request<Bytes>,
        answer: &mut Response<Bytes>,
        _: Timestamp,
    ) -> Verdict {
        if is_runner(request) {
            return Verdict::Pass;
        }
        self.known.lock().unwrap().learn_answer(request, answer);
        let effect = request.method() != Method::GET && !request.uri().path().ends_with("/parse");
        if self.what == What::Effects && effect { self.verdict(request, Some(answer)) } else { Verdict::Pass }
    }
}

/// The runner's own requests.
fn is_runner(request: &Request<Bytes>) -> bool {
    request.uri().path().starts_with("/_runner/")
}

fn is_secret(request: &Request<Bytes>) -> bool {
    let path = request.uri().path();
    path.ends_with("/generate-jitconfig")
        || path.ends_with("-token")
        || path.ends_with("/access_tokens")
        || path.contains("/v1/var/")
        || path.contains("/v1/jobs")
}

/// A key in PEM form from its DER.
pub fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
