//! `histogram </ x` and `histogram >/ x`: what is left below or above a value.
//!
//! A bucket that the value cuts is split by interpolation: linearly in custom buckets and in
//! the zero bucket, on a logarithmic scale in exponential ones. The sum loses for each removed
//! observation an estimate of where in its bucket it lay.

use super::{Bucket, FloatHistogram};

impl FloatHistogram {
    /// Removes the observations above `limit`.
    pub fn trim_above(&mut self, limit: f64) {
        self.trim(limit, true);
    }

    /// Removes the observations below `limit`.
    pub fn trim_below(&mut self, limit: f64) {
        self.trim(limit, false);
    }

    fn trim(&mut self, limit: f64, upper: bool) {
        let custom = self.uses_custom_buckets();
        let (positive, negative): (Vec<_>, Vec<_>) = (self.positive().collect(), self.negative().collect());
        let populated = || positive.iter().filter(|bucket| bucket.count != 0.0);
        let has_negative = negative.iter().any(|bucket| bucket.count != 0.0)
            || custom && populated().any(|bucket| bucket.upper <= 0.0 || bucket.lower < 0.0);
        let has_positive = populated().any(|bucket| !custom || bucket.upper > 0.0);
        let (mut kept, mut removed_sum) = (0.0, 0.0);
        let sides =
            [(&positive, &mut self.positive_buckets, true), (&negative, &mut self.negative_buckets, false)];
        for (buckets, counts, is_positive) in sides {
            for (bucket, count) in buckets.iter().zip(counts).filter(|(bucket, _)| bucket.count != 0.0) {
                let trimmed = trim_bucket(bucket, limit, upper, is_positive, custom);
                *count = trimmed.kept;
                kept += trimmed.kept;
                removed_sum += trimmed.removed_sum;
            }
        }
        if self.zero_count > 0.0 {
            let below = split(&self.zero_bucket(), limit, true, true);
            self.zero_count = if upper { below } else { self.zero_count - below };
            kept += self.zero_count;
        }
        let sum = if kept == 0.0 { 0.0 } else { self.sum - removed_sum };
        let impossible = !has_negative && sum < 0.0 || !has_positive && sum > 0.0;
        self.sum = if impossible { 0.0 } else { sum };
        self.count = kept;
        self.compact();
    }
}

struct Trimmed {
    kept: f64,
    removed_sum: f64,
}

fn trim_bucket(bucket: &Bucket, limit: f64, upper: bool, positive: bool, custom: bool) -> Trimmed {
    let inside = if upper { bucket.upper <= limit } else { bucket.lower >= limit };
    if inside {
        return Trimmed { kept: bucket.count, removed_sum: 0.0 };
    }
    let (kept, midpoint) = if bucket.lower.is_infinite() || bucket.upper.is_infinite() {
        split_infinite(bucket, limit, upper)
    } else {
        let below = split(bucket, limit, positive, custom);
        if upper {
            (below, midpoint(bucket, bucket.lower * limit, custom, positive))
        } else {
            (bucket.count - below, midpoint(bucket, limit * bucket.upper, custom, positive))
        }
    };
    let cut = if upper { bucket.lower < limit } else { bucket.upper > limit };
    if cut {
        return Trimmed { kept, removed_sum: (bucket.count - kept) * midpoint };
    }
    // All of the bucket goes. Prometheus takes the geometric mean without its sign here, for
    // negative buckets too.
    let midpoint = if custom { midpoint } else { (bucket.lower * bucket.upper).sqrt() };
    Trimmed { kept: 0.0, removed_sum: bucket.count * midpoint }
}

/// How many observations of the bucket lie at or below `limit`.
fn split(bucket: &Bucket, limit: f64, positive: bool, linear: bool) -> f64 {
    if limit <= bucket.lower {
        return 0.0;
    }
    if limit >= bucket.upper {
        return bucket.count;
    }
    let fraction = if linear {
        (limit - bucket.lower) / (bucket.upper - bucket.lower)
    } else {
        let [lower, upper, limit] = [bucket.lower, bucket.upper, limit].map(|v| v.abs().log2());
        if positive { (limit - lower) / (upper - lower) } else { 1.0 - (limit - upper) / (lower - upper) }
    };
    bucket.count * fraction
}

/// Kept observations and the place of the removed ones, for a bucket with an infinite bound.
/// Nothing is known of the distribution there, so that the bucket goes whole; only between
/// zero and a first finite bound, where zero counts as the lower end, it is split.
fn split_infinite(bucket: &Bucket, limit: f64, upper: bool) -> (f64, f64) {
    if bucket.lower == f64::NEG_INFINITY {
        let splits = limit >= 0.0 && bucket.upper > limit && bucket.upper != f64::INFINITY;
        return match (upper, splits) {
            (true, _) if limit >= bucket.upper => (bucket.count, 0.0),
            (true, true) => (bucket.count * limit / bucket.upper, (limit + bucket.upper) / 2.0),
            (false, _) if limit <= bucket.lower => (bucket.count, 0.0),
            (false, true) => (bucket.count * (1.0 - limit / bucket.upper), limit / 2.0),
            _ => (0.0, bucket.upper),
        };
    }
    if !upper && limit <= bucket.lower { (bucket.count, 0.0) } else { (0.0, bucket.lower) }
}

fn midpoint(bucket: &Bucket, product: f64, linear: bool, positive: bool) -> f64 {
    match (linear, positive) {
        (true, _) => (bucket.lower + bucket.upper) / 2.0,
        (false, true) => product.abs().sqrt(),
        (false, false) => -product.abs().sqrt(),
    }
}
