//! `check`: everything that the first run needs, tried before it, one line each.

use std::collections::BTreeMap;
use std::io::{self, Write};

use futures_util::{StreamExt, stream};

use super::{
    Setup,
    progress::{Progress, beside},
    render,
};
use crate::{
    apply::placement,
    config::Config,
    github::{Error as GitHubError, GitHub, Look, Refresh, Scope, Sought},
    hints::WATCHED_FROM,
    model::{Registration, Repository, RunnerMeta},
    nomad::{Placement, PreparedJob, job_from_json, prepare, reaches_host},
    schedule::{Budget, Schedule},
    text::{LINE, shown},
};

/// Fewer requests left than this and the first passes may meet the limit.
const FEW_REQUESTS: u64 = 200;

/// At most this many repositories are tried for the right to make runners; the token's rights are the same for an
/// owner's others.
const REPOSITORIES_TRIED: usize = 20;

/// At most this many versions of runners are looked up.
const VERSIONS_TRIED: usize = 10;

/// The runner group that every repository and every organization has (contract github.md §2).
const DEFAULT_GROUP: u64 = 1;

/// The oldest Nomad that knows all of what the bundled templates and `RUN.CREDENTIALS` say (contract nomad.md §8, §12).
const OLDEST_NOMAD: &str = "1.10.2";

/// How an older Nomad names what it does not know of it.
const NEWER_HCL: [&str; 2] = ["named \"once\"", "\"disconnect\""];

/// What labels may ask for, besides the first one: the template must render all of it.
const EXAMPLES: [&str; 4] = ["", " cpu=500 mem=512", " cpu=500 mem=512 maxmem=1024", " tag=latest"];

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// All is well.
    Ok,
    /// It will run, not as it should.
    Warning,
    /// It will not run.
    Failure,
}

/// Prints a line for each check as it comes out; keeps the worst.
struct Report<'a> {
    out: &'a mut dyn Write,
    worst: Verdict,
}

impl Report<'_> {
    fn line(&mut self, verdict: Verdict, what: &str, detail: &str) -> io::Result<()> {
        self.worst = self.worst.max(verdict);
        let word = match verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Failure => "failure",
        };
        let colon = if detail.is_empty() { "" } else { ": " };
        beside(|| writeln!(self.out, "{word:8} {}{colon}{}", shown(what, LINE), shown(detail, LINE)))
    }

    fn result<T>(&mut self, what: &str, result: Result<T, impl std::fmt::Display>) -> io::Result<Option<T>> {
        match result {
            Ok(value) => self.line(Verdict::Ok, what, "").map(|()| Some(value)),
            Err(error) => self.line(Verdict::Failure, what, &error.to_string()).map(|()| None),
        }
    }
}

/// Checks configuration, template, Nomad and GitHub, in this order; leaves nothing behind.
///
/// # Errors
/// `out` cannot be written.
pub async fn run(setup: &Setup, out: &mut dyn Write) -> anyhow::Result<Verdict> {
    let mut report = Report { out, worst: Verdict::Ok };
    report.line(Verdict::Ok, "configuration", "")?;
    for warning in setup.config.warnings().iter().chain(&setup.warnings) {
        report.line(Verdict::Warning, "configuration", warning)?;
    }
    let rendered = template(&setup.config, &mut report)?;
    nomad(setup, &rendered, &mut report).await?;
    github(setup, &mut report).await?;
    Ok(report.worst)
}

/// What a template made of an example.
struct Rendered {
    label: String,
    text: String,
    registration: Registration,
    placement: Placement,
    /// Public repositories get no runner whose job reaches its host.
    guards_public: bool,
    /// ` of class gpu`; nothing of the top level.
    of_class: String,
}

/// Renders the template for each example, and that of each class that makes runners; gives what rendered.
fn template(config: &Config, report: &mut Report) -> io::Result<Vec<Rendered>> {
    let mut rendered = Vec::new();
    let has_classes = !config.classes.is_empty();
    let classes = config.classes.iter().filter(|class| class.deny.is_none());
    let top = Some((config.clone(), None)).filter(|_| !config.classes_only);
    for (config, class) in top.into_iter().chain(classes.map(|class| (config.of_class(class), Some(class)))) {
        let of_class = class.map(|class| format!(" of class {}", class.name)).unwrap_or_default();
        for example in EXAMPLES {
            let label = format!("nomadtools{example}");
            let what = format!("{}{of_class} renders for the label \"{label}\"", config.template.called());
            let name = class.map(|class| class.name.as_str());
            let text = render::text(&config, std::slice::from_ref(&label), None, name);
            if let Some(text) = report.result(&what, text.map_err(|error| format!("{error:#}")))? {
                let registration = config.registration();
                let placement = class.map(placement).unwrap_or_default();
                let guards_public = has_classes && !config.public;
                let of_class = of_class.clone();
                rendered.push(Rendered { label, text, registration, placement, guards_public, of_class });
            }
        }
    }
    Ok(rendered)
}

