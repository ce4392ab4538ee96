//! Images: the state of a shard, or of the directory of series, at a position of the log.
//!
//! A start loads images and replays only what the log has behind them. An image is one file:
//!
//! ```text
//! offset  size  field
//!      0     4  magic     "TWIM"
//!      4     2  version   4
//!      6     1  kind      1 series, 2 shard
//!      7     1  shard     0 for series
//!      8     8  segment   the position in the log up to which the state goes
//!     16     8  offset
//!     24     8  floor     of the shard
//!     32     8  bar       of the shard
//!     40     4  next id   of the series
//!     44     4  sections
//!     48     8  owner     the data directory, see `owner`; 0 where that is not said, as in version 3
//!     56     4  reserved  zero
//!     60     4  crc32     over bytes 0..60
//!     64     …  sections, each: length u32, crc32 of the body u32, body
//!      …     …  parity    of all sections with what is before each, see `parity`
//!      …     …  of each section the length and the crc32 once more
//!      …     4  count     of these
//!      …     4  crc32     over the word "parity", the checksums of the parity, these and the count
//!      …    64  the header once more
//! ```
//!
//! The images of earlier releases end behind their sections; see `sections`.
//!
//! The pairs of the series come in sections, then these in sections of up to 1,024. (Behind them earlier
//! releases wrote the pairs once more.)
//!
//! ```text
//! pairs   kind u8: 1; the number of the first, varint; varint, how many; of each: name and value,
//!         each length (varint) and bytes
//! series  kind u8: 2; u32; varint, how many; of each:
//!   id      varint, how far behind the next: the u32 or the id behind the series before
//!   labels  varint, how many; for each seven of them: u8, a bit for each, lowest first, that is set
//!           where the series before has the same pair at this place; of the others the numbers,
//!           varints
//! ```
//!
//! A shard begins with a section of its clocks: how many, then of each its number, how many rows, and
//! the length of their column and that (varints but the column). A section for each page follows:
//!
//! ```text
//! page    varint
//! series  varint, how many; of each:
//!   slot    varint, within the page: how far behind the slot after the series before
//!   shape   varint, twice its number among the shapes of the section, one more with late samples; one
//!           more than all that were named stands for the next, and that follows:
//!             chunks  varint, how many; from old to new: clock varint, first row u8, count u8
//!             open    count u8; unless 0: clock varint, first row u8
//!   chunks  of each: length varint, column
//!   open    unless 0: varint, twice the length, one more for a column; column, or:
//!             exponent in six bits, 63 for none, the next bit for a last token that repeats; tokens
//!             (see `cells`)
//!   late    where there are: varint, how many; for each 1,024 of them: columns of timestamps and of
//!           values, each with its length before it
//! ```
//!
//! Then, for each page that has native histograms or start timestamps, a section of these:
//!
//! ```text
//! page    varint, 2^32 more than its number
//! series  varint, how many; of each:
//!   slot    varint, within the page
//!   sealed  varint, how many runs; from old to new: kind u8, count varint, length of the column of
//!           timestamps varint, length varint, columns of timestamps and of histograms
//!   open    varint, how many rows; unless 0: layout (u8: 0 none, 1 of integers, 2 of floats, then
//!           see `rows`), timestamps as differences (zigzag varints), length varint, rows
//!   late    varint, how many; of each: timestamp i64, histogram (see `rows`)
//!   starts  varint, how many steps; of each: from i64, start i64
//! ```
//!
//! A section of what is deleted, and one of what is deleted of histograms, where something is: see
//! `deleted`.
//!
//! In versions 1 and 2 a section of series is the body of a definitions frame (see `log`), the rows of a
//! clock are differences (zigzag varints), and of a page's series each has its own numbers:
//!
//! ```text
//! slot    varint, within the page
//! chunks  varint, how many; from old to new: clock varint, first row u8, count u8, length varint,
//!         column
//! open    count u8; unless 0: clock varint, first row u8, repeating u8, exponent u8, newest
//!         value u64, length varint, tokens
//! late    varint, how many; of each: timestamp i64, bits u64
//! ```
//!
//! Damage in one place costs nothing, as its section is rebuilt from the parity; where more is damaged it costs the
//! sections that it is in. Lost pairs cost the series that bear one of them, and lost clocks the runs of floats, which
//! have no times without, and not what has times of its own. The columns of sealed runs are not copied out of the file
//! again: once it is there they are read from it, and the heap is rid of them.

