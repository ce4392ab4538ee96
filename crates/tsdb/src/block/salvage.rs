//! Reading a block whose index is damaged, by the copies among its data; and looking whether those are whole.
//!
//! ```text
//! damaged file ─► copies that are whole ─► the index of their series, in memory ─► Block, healed by the next merge
//! ```
//!
//! Where all copies are whole the index is made again byte for byte, so what is deleted of the block stays deleted.
//! Where some are damaged, too, their series are lost, and named by their numbers.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;

use super::clocks::Clock;
use super::copies::{IndexCopy, copies, gap_behind};
use super::error::BlockError;
use super::format::{BlockMeta, HEADER_LEN};
use super::read::Block;
use super::series::{Chunk, GROUP, Record};
use super::write::{IndexBuilder, WriterOptions};
use crate::index::IndexError;
use crate::wounds::Wound;

/// What is said of a column of timestamps that a copy has.
pub(super) const TIMES_COPIED: &str = "a column of timestamps is damaged; its copy is whole";

/// What stands in for the file of a block.
pub(super) struct Salvaged {
    pub(super) dense: bool,
    pub(super) data: Bytes,
    /// Everything behind the data, made anew, and where that begins in the file.
    pub(super) index: Bytes,
    pub(super) index_at: u64,
    /// Series of which nothing is known any more.
    pub(super) lost: Vec<Wound>,
    pub(super) kept: Kept,
}

/// Which series are left of a block, by the numbers that they had, ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept(Vec<Range<u32>>);

impl Kept {
    /// The number that a series has now; `None` where it is lost.
    pub(super) fn number(&self, before: u32) -> Option<u32> {
        let mut next = 0;
        for range in &self.0 {
            if range.contains(&before) {
                return Some(next + (before - range.start));
            }
            next += range.end - range.start;
        }
        None
    }
}

/// Makes the index of a file again; `None` where no copy is whole.
pub(super) fn salvage(file: &Bytes) -> Option<Salvaged> {
    let mut found: Vec<IndexCopy> = Vec::new();
    for copy in copies(file, HEADER_LEN) {
        let fits = found.last().is_none_or(|last| {
            let is_same = of_block(&last.meta) == of_block(&copy.meta) && last.is_dense == copy.is_dense;
            is_same && !last.is_last && last.end() <= copy.first
        });
        if fits && (copy.first as usize).is_multiple_of(GROUP) {
            found.push(copy);
        }
    }
    let (index, mut lost) = rebuild(&found);
    let last = found.last()?;
    if !last.is_last {
        lost.push(lost_from(last.range.end, last.end(), None));
    }
    let options = options(&last.meta, last.is_dense);
    let mut bytes = Vec::new();
    let write = |part: &[u8]| {
        bytes.extend_from_slice(part);
        Ok(())
    };
    let gap = if last.is_last { gap_behind(last.range.end) } else { 0 };
    let data_len = last.range.end.checked_add(gap as u64)?;
    index.finish(&options, data_len, write).ok().flatten()?;
    let index_at = data_len.checked_add(HEADER_LEN as u64)?;
    Some(Salvaged {
        dense: last.is_dense,
        data: file.slice(HEADER_LEN..index_at.min(file.len() as u64) as usize),
        index: bytes.into(),
        index_at,
        lost,
        kept: Kept(found.iter().map(|copy| copy.first..copy.end()).collect()),
    })
}

/// What all copies of a block have in common.
fn of_block(meta: &BlockMeta) -> BlockMeta {
    BlockMeta { min_ms: 0, max_ms: 0, series: 0, chunks: 0, samples: 0, ..meta.clone() }
}

fn options(meta: &BlockMeta, dense: bool) -> WriterOptions {
    WriterOptions {
        id: meta.id,
        start_ms: meta.start_ms,
        end_ms: meta.end_ms,
        level: meta.level,
        dense,
        parents: meta.parents.clone(),
    }
}

