//! Compares what a daemon says it did with what it did.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use githubrunner::{
    daemon::Pass,
    model::{Action, Consent, Done, NotDone, Orphan, Outcome, Purpose, Report, RunnerState, Stop},
};
use githubrunner_sim::{fault::Side, world::World};
use hyper::{Request, Response};
use jiff::Timestamp;
use serde_json::Value;

use super::lifecycle::has_variable;
use crate::{
    checker::look::Look,
    deployment::{Place, is_planted, meta_of_job},
    faults::subject::subject,
};

/// Whether a job's Meta says that it was started for this.
fn is_meta_for(meta: &Value, purpose: &Purpose) -> bool {
    match purpose {
        Purpose::Job(job_id) => meta["job_id"] == job_id.0,
        Purpose::Warm(warm) => meta["warm"]["entry"] == warm.entry.as_str(),
    }
}

/// The requests of one pass, and the true state when they were sent.
#[derive(Default)]
pub struct History {
    /// When the request being handled was sent.
    pub asked: Option<Timestamp>,
    /// Registrations that were removed, by the runner's name.
    registrations: Vec<Removal>,
    /// Variables that were removed, by the runner's name, and whether it was registered then.
    variables: Vec<(String, bool)>,
    /// The seals of the runners whose registration in Nomad was requested.
    seals: BTreeMap<String, Value>,
    /// How often each registration's removal was requested.
    sent: BTreeMap<u64, usize>,
    /// The runners whose jobs were stopped or purged. Someone may have restored them since.
    ended: BTreeSet<String>,
    /// The registrations that were created, and their configurations.
    made: BTreeMap<String, (u64, String)>,
    /// The state of a runner when GitHub was last asked about it.
    listed: BTreeMap<String, Listed>,
    /// Its registration then.
    registered_as: BTreeMap<String, u64>,
    /// Whether a runner's variable existed when Nomad was last asked about it individually.
    has_variable: BTreeMap<String, bool>,
    /// The state of a runner when Nomad was last asked about it individually: its job, and then its
    /// allocations.
    read: BTreeMap<String, [Option<Look>; 2]>,
}

/// Properties of the servers' responses.
#[derive(Clone, Copy)]
pub struct Answers {
    /// They are current, not from a while ago.
    pub are_so: bool,
    /// They include every repository.
    pub of_all: bool,
    /// Errors have Nomad's own texts.
    pub are_legible: bool,
}

/// A runner's state at GitHub.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Listed {
    Not,
    Offline,
    Connected,
}

struct Removal {
    id: u64,
    /// When it was requested.
    asked: Option<Timestamp>,
    name: String,
    connected: bool,
    /// In a variable, as far as that can be known.
    is_carried: bool,
}

impl History {
    /// Keeps only what concerns actions still in progress; everything else has been checked.
    pub fn kept_for(mut self, is_left: impl Fn(&str) -> bool) -> History {
        self.registrations.retain(|removal| is_left(&removal.name));
        self.variables.retain(|(name, _)| is_left(name));
        self.ended.retain(|name| is_left(name));
        self.seals.retain(|name, _| is_left(name));
        self.made.retain(|name, _| is_left(name));
        self.listed.retain(|name, _| is_left(name));
        self.has_variable.retain(|name, _| is_left(name));
        self.read.retain(|name, _| is_left(name));
        let registered_as = &mut self.registered_as;
        registered_as.retain(|name, _| is_left(name));
        self.sent.retain(|id, _| registered_as.values().any(|known| known == id));
        self
    }

    /// A removal is on its way to GitHub, whether or not it arrives.
    pub fn sends_removal(&mut self, id: u64) {
        *self.sent.entry(id).or_default() += 1;
    }

    /// A registration is removed, if it exists and is not busy.
    pub fn removes_registration(&mut self, world: &World, place: &Place, id: u64) {
        let Some(runner) = world.github.runner(id).filter(|runner| runner.job.is_none()) else { return };
        let variable = place.variable(world, &runner.name);
        let carries = |(made, configuration): &(u64, String)| {
            *made != id
                || variable.is_some_and(|variable| variable.items.values().any(|item| item == configuration))
        };
        self.registrations.push(Removal {
            id,
            asked: self.asked,
            name: runner.name.clone(),
            // A runner that connects after it was looked up is not seen, and neither is a variable that is
            // written then.
            connected: self
                .listed
                .get(&runner.name)
                .map_or(runner.online, |as_listed| *as_listed == Listed::Connected),
            is_carried: variable.is_some()
                && self.has_variable.get(&runner.name) != Some(&false)
                && self.made.get(&runner.name).is_none_or(carries),
        });
    }

    /// Whether this runner's registration was removed in this pass.
    pub fn has_removed(&self, name: &str) -> bool {
        self.registrations.iter().any(|removal| removal.name == name)
    }

    /// GitHub refused: the registration stays, if it still exists.
    pub fn keeps_registration(&mut self, world: &World, id: u64) {
        let is_there = world.github.runner(id).is_some();
        self.registrations.retain(|removal| removal.id != id || !is_there);
    }

