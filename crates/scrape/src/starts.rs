//! When the counters of an answer started: the `_created` lines of OpenMetrics.
//!
//! ```text
//! # TYPE requests counter
//! requests_total{code="200"} 17          ─► sample, waits for the start of {code="200"}
//! requests_created{code="200"} 1.76e9    ─► start of {code="200"}, no series of its own
//! ```
//!
//! Lines of one family stand together, so starts meet their samples where the family ends.

use std::collections::HashMap;

use foldhash::fast::FixedState;
use tidewatch_ingest::{Parser, Series};
use tidewatch_model::{Labels, LabelsBuilder, METRIC_NAME, MetricType};

use crate::room;

/// What is known of the family that is being read.
pub(crate) struct Starts {
    family: Vec<u8>,
    has_starts: bool,
    /// Places of samples, with the labels that they share with their start.
    waiting: Vec<(usize, Labels)>,
    /// Milliseconds, by labels.
    created: HashMap<Labels, i64, FixedState>,
    builder: LabelsBuilder,
}

impl Starts {
    /// The seed keeps a hostile target from choosing labels that collide.
    pub(crate) fn new(seed: u64) -> Starts {
        Starts {
            family: Vec::new(),
            has_starts: false,
            waiting: Vec::new(),
            created: HashMap::with_hasher(FixedState::with_seed(seed)),
            builder: LabelsBuilder::new(),
        }
    }

    /// Forgets what a scrape that failed has left: places are of its samples.
    pub(crate) fn clear(&mut self) {
        room::empty(&mut self.waiting);
        self.forget_created();
        self.family = Vec::new();
        self.has_starts = false;
    }

    /// A family begins; the one before has ended. `set` gets places of samples and their starts.
    pub(crate) fn family(&mut self, family: &[u8], kind: MetricType, set: impl FnMut(usize, i64)) {
        self.finish(set);
        self.family.clear();
        self.family.extend_from_slice(family);
        self.has_starts = matches!(kind, MetricType::Counter | MetricType::Histogram | MetricType::Summary);
    }

    /// The last family has ended.
    pub(crate) fn finish(&mut self, mut set: impl FnMut(usize, i64)) {
        for (place, labels) in self.waiting.drain(..) {
            if let Some(start) = self.created.get(&labels) {
                set(place, *start);
            }
        }
        self.forget_created();
    }

    /// To empty a table takes as long as it is large, and there may be many families behind a large one.
    fn forget_created(&mut self) {
        let needed = self.created.len();
        self.created.clear();
        if room::is_excess(self.created.capacity(), needed) {
            self.created.shrink_to(needed);
        }
    }

    /// Whether a line says when a counter started; it is taken note of then.
    pub(crate) fn take(&mut self, parser: &Parser<'_>, series: &Series<'_>) -> bool {
        let suffix = series.text.strip_prefix(self.family.as_slice());
        let is_created = suffix.and_then(|suffix| suffix.strip_prefix(b"_created"));
        let is_start = self.has_starts
            && is_created.is_some_and(|rest| rest.is_empty() || rest[0] == b'{')
            && series.value.is_finite();
        if is_start && let Some(labels) = self.labels(parser) {
            self.created.insert(labels, (series.value * 1000.0) as i64);
        }
        is_start
    }

    /// Notes a sample at `place` that may have a start.
    pub(crate) fn note(&mut self, parser: &Parser<'_>, series: &Series<'_>, place: usize) {
        if self.has_starts
            && series.text.starts_with(&self.family)
            && let Some(labels) = self.labels(parser)
        {
            self.waiting.push((place, labels));
        }
    }

    /// The labels that the lines of one point share.
    fn labels(&mut self, parser: &Parser<'_>) -> Option<Labels> {
        parser.labels(&mut self.builder).ok()?;
        [METRIC_NAME, "le", "quantile"].into_iter().for_each(|name| self.builder.remove(name));
        Some(self.builder.build())
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use tidewatch_ingest::{Entry, Format};

    use super::*;

    #[test]
    fn a_large_family_leaves_no_room_behind() {
        let mut text = "# TYPE a counter\n".to_owned();
        (0..20_000).for_each(|i| writeln!(text, "a_created{{i=\"{i}\"}} 1").expect("memory"));
        text += "# TYPE b counter\nb_created 1\n# EOF\n";
        let mut parser = Parser::new(text.as_bytes(), Format::OpenMetrics);
        let mut starts = Starts::new(1);
        loop {
            match parser.next_entry().expect("good") {
                Entry::Type { family, kind } => starts.family(family, kind, |_, _| ()),
                Entry::Series(series) => assert!(starts.take(&parser, &series)),
                _ => break,
            }
        }
        assert!(starts.created.capacity() > 20_000);
        starts.finish(|_, _| ());
        assert!(starts.created.capacity() < 5000, "{}", starts.created.capacity());
    }
}
