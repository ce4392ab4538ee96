//! Samples of the past, written to blocks beside a database that nobody runs: the door of imports.
//!
//! ```text
//!  push, push, … ─► Pending ─ flush ─► a block for each stretch of time ─┐
//!  in order ─► SortedBlock ─ keep ─────────────────────────────────────────┴─► merge ─► no two overlap
//! ```
//!
//! Old samples lie outside the out-of-order window, so they can not come by the head. Samples in any
//! order are collected up to a size, and written as blocks of the stretches that they fall into;
//! blocks that overlap by that are merged at the end, as the server would do it.
//!
//! Invariants: memory is bounded whatever is pushed; what was flushed is durable; writing the same
//! samples again changes nothing once blocks are merged, so a caller that was interrupted may
//! repeat its last part; the lock of the directory is held as long as this lives.
//!
//! Not here: where samples come from, and how far an import has come (the binary).

mod pending;
mod sorted;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidewatch_env::Env;
use tidewatch_model::{Labels, Limits, RawLabels};

pub use sorted::SortedBlock;

use self::pending::{Pending, Row, Sorted};
use self::sorted::relate;
use crate::block::{Block, BlockError, BlockId, StoredRun, StoredValues, Writer, WriterOptions, block_path};
use crate::blocks::Blocks;
use crate::compact::{self, CompactOptions, LeftOut, Merge, Progress};
use crate::db::Db;
use crate::directory::{Directory, has_our_files};
use crate::files::{nearly_full, reserve_bytes};
use crate::gather::StoredValue;
use crate::head::append::{TIME_MIN, check_histogram};
use crate::head::registry::check_labels;
use crate::jobs::{Job, JobError, SLICE_SERIES};
use crate::options::{BLOCK_MS, DbOptions, OpenError};
use crate::status::Damage;

/// What became of what was pushed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackfillCounts {
    /// Samples written to blocks. A merge may find that some were there already.
    pub samples: u64,
    pub blocks: u64,
    /// Samples that came twice with the same value.
    pub duplicates: u64,
    /// Samples that were left out, as another value had come for their time before.
    pub conflicts: Conflicts,
    /// Samples that were left out, as another value had been stored for their time before all of this: known
    /// once blocks are merged.
    pub stored_conflicts: Conflicts,
    /// Blocks that merging has made of those that overlapped.
    pub merged: u64,
    /// Why blocks that overlap were left as they are. Queries merge them.
    pub unmerged: Vec<String>,
}

/// Samples of which another value was kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conflicts {
    pub count: u64,
    /// The first of them, in words.
    pub first: Option<String>,
}

impl Conflicts {
    fn add(&mut self, series: &Labels, time: i64, kept: StoredValue<'_>, left: StoredValue<'_>) {
        self.count += 1;
        self.first.get_or_insert_with(|| format!("{series} at {time} ms: {kept} was kept, not {left}"));
    }
}

