//! The daemon's configuration in a run.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rand::{RngExt, rngs::StdRng};

use crate::{deployment::ELSEWHERE, faults::draw::seconds};

/// The kind of credentials in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// JIT configurations.
    Jit,
    /// Registration tokens; the runners are ephemeral.
    Token,
    /// Registration tokens; the runners are persistent.
    Persistent,
    /// Registration tokens; the runners register under a name other than their Nomad job's.
    Renamed,
    /// The long-lived token in the job, as in nomadtools; the runners are ephemeral.
    AccessToken,
}

/// The entries of `repos`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entries {
    /// Each repository.
    #[default]
    Each,
    /// Their owners.
    Owners,
    /// `*`
    All,
}

/// The daemon's access to GitHub, and where its runners register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Access {
    /// As a GitHub App, or else with a token.
    pub app: bool,
    /// `scope: organization`.
    pub organization: bool,
    /// `runner_group`.
    pub group: bool,
    /// `repos`.
    pub entries: Entries,
}

/// The configured classes: one for jobs with the label `big`, and one for those that request memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Classes {
    /// Whether they are configured.
    pub on: bool,
    /// `max_runners` of the class `big`.
    pub cap: Option<usize>,
    /// The runners of the class `mem` are in another namespace.
    pub elsewhere: bool,
}

impl Classes {
    /// The YAML of the classes.
    pub fn yaml(self) -> String {
        if !self.on {
            return String::new();
        }
        let cap = self.cap.unwrap_or(0);
        let elsewhere =
            if self.elsewhere { format!(", nomad: {{namespace: {ELSEWHERE}}}") } else { String::new() };
        format!(
            "classes: [{{name: big, match: {{labels: big}}, max_runners: {cap}}}, \
             {{name: mem, match: {{labels: sim mem}}{elsewhere}}}]\n"
        )
    }

    /// Whether a group's runners are in the other namespace, by its comma-separated labels.
    pub fn is_elsewhere(self, labels: &str) -> bool {
        let mut labels = labels.split(',').map(str::to_lowercase);
        self.on
            && self.elsewhere
            && !is_big(labels.clone())
            && labels.any(|label| label.starts_with("sim mem"))
    }

    /// Whether a group's runners belong to the class with the cap, by its comma-separated labels.
    pub fn has_cap(self, labels: &str) -> bool {
        self.on && is_big(labels.split(',').map(str::to_lowercase))
    }
}

/// Whether a job with these labels is of the class `big`.
fn is_big(mut labels: impl Iterator<Item = String>) -> bool {
    labels.any(|label| label.starts_with("big"))
}

/// An entry of `warm`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warm {
    /// `labels`.
    pub labels: &'static [&'static str],
    /// `owner` or `repository`.
    pub place: String,
    /// `count`.
    pub count: usize,
    /// `schedule`, and the window that it means, by Nomad's clock; `None`: always.
    pub hours: Option<(String, Timestamp, Timestamp)>,
}

/// The labels of warm runners. Some of them take jobs of several groups.
const WARM_LABELS: [&[&str]; 3] = [&["sim"], &["sim", "linux"], &["SIM", "linux", "spare"]];

impl Warm {
    /// The entries of a seed, in a fifth of all seeds. `now` is Nomad's clock at the start.
    pub(super) fn of(seed: u64, settings: &Settings, repositories: &[String], now: Timestamp) -> Vec<Warm> {
        let drawn = seed / 4;
        if !drawn.is_multiple_of(5) {
            return Vec::new();
        }
        let drawn = drawn / 5;
        let entry = |at: u64| {
            let drawn = usize::try_from(drawn / 7 + at).unwrap_or_default();
            let repository = &repositories[drawn % repositories.len()];
            let owner = repository.split('/').next().unwrap_or_default();
            let place = if settings.access.organization { owner } else { repository };
            let minutes = |minutes: usize| SignedDuration::from_mins(i64::try_from(minutes).unwrap_or(0));
            let hours = (drawn % 2 == 0).then(|| {
                // A schedule has whole minutes.
                let second = now.as_second();
                let from = Timestamp::from_second(second - second.rem_euclid(60)).unwrap_or(now);
                let from = from + minutes(drawn / 2 % 3);
                let until = from + minutes(2 + drawn / 6 % 5);
                (format!("{}-{} UTC", from.strftime("%H:%M"), until.strftime("%H:%M")), from, until)
            });
            Warm {
                labels: WARM_LABELS[drawn % WARM_LABELS.len()],
                place: place.to_owned(),
                count: 1 + drawn / 3 % 2,
                hours,
            }
        };
        (0..=drawn % 2).map(entry).collect()
    }

