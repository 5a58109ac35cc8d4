//! `warm`: runners that are started before there are jobs for them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    RepoEntry, RunnerLevel,
    hours::Hours,
    reader::{Problems, Section, Shape},
    rules::repo_entry,
    yaml::{Data, Node},
};
use crate::{
    labels::{LabelPattern, LabelRules, Match, harmless},
    model::{Labels, digest},
};

/// The most runners of one entry. More would be a mistake: nodes that run nothing.
const COUNT_MAX: usize = 100;

/// The most entries in one place.
const ENTRIES_MAX: usize = 50;

/// Runners that are ready before there are jobs for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmEntry {
    /// What distinguishes it from other entries, in its runners' Meta. It does not depend on `count` and `schedule`, which
    /// may change while its runners stay.
    pub id: String,
    /// `labels`
    pub labels: Labels,
    /// `owner` or `repository`: where its runners register.
    pub place: RepoEntry,
    /// `count`
    pub count: usize,
    /// `schedule`; `None`: always.
    pub schedule: Option<Hours>,
}

/// What the place of an entry says: its class, or the top level.
pub(super) struct Around<'a> {
    /// `None`: the top level.
    pub(super) class: Option<&'a str>,
    /// `match.labels` of the class.
    pub(super) pattern: Option<&'a LabelPattern>,
    pub(super) labels: Option<&'a LabelRules>,
    pub(super) scope: RunnerLevel,
    pub(super) repos: &'a [RepoEntry],
    /// Jobs that no class matches are held.
    pub(super) classes_only: bool,
}

/// Reads `warm`.
pub(super) fn parse(section: &Section, problems: &Problems, around: &Around) -> Vec<WarmEntry> {
    section.shape("warm", Shape::Any);
    let items: &[_] = match section.get("warm").map(|node| (&node.data, node)) {
        Some((Data::List(items), _)) => items,
        Some((_, node)) => {
            let message = format!("expected a list, found {}", node.kind());
            section.problem("warm", message, "write `- labels: […]`, and the rest of the entry below it");
            &[]
        }
        None => &[],
    };
    if items.len() > ENTRIES_MAX {
        section.problem("warm", format!("{} entries", items.len()), format!("write at most {ENTRIES_MAX}"));
    }
    if !items.is_empty() && around.classes_only {
        section.problem(
            "warm",
            "with classes_only, the top level has no jobs, so its warm runners would have none",
            "move it into a class",
        );
    }
    let mut ids = BTreeSet::new();
    let key = section.key("warm");
    let entries =
        items.iter().take(ENTRIES_MAX).filter_map(|item| entry(item, &key, problems, around, &mut ids));
    entries.collect()
}

fn entry(
    node: &Node,
    key: &str,
    problems: &Problems,
    around: &Around,
    ids: &mut BTreeSet<String>,
) -> Option<WarmEntry> {
    let section = Section::new(problems, key, Some(node), node.place);
    let labels = labels(&section, around);
    let place = place(&section, around);
    let count = section.count("count").unwrap_or(1);
    if !(1..=COUNT_MAX).contains(&count) {
        let help = format!("write 1 to {COUNT_MAX}; without the entry there are none");
        section.problem("count", format!("{count}"), help);
    }
    let schedule = section.text("schedule").and_then(|text| match Hours::parse(text) {
        Ok(hours) => Some(hours),
        Err(why) => {
            section.problem("schedule", why, "write it like Mon-Fri 07:00-19:00 Europe/Berlin");
            None
        }
    });
    section.finish();
    let (labels, place) = (labels?, place?);
    // Entries that differ only in count and schedule are told apart by their order.
    let id =
        (1..).map(|number| id(around.class, &place, &labels, number)).find(|id| ids.insert(id.clone()))?;
    Some(WarmEntry { id, labels, place, count, schedule })
}

fn id(class: Option<&str>, place: &RepoEntry, labels: &Labels, number: usize) -> String {
    let labels: Vec<&str> = labels.key().collect();
    let place = place.to_string().to_lowercase();
    digest(&json!([class, place, labels, number]).to_string())
}

