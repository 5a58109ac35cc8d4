//! The stand-in runner against the simulated GitHub on loopback, in real time.

use std::collections::BTreeMap;

use tokio::{net::TcpListener, task::JoinHandle};

use super::*;
use crate::{
    github::{Conclusion, JobSpec, RegisteredAt},
    serve::serve_tcp,
    stand_in::run_with,
    world::drive,
};

/// A world whose GitHub is served on loopback; its address.
async fn served() -> (Shared, u64, String) {
    let (shared, repository) = world(Options::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    {
        let mut world = lock(&shared);
        let options = world.github.options_mut();
        options.web_url = address.clone();
        options.pickup = (Duration::from_millis(10), Duration::from_millis(20));
    }
    tokio::spawn(serve_tcp(listener, Side::GitHub, Arc::clone(&shared), std::future::pending()));
    tokio::spawn(drive(Arc::clone(&shared), std::future::pending()));
    (shared, repository, address)
}

/// A JIT configuration, made over HTTP so that it carries the server's address.
async fn jit(address: &str, name: &str) -> String {
    let stream = tokio::net::TcpStream::connect(address.trim_start_matches("http://")).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("/repos/{REPOSITORY}/actions/runners/generate-jitconfig"))
        .header("host", address.trim_start_matches("http://"))
        .header("user-agent", "test")
        .header("authorization", format!("Bearer {TOKEN}"))
        .body(Full::new(Bytes::from(format!(
            r#"{{"name": "{name}", "runner_group_id": 1, "labels": ["x"]}}"#
        ))))
        .unwrap();
    let body = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    let made: Value = serde_json::from_slice(&body).unwrap();
    made["encoded_jit_config"].as_str().unwrap().to_string()
}

fn spawn(
    env: &[(&str, &str)],
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<(u8, String)> {
    let env: BTreeMap<String, String> =
        env.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    tokio::spawn(async move {
        let mut out = Vec::new();
        let code = run_with(env, shutdown, &mut out).await;
        (code, String::from_utf8(out).unwrap())
    })
}

#[tokio::test]
async fn it_takes_its_job_and_prints_what_the_real_one_prints() {
    let (shared, repository, address) = served().await;
    let encoded = jit(&address, "r1").await;
    let run = {
        let mut world = lock(&shared);
        let spec =
            JobSpec { name: "build all".to_string(), ..JobSpec::new(&["x"], Duration::from_millis(300)) };
        world.queue_run(repository, vec![spec]).unwrap()
    };
    let (code, lines) =
        spawn(&[("ACTIONS_RUNNER_INPUT_JITCONFIG", &encoded)], std::future::pending()).await.unwrap();
    assert_eq!(code, 0);
    // The time in front of a line is not ours to know.
    let lines: Vec<&str> =
        lines.lines().map(|line| line.split_once("Z: ").map_or(line, |(_, rest)| rest)).collect();
    let expected = [
        "",
        "√ Connected to GitHub",
        "",
        "Listening for Jobs",
        "Running job: build all",
        "Job build all completed with result: Succeeded",
    ];
    assert_eq!(lines, expected);
    let world = lock(&shared);
    assert_eq!(world.github.run(run).unwrap().conclusion, Some(Conclusion::Success));
    assert_eq!(world.github.runners().count(), 0);
}

#[tokio::test]
async fn a_registration_token_works_too_and_the_shutdown_disconnects() {
    let (shared, repository, address) = served().await;
    let url = format!("{address}/{REPOSITORY}");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let shutdown = async move { drop(stopped.await) };
    let env =
        [("ACCESS_TOKEN", TOKEN), ("REPO_URL", url.as_str()), ("RUNNER_NAME", "t1"), ("EPHEMERAL", "1")];
    let runner = spawn(&env, shutdown);
    let scope = RegisteredAt::Repository(repository);
    until(&shared, "it is online", |world| {
        world.github.runner_by_name(scope, "t1").is_some_and(|runner| runner.online)
    })
    .await;
    stop.send(()).unwrap();
    let (code, lines) = runner.await.unwrap();
    assert_eq!(code, 0);
    assert!(lines.ends_with("Exiting...\n"), "{lines}");
    assert!(!lock(&shared).github.runner_by_name(scope, "t1").unwrap().online);
}

#[tokio::test]
async fn a_refusal_is_printed_and_hidden_from_the_exit_code() {
    let (shared, repository, address) = served().await;
    let encoded = jit(&address, "r1").await;
    let id = lock(&shared).github.runner_by_name(RegisteredAt::Repository(repository), "r1").unwrap().id;
    {
        let mut world = lock(&shared);
        let now = world.clock.now();
        assert!(world.github.delete_runner(id, now));
    }
    let (code, lines) =
        spawn(&[("ACTIONS_RUNNER_INPUT_JITCONFIG", &encoded)], std::future::pending()).await.unwrap();
    assert_eq!(
        (code, lines.as_str()),
        (0, "Failed to create a session. the runner registration has been deleted from the server\n")
    );
    let (code, _) = spawn(&[("PATH", "/bin")], std::future::pending()).await.unwrap();
    assert_eq!(code, 2);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_falls_silent_is_a_runner_that_vanished() {
    let (shared, repository) = world(Options::default());
    tokio::spawn(drive(Arc::clone(&shared), std::future::pending()));
    let mut client = Client::connect(&shared, Side::GitHub).await;
    let opening = format!(
        r#"{{"token": "{TOKEN}", "url": "https://github.com/{REPOSITORY}", "name": "t1", "labels": ["x"]}}"#
    );
    let (status, session) = client.json(Method::POST, "/_runner/sessions", &opening).await;
    assert_eq!(status, 201);
    let message = format!("/_runner/sessions/{}/message", session["id"].as_str().unwrap());
    let online = |shared: &Shared| {
        lock(shared).github.runner_by_name(RegisteredAt::Repository(repository), "t1").unwrap().online
    };
    for _ in 0..3 {
        tokio::time::sleep(seconds(20)).await;
        assert_eq!(client.json(Method::GET, &message, "").await.0, 204);
        assert!(online(&shared));
    }
    tokio::time::sleep(seconds(31)).await;
    assert!(!online(&shared));
    assert_eq!(client.json(Method::GET, &message, "").await.0, 410);
}
