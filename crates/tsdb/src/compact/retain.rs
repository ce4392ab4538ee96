//! Which blocks have had their time, or are too many.
//!
//! A clock that is wrong for a moment must cost nothing. It stamps samples, too, so neither it nor the newest
//! sample says how late it is: blocks do, where they tell of hours that went by.
//!
//! ```text
//! blocks    [────────────────────────]   [──]                                            [─]
//!            half a day and more, with    short: many must follow                         a clock a year ahead
//!            gaps of a few hours      ▲
//!                                     └── passed: age is measured from here
//! ```

use crate::block::{BlockId, BlockMeta};

/// A stretch that is as long was no moment. Where less than this is kept, what is kept. Between its blocks lies
/// less than half of it.
const LONG_MS: i64 = 12 * HOUR_MS;
/// So many short stretches are not believed, of those that get samples now and then the newest.
const SHORT_MAX: usize = 8;

const HOUR_MS: i64 = 60 * 60 * 1000;

/// The newest time of which the blocks tell that it has passed, if they do.
pub fn passed(blocks: &[BlockMeta], retention_ms: i64) -> Option<i64> {
    let mut ranges: Vec<(i64, i64)> = blocks.iter().map(|meta| (meta.min_ms, meta.max_ms)).collect();
    ranges.sort_unstable();
    let long_ms = LONG_MS.min(retention_ms);
    let mut stretches: Vec<(i64, i64)> = Vec::new();
    for (min_ms, max_ms) in ranges {
        match stretches.last_mut().filter(|last| min_ms.saturating_sub(last.1) < long_ms / 2) {
            Some(last) => last.1 = last.1.max(max_ms),
            None => stretches.push((min_ms, max_ms)),
        }
    }
    let is_long = |(min_ms, max_ms): &(i64, i64)| max_ms.saturating_sub(*min_ms) >= long_ms;
    let long = stretches.iter().rposition(is_long);
    let believed = long.max(stretches.len().checked_sub(SHORT_MAX + 1))?;
    Some(stretches[believed].1)
}

/// The oldest time that is within retention: age is measured against the earlier of the clock and the newest
/// time that is known, so a clock that jumps ahead deletes nothing and refuses nothing.
pub fn kept_from(retention_ms: i64, newest_ms: i64, now_ms: i64) -> i64 {
    newest_ms.min(now_ms).saturating_sub(retention_ms)
}

/// Blocks whose last sample is older than `retention_ms`: see [`passed`].
pub fn expired(blocks: &[BlockMeta], retention_ms: i64, now_ms: i64) -> Vec<BlockId> {
    let Some(passed_ms) = passed(blocks, retention_ms) else { return Vec::new() };
    let from_ms = kept_from(retention_ms, passed_ms, now_ms);
    blocks.iter().filter(|meta| meta.max_ms < from_ms).map(|meta| meta.id).collect()
}

/// The oldest blocks, as many as are too many for `bytes_max`; `head_bytes` are taken besides.
pub fn beyond_size(blocks: &[BlockMeta], head_bytes: u64, bytes_max: u64) -> Vec<BlockId> {
    let mut newest_first: Vec<&BlockMeta> = blocks.iter().collect();
    newest_first.sort_unstable_by_key(|meta| std::cmp::Reverse((meta.max_ms, meta.id)));
    let mut bytes = head_bytes;
    let fit = newest_first.iter().take_while(|meta| {
        bytes = bytes.saturating_add(meta.size);
        bytes <= bytes_max
    });
    let fit = fit.count();
    newest_first[fit..].iter().map(|meta| meta.id).collect()
}
