//! A block of a source that has its series in the order of their labels: it becomes one of ours as
//! it is read.

use tidewatch_model::histogram::CounterResetHint;
use tidewatch_model::{Labels, NativeHistogram};

use super::{BackfillError, sift};
use crate::block::{StoredRun, StoredValues, Writer};
use crate::head::histograms::stored_hint;

/// See the module. Made by [`super::Backfill::sorted`] and handed to [`super::Backfill::keep`].
pub struct SortedBlock {
    pub(super) writer: Writer,
    /// The end is not included.
    range: std::ops::Range<i64>,
    /// The series that is open, and its newest sample.
    labels: Option<Labels>,
    newest: i64,
    /// That sample, if it is a histogram.
    histogram: Option<NativeHistogram>,
}

impl SortedBlock {
    pub(super) fn new(writer: Writer, range: std::ops::Range<i64>) -> SortedBlock {
        SortedBlock { writer, range, labels: None, newest: i64::MIN, histogram: None }
    }

    /// Whether samples ascend, lie in the block's range, and come behind those that it has.
    pub fn takes(&self, labels: &Labels, times: &[i64]) -> bool {
        let (Some(first), Some(last)) = (times.first(), times.last()) else { return true };
        let ascends = times.is_sorted_by(|a, b| a < b);
        let is_behind = match &self.labels {
            Some(open) if open == labels => self.newest < *first,
            open => open.as_ref().is_none_or(|open| open < labels),
        };
        ascends && is_behind && self.range.contains(first) && self.range.contains(last)
    }

    /// Writes samples of a series. Gives what can not be stored of them, in words. The caller has
    /// asked [`super::Backfill::check`] about the labels.
    ///
    /// # Panics
    /// If the block does not take them, see [`SortedBlock::takes`].
    pub fn push(&mut self, labels: &Labels, run: &StoredRun<'_>) -> Result<Option<String>, BackfillError> {
        assert!(self.takes(labels, run.timestamps), "the caller has asked");
        if self.labels.as_ref() != Some(labels) {
            self.writer.series(labels)?;
            self.labels = Some(labels.clone());
            self.histogram = None;
        }
        let Some(sifted) = sift(labels, run) else {
            self.write(run)?;
            return Ok(None);
        };
        for row in sifted.rows {
            let values = match run.values {
                StoredValues::Floats(values) => StoredValues::Floats(&values[row..=row]),
                StoredValues::Histograms(values) => StoredValues::Histograms(&values[row..=row]),
            };
            let starts = run.starts.map(|starts| &starts[row..=row]);
            self.write(&StoredRun { timestamps: &run.timestamps[row..=row], values, starts })?;
        }
        Ok(Some(sifted.reason))
    }

    fn write(&mut self, run: &StoredRun<'_>) -> Result<(), BackfillError> {
        let Some(newest) = run.timestamps.last() else { return Ok(()) };
        self.newest = *newest;
        let StoredValues::Histograms(histograms) = run.values else {
            self.histogram = None;
            return Ok(self.writer.run(run)?);
        };
        let mut histograms = histograms.to_vec();
        relate(&mut histograms, self.histogram.as_ref());
        self.writer.run(&StoredRun { values: StoredValues::Histograms(&histograms), ..*run })?;
        self.histogram = histograms.pop();
        Ok(())
    }
}

/// Gives histograms that follow one another the hints that they are stored with: what their
/// source says of the one before may be of another one.
pub(super) fn relate(histograms: &mut [NativeHistogram], before: Option<&NativeHistogram>) {
    for at in 0..histograms.len() {
        let (done, rest) = histograms.split_at_mut(at);
        let histogram = &mut rest[0];
        if histogram.is_stale() {
            *histogram = NativeHistogram::stale();
            histogram.set_hint(CounterResetHint::Unknown);
            continue;
        }
        let hint = stored_hint(histogram, done.last().or(before));
        histogram.set_hint(hint);
    }
}
