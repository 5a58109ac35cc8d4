//! Checks the layer rule of docs/architecture.md, which is read from there, and that no files import each other,
//! directly or through a cycle.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// A file of a package.
struct File {
    path: PathBuf,
    /// `["nomad", "seal"]`; a `mod.rs` stands for its folder.
    module: Vec<String>,
    imports: Vec<Import>,
}

/// A path that a file names, from the package's root.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Import {
    line: usize,
    path: Vec<String>,
}

/// The text with comments and literals blanked out; lines stay in place.
fn code(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    let blank = |from: usize, to: usize, out: &mut String| {
        out.extend(characters[from..to].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
    };
    let ends = |from: usize, pattern: &str| {
        let pattern: Vec<char> = pattern.chars().collect();
        (from..characters.len())
            .find(|at| characters[*at..].starts_with(&pattern))
            .map(|at| at + pattern.len())
    };
    while at < characters.len() {
        let rest = &characters[at..];
        let before = at.checked_sub(1).map(|before| characters[before]);
        let word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let hashes = rest.iter().skip(1).take_while(|c| **c == '#').count();
        let end = if rest.starts_with(&['/', '/']) {
            ends(at, "\n").map(|end| end - 1)
        } else if rest.starts_with(&['/', '*']) {
            ends(at + 2, "*/")
        } else if rest[0] == 'r' && !word && rest.get(1 + hashes) == Some(&'"') {
            ends(at + 2 + hashes, &format!("\"{}", "#".repeat(hashes)))
        } else if rest[0] == '"' {
            let mut end = at + 1;
            while end < characters.len() && characters[end] != '"' {
                end += if characters[end] == '\\' { 2 } else { 1 };
            }
            Some(end + 1)
        } else if rest.starts_with(&['\'', '\\']) {
            ends(at + 3, "'")
        } else if rest[0] == '\'' && rest.get(2) == Some(&'\'') {
            Some(at + 3)
        } else {
            out.push(rest[0]);
            at += 1;
            continue;
        };
        let end = end.unwrap_or(characters.len()).min(characters.len());
        blank(at, end, &mut out);
        at = end;
    }
    out
}

/// The code without test-only items.
fn without_tests(code: &str) -> String {
    let mut text = code.to_owned();
    while let Some(start) = text.find("#[cfg(test)]") {
        let rest = &text[start..];
        let open = rest.find('{').unwrap_or(rest.len());
        let end = match rest.find(';') {
            Some(semicolon) if semicolon < open => semicolon + 1,
            _ => {
                let mut depth = 0;
                let closed = rest.char_indices().find(|(_, c)| {
                    depth += i32::from(*c == '{') - i32::from(*c == '}');
                    *c == '}' && depth == 0
                });
                closed.map_or(rest.len(), |(at, _)| at + 1)
            }
        };
        let blank: String = rest[..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        text.replace_range(start..start + end, &blank);
    }
    text
}

/// `a::{b, c::{d, e}}` as `a::b`, `a::c::d`, `a::c::e`.
fn expand(prefix: &str, tree: &str, found: &mut Vec<String>) {
    let Some(open) = tree.find('{') else {
        found.push(format!("{prefix}{}", tree.split(" as ").next().unwrap_or("").trim()));
        return;
    };
    let head = format!("{prefix}{}", tree[..open].trim());
    let inner = &tree[open + 1..tree.rfind('}').unwrap_or(tree.len())];
    let (mut depth, mut start) = (0, 0);
    for (at, c) in inner.char_indices().chain([(inner.len(), ',')]) {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if c == ',' && depth == 0 {
            let part = inner[start..at].trim();
            if !part.is_empty() {
                expand(&head, part, found);
            }
            start = at + 1;
        }
    }
}

/// Each path in the code, in a `use` or not, with its line.
fn paths(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let line = |at: usize| code[..at].matches('\n').count() + 1;
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut used = Vec::new();
    for (at, _) in code.match_indices("use ") {
        if code[..at].chars().next_back().is_some_and(is_word) {
            continue;
        }
        let end = code[at..].find(';').map_or(code.len(), |end| at + end);
        let tree = code[at + 4..end].split_whitespace().collect::<Vec<_>>().join(" ");
        let mut all = Vec::new();
        expand("", &tree, &mut all);
        found.extend(all.into_iter().map(|path| (line(at), path)));
        used.push(at..end);
    }
    for root in ["crate::", "super::"] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| is_word(c) || c == ':') || used.iter().any(|range| range.contains(&at))
            {
                continue;
            }
            let path: String = code[at..].chars().take_while(|c| is_word(*c) || *c == ':').collect();
            found.push((line(at), path));
        }
    }
    found
}

