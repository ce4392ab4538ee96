//! Series that have ended leave the head early.
//!
//! A series whose target is gone takes its memory until a cut has all that it had, which is hours. Where
//! many have ended (pods that were replaced), what they have goes to blocks of its own:
//!
//! ```text
//!  find    series that ended some time ago, and how far they had come
//!  write   their samples, one block for each stretch of two hours, durable and visible
//!  leave   each shard: those that took nothing since, logged and forgotten
//! ```
//!
//! A series that took a sample in between stays: what it has is in a block too then, read once, and cut
//! again later. That is also what a crash before the end leaves. A series that comes back is a new one
//! to the head; its older samples are read from the block. The blocks overlap those of the next cut,
//! and are merged with them; before that only with one another, and when they are several.
//!
//! The frame of a shard:
//!
//! ```text
//! offset  size  field
//!      0     2  kind and flags, see `log`
//!      2     1  shard
//!      3     …  series   that left it here: see `ids`
//! ```
//!
//! Not here: which series have ended (`head::ended`).

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use tidewatch_storage::TimeRange;

use crate::block::{Block, block_path};
use crate::db::Db;
use crate::delete::FRAME_SERIES_MAX;
use crate::fields::Reader;
use crate::files::Files;
use crate::head::SHARDS;
use crate::head::append::FrameLog;
use crate::head::ended::Ended;
use crate::head::registry::SeriesId;
use crate::head::shard::Shard;
use crate::ids::{Ids, push_ids};
use crate::jobs::JobError;
use crate::log::{FrameError, FrameKind};
use crate::resolve::Resolution;
use crate::stretches::Stretches;

/// How long ago a series has to have ended: one whose target missed a scrape, or was restarted,
/// comes back before.
const SETTLED_MS: i64 = 2 * 60 * 1000;

/// How often those that ended are counted.
const COUNT_MS: i64 = 60 * 1000;

/// When series that ended are to leave, and how many there were at the last look.
#[derive(Debug)]
pub(crate) struct StaleWatch {
    /// The bits of the share of all series at which they leave; 0 for never.
    share: AtomicU64,
    counted_ms: AtomicI64,
    count: AtomicU64,
    /// Whether those that were counted are to leave.
    due: AtomicBool,
}

impl StaleWatch {
    pub(crate) fn new(share: f64) -> StaleWatch {
        StaleWatch {
            share: AtomicU64::new(share.to_bits()),
            counted_ms: AtomicI64::new(i64::MIN),
            count: AtomicU64::new(0),
            due: AtomicBool::new(false),
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether it is time for another look.
    fn is_due(&self, now_ms: i64) -> bool {
        let counted_ms = self.counted_ms.load(Ordering::Relaxed);
        // A clock that was set back makes it due as well.
        now_ms.saturating_sub(counted_ms) >= COUNT_MS || now_ms < counted_ms
    }
}

/// A frame of series that left a shard, checked as far as that can be without knowing them.
#[derive(Debug)]
pub(crate) struct Departure<'a> {
    pub(crate) shard: usize,
    pub(crate) ids: Ids<'a>,
}

fn write_frame(shard: usize, ids: &[SeriesId], out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&[FrameKind::Left as u8, 0, shard as u8]);
    push_ids(ids, out);
}

impl<'a> Departure<'a> {
    /// Reads the frame behind its kind and flags.
    pub(crate) fn read(mut reader: Reader<'a>) -> Result<Departure<'a>, FrameError> {
        let shard = usize::from(reader.byte()?);
        if shard >= SHARDS {
            return Err(FrameError::Malformed);
        }
        Ok(Departure { shard, ids: Ids::read(reader)? })
    }
}

impl Db {
    /// At which share of the series of the head those that have ended leave it, from now on; 0 for
    /// never, before the next cut.
    pub fn set_stale_share(&self, share: f64) {
        self.stale.share.store(share.to_bits(), Ordering::Relaxed);
    }

