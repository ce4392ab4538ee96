//! The newest sample of a series before a time: what an instant selector asks.

use tidewatch_model::{NativeHistogram, Sample};
use tidewatch_storage::{Latest, Scratch, SelectError, TimeRange};

use super::columns::within;
use super::{DbSelection, Worker, damaged};
use crate::resolve::Part;

impl DbSelection {
    /// The newest sample of a series with `after < timestamp <= at`.
    pub(super) fn newest(
        &self,
        series: usize,
        after: i64,
        at: i64,
        worker: &mut Worker<'_>,
    ) -> Result<Option<Latest>, SelectError> {
        let entry = &self.series[series];
        let mut newest = match entry.head() {
            Some(head) => {
                let float = self.newest_in_head(head, after, at, worker.scratch)?;
                let float = float.map(|Sample { timestamp, value }| Latest::Float { timestamp, value });
                match self.newest_histogram_in_head(head, after, at)? {
                    Some(found)
                        if float.as_ref().is_none_or(|float| float.timestamp() < found.timestamp()) =>
                    {
                        Some(found)
                    }
                    _ => float,
                }
            }
            None => None,
        };
        if entry.apart {
            // Places follow one another, so the first that has a sample has the newest.
            for part in self.parts(entry).iter().rev() {
                if newest.is_some() {
                    break;
                }
                newest = self.newest_in_block(*part, after, at, worker)?;
            }
            return Ok(newest);
        }
        for part in self.parts_as_stored(entry).into_iter().rev() {
            let found = self.newest_in_block(part, after, at, worker)?;
            let is_newer =
                |found: &Latest| newest.as_ref().is_none_or(|newest| found.timestamp() >= newest.timestamp());
            if found.as_ref().is_some_and(is_newer) {
                newest = found;
            }
        }
        Ok(newest)
    }

    fn newest_in_block(
        &self,
        part: Part,
        after: i64,
        at: i64,
        worker: &mut Worker<'_>,
    ) -> Result<Option<Latest>, SelectError> {
        let (block, cursor) = (&self.blocks[part.block as usize], &mut worker.cursors[part.block as usize]);
        block.latest(cursor, part.series, after, at, worker.scratch).map_err(damaged)
    }

    fn newest_in_head(
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

    fn newest_histogram_in_head(
        &self,
        series: usize,
        after: i64,
        at: i64,
    ) -> Result<Option<Latest>, SelectError> {
        if !self.head.has_histograms(series) {
            return Ok(None);
        }
        let late = self.head.late_histograms(series);
        let late = late[..late.partition_point(|(time, _)| *time <= at)].last();
        let mut newest = late.filter(|(time, _)| *time > after).cloned();
        let (mut timestamps, mut histograms) = (Vec::new(), Vec::new());
        for run in self.head.histogram_runs(series).rev().filter(|run| run.first() <= at) {
            timestamps.clear();
            histograms.clear();
            self.decode_histograms(&run, &mut timestamps, &mut histograms)?;
            let Some(row) = timestamps.partition_point(|time| *time <= at).checked_sub(1) else { continue };
            let timestamp = timestamps[row];
            if timestamp > after && newest.as_ref().is_none_or(|(newest, _)| *newest < timestamp) {
                newest = Some((timestamp, histograms.swap_remove(row)));
            }
            break;
        }
        let latest = |(timestamp, value): (i64, NativeHistogram)| Latest::Histogram {
            timestamp,
            value: Box::new(value.into_float()),
        };
        Ok(newest.map(latest))
    }
}
