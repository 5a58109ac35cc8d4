//! The world, its servers and the stand-in runner.

mod carrier;
mod serve;
mod stand_in;
mod world;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde_json::Value;

use super::{
    clock::Clock,
    fault::Side,
    github::{self, GitHub, Token},
    nomad::{self, Nomad},
    serve::serve_connection,
    world::{Options, Shared, World, lock},
};

const TOKEN: &str = "ghp_of_octocat";
const REPOSITORY: &str = "octo-org/app";

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A world with one repository, and its ID.
fn world(options: Options) -> (Shared, u64) {
    let base: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
    let clock = Clock::starting_at(base);
    let mut github = GitHub::new(github::Options::default(), base);
    github.add_organization("octo-org", &["octocat"]);
    let repository = github.add_repository(REPOSITORY);
    github.add_token(TOKEN, Token::classic("octocat", &["repo", "admin:org"]));
    let nomad = Nomad::new(nomad::Options::default(), base);
    (World::new(github, nomad, clock, options).shared(), repository)
}

/// A client on an in-memory connection to one side.
struct Client(SendRequest<Full<Bytes>>);

impl Client {
    async fn connect(shared: &Shared, side: Side) -> Client {
        let (near, far) = tokio::io::duplex(64 << 10);
        tokio::spawn(serve_connection(far, side, Arc::clone(shared)));
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near)).await.unwrap();
        tokio::spawn(connection);
        Client(sender)
    }

    /// Status, headers' date, and the body's bytes.
    async fn ask(
        &mut self,
        method: Method,
        target: &str,
        body: &str,
    ) -> Result<(u16, String, Bytes), String> {
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header("host", "api.test")
            .header("user-agent", "test")
            .header("authorization", format!("Bearer {TOKEN}"))
            .body(Full::new(Bytes::from(body.to_string())))
            .unwrap();
        let response = self.0.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let date = response.headers().get("date").map(|date| date.to_str().unwrap().to_string());
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
        Ok((status, date.unwrap_or_default(), body.to_bytes()))
    }

    async fn json(&mut self, method: Method, target: &str, body: &str) -> (u16, Value) {
        let (status, _, body) = self.ask(method, target, body).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }
}

/// Waits, in steps of 100 ms and a minute at most, until something is so.
async fn until(shared: &Shared, what: &str, so: impl Fn(&World) -> bool) {
    for _ in 0..600 {
        if so(&lock(shared)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let world = lock(shared);
    let lines: Vec<String> = world.timeline().map(|(time, line)| format!("{time} {line}")).collect();
    panic!("never: {what}\n{}", lines.join("\n"));
}
