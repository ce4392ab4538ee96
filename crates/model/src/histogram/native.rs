//! A histogram as it is sent and stored: with integer counts or with float counts.

use super::{CounterResetHint, FloatHistogram, Histogram, InvalidHistogram, Span, layout};
use crate::{STALE_NAN, is_stale};

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub enum NativeHistogram {
    Integer(Histogram),
    Float(FloatHistogram),
}

/// What two histograms must have in common to stand in one run: where their buckets are.
#[derive(Debug, Clone, Copy)]
pub struct Layout<'a> {
    pub schema: i32,
    pub zero_threshold: f64,
    pub positive_spans: &'a [Span],
    pub negative_spans: &'a [Span],
    pub custom_values: Option<&'a [f64]>,
}

/// Equality is of bits.
impl PartialEq for Layout<'_> {
    fn eq(&self, other: &Self) -> bool {
        let same_bounds = match (self.custom_values, other.custom_values) {
            (Some(a), Some(b)) => same_bits(a, b),
            (None, None) => true,
            _ => false,
        };
        self.schema == other.schema
            && self.zero_threshold.to_bits() == other.zero_threshold.to_bits()
            && self.positive_spans == other.positive_spans
            && self.negative_spans == other.negative_spans
            && same_bounds
    }
}

fn same_bits(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

impl Layout<'_> {
    /// Buckets of both sides.
    pub fn bucket_count(&self) -> usize {
        let spans = self.positive_spans.iter().chain(self.negative_spans);
        spans.map(|span| span.length as usize).sum()
    }
}

impl NativeHistogram {
    /// The marker that ends a series of histograms.
    pub fn stale() -> NativeHistogram {
        NativeHistogram::Integer(Histogram { sum: STALE_NAN, ..Histogram::default() })
    }

    pub fn is_stale(&self) -> bool {
        is_stale(self.sum())
    }

    pub fn sum(&self) -> f64 {
        match self {
            NativeHistogram::Integer(histogram) => histogram.sum,
            NativeHistogram::Float(histogram) => histogram.sum,
        }
    }

    pub fn hint(&self) -> CounterResetHint {
        match self {
            NativeHistogram::Integer(histogram) => histogram.hint,
            NativeHistogram::Float(histogram) => histogram.hint,
        }
    }

    pub fn set_hint(&mut self, hint: CounterResetHint) {
        match self {
            NativeHistogram::Integer(histogram) => histogram.hint = hint,
            NativeHistogram::Float(histogram) => histogram.hint = hint,
        }
    }

    pub fn layout(&self) -> Layout<'_> {
        match self {
            NativeHistogram::Integer(h) => Layout {
                schema: h.schema,
                zero_threshold: h.zero_threshold,
                positive_spans: &h.positive_spans,
                negative_spans: &h.negative_spans,
                custom_values: h.custom_values.as_deref(),
            },
            NativeHistogram::Float(h) => Layout {
                schema: h.schema,
                zero_threshold: h.zero_threshold,
                positive_spans: &h.positive_spans,
                negative_spans: &h.negative_spans,
                custom_values: h.custom_values.as_deref(),
            },
        }
    }

    /// Buckets of both sides as they stand, whatever the spans say.
    pub fn bucket_count(&self) -> usize {
        match self {
            NativeHistogram::Integer(h) => h.positive_deltas.len() + h.negative_deltas.len(),
            NativeHistogram::Float(h) => h.positive_buckets.len() + h.negative_buckets.len(),
        }
    }

    /// See [`Histogram::validate`] and [`FloatHistogram::validate`]. The marker is valid.
    pub fn validate(&self) -> Result<(), InvalidHistogram> {
        match self {
            _ if self.is_stale() => Ok(()),
            NativeHistogram::Integer(histogram) => histogram.validate(),
            NativeHistogram::Float(histogram) => histogram.validate(),
        }
    }

    /// With absolute float counts, as it is computed with.
    pub fn to_float(&self) -> FloatHistogram {
        match self {
            NativeHistogram::Integer(histogram) => histogram.to_float(),
            NativeHistogram::Float(histogram) => histogram.clone(),
        }
    }

    /// The same, without a copy where its counts are floats.
    pub fn into_float(self) -> FloatHistogram {
        match self {
            NativeHistogram::Integer(histogram) => histogram.to_float(),
            NativeHistogram::Float(histogram) => histogram,
        }
    }

    /// Equality of data, bit for bit: empty spans do not matter, empty buckets do. The hint is
    /// not compared, and one marker is as good as another.
    pub fn same_data(&self, other: &NativeHistogram) -> bool {
        match (self, other) {
            _ if self.is_stale() || other.is_stale() => self.is_stale() && other.is_stale(),
            (NativeHistogram::Integer(a), NativeHistogram::Integer(b)) => a.same_data(b),
            (NativeHistogram::Float(a), NativeHistogram::Float(b)) => a.same_data(b),
            _ => false,
        }
    }
}

impl Histogram {
    /// Equality of data, bit for bit. See [`FloatHistogram::same_data`].
    pub fn same_data(&self, other: &Histogram) -> bool {
        self.schema == other.schema
            && self.count == other.count
            && self.sum.to_bits() == other.sum.to_bits()
            && self.zero_threshold == other.zero_threshold
            && self.zero_count == other.zero_count
            && same_bits(
                self.custom_values.as_deref().unwrap_or(&[]),
                other.custom_values.as_deref().unwrap_or(&[]),
            )
            && layout::same_layout(&self.negative_spans, &other.negative_spans)
            && layout::same_layout(&self.positive_spans, &other.positive_spans)
            && self.negative_deltas == other.negative_deltas
            && self.positive_deltas == other.positive_deltas
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(count: u64) -> Histogram {
        Histogram {
            schema: 1,
            count,
            sum: 0.5,
            positive_spans: vec![Span { offset: 0, length: 1 }],
            positive_deltas: vec![count as i64],
            ..Histogram::default()
        }
    }

    #[test]
    fn data_is_the_same_bit_for_bit_and_within_one_kind() {
        let (one, two) = (NativeHistogram::Integer(histogram(1)), NativeHistogram::Integer(histogram(2)));
        assert!(one.same_data(&one) && !one.same_data(&two));
        let mut hinted = one.clone();
        hinted.set_hint(CounterResetHint::Reset);
        assert!(one.same_data(&hinted));
        let float = NativeHistogram::Float(one.to_float());
        assert!(float.same_data(&float) && !float.same_data(&one));
        assert_eq!(float.layout(), one.layout());
    }

    #[test]
    fn a_marker_is_valid_and_like_no_other_sample() {
        let stale = NativeHistogram::stale();
        assert_eq!(stale.validate(), Ok(()));
        assert!(stale.is_stale() && stale.same_data(&NativeHistogram::Float(stale.to_float())));
        assert!(!stale.same_data(&NativeHistogram::Integer(histogram(0))));
    }
}
