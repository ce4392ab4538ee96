//! Quantiles of values, of classic buckets and of native histograms, and fractions of both.

use tidewatch_model::FloatHistogram;
use tidewatch_model::histogram::Bucket;
use tidewatch_parser::PosRange;

use crate::notes::Notes;

/// The φ-quantile of `values`, which are sorted on the way, NaN first; between two values by
/// weight. NaN of nothing, −∞ below 0, +∞ above 1.
pub(crate) fn quantile(q: f64, values: &mut [f64]) -> f64 {
    let (lower, weight) = match rank(q, values.len()) {
        Ok(rank) => rank,
        Err(without) => return without,
    };
    let (_, low, above) = values.select_nth_unstable_by(lower, nan_first);
    let low = *low;
    let high = above.iter().copied().min_by(nan_first).unwrap_or(low);
    low * (1.0 - weight) + high * weight
}

/// As [`quantile`], of values that are sorted already.
pub(crate) fn of_sorted(q: f64, values: &[f64]) -> f64 {
    match rank(q, values.len()) {
        Ok((lower, weight)) => {
            let high = values[(lower + 1).min(values.len() - 1)];
            values[lower] * (1.0 - weight) + high * weight
        }
        Err(without) => without,
    }
}

/// The index of the value below a quantile, and the weight of the one after it; or the quantile
/// that needs no values.
fn rank(q: f64, count: usize) -> Result<(usize, f64), f64> {
    if count == 0 || q.is_nan() {
        return Err(f64::NAN);
    }
    if q < 0.0 {
        return Err(f64::NEG_INFINITY);
    }
    if q > 1.0 {
        return Err(f64::INFINITY);
    }
    let rank = q * (count as f64 - 1.0);
    Ok((rank.floor() as usize, rank - rank.floor()))
}

/// Ascending, NaN before all numbers.
pub(crate) fn nan_first(a: &f64, b: &f64) -> std::cmp::Ordering {
    b.is_nan().cmp(&a.is_nan()).then(a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal))
}

/// A classic bucket: cumulative count of observations up to `upper`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ClassicBucket {
    pub upper: f64,
    pub count: f64,
}

/// Where classic buckets were mended so that counts do not decrease.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Mended {
    pub bucket_min: f64,
    pub bucket_max: f64,
    pub difference_max: f64,
}

/// Relative difference of counts that is taken for an error of rounding.
const TOLERANCE: f64 = 1e-12;

/// Sorts buckets and joins those of equal bounds. `false` where the highest is not +∞.
fn prepare(buckets: &mut Vec<ClassicBucket>) -> bool {
    buckets.sort_by(|a, b| a.upper.total_cmp(&b.upper));
    if buckets.last().is_none_or(|last| last.upper != f64::INFINITY) {
        return false;
    }
    buckets.dedup_by(|next, kept| {
        let same = next.upper == kept.upper;
        kept.count += if same { next.count } else { 0.0 };
        same
    });
    true
}

/// The φ-quantile of a classic histogram, linear within a bucket.
pub(crate) fn classic_quantile(q: f64, buckets: &mut Vec<ClassicBucket>) -> (f64, Option<Mended>) {
    if q.is_nan() {
        return (f64::NAN, None);
    }
    if !(0.0..=1.0).contains(&q) {
        return (if q < 0.0 { f64::NEG_INFINITY } else { f64::INFINITY }, None);
    }
    if !prepare(buckets) {
        return (f64::NAN, None);
    }
    let mended = make_monotonic(buckets);
    let highest = buckets.len() - 1;
    let observations = buckets[highest].count;
    if highest == 0 || observations == 0.0 || observations.is_nan() {
        return (f64::NAN, mended);
    }
    let mut rank = q * observations;
    let found = buckets[..highest].iter().position(|bucket| bucket.count >= rank).unwrap_or(highest);
    let bucket = buckets[found];
    if found == highest {
        return (buckets[highest - 1].upper, mended);
    }
    if found == 0 && bucket.upper <= 0.0 {
        return (bucket.upper, mended);
    }
    let (mut start, mut count) = (0.0, bucket.count);
    if found > 0 {
        let below = buckets[found - 1];
        start = below.upper;
        count -= below.count;
        rank -= below.count;
    }
    (start + (bucket.upper - start) * (rank / count), mended)
}

