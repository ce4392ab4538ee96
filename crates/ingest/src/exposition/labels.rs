//! Label text: escapes, and numbers that are spelled in one way.

use std::borrow::Cow;

use tidewatch_model::MetricType;

use super::{go, number};

/// Undoes `\"`, `\\` and `\n`; any other backslash stands for itself.
pub(super) fn unescape(text: &str) -> Cow<'_, str> {
    unescape_with(text, true)
}

/// Undoes `\\` and `\n` in a help text of the Prometheus format.
pub(super) fn unescape_help(text: &str) -> Cow<'_, str> {
    unescape_with(text, false)
}

fn unescape_with(text: &str, quotes: bool) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let replaced = match rest.as_bytes().get(at + 1) {
            Some(b'\\') => "\\",
            Some(b'n') => "\n",
            Some(b'"') if quotes => "\"",
            _ => {
                out.push('\\');
                rest = &rest[at + 1..];
                continue;
            }
        };
        out.push_str(replaced);
        rest = &rest[at + 2..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Spells the bounds of classic histograms and the quantiles of summaries in one way, so that
/// `le="1"` and `le="1.0"` are one series whichever format a target speaks.
pub(super) fn normalize<'a>(kind: MetricType, name: &str, value: Cow<'a, str>) -> Cow<'a, str> {
    let is_number = matches!((kind, name), (MetricType::Summary, "quantile") | (MetricType::Histogram, "le"));
    if !is_number {
        return value;
    }
    match number::parse_float(value.as_bytes()) {
        Ok(number) => Cow::Owned(go::openmetrics_float(number)),
        Err(_) => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone_once() {
        assert_eq!(unescape(r#"a\"b\\n\nc\td\"#), "a\"b\\n\nc\\td\\");
        assert_eq!(unescape_help(r#"a\"b\\n\nc"#), "a\\\"b\\n\nc");
    }
}
