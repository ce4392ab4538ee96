//! What a histogram must satisfy before anything computes with it.

use std::fmt;

use super::{
    CUSTOM_BUCKETS_SCHEMA, EXPONENTIAL_SCHEMA_MAX, EXPONENTIAL_SCHEMA_MIN, FloatHistogram, Histogram, Span,
};

/// Why a histogram is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidHistogram(pub &'static str);

impl fmt::Display for InvalidHistogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for InvalidHistogram {}

impl FloatHistogram {
    /// Checks spans against counts, and that no count is negative.
    pub fn validate(&self) -> Result<(), InvalidHistogram> {
        let buckets = (self.positive_buckets.len(), self.negative_buckets.len());
        check_layout(self.schema, &self.positive_spans, &self.negative_spans, buckets, &self.custom_values)?;
        if self.uses_custom_buckets() && (self.zero_count != 0.0 || self.zero_threshold != 0.0) {
            return Err(InvalidHistogram("custom buckets: must have no zero bucket"));
        }
        let negative = |counts: &[f64]| counts.iter().any(|count| *count < 0.0);
        if negative(&self.positive_buckets) || negative(&self.negative_buckets) || self.zero_count < 0.0 {
            return Err(InvalidHistogram("histogram has a bucket whose observation count is negative"));
        }
        if self.count < 0.0 {
            return Err(InvalidHistogram("histogram's observation count is negative"));
        }
        Ok(())
    }
}

impl Histogram {
    /// Checks spans against deltas, that no bucket is negative, and that the buckets add up to
    /// the count; NaN observations are counted but stand in no bucket.
    pub fn validate(&self) -> Result<(), InvalidHistogram> {
        let buckets = (self.positive_deltas.len(), self.negative_deltas.len());
        check_layout(self.schema, &self.positive_spans, &self.negative_spans, buckets, &self.custom_values)?;
        if self.schema == CUSTOM_BUCKETS_SCHEMA && (self.zero_count != 0 || self.zero_threshold != 0.0) {
            return Err(InvalidHistogram("custom buckets: must have no zero bucket"));
        }
        let buckets = total(&self.positive_deltas)?
            .checked_add(total(&self.negative_deltas)?)
            .and_then(|sum| sum.checked_add(self.zero_count))
            .ok_or(InvalidHistogram("histogram's buckets overflow"))?;
        if buckets > self.count || !self.sum.is_nan() && buckets != self.count {
            return Err(InvalidHistogram(
                "the number of observations found in buckets is not equal to the count field",
            ));
        }
        Ok(())
    }
}

fn total(deltas: &[i64]) -> Result<u64, InvalidHistogram> {
    let overflow = InvalidHistogram("histogram's buckets overflow");
    let (mut count, mut sum) = (0i64, 0u64);
    for delta in deltas {
        count = count.checked_add(*delta).ok_or(overflow)?;
        let count = u64::try_from(count)
            .map_err(|_| InvalidHistogram("histogram has a bucket whose observation count is negative"))?;
        sum = sum.checked_add(count).ok_or(overflow)?;
    }
    Ok(sum)
}

fn check_layout(
    schema: i32,
    positive: &[Span],
    negative: &[Span],
    (positive_buckets, negative_buckets): (usize, usize),
    custom: &Option<std::sync::Arc<[f64]>>,
) -> Result<(), InvalidHistogram> {
    let end = check_spans(positive, positive_buckets)?;
    check_spans(negative, negative_buckets)?;
    match schema {
        CUSTOM_BUCKETS_SCHEMA => {
            if !negative.is_empty() || negative_buckets > 0 {
                return Err(InvalidHistogram("custom buckets: must not have negative buckets"));
            }
            check_custom(custom.as_deref().unwrap_or(&[]), positive, end)
        }
        EXPONENTIAL_SCHEMA_MIN..=EXPONENTIAL_SCHEMA_MAX if custom.is_some() => {
            Err(InvalidHistogram("histogram with exponential schema must not have custom bounds"))
        }
        EXPONENTIAL_SCHEMA_MIN..=EXPONENTIAL_SCHEMA_MAX => Ok(()),
        _ => Err(InvalidHistogram("histogram schema must be between -4 and 8 or -53")),
    }
}

/// Spans of one side. Each may be empty, and then no bucket bounds how many there are: a request of one megabyte that
/// is nothing but these took 128 of memory for as long as the store had the series.
const SPANS_MAX: usize = 1 << 13;

/// Returns the index after the last bucket.
fn check_spans(spans: &[Span], buckets: usize) -> Result<i64, InvalidHistogram> {
    if spans.len() > SPANS_MAX {
        return Err(InvalidHistogram("histogram has more than 8192 spans on one side"));
    }
    if spans.iter().skip(1).any(|span| span.offset < 0) {
        return Err(InvalidHistogram("histogram has a span whose offset is negative"));
    }
    let covered: u64 = spans.iter().map(|span| u64::from(span.length)).sum();
    if covered != buckets as u64 {
        return Err(InvalidHistogram("histogram spans specify different number of buckets than provided"));
    }
    let end: i64 = spans.iter().map(|span| i64::from(span.offset) + i64::from(span.length)).sum();
    // Room for one step in either direction when bounds are computed.
    if end >= i64::from(i32::MAX) {
        return Err(InvalidHistogram("histogram has a bucket whose index is too large"));
    }
    Ok(end)
}

fn check_custom(bounds: &[f64], spans: &[Span], end: i64) -> Result<(), InvalidHistogram> {
    if bounds.iter().any(|bound| bound.is_nan()) {
        return Err(InvalidHistogram("histogram custom bounds must not be NaN"));
    }
    if bounds.windows(2).any(|pair| pair[0] >= pair[1]) {
        return Err(InvalidHistogram("histogram custom bounds must be in strictly increasing order"));
    }
    if bounds.last() == Some(&f64::INFINITY) {
        return Err(InvalidHistogram("histogram custom bounds must be finite"));
    }
    if spans.first().is_some_and(|span| span.offset < 0) {
        return Err(InvalidHistogram("histogram has a span whose offset is negative"));
    }
    if end > bounds.len() as i64 + 1 {
        return Err(InvalidHistogram("histogram custom bounds are too few"));
    }
    Ok(())
}
