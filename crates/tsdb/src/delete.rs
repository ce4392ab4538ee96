//! Deleting samples by matchers and time, and rewriting blocks without them.
//!
//! ```text
//!  delete ─┬─ blocks: tombstones beside each, durable   (see `block::tombstones`)
//!          └─ head: a frame for each shard, applied, committed   (see `head::deleted`)
//! ```
//!
//! What there is when the call begins is deleted; what is written later stays, also at the same
//! times. A deletion is acknowledged when all of it is durable. One that fails may have
//! taken place in part: each block and each shard on its own. It can be asked for again.
//!
//! No job runs meanwhile, and files that no list names any more are removed first: neither a
//! half-made block nor a replaced one can bring back what was deleted. The same goes for batches that
//! came during a recovery, see [`Db::settle_deferred`].
//!
//! The frame of a shard:
//!
//! ```text
//! offset  size  field
//!      0     2  kind and flags, see `log`
//!      2     1  shard
//!      3     8  start    of the range, in ms; included
//!     11     8  end      included
//!     19     …  series   see `ids`
//! ```

use std::sync::atomic::Ordering;

use tidewatch_env::replace_durably;
use tidewatch_model::Matcher;
use tidewatch_storage::{AppendError, Room, SelectError, TimeRange};

use crate::block::{BlockError, tombstones_path};
use crate::compact;
use crate::db::Db;
use crate::debt::Debt;
use crate::fields::Reader;
use crate::files::Files;
use crate::head::SHARDS;
use crate::head::append::FrameLog;
use crate::head::registry::SeriesId;
use crate::head::shard::Shard;
use crate::ids::{Ids, push_ids};
use crate::jobs::{Job, JobError};
use crate::log::{FrameError, FrameKind};
use crate::select::overlaps;

/// Series of one frame: it stays far below the log's limit for one.
pub(crate) const FRAME_SERIES_MAX: usize = 1 << 20;

/// A frame of a deletion, checked as far as that can be without knowing series.
#[derive(Debug)]
pub(crate) struct Deletion<'a> {
    pub(crate) shard: usize,
    pub(crate) range: TimeRange,
    pub(crate) ids: Ids<'a>,
}

pub(crate) fn write_frame(shard: usize, range: TimeRange, ids: &[SeriesId], out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&[FrameKind::Delete as u8, 0, shard as u8]);
    out.extend_from_slice(&range.start.to_le_bytes());
    out.extend_from_slice(&range.end.to_le_bytes());
    push_ids(ids, out);
}

