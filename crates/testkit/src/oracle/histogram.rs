//! Quantiles and fractions of histograms, classic and native.

use std::sync::Arc;

use tidewatch_model::histogram::Bucket;
use tidewatch_model::{FloatHistogram, Labels, SampleValue};

use super::eval::Query;
use super::{Answer, Element, distinct};

/// A histogram of the vector: the cumulative counts of its series by upper bound, or a sample.
enum Found {
    Classic(Vec<(f64, f64)>),
    Native(Arc<FloatHistogram>),
}

/// `histogram_quantile`
pub(super) fn quantile(query: &Query<'_>, q: f64, vector: Vec<Element>) -> Result<Answer, String> {
    if !(0.0..=1.0).contains(&q) {
        query.warn();
    }
    of_each(query, vector, |found| match found {
        Found::Classic(buckets) => classic_quantile(q, buckets),
        Found::Native(histogram) => native_quantile(q, &histogram),
    })
}

/// `histogram_fraction`, of classic histograms.
pub(super) fn fraction(
    query: &Query<'_>,
    lower: f64,
    upper: f64,
    vector: Vec<Element>,
) -> Result<Answer, String> {
    of_each(query, vector, |found| match found {
        Found::Classic(buckets) => classic_fraction(lower, upper, buckets),
        Found::Native(_) => unreachable!("the oracle leaves fractions of native histograms out"),
    })
}

fn of_each(query: &Query<'_>, vector: Vec<Element>, value: impl Fn(Found) -> f64) -> Result<Answer, String> {
    let mut classics: Vec<(Labels, Vec<(f64, f64)>)> = Vec::new();
    let mut natives: Vec<(Labels, Arc<FloatHistogram>)> = Vec::new();
    for Element { labels, value } in vector {
        match value {
            SampleValue::Histogram(histogram) => natives.push((labels, histogram)),
            SampleValue::Float(count) => {
                let Ok(bound) = labels.get("le").unwrap_or_default().parse::<f64>() else {
                    query.warn();
                    continue;
                };
                let key = labels.without(|name| name == "le");
                match classics.iter_mut().find(|(labels, _)| *labels == key) {
                    Some((_, buckets)) => buckets.push((bound, count)),
                    None => classics.push((key, vec![(bound, count)])),
                }
            }
        }
    }
    let mut found: Vec<(Labels, Found)> = Vec::new();
    for (labels, histogram) in natives {
        // Of a histogram in both forms neither is trusted.
        match classics.iter().position(|(classic, _)| *classic == labels) {
            Some(both) => {
                query.warn();
                classics.remove(both);
            }
            None => found.push((labels, Found::Native(histogram))),
        }
    }
    found.extend(classics.into_iter().map(|(labels, buckets)| (labels, Found::Classic(buckets))));
    let elements = found.into_iter().map(|(labels, found)| Element {
        labels: labels.without(|name| name == "le" || name == "__name__"),
        value: SampleValue::Float(value(found)),
    });
    distinct(elements.collect())
}

/// Buckets by bound, those with equal bounds added up; `None` where the highest is not +Inf.
fn ordered(mut buckets: Vec<(f64, f64)>) -> Option<Vec<(f64, f64)>> {
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut merged: Vec<(f64, f64)> = Vec::new();
    for (bound, count) in buckets {
        match merged.last_mut() {
            Some(last) if last.0 == bound => last.1 += count,
            _ => merged.push((bound, count)),
        }
    }
    (merged.last()?.0 == f64::INFINITY).then_some(merged)
}

/// Whether two counts differ by no more than rounding explains.
fn nearly_equal(a: f64, b: f64) -> bool {
    a == b || (a - b).abs() / (a.abs() + b.abs()) < 1e-12
}

