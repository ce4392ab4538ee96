//! A writer of JSON as Prometheus' API shapes it, into a byte buffer.
//!
//! Values are written as they come and nothing is built in between. Commas are the writer's
//! business: what was written last says whether one is due.

use tidewatch_model::Labels;

/// Appends JSON to a buffer.
pub(crate) struct Json<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Json<'a> {
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Json<'a> {
        Json { out }
    }

    pub(crate) fn object(&mut self, fields: impl FnOnce(&mut Json<'_>)) {
        self.comma();
        self.out.push(b'{');
        fields(&mut Json { out: self.out });
        self.out.push(b'}');
    }

    pub(crate) fn array<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut item: impl FnMut(&mut Json<'_>, T),
    ) {
        self.comma();
        self.out.push(b'[');
        for value in items {
            item(&mut Json { out: self.out }, value);
        }
        self.out.push(b']');
    }

    /// An array of values that differ in kind.
    pub(crate) fn list(&mut self, values: impl FnOnce(&mut Json<'_>)) {
        self.comma();
        self.out.push(b'[');
        values(&mut Json { out: self.out });
        self.out.push(b']');
    }

    /// A field's name; its value is what is written next.
    pub(crate) fn key(&mut self, name: &str) -> &mut Self {
        self.comma();
        push_string(self.out, name);
        self.out.push(b':');
        self
    }

    pub(crate) fn string(&mut self, text: &str) {
        self.comma();
        push_string(self.out, text);
    }

    pub(crate) fn integer(&mut self, value: impl itoa::Integer) {
        self.comma();
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.comma();
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    pub(crate) fn null(&mut self) {
        self.comma();
        self.out.extend_from_slice(b"null");
    }

    /// A number. JSON has no way to write what is not finite; `null` stands for it.
    pub(crate) fn number(&mut self, value: f64) {
        self.comma();
        if value.is_finite() {
            push_float(self.out, value);
        } else {
            self.out.extend_from_slice(b"null");
        }
    }

    /// A float as the API writes sample values: a string.
    pub(crate) fn float(&mut self, value: f64) {
        self.comma();
        self.out.push(b'"');
        push_float(self.out, value);
        self.out.push(b'"');
    }

    /// Milliseconds as seconds with up to three digits behind the point.
    pub(crate) fn timestamp(&mut self, timestamp_ms: i64) {
        self.comma();
        push_timestamp(self.out, timestamp_ms);
    }

    pub(crate) fn labels(&mut self, labels: &Labels) {
        self.pairs(labels.iter());
    }

    pub(crate) fn pairs<'b>(&mut self, pairs: impl IntoIterator<Item = (&'b str, &'b str)>) {
        self.object(|json| {
            for (name, value) in pairs {
                json.key(name).string(value);
            }
        });
    }

    pub(crate) fn strings<S: AsRef<str>>(&mut self, texts: impl IntoIterator<Item = S>) {
        self.array(texts, |json, text| json.string(text.as_ref()));
    }

    /// A comma, unless this is the first thing in its brackets or the value of a key.
    fn comma(&mut self) {
        if !matches!(self.out.last(), None | Some(b'{' | b'[' | b':' | b',')) {
            self.out.push(b',');
        }
    }
}

/// A JSON string. As Go's encoder does, `<`, `>`, `&` and the two line separators of Unicode are
/// escaped, so that an answer is safe wherever it is pasted.
fn push_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut copied = 0;
    for (index, &byte) in bytes.iter().enumerate() {
        let separator = byte == 0xe2 && matches!(bytes[index..], [_, 0x80, 0xa8 | 0xa9, ..]);
        if byte >= 0x20 && !matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&') && !separator {
            continue;
        }
        out.extend_from_slice(&bytes[copied..index]);
        copied = index + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0xe2 => {
                out.extend_from_slice(if bytes[index + 2] == 0xa8 { b"\\u2028" } else { b"\\u2029" });
                copied = index + 3;
            }
            _ => out.extend_from_slice(&[
                b'\\',
                b'u',
                b'0',
                b'0',
                HEX[usize::from(byte >> 4)],
                HEX[usize::from(byte & 15)],
            ]),
        }
    }
    out.extend_from_slice(&bytes[copied..]);
    out.push(b'"');
}

pub(crate) fn push_timestamp(out: &mut Vec<u8>, timestamp_ms: i64) {
    if timestamp_ms < 0 {
        out.push(b'-');
    }
    let magnitude = timestamp_ms.unsigned_abs();
    out.extend_from_slice(itoa::Buffer::new().format(magnitude / 1000).as_bytes());
    let fraction = (magnitude % 1000) as u16;
    if fraction != 0 {
        let digits = [fraction / 100, fraction / 10 % 10, fraction % 10];
        out.push(b'.');
        out.extend(digits.map(|digit| b'0' + digit as u8));
    }
}

/// Shortest digits that read back equal; an exponent below 1e-6 and from 1e21 on, with at least
/// two digits, as Go's encoder of JSON chooses.
pub(crate) fn push_float(out: &mut Vec<u8>, value: f64) {
    // Most values are whole: counters, sizes, states.
    let whole = value as i64;
    if whole as f64 == value && whole.unsigned_abs() < 1 << 53 && (whole != 0 || value.is_sign_positive()) {
        out.extend_from_slice(itoa::Buffer::new().format(whole).as_bytes());
        return;
    }
    if !value.is_finite() {
        let text: &[u8] = match () {
            () if value.is_nan() => b"NaN",
            () if value > 0.0 => b"+Inf",
            () => b"-Inf",
        };
        out.extend_from_slice(text);
        return;
    }
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(value);
    let magnitude = value.abs();
    let scientific = magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude);
    if !scientific && !text.contains('e') {
        out.extend_from_slice(text.strip_suffix(".0").unwrap_or(text).as_bytes());
        return;
    }
    push_decimal(out, text, scientific);
}

