//! OpenMetrics text with a time on every line, as `promtool tsdb create-blocks-from openmetrics`
//! reads it.
//!
//! A line stands for itself, so a bad one costs nothing but itself; only the last `# TYPE` line is
//! remembered, because the spelling of `le` and `quantile` depends on it. `_created` lines are series
//! like others, as they are there; exemplars are read over.

use tidewatch_ingest::{Entry, Format, Parser};
use tidewatch_model::{Labels, LabelsBuilder, METRIC_NAME, is_stale, is_valid_legacy_name, push_float};

/// Reads line after line.
#[derive(Debug, Default)]
pub struct Reader {
    /// The last `# TYPE` line, its line break included.
    type_line: Vec<u8>,
    /// Whether the last line that was not empty was `# EOF`.
    complete: bool,
    document: Vec<u8>,
    /// The series of the line before, as it is written, and its labels.
    text: Vec<u8>,
    labels: Option<Labels>,
}

/// A sample of a line.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    pub labels: Labels,
    pub timestamp: i64,
    pub value: f64,
}

impl Reader {
    /// A reader that goes on where another was: see [`Reader::type_line`].
    pub fn resume(type_line: &str) -> Reader {
        let line = if type_line.is_empty() { String::new() } else { format!("{type_line}\n") };
        Reader { type_line: line.into_bytes(), ..Reader::default() }
    }

    /// The `# TYPE` line that is in force, without its line break.
    pub fn type_line(&self) -> String {
        String::from_utf8_lossy(&self.type_line).trim_end().to_owned()
    }

    /// Whether the text ended with `# EOF`. Where it did not it may be cut short.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Reads a line; its line break may be missing. `None` where it has no sample.
    pub fn read(&mut self, line: &[u8]) -> Result<Option<Line>, String> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        if line.is_empty() {
            return Ok(None);
        }
        self.complete = line == b"# EOF";
        if self.complete {
            // Files that were put behind one another go on.
            return Ok(None);
        }
        self.document.clear();
        self.document.extend_from_slice(&self.type_line);
        self.document.extend_from_slice(line);
        self.document.extend_from_slice(b"\n# EOF\n");
        let mut parser = Parser::new(&self.document, Format::OpenMetrics);
        loop {
            match parser.next_entry().map_err(|error| error.message)? {
                Entry::Series(series) => {
                    let timestamp = series.timestamp.ok_or("the sample has no time")?;
                    if self.labels.is_none() || self.text != series.text {
                        let mut builder = LabelsBuilder::new();
                        parser.labels(&mut builder).map_err(|error| error.message)?;
                        self.text.clear();
                        self.text.extend_from_slice(series.text);
                        self.labels = Some(builder.build());
                    }
                    let labels = self.labels.clone().expect("set above");
                    return Ok(Some(Line { labels, timestamp, value: series.value }));
                }
                Entry::Eof => {
                    if line.starts_with(b"# TYPE ") {
                        self.type_line.clear();
                        self.type_line.extend_from_slice(line);
                        self.type_line.push(b'\n');
                        // The same text may now mean other labels.
                        self.labels = None;
                    }
                    return Ok(None);
                }
                Entry::Type { .. } | Entry::Help { .. } | Entry::Unit { .. } | Entry::Comment(_) => {}
            }
        }
    }
}

/// The end of a document.
pub const EOF: &str = "# EOF\n";

/// A series as a line begins with it; `None` without a metric name, which the format must have.
pub fn series_text(labels: &Labels) -> Option<String> {
    let name = labels.metric_name()?;
    let mut parts = Vec::new();
    let quoted = !is_valid_metric_name(name);
    if quoted {
        parts.push(format!("\"{}\"", escape(name)));
    }
    for (name, value) in labels.iter().filter(|(name, _)| *name != METRIC_NAME) {
        let value = escape(value);
        parts.push(match is_valid_legacy_name(name) {
            true => format!("{name}=\"{value}\""),
            false => format!("\"{}\"=\"{value}\"", escape(name)),
        });
    }
    let bare = if quoted { "" } else { name };
    Some(if parts.is_empty() { bare.to_owned() } else { format!("{bare}{{{}}}", parts.join(",")) })
}

