//! Nomad's event stream, as a hint that something of ours has changed. The lists remain the source of truth.

use std::{convert::Infallible, time::Duration};

use futures_util::future::join_all;
use tokio::{sync::Notify, time::sleep};

use crate::nomad::{Error, Nomad};

/// How soon a broken stream is reopened. The wait doubles while that fails.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// The longest wait. A token without the right to read the stream is retried at this interval.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Follows the stream of each namespace and notifies of its events, forever. Without it, the daemon only observes less
/// often.
pub(super) async fn follow<T>(nomad: &Nomad, hint: &Notify) -> T {
    let nomads = nomad.everywhere();
    let streams = nomads.iter().map(|nomad| follow_one::<Infallible>(nomad, hint));
    join_all(streams).await;
    std::future::pending().await
}

async fn follow_one<T>(nomad: &Nomad, hint: &Notify) -> T {
    let mut wait = FIRST_WAIT;
    loop {
        match nomad.events().await {
            Ok(mut events) => {
                wait = FIRST_WAIT;
                // Events before the stream was opened may be missing.
                hint.notify_one();
                loop {
                    match events.next().await {
                        Ok(Some(_)) => hint.notify_one(),
                        Ok(None) => break,
                        Err(error) => {
                            tracing::debug!(%error, "the event stream was interrupted");
                            break;
                        }
                    }
                }
            }
            Err(error) => {
                tracing::debug!(%error, "cannot open the event stream");
                if matches!(error, Error::StreamRefused { .. } | Error::Denied { .. }) {
                    wait = LONGEST_WAIT;
                }
            }
        }
        sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}