    /// Whether its window has been open, or closed, for this long.
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.hours.as_ref().is_none_or(|(_, from, until)| *from <= now && now < *until)
    }
}

/// The configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `loop`.
    pub loop_interval: Duration,
    /// The three caps: all, per repository, per group.
    pub caps: [Option<usize>; 3],
    /// `classes`.
    pub classes: Classes,
    /// `warm`, until all trouble is over.
    pub warm: Vec<Warm>,
    /// `max_run_duration`, which the template leaves out: servers and daemon both know older ones.
    pub max_run_duration: Option<Duration>,
    /// `rerun_lost`: `per_job` and `per_hour`.
    pub rerun_lost: Option<[usize; 2]>,
    /// `runner_inactivity_timeout`.
    pub inactivity: Duration,
    /// `strict`.
    pub strict: bool,
    /// `purge_successfull_timeout`, `purge_failure_timeout`.
    pub purge: [Duration; 2],
    /// `pending_to_kill_listening`.
    pub make_room: Option<Duration>,
    /// `parallel`.
    pub parallel: usize,
    /// The kind of credentials.
    pub mode: Mode,
    /// As whom, and where.
    pub access: Access,
    /// The template is a job in JSON, which needs no parsing; otherwise HCL.
    pub json_template: bool,
    /// ETags outlive the daemon.
    pub cache: bool,
    /// Nomad's event stream is available.
    pub hints: bool,
    /// GitHub delivers webhooks.
    pub webhooks: bool,
}

/// The settings of a seed.
pub(super) fn settings(rng: &mut StdRng) -> Settings {
    let cap = |rng: &mut StdRng, of: usize| rng.random_bool(0.35).then(|| rng.random_range(1..=of));
    let mode = match rng.random_range(0..16) {
        0 => Mode::Token,
        1 => Mode::Persistent,
        2 => Mode::Renamed,
        3 => Mode::AccessToken,
        _ => Mode::Jit,
    };
    // An App has no token to pass on.
    let app = rng.random_bool(0.15) && mode != Mode::AccessToken;
    let organization = rng.random_bool(0.15);
    let mut settings = Settings {
        loop_interval: Duration::from_secs(rng.random_range(10..=60)),
        caps: [cap(rng, 4), cap(rng, 3), cap(rng, 2)],
        classes: Classes::default(),
        warm: Vec::new(),
        max_run_duration: None,
        rerun_lost: None,
        inactivity: seconds(rng, 20, 120),
        strict: rng.random_bool(0.2),
        purge: [seconds(rng, 1, 60), seconds(rng, 1, 120)],
        make_room: rng.random_bool(0.6).then(|| seconds(rng, 30, 180)),
        parallel: rng.random_range(1..=5),
        mode,
        access: Access {
            app,
            organization,
            group: organization && rng.random_bool(0.5),
            entries: Entries::Each,
        },
        json_template: rng.random_bool(0.8),
        cache: rng.random_bool(0.2),
        hints: rng.random_bool(0.3),
        webhooks: false,
    };
    // From a value that is already drawn, so that the other values of a seed do not change.
    let drawn = settings.inactivity.as_millis();
    let on = drawn % 10 < 3;
    let cap = usize::try_from(drawn / 10 % 4).ok().filter(|cap| on && *cap > 0);
    settings.classes = Classes { on, cap, elsewhere: on && drawn / 40 % 2 == 0 };
    let drawn = usize::try_from(drawn / 100).unwrap_or_default();
    settings.max_run_duration = (drawn % 8 == 0).then(|| Duration::from_secs(120 + drawn as u64 % 7 * 60));
    settings.rerun_lost = (drawn / 8 % 3 > 0).then(|| [1 + drawn % 2, 1 + drawn / 2 % 4]);
    settings
}
