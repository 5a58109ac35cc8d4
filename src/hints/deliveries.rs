//! A webhook's delivery log as a source of hints, for a webhook or an App without an open port (contract
//! github.md §8). One request covers all repositories. According to GitHub, the log may lag by minutes.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::{Instant, sleep};

use super::{Guid, Hint, Hints, Reason, wait_after};
use crate::{
    config::Config,
    github::{Error, GitHub, HookDelivery, HookPlace},
    model::Timestamp,
};

/// How often a log is read.
const READ_EVERY: Duration = Duration::from_secs(5);

/// The shortest time between two readings: with many webhooks, each log is read less often.
const READINGS_APART: Duration = Duration::from_secs(1);

/// At most this many pages of a log are read at once: 500 deliveries per interval. The lists find older ones.
const PAGES: usize = 5;

/// At most this many webhooks' logs are read.
const MOST_HOOKS: usize = 100;

/// The deadline of a reading.
const READ_WITHIN: Duration = Duration::from_secs(20);

/// The first reading reports deliveries from this long before the newest one. The first listings have seen everything
/// before that.
const AT_FIRST: Duration = Duration::from_secs(300);

/// What has been read of a log, to recognize what is new.
#[derive(Debug, Default)]
pub struct Read {
    seen: BTreeSet<u64>,
    /// IDs increase, so anything below was there before, on a later page.
    floor: Option<u64>,
}

impl Read {
    /// Whether these deliveries, newest first, reach back to known ones.
    pub fn reaches(&self, deliveries: &[HookDelivery]) -> bool {
        let Some(floor) = self.floor else { return true };
        deliveries.iter().any(|delivery| self.seen.contains(&delivery.id) || delivery.id < floor)
    }

    /// The new deliveries. In the first reading, those from shortly before the newest.
    pub fn news<'d>(&mut self, deliveries: &'d [HookDelivery]) -> Vec<&'d HookDelivery> {
        let newest = deliveries.iter().filter_map(|delivery| delivery.delivered_at).max();
        let is_late = |delivered: Option<Timestamp>| match (delivered, newest) {
            (Some(delivered), Some(newest)) => newest.duration_since(delivered).unsigned_abs() <= AT_FIRST,
            _ => true,
        };
        let is_new = |delivery: &&HookDelivery| match self.floor {
            None => is_late(delivery.delivered_at),
            Some(floor) => delivery.id > floor && !self.seen.contains(&delivery.id),
        };
        let news = deliveries.iter().filter(is_new).collect();
        if !deliveries.is_empty() {
            self.seen = deliveries.iter().map(|delivery| delivery.id).collect();
            // It never decreases: a page that is shorter than the previous one hides nothing new.
            self.floor = self.floor.max(self.seen.first().copied());
        } else {
            // After an empty log, everything is new.
            self.floor = self.floor.or(Some(0));
        }
        news
    }
}

/// A log that is read.
struct Log {
    place: HookPlace,
    hook: Option<u64>,
    read: Read,
    next: Instant,
    failures: u32,
}

/// Reads the logs forever while `leads`.
pub(super) async fn follow(
    github: &GitHub,
    config: &Config,
    hints: &Hints,
    leads: &(dyn Fn() -> bool + Sync),
) {
    let mut logs = logs(github, config);
    loop {
        sleep(READINGS_APART).await;
        if !leads() {
            for log in &mut logs {
                log.read = Read::default();
            }
            continue;
        }
        let now = Instant::now();
        let due = logs.iter_mut().filter(|log| log.next <= now);
        let Some(log) = due.min_by_key(|log| log.next) else { continue };
        log.next = now + READ_EVERY;
        match read(github, config, log).await {
            Ok(deliveries) => {
                log.failures = 0;
                for delivery in log.read.news(&deliveries) {
                    tell(hints, delivery);
                }
            }
            Err(error) => {
                if log.failures == 0 {
                    tracing::warn!("webhook.poll_deliveries: the deliveries for {}: {error}", log.place);
                }
                log.failures = log.failures.saturating_add(1);
                log.next = Instant::now() + wait_after(READ_EVERY, log.failures, &error);
            }
        }
    }
}

/// A delivery that has arrived by itself is ignored.
fn tell(hints: &Hints, delivery: &HookDelivery) {
    let Some(repository) = delivery.job_of() else { return };
    if Guid::parse(&delivery.guid).is_some_and(|guid| hints.is_news(&guid)) {
        hints.offer(Hint { repository, full_name: None, reason: Reason::Delivery });
    }
}

