//! Everything that the documents and comments refer to exists: sections of the contracts, files, and
//! headings.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
};

/// The repository's text files, except for generated and third-party ones.
fn files(extensions: &[&str]) -> Vec<(PathBuf, String)> {
    fn walk(directory: &Path, extensions: &[&str], found: &mut Vec<(PathBuf, String)>) {
        let mut entries: Vec<PathBuf> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                if !["target", ".git", "corpus", "artifacts"].contains(&name) {
                    walk(&path, extensions, found);
                }
            } else if path.extension().is_some_and(|is| extensions.iter().any(|wanted| is == *wanted)) {
                found.push((path.clone(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    walk(root, extensions, &mut found);
    found.into_iter().map(|(path, text)| (path.strip_prefix(root).unwrap().to_owned(), text)).collect()
}

/// The contract sections that a text cites: `contract nomad.md §8`, including any that follow directly, `§8, §9`. A
/// citation may cross the end of a line, including comment markers. `contract §8` cites the contract of the file's own
/// folder, if it has one.
fn citations(text: &str, own: Option<&str>) -> Vec<(usize, String, String)> {
    let mut found = Vec::new();
    let mut flat = String::new();
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim().trim_start_matches(['/', '!', '#', '*']).trim();
        lines.extend(std::iter::repeat_n(number + 1, line.len() + 1));
        flat.push_str(line);
        flat.push(' ');
    }
    for (at, _) in flat.match_indices("contract ") {
        let rest = &flat[at + "contract ".len()..];
        let (file, mut rest) = match rest.split_once(".md") {
            Some((file, rest)) if !file.is_empty() && file.bytes().all(|byte| byte.is_ascii_lowercase()) => {
                (file, rest)
            }
            _ if rest.starts_with('§') => (own.unwrap_or("unnamed"), rest),
            _ => continue,
        };
        let mut sections = Vec::new();
        while let Some(after) = rest.trim_start_matches([' ', ',']).strip_prefix('§') {
            let digits = after.bytes().take_while(u8::is_ascii_digit).count();
            sections.push(after[..digits].to_owned());
            rest = &after[digits..];
        }
        if sections.is_empty() {
            sections.push(String::new());
        }
        found.extend(sections.into_iter().map(|section| (lines[at], format!("{file}.md"), section)));
    }
    found
}

/// The headings of a Markdown text, outside of code.
fn headings(text: &str) -> Vec<&str> {
    let mut code = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            code = !code;
        } else if let Some(title) = line.strip_prefix('#').filter(|_| !code) {
            found.push(title.trim_start_matches('#').trim());
        }
    }
    found
}

/// A heading's anchor as on GitHub.
fn anchor(title: &str) -> String {
    let kept = |c: char| c.is_alphanumeric() || "-_ ".contains(c);
    title.to_lowercase().chars().filter(|c| kept(*c)).map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen = BTreeMap::<String, usize>::new();
    let mut all = BTreeSet::new();
    for title in headings(text) {
        let anchor = anchor(title);
        let times = seen.entry(anchor.clone()).or_default();
        all.insert(if *times == 0 { anchor } else { format!("{anchor}-{times}") });
        *times += 1;
    }
    all
}

/// The targets of a Markdown text's links and pictures, outside of code, with their lines.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut code = false;
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.starts_with("```") {
            code = !code;
        }
        if code {
            continue;
        }
        // Text between backticks is not a link.
        let plain: String =
            line.split('`').enumerate().map(|(at, part)| if at % 2 == 0 { part } else { "x" }).collect();
        for (at, _) in plain.match_indices("](") {
            if let Some((target, _)) = plain[at + 2..].split_once(')') {
                found.push((number + 1, target.to_owned()));
            }
        }
    }
    found
}

/// The path without `.` and `..`; `None` if it leaves the repository.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut parts = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                if !parts.pop() {
                    return None;
                }
            }
            Component::CurDir => {}
            other => parts.push(other),
        }
    }
    Some(parts)
}

/// The broken links of these documents.
fn broken_links(documents: &[(PathBuf, String)], exists: &dyn Fn(&Path) -> bool) -> Vec<String> {
    let mut broken = Vec::new();
    for (path, text) in documents {
        for (line, target) in links(text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, wanted) =
                target.split_once('#').map_or((target.as_str(), None), |(f, a)| (f, Some(a)));
            let beside = path.parent().unwrap_or(Path::new(""));
            let file = if file.is_empty() { Some(path.clone()) } else { normal(&beside.join(file)) };
            let place = format!("{}:{line}", path.display());
            let Some(file) = file.filter(|file| exists(file)) else {
                broken.push(format!("{place}: {target}: no such file"));
                continue;
            };
            if let Some(wanted) = wanted {
                let text = documents.iter().find(|(path, _)| *path == file).map(|(_, text)| text);
                if !text.is_some_and(|text| anchors(text).contains(wanted)) {
                    broken.push(format!("{place}: {target}: no such heading"));
                }
            }
        }
    }
    broken
}

