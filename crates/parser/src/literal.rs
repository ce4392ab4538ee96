//! The values of literals: numbers as Go reads them, strings without their quotes.

use tidewatch_model::quote;

use crate::ast::{PosRange, StringLiteral};

/// Parses a number token: an integer in any of Go's bases (`0x1f`, `0o17`, `017`, `0b1`, `1_000`),
/// or else a float.
pub(crate) fn number(text: &str) -> Result<f64, String> {
    if let Some(value) = integer(text) {
        return Ok(value as f64);
    }
    let error = |why: &str| Err(format!("strconv.ParseFloat: parsing {}: {why}", quote(text)));
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let word = ["inf", "infinity", "nan"].iter().any(|word| unsigned.eq_ignore_ascii_case(word));
    if !word && !underscores_separate_digits(text) {
        return error("invalid syntax");
    }
    match text.replace('_', "").parse::<f64>() {
        Ok(value) if value.is_infinite() && !word => error("value out of range"),
        Ok(value) => Ok(value),
        Err(_) => error("invalid syntax"),
    }
}

/// An integer that fits 64 bits, with Go's prefixes. No sign: that is a token of its own.
fn integer(text: &str) -> Option<i64> {
    if !underscores_separate_digits(text) {
        return None;
    }
    let digits = text.replace('_', "").to_ascii_lowercase();
    let (digits, base) = match digits.as_bytes() {
        [b'0', b'x', ..] => (&digits[2..], 16),
        [b'0', b'o', ..] => (&digits[2..], 8),
        [b'0', b'b', ..] => (&digits[2..], 2),
        [b'0', _, ..] => (&digits[1..], 8),
        _ => (&*digits, 10),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    i64::from_str_radix(digits, base).ok()
}

/// Go's rule for `_`: between digits, or between a base's prefix and a digit.
fn underscores_separate_digits(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let bytes = lower.as_bytes();
    let prefixed = matches!(bytes, [b'0', b'x' | b'o' | b'b', ..]);
    let hex = lower.starts_with("0x");
    let start = if prefixed { 2 } else { 0 };
    let is_digit = |byte: u8| byte.is_ascii_digit() || hex && byte.is_ascii_hexdigit();
    // What stands before: a prefix counts as a digit.
    let mut after_digit = prefixed;
    let mut after_underscore = false;
    for byte in &bytes[start..] {
        match byte {
            b'_' if !after_digit => return false,
            b'_' => (after_digit, after_underscore) = (false, true),
            byte if is_digit(*byte) => (after_digit, after_underscore) = (true, false),
            _ if after_underscore => return false,
            _ => after_digit = false,
        }
    }
    !after_underscore
}

/// Takes the quotes off a string token and resolves its escapes. The lexer has checked them.
pub(crate) fn string(token: &str, pos: PosRange) -> StringLiteral {
    match String::from_utf8(unquoted(token)) {
        Ok(value) => StringLiteral { value, invalid_utf8: None, pos },
        Err(error) => {
            let value = String::from_utf8_lossy(error.as_bytes()).into_owned();
            StringLiteral { value, invalid_utf8: Some(error.into_bytes()), pos }
        }
    }
}

/// The text of a string token that names or matches labels: what is no UTF-8 becomes U+FFFD,
/// which no label has either.
pub(crate) fn unquote(token: &str) -> String {
    string(token, PosRange::default()).value
}

fn unquoted(token: &str) -> Vec<u8> {
    let body = &token[1..token.len() - 1];
    if token.starts_with('`') || !body.contains('\\') {
        return body.as_bytes().to_vec();
    }
    let mut out = Vec::with_capacity(body.len());
    let mut rest = body;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        rest = unescape(&rest[at + 1..], &mut out);
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

/// Resolves the escape whose backslash stood before `rest`, and gives what follows it.
fn unescape<'a>(rest: &'a str, out: &mut Vec<u8>) -> &'a str {
    let kind = rest.as_bytes()[0];
    let code = |range: std::ops::Range<usize>, base| {
        u32::from_str_radix(&rest[range], base).expect("checked by the lexer")
    };
    let (byte, len) = match kind {
        b'a' => (0x07, 1),
        b'b' => (0x08, 1),
        b'f' => (0x0c, 1),
        b'n' => (b'\n', 1),
        b'r' => (b'\r', 1),
        b't' => (b'\t', 1),
        b'v' => (0x0b, 1),
        b'0'..=b'7' => (code(0..3, 8) as u8, 3),
        b'x' => (code(1..3, 16) as u8, 3),
        b'u' | b'U' => {
            let len = if kind == b'u' { 5 } else { 9 };
            let c = char::from_u32(code(1..len, 16)).expect("checked by the lexer");
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            return &rest[len..];
        }
        literal => (literal, 1),
    };
    out.push(byte);
    &rest[len..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_go_reads_them() {
        for (text, value) in [
            ("1", 1.0),
            ("0xc", 12.0),
            ("0X_1F", 31.0),
            ("0755", 493.0),
            ("08", 8.0),
            ("1_000", 1000.0),
            ("5e-3", 0.005),
            ("1_0.2_5", 10.25),
            (".5", 0.5),
            ("3.", 3.0),
            ("Inf", f64::INFINITY),
            ("9223372036854775808", 9223372036854775808.0),
        ] {
            assert_eq!(number(text), Ok(value), "{text}");
        }
        assert!(number("NaN").is_ok_and(f64::is_nan));
        for (text, why) in
            [("1e309", "value out of range"), (".5.5", "invalid syntax"), ("1__0", "invalid syntax")]
        {
            assert_eq!(number(text), Err(format!("strconv.ParseFloat: parsing \"{text}\": {why}")));
        }
    }

    #[test]
    fn strings_lose_their_quotes_and_escapes() {
        for (token, value) in [
            (r#""a\"b""#, "a\"b"),
            (r"'it\'s'", "it's"),
            ("`\\n`", "\\n"),
            (r#""\a\b\f\n\r\t\v\\""#, "\x07\x08\x0c\n\r\t\x0b\\"),
            (r#""\x41\101\u00fc\U0001F600""#, "AAü😀"),
            (r#""\xff""#, "\u{fffd}"),
        ] {
            assert_eq!(unquote(token), value, "{token}");
        }
    }
}