/// Makes counts ascend; differences that are rounding errors do not count as mended.
fn make_monotonic(buckets: &mut [ClassicBucket]) -> Option<Mended> {
    let mut mended = None;
    let mut previous = buckets[0].count;
    for bucket in &mut buckets[1..] {
        let count = bucket.count;
        if count == previous {
            continue;
        }
        if almost_equal(previous, count) {
            bucket.count = previous;
        } else if count < previous {
            bucket.count = previous;
            let m = mended.get_or_insert(Mended {
                bucket_min: f64::INFINITY,
                bucket_max: f64::NEG_INFINITY,
                difference_max: 0.0,
            });
            m.bucket_min = m.bucket_min.min(bucket.upper);
            m.bucket_max = m.bucket_max.max(bucket.upper);
            m.difference_max = m.difference_max.max(previous - count);
        } else {
            previous = count;
        }
    }
    mended
}

fn almost_equal(a: f64, b: f64) -> bool {
    if a == b || a.is_nan() && b.is_nan() {
        return true;
    }
    let (sum, difference) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < TOLERANCE * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < TOLERANCE
}

/// The share of observations between two values in a classic histogram.
pub(crate) fn classic_fraction(lower: f64, upper: f64, buckets: &mut Vec<ClassicBucket>) -> f64 {
    if !prepare(buckets) {
        return f64::NAN;
    }
    let total = buckets[buckets.len() - 1].count;
    if total == 0.0 || total.is_nan() || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let first = if buckets[0].upper <= 0.0 { f64::NEG_INFINITY } else { 0.0 };
    let starts = std::iter::once(first).chain(buckets.iter().map(|bucket| bucket.upper));
    let parts = starts.zip(&*buckets).scan(0.0, |below, (start, bucket)| {
        let part = Part { lower: start, upper: bucket.upper, count: bucket.count - *below, below: *below };
        *below = bucket.count;
        Some((part, true))
    });
    let (low, high) = ranks(lower, upper, total, parts);
    (high - low) / total
}

/// A bucket with the observations below it.
struct Part {
    lower: f64,
    upper: f64,
    count: f64,
    below: f64,
}

impl Part {
    /// How many observations lie below `value`, which is within this part.
    fn rank(&self, value: f64, linear: bool) -> f64 {
        if !linear {
            return self.below + self.count * exponential_share(self.lower, self.upper, value);
        }
        if self.lower == f64::NEG_INFINITY {
            return self.count + self.below;
        }
        self.below + self.count * (value - self.lower) / (self.upper - self.lower)
    }
}

/// How far `value` is from `lower` to `upper` on a logarithmic scale.
fn exponential_share(lower: f64, upper: f64, value: f64) -> f64 {
    let [low, high, at] = [lower, upper, value].map(|v| v.abs().log2());
    if value > 0.0 { (at - low) / (high - low) } else { 1.0 - (at - high) / (low - high) }
}

/// Observations below `lower` and below `upper`, among parts that ascend, each with whether it is
/// interpolated linearly.
fn ranks(lower: f64, upper: f64, total: f64, parts: impl Iterator<Item = (Part, bool)>) -> (f64, f64) {
    let (mut low, mut high) = (None, None);
    for (part, linear) in parts {
        for (rank, value) in [(&mut low, lower), (&mut high, upper)] {
            if rank.is_none() && part.lower >= value {
                *rank = Some(part.below);
            } else if rank.is_none() && part.upper > value {
                *rank = Some(part.rank(value, linear));
            }
        }
        if low.is_some() && high.is_some() {
            break;
        }
    }
    let capped = |rank: Option<f64>| match rank {
        Some(rank) if rank > total => total,
        Some(rank) => rank,
        None => total,
    };
    (capped(low), capped(high))
}

