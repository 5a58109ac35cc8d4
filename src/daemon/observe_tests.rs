use super::*;
use crate::{
    github::JobListing,
    labels::LabelRules,
    model::{JobId, RunId, RunnerMeta, RunnerState},
};

fn repository(id: u64) -> Repository {
    Repository {
        id: RepositoryId(id),
        owner: "acme".to_owned(),
        name: format!("r{id}"),
        html_url: format!("https://github.com/acme/r{id}"),
        archived: false,
        disabled: false,
        visibility: crate::model::Visibility::default(),
    }
}

fn runner(name: &str, repo_id: Option<u64>, repo_url: &str, state: RunnerState) -> Runner {
    Runner {
        name: name.to_owned(),
        namespace: None,
        ownership: if repo_id.is_some() { Ownership::Ours } else { Ownership::Nomadtools },
        meta: RunnerMeta {
            labelsstr: "nomadtools".to_owned(),
            repo_url: repo_url.to_owned(),
            version: String::new(),
            deployment: None,
            repo_id: repo_id.map(RepositoryId),
            purpose: None,
            attempt: None,
            registration: None,
            task: None,
            asks: None,
            class: None,
            mac: None,
        },
        state,
        finish: None,
        started: false,
        spent: false,
        ending: false,
        lost: None,
        variable: None,
        submitted_at: Timestamp::UNIX_EPOCH,
        allocation: None,
        started_at: None,
        ended_at: None,
        blocked: None,
        last_event: None,
    }
}

fn nomad(runners: Vec<Runner>) -> NomadView {
    NomadView {
        now: Timestamp::UNIX_EPOCH,
        deployment: "i".to_owned(),
        runners,
        foreign: Vec::new(),
        variables: BTreeSet::new(),
        unseen: std::collections::BTreeMap::new(),
    }
}

/// Three configured repositories, and a view of Nomad.
fn side(nomad: &NomadView) -> GitHubSide {
    let mut side = GitHubSide::default();
    side.resolved(Resolution { repositories: (1..=3).map(repository).collect(), ..Resolution::default() });
    side.want(nomad);
    side
}

fn looked(id: u64, error: Error) -> Looked {
    Looked {
        repository: RepositoryId(id),
        began: Moment::START,
        ended: Moment::START,
        marks: OfOne::default(),
        look: Look::Newest,
        asked: false,
        unfinished: false,
        result: Err(error),
    }
}

fn marks(side: &GitHubSide, nomad: &NomadView) -> Marks {
    Marks::new(nomad, |runner| side.repository_of(runner))
}

#[test]
fn a_nomadtools_runner_affects_only_its_repository() {
    let url = "https://github.com/Acme/R2";
    let view = nomad(vec![runner("theirs", None, url, RunnerState::Running)]);
    let side = side(&view);
    let seen = marks(&side, &view);
    assert_eq!(seen.live().collect::<Vec<_>>(), [&RepositoryId(2)]);
    assert!(!seen.of(RepositoryId(1)).any() && seen.of(RepositoryId(2)).any_live());
    // A runner of a repository that is not watched affects none.
    let elsewhere = nomad(vec![runner("theirs", None, "https://x/y/z", RunnerState::Running)]);
    assert_eq!(marks(&side, &elsewhere).live().count(), 0);
}

#[test]
fn changes_outdate_a_listing_and_only_a_runner_that_no_longer_serves_requests_a_look() {
    let of = |state| nomad(vec![runner("ours", Some(1), "https://github.com/acme/r1", state)]);
    let serving = of(RunnerState::Pending);
    let side = side(&serving);
    let id = RepositoryId(1);
    let before = marks(&side, &serving).of(id);
    for (state, still, lacks) in [
        (RunnerState::Pending, true, false),
        (RunnerState::Running, true, false),
        (RunnerState::Stopping, false, true),
        (RunnerState::Dead, false, true),
    ] {
        let now = marks(&side, &of(state));
        assert_eq!((now.are_still(id, &before), now.lack(id, &before)), (still, lacks), "{state}");
    }
    let gone = marks(&side, &nomad(vec![]));
    assert_eq!((gone.are_still(id, &before), gone.lack(id, &before)), (false, true));
    let added = marks(&side, &serving);
    let none = OfOne::default();
    assert_eq!((added.are_still(id, &none), added.lack(id, &none)), (false, false));
}

#[test]
fn an_outage_is_reported_by_a_few_lines_while_it_lasts() {
    let mut side = side(&nomad(vec![]));
    side.resolved(Resolution { repositories: (1..=500).map(repository).collect(), ..Resolution::default() });
    side.want(&nomad(vec![]));
    let interest = Interest::new(&LabelRules::new("nomadtools").unwrap(), "ghr");
    let is_news = |side: &mut GitHubSide, id| {
        side.learn(looked(id, Error::Unexpected("status 502".to_owned())), &interest).0 != News::No
    };
    assert!((1..=500).all(|id| is_news(&mut side, id)));
    assert!(!is_news(&mut side, 7), "it is known");
    let told = side.trouble();
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(told[0].text.starts_with("acme/r1: ") && told[0].text.contains("status 502"), "{told:?}");
    assert_eq!((told[0].subject.as_str(), told[0].kind), ("acme/r1", "unexpected"));
    assert_eq!(told[3].text, "497 more repositories could not be read");
    assert_eq!(side.trouble(), told);
}

#[test]
fn the_first_look_at_a_repository_needs_a_pass_only_if_there_is_something_to_do() {
    let mut side = side(&nomad(vec![]));
    let interest = Interest::new(&LabelRules::new("nomadtools").unwrap(), "ghr");
    let job = |label: &str| WorkflowJob {
        id: JobId(1),
        run_id: RunId(1),
        repository: RepositoryId(1),
        name: "build".to_owned(),
        status: JobStatus::Queued,
        labels: vec![label.to_owned()].into(),
        runner_name: None,
        created_at: None,
        started_at: None,
        html_url: None,
        run: Default::default(),
    };
    let mut seen = |id, jobs| {
        let listing = JobListing {
            now: Timestamp::UNIX_EPOCH,
            jobs,
            ended: Vec::new(),
            missing: None,
            look: Look::Newest,
            newest_run: None,
            has_runs: Some(true),
            requests: 1,
        };
        side.learn(Looked { result: Ok(listing), ..looked(id, Error::OutOfTime) }, &interest)
    };
    assert_eq!(seen(1, vec![]), (News::Later, false));
    assert_eq!(seen(1, vec![]), (News::No, false), "it is known");
    assert_eq!(seen(1, vec![job("nomadtools")]), (News::Now, true));
    assert_eq!(seen(2, vec![job("others")]), (News::Later, false));
    assert_eq!(seen(3, vec![job("nomadtools")]), (News::Now, true));
}

#[test]
fn a_changed_set_of_repositories_is_reported_once() {
    let mut side = side(&nomad(vec![]));
    assert!(side.has_news() && !side.has_news());
    side.want(&nomad(vec![]));
    assert!(!side.has_news());
    side.want(&nomad(vec![runner("ours", Some(9), "https://github.com/acme/r9", RunnerState::Running)]));
    assert!(side.has_news());
    side.want(&nomad(vec![]));
    assert!(side.has_news(), "it is not watched any more");
    let mut renamed = repository(2);
    renamed.name = "other".to_owned();
    side.resolved(Resolution {
        repositories: vec![repository(1), renamed, repository(3)],
        ..Resolution::default()
    });
    side.want(&nomad(vec![]));
    assert!(side.has_news());
}
