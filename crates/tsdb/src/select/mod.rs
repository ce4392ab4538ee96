//! A resolved selector over head and blocks.
//!
//! A series' samples may lie in several places. Where the places follow one another in time, their runs
//! are handed on as they are; where they overlap (samples out of order, a block cut beside another),
//! the columns are merged, and of two samples at one time the one that was stored first stays: blocks
//! before the head, older blocks before newer ones.
//!
//! Not here: which series there are (`resolve`), and of those whose places overlap the samples (`overlapping`).

mod columns;
mod newest;
mod overlapping;

use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidewatch_model::{Labels, NativeHistogram, Sample};
use tidewatch_storage::{
    ClockId, Latest, Run, RunValues, Scratch, SelectError, Selection, Statistics, TimeRange,
};

use self::columns::rows_within;
use crate::block::{Block, BlockError, Cursor};
use crate::head::read::{HeadSnapshot, HistogramRunView, RunView};
use crate::head::starts::starts_of;
use crate::resolve::{Part, Resolution};
use crate::wounds::Wounds;

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
    /// Takes note of damage in runs of the head; blocks do so themselves.
    wounds: Arc<Wounds>,
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
        wounds: Arc<Wounds>,
    ) -> DbSelection {
        let mut selection = DbSelection {
            series: Vec::with_capacity(resolution.series.len()),
            resolution,
            head,
            blocks,
            samples: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            wounds,
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
        DbSelection::new(resolution, head, Vec::new(), Arc::default())
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
        let oldest = oldest.or_else(|| self.head.histogram_runs(head).next().map(|run| run.first()));
        let is_mixed = self.head.has_floats(head) && self.head.has_histograms(head);
        !is_mixed
            && self.head.late(head).is_empty()
            && self.head.late_histograms(head).is_empty()
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
        if entry.apart {
            self.scan_apart(series, range, worker, visit)
        } else if self.is_special(entry, worker)? {
            self.scan_gathered(series, range, worker, visit)
        } else {
            self.scan_merged(series, range, worker, visit)
        }
    }

    /// Gives the runs of a series whose places follow one another, as they are.
    fn scan_apart(
        &self,
        series: usize,
        range: TimeRange,
        worker: &mut Worker<'_>,
        visit: &mut Visit<'_>,
    ) -> Result<ControlFlow<()>, SelectError> {
        let entry = &self.series[series];
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
        self.scan_head(series, range, worker.scratch, visit)
    }

    /// Gives the runs that the head has of a series: floats or histograms.
    fn scan_head(
        &self,
        series: usize,
        range: TimeRange,
        scratch: &mut Scratch,
        visit: &mut Visit<'_>,
    ) -> Result<ControlFlow<()>, SelectError> {
        let entry = &self.series[series];
        for run in entry.head().into_iter().flat_map(|head| self.head.runs(head)) {
            let rows = rows_within(run.timestamps(), range);
            if rows.is_empty() {
                continue;
            }
            let Scratch { values, starts, .. } = &mut *scratch;
            values.clear();
            self.decode(&run, values)?;
            let timestamps = &run.timestamps()[rows.clone()];
            let run = Run {
                clock: Some(ClockId(HEAD_CLOCK | run.clock(&rows))),
                timestamps,
                values: RunValues::Floats(&values[rows]),
                starts: self.starts(entry, timestamps, starts),
            };
            if visit(series, run).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        for run in entry.head().into_iter().flat_map(|head| self.head.histogram_runs(head)) {
            let (mut timestamps, mut stored) = (Vec::new(), Vec::new());
            self.decode_histograms(&run, &mut timestamps, &mut stored)?;
            let rows = rows_within(&timestamps, range);
            if rows.is_empty() {
                continue;
            }
            let Scratch { histograms, starts, .. } = &mut *scratch;
            histograms.clear();
            histograms.extend(stored.drain(rows.clone()).map(NativeHistogram::into_float));
            let timestamps = &timestamps[rows];
            let run = Run {
                clock: None,
                timestamps,
                values: RunValues::Histograms(histograms),
                starts: self.starts(entry, timestamps, starts),
            };
            if visit(series, run).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// When the counters of samples of the head started, where that is known of any.
    fn starts<'a>(&self, entry: &Entry, timestamps: &[i64], starts: &'a mut Vec<i64>) -> Option<&'a [i64]> {
        let steps = self.head.steps(entry.head()?);
        if steps.is_empty() {
            return None;
        }
        starts.clear();
        starts_of(steps, timestamps, starts);
        starts.iter().any(|start| *start != 0).then_some(&starts[..])
    }

    fn decode_histograms(
        &self,
        run: &HistogramRunView<'_>,
        timestamps: &mut Vec<i64>,
        histograms: &mut Vec<NativeHistogram>,
    ) -> Result<(), SelectError> {
        let before = histograms.len();
        run.decode(timestamps, histograms).map_err(|reason| self.damaged_head(reason))?;
        self.samples.fetch_add((histograms.len() - before) as u64, Ordering::Relaxed);
        self.bytes.fetch_add(run.encoded_bytes() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn damaged_head(&self, reason: String) -> SelectError {
        self.wounds.meet(0, reason.clone(), false);
        SelectError::Damaged(reason)
    }

    fn decode(&self, run: &RunView<'_>, out: &mut Vec<f64>) -> Result<(), SelectError> {
        let before = out.len();
        run.decode(out).map_err(|reason| self.damaged_head(reason))?;
        self.samples.fetch_add((out.len() - before) as u64, Ordering::Relaxed);
        self.bytes.fetch_add(run.encoded_bytes() as u64, Ordering::Relaxed);
        Ok(())
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
        let mut found = 0;
        for one in series {
            if let Some(latest) = self.newest(one, after, at, &mut worker)? {
                found += 1;
                visit(one, latest);
            }
        }
        self.samples.fetch_add(found, Ordering::Relaxed);
        self.bytes.fetch_add(found * size_of::<Sample>() as u64, Ordering::Relaxed);
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