/// Exponent form as Go's `FormatFloat(value, 'e', -1, 64)`, which the API uses for alerts' values.
pub(crate) fn push_scientific(out: &mut Vec<u8>, value: f64) {
    if value.is_finite() {
        push_decimal(out, zmij::Buffer::new().format_finite(value), true);
    } else {
        push_float(out, value);
    }
}

/// As Go's `FormatFloat(value, 'g', -1, 64)`, which the text format uses: an exponent below 1e-4
/// and from 1e6 on.
pub(crate) fn push_general(out: &mut Vec<u8>, value: f64) {
    let magnitude = value.abs();
    if value.is_finite() && magnitude != 0.0 && !(1e-4..1e6).contains(&magnitude) {
        push_scientific(out, value);
    } else {
        push_float(out, value);
    }
}

/// Writes a decimal in whatever form it is, with or without an exponent, in the form wanted.
fn push_decimal(out: &mut Vec<u8>, text: &str, scientific: bool) {
    let (sign, text) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (before, after) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all: Vec<u8> = before.bytes().chain(after.bytes()).collect();
    let zeroes = all.iter().take_while(|digit| **digit == b'0').count();
    let digits = &all[zeroes..];
    let end = digits.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
    let digits = &digits[..end];
    // The value is 0.DIGITS × 10^point.
    let point = before.len() as i32 - zeroes as i32 + exponent.parse::<i32>().unwrap_or(0);

    out.extend_from_slice(sign.as_bytes());
    if digits.is_empty() {
        out.extend_from_slice(if scientific { b"0e+00" } else { b"0" });
    } else if scientific {
        out.push(digits[0]);
        if digits.len() > 1 {
            out.push(b'.');
            out.extend_from_slice(&digits[1..]);
        }
        let exponent = point - 1;
        out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
        out.extend_from_slice(format!("{:02}", exponent.unsigned_abs()).as_bytes());
    } else if point <= 0 {
        out.extend_from_slice(b"0.");
        out.resize(out.len() + point.unsigned_abs() as usize, b'0');
        out.extend_from_slice(digits);
    } else if point as usize >= digits.len() {
        out.extend_from_slice(digits);
        out.resize(out.len() + point as usize - digits.len(), b'0');
    } else {
        out.extend_from_slice(&digits[..point as usize]);
        out.push(b'.');
        out.extend_from_slice(&digits[point as usize..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Json<'_>)) -> String {
        let mut out = Vec::new();
        write(&mut Json::new(&mut out));
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    #[test]
    fn floats_are_written_as_go_writes_them_in_json() {
        let cases = [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-17.0, "-17"),
            (0.1, "0.1"),
            (123456.789, "123456.789"),
            (0.000001, "0.000001"),
            (0.0000012345, "0.0000012345"),
            (0.00000099, "9.9e-07"),
            (1e15, "1000000000000000"),
            (1e20, "100000000000000000000"),
            (123456789012345680000.0, "123456789012345680000"),
            (1e21, "1e+21"),
            (1.5e300, "1.5e+300"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ];
        for (value, text) in cases {
            assert_eq!(written(|json| json.float(value)), format!("\"{text}\""));
        }
    }

    #[test]
    fn every_float_reads_back_equal() {
        let mut bits = 0x9e37_79b9_7f4a_7c15u64;
        for _ in 0..20_000 {
            bits = bits.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            for value in [f64::from_bits(bits), (bits >> 20) as f64 / 1e4, (bits >> 40) as f64 * 1e-9] {
                if !value.is_finite() {
                    continue;
                }
                let mut text = Vec::new();
                push_float(&mut text, value);
                let mut alert = Vec::new();
                push_scientific(&mut alert, value);
                for text in [text, alert] {
                    let text = String::from_utf8(text).expect("ASCII");
                    assert_eq!(text.parse::<f64>().map(f64::to_bits), Ok(value.to_bits()), "{text}");
                }
            }
        }
    }

    #[test]
    fn alert_values_have_an_exponent_always() {
        for (value, text) in [
            (1.0, "1e+00"),
            (0.0, "0e+00"),
            (-2.5, "-2.5e+00"),
            (12345.0, "1.2345e+04"),
            (f64::INFINITY, "+Inf"),
        ] {
            let mut out = Vec::new();
            push_scientific(&mut out, value);
            assert_eq!(String::from_utf8(out).expect("ASCII"), text);
        }
    }

    #[test]
    fn timestamps_are_seconds_with_milliseconds_only_where_there_are_some() {
        for (ms, text) in [
            (0, "0"),
            (1_000, "1"),
            (1_435_781_451_781, "1435781451.781"),
            (1_005, "1.005"),
            (1_050, "1.050"),
            (-1_500, "-1.500"),
            (-1, "-0.001"),
        ] {
            assert_eq!(written(|json| json.timestamp(ms)), text);
        }
    }

    #[test]
    fn strings_are_escaped_and_commas_stand_between_values_only() {
        let text = written(|json| {
            json.object(|json| {
                json.key("a\"<\n\u{1}\u{2028}é").string("x,");
                json.key("list").array([1, 2], |json, n| json.integer(n));
                json.key("empty").object(|_| {});
                json.key("none").null();
                json.key("pairs").pairs([("b", "1"), ("c", "{")]);
            });
        });
        assert_eq!(
            text,
            "{\"a\\\"\\u003c\\n\\u0001\\u2028é\":\"x,\",\"list\":[1,2],\"empty\":{},\"none\":null,\"pairs\":{\"b\":\"1\",\"c\":\"{\"}}"
        );
    }
}
