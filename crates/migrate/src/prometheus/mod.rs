//! Prometheus' data directory: read as it lies there, and blocks written that it opens.
//!
//! ```text
//!  01J…/meta.json       Meta           what the block is
//!  01J…/index           Index          series: labels, and where their chunks are
//!  01J…/chunks/000001   xor, xor2, histogram   samples
//!  01J…/tombstones      tombstones     what was deleted
//!  wal/00000017         wal ─► record  what is not in a block yet
//! ```
//!
//! Invariants: every part is checked against its CRC-32C before it is used; damage is named by
//! file and offset and costs the series, chunk or record that it hit.
//!
//! Not here: histograms with start timestamps, which no release of Prometheus writes to blocks so far.

mod bits;
mod block;
mod histogram;
mod index;
mod reader;
mod record;
mod tombstones;
mod wal;
mod write;
mod xor;
mod xor2;

pub use block::{Block, Meta, Run, Values};
pub use histogram::{FLOAT, INTEGER, decode as decode_histograms};
pub use index::{ChunkAt, Index, Series};
pub use record::{At, Metadata, Record, decode as decode_record};
pub use tombstones::{Interval, Tombstones, decode as decode_tombstones, is_deleted};
pub use wal::{Segments, read_segment};
pub use write::BlockWriter;
pub use xor::{decode as decode_xor, encode as encode_xor};
pub use xor2::decode as decode_xor2;