async fn read(github: &GitHub, config: &Config, log: &mut Log) -> Result<Vec<HookDelivery>, Error> {
    let github = github.until(Instant::now() + READ_WITHIN);
    if !matches!(log.place, HookPlace::App(_)) && log.hook.is_none() {
        let url = config.webhook.url.as_deref();
        let hooks = github.hooks(&log.place).await?;
        let ours = hooks.known().iter().find(|hook| hook.config.url.as_deref() == url);
        let hook = ours.ok_or_else(|| {
            Error::Unexpected(
                "no webhook has the URL in webhook.url: create one with `githubrunner webhook install`"
                    .to_owned(),
            )
        })?;
        log.hook = Some(hook.id);
    }
    let read = &log.read;
    let deliveries = github.deliveries(&log.place, log.hook, PAGES, |items| read.reaches(items)).await;
    if matches!(deliveries, Err(Error::NotFound { .. })) {
        // It was removed, and maybe created again.
        log.hook = None;
    }
    deliveries
}

/// The logs that the configuration means: each App's own, and one for each organization and repository that no App is for.
fn logs(github: &GitHub, config: &Config) -> Vec<Log> {
    let log = |place| Log { place, hook: None, read: Read::default(), next: Instant::now(), failures: 0 };
    let apps = github.app_hooks();
    let is_apps = |place: &HookPlace| place.owner().is_some_and(|owner| github.is_app_for(owner));
    let of_entries = config.repos.iter().filter_map(HookPlace::of).filter(|place| !is_apps(place));
    let places: BTreeSet<HookPlace> = of_entries.chain(apps).collect();
    if places.len() > MOST_HOOKS {
        tracing::warn!(
            "webhook.poll_deliveries: there are {} entries of repos, but only the deliveries of {MOST_HOOKS} are read; a webhook of the \
             organization needs one entry",
            places.len()
        );
    }
    places.into_iter().take(MOST_HOOKS).map(log).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deliveries(rows: &[(u64, i64)]) -> Vec<HookDelivery> {
        let row = |(id, at): &(u64, i64)| {
            let at = Timestamp::from_second(*at).unwrap();
            serde_json::from_value(serde_json::json!({
                "id": id, "guid": format!("g-{id}"), "delivered_at": at, "status": "OK", "status_code": 200,
                "event": "workflow_job", "action": "queued", "repository_id": 7,
            }))
            .unwrap()
        };
        rows.iter().map(row).collect()
    }

    fn news(read: &mut Read, rows: &[(u64, i64)]) -> Vec<u64> {
        read.news(&deliveries(rows)).iter().map(|delivery| delivery.id).collect()
    }

    #[test]
    fn the_first_reading_reports_the_last_minutes_and_later_ones_what_is_new() {
        let mut read = Read::default();
        assert!(read.reaches(&deliveries(&[(9, 1)])), "nothing is known, so nothing is looked for");
        assert_eq!(news(&mut read, &[(30, 1_000), (20, 700), (10, 600)]), [30, 20]);
        assert_eq!(news(&mut read, &[(30, 1_000), (20, 700), (10, 600)]), [0; 0]);
        assert_eq!(news(&mut read, &[(40, 1_100), (30, 1_000), (20, 700)]), [40]);
        // A delivery that the log shows late.
        assert_eq!(news(&mut read, &[(40, 1_100), (35, 1_050), (30, 1_000)]), [35]);
    }

    #[test]
    fn pages_are_read_until_one_is_known_and_older_ones_are_ignored() {
        let mut read = Read::default();
        news(&mut read, &[(30, 1_000), (20, 990)]);
        assert!(!read.reaches(&deliveries(&[(60, 1_100), (50, 1_090)])));
        assert!(read.reaches(&deliveries(&[(60, 1_100), (50, 1_090), (40, 1_080), (30, 1_000)])));
        // The known ones are gone, and the next ones are older.
        assert!(read.reaches(&deliveries(&[(60, 1_100), (10, 900)])));
        assert_eq!(news(&mut read, &[(60, 1_100), (30, 1_000), (20, 990), (10, 900)]), [60]);
    }

    #[test]
    fn after_an_empty_log_everything_is_new() {
        let mut read = Read::default();
        assert_eq!(news(&mut read, &[]), [0; 0]);
        assert_eq!(news(&mut read, &[(2, 1_000), (1, 1)]), [2, 1]);
    }
}
