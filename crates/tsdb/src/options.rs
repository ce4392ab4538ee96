//! How a database is opened, and why that can fail.

use std::io;
use std::path::{Path, PathBuf};

use tidewatch_model::Limits;
use tidewatch_wal::WalOptions;

/// Length of a block before compaction.
pub const BLOCK_MS: i64 = 2 * 60 * 60 * 1000;

/// The share of ended series at which they leave the head, unless somebody says otherwise: what goes to
/// blocks of its own is worth the merges that it costs later.
pub const STALE_SHARE: f64 = 0.3;

/// Options of a database.
#[derive(Debug, Clone)]
pub struct DbOptions {
    /// Where the data lies; created if it is missing. Not used in memory.
    pub dir: PathBuf,
    pub limits: Limits,
    /// How long samples are kept; `None` keeps them for ever. Samples that are older when they
    /// come are refused. What is younger is taken for a series that has nothing newer: after an
    /// outage senders catch up, and their series are new here.
    pub retention_ms: Option<i64>,
    /// Bytes that blocks and log may take, and their share of the disk in percent: beyond it the
    /// oldest blocks go. The share wins where both are given.
    pub retention_bytes: Option<u64>,
    pub retention_percent: Option<f64>,
    /// Series that the head may have: more answer [`tidewatch_storage::AppendError::Overloaded`].
    pub series_max: usize,
    /// Images of the head are written when the log has grown by this and by the size of the last
    /// ones: what a start has to replay.
    pub image_log_bytes: u64,
    /// Bytes of a file of the log: of those that images make superfluous the newest stays.
    pub segment_bytes: u64,
    /// The share of the head's series at which those that have ended, by a marker of staleness, leave it
    /// before they are cut like all others; 0 for never.
    pub stale_share: f64,
    /// Exemplars that are kept, of all series; 0 keeps none.
    pub exemplars_max: usize,
}

impl DbOptions {
    /// Options with the limits of [`Limits::default`], 15 days of retention as Prometheus has,
    /// room for four million series (4 GiB at 1 KiB each), ended series that leave when they are three
    /// of ten, and a log of 32 MiB between images: a
    /// quarter of a second for one core.
    pub fn new(dir: impl Into<PathBuf>) -> DbOptions {
        DbOptions {
            dir: dir.into(),
            limits: Limits::default(),
            retention_ms: Some(15 * 24 * 60 * 60 * 1000),
            retention_bytes: None,
            retention_percent: None,
            series_max: 4 << 20,
            image_log_bytes: 32 << 20,
            segment_bytes: WalOptions::SEGMENT_BYTES,
            stale_share: STALE_SHARE,
            exemplars_max: 0,
        }
    }
}

/// How much is kept: see [`DbOptions`].
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Retention {
    pub time_ms: Option<i64>,
    pub size_bytes: Option<u64>,
    pub disk_percent: Option<f64>,
}

impl DbOptions {
    pub(crate) fn retention(&self) -> Retention {
        Retention {
            time_ms: self.retention_ms,
            size_bytes: self.retention_bytes,
            disk_percent: self.retention_percent,
        }
    }
}

/// Why a database can not be opened. Damaged data is not among the reasons: it
/// is set aside.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the directory.
    #[error("{}: the data directory is in use by another process", path.display())]
    Locked { path: PathBuf },
    /// The directory has files and no `FORMAT`: it belongs to something else.
    #[error(
        "{}: the directory has {found:?} in it and no FORMAT file of Tidewatch, so it is not Tidewatch's: \
         name an empty or a new directory (Prometheus' own data can not be used in place)",
        path.display()
    )]
    Foreign { path: PathBuf, found: String },
    /// What was to be read is no directory of ours, or none at all.
    #[error("{}: this is no data directory of Tidewatch", path.display())]
    NotOurs { path: PathBuf },
    /// The `FORMAT` file says something else than a format.
    #[error(
        "{}: this is not a format file of Tidewatch: name an empty or a new directory, or, if the \
         directory is Tidewatch's and only this file is damaged, write the line {expected:?} into it",
        path.display()
    )]
    NoFormat { path: PathBuf, expected: String },
    /// A newer release wrote the directory.
    #[error(
        "{}: the data directory has format {found}, written by a newer version of Tidewatch; \
         this one reads up to format {newest}: upgrade, or use another directory",
        path.display()
    )]
    Version { path: PathBuf, found: u32, newest: u32 },
    /// The disk failed, or permission is missing. Made by [`OpenError::io`].
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// The log can not be opened.
    #[error("{0}")]
    Log(String),
}

impl OpenError {
    /// What the disk says of a path. Missing permission has a remedy that the system does not name.
    pub fn io(path: &Path) -> impl FnOnce(io::Error) -> OpenError + use<> {
        let path = path.to_owned();
        move |error| {
            let source = match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    let remedy = "run this as the user whose data it is, or give this user the right";
                    io::Error::new(error.kind(), format!("{error}: {remedy}"))
                }
                _ => error,
            };
            OpenError::Io { path, source }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_disk_says_of_a_path_names_it_and_a_missing_permission_its_remedy() {
        let denied = OpenError::io(Path::new("/data/FORMAT"))(io::Error::from_raw_os_error(13));
        assert_eq!(
            denied.to_string(),
            "/data/FORMAT: Permission denied (os error 13): run this as the user whose data it is, or give this \
             user the right"
        );
        let failed = OpenError::io(Path::new("/data"))(io::Error::from_raw_os_error(5));
        assert_eq!(failed.to_string(), "/data: Input/output error (os error 5)");
    }
}