/// Why nothing more can be written. What was flushed stays.
#[derive(Debug, thiserror::Error)]
pub enum BackfillError {
    #[error("{0}")]
    Block(#[from] BlockError),
    #[error("{0}")]
    Open(#[from] OpenError),
    #[error("{0}")]
    Head(#[from] JobError),
    #[error(
        "{}: {reason}, and run the import again: it goes on where it was", path.display()
    )]
    Full { path: PathBuf, reason: String },
}

/// A data directory that takes samples of the past.
pub struct Backfill {
    env: Env,
    directory: Directory,
    blocks: Blocks,
    limits: Limits,
    pending: Pending,
    counts: BackfillCounts,
    /// The blocks that were made here and are not merged with those that were stored before.
    made: BTreeSet<BlockId>,
    /// What was found when the head was read.
    damage: Vec<Damage>,
}

/// What of a run can be stored, where that is not all.
struct Sifted {
    rows: Vec<usize>,
    /// Why the rest can not.
    reason: String,
}

/// Looks whether times and histograms of a run can be stored.
fn sift(labels: &Labels, run: &StoredRun<'_>) -> Option<Sifted> {
    let StoredRun { timestamps, values, .. } = *run;
    let check = |row: usize| match values {
        StoredValues::Histograms(histograms) => check_histogram(&histograms[row]),
        StoredValues::Floats(_) => Ok(()),
    };
    let is_fine = |(row, time): (usize, &i64)| Backfill::takes_time(*time) && check(row).is_ok();
    if timestamps.iter().enumerate().all(is_fine) {
        return None;
    }
    let (mut bad_times, mut bad_histograms) = (0, 0);
    let (mut first, mut rows) = (String::new(), Vec::new());
    for (row, time) in timestamps.iter().enumerate() {
        match check(row) {
            _ if !Backfill::takes_time(*time) => bad_times += 1,
            Ok(()) => rows.push(row),
            Err(reason) => {
                bad_histograms += 1;
                if bad_histograms == 1 {
                    first = format!("the one at {time} ms {reason}");
                }
            }
        }
    }
    let reason = match (bad_times, bad_histograms) {
        (times, 0) => format!("{labels}: {times} samples have a time that can not be stored"),
        (0, histograms) => format!("{labels}: {histograms} histograms can not be stored: {first}"),
        (times, histograms) => format!(
            "{labels}: {times} samples have a time that can not be stored, nor can {histograms} histograms: {first}"
        ),
    };
    Some(Sifted { rows, reason })
}

/// Moves all that the head of a database has to blocks; gives what a start finds damaged.
fn cut_head(env: &Env, dir: &Path) -> Result<Vec<Damage>, JobError> {
    let options = DbOptions { retention_ms: None, exemplars_max: usize::MAX, ..DbOptions::new(dir) };
    let db = Db::open(env.clone(), options)?;
    db.recover()?;
    if let Some((_, newest_ms)) = db.head.time_range() {
        // Late samples may all lie before the last cut; one that ends there would not begin.
        db.run(Job::Cut { until_ms: newest_ms.max(db.head.floor()).saturating_add(1) })?;
        db.run(Job::Image)?;
    }
    Ok(db.status().damage)
}

impl Backfill {
    /// Takes the directory, creating it where it is missing. Fails where a server has it.
    ///
    /// What the head has was stored first, so it moves to blocks before others are made.
    pub fn open(env: &Env, dir: &Path) -> Result<Backfill, BackfillError> {
        let damage = if has_our_files(env, dir) { cut_head(env, dir)? } else { Vec::new() };
        let directory = Directory::open(env, dir)?;
        let blocks = Blocks::default();
        blocks.load(env, &directory)?;
        Ok(Backfill {
            env: env.clone(),
            directory,
            blocks,
            limits: Limits::default(),
            pending: Pending::default(),
            counts: BackfillCounts::default(),
            made: BTreeSet::new(),
            damage,
        })
    }

    /// What was found damaged or missing when the directory was opened. Nobody else is told: the next
    /// start finds it in order.
    pub fn damage(&self) -> Vec<Damage> {
        self.damage.iter().cloned().chain(self.directory.damage().0).collect()
    }

    pub fn counts(&self) -> &BackfillCounts {
        &self.counts
    }

    /// The blocks that were made here and that no merge has looked at yet.
    pub fn made(&self) -> impl Iterator<Item = BlockId> {
        self.made.iter().copied()
    }

    /// Counts blocks among those made here: an import made them that was interrupted before it merged them.
    pub fn resume(&mut self, made: impl IntoIterator<Item = BlockId>) {
        self.made.extend(made);
    }

    /// Why a series is not taken, if that is so: what a write request with it would be told.
    pub fn check(&self, labels: &Labels) -> Result<(), String> {
        match check_labels(&RawLabels::Canonical(labels.as_bytes()), &self.limits) {
            Ok(_) => Ok(()),
            Err((_, cause)) => Err(format!("{labels}: {cause}")),
        }
    }

    /// Whether a time can be stored: those within some thirty million years can.
    pub fn takes_time(time_ms: i64) -> bool {
        (TIME_MIN..=-TIME_MIN).contains(&time_ms)
    }

    /// Collects samples of one series, in any order. What can not be stored of them is the error; the
    /// rest is collected.
    pub fn push(&mut self, labels: &Labels, run: &StoredRun<'_>) -> Result<(), String> {
        let series = match self.pending.number(labels) {
            Some(number) => number,
            None => {
                self.check(labels)?;
                self.pending.add_series(labels)
            }
        };
        match sift(labels, run) {
            None => (0..run.timestamps.len()).for_each(|row| self.pending.push(series, run, row)),
            Some(Sifted { rows, reason }) => {
                rows.iter().for_each(|row| self.pending.push(series, run, *row));
                return Err(reason);
            }
        }
        Ok(())
    }

