//! What can go wrong with the journal, one variant for each reaction of the caller.

use std::path::PathBuf;

use tidewatch_wal::WalError;

#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// As the log says; a full disk passes, a latch stays until the journal is opened again.
    #[error("the journal of alerts: {0}")]
    Log(#[from] WalError),
    /// A newer release wrote the journal. Upgrade.
    #[error("{}: written in version {found} of the journal's format, this release reads {newest}", path.display())]
    Version { path: PathBuf, found: u8, newest: u8 },
}

impl JournalError {
    /// Whether the journal may take later what it did not take now; nothing of it is lost.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            JournalError::Log(WalError::Full { .. } | WalError::Backlog { .. } | WalError::Io { .. })
        )
    }
}
