//! A durable log of opaque frames, in order, that survives a crash.
//!
//! ```text
//! tsdb, journal ── append ──► Wal ── commit ──► 00000017.wal ──► Reader ──► tsdb, journal
//! ```
//!
//! [`Wal::append`] copies a frame into memory and returns its [`Position`]; [`Wal::commit`]
//! writes whatever all callers have appended and syncs once for everybody. A frame is durable
//! when [`Wal::durable`] is beyond its position. After a crash [`Reader`] yields every durable
//! frame, perhaps a few later ones, and never a damaged one.
//!
//! Invariants:
//! - A frame never spans segments, so that removing one cannot cut a neighbour.
//! - A segment is synced, and so is its name, before the next one holds anything.
//! - Bytes on the disk are never overwritten by another process: each open begins a new
//!   segment, whose header says where the one before ended.
//! - Damage costs the damaged frame: the reader finds the next one by its magic, salt and
//!   checksum. A torn end of the newest segment is an end, not damage.
//! - After a failed sync nothing is accepted any more ([`WalError::Latched`]): the kernel may
//!   have dropped what it could not write, and a second sync would say all is well.
//!
//! Not here: what a frame means, when segments may go (`tsdb`, `journal`), and who calls
//! `commit` how often (the binary).

mod error;
mod format;
mod pending;
mod reader;
mod scan;
mod segments;
mod writer;

pub use error::WalError;
pub use format::{
    FRAME_BYTES_MAX, FRAME_HEADER_SIZE, Position, SEGMENT_HEADER_SIZE, is_segment, segment_owner,
};
pub use pending::PENDING_BYTES_MAX;
pub use reader::{Damage, Frame, Item, Loaded, Reader};
pub use segments::{number as segment_number, path as segment_path};
pub use writer::{OpenReport, Wal, WalOptions};
