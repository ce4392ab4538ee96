//! Native histograms: exponential schemas −4…8 and custom buckets (schema −53), as integers
//! (how they are stored) and as floats (how they are computed with).
//!
//! ```text
//! Histogram ── to_float ──► FloatHistogram ── add, sub, mul, compact ─► promql
//!                                └── buckets(), all_buckets() ─► quantiles, text
//! ```
//!
//! Layout and arithmetic follow Prometheus' `model/histogram`. A side (positive or negative)
//! is a list of spans and one absolute count for each bucket that the spans cover; the index
//! of a bucket and the schema give its bounds.
//!
//! Invariants: operations keep a valid histogram valid, apart from negative counts that a
//! subtraction or a negative factor may bring. Bucket bounds of custom schemas are shared and
//! never changed in place.
//!
//! Not here: quantiles and other questions that PromQL asks (`promql`), wire and chunk formats.

mod arithmetic;
mod bounds;
mod buckets;
mod convert;
mod custom;
mod layout;
mod native;
mod reset;
mod text;
mod trim;
mod validity;

use std::sync::Arc;

pub use arithmetic::{IncompatibleSchemas, Reconciled, kahan_inc};
pub use bounds::exponential_bound;
pub use buckets::Bucket;
pub use native::{Layout, NativeHistogram};
pub use text::format_g;
pub use validity::InvalidHistogram;

/// The schema number that stands for custom bucket bounds.
pub const CUSTOM_BUCKETS_SCHEMA: i32 = -53;

/// The coarsest and the finest exponential schema.
pub const EXPONENTIAL_SCHEMA_MIN: i32 = -4;
pub const EXPONENTIAL_SCHEMA_MAX: i32 = 8;

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

impl FloatHistogram {
    pub fn uses_custom_buckets(&self) -> bool {
        self.schema == CUSTOM_BUCKETS_SCHEMA
    }

    /// Upper bounds of custom buckets; empty for exponential schemas.
    pub fn custom_bounds(&self) -> &[f64] {
        self.custom_values.as_deref().unwrap_or(&[])
    }

    /// Whether this is the marker that ends a series of histograms.
    pub fn is_stale(&self) -> bool {
        crate::is_stale(self.sum)
    }

    /// Bytes that it takes in memory, as Prometheus counts them for its statistics: 168 for the
    /// struct, 8 for each span, bucket and custom bound.
    pub fn size_bytes(&self) -> usize {
        let elements = self.positive_spans.len()
            + self.negative_spans.len()
            + self.positive_buckets.len()
            + self.negative_buckets.len()
            + self.custom_bounds().len();
        168 + 8 * elements
    }

    /// Equality of data, bit for bit: empty spans do not matter, empty buckets do. The hint is
    /// not compared.
    pub fn same_data(&self, other: &FloatHistogram) -> bool {
        let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        self.schema == other.schema
            && self.count.to_bits() == other.count.to_bits()
            && self.sum.to_bits() == other.sum.to_bits()
            && (!self.uses_custom_buckets() || self.custom_bounds() == other.custom_bounds())
            && self.zero_threshold == other.zero_threshold
            && self.zero_count.to_bits() == other.zero_count.to_bits()
            && layout::same_layout(&self.negative_spans, &other.negative_spans)
            && layout::same_layout(&self.positive_spans, &other.positive_spans)
            && bits(&self.negative_buckets) == bits(&other.negative_buckets)
            && bits(&self.positive_buckets) == bits(&other.positive_buckets)
    }
}
