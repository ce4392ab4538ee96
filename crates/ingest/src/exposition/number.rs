//! Sample values and timestamps: what Go's parsers accept, at the speed of fast-float.

use super::go;

/// Parses as Go's `ParseFloat` did before 1.13: no hexadecimal exponents, no underscores.
pub(super) fn parse_float(text: &[u8]) -> Result<f64, String> {
    if text.iter().any(|byte| matches!(byte, b'p' | b'P' | b'_')) {
        return Err("unsupported character in float".to_owned());
    }
    let unsigned = text.strip_prefix(b"+").or(text.strip_prefix(b"-")).unwrap_or(text);
    match unsigned.first() {
        Some(b'0'..=b'9' | b'.') => {}
        Some(b'i' | b'I' | b'n' | b'N') => return special(text, unsigned),
        _ => return Err(syntax_error("ParseFloat", text)),
    }
    // fast-float takes no leading plus.
    let digits = if text[0] == b'+' { unsigned } else { text };
    let value: f64 = fast_float2::parse(digits).map_err(|_| syntax_error("ParseFloat", text))?;
    if value.is_infinite() {
        return Err(range_error("ParseFloat", text));
    }
    Ok(value)
}

/// Infinities, signed or not, and NaN, which has no sign; in any case.
fn special(text: &[u8], unsigned: &[u8]) -> Result<f64, String> {
    if unsigned.eq_ignore_ascii_case(b"inf") || unsigned.eq_ignore_ascii_case(b"infinity") {
        return Ok(if text[0] == b'-' { f64::NEG_INFINITY } else { f64::INFINITY });
    }
    if text.eq_ignore_ascii_case(b"nan") {
        return Ok(f64::NAN);
    }
    Err(syntax_error("ParseFloat", text))
}

/// Parses decimal digits to an `i64`.
pub(super) fn parse_int(digits: &[u8]) -> Result<i64, String> {
    digits
        .iter()
        .try_fold(0i64, |value, digit| value.checked_mul(10)?.checked_add(i64::from(digit - b'0')))
        .ok_or_else(|| range_error("ParseInt", digits))
}

fn syntax_error(function: &str, text: &[u8]) -> String {
    format!("strconv.{function}: parsing {}: invalid syntax", go::quote(text))
}

fn range_error(function: &str, text: &[u8]) -> String {
    format!("strconv.{function}: parsing {}: value out of range", go::quote(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_read_as_go_reads_them() {
        for (text, value) in [
            ("1", 1.0),
            ("+1.5", 1.5),
            ("-.5", -0.5),
            ("5.", 5.0),
            ("1E+3", 1000.0),
            ("1e-400", 0.0),
            ("Inf", f64::INFINITY),
            ("+infinity", f64::INFINITY),
            ("-INF", f64::NEG_INFINITY),
        ] {
            assert_eq!(parse_float(text.as_bytes()), Ok(value), "{text}");
        }
        assert!(parse_float(b"nAn").unwrap().is_nan());
        for text in ["", "+", ".", "1e", "+NaN", "-nan", "++1", "0x1", "1z", "infx", "--1", "+-1", "e5"] {
            let message = format!("strconv.ParseFloat: parsing {text:?}: invalid syntax");
            assert_eq!(parse_float(text.as_bytes()), Err(message));
        }
        assert_eq!(
            parse_float(b"-1e999").unwrap_err(),
            "strconv.ParseFloat: parsing \"-1e999\": value out of range"
        );
        assert_eq!(parse_float(b"1_0").unwrap_err(), "unsupported character in float");
        assert_eq!(parse_int(b"9223372036854775807"), Ok(i64::MAX));
        assert_eq!(
            parse_int(b"9223372036854775808").unwrap_err(),
            "strconv.ParseInt: parsing \"9223372036854775808\": value out of range"
        );
    }

    proptest! {
        // The standard library is the oracle wherever the two grammars agree.
        #[test]
        fn decimal_numbers_read_as_the_standard_library_reads_them(text in "[+-]?[0-9.]{0,25}([eE][+-]?[0-9]{0,3})?") {
            let expected = text.parse::<f64>().ok().filter(|value| value.is_finite());
            prop_assert_eq!(parse_float(text.as_bytes()).ok().map(f64::to_bits), expected.map(f64::to_bits));
        }
    }
}
