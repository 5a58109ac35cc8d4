//! The sources that ask by themselves.

use super::{Hints, deliveries, pushes};
use crate::{config::Config, github::GitHub};

/// Asks GitHub for pushes and deliveries, as the configuration has it, for ever. Only who leads asks.
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
