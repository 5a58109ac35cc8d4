//! Turns actions into API calls. Tolerates losing every race, reports each outcome, and contains the only dry-run
//! switch.
//!
//! Each action can be interrupted at any await and repeated: names are unique and registered with EnforceIndex 0,
//! variables are written with cas 0, conflicting registrations are repaired by the next IssueCredentials, and
//! everything else removes what may already be gone.

mod rerun;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use serde_json::Value;
use tokio::{sync::Semaphore, time::Instant};

use crate::{
    config::{Class, ClassNomad, Config},
    github::{self, Deleted, GitHub, RegisteredRunner, Scope, Sought},
    labels::LabelRules,
    leadership::Leadership,
    model::{
        Action, CleanUp, Consent, Done, IssueCredentials, NotDone, Orphan, Outcome, Plan, Purge,
        Registration, RemoveOrphan, Report, Repository, RunnerId, RunnerMeta, RunnerState, Start, Stop,
        StopReason, VerifyRegistration, Visibility,
    },
    nomad::{
        self, CredentialItems, Nomad, Placement, Registered, Written, asks, job_from_json, main_task,
        prepare, reaches_host,
    },
    render::{Renderer, RunContext, credential_items},
    secret::Secret,
};

/// Carries out plans. Clones share everything but GitHub's deadline.
#[derive(Clone)]
pub struct Apply {
    github: GitHub,
    nomad: Nomad,
    renderer: Arc<Renderer>,
    /// Properties of new runners.
    kinds: Arc<Kinds>,
    /// The deployment ID of new runners.
    deployment: Arc<str>,
    /// Change nothing.
    dry_run: bool,
    /// Whether this replica may act.
    leadership: Leadership,
    /// Limits the concurrent actions that need GitHub.
    at_github: Arc<Semaphore>,
    /// Limits those that do not, so that neither kind waits for the other.
    at_nomad: Arc<Semaphore>,
    /// Nomad has rejected a job because of its `max_run_duration`. Jobs then omit it, and only the planner ends runners
    /// that exceed it.
    nomad_is_old: Arc<AtomicBool>,
    /// Called at the end of each action, with its duration.
    told: Option<Tell>,
}

/// Properties of a class's new runners.
struct Kind {
    /// The label rules, including how labels are split.
    labels: LabelRules,
    /// The kind of credentials.
    registration: Registration,
    /// Register at the repository's organization rather than at the repository.
    organization: bool,
    /// The runner group's name at an organization; the default group if `None`.
    runner_group: Option<String>,
    /// Overrides the template's placement.
    placement: Placement,
    /// Jobs that can reach their host serve no public repository.
    guards_public: bool,
    /// A runner that has run for longer is stopped with its job.
    max_run_duration: Option<Duration>,
}

/// The placement of a class's runners.
pub fn placement(class: &Class) -> Placement {
    let ClassNomad { datacenters, node_pool, priority } = class.nomad.clone();
    Placement { datacenters, node_pool, priority }
}

/// The properties of the top level, and those of the classes by name.
struct Kinds {
    top: Kind,
    classes: BTreeMap<String, Kind>,
}

impl Kind {
    fn new(config: &Config, placement: Placement, guards_public: bool) -> Self {
        Kind {
            guards_public,
            max_run_duration: config.scheduler.max_run_duration,
            labels: config.labels.clone(),
            registration: config.registration(),
            organization: config.organization(),
            runner_group: config.github.runner_group.clone(),
            placement,
        }
    }
}

impl Kinds {
    fn new(config: &Config) -> Self {
        let classes = config.classes.iter().map(|class| {
            (class.name.clone(), {
                let config = config.of_class(class);
                Kind::new(&config, placement(class), !config.public)
            })
        });
        // Without classes, everything works as it did before classes existed.
        let guards_public = !config.classes.is_empty() && !config.public;
        Kinds { top: Kind::new(config, Placement::default(), guards_public), classes: classes.collect() }
    }

