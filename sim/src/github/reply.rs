//! A response without its headers.

use jiff::Timestamp;
use serde_json::{Value, json};

const DOCUMENTATION: &str = "https://docs.github.com/rest";

/// A response without its headers.
pub(super) struct Reply {
    pub status: u16,
    pub body: Option<String>,
    pub headers: Vec<(&'static str, String)>,
}

impl Reply {
    pub fn json(status: u16, body: Value) -> Reply {
        Reply::text(status, body.to_string())
    }

    /// With a body that is already JSON.
    pub fn text(status: u16, body: String) -> Reply {
        Reply { status, body: Some(body), headers: Vec::new() }
    }

    pub fn empty(status: u16) -> Reply {
        Reply { status, body: None, headers: Vec::new() }
    }

    pub fn error(status: u16, message: &str) -> Reply {
        let body =
            json!({"message": message, "documentation_url": DOCUMENTATION, "status": status.to_string()});
        Reply::json(status, body)
    }

    pub fn not_found() -> Reply {
        Reply::error(404, "Not Found")
    }

    pub fn with(mut self, name: &'static str, value: String) -> Reply {
        self.headers.push((name, value));
        self
    }
}

/// Whole seconds, in GitHub's format.
pub(super) fn time(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}
