//! The event stream, line by line (contract, section 6).

use serde_json::{Value, json};

use super::{Key, Nomad, view};

/// The topics of a subscriber.
#[derive(Debug, Clone, Default)]
pub struct Topics {
    topics: Vec<String>,
    namespace: String,
}

impl Topics {
    /// Parses the query of a stream request: `topic=Job&topic=Allocation&namespace=NS`.
    pub fn from_query(query: &str) -> Topics {
        let pairs = super::request::pairs(query);
        let namespace = pairs.iter().find(|(key, _)| key == "namespace").map(|(_, value)| value.clone());
        Topics {
            topics: pairs.into_iter().filter(|(key, _)| key == "topic").map(|(_, value)| value).collect(),
            namespace: namespace.unwrap_or_else(|| "default".into()),
        }
    }

    fn wants(&self, event: &Value) -> bool {
        let topic = event["Topic"].as_str().unwrap_or_default();
        let wanted = |want: &String| want == "*" || want.split(':').next() == Some(topic);
        let namespace = self.namespace == "*" || event["Namespace"] == self.namespace.as_str();
        (self.topics.is_empty() || self.topics.iter().any(wanted)) && namespace
    }
}

impl Nomad {
    /// The lines of the event stream from `index`, one JSON object per line, without the `{}` heartbeats. 0
    /// returns everything that is buffered. An index that is no longer buffered starts at the oldest one.
    /// Serving them is the server's task.
    pub fn events_since(&self, index: u64) -> Vec<String> {
        self.stream.iter().filter(|(at, _)| *at >= index).map(|(_, line)| line.clone()).collect()
    }

    /// The same, filtered by a subscriber's topics.
    pub fn events_for(&self, topics: &Topics, index: u64) -> Vec<String> {
        let mut lines = Vec::new();
        for (at, line) in self.stream.iter().filter(|(at, _)| *at >= index) {
            let Ok(Value::Object(frame)) = serde_json::from_str(line) else { continue };
            let events = frame.get("Events").and_then(Value::as_array).cloned().unwrap_or_default();
            let kept: Vec<Value> = events.into_iter().filter(|event| topics.wants(event)).collect();
            if !kept.is_empty() {
                lines.push(json!({"Index": at, "Events": kept}).to_string());
            }
        }
        lines
    }

    /// The last index, from which a subscriber continues.
    pub fn index(&self) -> u64 {
        self.index
    }

    fn publish(
        &mut self,
        topic: &str,
        kind: &str,
        key: &str,
        namespace: &str,
        filters: Value,
        payload: Value,
    ) {
        let index = self.index;
        let event = json!({
            "Topic": topic, "Type": kind, "Key": key, "Namespace": namespace, "FilterKeys": filters,
            "Index": index, "Payload": payload,
        });
        self.stream.push_back((index, json!({"Index": index, "Events": [event]}).to_string()));
        while self.stream.len() > self.options.event_buffer {
            self.stream.pop_front();
        }
    }

    pub(super) fn stream_job(&mut self, key: &Key, kind: &'static str) {
        if self.options.event_buffer == 0 {
            return;
        }
        let Some(job) = self.jobs.get(key) else { return };
        let mut payload = match self.options.lean {
            true => json!({}),
            false => json!({"Job": view::job(job)}),
        };
        if kind == "JobDeregistered" && !job.stop {
            payload["Deleted"] = json!(true);
        }
        self.publish("Job", kind, &key.1, &key.0, Value::Null, payload);
    }

    pub(super) fn stream_evaluation(&mut self, id: &str, kind: &'static str) {
        if self.options.event_buffer == 0 {
            return;
        }
        let Some(evaluation) = self.evaluations.get(id) else { return };
        let (namespace, job) = (evaluation.namespace.clone(), evaluation.job_id.clone());
        let payload = match self.options.lean {
            true => Value::Null,
            false => json!({"Evaluation": view::evaluation(evaluation)}),
        };
        self.publish("Evaluation", kind, id, &namespace, json!([job, ""]), payload);
    }

    pub(super) fn stream_allocation(&mut self, id: &str, kind: &'static str) {
        if self.options.event_buffer == 0 {
            return;
        }
        let Some(allocation) = self.allocations.get(id).filter(|a| !a.purged) else { return };
        let (namespace, job) = (allocation.namespace.clone(), allocation.job_id.clone());
        let payload = match self.options.lean {
            true => Value::Null,
            false => json!({"Allocation": view::allocation(allocation)}),
        };
        self.publish("Allocation", kind, id, &namespace, json!([job, ""]), payload);
    }
}
