//! Prometheus' data directory: read as it lies there, and blocks written that it opens.
//!
//! ```text
//!  01J…/meta.json       Meta           what the block is
//!  01J…/index           Index          series: labels, and where their chunks are
//!  01J…/chunks/000001   Chunks ─► xor  samples
//!  01J…/tombstones      tombstones     what was deleted
//!  wal/00000017         wal ─► record  what is not in a block yet
//! ```
//!
//! Invariants: every part is checked against its CRC-32C before it is used; damage is named by
//! file and offset and costs the series, chunk or record that it hit.
//!
//! Not here: native histograms, whose chunks and records are counted under their names; exemplars
//! and metadata, which are passed over.

mod block;
mod index;
mod reader;
mod record;
mod tombstones;
mod wal;
mod write;
mod xor;

pub use block::{Block, Meta, Run};
pub use index::{ChunkAt, Index, Series};
pub use record::{Record, decode as decode_record};
pub use tombstones::{Interval, Tombstones, decode as decode_tombstones, is_deleted};
pub use wal::{Segments, read_segment};
pub use write::BlockWriter;
pub use xor::{decode as decode_xor, encode as encode_xor};