async fn nomad(setup: &Setup, rendered: &[Rendered], report: &mut Report<'_>) -> io::Result<()> {
    let nomad = &setup.nomad;
    if report.result("Nomad answers and has a leader", nomad.check_leader().await)?.is_none() {
        return Ok(());
    }
    let namespace = &nomad.options().namespace;
    let exists = nomad.check_namespace().await;
    if report.result(&format!("the Nomad namespace {namespace} exists"), exists)?.is_none() {
        return Ok(());
    }
    let probe = format!("{}-check-{}", nomad.options().prefix, std::process::id());
    let mut job: Option<PreparedJob> = None;
    let mut told: Option<&str> = None;
    for Rendered { label, text, registration, placement, guards_public, of_class } in rendered {
        let registration = *registration;
        let parsed = match job_from_json(text) {
            Ok(Some(job)) => Ok(job),
            Ok(None) => nomad.parse(text, registration).await,
            Err(error) => Err(error),
        };
        let meta = RunnerMeta { labelsstr: label.clone(), ..RunnerMeta::default() };
        let fit = parsed.and_then(|parsed| prepare(parsed, nomad.options(), meta, &probe, registration));
        let fit = fit.map(|fit| fit.placed(placement));
        let what = format!("Nomad parses what the template{of_class} makes of \"{label}\"");
        let fit = fit.map_err(|error| {
            let error = error.to_string();
            match NEWER_HCL.iter().any(|name| error.contains(name)) {
                true => format!("{error}; the server is older than Nomad {OLDEST_NOMAD}: update it"),
                false => error,
            }
        });
        if let Some(fit) = report.result(&what, fit)? {
            if let Some(how) = reaches_host(fit.job())
                && *guards_public
                && told != Some(of_class.as_str())
            {
                told = Some(of_class);
                let what = format!("public repositories get runners{of_class}");
                report.line(Verdict::Warning, &what, &format!("no: {how}; public: allow permits it"))?;
            }
            job.get_or_insert(fit);
        }
    }
    let Some(job) = job else { return Ok(()) };
    for (right, result) in nomad.try_rights(&job, &probe).await {
        report.result(&format!("the Nomad token has {right}"), result)?;
    }
    if let Ok(answer) = nomad.plan_job(&job).await {
        let what = "Nomad has a place for such a job";
        match answer.blocked() {
            None => report.line(Verdict::Ok, what, "")?,
            Some(blocked) => report.line(Verdict::Warning, what, &format!("not now: {}", blocked.reason))?,
        }
    }
    Ok(())
}

/// What to expect of the schedule: how often each repository is looked at, and how soon a job is seen.
fn forecast(setup: &Setup, repositories: &[Repository], report: &mut Report<'_>) -> io::Result<()> {
    let (config, github) = (&setup.config, &setup.github);
    let awake = repositories.iter().filter(|repository| !repository.archived && !repository.disabled);
    let mut schedule = Schedule::default();
    schedule.know(awake.map(|repository| (repository.id, github.payer(&repository.owner), None)));
    let budget = |payer: &str| Budget {
        headroom: github.headroom(payer),
        leads: true,
        longest_hot: config.loop_interval,
    };
    let watched_from = config.github.watch_pushes.then_some(WATCHED_FROM);
    for forecast in schedule.forecasts(budget, watched_from, config.webhook.listen.is_some()) {
        report.line(Verdict::Ok, "schedule", &forecast.to_string())?;
    }
    Ok(())
}

/// The versions of the runners that are registered now, and until when they get jobs.
async fn versions(github: &GitHub, scopes: &[Scope], report: &mut Report<'_>) -> io::Result<()> {
    let mut seen: BTreeMap<String, &Scope> = BTreeMap::new();
    for scope in scopes.iter().take(REPOSITORIES_TRIED) {
        let Ok(runners) = github.list_runners(scope).await else { continue };
        seen.extend(runners.into_known().into_iter().filter_map(|runner| Some((runner.version?, scope))));
    }
    for (version, scope) in seen.into_iter().take(VERSIONS_TRIED) {
        let Ok(Some(ends)) = github.version_ends(scope, &version).await else { continue };
        let what = format!("the runners' version {version} gets jobs");
        match ends.warning(&version) {
            Some(warning) => report.line(Verdict::Warning, &what, &warning)?,
            None => report.line(Verdict::Ok, &what, "")?,
        }
    }
    Ok(())
}

