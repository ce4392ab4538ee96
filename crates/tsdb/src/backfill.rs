//! Samples of the past, written to blocks beside a database that nobody runs: the door of imports.
//!
//! ```text
//!  push, push, … ─ flush ─► a block for each stretch of time ─┐
//!  sorted ─► Writer ─ keep ───────────────────────────────────┴─► merge ─► no two blocks overlap
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

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use tidewatch_env::Env;
use tidewatch_model::{Labels, Limits, RawLabels};

use crate::block::{Block, BlockError, BlockId, Writer, WriterOptions, block_path};
use crate::blocks::Blocks;
use crate::compact::{self, CompactOptions, Merge, Progress};
use crate::cut::widen;
use crate::db::reserve_bytes;
use crate::directory::Directory;
use crate::head::append::TIME_MIN;
use crate::head::registry::check_labels;
use crate::jobs::SLICE_SERIES;
use crate::options::{BLOCK_MS, OpenError};

/// Samples that are collected before they are written: 96 MiB, and half of that to sort them.
const SAMPLES_MAX: usize = 4 << 20;

/// Bytes of labels that are collected.
const LABEL_BYTES_MAX: usize = 64 << 20;

/// What became of what was pushed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackfillCounts {
    /// Samples written to blocks. A merge may find that some were there already.
    pub samples: u64,
    pub blocks: u64,
    /// Samples that came twice with the same value.
    pub duplicates: u64,
    /// Samples that were left out, as another value had come for their time before.
    pub conflicts: u64,
    /// The first of them, in words.
    pub first_conflict: Option<String>,
    /// Blocks that merging has made of those that overlapped.
    pub merged: u64,
    /// Why blocks that overlap were left as they are. Queries merge them.
    pub unmerged: Vec<String>,
}

/// Why nothing more can be written. What was flushed stays.
#[derive(Debug, thiserror::Error)]
pub enum BackfillError {
    #[error("{0}")]
    Block(#[from] BlockError),
    #[error(
        "{}: the disk is nearly full: its last 5 % or 256 MiB are a reserve. Make room, and run the import \
         again: it goes on where it was",
        path.display()
    )]
    Full { path: PathBuf },
}

/// A data directory that takes samples of the past.
pub struct Backfill {
    env: Env,
    directory: Directory,
    blocks: Blocks,
    limits: Limits,
    /// Series by labels, numbered as they come.
    numbers: HashMap<Labels, u32, RandomState>,
    labels: Vec<Labels>,
    label_bytes: usize,
    rows: Vec<Row>,
    counts: BackfillCounts,
}

/// A sample that waits.
#[derive(Debug, Clone, Copy)]
struct Row {
    series: u32,
    time: i64,
    value: f64,
}

impl Backfill {
    /// Takes the directory, creating it where it is missing. Fails where a server has it.
    pub fn open(env: &Env, dir: &Path) -> Result<Backfill, OpenError> {
        let directory = Directory::open(env, dir)?;
        let blocks = Blocks::default();
        blocks.load(env, &directory)?;
        Ok(Backfill {
            env: env.clone(),
            directory,
            blocks,
            limits: Limits::default(),
            numbers: HashMap::default(),
            labels: Vec::new(),
            label_bytes: 0,
            rows: Vec::new(),
            counts: BackfillCounts::default(),
        })
    }

