//! A resolved selector over head and blocks.
//!
//! The selector's series are resolved elsewhere (`resolve`). A series' samples may lie in several places. Where the places follow one another in time,
//! their runs are handed on as they are; where they overlap (samples out of order, a block cut
//! beside another), the columns are merged, and of two samples at one time the one that was
//! stored first stays: blocks before the head, older blocks before newer ones.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidewatch_model::{Labels, Sample};
use tidewatch_storage::{
    ClockId, Latest, Room, Run, RunValues, Scratch, SelectError, Selection, Statistics, TimeRange,
};

use crate::block::{Block, BlockError, Cursor};
use crate::head::read::{HeadSnapshot, RunView};
use crate::resolve::{Part, Resolution};

/// See the module.
#[derive(Debug)]
pub(crate) struct DbSelection {
    resolution: Arc<Resolution>,
    head: HeadSnapshot,
    /// Those of the resolution.
    blocks: Vec<Arc<Block>>,
    series: Vec<Entry>,
    samples: AtomicU64,
    bytes: AtomicU64,
}

/// Memory that was taken and is asked for after the fact, a part at a time.
pub(crate) struct Debt<'a, 'r> {
    room: &'a mut Room<'r>,
    owed: usize,
}

/// Bytes that are asked for at once.
const ASKED_BYTES: usize = 64 << 10;

impl<'a, 'r> Debt<'a, 'r> {
    pub(crate) fn new(room: &'a mut Room<'r>) -> Debt<'a, 'r> {
        Debt { room, owed: 0 }
    }

    pub(crate) fn owe(&mut self, bytes: usize) -> Result<(), SelectError> {
        self.owed += bytes;
        if self.owed < ASKED_BYTES {
            return Ok(());
        }
        let owed = std::mem::take(&mut self.owed) as u64;
        if (self.room)(owed) { Ok(()) } else { Err(SelectError::NoRoom) }
    }
}

/// One series.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its number in the resolution, and in the head's snapshot.
    resolved: u32,
    in_head: bool,
    /// Whether its places follow one another in time, in the order in which they stand here.
    apart: bool,
}

impl Entry {
    /// Its number in the head's snapshot, if it has samples there.
    fn head(&self) -> Option<usize> {
        self.in_head.then_some(self.resolved as usize)
    }
}

/// What a label set takes beside its text: two counts and the allocator's own.
pub(crate) const LABELS_BYTES: usize = 32;

/// Clock ids of the head have this bit, those of blocks do not.
const HEAD_CLOCK: u64 = 1 << 63;

type Visit<'a> = dyn FnMut(usize, Run<'_>) -> ControlFlow<()> + 'a;

pub(crate) fn damaged(error: BlockError) -> SelectError {
    SelectError::Damaged(error.to_string())
}

/// Whether a block may have samples within a range.
pub(crate) fn overlaps(block: &Block, range: TimeRange) -> bool {
    block.meta().min_ms <= range.end && block.meta().max_ms >= range.start
}

/// The blocks that a selector over a range looks at, by time.
pub(crate) fn blocks_within(blocks: &[Arc<Block>], range: TimeRange) -> Vec<Arc<Block>> {
    let mut blocks: Vec<Arc<Block>> = blocks.iter().filter(|block| overlaps(block, range)).cloned().collect();
    blocks.sort_by_key(|block| block.meta().min_ms);
    blocks
}

impl DbSelection {
    /// `head` and `blocks` are what the resolution's series have there.
    pub(crate) fn new(
        resolution: Arc<Resolution>,
        head: HeadSnapshot,
        blocks: Vec<Arc<Block>>,
    ) -> DbSelection {
        let mut selection = DbSelection {
            series: Vec::with_capacity(resolution.series.len()),
            resolution,
            head,
            blocks,
            samples: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        };
        for (at, resolved) in selection.resolution.series.iter().enumerate() {
            let in_head = selection.head.has(at);
            if in_head || !selection.resolution.parts(resolved).is_empty() {
                let mut entry = Entry { resolved: at as u32, in_head, apart: true };
                entry.apart = selection.is_apart(&entry);
                selection.series.push(entry);
            }
        }
        selection
    }

    /// A selection of the head's samples alone.
    pub(crate) fn of_head(resolution: Arc<Resolution>, head: HeadSnapshot) -> DbSelection {
        DbSelection::new(resolution, head, Vec::new())
    }

    fn parts(&self, entry: &Entry) -> &[Part] {
        self.resolution.parts(&self.resolution.series[entry.resolved as usize])
    }

    /// The places in the order in which they were stored, which decides among samples of one time.
    fn parts_as_stored(&self, entry: &Entry) -> Vec<Part> {
        let mut parts = self.parts(entry).to_vec();
        parts.sort_by_key(|part| self.blocks[part.block as usize].meta().id);
        parts
    }

