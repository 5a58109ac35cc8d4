//! The actions in progress. They run concurrently with looks and passes, one at a time for each runner, so that a slow
//! action delays no other.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use tokio::{
    task::{Id, JoinError, JoinSet},
    time::{Instant, timeout_at},
};

use crate::{
    apply::Apply,
    leadership::{Leadership, Term},
    model::{
        Action, Labels, NomadView, Observation, Ownership, Purpose, Report, RepositoryId, Runner, RunnerMeta,
        RunnerState, Start,
    },
};

/// A pass waits this long for its actions. Nearly all end within this time, and their effects are in the next view of
/// Nomad.
const TOGETHER: Duration = Duration::from_millis(500);

/// The outcome of an action; `None` if it was not started.
type Done = Result<(Id, Option<Report>), JoinError>;

/// The actions in progress.
#[derive(Default)]
pub(super) struct Acts {
    tasks: JoinSet<Option<Report>>,
    /// With a number for the order in which they started.
    under_way: HashMap<Id, (u64, Action)>,
    begun: u64,
    over: Vec<Report>,
}

impl Acts {
    /// Starts these actions, and waits a moment for them. Returns those that have ended, in their order.
    pub async fn begin(
        &mut self,
        actions: Vec<Action>,
        apply: Apply,
        leadership: Leadership,
        term: Term,
    ) -> Vec<Report> {
        let first = self.begun;
        for action in actions {
            let (apply, leadership, act) = (apply.clone(), leadership.clone(), action.clone());
            let handle = self.tasks.spawn(async move {
                tokio::select! {
                    biased;
                    () = leadership.over(term) => None,
                    report = apply.act(act) => report,
                }
            });
            self.under_way.insert(handle.id(), (self.begun, action));
            self.begun += 1;
        }
        let end = Instant::now() + TOGETHER;
        let mut reports = Vec::new();
        while self.under_way.values().any(|(at, _)| *at >= first) {
            let Ok(Some(done)) = timeout_at(end, self.tasks.join_next_with_id()).await else { break };
            let (at, report) = self.ended(done);
            match report {
                Some(report) if at >= first => reports.push((at, report)),
                Some(report) => self.over.push(report),
                None => {}
            }
        }
        reports.sort_by_key(|(at, _)| *at);
        reports.into_iter().map(|(_, report)| report).collect()
    }

    /// Waits for the next action to end; forever if there is none.
    pub async fn next(&mut self) -> Done {
        match self.tasks.join_next_with_id().await {
            Some(done) => done,
            None => std::future::pending().await,
        }
    }

    /// Records the end of an action.
    pub fn over(&mut self, done: Done) {
        let (_, report) = self.ended(done);
        self.over.extend(report);
    }

    /// The actions that have ended and were not returned before.
    pub fn taken(&mut self) -> Vec<Report> {
        while let Some(done) = self.tasks.try_join_next_with_id() {
            self.over(done);
        }
        std::mem::take(&mut self.over)
    }

    /// The actions that have not ended.
    pub fn under_way(&self) -> Vec<Action> {
        let mut actions: Vec<&(u64, Action)> = self.under_way.values().collect();
        actions.sort_by_key(|(at, _)| *at);
        actions.into_iter().map(|(_, action)| action.clone()).collect()
    }

    /// How many have not ended.
    pub fn len(&self) -> usize {
        self.under_way.len()
    }

    /// Whether a runner of this repository is being started or stopped, so that its listing counts as outdated.
    pub fn change(&self, repository: RepositoryId) -> bool {
        self.under_way.values().any(|(_, action)| match action {
            Action::Start(start) => start.repository.id == repository,
            Action::Stop(stop) => stop.repository.as_ref().is_some_and(|own| own.id == Some(repository)),
            _ => false,
        })
    }

    /// Aborts all of them, as a crash would.
    pub fn cut(&mut self) {
        *self = Acts { begun: self.begun, ..Acts::default() };
    }

    /// Shows the view that Nomad will have when these actions have ended: a runner that is being started counts, and so
    /// does a place that is being freed.
    pub fn show_in(&self, nomad: &mut NomadView) {
        for (_, action) in self.under_way.values() {
            let known = nomad.runners.iter_mut().find(|runner| runner.name == action.runner());
            match (action, known) {
                (Action::Start(start), None) => {
                    let runner = started(start, nomad);
                    nomad.runners.push(runner);
                }
                (Action::Stop(_), Some(runner)) if runner.is_live() => runner.state = RunnerState::Stopping,
                _ => {}
            }
        }
    }

