//! A stand-in for the official runner, for a real Nomad and the simulated GitHub.
//!
//! A raw_exec task runs it in place of `run.sh`: it takes the same environment, speaks the simulated
//! GitHub's `/_runner/` routes over plain HTTP on loopback, and prints what the real one prints (contract github.md §7).

use std::{collections::BTreeMap, future::Future, io::Write, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::{github::jit_server, process::Credentials};

/// The poll interval.
const POLL: Duration = Duration::from_millis(250);
/// The timeout of an exchange.
const DEADLINE: Duration = Duration::from_secs(10);
/// After this many consecutive failures, GitHub is considered gone.
const MOST_FAILURES: u32 = 60;
/// Responses are short.
const LONGEST_ANSWER: usize = 64 << 10;

/// Runs a runner until its job is over, it is refused, or `shutdown`. Returns the exit code: 0 like `run.sh`
/// (contract github.md §7), or 2 if the environment does not describe a runner.
pub async fn run(env: BTreeMap<String, String>, shutdown: impl Future<Output = ()>) -> u8 {
    run_with(env, shutdown, &mut std::io::stdout()).await
}

/// The same, with another destination for its output. Lines that cannot be written are lost.
pub async fn run_with(
    env: BTreeMap<String, String>,
    shutdown: impl Future<Output = ()>,
    out: &mut (impl Write + Send),
) -> u8 {
    let mut shutdown = std::pin::pin!(shutdown);
    let opened = Credentials::from_environment(&env).and_then(|credentials| opening(&credentials));
    let Some((server, opening)) = opened else {
        say(out, "An error occurred: Not configured. Run config.(sh/cmd) to configure the runner.");
        return 2;
    };
    let session = tokio::select! {
        biased;
        () = &mut shutdown => return 0,
        session = open(&server, &opening) => session,
    };
    let session = match session {
        Ok(session) => session,
        Err(refusal) => {
            say(out, &format!("Failed to create a session. {refusal}"));
            return 0;
        }
    };
    say(out, "\n√ Connected to GitHub\n");
    stamp(out, "Listening for Jobs");
    let address = format!("/_runner/sessions/{session}");
    let mut failures = 0;
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => {
                // Best effort: a session that is not closed is considered dead after a while.
                let _ = call(&server, Method::DELETE, &address, &Value::Null).await;
                say(out, "Exiting...");
                return 0;
            }
            () = tokio::time::sleep(POLL) => {}
        }
        match call(&server, Method::GET, &format!("{address}/message"), &Value::Null).await {
            Ok((200, news)) => {
                failures = 0;
                if hear(&news, out) {
                    return 0;
                }
            }
            Ok((204, _)) => failures = 0,
            Ok((410, _)) => {
                say(out, "The runner registration has been deleted from the server, please re-configure.");
                return 0;
            }
            Ok(_) | Err(_) => {
                failures += 1;
                if failures > MOST_FAILURES {
                    say(out, "GitHub cannot be reached.");
                    return 0;
                }
            }
        }
    }
}

/// Handles the start or end of a job. Returns whether the runner's work is done.
fn hear(news: &Value, out: &mut (impl Write + Send)) -> bool {
    let text = |key: &str| news.get(key).and_then(Value::as_str).unwrap_or_default();
    if text("kind") == "job" {
        stamp(out, &format!("Running job: {}", text("name")));
        return false;
    }
    let (name, result) = (text("name"), text("result"));
    stamp(out, &format!("Job {name} completed with result: {result}"));
    if news.get("more") != Some(&Value::Bool(true)) {
        return true;
    }
    stamp(out, "Listening for Jobs");
    false
}

/// Where to connect, and the first message.
fn opening(credentials: &Credentials) -> Option<(String, Value)> {
    match credentials {
        Credentials::Jit(encoded) => Some((jit_server(encoded)?, json!({ "jitconfig": encoded }))),
        Credentials::Token(registration) => {
            let url = url::Url::parse(&registration.url).ok()?;
            let opening = json!({
                "token": registration.token, "url": registration.url, "name": registration.name,
                "labels": registration.labels, "default_labels": registration.default_labels,
                "ephemeral": registration.ephemeral,
            });
            Some((url.origin().ascii_serialization(), opening))
        }
    }
}

/// Opens a session. Retries while GitHub is unreachable.
async fn open(server: &str, opening: &Value) -> Result<String, String> {
    let mut failure = String::new();
    for _ in 0..MOST_FAILURES {
        match call(server, Method::POST, "/_runner/sessions", opening).await {
            Ok((201, session)) => {
                let id = session.get("id").and_then(Value::as_str).ok_or("The answer has no session.")?;
                return Ok(id.to_string());
            }
            Ok((status, answer)) if status < 500 => {
                let message = answer.get("message").and_then(Value::as_str).unwrap_or("refused");
                return Err(message.to_string());
            }
            Ok((status, _)) => failure = format!("status {status}"),
            Err(error) => failure = error.to_string(),
        }
        tokio::time::sleep(POLL).await;
    }
    Err(failure)
}

/// One exchange on its own connection.
async fn call(server: &str, method: Method, path: &str, body: &Value) -> anyhow::Result<(u16, Value)> {
    let exchange = async {
        let url = url::Url::parse(server)?;
        let host = url.host_str().unwrap_or("127.0.0.1");
        let port = url.port_or_known_default().unwrap_or(80);
        let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let prefix = url.path().trim_end_matches('/');
        let request = Request::builder()
            .method(method)
            .uri(format!("{prefix}{path}"))
            .header("host", format!("{host}:{port}"))
            .body(Full::new(body))?;
        let answer = async {
            let response = sender.send_request(request).await?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!("reading the answer: {error}"))?.to_bytes();
            Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
        };
        let mut answer = std::pin::pin!(answer);
        let mut connection = std::pin::pin!(connection);
        // The connection does the work. If it ends first, the response says why.
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            _ = &mut connection => answer.await,
        }
    };
    tokio::time::timeout(DEADLINE, exchange).await?
}

fn say(out: &mut impl Write, line: &str) {
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// A line in the runner's format, with the time in UTC. Nothing depends on the time.
fn stamp(out: &mut impl Write, line: &str) {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%SZ");
    say(out, &format!("{now}: {line}"));
}