/// The path from the package's root, if it begins in this package.
fn absolute(module: &[String], path: &str, modules: &BTreeSet<Vec<String>>) -> Option<Vec<String>> {
    let mut parts: Vec<String> = path.split("::").map(|part| part.trim().to_owned()).collect();
    let mut base = module.to_vec();
    match parts.first()?.as_str() {
        "crate" => return Some(parts.split_off(1)),
        "self" => {
            parts.remove(0);
        }
        "super" => {
            while parts.first().is_some_and(|part| part == "super") {
                base.pop();
                parts.remove(0);
            }
        }
        first => {
            base.push(first.to_owned());
            if !modules.contains(&base) {
                return None;
            }
            base.pop();
        }
    }
    base.extend(parts);
    Some(base)
}

fn every_source(directory: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            every_source(&path, found);
        } else if path.extension().is_some_and(|is| is == "rs") {
            found.push(path);
        }
    }
}

/// The sources of a folder without the tests.
fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    let mut all = Vec::new();
    every_source(directory, &mut all);
    let is_test = |path: &Path| {
        path.strip_prefix(directory).unwrap().iter().any(|part| {
            let stem = Path::new(part).file_stem().unwrap().to_str().unwrap();
            stem == "tests" || stem.ends_with("_tests")
        })
    };
    found.extend(all.into_iter().filter(|path| !is_test(path)));
}

/// The files of a package, without its tests.
fn package(directory: &str) -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    sources(&root.join(directory), &mut found);
    let files = found.into_iter().map(|path| {
        let inside = path.strip_prefix(root.join(directory)).unwrap().with_extension("");
        let module: Vec<String> = inside.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        let text = fs::read_to_string(&path).unwrap();
        (path.strip_prefix(root).unwrap().to_owned(), module, text)
    });
    build(files.collect())
}

fn build(files: Vec<(PathBuf, Vec<String>, String)>) -> Vec<File> {
    let own = |module: &[String]| match module {
        [rest @ .., last] if last == "mod" => rest.to_vec(),
        [last] if last == "lib" => Vec::new(),
        other => other.to_vec(),
    };
    let modules: BTreeSet<Vec<String>> = files.iter().map(|(_, module, _)| own(module)).collect();
    let read = |(path, module, text): (PathBuf, Vec<String>, String)| {
        let module = own(&module);
        let imports = paths(&without_tests(&code(&text)))
            .into_iter()
            .filter_map(|(line, path)| Some(Import { line, path: absolute(&module, &path, &modules)? }))
            .collect();
        File { path, module, imports }
    };
    files.into_iter().map(read).collect()
}

/// The file that an import refers to; a re-export of a `mod.rs` counts as its own file.
fn target<'a>(files: &'a [File], path: &[String]) -> Option<&'a File> {
    let mut path = path.to_vec();
    // At most as often as modules are nested: a re-exported name is resolved where it comes from.
    for _ in 0..8 {
        let length = (0..=path.len()).rev().find(|n| files.iter().any(|file| file.module == path[..*n]))?;
        let file = files.iter().find(|file| file.module == path[..length])?;
        let Some(name) = path.get(length) else { return Some(file) };
        let handed_on = file.imports.iter().find(|import| {
            import.path.last() == Some(name) && import.path.len() > 1 && import.path[..] != path[..length + 1]
        });
        match handed_on {
            Some(import) => path = import.path.clone(),
            None => return Some(file),
        }
    }
    None
}

