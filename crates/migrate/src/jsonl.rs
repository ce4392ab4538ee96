//! VictoriaMetrics' export form: a line of JSON for each series, or part of one.
//!
//! ```text
//! {"metric":{"__name__":"up","job":"api"},"values":[1,0.5,null,"Infinity"],"timestamps":[1000,2000,3000,4000]}
//! ```
//!
//! Times are milliseconds. VictoriaMetrics stores no NaN but the staleness marker, and writes that
//! as `null`, or as `NaN` where an export has `max_rows_per_line`; so both are the marker here too, and
//! another NaN is the text `"NaN"`. Its infinities are `+Inf` and `-Inf`, which no JSON parser reads: such a line
//! is read once more with these as texts.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};
use tidewatch_model::{Labels, STALE_NAN, format_general, is_stale};

/// The samples of a line.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    pub labels: Labels,
    pub times: Vec<i64>,
    pub values: Vec<f64>,
}

#[derive(Deserialize)]
struct Wire {
    metric: BTreeMap<String, String>,
    values: Vec<Number>,
    timestamps: Vec<i64>,
}

struct Number(f64);

/// Reads a line. `None` where it is empty.
pub fn read(line: &[u8]) -> Result<Option<Line>, String> {
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let parsed: Result<Wire, _> = serde_json::from_slice(line);
    let wire = parsed.or_else(|error| serde_json::from_slice(&with_quoted_words(line)).map_err(|_| error));
    // The line that the JSON parser counts is always the first.
    let wire = wire.map_err(|error| error.to_string().replace("at line 1 column", "at column"))?;
    if wire.values.len() != wire.timestamps.len() {
        let (values, times) = (wire.values.len(), wire.timestamps.len());
        return Err(format!("{values} values have {times} timestamps"));
    }
    let values = wire.values.into_iter().map(|number| number.0).collect();
    Ok(Some(Line { labels: Labels::from_pairs(wire.metric), times: wire.timestamps, values }))
}