    /// A job was stopped or purged.
    pub fn ends(&mut self, name: &str) {
        self.ended.insert(name.to_owned());
    }

    /// A variable is removed.
    pub fn removes_variable(&mut self, world: &World, name: &str) {
        self.variables.push((name.to_owned(), self.has_stayed(world, name)));
    }

    /// A runner is about to be registered in Nomad with this Meta.
    pub fn asks_for(&mut self, name: &str, meta: &Value) {
        self.seals.insert(name.to_owned(), meta["mac"].clone());
    }

    /// Whether someone has registered a runner again with the seal of a key that the agent has forgotten, so that it
    /// belongs to nobody.
    fn is_of_a_forgotten_key(&self, world: &World, name: &str, meta: &Value) -> bool {
        let seal = self.seals.get(name);
        world.nomad.forgot_at().is_some() && seal.is_some_and(|seal| *seal != meta["mac"])
    }

    /// GitHub has created a registration.
    pub fn made(&mut self, response: &Response<Bytes>) {
        let body: Value = serde_json::from_slice(response.body()).unwrap_or_default();
        if let (Some(name), Some(id)) = (body["runner"]["name"].as_str(), body["runner"]["id"].as_u64()) {
            let configuration = body["encoded_jit_config"].as_str().unwrap_or_default().to_owned();
            self.made.insert(name.to_owned(), (id, configuration));
        }
    }

    /// GitHub has returned the runner of this name.
    pub fn looked_up(&mut self, world: &World, request: &Request<Bytes>) {
        let Some(name) = subject(None, Side::GitHub, request) else { return };
        let runner = world.github.runners().find(|runner| runner.name == name);
        let listed = match runner {
            Some(runner) if runner.online || runner.job.is_some() => Listed::Connected,
            Some(_) => Listed::Offline,
            None => Listed::Not,
        };
        if let Some(runner) = runner {
            self.registered_as.insert(name.clone(), runner.id);
        }
        self.listed.insert(name, listed);
    }

    /// Whether a registration exists, and existed when it was last looked up.
    fn has_stayed(&self, world: &World, name: &str) -> bool {
        is_registered(world, name) && self.listed.get(name) != Some(&Listed::Not)
    }

    /// Nomad has returned whether a runner's variable exists.
    pub fn reads_variable(&mut self, world: &World, name: &str) {
        self.has_variable.insert(name.to_owned(), has_variable(world, name));
    }

    /// Nomad has returned one runner: its job, or its allocations.
    pub fn reads(&mut self, name: &str, is_job: bool, look: Option<Look>) {
        let read = self.read.entry(name.to_owned()).or_default();
        if is_job {
            *read = [look, None];
        } else {
            read[1] = look;
        }
    }

    /// A runner's state when it was read individually, unless that has changed since.
    fn read(&self, name: &str) -> Option<&Look> {
        let [job, allocations] = self.read.get(name)?;
        job.as_ref().filter(|_| job == allocations)
    }

    /// Whether its allocations showed then that it had not started.
    pub fn has_read_unstarted(&self, name: &str) -> bool {
        self.read
            .get(name)
            .and_then(|[_, allocations]| allocations.as_ref())
            .is_some_and(|look| !look.started)
    }

    /// What is wrong with what a pass did, given the properties of responses.
    pub fn passed(
        &self,
        pass: &Pass,
        planned: &[&Action],
        since: impl Fn(&str) -> Option<Timestamp>,
        world: &World,
        place: &Place,
        how: Answers,
    ) -> Vec<String> {
        let mut wrong = Vec::new();
        // An earlier action's request may take effect only now.
        for removal in self.registrations.iter().filter(|removal| since(&removal.name) <= removal.asked) {
            wrong.extend(self.is_wrongly_removed(planned, removal, how));
        }
        for (name, registered) in &self.variables {
            let waits = |action: &Action| match action {
                Action::CleanUp(clean_up) => clean_up.repository.is_some() && clean_up.name == *name,
                _ => false,
            };
            if *registered && how.are_so && how.of_all && planned.iter().copied().any(waits) {
                wrong.push(format!("the variable of {name} goes before its registration"));
            }
        }
        for report in pass.done() {
            // The effects of two actions on one runner cannot be told apart.
            let of_it = |action: &&&Action| action.runner() == report.action.runner();
            if planned.iter().filter(of_it).count() > 1 {
                continue;
            }
            let said = |what: &str| format!("{}: {}, {what}", report.action, report.outcome.kind());
            wrong.extend(self.is_wrongly_told(report, world, place, how).map(said));
        }
        wrong
    }

