//! The plain values that every layer speaks: labels, samples, histograms, matchers,
//! relabelling, durations, batches on their way in and query values on their way out.
//!
//! ```text
//! bytes ─► ingest ─► [Batch] ─► tsdb ─► storage run ─► promql ─► [Value] ─► rules, server
//! ```
//!
//! Invariants: a [`Labels`] is sorted by name, without duplicates and without empty values,
//! so that equal sets have equal bytes. Timestamps are `i64` milliseconds since the Unix
//! epoch and carry the suffix `_ms`, or stand in a field named `timestamp`. A sample's value
//! is kept bit for bit: NaN payloads matter ([`STALE_NAN`]).
//!
//! Not here: anything that reads a file, a clock or a socket, and any wire format (`ingest`,
//! `server`).

mod annotations;
mod batch;
mod duration;
mod float;
pub mod histogram;
mod labels;
mod limits;
mod matcher;
mod quote;
pub mod regex;
mod relabel;
mod sample;
mod spelling;
mod value;

pub use annotations::Annotations;
pub use batch::{
    Batch, BatchExemplar, BatchHistogram, BatchSeries, Exemplar, Metadata, MetricType, RawLabels,
};
pub use duration::{DurationError, format_duration, parse_duration_ms, parse_signed_duration_ms};
pub use float::{format_float, format_general, push_float};
pub use histogram::{FloatHistogram, NativeHistogram};
pub use labels::{Labels, LabelsBuilder, is_valid_label_name, is_valid_legacy_name};
pub use limits::Limits;
pub use matcher::{MatchOp, Matcher, MatcherError};
pub use quote::{is_printable, quote, quote_bytes, quote_char};
pub use relabel::{
    NameValidation, RelabelAction, RelabelConfig, RelabelError, RelabelFields, expand_template, relabel,
};
pub use sample::{STALE_NAN, STALE_NAN_BITS, Sample, is_stale};
pub use spelling::spell_pair;
pub use value::{InstantSample, RangeSeries, SampleValue, Value};

/// The reserved label that holds a metric's name.
pub const METRIC_NAME: &str = "__name__";
