//! `check`: tests everything that the first run needs, one line each.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use futures_util::{StreamExt, stream};

use super::{
    Setup,
    progress::{Progress, beside},
    render,
};
use crate::{
    apply::placement,
    config::Config,
    github::{Error as GitHubError, GitHub, Look, Refresh, Scope, Sought, Tried},
    hints::WATCHED_FROM,
    model::{Namespace, Registration, RepoEntry, Repository, RepositoryRef, RunnerMeta},
    nomad::{Nomad, Placement, PreparedJob, job_from_json, prepare, reaches_host},
    schedule::{Budget, Schedule},
    text::{LINE, shown},
};

/// With fewer requests left than this, the first passes may reach the limit.
const FEW_REQUESTS: u64 = 200;

/// At most this many repositories are tested for the right to register runners. The token has the same rights for
/// an owner's other repositories.
const REPOSITORIES_TRIED: usize = 20;

/// At most this many runner versions are looked up.
const VERSIONS_TRIED: usize = 10;

/// The runner group that every repository and every organization has (contract github.md §2).
const DEFAULT_GROUP: u64 = 1;

/// The oldest Nomad version that knows everything that the bundled templates and `RUN.CREDENTIALS` use (contract
/// nomad.md §8, §12).
const OLDEST_NOMAD: &str = "1.10.2";

/// How an older Nomad's errors name what it does not know.
const NEWER_HCL: [&str; 2] = ["named \"once\"", "\"disconnect\""];

/// Labels added to the matching one. The template must render all of these.
const EXAMPLES: [&str; 4] = ["", " cpu=500 mem=512", " cpu=500 mem=512 maxmem=1024", " tag=latest"];

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Ok,
    /// It will run, but with a problem.
    Warning,
    /// It will not run.
    Failure,
}

/// Prints a line for each check as it ends, and remembers the worst result.
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

/// Checks configuration, template, Nomad and GitHub, in this order. Leaves nothing behind.
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

/// What a template rendered for an example.
struct Rendered {
    label: String,
    text: String,
    registration: Registration,
    placement: Placement,
    /// Where its jobs are; `None`: the daemon's own.
    namespace: Option<Namespace>,
    /// Jobs that can reach their host serve no public repository.
    guards_public: bool,
    /// ` of class gpu`; empty for the top level.
    of_class: String,
}

/// Renders the top level's template and that of each class with runners for each example. Returns what
/// rendered.
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
                let namespace = class.and_then(|class| class.nomad.namespace.clone());
                let guards_public = has_classes && !config.public;
                let of_class = of_class.clone();
                rendered.push(Rendered {
                    label,
                    text,
                    registration,
                    placement,
                    namespace,
                    guards_public,
                    of_class,
                });
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
    for nomad in nomad.everywhere() {
        namespace(&nomad, rendered, report).await?;
    }
    let what = "the Nomad token can read nodes";
    match nomad.read_draining().await {
        Ok(_) => report.line(Verdict::Ok, what, ""),
        Err(error) => {
            let detail =
                format!("{error}; without it, idle runners stay on a draining node until its deadline");
            report.line(Verdict::Warning, what, &detail)
        }
    }
}

