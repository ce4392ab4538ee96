//! Reading everything there is under its checksums, and changing nothing.

use std::io;
use std::path::{Path, PathBuf};

use tidewatch_env::{Env, is_unreadable};
use tidewatch_wal::{Item, Position, Reader, segment_path};

use super::{Finding, block_ids, blocks};
use crate::block::{BlockError, UNREADABLE};
use crate::directory::check_format;
use crate::expected::look;
use crate::head::SHARDS;
use crate::head::image::{ImageError, ImageHeader, ImageKind, Section, VERSION, sections, visit_series};
use crate::head::registry::Registry;
use crate::head::shard::Shard;
use crate::image::{missing, missing_end, to_position};
use crate::log::{Frame, read_frame};
use crate::options::OpenError;

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
    check_format(env, root)?;
    let mut verified = Verified::default();
    verify_blocks(env, root, &mut verified)?;
    // Before the images are read: a server that writes newer ones beside us removes what only these need.
    let before = segments(env, root)?;
    let positions = verify_images(env, root, &mut verified)?;
    if positions.len() > SHARDS
        && let Some(first) = positions.iter().map(|position| position.segment).min()
        // A gap between segments the reader names.
        && before.first().is_some_and(|oldest| first < *oldest)
    {
        let path = segment_path(&root.join("wal"), first);
        verified.findings.push(Finding::new(&path, 0, "the segment is missing"));
    }
    verify_log(env, root, &positions, &mut verified)?;
    Ok(verified)
}

fn verify_blocks(env: &Env, root: &Path, verified: &mut Verified) -> Result<(), OpenError> {
    let mut found = blocks(env, root)?;
    verified.findings.append(&mut found.findings);
    let dir = root.join("blocks");
    let mut there = block_ids(env, &dir)?;
    there.extend(found.blocks.iter().flat_map(|block| block.meta().parents.iter().copied()));
    let missing = look(env, &dir, &there).damage;
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

/// The numbers of the log's segments, ascending.
fn segments(env: &Env, root: &Path) -> Result<Vec<u64>, OpenError> {
    let dir = root.join("wal");
    if !env.disk.exists(&dir).map_err(OpenError::io(&dir))? {
        return Ok(Vec::new());
    }
    let names = env.disk.list(&dir).map_err(OpenError::io(&dir))?;
    let number = |name: &PathBuf| name.to_str()?.strip_suffix(".wal")?.parse().ok();
    let mut numbers: Vec<u64> = names.iter().filter_map(number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Gives the positions in the log from which the images that can be read need it.
fn verify_images(env: &Env, root: &Path, verified: &mut Verified) -> Result<Vec<Position>, OpenError> {
    let dir = root.join("head");
    let missing = missing(env, &dir, &segments(env, root)?);
    verified.findings.extend(missing.into_iter().map(|(path, lost)| Finding::new(&path, 0, lost)));
    let mut positions = Vec::new();
    if !env.disk.exists(&dir).map_err(OpenError::io(&dir))? {
        return Ok(positions);
    }
    for name in env.disk.list(&dir).map_err(OpenError::io(&dir))? {
        if name.extension().is_none_or(|extension| extension != "image") {
            continue;
        }
        let path = dir.join(name);
        let bytes = match env.disk.map(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) if is_unreadable(&error) => {
                verified.findings.push(Finding::new(&path, 0, UNREADABLE));
                continue;
            }
            Err(source) => return Err(OpenError::io(&path)(source)),
        };
        verified.images += 1;
        let header = match ImageHeader::find(&bytes) {
            Ok(header) => header,
            Err(ImageError::Version(found)) => {
                return Err(OpenError::Version { path, found: found.into(), newest: VERSION.into() });
            }
            Err(error) => {
                verified.findings.push(Finding::new(&path, 0, error.to_string()));
                continue;
            }
        };
        positions.push(to_position(header.position));
        let findings = &mut verified.findings;
        let damage = |offset: u64, reason: &str| findings.push(Finding::new(&path, offset, reason));
        match header.kind {
            ImageKind::Shard(shard) => Shard::default().load_image(shard, &header, &bytes, damage),
            ImageKind::Series if header.version >= 3 => {
                visit_series(&bytes, &header, &mut Registry::new(0), damage);
            }
            ImageKind::Series => {
                let visit = |section: Section| match read_frame(&section.body)? {
                    Frame::Definitions(definitions) => definitions.for_each(|_, _| {}),
                    _ => Ok(()),
                };
                sections(&bytes, &header, visit, damage);
            }
        }
    }
    Ok(positions)
}

fn verify_log(
    env: &Env,
    root: &Path,
    positions: &[Position],
    verified: &mut Verified,
) -> Result<(), OpenError> {
    let dir = root.join("wal");
    if !env.disk.exists(&dir).map_err(OpenError::io(&dir))? {
        return Ok(());
    }
    let there = segments(env, root)?;
    let end = positions.iter().max().and_then(|end| missing_end(env, &dir, *end, &there));
    verified.findings.extend(end.map(|(path, offset, reason)| Finding::new(&path, offset, reason)));
    let failed = |error: tidewatch_wal::WalError| OpenError::Log(error.to_string());
    let mut reader = Reader::open(env, &dir, Position::START).map_err(failed)?;
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
    Ok(())
}
