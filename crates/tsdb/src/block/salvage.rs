//! Reading a block whose index is damaged, by the copies among its data; and looking whether those are whole.
//!
//! ```text
//! damaged file ─► copies that are whole ─► the index of their series, in memory ─► Block, healed by the next merge
//! ```
//!
//! Where all copies are whole the index is made again byte for byte, so what is deleted of the block stays deleted.
//! Where some are damaged, too, their series are lost, and named by their numbers.

use std::ops::Range;

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use tidewatch_model::Labels;

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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Kept(Vec<Range<u32>>);

impl Kept {
    /// Adds series that follow those that are here, closely or not.
    fn add(&mut self, series: Range<u32>) {
        match self.0.last_mut() {
            Some(last) if last.end == series.start => last.end = series.end,
            _ => self.0.push(series),
        }
    }

    /// The number behind the last that a series had.
    fn end(&self) -> u32 {
        self.0.last().map_or(0, |last| last.end)
    }

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
    let mut rebuilt = Rebuilt::default();
    // One at a time: decompressed, all of them are larger than the index.
    for copy in copies(file.get(HEADER_LEN..)?, 0) {
        if rebuilt.fits(&copy) && rebuilt.add(copy).is_err() {
            break;
        }
    }
    rebuilt.finish(file)
}

/// The index of the series of some copies.
#[derive(Default)]
struct Rebuilt {
    index: IndexBuilder,
    /// The numbers of clocks by where their columns lie. They are given in the order of first use, as by the writer.
    clocks: HashMap<u64, u32, RandomState>,
    kept: Kept,
    lost: Vec<Wound>,
    /// The copy and the series that were added last.
    last: Option<IndexCopy>,
    labels: Option<Labels>,
}

impl Rebuilt {
    /// Whether a copy is one of the same block and of series behind those that are here.
    fn fits(&self, copy: &IndexCopy) -> bool {
        let follows = self.last.as_ref().is_none_or(|last| {
            let is_same = of_block(&last.meta) == of_block(&copy.meta) && last.is_dense == copy.is_dense;
            is_same && !last.is_last && last.series.end <= copy.series.start
        });
        // Only of the first series of a group the index says where its data begins.
        follows && (self.index.series_count() as usize).is_multiple_of(GROUP)
    }

    /// Adds the series of a copy, as far as they can be read.
    fn add(&mut self, copy: IndexCopy) -> Result<(), IndexError> {
        let (next, first) = (self.kept.end(), copy.series.start);
        if first > next {
            self.lost.push(lost_from(copy.range.start, next, Some(first - 1)));
        }
        for clock in copy.clocks.iter() {
            self.clocks.entry(clock.offset).or_insert_with(|| self.index.add_clock(clock));
        }
        let mut read = first;
        let visited = copy.for_each(|labels, data_offset, chunks| {
            if self.labels.as_ref().is_some_and(|before| before >= labels) || chunks.is_empty() {
                return Err(IndexError("the series of a copy do not ascend"));
            }
            self.index.add_series(labels, data_offset);
            for chunk in chunks {
                let clock = copy.clocks.get(chunk.clock).expect("checked when it was read");
                self.index.add_chunk(Chunk { clock: self.clocks[&clock.offset], ..*chunk });
            }
            self.labels = Some(labels.clone());
            read += 1;
            Ok(())
        });
        self.kept.add(first..read);
        self.last = Some(copy);
        visited
    }

    fn finish(mut self, file: &Bytes) -> Option<Salvaged> {
        let last = self.last?;
        if !last.is_last || self.kept.end() < last.series.end {
            self.lost.push(lost_from(last.range.end, self.kept.end(), None));
        }
        let gap = if last.is_last { gap_behind(last.range.end) } else { 0 };
        let data_len = last.range.end.checked_add(gap as u64)?;
        let index_at = data_len.checked_add(HEADER_LEN as u64)?;
        let mut index = Vec::new();
        let write = |part: &[u8]| {
            index.extend_from_slice(part);
            Ok(())
        };
        self.index.finish(&options(&last.meta, last.is_dense), data_len, write).ok().flatten()?;
        Some(Salvaged {
            dense: last.is_dense,
            data: file.slice(HEADER_LEN..index_at.min(file.len() as u64) as usize),
            index: index.into(),
            index_at,
            lost: self.lost,
            kept: self.kept,
        })
    }
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
        if !self.opening.is_salvaged {
            found.extend(self.between_series()?.into_iter().filter_map(|between| self.flaw_of_copy(between)));
        }
        Ok(found)
    }

    /// What of the data is of no series: where copies of the index lie, in blocks that have them.
    fn between_series(&self) -> Result<Vec<Range<u64>>, BlockError> {
        let (mut record, mut end, mut found) = (Record::default(), 0, Vec::new());
        for series in 0..self.series_count() {
            if (series as usize).is_multiple_of(GROUP) {
                found.push(end..self.of_index(self.series.data_start(series))?);
            }
            self.read_series(series, &mut record)?;
            end = record.data_end().unwrap_or(end);
        }
        found.push(end..self.data.len() as u64);
        found.retain(|between| !between.is_empty());
        Ok(found)
    }

    /// The column of timestamps of a clock as a copy of the index has it.
    pub(super) fn copied_column(&self, clock: &Clock) -> Option<&[u8]> {
        let column = self.copied_columns.get_or_init(|| self.read_copied_columns()).get(&clock.offset)?;
        let is_it = column.len() == clock.len as usize && crc32fast::hash(column) == clock.crc;
        is_it.then_some(&**column)
    }

    /// Reads the copies and nothing else of the data, as a query waits for it; the columns alone are kept.
    fn read_copied_columns(&self) -> HashMap<u64, Box<[u8]>> {
        let between = self.between_series().unwrap_or_default();
        let copies = between.iter().filter_map(|between| IndexCopy::read(self.data_in(between)));
        copies.flat_map(|copy| copy.columns).map(|(offset, column)| (offset, (&*column).into())).collect()
    }

    /// Some bytes of the data; none where they lie outside the file.
    fn data_in(&self, range: &Range<u64>) -> &[u8] {
        self.data.get(range.start as usize..range.end as usize).unwrap_or_default()
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
        let bytes = self.data_in(&between);
        let is_whole = IndexCopy::read(bytes).is_some_and(|copy| {
            let gap = if copy.is_last { gap_behind(copy.range.end) } else { 0 };
            let behind = copy.range.end.checked_sub(between.start).and_then(|len| bytes.get(len as usize..));
            copy.range.start == between.start
                && behind.is_some_and(|zeros| zeros.len() == gap && zeros.iter().all(|byte| *byte == 0))
        });
        let reason = "a copy of the index is damaged; the index is whole".to_owned();
        (!is_whole).then(|| Wound { offset: self.file_offset(between.start), reason })
    }
}
