//! Compaction of all there is, when somebody asks for it: before a copy, after an import, or to see how
//! small the data is.
//!
//! ```text
//!  cut      all but the newest minutes of the head, though late samples may still come
//!  merge    neighbours, up to the largest range; blocks alone that are not dense or lack what is deleted
//!  image    the rest of the head, so that the log has nothing that a block has, too
//! ```
//!
//! The jobs come to the same in time. What they wait for is what makes this dear: late samples after it make
//! blocks that overlap the large one, and the next cut's is merged with it.
//!
//! Not here: the work itself (`jobs`), what is merged with what (`compact`).

use tidewatch_storage::SelectError;

use crate::block::Block;
use crate::compact;
use crate::db::Db;
use crate::jobs::{Job, JobError, check_room};

/// What stays in the head: what rules and dashboards look at with every step. A series of which
/// nothing stays would leave, and be a new one when its next sample comes.
const KEPT_MS: i64 = 5 * 60 * 1000;

impl Db {
    /// Moves what the head has to blocks, and merges these to as few and as small ones as there is room for:
    /// what the disk needs in between is the size of the largest.
    pub fn compact_whole(&self) -> Result<(), JobError> {
        if !self.is_complete() {
            return Err(SelectError::Recovering.into());
        }
        let Some(files) = &self.files else { return Ok(()) };
        check_room(files, 0)?;
        let Some(_only_one) = self.compacting.try_lock() else { return Err(JobError::Busy) };
        if let Some((oldest_ms, newest_ms)) = self.head.time_range() {
            // One sample ahead of time must not push all others out.
            let until_ms = newest_ms.min(self.env.clock.wall_ms()).saturating_sub(KEPT_MS);
            if oldest_ms < until_ms && self.head.floor() < until_ms {
                self.run(Job::Cut { until_ms })?;
            }
        }
        // Each merge leaves fewer blocks or more dense ones; but other jobs may run in between.
        for _ in 0..=self.blocks.metas().len() {
            let list = self.blocks.list();
            let is_done = |block: &Block| block.is_dense() && block.tombstones().series_count() == 0;
            let is_done = |id| list.iter().any(|block| block.meta().id == id && is_done(block));
            let mergeable = self.mergeable(self.blocks.metas());
            let options = self.compact_options(files);
            let settled_ms = self.head.floor();
            let plan = compact::plan_whole(&mergeable, &options, settled_ms, is_done);
            let Some(plan) = plan else { break };
            self.run(Job::Compact(plan))?;
        }
        self.run(Job::Image)
    }
}