/// The line with its numbers that are no JSON as texts, and `NaN` as `null`.
fn with_quoted_words(line: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(line.len() + 64);
    let (mut rest, mut is_text) = (line, false);
    while let Some(&byte) = rest.first() {
        let len = match byte {
            // A quote in a text stands behind a backslash.
            b'\\' if is_text => 2.min(rest.len()),
            b'+' | b'-' | b'A'..=b'Z' | b'a'..=b'z' if !is_text => {
                let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
                rest.iter().position(|byte| !is_word(byte)).unwrap_or(rest.len())
            }
            b'"' => {
                is_text = !is_text;
                1
            }
            _ => 1,
        };
        let (piece, behind) = rest.split_at(len);
        match piece {
            b"NaN" => out.extend_from_slice(b"null"),
            b"Inf" | b"+Inf" | b"-Inf" => out.extend([b"\"", piece, b"\""].concat()),
            _ => out.extend_from_slice(piece),
        }
        rest = behind;
    }
    out
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Number, D::Error> {
        deserializer.deserialize_any(NumberVisitor)
    }
}

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, null, \"NaN\", \"Infinity\" or \"-Infinity\"")
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Number, E> {
        Ok(Number(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Number, E> {
        Ok(Number(value as f64))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Number, E> {
        Ok(Number(value as f64))
    }

    fn visit_unit<E: Error>(self) -> Result<Number, E> {
        Ok(Number(STALE_NAN))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Number, E> {
        Ok(Number(match text.to_ascii_lowercase().as_str() {
            "nan" => f64::NAN,
            "infinity" | "+infinity" | "inf" | "+inf" => f64::INFINITY,
            "-infinity" | "-inf" => f64::NEG_INFINITY,
            _ => return Err(E::custom(format!("{text:?} is no value"))),
        }))
    }
}

/// Samples of a line that we write: some 200 KiB, well below VictoriaMetrics' limit of 10 MB.
pub const LINE_SAMPLES: usize = 10_000;

/// What releases of VictoriaMetrics differ in: older ones leave out a line that has something else than numbers.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Number,
    Null,
    Text,
}

impl Kind {
    fn of(value: f64) -> Kind {
        match value {
            value if is_stale(value) => Kind::Null,
            value if value.is_finite() => Kind::Number,
            _ => Kind::Text,
        }
    }
}

/// Appends the lines of a run of one series. Values of each kind have lines of their own.
pub fn write(out: &mut String, labels: &Labels, times: &[i64], values: &[f64]) {
    assert_eq!(times.len(), values.len(), "columns of one run are equally long");
    for (times, values) in times.chunks(LINE_SAMPLES).zip(values.chunks(LINE_SAMPLES)) {
        for kind in [Kind::Number, Kind::Null, Kind::Text] {
            let samples = times.iter().zip(values).filter(|(_, value)| Kind::of(**value) == kind);
            write_line(out, labels, samples);
        }
    }
}

fn write_line<'a>(
    out: &mut String,
    labels: &Labels,
    samples: impl Iterator<Item = (&'a i64, &'a f64)> + Clone,
) {
    if samples.clone().next().is_none() {
        return;
    }
    let pairs = labels.iter().map(|(name, value)| format!("{}:{}", quoted(name), quoted(value)));
    let values = samples.clone().map(|(_, value)| number(*value));
    let times = samples.map(|(time, _)| time.to_string());
    out.push_str("{\"metric\":{");
    push_list(out, pairs);
    out.push_str("},\"values\":[");
    push_list(out, values);
    out.push_str("],\"timestamps\":[");
    push_list(out, times);
    out.push_str("]}\n");
}

fn push_list(out: &mut String, items: impl Iterator<Item = String>) {
    for (at, item) in items.enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(&item);
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text is always JSON")
}

fn number(value: f64) -> String {
    match value {
        value if is_stale(value) => "null".to_owned(),
        value if value.is_nan() => "\"NaN\"".to_owned(),
        f64::INFINITY => "\"Infinity\"".to_owned(),
        f64::NEG_INFINITY => "\"-Infinity\"".to_owned(),
        value => format_general(value),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_of_an_export_reads() {
        let line = br#"{"metric":{"__name__":"up","job":"a\"b"},"values":[1,-0.5,null,"Infinity"],"timestamps":[1,2,3,4]}"#;
        let line = read(line).expect("good").expect("a line");
        assert_eq!(line.labels.to_string(), r#"{__name__="up", job="a\"b"}"#);
        assert_eq!(line.times, [1, 2, 3, 4]);
        assert_eq!(line.values[..2], [1.0, -0.5]);
        assert!(is_stale(line.values[2]) && line.values[3] == f64::INFINITY);
        assert_eq!(read(b" \n"), Ok(None));
    }

    #[test]
    fn infinities_as_victoria_metrics_writes_them_are_read() {
        let line = br#"{"metric":{"__name__":"a +Inf","b":"\",NaN,"},"values":[1,+Inf,-Inf,NaN,-2e-3,"NaN"],"timestamps":[1,2,3,4,5,6]}"#;
        let line = read(line).expect("good").expect("a line");
        assert_eq!(line.labels.to_string(), r#"{__name__="a +Inf", b="\",NaN,"}"#);
        assert_eq!(line.values[..3], [1.0, f64::INFINITY, f64::NEG_INFINITY]);
        assert!(is_stale(line.values[3]) && line.values[5].is_nan() && !is_stale(line.values[5]));
        assert_eq!(line.values[4], -0.002);
    }

    #[test]
    fn values_that_are_no_numbers_have_a_line_of_their_own() {
        let mut text = String::new();
        let values = [1.0, f64::INFINITY, STALE_NAN, f64::NAN, 0.1];
        write(&mut text, &Labels::from_pairs([("__name__", "up")]), &[1, 2, 3, 4, 5], &values);
        let expected = r#"
{"metric":{"__name__":"up"},"values":[1,0.1],"timestamps":[1,5]}
{"metric":{"__name__":"up"},"values":[null],"timestamps":[3]}
{"metric":{"__name__":"up"},"values":["Infinity","NaN"],"timestamps":[2,4]}
"#;
        assert_eq!(text, expected.trim_start());
    }

    #[test]
    fn a_bad_line_says_what_and_where() {
        for (line, reason) in [
            ("{\"metric\":{},\"values\":[1],\"timestamps\":[]}", "1 values have 0 timestamps"),
            ("{\"metric\":{},\"values\":[\"x\"],\"timestamps\":[1]}", "\"x\" is no value at column 26"),
            ("{\"metric\":{\"a\":1},", "invalid type: integer `1`, expected a string at column 16"),
            ("{\"metric\":{},\"values\":[+Inf,+1],\"timestamps\":[1]}", "expected value at column 24"),
            ("{\"values\":[],\"timestamps\":[]}", "missing field `metric` at column 29"),
        ] {
            assert_eq!(read(line.as_bytes()).expect_err(line), reason);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_to_the_bit(
            pairs in proptest::collection::btree_map("\\PC{1,4}", "[^\\x00]{1,6}", 0..4),
            samples in proptest::collection::vec((any::<i64>(), any::<u64>()), 1..50),
        ) {
            let labels = Labels::from_pairs(pairs);
            let (times, values): (Vec<i64>, Vec<f64>) =
                samples.iter().map(|(time, bits)| (*time, f64::from_bits(*bits))).unzip();
            let mut text = String::new();
            write(&mut text, &labels, &times, &values);
            let mut samples = Vec::new();
            for line in text.lines() {
                let Line { labels: read, times, values } = read(line.as_bytes()).expect("good").expect("a line");
                prop_assert_eq!(&read, &labels);
                samples.extend(times.into_iter().zip(values));
            }
            let is_text = |value: f64| !value.is_finite() && !is_stale(value);
            let written = times.iter().copied().zip(values.iter().copied());
            let (texts, numbers): (Vec<_>, Vec<_>) = written.partition(|(_, value)| is_text(*value));
            prop_assert_eq!(samples.len(), times.len());
            for (read, written) in samples.iter().zip(numbers.iter().chain(&texts)) {
                prop_assert_eq!(read.0, written.0);
                prop_assert!(read.1.to_bits() == written.1.to_bits() || read.1.is_nan() && written.1.is_nan());
                prop_assert_eq!(is_stale(read.1), is_stale(written.1));
            }
        }

        #[test]
        fn any_line_is_read_or_refused(line in any::<Vec<u8>>()) {
            let _ = read(&line);
        }
    }
}
