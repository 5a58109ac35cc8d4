//! A headless Chromium, controlled over its debugging pipe.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use base64::Engine;
use serde_json::{Value, json};

/// Its possible names.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// The longest wait for anything; it starts within a second or two on an idle machine.
const WITHIN: Duration = Duration::from_secs(60);

/// Connects the debugging pipe's descriptors to its standard input and output.
const SCRIPT: &str = "exec \"$@\" 3<&0 4>&1 0</dev/null 1>/dev/null 2>/dev/null";

/// What a browser observed of a page.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Exceptions, and the contents of its console and log.
    pub complaints: Vec<String>,
    /// Its requests.
    pub requests: Vec<String>,
}

/// A browser with one page.
pub struct Browser {
    process: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    number: u64,
    session: Option<String>,
    seen: Seen,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts a browser. Without one, prints a message.
    pub fn start() -> Option<Browser> {
        let is_there = |name: &&&str| {
            let found =
                Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
            found.is_ok_and(|status| status.success())
        };
        let Some(name) = NAMES.iter().find(is_there) else {
            println!("skipped: there is no Chromium on PATH");
            return None;
        };
        let profile = tempfile::tempdir().unwrap();
        let mut process = Command::new("sh")
            .args(["-c", SCRIPT, "sh", name, "--headless=new", "--remote-debugging-pipe", "--disable-gpu"])
            // Its own sandbox needs rights that a container does not have.
            .args(["--no-sandbox", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .env("HOME", profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let (told, from) = channel();
        std::thread::spawn(move || {
            let messages = BufReader::new(output).split(0);
            for message in messages.map_while(Result::ok) {
                let message = serde_json::from_slice(&message).unwrap_or(Value::Null);
                if told.send(message).is_err() {
                    return;
                }
            }
        });
        let mut browser =
            Browser { process, to, from, number: 0, session: None, seen: Seen::default(), _profile: profile };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let target = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.call("Target.attachToTarget", target);
        browser.session = Some(session["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    /// Sets the window's size and colour scheme.
    pub fn look_like(&mut self, dark: bool, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", size);
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// Goes to a page, once.
    pub fn visit(&mut self, url: &str) {
        let went = self.call("Page.navigate", json!({ "url": url }));
        assert_eq!(went["errorText"], Value::Null, "{url}");
        self.until(
            "the page is loaded",
            &format!("document.readyState === 'complete' && location.href === '{url}'"),
        );
        self.seen.requests.retain(|url| url != "about:blank");
    }

    /// The value of an expression in the page, as text.
    pub fn ask(&mut self, expression: &str) -> String {
        self.try_to_ask(expression).unwrap_or_else(|error| panic!("{expression}: {error}"))
    }

    /// The same if the page may change meanwhile.
    fn try_to_ask(&mut self, expression: &str) -> Result<String, Value> {
        let question = json!({ "expression": expression, "returnByValue": true });
        let asked = self.try_to_call("Runtime.evaluate", question)?;
        if !asked["exceptionDetails"].is_null() {
            return Err(asked["exceptionDetails"].clone());
        }
        let value = &asked["result"]["value"];
        Ok(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    }

    /// Waits until an expression in the page is true.
    pub fn until(&mut self, what: &str, expression: &str) {
        let deadline = Instant::now() + WITHIN;
        while self.try_to_ask(&format!("String({expression})")) != Ok("true".to_owned()) {
            assert!(Instant::now() < deadline, "not within {WITHIN:?}: {what}: {:?}", self.seen);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until it reports this.
    pub fn until_complaint(&mut self, text: &str) {
        let deadline = Instant::now() + WITHIN;
        while !self.seen.complaints.iter().any(|complaint| complaint.contains(text)) {
            self.hear(deadline, text);
        }
    }

    /// What it observed of the page.
    pub fn seen(&mut self) -> Seen {
        // Its answer comes after everything that happened before.
        self.ask("''");
        self.seen.clone()
    }

    /// The page as a PNG.
    pub fn picture(&mut self) -> Vec<u8> {
        let picture =
            self.call("Page.captureScreenshot", json!({ "format": "png", "captureBeyondViewport": false }));
        base64::engine::general_purpose::STANDARD.decode(picture["data"].as_str().unwrap()).unwrap()
    }

    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.try_to_call(method, parameters).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// Calls a method and waits for its answer.
    fn try_to_call(&mut self, method: &str, parameters: Value) -> Result<Value, Value> {
        self.number += 1;
        let number = self.number;
        let mut message = json!({ "id": number, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = Value::from(session.clone());
        }
        self.to.write_all(message.to_string().as_bytes()).unwrap();
        self.to.write_all(&[0]).unwrap();
        self.to.flush().unwrap();
        let deadline = Instant::now() + WITHIN;
        loop {
            let message = self.hear(deadline, method);
            if message["id"] == number {
                let error = message["error"].clone();
                return if error.is_null() { Ok(message["result"].clone()) } else { Err(error) };
            }
        }
    }

    /// The next message, recorded.
    fn hear(&mut self, deadline: Instant, what: &str) -> Value {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(message) = self.from.recv_timeout(left) else {
            panic!("Chromium said nothing within {WITHIN:?}: {what}: {:?}", self.seen)
        };
        let parameters = &message["params"];
        match message["method"].as_str().unwrap_or_default() {
            "Network.requestWillBeSent" => {
                let url = parameters["request"]["url"].as_str().unwrap_or_default();
                self.seen.requests.push(url.to_owned());
            }
            "Runtime.exceptionThrown" | "Runtime.consoleAPICalled" | "Log.entryAdded" => {
                self.seen.complaints.push(parameters.to_string());
            }
            _ => {}
        }
        message
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
