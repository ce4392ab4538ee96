//! Series whose places overlap in time, or that are wanted as they are stored: the samples of all places, collected
//! and put in order.
//!
//! Floats alone are merged as columns, which costs least. Where a series has histograms or starts as well they
//! are gathered, each with the rank of its place: of two samples at one time the one of the lowest rank stays.
//!
//! Not here: series whose places follow one another, which are most (the module above).

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use tidewatch_model::NativeHistogram;
use tidewatch_storage::{Run, RunValues, Scratch, SelectError, TimeRange};

use super::columns::{Columns, rows_within, within};
use super::{DbSelection, Entry, Visit, Worker, damaged};
use crate::gather::{Gather, StoredRun, StoredValues};
use crate::head::starts::starts_of;

impl DbSelection {
    /// Gives all samples of a series of floats within the range as one run.
    pub(super) fn scan_merged(
        &self,
        series: usize,
        range: TimeRange,
        worker: &mut Worker<'_>,
        visit: &mut Visit<'_>,
    ) -> Result<ControlFlow<()>, SelectError> {
        let merged = self.merge_series(series, range, worker)?;
        if merged.times.is_empty() {
            return Ok(ControlFlow::Continue(()));
        }
        let values = RunValues::Floats(&merged.values);
        Ok(visit(series, Run { clock: None, timestamps: &merged.times, values, starts: None }))
    }

    fn merge_series(
        &self,
        series: usize,
        range: TimeRange,
        worker: &mut Worker<'_>,
    ) -> Result<Columns, SelectError> {
        let entry = &self.series[series];
        let mut merged = Columns::default();
        for part in self.parts_as_stored(entry) {
            let (block, cursor) =
                (&self.blocks[part.block as usize], &mut worker.cursors[part.block as usize]);
            let mut columns = Columns::default();
            let mut collect = |run: Run<'_>| {
                columns.push(&run);
                ControlFlow::Continue(())
            };
            let _ = block.scan(cursor, part.series, range, worker.scratch, &mut collect).map_err(damaged)?;
            self.samples.fetch_add(columns.times.len() as u64, Ordering::Relaxed);
            merged = merged.merge(columns);
        }
        let Some(head) = entry.head() else { return Ok(merged) };
        let mut columns = Columns::default();
        for run in self.head.runs(head) {
            self.decode(&run, &mut columns.values)?;
            columns.times.extend_from_slice(run.timestamps());
        }
        let late = within(self.head.late(head), range);
        let (times, values) = late.iter().map(|sample| (sample.timestamp, sample.value)).unzip();
        Ok(merged.merge(columns.within(range)).merge(Columns { times, values }))
    }

    /// Gives all samples of a series within the range in stretches of one kind.
    pub(super) fn scan_gathered(
        &self,
        series: usize,
        range: TimeRange,
        worker: &mut Worker<'_>,
        visit: &mut Visit<'_>,
    ) -> Result<ControlFlow<()>, SelectError> {
        let mut gather = Gather::default();
        self.gather(&self.series[series], range, worker, &mut gather)?;
        let histograms = &mut worker.scratch.histograms;
        let ended = gather.for_each(|StoredRun { timestamps, values, starts }| {
            let values = match values {
                StoredValues::Floats(values) => RunValues::Floats(values),
                StoredValues::Histograms(stored) => {
                    histograms.clear();
                    histograms.extend(stored.iter().map(NativeHistogram::to_float));
                    RunValues::Histograms(histograms)
                }
            };
            match visit(series, Run { clock: None, timestamps, values, starts }) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(()),
            }
        });
        Ok(if ended.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    /// Adds all samples of a series within the range to `gather`, as they are stored.
    fn gather(
        &self,
        entry: &Entry,
        range: TimeRange,
        worker: &mut Worker<'_>,
        gather: &mut Gather,
    ) -> Result<(), SelectError> {
        let mut rank = 0;
        for part in self.parts_as_stored(entry) {
            let cursor = &mut worker.cursors[part.block as usize];
            let mut collect = |run: StoredRun<'_>| {
                gather.push(rank, &run);
                ControlFlow::Continue(())
            };
            let block = &self.blocks[part.block as usize];
            let _ = block.scan_stored(cursor, part.series, range, &mut collect).map_err(damaged)?;
            rank += 1;
        }
        self.samples.fetch_add(gather.len() as u64, Ordering::Relaxed);
        match entry.head() {
            Some(head) => self.gather_head(head, range, rank, gather),
            None => Ok(()),
        }
    }

    fn gather_head(
        &self,
        head: usize,
        range: TimeRange,
        rank: u32,
        gather: &mut Gather,
    ) -> Result<(), SelectError> {
        let steps = self.head.steps(head);
        let mut starts = Vec::new();
        let mut push = |rank: u32, timestamps: &[i64], values: StoredValues<'_>| {
            starts.clear();
            starts_of(steps, timestamps, &mut starts);
            gather.push(rank, &StoredRun { timestamps, values, starts: Some(&starts) });
        };
        let mut values = Vec::new();
        for run in self.head.runs(head) {
            let rows = rows_within(run.timestamps(), range);
            values.clear();
            self.decode(&run, &mut values)?;
            push(rank, &run.timestamps()[rows.clone()], StoredValues::Floats(&values[rows]));
        }
        let (mut timestamps, mut histograms) = (Vec::new(), Vec::new());
        for run in self.head.histogram_runs(head) {
            timestamps.clear();
            histograms.clear();
            self.decode_histograms(&run, &mut timestamps, &mut histograms)?;
            let rows = rows_within(&timestamps, range);
            push(rank, &timestamps[rows.clone()], StoredValues::Histograms(&histograms[rows]));
        }
        for sample in within(self.head.late(head), range) {
            push(rank + 1, &[sample.timestamp], StoredValues::Floats(&[sample.value]));
        }
        for (timestamp, histogram) in self.head.late_histograms(head) {
            if range.start <= *timestamp && *timestamp <= range.end {
                push(rank + 1, &[*timestamp], StoredValues::Histograms(std::slice::from_ref(histogram)));
            }
        }
        Ok(())
    }

    /// Visits the samples of a series within a range as they are stored, in stretches of one kind.
    pub(crate) fn scan_stored<E: From<SelectError>>(
        &self,
        series: usize,
        range: TimeRange,
        gather: &mut Gather,
        visit: impl FnMut(StoredRun<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut scratch = Scratch::default();
        gather.clear();
        self.gather(&self.series[series], range, &mut self.worker(&mut scratch), gather)?;
        gather.for_each(visit)
    }

    /// Whether a series has neither histograms nor starts nor two kinds of samples anywhere.
    pub(crate) fn has_floats_only(&self, series: usize) -> Result<bool, SelectError> {
        let mut scratch = Scratch::default();
        Ok(!self.is_special(&self.series[series], &mut self.worker(&mut scratch))?)
    }

    /// Whether the head has more than floats of a series.
    pub(crate) fn is_special_in_head(&self, series: usize) -> bool {
        self.series[series].head().is_some_and(|head| self.head.is_special(head))
    }

    /// Whether a series has more than floats anywhere.
    pub(super) fn is_special(&self, entry: &Entry, worker: &mut Worker<'_>) -> Result<bool, SelectError> {
        if entry.head().is_some_and(|head| self.head.is_special(head)) {
            return Ok(true);
        }
        for part in self.parts(entry) {
            let cursor = &mut worker.cursors[part.block as usize];
            if self.blocks[part.block as usize].is_special(cursor, part.series).map_err(damaged)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