impl<'a> Deletion<'a> {
    /// Reads the frame behind its kind and flags.
    pub(crate) fn read(mut reader: Reader<'a>) -> Result<Deletion<'a>, FrameError> {
        let shard = usize::from(reader.byte()?);
        let start = i64::from_le_bytes(reader.array()?);
        let end = i64::from_le_bytes(reader.array()?);
        if shard >= SHARDS || start > end {
            return Err(FrameError::Malformed);
        }
        Ok(Deletion { shard, range: TimeRange { start, end }, ids: Ids::read(reader)? })
    }
}

impl Db {
    /// Deletes all samples in `range` of the series that satisfy all matchers. Durable when this
    /// returns. Waits for a job that runs.
    pub fn delete(&self, matchers: &[Matcher], range: TimeRange) -> Result<(), JobError> {
        if range.start > range.end {
            return Ok(());
        }
        let _no_job = self.running.lock();
        let Some(files) = &self.files else {
            self.delete_in_head(matchers, range, &crate::db::NoLog, &mut |_| true)?;
            return Ok(());
        };
        if !self.is_complete() {
            return Err(SelectError::Recovering.into());
        }
        if let Some(reason) = files.log.refusal() {
            return Err(AppendError::ReadOnly { reason }.into());
        }
        self.blocks.sweep(&self.env, &files.directory)?;
        self.settle_deferred(files)?;
        self.delete_in_blocks(files, matchers, range)?;
        self.delete_in_head(matchers, range, &files.log, &mut |_| true)?;
        files.log.commit()?;
        self.counters.deletions.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn delete_in_blocks(
        &self,
        files: &Files,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<(), BlockError> {
        for block in self.blocks.list().iter().filter(|block| overlaps(block, range)) {
            let Some(tombstones) = block.deletion(matchers, range)? else { continue };
            let path = tombstones_path(&files.directory.blocks(), block.meta().id);
            replace_durably(&*self.env.disk, &path, &tombstones.encode(block))
                .map_err(|source| BlockError::Io { path, source })?;
            self.blocks.replace(&[block.meta().id], [block.with_tombstones(tombstones)]);
        }
        self.blocks.note(&self.env, &files.directory);
        self.resolutions.forget();
        Ok(())
    }

    fn delete_in_head(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        log: &dyn FrameLog,
        room: &mut Room<'_>,
    ) -> Result<(), JobError> {
        let until = self.head.directory.read().registry.next_id();
        // The directory is held to the end: no series is removed under the deletion.
        let (_directory, ids) = self.head.matching_below(until, matchers, &mut Debt::new(room))?;
        let mut of_shards: [Vec<SeriesId>; SHARDS] = Default::default();
        for id in ids.iter().map(SeriesId) {
            of_shards[Shard::of(id)].push(id);
        }
        let mut frame = Vec::new();
        for (at, mut ids) in of_shards.into_iter().enumerate() {
            let mut shard = self.head.shards[at].lock();
            ids.retain(|id| shard.may_hold(*id, range));
            for ids in ids.chunks(FRAME_SERIES_MAX) {
                write_frame(at, range, ids, &mut frame);
                // A frame that the log refuses goes in later, in order: see `DurableLog`.
                let logged = log.append(&frame);
                ids.iter().for_each(|id| shard.delete(*id, range));
                logged?;
            }
        }
        Ok(())
    }

    /// Rewrites all blocks of which something is deleted, without that.
    pub fn clean_tombstones(&self) -> Result<(), JobError> {
        if !self.is_complete() {
            return Err(SelectError::Recovering.into());
        }
        let mut outcome = Ok(());
        // Each plan is made from what is there then: a block may be gone with one before.
        for block in self.blocks.list().iter().filter(|block| !block.tombstones().is_empty()) {
            let Some(plan) = compact::clean(&self.blocks.metas(), block.meta().id) else { continue };
            // One that is damaged does not keep the others from being rewritten.
            outcome = outcome.and(self.run(Job::Clean(plan)));
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use tidewatch_env::Env;
    use tidewatch_model::{Batch, Labels, MatchOp, RawLabels, Sample};
    use tidewatch_storage::{Append, Select};

    use super::*;
    use crate::DbOptions;
    use crate::db::NoLog;
    use crate::log::{Frame, read_frame};

    /// A slow expression of a deletion kept everybody from writing new series, until it had met all values.
    #[test]
    fn series_come_while_a_deletion_matches_and_are_not_of_it() {
        let db = Db::in_memory(Env::in_memory(), DbOptions::new(""));
        let append = |value: &str| {
            let labels = Labels::from_pairs([("__name__", "x"), ("v", value)]);
            let mut batch = Batch::new();
            batch.push(RawLabels::Canonical(labels.as_bytes()), &[Sample { timestamp: 1, value: 1.0 }]);
            assert_eq!(db.append(&batch).expect("takes writes").accepted, 1);
        };
        (0..5000).for_each(|v| append(&v.to_string()));
        let matcher = Matcher::new(MatchOp::NotRegex, "v", "(.*)7[0-9]{2}x?(.*)").expect("an expression");
        let mut asked = 0;
        let mut room = |_: u64| {
            asked += 1;
            if asked == 1 {
                assert!(db.head.directory.try_write().is_some(), "others wait for the expression");
                // One that it meets, and one that it does not: neither was there when the deletion began.
                ["new700", "new"].into_iter().for_each(append);
            }
            true
        };
        let all = TimeRange { start: i64::MIN, end: i64::MAX };
        db.delete_in_head(&[matcher], all, &NoLog, &mut room).expect("no log");
        assert!(asked > 0);
        // Of those that were there it spares one hundred of each thousand.
        let left = db.label_values("v", &[], all, usize::MAX, &mut |_| true).expect("complete");
        assert_eq!((left.len(), &left[500..]), (502, &["new".to_owned(), "new700".to_owned()][..]));
    }

    #[test]
    fn a_frame_of_a_deletion_is_frozen() {
        let mut bytes = Vec::new();
        let range = TimeRange { start: 258, end: i64::MAX };
        write_frame(3, range, &[SeriesId(3), SeriesId(300)], &mut bytes);
        let max = i64::MAX.to_le_bytes();
        let mut expected = vec![6, 0, 3, 2, 1, 0, 0, 0, 0, 0, 0];
        expected.extend(max);
        expected.extend([2, 3, 0xa9, 2]);
        assert_eq!(bytes, expected);
        let Ok(Frame::Delete(deletion)) = read_frame(&bytes) else { panic!("not a deletion") };
        let mut ids = Vec::new();
        deletion.ids.for_each(|id| ids.push(id.0));
        assert_eq!((deletion.shard, deletion.range, ids), (3, range, vec![3, 300]));
        for len in 0..bytes.len() {
            assert!(read_frame(&bytes[..len]).is_err(), "{len} bytes");
        }
    }
}
