//! Faults of individual exchanges.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use githubrunner_sim::{
    fault::{Fault, Sender, Side, Verdict},
    github::Parcel,
    keep,
    world::World,
};
use hyper::{Method, Request, Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    Budget,
    answers::{self, Past},
    races::{HELD_FOR, Held},
};
use crate::{
    deployment::{Place, is_elsewhere},
    faults::{
        nemesis::{DeathWhen, Nemesis},
        races::{Interfere, Race},
        subject::subject,
        trouble::{Episode, Trouble},
    },
    webhooks::DeliveryFaults,
};

/// An abandoned request takes effect within this many milliseconds: servers delay requests for some seconds while
/// they have no leader.
const LATEST: u64 = 15_000;

/// The maximum number of daemons.
pub const REPLICAS: usize = 2;

/// How Nomad's servers treat `disconnect` in a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disconnect {
    /// As requested.
    AsAsked,
    /// They are too old to know it.
    Ignored,
    /// They treat `lost_after` as a minute, because a day is too long for a run.
    ForAMinute,
}

/// All faults of exchanges in a run.
pub struct Faults {
    episodes: Vec<Episode>,
    rng: StdRng,
    budget: Budget,
    past: Past,
    skew: (SignedDuration, SignedDuration),
    note: Option<String>,
    nemeses: [Nemesis; REPLICAS],
    no_stream: bool,
    webhooks: Option<DeliveryFaults>,
    disconnect: Disconnect,
    latency: Duration,
    races: Vec<Race>,
    place: Option<Place>,
    /// Requests that take effect late, at most [`MOST_KEPT`].
    held: VecDeque<Held>,
    /// The bodies with which runners were registered, by name, the last [`MOST_KEPT`].
    registered: VecDeque<(String, Bytes)>,
}

/// What may happen to a request before it takes effect.
const BEFORE: [Trouble; 11] = [
    Trouble::Refused,
    Trouble::Reset,
    Trouble::Stall,
    Trouble::Error,
    Trouble::Slow,
    Trouble::PrimaryLimit,
    Trouble::SecondaryLimit,
    Trouble::SilentLimit,
    Trouble::TooMany,
    Trouble::NoLeader,
    Trouble::HostileErrors,
];

/// What may happen to it afterwards.
const AFTER: [Trouble; 6] = [
    Trouble::LostAnswer,
    Trouble::LateStall,
    Trouble::LateError,
    Trouble::Truncated,
    Trouble::Garbled,
    Trouble::ContentType,
];

/// At most this many requests are kept.
const MOST_KEPT: usize = 64;

impl Faults {
    /// Faults in these episodes. `skew` is how far GitHub's and Nomad's clocks are ahead.
    pub fn new(
        seed: u64,
        episodes: Vec<Episode>,
        budget: Budget,
        skew: (SignedDuration, SignedDuration),
    ) -> Faults {
        let lag = episodes.iter().any(|episode| matches!(episode.trouble, Trouble::Lag | Trouble::Follower));
        Faults {
            episodes,
            rng: StdRng::seed_from_u64(seed ^ 0x6661_756c_7473),
            budget,
            past: Past::new(lag),
            skew,
            note: None,
            nemeses: Default::default(),
            no_stream: false,
            webhooks: None,
            disconnect: Disconnect::AsAsked,
            latency: Duration::ZERO,
            races: Vec::new(),
            place: None,
            held: VecDeque::new(),
            registered: VecDeque::new(),
        }
    }

    /// Nomad refuses its event stream, as for a token without the right.
    pub fn refuse_stream(&mut self, yes: bool) {
        self.no_stream = yes;
    }

    /// Sets the faults of webhook deliveries.
    pub fn carry_by(&mut self, lifecycles: DeliveryFaults) {
        self.webhooks = Some(lifecycles);
    }

    /// Sets what happens between observations and actions.
    pub fn race(&mut self, races: Vec<Race>, place: Place) {
        self.races = races;
        self.place = Some(place);
    }

    /// Delays an abandoned request until the next one about its runner arrives; false if it is not about a runner.
    fn hold_back(&mut self, side: Side, request: &Request<Bytes>, now: Timestamp) -> bool {
        let Some(subject) = subject(None, side, request) else { return false };
        let until = now.checked_add(HELD_FOR).unwrap_or(now);
        keep(&mut self.held, MOST_KEPT, Held { side, request: request.clone(), subject, until });
        true
    }