/// The cycles between files, each as the set of files that reach each other. A file may import the `mod.rs` above it,
/// which holds what is common to its folder; that alone is not a cycle.
fn circles(files: &[File]) -> Vec<BTreeSet<&Path>> {
    let mut reach: BTreeMap<&Path, BTreeSet<&Path>> = BTreeMap::new();
    for file in files {
        let direct = file.imports.iter().filter_map(|import| target(files, &import.path));
        let others = direct.filter(|other| !file.module.starts_with(&other.module));
        reach.insert(&file.path, others.map(|other| other.path.as_path()).collect());
    }
    loop {
        let mut grown = false;
        for file in files {
            let mut all = reach[file.path.as_path()].clone();
            let before = all.len();
            all.extend(reach[file.path.as_path()].iter().flat_map(|other| reach[other].clone()));
            grown |= all.len() > before;
            reach.insert(&file.path, all);
        }
        if !grown {
            break;
        }
    }
    let mut found: Vec<BTreeSet<&Path>> = Vec::new();
    for (path, others) in &reach {
        let circle: BTreeSet<&Path> = others
            .iter()
            .copied()
            .filter(|other| others.contains(path) && reach[other].contains(path))
            .collect();
        if !circle.is_empty() && !found.contains(&circle) {
            found.push(circle);
        }
    }
    found
}

