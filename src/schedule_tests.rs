use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const BUDGET: Budget = Budget {
    headroom: Headroom { a_minute: 630.0, for_pace: 560.0, ahead: true },
    leads: true,
    longest_hot: Duration::from_secs(60),
};

const ROOM: Room = Room { all: 24, by_pace: 16 };

const ALL: [Heat; 4] = [Heat::Hot, Heat::Warm, Heat::Cold, Heat::Unused];

fn hot(schedule: &Schedule, now: Moment) -> usize {
    schedule.places.values().filter(|place| place.heat(now) == Heat::Hot).count()
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn at(seconds: u64) -> Moment {
    Moment::after_start(secs(seconds))
}

fn schedule(count: u64) -> Schedule {
    let mut schedule = Schedule::default();
    let pushed = |id: u64| Timestamp::from_second(i64::try_from(id).unwrap()).ok();
    schedule.know((0..count).map(|id| (RepositoryId(id), String::new(), pushed(id))));
    schedule
}

fn seen(at: Moment) -> Seen {
    Seen {
        at,
        took: Duration::from_millis(100),
        failed: false,
        unfinished: false,
        ours: false,
        newest_run: Some(secs(7200)),
        unused: false,
        requests: 1,
    }
}

/// Runs the schedule for a while, and returns when each repository was polled.
fn go_on(
    schedule: &mut Schedule,
    from: Moment,
    until: Moment,
    budget: Budget,
    look: impl Fn(RepositoryId, Moment) -> Seen,
) -> BTreeMap<RepositoryId, Vec<Moment>> {
    let mut looks: BTreeMap<RepositoryId, Vec<Moment>> = BTreeMap::new();
    let mut now = from;
    while now < until {
        for (id, _) in schedule.due(now, ROOM, |_| budget) {
            looks.entry(id).or_default().push(now);
            schedule.at_least(id, now);
            schedule.seen(id, &look(id, now + Duration::from_millis(100)));
        }
        let next = schedule.next(now, |_| budget).unwrap_or(until);
        now = next.max(now + Duration::from_millis(20));
    }
    looks
}

fn longest_wait(looks: &[Moment]) -> Duration {
    looks.windows(2).map(|pair| pair[1].since(pair[0])).max().unwrap_or_default()
}

#[test]
fn a_few_repositories_are_polled_every_few_seconds() {
    let mut schedule = schedule(10);
    let looks = go_on(&mut schedule, at(0), at(120), BUDGET, |_, at| seen(at));
    assert_eq!(looks.len(), 10);
    for (id, looks) in looks {
        assert!(longest_wait(&looks) <= Duration::from_millis(3500), "{id}: {looks:?}");
    }
}

#[test]
fn a_thousand_are_seen_within_five_minutes_last_pushed_first_within_the_budget_of_each_minute() {
    let mut schedule = schedule(1000);
    let looks = go_on(&mut schedule, at(0), at(480), BUDGET, |_, at| seen(at));
    let first = |id: u64| looks[&RepositoryId(id)][0];
    assert!((0..1000).all(|id| first(id) <= at(150)));
    assert!((800..1000).all(|id| first(id) <= at(30)), "those pushed to last");
    let mut all: Vec<Moment> = looks.values().flatten().copied().collect();
    all.sort();
    for from in 0..420 {
        let in_a_minute = all.iter().filter(|when| **when >= at(from) && **when < at(from + 60)).count();
        assert!(in_a_minute <= if from < 120 { 630 } else { 530 }, "{in_a_minute} from {from} s on");
    }
    assert!(
        all.iter().filter(|when| **when < at(300)).count() <= 1000,
        "one look each in the first five minutes"
    );
    let longest = looks.values().map(|looks| longest_wait(looks)).max().unwrap();
    assert!(longest <= secs(360), "{longest:?}");
}

#[test]
fn hot_repositories_take_what_they_need_and_leave_the_others_a_share() {
    let mut schedule = schedule(1000);
    let hot = |id: RepositoryId| id.0 < 30;
    let look = |id: RepositoryId, at| Seen { ours: hot(id), ..seen(at) };
    go_on(&mut schedule, at(0), at(200), BUDGET, look);
    let looks = go_on(&mut schedule, at(200), at(1100), BUDGET, look);
    for (id, looks) in &looks {
        let most = if hot(*id) { secs(10) } else { secs(500) };
        assert!(longest_wait(looks) <= most, "{id}: {:?}", longest_wait(looks));
    }
    assert_eq!(looks.len(), 1000);
}

#[test]
fn a_hint_causes_a_look_at_once_even_if_the_pace_is_used_up() {
    let mut schedule = schedule(1000);
    go_on(&mut schedule, at(0), at(150), BUDGET, |_, at| seen(at));
    let now = at(150);
    while !schedule.due(now, ROOM, |_| BUDGET).is_empty() {}
    schedule.hint(RepositoryId(3), now, AFTER_WEBHOOK);
    assert_eq!(schedule.due(now, ROOM, |_| BUDGET), [(RepositoryId(3), true)]);
    // It stays hot for a while.
    schedule.seen(RepositoryId(3), &seen(now));
    assert_eq!(hot(&schedule, now), 1);
    assert_eq!(hot(&schedule, now + AFTER_WEBHOOK), 0);
}

#[test]
fn scheduled_looks_leave_room_for_a_requested_one() {
    let mut schedule = schedule(1000);
    let full = Room { all: 8, by_pace: 0 };
    assert_eq!(schedule.due(at(0), full, |_| BUDGET), []);
    schedule.hint(RepositoryId(3), at(0), AFTER_WEBHOOK);
    assert_eq!(schedule.due(at(0), full, |_| BUDGET), [(RepositoryId(3), true)]);
}

#[test]
fn slow_and_failing_repositories_are_polled_less_and_cost_the_others_nothing() {
    let mut schedule = schedule(10);
    let slow = |id: RepositoryId, at: Moment| match id.0 {
        0 => Seen { took: secs(9), ..seen(at) },
        1 => Seen { failed: true, ..seen(at) },
        _ => seen(at),
    };
    let looks = go_on(&mut schedule, at(0), at(3000), BUDGET, slow);
    assert!(looks[&RepositoryId(0)].len() <= 3000 / 27 + 2);
    assert!(looks[&RepositoryId(1)].len() <= 20, "{:?}", looks[&RepositoryId(1)]);
    assert!(longest_wait(&looks[&RepositoryId(1)]) <= secs(310));
    assert!((2..10).all(|id| longest_wait(&looks[&RepositoryId(id)]) <= Duration::from_millis(3500)));
}

#[test]
fn a_limit_stops_one_payer_and_no_other() {
    let mut schedule = Schedule::default();
    let payer = |id: u64| if id < 5 { "one" } else { "other" }.to_owned();
    schedule.know((0..10).map(|id| (RepositoryId(id), payer(id), None)));
    schedule.pause(RepositoryId(0), at(100));
    let looks = go_on(&mut schedule, at(0), at(90), BUDGET, |_, at| seen(at));
    assert_eq!(looks.keys().map(|id| id.0).collect::<Vec<_>>(), [5, 6, 7, 8, 9]);
    let looks = go_on(&mut schedule, at(101), at(110), BUDGET, |_, at| seen(at));
    assert_eq!(looks.len(), 10);
}

#[test]
fn a_standby_uses_a_quarter_and_a_replica_short_of_its_primary_limit_lets_cold_repositories_wait() {
    let count = |budget| {
        let mut schedule = schedule(1000);
        go_on(&mut schedule, at(0), at(500), BUDGET, |_, at| seen(at));
        let looks = go_on(&mut schedule, at(500), at(700), budget, |_, at| seen(at));
        looks.values().map(Vec::len).sum::<usize>()
    };
    let full = count(BUDGET);
    let standing_by = count(Budget { leads: false, ..BUDGET });
    let behind = count(Budget { headroom: Headroom { ahead: false, ..BUDGET.headroom }, ..BUDGET });
    assert!((1200..1500).contains(&full), "{full}");
    assert!(standing_by <= full / 4 + 50, "{standing_by} of {full}");
    assert!(behind <= full / 4 + 50, "{behind} of {full}");
}

#[test]
fn unused_repositories_wait_an_hour_if_there_are_many() {
    let look = |id: RepositoryId, at| Seen {
        unused: id.0 < 500,
        newest_run: (id.0 >= 500).then_some(secs(7200)),
        ..seen(at)
    };
    let mut many = schedule(1000);
    let looks = go_on(&mut many, at(0), at(300), BUDGET, look);
    assert!((0..500).all(|id| looks[&RepositoryId(id)].len() == 1));
    let mut few = schedule(20);
    let looks =
        go_on(&mut few, at(0), at(60), BUDGET, |_, at| Seen { unused: true, newest_run: None, ..seen(at) });
    assert!(looks.values().all(|looks| longest_wait(looks) <= secs(5)));
}

#[test]
fn the_slower_lists_are_spread_and_requested_every_ten_minutes_and_every_six_hours() {
    let mut schedule = schedule(100);
    let mut queued = vec![0; 100];
    let mut all = vec![0; 100];
    for minute in 0..24 * 60 {
        let now = at(minute * 60);
        for id in 0..100 {
            schedule.seen(RepositoryId(id), &seen(now));
            match schedule.at_least(RepositoryId(id), now) {
                Look::Queued => queued[usize::try_from(id).unwrap()] += 1,
                Look::All => all[usize::try_from(id).unwrap()] += 1,
                look => assert_eq!(look, Look::Newest),
            }
        }
        if minute == 0 {
            assert!(queued.iter().chain(&all).all(|count| *count == 0), "not with the first look");
        }
    }
    assert!(all.iter().all(|count| (3..=4).contains(count)), "{all:?}");
    assert!(queued.iter().all(|count| (132..=144).contains(count)), "{queued:?}");
}

#[test]
fn a_forecast_says_how_soon_a_job_is_seen_and_what_that_costs() {
    let said =
        |count, pushes, webhook| Forecast::new(count, &BUDGET, HintSources { pushes, webhook }).to_string();
    assert_eq!(
        said(1000, true, true),
        "1000 repositories on one credential: each is polled every 2m38s, with about 378 requests a minute, which do not \
         count against the hourly limit while nothing changes; a queued job is seen within 2s of its webhook, within 8s of \
         a push, within 2m38s in any case"
    );
    assert_eq!(
        said(1, false, false),
        "1 repository on one credential: it is polled every 3s, with about 20 requests a minute, which do not count \
         against the hourly limit while nothing changes; a queued job is seen within 3s in any case"
    );
    // The schedule keeps to it.
    for count in [10, 300] {
        let forecast = Forecast::new(count, &BUDGET, HintSources::default());
        let mut schedule = schedule(count as u64);
        go_on(&mut schedule, at(0), at(100), BUDGET, |_, at| seen(at));
        let looks = go_on(&mut schedule, at(100), at(300), BUDGET, |_, at| seen(at));
        let longest = looks.values().map(|looks| longest_wait(looks)).max().unwrap();
        assert!(longest <= forecast.every * 5 / 4 + secs(1), "{count}: {longest:?}, {forecast}");
    }
}

proptest! {
    /// The pace never exceeds its share of the budget, and the longest interval follows from it.
    #[test]
    fn no_pace_takes_more_than_the_budget(
        counts in prop::array::uniform4(0_usize..3000),
        cost in 1_u32..40,
        a_minute in 20_u32..700,
        leads: bool,
        ahead: bool,
    ) {
        let mut load = Load::default();
        for (heat, count) in ALL.into_iter().zip(counts) {
            for _ in 0..count {
                load = load.with(heat, f64::from(cost));
            }
        }
        let headroom = Headroom { a_minute: f64::from(a_minute), for_pace: f64::from(a_minute), ahead };
        let budget = Budget { headroom, leads, longest_hot: secs(60) };
        let pace = Pace::new(&load, &budget);
        let used: f64 = ALL
            .into_iter()
            .zip(counts)
            .map(|(heat, count)| count as f64 * f64::from(cost) * 60.0 / pace.every(heat).as_secs_f64())
            // No interval is longer than an hour.
            .filter(|a_minute| *a_minute > 0.0)
            .sum();
        let by_the_hour = counts.iter().sum::<usize>() as f64 * f64::from(cost) / 60.0;
        prop_assert!(used <= f64::from(a_minute) * 0.81 + by_the_hour + 1.0, "{used} of {a_minute}");
        prop_assert!(pace.every(Heat::Hot) <= pace.every(Heat::Cold) || counts[0] as f64 * f64::from(cost) > 0.0);
    }
}