    /// Lets a delayed request about the same runner take effect.
    fn let_go(&mut self, world: &mut World, name: &str, now: Timestamp) {
        self.held.retain(|held| held.until > now);
        let is_due = |held: &Held| held.subject == name;
        let Some(at) = self.held.iter().position(is_due).filter(|_| self.rng.random_bool(0.4)) else {
            return;
        };
        if let Some(held) = self.held.remove(at) {
            world.takes_effect_late(held.side, &held.request);
        }
    }

    /// The faults of each daemon, by its number.
    pub fn nemeses(&self) -> [Nemesis; REPLICAS] {
        self.nemeses.clone()
    }

    fn nemesis(&self, request: &Request<Bytes>) -> Nemesis {
        let number = request.extensions().get::<Sender>().map_or(0, |sender| sender.0);
        self.nemeses[number % REPLICAS].clone()
    }

    /// Sets how the servers treat `disconnect` in a job.
    pub fn disconnect(&mut self, disconnect: Disconnect) {
        self.disconnect = disconnect;
    }

    /// Each request takes up to half of this, and so does each response.
    pub fn latency(&mut self, longest: Duration) {
        self.latency = longest;
    }

    fn on_the_way(&mut self) -> Verdict {
        let longest = u64::try_from(self.latency.as_micros() / 2).unwrap_or(0);
        match longest {
            0 => Verdict::Pass,
            _ => Verdict::Delay(Duration::from_micros(self.rng.random_range(0..=longest))),
        }
    }

    /// The faults that hit a side now, each with its chance.
    fn hit(&mut self, side: Side, now: Timestamp, which: &[Trouble]) -> Option<Trouble> {
        for episode in &self.episodes {
            let fits = episode.side == side
                && episode.from <= now
                && now < episode.until
                && which.contains(&episode.trouble);
            if fits && self.rng.random_bool(episode.chance) && self.budget.take() {
                return Some(episode.trouble);
            }
        }
        None
    }

    /// A follower's response does not involve the leader.
    fn of_a_follower(&mut self, side: Side, request: &Request<Bytes>, now: Timestamp) -> Option<Verdict> {
        if request.method() != Method::GET || !self.is_on(side, now, Trouble::Follower) {
            return None;
        }
        let silent = SignedDuration::from_millis(self.rng.random_range(6_000..60_000));
        let (at, answer) = self.past.of_a_follower(request, now, silent)?;
        self.hit(side, now, &[Trouble::Follower])?;
        self.say(format!("is answered by a server that last heard of its leader at {at}"));
        Some(Verdict::Answer(answer))
    }

    fn is_on(&self, side: Side, now: Timestamp, trouble: Trouble) -> bool {
        self.episodes.iter().any(|episode| {
            episode.trouble == trouble && episode.side == side && episode.from <= now && now < episode.until
        })
    }

    fn say(&mut self, what: impl Into<String>) {
        self.note = Some(what.into());
    }

    /// What a fault does to a request before it takes effect.
    fn strikes_before(
        &mut self,
        trouble: Trouble,
        side: Side,
        request: &Request<Bytes>,
        now: Timestamp,
    ) -> Verdict {
        use Trouble::*;
        match trouble {
            Refused | Reset => {
                self.say("is cut off before");
                Verdict::Reset
            }
            Stall => {
                self.say("stalls");
                Verdict::Stall
            }
            Late if self.rng.random_bool(0.5) && self.hold_back(side, request, now) => {
                self.say("takes effect before the next about the same, and nobody waits for it");
                if self.rng.random_bool(0.5) { Verdict::Reset } else { Verdict::Stall }
            }
            Late => {
                let after = Duration::from_millis(self.rng.random_range(500..LATEST));
                self.say(format!("takes effect in {after:?}, and nobody waits for it"));
                Verdict::Late { after, closes: self.rng.random_bool(0.5) }
            }
            Slow => {
                let wait = Duration::from_millis(self.rng.random_range(100..15_000));
                self.say(format!("takes {wait:?}"));
                Verdict::Delay(wait)
            }
            SlowPages => {
                let wait = Duration::from_millis(self.rng.random_range(2_000..17_000));
                self.say(format!("takes {wait:?}"));
                Verdict::Delay(wait)
            }
            _ => self.refuses_with(trouble, side, now),
        }
    }