    fn ended(&mut self, done: Done) -> (u64, Option<Report>) {
        let (id, report) = match done {
            Ok((id, report)) => (id, report),
            Err(error) => {
                if !error.is_cancelled() {
                    tracing::error!("an action ended unexpectedly: {error}");
                }
                (error.id(), None)
            }
        };
        (self.under_way.remove(&id).map_or(0, |(at, _)| at), report)
    }
}

/// The actions of a plan that need not wait for one in progress. Each runner has one at a time. The newest attempt at a
/// job is kept, dead or alive, so that its number is never reused: while the next attempt is being registered, which
/// may fail, the previous one is not purged.
pub(super) fn due(planned: &[Action], under_way: &[Action], observation: &Observation) -> Vec<Action> {
    let busy: BTreeSet<&str> = under_way.iter().map(Action::runner).collect();
    let starting: BTreeSet<&Purpose> = under_way
        .iter()
        .filter_map(|action| match action {
            Action::Start(start) => Some(&start.purpose),
            _ => None,
        })
        .collect();
    let runners = observation.nomad.iter().flat_map(|nomad| &nomad.runners);
    let earlier: BTreeSet<&str> = runners
        .filter(|runner| runner.meta.purpose.as_ref().is_some_and(|purpose| starting.contains(purpose)))
        .map(|runner| runner.name.as_str())
        .collect();
    let waits = |action: &Action| {
        let name = action.runner();
        busy.contains(name) || matches!(action, Action::Purge(_)) && earlier.contains(name)
    };
    planned.iter().filter(|action| !waits(action)).cloned().collect()
}

/// A runner that is being registered, as Nomad would show it before it has an allocation.
fn started(start: &Start, nomad: &NomadView) -> Runner {
    Runner {
        name: start.name.clone(),
        namespace: start.namespace.clone(),
        ownership: Ownership::Ours,
        meta: RunnerMeta {
            labelsstr: Labels::joined(&start.labels),
            repo_url: start.repository.html_url.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            deployment: Some(nomad.deployment.clone()),
            repo_id: Some(start.repository.id),
            purpose: Some(start.purpose.clone()),
            attempt: Some(start.attempt),
            registration: None,
            task: None,
            asks: None,
            class: start.class.clone(),
            mac: None,
        },
        state: RunnerState::Pending,
        finish: None,
        started: false,
        spent: false,
        ending: false,
        lost: None,
        variable: None,
        submitted_at: nomad.now,
        allocation: None,
        started_at: None,
        ended_at: None,
        blocked: None,
        last_event: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{JobId, Purge, PurgeReason, Repository, StartReason};

    fn start(job_id: u64, attempt: u32) -> Start {
        Start {
            repository: Repository {
                id: RepositoryId(1),
                owner: "acme".to_owned(),
                name: "widgets".to_owned(),
                html_url: "https://github.com/acme/widgets".to_owned(),
                archived: false,
                disabled: false,
                visibility: Default::default(),
            },
            class: None,
            namespace: None,
            labels: Labels::new(["nomadtools"]),
            purpose: JobId(job_id).into(),
            facts: Default::default(),
            attempt,
            name: format!("r-{job_id}-{attempt}"),
            info: String::new(),
            reason: StartReason::Missing { demand: 1, supply: 0 },
        }
    }

    #[test]
    fn an_attempt_is_not_purged_while_the_next_one_may_still_fail_to_start() {
        let mut nomad = NomadView {
            now: jiff::Timestamp::UNIX_EPOCH,
            deployment: "i".to_owned(),
            runners: Vec::new(),
            foreign: Vec::new(),
            variables: std::collections::BTreeSet::new(),
            unseen: std::collections::BTreeMap::new(),
        };
        let runners = [started(&start(7, 1), &nomad), started(&start(8, 1), &nomad)];
        nomad.runners.extend(runners);
        let observation = Observation { nomad: Some(nomad), ..Observation::default() };
        let purge = |name: &str| {
            let reason = PurgeReason::Asked;
            Action::Purge(Purge {
                name: name.to_owned(),
                namespace: None,
                repository: None,
                class: None,
                reason,
            })
        };
        let excludes = |under_way: &Action, action: &Action, observation: &Observation| {
            due(std::slice::from_ref(action), std::slice::from_ref(under_way), observation).is_empty()
        };
        let under_way = Action::Start(start(7, 2));
        assert!(excludes(&under_way, &purge("r-7-1"), &observation));
        assert!(!excludes(&under_way, &purge("r-8-1"), &observation));
        assert!(excludes(&under_way, &under_way, &observation));
        assert!(!excludes(&purge("r-7-1"), &purge("r-8-1"), &observation));
    }
}
