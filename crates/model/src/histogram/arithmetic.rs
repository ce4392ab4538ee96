//! Addition, subtraction, scaling.
//!
//! Two histograms are brought to a common layout first: to the coarser of two exponential
//! schemas, to the wider zero bucket (widened until it ends at a bound of both), to the bounds
//! that two sets of custom bounds share.

use std::fmt;

use super::layout::{self, Side, indexes};
use super::{CounterResetHint, FloatHistogram, bounds, custom};

/// One histogram has exponential and the other custom buckets: they have no common layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IncompatibleSchemas;

impl fmt::Display for IncompatibleSchemas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "cannot apply this operation on histograms with a mix of exponential and custom bucket schemas",
        )
    }
}

impl std::error::Error for IncompatibleSchemas {}

/// What an operation on two histograms had to reconcile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reconciled {
    /// One said that its counter was reset, the other that it was not.
    pub reset_collision: bool,
    /// Custom bounds differed.
    pub custom_bounds: bool,
}

/// Adds `value` to a sum and keeps in `compensation` what the sum had to round away
/// (Kahan's summation as improved by Neumaier).
#[inline]
pub fn kahan_inc(value: f64, sum: &mut f64, compensation: &mut f64) {
    // Choices and no branches, so that a loop over columns becomes one of vectors.
    let total = *sum + value;
    let (large, small) = if sum.abs() >= value.abs() { (*sum, value) } else { (value, *sum) };
    let lost = *compensation + ((large - total) + small);
    *compensation = if total.is_infinite() { 0.0 } else { lost };
    *sum = total;
}

impl FloatHistogram {
    /// Adds `other`.
    pub fn add(&mut self, other: &FloatHistogram) -> Result<Reconciled, IncompatibleSchemas> {
        self.combine(other, None, |value, sum, _| *sum += value)
    }

    /// Subtracts `other`. The caller marks the result as a gauge where it is one.
    pub fn sub(&mut self, other: &FloatHistogram) -> Result<Reconciled, IncompatibleSchemas> {
        self.combine(other, None, |value, sum, _| *sum -= value)
    }

    /// Adds `other` and keeps what is rounded away in `compensation`, a histogram of the same
    /// layout as `self` that starts as [`FloatHistogram::compensation`].
    pub fn kahan_add(
        &mut self,
        other: &FloatHistogram,
        compensation: &mut FloatHistogram,
    ) -> Result<Reconciled, IncompatibleSchemas> {
        self.combine(other, Some(compensation), kahan_inc)
    }

    /// An empty compensation for this histogram.
    pub fn compensation(&self) -> FloatHistogram {
        FloatHistogram {
            hint: self.hint,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            positive_spans: self.positive_spans.clone(),
            negative_spans: self.negative_spans.clone(),
            positive_buckets: vec![0.0; self.positive_buckets.len()],
            negative_buckets: vec![0.0; self.negative_buckets.len()],
            custom_values: self.custom_values.clone(),
            ..FloatHistogram::default()
        }
    }

    fn combine(
        &mut self,
        other: &FloatHistogram,
        mut compensation: Option<&mut FloatHistogram>,
        add: impl Fn(f64, &mut f64, &mut f64) + Copy,
    ) -> Result<Reconciled, IncompatibleSchemas> {
        if self.uses_custom_buckets() != other.uses_custom_buckets() {
            return Err(IncompatibleSchemas);
        }
        let reset_collision = self.adjust_hint(other.hint);
        let mut unused = FloatHistogram::default();
        let scalars = compensation.as_deref_mut().unwrap_or(&mut unused);
        add(other.count, &mut self.count, &mut scalars.count);
        add(other.sum, &mut self.sum, &mut scalars.sum);
        if self.uses_custom_buckets() {
            let custom_bounds = self.combine_custom(other, compensation, add);
            return Ok(Reconciled { reset_collision, custom_bounds });
        }
        let other_zero = self.reconcile_zero_buckets(other, compensation.as_deref_mut());
        let scalars = compensation.as_deref_mut().unwrap_or(&mut unused);
        add(other_zero, &mut self.zero_count, &mut scalars.zero_count);
        self.combine_exponential(other, compensation, add);
        Ok(Reconciled { reset_collision, custom_bounds: false })
    }