fn classic_quantile(q: f64, buckets: Vec<(f64, f64)>) -> f64 {
    match q {
        q if q.is_nan() => return f64::NAN,
        q if q < 0.0 => return f64::NEG_INFINITY,
        q if q > 1.0 => return f64::INFINITY,
        _ => {}
    }
    let Some(mut buckets) = ordered(buckets) else { return f64::NAN };
    // Cumulative counts do not decrease.
    for i in 1..buckets.len() {
        let (before, now) = (buckets[i - 1].1, buckets[i].1);
        if nearly_equal(before, now) || now < before {
            buckets[i].1 = before;
        }
    }
    let last = buckets.len() - 1;
    let total = buckets[last].1;
    if last == 0 || total == 0.0 || total.is_nan() {
        return f64::NAN;
    }
    let rank = q * total;
    let at = buckets[..last].iter().position(|(_, count)| *count >= rank).unwrap_or(last);
    if at == last {
        return buckets[last - 1].0;
    }
    let (end, count) = buckets[at];
    if at == 0 && end <= 0.0 {
        return end;
    }
    let (start, below) = if at == 0 { (0.0, 0.0) } else { buckets[at - 1] };
    start + (end - start) * ((rank - below) / (count - below))
}

fn classic_fraction(lower: f64, upper: f64, buckets: Vec<(f64, f64)>) -> f64 {
    let Some(buckets) = ordered(buckets) else { return f64::NAN };
    let total = buckets[buckets.len() - 1].1;
    if total == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    // How many observations lie below a value.
    let below = |value: f64| {
        // The first bucket begins at zero where it ends above.
        let (mut start, mut rank) = (if buckets[0].0 > 0.0 { 0.0 } else { f64::NEG_INFINITY }, 0.0);
        for (end, count) in &buckets {
            if start >= value {
                return rank;
            }
            if *end > value {
                return match start == f64::NEG_INFINITY {
                    true => *count,
                    false => rank + (count - rank) * ((value - start) / (end - start)),
                };
            }
            (start, rank) = (*end, *count);
        }
        total
    };
    (below(upper).min(total) - below(lower).min(total)) / total
}

/// From below for small φ and from above for large ones, as rounding errors are smaller then.
fn native_quantile(q: f64, histogram: &FloatHistogram) -> f64 {
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    if histogram.count == 0.0 || q.is_nan() {
        return f64::NAN;
    }
    // Observations of NaN are counted and stand above all buckets.
    let forward = histogram.sum.is_nan() || q < 0.5;
    let mut buckets: Vec<Bucket> = histogram.all_buckets().filter(|bucket| bucket.count != 0.0).collect();
    if !forward {
        buckets.reverse();
    }
    let rank = histogram.count * if forward { q } else { 1.0 - q };
    let mut count = 0.0;
    let mut last = None;
    for bucket in &buckets {
        count += bucket.count;
        last = Some(*bucket);
        if count >= rank {
            break;
        }
    }
    let Some(mut bucket) = last else { return f64::NAN };
    if histogram.uses_custom_buckets() {
        if bucket.lower == f64::NEG_INFINITY {
            if bucket.upper <= 0.0 {
                return bucket.upper;
            }
            bucket.lower = 0.0;
        } else if bucket.upper == f64::INFINITY {
            return bucket.lower;
        }
    } else if bucket.lower < 0.0 && bucket.upper > 0.0 {
        match (histogram.negative_buckets.is_empty(), histogram.positive_buckets.is_empty()) {
            (true, false) => bucket.lower = 0.0,
            (false, true) => bucket.upper = 0.0,
            _ => {}
        }
    }
    let count = count.min(histogram.count);
    if count < rank {
        return if histogram.sum.is_nan() { f64::NAN } else { bucket.upper };
    }
    let rank = if forward { rank - (count - bucket.count) } else { count - rank };
    within(&bucket, rank / bucket.count, histogram.uses_custom_buckets())
}

/// The value a fraction of a bucket's observations is below.
fn within(bucket: &Bucket, fraction: f64, custom: bool) -> f64 {
    if custom || bucket.lower <= 0.0 && bucket.upper >= 0.0 {
        return bucket.lower + (bucket.upper - bucket.lower) * fraction;
    }
    let (lower, upper) = (bucket.lower.abs().log2(), bucket.upper.abs().log2());
    if bucket.lower > 0.0 {
        return (lower + (upper - lower) * fraction).exp2();
    }
    -(upper + (lower - upper) * (1.0 - fraction)).exp2()
}
