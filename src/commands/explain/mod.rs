//! `explain`: why a job is waiting. Observes once, plans, and shows the steps of one job, run, repository or runner.

mod print;
mod reason;
mod target;
#[cfg(test)]
mod tests;
mod way;

use std::{collections::BTreeMap, io::Write};

use anyhow::anyhow;
pub use reason::{Mark, Meaning, Step, meaning};
pub use target::Target;
pub use way::{Entry, Explanation, Seen, Verdict, World};

use super::{Exit, Setup, Style};
use crate::{
    daemon::Pass,
    github::{GitHub, JobDetail, Refresh, Scope, Sought},
    model::{HoldReason, JobStatus, RepoEntry, RepositoryView, Runner, RunnerState, WorkflowJob},
    plan::Policy,
    text::shown,
};

/// At most this many jobs and runners are shown individually.
const TOLD: usize = 20;

/// GitHub is asked about at most this many runners.
const ASKED: usize = 5;

/// The target does not exist.
const NOT_FOUND: Exit = Exit(2);

/// The result.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// One for each job or runner.
    explanations: Vec<Explanation>,
    /// How many more there are.
    more: usize,
    /// Why there is nothing to explain.
    not_found: Option<String>,
}

impl Answer {
    fn one(explanation: Explanation) -> Answer {
        Answer { explanations: vec![explanation], ..Answer::default() }
    }

    fn not_found(why: impl Into<String>) -> Answer {
        Answer { not_found: Some(why.into()), ..Answer::default() }
    }

    fn exit(&self) -> Exit {
        let worst = self.explanations.iter().map(|explanation| explanation.verdict).max();
        match worst {
            None => NOT_FOUND,
            Some(Verdict::Held) => Exit::FAILED,
            Some(Verdict::Served | Verdict::OnItsWay) => Exit::WELL,
        }
    }
}

/// Explains what `text` names. 0: served, or without problems; 1: held; 2: the target does not exist.
///
/// # Errors
/// GitHub cannot be asked for what the pass did not see, or `out` cannot be written.
pub async fn run(
    setup: Setup,
    text: &str,
    json: bool,
    style: Style,
    out: &mut dyn Write,
) -> anyhow::Result<Exit> {
    let answer = match Target::parse(text) {
        Ok(target) => {
            let (github, policy) = (setup.github.clone(), Policy::from(&setup.config));
            let pass = setup.into_daemon().preview().await;
            answer(&github, &policy, &pass, &target).await?
        }
        Err(help) => Answer::not_found(format!("\"{}\": {help}", shown(text, 100))),
    };
    if json {
        print::json(&answer, out)?;
    } else {
        print::text(&answer, style, out)?;
    }
    Ok(answer.exit())
}

async fn answer(github: &GitHub, policy: &Policy, pass: &Pass, target: &Target) -> anyhow::Result<Answer> {
    let mut world = World {
        observation: &pass.observation,
        plan: &pass.plan,
        performed: &pass.reports,
        policy,
        seen: BTreeMap::new(),
    };
    if let Some(explanation) = world.everything(&pass.errors) {
        return Ok(Answer::one(explanation));
    }
    world.seen = seen(github, policy, pass, target).await;
    let Some((owner, name)) = target.repository() else {
        return Ok(runner(&world, target));
    };
    let full_name = format!("{owner}/{name}");
    let views = pass.observation.repositories.values();
    let view = views.into_iter().find(|view| view.repository.full_name().eq_ignore_ascii_case(&full_name));
    let Some(view) = view else {
        return unlisted(github, &world, pass, owner, name).await;
    };
    let repository = &view.repository;
    Ok(match target {
        Target::Job { id, .. } => match view.listing.jobs().iter().find(|job| job.id == *id) {
            Some(job) => Answer::one(world.job(view, job, None)),
            None => match github.job(repository, *id).await {
                Ok(Some(detail)) => Answer::one(world.job(view, &detail.job, Some(&detail))),
                Ok(None) => Answer::not_found(format!("{full_name} has no job {id}")),
                Err(error) => unasked(&world, view, &error)?,
            },
        },
        Target::Run { id, .. } => match github.run_jobs(repository, *id).await {
            Ok(Some(details)) => jobs(&world, view, &merged(view, details)),
            Ok(None) => Answer::not_found(format!("{full_name} has no run {id}")),
            Err(error) => unasked(&world, view, &error)?,
        },
        Target::Repository { .. } | Target::Runner(_) => whole(&world, view),
    })
}

/// What the pass knows of a repository if GitHub cannot be asked about its job.
fn unasked(world: &World<'_>, view: &RepositoryView, error: &crate::github::Error) -> anyhow::Result<Answer> {
    let explanation = world.repository(view);
    match explanation.verdict {
        Verdict::Held => Ok(Answer::one(explanation)),
        _ => Err(anyhow!("asking GitHub about it: {error}")),
    }
}

/// A run's jobs, as the pass saw them where it did, because the plan is based on that.
fn merged(view: &RepositoryView, details: Vec<JobDetail>) -> Vec<(WorkflowJob, Option<JobDetail>)> {
    let listed = |id| view.listing.jobs().iter().find(|job| job.id == id).cloned();
    let merge = |detail: JobDetail| match listed(detail.job.id) {
        Some(job) if job.status == detail.job.status => (job, Some(detail)),
        _ => (detail.job.clone(), Some(detail)),
    };
    details.into_iter().map(merge).collect()
}

