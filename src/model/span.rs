//! Durations for display.

use std::time::Duration;

/// A duration for display, with at most two units: `1d2h`, `3m5s`, `0s`.
pub fn span(duration: Duration) -> String {
    let mut seconds = duration.as_secs();
    let mut text = String::new();
    let mut units = 0;
    for (unit, size) in [("w", 604_800), ("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)] {
        if seconds >= size && units < 2 {
            text.push_str(&format!("{}{unit}", seconds / size));
            units += 1;
        }
        seconds %= size;
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}
