//! The blocks that are open, and their directory.
//!
//! Readers take the list as it is and keep it: a block that is merged or retired stays mapped
//! until the last of them is done. Its file goes as soon as it may: a file that no list names
//! would be found at the next start, with what was deleted since.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use tidewatch_env::{Env, is_unreadable, parent_of, replace_durably};

use crate::block::{
    Block, BlockError, BlockId, BlockMeta, TOMBSTONES_FLAWED, Tombstones, TombstonesError, UNREADABLE,
    block_path, parse_block_name, parse_tombstones_name, tombstones_path,
};
use crate::compact;
use crate::directory::{Directory, map};
use crate::expected::{BlockFile, Expected, There, list_path};
use crate::options::OpenError;
use crate::status::BlockStatus;

/// Blocks in the order of their ids, which is the order in which their samples were stored.
pub(crate) type BlockList = Arc<Vec<Arc<Block>>>;

#[derive(Debug, Default)]
pub(crate) struct Blocks {
    /// Guards the list; held to copy or replace the reference.
    list: RwLock<Listed>,
    /// Ids whose files may be there though the list does not name them: begun and not finished, or
    /// replaced and not removed yet.
    unlisted: Mutex<BTreeSet<BlockId>>,
    /// Damaged blocks that are not moved out of the way yet.
    damaged: Mutex<BTreeSet<BlockId>>,
    /// Whether names that are gone may come back with the power: an earlier process removed them, and
    /// may have ended before that was durable.
    may_return: AtomicBool,
    /// What the list of blocks on the disk says.
    file: Mutex<BlockFile>,
    next_id: AtomicU64,
}

/// The blocks that readers see.
#[derive(Debug, Default)]
struct Listed {
    blocks: BlockList,
    /// Time of their newest sample.
    newest_ms: Option<i64>,
}

impl Listed {
    fn new(blocks: Vec<Arc<Block>>) -> Listed {
        let newest_ms = blocks.iter().map(|block| block.meta().max_ms).max();
        Listed { blocks: Arc::new(blocks), newest_ms }
    }
}

/// The number of a block, if it can have been given out: a file that somebody named must not use them up.
fn given(id: BlockId) -> u64 {
    if id < BlockId::GIVEN_MAX { id.0 } else { 0 }
}

impl Blocks {
    /// Opens what is in the directory. Damaged blocks are set aside, and those that a merge was about to
    /// remove are removed.
    pub(crate) fn load(&self, env: &Env, directory: &Directory) -> Result<(), OpenError> {
        let dir = directory.blocks();
        let names = env.disk.list(&dir).map_err(OpenError::io(&dir))?;
        let there: Vec<BlockId> = names.iter().filter_map(|name| parse_block_name(name)).collect();
        let mut blocks = Vec::new();
        let mut newest = 0;
        let mut damaged = BTreeSet::new();
        for &id in &there {
            newest = newest.max(given(id));
            let path = block_path(&dir, id);
            match Block::open(env, &path) {
                // What it was merged from has all that it lacks.
                Ok(block) if block.lacks_series() && has_all(env, &dir, &block.meta().parents) => {
                    let reason = "its index is damaged; the blocks that it replaced are there";
                    directory.report(&path, 0, reason.to_owned());
                    damaged.insert(id);
                }
                Ok(block) => {
                    let block = open_tombstones(env, directory, block)?;
                    newest =
                        block.meta().parents.iter().fold(newest, |newest, parent| newest.max(given(*parent)));
                    blocks.push(Arc::new(block));
                }
                Err(error) => {
                    let (path, offset, reason) = damage_of(error)?;
                    directory.report(&path, offset, reason);
                    damaged.insert(id);
                }
            }
        }
        // What a merge has replaced may be gone already; a release that knows no list says so in no list.
        let merged = blocks.iter().flat_map(|block| block.meta().parents.iter().copied());
        let files = there.into_iter().chain(merged).collect();
        // What lacks something replaces nothing.
        let whole = blocks.iter().filter(|block| !block.lacks_series()).map(|block| block.meta().clone());
        let there = There { files, whole: whole.collect() };
        let superseded = {
            let mut file = self.file.lock();
            file.check(env, directory, &there);
            // Who puts a missing one back must not put it over another.
            newest = file.ids().map(given).fold(newest, u64::max);
            compact::superseded(&there.whole, |id| file.names(id))
        };
        blocks.retain(|block| !superseded.contains(&block.meta().id));
        blocks.sort_unstable_by_key(|block| block.meta().id);
        for id in names.iter().filter_map(|name| parse_tombstones_name(name)) {
            newest = newest.max(given(id));
            let is_of_none = blocks.binary_search_by_key(&id, |block| block.meta().id).is_err();
            if is_of_none && !damaged.contains(&id) {
                self.unlisted.lock().insert(id);
            }
        }
        self.unlisted.lock().extend(superseded);
        self.may_return.store(true, Ordering::Relaxed);
        *self.list.write() = Listed::new(blocks);
        self.next_id.store(newest + 1, Ordering::Relaxed);
        *self.damaged.lock() = damaged;
        self.note(env, directory);
        // What can not be moved or removed now is before the next job; nobody reads it.
        let _ = self.sweep(env, directory);
        Ok(())
    }

