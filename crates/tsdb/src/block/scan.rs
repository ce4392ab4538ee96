//! Reading the samples of a block's series: chunk by chunk, each under its checksum.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use parking_lot::Mutex;
use tidewatch_chunk::{
    ChunkError, SampleKind, decode_float_histograms, decode_histograms, decode_times, decode_values,
};
use tidewatch_env::unreadable;
use tidewatch_storage::{ClockId, Latest, Run, RunValues, Scratch, TimeRange};

use super::clocks::Clock;
use super::error::{BlockError, Damage, UNREADABLE};
use super::read::{Block, PairTexts};
use super::salvage::TIMES_COPIED;
use super::series::{Chunk, Record};
use crate::gather::{StoredRun, StoredValues, alone};
use crate::intervals::Intervals;

/// A reader's place in a block: going through series in ascending order costs each of them its
/// own record only. One for each block and worker.
#[derive(Debug, Default)]
pub struct Cursor {
    pub(super) record: Record,
    pub(super) pairs: PairTexts,
}

/// Decoded clocks, by number: the series of a target share theirs, and a scan over a metric goes
/// through all targets for each chunk.
pub(super) struct ClockCache {
    /// A clock can stand in one place only. The lock guards that place.
    slots: Box<[Mutex<Option<DecodedClock>>]>,
}

type DecodedClock = (u32, Arc<[i64]>);

/// Times 480 timestamps is 1 MiB for a block that is read throughout; 4 MiB for a dense one.
const CLOCK_SLOTS: usize = 256;

impl ClockCache {
    pub(super) fn new() -> ClockCache {
        ClockCache { slots: (0..CLOCK_SLOTS).map(|_| Mutex::new(None)).collect() }
    }
}

impl std::fmt::Debug for ClockCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClockCache").finish_non_exhaustive()
    }
}

/// Why a chunk can not be read, and where.
pub(super) struct Broken {
    offset: u64,
    reason: String,
}

