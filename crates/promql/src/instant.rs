//! Instant selectors: at each step the newest sample that is not too old.

use std::ops::Range;
use std::sync::Arc;

use tidewatch_model::{FloatHistogram, Matcher, is_stale};
use tidewatch_parser::{PosRange, RangeModifier};
use tidewatch_storage::{Latest, Selection, TimeRange};

use crate::context::QueryError;
use crate::eval::{Evaluator, Tally};
use crate::functions::extended;
use crate::grid::Grid;
use crate::plan::Selector;
use crate::row::{Row, histogram_samples};
use crate::samples::{Bound, BoundsCache, Reading, Samples, Stamp, Windows};
use crate::stream::{Visit, Worker, scan};

/// What a row gets from the sample that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pick {
    Value,
    /// Its time in seconds.
    Time,
    /// Its start timestamp in seconds, 0 where it has none.
    Start,
}

/// Rows of an instant selector.
pub(crate) struct InstantSource {
    pub selection: Arc<dyn Selection>,
    pub matchers: Arc<[Matcher]>,
    windows: Windows,
    smoothed: bool,
    counts_only: bool,
    pick: Pick,
    pos: PosRange,
}

impl InstantSource {
    pub(crate) fn new(
        evaluator: &mut Evaluator<'_>,
        selector: &Selector,
        (pos, pick): (PosRange, Pick),
        grid: Grid,
    ) -> Result<InstantSource, QueryError> {
        let smoothed = selector.modifier == Some(RangeModifier::Smoothed);
        let windows = Windows {
            grid,
            shift: selector.shift,
            length: evaluator.lookback,
            before: 0,
            after: if smoothed { evaluator.lookback } else { 0 },
        };
        let (start, end) = windows.hull();
        let selection = evaluator.select(&selector.matchers, TimeRange { start, end })?;
        let matchers = Arc::clone(&selector.matchers);
        let counts_only = selector.counts_only;
        Ok(InstantSource { selection, matchers, windows, smoothed, counts_only, pick, pos })
    }

    pub(crate) fn make(
        &self,
        range: Range<usize>,
        worker: &mut Worker,
        visit: &mut Visit<'_>,
    ) -> Result<(), QueryError> {
        // Where buckets are dropped, what is before the newest sample tells of resets.
        let known = !self.smoothed && !self.counts_only && self.pick != Pick::Start;
        if self.windows.grid.is_instant() && known {
            return self.make_latest(range, worker, visit);
        }
        let steps = self.windows.grid.count;
        let reading = Reading { markers: !self.smoothed, counts_only: self.counts_only };
        scan(&self.selection, range, self.windows.hull(), reading, worker, &mut |series, worker| {
            let mut row = std::mem::take(&mut worker.row);
            row.reset(steps);
            if self.smoothed {
                let labels = self.selection.labels(series);
                let at = extended::Place { labels, pos: self.pos };
                extended::smooth_row(&worker.samples, &self.windows, at, &mut row, &mut worker.notes);
            } else {
                self.fill(&worker.samples, &mut worker.bounds, &mut row);
            }
            count(&row, &mut worker.tally);
            let visited = visit(series, &mut row, &mut worker.notes);
            worker.row = row;
            visited
        })
    }

    fn fill(&self, samples: &Samples, bounds: &mut BoundsCache, row: &mut Row) {
        let (places, histograms) = bounds.places(&self.windows, samples);
        let floats = &places.bounds;
        if samples.histograms.is_empty() {
            for (step, bound) in floats.iter().enumerate() {
                if let Some(i) = last(*bound) {
                    self.set_float(row, step, samples.float_at(i), samples.values[i]);
                }
            }
            return;
        }
        for (step, (float, histogram)) in floats.iter().zip(histograms).enumerate() {
            let float = last(*float).map(|i| (samples.times[i], i));
            let histogram = last(*histogram).map(|i| (samples.histogram_times[i], i));
            match (float, histogram) {
                (Some((time, i)), other) if other.is_none_or(|(t, _)| t < time) => {
                    self.set_float(row, step, samples.float_at(i), samples.values[i]);
                }
                (_, Some((_, i))) => {
                    self.set_histogram(row, step, samples.histogram_at(i), &samples.histograms[i]);
                }
                _ => {}
            }
        }
    }

    fn set_float(&self, row: &mut Row, step: usize, at: Stamp, value: f64) {
        if is_stale(value) {
            return;
        }
        row.set(
            step,
            match self.pick {
                Pick::Value => value,
                Pick::Time => at.time as f64 / 1000.0,
                Pick::Start => at.start as f64 / 1000.0,
            },
        );
    }

    fn set_histogram(&self, row: &mut Row, step: usize, at: Stamp, histogram: &Arc<FloatHistogram>) {
        if histogram.is_stale() {
            return;
        }
        match self.pick {
            Pick::Value => row.set_histogram(step, Arc::clone(histogram)),
            Pick::Time => row.set(step, at.time as f64 / 1000.0),
            Pick::Start => row.set(step, at.start as f64 / 1000.0),
        }
    }

    /// One step: the store knows the newest samples without decoding.
    fn make_latest(
        &self,
        range: Range<usize>,
        worker: &mut Worker,
        visit: &mut Visit<'_>,
    ) -> Result<(), QueryError> {
        let at = self.windows.end(0);
        let after = at.saturating_sub(self.windows.length);
        let Worker { scratch, row, notes, tally, pace, guard, .. } = worker;
        let mut failure = None;
        self.selection.latest(range, after, at, scratch, &mut |series, latest| {
            if failure.is_some() {
                return;
            }
            row.reset(1);
            match latest {
                Latest::Float { timestamp, value } => {
                    self.set_float(row, 0, Stamp { time: timestamp, start: 0 }, value);
                }
                Latest::Histogram { timestamp, value } => {
                    self.set_histogram(row, 0, Stamp { time: timestamp, start: 0 }, &Arc::from(value));
                }
            }
            count(row, tally);
            failure = pace.advance(guard, 1).and_then(|()| visit(series, row, notes)).err();
        })?;
        failure.map_or(Ok(()), Err)
    }
}

fn last((low, high): Bound) -> Option<usize> {
    (low < high).then(|| high as usize - 1)
}

/// Counts the row's samples for the statistics.
fn count(row: &Row, tally: &mut Tally) {
    if tally.per_step.is_empty() {
        tally.total += row.as_ref().samples();
        return;
    }
    for step in crate::row::set_steps(&row.present) {
        let histogram = row.histograms.get(step).and_then(Option::as_ref);
        tally.add(step, histogram.map_or(1, |h| histogram_samples(h)));
    }
}