    /// Makes sure that there are no files but those that the list names, now and after a crash. No job
    /// may be under way.
    pub(crate) fn sweep(&self, env: &Env, directory: &Directory) -> Result<(), BlockError> {
        let mut unlisted = self.unlisted.lock();
        let ids: Vec<BlockId> = unlisted.iter().copied().collect();
        if !ids.is_empty() || self.may_return.load(Ordering::Relaxed) {
            self.remove(env, directory, &ids)?;
            unlisted.clear();
            self.may_return.store(false, Ordering::Relaxed);
        }
        // Behind that, which gives room.
        self.set_aside(env, directory)
    }

    /// Moves damaged blocks out of the way, each with its tombstones: the next start may be able to read them, and
    /// would find what was deleted since.
    fn set_aside(&self, env: &Env, directory: &Directory) -> Result<(), BlockError> {
        let dir = directory.blocks();
        let mut damaged = self.damaged.lock();
        if damaged.is_empty() {
            return Ok(());
        }
        self.write_list(env, directory)?;
        for id in &*damaged {
            for path in [block_path(&dir, *id), tombstones_path(&dir, *id)] {
                directory.move_aside(&path).map_err(|source| BlockError::Io { path, source })?;
            }
        }
        // What was moved before, and then failed, is durable, too.
        env.disk.sync_dir(&dir).map_err(|source| BlockError::Io { path: dir, source })?;
        damaged.clear();
        Ok(())
    }

    /// Removes blocks that the list does not name, for good.
    pub(crate) fn remove(&self, env: &Env, directory: &Directory, ids: &[BlockId]) -> Result<(), BlockError> {
        if !ids.is_empty() {
            self.write_list(env, directory)?;
        }
        compact::remove(env, &directory.blocks(), ids)
    }

    /// Sees to it that the file of the list names none that the list does not: before files go.
    fn write_list(&self, env: &Env, directory: &Directory) -> Result<(), BlockError> {
        let written = self.file.lock().write_or_remove(env, &directory.root, self.expected());
        written.map_err(|source| BlockError::Io { path: list_path(&directory.root), source })
    }

    /// Writes down which blocks there are, as far as the disk lets.
    pub(crate) fn note(&self, env: &Env, directory: &Directory) {
        let _ = self.file.lock().write(env, &directory.root, self.expected());
    }

    fn expected(&self) -> Vec<Expected> {
        self.list().iter().map(|block| Expected::of(block)).collect()
    }

    pub(crate) fn list(&self) -> BlockList {
        self.list.read().blocks.clone()
    }

    /// Time of the newest sample of all blocks, if there are some.
    pub(crate) fn newest_ms(&self) -> Option<i64> {
        self.list.read().newest_ms
    }

    /// An id that no block has had. Its file is a leftover until the list has it.
    pub(crate) fn take_id(&self) -> BlockId {
        let id = BlockId(self.next_id.fetch_add(1, Ordering::Relaxed));
        self.unlisted.lock().insert(id);
        id
    }

    pub(crate) fn metas(&self) -> Vec<BlockMeta> {
        self.list().iter().map(|block| block.meta().clone()).collect()
    }