    /// Samples that were pushed or are in blocks that were made here, repeats included.
    pub fn taken(&self) -> u64 {
        let BackfillCounts { samples, duplicates, conflicts, .. } = &self.counts;
        samples + duplicates + conflicts.count + self.pending.len() as u64
    }

    /// Whether it is time to [`Backfill::flush`].
    pub fn is_full(&self) -> bool {
        self.pending.is_full()
    }

    /// Writes what was collected: durable in blocks when this returns.
    pub fn flush(&mut self) -> Result<(), BackfillError> {
        let mut sorted = self.pending.take();
        let mut rows = std::mem::take(&mut sorted.rows);
        self.drop_repeats(&mut rows, &sorted);
        let window = |row: &Row| row.time.div_euclid(sorted.length_ms);
        for rows in rows.chunk_by(|a, b| window(a) == window(b)) {
            self.write_window(rows, &sorted, window(&rows[0]).saturating_mul(sorted.length_ms))?;
        }
        sorted.rows = rows;
        self.pending.reuse(sorted);
        Ok(())
    }

    fn drop_repeats(&mut self, rows: &mut Vec<Row>, sorted: &Sorted) {
        let counts = &mut self.counts;
        rows.dedup_by(|later, first| {
            let repeats = (later.series, later.time) == (first.series, first.time);
            let (kept, left) = (sorted.value(first), sorted.value(later));
            if repeats && kept.is_same(left) {
                counts.duplicates += 1;
            } else if repeats {
                counts.conflicts.add(&sorted.labels[first.series as usize], first.time, kept, left);
            }
            repeats
        });
    }

    fn write_window(&mut self, rows: &[Row], sorted: &Sorted, start_ms: i64) -> Result<(), BackfillError> {
        let mut writer = self.writer(start_ms, start_ms.saturating_add(sorted.length_ms))?;
        let (mut times, mut floats, mut starts) = (Vec::new(), Vec::new(), Vec::new());
        let mut histograms = Vec::new();
        for series in rows.chunk_by(|a, b| a.series == b.series) {
            writer.series(&sorted.labels[series[0].series as usize])?;
            let is_float = |row: &Row| sorted.histogram(row).is_none();
            for stretch in series.chunk_by(|a, b| is_float(a) == is_float(b)) {
                times.clear();
                floats.clear();
                starts.clear();
                times.extend(stretch.iter().map(|row| row.time));
                floats.extend(stretch.iter().map(|row| row.value));
                starts.extend(stretch.iter().map(|row| sorted.start(row)));
                histograms.clear();
                histograms.extend(stretch.iter().filter_map(|row| sorted.histogram(row)).cloned());
                relate(&mut histograms, None);
                let values = match histograms.is_empty() {
                    true => StoredValues::Floats(&floats),
                    false => StoredValues::Histograms(&histograms),
                };
                let starts = starts.iter().any(|start| *start != 0).then_some(&starts[..]);
                writer.run(&StoredRun { timestamps: &times, values, starts })?;
            }
        }
        self.keep_writer(writer)
    }

    /// Starts a block of a source that has its series in the order of their labels. The end of the
    /// range is not included; [`Backfill::takes_time`] takes both.
    pub fn sorted(&self, start_ms: i64, end_ms: i64) -> Result<SortedBlock, BackfillError> {
        Ok(SortedBlock::new(self.writer(start_ms, end_ms)?, start_ms..end_ms))
    }

    /// Completes such a block: durable when this returns.
    pub fn keep(&mut self, block: SortedBlock) -> Result<(), BackfillError> {
        self.keep_writer(block.writer)
    }

    fn writer(&self, start_ms: i64, end_ms: i64) -> Result<Writer, BackfillError> {
        self.check_room()?;
        let id = self.blocks.take_id();
        let options = WriterOptions { id, start_ms, end_ms, level: 0, dense: false, parents: Vec::new() };
        Ok(Writer::create(&self.env, &self.directory.blocks(), options)?)
    }

