//! Nomad's event stream as a hint that something of ours has changed. The lists stay the truth.

use std::time::Duration;

use tokio::{sync::Notify, time::sleep};

use crate::nomad::{Error, Nomad};

/// After a stream that broke another one is opened so soon, and ever later while that fails.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// No wait is longer; a token without the right to read the stream stays without it for as long.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Follows the stream and notifies of what it says, for ever. Without it the daemon only looks less often.
pub(super) async fn follow<T>(nomad: &Nomad, hint: &Notify) -> T {
    let mut wait = FIRST_WAIT;
    loop {
        match nomad.events().await {
            Ok(mut events) => {
                wait = FIRST_WAIT;
                // What happened before it was opened may be missing.
                hint.notify_one();
                loop {
                    match events.next().await {
                        Ok(Some(_)) => hint.notify_one(),
                        Ok(None) => break,
                        Err(error) => {
                            tracing::debug!(%error, "the event stream broke");
                            break;
                        }
                    }
                }
            }
            Err(error) => {
                tracing::debug!(%error, "no event stream");
                if matches!(error, Error::StreamRefused { .. } | Error::Denied { .. }) {
                    wait = LONGEST_WAIT;
                }
            }
        }
        sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}
