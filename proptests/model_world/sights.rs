//! Views of the model world.

use githubrunner::model::*;

use super::{Listed, Phase, Task, World, at};
use crate::cases::{DEPLOYMENT, repository};

impl World {
    /// GitHub's listing of a repository: active jobs, and those that have just ended.
    pub fn list(&mut self, index: usize) -> (Vec<WorkflowJob>, bool) {
        let mut jobs: Vec<WorkflowJob> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.repository == index)
            .filter(|(_, job)| job.status != JobStatus::Completed || job.ends + 60 > self.now)
            .map(|(id, job)| WorkflowJob {
                id: *id,
                run_id: RunId(id.0),
                repository: repository(index).id,
                name: "build".to_owned(),
                status: job.status,
                labels: job.labels.clone().into(),
                runner_name: job.runner.clone(),
                created_at: Some(at(job.created)),
                started_at: None,
                html_url: None,
                run: Default::default(),
            })
            .collect();
        let complete = !self.random.percent(self.settings.incomplete);
        if !complete {
            let half = self.random.below(2);
            jobs.retain(|job| job.id.0 % 2 == half);
        }
        (jobs, complete)
    }

    pub fn nomad_view(&self) -> NomadView {
        let variable = |name: &String| RunnerVariable { namespace: None, name: name.clone() };
        let runners = self.tasks.iter().map(|(name, task)| self.runner(name, task)).collect();
        NomadView {
            now: at(self.now),
            deployment: DEPLOYMENT.to_owned(),
            runners,
            foreign: Vec::new(),
            variables: self.variables.iter().map(variable).collect(),
            unseen: std::collections::BTreeMap::new(),
        }
    }

    pub fn own_registrations(&self) -> Vec<OwnRegistration> {
        let own = |(name, listed): (&String, &Listed)| OwnRegistration {
            name: name.clone(),
            online: listed.online,
            repository: repository(listed.repository).id,
        };
        self.registrations.iter().map(own).collect()
    }

    fn runner(&self, name: &str, task: &Task) -> Runner {
        let (state, finish) = match &task.phase {
            Phase::Pending => (RunnerState::Pending, None),
            Phase::Waiting if self.settings.mode.needs_variable() && !self.variables.contains(name) => {
                (RunnerState::Waiting, None)
            }
            Phase::Waiting | Phase::Starting { .. } => (RunnerState::Starting, None),
            Phase::Running => (RunnerState::Running, None),
            Phase::Stopping { .. } => (RunnerState::Stopping, None),
            Phase::Dead { finish, .. } => (RunnerState::Dead, Some(finish.clone())),
        };
        let ended = match task.phase {
            Phase::Dead { at, .. } if task.placed.is_some() => Some(at),
            _ => None,
        };
        let blocked = || Blocked { exhausted: task.fits(), reason: "no room".to_owned() };
        Runner {
            name: name.to_owned(),
            namespace: None,
            ownership: Ownership::Ours,
            meta: task.meta.clone(),
            state,
            finish,
            started: task.started.is_some(),
            spent: false,
            ending: false,
            lost: None,
            variable: self.variables.contains(name).then(|| at(task.placed.unwrap_or(task.submitted))),
            submitted_at: at(task.submitted),
            allocation: task.placed.map(|placed| Allocation {
                id: "a".to_owned(),
                node: "n".to_owned(),
                node_id: "n".to_owned(),
                draining: false,
                created_at: at(placed),
            }),
            started_at: task.started.map(at),
            ended_at: ended.map(at),
            blocked: (state == RunnerState::Pending).then(blocked),
            last_event: None,
        }
    }
}