    pub fn counts(&self) -> &BackfillCounts {
        &self.counts
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

    /// Collects samples of one series, in any order. Those whose time can not be stored are left
    /// to the caller to ask for: see [`Backfill::takes_time`].
    pub fn push(&mut self, labels: &Labels, times: &[i64], values: &[f64]) -> Result<(), String> {
        assert_eq!(times.len(), values.len(), "columns of one run are equally long");
        let series = self.number(labels)?;
        let rows = times.iter().zip(values).filter(|(time, _)| Self::takes_time(**time));
        self.rows.extend(rows.map(|(time, value)| Row { series, time: *time, value: *value }));
        Ok(())
    }

    fn number(&mut self, labels: &Labels) -> Result<u32, String> {
        if let Some(number) = self.numbers.get(labels) {
            return Ok(*number);
        }
        self.check(labels)?;
        let number = self.labels.len() as u32;
        self.numbers.insert(labels.clone(), number);
        self.labels.push(labels.clone());
        // The text, its counts, and the places in both tables.
        self.label_bytes += labels.as_bytes().len() + 64;
        Ok(number)
    }

    /// Whether it is time to [`Backfill::flush`].
    pub fn is_full(&self) -> bool {
        self.rows.len() >= SAMPLES_MAX || self.label_bytes >= LABEL_BYTES_MAX
    }

    /// Writes what was collected: durable in blocks when this returns.
    pub fn flush(&mut self) -> Result<(), BackfillError> {
        let mut order: Vec<u32> = (0..self.labels.len() as u32).collect();
        order.sort_unstable_by(|a, b| self.labels[*a as usize].cmp(&self.labels[*b as usize]));
        let mut ranks = vec![0; order.len()];
        for (rank, number) in (0..).zip(&order) {
            ranks[*number as usize] = rank;
        }
        let windows: BTreeSet<i64> = self.rows.iter().map(|row| row.time.div_euclid(BLOCK_MS)).collect();
        let (length_ms, _) = widen(BLOCK_MS, windows);
        let mut rows = std::mem::take(&mut self.rows);
        rows.iter_mut().for_each(|row| row.series = ranks[row.series as usize]);
        // Stable: of two samples at one time the first stays.
        rows.sort_by_key(|row| (row.time.div_euclid(length_ms), row.series, row.time));
        let labels: Vec<Labels> = order.iter().map(|number| self.labels[*number as usize].clone()).collect();
        self.drop_repeats(&mut rows, &labels);
        for window in rows.chunk_by(|a, b| a.time.div_euclid(length_ms) == b.time.div_euclid(length_ms)) {
            let start_ms = window[0].time.div_euclid(length_ms).saturating_mul(length_ms);
            self.write_window(window, &labels, start_ms, start_ms.saturating_add(length_ms))?;
        }
        rows.clear();
        self.rows = rows;
        self.numbers.clear();
        self.labels.clear();
        self.label_bytes = 0;
        Ok(())
    }

    fn drop_repeats(&mut self, rows: &mut Vec<Row>, labels: &[Labels]) {
        let counts = &mut self.counts;
        rows.dedup_by(|later, first| {
            let repeats = (later.series, later.time) == (first.series, first.time);
            if repeats && later.value.to_bits() == first.value.to_bits() {
                counts.duplicates += 1;
            } else if repeats {
                counts.conflicts += 1;
                counts.first_conflict.get_or_insert_with(|| {
                    let series = &labels[first.series as usize];
                    format!("{series} at {} ms: {} was kept, not {}", first.time, first.value, later.value)
                });
            }
            repeats
        });
    }

    fn write_window(
        &mut self,
        rows: &[Row],
        labels: &[Labels],
        start_ms: i64,
        end_ms: i64,
    ) -> Result<(), BackfillError> {
        let mut writer = self.writer(start_ms, end_ms)?;
        let (mut times, mut values) = (Vec::new(), Vec::new());
        for series in rows.chunk_by(|a, b| a.series == b.series) {
            times.clear();
            values.clear();
            times.extend(series.iter().map(|row| row.time));
            values.extend(series.iter().map(|row| row.value));
            writer.series(&labels[series[0].series as usize])?;
            writer.floats(&times, &values)?;
        }
        self.keep(writer)
    }

    /// A block of a source that has its series in the order of their labels. The end of the range
    /// is not included. The caller has asked [`Backfill::check`] and hands it to [`Backfill::keep`].
    pub fn writer(&self, start_ms: i64, end_ms: i64) -> Result<Writer, BackfillError> {
        self.check_room()?;
        let id = self.blocks.take_id();
        let options = WriterOptions { id, start_ms, end_ms, level: 0, parents: Vec::new() };
        Ok(Writer::create(&self.env, &self.directory.blocks(), options)?)
    }

    /// Fails where only the reserve is left. Where the disk does not say, there is room.
    fn check_room(&self) -> Result<(), BackfillError> {
        let root = &self.directory.root;
        match self.env.disk.space(root) {
            Ok(space) if space.free_bytes < reserve_bytes(space) => {
                Err(BackfillError::Full { path: root.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Completes a block.
    pub fn keep(&mut self, writer: Writer) -> Result<(), BackfillError> {
        let Some(meta) = writer.finish()? else { return Ok(()) };
        let block = Block::open(&self.env, &block_path(&self.directory.blocks(), meta.id))?;
        self.blocks.replace(&[], [block]);
        self.counts.samples += meta.samples;
        self.counts.blocks += 1;
        Ok(())
    }

    /// Merges blocks that overlap; says after each what is done. A block that can not be read is
    /// left as it is and named.
    pub fn merge(&mut self, merged: &mut dyn FnMut(u64)) -> Result<(), BackfillError> {
        let options = CompactOptions { block_ms: BLOCK_MS, range_max_ms: BLOCK_MS };
        let mut skipped: BTreeSet<BlockId> = BTreeSet::new();
        loop {
            let metas: Vec<_> =
                self.blocks.metas().into_iter().filter(|meta| !skipped.contains(&meta.id)).collect();
            let Some(plan) = compact::plan(&metas, &options, i64::MIN) else { return Ok(()) };
            self.check_room()?;
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

    fn merge_one(&self, plan: &compact::Plan) -> Result<(), BlockError> {
        let dir = self.directory.blocks();
        let list = self.blocks.list();
        let sources: Vec<Arc<Block>> =
            list.iter().filter(|block| plan.sources.contains(&block.meta().id)).cloned().collect();
        let mut merge = Merge::start(&self.env, &dir, plan, self.blocks.take_id(), sources)?;
        loop {
            match merge.step(SLICE_SERIES)? {
                (Progress::Done(meta), _) => {
                    let merged = meta.map(|meta| Block::open(&self.env, &block_path(&dir, meta.id)));
                    self.blocks.replace(&plan.sources, merged.transpose()?);
                    return compact::remove(&self.env, &dir, &plan.sources);
                }
                (_, Some(rest)) => merge = rest,
                (_, None) => unreachable!("a merge that is not done goes on"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ops::ControlFlow;

    use tidewatch_env::Env;
    use tidewatch_model::Matcher;
    use tidewatch_storage::{RunValues, Scratch, Select, TimeRange};

    use super::*;
    use crate::{Db, DbOptions};

    type Samples = BTreeMap<(String, i64), u64>;

    /// All that a database holds, as a server would find it.
    fn held(env: &Env) -> Samples {
        let options = DbOptions { retention_ms: None, ..DbOptions::new("/data") };
        let db = Db::open(env.clone(), options).expect("opens");
        db.recover().expect("recovers");
        let all = TimeRange { start: i64::MIN, end: i64::MAX };
        let selection = db.select(&[Matcher::equal("__name__", "x")], all).expect("complete");
        let mut found = Samples::new();
        let mut visit = |series: usize, run: tidewatch_storage::Run<'_>| {
            let RunValues::Floats(values) = run.values else { unreachable!("floats were written") };
            for (time, value) in run.timestamps.iter().zip(values) {
                found.insert((selection.labels(series).to_string(), *time), value.to_bits());
            }
            ControlFlow::Continue(())
        };
        selection.scan(0..selection.len(), all, &mut Scratch::default(), &mut visit).expect("readable");
        found
    }

    fn series(instance: i64) -> Labels {
        Labels::from_pairs([("__name__", "x"), ("instance", &instance.to_string())])
    }

    #[test]
    fn samples_in_any_order_come_out_sorted_and_once() {
        let simulation = Env::simulated(1);
        let mut backfill = Backfill::open(&simulation.env, Path::new("/data")).expect("opens");
        let mut expected = Samples::new();
        for round in 0..3 {
            for step in (0..2000i64).rev() {
                let (labels, time) = (series(step % 7), (step * 7919 % 4000 - 900) * 60_000);
                backfill.push(&labels, &[time], &[step as f64]).expect("taken");
                expected.entry((labels.to_string(), time)).or_insert((step as f64).to_bits());
            }
            backfill.flush().expect("a good disk");
            assert_eq!(backfill.counts().samples, (round + 1) * expected.len() as u64);
        }
        assert_eq!(
            backfill.counts().conflicts + backfill.counts().duplicates,
            6000 - 3 * expected.len() as u64
        );
        backfill.merge(&mut |_| {}).expect("a good disk");
        assert!(backfill.counts().merged > 0 && backfill.counts().unmerged.is_empty());
        drop(backfill);
        assert_eq!(held(&simulation.env), expected);
    }

    #[test]
    fn a_server_that_has_the_directory_keeps_it() {
        let simulation = Env::simulated(1);
        let _db = Db::open(simulation.env.clone(), DbOptions::new("/data")).expect("opens");
        let Err(error) = Backfill::open(&simulation.env, Path::new("/data")) else {
            panic!("two have one directory")
        };
        assert!(error.to_string().contains("in use by another process"), "{error}");
    }

    #[test]
    fn what_no_write_request_may_send_is_refused_by_name() {
        let simulation = Env::simulated(1);
        let mut backfill = Backfill::open(&simulation.env, Path::new("/data")).expect("opens");
        let long = Labels::from_pairs([("__name__", "x"), ("path", "/".repeat(5000).as_str())]);
        let reason = backfill.push(&long, &[0], &[1.0]).expect_err("too long");
        assert!(reason.contains("over the limit of 4096"), "{reason}");
        backfill.push(&series(1), &[i64::MAX, 5, i64::MIN], &[1.0; 3]).expect("taken");
        backfill.flush().expect("a good disk");
        assert_eq!(backfill.counts().samples, 1);
    }
}
