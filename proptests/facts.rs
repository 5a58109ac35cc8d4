//! What the rules say of a case, computed again from DESIGN's words and without the planner's code.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use githubrunner::model::*;

use crate::cases::{Case, NOW, server_now};

pub type Group = (RepositoryId, Vec<String>);

/// A set of labels as GitHub compares it.
pub fn key(labels: &[String]) -> Vec<String> {
    let set: BTreeSet<String> = labels.iter().map(|label| label.to_lowercase()).collect();
    set.into_iter().collect()
}

pub fn group_of_start(start: &Start) -> Group {
    (start.repository.id, start.labels.key().map(str::to_owned).collect())
}

pub struct Facts<'a> {
    case: &'a Case,
    /// The last sighting of each job, by ID, with its repository.
    pub jobs: BTreeMap<u64, (&'a RepositoryView, &'a WorkflowJob)>,
    pub busy: BTreeSet<&'a str>,
}

impl<'a> Facts<'a> {
    pub fn new(case: &'a Case) -> Self {
        let rank = |status| match status {
            JobStatus::Completed => 3,
            JobStatus::InProgress => 2,
            JobStatus::Queued => 1,
            _ => 0,
        };
        let mut facts = Facts { case, jobs: BTreeMap::new(), busy: BTreeSet::new() };
        for view in case.observation.repositories.values() {
            for job in view.listing.jobs() {
                if job.status == JobStatus::InProgress {
                    facts.busy.extend(job.runner_name.as_deref());
                }
                let seen = facts.jobs.entry(job.id).or_insert((view, job));
                if rank(job.status) > rank(seen.1.status) {
                    *seen = (view, job);
                }
            }
        }
        facts
    }

    pub fn runners(&self) -> impl Iterator<Item = &'a Runner> + use<'a> {
        self.case.runners().iter()
    }