    /// The properties of this class, or of the top level if no class has that name any more.
    fn of(&self, class: Option<&str>) -> &Kind {
        class.and_then(|class| self.classes.get(class)).unwrap_or(&self.top)
    }

    /// Whether runners register at organizations, at repositories, or both.
    fn organizations(&self) -> BTreeSet<bool> {
        self.classes.values().chain([&self.top]).map(|kind| kind.organization).collect()
    }
}

/// Receives an action's outcome and duration.
pub type Tell = fn(&Report, Duration);

/// An action that needs GitHub must begin within this time after it was planned. Later, the observation is
/// too old.
const BEGINS_WITHIN: Duration = Duration::from_secs(20);

/// The deadline for an action's requests to GitHub.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// A preview judges at most this many label sets. Each needs a request.
const JUDGED_AT_MOST: usize = 50;

/// The result of an action that may end early.
type Result<T, E = NotDone> = std::result::Result<T, E>;

impl Apply {
    /// For the runners of a deployment, as configured.
    pub fn new(
        config: &Config,
        github: GitHub,
        nomad: Nomad,
        renderer: Arc<Renderer>,
        deployment: &str,
        leadership: Leadership,
        dry_run: bool,
    ) -> Self {
        let side_by_side = || Arc::new(Semaphore::new(config.parallel.max(1)));
        Apply {
            github,
            nomad,
            renderer,
            kinds: Arc::new(Kinds::new(config)),
            deployment: deployment.into(),
            dry_run,
            leadership,
            at_github: side_by_side(),
            at_nomad: side_by_side(),
            nomad_is_old: Arc::default(),
            told: None,
        }
    }

    /// The deployment ID of new runners.
    pub fn deployment(&self) -> &str {
        &self.deployment
    }

    /// Calls `told` at the end of each action.
    #[must_use]
    pub fn telling(self, told: Tell) -> Self {
        Apply { told: Some(told), ..self }
    }

    /// Carries out a plan, several actions at once, and reports their outcomes in the plan's order. Actions that come
    /// too late are not reported.
    pub async fn apply(&self, plan: &Plan) -> Vec<Report> {
        let reports = plan.actions.iter().cloned().map(|action| self.act(action));
        join_all(reports).await.into_iter().flatten().collect()
    }

    /// Carries out one action when it is its turn; `None` if that was too late.
    pub async fn act(&self, action: Action) -> Option<Report> {
        if self.dry_run {
            return Some(Report { action, outcome: Outcome::NotDone(NotDone::DryRun) });
        }
        let needs_github = action.needs_github();
        let turns = if needs_github { &self.at_github } else { &self.at_nomad };
        let turn = turns.acquire();
        let _turn = match needs_github {
            true => tokio::time::timeout(BEGINS_WITHIN, turn).await.ok()?,
            false => turn.await,
        };
        let apply = Apply { github: self.github.until(Instant::now() + ENDS_WITHIN), ..self.clone() };
        let began = Instant::now();
        let report = Report { outcome: apply.perform(&action).await, action };
        if let Some(tell) = self.told {
            tell(&report, began.elapsed());
        }
        Some(report)
    }

    async fn perform(&self, action: &Action) -> Outcome {
        if !self.leadership.holds() {
            return Outcome::NotDone(NotDone::Held("another replica holds the leader lock".to_owned()));
        }
        let result = match action {
            Action::Start(start) => self.start(start).await,
            Action::IssueCredentials(issue) => self.issue_credentials(issue).await,
            Action::Stop(stop) => self.stop(stop).await,
            Action::VerifyRegistration(verify_registration) => {
                self.verify_registration(verify_registration).await
            }
            Action::CleanUp(clean_up) => self.clean_up(clean_up).await,
            Action::Purge(purge) => self.purge(purge).await,
            Action::RemoveOrphan(remove) => self.remove_orphan(remove).await,
            Action::Rerun(rerun) => self.rerun(rerun).await,
        };
        Outcome::from(result)
    }

