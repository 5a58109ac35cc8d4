//! The steps of a pass: observe, plan, apply, learn, and ask for what the next one needs.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::Instant;

use super::{Daemon, acts, ended, marks::Marks, pass::Pass, snapshot};
use crate::{
    apply::{Apply, ApplyMode},
    model::{HoldReason, Moment, NomadView, Observation, Plan, Report, RepositoryId, Subject, Unobserved},
    plan::{learn, plan},
};

/// To make room, all repositories whose runners could leave must be listed at the same time. That is
/// requested at most this often.
const ROOM_EVERY: Duration = Duration::from_secs(10);

/// If some entries of `repos` take longer than this to resolve, the results of the others are used without
/// them.
const SLOW: Duration = Duration::from_secs(10);

impl Daemon {
    /// What a pass would do now. Nothing is changed, not even the memory, and nothing is logged: the caller prints
    /// it.
    pub async fn preview(&mut self) -> Pass {
        self.mode = ApplyMode::DryRun;
        self.look_at_everything().await;
        let mut pass = self.look_and_act().await;
        // A running daemon learns of these when it tries to start them.
        let Some(nomad) = &pass.observation.nomad else { return pass };
        let refused = self.apply(nomad).refused(&pass.plan).await;
        if !refused.is_empty() {
            let (nothing, now) = (Observation::default(), self.now());
            learn(&mut self.memory, &nothing, &Plan::default(), &refused, now);
            pass.observation.memory = self.memory.clone();
            pass.plan = plan(&pass.observation, &self.policy, now);
            pass.reports.retain(|report| pass.plan.actions.contains(&report.action));
        }
        pass
    }

    pub(super) async fn pass(&mut self) -> Pass {
        let pass = self.look_and_act().await;
        self.said.say(&pass, self.now());
        pass
    }

    pub(super) async fn look_and_act(&mut self) -> Pass {
        let began = Instant::now();
        // What has ended by now is in Nomad's next view; what has not may or may not be.
        let early = self.acts.taken();
        let began_at = self.now();
        let remembered = self.witness.as_ref().map(|_| self.memory.clone());
        learn(&mut self.memory, &Observation::default(), &Plan::default(), &early, began_at);
        // Observations from before this replica led, or from an earlier term, are not acted on: another replica has
        // acted in the meantime.
        let term = self.leadership.term();
        let (observation, errors) = self.observe().await;
        let planned_at = self.now();
        let under_way = self.acts.under_way();
        let plan = plan(&observation, &self.policy, planned_at);
        let due = acts::due(&plan.actions, &under_way, &observation);
        let reports = match (&observation.nomad, term) {
            (Some(nomad), Some(term)) => {
                let (apply, leadership) = (self.apply(nomad), self.leadership.clone());
                self.acts.begin(due, apply, leadership, term).await
            }
            (Some(nomad), None) if self.mode.is_dry_run() => {
                self.apply(nomad).apply(&Plan { actions: due, ..Plan::default() }).await
            }
            _ => Vec::new(),
        };
        let late = self.acts.taken();
        let now = self.now();
        let done: Vec<Report> = late.iter().chain(&reports).cloned().collect();
        learn(&mut self.memory, &observation, &plan, &done, now);
        self.make_room(&observation, &plan, now);
        self.ask_in_full(&observation, &plan, now);
        self.ask_for_warm(&observation, &plan);
        self.ask_whose_turn_it_is(&plan);
        let fresh = self.github_side.fresh(&observation, planned_at);
        let pass = Pass {
            observation,
            began_at,
            planned_at,
            plan,
            reports,
            remembered,
            early,
            late,
            errors,
            fresh,
            under_way,
            left: self.acts.under_way(),
            applied_at: now,
            led: term.is_some() && self.leadership.term() == term,
        };
        snapshot::tell(&self.status, &pass, &self.github, began.elapsed());
        if let Some(witness) = &mut self.witness {
            witness(&pass, &self.policy, &self.memory);
        }
        pass
    }

    /// A warm runner starts with a fresh listing of its repository, where nothing else may happen.
    fn ask_for_warm(&mut self, observation: &Observation, plan: &Plan) {
        for hold in &plan.holds {
            let HoldReason::Unpolled { repository } = &hold.reason else { continue };
            let mut views = observation.repositories.values();
            if let Some(view) = views.find(|view| view.repository.full_name() == *repository) {
                let id = view.repository.id;
                self.poll_next(id);
            }
        }
    }

    /// A place that is kept should not wait for the schedule.
    fn ask_whose_turn_it_is(&mut self, plan: &Plan) {
        for id in &plan.kept {
            self.poll_next(*id);
        }
    }

    /// Polls a repository ahead of the schedule, and passes when that has succeeded.
    fn poll_next(&mut self, id: RepositoryId) {
        self.github_side.awaits(id);
        self.schedule.again(id);
    }