/// Checks a namespace, and what is rendered for it.
async fn namespace(nomad: &Nomad, rendered: &[Rendered], report: &mut Report<'_>) -> io::Result<()> {
    let shown = nomad.namespace().map_or_else(|| nomad.options().namespace.clone(), ToString::to_string);
    let exists = nomad.check_namespace().await;
    if report.result(&format!("the Nomad namespace {shown} exists"), exists)?.is_none() {
        return Ok(());
    }
    let elsewhere =
        nomad.namespace().map(|namespace| format!(" in namespace {namespace}")).unwrap_or_default();
    let probe = format!("{}-check-{}", nomad.options().prefix, std::process::id());
    let mut job: Option<PreparedJob> = None;
    let mut told: Option<&str> = None;
    let here = rendered.iter().filter(|one| one.namespace.as_ref() == nomad.namespace());
    for Rendered { label, text, registration, placement, guards_public, of_class, .. } in here {
        let registration = *registration;
        let parsed = match job_from_json(text) {
            Ok(Some(job)) => Ok(job),
            Ok(None) => nomad.parse(text, registration).await,
            Err(error) => Err(error),
        };
        let meta = RunnerMeta { labelsstr: label.clone(), ..RunnerMeta::default() };
        let fit = parsed.and_then(|parsed| prepare(parsed, nomad.options(), meta, &probe, registration));
        let fit = fit.map(|fit| fit.placed(placement));
        let what = format!("Nomad parses what the template{of_class} renders for \"{label}\"");
        let fit = fit.map_err(|error| {
            let error = error.to_string();
            match NEWER_HCL.iter().any(|name| error.contains(name)) {
                true => format!("{error}; the server is older than Nomad {OLDEST_NOMAD}: upgrade it"),
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
                report.line(Verdict::Warning, &what, &format!("no: {how}; `public: allow` permits it"))?;
            }
            job.get_or_insert(fit);
        }
    }
    let tried = match &job {
        Some(job) => nomad.try_rights(job, &probe).await,
        // All classes have their own namespaces.
        None if nomad.namespace().is_none() && !rendered.is_empty() => nomad.try_own_variables().await,
        None => Vec::new(),
    };
    for (right, result) in tried {
        report.result(&format!("the Nomad token has {right}{elsewhere}"), result)?;
    }
    let Some(job) = job else { return Ok(()) };
    if let Ok(answer) = nomad.plan_job(&job).await {
        let what = format!("Nomad can place such a job now{elsewhere}");
        match answer.blocked() {
            None => report.line(Verdict::Ok, &what, "")?,
            Some(blocked) => report.line(Verdict::Warning, &what, &blocked.reason)?,
        }
    }
    Ok(())
}

/// A forecast of the schedule: how often each repository is polled, and how soon a job is seen.
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

/// The versions of the currently registered runners, and when they stop getting jobs.
async fn versions(github: &GitHub, scopes: &[Scope], report: &mut Report<'_>) -> io::Result<()> {
    let mut seen: BTreeMap<String, &Scope> = BTreeMap::new();
    for scope in scopes.iter().take(REPOSITORIES_TRIED) {
        let Ok(runners) = github.list_runners(scope).await else { continue };
        seen.extend(runners.into_known().into_iter().filter_map(|runner| Some((runner.version?, scope))));
    }
    for (version, scope) in seen.into_iter().take(VERSIONS_TRIED) {
        let Ok(Some(ends)) = github.version_ends(scope, &version).await else { continue };
        let what = format!("runner version {version} gets jobs");
        match ends.warning(&version) {
            Some(warning) => report.line(Verdict::Warning, &what, &warning)?,
            None => report.line(Verdict::Ok, &what, "")?,
        }
    }
    Ok(())
}

/// If some owners have their own credentials: whether GitHub accepts each of them, and whether each is needed.
async fn credentials(setup: &Setup, report: &mut Report<'_>) -> io::Result<()> {
    let (github, assigned) = (&setup.github, &setup.config.github.credentials);
    if assigned.is_empty() {
        return Ok(());
    }
    let mut people: BTreeMap<String, String> = BTreeMap::new();
    for Tried { name, person } in github.try_credentials().await {
        let name = name.unwrap_or_else(|| "for all other owners".to_owned());
        let Some(person) = report.result(&format!("GitHub accepts the credentials {name}"), person)? else {
            continue;
        };
        let Some(person) = person else { continue };
        if let Some(other) = people.insert(person.to_ascii_lowercase(), name.clone()) {
            let advice = format!(
                "they belong to {person}, like the credentials {other}: GitHub counts the requests of both together, but each is used here \
                 as if it had the whole limit; use one token for the owners of both"
            );
            report.line(Verdict::Warning, &format!("the credentials {name}"), &advice)?;
        }
    }
    let is_everything = setup.config.repos.contains(&RepoEntry::All);
    let owners = || setup.config.repos.iter().filter_map(RepoEntry::owner);
    for credential in assigned.iter().filter(|_| !is_everything) {
        if !owners().any(|owner| credential.owners.iter().any(|pattern| pattern.covers(owner))) {
            let advice = "no entry of repos belongs to one of their owners";
            report.line(Verdict::Warning, &format!("the credentials {}", credential.name), advice)?;
        }
    }
    Ok(())
}

async fn github(setup: &Setup, report: &mut Report<'_>) -> io::Result<()> {
    let github = &setup.github;
    credentials(setup, report).await?;
    let found = github.repositories(&setup.config.repos, Refresh::Now).await;
    for (entry, error) in &found.failures {
        report.line(
            Verdict::Failure,
            &format!("GitHub lists the repositories of {entry}"),
            &error.to_string(),
        )?;
    }
    if found.repositories.is_empty() {
        if found.failures.is_empty() {
            let advice = "the entries of `repos` name no repository that the token can access";
            report.line(Verdict::Warning, "GitHub lists repositories", advice)?;
        }
        return Ok(());
    }
    let count = found.repositories.len();
    let noun = if count == 1 { "repository" } else { "repositories" };
    let seen = format!("GitHub responds and lists {count} {noun}");
    report.line(Verdict::Ok, &seen, "")?;
    listings(setup, &found.repositories, report).await?;
    forecast(setup, &found.repositories, report)?;
    let ways = ways(&setup.config, &found.repositories);
    let mut scopes: Vec<Scope> = Vec::new();
    for way in &ways {
        if !scopes.contains(&way.scope) {
            scopes.push(way.scope.clone());
        }
    }
    versions(github, &scopes, report).await?;
    for way in &ways {
        registers(setup, way, report).await?;
    }
    if setup.config.rerun_lost.is_some() && !setup.mode.is_dry_run() {
        reruns(github, &found.repositories, report).await?;
    }
    for ((who, resource), rate) in github.rates() {
        let verdict = if rate.remaining < FEW_REQUESTS { Verdict::Warning } else { Verdict::Ok };
        let what = format!("GitHub's rate limit {resource} for {who}");
        report.line(verdict, &what, &format!("{} of {} requests left", rate.remaining, rate.limit))?;
    }
    Ok(())
}

/// Lists the jobs of each repository.
async fn listings(setup: &Setup, repositories: &[Repository], report: &mut Report<'_>) -> io::Result<()> {
    let github = &setup.github;
    let progress = Progress::of("checking repositories", repositories.len());
    // Many at once, reported in order.
    let mut listings = stream::iter(repositories)
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
            report.line(Verdict::Warning, &name, "archived or disabled, so it gets no runners")?;
            continue;
        };
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
    Ok(())
}

