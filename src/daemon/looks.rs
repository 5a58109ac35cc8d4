//! Looks at repositories: when they begin, and what comes of them. The schedule says when, the adapter how.

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

/// At most this many looks are under way.
const MOST_LOOKS: usize = 24;

/// So many of them by the pace: what is asked for begins at once, however slow the others are.
const MOST_BY_PACE: usize = 16;

/// What is due by its pace is taken from the schedule no more often; what is asked for does not wait.
const LOOKS_TOGETHER: Duration = Duration::from_millis(250);

/// One look takes no longer; what it has read by then counts, and the next one continues.
const LOOK_WITHIN: Duration = Duration::from_secs(20);

/// Where everything is looked at in one pass (`once`, `plan`): the longest time for that.
const GITHUB_AT_MOST: Duration = Duration::from_secs(60);

/// What to expect of the schedule is said where a repository may wait for longer.
const WORTH_A_WORD: Duration = Duration::from_secs(10);

/// What is seen in full, for Stops and purges, is seen at least this often while runners of ours are there, or every `loop`.
const ACTIVE_EVERY: Duration = Duration::from_secs(60);

/// The next look is due after this, if nothing is known that makes one due earlier.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// What is told of a look that did not come to its end.
const ENDED_BY_ITSELF: &str = "the look at it ended by itself; the log says why";

/// A look that has ended.
pub(super) struct Looked {
    /// The repository.
    pub repository: RepositoryId,
    /// When it began.
    pub began: Moment,
    /// When it ended.
    pub ended: Moment,
    /// What the repository's runners were before it began.
    pub marks: OfOne,
    /// What it asked for.
    pub look: Look,
    /// It was asked for, apart from the pace.
    pub asked: bool,
    /// Whether it is continued.
    pub unfinished: bool,
    /// What it has shown.
    pub result: Result<JobListing, Error>,
}

impl Daemon {
    /// Takes what is hinted at into the schedule.
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

    /// What the schedule may ask with a payer's credentials.
    fn budget(&self) -> impl Fn(&str) -> Budget + use<> {
        let (github, leads, longest_hot) =
            (self.github.clone(), self.leadership.holds(), self.config.loop_interval);
        move |payer| Budget { headroom: github.headroom(payer), leads, longest_hot }
    }

    /// When something is to be looked at next.
    fn next_look(&self) -> Instant {
        let longest = Instant::now() + LONGEST_WAIT;
        if self.marks.is_none() || self.looks.len() >= MOST_LOOKS {
            return longest;
        }
        let next = self.schedule.next(self.now(), self.budget());
        next.map_or(longest, |next| longest.min(self.epoch + next))
    }

    /// How often what is seen in full, for Stops and purges, is seen at least while runners of ours are there.
    pub(super) fn active_every(&self) -> Duration {
        self.config.loop_interval.min(ACTIVE_EVERY)
    }

    /// Begins the looks that are due.
    pub(super) fn look_around(&mut self) {
        // What Nomad was like before a look began is what the look is held against.
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
            let github = if asked { self.github.clone() } else { self.github.by_the_pace() };
            let epoch = self.epoch;
            self.looks.spawn(async move {
                // A repository whose look ended by itself would count as looked at for ever.
                let asked_for =
                    AssertUnwindSafe(github.look(&repository, look, LOOK_WITHIN)).catch_unwind().await;
                let result = asked_for.unwrap_or_else(|_| Err(Error::Unexpected(ENDED_BY_ITSELF.to_owned())));
                Looked {
                    repository: repository.id,
                    began: now,
                    ended: epoch.elapsed(),
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

    /// Takes in what a look has shown. Whether that calls for a pass.
    pub(super) fn looked(&mut self, looked: Looked) -> News {
        let id = looked.repository;
        self.status.look(looked.look.as_str(), looked.ended.saturating_sub(looked.began));
        if let Err(Error::RateLimited { until, .. }) = &looked.result {
            self.schedule.pause(id, until.saturating_duration_since(self.epoch));
        }
        let mut seen = Seen {
            at: looked.ended,
            took: looked.ended.saturating_sub(looked.began),
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
        }
        tracing::debug!(
            repository = id.0,
            look = looked.look.as_str(),
            asked = looked.asked,
            took = ?seen.took,
            requests = seen.requests,
            "looked at a repository"
        );
        let (news, has_jobs) = self.github_side.learn(looked, &self.interest);
        seen.ours |= has_jobs;
        self.schedule.seen(id, &seen);
        self.looks_due = self.looks_due.min(Instant::now() + LOOKS_TOGETHER);
        news
    }

    /// Looks at all repositories at once, in full.
    pub(super) async fn look_at_everything(&mut self) {
        let nomad = match self.nomad.observe().await {
            Ok(nomad) => nomad,
            // The pass says it.
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

    /// Says once what to expect of the schedule, where it is not a matter of seconds.
    pub(super) fn say_forecast(&mut self) {
        if self.forecast_said || self.schedule.is_empty() || self.dry_run {
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