    /// Blocks appear and others go, at once for every reader.
    pub(crate) fn replace(&self, gone: &[BlockId], new: impl IntoIterator<Item = Block>) {
        let mut list = self.list.write();
        let new: Vec<Block> = new.into_iter().collect();
        let mut unlisted = self.unlisted.lock();
        unlisted.extend(gone);
        for block in &new {
            unlisted.remove(&block.meta().id);
        }
        drop(unlisted);
        let kept = list.blocks.iter().filter(|block| !gone.contains(&block.meta().id)).cloned();
        let mut blocks: Vec<Arc<Block>> = kept.chain(new.into_iter().map(Arc::new)).collect();
        blocks.sort_unstable_by_key(|block| block.meta().id);
        *list = Listed::new(blocks);
    }

    pub(crate) fn status(&self) -> Vec<BlockStatus> {
        let status = |block: &Arc<Block>| {
            let meta = block.meta();
            BlockStatus {
                name: file_name(block.path()),
                min_time: meta.min_ms,
                max_time: meta.max_ms,
                series: meta.series,
                samples: meta.samples,
                bytes: meta.size,
                tombstones: block.tombstones().series_count(),
                chunks: meta.chunks,
                level: meta.level,
                parents: meta.parents.iter().map(|id| file_name(&block_path(Path::new(""), *id))).collect(),
            }
        };
        self.list().iter().map(status).collect()
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Whether all of these blocks are there and whole: one at least.
pub(crate) fn has_all(env: &Env, dir: &Path, blocks: &[BlockId]) -> bool {
    let is_whole =
        |id: &BlockId| Block::open(env, &block_path(dir, *id)).is_ok_and(|block| !block.lacks_series());
    !blocks.is_empty() && blocks.iter().all(is_whole)
}

/// What is damaged of a block that can not be opened: file, offset and reason. Or why nobody can tell.
pub(crate) fn damage_of(error: BlockError) -> Result<(PathBuf, u64, String), OpenError> {
    match error {
        BlockError::Corrupt { path, offset, reason } => Ok((path, offset, reason.to_owned())),
        BlockError::Damaged(damage) => Ok((damage.path.clone(), damage.offset, damage.what())),
        BlockError::Unreadable { path } => Ok((path, 0, UNREADABLE.to_owned())),
        BlockError::Version { path, found, newest } => {
            Err(OpenError::Version { path, found: found.into(), newest: newest.into() })
        }
        BlockError::Io { path, source } => Err(OpenError::io(&path)(source)),
    }
}

/// What is wrong with the tombstones of a block.
pub(crate) struct TombstonesFlaw {
    pub(crate) path: PathBuf,
    pub(crate) reason: String,
    /// Whether what they hid is there again.
    is_lost: bool,
}

/// The block as it is read through the tombstones beside it, and what is wrong with these.
pub(crate) fn read_tombstones(env: &Env, block: Block) -> Result<(Block, Option<TombstonesFlaw>), OpenError> {
    let path = tombstones_path(parent_of(block.path()), block.meta().id);
    let cause = match map(env, &path, usize::MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((block, None)),
        Err(error) if is_unreadable(&error) => UNREADABLE.to_owned(),
        Err(source) => return Err(OpenError::io(&path)(source)),
        Ok(bytes) => match Tombstones::decode(&bytes, &block) {
            Ok((tombstones, is_flawed)) => {
                let reason = TOMBSTONES_FLAWED.to_owned();
                let flaw = is_flawed.then_some(TombstonesFlaw { path, reason, is_lost: false });
                return Ok((block.with_tombstones(tombstones), flaw));
            }
            Err(TombstonesError::Version { found, newest }) => {
                return Err(OpenError::Version { path, found: found.into(), newest: newest.into() });
            }
            Err(error) => error.to_string(),
        },
    };
    let block_file = block.path().display();
    let reason = format!("{cause}: what was deleted from {block_file} is there again; delete it again");
    Ok((block, Some(TombstonesFlaw { path, reason, is_lost: true })))
}

/// The same at a start: says what is wrong, and heals it or sets it aside.
fn open_tombstones(env: &Env, directory: &Directory, block: Block) -> Result<Block, OpenError> {
    let (block, flaw) = read_tombstones(env, block)?;
    match flaw {
        Some(TombstonesFlaw { path, reason, is_lost: true }) => directory.set_aside(&path, 0, reason),
        Some(TombstonesFlaw { path, reason, is_lost: false }) => {
            directory.report(&path, 0, reason);
            // What can not be written now is named again.
            let _ = replace_durably(&*env.disk, &path, &block.tombstones().encode(&block));
        }
        None => {}
    }
    Ok(block)
}
