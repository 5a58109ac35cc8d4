//! The sources that poll GitHub.

use super::{Hints, deliveries, pushes};
use crate::{config::Config, github::GitHub};

/// Polls GitHub for pushes and deliveries as configured, forever. Only the leader polls.
pub async fn follow<T>(
    github: &GitHub,
    config: &Config,
    hints: &Hints,
    leads: impl Fn() -> bool + Sync,
) -> T {
    let pushes = async {
        if config.github.watch_pushes {
            pushes::follow(github, &config.repos, hints, &leads).await;
        }
    };
    let deliveries = async {
        if config.webhook.poll_deliveries {
            deliveries::follow(github, config, hints, &leads).await;
        }
    };
    tokio::join!(pushes, deliveries);
    std::future::pending().await
}