/// The rooms by their line in docs/architecture.md, the highest first.
fn layers() -> Vec<Vec<String>> {
    let text = include_str!("../docs/architecture.md");
    let section = text.split_once("### Layer rule").unwrap().1;
    let block = section.split_once("```text\n").unwrap().1.split_once("```").unwrap().0;
    block.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

/// The imports that go up or sideways.
fn violations(files: &[File], layers: &[Vec<String>]) -> Vec<String> {
    let layer = |room: &str| layers.iter().position(|line| line.iter().any(|other| other == room));
    let mut found = Vec::new();
    for file in files {
        let Some(room) = file.module.first() else { continue };
        let place = |line: usize| format!("{}:{line}", file.path.display());
        let Some(own) = layer(room) else {
            found.push(format!("{}: room {room} has no line", place(1)));
            continue;
        };
        for import in &file.imports {
            let Some(other) = import.path.first().filter(|other| *other != room) else { continue };
            let wrong = match layer(other) {
                Some(theirs) => theirs <= own,
                None => files.iter().any(|file| file.module.first() == Some(other)),
            };
            if wrong {
                let path = import.path.join("::");
                found.push(format!("{}: {room} must not import crate::{path}", place(import.line)));
            }
        }
    }
    found
}

#[test]
fn no_room_imports_from_its_own_line_or_a_higher_one() {
    let files = package("src");
    let layers = layers();
    let rooms: BTreeSet<&String> = files.iter().filter_map(|file| file.module.first()).collect();
    let named: BTreeSet<&String> = layers.iter().flatten().collect();
    assert_eq!(rooms, named, "docs/architecture.md names every room of src");
    let found = violations(&files, &layers);
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn only_the_demo_imports_the_simulators() {
    for file in package("src") {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(&file.path)).unwrap();
        let imports = without_tests(&code(&text)).contains("githubrunner_sim");
        assert!(!imports || file.path.starts_with("src/commands/demo"), "{}", file.path.display());
    }
}

#[test]
fn no_files_import_each_other() {
    let mut wrong = Vec::new();
    for directory in ["src", "sim/src", "simulation/src"] {
        for circle in circles(&package(directory)) {
            let paths: Vec<String> = circle.iter().map(|path| path.display().to_string()).collect();
            wrong.push(format!("import each other in a round:\n  {}", paths.join("\n  ")));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Where the imports at the top level of a file leave the one style: std, other packages, this package, and one `use` for each
/// root. `cargo +nightly fmt -- --config imports_granularity=Crate,group_imports=StdExternalCrate` writes it.
fn untidy(code: &str) -> Vec<String> {
    let group = |root: &str| match root {
        "std" => 0,
        "crate" | "super" | "self" => 2,
        _ => 1,
    };
    let mut found = Vec::new();
    let (mut before, mut last, mut seen) = ("", 0, BTreeSet::new());
    for (at, line) in code.lines().enumerate() {
        let conditional = before.starts_with("#[cfg");
        before = line;
        let Some(path) = line.strip_prefix("use ").filter(|_| !conditional) else { continue };
        let root = path.split([':', ';', ' ']).next().unwrap_or("");
        if !seen.insert(root) {
            found.push(format!("{}: a second import from {root}", at + 1));
        }
        if group(root) < last {
            found.push(format!("{}: {root} comes after a later group", at + 1));
        }
        last = last.max(group(root));
    }
    found
}

#[test]
fn imports_have_one_style() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut wrong = Vec::new();
    for directory in ["src", "sim", "simulation", "proptests", "tests", "benches"] {
        let mut files = Vec::new();
        every_source(&root.join(directory), &mut files);
        assert!(!files.is_empty(), "{directory}");
        for path in files {
            let text = fs::read_to_string(&path).unwrap();
            let name = path.strip_prefix(root).unwrap().display();
            wrong.extend(untidy(&code(&text)).into_iter().map(|what| format!("{name}:{what}")));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    let text = "use a::B;\nuse std::fs;\n#[cfg(unix)]\nuse a::C;\nuse crate::d;\nuse crate::e;\n";
    let expected = ["2: std comes after a later group", "6: a second import from crate"];
    assert_eq!(untidy(text), expected);
}

#[test]
fn long_unit_tests_have_a_file_of_their_own() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut wrong = Vec::new();
    for directory in ["src", "sim/src", "simulation/src"] {
        let mut files = Vec::new();
        every_source(&root.join(directory), &mut files);
        for path in files {
            let text = fs::read_to_string(&path).unwrap();
            let tests = text.lines().skip_while(|line| !line.starts_with("mod tests {")).count();
            if tests >= 150 {
                wrong.push(format!("{}: {tests} lines of tests", path.strip_prefix(root).unwrap().display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn imports_are_read_in_all_their_forms() {
    let text = r##"
use crate::{a::{self, B as C}, d}; // use crate::comment;
pub(super) use super::e::*;
fn f() { let _ = crate::g::h("use crate::text;", r#"use "crate::raw"#, '"', '\''); super::super::i(); }
#[cfg(test)]
mod tests { use crate::test; fn f() { if true {} } }
#[cfg(test)]
mod others;
use j::k;
"##;
    let found: Vec<String> =
        paths(&without_tests(&code(text))).into_iter().map(|(line, path)| format!("{line} {path}")).collect();
    let expected = [
        "2 crate::a::self",
        "2 crate::a::B",
        "2 crate::d",
        "3 super::e::*",
        "9 j::k",
        "4 crate::g::h",
        "4 super::super::i",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_forbidden_import_and_a_circle_are_found() {
    let file = |path: &str, text: &str| {
        let module = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        (PathBuf::from(path), module, text.to_owned())
    };
    let layers = [vec!["top".to_owned()], vec!["left".to_owned(), "right".to_owned()]];
    let files = build(vec![
        file("top.rs", "use crate::left::Left;"),
        file("left/mod.rs", "mod inner;\nmod outer;\npub use outer::Outer;"),
        file("left/inner.rs", "use super::Outer;\nuse crate::right::Right;\nfn f() { crate::top::g() }"),
        file("left/outer.rs", "use super::inner::Inner;"),
        file("right.rs", ""),
    ]);
    let found = violations(&files, &layers);
    let expected = [
        "left/inner.rs:2: left must not import crate::right::Right",
        "left/inner.rs:3: left must not import crate::top::g",
    ];
    assert_eq!(found, expected);
    let found = circles(&files);
    assert!(found.iter().any(|circle| circle.contains(Path::new("left/inner.rs"))), "{found:?}");
    assert!(found.iter().any(|circle| circle.contains(Path::new("left/outer.rs"))), "{found:?}");
}