    /// The current view of Nomad, the results of looks, and what could not be observed.
    async fn observe(&mut self) -> (Observation, Vec<Unobserved>) {
        let mut nomad = match self.nomad.observe().await {
            Ok(nomad) => nomad,
            Err(error) => {
                let observation = Observation { memory: self.memory.clone(), ..Observation::default() };
                let mut errors = self.github_side.trouble();
                errors.push(Unobserved {
                    subject: "Nomad".to_owned(),
                    kind: error.kind(),
                    text: format!("Nomad: {error}"),
                });
                return (observation, errors);
            }
        };
        let now = self.now();
        self.use_what_is_resolved(now);
        self.github_side.want(&nomad);
        let marks = Marks::new(&nomad, |runner| self.github_side.repository_of(runner));
        if self.github_side.has_news() {
            let github = &self.github;
            self.schedule.know(
                self.github_side
                    .scheduled()
                    .map(|(repository, pushed)| (repository.id, github.payer(&repository.owner), pushed)),
            );
            self.hints.know(&self.github_side.repositories());
            self.looks_due = Instant::now();
            self.say_forecast();
        }
        // Changes in Nomad since a look began invalidate it. If a runner no longer takes jobs, another look is due at
        // once.
        for id in self.github_side.outdated(&marks) {
            self.schedule.again(id);
        }
        self.schedule.ours(marks.live());
        let repositories = self.github_side.views(&marks, &self.acts, now);
        self.marks = Some(marks);
        self.acts.show_in(&mut nomad);
        let registrations = self.chores.registrations();
        let memory = self.memory.clone();
        self.lost.keep(&nomad);
        self.ask_for_lost_jobs(&nomad).await;
        let ended = self.lost.seen(now);
        let mut errors = self.github_side.trouble();
        errors.extend(nomad.unseen.values().map(|unseen| Unobserved {
            subject: format!("Nomad namespace {}", unseen.namespace),
            kind: unseen.kind,
            text: unseen.to_string(),
        }));
        let reruns = self.reruns(&nomad, &ended, &mut errors).await;
        let nomad = Some(nomad);
        let observation = Observation { nomad, repositories, registrations, ended, reruns, memory };
        (observation, errors)
    }

    /// While some entries of `repos` are slow to resolve, the results of the others are used.
    fn use_what_is_resolved(&mut self, now: Moment) {
        let Some(asked_for) = self.chores.resolving_for(now) else { return };
        let found = self.github.resolved(&self.config.repos);
        let is_first = !self.github_side.is_resolved() && !found.repositories.is_empty();
        if asked_for >= SLOW || is_first {
            self.github_side.resolved(found);
        }
    }

    /// Carries out actions for the deployment that Nomad reports.
    fn apply(&mut self, nomad: &NomadView) -> Apply {
        if let Some(apply) = self.apply.as_ref().filter(|apply| apply.deployment() == nomad.deployment) {
            return apply.clone();
        }
        let (github, nomads, renderer) = (self.github.clone(), self.nomad.clone(), self.renderer.clone());
        let leadership = self.leadership.clone();
        let apply =
            Apply::new(&self.config, github, nomads, renderer, &nomad.deployment, leadership, self.mode)
                .telling(ended::say);
        self.apply = Some(apply.clone());
        apply
    }

    /// Looks at all repositories whose runners could make room, at the same time.
    fn make_room(&mut self, observation: &Observation, plan: &Plan, now: Moment) {
        let is_time = self.room_at.is_none_or(|at| now.since(at) >= ROOM_EVERY);
        let is_held = || {
            let waits =
                |reason: &HoldReason| matches!(reason, HoldReason::Cap { .. } | HoldReason::Turn { .. });
            plan.holds.iter().any(|hold| waits(&hold.reason))
        };
        let mut runners = observation.nomad.iter().flat_map(|nomad| &nomad.runners);
        if is_time && (runners.any(|runner| runner.blocked.is_some()) || is_held()) {
            self.room_at = Some(now);
            self.schedule.ask_hot(now);
        }
    }

    /// A purge, and the Stop of a runner that GitHub does not know, may need a complete listing. If nothing else
    /// happens in the repository, it would come late.
    fn ask_in_full(&mut self, observation: &Observation, plan: &Plan, now: Moment) {
        let waits: BTreeSet<&str> = plan
            .holds
            .iter()
            .filter(|hold| matches!(hold.reason, HoldReason::JobUnknown | HoldReason::Unregistered { .. }))
            .filter_map(|hold| match &hold.subject {
                Subject::Runner { name } => Some(name.as_str()),
                _ => None,
            })
            .collect();
        let runners = observation.nomad.iter().flat_map(|nomad| &nomad.runners);
        for runner in runners.filter(|runner| waits.contains(runner.name.as_str())) {
            if let Some(id) = self.github_side.repository_of(runner)
                && self.github_side.asks_in_full(id, now, self.active_every())
            {
                self.schedule.again(id);
            }
        }
    }
}
