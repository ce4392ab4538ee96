//! Which blocks merge, which go, and the merging.
//!
//! ```text
//! metas ── plan ──► Plan ──► Merge ─ step, step, … ─► a larger block, its parents named in it
//!    ├──── superseded ──► parents that are still there ─┐
//!    └──── expired ──► blocks older than retention ─────┴─► remove
//! ```
//!
//! Plain functions over plain values: the database decides when, and which blocks take part.
//!
//! Invariants: a merged block holds every sample of its parents, once; its parents go only when it
//! is durable. A crash in between leaves both, and the parents' ids in the merged block say
//! so: `superseded` names them, and reading them beside it would only repeat samples. A merge that
//! meets damage ends with it and changes nothing: the damage stays where it is named.
//!
//! Not here: the bytes of a block (`block`), when a job runs (the database).

mod merge;
mod plan;

pub use merge::{Merge, Progress};
pub use plan::{CompactOptions, Plan, expired, kept_from, plan, superseded};

use std::path::Path;

use tidewatch_env::Env;

use crate::block::{BlockError, BlockId, block_path};

/// Removes blocks for good. Gone durably when this returns; after a failure some may be left.
pub fn remove(env: &Env, dir: &Path, blocks: &[BlockId]) -> Result<(), BlockError> {
    for id in blocks {
        let path = block_path(dir, *id);
        env.disk.remove(&path).map_err(|source| BlockError::Io { path: path.clone(), source })?;
    }
    env.disk.sync_dir(dir).map_err(|source| BlockError::Io { path: dir.to_owned(), source })
}

#[cfg(test)]
mod tests;
