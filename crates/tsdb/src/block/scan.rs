//! Reading the samples of a block's series: chunk by chunk, each under its checksum.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use parking_lot::Mutex;
use tidewatch_chunk::{decode_times, decode_values};
use tidewatch_model::Sample;
use tidewatch_storage::{ClockId, Run, RunValues, Scratch, TimeRange};

use super::clocks::Clock;
use super::error::{BlockError, Damage};
use super::read::{Block, PairTexts};
use super::series::{Chunk, Record};

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

/// Times 480 timestamps is 1 MiB for a block that is read throughout.
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
struct Broken {
    offset: u64,
    reason: String,
}

impl Block {
    /// Visits what is stored of a series within `range`, whether it is deleted or not.
    pub(super) fn scan_stored(
        &self,
        cursor: &mut Cursor,
        series: u32,
        range: TimeRange,
        scratch: &mut Scratch,
        visit: &mut dyn FnMut(Run<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, BlockError> {
        self.series
            .read(series, &self.clocks, &mut cursor.record)
            .map_err(|error| self.inconsistent(error))?;
        for at in 0..cursor.record.chunks.len() {
            let chunk = cursor.record.chunks[at];
            let clock = self.clock(&chunk);
            if clock.last_ms() < range.start {
                continue;
            }
            if clock.first_ms > range.end {
                break;
            }
            let times = match self.read_chunk(&chunk, &clock, &mut scratch.values) {
                Ok(times) => times,
                Err(broken) => return Err(self.damaged(cursor, series, &clock, broken)),
            };
            let within = within(&times, range);
            if within.is_empty() {
                continue;
            }
            let run = Run {
                clock: Some(self.clock_id(chunk.clock)),
                timestamps: &times[within.clone()],
                values: RunValues::Floats(&scratch.values[within]),
                starts: None,
            };
            if visit(run).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The newest stored sample of a series with `after < timestamp <= at`, deleted or not.
    pub(super) fn latest_stored(
        &self,
        cursor: &mut Cursor,
        series: u32,
        after: i64,
        at: i64,
        scratch: &mut Scratch,
    ) -> Result<Option<Sample>, BlockError> {
        self.series
            .read(series, &self.clocks, &mut cursor.record)
            .map_err(|error| self.inconsistent(error))?;
        for chunk in cursor.record.chunks.iter().rev() {
            let clock = self.clock(chunk);
            if clock.first_ms > at {
                continue;
            }
            if clock.last_ms() <= after {
                break;
            }
            let times = match self.read_chunk(chunk, &clock, &mut scratch.values) {
                Ok(times) => times,
                Err(broken) => return Err(self.damaged(cursor, series, &clock, broken)),
            };
            // Not empty: the chunk starts at or before `at`.
            let newest = times.partition_point(|time| *time <= at) - 1;
            let sample = Sample { timestamp: times[newest], value: scratch.values[newest] };
            return Ok(Some(sample).filter(|sample| sample.timestamp > after));
        }
        Ok(None)
    }

    /// Reads every chunk of some series and names those that are damaged.
    pub fn verify(&self, series: Range<u32>) -> Result<Vec<Damage>, BlockError> {
        let (mut cursor, mut values, mut found) = (Cursor::default(), Vec::new(), Vec::new());
        for series in series {
            self.series
                .read(series, &self.clocks, &mut cursor.record)
                .map_err(|error| self.inconsistent(error))?;
            for at in 0..cursor.record.chunks.len() {
                let chunk = cursor.record.chunks[at];
                let clock = self.clock(&chunk);
                if let Err(broken) = self.read_chunk(&chunk, &clock, &mut values) {
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

    /// Decodes a chunk: the values into `values`, the timestamps as they are shared.
    fn read_chunk(&self, chunk: &Chunk, clock: &Clock, values: &mut Vec<f64>) -> Result<Arc<[i64]>, Broken> {
        let times = self.times(chunk.clock, clock)?;
        let column = self.column(chunk.offset, chunk.len, chunk.crc)?;
        values.clear();
        decode_values(column, times.len(), values)
            .map_err(|error| Broken { offset: self.file_offset(chunk.offset), reason: error.to_string() })?;
        Ok(times)
    }

    fn times(&self, number: u32, clock: &Clock) -> Result<Arc<[i64]>, Broken> {
        let slot = &self.clock_cache.slots[number as usize % CLOCK_SLOTS];
        if let Some((cached, times)) = &*slot.lock()
            && *cached == number
        {
            return Ok(times.clone());
        }
        let column = self.column(clock.offset, clock.len, clock.crc)?;
        let broken = |reason: String| Broken { offset: self.file_offset(clock.offset), reason };
        let mut times = Vec::new();
        decode_times(column, clock.count as usize, &mut times).map_err(|error| broken(error.to_string()))?;
        let ends = (times.first().copied(), times.last().copied());
        if ends != (Some(clock.first_ms), Some(clock.last_ms())) || !times.is_sorted_by(|a, b| a < b) {
            return Err(broken("the timestamps contradict the table of clocks".to_owned()));
        }
        let times: Arc<[i64]> = times.into();
        *slot.lock() = Some((number, times.clone()));
        Ok(times)
    }

    /// A column of the data section, under its checksum.
    fn column(&self, offset: u64, len: u32, crc: u32) -> Result<&[u8], Broken> {
        let broken = |reason: &str| Broken { offset: self.file_offset(offset), reason: reason.to_owned() };
        let start = usize::try_from(offset).map_err(|_| broken("a column lies outside the file"))?;
        let end = start.saturating_add(len as usize);
        let column = self.data.get(start..end).ok_or_else(|| broken("a column lies outside the file"))?;
        match crc32fast::hash(column) == crc {
            true => Ok(column),
            false => Err(broken("a column's checksum does not hold")),
        }
    }

    fn file_offset(&self, data_offset: u64) -> u64 {
        data_offset.saturating_add(super::format::HEADER_LEN as u64)
    }

    fn damaged(&self, cursor: &mut Cursor, series: u32, clock: &Clock, broken: Broken) -> BlockError {
        let labels = match self.labels(cursor, series) {
            Ok(labels) => labels,
            Err(error) => return error,
        };
        BlockError::Damaged(Box::new(Damage {
            path: self.path.clone(),
            offset: broken.offset,
            series: labels.to_string(),
            start_ms: clock.first_ms,
            end_ms: clock.last_ms(),
            reason: broken.reason,
        }))
    }
}

/// The part of ascending timestamps that lies in a range, both ends included.
fn within(times: &[i64], range: TimeRange) -> Range<usize> {
    let start = times.partition_point(|time| *time < range.start);
    let end = times.partition_point(|time| *time <= range.end);
    start..end.max(start)
}
