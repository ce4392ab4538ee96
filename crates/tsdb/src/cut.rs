//! Cutting: what the head has before a time moves to blocks.
//!
//! ```text
//!  begin   each shard: a bar at the time, logged; what lies before it does not change any more
//!  write   one block for each stretch of two hours, durable
//!  end     logged; blocks visible; floor of the shards at the time; memory given back
//! ```
//!
//! A sample that comes after the beginning and lies before the bar goes to the late samples and
//! is not part of the cut. A crash before the end leaves the head as it was, maybe with a block
//! that has the same samples: read once, and cut again later.
//!
//! A series that is new may come with samples of any age that retention allows: a sender that
//! catches up after an outage looks like that. One cut makes few blocks all the same (`stretches`).
//!
//! A cut goes back where the clock was ahead: all runs are in blocks then, and what is cut is late samples.
//!
//! Not here: when to cut (`jobs`).

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tidewatch_storage::{RunValues, Scratch, Selection, TimeRange};

use crate::block::{Block, BlockError, BlockMeta, Writer, WriterOptions, block_path};
use crate::db::Db;
use crate::files::Files;
use crate::gather::Gather;
use crate::head::append::FrameLog;
use crate::head::read::HeadSnapshot;
use crate::head::registry::SeriesId;
use crate::jobs::{JobError, SLICE_SERIES};
use crate::log::{write_cut_begin, write_cut_end};
use crate::resolve::Resolution;
use crate::select::DbSelection;
use crate::stretches::Stretches;

impl Db {
    pub(crate) fn cut(&self, files: &Files, until_ms: i64) -> Result<(), JobError> {
        let floor = self.head.floor();
        if until_ms <= floor && !self.is_ahead(floor, self.env.clock.wall_ms()) {
            // Planned before another cut ran.
            return Ok(());
        }
        self.blocks.sweep(&self.env, &files.directory)?;
        self.settle_deferred(files)?;
        let mut frame = Vec::new();
        for (at, shard) in self.head.shards.iter().enumerate() {
            let mut shard = shard.lock();
            write_cut_begin(at as u8, until_ms, &mut frame);
            files.log.append(&frame)?;
            shard.begin_cut(until_ms);
        }
        let mut stretches = Stretches::new();
        self.head.stretches_before(until_ms, &mut stretches);
        let ids = self.head.ids_by_labels();
        let mut blocks = Vec::new();
        for (start_ms, end_ms) in stretches.ranges() {
            // The last stretch may reach into what is not cut yet.
            let end_ms = end_ms.min(until_ms);
            let copy = |resolution: &Resolution, range| self.head.cut_snapshot(resolution, range);
            let dir = files.directory.blocks();
            let Some(meta) = self.write_block(&dir, &ids, (start_ms, end_ms), &copy)? else { continue };
            blocks.push(Block::open(&self.env, &block_path(&dir, meta.id))?);
        }
        write_cut_end(until_ms, &mut frame);
        // A frame that the log refuses goes in later, in order. So the cut has ended in any case: from
        // now on the blocks are the only ones to have its samples at the next start.
        let logged = files.log.append(&frame);
        // A reader looks at the head first: it finds the samples there or, after this, in a block.
        self.blocks.replace(&[], blocks);
        for (at, shard) in self.head.shards.iter().enumerate() {
            shard.lock().end_cut(at, until_ms);
        }
        let gone = self.head.truncate();
        self.counters.series_removed.fetch_add(gone as u64, Ordering::Relaxed);
        self.counters.cuts.fetch_add(1, Ordering::Relaxed);
        self.images_stale.store(true, Ordering::Relaxed);
        logged?;
        Ok(())
    }

    /// Writes the block of one stretch, its end not included, from what `copy` gives of some series;
    /// none where no series has a sample there.
    pub(crate) fn write_block(
        &self,
        dir: &Path,
        ids: &[SeriesId],
        (start_ms, end_ms): (i64, i64),
        copy: &dyn Fn(&Resolution, TimeRange) -> HeadSnapshot,
    ) -> Result<Option<BlockMeta>, JobError> {
        let id = self.blocks.take_id();
        let options = WriterOptions { id, start_ms, end_ms, level: 0, dense: false, parents: Vec::new() };
        let mut writer = Writer::create(&self.env, dir, options)?;
        let range = TimeRange { start: start_ms, end: end_ms - 1 };
        let mut scratch = Scratch::default();
        for slice in ids.chunks(SLICE_SERIES) {
            if self.is_stopping() {
                return Err(JobError::Stopped);
            }
            let resolution = Resolution::of_head(&self.head.directory.read(), slice);
            let head = copy(&resolution, range);
            let selection = DbSelection::of_head(Arc::new(resolution), head);
            write_slice(&mut writer, &selection, range, &mut scratch)?;
        }
        Ok(writer.finish()?)
    }
}

fn write_slice(
    writer: &mut Writer,
    selection: &DbSelection,
    range: TimeRange,
    scratch: &mut Scratch,
) -> Result<(), JobError> {
    let mut gather = Gather::default();
    for series in 0..selection.len() {
        writer.series(selection.labels(series))?;
        if selection.is_special_in_head(series) {
            let write = |run: crate::block::StoredRun<'_>| Ok::<_, JobError>(writer.run(&run)?);
            selection.scan_stored(series, range, &mut gather, write)?;
            continue;
        }
        let mut written: Result<(), BlockError> = Ok(());
        selection.scan(series..series + 1, range, scratch, &mut |_, run| {
            let RunValues::Floats(values) = run.values else { unreachable!("the series has floats only") };
            written = writer.floats(run.timestamps, values);
            if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        written?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tidewatch_env::{Clock, Env};
    use tidewatch_model::{Batch, Labels, RawLabels, Sample};
    use tidewatch_storage::{Append, Select};

    use super::*;
    use crate::DbOptions;
    use crate::head::append::TIME_MIN;
    use crate::head::shard::Shard;
    use crate::options::BLOCK_MS;

    /// No request gets such times in, but a log of other times may have them.
    #[test]
    fn the_first_and_last_of_all_times_are_cut_like_others() {
        let simulation = Env::simulated(1);
        let options = DbOptions { retention_ms: None, ..DbOptions::new("/data") };
        let db = Db::open(simulation.env.clone(), options).expect("opens");
        db.recover().expect("recovers");
        let now = simulation.clock.wall_ms();
        let times = [i64::MIN, i64::MIN + 1, TIME_MIN, now - 5 * BLOCK_MS, now, i64::MAX];
        let labels = Labels::from_pairs([("__name__", "x")]);
        let mut batch = Batch::new();
        batch.push(RawLabels::Canonical(labels.as_bytes()), &[]);
        db.append(&batch).expect("takes writes");
        let id = db.head.ids_by_labels()[0];
        for timestamp in times {
            let sample = Sample { timestamp, value: 1.0 };
            db.head.shards[Shard::of(id)].lock().take(id, sample, i64::MAX);
        }
        while let Some(job) = db.next_job(now) {
            db.run(job).expect("a good disk");
        }
        assert!(db.status().counters.cuts > 0);
        let all = TimeRange { start: i64::MIN, end: i64::MAX };
        let selection = db.select(&[], all).expect("complete");
        let mut found = Vec::new();
        let mut visit = |_: usize, run: tidewatch_storage::Run<'_>| {
            found.extend_from_slice(run.timestamps);
            ControlFlow::Continue(())
        };
        selection.scan(0..1, all, &mut Scratch::default(), &mut visit).expect("readable");
        assert_eq!(found, times);
    }
}
