//! VictoriaMetrics' export form: a line of JSON for each series, or part of one.
//!
//! ```text
//! {"metric":{"__name__":"up","job":"api"},"values":[1,0.5,null,"Infinity"],"timestamps":[1000,2000,3000,4000]}
//! ```
//!
//! Times are milliseconds. VictoriaMetrics stores no NaN but the staleness marker, and writes that
//! as `null`; so `null` is the marker here too, and another NaN is the text `"NaN"`.

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
    let wire: Wire = serde_json::from_slice(line).map_err(|error| {
        // The line that the JSON parser counts is always the first.
        error.to_string().replace("at line 1 column", "at column")
    })?;
    if wire.values.len() != wire.timestamps.len() {
        let (values, times) = (wire.values.len(), wire.timestamps.len());
        return Err(format!("{values} values have {times} timestamps"));
    }
    let values = wire.values.into_iter().map(|number| number.0).collect();
    Ok(Some(Line { labels: Labels::from_pairs(wire.metric), times: wire.timestamps, values }))
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

/// Appends the lines of a run of one series.
pub fn write(out: &mut String, labels: &Labels, times: &[i64], values: &[f64]) {
    assert_eq!(times.len(), values.len(), "columns of one run are equally long");
    for (times, values) in times.chunks(LINE_SAMPLES).zip(values.chunks(LINE_SAMPLES)) {
        out.push_str("{\"metric\":{");
        let pairs: Vec<String> =
            labels.iter().map(|(name, value)| format!("{}:{}", quoted(name), quoted(value))).collect();
        out.push_str(&pairs.join(","));
        out.push_str("},\"values\":[");
        let texts: Vec<String> = values.iter().map(|value| number(*value)).collect();
        out.push_str(&texts.join(","));
        out.push_str("],\"timestamps\":[");
        let texts: Vec<String> = times.iter().map(i64::to_string).collect();
        out.push_str(&texts.join(","));
        out.push_str("]}\n");
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
    fn a_bad_line_says_what_and_where() {
        for (line, reason) in [
            ("{\"metric\":{},\"values\":[1],\"timestamps\":[]}", "1 values have 0 timestamps"),
            ("{\"metric\":{},\"values\":[\"x\"],\"timestamps\":[1]}", "\"x\" is no value at column 26"),
            ("{\"metric\":{\"a\":1},", "invalid type: integer `1`, expected a string at column 16"),
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
            let line = read(text.as_bytes()).expect("good").expect("a line");
            prop_assert_eq!(&line.labels, &labels);
            prop_assert_eq!(&line.times, &times);
            for (read, written) in line.values.iter().zip(&values) {
                prop_assert!(read.to_bits() == written.to_bits() || read.is_nan() && written.is_nan());
                prop_assert_eq!(is_stale(*read), is_stale(*written));
            }
        }

        #[test]
        fn any_line_is_read_or_refused(line in any::<Vec<u8>>()) {
            let _ = read(&line);
        }
    }
}
