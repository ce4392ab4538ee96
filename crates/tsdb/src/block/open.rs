//! From the bytes of a file to a block: by its index, or where that is damaged by the copies of it.
//!
//! ```text
//! file ─► header, table, sections under their checksums ─► Parts ─► Block
//!   └─ damaged ─► salvage: data as they are, index made anew ─┘
//! ```

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tidewatch_env::{Env, is_unreadable, unreadable};

use super::clocks::ClockTable;
use super::error::{BlockError, UNREADABLE};
use super::format::{self, BlockMeta, Header, SECTIONS, Section, SectionId};
use super::read::{Block, BlockIndex};
use super::salvage::{Kept, Salvaged, salvage};
use super::scan::ClockCache;
use super::series::SeriesTable;
use crate::index::dictionary::Dictionary;
use crate::index::lists::Lists;
use crate::wounds::{Wound, Wounds};

/// What was wrong with a file when it was opened.
#[derive(Debug, Default)]
pub(super) struct Opening {
    pub(super) flaws: Vec<Wound>,
    /// Whether the index was read from its copies,
    pub(super) is_salvaged: bool,
    /// and which series it has where some of these were damaged, too.
    pub(super) kept: Option<Kept>,
}

/// What a block is made of.
struct Parts {
    dense: bool,
    data: Bytes,
    /// Meta, labels, postings, clocks and series, each with its offset in the file.
    sections: [(u64, Bytes); 5],
    index: Bytes,
    size: u64,
    table_crc: u32,
    opening: Opening,
}

impl Parts {
    /// Of `tail`, which is all of a file from `tail_at` on; the data lie in it, or are given.
    fn of(
        tail: &Bytes,
        tail_at: u64,
        data: Option<Bytes>,
        dense: bool,
        opening: Opening,
    ) -> Result<Parts, (u64, &'static str)> {
        let size = tail_at + tail.len() as u64;
        let table = format::decode_table(tail, tail_at).map_err(|reason| (size, reason))?;
        let part = |section: &Section| {
            let start = (section.offset - tail_at) as usize;
            tail.slice(start..start + section.len as usize)
        };
        let holds = |section: &&Section| crc32fast::hash(&part(section)) == section.crc;
        let mut of_index = table.iter().filter(|section| section.id != SectionId::Data as u16);
        if let Some(bad) = of_index.find(|section| !holds(section)) {
            return Err((bad.offset, "a section's checksum does not hold"));
        }
        let section = |id: SectionId| {
            let found = table.iter().find(|section| section.id == id as u16);
            found.expect("the table was checked to have each")
        };
        let [_, sections @ ..] = SECTIONS.map(section);
        Ok(Parts {
            dense,
            data: data.unwrap_or_else(|| part(section(SectionId::Data))),
            index: tail.slice((sections[0].offset - tail_at) as usize..),
            sections: sections.map(|section| (section.offset, part(section))),
            size,
            table_crc: format::table_crc(tail),
            opening,
        })
    }

    fn assemble(self, path: &Path) -> Result<Block, BlockError> {
        let corrupt = |offset: u64, reason| BlockError::Corrupt { path: path.to_owned(), offset, reason };
        let [meta, labels, postings, clocks, series] = self.sections;
        let decoded = BlockMeta::decode(&meta.1, self.size).map_err(|reason| corrupt(meta.0, reason))?;
        let index = BlockIndex {
            dictionary: Dictionary::open(&labels.1).map_err(|error| corrupt(labels.0, error.0))?,
            lists: Lists::open(&postings.1).map_err(|error| corrupt(postings.0, error.0))?,
        };
        let clocks = ClockTable::open(clocks.1).map_err(|reason| corrupt(clocks.0, reason))?;
        let series = SeriesTable::open(&series.1).map_err(|error| corrupt(series.0, error.0))?;
        let agree = index.lists.len() == index.dictionary.pair_count()
            && index.lists.all().len() == decoded.series
            && u64::from(series.len()) == decoded.series;
        if !agree {
            return Err(corrupt(meta.0, "the sections contradict each other"));
        }
        if format::parse_block_name(path).is_some_and(|id| id != decoded.id) {
            return Err(corrupt(meta.0, "the file has the name of another block"));
        }
        let wounds = Wounds::default();
        for Wound { offset, reason } in self.opening.flaws.iter().cloned() {
            wounds.meet_healing(offset, reason);
        }
        Ok(Block {
            path: path.to_owned(),
            meta: decoded,
            dense: self.dense,
            data: self.data,
            clocks,
            series,
            clock_cache: Arc::new(ClockCache::new()),
            index: Arc::new(index),
            index_bytes: self.index,
            table_crc: self.table_crc,
            tombstones: Arc::default(),
            wounds: Arc::new(wounds),
            opening: Arc::new(self.opening),
            copied_columns: Arc::default(),
        })
    }
}