fn jobs(world: &World<'_>, view: &RepositoryView, jobs: &[(WorkflowJob, Option<JobDetail>)]) -> Answer {
    let told = jobs.iter().take(TOLD).map(|(job, detail)| world.job(view, job, detail.as_ref()));
    Answer { explanations: told.collect(), more: jobs.len().saturating_sub(TOLD), not_found: None }
}

/// A repository, its waiting and running jobs, and its runners without one of these jobs.
fn whole(world: &World<'_>, view: &RepositoryView) -> Answer {
    let name = view.repository.full_name();
    let listed = view.listing.jobs();
    let mut jobs: Vec<&WorkflowJob> = listed.iter().filter(|job| is_ours(world, job)).collect();
    jobs.sort_by_key(|job| (job.status != JobStatus::Queued, job.created_at, job.id));
    let is_of = |runner: &&Runner| {
        let is_told = runner.meta.job_id().is_some_and(|job| listed.iter().any(|listed| listed.id == job));
        runner.is_live() && !is_told && runner.is_of(&name)
    };
    let runners: Vec<&Runner> =
        world.observation.nomad.iter().flat_map(|nomad| &nomad.runners).filter(is_of).collect();
    let all = jobs.len() + runners.len();
    let jobs = jobs.into_iter().map(|job| world.job(view, job, None));
    let things = jobs.chain(runners.into_iter().map(|runner| world.runner(runner))).take(TOLD);
    let things = world.warm(&view.repository).into_iter().chain(things);
    let explanations: Vec<Explanation> = std::iter::once(world.repository(view)).chain(things).collect();
    Answer { explanations, more: all.saturating_sub(TOLD), not_found: None }
}

/// Whether the job's labels request one of our runners. It may if matching was aborted.
fn is_ours(world: &World<'_>, job: &WorkflowJob) -> bool {
    !matches!(world.policy.labels.matches(&job.labels), crate::labels::Match::No)
}

fn runner(world: &World<'_>, target: &Target) -> Answer {
    let Target::Runner(id) = target else { return Answer::default() };
    let runners = world.observation.nomad.iter().flat_map(|nomad| &nomad.runners);
    if let Some(runner) = runners.into_iter().find(|runner| runner.name == *id) {
        return Answer::one(world.runner(runner));
    }
    match world.foreign(id) {
        Some(explanation) => Answer::one(explanation),
        None => Answer::not_found(format!(
            "Nomad has no runner {id}: it was never started here, or it was purged; `githubrunner list -a` shows all runners"
        )),
    }
}

/// A repository that the pass did not list, with GitHub's reason.
async fn unlisted(
    github: &GitHub,
    world: &World<'_>,
    pass: &Pass,
    owner: &str,
    name: &str,
) -> anyhow::Result<Answer> {
    let full_name = format!("{owner}/{name}");
    // An entry that could not be resolved may be the one that names it.
    if let Some(error) =
        pass.errors.iter().find(|error| error.text.to_lowercase().contains(&owner.to_lowercase()))
    {
        let reason = HoldReason::NotListed { why: error.text.clone() };
        return Ok(Answer::one(world.unlisted(&full_name, None, &reason)));
    }
    let entry = RepoEntry::Repository { owner: owner.to_owned(), name: name.to_owned() };
    let found = github.repositories(&[entry], Refresh::Now).await;
    if let Some((_, error)) = found.failures.first() {
        return match error {
            crate::github::Error::NotFound { .. } => Ok(Answer::not_found(format!("{full_name}: {error}"))),
            _ => Err(anyhow!("asking GitHub about {full_name}: {error}")),
        };
    }
    let Some(repository) = found.repositories.first() else {
        return Ok(Answer::not_found(format!(
            "GitHub has no repository {full_name} that the token can access"
        )));
    };
    let reason = match repository.archived || repository.disabled {
        true => HoldReason::Archived,
        false => HoldReason::NotConfigured,
    };
    Ok(Answer::one(world.unlisted(&repository.full_name(), Some(repository.html_url.clone()), &reason)))
}

/// What GitHub says about the runners in the answer: those that are running and have no job.
async fn seen(github: &GitHub, policy: &Policy, pass: &Pass, target: &Target) -> BTreeMap<String, Seen> {
    let runners = pass.observation.nomad.iter().flat_map(|nomad| &nomad.runners);
    let is_meant = |runner: &&Runner| match target {
        Target::Runner(id) => runner.name == *id,
        Target::Job { id, .. } => runner.meta.job_id() == Some(*id),
        Target::Run { owner, name, .. } | Target::Repository { owner, name } => {
            runner.is_of(&format!("{owner}/{name}"))
        }
    };
    let jobs = || pass.observation.repositories.values().flat_map(|view| view.listing.jobs());
    let is_busy = |runner: &&Runner| jobs().any(|job| job.runner_name.as_deref() == Some(&runner.name));
    let idle = runners.filter(|runner| runner.state == RunnerState::Running).filter(is_meant);
    let mut seen = BTreeMap::new();
    for runner in idle.filter(|runner| !is_busy(runner)).take(ASKED) {
        let Some(repository) = runner.repository() else { continue };
        let scope = Scope::of(&repository, policy.class_named(runner.class()).level());
        let said = match github.find_runner(&scope, &runner.name).await {
            Ok(Sought::Found(found)) if found.is_connected() => Seen::Connected,
            Ok(Sought::Found(_)) => Seen::Offline,
            Ok(Sought::Absent) => Seen::Absent,
            Ok(Sought::Unseen(gap)) => Seen::Unknown(gap.to_string()),
            Err(error) => Seen::Unknown(error.to_string()),
        };
        seen.insert(runner.name.clone(), said);
    }
    seen
}
