//! Nomad's event stream, as a hint that something of ours has changed. The lists remain the source of truth
//! (contract §6).

use std::{collections::BTreeSet, time::Duration};

use serde::Deserialize;

use super::{
    api::Nomad,
    error::{Error, Right},
    wire::nullable,
};
use crate::http::{self, Lines, Request, StatusCode};

/// An accepted stream sends `{}` within milliseconds; a refused one may be silent (contract §6).
const ACCEPTED_WITHIN: Duration = Duration::from_secs(5);

/// A stream sends `{}` every 30 s. If three are missing, it is dead.
const SILENCE: Duration = Duration::from_secs(100);

/// The longest line: all events of one index, including whole jobs and allocations.
const MAX_LINE: usize = 16 * 1024 * 1024;

/// An open event stream. Dropping it closes it. Each time it is opened, the lists must be read again, because
/// events in between may be missing.
#[derive(Debug)]
pub struct Events {
    lines: Lines,
    prefix: String,
}

/// Something of ours has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// The affected jobs.
    pub jobs: BTreeSet<String>,
}

impl Nomad {
    /// Opens the event stream of our namespace. It starts with what the server still has buffered, which may be
    /// a hundred old events.
    ///
    /// # Errors
    /// [`Error::StreamRefused`] if the server refuses it; [`Error`].
    pub async fn events(&self) -> Result<Events, Error> {
        let path = "/v1/event/stream?topic=Job&topic=Allocation&topic=Evaluation";
        let mut request = Request::get(path).query("namespace", &self.options().namespace).max_body(MAX_LINE);
        if let Some(region) = &self.options().region {
            request = request.query("region", region);
        }
        let token = self.token();
        let refused = || Error::StreamRefused { namespace: self.options().namespace.clone() };
        let mut lines = match self.inner.client.lines(self.signed(request, token.as_ref())).await {
            Ok(lines) => lines,
            Err(error)
                if matches!(error.status(), Some(StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED)) =>
            {
                return Err(Error::Denied {
                    error,
                    right: Right::Capability("read-job"),
                    namespace: self.options().namespace.as_str().into(),
                    with_token: token.is_some(),
                });
            }
            Err(error) => return Err(error.into()),
        };
        match lines.next(ACCEPTED_WITHIN).await {
            Ok(Some(_)) => Ok(Events { lines, prefix: format!("{}-", self.options().prefix) }),
            Ok(None) | Err(http::Error::Timeout { .. }) => Err(refused()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Events {
    /// The next hint, or `None` if the server ended the stream. Cancel-safe.
    ///
    /// # Errors
    /// [`Error`] if the stream broke or was silent for too long; open another one.
    pub async fn next(&mut self) -> Result<Option<Hint>, Error> {
        loop {
            let Some(line) = self.lines.next(SILENCE).await? else { return Ok(None) };
            if let Some(hint) = hint_of(&line, &self.prefix) {
                return Ok(Some(hint));
            }
        }
    }
}

/// What a line of the stream says about jobs whose ID begins with `prefix`. A line in another format says
/// nothing.
pub fn hint_of(line: &[u8], prefix: &str) -> Option<Hint> {
    let frame: Frame = serde_json::from_slice(line).unwrap_or_default();
    let jobs = frame.jobs(prefix);
    (!jobs.is_empty()).then_some(Hint { jobs })
}

/// One line of the stream, without the payloads.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Frame {
    #[serde(default, deserialize_with = "nullable")]
    events: Vec<Event>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Event {
    #[serde(default, deserialize_with = "nullable")]
    topic: String,
    #[serde(default, deserialize_with = "nullable")]
    key: String,
    #[serde(default, deserialize_with = "nullable")]
    filter_keys: Vec<String>,
}

impl Frame {
    /// The affected jobs whose ID begins with `prefix`. The topic determines where the ID is, the type does not
    /// (contract §6).
    fn jobs(self, prefix: &str) -> BTreeSet<String> {
        let job = |event: Event| match event.topic.as_str() {
            "Job" => Some(event.key),
            _ => event.filter_keys.into_iter().next(),
        };
        self.events.into_iter().filter_map(job).filter(|job| job.starts_with(prefix)).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn recorded_events_name_their_job() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recordings/nomad/event-stream.json");
        let recording: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let frames: Vec<Value> = recording["response"]["frames"].as_array().unwrap().clone();
        let hints: Vec<BTreeSet<String>> = frames
            .into_iter()
            .map(|frame| serde_json::from_value::<Frame>(frame).unwrap().jobs("ghr-"))
            .collect();
        let ours = BTreeSet::from(["ghr-o-r-00000000ev".to_owned()]);
        assert!(hints[0].is_empty(), "the first frame is empty");
        assert_eq!(hints.iter().filter(|jobs| !jobs.is_empty()).count(), hints.len() - 3);
        assert!(hints.iter().all(|jobs| jobs.is_empty() || *jobs == ours), "{hints:?}");
    }

    #[test]
    fn foreign_events_are_no_hint() {
        let frame = r#"{"Index":1,"Events":[{"Topic":"Job","Key":"other"},
            {"Topic":"Allocation","Key":"ghr-not-a-job","FilterKeys":["other",""]}]}"#;
        assert!(serde_json::from_str::<Frame>(frame).unwrap().jobs("ghr-").is_empty());
    }
}
