//! Warm entries as people write them, correct and incorrect.

use crate::config::{Config, Format};

fn load(yaml: &str) -> Result<Config, String> {
    Config::load(&format!("repos: [acme, other/app]\n{yaml}\n"), &|_| None)
        .map_err(|errors| errors.to_string())
}

fn well(yaml: &str) -> Config {
    load(yaml).unwrap_or_else(|errors| panic!("{yaml}: {errors}"))
}

const WELL: &str = "
github: {scope: organization}
warm:
  - {labels: [nomadtools, small], owner: Acme, count: 2, schedule: 'Mon-Fri 07:00-19:00 Europe/Berlin'}
classes:
  - name: gpu
    match: {labels: 'nomadtools gpu'}
    github: {scope: repository}
    warm:
      - {labels: [nomadtools gpu], repository: other/App}
";

#[test]
fn entries_stand_at_the_top_level_and_in_classes() {
    let entries = well(WELL).warm_entries();
    let shown: Vec<String> = entries
        .iter()
        .map(|(class, _, entry)| format!("{class:?} {} [{}] {}", entry.place, entry.labels, entry.count))
        .collect();
    assert_eq!(shown, ["None Acme [nomadtools,small] 2", "Some(\"gpu\") other/App [nomadtools gpu] 1"]);
    assert!(entries[0].2.schedule.is_some() && entries[1].2.schedule.is_none());
    // The printed schedule can be parsed again.
    let again = Config::load(&well(WELL).effective(Format::Yaml), &|_| None).unwrap();
    assert_eq!(again.warm_entries(), entries);
}

#[test]
fn an_entry_is_known_by_its_place_labels_and_class_and_outdated_by_its_settings() {
    let ids = |yaml: &str| -> Vec<(String, String)> {
        well(yaml).warm_entries().into_iter().map(|(_, settings, entry)| (entry.id, settings)).collect()
    };
    let before = ids(WELL);
    let same =
        ids(&WELL.replace("count: 2", "count: 3").replace("07:00", "06:00").replace("small]", "SMALL]"));
    assert_eq!(before, same);
    let [first, second] = &before[..] else { panic!("{before:?}") };
    let other = ids(&WELL.replace("nomadtools, small", "nomadtools, large"));
    assert!(other[0].0 != first.0 && other[1] == *second);
    for change in [
        WELL.replace("    warm:\n", "    template_settings: {image: other}\n    warm:\n"),
        WELL.replace("    warm:\n", "    nomad: {node_pool: other}\n    warm:\n"),
        WELL.replace("    warm:\n", "    template: builtin:docker\n    warm:\n"),
    ] {
        let other = ids(&change);
        assert!(other[0] == *first && other[1].0 == second.0 && other[1].1 != second.1, "{change}");
    }
    let twice = ids(
        "warm: [{labels: [nomadtools], repository: acme/a}, {labels: [nomadtools], repository: acme/a, count: 4}]",
    );
    assert_ne!(twice[0].0, twice[1].0);
}

#[test]
fn what_is_wrong_is_said() {
    let one = |entry: &str| format!("warm: [{{{entry}}}]");
    let owner = |entry: &str| format!("github: {{scope: organization}}\nwarm: [{{{entry}}}]");
    for (yaml, says) in [
        ("warm: {labels: [nomadtools]}".to_owned(), "expected a list"),
        (one("repository: acme/a"), "a warm runner needs labels"),
        (one("labels: [nomadtools]"), "write repository: acme/widgets"),
        (owner("labels: [nomadtools]"), "write owner: acme"),
        (one("labels: [nomadtools], owner: acme"), "set github.scope to organization, or write repository"),
        (owner("labels: [nomadtools], repository: acme/a"), "write owner instead"),
        (owner("labels: [nomadtools], repository: acme/a, owner: acme"), "remove one of them"),
        (one("labels: [nomadtools], repository: acme"), "write owner/name"),
        (owner("labels: [nomadtools], owner: acme/a"), "write an organization"),
        (one("labels: [nomadtools], repository: foreign/a"), "repos does not name the repository of foreign/a"),
        (one("labels: [nomadtools], repository: other/b"), "repos does not name the repository of other/b"),
        (owner("labels: [nomadtools], owner: foreign"), "repos does not name any repository of foreign"),
        (one("labels: [ubuntu], repository: acme/a"), "none of them matches runson_match"),
        (one("labels: ['nomadtools a,b'], repository: acme/a"), "label rules"),
        (one("labels: [nomadtools], repository: acme/a, count: 0"), "write 1 to 100"),
        (one("labels: [nomadtools], repository: acme/a, count: 101"), "write 1 to 100"),
        (one("labels: [nomadtools], repository: acme/a, schedule: Mon 7-19"), "Mon-Fri 07:00-19:00 Europe/Berlin"),
        (one("labels: [nomadtools], repository: acme/a, cuont: 1"), "did you mean \"count\"?"),
        (
            "classes_only: true\nclasses: [{name: a}]\nwarm: [{labels: [nomadtools], repository: acme/a}]".to_owned(),
            "move it into a class",
        ),
        (
            "classes: [{name: a, match: {labels: nomadtools gpu}, warm: [{labels: [nomadtools], repository: acme/a}]}]".to_owned(),
            "match.labels (nomadtools gpu) of their class",
        ),
        (
            "classes: [{name: a, deny: ask, warm: [{labels: [nomadtools], repository: acme/a}]}]".to_owned(),
            "warm has no effect",
        ),
    ] {
        let errors = load(&yaml).expect_err(&yaml);
        assert!(errors.contains(says), "{yaml}: {errors}");
    }
}

#[test]
fn a_configuration_without_entries_is_printed_as_before() {
    let printed = well("classes: [{name: a}]").effective(Format::Yaml);
    assert!(!printed.contains("warm"), "{printed}");
}