    /// The job for a start, as text and as Nomad parses it, if it may be started.
    async fn parsed(&self, start: &Start) -> Result<(String, Value)> {
        let labels: Vec<String> = start.labels.shown().map(str::to_owned).collect();
        let kind = self.kinds.of(start.class.as_deref());
        let runs_on = kind.labels.check(&labels).map_err(rejected)?;
        let context = RunContext {
            class: start.class.as_deref(),
            name: &start.name,
            repository: &start.repository,
            labels: &start.labels,
            runs_on: &runs_on,
            info: &start.info,
            job: start.purpose.job_id(),
            facts: &start.facts,
            attempt: start.attempt,
            // Nomad counts from the allocation. A warm runner has that time for a job, however long it was idle, so the
            // planner alone ends it.
            nomad_limits: start.purpose.job_id().is_some() && !self.nomad_is_old.load(Ordering::Relaxed),
        };
        let (hcl, parsed) = self.rendered(context, kind).await?;
        if let Some(how) = reaches_host(&parsed)
            && self.guards(start)
        {
            return Err(NotDone::ReachesHost(format!(
                "{} is public, and {how}: anyone who opens a pull request would have the host; `public: allow` permits it",
                start.repository.full_name()
            )));
        }
        Ok((hcl, parsed))
    }

    /// Whether a job that reaches its host may not be started for this one.
    fn guards(&self, start: &Start) -> bool {
        let kind = self.kinds.of(start.class.as_deref());
        kind.guards_public && start.repository.visibility == Visibility::Public
    }

    /// What the plan would start but may not for a public repository, once for each label set, with the text of the
    /// start itself. Nothing is changed.
    pub async fn refused(&self, plan: &Plan) -> Vec<Report> {
        let starts = plan.actions.iter().filter_map(|action| match action {
            Action::Start(start) if self.guards(start) => Some(start),
            _ => None,
        });
        let (mut judged, mut refused) = (BTreeSet::new(), Vec::new());
        for start in starts {
            if judged.len() < JUDGED_AT_MOST
                && judged.insert(start.group())
                && let Err(why @ NotDone::ReachesHost(_)) = self.parsed(start).await
            {
                let action = Action::Start(start.clone());
                refused.push(Report { action, outcome: Outcome::NotDone(why) });
            }
        }
        refused
    }

    /// Renders the job, has Nomad parse it, and registers it with EnforceIndex 0.
    async fn start(&self, start: &Start) -> Result<Done> {
        let kind = self.kinds.of(start.class.as_deref());
        let (hcl, parsed) = self.parsed(start).await?;
        let meta = RunnerMeta {
            labelsstr: start.labels.joined(),
            repo_url: start.repository.html_url.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            deployment: Some(self.deployment.to_string()),
            repo_id: Some(start.repository.id),
            purpose: Some(start.purpose.clone()),
            attempt: Some(start.attempt),
            registration: Some(kind.registration),
            task: main_task(&parsed),
            asks: Some(asks(&parsed)),
            class: start.class.clone(),
            mac: None,
        };
        let meta = self.nomad.seal(&start.name, meta).await.map_err(nomad_outcome)?;
        let options = self.nomad.options();
        let job = prepare(parsed, options, meta, &start.name, kind.registration).map_err(nomad_outcome)?;
        let job = job.placed(&kind.placement);
        match self.nomad.register(&job, Some(&hcl)).await.map_err(nomad_outcome)? {
            Registered::Created { warnings } => {
                if !warnings.is_empty() {
                    tracing::debug!(runner = start.name, warnings, "Nomad returned warnings");
                }
                Ok(Done::Performed)
            }
            Registered::Already => Ok(Done::Already),
        }
    }

