//! Looks at repositories: when they start, and their results. The schedule decides when, the adapter how.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use tokio::time::Instant;

use super::{
    Daemon,
    marks::{Marks, OfOne},
    news::News,
};
use crate::{
    github::{Error, JobListing, Look, Refresh},
    hints::{Reason, WATCHED_FROM},
    model::{Moment, RepositoryId},
    schedule::{AFTER_PUSH, AFTER_WEBHOOK, Budget, Room, Seen},
};

/// At most this many looks are in progress.
const MOST_LOOKS: usize = 24;

/// At most this many of them are scheduled ones, so that requested looks start at once, however slow the
/// others are.
const MOST_BY_PACE: usize = 16;

/// At most this many requests of a requested look go before scheduled ones, so that a repository with hundreds of runs does
/// not take the requests of all others.
const AWAITED_READS: usize = 30;

/// How often due looks are taken from the schedule. Requested ones do not wait.
const LOOKS_TOGETHER: Duration = Duration::from_millis(250);

/// The deadline for one look. What it has read by then counts, and the next look continues.
const LOOK_WITHIN: Duration = Duration::from_secs(20);

/// The deadline if everything is looked at in one pass (`once`, `plan`).
const GITHUB_AT_MOST: Duration = Duration::from_secs(60);

/// The forecast is logged if a repository may wait longer than this.
const WORTH_A_WORD: Duration = Duration::from_secs(10);

/// Complete listings, for Stops and purges, are at least this frequent while there are runners of ours, or every
/// `loop`.
const ACTIVE_EVERY: Duration = Duration::from_secs(60);

/// The next look is due after this, if nothing makes one due earlier.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The reason for a look that did not end normally.
const ENDED_BY_ITSELF: &str = "polling it ended unexpectedly; see the log";

/// A look that has ended.
pub(super) struct Looked {
    pub repository: RepositoryId,
    pub began: Moment,
    pub ended: Moment,
    /// The repository's runners before it began.
    pub marks: OfOne,
    /// What it requested.
    pub look: Look,
    /// Whether it was requested rather than scheduled.
    pub asked: bool,
    /// Whether it is to be continued.
    pub unfinished: bool,
    /// Its result.
    pub result: Result<JobListing, Error>,
}

impl Daemon {
    /// Passes hints on to the schedule.
    pub(super) fn take_hints(&mut self) {
        let now = self.now();
        for hint in self.hints.take() {
            let stays_hot = match hint.reason {
                Reason::Push => AFTER_PUSH,
                Reason::Webhook | Reason::Delivery => AFTER_WEBHOOK,
            };
            self.schedule.hint(hint.repository, now, stays_hot);
        }
    }

    /// The budget of each payer's credentials for the schedule.
    fn budget(&self) -> impl Fn(&str) -> Budget + use<> {
        let (github, leads, longest_hot) =
            (self.github.clone(), self.leadership.holds(), self.config.loop_interval);
        move |payer| Budget { headroom: github.headroom(payer), leads, longest_hot }
    }

    /// When the next look is due.
    fn next_look(&self) -> Instant {
        let longest = Instant::now() + LONGEST_WAIT;
        if self.marks.is_none() || self.looks.len() >= MOST_LOOKS {
            return longest;
        }
        let next = self.schedule.next(self.now(), self.budget());
        next.map_or(longest, |next| longest.min(self.epoch + next.since_start()))
    }

    /// How often complete listings, for Stops and purges, are needed at least while there are runners of ours.
    pub(super) fn active_every(&self) -> Duration {
        self.config.loop_interval.min(ACTIVE_EVERY)
    }