    /// Fails where only the reserve is left. Where the disk does not say, there is room.
    fn check_room(&self) -> Result<(), BackfillError> {
        let root = &self.directory.root;
        match self.env.disk.space(root) {
            Ok(space) if space.free_bytes < reserve_bytes(space) => {
                Err(BackfillError::Full { path: root.clone(), reason: nearly_full(Some(space)) })
            }
            _ => Ok(()),
        }
    }

    fn keep_writer(&mut self, writer: Writer) -> Result<(), BackfillError> {
        let Some(meta) = writer.finish()? else { return Ok(()) };
        let block = Block::open(&self.env, &block_path(&self.directory.blocks(), meta.id))?;
        self.blocks.replace(&[], [block]);
        self.made.insert(meta.id);
        self.counts.samples += meta.samples;
        self.counts.blocks += 1;
        Ok(())
    }

    /// Merges blocks that overlap; says after each what is done, and counts what other values had been stored
    /// before. A block that can not be read is left as it is and named.
    pub fn merge(&mut self, merged: &mut dyn FnMut(u64)) -> Result<(), BackfillError> {
        let options = CompactOptions {
            block_ms: BLOCK_MS,
            range_max_ms: BLOCK_MS,
            bytes_max: u64::MAX,
            room_bytes: u64::MAX,
        };
        let mut skipped: BTreeSet<BlockId> = BTreeSet::new();
        loop {
            let metas: Vec<_> =
                self.blocks.metas().into_iter().filter(|meta| !skipped.contains(&meta.id)).collect();
            let Some(plan) = compact::plan(&metas, &options, i64::MAX) else {
                // What overlaps nothing has nothing to be compared with.
                self.made.clear();
                return Ok(());
            };
            self.check_room()?;
            self.keep_damaged(&plan)?;
            match self.merge_one(&plan) {
                Ok(()) => self.counts.merged += 1,
                Err(error @ BlockError::Io { .. }) => return Err(error.into()),
                Err(error) => {
                    self.counts.unmerged.push(error.to_string());
                    skipped.extend(&plan.sources);
                }
            }
            merged(self.counts.merged);
        }
    }

    /// Keeps what of a plan's blocks is damaged: the merge has what is whole, and then their files go.
    fn keep_damaged(&self, plan: &compact::Plan) -> Result<(), OpenError> {
        let list = self.blocks.list();
        let mut sources = list.iter().filter(|block| plan.sources.contains(&block.meta().id));
        sources.try_for_each(|block| match block.lacks_series() {
            true => self.directory.keep_copy_once(block.path()),
            false => Ok(()),
        })
    }

    fn merge_one(&mut self, plan: &compact::Plan) -> Result<(), BlockError> {
        let dir = self.directory.blocks();
        let list = self.blocks.list();
        let sources: Vec<Arc<Block>> =
            list.iter().filter(|block| plan.sources.contains(&block.meta().id)).cloned().collect();
        let mut merge = Merge::start(&self.env, &dir, plan, self.blocks.take_id(), sources)?;
        let (mut conflicts, mut stored_conflicts) =
            (self.counts.conflicts.clone(), self.counts.stored_conflicts.clone());
        let mut tell = |LeftOut { labels, time, kept, left }: LeftOut<'_>| {
            if !self.made.contains(&left.0) || kept.1.is_same(left.1) {
                return;
            }
            let of_whom = if self.made.contains(&kept.0) { &mut conflicts } else { &mut stored_conflicts };
            of_whom.add(labels, time, kept.1, left.1);
        };
        loop {
            match merge.step_telling(SLICE_SERIES, &mut tell)? {
                (Progress::Done(meta), _) => {
                    let merged = meta.map(|meta| Block::open(&self.env, &block_path(&dir, meta.id)));
                    self.blocks.replace(&plan.sources, merged.transpose()?);
                    self.counts.conflicts = conflicts;
                    self.counts.stored_conflicts = stored_conflicts;
                    return self.blocks.remove(&self.env, &self.directory, &plan.sources);
                }
                (_, Some(rest)) => merge = rest,
                (_, None) => unreachable!("a merge that is not done goes on"),
            }
        }
    }
}
