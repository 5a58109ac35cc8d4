//! The steps of a job or a runner through the planner's rules: what was observed, and what the plan says
//! about it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::reason::{Mark, Meaning, Step, meaning};
use crate::{
    github::JobDetail,
    labels::Match,
    model::{
        Action, Hold, HoldReason, JobId, JobStatus, Labels, Listing, NomadView, Observation, Plan,
        Report as Performed, Repository, RepositoryView, Runner, RunnerState, Start, Subject, Unobserved,
        WorkflowJob, age, span,
    },
    plan::Policy,
};

/// At most this many ended attempts are shown.
const ATTEMPTS_TOLD: usize = 3;

/// The input for an answer.
pub struct World<'a> {
    /// What one pass saw.
    pub observation: &'a Observation,
    /// The plan for it.
    pub plan: &'a Plan,
    /// The outcomes of its actions in a dry run: a template that cannot be rendered.
    pub performed: &'a [Performed],
    /// The policy of the plan.
    pub policy: &'a Policy,
    /// What GitHub says about runners, by name. Only for those that were looked up.
    pub seen: BTreeMap<String, Seen>,
}

/// What GitHub says about a runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Registered and connected.
    Connected,
    /// Registered but not connected.
    Offline,
    /// Not registered.
    Absent,
    /// GitHub could not be asked.
    Unknown(String),
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    pub step: Step,
    pub mark: Mark,
    /// Since when, by a server's clock.
    pub at: Option<Timestamp>,
    /// What is known.
    pub text: String,
    /// What to do.
    pub advice: Option<String>,
}

/// The result for the subject as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Served,
    /// On its way, without problems.
    OnItsWay,
    /// Something holds it.
    Held,
}

impl Verdict {
    fn of(is_served: bool) -> Self {
        if is_served { Verdict::Served } else { Verdict::OnItsWay }
    }
}

/// The explanation of one subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    pub subject: String,
    /// Its URL at GitHub.
    pub url: Option<String>,
    pub verdict: Verdict,
    /// Its steps, in order.
    pub steps: Vec<Entry>,
}

/// An explanation under construction.
#[derive(Default)]
struct Way {
    entries: Vec<Entry>,
}

impl Way {
    fn push(&mut self, step: Step, mark: Mark, at: Option<Timestamp>, text: impl Into<String>) {
        self.entries.push(Entry { step, mark, at, text: text.into(), advice: None });
    }

    fn advise(&mut self, step: Step, mark: Mark, text: impl Into<String>, advice: impl Into<String>) {
        let advice = Some(advice.into());
        self.entries.push(Entry { step, mark, at: None, text: text.into(), advice });
    }

    /// Adds a hold.
    fn hold(&mut self, reason: &HoldReason, state: Option<RunnerState>) {
        let Meaning { step, mark, advice } = meaning(reason, state);
        self.advise(step, mark, reason.to_string(), advice);
    }

    fn is_held(&self) -> bool {
        self.entries.iter().any(|entry| entry.mark == Mark::Held)
    }

    fn is_held_at(&self, step: Step) -> bool {
        self.entries.iter().any(|entry| entry.step == step && entry.mark == Mark::Held)
    }

    /// The explanation, with this verdict unless something holds the subject.
    fn end(mut self, subject: String, url: Option<String>, otherwise: Verdict) -> Explanation {
        self.entries.sort_by_key(|entry| entry.step);
        let verdict = if self.is_held() { Verdict::Held } else { otherwise };
        Explanation { subject, url, verdict, steps: self.entries }
    }
}

