//! The log line of an action, written when it ends.

use std::time::Duration;

use crate::model::{Action, Report, StopReason};

/// Logs the outcome of an action. The message is for people; the fields are for queries over the JSON format.
pub(super) fn say(report: &Report, took: Duration) {
    let Report { action, outcome } = report;
    let (kind, runner, result) = (action.kind(), action.runner(), outcome.kind());
    let repository = action.repository();
    let (job, attempt) = match action {
        Action::Start(start) => (start.purpose.job_id().map(|id| id.0), Some(start.attempt)),
        _ => (None, None),
    };
    let error = outcome.error();
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    // The level of an event must be a constant.
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                action = kind,
                runner,
                repository,
                job,
                attempt,
                outcome = result,
                error,
                took_ms,
                "{action}: {outcome}"
            )
        };
    }
    // A job ends with its runner, and someone will want to know why.
    let ends_a_job =
        matches!(action, Action::Stop(stop) if matches!(stop.reason, StopReason::MaxRunDuration { .. }));
    match (outcome.is_failure(), ends_a_job) {
        (true, _) => line!(error),
        (false, true) => line!(warn),
        (false, false) => line!(info),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use serde_json::{Value, json};
    use tracing_subscriber::fmt;

    use super::*;
    use crate::{model::VerifyRegistration, text::TextFields};

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Log {
        fn taken(&self) -> String {
            String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
        }
    }

    #[test]
    fn json_lines_have_fields_and_text_lines_do_not_repeat_them() {
        let verify_registration = VerifyRegistration {
            name: "runner1".to_owned(),
            repository: crate::model::Repository {
                id: crate::model::RepositoryId(7),
                owner: "acme".to_owned(),
                name: "app".to_owned(),
                html_url: "https://github.com/acme/app".to_owned(),
                archived: false,
                disabled: false,
                visibility: crate::model::Visibility::default(),
            },
            class: None,
        };
        let report = Report {
            action: Action::VerifyRegistration(verify_registration),
            outcome: crate::model::Outcome::NotDone(crate::model::NotDone::Failed("status 500".to_owned())),
        };
        let log = Log::default();
        let say = || say(&report, Duration::from_millis(1234));
        let writer = || {
            let log = log.clone();
            move || log.clone()
        };
        tracing::subscriber::with_default(fmt().json().with_writer(writer()).finish(), say);
        let line: Value = serde_json::from_str(&log.taken()).unwrap();
        assert_eq!(line["level"], "ERROR");
        let message = line["fields"]["message"].as_str().unwrap().to_owned();
        let fields = json!({
            "message": message, "action": "verify_registration", "runner": "runner1", "repository": "acme/app",
            "outcome": "failed", "error": "status 500", "took_ms": 1234,
        });
        assert_eq!(line["fields"], fields);

        let text = fmt().fmt_fields(TextFields).with_ansi(false).with_target(false).with_writer(writer());
        tracing::subscriber::with_default(text.without_time().finish(), || {
            say();
            tracing::info!(holder = "host", "acquired");
        });
        assert_eq!(log.taken(), format!("ERROR {message} took_ms=1234\n INFO acquired holder=\"host\"\n"));
    }
}
