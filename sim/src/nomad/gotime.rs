//! Go's format of durations and times.

use jiff::Timestamp;

/// Nanoseconds since the epoch, or a duration in nanoseconds.
pub type Nanos = i64;

/// Parses a duration such as `1h30m` into nanoseconds. The error is Go's own text.
pub fn parse(text: &str) -> Result<Nanos, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let scale = match &rest[..unit] {
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            "ns" => 1f64,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            other => return Err(format!("time: unknown unit {other:?} in duration {text:?}")),
        };
        total += number * scale;
        rest = &rest[unit..];
    }
    if total >= i64::MAX as f64 {
        return Err(invalid());
    }
    let total = total.round() as Nanos;
    Ok(if negative { -total } else { total })
}

/// Formats a duration like Go: `1h0m0s`, `1.5s`, `30ms`.
pub fn format(nanos: Nanos) -> String {
    let (sign, n) = (if nanos < 0 { "-" } else { "" }, nanos.unsigned_abs());
    let fraction = |value: u64, scale: u64| {
        let (whole, rest) = (value / scale, value % scale);
        if rest == 0 {
            return whole.to_string();
        }
        let width = scale.ilog10() as usize;
        let digits = format!("{rest:0width$}");
        format!("{whole}.{}", digits.trim_end_matches('0'))
    };
    let text = match n {
        0 => return "0s".into(),
        1..1_000 => format!("{n}ns"),
        1_000..1_000_000 => format!("{}µs", fraction(n, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", fraction(n, 1_000_000)),
        _ => {
            let minutes = n / 60_000_000_000;
            let seconds = fraction(n % 60_000_000_000, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, m) => format!("{m}m{seconds}s"),
                (h, m) => format!("{h}h{m}m{seconds}s"),
            }
        }
    };
    format!("{sign}{text}")
}

/// An instant in nanoseconds.
pub fn nanos(at: Timestamp) -> Nanos {
    Nanos::try_from(at.as_nanosecond()).unwrap_or(Nanos::MAX)
}

/// Nanoseconds as an instant.
pub fn timestamp(at: Nanos) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(at)).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_write_as_in_go() {
        for (text, nanos) in [
            ("15s", 15_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5s", 1_500_000_000),
            ("0", 0),
            ("-2ms", -2_000_000),
        ] {
            assert_eq!(parse(text), Ok(nanos));
        }
        assert_eq!(parse("5"), Err("time: missing unit in duration \"5\"".into()));
        assert_eq!(parse("x"), Err("time: invalid duration \"x\"".into()));
        for (nanos, text) in [
            (0, "0s"),
            (3_000_000_000, "3s"),
            (86_400_000_000_000, "24h0m0s"),
            (1_125_463_750, "1.12546375s"),
            (3_598_716_193_516, "59m58.716193516s"),
            (10, "10ns"),
            (-2_500_000, "-2.5ms"),
        ] {
            assert_eq!(format(nanos), text);
        }
        assert_eq!(timestamp(1_795_476_404_400_802_180).to_string(), "2026-11-23T23:26:44.40080218Z");
    }
}