    fn is_wrongly_removed(&self, planned: &[&Action], removal: &Removal, how: Answers) -> Option<String> {
        let name = &removal.name;
        let wrong = |action: &Action| match action {
            Action::IssueCredentials(_) if removal.connected => Some("for a secret, and it was connected"),
            Action::IssueCredentials(_) if removal.is_carried && how.are_legible => {
                Some("for a secret, and its variable carries it")
            }
            Action::RemoveOrphan(_) if removal.connected => Some("as an orphan, and it was connected"),
            Action::VerifyRegistration(_) | Action::Start(_) => Some("and it was only looked at"),
            _ => None,
        };
        // An action of an earlier pass, and the next one on the same runner: either may have sent the
        // request.
        let mut asked = planned.iter().filter(|action| action.runner() == *name).map(|action| wrong(action));
        let first = asked.next().unwrap_or(Some("and nothing was planned for it"));
        let what = first.filter(|_| asked.all(|wrong| wrong.is_some()))?;
        Some(format!("the registration of {name} went, {what}"))
    }

    fn is_stopped_wrongly(&self, stop: &Stop, read: Option<&Look>, how: Answers) -> Option<&'static str> {
        let is_alive = |look: &Look| look.state != RunnerState::Dead;
        let started = read.is_some_and(|look| look.started && !look.spent && is_alive(look));
        let present = how.are_so && self.listed.get(&stop.name) == Some(&Listed::Connected);
        match stop.consent {
            Consent::NeverStarted if started => Some("and it had started"),
            Consent::Unregistered if present => Some("and it was connected"),
            _ => None,
        }
    }

    fn is_wrongly_told(
        &self,
        report: &Report,
        world: &World,
        place: &Place,
        how: Answers,
    ) -> Option<&'static str> {
        let name = report.action.runner();
        let removals = || self.registrations.iter().filter(|removal| removal.name == name);
        let job = place.job(world, name);
        let is_alive = |look: &Look| look.state != RunnerState::Dead;
        let read = self.read(name).filter(|_| how.are_so);
        match (&report.action, &report.outcome) {
            (Action::Start(start), Outcome::NotDone(NotDone::Rejected(_))) if how.are_legible => {
                let meta = meta_of_job(job?);
                let is_nobodys = self.is_of_a_forgotten_key(world, name, &meta) || is_planted(job?);
                (is_meta_for(&meta, &start.purpose) && !is_nobodys).then_some("and it is there")
            }
            (Action::IssueCredentials(_), Outcome::Done(Done::Already)) if how.are_legible => {
                let left = self.made.get(name).and_then(|(id, _)| world.github.runner(*id));
                left.map(|_| "and what it registered has stayed")
            }
            (Action::Stop(_), Outcome::NotDone(NotDone::NotListed)) if removals().next().is_some() => {
                Some("and it had removed it")
            }
            // The registration may have disappeared just before its removal was requested.
            (Action::Stop(_), Outcome::NotDone(NotDone::NotListed)) if how.are_so && how.of_all => {
                let is_gone = matches!(self.listed.get(name), None | Some(Listed::Not));
                let asked = || self.registered_as.get(name).is_some_and(|id| self.sent.contains_key(id));
                (!is_gone && !asked()).then_some("and GitHub lists it")
            }
            (Action::Stop(_), Outcome::NotDone(NotDone::Failed(error))) if is_lost_removal(error) => {
                let once = |removal: &Removal| self.sent.get(&removal.id) == Some(&1);
                removals().any(once).then_some("and nobody asked again for the lost answer")
            }
            (Action::Stop(stop), Outcome::Done(Done::Performed)) => {
                let is_told = self.ended.contains(name) || job.is_none_or(|job| job.stop);
                if is_told {
                    self.is_stopped_wrongly(stop, read, how)
                } else {
                    Some("and it is not told to stop")
                }
            }
            (Action::VerifyRegistration(_), Outcome::Done(Done::Connected | Done::NotConnected))
                if how.are_so && how.of_all =>
            {
                let said = matches!(report.outcome, Outcome::Done(Done::Connected));
                let differs = |listed: &Listed| (*listed == Listed::Connected) != said;
                self.listed.get(name).is_some_and(differs).then_some("which is not so")
            }
            (Action::CleanUp(clean_up), Outcome::Done(Done::Performed)) => {
                let is_sure = clean_up.repository.is_some() && how.are_so && how.of_all;
                (is_sure && self.has_stayed(world, name)).then_some("and its registration has stayed")
            }
            (Action::Purge(_), Outcome::Done(Done::Performed)) if read.is_some_and(is_alive) => {
                Some("and it was alive")
            }
            (Action::Purge(_), Outcome::Done(Done::Performed)) => {
                (job.is_some() && !self.ended.contains(name)).then_some("and it is there")
            }
            (Action::RemoveOrphan(remove), Outcome::Done(Done::Performed)) => match remove.orphan {
                Orphan::Variable(_) => read.is_some().then_some("and its runner is there"),
                Orphan::Registration { .. } => read.is_some_and(is_alive).then_some("and its runner lives"),
            },
            _ => None,
        }
    }
}

/// Whether a removal's response was lost, rather than the request not being sent.
fn is_lost_removal(error: &str) -> bool {
    let unsent = ["cannot connect", "limit"];
    error.contains("DELETE http://api.github") && !unsent.iter().any(|why| error.contains(why))
}

fn is_registered(world: &World, name: &str) -> bool {
    world.github.runners().any(|runner| runner.name == name)
}