    /// The response of a server that does not do what was requested.
    fn refuses_with(&mut self, trouble: Trouble, side: Side, now: Timestamp) -> Verdict {
        use Trouble::*;
        match trouble {
            NoLeader => {
                self.say("has no leader");
                Verdict::status(500, "No cluster leader")
            }
            JitConflict => {
                self.say("answers 409");
                Verdict::status(
                    409,
                    r#"{"message": "Already exists - A runner with the name *** already exists."}"#,
                )
            }
            JitInvalid => {
                self.say("answers 422");
                Verdict::status(422, r#"{"message": "Validation Failed"}"#)
            }
            Error => self.error(side),
            HostileErrors => {
                let status = [500, 502, 503][self.rng.random_range(0..3)];
                self.say(format!("answers {status} with a hostile text"));
                Verdict::status(status, &answers::hostile_error(side, self.rng.random_bool(0.5)))
            }
            LargePages => {
                self.say("cannot be made so large");
                Verdict::status(502, r#"{"message": "Server Error"}"#)
            }
            _ => self.limit(trouble, now),
        }
    }

    /// Changes a response in place: its age, total, items or secret.
    fn alters(
        &mut self,
        side: Side,
        request: &Request<Bytes>,
        response: &mut Response<Bytes>,
        now: Timestamp,
    ) {
        use Trouble::*;
        let shown = self.past.remember(side, request, response, now);
        if shown && self.hit(side, now, &[Lag]).is_some() {
            let longest = if side == Side::GitHub { 180_000 } else { 20_000 };
            let lag = SignedDuration::from_millis(self.rng.random_range(1_000..longest));
            if let Some(at) = self.past.show(side, request, response, now, lag) {
                self.say(format!("shows how it was at {at}"));
            }
        }
        let is_list = request.method() == Method::GET && response.status() == StatusCode::OK;
        if is_list && self.is_on(side, now, Pages) && self.hit(side, now, &[Pages]).is_some() {
            let at = self.rng.random::<u32>() as usize;
            if let Some(what) = answers::shift_page(request, response, at) {
                self.say(what);
            }
        }
        if is_list && self.is_on(side, now, Totals) && self.hit(side, now, &[Totals]).is_some() {
            let off = if self.rng.random_bool(0.5) { 1 } else { -1 };
            if answers::change_total(response, off) {
                self.say(format!("counts {off:+}"));
            }
        }
        if is_list && self.is_on(side, now, Part) && self.hit(side, now, &[Part]).is_some() {
            // Two wrong totals can cancel out.
            let counts = !self.is_on(side, now, Totals);
            let (at, kind) = (self.rng.random::<u32>() as usize, self.rng.random_range(0..3u8));
            if let Some(what) = answers::cut_list(request, response, kind, counts, at) {
                self.say(what);
            }
        }
        if is_list && self.is_on(side, now, Names) && self.hit(side, now, &[Names]).is_some() {
            let (at, kind) = (self.rng.random::<u32>() as usize, self.rng.random_range(0..answers::NAMES));
            if answers::rename(request, response, kind, at) {
                self.say("has a name that GitHub does not permit");
            }
        }
        if registers(request)
            && response.status() == StatusCode::CREATED
            && self.hit(side, now, &[Secrets]).is_some()
        {
            let kind = self.rng.random_range(0..answers::SECRETS);
            answers::spoil_secret(response, kind);
            self.say("gives out what no runner may have");
        }
    }

    /// What a fault does to a request that took effect.
    fn strikes_after(&mut self, trouble: Trouble, side: Side, response: &mut Response<Bytes>) -> Verdict {
        use Trouble::*;
        match trouble {
            LockAnswer | RemovalAnswer if self.rng.random_bool(0.5) => {
                self.say("stalls after");
                Verdict::Stall
            }
            LostAnswer | LockAnswer | RemovalAnswer => {
                self.say("is cut off after");
                Verdict::Reset
            }
            LateStall => {
                self.say("stalls after");
                Verdict::Stall
            }
            LateError | JitLateError => {
                let verdict = self.error(side);
                self.say("answers an error all the same");
                verdict
            }
            Truncated if !response.body().is_empty() => {
                let bytes = self.rng.random_range(0..response.body().len());
                self.say(format!("is truncated after {bytes} bytes"));
                Verdict::Truncate(bytes)
            }
            Garbled if !response.body().is_empty() => {
                let (kind, at) = (self.rng.random_range(0..4u8), self.rng.random::<u32>() as usize);
                *response.body_mut() = answers::garble(response.body(), kind, at);
                self.say("is garbled");
                Verdict::Pass
            }
            ContentType => {
                self.say("is a page for people");
                answers::portal(response);
                Verdict::Pass
            }
            _ => self.on_the_way(),
        }
    }

    /// What happens to requests to the other namespace, the same during a whole episode.
    fn fails_elsewhere(&mut self, now: Timestamp) -> Option<Verdict> {
        let fits = |episode: &&Episode| {
            episode.trouble == Trouble::Namespace && episode.from <= now && now < episode.until
        };
        let kind = self.episodes.iter().find(fits)?.from.as_second() % 4;
        self.hit(Side::Nomad, now, &[Trouble::Namespace])?;
        Some(match kind {
            0 | 1 => {
                self.say("is refused in this namespace");
                Verdict::status(403, "Permission denied")
            }
            2 => self.error(Side::Nomad),
            _ => {
                self.say("stalls in this namespace");
                Verdict::Stall
            }
        })
    }

    fn error(&mut self, side: Side) -> Verdict {
        let status = [500, 502, 503, 504][self.rng.random_range(0..4)];
        self.say(format!("answers {status}"));
        let text = match (side, status) {
            (Side::Nomad, 500) => "rpc error: EOF",
            (Side::GitHub, 500) => r#"{"message": "Server Error"}"#,
            (Side::GitHub, 502) => {
                r#"{"message": "Server Error", "documentation_url": "https://docs.github.com"}"#
            }
            _ => "<html><body><h1>Bad Gateway</h1></body></html>",
        };
        Verdict::status(status, text)
    }

    fn limit(&mut self, trouble: Trouble, now: Timestamp) -> Verdict {
        let status = if trouble == Trouble::TooMany || self.rng.random_bool(0.5) { 429 } else { 403 };
        let status = if trouble == Trouble::SilentLimit { 403 } else { status };
        let wait = self.rng.random_range(1..=120i64);
        let message = match trouble {
            Trouble::PrimaryLimit => "API rate limit exceeded for user ID 1.",
            Trouble::TooMany => "Too many requests",
            _ => "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.",
        };
        let mut response = Response::new(Bytes::from(format!(r#"{{"message": "{message}"}}"#)));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::FORBIDDEN);
        let mut set = |name: &'static str, value: String| {
            if let Ok(value) = value.parse() {
                response.headers_mut().insert(name, value);
            }
        };
        match trouble {
            Trouble::PrimaryLimit => {
                set("x-ratelimit-limit", "5000".into());
                set("x-ratelimit-remaining", "0".into());
                set("x-ratelimit-resource", "core".into());
                set("x-ratelimit-reset", (now.as_second() + self.skew.0.as_secs() + wait).to_string());
            }
            Trouble::SecondaryLimit => set("retry-after", wait.to_string()),
            _ => {}
        }
        self.say(format!("answers {status}: {trouble:?}, {wait} s"));
        Verdict::Answer(response)
    }
}

/// Whether a request registers a runner.
fn registers(request: &Request<Bytes>) -> bool {
    request.method() == Method::POST
        && (request.uri().path().ends_with("/generate-jitconfig")
            || request.uri().path().ends_with("/registration-token"))
}

/// Whether a request registers a job in Nomad.
fn is_registration(side: Side, request: &Request<Bytes>) -> bool {
    side == Side::Nomad && request.method() == Method::PUT && request.uri().path() == "/v1/jobs"
}

/// Whether a request removes a runner's registration.
fn removes(request: &Request<Bytes>) -> bool {
    request.method() == Method::DELETE && request.uri().path().contains("/actions/runners/")
}

/// Whether a request is about a lock.
fn locks(request: &Request<Bytes>) -> bool {
    request.uri().query().is_some_and(|query| query.contains("lock-"))
}

impl Fault for Faults {
    fn carry(&mut self, parcel: Parcel, _: Timestamp) -> Vec<(Duration, Parcel)> {
        match &mut self.webhooks {
            Some(lifecycles) => lifecycles.of(parcel),
            None => vec![(Duration::ZERO, parcel)],
        }
    }

    fn refuses(&mut self, side: Side, now: Timestamp) -> bool {
        self.is_on(side, now, Trouble::Refused) && self.hit(side, now, &[Trouble::Refused]).is_some()
    }

    fn alter(&mut self, side: Side, request: &mut Request<Bytes>, now: Timestamp) {
        if self.is_on(side, now, Trouble::Pages) {
            answers::shorten_pages(request, 2);
        }
        if side == Side::Nomad {
            match self.disconnect {
                Disconnect::AsAsked => {}
                Disconnect::Ignored => answers::change_disconnect(request, None),
                Disconnect::ForAMinute => answers::change_disconnect(request, Some(Duration::from_secs(60))),
            }
        }
    }

    fn before(&mut self, side: Side, request: &Request<Bytes>, now: Timestamp) -> Verdict {
        if let Some((verdict, what)) = self.nemesis(request).before(side, request) {
            self.say(what);
            return verdict;
        }
        if let Some(verdict) = self.of_a_follower(side, request, now) {
            return verdict;
        }
        if side == Side::Nomad
            && is_elsewhere(request)
            && let Some(verdict) = self.fails_elsewhere(now)
        {
            return verdict;
        }
        use Trouble::{JitConflict, JitInvalid, LargePages, Late, SlowPages};
        let own: &[Trouble] = match request.method() {
            method if *method == Method::GET && answers::is_large_page(request) => &[LargePages, SlowPages],
            method if *method == Method::GET => &[SlowPages],
            _ if registers(request) => &[JitConflict, JitInvalid, Late],
            _ => &[Late],
        };
        match self.hit(side, now, own).or_else(|| self.hit(side, now, &BEFORE)) {
            None => self.on_the_way(),
            Some(trouble) => self.strikes_before(trouble, side, request, now),
        }
    }

    fn meanwhile(&mut self, world: &mut World, side: Side, request: &Request<Bytes>) {
        if self.races.is_empty() && self.held.is_empty() {
            return;
        }
        let now = world.clock.now();
        if let Some(name) = subject(Some(world), side, request) {
            self.let_go(world, &name, now);
        }
        let Some(place) = &self.place else { return };
        for at in (0..self.races.len()).rev() {
            let Race { turn, from, chance } = self.races[at];
            if from > now || !self.rng.random_bool(chance) || !self.budget.any_left() {
                continue;
            }
            let of = |name: &str| self.registered.iter().rev().find(|(other, _)| other == name);
            let registered = |name: &str| of(name).and_then(|(_, body)| serde_json::from_slice(body).ok());
            if let Some(what) = world.take_turn(turn, place, side, request, registered) {
                self.budget.take();
                self.races.remove(at);
                world.note(now, format!("MISHAP {what}"));
            }
        }
    }

    fn after(
        &mut self,
        side: Side,
        request: &Request<Bytes>,
        response: &mut Response<Bytes>,
        now: Timestamp,
    ) -> Verdict {
        use Trouble::{JitLateError, LockAnswer, RemovalAnswer};
        if !self.races.is_empty()
            && is_registration(side, request)
            && response.status().is_success()
            && let Some(name) = subject(None, side, request)
        {
            keep(&mut self.registered, MOST_KEPT, (name, request.body().clone()));
        }
        if self.nemesis(request).dies_at(request, DeathWhen::AfterEffect) {
            self.say("is the last of a daemon, with effect");
            return Verdict::Stall;
        }
        self.alters(side, request, response, now);
        let own: &[Trouble] = match request {
            _ if registers(request) => &[JitLateError],
            _ if locks(request) => &[LockAnswer],
            _ if removes(request) => &[RemovalAnswer],
            _ => &[],
        };
        match self.hit(side, now, own).or_else(|| self.hit(side, now, &AFTER)) {
            None => self.on_the_way(),
            Some(trouble) => self.strikes_after(trouble, side, response),
        }
    }

    fn take_note(&mut self) -> Option<String> {
        self.note.take()
    }
}