    fn combine_custom(
        &mut self,
        other: &FloatHistogram,
        compensation: Option<&mut FloatHistogram>,
        add: impl Fn(f64, &mut f64, &mut f64),
    ) -> bool {
        if self.custom_bounds() == other.custom_bounds() {
            let theirs = indexes(&other.positive_spans).zip(other.positive_buckets.iter().copied());
            let side = Side {
                spans: &mut self.positive_spans,
                counts: &mut self.positive_buckets,
                compensation: compensation.map(|c| &mut c.positive_buckets),
            };
            layout::merge(side, theirs, add);
            return false;
        }
        let bounds = custom::intersect(self.custom_bounds(), other.custom_bounds());
        let mut sums = custom::map_to(self, &bounds);
        let mut rest = vec![0.0; sums.len()];
        if let Some(compensation) = &compensation {
            rest = custom::map_to(compensation, &bounds);
        }
        for ((count, sum), c) in custom::map_to(other, &bounds).into_iter().zip(&mut sums).zip(&mut rest) {
            add(count, sum, c);
        }
        custom::replace(self, bounds, &sums);
        if let Some(compensation) = compensation {
            // The same buckets as the sum has, whatever is in them.
            let kept = rest.into_iter().zip(&sums).filter(|(_, sum)| **sum != 0.0).map(|(c, _)| c).collect();
            compensation.positive_buckets = kept;
            compensation.positive_spans.clone_from(&self.positive_spans);
            compensation.custom_values.clone_from(&self.custom_values);
        }
        true
    }

    fn combine_exponential(
        &mut self,
        other: &FloatHistogram,
        mut compensation: Option<&mut FloatHistogram>,
        add: impl Fn(f64, &mut f64, &mut f64) + Copy,
    ) {
        let schema = self.schema.min(other.schema);
        if let Some(compensation) = compensation.as_deref_mut() {
            compensation.reduce_to(schema);
        }
        self.reduce_to(schema);
        let reduced;
        let other = if other.schema > schema {
            reduced = other.at_schema(schema);
            &reduced
        } else {
            other
        };
        let threshold = self.zero_threshold;
        // Buckets within the zero bucket are part of its count already.
        let outside = |(index, _): &(i32, f64)| bounds::exponential_bound(*index, schema) > threshold;
        let theirs = indexes(&other.positive_spans).zip(other.positive_buckets.iter().copied());
        let (positive_c, negative_c) = match compensation.as_deref_mut() {
            Some(c) => (Some(&mut c.positive_buckets), Some(&mut c.negative_buckets)),
            None => (None, None),
        };
        let side = Side {
            spans: &mut self.positive_spans,
            counts: &mut self.positive_buckets,
            compensation: positive_c,
        };
        layout::merge(side, theirs.filter(outside), add);
        let theirs = indexes(&other.negative_spans).zip(other.negative_buckets.iter().copied());
        let side = Side {
            spans: &mut self.negative_spans,
            counts: &mut self.negative_buckets,
            compensation: negative_c,
        };
        layout::merge(side, theirs.filter(outside), add);
        if let Some(compensation) = compensation {
            compensation.positive_spans.clone_from(&self.positive_spans);
            compensation.negative_spans.clone_from(&self.negative_spans);
        }
    }

    /// Settles the hint of a sum or difference; returns whether the hints contradict each other.
    fn adjust_hint(&mut self, other: CounterResetHint) -> bool {
        use CounterResetHint::{Gauge, Unknown};
        self.hint = match (self.hint, other) {
            (a, b) if a == b => a,
            (Gauge, _) | (_, Gauge) => Gauge,
            (Unknown, _) | (_, Unknown) => Unknown,
            _ => {
                self.hint = Unknown;
                return true;
            }
        };
        false
    }

    /// Multiplies all counts and the sum. A negative factor makes a gauge.
    pub fn mul(&mut self, factor: f64) {
        self.scale(|value| value * factor);
        if factor < 0.0 {
            self.hint = CounterResetHint::Gauge;
        }
    }

    /// Divides all counts and the sum. By zero leaves no buckets.
    pub fn div(&mut self, divisor: f64) {
        if divisor == 0.0 {
            self.positive_spans.clear();
            self.negative_spans.clear();
            self.positive_buckets.clear();
            self.negative_buckets.clear();
        }
        self.scale(|value| value / divisor);
        if divisor < 0.0 {
            self.hint = CounterResetHint::Gauge;
        }
    }

    fn scale(&mut self, scale: impl Fn(f64) -> f64) {
        let scalars = [&mut self.zero_count, &mut self.count, &mut self.sum];
        for value in scalars.into_iter().chain(&mut self.positive_buckets).chain(&mut self.negative_buckets) {
            *value = scale(*value);
        }
    }

    /// Whether a count or the sum has grown beyond all floats.
    pub fn has_overflow(&self) -> bool {
        [self.zero_count, self.count, self.sum]
            .iter()
            .chain(&self.positive_buckets)
            .chain(&self.negative_buckets)
            .any(|value| value.is_infinite())
    }

    /// Drops empty buckets.
    pub fn compact(&mut self) {
        layout::compact(&mut self.positive_spans, &mut self.positive_buckets);
        layout::compact(&mut self.negative_spans, &mut self.negative_buckets);
    }

    /// A copy in the coarser (or equal) exponential schema `schema`. Custom buckets stay as they are.
    pub fn at_schema(&self, schema: i32) -> FloatHistogram {
        let mut copy = self.clone();
        copy.reduce_to(schema);
        copy
    }