    /// Starts the looks that are due.
    pub(super) fn look_around(&mut self) {
        // A look is compared with the view of Nomad from before it began.
        let Some(marks) = &self.marks else { return };
        if !self.schedule.is_urgent() && Instant::now() < self.looks_due {
            return;
        }
        let now = self.now();
        let under_way = self.looks.len();
        let room = Room {
            all: MOST_LOOKS.saturating_sub(under_way),
            by_pace: MOST_BY_PACE.saturating_sub(under_way),
        };
        let due = self.schedule.due(now, room, self.budget());
        for (id, asked) in due {
            let at_least = self.schedule.at_least(id, now);
            let marks = marks.of(id);
            let found = self.github_side.to_look_at(id, at_least, &marks, now, self.active_every());
            let Some((repository, look)) = found else { continue };
            let github = self.github.awaited(if asked { AWAITED_READS } else { 0 });
            let epoch = self.epoch;
            self.looks.spawn(async move {
                // If a look ended unexpectedly, its repository would otherwise count as being looked at
                // forever.
                let asked_for =
                    AssertUnwindSafe(github.look(&repository, look, LOOK_WITHIN)).catch_unwind().await;
                let result = asked_for.unwrap_or_else(|_| Err(Error::Unexpected(ENDED_BY_ITSELF.to_owned())));
                Looked {
                    repository: repository.id,
                    began: now,
                    ended: Moment::after_start(epoch.elapsed()),
                    marks,
                    look,
                    asked,
                    unfinished: github.is_unfinished(repository.id),
                    result,
                }
            });
        }
        self.looks_due = self.next_look().max(Instant::now() + LOOKS_TOGETHER);
    }

    /// Records the result of a look. Returns whether it needs a pass.
    pub(super) fn looked(&mut self, looked: Looked) -> News {
        let id = looked.repository;
        self.status.look(looked.look.as_str(), looked.ended.since(looked.began));
        if let Err(Error::RateLimited { until, .. }) = &looked.result {
            let until = Moment::after_start(until.saturating_duration_since(self.epoch));
            self.schedule.pause(id, until);
        }
        let mut seen = Seen {
            at: looked.ended,
            took: looked.ended.since(looked.began),
            failed: !matches!(looked.result, Ok(_) | Err(Error::RateLimited { .. } | Error::OutOfTime)),
            unfinished: looked.unfinished,
            ours: looked.marks.any_live(),
            newest_run: None,
            unused: false,
            requests: 1,
        };
        if let Ok(listing) = &looked.result {
            let age = |at| Duration::try_from(listing.now.duration_since(at)).unwrap_or_default();
            seen.newest_run = listing.newest_run.map(age);
            seen.unused = listing.has_runs == Some(false);
            seen.requests = listing.requests;
            self.status.ended(&listing.ended, listing.now);
            if self.policy.rerun_lost.is_some() {
                self.lost.note(&listing.ended, listing.now, looked.ended);
            }
        }
        tracing::debug!(
            repository = id.0,
            look = looked.look.as_str(),
            asked = looked.asked,
            took = ?seen.took,
            requests = seen.requests,
            "polled a repository"
        );
        let (news, has_jobs) = self.github_side.learn(looked, &self.interest);
        seen.ours |= has_jobs;
        self.schedule.seen(id, &seen);
        self.looks_due = self.looks_due.min(Instant::now() + LOOKS_TOGETHER);
        news
    }

    /// Looks at all repositories in full.
    pub(super) async fn look_at_everything(&mut self) {
        let nomad = match self.nomad.observe().await {
            Ok(nomad) => nomad,
            // The pass reports it.
            Err(_) => return,
        };
        let began = self.now();
        let found = self.github.repositories(&self.config.repos, Refresh::WhenDue).await;
        self.github_side.resolved(found);
        self.github_side.want(&nomad);
        let marks = Marks::new(&nomad, |runner| self.github_side.repository_of(runner));
        self.marks = Some(marks.clone());
        let repositories = self.github_side.repositories();
        let listings = self.github.list_all(&repositories, Look::All, GITHUB_AT_MOST).await;
        let ended = self.now();
        for (repository, result) in listings {
            let marks = marks.of(repository);
            let looked = Looked {
                repository,
                began,
                ended,
                marks,
                look: Look::All,
                asked: true,
                unfinished: false,
                result,
            };
            self.github_side.learn(looked, &self.interest);
        }
        self.github_side.all_at_once(GITHUB_AT_MOST);
    }

    /// Logs the forecast of the schedule once, unless it is a matter of seconds.
    pub(super) fn say_forecast(&mut self) {
        if self.forecast_said || self.schedule.is_empty() || self.mode.is_dry_run() {
            return;
        }
        self.forecast_said = true;
        let watched_from = self.config.github.watch_pushes.then_some(WATCHED_FROM);
        let webhook = self.config.webhook.listen.is_some();
        let forecasts = self.schedule.forecasts(self.budget(), watched_from, webhook);
        for forecast in forecasts.iter().filter(|forecast| forecast.every > WORTH_A_WORD) {
            tracing::info!("{forecast}");
        }
    }
}
