//! Custom buckets whose bounds differ: both sides are mapped to the bounds that they share.

use std::sync::Arc;

use super::FloatHistogram;
use super::layout::{indexes, lay_out};

/// The bounds that both have; both ascend.
pub(super) fn intersect(a: &[f64], b: &[f64]) -> Arc<[f64]> {
    let mut rest = b.iter().peekable();
    a.iter()
        .copied()
        .filter(|bound| {
            while rest.next_if(|other| **other < *bound).is_some() {}
            rest.next_if(|other| **other == *bound).is_some()
        })
        .collect()
}

/// The counts of `histogram` by the bounds `target`, which are some of its own, and the bucket
/// above the last of them.
pub(super) fn map_to(histogram: &FloatHistogram, target: &[f64]) -> Vec<f64> {
    let mut counts = vec![0.0; target.len() + 1];
    let bounds = histogram.custom_bounds();
    let mut to = 0;
    for (index, count) in indexes(&histogram.positive_spans).zip(&histogram.positive_buckets) {
        let upper = usize::try_from(index).ok().and_then(|i| bounds.get(i)).copied().unwrap_or(f64::INFINITY);
        while to < target.len() && target[to] < upper {
            to += 1;
        }
        counts[to] += count;
    }
    counts
}

/// Replaces the bounds and the counts of `histogram`.
pub(super) fn replace(histogram: &mut FloatHistogram, bounds: Arc<[f64]>, counts: &[f64]) {
    let populated = (0..).zip(counts.iter().copied()).filter(|(_, count)| *count != 0.0);
    (histogram.positive_spans, histogram.positive_buckets) = lay_out(populated);
    histogram.custom_values = Some(bounds);
}
