//! The blocks that are open, and their directory.
//!
//! Readers take the list as it is and keep it: a block that is merged or retired stays mapped
//! until the last of them is done.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use tidewatch_env::Env;

use crate::block::{Block, BlockError, BlockId, BlockMeta, block_path, parse_block_name};
use crate::compact;
use crate::directory::Directory;
use crate::options::OpenError;
use crate::status::BlockStatus;

/// Blocks in the order of their ids, which is the order in which their samples were stored.
pub(crate) type BlockList = Arc<Vec<Arc<Block>>>;

#[derive(Debug, Default)]
pub(crate) struct Blocks {
    /// Guards the list; held to copy or replace the reference.
    list: RwLock<BlockList>,
    next_id: AtomicU64,
}

impl Blocks {
    /// Opens what is in the directory. Damaged blocks are set aside, and those that a merge has
    /// replaced are removed.
    pub(crate) fn load(&self, env: &Env, directory: &Directory) -> Result<(), OpenError> {
        let dir = directory.blocks();
        let names = env.disk.list(&dir).map_err(|source| OpenError::Io { path: dir.clone(), source })?;
        let mut blocks = Vec::new();
        let mut newest = 0;
        for id in names.iter().filter_map(|name| parse_block_name(name)) {
            newest = newest.max(id.0);
            let path = block_path(&dir, id);
            match Block::open(env, &path) {
                Ok(block) => {
                    newest = block.meta().parents.iter().fold(newest, |newest, parent| newest.max(parent.0));
                    blocks.push(Arc::new(block));
                }
                Err(BlockError::Version { path, found, newest }) => {
                    return Err(OpenError::Version { path, found: found.into(), newest: newest.into() });
                }
                Err(BlockError::Corrupt { path, offset, reason }) => {
                    directory.set_aside(&path, offset, reason.to_owned());
                }
                Err(BlockError::Damaged(damage)) => {
                    directory.set_aside(&path, damage.offset, damage.to_string());
                }
                Err(BlockError::Io { path, source }) => return Err(OpenError::Io { path, source }),
            }
        }
        let metas: Vec<BlockMeta> = blocks.iter().map(|block| block.meta().clone()).collect();
        let superseded = compact::superseded(&metas);
        blocks.retain(|block| !superseded.contains(&block.meta().id));
        // What can not be removed now is removed at the next start; nobody reads it.
        let _ = compact::remove(env, &dir, &superseded);
        blocks.sort_unstable_by_key(|block| block.meta().id);
        *self.list.write() = Arc::new(blocks);
        self.next_id.store(newest + 1, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn list(&self) -> BlockList {
        self.list.read().clone()
    }

    /// An id that no block has had.
    pub(crate) fn take_id(&self) -> BlockId {
        BlockId(self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn metas(&self) -> Vec<BlockMeta> {
        self.list().iter().map(|block| block.meta().clone()).collect()
    }

    /// Blocks appear and others go, at once for every reader.
    pub(crate) fn replace(&self, gone: &[BlockId], new: impl IntoIterator<Item = Block>) {
        let mut list = self.list.write();
        let kept = list.iter().filter(|block| !gone.contains(&block.meta().id)).cloned();
        let mut blocks: Vec<Arc<Block>> = kept.chain(new.into_iter().map(Arc::new)).collect();
        blocks.sort_unstable_by_key(|block| block.meta().id);
        *list = Arc::new(blocks);
    }

    pub(crate) fn status(&self) -> Vec<BlockStatus> {
        let status = |block: &Arc<Block>| {
            let meta = block.meta();
            let name = block.path().file_name().map_or_else(PathBuf::new, PathBuf::from);
            BlockStatus {
                name: name.display().to_string(),
                min_time: meta.min_ms,
                max_time: meta.max_ms,
                series: meta.series,
                samples: meta.samples,
                bytes: meta.size,
            }
        };
        self.list().iter().map(status).collect()
    }
}
