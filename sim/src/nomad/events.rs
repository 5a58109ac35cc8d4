//! Task events, as the API shows them. The texts are those of the recordings.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Exit, gotime, gotime::Nanos, state::Task};

/// The maximum number of events of a task.
const KEPT: usize = 10;

/// An event: its type, its message, and its fields that are not empty.
pub fn event(at: Nanos, kind: &str, message: &str, details: Value, fields: &[(&str, Value)]) -> Value {
    let mut event = json!({
        "Details": details, "DiskLimit": 0, "DisplayMessage": message, "DownloadError": "", "DriverError": "",
        "DriverMessage": "", "ExitCode": 0, "FailedSibling": "", "FailsTask": false, "GenericSource": "",
        "KillError": "", "KillReason": "", "KillTimeout": 0, "Message": "", "RestartReason": "",
        "SetupError": "", "Signal": 0, "StartDelay": 0, "TaskSignal": "", "TaskSignalReason": "", "Time": at,
        "Type": kind, "ValidationError": "", "VaultError": "",
    });
    for (name, value) in fields {
        event[*name] = value.clone();
    }
    event
}

impl Task {
    /// Adds an event and drops the eleventh.
    pub(super) fn tell(&mut self, event: Value) {
        self.events.push(Arc::new(event));
        if self.events.len() > KEPT {
            self.events.remove(0);
        }
    }

    /// The client has received it.
    pub(super) fn tell_received(&mut self, at: Nanos) {
        self.tell(event(at, "Received", "Task received by client", json!({}), &[]));
    }

    /// Its directory was created.
    pub(super) fn tell_setup(&mut self, at: Nanos) {
        let message = "Building Task Directory";
        self.tell(event(
            at,
            "Task Setup",
            message,
            json!({"message": message}),
            &[("Message", json!(message))],
        ));
    }

    /// Its process runs.
    pub(super) fn tell_started(&mut self, at: Nanos) {
        self.tell(event(at, "Started", "Task started by client", json!({}), &[]));
    }

    /// A template waits for something.
    pub(super) fn tell_template(&mut self, at: Nanos, message: &str) {
        self.tell(event(at, "Template", message, json!({}), &[]));
    }

    /// It was told to end.
    pub(super) fn tell_killing(&mut self, at: Nanos, timeout: Nanos, message: Option<&str>) {
        let text = gotime::format(timeout);
        let usual = format!("Sent interrupt. Waiting {text} before force killing");
        let details = json!({"kill_timeout": text});
        self.tell(event(
            at,
            "Killing",
            message.unwrap_or(&usual),
            details,
            &[("KillTimeout", json!(timeout))],
        ));
    }

    /// Its process is gone.
    pub(super) fn tell_terminated(&mut self, at: Nanos, exit: Exit) {
        let message = match exit.signal {
            0 => format!("Exit Code: {}", exit.code),
            signal => format!("Exit Code: {}, Signal: {signal}", exit.code),
        };
        let details = json!({
            "exit_code": exit.code.to_string(),
            "signal": exit.signal.to_string(),
            "oom_killed": exit.oom.to_string(),
        });
        let fields = [("ExitCode", json!(exit.code)), ("Signal", json!(exit.signal))];
        self.tell(event(at, "Terminated", &message, details, &fields));
    }

    /// The kill was successful.
    pub(super) fn tell_killed(&mut self, at: Nanos) {
        self.tell(event(at, "Killed", "Task successfully killed", json!({}), &[]));
    }

    /// It is not restarted.
    pub(super) fn tell_not_restarting(&mut self, at: Nanos, reason: &str) {
        let details = json!({"fails_task": "true", "restart_reason": reason});
        let fields = [("FailsTask", json!(true)), ("RestartReason", json!(reason))];
        self.tell(event(at, "Not Restarting", reason, details, &fields));
    }

    /// It is restarted after a while.
    pub(super) fn tell_restarting(&mut self, at: Nanos, delay: Nanos, reason: &str) {
        let text = gotime::format(delay);
        let message = match reason {
            "" | "Restart within policy" => format!("Task restarting in {text}"),
            other => format!("{other} - Task restarting in {text}"),
        };
        let details = json!({"restart_reason": reason, "start_delay": delay.to_string()});
        let fields = [("RestartReason", json!(reason)), ("StartDelay", json!(delay))];
        self.tell(event(at, "Restarting", &message, details, &fields));
    }

    /// It could not be started.
    pub(super) fn tell_failure(&mut self, at: Nanos, kind: &str, message: &str) {
        let (detail, field) = match kind {
            "Failed Validation" => ("validation_error", "ValidationError"),
            "Setup Failure" => ("setup_error", "SetupError"),
            "Failed Artifact Download" => ("download_error", "DownloadError"),
            _ => ("driver_error", "DriverError"),
        };
        self.tell(event(at, kind, message, json!({detail: message}), &[(field, json!(message))]));
    }
}