    /// Merges buckets down to the exponential schema `schema`, where that is coarser.
    pub fn reduce_to(&mut self, schema: i32) {
        if self.uses_custom_buckets() || schema >= self.schema {
            return;
        }
        (self.positive_spans, self.positive_buckets) =
            layout::reduce(&self.positive_spans, &self.positive_buckets, self.schema, schema);
        (self.negative_spans, self.negative_buckets) =
            layout::reduce(&self.negative_spans, &self.negative_buckets, self.schema, schema);
        self.schema = schema;
    }

    /// Widens the zero bucket of `self` until it covers that of `other` and ends in no populated
    /// bucket of either. Returns what the zero count of `other` is within the same bounds.
    fn reconcile_zero_buckets(
        &mut self,
        other: &FloatHistogram,
        mut compensation: Option<&mut FloatHistogram>,
    ) -> f64 {
        let (mut count, mut threshold) = (other.zero_count, other.zero_threshold);
        while threshold != self.zero_threshold {
            if self.zero_threshold > threshold {
                (count, threshold) = other.zero_count_within(self.zero_threshold);
            }
            if threshold > self.zero_threshold {
                let (own_count, own_threshold) = self.zero_count_within(threshold);
                if let Some(compensation) = compensation.as_deref_mut() {
                    compensation.absorb_compensation(own_threshold);
                }
                (self.zero_count, self.zero_threshold) = (own_count, own_threshold);
                self.drop_buckets_in_zero_bucket();
                if let Some(compensation) = compensation.as_deref_mut() {
                    compensation.follow_layout(self);
                }
            }
        }
        count
    }

    /// What the zero count would be with a zero bucket of at least the width `threshold`, and
    /// the width that it needs so as not to cut a populated bucket.
    pub(super) fn zero_count_within(&self, mut threshold: f64) -> (f64, f64) {
        if threshold == self.zero_threshold {
            return (self.zero_count, threshold);
        }
        loop {
            let mut count = self.zero_count;
            let mut cut = None;
            for bucket in self.positive().take_while(|bucket| bucket.lower < threshold) {
                count += bucket.count;
                if bucket.upper > threshold {
                    if bucket.count != 0.0 {
                        threshold = bucket.upper;
                    }
                    break;
                }
            }
            for bucket in self.negative().take_while(|bucket| bucket.upper > -threshold) {
                count += bucket.count;
                if bucket.lower < -threshold {
                    if bucket.count != 0.0 {
                        cut = Some(-bucket.lower);
                    }
                    break;
                }
            }
            match cut {
                // The positive side was counted for a width that does not hold: again.
                Some(wider) => threshold = wider,
                None => return (count, threshold),
            }
        }
    }

    fn drop_buckets_in_zero_bucket(&mut self) {
        let (schema, threshold) = (self.schema, self.zero_threshold);
        let within = |index: i32| bounds::exponential_bound(index.wrapping_sub(1), schema) < threshold;
        for (spans, counts) in [
            (&mut self.positive_spans, &mut self.positive_buckets),
            (&mut self.negative_spans, &mut self.negative_buckets),
        ] {
            let kept: Vec<_> =
                indexes(spans).zip(counts.iter().copied()).filter(|(i, _)| !within(*i)).collect();
            (*spans, *counts) = layout::lay_out(kept.into_iter().filter(|(_, count)| *count != 0.0));
        }
    }

    /// Moves the compensation of buckets below `threshold` into that of the zero bucket.
    fn absorb_compensation(&mut self, threshold: f64) {
        let (schema, mut absorbed) = (self.schema, 0.0);
        for (spans, counts) in
            [(&self.positive_spans, &self.positive_buckets), (&self.negative_spans, &self.negative_buckets)]
        {
            absorbed += indexes(spans)
                .zip(counts)
                .filter(|(i, _)| bounds::exponential_bound(i.wrapping_sub(1), schema) < threshold)
                .map(|(_, count)| count)
                .sum::<f64>();
        }
        self.zero_count += absorbed;
    }

    /// Cuts a compensation down to the buckets that its sum has left.
    fn follow_layout(&mut self, sum: &FloatHistogram) {
        self.zero_threshold = sum.zero_threshold;
        for (spans, counts, target) in [
            (&mut self.positive_spans, &mut self.positive_buckets, &sum.positive_spans),
            (&mut self.negative_spans, &mut self.negative_buckets, &sum.negative_spans),
        ] {
            let own: Vec<(i32, f64)> = indexes(spans).zip(counts.iter().copied()).collect();
            let mut own = own.into_iter().peekable();
            let kept = indexes(target).map(|index| {
                while own.next_if(|(i, _)| *i < index).is_some() {}
                own.next_if(|(i, _)| *i == index).map_or(0.0, |(_, c)| c)
            });
            *counts = kept.collect();
            spans.clone_from(target);
        }
    }
}
