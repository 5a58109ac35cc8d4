//! Lists that are larger than the largest body: entries that neighbours and failures make large affect only
//! themselves.

use githubrunner::{
    http::Request,
    model::{Finish, ForeignReason, NomadView, Registration, RunnerState},
    nomad::{Nomad, Options, prepare},
};
use serde_json::json;
use tokio::time::Instant;

use crate::place::{ENDS, NAMESPACE, Place, WITHIN, until_state};

/// The largest body here, in bytes.
const MAX_BODY: usize = 60_000;

/// The number of each kind; together they are larger than the largest body.
const MANY: u64 = 5;

/// The length of a start error that fits alone, in bytes. An event contains it four times.
const LARGE: usize = 8_000;

/// The length of one that does not fit.
const TOO_LARGE: usize = 40_000;

/// The runner whose start error is too large.
const ALONE: u64 = MANY;

/// The number of the foreign job whose Meta alone is too large.
const FOREIGN_ALONE: u64 = 99;

/// The start errors of these jobs in a simulation: a real agent quotes the command that it cannot run.
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
    // The one that fits in no list is known without its tasks; a foreign one affects only itself, and is left alone.
    let unreadable = |name: String| (name, ForeignReason::Unreadable);
    let mut foreign: Vec<_> = view.foreign.into_iter().map(|one| (one.name, one.reason)).collect();
    let mut expected = vec![unreadable(place.name(FOREIGN_ALONE))];
    foreign.sort();
    expected.sort();
    assert_eq!(foreign, expected);
    let alone = limited.read_runner(&place.name(ALONE)).await.unwrap().unwrap();
    assert_eq!(alone.state, RunnerState::Dead);
}

/// What is observed once every job has ended.
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
