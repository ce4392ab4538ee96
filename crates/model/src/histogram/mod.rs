//! Native histograms: exponential schemas −4…8 and custom buckets (schema −53), as integers
//! (how they are stored) and as floats (how they are computed with).
//!
//! Layout and arithmetic follow Prometheus' `model/histogram`.

use std::sync::Arc;

/// The schema number that stands for custom bucket bounds.
pub const CUSTOM_BUCKETS_SCHEMA: i32 = -53;

/// What is known of a counter histogram's relation to its predecessor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum CounterResetHint {
    #[default]
    Unknown,
    Reset,
    NotReset,
    Gauge,
}

/// A run of consecutive buckets: `offset` from the end of the run before (or from bucket 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    pub offset: i32,
    pub length: u32,
}

/// A histogram with float counts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FloatHistogram {
    pub hint: CounterResetHint,
    pub schema: i32,
    pub zero_threshold: f64,
    pub zero_count: f64,
    pub count: f64,
    pub sum: f64,
    pub positive_spans: Vec<Span>,
    pub negative_spans: Vec<Span>,
    /// Absolute counts, one for each bucket of the spans.
    pub positive_buckets: Vec<f64>,
    pub negative_buckets: Vec<f64>,
    /// Upper bounds, ascending, for [`CUSTOM_BUCKETS_SCHEMA`]; shared among a series' samples.
    pub custom_values: Option<Arc<[f64]>>,
}

/// A histogram with integer counts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Histogram {
    pub hint: CounterResetHint,
    pub schema: i32,
    pub zero_threshold: f64,
    pub zero_count: u64,
    pub count: u64,
    pub sum: f64,
    pub positive_spans: Vec<Span>,
    pub negative_spans: Vec<Span>,
    /// Each bucket's count less the count of the bucket before it.
    pub positive_deltas: Vec<i64>,
    pub negative_deltas: Vec<i64>,
    pub custom_values: Option<Arc<[f64]>>,
}
