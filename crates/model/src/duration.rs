//! Durations as Prometheus writes them: `1h30m`, `15s`, `1d`.

use std::fmt;

use crate::quote;

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DurationError {
    /// In Prometheus' words: `not a valid duration string: "x"`, `duration out of range`.
    pub message: String,
}

impl fmt::Display for DurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for DurationError {}

/// Units in the only order in which they may follow each other, with their milliseconds.
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Parses a Prometheus duration to milliseconds. `0` needs no unit; units must descend and
/// appear once; the sum must fit Go's `time.Duration` (about 292 years).
pub fn parse_duration_ms(text: &str) -> Result<i64, DurationError> {
    let invalid = || DurationError { message: format!("not a valid duration string: {}", quote(text)) };
    let overflow = || DurationError { message: "duration out of range".to_owned() };
    match text {
        "" => return Err(DurationError { message: "empty duration string".to_owned() }),
        "0" => return Ok(0),
        _ => {}
    }
    let mut rest = text;
    let mut units = UNITS.iter();
    let mut total_ms = 0u64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let unit_len = rest[digits..].bytes().take_while(|byte| !byte.is_ascii_digit()).count();
        let (number, unit) = (&rest[..digits], &rest[digits..digits + unit_len]);
        if digits == 0 || unit_len == 0 {
            return Err(invalid());
        }
        // Go's parser calls a number beyond 64 bits invalid, not out of range.
        let number = number.parse::<u64>().map_err(|_| invalid())?;
        if !UNITS.iter().any(|(name, _)| *name == unit) {
            let message = format!("unknown unit {} in duration {}", quote(unit), quote(text));
            return Err(DurationError { message });
        }
        let (_, unit_ms) = units.by_ref().find(|(name, _)| *name == unit).ok_or_else(invalid)?;
        let part_ms = number.checked_mul(*unit_ms).ok_or_else(overflow)?;
        total_ms = total_ms.checked_add(part_ms).ok_or_else(overflow)?;
        rest = &rest[digits + unit_len..];
    }
    // Go counts nanoseconds in an i64.
    if total_ms > i64::MAX as u64 / 1_000_000 {
        return Err(overflow());
    }
    Ok(total_ms as i64)
}

/// Parses a duration that may be negative, as some fields of rule files allow.
pub fn parse_signed_duration_ms(text: &str) -> Result<i64, DurationError> {
    match text.strip_prefix('-') {
        Some(positive) => Ok(-parse_duration_ms(positive)?),
        None => parse_duration_ms(text),
    }
}

/// Formats milliseconds as Prometheus does: `0s`, `1h30m`; years and weeks only where they
/// divide the whole exactly, since `90d` reads better than `12w6d`.
pub fn format_duration(duration_ms: i64) -> String {
    if duration_ms == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    let mut rest = duration_ms.unsigned_abs();
    if duration_ms < 0 {
        text.push('-');
    }
    for (name, unit_ms) in UNITS {
        let exact_only = matches!(name, "y" | "w");
        if rest < unit_ms || exact_only && !rest.is_multiple_of(unit_ms) {
            continue;
        }
        text.push_str(&format!("{}{name}", rest / unit_ms));
        rest %= unit_ms;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print() {
        for (text, ms, printed) in [
            ("0", 0, "0s"),
            ("1h30m", 5_400_000, "1h30m"),
            ("90m", 5_400_000, "1h30m"),
            ("1d", 86_400_000, "1d"),
            ("36h", 129_600_000, "1d12h"),
            ("10ms", 10, "10ms"),
            ("1y1w", (365 + 7) * 86_400_000, "372d"),
        ] {
            assert_eq!(parse_duration_ms(text), Ok(ms), "{text}");
            assert_eq!(format_duration(ms), printed, "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_in_prometheus_words() {
        for (text, message) in [
            ("", "empty duration string"),
            ("1", "not a valid duration string: \"1\""),
            ("1m1h", "not a valid duration string: \"1m1h\""),
            ("1.5d", "unknown unit \".\" in duration \"1.5d\""),
            ("5y1hs", "unknown unit \"hs\" in duration \"5y1hs\""),
            ("99999999999999999999s", "not a valid duration string: \"99999999999999999999s\""),
            ("-15d", "not a valid duration string: \"-15d\""),
            ("294y", "duration out of range"),
        ] {
            assert_eq!(parse_duration_ms(text).unwrap_err().message, message, "{text}");
        }
    }
}