    /// The job's text and its parsed form. Servers before 2.0.3 reject `max_run_duration`. It is then omitted until
    /// this daemon restarts.
    async fn rendered(&self, mut context: RunContext<'_>, kind: &Kind) -> Result<(String, Value)> {
        loop {
            let hcl = self.renderer.render(&context).map_err(rejected)?;
            if let Some(job) = job_from_json(&hcl).map_err(nomad_outcome)? {
                return Ok((hcl, job));
            }
            match self.nomad.parse(&hcl, kind.registration).await {
                Ok(job) => return Ok((hcl, job)),
                Err(nomad::Error::Hcl { message, .. })
                    if context.nomad_limits
                        && message.contains("max_run_duration")
                        && self.renderer.has_max_run_duration(context.class) =>
                {
                    if !self.nomad_is_old.swap(true, Ordering::Relaxed) {
                        tracing::warn!(
                            "Nomad does not know max_run_duration (2.0.3 and later do): runners are stopped by githubrunner instead, \
                             which needs it to run"
                        );
                    }
                    context.nomad_limits = false;
                }
                Err(error) => return Err(nomad_outcome(error)),
            }
        }
    }

    /// Registers the runner at GitHub, then writes the variable, which releases the waiting task. This also
    /// repairs the result of a crash between the two steps: GitHub then answers 409.
    async fn issue_credentials(&self, issue: &IssueCredentials) -> Result<Done> {
        let scope = self.scope(&issue.repository, issue.class.as_deref());
        match issue.registration {
            Registration::AccessToken => Ok(Done::Already),
            Registration::Token => {
                let answer = self.github.registration_token(&scope).await.map_err(github_outcome)?;
                let items = credentials(issue.registration, &answer.token);
                match self.nomad.put_variable(&issue.name, &items).await.map_err(nomad_outcome)? {
                    Written::Written => Ok(Done::Performed),
                    Written::Exists => Ok(Done::Already),
                }
            }
            Registration::Jit => self.issue_jit(issue, &scope).await,
        }
    }

    async fn issue_jit(&self, issue: &IssueCredentials, scope: &Scope) -> Result<Done> {
        let labels: Vec<String> = issue.labels.shown().map(str::to_owned).collect();
        let group = self.runner_group(scope, issue.class.as_deref()).await?;
        let config = match self.github.jit_config(scope, &issue.name, &labels, group).await {
            Err(github::Error::AlreadyExists { .. }) => {
                if let Some(outcome) = self.clear_registration(issue, scope).await? {
                    return Ok(outcome);
                }
                self.github.jit_config(scope, &issue.name, &labels, group).await
            }
            result => result,
        };
        let config = match config {
            Ok(config) => config,
            Err(error @ github::Error::BadSecret(_)) => {
                // Not by the ID in an invalid response, which may be another runner's.
                match self.clear_registration(issue, scope).await {
                    Ok(_) | Err(NotDone::Held(_)) => {}
                    Err(outcome) => tracing::warn!(runner = issue.name, %outcome, "registration not removed"),
                }
                return Err(github_outcome(error));
            }
            Err(error) => return Err(github_outcome(error)),
        };
        let items = credentials(issue.registration, &config.encoded);
        let written = self.nomad.put_variable(&issue.name, &items).await;
        if let Ok(Written::Written) = written {
            return Ok(Done::Performed);
        }
        // Only the registration that this call made is removed. After an ambiguous failure the variable may
        // contain it, so it stays: the next pass sees whether the variable exists.
        let keep = matches!(&written, Err(error) if error.is_ambiguous());
        if !keep && let Err(error) = self.github.delete_runner(scope, config.runner_id).await {
            return Err(github_outcome(error));
        }
        match written {
            Ok(_) => Ok(Done::Already),
            Err(error) => Err(nomad_outcome(error)),
        }
    }

