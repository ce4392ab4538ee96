//! Spans and counts of one side: walking, merging, compacting, reducing.
//!
//! Every function that changes a side goes by sorted pairs of bucket index and count and lays
//! them out afresh, so that there is one place that knows how offsets add up.

use super::Span;
use super::bounds::coarser_index;

/// The indexes of the buckets that the spans cover, in order.
pub(super) fn indexes(spans: &[Span]) -> impl Iterator<Item = i32> + Clone + '_ {
    let mut next = 0i32;
    spans.iter().flat_map(move |span| {
        let first = next.wrapping_add(span.offset);
        next = first.wrapping_add(span.length as i32);
        first..next
    })
}

/// Appends bucket `index`, which lies after the last of `spans`; `end` is one past that last.
fn extend_spans(spans: &mut Vec<Span>, end: &mut i32, index: i32) {
    match spans.last_mut() {
        Some(last) if index == *end => last.length += 1,
        Some(_) => spans.push(Span { offset: index - *end, length: 1 }),
        None => spans.push(Span { offset: index, length: 1 }),
    }
    *end = index + 1;
}

/// Lays out buckets whose indexes ascend.
pub(super) fn lay_out(buckets: impl Iterator<Item = (i32, f64)>) -> (Vec<Span>, Vec<f64>) {
    let (mut spans, mut counts, mut end) = (Vec::new(), Vec::new(), 0);
    for (index, count) in buckets {
        extend_spans(&mut spans, &mut end, index);
        counts.push(count);
    }
    (spans, counts)
}

/// Whether the spans cover the same buckets, however they are cut.
pub(super) fn same_layout(a: &[Span], b: &[Span]) -> bool {
    a == b || indexes(a).eq(indexes(b))
}

/// Drops empty buckets and joins spans without a gap between them.
pub(super) fn compact(spans: &mut Vec<Span>, counts: &mut Vec<f64>) {
    let tidy = counts.iter().all(|count| *count != 0.0)
        && spans.iter().enumerate().all(|(i, span)| span.length > 0 && (i == 0 || span.offset > 0));
    if tidy {
        return;
    }
    let pairs: Vec<_> = indexes(spans).zip(counts.iter().copied()).collect();
    (*spans, *counts) = lay_out(pairs.into_iter().filter(|(_, count)| *count != 0.0));
}

/// Merges buckets down to the coarser schema `to`.
pub(super) fn reduce(spans: &[Span], counts: &[f64], from: i32, to: i32) -> (Vec<Span>, Vec<f64>) {
    let (mut new_spans, mut new_counts, mut end) = (Vec::new(), Vec::<f64>::new(), 0);
    for (index, count) in indexes(spans).zip(counts) {
        let index = coarser_index(index, from, to);
        match new_counts.last_mut() {
            Some(last) if index == end - 1 => *last += count,
            _ => {
                extend_spans(&mut new_spans, &mut end, index);
                new_counts.push(*count);
            }
        }
    }
    (new_spans, new_counts)
}

/// A side as a sum and its compensation, for [`merge`].
pub(super) struct Side<'a> {
    pub spans: &'a mut Vec<Span>,
    pub counts: &'a mut Vec<f64>,
    /// Absent where the operation does not compensate.
    pub compensation: Option<&'a mut Vec<f64>>,
}

/// Adds `(index, count)` pairs, ascending, into `side` through `add`, which gets the sum and the
/// compensation so far. Buckets that the side lacks begin at zero.
pub(super) fn merge(
    side: Side<'_>,
    other: impl Iterator<Item = (i32, f64)> + Clone,
    add: impl Fn(f64, &mut f64, &mut f64),
) {
    let mut none = Vec::new();
    let compensation = side.compensation.unwrap_or(&mut none);
    if indexes(side.spans).eq(other.clone().map(|(index, _)| index)) {
        compensation.resize(side.counts.len(), 0.0);
        for (((_, count), sum), c) in other.zip(side.counts).zip(compensation) {
            add(count, sum, c);
        }
        return;
    }
    compensation.resize(side.counts.len(), 0.0);
    let (mut spans, mut counts, mut compensations, mut end) = (Vec::new(), Vec::new(), Vec::new(), 0);
    let mut push = |index: i32, count: f64, c: f64| {
        extend_spans(&mut spans, &mut end, index);
        counts.push(count);
        compensations.push(c);
    };
    let mut mine = indexes(side.spans).zip(side.counts.iter().zip(compensation.iter())).peekable();
    for (index, count) in other {
        while let Some((i, (sum, c))) = mine.next_if(|(i, _)| *i < index) {
            push(i, *sum, *c);
        }
        let (mut sum, mut c) = (0.0, 0.0);
        if let Some((_, (s, k))) = mine.next_if(|(i, _)| *i == index) {
            (sum, c) = (*s, *k);
        }
        add(count, &mut sum, &mut c);
        push(index, sum, c);
    }
    for (i, (sum, c)) in mine {
        push(i, *sum, *c);
    }
    (*side.spans, *side.counts, *compensation) = (spans, counts, compensations);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(buckets: &[(i32, f64)]) -> (Vec<Span>, Vec<f64>) {
        lay_out(buckets.iter().copied())
    }

    #[test]
    fn buckets_are_laid_out_in_spans_and_walked_back() {
        let (spans, counts) = side(&[(-3, 1.0), (-2, 2.0), (4, 3.0)]);
        assert_eq!(spans, [Span { offset: -3, length: 2 }, Span { offset: 5, length: 1 }]);
        assert_eq!(indexes(&spans).zip(counts).collect::<Vec<_>>(), [(-3, 1.0), (-2, 2.0), (4, 3.0)]);
    }

    #[test]
    fn compacting_drops_empty_buckets_and_joins_spans() {
        let mut spans = vec![Span { offset: 1, length: 2 }, Span { offset: 0, length: 2 }];
        let mut counts = vec![0.0, 1.0, 2.0, 0.0];
        compact(&mut spans, &mut counts);
        assert_eq!((spans, counts), (vec![Span { offset: 2, length: 2 }], vec![1.0, 2.0]));
    }

    #[test]
    fn merging_keeps_the_buckets_of_both() {
        let (mut spans, mut counts) = side(&[(1, 1.0), (3, 3.0), (9, 9.0)]);
        let target = Side { spans: &mut spans, counts: &mut counts, compensation: None };
        merge(target, [(0, 10.0), (3, 30.0), (10, 40.0)].into_iter(), |count, sum, _| *sum += count);
        let merged: Vec<_> = indexes(&spans).zip(counts).collect();
        assert_eq!(merged, [(0, 10.0), (1, 1.0), (3, 33.0), (9, 9.0), (10, 40.0)]);
    }
}