/// Tries to run a job again in some repositories.
async fn reruns(github: &GitHub, repositories: &[Repository], report: &mut Report<'_>) -> io::Result<()> {
    let awake = repositories.iter().filter(|repository| !repository.archived && !repository.disabled);
    for repository in awake.take(REPOSITORIES_TRIED) {
        let tried = github.may_rerun(repository).await;
        let tried =
            tried.map_err(|error| format!("{error}; rerun_lost needs actions: write (classic: repo)"));
        report.result(&format!("{}: jobs can be run again", repository.full_name()), tried)?;
    }
    Ok(())
}

/// Where and how runners register.
struct Way {
    scope: Scope,
    group: Option<String>,
    registration: Registration,
    /// The classes whose runners register in this way; `None` is the top level.
    classes: Vec<Option<String>>,
}

impl Way {
    /// The scope, and the classes if the top level is not among them.
    fn what(&self) -> String {
        let names: Vec<&str> = self.classes.iter().flatten().map(String::as_str).collect();
        match self.classes.contains(&None) {
            true => self.scope.to_string(),
            false => format!("{} for class {}", self.scope, names.join(", ")),
        }
    }
}

/// The ways in which runners of these repositories register, each once.
fn ways(config: &Config, repositories: &[Repository]) -> Vec<Way> {
    let top = (!config.classes_only).then(|| (None, config.clone()));
    let classes = config.classes.iter().filter(|class| class.deny.is_none());
    let kinds = top.into_iter().chain(classes.map(|class| (Some(class), config.of_class(class))));
    let mut ways: Vec<Way> = Vec::new();
    for (class, config) in kinds {
        let awake = repositories.iter().filter(|repository| !repository.archived && !repository.disabled);
        let served = awake.filter(|repository| class.is_none_or(|class| class.matches.may_cover(repository)));
        let mut scopes: Vec<Scope> = Vec::new();
        for repository in served {
            let scope = Scope::of(&RepositoryRef::from(repository), config.github.scope);
            if scopes.contains(&scope) || scopes.len() == REPOSITORIES_TRIED {
                continue;
            }
            scopes.push(scope.clone());
            let (group, registration) = (&config.github.runner_group, config.registration());
            let name = class.map(|class| class.name.clone());
            let known = ways
                .iter_mut()
                .find(|way| way.scope == scope && way.group == *group && way.registration == registration);
            match known {
                Some(way) => way.classes.push(name),
                None => {
                    ways.push(Way { scope, group: group.clone(), registration, classes: vec![name] });
                }
            }
        }
    }
    ways
}

