//! `histogram </ x` and `histogram >/ x`: what is left below or above a value.
//!
//! A bucket that the value cuts is split by interpolation: linearly in custom buckets and in
//! the zero bucket, on a logarithmic scale in exponential ones. The sum is estimated afresh: what
//! is left of each bucket counts with the middle of what is left.

use super::{Bucket, FloatHistogram};

impl FloatHistogram {
    /// Removes the observations above `limit`.
    pub fn trim_above(&mut self, limit: f64) {
        self.trim(limit, Trim::Above);
    }

    /// Removes the observations below `limit`.
    pub fn trim_below(&mut self, limit: f64) {
        self.trim(limit, Trim::Below);
    }

    fn trim(&mut self, limit: f64, what: Trim) {
        let custom = self.uses_custom_buckets();
        let (positive, negative): (Vec<_>, Vec<_>) = (self.positive().collect(), self.negative().collect());
        let populated = |buckets: &[Bucket]| buckets.iter().any(|bucket| bucket.count != 0.0);
        let zero = zero_bounds(self, populated(&positive), populated(&negative));
        let (mut count, mut sum, mut changed) = (0.0, 0.0, false);
        let mut keep = |kept: Kept, before: f64| {
            count += kept.count;
            sum += kept.count * kept.middle;
            changed |= kept.count != before;
            kept.count
        };
        let sides = [
            (&positive, &mut self.positive_buckets, Shape { positive: true, linear: custom }),
            (&negative, &mut self.negative_buckets, Shape { positive: false, linear: custom }),
        ];
        for (buckets, counts, shape) in sides {
            for (bucket, count) in buckets.iter().zip(counts).filter(|(bucket, _)| bucket.count != 0.0) {
                *count = keep(trim_bucket(bucket, limit, what, shape), bucket.count);
            }
        }
        if self.zero_count > 0.0 {
            self.zero_count = keep(trim_zero(self.zero_count, zero, limit, what), self.zero_count);
        }
        if changed {
            (self.count, self.sum) = (count, sum);
            self.compact();
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Trim {
    Above,
    Below,
}

/// How observations are taken to lie in a bucket.
#[derive(Clone, Copy)]
struct Shape {
    positive: bool,
    linear: bool,
}

/// What is left of a bucket: how many observations, and where they lie.
struct Kept {
    count: f64,
    middle: f64,
}

const NOTHING: Kept = Kept { count: 0.0, middle: 0.0 };

fn trim_bucket(bucket: &Bucket, limit: f64, what: Trim, shape: Shape) -> Kept {
    let (whole, cut) = match what {
        Trim::Above => (bucket.upper <= limit, bucket.lower < limit),
        Trim::Below => (bucket.lower >= limit, bucket.upper > limit),
    };
    if whole {
        return Kept { count: bucket.count, middle: middle(bucket.lower, bucket.upper, shape) };
    }
    if !cut {
        return NOTHING;
    }
    if bucket.lower == f64::NEG_INFINITY {
        return trim_lowest(bucket, limit, what);
    }
    if bucket.upper == f64::INFINITY {
        // Nothing is known of where in the bucket observations lie.
        return match what {
            Trim::Above => NOTHING,
            Trim::Below => Kept { count: bucket.count, middle: limit },
        };
    }
    let below = below(bucket, limit, shape);
    match what {
        Trim::Above => Kept { count: below, middle: middle(bucket.lower, limit, shape) },
        Trim::Below => Kept { count: bucket.count - below, middle: middle(limit, bucket.upper, shape) },
    }
}

/// The custom bucket without a lower bound, cut by the limit: it is taken to begin at zero where
/// it ends above; else it stays whole when its upper part goes and goes when its lower part does.
fn trim_lowest(bucket: &Bucket, limit: f64, what: Trim) -> Kept {
    let finite = bucket.upper != f64::INFINITY;
    match what {
        Trim::Above if limit > 0.0 && finite => {
            Kept { count: bucket.count * limit / bucket.upper, middle: limit / 2.0 }
        }
        Trim::Above if bucket.upper <= 0.0 => Kept { count: bucket.count, middle: limit },
        Trim::Below if limit >= 0.0 && finite => {
            Kept { count: bucket.count * (1.0 - limit / bucket.upper), middle: (limit + bucket.upper) / 2.0 }
        }
        _ => NOTHING,
    }
}

/// How many observations of a bucket lie below a value within it.
fn below(bucket: &Bucket, limit: f64, shape: Shape) -> f64 {
    let share = if shape.linear {
        (limit - bucket.lower) / (bucket.upper - bucket.lower)
    } else {
        let [lower, upper, limit] = [bucket.lower, bucket.upper, limit].map(|v| v.abs().log2());
        match shape.positive {
            true => (limit - lower) / (upper - lower),
            false => 1.0 - (limit - upper) / (lower - upper),
        }
    };
    bucket.count * share
}

/// The arithmetic or the geometric middle; of an interval without a bound its other bound.
fn middle(lower: f64, upper: f64, shape: Shape) -> f64 {
    match (lower.is_infinite(), upper.is_infinite()) {
        (true, true) => 0.0,
        (true, false) if upper > 0.0 => upper / 2.0,
        (true, false) => upper,
        (false, true) => lower,
        (false, false) if shape.linear => (lower + upper) / 2.0,
        (false, false) => (lower * upper).abs().sqrt().copysign(if shape.positive { 1.0 } else { -1.0 }),
    }
}

/// The zero bucket ends at zero on the side on which there are no buckets.
fn zero_bounds(histogram: &FloatHistogram, positive: bool, negative: bool) -> (f64, f64) {
    let width = histogram.zero_threshold;
    (if positive && !negative { 0.0 } else { -width }, if negative && !positive { 0.0 } else { width })
}

fn trim_zero(count: f64, (lower, upper): (f64, f64), limit: f64, what: Trim) -> Kept {
    let whole = Kept { count, middle: (lower + upper) / 2.0 };
    match what {
        Trim::Above if limit <= lower => NOTHING,
        Trim::Above if limit >= upper => whole,
        Trim::Above => {
            Kept { count: count * ((limit - lower) / (upper - lower)), middle: (lower + limit) / 2.0 }
        }
        Trim::Below if limit <= lower => whole,
        Trim::Below if limit >= upper => NOTHING,
        Trim::Below => {
            Kept { count: count * ((upper - limit) / (upper - lower)), middle: (limit + upper) / 2.0 }
        }
    }
}
