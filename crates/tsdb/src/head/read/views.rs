//! The runs of a snapshot, decoded when they are asked for.

use std::ops::Range;

use tidewatch_model::NativeHistogram;

use super::{HeadSnapshot, HistogramRun, RowSource, RunSource, SnapshotRun};
use crate::gather::alone;
use crate::head::histograms::decode_rows;
use crate::head::sealed::check_readable;
use crate::head::tokens::decode_tokens;

/// One run of a snapshot, as far as its timestamps go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunView<'a> {
    pub(super) snapshot: &'a HeadSnapshot,
    pub(super) run: &'a SnapshotRun,
}

impl<'a> RunView<'a> {
    /// The run's timestamps, without those that blocks have.
    pub(crate) fn timestamps(&self) -> &'a [i64] {
        let run = self.run;
        let clock = &self.snapshot.clocks[run.clock as usize];
        let first = clock.start as usize + usize::from(run.first_row);
        &self.snapshot.rows[first + usize::from(run.skip)..first + usize::from(run.end)]
    }

    /// A number that is equal for equal rows of one clock.
    pub(crate) fn clock(&self, rows: &Range<usize>) -> u64 {
        let first = u64::from(self.run.first_row) + u64::from(self.run.skip);
        u64::from(self.run.clock) << 16 | (first + rows.start as u64) << 8 | (first + rows.end as u64 - 1)
    }

    /// Appends the values that belong to [`RunView::timestamps`] to `out`.
    pub(crate) fn decode(&self, out: &mut Vec<f64>) -> Result<(), String> {
        let count = usize::from(self.run.count);
        let column = |bytes: &[u8], out: &mut Vec<f64>| {
            tidewatch_chunk::decode_values(bytes, count, out)
                .map_err(|error| format!("a run of the head: {error}"))
        };
        let from = out.len();
        match &self.run.values {
            RunSource::Tokens { bytes, .. } => {
                let bytes = &self.snapshot.bytes[bytes.start as usize..bytes.end as usize];
                if !decode_tokens(bytes, count, out) {
                    return Err("an open run of the head is malformed".to_owned());
                }
            }
            RunSource::Shared(bytes) => {
                let decoded = column(bytes, out);
                check_readable(bytes)?;
                decoded?;
            }
            RunSource::Copied(bytes) => {
                column(&self.snapshot.bytes[bytes.start as usize..bytes.end as usize], out)?;
            }
        }
        out.truncate(from + usize::from(self.run.end));
        out.drain(from..from + usize::from(self.run.skip));
        Ok(())
    }

    /// The last value, where it is at hand without decoding.
    pub(crate) fn newest(&self) -> Option<f64> {
        match self.run.values {
            RunSource::Tokens { newest, .. } if self.run.end == self.run.count => Some(newest),
            _ => None,
        }
    }

    /// Bytes that [`RunView::decode`] reads.
    pub(crate) fn encoded_bytes(&self) -> usize {
        match &self.run.values {
            RunSource::Tokens { bytes, .. } | RunSource::Copied(bytes) => bytes.len(),
            RunSource::Shared(bytes) => bytes.len(),
        }
    }
}

/// One run of native histograms of a snapshot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HistogramRunView<'a> {
    pub(super) run: &'a HistogramRun,
}

impl HistogramRunView<'_> {
    /// The oldest time that it may have, blocks aside.
    pub(crate) fn first(&self) -> i64 {
        let first = match &self.run.run {
            RowSource::Sealed(run) => run.first,
            RowSource::Open { times, .. } => times[0],
        };
        first.max(self.run.floor)
    }

    /// Appends the samples that are not deleted and that blocks do not have.
    pub(crate) fn decode(
        &self,
        times: &mut Vec<i64>,
        histograms: &mut Vec<NativeHistogram>,
    ) -> Result<(), String> {
        let from = times.len();
        match &self.run.run {
            RowSource::Sealed(run) => {
                let decoded = run.times(times).and_then(|()| {
                    tidewatch_chunk::decode_histograms(run.kind, run.column(), run.count as usize, histograms)
                        .map_err(|error| format!("a run of the head: {error}"))
                });
                check_readable(&run.bytes)?;
                decoded?;
            }
            RowSource::Open { times: rows_at, layout, rows } => {
                times.extend_from_slice(rows_at);
                decode_rows(layout.as_ref(), rows, rows_at.len(), |row| histograms.push(row.clone()))
                    .map_err(|_| "an open run of the head is malformed".to_owned())?;
            }
        }
        let skip = times[from..].partition_point(|time| *time < self.run.floor);
        times.drain(from..from + skip);
        histograms.drain(from..from + skip);
        self.leave_kept(from, times, histograms);
        Ok(())
    }

    /// Removes the rows from `from` on that are deleted. What follows a gap, or comes first of all,
    /// continues nothing.
    fn leave_kept(&self, from: usize, times: &mut Vec<i64>, histograms: &mut Vec<NativeHistogram>) {
        let forget = |histogram: &mut NativeHistogram| histogram.set_hint(alone(histogram.hint()));
        let Some(deleted) = &self.run.deleted else {
            if self.run.is_first {
                histograms[from..].first_mut().into_iter().for_each(forget);
            }
            return;
        };
        let kept: Vec<Range<usize>> = deleted.kept(&times[from..]).collect();
        let mut to = from;
        for rows in kept {
            forget(&mut histograms[from + rows.start]);
            for at in from + rows.start..from + rows.end {
                times[to] = times[at];
                histograms.swap(to, at);
                to += 1;
            }
        }
        times.truncate(to);
        histograms.truncate(to);
    }

    /// Bytes that [`HistogramRunView::decode`] reads.
    pub(crate) fn encoded_bytes(&self) -> usize {
        match &self.run.run {
            RowSource::Sealed(run) => run.bytes.len(),
            RowSource::Open { rows, .. } => rows.len(),
        }
    }
}