/// Tests whether runners can register in this way, in their runner group.
async fn registers(setup: &Setup, way: &Way, report: &mut Report<'_>) -> io::Result<()> {
    let (github, scope, what) = (&setup.github, &way.scope, way.what());
    let mut group = Some(DEFAULT_GROUP);
    if let (Scope::Organization(owner), Some(name)) = (scope, &way.group) {
        let found = match github.runner_group(owner, name).await {
            Ok(Sought::Found(id)) => Ok(id),
            Ok(Sought::Absent) => Err(format!(
                "it does not exist; create it in the settings of {owner}, or correct github.runner_group"
            )),
            Ok(Sought::Unseen(gap)) => Err(format!("unknown: GitHub's list is incomplete: {gap}")),
            Err(error) => Err(refused(&error, scope)),
        };
        group = report.result(&format!("{what}: the runner group \"{name}\" exists"), found)?;
    }
    let tried = match group {
        Some(group) if way.registration == Registration::Jit && !setup.mode.is_dry_run() => {
            just_in_time(setup, scope, group).await
        }
        _ => match github.registration_token(scope).await {
            Ok(_) => Ok(()),
            Err(error) => Err(registration_refused(setup, scope, &error).await),
        },
    };
    report.result(&format!("{what}: runners can be registered"), tried).map(drop)
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
                    "{error}; registration tokens work, so this server is too old for just-in-time configurations. Set github.registration: token, with a template that uses one, \
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
    refused(error, scope)
}

fn refused(error: &GitHubError, scope: &Scope) -> String {
    let right = match matches!(scope, Scope::Organization(_)) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{RepositoryId, Visibility};

    fn repository(id: u64, full: &str) -> Repository {
        let (owner, name) = full.split_once('/').unwrap();
        Repository {
            id: RepositoryId(id),
            owner: owner.to_owned(),
            name: name.to_owned(),
            html_url: format!("https://github.com/{full}"),
            archived: false,
            disabled: false,
            visibility: Visibility::default(),
        }
    }

    #[test]
    fn each_class_is_tried_where_and_how_its_runners_register() {
        let yaml = "repos: [acme]\ntemplate: builtin:docker\ngithub: {token: t}\nclasses:\n\
                    \x20 - {name: same}\n\
                    \x20 - {name: gpu, match: {repos: [acme/ml-*]}, github: {scope: organization, runner_group: gpu}}\n\
                    \x20 - {name: large, github: {scope: organization, runner_group: gpu}}\n\
                    \x20 - {name: private, match: {visibility: [private]}, github: {scope: organization}}\n\
                    \x20 - {name: none, deny: ask}\n";
        let told = |yaml: &str| -> Vec<String> {
            let config = Config::load(yaml, &|_| None).unwrap_or_else(|errors| panic!("{errors}"));
            let mut asleep = repository(3, "acme/old");
            asleep.archived = true;
            let repositories = [repository(1, "acme/app"), repository(2, "acme/ml-x"), asleep];
            let way = |way: &Way| format!("{} {}", way.what(), way.group.as_deref().unwrap_or("-"));
            ways(&config, &repositories).iter().map(way).collect()
        };
        assert_eq!(told(yaml), ["acme/app -", "acme/ml-x -", "acme for class gpu, large gpu"]);
        let only = told(&format!("classes_only: true\n{yaml}"));
        assert_eq!(only[0], "acme/app for class same -");
    }
}
