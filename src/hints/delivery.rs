//! A webhook delivery: its signature and its content (contract github.md §5).

use std::borrow::Cow;

use ring::hmac;
use serde::Deserialize;

use crate::model::{RepositoryId, is_login, is_repository_name};

/// The longest ID of a delivery. GitHub's have 36 characters.
pub const LONGEST_GUID: usize = 64;

/// The ID of a delivery. A redelivery has the same ID.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Guid(Box<str>);

impl Guid {
    /// Parses an ID from `X-GitHub-Delivery` or the delivery log.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = !text.is_empty()
            && text.len() <= LONGEST_GUID
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        fits.then(|| Guid(text.into()))
    }
}

/// The content of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// The webhook was created or is being tested.
    Ping,
    /// Something about a job.
    Job(JobEvent),
    /// An event that we have not subscribed to.
    Other,
}

/// What happened to a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct JobEvent {
    pub repository: RepositoryId,
    pub full_name: String,
    /// It is waiting for something other than a runner: an approval, a deployment.
    pub held: bool,
    pub labels: Vec<String>,
    pub runner: Option<String>,
}

/// Whether the body has this signature, `sha256=HEX`. Compared in constant time.
pub(super) fn is_signed(key: &hmac::Key, signature: Option<&str>, body: &[u8]) -> bool {
    let Some(hex) = signature.and_then(|text| text.strip_prefix("sha256=")) else { return false };
    unhex(hex).is_some_and(|mac| hmac::verify(key, body, &mac).is_ok())
}

/// 32 bytes from 64 hexadecimal digits.
fn unhex(text: &str) -> Option<[u8; 32]> {
    let (mut bytes, text) = ([0; 32], text.as_bytes());
    if text.len() != 64 {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Parses a signed delivery. `form` says whether its body is a form with the JSON in `payload`.
///
/// # Errors
/// It is not valid as a delivery from GitHub.
pub(super) fn read(event: &str, form: bool, body: &[u8]) -> Result<Said, String> {
    match event {
        "ping" => return Ok(Said::Ping),
        "workflow_job" => {}
        _ => return Ok(Said::Other),
    }
    let json: Cow<[u8]> = if form {
        let payload = url::form_urlencoded::parse(body).find(|(key, _)| key == "payload");
        match payload {
            Some((_, Cow::Borrowed(text))) => Cow::Borrowed(text.as_bytes()),
            Some((_, Cow::Owned(text))) => Cow::Owned(text.into_bytes()),
            None => return Err("the form has no payload".to_owned()),
        }
    } else {
        Cow::Borrowed(body)
    };
    let payload: Payload = serde_json::from_slice(&json).map_err(|error| format!("its JSON: {error}"))?;
    let Payload { action, workflow_job: job, repository } = payload;
    let held = match (action.as_str(), job.status.as_deref()) {
        ("waiting", _) | (_, Some("waiting" | "pending" | "requested")) => true,
        ("queued" | "in_progress" | "completed", _) => false,
        _ => return Ok(Said::Other),
    };
    let is_name = |(owner, name)| is_login(owner) && is_repository_name(name);
    if !repository.full_name.split_once('/').is_some_and(is_name) {
        return Err("its repository's name is not valid at GitHub".to_owned());
    }
    Ok(Said::Job(JobEvent {
        repository: RepositoryId(repository.id),
        full_name: repository.full_name,
        held,
        labels: job.labels,
        runner: job.runner_name,
    }))
}

#[derive(Deserialize)]
struct Payload {
    action: String,
    workflow_job: Job,
    repository: Named,
}

#[derive(Deserialize)]
struct Job {
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    labels: Vec<String>,
    #[serde(default)]
    runner_name: Option<String>,
}

#[derive(Deserialize)]
struct Named {
    id: u64,
    full_name: String,
}
