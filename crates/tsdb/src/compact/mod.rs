//! Which blocks merge, which go, and the merging.
//!
//! ```text
//! metas ── plan ──► Plan ──► Merge ─ step, step, … ─► a larger block, its parents named in it
//!    ├──── superseded ──► parents that are still there ─┐
//!    ├──── expired, beyond_size ──► blocks past retention ┴─► remove
//!    ├──── clean ──► Plan of a block with tombstones ─► the same without what is deleted
//!    └──── plan_whole ──► Plans that leave as few and as small blocks as can be
//! ```
//!
//! Plain functions over plain values: the database decides when, and which blocks take part.
//!
//! Invariants: a merged block holds every sample of its parents that is not deleted, once; its parents go only when it
//! is durable. A crash in between leaves both, and `superseded` names those that are to go. Where that can not be told
//! both stay: reading them beside it only repeats samples, and they merge once more.
//! A merge that meets damage ends with it and changes nothing: the damage stays where it is named.
//!
//! Not here: the bytes of a block (`block`), when a job runs (the database).

mod merge;
mod plan;
mod retain;

pub(crate) use merge::LeftOut;
pub use merge::{Merge, Progress};
pub use plan::{CompactOptions, Plan, clean, plan, plan_whole, superseded};
pub use retain::{beyond_size, expired, kept_from, passed};

use std::path::Path;

use tidewatch_env::Env;

use crate::block::{BlockError, BlockId, block_path, tombstones_path};

/// Removes blocks for good, as far as they are there, then their tombstones. Gone durably when this
/// returns; after a failure some may be left.
pub fn remove(env: &Env, dir: &Path, blocks: &[BlockId]) -> Result<(), BlockError> {
    // In this order: a block that came back without its tombstones would show what was deleted.
    for path_of in [block_path, tombstones_path] {
        for id in blocks {
            remove_one(env, &path_of(dir, *id))?;
        }
        env.disk.sync_dir(dir).map_err(|source| BlockError::Io { path: dir.to_owned(), source })?;
    }
    Ok(())
}

fn remove_one(env: &Env, path: &Path) -> Result<(), BlockError> {
    let exists = env.disk.exists(path);
    exists
        .and_then(|exists| if exists { env.disk.remove(path) } else { Ok(()) })
        .map_err(|source| BlockError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
