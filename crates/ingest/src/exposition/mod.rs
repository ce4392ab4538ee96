//! Prometheus text 0.0.4 / 1.0.0 and OpenMetrics text 1.0, read line by line without copies.
//!
//! ```text
//! body ─ Lexer ─► tokens ─ Parser ─► Entry, and on demand the labels of a series
//! ```
//!
//! Both grammars are those that Prometheus' scraper accepts, which is more than their
//! specifications allow: documents that strict parsers refuse are scraped every day. Errors have
//! its words too, since people search for them.
//!
//! A scraper that has seen a series before needs no labels: the series' text as it stands in the
//! body is the key of its cache ([`Series::text`]). [`Parser::labels`] is for the first time.

mod content_type;
mod go;
mod labels;
mod lexer;
mod number;
mod parser;
mod text_batch;

use std::borrow::Cow;
use std::fmt;

use tidewatch_model::MetricType;

pub use content_type::{ContentTypeError, Negotiated, negotiate};
pub use parser::Parser;
pub use text_batch::{OwnedMetadata, ParsedText, parse_text};

/// Which grammar a document follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// `text/plain`, version 0.0.4 or 1.0.0.
    Prometheus,
    /// `application/openmetrics-text`, version 0.0.1 or 1.0.0.
    OpenMetrics,
}

/// What one line says.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry<'a> {
    Series(Series<'a>),
    Type {
        family: &'a [u8],
        kind: MetricType,
    },
    Help {
        family: &'a [u8],
        text: Cow<'a, str>,
    },
    Unit {
        family: &'a [u8],
        unit: &'a [u8],
    },
    /// A comment with its `#`.
    Comment(&'a [u8]),
    Eof,
}

/// A sample of a series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Series<'a> {
    /// The series as it is written, from the start of the line to the closing brace.
    pub text: &'a [u8],
    pub value: f64,
    /// Milliseconds since the epoch, where the line names a time.
    pub timestamp: Option<i64>,
    pub exemplar: Option<Exemplar>,
}

/// The exemplar of a sample; its labels are at [`Parser::exemplar_labels`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Exemplar {
    pub value: f64,
    pub timestamp: Option<i64>,
}

/// Why a document is refused from this line on, in Prometheus' words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    /// Counted from 1.
    pub line: usize,
    pub message: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ParseError {}
