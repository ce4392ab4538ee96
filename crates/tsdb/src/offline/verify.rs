//! Reading everything there is under its checksums, and changing nothing.
//!
//! What it says of images and log is what a start finds, by the code of the start; of blocks it reads all, of which a
//! start reads the index.

use std::path::Path;

use tidewatch_env::Env;
use tidewatch_wal::{Item, OpenReport, Position, Reader, WalError, WalOptions, segment_number, segment_path};

use super::{Finding, block_ids, blocks};
use crate::block::BlockError;
use crate::directory::{NO_BLOCKS, NO_LOG, lacks_blocks, lacks_log};
use crate::expected::{There, look};
use crate::head::image::ImageKind;
use crate::head::registry::Registry;
use crate::head::shard::Shard;
use crate::image::{Flaw, Images, load_series, readable};
use crate::log::read_frame;
use crate::options::OpenError;
use crate::owner::{self, Looked, owner_path};
use crate::regain::contiguous_from;

/// What was read, and what was found damaged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    pub blocks: u64,
    pub series: u64,
    pub chunks: u64,
    pub images: u64,
    pub frames: u64,
    pub findings: Vec<Finding>,
}

/// Series of a block that are read at a time.
const SLICE_SERIES: u32 = 1024;

/// Reads every block, tombstone, image and frame of a data directory.
pub fn verify(env: &Env, root: &Path) -> Result<Verified, OpenError> {
    let mut verified = Verified::default();
    let Looked { owner, flaw } = owner::look(env, root);
    let owner = owner.unwrap_or(0);
    verified.findings.extend(flaw.map(|reason| Finding::new(&owner_path(root), 0, reason)));
    verify_blocks(env, root, &mut verified)?;
    let images = verify_images(env, root, owner, &mut verified)?;
    // Behind the images: of what these speak a server that writes beside us has logged before.
    let opened = look_at_log(env, root, owner)?;
    let flaws = images.flaws_beside(env, root, &opened).into_iter();
    // One that can not be used was named.
    let flaws = flaws.filter(|flaw| !verified.findings.iter().any(|known| known.path == flaw.path));
    let flaws: Vec<Finding> = flaws.map(Finding::from).collect();
    verified.findings.extend(flaws);
    let from = contiguous_from(&opened, images.oldest_position());
    verify_log(env, root, owner, from, &mut verified)?;
    Ok(verified)
}

fn verify_blocks(env: &Env, root: &Path, verified: &mut Verified) -> Result<(), OpenError> {
    let mut found = blocks(env, root)?;
    verified.findings.append(&mut found.findings);
    let dir = root.join("blocks");
    let mut files = block_ids(env, &dir)?;
    files.extend(found.blocks.iter().flat_map(|block| block.meta().parents.iter().copied()));
    let whole = found.blocks.iter().filter(|block| !block.lacks_series()).map(|block| block.meta().clone());
    let there = There { files, whole: whole.collect() };
    if lacks_blocks(env, root) {
        verified.findings.push(Finding::new(&dir, 0, NO_BLOCKS));
    }
    let missing = look(env, root, &there).damage;
    verified.findings.extend(missing.into_iter().map(|(path, reason)| Finding::new(&path, 0, reason)));
    for block in found.blocks {
        let meta = block.meta();
        verified.blocks += 1;
        verified.series += meta.series;
        verified.chunks += meta.chunks;
        match block.flaws() {
            Ok(flaws) => {
                let findings =
                    flaws.into_iter().map(|flaw| Finding::new(block.path(), flaw.offset, flaw.reason));
                verified.findings.extend(findings);
            }
            Err(error) => verified.findings.push(Finding::new(block.path(), 0, error.to_string())),
        }
        for start in (0..block.series_count()).step_by(SLICE_SERIES as usize) {
            let end = start.saturating_add(SLICE_SERIES).min(block.series_count());
            match block.verify(start..end) {
                Ok(damage) => verified.findings.extend(damage.into_iter().map(Finding::of_chunk)),
                Err(BlockError::Io { path, source }) => return Err(OpenError::io(&path)(source)),
                Err(error) => verified.findings.push(Finding::new(block.path(), 0, error.to_string())),
            }
        }
    }
    Ok(())
}

/// What opening the log would find.
fn look_at_log(env: &Env, root: &Path, owner: u64) -> Result<OpenReport, OpenError> {
    let options = WalOptions { owner, ..WalOptions::default() };
    let look = || OpenReport::look(env, &root.join("wal"), options).map_err(failed);
    let opened = look()?;
    // A server beside us may be in the middle of a write.
    if opened.torn.is_some() { look() } else { Ok(opened) }
}

fn failed(error: WalError) -> OpenError {
    OpenError::Log(error.to_string())
}

fn verify_images(env: &Env, root: &Path, owner: u64, verified: &mut Verified) -> Result<Images, OpenError> {
    let head = root.join("head");
    let (images, flaws) = Images::read(env, &head, owner)?;
    let findings = &mut verified.findings;
    findings.extend(flaws.into_iter().map(Finding::from));
    for (path, header, bytes) in images.each(&head) {
        verified.images += 1;
        let bytes = readable(env, &path, bytes);
        let damage = |offset: u64, reason: &str| findings.push(Finding::new(&path, offset, reason));
        match header.kind {
            ImageKind::Shard(shard) => drop(Shard::default().load_image(shard, header, &bytes, damage)),
            ImageKind::Series => {
                load_series(&mut Registry::new(0), header, &bytes, damage);
            }
        }
    }
    Ok(images)
}

fn verify_log(
    env: &Env,
    root: &Path,
    owner: u64,
    from: Position,
    verified: &mut Verified,
) -> Result<(), OpenError> {
    let dir = root.join("wal");
    if lacks_log(env, root) {
        verified.findings.push(Finding::new(&dir, 0, NO_LOG));
    }
    if !env.disk.exists(&dir).map_err(OpenError::io(&dir))? {
        return Ok(());
    }
    let mut reader = Reader::open(env, &dir, from).map_err(failed)?.of(owner);
    while let Some(item) = reader.read().map_err(failed)? {
        let frame = match item {
            Item::Frame(frame) => frame,
            Item::Damage(damage) => {
                verified.findings.push(Finding::new(&damage.path, damage.offset, damage.reason));
                continue;
            }
        };
        verified.frames += 1;
        let whole = read_frame(&frame.bytes).and_then(|frame| frame.check());
        if let Err(error) = whole {
            let path = segment_path(&dir, frame.position.segment);
            verified.findings.push(Finding::new(&path, frame.position.offset, error.to_string()));
        }
    }
    // What a server beside us has removed meanwhile, as its newer images made it superfluous, is not missed.
    let (images, _) = Images::read(env, &root.join("head"), owner)?;
    let needed = images.oldest_position().segment;
    let is_superfluous = |path: &Path| {
        let number = path.file_name().and_then(|name| segment_number(Path::new(name)));
        path.parent() == Some(&dir) && number.is_some_and(|number| number < needed)
    };
    let has_gone = |path: &Path| !env.disk.exists(path).unwrap_or(true);
    verified.findings.retain(|finding| !(is_superfluous(&finding.path) && has_gone(&finding.path)));
    Ok(())
}

impl From<Flaw> for Finding {
    fn from(Flaw { path, offset, reason }: Flaw) -> Finding {
        Finding::new(&path, offset, reason)
    }
}
