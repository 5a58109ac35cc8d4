//! The report of a failing run: its seed, the shortest prefix that fails, and the timeline.

use std::fmt::Write;

use super::run::{How, Outcome, run};
use crate::faults::scenario::Scenario;

/// At most this many lines of the timeline are shown. The last ones are the most useful.
const SHOWN: usize = 400;

/// The shortest prefix of faults in a failing run that still fails, and its run with all details.
pub fn shortest(scenario: &Scenario, failed: &Outcome) -> (usize, Outcome) {
    let fails = |budget| {
        let outcome = run(scenario, How { budget, listen: true, ..How::quietly() });
        !outcome.findings.is_empty()
    };
    let (mut well, mut bad) = (0, failed.happened);
    if fails(0) {
        bad = 0;
    }
    while well + 1 < bad {
        let middle = well + (bad - well) / 2;
        if fails(middle) { bad = middle } else { well = middle }
    }
    (bad, run(scenario, How { budget: bad, record: true, ..How::quietly() }))
}

/// The seed and what was wrong.
pub fn brief(scenario: &Scenario, failed: &Outcome) -> String {
    let mut text = format!("seed {} fails: {:?}\n", scenario.seed, scenario.faults);
    for finding in &failed.findings {
        let _ = writeln!(text, "  {finding}");
    }
    text
}

/// The whole story of a failing seed.
pub fn story(scenario: &Scenario, failed: &Outcome) -> String {
    let (budget, outcome) = shortest(scenario, failed);
    let mut text = brief(scenario, failed);
    let _ = writeln!(
        text,
        "its shortest prefix that fails: the first {budget} of {} things that happen\nsettings: {:?}",
        failed.happened, scenario.settings
    );
    // Reads say little.
    let looks = |line: &&String| line.contains(" GET ") && !line.contains("FAULT");
    let told: Vec<&String> = outcome.timeline.iter().filter(|line| !looks(line)).collect();
    let skipped = told.len().saturating_sub(SHOWN);
    if skipped > 0 {
        let _ = writeln!(text, "  … {skipped} lines before");
    }
    for line in told.into_iter().skip(skipped) {
        let _ = writeln!(text, "{line}");
    }
    for finding in &outcome.findings {
        let _ = writeln!(text, "  {finding}");
    }
    text
}
