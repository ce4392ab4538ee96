//! A resolved selector over head and blocks.
//!
//! A series' samples may lie in several places. Where the places follow one another in time,
//! their runs are handed on as they are; where they overlap (samples out of order, a block cut
//! beside another), the columns are merged, and of two samples at one time the one that was
//! stored first stays: blocks before the head, older blocks before newer ones.

use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicU64, Ordering};

use tidewatch_model::{Labels, Sample};
use tidewatch_storage::{
    ClockId, Latest, Run, RunValues, Scratch, SelectError, Selection, Statistics, TimeRange,
};

use crate::head::read::{HeadSnapshot, RunView};

/// See the module.
#[derive(Debug)]
pub(crate) struct DbSelection {
    head: HeadSnapshot,
    samples: AtomicU64,
    bytes: AtomicU64,
}

type Visit<'a> = dyn FnMut(usize, Run<'_>) -> ControlFlow<()> + 'a;

impl DbSelection {
    pub(crate) fn new(head: HeadSnapshot) -> DbSelection {
        DbSelection { head, samples: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }

    fn scan_series(
        &self,
        series: usize,
        range: TimeRange,
        scratch: &mut Scratch,
        visit: &mut Visit<'_>,
    ) -> Result<ControlFlow<()>, SelectError> {
        let late = within(self.head.late(series), range);
        if !late.is_empty() {
            return self.scan_merged(series, late, range, scratch, visit);
        }
        for run in self.head.runs(series) {
            let rows = rows_within(run.timestamps(), range);
            if rows.is_empty() {
                continue;
            }
            scratch.values.clear();
            self.decode(&run, &mut scratch.values)?;
            let values = RunValues::Floats(&scratch.values[rows.clone()]);
            let clock = Some(ClockId(run.clock(&rows)));
            let run = Run { clock, timestamps: &run.timestamps()[rows], values, starts: None };
            if visit(series, run).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Gives all samples of a series within the range as one run.
    fn scan_merged(
        &self,
        series: usize,
        late: &[Sample],
        range: TimeRange,
        scratch: &mut Scratch,
        visit: &mut Visit<'_>,
    ) -> Result<ControlFlow<()>, SelectError> {
        scratch.timestamps.clear();
        scratch.values.clear();
        for run in self.head.runs(series) {
            self.decode(&run, &mut scratch.values)?;
            scratch.timestamps.extend_from_slice(run.timestamps());
        }
        let rows = rows_within(&scratch.timestamps, range);
        let (timestamps, values) = (&scratch.timestamps[rows.clone()], &scratch.values[rows]);
        let (late_times, late_values): (Vec<i64>, Vec<f64>) =
            late.iter().map(|sample| (sample.timestamp, sample.value)).unzip();
        let (out_times, out_values) = (&mut scratch.merged_timestamps, &mut scratch.merged_values);
        out_times.clear();
        out_values.clear();
        merge((timestamps, values), (&late_times, &late_values), out_times, out_values);
        let values = RunValues::Floats(out_values);
        Ok(visit(series, Run { clock: None, timestamps: out_times, values, starts: None }))
    }

    fn decode(&self, run: &RunView<'_>, out: &mut Vec<f64>) -> Result<(), SelectError> {
        let before = out.len();
        run.decode(out).map_err(SelectError::Damaged)?;
        self.samples.fetch_add((out.len() - before) as u64, Ordering::Relaxed);
        self.bytes.fetch_add(run.encoded_bytes() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// The newest sample of a series with `after < timestamp <= at`.
    fn newest(
        &self,
        series: usize,
        after: i64,
        at: i64,
        scratch: &mut Scratch,
    ) -> Result<Option<Sample>, SelectError> {
        let range = TimeRange { start: after.saturating_add(1), end: at };
        let late = within(self.head.late(series), range).last().copied();
        for run in self.head.runs(series).rev() {
            let timestamps = run.timestamps();
            let end = timestamps.partition_point(|t| *t <= at);
            let Some(row) = end.checked_sub(1) else { continue };
            let timestamp = timestamps[row];
            if timestamp <= after || late.is_some_and(|late| late.timestamp > timestamp) {
                return Ok(late);
            }
            let value = match run.newest() {
                Some(newest) if end == timestamps.len() => newest,
                _ => {
                    scratch.values.clear();
                    self.decode(&run, &mut scratch.values)?;
                    scratch.values[row]
                }
            };
            return Ok(Some(Sample { timestamp, value }));
        }
        Ok(late)
    }
}

impl Selection for DbSelection {
    fn len(&self) -> usize {
        self.head.series.len()
    }

    fn labels(&self, series: usize) -> &Labels {
        &self.head.series[series].labels
    }

    fn scan(
        &self,
        series: Range<usize>,
        range: TimeRange,
        scratch: &mut Scratch,
        visit: &mut Visit<'_>,
    ) -> Result<(), SelectError> {
        for at in series {
            if self.scan_series(at, range, scratch, visit)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn latest(
        &self,
        series: Range<usize>,
        after: i64,
        at: i64,
        scratch: &mut Scratch,
        visit: &mut dyn FnMut(usize, Latest),
    ) -> Result<(), SelectError> {
        for one in series {
            if let Some(Sample { timestamp, value }) = self.newest(one, after, at, scratch)? {
                visit(one, Latest::Float { timestamp, value });
            }
        }
        Ok(())
    }

    fn statistics(&self) -> Statistics {
        Statistics {
            series: self.len() as u64,
            samples: self.samples.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

fn rows_within(timestamps: &[i64], range: TimeRange) -> Range<usize> {
    let start = timestamps.partition_point(|t| *t < range.start);
    let end = timestamps.partition_point(|t| *t <= range.end);
    start..end.max(start)
}

fn within(samples: &[Sample], range: TimeRange) -> &[Sample] {
    let start = samples.partition_point(|sample| sample.timestamp < range.start);
    let end = samples.partition_point(|sample| sample.timestamp <= range.end);
    &samples[start..end.max(start)]
}

/// Merges two ascending columns; at equal times the first one's sample stays.
fn merge(first: (&[i64], &[f64]), second: (&[i64], &[f64]), times: &mut Vec<i64>, values: &mut Vec<f64>) {
    let (mut a, mut b) = (0, 0);
    while a < first.0.len() || b < second.0.len() {
        let from_first = match (first.0.get(a), second.0.get(b)) {
            (Some(left), Some(right)) => {
                b += usize::from(left == right);
                left <= right
            }
            (left, _) => left.is_some(),
        };
        let (column, at) = if from_first { (first, &mut a) } else { (second, &mut b) };
        times.push(column.0[*at]);
        values.push(column.1[*at]);
        *at += 1;
    }
}
