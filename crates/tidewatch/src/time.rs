//! Times as people and APIs write them.

use jiff::Timestamp;

/// Milliseconds since the epoch, for the command line; the server has its environment's clock.
pub fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

/// `2026-11-23T22:30:19.123Z` for milliseconds since the epoch.
pub fn rfc3339(at_ms: i64) -> String {
    Timestamp::from_millisecond(at_ms).map_or_else(|_| at_ms.to_string(), |time| format!("{time:.3}"))
}

/// Milliseconds of an RFC 3339 time or of seconds since the epoch, as `--time` takes them.
pub fn parse(text: &str) -> Option<i64> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Some((seconds * 1000.0).round() as i64);
    }
    text.parse::<Timestamp>().ok().map(Timestamp::as_millisecond)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_print_and_read_back() {
        let text = rfc3339(1_353_755_652_120);
        assert_eq!(text, "2012-11-24T11:14:12.120Z");
        assert_eq!(parse(&text), Some(1_353_755_652_120));
        assert_eq!(parse("12.5"), Some(12_500));
        assert_eq!(parse("yesterday"), None);
    }
}
