//! `run` and `once`.

use std::sync::Arc;

use anyhow::Context;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::{Notify, watch},
};

use super::Setup;
use crate::{
    daemon::{Ended, Signals},
    status,
};

/// The exit code after a second SIGINT or SIGTERM, as shells give it for SIGINT.
const INTERRUPTED: i32 = 130;

/// Passes until SIGTERM or SIGINT; SIGHUP reads the configuration again with `reload` and passes at once. A
/// configuration that is broken then is told and the old one kept.
///
/// # Errors
/// The signals cannot be listened to.
pub async fn run(setup: Setup, reload: impl Fn() -> anyhow::Result<Setup>) -> anyhow::Result<()> {
    let mut signals = listen()?;
    tracing::info!(
        "githubrunner {} watches {} with prefix {}; registration: {}",
        env!("CARGO_PKG_VERSION"),
        setup.config.repos.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        setup.config.nomad.jobprefix,
        setup.config.registration(),
    );
    let listener = match setup.config.status_listen {
        None => None,
        Some(address) => {
            let listener = TcpListener::bind(address).await;
            Some(listener.with_context(|| format!("status.listen: listening on {address}"))?)
        }
    };
    let mut daemon = setup.into_daemon();
    if let Some(listener) = listener {
        tracing::info!("status on http://{}", listener.local_addr()?);
        tokio::spawn(status::serve(listener, daemon.status()));
    }
    while daemon.run(&mut signals).await == Ended::Hangup {
        match reload() {
            Ok(setup) => {
                tracing::info!("SIGHUP: the configuration was read again");
                let Setup { config, github, nomad, renderer, .. } = setup;
                daemon = daemon.reconfigured(config, github, nomad, renderer).await;
            }
            Err(error) => tracing::error!("SIGHUP: the old configuration stays: {error:#}"),
        }
    }
    tracing::info!("ended by a signal; runners and their jobs go on");
    Ok(())
}

/// One pass, and the secrets of the runners it starts. Whether all went well.
///
/// # Errors
/// The signals cannot be listened to.
pub async fn once(setup: Setup) -> anyhow::Result<bool> {
    let mut signals = listen()?;
    let mut daemon = setup.into_daemon();
    tokio::select! {
        biased;
        _ = signals.shutdown.wait_for(|shutdown| *shutdown) => Ok(false),
        pass = daemon.once() => Ok(!pass.failed()),
    }
}

/// Listens to SIGTERM, SIGINT and SIGHUP. The second of the first two ends the process at once.
pub(super) fn listen() -> anyhow::Result<Signals> {
    let context = "listening to signals";
    let (mut terminate, mut interrupt, mut hangup) = (
        signal(SignalKind::terminate()).context(context)?,
        signal(SignalKind::interrupt()).context(context)?,
        signal(SignalKind::hangup()).context(context)?,
    );
    let (shutdown, receiver) = watch::channel(false);
    let notify = Arc::new(Notify::new());
    let signals = Signals { shutdown: receiver, hangup: notify.clone() };
    tokio::spawn(async move {
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
        }
    });
    Ok(signals)
}