impl Block {
    /// Maps and checks the file at `path`. A disk that fails is asked once more; then, and where the index is damaged,
    /// the block is read by the copies among its data.
    pub fn open(env: &Env, path: &Path) -> Result<Block, BlockError> {
        let once = || {
            let file = env.disk.map(path).map_err(|source| match is_unreadable(&source) {
                true => BlockError::Unreadable { path: path.to_owned() },
                false => BlockError::Io { path: path.to_owned(), source },
            })?;
            let opened = Block::of_file(&file, path);
            // Zeros that were read for what the disk could not give look like damage.
            match unreadable(&file) {
                Some(_) => Ok((Err(BlockError::Unreadable { path: path.to_owned() }), file)),
                None => Ok((opened, file)),
            }
        };
        let (opened, file) = match once() {
            Err(BlockError::Unreadable { .. }) | Ok((Err(BlockError::Unreadable { .. }), _)) => once()?,
            other => other?,
        };
        opened.or_else(|error| Block::salvaged(&file, path, error))
    }

    /// A block from the bytes of its file. `path` names it in errors, and must name its id where
    /// it is the name of a block.
    pub fn from_bytes(file: Bytes, path: &Path) -> Result<Block, BlockError> {
        Block::of_file(&file, path).or_else(|error| Block::salvaged(&file, path, error))
    }

    /// A block whose index is whole.
    fn of_file(file: &Bytes, path: &Path) -> Result<Block, BlockError> {
        let corrupt = |offset: u64, reason| BlockError::Corrupt { path: path.to_owned(), offset, reason };
        let mut opening = Opening::default();
        let dense = match format::check_header(file) {
            Header::Good { dense } => dense,
            Header::Newer(found) => {
                return Err(BlockError::Version { path: path.to_owned(), found, newest: format::VERSION });
            }
            Header::Bad(reason) => {
                // What it says is little, and the end of the file tells a block from other files, too.
                format::decode_table(file, 0).map_err(|_| corrupt(0, reason))?;
                opening.flaws.push(Wound { offset: 0, reason: format!("{reason}; the rest is whole") });
                format::may_be_dense(file)
            }
        };
        let parts = Parts::of(file, 0, None, dense, opening);
        parts.map_err(|(at, reason)| corrupt(at, reason))?.assemble(path)
    }

    /// A block whose index is not, by the copies among its data.
    fn salvaged(file: &Bytes, path: &Path, error: BlockError) -> Result<Block, BlockError> {
        let (offset, reason) = match &error {
            BlockError::Corrupt { offset, reason, .. } => (*offset, *reason),
            BlockError::Unreadable { .. } => (0, UNREADABLE),
            _ => return Err(error),
        };
        let Some(salvaged) = salvage(file) else { return Err(error) };
        let Salvaged { dense, data, index, index_at, lost, kept } = salvaged;
        let reason = format!("{reason}; the index is read from its copies");
        let lacks_series = !lost.is_empty();
        let flaws = std::iter::once(Wound { offset, reason }).chain(lost).collect();
        let opening = Opening { flaws, is_salvaged: true, kept: lacks_series.then_some(kept) };
        let parts = Parts::of(&index, index_at, Some(data), dense, opening);
        parts.ok().and_then(|parts| parts.assemble(path).ok()).ok_or(error)
    }
}
