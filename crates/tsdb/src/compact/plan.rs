//! Which blocks to merge and which have had their time.

use std::collections::BTreeSet;

use crate::block::{BlockId, BlockMeta};

/// How blocks grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactOptions {
    /// The range that the head is cut into.
    pub block_ms: i64,
    /// Blocks are merged up to this range: larger ones open fewer files and repeat fewer labels,
    /// but leave later than their oldest sample should. A tenth of retention is a good value.
    pub range_max_ms: i64,
    /// The same in bytes, where retention is by size.
    pub bytes_max: u64,
    /// Bytes that there is room for: what is merged goes when the whole is durable.
    pub room_bytes: u64,
}

/// A range of blocks has three of the next smaller: 2 h, 6 h, 18 h, 54 h, …
const GROWTH: i64 = 3;

/// Blocks to be merged into one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Ascending; two at least, or one that has tombstones or damage that heals.
    pub sources: Vec<BlockId>,
    /// The range of the block to come. The end is not included.
    pub start_ms: i64,
    pub end_ms: i64,
    pub level: u8,
    /// Whether the block is to be dense, whatever its sources are.
    pub dense: bool,
}

impl Plan {
    /// What its sources take, which are among some blocks. The block to come takes no more.
    pub fn source_bytes<'a>(&self, blocks: impl IntoIterator<Item = &'a BlockMeta>) -> u64 {
        let sources = blocks.into_iter().filter(|meta| self.sources.contains(&meta.id));
        sources.fold(0, |bytes, meta| bytes.saturating_add(meta.size))
    }
}

/// Blocks of this range and larger ones are dense: each sample is under one of them for most of its
/// life, and is encoded for few of them.
const DENSE_RANGE_MS: i64 = 18 * 60 * 60 * 1000;

/// Blocks of a window that is not settled merge from so many on.
const FEW: usize = 4;

/// What to merge next, if anything.
///
/// Blocks that overlap come first: each query has to merge them again. Then windows of the
/// smallest range that has two or more blocks and is `settled`: no block within will come from
/// the head any more, as everything before `settled_ms` was cut.
///
/// Where a cut is still to come more blocks come before it, of series that ended. Were each of them merged
/// at once with all that is there, one window would be written again and again.
///
/// What there is no room for waits: on a full disk the log would find none either.
pub fn plan(blocks: &[BlockMeta], options: &CompactOptions, settled_ms: i64) -> Option<Plan> {
    let mut sorted: Vec<&BlockMeta> = blocks.iter().collect();
    sorted.sort_unstable_by_key(|meta| (meta.start_ms, meta.id));
    overlapping(&sorted, settled_ms, options.room_bytes).or_else(|| {
        let bytes_max = options.bytes_max.min(options.room_bytes);
        let ranges = std::iter::successors(Some(options.block_ms), |range| range.checked_mul(GROWTH));
        let mut ranges = ranges.skip(1).take_while(|range| *range <= options.range_max_ms);
        ranges.find_map(|range| window(&sorted, range, settled_ms, bytes_max))
    })
}

/// What to merge next for as few and as small blocks as there can be, if anything: neighbours up to
/// the largest range, wherever it begins, and what is alone and not done. `is_done` tells what could not
/// be smaller alone; before `settled_ms` everything was cut.
pub fn plan_whole(
    blocks: &[BlockMeta],
    options: &CompactOptions,
    settled_ms: i64,
    is_done: impl Fn(BlockId) -> bool,
) -> Option<Plan> {
    let mut rest: Vec<&BlockMeta> = blocks.iter().collect();
    rest.sort_unstable_by_key(|meta| (meta.start_ms, meta.id));
    let mut rest = &rest[..];
    let bytes_max = options.bytes_max.min(options.room_bytes);
    while let Some(first) = rest.first() {
        let (mut end_ms, mut bytes) = (first.end_ms, 0u64);
        let belongs = |meta: &&&BlockMeta| {
            bytes = bytes.saturating_add(meta.size);
            let overlaps = meta.start_ms < end_ms;
            let is_short = meta.end_ms.saturating_sub(first.start_ms) <= options.range_max_ms;
            let belongs = overlaps || (is_short && bytes <= bytes_max);
            end_ms = if belongs { end_ms.max(meta.end_ms) } else { end_ms };
            belongs
        };
        let (group, others) = rest.split_at(rest.iter().take_while(belongs).count());
        if group.len() > 1 || !is_done(first.id) {
            return Some(Plan { dense: true, ..plan_settled(group, settled_ms) });
        }
        rest = others;
    }
    None
}

/// The first blocks that share a part of their range and are to merge, where there is room.
fn overlapping(sorted: &[&BlockMeta], settled_ms: i64, room_bytes: u64) -> Option<Plan> {
    let mut end_ms = i64::MIN;
    let groups = sorted.chunk_by(|before, meta| {
        end_ms = end_ms.max(before.end_ms);
        meta.start_ms < end_ms
    });
    groups.filter(|group| group.len() > 1).find_map(|group| {
        let is_settled = group.iter().all(|meta| meta.max_ms < settled_ms);
        let plan = if is_settled { Some(plan_settled(group, settled_ms)) } else { newest_alike(group) };
        plan.filter(|plan| plan.source_bytes(group.iter().copied()) <= room_bytes)
    })
}