    fn is_apart(&self, entry: &Entry) -> bool {
        let mut newest = None;
        for part in self.parts(entry) {
            let meta = self.blocks[part.block as usize].meta();
            if newest.is_some_and(|newest| meta.min_ms <= newest) {
                return false;
            }
            newest = Some(meta.max_ms);
        }
        let Some(head) = entry.head() else { return true };
        let oldest = self.head.runs(head).next().and_then(|run| run.timestamps().first().copied());
        self.head.late(head).is_empty()
            && newest.is_none_or(|newest| oldest.is_none_or(|oldest| newest < oldest))
    }

    fn scan_series(
        &self,
        series: usize,
        range: TimeRange,
        worker: &mut Worker<'_>,
        visit: &mut Visit<'_>,
    ) -> Result<ControlFlow<()>, SelectError> {
        let entry = &self.series[series];
        if !entry.apart {
            return self.scan_merged(series, range, worker, visit);
        }
        for part in self.parts(entry) {
            let (block, cursor) =
                (&self.blocks[part.block as usize], &mut worker.cursors[part.block as usize]);
            let mut counted = |run: Run<'_>| {
                self.samples.fetch_add(run.timestamps.len() as u64, Ordering::Relaxed);
                visit(series, run)
            };
            let flow =
                block.scan(cursor, part.series, range, worker.scratch, &mut counted).map_err(damaged)?;
            if flow.is_break() {
                return Ok(flow);
            }
        }
        for run in entry.head().into_iter().flat_map(|head| self.head.runs(head)) {
            let rows = rows_within(run.timestamps(), range);
            if rows.is_empty() {
                continue;
            }
            let values = &mut worker.scratch.values;
            values.clear();
            self.decode(&run, values)?;
            let run = Run {
                clock: Some(ClockId(HEAD_CLOCK | run.clock(&rows))),
                timestamps: &run.timestamps()[rows.clone()],
                values: RunValues::Floats(&values[rows]),
                starts: None,
            };
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
        worker: &mut Worker<'_>,
    ) -> Result<Option<Sample>, SelectError> {
        let entry = &self.series[series];
        let mut newest = match entry.head() {
            Some(head) => self.newest_in_head(head, after, at, worker.scratch)?,
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
            if found.is_some_and(|found| newest.is_none_or(|newest| found.timestamp >= newest.timestamp)) {
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
    ) -> Result<Option<Sample>, SelectError> {
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

    fn worker<'a>(&self, scratch: &'a mut Scratch) -> Worker<'a> {
        Worker { scratch, cursors: self.blocks.iter().map(|_| Cursor::default()).collect() }
    }
}

/// What one scan works with.
struct Worker<'a> {
    scratch: &'a mut Scratch,
    /// One for each block.
    cursors: Vec<Cursor>,
}

impl Selection for DbSelection {
    fn len(&self) -> usize {
        self.series.len()
    }

    fn labels(&self, series: usize) -> &Labels {
        &self.resolution.series[self.series[series].resolved as usize].labels
    }

    fn scan(
        &self,
        series: Range<usize>,
        range: TimeRange,
        scratch: &mut Scratch,
        visit: &mut Visit<'_>,
    ) -> Result<(), SelectError> {
        let mut worker = self.worker(scratch);
        for at in series {
            if self.scan_series(at, range, &mut worker, visit)?.is_break() {
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
        let mut worker = self.worker(scratch);
        for one in series {
            if let Some(Sample { timestamp, value }) = self.newest(one, after, at, &mut worker)? {
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

/// Two columns of one length, ascending in time.
#[derive(Debug, Default)]
struct Columns {
    times: Vec<i64>,
    values: Vec<f64>,
}

impl Columns {
    fn push(&mut self, run: &Run<'_>) {
        let RunValues::Floats(values) = run.values else { unreachable!("blocks hold floats") };
        self.times.extend_from_slice(run.timestamps);
        self.values.extend_from_slice(values);
    }

    fn within(mut self, range: TimeRange) -> Columns {
        let rows = rows_within(&self.times, range);
        self.times.truncate(rows.end);
        self.values.truncate(rows.end);
        self.times.drain(..rows.start);
        self.values.drain(..rows.start);
        self
    }

    /// Both in one; at equal times the sample of `self` stays.
    fn merge(self, other: Columns) -> Columns {
        if self.times.is_empty() || other.times.is_empty() {
            return if self.times.is_empty() { other } else { self };
        }
        let room = self.times.len() + other.times.len();
        let mut merged = Columns { times: Vec::with_capacity(room), values: Vec::with_capacity(room) };
        let (mut a, mut b) = (0, 0);
        while a < self.times.len() || b < other.times.len() {
            let from_self = match (self.times.get(a), other.times.get(b)) {
                (Some(left), Some(right)) => {
                    b += usize::from(left == right);
                    left <= right
                }
                (left, _) => left.is_some(),
            };
            let (columns, at) = if from_self { (&self, &mut a) } else { (&other, &mut b) };
            merged.times.push(columns.times[*at]);
            merged.values.push(columns.values[*at]);
            *at += 1;
        }
        merged
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