/// The index of the series of some copies, and those that lie between them.
fn rebuild(found: &[IndexCopy]) -> (IndexBuilder, Vec<Wound>) {
    let (mut index, mut lost) = (IndexBuilder::default(), Vec::new());
    // Clocks are numbered in the order of their first use, which is that of their columns.
    let mut clocks = BTreeMap::new();
    for copy in found {
        clocks.extend(copy.clocks.iter().map(|clock| (clock.offset, clock)));
    }
    let numbers: BTreeMap<u64, u32> =
        clocks.into_iter().map(|(offset, clock)| (offset, index.add_clock(clock))).collect();
    let (mut next, mut previous) = (0, None);
    for copy in found {
        if copy.first > next {
            lost.push(lost_from(copy.range.start, next, Some(copy.first - 1)));
        }
        let mut read = copy.first;
        let visited = copy.for_each(|labels, data_offset, chunks| {
            if previous.as_ref().is_some_and(|previous| previous >= labels) || chunks.is_empty() {
                return Err(IndexError("the series of a copy do not ascend"));
            }
            index.add_series(labels, data_offset);
            for chunk in chunks {
                let clock = copy.clocks.get(chunk.clock).expect("checked when it was read");
                index.add_chunk(Chunk { clock: numbers[&clock.offset], ..*chunk });
            }
            previous = Some(labels.clone());
            read += 1;
            Ok(())
        });
        if visited.is_err() {
            // Groups begin at multiples: behind a gap the places of series would be wrong.
            lost.push(lost_from(copy.range.start, read, None));
            return (index, lost);
        }
        next = copy.end();
    }
    (index, lost)
}

fn lost_from(data_offset: u64, first: u32, last: Option<u32>) -> Wound {
    let to = last.map_or_else(|| "on".to_owned(), |last| format!("to {last}"));
    let reason =
        format!("the copy of the index is damaged, too: the series from the block's {first}th {to} are lost");
    Wound { offset: data_offset.saturating_add(HEADER_LEN as u64), reason }
}

impl Block {
    /// What is wrong with the file besides chunks: what was when it was opened, and damage that costs nothing, to
    /// copies of the index and to columns of timestamps that copies have.
    pub(crate) fn flaws(&self) -> Result<Vec<Wound>, BlockError> {
        let mut found = self.flaws_of_clocks();
        found.extend_from_slice(&self.opening.flaws);
        if self.opening.is_salvaged {
            return Ok(found);
        }
        let (mut record, mut end) = (Record::default(), 0);
        for series in 0..self.series_count() {
            if (series as usize).is_multiple_of(GROUP) {
                let start = self.of_index(self.series.data_start(series))?;
                found.extend(self.flaw_of_copy(end..start));
            }
            self.read_series(series, &mut record)?;
            end = record.data_end().unwrap_or(end);
        }
        found.extend(self.flaw_of_copy(end..self.data.len() as u64));
        Ok(found)
    }

    /// The column of timestamps of a clock as a copy of the index has it.
    pub(super) fn copied_column(&self, clock: &Clock) -> Option<&[u8]> {
        let columns =
            self.copied_columns.get_or_init(|| copies(&self.data, 0).flat_map(|copy| copy.columns).collect());
        let column = columns.get(&clock.offset)?;
        let is_it = column.len() == clock.len as usize && crc32fast::hash(column) == clock.crc;
        is_it.then_some(&**column)
    }

    fn flaws_of_clocks(&self) -> Vec<Wound> {
        let is_flawed = |clock: &Clock| {
            self.column(clock.offset, clock.len, clock.crc).is_err() && self.copied_column(clock).is_some()
        };
        let flawed = self.clocks.iter().filter(is_flawed);
        flawed
            .map(|clock| Wound { offset: self.file_offset(clock.offset), reason: TIMES_COPIED.into() })
            .collect()
    }

    /// Whether something else than a whole copy stands between the data of series.
    fn flaw_of_copy(&self, between: Range<u64>) -> Option<Wound> {
        if between.is_empty() {
            return None;
        }
        let bytes = self.data.get(between.start as usize..between.end as usize);
        let is_whole = bytes.is_some_and(|bytes| {
            let Some(copy) = IndexCopy::read(bytes) else { return false };
            let gap = if copy.is_last { gap_behind(copy.range.end) } else { 0 };
            let behind = copy.range.end.checked_sub(between.start).and_then(|len| bytes.get(len as usize..));
            copy.range.start == between.start
                && behind.is_some_and(|zeros| zeros.len() == gap && zeros.iter().all(|byte| *byte == 0))
        });
        let reason = "a copy of the index is damaged; the index is whole".to_owned();
        (!is_whole).then(|| Wound { offset: self.file_offset(between.start), reason })
    }
}
