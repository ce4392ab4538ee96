//! Go's spelling of texts and numbers, in which Prometheus' messages and label values are written.

use std::fmt::Write;

use super::lexer::SHOWN_BYTES_MAX;

/// `%q` of bytes that need not be UTF-8, cut where they are too many to show.
pub(super) fn quote(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(SHOWN_BYTES_MAX)];
    let mut text = String::with_capacity(shown.len() + 2);
    text.push('"');
    for chunk in shown.utf8_chunks() {
        let quoted = tidewatch_model::quote(chunk.valid());
        text.push_str(&quoted[1..quoted.len() - 1]);
        for byte in chunk.invalid() {
            write!(text, "\\x{byte:02x}").expect("writing to a string succeeds");
        }
    }
    if shown.len() < bytes.len() {
        text.push('…');
    }
    text.push('"');
    text
}

/// A bucket's bound or a quantile as OpenMetrics spells it: `1` is `1.0`, large and small ones
/// have an exponent of two digits.
pub(super) fn openmetrics_float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    if value == 0.0 {
        return "0.0".to_owned();
    }
    // The shortest digits that read back equal: d.ddde±x.
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').expect("the format has an exponent");
    let exponent: i32 = exponent.parse().expect("the exponent is a small number");
    if !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    let plain = value.to_string();
    if plain.contains('.') { plain } else { plain + ".0" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_as_go_quotes_them() {
        for (bytes, quoted) in [
            (&b"a\"b\\c\n\t\x07\0\x7f"[..], r#""a\"b\\c\n\t\a\x00\x7f""#),
            (b"\xff ok \xc3", r#""\xff ok \xc3""#),
            (&[b'a'; 1025], &format!("\"{}…\"", "a".repeat(1024))),
            ("Björn 佖 \u{200b}\u{a0}".as_bytes(), "\"Björn 佖 \\u200b\\u00a0\""),
        ] {
            assert_eq!(quote(bytes), quoted);
        }
    }

    #[test]
    fn bounds_are_spelled_as_openmetrics_spells_them() {
        for (value, text) in [
            (1.0, "1.0"),
            (0.0, "0.0"),
            (-1.0, "-1.0"),
            (0.25, "0.25"),
            (17.0, "17.0"),
            (100_000.0, "100000.0"),
            (1e6, "1e+06"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1_234_567.0, "1.234567e+06"),
            (1.5e300, "1.5e+300"),
            (f64::INFINITY, "+Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(openmetrics_float(value), text);
        }
    }
}
