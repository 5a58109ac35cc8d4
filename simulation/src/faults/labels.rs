//! The labels of a run's jobs.

/// The labels that jobs request.
pub const LABELS: &[&[&str]] = &[
    &["sim"],
    &["sim", "linux"],
    &["Linux", "SIM"],
    &["sim", "big"],
    &["sim mem=2000"],
    &["self-hosted"],
    // Terminal commands, a forged log line and reversed text.
    &["sim", "bad;\u{1b}[2J\u{1b}]0;x\u{7}\r\n ERROR forged \u{202e}\u{2066}\u{200b}"],
];

/// Whether jobs with these labels get a runner at all.
pub fn is_servable(labels: &[String]) -> bool {
    labels.iter().any(|label| label.to_lowercase().starts_with("sim"))
        && labels.iter().all(|label| !label.contains(';'))
}

/// More memory than any node has.
pub const UNPLACEABLE: [&str; 1] = ["sim mem=999999"];

/// Whether a runner with these labels fits any node at all.
pub fn is_placeable(labels: &str) -> bool {
    !labels.contains(UNPLACEABLE[0])
}
