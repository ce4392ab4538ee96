//! What can go wrong with a block, by what the caller does about it.

use std::io;
use std::path::PathBuf;

/// Why a block could not be written, opened or read.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// The disk failed; the block may be fine. Try again.
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// The disk can not give a part of what it has. Try again; then set the block aside.
    #[error("{}: {UNREADABLE}", path.display())]
    Unreadable { path: PathBuf },
    /// The bytes contradict the format or their checksum. Set the block aside.
    #[error("{} is damaged at offset {offset}: {reason}", path.display())]
    Corrupt { path: PathBuf, offset: u64, reason: &'static str },
    /// A newer release wrote the block. Upgrade.
    #[error("{} has version {found}; this release reads up to {newest}", path.display())]
    Version { path: PathBuf, found: u16, newest: u16 },
    /// A part of one series can not be read; the rest of the block can.
    #[error("{0}")]
    Damaged(Box<Damage>),
}

/// Why bytes are taken for damaged whose disk can not give them.
pub(crate) const UNREADABLE: &str = "the disk can not read it";

/// A chunk that can not be read, named so that a person can tell what is missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} is damaged at offset {offset}: {}",
    path.display(),
    self.what()
)]
pub struct Damage {
    pub path: PathBuf,
    pub offset: u64,
    /// The labels, as they are printed.
    pub series: String,
    /// The first and last millisecond that may have had a sample.
    pub start_ms: i64,
    pub end_ms: i64,
    pub reason: String,
    /// The number of the series in its block.
    pub(crate) number: u32,
}

impl Damage {
    /// Whether it is there to stay: what the disk can not read now it may read at the next start.
    pub(crate) fn is_mendable(&self) -> bool {
        self.reason != UNREADABLE
    }

    /// What is the matter, without the place.
    pub(crate) fn what(&self) -> String {
        let Damage { series, start_ms, end_ms, reason, .. } = self;
        format!("{reason}; {series} lacks its samples from {start_ms} to {end_ms} ms")
    }
}
