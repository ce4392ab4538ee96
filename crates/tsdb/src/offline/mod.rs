//! Commands on a data directory that no server needs to have open.
//!
//! ```text
//! list, analyze    read blocks                                                           (beside a server, too)
//! verify           reads everything under its checksums, names damage as a start would   (beside a server, too)
//! repair           takes the directory, rewrites what is whole, sets aside what is not
//! ```
//!
//! Not here: printing (the binary), the way of damage through a start (`recover`, `blocks`).

mod analyze;
mod repair;
mod verify;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use tidewatch_env::Env;

pub use analyze::{Analysis, analyze};
pub use repair::{Repaired, repair};
pub use verify::{Verified, verify};

use crate::block::{Block, BlockError, BlockId, Damage, block_path, parse_block_name};
use crate::blocks::{damage_of, read_tombstones};
pub use crate::directory::check_ours;
use crate::directory::{NO_FORMAT, has_format};
use crate::options::OpenError;

/// One piece of damage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub path: PathBuf,
    pub offset: u64,
    pub reason: String,
    /// What can not be read of which series; `None` where that is not known.
    pub lost: Option<Lost>,
}

/// Samples that can not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    pub series: String,
    /// The first and last millisecond that may have had a sample.
    pub start_ms: i64,
    pub end_ms: i64,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: damaged at byte {}: {}", self.path.display(), self.offset, self.reason)?;
        match &self.lost {
            Some(Lost { series, start_ms, end_ms }) => {
                write!(f, "; {series} lacks its samples from {start_ms} to {end_ms} ms")
            }
            None => Ok(()),
        }
    }
}

impl Finding {
    fn new(path: &Path, offset: u64, reason: impl Into<String>) -> Finding {
        Finding { path: path.to_owned(), offset, reason: reason.into(), lost: None }
    }

    fn of_chunk(damage: Damage) -> Finding {
        let Damage { path, offset, series, start_ms, end_ms, reason, .. } = damage;
        Finding { path, offset, reason, lost: Some(Lost { series, start_ms, end_ms }) }
    }
}

/// Blocks that could be opened, in the order of their times, and what is wrong with the others.
#[derive(Debug, Default)]
pub struct Blocks {
    pub blocks: Vec<Block>,
    pub findings: Vec<Finding>,
}

/// Opens the blocks of a directory, each through its tombstones.
pub fn blocks(env: &Env, root: &Path) -> Result<Blocks, OpenError> {
    let mut found = Blocks::default();
    if !has_format(env, root)? {
        found.findings.push(Finding::new(&root.join("FORMAT"), 0, NO_FORMAT));
    }
    let dir = root.join("blocks");
    for id in block_ids(env, &dir)? {
        let block = open_block(env, &dir, id, &mut found.findings)?;
        found.blocks.extend(block);
    }
    found.blocks.sort_by_key(|block| (block.meta().min_ms, block.meta().id));
    Ok(found)
}

fn block_ids(env: &Env, dir: &Path) -> Result<Vec<BlockId>, OpenError> {
    if !env.disk.exists(dir).map_err(OpenError::io(dir))? {
        return Ok(Vec::new());
    }
    let names = env.disk.list(dir).map_err(OpenError::io(dir))?;
    Ok(names.iter().filter_map(|name| parse_block_name(name)).collect())
}

/// Opens one block; `None` where it is damaged as a whole, or gone since the directory was listed.
fn open_block(
    env: &Env,
    dir: &Path,
    id: BlockId,
    findings: &mut Vec<Finding>,
) -> Result<Option<Block>, OpenError> {
    let block = match Block::open(env, &block_path(dir, id)) {
        Ok(block) => block,
        Err(BlockError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            let (path, offset, reason) = damage_of(error)?;
            findings.push(Finding::new(&path, offset, reason));
            return Ok(None);
        }
    };
    let (block, flaw) = read_tombstones(env, block)?;
    findings.extend(flaw.map(|flaw| Finding::new(&flaw.path, 0, flaw.reason)));
    Ok(Some(block))
}
