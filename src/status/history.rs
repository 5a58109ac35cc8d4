//! The last hour, with a point per minute, and the latest events.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use jiff::Timestamp;
use serde::Serialize;

use super::snapshot::{Deed, safe};
use crate::model::Unobserved;

/// At most this many points are kept.
const MINUTES: usize = 60;

/// At most this many waiting times are kept per minute; more would hardly change the percentiles.
const WAITS: usize = 1000;

/// At most this many events are kept.
const EVENTS: usize = 200;

/// One minute.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    /// When it began.
    pub at: Timestamp,
    /// The number of queued jobs, as last seen.
    pub queued: usize,
    /// The number of held jobs.
    pub held: usize,
    /// The number of running jobs.
    pub running: usize,
    /// The number of jobs that were taken in this minute.
    pub taken: usize,
    /// The median of their waiting times, in seconds.
    pub queue_p50_seconds: Option<f64>,
    /// The 95th percentile of their waiting times.
    pub queue_p95_seconds: Option<f64>,
}

#[derive(Debug)]
struct Minute {
    at: Timestamp,
    counts: (usize, usize, usize),
    taken: usize,
    waits: Vec<Duration>,
}

/// The last hour.
#[derive(Debug, Default)]
pub(super) struct History(VecDeque<Minute>);

impl History {
    /// Records a pass: the numbers of jobs queued, held and running, and the waiting times of those that were
    /// taken.
    pub fn see(&mut self, now: Timestamp, counts: (usize, usize, usize), waits: &[Duration]) {
        let second = now.as_second();
        let at = Timestamp::from_second(second - second.rem_euclid(60)).unwrap_or(now);
        // A clock that is set back does not create a second point for a minute.
        if self.0.back().is_none_or(|last| last.at < at) {
            self.0.push_back(Minute { at, counts, taken: 0, waits: Vec::new() });
        }
        while self.0.len() > MINUTES {
            self.0.pop_front();
        }
        let Some(minute) = self.0.back_mut() else { return };
        minute.counts = counts;
        minute.taken += waits.len();
        let room = WAITS.saturating_sub(minute.waits.len());
        minute.waits.extend(waits.iter().take(room));
    }

    /// One point per minute.
    pub fn points(&self) -> Vec<Point> {
        let point = |minute: &Minute| {
            let (queued, held, running) = minute.counts;
            let mut waits = minute.waits.clone();
            waits.sort_unstable();
            Point {
                at: minute.at,
                queued,
                held,
                running,
                taken: minute.taken,
                queue_p50_seconds: percentile(&waits, 50),
                queue_p95_seconds: percentile(&waits, 95),
            }
        };
        self.0.iter().map(point).collect()
    }

    /// The median and the 95th percentile of the waiting times of jobs taken within the hour, in seconds.
    pub fn percentiles(&self) -> (Option<f64>, Option<f64>) {
        let mut waits: Vec<Duration> =
            self.0.iter().flat_map(|minute| minute.waits.iter().copied()).collect();
        waits.sort_unstable();
        (percentile(&waits, 50), percentile(&waits, 95))
    }
}

/// The smallest of the sorted values that `of_100` of 100 do not exceed.
fn percentile(sorted: &[Duration], of_100: usize) -> Option<f64> {
    let rank = (sorted.len() * of_100).div_ceil(100);
    sorted.get(rank.checked_sub(1)?).map(Duration::as_secs_f64)
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    pub at: Timestamp,
    /// `action`, `error` or `leadership`.
    pub kind: &'static str,
    /// Whether an operator should look at it.
    pub failed: bool,
    /// The affected runner.
    pub runner: Option<String>,
    /// For display.
    pub text: String,
}

/// The latest events, the newest last.
#[derive(Debug, Default)]
pub(super) struct Events {
    last: VecDeque<Event>,
    /// The subjects and kinds of the last pass's errors.
    errors: BTreeSet<(String, &'static str)>,
    led: Option<bool>,
}

impl Events {
    /// Records what a pass did, what it could not observe, and whether this replica is the leader.
    pub fn see(&mut self, at: Timestamp, deeds: &[Deed], errors: &[Unobserved], leads: bool) {
        // Verifications change nothing.
        for deed in deeds.iter().filter(|deed| deed.failed || deed.action != "verify_registration") {
            let runner = Some(deed.runner.clone());
            self.push(Event { at, kind: "action", failed: deed.failed, runner, text: deed.text.clone() });
        }
        let key = |error: &Unobserved| (error.subject.clone(), error.kind);
        for error in errors.iter().filter(|error| !self.errors.contains(&key(error))).collect::<Vec<_>>() {
            self.push(Event { at, kind: "error", failed: true, runner: None, text: safe(&error.text) });
        }
        self.errors = errors.iter().map(key).collect();
        if self.led.replace(leads).is_some_and(|led| led != leads) {
            let text =
                if leads { "this replica is now the leader" } else { "this replica is no longer the leader" };
            let text = text.to_owned();
            self.push(Event { at, kind: "leadership", failed: false, runner: None, text });
        }
    }

    fn push(&mut self, event: Event) {
        if self.last.len() >= EVENTS {
            self.last.pop_front();
        }
        self.last.push_back(event);
    }

    /// The newest first.
    pub fn newest_first(&self) -> Vec<Event> {
        self.last.iter().rev().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn an_hour_is_kept_with_a_point_per_minute() {
        let mut history = History::default();
        let waits: Vec<Duration> = (1..=100).map(Duration::from_secs).collect();
        history.see(at(0), (3, 1, 2), &waits);
        history.see(at(59), (2, 0, 3), &[]);
        let point = history.points().pop().unwrap();
        assert_eq!((point.queued, point.held, point.running, point.taken), (2, 0, 3, 100));
        assert_eq!((point.queue_p50_seconds, point.queue_p95_seconds), (Some(50.0), Some(95.0)));
        history.see(at(30), (9, 9, 9), &[]);
        assert_eq!(history.points().len(), 1, "a clock that is set back");
        for minute in 1..100 {
            history.see(at(minute * 60), (0, 0, 0), &vec![Duration::from_secs(7); 2 * WAITS]);
        }
        let points = history.points();
        assert_eq!((points.len(), points[0].at), (MINUTES, at(40 * 60)));
        assert_eq!(points[0].taken, 2 * WAITS);
        assert_eq!(history.percentiles(), (Some(7.0), Some(7.0)));
        assert!(history.0.iter().all(|minute| minute.waits.len() == WAITS));
    }

    #[test]
    fn a_lasting_error_is_one_event_and_events_are_limited() {
        let mut events = Events::default();
        let error = |owner: &str, seconds: u32| {
            let text =
                format!("{owner}: GitHub's rate limit is exhausted: no requests for another {seconds} s");
            [Unobserved { subject: owner.to_owned(), kind: "rate_limited", text }]
        };
        events.see(at(0), &[], &error("acme1", 60), true);
        events.see(at(1), &[], &error("acme1", 59), true);
        assert_eq!(events.newest_first().len(), 1);
        events.see(at(1), &[], &error("acme2", 59), true);
        assert_eq!(events.newest_first().len(), 2, "numbers in names count");
        events.see(at(2), &[], &[], false);
        events.see(at(3), &[], &error("acme1", 60), false);
        let kinds: Vec<&str> = events.newest_first().iter().map(|event| event.kind).collect();
        assert_eq!(kinds, ["error", "leadership", "error", "error"]);
        for number in 0..1000 {
            events.see(at(number), &[], &[], number % 2 == 0);
        }
        assert_eq!(events.newest_first().len(), EVENTS);
    }
}
