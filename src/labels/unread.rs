//! Label keys that the template does not read, which are mostly mistakes.

use std::collections::BTreeSet;

use super::{RunsOn, harmless};

/// The key that makes a label one run's own (docs/templates-and-labels.md): no template needs to read it.
const OF_ONE_RUN: &str = "run";

/// What other programs call the keys of the bundled templates.
const ELSEWHERE: [(&str, &str); 8] = [
    ("ram", "mem"),
    ("memory", "mem"),
    ("memmax", "maxmem"),
    ("memory_max", "maxmem"),
    ("cpus", "cores"),
    ("core", "cores"),
    ("storage", "disk"),
    ("ephemeral_disk", "disk"),
];

/// A note on each key with a value that is not among those that the template reads.
pub fn unread(read: &BTreeSet<String>, runs_on: &RunsOn) -> Vec<String> {
    let is_unread =
        |(key, value): &(&String, &String)| !value.is_empty() && !read.contains(*key) && *key != OF_ONE_RUN;
    let note = |key: &String| {
        let meant = match meant(read, key) {
            Some(meant) => format!("; did you mean {meant}="),
            None => String::new(),
        };
        format!("the template does not read {}={meant}", harmless(key))
    };
    runs_on.iter().filter(is_unread).map(|(key, _)| note(key)).collect()
}

fn meant<'k>(read: &'k BTreeSet<String>, key: &str) -> Option<&'k String> {
    const NEAR: f64 = 0.8;
    let known = ELSEWHERE.iter().find(|(theirs, _)| *theirs == key);
    if let Some(ours) = known.and_then(|(_, ours)| read.get(*ours)) {
        return Some(ours);
    }
    let scored = read.iter().map(|word| (strsim::jaro_winkler(key, word), word));
    scored.filter(|(score, _)| *score >= NEAR).max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, word)| word)
}