/// The newest of some blocks, as long as each is at most twice as large as all that are newer: what is
/// written again has grown by half at least since the last time, and few blocks are left over.
///
/// The newest, as of two samples at one time the one stays that was stored first: what merges must not become
/// newer than a block that it overlaps.
fn newest_alike(group: &[&BlockMeta]) -> Option<Plan> {
    let mut newest_first = group.to_vec();
    newest_first.sort_unstable_by_key(|meta| std::cmp::Reverse(meta.id));
    let mut bytes = newest_first[0].size;
    let alike = newest_first[1..].iter().take_while(|meta| {
        let is_alike = meta.size <= bytes.saturating_mul(2);
        bytes = bytes.saturating_add(meta.size);
        is_alike
    });
    let count = 1 + alike.count();
    (count >= FEW).then(|| plan_of(&newest_first[..count]))
}

/// The first settled window of this range with two or more blocks inside.
fn window(sorted: &[&BlockMeta], range_ms: i64, settled_ms: i64, bytes_max: u64) -> Option<Plan> {
    let window_of = |meta: &BlockMeta| meta.start_ms.div_euclid(range_ms);
    sorted.chunk_by(|a, b| window_of(a) == window_of(b)).find_map(|blocks| {
        let end_ms = (window_of(blocks[0]) + 1).checked_mul(range_ms)?;
        let inside = blocks.iter().all(|meta| meta.end_ms <= end_ms);
        let bytes = blocks.iter().fold(0u64, |bytes, meta| bytes.saturating_add(meta.size));
        let fits = inside && bytes <= bytes_max;
        (blocks.len() > 1 && fits && end_ms <= settled_ms).then(|| plan_of(blocks))
    })
}

/// Merges blocks where everything before `settled_ms` was cut. One of ended series reaches to the end of its
/// stretch; what has nothing behind that time leaves the rest to the next cut, and need not be merged with
/// the block of that.
fn plan_settled(blocks: &[&BlockMeta], settled_ms: i64) -> Plan {
    let plan = plan_of(blocks);
    let newest_ms = blocks.iter().map(|meta| meta.max_ms).max().expect("one at least");
    Plan { end_ms: plan.end_ms.min(settled_ms.max(newest_ms.saturating_add(1))), ..plan }
}

fn plan_of(blocks: &[&BlockMeta]) -> Plan {
    let mut sources: Vec<BlockId> = blocks.iter().map(|meta| meta.id).collect();
    sources.sort_unstable();
    let start_ms = blocks.iter().map(|meta| meta.start_ms).min().expect("one at least");
    let end_ms = blocks.iter().map(|meta| meta.end_ms).max().expect("one at least");
    Plan {
        sources,
        start_ms,
        end_ms,
        dense: end_ms.saturating_sub(start_ms) >= DENSE_RANGE_MS,
        level: blocks.iter().map(|meta| meta.level).max().expect("one at least").saturating_add(1),
    }
}

/// Blocks that another one replaces: a crash came before they were removed.
///
/// Each directory counts its blocks for itself, so what a block says of others that it was merged from holds in its
/// own directory alone, and somebody may have put it into this one. `is_listed` tells which blocks the list on the
/// disk names: before a block is removed it goes out of that, and what replaces it stands there by then. Where a crash
/// came before that, those go of which it has each sample, as far as numbers tell: others can be merged once more.
pub fn superseded(blocks: &[BlockMeta], is_listed: impl Fn(BlockId) -> bool) -> Vec<BlockId> {
    let mut gone = BTreeSet::new();
    for block in blocks.iter().filter(|block| !block.parents.is_empty()) {
        let parents = blocks.iter().filter(|meta| block.parents.contains(&meta.id));
        let (is_of_here, has_all) = (is_listed(block.id), has_each_sample(block, parents.clone()));
        let parents = parents.map(|parent| parent.id);
        gone.extend(parents.filter(|parent| has_all || is_of_here && !is_listed(*parent)));
    }
    gone.into_iter().collect()
}

/// Whether a block has as many samples as its parents, which are all there, over the same times to the millisecond.
fn has_each_sample<'a>(block: &BlockMeta, parents: impl Iterator<Item = &'a BlockMeta>) -> bool {
    let (mut count, mut samples, mut min_ms, mut max_ms) = (0, 0u64, i64::MAX, i64::MIN);
    for parent in parents {
        count += 1;
        samples = samples.saturating_add(parent.samples);
        (min_ms, max_ms) = (min_ms.min(parent.min_ms), max_ms.max(parent.max_ms));
    }
    count == block.parents.len() && (samples, min_ms, max_ms) == (block.samples, block.min_ms, block.max_ms)
}

/// Rewrites a block for its tombstones' sake, together with those that overlap it: of two
/// samples at one time the one stays that was stored first, and only their order tells which.
pub fn clean(blocks: &[BlockMeta], id: BlockId) -> Option<Plan> {
    let mut taken = vec![blocks.iter().find(|meta| meta.id == id)?];
    loop {
        let start_ms = taken.iter().map(|meta| meta.start_ms).min()?;
        let end_ms = taken.iter().map(|meta| meta.end_ms).max()?;
        let overlaps = |meta: &&BlockMeta| meta.start_ms < end_ms && start_ms < meta.end_ms;
        let all: Vec<&BlockMeta> = blocks.iter().filter(overlaps).collect();
        if all.len() == taken.len() {
            break;
        }
        taken = all;
    }
    let level = taken.iter().map(|meta| meta.level).max()?;
    Some(Plan { level, ..plan_of(&taken) })
}