mod parity;
mod read;
mod sections;
mod series;
#[cfg(test)]
mod tests;
mod write;

use super::registry::SeriesId;
use super::{PAGE_SERIES, SHARDS};

pub(crate) use read::Remains;
pub use read::walk;
pub(crate) use sections::{Section, sections};
pub(crate) use series::{SeriesVisitor, visit_series};
pub(crate) use write::Placed;

pub(crate) const HEADER_LEN: usize = 64;
const MAGIC: [u8; 4] = *b"TWIM";
/// The newest that this release reads, and the one that it writes.
pub(crate) const VERSION: u16 = 4;

/// Added to the number of a page, or to [`DELETED_PAGE`], in a section of histograms.
const HISTOGRAMS: u64 = 1 << 32;

/// Late samples of one pair of columns.
const LATE_PIECE: usize = 1024;

/// The parts of the byte that goes with an open run's tokens.
const REPEATING: u8 = 1 << 6;
const EXPONENT_BITS: u8 = REPEATING - 1;

/// The number of a series' page within its shard.
fn page_of(id: SeriesId) -> u64 {
    u64::from(id.0 / PAGE_SERIES) / SHARDS as u64
}

/// What an image is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ImageKind {
    Series,
    Shard(usize),
}

/// The fields of the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ImageHeader {
    pub(crate) version: u16,
    pub(crate) kind: ImageKind,
    /// Segment and offset in the log.
    pub(crate) position: (u64, u64),
    pub(crate) floor: i64,
    pub(crate) bar: i64,
    pub(crate) next_id: u32,
    pub(crate) sections: u32,
    /// Of which data directory; 0 where that is not said.
    pub(crate) owner: u64,
}

/// Why an image is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ImageError {
    #[error("the header is damaged")]
    Header,
    #[error("version {0} of the image's format is newer than this release reads")]
    Version(u16),
}

impl ImageHeader {
    /// Whether the image is of another data directory.
    pub(crate) fn is_foreign(&self, owner: u64) -> bool {
        self.owner != 0 && owner != 0 && self.owner != owner
    }

    fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&self.version.to_le_bytes());
        (bytes[6], bytes[7]) = match self.kind {
            ImageKind::Series => (1, 0),
            ImageKind::Shard(shard) => (2, shard as u8),
        };
        bytes[8..16].copy_from_slice(&self.position.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.position.1.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.floor.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.bar.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.next_id.to_le_bytes());
        bytes[44..48].copy_from_slice(&self.sections.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.owner.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<ImageHeader, ImageError> {
        let bytes = bytes.first_chunk::<HEADER_LEN>().ok_or(ImageError::Header)?;
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let half = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        if bytes[..4] != MAGIC || half(60) != crc32fast::hash(&bytes[..60]) {
            return Err(ImageError::Header);
        }
        let version = u16::from_le_bytes([bytes[4], bytes[5]]);
        if !(1..=VERSION).contains(&version) {
            return Err(ImageError::Version(version));
        }
        let kind = match (bytes[6], usize::from(bytes[7])) {
            (1, 0) => ImageKind::Series,
            (2, shard) if shard < SHARDS => ImageKind::Shard(shard),
            _ => return Err(ImageError::Header),
        };
        // The log goes on behind it: see `wal` for the numbers of segments.
        let owner = if version < 4 { 0 } else { word(48) };
        let has_more = half(56) != 0 || version < 4 && word(48) != 0;
        if has_more || word(8) >= 1 << 32 || word(16) >= 1 << 32 {
            return Err(ImageError::Header);
        }
        let (position, floor, bar) = ((word(8), word(16)), word(24) as i64, word(32) as i64);
        Ok(ImageHeader { version, kind, position, floor, bar, next_id: half(40), sections: half(44), owner })
    }
}