#[test]
fn every_cited_section_of_a_contract_exists() {
    let contracts: BTreeMap<String, BTreeSet<String>> = files(&["md"])
        .into_iter()
        .filter(|(path, _)| path.starts_with("docs/contracts"))
        .map(|(path, text)| {
            let number = |title: &&str| title.split_once(". ").map(|(number, _)| number.to_owned());
            let sections = headings(&text).iter().filter_map(number).collect();
            (path.file_name().unwrap().to_str().unwrap().to_owned(), sections)
        })
        .collect();
    assert_eq!(contracts.keys().collect::<Vec<_>>(), ["github.md", "nomad.md", "nomadtools.md"]);
    let (mut cited, mut wrong) = (0, Vec::new());
    for (path, text) in files(&["rs", "hcl", "j2", "toml", "md"]) {
        // This file contains examples.
        if path == Path::new("tests/docs.rs") {
            continue;
        }
        let parts = || path.iter().filter_map(|part| part.to_str());
        let own = ["github", "nomad"].into_iter().find(|name| parts().any(|part| part == *name));
        for (line, file, section) in citations(&text, own) {
            cited += 1;
            let place = format!("{}:{line}: contract {file}", path.display());
            match contracts.get(&file) {
                None => wrong.push(format!("{place}: no such contract")),
                Some(_) if section.is_empty() => {}
                Some(sections) if sections.contains(&section) => {}
                Some(_) => wrong.push(format!("{place} §{section}: no such section")),
            }
        }
    }
    assert!(cited >= 100, "only {cited} citations were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_link_of_the_documents_resolves() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let documents = files(&["md"]);
    let count: usize = documents.iter().map(|(_, text)| links(text).len()).sum();
    assert!(count >= 50, "only {count} links were found");
    let broken = broken_links(&documents, &|path| root.join(path).exists());
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_document_is_a_page_of_the_site() {
    let summary = include_str!("../docs/SUMMARY.md");
    for (path, _) in files(&["md"]) {
        let Ok(page) = path.strip_prefix("docs") else { continue };
        let page = page.to_str().unwrap();
        assert!(page == "SUMMARY.md" || summary.contains(&format!("]({page})")), "{page}");
    }
}

#[test]
fn the_readme_fits_on_three_screens() {
    let readme = include_str!("../README.md");
    assert!(readme.lines().count() <= 150);
}

#[test]
fn a_citation_is_found_wherever_its_line_ends() {
    let text = "//! It is so (contract\n//! nomad.md §8, §12), and\n// contract github.md\n// §3. contract nomadtools.md.";
    let own = citations("// (contract §4)\n// a contract of ours. nomad.md §1", Some("github"));
    assert_eq!(own, [(1, "github.md".to_owned(), "4".to_owned())]);
    assert_eq!(citations("// (contract §4)", None)[0].1, "unnamed.md");
    let found: Vec<String> = citations(text, None)
        .into_iter()
        .map(|(line, file, section)| format!("{line} {file} {section}"))
        .collect();
    assert_eq!(found, ["1 nomad.md 8", "1 nomad.md 12", "3 github.md 3", "4 nomadtools.md "]);
}

#[test]
fn a_broken_link_is_found() {
    let document = |path: &str, text: &str| (PathBuf::from(path), text.to_owned());
    let documents = [
        document(
            "README.md",
            "[a](docs/a.md) [b](docs/b.md) `[c](no.md)` [d](#top-2)\n# Top 2\n```\n# code\n```\n[e](#code)",
        ),
        document(
            "docs/a.md",
            "# `a.b`: c?\n# x\n# x\n[f](#ab-c) [g](../README.md#top) [h](#x-1) [i](../../up.md) ![j](https://x)",
        ),
    ];
    let exists = |path: &Path| documents.iter().any(|(known, _)| known == path);
    let broken = broken_links(&documents, &exists);
    let expected = [
        "README.md:1: docs/b.md: no such file",
        "README.md:6: #code: no such heading",
        "docs/a.md:4: ../README.md#top: no such heading",
        "docs/a.md:4: ../../up.md: no such file",
    ];
    assert_eq!(broken, expected);
}
