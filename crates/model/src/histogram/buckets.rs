//! Walks over buckets with their bounds.

use super::bounds::upper_bound;
use super::layout::indexes;
use super::{CUSTOM_BUCKETS_SCHEMA, FloatHistogram};

/// A bucket with its bounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    pub lower: f64,
    pub upper: f64,
    pub lower_inclusive: bool,
    pub upper_inclusive: bool,
    pub count: f64,
    /// Its number in the schema; 0 for the zero bucket.
    pub index: i32,
}

impl FloatHistogram {
    /// Positive buckets from the zero bucket upwards.
    pub fn positive(&self) -> impl DoubleEndedIterator<Item = Bucket> + '_ {
        let pairs: Vec<_> = indexes(&self.positive_spans).zip(&self.positive_buckets).collect();
        pairs.into_iter().map(|(index, count)| self.bucket(index, *count, true))
    }

    /// Negative buckets from the zero bucket downwards.
    pub fn negative(&self) -> impl DoubleEndedIterator<Item = Bucket> + '_ {
        let pairs: Vec<_> = indexes(&self.negative_spans).zip(&self.negative_buckets).collect();
        pairs.into_iter().map(|(index, count)| self.bucket(index, *count, false))
    }

    pub fn zero_bucket(&self) -> Bucket {
        Bucket {
            lower: -self.zero_threshold,
            upper: self.zero_threshold,
            lower_inclusive: true,
            upper_inclusive: true,
            count: self.zero_count,
            index: 0,
        }
    }

    /// All buckets from the lowest to the highest, the zero bucket only where it is populated.
    /// A bucket that the zero bucket overlaps begins where the zero bucket ends.
    pub fn all_buckets(&self) -> impl DoubleEndedIterator<Item = Bucket> + '_ {
        let threshold = self.zero_threshold;
        let clip = move |mut bucket: Bucket| {
            if bucket.upper < 0.0 && bucket.upper > -threshold {
                bucket.upper = -threshold;
            } else if bucket.lower > 0.0 && bucket.lower < threshold {
                bucket.lower = threshold;
            }
            bucket
        };
        let zero = (self.zero_count > 0.0).then(|| self.zero_bucket());
        self.negative().rev().map(clip).chain(zero).chain(self.positive().map(clip))
    }

    fn bucket(&self, index: i32, count: f64, positive: bool) -> Bucket {
        let custom = self.custom_bounds();
        let above = upper_bound(index, self.schema, custom);
        let below = upper_bound(index.wrapping_sub(1), self.schema, custom);
        let (lower, upper) = if positive { (below, above) } else { (-above, -below) };
        let (lower_inclusive, upper_inclusive) = if self.schema == CUSTOM_BUCKETS_SCHEMA {
            (index == 0, true)
        } else {
            (lower < 0.0, upper > 0.0)
        };
        Bucket { lower, upper, lower_inclusive, upper_inclusive, count, index }
    }
}
