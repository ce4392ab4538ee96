//! Whether a counter was reset between two histograms.

use super::layout::indexes;
use super::{CounterResetHint, FloatHistogram, Span, bounds, custom};

impl FloatHistogram {
    /// Whether this histogram cannot follow `previous` without a counter reset between them.
    /// A hint that says so is trusted; else every count is compared.
    pub fn detect_reset(&self, previous: &FloatHistogram) -> bool {
        match self.hint {
            CounterResetHint::Reset => return true,
            CounterResetHint::NotReset => return false,
            CounterResetHint::Unknown | CounterResetHint::Gauge => {}
        }
        if self.count < previous.count {
            return true;
        }
        if self.uses_custom_buckets() {
            if !previous.uses_custom_buckets() {
                return true;
            }
            if self.custom_bounds() != previous.custom_bounds() {
                let shared = custom::intersect(self.custom_bounds(), previous.custom_bounds());
                let (now, before) = (custom::map_to(self, &shared), custom::map_to(previous, &shared));
                return now.iter().zip(&before).any(|(now, before)| now < before);
            }
        }
        // A finer schema or a narrower zero bucket comes with a new counter only.
        if self.schema > previous.schema || self.zero_threshold < previous.zero_threshold {
            return true;
        }
        let (zero_count, threshold) = previous.zero_count_within(self.zero_threshold);
        if threshold != self.zero_threshold || self.zero_count < zero_count {
            return true;
        }
        let reduced;
        let previous = if previous.schema > self.schema {
            reduced = previous.at_schema(self.schema);
            &reduced
        } else {
            previous
        };
        let custom = self.uses_custom_buckets();
        let outside =
            |index: i32| custom || bounds::exponential_bound(index, self.schema) > self.zero_threshold;
        decreased(
            (&self.positive_spans, &self.positive_buckets),
            (&previous.positive_spans, &previous.positive_buckets),
            outside,
        ) || decreased(
            (&self.negative_spans, &self.negative_buckets),
            (&previous.negative_spans, &previous.negative_buckets),
            outside,
        )
    }
}

/// Whether a bucket for which `outside` holds has fewer observations now than before.
fn decreased(now: (&[Span], &[f64]), before: (&[Span], &[f64]), outside: impl Fn(i32) -> bool) -> bool {
    let mut now = indexes(now.0).zip(now.1).peekable();
    indexes(before.0).zip(before.1).filter(|(index, _)| outside(*index)).any(|(index, before)| {
        while now.next_if(|(i, _)| *i < index).is_some() {}
        let now = now.next_if(|(i, _)| *i == index).map_or(0.0, |(_, count)| *count);
        now < *before
    })
}