/// The labels, if jobs of ours can have them and they may be rendered.
fn labels(section: &Section, around: &Around) -> Option<Labels> {
    let texts = section.texts("labels");
    let problem = |message: String, help: &str| {
        section.problem("labels", message, help);
        None
    };
    if texts.is_empty() {
        return problem(
            "a warm runner needs labels".to_owned(),
            "write those of the jobs that it is to take",
        );
    }
    let rules = around.labels?;
    if let Err(why) = rules.check(&texts) {
        return problem(why.to_string(), "write labels that the label rules allow");
    }
    if rules.matches(&texts) != Match::Yes {
        let message =
            format!("none of them matches runson_match ({rules}), so no job of ours would request them");
        return problem(message, "add the label that the jobs have");
    }
    if let Some(pattern) = around.pattern.filter(|pattern| !pattern.matches(&texts)) {
        let message = format!("none of them matches match.labels ({}) of their class", pattern.text());
        return problem(message, "add the label that the jobs of the class have");
    }
    Some(Labels::new(texts))
}

/// Where its runners register: at the owner with `scope: organization`, or else at the repository.
fn place(section: &Section, around: &Around) -> Option<RepoEntry> {
    let named = |key| section.text(key).map(|text| (key, text));
    let (key, text) = match (named("owner"), named("repository")) {
        (Some(owner), None) => owner,
        (None, Some(repository)) => repository,
        (Some(_), Some(_)) => {
            section.problem("repository", "the entry has an owner, too", "remove one of them");
            return None;
        }
        (None, None) => {
            let (key, like) = match around.scope {
                RunnerLevel::Organization => ("owner", "acme"),
                RunnerLevel::Repository => ("repository", "acme/widgets"),
            };
            section.problem(
                key,
                "it does not say where its runners register",
                format!("write {key}: {like}; owner needs github.scope: organization"),
            );
            return None;
        }
    };
    let place = repo_entry(text);
    let fits = match place {
        Some(RepoEntry::Owner(_)) => key == "owner",
        Some(RepoEntry::Repository { .. }) => key == "repository",
        Some(RepoEntry::All) | None => false,
    };
    let Some(place) = place.filter(|_| fits) else {
        let help = if key == "owner" { "write an organization" } else { "write owner/name" };
        section.problem(key, format!("\"{}\" is not valid", harmless(text)), help);
        return None;
    };
    match (key, around.scope) {
        ("owner", RunnerLevel::Repository) => section.problem(
            "owner",
            "runners of an owner register at its organization, and github.scope is repository",
            "set github.scope to organization, or write repository: owner/name",
        ),
        ("repository", RunnerLevel::Organization) => section.problem(
            "repository",
            "github.scope is organization, so its runners would take jobs of all repositories of the owner",
            "write owner instead, or set github.scope to repository",
        ),
        _ => {}
    }
    if !around.repos.iter().any(|entry| covers(entry, &place)) {
        section.problem(
            key,
            format!(
                "repos does not name {} of {place}",
                if key == "owner" { "any repository" } else { "the repository" }
            ),
            "add it to repos, so that its jobs are seen",
        );
    }
    Some(place)
}

/// Whether an entry of `repos` names a repository of this place.
fn covers(entry: &RepoEntry, place: &RepoEntry) -> bool {
    let same = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
    match (entry, place) {
        (RepoEntry::All, _) => true,
        (RepoEntry::Repository { owner, name }, RepoEntry::Repository { owner: other, name: named }) => {
            same(owner, other) && same(name, named)
        }
        (entry, place) => {
            let is_whole = matches!(entry, RepoEntry::Owner(_)) || matches!(place, RepoEntry::Owner(_));
            let owners = entry.owner().zip(place.owner());
            is_whole && owners.is_some_and(|(entry, place)| same(entry, place))
        }
    }
}

/// The entries in the format of the file.
pub(super) fn tree(entries: &[WarmEntry]) -> Value {
    let one = |entry: &WarmEntry| {
        let key = if matches!(entry.place, RepoEntry::Owner(_)) { "owner" } else { "repository" };
        let mut tree = json!({
            "labels": entry.labels.shown().collect::<Vec<_>>(),
            key: entry.place.to_string(),
            "count": entry.count,
        });
        if let Some(schedule) = &entry.schedule {
            tree["schedule"] = json!(schedule.to_string());
        }
        tree
    };
    entries.iter().map(one).collect()
}

#[cfg(test)]
#[path = "warm_tests.rs"]
mod tests;
