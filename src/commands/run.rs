//! `run` and `once`.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
    sync::{Notify, watch},
};

use super::{Setup, progress::Progress};
use crate::{
    daemon::{Ended, Signals},
    hints::webhook,
    status,
};

/// The exit code after a second SIGINT or SIGTERM, the one that shells use for SIGINT.
const INTERRUPTED: i32 = 130;

/// The loop reacts to a signal at once, unless it is in a long computation. The process does not wait for that to end;
/// the next start does whatever is left to do.
const ANSWERS_WITHIN: Duration = Duration::from_millis(800);

/// How often the loop signals that it is alive.
const BEAT: Duration = Duration::from_secs(1);

/// Makes passes until SIGTERM or SIGINT. SIGHUP reloads the configuration with `reload` and starts a pass at
/// once. If the new configuration has an error, the error is logged and the old configuration is kept.
///
/// # Errors
/// The signals cannot be received.
pub async fn run(setup: Setup, reload: impl Fn() -> anyhow::Result<Setup>) -> anyhow::Result<()> {
    let mut signals = listen(0)?;
    tracing::info!(
        "githubrunner {} watches {} with prefix {}; registration: {}",
        env!("CARGO_PKG_VERSION"),
        setup.config.repos.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        setup.config.nomad.jobprefix,
        setup.config.registration(),
    );
    let status_listener = listener("status.listen", setup.config.status.listen)?;
    let webhook_listener = listener("webhook.listen", setup.config.webhook.listen)?;
    let listens = (setup.config.status.listen, setup.config.webhook.listen);
    let mut daemon = setup.into_daemon();
    if let Some(listener) = status_listener {
        tracing::info!("status on http://{}", listener.local_addr()?);
        beside()?.spawn(status::serve(listener, daemon.status()));
    }
    if let Some(listener) = webhook_listener {
        tracing::info!("webhooks on http://{}{}", listener.local_addr()?, webhook::PATH);
        beside()?.spawn(webhook::serve(listener, daemon.hints()));
    }
    let status = daemon.status();
    tokio::spawn(async move {
        loop {
            status.beat();
            tokio::time::sleep(BEAT).await;
        }
    });
    while daemon.run(&mut signals).await == Ended::Hangup {
        match reload() {
            Ok(setup) => {
                tracing::info!("SIGHUP: reloaded the configuration");
                let Setup { config, github, nomad, renderer, .. } = setup;
                if (config.status.listen, config.webhook.listen) != listens {
                    tracing::warn!("changes to status.listen and webhook.listen take effect after a restart");
                }
                daemon = daemon.reconfigured(config, github, nomad, renderer).await;
            }
            Err(error) => tracing::error!("SIGHUP: keeping the old configuration: {error:#}"),
        }
    }
    tracing::info!("stopping on a signal; runners and their jobs keep running");
    Ok(())
}

/// Makes one pass, and waits until the runners it started have their credentials. Returns whether everything
/// succeeded.
///
/// # Errors
/// The signals cannot be received.
pub async fn once(setup: Setup) -> anyhow::Result<bool> {
    let mut signals = listen(1)?;
    let mut daemon = setup.into_daemon();
    let _progress = Progress::going_on("one pass");
    tokio::select! {
        biased;
        _ = signals.shutdown.wait_for(|shutdown| *shutdown) => Ok(false),
        pass = daemon.once() => Ok(!pass.failed()),
    }
}

/// Listens on the address of a key, if it is set.
pub(super) fn listener(key: &str, address: Option<SocketAddr>) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = address else { return Ok(None) };
    let _context = beside()?.enter();
    let listener = std::net::TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    });
    Ok(Some(listener.with_context(|| format!("{key}: listening on {address}"))?))
}

/// A separate thread that handles signals and health checks while the loop computes.
pub(super) fn beside() -> anyhow::Result<&'static Runtime> {
    static BESIDE: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = BESIDE.get() {
        return Ok(runtime);
    }
    let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("beside").enable_all().build();
    let runtime = runtime.context("cannot start the thread for signals and status")?;
    Ok(BESIDE.get_or_init(|| runtime))
}

/// Listens for SIGTERM, SIGINT and SIGHUP. The second SIGTERM or SIGINT ends the process at once. So does the first,
/// with this exit code, if the loop is too busy to notice it.
pub(super) fn listen(code_if_busy: i32) -> anyhow::Result<Signals> {
    let context = "listening for signals";
    let beside = beside()?;
    let (mut terminate, mut interrupt, mut hangup) = {
        let _context = beside.enter();
        (
            signal(SignalKind::terminate()).context(context)?,
            signal(SignalKind::interrupt()).context(context)?,
            signal(SignalKind::hangup()).context(context)?,
        )
    };
    let (shutdown, receiver) = watch::channel(false);
    let notify = Arc::new(Notify::new());
    let signals = Signals { shutdown: receiver.clone(), hangup: notify.clone() };
    // This task runs on the loop's own thread.
    let noticed = Arc::new(AtomicBool::new(false));
    let (notices, mut told) = (noticed.clone(), receiver);
    tokio::spawn(async move {
        if told.wait_for(|shutdown| *shutdown).await.is_ok() {
            notices.store(true, Ordering::SeqCst);
        }
    });
    beside.spawn(async move {
        loop {
            tokio::select! {
                biased;
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {
                    notify.notify_one();
                    continue;
                }
            }
            if *shutdown.borrow() {
                std::process::exit(INTERRUPTED);
            }
            if shutdown.send(true).is_err() {
                return;
            }
            let noticed = noticed.clone();
            tokio::spawn(async move {
                tokio::time::sleep(ANSWERS_WITHIN).await;
                if !noticed.load(Ordering::SeqCst) {
                    tracing::info!("stopping on a signal during a long computation");
                    std::process::exit(code_if_busy);
                }
            });
        }
    });
    Ok(signals)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Read, Write},
        net::TcpStream,
        process::{Command, Stdio},
        time::Instant,
    };

    use super::*;

    const CHILD: &str = "GITHUBRUNNER_TEST_IS_BUSY";

    /// A process whose loop computes for a minute.
    fn be_busy() {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let _signals = listen(7).unwrap();
            let status = status::Status::new(Duration::from_secs(60));
            let listener = {
                let _context = beside().unwrap().enter();
                let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                listener.set_nonblocking(true).unwrap();
                TcpListener::from_std(listener).unwrap()
            };
            println!("ADDRESS {}", listener.local_addr().unwrap());
            beside().unwrap().spawn(status::serve(listener, status));
            std::thread::sleep(Duration::from_secs(60));
        });
    }

    #[test]
    fn signals_and_health_checks_work_while_the_loop_computes() {
        if std::env::var_os(CHILD).is_some() {
            return be_busy();
        }
        let name = "commands::run::tests::signals_and_health_are_answered_while_the_loop_computes";
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // The test harness has not ended its line yet.
        let address =
            lines.find_map(|line| Some(line.unwrap().split_once("ADDRESS ")?.1.to_owned())).unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let told = Instant::now();
        Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        let ended = child.wait().unwrap();
        assert_eq!(ended.code(), Some(7));
        assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
    }
}