    /// Whether so many series have ended that they are to leave. Looks once a minute.
    pub(crate) fn stale_due(&self, now_ms: i64) -> bool {
        let watch = &self.stale;
        if watch.is_due(now_ms) {
            let count = self.head.ended_count(now_ms.saturating_sub(SETTLED_MS));
            let all = self.head.directory.read().registry.len();
            let share = f64::from_bits(watch.share.load(Ordering::Relaxed));
            let due = share > 0.0 && count > 0 && count as f64 >= share * all as f64;
            watch.counted_ms.store(now_ms, Ordering::Relaxed);
            watch.count.store(count, Ordering::Relaxed);
            watch.due.store(due, Ordering::Relaxed);
        }
        watch.due.load(Ordering::Relaxed)
    }

    /// Moves what the series have that ended some time ago to blocks.
    pub(crate) fn cut_stale(&self, files: &Files) -> Result<(), JobError> {
        self.blocks.sweep(&self.env, &files.directory)?;
        self.settle_deferred(files)?;
        let ended = self.head.ended(self.env.clock.wall_ms().saturating_sub(SETTLED_MS));
        self.write_ended(files, &ended)?;
        let logged = self.let_go(&ended, &files.log);
        let gone = self.head.truncate();
        self.counters.series_removed.fetch_add(gone as u64, Ordering::Relaxed);
        self.stale.count.store(0, Ordering::Relaxed);
        self.stale.due.store(false, Ordering::Relaxed);
        logged
    }

    /// Writes blocks of all that series have.
    fn write_ended(&self, files: &Files, ended: &[Ended]) -> Result<(), JobError> {
        let mut stretches = Stretches::new();
        for series in ended {
            self.head.shards[Shard::of(series.id)].lock().stretches_of(series.id, &mut stretches);
        }
        let ids = self.head.by_labels(ended.iter().map(|series| series.id).collect());
        let copy = |resolution: &Resolution, range: TimeRange| self.head.whole_snapshot(resolution, range);
        let dir = files.directory.blocks();
        let mut blocks = Vec::new();
        for range in stretches.ranges() {
            let Some(meta) = self.write_block(&dir, &ids, range, &copy)? else { continue };
            blocks.push(Block::open(&self.env, &block_path(&dir, meta.id))?);
        }
        // Before anything leaves: a reader looks at the head first, and finds the samples there or,
        // after this, in a block.
        self.blocks.replace(&[], blocks);
        Ok(())
    }

    /// Forgets the series that took nothing since they were found.
    fn let_go(&self, ended: &[Ended], log: &dyn FrameLog) -> Result<(), JobError> {
        let mut frame = Vec::new();
        let mut result = Ok(());
        for of_shard in ended.chunk_by(|a, b| Shard::of(a.id) == Shard::of(b.id)) {
            let at = Shard::of(of_shard[0].id);
            let mut shard = self.head.shards[at].lock();
            let still: Vec<SeriesId> =
                of_shard.iter().filter(|series| shard.is_still(series)).map(|series| series.id).collect();
            for ids in still.chunks(FRAME_SERIES_MAX) {
                write_frame(at, ids, &mut frame);
                // A frame that the log refuses goes in later, in order: see `DurableLog`.
                result = result.and(log.append(&frame).map(drop));
                ids.iter().for_each(|id| shard.leave(*id));
            }
            self.counters.stale_series_cut.fetch_add(still.len() as u64, Ordering::Relaxed);
        }
        Ok(result?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Frame, read_frame};

    #[test]
    fn a_frame_of_series_that_left_is_frozen() {
        let mut bytes = Vec::new();
        write_frame(3, &[SeriesId(3), SeriesId(300)], &mut bytes);
        assert_eq!(bytes, [7, 0, 3, 2, 3, 0xa9, 2]);
        let Ok(Frame::Left(departure)) = read_frame(&bytes) else { panic!("no departure") };
        let mut ids = Vec::new();
        departure.ids.for_each(|id| ids.push(id.0));
        assert_eq!((departure.shard, ids), (3, vec![3, 300]));
        for len in 0..bytes.len() {
            assert!(read_frame(&bytes[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn those_that_ended_are_counted_once_a_minute() {
        let watch = StaleWatch::new(0.5);
        assert!(watch.is_due(0));
        watch.counted_ms.store(100_000, Ordering::Relaxed);
        let due = [99_999, 100_000, 159_999, 160_000].map(|now_ms| watch.is_due(now_ms));
        assert_eq!(due, [true, false, false, true]);
    }
}