impl World<'_> {
    fn nomad(&self) -> Option<&NomadView> {
        self.observation.nomad.as_ref()
    }

    fn runners(&self) -> &[Runner] {
        self.nomad().map_or(&[], |nomad| &nomad.runners)
    }

    fn holds(&self, is_about: impl Fn(&Subject) -> bool) -> impl Iterator<Item = &HoldReason> {
        let about = move |hold: &&Hold| is_about(&hold.subject);
        self.plan.holds.iter().filter(about).map(|hold| &hold.reason)
    }

    /// What holds everything: Nomad.
    pub fn everything(&self, errors: &[Unobserved]) -> Option<Explanation> {
        let mut way = Way::default();
        for reason in self.holds(|subject| *subject == Subject::Nomad) {
            let Meaning { step, mark, advice } = meaning(reason, None);
            let why: Vec<String> =
                std::iter::once(reason.to_string()).chain(errors.iter().map(ToString::to_string)).collect();
            way.advise(step, mark, why.join("; "), advice);
        }
        way.is_held().then(|| way.end("everything".to_owned(), None, Verdict::OnItsWay))
    }

    /// A repository, without its jobs.
    pub fn repository(&self, view: &RepositoryView) -> Explanation {
        let mut way = Way::default();
        self.repository_steps(view, &mut way);
        let jobs = view.listing.jobs();
        let count = |status| jobs.iter().filter(|job| job.status == status).count();
        let (queued, running) = (count(JobStatus::Queued), count(JobStatus::InProgress));
        way.push(Step::Status, Mark::Note, None, format!("{queued} queued, {running} in progress"));
        way.end(view.repository.full_name(), Some(view.repository.html_url.clone()), Verdict::Served)
    }

    /// The warm entries of a repository and of its owner for which nothing is started, and why.
    pub fn warm(&self, repository: &Repository) -> Vec<Explanation> {
        let name = repository.full_name();
        let is_of = |of: &str| of.eq_ignore_ascii_case(&name) || of.eq_ignore_ascii_case(&repository.owner);
        let holds = self
            .plan
            .holds
            .iter()
            .filter(|hold| matches!(&hold.subject, Subject::Warm { place, .. } if is_of(place)));
        let explained = holds.map(|hold| {
            let mut way = Way::default();
            way.hold(&hold.reason, None);
            way.end(hold.subject.to_string(), None, Verdict::OnItsWay)
        });
        explained.collect()
    }

    /// A repository that no pass lists, for one of the planner's reasons.
    pub fn unlisted(&self, name: &str, url: Option<String>, reason: &HoldReason) -> Explanation {
        let mut way = Way::default();
        way.hold(reason, None);
        way.end(name.to_owned(), url, Verdict::OnItsWay)
    }

    fn repository_steps(&self, view: &RepositoryView, way: &mut Way) {
        let name = view.repository.full_name();
        for reason in self.holds(|subject| matches!(subject, Subject::Repository { name: of } if *of == name))
        {
            way.hold(reason, None);
        }
        if let (Listing::Fresh { now, .. }, false) = (&view.listing, way.is_held_at(Step::Repository)) {
            way.push(Step::Repository, Mark::Done, Some(*now), "listed");
        }
    }

    /// The steps of a job. `detail` is what GitHub says about it, if it was asked.
    pub fn job(&self, view: &RepositoryView, job: &WorkflowJob, detail: Option<&JobDetail>) -> Explanation {
        let mut way = Way::default();
        let repository = &view.repository;
        let name = repository.full_name();
        self.repository_steps(view, &mut way);
        let is_about = |subject: &Subject| matches!(subject, Subject::Job { repository, id, .. } if *repository == name && *id == job.id);
        for reason in self.holds(is_about) {
            way.hold(reason, None);
        }
        self.status_step(view, job, detail, &mut way);
        self.label_steps(job, &mut way);
        let is_served = match job.status {
            JobStatus::InProgress | JobStatus::Completed => {
                self.taken(job, detail, &mut way);
                true
            }
            JobStatus::Queued if !way.is_held_at(Step::Match) => {
                self.queued(view, job, &mut way);
                false
            }
            _ => false,
        };
        let labels = Labels::new(job.labels.iter().map(String::as_str));
        let subject = format!("{name} job {} \"{}\" [{labels}]", job.id, job.name);
        let url = format!("{}/actions/runs/{}/job/{}", repository.html_url, job.run_id, job.id);
        way.end(subject, Some(url), Verdict::of(is_served))
    }

    fn status_step(
        &self,
        view: &RepositoryView,
        job: &WorkflowJob,
        detail: Option<&JobDetail>,
        way: &mut Way,
    ) {
        if way.is_held_at(Step::Status) {
            return;
        }
        let now = match view.listing {
            Listing::Fresh { now, .. } => Some(now),
            _ => None,
        };
        let queued = job.created_at.zip(now).map(|(at, now)| format!(" for {}", span(age(now, at))));
        match job.status {
            JobStatus::Queued => {
                way.push(
                    Step::Status,
                    Mark::Done,
                    job.created_at,
                    format!("queued{}", queued.unwrap_or_default()),
                );
            }
            JobStatus::Completed => {
                let conclusion =
                    detail.and_then(|detail| detail.conclusion.as_deref()).unwrap_or("no conclusion");
                let at = detail.and_then(|detail| detail.completed_at);
                way.push(Step::Status, Mark::Done, at, format!("completed: {conclusion}"));
            }
            status => way.push(Step::Status, Mark::Done, job.created_at, status.as_str()),
        }
        let is_listed = view.listing.jobs().iter().any(|listed| listed.id == job.id);
        if job.status == JobStatus::Queued && !is_listed && !way.is_held_at(Step::Repository) {
            let text = "queued after the repository was listed: run this command again";
            way.push(Step::Status, Mark::Now, None, text);
        }
    }

    fn label_steps(&self, job: &WorkflowJob, way: &mut Way) {
        let rules = &self.policy.labels;
        let labels = Labels::new(job.labels.iter().map(String::as_str)).joined();
        match rules.matches(&job.labels) {
            Match::Yes => {
                way.push(Step::Match, Mark::Done, None, format!("[{labels}] matches runson_match {rules}"))
            }
            // It runs or ran on another runner.
            Match::No if job.status != JobStatus::Queued => {
                way.push(
                    Step::Match,
                    Mark::Note,
                    None,
                    format!("[{labels}] does not match runson_match {rules}"),
                );
            }
            Match::No => way.advise(
                Step::Match,
                Mark::Held,
                format!("[{labels}] does not match runson_match {rules}: the job does not request one of our runners"),
                "change `runs-on` in the workflow, or runson_match",
            ),
            // The planner holds it.
            Match::GaveUp => {}
        }
        let is_well = !way.is_held_at(Step::Labels) && !way.is_held_at(Step::Match);
        if is_well && rules.check(&job.labels).is_ok() {
            way.push(Step::Labels, Mark::Done, None, "follow the label rules");
        }
    }

    /// A job that needs a runner.
    fn queued(&self, view: &RepositoryView, job: &WorkflowJob, way: &mut Way) {
        let start = self.plan.actions.iter().find_map(|action| match action {
            Action::Start(start) if start.purpose.job_id() == Some(job.id) => Some(start),
            _ => None,
        });
        if let Some(start) = start {
            self.start_step(start, way);
        }
        let mut attempts: Vec<&Runner> = self.attempts(job.id).collect();
        attempts.sort_by_key(|runner| (runner.meta.attempt, runner.submitted_at));
        let (dead, live): (Vec<&Runner>, Vec<&Runner>) =
            attempts.into_iter().partition(|runner| !runner.is_live());
        for runner in dead.iter().rev().take(ATTEMPTS_TOLD).rev() {
            let text = format!("{} ended: {}", named(runner), runner.how_it_ended());
            way.push(Step::Attempts, Mark::Note, runner.ended_at, text);
        }
        for runner in &live {
            let Some(other) = self.job_of(&runner.name).filter(|other| other.id != job.id) else { continue };
            let text = format!("{} was taken by another job: {}", named(runner), other.id);
            way.push(Step::Attempts, Mark::Note, runner.started_at, text);
        }
        let own = live.into_iter().rev().find(|runner| self.job_of(&runner.name).is_none());
        let labels = Labels::new(job.labels.iter().map(String::as_str));
        let other = || {
            let fits = |runner: &&Runner| {
                runner.is_live()
                    && runner.labels() == labels
                    && runner.is_of(&view.repository.full_name())
                    && self.job_of(&runner.name).is_none()
            };
            self.runners().iter().filter(fits).max_by_key(|runner| runner.state)
        };
        match (own, start, way.is_held()) {
            (Some(runner), ..) => self.runner_steps(runner, way),
            (None, None, false) if !view.listing.jobs().is_empty() => {
                if let Some(runner) = other() {
                    way.push(
                        Step::Attempts,
                        Mark::Now,
                        None,
                        format!("a runner with these labels should take it: {}", runner.name),
                    );
                    self.runner_steps(runner, way);
                }
            }
            _ => {}
        }
    }

    fn start_step(&self, start: &Start, way: &mut Way) {
        let failed = self.performed.iter().find(|report| {
            matches!(&report.action, Action::Start(other) if other.name == start.name)
                && report.outcome.is_failure()
        });
        match failed {
            Some(report) => way.advise(
                Step::Registration,
                Mark::Held,
                format!("{}, attempt {}: {}", start.name, start.attempt, report.outcome),
                "fix the template or the labels: `githubrunner render LABEL` shows what they render to",
            ),
            None => way.advise(
                Step::Registration,
                Mark::Now,
                format!("the next pass starts {}, attempt {}: {}", start.name, start.attempt, start.reason),
                "if this lasts: check that the daemon is running and is the leader, and read its log",
            ),
        }
    }

    /// A job that a runner has taken.
    fn taken(&self, job: &WorkflowJob, detail: Option<&JobDetail>, way: &mut Way) {
        let at = detail.and_then(|detail| detail.started_at);
        let Some(name) = &job.runner_name else {
            way.push(Step::Connection, Mark::Note, at, "GitHub names no runner for it");
            return;
        };
        match self.runners().iter().find(|runner| runner.name == *name) {
            Some(runner) => {
                let whose = match runner.meta.job_id() {
                    Some(job_id) if job_id != job.id => format!(", which was started for job {job_id}"),
                    _ => String::new(),
                };
                way.push(Step::Registration, Mark::Done, Some(runner.submitted_at), named(runner));
                if let Some(allocation) = &runner.allocation {
                    let text = format!("on node {}", allocation.node);
                    way.push(Step::Placement, Mark::Done, Some(allocation.created_at), text);
                }
                if let Some(at) = runner.variable {
                    way.push(Step::Credentials, Mark::Done, Some(at), "issued");
                }
                if let Some(at) = runner.started_at {
                    way.push(Step::Task, Mark::Done, Some(at), "started");
                }
                way.push(Step::Connection, Mark::Done, at, format!("taken by {name}{whose}"));
            }
            None => {
                let text = format!("taken by {name}, which is not (or no longer) a runner in Nomad");
                way.push(Step::Connection, Mark::Done, at, text);
            }
        }
    }

    /// The steps of a runner, and what happens to it next.
    pub fn runner(&self, runner: &Runner) -> Explanation {
        let mut way = Way::default();
        if let Some(job_id) = runner.meta.job_id() {
            let listed = self.observation.repositories.values().flat_map(|view| view.listing.jobs());
            let status = listed.into_iter().find(|job| job.id == job_id).map(|job| job.status.as_str());
            let status = status.unwrap_or("not in the listing: over, or not seen");
            way.push(Step::Status, Mark::Note, None, format!("started for job {job_id}: {status}"));
        }
        if runner.warm().is_some() {
            way.push(
                Step::Status,
                Mark::Note,
                None,
                "a warm runner: it takes any job that has some of its labels",
            );
        }
        self.runner_steps(runner, &mut way);
        let repository = runner.repository().map_or_else(|| "/".to_owned(), |named| named.full_name());
        let subject = format!("runner {} of {repository} [{}]", runner.name, runner.labels());
        let is_well = runner.state == RunnerState::Running || !runner.is_live();
        way.end(subject, crate::commands::list::job_url(runner), Verdict::of(is_well))
    }

    /// A job that claims to be a runner of ours and is not.
    pub fn foreign(&self, name: &str) -> Option<Explanation> {
        let foreign = self.nomad()?.foreign.iter().find(|foreign| foreign.name == name)?;
        let mut way = Way::default();
        way.hold(&HoldReason::Foreign { reason: foreign.reason }, None);
        Some(way.end(format!("job {name}"), None, Verdict::OnItsWay))
    }

    fn runner_steps(&self, runner: &Runner, way: &mut Way) {
        let state = Some(runner.state);
        for reason in
            self.holds(|subject| matches!(subject, Subject::Runner { name } if *name == runner.name))
        {
            way.hold(reason, state);
        }
        let namespace = runner.namespace.as_ref().map(|namespace| format!(" in namespace {namespace}"));
        let namespace = namespace.unwrap_or_default();
        let text = format!("{}{namespace}, registers by {}", named(runner), runner.registration());
        way.push(Step::Registration, Mark::Done, Some(runner.submitted_at), text);
        match (&runner.allocation, &runner.blocked) {
            (Some(allocation), _) => {
                let text = format!("on node {}, allocation {}", allocation.node, allocation.id);
                way.push(Step::Placement, Mark::Done, Some(allocation.created_at), text);
            }
            (None, None) if runner.is_live() => {
                way.push(Step::Evaluation, Mark::Now, None, "Nomad has not placed it yet");
            }
            (None, _) => {}
        }
        self.credentials_step(runner, way);
        self.task_step(runner, way);
        self.connection_step(runner, way);
        self.end_step(runner, way);
    }

    fn credentials_step(&self, runner: &Runner, way: &mut Way) {
        let is_issued =
            |action: &Action| matches!(action, Action::IssueCredentials(issue) if issue.name == runner.name);
        let is_due = self.plan.actions.iter().any(is_issued);
        match runner.variable {
            _ if !runner.registration().needs_variable() || !runner.is_live() => {}
            Some(at) => way.push(Step::Credentials, Mark::Done, Some(at), "issued"),
            None if is_due && !way.is_held_at(Step::Credentials) => way.advise(
                Step::Credentials,
                Mark::Now,
                "the next pass issues them",
                "if this lasts: check that the daemon is running, and read its log",
            ),
            None => {}
        }
    }

    fn task_step(&self, runner: &Runner, way: &mut Way) {
        let event =
            runner.last_event.as_ref().map(|event| format!(", last event: {event}")).unwrap_or_default();
        match runner.state {
            RunnerState::Starting if !way.is_held_at(Step::Task) => {
                way.push(Step::Task, Mark::Now, None, format!("has not started yet{event}"));
            }
            RunnerState::Running => way.push(Step::Task, Mark::Done, runner.started_at, "started"),
            RunnerState::Stopping => way.push(Step::Task, Mark::Now, None, "told to stop"),
            RunnerState::Dead => {
                way.push(
                    Step::Task,
                    Mark::Done,
                    runner.ended_at,
                    format!("ended: {}", runner.how_it_ended()),
                );
            }
            RunnerState::Pending
            | RunnerState::Waiting
            | RunnerState::Starting
            | RunnerState::Disconnected => {}
        }
    }

    fn connection_step(&self, runner: &Runner, way: &mut Way) {
        if runner.state != RunnerState::Running {
            return;
        }
        if let Some(job) = self.job_of(&runner.name) {
            let text = match runner.meta.job_id() {
                Some(job_id) if job_id != job.id => format!("taken by another job: {}", job.id),
                _ => format!("has job {}", job.id),
            };
            way.push(Step::Connection, Mark::Done, None, text);
            return;
        }
        match self.seen.get(&runner.name) {
            Some(Seen::Connected) => {
                way.push(Step::Connection, Mark::Now, None, "connected and idle: GitHub will give it a job");
            }
            Some(Seen::Offline) if !way.is_held_at(Step::Connection) => way.advise(
                Step::Connection,
                Mark::Now,
                "registered at GitHub but not connected yet",
                format!("if this lasts: githubrunner logs {}", runner.name),
            ),
            Some(Seen::Absent) if !way.is_held_at(Step::Connection) => way.advise(
                Step::Connection,
                Mark::Now,
                "not registered at GitHub under this name: not yet, or its job has ended",
                format!("if this lasts: githubrunner logs {}", runner.name),
            ),
            Some(Seen::Unknown(why)) => {
                way.push(Step::Connection, Mark::Note, None, format!("GitHub could not be asked: {why}"));
            }
            Some(Seen::Offline | Seen::Absent) | None => {}
        }
    }

    fn end_step(&self, runner: &Runner, way: &mut Way) {
        for action in self.plan.actions.iter().filter(|action| action.runner() == runner.name) {
            match action {
                Action::Stop(stop) => {
                    way.push(
                        Step::End,
                        Mark::Note,
                        None,
                        format!("the next pass stops it: {}; {}", stop.reason, stop.consent),
                    );
                }
                Action::CleanUp(_) | Action::Purge(_) | Action::RemoveOrphan(_) | Action::Rerun(_) => {
                    way.push(Step::End, Mark::Note, None, format!("the next pass: {action}"));
                }
                Action::VerifyRegistration(_) => {
                    way.push(
                        Step::Connection,
                        Mark::Note,
                        None,
                        "the next pass asks GitHub whether it is still registered",
                    );
                }
                Action::Start(_) | Action::IssueCredentials(_) => {}
            }
        }
    }

    /// The runners that were started for a job.
    fn attempts(&self, job: JobId) -> impl Iterator<Item = &Runner> {
        self.runners().iter().filter(move |runner| runner.meta.job_id() == Some(job))
    }

    /// The job that a runner is running.
    fn job_of(&self, runner: &str) -> Option<&WorkflowJob> {
        let listed = self.observation.repositories.values().flat_map(|view| view.listing.jobs());
        listed
            .into_iter()
            .find(|job| job.status == JobStatus::InProgress && job.runner_name.as_deref() == Some(runner))
    }
}

fn named(runner: &Runner) -> String {
    match runner.meta.attempt {
        Some(attempt) => format!("{}, attempt {attempt}", runner.name),
        None => runner.name.clone(),
    }
}
