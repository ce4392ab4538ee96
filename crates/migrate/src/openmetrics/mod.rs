//! OpenMetrics text with a time on every line, as `promtool tsdb create-blocks-from openmetrics`
//! reads it.
//!
//! A line stands for itself, so a bad one costs nothing but itself; only the last `# TYPE` line is
//! remembered, because the spelling of `le` and `quantile` depends on it. `_created` lines are series
//! like others, as they are there. What a line says of a family is handed on word by word.

mod write;

use tidewatch_ingest::{Entry, Format, Parser};
use tidewatch_model::{Exemplar, Labels, LabelsBuilder, MetricType};

pub use write::{EOF, Place, keeps_labels, place_of, series_text, takes_exemplars, write_family, write_line};

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

/// What a line says.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// Nothing that is stored.
    Nothing,
    Sample(Line),
    /// A word about a metric family.
    Word {
        family: String,
        word: Word,
    },
}

/// A sample of a line.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    pub labels: Labels,
    pub timestamp: i64,
    pub value: f64,
    /// One without a time has that of the sample.
    pub exemplar: Option<Exemplar>,
}

/// What is said of a family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    Kind(MetricType),
    Help(String),
    Unit(String),
}

/// The parser leaves the labels of an exemplar as they are written, as Prometheus does.
fn unescaped(labels: &Labels) -> Labels {
    Labels::from_pairs(labels.iter().map(|(name, value)| (write::unescape(name), write::unescape(value))))
}

fn word(family: &[u8], word: Word) -> Said {
    Said::Word { family: String::from_utf8_lossy(family).into_owned(), word }
}

impl Reader {
    /// A reader that goes on where another was: see [`Reader::type_line`] and [`Reader::is_complete`].
    pub fn resume(type_line: &str, is_complete: bool) -> Reader {
        let line = if type_line.is_empty() { String::new() } else { format!("{type_line}\n") };
        Reader { type_line: line.into_bytes(), complete: is_complete, ..Reader::default() }
    }

    /// The `# TYPE` line that is in force, without its line break.
    pub fn type_line(&self) -> String {
        String::from_utf8_lossy(&self.type_line).trim_end().to_owned()
    }

    /// Whether the text ended with `# EOF`. Where it did not it may be cut short.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Passes over a line that was read before: of what it says only whether the text may end here.
    pub fn skip(&mut self, line: &[u8]) {
        match line.strip_suffix(b"\n").unwrap_or(line) {
            // Behind the end may stand empty lines.
            b"" => {}
            line => self.complete = line == b"# EOF",
        }
    }