/// The φ-quantile of a native histogram: linear in custom buckets and in the zero bucket,
/// exponential elsewhere.
pub(crate) fn native_quantile(
    q: f64,
    histogram: &FloatHistogram,
    name: &str,
    pos: PosRange,
    notes: &mut Notes,
) -> f64 {
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    if histogram.count == 0.0 || q.is_nan() {
        return f64::NAN;
    }
    // NaN observations are counted but stand in no bucket, so that only the way up is right then.
    let forward = histogram.sum.is_nan() || q < 0.5;
    let mut rank = if forward { q * histogram.count } else { (1.0 - q) * histogram.count };
    let mut buckets: Vec<Bucket> = histogram.all_buckets().collect();
    if !forward {
        buckets.reverse();
    }
    let none = Bucket {
        lower: 0.0,
        upper: 0.0,
        lower_inclusive: false,
        upper_inclusive: false,
        count: 0.0,
        index: 0,
    };
    let (mut bucket, mut count, mut seen) = (none, 0.0, 0);
    for next in &buckets {
        (bucket, seen) = (*next, seen + 1);
        count += next.count;
        if next.count != 0.0 && count >= rank {
            break;
        }
    }
    if !histogram.uses_custom_buckets() {
        bucket = zero_bounded(histogram, bucket, bucket.lower < 0.0 && bucket.upper > 0.0);
    } else if bucket.lower == f64::NEG_INFINITY {
        if bucket.upper <= 0.0 {
            return bucket.upper;
        }
        bucket.lower = 0.0;
    } else if bucket.upper == f64::INFINITY {
        return bucket.lower;
    }
    count = count.min(histogram.count);
    if count < rank {
        if histogram.sum.is_nan() {
            notes.quantile_nan(name, pos);
            return f64::NAN;
        }
        return bucket.upper;
    }
    rank = if forward { rank - (count - bucket.count) } else { count - rank };
    if histogram.sum.is_nan() {
        count += buckets[seen..].iter().map(|bucket| bucket.count).sum::<f64>();
        if count < histogram.count {
            notes.quantile_skewed(name, pos);
        }
    }
    let share = rank / bucket.count;
    if histogram.uses_custom_buckets() || bucket.lower <= 0.0 && bucket.upper >= 0.0 {
        return bucket.lower + (bucket.upper - bucket.lower) * share;
    }
    let (low, high) = (bucket.lower.abs().log2(), bucket.upper.abs().log2());
    if bucket.lower > 0.0 {
        (low + (high - low) * share).exp2()
    } else {
        -(high + (low - high) * (1.0 - share)).exp2()
    }
}

/// A zero bucket ends at 0 on the side on which the histogram has no buckets.
fn zero_bounded(histogram: &FloatHistogram, mut bucket: Bucket, is_zero: bool) -> Bucket {
    if !is_zero {
        return bucket;
    }
    match (histogram.negative_buckets.is_empty(), histogram.positive_buckets.is_empty()) {
        (true, false) => bucket.lower = 0.0,
        (false, true) => bucket.upper = 0.0,
        _ => {}
    }
    bucket
}

/// The share of observations between two values in a native histogram.
pub(crate) fn native_fraction(
    lower: f64,
    upper: f64,
    histogram: &FloatHistogram,
    name: &str,
    pos: PosRange,
    notes: &mut Notes,
) -> f64 {
    if histogram.count == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let custom = histogram.uses_custom_buckets();
    let parts = histogram.all_buckets().scan(0.0, |below, bucket| {
        let zero = bucket.lower <= 0.0 && bucket.upper >= 0.0;
        let bucket = zero_bounded(histogram, bucket, zero);
        let part = Part { lower: bucket.lower, upper: bucket.upper, count: bucket.count, below: *below };
        *below += bucket.count;
        Some((part, custom || zero))
    });
    let mut total = histogram.count;
    if histogram.sum.is_nan() {
        let in_buckets = histogram.all_buckets().map(|bucket| bucket.count).sum::<f64>();
        if in_buckets < histogram.count {
            notes.fraction_nan(name, pos);
        }
        total = in_buckets;
    }
    let (low, high) = ranks(lower, upper, total, parts);
    (high - low) / histogram.count
}
