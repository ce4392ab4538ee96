//! What can go wrong with a log, one variant for each reaction of the caller.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Debug, Clone, thiserror::Error)]
pub enum WalError {
    /// The log could not be opened or read, or an old segment not be removed. Try again.
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: Arc<io::Error> },
    /// There is no room. What was appended is kept in memory, and the next commit tries again;
    /// until one succeeds, nothing more is accepted.
    #[error("{}: no room to write: {source}", path.display())]
    Full { path: PathBuf, source: Arc<io::Error> },
    /// A write or a sync failed, now or earlier: what is on the disk is unknown. Reopen.
    #[error("{}: the log is closed for writing since this failed: {source}", path.display())]
    Latched { path: PathBuf, source: Arc<io::Error> },
    /// More is appended and not committed than memory may hold. Commit, then append again.
    #[error("{pending_bytes} bytes wait to be written to the log, which is the limit")]
    Backlog { pending_bytes: usize },
    /// The frame is larger than any reader accepts. Split it.
    #[error("a frame of {len} bytes is larger than {}", crate::FRAME_BYTES_MAX)]
    TooLarge { len: usize },
    /// A newer release wrote the segment. Upgrade.
    #[error("{}: written in version {found} of the log's format, this release reads {newest}", path.display())]
    Version { path: PathBuf, found: u16, newest: u16 },
}

impl WalError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> WalError {
        let path = path.into();
        move |source| WalError::Io { path, source: Arc::new(source) }
    }
}