    /// A registration of that name exists: an earlier call of ours made it, and its configuration is lost.
    /// `None` if the name is free now.
    async fn clear_registration(&self, issue: &IssueCredentials, scope: &Scope) -> Result<Option<Done>> {
        if self.nomad.variables(&issue.name).await.map_err(nomad_outcome)?.contains_key(&issue.name) {
            return Ok(Some(Done::Already));
        }
        match self.registered(scope, &issue.name).await? {
            Some(runner) if runner.online => Err(online_already()),
            Some(runner) => {
                self.delete_registration(scope, runner.id).await?;
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// Stops a runner with the consent that the plan requires. If anything is unclear, the runner keeps
    /// running.
    async fn stop(&self, stop: &Stop) -> Result<Done> {
        let scope = self.scope(&stop.repository, stop.class.as_deref());
        match stop.consent {
            Consent::NeverStarted => {
                let removed = self.remove_idle_registration(&scope, &stop.name).await;
                let Some(runner) = self.nomad.read_runner(&stop.name).await.map_err(nomad_outcome)? else {
                    return Ok(Done::Already);
                };
                if runner.state == RunnerState::Dead {
                    return Ok(Done::Already);
                }
                if runner.may_have_process() {
                    return Err(NotDone::Held("its task has started in the meantime".to_owned()));
                }
                // Without credentials it cannot take a job; with them, only after its registration is
                // removed.
                match removed {
                    Ok(_) => {}
                    Err(outcome) if runner.variable.is_some() => return Err(outcome),
                    Err(outcome) => tracing::debug!(runner = stop.name, %outcome, "registration not removed"),
                }
            }
            Consent::GitHub => match self.remove_registration(&scope, &stop.name).await? {
                Removed::Yes => {}
                // Used credentials cannot register again, so this process can get no job.
                Removed::WasAbsent
                    if stop.reason == StopReason::Spent && stop.registration == Registration::Jit => {}
                Removed::WasAbsent => return Err(NotDone::NotListed),
            },
            Consent::Unregistered => {
                match self.registered(&scope, &stop.name).await? {
                    Some(found) if found.is_connected() => return Err(NotDone::StillConnected),
                    // It never connected, or lost the connection: GitHub decides whether it may be stopped.
                    Some(found) => {
                        self.delete_registration(&scope, found.id).await?;
                    }
                    None => {}
                }
            }
            Consent::OutOfTime { limit } => {
                if !self.may_end(stop, limit).await? {
                    return Ok(Done::Already);
                }
            }
        }
        self.nomad.stop(&stop.name).await.map_err(nomad_outcome)?;
        Ok(Done::Performed)
    }

    /// A Stop without consent: only for a runner that is still running, and only while its class has this limit. Its
    /// registration is deleted first if GitHub permits it, so that an idle runner gets no job while it is stopping.
    async fn may_end(&self, stop: &Stop, limit: Duration) -> Result<bool> {
        if self.kinds.of(stop.class.as_deref()).max_run_duration != Some(limit) {
            return Err(NotDone::Held("max_run_duration has changed".to_owned()));
        }
        let Some(runner) = self.nomad.read_runner(&stop.name).await.map_err(nomad_outcome)? else {
            return Ok(false);
        };
        match runner.state {
            RunnerState::Running => {}
            RunnerState::Dead | RunnerState::Stopping => return Ok(false),
            state => return Err(NotDone::Held(format!("it is {state} by now"))),
        }
        let scope = self.scope(&stop.repository, stop.class.as_deref());
        if let Err(outcome) = self.remove_registration(&scope, &stop.name).await {
            tracing::debug!(runner = stop.name, %outcome, "registration not removed");
        }
        Ok(true)
    }

    async fn verify_registration(&self, verify_registration: &VerifyRegistration) -> Result<Done> {
        let scope = self.scope(&verify_registration.repository, verify_registration.class.as_deref());
        match self.registered(&scope, &verify_registration.name).await? {
            Some(found) if found.is_connected() => Ok(Done::Connected),
            // No job can reach a runner that hangs before it connects, or whose node cannot reach GitHub.
            Some(_) | None => Ok(Done::NotConnected),
        }
    }

    async fn clean_up(&self, clean_up: &CleanUp) -> Result<Done> {
        if let Some(repository) = &clean_up.repository {
            self.remove_registration_if_any(repository, clean_up.class.as_deref(), &clean_up.name).await?;
        }
        self.nomad.delete_variable(&clean_up.name).await.map_err(nomad_outcome)?;
        Ok(Done::Performed)
    }

    /// Purges a dead runner's job, after reading it once more. A purge ends whatever is running, and Nomad may have
    /// replaced the lost allocation in the meantime.
    async fn purge(&self, purge: &Purge) -> Result<Done> {
        let runner = self.nomad.read_runner(&purge.name).await.map_err(nomad_outcome)?;
        if runner.is_some_and(|runner| runner.is_live()) {
            return Err(NotDone::Held("it is no longer dead".to_owned()));
        }
        if let Some(repository) = &purge.repository {
            self.remove_registration_if_any(repository, purge.class.as_deref(), &purge.name).await?;
        }
        self.nomad.purge(&purge.name).await.map_err(nomad_outcome)?;
        Ok(Done::Performed)
    }

    /// Removes an orphan, after checking once more that it is one.
    async fn remove_orphan(&self, remove: &RemoveOrphan) -> Result<Done> {
        let name = remove.orphan.name();
        let runner = self.nomad.read_runner(name).await.map_err(nomad_outcome)?;
        match (&remove.orphan, &remove.repository) {
            (Orphan::Variable { .. }, _) if runner.is_none() => {
                self.nomad.delete_variable(name).await.map_err(nomad_outcome)?;
                Ok(Done::Performed)
            }
            (Orphan::Registration { .. }, Some(repository))
                if runner.is_none_or(|runner| !runner.is_live()) =>
            {
                // Its class is no longer known.
                for organization in self.kinds.organizations() {
                    let scope = Scope::of(repository, organization);
                    match self.registered(&scope, name).await? {
                        Some(found) if found.is_connected() => return Err(NotDone::StillConnected),
                        Some(found) => {
                            return self.delete_registration(&scope, found.id).await.map(|_| Done::Performed);
                        }
                        None => {}
                    }
                }
                Ok(Done::Already)
            }
            _ => Ok(Done::Already),
        }
    }

    /// Removes what a dead runner left at GitHub. If its repository is gone, so is everything in it.
    async fn remove_registration_if_any(
        &self,
        repository: &Repository,
        class: Option<&str>,
        name: &str,
    ) -> Result<()> {
        let scope = self.scope(repository, class);
        // A Meta that names no repository provides no list to read.
        if !scope.is_named() {
            return Ok(());
        }
        let found = match self.github.find_runner(&scope, name).await {
            Err(github::Error::NotFound { .. }) => return Ok(()),
            result => seen(result.map_err(github_outcome)?)?,
        };
        match found {
            // GitHub takes a while to notice that a runner has ended. But if this runner never started, then
            // the online one is another.
            Some(runner) if runner.is_connected() && !self.has_started(name).await? => Err(online_already()),
            Some(runner) => self.delete_registration(&scope, runner.id).await.map(|_| ()),
            None => Ok(()),
        }
    }

    /// Whether a task of this runner has ever started.
    async fn has_started(&self, name: &str) -> Result<bool> {
        let runner = self.nomad.read_runner(name).await.map_err(nomad_outcome)?;
        Ok(runner.is_some_and(|runner| runner.started))
    }

    /// Removes a registration by the runner's name, if it exists and is not busy.
    async fn remove_registration(&self, scope: &Scope, name: &str) -> Result<Removed> {
        match self.registered(scope, name).await? {
            Some(runner) => self.delete_registration(scope, runner.id).await,
            None => Ok(Removed::WasAbsent),
        }
    }

    /// The registration of that name; `None` only if GitHub returned the complete list without it.
    async fn registered(&self, scope: &Scope, name: &str) -> Result<Option<RegisteredRunner>> {
        if !scope.is_named() {
            return Err(NotDone::Held("its Meta does not name a repository of GitHub".to_owned()));
        }
        seen(self.github.find_runner(scope, name).await.map_err(github_outcome)?)
    }

    /// Removes the registration of a runner that never started, by its name. A runner that is online under this name
    /// is another one, or has started in the meantime.
    async fn remove_idle_registration(&self, scope: &Scope, name: &str) -> Result<Removed> {
        match self.registered(scope, name).await? {
            Some(runner) if runner.is_connected() => Err(online_already()),
            Some(runner) => self.delete_registration(scope, runner.id).await,
            None => Ok(Removed::WasAbsent),
        }
    }

    /// Where a class's runners for a repository register.
    fn scope(&self, repository: &Repository, class: Option<&str>) -> Scope {
        Scope::of(repository, self.kinds.of(class).organization)
    }

    /// The ID of the runner group that runners join. A repository has only the first one (contract github.md
    /// §2).
    async fn runner_group(&self, scope: &Scope, class: Option<&str>) -> Result<u64> {
        let name = self.kinds.of(class).runner_group.as_deref();
        let (Scope::Organization(organization), Some(name)) = (scope, name) else {
            return Ok(1);
        };
        match self.github.runner_group(organization, name).await.map_err(github_outcome)? {
            Sought::Found(id) => Ok(id),
            Sought::Unseen(gap) => Err(NotDone::Held(format!(
                "cannot tell whether {organization} has the runner group {name:?}: GitHub's list is incomplete: {gap}"
            ))),
            Sought::Absent => {
                Err(NotDone::Rejected(format!("{organization} has no runner group named {name:?}")))
            }
        }
    }

    /// Deletes a registration. After a lost response, it asks once more; if the registration is gone, we
    /// deleted it.
    async fn delete_registration(&self, scope: &Scope, id: RunnerId) -> Result<Removed> {
        let (deleted, repeated) = match self.github.delete_runner(scope, id).await {
            Err(error) if error.is_ambiguous() => (self.github.delete_runner(scope, id).await, true),
            result => (result, false),
        };
        match deleted.map_err(github_outcome)? {
            Deleted::Deleted => Ok(Removed::Yes),
            Deleted::NotThere if repeated => Ok(Removed::Yes),
            Deleted::NotThere => Ok(Removed::WasAbsent),
            Deleted::Busy => Err(NotDone::Held("GitHub says it is running a job".to_owned())),
        }
    }
}

fn online_already() -> NotDone {
    NotDone::Held("a runner of this name is already online at GitHub".to_owned())
}

/// Whether there was a registration to remove.
enum Removed {
    Yes,
    WasAbsent,
}

fn credentials(registration: Registration, secret: &Secret) -> CredentialItems {
    credential_items(registration, secret).into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Whether something was found. An error if its absence is not certain.
fn seen<T>(sought: Sought<T>) -> Result<Option<T>> {
    match sought {
        Sought::Found(found) => Ok(Some(found)),
        Sought::Absent => Ok(None),
        Sought::Unseen(gap) => Err(NotDone::Held(format!(
            "cannot tell whether it is registered: GitHub's list of runners is incomplete: {gap}"
        ))),
    }
}

fn rejected(error: impl std::fmt::Display) -> NotDone {
    NotDone::Rejected(error.to_string())
}

fn github_outcome(error: github::Error) -> NotDone {
    use github::Error::{Forbidden, RateLimited};
    match error {
        Forbidden(_) | RateLimited { .. } => NotDone::Held(error.to_string()),
        _ => NotDone::Failed(error.to_string()),
    }
}

fn nomad_outcome(error: nomad::Error) -> NotDone {
    use nomad::Error::{Hcl, Job, Refused, Taken};
    match error {
        Hcl { .. } | Job(_) | Refused(_) | Taken { .. } => NotDone::Rejected(error.to_string()),
        _ => NotDone::Failed(error.to_string()),
    }
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
