//! Each direct dependency has its reason in `docs/dependencies.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;

/// The workspace's packages.
const MANIFESTS: [&str; 4] =
    ["Cargo.toml", "sim/Cargo.toml", "simulation/Cargo.toml", "proptests/Cargo.toml"];

#[test]
fn each_direct_dependency_has_a_reason_and_each_reason_a_dependency() {
    let document = std::fs::read_to_string("docs/dependencies.md").unwrap();
    let (tables, _) = document.split_once("## Crates with few users").unwrap();
    let explained: BTreeSet<&str> = tables.lines().filter_map(|line| line.split('`').nth(1)).collect();
    let rows = tables.lines().filter(|line| line.starts_with("| `")).count();
    let manifests = MANIFESTS.map(|file| std::fs::read_to_string(file).unwrap());
    let used: BTreeSet<&str> = manifests.iter().flat_map(|text| dependencies(text)).collect();
    assert!(used.contains("tokio") && used.contains("proptest"), "{used:?}");
    let explained: BTreeSet<&str> =
        explained.into_iter().filter(|name| tables.contains(&format!("| `{name}` |"))).collect();
    assert_eq!(explained.len(), rows, "a crate is explained twice");
    assert_eq!(used, explained);
}

/// The names in the sections `dependencies` and `dev-dependencies`, without the workspace's own packages.
fn dependencies(manifest: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut within = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            within = matches!(line, "[dependencies]" | "[dev-dependencies]" | "[build-dependencies]");
        } else if within && let Some((name, _)) = line.split_once(['=', '.']) {
            let name = name.trim();
            if !name.is_empty() && !name.starts_with('#') && !name.starts_with("githubrunner") {
                names.push(name);
            }
        }
    }
    names
}
