//! Bringing a damaged directory back to one that verifies, without a loss beyond the damage.
//!
//! ```text
//! block, parts damaged    ─► a copy under damaged/ ─► written anew from what is whole, same name
//! block, nothing readable ─► moved to damaged/
//! images, log             ─► recovered as at a start (copies under damaged/), then written anew
//! ```
//!
//! A crash at any point leaves the old file or the new one in place, and the old one under
//! `damaged/`; running it again goes on.

use std::ops::ControlFlow;
use std::path::Path;

use tidewatch_env::{Env, remove_durably, replace_durably};
use tidewatch_storage::TimeRange;

use super::{Finding, Verified, block_ids, open_block, verify};
use crate::block::{
    Block, BlockError, BlockId, Cursor, Damage, StoredRun, Writer, WriterOptions, block_path, tombstones_path,
};
use crate::blocks::has_all;
use crate::db::Db;
use crate::delete::write_frame;
use crate::directory::{Directory, has_our_files};
use crate::expected::{list_path, list_path_before};
use crate::head::append::FrameLog;
use crate::intervals::Intervals;
use crate::jobs::{Job, JobError};
use crate::options::DbOptions;

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repaired {
    /// What was damaged.
    pub findings: Vec<Finding>,
    /// Blocks that were written anew without the damaged chunks.
    pub rewritten: u64,
    /// Blocks of which nothing could be read.
    pub set_aside: u64,
    /// Whether images and log were written anew.
    pub head: bool,
    /// What the directory holds now.
    pub left: Verified,
}

/// Repairs a data directory that no server has open. Damaged files are kept under `damaged/`.
pub fn repair(env: &Env, root: &Path) -> Result<Repaired, JobError> {
    let mut repaired = Repaired::default();
    if has_our_files(env, root) {
        // Opening it writes a damaged FORMAT anew and removes what is half-made.
        let (healed, _) = Directory::open(env, root)?.damage();
        let findings =
            healed.into_iter().map(|flaw| Finding::new(Path::new(&flaw.path), flaw.offset, flaw.reason));
        repaired.findings.extend(findings);
    }
    let before = verify(env, root)?;
    if before.findings.is_empty() {
        repaired.left = before;
        return Ok(repaired);
    }
    repaired.findings.extend(before.findings);
    {
        let directory = Directory::open(env, root)?;
        // What it said is among the findings. It goes before any block or tombstones do, and the next start writes
        // one of what there is.
        let lists = [list_path_before(root), list_path(root)];
        let is_of_blocks =
            |path: &Path| path.starts_with(directory.blocks()) || lists.iter().any(|list| list == path);
        if repaired.findings.iter().any(|finding| is_of_blocks(&finding.path)) {
            for list in lists {
                directory.move_aside(&list).map_err(|source| JobError::Io { path: list, source })?;
            }
        }
        for id in block_ids(env, &directory.blocks())? {
            repair_block(env, &directory, id, &mut repaired)?;
        }
    }
    repair_head(env, root, &mut repaired)?;
    repaired.left = verify(env, root)?;
    Ok(repaired)
}

fn repair_block(
    env: &Env,
    directory: &Directory,
    id: BlockId,
    repaired: &mut Repaired,
) -> Result<(), JobError> {
    let dir = directory.blocks();
    let (path, tombstones) = (block_path(&dir, id), tombstones_path(&dir, id));
    let aside = |path: &Path| {
        directory.move_aside(path).map_err(|source| JobError::Io { path: path.to_owned(), source })
    };
    let mut findings = Vec::new();
    let block = open_block(env, &dir, id, &mut findings)?;
    // What a block was merged from has all that it lacks.
    let block = block.filter(|block| !block.lacks_series() || !has_all(env, &dir, &block.meta().parents));
    let verified = block.as_ref().map(|block| Ok((block.flaws()?, block.verify(0..block.series_count())?)));
    let (Some(block), Some(Ok::<_, BlockError>((flaws, damage)))) = (block, verified) else {
        repaired.set_aside += 1;
        aside(&path)?;
        return aside(&tombstones);
    };
    if !findings.is_empty() && block.tombstones().is_empty() {
        aside(&tombstones)?;
    } else if !findings.is_empty() {
        directory.keep_copy_surely(&tombstones)?;
        replace_durably(&*env.disk, &tombstones, &block.tombstones().encode(&block))
            .map_err(|source| JobError::Io { path: tombstones.clone(), source })?;
    }
    if damage.is_empty() && flaws.is_empty() {
        return Ok(());
    }
    directory.keep_copy_surely(&path)?;
    if !block.tombstones().is_empty() {
        directory.keep_copy_surely(&tombstones)?;
    }
    match rewrite(env, &dir, &block, &damage)? {
        true => repaired.rewritten += 1,
        false => {
            repaired.set_aside += 1;
            remove(env, &path)?;
        }
    }
    if !block.tombstones().is_empty() {
        remove(env, &tombstones)?;
    }
    Ok(())
}

fn remove(env: &Env, path: &Path) -> Result<(), JobError> {
    remove_durably(&*env.disk, path).map_err(|source| JobError::Io { path: path.to_owned(), source })
}

/// Writes a block anew, under its name, from the chunks that are whole. `false` where none is.
fn rewrite(env: &Env, dir: &Path, block: &Block, damage: &[Damage]) -> Result<bool, BlockError> {
    let meta = block.meta();
    let options = WriterOptions {
        id: meta.id,
        start_ms: meta.start_ms,
        end_ms: meta.end_ms,
        level: meta.level,
        dense: block.is_dense(),
        // What lacks something replaces nothing.
        parents: if block.lacks_series() { Vec::new() } else { meta.parents.clone() },
    };
    let mut writer = Writer::create(env, dir, options)?;
    let mut cursor = Cursor::default();
    for series in 0..block.series_count() {
        let labels = block.labels(&mut cursor, series)?;
        writer.series(&labels)?;
        let name = labels.to_string();
        let mut lost = Intervals::default();
        for chunk in damage.iter().filter(|chunk| chunk.series == name) {
            lost.add(TimeRange { start: chunk.start_ms, end: chunk.end_ms });
        }
        for part in lost.kept_of(TimeRange { start: i64::MIN, end: i64::MAX }) {
            let mut written = Ok(());
            let mut write = |run: StoredRun<'_>| {
                written = writer.run(&run);
                if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            };
            let _ = block.scan_stored(&mut cursor, series, part, &mut write)?;
            written?;
        }
    }
    Ok(writer.finish()?.is_some())
}

/// Recovers images and log as a start does, which sets aside what is damaged, and writes them anew.
fn repair_head(env: &Env, root: &Path, repaired: &mut Repaired) -> Result<(), JobError> {
    let of_head = |finding: &Finding| {
        let part = finding.path.strip_prefix(root).ok().and_then(|path| path.components().next());
        part.is_some_and(|part| part.as_os_str() != "blocks" && part.as_os_str() != "LIST")
    };
    if !repaired.findings.iter().any(of_head) {
        return Ok(());
    }
    let db = Db::open(
        env.clone(),
        DbOptions { retention_ms: None, exemplars_max: usize::MAX, ..DbOptions::new(root) },
    )?;
    db.recover()?;
    let files = db.files.as_ref().ok_or(JobError::InMemory)?;
    // The newest segment of the log stays in any case: a deletion of nothing begins one, so that all
    // others may go when the images are there.
    let mut frame = Vec::new();
    write_frame(0, TimeRange { start: 0, end: 0 }, &[], &mut frame);
    files.log.append(&frame)?;
    db.commit()?;
    db.run(Job::Image)?;
    repaired.head = true;
    Ok(())
}