    pub fn runner(&self, name: &str) -> Option<&'a Runner> {
        self.runners().find(|runner| runner.name == name)
    }

    pub fn view(&self, runner: &Runner) -> Option<&'a RepositoryView> {
        let views = &self.case.observation.repositories;
        match runner.meta.repo_id {
            Some(id) => views.get(&id),
            None => views.values().find(|view| view.repository.html_url == runner.meta.repo_url),
        }
    }

    pub fn group(&self, runner: &Runner) -> Option<Group> {
        let labels: Vec<String> = runner.meta.labelsstr.split(',').map(str::to_owned).collect();
        Some((self.view(runner)?.repository.id, key(&labels)))
    }

    /// Whether its repository was listed in this pass, and completely.
    pub fn fresh(&self, runner: &Runner) -> Option<bool> {
        match self.view(runner)?.listing {
            Listing::Fresh { complete, .. } => Some(complete),
            _ => None,
        }
    }

    pub fn is_busy(&self, runner: &Runner) -> bool {
        self.busy.contains(runner.name.as_str())
    }

    pub fn ours(&self, runner: &Runner) -> bool {
        runner.ownership == Ownership::Ours
    }

    /// How many runners are not dead: of all, of a repository, of a group.
    pub fn live(&self, counts: impl Fn(&Runner) -> bool) -> usize {
        self.runners().filter(|runner| runner.state != RunnerState::Dead && counts(runner)).count()
    }

    pub fn spent(&self, runner: &Runner) -> bool {
        runner.lost && self.ours(runner) && runner.registration() != Registration::AccessToken
    }

    /// Since when look-ups have not found it.
    pub fn absent(&self, runner: &Runner) -> bool {
        self.case.observation.memory.presence.get(&runner.name).is_some_and(|p| p.absent_since.is_some())
    }

    /// Whether no job gets to it. One that registers by itself may bear another name at GitHub, and is believed
    /// for ten minutes.
    pub fn out_of_reach(&self, runner: &Runner) -> bool {
        let Some(presence) = self.case.observation.memory.presence.get(&runner.name) else { return false };
        let Some(since) = presence.absent_since else { return false };
        runner.registration() == Registration::Jit
            || presence.checked_at.saturating_sub(since) >= Duration::from_secs(600)
    }

    /// The runners that can take a job of the group, now or soon.
    pub fn supply(&self, group: &Group) -> Vec<&'a Runner> {
        use RunnerState::*;
        self.runners()
            .filter(|runner| self.group(runner).as_ref() == Some(group))
            .filter(|runner| matches!(runner.state, Pending | Waiting | Starting | Running))
            .filter(|runner| !self.is_busy(runner) && !self.out_of_reach(runner) && !self.spent(runner))
            .collect()
    }

    /// Queued, with labels of ours that may be rendered, and not given up, whatever the repository is like.
    pub fn wants_runner(&self, view: &RepositoryView, job: &WorkflowJob) -> bool {
        let good = crate::cases::GOOD.iter().any(|set| {
            key(&job.labels)
                == set
                    .iter()
                    .map(|label| label.to_lowercase())
                    .collect::<BTreeSet<_>>()
                    .into_iter()
                    .collect::<Vec<_>>()
        });
        let old = job.created_at.is_some_and(|at| age(server_now(), at) > Duration::from_secs(86_400));
        job.status == JobStatus::Queued && good && !(old && matches!(view.listing, Listing::Fresh { .. }))
    }

    pub fn takes_jobs(&self, view: &RepositoryView) -> bool {
        view.configured && !view.repository.archived && !view.repository.disabled
    }

    /// The demand of each group in repositories that take jobs.
    pub fn demand(&self) -> BTreeMap<Group, Vec<&'a WorkflowJob>> {
        let mut demand: BTreeMap<Group, Vec<&WorkflowJob>> = BTreeMap::new();
        for (view, job) in self.jobs.values() {
            if self.takes_jobs(view) && self.wants_runner(view, job) {
                demand.entry((view.repository.id, key(&job.labels))).or_default().push(job);
            }
        }
        demand
    }

    pub fn demand_of(&self, group: &Group) -> usize {
        self.demand().get(group).map_or(0, Vec::len)
    }

    /// The highest attempt of a cause.
    pub fn highest(&self, cause: u64) -> Option<u32> {
        self.runners()
            .filter(|runner| runner.meta.job_id == Some(cause))
            .map(|runner| runner.meta.attempt.unwrap_or(1))
            .max()
    }

    /// For how long a running runner has been idle.
    pub fn idle(&self, runner: &Runner) -> Option<Duration> {
        if runner.state != RunnerState::Running || self.is_busy(runner) {
            return None;
        }
        let placed = runner.allocation.as_ref().map_or(runner.submitted_at, |a| a.created_at);
        let started = runner.started_at.filter(|at| *at <= server_now()).unwrap_or(placed).max(placed);
        let idle = age(server_now(), started);
        let busy = self.case.observation.memory.last_busy.get(&runner.name).map(|at| NOW - *at);
        Some(busy.unwrap_or(idle).min(idle))
    }

    /// For how long a dead runner has been dead.
    pub fn dead_for(&self, runner: &Runner) -> Duration {
        let died = runner.ended_at.unwrap_or(runner.submitted_at);
        age(server_now(), died.max(runner.submitted_at))
    }

    /// Whether an action on it failed a moment ago.
    pub fn waits_after_failure(&self, name: &str) -> bool {
        self.case.observation.memory.runner_backoff.get(name).is_some_and(|backoff| backoff.until > NOW)
    }

    pub fn was_surplus(&self, runner: &Runner) -> bool {
        let memory = &self.case.observation.memory;
        self.view(runner)
            .and_then(|view| memory.surplus.get(&view.repository.id))
            .is_some_and(|names| names.contains(&runner.name))
    }
}

pub fn starts(plan: &Plan) -> impl Iterator<Item = &Start> {
    plan.actions.iter().filter_map(|action| match action {
        Action::Start(start) => Some(start),
        _ => None,
    })
}

pub fn stops(plan: &Plan) -> impl Iterator<Item = &Stop> {
    plan.actions.iter().filter_map(|action| match action {
        Action::Stop(stop) => Some(stop),
        _ => None,
    })
}

/// The reasons held for a GitHub job.
pub fn job_holds(plan: &Plan, job: u64) -> impl Iterator<Item = &HoldReason> {
    plan.holds.iter().filter_map(move |hold| match &hold.subject {
        Subject::Job { id, .. } if *id == job => Some(&hold.reason),
        _ => None,
    })
}

/// The reasons held for a runner.
pub fn runner_holds<'a>(plan: &'a Plan, runner: &str) -> impl Iterator<Item = &'a HoldReason> {
    plan.holds.iter().filter_map(move |hold| match &hold.subject {
        Subject::Runner { name } if name == runner => Some(&hold.reason),
        _ => None,
    })
}

/// The reasons held for a repository.
pub fn repository_holds<'a>(plan: &'a Plan, repository: &str) -> impl Iterator<Item = &'a HoldReason> {
    plan.holds.iter().filter_map(move |hold| match &hold.subject {
        Subject::Repository { name } if name == repository => Some(&hold.reason),
        _ => None,
    })
}