impl Block {
    /// Visits the samples of a series within `range` as runs that ascend, those left out that are
    /// deleted. The values lie in `scratch` while the visitor has them.
    pub fn scan(
        &self,
        cursor: &mut Cursor,
        series: u32,
        range: TimeRange,
        scratch: &mut Scratch,
        visit: &mut dyn FnMut(Run<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, BlockError> {
        let deleted = self.tombstones().of(series);
        self.for_each_chunk(cursor, series, range, |block, chunk, clock, is_first| {
            let times = block.times(chunk.clock, clock)?;
            let within = within(&times, range);
            if within.is_empty() {
                return Ok(ControlFlow::Continue(()));
            }
            let Scratch { values, histograms, starts, .. } = &mut *scratch;
            let (column, starts_column) = block.columns(chunk)?;
            values.clear();
            histograms.clear();
            let decoded = match chunk.kind {
                SampleKind::Float => decode_values(column, times.len(), values),
                kind => decode_float_histograms(kind, column, times.len(), histograms),
            };
            block.whole(chunk, column, decoded)?;
            let starts = block.whole(chunk, starts_column, starts_of(starts_column, times.len(), starts))?;
            for rows in kept(deleted, &times, within.clone()) {
                // A part of a chunk has no clock: what others share is the whole.
                let clock = (rows == within).then(|| block.clock_id(chunk.clock));
                let values = match chunk.kind {
                    SampleKind::Float => RunValues::Floats(&values[rows.clone()]),
                    _ => {
                        if deleted.is_some() || (is_first && rows.start == 0) {
                            histograms[rows.start].hint = alone(histograms[rows.start].hint);
                        }
                        RunValues::Histograms(&histograms[rows.clone()])
                    }
                };
                let starts = starts.map(|starts| &starts[rows.clone()]);
                if visit(Run { clock, timestamps: &times[rows], values, starts }).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// The same, with the samples as they are stored.
    pub fn scan_stored(
        &self,
        cursor: &mut Cursor,
        series: u32,
        range: TimeRange,
        visit: &mut dyn FnMut(StoredRun<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, BlockError> {
        let (mut values, mut histograms, mut starts) = (Vec::new(), Vec::new(), Vec::new());
        let deleted = self.tombstones().of(series);
        self.for_each_chunk(cursor, series, range, |block, chunk, clock, is_first| {
            let times = block.times(chunk.clock, clock)?;
            let within = within(&times, range);
            if within.is_empty() {
                return Ok(ControlFlow::Continue(()));
            }
            let (column, starts_column) = block.columns(chunk)?;
            values.clear();
            histograms.clear();
            let decoded = match chunk.kind {
                SampleKind::Float => decode_values(column, times.len(), &mut values),
                kind => decode_histograms(kind, column, times.len(), &mut histograms),
            };
            block.whole(chunk, column, decoded)?;
            let starts =
                block.whole(chunk, starts_column, starts_of(starts_column, times.len(), &mut starts))?;
            for rows in kept(deleted, &times, within) {
                let values = match chunk.kind {
                    SampleKind::Float => StoredValues::Floats(&values[rows.clone()]),
                    _ => {
                        if deleted.is_some() || (is_first && rows.start == 0) {
                            let first = &mut histograms[rows.start];
                            first.set_hint(alone(first.hint()));
                        }
                        StoredValues::Histograms(&histograms[rows.clone()])
                    }
                };
                let starts = starts.map(|starts| &starts[rows.clone()]);
                if visit(StoredRun { timestamps: &times[rows], values, starts }).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Visits the chunks of a series that may have samples within `range`, and says of each whether it
    /// is the series' first.
    fn for_each_chunk(
        &self,
        cursor: &mut Cursor,
        series: u32,
        range: TimeRange,
        mut visit: impl FnMut(&Block, &Chunk, &Clock, bool) -> Result<ControlFlow<()>, Broken>,
    ) -> Result<ControlFlow<()>, BlockError> {
        self.read_series(series, &mut cursor.record)?;
        for at in 0..cursor.record.chunks.len() {
            let chunk = cursor.record.chunks[at];
            let clock = self.clock(&chunk);
            if clock.last_ms() < range.start {
                continue;
            }
            if clock.first_ms > range.end {
                break;
            }
            if self.hides(series, &clock) {
                continue;
            }
            match visit(self, &chunk, &clock, at == 0) {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => return Ok(ControlFlow::Break(())),
                Err(broken) => return Err(self.damaged(cursor, series, &clock, broken)),
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// When the newest sample of a series was up to a time, deleted or not.
    pub(crate) fn newest_ms(
        &self,
        cursor: &mut Cursor,
        series: u32,
        until_ms: i64,
    ) -> Result<Option<i64>, BlockError> {
        self.read_series(series, &mut cursor.record)?;
        let mut chunks = cursor.record.chunks.iter().rev().map(|chunk| (chunk, self.clock(chunk)));
        let Some((chunk, clock)) = chunks.find(|(_, clock)| clock.first_ms <= until_ms) else {
            return Ok(None);
        };
        if clock.last_ms() <= until_ms {
            return Ok(Some(clock.last_ms()));
        }
        // Where times can not be read the samples are not there either.
        let times = self.times(chunk.clock, &clock).ok();
        Ok(times.and_then(|times| times.iter().rev().find(|time| **time <= until_ms).copied()))
    }

    /// Whether a series has more than floats: histograms or start timestamps.
    pub(crate) fn is_special(&self, cursor: &mut Cursor, series: u32) -> Result<bool, BlockError> {
        self.read_series(series, &mut cursor.record)?;
        Ok(cursor.record.chunks.iter().any(Chunk::is_special))
    }

    /// The newest stored sample of a series with `after < timestamp <= at`, deleted or not.
    pub(super) fn latest_stored(
        &self,
        cursor: &mut Cursor,
        series: u32,
        after: i64,
        at: i64,
        scratch: &mut Scratch,
    ) -> Result<Option<Latest>, BlockError> {
        self.read_series(series, &mut cursor.record)?;
        for chunk in cursor.record.chunks.iter().rev() {
            let clock = self.clock(chunk);
            if clock.first_ms > at {
                continue;
            }
            if clock.last_ms() <= after {
                break;
            }
            if self.hides(series, &clock) {
                continue;
            }
            return match self.newest_of(chunk, &clock, at, scratch) {
                Ok((timestamp, latest)) => Ok((timestamp > after).then_some(latest)),
                Err(broken) => {
                    let clock = self.clock(chunk);
                    Err(self.damaged(cursor, series, &clock, broken))
                }
            };
        }
        Ok(None)
    }

    /// The newest sample of a chunk that begins at or before `at`.
    fn newest_of(
        &self,
        chunk: &Chunk,
        clock: &Clock,
        at: i64,
        scratch: &mut Scratch,
    ) -> Result<(i64, Latest), Broken> {
        let times = self.read_chunk(chunk, clock, scratch)?;
        // Not empty: the chunk starts at or before `at`.
        let newest = times.partition_point(|time| *time <= at) - 1;
        let timestamp = times[newest];
        let latest = match chunk.kind {
            SampleKind::Float => Latest::Float { timestamp, value: scratch.values[newest] },
            _ => Latest::Histogram { timestamp, value: Box::new(scratch.histograms.swap_remove(newest)) },
        };
        Ok((timestamp, latest))
    }

    /// Whether all of a chunk of a series is deleted: then nobody reads it, and it may be damaged.
    fn hides(&self, series: u32, clock: &Clock) -> bool {
        let chunk = TimeRange { start: clock.first_ms, end: clock.last_ms() };
        self.tombstones().of(series).is_some_and(|deleted| deleted.covers(chunk))
    }

    /// Reads every chunk of some series that is not deleted and names those that are damaged.
    pub fn verify(&self, series: Range<u32>) -> Result<Vec<Damage>, BlockError> {
        let (mut cursor, mut scratch, mut found) = (Cursor::default(), Scratch::default(), Vec::new());
        for series in series {
            self.read_series(series, &mut cursor.record)?;
            for at in 0..cursor.record.chunks.len() {
                let chunk = cursor.record.chunks[at];
                let clock = self.clock(&chunk);
                if self.hides(series, &clock) {
                    continue;
                }
                if let Err(broken) = self.read_chunk(&chunk, &clock, &mut scratch) {
                    match self.damaged(&mut cursor, series, &clock, broken) {
                        BlockError::Damaged(damage) => found.push(*damage),
                        other => return Err(other),
                    }
                }
            }
        }
        Ok(found)
    }

    fn clock_id(&self, clock: u32) -> ClockId {
        ClockId(self.meta().id.0 << 32 | u64::from(clock))
    }

    fn clock(&self, chunk: &Chunk) -> Clock {
        self.clocks.get(chunk.clock).expect("checked when the record was read")
    }

    /// Decodes a chunk into `scratch`; the timestamps as they are shared.
    fn read_chunk(&self, chunk: &Chunk, clock: &Clock, scratch: &mut Scratch) -> Result<Arc<[i64]>, Broken> {
        let times = self.times(chunk.clock, clock)?;
        let (column, starts) = self.columns(chunk)?;
        let Scratch { values, histograms, .. } = scratch;
        values.clear();
        histograms.clear();
        let decoded = match chunk.kind {
            SampleKind::Float => decode_values(column, times.len(), values),
            kind => decode_float_histograms(kind, column, times.len(), histograms),
        };
        self.whole(chunk, column, decoded)?;
        self.whole(chunk, starts, starts_of(starts, times.len(), &mut Vec::new()).map(drop))?;
        Ok(times)
    }

    /// What was decoded from a column, unless the disk has lost a part of it since it was checked.
    fn whole<T>(&self, chunk: &Chunk, column: &[u8], decoded: Result<T, ChunkError>) -> Result<T, Broken> {
        match unreadable(column) {
            Some(_) => Err(self.broken(chunk, UNREADABLE)),
            None => decoded.map_err(|error| self.broken(chunk, &error.to_string())),
        }
    }

    fn broken(&self, chunk: &Chunk, reason: &str) -> Broken {
        Broken { offset: self.file_offset(chunk.offset), reason: reason.to_owned() }
    }

    /// The columns of a chunk, under their checksum: values, and start timestamps or nothing.
    fn columns(&self, chunk: &Chunk) -> Result<(&[u8], &[u8]), Broken> {
        let both = u64::from(chunk.len) + u64::from(chunk.starts_len);
        let both = u32::try_from(both).map_err(|_| self.broken(chunk, "a column lies outside the file"))?;
        Ok(self.column(chunk.offset, both, chunk.crc)?.split_at(chunk.len as usize))
    }

    fn times(&self, number: u32, clock: &Clock) -> Result<Arc<[i64]>, Broken> {
        let slot = &self.clock_cache.slots[number as usize % CLOCK_SLOTS];
        if let Some((cached, times)) = &*slot.lock()
            && *cached == number
        {
            return Ok(times.clone());
        }
        let column = self.column(clock.offset, clock.len, clock.crc).or_else(|broken| {
            let copied = self.copied_column(clock).ok_or(broken)?;
            self.wounds().meet_healing(self.file_offset(clock.offset), TIMES_COPIED.to_owned());
            Ok(copied)
        })?;
        let broken = |reason: String| Broken { offset: self.file_offset(clock.offset), reason };
        let mut times = Vec::new();
        decode_times(column, clock.count as usize, &mut times).map_err(|error| broken(error.to_string()))?;
        if unreadable(column).is_some() {
            return Err(broken(UNREADABLE.to_owned()));
        }
        let ends = (times.first().copied(), times.last().copied());
        if ends != (Some(clock.first_ms), Some(clock.last_ms())) || !times.is_sorted_by(|a, b| a < b) {
            return Err(broken("the timestamps contradict the table of clocks".to_owned()));
        }
        let times: Arc<[i64]> = times.into();
        *slot.lock() = Some((number, times.clone()));
        Ok(times)
    }

    /// A column of the data section, under its checksum.
    pub(super) fn column(&self, offset: u64, len: u32, crc: u32) -> Result<&[u8], Broken> {
        let broken = |reason: &str| Broken { offset: self.file_offset(offset), reason: reason.to_owned() };
        let start = usize::try_from(offset).map_err(|_| broken("a column lies outside the file"))?;
        let end = start.saturating_add(len as usize);
        let column = self.data.get(start..end).ok_or_else(|| broken("a column lies outside the file"))?;
        match crc32fast::hash(column) == crc {
            true => Ok(column),
            false if unreadable(column).is_some() => Err(broken(UNREADABLE)),
            false => Err(broken("a column's checksum does not hold")),
        }
    }

    pub(super) fn file_offset(&self, data_offset: u64) -> u64 {
        data_offset.saturating_add(super::format::HEADER_LEN as u64)
    }

    fn damaged(&self, cursor: &mut Cursor, series: u32, clock: &Clock, broken: Broken) -> BlockError {
        let labels = match self.labels(cursor, series) {
            Ok(labels) => labels,
            Err(error) => return error,
        };
        let damage = Damage {
            path: self.path.clone(),
            offset: broken.offset,
            series: labels.to_string(),
            start_ms: clock.first_ms,
            end_ms: clock.last_ms(),
            reason: broken.reason,
            number: series,
        };
        self.wounds().meet(damage.offset, damage.what(), damage.is_mendable());
        BlockError::Damaged(Box::new(damage))
    }
}

/// The rows of `within` that are not deleted.
fn kept(
    deleted: Option<&Intervals>,
    times: &[i64],
    within: Range<usize>,
) -> impl Iterator<Item = Range<usize>> {
    let start = within.start;
    let whole = deleted.is_none().then_some(within.clone());
    let parts = deleted.into_iter().flat_map(move |deleted| deleted.kept(&times[within.clone()]));
    whole.into_iter().chain(parts.map(move |rows| start + rows.start..start + rows.end))
}

/// The column of start timestamps, where there is one.
fn starts_of<'a>(
    column: &[u8],
    count: usize,
    starts: &'a mut Vec<i64>,
) -> Result<Option<&'a [i64]>, ChunkError> {
    if column.is_empty() {
        return Ok(None);
    }
    starts.clear();
    decode_times(column, count, starts)?;
    Ok(Some(starts))
}

/// The part of ascending timestamps that lies in a range, both ends included.
fn within(times: &[i64], range: TimeRange) -> Range<usize> {
    let start = times.partition_point(|time| *time < range.start);
    let end = times.partition_point(|time| *time <= range.end);
    start..end.max(start)
}
