//! The effects of the planner's actions on the model world.

use githubrunner::model::{Registration as Mode, *};

use super::{Listed, Phase, Task, World};
use crate::cases::DEPLOYMENT;

impl World {
    /// Carries out an action as Nomad and GitHub would.
    pub fn perform(&mut self, action: &Action) -> Outcome {
        let failed = || Outcome::NotDone(NotDone::Failed("500".to_owned()));
        if self.random.percent(self.settings.failures) {
            return failed();
        }
        let outcome = self.effect(action);
        self.say(format!("{action}: {outcome}"));
        if self.random.percent(self.settings.lost_answers) { failed() } else { outcome }
    }

    fn effect(&mut self, action: &Action) -> Outcome {
        let name = action.runner().to_owned();
        let performed = Outcome::Done(Done::Performed);
        match action {
            Action::Start(start) => self.register(start),
            Action::IssueCredentials(issue) => self.issue_credentials(issue),
            Action::Stop(stop) => self.end_with_consent(stop),
            Action::VerifyRegistration(_) => {
                let is_online = self.registrations.get(&name).is_some_and(|listed| listed.online);
                Outcome::Done(if is_online { Done::Connected } else { Done::NotConnected })
            }
            Action::CleanUp(_) if self.is_busy(&name) => held("422"),
            Action::CleanUp(_) => {
                self.registrations.remove(&name);
                self.variables.remove(&name);
                performed
            }
            Action::Purge(purge) => {
                let dead = |task: &Task| matches!(task.phase, Phase::Dead { .. });
                if !self.tasks.get(&name).is_none_or(dead) {
                    self.wrong.push(format!("{name} was purged alive"));
                }
                if purge.repository.is_some() {
                    self.registrations.remove(&name);
                }
                self.tasks.remove(&name);
                performed
            }
            // Nothing is lost in this world.
            Action::Rerun(_) => held("it was not lost"),
            Action::RemoveOrphan(remove) => {
                match remove.orphan {
                    Orphan::Variable(_) => self.variables.remove(&name),
                    Orphan::Registration { .. } if self.is_busy(&name) => return held("422"),
                    Orphan::Registration { .. } => self.registrations.remove(&name).is_some(),
                };
                performed
            }
        }
    }

    fn is_busy(&self, name: &str) -> bool {
        self.registrations.get(name).is_some_and(|listed| listed.job.is_some())
    }

    fn register(&mut self, start: &Start) -> Outcome {
        if self.tasks.contains_key(&start.name) {
            return Outcome::Done(Done::Already);
        }
        let meta = RunnerMeta {
            labelsstr: start.labels.joined(),
            repo_url: start.repository.html_url.clone(),
            version: "1".to_owned(),
            deployment: Some(DEPLOYMENT.to_owned()),
            repo_id: Some(start.repository.id),
            purpose: Some(start.purpose.clone()),
            attempt: Some(start.attempt),
            registration: Some(self.settings.mode),
            class: start.class.clone(),
            ..RunnerMeta::default()
        };
        let task = Task { meta, submitted: self.now, placed: None, started: None, phase: Phase::Pending };
        self.tasks.insert(start.name.clone(), task);
        self.place();
        Outcome::Done(Done::Performed)
    }

    fn issue_credentials(&mut self, issue: &IssueCredentials) -> Outcome {
        let name = issue.name.clone();
        if self.registrations.get(&name).is_some_and(|listed| listed.online) {
            return held("online");
        }
        if self.settings.mode == Mode::Jit {
            let labels = issue.labels.key().map(str::to_owned).collect();
            let repository = issue.repository.id.0 as usize - 1;
            let listed = Listed { repository, labels, online: false, job: None };
            self.registrations.insert(name.clone(), listed);
        }
        self.variables.insert(name);
        Outcome::Done(Done::Performed)
    }

    fn end_with_consent(&mut self, stop: &Stop) -> Outcome {
        let (name, busy) = (&stop.name, self.is_busy(&stop.name));
        let Some(task) = self.tasks.get(name) else { return Outcome::Done(Done::Already) };
        let started = task.started.is_some();
        match stop.consent {
            Consent::NeverStarted if started => return held("it has started"),
            Consent::NeverStarted | Consent::GitHub if busy => return held("422"),
            Consent::Unregistered if busy => {
                self.wrong.push(format!("{name} is busy and was killed without asking"));
            }
            _ => {}
        }
        self.registrations.remove(name);
        let until = self.now + if started { self.settings.kill } else { 0 };
        self.tasks.get_mut(name).unwrap().phase = Phase::Stopping { until };
        Outcome::Done(Done::Performed)
    }
}

fn held(why: &str) -> Outcome {
    Outcome::NotDone(NotDone::Held(why.to_owned()))
}
