//! nomadtools' times: `1w2d3h4m5s`, each part optional, in that order; empty means off.

use std::time::Duration;

const UNITS: [(char, u64); 5] = [('w', 604_800), ('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)];

/// More is probably a mistake: a century, in seconds.
const MAX: u64 = 100 * 366 * 86_400;

/// Parses a time; `None` means off.
///
/// # Errors
/// The text does not have that format.
pub fn parse(text: &str) -> Result<Option<Duration>, String> {
    let bad = || {
        Err("not a time; write it like 10m or 1w2d3h4m5s: weeks, days, hours, minutes, seconds, in that order"
            .to_owned())
    };
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let mut units = UNITS.iter();
    let mut rest = text;
    let mut seconds = 0u64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let Ok(number) = number.parse::<u64>() else { return bad() };
        let mut characters = tail.chars();
        let unit = characters.next();
        // Continuing with the same iterator enforces the order and refuses repetitions.
        let Some((_, size)) = units.find(|(name, _)| Some(*name) == unit) else { return bad() };
        seconds = seconds.saturating_add(number.saturating_mul(*size));
        rest = characters.as_str();
    }
    if seconds > MAX {
        return Err("longer than a century; leave it empty to turn it off".to_owned());
    }
    Ok(Some(Duration::from_secs(seconds)))
}

/// Formats a time so that [`parse`] can read it, in whole seconds; empty for off.
pub fn format(duration: Option<Duration>) -> String {
    let Some(duration) = duration else { return String::new() };
    let mut seconds = duration.as_secs();
    let mut text = String::new();
    for (name, size) in UNITS {
        if seconds >= size {
            text.push_str(&format!("{}{name}", seconds / size));
            seconds %= size;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nomadtools_times() {
        let seconds = |text: &str| parse(text).unwrap().map(|duration| duration.as_secs());
        assert_eq!(seconds(""), None);
        assert_eq!(seconds("10m"), Some(600));
        assert_eq!(seconds("1w2d3h4m5s"), Some(604_800 + 2 * 86_400 + 3 * 3600 + 4 * 60 + 5));
        assert_eq!(seconds("0s"), Some(0));
        for bad in
            ["1 week", "5", "m", "1m1h", "1m1m", "-1m", "1.5h", "10M", "1w 2d", "999999999999999999999w"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse("18446744073709551615w").is_err());
    }

    #[test]
    fn formatted_times_can_be_parsed() {
        for seconds in [0, 1, 59, 60, 3601, 86_400, 694_861] {
            let duration = Some(Duration::from_secs(seconds));
            assert_eq!(parse(&format(duration)).unwrap(), duration);
        }
        assert_eq!(format(None), "");
    }
}