async fn github(setup: &Setup, report: &mut Report<'_>) -> io::Result<()> {
    let github = &setup.github;
    let found = github.repositories(&setup.config.repos, Refresh::Now).await;
    for (entry, error) in &found.failures {
        report.line(
            Verdict::Failure,
            &format!("GitHub shows the repositories of {entry}"),
            &error.to_string(),
        )?;
    }
    if found.repositories.is_empty() {
        if found.failures.is_empty() {
            let advice = "the entries name no repository that the token can see";
            report.line(Verdict::Warning, "GitHub shows repositories", advice)?;
        }
        return Ok(());
    }
    let seen = format!("GitHub answers and shows {} repositories", found.repositories.len());
    report.line(Verdict::Ok, &seen, "")?;
    let organization = setup.config.organization();
    let mut scopes: Vec<Scope> = Vec::new();
    let progress = Progress::of("looking at repositories", found.repositories.len());
    // Many at once, told in their order.
    let mut listings = stream::iter(&found.repositories)
        .map(|repository| async move {
            let is_asleep = repository.archived || repository.disabled;
            let listing =
                if is_asleep { None } else { Some(github.list_jobs(repository, Look::Newest).await) };
            (repository, listing)
        })
        .buffered(setup.config.parallel.max(1));
    while let Some((repository, listing)) = listings.next().await {
        progress.step();
        let name = repository.full_name();
        let Some(listing) = listing else {
            report.line(Verdict::Warning, &name, "archived or disabled: it gets no runners")?;
            continue;
        };
        let scope = Scope::of(repository, organization);
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
        let what = format!("{name}: its jobs can be listed");
        match listing {
            Ok(listing) => {
                if let Some(missing) = listing.missing {
                    report.line(Verdict::Warning, &what, &format!("only in part: {missing}"))?;
                }
            }
            Err(error) => {
                let advice = "the token needs actions: read (classic: repo)";
                report.line(Verdict::Failure, &what, &format!("{error}; {advice}"))?;
            }
        }
    }
    drop(progress);
    forecast(setup, &found.repositories, report)?;
    versions(github, &scopes, report).await?;
    for scope in scopes.iter().take(REPOSITORIES_TRIED) {
        let mut group = Some(DEFAULT_GROUP);
        if let (Scope::Organization(owner), Some(name)) = (scope, &setup.config.github.runner_group) {
            let found = match github.runner_group(owner, name).await {
                Ok(Sought::Found(id)) => Ok(id),
                Ok(Sought::Absent) => Err(format!(
                    "it does not exist; create it in the settings of {owner}, or correct github.runner_group"
                )),
                Ok(Sought::Unseen(gap)) => Err(format!("unknown: GitHub's list is incomplete: {gap}")),
                Err(error) => Err(refused(&error, organization)),
            };
            group = report.result(&format!("{scope}: the runner group \"{name}\" is there"), found)?;
        }
        let jit = setup.config.registration() == Registration::Jit && !setup.dry_run;
        let tried = match group {
            Some(group) if jit => just_in_time(setup, scope, group).await,
            _ => match github.registration_token(scope).await {
                Ok(_) => Ok(()),
                Err(error) => Err(registration_refused(setup, scope, &error).await),
            },
        };
        report.result(&format!("{scope}: runners can be registered"), tried)?;
    }
    for ((who, resource), rate) in github.rates() {
        let verdict = if rate.remaining < FEW_REQUESTS { Verdict::Warning } else { Verdict::Ok };
        let what = format!("GitHub's rate limit {resource} for {who}");
        report.line(verdict, &what, &format!("{} of {} requests left", rate.remaining, rate.limit))?;
    }
    Ok(())
}

/// Registers a runner just in time, as a pass would, and removes it.
async fn just_in_time(setup: &Setup, scope: &Scope, group: u64) -> Result<(), String> {
    let github = &setup.github;
    let name = format!("{}-check-{}", setup.config.nomad.jobprefix, std::process::id());
    let made = github.jit_config(scope, &name, &["githubrunner-check".to_owned()], group).await;
    let (id, problem) = match made {
        Ok(config) => (Some(config.runner_id), None),
        Err(error) => {
            let id = match github.find_runner(scope, &name).await {
                _ if !error.is_ambiguous() => None,
                Ok(Sought::Found(runner)) => Some(runner.id),
                _ => None,
            };
            let has_no_jit = matches!(error, GitHubError::NotFound { .. })
                && github.registration_token(scope).await.is_ok();
            let problem = match has_no_jit {
                true => format!(
                    "{error}; registration tokens work there: this server is too old for just-in-time configurations. Set github.registration: token, with a template that registers by it, \
                     like builtin:myoung34"
                ),
                false => registration_refused(setup, scope, &error).await,
            };
            (id, Some(problem))
        }
    };
    if let Some(id) = id
        && let Err(error) = github.delete_runner(scope, id).await
    {
        return Err(format!(
            "cannot remove the test registration {name}: {error}; remove it in the settings of {scope}"
        ));
    }
    problem.map_or(Ok(()), Err)
}

/// Why runners cannot be registered, and what to do.
async fn registration_refused(setup: &Setup, scope: &Scope, error: &GitHubError) -> String {
    if let (Scope::Organization(owner), GitHubError::NotFound { .. } | GitHubError::Forbidden(_)) =
        (scope, error)
        && let Ok(true) = setup.github.is_user(owner).await
    {
        return format!("{owner} is a user: use scope: repository");
    }
    refused(error, setup.config.organization())
}

fn refused(error: &GitHubError, organization: bool) -> String {
    let right = match organization {
        true => "organization_self_hosted_runners: write (classic: admin:org)",
        false => "administration: write on the repository (classic: repo)",
    };
    match error {
        GitHubError::Forbidden(_) | GitHubError::NotFound { .. } => {
            format!("{error}; the token needs {right}")
        }
        _ => error.to_string(),
    }
}
