//! A whole document to a batch, for callers that have text and no target: tests, the embedded
//! library, one-off imports.

use tidewatch_model::{Batch, Labels, LabelsBuilder, Metadata, MetricType, RawLabels, Sample};

use super::{Entry, Format, ParseError, Parser};

/// A document that was read. It owns what a [`Batch`] borrows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ParsedText {
    pub samples: Vec<(Labels, Sample)>,
    pub metadata: Vec<OwnedMetadata>,
}

/// What a document says about a family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnedMetadata {
    pub family: String,
    pub kind: MetricType,
    pub help: String,
    pub unit: String,
}

impl ParsedText {
    pub fn batch(&self) -> Batch<'_> {
        let mut batch = Batch::new();
        for (labels, sample) in &self.samples {
            batch.push(RawLabels::Canonical(labels.as_bytes()), &[*sample]);
        }
        batch.metadata.extend(self.metadata.iter().map(|metadata| Metadata {
            family: &metadata.family,
            kind: metadata.kind,
            help: &metadata.help,
            unit: &metadata.unit,
        }));
        batch
    }
}

/// Reads all of `text`. Samples without a time get `now_ms`.
pub fn parse_text(text: &str, format: Format, now_ms: i64) -> Result<ParsedText, ParseError> {
    let mut parsed = ParsedText::default();
    let mut parser = Parser::new(text.as_bytes(), format);
    let mut builder = LabelsBuilder::new();
    loop {
        match parser.next_entry()? {
            Entry::Series(series) => {
                parser.labels(&mut builder)?;
                let timestamp = series.timestamp.unwrap_or(now_ms);
                parsed.samples.push((builder.build(), Sample { timestamp, value: series.value }));
            }
            Entry::Type { family, kind } => parsed.family(family).kind = kind,
            Entry::Help { family, text } => parsed.family(family).help = text.into_owned(),
            Entry::Unit { family, unit } => {
                parsed.family(family).unit = String::from_utf8_lossy(unit).into_owned();
            }
            Entry::Comment(_) => {}
            Entry::Eof => return Ok(parsed),
        }
    }
}

impl ParsedText {
    /// The metadata of a family, which is nearly always the one of the line before.
    fn family(&mut self, family: &[u8]) -> &mut OwnedMetadata {
        let family = String::from_utf8_lossy(family);
        if self.metadata.last().is_none_or(|last| last.family != family) {
            self.metadata.push(OwnedMetadata { family: family.into_owned(), ..OwnedMetadata::default() });
        }
        self.metadata.last_mut().expect("pushed above")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_becomes_a_batch() {
        let text = "# HELP up Whether it is up.\n# TYPE up gauge\nup{job=\"api\"} 1\nup{job=\"db\"} 0 5000\n";
        let parsed = parse_text(text, Format::Prometheus, 1000).unwrap();
        let batch = parsed.batch();
        let lines: Vec<String> =
            parsed.samples.iter().map(|(l, s)| format!("{l} {} {}", s.value, s.timestamp)).collect();
        assert_eq!(lines, [r#"{__name__="up", job="api"} 1 1000"#, r#"{__name__="up", job="db"} 0 5000"#]);
        assert_eq!(batch.series.len(), 2);
        let up = Metadata { family: "up", kind: MetricType::Gauge, help: "Whether it is up.", unit: "" };
        assert_eq!(batch.metadata, [up]);
    }

    #[test]
    fn an_error_names_the_line() {
        let error = parse_text("up 1\nup{ 2\n", Format::Prometheus, 0).unwrap_err();
        assert_eq!(error.line, 2);
    }
}
