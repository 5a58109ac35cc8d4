//! `warm.schedule`: windows of time in a week, in a time zone: `Mon-Fri 07:00-19:00, Sat 09:00-13:00 Europe/Berlin`.

use std::fmt;

use jiff::{
    SignedDuration, Timestamp,
    civil::{Date, Time, Weekday},
    tz::TimeZone,
};

use crate::labels::harmless;

/// The longest schedule, in characters.
const LENGTH_MAX: usize = 200;

/// The days of a week, from Monday.
const DAYS: [(&str, Weekday); 7] = [
    ("Mon", Weekday::Monday),
    ("Tue", Weekday::Tuesday),
    ("Wed", Weekday::Wednesday),
    ("Thu", Weekday::Thursday),
    ("Fri", Weekday::Friday),
    ("Sat", Weekday::Saturday),
    ("Sun", Weekday::Sunday),
];

/// The minutes of a day.
const DAY: u16 = 24 * 60;

/// A window begins within this many days of any instant.
const DAYS_AHEAD: i64 = 8;

/// Windows of time that repeat each week.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hours {
    /// As written.
    text: String,
    windows: Vec<Window>,
    zone: TimeZone,
}

/// A window of each of these days. It ends on the next day if its end is not after its start.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Window {
    days: Vec<Weekday>,
    /// In minutes from midnight.
    start: u16,
    /// Up to [`DAY`].
    end: u16,
}

impl Hours {
    /// Parses windows, each with days (or every day) and times (or the whole day), and at the end an IANA time zone (or
    /// UTC).
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn parse(text: &str) -> Result<Hours, String> {
        if text.chars().count() > LENGTH_MAX {
            return Err(format!("it is longer than {LENGTH_MAX} characters"));
        }
        let mut windows: Vec<Window> = Vec::new();
        let mut days: Vec<Weekday> = Vec::new();
        // Whether the days so far have times.
        let mut has_times = false;
        let mut zone = None;
        for word in text.split([',', ' ']).filter(|word| !word.is_empty()) {
            if zone.is_some() {
                return Err(format!("\"{}\" comes after the time zone", harmless(word)));
            }
            if let Some(named) = days_of(word) {
                if std::mem::take(&mut has_times) {
                    days.clear();
                }
                days.extend(named.into_iter().filter(|day| !days.contains(day)).collect::<Vec<_>>());
            } else if let Some(times) = times_of(word) {
                let (start, end) = times?;
                let of = if days.is_empty() { all_days() } else { days.clone() };
                windows.push(Window { days: of, start, end });
                has_times = true;
            } else {
                zone = Some(zone_of(word)?);
            }
        }
        if !days.is_empty() && !has_times {
            windows.push(Window { days, start: 0, end: DAY });
        }
        if windows.is_empty() {
            return Err("it has neither days nor times".to_owned());
        }
        Ok(Hours { text: text.to_owned(), windows, zone: zone.unwrap_or(TimeZone::UTC) })
    }

    /// Whether one of the windows is open.
    pub fn are_open(&self, at: Timestamp) -> bool {
        // One that began yesterday may last until today.
        self.around(at, -1, 0).any(|(start, end)| start <= at && at < end)
    }

    /// When the next window opens.
    pub fn next_opening(&self, at: Timestamp) -> Option<Timestamp> {
        self.around(at, 0, DAYS_AHEAD).map(|(start, _)| start).filter(|start| *start > at).min()
    }

    /// The windows that begin on these days, counted from the current one.
    fn around(&self, at: Timestamp, from: i64, to: i64) -> impl Iterator<Item = (Timestamp, Timestamp)> {
        let today = at.to_zoned_datetime(self.zone.clone()).date();
        let days =
            (from..=to).filter_map(move |days| today.checked_add(SignedDuration::from_hours(24 * days)).ok());
        days.flat_map(move |date| self.windows.iter().filter_map(move |window| self.on(window, date)))
    }