fn is_valid_metric_name(name: &str) -> bool {
    is_valid_legacy_name(&name.replace(':', "_"))
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Appends a sample's line; `false` for a staleness marker, for which the format has no word: there
/// is none then.
pub fn write_line(out: &mut String, series: &str, time_ms: i64, value: f64) -> bool {
    if is_stale(value) {
        return false;
    }
    out.push_str(series);
    out.push(' ');
    push_float(out, value);
    out.push(' ');
    push_seconds(out, time_ms);
    out.push('\n');
    true
}

/// Milliseconds as seconds. Prometheus' reader multiplies by a thousand in floating point and cuts
/// what is left of a millisecond: where that would give the millisecond before, a fourth digit
/// lifts it.
fn push_seconds(out: &mut String, time_ms: i64) {
    let sign = if time_ms < 0 { "-" } else { "" };
    let (seconds, ms) = (time_ms.unsigned_abs() / 1000, time_ms.unsigned_abs() % 1000);
    let text = if ms == 0 { format!("{sign}{seconds}") } else { format!("{sign}{seconds}.{ms:03}") };
    out.push_str(&text);
    let reads_as = text.parse::<f64>().map(|seconds| (seconds * 1000.0) as i64);
    if reads_as != Ok(time_ms) {
        out.push_str(if ms == 0 { ".0005" } else { "5" });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(lines: &str, expected: &[&str]) {
        let mut reader = Reader::default();
        let said: Vec<String> = lines
            .lines()
            .filter_map(|line| match reader.read(line.as_bytes()) {
                Ok(line) => line.map(|line| format!("{} {} @{}", line.labels, line.value, line.timestamp)),
                Err(reason) => Some(format!("refused: {reason}")),
            })
            .collect();
        assert_eq!(said, expected);
    }

    #[test]
    fn a_bad_line_costs_itself_only() {
        check(
            "# HELP x Words.\n# TYPE x counter\nx_total{a=\"1\"} 1 1.5\nx_total{a= 2\nx_total{a=\"1\"} 2 2\nx 3\n# EOF\n",
            &[
                r#"{__name__="x_total", a="1"} 1 @1500"#,
                "refused: expected label value, got \" \" (\"INVALID\") while parsing: \"x_total{a= \"",
                r#"{__name__="x_total", a="1"} 2 @2000"#,
                "refused: the sample has no time",
            ],
        );
    }

    #[test]
    fn buckets_are_spelt_as_prometheus_stores_them() {
        check(
            "# TYPE h histogram\nh_bucket{le=\"1\"} 1 1\n# TYPE g gauge\nh_bucket{le=\"1\"} 1 1\n",
            &[r#"{__name__="h_bucket", le="1.0"} 1 @1000"#, r#"{__name__="h_bucket", le="1"} 1 @1000"#],
        );
    }

    #[test]
    fn a_reader_goes_on_under_the_type_of_another() {
        let mut reader = Reader::resume("# TYPE h histogram");
        let line = reader.read(b"h_bucket{le=\"5\"} 1 1").expect("good").expect("a sample");
        assert_eq!(line.labels.get("le"), Some("5.0"));
        assert_eq!(reader.type_line(), "# TYPE h histogram");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            pairs in proptest::collection::btree_map("[a-z]{1,4}|[ -~äé\n]{1,4}", "[ -~ä\n]{1,6}", 0..4),
            name in "[a-z:_]{1,5}|[ -~ü]{1,5}",
            time_ms in -10_000_000_000_000i64..10_000_000_000_000,
            bits in any::<u64>(),
        ) {
            let mut labels = Labels::from_pairs(pairs).to_builder();
            labels.set(METRIC_NAME, &name);
            let (labels, value) = (labels.build(), f64::from_bits(bits));
            prop_assume!(!value.is_nan());
            let mut text = String::new();
            prop_assert!(write_line(&mut text, &series_text(&labels).expect("a name"), time_ms, value));
            let line = Reader::default().read(text.as_bytes());
            let expected = Line { labels, timestamp: time_ms, value };
            prop_assert_eq!(line, Ok(Some(expected)), "{}", text);
        }

        #[test]
        fn any_line_is_read_or_refused(line in any::<Vec<u8>>()) {
            let _ = Reader::default().read(&line);
        }
    }
}
