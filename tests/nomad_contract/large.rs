//! Lists that are larger than the longest body: what neighbours and failures make large costs itself only.

use githubrunner::http::Request;
use githubrunner::model::{Finish, ForeignReason, NomadView, Registration, RunnerState};
use githubrunner::nomad::{Nomad, Options, prepare};
use serde_json::json;
use tokio::time::Instant;

use crate::place::{ENDS, NAMESPACE, Place, WITHIN, until_state};

/// The longest body here, in bytes.
const MAX_BODY: usize = 60_000;

/// So many of each kind; together they are longer than the longest body.
const MANY: u64 = 5;

/// The length of a start error that fits by itself, in bytes. An event has it four times.
const LARGE: usize = 8_000;

/// The length of one that does not.
const TOO_LARGE: usize = 40_000;

/// The runner whose start error is too large.
const ALONE: u64 = MANY;

/// The number of the foreign job whose Meta is too large by itself.
const FOREIGN_ALONE: u64 = 99;

/// What each of these jobs' start fails with in a simulation: a real agent quotes the command that it cannot run.
pub fn start_errors(place: &Place) -> impl Iterator<Item = (String, String)> {
    (0..=ALONE).map(|number| (place.name(number), command(number)))
}

/// A program that does not exist.
fn command(number: u64) -> String {
    format!("/{}", "x".repeat(if number == ALONE { TOO_LARGE } else { LARGE }))
}

pub async fn reads_the_rest_of_lists_that_are_too_large(place: Place) {
    let whole = place.nomad();
    let limited =
        Nomad::new(Options { max_body: MAX_BODY, ..place.options() }, whole.deployment().await.unwrap())
            .unwrap();
    for number in 0..=ALONE {
        let mut parsed = place.parsed(&whole, ENDS, "").await;
        parsed["TaskGroups"][0]["Tasks"][0]["Config"]["command"] = json!(command(number));
        let meta = place.meta(&whole, number, Registration::AccessToken).await;
        let name = place.name(number);
        let job = prepare(parsed, whole.options(), meta, &name, Registration::AccessToken).unwrap();
        whole.register(&job, None).await.unwrap();
    }
    for (number, bytes) in (10..10 + MANY).map(|number| (number, 20_000)).chain([(FOREIGN_ALONE, 70_000)]) {
        let mut job = place.parsed(&whole, ENDS, "").await;
        job["ID"] = json!(place.name(number));
        job["Meta"] = json!({ "huge": "y".repeat(bytes) });
        let request = Request::put(format!("/v1/jobs?namespace={NAMESPACE}")).json(&json!({ "Job": job }));
        place.send(request).await;
    }
    let good = place.start(&whole, MANY + 1, ENDS).await;
    for number in 0..=ALONE {
        until_state(&whole, &place.name(number), RunnerState::Dead).await;
    }
    let seen = until_state(&limited, &good, RunnerState::Dead).await;
    assert_eq!(seen.finish, Some(Finish::Success));

    let view = until_settled(&limited).await;
    let mut names: Vec<_> = view.runners.iter().map(|runner| runner.name.clone()).collect();
    let mut expected: Vec<_> = (0..=ALONE).map(|number| place.name(number)).chain([good]).collect();
    names.sort();
    expected.sort();
    assert_eq!(names, expected);
    let never_ran = |finish: &Option<Finish>| matches!(finish, Some(Finish::NeverRan { .. }));
    assert_eq!(view.runners.iter().filter(|runner| never_ran(&runner.finish)).count() as u64, MANY);
    // The one that no list holds is known without its tasks; what is foreign costs itself only, and nothing is done to it.
    let unreadable = |name: String| (name, ForeignReason::Unreadable);
    let mut foreign: Vec<_> = view.foreign.into_iter().map(|one| (one.name, one.reason)).collect();
    let mut expected = vec![unreadable(place.name(FOREIGN_ALONE))];
    foreign.sort();
    expected.sort();
    assert_eq!(foreign, expected);
    let alone = limited.read_runner(&place.name(ALONE)).await.unwrap().unwrap();
    assert_eq!(alone.state, RunnerState::Dead);
}

/// What is seen once every job has an end.
async fn until_settled(nomad: &Nomad) -> NomadView {
    let deadline = Instant::now() + WITHIN;
    loop {
        let view = nomad.observe().await.unwrap();
        if view.runners.iter().all(|runner| runner.state == RunnerState::Dead) {
            return view;
        }
        assert!(Instant::now() < deadline, "{:#?}", view.runners);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
