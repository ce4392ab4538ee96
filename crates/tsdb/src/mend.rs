//! Setting aside damaged parts of blocks while the database runs.
//!
//! ```text
//!  read ─► damage ─► that read fails, naming it ─► wounds ─► status
//!                                                     └─► mend: all of the block read
//!                                                           └─► a copy under damaged/, tombstones over the damage
//! ```
//!
//! One chunk whose checksum does not hold would fail every query of its series, and every merge of its
//! block, for ever. So it is hidden as what is deleted is: queries go on without it, and the next merge
//! leaves it out. Nothing is lost but what was: the file as it was found has a second name under
//! `damaged/`, and the status says which samples of which series are missing.
//!
//! What the disk can not read is left alone: the next start may find it readable.
//!
//! Not here: damage that a start finds (`blocks`), and repair of a directory that nobody has open (`offline`).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tidewatch_env::replace_durably;

use crate::block::{Block, BlockError, BlockId, Damage, tombstones_path};
use crate::db::Db;
use crate::files::Files;
use crate::jobs::{JobError, SLICE_SERIES};

impl Db {
    /// How many damaged parts of blocks were hidden since the start.
    pub fn chunks_set_aside(&self) -> u64 {
        self.counters.chunks_set_aside.load(Ordering::Relaxed)
    }

    /// Tells the status what reading has met.
    pub(crate) fn note_wounds(&self, files: &Files) {
        for block in self.blocks.list().iter() {
            for wound in block.wounds().take() {
                files.directory.report(block.path(), wound.offset, wound.reason);
            }
        }
        for wound in self.head_wounds.take() {
            files.directory.report(&files.directory.head(), wound.offset, wound.reason);
        }
    }

    /// A block with damage that can be hidden.
    pub(crate) fn mend_due(&self) -> Option<BlockId> {
        let list = self.blocks.list();
        list.iter().find(|block| block.wounds().is_mendable()).map(|block| block.meta().id)
    }

    /// Hides what is damaged of a block.
    pub(crate) fn mend(&self, files: &Files, id: BlockId) -> Result<(), JobError> {
        let list = self.blocks.list();
        let Some(block) = list.iter().find(|block| block.meta().id == id) else { return Ok(()) };
        let damage = match self.damage_of(block) {
            Err(JobError::Block(BlockError::Corrupt { .. } | BlockError::Unreadable { .. })) => {
                // Its index was whole when it was opened: the disk has lost it since.
                block.wounds().is_mended();
                return Ok(());
            }
            damage => damage?,
        };
        self.note_wounds(files);
        if !damage.is_empty() {
            files.directory.keep_copy_surely(block.path())?;
            let tombstones = block.hiding(&damage)?;
            let path = tombstones_path(&files.directory.blocks(), id);
            replace_durably(&*self.env.disk, &path, &tombstones.encode(block))
                .map_err(|source| JobError::Io { path, source })?;
            self.blocks.replace(&[id], [block.with_tombstones(tombstones)]);
            self.resolutions.forget();
            self.counters.chunks_set_aside.fetch_add(damage.len() as u64, Ordering::Relaxed);
        }
        block.wounds().is_mended();
        Ok(())
    }

    /// The chunks of a block that are damaged and not hidden yet.
    fn damage_of(&self, block: &Arc<Block>) -> Result<Vec<Damage>, JobError> {
        let mut found = Vec::new();
        let mut start = 0;
        while start < block.series_count() {
            if self.is_stopping() {
                return Err(JobError::Stopped);
            }
            let end = start.saturating_add(SLICE_SERIES as u32).min(block.series_count());
            found.extend(block.verify(start..end)?);
            start = end;
        }
        found.retain(Damage::is_mendable);
        Ok(found)
    }
}