    /// Reads a line; its line break may be missing.
    pub fn read(&mut self, line: &[u8]) -> Result<Said, String> {
        self.skip(line);
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        if line.is_empty() || self.complete {
            // Files that were put behind one another go on.
            return Ok(Said::Nothing);
        }
        self.document.clear();
        self.document.extend_from_slice(&self.type_line);
        self.document.extend_from_slice(line);
        self.document.extend_from_slice(b"\n# EOF\n");
        let mut parser = Parser::new(&self.document, Format::OpenMetrics);
        // The line that stands before this one in the document was read before.
        let mut repeats = !self.type_line.is_empty();
        let mut said = Said::Nothing;
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
                    let exemplar = match series.exemplar {
                        Some(exemplar) => {
                            let mut labels = LabelsBuilder::new();
                            parser.exemplar_labels(&mut labels).map_err(|error| error.message)?;
                            let timestamp = exemplar.timestamp.unwrap_or(timestamp);
                            Some(Exemplar {
                                labels: unescaped(&labels.build()),
                                value: exemplar.value,
                                timestamp,
                            })
                        }
                        None => None,
                    };
                    let labels = self.labels.clone().expect("set above");
                    return Ok(Said::Sample(Line { labels, timestamp, value: series.value, exemplar }));
                }
                Entry::Eof => {
                    if line.starts_with(b"# TYPE ") {
                        self.type_line.clear();
                        self.type_line.extend_from_slice(line);
                        self.type_line.push(b'\n');
                        // The same text may now mean other labels.
                        self.labels = None;
                    }
                    return Ok(said);
                }
                Entry::Type { .. } if std::mem::take(&mut repeats) => {}
                Entry::Type { family, kind } => said = word(family, Word::Kind(kind)),
                Entry::Help { family, text } => said = word(family, Word::Help(text.into_owned())),
                Entry::Unit { family, unit } => {
                    said = word(family, Word::Unit(String::from_utf8_lossy(unit).into_owned()));
                }
                Entry::Comment(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use tidewatch_model::METRIC_NAME;

    use super::*;

    fn check(lines: &str, expected: &[&str]) {
        let mut reader = Reader::default();
        let said: Vec<String> = lines
            .lines()
            .filter_map(|line| match reader.read(line.as_bytes()) {
                Ok(Said::Nothing) => None,
                Ok(Said::Word { family, word }) => Some(format!("{family}: {word:?}")),
                Ok(Said::Sample(Line { labels, timestamp, value, exemplar })) => {
                    let exemplar =
                        exemplar.map(|e| format!(" with {} {} @{}", e.labels, e.value, e.timestamp));
                    Some(format!("{labels} {value} @{timestamp}{}", exemplar.unwrap_or_default()))
                }
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
                "x: Help(\"Words.\")",
                "x: Kind(Counter)",
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
            &[
                "h: Kind(Histogram)",
                r#"{__name__="h_bucket", le="1.0"} 1 @1000"#,
                "g: Kind(Gauge)",
                r#"{__name__="h_bucket", le="1"} 1 @1000"#,
            ],
        );
    }

    #[test]
    fn a_reader_goes_on_under_the_type_of_another() {
        let mut reader = Reader::resume("# TYPE h histogram", false);
        let said = reader.read(b"h_bucket{le=\"5\"} 1 1").expect("good");
        let Said::Sample(line) = said else { panic!("no sample") };
        assert_eq!(line.labels.get("le"), Some("5.0"));
        let said = reader.read(b"# UNIT h_s s").expect("good");
        assert_eq!(said, Said::Word { family: "h_s".to_owned(), word: Word::Unit("s".to_owned()) });
        assert_eq!(reader.type_line(), "# TYPE h histogram");
    }

    #[test]
    fn a_text_is_complete_when_its_last_line_that_is_not_empty_says_so() {
        for (text, expected) in [
            ("", false),
            ("\n\n", false),
            ("x 1 1\n", false),
            ("x 1 1\n# EOF\n", true),
            ("x 1 1\n# EOF", true),
            ("x 1 1\n# EOF\n\n\n", true),
            ("# EOF\nx 1 1\n", false),
            ("# EOF\nx 1 1\n\n# EOF\n\n", true),
            ("# EOF\nno line\n", false),
        ] {
            // Wherever another reader has read or skipped what is before.
            for at in 0..=text.lines().count() {
                let mut before = Reader::default();
                text.split_inclusive('\n').take(at).for_each(|line| before.skip(line.as_bytes()));
                let mut reader = Reader::resume(&before.type_line(), before.is_complete());
                text.split_inclusive('\n').skip(at).for_each(|line| drop(reader.read(line.as_bytes())));
                assert_eq!(reader.is_complete(), expected, "{text:?} from line {at}");
            }
        }
    }

    #[test]
    fn exemplars_are_read_with_their_time_or_that_of_their_sample() {
        check(
            "x_total 1 1.5 # {trace=\"a b\"} 0.5\nx_total 2 2 # {} 1 1.75\n",
            &[
                r#"{__name__="x_total"} 1 @1500 with {trace="a b"} 0.5 @1500"#,
                r#"{__name__="x_total"} 2 @2000 with {} 1 @1750"#,
            ],
        );
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            pairs in proptest::collection::btree_map("[a-z]{1,4}|[ -~äé\n]{1,4}", "[ -~ä\n]{1,6}", 0..4),
            name in "[a-z:_]{1,5}|[ -~ü]{1,5}",
            time_ms in -10_000_000_000_000i64..10_000_000_000_000,
            bits in any::<u64>(),
            trace in proptest::option::of(("[a-z]{1,4}|[ -~é\n]{1,4}", "[ -~ä\n]{0,6}")),
        ) {
            let mut labels = Labels::from_pairs(pairs).to_builder();
            labels.set(METRIC_NAME, &name);
            let (labels, value) = (labels.build(), f64::from_bits(bits));
            prop_assume!(!value.is_nan());
            let mut text = String::new();
            let exemplar = trace.map(|(name, value)| Exemplar {
                labels: Labels::from_pairs([(name, value)]),
                value: 0.25,
                timestamp: time_ms - 1,
            });
            let series = series_text(&labels).expect("a name");
            prop_assert!(write_line(&mut text, &series, time_ms, value, exemplar.as_ref()));
            let said = Reader::default().read(text.as_bytes());
            let expected = Line { labels, timestamp: time_ms, value, exemplar };
            prop_assert_eq!(said, Ok(Said::Sample(expected)), "{}", text);
        }

        #[test]
        fn any_line_is_read_or_refused(line in any::<Vec<u8>>()) {
            let _ = Reader::default().read(&line);
        }
    }
}
