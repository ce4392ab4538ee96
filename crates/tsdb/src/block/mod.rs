//! Blocks: immutable files of some hours of samples with an index of their own.
//!
//! ```text
//! head ── cut ──► Writer ──► 00000017.block ──► Block ── select, scan ──► queries
//!                   ▲                             │
//!                   └────────── compact ◄─────────┘
//! ```
//!
//! One file a block, so that its name appears, is linked and goes away at once. The layout:
//!
//! ```text
//! header    16 bytes, see `format`
//! data      columns of values, in the order of series; a clock's column stands before the first
//!           values that use it; behind each 256 series a copy of what the index says of them, and behind
//!           the last copy perhaps a page of zeros, see `copies`
//! meta      what the block holds, see `format`
//! labels    names and their values, see `index::dictionary`
//! postings  series by pair, see `index::lists`
//! clocks    the table of clocks, see `clocks`
//! series    pairs and chunks of each series, see `series`
//! table     where the sections are, with their checksums, and the footer, see `format`
//! ```
//!
//! A *chunk* is a stretch of one series: a clock and a column of values, which are floats or native
//! histograms whose buckets lie alike, and perhaps a column of start timestamps. A *clock* is a column of
//! timestamps that all chunks with these timestamps share: most series of a target do.
//!
//! Blocks of many hours are *dense*: their chunks are longer, and those that repeat themselves lie under
//! zstd (`tidewatch_chunk::DenseEncoder`).
//!
//! Invariants: every byte of the file is under some checksum or zero, sections follow each other without
//! gaps; series ascend by labels, the chunks of a series in time; a block with its name in place is
//! complete and synced; equal input gives equal bytes.
//!
//! Not here: which blocks there are and when they go (`compact`, the database), samples that are
//! not cut yet (`head`).

mod clocks;
mod copies;
mod error;
mod format;
mod open;
mod read;
mod salvage;
mod scan;
mod series;
mod tombstones;
mod write;

pub use crate::gather::{StoredRun, StoredValues};
pub use copies::copy_of;
pub(crate) use error::UNREADABLE;
pub use error::{BlockError, Damage};
pub(crate) use format::is_block;
pub use format::{BlockId, BlockMeta, FILE_SUFFIX, block_path, parse_block_name, reseal};
pub use read::{Block, BlockIndex};
pub use scan::Cursor;
pub(crate) use tombstones::TOMBSTONES_FLAWED;
pub use tombstones::{Tombstones, TombstonesError, parse_tombstones_name, tombstones_path};
pub use write::{Writer, WriterOptions};

/// Chunks do not cross multiples of this, so that those of series which share timestamps begin
/// and end together and share the clock: at 15 s a chunk has 480 samples, which the codecs like.
pub const CHUNK_SPAN_MS: i64 = 2 * 60 * 60 * 1000;

/// Samples of one chunk: a query of a few minutes decodes no more to reach them.
pub const CHUNK_SAMPLES_MAX: usize = 1024;

/// The same in a dense block, from its beginning on. A compressor finds more in longer chunks, and who
/// reads what is that old mostly reads much of it. Two of these are the 18 hours of a large block.
pub const DENSE_SPAN_MS: i64 = 9 * 60 * 60 * 1000;

/// Decoded in some 15 µs.
pub const DENSE_SAMPLES_MAX: usize = 4096;

#[cfg(test)]
pub(crate) mod tests;