    /// A window that begins on this date.
    fn on(&self, window: &Window, date: Date) -> Option<(Timestamp, Timestamp)> {
        if !window.days.contains(&date.weekday()) {
            return None;
        }
        let ends_tomorrow = window.end <= window.start || window.end == DAY;
        let last = if ends_tomorrow { date.tomorrow().ok()? } else { date };
        // A time that the clocks skip is as much later. Of a time that occurs twice, the first is a start and the second
        // is an end.
        let start = self.zone.to_ambiguous_timestamp(date.to_datetime(time(window.start)?)).compatible();
        let end = self.zone.to_ambiguous_timestamp(last.to_datetime(time(window.end % DAY)?)).later();
        Some((start.ok()?, end.ok()?))
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn all_days() -> Vec<Weekday> {
    DAYS.iter().map(|(_, day)| *day).collect()
}

fn time(minutes: u16) -> Option<Time> {
    Time::new(i8::try_from(minutes / 60).ok()?, i8::try_from(minutes % 60).ok()?, 0, 0).ok()
}

/// `Mon`, or `Fri-Mon`; `None` if it is something else.
fn days_of(word: &str) -> Option<Vec<Weekday>> {
    let position = |name: &str| DAYS.iter().position(|(day, _)| day.eq_ignore_ascii_case(name));
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    let (first, last) = (position(first)?, position(last)?);
    let length = (last + DAYS.len() - first) % DAYS.len();
    Some((first..=first + length).map(|at| DAYS[at % DAYS.len()].1).collect())
}

/// `07:00-19:00` in minutes; `None` if it is something else.
fn times_of(word: &str) -> Option<Result<(u16, u16), String>> {
    if !word.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let minutes = |text: &str| {
        let (hours, minutes) = text.split_once(':')?;
        let is_number = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        let (hours, minutes): (u16, u16) = match is_number(hours) && is_number(minutes) {
            true => (hours.parse().ok()?, minutes.parse().ok()?),
            false => return None,
        };
        (minutes < 60 && hours * 60 + minutes <= DAY).then_some(hours * 60 + minutes)
    };
    let times = word.split_once('-').and_then(|(start, end)| Some((minutes(start)?, minutes(end)?)));
    Some(match times {
        Some((start, end)) if start < DAY && start != end => Ok((start, end)),
        Some(_) => Err(format!("\"{}\" has no length", harmless(word))),
        None => Err(format!("\"{}\" is not two times like 07:00-19:00", harmless(word))),
    })
}

fn zone_of(word: &str) -> Result<TimeZone, String> {
    let unknown = || {
        format!(
            "\"{}\" is neither a day (Mon), nor times (07:00-19:00), nor an IANA time zone",
            harmless(word)
        )
    };
    // A name is a path in the system's database.
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '-' | '+');
    if !word.chars().all(is_name) || word.starts_with('/') {
        return Err(unknown());
    }
    TimeZone::get(word).map_err(|_| unknown())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(text: &str) -> Hours {
        Hours::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"))
    }

    fn is_open(text: &str, at: &str) -> bool {
        hours(text).are_open(at.parse().unwrap())
    }

    #[test]
    fn windows_open_and_close_on_their_days_in_their_zone() {
        const WORK: &str = "Mon-Fri 07:00-19:00 Europe/Berlin";
        // A Monday in winter, UTC+1, and one in summer, UTC+2.
        for (at, open) in [
            ("2026-01-05T05:59:59Z", false),
            ("2026-01-05T06:00:00Z", true),
            ("2026-01-05T17:59:59Z", true),
            ("2026-01-05T18:00:00Z", false),
            ("2026-07-06T04:59:59Z", false),
            ("2026-07-06T05:00:00Z", true),
            ("2026-07-06T17:00:00Z", false),
            ("2026-01-03T12:00:00Z", false),
            ("2026-01-04T12:00:00Z", false),
        ] {
            assert_eq!(is_open(WORK, at), open, "{at}");
        }
    }

    #[test]
    fn days_times_and_zone_may_each_be_missing() {
        assert!(is_open("09:00-10:00", "2026-01-04T09:30:00Z"), "every day, in UTC");
        assert!(is_open("Sun", "2026-01-04T23:59:59Z") && !is_open("Sun", "2026-01-05T00:00:00Z"));
        assert!(is_open("sat-MON 00:00-24:00 UTC", "2026-01-05T23:59:00Z"), "over the end of a week");
        let many = "Mon,Wed 08:00-09:00, 10:00-11:00, Sat 12:00-13:00 UTC";
        for (at, open) in [
            ("2026-01-07T08:30:00Z", true),
            ("2026-01-07T09:30:00Z", false),
            ("2026-01-07T10:30:00Z", true),
            ("2026-01-06T10:30:00Z", false),
            ("2026-01-10T12:30:00Z", true),
            ("2026-01-10T10:30:00Z", false),
        ] {
            assert_eq!(is_open(many, at), open, "{at}");
        }
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_on_which_it_begins() {
        const NIGHT: &str = "Fri 22:00-06:00 UTC";
        assert!(is_open(NIGHT, "2026-01-09T22:00:00Z") && is_open(NIGHT, "2026-01-10T05:59:59Z"));
        assert!(!is_open(NIGHT, "2026-01-10T06:00:00Z") && !is_open(NIGHT, "2026-01-09T05:00:00Z"));
    }

    #[test]
    fn the_days_on_which_clocks_change_are_as_the_zone_has_them() {
        // On 29 March 2026, 02:00 becomes 03:00 in Berlin. On 25 October, 03:00 becomes 02:00.
        for (text, at, open) in [
            ("Sun 01:00-04:00 Europe/Berlin", "2026-03-29T00:00:00Z", true),
            ("Sun 01:00-04:00 Europe/Berlin", "2026-03-29T01:59:59Z", true),
            ("Sun 01:00-04:00 Europe/Berlin", "2026-03-29T02:00:00Z", false),
            ("Sun 02:30-05:00 Europe/Berlin", "2026-03-29T01:29:59Z", false),
            ("Sun 02:30-05:00 Europe/Berlin", "2026-03-29T01:30:00Z", true),
            ("Sun 01:00-02:30 Europe/Berlin", "2026-10-25T01:29:59Z", true),
            ("Sun 01:00-02:30 Europe/Berlin", "2026-10-25T01:30:00Z", false),
            ("Sat 22:00-06:00 Europe/Berlin", "2026-10-25T04:59:59Z", true),
            ("Sat 22:00-06:00 Europe/Berlin", "2026-10-25T05:00:00Z", false),
        ] {
            assert_eq!(is_open(text, at), open, "{text} at {at}");
        }
    }

    #[test]
    fn the_next_opening_is_found_over_a_week() {
        let next = |text: &str, at: &str| hours(text).next_opening(at.parse().unwrap()).unwrap().to_string();
        assert_eq!(next("Mon-Fri 07:00-19:00 Europe/Berlin", "2026-03-27T20:00:00Z"), "2026-03-30T05:00:00Z");
        assert_eq!(next("Mon 07:00-08:00", "2026-01-05T07:00:00Z"), "2026-01-12T07:00:00Z");
    }

    #[test]
    fn what_is_no_schedule_is_refused_with_a_reason() {
        for (text, why) in [
            ("", "neither days nor times"),
            ("Europe/Berlin", "neither days nor times"),
            ("Mon 7-19", "not two times"),
            ("Mon 07:00-25:00", "not two times"),
            ("Mon 07:60-08:00", "not two times"),
            ("Mon 07:00-07:00", "no length"),
            ("Mon 24:00-08:00", "no length"),
            ("Mon-Fri 07:00-19:00 Europe/Atlantis", "IANA time zone"),
            ("Mon-Fri 07:00-19:00 ../../etc/passwd", "IANA time zone"),
            ("Montag 07:00-19:00", "IANA time zone"),
            ("07:00-19:00 UTC Mon", "after the time zone"),
            (&"Mon ".repeat(60), "longer than"),
        ] {
            let refused = Hours::parse(text).unwrap_err();
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }
}
